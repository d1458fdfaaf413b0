//! Every RPC refuses whoever may not call it: with the right code and reason, without a change, and without telling
//! whether what they named exists.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;
mod surface;

mod authz {
    pub(crate) mod credentials;
    pub(crate) mod naming;

    pub(crate) use super::World;
}

use std::collections::BTreeSet;

use agentrouter_testkit::{TestDb, on_both_engines};
use authz::{credentials, naming};
use common::{OPERATOR_KEY, TestServer};
use serde_json::{Value, json};
use surface::client::{Client, Outcome, Refusal, item_failure, methods, only_reads, short_name};
use surface::dump::{Dump, Reader};
use surface::table::{Access, RPCS, Role, Rpc};
use surface::tenant::{Caller, Form, Names, Tenant};
use tonic::Code;

on_both_engines!(
    rightful_calls_succeed,
    bad_credentials_are_refused,
    roles_are_enforced,
    rows_of_other_tenants_do_not_exist,
    rows_of_other_workspaces_do_not_exist,
    only_operators_name_customers_by_header,
    keys_above_the_own_role_do_not_exist,
);

/// A server with two tenants that have nothing in common but the slug of a workspace.
pub(crate) struct World {
    pub(crate) server: TestServer,
    pub(crate) client: Client,
    reader: Reader,
    pub(crate) acme: Tenant,
    pub(crate) globex: Tenant,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let server = TestServer::start(db).await;
        let client = Client(server.channel().await);
        let db = &server.test_db.db;
        let acme = Names { customer: "acme", suffix: "-of-acme" };
        let acme = Tenant::create(&client, OPERATOR_KEY, acme).await;
        let globex = Names { customer: "globex", suffix: "-of-globex" };
        let globex = Tenant::create(&client, OPERATOR_KEY, globex).await;
        let reader = Reader::new(db).await;
        Self { server, client, reader, acme, globex }
    }

    pub(crate) async fn as_operator(&self, name: &str, request: Value) -> Value {
        self.client.ask(name, &request, OPERATOR_KEY).await
    }

    async fn state(&self) -> Dump {
        self.reader.state().await
    }

    /// Asserts that nothing changed, and by whom.
    async fn unchanged_by(&self, rpc: &Rpc, before: &Dump) {
        let mut differences = before.differences(&self.state().await);
        let now = self.server.test_db.db.now().await.unwrap().as_micros();
        // A job sweeps away what has ended.
        differences.retain(|row| token_end(row).is_none_or(|end| end > now));
        assert!(differences.is_empty(), "{} was refused and changed {differences:#?}", rpc.name);
    }
}

/// When a token ends, where a row is one.
fn token_end(row: &str) -> Option<i64> {
    let columns: Value = serde_json::from_str(row.strip_prefix("tokens ")?).unwrap();
    columns["expires_at"].as_i64()
}

// Behaviour 40: an RPC that the table lacks fails here.
#[test]
fn every_rpc_is_in_the_table_once() {
    let declared: BTreeSet<String> = methods().map(|method| short_name(&method)).collect();
    let listed: BTreeSet<String> = RPCS.iter().map(|rpc| rpc.name.to_owned()).collect();
    assert_eq!(listed.len(), RPCS.len(), "an RPC is listed twice");
    assert_eq!(declared, listed);
    assert!(declared.len() > 90, "{} RPCs", declared.len());
}

/// Writes by what they may do, which change nothing when asked for what is there already.
const IDLE: [&str; 3] = [
    "ConfiguratorService/FetchDataplaneUpgradeCredentials",
    "ConfiguratorService/GetConfiguration",
    "ConfiguratorService/TriggerUpdate",
];

/// Without this the rest would prove little: each request is one that only its caller makes wrong, and what a write
/// changes is seen.
async fn rightful_calls_succeed(db: TestDb) {
    let world = World::new(db).await;
    let mut before = world.state().await;
    let mut idle = BTreeSet::new();
    for rpc in RPCS {
        let outcome = world.acme.call_rightly(&world.client, rpc).await;
        let state = world.state().await;
        let differences = before.differences(&state);
        if !rpc.is_served || only_reads(rpc.name) {
            assert_eq!(differences, [""; 0], "{} {outcome:?}", rpc.name);
        } else if differences.is_empty() {
            idle.insert(rpc.name);
        }
        before = state;
        if rpc.is_served {
            let answer = outcome.unwrap_or_else(|refusal| panic!("{}: {refusal:?}", rpc.name));
            assert_ne!(answer["success"], false, "{}: {answer}", rpc.name);
            assert_eq!(item_failure(&answer), None, "{}: {answer}", rpc.name);
        } else {
            expect(rpc, "whoever may", &outcome, (Code::Unimplemented, "UNIMPLEMENTED"));
        }
    }
    assert_eq!(idle, BTreeSet::from(IDLE));
    world.server.stop().await;
}

