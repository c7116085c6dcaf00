//! A cluster of three nodes of which one ends in the middle of uploads and comes back.

use std::net::TcpListener;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::conformance::{DOORS, digest, upload};
use crate::engines::{BUCKET, Place, Running, free_port, minio, spawn};
use crate::harness::noise;
use crate::look::Look;

const NODES: usize = 3;

/// Where the nodes are. MinIO takes no address of 127.0.0.0/8 for a node where it believes itself in a container, so this is
/// one more of the loopback interface, from the range for measurements (RFC 2544). It takes root to add.
const ADDRESS: &str = "198.18.0.1";

struct Cluster {
    arguments: Vec<String>,
    ports: [u16; NODES],
    nodes: [Child; NODES],
    _data: TempDir,
}

impl Cluster {
    /// Three nodes with two folders each. MinIO then reads with three of the six and writes with four, so that it can miss
    /// one node.
    fn start() -> Cluster {
        // It may be there already.
        let _ = Command::new("ip").args(["address", "add", &format!("{ADDRESS}/32"), "dev", "lo"]).status();
        let there = TcpListener::bind((ADDRESS, 0));
        assert!(there.is_ok(), "this test must be run as root, with iproute2: {ADDRESS} cannot be added");
        let data = tempfile::tempdir().unwrap();
        let ports: [u16; NODES] = std::array::from_fn(|_| free_port());
        let folders = ports.iter().enumerate().flat_map(|(node, port)| {
            let data = data.path().to_owned();
            (1..=2).map(move |disk| format!("http://{ADDRESS}:{port}{}/{node}-{disk}", data.display()))
        });
        let arguments: Vec<String> = folders.collect();
        let nodes = ports.map(|port| spawn(&mut minio(&arguments, ADDRESS, port)));
        Cluster { arguments, ports, nodes, _data: data }
    }

    fn end(&mut self, node: usize) {
        self.nodes[node].kill().unwrap();
        self.nodes[node].wait().unwrap();
    }

    fn bring_back(&mut self, node: usize) {
        self.nodes[node] = spawn(&mut minio(&self.arguments, ADDRESS, self.ports[node]));
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _ = node.kill();
            let _ = node.wait();
        }
    }
}

#[test]
fn what_was_acknowledged_while_a_node_ended_and_came_back_is_whole() {
    let mut cluster = Cluster::start();
    let endpoint = format!("http://{ADDRESS}:{}", cluster.ports[0]);
    let look = Look::at("s3", &endpoint, BUCKET);
    look.make();
    let running = Arc::new(Running::of(endpoint, look));
    let place = Place::at("s3", running, "cluster");
    // The nodes look for each other for a while after the first bucket can be made.
    let server = place.start();
    let over = AtomicBool::new(false);
    let (mut stored, mut refused) = (Vec::new(), 0);
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..3_i64)
            .map(|writer| {
                let (server, over) = (&server, &over);
                scope.spawn(move || {
                    let mut ended = Vec::new();
                    for turn in 0.. {
                        if over.load(Ordering::Relaxed) {
                            break;
                        }
                        let attachment = writer * 100_000 + turn + 1;
                        let size = if turn % 5 == 0 { (8 << 20) + 100 } else { 5000 };
                        let bytes = noise(size, attachment.unsigned_abs());
                        let status =
                            upload(server, DOORS[usize::try_from(turn).unwrap() % 2], attachment, &bytes, false);
                        ended.push((attachment, digest(&bytes), status));
                    }
                    ended
                })
            })
            .collect();
        for node in [2, 1] {
            std::thread::sleep(Duration::from_secs(2));
            cluster.end(node);
            std::thread::sleep(Duration::from_secs(4));
            cluster.bring_back(node);
            std::thread::sleep(Duration::from_secs(4));
        }
        over.store(true, Ordering::Relaxed);
        for writer in writers {
            for (attachment, digest, status) in writer.join().unwrap() {
                match status {
                    201 => stored.push((attachment, Some(digest))),
                    500 | 503 => refused += 1,
                    other => panic!("{attachment}: {other}"),
                }
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    let whole = |attachment| place.stored(attachment);
    for (attachment, digest) in &stored {
        assert_eq!(whole(*attachment), *digest, "{attachment} was acknowledged");
        assert!(Instant::now() < deadline, "the look takes too long");
    }
    assert!(stored.len() > 20, "uploads went on: {} stored, {refused} refused", stored.len());
    println!("three nodes, each of two ended and brought back: {} acknowledged, {refused} refused", stored.len());
}
