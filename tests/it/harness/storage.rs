//! A storage without a server: attachments, garbage and damage of chosen age, laid out as the program lays them out.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::{NoContext, Timestamp, Uuid};

use super::{hex, sha256};

/// An hour.
pub const HOUR: Duration = Duration::from_secs(60 * 60);

/// A storage in a folder of its own.
pub struct Storage(TempDir);

/// The name of content whose upload began so long ago.
pub fn upload_id(age: Duration) -> String {
    let begun = (SystemTime::now() - age).duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    Uuid::new_v7(Timestamp::from_unix(NoContext, begun.as_secs(), begun.subsec_nanos())).to_string()
}

/// Writes content that no record names below a storage root, and returns where.
pub fn plant(root: &Path, client: i64, attachment: i64, name: &str, bytes: &[u8]) -> PathBuf {
    let path = root.join(format!("clients/{client}/attachments/{attachment}/content/{name}"));
    fs::create_dir_all(path.parent().expect("a file has a folder")).expect("a folder can be made");
    fs::write(&path, bytes).expect("a file can be written");
    path
}

/// Takes the locks of all attachments, as a process does that is in the middle of its commits.
pub fn hold_all_locks(root: &Path) -> Vec<File> {
    let lock = |stripe: u32| {
        let path = root.join(format!(".attachd-locks/{stripe:02x}"));
        let file =
            File::options().create(true).truncate(false).write(true).open(path).expect("a lock file can be opened");
        file.lock().expect("a lock can be waited for");
        file
    };
    (0..256).map(lock).collect()
}

impl Storage {
    /// An empty storage.
    pub fn new() -> Storage {
        Storage(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Its root.
    pub fn root(&self) -> &Path {
        self.0.path()
    }

    /// Writes content that no record names, and returns where.
    pub fn garbage(&self, client: i64, attachment: i64, age: Duration) -> PathBuf {
        plant(self.root(), client, attachment, &upload_id(age), b"garbage")
    }

    /// Writes a stored attachment, and returns where its content lies.
    pub fn stored(&self, client: i64, attachment: i64, bytes: &[u8], age: Duration) -> PathBuf {
        let id = upload_id(age);
        let content = plant(self.root(), client, attachment, &id, bytes);
        self.put_record(client, attachment, &record(client, attachment, &id, bytes));
        content
    }

    /// Writes a record.
    pub fn put_record(&self, client: i64, attachment: i64, record: &Value) -> PathBuf {
        let folder = self.root().join(format!("clients/{client}/attachments/{attachment}"));
        fs::create_dir_all(&folder).expect("a folder can be made");
        let path = folder.join("record.json");
        fs::write(&path, record.to_string()).expect("a record can be written");
        path
    }

    /// All files and their bytes.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut all = BTreeMap::new();
        let mut folders = vec![self.root().join("clients")];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder can be read") {
                let path = entry.expect("a folder can be read").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).expect("a file can be read");
                    all.insert(path, bytes);
                }
            }
        }
        all
    }

    /// The program with a command over this storage.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        command.args(arguments).arg("--data").arg(self.root()).env_clear();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command over this storage.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        Ended::from(self.command(arguments).output().expect("the program can be run"))
    }
}

/// The record of a stored attachment.
pub fn record(client: i64, attachment: i64, upload: &str, bytes: &[u8]) -> Value {
    json!({
        "format": 1, "client_id": client, "attachment_id": attachment, "registered_at": "2026-01-31T12:00:00Z",
        "registered_by": "tester", "state": "stored", "upload_id": upload, "filename": "a.bin",
        "content_type": "application/octet-stream", "size": bytes.len(), "sha256": hex(&sha256(bytes)),
        "segments": [{"id": upload, "size": bytes.len()}], "created_at": "2026-01-31T12:00:00Z",
        "uploaded_by": "tester",
    })
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ended {
    /// The exit code.
    pub code: Option<i32>,
    /// What it printed.
    pub out: String,
    /// What it complained about.
    pub err: String,
}

impl Ended {
    /// Whether a line begins with `word: ` and speaks of `path`.
    pub fn says(&self, word: &str, path: &Path) -> bool {
        let name = path.components().rev().take(4).map(|part| part.as_os_str().to_str().expect("a name"));
        let tail = name.collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("/");
        self.out.lines().any(|line| line.starts_with(&format!("{word}: ")) && line.contains(&tail))
    }

    /// How many lines begin with `word: `.
    pub fn count(&self, word: &str) -> usize {
        self.out.lines().filter(|line| line.starts_with(&format!("{word}: "))).count()
    }
}

impl From<Output> for Ended {
    fn from(output: Output) -> Ended {
        let text = |bytes| String::from_utf8(bytes).expect("the program speaks UTF-8");
        Ended { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}
