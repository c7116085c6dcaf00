//! An HTTP/1.1 client that says exactly what it is told to, byte by byte, and multipart forms as text.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use serde_json::{Value, json};

/// The boundary of the forms.
pub const BOUNDARY: &str = "a-boundary-of-the-tests";

/// A reply that was read to its end.
#[derive(Debug)]
pub struct Reply {
    /// The status.
    pub status: u16,
    /// The headers, their names in lower case.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; null where it is something else.
    pub body: Value,
    /// The body as it arrived: shorter than `Content-Length` if the server cut it off.
    pub bytes: Vec<u8>,
}

impl Reply {
    /// The envelope's `details`.
    pub fn details(&self) -> &str {
        self.body["details"].as_str().unwrap_or_default()
    }

    /// A header; empty where there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(String::as_str).unwrap_or_default()
    }

    /// Looks that the reply is a refusal in the documented envelope, whose details are the ones given, or go on from them
    /// with a colon.
    pub fn assert_refusal(&self, status: u16, details: &str) {
        let message = match status {
            400 => "Invalid request",
            401 => "Authentication failed",
            403 => "Access denied",
            404 => "Not found",
            405 => "Method not allowed",
            408 => "Request timeout",
            409 => "Conflict",
            412 => "Precondition failed",
            413 => "Payload too large",
            415 => "Unsupported media type",
            416 => "Range not satisfiable",
            429 => "Too many requests",
            431 => "Request header fields too large",
            500 => "Internal server error",
            503 => "Service unavailable",
            _ => panic!("{status} is not a documented status"),
        };
        let envelope = json!({ "status": "error", "code": status, "message": message, "details": self.details() });
        assert_eq!((self.status, &self.body), (status, &envelope), "{self:?}");
        let more = self.details().strip_prefix(details);
        assert!(
            more.is_some_and(|more| more.is_empty() || more.starts_with(':')),
            "{details} was expected of {self:?}"
        );
        assert_eq!(self.header("content-type"), "application/json", "{self:?}");
        assert!(!self.header("x-request-id").is_empty(), "{self:?}");
        assert_eq!(status == 401, self.headers.contains_key("www-authenticate"), "{self:?}");
        assert_eq!(status == 405, self.headers.contains_key("allow"), "{self:?}");
    }
}

