//! What a JSON body is bound to. The cases of values are those of protobuf's conformance suite for JSON input.

use super::*;

async fn put(port: &Port, body: &str) -> Reply {
    port.ask("PUT", "/v1/everything/7", body).await
}

#[tokio::test]
async fn a_body_is_read_as_proto_json() {
    let port = Port::open();
    for (body, expected) in [
        ("{}", json!({})),
        (r#"{"number": "7"}"#, json!({})),
        (
            r#"{"small": 2147483647, "unsignedSmall": 4294967295}"#,
            json!({ "small": 2_147_483_647, "unsigned_small": 4_294_967_295_u32 }),
        ),
        (
            r#"{"small": "12", "unsigned_large": 18446744073709551615}"#,
            json!({ "small": 12, "unsigned_large": "18446744073709551615" }),
        ),
        (r#"{"small": 1e5}"#, json!({ "small": 100_000 })),
        (r#"{"small": 100000.000}"#, json!({ "small": 100_000 })),
        (r#"{"small": -0.0}"#, json!({})),
        (r#"{"signed": 9007199254740992.0}"#, json!({ "signed": "9007199254740992" })),
        (r#"{"sm\u0061ll": "\u0031\u0032"}"#, json!({ "small": 12 })),
        (r#"{"ratio": 1.5, "share": "NaN"}"#, json!({ "ratio": 1.5, "share": "NaN" })),
        (r#"{"ratio": "-Infinity"}"#, json!({ "ratio": "-Infinity" })),
        (r#"{"ratio": 1}"#, json!({ "ratio": 1.0 })),
        (r#"{"flag": true, "text": "Hello, \u4e16\u754c!"}"#, json!({ "flag": true, "text": "Hello, 世界!" })),
        (r#"{"text": "\ud83d\udcce"}"#, json!({ "text": "📎" })),
        (r#"{"data": "AQI"}"#, json!({ "data": "AQI=" })),
        (r#"{"data": "-_8"}"#, json!({ "data": "+/8=" })),
        (
            r#"{"binding": "BINDING_CLOTH", "bindings": [2, "BINDING_CLOTH"]}"#,
            json!({ "binding": "BINDING_CLOTH", "bindings": ["BINDING_PAPER", "BINDING_CLOTH"] }),
        ),
        (r#"{"binding": 99}"#, json!({ "binding": 99 })),
        (r#"{"maybe": 0, "numbers": [1, "2"]}"#, json!({ "maybe": "0", "numbers": ["1", "2"] })),
        (r#"{"maybe": null, "numbers": null, "author": null, "text": null}"#, json!({})),
        (
            r#"{"at": "1970-01-01T01:00:00+01:00", "span": "1.5s"}"#,
            json!({ "at": "1970-01-01T00:00:00Z", "span": "1.500s" }),
        ),
        (r#"{"at": "9999-12-31T23:59:59.999999999Z"}"#, json!({ "at": "9999-12-31T23:59:59.999999999Z" })),
        (r#"{"mask": "text,wrappedText"}"#, json!({ "mask": "text,wrappedText" })),
        (
            r#"{"wrappedNumber": 0, "wrappedFlag": false, "wrappedText": ""}"#,
            json!({ "wrapped_number": "0", "wrapped_flag": false, "wrapped_text": "" }),
        ),
        (
            r#"{"author": {"name": "x"}, "authors": [{}, {"languages": ["a"]}]}"#,
            json!({ "author": { "name": "x" }, "authors": [{}, { "languages": ["a"] }] }),
        ),
        (r#"{"counts": {"a": 1, "b": "2"}}"#, json!({ "counts": { "a": "1", "b": "2" } })),
        (
            r#"{"anything": {"a": [1, {"b": null}], "c": "d"}}"#,
            json!({ "anything": { "a": [1.0, { "b": null }], "c": "d" } }),
        ),
        (r#"{"left": "x", "right": null}"#, json!({ "left": "x" })),
        (r#"{"nested": {"nested": {"text": "x"}}}"#, json!({ "nested": { "nested": { "text": "x" } } })),
        (" {\n\t\"small\" : 1\r\n} ", json!({ "small": 1 })),
    ] {
        let reply = put(&port, body).await;
        let mut asked = reply.asked().clone();
        assert_eq!(asked.as_object_mut().unwrap().remove("number"), Some("7".into()), "{body}");
        assert_eq!(asked, expected, "{body}");
    }
}

#[tokio::test]
async fn what_a_body_must_not_say_is_refused_and_the_field_is_named_by_its_path() {
    let port = Port::open();
    for (body, details) in [
        ("[1]", "the body must be a JSON object"),
        ("7", "the body must be a JSON object"),
        ("{,}", "the body is not valid JSON (line 1, column 2)"),
        ("{\"small\": 1,}", "the body is not valid JSON (line 1, column 13)"),
        ("{'small': 1}", "the body is not valid JSON (line 1, column 2)"),
        ("{\"small\": 01}", "the body is not valid JSON (line 1, column 12)"),
        ("{\"small\": NaN}", "the body is not valid JSON (line 1, column 11)"),
        ("{\"text\": \"\u{1}\"}", "the body is not valid JSON (line 1, column 11)"),
        (r#"{"text": "\ud83d"}"#, "the body is not valid JSON (line 1, column 17)"),
        ("// c\n{}", "the body is not valid JSON (line 1, column 1)"),
        (r#"{"small": 1, "small": 1}"#, "the key \"small\" is given twice (line 1, column 20)"),
        (r#"{"anything": {"a": 1, "a": 2}}"#, "the key \"a\" is given twice (line 1, column 25)"),
        (r#"{"unsigned_small": 1, "unsignedSmall": 1}"#, "unsigned_small: must be given once"),
        (r#"{"left": "x", "right": 1}"#, "only one of left, right may be given"),
        (r#"{"nested": {"left": "x", "right": 1}}"#, "nested: may have only one of left, right"),
        (r#"{"small": "01x"}"#, "small: must be a decimal integer"),
        (r#"{"small": " 1"}"#, "small: must be a decimal integer"),
        (r#"{"small": 2147483648}"#, "small: must be from -2147483648 to 2147483647"),
        (r#"{"small": 0.5}"#, "small: must be an integer"),
        (r#"{"small": false}"#, "small: must be an integer"),
        (r#"{"signed": 9223372036854775807.0}"#, "signed: must be an integer"),
        (r#"{"unsigned_large": -1}"#, "unsigned_large: must be from 0 to 18446744073709551615"),
        (r#"{"flag": "true"}"#, "flag: must be true or false"),
        (r#"{"flag": 1}"#, "flag: must be true or false"),
        (r#"{"text": 1}"#, "text: must be a text"),
        (r#"{"data": "*"}"#, "data: must be bytes in base64"),
        (r#"{"ratio": "x"}"#, "ratio: must be a number"),
        (r#"{"binding": "x"}"#, "binding: must be one of BINDING_UNSPECIFIED, BINDING_CLOTH, BINDING_PAPER"),
        (r#"{"binding": 1.5}"#, "binding: must be one of BINDING_UNSPECIFIED, BINDING_CLOTH, BINDING_PAPER"),
        (r#"{"numbers": 1}"#, "numbers: must be a list"),
        (r#"{"numbers": [1, "x"]}"#, "numbers[1]: must be a decimal integer"),
        (r#"{"numbers": [null]}"#, "numbers[0]: must be an integer"),
        (
            r#"{"bindings": ["BINDING_CLOTH", {}]}"#,
            "bindings[1]: must be one of BINDING_UNSPECIFIED, BINDING_CLOTH, BINDING_PAPER",
        ),
        (r#"{"at": "yesterday"}"#, "at: must be a time such as 2026-01-31T12:00:00Z (RFC 3339)"),
        (r#"{"at": "0000-01-01T00:00:00Z"}"#, "at: must be a time such as 2026-01-31T12:00:00Z (RFC 3339)"),
        (r#"{"at": 1}"#, "at: must be a time such as 2026-01-31T12:00:00Z (RFC 3339)"),
        (r#"{"span": "1"}"#, "span: must be a duration in seconds such as 1.5s"),
        (r#"{"wrapped_number": "x"}"#, "wrapped_number: must be a decimal integer"),
        (r#"{"wrapped_text": 1}"#, "wrapped_text: must be a text"),
        (r#"{"author": "x"}"#, "author: must be a JSON object"),
        (r#"{"authors": [{"languages": [1]}]}"#, "authors[0].languages[0]: must be a text"),
        (
            r#"{"authors": [{"x": 1}]}"#,
            "the body has fields that do not exist: \"authors[0].x\"; there are name, languages",
        ),
        (r#"{"counts": {"a": "x"}}"#, "counts.a: must be a decimal integer"),
        (r#"{"counts": [1]}"#, "counts: must be a JSON object"),
        (
            r#"{"number": 8}"#,
            "number: the body has another value than the path, the query or the headers of the request",
        ),
    ] {
        put(&port, body).await.assert_refused(details);
    }
}

#[tokio::test]
async fn a_body_is_32_objects_deep_at_most() {
    let port = Port::open();
    for (depth, status) in [(31, 200), (32, 200), (33, 400), (10_000, 400)] {
        // `anything` is the second object, and takes lists within.
        let body = format!("{{\"anything\": {{\"a\": {}{}}}}}", "[".repeat(depth - 2), "]".repeat(depth - 2));
        let reply = put(&port, &body).await;
        assert_eq!(reply.status, status, "{depth}: {reply:?}");
        if status == 400 {
            let details = reply.body["details"].as_str().unwrap();
            assert!(
                details.starts_with("Validation error: the body has more than 32 objects and lists within each other"),
                "{details}"
            );
        }
    }
}

#[tokio::test]
async fn a_body_that_is_one_field_has_the_rest_of_the_request_in_the_query() {
    let port = Port::open();
    let path = "/v1/shelves/1/books?book_id=new";
    let body = r#"{"title": "t", "author": {"name": "x"}, "published_at": "2026-01-31T12:00:00Z"}"#;
    let reply = port.ask("POST", path, body).await;
    let book = json!({ "title": "t", "author": { "name": "x" }, "published_at": "2026-01-31T12:00:00Z" });
    assert_eq!((reply.asked(), &reply.body["created"]), (&book, &json!(true)));
    for body in ["", "null"] {
        assert_eq!(port.ask("POST", path, body).await.status, 200, "{body:?}");
    }
    port.ask("POST", path, "[]").await.assert_refused("book: must be a JSON object");
    port.ask("POST", path, r#"{"titel": 1}"#).await.assert_refused(
        "the body has fields that do not exist: \"book.titel\"; there are name, title, author, published_at, sold_count",
    );
    for key in ["book.title", "book[title]", "bookTitle"] {
        port.ask("POST", &format!("{path}&{key}=x"), "{}").await.assert_refused(&format!(
            "book.title: the query key \"{key}\" is not read, this field is in the JSON body"
        ));
    }
}

#[tokio::test]
async fn a_nested_field_that_the_path_binds_is_laid_over_the_body() {
    let port = Port::open();
    let path = "/v1/shelves/1/books/2";
    for body in
        ["{}", r#"{"book": {"title": "t"}}"#, r#"{"book": {"name": "shelves/1/books/2"}, "updateMask": "title"}"#]
    {
        let reply = port.ask("PATCH", path, body).await;
        assert_eq!(reply.asked()["name"], "shelves/1/books/2", "{body}");
    }
    let another = "book.name: the body has another value than the path, the query or the headers of the request";
    port.ask("PATCH", path, r#"{"book": {"name": "shelves/1/books/3"}}"#).await.assert_refused(another);
    let both = port.ask_with("PATCH", path, &[("If-Match", "\"a\"")], r#"{"if_match": "\"a\""}"#).await;
    assert_eq!(both.status, 200, "{both:?}");
    let another = "if_match: the body has another value than the path, the query or the headers of the request";
    port.ask_with("PATCH", path, &[("If-Match", "\"a\"")], r#"{"if_match": "\"b\""}"#).await.assert_refused(another);
    port.ask("PATCH", &format!("{path}?update_mask=title"), "{}")
        .await
        .assert_refused("update_mask: the query key \"update_mask\" is not read, this field is in the JSON body");
}

#[tokio::test]
async fn a_body_where_there_is_none_to_send_is_refused() {
    let port = Port::open();
    for (verb, path) in [("GET", "/v1/books/2"), ("DELETE", "/v1/shelves/1/books/2")] {
        let details = "this request takes no body, send its fields in the path and the query";
        port.ask(verb, path, "{\"if_match\": \"x\"}").await.assert_refused(details);
        let typed = port.ask_with(verb, path, &[("Content-Type", "application/json")], "").await;
        assert_eq!(typed.status, 200, "{typed:?}");
    }
}
