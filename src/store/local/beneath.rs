//! Access to what lies below a storage root, which follows no symbolic link: one could lead out of the root, or to another
//! attachment. Every open, stat, listing, rename and removal below a root goes through here, relative to a directory that is
//! open, so that nobody can change the path between a check and its use. All of this blocks.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, Stat, mkdirat, open, openat, renameat, statat, unlinkat};
#[cfg(target_os = "linux")]
use rustix::fs::{ResolveFlags, openat2};
use rustix::io::Errno;
use rustix::path::Arg;

/// How everything is opened that is read.
const OPEN: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC);

/// How a file is opened to be written, or locked.
const CREATE: OFlags = OFlags::WRONLY.union(OFlags::CREATE).union(OFlags::CLOEXEC).union(OFlags::NOFOLLOW);

/// The permissions of a new file, less what the process masks.
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

/// Opens a directory by a path of the operator's, on which links are followed.
pub(super) fn root(path: &Path) -> io::Result<OwnedFd> {
    Ok(open(path, OPEN | OFlags::DIRECTORY, Mode::empty())?)
}

/// Opens a file at `path`, which is written with slashes, below `root`.
pub(super) fn file(root: &OwnedFd, path: &str) -> io::Result<File> {
    walk(root, path, OFlags::empty()).map(File::from)
}

