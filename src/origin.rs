//! Where a request comes from: from the address of its connection or, where that is a proxy's that the configuration trusts,
//! from where the proxy says. Anybody can write `X-Forwarded-For`, so it is read from its end, and only as far as trusted
//! proxies have written it. This module must not know what is made of the answer.

use std::borrow::Cow;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// The header, and the metadata key, in which a proxy says for whom it asks: addresses between commas, each added by the one
/// after it.
pub const FORWARDED_FOR: &str = "x-forwarded-for";

/// A network of trusted proxies: an address with the number of its leading bits, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Network(IpNet);

impl Network {
    /// Whether it holds every address, so that there is nobody who is not trusted.
    pub fn holds_all(&self) -> bool {
        self.0.prefix_len() == 0
    }

    /// Whether it holds an address. An IPv4 address may be in the form of an IPv6 address.
    pub fn holds(&self, address: IpAddr) -> bool {
        self.0.contains(&address.to_canonical())
    }
}

impl TryFrom<String> for Network {
    type Error = String;

    fn try_from(text: String) -> Result<Network, String> {
        let network = text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
        let network = network.map_err(|_| format!("`{text}` is no network such as `10.0.0.0/8`, and no address"))?;
        // Whoever writes more bits than count may mean another number of them.
        if network.trunc() != network {
            return Err(format!("`{text}` has bits beyond its first {}: `{}`", network.prefix_len(), network.trunc()));
        }
        Ok(Network(network))
    }
}

impl From<Network> for String {
    fn from(network: Network) -> String {
        network.0.to_string()
    }
}

impl JsonSchema for Network {
    fn schema_name() -> Cow<'static, str> {
        "Network".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "networks, such as `10.0.0.0/8`" })
    }
}

/// Where a request comes from, as far as that can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    connection: SocketAddr,
    /// Who asked the proxy at the other end of the connection, where that one is trusted and says so.
    forwarded: Option<IpAddr>,
}

impl Origin {
    /// The origin of a request on a connection from `connection`, whose header has these values, with these proxies trusted.
    ///
    /// It is the last address that no trusted proxy has. What a trusted proxy wrote that is no address ends the search, and so
    /// does the beginning of the list: the origin is then the last trusted proxy on the way.
    pub fn of<'a>(
        connection: SocketAddr,
        values: impl DoubleEndedIterator<Item = &'a [u8]>,
        trusted: &[Network],
    ) -> Origin {
        let is_trusted = |address: IpAddr| trusted.iter().any(|network| network.holds(address));
        let mut said = values.rev().flat_map(|value| value.rsplit(|byte| *byte == b',')).map(address);
        let first = connection.ip().to_canonical();
        let mut from = first;
        while is_trusted(from)
            && let Some(Some(before)) = said.next()
        {
            from = before;
        }
        Origin { connection, forwarded: (from != first).then_some(from) }
    }

    /// The proxy whose word is taken for it, where there is one.
    pub fn via(&self) -> Option<SocketAddr> {
        self.forwarded.map(|_| self.connection)
    }
}

/// An address with its port where it is that of a connection; one that a proxy names has none.
impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.forwarded {
            Some(address) => address.fmt(f),
            None => self.connection.fmt(f),
        }
    }
}

