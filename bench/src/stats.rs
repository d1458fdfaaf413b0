//! Medians and percentiles.

use std::fmt;
use std::time::Duration;

/// Durations of repeated runs, in milliseconds.
#[derive(Debug)]
pub(crate) struct Millis(Vec<f64>);

impl Millis {
    pub(crate) fn new(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut millis: Vec<f64> =
            durations.into_iter().map(|duration| duration.as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        Self(millis)
    }

    fn at(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "p50 {:.1} ms, p99 {:.1} ms, {} runs", self.at(50), self.at(99), self.0.len())
    }
}
