//! What a form is, what it is not, and that neither depends on how it is cut into frames.

use std::ops::Range;

use futures_util::stream;
use proptest::prelude::*;

use super::*;

type Parts = Vec<(PartHead, Vec<u8>)>;

const FILE: &str = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"f\"\r\n\r\n";
const SKIP: &str = "--b\r\nContent-Disposition: form-data; name=skip\r\n\r\n";

fn boundary(text: &str) -> Boundary {
    Boundary::new(text.as_bytes()).expect("a permitted boundary")
}

/// Feeds the frames, skips parts named `skip`, and returns the others, having checked the order of events.
fn read_with(limits: Limits, text: &str, frames: impl IntoIterator<Item = Bytes>) -> Result<Parts> {
    let mut parser = Parser::new(&boundary(text), limits);
    let (mut parts, mut open, mut closed) = (Parts::new(), None, false);
    let mut take = |parser: &mut Parser| -> Result<()> {
        while let Some(event) = parser.next()? {
            assert!(!closed, "an event after the closing delimiter");
            match event {
                Event::Part(head) => {
                    assert!(open.is_none(), "a part within a part");
                    if head.name == "skip" {
                        parser.skip_part();
                    }
                    open = Some((head, Vec::new()));
                }
                Event::Data(data) => {
                    assert!(!data.is_empty());
                    open.as_mut().expect("data belongs to a part").1.extend_from_slice(&data);
                }
                Event::PartEnd => {
                    let part = open.take().expect("the end of a part that began");
                    if part.0.name == "skip" {
                        assert!(part.1.is_empty(), "data of a skipped part");
                    } else {
                        parts.push(part);
                    }
                }
                Event::Closed => closed = true,
            }
        }
        Ok(())
    };
    for frame in frames {
        parser.push(frame);
        take(&mut parser)?;
    }
    parser.finish()?;
    take(&mut parser)?;
    assert!(closed && open.is_none());
    Ok(parts)
}

fn read(body: impl AsRef<[u8]>) -> Result<Parts> {
    read_with(Limits::default(), "b", [Bytes::copy_from_slice(body.as_ref())])
}

fn data(body: impl AsRef<[u8]>) -> Vec<u8> {
    let parts = read(body).expect("a valid form");
    assert_eq!(parts.len(), 1);
    parts.into_iter().next().expect("one part").1
}

fn file(data: &str) -> String {
    format!("{FILE}{data}\r\n--b--\r\n")
}

/// The outcome in a form that can be compared.
fn outcome(result: Result<Parts>) -> std::result::Result<Parts, Kind> {
    result.map_err(|error| error.kind())
}

fn kind(result: Result<Parts>) -> Option<Kind> {
    outcome(result).err()
}

/// Reads a part with these header lines.
fn head(lines: &(impl AsRef<[u8]> + ?Sized)) -> Result<PartHead> {
    let body = [b"--b\r\n", lines.as_ref(), b"\r\n\r\nx\r\n--b--"].concat();
    read(body).map(|parts| parts.into_iter().next().expect("one part").0)
}

/// Reads a part whose disposition has these parameters.
fn named(params: &str) -> Result<(String, Option<String>)> {
    head(&format!("Content-Disposition: form-data{params}")).map(|head| (head.name, head.filename))
}

fn filename(params: &str) -> Option<String> {
    named(&format!("; name=file{params}")).expect("a valid disposition").1
}

fn refused<T: std::fmt::Debug>(result: Result<T>) -> bool {
    result.expect_err("a refusal").kind() == Kind::Invalid
}

fn cut(body: &[u8], size: usize) -> impl Iterator<Item = Bytes> + '_ {
    body.chunks(size).map(Bytes::copy_from_slice)
}

// The boundary

fn of_content_type(value: &str) -> Result<Boundary> {
    Boundary::from_content_type(Some(value.as_bytes()))
}

#[test]
fn a_boundary_is_read_bare_or_quoted_in_any_case_among_other_parameters() {
    for value in [
        "multipart/form-data; boundary=b=/:1",
        "Multipart/Form-Data;BOUNDARY=\"b=/:1\"",
        "multipart/form-data ; charset=utf-8;; boundary=b=/:1 ; x=\"; boundary=z\";",
    ] {
        assert_eq!(&of_content_type(value).expect(value).0[..], b"\r\n--b=/:1", "{value}");
    }
    assert_eq!(&of_content_type("multipart/form-data; boundary=\"a b\"").expect("spaces within").0[..], b"\r\n--a b");
}

