//! Medians and percentiles.

use std::fmt;
use std::time::Duration;

/// Durations, in milliseconds.
#[derive(Debug)]
pub(crate) struct Millis(Vec<f64>);

impl Millis {
    pub(crate) fn new(durations: impl IntoIterator<Item = Duration>) -> Self {
        let mut millis: Vec<f64> =
            durations.into_iter().map(|duration| duration.as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        Self(millis)
    }

    pub(crate) fn p50(&self) -> f64 {
        self.at(50)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.at(99)
    }

    pub(crate) fn max(&self) -> f64 {
        self.0.last().copied().unwrap_or_default()
    }

    fn at(&self, percent: usize) -> f64 {
        let index = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(index).copied().unwrap_or_default()
    }
}

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "p50 {} ms, p99 {} ms, max {} ms (n = {})",
            digits(self.p50()),
            digits(self.p99()),
            digits(self.max()),
            self.0.len()
        )
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
        write!(f, "{} [{}..{}]", digits(self.median()), digits(low), digits(high))
    }
}

/// A figure with about three digits that mean something.
pub(crate) fn digits(figure: f64) -> String {
    match figure.abs() {
        size if size >= 100.0 || size == 0.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 1.0 => format!("{figure:.2}"),
        _ => format!("{figure:.4}"),
    }
}

/// A count as a figure. Counts here are far below what a float holds exactly.
#[expect(clippy::cast_precision_loss, reason = "no count here comes near 2^53")]
pub(crate) fn figure(count: impl TryInto<i64>) -> f64 {
    count.try_into().map_or(f64::INFINITY, |count| count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_figures() {
        let millis = Millis::new((1..=200).rev().map(Duration::from_millis));
        assert_eq!(
            (digits(millis.p50()), digits(millis.p99()), digits(millis.max())),
            ("101".into(), "199".into(), "200".into())
        );
        assert_eq!(Millis::new([]).to_string(), "p50 0 ms, p99 0 ms, max 0 ms (n = 0)");
    }

    #[test]
    fn rates_show_their_spread() {
        assert_eq!(Rates::new(vec![30.0, 10.0, 20.0]).to_string(), "20.0 [10.0..30.0]");
        assert_eq!(digits(0.123_456), "0.1235");
        assert_eq!(digits(figure(12_345_usize)), "12345");
    }
}
