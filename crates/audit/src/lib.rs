//! Who changed what, and who was refused.
//!
//! Owns the reading of `audit_entries`. Deliberately absent: writing them. The storage crate does, in the
//! transaction of each mutation, and the enforcement layer for refusals; nothing changes or deletes an entry
//! through the API.

mod convert;
mod rpc;
mod store;

pub use rpc::Audit;
