//! What a form is, what it is not, and that neither depends on how it is cut into frames.

use futures_util::stream;

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
fn outcome(result: Result<Parts>) -> std::result::Result<Parts, ErrorKind> {
    result.map_err(|error| error.kind())
}

fn kind(result: Result<Parts>) -> Option<ErrorKind> {
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
    result.expect_err("a refusal").kind() == ErrorKind::Invalid
}

fn cut(body: &[u8], size: usize) -> impl Iterator<Item = Bytes> + '_ {
    body.chunks(size).map(Bytes::copy_from_slice)
}

fn of_content_type(value: &str) -> Result<Boundary> {
    Boundary::from_content_type(Some(value.as_bytes()))
}

mod boundary;
mod cost;
mod frame;
mod headers;
mod limits;
mod names;
mod preamble;
mod splits;
