//! Session and workspace tokens. Revocations are written by the delivery crate, which tells the data planes of them.

use std::time::Duration;

use agentrouter_kernel::id::{Customer, ExternalSubject, Id, Identity, Token, Workspace};
use agentrouter_kernel::{Role, Timestamp};
use agentrouter_rpc::ListSpec;
use agentrouter_storage::{Db, Source, Sql, StorageError, Tx, Value, query, row};

use crate::model::TokenUse;
use crate::tokens::{Bearer, NewToken, SessionSource};

/// Joins to the token `t` what its session was made with: a key, as `k`, with that key's customer, as `kc`, or a user
/// of an OIDC issuer, as `es`.
macro_rules! join_source {
    () => {
        " LEFT JOIN api_keys k ON k.id = t.source_key_id LEFT JOIN customers kc ON kc.id = k.customer_id \
         LEFT JOIN external_subjects es ON es.id = t.source_subject_id AND es.identity_id = t.identity_id"
    };
}

/// Holds while what a session was made with works: a session ends with it.
macro_rules! source_is_live {
    () => {
        " AND (t.source_key_id IS NULL OR (k.id IS NOT NULL AND k.revoked_at IS NULL AND kc.deleted_at IS NULL \
         AND (k.expires_at IS NULL OR k.expires_at > :now))) \
         AND (t.source_subject_id IS NULL OR es.id IS NOT NULL)"
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
            join_source!(),
            " WHERE t.customer_id = $1 AND ($2 = TRUE OR t.role <> 'operator') AND t.token_use = 'session' \
             AND t.identity_id IS NOT NULL AND t.expires_at > :now",
            source_is_live!(),
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
         (id, customer_id, token_use, identity_id, workspace_id, role, source_key_id, source_subject_id, created_at, \
         expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)";
    let now = tx.now().await?;
    let (identity, workspace, role, source) = match new.bearer {
        Bearer::Session { identity, role, source } => (Some(identity), None, role, Some(source)),
        Bearer::Workspace(workspace) => (None, Some(workspace), None, None),
    };
    let (key, subject) = match source {
        Some(SessionSource::Key(key)) => (Some(key), None),
        Some(SessionSource::Subject(subject)) => (None, Some(subject)),
        None => (None, None),
    };
    query(INSERT)
        .bind(id)
        .bind(new.customer)
        .bind(new.bearer.token_use().as_str())
        .bind(identity)
        .bind(workspace)
        .bind(role.map_or("", Role::as_str))
        .bind(key)
        .bind(subject)
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

/// Deletes the sessions of a user of an issuer.
pub(crate) async fn delete_of_subject(
    tx: &mut Tx,
    customer: Id<Customer>,
    subject: Id<ExternalSubject>,
) -> Result<(), StorageError> {
    const DELETE: &str = "DELETE FROM tokens WHERE source_subject_id = $1 AND customer_id = $2 AND identity_id = \
         (SELECT identity_id FROM external_subjects WHERE id = $1)";
    query(DELETE).bind(subject).bind(customer).execute(tx).await?;
    Ok(())
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
        /// The role of what the session was made with.
        pub(crate) source_role: Option<String>,
        pub(crate) key_expires_at: Option<Timestamp>,
        pub(crate) expires_at: Timestamp,
        pub(crate) now: Timestamp,
    }
}

/// The tokens `t` of `$tokens` that work, `$jti` being what a revocation calls one.
macro_rules! from_live {
    ($tokens:literal, $jti:literal) => {
        concat!(
            " FROM ",
            $tokens,
            " JOIN customers c ON c.id = t.customer_id \
             LEFT JOIN identities i ON i.id = t.identity_id AND i.customer_id = t.customer_id \
             LEFT JOIN workspaces w ON w.id = t.workspace_id AND w.customer_id = t.customer_id \
             AND w.deleted_at IS NULL",
            join_source!(),
            " WHERE t.expires_at > :now AND c.deleted_at IS NULL \
             AND (t.identity_id IS NULL OR i.id IS NOT NULL) AND (t.workspace_id IS NULL OR w.id IS NOT NULL) \
             AND NOT EXISTS (SELECT 1 FROM revoked_tokens r WHERE r.customer_id = t.customer_id AND r.jti = ",
            $jti,
            ")",
            source_is_live!(),
        )
    };
}

row! {
    /// That a token works, and until when.
    #[derive(Debug)]
    pub(crate) struct Live {
        pub(crate) id: Id<Token>,
        expires_at: Timestamp,
        now: Timestamp,
    }
}

impl Live {
    /// For how long.
    pub(crate) fn remaining(&self) -> Duration {
        self.expires_at.since(self.now)
    }
}

/// Those of these tokens that [`find_live`] would find.
pub(crate) async fn live_of(db: &Db, tokens: &[Id<Token>]) -> Result<Vec<Live>, StorageError> {
    // Each is named by its row id in 32 digits, and what a revocation calls it. SQLite keeps the order of a cross
    // join: a look-up for each, not a walk through all tokens.
    const LIVE: Sql = Sql::Each {
        sqlite: concat!(
            "SELECT t.id, t.expires_at, CAST(:now AS BIGINT) AS now",
            from_live!(
                "json_each($1) n CROSS JOIN tokens t ON t.id = unhex(substr(n.value, 1, 32))",
                "substr(n.value, 33)"
            )
        ),
        postgres: concat!(
            "SELECT t.id, t.expires_at, CAST(:now AS BIGINT) AS now",
            from_live!(
                "unnest($1) AS n (value) JOIN tokens t ON t.id = CAST(substr(n.value, 1, 32) AS UUID)",
                "substr(n.value, 33)"
            )
        ),
    };
    let named = tokens.iter().map(|id| format!("{}{id}", id.uuid().simple())).collect();
    query(LIVE).bind(Value::Texts(named)).all(db).await
}

/// A token, if it works: it was issued here and not revoked, and its customer, its identity, its workspace and the
/// key it was made with are all in service.
pub(crate) async fn find_live(db: &Db, id: Id<Token>) -> Result<Option<LiveToken>, StorageError> {
    const FIND: &str = concat!(
        "SELECT t.customer_id, c.slug AS customer_slug, t.token_use, t.identity_id, t.workspace_id, \
         w.slug AS workspace_slug, t.role, COALESCE(k.role, es.role) AS source_role, k.expires_at AS key_expires_at, t.expires_at, \
         CAST(:now AS BIGINT) AS now",
        from_live!("tokens t", "$2"),
        " AND t.id = $1"
    );
    query(FIND).bind(id).bind(id.to_string()).optional(db).await
}
