//! Digests that a client declares, of the file or of the body, in a header or a trailer: each is verified, or refused.

use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2::handshake;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::harness::{Ask, Form, Server, noise, sha256, token};

const MISMATCH: &str = "DIGEST_MISMATCH";
const INVALID: &str = "INVALID_REQUEST";

fn dictionary(bytes: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(sha256(bytes)))
}

/// An upload that is sent with and without its length, and must end the same both times.
struct Trial {
    server: Server,
    file: Vec<u8>,
    form: Form,
    /// How many requests were to be refused, for their ids.
    asked: AtomicUsize,
}

impl Trial {
    fn start() -> Trial {
        let file = noise(100_000, 32);
        let form = Form::file(&file);
        Trial { server: Server::start(), file, form, asked: AtomicUsize::new(0) }
    }

    fn upload(&self) -> Ask {
        Ask::upload(1, 2, &self.form)
    }

    /// The right digest of the body.
    fn body(&self) -> String {
        dictionary(&self.form.bytes())
    }

    fn stored(&self, ask: &Ask) {
        for ask in [ask.clone(), ask.clone().chunked(999)] {
            self.stored_once(&ask);
        }
    }

    fn stored_once(&self, ask: &Ask) {
        let reply = self.server.connect().ask(ask);
        assert_eq!(reply.status, 201, "{reply:?} to {}", String::from_utf8_lossy(&ask.head()));
        assert!(self.server.stored(1, 2).as_ref() == Some(&self.file));
        std::fs::remove_dir_all(self.server.root().join("clients/1")).unwrap();
    }

    /// Looks that the upload is refused for this reason, in a text that names the field, and that nothing is stored.
    fn refused(&self, ask: &Ask, reason: &str, named: &str) {
        for ask in [ask.clone(), ask.clone().chunked(999)] {
            self.refused_once(&ask, reason, named);
        }
    }

    fn refused_once(&self, ask: &Ask, reason: &str, named: &str) {
        let mut connection = self.server.connect();
        let id = format!("refused-{}", self.asked.fetch_add(1, Ordering::Relaxed));
        let reply = connection.ask(&ask.clone().with("X-Request-Id", &id));
        let head = String::from_utf8_lossy(&ask.head()).into_owned();
        reply.assert_refusal(400, "Validation error");
        assert!(reply.details().contains(named), "{reply:?} to {head}");
        assert_eq!(self.server.outcome(&id), reason, "{reply:?} to {head}");
        assert!(self.server.objects().is_empty(), "{head}");
        connection.assert_serves();
    }
}

#[test]
fn the_digest_of_the_file_is_taken_in_every_form_that_rfc_8941_permits() {
    let trial = Trial::start();
    let right = dictionary(&trial.file);
    let unpadded = format!("sha-256=:{}:", STANDARD_NO_PAD.encode(sha256(&trial.file)));
    let sha512 = format!("sha-512=:{}:", STANDARD.encode(digest::digest(&digest::SHA512, &trial.file)));
    for value in [
        right.clone(),
        unpadded.clone(),
        format!("{right};a=1"),
        format!(
            "{unpadded};a;b=?0;  c=\"x, y;=:\\\"\\\\\";d=to/k:en;e=-1.5;f=:YQ==:;g=*t;h=@1659578233;i=%\"f%c3%bc\""
        ),
        format!("  {right}  "),
        format!("{sha512}, {right}"),
        format!("{sha512};q=\",\",\t{right}"),
        format!("{right} \t,{sha512}"),
        format!("md5=:1B2M2Y8AsgTpgAmY7PhCfg==:, unixsum=12345, x, *y.z_1=tok, {right}"),
        format!("{right}, {right}"),
    ] {
        trial.stored(&trial.upload().with("Repr-Digest", &value));
    }
    trial.stored(&trial.upload().with("repr-digest", &sha512).and("REPR-DIGEST", &right));
    trial.stored(&trial.upload().with("Repr-Digest", "").and("Repr-Digest", &right));
}

