//! Who is behind the proxies in front of the server.

use std::net::{IpAddr, SocketAddr};

use http::header::{FORWARDED, HeaderMap, HeaderName};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address of the client behind this many proxies, each of which appends the address that it was called from to
/// `X-Forwarded-For` or `Forwarded`. What stands further left was said by the client itself, and is believed no more
/// than anything else it says. Without enough entries the request came by another way, and the peer is the client.
pub fn client_address(headers: &HeaderMap, peer: SocketAddr, proxies: usize) -> SocketAddr {
    let Some(skipped) = proxies.checked_sub(1) else { return peer };
    let name = if headers.contains_key(X_FORWARDED_FOR) { X_FORWARDED_FOR } else { FORWARDED };
    let texts = headers.get_all(&name).iter().rev().filter_map(|value| value.to_str().ok());
    let mut entries = texts.flat_map(|text| text.rsplit(','));
    let entry = entries.nth(skipped).map(str::trim).unwrap_or_default();
    let address = if name == FORWARDED { of_forwarded(entry).unwrap_or_default() } else { entry };
    parse(address).unwrap_or(peer)
}

/// What `for` says in an entry of `Forwarded` (RFC 7239).
fn of_forwarded(entry: &str) -> Option<&str> {
    let pairs = entry.split(';').filter_map(|pair| pair.split_once('='));
    let mut values =
        pairs.filter(|(name, _)| name.trim().eq_ignore_ascii_case("for")).map(|(_, value)| value);
    values.next().map(|value| value.trim().trim_matches('"'))
}

/// An address with or without port, as proxies write both.
fn parse(text: &str) -> Option<SocketAddr> {
    if let Ok(address) = text.parse() {
        return Some(address);
    }
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    bare.parse::<IpAddr>().ok().map(|address| SocketAddr::new(address, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    // A7 #85: what a client says of itself is not believed, however many entries it makes up.
    #[test]
    fn only_what_trusted_proxies_say_counts() {
        let peer: SocketAddr = "10.0.0.9:4711".parse().expect("an address");
        let client = |lines: &[(&'static str, &'static str)], proxies| {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.append(*name, value.parse().expect("a value"));
            }
            client_address(&headers, peer, proxies).to_string()
        };
        let two = [("x-forwarded-for", "6.6.6.6, 192.0.2.1"), ("x-forwarded-for", "10.0.0.8")];
        for (lines, proxies, expected) in [
            (&two[..], 0, "10.0.0.9:4711"),
            (&two, 1, "10.0.0.8:0"),
            (&two, 2, "192.0.2.1:0"),
            (&two, 4, "10.0.0.9:4711"),
            (&[], 1, "10.0.0.9:4711"),
            (&[("x-forwarded-for", "unknown")], 1, "10.0.0.9:4711"),
            (&[("x-forwarded-for", "192.0.2.1:99")], 1, "192.0.2.1:99"),
            (&[("x-forwarded-for", "2001:db8::1")], 1, "[2001:db8::1]:0"),
            (&[("forwarded", "for=6.6.6.6, for=\"[2001:db8::2]:99\";proto=https")], 1, "[2001:db8::2]:99"),
            (&[("forwarded", "proto=https;For=192.0.2.3")], 1, "192.0.2.3:0"),
        ] {
            assert_eq!(client(lines, proxies), expected, "{lines:?} {proxies}");
        }
    }
}
