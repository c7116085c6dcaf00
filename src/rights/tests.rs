//! The decision, over generated tokens, requests and records, against what README.md says in plain words. A caller comes
//! from a signed token through the real verifier, so that what is tested is the whole way from claims to an answer.

use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures_util::FutureExt;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};

use super::*;
use crate::attachment::Key;
use crate::auth::{Config, IssuerConfig, Verifier};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
const NOW: u64 = 1_800_000_000;

static VERIFIER: LazyLock<Verifier> = LazyLock::new(|| {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), SECRET).unwrap();
    let issuer = IssuerConfig {
        issuer: "https://id.example".to_owned(),
        audience: vec!["attachd".to_owned()],
        algorithms: vec!["HS256".to_owned()],
        hmac_secret_file: Some(file.path().to_owned()),
        ..IssuerConfig::default()
    };
    Verifier::load(&Config { issuers: vec![issuer], ..Config::default() }).unwrap()
});

fn caller(claims: &Value) -> Principal {
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256"}"#);
    let message = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    let token = format!("{message}.{}", URL_SAFE_NO_PAD.encode(tag));
    // Nothing is waited for where the first key that is tried is the right one.
    VERIFIER.verify(&token, SystemTime::UNIX_EPOCH + Duration::from_secs(NOW)).now_or_never().unwrap().unwrap()
}

/// What a token says of clients, projects or portfolios. The ids are few, so that they often meet.
#[derive(Clone, Debug)]
enum Grants {
    Absent,
    Star,
    StarInList,
    One(i64),
    Digits(i64),
    List(Vec<i64>),
    ListOfDigits(Vec<i64>),
}

impl Grants {
    fn claim(&self) -> Option<Value> {
        let digits = |id: &i64| id.to_string();
        match self {
            Grants::Absent => None,
            Grants::Star => Some(json!("*")),
            Grants::StarInList => Some(json!(["*"])),
            Grants::One(id) => Some(json!(id)),
            Grants::Digits(id) => Some(json!(digits(id))),
            Grants::List(ids) => Some(json!(ids)),
            Grants::ListOfDigits(ids) => Some(json!(ids.iter().map(digits).collect::<Vec<_>>())),
        }
    }

    fn cover(&self, id: i64) -> bool {
        match self {
            Grants::Absent => false,
            Grants::Star | Grants::StarInList => true,
            Grants::One(one) | Grants::Digits(one) => *one == id,
            Grants::List(ids) | Grants::ListOfDigits(ids) => ids.contains(&id),
        }
    }
}

