//! Workspaces: the data planes of a customer, the tokens their workers call with, and what each of them runs.
//!
//! Owns the table `workspaces`, and creates the row of `workspace_sync` that delivery moves. Reads, and never writes,
//! what delivery keeps about slots and events: a status is a picture of one moment, taken by one statement.
//!
//! Invariants: a workspace's number is given once and never changes, because event ids carry it; a workspace starts
//! at position 0 of its customer's sequence, which is all it takes to queue every live slot for it.
//!
//! Deliberately absent: signing tokens (behind [`agentrouter_rpc::WorkspaceTokens`]), refusing those of archived
//! workspaces (authentication joins live ones), and laying out events (delivery).

mod convert;
mod model;
mod rpc;
mod service;
mod status;
mod store;
mod watch;

pub use model::{NewWorkspace, Workspace};
pub use rpc::Workspaces;
pub use service::create_workspace;
pub use watch::StatusWatch;
