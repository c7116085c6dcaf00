//! The floors: the least that a program can do that stores what it receives. One thread for each connection, one buffer that
//! is used again, no check of anything. They speak just enough HTTP/1.1 to be sent `PUT` requests one after the other.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use aws_lc_rs::digest::{Context, SHA256};
use clap::ValueEnum;

use crate::error::Result;

/// The one buffer of a connection, in bytes.
const BUFFER: usize = 256 << 10;

/// About as long as the record of an upload, in bytes.
const RECORD: usize = 512;

/// What a floor does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Floor {
    /// Receive and write.
    Write,
    /// Receive, hash and write.
    Sha,
    /// Receive, write and make durable.
    Fsync,
    /// Receive, hash, write and make durable, with a record beside the content and directories of their own, as attachd lays them
    /// out: what a commit costs the file system, and nothing of what leads to it.
    Commit,
}

/// Serves until it is killed.
pub fn serve(floor: Floor, root: &Path) -> Result {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    println!("{}", listener.local_addr()?);
    let root: Arc<PathBuf> = Arc::new(root.to_owned());
    for (number, stream) in listener.incoming().enumerate() {
        let (stream, root) = (stream?, Arc::clone(&root));
        thread::Builder::new().stack_size(256 << 10).spawn(move || {
            if let Err(error) = connection(floor, &stream, &root, number) {
                eprintln!("connection {number}: {error}");
            }
        })?;
    }
    Ok(())
}

fn connection(floor: Floor, mut stream: &TcpStream, root: &Path, number: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; BUFFER];
    for request in 0_u64.. {
        let mut filled = 0;
        let end = loop {
            match stream.read(&mut buffer[filled..])? {
                0 => return Ok(()),
                count => filled += count,
            }
            if let Some(at) = memchr::memmem::find(&buffer[..filled], b"\r\n\r\n") {
                break at + 4;
            }
        };
        let mut left = content_length(&buffer[..end])?;
        let name = format!("{number}-{request}");
        let path = root.join(&name);
        let mut file = File::create(&path)?;
        let mut hash = matches!(floor, Floor::Sha | Floor::Commit).then(|| Context::new(&SHA256));
        let mut arrived = end..filled;
        loop {
            let bytes = &buffer[arrived];
            if let Some(hash) = &mut hash {
                hash.update(bytes);
            }
            file.write_all(bytes)?;
            left = left.saturating_sub(bytes.len() as u64);
            if left == 0 {
                break;
            }
            match stream.read(&mut buffer)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => arrived = 0..count,
            }
        }
        if let Some(hash) = hash {
            std::hint::black_box(hash.finish());
        }
        match floor {
            Floor::Write | Floor::Sha => {}
            Floor::Fsync => file.sync_all()?,
            Floor::Commit => commit(root, &name, &path, &file)?,
        }
        stream.write_all(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")?;
    }
    Ok(())
}

/// Makes a file durable below a directory of its own, then a record beside it.
fn commit(root: &Path, name: &str, path: &Path, content: &File) -> io::Result<()> {
    let own = root.join(format!("attachment-{name}"));
    let contents = own.join("content");
    content.sync_all()?;
    fs::create_dir(&own)?;
    fs::create_dir(&contents)?;
    fs::rename(path, contents.join("bytes"))?;
    File::open(contents)?.sync_all()?;
    let written = root.join(format!("{name}.record"));
    let mut record = File::create(&written)?;
    record.write_all(&[b' '; RECORD])?;
    record.sync_all()?;
    fs::rename(written, own.join("record.json"))?;
    File::open(own)?.sync_all()?;
    File::open(root)?.sync_all()
}

fn content_length(head: &[u8]) -> io::Result<u64> {
    let lines = head.split(|byte| *byte == b'\n').filter_map(|line| std::str::from_utf8(line).ok());
    let fields = lines.filter_map(|line| line.split_once(':'));
    let length = fields.into_iter().find(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    length.and_then(|(_, value)| value.trim().parse().ok()).ok_or_else(|| io::ErrorKind::InvalidData.into())
}