#[test]
fn a_declared_digest_of_the_file_that_is_wrong_or_malformed_is_refused() {
    let trial = Trial::start();
    let (right, wrong) = (dictionary(&trial.file), dictionary(b"other"));
    let unpadded = format!("sha-256=:{}:", STANDARD_NO_PAD.encode(sha256(b"other")));
    for value in [wrong.clone(), unpadded, format!("{wrong};a=1"), format!("md5=:AAAA:, {wrong}")] {
        trial.refused(&trial.upload().with("Repr-Digest", &value), MISMATCH, "digest");
    }
    let base64 = STANDARD.encode(sha256(&trial.file));
    for value in [
        format!("{right}, {wrong}"),
        format!("{wrong}, {right}"),
        format!("{right},"),
        format!(",{right}"),
        format!("{right},,{right}"),
        format!("{right} {right}"),
        format!("{right};"),
        format!("{right};A=1"),
        format!("{right};a="),
        format!("{right};a=\"x"),
        format!("{right};a=?2"),
        format!("{right};a=%\"f%C3\""),
        format!("{right}; a=1 b"),
        format!("{right}x"),
        format!("sha-256 =:{base64}:"),
        format!("sha-256= :{base64}:"),
        format!("sha-256={base64}"),
        format!("sha-256=\"{base64}\""),
        format!("sha-256=:{base64}"),
        format!("sha-256=:{base64}=:"),
        format!("sha-256=:{}:", &base64[1..]),
        format!("sha-256=:{}:", STANDARD.encode([7; 31])),
        format!("sha-256=:{}:", STANDARD.encode([7; 33])),
        format!("sha-256=:{}:", URL_SAFE.encode([0xff; 32])),
        format!("sha-256=:{} :", base64),
        format!("sha-256=({right})"),
        "sha-256".to_owned(),
        "sha-256=?1".to_owned(),
        "sha-256=::".to_owned(),
        "sha-512=:AAAA:".to_owned(),
        right.replace("sha", "SHA"),
        right.replace("sha-256", "sha256"),
        String::new(),
    ] {
        trial.refused(&trial.upload().with("Repr-Digest", &value), INVALID, "Repr-Digest");
    }
    trial.refused(&trial.upload().and("Repr-Digest", &right).and("Repr-Digest", &wrong), INVALID, "Repr-Digest");
}

#[test]
fn the_digest_of_the_body_as_it_is_sent_is_verified() {
    let trial = Trial::start();
    let right = trial.body();
    for value in [right.clone(), format!("md5=:AAAA:, {right};a=1")] {
        trial.stored(&trial.upload().with("Content-Digest", &value));
    }
    let both = trial.upload().with("Content-Digest", &right).with("Repr-Digest", &dictionary(&trial.file));
    trial.stored(&both);
    trial.refused(&both.with("Repr-Digest", &dictionary(b"other")), MISMATCH, "digest");
    // The digest of the file is not that of the body.
    for wrong in [dictionary(&trial.file), dictionary(b""), dictionary(b"other")] {
        trial.refused(&trial.upload().with("Content-Digest", &wrong), MISMATCH, "Content-Digest");
    }
    for value in ["", "sha-512=:AAAA:", "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:", "nonsense", "sha-256=:AAAA:", "sha-256"] {
        trial.refused(&trial.upload().with("Content-Digest", value), INVALID, "Content-Digest");
    }
    // What stands around the form is a part of the body.
    let around = [b"a preamble\r\n", &trial.form.bytes()[..], b"an epilogue"].concat();
    let ask = trial.upload().body(&around);
    trial.stored(&ask.clone().with("Content-Digest", &dictionary(&around)));
    trial.refused(&ask.with("Content-Digest", &right), MISMATCH, "Content-Digest");
}

#[test]
fn a_body_that_is_cut_is_said_to_be_cut_whatever_its_digest() {
    let trial = Trial::start();
    let whole = trial.form.bytes();
    let cut = &whole[..whole.len() - 4];
    let ask = trial.upload().body(cut).with("Content-Digest", &dictionary(cut));
    trial.refused(&ask, "INCOMPLETE_UPLOAD", "closing");
}

#[test]
fn checks_that_cannot_be_made_are_refused_with_the_header_to_send_instead() {
    let trial = Trial::start();
    let sha = STANDARD.encode(sha256(&trial.form.bytes()));
    for (name, value) in [
        ("Content-MD5", "1B2M2Y8AsgTpgAmY7PhCfg=="),
        ("content-md5", ""),
        ("Digest", &*format!("SHA-256={sha}")),
        ("Digest", "md5=1B2M2Y8AsgTpgAmY7PhCfg=="),
        ("digest", "nonsense"),
    ] {
        trial.refused(&trial.upload().with(name, value), INVALID, "Content-Digest");
        trial.refused(
            &trial.upload().with("Repr-Digest", &dictionary(&trial.file)).with(name, value),
            INVALID,
            "sha-256",
        );
        trial.refused(&trial.upload().with("Trailer", name), INVALID, "Content-Digest");
        trial.refused_once(&trial.upload().chunked(999).trailer(name, value), INVALID, "Content-Digest");
    }
    for name in ["Want-Digest", "Want-Repr-Digest", "Want-Content-Digest"] {
        trial.stored(&trial.upload().with(name, "sha-256=10"));
    }
}

