//! A storage on a file system, seen from outside: where things lie, and what a record says. And one without a server:
//! attachments, garbage and damage of chosen age, laid out as the program lays them out.

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

/// What marks a storage.
pub const MARKER: &str = "{\"layout\":2}\n";

/// Where the record of an attachment lies.
pub fn record_path(root: impl AsRef<Path>, client: i64, attachment: i64) -> PathBuf {
    root.as_ref().join(format!("clients/{client}/records/{attachment:019}"))
}

/// The folder of an attachment's content.
pub fn content_folder(root: impl AsRef<Path>, client: i64, attachment: i64) -> PathBuf {
    root.as_ref().join(format!("clients/{client}/content/{attachment:019}"))
}

/// The record of an attachment, and what lies behind it, if there is one.
pub fn read_record(path: &Path) -> Option<(Value, Vec<u8>)> {
    parse_record(&fs::read(path).ok()?)
}

/// What a record's object holds: the record, and what lies behind it.
pub fn parse_record(bytes: &[u8]) -> Option<(Value, Vec<u8>)> {
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a record is a line");
    let record = serde_json::from_slice(&bytes[..end]).expect("a record is JSON");
    Some((record, bytes[end + 1..].to_vec()))
}

/// The names of the objects that hold the content of a record, in order. None where it lies behind the record, or there is none.
pub fn segments(record: &Value) -> Vec<String> {
    let content = &record["content"];
    let name = |segment: &Value| format!("{}.{}", content["upload_id"].as_str().expect("an id"), segment["number"]);
    content["segments"].as_array().map_or_else(Vec::new, |all| all.iter().map(name).collect())
}

/// The stored bytes of an attachment, if it has any. `None` too if one of its objects is missing.
pub fn stored_bytes(root: impl AsRef<Path>, client: i64, attachment: i64) -> Option<Vec<u8>> {
    let (record, inline) = read_record(&record_path(&root, client, attachment))?;
    let names = match record["state"].as_str() {
        Some("stored") => segments(&record),
        _ => return None,
    };
    if names.is_empty() {
        return Some(inline);
    }
    assert!(inline.is_empty(), "there is content in two places");
    let folder = content_folder(&root, client, attachment);
    names.into_iter().map(|name| fs::read(folder.join(name)).ok()).collect::<Option<Vec<_>>>().map(|all| all.concat())
}

/// Reads an attachment as any reader would: the record, then what it names. The digest of what is stored, or `None` if there is
/// nothing, or what was named was replaced in between. A record that is torn, or whose content is missing or damaged, is a failure.
pub fn read_whole(root: impl AsRef<Path>, client: i64, attachment: i64) -> Option<String> {
    let path = record_path(&root, client, attachment);
    let (record, inline) = read_record(&path)?;
    let content = &record["content"];
    let folder = content_folder(&root, client, attachment);
    let names = segments(&record);
    let all: Option<Vec<Vec<u8>>> = names.iter().map(|name| fs::read(folder.join(name)).ok()).collect();
    let bytes = match all {
        Some(all) => [inline, all.concat()].concat(),
        None => {
            let (again, _) = read_record(&path).expect("a record stays");
            assert_ne!(again["content"]["upload_id"], content["upload_id"], "the content is missing");
            return None;
        }
    };
    let digest = hex(&sha256(&bytes));
    assert_eq!((&content["sha256"], &content["size"]), (&digest.as_str().into(), &bytes.len().into()), "it is damaged");
    Some(digest)
}

/// The name of content whose upload began so long ago.
pub fn upload_id(age: Duration) -> String {
    let begun = (SystemTime::now() - age).duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    Uuid::new_v7(Timestamp::from_unix(NoContext, begun.as_secs(), begun.subsec_nanos())).to_string()
}

/// Writes content that no record names below a storage root, and returns where.
pub fn plant(root: &Path, client: i64, attachment: i64, name: &str, bytes: &[u8]) -> PathBuf {
    let path = content_folder(root, client, attachment).join(format!("{name}.0"));
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
        let folder = tempfile::tempdir().expect("a temporary folder");
        fs::write(folder.path().join("attachd.json"), MARKER).expect("a file can be written");
        Storage(folder)
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

    /// Writes an attachment whose content lies behind its record, and returns where.
    pub fn inline(&self, client: i64, attachment: i64, bytes: &[u8]) -> PathBuf {
        let mut record = record(client, attachment, &upload_id(HOUR), bytes);
        record["content"]["segments"] = json!([]);
        self.put_inline(client, attachment, &record, bytes)
    }

    /// Writes a record.
    pub fn put_record(&self, client: i64, attachment: i64, record: &Value) -> PathBuf {
        self.put_inline(client, attachment, record, b"")
    }

    /// Writes a record, and content behind it.
    pub fn put_inline(&self, client: i64, attachment: i64, record: &Value, bytes: &[u8]) -> PathBuf {
        let path = record_path(self.root(), client, attachment);
        fs::create_dir_all(path.parent().expect("a record has a folder")).expect("a folder can be made");
        fs::write(&path, [format!("{record}\n").as_bytes(), bytes].concat()).expect("a record can be written");
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
    let digest = hex(&sha256(bytes));
    json!({
        "format": 2, "client_id": client, "attachment_id": attachment, "registered_at": "2026-01-31T12:00:00Z",
        "registered_by": "tester", "state": "stored", "content": {
            "upload_id": upload, "filename": "a.bin", "content_type": "application/octet-stream", "size": bytes.len(),
            "sha256": digest, "segments": [{"number": 0, "size": bytes.len(), "sha256": digest}],
            "created_at": "2026-01-31T12:00:00Z", "uploaded_by": "tester",
        },
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
        let name = path.components().rev().take(3).map(|part| part.as_os_str().to_str().expect("a name"));
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
