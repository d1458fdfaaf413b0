//! Requests that name a row which the caller may not know of.

use serde_json::Value;
use tonic::Code;

use crate::surface::client::{Client, Refusal};
use crate::surface::table::Rpc;
use crate::surface::tenant::{Caller, Form, Tenant, fill, missing_name, placeholders};

/// An RPC about rows that the caller may name, but for one.
pub(crate) struct Naming<'a> {
    rpc: &'a Rpc,
    /// Which of the names in the request it is.
    pub(crate) placeholder: String,
    /// The name of a row that exists.
    existing: String,
    /// What the other names in the request stand for.
    others: Box<dyn Fn(&str) -> String + Send + Sync + 'a>,
}

/// Every way to name a row of another tenant: everything of its, customer included, or one row of its in the own
/// customer.
pub(crate) fn of_tenant<'a>(rpc: &'a Rpc, own: &'a Tenant, other: &'a Tenant) -> Vec<Naming<'a>> {
    let mut namings = Vec::new();
    for form in [Form::Slug, Form::Id] {
        if rpc.request.contains("$customer") {
            namings.push(Naming {
                rpc,
                placeholder: "$customer".to_owned(),
                existing: other.name("$customer", form),
                others: Box::new(move |placeholder| other.name(placeholder, form)),
            });
        }
        for placeholder in placeholders(rpc) {
            // The slug of the workspace is that of an own one.
            let row =
                if placeholder == "$workspace" && form == Form::Slug { "$sibling" } else { &placeholder };
            namings.push(of_row(rpc, own, &placeholder, &other.name(row, form)));
        }
    }
    namings
}

/// Every way for the token of a workspace to name another workspace, or a row of one.
pub(crate) fn of_workspace<'a>(rpc: &'a Rpc, tenant: &'a Tenant) -> Vec<Naming<'a>> {
    let mut namings = Vec::new();
    let of_workspace = ["$workspace", "$event", "$held_event", "$batched_event", "$upgrade"];
    for placeholder in placeholders(rpc).iter().filter(|name| of_workspace.contains(&name.as_str())) {
        for form in [Form::Slug, Form::Id] {
            namings.push(of_row(rpc, tenant, placeholder, &tenant.name(placeholder, form)));
        }
    }
    namings
}

/// The naming of one row among those of a tenant.
pub(crate) fn of_row<'a>(rpc: &'a Rpc, own: &'a Tenant, placeholder: &str, existing: &str) -> Naming<'a> {
    Naming {
        rpc,
        placeholder: placeholder.to_owned(),
        existing: existing.to_owned(),
        others: Box::new(move |placeholder| own.name(placeholder, Form::Slug)),
    }
}

impl Naming<'_> {
    /// How a caller that may call is refused.
    pub(crate) fn refusal(&self, rpc: &Rpc, caller: Caller) -> (Code, &'static str) {
        if !rpc.is_served {
            return (Code::Unimplemented, "UNIMPLEMENTED");
        }
        let by_workspace = matches!(caller, Caller::Workspace | Caller::Sibling);
        let reason = match self.placeholder.as_str() {
            "$workspace" if by_workspace => return (Code::PermissionDenied, "WORKSPACE_MISMATCH"),
            "$customer" | "$purged_customer" => "CUSTOMER_NOT_FOUND",
            "$project" | "$archived_project" | "$purged_project" => "PROJECT_NOT_FOUND",
            "$identity" => "IDENTITY_NOT_FOUND",
            "$member" => "MEMBER_NOT_FOUND",
            "$api_key" => "API_KEY_NOT_FOUND",
            "$session" => "SESSION_NOT_FOUND",
            "$provider" => "PROVIDER_NOT_FOUND",
            "$mcp_server" => "MCP_SERVER_NOT_FOUND",
            "$webhook" => "WEBHOOK_NOT_FOUND",
            "$mcp_profile" => "MCP_PROFILE_NOT_FOUND",
            "$workspace" => "WORKSPACE_NOT_FOUND",
            "$event" | "$sibling_event" | "$held_event" | "$batched_event" => "EVENT_NOT_FOUND",
            "$upgrade" | "$completed_upgrade" => "UPGRADE_NOT_FOUND",
            "$configuration" => "CONFIGURATION_NOT_FOUND",
            other => panic!("{other} has no reason"),
        };
        (Code::NotFound, reason)
    }

    /// Asserts that the call is refused as expected, and exactly as one that names a row which does not exist.
    pub(crate) async fn check(&self, client: &Client, token: &str, expected: (Code, &str)) {
        let refusal = self.refused(client, token, &self.existing).await;
        assert_eq!(refusal.kind(), expected, "{} {}: {refusal:?}", self.rpc.name, self.existing);
        let missing = missing_name(&self.existing);
        let of_missing = self.refused(client, token, &missing).await;
        assert_eq!(
            refusal.without_name(&self.existing),
            of_missing.without_name(&missing),
            "{} tells that {} exists",
            self.rpc.name,
            self.existing,
        );
    }

    async fn refused(&self, client: &Client, token: &str, name: &str) -> Refusal {
        let request: Value = fill(self.rpc.request, &|placeholder| {
            if placeholder == self.placeholder { name.to_owned() } else { (self.others)(placeholder) }
        });
        match client.call(self.rpc.name, &request, Some(token)).await {
            Err(refusal) => refusal,
            Ok(answer) => Refusal::of_item(answer)
                .unwrap_or_else(|answer| panic!("{} {request}: answered with {answer}", self.rpc.name)),
        }
    }
}