/// One entry of the list: an address, which some proxies write with a port.
fn address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry).ok()?.trim_matches([' ', '\t']);
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn networks(texts: &[&str]) -> Vec<Network> {
        texts.iter().map(|text| Network::try_from((*text).to_owned()).unwrap()).collect()
    }

    fn origin(connection: &str, values: &[&str], trusted: &[&str]) -> String {
        let values = values.iter().map(|value| value.as_bytes());
        Origin::of(connection.parse().unwrap(), values, &networks(trusted)).to_string()
    }

    const PROXY: &str = "10.0.0.1:4711";
    const TRUSTED: &[&str] = &["10.0.0.0/8", "2001:db8:1::/48"];

    #[test]
    fn nobody_is_believed_who_is_not_trusted() {
        for values in [&["1.2.3.4"][..], &["1.2.3.4, 10.0.0.9"], &["garbage"], &[]] {
            assert_eq!(origin(PROXY, values, &[]), PROXY);
            assert_eq!(origin("192.0.2.1:1", values, TRUSTED), "192.0.2.1:1");
            assert_eq!(origin("[2001:db8:2::1]:1", values, TRUSTED), "[2001:db8:2::1]:1");
        }
    }

    #[test]
    fn the_origin_is_the_last_address_that_no_trusted_proxy_has() {
        for (values, from) in [
            (&["192.0.2.1"][..], "192.0.2.1"),
            (&["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["6.6.6.6,192.0.2.1,10.0.0.2"], "192.0.2.1"),
            (&["6.6.6.6", "192.0.2.1, 10.0.0.2", "10.0.0.3"], "192.0.2.1"),
            (&["10.6.6.6, 192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1:5678"], "192.0.2.1"),
            (&["2001:db8::7"], "2001:db8::7"),
            (&["[2001:db8::7]"], "2001:db8::7"),
            (&["[2001:db8::7]:5678"], "2001:db8::7"),
            (&["2001:db8::7, 2001:db8:1::9"], "2001:db8::7"),
            (&["::ffff:192.0.2.1"], "192.0.2.1"),
            (&["192.0.2.1, ::ffff:10.0.0.2"], "192.0.2.1"),
            (&[" \t192.0.2.1\t "], "192.0.2.1"),
            // All are proxies: the first of them is as far as it goes.
            (&["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        ] {
            assert_eq!(origin(PROXY, values, TRUSTED), from, "{values:?}");
            assert_eq!(origin("[::ffff:10.0.0.1]:4711", values, TRUSTED), from, "{values:?}");
        }
    }

    #[test]
    fn what_is_no_address_ends_the_search_at_the_proxy_that_wrote_it() {
        for garbage in [
            "",
            ",",
            " ",
            "unknown",
            "_hidden",
            "1.2.3",
            "1.2.3.4.5",
            "01.2.3.4",
            "256.1.1.1",
            "1.2.3.4:x",
            "1.2.3.4:99999",
            "[::1",
            "::1]",
            "fe80::1%eth0",
            "\"1.2.3.4\"",
            "for=1.2.3.4",
            "1.2.3.4 5.6.7.8",
            "1.2.3.4;",
            "\u{e9}",
            "*",
        ] {
            assert_eq!(origin(PROXY, &[&format!("6.6.6.6, {garbage}")], TRUSTED), PROXY, "{garbage}");
            assert_eq!(origin(PROXY, &["6.6.6.6", garbage], TRUSTED), PROXY, "{garbage}");
            let behind = format!("6.6.6.6, {garbage}, 10.0.0.2");
            assert_eq!(origin(PROXY, &[&behind], TRUSTED), "10.0.0.2", "{garbage}");
        }
        let bytes = Origin::of(PROXY.parse().unwrap(), [&b"\xff"[..]].into_iter(), &networks(TRUSTED));
        assert_eq!((bytes.to_string().as_str(), bytes.via()), (PROXY, None));
    }

    #[test]
    fn who_was_believed_is_known() {
        let told =
            |value: &'static [u8]| Origin::of(PROXY.parse().unwrap(), [value].into_iter(), &networks(TRUSTED)).via();
        assert_eq!(told(b"192.0.2.1"), Some(PROXY.parse().unwrap()));
        assert_eq!(told(b"x"), None);
    }

    #[test]
    fn a_network_is_written_with_the_bits_that_count() {
        for (text, shown) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3/32"),
            ("10.1.2.3/32", "10.1.2.3/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::/32", "2001:db8::/32"),
            ("::1", "::1/128"),
        ] {
            let network = Network::try_from(text.to_owned()).unwrap();
            assert_eq!(String::from(network), shown);
            assert_eq!(network.holds_all(), text == "0.0.0.0/0");
        }
        for (text, what) in [
            ("", "no network"),
            ("10.0.0.0/33", "no network"),
            ("10.0.0.0/", "no network"),
            ("10.0.0/8", "no network"),
            ("proxy.example", "no network"),
            ("10.0.0.0 /8", "no network"),
            ("10.1.2.3/8", "bits beyond its first 8: `10.0.0.0/8`"),
            ("2001:db8::1/32", "bits beyond its first 32"),
        ] {
            let error = Network::try_from(text.to_owned()).unwrap_err();
            assert!(error.contains(what), "{text}: {error}");
        }
    }

    proptest! {
        /// What a caller writes in front of what the proxies add changes nothing.
        #[test]
        fn no_header_of_a_caller_moves_its_origin(
            spoofed in prop::collection::vec("[ -~]{0,40}", 0..4),
            hops in 0_u8..4,
            client in any::<[u8; 4]>().prop_filter("not a proxy", |bytes| bytes[0] != 10),
        ) {
            let client = IpAddr::from(client);
            let proxies = (2..2 + hops).map(|hop| format!(", 10.0.0.{hop}"));
            let last = format!("{client}{}", proxies.collect::<String>());
            let values: Vec<&str> = spoofed.iter().map(String::as_str).chain([last.as_str()]).collect();
            prop_assert_eq!(origin(PROXY, &values, TRUSTED), client.to_string());
            let joined = values.join(",");
            prop_assert_eq!(origin(PROXY, &[&joined], TRUSTED), client.to_string());
        }
    }
}
