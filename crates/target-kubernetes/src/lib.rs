//! A namespace of a Kubernetes cluster as the data plane of a worker.
//!
//! Owns what of the cluster the worker touches: the objects that Agent Router reads, by server-side apply, and their
//! removal; the record of what was asked for and applied; the jobs that upgrade the data plane; a look at its doctor.
//!
//! Invariants: an object that this target did not make is neither changed nor removed; what is recorded as applied was
//! applied; the cluster is the only memory, so that a worker may start anew at any time, and several may run; a part
//! that is refused stays in its last good state, and the others go on.
//!
//! Deliberately absent: watches (what was changed by hand is found when the worker reports what it holds), objects of
//! the whole cluster, and Helm itself, which runs in a job with rights of its own.

mod batch;
mod candidate;
mod cluster;
mod content;
mod doctor;
mod object;
mod options;
mod pass;
mod state;
mod target;
mod upgrade;

pub use doctor::KubernetesDoctor;
pub use options::{Access, ConnectError, KubernetesOptions};
pub use target::KubernetesTarget;
pub use upgrade::{KubernetesUpgrader, Registry, UpgradeOptions};
