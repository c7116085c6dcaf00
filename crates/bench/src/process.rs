//! What the kernel knows of a process and of a folder.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::error::Result;

/// The kernel counts processor time for user space in hundredths of a second, on every architecture (USER_HZ).
const TICK: Duration = Duration::from_millis(10);

/// The processor time that a process and its living children have used.
pub fn cpu(pid: u32) -> Result<Duration> {
    family(pid)?.into_iter().map(own_cpu).sum()
}

/// The processor time that a process has used, without its children.
pub fn own_cpu(pid: u32) -> Result<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name is in brackets and may hold anything, the state is the first field after it: proc_pid_stat(5).
    let (_, fields) = stat.rsplit_once(')').ok_or("a process without a name")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u32>()?;
    }
    Ok(TICK * ticks)
}

/// The most resident memory that a process and its children have had, in bytes, each at its own peak.
pub fn peak(pid: u32) -> Result<u64> {
    memory(pid, "VmHWM:")
}

/// The resident memory of a process and its children, in bytes.
pub fn resident(pid: u32) -> Result<u64> {
    memory(pid, "VmRSS:")
}

fn memory(pid: u32, field: &str) -> Result<u64> {
    let mut bytes = 0;
    for pid in family(pid)? {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).ok_or("a process without memory")?;
        bytes += line.trim().trim_end_matches(" kB").parse::<u64>()? << 10;
    }
    Ok(bytes)
}

/// A process and its children.
fn family(pid: u32) -> Result<Vec<u32>> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
    let mut family = vec![pid];
    for child in children.split_whitespace() {
        family.push(child.parse()?);
    }
    Ok(family)
}

/// Waits until what was written to the file system of a folder has left the page cache for the disk, so that a run does not
/// pay for the one before.
pub fn flush(folder: &Path) -> Result {
    Ok(rustix::fs::syncfs(File::open(folder)?)?)
}

/// How many bytes are in the files below a folder. A file that is deleted meanwhile has none.
pub fn stored(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            stored(&entry.path())?
        } else {
            match entry.metadata() {
                Ok(metadata) => metadata.len(),
                Err(error) if error.kind() == ErrorKind::NotFound => 0,
                Err(error) => return Err(error.into()),
            }
        };
    }
    Ok(bytes)
}

/// How large a program is without its symbols, in bytes.
pub fn stripped(program: &Path) -> Result<u64> {
    let file = tempfile::NamedTempFile::new()?;
    let status = Command::new("strip").arg("-o").arg(file.path()).arg(program).status()?;
    if !status.success() {
        return Err(format!("strip: {status}").into());
    }
    Ok(fs::metadata(file.path())?.len())
}
