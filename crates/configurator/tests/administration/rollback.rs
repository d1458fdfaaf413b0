//! RollbackConfiguration: what comes back, and what undoes it.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{ConfigType, EventType};
use agentrouter_delivery::{Slot, offer_to_lagging, regenerate};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Credential, Id, Provider};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tonic::{Code, Response, Status};

use crate::World;

on_both_engines!(
    old_content_comes_back_as_a_new_version,
    a_rolled_back_version_is_not_offered_again,
    healing_does_not_bring_a_rolled_back_version_back,
    only_a_change_of_the_source_undoes_a_rollback,
    a_source_that_comes_to_the_old_content_is_followed_again,
    rolling_back_to_what_is_there_changes_nothing,
    credentials_are_those_of_today,
    a_url_is_rolled_back_for_its_data_plane_alone,
    given_content_is_rolled_back_until_it_is_given_again,
    what_lets_people_in_is_not_rolled_back,
    tombstones_are_not_rolled_back,
    wrong_requests_are_refused,
    tenants_do_not_roll_each_other_back,
    a_repeated_rollback_answers_the_same,
);

impl World<'_> {
    async fn try_rollback(
        &self,
        id: &str,
        version: i64,
    ) -> Result<Response<pb::RollbackConfigurationResponse>, Status> {
        let message = pb::RollbackConfigurationRequest { configuration_id: id.to_owned(), version };
        self.service.rollback_configuration(request(call(&self.admin), message)).await
    }

    async fn rollback(&self, id: &str, version: i64) -> pb::Configuration {
        self.try_rollback(id, version).await.unwrap().into_inner().configuration.unwrap()
    }

    /// Version and weight of the only provider that is delivered.
    async fn delivered(&self) -> (i64, i32) {
        let configuration = self.get(&self.admin, &self.providers()).await.unwrap();
        match configuration.payload {
            Some(Payload::Providers(payload)) => (configuration.version, payload.providers[0].weight),
            other => panic!("{other:?}"),
        }
    }

    async fn trigger(&self) -> pb::TriggerUpdateResponse {
        let message = pb::TriggerUpdateRequest {
            user_id: "system".to_owned(),
            config_type: ConfigType::Providers.into(),
            ..Default::default()
        };
        self.service.trigger_update(request(call(&self.admin), message)).await.unwrap().into_inner()
    }

    fn byok(&self) -> Slot {
        Slot::per_key(self.customer, "ada", ConfigType::Byok, "k1")
    }

    async fn save_byok(&self, models: &[&str]) -> pb::Configuration {
        let backend = pb::ByokBackend {
            name: "a".to_owned(),
            schema: "openai".to_owned(),
            base_url: "https://a.example".to_owned(),
            models: models.iter().map(|&model| model.to_owned()).collect(),
            ..Default::default()
        };
        let message = pb::SaveByokBackendsRequest {
            user_id: "ada".to_owned(),
            key_address: "k1".to_owned(),
            backends: vec![backend],
        };
        let saved = self.service.save_byok_backends(request(call(&self.worker), message)).await.unwrap();
        saved.into_inner().configuration.unwrap()
    }

    /// The newest version of a slot as a data plane that runs it reports it.
    async fn running(&self, slot: &Slot) -> pb::ObservedSlot {
        let newest = self.get(&self.admin, slot).await.unwrap();
        pb::ObservedSlot {
            user_id: slot.user_id.clone(),
            config_type: slot.config_type.into(),
            key_id: slot.key_id.clone(),
            version: newest.version,
            checksum: newest.checksum,
        }
    }

    /// Reconciles a data plane and syncs it in full, by what it runs.
    async fn heal(&self, worker: &Principal, observed: &[pb::ObservedSlot]) {
        self.heal_by(worker, observed, true).await;
    }

    /// The same by what is recorded of it.
    async fn heal_recorded(&self, worker: &Principal) {
        self.heal_by(worker, &[], false).await;
    }

    async fn heal_by(&self, worker: &Principal, observed: &[pb::ObservedSlot], observed_complete: bool) {
        let observed = observed.to_vec();
        let reconcile = pb::ReconcileWorkspaceRequest { observed: observed.clone(), observed_complete };
        self.service.reconcile_workspace(request(call(worker), reconcile)).await.unwrap();
        let sync = pb::FullSyncWorkspaceRequest { observed, observed_complete };
        self.service.full_sync_workspace(request(call(worker), sync)).await.unwrap();
    }

    /// Of what waits for a worker, the slots that were rolled back.
    async fn rollbackable(&self, worker: &Principal) -> Vec<(ConfigType, i64)> {
        let mut pending = self.pending(worker).await;
        pending.retain(|(config_type, _)| matches!(config_type, ConfigType::Providers | ConfigType::Byok));
        pending.sort();
        pending
    }

    async fn regenerate(&self, slot: &Slot) {
        let mut tx = self.db.db.begin().await.unwrap();
        regenerate(&mut tx, slot, EventType::Updated).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
    }
}

