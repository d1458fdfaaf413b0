//! A tenant with something of everything, made through the API, and those who call in its name.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};

use agentrouter_kernel::id::{self, Id};
use agentrouter_storage::{Db, query};
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
    /// Creates a tenant. `db` is where rows go that no RPC makes yet.
    pub(crate) async fn create(client: &Client, db: &Db, operator: &str, names: Names) -> Self {
        let canary = format!("canary{:08x}", u32::from_be_bytes(random()));
        let created = json!({
            "customer_id": names.customer, "display_name": canary, "description": canary, "labels": {"note": canary},
        });
        let created = client.ask("TenancyService/CreateCustomer", &created, operator).await;
        let customer = text(&created["id"]);
        let mut setup =
            Setup { client, operator, canary: &canary, names, secrets: Vec::new(), rows: BTreeMap::new() };
        setup.name("$customer", names.customer, &customer);
        let mut tokens = BTreeMap::new();
        tokens.insert(Caller::Admin, setup.key("admin").await.1);
        tokens.insert(Caller::Viewer, setup.key("viewer").await.1);
        let admin = tokens[&Caller::Admin].clone();
        setup.projects(&admin, &mut tokens).await;
        let customer = Id::parse(&customer).unwrap();
        setup.providers(db, customer).await;
        setup.workspaces(&admin, &mut tokens).await;
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
    let found = rpc.request.split('"').filter(|part| part.starts_with('$') && *part != "$customer");
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

    /// Two providers with keys, and two MCP servers.
    async fn providers(&mut self, db: &Db, customer: Id<id::Customer>) {
        const INSERT: &str = "INSERT INTO mcp_catalog_servers (customer_id, id, url, name, description, icon_url, \
             categories, authentication, requires_auth, is_enabled, revision, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, $4, $3, '[]', 'none', FALSE, TRUE, 1, $5, $5)";
        let url = format!("https://{}.example/v1", self.canary);
        for (name, placeholder) in [("first", Some("$provider")), ("second", None)] {
            let slug = self.slug(name);
            let key = format!("sk-{:032x}", u128::from_be_bytes(random()));
            let request = json!({
                "provider_id": slug, "display_name": self.canary, "schema": "PROVIDER_SCHEMA_OPENAI",
                "base_url": url, "models": [self.canary], "api_key": key, "labels": {"note": self.canary},
            });
            let created = self.ask("ProvidersService/CreateProvider", request, self.operator).await;
            self.secrets.push((format!("the key of a provider ({name})"), key));
            if let Some(placeholder) = placeholder {
                self.name(placeholder, &slug, &text(&created["id"]));
            }
            let server = self.slug(&format!("{name}-server"));
            let mut tx = db.begin().await.unwrap();
            let now = tx.now().await.unwrap();
            let insert = query(INSERT).bind(customer).bind(&server).bind(&url).bind(self.canary).bind(now);
            insert.execute(&mut tx).await.unwrap();
            tx.commit_unaudited("test data").await.unwrap();
            self.name("$mcp_server", &server, "");
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
            let event = text(&polled["events"][0]["id"]);
            let configuration = json!({"page_size": 1});
            let listed = self.ask("ConfiguratorService/ListConfigurations", configuration, admin).await;
            self.name("$configuration", "", &text(&listed["configurations"][0]["id"]));
            self.name(placeholder, "", &event);
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

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value} is no text")).to_owned()
}
