//! A TCP proxy in front of a server, which does with each connection what a test wants.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::thread;

/// Listens for connections, and hands each to `serve` on a thread of its own, with its number and a connection to the server.
pub fn proxy(server: SocketAddr, serve: impl Fn(usize, TcpStream, TcpStream) + Clone + Send + 'static) -> SocketAddr {
    answer(move |number, client| serve(number, client, TcpStream::connect(server).unwrap()))
}

/// Listens for connections, and hands each to `serve` on a thread of its own, with its number.
pub fn answer(serve: impl Fn(usize, TcpStream) + Clone + Send + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for (number, client) in listener.incoming().enumerate() {
            let (serve, client) = (serve.clone(), client.unwrap());
            thread::spawn(move || serve(number, client));
        }
    });
    address
}

/// Passes on everything, both ways, until one side ends.
pub fn splice(client: TcpStream, server: TcpStream) {
    let back = (server.try_clone().unwrap(), client.try_clone().unwrap());
    let there = thread::spawn(move || pump(&client, &server, usize::MAX));
    pump(&back.0, &back.1, usize::MAX);
    there.join().unwrap();
}

/// Passes on bytes one way until there are no more or it were more than `most`; then ends both directions of both sides.
pub fn pump(mut from: &TcpStream, mut to: &TcpStream, most: usize) {
    let mut piece = vec![0; 16 << 10];
    let mut passed = 0;
    // A side that is gone ends it as an end does.
    while let Ok(read @ 1..) = from.read(&mut piece) {
        passed += read;
        if passed > most || to.write_all(&piece[..read]).is_err() {
            break;
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
