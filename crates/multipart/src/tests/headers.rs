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
        "; name=a; filename*0=b; filename*0=b",
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

/// The text of a refusal.
fn text_of<T: std::fmt::Debug>(result: Result<T>) -> String {
    result.expect_err("a refusal").to_string()
}

#[test]
fn a_folded_header_line_is_refused_as_such_wherever_it_is_folded() {
    for lines in [
        "Content-Disposition: form-data;\r\n name=\"file\"",
        "Content-Disposition: form-data; name=\"file\";\r\n\tfilename=\"a\"",
        "Content-Disposition:\r\n form-data; name=file",
        "Content-Disposition: form-data; name=\"fi\r\n le\"",
        "Content-Type: text/plain;\r\n charset=utf-8\r\nContent-Disposition: form-data; name=file",
        "X: a\r\n \r\nContent-Disposition: form-data; name=file",
    ] {
        let text = text_of(head(lines));
        assert!(text.contains("folding is not supported"), "{lines:?}: {text}");
    }
}

#[test]
fn a_part_without_a_name_is_refused_by_its_number() {
    for lines in ["Content-Disposition: form-data", "Content-Disposition: form-data; filename=\"a\"", "X: y"] {
        let text = text_of(read(format!("{FILE}x\r\n--b\r\n{lines}\r\n\r\ny\r\n--b--")));
        assert!(text.contains("part 2 of the form has no"), "{lines:?}: {text}");
    }
}

#[test]
fn a_part_that_is_a_range_of_something_is_refused() {
    let text = text_of(head("Content-Disposition: form-data; name=file\r\nContent-Range: bytes 4-7/10"));
    assert!(text.contains("one chunk of a larger file"), "{text}");
}
