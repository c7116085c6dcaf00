//! The way down from a storage root, on which no symbolic link is followed: one below the root could lead out of it, or to
//! another attachment. The system looks for links on the way that it walks, or else each name is looked up in the directory
//! that was opened before it, so that nobody can change the way between a look and its use. All of this blocks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, open, openat, statat};
#[cfg(target_os = "linux")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::io::Errno;

const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// Reads a whole file at `path`, which is written with slashes, below `root`.
pub(super) fn read(root: &Path, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(walk(root, path, OFlags::empty())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Looks that the way down to a directory is one of directories. One that ends before it is as good.
pub(super) fn check(root: &Path, path: &str) -> io::Result<()> {
    match walk(root, path, OFlags::DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        walked => walked.map(drop),
    }
}

fn walk(root: &Path, path: &str, last: OFlags) -> io::Result<OwnedFd> {
    let mut at = open(root, OPEN | OFlags::DIRECTORY, Mode::empty())?;
    #[cfg(target_os = "linux")]
    match openat2(&at, path, OPEN | last, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) if !path.is_empty() => return Err(Errno::NOENT.into()),
        // There is a link, whose name is to be said, or a kernel or a sandbox that does not know the call.
        Err(_) => {}
    }
    let mut names = path.split('/').filter(|name| !name.is_empty()).peekable();
    while let Some(name) = names.next() {
        let kind = if names.peek().is_some() { OFlags::DIRECTORY } else { last };
        at = match openat(&at, name, OPEN | OFlags::NOFOLLOW | kind, Mode::empty()) {
            Ok(below) => below,
            Err(errno) => return Err(named(&at, name, errno)),
        };
    }
    Ok(at)
}

/// What kept a name from being opened. Of a link the system says one thing or another, depending on what was asked for.
fn named(at: &OwnedFd, name: &str, errno: Errno) -> io::Error {
    let is_link = statat(at, name, AtFlags::SYMLINK_NOFOLLOW)
        .is_ok_and(|found| FileType::from_raw_mode(found.st_mode) == FileType::Symlink);
    if is_link {
        return io::Error::new(io::ErrorKind::NotADirectory, format!("{name} is a symbolic link"));
    }
    errno.into()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// A root with a file at `a/b/c`, and beside the root a directory that looks the same.
    fn folders() -> (tempfile::TempDir, std::path::PathBuf, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (root, outside) = (folder.path().join("root"), folder.path().join("outside"));
        for (of, text) in [(&root, "inside"), (&outside, "outside")] {
            fs::create_dir_all(of.join("a/b")).unwrap();
            fs::write(of.join("a/b/c"), text).unwrap();
        }
        (folder, root, outside)
    }

    #[test]
    fn what_lies_below_the_root_is_read_and_what_is_missing_is_not_found() {
        let (_folder, root, _) = folders();
        assert_eq!(read(&root, "a/b/c").unwrap(), b"inside");
        assert_eq!(check(&root, "a/b/").unwrap(), ());
        for missing in ["x", "a/x", "a/x/c", "x/b/c"] {
            assert_eq!(read(&root, missing).unwrap_err().kind(), io::ErrorKind::NotFound, "{missing}");
            check(&root, missing).unwrap();
        }
        assert_eq!(read(&root, "a/b/c/d").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(check(&root, "a/b/c").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(read(&root, "a/b").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(read(&root.join("x"), "a").unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_link_anywhere_below_the_root_is_refused_wherever_it_leads() {
        for (link, target) in [("a", ""), ("a/b", ""), ("a/b/c", ""), ("a/b", "/nowhere"), ("a/b/c", "/nowhere")] {
            let (_folder, root, outside) = folders();
            let at = root.join(link);
            fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)).unwrap();
            // To the same place outside, to the same place inside by another name, to nothing, and to itself.
            for target in [outside.join(link), root.join(link), target.into(), link.rsplit('/').next().unwrap().into()]
            {
                if target.as_os_str().is_empty() {
                    continue;
                }
                symlink(&target, &at).unwrap();
                let error = read(&root, "a/b/c").unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{link} to {}: {error}", target.display());
                assert!(error.to_string().ends_with("is a symbolic link"), "{error}");
                if link != "a/b/c" {
                    assert_eq!(check(&root, "a/b").unwrap_err().kind(), io::ErrorKind::NotADirectory, "{link}");
                }
                fs::remove_file(&at).unwrap();
            }
        }
    }

    #[test]
    fn the_root_itself_may_be_reached_by_a_link() {
        let (folder, root, _) = folders();
        let link = folder.path().join("link");
        symlink(&root, &link).unwrap();
        assert_eq!(read(&link, "a/b/c").unwrap(), b"inside");
    }
}
