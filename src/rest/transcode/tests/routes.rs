//! Routes, and what of a reply is sent.

use super::*;

#[tokio::test]
async fn every_annotated_method_is_reached_by_its_paths_and_no_other_is() {
    let port = Port::open();
    for (verb, path, name) in [
        ("GET", "/v1/shelves/1/books/2", "shelves/1/books/2"),
        ("GET", "/v1/books/2", "2"),
        ("GET", "/v1/shelves/a%20b/books/c%2Fd", "shelves/a b/books/c%2Fd"),
        ("GET", "/v1/books/c%2Fd", "c/d"),
        ("POST", "/v1/shelves/1/books/2:publish", "shelves/1/books/2"),
        ("LOCK", "/v1/shelves/1/books/2", "shelves/1/books/2"),
    ] {
        let reply = port.ask(verb, path, "").await;
        assert_eq!(reply.asked()["name"], name, "{verb} {path}");
    }
    // What says more of a path is asked first.
    assert_eq!(port.get("/v1/books/search").await.body["total_count"], "7");
    for path in [
        "/",
        "/v1",
        "/v1/shelves/1/books/",
        "/v1/shelves//books/2",
        "/v1/shelves/1/books/2/",
        "/library.v1.LibraryService/Hide",
    ] {
        assert_eq!(port.get(path).await.status, 404, "{path}");
    }
    for path in ["/v1/watch", "/openapi.json"] {
        assert_eq!(port.get(path).await.body, format!("adapter of {path} with []"));
    }
}

#[tokio::test]
async fn a_method_that_a_path_has_not_is_told_those_that_it_has() {
    let port = Port::open();
    for (verb, path, allowed) in [
        ("PUT", "/v1/shelves/1/books/2", "DELETE, GET, HEAD, LOCK, PATCH"),
        ("GET", "/v1/shelves/1/books/2:publish", "POST"),
        ("PUT", "/v1/shelves/1/books/2:nothing", "DELETE, GET, HEAD, LOCK, PATCH"),
        ("DELETE", "/v1/shelves/1/books", "GET, HEAD, POST"),
        ("POST", "/v1/everything/1", "GET, HEAD, PUT"),
        ("POST", "/v1/watch", "GET, HEAD"),
        ("PUT", "/v1/shelves/1:publish/books", "GET, HEAD, POST"),
        ("OPTIONS", "/openapi.json", "GET, HEAD"),
        ("TRACE", "/v1/books/2", "GET, HEAD"),
    ] {
        let reply = port.ask(verb, path, "").await;
        assert_eq!((reply.status, reply.header("allow")), (405, allowed), "{verb} {path}");
    }
    let reply = port.ask("PUT", "/v1/shelves/1/books/2", "").await;
    assert_eq!((reply.status, &reply.body["message"]), (405, &json!("Method not allowed")));
}

#[tokio::test]
async fn head_has_the_head_of_get_and_no_body() {
    let port = Port::open();
    let (get, head) = (port.get("/v1/books/2").await, port.ask("HEAD", "/v1/books/2", "").await);
    assert_eq!((head.status, &head.body), (200, &Value::Null));
    for name in ["content-type", "content-length"] {
        assert!(!get.header(name).is_empty());
        assert_eq!(head.header(name), get.header(name), "{name}");
    }
}

