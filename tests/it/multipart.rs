//! Forms as no browser sends them: each is refused and stores nothing, or is stored for what it says.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Ask, BOUNDARY, Form, Server, noise, record_path, sha256};

const INVALID: &str = "Validation error";
const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"";
const OTHER: &str = "Content-Disposition: form-data; name=\"other\"";

fn of(form: &Form) -> Ask {
    Ask::upload(1, 2, form)
}

fn honest_form() -> Ask {
    of(&Form::file(b"content"))
}

/// Looks that a body is refused whether or not it says how long it is, and however it is cut.
fn assert_refused(server: &Server, ask: &Ask) {
    server.assert_refused(ask, 400, INVALID);
    server.assert_refused(&ask.clone().chunked(1000), 400, INVALID);
}

/// Looks that a form is stored as `content`, whether or not it says how long it is.
fn assert_stored(server: &Server, ask: &Ask, content: &[u8]) {
    for ask in [ask.clone(), ask.clone().chunked(7)] {
        let reply = server.connect().ask(&ask);
        assert_eq!(reply.status, 201, "{reply:?}");
        assert_eq!(server.stored(1, 2).unwrap(), content);
        std::fs::remove_dir_all(server.root().join("clients/1")).unwrap();
    }
}

#[test]
fn a_content_type_that_is_no_form_is_refused() {
    let server = Server::start();
    assert_refused(&server, &honest_form().without("Content-Type"));
    let boundary = format!("boundary={BOUNDARY}");
    for value in [
        "",
        "application/json",
        "application/x-www-form-urlencoded",
        "text/plain",
        &format!("multipart/mixed; {boundary}"),
        &format!("multipart/form-data-x; {boundary}"),
        &format!("application/json; {boundary}"),
        "multipart/form-data",
        "multipart/form-data;",
        &format!("multipart/form-data, {boundary}"),
    ] {
        assert_refused(&server, &honest_form().with("Content-Type", value));
    }
    let twice = honest_form().and("Content-Type", &format!("multipart/form-data; {boundary}"));
    assert_refused(&server, &twice);
}

#[test]
fn a_boundary_that_rfc_2046_does_not_permit_is_refused() {
    let server = Server::start();
    for boundary in [
        "boundary=",
        "boundary=\"\"",
        "boundary",
        &format!("boundary={}", "b".repeat(71)),
        &format!("boundary={}", "b".repeat(8 << 10)),
        "boundary=\"a\\\r\nb\"",
        "boundary=a%0d%0ab",
        "boundary=\"a@b\"",
        "boundary=\"ends in a space \"",
        "boundary=\"without an end",
        &format!("boundary={BOUNDARY}; boundary={BOUNDARY}"),
        &format!("boundary={BOUNDARY}; boundary=another"),
        &format!("boundary=another; Boundary={BOUNDARY}"),
    ] {
        let ask = honest_form().with("Content-Type", &format!("multipart/form-data; {boundary}"));
        if boundary.contains('\r') {
            // The line break ends the header, and what follows is no other one.
            let mut connection = server.connect();
            let _ = connection.send(&ask.bytes());
            assert_eq!(connection.reply().map(|reply| reply.status), Some(400));
            assert!(server.objects().is_empty());
        } else {
            assert_refused(&server, &ask);
        }
    }
}

#[test]
fn a_boundary_of_any_other_spelling_is_the_same_one() {
    let server = Server::start();
    for content_type in [
        format!("multipart/form-data; boundary=\"{BOUNDARY}\""),
        format!("Multipart/Form-Data;BOUNDARY={BOUNDARY}"),
        format!("multipart/form-data; charset=utf-8; boundary={BOUNDARY}; x=\"; boundary=y\""),
    ] {
        assert_stored(&server, &honest_form().with("Content-Type", &content_type), b"content");
    }
    for boundary in ["b", &"b".repeat(70), "a b'()+_,-./:=?c"] {
        let body = format!("--{boundary}\r\n{FILE}\r\n\r\ncontent\r\n--{boundary}--\r\n");
        let ask = honest_form().with("Content-Type", &format!("multipart/form-data; boundary=\"{boundary}\""));
        assert_stored(&server, &ask.body(body.as_bytes()), b"content");
    }
}

