//! What a token that holds grants: claims, their names and shapes.

use super::*;

#[test]
fn a_good_token_becomes_the_principal_it_describes() {
    let principal = hs256().verdict(&token(&good()), at(NOW)).unwrap();
    assert_eq!((principal.issuer(), principal.subject()), (ISSUER, "svc-a"));
    assert!(principal.allows(Scope::Write) && !principal.allows(Scope::Read) && !principal.allows(Scope::Manage));
    assert!(principal.holds_client(7) && !principal.holds_client(8));
    assert!([1, 2, 3].into_iter().all(|id| principal.holds_project(id)));
    assert!(!principal.holds_project(0) && !principal.holds_project(4));
    assert!(principal.holds_portfolio(1) && principal.holds_portfolio(i64::MAX));
}

#[test]
fn a_claim_that_is_absent_or_null_grants_nothing() {
    let bare = json!({"iss": ISSUER, "aud": "attachd", "sub": "svc-a", "exp": NOW + 300});
    let null = json!({"scope": null, "client_ids": null, "project_ids": null, "portfolio_ids": null});
    for claims in [bare.clone(), with(bare, null)] {
        let principal = hs256().verdict(&token(&claims), at(NOW)).unwrap();
        assert!(Scope::ALL.into_iter().all(|scope| !principal.allows(scope)));
        assert!(!principal.holds_client(1) && !principal.holds_project(1) && !principal.holds_portfolio(1));
    }
}

#[test]
fn scopes_are_a_string_or_an_array_and_names_must_match_exactly() {
    let scopes = |claim: Value| {
        let principal = hs256().verdict(&token(&with(good(), json!({ "scope": claim }))), at(NOW)).unwrap();
        Scope::ALL.into_iter().filter(|scope| principal.allows(*scope)).collect::<Vec<_>>()
    };
    assert_eq!(scopes(json!("attachments:manage attachments:read")), [Scope::Read, Scope::Manage]);
    assert_eq!(scopes(json!(["attachments:write", "other"])), [Scope::Write]);
    for nothing in [json!(""), json!([]), json!("attachments:writer"), json!("Attachments:Write"), json!("*")] {
        assert_eq!(scopes(nothing), []);
    }
    assert_eq!(scopes(json!(["attachments:write attachments:read"])), []);
    assert_claim_invalid("scope", &[json!(1), json!({}), json!(["attachments:write", 1]), json!([null]), json!(true)]);
}

#[test]
fn ids_are_integers_or_their_digits_one_or_several_or_a_star() {
    let clients =
        |claim: Value| hs256().verdict(&token(&with(good(), json!({ "client_ids": claim }))), at(NOW)).unwrap();
    for one in [json!([7]), json!(["7"]), json!(7), json!("7"), json!([8, "7"]), json!([7, 7])] {
        assert!(clients(one.clone()).holds_client(7), "{one}");
        assert!(!clients(one).holds_client(1));
    }
    for most in [json!([1, i64::MAX]), json!(["9223372036854775807"])] {
        assert!(clients(most).holds_client(i64::MAX));
    }
    for all in [json!("*"), json!(["*"])] {
        assert!(clients(all).holds_client(5));
    }
    assert!(!clients(json!([])).holds_client(1));
    for name in ["client_ids", "project_ids", "portfolio_ids"] {
        let wrong =
            [json!([null]), json!(0), json!([0]), json!([-1]), json!([1.0]), json!([1e3]), json!(true), json!({})];
        assert_claim_invalid(name, &wrong);
        let wrong =
            [json!([1, "*"]), json!(["*", "*"]), json!([u64::MAX]), json!([i64::MAX as u64 + 1]), json!([null])];
        assert_claim_invalid(name, &wrong);
        // Another spelling of a number is no id, so that an id has one.
        let wrong = ["", "0", "07", "+7", "-7", "7.0", "7e0", "0x7", " 7", "7 ", "7,8", "7 8", "٧", "**"];
        assert_claim_invalid(name, &wrong.map(|text| json!(text)));
        assert_claim_invalid(name, &wrong.map(|text| json!([text])));
        assert_claim_invalid(name, &[json!("9223372036854775808"), json!([[1]]), json!([["7"]])]);
    }
}

#[test]
fn claims_are_read_under_their_configured_names_only() {
    let files = Files::new();
    let path = files.put("secret", SECRET);
    let verifier = Verifier::load(&config(vec![issuer(&format!(
        "algorithms = [\"HS256\"]\nhmac_secret_file = {path:?}\n[claims]\nsubject = \"azp\"\nclients = \"tenants\"",
    ))]))
    .unwrap();
    let claims = with(good(), json!({"azp": "app", "tenants": [5]}));
    let principal = verifier.verdict(&token(&claims), at(NOW)).unwrap();
    assert_eq!(principal.subject(), "app");
    assert!(principal.holds_client(5) && !principal.holds_client(7) && principal.allows(Scope::Write));
    assert_invalid(&verifier, &token(&good()));
}

