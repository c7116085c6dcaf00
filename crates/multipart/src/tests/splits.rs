//! Any data, split anywhere: one outcome, and where both should agree the one of a second parser.

use proptest::prelude::*;

use super::*;

/// The outcome of reading these frames with the boundary `b-b`.
fn outcome_of(frames: impl IntoIterator<Item = Bytes>) -> std::result::Result<Parts, ErrorKind> {
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

/// Where the first delimiter line of `b-b` begins, and whether it breaks a rule, found the slow and obvious way.
fn first_delimiter(body: &[u8]) -> Option<(usize, bool)> {
    (0..body.len()).find_map(|at| {
        let rest = body[at..].strip_prefix(b"\r\n--b-b")?;
        let (line, closing) = rest.strip_prefix(b"--").map_or((rest, false), |rest| (rest, true));
        let padding = line.iter().take_while(|byte| b" \t".contains(byte)).count();
        let line = &line[padding..];
        if padding <= 64 && (line.starts_with(b"\r\n") || closing && line.is_empty()) {
            return Some((at, false));
        }
        (closing || matches!(rest, [b'\r' | b'\n' | b' ' | b'\t', ..])).then_some((at, true))
    })
}

fn whole(body: &[u8]) -> std::result::Result<Parts, ErrorKind> {
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
        let (expected, broken) = first_delimiter(from_break.as_bytes()).expect("the closing one");
        prop_assume!(broken || expected == text.len() + 2);
        let body = format!("{HEAD}{text}\r\n--b-b--");
        let body = body.as_bytes();
        let outcome = whole(body);
        match &outcome {
            Ok(parts) => prop_assert!(!broken && parts[0].1 == text.as_bytes()),
            Err(kind) => prop_assert!(broken && *kind == ErrorKind::Invalid),
        }
        for at in 0..=body.len() {
            let frames = [&body[..at], &body[at..]].map(Bytes::copy_from_slice);
            prop_assert_eq!(&outcome_of(frames), &outcome, "at {}", at);
        }
        for sizes in [&[1][..], &sizes] {
            prop_assert_eq!(&outcome_of(split(body, sizes)), &outcome);
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
