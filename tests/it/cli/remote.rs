//! Where `attachd upload` sends, and what it says of a place that is not a gRPC port of attachd.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};

use super::Outcome;
use super::proxy::{answer, proxy, pump};
use super::upload::{Uploader, over_tls};
use crate::harness::{Authority, Identity, Server, Setup, noise};

/// Uploads to an address, looks that nothing is printed, and that the complaint has these words and not those.
fn assert_says(uploader: &Uploader, more: &[&str], code: i32, words: &[&str], not: &[&str]) -> Outcome {
    let outcome = uploader.upload("some file.bin", &[&["--token-file", "token"], more].concat());
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(code), ""), "{}: {outcome:?}", uploader.to);
    for word in words {
        assert!(outcome.stderr.contains(word), "{}: {word}: {}", uploader.to, outcome.stderr);
    }
    for word in [not, &["frame with invalid size", "h2 protocol error"]].concat() {
        assert!(!outcome.stderr.contains(word), "{}: {word}: {}", uploader.to, outcome.stderr);
    }
    outcome
}

/// A server that answers everything with these bytes.
fn answering(bytes: &'static [u8]) -> SocketAddr {
    answer(move |_, mut client| {
        let mut some = [0; 1024];
        let _ = client.read(&mut some);
        let _ = client.write_all(bytes);
    })
}

#[test]
fn a_port_that_is_not_grpc_is_named_as_what_it_is() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, b"x");
    let mut says = |to: String, code, words: &[&str], not: &[&str]| {
        uploader.to = to;
        assert_says(&uploader, &[], code, words, not);
    };
    says(format!("http://{}", server.rest), 1, &["--to takes the gRPC port", "REST port"], &["https://"]);
    let http1 = answering(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    says(format!("http://{http1}"), 1, &["speaks HTTP/1.1 and not gRPC", "--to takes the gRPC port"], &["https://"]);
    let alert = answering(&[21, 3, 3, 0, 2, 2, 40]);
    says(format!("http://{alert}"), 1, &["the port speaks TLS; write https://"], &[]);
    let nginx = answering(b"HTTP/1.1 400 Bad Request\r\n\r\nThe plain HTTP request was sent to HTTPS port");
    says(format!("http://{nginx}"), 1, &["the port speaks TLS; write https://"], &[]);
    says(format!("https://{}", server.grpc), 1, &["does not speak TLS; write http://"], &["corrupt"]);
    says(format!("https://{}", server.rest), 1, &["does not speak TLS; write http://"], &["corrupt"]);
    says("http://no-such-host.invalid:50051".to_owned(), 1, &["cannot be resolved", "spelt"], &[]);
    says(server.grpc.to_string(), 2, &["--to: ", "has no scheme; write https://"], &[]);
    says("http://".to_owned(), 2, &["--to: ", "50051"], &[]);
    says("http://:50051".to_owned(), 2, &["--to: ", "has no host"], &[]);
    says("grpc://127.0.0.1:50051".to_owned(), 2, &["--to: ", "must begin with https:// or http://"], &[]);
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    says(format!("http://{nobody}"), 3, &["connection refused: nothing listens on this port"], &["https://"]);
    says(format!("https://{nobody}"), 3, &["connection refused: nothing listens on this port"], &["http://"]);
    assert!(server.record(1, 2).is_none());
}

#[test]
fn a_server_that_goes_away_in_the_middle_is_no_matter_of_tls() {
    let server = Server::start();
    let mut uploader = Uploader::new(&server, &noise(4 << 20, 1));
    let cut = proxy(server.grpc, |_, client, server| {
        let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
        std::thread::spawn(move || pump(&back.0, &back.1, usize::MAX));
        pump(&client, &server, 1 << 20);
    });
    uploader.to = format!("http://{cut}");
    let words = ["the connection was lost", " bytes of the content; nothing was stored"];
    assert_says(&uploader, &[], 3, &words, &["https://", "TLS"]);
    assert!(server.record(1, 2).is_none());
}

#[test]
fn a_certificate_that_is_refused_is_explained_with_the_mend() {
    let (server, mut uploader) = over_tls("");
    assert_says(
        &uploader,
        &[],
        1,
        &["signed by no certificate authority that is trusted", "--ca-file"],
        &["UnknownIssuer"],
    );
    assert_says(&uploader, &["--ca-file", "other.pem"], 1, &["--ca-file"], &["UnknownIssuer"]);
    uploader.to = uploader.to.replace("127.0.0.1", "127.0.0.2");
    // Nobody listens there, unless the port is bound to all addresses.
    let elsewhere = std::net::TcpListener::bind((std::net::Ipv4Addr::new(127, 0, 0, 2), 0)).unwrap();
    let (address, grpc) = (elsewhere.local_addr().unwrap(), server.grpc);
    std::thread::spawn(move || {
        let (client, _) = elsewhere.accept().unwrap();
        super::proxy::splice(client, std::net::TcpStream::connect(grpc).unwrap());
    });
    uploader.to = format!("https://{address}");
    assert_says(&uploader, &["--ca-file", "ca.pem"], 1, &["is for another host name", "--to"], &["NotValidForName"]);
    assert!(server.record(1, 2).is_none());
}

#[test]
fn a_certificate_of_another_time_is_explained() {
    for (from, to, words) in [(1990, 1991, "has expired"), (2990, 2991, "is not valid yet")] {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("ours");
        let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(to, 1, 1);
        authority.sign(params).write(folder.path(), "server");
        let tls = "[grpc.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n".to_owned();
        let server = Setup { more: tls, ..Setup::default() }.start_in(folder);
        let mut uploader = Uploader::new(&server, b"x");
        std::fs::write(uploader.here.path().join("ca.pem"), authority.pem()).unwrap();
        uploader.to = format!("https://{}", server.grpc);
        assert_says(&uploader, &["--ca-file", "ca.pem"], 1, &[words, "clock"], &["Expired", "NotValidYet"]);
    }
}

#[test]
fn a_certificate_of_an_authority_that_a_server_shows_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let mut params = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let own = Identity::self_signed(&params);
    own.write(folder.path(), "server");
    let tls = "[grpc.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n".to_owned();
    let server = Setup { more: tls, ..Setup::default() }.start_in(folder);
    let mut uploader = Uploader::new(&server, b"x");
    std::fs::write(uploader.here.path().join("ca.pem"), own.pem()).unwrap();
    uploader.to = format!("https://{}", server.grpc);
    let words = ["is marked as that of a certificate authority", "CA:FALSE"];
    assert_says(&uploader, &["--ca-file", "ca.pem"], 1, &words, &["CaUsedAsEndEntity"]);
}

#[test]
fn a_server_that_asks_for_a_client_certificate_is_told_apart() {
    let (server, uploader) = over_tls("client_ca_file = \"ca.pem\"");
    let authority = Authority::new("others");
    authority.first_version(authority.client("archiver", &[])).write(uploader.here.path(), "first");
    let first = ["--ca-file", "ca.pem", "--cert-file", "first.pem", "--key-file", "first.key"];
    assert_says(&uploader, &first, 2, &["--cert-file", "X.509 version 1"], &["UnsupportedCertVersion", "transport"]);
    assert_says(&uploader, &["--ca-file", "ca.pem"], 1, &["asks for a client certificate", "--cert-file"], &[]);
    let stranger = ["--ca-file", "ca.pem", "--cert-file", "stranger.pem", "--key-file", "stranger.key"];
    assert_says(&uploader, &stranger, 1, &["client certificate", "--cert-file"], &[]);
    assert!(server.record(1, 2).is_none());
}
