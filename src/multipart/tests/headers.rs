//! The headers of a part.

use super::*;

#[test]
fn a_header_line_is_strict() {
    let good = "Content-Disposition: form-data; name=file";
    assert!(head(good).is_ok());
    assert!(head(&format!("X-Other:\t\u{e9}\r\n{good}")).is_ok());
    for bad in [
        "X: a\rb",
        "X: a\nb",
        "X: a\0b",
        "X: a\u{7f}b",
        "X: a\r\n folded",
        "X: a\r\n\tfolded",
        " X: a",
        "X",
        "X : a",
        ": a",
        "X\u{e9}: a",
        "X(: a",
        "--b--",
    ] {
        assert!(refused(head(&format!("{bad}\r\n{good}"))), "{bad:?} before");
        assert!(refused(head(&format!("{good}\r\n{bad}"))), "{bad:?} after");
    }
    assert!(refused(read("--b\r\nContent-Disposition: form-data; name=file\n\nx\r\n--b--")));
}

#[test]
fn a_part_has_exactly_one_disposition_and_it_is_form_data() {
    for bad in [
        "X: y",
        "Content-Disposition:",
        "Content-Disposition: attachment; name=file",
        "Content-Disposition: form-data; name=a\r\ncontent-disposition: form-data; name=a",
    ] {
        assert!(refused(head(bad)), "{bad}");
    }
    assert!(refused(read("--b\r\n\r\nx\r\n--b--")), "no headers at all");
    assert_eq!(head("CONTENT-DISPOSITION: Form-Data; NAME=a").expect("any case").name, "a");
}

#[test]
fn a_part_has_exactly_one_name_and_at_most_one_filename() {
    for bad in [
        "",
        ";",
        "; filename=x",
        "; name=a; name=a",
        "; name=a; NAME=b",
        "; name=a; filename=b; filename=b",
        "; name=a; filename*=UTF-8''b; filename*=UTF-8''b",
        "; name",
        "; name=",
        "; name =a",
        "; name= a",
        "; name=a b",
        "; name=\"a",
        "; name=\"a\"b",
        "; name=a\"b\"",
        "; name=a=b",
        "; name=a, filename=b",
        " name=a",
        "; =a",
        "; name=\u{e9}",
    ] {
        assert!(refused(named(bad)), "{bad}");
    }
    assert_eq!(named(" ;\tname=\"\" ;; x=y;").expect("an empty name").0, "");
}

#[test]
fn quotes_protect_semicolons_and_names() {
    let (name, filename) = named("; filename=\"a; name=file ;\"; name=\"x\"").expect("a valid disposition");
    assert_eq!((name.as_str(), filename.as_deref()), ("x", Some("a; name=file ;")));
}

#[test]
fn a_backslash_escapes_a_quote_and_itself_and_is_otherwise_itself() {
    for (sent, meant) in [(r"C:\x", r"C:\x"), (r#"a\"b"#, "a\"b"), (r"a\\b", r"a\b"), (r#"\\\"\n"#, r#"\"\n"#)] {
        assert_eq!(filename(&format!("; filename=\"{sent}\"")).as_deref(), Some(meant));
    }
    assert!(refused(named(r#"; name=x; filename="C:\""#)), "the closing quote is escaped");
}

#[test]
fn a_filename_is_kept_as_it_is_and_is_utf_8_without_control_characters() {
    for text in ["", "../../x", "a%22b", "\u{202e}gpj.exe", "\u{1f600}", "na\u{ef}ve", "it's"] {
        assert_eq!(filename(&format!("; filename=\"{text}\"")).as_deref(), Some(text));
    }
    assert_eq!(filename("; filename=a.txt").as_deref(), Some("a.txt"));
    assert_eq!(filename(""), None);
    for bad in ["a\0b", "a\tb", "a\u{7f}b", "a\u{85}b"] {
        assert!(refused(named(&format!("; name=file; filename=\"{bad}\""))), "{bad:?}");
        assert!(refused(named(&format!("; name=\"{bad}\""))), "{bad:?}");
    }
    assert!(refused(head(b"Content-Disposition: form-data; name=file; filename=\"\xe9\"")));
    assert!(refused(head(b"Content-Disposition: form-data; name=\"\xe9\"")));
    let long = "x".repeat(64 << 10);
    assert!(refused(named(&format!("; name=file; filename=\"{long}\""))));
}

#[test]
fn an_extended_filename_counts_only_where_no_plain_one_is_given() {
    for (params, meant) in [
        ("; filename*=UTF-8''na%C3%afve", "na\u{ef}ve"),
        ("; filename*=utf-8'en-GB'a.b", "a.b"),
        ("; filename=plain; filename*=UTF-8''extended", "plain"),
        ("; filename*=UTF-8''extended; filename=plain", "plain"),
    ] {
        assert_eq!(filename(params).as_deref(), Some(meant), "{params}");
    }
    for bad in [
        "a",
        "UTF-8'a",
        "''a",
        "ISO-8859-1''a",
        "UTF-8'e n'a",
        "UTF-8'_'a",
        "UTF-8''%",
        "UTF-8''%4",
        "UTF-8''%4g",
        "UTF-8''%+4",
        "UTF-8''%ff",
        "UTF-8''%00",
        "UTF-8''%0a",
        "UTF-8''a'b",
        "UTF-8''a*",
        "\"UTF-8''a\"",
        "UTF-8''\u{e9}",
    ] {
        assert!(refused(named(&format!("; name=file; filename*={bad}"))), "{bad}");
        assert!(refused(named(&format!("; name=file; filename=a; filename*={bad}"))), "{bad} beside a plain one");
    }
    assert_eq!(filename("; filename*=UTF-8''").as_deref(), Some(""));
}

#[test]
fn a_content_type_is_returned_as_text_and_given_at_most_once() {
    let good = "Content-Disposition: form-data; name=file";
    let of = |line: &str| head(&format!("{good}\r\n{line}")).map(|head| head.content_type);
    assert_eq!(
        of("content-type: \ttext/plain; charset=utf-8 ").expect("valid").as_deref(),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(of("X: y").expect("valid"), None);
    assert!(refused(of("Content-Type: a/b\r\nContent-type: a/b")));
    assert!(refused(of("Content-Type: a/\u{e9}")));
}

#[test]
fn a_transfer_encoding_that_changes_the_bytes_is_refused() {
    let of =
        |value: &str| head(&format!("Content-Disposition: form-data; name=x\r\nContent-Transfer-Encoding: {value}"));
    for plain in ["7bit", "8BIT", "Binary"] {
        assert!(of(plain).is_ok(), "{plain}");
    }
    for encoded in ["base64", "quoted-printable", "", "x"] {
        assert!(refused(of(encoded)), "{encoded}");
    }
}
