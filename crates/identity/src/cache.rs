//! Answers of the last half second, so that a busy credential does not cost a statement per call.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use agentrouter_kernel::Principal;

use crate::keys::TokenHash;

/// How long an answer is used, from before its statement ran: half of the second within which every replica must
/// honour a revocation.
const KEPT_FOR: Duration = Duration::from_millis(500);
/// How long an answer is used that was confirmed for an open stream, from before its statement ran. More than the time
/// between two looks, so that a worker with a stream costs no statement per call; less than that second.
const CONFIRMED_FOR: Duration = Duration::from_millis(950);
/// The most answers kept.
const CAPACITY: usize = 16_384;

/// Principals by the hashes of their tokens. Only valid credentials are kept.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    entries: HashMap<TokenHash, Entry>,
    /// Grows when everything is forgotten, so that an answer read before that is not kept after it.
    generation: u64,
}

struct Entry {
    principal: Principal,
    until: Instant,
}

/// Marks when a look-up began.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Started {
    at: Instant,
    generation: u64,
}

impl Cache {
    /// The kept answer, or the start of a look-up that [`Cache::keep`] ends.
    pub(crate) fn get(&self, hash: &TokenHash) -> Result<Principal, Started> {
        let at = Instant::now();
        let inner = self.lock();
        match inner.entries.get(hash) {
            Some(entry) if at < entry.until => Ok(entry.principal.clone()),
            _ => Err(Started { at, generation: inner.generation }),
        }
    }

    /// The start of a look-up of many.
    pub(crate) fn begin(&self) -> Started {
        Started { at: Instant::now(), generation: self.lock().generation }
    }

    /// Keeps an answer, `remaining` being how long the credential works yet.
    pub(crate) fn keep(
        &self,
        hash: TokenHash,
        principal: &Principal,
        started: Started,
        remaining: Option<Duration>,
    ) {
        self.put(hash, principal, started, remaining, KEPT_FOR);
    }

    /// Keeps an answer that a look at all open streams has confirmed, and the next one will.
    pub(crate) fn confirm(
        &self,
        hash: TokenHash,
        principal: &Principal,
        started: Started,
        remaining: Duration,
    ) {
        self.put(hash, principal, started, Some(remaining), CONFIRMED_FOR);
    }

    fn put(
        &self,
        hash: TokenHash,
        principal: &Principal,
        started: Started,
        remaining: Option<Duration>,
        kept_for: Duration,
    ) {
        let until = started.at + remaining.map_or(kept_for, |remaining| remaining.min(kept_for));
        let mut inner = self.lock();
        if inner.generation != started.generation {
            return;
        }
        if inner.entries.len() >= CAPACITY {
            let now = Instant::now();
            inner.entries.retain(|_, entry| now < entry.until);
        }
        if inner.entries.len() < CAPACITY {
            inner.entries.insert(hash, Entry { principal: principal.clone(), until });
        }
    }

    /// Forgets everything, and what is being looked up, too.
    pub(crate) fn forget(&self) {
        let mut inner = self.lock();
        inner.entries.clear();
        inner.generation = inner.generation.wrapping_add(1);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("entries", &self.lock().entries.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use agentrouter_kernel::id::Id;
    use agentrouter_kernel::{CredentialKind, Timestamp};

    use super::*;

    fn principal() -> Principal {
        Principal {
            credential: CredentialKind::ApiKey,
            credential_id: "key_1".to_owned(),
            secret: None,
            customer: Id::new(Timestamp::from_secs(0)),
            customer_slug: "acme".to_owned(),
            role: None,
            identity: None,
            workspace: None,
            expires_at: None,
        }
    }

    fn hash(number: usize) -> TokenHash {
        crate::keys::hash(&number.to_string())
    }

    fn started(cache: &Cache, number: usize) -> Started {
        cache.get(&hash(number)).expect_err("nothing is kept")
    }

    #[test]
    fn an_answer_is_kept_until_it_is_forgotten() {
        let cache = Cache::default();
        let principal = principal();
        cache.keep(hash(1), &principal, started(&cache, 1), None);
        assert_eq!(cache.get(&hash(1)).unwrap(), principal);
        assert!(cache.get(&hash(2)).is_err());
        cache.forget();
        assert!(cache.get(&hash(1)).is_err());
    }

    #[test]
    fn an_answer_from_before_a_revocation_is_not_kept() {
        let cache = Cache::default();
        let early = started(&cache, 1);
        cache.forget();
        cache.keep(hash(1), &principal(), early, None);
        assert!(cache.get(&hash(1)).is_err());
    }

    #[test]
    fn time_counts_from_the_start_of_the_look_up() {
        let cache = Cache::default();
        let now = started(&cache, 1);
        let early = Started { at: now.at.checked_sub(KEPT_FOR).unwrap(), ..now };
        cache.keep(hash(1), &principal(), early, None);
        assert!(cache.get(&hash(1)).is_err());
        cache.keep(hash(2), &principal(), now, Some(Duration::ZERO));
        assert!(cache.get(&hash(2)).is_err(), "an expired credential is not kept");
    }

    #[test]
    fn what_a_stream_confirms_is_kept_until_the_next_look() {
        let cache = Cache::default();
        let now = cache.begin();
        let old = Started { at: now.at.checked_sub(KEPT_FOR).unwrap(), ..now };
        cache.confirm(hash(1), &principal(), old, Duration::from_mins(1));
        assert!(cache.get(&hash(1)).is_ok());
        cache.confirm(hash(1), &principal(), now, Duration::ZERO);
        assert!(cache.get(&hash(1)).is_err(), "an expired credential is not kept");
        let older = Started { at: now.at.checked_sub(CONFIRMED_FOR).unwrap(), ..now };
        cache.confirm(hash(2), &principal(), older, Duration::from_mins(1));
        assert!(cache.get(&hash(2)).is_err());
    }

    #[test]
    fn the_number_of_answers_is_bounded() {
        let cache = Cache::default();
        let principal = principal();
        let now = started(&cache, 0);
        for number in 0..=CAPACITY {
            cache.keep(hash(number), &principal, now, None);
        }
        assert!(cache.lock().entries.len() <= CAPACITY);
        // Entries that have ended make room.
        let early = Started { at: now.at.checked_sub(KEPT_FOR).unwrap(), ..now };
        cache.forget();
        let early = Started { generation: cache.lock().generation, ..early };
        for number in 0..CAPACITY {
            cache.keep(hash(number), &principal, early, None);
        }
        cache.keep(hash(CAPACITY), &principal, started(&cache, CAPACITY), None);
        assert_eq!(cache.lock().entries.len(), 1);
        assert!(cache.get(&hash(CAPACITY)).is_ok());
    }
}
