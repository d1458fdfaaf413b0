//! What a worker applies configurations to.

use std::fmt;

use agentrouter_api::configurator::{Configuration, ObservedSlot, ResourceResult};
use async_trait::async_trait;

use crate::upgrade::Upgrader;

/// The longest message the server keeps, in bytes.
const MESSAGE_MAX: usize = 4096;

/// A data plane, as far as the worker knows it.
#[async_trait]
pub trait Target: Send + Sync + fmt::Debug {
    /// Makes the data plane run a configuration, tombstones included, and tells what it runs then. It may be called
    /// again with what it holds already, and with something older, which it must not go back to. The worker calls it
    /// for several slots at once, so that a target can make one change of many, but never twice at once for one
    /// slot, and it never drops the call half-way.
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected>;

    /// What the data plane runs of every slot, ordered by slot: what a drift sweep reports. None where the target
    /// cannot tell, and the server's own record has to do.
    ///
    /// # Errors
    /// [`Rejected`] where it cannot tell just now.
    async fn observed(&self) -> Result<Option<Vec<ObservedSlot>>, Rejected> {
        Ok(None)
    }

    /// Upgrades of the data plane; none where this target cannot upgrade what it configures.
    fn upgrader(&self) -> Option<&dyn Upgrader> {
        None
    }
}

/// What the data plane runs of a slot.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Applied {
    /// The version.
    pub version: i64,
    /// Its checksum.
    pub checksum: String,
    /// What became of each resource of the slot, where not all of it runs: the good part is applied all the same,
    /// and of what was rejected the last good state is kept. Empty where everything runs.
    pub resources: Vec<ResourceResult>,
}

/// Why the data plane does not run a configuration. The message reaches the people who run the management plane, so
/// it holds no secrets and no paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    message: String,
    permanent: bool,
}

impl Rejected {
    /// The content is at fault: trying it again is useless.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self { message: bounded(message.into()), permanent: true }
    }

    /// The circumstances are at fault.
    pub fn transient(message: impl Into<String>) -> Self {
        Self { message: bounded(message.into()), permanent: false }
    }

    /// Why, in at most 4096 bytes.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Whether trying again is useless.
    pub fn is_permanent(&self) -> bool {
        self.permanent
    }
}

impl fmt::Display for Rejected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Rejected {}

fn bounded(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MESSAGE_MAX));
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(Rejected::permanent("é".repeat(3000)).message().len(), MESSAGE_MAX);
        assert_eq!(Rejected::transient(format!("x{}", "é".repeat(3000))).message().len(), MESSAGE_MAX - 1);
        assert_eq!(Rejected::transient("short").message(), "short");
    }
}
