//! A request over REST as bytes: an honest upload that a test spoils in one place.

use super::http::{Connection, Form, Reply};
use super::{Server, eventually, token};

/// A request.
#[derive(Clone)]
pub struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    chunk: Option<usize>,
    trailers: String,
}

impl Ask {
    /// An honest upload to an attachment.
    pub fn upload(client: i64, attachment: i64, form: &Form) -> Ask {
        let ask = Ask {
            method: "POST",
            path: format!("/api/v2/clients/{client}/attachments/{attachment}"),
            headers: Vec::new(),
            body: form.bytes(),
            chunk: None,
            trailers: String::new(),
        };
        ask.with("Authorization", &format!("Bearer {}", token(&[client]))).with("Content-Type", &form.content_type())
    }

    /// An honest request with a body of JSON.
    pub fn json(method: &'static str, client: i64, path: &str, body: &str) -> Ask {
        let (path, body) = (path.to_owned(), body.as_bytes().to_vec());
        let ask = Ask { method, path, headers: Vec::new(), body, chunk: None, trailers: String::new() };
        ask.with("Authorization", &format!("Bearer {}", token(&[client]))).with("Content-Type", "application/json")
    }

    /// An honest download of an attachment.
    pub fn download(client: i64, attachment: i64) -> Ask {
        let path = format!("/api/v2/clients/{client}/attachments/{attachment}/content");
        Ask::upload(client, attachment, &Form::default()).method("GET").at(&path).body(b"").without("Content-Type")
    }

    /// Sets a header in place of any of the same name.
    #[must_use]
    pub fn with(self, name: &str, value: &str) -> Ask {
        self.without(name).and(name, value)
    }

    /// Adds a header beside any of the same name.
    #[must_use]
    pub fn and(mut self, name: &str, value: &str) -> Ask {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Takes a header away.
    #[must_use]
    pub fn without(mut self, name: &str) -> Ask {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Sends the token instead of an honest one.
    #[must_use]
    pub fn by(self, token: &str) -> Ask {
        self.with("Authorization", &format!("Bearer {token}"))
    }

    /// Sends another method.
    #[must_use]
    pub fn method(mut self, method: &'static str) -> Ask {
        self.method = method;
        self
    }

    /// Adds to the path: a query, or more path.
    #[must_use]
    pub fn path(mut self, more: &str) -> Ask {
        self.path.push_str(more);
        self
    }

    /// Asks for another path.
    #[must_use]
    pub fn at(mut self, path: &str) -> Ask {
        path.clone_into(&mut self.path);
        self
    }

    /// Sends another body.
    #[must_use]
    pub fn body(mut self, body: &[u8]) -> Ask {
        self.body = body.to_vec();
        self
    }

    /// Sends the body in chunks of this size, without saying how long it is.
    #[must_use]
    pub fn chunked(mut self, size: usize) -> Ask {
        self.chunk = Some(size);
        self
    }

    /// Adds a trailer, which is sent where the body is sent in chunks.
    #[must_use]
    pub fn trailer(mut self, name: &str, value: &str) -> Ask {
        self.trailers.push_str(&format!("{name}: {value}\r\n"));
        self
    }

    /// The request line and the headers. Says how the body is framed unless a header that was set does.
    pub fn head(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nHost: attachd\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let says = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if !says("Content-Length") && !says("Transfer-Encoding") {
            head.push_str(&match self.chunk {
                Some(_) => "Transfer-Encoding: chunked\r\n".to_owned(),
                None => format!("Content-Length: {}\r\n", self.body.len()),
            });
        }
        head.push_str("\r\n");
        head.into_bytes()
    }

    /// The body as it goes over the wire.
    pub fn framed_body(&self) -> Vec<u8> {
        let Some(size) = self.chunk else {
            return self.body.clone();
        };
        let mut framed = Vec::new();
        for chunk in self.body.chunks(size) {
            framed.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            framed.extend_from_slice(chunk);
            framed.extend_from_slice(b"\r\n");
        }
        framed.extend_from_slice(format!("0\r\n{}\r\n", self.trailers).as_bytes());
        framed
    }

    /// The whole request.
    pub fn bytes(&self) -> Vec<u8> {
        [self.head(), self.framed_body()].concat()
    }
}

/// An upload that nothing is wrong with, to an attachment that no test uses otherwise.
pub fn honest() -> Ask {
    Ask::upload(HONEST, HONEST, &Form::file(b"honest"))
}

/// The client and the attachment of [`honest`].
const HONEST: i64 = 424_242;

impl Server {
    /// Sends a request and looks that it is refused as documented, that nothing was stored, and that the next request is
    /// served: on the same connection, unless the reply says that it is to be closed.
    pub fn assert_refused(&self, ask: &Ask, status: u16, details: &str) {
        let mut connection = self.connect();
        let reply = self.assert_refused_on(&mut connection, ask, status, details);
        if reply.header("connection") == "close" {
            assert!(connection.closed(), "{reply:?}");
            connection = self.connect();
        }
        connection.assert_serves();
    }

    /// Sends a request and looks that it is refused as documented and that nothing was stored.
    pub fn assert_refused_on(&self, connection: &mut Connection, ask: &Ask, status: u16, details: &str) -> Reply {
        // What an earlier upload replaced is deleted after its reply.
        eventually("nothing is going on", || self.readiness()["uploads_in_flight"] == 0);
        let before = self.objects();
        let reply = connection.ask(ask);
        reply.assert_refusal(status, details);
        assert_eq!(self.objects(), before, "something was stored by a request that was refused: {reply:?}");
        reply
    }

    /// What is stored below `clients/`, but for what [`honest`] stored, with what temporary files there are.
    pub fn objects(&self) -> Vec<std::path::PathBuf> {
        let honest = self.root().join(format!("clients/{HONEST}"));
        let mut files = super::server::files(&self.root().join("clients"));
        files.extend(self.temporary());
        files.retain(|path| !path.starts_with(&honest));
        files.sort();
        files
    }
}

impl Connection {
    /// Sends a request and reads the reply.
    pub fn ask(&mut self, ask: &Ask) -> Reply {
        // Where the reply comes early, the rest may find the connection closed.
        let _ = self.send(&ask.bytes());
        let head = ask.head();
        self.reply().unwrap_or_else(|| panic!("no reply to {}", String::from_utf8_lossy(&head[..head.len().min(300)])))
    }

    /// Looks that the connection is good for another request.
    pub fn assert_serves(&mut self) {
        let reply = self.ask(&honest());
        assert_eq!(reply.status, 201, "{reply:?}");
    }
}