// Behaviour 40: no token, and every kind of bad one.
async fn bad_credentials_are_refused(db: TestDb) {
    let world = World::new(db).await;
    let bad = credentials::bad(&world).await;
    let before = world.state().await;
    let mut first: Option<Refusal> = None;
    for rpc in RPCS {
        let request = world.acme.request(rpc, Form::Slug);
        for (what, token) in &bad {
            let outcome = world.client.call(rpc.name, &request, token.as_deref()).await;
            let refusal = expect(rpc, what, &outcome, (Code::Unauthenticated, "UNAUTHENTICATED"));
            // Nobody learns what is wrong with it.
            assert_eq!(refusal, first.get_or_insert_with(|| refusal.clone()), "{}: {what}", rpc.name);
        }
        world.unchanged_by(rpc, &before).await;
    }
    world.server.stop().await;
}

// Behaviour 40: the wrong role.
async fn roles_are_enforced(db: TestDb) {
    let world = World::new(db).await;
    let before = world.state().await;
    for rpc in RPCS {
        let request = world.acme.request(rpc, Form::Slug);
        for caller in Caller::ALL {
            let call = world.client.call(rpc.name, &request, Some(world.acme.token(caller)));
            let what = format!("{caller:?}");
            match refused_by_role(rpc, caller) {
                Some(expected) => drop(expect(rpc, &what, &call.await, expected)),
                None if !rpc.is_served => {
                    expect(rpc, &what, &call.await, (Code::Unimplemented, "UNIMPLEMENTED"));
                }
                None if only_reads(rpc.name) => {
                    call.await.unwrap_or_else(|refusal| panic!("{} {what}: {refusal:?}", rpc.name));
                }
                None => {}
            }
        }
        world.unchanged_by(rpc, &before).await;
    }
    world.server.stop().await;
}

// Behaviour 39: what belongs to another tenant is answered like what does not exist, whatever the request names.
// Behaviour 40: the wrong tenant, and ids that lead nowhere.
async fn rows_of_other_tenants_do_not_exist(db: TestDb) {
    let world = World::new(db).await;
    let before = world.state().await;
    for rpc in RPCS {
        for naming in naming::of_tenant(rpc, &world.globex, &world.acme) {
            for caller in Caller::ALL.into_iter().filter(|caller| *caller != Caller::Sibling) {
                let token = world.globex.token(caller);
                match refused_by_role(rpc, caller) {
                    None => naming.check(&world.client, token, naming.refusal(rpc, caller)).await,
                    // Whoever may not call at all learns no more from the names of others.
                    Some(expected) if caller == Caller::Admin => {
                        naming.check(&world.client, token, expected).await;
                    }
                    Some(_) => {}
                }
            }
            // Operators may see the row, but not as a part of another customer. Customers are all theirs.
            let is_customer = matches!(naming.placeholder.as_str(), "$customer" | "$purged_customer");
            if !is_customer && rpc.access != Access::Workspace {
                naming.check(&world.client, OPERATOR_KEY, naming.refusal(rpc, Caller::Admin)).await;
            }
        }
        world.unchanged_by(rpc, &before).await;
    }
    world.server.stop().await;
}

// Behaviour 39: a workspace token that names another workspace is told the same whether or not that exists.
// Behaviour 40: the wrong workspace.
async fn rows_of_other_workspaces_do_not_exist(db: TestDb) {
    let world = World::new(db).await;
    let before = world.state().await;
    for rpc in RPCS.iter().filter(|rpc| matches!(rpc.access, Access::Workspace | Access::RoleOrWorkspace(_)))
    {
        for naming in naming::of_workspace(rpc, &world.acme) {
            let expected = naming.refusal(rpc, Caller::Sibling);
            naming.check(&world.client, world.acme.token(Caller::Sibling), expected).await;
        }
        world.unchanged_by(rpc, &before).await;
    }
    world.server.stop().await;
}

async fn only_operators_name_customers_by_header(db: TestDb) {
    let world = World::new(db).await;
    let before = world.state().await;
    let other = world.acme.name("$customer", Form::Id);
    for rpc in RPCS {
        let request = world.globex.request(rpc, Form::Slug);
        let call = async |token: &str, customer: &str| -> Outcome {
            let header = [("x-agentrouter-customer", customer)];
            world.client.call_with(rpc.name, &request, Some(token), &header).await
        };
        for caller in [Caller::Admin, Caller::ProjectAdmin, Caller::Workspace] {
            let expected = match refused_by_role(rpc, caller) {
                Some(expected @ (Code::PermissionDenied, reason)) if reason != "API_KEY_REQUIRED" => expected,
                _ => (Code::PermissionDenied, "OPERATOR_REQUIRED"),
            };
            for customer in ["globex", "acme", &other, "no-such-customer"] {
                let outcome = call(world.globex.token(caller), customer).await;
                expect(rpc, &format!("{caller:?} with the header {customer}"), &outcome, expected);
            }
        }
        if rpc.is_served && rpc.access != Access::Workspace && rpc.request.contains("$customer") {
            for customer in ["acme", &other, "no-such-customer"] {
                let outcome = call(OPERATOR_KEY, customer).await;
                let what = format!("an operator with the header {customer}");
                let refusal = expect(rpc, &what, &outcome, (Code::InvalidArgument, "INVALID_FIELDS"));
                assert_eq!(refusal.violations(), ["x-agentrouter-customer"], "{} {what}", rpc.name);
            }
        }
        world.unchanged_by(rpc, &before).await;
    }
    world.server.stop().await;
}

