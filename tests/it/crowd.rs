//! More connections than a port has places: those that do nothing give way, and honest clients are served.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::harness::{Connection, Form, Server, Setup, eventually, from_address, honest, is_quiet, noise, token};

/// How many places the ports have.
const PLACES: usize = 40;

fn server(limits: &str) -> Server {
    Setup { limits: format!("{limits}\n"), ..Setup::default() }.start()
}

fn evicted(server: &Server, port: &str, state: &str) -> f64 {
    server.numbers()[&format!("attachd_connections_evicted_total{{port=\"{port}\",state=\"{state}\"}}")]
}

/// Whether a request on a connection is answered.
fn is_served(stream: &mut TcpStream) -> bool {
    let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: attachd\r\n\r\n");
    let mut reply = [0; 12];
    sent.is_ok() && stream.read_exact(&mut reply).is_ok() && reply == *b"HTTP/1.1 404"
}

/// How long honest clients wait, one after the other, each on a connection of its own, while others connect, ask for nothing,
/// and connect again as soon as they are hung up on.
fn honest_beside_silent(server: &Server, address: SocketAddr, silent: usize, clients: usize) -> Vec<Duration> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _ends = scopeguard::guard((), |()| over.store(true, Ordering::Relaxed));
        scope.spawn(|| {
            let mut held: Vec<_> = (0..silent).map(|_| TcpStream::connect(address).unwrap()).collect();
            while !over.load(Ordering::Relaxed) {
                for stream in held.iter_mut().filter(|stream| !is_quiet(stream)) {
                    *stream = TcpStream::connect(address).unwrap();
                }
            }
        });
        eventually("the places are taken", || {
            !server.events("connections are closed to make room for others").is_empty()
        });
        let waits = (0..clients).map(|_| {
            let began = Instant::now();
            assert_eq!(server.connect().ask(&honest()).status, 201);
            began.elapsed()
        });
        let waits = waits.collect();
        assert_eq!(server.readiness()["ready"], true, "the admin port has places of its own");
        waits
    })
}

#[test]
fn honest_clients_do_not_wait_for_silent_connections_that_come_again_and_again() {
    let server = server(&format!("max_connections = {PLACES}"));
    let began = Instant::now();
    let mut waits = honest_beside_silent(&server, server.rest, PLACES + 10, 50);
    waits.sort_unstable();
    println!("median {:?}, longest {:?}", waits[waits.len() / 2], waits[waits.len() - 1]);
    // Without room they would wait for as long as a connection may be silent, which is 30 s.
    assert!(waits[waits.len() - 1] < Duration::from_secs(10), "{waits:?}");
    assert!(evicted(&server, "rest", "silent") > 0.0);
    let lines = server.events("connections are closed to make room for others");
    assert!(lines.len() as u64 <= 1 + began.elapsed().as_secs() / 10, "{lines:?}");
    assert_eq!(
        (&lines[0]["port"], &lines[0]["address"], &lines[0]["limit"]),
        (&json!("rest"), &json!("127.0.0.1/32"), &json!(PLACES))
    );
}

#[test]
fn as_many_connections_as_may_be_stay_and_one_more_closes_a_silent_one() {
    for more in [0, 1] {
        let server = server("max_connections = 20\nidle_timeout = \"5m\"");
        let held: Vec<_> = (0..19 + more).map(|_| from_address("127.0.0.2", server.rest)).collect();
        server.connect().assert_serves();
        eventually("it has left", || server.numbers()["attachd_connections_open{port=\"rest\"}"] as usize == 19);
        let closed = held.iter().filter(|stream| !is_quiet(stream)).count();
        assert_eq!((closed, evicted(&server, "rest", "silent") as usize), (more, more));
    }
}

#[test]
fn an_idle_connection_gives_way_to_a_new_one_and_one_with_a_request_does_not() {
    let server = server("max_connections = 2");
    let (mut active, rest) = in_progress(&server, 2, 1);
    let mut idle = server.connect();
    idle.assert_serves();
    let mut third = server.connect();
    assert_eq!(third.ask(&honest()).status, 201);
    assert!(idle.closed());
    assert_eq!(evicted(&server, "rest", "idle"), 1.0);
    active.send(&rest).unwrap();
    assert_eq!(active.reply().expect("a reply").status, 201);
}

