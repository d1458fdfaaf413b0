//! Callers, and requests as the enforcement layer hands them to services.

use agentrouter_kernel::id::{Customer, Id, Identity, Workspace};
use agentrouter_kernel::{CredentialKind, Principal, Role};
use agentrouter_rpc::Call;
use agentrouter_storage::CallOrigin;

fn principal(customer: Id<Customer>, slug: &str, role: Option<Role>) -> Principal {
    Principal {
        credential: CredentialKind::ApiKey,
        credential_id: format!("key_{}", role.map_or("none", Role::as_str)),
        secret: None,
        customer,
        customer_slug: slug.to_owned(),
        role,
        identity: None,
        workspace: None,
        expires_at: None,
    }
}

/// An operator key of a customer.
pub fn operator(customer: Id<Customer>, slug: &str) -> Principal {
    principal(customer, slug, Some(Role::Operator))
}

/// An admin key of a customer.
pub fn admin(customer: Id<Customer>, slug: &str) -> Principal {
    principal(customer, slug, Some(Role::Admin))
}

/// A viewer key of a customer.
pub fn viewer(customer: Id<Customer>, slug: &str) -> Principal {
    principal(customer, slug, Some(Role::Viewer))
}

/// A session of an identity, with or without a role.
pub fn session(customer: Id<Customer>, slug: &str, identity: Id<Identity>, role: Option<Role>) -> Principal {
    Principal {
        credential: CredentialKind::Session,
        credential_id: format!("tok_{identity}"),
        identity: Some(identity),
        ..principal(customer, slug, role)
    }
}

/// A workspace token.
pub fn workspace(
    customer: Id<Customer>,
    slug: &str,
    workspace: Id<Workspace>,
    workspace_slug: &str,
) -> Principal {
    Principal {
        credential: CredentialKind::Workspace,
        credential_id: format!("tok_{workspace}"),
        workspace: Some((workspace, workspace_slug.to_owned())),
        ..principal(customer, slug, None)
    }
}

/// The context of a call of this caller.
pub fn call(caller: &Principal) -> Call {
    Call {
        method: "test.v1.TestService/Test".to_owned(),
        action: "test".to_owned(),
        caller: Some(caller.clone()),
        origin: CallOrigin { request_id: "request-1".to_owned(), peer: "127.0.0.1:1".to_owned() },
        customer_header: None,
        idempotency_key: None,
    }
}

/// A request as a service sees it.
pub fn request<T>(call: Call, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(call);
    request
}
