//! Identities, keys and sessions, and the rules that need no database.

use agentrouter_kernel::id::{self, Id};
use agentrouter_kernel::{CredentialKind, Fault, Principal, Role, Timestamp, Violations};
use agentrouter_storage::{FromColumn, Row, StorageError};

/// The longest e-mail address, in bytes (RFC 5321).
const EMAIL_MAX: usize = 254;

/// Declares an enum with the text that rows hold for each of its values.
macro_rules! stored {
    ($($(#[$doc:meta])* $name:ident { $($(#[$value_doc:meta])* $value:ident = $text:literal,)* })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub(crate) enum $name {
            $($(#[$value_doc])* $value,)*
        }

        impl $name {
            /// The text that rows hold.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $(Self::$value => $text,)*
                }
            }
        }

        impl FromColumn for $name {
            fn from_column(row: &Row, column: &str) -> Result<Self, StorageError> {
                let text: String = row.get(column)?;
                let value = [$(Self::$value),*].into_iter().find(|value| value.as_str() == text);
                value.ok_or_else(|| StorageError::Corrupt(format!("{column}: {text:?}")))
            }
        }
    )*};
}

stored! {
    /// What an identity stands for.
    IdentityKind {
        /// A person.
        Person = "person",
        /// A service account.
        Service = "service",
    }
    /// What a key is for.
    KeyKind {
        /// Calls to this API.
        Management = "management",
        /// Calls to the data planes.
        Gateway = "gateway",
    }
    /// Whether a key works. Statements derive it; no row holds it.
    KeyState {
        /// It does.
        Active = "active",
        /// It was revoked.
        Revoked = "revoked",
        /// It expired.
        Expired = "expired",
    }
    /// What a token is for; also its claim `token_use`.
    TokenUse {
        /// A session of an identity.
        Session = "session",
        /// The calls of a workspace's worker.
        Workspace = "workspace",
    }
}

/// An identity to create.
#[derive(Debug)]
pub(crate) struct NewIdentity {
    pub(crate) display_name: String,
    pub(crate) email: String,
    pub(crate) kind: IdentityKind,
    pub(crate) external_subjects: Vec<ExternalSubject>,
}

/// A user of an OIDC issuer that may sign in as an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ExternalSubject {
    pub(crate) issuer: String,
    pub(crate) subject: String,
    /// The highest role of its sessions; none for those that reach the identity's projects only.
    pub(crate) role: Option<Role>,
}

/// What an update does to an identity. Absent fields stay as they are.
#[derive(Debug)]
pub(crate) struct IdentityChange {
    pub(crate) display_name: Option<String>,
    pub(crate) email: Option<String>,
    pub(crate) external_subjects: Option<Vec<ExternalSubject>>,
}

/// A key to create.
#[derive(Debug)]
pub(crate) struct NewApiKey {
    pub(crate) display_name: String,
    pub(crate) kind: KeyKind,
    /// The role; none for gateway keys.
    pub(crate) role: Option<Role>,
    pub(crate) identity: Option<Id<id::Identity>>,
    pub(crate) expires_at: Option<Timestamp>,
}

/// Notes a violation unless the text is empty or has the form of an e-mail address. Whether mail arrives there
/// only mail can tell, so the form is all that is asked for.
pub(crate) fn check_email(violations: &mut Violations, field: &str, email: &str) {
    let is_plain = email.len() <= EMAIL_MAX && email.chars().all(|c| !c.is_control() && !c.is_whitespace());
    let has_parts = email
        .rsplit_once('@')
        .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !local.contains('@'));
    violations.require(
        email.is_empty() || (is_plain && has_parts),
        field,
        "must be an e-mail address such as ada@example.com, of at most 254 bytes",
    );
}

/// PERMISSION_DENIED where a credential has a role above the caller's. Nobody makes, replaces or ends one.
pub(crate) fn check_ceiling(caller: &Principal, role: Option<Role>) -> Result<(), Fault> {
    if role <= caller.role {
        return Ok(());
    }
    let role = role.map_or("none", Role::as_str);
    Err(Fault::denied("ROLE_ABOVE_CALLER", format!("the role {role} is above your own")))
}

/// Who did something, as rows remember it: the identity behind a session, else the key itself.
pub(crate) fn actor(caller: &Principal) -> String {
    match (caller.credential, caller.identity) {
        (CredentialKind::Session, Some(identity)) => identity.to_string(),
        _ => caller.credential_id.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let wrong = |email: &str| {
            let mut violations = Violations::new();
            check_email(&mut violations, "email", email);
            !violations.is_empty()
        };
        for good in ["", "a@b", "ada.lovelace+x@example.com", "ü@example.com"] {
            assert!(!wrong(good), "{good}");
        }
        let long = format!("{}@example.com", "a".repeat(243));
        for bad in ["a", "@", "a@", "@b", "a b@c", "a@b@c", "a@b\n", &long] {
            assert!(wrong(bad), "{bad}");
        }
    }
}
