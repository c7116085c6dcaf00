//! Who may ask for what, and in which order a request is looked at: nobody learns from a later check what an earlier one
//! would have kept from them. Ids and query parameters belong here, since they are looked at on the way.

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{RegisterAttachmentRequest, UploadAttachmentRequest, UploadHeader};
use futures_util::StreamExt;
use serde_json::{Value, json};
use tonic::Request;

use crate::harness::{
    AUDIENCE, Ask, Form, ISSUER, Server, Setup, authorised, chunk, claims, content_folder, eventually, finish, header,
    mint, record_path, token,
};

const NOT_FOUND: &str = "The requested resource was not found";
const FORBIDDEN: &str = "Insufficient permissions";
const INVALID: &str = "Validation error";
const MISSING: &str = "JWT token not found";
const REFUSED: &str = "JWT token invalid";

fn upload() -> Ask {
    Ask::upload(1, 2, &Form::file(b"content"))
}

/// A token for client 1 with other claims than an all-powerful one.
fn limited(changes: &[(&str, Value)]) -> String {
    let mut claims = claims(&[1]);
    for (name, value) in changes {
        claims[name] = value.clone();
    }
    mint(&claims)
}

/// An attachment 1/2 that belongs to project 5 and portfolio 6.
fn belonging() -> Server {
    let server = Server::start();
    assert_eq!(server.connect().ask(&upload().path("?project_id=5&portfolio_id=6")).status, 201);
    server
}

#[test]
fn a_request_that_breaks_two_rules_gets_the_answer_of_the_earlier_one() {
    let server = belonging();
    let foreign = token(&[7]);
    let spoiled = |by: &str, path: &str| {
        // A body that would be refused, by its type, its framing and its content.
        upload().by(by).at(path).body(b"nonsense").with("Content-Type", "text/plain").with("Content-Encoding", "gzip")
    };
    let good = "/api/v2/clients/1/attachments/2";
    let elsewhere = "/api/v2/clients/1/attachments/2?project_id=99";
    let nowhere = "/api/v2/clients/x/attachments/2";
    // From the first rule to the last: the token, the ids, the rights, the record, the body.
    for path in [good, elsewhere, nowhere, "/api/v2/clients/1/attachments/2?project_id=x"] {
        server.assert_refused(&spoiled("a.b.c", path), 401, REFUSED);
        server.assert_refused(&spoiled("", path).without("Authorization"), 401, MISSING);
    }
    for by in [&foreign, &token(&[1]), &limited(&[("scope", json!(""))])] {
        server.assert_refused(&spoiled(by, nowhere), 400, "Validation error: client_id");
        server.assert_refused(&spoiled(by, "/api/v2/clients/1/attachments/0"), 400, "Validation error: attachment_id");
        server.assert_refused(&spoiled(by, &format!("{good}?project_id=x")), 400, "Validation error: project_id");
    }
    for by in [&foreign, &limited(&[("scope", json!("attachments:read"))])] {
        server.assert_refused(&spoiled(by, good), 403, FORBIDDEN);
        server.assert_refused(&spoiled(by, elsewhere), 403, FORBIDDEN);
    }
    server.assert_refused(&spoiled(&token(&[1]), elsewhere), 404, NOT_FOUND);
    let create_only = spoiled(&token(&[1]), &format!("{good}?project_id=5")).with("If-None-Match", "*");
    server.assert_refused(
        &create_only,
        412,
        "A precondition of the request is not met: the attachment already has content",
    );
    server.assert_refused(&spoiled(&token(&[1]), good), 400, INVALID);
    // The same body on its own.
    server.assert_refused(&upload().body(b"nonsense"), 400, INVALID);
    // What is too large is told so only where everything before the body is right.
    let large = |ask: Ask| ask.and("Content-Length", "99999999999");
    for (ask, status) in [
        (large(spoiled("a.b.c", good)), 401),
        (large(spoiled(&token(&[1]), nowhere)), 400),
        (large(spoiled(&foreign, good)), 403),
        (large(spoiled(&token(&[1]), elsewhere)), 404),
    ] {
        assert_eq!(server.connect().ask(&ask).status, status);
    }
}