#[test]
fn a_content_type_that_is_no_form_or_has_not_one_boundary_is_refused() {
    assert!(refused(Boundary::from_content_type(None)));
    for value in [
        "",
        "application/json",
        "multipart/mixed; boundary=b",
        "multipart/form-data",
        "multipart/form-data; boundary",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=\"\"",
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=b; Boundary=b",
        "multipart/form-data; boundary=\"b",
        "multipart/form-data; boundary=\"b\"c",
        "multipart/form-data; boundary=\"b \"",
        "multipart/form-data; boundary=a\r\nb",
        "multipart/form-data; boundary=a_\u{e9}",
        "multipart/form-data; boundary=a*b",
        "multipart/form-data; boundary = b",
        "multipart/form-data; =b",
        "multipart/form-data, boundary=b",
    ] {
        assert!(refused(of_content_type(value)), "{value}");
    }
}

#[test]
fn a_boundary_has_1_to_70_characters() {
    for (length, good) in [(0, false), (1, true), (69, true), (70, true), (71, false), (8192, false)] {
        let value = format!("multipart/form-data; boundary={}", "b".repeat(length));
        assert_eq!(of_content_type(&value).is_ok(), good, "{length}");
    }
}

#[test]
fn a_hostile_content_type_is_read_in_linear_time() {
    for pattern in [";", "\\\"", "a=b;", "\" ", " ", "boundary"] {
        for start in ["", "; boundary=\"", "; boundary="] {
            let value = format!("multipart/form-data{start}{}", pattern.repeat(1 << 20));
            // No more than this: were it quadratic, the test would not end.
            let _ = of_content_type(&value);
        }
    }
}

// The frame of a form

#[test]
fn parts_are_reported_in_order_with_their_data() {
    let body =
        format!("{FILE}one\r\n{SKIP}two\r\n--b\r\ncontent-disposition:form-data;name=x\r\n\r\nthree\r\n--b--\r\n");
    let parts = read(body).expect("a valid form");
    let seen: Vec<_> = parts.iter().map(|(head, data)| (head.name.as_str(), data.as_slice())).collect();
    assert_eq!(seen, [("file", &b"one"[..]), ("x", &b"three"[..])]);
    assert_eq!(parts[0].0.filename.as_deref(), Some("f"));
}

#[test]
fn a_part_may_be_empty_and_a_form_may_have_no_parts() {
    assert_eq!(data(file("")), b"");
    assert_eq!(data(format!("{FILE}--b--")), b"", "the header's line break serves the delimiter as well");
    assert!(read("--b--").expect("a closed form").is_empty());
}

#[test]
fn a_skipped_part_ends_and_reports_nothing_in_between() {
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from(format!("{SKIP}data\r\n--b--\r\n")));
    assert!(matches!(parser.next(), Ok(Some(Event::Part(_)))));
    parser.skip_part();
    assert_eq!(parser.next().expect("no error"), Some(Event::PartEnd));
    assert_eq!(parser.next().expect("no error"), Some(Event::Closed));
    assert_eq!(parser.next().expect("no error"), None);
    parser.skip_part();
    parser.finish().expect("a complete form");
}

#[test]
fn a_body_is_complete_from_the_second_closing_dash_on_and_never_before() {
    let body = format!("preamble\r\n{FILE}data\r\n--b--\r\nepilogue");
    let complete = body.find("--b--").expect("a closing delimiter") + "--b--".len();
    for end in 0..=body.len() {
        for size in [1, end.max(1)] {
            let result = read_with(Limits::default(), "b", cut(&body.as_bytes()[..end], size));
            match result {
                Ok(parts) => assert!(end >= complete && parts[0].1 == b"data", "{end}"),
                Err(error) => assert!(end < complete && error.kind() == Kind::Incomplete, "{end}: {error}"),
            }
        }
    }
}

#[test]
fn a_closing_delimiter_may_be_padded_and_followed_by_an_epilogue() {
    for end in ["", " ", " \t", "\r", "\r\n", " \t\r\n", "\r\nepilogue\r\n--b\r\n--b--\r\n"] {
        assert_eq!(data(format!("{FILE}x\r\n--b--{end}")), b"x", "{end:?}");
    }
}

