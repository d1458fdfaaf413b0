//! Who calls: identities, API keys, session and workspace tokens, and the check of every credential.
//!
//! Owns the tables of identities, keys, tokens, revocations and the installation's own secrets; the key format; the
//! keys that tokens are signed with; and [`Authenticator`], which the enforcement layer asks. Serves
//! IdentitiesService, ApiKeysService and SessionsService. Exchanges tokens of trusted OIDC issuers for sessions.
//!
//! Invariants: of a key only the hash is stored; a token counts only while its row does, and with it its customer,
//! identity, workspace and the key it was made with; a session is made only while the very secret that asks for it
//! works, and outlives it by nothing; nobody makes, replaces or ends a credential above the own role;
//! one operator key is always left; an answer about a credential is used for half a second at most, and a stream ends
//! within about a second of the credential that opened it.
//!
//! Deliberately absent: what a role may do (the method options), memberships (projects, which this crate only ends
//! with their identity), and gateway tokens, of which only the revocation passes through.

mod api_keys;
mod authenticator;
mod bootstrap;
mod cache;
mod convert;
mod identities;
pub mod keks;
pub mod keys;
mod model;
mod oidc;
mod rpc;
pub mod secrets;
mod sessions;
mod signing;
mod store;
mod streams;
mod subjects;
mod tokens;
mod usage;

pub use authenticator::Authenticator;
pub use bootstrap::bootstrap_key;
pub use oidc::{IssuerConfig, IssuerError, Issuers};
pub use rpc::{ApiKeys, Identities, Sessions, add_services};
pub use signing::SigningKeys;
pub use tokens::{issue_workspace_token, revoke_token, sweep_expired};
pub use usage::KeyUsage;
