//! Any bytes through the public API, as a fuzzer would send them: no panic, no event out of order, no byte that was not
//! sent, and the same outcome however the body is cut into frames. `PROPTEST_CASES` sets how many bodies are tried.

#![allow(clippy::expect_used, reason = "a test ends where it fails")]

use attachd_multipart::{Boundary, Error, Limits};
use proptest::collection::vec;
use proptest::prelude::*;

use reading::read;

mod reading;

/// What a form is made of, by itself and in pieces. The boundary is `b-b`.
const PIECES: [&[u8]; 24] = [
    b"--b-b\r\n",
    b"\r\n--b-b\r\n",
    b"\r\n--b-b--\r\n",
    b"\r\n--b-b",
    b"--b-b--",
    b"Content-Disposition: form-data; name=charge\r\n",
    b"Content-Disposition: form-data; name=\"skip\"; filename=\"f\"\r\n",
    b"Content-Disposition: form-data; name=\"x\"; filename*=UTF-8''%41",
    b"Content-Disposition: form-data; filename=\"\\",
    b"; filename*0*=iso-8859-1'en'%e9; filename*1=\"b\"",
    b"Content-Type: text/plain\r\n",
    b"Content-Transfer-Encoding: 8bit\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"\r",
    b"\n",
    b"-",
    b"--",
    b"\"",
    b" \t",
    b":",
    b"\0",
    b"\xff\xfe",
    b"data",
];

const LIMITS: Limits = Limits { preamble_bytes: 64, header_bytes: 256, headers: 4, overhead_bytes: 512 };

/// The frames of a body that is cut after each of these sizes in turn.
fn cut<'a>(mut body: &'a [u8], sizes: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
    let mut sizes = sizes.iter().cycle();
    std::iter::from_fn(move || {
        let (frame, rest) = body.split_at(body.len().min(*sizes.next()?));
        body = rest;
        (!frame.is_empty()).then_some(frame)
    })
}

fn body() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        8 => prop::sample::select(PIECES.to_vec()).prop_map(<[u8]>::to_vec),
        1 => vec(any::<u8>(), 0..40),
    ];
    let pieces = vec(piece, 0..24).prop_map(|pieces| pieces.concat());
    // Half of the bodies begin as a form does, so that many come far.
    (any::<bool>(), pieces).prop_map(|(form, rest)| {
        let start: &[u8] = if form { b"--b-b\r\nContent-Disposition: form-data; name=x\r\n\r\n" } else { b"" };
        [start, &rest].concat()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_body_of_any_bytes_has_one_outcome_however_it_is_cut(body in body(), sizes in vec(1..50_usize, 1..6)) {
        let whole = read([&body[..]], LIMITS);
        let data: usize = whole.0.iter().map(|(_, data)| data.len()).sum();
        prop_assert!(data <= body.len());
        for sizes in [&[1][..], &sizes] {
            let (parts, ended) = read(cut(&body, sizes), LIMITS);
            // The text may differ where a body breaks two rules.
            let kind = |ended: &Result<(), Error>| ended.as_ref().err().map(Error::kind);
            prop_assert_eq!(kind(&ended), kind(&whole.1), "{:?} {:?}", ended, whole.1);
            // Of a form that is refused, more may have been read before.
            if ended.is_ok() {
                prop_assert_eq!(&parts, &whole.0);
            }
        }
    }

    #[test]
    fn a_content_type_of_any_bytes_is_read_or_refused(value in vec(any::<u8>(), 0..100)) {
        let value = [b"multipart/form-data; boundary=", &value[..]].concat();
        let _ = Boundary::from_content_type(Some(&value));
    }
}
