//! `google.protobuf.Timestamp` as text: RFC 3339 in the years 1 to 9999, as ProtoJSON narrows it.

use std::ops::RangeInclusive;

/// 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z.
const SECONDS: RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
const NANOS: RangeInclusive<i32> = 0..=999_999_999;

const DAY: i64 = 86_400;
/// From 0000-03-01, where a count of days begins that has the leap day at the end of its years, to 1970-01-01.
const EPOCH: i64 = 719_468;
/// Days in 400 years.
const ERA: i64 = 146_097;

/// Seconds since 1970 and nanoseconds. `T` and `Z` are in upper case, a fraction has at most nine digits; none where
/// the text is no such time. There are no leap seconds.
pub(crate) fn read(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let (date_time, rest) = bytes.split_first_chunk::<19>()?;
    let [y3, y2, y1, y0, b'-', o1, o0, b'-', d1, d0, b'T', h1, h0, b':', m1, m0, b':', s1, s0] = date_time
    else {
        return None;
    };
    let year = digits(&[*y3, *y2, *y1, *y0])?;
    let (month, day) = (digits(&[*o1, *o0])?, digits(&[*d1, *d0])?);
    let (hour, minute, second) = (digits(&[*h1, *h0])?, digits(&[*m1, *m0])?, digits(&[*s1, *s0])?);
    let is_date = (1..=12).contains(&month) && day >= 1 && day <= days_in(year, month);
    (is_date && hour < 24 && minute < 60 && second < 60).then_some(())?;

    let (nanos, zone) = match rest.split_first() {
        Some((b'.', fraction)) => {
            let end = fraction.iter().take_while(|byte| byte.is_ascii_digit()).count();
            let (fraction, zone) = fraction.split_at_checked(end)?;
            (1..=9).contains(&end).then_some(())?;
            let padding = 9 - u32::try_from(end).ok()?;
            (digits(fraction)? * 10_i64.pow(padding), zone)
        }
        _ => (0, rest),
    };
    let offset = match zone {
        b"Z" => 0,
        [sign @ (b'+' | b'-'), h1, h0, b':', m1, m0] => {
            let (hours, minutes) = (digits(&[*h1, *h0])?, digits(&[*m1, *m0])?);
            (hours < 24 && minutes < 60).then_some(())?;
            let offset = hours * 3600 + minutes * 60;
            if *sign == b'+' { offset } else { -offset }
        }
        _ => return None,
    };
    let seconds = days(year, month, day) * DAY + hour * 3600 + minute * 60 + second - offset;
    let nanos = i32::try_from(nanos).ok()?;
    SECONDS.contains(&seconds).then_some((seconds, nanos))
}

/// Appends the text, in UTC, with a fraction of no, three, six or nine digits. None where it is outside its years.
pub(crate) fn write(out: &mut Vec<u8>, seconds: i64, nanos: i32) -> Option<()> {
    (SECONDS.contains(&seconds) && NANOS.contains(&nanos)).then_some(())?;
    let (year, month, day) = date(seconds.div_euclid(DAY));
    let second = seconds.rem_euclid(DAY);
    put(out, year, 4);
    out.push(b'-');
    put(out, month, 2);
    out.push(b'-');
    put(out, day, 2);
    out.push(b'T');
    put(out, second / 3600, 2);
    out.push(b':');
    put(out, second / 60 % 60, 2);
    out.push(b':');
    put(out, second % 60, 2);
    if nanos > 0 {
        out.push(b'.');
        let nanos = i64::from(nanos);
        match (nanos % 1_000_000, nanos % 1000) {
            (0, _) => put(out, nanos / 1_000_000, 3),
            (_, 0) => put(out, nanos / 1000, 6),
            _ => put(out, nanos, 9),
        }
    }
    out.push(b'Z');
    Some(())
}

