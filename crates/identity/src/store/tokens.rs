//! Session and workspace tokens, and revocations.

use agentrouter_kernel::id::{Customer, Id, Identity, Token, Workspace};
use agentrouter_kernel::{Role, Timestamp};
use agentrouter_rpc::ListSpec;
use agentrouter_storage::{Db, Source, StorageError, Tx, query, row};

use crate::model::TokenUse;
use crate::tokens::{Bearer, NewToken};

/// Joins to the token `t` the key that its session was made with, as `k`, and that key's customer, as `kc`.
macro_rules! join_source_key {
    () => {
        " LEFT JOIN api_keys k ON k.id = t.source_key_id LEFT JOIN customers kc ON kc.id = k.customer_id"
    };
}

/// Holds while the key of a session works: a session ends with it.
macro_rules! source_key_is_live {
    () => {
        " AND (t.source_key_id IS NULL OR (k.id IS NOT NULL AND k.revoked_at IS NULL AND kc.deleted_at IS NULL \
         AND (k.expires_at IS NULL OR k.expires_at > :now)))"
    };
}

row! {
    /// A session that works.
    #[derive(Debug, Clone)]
    pub(crate) struct SessionRow {
        pub(crate) id: Id<Token>,
        pub(crate) identity_id: Id<Identity>,
        pub(crate) role: String,
        pub(crate) created_at: Timestamp,
        pub(crate) expires_at: Timestamp,
    }
}

impl SessionRow {
    pub(crate) fn role(&self) -> Option<Role> {
        Role::parse(&self.role)
    }
}

/// Live sessions of the customer `$1`; those of operators only where `$2` holds. A revoked one has ended.
macro_rules! select_sessions {
    ($more:literal) => {
        concat!(
            "SELECT t.id, t.identity_id, t.role, t.created_at, t.expires_at FROM tokens t",
            join_source_key!(),
            " WHERE t.customer_id = $1 AND ($2 = TRUE OR t.role <> 'operator') AND t.token_use = 'session' \
             AND t.identity_id IS NOT NULL AND t.expires_at > :now",
            source_key_is_live!(),
            $more
        )
    };
}

/// All sessions of a customer.
pub(crate) const LIST: ListSpec =
    ListSpec { select: select_sessions!(""), fields: &[], default_order: "", id_column: "t.id" };

/// Those of the identity `$3`.
pub(crate) const LIST_OF_IDENTITY: ListSpec = ListSpec {
    select: select_sessions!(" AND t.identity_id = $3"),
    fields: &[],
    default_order: "",
    id_column: "t.id",
};

pub(crate) async fn find_session(
    source: impl Source,
    customer: Id<Customer>,
    id: Id<Token>,
    sees_operators: bool,
) -> Result<Option<SessionRow>, StorageError> {
    query(select_sessions!(" AND t.id = $3"))
        .bind(customer)
        .bind(sees_operators)
        .bind(id)
        .optional(source)
        .await
}

pub(crate) async fn insert(
    tx: &mut Tx,
    id: Id<Token>,
    new: &NewToken,
    expires_at: Timestamp,
) -> Result<(), StorageError> {
    const INSERT: &str = "INSERT INTO tokens \
         (id, customer_id, token_use, identity_id, workspace_id, role, source_key_id, created_at, expires_at) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)";
    let now = tx.now().await?;
    let (identity, workspace, role, source_key) = match new.bearer {
        Bearer::Session { identity, role, source_key } => (Some(identity), None, role, Some(source_key)),
        Bearer::Workspace(workspace) => (None, Some(workspace), None, None),
    };
    query(INSERT)
        .bind(id)
        .bind(new.customer)
        .bind(new.bearer.token_use().as_str())
        .bind(identity)
        .bind(workspace)
        .bind(role.map_or("", Role::as_str))
        .bind(source_key)
        .bind(now)
        .bind(expires_at)
        .execute(tx)
        .await?;
    Ok(())
}

/// Deletes the tokens of an identity, and the sessions that were made with its keys.
pub(crate) async fn delete_of_identity(
    tx: &mut Tx,
    customer: Id<Customer>,
    identity: Id<Identity>,
) -> Result<(), StorageError> {
    const OWN: &str = "DELETE FROM tokens WHERE identity_id = $1 AND customer_id = $2";
    const BY_KEYS: &str = "DELETE FROM tokens WHERE source_key_id IN (\
         SELECT id FROM api_keys WHERE identity_id = $1 AND customer_id = $2)";
    for statement in [OWN, BY_KEYS] {
        query(statement).bind(identity).bind(customer).execute(tx).await?;
    }
    Ok(())
}

