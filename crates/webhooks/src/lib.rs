//! Webhooks: what happens to the workspaces of a customer, told to the endpoints that its people chose.
//!
//! Owns the tables `webhooks`, `webhook_deliveries` and what has been told already (`webhook_offline_workspaces`,
//! `webhook_stuck_slots`). A message is written in the transaction that finds the fact, one row for each webhook that
//! takes it, and sent by a [`Sender`] until the receiver answers, or for about a day.
//!
//! Invariants: of all replicas one reports a fact, because the row that says so is unique; one sends a message at a
//! time, under a lease with a token; a message that a receiver may have missed is sent again, so receivers get it at
//! least once. Signing secrets are sealed with their customer and webhook as associated data. No connection is made
//! to an address inside the own network, whatever a name resolves to, unless the server's settings allow it.
//!
//! Deliberately absent: any promise of an order, which would let one message hold up all others; the bodies of
//! answers; and who may call (the policies in the proto).

mod convert;
mod facts;
mod message;
mod model;
mod queue;
mod rpc;
mod secret;
mod send;
mod service;
mod signals;
mod store;
mod target;

pub use facts::{Watching, tell_presence};
pub use queue::sweep_ended;
pub use rpc::Webhooks;
pub use send::Sender;
pub use signals::tell_signals;
pub use target::TargetPolicy;
