//! What lies in a storage, as another client sees it (`look.py`). None of attachd's own code is in between.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::harness::storage::{parse_record, segments};
use crate::harness::{hex, sha256};

/// The access key of the test servers, and the account of azurite.
pub const ACCESS_KEY: &str = "devstoreaccount1";
/// Their secret key, in the form that azurite wants: the base64 of some bytes.
pub const SECRET_KEY: &str = "YXR0YWNoZC1zdG9yYWdlLXRlc3RzLXNlY3JldC1rZXk=";

/// The folder that `setup.sh` installs into.
pub fn installed() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/.env")
}

/// Where the record of an attachment of client 1 lies.
fn record_key(root: &str, attachment: i64) -> String {
    format!("{root}clients/1/records/{attachment:019}")
}

/// One who looks into a bucket.
pub struct Look {
    child: Child,
    pipes: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Look {
    /// Looks into a bucket at an address; for `fs` the address is a folder and the bucket one in it.
    pub fn at(kind: &str, address: &str, bucket: &str) -> Look {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/look.py");
        let mut child = Command::new(installed().join("storage/bin/python"))
            .arg(script)
            .args([kind, address, bucket])
            .env("ATTACHD_TEST_ACCESS_KEY", ACCESS_KEY)
            .env("ATTACHD_TEST_SECRET_KEY", SECRET_KEY)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("tests/storage/setup.sh has installed Python");
        let (stdin, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Look { child, pipes: Mutex::new((stdin, BufReader::new(stdout))) }
    }

    fn ask(&self, question: Value) -> Result<Value, String> {
        let mut pipes = self.pipes.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        writeln!(pipes.0, "{question}").expect("look.py listens");
        let mut line = String::new();
        pipes.1.read_line(&mut line).expect("look.py answers");
        let answer: Value = serde_json::from_str(&line).expect("look.py answers with JSON");
        match answer.get("error") {
            Some(error) => Err(error.to_string()),
            None => Ok(answer["ok"].clone()),
        }
    }

    /// Makes the bucket, once the server answers.
    pub fn make(&self) {
        let mut last = String::new();
        for _ in 0..300 {
            match self.ask(json!({ "do": "make" })) {
                Ok(_) => return,
                Err(error) => last = error,
            }
            std::thread::sleep(std::time::Duration::from_millis(200));
        }
        panic!("the bucket could not be made: {last}");
    }

    /// Turns on the versioning of the bucket.
    pub fn keep_versions(&self) {
        self.ask(json!({ "do": "keep versions" })).expect("versioning can be turned on");
    }

    /// The keys below a prefix, with their sizes.
    pub fn list(&self, prefix: &str) -> BTreeMap<String, u64> {
        let found = self.ask(json!({ "do": "list", "prefix": prefix })).expect("the storage can be listed");
        let pair = |entry: &Value| (entry[0].as_str().unwrap().to_owned(), entry[1].as_u64().unwrap());
        found.as_array().expect("a list").iter().map(pair).collect()
    }

    /// The keys below a prefix of which an upload in parts is open.
    pub fn uploads(&self, prefix: &str) -> Vec<String> {
        let found = self.ask(json!({ "do": "uploads", "prefix": prefix })).expect("the uploads can be listed");
        found.as_array().expect("a list").iter().map(|key| key.as_str().unwrap().to_owned()).collect()
    }

    /// The size and the digest of an object, if there is one.
    pub fn digest(&self, key: &str) -> Option<(u64, String)> {
        let found = self.ask(json!({ "do": "get", "key": key })).expect("the storage can be read");
        let said = found.as_object()?;
        Some((said["size"].as_u64().unwrap(), said["sha256"].as_str().unwrap().to_owned()))
    }

    /// The record of an attachment of client 1, if there is one.
    pub fn record(&self, root: &str, attachment: i64) -> Option<Value> {
        self.read_record(&record_key(root, attachment)).map(|(record, _)| record)
    }

    /// The record at a key and the bytes behind it, if there is one.
    fn read_record(&self, key: &str) -> Option<(Value, Vec<u8>)> {
        let found = self.ask(json!({ "do": "get", "key": key, "text": true })).expect("the storage can be read");
        // A character for each byte.
        let text = found.get("text")?.as_str().expect("text");
        let bytes: Vec<u8> = text.chars().map(|byte| u8::try_from(byte).expect("a byte")).collect();
        parse_record(&bytes)
    }

    /// Puts an object.
    pub fn put(&self, key: &str, text: &str) {
        self.ask(json!({ "do": "put", "key": key, "text": text })).expect("an object can be put");
    }

    /// The digest of what is stored under an attachment, if anything is. What its record names must be there, whole.
    pub fn stored(&self, root: &str, attachment: i64) -> Option<String> {
        self.try_stored(root, attachment).expect("what the record names is there")
    }

    /// The same, or why what the record names is not there.
    pub fn try_stored(&self, root: &str, attachment: i64) -> Result<Option<String>, String> {
        let key = record_key(root, attachment);
        // Between the look at a record and the look at its content another may replace both.
        for _ in 0..50 {
            let read = self.read_record(&key).filter(|(record, _)| record["state"] == "stored");
            let Some((record, inline)) = read else { return Ok(None) };
            let content = &record["content"];
            let (id, size, digest) = (&content["upload_id"], &content["size"], &content["sha256"]);
            let found = match &segments(&record)[..] {
                [] => Some((inline.len() as u64, hex(&sha256(&inline)))),
                [name] => self.digest(&format!("{root}clients/1/content/{attachment:019}/{name}")),
                more => panic!("an upload writes one object: {more:?}"),
            };
            match found {
                Some((found, sha256)) => {
                    assert_eq!((&json!(found), &json!(sha256)), (size, digest), "{attachment} is damaged");
                    return Ok(Some(sha256));
                }
                None => {
                    let (again, _) = self.read_record(&key).expect("a record stays");
                    if again["content"]["upload_id"] == *id {
                        return Err(format!("what the record of {attachment} names is missing"));
                    }
                }
            }
        }
        panic!("attachment {attachment} is replaced faster than it can be read");
    }

    /// The keys below a root, with their sizes, but for the marker, and for what a probe has left: its server was ended in the middle of it, or a put
    /// that was given up came about after its object was deleted. A later start deletes that.
    pub fn kept(&self, root: &str) -> BTreeMap<String, u64> {
        let (probe, marker) = (format!("{root}probe/"), format!("{root}attachd.json"));
        let all = self.list(root).into_iter();
        all.filter(|(key, _)| !key.starts_with(&probe) && *key != marker).collect()
    }

    /// Looks that below a root there is exactly what the records name.
    pub fn assert_named(&self, root: &str) {
        let found = self.kept(root);
        let mut live = BTreeSet::new();
        for key in found.keys().filter(|key| key.contains("/records/")) {
            let (record, _) = self.read_record(key).expect("it is listed");
            let folder = key.replace("/records/", "/content/");
            live.extend(segments(&record).into_iter().map(|name| format!("{folder}/{name}")));
            live.insert(key.clone());
        }
        let found: BTreeSet<String> = found.into_keys().collect();
        assert_eq!(found, live, "left: what is there and what the records name differ");
    }

    /// Looks that below a root there is exactly what the records name, and that no upload in parts is open.
    pub fn assert_nothing_left(&self, root: &str) {
        self.assert_named(root);
        assert_eq!(self.uploads(root), [""; 0], "uploads in parts are open");
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
