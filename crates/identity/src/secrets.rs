//! Secrets of the installation itself: made once, sealed, and shared by all replicas.

use agentrouter_envelope::{Aad, EnvelopeError, Keyring, SecretBytes, random_bytes};
use agentrouter_kernel::{Fault, PageKey};
use agentrouter_storage::{Db, Source, StorageError, Tx, query, row};
use zeroize::Zeroizing;

const PAGE_KEY: &str = "page-key";
/// The value that tells whether the right key-encryption key is in use.
pub(crate) const KEK_CHECK: &str = "kek-check";

/// The key of page tokens, the same on every replica: a page may be asked of another one than the page before it.
pub async fn page_key(db: &Db, keyring: &Keyring) -> Result<PageKey, Fault> {
    let sealed = match find(db, PAGE_KEY).await? {
        Some(sealed) => sealed,
        None => create_page_key(db, keyring).await?,
    };
    let plain = open(keyring, PAGE_KEY, &sealed)?;
    let bytes: &[u8; 32] = plain.expose().try_into().map_err(Fault::internal)?;
    Ok(PageKey::new(bytes))
}

async fn create_page_key(db: &Db, keyring: &Keyring) -> Result<Vec<u8>, Fault> {
    let mut tx = begin(db, PAGE_KEY).await?;
    if let Some(sealed) = find(&mut tx, PAGE_KEY).await? {
        return Ok(sealed);
    }
    let plain = Zeroizing::new(random_bytes::<32>()?);
    let sealed = seal(keyring, PAGE_KEY, plain.as_slice())?;
    insert(&mut tx, PAGE_KEY, sealed.clone(), None).await?;
    tx.commit_unaudited(NO_CUSTOMER).await?;
    Ok(sealed)
}

/// Why these commits have no audit entry.
pub(crate) const NO_CUSTOMER: &str = "a secret of the installation belongs to no customer";

/// Begins the transaction that makes a secret. Replicas that find it missing take turns.
pub(crate) async fn begin(db: &Db, name: &str) -> Result<Tx, StorageError> {
    let mut tx = db.begin().await?;
    tx.lock(&format!("server-secret:{name}")).await?;
    Ok(tx)
}

pub(crate) fn seal(keyring: &Keyring, name: &str, plain: &[u8]) -> Result<Vec<u8>, EnvelopeError> {
    keyring.seal(&aad(name), plain)
}

pub(crate) fn open(keyring: &Keyring, name: &str, sealed: &[u8]) -> Result<SecretBytes, EnvelopeError> {
    keyring.open(&aad(name), sealed)
}

/// A secret belongs to its name: one that was copied to another row does not open.
pub fn aad(name: &str) -> Aad {
    Aad::new("server-secret").with(name)
}

pub(crate) async fn find(source: impl Source, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
    query("SELECT sealed AS value FROM server_secrets WHERE name = $1").bind(name).value(source).await
}

/// Stores a secret, with the part of it that is no secret.
pub(crate) async fn insert(
    tx: &mut Tx,
    name: &str,
    sealed: Vec<u8>,
    public_part: Option<Vec<u8>>,
) -> Result<(), StorageError> {
    const INSERT: &str =
        "INSERT INTO server_secrets (name, sealed, public_part, created_at) VALUES ($1, $2, $3, $4)";
    let now = tx.now().await?;
    query(INSERT).bind(name).bind(sealed).bind(public_part).bind(now).execute(tx).await?;
    Ok(())
}

row! {
    /// A secret with a public part.
    pub(crate) struct Pair {
        pub(crate) name: String,
        pub(crate) sealed: Vec<u8>,
        pub(crate) public_part: Vec<u8>,
    }
}
