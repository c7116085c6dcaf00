//! The way to a storage server, on which requests are looked at, changed, held up or answered by somebody else.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use crate::engines::Place;

/// A request on its way. Each has a connection of its own.
pub struct Request {
    server: SocketAddr,
    client: TcpStream,
    body: Vec<u8>,
    /// The line with method and target.
    pub line: String,
    /// The lines after it, without their ends.
    pub fields: Vec<String>,
}

/// A way to the server of `place` on which `act` has every request. Returns its address.
pub fn to(place: &Place, act: impl Fn(Request) -> io::Result<()> + Send + Sync + 'static) -> String {
    let (server, path) =
        place.running.endpoint.strip_prefix("http://").map(|at| at.split_once('/').unwrap_or((at, ""))).unwrap();
    let server = server.parse().unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let act = Arc::new(act);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let act = Arc::clone(&act);
            std::thread::spawn(move || Request::arriving(client, server).and_then(|request| act(request)));
        }
    });
    if path.is_empty() { format!("http://{address}") } else { format!("http://{address}/{path}") }
}

impl Request {
    fn arriving(client: TcpStream, server: SocketAddr) -> io::Result<Request> {
        let mut reader = BufReader::new(client.try_clone()?);
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => lines.push(line.to_owned()),
            }
        }
        let line = lines.remove(0);
        let mut request = Request { server, client, body: Vec::new(), line, fields: lines };
        let length = request.field("content-length").map_or(0, |length| length.parse().unwrap());
        reader.take(length).read_to_end(&mut request.body)?;
        request.fields.retain(|field| !field.to_lowercase().starts_with("connection:"));
        Ok(request)
    }

    /// The value of a field.
    pub fn field(&self, name: &str) -> Option<String> {
        let value = |field: &String| {
            let (found, value) = field.split_once(':')?;
            found.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        };
        self.fields.iter().find_map(value)
    }

    /// Whether it asks for an object to be made of its parts, of S3 or of Azure.
    pub fn completes(&self) -> bool {
        let s3 = self.line.starts_with("POST ") && self.line.contains("uploadId=");
        s3 || (self.line.starts_with("PUT ") && self.line.contains("comp=blocklist"))
    }

    /// Has the server carry it out, and returns the whole reply.
    pub fn carry_out(&self) -> io::Result<Vec<u8>> {
        let mut upstream = TcpStream::connect(self.server)?;
        let head = format!("{}\r\n{}\r\nConnection: close\r\n\r\n", self.line, self.fields.join("\r\n"));
        upstream.write_all(head.as_bytes())?;
        upstream.write_all(&self.body)?;
        let mut reply = Vec::new();
        upstream.read_to_end(&mut reply)?;
        Ok(reply)
    }

    /// Has the server carry it out and answer.
    pub fn pass(self) -> io::Result<()> {
        let reply = self.carry_out()?;
        self.reply(&reply)
    }

    /// Answers it instead of the server.
    pub fn answer(self, status: &str, body: &str) -> io::Result<()> {
        let length = body.len();
        let reply = format!(
            "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
        );
        self.reply(reply.as_bytes())
    }

    /// Sends a whole reply.
    pub fn reply(mut self, reply: &[u8]) -> io::Result<()> {
        self.client.write_all(reply)?;
        self.client.shutdown(Shutdown::Both)
    }

    /// Sends a part of a reply.
    pub fn send(&self, part: &[u8]) -> io::Result<()> {
        (&self.client).write_all(part)
    }

    /// Ends the connection without an answer, and goes on without it.
    pub fn cut(&self) -> io::Result<()> {
        self.client.shutdown(Shutdown::Both)
    }
}
