//! McpProfilesService.

use agentrouter_api::common::PageRequest;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::{Configuration, McpProfileServer};
use agentrouter_api::providers::mcp_profiles_service_server::McpProfilesService;
use agentrouter_api::providers::{
    CreateMcpProfileRequest, DeleteMcpProfileRequest, DeleteMcpProfileResponse, GetMcpProfileRequest,
    ListMcpProfilesRequest, McpProfile, McpProfileEntry, UpdateMcpProfileRequest,
};
use agentrouter_kernel::id::{Id, Identity};
use agentrouter_providers::McpProfiles;
use agentrouter_storage::{query, row};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, viewer, violations};
use prost::Message;
use tonic::{Code, Response, Status};

use crate::{Tenant, mask, texts};

on_both_engines!(
    a_profile_reads_back_as_written_and_is_delivered,
    updates_change_what_they_name,
    a_deleted_profile_leaves_a_tombstone,
    a_key_has_one_profile,
    users_of_ours_must_exist,
    every_wrong_field_is_named,
    lists_page_filter_and_order,
    tenants_do_not_see_each_others_profiles,
    a_repeated_creation_answers_the_same,
);

row! {
    struct Slot {
        version: i64,
        deleted: bool,
        content: Vec<u8>,
    }
}

impl Tenant<'_> {
    fn profiles(&self) -> McpProfiles {
        McpProfiles::new(self.db.deps())
    }

    fn profile(&self, name: &str, key_id: &str, servers: &[(&str, &[&str])]) -> CreateMcpProfileRequest {
        CreateMcpProfileRequest {
            customer_id: self.slug.to_owned(),
            mcp_profile_id: name.to_owned(),
            user_id: "ada".to_owned(),
            key_id: key_id.to_owned(),
            display_name: String::new(),
            servers: entries(servers),
        }
    }

    async fn create_profile(&self, new: CreateMcpProfileRequest) -> Result<Response<McpProfile>, Status> {
        self.profiles().create_mcp_profile(request(call(&self.admin), new)).await
    }

    async fn get_profile(&self, name: &str) -> Result<Response<McpProfile>, Status> {
        let message =
            GetMcpProfileRequest { customer_id: self.slug.to_owned(), mcp_profile_id: name.to_owned() };
        self.profiles().get_mcp_profile(request(call(&viewer(self.id, self.slug)), message)).await
    }

    async fn update_profile(
        &self,
        name: &str,
        change: UpdateMcpProfileRequest,
    ) -> Result<Response<McpProfile>, Status> {
        let message = UpdateMcpProfileRequest {
            customer_id: self.slug.to_owned(),
            mcp_profile_id: name.to_owned(),
            ..change
        };
        self.profiles().update_mcp_profile(request(call(&self.admin), message)).await
    }

    async fn delete_profile(
        &self,
        name: &str,
        etag: &str,
    ) -> Result<Response<DeleteMcpProfileResponse>, Status> {
        let message = DeleteMcpProfileRequest {
            customer_id: self.slug.to_owned(),
            mcp_profile_id: name.to_owned(),
            etag: etag.to_owned(),
        };
        self.profiles().delete_mcp_profile(request(call(&self.admin), message)).await
    }

    async fn list_profiles(&self, page: PageRequest) -> (Vec<String>, String) {
        let message = ListMcpProfilesRequest { customer_id: self.slug.to_owned(), page: Some(page) };
        let message = request(call(&viewer(self.id, self.slug)), message);
        let answer = self.profiles().list_mcp_profiles(message).await.unwrap().into_inner();
        let names = answer.mcp_profiles.into_iter().map(|profile| profile.mcp_profile_id).collect();
        (names, answer.page.unwrap().next_page_token)
    }

    /// Version and servers of the slot of a key; no servers for a tombstone.
    async fn delivered_profile(&self, key_id: &str) -> (i64, Option<Vec<McpProfileServer>>) {
        const SLOT: &str = "SELECT version, deleted, content FROM liaison_configurations \
             WHERE customer_id = $1 AND config_type = 'mcp_profile' AND user_id = 'ada' AND key_id = $2";
        let slot: Option<Slot> = query(SLOT).bind(self.id).bind(key_id).optional(&self.db.db).await.unwrap();
        let Some(slot) = slot else { return (0, None) };
        match Configuration::decode(slot.content.as_slice()).unwrap().payload {
            Some(Payload::McpProfile(payload)) => (slot.version, Some(payload.servers)),
            None if slot.deleted => (slot.version, None),
            other => panic!("version {} holds {other:?}", slot.version),
        }
    }
}

fn entries(servers: &[(&str, &[&str])]) -> Vec<McpProfileEntry> {
    let entry = |&(server_id, tools): &(&str, &[&str])| McpProfileEntry {
        server_id: server_id.to_owned(),
        tools: texts(tools),
    };
    servers.iter().map(entry).collect()
}

