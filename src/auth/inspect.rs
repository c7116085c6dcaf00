//! A token explained against the configuration, for whoever was told "401": each check in order, what it looked at, and how
//! it came out. The verdict is that of [`Verifier::verify`]; this file only puts words to it. It shows what a token says, and
//! never its signature.

use std::time::{Duration, SystemTime};

use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::check::Check;
use super::claims::Path;
use super::issuer::Issuer;
use super::keyring::Held;
use super::keys::shown;
use super::principal::{Ids, Principal, Scope};
use super::times::{self, Window};
use super::token::{MAX_TOKEN_BYTES, Members, TokenParts};
use super::verifier::{Unjudged, Verifier};
use crate::error::{Error, Result};

/// The longest value of a token that is shown whole, in characters.
const SHOWN: usize = 200;

/// Under which other names providers write what a right is read from, with the right.
const OTHER_NAMES: [(&str, &str); 12] = [
    ("scopes", "scope"),
    ("scopes", "scp"),
    ("scopes", "scopes"),
    ("scopes", "roles"),
    ("scopes", "permissions"),
    ("scopes", "groups"),
    ("scopes", "realm_access"),
    ("scopes", "resource_access"),
    ("clients", "client_ids"),
    ("clients", "clients"),
    ("projects", "projects"),
    ("portfolios", "portfolios"),
];

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The token passed.
    Passed,
    /// The token is refused for it.
    Failed,
    /// It was not come to, because an earlier one failed.
    NotReached,
}

/// One check of a token.
#[derive(Clone, Debug)]
pub struct Finding {
    /// What was checked, in a word.
    pub check: String,
    /// How it came out.
    pub verdict: Verdict,
    /// What was looked at.
    pub seen: String,
    /// Why it failed.
    pub why: Option<String>,
}

