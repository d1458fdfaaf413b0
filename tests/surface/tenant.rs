//! A tenant with something of everything, made through the API, and those who call in its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use agentrouter_kernel::id::{self, Id};
use serde_json::{Value, json};

use super::client::{self, Client, Outcome};
use super::table::{Access, Role, Rpc};

/// Who calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Caller {
    /// A key with the role admin.
    Admin,
    /// A key with the role viewer.
    Viewer,
    /// A session with the role admin, of an identity that is a member of nothing.
    AdminSession,
    /// A session with the role viewer, of the same identity.
    ViewerSession,
    /// A session without a role, of the same identity.
    Outsider,
    /// A session without a role, of a member of the project.
    Member,
    /// A session without a role, of an admin of the project.
    ProjectAdmin,
    /// The token of the workspace.
    Workspace,
    /// The token of the workspace beside it.
    Sibling,
}

impl Caller {
    pub(crate) const ALL: [Self; 9] = [
        Self::Admin,
        Self::Viewer,
        Self::AdminSession,
        Self::ViewerSession,
        Self::Outsider,
        Self::Member,
        Self::ProjectAdmin,
        Self::Workspace,
        Self::Sibling,
    ];
}

/// How rows are named: by slug where they have one, or by row id where they have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Slug,
    Id,
}

/// The slugs that a tenant gives to its rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    pub(crate) customer: &'static str,
    /// The end of all slugs but that of the workspace; the same in two tenants, or not.
    pub(crate) suffix: &'static str,
}

/// A tenant.
pub(crate) struct Tenant {
    pub(crate) customer: Id<id::Customer>,
    /// In every text that people choose, except slugs.
    pub(crate) canary: String,
    /// What nobody may see again, by what it is.
    pub(crate) secrets: Vec<(String, String)>,
    /// What `$name` stands for: slug and row id, of which one may be empty.
    rows: BTreeMap<&'static str, (String, String)>,
    tokens: BTreeMap<Caller, String>,
    operator: String,
}

impl Tenant {
    /// Creates a tenant.
    pub(crate) async fn create(client: &Client, operator: &str, names: Names) -> Self {
        let canary = format!("canary{:08x}", u32::from_be_bytes(random()));
        let created = json!({
            "customer_id": names.customer, "display_name": canary, "description": canary, "labels": {"note": canary},
        });
        let created = client.ask("TenancyService/CreateCustomer", &created, operator).await;
        let customer = text(&created["id"]);
        let mut setup =
            Setup { client, operator, canary: &canary, names, secrets: Vec::new(), rows: BTreeMap::new() };
        setup.name("$customer", names.customer, &customer);
        // Purging leaves nothing to go on with, so it is about another customer, which is archived already.
        let purged = format!("{}-purged", names.customer);
        let created =
            client.ask("TenancyService/CreateCustomer", &json!({"customer_id": purged}), operator).await;
        client.ask("TenancyService/ArchiveCustomer", &json!({"customer_id": purged}), operator).await;
        setup.name("$purged_customer", &purged, &text(&created["id"]));
        let mut tokens = BTreeMap::new();
        tokens.insert(Caller::Admin, setup.key("admin").await.1);
        tokens.insert(Caller::Viewer, setup.key("viewer").await.1);
        let admin = tokens[&Caller::Admin].clone();
        setup.projects(&admin, &mut tokens).await;
        let customer = Id::parse(&customer).unwrap();
        setup.providers(&admin).await;
        setup.backends(&admin).await;
        setup.workspaces(&admin, &mut tokens).await;
        setup.upgrades(&admin, &tokens).await;
        setup.webhooks(&admin).await;
        let Setup { secrets, rows, .. } = setup;
        Self { customer, secrets, rows, tokens, operator: operator.to_owned(), canary }
    }

    /// The bearer token of a caller.
    pub(crate) fn token(&self, caller: Caller) -> &str {
        &self.tokens[&caller]
    }

    /// The name of a row.
    pub(crate) fn name(&self, placeholder: &str, form: Form) -> String {
        let (slug, id) = &self.rows[placeholder];
        let (first, second) = if form == Form::Slug { (slug, id) } else { (id, slug) };
        if first.is_empty() { second.clone() } else { first.clone() }
    }

