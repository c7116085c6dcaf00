//! A provider's key set over HTTPS: its address, or the issuer's, which names it (OpenID Connect Discovery 1.0). An answer is
//! bounded in size and time, and taken from no other host than the one that was asked. This file must not know what a key
//! set holds.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, StatusCode, Url};
use serde::Deserialize;

use super::keys;
use super::load_error::LoadError;
use crate::tls::{self, Whose};

/// No answer is longer: 1 MiB. Key sets have some thousands of bytes.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;

/// How many times an answer may name another address on the same host.
const MAX_REDIRECTS: usize = 3;

/// What has the address of a key set that the issuer describes.
const DESCRIBED: &str = "the provider's jwks_uri";

/// What stands after the issuer in the address of its description (OpenID Connect Discovery 1.0 §4).
const WELL_KNOWN: &str = "/.well-known/openid-configuration";

/// Where an issuer's key set is to be had.
#[derive(Clone, Copy, Debug)]
pub(super) struct Provider<'a> {
    /// The address of the key set; without one it is asked for at the issuer.
    pub(super) jwks_url: Option<&'a str>,
    pub(super) issuer: &'a str,
    pub(super) ca_file: Option<&'a Path>,
    pub(super) bearer_token_file: Option<&'a Path>,
    pub(super) allow_http: bool,
}

/// Fetches the key set of one issuer.
#[derive(Debug)]
pub(super) struct Fetcher {
    issuer: String,
    /// The configuration key that has the address.
    key: String,
    /// The address of the key set, or of the description that names it.
    url: Url,
    is_described: bool,
    ca_file: Option<PathBuf>,
    bearer_token_file: Option<PathBuf>,
    allow_http: bool,
    timeout: Duration,
    /// The client, and the bytes of the CA file that it was made with.
    client: Mutex<Option<(Arc<[u8]>, Client)>>,
}

impl Fetcher {
    /// Makes a client for a provider, and asks for nothing yet. `at` is the configuration key of the issuer's table.
    pub(super) fn new(provider: &Provider<'_>, timeout: Duration, at: &str) -> Result<Fetcher, LoadError> {
        let Provider { issuer, allow_http, .. } = *provider;
        let (key, text) = match provider.jwks_url {
            Some(url) => ("jwks_url", url.to_owned()),
            None => ("issuer", format!("{}{WELL_KNOWN}", issuer.trim_end_matches('/'))),
        };
        let key = format!("{at}.{key}");
        let url = Url::parse(&text).map_err(|error| LoadError::new(&key, format!("`{text}` is no URL: {error}")))?;
        check_address(&url, allow_http).map_err(|what| LoadError::new(&key, format!("{url} {what}")))?;
        let fetcher = Fetcher {
            issuer: issuer.to_owned(),
            key,
            url,
            is_described: provider.jwks_url.is_none(),
            ca_file: provider.ca_file.map(Path::to_owned),
            bearer_token_file: provider.bearer_token_file.map(Path::to_owned),
            allow_http,
            timeout,
            client: Mutex::new(None),
        };
        fetcher.client().map_err(|what| LoadError::new(format!("{at}.ca_file"), what))?;
        fetcher.bearer().map_err(|what| LoadError::new(format!("{at}.bearer_token_file"), what))?;
        Ok(fetcher)
    }

    /// What is asked.
    pub(super) fn address(&self) -> &str {
        self.url.as_str()
    }

