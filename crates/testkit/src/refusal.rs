//! What a client can tell about a refused call.

use std::fmt::Debug;

use tonic::{Code, Response, Status};
use tonic_types::StatusExt;

/// The code and the reason of a refused call.
#[track_caller]
pub fn refused<T: Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.expect_err("the call is refused");
    let reason = status.get_details_error_info().expect("a reason").reason;
    (status.code(), reason)
}

/// The fields that a refused call complains about, in order.
#[track_caller]
pub fn violations<T: Debug>(result: Result<Response<T>, Status>) -> Vec<String> {
    let status = result.expect_err("the call is refused");
    assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
    let request = status.get_details_bad_request().expect("violations");
    request.field_violations.into_iter().map(|violation| violation.field).collect()
}
