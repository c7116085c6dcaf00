//! What the parser costs: nothing is copied, and a hostile body makes no more work than it has bytes.

use std::ops::Range;

use super::*;

fn address(bytes: &Bytes) -> Range<usize> {
    let start = bytes.as_ptr() as usize;
    start..start + bytes.len()
}

#[test]
fn data_is_a_slice_of_the_frame_or_of_the_delimiter() {
    let text = "x\r\n--b-\rdata\r\n--bX\r\n\r\n--more\r\r\n-".repeat(20);
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
                assert!(within(&place) || within(&delimiter) || data == "-", "{data:?}");
            }
        }
    }
}

#[test]
fn a_hostile_body_makes_no_more_events_than_it_has_frames() {
    for pattern in ["\r", "-", "\r\n", "\r\n-", "\r\n--", "\r\n--bX", "\r\n--b-X", "\r\n--b-", "--b", "\n"] {
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
