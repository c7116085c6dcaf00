//! The documented route: bodies, headers, methods, preconditions.

use std::fs;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::harness::{Ask, Form, Server, claims, eventually, hex, honest, mint, noise, sha256, token};

fn upload() -> Ask {
    Ask::upload(1, 2, &Form::file(b"content"))
}

#[test]
fn a_stored_upload_is_answered_with_the_documented_body_and_what_a_client_may_want_in_headers() {
    let server = Server::start();
    let bytes = noise(10_000, 2);
    let reply = server.connect().upload(&token(&[1]), 1, 2, &Form::file(&bytes));
    let documented = json!({
        "status": "success", "code": 201, "message": "Operation completed successfully", "details": []
    });
    assert_eq!((reply.status, &reply.body), (201, &documented));
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("location"), "/api/v2/clients/1/attachments/2");
    assert_eq!(reply.header("etag"), format!("\"{}\"", hex(&sha256(&bytes))));
    assert_eq!(reply.header("repr-digest"), format!("sha-256=:{}:", STANDARD.encode(sha256(&bytes))));
    assert!(!reply.header("x-request-id").is_empty());
    assert_eq!(server.stored(1, 2).unwrap(), bytes);
}

#[test]
fn a_sane_request_id_is_echoed_and_any_other_is_replaced() {
    let server = Server::start();
    let id = |sent: Option<&str>| {
        let ask = sent.map_or_else(upload, |sent| upload().with("X-Request-Id", sent));
        let mut connection = server.connect();
        connection.ask(&ask).header("x-request-id").to_owned()
    };
    assert_eq!(id(Some("018f-Trace.1:2/3+4=@_")), "018f-Trace.1:2/3+4=@_");
    assert_eq!(id(Some(&"a".repeat(128))), "a".repeat(128));
    let made = |sent: Option<&str>| {
        let made = id(sent);
        assert!(made.len() == 36 && Some(made.as_str()) != sent, "{made}");
        made
    };
    assert_ne!(made(None), made(None));
    for sent in ["", "a b", "<script>", "a\"b", "caf\u{e9}", &"a".repeat(129)] {
        made(Some(sent));
    }
}

#[test]
fn a_request_id_is_found_again_in_the_log_and_on_refusals() {
    let server = Server::start();
    let mut connection = server.connect();
    let reply = connection.ask(&upload().without("Authorization").with("X-Request-Id", "refused-one"));
    assert_eq!((reply.status, reply.header("x-request-id")), (401, "refused-one"));
    eventually("the refusal is logged", || server.log().iter().any(|line| line.contains("refused-one")));
}

