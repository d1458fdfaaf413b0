//! Revocations of tokens: refused here, and told to the data planes in the same transaction.

use std::time::Duration;

use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_kernel::id::{Customer, Id, Token};
use agentrouter_kernel::{Fault, Timestamp};
use agentrouter_storage::{Sql, StorageError, Tx, query, row};

use crate::slot::Slot;
use crate::version::regenerate;

/// How long a revocation is kept where nobody knows when the token expires, and at the longest.
pub const KEPT_MAX: Duration = Duration::from_hours(10 * 365 * 24);

/// A token to revoke.
#[derive(Debug, Clone, Copy)]
pub struct Revocation<'a> {
    /// Its JWT id. Ids of ours read in either case.
    pub jti: &'a str,
    /// Who revokes it.
    pub revoked_by: &'a str,
    /// Why.
    pub reason: &'a str,
    /// When it stops working anyway, if that is known.
    pub expires_at: Option<Timestamp>,
}

row! {
    /// A token that AgentRouter issued.
    #[derive(Debug, Clone)]
    pub struct IssuedRow {
        /// The role of a session; empty for workspace tokens and sessions of members.
        pub role: String,
        /// When it stops working.
        pub expires_at: Timestamp,
    }
}

/// A token that AgentRouter issued for a customer, whether or not it still works.
pub async fn find_issued(
    tx: &mut Tx,
    customer: Id<Customer>,
    id: Id<Token>,
) -> Result<Option<IssuedRow>, StorageError> {
    const FIND: &str = "SELECT role, expires_at FROM tokens WHERE id = $1 AND customer_id = $2";
    query(FIND).bind(id).bind(customer).optional(tx).await
}

/// Whether a token that AgentRouter issued for a customer still works, for whoever makes another one with it. Until the
/// transaction ends nobody revokes it: a revocation either comes first, and is seen, or waits.
pub async fn hold_issued(tx: &mut Tx, customer: Id<Customer>, id: Id<Token>) -> Result<bool, StorageError> {
    macro_rules! select {
        ($more:literal) => {
            concat!("SELECT id AS value FROM tokens WHERE id = $1 AND customer_id = $2", $more)
        };
    }
    const HOLD: Sql = Sql::Each { sqlite: select!(""), postgres: select!(" FOR SHARE") };
    // A statement of its own, which sees whatever the first one waited for.
    const FIND: &str = select!(
        " AND expires_at > :now AND NOT EXISTS \
         (SELECT 1 FROM revoked_tokens WHERE revoked_tokens.customer_id = $2 AND revoked_tokens.jti = $3)"
    );
    query(HOLD).bind(id).bind(customer).value::<Id<Token>>(&mut *tx).await?;
    let found = query(FIND).bind(id).bind(customer).bind(id.to_string()).value::<Id<Token>>(tx).await?;
    Ok(found.is_some())
}

/// Revokes a token, ours or a data plane's, and returns when it was first revoked. It is refused by every replica
/// within a second of the commit, and listed for the data planes until it expires.
pub async fn revoke(
    tx: &mut Tx,
    customer: Id<Customer>,
    revocation: Revocation<'_>,
) -> Result<Timestamp, Fault> {
    // Saying it again without an expiry tells nothing new.
    const REVOKE: &str = "INSERT INTO revoked_tokens \
         (customer_id, jti, revoked_by, reason, revoked_at, expires_at) VALUES ($1, $2, $3, $4, $5, $6) \
         ON CONFLICT (customer_id, jti) DO UPDATE SET expires_at = CASE \
         WHEN $7 = TRUE AND excluded.expires_at > revoked_tokens.expires_at THEN excluded.expires_at \
         ELSE revoked_tokens.expires_at END \
         RETURNING revoked_at AS value";
    const END: &str =
        "UPDATE tokens SET expires_at = $1 WHERE id = $2 AND customer_id = $3 AND expires_at > $1";
    let now = tx.now().await?;
    let latest = now.plus(KEPT_MAX);
    let issued = Id::<Token>::parse(revocation.jti);
    let canonical = issued.map(|id| id.to_string());
    let revoked_at = query(REVOKE)
        .bind(customer)
        .bind(canonical.as_deref().unwrap_or(revocation.jti))
        .bind(revocation.revoked_by)
        .bind(revocation.reason)
        .bind(now)
        .bind(revocation.expires_at.map_or(latest, |expires_at| expires_at.min(latest)))
        .bind(revocation.expires_at.is_some())
        .value(&mut *tx)
        .await?;
    if let Some(id) = issued {
        query(END).bind(now).bind(id).bind(customer).execute(&mut *tx).await?;
    }
    regenerate(tx, &Slot::global(customer, ConfigType::RevokedTokens), EventType::Updated).await?;
    Ok(revoked_at.unwrap_or(now))
}
