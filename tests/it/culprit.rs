//! A form that is refused says what is wrong with it and what to do: each mistake has its own text, and only a body that was
//! cut short is said to be.

use crate::harness::{Ask, BOUNDARY, Form, Server, noise};

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"";

fn of(form: &Form) -> Ask {
    Ask::upload(1, 2, form)
}

fn honest_form() -> Ask {
    of(&Form::file(b"content"))
}

/// Looks that a body is refused with a text that has all of these in it, however it is framed, and that the stored file is as
/// it was.
fn assert_blames(server: &Server, ask: &Ask, words: &[&str]) {
    for ask in [ask.clone(), ask.clone().chunked(1000), ask.clone().chunked(1 << 16)] {
        let reply = server.connect().ask(&ask);
        reply.assert_refusal(400, "Validation error");
        for word in words {
            assert!(reply.details().contains(word), "{word}: {}", reply.details());
        }
        if !words.contains(&"ends before") {
            assert!(!reply.details().contains("ends before") && !reply.details().contains("cut short"), "{reply:?}");
        }
    }
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

fn filled() -> Server {
    let server = Server::start();
    assert_eq!(server.connect().ask(&honest_form()).status, 201);
    server
}

#[test]
fn a_browser_form_in_which_no_file_was_chosen_replaces_nothing() {
    let server = filled();
    for head in [
        "Content-Disposition: form-data; name=\"file\"; filename=\"\"\r\nContent-Type: application/octet-stream",
        "Content-Disposition: form-data; name=\"file\"; filename=\"\"",
        "Content-Disposition: form-data; name=\"file\"; filename=\"\"\r\nContent-Type: text/plain",
        "Content-Disposition: form-data; filename=\"\"; name=file; filename*=UTF-8''",
    ] {
        let form = Form::default().part(head, b"");
        assert_blames(&server, &of(&form), &["file: no file was chosen"]);
        let bytes = form.bytes();
        assert_blames(&server, &of(&form).body(&bytes[..bytes.len() - 2]), &["file: no file was chosen"]);
        let other = Form::default().part(head, b"").part("Content-Disposition: form-data; name=\"note\"", b"x");
        assert_blames(&server, &of(&other), &["file: no file was chosen"]);
    }
}

#[test]
fn an_empty_file_with_a_name_and_a_nameless_one_with_bytes_are_stored() {
    let server = filled();
    let named = |parameters: &str| format!("Content-Disposition: form-data; name=\"file\"{parameters}");
    for (head, content) in [
        (named("; filename=\"empty.txt\""), &b""[..]),
        (named("; filename=\"\"; filename*=UTF-8''empty.txt"), b""),
        (named("; filename=\"..\""), b""),
        // No browser says so of a file that was not chosen, and a form may leave the name out.
        (named(""), b""),
        (named("; filename=\"\""), b"x"),
        (named(""), b"x"),
    ] {
        let reply = server.connect().ask(&of(&Form::default().part(&head, content)));
        assert_eq!(reply.status, 201, "{head}: {reply:?}");
        assert_eq!(server.stored(1, 2).unwrap(), content, "{head}");
    }
}

#[test]
fn a_part_of_another_name_is_named_and_so_is_the_one_that_was_expected() {
    let server = filled();
    for name in ["upload", "FILE", "file[]", "files", "file ", "", "a \u{1f4ce}"] {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"; filename=\"a.bin\"");
        for content in [&b"small"[..], &noise(100_000, 3)] {
            let form = Form::default().part(&head, content);
            assert_blames(&server, &of(&form), &[&format!("\"{name}\""), "file"]);
        }
        let too_much = Form::file(b"new").part(&head, &noise(100_000, 3));
        assert_blames(&server, &of(&too_much), &[&format!("the part \"{name}\""), "65536 bytes", "named \"file\""]);
    }
    let long = format!("Content-Disposition: form-data; name=\"{}\"", "n".repeat(7000));
    let reply = server.connect().ask(&of(&Form::default().part(&long, b"x")));
    assert!(reply.details().len() < 300, "{reply:?}");
    let both = Form::default()
        .part("Content-Disposition: form-data; name=\"upload\"", b"x")
        .part("Content-Disposition: form-data; name=\"note\"", b"y");
    assert_blames(&server, &of(&both), &["file: the form has no part of this name; it has \"upload\", \"note\""]);
}

