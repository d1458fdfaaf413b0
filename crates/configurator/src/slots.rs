//! Slots as requests name them.

use agentrouter_api::configurator::ConfigType;
use agentrouter_delivery::{SYSTEM_USER, Slot};
use agentrouter_kernel::id::{Customer, Id, Workspace};
use agentrouter_kernel::{Principal, Violations};

/// Which slots a type of configuration has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Global,
    PerWorkspace,
    PerUser,
    PerKey,
}

fn shape(config_type: ConfigType) -> Option<Shape> {
    match config_type {
        ConfigType::Providers | ConfigType::McpCatalog | ConfigType::RevokedTokens => Some(Shape::Global),
        ConfigType::ProxyUrl => Some(Shape::PerWorkspace),
        ConfigType::UserKeys => Some(Shape::PerUser),
        ConfigType::Byok | ConfigType::McpProfile => Some(Shape::PerKey),
        ConfigType::DataplaneUpgrade | ConfigType::Unspecified => None,
    }
}

/// The fields by which a request names a slot.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SlotFields<'a> {
    /// Where they stand in the request, such as `queries[0].`.
    pub(crate) path: &'a str,
    pub(crate) user_id: &'a str,
    pub(crate) config_type: i32,
    pub(crate) key_id: &'a str,
}

impl SlotFields<'_> {
    /// The slot; none where a violation was noted. An empty user is the caller's identity.
    pub(crate) fn read(
        self,
        customer: Id<Customer>,
        caller: &Principal,
        violations: &mut Violations,
    ) -> Option<Slot> {
        let field = |name: &str| format!("{}{name}", self.path);
        let config_type = ConfigType::try_from(self.config_type).unwrap_or_default();
        let Some(shape) = shape(config_type) else {
            violations.add(field("config_type"), "must be a type of configuration that has content");
            return None;
        };
        let user_id = match (self.user_id, caller.identity) {
            ("", Some(identity)) => identity.to_string(),
            ("", None) => {
                violations
                    .add(field("user_id"), "is required: the caller has no identity (USER_ID_REQUIRED)");
                return None;
            }
            (user_id, _) => user_id.to_owned(),
        };
        let before = violations.count();
        violations.text(&field("user_id"), &user_id, 255);
        violations.text(&field("key_id"), self.key_id, 255);
        let is_system = user_id == SYSTEM_USER;
        let wants_system = matches!(shape, Shape::Global | Shape::PerWorkspace);
        if wants_system && !is_system {
            violations.add(field("user_id"), format!("must be {SYSTEM_USER:?} for this type"));
        } else if !wants_system && is_system {
            violations.add(field("user_id"), "must be a user for this type");
        }
        match shape {
            Shape::Global | Shape::PerUser => {
                violations.require(self.key_id.is_empty(), &field("key_id"), "must be empty for this type");
            }
            Shape::PerKey => {
                violations.require(!self.key_id.is_empty(), &field("key_id"), "is required for this type");
            }
            Shape::PerWorkspace => {
                let is_workspace = Id::<Workspace>::parse(self.key_id).is_some();
                violations.require(
                    is_workspace,
                    &field("key_id"),
                    "must be the row id of a workspace for this type",
                );
            }
        }
        (violations.count() == before).then(|| Slot::per_key(customer, user_id, config_type, self.key_id))
    }
}
