//! Certificates that do not do: of a provider's server, of a client, and in the configuration. Each is said in words, with the
//! mend.

use attachd::pb::UploadAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use bytes::Bytes;
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa};
use serde_json::Value;
use tonic::{Code, Request};

use crate::harness::{
    Answer, Ask, Authority, Form, GrpcRefusal, Identity, Provider, Server, Setup, SigningKey, chunk, connect_tls,
    eventually, finish, grpc_over_tls, header, run,
};

const UNAVAILABLE: &str = "The token cannot be checked now, try again later";

/// Times in which nothing is asked for but by a token.
const LAZY: &str = "refresh = \"1h\"\nmax_age = \"1h\"\ntimeout = \"2s\"\ncooldown = \"100ms\"";

const RIGHTS: &str = "scopes = [\"attachments:write\"]\nclients = [1]\n";

fn localhost() -> CertificateParams {
    CertificateParams::new(vec!["localhost".to_owned()]).unwrap()
}

/// A server whose issuer shows this certificate and is trusted by this bundle, and a token of the issuer.
fn behind(certificate: &Identity, trusted: &str) -> (Provider, Server, String) {
    let (provider, key) = (Provider::start_tls(certificate.serve()), SigningKey::new("a"));
    provider.publish(&[&key]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("ca.pem"), trusted).unwrap();
    let auth = provider.auth(LAZY, "discovery = true\nca_file = \"ca.pem\"");
    let token = provider.token(&key);
    (provider, Setup { auth: Some(auth), ..Setup::default() }.start_in(folder), token)
}

fn upload(server: &Server, token: &str) -> crate::harness::Reply {
    server.connect().ask(&Ask::upload(1, 2, &Form::file(b"content")).by(token))
}

/// Waits until the log says why the keys could not be fetched, and returns that.
fn complaint(server: &Server) -> String {
    let message = "the keys of an issuer could not be read";
    eventually("the log says why there are no keys", || !server.events(message).is_empty());
    server.events(message)[0]["error"].as_str().unwrap().to_owned()
}

