//! Projects of a customer, and who is a member of them.
//!
//! Owns the tables `projects` and `project_members`; identities are only looked at. A customer's default project
//! is created with the customer, by the tenancy service.
//!
//! Invariants: a slug stays taken until the project is purged; the default project cannot be archived; only an
//! admin of the customer can leave a project that has admins without one. Writes hold the project's row, so
//! that what they decide by (its members, their roles) stays true until they commit.
//!
//! Deliberately absent: what a role of the customer may do at all. The enforcement layer decides that; this crate
//! adds what a membership grants beyond it (`access.rs`).

mod access;
mod convert;
mod members;
mod model;
mod projects;
mod rpc;
mod store;

pub use rpc::Projects;
