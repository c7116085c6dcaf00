//! The name of the file, in all the forms in which clients write it.

use super::*;

/// The refusal of a disposition, which names `filename`.
fn refused_name(params: &str) -> String {
    let error = named(&format!("; name=file{params}")).expect_err("a refusal");
    assert_eq!((error.kind(), error.parameter()), (ErrorKind::Invalid, Some("filename")), "{params}");
    error.to_string()
}

#[test]
fn a_backslash_escapes_a_quote_and_itself_and_is_otherwise_itself() {
    for (sent, meant) in [(r"C:\x", r"C:\x"), (r#"a\"b"#, "a\"b"), (r"a\\b", r"a\b"), (r#"\\\"\n"#, r#"\"\n"#)] {
        assert_eq!(filename(&format!("; filename=\"{sent}\"")).as_deref(), Some(meant));
    }
}

#[test]
fn a_backslash_at_the_end_of_a_name_hides_no_quote() {
    for (sent, meant) in [(r"trailing\", "trailing"), (r"a\b\", r"a\b"), (r#"a\"b\"#, "a\"b"), (r"\", "")] {
        assert_eq!(filename(&format!("; filename=\"{sent}\"")).as_deref(), Some(meant), "{sent}");
    }
    // What follows is not known to be another parameter.
    for sent in [r#"; filename="a\"; x=y"#, r#"; filename="a\"#, "; filename=\"a", "; filename=\""] {
        assert!(refused_name(sent).contains("has no closing quote"), "{sent}");
    }
    assert!(refused(named(r#"; name="file\""#)), "the name of the field is no file name");
}

#[test]
fn a_percent_sign_means_nothing_but_in_an_escaped_quote() {
    for (sent, meant) in [
        ("a%22b", "a\"b"),
        ("%22%22", "\"\""),
        ("a%0D%0Ab", "a%0D%0Ab"),
        ("100%", "100%"),
        ("a%2fb", "a%2fb"),
        ("a%2522b", "a%2522b"),
        ("a%5cb", "a%5cb"),
        ("%E2%82%AC", "%E2%82%AC"),
    ] {
        assert_eq!(filename(&format!("; filename=\"{sent}\"")).as_deref(), Some(meant));
        assert_eq!(filename(&format!("; filename={sent}")).as_deref(), Some(meant));
    }
    assert_eq!(named("; name=\"a%22b\"").expect("a name").0, "a%22b", "the name of the field is compared as it is");
}

#[test]
fn a_quote_within_a_name_that_is_not_escaped_is_refused_and_named() {
    for sent in ["a \"b\" c.pdf", "\"quoted\".txt", "a\"", "a\"b", "\"\"", "a\"; b\".txt", "a\";b", "a\" ; \".txt"] {
        let text = refused_name(&format!("; filename=\"{sent}\""));
        assert!(text.contains("%22"), "{sent}: {text}");
    }
    assert!(refused_name("; filename=a b.txt").contains("%22"));
    assert!(refused_name("; filename=a(1).txt").contains("must be in quotes"));
}

#[test]
fn a_name_is_kept_as_it_is_and_is_utf_8_without_control_characters() {
    for text in
        ["", "../../x", "\u{202e}gpj.exe", "\u{1f600}", "na\u{ef}ve", "it's", "=?utf-8?B?5pel?=", "a;b", "a=b", "a,b"]
    {
        assert_eq!(filename(&format!("; filename=\"{text}\"")).as_deref(), Some(text));
    }
    assert_eq!(filename("; filename=a.txt").as_deref(), Some("a.txt"));
    assert_eq!(filename("; FileName=\"a.txt\"").as_deref(), Some("a.txt"));
    assert_eq!(filename(""), None);
    assert_eq!(filename("; filenames=a; filename*x=b"), None, "other parameters are ignored");
    for bad in ["a\0b", "a\tb", "a\u{7f}b", "a\u{85}b"] {
        assert!(refused(named(&format!("; name=file; filename=\"{bad}\""))), "{bad:?}");
        assert!(refused(named(&format!("; name=\"{bad}\""))), "{bad:?}");
    }
    let latin = head(b"Content-Disposition: form-data; name=file; filename=\"\xe9\"").expect_err("not UTF-8");
    assert_eq!(latin.parameter(), Some("filename"));
    assert!(refused(head(b"Content-Disposition: form-data; name=\"\xe9\"")));
    let long = "x".repeat(64 << 10);
    assert!(refused(named(&format!("; name=file; filename=\"{long}\""))));
}

#[test]
fn a_valid_extended_name_wins_in_whatever_order() {
    for (params, meant) in [
        ("; filename*=UTF-8''na%C3%afve", "na\u{ef}ve"),
        ("; filename*=utf-8'en-GB'a.b", "a.b"),
        ("; FILENAME*=Utf-8''a.b", "a.b"),
        ("; filename=\"plain\"; filename*=UTF-8''extended", "extended"),
        ("; filename*=UTF-8''extended; filename=plain", "extended"),
        ("; filename=\"=?utf-8?B?5pelLnR4dA==?=\"; filename*=utf-8''%E6%97%A5.txt", "\u{65e5}.txt"),
        ("; filename=\"_____.txt\"; filename*=UTF-8''%E6%97%A5.txt", "\u{65e5}.txt"),
        ("; filename=\"\"; filename*=UTF-8''x", "x"),
        ("; filename*=UTF-8''a%22b", "a\"b"),
        ("; filename*=UTF-8''a%2522b", "a%22b"),
    ] {
        assert_eq!(filename(params).as_deref(), Some(meant), "{params}");
    }
    let latin = head(b"Content-Disposition: form-data; name=file; filename=\"\xe9\"; filename*=UTF-8''%C3%A9");
    assert_eq!(latin.expect("the valid one is read").filename.as_deref(), Some("\u{e9}"));
}

/// Extended names that are invalid, and what is recorded of each if there is no other name.
const INVALID: [(&str, &str); 24] = [
    ("a", "a"),
    ("UTF-8'a", "UTF-8'a"),
    ("''a", "''a"),
    ("ISO-8859-1''%e9", "\u{e9}"),
    ("iso-8859-1'de'a%DF", "a\u{df}"),
    ("windows-1252''%80", "windows-1252''%80"),
    ("UTF-8'e n'a", "UTF-8'e n'a"),
    ("UTF-8'_'a", "UTF-8'_'a"),
    ("UTF-8''%", "UTF-8''%"),
    ("UTF-8''%4", "UTF-8''%4"),
    ("UTF-8''%4g", "UTF-8''%4g"),
    ("UTF-8''%+4", "UTF-8''%+4"),
    ("UTF-8''%ff", "UTF-8''%ff"),
    ("UTF-8''%ed%a0%80", "UTF-8''%ed%a0%80"),
    ("UTF-8''%00", "UTF-8''%00"),
    ("UTF-8''%0a", "UTF-8''%0a"),
    ("UTF-8''a'b", "UTF-8''a'b"),
    ("UTF-8''a*", "UTF-8''a*"),
    ("UTF-8''a b", "UTF-8''a b"),
    ("\"UTF-8''%C3%A9\"", "\u{e9}"),
    ("\"a.txt\"", "a.txt"),
    ("\"a.txt\" b", "\"a.txt\" b"),
    ("\"a.txt", "\"a.txt"),
    ("UTF-8''\u{e9}", "UTF-8''\u{e9}"),
];

#[test]
fn an_invalid_extended_name_refuses_nothing_and_loses_no_name() {
    for (bad, kept) in INVALID {
        for params in [
            format!("; filename=\"plain\"; filename*={bad}"),
            format!("; filename*={bad}; filename=\"plain\""),
            format!("; filename*0*={bad}; filename=\"plain\"; filename*2=x"),
        ] {
            assert_eq!(filename(&params).as_deref(), Some("plain"), "{params}");
        }
        assert_eq!(filename(&format!("; filename*={bad}")).as_deref(), Some(kept), "{bad} alone");
        assert_eq!(
            filename(&format!("; filename=\"\"; filename*={bad}")).as_deref(),
            Some(kept),
            "{bad} and an empty one"
        );
    }
    for empty in [
        "; filename*=UTF-8''",
        "; filename*=",
        "; filename=\"\"",
        "; filename=\"\"; filename*=UTF-8''",
        "; filename*0=",
    ] {
        assert_eq!(filename(empty).as_deref(), Some(""), "{empty}");
    }
    assert_eq!(filename("; filename=plain; filename*=UTF-8''").as_deref(), Some("plain"));
}

#[test]
fn a_name_in_pieces_is_put_together() {
    for (params, meant) in [
        ("; filename*0=\"a long \"; filename*1=\"name.txt\"", "a long name.txt"),
        ("; filename*0*=UTF-8''%E6%97; filename*1*=%A5.txt", "\u{65e5}.txt"),
        ("; filename*1*=%A5; filename*2=\".txt\"; filename*0*=utf-8'ja'%E6%97", "\u{65e5}.txt"),
        ("; filename*0*=UTF-8''a; filename=plain", "a"),
        ("; filename*0=a; filename=plain", "a"),
        ("; filename*0*=ISO-8859-1''%e9; filename*1=.txt", "\u{e9}.txt"),
        ("; filename*0*=ISO-8859-1''%e9; filename=plain", "plain"),
        ("; filename*0*=UTF-8''one; filename*=UTF-8''whole", "whole"),
        // One is missing: the name is what there is.
        ("; filename*1=b; filename*2=c", "bc"),
        ("; filename*0=a; filename*2=c; filename=plain", "plain"),
        ("; filename*0*=UTF-8''%ff; filename=plain", "plain"),
    ] {
        assert_eq!(filename(params).as_deref(), Some(meant), "{params}");
    }
    let pieces: String = (0..12).map(|number| format!("; filename*{number}={number}")).collect();
    assert_eq!(filename(&pieces).as_deref(), Some("01234567891011"));
}