#[test]
fn every_documented_refusal_has_the_documented_body() {
    let server = Server::start();
    assert_eq!(server.connect().ask(&upload()).status, 201);
    let exact = |ask: Ask, code: u16, message: &str, details: &str| {
        server.assert_refused(&ask, code, details);
        let reply = server.connect().ask(&ask);
        let documented = json!({ "status": "error", "code": code, "message": message, "details": details });
        assert_eq!(reply.body, documented);
        reply.header("www-authenticate").to_owned()
    };
    let challenge = exact(upload().without("Authorization"), 401, "Authentication failed", "JWT token not found");
    assert_eq!(challenge, r#"Bearer realm="attachd""#);
    let challenge = exact(upload().by("a.b.c"), 401, "Authentication failed", "JWT token invalid");
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    let mut expired = claims(&[1]);
    expired["exp"] = 1_000_000_000.into();
    let challenge = exact(upload().by(&mint(&expired)), 401, "Authentication failed", "JWT token expired");
    assert!(challenge.contains(r#"error="invalid_token""#), "{challenge}");
    // What is there belongs to no project.
    exact(upload().path("?project_id=5"), 404, "Not found", "The requested resource was not found");
    exact(upload().at("/api/v2/nothing"), 404, "Not found", "The requested resource was not found");
    // These two say more than the example does, after it.
    server.assert_refused(&upload().by(&token(&[7])), 403, "Insufficient permissions");
    server.assert_refused(&upload().at("/api/v2/clients/x/attachments/2"), 400, "Validation error");
}

#[test]
fn an_attachment_that_was_never_registered_is_not_found_where_unknown_ones_are_rejected() {
    let server = Server::strict();
    let mut connection = server.connect();
    server.assert_refused_on(&mut connection, &upload(), 404, "The requested resource was not found");
    server.assert_refused_on(&mut connection, &upload(), 404, "The requested resource was not found");
    assert!(server.record(1, 2).is_none());
}

#[test]
fn a_storage_that_is_broken_for_good_is_a_500_that_says_nothing_of_it_and_the_next_request_is_served() {
    let server = Server::start();
    let clients = server.root().join("clients");
    fs::create_dir_all(&clients).unwrap();
    // A file stands where the folder of the client should be.
    fs::write(clients.join("1"), b"").unwrap();
    let mut connection = server.connect();
    let reply = connection.ask(&upload());
    fs::remove_file(clients.join("1")).unwrap();
    let documented = json!({
        "status": "error", "code": 500, "message": "Internal server error",
        "details": "An internal server error occurred"
    });
    assert_eq!((reply.status, &reply.body), (500, &documented));
    connection.assert_serves();
    assert!(server.objects().is_empty());
    assert_eq!(connection.ask(&upload()).status, 201);
}

#[test]
fn other_methods_on_the_route_are_told_which_there_are() {
    let server = Server::start();
    for method in ["PATCH", "OPTIONS", "TRACE", "NONSENSE"] {
        let mut connection = server.connect();
        // The method is known to be wrong before anybody asks who calls.
        for ask in [upload(), upload().without("Authorization")] {
            let reply = connection.ask(&ask.method(method));
            reply.assert_refusal(405, "The resource does not support this method");
            let allowed: Vec<_> = reply.header("allow").split(", ").collect();
            assert!(allowed.contains(&"POST") && allowed.contains(&"PUT") && !allowed.contains(&method), "{reply:?}");
            assert!(!reply.headers.contains_key("access-control-allow-origin"), "{reply:?}");
        }
        connection.assert_serves();
    }
    assert!(server.objects().is_empty());
}

#[test]
fn a_refusal_of_head_has_no_body_and_the_next_request_is_served() {
    let server = Server::start();
    let mut connection = server.connect();
    connection.send(&upload().method("HEAD").body(b"").bytes()).unwrap();
    let reply = connection.reply_without_body().expect("a reply");
    assert_eq!(reply.status, 404);
    // Had a body come after the head, it would be read as the next reply here.
    connection.assert_serves();
    assert!(server.objects().is_empty());
}

#[test]
fn an_unknown_route_is_not_found_whoever_asks() {
    let server = Server::start();
    for path in [
        "/",
        "/api",
        "/api/v2/clients/1/attachments/",
        "/api/v2/clients/1/attachments/2/",
        "/api/v2/clients/1/attachments/2/contents",
        "//api/v2/clients/1/attachments/2",
        "/API/v2/clients/1/attachments/2",
        "/api/v1/clients/1/attachments/2",
        "/api/v2/../v2/clients/1/attachments/2",
        "/attachments.v2.AttachmentService/UploadAttachment",
        "/metrics",
        "/readyz",
    ] {
        for method in ["POST", "GET"] {
            server.assert_refused(&upload().method(method).at(path), 404, "The requested resource was not found");
        }
        let ask = upload().without("Authorization").at(path);
        server.assert_refused(&ask, 404, "The requested resource was not found");
    }
}

#[test]
fn create_only_stores_once_and_then_refuses_and_keeps_what_is_there() {
    let server = Server::start();
    let ask = |content: &[u8]| Ask::upload(1, 2, &Form::file(content)).with("If-None-Match", "*");
    let mut connection = server.connect();
    assert_eq!(connection.ask(&ask(b"first")).status, 201);
    server.assert_refused_on(
        &mut connection,
        &ask(b"second"),
        412,
        "A precondition of the request is not met: the attachment already has content",
    );
    connection.assert_serves();
    assert_eq!(server.stored(1, 2).unwrap(), b"first");
}

#[test]
fn the_same_id_again_replaces_the_content_and_only_the_new_one_is_kept() {
    let server = Server::start();
    let mut connection = server.connect();
    for content in [noise(50_000, 3), noise(70_000, 4), Vec::new(), noise(1, 5), noise(20_000, 6)] {
        assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(&content)).status, 201);
        assert_eq!(server.stored(1, 2).unwrap(), content);
    }
    eventually("what was replaced is gone", || server.contents(2) == 1);
}

#[test]
fn a_refused_upload_leaves_what_is_stored_as_it_is() {
    let server = Server::start();
    let mut connection = server.connect();
    assert_eq!(connection.upload(&token(&[1]), 1, 2, &Form::file(b"first")).status, 201);
    let record = server.record(1, 2);
    let cut = Form::file(b"second").bytes();
    server.assert_refused_on(&mut connection, &upload().body(&cut[..cut.len() - 4]), 400, "Validation error");
    connection.assert_serves();
    assert_eq!(server.stored(1, 2).unwrap(), b"first");
    assert_eq!(server.record(1, 2), record);
}

#[test]
fn what_the_client_accepts_makes_no_difference() {
    let server = Server::start();
    let mut connection = server.connect();
    for accept in ["text/html", "application/json", "application/xml;q=1, */*;q=0"] {
        let reply = connection.ask(&honest().with("Accept", accept));
        assert_eq!((reply.status, reply.header("content-type")), (201, "application/json"));
    }
}

#[test]
fn no_token_reaches_the_log_by_whatever_way_it_came() {
    let server = Server::start();
    let good = token(&[1]);
    let mut other = claims(&[7]);
    other["sub"] = "somebody-else".into();
    let foreign = mint(&other);
    let mut expired = claims(&[1]);
    expired["exp"] = 1_000_000_000.into();
    let expired = mint(&expired);
    let form = Form::file(b"content").part("Content-Disposition: form-data; name=\"access_token\"", good.as_bytes());
    let asks = [
        (201, upload().by(&good)),
        (201, Ask::upload(1, 2, &form)),
        (403, upload().by(&foreign)),
        (401, upload().by(&expired)),
        (401, upload().by(&format!("{good}x"))),
        (401, upload().and("Authorization", &format!("Bearer {good}"))),
        (401, upload().with("Authorization", &format!("Basic {good}"))),
        (401, upload().without("Authorization").path(&format!("?access_token={good}"))),
        (401, upload().without("Authorization").with("X-Request-Id", &good)),
    ];
    for (status, ask) in asks {
        let mut connection = server.connect();
        assert_eq!(connection.ask(&ask).status, status);
    }
    let done = honest().with("X-Request-Id", "the-last-one");
    let mut connection = server.connect();
    assert_eq!(connection.ask(&done).status, 201);
    eventually("the last request is logged", || server.log().iter().any(|line| line.contains("the-last-one")));
    for token in [&good, &foreign, &expired] {
        for part in token.split('.').filter(|part| *part != good.split('.').next().unwrap()) {
            let lines: Vec<_> = server.log().into_iter().filter(|line| line.contains(part)).collect();
            assert!(lines.is_empty(), "a part of a token was logged: {lines:?}");
        }
    }
}
