//! A directory as a service of OpenDAL's, for what reads, lists and deletes: it follows no symbolic link below the root.
//! Files are written by other means, which know when a file is durable.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use opendal::raw::oio::{self, OneShotDeleter};
use opendal::raw::{
    OpCopy, OpCreateDir, OpDelete, OpList, OpPresign, OpRead, OpRename, OpStat, OpWrite, RpCreateDir, RpPresign,
    RpRead, RpRename, RpStat, Service, ServiceInfo, new_std_io_error,
};
use opendal::{
    Buffer, Builder, BytesRange, Capability, Configurator, Error, ErrorKind, Metadata, MetadataBuilder,
    OperationContext, Result,
};
use rustix::fs::{Dir, FileType, Stat};
use serde::{Deserialize, Serialize};

use super::directory::Directory;
use super::{WRITE, beneath, lock};

/// How many entries of a directory are read at once.
const PAGE: usize = 1000;

/// The options of the service.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Options {
    root: Option<String>,
    atomic_write_dir: Option<String>,
}

/// What lies below a storage root.
#[derive(Debug, Default)]
pub struct Below(Option<Arc<Directory>>);

impl Below {
    pub(super) fn new(directory: Arc<Directory>) -> Below {
        Below(Some(directory))
    }
}

impl Configurator for Options {
    type Builder = Below;

    fn into_builder(self) -> Below {
        Below::default()
    }
}

impl Builder for Below {
    type Config = Options;

    fn build(self) -> Result<impl Service> {
        self.0.map(Files).ok_or_else(|| Error::new(ErrorKind::ConfigInvalid, "there is no directory"))
    }
}

/// The service.
#[derive(Clone, Debug)]
struct Files(Arc<Directory>);

impl Files {
    /// Does what blocks on a thread that may.
    async fn run<T: Send + 'static>(
        &self,
        path: &str,
        work: impl FnOnce(&Directory, &str) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (directory, path) = (Arc::clone(&self.0), path.to_owned());
        on_thread(move || work(&directory, &path)).await
    }
}

async fn on_thread<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| Error::new(ErrorKind::Unexpected, panic.to_string()))?.map_err(new_std_io_error)
}

fn unsupported<T>() -> Result<T> {
    Err(Error::new(ErrorKind::Unsupported, "a directory is read, listed and deleted from in this way, and no more"))
}

fn metadata(found: &Stat) -> Metadata {
    let metadata = match beneath::kind(found) {
        FileType::RegularFile => MetadataBuilder::file(u64::try_from(found.st_size).unwrap_or_default()),
        FileType::Directory => MetadataBuilder::dir(),
        _ => MetadataBuilder::unknown(),
    };
    metadata.build()
}

impl Service for Files {
    type Reader = Reader;
    type Writer = ();
    type Lister = Lister;
    type Deleter = OneShotDeleter<Files>;
    type Copier = ();
    type Composer = ();

    fn info(&self) -> ServiceInfo {
        ServiceInfo::new("fs", "", "")
    }

    fn capability(&self) -> Capability {
        Capability { stat: true, read: true, delete: true, list: true, shared: true, ..Capability::default() }
    }

    async fn create_dir(&self, _: &OperationContext, _: &str, _: OpCreateDir) -> Result<RpCreateDir> {
        unsupported()
    }

    async fn stat(&self, _: &OperationContext, path: &str, _: OpStat) -> Result<RpStat> {
        let stat = |directory: &Directory, path: &str| beneath::stat(directory.place()?.root(), path);
        self.run(path, stat).await.map(|found| RpStat::new(metadata(&found)))
    }

    fn read(&self, _: &OperationContext, path: &str, _: OpRead) -> Result<Reader> {
        Ok(Reader { files: self.clone(), path: path.to_owned() })
    }

    fn write(&self, _: &OperationContext, _: &str, _: OpWrite) -> Result<()> {
        unsupported()
    }

    fn delete(&self, _: &OperationContext) -> Result<Self::Deleter> {
        Ok(OneShotDeleter::new(self.clone()))
    }

    fn list(&self, _: &OperationContext, path: &str, _: OpList) -> Result<Lister> {
        Ok(Lister { files: self.clone(), path: path.to_owned(), listed: Listed::Nothing })
    }

    fn copy(&self, _: &OperationContext, _: &str, _: &str, _: OpCopy) -> Result<()> {
        unsupported()
    }

    async fn rename(&self, _: &OperationContext, _: &str, _: &str, _: OpRename) -> Result<RpRename> {
        unsupported()
    }