#[test]
fn there_is_one_part_of_the_name_file() {
    let server = Server::start();
    let named = |name: &str| format!("Content-Disposition: form-data; name={name}");
    for form in [
        Form::default(),
        Form::default().part(OTHER, b"content"),
        Form::default().part(&named("FILE"), b"content"),
        Form::default().part(&named("File"), b"content"),
        Form::default().part(&named("\"file \""), b"content"),
        Form::default().part(&named("\"file[]\""), b"content"),
        Form::default().part(&named("\"\""), b"content"),
        Form::default().part("Content-Disposition: form-data", b"content"),
        Form::default().part("Content-Disposition: form-data; filename=\"file\"", b"content"),
        Form::default().part("Content-Disposition: attachment; name=\"file\"", b"content"),
        Form::default().part("Content-Type: text/plain", b"content"),
        Form::file(b"first").part(FILE, b"second"),
        Form::file(b"first").part(OTHER, b"other").part(FILE, b"second"),
        Form::file(&noise(2 << 20, 30)).part(FILE, b""),
    ] {
        assert_refused(&server, &of(&form));
    }
    for form in [
        Form::default().part(&named("file"), b"content"),
        Form::default().part(&named("\"file\""), b"content"),
        Form::default().part(OTHER, b"before").part(FILE, b"content").part(OTHER, b"after"),
    ] {
        assert_stored(&server, &of(&form), b"content");
    }
}

#[test]
fn what_is_no_form_at_all_is_refused() {
    let server = Server::start();
    let honest = String::from_utf8(Form::file(b"content").bytes()).unwrap();
    for body in [
        String::new(),
        "content".to_owned(),
        "{\"file\":\"content\"}".to_owned(),
        format!("--{BOUNDARY}--\r\n"),
        format!("--{BOUNDARY}"),
        honest.replace("\r\n", "\n"),
        honest.replace("\r\n\r\n", "\r\n"),
        honest.replace(BOUNDARY, "another"),
        honest.replacen(&format!("--{BOUNDARY}"), BOUNDARY, 1),
    ] {
        assert_refused(&server, &honest_form().body(body.as_bytes()));
    }
}

#[test]
fn a_little_may_stand_before_the_first_boundary_and_not_a_lot() {
    let server = Server::start();
    let honest = Form::file(b"content").bytes();
    let after = |preamble: &[u8]| honest_form().body(&[preamble, b"\r\n", &honest].concat());
    assert_stored(&server, &after(b"This is a message in MIME format."), b"content");
    for length in [2 << 10, 5 << 20] {
        assert_refused(&server, &after(&vec![b'x'; length]));
        assert_refused(&server, &after(&b"\r\n--".repeat(length / 4)));
    }
}

#[test]
fn the_headers_of_a_part_are_bounded_and_strict() {
    let server = Server::start();
    let part = |head: &str| of(&Form::default().part(head, b"content"));
    let many = |count: usize| "X-Header: x\r\n".repeat(count) + FILE;
    assert_stored(&server, &part(&many(20)), b"content");
    for head in [
        many(1000),
        format!("{FILE}\r\nX-Long: {}", "x".repeat(1 << 20)),
        format!("{FILE}\r\n folded: x"),
        format!("{FILE};\r\n name=\"other\""),
        format!("{FILE}\r\nno colon"),
        format!("{FILE}\r\n: no name"),
        format!("{FILE}\r\nX Space: x"),
        format!("{FILE}\nX-Bare: x"),
        format!("{FILE}\r\nX-Nul: \0"),
        format!("{FILE}\r\n{FILE}"),
        format!("{FILE}\r\n{OTHER}"),
        format!("{FILE}\r\nContent-Type: text/plain\r\nContent-Type: text/html"),
        "Content-Disposition: form-data; name=\"file\"; name=\"file\"".to_owned(),
        "Content-Disposition: form-data; name=\"file\"; filename=\"a\"; filename=\"b\"".to_owned(),
        "Content-Disposition: form-data; name=\"file".to_owned(),
        "Content-Disposition: form-data; name=\"file\" x".to_owned(),
    ] {
        assert_refused(&server, &part(&head));
    }
    // A head that never ends.
    let endless = format!("--{BOUNDARY}\r\n{FILE}\r\n{}", "X-Header: x\r\n".repeat(100_000));
    assert_refused(&server, &honest_form().body(endless.as_bytes()));
    let endless = format!("--{BOUNDARY}\r\n{}", "x".repeat(2 << 20));
    assert_refused(&server, &honest_form().body(endless.as_bytes()));
}

