//! Connect: unary calls, by POST and by GET, and what its streams have of their own.

mod error;
mod get;
mod unary;

use http::header::{HeaderMap, HeaderName};
use tonic::Status;

pub(super) use error::{end_of_stream, response};
pub(super) use unary::Unary;

const VERSION: HeaderName = HeaderName::from_static("connect-protocol-version");

/// Refuses any other version than the only one. A client need not name it: so `curl` can call.
pub(super) fn check_version(headers: &HeaderMap) -> Result<(), Status> {
    match headers.get(VERSION) {
        Some(version) if version != "1" => {
            Err(Status::invalid_argument(format!("the header `{VERSION}` must be 1")))
        }
        _ => Ok(()),
    }
}

/// Whether a request says that it speaks Connect.
pub(super) fn is_named(headers: &HeaderMap) -> bool {
    headers.contains_key(VERSION)
}