async fn old_content_comes_back_as_a_new_version(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let first = world.provider(1).await;
    world.provider(2).await;
    world.converge(&world.worker).await;
    let restored = world.rollback(&first.id, 1).await;
    assert_eq!((restored.version, restored.restored_version), (3, 1));
    assert_eq!((&restored.checksum, &restored.payload), (&first.checksum, &first.payload));
    assert_eq!(world.delivered().await, (3, 1));
    let events = world.poll(&world.worker).await;
    assert_eq!((events.len(), events[0].version, events[0].event_type()), (1, 3, EventType::RolledBack));
    let listed = world.versions(&first.id, 0, "").await.unwrap().into_inner().versions;
    let marks: Vec<_> = listed.iter().map(|version| (version.version, version.restored_version)).collect();
    assert_eq!(marks, [(3, 1), (2, 0), (1, 0)]);
    assert_eq!(world.diff(&first.id, 1, 3).await.unwrap().into_inner().changes, []);
    assert_eq!(world.audited().await, 1);
}

// Behaviour 24: a version that was rolled back is excluded from every later sweep, and from triggers of unchanged
// content, until a newer one exists.
async fn a_rolled_back_version_is_not_offered_again(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    world.converge(&world.worker).await;
    world.provider(2).await;
    // One workspace runs the bad version, in the other one it still waits.
    world.converge(&world.worker).await;
    assert_eq!(world.pending(&world.sibling).await, [(ConfigType::Providers, 2)]);
    world.rollback(&id, 1).await;
    for worker in [&world.worker, &world.sibling] {
        assert_eq!(world.pending(worker).await, [(ConfigType::Providers, 3)]);
    }
    assert_eq!(world.converge(&world.worker).await, 1);
    for _ in 0..2 {
        // An unrelated change, an unchanged trigger, and a sweep over everything.
        world.regenerate(&world.catalog()).await;
        world.regenerate(&world.providers()).await;
        let triggered = world.trigger().await;
        assert_eq!((triggered.configuration_updated, triggered.configuration.unwrap().version), (false, 3));
        let mut tx = db.db.begin().await.unwrap();
        offer_to_lagging(&mut tx, world.customer).await.unwrap();
        tx.commit_unaudited("test").await.unwrap();
        world.converge(&world.worker).await;
        assert_eq!(world.pending(&world.worker).await, []);
        assert_eq!(world.delivered().await, (3, 1));
    }
    // The other one gets nothing but the version that was brought back.
    let events = world.poll(&world.sibling).await;
    let versions: Vec<_> = events
        .iter()
        .filter(|event| event.config_type() == ConfigType::Providers)
        .map(|event| event.version)
        .collect();
    assert_eq!(versions, [3]);
    world.provider(4).await;
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::Providers, 4)]);
}

// Behaviour 24: whatever a data plane reports, reconciling it and syncing it in full bring the restored version, never
// the one that was rolled back.
async fn healing_does_not_bring_a_rolled_back_version_back(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let providers = world.provider(1).await.id;
    let byok = world.save_byok(&["m"]).await.id;
    world.converge(&world.worker).await;
    world.provider(2).await;
    world.save_byok(&["m", "n"]).await;
    // One workspace runs the bad versions, the other one never got further than the first.
    world.converge(&world.worker).await;
    let bad = [world.running(&world.providers()).await, world.running(&world.byok()).await];
    assert_eq!(bad.each_ref().map(|slot| slot.version), [2, 2]);
    let (restored, restored_byok) = (world.rollback(&providers, 1).await, world.rollback(&byok, 1).await);
    assert_eq!((restored.version, restored_byok.version), (3, 3));

    for worker in [&world.worker, &world.sibling] {
        // Nothing was applied yet: the restored versions are on their way, and nothing else comes.
        for observed in [&[][..], &bad[..]] {
            world.heal(worker, observed).await;
            assert_eq!(world.rollbackable(worker).await, [(ConfigType::Providers, 3), (ConfigType::Byok, 3)]);
        }
        world.converge(worker).await;
        // The data plane runs them, says nothing, lost everything, or runs the bad versions after all.
        let good = [world.running(&world.providers()).await, world.running(&world.byok()).await];
        for (observed, expected) in
            [(Some(&good[..]), false), (None, false), (Some(&[][..]), true), (Some(&bad[..]), true)]
        {
            // Healing the same version again waits.
            db.db.advance_clock(Duration::from_mins(10));
            match observed {
                Some(observed) => world.heal(worker, observed).await,
                None => world.heal_recorded(worker).await,
            }
            let healed: &[_] =
                if expected { &[(ConfigType::Providers, 3), (ConfigType::Byok, 3)] } else { &[] };
            assert_eq!(world.rollbackable(worker).await, healed, "{observed:?}");
            world.converge(worker).await;
        }
    }
    assert_eq!(world.delivered().await, (3, 1));
    assert_eq!(world.version(&world.byok()).await, 3);
}

