//! Downloads that are redirected to the storage: a client that follows the address gets the same bytes and names, until the address
//! expires. curl follows.

use std::io::Read;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use attachd::pb::DownloadAttachmentRequest;
use serde_json::{Value, json};

use crate::conformance::runtime;
use crate::engines::{Engine, Place};
use crate::harness::{Ask, Form, Reply, Server, Setup, download, eventually, hex, noise, sha256, token};
use crate::refused::{ended, refused};

/// The engines of S3 that check a signature and its time.
const CHECKING: [Engine; 2] = [Engine::Minio, Engine::Versitygw];

/// The size of content that has an object of its own, in bytes.
const SIZE: usize = 300_000;

/// A name that needs every kind of escape, and a type with parameters.
const NAME: &str = "€ a&b=c;+ %'#.html";
const TYPE: &str = "text/html; charset=\"utf-8\"";

fn setup(place: &Place, more: &str) -> Setup {
    Setup { more: format!("[download]\nredirect = true\n{more}"), ..place.setup() }
}

fn upload(server: &Server, attachment: i64, bytes: &[u8]) {
    let escaped = NAME.replace('%', "%25").replace('"', "%22");
    let head = format!("Content-Disposition: form-data; name=\"file\"; filename=\"{escaped}\"\r\nContent-Type: {TYPE}");
    let reply = server.connect().ask(&Ask::upload(1, attachment, &Form::default().part(&head, bytes)));
    assert_eq!(reply.status, 201, "{reply:?}");
}

fn get(server: &Server, ask: &Ask) -> Reply {
    server.connect().ask(ask)
}

/// The address that a download is redirected to.
fn address(server: &Server, attachment: i64) -> String {
    let reply = get(server, &Ask::download(1, attachment));
    assert_eq!((reply.status, reply.bytes.len()), (307, 0), "{reply:?}");
    reply.header("location").to_owned()
}

/// What curl got: the status and the headers of the last reply, and its body.
struct Got {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Got {
    fn header(&self, name: &str) -> &str {
        self.headers.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }
}

fn curl(url: &str, more: &[&str]) -> Got {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let mut command = Command::new("curl");
    command.args(["-sS", "--max-time", "60", "-D", &at("headers"), "-o", &at("body")]).args(more).arg(url);
    let done = command.stdin(Stdio::null()).output().expect("tests/storage/setup.sh has installed curl");
    assert!(done.status.success(), "{done:?}");
    let read = |name: &str| std::fs::read(Path::new(&at(name))).unwrap_or_default();
    let heads = String::from_utf8(read("headers")).unwrap();
    let head = heads.trim_end().rsplit("\r\n\r\n").next().unwrap_or_default();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok()).unwrap();
    let headers = lines.filter_map(|line| line.split_once(": "));
    let headers = headers.map(|(name, value)| (name.to_lowercase(), value.trim().to_owned())).collect();
    Got { status, headers, body: read("body") }
}

fn follows(engine: Engine) {
    let place = engine.place();
    let server = setup(&place, "inline_types = [\"image/png\"]\n").start();
    let bytes = noise(SIZE, 1);
    upload(&server, 2, &bytes);
    let tag = format!("\"{}\"", hex(&sha256(&bytes)));
    let mut connection = server.connect();
    let reply = connection.ask(&Ask::download(1, 2));
    assert_eq!((reply.status, reply.bytes.len()), (307, 0), "{reply:?}");
    assert!(reply.header("location").starts_with(&place.running.endpoint), "{reply:?}");
    assert_eq!(reply.header("cache-control"), "private, no-store");
    assert_eq!(reply.header("etag"), tag);
    assert!(reply.header("repr-digest").starts_with("sha-256=:"));
    assert_eq!((reply.header("content-type"), reply.header("content-disposition")), ("", ""));
    assert_eq!(connection.ask(&Ask::download(1, 2)).status, 307, "the connection goes on");

    // The same headers as a direct reply, which HEAD always is.
    connection.send(&Ask::download(1, 2).method("HEAD").bytes()).unwrap();
    let head = connection.reply_without_body().expect("a head");
    assert_eq!((head.status, head.header("content-length")), (200, "300000"));
    let url = format!("http://{}/api/v2/clients/1/attachments/2/content", server.rest);
    let bearer = format!("Authorization: Bearer {}", token(&[1]));
    let whole = curl(&url, &["-L", "-H", &bearer]);
    assert_eq!(whole.status, 200);
    assert!(whole.body == bytes, "the bytes are those of the upload");
    for name in ["content-type", "content-disposition", "cache-control"] {
        assert_eq!(whole.header(name), head.header(name), "{name}");
    }
    let part = curl(&url, &["-L", "-H", &bearer, "-r", "100-199"]);
    assert_eq!((part.status, part.header("content-range")), (206, "bytes 100-199/300000"));
    assert!(part.body == bytes[100..200]);
    let past = get(&server, &Ask::download(1, 2).with("Range", "bytes=300000-"));
    past.assert_refusal(416, "The range is not within the content");

    // What may be shown is named so to the storage.
    let image = "Content-Disposition: form-data; name=\"file\"; filename=\"a.png\"\r\nContent-Type: image/png; x=y";
    let form = Form::default().part(image, &bytes);
    assert_eq!(server.connect().ask(&Ask::upload(1, 3, &form)).status, 201);
    let shown = curl(&address(&server, 3), &[]);
    assert_eq!(shown.header("content-disposition"), "inline; filename=\"a.png\"");
    assert_eq!(shown.header("content-type"), "image/png; x=y");
}

