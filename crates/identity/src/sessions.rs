//! The rules of sessions.

use std::time::Duration;

use agentrouter_kernel::id::{self, Customer, Id};
use agentrouter_kernel::{CredentialKind, Fault, FaultKind, Principal, Role};
use agentrouter_rpc::IssuedToken;
use agentrouter_storage::Tx;

use crate::identities;
use crate::model::{actor, check_ceiling};
use crate::signing::SigningKeys;
use crate::store::tokens::{self, SessionRow};
use crate::tokens::{Bearer, NewToken, issue, revoke_token};

/// The role that a session is asked to have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AskedRole {
    /// The caller's.
    Own,
    /// None: the session reaches the projects of its identity.
    Member,
    /// This one.
    Of(Role),
}

/// A session to create.
#[derive(Debug)]
pub(crate) struct NewSession {
    /// Whom it acts for; the identity of the caller's key where none is named.
    pub(crate) identity: Option<Id<id::Identity>>,
    pub(crate) role: AskedRole,
    pub(crate) lifetime: Duration,
}

/// Creates a session with the caller's API key. It ends with the key, or before.
pub(crate) async fn create(
    tx: &mut Tx,
    signing: &SigningKeys,
    caller: &Principal,
    customer: Id<Customer>,
    new: &NewSession,
) -> Result<(SessionRow, IssuedToken), Fault> {
    let source_key = source_key(caller)?;
    let identity = acting_identity(caller, new.identity)?;
    let role = match new.role {
        AskedRole::Own => caller.role,
        AskedRole::Member => None,
        AskedRole::Of(role) => Some(role),
    };
    check_ceiling(caller, role)?;
    identities::hold(tx, customer, identity).await?;
    let end = tx.now().await?.plus(new.lifetime);
    let expires_at = caller.expires_at.map_or(end, |credential_end| credential_end.min(end));
    let bearer = Bearer::Session { identity, role, source_key };
    let issued = issue(tx, signing, NewToken { customer, bearer, expires_at }).await?;
    let row = SessionRow {
        id: Id::parse(&issued.jti).ok_or_else(|| Fault::internal("an issued token has no row id"))?,
        identity_id: identity,
        role: role.map_or("", Role::as_str).to_owned(),
        created_at: tx.now().await?,
        expires_at: issued.expires_at,
    };
    Ok((row, issued))
}

/// A session must not prolong itself, so only keys make them.
fn source_key(caller: &Principal) -> Result<Id<id::ApiKey>, Fault> {
    if caller.credential != CredentialKind::ApiKey {
        return Err(Fault::denied("API_KEY_REQUIRED", "a session is made with an API key"));
    }
    Id::parse(&caller.credential_id).ok_or_else(|| Fault::internal("a caller's key has no row id"))
}

fn acting_identity(caller: &Principal, named: Option<Id<id::Identity>>) -> Result<Id<id::Identity>, Fault> {
    match (named, caller.identity) {
        (Some(named), own) if own != Some(named) && !caller.has(Role::Admin) => {
            Err(Fault::denied("ROLE_REQUIRED", "to act for another identity needs the role admin"))
        }
        (Some(named), _) => Ok(named),
        (None, Some(own)) => Ok(own),
        (None, None) => Err(Fault::new(
            FaultKind::InvalidArgument,
            "IDENTITY_REQUIRED",
            "identity_id: is required, because the key acts for no identity",
        )),
    }
}

/// Whose sessions a caller sees: all of the customer, or those of its own identity.
pub(crate) fn seen_identity(caller: &Principal) -> Option<Id<id::Identity>> {
    if caller.role.is_some() { None } else { caller.identity }
}

/// Ends a session at once: the caller's own, another one of its identity, or, for admins, any. Never one with a role
/// above the caller's.
pub(crate) async fn revoke(
    tx: &mut Tx,
    caller: &Principal,
    customer: Id<Customer>,
    id: Id<id::Session>,
) -> Result<(), Fault> {
    let token = Id::<id::Token>::from_uuid(id.uuid());
    let found = tokens::find_session(&mut *tx, customer, token, caller.is_operator()).await?;
    let seen = seen_identity(caller);
    let session = found
        .filter(|session| seen.is_none_or(|own| own == session.identity_id))
        .ok_or_else(|| Fault::not_found::<id::Session>(id))?;
    if caller.identity != Some(session.identity_id) && !caller.has(Role::Admin) {
        return Err(Fault::denied("ROLE_REQUIRED", "to end another identity's session needs the role admin"));
    }
    check_ceiling(caller, session.role())?;
    let jti = token.to_string();
    revoke_token(tx, customer, &jti, &actor(caller), "session revoked", session.expires_at).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use agentrouter_kernel::Timestamp;

    use super::*;

    fn caller(role: Option<Role>, identity: Option<Id<id::Identity>>) -> Principal {
        Principal {
            credential: CredentialKind::ApiKey,
            credential_id: Id::<id::ApiKey>::new(Timestamp::from_secs(0)).to_string(),
            customer: Id::new(Timestamp::from_secs(0)),
            customer_slug: "acme".to_owned(),
            role,
            identity,
            workspace: None,
            expires_at: None,
        }
    }

    #[test]
    fn only_admins_act_for_others() {
        let (own, other) = (Id::new(Timestamp::from_secs(1)), Id::new(Timestamp::from_secs(2)));
        for (role, identity, named, expected) in [
            (Role::Viewer, Some(own), None, Ok(own)),
            (Role::Viewer, Some(own), Some(own), Ok(own)),
            (Role::Viewer, Some(own), Some(other), Err("ROLE_REQUIRED")),
            (Role::Viewer, None, Some(other), Err("ROLE_REQUIRED")),
            (Role::Admin, Some(own), Some(other), Ok(other)),
            (Role::Admin, None, Some(other), Ok(other)),
            (Role::Operator, None, None, Err("IDENTITY_REQUIRED")),
        ] {
            let acting = acting_identity(&caller(Some(role), identity), named);
            assert_eq!(acting.map_err(|fault| fault.reason()), expected, "{role:?} {identity:?} {named:?}");
        }
    }

    #[test]
    fn only_keys_make_sessions() {
        let mut caller = caller(Some(Role::Admin), None);
        assert_eq!(source_key(&caller).unwrap().to_string(), caller.credential_id);
        for kind in [CredentialKind::Session, CredentialKind::Workspace] {
            caller.credential = kind;
            assert_eq!(source_key(&caller).unwrap_err().reason(), "API_KEY_REQUIRED");
        }
    }
}