/// Reads a whole file.
pub(super) fn read(root: &OwnedFd, path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file(root, path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Opens the directory at `path` below `root`. An empty path is the root itself.
pub(super) fn folder(root: &OwnedFd, path: &str) -> io::Result<OwnedFd> {
    walk(root, path, OFlags::DIRECTORY)
}

/// What lies at `path` below `root`: of a link, the link itself.
pub(super) fn stat(root: &OwnedFd, path: &str) -> io::Result<Stat> {
    let (above, name) = split(path);
    // The root has no name in itself.
    stat_in(&folder(root, above)?, if name.is_empty() { "." } else { name })
}

/// What lies in a directory under a name: of a link, the link itself.
pub(super) fn stat_in(directory: &OwnedFd, name: impl Arg) -> io::Result<Stat> {
    Ok(statat(directory, name, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// Whether it is a link.
pub(super) fn is_link(found: &Stat) -> bool {
    kind(found) == FileType::Symlink
}

/// What kind of thing it is.
pub(super) fn kind(found: &Stat) -> FileType {
    FileType::from_raw_mode(found.st_mode)
}

/// Deletes the file, or the empty directory, at `path` below `root`. A link is refused.
pub(super) fn remove(root: &OwnedFd, path: &str) -> io::Result<()> {
    let (above, name) = split(path);
    let above = folder(root, above)?;
    match kind(&stat_in(&above, name)?) {
        FileType::Symlink => Err(is_a_link(name)),
        FileType::Directory => Ok(unlinkat(&above, name, AtFlags::REMOVEDIR)?),
        _ => Ok(unlinkat(&above, name, AtFlags::empty())?),
    }
}

/// Deletes a file in a directory.
pub(super) fn remove_in(directory: &OwnedFd, name: &str) -> io::Result<()> {
    Ok(unlinkat(directory, name, AtFlags::empty())?)
}

/// Deletes a directory in another one with all files in it, or as many of them as can be deleted.
pub(super) fn remove_folder(directory: &OwnedFd, name: &str) -> io::Result<()> {
    let folder = step(directory, name, OFlags::DIRECTORY)?;
    let mut failure = None;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        if [c".", c".."].contains(&entry.file_name()) {
            continue;
        }
        match unlinkat(&folder, entry.file_name(), AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(errno) => {
                let name = entry.file_name().to_string_lossy().into_owned();
                failure = Some(io::Error::new(io::Error::from(errno).kind(), format!("{name}: {errno}")));
            }
        }
    }
    match (unlinkat(directory, name, AtFlags::REMOVEDIR), failure) {
        (Ok(()) | Err(Errno::NOENT), _) => Ok(()),
        (Err(_), Some(failure)) => Err(failure),
        (Err(errno), None) => Err(errno.into()),
    }
}

/// Renames a file from one directory to another, in place of what has the name there.
pub(super) fn rename(from: &OwnedFd, old: &str, to: &OwnedFd, new: &str) -> io::Result<()> {
    Ok(renameat(from, old, to, new)?)
}

/// Creates a file in a directory, where nothing may have the name.
pub(super) fn create_in(directory: &OwnedFd, name: &str) -> io::Result<File> {
    Ok(openat(directory, name, CREATE | OFlags::EXCL, FILE_MODE)?.into())
}

/// Opens a file in a directory to lock it, and creates it if it is missing.
pub(super) fn lock_file(directory: &OwnedFd, name: &str) -> io::Result<File> {
    openat(directory, name, CREATE, FILE_MODE).map(File::from).map_err(|errno| named(directory, name, errno))
}

/// Opens the directory at `path` below `root`, and makes those that are missing on the way to it. The second of what it
/// returns is whether one was made.
pub(super) fn make(root: &OwnedFd, path: &str) -> io::Result<(OwnedFd, bool)> {
    if let Ok(found) = resolve(root, path, OFlags::DIRECTORY) {
        return Ok((found, false));
    }
    let mut at = root.try_clone()?;
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

/// The directories from `root`, which is left out, down to `path`.
pub(super) fn all_on_the_way(root: &OwnedFd, path: &str) -> io::Result<Vec<OwnedFd>> {
    let mut all: Vec<OwnedFd> = Vec::new();
    for name in names(path) {
        let next = step(all.last().unwrap_or(root), name, OFlags::DIRECTORY)?;
        all.push(next);
    }
    Ok(all)
}

fn walk(root: &OwnedFd, path: &str, last: OFlags) -> io::Result<OwnedFd> {
    let mut names = names(path).peekable();
    if names.peek().is_none() {
        return root.try_clone();
    }
    match resolve(root, path, last) {
        Ok(found) => return Ok(found),
        Err(Errno::NOENT) => return Err(Errno::NOENT.into()),
        // There is a link, whose name is to be said, or a kernel or a sandbox that does not know the call.
        Err(_) => {}
    }
    let mut at: Option<OwnedFd> = None;
    while let Some(name) = names.next() {
        let kind = if names.peek().is_some() { OFlags::DIRECTORY } else { last };
        at = Some(step(at.as_ref().unwrap_or(root), name, kind)?);
    }
    at.ok_or_else(|| Errno::NOENT.into())
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

/// The directory above a path, and the last name in it.
fn split(path: &str) -> (&str, &str) {
    let path = path.trim_end_matches('/');
    path.rsplit_once('/').unwrap_or(("", path))
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
    if stat_in(at, name).is_ok_and(|found| is_link(&found)) { is_a_link(name) } else { errno.into() }
}

fn is_a_link(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::NotADirectory, format!("{name} is a symbolic link"))
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
        let (_folder, path, _) = folders();
        let root = root(&path).unwrap();
        assert_eq!(read(&root, "a/b/c").unwrap(), b"inside");
        for known in ["", "a", "a/b/"] {
            folder(&root, known).unwrap();
        }
        for missing in ["x", "a/x", "a/x/c", "x/b/c"] {
            assert_eq!(read(&root, missing).unwrap_err().kind(), io::ErrorKind::NotFound, "{missing}");
            assert_eq!(folder(&root, missing).unwrap_err().kind(), io::ErrorKind::NotFound, "{missing}");
            assert_eq!(remove(&root, missing).unwrap_err().kind(), io::ErrorKind::NotFound, "{missing}");
        }
        assert_eq!(read(&root, "a/b/c/d").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(folder(&root, "a/b/c").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(read(&root, "a/b").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert_eq!(super::root(&path.join("x")).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(stat(&root, "a/b/c").unwrap().st_size, 6);
        assert_eq!(remove(&root, "a/b").unwrap_err().kind(), io::ErrorKind::DirectoryNotEmpty);
        remove(&root, "a/b/c").unwrap();
        remove(&root, "a/b/").unwrap();
        assert!(!path.join("a/b").exists());
    }

    #[test]
    fn a_link_anywhere_below_the_root_is_refused_wherever_it_leads() {
        for (link, target) in [("a", ""), ("a/b", ""), ("a/b/c", ""), ("a/b", "/nowhere"), ("a/b/c", "/nowhere")] {
            let (_folder, path, outside) = folders();
            let opened = root(&path).unwrap();
            let at = path.join(link);
            fs::remove_file(&at).or_else(|_| fs::remove_dir_all(&at)).unwrap();
            // To the same place outside, to the same place inside by another name, to nothing, and to itself.
            for target in [outside.join(link), path.join(link), target.into(), link.rsplit('/').next().unwrap().into()]
            {
                if target.as_os_str().is_empty() {
                    continue;
                }
                symlink(&target, &at).unwrap();
                for error in [
                    read(&opened, "a/b/c").unwrap_err(),
                    remove(&opened, "a/b/c").unwrap_err(),
                    folder(&opened, link).unwrap_err(),
                ] {
                    assert_eq!(error.kind(), io::ErrorKind::NotADirectory, "{link} to {}: {error}", target.display());
                    assert!(error.to_string().ends_with("is a symbolic link"), "{error}");
                }
                assert!(is_link(&stat(&opened, link).unwrap()));
                fs::remove_file(&at).unwrap();
            }
        }
    }

    #[test]
    fn directories_are_made_where_they_are_missing_and_through_no_link() {
        let (_folder, path, outside) = folders();
        let root = root(&path).unwrap();
        assert!(!make(&root, "a/b").unwrap().1);
        for (below, made) in [("a/x/y", true), ("a/x/y", false), ("a/x/z", true)] {
            let (opened, any) = make(&root, below).unwrap();
            assert_eq!(any, made, "{below}");
            fs::write(path.join(below).join("there"), "1").unwrap();
            assert_eq!(read(&opened, "there").unwrap(), b"1");
        }
        assert_eq!(read(&make(&root, "a").unwrap().0, "there").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(make(&root, "a/b/c/d").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        symlink(&outside, path.join("link")).unwrap();
        symlink(outside.join("a/b/c"), path.join("a/file")).unwrap();
        let a = make(&root, "a").unwrap().0;
        for error in [
            make(&root, "link").unwrap_err(),
            make(&root, "link/new").unwrap_err(),
            all_on_the_way(&root, "link/a").unwrap_err(),
            read(&a, "file").unwrap_err(),
            lock_file(&a, "file").unwrap_err(),
            remove_folder(&root, "link").unwrap_err(),
        ] {
            assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
            assert!(error.to_string().ends_with("is a symbolic link"), "{error}");
        }
        assert_eq!(create_in(&a, "file").unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert!(!outside.join("new").exists());
        assert_eq!(fs::read(outside.join("a/b/c")).unwrap(), b"outside");
    }

    #[test]
    fn a_folder_is_removed_with_its_files_and_links_but_not_with_what_they_lead_to() {
        let (_folder, path, outside) = folders();
        let root = root(&path).unwrap();
        symlink(&outside, path.join("a/b/link")).unwrap();
        let a = folder(&root, "a").unwrap();
        remove_folder(&a, "b").unwrap();
        assert!(!path.join("a/b").exists() && outside.join("a/b/c").exists());
        fs::create_dir_all(path.join("a/d/kept")).unwrap();
        let refused = remove_folder(&a, "d").unwrap_err();
        assert!(refused.to_string().starts_with("kept: "), "{refused}");
    }

    #[test]
    fn the_root_itself_may_be_reached_by_a_link() {
        let (folder, path, _) = folders();
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert_eq!(read(&root(&link).unwrap(), "a/b/c").unwrap(), b"inside");
    }
}
