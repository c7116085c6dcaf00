//! One behaviour, two protocols: each operation beside the upload, with what can go wrong with all of them, over REST and over gRPC.

use attachd::pb::{
    DeleteAttachmentRequest, DownloadAttachmentRequest, GetAttachmentRequest, ListAttachmentsRequest,
    RegisterAttachmentRequest, UndeleteAttachmentRequest,
};
use serde_json::json;

use crate::harness::{ALL_SCOPES, Ask, Form, GrpcRefusal, Server, Setup, hex, sha256, token_with};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Register,
    Get,
    List,
    Download,
    Delete,
    Undelete,
}

/// What is asked, in the words of both protocols.
#[derive(Clone, Debug)]
struct Request {
    client: i64,
    attachment: i64,
    project: Option<i64>,
    if_match: Option<String>,
}

impl Operation {
    const ALL: [Operation; 6] = [
        Operation::Register,
        Operation::Get,
        Operation::List,
        Operation::Download,
        Operation::Delete,
        Operation::Undelete,
    ];

    fn scope(self) -> &'static str {
        match self {
            Operation::Register => "attachments:manage",
            Operation::Get | Operation::List | Operation::Download => "attachments:read",
            Operation::Delete | Operation::Undelete => "attachments:delete",
        }
    }

    /// How the request ends over REST: the status and the reason in the log.
    fn over_rest(self, server: &Server, token: &str, request: &Request) -> (u16, String) {
        let Request { client, attachment, project, if_match } = request;
        let folder = format!("/api/v2/clients/{client}/attachments");
        let (method, path) = match self {
            Operation::Register => ("PUT", format!("{folder}/{attachment}")),
            Operation::Get => ("GET", format!("{folder}/{attachment}")),
            Operation::List => ("GET", folder),
            Operation::Download => ("GET", format!("{folder}/{attachment}/content")),
            Operation::Delete => ("DELETE", format!("{folder}/{attachment}")),
            Operation::Undelete => ("POST", format!("{folder}/{attachment}:undelete")),
        };
        let body = match (self, project) {
            (Operation::Register | Operation::Undelete, Some(project)) => json!({ "project_id": project }).to_string(),
            _ => String::new(),
        };
        let query = match (self, project) {
            (Operation::Register | Operation::Undelete, _) | (_, None) => String::new(),
            (_, Some(project)) => format!("?project_id={project}"),
        };
        let mut ask = Ask::json(method, 1, &format!("{path}{query}"), &body).by(token);
        if token.is_empty() {
            ask = ask.without("Authorization");
        }
        if let Some(tag) = if_match {
            ask = ask.with("If-Match", tag);
        }
        let reply = server.connect().ask(&ask);
        (reply.status, server.outcome(reply.header("x-request-id")))
    }

    /// The reason with which the request ends over gRPC.
    async fn over_grpc(self, server: &Server, token: &str, request: &Request) -> String {
        let Request { client: client_id, attachment: attachment_id, project: project_id, if_match } = request.clone();
        let portfolio_id = None;
        let ended: Result<(), GrpcRefusal> = match self {
            Operation::Register => {
                let request = RegisterAttachmentRequest { client_id, attachment_id, project_id, portfolio_id };
                server.grpc_register(token, request).await.map(drop)
            }
            Operation::Get => {
                let request = GetAttachmentRequest { client_id, attachment_id, project_id, portfolio_id };
                server.grpc_get(token, request).await.map(drop)
            }
            Operation::List => {
                let request = ListAttachmentsRequest { client_id, project_id, ..Default::default() };
                server.grpc_list(token, request).await.map(drop)
            }
            Operation::Download => {
                let request =
                    DownloadAttachmentRequest { client_id, attachment_id, project_id, if_match, ..Default::default() };
                server.grpc_download(token, request).await.map(drop)
            }
            Operation::Delete => {
                let request = DeleteAttachmentRequest { client_id, attachment_id, project_id, portfolio_id, if_match };
                server.grpc_delete(token, request).await
            }
            Operation::Undelete => {
                let request = UndeleteAttachmentRequest { client_id, attachment_id, project_id, portfolio_id };
                server.grpc_undelete(token, request).await.map(drop)
            }
        };
        ended.err().map_or("OK".to_owned(), |refusal| refusal.reason)
    }
}

