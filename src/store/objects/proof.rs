//! Whether a service keeps two writers apart: it compares the version that a put names with the one that stands, and does so
//! for puts that come at once. What a service says of itself is not believed, it is tried on objects under `probe/`.

use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use futures_util::TryStreamExt;
use futures_util::future::{BoxFuture, FutureExt, Shared, join_all};
use opendal::{Buffer, ErrorKind};
use scopeguard::guard;
use tracing::Instrument;

use super::{Compares, Objects};
use crate::attachment::UploadId;
use crate::error::{Error, Kind, Result};
use crate::store::backend::{Failure, Version};
use crate::store::layout::{self, MARKER, PROBE};
use crate::store::meaning::plain;
use crate::store::steps::Steps;
use crate::store::{failure, lock};

/// How many puts race for one object.
const RACERS: usize = 8;

/// How many times they race to create an object, and then to replace it.
const ROUNDS: usize = 10;

/// How many races may be run again, since a put of theirs got no answer.
const REPEATED: usize = 20;

/// After what time an object under `probe/` is nobody's any more. A put that was given up can come about after its object was
/// deleted.
const LEFT_BEHIND: Duration = Duration::from_secs(3600);

/// What trying a service has come to, and the trying that is under way.
#[derive(Debug, Default)]
pub struct Proof {
    form: OnceLock<TagForm>,
    under_way: Mutex<Option<Trying>>,
}

/// The end of the trying, for all who wait for it: the form, or the kind and the text of an error.
type Trying = Shared<BoxFuture<'static, Result<TagForm, (Kind, String)>>>;

/// How a put writes the entity tag of the version that it replaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TagForm {
    /// As the service writes it, in quotes (RFC 9110, section 8.8.3).
    AsRead,
    /// Without the quotes: some services compare no other form.
    Unquoted,
    /// In quotes, where the service writes it without.
    Quoted,
}

/// Why a service is refused.
enum Unfit {
    /// It does what a condition forbids.
    Blind,
    /// It does so where several puts come at once.
    Racy { winners: usize },
    /// It names no version of what it returns.
    Nameless,
    /// It refuses the put that names the version which stands.
    Deaf,
    /// It returns other bytes than it was given.
    Forgetful,
}

impl TagForm {
    /// The version in this form.
    pub fn of(self, version: Version) -> Version {
        match (self, version) {
            (TagForm::Unquoted, Version::Tag(tag)) => Version::Tag(tag.trim_matches('"').to_owned()),
            (TagForm::Quoted, Version::Tag(tag)) => Version::Tag(format!("\"{}\"", tag.trim_matches('"'))),
            (_, version) => version,
        }
    }
}

impl Unfit {
    fn error(&self) -> Error {
        let why = match self {
            Unfit::Blind => {
                "the storage does not compare versions: it carries out a put whose condition (If-Match, If-None-Match) does \
                 not hold"
                    .to_owned()
            }
            Unfit::Racy { winners } => format!(
                "the storage does not compare versions of puts that come at once: it carried out {winners} of {RACERS} that \
                 named the same version"
            ),
            Unfit::Nameless => "the storage does not say which version of an object it returned (no ETag, no generation)".to_owned(),
            Unfit::Deaf => {
                "the storage refuses a put that names the version which stands (If-Match), with quotes and without".to_owned()
            }
            Unfit::Forgetful => return Error::internal("the storage returned other bytes than it was given"),
        };
        Error::internal(format!(
            "{why}; two replicas could each believe that their upload is stored. Use a storage that compares, or, if only one \
             process ever writes there, set storage.sole_writer = true"
        ))
    }
}

impl Objects {
    /// Looks once that the storage has the layout of this version, and marks one that is new; then that the service compares
    /// versions, and does not only take the words: two that believe it did could each tell a client that its file is stored.
    /// Says how a put names a version. All who ask meanwhile wait for the same look, and it goes on if they go away.
    ///
    /// # Errors
    /// [`Kind::Internal`] if the storage has another layout or holds other things, or the service does not keep writers apart, and
    /// what storage raises. The next call tries again.
    pub async fn prove(self: &Arc<Self>) -> Result<TagForm> {
        if self.is_proven() {
            return Ok(self.proof.form.get().copied().unwrap_or(TagForm::AsRead));
        }
        let trying = lock(&self.proof.under_way).get_or_insert_with(|| self.begin_to_try()).clone();
        trying.await.map_err(|(kind, why)| Error::new(kind).because(why))
    }

    /// Whether [`prove`](Self::prove) has found the service fit.
    pub fn is_proven(&self) -> bool {
        !self.remote && self.compares == Compares::Never || self.proof.form.get().is_some()
    }

    fn begin_to_try(self: &Arc<Self>) -> Trying {
        // It ends for those who come later even if it panics.
        let objects = guard(Arc::clone(self), |objects| *lock(&objects.proof.under_way) = None);
        let trying = async move {
            let found = objects.look().await;
            if let Ok(form) = found {
                objects.proof.form.get_or_init(|| form);
            }
            found.map_err(|error| (error.kind(), error.for_operator()))
        };
        let trying = tokio::spawn(trying.in_current_span());
        async { trying.await.unwrap_or_else(|panic| Err((Kind::Internal, panic.to_string()))) }.boxed().shared()
    }

    async fn look(&self) -> Result<TagForm> {
        if !self.is_marked().await? {
            self.operator.write(MARKER, layout::marker()).await.map_err(failure)?;
        }
        if self.compares == Compares::Never {
            return Ok(TagForm::AsRead);
        }
        self.try_out().await
    }

