//! API keys, and the hashes of their secrets.

use std::time::Duration;

use agentrouter_kernel::filter::{Field, FieldKind};
use agentrouter_kernel::id::{ApiKey, Customer, Id, Identity};
use agentrouter_kernel::{Role, Timestamp};
use agentrouter_rpc::ListSpec;
use agentrouter_storage::{Db, Source, Sql, StorageError, Tx, Value, query, row};

use crate::keys::{NewKey, TokenHash};
use crate::model::{KeyKind, KeyState, NewApiKey};

row! {
    /// A key without its secrets.
    #[derive(Debug, Clone)]
    pub(crate) struct ApiKeyRow {
        pub(crate) id: Id<ApiKey>,
        pub(crate) display_name: String,
        pub(crate) kind: KeyKind,
        pub(crate) role: String,
        pub(crate) identity_id: Option<Id<Identity>>,
        pub(crate) key_prefix: String,
        pub(crate) state: KeyState,
        pub(crate) expires_at: Option<Timestamp>,
        pub(crate) last_used_at: Option<Timestamp>,
        pub(crate) created_by: String,
        pub(crate) created_at: Timestamp,
        pub(crate) revoked_at: Option<Timestamp>,
    }
}

impl ApiKeyRow {
    pub(crate) fn role(&self) -> Option<Role> {
        Role::parse(&self.role)
    }
}

/// Keys of the customer `$1`; operator keys only where `$2` holds.
macro_rules! select {
    ($($more:literal)?) => {
        concat!(
            "SELECT id, display_name, kind, role, identity_id, key_prefix, \
             CASE WHEN revoked_at IS NOT NULL THEN 'revoked' WHEN expires_at <= :now THEN 'expired' \
             ELSE 'active' END AS state, \
             expires_at, last_used_at, created_by, created_at, revoked_at \
             FROM api_keys WHERE customer_id = $1 AND ($2 = TRUE OR role <> 'operator')",
            $($more)?
        )
    };
}

pub(crate) const LIST: ListSpec = ListSpec {
    select: select!(" AND ($3 = TRUE OR revoked_at IS NULL)"),
    fields: &[
        Field { name: "display_name", column: "display_name", kind: FieldKind::Text, sortable: true },
        Field { name: "role", column: "role", kind: FieldKind::Text, sortable: true },
        Field { name: "created_at", column: "created_at", kind: FieldKind::Time, sortable: true },
    ],
    default_order: "",
    id_column: "id",
};

pub(crate) async fn find(
    source: impl Source,
    customer: Id<Customer>,
    id: Id<ApiKey>,
    sees_operators: bool,
) -> Result<Option<ApiKeyRow>, StorageError> {
    query(select!(" AND id = $3")).bind(customer).bind(sees_operators).bind(id).optional(source).await
}

/// The keys of an identity that are not revoked.
pub(crate) async fn of_identity(
    tx: &mut Tx,
    customer: Id<Customer>,
    identity: Id<Identity>,
) -> Result<Vec<ApiKeyRow>, StorageError> {
    query(select!(" AND identity_id = $3 AND revoked_at IS NULL"))
        .bind(customer)
        .bind(true)
        .bind(identity)
        .all(tx)
        .await
}

