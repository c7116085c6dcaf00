//! What is wrong with a configuration of tokens. This file must not know what can be configured.

use std::fmt;

/// Why a configuration of tokens cannot be used: which key of it, and what is wrong. Holds no key material.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    key: String,
    what: String,
}

impl LoadError {
    pub(super) fn new(key: impl Into<String>, what: impl Into<String>) -> Self {
        LoadError { key: key.into(), what: what.into() }
    }

    /// The configuration key that is wrong, such as `auth.issuers[0].pem_file`.
    pub fn key(&self) -> &str {
        &self.key
    }

    /// What is wrong with it, for the operator.
    pub fn what(&self) -> &str {
        &self.what
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.what)
    }
}

impl std::error::Error for LoadError {}
