//! The description of a service that attachd does not know, and that of attachd's own.

use std::path::Path;

use super::*;
use crate::pb::{self, attachment_service_server::SERVICE_NAME};
use crate::rest::openapi::document;

/// The paths and the schemas of the service that the transcoder is tested with.
fn library() -> (Members, Members) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler = protox::Compiler::new([root.join("tests/transcode"), root.join("proto")]).unwrap();
    compiler.include_imports(true).include_source_info(true).open_file("library.proto").unwrap();
    described(&compiler.descriptor_pool(), "library.v1.LibraryService").unwrap()
}

/// The names of the parameters of an operation in one place.
fn names(operation: &Value, place: &str) -> Vec<String> {
    let parameters = operation["parameters"].as_array().unwrap().iter();
    let here = parameters.filter(|parameter| parameter["in"] == place);
    here.map(|parameter| parameter["name"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn every_unary_route_is_described_and_no_other() {
    let (paths, _) = library();
    let routes: Vec<_> = paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |verb| format!("{verb} {path}")))
        .collect();
    let expected = [
        "get /v1/books/search",
        "get /v1/books/{name}",
        "get /v1/everything/{number}",
        "put /v1/everything/{number}",
        "patch /v1/{book.name}",
        "delete /v1/{name}",
        "get /v1/{name}",
        "lock /v1/{name}",
        "post /v1/{name}:publish",
        "get /v1/{parent}/books",
        "post /v1/{parent}/books",
    ];
    assert_eq!(routes, expected);
    assert_eq!(
        (&paths["/v1/{name}"]["get"]["operationId"], &paths["/v1/books/{name}"]["get"]["operationId"]),
        (&json!("getBook"), &json!("getBook2"))
    );
}

#[test]
fn parameters_and_bodies_are_those_that_are_bound() {
    let (paths, schemas) = library();
    let list = &paths["/v1/{parent}/books"]["get"];
    assert_eq!(names(list, "path"), ["parent"]);
    assert_eq!(names(list, "query"), ["page_size", "page_token", "languages"]);
    assert!(list.get("requestBody").is_none());
    let remove = &paths["/v1/{name}"]["delete"];
    assert_eq!(
        (names(remove, "query"), names(remove, "header")),
        (vec![], vec!["If-Match".to_owned(), "If-None-Match".to_owned(), "X-Request-Id".to_owned()])
    );
    let create = &paths["/v1/{parent}/books"]["post"];
    assert_eq!(names(create, "query"), ["book_id"]);
    let schema = |operation: &Value| operation["requestBody"]["content"]["application/json"]["schema"].clone();
    assert_eq!(schema(create), json!({ "$ref": "#/components/schemas/BookInput" }));
    assert_eq!(schemas["BookInput"]["properties"]["sold_count"]["type"], "integer");
    assert_eq!(schemas["Book"]["properties"]["sold_count"]["type"], "string");
    assert_eq!(schemas["Book"]["properties"]["published_at"], json!({ "type": "string", "format": "date-time" }));
    // What the path binds need not be in the body.
    let put = &paths["/v1/everything/{number}"]["put"];
    assert_eq!((names(put, "query"), schema(put)), (vec![], json!({ "$ref": "#/components/schemas/EverythingInput" })));
    let properties = schemas["EverythingInput"]["properties"].as_object().unwrap();
    assert!(!properties.contains_key("number") && properties.contains_key("nested"), "{properties:?}");
}

#[test]
fn replies_are_described_as_they_are_sent() {
    let (paths, schemas) = library();
    let success = |path: &str, verb: &str| {
        let response = &paths[path][verb]["responses"]["200"];
        let name = response["content"]["application/json"]["schema"]["$ref"]
            .as_str()
            .unwrap()
            .rsplit('/')
            .next()
            .unwrap()
            .to_owned();
        (response["headers"].clone(), schemas[&name]["properties"].clone())
    };
    let (headers, page) = success("/v1/{parent}/books", "get");
    assert_eq!(page["details"], json!({ "type": "array", "items": { "$ref": "#/components/schemas/Book" } }));
    assert_eq!((&page["next_page_token"]["type"], &page["total_count"]["type"]), (&json!("string"), &json!("string")));
    assert_eq!(headers["Link"]["required"], false);
    assert_eq!(success("/v1/{name}", "get").1["details"]["items"], json!({ "$ref": "#/components/schemas/Book" }));
    assert_eq!(success("/v1/{name}", "delete").1["details"]["maxItems"], 0);
    assert_eq!(
        success("/v1/{name}:publish", "post").1["details"]["items"],
        json!({ "$ref": "#/components/schemas/PublishBookResponse" })
    );
}

#[test]
fn every_reference_leads_to_a_schema() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str).map(str::to_owned));
                members.values().for_each(|value| references(value, found));
            }
            Value::Array(values) => values.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }
    let (paths, schemas) = library();
    let document = document().unwrap();
    let own = document["components"]["schemas"].as_object().unwrap().clone();
    for (value, schemas) in [(json!({ "paths": paths, "schemas": schemas }), schemas), (document, own)] {
        let mut found = Vec::new();
        references(&value, &mut found);
        for reference in found {
            let name = reference.strip_prefix("#/components/schemas/").unwrap();
            assert!(name == "ErrorResponse" || schemas[name].is_object(), "{reference}");
        }
    }
}

#[test]
fn attachd_describes_each_unary_rpc_that_has_a_route_with_the_comments_of_its_proto() {
    let document = document().unwrap();
    let pool = DescriptorPool::decode(pb::DESCRIPTORS).unwrap();
    for (method, rule) in rules(&pool, SERVICE_NAME).unwrap() {
        let operation = &document["paths"][path(&rule.text)][rule.verb.as_str().to_lowercase()];
        if method.is_client_streaming() || method.is_server_streaming() {
            continue;
        }
        assert_eq!(operation["summary"].as_str().unwrap().to_lowercase(), words(method.name()), "{operation}");
        let description = operation["description"].as_str().unwrap();
        assert!(description.contains("Needs the scope `attachments:"), "{description}");
    }
    let register = &document["paths"]["/api/v2/clients/{client_id}/attachments/{attachment_id}"]["put"];
    assert_eq!(names(register, "path"), ["client_id", "attachment_id"]);
    assert_eq!(register["parameters"][0]["schema"]["minimum"], 1);
    assert_eq!(register["responses"]["415"]["headers"]["Accept"]["required"], true);
    let schema = &document["components"]["schemas"]["RegisterAttachmentRequest"];
    assert!(schema["properties"].as_object().unwrap().keys().eq(["portfolio_id", "project_id"]), "{schema}");
    assert_eq!(schema["additionalProperties"], false);
}
