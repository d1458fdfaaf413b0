//! Ends streams with the credentials that opened them.
//!
//! Asked is once a second for all open streams of the process together, and not at all while there are none: an idle
//! stream costs a place in a map. The question is that of a new call, so whatever would refuse one ends a stream.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{CredentialKind, Fault, Principal};
use agentrouter_rpc::enforce::UntilEnded;
use agentrouter_storage::{Db, StorageError};
use tokio::sync::{Notify, watch};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::keys::TokenHash;
use crate::store;

/// How soon an end is seen: with the time that the statement takes, within a second.
const LOOK: Duration = Duration::from_millis(800);

/// The credentials of open streams.
#[derive(Default)]
pub(crate) struct Streams {
    open: Mutex<HashMap<TokenHash, Open>>,
    news: Notify,
}

/// The streams that one credential opened. They end when this is dropped.
struct Open {
    /// The token, where it is not the secret of a key.
    token: Option<Id<id::Token>>,
    /// Who calls with it, where that cannot change: a worker, whose other calls need no look-up of their own then.
    worker: Option<Principal>,
    streams: watch::Sender<()>,
}

impl Streams {
    /// Waits for the end of a credential that is live, or was a moment ago.
    pub(crate) fn until_ended(&self, hash: TokenHash, caller: &Principal) -> UntilEnded {
        let token = match caller.credential {
            CredentialKind::ApiKey => None,
            CredentialKind::Session | CredentialKind::Workspace => match Id::parse(&caller.credential_id) {
                Some(token) => Some(token),
                None => return ended(),
            },
            // Good for making a session, and for nothing that lasts.
            CredentialKind::OidcToken => return ended(),
        };
        let mut open = self.lock();
        let entry = open.entry(hash).or_insert_with(|| {
            let worker = (caller.credential == CredentialKind::Workspace).then(|| caller.clone());
            Open { token, worker, streams: watch::channel(()).0 }
        });
        let mut stream = entry.streams.subscribe();
        Box::pin(async move { while stream.changed().await.is_ok() {} })
    }

    /// Looks without waiting for the next time.
    pub(crate) fn look_soon(&self) {
        self.news.notify_one();
    }

    /// Looks again and again until the server stops. Its services end their streams then.
    pub(crate) async fn run(&self, db: &Db, cache: &Cache, stop: &CancellationToken) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
                () = self.news.notified() => {}
            }
            if let Err(error) = self.look(db, cache).await {
                tracing::warn!(job = "streams", error = %Fault::from(error), "a background job failed");
            }
        }
    }

    /// Ends the streams of credentials that are not live any more, and confirms those of workers that are.
    async fn look(&self, db: &Db, cache: &Cache) -> Result<(), StorageError> {
        let started = cache.begin();
        let (mut keys, mut tokens) = (Vec::new(), Vec::new());
        {
            let mut open = self.lock();
            open.retain(|_, open| open.streams.receiver_count() > 0);
            for (hash, open) in open.iter() {
                match open.token {
                    None => keys.push(*hash),
                    Some(token) => tokens.push((*hash, token)),
                }
            }
        }
        let mut ended = Vec::new();
        if !keys.is_empty() {
            let live: HashSet<_> = store::api_keys::live_of(db, &keys).await?.into_iter().collect();
            ended.extend(keys.into_iter().filter(|hash| !live.contains(hash.as_slice())));
        }
        let mut live = HashMap::new();
        if !tokens.is_empty() {
            let ids: Vec<_> = tokens.iter().map(|(_, id)| *id).collect();
            let found = store::tokens::live_of(db, &ids).await?;
            live = found.into_iter().map(|token| (token.id.uuid(), token.remaining())).collect();
            ended.extend(
                tokens.iter().filter(|(_, id)| !live.contains_key(&id.uuid())).map(|(hash, _)| *hash),
            );
        }
        if !ended.is_empty() {
            // First, so that who has seen a stream end is refused everywhere.
            cache.forget();
        }
        let mut open = self.lock();
        for hash in &ended {
            open.remove(hash);
        }
        for (hash, id) in tokens {
            if let Some(worker) = open.get(&hash).and_then(|open| open.worker.as_ref())
                && let Some(remaining) = live.get(&id.uuid())
            {
                cache.confirm(hash, worker, started, *remaining);
            }
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<TokenHash, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn ended() -> UntilEnded {
    Box::pin(std::future::ready(()))
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("credentials", &self.lock().len()).finish_non_exhaustive()
    }
}
