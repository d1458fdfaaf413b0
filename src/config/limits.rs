//! The limits of the server's edge: how much, how long and how often.

use std::ops::RangeInclusive;
use std::time::Duration;

use agentrouter_edge::{BodyPace, HeadLimits};
use agentrouter_listener::{Limits, MaxAge};
use agentrouter_rpc::{CallLimits, Rate, Rates};
use anyhow::{Result, bail};
use clap::Args;
use serde::Deserialize;

/// Settings that are numbers, each with its flag, its variable, what it may be, what it is by default, and what it is.
macro_rules! numbers {
    (
        $(#[$about:meta])* $name:ident, $heading:literal, $table:literal,
        $($field:ident: $flag:literal, $variable:literal, $range:expr, $default:literal, $help:literal;)*
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone, Default, Args, Deserialize)]
        #[command(next_help_heading = $heading)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name {
            $(
                #[arg(
                    id = $flag,
                    long = $flag,
                    env = $variable,
                    value_name = "N",
                    help = concat!($help, " [default: ", $default, "]")
                )]
                pub $field: Option<u64>,
            )*
        }

        impl $name {
            /// What is given here, else there.
            pub(super) fn or(&self, file: &Self) -> Self {
                Self { $($field: self.$field.or(file.$field),)* }
            }

            /// Refuses what is out of bounds.
            fn check(&self) -> Result<()> {
                $(
                    let setting = concat!($variable, " (", $table, ".", stringify!($field), ")");
                    check(setting, self.$field, $range)?;
                )*
                Ok(())
            }
        }

        #[cfg(test)]
        impl $name {
            /// Flag, variable, key in the file and default of each.
            const TOLD: &[[&str; 4]] = &[
                $([$flag, $variable, concat!($table, ".", stringify!($field)), stringify!($default)],)*
            ];
        }
    };
}

const COUNT: RangeInclusive<u64> = 1..=1_000_000_000;
const BYTES: RangeInclusive<u64> = 1024..=1 << 30;
/// What HTTP/2 can say of a window.
const WINDOW: RangeInclusive<u64> = 65_535..=(1 << 31) - 1;
const SECONDS: RangeInclusive<u64> = 1..=86_400;
/// The same for what can be off.
const OPTIONAL: RangeInclusive<u64> = 0..=31_536_000;

