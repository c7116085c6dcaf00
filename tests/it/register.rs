//! Registration: who may make an attachment known, and what it changes, the same over REST and gRPC.

use attachd::pb::RegisterAttachmentRequest;
use attachd::pb::upload_attachment_request::Message;
use serde_json::json;
use tonic::Code;

use crate::harness::{Ask, GrpcRefusal, Reply, Server, chunk, claims, eventually, finish, header, mint, noise, token};

fn request(attachment: i64, project: Option<i64>, portfolio: Option<i64>) -> RegisterAttachmentRequest {
    RegisterAttachmentRequest { client_id: 1, attachment_id: attachment, project_id: project, portfolio_id: portfolio }
}

fn with(name: &str, value: serde_json::Value) -> String {
    let mut claims = claims(&[1]);
    claims[name] = value;
    mint(&claims)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_attachment_can_be_uploaded_to_once_it_is_registered() {
    let server = Server::strict();
    let bytes = noise(5000, 1);
    let messages = || vec![Message::Header(header(1, 2)), chunk(bytes.clone()), finish()];
    let refusal = server.grpc_upload(&token(&[1]), messages()).await.expect_err("it is unknown");
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::NotFound, "NOT_FOUND"));

    let registered = server.grpc_register(&token(&[1]), request(2, Some(3), Some(4))).await.expect("it is registered");
    assert_eq!((registered.client_id, registered.attachment_id), (1, 2));
    assert_eq!((registered.project_id, registered.portfolio_id), (Some(3), Some(4)));
    assert_eq!((registered.size, registered.sha256, registered.content_type.as_str()), (None, None, ""));
    assert_eq!(registered.uploaded_by, "tester");
    assert_eq!(server.record(1, 2).expect("a record")["state"], "registered");

    let stored = server.grpc_upload(&token(&[1]), messages()).await.expect("it is known");
    assert_eq!((stored.project_id, stored.portfolio_id), (Some(3), Some(4)));
    assert_eq!(server.stored(1, 2).expect("it is stored"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn only_who_may_manage_the_client_the_project_and_the_portfolio_registers() {
    let server = Server::strict();
    for (name, token, code, reason) in [
        ("no token", String::new(), Code::Unauthenticated, "TOKEN_MISSING"),
        ("an expired token", with("exp", json!(1_000_000_000)), Code::Unauthenticated, "TOKEN_EXPIRED"),
        (
            "no scope to manage",
            with("scope", json!("attachments:write attachments:read")),
            Code::PermissionDenied,
            "FORBIDDEN",
        ),
        ("another client", token(&[2]), Code::PermissionDenied, "FORBIDDEN"),
        ("another project", with("project_ids", json!([5])), Code::PermissionDenied, "FORBIDDEN"),
        ("another portfolio", with("portfolio_ids", json!([5])), Code::PermissionDenied, "FORBIDDEN"),
        ("no projects", with("project_ids", json!([])), Code::PermissionDenied, "FORBIDDEN"),
    ] {
        let refusal = server.grpc_register(&token, request(2, Some(3), Some(4))).await.expect_err(name);
        assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason), "{name}");
        assert_eq!(refusal.domain, "attachd", "{name}");
        assert!(refusal.request_id.is_some(), "{name}");
        assert_eq!(server.record(1, 2), None, "{name}");
    }
    let token = with("scope", json!("attachments:manage"));
    server.grpc_register(&token, request(2, Some(3), Some(4))).await.expect("that scope is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_out_of_range_are_not_registered() {
    let server = Server::strict();
    for (field, request) in [
        ("client_id", RegisterAttachmentRequest { client_id: 0, ..request(2, None, None) }),
        ("client_id", RegisterAttachmentRequest { client_id: -1, ..request(2, None, None) }),
        ("attachment_id", request(0, None, None)),
        ("attachment_id", request(i64::MIN, None, None)),
        ("project_id", request(2, Some(0), None)),
        ("portfolio_id", request(2, None, Some(-3))),
    ] {
        let refusal = server.grpc_register(&token(&[1]), request).await.expect_err(field);
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::InvalidArgument, "INVALID_REQUEST"), "{field}");
        assert_eq!(refusal.fields, [field]);
        assert!(!server.root().join("clients").exists(), "{field}");
    }
    server.grpc_register(&token(&[1]), request(i64::MAX, None, None)).await.expect("the largest id is an id");
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_again_changes_nothing_and_otherwise_is_refused() {
    let server = Server::strict();
    let first = server.grpc_register(&token(&[1]), request(2, Some(3), None)).await.expect("it is registered");
    let record = server.record(1, 2).expect("a record");
    let other = with("sub", json!("someone else"));
    assert_eq!(server.grpc_register(&other, request(2, Some(3), None)).await.expect("it is the same"), first);
    assert_eq!(server.record(1, 2).expect("a record"), record);
    for (project, portfolio) in [(Some(4), None), (None, None), (Some(3), Some(1))] {
        let refusal = server.grpc_register(&other, request(2, project, portfolio)).await.expect_err("it differs");
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::AlreadyExists, "CONFLICT"));
        assert_eq!(server.record(1, 2).expect("a record"), record);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn registering_an_attachment_that_has_content_leaves_the_content() {
    let server = Server::strict();
    let bytes = noise(5000, 1);
    server.grpc_register(&token(&[1]), request(2, Some(3), None)).await.expect("it is registered");
    let messages = vec![Message::Header(header(1, 2)), chunk(bytes.clone()), finish()];
    server.grpc_upload(&token(&[1]), messages).await.expect("it is stored");
    let record = server.record(1, 2).expect("a record");
    let again = server.grpc_register(&token(&[1]), request(2, Some(3), None)).await.expect("it is the same");
    assert_eq!(again.size, Some(5000));
    let refusal = server.grpc_register(&token(&[1]), request(2, None, None)).await.expect_err("it differs");
    assert_eq!(refusal.code, Code::AlreadyExists);
    assert_eq!(server.record(1, 2).expect("a record"), record);
    assert_eq!(server.stored(1, 2).expect("it is still there"), bytes);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_registrations_at_once_with_two_projects_one_project_wins() {
    let server = Server::strict();
    for attachment in 1..=5 {
        let mut client = server.channel().await;
        // Warms the connection, so that the calls go out together.
        let _ = client.register_attachment(request(attachment, None, None)).await;
        let calls = (0..50).map(|number| {
            let mut client = client.clone();
            let request = tonic::Request::new(request(attachment, Some(1 + number % 2), None));
            let request = crate::harness::authorised(request, &token(&[1]));
            tokio::spawn(async move {
                let reply = client.register_attachment(request).await.map_err(|status| status.code());
                (1 + number % 2, reply.map(|reply| reply.into_inner().attachment.expect("an attachment").project_id))
            })
        });
        let calls: Vec<_> = calls.collect();
        let mut replies = Vec::new();
        for call in calls {
            replies.push(call.await.expect("a call ends"));
        }
        let winner = server.record(1, attachment).expect("one was first")["project_id"].as_i64().expect("a project");
        for (project, reply) in replies {
            let expected = if project == winner { Ok(Some(project)) } else { Err(Code::AlreadyExists) };
            assert_eq!(reply, expected, "project {project}, the winner is {winner}");
        }
    }
}

/// A registration as REST takes it: the ids of the attachment in the path, the rest in the body.
fn over_rest(server: &Server, token: &str, id: &str, request: &RegisterAttachmentRequest) -> Reply {
    let path = format!("/api/v2/clients/{}/attachments/{}", request.client_id, request.attachment_id);
    let body =
        json!({ "project_id": request.project_id, "portfolio_id": request.portfolio_id.map(|id| id.to_string()) });
    let ask = Ask::json("PUT", 1, &path, &body.to_string()).with("X-Request-Id", id);
    server.connect().ask(&if token.is_empty() { ask.without("Authorization") } else { ask.by(token) })
}

/// What both protocols say of an attachment, apart from when.
fn said(reply: &Reply) -> serde_json::Value {
    let mut said = reply.body["details"][0].clone();
    said.as_object_mut().expect("an attachment").remove("created_at");
    said
}

/// The outcome of a request, as the log has it.
fn outcome(server: &Server, id: &str) -> String {
    let mut outcome = None;
    eventually("the request is logged", || {
        let log = server.log();
        let lines = log.iter().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut lines = lines.map(|line| line["fields"].clone());
        let line = lines.find(|fields| fields["message"] == "request" && fields["request_id"] == id);
        outcome = line.and_then(|fields| fields["outcome"].as_str().map(str::to_owned));
        outcome.is_some()
    });
    outcome.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_has_one_outcome_over_rest_and_grpc() {
    let narrow = with("project_ids", json!([5]));
    let writer = with("scope", json!("attachments:write"));
    let cases: [(&str, &str, RegisterAttachmentRequest, u16); 15] = [
        ("a plain one", &token(&[1]), request(2, None, None), 200),
        ("with a project and a portfolio", &token(&[1]), request(3, Some(5), Some(6)), 200),
        ("the largest ids", &token(&[1]), request(i64::MAX, Some(i64::MAX), None), 200),
        ("again", &token(&[1]), request(3, Some(5), Some(6)), 200),
        ("again, with another project", &token(&[1]), request(3, Some(7), Some(6)), 409),
        ("again, without its portfolio", &token(&[1]), request(3, Some(5), None), 409),
        ("within the projects of the token", &narrow, request(4, Some(5), None), 200),
        ("no token", "", request(2, None, None), 401),
        ("no JWT", "sesame", request(2, None, None), 401),
        ("another scope", &writer, request(2, None, None), 403),
        ("another client", &token(&[7]), request(2, None, None), 403),
        ("another project than the token has", &narrow, request(2, Some(7), None), 403),
        ("attachment 0", &token(&[1]), request(0, None, None), 400),
        ("a negative project", &token(&[1]), request(2, Some(-1), None), 400),
        ("portfolio 0", &token(&[1]), request(2, None, Some(0)), 400),
    ];
    let (rest, grpc) = (Server::strict(), Server::strict());
    for (number, (name, token, request, status)) in cases.into_iter().enumerate() {
        let id = format!("case-{number}");
        let reply = over_rest(&rest, token, &id, &request);
        let called = grpc.grpc_register(token, request).await;
        assert_eq!(reply.status, status, "{name}: {reply:?}");
        match called {
            Ok(attachment) => {
                let said = said(&reply);
                let text = |id: Option<i64>| id.map_or(serde_json::Value::Null, |id| id.to_string().into());
                assert_eq!(said["attachment_id"], attachment.attachment_id.to_string(), "{name}");
                assert_eq!(said["project_id"], text(attachment.project_id), "{name}");
                assert_eq!(said["portfolio_id"], text(attachment.portfolio_id), "{name}");
                assert_eq!(said["uploaded_by"], attachment.uploaded_by, "{name}");
                assert_eq!(outcome(&rest, &id), "OK", "{name}");
            }
            Err(GrpcRefusal { reason, message, .. }) => {
                assert_eq!((reply.details(), outcome(&rest, &id)), (message.as_str(), reason), "{name}");
            }
        }
        let record = |server: &Server| {
            let mut record = server.record(1, request.attachment_id)?;
            record.as_object_mut().expect("a record").remove("registered_at");
            Some(record)
        };
        assert_eq!(record(&rest), record(&grpc), "{name}");
    }
}