    async fn presign(&self, _: &OperationContext, _: &str, _: OpPresign) -> Result<RpPresign> {
        unsupported()
    }
}

impl oio::OneShotDelete for Files {
    async fn delete_once(&self, path: String, _: OpDelete) -> Result<()> {
        let delete = |directory: &Directory, path: &str| beneath::remove(directory.place()?.root(), path);
        match self.run(&path, delete).await {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }
}

/// Reads one file.
struct Reader {
    files: Files,
    path: String,
}

/// The part of a file that is still to be read.
struct Rest {
    file: Arc<File>,
    at: u64,
    end: u64,
}

impl oio::Read for Reader {
    async fn open(&self, range: BytesRange) -> Result<(RpRead, Box<dyn oio::ReadStreamDyn>)> {
        let open = |directory: &Directory, path: &str| {
            let file = beneath::file(directory.place()?.root(), path)?;
            let length = file.metadata()?.len();
            Ok((Arc::new(file), length))
        };
        let (file, length) = self.files.run(&self.path, open).await?;
        let at = range.offset();
        let end = range.size().map_or(length, |size| at.saturating_add(size).min(length));
        if at > length {
            return Err(Error::new(ErrorKind::RangeNotSatisfied, "the file ends before the range"));
        }
        Ok((RpRead::new(MetadataBuilder::file(length).build()), Box::new(Rest { file, at, end })))
    }

    async fn read(&self, range: BytesRange) -> Result<(RpRead, Buffer)> {
        let (read, mut stream) = self.open(range).await?;
        let all = stream.read_all_dyn().await?;
        Ok((read, all))
    }
}

impl oio::ReadStream for Rest {
    async fn read(&mut self) -> Result<Buffer> {
        let (file, at, left) = (Arc::clone(&self.file), self.at, self.end - self.at);
        if left == 0 {
            return Ok(Buffer::new());
        }
        let bytes = on_thread(move || {
            let mut bytes = BytesMut::zeroed(usize::try_from(left).map_or(WRITE, |left| left.min(WRITE)));
            let read = file.read_at(&mut bytes, at)?;
            bytes.truncate(read);
            Ok(bytes.freeze())
        });
        let bytes = bytes.await?;
        self.at += bytes.len() as u64;
        Ok(bytes.into())
    }
}

/// Lists one directory.
struct Lister {
    files: Files,
    path: String,
    listed: Listed,
}

enum Listed {
    Nothing,
    /// The entries that were read and not handed on yet, and those that are still to be read.
    Some(std::vec::IntoIter<oio::Entry>, Arc<Mutex<Dir>>, Arc<OwnedFd>),
    All,
}

impl oio::List for Lister {
    async fn next(&mut self) -> Result<Option<oio::Entry>> {
        loop {
            let (dir, folder) = match &mut self.listed {
                Listed::All => return Ok(None),
                Listed::Some(page, dir, folder) => match page.next() {
                    Some(entry) => return Ok(Some(entry)),
                    None => (Arc::clone(dir), Arc::clone(folder)),
                },
                Listed::Nothing => {
                    let open = |directory: &Directory, path: &str| {
                        let folder = beneath::folder(directory.place()?.root(), path)?;
                        Ok((Arc::new(Mutex::new(Dir::read_from(&folder)?)), Arc::new(folder)))
                    };
                    match self.files.run(&self.path, open).await {
                        Ok(opened) => opened,
                        // As an object store lists nothing where there is nothing.
                        Err(error) if error.kind() == ErrorKind::NotFound => {
                            self.listed = Listed::All;
                            continue;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let (path, own) = (self.path.clone(), (Arc::clone(&dir), Arc::clone(&folder)));
            let page = on_thread(move || page(&path, &mut lock(&own.0), &own.1)).await?;
            self.listed = if page.is_empty() { Listed::All } else { Listed::Some(page.into_iter(), dir, folder) };
        }
    }
}

/// The next entries of a directory. There are none only at its end.
fn page(path: &str, dir: &mut Dir, folder: &OwnedFd) -> io::Result<Vec<oio::Entry>> {
    let mut page = Vec::new();
    for entry in dir {
        let entry = entry?;
        if [c".", c".."].contains(&entry.file_name()) {
            continue;
        }
        let metadata = match beneath::stat_in(folder, entry.file_name()) {
            Ok(found) => metadata(&found),
            // It was deleted meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        let name = entry.file_name().to_string_lossy();
        let slash = if metadata.is_dir() { "/" } else { "" };
        page.push(oio::Entry::with(format!("{path}{name}{slash}"), metadata));
        if page.len() == PAGE {
            break;
        }
    }
    Ok(page)
}