    async fn try_out(&self) -> Result<TagForm> {
        let form = self.one_by_one().await?;
        let (mut clean, mut failed) = (0, 0);
        while clean < ROUNDS {
            match self.race(form).await {
                Ok(()) => clean += 1,
                Err(error) if error.kind() == Kind::StorageUnavailable && failed < REPEATED => failed += 1,
                Err(error) => return Err(error),
            }
        }
        if let Err(error) = self.remove_what_was_left().await {
            tracing::warn!(error = plain(&error), "what was left behind under probe/ could not be deleted");
        }
        Ok(form)
    }

    /// Deletes what earlier looks have left behind.
    async fn remove_what_was_left(&self) -> opendal::Result<()> {
        let now = SystemTime::now();
        let mut entries = self.operator().lister(&format!("{PROBE}/")).await?;
        while let Some(entry) = entries.try_next().await? {
            if UploadId::parse(entry.name()).is_some_and(|id| id.age(now) > LEFT_BEHIND) {
                self.operator().delete(entry.path()).await?;
            }
        }
        Ok(())
    }

    /// Looks at puts that come one after the other.
    async fn one_by_one(&self) -> Result<TagForm> {
        let path = probe_path();
        let found = self.one_by_one_at(&path).await;
        self.remove(&path).await;
        found
    }

    async fn one_by_one_at(&self, path: &str) -> Result<TagForm> {
        self.probe_put(path, "first", &Version::Absent).await.map_err(Failure::into_error)?;
        let (bytes, first) = match self.read(path).await {
            Ok(read) => read,
            Err(error) if error.kind() == ErrorKind::Unsupported => return Err(Unfit::Nameless.error()),
            Err(error) => return Err(failure(error)),
        };
        if bytes != "first" {
            return Err(Unfit::Forgetful.error());
        }
        let mut taken = None;
        for form in [TagForm::AsRead, TagForm::Unquoted, TagForm::Quoted] {
            let version = form.of(first.clone());
            if taken.is_none() && (form == TagForm::AsRead || version != first) {
                match self.probe_put(path, "second", &version).await {
                    Ok(()) => taken = Some(form),
                    Err(Failure::Overtaken) => {}
                    Err(failure) => return Err(failure.into_error()),
                }
            }
        }
        let Some(form) = taken else { return Err(Unfit::Deaf.error()) };
        for stale in [form.of(first), Version::Absent] {
            match self.probe_put(path, "third", &stale).await {
                Err(Failure::Overtaken) => {}
                Ok(()) => return Err(Unfit::Blind.error()),
                Err(failure) => return Err(failure.into_error()),
            }
        }
        let (bytes, _) = self.read(path).await.map_err(failure)?;
        if bytes == "second" { Ok(form) } else { Err(Unfit::Blind.error()) }
    }

    /// Looks at puts that come at once: some to create an object, then some to replace it.
    async fn race(&self, form: TagForm) -> Result<()> {
        let path = probe_path();
        let found = self.race_at(&path, form).await;
        self.remove(&path).await;
        found
    }

    async fn race_at(&self, path: &str, form: TagForm) -> Result<()> {
        let mut version = Version::Absent;
        for race in ["create", "replace"] {
            let texts: Vec<String> = (0..RACERS).map(|racer| format!("{race} {racer}")).collect();
            let puts = join_all(texts.iter().map(|text| self.probe_put(path, text, &version))).await;
            let mut winners = Vec::new();
            let mut failed = None;
            for (text, put) in texts.iter().zip(puts) {
                match put {
                    Ok(()) => winners.push(text),
                    Err(Failure::Overtaken) => {}
                    Err(failure) => failed = Some(failure.into_error()),
                }
            }
            if winners.len() > 1 {
                return Err(Unfit::Racy { winners: winners.len() }.error());
            }
            // A service may turn all away that come at once, which harms nobody, and tells nothing.
            let none = || Error::new(Kind::StorageUnavailable).because("none of several puts at once was carried out");
            let Some(winner) = winners.first().filter(|_| failed.is_none()) else {
                return Err(failed.unwrap_or_else(none));
            };
            let (bytes, stands) = self.read(path).await.map_err(failure)?;
            if bytes != winner.as_bytes() {
                return Err(Unfit::Blind.error());
            }
            version = form.of(stands);
        }
        Ok(())
    }

    async fn probe_put(&self, path: &str, text: &str, version: &Version) -> Result<(), Failure> {
        self.try_put(path, Buffer::from(text.to_owned()), version, &Steps::default()).await
    }

    async fn remove(&self, path: &str) {
        if let Err(error) = self.operator().delete(path).await {
            tracing::warn!(error = plain(&error), path, "what the storage was tried with could not be deleted");
        }
    }
}

fn probe_path() -> String {
    format!("{PROBE}/{}", UploadId::fresh())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tag_has_a_form_and_only_its_quotes_go() {
        let tag = |text: &str| Version::Tag(text.to_owned());
        assert_eq!(TagForm::Unquoted.of(tag("\"a-1\"")), tag("a-1"));
        assert_eq!(TagForm::Quoted.of(tag("a-1")), tag("\"a-1\""));
        assert_eq!(TagForm::AsRead.of(tag("\"a-1\"")), tag("\"a-1\""));
        assert_eq!(TagForm::Unquoted.of(Version::Absent), Version::Absent);
    }
}
