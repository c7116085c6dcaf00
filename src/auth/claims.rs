//! Claims become rights: where an issuer writes what attachd reads, and which shapes are understood. A claim that is absent
//! or `null` grants nothing; one of another shape is an error, so that a mistake in the issuer is seen. This file must not know how
//! claims were verified.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::load_error::LoadError;
use super::principal::{Ids, Rights, Scope, is_subject};
use super::token::Members;

/// The claims that have a meaning of their own in every token (RFC 7519 §4.1).
const RESERVED: [&str; 5] = ["iss", "aud", "exp", "nbf", "iat"];

/// The `[auth.issuers.claims]` table: where the claims stand. Each is the name of a claim, or, where it begins with `/`, a
/// JSON pointer (RFC 6901) to one within others. None may be empty, the same as another, within another, or one of `iss`,
/// `aud`, `exp`, `nbf` and `iat`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ClaimNames {
    /// Who the caller is: a string. Default `sub`.
    pub subject: String,
    /// What it may do: a string of names between spaces, or an array of names. Default `scope`.
    pub scopes: String,
    /// For which clients: an id or an array of ids, as integers or their digits, or `"*"` for all. Default `client_ids`.
    pub clients: String,
    /// For which projects, likewise. Default `project_ids`.
    pub projects: String,
    /// For which portfolios, likewise. Default `portfolio_ids`.
    pub portfolios: String,
}

impl Default for ClaimNames {
    /// `sub`, `scope`, `client_ids`, `project_ids`, `portfolio_ids`.
    fn default() -> Self {
        ClaimNames {
            subject: "sub".to_owned(),
            scopes: "scope".to_owned(),
            clients: "client_ids".to_owned(),
            projects: "project_ids".to_owned(),
            portfolios: "portfolio_ids".to_owned(),
        }
    }
}

/// Where a claim stands: the names on the way to it. A configured name that begins with `/` is a JSON pointer (RFC 6901),
/// any other is the name of a member of the claims, whatever characters it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Path {
    /// As it is configured.
    name: String,
    first: String,
    rest: Vec<String>,
}

impl Path {
    /// Reads a configured name.
    ///
    /// # Errors
    /// What is wrong with it, as the end of a sentence.
    pub(super) fn parse(configured: &str) -> Result<Path, String> {
        let name = configured.to_owned();
        let Some(pointer) = configured.strip_prefix('/') else {
            return match configured {
                "" => Err("must not be empty".to_owned()),
                first => Ok(Path { name, first: first.to_owned(), rest: Vec::new() }),
            };
        };
        let mut names = pointer.split('/').map(|name| {
            // RFC 6901 §3: a tilde is only ever a part of `~0` and `~1`.
            if name.split('~').skip(1).any(|after| !after.starts_with(['0', '1'])) {
                return Err(format!("`/{pointer}` is no JSON pointer: `~` is written `~0` in it"));
            }
            Ok(name.replace("~1", "/").replace("~0", "~"))
        });
        let first = names.next().transpose()?.filter(|first| !first.is_empty());
        let first = first.ok_or_else(|| "must not be empty".to_owned())?;
        Ok(Path { name, first, rest: names.collect::<Result<_, _>>()? })
    }

    /// The claim, if the token has it. `null` is how some issuers write that there is none.
    pub(super) fn find<'a>(&self, claims: &'a Members) -> Option<&'a Value> {
        let found = self.rest.iter().try_fold(claims.get(&self.first)?, |value, name| match value {
            Value::Object(members) => members.get(name),
            // RFC 6901 §4: digits without leading zeros.
            Value::Array(items) if name == "0" || !name.starts_with(['0', '+']) => {
                items.get(name.parse::<usize>().ok()?)
            }
            _ => None,
        });
        found.filter(|value| !value.is_null())
    }

    /// Writes a claim, and the objects around it.
    pub(super) fn put(&self, claims: &mut Map<String, Value>, value: Value) {
        let value = self
            .rest
            .iter()
            .rev()
            .fold(value, |value, name| Value::Object([(name.clone(), value)].into_iter().collect()));
        merge(claims, self.first.clone(), value);
    }

    /// Whether the claim is this text, or a list with this text in it.
    pub(super) fn has(&self, claims: &Members, value: &str) -> bool {
        match self.find(claims) {
            Some(Value::String(text)) => text == value,
            Some(Value::Array(items)) => items.iter().any(|item| item.as_str() == Some(value)),
            _ => false,
        }
    }

    /// The name as it is configured.
    pub(super) fn as_str(&self) -> &str {
        &self.name
    }

    /// Whether one of two claims stands within the other, or where the other stands.
    fn meets(&self, other: &Path) -> bool {
        self.first == other.first && self.rest.iter().zip(&other.rest).all(|(mine, theirs)| mine == theirs)
    }
}