    /// The request of an RPC about this tenant's rows.
    pub(crate) fn request(&self, rpc: &Rpc, form: Form) -> Value {
        fill(rpc.request, &|placeholder| self.name(placeholder, form))
    }

    /// Calls an RPC as somebody who may, about this tenant's rows.
    pub(crate) async fn call_rightly(&self, client: &Client, rpc: &Rpc) -> Outcome {
        client.call(rpc.name, &self.request(rpc, Form::Slug), Some(self.rightful(rpc))).await
    }

    /// Calls an RPC about this tenant's rows as somebody who may, and then as everybody else; reads by row id, too.
    /// Each outcome comes with who called.
    pub(crate) async fn call_as_everybody(&self, client: &Client, rpc: &Rpc) -> Vec<(String, Outcome)> {
        let mut outcomes = vec![("Rightful".to_owned(), self.call_rightly(client, rpc).await)];
        let forms = if client::only_reads(rpc.name) { &[Form::Slug, Form::Id][..] } else { &[Form::Slug] };
        for caller in Caller::ALL {
            for form in forms {
                let request = self.request(rpc, *form);
                let outcome = client.call(rpc.name, &request, Some(self.token(caller))).await;
                outcomes.push((format!("{caller:?}"), outcome));
            }
        }
        outcomes
    }

    /// The token of somebody who may call an RPC.
    pub(crate) fn rightful(&self, rpc: &Rpc) -> &str {
        match rpc.access {
            Access::Workspace | Access::RoleOrWorkspace(_) => self.token(Caller::Workspace),
            Access::Role(Role::Operator) => &self.operator,
            _ => self.token(Caller::Admin),
        }
    }
}

/// A request with every `$name` replaced.
pub(crate) fn fill(request: &str, name: &dyn Fn(&str) -> String) -> Value {
    fn walk(value: &mut Value, name: &dyn Fn(&str) -> String) {
        match value {
            Value::String(text) if text.starts_with('$') => *text = name(text),
            Value::Array(items) => items.iter_mut().for_each(|item| walk(item, name)),
            Value::Object(members) => members.values_mut().for_each(|member| walk(member, name)),
            _ => {}
        }
    }
    let mut request = serde_json::from_str(request).unwrap_or_else(|error| panic!("{request}: {error}"));
    walk(&mut request, name);
    request
}

/// The rows that the request of an RPC names, apart from the customer.
pub(crate) fn placeholders(rpc: &Rpc) -> Vec<String> {
    // The token of a claim is no row.
    let is_row = |part: &&str| part.starts_with('$') && !matches!(*part, "$customer" | "$claim");
    let found = rpc.request.split('"').filter(is_row);
    found.map(str::to_owned).collect()
}

/// A name of the same form that no row has.
pub(crate) fn missing_name(name: &str) -> String {
    let unknown =
        Id::<id::Customer>::from_uuid(uuid::Uuid::from_u128(u128::from_be_bytes(random()))).to_string();
    match name.rsplit_once('_') {
        Some((prefix, digits)) if digits.len() == 26 => unknown.replace("cust", prefix),
        _ => format!("no-such-{name}"),
    }
}

fn random<const N: usize>() -> [u8; N] {
    agentrouter_envelope::random_bytes::<N>().unwrap()
}

/// A tenant in the making.
struct Setup<'a> {
    client: &'a Client,
    operator: &'a str,
    canary: &'a str,
    names: Names,
    secrets: Vec<(String, String)>,
    rows: BTreeMap<&'static str, (String, String)>,
}