#[test]
fn a_client_that_follows_a_redirect_gets_the_bytes_and_headers_over_moto() {
    follows(Engine::Moto);
}

#[test]
fn a_client_that_follows_a_redirect_gets_the_bytes_and_headers_over_minio() {
    follows(Engine::Minio);
}

#[test]
fn a_client_that_follows_a_redirect_gets_the_bytes_and_headers_over_versitygw() {
    follows(Engine::Versitygw);
}

#[test]
fn what_attachd_has_to_judge_or_has_at_hand_is_not_redirected() {
    let place = Engine::Minio.place();
    let server = setup(&place, "").start();
    let (bytes, small) = (noise(SIZE, 1), noise(1000, 2));
    upload(&server, 2, &bytes);
    upload(&server, 3, &small);
    upload(&server, 4, b"");
    let (tag, other) = (format!("\"{}\"", hex(&sha256(&bytes))), "\"other\"");
    let modified =
        get(&server, &Ask::download(1, 2).method("GET").with("If-Match", &tag)).header("last-modified").to_owned();
    for (headers, status) in [
        (vec![("If-None-Match", tag.as_str())], 304),
        (vec![("If-None-Match", other)], 307),
        (vec![("Range", "bytes=0-1")], 307),
        (vec![("If-Match", &tag)], 200),
        (vec![("If-Match", other)], 412),
        (vec![("If-Unmodified-Since", &modified)], 200),
        (vec![("If-Modified-Since", &modified)], 304),
        (vec![("If-Modified-Since", "Mon, 01 Jan 2001 00:00:00 GMT")], 200),
        (vec![("If-None-Match", other), ("If-Modified-Since", &modified)], 200),
        (vec![("If-Range", &tag), ("Range", "bytes=5-6")], 206),
        (vec![("If-Range", other), ("Range", "bytes=5-6")], 200),
        (vec![("Authorization", "")], 401),
        (vec![("Authorization", &format!("Bearer {}", token(&[2])))], 403),
    ] {
        let ask = headers.iter().fold(Ask::download(1, 2), |ask, (name, value)| ask.with(name, value));
        let reply = get(&server, &ask);
        assert_eq!((reply.status, reply.headers.contains_key("location")), (status, status == 307), "{headers:?}");
        match status {
            200 => assert!(reply.bytes == bytes, "{headers:?}"),
            206 => assert!(reply.bytes == bytes[5..7], "{headers:?}"),
            _ => {}
        }
    }
    assert_eq!(get(&server, &Ask::download(1, 99)).status, 404);
    assert!(get(&server, &Ask::download(1, 3)).bytes == small);
    assert_eq!(get(&server, &Ask::download(1, 4)).status, 200);
    let request = DownloadAttachmentRequest { offset: 1, ..download(1, 2) };
    let (_, read) = runtime().block_on(server.grpc_download(&token(&[1]), request)).expect("it is there");
    assert!(read == bytes[1..], "gRPC streams");
}

#[test]
fn an_address_that_has_expired_or_was_changed_is_refused_by_the_storage() {
    for engine in CHECKING {
        let place = engine.place();
        let server = setup(&place, "redirect_expiry = \"1s\"\n").start();
        upload(&server, 2, &noise(SIZE, 1));
        let address = address(&server, 2);
        assert!(address.contains("X-Amz-Expires=1&"), "{address}");
        eventually("the address expires", || curl(&address, &[]).status == 403);
        let lasting = setup(&place, "").start();
        let address = self::address(&lasting, 2);
        assert!(address.contains("X-Amz-Expires=300&"), "{address}");
        let changed = address.replace("text%2Fhtml", "text%2Fplain");
        let changed = if changed == address { address.replace("text/html", "text/plain") } else { changed };
        assert_ne!(changed, address);
        assert_eq!((curl(&address, &[]).status, curl(&changed, &[]).status), (200, 403), "{engine:?}");
    }
}