#[test]
fn what_only_resembles_a_delimiter_is_data() {
    let long = " ".repeat(65);
    for near in [
        "\r\n--bX",
        "\r\n--b-\r\n",
        "\r\n--b--X",
        "\r\n--b---",
        "\r\n--b\n",
        "\r\n--b\r",
        "\r\n--b \r ",
        "\r\n--b-- x",
        "\n--b--",
        "\r--b--",
        "\r\r\n-b--",
        "\r\n\r\n--",
        "--b--",
        "\r\n--B--\r\n",
        "\r\n--b--\r",
        "\r\n--b - \r\n",
        &format!("\r\n--b{long}\r\n"),
        &format!("\r\n--b--{long}\r\n"),
    ] {
        for text in [format!("x{near}"), format!("x{near}y"), format!("x{near}{near}"), format!("x{near}\r")] {
            let body = file(&text);
            assert_eq!(data(&body), text.as_bytes(), "{text:?}");
            let slow = read_with(Limits::default(), "b", cut(body.as_bytes(), 1)).expect("a valid form");
            assert_eq!(slow[0].1, text.as_bytes(), "{text:?} in frames of one byte");
        }
    }
}

#[test]
fn a_delimiter_may_begin_where_another_failed() {
    for near in ["\r\n--b\r", "\r\n--b--\r", "\r\n--b-", "\r\n--", "\r\n", "\r"] {
        assert_eq!(data(file(near)), near.as_bytes(), "{near:?}");
        let body = file(near);
        assert_eq!(read_with(Limits::default(), "b", cut(body.as_bytes(), 1)).expect("valid")[0].1, near.as_bytes());
    }
    // At the start of a part the header's line break is matched already: what fails there may begin the real one.
    assert_eq!(data(format!("{FILE}--\r\n--b--")), b"--");
    assert_eq!(data(format!("{FILE}--bX\r\n--b--")), b"--bX");
    assert_eq!(data(format!("{FILE}--b--\rX\r\n--b--")), b"--b--\rX");
}

#[test]
fn a_delimiter_line_takes_64_bytes_of_padding_and_no_more() {
    for (length, good) in [(0, true), (63, true), (64, true), (65, false)] {
        let padding = "\t ".repeat(33)[..length].to_owned();
        let body = format!(
            "{FILE}x\r\n--b{padding}\r\nContent-Disposition: form-data; name=y\r\n\r\n\r\n--b--{padding}\r\n--b--"
        );
        for size in [1, 7, body.len()] {
            let parts = read_with(Limits::default(), "b", cut(body.as_bytes(), size)).expect("a valid form");
            assert_eq!(parts.len(), if good { 2 } else { 1 }, "{length}");
        }
    }
}

#[test]
fn errors_stay_and_nothing_panics_after_them() {
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(b"--b\r\nnonsense\r\n\r\nmore"));
    for _ in 0..3 {
        assert_eq!(parser.next().expect_err("no colon").kind(), Kind::Invalid);
        parser.push(Bytes::from_static(b"more"));
        parser.skip_part();
        assert_eq!(parser.finish().expect_err("no colon").kind(), Kind::Invalid);
    }
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from(vec![b'x'; 2000]));
    for _ in 0..3 {
        assert_eq!(parser.next().expect_err("a long preamble").kind(), Kind::Invalid);
        parser.push(Bytes::from_static(b"more"));
    }
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    for _ in 0..3 {
        assert_eq!(parser.finish().expect_err("no body").kind(), Kind::Incomplete);
        assert_eq!(parser.next().expect_err("no body").kind(), Kind::Incomplete);
    }
}

#[test]
fn a_frame_that_would_be_lost_is_a_defect_of_ours() {
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(b"--b"));
    parser.push(Bytes::from_static(b"--"));
    assert_eq!(parser.next().expect_err("a lost frame").kind(), Kind::Internal);
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(b"--b--"));
    assert_eq!(parser.finish().expect_err("an unread frame").kind(), Kind::Internal);
}

// Limits

/// Checks that `limit` holds for a body that needs `need` of it, and fails for one less.
fn exactly(need: usize, body: &str, limit: impl Fn(&mut Limits, usize)) {
    for (value, good) in [(need - 1, false), (need, true), (need + 1, true)] {
        let mut limits = Limits::default();
        limit(&mut limits, value);
        for size in [1, 10, body.len()] {
            let result = kind(read_with(limits, "b", cut(body.as_bytes(), size)));
            assert_eq!(result, (!good).then_some(Kind::Invalid), "limit {value}, {need} needed, frames of {size}");
        }
    }
}

