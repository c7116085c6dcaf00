//! What path, query and headers are bound to. Cases that grpc-gateway tests (`runtime/query_test.go`) are among them.

use super::*;

/// The everything that a query asks for.
async fn everything(port: &Port, query: &str) -> Value {
    let reply = port.get(&format!("/v1/everything/7?{query}")).await;
    let mut asked = reply.asked().clone();
    assert_eq!(asked.as_object_mut().unwrap().remove("number"), Some("7".into()), "{query}");
    asked
}

#[tokio::test]
async fn a_key_of_the_query_is_bound_by_the_kind_of_its_field() {
    let port = Port::open();
    for (query, expected) in [
        ("", json!({})),
        ("small=-2147483648", json!({ "small": -2_147_483_648_i64 })),
        ("unsigned_small=4294967295", json!({ "unsigned_small": 4_294_967_295_u32 })),
        ("unsigned_large=18446744073709551615", json!({ "unsigned_large": "18446744073709551615" })),
        ("signed=-9223372036854775808", json!({ "signed": "-9223372036854775808" })),
        ("fixed=0007", json!({ "fixed": "7" })),
        ("ratio=-2.5e3&share=0.5", json!({ "ratio": -2500.0, "share": 0.5 })),
        ("ratio=Infinity", json!({ "ratio": "Infinity" })),
        ("ratio=-Infinity", json!({ "ratio": "-Infinity" })),
        ("ratio=NaN", json!({ "ratio": "NaN" })),
        ("flag=true", json!({ "flag": true })),
        ("flag=false", json!({})),
        ("text=a+b%2Bc%26%C3%A9", json!({ "text": "a b+c&é" })),
        ("text=", json!({})),
        ("te%78t=x", json!({ "text": "x" })),
        ("text=a=b", json!({ "text": "a=b" })),
        ("data=aGVsbG8%3D", json!({ "data": "aGVsbG8=" })),
        ("data=-_-_", json!({ "data": "+/+/" })),
        ("binding=BINDING_PAPER", json!({ "binding": "BINDING_PAPER" })),
        ("binding=PAPER", json!({ "binding": "BINDING_PAPER" })),
        ("binding=1", json!({ "binding": "BINDING_CLOTH" })),
        ("binding=99", json!({ "binding": 99 })),
        ("maybe=0", json!({ "maybe": "0" })),
        ("numbers=1&numbers=-2&numbers=1", json!({ "numbers": ["1", "-2", "1"] })),
        ("bindings=BINDING_CLOTH&bindings=2", json!({ "bindings": ["BINDING_CLOTH", "BINDING_PAPER"] })),
        ("at=2016-12-15T12:23:32.000000049Z", json!({ "at": "2016-12-15T12:23:32.000000049Z" })),
        ("at=2016-12-15T12:23:32%2B01:00", json!({ "at": "2016-12-15T11:23:32Z" })),
        ("span=46800s", json!({ "span": "46800s" })),
        ("span=-0.5s", json!({ "span": "-0.500s" })),
        ("mask=text,nested.wrappedText", json!({ "mask": "text,nested.wrappedText" })),
        (
            "wrapped_number=-1&wrapped_flag=false&wrapped_text=x",
            json!({ "wrapped_number": "-1", "wrapped_flag": false, "wrapped_text": "x" }),
        ),
        (
            "author.name=x&author.languages=a&author.languages=b",
            json!({ "author": { "name": "x", "languages": ["a", "b"] } }),
        ),
        ("left=x", json!({ "left": "x" })),
        ("&&small=1&", json!({ "small": 1 })),
        ("unknown=1&name=2", json!({})),
        ("number=9", json!({})),
    ] {
        assert_eq!(everything(&port, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn a_key_that_cannot_be_bound_is_refused_and_the_field_is_named() {
    let port = Port::open();
    for (query, details) in [
        ("small=x", "small: must be a decimal integer"),
        ("small=", "small: must be a decimal integer"),
        ("small", "small: must be a decimal integer"),
        ("small=%2B1", "small: must be a decimal integer"),
        ("small=+1", "small: must be a decimal integer"),
        ("small=1.0", "small: must be a decimal integer"),
        ("small=0x1", "small: must be a decimal integer"),
        ("small=--1", "small: must be a decimal integer"),
        ("small=%D9%A3", "small: must be a decimal integer"),
        ("small=2147483648", "small: must be from -2147483648 to 2147483647"),
        ("unsigned_small=-1", "unsigned_small: must be from 0 to 4294967295"),
        ("unsigned_large=18446744073709551616", "unsigned_large: must be from 0 to 18446744073709551615"),
        ("numbers=1&numbers=x", "numbers: must be a decimal integer"),
        ("flag=1", "flag: must be true or false"),
        ("flag=True", "flag: must be true or false"),
        ("flag", "flag: must be true or false"),
        ("ratio=.5", "ratio: must be a number"),
        ("ratio=inf", "ratio: must be a number"),
        ("ratio=%2B1", "ratio: must be a number"),
        ("ratio=1e", "ratio: must be a number"),
        ("ratio=-NaN", "ratio: must be a number"),
        ("data=***", "data: must be bytes in base64"),
        ("binding=PAPE", "binding: must be one of BINDING_UNSPECIFIED, BINDING_CLOTH, BINDING_PAPER"),
        ("bindings=x", "bindings[0]: must be one of BINDING_UNSPECIFIED, BINDING_CLOTH, BINDING_PAPER"),
        ("at=null", "at: must be a time such as 2026-01-31T12:00:00Z (RFC 3339)"),
        ("at=0000-01-01T00:00:00.00Z", "at: must be a time such as 2026-01-31T12:00:00Z (RFC 3339)"),
        ("span=null", "span: must be a duration in seconds such as 1.5s"),
        ("wrapped_number=x", "wrapped_number: must be a decimal integer"),
        ("wrapped_flag=x", "wrapped_flag: must be true or false"),
        ("small=1&small=1", "small: must be given once"),
        ("wrapped_text=a&wrapped_text=b", "wrapped_text: must be given once"),
        ("left=x&right=1", "only one of left, right may be given"),
        ("author=x", "author: cannot be given in the query"),
        ("author.unknown=x", "author.unknown: cannot be given in the query"),
        ("authors.name=x", "authors.name: cannot be given in the query"),
        ("counts=1", "counts: cannot be given in the query"),
        ("counts.a=1", "counts.a: cannot be given in the query"),
        ("anything=1", "anything: cannot be given in the query"),
        ("nested.nested.text=x", "nested.nested.text: cannot be given in the query"),
        ("text=%FF", "text: is not UTF-8"),
        ("%FF=1", "the query has a key that is not UTF-8"),
    ] {
        port.get(&format!("/v1/everything/7?{query}")).await.assert_refused(details);
    }
    for (path, details) in [
        ("/v1/everything/x", "number: must be a decimal integer"),
        ("/v1/everything/%2B1", "number: must be a decimal integer"),
        ("/v1/everything/9223372036854775808", "number: must be from -9223372036854775808 to 9223372036854775807"),
        ("/v1/books/%FF", "the path is not UTF-8"),
    ] {
        port.get(path).await.assert_refused(details);
    }
}

#[tokio::test]
async fn a_near_miss_of_a_key_is_refused_and_the_right_key_is_named() {
    let port = Port::open();
    for (key, name) in [
        ("pageSize", "page_size"),
        ("page-size", "page_size"),
        ("PAGE_SIZE", "page_size"),
        ("pagesize", "page_size"),
        ("page_size[]", "page_size"),
        ("page[size]", "page_size"),
        ("page_sizes", "page_size"),
        ("pag_size", "page_size"),
        ("pageToken", "page_token"),
        ("page.token", "page_token"),
        ("request.page_token", "page_token"),
        ("list_books_request.page_token", "page_token"),
        ("ListBooksRequest.pageToken", "page_token"),
        ("language", "languages"),
        ("Languages", "languages"),
        ("languages[]", "languages"),
        ("request.languages", "languages"),
    ] {
        let reply = port.get(&format!("/v1/shelves/1/books?{key}=1")).await;
        reply.assert_refused(&format!("{name}: write the query key \"{key}\" as {name}"));
    }
    for query in [
        "page=1",
        "size=1",
        "token=x",
        "per_page=5",
        "parent=x",
        "Parent=x",
        "filter[languages]=x",
        "utm_source=a",
        "lang=x",
    ] {
        assert_eq!(port.get(&format!("/v1/shelves/1/books?{query}")).await.status, 200, "{query}");
    }
    port.get("/v1/shelves/1/books?a=1;page_size=5")
        .await
        .assert_refused("page_size: must be separated by & from what stands before it in the query");
}

#[tokio::test]
async fn a_precondition_is_taken_from_its_header_and_refused_where_it_cannot_be_judged() {
    let port = Port::open();
    let delete = "/v1/shelves/1/books/2";
    for (query, headers, status) in [
        ("", &[][..], 200),
        ("", &[("If-Match", "\"other\"")], 412),
        ("?if_match=%22other%22", &[], 412),
        ("", &[("If-Match", "\"a\""), ("If-Match", "\"b\"")], 200),
        ("", &[("If-None-Match", "*")], 200),
        ("", &[("If-Match", "\"other\""), ("If-Unmodified-Since", "Sat, 31 Jan 2026 12:00:00 GMT")], 412),
    ] {
        let reply = port.ask_with("DELETE", &format!("{delete}{query}"), headers, "").await;
        assert_eq!(reply.status, status, "{query} {headers:?}: {reply:?}");
    }
    port.ask_with("DELETE", &format!("{delete}?if_match=x"), &[("If-Match", "x")], "")
        .await
        .assert_refused("if_match: must be given once, and the header If-Match has it too");
    port.ask_with("DELETE", &format!("{delete}?ifMatch=x"), &[], "")
        .await
        .assert_refused("if_match: write the query key \"ifMatch\" as if_match");
    port.ask_with("DELETE", delete, &[("If-Unmodified-Since", "Sat, 31 Jan 2026 12:00:00 GMT")], "")
        .await
        .assert_refused(
            "If-Unmodified-Since: cannot be evaluated, send the entity tag of the expected content in If-Match",
        );
    port.ask_with("POST", "/v1/shelves/1/books/2:publish", &[("If-Match", "*")], "")
        .await
        .assert_refused("If-Match: cannot be evaluated for this request, send it without");
    // What changes nothing may ignore it.
    assert_eq!(port.ask_with("GET", delete, &[("If-None-Match", "\"x\"")], "").await.status, 200);
}
