//! How long a caller waits. A call is given up when its caller has given it up.

use std::time::Duration;

use agentrouter_kernel::{Fault, FaultKind};
use http::HeaderMap;
use tokio::time::Instant;

/// How callers say for how long they wait.
const TIMEOUT: &str = "grpc-timeout";
/// Longer than anybody waits, and far from where times overflow.
const LONGEST: Duration = Duration::from_hours(24 * 365);

/// When the caller gives the call up; none where it waits for as long as it takes.
///
/// # Errors
/// INVALID_ARGUMENT for what is no time: at most eight digits and a unit.
pub(crate) fn of(headers: &HeaderMap) -> Result<Option<Instant>, Fault> {
    let mut values = headers.get_all(TIMEOUT).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let timeout = value.to_str().ok().and_then(parse).filter(|_| values.next().is_none());
    let timeout = timeout.ok_or_else(|| {
        Fault::invalid_field(TIMEOUT, "must be up to eight digits and one of the units H, M, S, m, u, n")
    })?;
    Ok(Some(Instant::now() + timeout.min(LONGEST)))
}

pub(crate) fn exceeded() -> Fault {
    Fault::new(FaultKind::DeadlineExceeded, "DEADLINE_EXCEEDED", "the call took longer than its caller waits")
}

fn parse(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let amount: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A7 #86: what is no time is refused, and no time is too long.
    #[test]
    fn timeouts_are_read_strictly() {
        for (text, expected) in [
            ("500m", Some(Duration::from_millis(500))),
            ("0n", Some(Duration::ZERO)),
            ("7u", Some(Duration::from_micros(7))),
            ("2M", Some(Duration::from_mins(2))),
            ("99999999H", Some(Duration::from_hours(99_999_999))),
            ("", None),
            ("S", None),
            ("5", None),
            ("100000000m", None),
            ("-1S", None),
            ("1.5S", None),
            ("1s", None),
            ("5µ", None),
        ] {
            assert_eq!(parse(text), expected, "{text}");
            let headers =
                HeaderMap::from_iter([(TIMEOUT.parse().expect("a name"), text.parse().expect("a value"))]);
            assert_eq!(of(&headers).is_ok_and(|deadline| deadline.is_some()), expected.is_some(), "{text}");
        }
        assert_eq!(of(&HeaderMap::new()).expect("none is none"), None);
    }
}
