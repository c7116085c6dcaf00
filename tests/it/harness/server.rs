//! The program as a process of its own. When a test is over, the harness looks that nothing is left behind.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use aws_lc_rs::digest::{Context, SHA256};
use serde_json::Value;
use tempfile::TempDir;

use super::storage::{content_folder, read_record, record_path, segments, stored_bytes};
use super::{AUDIENCE, Connection, ISSUER, SECRET, eventually, hex};

/// How a server is set up. The defaults are the ones that most tests want.
pub struct Setup {
    /// `fs` or `memory`.
    pub service: &'static str,
    /// `reject` or `create`. Default `create`.
    pub on_unknown: &'static str,
    /// More lines of the `[attachments]` section. Default no grace for readers, so that what is replaced is gone at once.
    pub attachments: &'static str,
    /// Lines of the `[limits]` section. Default the upload limit of the harness.
    pub limits: String,
    /// More lines of the `[storage]` section. Default none.
    pub storage: String,
    /// Lines of the `[log]` section beside its format. Default all that attachd says.
    pub log: String,
    /// More tables, at the end. Default none.
    pub more: String,
    /// Whether the start waits until the server says that it is ready. Default false.
    pub ready: bool,
    /// A command, by its words, that runs the program. Default none.
    pub wrapper: Vec<String>,
    /// The `[auth]` section with all that belongs to it, in place of the one issuer of the harness.
    pub auth: Option<String>,
    /// Variables of the process.
    pub variables: BTreeMap<&'static str, String>,
    /// Whether content that no record names may lie about, as a process that was killed in the middle of a commit leaves it.
    pub garbage: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Setup {
            service: "fs",
            on_unknown: "create",
            attachments: "read_grace = \"0s\"",
            limits: format!("max_upload_size = {}\n", super::MAX_UPLOAD),
            storage: String::new(),
            log: "filter = \"debug\"\n".to_owned(),
            more: String::new(),
            wrapper: Vec::new(),
            auth: None,
            variables: BTreeMap::new(),
            garbage: false,
            ready: false,
        }
    }
}

/// A running server, with a folder of its own.
pub struct Server {
    child: Child,
    folder: TempDir,
    service: &'static str,
    garbage: bool,
    log: Arc<Mutex<Vec<String>>>,
    /// The log is not read while this is locked.
    reads_log: Arc<Mutex<()>>,
    /// The address of the REST port.
    pub rest: SocketAddr,
    /// The address of the gRPC port.
    pub grpc: SocketAddr,
    /// The address of the admin port.
    pub admin: SocketAddr,
}

/// Runs the program to its end.
pub fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_attachd")).args(arguments).env_clear().output().expect("the program can be run")
}

impl Setup {
    /// Writes the configuration into a folder.
    pub fn write(&self, folder: &Path) -> PathBuf {
        let mut text = String::new();
        for port in ["rest", "grpc", "admin"] {
            let _ = writeln!(text, "[{port}]\nlisten = \"127.0.0.1:0\"");
        }
        let root = folder.join("root");
        if self.service == "fs" {
            fs::create_dir_all(&root).expect("a folder can be made");
        }
        let ours = || {
            format!(
                "[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\nalgorithms = [\"HS256\"]\n\
                 hmac_secret_file = \"secret\"\n"
            )
        };
        let auth = self.auth.clone().unwrap_or_else(ours);
        let _ = write!(
            text,
            "[storage]\nservice = \"{}\"\n{}\n[storage.options]\nroot = {root:?}\n\
             [attachments]\non_unknown = \"{}\"\n{}\n[limits]\n{}\n{auth}\n[log]\nformat = \"json\"\n{}\
             [shutdown]\ndelay = \"0s\"\ngrace = \"5s\"\n",
            self.service, self.storage, self.on_unknown, self.attachments, self.limits, self.log,
        );
        text.push_str(&self.more);
        fs::write(folder.join("secret"), SECRET).expect("the secret can be written");
        let path = folder.join("attachd.toml");
        fs::write(&path, text).expect("the configuration can be written");
        path
    }

    /// Starts a server in a fresh folder.
    pub fn start(self) -> Server {
        self.start_in(tempfile::tempdir().expect("a temporary folder"))
    }

