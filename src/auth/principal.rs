//! Who calls, and what that caller may touch. A [`Principal`] is proof that somebody was authenticated, so it is made
//! within `auth` and nowhere else. This file must not know how a caller proved who it is, or what a right is used for.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::{Serialize, Serializer};

/// The longest subject, in bytes of UTF-8.
pub const MAX_SUBJECT_BYTES: usize = 255;

/// What a caller may do, as it is written in the token's scopes claim (RFC 6749 §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// `attachments:write`: upload content.
    Write,
    /// `attachments:read`: read records and content.
    Read,
    /// `attachments:manage`: register attachments.
    Manage,
    /// `attachments:delete`: delete attachments.
    Delete,
}

impl Scope {
    /// Every scope that attachd knows.
    pub const ALL: [Scope; 4] = [Scope::Write, Scope::Read, Scope::Manage, Scope::Delete];

    /// The scope as a token names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Scope::Write => "attachments:write",
            Scope::Read => "attachments:read",
            Scope::Manage => "attachments:manage",
            Scope::Delete => "attachments:delete",
        }
    }

    /// The scope of this exact name, if attachd knows it. Names are case-sensitive (RFC 6749 §3.3).
    pub fn from_name(name: &str) -> Option<Scope> {
        Scope::ALL.into_iter().find(|scope| scope.as_str() == name)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Scope {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = || Scope::ALL.map(Scope::as_str).join(", ");
        Scope::from_name(&name).ok_or_else(|| de::Error::custom(format!("`{name}` is not one of {}", known())))
    }
}

impl Serialize for Scope {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl JsonSchema for Scope {
    fn schema_name() -> Cow<'static, str> {
        "Scope".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "enum": Scope::ALL.map(Scope::as_str) })
    }
}

/// A set of ids that a token grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ids {
    /// Every id: `"*"` in the token.
    All,
    /// These ids, each at least 1, in any order. Empty grants nothing.
    Only(Vec<i64>),
}

impl Default for Ids {
    /// Nothing: what is not granted is not allowed.
    fn default() -> Self {
        Ids::Only(Vec::new())
    }
}

impl Ids {
    /// The same set in the order in which [`Rights`] look ids up.
    pub(super) fn sorted(self) -> Ids {
        match self {
            Ids::All => Ids::All,
            Ids::Only(mut ids) => {
                ids.sort_unstable();
                ids.dedup();
                Ids::Only(ids)
            }
        }
    }

    /// Whether a *sorted* set holds `id`: a token may list thousands of ids and is asked several times per request.
    fn holds(&self, id: i64) -> bool {
        match self {
            Ids::All => true,
            Ids::Only(ids) => ids.binary_search(&id).is_ok(),
        }
    }

    /// The ids of both sets.
    fn and(self, other: Ids) -> Ids {
        match (self, other) {
            (Ids::Only(mine), Ids::Only(others)) => Ids::Only([mine, others].concat()),
            _ => Ids::All,
        }
    }

    /// The bytes that the set takes on the heap.
    fn weight(&self) -> usize {
        match self {
            Ids::All => 0,
            Ids::Only(ids) => ids.capacity() * size_of::<i64>(),
        }
    }
}

/// As configurations write it.
impl Serialize for Ids {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Ids::All => serializer.serialize_str("*"),
            Ids::Only(ids) => ids.serialize(serializer),
        }
    }
}

impl JsonSchema for Ids {
    fn schema_name() -> Cow<'static, str> {
        "Ids".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "list of ids, or `\"*\"`" })
    }
}

/// As configurations write it: `"*"`, or a list of integers from 1 to 2^63−1.
impl<'de> Deserialize<'de> for Ids {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Set;
        impl<'de> Visitor<'de> for Set {
            type Value = Ids;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("\"*\", or a list of ids from 1 to 9223372036854775807")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Ids, E> {
                if text == "*" { Ok(Ids::All) } else { Err(E::invalid_value(de::Unexpected::Str(text), &self)) }
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Ids, A::Error> {
                let mut ids = Vec::new();
                while let Some(id) = items.next_element::<i64>()? {
                    if id < 1 {
                        return Err(de::Error::invalid_value(de::Unexpected::Signed(id), &self));
                    }
                    ids.push(id);
                }
                Ok(Ids::Only(ids))
            }
        }
        deserializer.deserialize_any(Set)
    }
}

