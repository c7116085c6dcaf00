//! The storage servers: each started once for all tests, on a port of its own, with a bucket.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};

use attachd::pb::RegisterAttachmentRequest;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Server, Setup, eventually, hex, token};
use crate::look::{ACCESS_KEY, Look, SECRET_KEY, installed};

/// The bucket, container or folder.
pub const BUCKET: &str = "attachments";

/// A storage that the suite runs over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Engine {
    /// A directory.
    Fs,
    /// The memory of the process, where nobody else can look.
    Memory,
    /// S3 by moto, in memory.
    Moto,
    /// S3 by MinIO, on one node.
    Minio,
    /// S3 by versitygw, over a directory.
    Versitygw,
    /// S3 by S3Mock, which looks at a condition and acts upon it afterwards.
    S3Mock,
    /// Azure's blobs by azurite.
    Azurite,
    /// Google's storage by fake-gcs-server.
    FakeGcs,
}

/// A running server, and one who looks into it.
pub struct Running {
    /// The address.
    pub endpoint: String,
    /// Looks into the bucket, where one can from outside.
    look: Option<Look>,
    process: Option<Child>,
    _data: Option<TempDir>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().and_then(|()| process.wait()).expect("a server of ours can be ended");
        }
    }
}

/// A part of a bucket that one test has for itself.
pub struct Place {
    /// What it lies in.
    pub running: Arc<Running>,
    /// What all its keys begin with.
    pub root: String,
    service: &'static str,
    variables: BTreeMap<&'static str, String>,
}

/// A port that was free a moment ago.
pub fn free_port() -> u16 {
    TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port()
}

/// A program that `setup.sh` has built.
pub fn built(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache = cache.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache"));
    cache.join("attachd-tests/bin").join(name)
}

/// Starts a server that ends when this process does, however it ends.
pub fn spawn(command: &mut Command) -> Child {
    let command_line = format!("{command:?}");
    let mut guarded = Command::new("setpriv");
    guarded.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    guarded.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    guarded.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let (started, starting) = std::sync::mpsc::channel();
    // The system ends it with the thread that started it, so that thread stays.
    std::thread::spawn(move || {
        let _ = started.send(guarded.spawn());
        loop {
            std::thread::park();
        }
    });
    let child = starting.recv().expect("a thread that starts a server");
    child.unwrap_or_else(|error| panic!("{command_line}: {error}: has tests/storage/setup.sh run?"))
}

/// MinIO over one or more folders.
pub fn minio(arguments: &[String], address: &str, port: u16) -> Command {
    let mut command = Command::new(built("minio"));
    command.args(["server", "--quiet", "--address", &format!("{address}:{port}")]).args(arguments);
    command.env("MINIO_ROOT_USER", ACCESS_KEY).env("MINIO_ROOT_PASSWORD", SECRET_KEY);
    // Nothing of it is to leave this machine.
    command.env("MINIO_BROWSER", "off").env("MINIO_UPDATE", "off").env("MINIO_CALLHOME_ENABLE", "off");
    command
}

/// versitygw over a folder, with more options.
pub fn versitygw(folder: &Path, port: u16, more: &[&str]) -> Command {
    let mut command = Command::new(built("versitygw"));
    command.args(["--quiet", "--port", &format!("127.0.0.1:{port}"), "posix"]).args(more).arg(folder);
    command.env("ROOT_ACCESS_KEY", ACCESS_KEY).env("ROOT_SECRET_KEY", SECRET_KEY);
    command
}

impl Running {
    /// A server that another looks after.
    pub fn elsewhere(endpoint: String, look: Look) -> Running {
        Running { endpoint, look: Some(look), process: None, _data: None }
    }
}

