//! Operations that take a JSON body over REST: what of a request is read, in which order, and what each fault gets.

use serde_json::{Value, json};

use crate::harness::{Ask, Reply, Server, claims, eventually, mint, token};

const PATH: &str = "/api/v2/clients/1/attachments/2";

fn register(body: &str) -> Ask {
    Ask::json("PUT", 1, PATH, body)
}

/// The one element of the details of a success.
fn attachment(reply: &Reply) -> Value {
    let body = &reply.body;
    assert_eq!((reply.status, &body["status"], &body["code"]), (200, &json!("success"), &json!(200)), "{reply:?}");
    assert_eq!(body["message"], "Operation completed successfully");
    assert_eq!(body.as_object().expect("an object").len(), 4, "{body}");
    assert_eq!(reply.header("content-type"), "application/json");
    assert!(!reply.header("x-request-id").is_empty(), "{reply:?}");
    match body["details"].as_array().map(Vec::as_slice) {
        Some([one]) => one.clone(),
        _ => panic!("one attachment is expected: {body}"),
    }
}

#[test]
fn an_attachment_is_registered_and_the_reply_is_it_in_the_envelope() {
    let server = Server::strict();
    let reply = server.connect().ask(&register(r#"{"project_id": 5, "portfolio_id": "6"}"#));
    let mut known = attachment(&reply);
    let created = known.as_object_mut().expect("an object").remove("created_at").expect("a time");
    assert!(created.as_str().is_some_and(|time| time.starts_with("20") && time.ends_with('Z')), "{created}");
    // 64-bit integers are texts (ProtoJSON), and what is not set is left out.
    let expected = json!({ "client_id": "1", "attachment_id": "2", "project_id": "5", "portfolio_id": "6", "uploaded_by": "tester" });
    assert_eq!(known, expected);
    let record = server.record(1, 2).expect("a record");
    assert_eq!((&record["project_id"], &record["portfolio_id"]), (&5.into(), &6.into()), "{record}");
    // The same again is the same, and with other ids it is refused.
    assert_eq!(
        attachment(&server.connect().ask(&register(r#"{"projectId": "5", "portfolioId": 6}"#)))["project_id"],
        "5"
    );
    let details = "The attachment is in another state than the request assumes: the attachment is registered with another project or portfolio";
    server.connect().ask(&register(r#"{"project_id": 7}"#)).assert_refusal(409, details);
    assert_eq!(server.record(1, 2).expect("a record"), record);
}

#[test]
fn a_body_that_says_nothing_registers_without_a_project() {
    let server = Server::start();
    for (number, body) in [(1, "{}"), (2, ""), (3, " {\n} "), (4, r#"{"project_id": null}"#)] {
        let reply = server.connect().ask(&register(body).at(&format!("/api/v2/clients/1/attachments/{number}")));
        let known = attachment(&reply);
        assert_eq!((&known["attachment_id"], known.get("project_id")), (&json!(number.to_string()), None), "{body:?}");
    }
    // Without a body no type need be named, as curl does not.
    let reply = server.connect().ask(&register("").without("Content-Type").at("/api/v2/clients/1/attachments/5"));
    assert_eq!(attachment(&reply)["attachment_id"], "5");
}

#[test]
fn a_field_that_the_path_binds_may_only_be_repeated_in_the_body() {
    let server = Server::start();
    let equal = r#"{"client_id": 1, "attachmentId": "2", "project_id": 5}"#;
    assert_eq!(attachment(&server.connect().ask(&register(equal)))["project_id"], "5");
    for (body, field) in [
        (r#"{"client_id": 3}"#, "client_id"),
        (r#"{"attachment_id": "9"}"#, "attachment_id"),
        (r#"{"clientId": -1}"#, "client_id"),
    ] {
        server.assert_refused(&register(body), 400, &format!("Validation error: {field}"));
    }
}

#[test]
fn what_is_wrong_with_a_json_body_is_said_and_where() {
    let server = Server::start();
    for (body, details) in [
        ("{", "the body is not valid JSON (line 1, column 1)"),
        ("{} {}", "the body is not valid JSON (line 1, column 4)"),
        ("nonsense", "the body is not valid JSON (line 1, column 2)"),
        ("[]", "the body must be a JSON object"),
        ("null", "the body must be a JSON object"),
        ("\"{}\"", "the body must be a JSON object"),
        (r#"{"project_id": 5, "project_id": 6}"#, "the key \"project_id\" is given twice (line 1, column 30)"),
        (r#"{"project_id": 5, "projectId": 5}"#, "project_id: must be given once"),
        (
            r#"{"project": 5, "a\u202eb": 1}"#,
            "the body has fields that do not exist: \"a\\u{202e}b\", \"project\"; there are client_id, attachment_id, project_id, portfolio_id",
        ),
        (r#"{"project_id": "x"}"#, "project_id: must be a decimal integer"),
        (r#"{"project_id": "+5"}"#, "project_id: must be a decimal integer"),
        (r#"{"project_id": " 5"}"#, "project_id: must be a decimal integer"),
        (r#"{"project_id": ""}"#, "project_id: must be a decimal integer"),
        (r#"{"project_id": 1.5}"#, "project_id: must be an integer"),
        (r#"{"project_id": 1e300}"#, "project_id: must be an integer"),
        (r#"{"project_id": true}"#, "project_id: must be an integer"),
        (r#"{"project_id": {}}"#, "project_id: must be an integer"),
        (r#"{"project_id": [5]}"#, "project_id: must be an integer"),
        (
            r#"{"project_id": 9223372036854775808}"#,
            "project_id: must be from -9223372036854775808 to 9223372036854775807",
        ),
        (r#"{"project_id": 0}"#, "project_id: must be from 1 to 9223372036854775807"),
        (r#"{"project_id": "-5"}"#, "project_id: must be from 1 to 9223372036854775807"),
    ] {
        let reply = server.connect().ask(&register(body));
        assert_eq!((reply.status, reply.details()), (400, format!("Validation error: {details}").as_str()), "{body}");
        server.assert_refused(&register(body), 400, "Validation error");
    }
}

#[test]
fn a_body_that_is_not_json_by_its_type_is_refused_with_the_type_that_is_taken() {
    let server = Server::start();
    for kind in
        ["text/plain", "application/jsonx", "application/json; charset=latin1", "multipart/form-data; boundary=b", ""]
    {
        let ask = register("{}").with("Content-Type", kind);
        let reply = server.connect().ask(&ask);
        assert_eq!((reply.status, reply.header("accept")), (415, "application/json"), "{kind}: {reply:?}");
        server.assert_refused(&ask, 415, "The format of the request is not supported");
    }
    server.assert_refused(&register("{}").without("Content-Type"), 415, "The format of the request is not supported");
    server.assert_refused(&register("{}").and("Content-Type", "application/json"), 400, "Validation error");
    server.assert_refused(&register("{}").with("Content-Encoding", "gzip"), 400, "Validation error");
    for kind in [
        "application/json",
        "Application/JSON",
        "application/json; charset=utf-8",
        "application/json;charset=\"UTF-8\"",
    ] {
        assert_eq!(server.connect().ask(&register("{}").with("Content-Type", kind)).status, 200, "{kind}");
    }
}

#[test]
fn a_json_body_has_64_kib_at_most_whether_or_not_its_length_is_announced() {
    let server = Server::start();
    let most = 64 << 10;
    let of_length = |length: usize| format!("{{{}}}", " ".repeat(length - 2));
    for (length, status) in [(most - 1, 200), (most, 200), (most + 1, 413)] {
        for ask in [register(&of_length(length)), register(&of_length(length)).chunked(1000)] {
            let reply = server.connect().ask(&ask);
            assert_eq!(reply.status, status, "{length}: {reply:?}");
            if status == 413 {
                server.assert_refused(
                    &ask,
                    413,
                    "The upload is larger than permitted: a JSON body may have 65536 bytes at most",
                );
            }
        }
    }
    // What is announced as too large is refused before it is asked for.
    let mut connection = server.connect();
    let ask = register("").with("Content-Length", "65537").with("Expect", "100-continue");
    connection.send(&ask.head()).unwrap();
    assert_eq!(connection.reply().expect("a reply").status, 413);
}

#[test]
fn what_comes_before_the_body_is_refused_before_it_is_asked_for() {
    let server = Server::start();
    let mut without_scope = claims(&[1]);
    without_scope["scope"] = json!("attachments:write");
    let spoiled = || register("nonsense").with("Content-Type", "text/plain");
    for (ask, status, details) in [
        (spoiled().by("a.b.c").at("/api/v2/clients/x/attachments/2"), 401, "JWT token invalid"),
        (spoiled().without("Authorization").path("?projectId=5"), 401, "JWT token not found"),
        (
            spoiled().by(&token(&[7])).at("/api/v2/clients/x/attachments/2"),
            400,
            "Validation error: client_id: must be a decimal integer",
        ),
        (spoiled().by(&token(&[7])).at("/api/v2/clients/1/attachments/0"), 400, "Validation error: attachment_id"),
        (spoiled().by(&token(&[7])).path("?projectId=5"), 400, "Validation error: project_id"),
        (spoiled().by(&token(&[7])).with("If-Match", "*"), 400, "Validation error: If-Match"),
        (spoiled().by(&token(&[7])), 403, "Insufficient permissions: the token does not cover this client"),
        (
            spoiled().by(&mint(&without_scope)),
            403,
            "Insufficient permissions: the token lacks the scope attachments:manage",
        ),
        (spoiled(), 415, "The format of the request is not supported"),
        (spoiled().at("/api/v2/clients/1/attachments/2/"), 404, "The requested resource was not found"),
        (spoiled().at("/api/v2/clients//attachments/2"), 404, "The requested resource was not found"),
        (spoiled().method("PATCH"), 405, "The resource does not support this method"),
    ] {
        let mut connection = server.connect();
        connection.send(&ask.clone().with("Expect", "100-continue").head()).unwrap();
        connection.reply().expect("a reply").assert_refusal(status, details);
        server.assert_refused(&ask, status, details);
    }
}

#[test]
fn a_query_key_that_names_a_field_of_the_body_is_refused() {
    let server = Server::start();
    for key in ["project_id", "projectId", "project", "portfolio-id", "projet_id"] {
        let reply = server.connect().ask(&register("{}").path(&format!("?{key}=5")));
        reply.assert_refusal(
            400,
            if key.starts_with("po") { "Validation error: portfolio_id" } else { "Validation error: project_id" },
        );
        assert!(reply.details().ends_with("is not read, this field is in the JSON body"), "{reply:?}");
    }
    for query in ["?client_id=an-app&attachment_id=9", "?utm_source=a", "?", "?&&", "?project_name=x"] {
        assert_eq!(server.connect().ask(&register("{}").path(query)).status, 200, "{query}");
    }
}

#[test]
fn a_body_that_does_not_arrive_is_given_up() {
    let server = crate::harness::Setup { limits: "idle_timeout = \"1s\"".to_owned(), ..Default::default() }.start();
    let mut connection = server.connect();
    let ask = register("{\"project_id\": 5}");
    connection.send(&ask.head()).unwrap();
    connection.send(b"{\"project").unwrap();
    connection.reply().expect("a reply").assert_refusal(408, "The request did not arrive in time");
    let mut connection = server.connect();
    connection.send(&ask.with("Content-Length", "100").head()).unwrap();
    connection.send(b"{\"project").unwrap();
    connection.shut();
    eventually("nothing is registered", || server.record(1, 2).is_none());
}

#[test]
fn each_request_is_one_line_of_the_log_of_the_audit_trail_and_one_count() {
    let server = Server::start();
    assert_eq!(server.connect().ask(&register("{}").with("X-Request-Id", "registered")).status, 200);
    let foreign = register("{}").by(&token(&[7])).with("X-Request-Id", "foreign");
    assert_eq!(server.connect().ask(&foreign).status, 403);
    let lines = |id: &str| -> Vec<Value> {
        let log = server.log();
        let lines = log.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        lines.filter(|line| line["fields"]["request_id"] == id).collect()
    };
    for (id, outcome, reason) in [("registered", "done", "OK"), ("foreign", "refused", "FORBIDDEN")] {
        eventually("both lines are there", || lines(id).len() == 2);
        let lines = lines(id);
        let audit = lines.iter().find(|line| line["target"] == "attachd::audit").expect("a line of the audit trail");
        let audit = &audit["fields"];
        let told = [&audit["action"], &audit["door"], &audit["outcome"], &audit["reason"]];
        assert_eq!(told, ["register", "rest", outcome, reason], "{audit}");
        assert_eq!((&audit["client_id"], &audit["attachment_id"]), (&1.into(), &2.into()), "{audit}");
    }
}
