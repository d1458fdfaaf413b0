//! How the worker works, beyond what it works on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use agentrouter_liaison::{Monitor, UpgradePolicy, WorkerConfig};
use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::exit::Failure;

#[derive(Debug, clap::Args)]
pub(super) struct Options {
    /// A folder of the worker's own for what it keeps over a restart: the renewed token, its place in the watch, and
    /// upgrades under way.
    #[arg(long, value_name = "FOLDER")]
    state_dir: Option<PathBuf>,
    /// How often to look for drift, such as `90s`, `5m` or `1h`; 0 is never.
    #[arg(long, default_value = "5m", value_name = "LENGTH", value_parser = length)]
    sweep: Duration,
    /// Every how manieth look is a full sync; 0 is none.
    #[arg(long, default_value_t = 12, value_name = "N")]
    full_sync_every: u32,
    /// How many slots to apply at once.
    #[arg(long, default_value_t = 16, value_name = "N")]
    concurrency: usize,
    /// Ask for events by long polls only, where something between here and the server does not let streams through.
    #[arg(long)]
    no_watch: bool,
    /// How long a stop waits for what is being applied.
    #[arg(long, default_value = "30s", value_name = "LENGTH", value_parser = length)]
    stop_grace: Duration,
    /// A chart that upgrades may install, such as `oci://registry.example.com/charts/gateway`, at any version; with `/`
    /// at its end, everything below. May be repeated. Without it and --allow-registry no upgrade runs.
    #[arg(long, value_name = "CHART")]
    allow_chart: Vec<String>,
    /// A registry that upgrades may install from, such as `registry.example.com/team`. May be repeated.
    #[arg(long, value_name = "REGISTRY")]
    allow_registry: Vec<String>,
    /// Where to answer `/healthz` and `/metrics`, such as `127.0.0.1:9464`. Whoever reaches it may read them.
    #[arg(long, value_name = "ADDRESS")]
    pub(super) listen: Option<SocketAddr>,
}

impl Options {
    /// Puts them into the worker's configuration.
    pub(super) fn apply(&self, config: &mut WorkerConfig) {
        config.state_dir.clone_from(&self.state_dir);
        config.sweep_interval = self.sweep;
        config.full_sync_every = self.full_sync_every;
        config.concurrency = self.concurrency;
        config.watch = !self.no_watch;
        config.stop_grace = self.stop_grace;
        config.upgrades =
            UpgradePolicy { charts: self.allow_chart.clone(), registries: self.allow_registry.clone() };
    }
}

/// Answers probes and scrapes until the token fires.
pub(super) async fn serve(
    address: SocketAddr,
    monitor: Monitor,
    stop: CancellationToken,
) -> Result<JoinSet<()>, Failure> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}"))
        .map_err(Failure::other)?;
    tracing::info!(%address, "answers /healthz and /metrics");
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        if let Err(error) = monitor.serve(listener, stop).await {
            // The worker's job does not depend on it.
            tracing::error!(%error, "/healthz and /metrics are gone");
        }
    });
    Ok(serving)
}

/// Reads `90s`, `5m`, `1h`, or 0.
fn length(text: &str) -> Result<Duration, String> {
    let wrong = || "must be a number with s, m or h, such as 90s or 5m, or 0".to_owned();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let unit = text.chars().next_back().ok_or_else(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        _ => return Err(wrong()),
    };
    let number: u32 = text.strip_suffix(unit).and_then(|number| number.parse().ok()).ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_have_units() {
        for (text, seconds) in [("0", 0), ("0s", 0), ("90s", 90), ("5m", 300), ("2h", 7200)] {
            assert_eq!(length(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "5", "m", "5d", "-5m", "5 m", "5.5m", "5mm", "5µ"] {
            assert!(length(text).is_err(), "{text}");
        }
    }
}
