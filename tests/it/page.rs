//! The page for people, as it is served. tests/page uses it in a browser.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::harness::{Ask, Reply, Server, Setup, sha256};

fn server(page: &str) -> Server {
    let variables = [("ATTACHD_REST__PAGE", page.to_owned())].into();
    Setup { variables, ..Setup::default() }.start()
}

fn page() -> Ask {
    Ask::json("GET", 1, "/", "").without("Authorization").without("Content-Type")
}

fn text(reply: &Reply) -> String {
    String::from_utf8(reply.bytes.clone()).unwrap()
}

#[test]
fn the_page_is_served_without_a_token_and_may_run_its_own_script_alone() {
    let server = server("true");
    let reply = server.connect().ask(&page());
    assert_eq!((reply.status, reply.header("content-type")), (200, "text/html; charset=utf-8"));
    assert_eq!((reply.header("x-content-type-options"), reply.header("referrer-policy")), ("nosniff", "no-referrer"));
    let (policy, text) = (reply.header("content-security-policy"), text(&reply));
    for element in ["script", "style"] {
        let parts: Vec<_> = text.split(&format!("<{element}")).collect();
        assert_eq!(parts.len(), 2, "the page has one {element}");
        let inside = parts[1].strip_prefix('>').and_then(|rest| rest.split_once(&format!("</{element}>"))).unwrap().0;
        let digest = STANDARD.encode(sha256(inside.as_bytes()));
        assert!(policy.contains(&format!("{element}-src 'sha256-{digest}';")), "{policy}");
    }
    assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
    // Nothing is fetched from elsewhere.
    assert!(!text.contains("http:") && !text.contains("https:"), "{text}");
    // The query and the token mean nothing, and nothing else is below the root.
    assert_eq!(server.connect().ask(&page().by("a.b.c").path("?x=y")).status, 200);
    assert_eq!(server.connect().ask(&page().path("/")).status, 404);
    let reply = server.connect().ask(&page().method("POST"));
    reply.assert_refusal(405, "The resource does not support this method");
    assert_eq!(reply.header("allow"), "GET, HEAD");
    let mut connection = server.connect();
    connection.send(&page().method("HEAD").bytes()).unwrap();
    assert_eq!(connection.reply_without_body().expect("a reply").status, 200);
    connection.assert_serves();
}

#[test]
fn there_is_no_page_unless_it_is_switched_on() {
    for server in [server("false"), Server::start()] {
        server.connect().ask(&page()).assert_refusal(404, "The requested resource was not found");
    }
}