#[test]
fn a_subject_has_1_to_255_bytes_and_no_control_characters() {
    let subject = |subject: &str| hs256().verdict(&token(&with(good(), json!({ "sub": subject }))), at(NOW));
    for good in ["a".to_owned(), "é".repeat(127), "a".repeat(254), "a".repeat(255), "auth0|Zoë 🦀".to_owned()] {
        assert_eq!(subject(&good).unwrap().subject(), good);
    }
    for bad in ["".to_owned(), "a".repeat(256), "é".repeat(128), "a\nb".into(), "a\0".into(), "\u{85}".into()] {
        assert_eq!(kind(subject(&bad)), Kind::TokenInvalid, "{bad:?}");
    }
    assert_claim_invalid("sub", &[json!(null), json!(7), json!(["svc-a"]), json!({})]);
    assert_invalid(&hs256(), &token(&without(good(), "sub")));
}

fn named(claims: &str) -> Verifier {
    let files = Files::new();
    let path = files.put("secret", SECRET);
    let table = format!("algorithms = [\"HS256\"]\nhmac_secret_file = {path:?}\n{claims}");
    Verifier::load(&config(vec![issuer(&table)])).unwrap()
}

#[test]
fn a_name_that_begins_with_a_slash_points_into_nested_claims() {
    let verifier = named(
        "[claims]\nscopes = \"/realm_access/roles\"\nclients = \"/ext/a~1b/~0c/1\"\nprojects = \"/p\"\nsubject = \"/ext/who\"",
    );
    let claims = with(
        good(),
        json!({"realm_access": {"roles": ["attachments:manage"]}, "p": [4],
            "ext": {"a/b": {"~c": [[1], ["5", 6]]}, "who": "nested"}}),
    );
    let principal = verifier.verdict(&token(&claims), at(NOW)).unwrap();
    assert_eq!(principal.subject(), "nested");
    assert!(principal.allows(Scope::Manage) && !principal.allows(Scope::Write));
    assert!(principal.holds_client(5) && principal.holds_client(6) && !principal.holds_client(1));
    assert!(principal.holds_project(4) && !principal.holds_project(1));
    // A way that leads nowhere is an absent claim.
    for nowhere in [json!({"who": "a"}), json!({"who": "a", "a/b": 7}), json!({"who": "a", "a/b": {"~c": [[1]]}})] {
        let principal = verifier.verdict(&token(&with(claims.clone(), json!({"ext": nowhere}))), at(NOW)).unwrap();
        assert!(!principal.holds_client(1) && !principal.holds_client(5));
    }
    assert_invalid(&verifier, &token(&without(claims, "ext")));
}

#[test]
fn an_index_of_a_pointer_has_one_spelling() {
    for (pointer, found) in [("/c/1", true), ("/c/01", false), ("/c/+1", false), ("/c/-", false), ("/c/2", false)] {
        let verifier = named(&format!("[claims]\nclients = {pointer:?}"));
        let claims = with(good(), json!({"c": [[9], [7]]}));
        assert_eq!(verifier.verdict(&token(&claims), at(NOW)).unwrap().holds_client(7), found, "{pointer}");
    }
}

#[test]
fn a_name_with_slashes_inside_is_a_name() {
    let verifier = named("[claims]\nclients = \"https://attachd.example/clients\"");
    let principal = verifier.verdict(&token(&with(good(), json!({"https://attachd.example/clients": [5]}))), at(NOW));
    assert!(principal.unwrap().holds_client(5));
}

const GRANTS: &str = r#"
    [[grants]]
    subject = "system:serviceaccount:shop:importer"
    scopes = ["attachments:write", "attachments:manage"]
    clients = "*"
    projects = [3, 1]
    [[grants]]
    subject = "nobody"
"#;

#[test]
fn a_grant_gives_its_subject_what_the_configuration_says() {
    let verifier = named(GRANTS);
    let bare = json!({"iss": ISSUER, "aud": "attachd", "sub": "system:serviceaccount:shop:importer", "exp": NOW + 300});
    let principal = verifier.verdict(&token(&bare), at(NOW)).unwrap();
    assert!(principal.allows(Scope::Write) && principal.allows(Scope::Manage) && !principal.allows(Scope::Read));
    assert!(principal.holds_client(i64::MAX) && principal.holds_project(1) && principal.holds_project(3));
    assert!(!principal.holds_project(2) && !principal.holds_portfolio(1));
}

#[test]
fn a_grant_stands_in_place_of_claims_and_only_for_its_subject() {
    let verifier = named(GRANTS);
    let by = |subject: &str| verifier.verdict(&token(&with(good(), json!({"sub": subject}))), at(NOW)).unwrap();
    assert!(!by("nobody").allows(Scope::Write) && !by("nobody").holds_client(7));
    // Claims of a granted subject are not looked at, whatever they hold.
    let odd = with(good(), json!({"sub": "nobody", "client_ids": {}, "scope": 7}));
    assert!(!verifier.verdict(&token(&odd), at(NOW)).unwrap().holds_client(7));
    for other in ["svc-a", "nobody2", "Nobody", "system:serviceaccount:shop:*"] {
        assert!(by(other).allows(Scope::Write) && by(other).holds_client(7) && !by(other).holds_client(8), "{other}");
    }
}
