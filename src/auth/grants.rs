//! Rights that the configuration gives to callers whose tokens cannot carry them: by subject, or by the value of a claim. This
//! file must not know what a right is used for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::claims::Path;
use super::load_error::LoadError;
use super::principal::{Ids, Rights, Scope, is_subject};

/// One `[[auth.issuers.grants]]` table: what one subject may do, or every caller whose token has a value in a claim. It stands
/// in place of the claims that grant rights, which are not looked at in such tokens. If several grants match a token, their
/// rights are added up.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// The subject, compared byte by byte: 1 to 255 bytes without control characters. Each at most once for an issuer. Either
    /// this or `claim` and `value` must be given.
    #[serde(default)]
    pub subject: Option<String>,
    /// The claim that must have `value`: a name or a JSON pointer, as in `[auth.issuers.claims]`, such as `groups`.
    #[serde(default)]
    pub claim: Option<String>,
    /// The value of `claim`, compared byte by byte: the claim is this text, or a list with this text in it.
    #[serde(default)]
    pub value: Option<String>,
    /// What it may do. Default nothing.
    #[serde(default)]
    pub scopes: Vec<Scope>,
    /// For which clients: a list of ids, or `"*"` for all. Default none.
    #[serde(default)]
    pub clients: Ids,
    /// For which projects, likewise.
    #[serde(default)]
    pub projects: Ids,
    /// For which portfolios, likewise.
    #[serde(default)]
    pub portfolios: Ids,
}

/// Who has a grant.
#[derive(Clone, Debug)]
pub(super) enum Holder {
    /// The caller of this name.
    Subject(String),
    /// Every caller whose token has this value in this claim.
    Value(Path, String),
}

impl Grant {
    /// Who has it; `at` is the configuration key of its table.
    pub(super) fn holder(&self, at: &str) -> Result<Holder, LoadError> {
        match (&self.subject, &self.claim, &self.value) {
            (Some(subject), None, None) => Ok(Holder::Subject(subject.clone())),
            (None, Some(claim), Some(value)) => {
                let path = Path::parse(claim).map_err(|what| LoadError::new(format!("{at}.claim"), what))?;
                match value.is_empty() {
                    true => Err(LoadError::new(format!("{at}.value"), "must not be empty")),
                    false => Ok(Holder::Value(path, value.clone())),
                }
            }
            _ => Err(LoadError::new(at, "must have either subject, or claim and value")),
        }
    }

    /// What it grants.
    pub(super) fn rights(&self) -> Rights {
        let Grant { scopes, clients, projects, portfolios, .. } = self.clone();
        Rights { scopes, clients, projects, portfolios }
    }

    /// Looks at the grants of one issuer; `list` is the configuration key of their list.
    pub(super) fn check(grants: &[Grant], list: &str) -> Result<(), LoadError> {
        for (index, grant) in grants.iter().enumerate() {
            let at = format!("{list}[{index}]");
            grant.holder(&at)?;
            let Some(subject) = &grant.subject else { continue };
            let wrong = |what: String| Err(LoadError::new(format!("{at}.subject"), what));
            if !is_subject(subject) {
                return wrong("must have 1 to 255 bytes and no control characters".to_owned());
            }
            if let Some(first) = grants.iter().take(index).position(|other| other.subject == grant.subject) {
                return wrong(format!("`{subject}` is the subject of {list}[{first}] already"));
            }
        }
        Ok(())
    }
}
