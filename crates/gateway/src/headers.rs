//! Headers that cross between HTTP and gRPC, and the deadline among them.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;
use tonic::Code;

use crate::failure::Failure;
use crate::grpc::TRAILERS;

/// The deadline header of gRPC, which REST clients may use too.
pub(crate) const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");
/// The deadline header for REST clients, in seconds.
const SERVER_TIMEOUT: HeaderName = HeaderName::from_static("x-server-timeout");

/// Describe one connection or the transfer of one body, never a call.
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Which headers cross between HTTP and gRPC.
///
/// Everything crosses that is not withheld: `authorization`, `idempotency-key`,
/// `if-match`, `traceparent`, `x-request-id` and whatever else a client sends
/// becomes metadata, and response metadata, trailers included, becomes headers.
///
/// Three kinds never cross, whatever the policy says: hop-by-hop headers with
/// those `Connection` names, `te`, and `grpc-*`. So no REST client can forge
/// what the protocol itself means, and no answer carries it.
#[derive(Debug, Clone)]
pub struct HeaderPolicy {
    /// Request headers withheld from the rpc, by name.
    pub withheld_from_rpc: Vec<HeaderName>,
    /// Request headers withheld from the rpc, by lower-case prefix.
    pub withheld_from_rpc_by_prefix: Vec<String>,
    /// Response metadata withheld from the client, by name.
    pub withheld_from_client: Vec<HeaderName>,
    /// Response metadata withheld from the client, by lower-case prefix.
    pub withheld_from_client_by_prefix: Vec<String>,
}

impl Default for HeaderPolicy {
    /// Withholds what describes the HTTP message rather than the call:
    /// `content-*`, `connect-*`, `host`, `accept`, `accept-encoding`, `expect`
    /// and `x-server-timeout` on the way in, `content-type` and
    /// `content-length` on the way out.
    fn default() -> Self {
        Self {
            withheld_from_rpc: vec![
                header::HOST,
                header::ACCEPT,
                header::ACCEPT_ENCODING,
                header::EXPECT,
                SERVER_TIMEOUT,
            ],
            withheld_from_rpc_by_prefix: vec!["content-".to_owned(), "connect-".to_owned()],
            withheld_from_client: vec![header::CONTENT_TYPE, header::CONTENT_LENGTH],
            withheld_from_client_by_prefix: Vec::new(),
        }
    }
}

impl HeaderPolicy {
    /// Turns request headers into metadata in place.
    pub(crate) fn to_metadata(&self, headers: &mut HeaderMap) {
        filter(headers, &self.withheld_from_rpc, &self.withheld_from_rpc_by_prefix);
    }

    /// Turns metadata into response headers in place.
    pub(crate) fn to_headers(&self, metadata: &mut HeaderMap) {
        filter(metadata, &self.withheld_from_client, &self.withheld_from_client_by_prefix);
    }
}

fn filter(headers: &mut HeaderMap, names: &[HeaderName], prefixes: &[String]) {
    drop_where(headers, |name| {
        name.as_str().starts_with("grpc-")
            || names.contains(name)
            || prefixes.iter().any(|prefix| name.as_str().starts_with(prefix.as_str()))
    });
}

/// Drops what belongs to one connection, and nothing else.
pub(crate) fn drop_connection(headers: &mut HeaderMap) {
    let te = headers.get(header::TE).filter(|te| *te == TRAILERS).cloned();
    drop_where(headers, |_| false);
    // This one is gRPC's.
    if let Some(te) = te {
        headers.insert(header::TE, te);
    }
}

/// Drops what belongs to one connection, or to the body of an answer that is not passed on.
pub(crate) fn drop_body(headers: &mut HeaderMap) {
    drop_where(headers, |name| name.as_str().starts_with("content-"));
}

/// Drops hop-by-hop headers, and others.
fn drop_where(headers: &mut HeaderMap, is_dropped: impl Fn(&HeaderName) -> bool) {
    let named_by_connection: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // Clients seldom send more of them.
    let dropped: SmallVec<[HeaderName; 8]> = headers
        .keys()
        .filter(|name| HOP_BY_HOP.contains(name) || named_by_connection.contains(name) || is_dropped(name))
        .cloned()
        .collect();
    for name in dropped {
        headers.remove(name);
    }
}

/// The call's deadline as a `grpc-timeout` value: the shorter of `grpc-timeout`
/// and `x-server-timeout`. It is passed on, not enforced here.
pub(crate) fn timeout(headers: &HeaderMap) -> Result<Option<HeaderValue>, Failure> {
    let grpc = one(headers, &GRPC_TIMEOUT, grpc_timeout_nanos, "up to 8 digits and a unit, such as `500m`")?;
    let rest = one(headers, &SERVER_TIMEOUT, seconds_nanos, "a number of seconds, such as `1.5`")?;
    Ok(grpc.into_iter().chain(rest).min().and_then(to_grpc_timeout))
}

