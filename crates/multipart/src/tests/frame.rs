//! The frame of a form: where parts begin and end, and the form itself.

use super::*;

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
    let begun = body.find("--b").expect("a first delimiter") + "--b".len();
    for end in 0..=body.len() {
        for size in [1, end.max(1)] {
            let result = read_with(Limits::default(), "b", cut(&body.as_bytes()[..end], size));
            match result {
                Ok(parts) => assert!(end >= complete && parts[0].1 == b"data", "{end}"),
                // A body that is cut in its preamble looks like one that is no form at all.
                Err(error) if end < begun => assert_eq!(error.kind(), ErrorKind::Invalid, "{end}: {error}"),
                Err(error) => assert!(end < complete && error.kind() == ErrorKind::Incomplete, "{end}: {error}"),
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
    for near in [
        "\r\n--bX",
        "\r\n--bX\r\n",
        "\r\n--b-\r\n",
        "\r\n--b-",
        "\r\n--b-X--",
        "\r\n--b_--\r\n",
        "\r\n--b\0",
        "\r\n--b\u{e9}",
        "\r\n--b\u{b}\r\n",
        "\n--b--",
        "\n--b\r\n",
        "\r--b--",
        "\r\r\n-b--",
        "\r\n\r\n--",
        "--b--",
        "\r\n--B--\r\n",
        "\r\n --b\r\n",
    ] {
        for text in [format!("x{near}"), format!("x{near}y"), format!("x{near}{near}"), format!("x{near}\r")] {
            let body = file(&text);
            assert_eq!(data(&body), text.as_bytes(), "{text:?}");
            let slow = read_with(Limits::default(), "b", cut(body.as_bytes(), 1)).expect("a valid form");
            assert_eq!(slow[0].1, text.as_bytes(), "{text:?} in frames of one byte");
        }
    }
}

/// What follows a boundary in a delimiter line that breaks a rule, and how the refusal says so.
fn broken() -> Vec<(String, &'static str)> {
    let long = " ".repeat(65);
    let mut broken = Vec::new();
    for (tail, flaw) in [
        ("\n", "ends in LF"),
        (" \n", "ends in LF"),
        ("\t\t\n", "ends in LF"),
        ("\r\r", "a CR is not followed by LF"),
        ("\rx", "a CR is not followed by LF"),
        (" \r ", "a CR is not followed by LF"),
        (" x", "only spaces, tabs and CRLF"),
        ("\tx", "only spaces, tabs and CRLF"),
        (" \t--\r\n", "only spaces, tabs and CRLF"),
        (" \0", "only spaces, tabs and CRLF"),
        (&format!("{long}\r\n"), "more than 64 spaces and tabs"),
    ] {
        broken.extend([(tail.to_owned(), flaw), (format!("--{tail}"), flaw)]);
    }
    for tail in ["--garbage", "--X", "---", "----\r\n", "--\0", "--;", "--\u{e9}"] {
        broken.push((tail.to_owned(), "only spaces, tabs and CRLF"));
    }
    broken
}

#[test]
fn a_delimiter_line_that_breaks_a_rule_is_refused_and_never_data() {
    for (tail, flaw) in broken() {
        let part = format!("--b{tail}\r\nContent-Disposition: form-data; name=file\r\n\r\nx\r\n--b--");
        for body in [
            part.clone(),
            format!("\r\n{part}"),
            format!("preamble\r\n{part}"),
            format!("{FILE}{part}"),
            format!("{FILE}data\r\n{part}"),
            format!("{SKIP}data\r\n{part}"),
            format!("{FILE}data\r\n--bX\r\n{part}"),
            format!("{FILE}data\r\n--b{tail}"),
        ] {
            let whole = read(&body).expect_err("a broken delimiter");
            assert_eq!(whole.kind(), ErrorKind::Invalid, "{body:?}");
            let text = whole.to_string();
            assert!(
                text.contains(&format!("malformed delimiter line: {flaw}")) || text.contains(flaw),
                "{body:?}: {text}"
            );
            for at in 0..=body.len() {
                let frames = [&body.as_bytes()[..at], &body.as_bytes()[at..]].map(Bytes::copy_from_slice);
                let cut = read_with(Limits::default(), "b", frames).expect_err("a broken delimiter");
                assert_eq!(cut.to_string(), text, "{body:?} cut at {at}");
            }
            let slow = read_with(Limits::default(), "b", cut(body.as_bytes(), 1)).expect_err("a broken delimiter");
            assert_eq!(slow.to_string(), text, "{body:?} in frames of one byte");
        }
    }
}

#[test]
fn no_byte_of_a_delimiter_line_is_reported_before_it_is_known_to_be_data() {
    for (tail, _) in broken() {
        let body = format!("{FILE}data\r\n--b{tail}");
        let mut parser = Parser::new(&boundary("b"), Limits::default());
        let mut reported = Vec::new();
        let outcome = cut(body.as_bytes(), 1).try_for_each(|frame| {
            parser.push(frame);
            while let Some(event) = parser.next()? {
                if let Event::Data(data) = event {
                    reported.extend_from_slice(&data);
                }
            }
            Ok::<_, Error>(())
        });
        assert!(refused(outcome), "{tail:?}");
        assert_eq!(reported, b"data", "{tail:?}");
    }
}

#[test]
fn a_delimiter_may_begin_where_another_failed() {
    for near in ["\r\n--bX\r", "\r\n--b-\r", "\r\n--b-", "\r\n--", "\r\n", "\r"] {
        assert_eq!(data(file(near)), near.as_bytes(), "{near:?}");
        let body = file(near);
        assert_eq!(read_with(Limits::default(), "b", cut(body.as_bytes(), 1)).expect("valid")[0].1, near.as_bytes());
    }
    // At the start of a part the header's line break is matched already: what fails there may begin the real one.
    assert_eq!(data(format!("{FILE}--\r\n--b--")), b"--");
    assert_eq!(data(format!("{FILE}--bX\r\n--b--")), b"--bX");
    assert_eq!(data(format!("{FILE}--b-\rX\r\n--b--")), b"--b-\rX");
}

#[test]
fn a_delimiter_line_takes_64_bytes_of_padding_and_no_more() {
    for (length, good) in [(0, true), (63, true), (64, true), (65, false)] {
        let padding = "\t ".repeat(33)[..length].to_owned();
        let body = format!(
            "{FILE}x\r\n--b{padding}\r\nContent-Disposition: form-data; name=y\r\n\r\n\r\n--b--{padding}\r\n--b--"
        );
        for size in [1, 7, body.len()] {
            let parts = read_with(Limits::default(), "b", cut(body.as_bytes(), size));
            assert_eq!(
                outcome(parts).map(|parts| parts.len()),
                if good { Ok(2) } else { Err(ErrorKind::Invalid) },
                "{length}"
            );
        }
    }
}

#[test]
fn errors_stay_and_nothing_panics_after_them() {
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(b"--b\r\nnonsense\r\n\r\nmore"));
    for _ in 0..3 {
        assert_eq!(parser.next().expect_err("no colon").kind(), ErrorKind::Invalid);
        parser.push(Bytes::from_static(b"more"));
        parser.skip_part();
        assert_eq!(parser.finish().expect_err("no colon").kind(), ErrorKind::Invalid);
    }
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from(vec![b'x'; 2000]));
    for _ in 0..3 {
        assert_eq!(parser.next().expect_err("a long preamble").kind(), ErrorKind::Invalid);
        parser.push(Bytes::from_static(b"more"));
    }
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    for _ in 0..3 {
        assert_eq!(parser.finish().expect_err("no body").kind(), ErrorKind::Invalid);
        assert_eq!(parser.next().expect_err("no body").kind(), ErrorKind::Invalid);
    }
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(FILE.as_bytes()));
    while parser.next().expect("no error yet").is_some() {}
    for _ in 0..3 {
        assert_eq!(parser.finish().expect_err("cut short").kind(), ErrorKind::Incomplete);
        assert_eq!(parser.next().expect_err("cut short").kind(), ErrorKind::Incomplete);
    }
}

#[test]
fn a_frame_that_would_be_lost_is_a_defect_of_ours() {
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(b"--b"));
    parser.push(Bytes::from_static(b"--"));
    assert_eq!(parser.next().expect_err("a lost frame").kind(), ErrorKind::Misuse);
    let mut parser = Parser::new(&boundary("b"), Limits::default());
    parser.push(Bytes::from_static(b"--b--"));
    assert_eq!(parser.finish().expect_err("an unread frame").kind(), ErrorKind::Misuse);
}

#[test]
fn a_frame_that_was_used_up_is_let_go_of_wherever_it_ended() {
    for text in [FILE, "preamble", "--b\r\nContent-Disp", "--b--\r\nepilogue"] {
        let frame = Bytes::from(text.as_bytes().to_vec());
        let mut parser = Parser::new(&boundary("b"), Limits::default());
        parser.push(frame.clone());
        while parser.next().unwrap().is_some() {}
        assert!(frame.is_unique(), "{text:?}");
    }
}