#[test]
fn a_certificate_of_a_provider_that_does_not_do_is_named_with_the_mend() {
    let authority = Authority::new("providers");
    let mut of_authority = localhost();
    of_authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let mut expired = localhost();
    expired.not_before = rcgen::date_time_ymd(2019, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let mut early = localhost();
    early.not_before = rcgen::date_time_ymd(2090, 1, 1);
    early.not_after = rcgen::date_time_ymd(2091, 1, 1);
    let mut of_client = localhost();
    of_client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let elsewhere = CertificateParams::new(vec!["id.example".to_owned()]).unwrap();
    let own_authority = Identity::self_signed(&of_authority);
    let own_first = Identity::self_signed(&of_authority).in_first_version();
    for (certificate, trusted, words) in [
        (&own_authority, own_authority.pem(), "the server's certificate is marked as that of a certificate authority"),
        (&own_first, own_first.pem(), "the server's certificate is of X.509 version 1"),
        (&authority.first_version(authority.sign(localhost())), authority.pem(), "is of X.509 version 1"),
        (&authority.sign(expired), authority.pem(), "the server's certificate has expired"),
        (&authority.sign(early), authority.pem(), "the server's certificate is not valid yet"),
        (&authority.sign(of_client), authority.pem(), "the server's certificate is not for servers"),
        (&authority.sign(elsewhere), authority.pem(), "the server's certificate is for another host name"),
        (&authority.sign(localhost()), Authority::new("others").pem(), "name its CA bundle in ca_file"),
    ] {
        let (_provider, server, token) = behind(certificate, &trusted);
        upload(&server, &token).assert_refusal(503, UNAVAILABLE);
        let said = complaint(&server);
        assert!(said.contains(words), "{words} was expected of {said}");
        for library in ["CaUsedAsEndEntity", "UnsupportedCertVersion", "invalid peer certificate", "client error"] {
            assert!(!said.contains(library), "{said}");
        }
        // `check` says the same.
        let config = server.config();
        let checked = run(&["check", "--config", config.to_str().unwrap()]);
        assert!(String::from_utf8(checked.stderr.clone()).unwrap().contains(words), "{checked:?}");
    }
}

#[test]
fn a_self_signed_certificate_of_a_server_is_its_own_authority() {
    let own = Identity::self_signed(&localhost());
    let (_provider, server, token) = behind(&own, &own.pem());
    assert_eq!(upload(&server, &token).status, 201);
}

#[test]
fn a_redirect_that_is_not_followed_says_which_address_to_configure() {
    let (plain, other) = (Provider::start(), Provider::start());
    let authority = Authority::new("providers");
    let secure = Provider::start_tls(authority.server().serve());
    let key = SigningKey::new("a");
    let [host, other_host, secure_host] =
        [&plain, &other, &secure].map(|one| one.url().split_once("://").unwrap().1.replace("localhost", "127.0.0.1"));
    for (from, to, words) in [
        (&plain, format!("https://{secure_host}/jwks"), "leads to https on the same host: write https:// and port"),
        (&plain, format!("http://{other_host}/jwks"), "names another port"),
        (&plain, format!("http://localhost:{}/jwks", host.split_once(':').unwrap().1), "names another host"),
        (&plain, "ftp://127.0.0.1/jwks".to_owned(), "names another"),
    ] {
        from.answer("/moved", Answer::redirect(&to));
        let auth = from.auth(LAZY, &format!("jwks_url = \"{}/moved\"", from.url()));
        let server = Setup { auth: Some(auth), ..Setup::default() }.start();
        upload(&server, &from.token(&key)).assert_refusal(503, UNAVAILABLE);
        let said = complaint(&server);
        assert!(said.contains(words), "{words} was expected of {said}");
        assert!(!said.contains("error following redirect"), "{said}");
    }
    // By the issuer's own address, and by the one that its description gives.
    let description = "/.well-known/openid-configuration";
    plain.answer(description, Answer::redirect(&format!("https://{secure_host}{description}")));
    let server = Setup { auth: Some(plain.auth(LAZY, "discovery = true")), ..Setup::default() }.start();
    upload(&server, &plain.token(&key)).assert_refusal(503, UNAVAILABLE);
    let said = complaint(&server);
    assert!(said.contains("write https:// and port ") && said.ends_with(" in auth.issuers[0].issuer"), "{said}");
    plain.publish(&[&key]);
    plain.answer("/jwks", Answer::redirect(&format!("https://{secure_host}/jwks")));
    let server = Setup { auth: Some(plain.auth(LAZY, "discovery = true")), ..Setup::default() }.start();
    upload(&server, &plain.token(&key)).assert_refusal(503, UNAVAILABLE);
    let said = complaint(&server);
    assert!(said.contains("in the provider's jwks_uri"), "{said}");
    assert!(secure.requests("/jwks").is_empty());
}

/// A server that asks for certificates on both ports, and knows one by its URI and one by its subject.
fn mutual(authority: &Authority) -> Server {
    let folder = tempfile::tempdir().unwrap();
    authority.server().write(folder.path(), "server");
    std::fs::write(folder.path().join("clients.pem"), authority.pem()).unwrap();
    let files = "cert_file = \"server.pem\"\nkey_file = \"server.key\"\nclient_ca_file = \"clients.pem\"\n";
    let more = format!(
        "[rest.tls]\n{files}[grpc.tls]\n{files}[[auth.certificates]]\nidentity = \"spiffe://cluster.local/archiver\"\n{RIGHTS}\
         [[auth.certificates]]\nidentity = \"CN=archiver,O=Example\"\n{RIGHTS}"
    );
    Setup { more, ..Setup::default() }.start_in(folder)
}

/// Uploads over gRPC without a token.
async fn by_grpc(server: &Server, authority: &Authority, identity: &Identity) -> Result<(), GrpcRefusal> {
    let connector = authority.connector(&["h2"], Some(identity));
    let mut client = grpc_over_tls(server.grpc, connector).await.expect("a connection");
    let messages = [Message::Header(header(1, 2)), chunk("some"), finish()];
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    client.upload_attachment(Request::new(stream::iter(messages))).await.map(|_| ()).map_err(GrpcRefusal::from)
}

/// Uploads over REST without a token, and returns the status; none if there is no answer.
async fn by_rest(server: &Server, authority: &Authority, identity: &Identity) -> Option<u16> {
    let stream = connect_tls(server.rest, &authority.connector(&["http/1.1"], Some(identity))).await.ok()?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.ok()?;
    tokio::spawn(connection);
    let form = Form::file(b"content");
    let request = http::Request::post("/api/v2/clients/1/attachments/2")
        .header("host", "localhost")
        .header("content-type", form.content_type())
        .body(Full::new(Bytes::from(form.bytes())))
        .unwrap();
    let reply = sender.send_request(request).await.ok()?;
    let status = reply.status().as_u16();
    reply.into_body().collect().await.ok()?;
    Some(status)
}

/// The lines of the audit trail, of refusals alone.
fn refusals(server: &Server) -> Vec<Value> {
    let lines = server.log();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.filter(|line| line["target"] == "attachd::audit").map(|line| line["fields"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_matches_no_identity_is_named_in_the_audit_trail() {
    let authority = Authority::new("clients");
    let server = mutual(&authority);
    let nameless = {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "");
        params.distinguished_name.remove(DnType::CommonName);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        params
    };
    for (identity, words) in [
        (
            authority.client("other", &[]),
            "the client certificate's identity \"CN=other,O=Example\" is that of no auth.certificates",
        ),
        (
            authority.client("archiver", &["spiffe://cluster.local/other"]),
            "the client certificate's identity \"spiffe://cluster.local/other\" is that of no auth.certificates",
        ),
        (
            authority.client("archiver", &["spiffe://cluster.local/archiver", "spiffe://cluster.local/other"]),
            "the client certificate has 2 URIs, and an identity is one",
        ),
        (authority.sign(nameless), "the client certificate has neither a URI nor a subject"),
    ] {
        let before = refusals(&server).len();
        assert_eq!(by_rest(&server, &authority, &identity).await, Some(401), "{words}");
        let refusal = by_grpc(&server, &authority, &identity).await.unwrap_err();
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unauthenticated, "TOKEN_MISSING"), "{words}");
        // The reply says no more than for any other request without a principal.
        assert_eq!(refusal.message, "JWT token not found");
        eventually("both are in the trail", || refusals(&server).len() == before + 2);
        for line in &refusals(&server)[before..] {
            assert_eq!(line["reason"], "TOKEN_MISSING");
            let why = line["why"].as_str().unwrap();
            assert!(why.starts_with("no token was sent, and ") && why.contains(words), "{words} was expected of {why}");
        }
    }
    // Whoever sends a token is judged by it alone.
    assert_eq!(by_rest(&server, &authority, &authority.client("archiver", &[])).await, Some(201));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_certificate_that_the_handshake_refuses_is_named_in_the_log() {
    let authority = Authority::new("clients");
    let server = mutual(&authority);
    let client = || authority.client("archiver", &[]);
    let mut expired = CertificateParams::default();
    expired.not_before = rcgen::date_time_ymd(2019, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2020, 1, 1);
    for (identity, words) in [
        (authority.first_version(client()), "the client's certificate is of X.509 version 1"),
        (authority.sign(expired), "the client's certificate has expired"),
        (authority.server(), "the client's certificate is not for clients"),
        (Authority::new("others").client("archiver", &[]), "is signed by no certificate authority of client_ca_file"),
    ] {
        let told = || server.events("a client certificate was refused");
        let before = told().len();
        assert_eq!(by_rest(&server, &authority, &identity).await, None, "{words}");
        eventually("the log names it", || told().len() > before);
        let line = told().pop().unwrap();
        let why = line["why"].as_str().unwrap();
        assert!(why.contains(words), "{words} was expected of {why}");
        assert_eq!(line["port"], "rest");
        assert!(line["from"].as_str().unwrap().starts_with("127.0.0.1:"), "{line}");
    }
    // A client that sends none is no riddle either.
    let none = connect_tls(server.rest, &authority.connector(&["http/1.1"], None)).await;
    drop(none);
    eventually("the log says that there was none", || {
        server
            .events("a client certificate was refused")
            .iter()
            .any(|line| line["why"] == "the client has sent no certificate")
    });
}

/// What `attachd check` says of a configuration with this identity.
fn checked(identity: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("clients");
    authority.server().write(folder.path(), "server");
    std::fs::write(folder.path().join("clients.pem"), authority.pem()).unwrap();
    let more = format!(
        "[grpc.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\nclient_ca_file = \"clients.pem\"\n\
         [[auth.certificates]]\nidentity = {identity:?}\n{RIGHTS}"
    );
    let config = Setup { more, ..Setup::default() }.write(folder.path());
    let output = run(&["check", "--config", config.to_str().unwrap()]);
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

#[test]
fn an_identity_that_no_certificate_can_have_is_refused_with_the_form_to_write() {
    for (identity, words) in [
        ("archiver", "write CN=archiver"),
        ("archiver.example", "write CN=archiver.example"),
        ("/O=Example/CN=archiver", "write CN=archiver,O=Example"),
        ("/C=DE/O=Example, Inc./CN=archiver", "write CN=archiver,O=Example\\, Inc.,C=DE"),
        ("CN = archiver, O = Example", "write CN=archiver,O=Example"),
        ("CN=archiver, O=Example", "write CN=archiver,O=Example"),
        ("cn=archiver,o=Example", "write CN=archiver,O=Example"),
        ("CN=archiver,S=Berlin", "write CN=archiver,ST=Berlin"),
        ("E=a@example.com,CN=archiver", "write emailAddress=a@example.com,CN=archiver"),
        ("CN=archiver,O=Example+", "RFC 4514"),
        ("CN=\"archiver\",O=Example", "RFC 4514"),
        ("CN=archiver,", "RFC 4514"),
        ("CN=a\\,O=Example\\", "RFC 4514"),
        ("XY=archiver", "RFC 4514"),
        ("spiffe:", "RFC 4514"),
        ("spiffe://a b", "RFC 4514"),
    ] {
        let (status, said) = checked(identity);
        assert_eq!(status, Some(2), "{identity}: {said}");
        assert!(said.contains("auth.certificates[0].identity") && said.contains(words), "{identity}: {said}");
    }
    for identity in [
        "spiffe://cluster.local/ns/billing/sa/archiver",
        "urn:example:archiver",
        "CN=archiver",
        "CN=archiver,O=Example",
        "CN=archiver,O=Example\\, Inc.",
        "CN=archiver+UID=7,O=Example,2.5.4.97=x",
        "CN=\\ archiver\\ ,emailAddress=a@example.com",
        "CN=a=b:c",
        "CN=",
        "CN=Zoë",
        "CN=a\\0Ab",
    ] {
        let (status, said) = checked(identity);
        assert_eq!(status, Some(0), "{identity}: {said}");
    }
}

#[test]
fn a_certificate_of_version_1_ends_the_start_with_the_key_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let authority = Authority::new("servers");
    authority.first_version(authority.server()).write(folder.path(), "server");
    let more = "[rest.tls]\ncert_file = \"server.pem\"\nkey_file = \"server.key\"\n".to_owned();
    let config = Setup { more, ..Setup::default() }.write(folder.path());
    let output = run(&["check", "--config", config.to_str().unwrap()]);
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("rest.tls.cert_file") && said.contains("is of X.509 version 1"), "{said}");
    assert!(!said.contains("key_file"), "{said}");
}
