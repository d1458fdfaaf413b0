//! Times and lengths of time, as people read and write them.

use std::time::Duration;

use agentrouter_kernel::Timestamp;

/// A time of the API.
pub(crate) fn time(time: &prost_types::Timestamp) -> Timestamp {
    Timestamp::from_micros(
        time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos / 1_000)),
    )
}

/// How long ago, such as `3 min ago`; `never` where it was not.
pub(crate) fn ago(then: Option<&prost_types::Timestamp>, now: Timestamp) -> String {
    then.map_or_else(|| "never".to_owned(), |then| format!("{} ago", length(now.since(time(then)))))
}

/// A length of time in its largest unit.
pub(crate) fn length(length: Duration) -> String {
    match length.as_secs() {
        seconds @ 0..=119 => format!("{seconds} s"),
        seconds @ 120..=7_199 => format!("{} min", seconds / 60),
        seconds @ 7_200..=172_799 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

/// Milliseconds are enough for people.
pub(crate) fn clock(time: Timestamp) -> String {
    let text = time.to_string();
    match text.split_once('.') {
        Some((seconds, fraction)) => format!("{seconds}.{}Z", fraction.get(..3).unwrap_or(fraction)),
        None => text,
    }
}

/// Reads `90s`, `5m`, `1h` or a number of seconds.
pub(crate) fn parse_length(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 =
        digits.parse().map_err(|_| "must be a length of time such as 90s, 5m or 1h".to_owned())?;
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" | "s" => 1,
        "m" | "min" => 60,
        "h" => 3_600,
        _ => return Err("must be in s, m or h".to_owned()),
    };
    number.checked_mul(unit).map(Duration::from_secs).ok_or_else(|| "is too long".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths() {
        let all = [3, 119, 120, 7_199, 7_200, 172_799, 172_800].map(|s| length(Duration::from_secs(s)));
        assert_eq!(all, ["3 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 d"]);
        assert_eq!(parse_length("90"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_length("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_length("1h"), Ok(Duration::from_hours(1)));
        for wrong in ["", "s", "1d", "-1s", "1.5s", "99999999999999999999", "9999999999999999999h"] {
            assert!(parse_length(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times() {
        let then = prost_types::Timestamp { seconds: 1_769_846_400, nanos: 123_456_789 };
        assert_eq!(clock(time(&then)), "2026-01-31T08:00:00.123Z");
        assert_eq!(ago(Some(&then), Timestamp::from_secs(1_769_846_405)), "4 s ago");
        // The server's clock may be ahead of ours.
        assert_eq!(ago(Some(&then), Timestamp::from_secs(0)), "0 s ago");
        assert_eq!(ago(None, Timestamp::from_secs(0)), "never");
    }
}
