//! Heads of requests that say too much. What is far too much has ended before, in the listener.

use agentrouter_rpc::status::ERROR_DOMAIN;
use http::{Request, StatusCode};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

/// How much the head of a request may say.
#[derive(Debug, Clone, Copy)]
pub struct HeadLimits {
    /// Bytes of path and query. More is answered with 414.
    pub uri_bytes: usize,
    /// Header fields. More is answered with 431.
    pub fields: usize,
}

impl Default for HeadLimits {
    fn default() -> Self {
        Self { uri_bytes: 8192, fields: 100 }
    }
}

impl HeadLimits {
    /// Why a request is refused, and its status in HTTP.
    pub(crate) fn check<B>(&self, request: &Request<B>) -> Result<(), (Status, StatusCode)> {
        let uri = request.uri().path_and_query().map_or(0, |path_and_query| path_and_query.as_str().len());
        if uri > self.uri_bytes {
            let message = format!("path and query are longer than {} bytes", self.uri_bytes);
            return Err(refused(Code::InvalidArgument, "URI_TOO_LONG", message, StatusCode::URI_TOO_LONG));
        }
        if request.headers().len() > self.fields {
            let message = format!("the request has more than {} header fields", self.fields);
            let http = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
            return Err(refused(Code::ResourceExhausted, "TOO_MANY_HEADER_FIELDS", message, http));
        }
        Ok(())
    }
}

fn refused(code: Code, reason: &str, message: String, http: StatusCode) -> (Status, StatusCode) {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, ERROR_DOMAIN, std::collections::HashMap::new());
    (Status::with_error_details(code, message, details), http)
}
