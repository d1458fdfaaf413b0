//! The worker beside a data plane: it fetches what changed from the management plane, hands it to a [`Target`] and
//! reports what became of it.
//!
//! Invariants: an event is applied under a claim only, and reported under the token of that claim; what is reported is
//! what the target says it holds, not what was asked for; no answer of the server makes the worker ask again at once
//! without end; a stop ends the running apply orderly and claims nothing more. The server's clock decides leases: the
//! worker only measures how long it has had one.
//!
//! Events come by a watch, or by long polls where a watch does not work. Several slots are applied at once, each by one
//! call at a time. All claims are renewed by one call. Drift is looked for at the start and from time to time. What is
//! kept over a restart (the token, the cursor, upgrades under way) is a convenience: nothing is lost without it.
//!
//! Deliberately absent: what a data plane looks like (a [`Target`] knows), how a release is installed (its [`Upgrader`]
//! does), and any copy of configurations: they go from the server to the target.
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
mod doctor;
mod failure;
mod inbox;
mod intake;
mod keeper;
mod leases;
mod metrics;
mod monitor;
mod policy;
mod renewal;
mod report;
mod run;
mod slot;
mod state;
mod sweep;
mod target;
mod tls;
mod token;
mod upgrade;
mod upgrading;
mod worker;

pub use config::{WorkerConfig, default_worker_id};
pub use dir::{DirTarget, OpenError};
pub use doctor::Doctor;
pub use monitor::Monitor;
pub use policy::UpgradePolicy;
pub use report::{RejectedResource, Report};
pub use slot::Slot;
pub use target::{Applied, Rejected, Target};
pub use tls::ClientTls;
pub use token::Token;
pub use upgrade::{Upgrade, UpgradeState, Upgrader};
pub use worker::Worker;
