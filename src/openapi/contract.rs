//! What the document says that only this product knows: who may call, which headers are read, what fields may hold.

use std::collections::HashMap;

use agentrouter_api::options::{FieldRules, MethodPolicy, ProjectRole, Role, WorkspaceAccess};
use agentrouter_gateway::{Contract, Header, Rules, Security};
use agentrouter_rpc::Policies;
use prost::Message;
use prost_reflect::{DescriptorPool, ExtensionDescriptor, FieldDescriptor, MethodDescriptor};
use serde_json::Value;

use super::examples;

const IDEMPOTENCY_KEY: Header = Header {
    name: "idempotency-key",
    description: "Makes the call safe to repeat: for 24 hours the same key of the same caller gets the first answer \
                  again, and is refused with 409 where it comes with another request.",
    example: "7b0c5a0e-4a54-4b0c-9d43-0d7a1f3b6c55",
    max_length: Some(255),
};

const CUSTOMER: Header = Header {
    name: "x-agentrouter-customer",
    description: "Slug or row id of the customer to act in, for operators; without it they act in their own. From \
                  anyone else it is refused with 403.",
    example: "acme",
    max_length: None,
};

/// What is about no one customer.
const BESIDE_CUSTOMERS: [&str; 2] = ["ListCustomers", "WhoAmI"];

pub(super) struct Product {
    policies: HashMap<String, MethodPolicy>,
    rules: Option<ExtensionDescriptor>,
}

impl Product {
    pub(super) fn new(pool: &DescriptorPool) -> Self {
        // A server whose methods lack policies does not start, so there is nothing to tell here.
        let policies = Policies::load(pool).ok();
        let policies = policies.iter().flat_map(Policies::iter);
        Self {
            policies: policies.map(|policy| (policy.method.clone(), policy.declared.clone())).collect(),
            rules: pool.get_extension_by_name("agentrouter.options.v1.rules"),
        }
    }

    fn policy(&self, method: &MethodDescriptor) -> Option<&MethodPolicy> {
        self.policies.get(&format!("{}/{}", method.parent_service().full_name(), method.name()))
    }
}

impl Contract for Product {
    fn security(&self, method: &MethodDescriptor) -> Security {
        match self.policy(method) {
            Some(policy) if policy.role() == Role::Anyone => Security::Optional,
            _ => Security::Required,
        }
    }

    fn note(&self, method: &MethodDescriptor) -> Option<String> {
        let policy = self.policy(method)?;
        if policy.workspace() == WorkspaceAccess::Required {
            return Some("Only a workspace token may call it, for its own workspace.".to_owned());
        }
        let mut callers = vec![match policy.role() {
            Role::Unspecified => return None,
            Role::Anyone => "anyone",
            Role::Authenticated => "any credential",
            Role::Viewer => "the role `viewer` or above",
            Role::Admin => "the role `admin` or above",
            Role::Operator => "the role `operator`",
        }];
        callers.extend(match policy.project_role() {
            ProjectRole::Unspecified => None,
            ProjectRole::Member => Some("a session of a member of the project"),
            ProjectRole::Admin => Some("a session of an admin of the project"),
        });
        if policy.workspace() == WorkspaceAccess::Allowed {
            callers.push("a workspace token, for its own workspace");
        }
        Some(format!("May be called with: {}.", callers.join("; ")))
    }

    fn headers(&self, method: &MethodDescriptor) -> Vec<Header> {
        let Some(policy) = self.policy(method) else { return Vec::new() };
        let mut headers = Vec::new();
        // What is audited is a mutation, and its answer is kept for a repeat.
        if !policy.audit.is_empty() {
            headers.push(IDEMPOTENCY_KEY);
        }
        let names_customer = method.input().get_field_by_name("customer_id").is_some();
        if !names_customer
            && !BESIDE_CUSTOMERS.contains(&method.name())
            && policy.workspace() != WorkspaceAccess::Required
        {
            headers.push(CUSTOMER);
        }
        headers
    }

    fn rules(&self, field: &FieldDescriptor) -> Rules {
        let Some(extension) = &self.rules else { return Rules::default() };
        let options = field.options();
        if !options.has_extension(extension) {
            return Rules::default();
        }
        let declared = options.get_extension(extension);
        let declared = declared.as_message().map(Message::encode_to_vec).unwrap_or_default();
        let declared = FieldRules::decode(declared.as_slice()).unwrap_or_default();
        let given = |text: String| (!text.is_empty()).then_some(text);
        Rules {
            length: (declared.min_length, declared.max_length),
            pattern: given(declared.pattern),
            format: given(declared.format),
            values: declared.values,
            range: (declared.minimum, declared.maximum),
            items: (declared.min_items, declared.max_items),
            is_set: declared.unique_items,
            keys: (declared.min_key_length, declared.max_key_length),
        }
    }

    fn example(&self, field: &FieldDescriptor) -> Option<Value> {
        examples::example(field)
    }
}
