//! Printing: a line per figure, its verdict below, and a table of all verdicts at the end.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use crate::bars::{Bar, Limit};
use crate::stats::digits;

/// Prints figures and keeps what became of the bars.
#[derive(Debug)]
pub(crate) struct Report {
    /// Sizes are small: the figures say that everything runs, and nothing about how fast.
    quick: bool,
    started: Instant,
    verdicts: Mutex<Vec<String>>,
}

impl Report {
    pub(crate) fn new(quick: bool) -> Self {
        Self { quick, started: Instant::now(), verdicts: Mutex::default() }
    }

    /// Prints a figure.
    pub(crate) fn line(&self, measure: &str, engine: &str, text: impl fmt::Display) {
        let on = if engine.is_empty() { "" } else { " on " };
        println!("[{:>4} s] {measure}{on}{engine}: {text}", self.started.elapsed().as_secs());
    }

    /// Prints a figure beside its bar.
    pub(crate) fn judge(&self, bar: &Bar, engine: &str, value: f64) {
        let (sign, limit) = match bar.limit {
            Limit::AtLeast(limit) => (">=", limit),
            Limit::AtMost(limit) => ("<=", limit),
        };
        let word = if bar.engine.is_some_and(|wanted| name(wanted) != engine) {
            "set for the other engine"
        } else if self.quick {
            "not judged at this size"
        } else if bar.limit.holds(value) {
            "holds"
        } else {
            "MISSED"
        };
        let unit = bar.unit;
        let (value, limit) = (digits(value), digits(limit));
        let anchor = if bar.anchor.is_empty() { "none" } else { bar.anchor };
        println!("         {}: {value}{unit}; bar {sign} {limit}{unit}: {word}; anchor: {anchor}", bar.what);
        let row =
            format!("{word:<24} {engine:<10} {:<58} {value}{unit} (bar {sign} {limit}{unit})", bar.what);
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    /// Prints what could not be measured, and goes on.
    pub(crate) fn failure(&self, measure: &str, engine: &str, error: &anyhow::Error) {
        self.line(measure, engine, format_args!("NOT MEASURED: {error:#}"));
        let row = format!("{:<24} {engine:<10} {measure}", "NOT MEASURED");
        self.verdicts.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    /// Prints all verdicts.
    pub(crate) fn summary(&self) {
        let verdicts = self.verdicts.lock().unwrap_or_else(PoisonError::into_inner);
        println!("\nall bars, after {} s:", self.started.elapsed().as_secs());
        for verdict in verdicts.iter() {
            println!("  {verdict}");
        }
    }
}

/// What an engine is called.
pub(crate) fn name(engine: agentrouter_storage::Engine) -> &'static str {
    match engine {
        agentrouter_storage::Engine::Sqlite => "SQLite",
        agentrouter_storage::Engine::Postgres => "PostgreSQL",
    }
}
