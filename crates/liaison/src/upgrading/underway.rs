//! What this worker does about upgrades right now: an upgrade and its cancel are worked on side by side.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The upgrades that are worked on here, and those that were cancelled here.
#[derive(Debug, Default)]
pub(crate) struct Underway(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    active: HashSet<String>,
    /// Kept for as long as the worker runs: an upgrade may be claimed after its cancel is done with. They are few.
    cancelled: HashSet<String>,
}

/// An upgrade that is worked on.
#[derive(Debug)]
pub(super) struct Active<'a> {
    underway: &'a Underway,
    id: &'a str,
}

impl Underway {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn begin<'a>(&'a self, id: &'a str) -> Active<'a> {
        self.state().active.insert(id.to_owned());
        Active { underway: self, id }
    }

    pub(super) fn is_active(&self, id: &str) -> bool {
        self.state().active.contains(id)
    }

    pub(super) fn cancel(&self, id: &str) {
        self.state().cancelled.insert(id.to_owned());
    }

    /// The data plane does not cancel it.
    pub(super) fn uncancel(&self, id: &str) {
        self.state().cancelled.remove(id);
    }

    pub(super) fn is_cancelled(&self, id: &str) -> bool {
        self.state().cancelled.contains(id)
    }
}

impl Drop for Active<'_> {
    fn drop(&mut self) {
        self.underway.state().active.remove(self.id);
    }
}
