//! A request that says it is one chunk of a larger file is refused: stored as the file, it would destroy the file.

use crate::harness::{Ask, Form, Server};

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"";

fn upload() -> Ask {
    Ask::upload(1, 2, &Form::file(b"content"))
}

/// A form of the file and fields, which come before or after it.
fn with_fields(fields: &[(&str, &str)], before: bool) -> Ask {
    let mut form = if before { Form::default() } else { Form::default().part(FILE, b"chunk") };
    for (name, value) in fields {
        form = form.part(&format!("Content-Disposition: form-data; name=\"{name}\""), value.as_bytes());
    }
    if before {
        form = form.part(FILE, b"chunk");
    }
    Ask::upload(1, 2, &form)
}

/// The same, whose body ends right after the dashes of the closing delimiter.
fn without_line_end(ask: Ask) -> Ask {
    let body = ask.framed_body();
    ask.body(&body[..body.len() - 2])
}

/// Looks that a request is refused as a chunk by a text that has `sign` in it, and that the stored file is as it was.
fn assert_chunk(server: &Server, ask: &Ask, sign: &str) {
    for ask in [ask.clone(), ask.clone().chunked(5)] {
        let reply = server.connect().ask(&ask);
        reply.assert_refusal(400, "Validation error");
        let text = reply.details();
        assert!(text.contains(sign), "{sign}: {text}");
        assert!(text.contains("one chunk of a larger file"), "{text}");
        assert!(text.contains("send the whole file in one request"), "{text}");
    }
    assert_eq!(server.stored(1, 2).unwrap(), b"content", "{sign}");
}

fn filled() -> Server {
    let server = Server::start();
    assert_eq!(server.connect().ask(&upload()).status, 201);
    server
}

#[test]
fn a_header_that_says_the_request_is_a_chunk_is_refused() {
    let server = filled();
    for (name, value) in [
        ("Content-Range", "bytes 4-7/10"),
        ("Content-Range", "bytes 0-3/*"),
        ("Content-Range", "bytes */10"),
        ("X-Content-Range", "bytes 0-3/10"),
        ("Upload-Complete", "?0"),
        ("Upload-Complete", "0"),
        ("Upload-Incomplete", "?1"),
        ("Upload-Offset", "4"),
        ("Upload-Draft-Interop-Version", "6"),
        ("Tus-Resumable", "1.0.0"),
        ("Upload-Length", "10"),
        ("Upload-Defer-Length", "1"),
        ("Upload-Metadata", "filename YS50eHQ="),
        ("Upload-Concat", "partial"),
        ("X-Chunk-Index", "1"),
        ("X-Chunk-Number", "1"),
        ("X-Total-Chunks", "3"),
        ("X-Chunk-Count", "3"),
        ("Uploader-Chunk-Number", "0"),
        ("Uploader-Chunks-Total", "7"),
        ("OC-Chunked", "1"),
    ] {
        assert_chunk(&server, &upload().with(name, value), &name.to_ascii_lowercase());
    }
}

#[test]
fn a_header_of_a_chunk_is_seen_before_a_byte_of_the_body_is_read() {
    let server = filled();
    let mut connection = server.connect();
    let ask = upload().with("Content-Range", "bytes 4-7/10").with("Expect", "100-continue");
    connection.send(&ask.head()).unwrap();
    connection.reply().expect("a reply").assert_refusal(400, "Validation error");
    // But after who may know: no right, no word of the rest.
    let stranger = Ask::upload(7, 2, &Form::file(b"x")).with("Content-Range", "bytes 4-7/10").by("a.b.c");
    assert_eq!(server.connect().ask(&stranger).status, 401);
}

#[test]
fn a_whole_file_in_the_words_of_resumable_uploads_is_stored() {
    let server = filled();
    for headers in [
        &[("Upload-Complete", "?1")][..],
        &[("Upload-Complete", "?1"), ("Upload-Draft-Interop-Version", "6"), ("Upload-Length", "7")],
        &[("Upload-Incomplete", "?0"), ("Upload-Draft-Interop-Version", "3")],
        &[("X-Total-Chunks", "1"), ("X-Chunk-Index", "0")],
        &[("X-Chunk-Size", "1000000")],
    ] {
        let ask = headers.iter().fold(upload(), |ask, (name, value)| ask.with(name, value));
        let reply = server.connect().ask(&ask);
        assert_eq!(reply.status, 201, "{headers:?}: {reply:?}");
    }
}