fn merge(into: &mut Map<String, Value>, name: String, value: Value) {
    match (into.get_mut(&name), value) {
        (Some(Value::Object(stands)), Value::Object(more)) => {
            more.into_iter().for_each(|(name, value)| merge(stands, name, value));
        }
        (_, value) => {
            into.insert(name, value);
        }
    }
}

/// Where one issuer writes what attachd reads.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) subject: Path,
    pub(super) scopes: Path,
    pub(super) clients: Path,
    pub(super) projects: Path,
    pub(super) portfolios: Path,
}

impl Paths {
    /// Reads the configured names; `at` is the configuration key of their table.
    pub(super) fn parse(names: &ClaimNames, at: &str) -> Result<Paths, LoadError> {
        let mut known: Vec<(&str, &str, Path)> = Vec::new();
        let mut next = |key: &'static str, name| {
            let wrong = |what: String| LoadError::new(format!("{at}.{key}"), what);
            let path = Path::parse(name).map_err(wrong)?;
            if RESERVED.contains(&path.first.as_str()) {
                return Err(wrong(format!("`{}` has a meaning of its own in every token", path.first)));
            }
            if let Some((other, other_name, _)) = known.iter().find(|(_, _, other)| path.meets(other)) {
                let what = match other_name == &name {
                    true => format!("`{name}` is the name of `{other}` already"),
                    false => format!("`{name}` and `{other_name}` of `{other}` cannot both be there"),
                };
                return Err(wrong(what));
            }
            known.push((key, name, path.clone()));
            Ok(path)
        };
        Ok(Paths {
            subject: next("subject", &names.subject)?,
            scopes: next("scopes", &names.scopes)?,
            clients: next("clients", &names.clients)?,
            projects: next("projects", &names.projects)?,
            portfolios: next("portfolios", &names.portfolios)?,
        })
    }

    /// The claims that grant rights, each with the right and its configured name.
    pub(super) fn granting(&self) -> [(&'static str, &Path); 4] {
        let Paths { scopes, clients, projects, portfolios, .. } = self;
        [("scopes", scopes), ("clients", clients), ("projects", projects), ("portfolios", portfolios)]
    }

    /// Who the caller is, if the claims say so in a way that can stand in records and logs.
    pub(super) fn subject<'a>(&self, claims: &'a Members) -> Option<&'a str> {
        self.subject.find(claims)?.as_str().filter(|subject| is_subject(subject))
    }

    /// What the claims grant. `names` are further names of scopes.
    ///
    /// # Errors
    /// Which claim is malformed, in words for the log.
    pub(super) fn rights(&self, claims: &Members, names: &BTreeMap<String, Scope>) -> Result<Rights, &'static str> {
        Ok(Rights {
            scopes: scopes(self.scopes.find(claims), names).ok_or("the token's scopes claim is malformed")?,
            clients: ids(self.clients.find(claims)).ok_or("the token's clients claim is malformed")?,
            projects: ids(self.projects.find(claims)).ok_or("the token's projects claim is malformed")?,
            portfolios: ids(self.portfolios.find(claims)).ok_or("the token's portfolios claim is malformed")?,
        })
    }
}

/// Reads a scopes claim: names between spaces, or an array of names. Names that attachd does not know are skipped, for
/// the same token may serve other services. An absent claim allows nothing; any other shape is `None`.
fn scopes(claim: Option<&Value>, names: &BTreeMap<String, Scope>) -> Option<Vec<Scope>> {
    let scope = |name: &str| names.get(name).copied().or_else(|| Scope::from_name(name));
    match claim {
        None => Some(Vec::new()),
        Some(Value::String(names)) => Some(names.split(' ').filter_map(scope).collect()),
        Some(Value::Array(names)) => {
            let names = names.iter().map(Value::as_str).collect::<Option<Vec<_>>>()?;
            Some(names.into_iter().filter_map(scope).collect())
        }
        Some(_) => None,
    }
}

/// Reads a claim of ids: one, or an array of them; or `"*"`, or `["*"]`. An absent claim grants nothing; any other shape
/// is `None`.
fn ids(claim: Option<&Value>) -> Option<Ids> {
    let is_star = |value: &Value| value.as_str() == Some("*");
    match claim {
        None => Some(Ids::default()),
        Some(Value::Array(items)) => match items.as_slice() {
            [star] if is_star(star) => Some(Ids::All),
            items => items.iter().map(id).collect::<Option<_>>().map(Ids::Only),
        },
        Some(star) if is_star(star) => Some(Ids::All),
        Some(one) => Some(Ids::Only(vec![id(one)?])),
    }
}

/// An id as an integer, or as its decimal digits, the way of issuers that know only text. Both have one spelling: no sign,
/// no fraction, no exponent, no leading zero, no space.
fn id(value: &Value) -> Option<i64> {
    let id = match value {
        Value::String(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0') => {
            digits.parse().ok()
        }
        value => value.as_i64(),
    };
    id.filter(|id| *id >= 1)
}
