//! Looking up and listing: who sees which attachments, in which order, and page by page.

use std::fs;

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{
    Attachment, AttachmentView, GetAttachmentRequest, ListAttachmentsRequest, ListAttachmentsResponse,
    RegisterAttachmentRequest,
};
use serde_json::json;
use tonic::Code;

use crate::harness::{
    Ask, Form, GrpcRefusal, Server, Setup, chunk, claims, finish, header, mint, record_path, sha256, token,
};

fn query(client: i64) -> ListAttachmentsRequest {
    ListAttachmentsRequest { client_id: client, ..ListAttachmentsRequest::default() }
}

fn look_up(client: i64, attachment: i64) -> GetAttachmentRequest {
    GetAttachmentRequest { client_id: client, attachment_id: attachment, project_id: None, portfolio_id: None }
}

fn with(name: &str, value: serde_json::Value) -> String {
    let mut claims = claims(&[1]);
    claims[name] = value;
    mint(&claims)
}

async fn register(server: &Server, attachment: i64, project: Option<i64>, portfolio: Option<i64>) {
    let request = RegisterAttachmentRequest {
        client_id: 1,
        attachment_id: attachment,
        project_id: project,
        portfolio_id: portfolio,
    };
    server.grpc_register(&token(&[1]), request).await.expect("it is registered");
}