async fn only_a_change_of_the_source_undoes_a_rollback(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    world.provider(2).await;
    world.rollback(&id, 1).await;
    world.provider(2).await;
    assert_eq!(world.delivered().await, (3, 1));
    // Once it changes, the slot follows it again, also back to what was rolled back.
    world.provider(5).await;
    assert_eq!(world.delivered().await, (4, 5));
    world.provider(2).await;
    assert_eq!(world.delivered().await, (5, 2));
    let newest = world.get(&world.admin, &world.providers()).await.unwrap();
    assert_eq!(newest.restored_version, 0);
}

async fn a_source_that_comes_to_the_old_content_is_followed_again(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    world.provider(2).await;
    world.rollback(&id, 1).await;
    world.provider(1).await;
    assert_eq!(world.delivered().await, (3, 1));
    // From here on, what was rolled back is a change like any other.
    world.provider(2).await;
    assert_eq!(world.delivered().await, (4, 2));
    // Rolling forward to what the source gives is no rollback that would have to be kept.
    world.rollback(&id, 1).await;
    world.rollback(&id, 2).await;
    assert_eq!(world.delivered().await, (6, 2));
    world.provider(3).await;
    world.provider(2).await;
    assert_eq!(world.delivered().await, (8, 2));
}

async fn rolling_back_to_what_is_there_changes_nothing(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let newest = world.provider(1).await;
    assert_eq!(world.rollback(&newest.id, 1).await, newest);
    world.provider(2).await;
    let restored = world.rollback(&newest.id, 1).await;
    assert_eq!(world.rollback(&newest.id, 1).await, restored);
    assert_eq!(world.rollback(&newest.id, 3).await, restored);
    assert_eq!(world.delivered().await, (3, 1));
}

async fn credentials_are_those_of_today(db: TestDb) {
    const PROVIDER: &str = "SELECT id AS value FROM providers WHERE customer_id = $1";
    const INSERT: &str = "INSERT INTO credentials (id, customer_id, provider_id, version, sealed, created_at, updated_at) \
         VALUES ($1, $2, $3, 1, $4, 0, 0)";
    let world = World::new(&db, "acme").await;
    world.provider(1).await;
    let provider: Id<Provider> = query(PROVIDER).bind(world.customer).value(&db.db).await.unwrap().unwrap();
    let mut tx = db.db.begin().await.unwrap();
    let id = Id::<Credential>::new(tx.now().await.unwrap());
    let aad = agentrouter_rpc::credential::provider_credential_aad(world.customer, provider, id);
    let sealed = db.deps().keyring.seal(&aad, b"sk-today").unwrap();
    query(INSERT).bind(id).bind(world.customer).bind(provider).bind(sealed).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let configuration = world.provider(2).await;
    let mut tx = db.db.begin().await.unwrap();
    query("UPDATE credentials SET version = 7").execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    world.provider(3).await;

    world.rollback(&configuration.id, 2).await;
    let restored = world.get(&world.worker, &world.providers()).await.unwrap();
    let Some(Payload::Providers(payload)) = &restored.payload else { panic!("{restored:?}") };
    let credential = payload.providers[0].credential.as_ref().unwrap();
    assert_eq!((credential.version, credential.value.as_str()), (7, "sk-today"));
    assert_eq!((restored.version, payload.providers[0].weight), (4, 2));

    let mut tx = db.db.begin().await.unwrap();
    query("DELETE FROM credentials").execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    // The source has changed with that, so the next regeneration undoes the rollback.
    world.regenerate(&world.providers()).await;
    assert_eq!(world.delivered().await, (5, 3));
    let refusal = refused(world.try_rollback(&configuration.id, 3).await);
    assert_eq!(refusal, (Code::FailedPrecondition, "CREDENTIAL_GONE".to_owned()));
    assert_eq!(world.delivered().await, (5, 3));
}

