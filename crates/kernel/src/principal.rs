//! Who is calling.

use std::fmt;

use crate::fault::Fault;
use crate::id::{Customer, Id, Identity, Workspace};
use crate::time::Timestamp;

/// The role of a caller inside a customer, from least to most.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads inside the customer.
    Viewer,
    /// Everything inside the customer.
    Admin,
    /// Everything, in all customers.
    Operator,
}

impl Role {
    /// The name in requests, answers and rows.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Admin => "admin",
            Self::Operator => "operator",
        }
    }

    /// Reads a name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "viewer" => Some(Self::Viewer),
            "admin" => Some(Self::Admin),
            "operator" => Some(Self::Operator),
            _ => None,
        }
    }
}

/// What kind of credential was presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CredentialKind {
    /// A management API key.
    ApiKey,
    /// A session token.
    Session,
    /// A workspace token.
    Workspace,
    /// A token of a trusted OIDC issuer, for the one call that exchanges it.
    OidcToken,
}

impl CredentialKind {
    /// The name in answers and audit entries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Session => "session",
            Self::Workspace => "workspace",
            Self::OidcToken => "oidc_token",
        }
    }
}

/// The hash of an API key's secret. `Debug` does not show it: a secret that a person chose could be guessed from it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SecretHash(pub [u8; 32]);

impl fmt::Debug for SecretHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretHash(..)")
    }
}

/// The verified caller of a request. Everything here comes from the credential and the store, never from
/// the request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// The kind of credential.
    pub credential: CredentialKind,
    /// Text form of the key's row id, or the token's `jti`.
    pub credential_id: String,
    /// Of an API key, the secret that was presented: a key has several while it is rotated.
    pub secret: Option<SecretHash>,
    /// The customer the credential belongs to.
    pub customer: Id<Customer>,
    /// Slug of that customer.
    pub customer_slug: String,
    /// The role; none for workspace tokens and for sessions that reach only projects.
    pub role: Option<Role>,
    /// The identity the credential acts for.
    pub identity: Option<Id<Identity>>,
    /// The workspace of a workspace token, with its slug.
    pub workspace: Option<(Id<Workspace>, String)>,
    /// When the credential stops working.
    pub expires_at: Option<Timestamp>,
}

impl Principal {
    /// Whether the caller may see and change every customer.
    pub fn is_operator(&self) -> bool {
        self.role == Some(Role::Operator)
    }

    /// Whether the caller has at least this role.
    pub fn has(&self, role: Role) -> bool {
        self.role >= Some(role)
    }

    /// The workspace claim, or PERMISSION_DENIED for callers that have none.
    pub fn workspace_claim(&self) -> Result<(Id<Workspace>, &str), Fault> {
        self.workspace
            .as_ref()
            .map(|(id, slug)| (*id, slug.as_str()))
            .ok_or_else(|| Fault::denied("WORKSPACE_CLAIM_REQUIRED", "this call needs a workspace token"))
    }
}