/// All that there is to say of a token.
#[derive(Clone, Debug)]
pub struct Report {
    /// Each check, in the order in which they are made.
    pub findings: Vec<Finding>,
    /// What the token grants, where it is accepted.
    pub rights: Vec<(&'static str, String)>,
    /// What it does not grant, and where that was looked for.
    pub missing: Vec<String>,
    /// Whether it permits no operation at all.
    pub grants_nothing: bool,
    /// The reason of the error table with which a request would be refused.
    pub refused: Option<&'static str>,
}

impl Verifier {
    /// Explains `token` as of `now`. Asks for the keys of its issuer where they are at a provider.
    ///
    /// # Errors
    /// [`Kind::Internal`](crate::error::Kind::Internal) when `now` is before 1970.
    pub async fn inspect(&self, token: &str, now: SystemTime) -> Result<Report> {
        let now = now
            .duration_since(SystemTime::UNIX_EPOCH)
            .map_err(|_| Error::internal("the clock of this machine is before 1970"))?;
        let judged = match self.judge(token).await {
            Ok(found) => found.check(now, self.limits).map(|()| found.principal).map_err(Unjudged::from),
            Err(unjudged) => Err(unjudged),
        };
        let failed = match &judged {
            Ok(_) => None,
            Err(Unjudged::Refused(refusal)) => Some((refusal.check, refusal.why.clone().into_owned())),
            Err(Unjudged::WithoutKeys(_)) => Some((Check::Key, "the issuer's keys are not available".to_owned())),
        };
        let view = View::of(self, token, now);
        let findings = Check::ALL.map(|check| {
            let (verdict, why) = match &failed {
                Some((at, why)) if *at == check => (Verdict::Failed, Some(why.clone())),
                Some((at, _)) if *at < check => (Verdict::NotReached, None),
                _ => (Verdict::Passed, None),
            };
            Finding { check: check.to_string(), verdict, seen: view.seen(check), why }
        });
        let rights = judged.as_ref().map(rights).unwrap_or_default();
        let missing = if judged.is_ok() { view.missing() } else { Vec::new() };
        let grants_nothing = judged.as_ref().is_ok_and(|principal| {
            let rights = principal.rights();
            rights.scopes.is_empty() || rights.clients == Ids::default()
        });
        let refused = judged.err().map(|unjudged| Error::from(unjudged).kind().row().reason);
        Ok(Report { findings: findings.into(), rights, missing, grants_nothing, refused })
    }
}

fn rights(principal: &Principal) -> Vec<(&'static str, String)> {
    let rights = principal.rights();
    let scopes: Vec<_> = rights.scopes.iter().copied().map(Scope::as_str).collect();
    let scopes = if scopes.is_empty() { "none".to_owned() } else { scopes.join(" ") };
    vec![
        ("scopes", scopes),
        ("clients", rights.clients.to_string()),
        ("projects", rights.projects.to_string()),
        ("portfolios", rights.portfolios.to_string()),
    ]
}

/// What can be read of a token without knowing whether it holds.
struct View<'a> {
    verifier: &'a Verifier,
    length: usize,
    parts: usize,
    header: Option<Members>,
    claims: Option<Members>,
    issuer: Option<(usize, &'a Issuer)>,
    now: Duration,
}

impl<'a> View<'a> {
    fn of(verifier: &'a Verifier, token: &str, now: Duration) -> View<'a> {
        let short = token.len() <= MAX_TOKEN_BYTES;
        let parts = TokenParts::of(token).filter(|_| short);
        let claims = parts.as_ref().and_then(|parts| Members::decode(parts.claims).ok());
        let name = claims.as_ref().and_then(|claims| claims.string("iss"));
        let issuer = name.and_then(|name| verifier.issuers.iter().enumerate().find(|(_, issuer)| issuer.name == name));
        View {
            verifier,
            length: token.len(),
            parts: token.split('.').count(),
            header: parts.as_ref().and_then(|parts| Members::decode(parts.header).ok()),
            claims,
            issuer,
            now,
        }
    }

    fn header(&self, name: &str) -> String {
        show(self.header.as_ref().and_then(|header| header.get(name)))
    }

    fn claim(&self, name: &str) -> String {
        show(self.claims.as_ref().and_then(|claims| claims.get(name)))
    }

    fn seen(&self, check: Check) -> String {
        match check {
            Check::Form => format!("{} bytes in {} parts", self.length, self.parts),
            Check::Issuer => match self.issuer {
                Some((index, _)) => format!("iss {} is auth.issuers[{index}]", self.claim("iss")),
                None => {
                    let known: Vec<_> = self.verifier.issuers.iter().map(|issuer| issuer.name.as_str()).collect();
                    format!("iss {}; configured are {}", self.claim("iss"), known.join(", "))
                }
            },
            Check::Header => {
                let types = self.issuer.map(|(_, issuer)| issuer.types.join(", ")).filter(|types| !types.is_empty());
                let types = types.map(|types| format!("; configured types are {types}")).unwrap_or_default();
                format!("typ {}, crit {}{types}", self.header("typ"), self.header("crit"))
            }
            Check::Key => {
                let keys = self.issuer.map(|(_, issuer)| keys(issuer)).unwrap_or_default();
                format!("alg {}, kid {}{keys}", self.header("alg"), self.header("kid"))
            }
            Check::Signature => "(not shown)".to_owned(),
            Check::Audience => {
                let ours = self.issuer.map(|(_, issuer)| format!("; ours is {}", issuer.audience.join(" or ")));
                let theirs = self.read(|issuer, claims| {
                    let path = &issuer.audience_claim;
                    Some(format!("{} {}", path.as_str(), show(path.find(claims))))
                });
                format!("{}{}", theirs.unwrap_or_else(|| "aud".to_owned()), ours.unwrap_or_default())
            }
            Check::Subject => {
                let seen = self.read(|issuer, claims| {
                    let path = &issuer.paths.subject;
                    let usable = if issuer.subject(claims).is_some() { "" } else { ": none that can be used" };
                    Some(format!("{} {}{usable}", path.as_str(), show(path.find(claims))))
                });
                seen.unwrap_or_else(|| "none that can be used".to_owned())
            }
            Check::Claims => {
                let granted = self.read(|issuer, claims| {
                    Some(issuer.subject(claims).is_some_and(|subject| issuer.has_grant(subject, claims)))
                });
                match granted {
                    Some(true) => "a grant of the configuration stands in their place".to_owned(),
                    _ => self.granting(),
                }
            }
            Check::Times => {
                let [iat, nbf, exp] = ["iat", "nbf", "exp"].map(|name| self.instant(name));
                let most = self.verifier.limits.lifetime;
                let most =
                    most.map(|most| format!("; auth.max_token_lifetime is {}", humantime::format_duration(most)));
                format!("iat {iat}, nbf {nbf}, exp {exp}{}", most.unwrap_or_default())
            }
            Check::Expiry => self.expiry(),
        }
    }

    fn read<T>(&self, read: impl Fn(&Issuer, &Members) -> Option<T>) -> Option<T> {
        let ((_, issuer), claims) = self.issuer.zip(self.claims.as_ref())?;
        read(issuer, claims)
    }

    /// The claims that grant rights: the configured name of each, and the value that was found.
    fn granting(&self) -> String {
        let claims = self.read(|issuer, claims| {
            let seen =
                |(right, path): (&str, &Path)| format!("{right} from {}: {}", path.as_str(), show(path.find(claims)));
            Some(issuer.paths.granting().map(seen).join("; "))
        });
        claims.unwrap_or_else(|| "scopes, clients, projects, portfolios".to_owned())
    }

    /// The rights that an accepted token does not have because their claims are not there.
    fn missing(&self) -> Vec<String> {
        let missing = self.read(|issuer, claims| {
            if issuer.subject(claims).is_some_and(|subject| issuer.has_grant(subject, claims)) {
                return None;
            }
            let absent = issuer.paths.granting().into_iter().filter(|(_, path)| path.find(claims).is_none());
            Some(
                absent
                    .map(|(right, path)| {
                        let name = path.as_str();
                        let others: Vec<_> = OTHER_NAMES
                            .iter()
                            .filter(|(of, other)| *of == right && *other != name && claims.get(other).is_some())
                            .map(|(_, other)| format!("{other} {}", show(claims.get(other))))
                            .collect();
                        let hint = match others.is_empty() {
                            true => String::new(),
                            false => format!("; the token has {}: set auth.issuers.claims.{right}", others.join(", ")),
                        };
                        format!("{right}: the token has no claim {name}{hint}")
                    })
                    .collect(),
            )
        });
        missing.unwrap_or_default()
    }

    /// A time as people write it, where it is one.
    fn instant(&self, name: &str) -> String {
        let since = self.claims.as_ref().and_then(|claims| times::seconds(claims, name).ok().flatten());
        let instant = since.and_then(|since| OffsetDateTime::UNIX_EPOCH.checked_add(since.try_into().ok()?));
        instant.and_then(|instant| instant.format(&Rfc3339).ok()).unwrap_or_else(|| self.claim(name))
    }

    fn expiry(&self) -> String {
        let Some(window) = self.claims.as_ref().and_then(|claims| Window::of(claims).ok()) else {
            return "unknown".to_owned();
        };
        let whole = |time: Duration| humantime::format_duration(Duration::from_secs(time.as_secs()));
        let leeway = humantime::format_duration(self.verifier.limits.leeway);
        match window.expires.checked_sub(self.now) {
            Some(left) => format!("expires in {}, and {leeway} are forgiven", whole(left)),
            None => format!("expired {} ago, and {leeway} are forgiven", whole(self.now - window.expires)),
        }
    }
}

/// The keys of an issuer, as far as they help to see which one is missing.
fn keys(issuer: &Issuer) -> String {
    let (held, origin): (&Held, _) = (&issuer.ring.held(), issuer.ring.origin());
    if issuer.ring.is_unasked() {
        return format!("; {origin} was not asked for keys");
    }
    let state = issuer.ring.state();
    let names: Vec<_> = held
        .keys
        .iter()
        .map(|key| {
            let algorithms: Vec<_> = key.algorithms.iter().map(|algorithm| format!("{algorithm:?}")).collect();
            let kid = key.kid.as_deref().map(|kid| format!("{} for ", shown(kid))).unwrap_or_default();
            format!("{kid}{}", algorithms.join("/"))
        })
        .collect();
    let failure = held.failure.as_deref().map(|why| format!(" ({why})")).unwrap_or_default();
    let names = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
    let unusable = held.why_unusable(None).map(|why| format!("; not usable: {why}")).unwrap_or_default();
    let fetched = if state.is_fetched { ", fetched just now" } else { "" };
    format!("; the keys at {origin}{fetched} are {names}, {}{failure}{unusable}", state.freshness.as_str())
}

/// A value of a token, on one line, without what a terminal would act on.
fn show(value: Option<&Value>) -> String {
    let Some(value) = value else { return "absent".to_owned() };
    let text: String = value
        .to_string()
        .chars()
        .flat_map(|c| {
            let keeps = c.is_ascii_graphic() || c == ' ' || c.is_alphanumeric();
            if keeps { vec![c] } else { c.escape_unicode().collect() }
        })
        .collect();
    match text.char_indices().nth(SHOWN) {
        None => text,
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
    }
}