numbers! {
    /// What connections, requests and calls may cost.
    LimitArgs, "Limits", "limits",
    connections: "limit-connections", "AGENTROUTER_LIMIT_CONNECTIONS", COUNT, 20_000,
        "Connections at once; more wait until one ends";
    handshakes: "limit-handshakes", "AGENTROUTER_LIMIT_HANDSHAKES", COUNT, 256, "TLS handshakes at once";
    handshake_seconds: "limit-handshake-seconds", "AGENTROUTER_LIMIT_HANDSHAKE_SECONDS", SECONDS, 10,
        "How long a TLS handshake may take";
    head_seconds: "limit-head-seconds", "AGENTROUTER_LIMIT_HEAD_SECONDS", SECONDS, 120,
        "How long the head of a request may take, and a connection of HTTP/1.1 be idle";
    head_bytes: "limit-head-bytes", "AGENTROUTER_LIMIT_HEAD_BYTES", BYTES, 32_768,
        "Bytes of a request's header fields";
    head_fields: "limit-head-fields", "AGENTROUTER_LIMIT_HEAD_FIELDS", 1..=10_000, 100,
        "Header fields of a request";
    uri_bytes: "limit-uri-bytes", "AGENTROUTER_LIMIT_URI_BYTES", 64..=65_534, 8192, "Bytes of path and query";
    body_idle_seconds: "limit-body-idle-seconds", "AGENTROUTER_LIMIT_BODY_IDLE_SECONDS", SECONDS, 15,
        "The longest pause in a request body";
    body_grace_seconds: "limit-body-grace-seconds", "AGENTROUTER_LIMIT_BODY_GRACE_SECONDS", SECONDS, 30,
        "How long a request body is waited for in all, besides what its bytes earn";
    body_bytes_per_second: "limit-body-bytes-per-second", "AGENTROUTER_LIMIT_BODY_BYTES_PER_SECOND", COUNT, 1024,
        "Bytes of a request body that earn it another second";
    stalled_write_seconds: "limit-stalled-write-seconds", "AGENTROUTER_LIMIT_STALLED_WRITE_SECONDS", SECONDS, 60,
        "How long a client may not read what is sent to it";
    http2_streams: "limit-http2-streams", "AGENTROUTER_LIMIT_HTTP2_STREAMS", 1..=1_000_000, 200,
        "Requests at once on a connection of HTTP/2";
    http2_pending_resets: "limit-http2-pending-resets", "AGENTROUTER_LIMIT_HTTP2_PENDING_RESETS", COUNT, 20,
        "Streams that a client may reset before the server has seen them";
    http2_error_resets: "limit-http2-error-resets", "AGENTROUTER_LIMIT_HTTP2_ERROR_RESETS", COUNT, 1024,
        "Streams that the server resets for a client's mistakes before it ends the connection";
    http2_stream_window_bytes: "limit-http2-stream-window-bytes", "AGENTROUTER_LIMIT_HTTP2_STREAM_WINDOW_BYTES",
        WINDOW, 1_048_576, "Bytes on their way to the server on one stream";
    http2_connection_window_bytes: "limit-http2-connection-window-bytes",
        "AGENTROUTER_LIMIT_HTTP2_CONNECTION_WINDOW_BYTES", WINDOW, 1_048_576,
        "Bytes on their way to the server on one connection";
    http2_ping_seconds: "limit-http2-ping-seconds", "AGENTROUTER_LIMIT_HTTP2_PING_SECONDS", OPTIONAL, 30,
        "After how much silence a connection of HTTP/2 is asked whether it is there; 0 for never";
    http2_ping_timeout_seconds: "limit-http2-ping-timeout-seconds",
        "AGENTROUTER_LIMIT_HTTP2_PING_TIMEOUT_SECONDS", SECONDS, 20, "How long it may take to answer";
    connection_age_seconds: "limit-connection-age-seconds", "AGENTROUTER_LIMIT_CONNECTION_AGE_SECONDS", OPTIONAL, 0,
        "When a connection is told to go, a tenth more or less; 0 for never";
    connection_grace_seconds: "limit-connection-grace-seconds", "AGENTROUTER_LIMIT_CONNECTION_GRACE_SECONDS",
        OPTIONAL, 60, "How long its calls may go on then";
    calls: "limit-calls", "AGENTROUTER_LIMIT_CALLS", COUNT, 2048, "Calls under way at once";
    calls_in_line: "limit-calls-in-line", "AGENTROUTER_LIMIT_CALLS_IN_LINE", 0..=1_000_000_000, 20_000,
        "More calls that may wait for their turn";
    line_milliseconds: "limit-line-milliseconds", "AGENTROUTER_LIMIT_LINE_MILLISECONDS", 0..=60_000, 3000,
        "How long they wait";
    waits: "limit-waits", "AGENTROUTER_LIMIT_WAITS", COUNT, 100_000, "Long polls and streams at once";
}

numbers! {
    /// How often callers may call.
    RateArgs, "Rates", "rates",
    calls_per_second: "rate-calls-per-second", "AGENTROUTER_RATE_CALLS_PER_SECOND", 0..=1_000_000, 0,
        "Calls of one credential in a second; 0 for any number";
    calls_burst: "rate-calls-burst", "AGENTROUTER_RATE_CALLS_BURST", 0..=1_000_000, 0,
        "Calls of one credential at once, after a rest; 0 for those of a second";
    failures_per_minute: "rate-failures-per-minute", "AGENTROUTER_RATE_FAILURES_PER_MINUTE", 0..=1_000_000, 0,
        "Calls of one address without a valid credential in a minute; 0 for any number";
}

