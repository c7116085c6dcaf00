//! The table: what is asked, and how it must end.

use serde_json::json;
use tonic::Code;

use super::{Ask, PORTFOLIO, PROJECT, Storage, World, old};
use crate::harness::{hex, noise, sha256};

/// The largest upload of the servers that are asked, in bytes.
pub const LIMIT: usize = 3 * MIB;

const MIB: usize = 1 << 20;

/// How a request ends, as both doors write it.
#[derive(Clone, Copy)]
pub struct Outcome {
    pub reason: &'static str,
    pub code: Code,
    pub status: u16,
}

const fn outcome(reason: &'static str, code: Code, status: u16) -> Outcome {
    Outcome { reason, code, status }
}

const STORED: Outcome = outcome("OK", Code::Ok, 201);
const TOKEN_MISSING: Outcome = outcome("TOKEN_MISSING", Code::Unauthenticated, 401);
const TOKEN_INVALID: Outcome = outcome("TOKEN_INVALID", Code::Unauthenticated, 401);
const TOKEN_EXPIRED: Outcome = outcome("TOKEN_EXPIRED", Code::Unauthenticated, 401);
const FORBIDDEN: Outcome = outcome("FORBIDDEN", Code::PermissionDenied, 403);
const INVALID: Outcome = outcome("INVALID_REQUEST", Code::InvalidArgument, 400);
const INCOMPLETE: Outcome = outcome("INCOMPLETE_UPLOAD", Code::Aborted, 400);
const DIGEST_MISMATCH: Outcome = outcome("DIGEST_MISMATCH", Code::InvalidArgument, 400);
const NOT_FOUND: Outcome = outcome("NOT_FOUND", Code::NotFound, 404);
const ALREADY_EXISTS: Outcome = outcome("ALREADY_EXISTS", Code::AlreadyExists, 412);
const NOT_MET: Outcome = outcome("PRECONDITION_FAILED", Code::FailedPrecondition, 412);
const TOO_LARGE: Outcome = outcome("TOO_LARGE", Code::ResourceExhausted, 413);
const UNAVAILABLE: Outcome = outcome("STORAGE_UNAVAILABLE", Code::Unavailable, 503);
const INTERNAL: Outcome = outcome("INTERNAL", Code::Internal, 500);

/// What decides about a request, in the order in which it is looked at.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum By {
    Token,
    Ids,
    Rights,
    Storage,
    Record,
    Content,
}

/// One request.
pub struct Case {
    pub name: &'static str,
    pub by: By,
    /// What makes it differ from a plain upload of 1000 bytes.
    pub change: fn(&mut Ask),
    outcome: fn(World) -> Outcome,
}

impl Case {
    /// How it must end. Whatever is looked at after the record must not be heard of by who has no record.
    pub fn expected(&self, world: World) -> Outcome {
        if world == World::Stranger && self.by >= By::Record { NOT_FOUND } else { (self.outcome)(world) }
    }
}

const fn case(name: &'static str, by: By, outcome: fn(World) -> Outcome, change: fn(&mut Ask)) -> Case {
    Case { name, by, change, outcome }
}

const fn stored(name: &'static str, change: fn(&mut Ask)) -> Case {
    case(name, By::Content, |_| STORED, change)
}

/// The outcome of a condition that only the content of a filled attachment meets.
fn met_by_old(world: World) -> Outcome {
    if world == World::Filled { STORED } else { NOT_MET }
}

/// The outcome of a condition that only the content of a filled attachment fails.
fn failed_by_old(world: World) -> Outcome {
    if world == World::Filled { NOT_MET } else { STORED }
}

/// The entity tag of that content.
fn tag() -> String {
    format!("\"{}\"", hex(&sha256(&old())))
}

fn known(world: World) -> bool {
    matches!(world, World::Registered | World::Filled)
}

