//! Object storage on this machine, and the least that a program can do that stores in it: a copy by OpenDAL.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use opendal::{HttpTransporter, Operator};
use opendal_http_transport_reqwest::ReqwestTransport;

use crate::content::noise;
use crate::error::Result;

/// The name of the bucket, and of the account and its secret.
const BUCKET: &str = "uploads";
const ACCESS_KEY: &str = "benchmark";
const SECRET_KEY: &str = "benchmark-secret";

/// The size of a part, in bytes. attachd's are smaller, since it keeps several in memory; a copy is faster with large ones.
const PART: u64 = 8 << 20;

/// How long MinIO may take to start.
const START: Duration = Duration::from_secs(20);

/// MinIO on one folder, until it is dropped.
#[derive(Debug)]
pub struct Engine {
    child: Child,
    address: SocketAddr,
}

impl Engine {
    /// Starts it over an empty folder, and waits until it is ready.
    pub fn start(program: &Path, folder: &Path) -> Result<Engine> {
        // MinIO takes the folders that it finds for buckets.
        let drive = folder.join("engine");
        fs::create_dir_all(drive.join(BUCKET))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = File::create(folder.join("engine.log"))?;
        let child = Command::new(program)
            .args(["server", "--quiet", "--address", &address.to_string()])
            .arg(drive)
            .env("MINIO_ROOT_USER", ACCESS_KEY)
            .env("MINIO_ROOT_PASSWORD", SECRET_KEY)
            // Nothing of it is to leave this machine.
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off"), ("MINIO_CALLHOME_ENABLE", "off")])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let engine = Engine { child, address };
        let begun = Instant::now();
        while !engine.ready() {
            if begun.elapsed() > START {
                return Err(fs::read_to_string(folder.join("engine.log"))?.into());
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(engine)
    }

    fn ready(&self) -> bool {
        let ask = || -> std::io::Result<String> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.write_all(b"GET /minio/health/ready HTTP/1.1\r\nHost: minio\r\nConnection: close\r\n\r\n")?;
            let mut reply = String::new();
            stream.read_to_string(&mut reply)?;
            Ok(reply)
        };
        ask().is_ok_and(|reply| reply.starts_with("HTTP/1.1 200"))
    }

    /// The options by which OpenDAL finds it.
    pub fn options(&self) -> Vec<(String, String)> {
        let endpoint = format!("http://{}", self.address);
        let options = [
            ("bucket", BUCKET),
            ("region", "us-east-1"),
            ("endpoint", &endpoint),
            ("access_key_id", ACCESS_KEY),
            ("secret_access_key", SECRET_KEY),
        ];
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).into()
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Err(error) = self.child.kill().and_then(|()| self.child.wait()) {
            eprintln!("the engine could not be ended: {error}");
        }
    }
}

/// Copies when it is told to, by a line with the number of objects and their size, and says when it is done. Of each object so
/// many parts are sent at once.
pub fn copy(at_once: usize, options: &[String]) -> Result {
    let provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.install_default().map_err(|_| "there is a provider of cryptography already")?;
    HttpTransporter::install_default(ReqwestTransport::default());
    let options = options.iter().filter_map(|option| option.split_once('='));
    let operator = Operator::via_iter("s3", options.map(|(name, value)| (name.to_owned(), value.to_owned())))?;
    let runtime = tokio::runtime::Runtime::new()?;
    let mut objects = 0_u64;
    println!("ready");
    for line in std::io::stdin().lines() {
        let line = line?;
        let (count, size) = line.split_once(' ').ok_or("a line is two numbers")?;
        let (count, size): (u64, u64) = (count.parse()?, size.parse()?);
        runtime.block_on(async {
            let mut copies = tokio::task::JoinSet::new();
            for number in objects..objects + count {
                copies.spawn(object(operator.clone(), number, size, at_once));
            }
            while let Some(copy) = copies.join_next().await {
                copy??;
            }
            Result::Ok(())
        })?;
        objects += count;
        println!("done");
    }
    Ok(())
}

async fn object(operator: Operator, number: u64, size: u64, at_once: usize) -> Result {
    let part = noise(PART.min(size) as usize);
    let mut writer = operator.writer_with(&number.to_string()).concurrent(at_once).await?;
    let mut left = size;
    while left > 0 {
        let piece = left.min(PART);
        writer.write(part.slice(..piece as usize)).await?;
        left -= piece;
    }
    writer.close().await?;
    Ok(())
}

/// The conversation with a process that runs [`copy`].
#[derive(Debug)]
pub struct Copying {
    orders: std::process::ChildStdin,
    answers: BufReader<std::process::ChildStdout>,
}

impl Copying {
    /// Starts the process.
    pub fn start(engine: &Engine, at_once: usize) -> Result<(Child, Copying)> {
        let options = engine.options().into_iter().map(|(name, value)| format!("{name}={value}"));
        let mut command = Command::new(std::env::current_exe()?);
        let command = command.arg("copy").arg(at_once.to_string()).args(options);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let orders = child.stdin.take().ok_or("no input")?;
        let answers = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut copying = Copying { orders, answers };
        copying.answer("ready")?;
        Ok((child, copying))
    }

    /// Copies so many objects at once.
    pub fn copy(&mut self, count: usize, size: u64) -> Result {
        writeln!(self.orders, "{count} {size}")?;
        self.answer("done")
    }

    fn answer(&mut self, expected: &str) -> Result {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        if line.trim() == expected { Ok(()) } else { Err(format!("a copy that fails: {line:?}").into()) }
    }
}