async fn a_url_is_rolled_back_for_its_data_plane_alone(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let slot = Slot::proxy_url(world.customer, world.edge);
    let set = async |url: &str| {
        let message = pb::SetDataplaneUrlRequest {
            workspace_id: "edge".to_owned(),
            url: url.to_owned(),
            trigger_update: true,
        };
        world.service.set_dataplane_url(request(call(&world.admin), message)).await.unwrap();
    };
    set("https://one.example").await;
    set("https://two.example").await;
    let id = world.get(&world.admin, &slot).await.unwrap().id;
    world.rollback(&id, 1).await;
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::ProxyUrl, 3)]);
    assert_eq!(world.pending(&world.sibling).await, []);
    world.regenerate(&slot).await;
    assert_eq!(world.version(&slot).await, 3);
    // Who sets a URL wants it, also the one that was rolled back.
    set("https://two.example").await;
    assert_eq!(world.version(&slot).await, 4);
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::ProxyUrl, 4)]);
}

async fn given_content_is_rolled_back_until_it_is_given_again(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let first = world.save_byok(&["m"]).await;
    let second = world.save_byok(&["m", "n"]).await;
    let restored = world.rollback(&first.id, 1).await;
    assert_eq!((restored.version, &restored.payload), (3, &first.payload));
    let again = world.save_byok(&["m", "n"]).await;
    assert_eq!((again.version, &again.payload, again.restored_version), (4, &second.payload, 0));
}

async fn what_lets_people_in_is_not_rolled_back(db: TestDb) {
    let world = World::new(&db, "acme").await;
    for jti in ["a", "b"] {
        let message = pb::RevokeUserTokenRequest { jti: jti.to_owned(), ..Default::default() };
        world.service.revoke_user_token(request(call(&world.worker), message)).await.unwrap();
    }
    let revoked = Slot::global(world.customer, ConfigType::RevokedTokens);
    let keys = Slot::per_user(world.customer, "ada", ConfigType::UserKeys);
    world.regenerate(&keys).await;
    for slot in [revoked, keys] {
        let before = world.get(&world.admin, &slot).await.unwrap();
        let refusal = refused(world.try_rollback(&before.id, 1).await);
        assert_eq!(refusal, (Code::FailedPrecondition, "ROLLBACK_NOT_ALLOWED".to_owned()));
        assert_eq!(world.get(&world.admin, &slot).await.unwrap(), before);
    }
}

async fn tombstones_are_not_rolled_back(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let save = pb::SaveByokBackendsRequest {
        user_id: "ada".to_owned(),
        key_address: "k1".to_owned(),
        backends: vec![],
    };
    let saved = world.service.save_byok_backends(request(call(&world.worker), save.clone())).await.unwrap();
    let id = saved.into_inner().configuration.unwrap().id;
    let delete = pb::DeleteByokBackendsRequest { user_id: "ada".to_owned() };
    world.service.delete_byok_backends(request(call(&world.worker), delete)).await.unwrap();
    let deleted = (Code::FailedPrecondition, "CONFIGURATION_DELETED".to_owned());
    assert_eq!(refused(world.try_rollback(&id, 1).await), deleted);
    world.service.save_byok_backends(request(call(&world.worker), save)).await.unwrap();
    assert_eq!(refused(world.try_rollback(&id, 2).await), deleted);
}

async fn wrong_requests_are_refused(db: TestDb) {
    let world = World::new(&db, "acme").await;
    assert_eq!(violations(world.try_rollback("", 0).await), ["configuration_id", "version"]);
    let id = world.provider(1).await.id;
    let missing = (Code::NotFound, "VERSION_NOT_FOUND".to_owned());
    assert_eq!(refused(world.try_rollback(&id, 2).await), missing);
}

async fn tenants_do_not_roll_each_other_back(db: TestDb) {
    let acme = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    let id = acme.provider(1).await.id;
    acme.provider(2).await;
    let missing = (Code::NotFound, "CONFIGURATION_NOT_FOUND".to_owned());
    assert_eq!(refused(globex.try_rollback(&id, 1).await), missing);
    assert_eq!(acme.delivered().await, (2, 2));
}

async fn a_repeated_rollback_answers_the_same(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let id = world.provider(1).await.id;
    world.provider(2).await;
    let mut context = call(&world.admin);
    context.idempotency_key = Some("once".to_owned());
    let message = pb::RollbackConfigurationRequest { configuration_id: id, version: 1 };
    let sent = || request(context.clone(), message.clone());
    let first = world.service.rollback_configuration(sent()).await.unwrap().into_inner();
    world.provider(3).await;
    let second = world.service.rollback_configuration(sent()).await.unwrap().into_inner();
    assert_eq!(first, second);
    assert_eq!(world.delivered().await, (4, 3));
}
