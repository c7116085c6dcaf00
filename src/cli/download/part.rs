//! The file of a download that is not complete, `FILE.part`, which becomes FILE when it is verified. `FILE.part.sha256` names
//! the content that its bytes are from. A lock keeps two downloads from writing to the same file.

use std::ffi::OsString;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::super::failure::Failure;
use super::super::remote::named;
use super::content::Content;

/// How much is read at once, in bytes.
const PIECE: usize = 1 << 20;

/// A file that is being downloaded. It is locked until it is dropped.
pub struct Part {
    target: PathBuf,
    path: PathBuf,
    tag: PathBuf,
    file: File,
    force: bool,
}

/// Looks whether a file may be written.
pub fn check(target: &Path, force: bool) -> Result<(), Failure> {
    let wrong = |why: &str| Err(Failure::running(format!("{}: {why}", target.display())));
    if target.file_name().is_none() {
        return wrong("has no file name; write the name of the file");
    }
    match fs::symlink_metadata(target) {
        Ok(metadata) if metadata.is_dir() => wrong("is a directory; write the name of a file in it"),
        Ok(metadata) if !metadata.is_file() => wrong("is not a regular file; download to standard output with `-o -`"),
        Ok(_) if !force => wrong("exists; write another name with --output-file, or replace the file with --force"),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(named(target, &error)),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl Part {
    /// Opens and locks the file beside `target`.
    pub fn open(target: &Path, force: bool) -> Result<Part, Failure> {
        check(target, force)?;
        let beside = |suffix: &str| {
            let mut path = OsString::from(target);
            path.push(suffix);
            PathBuf::from(path)
        };
        let path = beside(".part");
        let file = locked(&path)?;
        Ok(Part { target: target.to_owned(), tag: beside(".part.sha256"), path, file, force })
    }

    /// The path, for a message.
    pub fn shown(&self) -> String {
        self.path.display().to_string()
    }

    /// Hands the bytes that are there to `read`, and returns their number, if they are from this content. Otherwise begins anew.
    pub fn resume(&mut self, content: &Content, mut read: impl FnMut(&[u8])) -> Result<u64, Failure> {
        let tag = fs::read_to_string(&self.tag).unwrap_or_default();
        let length = self.file.metadata().map_err(|error| named(&self.path, &error))?.len();
        if tag.trim_end() != content.sha256.to_string() || length > content.size {
            return self.restart(content).map(|()| 0);
        }
        let mut piece = vec![0; PIECE];
        let mut bytes = 0;
        loop {
            match self.file.read(&mut piece) {
                Ok(0) => return Ok(bytes),
                Ok(length) => {
                    read(&piece[..length]);
                    bytes += length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(named(&self.path, &error)),
            }
        }
    }

    /// Drops the bytes that are there, and notes which content the next ones are from.
    pub fn restart(&mut self, content: &Content) -> Result<(), Failure> {
        self.file.set_len(0).and_then(|()| self.file.rewind()).map_err(|error| named(&self.path, &error))?;
        // Not through a link that somebody else may have left.
        remove(&self.tag)?;
        let note = |mut file: File| file.write_all(format!("{}\n", content.sha256).as_bytes());
        File::create_new(&self.tag).and_then(note).map_err(|error| named(&self.tag, &error))
    }

    /// Writes the next bytes.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| named(&self.path, &error))
    }

    /// Makes the file durable and gives it its name.
    pub fn publish(self) -> Result<(), Failure> {
        self.file.sync_all().map_err(|error| named(&self.path, &error))?;
        check(&self.target, self.force)?;
        self.rename().map_err(|error| named(&self.target, &error))?;
        remove(&self.tag)
    }

    /// Renames the file, and replaces another one only if it is forced to.
    fn rename(&self) -> io::Result<()> {
        if !self.force {
            match renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
                // The file system cannot do it; that there is no such file was checked.
                Err(Errno::INVAL | Errno::NOSYS) => {}
                done => return Ok(done?),
            }
        }
        fs::rename(&self.path, &self.target)
    }

    /// Deletes the file.
    pub fn discard(self) -> Result<(), Failure> {
        remove(&self.path)?;
        remove(&self.tag)
    }
}

/// Opens and locks a file, which is created if it is missing.
fn locked(path: &Path) -> Result<File, Failure> {
    let failed = |error: io::Error| named(path, &error);
    let no_link = OFlags::NOFOLLOW.bits().cast_signed();
    loop {
        let mut options = File::options();
        let opened = options.read(true).write(true).create(true).truncate(false).custom_flags(no_link).open(path);
        let file = opened.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Failure::running(format!("{}: another download writes to this file", path.display())));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(Failure::running(format!("{}: is not a regular file; delete it", path.display())));
        }
        // A download that ended meanwhile has renamed or deleted the file that was opened.
        let is_same = |there: fs::Metadata| (there.dev(), there.ino()) == (metadata.dev(), metadata.ino());
        if fs::symlink_metadata(path).is_ok_and(is_same) {
            return Ok(file);
        }
    }
}

/// Deletes a file if it is there.
fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(named(path, &error)),
        _ => Ok(()),
    }
}
