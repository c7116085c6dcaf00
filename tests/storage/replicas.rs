//! Two replicas on one storage: what one of them promises holds against the other.

use attachd::pb::RegisterAttachmentRequest;
use tonic::Code;

use crate::conformance::{DOORS, Door, digest, race, upload};
use crate::engines::Engine;
use crate::harness::{Form, Server, Setup, eventually, noise, token};

fn register(server: &Server, attachment: i64, project: Option<i64>) -> Result<(), Code> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = RegisterAttachmentRequest {
        client_id: 1,
        attachment_id: attachment,
        project_id: project,
        ..Default::default()
    };
    let registered = runtime.block_on(server.grpc_register(&token(&[1]), request));
    registered.map(drop).map_err(|refusal| refusal.code)
}

/// Registrations and uploads of the same attachments, all at once and through both replicas in turn.
fn registrations_and_uploads_alternate(engine: Engine, rounds: i64) {
    let place = engine.place();
    let start = || Setup { on_unknown: "reject", ..place.setup() }.start();
    let servers = [start(), start()];
    for attachment in 1..=rounds {
        let odd = usize::from(attachment % 2 == 1);
        let (one, other) = (&servers[odd], &servers[1 - odd]);
        let contents: Vec<Vec<u8>> = (0..4)
            .map(|turn| {
                noise(
                    if turn % 2 == 0 { 2000 } else { 20_000 } + turn * 100,
                    (attachment * 10).cast_unsigned() + turn as u64,
                )
            })
            .collect();
        let digests: Vec<String> = contents.iter().map(|bytes| digest(bytes)).collect();
        assert_eq!(upload(other, Door::Rest, attachment, &contents[0], false), 404);
        // Both register it at once, with the same project: both are told that it is.
        let registered = std::thread::scope(|scope| {
            let both = [one, other].map(|server| scope.spawn(move || register(server, attachment, Some(7))));
            both.map(|registered| registered.join().unwrap())
        });
        assert_eq!(registered, [Ok(()), Ok(())], "{attachment}");
        // What the one has registered the other takes an upload to, while more are under way and it is registered again.
        let statuses = std::thread::scope(|scope| {
            let uploads: Vec<_> = contents
                .iter()
                .enumerate()
                .map(|(turn, bytes)| {
                    let server = if turn % 2 == 0 { other } else { one };
                    scope.spawn(move || upload(server, DOORS[turn / 2], attachment, bytes, false))
                })
                .collect();
            assert_eq!(register(one, attachment, Some(7)), Ok(()));
            assert_eq!(register(other, attachment, Some(8)), Err(Code::AlreadyExists));
            uploads.into_iter().map(|upload| upload.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(statuses, [201; 4], "{attachment}");
        let stored = place.stored(one, attachment).expect("one of them stands");
        assert!(digests.contains(&stored), "{attachment}: a mix stands");
        // A registration never takes content away.
        let record = place.look().record(&place.root, attachment);
        assert_eq!(record.expect("a record stands")["project_id"], 7, "{attachment}");
    }
    place.assert_nothing_left(&[&servers[0], &servers[1]]);
}

#[test]
fn registrations_and_uploads_through_two_replicas_on_one_directory_keep_each_others_promises() {
    registrations_and_uploads_alternate(Engine::Fs, if crate::long() { 200 } else { 20 });
}

#[test]
fn registrations_and_uploads_through_two_replicas_on_one_bucket_keep_each_others_promises() {
    registrations_and_uploads_alternate(Engine::Minio, if crate::long() { 200 } else { 20 });
}

#[test]
fn a_commit_that_cannot_know_whether_it_came_about_is_answered_503_and_leaves_what_another_stored_since() {
    let place = Engine::Moto.place();
    // The first try of the put of the record, which is given up after three seconds.
    let storage = "timeout = \"10s\"\nfaults = [{ attachment = 1, nth = 2, fault = \"hang\" }]\n".to_owned();
    let (one, other) = (Setup { storage, ..place.setup() }.start(), place.start());
    let contents = [noise(3000, 1), noise(4000, 2)];
    let reply = std::thread::scope(|scope| {
        let uploading = scope.spawn(|| one.connect().upload(&token(&[1]), 1, 1, &Form::file(&contents[0])));
        let put = "clients/1/records/0000000000000000001";
        let tried = |line: &String| line.contains("storage operation") && line.contains("Close") && line.contains(put);
        eventually("the put hangs", || one.log().iter().any(tried));
        assert_eq!(upload(&other, Door::Rest, 1, &contents[1], false), 201);
        uploading.join().unwrap()
    });
    reply.assert_refusal(503, "The storage is not available, try again later");
    assert_eq!(place.stored(&other, 1), Some(digest(&contents[1])));
}

#[test]
fn of_two_writers_through_the_sole_writer_of_a_bucket_one_wins_whole() {
    let place = Engine::Moto.place();
    let server = Setup { storage: "sole_writer = true\n".to_owned(), ..place.setup() }.start();
    for attachment in 1..=20_i64 {
        let size = if attachment % 2 == 0 { 3000 } else { 30_000 };
        let contents = [1, 2].map(|seed| noise(size, attachment.unsigned_abs() * 2 + seed));
        let statuses = race([&server, &server], attachment, &contents, true);
        let winner = statuses.iter().position(|status| *status == 201).expect("one creates it");
        assert_eq!(statuses[1 - winner], 412, "{attachment}: {statuses:?}");
        assert_eq!(place.stored(&server, attachment), Some(digest(&contents[winner])), "{attachment}");
    }
    place.assert_nothing_left(&[&server]);
}
