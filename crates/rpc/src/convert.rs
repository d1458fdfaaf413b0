//! Conversions between wire types and the kernel's that every service needs.

use std::time::Duration;

use agentrouter_kernel::{Timestamp, Violations};

/// A stored time on the wire.
pub fn timestamp(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_secs(), nanos: time.subsec_nanos() }
}

/// A time from the wire, cut to microseconds; a violation where it is out of range.
pub fn from_timestamp(field: &str, time: prost_types::Timestamp, violations: &mut Violations) -> Timestamp {
    let in_range = (0..1_000_000_000).contains(&time.nanos)
        && (-62_135_596_800..=253_402_300_799).contains(&time.seconds);
    violations.require(in_range, field, "must be a time from year 1 to 9999");
    Timestamp::from_micros(
        time.seconds.saturating_mul(1_000_000).saturating_add(i64::from(time.nanos) / 1_000),
    )
}

/// A length of time from the wire, or `default`; a violation where it is outside `min..=max`.
pub fn duration(
    field: &str,
    value: Option<prost_types::Duration>,
    default: Duration,
    (min, max): (Duration, Duration),
    violations: &mut Violations,
) -> Duration {
    let Some(value) = value else { return default };
    match Duration::try_from(value) {
        Ok(length) if (min..=max).contains(&length) => length,
        _ => {
            violations.add(field, format!("must be from {} s to {} s", min.as_secs(), max.as_secs()));
            default
        }
    }
}

/// The paths of a field mask; an empty mask is as good as none.
pub fn mask_paths(mask: Option<prost_types::FieldMask>) -> Option<Vec<String>> {
    mask.map(|mask| mask.paths).filter(|paths| !paths.is_empty())
}

/// The etag of a revision.
pub fn etag(revision: i64) -> String {
    format!("r{revision}")
}

/// The revision that an etag stands for: none where the request has no etag. An etag that was never given out
/// stands for a revision that no row has.
pub fn expected_revision(etag: &str) -> Option<i64> {
    (!etag.is_empty()).then(|| etag.strip_prefix('r').and_then(|digits| digits.parse().ok()).unwrap_or(-1))
}
