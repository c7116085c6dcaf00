//! A contestant as a process of its own, in a folder of its own, until it is dropped.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rcgen::{CertificateParams, KeyPair, PKCS_RSA_SHA256};

use crate::contestant::{Contestant, Door, Program};
use crate::engine::{Copying, Engine};
use crate::error::Result;
use crate::process;

/// How long a program may take to start.
const START: Duration = Duration::from_secs(20);

/// How often it is looked whether a program has started.
const LOOK: Duration = Duration::from_micros(500);

/// A running server.
#[derive(Debug)]
pub struct Server {
    child: Child,
    folder: PathBuf,
    stop: Stop,
    copying: Option<Mutex<Copying>>,
    /// Where uploads are sent.
    pub address: SocketAddr,
    /// Whether nobody reads the log for now, if it is written to a pipe.
    log_stalls: Arc<AtomicBool>,
    /// The gRPC port of attachd.
    pub grpc: SocketAddr,
    /// The certificate of its ports, in DER, if they speak TLS.
    pub certificate: Option<Vec<u8>>,
    /// Attachments from this id on are not there yet.
    pub ids: u64,
    /// The token that they carry, where they need one.
    pub token: String,
    /// How long it took from the start of the process until it was ready.
    pub ready: Duration,
}

/// Where a server runs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// A folder that is empty.
    pub folder: &'a Path,
    /// Where attachd stores, if not in a fresh folder below that.
    pub root: Option<&'a Path>,
    /// Where the files are that a plain server gives, if it gives any.
    pub plain: Option<&'a Path>,
    /// Where attachd stores, if it is to store in S3.
    pub engine: Option<&'a Engine>,
    /// Attachments from this id on are not there yet.
    pub ids: u64,
}

/// What of attachd is not as usual.
#[derive(Clone, Copy, Debug, Default)]
pub struct Manner {
    /// Its ports speak TLS, with a certificate for [`NAME`].
    pub tls: bool,
    /// Its log is written to a pipe, whose reader can be stopped.
    pub piped_log: bool,
}

/// The name of the server in its certificate.
pub const NAME: &str = "localhost";

/// How a program is ended.
#[derive(Clone, Copy, Debug)]
enum Stop {
    Kill,
    /// By a word to it: it has children.
    Terminate,
}

impl Server {
    /// Starts a contestant, and waits until it is ready. `limits` are lines of attachd's section.
    pub fn start(contestant: &Contestant, place: &Place, limits: &str, manner: Manner) -> Result<Server> {
        let folder = place.folder;
        fs::create_dir(folder.join("root"))?;
        match &contestant.program {
            Program::Attachd(program) => Server::attachd(program, contestant.door, place, limits, manner),
            Program::Floor(floor) => own("floor", floor, place),
            Program::Plain(plain) => own("plain", plain, place),
            Program::Copy { at_once } => {
                let begun = Instant::now();
                let (child, copying) = Copying::start(place.engine.ok_or("there is no engine to copy to")?, *at_once)?;
                Ok(Server {
                    child,
                    folder: folder.to_owned(),
                    stop: Stop::Kill,
                    copying: Some(Mutex::new(copying)),
                    address: SocketAddr::from(([127, 0, 0, 1], 0)),
                    log_stalls: Arc::default(),
                    grpc: SocketAddr::from(([127, 0, 0, 1], 0)),
                    certificate: None,
                    ids: 0,
                    token: String::new(),
                    ready: begun.elapsed(),
                })
            }
            Program::Nginx => nginx(place),
            Program::Miniserve => {
                let arguments = ["--upload-files", "/", "--interfaces", "127.0.0.1", "--port"];
                other(Command::new("miniserve").args(arguments), folder, |command, port| {
                    command.arg(port.to_string()).arg(folder.join("root"));
                })
            }
            Program::Dufs => {
                other(Command::new("dufs").args(["--allow-all", "--bind", "127.0.0.1"]), folder, |command, port| {
                    command.args(["--port", &port.to_string()]).arg(folder.join("root"));
                })
            }
        }
    }

