//! The requests about upgrades: wire to model.

use agentrouter_api::configurator::{
    EventType, RegistryCredential, ReportDataplaneUpgradeRequest, TriggerUpdateRequest,
};
use agentrouter_delivery::SYSTEM_USER;
use agentrouter_delivery::upgrade::Phase;
use agentrouter_envelope::SecretBytes;
use agentrouter_kernel::id::{Id, Upgrade};
use agentrouter_kernel::{Fault, Violations};
use prost::Message;

use super::metadata::{Parameters, is_version};

const MESSAGE_MAX: usize = 4096;
const SLOTS_MAX: usize = 32;
const NAME_MAX: usize = 255;
/// Enough for the key of a service account, which is a document.
const PASSWORD_MAX: usize = 16 * 1024;

/// What a worker tells of an upgrade.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) upgrade: Id<Upgrade>,
    pub(super) phase: Phase,
    pub(super) message: String,
    pub(super) required_slots: Vec<String>,
    pub(super) running_version: String,
    pub(super) failed_version: String,
}

/// A login to a registry, as it is sealed.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) slot: String,
    /// The encoded message.
    pub(super) secret: SecretBytes,
}

/// The upgrade that a request names.
pub(super) fn upgrade_id(field: &str, text: &str) -> Result<Id<Upgrade>, Fault> {
    let mut violations = Violations::new();
    let id = violations.id(field, text);
    violations.finish()?;
    id.ok_or_else(|| Fault::internal("an id was refused without a violation"))
}

/// Reads a trigger of an upgrade. An instruction has no slot, so the fields of slots say nothing here.
pub(super) fn parameters(request: &TriggerUpdateRequest) -> Result<Parameters, Fault> {
    let mut violations = Violations::new();
    let user = request.user_id.as_str();
    violations.require(
        user.is_empty() || user == SYSTEM_USER,
        "user_id",
        "must be empty or \"system\" for an upgrade",
    );
    violations.require(request.key_id.is_empty(), "key_id", "must be empty for this type");
    let is_expected = matches!(
        EventType::try_from(request.event_type),
        Ok(EventType::Unspecified | EventType::Created | EventType::Updated | EventType::Upgrade)
    );
    violations.require(is_expected, "event_type", "must be created, updated or upgrade");
    violations.require(
        !request.workspace_id.is_empty(),
        "workspace_id",
        "is required: workspaces are upgraded one by one",
    );
    let parameters = Parameters::read(request.metadata.clone(), &mut violations);
    violations.finish()?;
    Ok(parameters)
}

/// Reads a report.
pub(super) fn report(request: ReportDataplaneUpgradeRequest) -> Result<Report, Fault> {
    let mut violations = Violations::new();
    let upgrade = violations.id("event_id", &request.event_id);
    let phase = Phase::from_proto(request.phase);
    violations.require(phase.is_some(), "phase", "must be the phase of an upgrade");
    let slots = &request.required_credentials;
    if phase == Some(Phase::NeedsCredentials) {
        violations.require(
            (1..=SLOTS_MAX).contains(&slots.len()),
            "required_credentials",
            "must have 1 to 32 entries for this phase",
        );
    } else {
        violations.require(slots.is_empty(), "required_credentials", "must be empty for this phase");
    }
    for (index, slot) in slots.iter().enumerate().take(SLOTS_MAX) {
        check_slot(&format!("required_credentials[{index}]"), slot, &slots[..index], &mut violations);
    }
    for (field, version) in
        [("running_version", &request.running_version), ("failed_version", &request.failed_version)]
    {
        violations.require(
            version.is_empty() || is_version(version),
            field,
            "must be 1 to 128 letters, digits or any of . _ + -, and begin with a letter or digit",
        );
    }
    violations.finish()?;
    let (Some(upgrade), Some(phase)) = (upgrade, phase) else {
        return Err(Fault::internal("a field was refused without a violation"));
    };
    Ok(Report {
        upgrade,
        phase,
        message: cut(&request.message),
        required_slots: request.required_credentials,
        running_version: request.running_version,
        failed_version: request.failed_version,
    })
}

/// Reads logins, of which there is at most one per slot.
pub(super) fn logins(credentials: &[RegistryCredential], violations: &mut Violations) -> Vec<Login> {
    violations.require(
        (1..=SLOTS_MAX).contains(&credentials.len()),
        "credentials",
        "must have 1 to 32 entries",
    );
    let mut slots = Vec::new();
    let mut logins = Vec::new();
    for (index, credential) in credentials.iter().enumerate().take(SLOTS_MAX) {
        let field = |name: &str| format!("credentials[{index}].{name}");
        check_slot(&field("slot"), &credential.slot, &slots, violations);
        slots.push(credential.slot.clone());
        for (name, value, max) in [
            ("registry", &credential.registry, NAME_MAX),
            ("username", &credential.username, NAME_MAX),
            ("password", &credential.password, PASSWORD_MAX),
        ] {
            violations.require(!value.is_empty(), &field(name), "is required");
            violations.text(&field(name), value, max);
        }
        let secret = SecretBytes::new(credential.encode_to_vec());
        logins.push(Login { slot: credential.slot.clone(), secret });
    }
    logins
}

/// Reads a login that was sealed.
pub(super) fn login(secret: &SecretBytes) -> Result<RegistryCredential, Fault> {
    RegistryCredential::decode(secret.expose()).map_err(|_| Fault::internal("a login cannot be read"))
}

fn check_slot(field: &str, slot: &str, earlier: &[String], violations: &mut Violations) {
    let is_name = (1..=63).contains(&slot.len())
        && slot.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    violations.require(is_name, field, "must be 1 to 63 letters, digits or any of . _ -");
    violations.require(
        !is_name || !earlier.iter().any(|other| other == slot),
        field,
        "must not name a slot twice",
    );
}

/// A message as it is kept: bounded, and without what PostgreSQL's texts cannot hold.
fn cut(message: &str) -> String {
    message[..message.floor_char_boundary(MESSAGE_MAX)].replace('\0', "\u{fffd}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_cut_between_characters() {
        assert_eq!(cut("a\0b"), "a\u{fffd}b");
        assert_eq!(cut(&"é".repeat(3000)).len(), MESSAGE_MAX);
        assert_eq!(cut(&format!("x{}", "é".repeat(3000))).len(), MESSAGE_MAX - 1);
    }

    #[test]
    fn nothing_shows_a_login() {
        let credential = RegistryCredential {
            slot: "chart".into(),
            registry: "r.example".into(),
            username: "u".into(),
            password: "canary".into(),
        };
        let logins = logins(std::slice::from_ref(&credential), &mut Violations::new());
        assert!(!format!("{logins:?}").contains("canary"));
        assert_eq!(login(&logins[0].secret).unwrap(), credential);
    }
}
