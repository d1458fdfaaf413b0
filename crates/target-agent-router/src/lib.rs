//! Agent Router (`aigw`, with the Envoy that it runs) on the same machine, as what a worker applies configurations to.
//!
//! Owns a folder, the process that serves what the folder holds, and the way from one to the next: `aigw` reads its
//! file once, so that a change is a restart. Changes that arrive together are one restart; open requests are let go
//! on until a limit; and a change counts as applied only once the new process answers.
//!
//! Invariants: what the slot files hold is what runs, or ran last: content that does not come up never gets there; a
//! file that does not come up is followed by the last one that did; no process outlives its worker for longer than
//! until the next worker of the folder starts.
//!
//! Deliberately absent: what the resources are (`manifests`), and data planes elsewhere.

mod actor;
mod files;
mod options;
mod orphans;
mod probe;
mod process;
mod state;
mod target;

pub use files::in_path;
pub use options::{AgentRouterOptions, Mode, OpenError, Ports};
pub use target::AgentRouterTarget;