#[test]
fn the_preamble_is_discarded_up_to_its_limit() {
    exactly(10, &format!("0123\r\n-bXX\r\n{}", file("x")), |limits, value| limits.preamble_bytes = value);
    assert_eq!(kind(read_with(Limits::default(), "b", cut(&[b'x'; 2000], 100))), Some(Kind::Invalid));
}

#[test]
fn a_header_block_is_read_up_to_its_limits_in_bytes_and_lines() {
    let block = FILE.len() - "--b\r\n".len();
    exactly(block, &file("x"), |limits, value| limits.header_bytes = value);
    let lines = "a: b\r\n".repeat(4);
    exactly(5, &file("x").replacen("Content", &format!("{lines}Content"), 1), |limits, value| limits.headers = value);
}

#[test]
fn the_limits_of_a_header_block_hold_for_each_part_by_itself() {
    let limits = Limits { header_bytes: FILE.len() - "--b\r\n".len(), headers: 1, ..Limits::default() };
    let body = format!("{FILE}\r\n{FILE}\r\n{FILE}\r\n--b--");
    assert_eq!(read_with(limits, "b", [Bytes::from(body)]).expect("three parts").len(), 3);
}

#[test]
fn a_header_that_never_ends_is_refused_at_the_limit_and_not_held() {
    for line in ["a", "a: b\r\n", "\u{e9}"] {
        let mut parser = Parser::new(&boundary("b"), Limits { headers: usize::MAX, ..Limits::default() });
        parser.push(Bytes::from_static(b"--b\r\n"));
        assert!(matches!(parser.next(), Ok(None)));
        let mut sent = 0;
        loop {
            parser.push(Bytes::copy_from_slice(line.as_bytes()));
            sent += line.len();
            match parser.next() {
                Ok(event) => assert!(event.is_none() && parser.line.len() <= 8192),
                Err(error) => break assert_eq!(error.kind(), Kind::Invalid),
            }
        }
        assert!((8192..8192 + 8).contains(&sent), "{sent}");
    }
}

#[test]
fn skipped_parts_and_the_epilogue_share_one_limit() {
    let part = format!("\r\n{SKIP}").len();
    let overhead = |limits: &mut Limits, value| limits.overhead_bytes = value;
    exactly(part + 100, &format!("{SKIP}{}\r\n{}", "x".repeat(100), file("not counted")), overhead);
    exactly(part * 3, &format!("{SKIP}\r\n{SKIP}\r\n{SKIP}\r\n{}", file("x")), overhead);
    exactly(10, &format!("{}0123\r\n--b\r", file("x")), overhead);
    exactly(part + 6, &format!("{SKIP}\r\n--bX\r\n--b--\r\n"), overhead);
    exactly(part + 4, &format!("{SKIP}xx\r\n--b--\r\nyy"), overhead);
}

#[test]
fn a_flood_of_small_parts_and_a_huge_unwanted_one_are_refused_early() {
    for (flood, most) in [(format!("\r\n{SKIP}"), 1), (format!("\r\n{SKIP}x"), 2)] {
        let mut parser = Parser::new(&boundary("b"), Limits::default());
        let mut sent = 0;
        let error = 'sending: loop {
            parser.push(Bytes::from(flood.clone()));
            sent += flood.len();
            loop {
                match parser.next() {
                    Ok(Some(Event::Part(_))) => parser.skip_part(),
                    Ok(Some(_)) => {}
                    Ok(None) => break,
                    Err(error) => break 'sending error,
                }
            }
        };
        assert_eq!(error.kind(), Kind::Invalid);
        assert!(sent <= (64 << 10) + most * flood.len(), "{sent}");
    }
    let huge = Bytes::from(vec![b'x'; 1000]);
    let frames = std::iter::once(Bytes::from(SKIP)).chain(std::iter::repeat(huge));
    assert_eq!(kind(read_with(Limits::default(), "b", frames)), Some(Kind::Invalid));
}

#[test]
fn the_data_of_a_taken_part_is_free() {
    let body = file(&"x".repeat(1 << 20));
    let limits = Limits { overhead_bytes: 0, preamble_bytes: 0, ..Limits::default() };
    assert_eq!(read_with(limits, "b", [Bytes::from(body)]).expect("a valid form")[0].1.len(), 1 << 20);
}