impl Engine {
    fn start(self) -> Running {
        let data = tempfile::tempdir().unwrap();
        let port = free_port();
        let endpoint = format!("http://127.0.0.1:{port}");
        let (kind, address, process) = match self {
            Engine::Memory => return Running { endpoint: String::new(), look: None, process: None, _data: None },
            Engine::Fs => ("fs", data.path().display().to_string(), None),
            Engine::Moto => {
                let mut command = Command::new(installed().join("storage/bin/python"));
                command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/storage/moto_server.py"));
                ("s3", endpoint.clone(), Some(spawn(command.arg(port.to_string()))))
            }
            Engine::Minio => {
                let folder = data.path().display().to_string();
                ("s3", endpoint.clone(), Some(spawn(&mut minio(&[folder], "127.0.0.1", port))))
            }
            Engine::Versitygw => {
                let mut command = versitygw(data.path(), port, &[]);
                ("s3", endpoint.clone(), Some(spawn(&mut command)))
            }
            Engine::S3Mock => {
                let mut command = Engine::s3mock(port);
                ("s3", endpoint.clone(), Some(spawn(&mut command)))
            }
            Engine::Azurite => {
                let mut command = Command::new(installed().join("azurite/node_modules/.bin/azurite-blob"));
                command.args(["--silent", "--skipApiVersionCheck", "--disableTelemetry"]);
                command.args(["--blobHost", "127.0.0.1", "--blobPort", &port.to_string(), "--inMemoryPersistence"]);
                command.env("AZURITE_ACCOUNTS", format!("{ACCESS_KEY}:{SECRET_KEY}"));
                command.env("PATH", std::env::var_os("PATH").unwrap());
                ("azblob", format!("{endpoint}/{ACCESS_KEY}"), Some(spawn(&mut command)))
            }
            Engine::FakeGcs => {
                let mut command = Command::new(built("fake-gcs-server"));
                command.args([
                    "-scheme",
                    "http",
                    "-host",
                    "127.0.0.1",
                    "-port",
                    &port.to_string(),
                    "-backend",
                    "memory",
                ]);
                command.args(["-external-url", &endpoint, "-log-level", "error"]);
                ("gcs", endpoint.clone(), Some(spawn(&mut command)))
            }
        };
        let look = Look::at(kind, &address, BUCKET);
        look.make();
        Running { endpoint: address, look: Some(look), process, _data: Some(data) }
    }

    /// S3Mock. It keeps its files in a folder of its own unless it is told another one.
    pub fn s3mock(port: u16) -> Command {
        let mut command = Command::new("java");
        command.args(["-XX:TieredStopAtLevel=1", "-jar"]).arg(installed().join("s3mock.jar"));
        // The second port speaks TLS, and cannot be done without.
        command.args([format!("--http.port={port}"), format!("--server.port={}", free_port())]);
        command
    }

    /// The server, started with the first who asks.
    pub fn running(self) -> Arc<Running> {
        static FS: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::Fs.start()));
        static MOTO: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::Moto.start()));
        static MINIO: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::Minio.start()));
        static VERSITYGW: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::Versitygw.start()));
        static S3MOCK: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::S3Mock.start()));
        static AZURITE: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::Azurite.start()));
        static FAKE_GCS: LazyLock<Arc<Running>> = LazyLock::new(|| Arc::new(Engine::FakeGcs.start()));
        Arc::clone(match self {
            // Each process has its own.
            Engine::Memory => return Arc::new(Engine::Memory.start()),
            Engine::Fs => &FS,
            Engine::Moto => &MOTO,
            Engine::Minio => &MINIO,
            Engine::Versitygw => &VERSITYGW,
            Engine::S3Mock => &S3MOCK,
            Engine::Azurite => &AZURITE,
            Engine::FakeGcs => &FAKE_GCS,
        })
    }

    /// A place of one test's own.
    pub fn place(self) -> Place {
        self.place_on(self.running())
    }

    /// A place on a server of its own, for those that become slow with all that is in them. It ends with its place.
    pub fn secluded(self) -> Place {
        self.place_on(Arc::new(self.start()))
    }

    fn place_on(self, running: Arc<Running>) -> Place {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let service = match self {
            Engine::Fs => "fs",
            Engine::Memory => "memory",
            Engine::Moto | Engine::Minio | Engine::Versitygw | Engine::S3Mock => "s3",
            Engine::Azurite => "azblob",
            Engine::FakeGcs => "gcs",
        };
        Place::at(service, running, &name)
    }
}

