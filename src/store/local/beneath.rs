//! The way down from a storage root, on which no symbolic link is followed: one below the root could lead out of it, or to
//! another attachment. The system looks for links on the way that it walks, or else each name is looked up in the directory
//! that was opened before it, so that nobody can change the way between a look and its use. All of this blocks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, mkdirat, open, openat, statat};
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

/// Reads a whole file in a directory.
pub(super) fn read_in(directory: &OwnedFd, name: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::from(step(directory, name, OFlags::empty())?).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the directory at `path` below `root`, and makes those that are missing on the way to it. Where the root itself is gone
/// nothing is made: that would be another storage. The second of what it returns is whether one was made.
pub(super) fn make(root: &Path, path: &str) -> io::Result<(OwnedFd, bool)> {
    let mut at = open(root, OPEN | OFlags::DIRECTORY, Mode::empty())?;
    if let Ok(found) = resolve(&at, path, OFlags::DIRECTORY) {
        return Ok((found, false));
    }
    let mut any = false;
    for name in names(path) {
        let (below, made) = make_in(&at, name)?;
        (at, any) = (below, any || made);
    }
    Ok((at, any))
}

/// Opens a directory in another one, and makes it where it is missing, which the second of what it returns tells.
pub(super) fn make_in(directory: &OwnedFd, name: &str) -> io::Result<(OwnedFd, bool)> {
    let made = match mkdirat(directory, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
        Ok(()) => true,
        Err(Errno::EXIST) => false,
        Err(errno) => return Err(errno.into()),
    };
    step(directory, name, OFlags::DIRECTORY).map(|opened| (opened, made))
}

fn walk(root: &Path, path: &str, last: OFlags) -> io::Result<OwnedFd> {
    let mut at = open(root, OPEN | OFlags::DIRECTORY, Mode::empty())?;
    match resolve(&at, path, last) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) if !path.is_empty() => return Err(Errno::NOENT.into()),
        // There is a link, whose name is to be said, or a kernel or a sandbox that does not know the call.
        Err(_) => {}
    }
    let mut names = names(path).peekable();
    while let Some(name) = names.next() {
        at = step(&at, name, if names.peek().is_some() { OFlags::DIRECTORY } else { last })?;
    }
    Ok(at)
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// Walks the whole way in one call, where the system has one.
#[cfg(target_os = "linux")]
fn resolve(root: &OwnedFd, path: &str, last: OFlags) -> Result<OwnedFd, Errno> {
    openat2(root, path, OPEN | last, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

#[cfg(not(target_os = "linux"))]
fn resolve(_: &OwnedFd, _: &str, _: OFlags) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

fn step(at: &OwnedFd, name: &str, kind: OFlags) -> io::Result<OwnedFd> {
    openat(at, name, OPEN | OFlags::NOFOLLOW | kind, Mode::empty()).map_err(|errno| match errno {
        Errno::NOENT => errno.into(),
        _ => named(at, name, errno),
    })
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
    fn directories_are_made_where_they_are_missing_and_through_no_link() {
        let (folder, root, outside) = folders();
        assert!(!make(&root, "a/b").unwrap().1);
        for (path, made) in [("a/x/y", true), ("a/x/y", false), ("a/x/z", true)] {
            let (opened, any) = make(&root, path).unwrap();
            assert_eq!(any, made, "{path}");
            fs::write(root.join(path).join("there"), "1").unwrap();
            assert_eq!(read_in(&opened, "there").unwrap(), b"1");
        }
        assert_eq!(read_in(&make(&root, "a").unwrap().0, "there").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(make(&root, "a/b/c/d").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        symlink(&outside, root.join("link")).unwrap();
        symlink(outside.join("a/b/c"), root.join("a/file")).unwrap();
        for error in [
            make(&root, "link").unwrap_err(),
            make(&root, "link/new").unwrap_err(),
            read_in(&make(&root, "a").unwrap().0, "file").unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
            assert!(error.to_string().ends_with("is a symbolic link"), "{error}");
        }
        assert!(!outside.join("new").exists());
        let gone = folder.path().join("gone");
        assert_eq!(make(&gone, "a").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(!gone.exists());
    }

    #[test]
    fn the_root_itself_may_be_reached_by_a_link() {
        let (folder, root, _) = folders();
        let link = folder.path().join("link");
        symlink(&root, &link).unwrap();
        assert_eq!(read(&link, "a/b/c").unwrap(), b"inside");
    }
}
