//! Messages of the API to and from the types of this service. No other file names both.

use std::time::Duration;

use agentrouter_api::identity as pb;
use agentrouter_kernel::check::DISPLAY_NAME_MAX;
use agentrouter_kernel::id::{ApiKey, Id, Identity, Session};
use agentrouter_kernel::{Fault, Principal, Role, UpdateMask, Violations};
use agentrouter_rpc::convert::{duration, etag, expected_revision, from_timestamp, mask_paths, timestamp};

use crate::model::{
    ExternalSubject, IdentityChange, IdentityKind, KeyKind, KeyState, NewApiKey, NewIdentity, check_email,
};
use crate::oidc::{ISSUER_MAX, SUBJECT_MAX};
use crate::sessions::{AskedRole, NewSession};
use crate::store::api_keys::ApiKeyRow;
use crate::store::identities::IdentityRow;
use crate::store::subjects::SubjectRow;
use crate::store::tokens::SessionRow;

const OVERLAP_MAX: Duration = Duration::from_hours(30 * 24);
const SESSION_DEFAULT: Duration = Duration::from_hours(1);
const SESSION_MIN: Duration = Duration::from_mins(1);
const SESSION_MAX: Duration = Duration::from_hours(12);

/// The most users that may sign in as one identity.
const SUBJECTS_MAX: usize = 16;
const SUBJECT_ROLES: &str = "must be operator, admin, viewer or empty";
const ROLES: &str = "must be operator, admin or viewer";

pub(crate) fn new_identity(request: &pb::CreateIdentityRequest) -> Result<NewIdentity, Fault> {
    let mut violations = Violations::new();
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    check_email(&mut violations, "email", &request.email);
    let kind = match pb::IdentityKind::try_from(request.kind) {
        Ok(pb::IdentityKind::Unspecified | pb::IdentityKind::Person) => IdentityKind::Person,
        Ok(pb::IdentityKind::Service) => IdentityKind::Service,
        Err(_) => {
            violations.add("kind", "is not a known value");
            IdentityKind::Person
        }
    };
    let external_subjects = external_subjects(&request.external_subjects, &mut violations);
    violations.finish()?;
    Ok(NewIdentity {
        display_name: request.display_name.clone(),
        email: request.email.clone(),
        kind,
        external_subjects,
    })
}

fn external_subjects(messages: &[pb::ExternalSubject], violations: &mut Violations) -> Vec<ExternalSubject> {
    violations.require(
        messages.len() <= SUBJECTS_MAX,
        "external_subjects",
        &format!("must have at most {SUBJECTS_MAX} entries"),
    );
    let mut subjects: Vec<ExternalSubject> = Vec::new();
    for (index, message) in messages.iter().take(SUBJECTS_MAX).enumerate() {
        let field = |name: &str| format!("external_subjects[{index}].{name}");
        let is_text = |text: &str, max: usize| {
            (1..=max).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        };
        violations.require(
            is_text(&message.issuer, ISSUER_MAX),
            &field("issuer"),
            &format!("must be the URL of an issuer, of 1 to {ISSUER_MAX} bytes"),
        );
        violations.require(
            is_text(&message.subject, SUBJECT_MAX),
            &field("subject"),
            &format!("must have 1 to {SUBJECT_MAX} bytes and no blanks"),
        );
        let role = Role::parse(&message.role);
        violations.require(role.is_some() || message.role.is_empty(), &field("role"), SUBJECT_ROLES);
        let is_repeated =
            subjects.iter().any(|other| other.issuer == message.issuer && other.subject == message.subject);
        violations.require(!is_repeated, &format!("external_subjects[{index}]"), "is listed twice");
        subjects.push(ExternalSubject {
            issuer: message.issuer.clone(),
            subject: message.subject.clone(),
            role,
        });
    }
    subjects
}

pub(crate) fn identity_id(text: &str) -> Result<Id<Identity>, Fault> {
    required_id("identity_id", text)
}

