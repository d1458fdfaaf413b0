//! The rules of sessions.

use std::time::Duration;

use agentrouter_kernel::id::{self, Customer, Id};
use agentrouter_kernel::{CredentialKind, Fault, FaultKind, Principal, Role};
use agentrouter_rpc::IssuedToken;
use agentrouter_storage::Tx;

use crate::model::{actor, check_ceiling};
use crate::signing::SigningKeys;
use crate::store::subjects;
use crate::store::tokens::{self, SessionRow};
use crate::subjects::unknown;
use crate::tokens::{Bearer, NewToken, SessionSource, issue, revoke_token};
use crate::{api_keys, identities};

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

/// Creates a session with the caller's API key, or for the user of an OIDC token. It ends with either, or before.
pub(crate) async fn create(
    tx: &mut Tx,
    signing: &SigningKeys,
    caller: &Principal,
    customer: Id<Customer>,
    new: &NewSession,
) -> Result<(SessionRow, IssuedToken), Fault> {
    let source = source(caller)?;
    let identity = acting_identity(caller, new.identity)?;
    let role = match new.role {
        AskedRole::Own => caller.role,
        AskedRole::Member => None,
        AskedRole::Of(role) => Some(role),
    };
    check_ceiling(caller, role)?;
    identities::hold(tx, customer, identity).await?;
    let source_end = match source {
        SessionSource::Key(key) => api_keys::hold_presented(tx, caller, key).await?,
        SessionSource::Subject(subject) if subjects::leads_to(tx, customer, subject, identity).await? => None,
        SessionSource::Subject(_) => return Err(unknown()),
    };
    let end = tx.now().await?.plus(new.lifetime);
    let expires_at = source_end.map_or(end, |source_end| source_end.min(end));
    let bearer = Bearer::Session { identity, role, source };
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

/// A session must not prolong itself, so only keys and the tokens of others make them.
fn source(caller: &Principal) -> Result<SessionSource, Fault> {
    let id = &caller.credential_id;
    let source = match caller.credential {
        CredentialKind::ApiKey => Id::parse(id).map(SessionSource::Key),
        CredentialKind::OidcToken => Id::parse(id).map(SessionSource::Subject),
        CredentialKind::Session | CredentialKind::Workspace => {
            return Err(Fault::denied("API_KEY_REQUIRED", "a session is made with an API key"));
        }
    };
    source.ok_or_else(|| Fault::internal("what a caller signed in with has no row id"))
}

fn acting_identity(caller: &Principal, named: Option<Id<id::Identity>>) -> Result<Id<id::Identity>, Fault> {
    match (named, caller.identity) {
        (Some(named), own) if own != Some(named) && !may_name_others(caller) => {
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

/// A user of an OIDC issuer is who they are, whatever their role.
fn may_name_others(caller: &Principal) -> bool {
    caller.has(Role::Admin) && caller.credential == CredentialKind::ApiKey
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
            secret: None,
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
    fn no_session_makes_another_one() {
        let mut caller = caller(Some(Role::Admin), None);
        assert!(
            matches!(source(&caller).unwrap(), SessionSource::Key(key) if key.to_string() == caller.credential_id)
        );
        for kind in [CredentialKind::Session, CredentialKind::Workspace] {
            caller.credential = kind;
            assert_eq!(source(&caller).unwrap_err().reason(), "API_KEY_REQUIRED");
        }
    }

    #[test]
    fn an_admin_by_another_issuer_acts_for_nobody_else() {
        let (own, other) = (Id::new(Timestamp::from_secs(1)), Id::new(Timestamp::from_secs(2)));
        let mut caller = caller(Some(Role::Admin), Some(own));
        caller.credential = CredentialKind::OidcToken;
        assert_eq!(acting_identity(&caller, Some(own)).unwrap(), own);
        assert_eq!(acting_identity(&caller, Some(other)).unwrap_err().reason(), "ROLE_REQUIRED");
    }
}