impl Setup<'_> {
    fn name(&mut self, placeholder: &'static str, slug: &str, id: &str) {
        self.rows.insert(placeholder, (slug.to_owned(), id.to_owned()));
    }

    fn slug(&self, name: &str) -> String {
        format!("{name}{}", self.names.suffix)
    }

    /// Calls with an idempotency key, so that the answer is kept.
    async fn ask(&self, name: &str, mut request: Value, token: &str) -> Value {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let key = format!("setup-{}", CALLS.fetch_add(1, Ordering::Relaxed));
        if client::method(name).input().get_field_by_name("customer_id").is_some() {
            request["customer_id"] = self.names.customer.into();
        }
        let outcome = self.client.call_with(name, &request, Some(token), &[("idempotency-key", &key)]).await;
        outcome.unwrap_or_else(|refusal| panic!("{name} {request}: {refusal:?}"))
    }

    async fn identity(&self, name: &str) -> String {
        let email = format!("{name}@{}.example", self.canary);
        let request = json!({"display_name": self.canary, "email": email});
        text(&self.ask("IdentitiesService/CreateIdentity", request, self.operator).await["id"])
    }

    /// Row id and secret of a new key.
    async fn key(&mut self, role: &str) -> (String, String) {
        let request = json!({"display_name": self.canary, "role": role});
        self.created_key(&format!("a key with the role {role}"), request).await
    }

    async fn created_key(&mut self, what: &str, request: Value) -> (String, String) {
        let created = self.ask("ApiKeysService/CreateApiKey", request, self.operator).await;
        let secret = text(&created["key"]);
        self.secrets.push((what.to_owned(), secret.clone()));
        (text(&created["api_key"]["id"]), secret)
    }

    /// Row id and token of a new session.
    async fn session(&mut self, identity: &str, role: &str, admin: &str) -> (String, String) {
        let request = json!({"identity_id": identity, "role": role});
        let created = self.ask("SessionsService/CreateSession", request, admin).await;
        let token = text(&created["token"]);
        self.secrets.push((format!("a session with the role {role}"), token.clone()));
        (text(&created["session"]["id"]), token)
    }

    /// Identities, projects with members, sessions, and the keys that calls are about.
    async fn projects(&mut self, admin: &str, tokens: &mut BTreeMap<Caller, String>) {
        for (placeholder, name, is_archived) in [
            ("$project", "garden", false),
            ("$archived_project", "attic", true),
            ("$purged_project", "cellar", true),
        ] {
            let slug = self.slug(name);
            let request = json!({
                "project_id": slug, "display_name": self.canary, "description": self.canary,
                "labels": {"note": self.canary},
            });
            let created = self.ask("ProjectsService/CreateProject", request, admin).await;
            self.name(placeholder, &slug, &text(&created["id"]));
            if is_archived {
                self.ask("ProjectsService/ArchiveProject", json!({"project_id": slug}), admin).await;
            }
        }
        let garden = self.slug("garden");
        for (name, role, caller) in [
            ("member", "member", Some(Caller::Member)),
            ("project-admin", "admin", Some(Caller::ProjectAdmin)),
            ("removed", "member", None),
        ] {
            let identity = self.identity(name).await;
            let request = json!({"project_id": garden, "identity_id": identity, "role": role});
            self.ask("ProjectsService/AddProjectMember", request, admin).await;
            match caller {
                Some(caller) => {
                    tokens.insert(caller, self.session(&identity, "member", admin).await.1);
                }
                None => self.name("$member", "", &identity),
            }
        }
        let outsider = self.identity("outsider").await;
        for (caller, role) in
            [(Caller::AdminSession, "admin"), (Caller::ViewerSession, "viewer"), (Caller::Outsider, "member")]
        {
            tokens.insert(caller, self.session(&outsider, role, admin).await.1);
        }
        let target = self.identity("target").await;
        self.name("$identity", "", &target);
        let session = self.session(&target, "viewer", admin).await.0;
        self.name("$session", "", &session);
        let key = self.key("viewer").await.0;
        self.name("$api_key", "", &key);
        let gateway =
            json!({"display_name": self.canary, "kind": "API_KEY_KIND_GATEWAY", "identity_id": target});
        self.created_key("a gateway key", gateway).await;
    }

    /// Two providers with keys, and two MCP servers with a profile each.
    async fn providers(&mut self, admin: &str) {
        let url = format!("https://{}.example/v1", self.canary);
        for (name, placeholders) in
            [("first", Some(("$provider", "$mcp_server", "$mcp_profile"))), ("second", None)]
        {
            let slug = self.slug(name);
            let key = format!("sk-{:032x}", u128::from_be_bytes(random()));
            let request = json!({
                "provider_id": slug, "display_name": self.canary, "schema": "PROVIDER_SCHEMA_OPENAI",
                "base_url": url, "models": [self.canary], "api_key": key, "labels": {"note": self.canary},
            });
            let provider = self.ask("ProvidersService/CreateProvider", request, admin).await;
            self.secrets.push((format!("the key of a provider ({name})"), key));
            let server = self.slug(&format!("{name}-server"));
            let request = json!({
                "id": server, "url": url, "name": self.canary, "description": self.canary, "icon_url": url,
                "categories": [self.canary], "authentication": "none",
            });
            self.ask("ConfiguratorService/UpsertMCPCatalogServer", request, admin).await;
            let profile = self.slug(&format!("{name}-profile"));
            let request = json!({
                "mcp_profile_id": profile, "user_id": "somebody", "key_id": name, "display_name": self.canary,
                "servers": [{"server_id": server, "tools": [self.canary]}],
            });
            let created = self.ask("McpProfilesService/CreateMcpProfile", request, admin).await;
            if let Some((of_provider, of_server, of_profile)) = placeholders {
                self.name(of_provider, &slug, &text(&provider["id"]));
                self.name(of_server, &server, "");
                self.name(of_profile, &profile, &text(&created["id"]));
            }
        }
    }

    /// Backends of somebody, one of them with a key that is kept here.
    async fn backends(&mut self, admin: &str) {
        let key = format!("sk-{:032x}", u128::from_be_bytes(random()));
        let backend = |name: &str| {
            json!({
                "name": name, "schema": "openai", "base_url": format!("https://{}.example", self.canary),
                "models": [self.canary], "secret_ref": self.canary,
            })
        };
        let mut sealed = backend("sealed");
        sealed["credential"] = json!({"value": key});
        let request = json!({
            "user_id": "somebody", "key_address": self.canary, "backends": [sealed, backend("plain")],
        });
        self.ask("ConfiguratorService/SaveBYOKBackends", request, admin).await;
        self.secrets.push(("a key that somebody brought".to_owned(), key));
    }

    /// Two webhooks, each with two messages that wait for it. Nothing listens there.
    async fn webhooks(&mut self, admin: &str) {
        for name in ["first", "second"] {
            let request = json!({
                "display_name": self.canary, "url": format!("https://{}.invalid/{name}", self.canary),
                "labels": {"note": self.canary},
            });
            let created = self.ask("WebhooksService/CreateWebhook", request, admin).await;
            let webhook = text(&created["webhook"]["id"]);
            self.secrets.push((format!("the secret of a webhook ({name})"), text(&created["secret"])));
            for _ in 0..2 {
                self.ask("WebhooksService/TestWebhook", json!({"webhook_id": webhook}), admin).await;
            }
            self.name("$webhook", "", &webhook);
        }
    }

    /// An upgrade that waits for credentials it was given, and a completed one of the other workspace.
    async fn upgrades(&mut self, admin: &str, tokens: &BTreeMap<Caller, String>) {
        for (placeholder, workspace, caller) in [
            ("$upgrade", "$workspace", Caller::Workspace),
            ("$completed_upgrade", "$sibling", Caller::Sibling),
        ] {
            let (worker, workspace) = (&tokens[&caller], self.rows[workspace].0.clone());
            let trigger = json!({
                "config_type": "CONFIG_TYPE_DATAPLANE_UPGRADE", "workspace_id": workspace,
                "metadata": {"target_version": "2.0.0", "values": {"note": self.canary}},
            });
            let triggered = self.ask("ConfiguratorService/TriggerUpdate", trigger, admin).await;
            let event = text(&triggered["event_ids"][0]);
            self.name(placeholder, "", &event);
            let claim = json!({"event_id": event, "worker_id": self.canary, "lease": "900s"});
            self.ask("ConfiguratorService/AcknowledgeEvent", claim, worker).await;
            let report = |phase: &str| json!({"event_id": event, "phase": phase, "message": self.canary});
            if caller == Caller::Sibling {
                let report = report("UPGRADE_PHASE_COMPLETED");
                self.ask("ConfiguratorService/ReportDataplaneUpgrade", report, worker).await;
                let completion = json!({"event_id": event, "worker_id": self.canary, "success": true});
                self.ask("ConfiguratorService/CompleteEvent", completion, worker).await;
                continue;
            }
            let mut report = report("UPGRADE_PHASE_NEEDS_CREDENTIALS");
            report["required_credentials"] = json!(["chart"]);
            self.ask("ConfiguratorService/ReportDataplaneUpgrade", report, worker).await;
            let password = format!("password-{:032x}", u128::from_be_bytes(random()));
            let login = json!({
                "slot": "chart", "registry": "registry.example", "username": self.canary, "password": password,
            });
            let submission = json!({"upgrade_event_id": event, "credentials": [login]});
            self.ask("ConfiguratorService/SubmitDataplaneUpgradeCredentials", submission, admin).await;
            self.secrets.push(("a password for a registry".to_owned(), password));
        }
    }

    /// Two workspaces with tokens, one of which has failed to apply something, and the events that wait for them.
    async fn workspaces(&mut self, admin: &str, tokens: &mut BTreeMap<Caller, String>) {
        let sibling = self.slug("sibling");
        // The first of them has the same slug in every tenant.
        for (placeholder, slug, caller) in
            [("$workspace", "edge", Caller::Workspace), ("$sibling", &sibling, Caller::Sibling)]
        {
            let request =
                json!({"workspace_id": slug, "display_name": self.canary, "labels": {"note": self.canary}});
            let created = self.ask("WorkspacesService/CreateWorkspace", request, admin).await;
            self.name(placeholder, slug, &text(&created["id"]));
            let issued =
                self.ask("WorkspacesService/IssueWorkspaceToken", json!({"workspace_id": slug}), admin).await;
            let token = text(&issued["token"]);
            self.secrets.push((format!("the token of the workspace {slug}"), token.clone()));
            tokens.insert(caller, token);
        }
        let catalog = json!({"user_id": "system", "config_type": "CONFIG_TYPE_MCP_CATALOG"});
        self.ask("ConfiguratorService/TriggerUpdate", catalog, admin).await;

        let poll = json!({"doctor_runtime": {"message": self.canary, "image": self.canary}});
        for (placeholder, caller) in [("$event", Caller::Workspace), ("$sibling_event", Caller::Sibling)] {
            let polled =
                self.ask("ConfiguratorService/ListPendingEvents", poll.clone(), &tokens[&caller]).await;
            let catalog = event(&polled, "CONFIG_TYPE_MCP_CATALOG", "");
            let configuration = json!({"config_type": "CONFIG_TYPE_PROVIDERS"});
            let listed = self.ask("ConfiguratorService/ListConfigurations", configuration, admin).await;
            self.name("$configuration", "", &text(&listed["configurations"][0]["id"]));
            self.name(placeholder, "", &catalog);
            if caller == Caller::Workspace {
                self.name("$batched_event", "", &event(&polled, "CONFIG_TYPE_MCP_PROFILE", "first"));
                // Another one is held by its worker.
                let held = event(&polled, "CONFIG_TYPE_MCP_PROFILE", "second");
                self.name("$held_event", "", &held);
                let claim = json!({"event_id": held, "worker_id": self.canary, "lease": "900s"});
                let held = self.ask("ConfiguratorService/AcknowledgeEvent", claim, &tokens[&caller]).await;
                self.name("$claim", &text(&held["claim_token"]), "");
            }
        }
        let event = self.rows["$sibling_event"].1.clone();
        let claim = json!({"event_id": event, "worker_id": self.canary});
        self.ask("ConfiguratorService/AcknowledgeEvent", claim, &tokens[&Caller::Sibling]).await;
        let failure = json!({
            "event_id": event, "worker_id": self.canary, "success": false, "permanent": true,
            "error_message": self.canary, "resources": [{"resource": self.canary, "reason": self.canary}],
        });
        self.ask("ConfiguratorService/CompleteEvent", failure, &tokens[&Caller::Sibling]).await;
    }
}

/// The event for a slot among those that wait.
fn event(polled: &Value, config_type: &str, key: &str) -> String {
    let mut events = polled["events"].as_array().into_iter().flatten();
    let found = events.find(|event| event["config_type"] == config_type && event["key_id"] == key);
    text(&found.unwrap_or_else(|| panic!("no event of {config_type} {key}: {polled}"))["id"])
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
