//! The keys of one issuer as they are now: read from a file or fetched from its provider, again and again, one attempt at a
//! time. When an attempt fails the keys that there are stay in use for a while. This file must not know tokens, or what a
//! key looks like inside.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use aws_lc_rs::digest::{SHA256, digest};
use jsonwebtoken::Algorithm;
use tokio::sync::{Mutex, Semaphore};

use super::config::{KeysConfig, Source};
use super::fetch::Fetcher;
use super::keys::{self, Form, Unusable, VerificationKey};
use super::load_error::LoadError;
use super::misses::Misses;

/// How often a file is looked at.
const FILE_INTERVAL: Duration = Duration::from_secs(5);

/// How long a provider that did not answer is left alone. Until then nobody waits for it.
const REST_AFTER_FAILURE: Duration = Duration::from_secs(5);

/// How many requests may wait for newer keys of one issuer at once. Each is one that no known key goes with.
const MAX_WAITING: usize = 256;

/// The keys of one issuer, and where they come from.
#[derive(Debug)]
pub(super) struct Keyring {
    issuer: String,
    algorithms: Vec<Algorithm>,
    origin: Origin,
    config: KeysConfig,
    held: ArcSwap<Held>,
    /// Held by whoever asks the origin, so that it is asked once for all who wait.
    turn: Arc<Mutex<()>>,
    waiting: Semaphore,
    misses: Misses,
    /// How many times the origin has been asked, the time that is under way included.
    begun: AtomicU64,
    failed: AtomicU64,
}

#[derive(Debug)]
enum Origin {
    File { path: PathBuf, form: Form },
    Provider(Box<Fetcher>),
}

/// What is known at one time.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) keys: Arc<[VerificationKey]>,
    /// What the origin has beside them, and why it verifies nothing.
    pub(super) unusable: Arc<[Unusable]>,
    /// Another number for other keys.
    pub(super) generation: u64,
    /// The number of the attempt that found this out; 0 where there was none.
    attempt: u64,
    /// When an attempt ended.
    attempted: Option<Instant>,
    /// When the origin last said that these are the keys.
    confirmed: Option<(Instant, SystemTime)>,
    /// What the origin said, as far as it takes to see that it says the same again.
    said: Said,
    /// Why the last attempt failed, if it did.
    pub(super) failure: Option<String>,
}

/// The digest of what an origin said. It may have said a secret, so that not even this is shown.
#[derive(Clone, PartialEq, Eq)]
struct Said(Vec<u8>);

impl Said {
    fn of(bytes: &[u8]) -> Said {
        Said(digest(&SHA256, bytes).as_ref().to_vec())
    }
}

impl fmt::Debug for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// Why there are no newer keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoneNewer {
    /// The origin was asked, and these are all.
    Told,
    /// The origin does not answer, or too many wait for it.
    Untold,
}

/// How far the keys of an issuer can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// They are what the issuer said when it was last asked.
    Fresh,
    /// The issuer did not answer when it was last asked. What it said before is in use.
    Stale,
    /// There are none, or what the issuer said is too old. Its tokens cannot be judged.
    Unusable,
}

impl Freshness {
    /// The state in one word: `fresh`, `stale`, `unusable`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Freshness::Fresh => "fresh",
            Freshness::Stale => "stale",
            Freshness::Unusable => "unusable",
        }
    }
}

/// The state of one issuer's keys, for operators.
#[derive(Clone, Debug)]
pub struct KeysState {
    /// The configured issuer.
    pub issuer: String,
    /// How far its keys can be relied on.
    pub freshness: Freshness,
    /// How many keys there are.
    pub keys: usize,
    /// When the issuer's provider, or the file, last said that these are the keys.
    pub confirmed: Option<SystemTime>,
    /// Whether they are fetched from a provider, rather than read from a file.
    pub is_fetched: bool,
    /// How many times they were asked for.
    pub attempts: u64,
    /// How many of these times failed.
    pub failures: u64,
}

impl Keyring {
    /// Reads the keys of a file. Those of a provider are not there until they are asked for. `at` is the configuration key of
    /// the issuer's table.
    pub(super) fn load(
        issuer: &str,
        source: &Source<'_>,
        algorithms: Vec<Algorithm>,
        config: KeysConfig,
        at: &str,
    ) -> Result<Arc<Keyring>, LoadError> {
        let (origin, held) = match source {
            Source::File { path, form, key } => {
                let at = format!("{at}.{key}");
                let bytes = keys::read(path, &at)?;
                let found = form
                    .parse(&bytes, &algorithms)
                    .map_err(|what| LoadError::new(&at, format!("{}: {what}", path.display())))?;
                (Origin::File { path: (*path).to_owned(), form: *form }, Held::none().replaced(found, &bytes, 0))
            }
            Source::Provider(provider) => {
                (Origin::Provider(Box::new(Fetcher::new(provider, config.timeout, at)?)), Held::none())
            }
        };
        Ok(Arc::new(Keyring {
            issuer: issuer.to_owned(),
            algorithms,
            origin,
            config,
            held: ArcSwap::from_pointee(held),
            turn: Arc::new(Mutex::new(())),
            waiting: Semaphore::new(MAX_WAITING),
            misses: Misses::default(),
            begun: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        }))
    }

