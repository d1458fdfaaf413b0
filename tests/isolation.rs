//! Two customers that name everything alike: no RPC shows, changes or reveals the rows of the other one.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

mod common;
mod surface;

use std::collections::BTreeSet;

use agentrouter_kernel::id::{Customer, Id};
use agentrouter_testkit::{TestDb, on_both_engines};
use common::{OPERATOR_KEY, TestServer};
use serde_json::{Value, json};
use surface::client::{Client, Outcome, method, told};
use surface::dump::{Dump, Reader, as_uuid};
use surface::table::{RPCS, Rpc};
use surface::tenant::{Caller, Form, Names, Tenant};
use tonic::Code;

on_both_engines!(
    no_answer_shows_another_tenant,
    page_tokens_stay_with_their_list,
    filters_do_not_reach_over,
    slots_of_other_users_are_empty,
    events_that_nobody_saw_yet_cannot_be_claimed,
);

struct World {
    server: TestServer,
    client: Client,
    reader: Reader,
    acme: Tenant,
    globex: Tenant,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let server = TestServer::start(db).await;
        let client = Client(server.channel().await);
        let db = &server.test_db.db;
        let [acme, globex] = ["acme", "globex"].map(|customer| Names { customer, suffix: "" });
        let acme = Tenant::create(&client, OPERATOR_KEY, acme).await;
        let globex = Tenant::create(&client, OPERATOR_KEY, globex).await;
        let reader = Reader::new(db).await;
        Self { server, client, reader, acme, globex }
    }

    async fn rows_of(&self, tenant: &Tenant) -> Dump {
        self.reader.state().await.of_customer(tenant.customer.uuid())
    }

    /// What tells of a tenant: the ids of its rows in every form, its slug, its texts and its secrets.
    async fn traces(&self, tenant: &Tenant) -> Vec<String> {
        let rows = self.rows_of(tenant).await;
        let ids: BTreeSet<_> = rows.cells().filter_map(|(_, _, value)| as_uuid(&value)).collect();
        assert!(ids.len() > 40, "{} ids", ids.len());
        let slug = tenant.name("$customer", Form::Slug);
        let mut traces = vec![tenant.canary.clone(), format!("\"{slug}\"")];
        traces.extend(tenant.secrets.iter().map(|(_, secret)| secret.clone()));
        for id in ids {
            let text = Id::<Customer>::from_uuid(id).to_string();
            traces.extend([text.replace("cust_", ""), id.to_string(), id.simple().to_string()]);
        }
        traces
    }
}

// Behaviour 39: no RPC shows a row of another tenant, whoever calls.
async fn no_answer_shows_another_tenant(db: TestDb) {
    let world = World::new(db).await;
    for (caller, other) in [(&world.globex, &world.acme), (&world.acme, &world.globex)] {
        let (own, foreign) = (world.traces(caller).await, world.traces(other).await);
        let before = world.rows_of(other).await;
        let mut own_shown = 0;
        for rpc in RPCS {
            for (who, outcome) in caller.call_as_everybody(&world.client, rpc).await {
                // The second tenant finds the customer that the first one's operator made.
                if who == "Rightful" && rpc.is_served && rpc.name != "TenancyService/CreateCustomer" {
                    assert!(outcome.is_ok(), "{}: {outcome:?}", rpc.name);
                }
                let told = told(&outcome);
                own_shown += usize::from(own.iter().any(|trace| told.contains(trace)));
                shows_nothing(rpc, &who, &told, &foreign);
            }
        }
        // What would be found if it were there.
        assert!(own_shown > 200, "{own_shown} answers show what belongs to the caller's tenant");
        assert_eq!(before.differences(&world.rows_of(other).await), [""; 0]);
    }
    world.server.stop().await;
}

#[track_caller]
fn shows_nothing(rpc: &Rpc, who: &str, told: &str, foreign: &[String]) {
    let shown: Vec<_> = foreign.iter().filter(|trace| told.contains(*trace)).collect();
    assert!(shown.is_empty(), "{} {who}: {told} shows {shown:?} of another tenant", rpc.name);
}

/// A list, and how its request and its answer hold the paging fields.
struct List {
    rpc: &'static Rpc,
    is_flat: bool,
}

fn lists() -> Vec<List> {
    let served = RPCS.iter().filter(|rpc| rpc.is_served);
    let lists = served.filter_map(|rpc| {
        let input = method(rpc.name).input();
        let is_flat = input.get_field_by_name("page_token").is_some();
        (is_flat || input.get_field_by_name("page").is_some()).then_some(List { rpc, is_flat })
    });
    let lists: Vec<_> = lists.collect();
    assert!(lists.len() >= 11, "{} lists", lists.len());
    lists
}

