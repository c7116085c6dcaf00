//! The limits of the parser, at each of them and past it.

use super::*;

/// Checks that `limit` holds for a body that needs `need` of it, and fails for one less.
fn exactly(need: usize, body: &str, limit: impl Fn(&mut Limits, usize)) {
    for (value, good) in [(need - 1, false), (need, true), (need + 1, true)] {
        let mut limits = Limits::default();
        limit(&mut limits, value);
        for size in [1, 10, body.len()] {
            let result = kind(read_with(limits, "b", cut(body.as_bytes(), size)));
            assert_eq!(result, (!good).then_some(ErrorKind::Invalid), "limit {value}, {need} needed, frames of {size}");
        }
    }
}

#[test]
fn the_preamble_is_discarded_up_to_its_limit() {
    exactly(10, &format!("0123\r\n-bXX\r\n{}", file("x")), |limits, value| limits.preamble_bytes = value);
    assert_eq!(kind(read_with(Limits::default(), "b", cut(&[b'x'; 2000], 100))), Some(ErrorKind::Invalid));
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
                Err(error) => break assert_eq!(error.kind(), ErrorKind::Invalid),
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
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(sent <= (64 << 10) + most * flood.len(), "{sent}");
    }
    let huge = Bytes::from(vec![b'x'; 1000]);
    let frames = std::iter::once(Bytes::from(SKIP)).chain(std::iter::repeat(huge));
    assert_eq!(kind(read_with(Limits::default(), "b", frames)), Some(ErrorKind::Invalid));
}

#[test]
fn the_data_of_a_taken_part_is_free() {
    let body = file(&"x".repeat(1 << 20));
    let limits = Limits { overhead_bytes: 0, preamble_bytes: 0, ..Limits::default() };
    assert_eq!(read_with(limits, "b", [Bytes::from(body)]).expect("a valid form")[0].1.len(), 1 << 20);
}
