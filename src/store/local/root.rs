//! What a directory is as the root of a storage: whether it holds one, and what kind of volume it is on. All of this blocks.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::Dir;
#[cfg(target_os = "linux")]
use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::super::layout::{CLIENTS, PROBE};
use super::beneath;

/// The directory below the root that holds the temporary directories of all processes.
pub(super) const TEMPORARY: &str = ".attachd-tmp";

/// The directory below the root that holds the locks of commits. They are in the root, wherever the temporary files are:
/// the root is what processes share.
pub(super) const LOCKS: &str = ".attachd-locks";

/// What may be in a root that holds no attachment yet: what attachd and file systems put there.
const NEW: [&str; 5] = [TEMPORARY, LOCKS, PROBE, "lost+found", ".snapshot"];

/// The key of `attachd dev`, in its root.
const DEV_KEY: &str = "dev-signing-key";

/// File systems whose locks may hold within one machine only, by the number that statfs gives.
const ONE_MACHINE: [(i128, &str); 6] = [
    (0x6573_5546, "FUSE"),
    (0x6969, "NFS"),
    (0x517b, "SMB"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x0102_1997, "9p"),
];

/// What the system knows a mounted file system by.
pub(super) type Volume = u64;

/// Whether a root holds no attachments, whatever else is in it.
pub(super) fn is_new(root: &OwnedFd) -> io::Result<bool> {
    match beneath::stat(root, CLIENTS) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

/// Something in a root that no new storage has, since neither attachd nor a file system puts it there.
pub(super) fn stranger(root: &OwnedFd) -> io::Result<Option<String>> {
    let all = names(root)?;
    let clients = CLIENTS.trim_end_matches('/');
    if all.iter().any(|name| name == clients) {
        return Ok(Some(clients.to_owned()));
    }
    // The folder of `attachd dev` may hold more.
    if all.iter().any(|name| name == DEV_KEY) {
        return Ok(None);
    }
    let is_known = |name: &String| NEW.contains(&name.as_str());
    Ok(all.into_iter().find(|name| !is_known(name)))
}

/// The volume that a directory is on. The number of a mount tells two mounts of one file system apart.
#[cfg(target_os = "linux")]
pub(super) fn volume(path: &Path) -> io::Result<Volume> {
    match statx(CWD, path, AtFlags::empty(), StatxFlags::MNT_ID) {
        Ok(found) if found.stx_mask & StatxFlags::MNT_ID.bits() != 0 => Ok(found.stx_mnt_id),
        // A kernel or a sandbox that does not say.
        _ => Ok(fs::metadata(path)?.dev()),
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn volume(path: &Path) -> io::Result<Volume> {
    Ok(fs::metadata(path)?.dev())
}

#[cfg(target_os = "linux")]
pub(super) fn one_machine(root: &OwnedFd) -> Option<&'static str> {
    // The number has 32 bits; some platforms have it with a sign.
    let found = i128::from(rustix::fs::fstatfs(root).ok()?.f_type) & 0xffff_ffff;
    ONE_MACHINE.iter().find(|(number, _)| *number == found).map(|(_, kind)| *kind)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn one_machine(_: &OwnedFd) -> Option<&'static str> {
    None
}

/// The names in a directory that can be written as text. All of attachd's own can.
pub(super) fn names(directory: &OwnedFd) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in Dir::read_from(directory)? {
        if let Ok(name) = entry?.file_name().to_str()
            && ![".", ".."].contains(&name)
        {
            names.push(name.to_owned());
        }
    }
    Ok(names)
}