/// Keeps a revocation, and ends the token where it is one of ours. Returns when the token was first revoked.
pub(crate) async fn revoke(
    tx: &mut Tx,
    customer: Id<Customer>,
    jti: &str,
    (revoked_by, reason): (&str, &str),
    expires_at: Timestamp,
) -> Result<Timestamp, StorageError> {
    const REVOKE: &str = "INSERT INTO revoked_tokens \
         (customer_id, jti, revoked_by, reason, revoked_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (customer_id, jti) DO UPDATE SET expires_at = CASE \
         WHEN excluded.expires_at > revoked_tokens.expires_at THEN excluded.expires_at \
         ELSE revoked_tokens.expires_at END \
         RETURNING revoked_at AS value";
    const END: &str =
        "UPDATE tokens SET expires_at = $1 WHERE id = $2 AND customer_id = $3 AND expires_at > $1";
    let now = tx.now().await?;
    let revoked_at = query(REVOKE)
        .bind(customer)
        .bind(jti)
        .bind(revoked_by)
        .bind(reason)
        .bind(now)
        .bind(expires_at)
        .value(&mut *tx)
        .await?;
    if let Some(id) = Id::<Token>::parse(jti) {
        query(END).bind(now).bind(id).bind(customer).execute(tx).await?;
    }
    Ok(revoked_at.unwrap_or(now))
}

/// Deletes expired tokens and revocations of tokens that expired, at most `limit` of each.
pub(crate) async fn sweep(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    const TOKENS: &str =
        "DELETE FROM tokens WHERE id IN (SELECT id FROM tokens WHERE expires_at <= $1 LIMIT $2)";
    const REVOCATIONS: &str = "DELETE FROM revoked_tokens WHERE (customer_id, jti) IN (\
         SELECT customer_id, jti FROM revoked_tokens WHERE expires_at <= $1 LIMIT $2)";
    let now = tx.now().await?;
    let mut swept = 0;
    for statement in [TOKENS, REVOCATIONS] {
        swept += query(statement).bind(now).bind(limit).execute(tx).await?;
    }
    Ok(swept)
}

row! {
    /// A token that works.
    #[derive(Debug)]
    pub(crate) struct LiveToken {
        pub(crate) customer_id: Id<Customer>,
        pub(crate) customer_slug: String,
        pub(crate) token_use: TokenUse,
        pub(crate) identity_id: Option<Id<Identity>>,
        pub(crate) workspace_id: Option<Id<Workspace>>,
        pub(crate) workspace_slug: Option<String>,
        pub(crate) role: String,
        /// The role of the key that the session was made with.
        pub(crate) key_role: Option<String>,
        pub(crate) key_expires_at: Option<Timestamp>,
        pub(crate) expires_at: Timestamp,
        pub(crate) now: Timestamp,
    }
}

/// A token, if it works: it was issued here and not revoked, and its customer, its identity, its workspace and the
/// key it was made with are all in service.
pub(crate) async fn find_live(db: &Db, id: Id<Token>) -> Result<Option<LiveToken>, StorageError> {
    const FIND: &str = concat!(
        "SELECT t.customer_id, c.slug AS customer_slug, t.token_use, t.identity_id, t.workspace_id, \
         w.slug AS workspace_slug, t.role, k.role AS key_role, k.expires_at AS key_expires_at, t.expires_at, \
         CAST(:now AS BIGINT) AS now \
         FROM tokens t JOIN customers c ON c.id = t.customer_id \
         LEFT JOIN identities i ON i.id = t.identity_id AND i.customer_id = t.customer_id \
         LEFT JOIN workspaces w ON w.id = t.workspace_id AND w.customer_id = t.customer_id \
         AND w.deleted_at IS NULL",
        join_source_key!(),
        " WHERE t.id = $1 AND t.expires_at > :now AND c.deleted_at IS NULL \
         AND (t.identity_id IS NULL OR i.id IS NOT NULL) AND (t.workspace_id IS NULL OR w.id IS NOT NULL) \
         AND NOT EXISTS (SELECT 1 FROM revoked_tokens r WHERE r.customer_id = t.customer_id AND r.jti = $2)",
        source_key_is_live!(),
    );
    query(FIND).bind(id).bind(id.to_string()).optional(db).await
}
