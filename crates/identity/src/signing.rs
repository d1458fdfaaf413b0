//! The keys that tokens are signed with.
//!
//! Every replica reads them from the database: the newest one signs, and all of them verify until no token of theirs
//! can be alive. A private key is opened for one signature and not kept; public keys are kept by their id.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use agentrouter_envelope::{Keyring, SecretBytes};
use agentrouter_kernel::Fault;
use agentrouter_storage::{Db, Source, StorageError, Tx, query};
use aws_lc_rs::digest;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Serialize;

use crate::secrets::{self, NO_CUSTOMER, Pair};
use crate::tokens::{AUDIENCE, Claims, ISSUER, LIFETIME_MAX};

const NAME_PREFIX: &str = "signing-key/";
/// The one lock under which keys are made, so that replicas that start together make one.
const LOCK: &str = "signing-keys";
/// The length of a key's id: a SHA-256 in base64url.
const KID_LENGTH: usize = 43;
/// How long the published keys are served without asking the database: the endpoint is open to anyone.
const PUBLISHED_FOR: Duration = Duration::from_secs(1);
/// Kept beyond the last token that an old key can have signed, for transactions under way when it was replaced.
const RETIREMENT_MARGIN: Duration = Duration::from_hours(24);

/// The keys that sign and verify tokens.
pub struct SigningKeys {
    db: Db,
    keyring: Arc<Keyring>,
    verifying: RwLock<HashMap<String, DecodingKey>>,
    published: RwLock<Option<(Instant, Arc<str>)>>,
    validation: Validation,
}

impl std::fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SigningKeys(..)")
    }
}

impl SigningKeys {
    /// Opens the keys of a database, and makes the first one where there is none.
    ///
    /// # Errors
    /// INTERNAL where the newest key does not open, besides those of any statement.
    pub async fn load_or_create(db: &Db, keyring: &Arc<Keyring>) -> Result<Self, Fault> {
        let keys = Self {
            db: db.clone(),
            keyring: Arc::clone(keyring),
            verifying: RwLock::default(),
            published: RwLock::default(),
            validation: validation(),
        };
        if newest(db).await?.is_none() {
            let mut tx = secrets::begin(db, LOCK).await?;
            if newest(&mut tx).await?.is_none() {
                keys.create(&mut tx).await?;
                tx.commit_unaudited(NO_CUSTOMER).await?;
            }
        }
        // A key that does not open is found now, and not by the first person who signs in.
        let newest = newest(db).await?.ok_or_else(|| Fault::internal("there is no signing key"))?;
        secrets::open(keyring, &newest.name, &newest.sealed)?;
        Ok(keys)
    }

    /// Makes a new key, which signs from now on, on every replica. Returns its id. Tokens of older keys stay valid.
    pub async fn rotate(&self) -> Result<String, Fault> {
        let mut tx = secrets::begin(&self.db, LOCK).await?;
        let kid = self.create(&mut tx).await?;
        tx.commit_unaudited(NO_CUSTOMER).await?;
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(kid)
    }

    async fn create(&self, tx: &mut Tx) -> Result<String, Fault> {
        let (private, public) = generate()?;
        let kid = thumbprint(&public);
        let name = format!("{NAME_PREFIX}{kid}");
        let sealed = secrets::seal(&self.keyring, &name, private.expose())?;
        secrets::insert(tx, &name, sealed, Some(public)).await?;
        Ok(kid)
    }

    /// The public keys as a JSON Web Key Set (RFC 7517), newest first.
    pub async fn jwks_json(&self) -> Result<Arc<str>, Fault> {
        let published = self.published.read().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, json)) = published
            && at.elapsed() < PUBLISHED_FOR
        {
            return Ok(json);
        }
        let at = Instant::now();
        let pairs = all(&self.db).await?;
        let keys = pairs.iter().map(|pair| Jwk::new(kid_of(&pair.name), &pair.public_part)).collect();
        let json: Arc<str> = serde_json::to_string(&JwkSet { keys }).map_err(Fault::internal)?.into();
        *self.published.write().unwrap_or_else(PoisonError::into_inner) = Some((at, Arc::clone(&json)));
        Ok(json)
    }

    /// Signs claims with the newest key, read in the transaction that stores the token.
    pub(crate) async fn sign(&self, tx: &mut Tx, claims: &Claims) -> Result<String, Fault> {
        let newest = newest(tx).await?.ok_or_else(|| Fault::internal("there is no signing key"))?;
        let private = secrets::open(&self.keyring, &newest.name, &newest.sealed)?;
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid_of(&newest.name).to_owned());
        let key = EncodingKey::from_ed_der(private.expose());
        jsonwebtoken::encode(&header, claims, &key).map_err(Fault::internal)
    }

    /// The claims of a token that one of the keys signed for this API. None for anything else. Times are not
    /// checked here: that takes the stored clock.
    pub(crate) async fn verify(&self, token: &str) -> Result<Option<Claims>, StorageError> {
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Ok(None) };
        // Decoding checks the algorithm again; here it saves the look-up of a key.
        let Some(kid) = header.kid.filter(|_| header.alg == Algorithm::EdDSA) else { return Ok(None) };
        let Some(key) = self.verifying_key(&kid).await? else { return Ok(None) };
        Ok(jsonwebtoken::decode(token, &key, &self.validation).ok().map(|data| data.claims))
    }

    async fn verifying_key(&self, kid: &str) -> Result<Option<DecodingKey>, StorageError> {
        const FIND: &str = "SELECT public_part AS value FROM server_secrets WHERE name = $1";
        let known = self.verifying.read().unwrap_or_else(PoisonError::into_inner).get(kid).cloned();
        if known.is_some() || !is_kid(kid) {
            return Ok(known);
        }
        // Another replica may have made it.
        let public = query(FIND).bind(format!("{NAME_PREFIX}{kid}")).value::<Vec<u8>>(&self.db).await?;
        let Some(public) = public else { return Ok(None) };
        let key = DecodingKey::from_ed_der(&public);
        let mut verifying = self.verifying.write().unwrap_or_else(PoisonError::into_inner);
        verifying.insert(kid.to_owned(), key.clone());
        Ok(Some(key))
    }
}