    /// Starts a server in a folder that may hold the storage of another.
    pub fn start_in(self, folder: TempDir) -> Server {
        let config = self.write(folder.path());
        let mut words = self.wrapper.clone();
        words.push(env!("CARGO_BIN_EXE_attachd").to_owned());
        let mut child = Command::new(&words[0])
            .args(&words[1..])
            .args(["serve", "--config"])
            .arg(config)
            .env_clear()
            .envs(&self.variables)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program can be run");
        let log = Arc::new(Mutex::new(Vec::new()));
        let mut lines = BufReader::new(child.stderr.take().expect("stderr is piped")).lines();
        let mut ports = BTreeMap::new();
        while ports.len() < 3 {
            let Some(Ok(line)) = lines.next() else {
                panic!("the server did not start: {:?}\n{}", child.wait(), log.lock().unwrap().join("\n"));
            };
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            let fields = &event["fields"];
            if fields["message"] == "listening" {
                let port = fields["port"].as_str().expect("a port has a name").to_owned();
                ports.insert(port, fields["address"].as_str().expect("an address").parse().expect("an address"));
            }
            log.lock().unwrap().push(line);
        }
        let (rest_of_log, reads_log) = (Arc::clone(&log), Arc::new(Mutex::new(())));
        let reads = Arc::clone(&reads_log);
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                rest_of_log.lock().unwrap().push(line);
                drop(reads.lock().unwrap_or_else(PoisonError::into_inner));
            }
        });
        let server = Server {
            child,
            folder,
            service: self.service,
            garbage: self.garbage,
            log,
            reads_log,
            rest: ports["rest"],
            grpc: ports["grpc"],
            admin: ports["admin"],
        };
        // A storage service that does much else takes its time to be tried out.
        let deadline = Instant::now() + Duration::from_secs(90);
        while self.ready && server.readiness()["ready"] != true {
            assert!(Instant::now() < deadline, "it never became ready: {}", server.readiness());
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Server {
    /// A server as most tests want it: `fs`, unknown attachments created.
    pub fn start() -> Server {
        Setup::default().start()
    }

    /// A server that knows only registered attachments.
    pub fn strict() -> Server {
        Setup { on_unknown: "reject", ..Setup::default() }.start()
    }

    /// Stops reading the log, as long as what is returned lives.
    pub fn stall_log(&self) -> MutexGuard<'_, ()> {
        self.reads_log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A new connection to the REST port.
    pub fn connect(&self) -> Connection {
        Connection::open(self.rest)
    }

    /// The folder of the configuration and of what it names.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The storage root, on `fs`.
    pub fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The configuration file.
    pub fn config(&self) -> PathBuf {
        self.folder.path().join("attachd.toml")
    }

    /// The lines of the log so far: all that the server has said before this is asked.
    pub fn log(&self) -> Vec<String> {
        self.read_what_was_said();
        self.log.lock().unwrap().clone()
    }

    /// Waits until as much of the log is read as the server has taken to be written, unless it has ended or nobody reads.
    fn read_what_was_said(&self) {
        let Some(said) = self.try_numbers().and_then(|numbers| numbers.get("attachd_log_bytes_total").copied()) else {
            return;
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let read = || self.log.lock().unwrap().iter().map(|line| line.len() as f64 + 1.0).sum::<f64>();
        while read() < said && self.reads_log.try_lock().is_ok() {
            assert!(Instant::now() < deadline, "{} of {said} bytes of the log were read in 10 s", read());
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// How the request of this id ended, by its line in the log, which is waited for.
    pub fn outcome(&self, request_id: &str) -> String {
        let find = || {
            let lines = self.log();
            let lines = lines.iter().filter(|line| line.contains(request_id));
            let events = lines.filter_map(|line| serde_json::from_str::<Value>(line).ok());
            let mut fields = events.map(|event| event["fields"].clone());
            fields.find(|fields| fields["message"] == "request" && fields["request_id"] == request_id)
        };
        eventually(&format!("the log has the request {request_id}"), || find().is_some());
        find().expect("it was just there")["outcome"].as_str().expect("an outcome").to_owned()
    }

    /// The temporary files of uploads that are under way, on `fs`.
    pub fn temporary(&self) -> Vec<PathBuf> {
        let mut found = files(&self.root().join(".attachd-tmp"));
        found.retain(|path| path.file_name().is_none_or(|name| name != "lock"));
        found
    }

    /// The record of an attachment as it stands in the storage, if it is known.
    pub fn record(&self, client: i64, attachment: i64) -> Option<Value> {
        read_record(&record_path(self.root(), client, attachment)).map(|(record, _)| record)
    }

    /// What the record of a stored attachment says of its content.
    pub fn content(&self, client: i64, attachment: i64) -> Value {
        self.record(client, attachment).expect("there is a record")["content"].clone()
    }

    /// The stored bytes of an attachment, if it has any.
    pub fn stored(&self, client: i64, attachment: i64) -> Option<Vec<u8>> {
        stored_bytes(self.root(), client, attachment)
    }

    /// How many objects of content an attachment of client 1 has, on `fs`, whether a record names them or not.
    pub fn contents(&self, attachment: i64) -> usize {
        fs::read_dir(content_folder(self.root(), 1, attachment)).map_or(0, Iterator::count)
    }

    /// The events of the log so far that have this message, by their fields.
    pub fn events(&self, message: &str) -> Vec<Value> {
        let lines = self.log();
        let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        events.map(|event| event["fields"].clone()).filter(|fields| fields["message"] == message).collect()
    }

    /// The peak of the resident set since the start, in bytes.
    pub fn peak_rss(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process lives");
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("the kernel counts it");
        line.split_whitespace().nth(1).expect("a number").parse::<u64>().expect("a number") * 1024
    }

    /// What `/readyz` says.
    pub fn readiness(&self) -> Value {
        Connection::open(self.admin).request("GET", "/readyz", &[], b"").body
    }

    /// Sends a signal by its number's name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([format!("-{name}"), self.pid().to_string()]).status();
        assert!(sent.expect("kill can be run").success());
    }

    /// Ends the process in the middle of whatever it does, and keeps its folder.
    pub fn kill(mut self) -> TempDir {
        self.child.kill().expect("the process can be ended");
        self.child.wait().expect("the process can be waited for");
        let empty = tempfile::tempdir().expect("a temporary folder");
        std::mem::replace(&mut self.folder, empty)
    }

    /// Waits until the process ends, and returns its exit code.
    pub fn wait(&mut self) -> Option<i32> {
        self.child.wait().expect("the process can be waited for").code()
    }

    /// Looks that no upload is open, no memory is held, no temporary file lies about, and that the content which is there
    /// is the content that the records name, whole.
    pub fn assert_tidy(&self) {
        let idle = |state: &Value| state["uploads_in_flight"] == 0 && state["budget_used_bytes"] == 0;
        eventually(&format!("the server is idle: {}", self.readiness()), || idle(&self.readiness()));
        if self.service != "fs" {
            return;
        }
        let left = self.temporary();
        assert!(left.is_empty(), "temporary files are left: {left:?}");
        let number = |path: &Path| path.file_name()?.to_str()?.parse::<i64>().ok();
        for client in folders(&self.root().join("clients")) {
            let client = number(&client).expect("a client's folder has its number");
            for path in files(&self.root().join(format!("clients/{client}/records"))) {
                assert_whole(&self.root(), client, number(&path).expect("a record has the attachment's number"));
            }
            for folder in folders(&self.root().join(format!("clients/{client}/content"))) {
                let record = self.record(client, number(&folder).expect("a folder has the attachment's number"));
                let named = record.map_or_else(Vec::new, |record| segments(&record));
                for path in files(&folder).into_iter().filter(|_| !self.garbage) {
                    let name = path.file_name().and_then(|name| name.to_str()).expect("an id");
                    assert!(named.iter().any(|named| named == name), "no record names {}", path.display());
                }
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        if std::thread::panicking() {
            let _ = self.child.kill();
            let _ = self.child.wait();
            eprintln!("the server's log:\n{}", self.log().join("\n"));
            return;
        }
        self.assert_tidy();
        self.signal("TERM");
        assert_eq!(self.wait(), Some(0), "the server ends well");
    }
}

/// Looks that the content of a record is there and has its size and digest, without holding it in memory.
fn assert_whole(root: &Path, client: i64, attachment: i64) {
    let path = record_path(root, client, attachment);
    let (record, inline) = read_record(&path).expect("a record is there");
    if record["content"].is_null() {
        assert!(["registered", "deleted"].contains(&record["state"].as_str().expect("a state")), "{record}");
        assert!(inline.is_empty(), "there is content behind a record that has none");
        return;
    }
    let names = segments(&record);
    assert!(names.is_empty() || inline.is_empty(), "{} has content in two places", path.display());
    let mut hash = Context::new(&SHA256);
    hash.update(&inline);
    let (mut size, mut piece) = (inline.len(), vec![0; 1 << 20]);
    for name in names {
        let mut file = File::open(content_folder(root, client, attachment).join(name)).expect("a segment is there");
        loop {
            let read = file.read(&mut piece).expect("a segment can be read");
            if read == 0 {
                break;
            }
            hash.update(&piece[..read]);
            size += read;
        }
    }
    assert_eq!(record["content"]["size"], size);
    assert_eq!(record["content"]["sha256"], hex(hash.finish().as_ref()), "{} is damaged", path.display());
}

/// All folders in a folder; none if it is not there.
fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    entries.map(|entry| entry.expect("a folder can be read").path()).filter(|path| path.is_dir()).collect()
}

/// All files below a folder; none where there is no folder.
pub(super) fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.expect("a folder can be read").path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