    fn attachd(program: &Path, door: Door, place: &Place, limits: &str, manner: Manner) -> Result<Server> {
        let folder = place.folder;
        let (private, public) = keys()?;
        fs::write(folder.join("private.pem"), private)?;
        fs::write(folder.join("public.pem"), public)?;
        let config = folder.join("attachd.toml");
        let root = place.root.map_or_else(|| folder.join("root"), Path::to_owned);
        let (service, options) = match place.engine {
            None => ("fs", format!("root = {root:?}")),
            Some(engine) => {
                ("s3", engine.options().iter().map(|(name, value)| format!("{name} = {value:?}\n")).collect())
            }
        };
        let (certificate, tls) = if manner.tls { certified(folder)? } else { (None, "") };
        let text = format!(
            "[rest]\nlisten = \"127.0.0.1:0\"\n{tls}[grpc]\nlisten = \"127.0.0.1:0\"\n{tls}[admin]\nlisten = \"127.0.0.1:0\"\n\
             [storage]\nservice = \"{service}\"\n[storage.options]\n{options}\n\
             [attachments]\non_unknown = \"create\"\n[limits]\nmax_upload_size = \"16GiB\"\n{limits}\
             [[auth.issuers]]\nissuer = \"https://id.example\"\naudience = [\"attachd\"]\nalgorithms = [\"RS256\"]\n\
             pem_file = \"public.pem\"\n[log]\nformat = \"json\"\n"
        );
        fs::write(&config, text)?;
        let token = Command::new(program)
            .args(["token", "--client", "*", "--scope", "attachments:write", "--scope", "attachments:read", "--config"])
            .arg(&config)
            .arg("--key")
            .arg(folder.join("private.pem"))
            .output()?;
        if !token.status.success() {
            return Err(String::from_utf8_lossy(&token.stderr).into_owned().into());
        }
        let log = folder.join("log");
        let mut command = Command::new(program);
        command.args(["serve", "--config"]).arg(&config);
        let log_stalls = Arc::new(AtomicBool::new(false));
        let mut written = File::create(&log)?;
        if manner.piped_log {
            command.stderr(Stdio::piped());
        } else {
            command.stderr(written.try_clone()?);
        }
        let begun = Instant::now();
        let mut child = command.spawn()?;
        if let Some(mut pipe) = child.stderr.take() {
            let stalls = Arc::clone(&log_stalls);
            thread::spawn(move || copy_log(&mut pipe, &mut written, &stalls));
        }
        let token = String::from_utf8(token.stdout)?.trim().to_owned();
        let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut server = Server {
            child,
            folder: folder.to_owned(),
            stop: Stop::Kill,
            copying: None,
            address: anywhere,
            log_stalls,
            grpc: anywhere,
            certificate,
            ids: place.ids,
            token,
            ready: Duration::ZERO,
        };
        let admin = server.wait(|_| listening(&log, "admin"))?;
        server.wait(|_| ready(admin))?;
        server.ready = begun.elapsed();
        let port = if matches!(door, Door::Grpc { .. }) { "grpc" } else { "rest" };
        server.address = server.wait(|_| listening(&log, port))?;
        server.grpc = server.wait(|_| listening(&log, "grpc"))?;
        Ok(server)
    }

    /// Asks until there is an answer, as long as the process lives.
    fn wait<T>(&mut self, ask: impl Fn(&Server) -> Option<T>) -> Result<T> {
        let deadline = Instant::now() + START;
        loop {
            if let Some(answer) = ask(self) {
                return Ok(answer);
            }
            if let Some(status) = self.child.try_wait()? {
                let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
                return Err(format!("it ended with {status}: {log}").into());
            }
            if Instant::now() > deadline {
                return Err("it did not start in time".into());
            }
            thread::sleep(LOOK);
        }
    }

    /// Where the content is stored.
    pub fn root(&self) -> PathBuf {
        self.folder.join("root")
    }

    /// Has a copy copy so many objects at once.
    pub fn copy(&self, count: usize, size: u64) -> Result {
        let copying = self.copying.as_ref().ok_or("this is no copy")?;
        copying.lock().map_err(|_| "a copy that panicked")?.copy(count, size)
    }

    /// Has nobody read its log, or somebody again.
    pub fn stall_log(&self, stalls: bool) {
        self.log_stalls.store(stalls, Ordering::Relaxed);
    }

    /// How many bytes of log it has written, or of its pipe were read.
    pub fn log_bytes(&self) -> Result<u64> {
        Ok(fs::metadata(self.folder.join("log"))?.len())
    }

    /// The processor time that it has used.
    pub fn cpu(&self) -> Result<Duration> {
        process::cpu(self.child.id())
    }

    /// The most memory that it has had, in bytes.
    pub fn peak(&self) -> Result<u64> {
        process::peak(self.child.id())
    }

    /// The memory that it has now, in bytes.
    pub fn resident(&self) -> Result<u64> {
        process::resident(self.child.id())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stall_log(false);
        let told = match self.stop {
            Stop::Kill => self.child.kill(),
            Stop::Terminate => Command::new("kill").arg(self.child.id().to_string()).status().map(drop),
        };
        if let Err(error) = told.and_then(|()| self.child.wait()) {
            eprintln!("a server could not be ended: {error}");
        }
    }
}

/// The issuer's keys, in PEM: the private one, with which tokens are signed, and the public one, which attachd is given. They
/// are slow to make, and all servers may have the same.
fn keys() -> Result<&'static (String, String)> {
    static KEYS: OnceLock<(String, String)> = OnceLock::new();
    if KEYS.get().is_none() {
        let key = KeyPair::generate_for(&PKCS_RSA_SHA256)?;
        let _ = KEYS.set((key.serialize_pem(), key.public_key_pem()));
    }
    KEYS.get().ok_or_else(|| "no keys".into())
}

/// A certificate for [`NAME`] in the folder: in DER, and the line of a port's section that names it.
fn certified(folder: &Path) -> Result<(Option<Vec<u8>>, &'static str)> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([NAME.to_owned()])?.self_signed(&key)?;
    fs::write(folder.join("tls.crt"), certificate.pem())?;
    fs::write(folder.join("tls.key"), key.serialize_pem())?;
    let tls = "tls = { cert_file = \"tls.crt\", key_file = \"tls.key\" }\n";
    Ok((Some(certificate.der().to_vec()), tls))
}