/// A server with attachment 2 of project 7 and attachment 3 of none, both stored. For its deletion to be undone, 2 is deleted.
fn server(operation: Operation) -> Server {
    let server = Setup { attachments: "undelete_window = \"1h\"", ..Setup::default() }.start();
    let registered = Ask::json("PUT", 1, "/api/v2/clients/1/attachments/2", r#"{"project_id": 7}"#);
    assert_eq!(server.connect().ask(&registered.by(&token_with("sub", json!("owner")))).status, 200);
    for attachment in [2, 3] {
        assert_eq!(server.connect().ask(&Ask::upload(1, attachment, &Form::file(b"stored"))).status, 201);
    }
    if operation == Operation::Undelete {
        let delete =
            Ask::json("DELETE", 1, "/api/v2/clients/1/attachments/2", "").by(&token_with("sub", json!("owner")));
        assert_eq!(server.connect().ask(&delete).status, 200);
    }
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operation_ends_alike_over_both_protocols_whatever_is_wrong() {
    let plain = Request { client: 1, attachment: 2, project: None, if_match: None };
    let other = format!("\"{}\"", hex(&sha256(b"other")));
    let same = format!("\"{}\"", hex(&sha256(b"stored")));
    for operation in Operation::ALL {
        let less = ALL_SCOPES.split(' ').filter(|scope| *scope != operation.scope()).collect::<Vec<_>>().join(" ");
        let lists = operation == Operation::List;
        let registers = operation == Operation::Register;
        let conditional = matches!(operation, Operation::Download | Operation::Delete);
        let elsewhere = token_with("project_ids", json!([8]));
        let missing = if lists || registers { "OK" } else { "NOT_FOUND" };
        let mut table = vec![
            ("no token", String::new(), plain.clone(), "TOKEN_MISSING"),
            ("a token that is none", "x.y.z".to_owned(), plain.clone(), "TOKEN_INVALID"),
            ("an expired token", token_with("exp", json!(1_000_000_000)), plain.clone(), "TOKEN_EXPIRED"),
            ("all scopes but the one", token_with("scope", json!(less)), plain.clone(), "FORBIDDEN"),
            ("another client", token_with("sub", json!("x")), Request { client: 2, ..plain.clone() }, "FORBIDDEN"),
            (
                "a client that is none",
                token_with("sub", json!("x")),
                Request { client: 0, ..plain.clone() },
                "INVALID_REQUEST",
            ),
            (
                "a project that is none",
                token_with("sub", json!("x")),
                Request { project: Some(-1), ..plain.clone() },
                "INVALID_REQUEST",
            ),
            ("a project that it lacks", elsewhere.clone(), Request { project: Some(7), ..plain.clone() }, "FORBIDDEN"),
            (
                "no such attachment",
                token_with("sub", json!("x")),
                Request { attachment: 999, ..plain.clone() },
                missing,
            ),
        ];
        if !lists {
            let bad = Request { attachment: 0, ..plain.clone() };
            table.push(("an attachment that is none", token_with("sub", json!("x")), bad, "INVALID_REQUEST"));
        }
        if !lists && !registers {
            let wrong = Request { project: Some(8), ..plain.clone() };
            table.push(("another project than its own", token_with("sub", json!("x")), wrong, "NOT_FOUND"));
            table.push(("an attachment that is hidden", elsewhere, plain.clone(), "NOT_FOUND"));
        }
        if registers {
            let moved = Request { project: Some(8), ..plain.clone() };
            table.push(("another project than before", token_with("sub", json!("x")), moved, "CONFLICT"));
        }
        if conditional {
            let request = Request { if_match: Some(other.clone()), ..plain.clone() };
            table.push(("another version", token_with("sub", json!("x")), request, "PRECONDITION_FAILED"));
            let request = Request { if_match: Some("unquoted".to_owned()), ..plain.clone() };
            table.push(("a tag that is none", token_with("sub", json!("x")), request, "INVALID_REQUEST"));
        }
        let condition = Some(same.clone()).filter(|_| conditional);
        let good = Request { project: Some(7), if_match: condition, ..plain.clone() };
        if operation == Operation::Undelete {
            let stands = Request { attachment: 3, ..plain.clone() };
            table.push(("an attachment that is not deleted", token_with("sub", json!("x")), stands, "CONFLICT"));
        }
        table.push(("all as it should be", token_with("sub", json!("x")), good, "OK"));
        for (name, token, request, reason) in table {
            // Each protocol finds the same.
            let server = server(operation);
            let (status, over_rest) = operation.over_rest(&server, &token, &request);
            assert_eq!(over_rest, reason, "{operation:?} over REST: {name}: {status}");
            drop(server);
            let server = self::server(operation);
            let over_grpc = operation.over_grpc(&server, &token, &request).await;
            assert_eq!(over_grpc, reason, "{operation:?} over gRPC: {name}");
        }
    }
}

#[test]
fn a_listing_over_rest_is_followed_by_its_links() {
    let server = Server::start();
    for attachment in 1..=5 {
        assert_eq!(server.connect().ask(&Ask::upload(1, attachment, &Form::file(b"x"))).status, 201);
    }
    let (mut seen, mut path) = (Vec::new(), "/api/v2/clients/1/attachments?page_size=2&unknown=%20".to_owned());
    loop {
        let reply = server.connect().ask(&Ask::json("GET", 1, &path, ""));
        assert_eq!(reply.status, 200, "{reply:?}");
        let details = reply.body["details"].as_array().expect("a page").clone();
        seen.extend(details.iter().map(|attachment| attachment["attachment_id"].as_str().expect("an id").to_owned()));
        let link = reply.header("link");
        assert_eq!(link.is_empty(), reply.body.get("next_page_token").is_none(), "{reply:?}");
        if link.is_empty() {
            break;
        }
        let address = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")).expect("a link");
        address.clone_into(&mut path);
    }
    assert_eq!(seen, ["1", "2", "3", "4", "5"]);
    let full = server.connect().ask(&Ask::json("GET", 1, "/api/v2/clients/1/attachments?view=FULL", ""));
    assert_eq!(full.body["details"][0]["uploaded_by"], "tester");
}
