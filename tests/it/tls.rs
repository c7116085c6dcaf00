//! TLS on both doors: what is spoken, who is refused, whom a certificate speaks for, and certificates that change.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::UploadAttachmentRequest;
use attachd::pb::attachment_service_client::AttachmentServiceClient;
use attachd::pb::upload_attachment_request::Message;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};

use crate::harness::{
    Ask, Authority, Connection, Form, GrpcRefusal, Identity, Server, Setup, authorised, chunk, claims, connect_tls,
    eventually, finish, from_address, grpc_over_tls, header, honest, is_quiet, mint, noise, token,
};

const SPIFFE: &str = "spiffe://cluster.local/ns/billing/sa/archiver";

/// A server that speaks TLS on both doors, the authority that it and its clients trust, and its certificate.
struct Secure {
    server: Server,
    authority: Authority,
}

/// The lines of the configuration that make both doors speak TLS.
fn tables(more: &str) -> String {
    let files = "cert_file = \"server.pem\"\nkey_file = \"server.key\"\nreload_interval = \"100ms\"\n";
    format!("[rest.tls]\n{files}{more}[grpc.tls]\n{files}{more}")
}

fn secure(setup: Setup) -> Secure {
    let (authority, folder) = (Authority::new("servers"), tempfile::tempdir().unwrap());
    authority.server().write(folder.path(), "server");
    fs::write(folder.path().join("clients.pem"), authority.pem()).unwrap();
    Secure { server: setup.start_in(folder), authority }
}

fn plain_tls() -> Secure {
    secure(Setup { more: tables(""), ..Setup::default() })
}

/// Both doors ask for certificates; one identity by its URI and one by its subject may upload for client 1.
fn mutual(client_auth: &str) -> Secure {
    let asked = format!("client_ca_file = \"clients.pem\"\nclient_auth = \"{client_auth}\"\n");
    let rights = "scopes = [\"attachments:write\"]\nclients = [1]\n";
    let more = format!(
        "{}[[auth.certificates]]\nidentity = \"{SPIFFE}\"\n{rights}\
         [[auth.certificates]]\nidentity = \"CN=by subject,O=Example\"\n{rights}",
        tables(&asked)
    );
    secure(Setup { more, ..Setup::default() })
}

fn one_file() -> Vec<Message> {
    vec![Message::Header(header(1, 2)), chunk("some"), finish()]
}

async fn upload(
    client: &mut AttachmentServiceClient<Channel>,
    token: &str,
    messages: Vec<Message>,
) -> Result<String, GrpcRefusal> {
    let messages = stream::iter(messages).map(|message| UploadAttachmentRequest { message: Some(message) });
    let reply = client.upload_attachment(authorised(Request::new(messages), token)).await?;
    Ok(reply.into_inner().attachment.expect("a reply names the attachment").uploaded_by)
}

impl Secure {
    async fn grpc(&self, identity: Option<&Identity>) -> AttachmentServiceClient<Channel> {
        grpc_over_tls(self.server.grpc, self.authority.connector(&["h2"], identity)).await.expect("a handshake")
    }

