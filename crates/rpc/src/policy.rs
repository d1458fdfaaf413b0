//! Access policies, read from the method options of the descriptors.

use std::collections::HashMap;

use agentrouter_api::options::{MethodPolicy, ProjectRole, Role as PolicyRole, WorkspaceAccess};
use agentrouter_kernel::{CredentialKind, Fault, Principal, Role};
use prost::Message;
use prost_reflect::{DescriptorPool, MethodDescriptor};

/// Who may call one method.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Full name, such as `agentrouter.tenancy.v1.TenancyService/GetCustomer`.
    pub method: String,
    /// What the proto says.
    pub declared: MethodPolicy,
    /// Whether it answers with a stream, which may last longer than the caller's credential.
    pub is_streaming: bool,
    /// Whether it may hold a call open until there is something to tell: its request says for how long, as `wait`.
    pub is_waiting: bool,
}

impl Policy {
    /// Whether callers without a credential are let through.
    pub fn is_open(&self) -> bool {
        self.declared.role() == PolicyRole::Anyone
    }

    /// What the audit log calls a call of this method.
    pub fn audit_action(&self) -> &str {
        if self.declared.audit.is_empty() { &self.method } else { &self.declared.audit }
    }

    /// Decides whether a caller may call the method at all. Whether it may touch a certain row is decided by
    /// the service.
    ///
    /// # Errors
    /// PERMISSION_DENIED with the reason `WORKSPACE_CLAIM_REQUIRED`, `WORKSPACE_TOKEN_REFUSED` or
    /// `ROLE_REQUIRED`.
    pub fn check(&self, principal: &Principal) -> Result<(), Fault> {
        let workspace = self.declared.workspace();
        if workspace == WorkspaceAccess::Required {
            return principal.workspace_claim().map(|_| ());
        }
        if principal.credential == CredentialKind::Workspace {
            return if workspace == WorkspaceAccess::Allowed {
                Ok(())
            } else {
                Err(Fault::denied("WORKSPACE_TOKEN_REFUSED", "a workspace token may not call this method"))
            };
        }
        let needed = match self.declared.role() {
            PolicyRole::Anyone | PolicyRole::Authenticated => return Ok(()),
            PolicyRole::Viewer => Role::Viewer,
            PolicyRole::Admin => Role::Admin,
            PolicyRole::Operator | PolicyRole::Unspecified => Role::Operator,
        };
        // A session without a role, or with too little of one, may still reach its identity's projects.
        let by_membership = self.declared.project_role() != ProjectRole::Unspecified
            && principal.credential == CredentialKind::Session
            && principal.identity.is_some();
        if principal.has(needed) || by_membership {
            return Ok(());
        }
        Err(Fault::denied("ROLE_REQUIRED", format!("this call needs the role {}", needed.as_str())))
    }
}

/// The policies of all methods.
#[derive(Debug, Clone)]
pub struct Policies(HashMap<String, Policy>);

impl Policies {
    /// Reads the policies of every method in the `agentrouter` packages.
    ///
    /// # Errors
    /// Names the methods that have none: the server must not start with them.
    pub fn load(pool: &DescriptorPool) -> Result<Self, String> {
        let mut policies = HashMap::new();
        let mut missing = Vec::new();
        for service in pool.services().filter(|service| service.full_name().starts_with("agentrouter.")) {
            for method in service.methods() {
                let name = format!("{}/{}", service.full_name(), method.name());
                match declared(pool, &method) {
                    Some(declared) if declared.role() != PolicyRole::Unspecified => {
                        let is_streaming = method.is_server_streaming();
                        let is_waiting = is_waiting(&method);
                        let policy = Policy { method: name, declared, is_streaming, is_waiting };
                        policies.insert(format!("/{}", policy.method), policy);
                    }
                    _ => missing.push(name),
                }
            }
        }
        if missing.is_empty() && !policies.is_empty() {
            return Ok(Self(policies));
        }
        missing.sort();
        Err(format!("methods without an access policy: {}", missing.join(", ")))
    }

    /// The policy of a method, by the path of its gRPC requests.
    pub fn get(&self, path: &str) -> Option<&Policy> {
        self.0.get(path)
    }

    /// All policies.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.values()
    }
}

fn is_waiting(method: &MethodDescriptor) -> bool {
    let wait = method.input().get_field_by_name("wait");
    let kind = wait.map(|field| field.kind());
    kind.is_some_and(|kind| {
        kind.as_message().is_some_and(|message| message.full_name() == "google.protobuf.Duration")
    })
}

fn declared(pool: &DescriptorPool, method: &MethodDescriptor) -> Option<MethodPolicy> {
    let extension = pool.get_extension_by_name("agentrouter.options.v1.policy")?;
    let options = method.options();
    if !options.has_extension(&extension) {
        return None;
    }
    let value = options.get_extension(&extension);
    MethodPolicy::decode(value.as_message()?.encode_to_vec().as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_method_has_a_policy() {
        let policies = Policies::load(&agentrouter_api::DESCRIPTOR_POOL).unwrap();
        let get = policies.get("/agentrouter.tenancy.v1.TenancyService/CreateCustomer").unwrap();
        assert_eq!(get.declared.role(), PolicyRole::Operator);
        assert_eq!(get.audit_action(), "customer.create");
    }

    #[test]
    fn long_polls_are_known_by_their_wait() {
        let policies = Policies::load(&agentrouter_api::DESCRIPTOR_POOL).unwrap();
        let waiting: Vec<&str> =
            policies.iter().filter(|policy| policy.is_waiting).map(|policy| policy.method.as_str()).collect();
        assert_eq!(waiting, ["agentrouter.configurator.v1.ConfiguratorService/ListPendingEvents"]);
    }
}