    /// The algorithms that are configured for the issuer.
    pub(super) fn algorithms(&self) -> &[Algorithm] {
        &self.algorithms
    }

    /// What is known now.
    pub(super) fn held(&self) -> Arc<Held> {
        self.held.load_full()
    }

    /// A mark: an attempt that has begun after it is newer.
    pub(super) fn mark(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether what is `held` may be used: the origin has said so, and not too long ago.
    pub(super) fn is_usable(&self, held: &Held) -> bool {
        held.confirmed.is_some_and(|(at, _)| at.elapsed() <= self.config.max_age)
    }

    /// Whether the provider was asked for the key of this `kid` so lately that it is not to be asked for it again.
    pub(super) fn has_missed(&self, kid: Option<&str>) -> bool {
        self.misses.has(kid)
    }

    /// The provider was asked for the key of this `kid`, and does not have it; or has another one than the token's, which
    /// `is_known` says. A key that nobody knows is asked for ever more rarely. One that is known is asked for after each
    /// cooldown, so that forged tokens do not keep a key that was replaced under its `kid` from being found.
    pub(super) fn missed(&self, kid: Option<&str>, is_known: bool) {
        let KeysConfig { cooldown, refresh, .. } = self.config;
        // A file is read whenever a token asks for it, since that costs nobody else anything.
        if let Origin::Provider(_) = self.origin {
            self.misses.insert(kid, cooldown, if is_known { cooldown } else { refresh });
        }
    }

    /// What is known beyond `held`, which did not suffice for a token that arrived at `mark`. Asks the origin, unless it was
    /// asked since.
    pub(super) async fn newer(self: &Arc<Self>, held: &Held, mark: u64) -> Result<Arc<Held>, NoneNewer> {
        let _place = self.waiting.try_acquire().map_err(|_| NoneNewer::Untold)?;
        let turn = Arc::clone(&self.turn).lock_owned().await;
        let now = self.held();
        if now.attempt != held.attempt {
            return Ok(now);
        }
        if now.attempt > mark {
            // What a file said before it could not be read stands: whoever changes it does so here.
            let told = now.failure.is_none() || matches!(self.origin, Origin::File { .. });
            return Err(if told { NoneNewer::Told } else { NoneNewer::Untold });
        }
        if let (Origin::Provider(_), Some(attempted)) = (&self.origin, now.attempted) {
            if now.failure.is_some() && attempted.elapsed() < REST_AFTER_FAILURE {
                return Err(NoneNewer::Untold);
            }
            // The rate at which strangers can make us ask.
            tokio::time::sleep(self.config.cooldown.saturating_sub(attempted.elapsed())).await;
        }
        // In a task of its own, so that a caller who goes away does not take the answer from the others.
        let ring = Arc::clone(self);
        let asked = tokio::spawn(async move {
            ring.ask().await;
            drop(turn);
        });
        match asked.await {
            Ok(()) => Ok(self.held()),
            Err(panic) => {
                tracing::error!(issuer = self.issuer, %panic, "the keys of an issuer could not be asked for");
                Err(NoneNewer::Untold)
            }
        }
    }

    /// Asks the origin now, unless somebody else does, and says why that failed.
    pub(super) async fn refresh(&self) -> Result<(), String> {
        let before = self.held.load().attempt;
        let _turn = self.turn.lock().await;
        if self.held.load().attempt == before {
            self.ask().await;
        }
        match &self.held.load().failure {
            None => Ok(()),
            Some(why) => Err(why.clone()),
        }
    }

    /// Asks the origin for as long as it is polled: a provider at once, and again each `keys.refresh`; a file each five
    /// seconds.
    pub(super) async fn keep_fresh(&self) {
        let mut next = match &self.origin {
            Origin::Provider(_) if self.held.load().confirmed.is_none() => Duration::ZERO,
            Origin::Provider(_) => self.config.refresh,
            Origin::File { .. } => FILE_INTERVAL,
        };
        loop {
            tokio::time::sleep(next).await;
            let asked = self.refresh().await;
            next = match (&self.origin, asked) {
                (Origin::File { .. }, _) => FILE_INTERVAL,
                (Origin::Provider(_), Ok(())) => self.config.refresh,
                (Origin::Provider(_), Err(_)) => REST_AFTER_FAILURE.min(self.config.refresh),
            };
        }
    }

    /// The state, for operators.
    pub(super) fn state(&self) -> KeysState {
        let held = self.held.load();
        let freshness = match (self.is_usable(&held), &held.failure) {
            (true, None) => Freshness::Fresh,
            (true, Some(_)) => Freshness::Stale,
            (false, _) => Freshness::Unusable,
        };
        KeysState {
            issuer: self.issuer.clone(),
            freshness,
            keys: held.keys.len(),
            confirmed: held.confirmed.map(|(_, at)| at),
            is_fetched: matches!(self.origin, Origin::Provider(_)),
            attempts: self.begun.load(Ordering::Relaxed),
            failures: self.failed.load(Ordering::Relaxed),
        }
    }

    /// Where the keys come from, for people.
    pub(super) fn origin(&self) -> String {
        match &self.origin {
            Origin::File { path, .. } => path.display().to_string(),
            Origin::Provider(fetcher) => fetcher.address().to_owned(),
        }
    }

    /// Whether the keys are a provider's, and it was not asked for them yet.
    pub(super) fn is_unasked(&self) -> bool {
        matches!(self.origin, Origin::Provider(_)) && self.begun.load(Ordering::Relaxed) == 0
    }

    /// One attempt. Only ever called by who has the turn.
    async fn ask(&self) {
        let attempt = self.begun.fetch_add(1, Ordering::AcqRel) + 1;
        let (bytes, form) = match &self.origin {
            Origin::File { path, form } => (read(path.clone()).await, *form),
            Origin::Provider(fetcher) => (fetcher.fetch().await, Form::Jwks),
        };
        let before = self.held();
        let found = bytes.and_then(|bytes| {
            if before.confirmed.is_some() && before.said == Said::of(&bytes) {
                return Ok(before.again(attempt));
            }
            form.parse(&bytes, &self.algorithms).map(|found| before.replaced(found, &bytes, attempt))
        });
        let held = found.unwrap_or_else(|why| before.failed(why, attempt));
        match (&held.failure, held.generation == before.generation) {
            (Some(error), _) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                let usable = self.is_usable(&held);
                tracing::warn!(
                    issuer = self.issuer,
                    from = self.origin(),
                    error,
                    usable,
                    "the keys of an issuer could not be read"
                );
            }
            (None, false) => {
                let unusable = (!held.unusable.is_empty()).then(|| keys::sentences(held.unusable.iter()));
                tracing::info!(issuer = self.issuer, keys = held.keys.len(), unusable, "the keys of an issuer are new")
            }
            (None, true) => tracing::debug!(issuer = self.issuer, "the keys of an issuer are as they were"),
        }
        self.held.store(Arc::new(held));
    }
}

