//! A service may take long to put the parts of an upload together, and one that is asked a second time meanwhile may
//! acknowledge, or refuse, what it is still doing. A 201 must not rest on that.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::conformance::{DOORS, Door, PART, digest, upload};
use crate::engines::{BUCKET, Engine, Place, Running, free_port, spawn, versitygw};
use crate::harness::{Server, Setup, noise};
use crate::look::Look;
use crate::synced::traced;
use crate::way;

/// The time of a storage operation. One try has three tenths of it.
const TIMEOUT: Duration = Duration::from_secs(6);

/// How long the server takes to put the parts together: longer than a try.
const SLOW: Duration = Duration::from_secs(3);

const ACKNOWLEDGED: &str =
    "<?xml version=\"1.0\"?><CompleteMultipartUploadResult><ETag>\"x\"</ETag></CompleteMultipartUploadResult>";

fn error(code: &str) -> String {
    format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>no</Message></Error>")
}

/// How many calls versitygw makes to copy two parts: the last one of each part finds its end.
const COPIES: usize = 4;

/// What becomes of the first completion of an upload.
#[derive(Clone, Copy, PartialEq)]
enum First {
    /// It is answered when it has been carried out, which takes long.
    Slow,
    /// Its connection ends at once, and it is carried out all the same, which takes long.
    Cut,
    /// Its connection ends at once, and it is never carried out.
    Lost,
}

/// A server of attachd's on a way to moto where the first completion of each upload is `first`, and all later ones have this answer.
fn start(place: &Place, first: First, later: (&'static str, String)) -> (Server, Arc<AtomicUsize>) {
    let completions = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&completions);
    let endpoint = way::to(place, move |request| {
        if !request.completes() {
            return request.pass();
        }
        if counted.fetch_add(1, Ordering::SeqCst) > 0 {
            return request.answer(later.0, &later.1);
        }
        if first != First::Slow {
            request.cut()?;
        }
        if first == First::Lost {
            return Ok(());
        }
        std::thread::sleep(SLOW);
        let reply = request.carry_out()?;
        if first == First::Slow { request.reply(&reply) } else { Ok(()) }
    });
    let mut setup = Setup { storage: format!("timeout = \"{}s\"\n", TIMEOUT.as_secs()), ..place.setup() };
    setup.variables.insert("ATTACHD_STORAGE__OPTIONS__ENDPOINT", endpoint);
    (setup.start(), completions)
}

/// Replaces old content by what is sent in parts, and returns the status and what is stored right after it.
fn replace(place: &Place, server: &Server, door: Door) -> (u16, Option<String>, [String; 2]) {
    let contents = [noise(20_000, 1), noise(PART + 1000, 2)];
    assert_eq!(upload(server, door, 1, &contents[0], false), 201);
    let status = upload(server, door, 1, &contents[1], false);
    (status, place.stored(server, 1), contents.map(|bytes| digest(&bytes)))
}

#[test]
fn a_completion_that_takes_longer_than_a_try_is_not_asked_for_twice() {
    for (engine, door) in [(Engine::Moto, Door::Rest), (Engine::Moto, Door::Grpc), (Engine::Azurite, Door::Rest)] {
        let place = engine.place();
        let acknowledged = if engine == Engine::Moto { "200 OK" } else { "201 Created" };
        let (server, completions) = start(&place, First::Slow, (acknowledged, ACKNOWLEDGED.to_owned()));
        let (status, stored, [_, new]) = replace(&place, &server, door);
        assert_eq!((status, stored, completions.load(Ordering::SeqCst)), (201, Some(new), 1), "{door:?}");
    }
}

#[test]
fn a_second_completion_that_is_acknowledged_while_the_first_goes_on_is_no_201_before_the_content_is_there() {
    for (engine, door) in [(Engine::Moto, Door::Rest), (Engine::Moto, Door::Grpc), (Engine::Azurite, Door::Rest)] {
        let place = engine.place();
        let acknowledged = if engine == Engine::Moto { "200 OK" } else { "201 Created" };
        let (server, completions) = start(&place, First::Cut, (acknowledged, ACKNOWLEDGED.to_owned()));
        let (status, stored, [_, new]) = replace(&place, &server, door);
        assert_eq!((status, stored, completions.load(Ordering::SeqCst)), (201, Some(new), 2), "{door:?}");
    }
}

#[test]
fn a_completion_that_is_acknowledged_and_never_carried_out_leaves_the_old_content() {
    for door in DOORS {
        let place = Engine::Moto.place();
        let (server, _) = start(&place, First::Lost, ("200 OK", ACKNOWLEDGED.to_owned()));
        let (status, stored, [old, _]) = replace(&place, &server, door);
        assert_eq!((status, stored), (503, Some(old)), "{door:?}");
        // The next upload has nothing of it.
        let bytes = noise(7000, 3);
        assert_eq!(upload(&server, door, 1, &bytes, false), 201);
        assert_eq!(place.stored(&server, 1), Some(digest(&bytes)));
    }
}

#[test]
fn a_second_completion_that_is_refused_while_the_first_goes_on_may_be_tried_again() {
    for later in [("403 Forbidden", error("AccessDenied")), ("500 Internal Server Error", error("InternalError"))] {
        let place = Engine::Moto.place();
        let (server, _) = start(&place, First::Cut, later.clone());
        let (status, stored, [old, _]) = replace(&place, &server, Door::Rest);
        assert_eq!((status, stored), (503, Some(old)), "{later:?}");
    }
}

#[test]
fn a_second_completion_that_says_that_the_upload_is_gone_is_believed_once_the_content_is_there() {
    let place = Engine::Moto.place();
    let (server, _) = start(&place, First::Cut, ("404 Not Found", error("NoSuchUpload")));
    let (status, stored, [_, new]) = replace(&place, &server, Door::Rest);
    assert_eq!((status, stored), (201, Some(new)));
}

/// versitygw acknowledges a second completion while it still copies for the first. Here each copy takes longer than a try.
#[test]
fn what_versitygw_acknowledges_outlives_its_end_by_sigkill() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let calls = folder.path().join("calls");
    let delay = format!("inject=copy_file_range:delay_enter={}", SLOW.as_micros() / COPIES as u128);
    let gateway = || versitygw(&folder.path().join("data"), port, &[]);
    std::fs::create_dir(folder.path().join("data")).unwrap();
    let mut slow = spawn(&mut traced(&gateway(), &calls, &["trace=copy_file_range", &delay]));
    let endpoint = format!("http://127.0.0.1:{port}");
    let look = Look::at("s3", &endpoint, BUCKET);
    look.make();
    let place = Place::at("s3", Arc::new(Running::elsewhere(endpoint, look)), "versitygw");
    let server = Setup { storage: format!("timeout = \"{}s\"\n", TIMEOUT.as_secs()), ..place.setup() }.start();
    let contents = [noise(20_000, 1), noise(2 * PART, 2)];
    assert_eq!(upload(&server, Door::Rest, 1, &contents[0], false), 201);
    let status = upload(&server, Door::Rest, 1, &contents[1], false);
    slow.kill().unwrap();
    slow.wait().unwrap();
    assert_eq!(std::fs::read_to_string(&calls).unwrap().matches("copy_file_range(").count(), COPIES);
    let mut gateway = spawn(&mut gateway());
    place.look().list("");
    assert_eq!((status, place.stored(&server, 1)), (201, Some(digest(&contents[1]))));
    gateway.kill().unwrap();
    gateway.wait().unwrap();
}