impl fmt::Display for Ids {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// As many as a person reads.
        const SHOWN: usize = 20;
        match self {
            Ids::All => f.write_str("all"),
            Ids::Only(ids) if ids.is_empty() => f.write_str("none"),
            Ids::Only(ids) => {
                let shown: Vec<_> = ids.iter().take(SHOWN).map(i64::to_string).collect();
                f.write_str(&shown.join(", "))?;
                match ids.len().saturating_sub(SHOWN) {
                    0 => Ok(()),
                    more => write!(f, " and {more} more"),
                }
            }
        }
    }
}

/// What a caller may do and touch. Nothing by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Rights {
    pub(super) scopes: Vec<Scope>,
    pub(super) clients: Ids,
    pub(super) projects: Ids,
    pub(super) portfolios: Ids,
}

impl Rights {
    /// These rights and others together.
    pub(super) fn and(self, other: Rights) -> Rights {
        Rights {
            scopes: [self.scopes, other.scopes].concat(),
            clients: self.clients.and(other.clients),
            projects: self.projects.and(other.projects),
            portfolios: self.portfolios.and(other.portfolios),
        }
    }
}

/// Whoever was authenticated: proof of it, since only `auth` makes one. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Principal(Arc<Identity>);

#[derive(Debug)]
struct Identity {
    issuer: String,
    subject: String,
    rights: Rights,
}

impl Principal {
    /// The caller of this name, for whom `issuer` vouches.
    pub(super) fn new(issuer: &str, subject: &str, rights: Rights) -> Principal {
        let rights = Rights {
            clients: rights.clients.sorted(),
            projects: rights.projects.sorted(),
            portfolios: rights.portfolios.sorted(),
            ..rights
        };
        Principal(Arc::new(Identity { issuer: issuer.to_owned(), subject: subject.to_owned(), rights }))
    }

    /// Who calls, as its issuer names it: 1 to 255 bytes without control characters. Unique only together with
    /// [`issuer`](Principal::issuer).
    pub fn subject(&self) -> &str {
        &self.0.subject
    }

    /// The configured issuer that vouches for the caller.
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// Whether the caller has `scope`.
    pub fn allows(&self, scope: Scope) -> bool {
        self.0.rights.scopes.contains(&scope)
    }

    /// Whether the caller holds the client of this id.
    pub fn holds_client(&self, id: i64) -> bool {
        self.0.rights.clients.holds(id)
    }

    /// Whether the caller holds the project of this id.
    pub fn holds_project(&self, id: i64) -> bool {
        self.0.rights.projects.holds(id)
    }

    /// Whether the caller holds the portfolio of this id.
    pub fn holds_portfolio(&self, id: i64) -> bool {
        self.0.rights.portfolios.holds(id)
    }

    /// What the caller may do and touch.
    pub(super) fn rights(&self) -> &Rights {
        &self.0.rights
    }

    /// The bytes that this principal takes on the heap, about.
    pub(super) fn weight(&self) -> usize {
        let Identity { issuer, subject, rights } = &*self.0;
        let ids = rights.clients.weight() + rights.projects.weight() + rights.portfolios.weight();
        size_of::<Identity>() + issuer.len() + subject.len() + rights.scopes.len() + ids
    }
}

/// Whether `subject` can stand in records and logs: 1 to [`MAX_SUBJECT_BYTES`] bytes, no control characters.
pub(super) fn is_subject(subject: &str) -> bool {
    (1..=MAX_SUBJECT_BYTES).contains(&subject.len()) && !subject.chars().any(char::is_control)
}
