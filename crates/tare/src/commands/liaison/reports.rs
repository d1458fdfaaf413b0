//! What a worker reports, for people and for programs.

use std::io::Write;
use std::time::Duration;

use agentrouter_kernel::{Clock, SystemClock};
use agentrouter_liaison::Report;
use serde::Serialize;

use crate::Output;
use crate::text::plain;

/// A report as a program reads it.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    #[serde(flatten)]
    report: &'a Report,
}

/// Logs reports, and prints them as JSON lines where that is wanted.
pub(super) fn printer(output: Output) -> impl Fn(&Report) + Send + Sync + 'static {
    move |report| {
        log(report);
        if output == Output::Json {
            let line = Line { time: SystemClock.now().to_string(), report };
            // The worker's job goes on when nobody listens any more.
            let _ = print(&line);
        }
    }
}

fn print(line: &Line<'_>) -> std::io::Result<()> {
    let mut text = serde_json::to_vec(line)?;
    text.push(b'\n');
    let mut stdout = std::io::stdout().lock();
    stdout.write_all(&text)?;
    stdout.flush()
}

fn log(report: &Report) {
    match report {
        Report::Connected => tracing::info!("connected"),
        Report::Applied { event_id, slot, version, deleted, latency, rejected } => {
            let latency_ms = latency.map(millis);
            let what = if *deleted { "removed" } else { "applied" };
            tracing::info!(%slot, version, latency_ms, event_id, "{what}");
            for resource in rejected {
                let (name, why) = (plain(&resource.resource), plain(&resource.reason));
                tracing::warn!(%slot, version, event_id, "applied without {name}: {why}");
            }
        }
        Report::Failed { event_id, slot, version, attempt, message, permanent } => {
            tracing::error!(%slot, version, attempt, permanent, event_id, "not applied: {}", plain(message));
        }
        Report::NotClaimed { event_id, slot, holder } if holder.is_empty() => {
            tracing::info!(%slot, event_id, "passed over: the event is not pending any more");
        }
        Report::NotClaimed { event_id, slot, holder } => {
            tracing::info!(%slot, event_id, "passed over: {} holds the event", plain(holder));
        }
        Report::Stale { event_id, slot, message } => {
            tracing::warn!(%slot, event_id, "too late: {}", plain(message));
        }
        Report::Released { event_id, slot } => {
            tracing::info!(%slot, event_id, "given back: the worker stops");
        }
        Report::Drifted { full_sync, replayed } => {
            tracing::warn!(full_sync, replayed, "the data plane had drifted, and is brought back");
        }
        Report::TokenRenewed => tracing::info!("the token was renewed"),
        Report::Upgrade { event_id, phase, message } => {
            tracing::info!(phase, event_id, "upgrade: {}", plain(message));
        }
        Report::Unreachable { code, message, retry_in } => {
            let retry_in_ms = millis(*retry_in);
            tracing::warn!(code, retry_in_ms, "the server is not available: {}", plain(message));
        }
        Report::Refused { code, reason, message, retry_in } => {
            let retry_in_ms = millis(*retry_in);
            tracing::error!(code, reason, retry_in_ms, "the worker cannot work: {}", plain(message));
        }
        Report::Stopped => tracing::info!("stopped"),
        // A report of a newer library, which has its own words in JSON.
        _ => tracing::info!(?report, "report"),
    }
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_carry_the_time_and_the_report() {
        let line = Line { time: "2026-01-31T08:00:00.000000Z".to_owned(), report: &Report::Connected };
        let text = serde_json::to_string(&line).expect("it is JSON");
        assert_eq!(text, r#"{"time":"2026-01-31T08:00:00.000000Z","type":"connected"}"#);
    }
}
