//! What the service saw of a request, for its answer.

use agentrouter_gateway::GetQuery;
use http::HeaderMap;
use prost::Message;
use prost_types::Any;
use tonic::Extensions;
use tonic::metadata::MetadataMap;

use crate::proto::Header;
use crate::proto::conformance_payload::{ConnectGetInfo, RequestInfo};

const PACKAGE: &str = "type.googleapis.com/connectrpc.conformance.v1";

/// A message of the suite in an `Any`.
pub(crate) fn pack(name: &str, message: &impl Message) -> Any {
    Any { type_url: format!("{PACKAGE}.{name}"), value: message.encode_to_vec() }
}

/// What there is to tell of a request.
pub(crate) fn request_info(
    metadata: &MetadataMap,
    extensions: &Extensions,
    requests: Vec<Any>,
) -> RequestInfo {
    let headers = metadata.clone().into_headers();
    RequestInfo {
        timeout_ms: headers.get("grpc-timeout").and_then(|value| milliseconds(value.to_str().ok()?)),
        request_headers: listed(&headers),
        requests,
        connect_get_info: extensions.get::<GetQuery>().map(|query| get_info(&query.0)),
    }
}

fn listed(headers: &HeaderMap) -> Vec<Header> {
    let value = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .keys()
        .map(|name| Header {
            name: name.to_string(),
            value: headers.get_all(name).iter().map(value).collect(),
        })
        .collect()
}

fn get_info(query: &str) -> ConnectGetInfo {
    let query_params = url::form_urlencoded::parse(query.as_bytes())
        .map(|(name, value)| Header { name: name.into_owned(), value: vec![value.into_owned()] })
        .collect();
    ConnectGetInfo { query_params }
}

fn milliseconds(timeout: &str) -> Option<i64> {
    let (amount, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
    let amount: i64 = amount.parse().ok()?;
    Some(match unit {
        "H" => amount * 3_600_000,
        "M" => amount * 60_000,
        "S" => amount * 1000,
        "m" => amount,
        "u" => amount / 1000,
        "n" => amount / 1_000_000,
        _ => return None,
    })
}
