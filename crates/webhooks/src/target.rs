//! Where messages may go. Whoever may create a webhook decides which host the server connects to, so it must not lead
//! into the network that the server stands in.
//!
//! A name is resolved by [`Guarded`], inside the client and for the very connection that follows: there is no second
//! look-up that could answer differently. A host that is an address already never reaches a resolver, so
//! [`TargetPolicy::check`] looks at it before each request.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which targets the server connects to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetPolicy {
    /// Public addresses, by https.
    Public,
    /// Any address, by http, too: for receivers inside the own network.
    Any,
}

/// Why a target is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// The text is no URL.
    #[error("must be a URL with a host")]
    Malformed,
    /// Plain text over a network that is not the own one.
    #[error("must be an https URL")]
    NotHttps,
    /// The address is inside some network.
    #[error("must not lead to a private, loopback or reserved address")]
    NotPublic,
}

impl TargetPolicy {
    /// Checks all of a target that can be told without resolving a name.
    ///
    /// # Errors
    /// Where it is refused.
    pub(crate) fn check(self, url: &str) -> Result<Url, Refused> {
        let url = Url::parse(url).map_err(|_| Refused::Malformed)?;
        // In its parsed form the host is an address in plain digits, however it was written.
        let host = url.host_str().ok_or(Refused::Malformed)?;
        if self == Self::Any {
            return if matches!(url.scheme(), "http" | "https") { Ok(url) } else { Err(Refused::NotHttps) };
        }
        if url.scheme() != "https" {
            return Err(Refused::NotHttps);
        }
        let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
        match address {
            Ok(address) if !is_public(address) => Err(Refused::NotPublic),
            _ => Ok(url),
        }
    }
}

/// A resolver that only gives addresses the policy allows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guarded(pub(crate) TargetPolicy);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let Self(policy) = *self;
        Box::pin(async move {
            // Port 0 stands for the port of the URL.
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let allowed: Vec<SocketAddr> =
                found.filter(|found| policy == TargetPolicy::Any || is_public(found.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::new(io::ErrorKind::PermissionDenied, Refused::NotPublic).into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet. Everything that IANA's registries of special purposes take out is
/// not, and neither is an IPv6 address that carries such an IPv4 address in it.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    let is_special = match a {
        // This network, private, loopback; multicast and reserved.
        0 | 10 | 127 | 224.. => true,
        // Carrier-grade NAT.
        100 => (64..128).contains(&b),
        169 => b == 254,
        172 => (16..32).contains(&b),
        // Protocol assignments, documentation, 6to4 relays, private.
        192 => (b == 0 && matches!(c, 0 | 2)) || (b == 88 && c == 99) || b == 168,
        // Benchmarks, documentation.
        198 => matches!(b, 18 | 19) || (b == 51 && c == 100),
        203 => b == 0 && c == 113,
        _ => false,
    };
    !is_special
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let [_, _, _, _, _, _, high, low] = segments;
    let embedded = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        is_public_v4(Ipv4Addr::new(a, b, c, d))
    };
    match segments {
        // NAT64 and 6to4 lead on to an IPv4 address.
        [0x64, 0xff9b, 0, 0, 0, 0, ..] => embedded(high, low),
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments with Teredo, documentation twice.
        [0x2001, 0..0x200 | 0xdb8, ..] | [0x3fff, 0..0x1000, ..] => false,
        // Only this range is given out. Mapped, local, private and multicast addresses are outside of it.
        [first, ..] => first & 0xe000 == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_inside_networks_are_not_public() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.168.0.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:8.8.8.8",
            "::ffff:127.0.0.1",
            "::7f00:1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fd12:3456::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(inside.parse().unwrap()), "{inside}");
        }
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.0.1",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.1.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "2001:4860:4860::8888",
            "2606:4700::1111",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
    }

    #[test]
    fn hosts_that_are_addresses_are_seen_through_their_spelling() {
        let check = |url| TargetPolicy::Public.check(url).map(|_| ());
        for inside in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://0x7f.1/",
            "https://2130706433/",
            "https://0177.0.0.1/",
            "https://[::1]:8443/",
            "https://[::ffff:10.0.0.1]/",
            "https://169.254.169.254/latest",
            "https://１２７.0.0.1/",
        ] {
            assert_eq!(check(inside), Err(Refused::NotPublic), "{inside}");
            assert!(TargetPolicy::Any.check(inside).is_ok(), "{inside}");
        }
        assert_eq!(check("http://hooks.example/"), Err(Refused::NotHttps));
        assert_eq!(check("ftp://hooks.example/"), Err(Refused::NotHttps));
        assert_eq!(TargetPolicy::Any.check("ftp://hooks.example/"), Err(Refused::NotHttps));
        assert_eq!(check("https://"), Err(Refused::Malformed));
        assert_eq!(check("https://hooks.example/a?b=c"), Ok(()));
        assert_eq!(check("https://8.8.8.8:8443"), Ok(()));
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_resolve_to() {
        let resolve = |policy: TargetPolicy| async move {
            let found = Guarded(policy).resolve("localhost".parse().unwrap()).await;
            found.map(|found| found.map(|address| address.ip()).collect::<Vec<_>>())
        };
        let refused = resolve(TargetPolicy::Public).await.unwrap_err();
        let refused = refused.downcast_ref::<io::Error>().and_then(|error| error.get_ref()).unwrap();
        assert_eq!(refused.downcast_ref(), Some(&Refused::NotPublic));
        assert!(resolve(TargetPolicy::Any).await.unwrap().iter().all(IpAddr::is_loopback));
    }
}
