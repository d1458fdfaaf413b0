//! Session and workspace tokens: what they say, how they are issued and how they end.
//!
//! A token is a JWT, and a row: the JWT proves who holds it, the row tells whether it still counts.

use std::time::Duration;

use agentrouter_delivery::revocation::{self, Revocation};
use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{Fault, Role, Timestamp};
use agentrouter_rpc::{IssuedToken, WorkspaceTokens};
use agentrouter_storage::{StorageError, Tx};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};

use crate::model::TokenUse;
use crate::signing::{self, SigningKeys};
use crate::store;

/// Who issues tokens.
pub(crate) const ISSUER: &str = "agentrouter";
/// Whom they are for.
pub(crate) const AUDIENCE: &str = "agentrouter";
/// How long a workspace token works. Workers renew it long before.
pub(crate) const WORKSPACE_LIFETIME: Duration = Duration::from_hours(90 * 24);
/// The longest that any token works.
pub(crate) const LIFETIME_MAX: Duration = WORKSPACE_LIFETIME;
/// How far in the future a token may seem to have been issued: a database that failed over may be a little behind.
const CLOCK_SKEW: Duration = Duration::from_secs(10);

/// The claims of a token. Times are whole seconds since the epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Claims {
    pub(crate) iss: String,
    pub(crate) aud: String,
    /// The identity of a session, or the workspace: a row id.
    pub(crate) sub: String,
    /// Row id of the token.
    pub(crate) jti: String,
    pub(crate) token_use: String,
    pub(crate) iat: i64,
    pub(crate) nbf: i64,
    pub(crate) exp: i64,
    /// Row id of the customer.
    pub(crate) cust: String,
    /// Row id of the workspace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ws: Option<String>,
    /// Row id of the identity.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) role: Option<String>,
}

impl Claims {
    /// Whether the token counts at this time, as far as it says so itself.
    pub(crate) fn are_current(&self, now: Timestamp) -> bool {
        let latest = now.plus(CLOCK_SKEW);
        Timestamp::from_secs(self.exp) > now
            && Timestamp::from_secs(self.nbf) <= latest
            && Timestamp::from_secs(self.iat) <= latest
    }
}

/// A token to issue.
#[derive(Debug)]
pub(crate) struct NewToken {
    pub(crate) customer: Id<id::Customer>,
    pub(crate) bearer: Bearer,
    /// It works until then, cut to the second.
    pub(crate) expires_at: Timestamp,
}

/// Whom a token stands for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Bearer {
    /// An identity that signed in. The session ends with what it did so with.
    Session { identity: Id<id::Identity>, role: Option<Role>, source: SessionSource },
    /// A data plane.
    Workspace(Id<id::Workspace>),
}

/// What a session was made with.
#[derive(Debug, Clone, Copy)]
pub(crate) enum SessionSource {
    /// An API key.
    Key(Id<id::ApiKey>),
    /// A user of a trusted OIDC issuer.
    Subject(Id<id::ExternalSubject>),
}

impl Bearer {
    pub(crate) fn token_use(self) -> TokenUse {
        match self {
            Self::Session { .. } => TokenUse::Session,
            Self::Workspace(_) => TokenUse::Workspace,
        }
    }
}

/// Issues a token: stores its row, and signs what it says.
pub(crate) async fn issue(tx: &mut Tx, keys: &SigningKeys, new: NewToken) -> Result<IssuedToken, Fault> {
    let now = tx.now().await?;
    let id = Id::<id::Token>::new(now);
    let expires_at = Timestamp::from_secs(new.expires_at.as_secs());
    store::tokens::insert(tx, id, &new, expires_at).await?;
    let (sub, ws, identity, role) = match new.bearer {
        Bearer::Session { identity, role, .. } => (
            identity.to_string(),
            None,
            Some(identity.to_string()),
            role.map(|role| role.as_str().to_owned()),
        ),
        Bearer::Workspace(workspace) => (workspace.to_string(), Some(workspace.to_string()), None, None),
    };
    let claims = Claims {
        iss: ISSUER.to_owned(),
        aud: AUDIENCE.to_owned(),
        sub,
        jti: id.to_string(),
        token_use: new.bearer.token_use().as_str().to_owned(),
        iat: now.as_secs(),
        nbf: now.as_secs(),
        exp: expires_at.as_secs(),
        cust: new.customer.to_string(),
        ws,
        identity,
        role,
    };
    let token = keys.sign(tx, &claims).await?;
    Ok(IssuedToken { token: token.into(), jti: claims.jti, expires_at })
}