pub(crate) fn api_key_id(text: &str) -> Result<Id<ApiKey>, Fault> {
    required_id("api_key_id", text)
}

pub(crate) fn session_id(text: &str) -> Result<Id<Session>, Fault> {
    required_id("session_id", text)
}

fn required_id<K: agentrouter_kernel::id::Kind>(field: &str, text: &str) -> Result<Id<K>, Fault> {
    let mut violations = Violations::new();
    let id = violations.id(field, text);
    finish_with(violations, id)
}

/// Ends the checks of a request whose id is missing only together with a violation.
fn finish_with<T>(violations: Violations, value: Option<T>) -> Result<T, Fault> {
    violations.finish()?;
    value.ok_or_else(|| Fault::internal("a required value is missing without a violation"))
}

pub(crate) fn identity_change(
    request: pb::UpdateIdentityRequest,
) -> Result<(Id<Identity>, IdentityChange, Option<i64>), Fault> {
    let mut violations = Violations::new();
    let id = violations.id("identity_id", &request.identity_id);
    let mask = UpdateMask::new(
        mask_paths(request.update_mask),
        &["display_name", "email", "external_subjects"],
        &["id", "identity_id", "customer_id", "created_at", "updated_at", "etag"],
        &mut violations,
    );
    // An empty list is none: what the mask names without a value is cleared.
    let given = Some(request.external_subjects).filter(|messages| !messages.is_empty());
    let change = IdentityChange {
        display_name: mask.pick("display_name", request.display_name),
        email: mask.pick("email", request.email),
        external_subjects: mask
            .pick("external_subjects", given)
            .map(|messages| external_subjects(&messages, &mut violations)),
    };
    if let Some(display_name) = &change.display_name {
        violations.text("display_name", display_name, DISPLAY_NAME_MAX);
    }
    if let Some(email) = &change.email {
        check_email(&mut violations, "email", email);
    }
    Ok((finish_with(violations, id)?, change, expected_revision(&request.etag)))
}

pub(crate) fn identity(row: IdentityRow, subjects: Vec<SubjectRow>, customer: &str) -> pb::Identity {
    let kind = match row.kind {
        IdentityKind::Person => pb::IdentityKind::Person,
        IdentityKind::Service => pb::IdentityKind::Service,
    };
    pb::Identity {
        id: row.id.to_string(),
        customer_id: customer.to_owned(),
        display_name: row.display_name,
        email: row.email,
        kind: kind.into(),
        created_at: Some(timestamp(row.created_at)),
        updated_at: Some(timestamp(row.updated_at)),
        etag: etag(row.revision),
        external_subjects: subjects.into_iter().map(external_subject).collect(),
    }
}

fn external_subject(row: SubjectRow) -> pb::ExternalSubject {
    pb::ExternalSubject { issuer: row.issuer, subject: row.subject, role: row.role }
}

pub(crate) fn new_api_key(request: &pb::CreateApiKeyRequest) -> Result<NewApiKey, Fault> {
    let mut violations = Violations::new();
    violations.require(!request.display_name.is_empty(), "display_name", "is required");
    violations.text("display_name", &request.display_name, DISPLAY_NAME_MAX);
    let kind = match pb::ApiKeyKind::try_from(request.kind) {
        Ok(pb::ApiKeyKind::Unspecified | pb::ApiKeyKind::Management) => Some(KeyKind::Management),
        Ok(pb::ApiKeyKind::Gateway) => Some(KeyKind::Gateway),
        Err(_) => None,
    };
    violations.require(kind.is_some(), "kind", "is not a known value");
    let role = Role::parse(&request.role);
    match kind {
        Some(KeyKind::Management) => violations.require(role.is_some(), "role", ROLES),
        Some(KeyKind::Gateway) => {
            violations.require(request.role.is_empty(), "role", "must be empty for gateway keys");
        }
        None => {}
    }
    // What a gateway key may do follows from its identity.
    let identity_is_needed = kind == Some(KeyKind::Gateway) || !request.identity_id.is_empty();
    let identity = identity_is_needed.then(|| violations.id("identity_id", &request.identity_id)).flatten();
    let expires_at = request.expires_at.map(|time| from_timestamp("expires_at", time, &mut violations));
    let kind = finish_with(violations, kind)?;
    Ok(NewApiKey { display_name: request.display_name.clone(), kind, role, identity, expires_at })
}

