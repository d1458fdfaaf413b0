//! What a worker sees of the doctor job beside it.

use std::fmt;

use agentrouter_api::configurator::DoctorRuntime;
use async_trait::async_trait;

/// Looks at the doctor job from outside, because a broken one cannot report itself. The worker sends what it sees to
/// the management plane, at most once a minute.
#[async_trait]
pub trait Doctor: Send + Sync + fmt::Debug {
    /// What it looks like now; none where there is nothing to tell.
    async fn observe(&self) -> Option<DoctorRuntime>;
}
