//! How often a credential may call, and how often an address may fail to show one.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use agentrouter_kernel::{Fault, FaultKind};
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::buckets::{Buckets, Level, Rate};

/// What a caller may still do, and what may be done at all (draft-ietf-httpapi-ratelimit-headers).
const RATE_LIMIT: HeaderName = HeaderName::from_static("ratelimit");
const RATE_LIMIT_POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");

/// What may be done how often. Nothing is bounded by default.
#[derive(Debug, Clone, Copy, Default)]
pub struct Rates {
    /// Calls of one credential.
    pub calls: Option<Rate>,
    /// Calls of one address without a valid credential, after which it is not even asked for one.
    pub failures: Option<Rate>,
}

/// The buckets of all callers.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    calls: Option<Calls>,
    failures: Option<Buckets>,
}

#[derive(Debug)]
struct Calls {
    buckets: Buckets,
    policy: HeaderValue,
}

impl Meters {
    pub(crate) fn new(rates: Rates) -> Self {
        let calls = rates.calls.map(|rate| Calls { buckets: Buckets::new(rate), policy: policy(rate) });
        Self { calls, failures: rates.failures.map(Buckets::new) }
    }

    /// Counts a call of a credential.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `RATE_LIMITED` with the time after which to try again. The level is told in both cases.
    pub(crate) fn count(&self, credential: &str, level: &mut Option<Level>) -> Result<(), Fault> {
        let Some(calls) = &self.calls else { return Ok(()) };
        let after = calls.buckets.take(credential, Instant::now());
        *level = Some(after);
        let Some(delay) = after.allowed_in else { return Ok(()) };
        Err(exhausted("RATE_LIMITED", "this credential calls too often", delay))
    }

    /// Whether an address may still try to show a credential.
    ///
    /// # Errors
    /// RESOURCE_EXHAUSTED `TOO_MANY_FAILURES` with the time after which to try again.
    pub(crate) fn may_try(&self, address: Option<IpAddr>) -> Result<(), Fault> {
        let (Some(failures), Some(address)) = (&self.failures, address) else { return Ok(()) };
        let Some(delay) = failures.look(network(address), Instant::now()).allowed_in else { return Ok(()) };
        Err(exhausted("TOO_MANY_FAILURES", "too many calls without a valid credential came from here", delay))
    }

    /// Counts a call without a valid credential.
    pub(crate) fn failed(&self, address: Option<IpAddr>) {
        if let (Some(failures), Some(address)) = (&self.failures, address) {
            failures.take(network(address), Instant::now());
        }
    }

    /// Tells a caller what is left.
    pub(crate) fn tell(&self, headers: &mut HeaderMap, level: Level) {
        let Some(calls) = &self.calls else { return };
        let text = format!("\"credential\";r={};t={}", level.remaining, seconds(level.full_in));
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(RATE_LIMIT, value);
            headers.insert(RATE_LIMIT_POLICY, calls.policy.clone());
        }
    }
}

fn policy(rate: Rate) -> HeaderValue {
    let text = format!("\"credential\";q={};w={}", rate.burst.max(1), seconds(rate.window()));
    HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("\"credential\""))
}

fn exhausted(reason: &'static str, what: &str, delay: Duration) -> Fault {
    Fault::new(
        FaultKind::ResourceExhausted,
        reason,
        format!("{what}; try again after the time that `RetryInfo` gives"),
    )
    .with_retry_after(delay)
}

/// Whole seconds, rounded up.
fn seconds(duration: Duration) -> u64 {
    duration.as_secs() + u64::from(duration.subsec_nanos() > 0)
}

/// Whom an address belongs to: with IPv6 one caller has a whole /64 of them.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::from((u128::from(address) >> 64 << 64).to_be_bytes()),
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(times: u32, burst: u32) -> Rate {
        Rate { times, per: Duration::from_mins(1), burst }
    }

    #[test]
    fn a_credential_is_told_what_is_left_and_when_to_come_back() {
        let meters = Meters::new(Rates { calls: Some(rate(60, 2)), failures: None });
        let mut level = None;
        assert!(meters.count("a", &mut level).is_ok());
        let mut headers = HeaderMap::new();
        meters.tell(&mut headers, level.expect("it was counted"));
        assert_eq!(headers["ratelimit-policy"], "\"credential\";q=2;w=2");
        assert_eq!(headers["ratelimit"], "\"credential\";r=1;t=1");
        assert!(meters.count("a", &mut level).is_ok());
        let fault = meters.count("a", &mut level).expect_err("that was one too many");
        assert_eq!((fault.kind(), fault.reason()), (FaultKind::ResourceExhausted, "RATE_LIMITED"));
        assert!(fault.retry_after().is_some_and(|delay| delay <= Duration::from_secs(1)));
        assert_eq!(level.map(|level| level.remaining), Some(0));
        assert!(meters.count("b", &mut level).is_ok());
    }

    #[test]
    fn an_address_may_fail_a_few_times() {
        let meters = Meters::new(Rates { calls: None, failures: Some(rate(1, 2)) });
        let address = |text: &str| Some(text.parse().expect("an address"));
        for _ in 0..2 {
            assert!(meters.may_try(address("2001:db8::1")).is_ok());
            meters.failed(address("2001:db8::2"));
        }
        let fault = meters.may_try(address("2001:db8::3")).expect_err("its network has failed too often");
        assert_eq!(fault.reason(), "TOO_MANY_FAILURES");
        assert!(meters.may_try(address("2001:db8:0:1::1")).is_ok());
        meters.failed(address("10.0.0.1"));
        meters.failed(address("::ffff:10.0.0.1"));
        assert!(meters.may_try(address("10.0.0.1")).is_err());
        assert!(meters.may_try(address("10.0.0.2")).is_ok());
    }
}