#[test]
fn parts_are_skipped_up_to_64_kib_in_all_and_not_a_byte_more() {
    let server = Server::start();
    let head = "Content-Disposition: form-data; name=\"other\"";
    // The delimiter with its line end, the headers, the blank line.
    let overhead = BOUNDARY.len() + 6 + head.len() + 4;
    for (length, status) in [(65535, 201), (65536, 201), (65537, 400)] {
        let form = Form::default().part(head, &noise(length - overhead, 4)).part(FILE, b"content");
        let reply = server.connect().ask(&of(&form));
        assert_eq!(reply.status, status, "{length}: {reply:?}");
    }
}

#[test]
fn what_is_before_the_first_delimiter_is_named() {
    let server = filled();
    let one = String::from_utf8(Form::file(b"new").bytes()).unwrap();
    let two = String::from_utf8(Form::file(b"new").part(FILE, b"second").bytes()).unwrap();
    let large = [b"\xef\xbb\xbf".to_vec(), Form::file(&noise(200_000, 5)).bytes()].concat();
    assert_blames(&server, &honest_form().body(&large), &["a byte order mark precedes the first delimiter line"]);
    for form in [&one, &two] {
        for (before, words) in [
            ("\u{feff}", "a byte order mark precedes the first delimiter line"),
            ("\n", "the line before the first delimiter line does not end in CRLF"),
            ("preamble\n", "the line before the first delimiter line does not end in CRLF"),
            (" ", "white space precedes the boundary in the first delimiter line"),
            ("\t\t", "white space precedes the boundary in the first delimiter line"),
            ("x", "other bytes precede the boundary in the first delimiter line"),
            ("-", "other bytes precede the boundary in the first delimiter line"),
        ] {
            assert_blames(&server, &honest_form().body(format!("{before}{form}").as_bytes()), &[words]);
        }
    }
}

#[test]
fn a_body_that_is_no_such_form_is_named_for_what_it_is() {
    let server = filled();
    let honest = String::from_utf8(Form::file(b"new").bytes()).unwrap();
    let opening = format!("\"--{BOUNDARY}\"");
    for (body, words) in [
        (String::new(), &["the body is empty", &opening][..]),
        ("raw content".to_owned(), &["no delimiter line found", &opening]),
        ("{\"file\": \"content\"}".to_owned(), &["no delimiter line found", &opening]),
        ("x".repeat(100_000), &["no delimiter line found in the first 1024 bytes", &opening]),
        (honest.replace("\r\n", "\n"), &["ends in LF; lines must end in CRLF"]),
        (format!("preamble\n{}", honest.replace("\r\n", "\n")), &["lines must end in CRLF"]),
        (honest.replace(BOUNDARY, "another"), &["begins with \"--another\"", &opening]),
        (honest.replace(BOUNDARY, &format!("{BOUNDARY}-2")), &["begins with", "-2\"", &opening]),
        (honest.replace(BOUNDARY, "another").replace("\r\n", "\n"), &["begins with \"--another\"", &opening]),
        (honest.replacen(&format!("--{BOUNDARY}"), BOUNDARY, 1), &["no delimiter line found before the closing one"]),
        (format!("--{BOUNDARY}--\r\n"), &["file: the form has no part of this name"]),
        (honest.replace("\r\n\r\n", "\r\n"), &["a header line of a part has no colon"]),
    ] {
        assert_blames(&server, &honest_form().body(body.as_bytes()), words);
    }
}

#[test]
fn a_body_that_was_cut_short_is_said_to_be() {
    let server = filled();
    let honest = Form::file(b"new").bytes();
    let closing = honest.len() - "--\r\n".len();
    for end in [closing + 1, closing, closing - 1, closing - BOUNDARY.len(), 100, 60, BOUNDARY.len() + 2, 10, 3] {
        let words = &["the body ends before the closing delimiter line", "ends before"];
        assert_blames(&server, &honest_form().body(&honest[..end]), words);
    }
}