impl Held {
    fn none() -> Held {
        Held {
            keys: Arc::new([]),
            unusable: Arc::new([]),
            generation: 0,
            attempt: 0,
            attempted: None,
            confirmed: None,
            said: Said(Vec::new()),
            failure: None,
        }
    }

    /// Why the keys that a token may have asked for verify nothing: those that have its `kid`, else those that have none; all
    /// of them where the token has none.
    pub(super) fn why_unusable(&self, kid: Option<&str>) -> Option<String> {
        let with = |kid: Option<&str>| {
            let mut keys = self.unusable.iter().filter(|key| key.kid.as_deref() == kid).peekable();
            keys.peek().is_some().then(|| keys::sentences(keys))
        };
        match kid {
            Some(kid) => with(Some(kid)).or_else(|| with(None)),
            None => (!self.unusable.is_empty()).then(|| keys::sentences(self.unusable.iter())),
        }
    }

    /// The origin has other keys.
    fn replaced(&self, found: keys::Found, bytes: &[u8], attempt: u64) -> Held {
        let (keys, unusable) = (found.keys.into(), found.unusable.into());
        Held { keys, unusable, generation: self.generation + 1, said: Said::of(bytes), ..self.again(attempt) }
    }

    /// The origin has the same keys.
    fn again(&self, attempt: u64) -> Held {
        let now = Instant::now();
        Held {
            keys: Arc::clone(&self.keys),
            unusable: Arc::clone(&self.unusable),
            generation: self.generation,
            attempt,
            attempted: Some(now),
            confirmed: Some((now, SystemTime::now())),
            said: self.said.clone(),
            failure: None,
        }
    }

    /// The origin was not understood, or did not answer.
    fn failed(&self, why: String, attempt: u64) -> Held {
        Held { confirmed: self.confirmed, failure: Some(why), ..self.again(attempt) }
    }
}

/// Reads a file in the way that is fit for a server that is running.
async fn read(path: PathBuf) -> Result<Vec<u8>, String> {
    let read = tokio::task::spawn_blocking(move || keys::read(&path, "").map_err(|error| error.what().to_owned()));
    read.await.unwrap_or_else(|error| Err(error.to_string()))
}
