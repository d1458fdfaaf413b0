//! A panic in a service costs its call, and neither the connection nor the process.

use std::any::Any;
use std::sync::Arc;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::call::RequestId;
use crate::status::ERROR_DOMAIN;

/// INTERNAL `PANIC`, with the id under which the log tells more.
pub fn status(panic: &(dyn Any + Send), request: Option<&RequestId>) -> Status {
    let what = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a message");
    let id: Arc<str> = request.map(|id| Arc::clone(&id.0)).unwrap_or_default();
    tracing::error!(panic = what, request_id = &*id, "a call panicked");
    let mut details = ErrorDetails::new();
    details.set_error_info("PANIC", ERROR_DOMAIN, std::collections::HashMap::new());
    if id.is_empty() {
        return Status::with_error_details(Code::Internal, "an internal error", details);
    }
    details.set_request_info(&*id, "");
    Status::with_error_details(Code::Internal, format!("an internal error; request {id}"), details)
}
