//! What the admin port says to a scraper.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use super::Server;

/// Every series with its value.
pub type Numbers = BTreeMap<String, f64>;

impl Server {
    /// What a scraper is sent that accepts this, head and body.
    pub fn exposed(&self, accept: &str) -> String {
        let reply = self.try_exposed(accept).expect("the admin port replies");
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
        reply
    }

    fn try_exposed(&self, accept: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.admin)?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET /metrics HTTP/1.1\r\nHost: attachd\r\nAccept: {accept}\r\nConnection: close\r\n\r\n")?;
        let mut reply = String::new();
        stream.read_to_string(&mut reply)?;
        Ok(reply)
    }

    /// What is measured now, unless the server is ending or has ended.
    pub fn try_numbers(&self) -> Option<Numbers> {
        self.try_exposed("text/plain").ok().map(|text| numbers(&text))
    }

    /// What is measured now.
    pub fn numbers(&self) -> Numbers {
        numbers(&self.exposed("text/plain"))
    }
}

/// The series of a text.
pub fn numbers(text: &str) -> Numbers {
    let lines = text.lines().filter(|line| line.starts_with("attachd_") || line.starts_with("process_"));
    let parsed = lines.map(|line| line.rsplit_once(' ').expect("a series and its value"));
    parsed.map(|(series, value)| (series.to_owned(), value.parse().expect("a number"))).collect()
}