pub(crate) fn rotation(request: &pb::RotateApiKeyRequest) -> Result<(Id<ApiKey>, Duration), Fault> {
    let mut violations = Violations::new();
    let id = violations.id("api_key_id", &request.api_key_id);
    let bounds = (Duration::ZERO, OVERLAP_MAX);
    let overlap = duration("overlap", request.overlap, Duration::ZERO, bounds, &mut violations);
    Ok((finish_with(violations, id)?, overlap))
}

pub(crate) fn api_key(row: ApiKeyRow, customer: &str) -> pb::ApiKey {
    let kind = match row.kind {
        KeyKind::Management => pb::ApiKeyKind::Management,
        KeyKind::Gateway => pb::ApiKeyKind::Gateway,
    };
    let state = match row.state {
        KeyState::Active => pb::ApiKeyState::Active,
        KeyState::Revoked => pb::ApiKeyState::Revoked,
        KeyState::Expired => pb::ApiKeyState::Expired,
    };
    pb::ApiKey {
        id: row.id.to_string(),
        customer_id: customer.to_owned(),
        display_name: row.display_name,
        kind: kind.into(),
        role: row.role,
        identity_id: text(row.identity_id),
        key_prefix: row.key_prefix,
        state: state.into(),
        expires_at: row.expires_at.map(timestamp),
        last_used_at: row.last_used_at.map(timestamp),
        created_by: row.created_by,
        created_at: Some(timestamp(row.created_at)),
        revoked_at: row.revoked_at.map(timestamp),
    }
}

pub(crate) fn new_session(request: &pb::CreateSessionRequest) -> Result<NewSession, Fault> {
    let mut violations = Violations::new();
    let is_named = !request.identity_id.is_empty();
    let identity = is_named.then(|| violations.id("identity_id", &request.identity_id)).flatten();
    let role = match request.role.as_str() {
        "" => AskedRole::Own,
        "member" => AskedRole::Member,
        name => Role::parse(name).map_or_else(
            || {
                violations.add("role", "must be operator, admin, viewer or member");
                AskedRole::Member
            },
            AskedRole::Of,
        ),
    };
    let bounds = (SESSION_MIN, SESSION_MAX);
    let lifetime = duration("ttl", request.ttl, SESSION_DEFAULT, bounds, &mut violations);
    violations.finish()?;
    Ok(NewSession { identity, role, lifetime })
}

pub(crate) fn session(row: SessionRow, customer: &str) -> pb::Session {
    pb::Session {
        id: row.id.to_string(),
        customer_id: customer.to_owned(),
        identity_id: row.identity_id.to_string(),
        role: row.role,
        created_at: Some(timestamp(row.created_at)),
        expires_at: Some(timestamp(row.expires_at)),
    }
}

pub(crate) fn who_am_i(caller: &Principal) -> pb::WhoAmIResponse {
    pb::WhoAmIResponse {
        credential: caller.credential.as_str().to_owned(),
        credential_id: caller.credential_id.clone(),
        customer_id: caller.customer_slug.clone(),
        role: caller.role.map_or("", Role::as_str).to_owned(),
        identity_id: text(caller.identity),
        workspace_id: caller.workspace.as_ref().map(|(_, slug)| slug.clone()).unwrap_or_default(),
        expires_at: caller.expires_at.map(timestamp),
    }
}

fn text(id: Option<Id<Identity>>) -> String {
    id.map(|id| id.to_string()).unwrap_or_default()
}
