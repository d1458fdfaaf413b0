//! Logs: for people on a terminal, JSON lines otherwise.

use std::io::IsTerminal;

use anyhow::{Context, Result};
use tracing_subscriber::EnvFilter;

/// Starts logging to standard error.
///
/// # Errors
/// Names the setting where the filter cannot be read.
pub fn start(filter: &str) -> Result<()> {
    let filter = EnvFilter::try_new(filter).context("AGENTROUTER_LOG (log)")?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.with_target(false).try_init()
    } else {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    }
    .map_err(|error| anyhow::anyhow!("logging: {error}"))
}
