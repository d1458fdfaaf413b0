//! What every gRPC service of the management plane shares.
//!
//! Owns the access policies read from the method options, the one place that enforces them
//! ([`enforce::EnforceLayer`]) together with bounds on calls and their rates, the one that counts and traces every call
//! and outlives its panics ([`observe::ObserveLayer`]), the context of a call, writes with their audit entry and
//! idempotency record, and the translation of faults to statuses. Knows no service; authentication itself is behind
//! [`enforce::Authenticate`].

pub mod bounds;
mod buckets;
pub mod call;
pub mod convert;
pub mod credential;
pub mod enforce;
mod guarded;
mod held;
pub mod list;
pub mod observe;
pub mod panics;
pub mod policy;
mod rates;
pub mod status;
pub mod tokens;
pub mod write;

pub use bounds::CallLimits;
pub use buckets::Rate;
pub use call::{Call, Peer, RequestId};
pub use enforce::{Authenticate, EnforceLayer};
pub use list::{ListSpec, Listing};
pub use observe::ObserveLayer;
pub use policy::{Policies, Policy};
pub use rates::Rates;
pub use status::{into_status, to_status};
pub use tokens::{IssuedToken, WorkspaceTokens};
pub use write::{Deps, Write};
