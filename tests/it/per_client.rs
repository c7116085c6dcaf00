//! What each client may do at most: uploads at once, requests and bytes a second. No test depends on how fast it runs: a rate is
//! met with a burst that is far larger than what passes meanwhile.

use attachd::pb::upload_attachment_request::Message;
use attachd::pb::{
    DeleteAttachmentRequest, GetAttachmentRequest, ListAttachmentsRequest, RegisterAttachmentRequest,
    UndeleteAttachmentRequest,
};
use tonic::Code;

use crate::harness::{
    ALL_SCOPES, Ask, Connection, Form, GrpcRefusal, Reply, Server, Setup, chunk, claims, deleter, download, eventually,
    finish, header, mint, noise, run, token, token_with,
};

fn limited(per_client: &str, more: &str) -> Server {
    let limits = format!("max_upload_size = \"64MiB\"\n[limits.per_client]\n{per_client}");
    let more = if more.is_empty() { String::new() } else { format!("[[limits.per_client.overrides]]\n{more}\n") };
    Setup { limits, more, ..Setup::default() }.start()
}

/// How often a limit has refused.
fn refused(server: &Server, key: &str) -> f64 {
    server.numbers()[&format!("attachd_limited_total{{limit=\"limits.per_client.{key}\"}}")]
}

fn upload(client: i64, attachment: i64) -> Ask {
    Ask::upload(client, attachment, &Form::file(b"content"))
}

async fn grpc(server: &Server, client: i64, attachment: i64) -> Result<(), GrpcRefusal> {
    let messages = vec![Message::Header(header(client, attachment)), chunk("content"), finish()];
    server.grpc_upload(&token(&[client]), messages).await.map(drop)
}

/// Looks that a reply over REST is the refusal of a limit, and returns after how many seconds to come back.
fn assert_limited(reply: &Reply, what: &str) -> u64 {
    reply.assert_refusal(429, &format!("The rate limit was exceeded: the client may {what}"));
    reply.header("retry-after").parse().expect("seconds")
}

/// Looks that a refusal over gRPC is that of a limit, and returns after how many seconds to come back.
fn assert_limited_over_grpc(refusal: &GrpcRefusal) -> u64 {
    assert_eq!((refusal.code, refusal.reason.as_str()), (Code::ResourceExhausted, "RATE_LIMITED"), "{refusal:?}");
    refusal.retry_after.expect("RetryInfo").as_secs()
}

/// An upload over REST that has begun and waits for the rest of its body.
fn begun(server: &Server, client: i64, attachment: i64) -> (Connection, Vec<u8>) {
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[client]), client, attachment, &Form::file(&noise(5000, 1)), 2000);
    (connection, rest)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_has_as_many_uploads_under_way_as_it_may_over_both_protocols_together() {
    let server = limited("max_uploads = 3", "clients = [8, 9]\nmax_uploads = 1");
    let in_flight = |count: u64| {
        eventually("so many uploads are under way", || server.readiness()["uploads_in_flight"] == count);
    };
    let (mut first, rest) = begun(&server, 1, 1);
    let _second = begun(&server, 1, 2);
    in_flight(2);
    // Two and one are as many as permitted.
    assert_eq!(server.connect().ask(&upload(1, 3)).status, 201);
    grpc(&server, 1, 4).await.expect("there is room for one");
    let third = begun(&server, 1, 3);
    in_flight(3);
    // It is refused without being asked for its body.
    let mut connection = server.connect();
    connection.send(&upload(1, 5).with("Expect", "100-continue").head()).unwrap();
    assert!((1..=5).contains(&assert_limited(&connection.reply().expect("a reply"), "have 3 uploads under way")));
    let refusal = grpc(&server, 1, 5).await.expect_err("there are three");
    assert!((1..=5).contains(&assert_limited_over_grpc(&refusal)));
    assert_eq!(refused(&server, "max_uploads"), 2.0);
    // Everything else of the client is served, and so are other clients, each by its own limit.
    assert_eq!(server.connect().ask(&Ask::download(1, 4)).bytes, b"content");
    assert_eq!(server.connect().ask(&upload(2, 1)).status, 201);
    let _eight = begun(&server, 8, 1);
    in_flight(4);
    assert_limited(&server.connect().ask(&upload(8, 2)), "have 1 uploads under way");
    assert_eq!(server.connect().ask(&upload(9, 1)).status, 201);
    // A client that goes away leaves room, and so does an upload that ends.
    drop(third);
    in_flight(3);
    assert_eq!(server.connect().ask(&upload(1, 5)).status, 201);
    first.send(&rest).unwrap();
    assert_eq!(first.reply().expect("a reply").status, 201);
    let _third = begun(&server, 1, 6);
    let _fourth = begun(&server, 1, 7);
    in_flight(4);
    assert_limited(&server.connect().ask(&upload(1, 8)), "have 3 uploads under way");
}