#[test]
fn a_client_that_takes_nothing_gives_way_before_the_time_for_it_is_over() {
    let server = server("max_connections = 1\nwrite_timeout = \"10s\"");
    let mut stream = TcpStream::connect(server.rest).unwrap();
    stream.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let asks = b"GET /openapi.json HTTP/1.1\r\nHost: attachd\r\n\r\n";
    while stream.write_all(asks).is_ok() {}
    let began = Instant::now();
    assert_eq!(server.connect().ask(&honest()).status, 201);
    assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
    assert_eq!(evicted(&server, "rest", "stalled"), 1.0);
}

#[test]
fn a_silent_connection_of_a_full_port_is_closed_soon_though_nobody_comes() {
    let server = server("max_connections = 10\nidle_timeout = \"5m\"");
    let began = Instant::now();
    let held: Vec<_> = (0..10).map(|_| TcpStream::connect(server.grpc).unwrap()).collect();
    eventually("one is closed", || evicted(&server, "grpc", "silent") == 1.0);
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    assert_eq!(held.iter().filter(|stream| is_quiet(stream)).count(), 9);
}

#[test]
fn an_address_may_have_as_many_connections_as_configured_and_one_more_is_closed_at_once() {
    for of_proxy in [false, true] {
        let proxies = if of_proxy { "[\"127.0.0.2\"]" } else { "[]" };
        let variables = [("ATTACHD_REST__TRUSTED_PROXIES", proxies.to_owned())].into();
        let limits = "max_connections_per_address = 3\n".to_owned();
        let server = Setup { limits, variables, ..Setup::default() }.start();
        let refused = || server.numbers()["attachd_connections_refused_total{port=\"rest\",reason=\"address\"}"];
        let mut held: Vec<_> = (0..3).map(|_| from_address("127.0.0.2", server.rest)).collect();
        assert!(held.iter_mut().all(is_served));
        let mut fourth = from_address("127.0.0.2", server.rest);
        assert_eq!(is_served(&mut fourth), of_proxy);
        assert_eq!(refused(), f64::from(u8::from(!of_proxy)));
        assert!(is_served(&mut from_address("127.0.0.3", server.rest)));
        drop((held, fourth));
        eventually("there is room again", || is_served(&mut from_address("127.0.0.2", server.rest)));
    }
}

/// An upload that is in progress, and the bytes that complete it.
fn in_progress(server: &Server, attachment: i64, in_flight: u64) -> (Connection, Vec<u8>) {
    let mut connection = server.connect();
    let rest = connection.begin(&token(&[1]), 1, attachment, &Form::file(&noise(100_000, 1)), 200);
    eventually("the upload is in flight", || server.readiness()["uploads_in_flight"] == in_flight);
    (connection, rest)
}

#[test]
fn as_many_connections_as_may_be_have_requests_and_the_next_waits_for_one_of_them() {
    let server = Setup { limits: "max_connections = 2\n".to_owned(), ..Setup::default() }.start();
    let ((mut first, rest_of_first), (mut second, rest_of_second)) =
        (in_progress(&server, 2, 1), in_progress(&server, 3, 2));
    let mut third = server.connect();
    third.send(&honest().bytes()).unwrap();
    eventually("it is said", || server.events("no more connections, new ones wait").len() == 1);
    // The other ports have room of their own.
    assert_eq!(server.readiness()["ready"], true);
    first.send(&rest_of_first).unwrap();
    assert_eq!(first.reply().expect("a reply").status, 201);
    assert_eq!(third.reply().expect("a reply").status, 201);
    second.send(&rest_of_second).unwrap();
    assert_eq!(second.reply().expect("a reply").status, 201);
}

#[test]
fn a_thousand_clients_who_come_at_once_are_kept_until_there_is_room_and_are_all_served() {
    let server = Setup { limits: "max_connections = 1\n".to_owned(), ..Setup::default() }.start();
    let (mut first, rest) = in_progress(&server, 2, 1);
    // One whom the system does not keep is not answered, and asks again a second later.
    let come = |_| {
        let mut stream = TcpStream::connect_timeout(&server.rest, Duration::from_millis(900)).expect("it is kept");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: attachd\r\nConnection: close\r\n\r\n").expect("it is open");
        stream
    };
    let kept: Vec<TcpStream> = (0..1000).map(come).collect();
    first.send(&rest).unwrap();
    assert_eq!(first.reply().expect("a reply").status, 201);
    drop(first);
    for mut stream in kept {
        let mut reply = String::new();
        stream.read_to_string(&mut reply).expect("a reply");
        assert!(reply.starts_with("HTTP/1.1 404"), "{reply}");
    }
}
