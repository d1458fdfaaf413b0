//! Slots: what is configured.

use agentrouter_api::configurator::ConfigType;
use agentrouter_kernel::id::{Customer, Id, Workspace};

/// The `user_id` of global slots.
pub const SYSTEM_USER: &str = "system";

/// What is configured: a type of configuration for a customer, one of its users, or one of a user's keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The tenant. No slot reaches across tenants.
    pub customer: Id<Customer>,
    /// The user: text form of the identity's row id, or [`SYSTEM_USER`].
    pub user_id: String,
    /// The type of configuration.
    pub config_type: ConfigType,
    /// The key; empty for global and per-user slots. For proxy URLs, text form of the workspace's row id.
    pub key_id: String,
}

impl Slot {
    /// A slot of the whole customer.
    pub fn global(customer: Id<Customer>, config_type: ConfigType) -> Self {
        Self { customer, user_id: SYSTEM_USER.to_owned(), config_type, key_id: String::new() }
    }

    /// A slot of a user.
    pub fn per_user(customer: Id<Customer>, user_id: impl Into<String>, config_type: ConfigType) -> Self {
        Self { customer, user_id: user_id.into(), config_type, key_id: String::new() }
    }

    /// A slot of one of a user's keys.
    pub fn per_key(
        customer: Id<Customer>,
        user_id: impl Into<String>,
        config_type: ConfigType,
        key_id: impl Into<String>,
    ) -> Self {
        Self { customer, user_id: user_id.into(), config_type, key_id: key_id.into() }
    }

    /// The slot of a workspace's public URL.
    pub fn proxy_url(customer: Id<Customer>, workspace: Id<Workspace>) -> Self {
        Self::per_key(customer, SYSTEM_USER, ConfigType::ProxyUrl, workspace.to_string())
    }

    /// The only workspace that the slot is for, if it is for one only.
    pub fn only_workspace(&self) -> Option<Id<Workspace>> {
        if self.config_type == ConfigType::ProxyUrl { Id::parse(&self.key_id) } else { None }
    }
}
