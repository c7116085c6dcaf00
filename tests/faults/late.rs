//! What is counted of an operation that outlives its time.

use crate::harness::{Form, Setup, eventually, noise, token};

#[test]
fn a_write_that_hangs_counts_as_abandoned_once_it_is_given_up() {
    let rule = "{ attachment = 1, operation = \"write\", nth = 1, fault = \"hang\" }";
    let server = Setup { storage: format!("timeout = \"1s\"\nfaults = [{rule}]\n"), ..Setup::default() }.start();
    let reply = server.connect().upload(&token(&[1]), 1, 1, &Form::file(&noise(1 << 20, 1)));
    assert_eq!(reply.status, 503, "{reply:?}");
    let count = |outcome: &str| {
        let series = format!("attachd_storage_operations_total{{operation=\"write\",outcome=\"{outcome}\"}}");
        server.numbers().get(&series).copied().unwrap_or_default()
    };
    eventually("it is counted", || count("abandoned") > 0.0);
    eventually("no upload is in flight", || server.readiness()["uploads_in_flight"] == 0);
    assert_eq!((count("abandoned"), count("ok")), (1.0, 0.0));
    eventually("nothing is left of it", || server.temporary().is_empty());
}
