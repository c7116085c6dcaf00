//! Keys of the query that were meant to be an id and are not written as one. The attachment would be stored under no project.

use crate::harness::{Ask, Form, Server, eventually, token};

fn upload(query: &str) -> Ask {
    Ask::upload(1, 2, &Form::file(b"content")).path(query)
}

#[test]
fn a_near_miss_of_a_query_id_is_refused_and_the_right_key_is_named() {
    let server = Server::start();
    let mut connection = server.connect();
    for (field, keys) in [
        (
            "project_id",
            &[
                "projectId",
                "project-id",
                "Project_id",
                "PROJECT_ID",
                "projectid",
                "project_ids",
                "projectIds",
                "projects",
                "project",
                "header.project_id",
                "project_id[]",
                "project_id%5B%5D",
                "project_id[0]",
                "filter[project_id]",
                "project.id",
                "project+id",
                "project_id+",
                "project_id%20",
                "%20project_id",
                "%EF%BB%BFproject_id",
                "project_id%00",
                "project%FF_id",
                "project%255Fid",
                "project_id%3D5",
                "%23project_id",
                "amp;project_id",
                "?project_id",
                "projet_id",
                "porject_id",
                "pr%D0%BEject_id",
                "pr\u{43e}ject_id",
            ][..],
        ),
        (
            "portfolio_id",
            &["portfolioId", "portfolio-id", "PortfolioID", "portfolioid", "portfolio_ids", "portfolio", "porfolio_id"],
        ),
    ] {
        for key in keys {
            for query in
                [format!("?{key}=5"), format!("?x=y&{key}=5"), format!("?{key}"), format!("?{field}=5&{key}=5")]
            {
                let details = format!("Validation error: {field}: write the query key ");
                let reply = connection.ask(&upload(&query));
                let said = (reply.status, reply.details().starts_with(&details), reply.details().ends_with(field));
                assert_eq!(said, (400, true, true), "{query}: {reply:?}");
            }
        }
    }
    assert!(server.objects().is_empty());
    connection.assert_serves();
}

#[test]
fn an_id_that_another_separator_hides_in_a_value_is_refused() {
    let server = Server::start();
    for query in ["?a=1;project_id=5", "?a=1?project_id=5", "?a=;;projectId=5", "?portfolio_id=6;project_id=5"] {
        let details = "Validation error: project_id: must be separated by & from what stands before it in the query";
        server.assert_refused(&upload(query), 400, details);
    }
}

#[test]
fn a_query_key_that_means_something_else_is_ignored() {
    let server = Server::start();
    let mut connection = server.connect();
    for query in [
        "?project_name=a",
        "?project[name]=a",
        "?page=1&page_size=2",
        "?projection=x",
        "?projected=true",
        "?utm_source=a&utm_campaign=b&utm_id=5",
        "?product_id=5",
        "?productId=5",
        "?subject_id=5&object_id=6",
        "?id=5&ids=6",
        "?client_id=an-app&attachment_id=9",
        "?return_to=/list;project_id=5",
        "?return_to=https://example.com/?project_id=5",
        "?a=1%26project_id=5",
        "?sort=project_id",
        "?q=x;y;z=1",
    ] {
        let reply = connection.ask(&upload(query));
        assert_eq!(reply.status, 201, "{query}: {reply:?}");
    }
    let record = server.record(1, 2).unwrap();
    assert!(record.get("project_id").is_none() && record.get("portfolio_id").is_none(), "{record}");
    // An escape is another way to write the same key.
    assert_eq!(
        connection.ask(&Ask::upload(1, 3, &Form::file(b"content")).path("?project%5Fid=5&%70ortfolio_id=6")).status,
        201
    );
    let record = server.record(1, 3).unwrap();
    assert_eq!((&record["project_id"], &record["portfolio_id"]), (&5.into(), &6.into()), "{record}");
}

#[test]
fn a_near_miss_is_found_after_the_token_and_before_the_scope() {
    let server = Server::start();
    let ask = upload("?projectId=5");
    server.assert_refused(&ask.clone().without("Authorization"), 401, "JWT token not found");
    server.assert_refused(&ask.clone().by(&token(&[7])), 400, "Validation error: project_id");
    let mut connection = server.connect();
    connection.send(&ask.with("Expect", "100-continue").with("X-Request-Id", "missed").head()).unwrap();
    connection.reply().expect("a reply").assert_refusal(400, "Validation error: project_id");
    eventually("the refusal is logged", || {
        server.log().iter().any(|line| line.contains("missed") && line.contains("projectId"))
    });
}

#[test]
fn a_long_key_is_quoted_in_part_and_nothing_in_it_is_left_unescaped() {
    let server = Server::start();
    let long = format!("?project_id[{}]=5", "x".repeat(20_000));
    let reply = server.connect().ask(&upload(&long));
    reply.assert_refusal(400, "Validation error: project_id");
    assert!(reply.details().len() < 200, "{reply:?}");
    let reply = server.connect().ask(&upload("?project_id%0D%0A%22%E2%80%AE=5"));
    reply.assert_refusal(400, "Validation error: project_id");
    assert!(reply.details().contains(r#""project_id\r\n\"\u{202e}""#), "{reply:?}");
}