/// Deletes keys that a newer one replaced so long ago that no token of theirs can be alive; returns how many.
pub(crate) async fn sweep(tx: &mut Tx) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM server_secrets WHERE name LIKE 'signing-key/%' AND created_at < (\
         SELECT MAX(created_at) FROM server_secrets WHERE name LIKE 'signing-key/%' AND created_at < $1)";
    let replaced_before = tx.now().await?.minus(LIFETIME_MAX).minus(RETIREMENT_MARGIN);
    query(SWEEP).bind(replaced_before).execute(tx).await
}

async fn newest(source: impl Source) -> Result<Option<Pair>, StorageError> {
    const NEWEST: &str = "SELECT name, sealed, public_part FROM server_secrets \
         WHERE name LIKE 'signing-key/%' ORDER BY created_at DESC, name LIMIT 1";
    query(NEWEST).optional(source).await
}

async fn all(db: &Db) -> Result<Vec<Pair>, StorageError> {
    const ALL: &str = "SELECT name, sealed, public_part FROM server_secrets \
         WHERE name LIKE 'signing-key/%' ORDER BY created_at DESC, name";
    query(ALL).all(db).await
}

/// A key pair: the private key as PKCS #8, the public one as 32 bytes.
fn generate() -> Result<(SecretBytes, Vec<u8>), Fault> {
    let pair = Ed25519KeyPair::generate().map_err(Fault::internal)?;
    let private = pair.to_pkcs8().map_err(Fault::internal)?;
    Ok((SecretBytes::new(private.as_ref()), pair.public_key().as_ref().to_vec()))
}

/// What a token must say besides when. The algorithm is ours to choose, never the token's.
fn validation() -> Validation {
    let mut validation = Validation::new(Algorithm::EdDSA);
    validation.set_issuer(&[ISSUER]);
    validation.set_audience(&[AUDIENCE]);
    validation.set_required_spec_claims(&["iss", "aud", "sub", "exp", "nbf"]);
    // The authenticator compares times with the stored clock, which all replicas share.
    validation.validate_exp = false;
    validation
}

fn kid_of(name: &str) -> &str {
    name.strip_prefix(NAME_PREFIX).unwrap_or(name)
}

fn is_kid(text: &str) -> bool {
    text.len() == KID_LENGTH
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

/// The thumbprint of a key (RFC 7638), which is its id: the same wherever it is computed.
fn thumbprint(public: &[u8]) -> String {
    let x = URL_SAFE_NO_PAD.encode(public);
    let canonical = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    URL_SAFE_NO_PAD.encode(digest::digest(&digest::SHA256, canonical.as_bytes()))
}

#[derive(Serialize)]
struct JwkSet<'a> {
    keys: Vec<Jwk<'a>>,
}

#[derive(Serialize)]
struct Jwk<'a> {
    kty: &'static str,
    crv: &'static str,
    alg: &'static str,
    #[serde(rename = "use")]
    key_use: &'static str,
    kid: &'a str,
    x: String,
}

impl<'a> Jwk<'a> {
    fn new(kid: &'a str, public: &[u8]) -> Self {
        Self {
            kty: "OKP",
            crv: "Ed25519",
            alg: "EdDSA",
            key_use: "sig",
            kid,
            x: URL_SAFE_NO_PAD.encode(public),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        // The key and the thumbprint of RFC 8037, appendix A.
        let public = URL_SAFE_NO_PAD.decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo").unwrap();
        let kid = thumbprint(&public);
        assert_eq!(kid, "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        assert!(is_kid(&kid));
        for bad in ["", "kid", &format!("{kid}x"), &kid.replace('_', "/")] {
            assert!(!is_kid(bad), "{bad}");
        }
    }

    #[test]
    fn key_pairs_differ() {
        assert_ne!(generate().unwrap().1, generate().unwrap().1);
    }
}
