//! `attachd register`: what it prints, and how it ends.

use serde_json::Value;

use super::attachd;
use super::upload::Uploader;
use crate::harness::{Server, token};

impl Uploader {
    fn register(&self, more: &[&str]) -> super::Outcome {
        attachd(self.here.path(), &[&["register", "--client", "1", "--to", &self.to], more].concat(), &[])
    }
}

#[test]
fn what_is_registered_is_printed_and_can_be_uploaded_to() {
    let server = Server::strict();
    let uploader = Uploader::new(&server, b"content");
    let outcome = uploader.upload("some file.bin", &["--token-file", "token"]);
    assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
    let words = ["some file.bin: NotFound NOT_FOUND: ", "(request id "];
    assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{outcome:?}");

    let outcome = uploader.register(&["--attachment", "2", "--project", "5", "--token-file", "token"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let registered: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let expected = serde_json::json!({
        "client_id": 1, "attachment_id": 2, "project_id": 5, "portfolio_id": null, "filename": "", "content_type": "",
        "size": null, "sha256": null, "created_at": registered["created_at"], "uploaded_by": "tester",
    });
    assert_eq!(registered, expected);
    // Again it changes nothing, and the token may come from the environment.
    let again = attachd(
        uploader.here.path(),
        &["register", "--client", "1", "--attachment", "2", "--project", "5", "--to", &uploader.to],
        &[("ATTACHD_TOKEN", &token(&[1]))],
    );
    assert_eq!((again.code, again.stdout), (Some(0), outcome.stdout));
    assert_eq!(uploader.upload("some file.bin", &["--token-file", "token"]).code, Some(0));
    assert_eq!(server.stored(1, 2).unwrap(), b"content");
}

#[test]
fn several_attachments_are_registered_at_once() {
    let server = Server::strict();
    let uploader = Uploader::new(&server, b"content");
    let outcome = uploader.register(&["--attachment", "2,3", "--attachment", "9", "--token-file", "token"]);
    assert_eq!((outcome.code, outcome.stderr.as_str()), (Some(0), ""), "{outcome:?}");
    let printed = serde_json::Deserializer::from_str(&outcome.stdout).into_iter::<Value>();
    let ids: Vec<_> = printed.map(|attachment| attachment.unwrap()["attachment_id"].clone()).collect();
    assert_eq!(ids, [2, 3, 9]);
    let outcome = uploader.register(&["--attachment", "4,0,2", "--project", "5", "--token-file", "token"]);
    assert_eq!(outcome.code, Some(1));
    for word in ["attachment 0: InvalidArgument", "attachment 2: AlreadyExists", "attachd: 2 of 3 failed"] {
        assert!(outcome.stderr.contains(word), "{word}: {}", outcome.stderr);
    }
    assert!(outcome.stdout.contains("\"attachment_id\": 4"), "{outcome:?}");
}

#[test]
fn a_registration_that_is_refused_says_why_and_ends_with_one() {
    let server = Server::strict();
    let uploader = Uploader::new(&server, b"content");
    std::fs::write(uploader.here.path().join("other"), token(&[2])).unwrap();
    for (more, words) in [
        (&["--token-file", "other"][..], ["PermissionDenied FORBIDDEN: Insufficient permissions", "(request id "]),
        (&[], ["Unauthenticated TOKEN_MISSING: JWT token not found", "(request id "]),
    ] {
        let outcome = uploader.register(&[&["--attachment", "2"], more].concat());
        assert_eq!((outcome.code, outcome.stdout.as_str()), (Some(1), ""), "{outcome:?}");
        assert!(words.iter().all(|word| outcome.stderr.contains(word)), "{outcome:?}");
    }
    let twice = uploader.register(&["--attachment", "2,2", "--token-file", "token"]);
    assert_eq!(twice.code, Some(2));
    assert!(twice.stderr.contains("--attachment: 2 is given twice"), "{twice:?}");
    assert!(server.record(1, 2).is_none());
}