async fn keys_above_the_own_role_do_not_exist(db: TestDb) {
    let world = World::new(db).await;
    let key = json!({"customer_id": "acme", "display_name": "key", "role": "operator"});
    let operator =
        world.as_operator("ApiKeysService/CreateApiKey", key.clone()).await["api_key"]["id"].take();
    let operator = operator.as_str().unwrap();
    let before = world.state().await;
    for rpc in RPCS.iter().filter(|rpc| rpc.request.contains("$api_key")) {
        let naming = naming::of_row(rpc, &world.acme, "$api_key", operator);
        let expected = (Code::NotFound, "API_KEY_NOT_FOUND");
        naming.check(&world.client, world.acme.token(Caller::Admin), expected).await;
        world.unchanged_by(rpc, &before).await;
    }
    let listed = json!({"customer_id": "acme", "show_deleted": true, "page": {"page_size": 1000}});
    let listed =
        world.client.ask("ApiKeysService/ListApiKeys", &listed, world.acme.token(Caller::Admin)).await;
    assert!(!listed.to_string().contains(operator), "{listed}");
    let identity = world.acme.name("$identity", Form::Id);
    for (name, request) in [
        ("ApiKeysService/CreateApiKey", key),
        ("SessionsService/CreateSession", json!({"identity_id": identity, "role": "operator"})),
    ] {
        let outcome = world.client.call(name, &request, Some(world.acme.token(Caller::Admin))).await;
        assert_eq!(outcome.unwrap_err().kind(), (Code::PermissionDenied, "ROLE_ABOVE_CALLER"), "{name}");
    }
    assert_eq!(before.differences(&world.state().await), [""; 0]);
    world.server.stop().await;
}

/// How a caller is refused by an RPC about rows of its own tenant; none where it is not.
fn refused_by_role(rpc: &Rpc, caller: Caller) -> Option<(Code, &'static str)> {
    use Caller::{
        Admin, AdminSession, Member, Outsider, ProjectAdmin, Sibling, Viewer, ViewerSession, Workspace,
    };
    let denied = |reason| Some((Code::PermissionDenied, reason));
    let own_role = match caller {
        Admin | AdminSession => Role::Admin,
        Viewer | ViewerSession => Role::Viewer,
        Outsider | Member | ProjectAdmin | Workspace | Sibling => Role::Any,
    };
    match (rpc.access, caller) {
        // The request names the workspace beside its own.
        (Access::Workspace | Access::RoleOrWorkspace(_), Sibling)
            if rpc.request.contains("\"$workspace\"") =>
        {
            return denied("WORKSPACE_MISMATCH");
        }
        (Access::Workspace | Access::RoleOrWorkspace(_), Workspace | Sibling) => return None,
        (Access::Workspace, _) => return denied("WORKSPACE_CLAIM_REQUIRED"),
        (_, Workspace | Sibling) => return denied("WORKSPACE_TOKEN_REFUSED"),
        _ => {}
    }
    // What these two need follows from whose session it is.
    match (rpc.name, caller) {
        ("SessionsService/CreateSession", Admin)
        | ("SessionsService/RevokeSession", Admin | AdminSession) => {
            return None;
        }
        ("SessionsService/CreateSession" | "SessionsService/RevokeSession", Viewer)
        | ("SessionsService/RevokeSession", ViewerSession) => return denied("ROLE_REQUIRED"),
        ("SessionsService/CreateSession", _) => return denied("API_KEY_REQUIRED"),
        ("SessionsService/RevokeSession", _) => return Some((Code::NotFound, "SESSION_NOT_FOUND")),
        _ => {}
    }
    match (rpc.access, caller) {
        (
            Access::Role(needed)
            | Access::RoleOrWorkspace(needed)
            | Access::RoleOrMember(needed)
            | Access::RoleOrProjectAdmin(needed),
            _,
        ) if own_role >= needed => None,
        (Access::RoleOrMember(_), Member | ProjectAdmin) | (Access::RoleOrProjectAdmin(_), ProjectAdmin) => {
            None
        }
        (Access::RoleOrMember(_) | Access::RoleOrProjectAdmin(_), Outsider) => {
            Some((Code::NotFound, "PROJECT_NOT_FOUND"))
        }
        (Access::RoleOrProjectAdmin(_), Member | ViewerSession) => denied("PROJECT_ROLE_REQUIRED"),
        _ => denied("ROLE_REQUIRED"),
    }
}

/// Asserts that a call was refused, and how.
#[track_caller]
fn expect<'a>(rpc: &Rpc, what: &str, outcome: &'a Outcome, expected: (Code, &str)) -> &'a Refusal {
    match outcome {
        Err(refusal) => {
            assert_eq!(refusal.kind(), expected, "{} {what}: {refusal:?}", rpc.name);
            refusal
        }
        Ok(answer) => panic!("{} {what}: answered with {answer}", rpc.name),
    }
}
