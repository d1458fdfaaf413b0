//! SetDataplaneURL.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{ConfigType, SetDataplaneUrlRequest, SetDataplaneUrlResponse};
use agentrouter_delivery::Slot;
use agentrouter_kernel::Principal;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tonic::{Code, Response, Status};

use crate::World;

on_both_engines!(
    an_installed_url_is_applied_already,
    an_edited_url_reaches_its_data_plane_alone,
    an_installed_url_takes_the_place_of_a_waiting_one,
    a_workspace_speaks_for_itself_only,
    every_wrong_field_is_named,
    a_repeated_call_answers_the_same,
);

impl World<'_> {
    async fn set_url(
        &self,
        caller: &Principal,
        workspace: &str,
        url: &str,
        trigger_update: bool,
    ) -> Result<Response<SetDataplaneUrlResponse>, Status> {
        let message = SetDataplaneUrlRequest {
            workspace_id: workspace.to_owned(),
            url: url.to_owned(),
            trigger_update,
        };
        self.service.set_dataplane_url(request(call(caller), message)).await
    }

    fn url_slot(&self) -> Slot {
        Slot::proxy_url(self.customer, self.edge)
    }

    async fn url(&self, caller: &Principal) -> Option<(i64, String)> {
        let configuration = self.get(caller, &self.url_slot()).await?;
        match configuration.payload {
            Some(Payload::ProxyUrl(payload)) => Some((configuration.version, payload.url)),
            other => panic!("{other:?}"),
        }
    }

    /// The version that the record has the workspace run.
    async fn applied_url(&self) -> i64 {
        const APPLIED: &str = "SELECT s.applied_version AS value FROM workspace_slots s \
             JOIN liaison_configurations c ON c.id = s.configuration_id \
             WHERE s.workspace_id = $1 AND c.config_type = 'proxy_url'";
        query(APPLIED).bind(self.edge).value(&self.db.db).await.unwrap().unwrap_or_default()
    }
}

async fn an_installed_url_is_applied_already(db: TestDb) {
    let world = World::new(&db, "acme").await;
    // Before the first poll of the workspace, as an installation does.
    world.set_url(&world.worker, "", "https://one.example", false).await.unwrap();
    assert_eq!(world.url(&world.admin).await, Some((1, "https://one.example".to_owned())));
    assert_eq!(world.applied_url().await, 1);
    assert_eq!(world.pending(&world.worker).await, []);
    // And later, after other news.
    world.provider(1).await;
    world.set_url(&world.admin, "edge", "https://two.example:8443", false).await.unwrap();
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::Providers, 1)]);
    assert_eq!((world.url(&world.worker).await.unwrap().0, world.applied_url().await), (2, 2));
    assert_eq!(world.audited().await, 2);
}

async fn an_edited_url_reaches_its_data_plane_alone(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.set_url(&world.worker, "edge", "https://one.example", false).await.unwrap();
    world.set_url(&world.admin, &world.edge.to_string(), "https://two.example", true).await.unwrap();
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::ProxyUrl, 2)]);
    assert_eq!(world.pending(&world.sibling).await, []);
    // Another workspace does not even see it.
    assert_eq!(world.url(&world.sibling).await, None);
    assert_eq!(world.converge(&world.worker).await, 1);
    assert_eq!(world.applied_url().await, 2);
    // The same URL again is no new version.
    world.set_url(&world.admin, "edge", "https://two.example", true).await.unwrap();
    assert_eq!(world.url(&world.admin).await, Some((2, "https://two.example".to_owned())));
    assert_eq!(world.pending(&world.worker).await, []);
}

async fn an_installed_url_takes_the_place_of_a_waiting_one(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.set_url(&world.admin, "edge", "https://one.example", true).await.unwrap();
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::ProxyUrl, 1)]);
    world.set_url(&world.worker, "", "https://two.example", false).await.unwrap();
    assert_eq!(world.pending(&world.worker).await, []);
    assert_eq!(world.applied_url().await, 2);
}

async fn a_workspace_speaks_for_itself_only(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    let foreign = globex.edge.to_string();
    let mismatch = (Code::PermissionDenied, "WORKSPACE_MISMATCH".to_owned());
    for other in ["sibling", "nowhere", &foreign] {
        let refusal = refused(world.set_url(&world.worker, other, "https://x.example", true).await);
        assert_eq!(refusal, mismatch, "{other}");
    }
    // An admin is trusted across the workspaces of its customer, and no others.
    world.set_url(&world.admin, "sibling", "https://x.example", true).await.unwrap();
    assert_eq!(world.pending(&world.sibling).await, [(ConfigType::ProxyUrl, 1)]);
    let missing = (Code::NotFound, "WORKSPACE_NOT_FOUND".to_owned());
    for other in ["nowhere", &foreign] {
        let refusal = refused(world.set_url(&world.admin, other, "https://x.example", false).await);
        assert_eq!(refusal, missing, "{other}");
    }
    assert_eq!(globex.url(&globex.admin).await, None);
}

async fn every_wrong_field_is_named(db: TestDb) {
    let world = World::new(&db, "acme").await;
    assert_eq!(violations(world.set_url(&world.admin, "", "", true).await), ["workspace_id", "url"]);
    for url in [
        "router.example",
        "ftp://router.example",
        "https://user:word@router.example",
        "https://router.example/",
        "https://router.example/path",
        "https://router.example?x",
        "https://router.example#x",
        "https://router.example:0",
    ] {
        assert_eq!(violations(world.set_url(&world.worker, "", url, true).await), ["url"], "{url}");
    }
    assert_eq!(world.url(&world.admin).await, None);
}

async fn a_repeated_call_answers_the_same(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let mut context = call(&world.admin);
    context.idempotency_key = Some("once".to_owned());
    let mut message = SetDataplaneUrlRequest {
        workspace_id: "edge".to_owned(),
        url: "https://one.example".to_owned(),
        trigger_update: true,
    };
    for _ in 0..2 {
        let sent = request(context.clone(), message.clone());
        world.service.set_dataplane_url(sent).await.unwrap();
    }
    assert_eq!((world.version(&world.url_slot()).await, world.audited().await), (1, 1));
    message.trigger_update = false;
    let refusal = refused(world.service.set_dataplane_url(request(context, message)).await);
    assert_eq!(refusal, (Code::Aborted, "IDEMPOTENCY_KEY_REUSED".to_owned()));
}
