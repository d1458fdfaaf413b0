//! What workers were told about events.

use std::collections::{BTreeMap, BTreeSet};

/// A claim, as its winner was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Winner {
    pub(crate) worker: String,
    pub(crate) token: String,
}

/// What all workers were told.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    /// Who won, by event and attempt.
    pub(crate) claims: BTreeMap<(String, i32), Winner>,
    /// The attempt that applied an event.
    pub(crate) applied: BTreeMap<String, i32>,
    /// Attempts that were reported as failed.
    pub(crate) failed: Vec<(String, i32)>,
    /// Claims of an event that may have used an attempt without anybody being told.
    pub(crate) unanswered: BTreeMap<String, i32>,
    /// Attempts that may have applied their event without anybody being told.
    pub(crate) unsure: BTreeSet<(String, i32)>,
    /// Late completions, of claims that had ended.
    pub(crate) stale: u32,
}

impl Ledger {
    /// A worker was told that it holds an event. Nobody else may have been told so of the same attempt.
    pub(crate) fn claimed(&mut self, event: &str, attempt: i32, winner: &Winner) {
        let first = self.claims.entry((event.to_owned(), attempt)).or_insert_with(|| winner.clone());
        assert_eq!(first, winner, "two winners of attempt {attempt} of {event}");
    }

    /// A worker was told that its completion counts.
    pub(crate) fn completed(&mut self, event: &str, attempt: i32, success: bool) {
        if success {
            let first = self.applied.entry(event.to_owned()).or_insert(attempt);
            assert_eq!(*first, attempt, "{event} was applied twice");
        } else {
            self.failed.push((event.to_owned(), attempt));
        }
    }

    /// Claims of an event were never answered, and may have run out.
    pub(crate) fn unanswered(&mut self, event: &str, claims: i32) {
        *self.unanswered.entry(event.to_owned()).or_default() += claims;
    }

    /// The attempts that somebody was told to have won.
    pub(crate) fn attempts(&self, event: &str) -> Vec<i32> {
        let range = (event.to_owned(), 0)..=(event.to_owned(), i32::MAX);
        self.claims.range(range).map(|((_, attempt), _)| *attempt).collect()
    }
}
