//! The worker beside a data plane: it fetches what changed from the management plane, hands it to a [`Target`] and
//! reports what became of it.
//!
//! Invariants: an event is applied under a claim only, and reported under the token of that claim; what is reported is
//! what the target says it holds, not what was asked for; no answer of the server makes the worker ask again at once
//! without end; a stop ends the running apply orderly and claims nothing more. The server's clock decides leases: the
//! worker only measures how long it has had one.
//!
//! Deliberately absent: storage (restarts start from what the target holds and what the server knows), upgrades of the
//! data plane (refused as permanent failures), and drift reports.
//!
//! ```no_run
//! use std::sync::Arc;
//!
//! use agentrouter_liaison::{DirTarget, Report, Token, Worker, WorkerConfig};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(token: String) -> Result<(), Box<dyn std::error::Error>> {
//! let target = DirTarget::open("slots")?;
//! let config = WorkerConfig::new("http://127.0.0.1:8080", Token::new(token));
//! let worker = Worker::new(config, Arc::new(target.clone()))?.on_report(|report| {
//!     if let Report::Applied { slot, version, .. } = report {
//!         tracing::info!(%slot, version, "applied");
//!     }
//! });
//! let stop = CancellationToken::new();
//! worker.run(stop).await;
//! # Ok(())
//! # }
//! ```

mod backoff;
mod client;
mod config;
mod deliver;
mod dir;
mod failure;
mod report;
mod slot;
mod target;
mod upgrade;
mod worker;

pub use config::{Token, WorkerConfig, default_worker_id};
pub use dir::{DirTarget, OpenError};
pub use report::Report;
pub use slot::Slot;
pub use target::{Applied, Rejected, Target};
pub use upgrade::{Upgrade, UpgradeState, Upgrader};
pub use worker::Worker;