// Headers

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

// Cost

fn address(bytes: &Bytes) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

#[test]
fn data_is_a_slice_of_the_frame_or_of_the_delimiter() {
    let text = "x\r\n--b\r\rdata\r\n--bX\r\n\r\n--more\r\r\n-".repeat(20);
    let body = Bytes::from(file(&text));
    for size in 1..100 {
        let mut parser = Parser::new(&boundary("b"), Limits::default());
        let delimiter = address(&parser.delimiter);
        for start in (0..body.len()).step_by(size) {
            let frame = body.slice(start..body.len().min(start + size));
            let place = address(&frame);
            parser.push(frame);
            while let Some(event) = parser.next().expect("a valid form") {
                let Event::Data(data) = event else { continue };
                let at = address(&data);
                let within = |whole: &Range<usize>| whole.start <= at.start && at.end <= whole.end;
                // The one thing that is ever copied: the rest of a delimiter's line, cut by a frame, that was none.
                assert!(within(&place) || within(&delimiter) || data == "\r" || data == "-", "{data:?}");
            }
        }
    }
}

#[test]
fn a_hostile_body_makes_no_more_events_than_it_has_frames() {
    for pattern in
        ["\r", "-", "\r\n", "\r\n-", "\r\n--", "\r\n--bX", "\r\n--b-", "\r\n--b--X", "\r\n--b\r", "--b", "\n"]
    {
        let length = if pattern.len() == 1 { 16 << 20 } else { 1 << 20 };
        for size in [64 << 10, length] {
            let text = Bytes::from(pattern.repeat(length / pattern.len()));
            let mut parser = Parser::new(&boundary("b"), Limits::default());
            let (mut frames, mut events, mut bytes) = (0, 0, 0);
            let mut feed = |frame: Bytes| {
                parser.push(frame);
                frames += 1;
                while let Some(event) = parser.next().expect("a valid form") {
                    if let Event::Data(data) = event {
                        events += 1;
                        bytes += data.len();
                    }
                }
            };
            feed(Bytes::from(format!("{FILE}x")));
            let mut rest = text.clone();
            while !rest.is_empty() {
                feed(rest.split_to(size.min(rest.len())));
            }
            feed(Bytes::from("y\r\n--b--"));
            assert_eq!(bytes, text.len() + 2, "{pattern:?}");
            assert!(events <= 3 * frames, "{pattern:?}: {events} events of {frames} frames");
        }
    }
}

// Any split, any data

/// The outcome of reading these frames with the boundary `b-b`.
fn outcome_of(frames: impl IntoIterator<Item = Bytes>) -> std::result::Result<Parts, Kind> {
    outcome(read_with(Limits::default(), "b-b", frames))
}

/// What tempts a parser whose boundary is `b-b`.
fn fragment() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        "-",
        "--",
        "b",
        "b-b",
        "--b-b",
        "\r\n--",
        "\r\n--b-b",
        "\r\n--b-bb",
        "\r\n--b-",
        "\r\n--b-b-",
        "\r\n--b-b--",
        "\r\n--b-b \t",
        "\r\n--b-b\r",
        " ",
        "\t",
        "x",
        "data",
        "\0",
    ])
}

fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(fragment(), 0..24).prop_map(|fragments| fragments.concat())
}

fn split<'a>(body: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = Bytes> + 'a {
    let mut rest = body;
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let size = (*sizes.next()?).min(rest.len());
        let (frame, after) = rest.split_at(size);
        rest = after;
        (!frame.is_empty()).then(|| Bytes::copy_from_slice(frame))
    })
}

/// The like, for a parser that takes any line that begins with the delimiter for one.
fn tame_text() -> impl Strategy<Value = String> {
    text().prop_map(|text| text.replace("--b-b", "--b_b"))
}

/// Where the first delimiter of `b-b` begins, found the slow and obvious way.
fn first_delimiter(body: &[u8]) -> Option<usize> {
    (0..body.len()).find(|&at| {
        let Some(rest) = body[at..].strip_prefix(b"\r\n--b-b") else { return false };
        let (rest, closing) = rest.strip_prefix(b"--").map_or((rest, false), |rest| (rest, true));
        let padding = rest.iter().take_while(|byte| b" \t".contains(byte)).count();
        let rest = &rest[padding..];
        padding <= 64 && (rest.starts_with(b"\r\n") || closing && rest.is_empty())
    })
}