    /// What a door says to an honest upload over HTTP/1.1.
    async fn ask(&self, identity: Option<&Identity>, ask: &Ask) -> std::io::Result<String> {
        let connector = self.authority.connector(&["http/1.1"], identity);
        let mut stream = connect_tls(self.server.rest, &connector).await?;
        stream.write_all(&ask.clone().with("Connection", "close").bytes()).await?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await?;
        Ok(reply)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_port_offers_both_versions_of_http_and_stores_through_each() {
    let Secure { server, authority } = plain_tls();
    let bytes = noise(3 << 20, 60);
    let form = Form::file(&bytes);
    let request = |attachment: i64| {
        http::Request::post(format!("https://localhost/api/v2/clients/1/attachments/{attachment}"))
            .header("host", "localhost")
            .header("authorization", format!("Bearer {}", token(&[1])))
            .header("content-type", form.content_type())
            .body(Full::new(Bytes::from(form.bytes())))
            .unwrap()
    };
    for (offered, chosen) in [
        (vec!["h2", "http/1.1"], Some("h2")),
        (vec!["http/1.1", "h2"], Some("h2")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let stream = connect_tls(server.rest, &authority.connector(&offered, None)).await.unwrap();
        let protocol = stream.get_ref().1.alpn_protocol().map(|protocol| String::from_utf8(protocol.to_vec()).unwrap());
        assert_eq!(protocol.as_deref(), chosen, "{offered:?}");
        let reply = if chosen == Some("h2") {
            let (mut client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request(2)).await.unwrap()
        } else {
            let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
            tokio::spawn(connection);
            client.send_request(request(2)).await.unwrap()
        };
        assert_eq!(reply.status(), 201, "{offered:?}");
        let body: Value = serde_json::from_slice(&reply.into_body().collect().await.unwrap().to_bytes()).unwrap();
        assert_eq!(body["code"], json!(201));
        assert!(server.stored(1, 2).unwrap() == bytes);
        fs::remove_dir_all(server.root().join("clients/1")).unwrap();
    }
    connect_tls(server.rest, &authority.connector(&["spdy/3"], None)).await.unwrap_err();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_grpc_port_offers_http2_alone_and_stores() {
    let secure = plain_tls();
    upload(&mut secure.grpc(None).await, &token(&[1]), one_file()).await.expect("it is stored");
    assert_eq!(secure.server.stored(1, 2).unwrap(), b"some");
    let refusal = upload(&mut secure.grpc(None).await, "", one_file()).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_MISSING");
    connect_tls(secure.server.grpc, &secure.authority.connector(&["http/1.1"], None)).await.unwrap_err();
}

#[test]
fn http_without_tls_is_told_so_on_a_rest_port_that_speaks_tls() {
    let Secure { server, .. } = plain_tls();
    let reply = server.connect().ask(&honest());
    reply.assert_refusal(400, "Validation error: this port speaks TLS");
    assert!(server.objects().is_empty());
    // Nothing that is said to it otherwise gets an answer.
    for said in [&b"\0\0\0\0"[..], b"\x16\x03\x01\0\x05hello"] {
        let mut stream = TcpStream::connect(server.rest).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(said).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut reply = Vec::new();
        let _ = stream.read_to_end(&mut reply);
        assert!(!String::from_utf8_lossy(&reply).contains("HTTP/1.1 2"), "{reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_without_tls_is_refused_by_a_grpc_port_that_speaks_tls_and_tls_by_a_port_that_does_not() {
    let secure = plain_tls();
    let endpoint = Endpoint::from_shared(format!("http://{}", secure.server.grpc)).unwrap();
    let refused = match endpoint.connect().await {
        Err(_) => true,
        Ok(channel) => {
            let mut client = AttachmentServiceClient::new(channel);
            upload(&mut client, &token(&[1]), one_file()).await.is_err()
        }
    };
    assert!(refused);
    assert!(secure.server.objects().is_empty());
    let plain = Server::start();
    for address in [plain.rest, plain.grpc] {
        connect_tls(address, &secure.authority.connector(&["h2", "http/1.1"], None)).await.unwrap_err();
    }
    plain.connect().assert_serves();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_configured_uploads_without_a_token_as_itself() {
    let secure = mutual("required");
    let by_uri = secure.authority.client("whoever", &[SPIFFE]);
    assert_eq!(upload(&mut secure.grpc(Some(&by_uri)).await, "", one_file()).await.unwrap(), SPIFFE);
    assert_eq!(secure.server.stored(1, 2).unwrap(), b"some");
    assert_eq!(secure.server.content(1, 2)["uploaded_by"], SPIFFE);
    let by_subject = secure.authority.client("by subject", &[]);
    let uploader = upload(&mut secure.grpc(Some(&by_subject)).await, "", one_file()).await.unwrap();
    assert_eq!(uploader, "CN=by subject,O=Example");
    let reply = secure.ask(Some(&by_uri), &Ask::upload(1, 3, &Form::file(b"x")).without("Authorization")).await;
    assert!(reply.unwrap().starts_with("HTTP/1.1 201 "));
    assert_eq!(secure.server.content(1, 3)["uploaded_by"], SPIFFE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_permits_what_is_configured_for_it_and_nothing_else() {
    let secure = mutual("required");
    let known = secure.authority.client("whoever", &[SPIFFE]);
    let mut client = secure.grpc(Some(&known)).await;
    let other_client = vec![Message::Header(header(2, 2)), chunk("some"), finish()];
    let refusal = upload(&mut client, "", other_client).await.unwrap_err();
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::PermissionDenied, "FORBIDDEN"));
    let mut of_project = header(1, 2);
    of_project.project_id = Some(5);
    let refusal = upload(&mut client, "", vec![Message::Header(of_project), finish()]).await.unwrap_err();
    assert_eq!(refusal.reason, "FORBIDDEN");
    let register = RegisterAttachmentRequest { client_id: 1, attachment_id: 9, ..Default::default() };
    let refusal: GrpcRefusal = client.register_attachment(Request::new(register)).await.unwrap_err().into();
    assert_eq!(refusal.reason, "FORBIDDEN");
    // The URI decides where there is one; two are no identity; a longer or shorter one is another.
    let longer = format!("{SPIFFE}/");
    for (name, uris) in [
        ("unknown", vec![]),
        ("by subject", vec!["spiffe://cluster.local/ns/billing/sa/other"]),
        ("whoever", vec![SPIFFE, "spiffe://cluster.local/ns/billing/sa/other"]),
        ("whoever", vec![longer.as_str()]),
        ("whoever", vec![&SPIFFE[..SPIFFE.len() - 1]]),
        ("by subject,O=Example", vec![]),
    ] {
        let identity = secure.authority.client(name, &uris);
        let refusal = upload(&mut secure.grpc(Some(&identity)).await, "", one_file()).await.unwrap_err();
        assert_eq!(
            (refusal.code, refusal.reason.as_str()),
            (Code::Unauthenticated, "TOKEN_MISSING"),
            "{name} {uris:?}"
        );
        let reply = secure.ask(Some(&identity), &honest().without("Authorization")).await.unwrap();
        assert!(reply.starts_with("HTTP/1.1 401 "), "{reply}");
    }
    assert!(secure.server.objects().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_sent_decides_alone_whatever_the_certificate_would_permit() {
    let secure = mutual("required");
    let known = secure.authority.client("whoever", &[SPIFFE]);
    let mut client = secure.grpc(Some(&known)).await;
    let refusal = upload(&mut client, &token(&[2]), one_file()).await.unwrap_err();
    assert_eq!(refusal.reason, "FORBIDDEN", "a token for another client");
    let refusal = upload(&mut client, "a.b.c", one_file()).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_INVALID");
    let mut expired = claims(&[1]);
    expired["exp"] = 1000.into();
    let refusal = upload(&mut client, &mint(&expired), one_file()).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_EXPIRED");
    assert!(secure.server.objects().is_empty());
    assert_eq!(upload(&mut client, &token(&[1]), one_file()).await.unwrap(), "tester");
    let unknown = secure.authority.client("unknown", &[]);
    assert_eq!(upload(&mut secure.grpc(Some(&unknown)).await, &token(&[1]), one_file()).await.unwrap(), "tester");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_no_certificate_or_one_of_a_stranger_gets_nowhere_where_one_is_required() {
    let secure = mutual("required");
    let stranger = Authority::new("servers").client("whoever", &[SPIFFE]);
    let expired = {
        let mut params = rcgen::CertificateParams::default();
        params.subject_alt_names = vec![rcgen::SanType::URI(SPIFFE.try_into().unwrap())];
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        secure.authority.sign(params)
    };
    // A certificate of a server, signed by the right authority, is none of a client.
    let server = secure.authority.server();
    for (name, identity) in
        [("none", None), ("a stranger's", Some(&stranger)), ("expired", Some(&expired)), ("a server's", Some(&server))]
    {
        // In TLS 1.3 the client hears of it when it reads.
        let mut failed = secure.ask(identity, &honest()).await.is_err();
        failed |= secure.ask(identity, &honest()).await.is_ok_and(|reply| reply.is_empty());
        assert!(failed, "{name}");
        let connector = secure.authority.connector(&["h2"], identity);
        let refused = match grpc_over_tls(secure.server.grpc, connector).await {
            Err(_) => true,
            Ok(mut client) => upload(&mut client, &token(&[1]), one_file()).await.is_err(),
        };
        assert!(refused, "{name}");
    }
    assert!(secure.server.objects().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn where_a_certificate_is_optional_a_token_does_and_a_stranger_still_gets_nowhere() {
    let secure = mutual("optional");
    assert_eq!(upload(&mut secure.grpc(None).await, &token(&[1]), one_file()).await.unwrap(), "tester");
    let refusal = upload(&mut secure.grpc(None).await, "", one_file()).await.unwrap_err();
    assert_eq!(refusal.reason, "TOKEN_MISSING");
    let known = secure.authority.client("whoever", &[SPIFFE]);
    assert_eq!(upload(&mut secure.grpc(Some(&known)).await, "", one_file()).await.unwrap(), SPIFFE);
    let stranger = Authority::new("servers").client("whoever", &[SPIFFE]);
    let connector = secure.authority.connector(&["h2"], Some(&stranger));
    let refused = match grpc_over_tls(secure.server.grpc, connector).await {
        Err(_) => true,
        Ok(mut client) => upload(&mut client, &token(&[1]), one_file()).await.is_err(),
    };
    assert!(refused);
}

/// Puts something bad into a folder.
type Spoil<'a> = &'a dyn Fn(&Path);

fn says(server: &Server, message: &str) -> usize {
    server.log().iter().filter(|line| line.contains(message)).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_changes_is_used_from_the_next_handshake_on_and_no_connection_is_dropped() {
    let secure = plain_tls();
    let Secure { server, authority } = &secure;
    let folder = server.folder().to_owned();
    let connector = authority.connector(&["h2"], None);
    let shown = async || {
        let stream = connect_tls(server.grpc, &connector).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    // An upload through each door that is open all the while.
    let (send, messages) = mpsc::channel(8);
    let messages = ReceiverStream::new(messages).map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut client = secure.grpc(None).await;
    let over_grpc =
        tokio::spawn(async move { client.upload_attachment(authorised(Request::new(messages), &token(&[1]))).await });
    send.send(Message::Header(header(1, 2))).await.unwrap();
    let bytes = noise(2 << 20, 61);
    let ask = Ask::upload(1, 3, &Form::file(&bytes)).with("Connection", "close").bytes();
    let mut over_rest = connect_tls(server.rest, &authority.connector(&["http/1.1"], None)).await.unwrap();
    over_rest.write_all(&ask[..ask.len() / 2]).await.unwrap();

    let mut current = shown().await;
    for round in 0..5_u8 {
        let next = authority.server();
        next.write(&folder, "server");
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while shown().await != next.der() {
            assert!(tokio::time::Instant::now() < deadline, "the new certificate is never shown");
            // Whoever comes meanwhile is served with one or the other.
            upload(
                &mut secure.grpc(None).await,
                &token(&[7]),
                vec![Message::Header(header(7, 1)), chunk(vec![round; 1000]), finish()],
            )
            .await
            .expect("it is stored");
        }
        assert_ne!(current, next.der());
        current = next.der();
        send.send(chunk(vec![round; 100_000])).await.unwrap();
    }
    send.send(finish()).await.unwrap();
    drop(send);
    over_grpc.await.unwrap().expect("it is stored");
    over_rest.write_all(&ask[ask.len() / 2..]).await.unwrap();
    let mut reply = String::new();
    over_rest.read_to_string(&mut reply).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 201 "), "{reply}");
    assert!(server.stored(1, 3).unwrap() == bytes);
    let all: Vec<u8> = (0..5).flat_map(|round| vec![round; 100_000]).collect();
    assert!(server.stored(1, 2).unwrap() == all);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_bad_is_said_once_and_the_one_in_use_stays() {
    let secure = plain_tls();
    let Secure { server, authority } = &secure;
    let folder = server.folder().to_owned();
    let connector = authority.connector(&["h2"], None);
    let shown = async || {
        let stream = connect_tls(server.grpc, &connector).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = shown().await;
    let expired = {
        let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
        params.not_after = rcgen::date_time_ymd(2020, 1, 1);
        params.not_before = rcgen::date_time_ymd(2019, 1, 1);
        authority.sign(params)
    };
    let bad: [(&str, Spoil<'_>); 4] = [
        ("no certificate at all", &|folder| fs::write(folder.join("server.pem"), "nonsense").unwrap()),
        ("the key of another", &|folder| {
            authority.server().write(folder, "server");
            authority.server().write(folder, "other");
            fs::rename(folder.join("other.key"), folder.join("server.key")).unwrap();
        }),
        ("one that has expired", &|folder| {
            expired.write(folder, "server");
        }),
        ("no key", &|folder| fs::write(folder.join("server.key"), "nonsense").unwrap()),
    ];
    for (number, (name, spoil)) in bad.into_iter().enumerate() {
        spoil(&folder);
        // Each door says so, perhaps of a half-written pair as well.
        eventually(name, || says(server, "the new certificate is bad") >= 2 * (number + 1));
        assert_eq!(shown().await, first, "{name}");
    }
    let said = says(server, "the new certificate is bad");
    fs::remove_file(folder.join("server.pem")).unwrap();
    eventually("a missing file is said", || says(server, "the certificate files cannot be read") >= 2);
    assert_eq!(shown().await, first);
    assert_eq!(says(server, "the new certificate is bad"), said, "it is said once");
    let good = authority.server();
    good.write(&folder, "server");
    eventually("the good one is in use", || says(server, "the certificate is in use") >= 4);
    assert_eq!(shown().await, good.der());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_authority_that_changes_decides_over_the_handshakes_after() {
    let secure = mutual("required");
    let folder = secure.server.folder().to_owned();
    let others = Authority::new("others");
    let (old, new) = (secure.authority.client("whoever", &[SPIFFE]), others.client("whoever", &[SPIFFE]));
    upload(&mut secure.grpc(Some(&old)).await, "", one_file()).await.expect("it is known");
    fs::write(folder.join("clients.pem"), others.pem()).unwrap();
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        let tried = match grpc_over_tls(secure.server.grpc, secure.authority.connector(&["h2"], Some(&new))).await {
            Ok(mut client) => upload(&mut client, "", one_file()).await.is_ok(),
            Err(_) => false,
        };
        if tried {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the new authority is never heard");
    }
    let refused = match grpc_over_tls(secure.server.grpc, secure.authority.connector(&["h2"], Some(&old))).await {
        Err(_) => true,
        Ok(mut client) => upload(&mut client, "", one_file()).await.is_err(),
    };
    assert!(refused, "the old authority is heard no more");
}

/// A server whose handshakes may take three seconds.
fn hasty(handshakes: usize) -> Secure {
    let limits = format!("max_handshakes = {handshakes}\nhandshake_timeout = \"3s\"\nidle_timeout = \"6s\"\n");
    secure(Setup { more: tables(""), limits, ..Setup::default() })
}

/// A connection that has sent the beginning of a ClientHello and goes no further.
fn stuck(server: &Server) -> Connection {
    let mut connection = Connection::open(server.rest);
    connection.send(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
    connection
}

/// A connection from one of the addresses of the loopback interface that has sent a ClientHello and goes no further.
fn greeted(secure: &Secure, from: &str) -> TcpStream {
    let mut stream = from_address(from, secure.server.rest);
    let config = Arc::clone(secure.authority.connector(&["http/1.1"], None).config());
    let mut client = ClientConnection::new(config, ServerName::try_from("localhost").unwrap()).unwrap();
    client.write_tls(&mut stream).unwrap();
    stream
}

/// Whether the server has closed a connection, whatever it has sent before.
fn is_hung_up_on(stream: &mut TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    loop {
        match stream.read(&mut [0; 4096]) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(error) => return error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_finish_its_handshake_or_says_nothing_after_it_is_hung_up_on() {
    let secure = hasty(8);
    let mut stuck = stuck(&secure.server);
    let mut silent = Connection::open(secure.server.rest);
    let mut polite = connect_tls(secure.server.rest, &secure.authority.connector(&["h2"], None)).await.unwrap();
    assert!(stuck.closed() && silent.closed());
    let mut said = Vec::new();
    let _ = polite.read_to_end(&mut said).await;
    assert!(said.is_empty());
    assert!(secure.ask(None, &honest()).await.unwrap().starts_with("HTTP/1.1 201 "));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_hello_that_is_not_complete_keeps_no_handshake_waiting() {
    let secure = hasty(1);
    let all: Vec<_> = (0..3).map(|_| stuck(&secure.server)).collect();
    // They have been read before the honest one comes.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let served = secure.ask(None, &honest()).await;
    assert!(served.unwrap().starts_with("HTTP/1.1 201 "));
    assert!(all.iter().all(|connection| is_quiet(&connection.writer())));
}

#[tokio::test(flavor = "multi_thread")]
async fn as_many_handshakes_as_may_be_are_under_way_and_the_next_waits_for_one_of_them() {
    // With room for one more than are stuck, an honest client is not held up by them; without, it waits until they are
    // hung up on. All have the same address.
    for (handshakes, stuck_ones) in [(2, 1), (2, 2), (2, 3)] {
        let secure = hasty(handshakes);
        let mut all: Vec<_> = (0..stuck_ones).map(|_| greeted(&secure, "127.0.0.1")).collect();
        eventually("they are answered", || {
            all.iter().filter(|stream| !is_quiet(stream)).count() == stuck_ones.min(handshakes)
        });
        let served = secure.ask(None, &honest()).await;
        let ended = all.iter_mut().map(is_hung_up_on).filter(|ended| *ended).count();
        assert!(served.unwrap().starts_with("HTTP/1.1 201 "));
        assert_eq!(ended == 0, stuck_ones < handshakes, "{stuck_ones} of {handshakes}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_of_one_address_make_way_for_another() {
    let limits = "max_handshakes = 2\nhandshake_timeout = \"5m\"\n".to_owned();
    let secure = secure(Setup { more: tables(""), limits, ..Setup::default() });
    let all: Vec<_> = (0..5).map(|_| greeted(&secure, "127.0.0.2")).collect();
    eventually("they are answered", || all.iter().filter(|stream| !is_quiet(stream)).count() == 2);
    let served = secure.ask(None, &honest()).await;
    assert!(served.unwrap().starts_with("HTTP/1.1 201 "));
    let evicted = "attachd_connections_evicted_total{port=\"rest\",state=\"handshaking\"}";
    // The place of the first may go to one of the three that have waited for longer.
    assert!((1.0..=2.0).contains(&secure.server.numbers()[evicted]));
}

#[test]
fn plain_text_is_said_to_be_so_at_the_start() {
    let said = |server: &Server| {
        ["rest", "grpc"].map(|port| {
            let of_port = |line: &&String| line.contains("the port speaks plain text") && line.contains(port);
            server.log().iter().filter(of_port).count()
        })
    };
    assert_eq!(said(&Server::start()), [1, 1]);
    assert_eq!(said(&plain_tls().server), [0, 0]);
}

fn refused_start(more: &str, spoil: Spoil<'_>) -> String {
    let folder: TempDir = tempfile::tempdir().unwrap();
    Authority::new("servers").server().write(folder.path(), "server");
    spoil(folder.path());
    let config = Setup { more: more.to_owned(), ..Setup::default() }.write(folder.path());
    let checked = crate::harness::run(&["check", "--config", config.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(2), "{checked:?}");
    String::from_utf8(checked.stderr).unwrap()
}

#[test]
fn a_bad_certificate_or_table_ends_the_start_with_the_key_that_is_wrong() {
    let nothing = |_: &Path| {};
    let files = "cert_file = \"server.pem\"\nkey_file = \"server.key\"\n";
    for (more, spoil, key) in [
        (format!("[rest.tls]\n{files}"), Some("server.pem"), "rest.tls.cert_file"),
        (format!("[grpc.tls]\n{files}"), Some("server.key"), "grpc.tls.key_file"),
        ("[rest.tls]\ncert_file = \"missing.pem\"\nkey_file = \"server.key\"\n".to_owned(), None, "rest.tls.cert_file"),
        ("[rest.tls]\ncert_file = \"server.pem\"\n".to_owned(), None, "rest.tls"),
        (format!("[grpc.tls]\n{files}client_ca_file = \"server.key\"\n"), None, "grpc.tls.client_ca_file"),
        (format!("[grpc.tls]\n{files}client_auth = \"optional\"\n"), None, "grpc.tls.client_auth"),
        (format!("[grpc.tls]\n{files}reload_interval = \"99ms\"\n"), None, "grpc.tls.reload_interval"),
        (format!("[grpc.tls]\n{files}reload_interval = \"3601s\"\n"), None, "grpc.tls.reload_interval"),
        ("[[auth.certificates]]\nidentity = \"CN=a\"\n".to_owned(), None, "auth.certificates"),
        (
            format!("[grpc.tls]\n{files}client_ca_file = \"server.pem\"\n[[auth.certificates]]\nidentity = \"\"\n"),
            None,
            "auth.certificates[0].identity",
        ),
        (
            format!(
                "[grpc.tls]\n{files}client_ca_file = \"server.pem\"\n[[auth.certificates]]\nidentity = \"CN=a\"\n\
                 [[auth.certificates]]\nidentity = \"CN=a\"\n"
            ),
            None,
            "auth.certificates[1].identity",
        ),
        (
            format!(
                "[grpc.tls]\n{files}client_ca_file = \"server.pem\"\n[[auth.certificates]]\nidentity = \"CN=a\"\n\
                 scopes = [\"attachments:wrote\"]\n"
            ),
            None,
            "auth.certificates[0].scopes",
        ),
    ] {
        let message = match spoil {
            Some(name) => refused_start(&more, &|folder| fs::write(folder.join(name), "nonsense").unwrap()),
            None => refused_start(&more, &nothing),
        };
        assert!(message.contains(key), "{key} was expected of {message}");
        assert!(!message.contains("PRIVATE KEY"), "{message}");
    }
}