fn content(servers: &[(&str, &[&str])]) -> Vec<McpProfileServer> {
    let server = |entry: McpProfileEntry| McpProfileServer { server_id: entry.server_id, tools: entry.tools };
    entries(servers).into_iter().map(server).collect()
}

async fn a_profile_reads_back_as_written_and_is_delivered(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let new = CreateMcpProfileRequest {
        display_name: "What Ada's key may reach".to_owned(),
        ..acme.profile("research", "key-1", &[("search", &["find", "fetch"]), ("jira", &[])])
    };
    let created = acme.create_profile(new).await.unwrap().into_inner();
    let expected = McpProfile {
        id: created.id.clone(),
        customer_id: "acme".to_owned(),
        mcp_profile_id: "research".to_owned(),
        user_id: "ada".to_owned(),
        key_id: "key-1".to_owned(),
        display_name: "What Ada's key may reach".to_owned(),
        // Ordered by id; the order of tools is kept.
        servers: entries(&[("jira", &[]), ("search", &["find", "fetch"])]),
        created_at: created.created_at,
        updated_at: created.created_at,
        etag: "r1".to_owned(),
    };
    assert!(created.id.starts_with("mcpp_") && created.created_at.is_some());
    assert_eq!(created, expected);
    for name in ["research", &created.id] {
        assert_eq!(acme.get_profile(name).await.unwrap().into_inner(), expected);
    }
    let delivered = acme.delivered_profile("key-1").await;
    assert_eq!(delivered, (1, Some(content(&[("jira", &[]), ("search", &["find", "fetch"])]))));
    assert_eq!(acme.audited().await, [created.id]);
    let missing = (Code::NotFound, "MCP_PROFILE_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get_profile("other").await), missing);
}

async fn updates_change_what_they_name(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_profile(acme.profile("research", "key", &[("search", &[])])).await.unwrap();
    let change = UpdateMcpProfileRequest::default;

    // A name for people is no news for data planes.
    let named = UpdateMcpProfileRequest { display_name: Some("Research".to_owned()), ..change() };
    let named = acme.update_profile("research", named).await.unwrap().into_inner();
    assert_eq!((named.display_name.as_str(), named.etag.as_str()), ("Research", "r2"));
    assert_eq!(acme.delivered_profile("key").await.0, 1);

    let servers = UpdateMcpProfileRequest { servers: entries(&[("jira", &["read"])]), ..change() };
    let changed = acme.update_profile("research", servers.clone()).await.unwrap().into_inner();
    assert_eq!((changed.display_name.as_str(), changed.etag.as_str()), ("Research", "r3"));
    assert_eq!(acme.delivered_profile("key").await, (2, Some(content(&[("jira", &["read"])]))));
    // The same again changes nothing.
    assert_eq!(acme.update_profile("research", servers).await.unwrap().into_inner(), changed);

    // An absent list stays, a named one is cleared; output-only fields are ignored.
    let cleared = UpdateMcpProfileRequest { update_mask: Some(mask(&["servers", "etag"])), ..change() };
    let cleared = acme.update_profile("research", cleared).await.unwrap().into_inner();
    assert_eq!((cleared.servers.len(), cleared.display_name.as_str()), (0, "Research"));
    assert_eq!(acme.delivered_profile("key").await, (3, Some(Vec::new())));

    let stale =
        UpdateMcpProfileRequest { display_name: Some("Late".to_owned()), etag: "r1".to_owned(), ..change() };
    let refusal = refused(acme.update_profile("research", stale).await);
    assert_eq!(refusal, (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    let unknown = UpdateMcpProfileRequest { update_mask: Some(mask(&["colour"])), ..change() };
    assert_eq!(violations(acme.update_profile("research", unknown).await), ["update_mask"]);
}

async fn a_deleted_profile_leaves_a_tombstone(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_profile(acme.profile("research", "key", &[("search", &[])])).await.unwrap();
    let refusal = refused(acme.delete_profile("research", "r9").await);
    assert_eq!(refusal, (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    acme.delete_profile("research", "r1").await.unwrap();
    assert_eq!(acme.delivered_profile("key").await, (2, None));
    let gone = (Code::NotFound, "MCP_PROFILE_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.delete_profile("research", "").await), gone);
    // The slot goes on where it was.
    acme.create_profile(acme.profile("research", "key", &[("jira", &[])])).await.unwrap();
    assert_eq!(acme.delivered_profile("key").await, (3, Some(content(&[("jira", &[])]))));
}

async fn a_key_has_one_profile(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create_profile(acme.profile("one", "key", &[])).await.unwrap();
    let taken = (Code::AlreadyExists, "MCP_PROFILE_ALREADY_EXISTS".to_owned());
    assert_eq!(refused(acme.create_profile(acme.profile("one", "other", &[])).await), taken);
    assert_eq!(refused(acme.create_profile(acme.profile("two", "key", &[])).await), taken);
    acme.create_profile(acme.profile("two", "other", &[])).await.unwrap();
}

async fn users_of_ours_must_exist(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    let (own, foreign) = (db.identity(acme.id, "Ada").await, db.identity(globex.id, "Bob").await);
    let of = |user: Id<Identity>, name: &str| CreateMcpProfileRequest {
        user_id: user.to_string(),
        ..acme.profile(name, "key", &[])
    };
    let created = acme.create_profile(of(own, "own")).await.unwrap().into_inner();
    assert_eq!(created.user_id, own.to_string());
    let missing = (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.create_profile(of(foreign, "foreign")).await), missing);
}

async fn every_wrong_field_is_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let wrong = CreateMcpProfileRequest {
        customer_id: String::new(),
        mcp_profile_id: "Not A Slug".to_owned(),
        user_id: "system".to_owned(),
        key_id: String::new(),
        display_name: "x".repeat(256),
        servers: entries(&[("a", &["t", "", "t"]), ("", &[]), ("a", &[])]),
    };
    let expected = [
        "customer_id",
        "mcp_profile_id",
        "user_id",
        "key_id",
        "display_name",
        "servers[0].tools[1]",
        "servers[0].tools[2]",
        "servers[1].server_id",
        "servers[2].server_id",
    ];
    assert_eq!(violations(acme.create_profile(wrong).await), expected);
    let nameless = CreateMcpProfileRequest { user_id: String::new(), ..acme.profile("a", "key", &[]) };
    assert_eq!(violations(acme.create_profile(nameless).await), ["user_id"]);
    assert_eq!(violations(acme.get_profile("").await), ["mcp_profile_id"]);
    assert_eq!(violations(acme.delete_profile("", "").await), ["mcp_profile_id"]);
}

async fn lists_page_filter_and_order(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    for (name, key) in [("c", "k1"), ("a", "k2"), ("b", "k3")] {
        acme.create_profile(acme.profile(name, key, &[])).await.unwrap();
    }
    let mut page =
        PageRequest { page_size: 2, order_by: "mcp_profile_id desc".to_owned(), ..PageRequest::default() };
    let (first, token) = acme.list_profiles(page.clone()).await;
    assert_eq!(first, ["c", "b"]);
    page.page_token = token;
    assert_eq!(acme.list_profiles(page).await, (texts(&["a"]), String::new()));
    // In the order of creation where none is asked for.
    assert_eq!(acme.list_profiles(PageRequest::default()).await.0, ["c", "a", "b"]);
    let filter = "key_id = k2 OR key_id = k3".to_owned();
    assert_eq!(acme.list_profiles(PageRequest { filter, ..PageRequest::default() }).await.0, ["a", "b"]);
}

async fn tenants_do_not_see_each_others_profiles(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    let own = acme.create_profile(acme.profile("research", "key", &[("ours", &[])])).await.unwrap();
    let own = own.into_inner();
    globex.create_profile(globex.profile("research", "key", &[("theirs", &[])])).await.unwrap();
    let missing = (Code::NotFound, "MCP_PROFILE_NOT_FOUND".to_owned());
    assert_eq!(refused(globex.get_profile(&own.id).await), missing);
    assert_eq!(refused(globex.delete_profile(&own.id, "").await), missing);
    let change = UpdateMcpProfileRequest { display_name: Some("x".to_owned()), ..Default::default() };
    assert_eq!(refused(globex.update_profile(&own.id, change).await), missing);
    assert_eq!(globex.list_profiles(PageRequest::default()).await.0.len(), 1);
    globex.delete_profile("research", "").await.unwrap();
    assert_eq!(acme.get_profile("research").await.unwrap().into_inner(), own);
    assert_eq!(acme.delivered_profile("key").await.0, 1);
    let intruder = Tenant { admin: globex.admin.clone(), ..acme };
    let missing = (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned());
    assert_eq!(refused(intruder.delete_profile("research", "").await), missing);
}

async fn a_repeated_creation_answers_the_same(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let mut context = call(&acme.admin);
    context.idempotency_key = Some("once".to_owned());
    let new = acme.profile("research", "key", &[]);
    let profiles = acme.profiles();
    let first = profiles.create_mcp_profile(request(context.clone(), new.clone())).await.unwrap();
    let second = profiles.create_mcp_profile(request(context, new)).await.unwrap();
    assert_eq!(first.into_inner(), second.into_inner());
    assert_eq!(acme.audited().await.len(), 1);
}