/// Every operation of client 1, over REST and then over gRPC, by what refused it.
async fn all_operations(server: &Server) -> (Vec<Reply>, Vec<GrpcRefusal>) {
    let (token, path) = (deleter(), "/api/v2/clients/1/attachments");
    let one = format!("{path}/1");
    let asks = [
        upload(1, 1),
        Ask::json("PUT", 1, &one, "{}"),
        upload(1, 1).method("GET").body(b"").without("Content-Type"),
        upload(1, 1).method("GET").at(path).body(b"").without("Content-Type"),
        Ask::download(1, 1),
        upload(1, 1).method("DELETE").body(b"").without("Content-Type"),
        Ask::json("POST", 1, &format!("{one}:undelete"), "{}"),
    ];
    let rest = asks.into_iter().map(|ask| server.connect().ask(&ask.by(&token))).collect();
    let (client_id, attachment_id) = (1, 1);
    let get = GetAttachmentRequest { client_id, attachment_id, ..Default::default() };
    let list = ListAttachmentsRequest { client_id, ..Default::default() };
    let register = RegisterAttachmentRequest { client_id, attachment_id, ..Default::default() };
    let delete = DeleteAttachmentRequest { client_id, attachment_id, ..Default::default() };
    let undelete = UndeleteAttachmentRequest { client_id, attachment_id, ..Default::default() };
    let grpc = vec![
        grpc(server, 1, 1).await.expect_err("an upload"),
        server.grpc_register(&token, register).await.expect_err("a registration"),
        server.grpc_get(&token, get).await.expect_err("a look-up"),
        server.grpc_list(&token, list).await.expect_err("a list"),
        server.grpc_download(&token, download(1, 1)).await.expect_err("a download"),
        server.grpc_delete(&token, delete).await.expect_err("a deletion"),
        server.grpc_undelete(&token, undelete).await.expect_err("what undoes it"),
    ];
    (rest, grpc)
}

