//! The description of the REST port where it is served.

use serde_json::Value;

use crate::harness::{Ask, Server, Setup, run};

fn description() -> Ask {
    Ask::json("GET", 1, "/openapi.json", "").without("Authorization").without("Content-Type")
}

#[test]
fn the_description_is_served_without_a_token_and_is_what_the_command_prints() {
    let server = Server::start();
    let reply = server.connect().ask(&description());
    assert_eq!((reply.status, reply.header("content-type")), (200, "application/json"));
    assert!(!reply.header("x-request-id").is_empty(), "{reply:?}");
    let printed = run(&["openapi"]);
    assert!(printed.status.success() && printed.stderr.is_empty(), "{printed:?}");
    assert_eq!(reply.body, serde_json::from_slice::<Value>(&printed.stdout).unwrap());
    // A token is not looked at, and the query means nothing.
    assert_eq!(server.connect().ask(&description().by("a.b.c").path("?x=y")).status, 200);
    let mut connection = server.connect();
    connection.send(&description().method("HEAD").bytes()).unwrap();
    assert_eq!(connection.reply_without_body().expect("a reply").status, 200);
    connection.assert_serves();
    let reply = server.connect().ask(&description().method("POST"));
    reply.assert_refusal(405, "The resource does not support this method");
    assert_eq!(reply.header("allow"), "GET, HEAD");
}

#[test]
fn the_description_is_not_found_where_it_is_switched_off() {
    let variables = [("ATTACHD_REST__OPENAPI", "false".to_owned())].into();
    let server = Setup { variables, ..Setup::default() }.start();
    for method in ["GET", "HEAD", "POST"] {
        let mut connection = server.connect();
        connection.send(&description().method(method).bytes()).unwrap();
        assert_eq!(connection.reply_without_body().expect("a reply").status, 404, "{method}");
    }
}