/// Issues a token for a workspace, for 90 days. The caller has checked that the workspace is live and belongs to the
/// customer.
pub async fn issue_workspace_token(
    tx: &mut Tx,
    keys: &SigningKeys,
    customer: Id<id::Customer>,
    workspace: Id<id::Workspace>,
) -> Result<IssuedToken, Fault> {
    let expires_at = tx.now().await?.plus(WORKSPACE_LIFETIME);
    issue(tx, keys, NewToken { customer, bearer: Bearer::Workspace(workspace), expires_at }).await
}

#[async_trait]
impl WorkspaceTokens for SigningKeys {
    async fn issue(
        &self,
        tx: &mut Tx,
        customer: Id<id::Customer>,
        workspace: Id<id::Workspace>,
    ) -> Result<IssuedToken, Fault> {
        issue_workspace_token(tx, self, customer, workspace).await
    }
}

/// Revokes a token, ours or a data plane's, by its `jti`; returns when it was first revoked. The revocation is kept
/// until `expires_at`, when the token stops working anyway, and the data planes are told of it in this transaction.
/// `revoked_by` is the row id of who did it.
///
/// Our own tokens are refused by every replica within a second of the commit, by this one at once after
/// [`crate::Authenticator::forget`].
pub async fn revoke_token(
    tx: &mut Tx,
    customer: Id<id::Customer>,
    jti: &str,
    revoked_by: &str,
    reason: &str,
    expires_at: Timestamp,
) -> Result<Timestamp, Fault> {
    let revocation = Revocation { jti, revoked_by, reason, expires_at: Some(expires_at) };
    revocation::revoke(tx, customer, revocation).await
}

/// Deletes what expired: at most `limit` tokens, as many revocations and replaced secrets of keys, and signing keys
/// that no live token needs. Returns how many rows went; the caller comes back while there are `limit` or more.
pub async fn sweep_expired(tx: &mut Tx, limit: i64) -> Result<u64, StorageError> {
    let expired = store::tokens::sweep(tx, limit).await? + store::api_keys::sweep_secrets(tx, limit).await?;
    Ok(expired + signing::sweep(tx).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(iat: i64, nbf: i64, exp: i64) -> Claims {
        let text = String::new;
        Claims {
            iss: text(),
            aud: text(),
            sub: text(),
            jti: text(),
            token_use: text(),
            iat,
            nbf,
            exp,
            cust: text(),
            ws: None,
            identity: None,
            role: None,
        }
    }

    #[test]
    fn a_token_counts_from_nbf_until_exp() {
        let now = Timestamp::from_secs(1_000);
        assert!(claims(1_000, 1_000, 1_001).are_current(now));
        assert!(claims(1_010, 1_010, 2_000).are_current(now), "clocks may differ a little");
        assert!(!claims(1_000, 1_000, 1_000).are_current(now), "exp is the first second that is too late");
        assert!(!claims(1_000, 1_011, 2_000).are_current(now));
        assert!(!claims(1_011, 1_000, 2_000).are_current(now));
        assert!(!claims(i64::MIN, i64::MIN, i64::MIN).are_current(now));
        assert!(!claims(i64::MAX, i64::MAX, i64::MAX).are_current(now));
    }
}