    /// Asks for the key set.
    ///
    /// # Errors
    /// Why there is none, in words for the log.
    pub(super) async fn fetch(&self) -> Result<Vec<u8>, String> {
        match tokio::time::timeout(self.timeout, self.ask()).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("{} has not answered in {}", self.url, humantime::format_duration(self.timeout))),
        }
    }

    async fn ask(&self) -> Result<Vec<u8>, String> {
        // Both may have been replaced since the last time.
        let (client, bearer) = (self.client()?, self.bearer()?);
        let first = get(&client, &self.url, bearer.as_ref(), &self.key).await?;
        if !self.is_described {
            return Ok(first);
        }
        let described = self.key_set_address(&first).map_err(|what| format!("{}: {what}", self.url))?;
        // Our own token is for the host that was configured and for no other.
        let bearer = bearer.filter(|_| described.origin() == self.url.origin());
        get(&client, &described, bearer.as_ref(), DESCRIBED).await
    }

    /// The address that the issuer's description gives.
    fn key_set_address(&self, description: &[u8]) -> Result<Url, String> {
        #[derive(Deserialize)]
        struct Description {
            issuer: String,
            jwks_uri: String,
        }
        let description: Description = serde_json::from_slice(description)
            .map_err(|error| format!("is not the description of an issuer: {error}"))?;
        // Or one issuer could speak for another (OpenID Connect Discovery 1.0 §4.3).
        if description.issuer != self.issuer {
            return Err(format!("is the description of `{}`, not of `{}`", description.issuer, self.issuer));
        }
        let url = Url::parse(&description.jwks_uri).map_err(|error| format!("its jwks_uri is no URL: {error}"))?;
        check_address(&url, self.allow_http).map_err(|what| format!("its jwks_uri {url} {what}"))?;
        Ok(url)
    }

    /// The client that trusts what the CA file holds now.
    fn client(&self) -> Result<Client, String> {
        let read = |path: &Path| keys::read(path, "").map_err(|error| error.what().to_owned());
        let trusted: Arc<[u8]> = self.ca_file.as_deref().map(read).transpose()?.unwrap_or_default().into();
        let mut known = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = known.as_ref().filter(|(with, _)| *with == trusted) {
            return Ok(client.clone());
        }
        let mut builder = Client::builder()
            .user_agent(concat!("attachd/", env!("CARGO_PKG_VERSION")))
            .redirect(self.redirects())
            .referer(false)
            .connect_timeout(self.timeout)
            // Proxies are taken from the environment otherwise, which is the configuration's to read.
            .no_proxy()
            .pool_max_idle_per_host(0);
        if let Some(path) = &self.ca_file {
            let certificates = Certificate::from_pem_bundle(&trusted)
                .ok()
                .filter(|certificates| !certificates.is_empty())
                .ok_or_else(|| format!("{}: holds no certificate in PEM", path.display()))?;
            builder = builder.tls_certs_only(certificates);
        } else if self.url.scheme() == "http" {
            // No certificate is looked at, and a machine need not have any.
            builder = builder.tls_certs_only([]);
        }
        let client = builder.build().map_err(|error| words(&error))?;
        *known = Some((trusted, client.clone()));
        Ok(client)
    }

    /// Which redirects are followed: a few, on the host that was asked.
    fn redirects(&self) -> Policy {
        let (configured, key) = (self.url.clone(), self.key.clone());
        Policy::custom(move |attempt| match attempt.previous() {
            [first, ..] if attempt.url().origin() != first.origin() => {
                let place = if *first == configured { &key } else { DESCRIBED };
                let why = elsewhere(first, attempt.url(), place);
                attempt.error(why)
            }
            before if before.len() > MAX_REDIRECTS => attempt.error("it names one address after another"),
            _ => attempt.follow(),
        })
    }

    /// The header that carries our own token, where the provider asks for one.
    fn bearer(&self) -> Result<Option<HeaderValue>, String> {
        let Some(path) = &self.bearer_token_file else { return Ok(None) };
        let token = keys::read(path, "").map_err(|error| error.what().to_owned())?;
        let header = HeaderValue::from_bytes(&[b"Bearer ", token.trim_ascii()].concat());
        let mut header = header.map_err(|_| format!("{}: is no token", path.display()))?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Asks for a document. `place` is what has its address, for messages.
async fn get(client: &Client, url: &Url, bearer: Option<&HeaderValue>, place: &str) -> Result<Vec<u8>, String> {
    let mut request = client.get(url.clone()).header(ACCEPT, "application/json, application/jwk-set+json");
    if let Some(bearer) = bearer {
        request = request.header(AUTHORIZATION, bearer);
    }
    let failed = |error: reqwest::Error| {
        let whose = Whose::Server { trusted: "in ca_file", address: place };
        let why = match error.is_redirect() {
            // The library's own words come first, and ours are their cause.
            true => std::error::Error::source(&error).map(words),
            false => tls::distrusted(&error, whose),
        };
        format!("{url}: {}", why.unwrap_or_else(|| words(&error.without_url())))
    };
    let mut answer = request.send().await.map_err(failed)?;
    if answer.status() != StatusCode::OK {
        return Err(format!("{url} answered {}", answer.status()));
    }
    let mut bytes = Vec::new();
    while let Some(more) = answer.chunk().await.map_err(failed)? {
        if bytes.len() + more.len() > MAX_ANSWER_BYTES {
            return Err(format!("{url} answered more than 1 MiB"));
        }
        bytes.extend_from_slice(&more);
    }
    Ok(bytes)
}

/// Why a redirect to another host, port or scheme is not followed, and the mend.
fn elsewhere(from: &Url, to: &Url, place: &str) -> String {
    let host = to.host_str().unwrap_or_default();
    match (from.scheme(), to.scheme()) {
        _ if from.host() != to.host() => format!("it names another host, {host}: write the last address in {place}"),
        ("http", "https") => {
            let port = to.port().map_or_else(String::new, |port| format!(" and port {port}"));
            format!("it leads to https on the same host: write https://{port} in {place}")
        }
        ("https", "http") => "it leads from https to http, which is not followed".to_owned(),
        _ => format!("it names another port of {host}: write the last address in {place}"),
    }
}

/// Whether keys may come from there: over TLS, from this machine, or where plain text is permitted.
fn check_address(url: &Url, allow_http: bool) -> Result<(), &'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Err("holds a user name or password");
    }
    let is_near = match url.host_str().map(|host| host.trim_start_matches('[').trim_end_matches(']')) {
        Some("localhost") => true,
        Some(host) => host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()),
        None => return Err("names no host"),
    };
    match url.scheme() {
        "https" => Ok(()),
        "http" if allow_http || is_near => Ok(()),
        "http" => Err("must be https: whoever is on the way could put in keys (allow_http = true permits it)"),
        _ => Err("must be https"),
    }
}

/// An error with its causes, each once.
fn words(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut link = error.source();
    while let Some(cause) = link {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        link = cause.source();
    }
    text
}