/// A port that takes all that is sent to it, and what that was.
fn sink() -> (String, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let taken = Arc::new(Mutex::new(Vec::new()));
    let all = Arc::clone(&taken);
    std::thread::spawn(move || {
        for mut client in listener.incoming().flatten() {
            let mut piece = vec![0; 16 << 10];
            while let Ok(read @ 1..) = client.read(&mut piece) {
                all.lock().unwrap().extend_from_slice(&piece[..read]);
            }
        }
    });
    (address, taken)
}

fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[test]
fn a_redirect_is_audited_and_its_address_is_in_no_log_and_no_trace() {
    let place = Engine::Minio.place();
    let (collector, sent) = sink();
    let mut setup = setup(&place, &format!("[traces]\nendpoint = \"{collector}\"\n"));
    setup.variables.insert("ATTACHD_LOG__FILTER", "trace".to_owned());
    let server = setup.start();
    upload(&server, 2, &noise(SIZE, 1));
    let reply = get(&server, &Ask::download(1, 2));
    let address = reply.header("location");
    let id = reply.header("x-request-id");
    assert_eq!(server.outcome(id), "OK");
    let of = |message: &str| -> Vec<Value> {
        server.events(message).into_iter().filter(|event| event["request_id"] == id).collect()
    };
    eventually("the audit trail has it", || of("audit").len() == 1);
    let (line, audit) = (of("request"), of("audit"));
    for (name, value) in [("action", json!("download")), ("outcome", json!("done")), ("redirected", json!(true))] {
        assert_eq!(audit[0][name], value, "{audit:?}");
    }
    assert_eq!((line.len(), &line[0]["sent_bytes"]), (1, &json!(0)));
    let signature = address.split("X-Amz-Signature=").nth(1).and_then(|rest| rest.split('&').next()).unwrap();
    assert_eq!(signature.len(), 64, "{address}");
    let direct = get(&server, &Ask::download(1, 2).with("If-Match", reply.header("etag")));
    eventually("the direct download is audited", || {
        server
            .events("audit")
            .iter()
            .any(|event| event["request_id"] == direct.header("x-request-id") && event["redirected"].is_null())
    });
    let leaks: Vec<_> = server.log().into_iter().filter(|line| line.contains(signature)).collect();
    assert!(leaks.is_empty(), "{leaks:?}");
    // Traces are sent as they are, without compression.
    eventually("the request is traced", || holds(&sent.lock().unwrap(), direct.header("x-request-id")));
    let sent = sent.lock().unwrap();
    assert!(holds(&sent, id) && !holds(&sent, signature));
}

#[test]
fn a_storage_that_signs_no_addresses_is_refused_with_redirects() {
    let moto = Engine::Moto.place();
    let with = |place: &Place, options: &[(&'static str, &str)]| {
        let mut setup = setup(place, "");
        setup.variables.extend(options.iter().map(|(name, value)| (*name, (*value).to_owned())));
        setup
    };
    for (place, options, culprit) in [
        (&Engine::FakeGcs.place(), &[][..], "storage.options.skip_signature"),
        (
            &moto,
            &[
                ("ATTACHD_STORAGE__OPTIONS__SERVER_SIDE_ENCRYPTION_CUSTOMER_ALGORITHM", "AES256"),
                (
                    "ATTACHD_STORAGE__OPTIONS__SERVER_SIDE_ENCRYPTION_CUSTOMER_KEY",
                    "MTIzNDU2Nzg5MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTI=",
                ),
                ("ATTACHD_STORAGE__OPTIONS__SERVER_SIDE_ENCRYPTION_CUSTOMER_KEY_MD5", "dnF5x6K/8ZZRzpfSlMMM+w=="),
            ],
            "need a header in each request",
        ),
        (&Engine::Azurite.place(), &[], "the service `azblob` signs no addresses"),
    ] {
        let said = refused(&with(place, options));
        assert!(said.contains("download.redirect: ") && said.contains(culprit), "{said}");
        assert!(said.contains("set it to false") || said.contains("write false"), "{said}");
        let (code, said) = ended(&with(place, options), "check");
        assert!(code == Some(2) && said.contains("download.redirect: "), "{said}");
    }
}