fn check(setting: &str, value: Option<u64>, range: RangeInclusive<u64>) -> Result<()> {
    match value {
        Some(value) if !range.contains(&value) => {
            bail!("{setting} must be from {} to {}, not {value}", range.start(), range.end())
        }
        _ => Ok(()),
    }
}

fn count(value: Option<u64>, default: usize) -> usize {
    value.map_or(default, |value| usize::try_from(value).unwrap_or(usize::MAX))
}

fn small(value: Option<u64>, default: u32) -> u32 {
    value.map_or(default, |value| u32::try_from(value).unwrap_or(u32::MAX))
}

fn seconds(value: Option<u64>, default: Duration) -> Duration {
    value.map_or(default, Duration::from_secs)
}

impl LimitArgs {
    pub(super) fn of_connections(&self) -> Result<Limits> {
        self.check()?;
        let default = Limits::default();
        let ping = self.http2_ping_seconds.map(Duration::from_secs).or(default.ping_interval);
        let age = Duration::from_secs(self.connection_age_seconds.unwrap_or(0));
        let grace = Duration::from_secs(self.connection_grace_seconds.unwrap_or(60));
        Ok(Limits {
            connections: count(self.connections, default.connections),
            handshakes: count(self.handshakes, default.handshakes),
            handshake: seconds(self.handshake_seconds, default.handshake),
            head: seconds(self.head_seconds, default.head),
            head_bytes: small(self.head_bytes, default.head_bytes),
            head_fields: count(self.head_fields, default.head_fields),
            stalled_write: seconds(self.stalled_write_seconds, default.stalled_write),
            streams: small(self.http2_streams, default.streams),
            pending_resets: count(self.http2_pending_resets, default.pending_resets),
            error_resets: count(self.http2_error_resets, default.error_resets),
            stream_window: small(self.http2_stream_window_bytes, default.stream_window),
            connection_window: small(self.http2_connection_window_bytes, default.connection_window),
            ping_interval: ping.filter(|interval| !interval.is_zero()),
            ping_timeout: seconds(self.http2_ping_timeout_seconds, default.ping_timeout),
            age: (!age.is_zero()).then_some(MaxAge { age, grace }),
        })
    }

    pub(super) fn of_heads(&self) -> HeadLimits {
        let default = HeadLimits::default();
        HeadLimits {
            uri_bytes: count(self.uri_bytes, default.uri_bytes),
            fields: count(self.head_fields, default.fields),
        }
    }

    pub(super) fn of_bodies(&self) -> BodyPace {
        let default = BodyPace::default();
        BodyPace {
            idle: seconds(self.body_idle_seconds, default.idle),
            grace: seconds(self.body_grace_seconds, default.grace),
            bytes_per_second: small(self.body_bytes_per_second, default.bytes_per_second),
        }
    }

    pub(super) fn of_calls(&self) -> CallLimits {
        let default = CallLimits::default();
        CallLimits {
            calls: count(self.calls, default.calls),
            line: count(self.calls_in_line, default.line),
            patience: self.line_milliseconds.map_or(default.patience, Duration::from_millis),
            waits: count(self.waits, default.waits),
        }
    }
}