#[tokio::test(flavor = "multi_thread")]
async fn past_its_rate_every_request_of_a_client_is_refused_and_nothing_else_is() {
    let server =
        limited("requests_per_second = 1\nburst = \"200s\"", "clients = [7]\nrequests_per_second = 0\nmax_uploads = 9");
    // What is refused for other reasons than the limit does not count.
    let stranger = token(&[2]);
    let forbidden = token_with("scope", "other".into());
    for token in [&stranger, &forbidden, "none"] {
        let mut connection = server.connect();
        for _ in 0..100 {
            let status = connection.ask(&Ask::download(1, 1).by(token)).status;
            assert!([401, 403].contains(&status), "{status}");
        }
    }
    let mut connection = server.connect();
    let served = (0..2000).take_while(|_| connection.ask(&Ask::download(1, 1)).status != 429).count();
    assert!((200..2000).contains(&served), "{served}");
    let before = server.objects();
    let (rest, grpc) = all_operations(&server).await;
    let seconds = rest.iter().map(|reply| assert_limited(reply, "make 1 requests a second"));
    let seconds = seconds.chain(grpc.iter().map(assert_limited_over_grpc)).collect::<Vec<_>>();
    assert!(seconds.iter().all(|seconds| (1..=6).contains(seconds)), "{seconds:?}");
    assert_eq!(server.objects(), before);
    assert!(refused(&server, "requests_per_second") >= 15.0);
    // Others are served, and one of them without a limit.
    assert_eq!(server.connect().ask(&upload(2, 1)).status, 201);
    let mut connection = server.connect();
    assert_eq!(connection.ask(&upload(7, 1)).status, 201);
    assert!((0..1000).all(|_| connection.ask(&Ask::download(7, 1)).status == 200));
    // The log names the client at fault, once for many requests.
    let named = || server.events("a limit refused requests, most of them of this client");
    eventually("the log names the client", || !named().is_empty());
    let line = &named()[0];
    assert_eq!((&line["limit"], &line["client_id"]), (&"limits.per_client.requests_per_second".into(), &1.into()));
    // The rate goes on: a token that covers both clients finds one of them served in time.
    let mut both = claims(&[1, 2]);
    both["scope"] = ALL_SCOPES.into();
    let both = mint(&both);
    eventually("there is a request again", || connection.ask(&Ask::download(1, 9).by(&both)).status == 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_had_too_many_bytes_waits_until_its_rate_has_caught_up() {
    const SIZE: usize = 3 << 20;
    // 1 MiB at once, and the rest of it takes 2,048 s.
    let server =
        limited("bytes_per_second = \"1KiB\"\nburst = \"1024s\"", "clients = [7]\nbytes_per_second = \"1GiB\"");
    let content = noise(SIZE, 1);
    let whole = |client| Ask::upload(client, 1, &Form::file(&content));
    // What is under way goes on, and others have a rate of their own.
    for client in [1, 2, 3, 7] {
        assert_eq!(server.connect().ask(&whole(client)).status, 201);
    }
    let seconds = assert_limited(&server.connect().ask(&upload(1, 2)), "send and receive 1024 bytes a second");
    assert!((1900..=2200).contains(&seconds), "{seconds}");
    let refusal = grpc(&server, 2, 2).await.expect_err("it has sent too much");
    let seconds = assert_limited_over_grpc(&refusal);
    assert!((1900..=2200).contains(&seconds), "{seconds}");
    assert_limited(&server.connect().ask(&Ask::download(3, 1)), "send and receive 1024 bytes a second");
    assert!(refused(&server, "bytes_per_second") >= 3.0);
    // Downloads count as uploads do.
    let server = limited("bytes_per_second = \"1KiB\"\nburst = \"1h\"", "clients = [7]\nbytes_per_second = \"1GiB\"");
    assert_eq!(server.connect().ask(&whole(1)).status, 201);
    assert_eq!(server.connect().ask(&Ask::download(1, 1)).bytes.len(), SIZE);
    assert_limited(&server.connect().ask(&Ask::download(1, 1)), "send and receive 1024 bytes a second");
    assert_eq!(server.connect().ask(&whole(7)).status, 201);
    for _ in 0..3 {
        let (_, bytes) = server.grpc_download(&token(&[7]), download(7, 1)).await.expect("it may have more");
        assert_eq!(bytes.len(), SIZE);
    }
}

#[test]
fn limits_that_cannot_be_are_refused_with_what_to_write() {
    let folder = tempfile::tempdir().unwrap();
    for (per_client, said) in [
        ("burst = \"0s\"", "limits.per_client.burst: must be from 1ms to 1h"),
        ("requests = 3", "requests_per_second"),
        ("requests_per_second = -1", "limits.per_client.requests_per_second"),
        (
            "[[limits.per_client.overrides]]\nclients = []",
            "limits.per_client.overrides[0].clients: must name at least one",
        ),
        ("[[limits.per_client.overrides]]\nclients = [3, 3]", "the client 3 is named twice; name it once"),
        ("[[limits.per_client.overrides]]\nmax_uploads = 3", "clients"),
    ] {
        let limits = format!("[limits.per_client]\n{per_client}\n");
        let config = Setup { limits, ..Setup::default() }.write(folder.path());
        let ended = run(&["serve", "--config", config.to_str().unwrap()]);
        let text = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(ended.status.code() == Some(2) && text.contains(said), "{per_client}: {text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_past_their_rate_wait_for_their_turn_and_other_clients_do_not() {
    let limits = "refusals_per_second = 1\n[limits.per_client]\nmax_uploads = 1".to_owned();
    let server = Setup { limits, ..Setup::default() }.start();
    let paced = || server.numbers()["attachd_limited_total{limit=\"limits.refusals_per_second\"}"];
    let _first = begun(&server, 1, 1);
    eventually("it is under way", || server.readiness()["uploads_in_flight"] == 1);
    assert_limited(&server.connect().ask(&upload(1, 2)), "have 1 uploads under way");
    assert_eq!(paced(), 0.0, "the first refusal is answered at once");
    let rest: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn({
                let mut connection = server.connect();
                move || connection.ask(&upload(1, 2))
            })
        })
        .collect();
    let [third, fourth] = [grpc(&server, 1, 3), grpc(&server, 1, 3)];
    let (third, fourth) = tokio::join!(third, fourth);
    for refusal in [third, fourth] {
        assert_limited_over_grpc(&refusal.expect_err("one is under way"));
    }
    assert_eq!(server.connect().ask(&upload(2, 1)).status, 201);
    for reply in rest {
        assert_limited(&reply.join().expect("a reply"), "have 1 uploads under way");
    }
    assert!(paced() >= 1.0);
    // What is refused for another reason is not paced.
    let before = paced();
    for _ in 0..10 {
        server.connect().ask(&upload(1, 2).by("a.b.c")).assert_refusal(401, "JWT token invalid");
    }
    assert_eq!(paced(), before);
}