#[test]
fn many_parts_and_large_parts_beside_the_file_are_refused() {
    let server = Server::start();
    let empty = format!("--{BOUNDARY}\r\n{OTHER}\r\n\r\n\r\n").repeat(100_000);
    assert_refused(&server, &honest_form().body(empty.as_bytes()));
    // Behind the file, where all of its content has arrived already.
    let behind = [&Form::file(b"content").bytes()[..], b"\r\n"].concat();
    let behind = String::from_utf8(behind).unwrap().replace(&format!("{BOUNDARY}--"), BOUNDARY);
    let behind = format!("{}\r\n{empty}--{BOUNDARY}--\r\n", &behind[..behind.rfind("\r\n--").unwrap()]);
    assert_refused(&server, &honest_form().body(behind.as_bytes()));
    let large = noise(4 << 20, 31);
    assert_refused(&server, &of(&Form::default().part(OTHER, &large).part(FILE, b"content")));
    assert_refused(&server, &of(&Form::file(b"content").part(OTHER, &large)));
    // Nor can an epilogue be of any size.
    let epilogue = [Form::file(b"content").bytes(), large].concat();
    assert_refused(&server, &honest_form().body(&epilogue));
}

#[test]
fn quotes_in_a_disposition_hide_what_is_between_them() {
    let server = Server::start();
    let refused = "Content-Disposition: form-data; filename=\"a; name=file ;\"; name=\"x\"";
    assert_refused(&server, &of(&Form::default().part(refused, b"content")));
    let stored = "Content-Disposition: form-data; filename=\"a; name=x ;\"; name=\"file\"";
    assert_stored(&server, &of(&Form::default().part(stored, b"content")), b"content");
    let escaped = "Content-Disposition: form-data; filename=\"a\\\"; name=\\\"x\"; name=\"file\"";
    assert_stored(&server, &of(&Form::default().part(escaped, b"content")), b"content");
}

#[test]
fn a_part_that_is_encoded_is_refused_and_never_decoded() {
    let server = Server::start();
    for encoding in ["base64", "BASE64", "quoted-printable", "x-gzip"] {
        let head = format!("{FILE}\r\nContent-Transfer-Encoding: {encoding}");
        assert_refused(&server, &of(&Form::default().part(&head, b"Y29udGVudA==")));
    }
    for encoding in ["binary", "8bit", "7bit"] {
        let head = format!("{FILE}\r\nContent-Transfer-Encoding: {encoding}");
        assert_stored(&server, &of(&Form::default().part(&head, b"Y29udGVudA==")), b"Y29udGVudA==");
    }
}

#[test]
fn a_file_name_is_kept_without_its_path_and_never_becomes_one() {
    let server = Server::start();
    let named = |parameters: &[u8]| {
        let head = [b"Content-Disposition: form-data; name=\"file\"; ", parameters].concat();
        let start = format!("--{BOUNDARY}\r\n").into_bytes();
        let rest = format!("\r\n\r\ncontent\r\n--{BOUNDARY}--\r\n").into_bytes();
        honest_form().body(&[start, head, rest].concat())
    };
    for (parameters, kept) in [
        ("filename=\"a.txt\"", "a.txt"),
        ("filename=a.txt", "a.txt"),
        ("filename=\"../../x\"", "x"),
        ("filename=\"/etc/passwd\"", "passwd"),
        ("filename=\"C:\\x\"", "x"),
        ("filename=\"C:\\dir\\x.doc\"", "x.doc"),
        ("filename=\"..\"", ""),
        ("filename=\"\"", ""),
        ("x=y", ""),
        ("filename=\"a%2f..%2fb\"", "a%2f..%2fb"),
        ("filename=\"\u{1f4ce} r\u{e9}sum\u{e9}.pdf\"", "\u{1f4ce} r\u{e9}sum\u{e9}.pdf"),
        ("filename=\"a\u{202e}fdp.exe\"", "a\u{202e}fdp.exe"),
        ("filename=\"<script>.html\"", "<script>.html"),
        ("filename*=UTF-8''%e2%82%ac.txt", "\u{20ac}.txt"),
        ("filename*=UTF-8''..%2f..%2fx", "x"),
        ("filename=\"a/\"", "a"),
        ("filename=\"%22a%22\"", "\"a\""),
        // If both are given it is the extended one, in whatever order, unless it is invalid.
        ("filename=\"plain\"; filename*=UTF-8''extended", "extended"),
        ("filename*=UTF-8''extended; filename=\"plain\"", "extended"),
        ("filename*=UTF-8''%ff; filename=\"plain\"", "plain"),
        ("filename*=\"UTF-8''quoted\"; filename=\"plain\"", "plain"),
        ("filename*=UTF-8''%e; filename=\"plain\"", "plain"),
        ("filename*=none; filename=\"plain\"", "plain"),
        ("filename*=ISO-8859-1''%e9; filename=\"plain\"", "plain"),
        // No name is lost without a word.
        ("filename*=UTF-8''%00", "UTF-8''%00"),
        ("filename*=UTF-8''%0d%0a", "UTF-8''%0d%0a"),
        ("filename*=UTF-8''%ff", "UTF-8''%ff"),
        ("filename*=ISO-8859-1''%e9", "\u{e9}"),
        ("filename*=plain", "plain"),
        ("filename*=\"UTF-8''x\"", "x"),
        ("filename*=UTF-8''%e", "UTF-8''%e"),
        ("filename*0*=UTF-8''%e2%82; filename*1*=%ac; filename*2=\".txt\"", "\u{20ac}.txt"),
        ("filename=\"=?utf-8?B?4oKsLnR4dA==?=\"", "=?utf-8?B?4oKsLnR4dA==?="),
        (&format!("filename=\"{}\"", "n".repeat(255)), &"n".repeat(255)),
    ] {
        let reply = server.connect().ask(&named(parameters.as_bytes()));
        assert_eq!(reply.status, 201, "{parameters}: {reply:?}");
        assert_eq!(server.content(1, 2)["filename"], kept, "{parameters}");
        // The name is in the record alone: no file of the storage has it.
        assert_eq!(server.objects(), [record_path(server.root(), 1, 2)]);
        std::fs::remove_dir_all(server.root().join("clients/1")).unwrap();
    }
    let long = format!("filename=\"{}\"", "n".repeat(256));
    let longer = format!("filename=\"{}\"", "n".repeat(64 << 10));
    for parameters in [
        &b"filename=\"a\0b\""[..],
        b"filename=\"a\rb\"",
        b"filename=\"a\nb\"",
        b"filename=\"a\r\nb\"",
        b"filename=\"a\x7fb\"",
        b"filename=\"a\xc2\x85b\"",
        b"filename=\"a\xff\"",
        b"filename=\"\xe9t\xe9\"",
        b"filename=\"a \"b\" c\"",
        b"filename=a b",
        long.as_bytes(),
        longer.as_bytes(),
    ] {
        assert_refused(&server, &named(parameters));
    }
}

