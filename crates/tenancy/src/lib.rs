//! Customers, the tenants of the management plane.
//!
//! Owns the `customers` table, and with a new customer its first rows elsewhere: its event sequence and its
//! default project, all in one transaction.
//!
//! Invariants: a slug stays taken while the row exists; an archived customer keeps every row it has, so that
//! bringing it back restores exactly what was there, until a purge begins, which takes every row of it in every table; no
//! archive leaves the installation without a live operator key.
//!
//! Deliberately absent: putting an archived customer's keys, tokens and workspaces out of service one by one.
//! Authentication asks for a live customer, which does it for all of them at once.

mod convert;
mod model;
mod purge;
mod rpc;
mod service;
mod store;

pub use model::{Customer, NewCustomer};
pub use purge::finish_purges;
pub use rpc::Tenancy;
pub use service::create_customer;