/// All requests.
pub const CASES: &[Case] = &[
    stored("a plain upload", |_| {}),
    stored("0 bytes", |ask| ask.bytes = Vec::new()),
    stored("1 byte", |ask| ask.bytes = noise(1, 9)),
    stored("1 MiB less one", |ask| ask.bytes = noise(MIB - 1, 9)),
    stored("1 MiB", |ask| ask.bytes = noise(MIB, 9)),
    stored("1 MiB and one", |ask| ask.bytes = noise(MIB + 1, 9)),
    stored("2.5 MiB", |ask| ask.bytes = noise(5 * MIB / 2, 9)),
    stored("the limit less one", |ask| ask.bytes = noise(LIMIT - 1, 9)),
    stored("the limit", |ask| ask.bytes = noise(LIMIT, 9)),
    stored("content like a boundary", |ask| ask.bytes = b"\r\n--a-boundary-of-the-test\r\n--".repeat(50)),
    stored("no filename", |ask| ask.filename = None),
    stored("a filename in other letters", |ask| ask.filename = Some("résumé 📎.pdf".to_owned())),
    stored("a filename with quotes", |ask| ask.filename = Some("say \"hi\", 100%.pdf".to_owned())),
    stored("the longest filename", |ask| ask.filename = Some("n".repeat(255))),
    stored("a content type", |ask| ask.content_type = Some("text/html; charset=utf-8".to_owned())),
    stored("the longest content type", |ask| ask.content_type = Some(format!("a/{}", "b".repeat(253)))),
    stored("its project", |ask| ask.project = Some(PROJECT)),
    stored("its portfolio", |ask| ask.portfolio = Some(PORTFOLIO)),
    stored("its project and portfolio, held by number", |ask| {
        (ask.project, ask.portfolio) = (Some(PROJECT), Some(PORTFOLIO));
        ask.claim("project_ids", json!([PROJECT]));
        ask.claim("portfolio_ids", json!([PORTFOLIO]));
    }),
    stored("the right digest", |ask| ask.sha256 = Some(sha256(&ask.bytes).to_vec())),
    case(
        "create-only",
        By::Record,
        |world| if world == World::Filled { ALREADY_EXISTS } else { STORED },
        |ask| {
            ask.if_absent = true;
        },
    ),
    case("if it has any content", By::Record, met_by_old, |ask| ask.if_match = Some("*".to_owned())),
    case("if it has the version", By::Record, met_by_old, |ask| ask.if_match = Some(tag())),
    case("if it has one of the versions", By::Record, met_by_old, |ask| {
        ask.if_match = Some(format!("\"x\", {}", tag()))
    }),
    case("if it has another version", By::Record, |_| NOT_MET, |ask| ask.if_match = Some("\"x\"".to_owned())),
    case("if it has the version, weakly", By::Record, |_| NOT_MET, |ask| ask.if_match = Some(format!("W/{}", tag()))),
    case("unless it has the version", By::Record, failed_by_old, |ask| ask.if_none_match = Some(tag())),
    case("unless it has the version, weakly", By::Record, failed_by_old, |ask| {
        ask.if_none_match = Some(format!("\"x\", W/{}", tag()))
    }),
    stored("unless it has another version", |ask| ask.if_none_match = Some("\"x\"".to_owned())),
    case(
        "unless it has any content",
        By::Record,
        |world| if world == World::Filled { ALREADY_EXISTS } else { STORED },
        |ask| ask.if_none_match = Some("*".to_owned()),
    ),
    case(
        "if it has the version, and create-only",
        By::Record,
        |world| if world == World::Filled { ALREADY_EXISTS } else { NOT_MET },
        |ask| (ask.if_match, ask.if_absent) = (Some(tag()), true),
    ),
    // The token.
    case("no token", By::Token, |_| TOKEN_MISSING, |ask| ask.token = None),
    case("no JWT", By::Token, |_| TOKEN_INVALID, |ask| ask.token = Some("sesame".to_owned())),
    case(
        "a damaged signature",
        By::Token,
        |_| TOKEN_INVALID,
        |ask| {
            let token = ask.token.take().expect("it has one");
            let (rest, signature) = token.rsplit_once('.').expect("a JWT has dots");
            ask.token = Some(format!("{rest}.{}", signature.chars().rev().collect::<String>()));
        },
    ),
    case("an expired token", By::Token, |_| TOKEN_EXPIRED, |ask| ask.claim("exp", json!(1_000_000_000))),
    case("another audience", By::Token, |_| TOKEN_INVALID, |ask| ask.claim("aud", json!(["elsewhere"]))),
    case("another issuer", By::Token, |_| TOKEN_INVALID, |ask| ask.claim("iss", json!("https://evil.example"))),
    // The ids.
    case("client 0", By::Ids, |_| INVALID, |ask| ask.client = 0),
    case("a negative client", By::Ids, |_| INVALID, |ask| ask.client = -1),
    case("attachment 0", By::Ids, |_| INVALID, |ask| ask.attachment = 0),
    case("a negative attachment", By::Ids, |_| INVALID, |ask| ask.attachment = i64::MIN),
    case("project 0", By::Ids, |_| INVALID, |ask| ask.project = Some(0)),
    case("a negative portfolio", By::Ids, |_| INVALID, |ask| ask.portfolio = Some(-6)),
    case("a condition without quotes", By::Ids, |_| INVALID, |ask| ask.if_match = Some("x".to_owned())),
    case("an empty condition", By::Ids, |_| INVALID, |ask| ask.if_none_match = Some(String::new())),
    // The rights.
    case(
        "another scope",
        By::Rights,
        |_| FORBIDDEN,
        |ask| {
            ask.claim("scope", json!("attachments:read attachments:manage"));
        },
    ),
    case("another client", By::Rights, |_| FORBIDDEN, |ask| ask.claim("client_ids", json!([ask.client + 2]))),
    case(
        "a project outside the token",
        By::Rights,
        |_| FORBIDDEN,
        |ask| {
            ask.project = Some(PROJECT);
            ask.claim("project_ids", json!([PROJECT + 1]));
        },
    ),
    case(
        "a portfolio outside the token",
        By::Rights,
        |_| FORBIDDEN,
        |ask| {
            ask.portfolio = Some(PORTFOLIO);
            ask.claim("portfolio_ids", json!([PORTFOLIO + 1]));
        },
    ),
    // The storage.
    case("a file in place of a folder", By::Storage, |_| INTERNAL, |ask| ask.storage = Storage::File),
    case("a link in place of a folder", By::Storage, |_| INTERNAL, |ask| ask.storage = Storage::Link),
    case("a storage that may recover", By::Storage, |_| UNAVAILABLE, |ask| ask.storage = Storage::Gone),
    // The record.
    case(
        "another project",
        By::Record,
        |world| if known(world) { NOT_FOUND } else { STORED },
        |ask| {
            ask.project = Some(PROJECT + 1);
        },
    ),
    case(
        "another portfolio",
        By::Record,
        |world| if known(world) { NOT_FOUND } else { STORED },
        |ask| {
            (ask.project, ask.portfolio) = (Some(PROJECT), Some(PORTFOLIO + 1));
        },
    ),
    case(
        "a project left out that the token lacks",
        By::Record,
        |world| if known(world) { NOT_FOUND } else { STORED },
        |ask| ask.claim("project_ids", json!([PROJECT + 1])),
    ),
    // The content and what comes with it.
    case("one byte over the limit", By::Content, |_| TOO_LARGE, |ask| ask.bytes = noise(LIMIT + 1, 9)),
    case("a MiB over the limit", By::Content, |_| TOO_LARGE, |ask| ask.bytes = noise(LIMIT + MIB, 9)),
    case("another digest", By::Content, |_| DIGEST_MISMATCH, |ask| ask.sha256 = Some(vec![7; 32])),
    case("a digest of nothing", By::Content, |_| DIGEST_MISMATCH, |ask| ask.sha256 = Some(sha256(b"").to_vec())),
    case("a short digest", By::Content, |_| INVALID, |ask| ask.sha256 = Some(vec![7; 31])),
    case("a long digest", By::Content, |_| INVALID, |ask| ask.sha256 = Some(vec![7; 33])),
    case("an empty digest", By::Content, |_| INVALID, |ask| ask.sha256 = Some(Vec::new())),
    case("a filename with NUL", By::Content, |_| INVALID, |ask| ask.filename = Some("a\0b".to_owned())),
    case("a filename with a tab", By::Content, |_| INVALID, |ask| ask.filename = Some("a\tb".to_owned())),
    case("a filename with DEL", By::Content, |_| INVALID, |ask| ask.filename = Some("a\u{7f}b".to_owned())),
    case("a filename that is too long", By::Content, |_| INVALID, |ask| ask.filename = Some("n".repeat(256))),
    case("a content type without a slash", By::Content, |_| INVALID, |ask| ask.content_type = Some("text".to_owned())),
    case(
        "a content type not of ASCII",
        By::Content,
        |_| INVALID,
        |ask| {
            ask.content_type = Some("text/plaïn".to_owned());
        },
    ),
    case(
        "a content type that is too long",
        By::Content,
        |_| INVALID,
        |ask| {
            ask.content_type = Some(format!("a/{}", "b".repeat(254)));
        },
    ),
    case("cut short", By::Content, |_| INCOMPLETE, |ask| ask.whole = false),
    case(
        "cut short without a byte of content",
        By::Content,
        |_| INCOMPLETE,
        |ask| {
            (ask.whole, ask.bytes) = (false, Vec::new());
        },
    ),
    case(
        "cut short at the limit",
        By::Content,
        |_| INCOMPLETE,
        |ask| {
            (ask.whole, ask.bytes) = (false, noise(LIMIT, 9));
        },
    ),
];
