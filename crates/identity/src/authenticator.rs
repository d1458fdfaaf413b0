//! Who a bearer token belongs to.

use std::sync::Arc;
use std::time::Duration;

use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{CredentialKind, Fault, Principal, Role, SecretHash, Timestamp};
use agentrouter_rpc::Authenticate;
use agentrouter_rpc::call::unauthenticated;
use agentrouter_rpc::enforce::UntilEnded;
use agentrouter_storage::{Db, StorageError};
use async_trait::async_trait;
use tokio_util::sync::CancellationToken;

use crate::cache::Cache;
use crate::keys::{self, GATEWAY_PREFIX, Shape, TokenHash};
use crate::model::TokenUse;
use crate::oidc::Issuers;
use crate::signing::SigningKeys;
use crate::store;
use crate::store::api_keys::LiveKey;
use crate::store::tokens::LiveToken;
use crate::streams::Streams;
use crate::tokens::Claims;
use crate::usage::{KeyUsage, Uses};

/// Longer than any credential; it bounds the work done on a hostile one.
const TOKEN_MAX: usize = 4096;

/// Verifies management keys, session tokens and workspace tokens.
///
/// Positive answers are used for up to half a second, so that a revocation holds on every replica within one.
#[derive(Debug)]
pub struct Authenticator {
    db: Db,
    signing: Arc<SigningKeys>,
    issuers: Issuers,
    cache: Cache,
    streams: Streams,
    uses: Uses,
}

/// A live credential.
struct Found {
    principal: Principal,
    /// The time of the database when it was found.
    now: Timestamp,
}

impl Authenticator {
    /// An authenticator, and the writer of last uses, which the caller runs.
    pub fn new(db: Db, signing: Arc<SigningKeys>) -> (Self, KeyUsage) {
        let (uses, usage) = KeyUsage::new(db.clone());
        let (issuers, cache, streams) = Default::default();
        (Self { db, signing, issuers, cache, streams, uses }, usage)
    }

    /// The same, with trust in these OIDC issuers, whose tokens are exchanged for sessions.
    #[must_use]
    pub fn with_issuers(self, issuers: Issuers) -> Self {
        Self { issuers, ..self }
    }

    /// The trusted OIDC issuers.
    pub(crate) fn issuers(&self) -> &Issuers {
        &self.issuers
    }

    /// The keys that tokens are signed with.
    pub fn signing_keys(&self) -> &SigningKeys {
        &self.signing
    }

    /// Forgets every answer. Called after a commit that took a credential out of service, so that this process honours
    /// it at once, for open streams, too.
    pub fn forget(&self) {
        self.cache.forget();
        self.streams.look_soon();
    }

    /// Ends streams with the credentials that opened them, until the server stops. The server runs it as a task of its
    /// own.
    pub async fn end_streams(&self, stop: &CancellationToken) {
        self.streams.run(&self.db, &self.cache, stop).await;
    }

    async fn look_up(&self, token: &str, hash: &TokenHash) -> Result<Option<Found>, StorageError> {
        if looks_like_jwt(token) {
            return self.find_token(token).await;
        }
        let is_hopeless = token.starts_with(GATEWAY_PREFIX) || keys::shape(token) == Shape::MistypedKey;
        if is_hopeless { Ok(None) } else { self.find_key(hash).await }
    }

    async fn find_key(&self, hash: &TokenHash) -> Result<Option<Found>, StorageError> {
        let Some(key) = store::api_keys::find_live(&self.db, hash).await? else { return Ok(None) };
        if key.use_is_due {
            self.uses.note(key.id);
        }
        Ok(Some(of_key(key, hash)))
    }

    async fn find_token(&self, token: &str) -> Result<Option<Found>, StorageError> {
        let Some(claims) = self.signing.verify(token).await? else { return Ok(None) };
        let id = Id::<id::Token>::parse(&claims.jti).filter(|id| id.to_string() == claims.jti);
        let Some(id) = id else { return Ok(None) };
        let Some(row) = store::tokens::find_live(&self.db, id).await? else { return Ok(None) };
        if !claims.are_current(row.now) || !agree(&claims, &row) {
            return Ok(None);
        }
        Ok(of_token(row, claims.jti))
    }
}

#[async_trait]
impl Authenticate for Authenticator {
    async fn authenticate(&self, token: &str) -> Result<Principal, Fault> {
        if token.len() > TOKEN_MAX {
            return Err(unauthenticated());
        }
        let hash = keys::hash(token);
        let started = match self.cache.get(&hash) {
            Ok(principal) => return Ok(principal),
            Err(started) => started,
        };
        let found = self.look_up(token, &hash).await?.ok_or_else(unauthenticated)?;
        let remaining: Option<Duration> = found.principal.expires_at.map(|end| end.since(found.now));
        self.cache.keep(hash, &found.principal, started, remaining);
        Ok(found.principal)
    }

    fn until_ended(&self, token: &str, caller: &Principal) -> UntilEnded {
        self.streams.until_ended(keys::hash(token), caller)
    }
}

/// Whether a token is meant as a JWT: three parts, the first of which begins like encoded JSON.
pub(crate) fn looks_like_jwt(token: &str) -> bool {
    token.starts_with("ey") && token.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// Whether a token says of itself what its row says.
fn agree(claims: &Claims, row: &LiveToken) -> bool {
    let identity = row.identity_id.map(|id| id.to_string());
    let workspace = row.workspace_id.map(|id| id.to_string());
    let subject = match row.token_use {
        TokenUse::Session => &identity,
        TokenUse::Workspace => &workspace,
    };
    claims.token_use == row.token_use.as_str()
        && Some(&claims.sub) == subject.as_ref()
        && claims.cust == row.customer_id.to_string()
        && claims.identity == identity
        && claims.ws == workspace
        && claims.role.as_deref().unwrap_or_default() == row.role
}

fn of_key(key: LiveKey, hash: &TokenHash) -> Found {
    let expires_at = key.end();
    let principal = Principal {
        credential: CredentialKind::ApiKey,
        credential_id: key.id.to_string(),
        secret: Some(SecretHash(*hash)),
        customer: key.customer_id,
        customer_slug: key.customer_slug,
        role: Role::parse(&key.role),
        identity: key.identity_id,
        workspace: None,
        expires_at,
    };
    Found { principal, now: key.now }
}

fn of_token(token: LiveToken, jti: String) -> Option<Found> {
    let (credential, role, workspace) = match token.token_use {
        TokenUse::Session => {
            let role = Role::parse(&token.role);
            // Never above what the session was made with, whatever becomes of that.
            let bound = token.source_role.as_deref().map_or(role, Role::parse);
            (CredentialKind::Session, role.min(bound), None)
        }
        TokenUse::Workspace => {
            let workspace = token.workspace_id.zip(token.workspace_slug)?;
            (CredentialKind::Workspace, None, Some(workspace))
        }
    };
    let principal = Principal {
        credential,
        credential_id: jti,
        secret: None,
        customer: token.customer_id,
        customer_slug: token.customer_slug,
        role,
        identity: token.identity_id,
        workspace,
        expires_at: Some(token.key_expires_at.map_or(token.expires_at, |end| end.min(token.expires_at))),
    };
    Some(Found { principal, now: token.now })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jwts_are_told_from_keys() {
        for jwt in ["eyJhbGciOiJFZERTQSJ9.e30.c2ln", "eyJ.."] {
            assert!(looks_like_jwt(jwt), "{jwt}");
        }
        for other in ["dev", "my.dev.key", "eyJ", "eyJ.", "eyJ...", ""] {
            assert!(!looks_like_jwt(other), "{other}");
        }
    }
}