impl RateArgs {
    pub(super) fn rates(&self) -> Result<Rates> {
        self.check()?;
        let rate = |times: Option<u64>, burst: Option<u64>, per| {
            let times = small(times, 0);
            let burst = Some(small(burst, 0)).filter(|burst| *burst > 0).unwrap_or(times);
            (times > 0).then_some(Rate { times, per, burst })
        };
        Ok(Rates {
            calls: rate(self.calls_per_second, self.calls_burst, Duration::from_secs(1)),
            failures: rate(self.failures_per_minute, None, Duration::from_mins(1)),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is told of the defaults, by the setting's key.
    fn told(key: &str) -> u64 {
        let setting = LimitArgs::TOLD.iter().find(|setting| setting[2] == key).expect("a setting");
        setting[3].replace('_', "").parse().expect("a number")
    }

    #[test]
    fn defaults_are_what_is_told() {
        let every = LimitArgs {
            connections: Some(told("limits.connections")),
            handshakes: Some(told("limits.handshakes")),
            handshake_seconds: Some(told("limits.handshake_seconds")),
            head_seconds: Some(told("limits.head_seconds")),
            head_bytes: Some(told("limits.head_bytes")),
            head_fields: Some(told("limits.head_fields")),
            uri_bytes: Some(told("limits.uri_bytes")),
            body_idle_seconds: Some(told("limits.body_idle_seconds")),
            body_grace_seconds: Some(told("limits.body_grace_seconds")),
            body_bytes_per_second: Some(told("limits.body_bytes_per_second")),
            stalled_write_seconds: Some(told("limits.stalled_write_seconds")),
            http2_streams: Some(told("limits.http2_streams")),
            http2_pending_resets: Some(told("limits.http2_pending_resets")),
            http2_error_resets: Some(told("limits.http2_error_resets")),
            http2_stream_window_bytes: Some(told("limits.http2_stream_window_bytes")),
            http2_connection_window_bytes: Some(told("limits.http2_connection_window_bytes")),
            http2_ping_seconds: Some(told("limits.http2_ping_seconds")),
            http2_ping_timeout_seconds: Some(told("limits.http2_ping_timeout_seconds")),
            connection_age_seconds: Some(told("limits.connection_age_seconds")),
            connection_grace_seconds: Some(told("limits.connection_grace_seconds")),
            calls: Some(told("limits.calls")),
            calls_in_line: Some(told("limits.calls_in_line")),
            line_milliseconds: Some(told("limits.line_milliseconds")),
            waits: Some(told("limits.waits")),
        };
        let none = LimitArgs::default();
        let all = |args: &LimitArgs| {
            let connections = args.of_connections().expect("within bounds");
            format!("{connections:?} {:?} {:?} {:?}", args.of_heads(), args.of_bodies(), args.of_calls())
        };
        assert_eq!(all(&every), all(&none));
    }

    #[test]
    fn every_setting_is_in_the_documentation() {
        let page = include_str!("../../docs/limits.md");
        for [flag, variable, key, default] in LimitArgs::TOLD.iter().chain(RateArgs::TOLD) {
            let default = default.replace('_', "");
            let key = key.split_once('.').expect("a table").1;
            let row = format!("| `{key}` | {default} |");
            assert!(page.contains(&row), "docs/limits.md has no row that begins with: {row}");
            // Both follow from the key, which is what the page says of them.
            let name = variable.trim_start_matches("AGENTROUTER_").to_lowercase();
            assert_eq!(name.replace('_', "-"), **flag);
            assert!(name.ends_with(key), "{name} {key}");
        }
    }

    #[test]
    fn rates_are_off_unless_asked_for() {
        assert!(
            RateArgs::default().rates().is_ok_and(|rates| rates.calls.is_none() && rates.failures.is_none())
        );
        let args =
            RateArgs { calls_per_second: Some(5), failures_per_minute: Some(9), ..RateArgs::default() };
        let rates = args.rates().expect("within bounds");
        assert_eq!(rates.calls, Some(Rate { times: 5, per: Duration::from_secs(1), burst: 5 }));
        assert_eq!(rates.failures, Some(Rate { times: 9, per: Duration::from_mins(1), burst: 9 }));
        let args = RateArgs { calls_burst: Some(50), ..args };
        assert_eq!(args.rates().expect("within bounds").calls.map(|rate| rate.burst), Some(50));
    }

    #[test]
    fn what_is_out_of_bounds_is_named() {
        let args = LimitArgs { http2_stream_window_bytes: Some(1), ..LimitArgs::default() };
        let error = args.of_connections().map(drop).expect_err("it is too small").to_string();
        assert!(
            error.starts_with(
                "AGENTROUTER_LIMIT_HTTP2_STREAM_WINDOW_BYTES (limits.http2_stream_window_bytes) "
            ),
            "{error}"
        );
    }
}
