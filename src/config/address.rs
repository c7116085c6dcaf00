//! The addresses that ports listen on: how they are written, what is said of one that is written otherwise, and which two
//! cannot be listened on at once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::{Deserializer, Error, Visitor};

/// Reads an address, for `#[serde(deserialize_with = "address::read")]`.
pub(super) fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    deserializer.deserialize_any(Written)
}

struct Written;

impl Visitor<'_> for Written {
    type Value = SocketAddr;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<SocketAddr, E> {
        text.parse().map_err(|_| E::custom(refusal(text)))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<SocketAddr, E> {
        Err(E::custom(refusal(&number.to_string())))
    }
}

/// What is wrong with a text that is no address with a port, and what to write instead.
fn refusal(text: &str) -> String {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest).trim().trim_end_matches('/');
    if let Ok(address) = bare.parse::<SocketAddr>() {
        return format!("{text:?} is more than an address with a port; write \"{address}\"");
    }
    if let Some(port) = ["*:", ":", ""].iter().find_map(|none| bare.strip_prefix(none)?.parse::<u16>().ok()) {
        return format!(
            "{text:?} has no IP address; write \"0.0.0.0:{port}\" to listen on all interfaces, or \"127.0.0.1:{port}\" \
             to listen on this machine alone"
        );
    }
    let parts = bare.rsplit_once(':').and_then(|(host, port)| Some((host, port.parse::<u16>().ok()?)));
    match (bare.trim_matches(['[', ']']).parse::<IpAddr>(), parts) {
        (Ok(IpAddr::V6(_)), Some((host, port))) if !bare.starts_with('[') && host.parse::<IpAddr>().is_ok() => {
            format!("{text:?} has no port; if {port} is meant to be the port, write \"[{host}]:{port}\"")
        }
        (Ok(ip), _) => {
            format!("{text:?} has no port; write it after the address, such as \"{}\"", SocketAddr::new(ip, 8080))
        }
        (Err(_), Some((_, port))) => format!(
            "{text:?} has a host name where an IP address is needed; write \"127.0.0.1:{port}\" to listen on this machine \
             alone, or \"0.0.0.0:{port}\" to listen on all interfaces"
        ),
        (Err(_), None) => {
            format!("{text:?} is not an IP address with a port from 0 to 65535; write one such as \"0.0.0.0:8080\"")
        }
    }
}

/// Whether two ports cannot be listened on at once. `[::]` takes the connections of IPv4 as well, and port 0 is another
/// one each time.
pub(super) fn collide(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |one: IpAddr, other: IpAddr| match one {
        IpAddr::V4(one) => one.is_unspecified() && other.is_ipv4(),
        IpAddr::V6(one) => one.is_unspecified(),
    };
    let (one, other) = (a.ip().to_canonical(), b.ip().to_canonical());
    a.port() != 0 && a.port() == b.port() && (one == other || covers(one, other) || covers(other, one))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_no_address_is_answered_with_one_that_is() {
        for (text, mend) in [
            ("localhost:8080", "\"127.0.0.1:8080\""),
            ("example.com:80", "\"0.0.0.0:80\""),
            ("8080", "\"0.0.0.0:8080\""),
            (":8080", "\"127.0.0.1:8080\""),
            ("*:8080", "\"0.0.0.0:8080\""),
            ("127.0.0.1", "\"127.0.0.1:8080\""),
            ("::1", "\"[::1]:8080\""),
            ("[::1]", "\"[::1]:8080\""),
            ("::1:9090", "\"[::1]:9090\""),
            ("http://127.0.0.1:8080/", "\"127.0.0.1:8080\""),
            ("127.0.0.1:65536", "\"0.0.0.0:8080\""),
            ("nowhere", "\"0.0.0.0:8080\""),
            ("", "\"0.0.0.0:8080\""),
        ] {
            let said = refusal(text);
            assert!(said.starts_with(&format!("{text:?} ")) && said.contains(mend), "{text}: {said}");
        }
    }

    #[test]
    fn ports_collide_where_the_system_would_refuse_the_second() {
        let collides = |a: &str, b: &str| {
            let [a, b] = [a, b].map(|text| text.parse().unwrap());
            assert_eq!(collide(a, b), collide(b, a), "{a} {b}");
            collide(a, b)
        };
        for (a, b) in [
            ("127.0.0.1:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("[::]:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("[::ffff:127.0.0.1]:80", "127.0.0.1:80"),
        ] {
            assert!(collides(a, b), "{a} {b}");
        }
        for (a, b) in [
            ("127.0.0.1:80", "127.0.0.1:81"),
            ("127.0.0.1:80", "127.0.0.2:80"),
            ("0.0.0.0:80", "[::1]:80"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("0.0.0.0:0", "127.0.0.1:0"),
        ] {
            assert!(!collides(a, b), "{a} {b}");
        }
    }
}