#[test]
fn a_whole_body_whose_closing_delimiter_does_not_follow_crlf_is_not_cut_short() {
    let server = filled();
    let head = format!("--{BOUNDARY}\r\n{FILE}\r\n\r\n");
    for before in ["new\n", "new\r", "new", "new\r\n\n", "\n"] {
        for end in ["", "\n", "\r\n", " \r\n"] {
            let body = format!("{head}{before}--{BOUNDARY}--{end}");
            let words = &["CRLF does not precede the closing delimiter line"];
            assert_blames(&server, &honest_form().body(body.as_bytes()), words);
            let ask = honest_form().body(body.as_bytes()).chunked(1);
            assert!(server.connect().ask(&ask).details().contains(words[0]), "{body:?}");
        }
    }
}

#[test]
fn a_folded_header_and_a_nameless_part_are_named() {
    let server = filled();
    for head in [
        "Content-Disposition: form-data;\r\n name=\"file\"; filename=\"a\"",
        "Content-Disposition: form-data; name=\"file\";\r\n\tfilename=\"a\"",
        "Content-Disposition:\r\n form-data; name=\"file\"",
        "Content-Disposition: form-data; name=\"file\"\r\nX-Long: a\r\n b",
    ] {
        assert_blames(&server, &of(&Form::default().part(head, b"new")), &["folding is not supported"]);
    }
    for head in ["Content-Disposition: form-data", "Content-Disposition: form-data; filename=\"a\"", "X-Other: y"] {
        let after = Form::file(b"new").part(head, b"x");
        assert_blames(&server, &of(&after), &["part 2 of the form has no"]);
        let before = Form::default().part(head, b"x").part(FILE, b"new");
        assert_blames(&server, &of(&before), &["part 1 of the form has no"]);
    }
}

#[test]
fn the_headers_of_a_part_take_8_kib_at_most() {
    let server = Server::start();
    let fixed = FILE.len() + "\r\nX-Long: ".len() + "\r\n\r\n".len();
    for (length, status) in [(8191, 201), (8192, 201), (8193, 400), (9 << 10, 400)] {
        let head = format!("{FILE}\r\nX-Long: {}", "x".repeat(length - fixed));
        let ask = of(&Form::default().part(&head, b"content"));
        for ask in [ask.clone(), ask.chunked(100)] {
            let reply = server.connect().ask(&ask);
            assert_eq!(reply.status, status, "{length}: {reply:?}");
            assert!(status == 201 || reply.details().contains("more than 8192 bytes"), "{reply:?}");
        }
    }
}

#[test]
fn a_form_field_that_is_meant_for_the_query_is_refused_and_not_ignored() {
    let server = filled();
    for (name, id) in [
        ("project_id", "project_id"),
        ("portfolio_id", "portfolio_id"),
        ("projectId", "project_id"),
        ("project-id", "project_id"),
        ("Project_id", "project_id"),
        ("projectid", "project_id"),
        ("project_ids", "project_id"),
        ("header.project_id", "project_id"),
        ("project_id[]", "project_id"),
        ("portfolioId", "portfolio_id"),
        ("portfolio_id[0]", "portfolio_id"),
    ] {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"");
        let words = [format!("the form field \"{name}\""), format!("{id} must be in the query")];
        let words = &[words[0].as_str(), words[1].as_str()];
        assert_blames(&server, &of(&Form::file(b"new").part(&head, b"5")), words);
        assert_blames(&server, &of(&Form::default().part(&head, b"5").part(FILE, b"new")), words);
    }
    for name in ["project_name", "description", "id"] {
        let head = format!("Content-Disposition: form-data; name=\"{name}\"");
        let reply = server.connect().ask(&of(&Form::file(b"content").part(&head, b"5")));
        assert_eq!(reply.status, 201, "{name}: {reply:?}");
    }
}