/// All ids of a listing, page by page, and how many pages it had.
async fn pages(server: &Server, token: &str, query: ListAttachmentsRequest) -> (Vec<i64>, usize) {
    let (mut ids, mut pages, mut page_token) = (Vec::new(), 0, String::new());
    loop {
        let page =
            server.grpc_list(token, ListAttachmentsRequest { page_token, ..query.clone() }).await.expect("a page");
        ids.extend(page.attachments.iter().map(|attachment| attachment.attachment_id));
        pages += 1;
        assert!(pages < 1000, "the listing has no end");
        if page.next_page_token.is_empty() {
            return (ids, pages);
        }
        page_token = page.next_page_token;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_look_up_says_all_that_is_known() {
    for service in ["fs", "memory"] {
        let server = Setup { service, ..Setup::default() }.start();
        register(&server, 2, Some(7), None).await;
        let found = server.grpc_get(&token(&[1]), look_up(1, 2)).await.expect("it is registered");
        assert_eq!((found.size, found.sha256.clone(), found.project_id), (None, None, Some(7)));
        let stored =
            server.grpc_upload(&token(&[1]), vec![Message::Header(header(1, 2)), chunk("abc"), finish()]).await;
        let found = server.grpc_get(&token(&[1]), look_up(1, 2)).await.expect("it is stored");
        assert_eq!(found, stored.expect("it is stored"));
        assert_eq!(found.sha256.as_deref(), Some(&sha256(b"abc")[..]));
        for (project, portfolio, is_there) in [(Some(7), None, true), (Some(8), None, false), (None, Some(1), false)] {
            let request = GetAttachmentRequest { project_id: project, portfolio_id: portfolio, ..look_up(1, 2) };
            let found = server.grpc_get(&token(&[1]), request).await;
            assert_eq!(found.is_ok(), is_there, "{project:?} {portfolio:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_may_look_up_and_list_is_decided_before_anything_is_read() {
    let server = Server::start();
    register(&server, 2, Some(7), None).await;
    for (name, token, attachment, project, get, list) in [
        ("no token", String::new(), 2, None, "TOKEN_MISSING", "TOKEN_MISSING"),
        (
            "no scope to read",
            with("scope", json!("attachments:write attachments:manage")),
            9,
            None,
            "FORBIDDEN",
            "FORBIDDEN",
        ),
        ("another client", token(&[2]), 9, None, "FORBIDDEN", "FORBIDDEN"),
        ("another project", with("project_ids", json!([8])), 2, None, "NOT_FOUND", "OK"),
        ("another project that is named", with("project_ids", json!([8])), 2, Some(7), "FORBIDDEN", "FORBIDDEN"),
        ("no such attachment", token(&[1]), 9, None, "NOT_FOUND", "OK"),
        ("an id that is none", token(&[1]), 0, None, "INVALID_REQUEST", "OK"),
        ("a project that is none", token(&[1]), 2, Some(0), "INVALID_REQUEST", "INVALID_REQUEST"),
    ] {
        let reason = |refusal: GrpcRefusal| refusal.reason;
        let got = server.grpc_get(&token, GetAttachmentRequest { project_id: project, ..look_up(1, attachment) }).await;
        assert_eq!(got.err().map_or("OK".to_owned(), reason), get, "{name}");
        let listed = server.grpc_list(&token, ListAttachmentsRequest { project_id: project, ..query(1) }).await;
        assert_eq!(listed.err().map_or("OK".to_owned(), reason), list, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_in_the_order_of_ids_and_hold_each_attachment_once() {
    for service in ["fs", "memory"] {
        let server = Setup { service, ..Setup::default() }.start();
        let mut ids: Vec<i64> = (1..=130).map(|number| number * 7 % 131).collect();
        ids.extend([i64::MAX, i64::MAX - 1, 1 << 40]);
        for id in &ids {
            register(&server, *id, None, None).await;
        }
        ids.sort_unstable();
        for (size, count) in
            [(0, 2), (1, 133), (2, 67), (132, 2), (133, 1), (134, 1), (1000, 1), (1001, 1), (i32::MAX, 1)]
        {
            let all = pages(&server, &token(&[1]), ListAttachmentsRequest { page_size: size, ..query(1) }).await;
            assert_eq!(all, (ids.clone(), count), "pages of {size}, {service}");
        }
        let refusal = server.grpc_list(&token(&[1]), ListAttachmentsRequest { page_size: -1, ..query(1) }).await;
        let refusal = refusal.expect_err("it is no size");
        assert_eq!((refusal.code, refusal.fields), (Code::InvalidArgument, vec!["page_size".to_owned()]));
        assert_eq!(pages(&server, &token(&[9]), query(9)).await, (Vec::new(), 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_added_and_deleted_between_pages_moves_nothing_else() {
    let server = Server::start();
    for id in [10, 20, 30, 40] {
        register(&server, id, None, None).await;
    }
    let ask = ListAttachmentsRequest { page_size: 2, ..query(1) };
    let first = server.grpc_list(&token(&[1]), ask.clone()).await.expect("a page");
    register(&server, 5, None, None).await;
    register(&server, 35, None, None).await;
    fs::remove_file(record_path(server.root(), 1, 20)).unwrap();
    let next = ListAttachmentsRequest { page_token: first.next_page_token, page_size: 100, ..ask };
    let second = server.grpc_list(&token(&[1]), next).await.expect("a page");
    let ids = |page: &[Attachment]| page.iter().map(|attachment| attachment.attachment_id).collect::<Vec<_>>();
    assert_eq!((ids(&first.attachments), ids(&second.attachments)), (vec![10, 20], vec![30, 35, 40]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_sees_what_it_holds_and_what_it_asks_for() {
    let server = Server::start();
    for (id, project, portfolio) in
        [(1, None, None), (2, Some(7), None), (3, Some(8), None), (4, Some(7), Some(9)), (5, None, Some(9))]
    {
        register(&server, id, project, portfolio).await;
    }
    let holds = |projects: serde_json::Value, portfolios: serde_json::Value| {
        let mut claims = claims(&[1]);
        claims["project_ids"] = projects;
        claims["portfolio_ids"] = portfolios;
        mint(&claims)
    };
    for (token, project, portfolio, seen) in [
        (token(&[1]), None, None, vec![1, 2, 3, 4, 5]),
        (token(&[1]), Some(7), None, vec![2, 4]),
        (token(&[1]), Some(7), Some(9), vec![4]),
        (token(&[1]), None, Some(9), vec![4, 5]),
        (token(&[1]), Some(6), None, vec![]),
        (holds(json!([7]), json!([])), None, None, vec![1, 2]),
        (holds(json!([7]), json!([9])), None, None, vec![1, 2, 4, 5]),
        (holds(json!([]), json!([])), None, None, vec![1]),
    ] {
        for page_size in [1, 2, 100] {
            let ask = ListAttachmentsRequest { project_id: project, portfolio_id: portfolio, page_size, ..query(1) };
            assert_eq!(pages(&server, &token, ask).await.0, seen, "{project:?} {portfolio:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_holds_for_its_own_listing_alone() {
    let server = Server::start();
    for id in 1..=3 {
        register(&server, id, Some(7), None).await;
    }
    let all = token(&[1, 2]);
    let ask = ListAttachmentsRequest { page_size: 1, ..query(1) };
    let page_token = server.grpc_list(&all, ask.clone()).await.expect("a page").next_page_token;
    let next = ListAttachmentsRequest { page_token: page_token.clone(), ..ask.clone() };
    assert_eq!(server.grpc_list(&all, next.clone()).await.expect("a page").attachments[0].attachment_id, 2);
    let changed = format!("B{}", &page_token[1..]);
    for (name, other) in [
        ("another client", ListAttachmentsRequest { client_id: 2, ..next.clone() }),
        ("another project", ListAttachmentsRequest { project_id: Some(7), ..next.clone() }),
        ("another portfolio", ListAttachmentsRequest { portfolio_id: Some(7), ..next.clone() }),
        ("another view", ListAttachmentsRequest { view: AttachmentView::Full.into(), ..next.clone() }),
        ("a changed token", ListAttachmentsRequest { page_token: changed, ..next.clone() }),
        ("a cut token", ListAttachmentsRequest { page_token: page_token[1..].to_owned(), ..next.clone() }),
        ("no token at all", ListAttachmentsRequest { page_token: "2".to_owned(), ..next.clone() }),
    ] {
        let refusal = server.grpc_list(&all, other).await.expect_err(name);
        assert_eq!((refusal.code, refusal.fields), (Code::InvalidArgument, vec!["page_token".to_owned()]), "{name}");
    }
    let wider = ListAttachmentsRequest { page_size: 50, ..next };
    assert_eq!(server.grpc_list(&all, wider).await.expect("a page").attachments.len(), 2);
    // A token is no right: whoever brings another's sees what it holds itself.
    let other = ListAttachmentsRequest { page_token, ..ask };
    let seen = server.grpc_list(&with("project_ids", json!([])), other).await.expect("a page");
    assert!(seen.attachments.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_basic_view_leaves_out_the_digest_and_who_stored_it() {
    let server = Server::start();
    assert_eq!(server.connect().ask(&Ask::upload(1, 2, &Form::file(b"abc"))).status, 201);
    let shown = async |view: i32| {
        let page = server.grpc_list(&token(&[1]), ListAttachmentsRequest { view, ..query(1) }).await.expect("a page");
        page.attachments[0].clone()
    };
    for view in [AttachmentView::Unspecified, AttachmentView::Basic] {
        let basic = shown(view.into()).await;
        assert_eq!((basic.sha256, basic.uploaded_by.as_str(), basic.size), (None, "", Some(3)));
    }
    let full = shown(AttachmentView::Full.into()).await;
    assert_eq!(full, server.grpc_get(&token(&[1]), look_up(1, 2)).await.expect("it is there"));
    let refusal = server.grpc_list(&token(&[1]), ListAttachmentsRequest { view: 3, ..query(1) }).await;
    assert_eq!(refusal.expect_err("it is no view").fields, ["view"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_goes_on_past_a_damaged_record_and_says_so() {
    let server = Server::start();
    for id in 1..=3 {
        register(&server, id, None, None).await;
    }
    fs::write(record_path(server.root(), 1, 2), b"{").unwrap();
    fs::write(record_path(server.root(), 1, 3).with_file_name("stray"), b"").unwrap();
    let ListAttachmentsResponse { attachments, unreadable_count, .. } =
        server.grpc_list(&token(&[1]), query(1)).await.expect("a page");
    let ids: Vec<_> = attachments.iter().map(|attachment| attachment.attachment_id).collect();
    assert_eq!((ids, unreadable_count), (vec![1, 3], 1));
    let lines = server.events("a listing leaves out a record that cannot be read");
    assert_eq!((lines.len(), &lines[0]["client_id"], &lines[0]["attachment_id"]), (1, &json!(1), &json!(2)));
    let refusal = server.grpc_get(&token(&[1]), look_up(1, 2)).await.expect_err("it is damaged");
    assert_eq!((refusal.code, refusal.message.as_str()), (Code::Internal, "An internal server error occurred"));
    // It would look that all which it stored is sound.
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_looks_at_a_thousand_attachments_at_most() {
    let server = Server::start();
    let record = |id: i64| {
        json!({"format": 2, "client_id": 1, "attachment_id": id, "project_id": 7, "registered_at": "2026-01-01T00:00:00Z",
            "registered_by": "tester", "state": "registered"})
    };
    fs::create_dir_all(record_path(server.root(), 1, 1).parent().unwrap()).unwrap();
    for id in 1..=2001 {
        fs::write(record_path(server.root(), 1, id), format!("{}\n", record(id))).unwrap();
    }
    register(&server, 2002, None, None).await;
    // It holds none of the first 2001.
    let poor = with("project_ids", json!([]));
    assert_eq!(pages(&server, &poor, query(1)).await, (vec![2002], 3));
    let page = server.grpc_list(&poor, query(1)).await.expect("a page");
    assert!(page.attachments.is_empty() && !page.next_page_token.is_empty());
    let all = pages(&server, &token(&[1]), ListAttachmentsRequest { page_size: 1000, ..query(1) }).await;
    assert_eq!(all, ((1..=2002).collect(), 3));
}
