//! What the refusal of a storage service means for an operator: the option that it is about, and what to do. The library's own
//! text runs over many lines, and names the option nowhere.

use std::collections::BTreeMap;

use super::OpenError;
use super::services::Service;
use crate::error::Error;

/// Tells what the refusals of one storage mean.
#[derive(Debug)]
pub struct Meanings {
    service: &'static Service,
    /// The bucket or container: the option, and its value.
    place: Option<(&'static str, String)>,
}

impl Meanings {
    /// Of a service with these options.
    pub fn of(service: &'static Service, options: &BTreeMap<String, String>) -> Meanings {
        let place = ["bucket", "container"].into_iter().find_map(|option| Some((option, options.get(option)?.clone())));
        Meanings { service, place }
    }

    /// Why the service could not be set up.
    pub fn of_setup(error: &opendal::Error) -> OpenError {
        let message = error.message().to_lowercase();
        let (option, why) = if message.contains("region") {
            (
                "options.region",
                "is missing; write the region of the bucket, such as eu-central-1, or us-east-1 if the storage has none",
            )
        } else if message.contains("endpoint") {
            ("options.endpoint", "is missing or not an address; write one such as https://storage.example")
        } else {
            return OpenError::new("options", error.message().split_whitespace().collect::<Vec<_>>().join(" "));
        };
        OpenError::new(option, why)
    }

    /// The same error, in words that begin with the option which it is about, where that is known.
    pub fn explain(&self, error: Error) -> Error {
        let meant = error.log_source().and_then(|said| self.meant(&said));
        match meant {
            Some((option, why)) => {
                Error::new(error.kind()).because(OpenError::new(format!("options.{option}"), why).to_string())
            }
            None => error,
        }
    }

    /// What a text means that [`plain`] has made: a kind, and what the service or the signing of requests said.
    fn meant(&self, said: &str) -> Option<(&'static str, String)> {
        let (place, name) = self.place.as_ref()?;
        let (kind, answer) = said.split_once(": ")?;
        let says = |words: &[&str]| words.iter().any(|word| answer.contains(word));
        if says(&["NoSuchBucket", "ContainerNotFound", "bucket does not exist", "container does not exist"]) {
            let why = format!(
                "the {place} {name:?} does not exist at the storage; create it, or write its right name, region and endpoint"
            );
            return Some((place, why));
        }
        let key = self.service.key();
        if says(&["InvalidAccessKeyId"]) {
            return Some((key, "the storage does not know this key".to_owned()));
        }
        if says(&["SignatureDoesNotMatch", "AuthenticationFailed"]) {
            return Some((
                self.service.secret_of_key(),
                "is not the secret that the storage has for the key; another region, or a proxy that changes requests, looks the \
                 same"
                    .to_owned(),
            ));
        }
        if says(&["signing credential", "no valid credential", "credential is missing"]) {
            let why = "is missing, and the environment and the platform have no key either; write the key, or give the process a \
                       role";
            return Some((key, why.to_owned()));
        }
        if says(&["AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraint"]) {
            return Some(("region", format!("is not the region of the {place} {name:?}")));
        }
        if kind == "PermissionDenied" {
            let why = format!(
                "the storage denies access to the {place} {name:?}; check that the key is the right one, and that its policy permits \
                 to read, write, list and delete"
            );
            return Some((place, why));
        }
        None
    }
}

/// What an error of the library says on one line: its kind, its message and the cause at its root, without its context.
pub fn plain(error: &opendal::Error) -> String {
    let mut root = std::error::Error::source(error);
    while let Some(deeper) = root.and_then(std::error::Error::source) {
        root = Some(deeper);
    }
    let mut said = format!("{}: {}", error.kind(), error.message());
    if let Some(root) = root.map(ToString::to_string)
        && !said.contains(&root)
    {
        said = format!("{said}: {root}");
    }
    said.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
#[cfg(feature = "s3")]
mod tests {
    use super::*;
    use crate::store::{failure, services};

    #[test]
    fn a_refusal_is_told_by_the_option_that_mends_it() {
        let options = BTreeMap::from([("bucket".to_owned(), "files".to_owned())]);
        let meanings = Meanings::of(services::find("s3").unwrap(), &options);
        let meant = |kind: opendal::ErrorKind, said: &str| {
            let error = opendal::Error::new(kind, said).with_context("uri", "http://h/NoSuchBucket");
            meanings.explain(failure(error)).for_operator()
        };
        let denied = opendal::ErrorKind::PermissionDenied;
        for (kind, said, expected) in [
            (
                opendal::ErrorKind::ConfigInvalid,
                "S3Error { code: \"NoSuchBucket\" }",
                "bucket: the bucket \"files\" does not",
            ),
            (denied, "S3Error { code: \"InvalidAccessKeyId\" }", "access_key_id: the storage does not know"),
            (denied, "S3Error { code: \"SignatureDoesNotMatch\" }", "secret_access_key: is not the secret"),
            (denied, "S3Error { code: \"AccessDenied\" }", "bucket: the storage denies access to the bucket \"files\""),
            (denied, "S3Error { code: \"AuthorizationHeaderMalformed\" }", "region: is not the region of the bucket"),
            (opendal::ErrorKind::Unexpected, "failed to load signing credential", "access_key_id: is missing"),
        ] {
            let meant = meant(kind, said);
            assert!(meant.starts_with(&format!("storage.options.{expected}")), "{said}: {meant}");
            assert!(!meant.contains("S3Error") && !meant.contains("uri"), "{meant}");
        }
        // What is not known stays as it is.
        assert!(meant(opendal::ErrorKind::Unexpected, "a surprise").contains("a surprise"));
        let ours = meanings.explain(Error::internal("the storage does not compare versions"));
        assert_eq!(ours.for_operator(), "the storage does not compare versions");
    }

    #[test]
    fn an_error_is_one_line_without_the_context_of_the_library() {
        let cause = std::io::Error::other("connection\n  refused");
        let error =
            opendal::Error::new(opendal::ErrorKind::RateLimited, "Slow\n  down").with_context("uri", "http://h/secret");
        assert_eq!(plain(&error), "RateLimited: Slow down");
        assert_eq!(plain(&error.set_source(cause)), "RateLimited: Slow down: connection refused");
    }
}
