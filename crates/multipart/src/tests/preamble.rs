//! What is before the first delimiter: discarded, unless it shows that the first delimiter is damaged or missing.

use super::*;

/// The refusal of a body, the same however it is cut.
fn refusal(body: &[u8]) -> String {
    let whole = read(body).expect_err("no form");
    assert_eq!(whole.kind(), ErrorKind::Invalid, "{whole}");
    let text = whole.to_string();
    for size in [1, 2, 3, 5, 64] {
        let slow = read_with(Limits::default(), "b", cut(body, size)).expect_err("no form");
        assert_eq!(slow.to_string(), text, "frames of {size}");
    }
    text
}

#[test]
fn a_preamble_of_whole_lines_is_discarded() {
    for preamble in [
        "\r\n",
        "a preamble\r\n",
        "two\r\n\r\nlines\r\n",
        "--bX\r\n",
        "x --bX\r\n",
        "--b-\r\n",
        "\u{feff}\r\n",
        "--\r\n",
    ] {
        assert_eq!(data(format!("{preamble}{}", file("x"))), b"x", "{preamble:?}");
    }
}

#[test]
fn a_first_delimiter_that_is_not_at_the_beginning_of_a_line_is_refused() {
    for (before, what) in [
        (&b"\xef\xbb\xbf"[..], "a byte order mark"),
        (b"\xff\xfe", "a byte order mark"),
        (b"\n", "does not end in CRLF"),
        (b"\r", "does not end in CRLF"),
        (b"preamble\n", "does not end in CRLF"),
        (b"\r\n\n", "does not end in CRLF"),
        (b" ", "white space"),
        (b"\t \t", "white space"),
        (b"\r\n ", "white space"),
        (b"x", "other bytes"),
        (b"-", "other bytes"),
        (b"\0", "other bytes"),
        (b"\xef\xbb\xbf ", "white space"),
    ] {
        for form in [file("x"), file("y").replace("--b--\r\n", &file("z")), FILE.to_owned(), "--b--\r\n".to_owned()] {
            let text = refusal(&[before, form.as_bytes()].concat());
            assert!(text.contains(what) && text.contains("delimiter line"), "{before:?}: {text}");
        }
    }
    // However much follows.
    let text = refusal(&[b"\xef\xbb\xbf", file(&"x".repeat(100_000)).as_bytes()].concat());
    assert!(text.contains("a byte order mark"), "{text}");
}

#[test]
fn a_body_without_any_delimiter_is_refused_as_what_it_is() {
    for (body, what) in [
        ("", "the body is empty; a form begins with the line \"--b\""),
        ("x", "no delimiter line found in the body; a form begins with the line \"--b\""),
        ("{\"file\": 1}", "no delimiter line found in the body;"),
        ("ends in a CR\r", "no delimiter line found in the body;"),
        ("ends in dashes\r\n--", "no delimiter line found in the body;"),
        ("b\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--b--\r\n", "before the closing one"),
        ("preamble\r\n--b--\r\n", "before the closing one"),
        ("--other\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--other--\r\n", "begins with \"--other\""),
        ("--bb\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--bb--\r\n", "begins with \"--bb\""),
        ("--B\r\n\r\nx\r\n--B--\r\n", "begins with \"--B\""),
        ("--other\n\nx\n--other--\n", "begins with \"--other\""),
    ] {
        let text = refusal(body.as_bytes());
        assert!(text.contains(what), "{body:?}: {text}");
        assert!(!text.contains("ends before"), "{text}");
    }
    let text = refusal(&b"x".repeat(100_000));
    assert!(text.contains("no delimiter line found in the first 1024 bytes of the body"), "{text}");
    let text = refusal(&[&b"--other\r\n"[..], &b"x".repeat(100_000)].concat());
    assert!(text.contains("begins with \"--other\""), "{text}");
}

#[test]
fn a_body_that_ends_within_its_first_delimiter_is_cut_short() {
    for body in ["--b", "--b\r", "--b ", "preamble\r\n--b", "\r\n--b"] {
        for size in [1, 100] {
            let result = read_with(Limits::default(), "b", cut(body.as_bytes(), size));
            assert_eq!(kind(result), Some(ErrorKind::Incomplete), "{body:?}");
        }
    }
}

#[test]
fn what_is_kept_of_a_preamble_is_bounded() {
    let limits = Limits { preamble_bytes: 1 << 20, ..Limits::default() };
    let mut parser = Parser::new(&boundary("b"), limits);
    parser.push(Bytes::from(vec![b'x'; 2 << 20]));
    assert!(parser.next().is_err());
    let text = parser.preamble.refusal(b"--b", "").to_string();
    assert!(text.len() < 200, "{text}");
}