/// Copies a log from a pipe to a file, except while it stalls, until the pipe ends.
fn copy_log(pipe: &mut impl Read, file: &mut File, stalls: &AtomicBool) {
    let mut room = [0; 4 << 10];
    loop {
        while stalls.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(1));
        }
        match pipe.read(&mut room) {
            Ok(length) if length > 0 && file.write_all(&room[..length]).is_ok() => {}
            _ => return,
        }
    }
}

/// The address that attachd's log says a port has.
fn listening(log: &Path, port: &str) -> Option<SocketAddr> {
    let text = fs::read_to_string(log).ok()?;
    let mut fields = text
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .map(|mut event| event["fields"].take());
    let fields = fields.find(|fields| fields["message"] == "listening" && fields["port"] == port)?;
    fields["address"].as_str()?.parse().ok()
}

/// Whether attachd says that it is ready.
fn ready(admin: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect(admin).ok()?;
    stream.write_all(b"GET /readyz HTTP/1.1\r\nHost: attachd\r\nConnection: close\r\n\r\n").ok()?;
    let mut reply = String::new();
    stream.read_to_string(&mut reply).ok()?;
    reply.starts_with("HTTP/1.1 200").then_some(())
}

/// This program in another role. Its first line is its address.
fn own(role: &str, which: &impl clap::ValueEnum, place: &Place) -> Result<Server> {
    let folder = place.folder;
    let which = which.to_possible_value().ok_or("a role without a name")?;
    let begun = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .args([role, which.get_name()])
        .arg(place.plain.map_or_else(|| folder.join("root"), Path::to_owned))
        .stdout(Stdio::piped())
        .spawn()?;
    let mut line = String::new();
    BufReader::new(child.stdout.take().ok_or("no output")?).read_line(&mut line)?;
    let ready = begun.elapsed();
    let address = line.trim().parse();
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let mut server = Server {
        child,
        folder: folder.to_owned(),
        stop: Stop::Kill,
        copying: None,
        address: anywhere,
        log_stalls: Arc::default(),
        grpc: anywhere,
        certificate: None,
        ids: 0,
        token: String::new(),
        ready,
    };
    server.address = address?;
    Ok(server)
}

/// A program that is told its port.
fn other(command: &mut Command, folder: &Path, finish: impl FnOnce(&mut Command, u16)) -> Result<Server> {
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    finish(command, address.port());
    let log = File::create(folder.join("log"))?;
    let begun = Instant::now();
    let child = command.stdout(log.try_clone()?).stderr(log).spawn().map_err(|error| missing(command, &error))?;
    let mut server = Server {
        child,
        folder: folder.to_owned(),
        stop: Stop::Terminate,
        copying: None,
        address,
        log_stalls: Arc::default(),
        grpc: address,
        certificate: None,
        ids: 0,
        token: String::new(),
        ready: Duration::ZERO,
    };
    server.wait(|server| TcpStream::connect(server.address).ok())?;
    server.ready = begun.elapsed();
    Ok(server)
}

/// What to do about a program that cannot be started.
fn missing(command: &Command, error: &std::io::Error) -> String {
    let program = command.get_program().display();
    match error.kind() {
        std::io::ErrorKind::NotFound => {
            format!("{program} is not installed; install its package, such as nginx-light of Debian for nginx")
        }
        _ => format!("{program}: {error}"),
    }
}

/// nginx as one would set it up for this: bodies go to a file beside the target and are renamed, files are sent by the kernel,
/// and nothing is logged.
fn nginx(place: &Place) -> Result<Server> {
    let folder = place.folder;
    let root = place.plain.map_or_else(|| folder.join("root"), Path::to_owned);
    let config = folder.join("nginx.conf");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-e").arg(folder.join("nginx.log")).arg("-c").arg(&config);
    other(&mut command, folder, |_, port| {
        let (folder, root) = (folder.display(), root.display());
        let text = format!(
            "daemon off;\nworker_processes auto;\nuser root;\npid {folder}/nginx.pid;\nerror_log {folder}/nginx.log;\n\
             worker_rlimit_nofile 20000;\nevents {{ worker_connections 8192; }}\n\
             http {{\n access_log off;\n sendfile on;\n client_max_body_size 0;\n client_body_buffer_size 128k;\n keepalive_requests 10000000;\n\
             client_body_temp_path {folder}/root/.temporary;\n proxy_temp_path {folder}/proxy;\n\
             fastcgi_temp_path {folder}/fastcgi;\n uwsgi_temp_path {folder}/uwsgi;\n scgi_temp_path {folder}/scgi;\n\
             server {{\n  listen 127.0.0.1:{port} backlog=4096;\n  root {root};\n\
               location / {{ dav_methods PUT; create_full_put_path on; dav_access user:rw; }}\n }}\n}}\n"
        );
        // What cannot be written, nginx cannot read, and says so.
        if let Err(error) = fs::write(&config, text) {
            eprintln!("{}: {error}", config.display());
        }
    })
}