fn one(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&str) -> Option<u128>,
    expected: &str,
) -> Result<Option<u128>, Failure> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    match value.to_str().ok().and_then(parse) {
        Some(nanos) if values.next().is_none() => Ok(Some(nanos)),
        _ => {
            let message = format!("the header `{name}` must be {expected}");
            Err(Failure::new(Code::InvalidArgument, "INVALID_TIMEOUT", message))
        }
    }
}

pub(crate) fn grpc_timeout_nanos(text: &str) -> Option<u128> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let is_amount = (1..=8).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let unit: u128 = match unit {
        "H" => 3_600_000_000_000,
        "M" => 60_000_000_000,
        "S" => 1_000_000_000,
        "m" => 1_000_000,
        "u" => 1_000,
        "n" => 1,
        _ => return None,
    };
    is_amount.then(|| digits.parse::<u128>().ok())?.map(|amount| amount * unit)
}

/// Decimal seconds; what is finer than a nanosecond is cut off, and what no
/// gRPC timeout can hold is the longest one.
fn seconds_nanos(text: &str) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (digits(whole) && digits(fraction)).then_some(())?;
    let fraction: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let whole: u128 = whole.parse().unwrap_or(u128::MAX);
    Some(whole.saturating_mul(1_000_000_000).saturating_add(fraction.parse().ok()?))
}

/// Eight digits in the finest unit that holds the time, saturating at the top.
pub(crate) fn to_grpc_timeout(nanos: u128) -> Option<HeaderValue> {
    const UNITS: [(u128, char); 6] = [
        (1, 'n'),
        (1_000, 'u'),
        (1_000_000, 'm'),
        (1_000_000_000, 'S'),
        (60_000_000_000, 'M'),
        (3_600_000_000_000, 'H'),
    ];
    let fitting = UNITS.iter().find(|(unit, _)| nanos / unit <= 99_999_999);
    let text = match fitting {
        Some((unit, letter)) => format!("{}{letter}", nanos / unit),
        None => "99999999H".to_owned(),
    };
    HeaderValue::try_from(text).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeout_of(pairs: &[(&'static str, &'static str)]) -> Result<String, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::try_from(*value).expect("a header value"));
        }
        let timeout = timeout(&headers)?;
        Ok(timeout.map_or("none".to_owned(), |value| value.to_str().expect("ASCII").to_owned()))
    }

    /// A7 #86, #87.
    #[test]
    fn deadlines_are_parsed_strictly_and_saturate() {
        for (headers, expected) in [
            (&[][..], "none"),
            (&[("grpc-timeout", "500m")], "500000u"),
            (&[("grpc-timeout", "1S")], "1000000u"),
            (&[("grpc-timeout", "0n")], "0n"),
            (&[("grpc-timeout", "99999999H")], "99999999H"),
            (&[("x-server-timeout", "1.5")], "1500000u"),
            (&[("x-server-timeout", "0")], "0n"),
            (&[("x-server-timeout", "0.0000000019")], "1n"),
            (&[("x-server-timeout", "999999999999999999999999999999999999999999")], "99999999H"),
            (&[("grpc-timeout", "2S"), ("x-server-timeout", "1")], "1000000u"),
        ] {
            assert_eq!(timeout_of(headers).ok().as_deref(), Some(expected), "{headers:?}");
        }
        for bad in ["", "S", "5", "100000000m", "-1S", "1.5S", "1s", "5 S", "5µ"] {
            assert!(timeout_of(&[("grpc-timeout", bad)]).is_err(), "{bad}");
        }
        for bad in ["", "-1", "1e3", "NaN", ".5", "5.", "1s", "+1"] {
            assert!(timeout_of(&[("x-server-timeout", bad)]).is_err(), "{bad}");
        }
        assert!(timeout_of(&[("grpc-timeout", "2S"), ("grpc-timeout", "1S")]).is_err());
    }

    /// A7 #82.
    #[test]
    fn protocol_headers_do_not_cross() {
        let mut headers = HeaderMap::new();
        for name in [
            "authorization",
            "idempotency-key",
            "if-match",
            "traceparent",
            "x-request-id",
            "x-agentrouter-customer",
            "cookie",
            "x-blob-bin",
            "grpc-status",
            "grpc-timeout",
            "te",
            "connection",
            "x-hop",
            "keep-alive",
            "transfer-encoding",
            "host",
            "content-type",
            "content-length",
            "connect-protocol-version",
            "accept-encoding",
            "x-server-timeout",
        ] {
            headers.append(name, HeaderValue::from_static("v"));
        }
        headers.insert("connection", HeaderValue::from_static("close, X-Hop"));
        HeaderPolicy::default().to_metadata(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(
            left,
            [
                "authorization",
                "cookie",
                "idempotency-key",
                "if-match",
                "traceparent",
                "x-agentrouter-customer",
                "x-blob-bin",
                "x-request-id",
            ]
        );
    }
}