fn whole(body: &[u8]) -> std::result::Result<Parts, Kind> {
    outcome_of([Bytes::copy_from_slice(body)])
}

const HEAD: &str = "--b-b\r\nContent-Disposition: form-data; name=file\r\n\r\n";

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn data_is_what_stands_before_the_first_delimiter_however_it_is_split(
        text in text(), sizes in prop::collection::vec(1..9_usize, 1..9),
    ) {
        // The header's last line break counts as the delimiter's.
        let from_break = format!("\r\n{text}\r\n--b-b--");
        let expected = first_delimiter(from_break.as_bytes()).expect("the closing one");
        prop_assume!(expected == text.len() + 2);
        let body = format!("{HEAD}{text}\r\n--b-b--");
        let body = body.as_bytes();
        let parts = whole(body).expect("a valid form");
        prop_assert_eq!(&parts[0].1[..], text.as_bytes());
        for at in 0..=body.len() {
            let frames = [&body[..at], &body[at..]].map(Bytes::copy_from_slice);
            prop_assert_eq!(&outcome_of(frames).expect("a valid form"), &parts, "at {}", at);
        }
        for sizes in [&[1][..], &sizes] {
            prop_assert_eq!(&outcome_of(split(body, sizes)).expect("a valid form"), &parts);
        }
    }

    #[test]
    fn any_bytes_have_one_outcome_however_they_are_split(
        texts in prop::collection::vec(text(), 2..5), tail in text(), sizes in prop::collection::vec(1..30_usize, 1..9),
    ) {
        let body = texts.join(&format!("\r\n{HEAD}")) + &tail;
        let expected = whole(body.as_bytes());
        for sizes in [&[1][..], &sizes] {
            prop_assert_eq!(&outcome_of(split(body.as_bytes(), sizes)), &expected);
        }
        let at = sizes.iter().product::<usize>() % (body.len() + 1);
        let frames = [&body.as_bytes()[..at], &body.as_bytes()[at..]].map(Bytes::copy_from_slice);
        prop_assert_eq!(&outcome_of(frames), &expected);
    }

    #[test]
    fn any_headers_at_all_have_one_outcome_and_no_panic(
        lines in "([;:=\"'\\\\ \r\n\t%*-]|name|filename|UTF-8|Content-Disposition: form-data|\u{e9}|\0){0,40}",
    ) {
        let body = format!("--b-b\r\n{lines}\r\n\r\nx\r\n--b-b--");
        let expected = whole(body.as_bytes());
        prop_assert_eq!(&outcome_of(split(body.as_bytes(), &[1])), &expected);
        let _ = of_content_type(&format!("multipart/form-data{lines}"));
    }

    #[test]
    fn a_well_formed_body_reads_as_multer_reads_it(
        fields in prop::collection::vec(("[a-z]{1,8}", prop::option::of("[a-zA-Z0-9 ._;=-]{1,20}"), tame_text()), 1..5),
        sizes in prop::collection::vec(1..50_usize, 1..9),
    ) {
        let mut body = String::new();
        for (name, filename, text) in &fields {
            prop_assume!(name != "skip");
            let filename = filename.as_ref().map(|filename| format!("; filename=\"{filename}\"")).unwrap_or_default();
            body += &format!("--b-b\r\nContent-Disposition: form-data; name=\"{name}\"{filename}\r\n");
            body += &format!("Content-Type: text/plain\r\n\r\n{text}\r\n");
        }
        body += "--b-b--\r\n";
        let ours = outcome_of(split(body.as_bytes(), &sizes)).expect("a valid form");
        let theirs = tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(async {
            let frames: Vec<_> = split(body.as_bytes(), &sizes).map(Ok::<_, std::io::Error>).collect();
            let mut form = multer::Multipart::new(stream::iter(frames), "b-b");
            let mut parts = Parts::new();
            while let Some(field) = form.next_field().await.expect("a valid form") {
                let head = PartHead {
                    name: field.name().unwrap_or_default().to_owned(),
                    filename: field.file_name().map(str::to_owned),
                    content_type: field.content_type().map(ToString::to_string),
                };
                parts.push((head, field.bytes().await.expect("a valid part").to_vec()));
            }
            parts
        });
        prop_assert_eq!(ours, theirs);
    }
}
