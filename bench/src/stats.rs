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

/// One figure of each of several runs.
#[derive(Debug)]
pub(crate) struct Rates(Vec<f64>);

impl Rates {
    pub(crate) fn new(mut figures: Vec<f64>) -> Self {
        figures.sort_by(f64::total_cmp);
        Self(figures)
    }

    pub(crate) fn median(&self) -> f64 {
        self.0.get(self.0.len() / 2).copied().unwrap_or_default()
    }
}

impl fmt::Display for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (low, high) = (self.0.first(), self.0.last());
        let (low, high) = (low.copied().unwrap_or_default(), high.copied().unwrap_or_default());
        write!(f, "{:.0} [{low:.0}..{high:.0}]", self.median())
    }
}