#[test]
fn the_type_of_the_part_is_recorded_and_malformed_ones_are_refused() {
    let server = Server::start();
    let typed = |value: &str| of(&Form::default().part(&format!("{FILE}\r\nContent-Type: {value}"), b"<script>"));
    for (value, kept) in [
        ("text/html; charset=utf-8", "text/html; charset=utf-8"),
        ("image/svg+xml", "image/svg+xml"),
        ("", "application/octet-stream"),
    ] {
        assert_eq!(server.connect().ask(&typed(value)).status, 201);
        assert_eq!(server.content(1, 2)["content_type"], kept);
        std::fs::remove_dir_all(server.root().join("clients/1")).unwrap();
    }
    for value in ["text", "text/pla\u{ef}n", "text/\x01plain", &format!("text/{}", "x".repeat(255))] {
        assert_refused(&server, &typed(value));
    }
}

#[test]
fn a_declared_digest_must_hold() {
    let server = Server::start();
    let bytes = noise(100_000, 32);
    let ask = |digest: &str| of(&Form::file(&bytes)).with("Repr-Digest", digest);
    let right = format!("sha-256=:{}:", STANDARD.encode(sha256(&bytes)));
    let wrong = format!("sha-256=:{}:", STANDARD.encode(sha256(b"other")));
    let md5 = "md5=:1B2M2Y8AsgTpgAmY7PhCfg==:";
    for digest in [right.clone(), format!("{md5}, {right}"), format!("{right},\t{md5}")] {
        assert_stored(&server, &ask(&digest), &bytes);
    }
    assert_stored(&server, &ask(md5).and("Repr-Digest", &right), &bytes);
    for digest in [
        wrong.clone(),
        format!("{md5}, {wrong}"),
        // A check that is asked for and that nobody can make is refused, not passed over.
        md5.to_owned(),
        "sha-512=:AAAA:".to_owned(),
        String::new(),
        "sha-256".to_owned(),
        "sha-256=".to_owned(),
        "sha-256=::".to_owned(),
        "sha-256=:AAAA:".to_owned(),
        "sha-256=:not base64:".to_owned(),
        right.replace(':', ""),
        right.replace(":", "\""),
        right.trim_end_matches(':').to_owned(),
        right.replace("sha-256", "SHA-256"),
        format!("{right}, {wrong}"),
        format!("{right},"),
    ] {
        assert_refused(&server, &ask(&digest));
    }
    assert_refused(&server, &ask(&right).and("Repr-Digest", &wrong));
}
