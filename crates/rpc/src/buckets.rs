//! Token buckets by key, in bounded memory.
//!
//! A bucket is one number: the time at which it will be full again. One that is full is as good as none, so nothing is
//! lost where those are forgotten.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher as _, Hash};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// So that callers seldom wait for each other.
const SHARDS: usize = 16;
/// Buckets of a shard. Those of all shards take 36 MiB, which a million callers fill.
const SHARD_MAX: usize = 65_536;

/// How often something may be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How often in `per`.
    pub times: u32,
    /// The time for that.
    pub per: Duration,
    /// How often at once, after a rest.
    pub burst: u32,
}

impl Rate {
    /// The time for one.
    fn interval(self) -> u64 {
        nanos(self.per / self.times.max(1)).max(1)
    }

    /// How long an empty bucket takes to be full.
    pub(crate) fn window(self) -> Duration {
        Duration::from_nanos(self.interval().saturating_mul(u64::from(self.burst.max(1))))
    }
}

/// A bucket after something was asked of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Level {
    /// How often it may still be done at once.
    pub(crate) remaining: u64,
    /// When the bucket is full.
    pub(crate) full_in: Duration,
    /// None where it was allowed; else when it will be.
    pub(crate) allowed_in: Option<Duration>,
}

/// Many buckets of one rate.
#[derive(Debug)]
pub(crate) struct Buckets {
    interval: u64,
    /// The time that a full bucket is worth.
    window: u64,
    begin: Instant,
    hasher: RandomState,
    shards: [Mutex<HashMap<u64, u64>>; SHARDS],
    shard_max: usize,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        Self {
            interval: rate.interval(),
            window: nanos(rate.window()),
            begin: Instant::now(),
            hasher: RandomState::new(),
            shards: Default::default(),
            shard_max: SHARD_MAX,
        }
    }

    /// Takes a token where there is one.
    pub(crate) fn take(&self, key: impl Hash, now: Instant) -> Level {
        self.ask(key, now, true)
    }

    /// Whether there is a token, which stays.
    pub(crate) fn look(&self, key: impl Hash, now: Instant) -> Level {
        self.ask(key, now, false)
    }

    fn ask(&self, key: impl Hash, now: Instant, takes: bool) -> Level {
        // Two callers that hash alike share a bucket: with 64 bits, and a seed that nobody knows, that is nobody.
        let key = self.hasher.hash_one(key);
        let now = nanos(now.saturating_duration_since(self.begin));
        let shard = usize::try_from(key % SHARDS as u64).unwrap_or_default();
        let Some(shard) = self.shards.get(shard) else { return self.level(now, now, None) };
        let mut shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
        let full_at = shard.get(&key).map_or(now, |full_at| now.max(*full_at));
        let wanted = full_at.saturating_add(self.interval);
        let limit = now.saturating_add(self.window);
        if wanted > limit {
            return self.level(full_at, now, Some(Duration::from_nanos(wanted - limit)));
        }
        if !takes {
            return self.level(full_at, now, None);
        }
        if shard.len() >= self.shard_max && !shard.contains_key(&key) {
            make_room(&mut shard, now);
        }
        shard.insert(key, wanted);
        self.level(wanted, now, None)
    }

    fn level(&self, full_at: u64, now: u64, allowed_in: Option<Duration>) -> Level {
        let full_in = full_at.saturating_sub(now);
        let remaining = self.window.saturating_sub(full_in) / self.interval;
        Level { remaining, full_in: Duration::from_nanos(full_in), allowed_in }
    }
}

/// Forgets the buckets that are full, and where there are none any other: too many callers at once are let in sooner
/// than they should rather than be remembered without end.
fn make_room(shard: &mut HashMap<u64, u64>, now: u64) {
    let before = shard.len();
    shard.retain(|_, full_at| *full_at > now);
    if shard.len() == before
        && let Some(key) = shard.keys().next().copied()
    {
        shard.remove(&key);
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { times: 10, per: Duration::from_secs(1), burst: 3 };

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let buckets = Buckets::new(RATE);
        let start = Instant::now();
        let at = |millis: u64| buckets.take("a", start + Duration::from_millis(millis));
        assert_eq!([at(0).remaining, at(0).remaining, at(0).remaining], [2, 1, 0]);
        let refused = at(0);
        assert_eq!((refused.remaining, refused.allowed_in), (0, Some(Duration::from_millis(100))));
        assert_eq!(refused.full_in, Duration::from_millis(300));
        assert_eq!(at(50).allowed_in, Some(Duration::from_millis(50)));
        assert_eq!((at(100).allowed_in, at(100).allowed_in.is_some()), (None, true));
        assert_eq!(at(10_000).remaining, 2, "a rest is worth no more than the burst");
        assert_eq!(buckets.take("b", start).remaining, 2, "others have buckets of their own");
    }

    #[test]
    fn looking_takes_nothing() {
        let buckets = Buckets::new(RATE);
        let start = Instant::now();
        for _ in 0..10 {
            assert_eq!(buckets.look("a", start).allowed_in, None);
        }
        for _ in 0..3 {
            buckets.take("a", start);
        }
        assert!(buckets.look("a", start).allowed_in.is_some());
    }

    // A9 #102: memory is bounded however many callers there are.
    #[test]
    fn memory_is_bounded() {
        let mut buckets = Buckets::new(RATE);
        buckets.shard_max = 8;
        let start = Instant::now();
        for key in 0..10_000 {
            assert_eq!(buckets.take(key, start).allowed_in, None);
        }
        let held = |buckets: &Buckets| -> usize {
            buckets.shards.iter().map(|shard| shard.lock().expect("no panic").len()).sum()
        };
        assert_eq!(held(&buckets), 8 * SHARDS);
        // What is full again makes room without anybody losing anything.
        buckets.take("late", start + Duration::from_secs(1));
        assert!(held(&buckets) <= 8 * (SHARDS - 1) + 1);
    }
}