#[test]
fn digests_in_the_trailer_are_verified() {
    let trial = Trial::start();
    let (file, body, wrong) = (dictionary(&trial.file), trial.body(), dictionary(b"other"));
    let chunked = || trial.upload().chunked(999);
    let announced = |names: &str| chunked().with("Trailer", names);
    trial.stored_once(&announced("Repr-Digest").trailer("Repr-Digest", &file));
    trial.stored_once(&announced("Content-Digest").trailer("Content-Digest", &body));
    let both = || announced("X-Other , content-digest").and("Trailer", ",REPR-DIGEST");
    trial.stored_once(&both().trailer("repr-digest", &file).trailer("X-More", "x").trailer("content-digest", &body));
    trial.stored_once(&announced("X-Other"));
    // Not announced.
    trial.stored_once(&chunked().trailer("Repr-Digest", &file));
    trial.refused_once(&chunked().trailer("Repr-Digest", &wrong), MISMATCH, "digest");
    trial.refused_once(&chunked().trailer("Content-Digest", &body), INVALID, "Trailer");
    let in_both = || chunked().with("Content-Digest", &body);
    trial.stored_once(&in_both().trailer("Content-Digest", &body));
    trial.refused_once(&in_both().trailer("Content-Digest", &wrong), MISMATCH, "Content-Digest");

    trial.refused_once(&announced("Repr-Digest").trailer("Repr-Digest", &wrong), MISMATCH, "digest");
    trial.refused_once(&announced("Content-Digest").trailer("Content-Digest", &wrong), MISMATCH, "Content-Digest");
    let header = announced("Repr-Digest").with("Repr-Digest", &file);
    trial.stored_once(&header.clone().trailer("Repr-Digest", &file));
    trial.refused_once(&header.trailer("Repr-Digest", &wrong), MISMATCH, "digest");
    for value in ["nonsense", "", "sha-512=:AAAA:"] {
        trial.refused_once(&announced("Repr-Digest").trailer("Repr-Digest", value), INVALID, "Repr-Digest");
        trial.refused_once(&announced("Content-Digest").trailer("Content-Digest", value), INVALID, "Content-Digest");
    }
}

#[test]
fn a_digest_that_was_announced_and_is_missing_is_refused() {
    let trial = Trial::start();
    for name in ["Repr-Digest", "Content-Digest"] {
        let announced = trial.upload().with("Trailer", name);
        // With a length there is no room for a trailer.
        trial.refused(&announced, INVALID, name);
        trial.refused_once(&announced.clone().chunked(999).trailer("X-Other", "x"), INVALID, name);
        let declared = if name == "Repr-Digest" { dictionary(&trial.file) } else { trial.body() };
        trial.refused(&announced.with(name, &declared), INVALID, name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn digests_in_the_trailers_of_http2_are_verified() {
    let server = Server::start();
    let stream = TcpStream::connect(server.rest).await.unwrap();
    let (mut client, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let form = Form::file(b"content");
    let (file, body, wrong) = (dictionary(b"content"), dictionary(&form.bytes()), dictionary(b"other"));
    for (announced, name, value, status) in [
        ("repr-digest", "repr-digest", &file, 201),
        ("repr-digest", "repr-digest", &wrong, 400),
        ("content-digest", "content-digest", &body, 201),
        ("content-digest", "content-digest", &wrong, 400),
        ("x-none", "repr-digest", &file, 201),
        ("x-none", "repr-digest", &wrong, 400),
        ("repr-digest", "x-none", &file, 400),
    ] {
        let mut trailers = HeaderMap::new();
        trailers.insert(HeaderName::from_static(name), HeaderValue::try_from(value.as_str()).unwrap());
        let frames = [Frame::data(Bytes::from(form.bytes())), Frame::trailers(trailers)];
        let frames = StreamBody::new(futures_util::stream::iter(frames.map(Ok::<_, Infallible>)));
        let request = Request::post("http://attachd/api/v2/clients/1/attachments/2")
            .header("authorization", format!("Bearer {}", token(&[1])))
            .header("content-type", form.content_type())
            .header("trailer", announced)
            .body(frames.boxed())
            .unwrap();
        let reply = client.send_request(request).await.unwrap();
        assert_eq!(reply.status(), status, "{announced}, {name}: {value}");
        assert_eq!(server.stored(1, 2).is_some(), status == 201, "{announced}, {name}: {value}");
        let _ = std::fs::remove_dir_all(server.root().join("clients/1"));
    }
}
