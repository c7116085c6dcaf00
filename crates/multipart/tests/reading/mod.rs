//! A form read to its end through the public API, with the order of events checked on the way.

use attachd_multipart::{Boundary, Error, ErrorKind, Event, Limits, Parser, PartHead};
use bytes::Bytes;

/// The parts of a body with their data, and how reading ended.
pub type Form = (Vec<(PartHead, Vec<u8>)>, Result<(), Error>);

/// Reads a body with the boundary `b-b` in frames. Parts named `skip` are skipped, and those named `charge` are charged.
pub fn read<'a>(frames: impl IntoIterator<Item = &'a [u8]>, limits: Limits) -> Form {
    let mut parser = Parser::new(&Boundary::new(b"b-b").expect("a boundary"), limits);
    let mut parts = Vec::<(PartHead, Vec<u8>)>::new();
    let (mut is_open, mut is_closed) = (false, false);
    let mut take = |parser: &mut Parser| {
        while let Some(event) = parser.next()? {
            assert!(!is_closed, "{event:?} after the end");
            match event {
                Event::Part(head) => {
                    assert!(!std::mem::replace(&mut is_open, true), "a part within a part");
                    match head.name.as_str() {
                        "skip" => parser.skip_part(),
                        "charge" => parser.charge_part(),
                        _ => {}
                    }
                    assert!(!head.name.chars().any(char::is_control));
                    parts.push((head, Vec::new()));
                }
                Event::Data(data) => {
                    let (head, all) = parts.last_mut().filter(|_| is_open).expect("data belongs to a part");
                    assert!(!data.is_empty() && head.name != "skip");
                    all.extend_from_slice(&data);
                }
                Event::PartEnd => assert!(std::mem::replace(&mut is_open, false), "the end of no part"),
                Event::Closed => {
                    assert!(!is_open, "the end within a part");
                    is_closed = true;
                }
            }
        }
        Ok(())
    };
    let mut ended = Ok(());
    for frame in frames {
        parser.push(Bytes::copy_from_slice(frame));
        ended = take(&mut parser);
        if ended.is_err() {
            break;
        }
    }
    let ended = ended.and_then(|()| parser.finish()).and_then(|()| take(&mut parser));
    match &ended {
        Ok(()) => assert!(is_closed && !is_open),
        Err(error) => {
            assert_ne!(error.kind(), ErrorKind::Misuse);
            // It stays refused.
            parser.push(Bytes::from_static(b"\r\n--b-b--"));
            assert_eq!(parser.next().as_ref(), Err(error));
            assert_eq!(parser.finish().as_ref(), Err(error));
        }
    }
    (parts, ended)
}