/// A connection to a port.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    /// Opens a connection. Nothing on it waits longer than 20 s, which is less than a server waits unless it is told to.
    pub fn open(address: SocketAddr) -> Connection {
        Connection::try_open(address).expect("the port is open")
    }

    /// Opens a connection to a server that may be gone.
    pub fn try_open(address: SocketAddr) -> std::io::Result<Connection> {
        let stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
        stream.set_nodelay(true).expect("nodelay can be set");
        Ok(Connection(BufReader::new(stream)))
    }

    /// Sends bytes as they are.
    pub fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.0.get_mut().write_all(bytes)
    }

    /// Another handle on the connection, to send from another thread or to end it.
    pub fn writer(&self) -> TcpStream {
        self.0.get_ref().try_clone().expect("the connection is open")
    }

    /// Says that nothing more will be sent.
    pub fn shut(&mut self) {
        self.0.get_mut().shutdown(std::net::Shutdown::Write).expect("the connection is open");
    }

    /// Reads the next reply; `None` where the server closed the connection instead.
    pub fn reply(&mut self) -> Option<Reply> {
        let mut reply = self.reply_without_body()?;
        let length = reply.headers.get("content-length").map_or(0, |length| length.parse().expect("a length"));
        reply.bytes = self.take(length);
        if reply.bytes.len() < length && reply.header("content-type") == "application/json" {
            return None;
        }
        reply.body = serde_json::from_slice(&reply.bytes).unwrap_or_default();
        Some(reply)
    }

    /// Reads so many bytes, or fewer if the server closes the connection before.
    pub fn take(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let mut filled = 0;
        while filled < length {
            match self.0.read(&mut bytes[filled..]) {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if late(&error) => panic!("neither more bytes nor an end in time"),
                Err(_) => break,
            }
        }
        bytes.truncate(filled);
        bytes
    }

    /// Reads the head of the next reply, which is all there is of a reply to HEAD.
    pub fn reply_without_body(&mut self) -> Option<Reply> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => return None,
            Err(error) if late(&error) => panic!("neither a reply nor an end in time"),
            Err(_) => return None,
            Ok(_) => {}
        }
        let status = line.split(' ').nth(1).expect("a status line").parse().expect("a status");
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(": ") else {
                break;
            };
            headers.insert(name.to_lowercase(), value.to_owned());
        }
        Some(Reply { status, headers, body: Value::Null, bytes: Vec::new() })
    }

    /// Whether the server has closed the connection, which is waited for.
    pub fn closed(&mut self) -> bool {
        match self.0.read(&mut [0]) {
            Ok(length) => length == 0,
            Err(error) => !late(&error),
        }
    }

    /// Sends a request with a `Content-Length` and reads the reply.
    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let length = body.len().to_string();
        let mut headers = headers.to_vec();
        headers.push(("Content-Length", &length));
        self.head(method, path, &headers);
        // A server that refuses early may close before it has read all; the reply is there all the same.
        let _ = self.send(body);
        self.reply().expect("a reply")
    }

    /// Sends the head of a request, and nothing of its body.
    pub fn head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) {
        self.try_head(method, path, headers).expect("a head can be sent");
    }

    /// Sends the head of a request to a server that may be gone.
    pub fn try_head(&mut self, method: &str, path: &str, headers: &[(&str, &str)]) -> std::io::Result<()> {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: attachd\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        self.send(head.as_bytes())
    }

    /// Sends the head of an upload and the first `now` bytes of its form, and returns the bytes that are still to be sent.
    pub fn begin(&mut self, token: &str, client: i64, attachment: i64, form: &Form, now: usize) -> Vec<u8> {
        self.try_begin(token, client, attachment, form, now).expect("the first bytes can be sent")
    }

    /// The same to a server that may be gone.
    pub fn try_begin(
        &mut self,
        token: &str,
        client: i64,
        attachment: i64,
        form: &Form,
        now: usize,
    ) -> std::io::Result<Vec<u8>> {
        let mut bytes = form.bytes();
        let (authorization, length) = (format!("Bearer {token}"), bytes.len().to_string());
        let content_type = form.content_type();
        let headers = [
            ("Authorization", authorization.as_str()),
            ("Content-Type", content_type.as_str()),
            ("Content-Length", length.as_str()),
        ];
        self.try_head("POST", &format!("/api/v2/clients/{client}/attachments/{attachment}"), &headers)?;
        let rest = bytes.split_off(now);
        self.send(&bytes)?;
        Ok(rest)
    }

    /// Uploads a form to an attachment and reads the reply.
    pub fn upload(&mut self, token: &str, client: i64, attachment: i64, form: &Form) -> Reply {
        self.upload_with(token, &format!("/api/v2/clients/{client}/attachments/{attachment}"), &[], form)
    }

    /// Uploads a form to a path with more headers and reads the reply.
    pub fn upload_with(&mut self, token: &str, path: &str, more: &[(&str, &str)], form: &Form) -> Reply {
        let authorization = format!("Bearer {token}");
        let content_type = form.content_type();
        let mut headers = vec![("Authorization", authorization.as_str()), ("Content-Type", content_type.as_str())];
        headers.extend_from_slice(more);
        self.request("POST", path, &headers, &form.bytes())
    }
}

/// A connection from one of the addresses of the loopback interface.
pub fn from_address(address: &str, to: SocketAddr) -> TcpStream {
    let connect = async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(SocketAddr::new(address.parse().expect("an address"), 0))?;
        socket.connect(to).await?.into_std()
    };
    // The test may have a runtime of its own, in which nothing blocks.
    let stream = std::thread::scope(|scope| {
        let runtime = || tokio::runtime::Builder::new_current_thread().enable_io().build().expect("a runtime");
        scope.spawn(move || runtime().block_on(connect)).join().expect("it does not panic")
    });
    let stream = stream.expect("the port is open");
    stream.set_nonblocking(false).expect("it can be blocking");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout can be set");
    stream
}

/// Whether a connection is open, and the server has sent nothing that was not read.
pub fn is_quiet(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).expect("it can be nonblocking");
    let quiet = stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
    stream.set_nonblocking(false).expect("it can be blocking");
    quiet
}

/// Whether a read has waited for as long as it may.
fn late(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

/// A multipart form.
#[derive(Clone, Default)]
pub struct Form(Vec<u8>);

impl Form {
    /// A form with one part named `file`.
    pub fn file(bytes: &[u8]) -> Form {
        Form::default().part("Content-Disposition: form-data; name=\"file\"; filename=\"a.bin\"", bytes)
    }

    /// Adds a part with the given header lines, joined by CRLF.
    #[must_use]
    pub fn part(mut self, head: &str, bytes: &[u8]) -> Form {
        self.0.extend_from_slice(format!("--{BOUNDARY}\r\n{head}\r\n\r\n").as_bytes());
        self.0.extend_from_slice(bytes);
        self.0.extend_from_slice(b"\r\n");
        self
    }

    /// The value of the Content-Type header.
    pub fn content_type(&self) -> String {
        format!("multipart/form-data; boundary={BOUNDARY}")
    }

    /// The body, with its closing boundary.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.0.clone();
        bytes.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
        bytes
    }
}