/// What uploaders send with one of several chunks, and the field that gives it away.
const CHUNKS: [(&[(&str, &str)], &str); 18] = [
    (
        &[("dzuuid", "a-b-c"), ("dzchunkindex", "0"), ("dztotalfilesize", "9"), ("dztotalchunkcount", "3")],
        "dztotalchunkcount",
    ),
    (&[("dzchunkindex", "2"), ("dztotalchunkcount", "3")], "dzchunkindex"),
    (&[("dzchunkbyteoffset", "4000")], "dzchunkbyteoffset"),
    (&[("name", "a.bin"), ("chunk", "0"), ("chunks", "3")], "chunks"),
    (&[("chunk", "2"), ("chunks", "3")], "chunk"),
    (&[("chunk", "0")], "chunk"),
    (&[("flowChunkNumber", "1"), ("flowChunkSize", "4"), ("flowTotalChunks", "3")], "flowTotalChunks"),
    (&[("flowTotalChunks", "99999999999999999999999999")], "flowTotalChunks"),
    (&[("resumableChunkNumber", "1"), ("resumableTotalChunks", "2")], "resumableTotalChunks"),
    (&[("resumableChunkNumber", "1")], "resumableChunkNumber"),
    (&[("qqpartindex", "0"), ("qqtotalparts", "2")], "qqtotalparts"),
    (&[("qqpartbyteoffset", "2000000")], "qqpartbyteoffset"),
    (&[("chunkNumber", "2"), ("totalChunks", "3")], "chunkNumber"),
    (&[("chunk_index", "0"), ("total_chunks", " 3 ")], "total_chunks"),
    (&[("chunk-index", "0"), ("total-chunk", "3")], "total-chunk"),
    (&[("_chunkNumber", "1"), ("_chunkSize", "4")], "_chunkNumber"),
    (&[("metadata", "{\"chunkIndex\":0,\"totalChunks\":3,\"fileName\":\"a.bin\"}")], "metadata"),
    (&[("chunkMetadata", "{\"FileName\":\"a.bin\",\"Index\":0,\"TotalCount\":3}")], "chunkMetadata"),
];

#[test]
fn a_form_field_that_says_the_file_is_a_chunk_is_refused_before_or_after_the_file() {
    let server = filled();
    for (fields, sign) in CHUNKS {
        for before in [true, false] {
            let (ask, sign) = (with_fields(fields, before), format!("the form field \"{sign}\""));
            assert_chunk(&server, &ask, &sign);
            assert_chunk(&server, &without_line_end(ask), &sign);
        }
    }
}

#[test]
fn a_query_that_says_the_request_is_a_chunk_is_refused() {
    let server = filled();
    for (query, sign) in [
        ("?dzchunkindex=0&dztotalchunkcount=3", "dztotalchunkcount"),
        ("?chunk=0&chunks=3", "chunks"),
        ("?chunk=0", "chunk"),
        ("?flowChunkNumber=1&flowTotalChunks=3", "flowTotalChunks"),
        ("?resumableChunkNumber=1&resumableTotalChunks=2&x=y", "resumableTotalChunks"),
        ("?resumable%43hunkNumber=1", "resumableChunkNumber"),
        ("?qqpartindex=%30&qqtotalparts=%32", "qqtotalparts"),
    ] {
        assert_chunk(&server, &upload().path(query), &format!("the query key \"{sign}\""));
    }
}

#[test]
fn a_file_of_one_chunk_is_stored_and_so_is_one_beside_fields_of_no_chunks() {
    let server = filled();
    for fields in [
        &[("dzchunkindex", "0"), ("dztotalchunkcount", "1")][..],
        &[("chunk", "0"), ("chunks", "1")],
        &[("chunk", "0"), ("chunks", "0")],
        &[("flowChunkNumber", "1"), ("flowTotalChunks", "1")],
        &[("resumableTotalChunks", "1"), ("resumableChunkNumber", "1")],
        &[("qqpartindex", "0"), ("qqtotalparts", "1")],
        &[("chunkIndex", "0"), ("totalChunks", "1")],
        &[("metadata", "{\"chunkIndex\":0,\"totalChunks\":1}")],
        &[("metadata", "{\"pages\":12}")],
        &[("metadata", "not JSON")],
        &[("chunk", "of wood"), ("chunks", "many")],
        &[("chunkSize", "1000000"), ("description", "3 chunks")],
        &[("dzchunkindex", ""), ("dztotalchunkcount", "")],
    ] {
        for before in [true, false] {
            let reply = server.connect().ask(&with_fields(fields, before));
            assert_eq!(reply.status, 201, "{fields:?}: {reply:?}");
            assert_eq!(server.stored(1, 2).unwrap(), b"chunk");
        }
    }
    for query in ["?chunk=0&chunks=1", "?flowTotalChunks=1&flowChunkNumber=1", "?chunk", "?chunks=some"] {
        assert_eq!(server.connect().ask(&upload().path(query)).status, 201, "{query}");
    }
}

#[test]
fn fields_that_are_read_are_bounded_like_those_that_are_skipped() {
    let server = filled();
    let long = "9".repeat(100_000);
    for name in ["chunks", "metadata"] {
        for before in [true, false] {
            let reply = server.connect().ask(&with_fields(&[(name, &long)], before));
            reply.assert_refusal(400, "Validation error");
            assert!(reply.details().contains(&format!("the part \"{name}\" is not expected")), "{reply:?}");
        }
    }
    let many = vec![("chunks", "1"); 2000];
    server.connect().ask(&with_fields(&many, true)).assert_refusal(400, "Validation error");
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn a_part_that_is_a_range_of_the_file_is_refused() {
    let server = filled();
    let form = Form::default().part(&format!("{FILE}\r\nContent-Range: bytes 4-7/10"), b"chunk");
    assert_chunk(&server, &Ask::upload(1, 2, &form), "a part has a content-range");
}
