//! The time a call may take, from its headers to the last message of its answer.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use http::Extensions;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::time::{Instant, Sleep, sleep_until, timeout_at};
use tonic::Status;

use crate::headers::{GRPC_TIMEOUT, grpc_timeout_nanos, to_grpc_timeout};

const CONNECT_TIMEOUT: HeaderName = HeaderName::from_static("connect-timeout-ms");

/// When a call has to have ended, if ever.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline of a gRPC or gRPC-Web call. Its header stays for the backend.
    pub(super) fn of_grpc(headers: &HeaderMap) -> Result<Self, Status> {
        let nanos = one(headers, &GRPC_TIMEOUT, grpc_timeout_nanos, "up to 8 digits and a unit")?;
        Ok(Self::after(nanos))
    }

    /// The deadline of a Connect call, which becomes gRPC's header.
    pub(super) fn of_connect(headers: &mut HeaderMap) -> Result<Self, Status> {
        let nanos = one(headers, &CONNECT_TIMEOUT, milliseconds, "up to 10 digits")?;
        headers.remove(GRPC_TIMEOUT);
        if let Some(value) = nanos.and_then(to_grpc_timeout) {
            headers.insert(GRPC_TIMEOUT, value);
        }
        Ok(Self::after(nanos))
    }

    fn after(nanos: Option<u128>) -> Self {
        // What lies beyond the clock is no deadline.
        let after = |nanos| {
            Instant::now().checked_add(Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX)))
        };
        Self(nanos.and_then(after))
    }

    /// Drops what is not ready in time.
    pub(super) async fn limit<T>(self, work: impl Future<Output = T>) -> Result<T, Status> {
        match self.0 {
            None => Ok(work.await),
            Some(at) => timeout_at(at, work).await.map_err(|_| exceeded()),
        }
    }

    /// Leaves itself to a [`DeadlineLayer`](super::DeadlineLayer), which would start the clock anew.
    pub(super) fn tell(self, extensions: &mut Extensions) {
        if self.0.is_some() {
            extensions.insert(self);
        }
    }

    pub(super) fn is_none(self) -> bool {
        self.0.is_none()
    }

    /// What to wait for beside a stream.
    pub(super) fn timer(self) -> Option<Pin<Box<Sleep>>> {
        self.0.map(|at| Box::pin(sleep_until(at)))
    }
}

pub(super) fn exceeded() -> Status {
    Status::deadline_exceeded("the deadline of the call has passed")
}

fn one(
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&str) -> Option<u128>,
    expected: &str,
) -> Result<Option<u128>, Status> {
    let mut values = headers.get_all(name).iter();
    let Some(value): Option<&HeaderValue> = values.next() else { return Ok(None) };
    match value.to_str().ok().and_then(parse) {
        Some(nanos) if values.next().is_none() => Ok(Some(nanos)),
        _ => Err(Status::invalid_argument(format!("the header `{name}` must be {expected}"))),
    }
}

fn milliseconds(text: &str) -> Option<u128> {
    let is_amount = (1..=10).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_amount.then(|| text.parse::<u128>().ok())?.map(|amount| amount * 1_000_000)
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    fn after(deadline: Deadline) -> Option<Duration> {
        deadline.0.map(|at| at.duration_since(Instant::now()))
    }

    /// A7 #86.
    #[tokio::test(start_paused = true)]
    async fn timeouts_are_parsed_strictly_and_saturate() {
        for (text, expected) in [
            ("1H", Some(Duration::from_hours(1))),
            ("250m", Some(Duration::from_millis(250))),
            ("99999999n", Some(Duration::from_nanos(99_999_999))),
            ("99999999H", Some(Duration::from_nanos(u64::MAX))),
            ("0S", Some(Duration::ZERO)),
        ] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(text))]);
            assert_eq!(after(Deadline::of_grpc(&headers).expect(text)), expected, "{text}");
        }
        for bad in ["", "5", "S", "123456789S", "-1S", "1s", "1.5S", " 1S", "+1S"] {
            let headers = HeaderMap::from_iter([(GRPC_TIMEOUT, HeaderValue::from_static(bad))]);
            let refused = Deadline::of_grpc(&headers).expect_err(bad);
            assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
        }
    }

    /// A7 #86.
    #[tokio::test(start_paused = true)]
    async fn connect_timeouts_become_those_of_grpc() {
        for (text, expected, passed_on) in
            [("0", 0, "0n"), ("1500", 1_500, "1500000u"), ("9999999999", 9_999_999_999, "9999999S")]
        {
            let mut headers = HeaderMap::from_iter([
                (CONNECT_TIMEOUT, HeaderValue::from_static(text)),
                (GRPC_TIMEOUT, HeaderValue::from_static("1n")),
            ]);
            let deadline = Deadline::of_connect(&mut headers).expect(text);
            assert_eq!(after(deadline), Some(Duration::from_millis(expected)), "{text}");
            assert_eq!(headers.get(GRPC_TIMEOUT).expect("a timeout"), passed_on);
        }
        for bad in ["", "12345678901", "1.5", "-1", "1s"] {
            let mut headers = HeaderMap::from_iter([(CONNECT_TIMEOUT, HeaderValue::from_static(bad))]);
            let refused = Deadline::of_connect(&mut headers).expect_err(bad);
            assert_eq!(refused.code(), Code::InvalidArgument, "{bad}");
        }
        let deadline = Deadline::of_connect(&mut HeaderMap::new()).expect("no timeout");
        assert!(deadline.0.is_none() && deadline.timer().is_none());
    }

    /// A7 #88.
    #[tokio::test(start_paused = true)]
    async fn what_is_late_is_dropped() {
        let deadline = Deadline::after(Some(1_000_000));
        let late = deadline.limit(std::future::pending::<()>()).await.expect_err("it never ends");
        assert_eq!(late.code(), Code::DeadlineExceeded);
        assert_eq!(Deadline(None).limit(async { 5 }).await.expect("no deadline"), 5);
    }
}