impl List {
    fn request(&self, tenant: &Tenant, page: &Value) -> Value {
        let mut request = tenant.request(self.rpc, Form::Slug);
        if self.is_flat {
            request.as_object_mut().unwrap().extend(page.as_object().unwrap().clone());
        } else {
            request["page"] = page.clone();
        }
        request
    }

    /// Lists with one item a page. Operators name the customer by header where the path has none.
    async fn page(&self, client: &Client, tenant: &Tenant, bearer: &str, token: &str) -> Outcome {
        let page = json!({"page_size": 1, "page_token": token});
        let slug = tenant.name("$customer", Form::Slug);
        let header = [("x-agentrouter-customer", slug.as_str())];
        let metadata = if bearer == OPERATOR_KEY { &header[..] } else { &[] };
        client.call_with(self.rpc.name, &self.request(tenant, &page), Some(bearer), metadata).await
    }

    /// The token of the page after the first one.
    async fn next(&self, client: &Client, tenant: &Tenant, bearer: &str) -> String {
        let answer = self.page(client, tenant, bearer, "").await.unwrap();
        let page = if self.is_flat { &answer } else { &answer["page"] };
        let token = page["next_page_token"].as_str().unwrap();
        assert!(!token.is_empty(), "{}: {answer} has no next page", self.rpc.name);
        token.to_owned()
    }

    #[track_caller]
    fn refuses(&self, what: &str, outcome: Outcome) {
        let Err(refusal) = outcome else { panic!("{} {what}: {outcome:?}", self.rpc.name) };
        assert_eq!(refusal.kind(), (Code::InvalidArgument, "INVALID_FIELDS"), "{} {what}", self.rpc.name);
        let field = if self.is_flat { "page_token" } else { "page.page_token" };
        assert_eq!(refusal.violations(), [field], "{} {what}", self.rpc.name);
    }
}

// Behaviour 44: a token is refused for another parent or caller.
async fn page_tokens_stay_with_their_list(db: TestDb) {
    let World { server, client, acme, globex, .. } = World::new(db).await;
    for list in lists() {
        let name = list.rpc.name;
        // Only operators see two customers.
        let sees_one = name == "TenancyService/ListCustomers";
        let admin = if sees_one { OPERATOR_KEY } else { acme.token(Caller::Admin) };
        let token = list.next(&client, &acme, admin).await;
        let (first, second) =
            (list.page(&client, &acme, admin, "").await, list.page(&client, &acme, admin, &token).await);
        assert_ne!(first.unwrap(), second.unwrap(), "{name}");

        let others = [Caller::Admin, Caller::AdminSession].map(|caller| globex.token(caller));
        for bearer in others {
            list.refuses("another tenant", list.page(&client, &globex, bearer, &token).await);
        }
        for bearer in [acme.token(Caller::Viewer), acme.token(Caller::AdminSession)] {
            list.refuses("another credential", list.page(&client, &acme, bearer, &token).await);
        }
        if !sees_one {
            let token = list.next(&client, &acme, OPERATOR_KEY).await;
            list.refuses("another parent", list.page(&client, &globex, OPERATOR_KEY, &token).await);
            let outcome = list.page(&client, &acme, OPERATOR_KEY, &token).await;
            assert!(outcome.is_ok(), "{name}: {outcome:?}");
        }
    }
    server.stop().await;
}

async fn filters_do_not_reach_over(db: TestDb) {
    let world = World::new(db).await;
    let (canary, foreign) = (&world.acme.canary, world.traces(&world.acme).await);
    let (member, customer) = (world.acme.name("$member", Form::Id), world.acme.customer);
    let by_canary = format!("display_name:{canary}");
    // The second tenant came after everything of the first one.
    let second = json!({"customer_id": "globex"});
    let second = world.client.ask("TenancyService/GetCustomer", &second, OPERATOR_KEY).await;
    let by_time = format!("created_at < {}", second["created_at"].as_str().unwrap());
    for list in lists().into_iter().filter(|list| !list.is_flat) {
        let name = list.rpc.name;
        if name == "SessionsService/ListSessions" {
            // It takes no filter at all.
            let request = json!({"page": {"filter": by_canary}});
            let outcome = world.client.call(name, &request, Some(world.globex.token(Caller::Admin))).await;
            assert_eq!(outcome.unwrap_err().kind(), (Code::InvalidArgument, "INVALID_FIELDS"));
            continue;
        }
        let matching = match name {
            "ProjectsService/ListProjectMembers" => format!("identity_id = {member}"),
            "AuditService/ListAuditEntries" => format!("target = {customer}"),
            "McpServersService/ListMcpServers" => format!("name:{canary}"),
            "WebhooksService/ListWebhookDeliveries" => by_time.clone(),
            _ => by_canary.clone(),
        };
        // A condition that holds for all rows must not get past the tenant's own.
        let everything = format!("{matching} OR NOT {matching}");
        for (filter, own_matches) in [(&matching, false), (&everything, true)] {
            let page = json!({"filter": filter, "order_by": "created_at desc", "page_size": 1000});
            let mut counts = Vec::new();
            for tenant in [&world.globex, &world.acme] {
                let token = tenant.token(Caller::Admin);
                let answer = world.client.ask(name, &list.request(tenant, &page), token).await;
                if std::ptr::eq(tenant, &raw const world.globex) {
                    shows_nothing(list.rpc, filter, &answer.to_string(), &foreign);
                }
                counts.push(answer.as_object().unwrap().values().find_map(Value::as_array).unwrap().len());
            }
            assert_eq!(counts[0] > 0, own_matches, "{name} {filter}: {counts:?}");
            assert!(counts[1] > 0, "{name} {filter}: {counts:?}");
        }
    }
    world.server.stop().await;
}