impl Place {
    /// A place of this name.
    pub fn at(service: &'static str, running: Arc<Running>, name: &str) -> Place {
        let endpoint = running.endpoint.clone();
        let text = str::to_owned;
        let root = match service {
            "fs" => {
                let root = format!("{endpoint}/{BUCKET}/{name}");
                std::fs::create_dir_all(&root).unwrap();
                root
            }
            "memory" => return Place { running, root: format!("{name}/"), service, variables: BTreeMap::new() },
            _ => format!("/{name}"),
        };
        let mut variables = BTreeMap::from([("ATTACHD_STORAGE__OPTIONS__ROOT", root)]);
        match service {
            "s3" => variables.extend([
                ("ATTACHD_STORAGE__OPTIONS__BUCKET", text(BUCKET)),
                ("ATTACHD_STORAGE__OPTIONS__REGION", text("us-east-1")),
                ("ATTACHD_STORAGE__OPTIONS__ENDPOINT", endpoint),
                ("ATTACHD_STORAGE__OPTIONS__ACCESS_KEY_ID", text(ACCESS_KEY)),
                ("ATTACHD_STORAGE__OPTIONS__SECRET_ACCESS_KEY", text(SECRET_KEY)),
            ]),
            "azblob" => variables.extend([
                ("ATTACHD_STORAGE__OPTIONS__CONTAINER", text(BUCKET)),
                ("ATTACHD_STORAGE__OPTIONS__ENDPOINT", endpoint),
                ("ATTACHD_STORAGE__OPTIONS__ACCOUNT_NAME", text(ACCESS_KEY)),
                ("ATTACHD_STORAGE__OPTIONS__ACCOUNT_KEY", text(SECRET_KEY)),
            ]),
            "gcs" => variables.extend([
                ("ATTACHD_STORAGE__OPTIONS__BUCKET", text(BUCKET)),
                ("ATTACHD_STORAGE__OPTIONS__ENDPOINT", endpoint),
                ("ATTACHD_STORAGE__OPTIONS__SKIP_SIGNATURE", text("true")),
            ]),
            _ => {}
        }
        Place { running, root: format!("{name}/"), service, variables }
    }

    /// A server over it. Several may be started.
    pub fn setup(&self) -> Setup {
        Setup {
            service: self.service,
            variables: self.variables.clone(),
            limits: "max_upload_size = \"2GiB\"\n".to_owned(),
            garbage: true,
            ready: true,
            ..Setup::default()
        }
    }

    /// A server over it.
    pub fn start(&self) -> Server {
        self.setup().start()
    }

    /// Runs a command over it that needs a configuration, and returns its exit code with all that it said.
    pub fn run(&self, limits: &str, arguments: &[&str]) -> (Option<i32>, String) {
        let setup = Setup { limits: limits.to_owned(), ..self.setup() };
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
        command.args(arguments).arg("--config").arg(setup.write(folder.path())).env_clear().envs(&self.variables);
        let ended = command.output().unwrap();
        let said = [ended.stdout, ended.stderr].concat();
        (ended.status.code(), String::from_utf8(said).unwrap())
    }

    /// The variables that say where it is.
    pub fn variables(&self) -> &BTreeMap<&'static str, String> {
        &self.variables
    }

    /// One who looks into the bucket.
    pub fn look(&self) -> &Look {
        self.running.look.as_ref().expect("it can be looked into")
    }

    /// The digest of what is stored under an attachment. Of what is in memory, it is the one that the record says: registering
    /// an attachment again returns what is known of it.
    pub fn stored(&self, server: &Server, attachment: i64) -> Option<String> {
        if self.running.look.is_some() {
            return self.look().stored(&self.root, attachment);
        }
        let request = RegisterAttachmentRequest { client_id: 1, attachment_id: attachment, ..Default::default() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let known = runtime.block_on(server.grpc_register(&token(&[1]), request)).expect("it can be asked for");
        known.sha256.map(|digest| hex(&digest))
    }

    /// Looks that there is exactly what the records name, which is waited for: some tidying goes on after a reply.
    pub fn assert_nothing_left(&self, servers: &[&Server]) {
        for server in servers {
            let idle = |state: &Value| state["uploads_in_flight"] == 0 && state["budget_used_bytes"] == 0;
            eventually("the server is idle and holds no memory", || idle(&server.readiness()));
        }
        if let Some(look) = &self.running.look {
            look.assert_nothing_left(&self.root);
        }
    }
}
