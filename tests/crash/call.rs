//! Calls, and what their callers can tell from how they end.

use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt;

/// Why a call was not answered as it should have been.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// The server is gone. Nobody knows whether the call took effect.
    Gone,
    /// The server lives but could not decide, and says so: to be tried again.
    Again,
    /// The server refused it, so that nothing happened.
    Refused { code: Code, reason: String },
}

/// The server is gone.
#[derive(Debug)]
pub(crate) struct Gone;

/// Sorts an answer. What the server itself says always has a reason; what the transport makes up has none.
pub(crate) fn told<T>(answer: Result<Response<T>, Status>) -> Result<T, Trouble> {
    let status = match answer {
        Ok(response) => return Ok(response.into_inner()),
        Err(status) => status,
    };
    let Some(info) = status.get_details_error_info() else { return Err(Trouble::Gone) };
    match (status.code(), info.reason.as_str()) {
        (Code::Unavailable, _) | (Code::Aborted, "CONCURRENT_CHANGE") => Err(Trouble::Again),
        (Code::Internal, _) => panic!("the server has a defect: {status:?}"),
        (code, reason) => Err(Trouble::Refused { code, reason: reason.to_owned() }),
    }
}

/// The answer to a call that no live server has a reason to refuse; none where it is to be tried again.
pub(crate) fn answered<T>(answer: Result<Response<T>, Status>) -> Result<Option<T>, Gone> {
    match told(answer) {
        Ok(answer) => Ok(Some(answer)),
        Err(Trouble::Again) => Ok(None),
        Err(Trouble::Gone) => Err(Gone),
        Err(Trouble::Refused { code, reason }) => panic!("refused: {code:?} {reason}"),
    }
}

/// A write under an idempotency key, for the customer that the path names.
pub(crate) fn keyed<T>(key: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert("idempotency-key", key.parse().unwrap());
    request
}

/// A write under an idempotency key, for this customer.
pub(crate) fn keyed_for<T>(customer: &str, key: &str, message: T) -> Request<T> {
    let mut request = keyed(key, message);
    request.metadata_mut().insert("x-agentrouter-customer", customer.parse().unwrap());
    request
}