pub(crate) async fn insert(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<ApiKey>,
    new: &NewApiKey,
    (key_prefix, created_by): (&str, &str),
) -> Result<(), StorageError> {
    const INSERT: &str = "INSERT INTO api_keys \
         (id, customer_id, display_name, kind, role, identity_id, key_prefix, created_by, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let now = tx.now().await?;
    query(INSERT)
        .bind(id)
        .bind(customer)
        .bind(&new.display_name)
        .bind(new.kind.as_str())
        .bind(new.role.map_or("", Role::as_str))
        .bind(new.identity)
        .bind(key_prefix)
        .bind(created_by)
        .bind(now)
        .bind(new.expires_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// Adds a secret to a key; false where another key has the same.
pub(crate) async fn insert_secret(
    tx: &mut Tx,
    id: Id<ApiKey>,
    hash: &TokenHash,
) -> Result<bool, StorageError> {
    const INSERT: &str = "INSERT INTO api_key_secrets (key_hash, api_key_id, created_at) VALUES ($1, $2, $3) \
         ON CONFLICT DO NOTHING";
    let now = tx.now().await?;
    Ok(query(INSERT).bind(hash.as_slice()).bind(id).bind(now).execute(tx).await? == 1)
}

/// Shows another prefix for a key that is in service; false where it is not.
pub(crate) async fn set_prefix(tx: &mut Tx, id: Id<ApiKey>, new: &NewKey) -> Result<bool, StorageError> {
    const UPDATE: &str = "UPDATE api_keys SET key_prefix = $1 \
         WHERE id = $2 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $3)";
    let now = tx.now().await?;
    Ok(query(UPDATE).bind(&new.shown_prefix).bind(id).bind(now).execute(tx).await? == 1)
}

/// Keeps a key from being rotated, revoked and deleted until the transaction ends. What was done to it before is seen
/// by the statements that follow, but not by this one: a row that another transaction held is read anew, and those
/// beside it are not.
pub(crate) async fn hold(tx: &mut Tx, customer: Id<Customer>, id: Id<ApiKey>) -> Result<(), StorageError> {
    macro_rules! select {
        ($lock:literal) => {
            concat!("SELECT id AS value FROM api_keys WHERE id = $1 AND customer_id = $2", $lock)
        };
    }
    const HOLD: Sql = Sql::Each { sqlite: select!(""), postgres: select!(" FOR SHARE") };
    query(HOLD).bind(id).bind(customer).value::<Id<ApiKey>>(tx).await?;
    Ok(())
}

/// Lets the secrets of a key, and the sessions that were made with them, end at a time. What ends earlier still
/// does.
pub(crate) async fn end_secrets(tx: &mut Tx, id: Id<ApiKey>, at: Timestamp) -> Result<(), StorageError> {
    const SECRETS: &str = "UPDATE api_key_secrets SET expires_at = $1 \
         WHERE api_key_id = $2 AND (expires_at IS NULL OR expires_at > $1)";
    const SESSIONS: &str = "UPDATE tokens SET expires_at = $1 WHERE source_key_id = $2 AND expires_at > $1";
    query(SECRETS).bind(at).bind(id).execute(tx).await?;
    query(SESSIONS).bind(at).bind(id).execute(tx).await?;
    query("DELETE FROM api_key_secrets WHERE api_key_id = $1 AND expires_at <= :now")
        .bind(id)
        .execute(tx)
        .await?;
    Ok(())
}

/// Marks a key as revoked and deletes its secrets; false where it was revoked already.
pub(crate) async fn revoke(tx: &mut Tx, id: Id<ApiKey>) -> Result<bool, StorageError> {
    const REVOKE: &str = "UPDATE api_keys SET revoked_at = $1 WHERE id = $2 AND revoked_at IS NULL";
    let now = tx.now().await?;
    let revoked = query(REVOKE).bind(now).bind(id).execute(tx).await?;
    query("DELETE FROM api_key_secrets WHERE api_key_id = $1").bind(id).execute(tx).await?;
    Ok(revoked == 1)
}

/// Deletes the keys of an identity with their secrets.
pub(crate) async fn delete_of_identity(
    tx: &mut Tx,
    customer: Id<Customer>,
    identity: Id<Identity>,
) -> Result<(), StorageError> {
    const SECRETS: &str = "DELETE FROM api_key_secrets WHERE api_key_id IN (\
         SELECT id FROM api_keys WHERE identity_id = $1 AND customer_id = $2)";
    const KEYS: &str = "DELETE FROM api_keys WHERE identity_id = $1 AND customer_id = $2";
    for statement in [SECRETS, KEYS] {
        query(statement).bind(identity).bind(customer).execute(tx).await?;
    }
    Ok(())
}

/// How many operator keys work, of all customers.
pub(crate) async fn live_operator_keys(tx: &mut Tx) -> Result<i64, StorageError> {
    const COUNT: &str = "SELECT COUNT(*) AS value FROM api_keys k JOIN customers c ON c.id = k.customer_id \
         WHERE k.kind = 'management' AND k.role = 'operator' AND k.revoked_at IS NULL \
         AND (k.expires_at IS NULL OR k.expires_at > :now) AND c.deleted_at IS NULL";
    Ok(query(COUNT).value(tx).await?.unwrap_or_default())
}

/// Deletes secrets whose overlap ended.
pub(crate) async fn sweep_secrets(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    const SWEEP: &str = "DELETE FROM api_key_secrets WHERE key_hash IN (\
         SELECT key_hash FROM api_key_secrets WHERE expires_at <= $1 LIMIT $2)";
    let now = tx.now().await?;
    query(SWEEP).bind(now).bind(limit).execute(tx).await
}

row! {
    /// A management key that works, found by one of its secrets.
    #[derive(Debug)]
    pub(crate) struct LiveKey {
        pub(crate) id: Id<ApiKey>,
        pub(crate) customer_id: Id<Customer>,
        pub(crate) customer_slug: String,
        pub(crate) role: String,
        pub(crate) identity_id: Option<Id<Identity>>,
        pub(crate) expires_at: Option<Timestamp>,
        pub(crate) secret_expires_at: Option<Timestamp>,
        /// Whether the last use was noted a minute ago or more.
        pub(crate) use_is_due: bool,
        pub(crate) now: Timestamp,
    }
}

impl LiveKey {
    /// When the secret or the key ends, whichever comes first.
    pub(crate) fn end(&self) -> Option<Timestamp> {
        self.expires_at.into_iter().chain(self.secret_expires_at).min()
    }
}

/// The secrets `s` of management keys `k` that work, of those whose hash is `$hash`.
macro_rules! from_live {
    ($hash:literal) => {
        concat!(
            " FROM api_key_secrets s JOIN api_keys k ON k.id = s.api_key_id JOIN customers c ON c.id = k.customer_id \
             WHERE s.key_hash ",
            $hash,
            " AND k.kind = 'management' AND k.revoked_at IS NULL AND c.deleted_at IS NULL \
             AND (s.expires_at IS NULL OR s.expires_at > :now) AND (k.expires_at IS NULL OR k.expires_at > :now)"
        )
    };
}

/// Those of these secrets that [`find_live`] would find.
pub(crate) async fn live_of(db: &Db, hashes: &[TokenHash]) -> Result<Vec<Vec<u8>>, StorageError> {
    const LIVE: Sql = Sql::Each {
        sqlite: concat!(
            "SELECT s.key_hash AS value",
            from_live!("IN (SELECT unhex(value) FROM json_each($1))")
        ),
        postgres: concat!(
            "SELECT s.key_hash AS value",
            from_live!("IN (SELECT decode(named, 'hex') FROM unnest($1) AS named)")
        ),
    };
    query(LIVE).bind(Value::Texts(hashes.iter().map(hex).collect())).values(db).await
}

fn hex(hash: &TokenHash) -> String {
    hash.iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|digit| char::from_digit(digit.into(), 16))
        .collect()
}

/// The key with this secret, if it works: neither it nor the secret nor the customer is out of service. Its identity,
/// if it has one, exists, because deleting one deletes its keys.
pub(crate) async fn find_live(
    source: impl Source,
    hash: &TokenHash,
) -> Result<Option<LiveKey>, StorageError> {
    const FIND: &str = concat!(
        "SELECT k.id, k.customer_id, c.slug AS customer_slug, k.role, k.identity_id, k.expires_at, \
         s.expires_at AS secret_expires_at, \
         (k.last_used_at IS NULL OR k.last_used_at <= :now - 60000000) AS use_is_due, \
         CAST(:now AS BIGINT) AS now",
        from_live!("= $1")
    );
    query(FIND).bind(hash.as_slice()).optional(source).await
}

/// Notes that a key was used, unless that was noted less than a minute ago.
pub(crate) async fn note_use(tx: &mut Tx, id: Id<ApiKey>) -> Result<(), StorageError> {
    const NOTE: &str = "UPDATE api_keys SET last_used_at = $1 \
         WHERE id = $2 AND (last_used_at IS NULL OR last_used_at <= $3)";
    let now = tx.now().await?;
    let due = now.minus(Duration::from_mins(1));
    query(NOTE).bind(now).bind(id).bind(due).execute(tx).await?;
    Ok(())
}