#[tokio::test]
async fn the_messages_of_a_reply_are_its_details_and_the_rest_stands_beside_them() {
    let port = Port::open();
    let success = |details: Value| json!({ "status": "success", "code": 200, "message": "Operation completed successfully", "details": details });
    // One message.
    let book = json!({ "name": "2", "sold_count": "9223372036854775807" });
    assert_eq!(port.get("/v1/books/2").await.body, success(json!([book])));
    assert_eq!(port.get("/v1/books/nothing").await.body, success(json!([])));
    // One message with a scalar beside it.
    let reply = port.ask("POST", "/v1/shelves/1/books?book_id=new", r#"{"title": "t"}"#).await;
    let mut expected = success(json!([{ "title": "t" }]));
    expected["created"] = true.into();
    assert_eq!(reply.body, expected);
    // No field.
    assert_eq!(port.ask("DELETE", "/v1/shelves/1/books/2", "").await.body, success(json!([])));
    // Scalars alone.
    let reply = port.ask("POST", "/v1/shelves/1/books/2:publish", "").await;
    assert_eq!(reply.body, success(json!([{ "name": "shelves/1/books/2", "copies": "3" }])));
    // A page.
    let reply = port.get("/v1/shelves/1/books").await;
    let book = json!({ "name": "shelves/1/books/1" });
    let mut expected = success(json!([book, book]));
    expected["next_page_token"] = "a b&c/é".into();
    expected["total_count"] = "7".into();
    assert_eq!(reply.body, expected);
}

#[tokio::test]
async fn a_page_links_to_the_next_one_by_the_same_request_with_its_token() {
    let port = Port::open();
    let token = "page_token=a%20b%26c%2F%C3%A9";
    for (path, link) in [
        ("/v1/shelves/1/books", format!("</v1/shelves/1/books?{token}>; rel=\"next\"")),
        ("/v1/shelves/1/books?page_size=2", format!("</v1/shelves/1/books?page_size=2&{token}>; rel=\"next\"")),
        (
            "/v1/shelves/1/books?page%5Ftoken=&languages=a&x=%3E&languages=b",
            format!("</v1/shelves/1/books?languages=a&x=%3E&languages=b&{token}>; rel=\"next\""),
        ),
    ] {
        let reply = port.get(path).await;
        assert_eq!((reply.status, reply.header("link")), (200, link.as_str()), "{path}");
        let next = link.trim_start_matches('<').split('>').next().unwrap();
        let last = port.get(next).await;
        assert_eq!((last.status, last.header("link"), last.body.get("next_page_token")), (200, "", None), "{next}");
    }
}

#[tokio::test]
async fn a_refusal_of_the_service_is_the_envelope_and_a_defect_says_nothing() {
    let port = Port::open();
    let reply = port.get("/v1/books/missing").await;
    assert_eq!((reply.status, &reply.body["details"]), (404, &json!("The requested resource was not found")));
    let reply = port.get("/v1/books/broken").await;
    assert_eq!((reply.status, &reply.body["details"]), (500, &json!("An internal server error occurred")));
    assert!(!reply.body.to_string().contains("secret"));
}

#[tokio::test]
async fn nobody_is_served_without_a_token_and_a_token_comes_before_any_other_check() {
    let port = Port::open();
    for path in ["/v1/books/2", "/v1/everything/x?flag=perhaps"] {
        let reply = port.send(Request::get(path), "").await;
        assert_eq!((reply.status, &reply.body["details"]), (401, &json!("JWT token not found")), "{path}");
        assert!(!reply.header("www-authenticate").is_empty());
    }
}

#[test]
fn a_service_that_cannot_be_served_is_refused_at_the_start_with_the_reason() {
    const STREAM: &str = "a stream";
    let message = "message M { string a = 1; repeated string b = 2; M c = 3; map<string, string> d = 4; }";
    for (rule, why) in [
        ("get: \"/{x}\"", "M has no field x, which the path binds"),
        ("get: \"/{b}\"", "b of bad.M is repeated"),
        ("get: \"/{d}\"", "d of bad.M is repeated"),
        ("get: \"/{c}\"", "c of bad.M is a message, which no path can hold"),
        ("get: \"/{a.b}\"", "M has no field a.b, which the path binds"),
        ("put: \"/x\" body: \"y\"", "M has no field y for the body"),
        ("get: \"/x\" response_body: \"a\"", "response_body is not supported"),
        ("custom: { kind: \"HEAD\" path: \"/x\" }", "the method \"HEAD\" is not supported"),
        ("custom: { kind: \"*\" path: \"/x\" }", "the method \"*\" is not supported"),
        ("get: \"x\"", "does not begin with a slash"),
        ("body: \"*\"", "the rule has no method of HTTP"),
        (
            "get: \"/x/{a}\" additional_bindings { get: \"/x/{c.a}\" }",
            "two methods are called by GET of the same paths",
        ),
        ("get: \"/openapi.json\"", "two methods are called by GET of the same paths"),
        (STREAM, "a stream needs an adapter, and one route"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (rule, stream) = if rule == STREAM { ("get: \"/x\"", "stream") } else { (rule, "") };
        let proto = format!(
            "syntax = \"proto3\";\npackage bad;\nimport \"google/api/annotations.proto\";\n{message}\n\
             service S {{ rpc R(M) returns ({stream} M) {{ option (google.api.http) = {{ {rule} }}; }} }}\n"
        );
        std::fs::write(folder.path().join("bad.proto"), proto).unwrap();
        let refused = Port::of(&compiled(folder.path(), "bad.proto"), "bad.S").err().unwrap();
        assert!(refused.contains(why), "{rule}: {refused}");
    }
    assert!(Port::of(&POOL, "library.v1.Nothing").is_err());
    let bare = compiled(Path::new(env!("CARGO_MANIFEST_DIR")), "google/protobuf/empty.proto");
    assert!(Port::of(&bare, "library.v1.LibraryService").is_err());
}
