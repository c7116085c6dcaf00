//! The audit trail: each upload and each registration that somebody asked for is one line of `attachd::audit`, on both
//! doors, with who, what, from where, and how it ended; and no token is in it or in any other line.

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{RegisterAttachmentRequest, UploadAttachmentRequest};
use serde_json::{Value, json};
use tonic::Request;

use crate::harness::{
    Ask, Form, ISSUER, Server, Setup, authorised, chunk, claims, eventually, finish, header, mint, run, token,
};

/// The lines of the audit trail so far.
fn trail(server: &Server) -> Vec<Value> {
    let lines = server.log();
    let events = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["target"] == "attachd::audit").map(|event| event["fields"].clone()).collect()
}

/// The one line of a request, which is waited for.
fn line(server: &Server, id: &str) -> Value {
    let of = || trail(server).into_iter().filter(|line| line["request_id"] == id).collect::<Vec<_>>();
    eventually(&format!("the trail has {id}"), || !of().is_empty());
    let mut lines = of();
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Looks at the fields that are named, and that the others which are optional are not there.
fn assert_line(line: &Value, fields: &Value) {
    for name in ["issuer", "subject", "client_id", "attachment_id", "project_id", "portfolio_id", "why"] {
        assert_eq!(line.get(name).is_some(), fields.get(name).is_some(), "{name} of {line}");
    }
    for (name, value) in fields.as_object().unwrap() {
        assert_eq!(&line[name], value, "{name} of {line}");
    }
}

fn limited(name: &str, value: Value) -> String {
    let mut claims = claims(&[1]);
    claims[name] = value;
    mint(&claims)
}

#[test]
fn each_upload_over_rest_is_one_line() {
    let server = Server::start();
    let upload = || Ask::upload(1, 2, &Form::file(b"content"));
    let who = json!({"issuer": ISSUER, "subject": "tester"});
    let on = json!({"client_id": 1, "attachment_id": 2});
    let mut expired = claims(&[1]);
    expired["exp"] = 1_000_000_000.into();
    for (id, status, ask, fields) in [
        ("stored", 201, upload(), json!([who, on, {"outcome": "done", "reason": "OK"}])),
        (
            "named",
            201,
            Ask::upload(1, 3, &Form::file(b"content")).path("?project_id=5&portfolio_id=6"),
            json!([who, {"client_id": 1, "attachment_id": 3, "project_id": 5, "portfolio_id": 6, "outcome": "done"}]),
        ),
        (
            "no-token",
            401,
            upload().without("Authorization"),
            json!([on, {"outcome": "refused", "reason": "TOKEN_MISSING", "why": "JWT token not found"}]),
        ),
        (
            "bad-token",
            401,
            upload().by("a.b.c"),
            json!([on, {"outcome": "refused", "reason": "TOKEN_INVALID", "why": "the token's header is not base64url"}]),
        ),
        (
            "expired",
            401,
            upload().by(&mint(&expired)),
            json!([who, on, {"outcome": "refused", "reason": "TOKEN_EXPIRED", "why": "the token has expired"}]),
        ),
        (
            "foreign-audience",
            401,
            upload().by(&limited("aud", json!("other"))),
            json!([who, on, {"outcome": "refused", "reason": "TOKEN_INVALID",
                "why": "the token's aud is missing, malformed or not ours"}]),
        ),
        (
            "bad-claims",
            401,
            upload().by(&limited("client_ids", json!({}))),
            json!([who, on, {"outcome": "refused", "reason": "TOKEN_INVALID",
                "why": "the token's clients claim is malformed"}]),
        ),
        (
            "no-subject",
            401,
            upload().by(&limited("sub", json!(7))),
            json!([{"issuer": ISSUER}, on, {"outcome": "refused", "reason": "TOKEN_INVALID",
                "why": "the token's subject is missing or malformed"}]),
        ),
        (
            "forged",
            401,
            upload().by(&format!("{}AA", &token(&[1])[..token(&[1]).rfind('.').unwrap() + 1])),
            json!([on, {"outcome": "refused", "reason": "TOKEN_INVALID",
                "why": "the token's signature is invalid under the issuer's keys"}]),
        ),
        (
            "no-id",
            400,
            upload().at("/api/v2/clients/x/attachments/2"),
            json!([who, {"outcome": "refused", "reason": "INVALID_REQUEST",
                "why": "Validation error: client_id: must be a decimal integer"}]),
        ),
        (
            "no-scope",
            403,
            upload().by(&limited("scope", json!("attachments:read"))),
            json!([who, on, {"outcome": "refused", "reason": "FORBIDDEN",
                "why": "Insufficient permissions: the token lacks the scope attachments:write"}]),
        ),
        (
            "foreign",
            403,
            upload().by(&token(&[7])),
            json!([who, on, {"outcome": "refused", "reason": "FORBIDDEN",
                "why": "Insufficient permissions: the token does not cover this client"}]),
        ),
        (
            "elsewhere",
            404,
            upload().path("?project_id=9"),
            json!([who, {"client_id": 1, "attachment_id": 2, "project_id": 9, "outcome": "refused",
                "reason": "NOT_FOUND", "why": "The requested resource was not found"}]),
        ),
        (
            "exists",
            412,
            upload().with("If-None-Match", "*"),
            json!([who, on, {"outcome": "refused", "reason": "ALREADY_EXISTS",
                "why": "A precondition of the request is not met: the attachment already has content"}]),
        ),
        (
            "nonsense",
            400,
            upload().body(b"nonsense"),
            json!([who, on, {"outcome": "refused", "reason": "INVALID_REQUEST", "why": null}]),
        ),
    ] {
        let mut connection = server.connect();
        let reply = connection.ask(&ask.with("X-Request-Id", id));
        assert_eq!(reply.status, status, "{id}: {reply:?}");
        let line = line(&server, id);
        let mut all = json!({"action": "upload", "door": "rest", "message": "audit"});
        for some in fields.as_array().unwrap() {
            all.as_object_mut().unwrap().extend(some.as_object().unwrap().clone());
        }
        if all["why"].is_null() && status != 201 {
            all["why"] = line["why"].clone();
        }
        assert_line(&line, &all);
        let from = line["from"].as_str().expect("an address");
        assert!(from.starts_with("127.0.0.1:"), "{line}");
    }
    assert_eq!(trail(&server).len(), 15);
}

#[test]
fn what_is_no_upload_leaves_no_line() {
    let server = Server::start();
    let upload = || Ask::upload(1, 2, &Form::file(b"content"));
    assert_eq!(server.connect().ask(&upload().at("/nowhere")).status, 404);
    assert_eq!(server.connect().ask(&upload().method("PATCH")).status, 405);
    assert_eq!(server.connect().ask(&upload().with("X-Request-Id", "last")).status, 201);
    line(&server, "last");
    assert_eq!(trail(&server).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_upload_and_registration_over_grpc_is_one_line() {
    let server = Server::strict();
    let good = token(&[1]);
    let upload = |by: String, client: i64| {
        let server = &server;
        async move {
            let messages = vec![Message::Header(header(client, 2)), chunk(&b"content"[..]), finish()];
            server.grpc_upload(&by, messages).await.map_err(|refusal| refusal.request_id.expect("an id"))
        }
    };
    let register = |by: String, project: Option<i64>| {
        let server = &server;
        async move {
            let request =
                RegisterAttachmentRequest { client_id: 1, attachment_id: 2, project_id: project, portfolio_id: None };
            server.grpc_register(&by, request).await.map_err(|refusal| refusal.request_id.expect("an id"))
        }
    };
    let on = |more: Value| {
        let mut all =
            json!({"issuer": ISSUER, "subject": "tester", "client_id": 1, "attachment_id": 2, "door": "grpc"});
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };

    let id = upload(good.clone(), 1).await.unwrap_err();
    let not_found = json!({"action": "upload", "outcome": "refused", "reason": "NOT_FOUND",
        "why": "The requested resource was not found"});
    assert_line(&line(&server, &id), &on(not_found));

    let id = register(limited("scope", json!("attachments:write")), None).await.unwrap_err();
    let forbidden = json!({"action": "register", "outcome": "refused", "reason": "FORBIDDEN",
        "why": "Insufficient permissions: the token lacks the scope attachments:manage"});
    assert_line(&line(&server, &id), &on(forbidden));

    register(good.clone(), None).await.unwrap();
    let id = register(good.clone(), Some(5)).await.unwrap_err();
    assert_eq!(line(&server, &id)["reason"], "CONFLICT");

    let id = upload("a.b.c".to_owned(), 1).await.unwrap_err();
    // The token comes before the ids on this door.
    assert_line(
        &line(&server, &id),
        &json!({"action": "upload", "reason": "TOKEN_INVALID", "outcome": "refused",
        "why": "the token's header is not base64url"}),
    );

    let id = upload(good.clone(), -7).await.unwrap_err();
    assert_line(
        &line(&server, &id),
        &json!({"issuer": ISSUER, "subject": "tester", "client_id": -7, "attachment_id": 2,
        "reason": "INVALID_REQUEST", "why": "Validation error: client_id: must be from 1 to 9223372036854775807"}),
    );

    upload(good, 1).await.unwrap();
    let done = || trail(&server).into_iter().filter(|line| line["outcome"] == "done").collect::<Vec<_>>();
    eventually("both are in the trail", || done().len() == 2);
    assert_line(&done()[0], &on(json!({"action": "register", "reason": "OK"})));
    assert_line(&done()[1], &on(json!({"action": "upload", "reason": "OK"})));
    assert!(done().iter().all(|line| line["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:"))));
}

#[test]
fn what_was_stored_is_in_the_trail_though_its_client_has_gone() {
    let server = Server::start();
    for round in 0..20 {
        let id = format!("gone-{round}");
        let ask = Ask::upload(1, 100 + round, &Form::file(b"content")).with("X-Request-Id", &id);
        let mut connection = server.connect();
        connection.send(&ask.bytes()).unwrap();
        drop(connection);
        let line = line(&server, &id);
        eventually("nothing is going on", || server.readiness()["uploads_in_flight"] == 0);
        let stored = server.stored(1, 100 + round).is_some();
        assert_eq!(line["outcome"] == "done", stored, "{line}");
        assert!(["done", "abandoned", "refused"].contains(&line["outcome"].as_str().unwrap()), "{line}");
    }
}

#[test]
fn a_storage_that_fails_is_no_refusal_and_stays_out_of_the_trail() {
    let server = Server::start();
    let clients = server.root().join("clients");
    std::fs::create_dir_all(&clients).unwrap();
    std::fs::write(clients.join("1"), b"").unwrap();
    let ask = Ask::upload(1, 2, &Form::file(b"content")).with("X-Request-Id", "broken");
    assert_eq!(server.connect().ask(&ask).status, 500);
    std::fs::remove_file(clients.join("1")).unwrap();
    let line = line(&server, "broken");
    assert_eq!((&line["outcome"], &line["reason"]), (&json!("failed"), &json!("INTERNAL")), "{line}");
    assert_eq!(line["why"], "An internal server error occurred", "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_part_of_a_token_is_in_any_line_whatever_is_logged() {
    let variables = [("ATTACHD_LOG__FILTER", "trace".to_owned())].into_iter().collect();
    let server = Setup { variables, ..Setup::default() }.start();
    let good = token(&[1]);
    let mut other = claims(&[7]);
    other["sub"] = "somebody-else".into();
    let foreign = mint(&other);
    let mut old = claims(&[1]);
    old["exp"] = 1_000_000_000.into();
    let expired = mint(&old);
    let forged = format!("{}x", good);
    let upload = |by: &str| Ask::upload(1, 2, &Form::file(b"content")).by(by);
    for (status, by) in [(201, &good), (403, &foreign), (401, &expired), (401, &forged)] {
        assert_eq!(server.connect().ask(&upload(by)).status, status);
        let messages = vec![Message::Header(header(1, 2)), chunk(&b"content"[..]), finish()];
        assert_eq!(server.grpc_upload(by, messages).await.is_ok(), status == 201);
    }
    let twice = upload(&good).and("Authorization", &format!("Bearer {good}"));
    assert_eq!(server.connect().ask(&twice).status, 401);
    assert_eq!(server.connect().ask(&upload(&good).without("Authorization").path(&format!("?t={good}"))).status, 401);
    assert_eq!(server.connect().ask(&upload(&good).with("X-Request-Id", "the-last-one")).status, 201);
    line(&server, "the-last-one");
    let common = good.split('.').next().unwrap();
    let log = server.log();
    // Of libraries, the level below is in no log at all.
    assert!(log.iter().any(|line| line.contains("\"DEBUG\"")), "everything is logged");
    for token in [&good, &foreign, &expired] {
        for part in token.split('.').filter(|part| *part != common) {
            // Long enough to be no accident, and short enough to find what was cut.
            let part = &part[..24];
            let lines: Vec<_> = log.iter().filter(|line| line.contains(part)).collect();
            assert!(lines.is_empty(), "a part of a token was logged: {lines:?}");
        }
    }
}

/// A server of which both doors trust these proxies.
fn behind(proxies: &str) -> Server {
    let variables =
        ["ATTACHD_REST__TRUSTED_PROXIES", "ATTACHD_GRPC__TRUSTED_PROXIES"].map(|name| (name, proxies.to_owned()));
    Setup { variables: variables.into(), ..Setup::default() }.start()
}

/// Where a request with these forwarding headers comes from, by its line in the trail: over REST, then over gRPC.
async fn origins(server: &Server, forwarded: &[&str]) -> [(String, Option<String>); 2] {
    let ask = Ask::upload(1, 2, &Form::file(b"content")).with("X-Request-Id", "over-rest");
    let ask = ask.with("Forwarded", "for=9.9.9.9").with("X-Real-IP", "9.9.9.9");
    let ask = forwarded.iter().fold(ask, |ask, value| ask.and("X-Forwarded-For", value));
    assert_eq!(server.connect().ask(&ask).status, 201);
    let messages = [Message::Header(header(1, 3)), chunk(b"content".to_vec()), finish()];
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut request = authorised(Request::new(futures_util::stream::iter(messages)), &token(&[1]));
    request.metadata_mut().insert("x-request-id", "over-grpc".parse().unwrap());
    for value in forwarded {
        request.metadata_mut().append("x-forwarded-for", value.parse().unwrap());
    }
    server.channel().await.upload_attachment(request).await.unwrap();
    let last = |id: &str| {
        let of = || trail(server).into_iter().rfind(|line| line["request_id"] == id);
        eventually(&format!("the trail has {id}"), || of().is_some());
        of().unwrap()
    };
    ["over-rest", "over-grpc"].map(|id| {
        let line = last(id);
        let via = line.get("via").map(|via| via.as_str().unwrap().to_owned());
        (line["from"].as_str().unwrap().to_owned(), via)
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn where_no_proxy_is_trusted_nobody_is_believed_about_where_a_request_comes_from() {
    let server = Server::start();
    for (from, via) in origins(&server, &["192.0.2.7"]).await {
        assert!(from.starts_with("127.0.0.1:") && via.is_none(), "{from} via {via:?}");
    }
    let server = behind(r#"["10.0.0.0/8", "::1"]"#);
    for (from, via) in origins(&server, &["192.0.2.7"]).await {
        assert!(from.starts_with("127.0.0.1:") && via.is_none(), "{from} via {via:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_a_trusted_proxy_a_request_comes_from_the_last_address_that_is_no_proxys() {
    for (forwarded, expected) in [
        (&["6.6.6.6, 192.0.2.7"][..], "192.0.2.7"),
        (&["6.6.6.6", "192.0.2.7, 10.0.0.3"], "192.0.2.7"),
        (&["2001:db8::7"], "2001:db8::7"),
    ] {
        let server = behind(r#"["127.0.0.1", "10.0.0.0/8"]"#);
        for (from, via) in origins(&server, forwarded).await {
            assert_eq!(from, expected, "{forwarded:?}");
            assert!(via.as_ref().is_some_and(|via| via.starts_with("127.0.0.1:")), "{via:?}");
        }
    }
    for garbage in ["6.6.6.6, unknown", "6.6.6.6 outcome=done", ","] {
        let server = behind(r#"["127.0.0.1", "10.0.0.0/8"]"#);
        for (from, via) in origins(&server, &[garbage]).await {
            assert!(from.starts_with("127.0.0.1:") && via.is_none(), "{garbage}: {from} via {via:?}");
        }
    }
}

#[test]
fn a_proxy_that_is_no_network_ends_the_start_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = Setup::default().write(folder.path());
    let text = std::fs::read_to_string(&path).unwrap();
    for (value, what) in [("10.1.2.3/8", "`10.0.0.0/8`"), ("proxy.example", "no network")] {
        let listens = "[grpc]\n";
        std::fs::write(&path, text.replace(listens, &format!("{listens}trusted_proxies = [\"{value}\"]\n"))).unwrap();
        let ended = run(&["serve", "--config", path.to_str().unwrap()]);
        let said = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(2), "{said}");
        assert!(said.contains("grpc.trusted_proxies[0]: ") && said.contains(what), "{said}");
    }
}