/// A number of so many digits.
fn put(out: &mut Vec<u8>, mut number: i64, digits: usize) {
    let start = out.len();
    out.resize(start + digits, b'0');
    for place in out.iter_mut().skip(start).rev() {
        *place += number.rem_euclid(10).to_le_bytes()[0];
        number /= 10;
    }
}

fn digits(text: &[u8]) -> Option<i64> {
    text.iter()
        .try_fold(0, |number, byte| byte.is_ascii_digit().then(|| number * 10 + i64::from(byte - b'0')))
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970 of a day of the Gregorian calendar.
fn days(year: i64, month: i64, day: i64) -> i64 {
    // Years that begin in March have their leap day at the end.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let (era, year) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * month + 2) / 5 + day - 1;
    era * ERA + year * 365 + year / 4 - year / 100 + of_year - EPOCH
}

/// The year, the month and the day that are so many days after 1970-01-01.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + EPOCH;
    let (era, of_era) = (days.div_euclid(ERA), days.rem_euclid(ERA));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year, if month < 10 { month + 3 } else { month - 9 });
    (if month <= 2 { year + 1 } else { year }, month, day)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost_types::Timestamp;

    use super::*;

    fn written(seconds: i64, nanos: i32) -> Option<String> {
        let mut out = Vec::new();
        write(&mut out, seconds, nanos)?;
        Some(String::from_utf8(out).expect("digits"))
    }

    /// A4 #64.
    #[test]
    fn rfc3339_is_read_strictly() {
        for (text, time) in [
            ("1970-01-01T00:00:00Z", (0, 0)),
            ("0001-01-01T00:00:00Z", (*SECONDS.start(), 0)),
            ("9999-12-31T23:59:59.999999999Z", (*SECONDS.end(), 999_999_999)),
            ("2024-02-29T12:00:00.5+01:30", (1_709_202_600, 500_000_000)),
            ("1969-12-31T23:59:59-00:00", (-1, 0)),
        ] {
            assert_eq!(read(text), Some(time), "{text}");
        }
        for text in [
            "2026-01-31t12:00:00Z",
            "2026-01-31T12:00:00z",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00.1234567890Z",
            "2026-01-31 12:00:00Z",
            "2026-01-31T12:00:00+0100",
            "2026-01-31T12:00:00+24:00",
            "2026-01-31T12:00Z",
            "2026-02-29T12:00:00Z",
            "2100-02-29T12:00:00Z",
            "2026-04-31T12:00:00Z",
            "2026-13-01T12:00:00Z",
            "2026-00-01T12:00:00Z",
            "2026-01-00T12:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T12:60:00Z",
            "2026-01-01T12:00:60Z",
            "0000-12-31T23:59:59Z",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
            "+026-01-31T12:00:00Z",
            "é026-01-31T12:00:00Z",
            "",
        ] {
            assert_eq!(read(text), None, "{text}");
        }
        assert_eq!(written(*SECONDS.end() + 1, 0), None);
        assert_eq!(written(0, -1), None);
    }

    proptest! {
        #[test]
        fn times_are_those_of_prost(seconds in SECONDS, nanos in NANOS, digits in 0_u32..4) {
            let nanos = nanos / 1000_i32.pow(digits.min(3)) * 1000_i32.pow(digits.min(3));
            let text = written(seconds, nanos).expect("in range");
            prop_assert_eq!(&text, &Timestamp { seconds, nanos }.to_string());
            prop_assert_eq!(read(&text), Some((seconds, nanos)));
        }

        #[test]
        fn what_is_read_is_what_prost_reads(text in "[0-9]{4}-[01][0-9]-[0-3][0-9]T[0-2][0-9]:[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?(Z|[+-][012][0-9]:[0-5][0-9])") {
            let theirs = text.parse::<Timestamp>().ok().filter(|time| SECONDS.contains(&time.seconds));
            if let Some(ours) = read(&text) {
                prop_assert_eq!(Some(ours), theirs.map(|time| (time.seconds, time.nanos)));
            }
        }
    }
}