#[derive(Clone, Debug)]
struct Token {
    scopes: Option<(Vec<&'static str>, bool)>,
    clients: Grants,
    projects: Grants,
    portfolios: Grants,
}

impl Token {
    fn claims(&self) -> Value {
        let mut claims = json!({"iss": "https://id.example", "aud": "attachd", "sub": "someone", "exp": NOW + 60});
        if let Some((names, in_list)) = &self.scopes {
            claims["scope"] = if *in_list { json!(names) } else { json!(names.join(" ")) };
        }
        for (name, grants) in
            [("client_ids", &self.clients), ("project_ids", &self.projects), ("portfolio_ids", &self.portfolios)]
        {
            if let Some(claim) = grants.claim() {
                claims[name] = claim;
            }
        }
        claims
    }
}

/// A request, with ids as numbers.
#[derive(Clone, Debug)]
struct Ask {
    scope: Scope,
    client: i64,
    project: Option<i64>,
    portfolio: Option<i64>,
}

impl Ask {
    fn target(&self) -> Target {
        Target {
            key: Key { client: id(self.client), attachment: id(1) },
            project: self.project.map(id),
            portfolio: self.portfolio.map(id),
        }
    }
}

/// What is known of the attachment: nothing yet, no record that may be made, no record, or one of a project and portfolio.
#[derive(Clone, Debug, PartialEq)]
enum World {
    Unread,
    Absent,
    Missing,
    Of(Option<i64>, Option<i64>),
}

fn id(number: i64) -> Id {
    Id::new("id", number).unwrap()
}

/// `None` where it is allowed, or else the kind of refusal.
fn decided(caller: &Principal, ask: &Ask, world: &World) -> Option<Kind> {
    let record = match world {
        World::Of(project, portfolio) => {
            let of = Ask { project: *project, portfolio: *portfolio, ..ask.clone() };
            Some(Record::registered(of.target(), "owner"))
        }
        _ => None,
    };
    let stands = match (world, &record) {
        (World::Unread, _) => Stands::Unread,
        (World::Absent, _) => Stands::Absent,
        (_, Some(record)) => Stands::Found(record),
        (_, None) => Stands::Missing,
    };
    decide(caller, ask.scope, ask.target(), stands).err().map(|error| error.kind())
}

/// The rules as README.md has them, on the words of the token.
fn specified(token: &Token, ask: &Ask, world: &World) -> Option<Kind> {
    let has_scope = token.scopes.as_ref().is_some_and(|(names, _)| names.contains(&ask.scope.as_str()));
    let rights = [
        has_scope,
        token.clients.cover(ask.client),
        ask.project.is_none() || token.projects.cover(ask.project.unwrap()),
        ask.portfolio.is_none() || token.portfolios.cover(ask.portfolio.unwrap()),
    ];
    if rights.contains(&false) {
        return Some(Kind::Forbidden);
    }
    let there = match world {
        World::Unread | World::Absent => true,
        World::Missing => false,
        World::Of(project, portfolio) => {
            let mismatch = (ask.project.is_some() && ask.project != *project)
                || (ask.portfolio.is_some() && ask.portfolio != *portfolio);
            let hidden = matches!(project, Some(project) if !token.projects.cover(*project))
                || matches!(portfolio, Some(portfolio) if !token.portfolios.cover(*portfolio));
            !mismatch && !hidden
        }
    };
    if there { None } else { Some(Kind::NotFound) }
}

fn few() -> impl Strategy<Value = i64> {
    select(vec![1, 2, 3, i64::MAX])
}

fn grants() -> impl Strategy<Value = Grants> {
    let list = || prop::collection::vec(few(), 0..4);
    prop_oneof![
        Just(Grants::Absent),
        Just(Grants::Star),
        Just(Grants::StarInList),
        few().prop_map(Grants::One),
        few().prop_map(Grants::Digits),
        list().prop_map(Grants::List),
        list().prop_map(Grants::ListOfDigits),
    ]
}

fn tokens() -> impl Strategy<Value = Token> {
    let names = ["attachments:write", "attachments:read", "attachments:manage", "openid", "attachments", "write"];
    let scopes = prop::option::weighted(0.9, (prop::collection::vec(select(names.to_vec()), 0..5), any::<bool>()));
    (scopes, grants(), grants(), grants()).prop_map(|(scopes, clients, projects, portfolios)| Token {
        scopes,
        clients,
        projects,
        portfolios,
    })
}

fn asks() -> impl Strategy<Value = Ask> {
    let scope = select(Scope::ALL.to_vec());
    (scope, few(), prop::option::of(few()), prop::option::of(few()))
        .prop_map(|(scope, client, project, portfolio)| Ask { scope, client, project, portfolio })
}

fn worlds() -> impl Strategy<Value = World> {
    prop_oneof![
        Just(World::Unread),
        Just(World::Absent),
        Just(World::Missing),
        (prop::option::of(few()), prop::option::of(few()))
            .prop_map(|(project, portfolio)| World::Of(project, portfolio)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn the_decision_is_the_specified_one(token in tokens(), ask in asks(), world in worlds()) {
        prop_assert_eq!(decided(&caller(&token.claims()), &ask, &world), specified(&token, &ask, &world));
    }

    #[test]
    fn who_is_forbidden_is_forbidden_whatever_stands_there(token in tokens(), ask in asks(), world in worlds()) {
        let caller = caller(&token.claims());
        let forbidden = |world| decided(&caller, &ask, world) == Some(Kind::Forbidden);
        prop_assert_eq!(forbidden(&world), forbidden(&World::Unread));
    }

    #[test]
    fn a_token_that_says_less_never_permits_more(
        token in tokens(), ask in asks(), world in worlds(), without in 0..4,
    ) {
        let mut less = token.clone();
        match without {
            0 => less.scopes = None,
            1 => less.clients = Grants::Absent,
            2 => less.projects = Grants::Absent,
            _ => less.portfolios = Grants::Absent,
        }
        if decided(&caller(&token.claims()), &ask, &world).is_some() {
            prop_assert!(decided(&caller(&less.claims()), &ask, &world).is_some());
        }
    }
}

#[test]
fn a_refusal_of_a_hidden_record_reads_as_if_there_were_none() {
    let token = json!({"iss": "https://id.example", "aud": "attachd", "sub": "someone", "exp": NOW + 60,
        "scope": "attachments:write", "client_ids": [1], "project_ids": [1]});
    let caller = caller(&token);
    let ask = Ask { scope: Scope::Write, client: 1, project: None, portfolio: None };
    let told = |stands: Stands<'_>| {
        let error = decide(&caller, ask.scope, ask.target(), stands).unwrap_err();
        (error.kind(), error.public_details().into_owned(), error.retry_after())
    };
    let hidden = Record::registered(Ask { project: Some(2), ..ask.clone() }.target(), "owner");
    assert_eq!(told(Stands::Found(&hidden)), told(Stands::Missing));
}
