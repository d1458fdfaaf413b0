//! The key-encryption keys of a database over time: which one it needs, and which ones rotations retired.
//!
//! A rotation first writes down which keys it retires, and seals the check value under the new one. From then on no
//! process starts that lacks any of them, and running ones stop sealing with a retired key within a second. Then it
//! wraps what is stored anew, and at last writes down that the retired keys are empty, so that they may go.

use std::time::Duration;

use agentrouter_envelope::{EnvelopeError, Keyring};
use agentrouter_storage::{Db, Source, StorageError, query, row};

use crate::secrets::{self, KEK_CHECK, NO_CUSTOMER, aad, begin, find};

/// How often a running process asks which keys it may seal with.
pub const FOLLOW_EVERY: Duration = Duration::from_secs(1);
/// The one lock under which rotations begin and end.
const LOCK: &str = "kek-rotation";

/// Why the key-encryption keys of this process cannot be used with this database.
#[derive(Debug, thiserror::Error)]
pub enum KeyringError {
    /// The database is sealed under a key that is not configured.
    #[error("the database needs the key-encryption key {0:?}, which is not configured")]
    MissingKey(String),
    /// There is a key of that id, but not the one that sealed the database.
    #[error("the configured key-encryption key {0:?} is not the one that this database was sealed with")]
    WrongKey(String),
    /// A rotation retired whatever is configured.
    #[error("the key-encryption key {0:?} was retired by a rotation, and no other one is configured")]
    RetiredKey(String),
    /// The check value is damaged, or cannot be made.
    #[error("the check value of the key-encryption key cannot be used")]
    Envelope(#[source] EnvelopeError),
    /// The database cannot be asked.
    #[error("the check value of the key-encryption key cannot be read")]
    Storage(#[from] StorageError),
}

row! {
    struct Retired {
        kek_id: String,
        is_empty: bool,
    }
}

/// Whether the database holds a check value, and with it belongs to a certain key-encryption key. While it does
/// not, a new key may be made.
pub async fn has_kek_check(db: &Db) -> Result<bool, StorageError> {
    Ok(find(db, KEK_CHECK).await?.is_some())
}

/// Proves that the keyring opens what this database holds, and lets it seal with what no rotation retired. The first
/// call on a database seals the check value that later ones open.
///
/// # Errors
/// Names the key that is needed. The server must not start with another one: what it sealed would be unreadable to
/// the replicas that have the right one.
pub async fn verify_keyring(db: &Db, keyring: &Keyring) -> Result<(), KeyringError> {
    let sealed = match find(db, KEK_CHECK).await? {
        Some(sealed) => sealed,
        None => create_kek_check(db, keyring).await?,
    };
    open_check(keyring, &sealed)?;
    follow_rotations(db, keyring).await
}

/// Lets the keyring seal with what no rotation retired. Called again and again while the process runs.
///
/// # Errors
/// Names a key that values may be sealed under and that is not configured, or a retired one where no other is left.
pub async fn follow_rotations(db: &Db, keyring: &Keyring) -> Result<(), KeyringError> {
    let retired = retired(db).await?;
    keyring.retire(|id| retired.iter().any(|key| key.kek_id == id));
    if let Some(missing) =
        retired.iter().find(|key| !key.is_empty && !keyring.key_ids().any(|id| id == key.kek_id))
    {
        return Err(KeyringError::MissingKey(missing.kek_id.clone()));
    }
    match keyring.key_ids().next() {
        Some(first) if keyring.sealing_key_id().is_empty() => Err(KeyringError::RetiredKey(first.to_owned())),
        _ => Ok(()),
    }
}

/// Begins to rotate to the first key of the ring: retires all others. Beginning again changes nothing.
///
/// # Errors
/// As [`verify_keyring`].
pub async fn begin_rotation(db: &Db, keyring: &Keyring) -> Result<(), KeyringError> {
    const REVIVE: &str = "DELETE FROM retired_keks WHERE kek_id = $1";
    const RETIRE: &str = "INSERT INTO retired_keks (kek_id, retired_at) VALUES ($1, $2) \
         ON CONFLICT (kek_id) DO UPDATE SET emptied_at = NULL";
    const REPLACE: &str = "UPDATE server_secrets SET sealed = $1 WHERE name = $2";
    let mut tx = begin(db, LOCK).await?;
    let now = tx.now().await?;
    let mut ids = keyring.key_ids();
    if let Some(first) = ids.next() {
        query(REVIVE).bind(first).execute(&mut tx).await?;
    }
    for id in ids {
        query(RETIRE).bind(id).bind(now).execute(&mut tx).await?;
    }
    keyring.retire(|_| false);
    if let Some(sealed) = find(&mut tx, KEK_CHECK).await? {
        open_check(keyring, &sealed)?;
        let rewrapped = keyring.rewrap(&sealed, || aad(KEK_CHECK)).map_err(KeyringError::Envelope)?;
        if let Some(rewrapped) = rewrapped {
            query(REPLACE).bind(rewrapped).bind(KEK_CHECK).execute(&mut tx).await?;
        }
    }
    Ok(tx.commit_unaudited(NO_CUSTOMER).await?)
}

/// Writes down that nothing is sealed under the retired keys of this ring any more. Returns their ids.
pub async fn end_rotation(db: &Db, keyring: &Keyring) -> Result<Vec<String>, StorageError> {
    const EMPTY: &str = "UPDATE retired_keks SET emptied_at = $1 WHERE kek_id = $2";
    let mut tx = begin(db, LOCK).await?;
    let now = tx.now().await?;
    let mut emptied = Vec::new();
    for id in keyring.key_ids().skip(1) {
        if query(EMPTY).bind(now).bind(id).execute(&mut tx).await? == 1 {
            emptied.push(id.to_owned());
        }
    }
    tx.commit_unaudited(NO_CUSTOMER).await?;
    Ok(emptied)
}

async fn retired(source: impl Source) -> Result<Vec<Retired>, StorageError> {
    const RETIRED: &str =
        "SELECT kek_id, (emptied_at IS NOT NULL) AS is_empty FROM retired_keks ORDER BY retired_at, kek_id";
    query(RETIRED).all(source).await
}

fn open_check(keyring: &Keyring, sealed: &[u8]) -> Result<(), KeyringError> {
    let needed = Keyring::key_id(sealed).map_err(KeyringError::Envelope)?;
    match keyring.open(&aad(KEK_CHECK), sealed) {
        Ok(_) => Ok(()),
        Err(EnvelopeError::UnknownKey(id)) => Err(KeyringError::MissingKey(id)),
        Err(EnvelopeError::DoesNotOpen) => Err(KeyringError::WrongKey(needed.to_owned())),
        Err(error) => Err(KeyringError::Envelope(error)),
    }
}

async fn create_kek_check(db: &Db, keyring: &Keyring) -> Result<Vec<u8>, KeyringError> {
    let mut tx = begin(db, KEK_CHECK).await?;
    if let Some(sealed) = find(&mut tx, KEK_CHECK).await? {
        return Ok(sealed);
    }
    // What is inside does not matter: opening is authenticated.
    let sealed = keyring.seal(&aad(KEK_CHECK), KEK_CHECK.as_bytes()).map_err(KeyringError::Envelope)?;
    secrets::insert(&mut tx, KEK_CHECK, sealed.clone(), None).await?;
    tx.commit_unaudited(NO_CUSTOMER).await?;
    Ok(sealed)
}
