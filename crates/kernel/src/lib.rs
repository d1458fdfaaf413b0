//! What every crate of the management plane shares: typed ids, time, faults, field checks, page tokens,
//! list filters, update masks and principals. Pure data and pure functions: no I/O, no SQL, no gRPC.

pub mod archive;
pub mod check;
pub mod fault;
pub mod filter;
pub mod id;
pub mod mask;
pub mod page;
pub mod principal;
pub mod time;

pub use check::Violations;
pub use fault::{Fault, FaultKind, Violation};
pub use filter::Filter;
pub use id::Id;
pub use mask::UpdateMask;
pub use page::{PageCursor, PageKey, PageSize};
pub use principal::{CredentialKind, Principal, Role, SecretHash};
pub use time::{Clock, SystemClock, Timestamp};
