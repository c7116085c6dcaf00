//! Which host a request names. Where it names none, several, or two that differ, a proxy before attachd may have understood
//! another request than attachd does. This module does not know which hosts are ours: any is, that is well-formed.

use http::header::HOST;
use http::uri::Scheme;
use http::{Request, Version};

use crate::error::{Error, Result};

/// Refuses a request that does not name one well-formed host (RFC 9112 §3.2, RFC 9113 §8.3.1).
pub(super) fn named<B>(request: &Request<B>) -> Result<()> {
    let mut hosts = request.headers().get_all(HOST).iter();
    let host = hosts.next().map(http::HeaderValue::as_bytes);
    if hosts.next().is_some() || (host.is_none() && request.version() == Version::HTTP_11) {
        return Err(Error::invalid("the header Host must be given once"));
    }
    let host = host.map(|host| well_formed(host).ok_or_else(malformed)).transpose()?;
    let scheme = request.uri().scheme();
    match (request.uri().authority().map(http::uri::Authority::as_str), host) {
        (None, None) if request.version() == Version::HTTP_2 => {
            Err(Error::invalid("the host must be given in :authority"))
        }
        (None, _) => Ok(()),
        (Some(authority), host) => {
            let authority = well_formed(authority.as_bytes()).ok_or_else(|| {
                Error::invalid("the host of the request target must be a name or an address, and a port if need be")
            })?;
            match host {
                Some(host) if !same(authority, host, scheme) => {
                    Err(Error::invalid("the header Host must name the same host as the request target"))
                }
                _ => Ok(()),
            }
        }
    }
}

fn malformed() -> Error {
    Error::invalid("the header Host must be a name or an address, and a port if need be")
}

/// A host and a port.
type Authority<'a> = (&'a [u8], Option<u16>);

/// Takes `host[:port]` apart (RFC 3986 §3.2). Not permitted here are the empty host, a user, and the comma, which a proxy
/// writes that puts two headers into one.
fn well_formed(text: &[u8]) -> Option<Authority<'_>> {
    let (host, port) = match text.strip_prefix(b"[") {
        Some(literal) => {
            let end = literal.iter().position(|byte| *byte == b']')?;
            std::str::from_utf8(&literal[..end]).ok()?.parse::<std::net::Ipv6Addr>().ok()?;
            text.split_at(end + 2)
        }
        None => text.split_at(text.iter().position(|byte| *byte == b':').unwrap_or(text.len())),
    };
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+;=%".contains(byte);
    let escaped = host.split(|byte| *byte == b'%').skip(1);
    let is_escape = |after: &[u8]| after.len() >= 2 && after[..2].iter().all(u8::is_ascii_hexdigit);
    if host.is_empty() || (text[0] != b'[' && !(host.iter().all(is_name) && escaped.into_iter().all(is_escape))) {
        return None;
    }
    let port = match port {
        [] | [b':'] => None,
        [b':', digits @ ..] if digits.iter().all(u8::is_ascii_digit) => {
            Some(std::str::from_utf8(digits).ok()?.parse().ok()?)
        }
        _ => return None,
    };
    Some((host, port))
}

/// Whether two authorities are the same. A port may be left out where it is that of the scheme.
fn same(a: Authority<'_>, b: Authority<'_>, scheme: Option<&Scheme>) -> bool {
    let usual = match scheme {
        Some(scheme) if *scheme == Scheme::HTTPS => 443,
        _ => 80,
    };
    a.0.eq_ignore_ascii_case(b.0) && a.1.unwrap_or(usual) == b.1.unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_and_a_port() {
        for host in [
            "a",
            "attachd",
            "attachd:8080",
            "a.example.com",
            "a.example.com.",
            "127.0.0.1:1",
            "[::1]",
            "[::1]:443",
            "xn--bcher-kva.example",
            "a_b",
            "a:",
            "a:0",
            "a:65535",
            "a%41",
            "A",
        ] {
            assert!(well_formed(host.as_bytes()).is_some(), "{host}");
        }
        for host in [
            "",
            " ",
            "a b",
            "a,b",
            "a, b",
            ":80",
            "a:b",
            "a:-1",
            "a:65536",
            "a:1:2",
            "user@a",
            "u:p@a",
            "a/b",
            "a?b",
            "a#b",
            "a\\b",
            "http://a",
            "[::1",
            "::1",
            "[]",
            "[::1]x",
            "[a]",
            "[::1]:x",
            "a%",
            "a%4",
            "a%zz",
            "a\"",
            "<a>",
            "caf\u{e9}",
            "a\u{0}",
            "a\t",
        ] {
            assert!(well_formed(host.as_bytes()).is_none(), "{host:?}");
        }
    }

    #[test]
    fn a_port_may_be_left_out_where_it_is_that_of_the_scheme() {
        let same = |a: &str, b: &str, scheme: &Scheme| {
            same(well_formed(a.as_bytes()).unwrap(), well_formed(b.as_bytes()).unwrap(), Some(scheme))
        };
        assert!(
            same("a", "A:80", &Scheme::HTTP) && same("a:443", "a", &Scheme::HTTPS) && same("a:1", "a:1", &Scheme::HTTP)
        );
        assert!(
            !same("a", "a:443", &Scheme::HTTP) && !same("a", "b", &Scheme::HTTP) && !same("a:1", "a:2", &Scheme::HTTP)
        );
    }
}
