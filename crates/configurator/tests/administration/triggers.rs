//! What TriggerUpdate promises to those who repeat it, and to workspaces that have slots of their own.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::ConfigType;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_delivery::Slot;
use agentrouter_storage::{idempotency, query};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tonic::Code;

use crate::World;

on_both_engines!(
    a_repeated_trigger_answers_the_same_for_a_day,
    a_profile_is_generated_from_its_row,
    a_private_slot_has_one_audience,
);

fn trigger(config_type: ConfigType) -> pb::TriggerUpdateRequest {
    pb::TriggerUpdateRequest {
        user_id: "system".to_owned(),
        config_type: config_type.into(),
        ..Default::default()
    }
}

// Behaviour 19: the same key answers the first call's answer and emits nothing, for 24 hours.
async fn a_repeated_trigger_answers_the_same_for_a_day(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.provider(1).await;
    world.converge(&world.worker).await;
    let mut context = call(&world.admin);
    context.idempotency_key = Some("once".to_owned());
    let send = async || {
        let sent = request(context.clone(), trigger(ConfigType::McpCatalog));
        world.service.trigger_update(sent).await.unwrap().into_inner()
    };
    let first = send().await;
    assert_eq!((first.configuration_updated, first.event_ids.len()), (true, 2));
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::McpCatalog, 1)]);
    world.converge(&world.worker).await;
    // The source changes, unnoticed so far.
    let mut tx = db.db.begin().await.unwrap();
    query(
        "INSERT INTO mcp_catalog_servers (customer_id, id, url, name, description, icon_url, categories, \
           authentication, requires_auth, is_enabled, revision, created_at, updated_at) \
           VALUES ($1, 'a', 'https://a.example', '', '', '', '[]', '', FALSE, TRUE, 1, 0, 0)",
    )
    .bind(world.customer)
    .execute(&mut tx)
    .await
    .unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    db.db.advance_clock(Duration::from_hours(24).checked_sub(Duration::from_mins(1)).unwrap());
    let mut tx = db.db.begin().await.unwrap();
    idempotency::sweep(&mut tx, 100).await.unwrap();
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!(send().await, first);
    assert_eq!((world.version(&world.catalog()).await, world.pending(&world.worker).await), (1, vec![]));
    db.db.advance_clock(Duration::from_mins(2));
    let later = send().await;
    assert_eq!((later.configuration_updated, later.configuration.unwrap().version), (true, 2));
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::McpCatalog, 2)]);
}

async fn a_profile_is_generated_from_its_row(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let message = pb::TriggerUpdateRequest {
        user_id: "ada".to_owned(),
        key_id: "k1".to_owned(),
        ..trigger(ConfigType::McpProfile)
    };
    let send = async || world.service.trigger_update(request(call(&world.admin), message.clone())).await;
    assert_eq!(refused(send().await), (Code::NotFound, "CONFIGURATION_NOT_FOUND".to_owned()));
    let insert = "INSERT INTO mcp_profiles (id, customer_id, slug, user_id, key_id, display_name, servers, revision, \
         created_at, updated_at) VALUES ($1, $1, 'p', 'ada', 'k1', '', '[{\"server_id\":\"jira\",\"tools\":[]}]', 1, 0, 0)";
    for statement in [insert, "DELETE FROM mcp_profiles WHERE customer_id = $1"] {
        let mut tx = db.db.begin().await.unwrap();
        query(statement).bind(world.customer).execute(&mut tx).await.unwrap();
        tx.commit_unaudited("test data").await.unwrap();
        assert!(send().await.unwrap().into_inner().configuration_updated);
    }
    let slot = Slot::per_key(world.customer, "ada", ConfigType::McpProfile, "k1");
    let configuration = world.get(&world.worker, &slot).await.unwrap();
    assert_eq!((configuration.version, configuration.deleted), (2, true));
    assert!(!send().await.unwrap().into_inner().configuration_updated);
}

async fn a_private_slot_has_one_audience(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let url = pb::SetDataplaneUrlRequest {
        workspace_id: "edge".to_owned(),
        url: "https://one.example".to_owned(),
        trigger_update: false,
    };
    world.service.set_dataplane_url(request(call(&world.worker), url)).await.unwrap();
    let message =
        pb::TriggerUpdateRequest { key_id: world.edge.to_string(), ..trigger(ConfigType::ProxyUrl) };
    let send = async |workspace: &str| {
        let message = pb::TriggerUpdateRequest { workspace_id: workspace.to_owned(), ..message.clone() };
        world.service.trigger_update(request(call(&world.admin), message)).await
    };
    // It is applied already, so there is nothing to deliver.
    for workspace in ["", "edge"] {
        let answer = send(workspace).await.unwrap().into_inner();
        assert_eq!((answer.configuration_updated, answer.event_ids.len()), (false, 0), "{workspace}");
    }
    assert_eq!(violations(send("sibling").await), ["workspace_id"]);
    let mut tx = db.db.begin().await.unwrap();
    query("UPDATE system_settings SET value = 'https://two.example'").execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let answer = send("").await.unwrap().into_inner();
    assert_eq!((answer.configuration_updated, answer.event_ids.len()), (true, 1));
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::ProxyUrl, 2)]);
    assert_eq!(world.pending(&world.sibling).await, []);
}
