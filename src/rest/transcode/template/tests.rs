//! Templates and paths. The cases are those of the tests of grpc-gateway (`internal/httprule`, `runtime`) and of Envoy's
//! transcoder (`grpc-httpjson-transcoding`), in the words of this module.

use super::*;

fn template(text: &str) -> Template {
    Template::parse(text).unwrap()
}

fn parts(path: &str) -> Vec<&str> {
    path.strip_prefix('/').unwrap().split('/').collect()
}

/// What a template captures of a path, decoded. None if the path does not fit.
fn captured(text: &str, path: &str) -> Option<Vec<(String, String)>> {
    let template = template(text);
    let parts = parts(path);
    template.fits(&parts).then(|| {
        let captures = template.captures(&parts);
        captures.iter().map(|capture| (capture.field.to_owned(), capture.decoded().unwrap())).collect()
    })
}

fn assert_captures(text: &str, path: &str, expected: &[(&str, &str)]) {
    let expected = expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    assert_eq!(captured(text, path), Some(expected), "{text} of {path}");
}

#[test]
fn a_path_fits_a_template_segment_by_segment() {
    for (text, path) in [
        ("/v1", "/v1"),
        ("/v1/b", "/v1/b"),
        ("/v1/endpoint/*", "/v1/endpoint/x"),
        ("/v1/endpoint/**", "/v1/endpoint"),
        ("/v1/endpoint/**", "/v1/endpoint/x"),
        ("/v1/endpoint/**", "/v1/endpoint/x/y/z"),
        ("/**", "/x"),
        ("/*/**", "/x"),
        ("/*/a/**", "/x/a/y/z"),
        ("/**/tail", "/tail"),
        ("/**/tail", "/x/y/tail"),
        ("/v1/a=b&c=d;e=f:g/endpoint.rdf", "/v1/a=b&c=d;e=f:g/endpoint.rdf"),
        ("/-._~!$&'()+,;=@", "/-._~!$&'()+,;=@"),
        ("/foo/*/hello", "/foo/other:verb/hello"),
    ] {
        assert!(template(text).fits(&parts(path)), "{text} of {path}");
    }
    for (text, path) in [
        ("/v1", "/"),
        ("/v1", "/v2"),
        ("/v1", "/v1/"),
        ("/v1", "//v1"),
        ("/v1", "/V1"),
        ("/v1/b", "/v1"),
        ("/v1/b", "/v1/b/c"),
        ("/v1/*", "/v1/"),
        ("/v1/*", "/v1/x/y"),
        ("/v1/endpoint/**", "/v1/endpoints"),
        ("/**/tail", "/x/tail/y"),
        ("/*/**", "/"),
        ("/prefix/middle/suffix", "/prefix/middle"),
    ] {
        assert!(!template(text).fits(&parts(path)), "{text} of {path}");
    }
}

#[test]
fn a_variable_captures_what_its_pattern_stands_for() {
    assert_captures("/a/{x}/c/d/e", "/a/book/c/d/e", &[("x", "book")]);
    assert_captures("/{x=a/*}/b/{y=*}/c", "/a/hello/b/world/c", &[("x", "a/hello"), ("y", "world")]);
    assert_captures("/a/{x=b/*}/{y=d/**}", "/a/b/zoo/d/animal/tiger", &[("x", "b/zoo"), ("y", "d/animal/tiger")]);
    assert_captures(
        "/alpha/{x=*}/beta/{y=**}/gamma",
        "/alpha/dog/beta/eat/bones/gamma",
        &[("x", "dog"), ("y", "eat/bones")],
    );
    assert_captures("/{x=**}/a/b", "/foo/bar/a/b", &[("x", "foo/bar")]);
    assert_captures("/{x=**}/a/b", "/a/b", &[("x", "")]);
    assert_captures("/a/b/c/{x=**}", "/a/b/c/foo/bar/baz", &[("x", "foo/bar/baz")]);
    assert_captures("/a/b/c/{x=**}", "/a/b/c", &[("x", "")]);
    assert_captures("/{x=*}/d/e/f/{y=**}", "/foo/d/e/f/bar/baz", &[("x", "foo"), ("y", "bar/baz")]);
    assert_captures("/a/{b=c/**/d}/e", "/a/c/x/y/d/e", &[("b", "c/x/y/d")]);
    assert_captures("/{x.y.z=*/a/b}/c", "/q/a/b/c", &[("x.y.z", "q/a/b")]);
    assert_captures("/v1/{name=segment/wi:th}", "/v1/segment/wi:th", &[("name", "segment/wi:th")]);
    assert_captures("/v1/{name=fixed}", "/v1/fixed", &[("name", "fixed")]);
    assert_eq!(captured("/{x=a/*}/b", "/c/hello/b"), None);
}

