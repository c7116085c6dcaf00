//! Uploads that are cut while the storage takes its time to take back what was written.

use attachd::pb::upload_attachment_request::Message;
use h2::Reason;

use crate::harness::{RawConnection, Setup, chunk, eventually, framed, header, noise, token};

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_is_cut_counts_until_what_was_written_is_taken_back() {
    let rules = (1..=10).map(|id| format!("{{ attachment = {id}, operation = \"abort\", nth = 1, fault = \"slow\" }}"));
    let storage = format!("faults = [{}]\n", rules.collect::<Vec<_>>().join(", "));
    let server = Setup { storage, ..Setup::default() }.start();
    let mut connection = RawConnection::open(server.grpc).await;
    for attachment in 1..=10 {
        let mut stream = connection.upload(&token(&[1]), &[]).await;
        stream.send(framed(Message::Header(header(1, attachment))));
        stream.send(framed(chunk(noise(300_000, 1))));
        eventually("some of it is written", || !server.temporary().is_empty());
        stream.reset(if attachment % 2 == 0 { Reason::CANCEL } else { Reason::NO_ERROR });
        eventually("no upload is in flight", || server.readiness()["uploads_in_flight"] == 0);
        assert!(server.temporary().is_empty(), "{:?}", server.temporary());
    }
}