async fn slots_of_other_users_are_empty(db: TestDb) {
    let World { server, client, acme, globex, .. } = World::new(db).await;
    let (user, workspace) = (acme.name("$identity", Form::Id), acme.name("$workspace", Form::Id));
    let queries = json!({"queries": [
        {"user_id": user, "config_type": "CONFIG_TYPE_USER_KEYS"},
        {"user_id": "system", "config_type": "CONFIG_TYPE_PROXY_URL", "key_id": workspace},
    ]});
    let of_user = json!({"user_id": user});
    for (tenant, count) in [(&acme, 1), (&globex, 0)] {
        for (name, request, caller) in [
            ("ConfiguratorService/GetConfiguration", &queries, Caller::Workspace),
            ("ConfiguratorService/GetConfiguration", &queries, Caller::Viewer),
            ("ConfiguratorService/ListConfigurations", &of_user, Caller::Viewer),
        ] {
            let answer = client.ask(name, request, tenant.token(caller)).await;
            assert_eq!(answer["configurations"].as_array().unwrap().len(), count, "{name}: {answer}");
        }
    }
    // A user of that name is another one here, and has no keys.
    let trigger = json!({"user_id": user, "config_type": "CONFIG_TYPE_USER_KEYS"});
    let triggered =
        client.ask("ConfiguratorService/TriggerUpdate", &trigger, globex.token(Caller::Admin)).await;
    assert_eq!(triggered["configuration"]["user_keys"], json!({"keys": []}), "{triggered}");
    assert_eq!(triggered["configuration"]["customer_id"], "globex");
    let kept = client.ask("ConfiguratorService/GetConfiguration", &queries, acme.token(Caller::Viewer)).await;
    assert_eq!(kept["configurations"][0]["user_keys"]["keys"].as_array().unwrap().len(), 1, "{kept}");
    server.stop().await;
}

/// The id of an event is known before its row is written.
async fn events_that_nobody_saw_yet_cannot_be_claimed(db: TestDb) {
    let world = World::new(db).await;
    let trigger = json!({"user_id": "somebody", "config_type": "CONFIG_TYPE_USER_KEYS"});
    let admin = world.acme.token(Caller::Admin);
    let triggered = world.client.ask("ConfiguratorService/TriggerUpdate", &trigger, admin).await;
    let event = &triggered["event_ids"][0];
    let claim = json!({"event_id": event, "worker_id": "worker"});
    let completion = json!({"event_id": event, "worker_id": "worker", "success": true});
    let before = world.reader.state().await;
    for (tenant, caller) in [
        (&world.globex, Caller::Admin),
        (&world.globex, Caller::Workspace),
        (&world.globex, Caller::Sibling),
        (&world.acme, Caller::Sibling),
    ] {
        for (name, request) in [
            ("ConfiguratorService/AcknowledgeEvent", &claim),
            ("ConfiguratorService/CompleteEvent", &completion),
        ] {
            let refusal = world.client.call(name, request, Some(tenant.token(caller))).await.unwrap_err();
            assert_eq!(refusal.kind(), (Code::NotFound, "EVENT_NOT_FOUND"), "{name} {caller:?}");
        }
    }
    assert_eq!(before.differences(&world.reader.state().await), [""; 0]);
    for (name, request) in
        [("ConfiguratorService/AcknowledgeEvent", &claim), ("ConfiguratorService/CompleteEvent", &completion)]
    {
        let answer = world.client.ask(name, request, world.acme.token(Caller::Workspace)).await;
        assert_eq!(answer["success"], true, "{name}: {answer}");
    }
    world.server.stop().await;
}