#[test]
fn a_verb_ends_the_path_and_is_no_part_of_a_variable() {
    assert_captures("/v1/{name}:publish", "/v1/x:publish", &[("name", "x")]);
    assert_captures("/v1/{name}:bla:baa", "/v1/x:bla:baa", &[("name", "x")]);
    assert_captures("/a/{y=d/**}:verb", "/a/d/animal/tiger:verb", &[("y", "d/animal/tiger")]);
    assert_captures("/{x=**}/b:verb", "/foo/bar/b:verb", &[("x", "foo/bar")]);
    assert_captures("/{a=*}/{b=*}:verb", "/some:verb/const:verb", &[("a", "some:verb"), ("b", "const")]);
    assert_captures("/{x=**}:verb", "/person:verb", &[("x", "person")]);
    // Without a verb in the template a colon is text.
    assert_captures("/foo/{a=*}", "/foo/other:verb", &[("a", "other:verb")]);
    for (text, path) in [
        ("/v1:LOCK", "/v1"),
        ("/v1:LOCK", "/LOCK"),
        ("/v1:LOCK", "/v1:lock"),
        ("/v1/{name}:publish", "/v1/x"),
        ("/v1/{name}:publish", "/v1/:publish"),
        ("/v1/{name}:publish", "/v1/x:publish/"),
        ("/v1/{name}:publish", "/v1/xpublish"),
        ("/a:foo", "/a:foo:foo"),
    ] {
        assert_eq!(captured(text, path), None, "{text} of {path}");
    }
}

#[test]
fn what_is_captured_is_decoded_and_an_encoded_slash_divides_no_segments() {
    assert_captures("/a/{x}/c", "/a/p%20q%2Fr+/c", &[("x", "p q/r+")]);
    assert_captures("/{x}", "/%E7%AC%AC%e4%b8%80", &[("x", "第一")]);
    assert_captures("/a/{x=p/*/q/*}/c", "/a/p/foo%20foo/q/bar%2Fbar/c", &[("x", "p/foo foo/q/bar%2Fbar")]);
    assert_captures("/a/{x=**}/c", "/a/p/foo%20foo/q/bar%2fbar+/c", &[("x", "p/foo foo/q/bar%2fbar+")]);
    assert_captures("/{x}", "/%25%2E%2e", &[("x", "%..")]);
    assert_captures("/{x=**}", "/%252F", &[("x", "%2F")]);
    // A broken escape is text.
    assert_captures("/{x}", "/%zz%2", &[("x", "%zz%2")]);
    let broken = template("/{x}");
    assert_eq!(broken.captures(&parts("/%FF"))[0].decoded(), None);
    let broken = template("/{x=**}");
    assert_eq!(broken.captures(&parts("/a%2F%FF/b"))[0].decoded(), None);
}

#[test]
fn of_templates_that_fit_the_one_that_says_most_is_asked_first() {
    for (path, texts) in [
        ("/v1/search", ["/v1/search", "/v1/{id}"]),
        ("/a/b/c", ["/a/{x}/c", "/a/{x}/{y}"]),
        ("/a/b/world/c/z", ["/a/{x=b/**}/z", "/a/{x=b/**}"]),
        ("/a/b/world/c/y/z", ["/a/{x=b/**}/y/z", "/a/{x=b/**}/z"]),
        ("/a/b/c", ["/a/{x=b/**}", "/a/{x=**}"]),
        ("/a/b/foo/y/z/bar/foo", ["/a/{x=b/*/y/z/**}/foo", "/a/{x=b/**}"]),
        ("/x/y:verb", ["/x/y:verb", "/{x=**}:verb"]),
        ("/some:verb/const:verb", ["/{a=**}:verb", "/{a=**}"]),
        ("/person/jason:verb", ["/{x=**}:verb", "/person/{id=*}"]),
    ] {
        let mut templates = texts.map(template);
        templates.reverse();
        assert!(templates.iter().all(|template| template.fits(&parts(path))), "{path}");
        templates.sort_by_key(Template::rank);
        assert_eq!(templates[0], template(texts[0]), "{path}");
    }
    assert!(template("/a/{x}/b").is_same(&template("/a/*/b")));
    assert!(!template("/a/{x}").is_same(&template("/a/{x}:verb")));
}

#[test]
fn a_template_that_cannot_be_served_is_refused_with_its_text() {
    for (text, why) in [
        ("", "does not begin with a slash"),
        ("v1/x", "does not begin with a slash"),
        ("/", "has the segment \"\""),
        ("//a", "has the segment \"\""),
        ("/a/", "has the segment \"\""),
        ("/a//b", "has the segment \"\""),
        ("/a/{x", "has a variable without an end"),
        ("/a/x}", "has the segment \"x}\""),
        ("/a/{x}b", "has no slash after a variable"),
        ("/a/{x}{y}", "has no slash after a variable"),
        ("/a{x=b/**}/{y=*}", "has the segment"),
        ("/a/{}", "binds \"\""),
        ("/a/{x.}", "binds \"x.\""),
        ("/a/{9}", "binds \"9\""),
        ("/a/{x-y}", "binds \"x-y\""),
        ("/a/{x={y}}", "has the segment \"{y\""),
        ("/a/{x=}", "has the segment \"\""),
        ("/a/{x=b/}", "has the segment \"\""),
        ("/a/{x}/{x}", "binds x twice"),
        ("/a/**/**", "has ** more than once"),
        ("/a/{x=**}/{y=**}", "has ** more than once"),
        ("/a/***", "has the segment \"***\""),
        ("/a/b*", "has the segment \"b*\""),
        ("/a b", "has the segment \"a b\""),
        ("/a?b", "has the segment \"a?b\""),
        ("/a#b", "has the segment \"a#b\""),
        ("/a:", "has a verb that is no text"),
        ("/v1/{name}:", "has a verb that is no text"),
    ] {
        let refused = Template::parse(text).unwrap_err();
        assert!(refused.starts_with(&format!("the path template {text} ")) && refused.contains(why), "{refused}");
    }
}
