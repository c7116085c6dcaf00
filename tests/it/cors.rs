//! Pages of other origins: which of them may call the REST port from a browser, and read what it replies.

use std::fs;

use crate::harness::{Ask, Connection, Form, Reply, Server, Setup, eventually, noise, run, token};

const APP: &str = "https://app.example.com";

fn configured(origins: &str) -> Server {
    // The sections of the ports come first in the file, and a table may be opened below one of them later.
    Setup { more: format!("[rest.cors]\norigins = {origins}\nmax_age = \"5m\"\n"), ..Setup::default() }.start()
}

fn upload() -> Ask {
    Ask::upload(1, 2, &Form::file(b"content"))
}

fn preflight(origin: &str) -> Ask {
    upload()
        .method("OPTIONS")
        .body(b"")
        .without("Authorization")
        .without("Content-Type")
        .with("Origin", origin)
        .with("Access-Control-Request-Method", "POST")
        .with("Access-Control-Request-Headers", "authorization,content-type,x-anything")
}

/// The headers of a reply that speak of other origins.
fn said(reply: &Reply) -> Vec<&str> {
    let about = |name: &&String| name.starts_with("access-control-");
    reply.headers.keys().filter(about).map(String::as_str).collect()
}

#[test]
fn a_preflight_of_a_configured_origin_is_answered_before_the_token() {
    let server = configured(&format!("[\"{APP}\", \"https://*.example.org\", \"http://localhost:3000\"]"));
    let mut connection = server.connect();
    for origin in [APP, "https://a.example.org", "https://a.b.example.org", "http://localhost:3000"] {
        connection.send(&preflight(origin).with("X-Request-Id", "preflight").bytes()).unwrap();
        let reply = connection.reply_without_body().expect("a reply");
        assert_eq!(reply.status, 204, "{reply:?}");
        assert_eq!(reply.header("access-control-allow-origin"), origin);
        assert_eq!(reply.header("access-control-allow-methods"), "DELETE, GET, POST, PUT");
        let headers = reply.header("access-control-allow-headers").to_lowercase();
        for header in [
            "authorization",
            "content-type",
            "if-none-match",
            "if-match",
            "if-modified-since",
            "if-range",
            "range",
            "repr-digest",
            "want-content-digest",
            "x-request-id",
        ] {
            assert!(headers.split(", ").any(|allowed| allowed == header), "{header}: {headers}");
        }
        assert!(!headers.contains("x-anything") && !headers.contains('*'), "{headers}");
        assert_eq!(reply.header("access-control-max-age"), "300");
        assert_eq!(reply.header("vary"), "Origin");
        assert!(!reply.headers.contains_key("access-control-allow-credentials"), "{reply:?}");
        assert_eq!(reply.header("x-request-id"), "preflight");
    }
    connection.assert_serves();
    assert_eq!(server.outcome("preflight"), "OK");
    let counted = server.numbers()[r#"attachd_requests_total{door="rest",method="other",outcome="OK"}"#];
    assert!((counted - 4.0).abs() < f64::EPSILON, "{counted}");
}

#[test]
fn a_preflight_of_any_other_origin_is_a_method_that_is_not_there() {
    let configured = configured(&format!("[\"{APP}\", \"https://*.example.org\"]"));
    let bare = Server::start();
    for origin in [
        "https://evil.example",
        "null",
        "",
        "*",
        "http://app.example.com",
        "https://app.example.com:8443",
        "https://app.example.com/",
        "https://app.example.com.evil.example",
        "https://APP.example.com",
        "https://example.org",
        "https://.example.org",
        "https://evil.example/.example.org",
        "https://evilexample.org",
        "https://app.example.com, https://evil.example",
    ] {
        for server in [&configured, &bare] {
            let reply = server.connect().ask(&preflight(origin));
            reply.assert_refusal(405, "The resource does not support this method");
            assert_eq!(said(&reply), [""; 0], "{origin}");
        }
    }
    // Where none is configured, not even a configured origin of another server is.
    let reply = bare.connect().ask(&preflight(APP));
    assert_eq!((reply.status, said(&reply), reply.header("vary")), (405, vec![], ""));
    // Two origins are none, and what asks for no method is no preflight.
    let two = preflight(APP).and("Origin", APP);
    assert_eq!(said(&configured.connect().ask(&two)), [""; 0]);
    let plain = preflight(APP).without("Access-Control-Request-Method");
    let reply = configured.connect().ask(&plain);
    reply.assert_refusal(405, "The resource does not support this method");
    assert_eq!(reply.header("access-control-allow-origin"), APP);
}

#[test]
fn a_page_of_a_configured_origin_may_read_every_reply_and_no_other_page_may() {
    let server = configured(&format!("[\"{APP}\"]"));
    let foreign = token(&[7]);
    let broken = Ask::upload(3, 3, &Form::file(b"content"));
    fs::create_dir_all(server.root().join("clients")).unwrap();
    fs::write(server.root().join("clients/3"), b"").unwrap();
    let asks = [
        (201, upload()),
        (400, upload().path("?projectId=5")),
        (400, upload().body(b"nonsense")),
        (400, upload().with("Host", "a b")),
        (401, upload().by("a.b.c")),
        (403, upload().by(&foreign)),
        (404, upload().at("/nowhere")),
        (405, upload().method("PATCH")),
        (412, upload().with("If-None-Match", "*")),
        (413, Ask::upload(1, 2, &Form::file(&noise(10 << 20, 70)))),
        (200, Ask::download(1, 2).with("Want-Content-Digest", "sha-256=1")),
        (206, Ask::download(1, 2).with("Range", "bytes=0-0")),
        (304, Ask::download(1, 2).with("If-None-Match", "*")),
        (416, Ask::download(1, 2).with("Range", "bytes=1000-")),
        (500, broken),
    ];
    for (status, ask) in asks {
        let reply = server.connect().ask(&ask.clone().with("Origin", APP));
        assert_eq!((reply.status, reply.header("access-control-allow-origin")), (status, APP), "{reply:?}");
        let exposed = reply.header("access-control-expose-headers").to_lowercase();
        // A page may read some headers of every reply (Fetch, CORS-safelisted response-header name), and some are for the browser
        // or the connection alone. All others are exposed.
        let safe = [
            "cache-control",
            "connection",
            "content-length",
            "content-security-policy",
            "content-type",
            "cross-origin-resource-policy",
            "date",
            "last-modified",
            "vary",
            "x-content-type-options",
        ];
        let is_ours = |name: &&String| !safe.contains(&name.as_str()) && !name.starts_with("access-control-");
        for header in reply.headers.keys().filter(is_ours) {
            assert!(exposed.split(", ").any(|shown| shown == header), "{header}: {exposed}");
        }
        for header in
            ["location", "link", "etag", "repr-digest", "x-request-id", "retry-after", "www-authenticate", "allow"]
        {
            assert!(exposed.split(", ").any(|shown| shown == header), "{header}: {exposed}");
        }
        assert_eq!(reply.header("vary"), "Origin");
        for other in [ask.clone().with("Origin", "https://evil.example"), ask] {
            let reply = server.connect().ask(&other);
            assert_eq!((reply.status, said(&reply), reply.header("vary")), (status, vec![], "Origin"), "{reply:?}");
        }
    }
    fs::remove_file(server.root().join("clients/3")).unwrap();
}

#[test]
fn a_preflight_with_a_body_or_a_bad_host_does_no_harm() {
    let server = configured(&format!("[\"{APP}\"]"));
    let mut connection = server.connect();
    connection.send(&preflight(APP).body(b"a body").bytes()).unwrap();
    assert_eq!(connection.reply_without_body().expect("a reply").status, 204);
    connection.assert_serves();
    let reply = server.connect().ask(&preflight(APP).with("Host", "a b"));
    assert_eq!((reply.status, reply.header("access-control-allow-methods")), (400, ""), "{reply:?}");
    assert_eq!(Connection::open(server.rest).ask(&preflight(APP).at("/nowhere").method("GET")).status, 404);
    eventually("nothing is going on", || server.readiness()["uploads_in_flight"] == 0);
}

#[test]
fn an_origin_that_no_browser_sends_ends_the_start_with_what_to_write_instead() {
    for (origins, words) in [
        ("[\"*\"]", "rest.cors.origins[0]: `*` must be a list of origins"),
        ("[\"null\"]", "rest.cors.origins[0]: `null` is the origin of any sandboxed page"),
        (
            "[\"https://a.example\", \"https://b.example/\"]",
            "rest.cors.origins[1]: `https://b.example/` must end after the host",
        ),
        ("[\"https://App.example\"]", "as browsers send it: `https://app.example`"),
        ("[\"app.example.com\"]", "must begin with `https://` or `http://`"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let setup = Setup { more: format!("[rest.cors]\norigins = {origins}\n"), ..Setup::default() };
        let config = setup.write(folder.path());
        for command in ["check", "serve"] {
            let outcome = run(&[command, "--config", config.to_str().unwrap()]);
            let text = String::from_utf8(outcome.stderr).unwrap();
            assert_eq!(outcome.status.code(), Some(2), "{text}");
            assert!(text.contains(words), "{words}: {text}");
        }
    }
}