#[test]
fn existence_is_not_revealed_to_who_may_not_know() {
    let server = belonging();
    let foreign = token(&[7]);
    let answers = |by: &str| {
        ["/api/v2/clients/1/attachments/2", "/api/v2/clients/1/attachments/3", "/api/v2/clients/9/attachments/9"].map(
            |path| {
                let reply = server.connect().ask(&upload().by(by).at(path));
                let mut headers = reply.headers;
                headers.remove("x-request-id");
                headers.remove("date");
                (reply.status, reply.body, headers)
            },
        )
    };
    let [known, unknown, nowhere] = answers(&foreign);
    assert_eq!(known.0, 403);
    assert_eq!(known, unknown);
    assert_eq!(known, nowhere);
    // Create-only asks whether there is content, which is as secret.
    for attachment in [2, 3] {
        let ask = upload().by(&foreign).at(&format!("/api/v2/clients/1/attachments/{attachment}"));
        server.assert_refused(&ask.with("If-None-Match", "*"), 403, FORBIDDEN);
    }
}

/// How often the storage was asked for something, but for the looks at its health.
fn asked_of_storage(server: &Server) -> f64 {
    let counted = |series: &str| series.starts_with("attachd_storage_operations_total") && !series.contains("\"stat\"");
    server.numbers().iter().filter(|(series, _)| counted(series)).map(|(_, count)| count).sum()
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_forbidden_by_the_token_costs_the_storage_nothing_and_learns_nothing_from_it() {
    let server = Setup { on_unknown: "reject", ..Setup::default() }.start();
    let ids = |attachment, project| RegisterAttachmentRequest {
        client_id: 1,
        attachment_id: attachment,
        project_id: project,
        portfolio_id: None,
    };
    server.grpc_register(&token(&[1]), ids(2, Some(5))).await.unwrap();
    assert_eq!(server.connect().ask(&upload()).status, 201);
    eventually("nothing is going on", || server.readiness()["uploads_in_flight"] == 0);
    let (before, begun) = (server.objects(), asked_of_storage(&server));
    for (by, project) in [
        (token(&[7]), None),
        (limited(&[("scope", json!("attachments:read"))]), None),
        (limited(&[("project_ids", json!([4]))]), Some(5)),
    ] {
        let query = project.map(|project| format!("?project_id={project}")).unwrap_or_default();
        // One that is there and one that is not.
        let mut told = Vec::new();
        for attachment in [2, 3] {
            let path = format!("/api/v2/clients/1/attachments/{attachment}{query}");
            let reply = server.connect().ask(&upload().by(&by).at(&path));
            let header = UploadHeader { project_id: project, ..header(1, attachment) };
            let refused = server.grpc_upload(&by, vec![Message::Header(header), finish()]).await.unwrap_err();
            let registration = server.grpc_register(&by, ids(attachment, project)).await.unwrap_err();
            assert_eq!((reply.status, refused.reason.as_str()), (403, "FORBIDDEN"));
            assert_eq!(registration.reason, "FORBIDDEN");
            told.push((reply.body, refused.message, refused.fields, registration.message, registration.fields));
        }
        assert_eq!(told[0], told[1]);
    }
    assert_eq!(asked_of_storage(&server), begun);
    assert_eq!(server.objects(), before);
    // Whoever may know is answered from the storage, which is seen here.
    let unknown = upload().at("/api/v2/clients/1/attachments/3");
    assert_eq!(server.connect().ask(&unknown).status, 404);
    assert_eq!(asked_of_storage(&server), begun + 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_expires_during_an_upload_does_not_end_it() {
    let auth = format!(
        "[auth]\nleeway = \"0s\"\n[[auth.issuers]]\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         algorithms = [\"HS256\"]\nhmac_secret_file = \"secret\"\n"
    );
    let server = Setup { auth: Some(auth), ..Setup::default() }.start();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let brief = limited(&[("exp", json!(now + 3))]);
    let ask = upload().by(&brief);
    let (mut connection, body) = (server.connect(), ask.framed_body());
    connection.send(&[ask.head(), body[..body.len() / 2].to_vec()].concat()).unwrap();
    let (send, messages) = tokio::sync::mpsc::channel(4);
    for message in [Message::Header(header(1, 3)), chunk(&b"con"[..])] {
        send.send(message).await.unwrap();
    }
    let messages = tokio_stream::wrappers::ReceiverStream::new(messages);
    let messages = messages.map(|message| UploadAttachmentRequest { message: Some(message) });
    let mut client = server.channel().await;
    let request = authorised(Request::new(messages), &brief);
    let uploaded = tokio::spawn(async move { client.upload_attachment(request).await });
    let accepted = || server.numbers().get("attachd_authentications_total{outcome=\"OK\"}").copied();
    eventually("both are under way", || accepted() == Some(2.0));
    let again = || server.connect().ask(&upload().at("/api/v2/clients/1/attachments/0").by(&brief));
    eventually("the token has expired", || again().status == 401);
    connection.send(&body[body.len() / 2..]).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 201);
    send.send(chunk(&b"tent"[..])).await.unwrap();
    send.send(finish()).await.unwrap();
    drop(send);
    uploaded.await.unwrap().expect("it was good when it began");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
    assert_eq!(server.stored(1, 3).unwrap(), b"content");
}

#[test]
fn a_record_under_a_project_or_portfolio_that_the_token_does_not_hold_looks_as_if_it_were_not_there() {
    let server = belonging();
    for changes in [
        ("project_ids", json!([4])),
        ("project_ids", json!([])),
        ("portfolio_ids", json!([7])),
        ("portfolio_ids", Value::Array(Vec::new())),
    ] {
        let by = limited(std::slice::from_ref(&changes));
        // The query names neither, which is no way around the token's claim.
        server.assert_refused(&upload().by(&by), 404, NOT_FOUND);
        server.assert_refused(&upload().by(&by).with("If-None-Match", "*"), 404, NOT_FOUND);
    }
    let by = limited(&[("project_ids", json!([5])), ("portfolio_ids", json!([6]))]);
    assert_eq!(server.connect().ask(&upload().by(&by)).status, 201);
}

#[test]
fn a_project_or_portfolio_outside_of_the_token_is_forbidden_whether_or_not_the_record_names_it() {
    let server = belonging();
    let by = limited(&[("project_ids", json!([4])), ("portfolio_ids", json!([4]))]);
    for query in ["?project_id=5", "?project_id=9", "?portfolio_id=6", "?project_id=4&portfolio_id=6"] {
        server.assert_refused(&upload().by(&by).path(query), 403, FORBIDDEN);
        // The same where there is no record at all.
        let other = upload().by(&by).at("/api/v2/clients/1/attachments/3").path(query);
        server.assert_refused(&other, 403, FORBIDDEN);
    }
}

#[test]
fn a_record_of_another_project_or_portfolio_than_the_query_names_is_not_found() {
    let server = belonging();
    let none = upload().at("/api/v2/clients/1/attachments/3");
    assert_eq!(server.connect().ask(&none).status, 201);
    for query in ["?project_id=6", "?portfolio_id=5", "?project_id=5&portfolio_id=5", "?project_id=6&portfolio_id=6"] {
        server.assert_refused(&upload().path(query), 404, NOT_FOUND);
        server.assert_refused(&none.clone().path(query), 404, NOT_FOUND);
    }
    for query in ["?project_id=5", "?portfolio_id=6", "?portfolio_id=6&project_id=5", ""] {
        assert_eq!(server.connect().ask(&upload().path(query)).status, 201, "{query}");
    }
    // The upload that named fewer of them has not cut the record's ties.
    let record = server.record(1, 2).unwrap();
    assert_eq!((&record["project_id"], &record["portfolio_id"]), (&json!(5), &json!(6)));
}

#[test]
fn an_id_is_a_decimal_from_one_to_the_largest_int64_and_nothing_else() {
    let server = Server::start();
    let long = "9".repeat(400);
    let bad = [
        "0",
        "-1",
        "+1",
        "%2B1",
        "%201",
        "1%20",
        "1.0",
        "0x1",
        "1e3",
        "1_000",
        "1,2",
        "%D9%A3",
        "9223372036854775808",
        "18446744073709551617",
        &long,
        "..",
        ".",
        "%2e%2e",
        "%2E",
        "%2f",
        "1%2f2",
        "..%2f..%2fetc",
        "%00",
        "1%00",
        "%ff",
        "%",
        "%zz",
        "*",
        "{client_id}",
        "1;2",
        "null",
    ];
    for id in bad {
        for path in [format!("/api/v2/clients/{id}/attachments/2"), format!("/api/v2/clients/1/attachments/{id}")] {
            let reply = server.connect().ask(&upload().at(&path));
            // Not every text is a path at all: then there is no route, or hyper does not take the request line.
            assert!(matches!(reply.status, 400 | 404), "{path}: {reply:?}");
            assert!(server.objects().is_empty(), "{path}");
        }
    }
    for id in [
        "0",
        "-1",
        "%2B1",
        "%201",
        "1.0",
        "0x1",
        "%D9%A3",
        "9223372036854775808",
        &long,
        "..",
        "%2e%2e",
        "1%2f2",
        "%00",
    ] {
        server.assert_refused(
            &upload().at(&format!("/api/v2/clients/{id}/attachments/2")),
            400,
            "Validation error: client_id",
        );
        let ask = upload().at(&format!("/api/v2/clients/1/attachments/{id}"));
        server.assert_refused(&ask, 400, "Validation error: attachment_id");
    }
    // What a URL may say in another way is the same id.
    for path in ["/api/v2/clients/%31/attachments/2", "/api/v2/clients/0001/attachments/02"] {
        assert_eq!(server.connect().ask(&upload().at(path)).status, 201, "{path}");
    }
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
    let most = i64::MAX;
    assert_eq!(server.connect().ask(&Ask::upload(most, most, &Form::file(b"most"))).status, 201);
    assert_eq!(server.stored(most, most).unwrap(), b"most");
}

#[test]
fn nothing_outside_of_the_root_is_touched_by_ids_that_climb() {
    let server = Server::start();
    let around = || {
        let mut names: Vec<_> = std::fs::read_dir(server.root().parent().unwrap())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    let before = around();
    for id in ["..", "%2e%2e", "..%2f..%2f..", "%2e%2e%2f%2e%2e%2f%2e%2e%2fescaped", "..%5c..", "%2fetc"] {
        for path in [format!("/api/v2/clients/{id}/attachments/2"), format!("/api/v2/clients/1/attachments/{id}")] {
            assert!(matches!(server.connect().ask(&upload().at(&path)).status, 400 | 404));
        }
    }
    assert_eq!(around(), before);
    assert!(server.objects().is_empty());
    server.connect().assert_serves();
}

#[test]
fn a_link_within_the_root_leads_nobody_out_of_it() {
    let server = Setup { storage: "inline_below = 0\n".to_owned(), ..Setup::default() }.start();
    let outside = tempfile::tempdir().unwrap();
    let precious = outside.path().join("precious");
    std::fs::write(&precious, b"precious").unwrap();
    let clients = server.root().join("clients");
    let record = record_path(server.root(), 1, 2);
    let link = |target: &std::path::Path, at: &std::path::Path| {
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, at).unwrap();
    };
    for at in
        [clients.join("1"), clients.join("1/records"), clients.join("1/content"), content_folder(server.root(), 1, 2)]
    {
        link(outside.path(), &at);
        let reply = server.connect().ask(&upload());
        reply.assert_refusal(500, "An internal server error occurred");
        let names: Vec<_> =
            std::fs::read_dir(outside.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["precious"], "{}", at.display());
        std::fs::remove_file(&at).unwrap();
        std::fs::remove_dir_all(clients.join("1")).ok();
    }
    // In place of the record the link is refused as well, and what it names is neither read nor replaced.
    link(&precious, &record);
    server.connect().ask(&upload()).assert_refusal(500, "An internal server error occurred");
    assert_eq!(std::fs::read(&precious).unwrap(), b"precious");
    std::fs::remove_file(&record).unwrap();
    assert_eq!(server.connect().ask(&upload()).status, 201);
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_record_is_read_through_a_link() {
    // An attachment with content that lies elsewhere, whole, so that what is read of it would be believed.
    let elsewhere = Server::start();
    assert_eq!(elsewhere.connect().ask(&upload()).status, 201);
    let server = Server::start();
    let create_only = upload().with("If-None-Match", "*");
    let (request, by) =
        (RegisterAttachmentRequest { client_id: 1, attachment_id: 2, ..Default::default() }, token(&[1]));
    let path = "clients/1/records/0000000000000000002";
    for linked in std::path::Path::new(path).ancestors().filter(|linked| linked.components().count() > 0) {
        let link = server.root().join(linked);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(elsewhere.root().join(linked), &link).unwrap();
        // Read, it would be a 412 over the one door, and an answer over the other.
        let reply = server.connect().ask(&create_only);
        reply.assert_refusal(500, "An internal server error occurred");
        let refusal = server.grpc_register(&by, request).await.unwrap_err();
        assert_eq!(refusal.reason, "INTERNAL", "{}: {refusal:?}", linked.display());
        std::fs::remove_file(&link).unwrap();
        std::fs::remove_dir_all(server.root().join("clients")).unwrap_or_default();
    }
    assert_eq!(server.connect().ask(&create_only).status, 201);
}

#[test]
fn a_query_id_is_given_once_and_is_an_id_and_unknown_keys_are_ignored() {
    let server = Server::start();
    for field in ["project_id", "portfolio_id"] {
        for query in [
            format!("{field}="),
            field.to_owned(),
            format!("{field}=abc"),
            format!("{field}=0"),
            format!("{field}=-1"),
            format!("{field}=+1"),
            format!("{field}=%201"),
            format!("{field}=1.0"),
            format!("{field}=9223372036854775808"),
            format!("{field}=%00"),
            format!("{field}=%ff"),
            format!("{field}=1&{field}=1"),
            format!("{field}=1&x=y&{field}=2"),
            // The same key, spelled in another way.
            format!("{field}=1&%70{}=1", &field[1..]),
        ] {
            let details = format!("Validation error: {field}");
            server.assert_refused(&upload().path(&format!("?{query}")), 400, &details);
        }
    }
    for query in ["?", "?&&", "?x=y&x=z", "?product_id=7", "?page=x", "?client_id=9&attachment_id=x", "?=1&%=%zz"] {
        let reply = server.connect().ask(&upload().path(query));
        assert_eq!(reply.status, 201, "{query}: {reply:?}");
    }
    let record = server.record(1, 2).unwrap();
    assert!(record.get("project_id").is_none(), "{record}");
}

#[test]
fn a_key_with_brackets_is_refused_and_never_taken_for_no_project_at_all() {
    let server = Server::start();
    for query in ["?project_id[]=1", "?portfolio_id[]=1", "?project_id%5B%5D=1"] {
        server.assert_refused(&upload().path(query), 400, INVALID);
    }
}

#[test]
fn only_one_bearer_token_in_one_authorization_header_is_a_token() {
    let server = Server::start();
    let good = token(&[1]);
    for (value, details) in [
        ("", MISSING),
        ("Basic dXNlcjpwYXNz", MISSING),
        ("Bearer", MISSING),
        ("Bearer ", MISSING),
        ("Negotiate abc", MISSING),
        (&format!("Token {good}"), MISSING),
        (&format!("Bearer\t{good}"), REFUSED),
        (&format!("Bearer \t{good}"), REFUSED),
        (&format!("Bearer {good} x"), REFUSED),
        (&format!("Bearer {good}, Bearer {good}"), REFUSED),
        (&format!("Bearer {good},"), REFUSED),
        (&format!("Bearer \"{good}\""), REFUSED),
        ("Bearer caf\u{e9}", REFUSED),
        ("Bearer ....", REFUSED),
    ] {
        server.assert_refused(&upload().with("Authorization", value), 401, details);
    }
    let bearer = format!("Bearer {good}");
    server.assert_refused(&upload().and("Authorization", &bearer), 401, REFUSED);
    server.assert_refused(&upload().and("authorization", "Basic dXNlcjpwYXNz"), 401, REFUSED);
    server.assert_refused(
        &upload().with("Authorization", "Basic dXNlcjpwYXNz").and("Authorization", &bearer),
        401,
        REFUSED,
    );
    for scheme in ["bearer", "BEARER", "bEaReR", "Bearer ", "bearer  "] {
        let reply = server.connect().ask(&upload().with("Authorization", &format!("{scheme} {good}")));
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}

#[test]
fn a_token_anywhere_else_than_in_its_header_is_never_read() {
    let server = Server::start();
    let good = token(&[1]);
    let bare = || upload().without("Authorization");
    for key in ["access_token", "token", "authorization", "jwt"] {
        server.assert_refused(&bare().path(&format!("?{key}={good}")), 401, MISSING);
        let head = format!("Content-Disposition: form-data; name=\"{key}\"");
        let form = Form::default()
            .part(&head, good.as_bytes())
            .part("Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"", b"content");
        server.assert_refused(&bare().body(&form.bytes()), 401, MISSING);
    }
    for name in ["Cookie", "X-Authorization", "Proxy-Authorization", "X-Forwarded-Authorization"] {
        server.assert_refused(&bare().with(name, &format!("Bearer {good}")), 401, MISSING);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_too_long_for_a_request_is_refused_and_the_server_goes_on() {
    let server = Server::start();
    let before = server.peak_rss();
    let padded = |length: usize| limited(&[("padding", json!("x".repeat(length)))]);
    let longest = (11_500..).map(padded).find(|token| token.len() > 16 * 1024 - 4).unwrap();
    assert!(longest.len() <= 16 * 1024, "{}", longest.len());
    assert_eq!(server.connect().ask(&upload().by(&longest)).status, 201);
    let whole = || vec![Message::Header(header(1, 2)), chunk(&b"content"[..]), finish()];
    server.grpc_upload(&longest, whole()).await.unwrap();
    eventually("nothing is going on", || server.readiness()["uploads_in_flight"] == 0);
    let held = server.objects();
    for (length, reason) in [(17 * 1024, "TOKEN_INVALID"), (1 << 20, "")] {
        let refused = server.grpc_upload(&"a".repeat(length), whole()).await.unwrap_err();
        // Past what a head may hold the library refuses, with words of its own.
        assert!(refused.reason == reason && refused.code != tonic::Code::Ok, "{length}: {refused:?}");
    }
    server.assert_refused(&upload().by(&"a".repeat(17 * 1024)), 401, REFUSED);
    // Past what a head may hold the connection is given up.
    let mut connection = server.connect();
    let _ = connection.send(&upload().by(&"a".repeat(1 << 20)).bytes());
    let status = connection.reply().map(|reply| reply.status);
    assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?}");
    assert_eq!(server.objects(), held);
    assert!(server.peak_rss() < before + (16 << 20), "{} after {before}", server.peak_rss());
    server.connect().assert_serves();
}
