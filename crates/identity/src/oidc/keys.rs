//! The keys that an issuer publishes, read when they are needed and kept.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use agentrouter_kernel::{Fault, FaultKind};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Mutex;

use super::fetch::{FetchError, Https};

/// Keys that are older are read again before they are used, so that one that was withdrawn stops to count.
const MAX_AGE: Duration = Duration::from_mins(10);
/// Keys that cannot be read again are used for so long, because an issuer may be away for a while.
const GRACE: Duration = Duration::from_hours(1);

/// The keys of one issuer.
pub(crate) struct Keys {
    issuer: String,
    https: Https,
    min_refresh: Duration,
    known: RwLock<Option<Known>>,
    /// When they were last asked for. Whoever holds it is the one that asks.
    asked: Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Known {
    keys: Arc<[Jwk]>,
    at: Instant,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

#[derive(Deserialize)]
struct KeySet {
    keys: Vec<Value>,
}

impl Keys {
    pub(crate) fn new(issuer: String, https: Https, min_refresh: Duration) -> Self {
        Self { issuer, https, min_refresh, known: RwLock::default(), asked: Mutex::default() }
    }

    /// The key of this id for this algorithm; where a token names none, the only one that fits. A key that is not
    /// known is asked for, but not more often than configured.
    ///
    /// # Errors
    /// UNAVAILABLE where the issuer does not answer and what is known is too old.
    pub(crate) async fn find(
        &self,
        kid: Option<&str>,
        algorithm: Algorithm,
    ) -> Result<Option<DecodingKey>, Fault> {
        let known = self.known();
        if let Some(known) = known.as_ref().filter(|known| known.at.elapsed() < MAX_AGE)
            && let Some(key) = select(&known.keys, kid, algorithm)
        {
            return Ok(Some(key));
        }
        self.refresh(known.map(|known| known.at)).await;
        let known = self.known().filter(|known| known.at.elapsed() < GRACE);
        let known = known.ok_or_else(|| unavailable(self.min_refresh))?;
        Ok(select(&known.keys, kid, algorithm))
    }

    fn known(&self) -> Option<Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks for the keys, unless somebody did since the caller looked, or it is too early to ask again.
    async fn refresh(&self, seen: Option<Instant>) {
        let mut asked = self.asked.lock().await;
        let is_newer = self.known().map(|known| known.at) != seen;
        let is_early = asked.is_some_and(|at| at.elapsed() < self.min_refresh);
        if is_newer || is_early {
            return;
        }
        // Also a failure counts: whoever floods us with unknown keys does not flood the issuer.
        *asked = Some(Instant::now());
        match self.fetch().await {
            Ok(keys) => {
                let known = Known { keys: keys.into(), at: Instant::now() };
                *self.known.write().unwrap_or_else(PoisonError::into_inner) = Some(known);
            }
            Err(error) => {
                tracing::warn!(issuer = self.issuer, %error, "the keys of an OIDC issuer cannot be read");
            }
        }
    }

    async fn fetch(&self) -> Result<Vec<Jwk>, FetchError> {
        let base = self.issuer.strip_suffix('/').unwrap_or(&self.issuer);
        let discovery: Discovery =
            self.https.json(&format!("{base}/.well-known/openid-configuration")).await?;
        if discovery.issuer != self.issuer {
            return Err(FetchError::Form);
        }
        let set: KeySet = self.https.json(&discovery.jwks_uri).await?;
        // A key of a kind that nobody here knows does not spoil the others.
        Ok(set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok()).collect())
    }
}

fn select(keys: &[Jwk], kid: Option<&str>, algorithm: Algorithm) -> Option<DecodingKey> {
    let mut fitting = keys.iter().filter(|key| fits(key, algorithm)).filter(|key| match kid {
        Some(kid) => key.common.key_id.as_deref() == Some(kid),
        None => true,
    });
    let key = fitting.next()?;
    // Two keys without a name: which one it is cannot be told.
    if fitting.next().is_some() { None } else { DecodingKey::from_jwk(key).ok() }
}

/// Whether a key is for signatures by this algorithm. A symmetric key never is.
fn fits(key: &Jwk, algorithm: Algorithm) -> bool {
    let family = match &key.algorithm {
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
        AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
        _ => return false,
    };
    let named = key.common.key_algorithm.map(|named| named.to_string());
    family == algorithm.family()
        && key.common.public_key_use.as_ref().is_none_or(|usage| *usage == PublicKeyUse::Signature)
        && named.is_none_or(|named| named.eq_ignore_ascii_case(&format!("{algorithm:?}")))
}

fn unavailable(retry_after: Duration) -> Fault {
    Fault::new(
        FaultKind::Unavailable,
        "OIDC_ISSUER_UNAVAILABLE",
        "the keys of the token's issuer cannot be read; retry later",
    )
    .with_retry_after(retry_after.max(Duration::from_secs(1)))
}
