//! Upgrades of data planes: what people and workers may ask for. The phases, and how an upgrade follows its events, are
//! the delivery crate's.

mod convert;
mod credentials;
mod metadata;
mod service;

pub use credentials::sweep as sweep_upgrade_credentials;
pub(crate) use credentials::{ack, fetch, submit};
pub(crate) use service::{cancel, get, report, roll_back, start};
