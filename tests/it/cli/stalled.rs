//! Servers that stop answering without closing the connection: each command ends in time, and `--retry` goes on.

use std::fs;
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Output};
use std::thread;
use std::time::{Duration, Instant};

use super::proxy::{answer, proxy, pump, splice};
use super::upload::Uploader;
use crate::harness::{Server, noise};

/// How long a command may take that meets one such connection. It waits for 30 s, and the machine may be busy.
const IN_TIME: Duration = Duration::from_secs(55);

/// A proxy whose first connection carries so many bytes back, then nothing, and stays open.
fn stalling(server: SocketAddr, most: u64) -> String {
    let address = proxy(server, move |number, client, server| {
        if number > 0 {
            return splice(client, server);
        }
        let there = (client.try_clone().unwrap(), server.try_clone().unwrap());
        thread::spawn(move || pump(&there.0, &there.1, usize::MAX));
        std::io::copy(&mut Read::by_ref(&mut &server).take(most), &mut &client).unwrap();
        hold(client, server);
    });
    format!("http://{address}")
}

/// Keeps connections open.
fn hold<T>(_client: TcpStream, _server: T) {
    loop {
        thread::park();
    }
}

/// Runs a command to its end, which must come in time.
fn ends_in_time(uploader: &Uploader, arguments: &[&str]) -> (Output, String) {
    let began = Instant::now();
    let mut command = Command::new(env!("CARGO_BIN_EXE_attachd"));
    command.args(arguments).args(["--client", "1", "--attachment", "2", "--token-file", "token", "--to", &uploader.to]);
    let ended = command.env_clear().current_dir(uploader.here.path()).output().unwrap();
    let (took, said) = (began.elapsed(), String::from_utf8_lossy(&ended.stderr).into_owned());
    assert!(took < IN_TIME, "{took:?}: {said}");
    (ended, said)
}

#[test]
fn a_download_whose_server_stalls_ends_and_keeps_what_arrived() {
    let server = Server::start();
    let bytes = noise(4 << 20, 1);
    let mut uploader = Uploader::new(&server, &bytes);
    assert_eq!(uploader.upload("some file.bin", &["--token-file", "token"]).code, Some(0));
    uploader.to = stalling(server.grpc, 1 << 20);
    let (ended, said) = ends_in_time(&uploader, &["download", "-o", "new"]);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(
        said.contains("the server stopped answering") && said.contains("the same command continues there"),
        "{said}"
    );
    assert!(!said.contains("keep-alive"), "{said}");
    let (ended, said) = ends_in_time(&uploader, &["download", "-o", "new"]);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(fs::read(uploader.here.path().join("new")).unwrap() == bytes);
}

#[test]
fn a_download_whose_server_stalls_goes_on_with_retry() {
    let server = Server::start();
    let bytes = noise(4 << 20, 2);
    let mut uploader = Uploader::new(&server, &bytes);
    assert_eq!(uploader.upload("some file.bin", &["--token-file", "token"]).code, Some(0));
    uploader.to = stalling(server.grpc, 1 << 20);
    let (ended, said) = ends_in_time(&uploader, &["download", "-o", "new", "--retry"]);
    assert_eq!(ended.status.code(), Some(0), "{said}");
    assert!(said.contains("the server stopped answering") && said.contains("trying again"), "{said}");
    assert!(fs::read(uploader.here.path().join("new")).unwrap() == bytes);
}

#[test]
fn a_port_that_accepts_and_never_answers_ends_a_command() {
    let silent = answer(|_, client| hold(client, ()));
    let mut uploader = Uploader::new(&Server::start(), b"x");
    uploader.to = format!("http://{silent}");
    let (ended, said) = ends_in_time(&uploader, &["get"]);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("the server stopped answering"), "{said}");
}

#[test]
fn an_upload_whose_server_stalls_ends_and_says_so() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, &noise(4 << 20, 3));
    uploader.to = stalling(server.grpc, 0);
    let (ended, said) = ends_in_time(&uploader, &["upload", "some file.bin"]);
    assert_eq!(ended.status.code(), Some(3), "{said}");
    assert!(said.contains("the server stopped answering"), "{said}");
}
