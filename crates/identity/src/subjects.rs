//! The users of OIDC issuers that identities are mapped to.

use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{CredentialKind, Fault, FaultKind, Principal, Role};
use agentrouter_storage::Tx;
use agentrouter_storage::scope::CustomerScope;

use crate::model::{ExternalSubject, check_ceiling};
use crate::oidc::{Issuers, Subject};
use crate::store::subjects::{self, LiveSubject, SubjectRow};
use crate::store::tokens;

/// Who may map which users.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mapper<'a> {
    pub(crate) caller: &'a Principal,
    pub(crate) customer: &'a CustomerScope,
    pub(crate) issuers: &'a Issuers,
}

/// Makes these the users of an identity, whose row is locked. Sessions of those that go, or get another role, end.
/// Returns whether anything changed.
pub(crate) async fn replace(
    tx: &mut Tx,
    mapper: Mapper<'_>,
    identity: Id<id::Identity>,
    wanted: &[ExternalSubject],
) -> Result<bool, Fault> {
    let customer = mapper.customer.id;
    let stored = subjects::of_identity(&mut *tx, customer, identity).await?;
    let is_wanted = |row: &SubjectRow| wanted.iter().any(|new| *new == row.into());
    let is_stored = |new: &&ExternalSubject| !stored.iter().any(|row| **new == row.into());
    let gone: Vec<_> = stored.iter().filter(|row| !is_wanted(row)).collect();
    let mut new: Vec<_> = wanted.iter().filter(is_stored).collect();
    for row in &gone {
        check_ceiling(mapper.caller, Role::parse(&row.role))?;
        tokens::delete_of_subject(tx, customer, row.id).await?;
        subjects::delete(tx, customer, row.id).await?;
    }
    // In one order for all, so that two calls that map the same users do not wait for each other in a circle.
    new.sort_by(|a, b| (&a.issuer, &a.subject).cmp(&(&b.issuer, &b.subject)));
    for subject in &new {
        check_ceiling(mapper.caller, subject.role)?;
        if !mapper.issuers.are_trusted(&subject.issuer, mapper.customer) {
            return Err(Fault::precondition(
                "OIDC_ISSUER_NOT_TRUSTED",
                format!(
                    "the issuer {:?} is not trusted for this customer; an operator configures that",
                    subject.issuer
                ),
            ));
        }
        let id = Id::new(tx.now().await?);
        if !subjects::insert(tx, customer, identity, id, subject).await? {
            return Err(Fault::already_exists::<id::ExternalSubject>(&subject.subject));
        }
    }
    Ok(!gone.is_empty() || !new.is_empty())
}

/// The caller that a verified user is.
///
/// # Errors
/// UNAUTHENTICATED `OIDC_SUBJECT_UNKNOWN` where no live identity has it, or its issuer is not trusted for the identity's
/// customer any more.
pub(crate) fn principal(
    found: Option<LiveSubject>,
    issuers: &Issuers,
    verified: &Subject,
) -> Result<(CustomerScope, Principal), Fault> {
    let live = found.ok_or_else(unknown)?;
    let customer = CustomerScope { id: live.customer_id, slug: live.customer_slug };
    if !issuers.are_trusted(&verified.issuer, &customer) {
        return Err(unknown());
    }
    let principal = Principal {
        credential: CredentialKind::OidcToken,
        credential_id: live.id.to_string(),
        secret: None,
        customer: customer.id,
        customer_slug: customer.slug.clone(),
        role: Role::parse(&live.role),
        identity: Some(live.identity_id),
        workspace: None,
        expires_at: None,
    };
    Ok((customer, principal))
}

/// UNAUTHENTICATED: the token is good, and leads to nobody.
pub(crate) fn unknown() -> Fault {
    Fault::new(
        FaultKind::Unauthenticated,
        "OIDC_SUBJECT_UNKNOWN",
        "the user of the OIDC token is not mapped to an identity; an admin maps it with external_subjects",
    )
}
