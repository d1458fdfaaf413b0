//! SaveBYOKBackends and DeleteBYOKBackends.

use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{
    ByokBackend, ConfigType, Credential, DeleteByokBackendsRequest, ListConfigurationsRequest,
    SaveByokBackendsRequest, SaveByokBackendsResponse,
};
use agentrouter_delivery::{Slot, delete_user_slots};
use agentrouter_kernel::Principal;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, violations};
use tonic::{Code, Response, Status};

use crate::World;

on_both_engines!(
    backends_are_saved_per_key_and_delivered,
    the_same_backends_are_no_new_version,
    only_workers_see_the_keys,
    a_new_key_is_a_new_version_and_no_value_keeps_the_old,
    a_key_that_is_left_out_is_removed,
    a_key_opens_only_where_it_belongs,
    deleting_makes_a_tombstone_of_every_key_slot,
    deleting_a_user_deletes_its_keys,
    users_of_ours_must_exist,
    every_wrong_field_is_named,
    tenants_do_not_reach_each_others_backends,
    a_repeated_save_answers_the_same,
);

fn backend(name: &str, value: Option<&str>) -> ByokBackend {
    ByokBackend {
        name: name.to_owned(),
        schema: "openai".to_owned(),
        base_url: "https://api.example/v1".to_owned(),
        models: vec!["m".to_owned()],
        authentication: "api_key".to_owned(),
        secret_ref: String::new(),
        credential: value.map(|value| Credential { value: value.to_owned(), ..Credential::default() }),
    }
}

fn save(key_address: &str, backends: Vec<ByokBackend>) -> SaveByokBackendsRequest {
    SaveByokBackendsRequest { user_id: "ada".to_owned(), key_address: key_address.to_owned(), backends }
}

impl World<'_> {
    async fn try_save(
        &self,
        caller: &Principal,
        message: SaveByokBackendsRequest,
    ) -> Result<Response<SaveByokBackendsResponse>, Status> {
        self.service.save_byok_backends(request(call(caller), message)).await
    }

    async fn save(&self, message: SaveByokBackendsRequest) -> SaveByokBackendsResponse {
        self.try_save(&self.worker, message).await.unwrap().into_inner()
    }

    async fn delete_backends(&self, caller: &Principal, user_id: &str) -> bool {
        let message = DeleteByokBackendsRequest { user_id: user_id.to_owned() };
        let answer = self.service.delete_byok_backends(request(call(caller), message)).await;
        answer.unwrap().into_inner().deleted
    }

    fn key_slot(&self, key_address: &str) -> Slot {
        Slot::per_key(self.customer, "ada", ConfigType::Byok, key_address)
    }

    async fn backends(&self, caller: &Principal, key_address: &str) -> (i64, Vec<ByokBackend>) {
        let configuration = self.get(caller, &self.key_slot(key_address)).await.unwrap();
        match configuration.payload {
            Some(Payload::Byok(payload)) => (configuration.version, payload.backends),
            None if configuration.deleted => (configuration.version, Vec::new()),
            other => panic!("{other:?}"),
        }
    }

    /// Version of the configuration, and version and value of its only key.
    async fn key(&self, caller: &Principal) -> (i64, i64, String) {
        let (version, backends) = self.backends(caller, "k1").await;
        let credential = backends[0].credential.clone().unwrap();
        assert!(credential.id.starts_with("cred_"), "{}", credential.id);
        (version, credential.version, credential.value)
    }

    async fn stored_keys(&self) -> i64 {
        const COUNT: &str =
            "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM byok_credentials WHERE customer_id = $1";
        query(COUNT).bind(self.customer).value(&self.db.db).await.unwrap().unwrap()
    }
}

async fn backends_are_saved_per_key_and_delivered(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let first = ByokBackend { secret_ref: "ada-openai".to_owned(), ..backend("b", None) };
    let sent = vec![first, backend("a", None)];
    let answer = world.save(save("k1", sent.clone())).await;
    let configuration = answer.configuration.unwrap();
    assert!(answer.updated);
    assert_eq!(
        (configuration.user_id.as_str(), configuration.key_id.as_str(), configuration.version),
        ("ada", "k1", 1)
    );
    // In the order given.
    assert_eq!(world.backends(&world.worker, "k1").await, (1, sent));
    world.save(save("k2", vec![])).await;
    assert_eq!(world.backends(&world.worker, "k2").await, (1, vec![]));
    for worker in [&world.worker, &world.sibling] {
        assert_eq!(world.pending(worker).await, [(ConfigType::Byok, 1), (ConfigType::Byok, 1)]);
    }
    assert_eq!(world.audited().await, 2);
}

async fn the_same_backends_are_no_new_version(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let sent = save("k1", vec![backend("a", Some("sk-canary"))]);
    let first = world.save(sent.clone()).await;
    let second = world.save(sent).await;
    assert_eq!((first.updated, second.updated), (true, false));
    assert_eq!(first.configuration, second.configuration);
    let mut changed = backend("a", Some("sk-canary"));
    changed.models.push("n".to_owned());
    let third = world.save(save("k1", vec![changed])).await;
    assert_eq!((third.updated, third.configuration.unwrap().version), (true, 2));
}

async fn only_workers_see_the_keys(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let answer = world.save(save("k1", vec![backend("a", Some("sk-canary"))])).await;
    assert!(!format!("{answer:?}").contains("sk-canary"));
    for worker in [&world.worker, &world.sibling] {
        assert_eq!(world.key(worker).await, (1, 1, "sk-canary".to_owned()));
    }
    for person in [&world.admin, &world.viewer] {
        assert_eq!(world.key(person).await, (1, 1, String::new()));
    }
    let listed = ListConfigurationsRequest::default();
    let listed = world.service.list_configurations(request(call(&world.admin), listed)).await.unwrap();
    assert!(!format!("{listed:?}").contains("sk-canary"));
    // Nor do the rows: what is stored is sealed.
    for column in ["sealed AS value FROM byok_credentials", "content AS value FROM liaison_configurations"] {
        let bytes: Vec<Vec<u8>> = query(format!("SELECT {column}")).values(&world.db.db).await.unwrap();
        assert!(
            !bytes.is_empty() && bytes.iter().all(|bytes| !bytes.windows(9).any(|part| part == b"sk-canary"))
        );
    }
}

async fn a_new_key_is_a_new_version_and_no_value_keeps_the_old(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.save(save("k1", vec![backend("a", Some("sk-1"))])).await;
    world.save(save("k1", vec![backend("a", Some("sk-2"))])).await;
    assert_eq!(world.key(&world.worker).await, (2, 2, "sk-2".to_owned()));
    // Sent back as a person reads it: without the value.
    let (_, read) = world.backends(&world.admin, "k1").await;
    assert!(!world.save(save("k1", read)).await.updated);
    assert_eq!(world.key(&world.worker).await, (2, 2, "sk-2".to_owned()));
    assert_eq!(world.stored_keys().await, 1);
}

async fn a_key_that_is_left_out_is_removed(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.save(save("k1", vec![backend("a", Some("sk-1")), backend("b", Some("sk-2"))])).await;
    world.save(save("k1", vec![backend("a", None)])).await;
    assert_eq!(world.stored_keys().await, 0);
    let (version, backends) = world.backends(&world.worker, "k1").await;
    assert_eq!((version, backends), (2, vec![backend("a", None)]));
    let missing =
        world.try_save(&world.admin, save("k1", vec![backend("a", None), backend("b", Some(""))])).await;
    assert_eq!(violations(missing), ["backends[1].credential.value"]);
    assert_eq!(world.version(&world.key_slot("k1")).await, 2);
}

async fn a_key_opens_only_where_it_belongs(db: TestDb) {
    const COPY: &str = "UPDATE byok_credentials SET sealed = \
         (SELECT o.sealed FROM byok_credentials o WHERE o.key_address = 'k2') WHERE key_address = 'k1'";
    let world = World::new(&db, "acme").await;
    world.save(save("k1", vec![backend("a", Some("sk-1"))])).await;
    world.save(save("k2", vec![backend("a", Some("sk-2"))])).await;
    let mut tx = db.db.begin().await.unwrap();
    query(COPY).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let wanted = agentrouter_api::configurator::ConfigurationQuery {
        user_id: "ada".to_owned(),
        config_type: ConfigType::Byok.into(),
        key_id: "k1".to_owned(),
        current_version: 0,
    };
    let message = agentrouter_api::configurator::GetConfigurationRequest { queries: vec![wanted] };
    let status = world.service.get_configuration(request(call(&world.worker), message)).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert!(!format!("{status:?}").contains("sk-"));
    // Replacing the key is the way out.
    world.save(save("k1", vec![backend("a", Some("sk-3"))])).await;
    assert_eq!(world.key(&world.worker).await, (2, 2, "sk-3".to_owned()));
}

async fn deleting_makes_a_tombstone_of_every_key_slot(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.save(save("k1", vec![backend("a", Some("sk-1"))])).await;
    world.save(save("k2", vec![])).await;
    let bob = SaveByokBackendsRequest { user_id: "bob".to_owned(), ..save("k1", vec![]) };
    world.save(bob).await;
    world.converge(&world.worker).await;
    assert!(world.delete_backends(&world.worker, "ada").await);
    for key in ["k1", "k2"] {
        let configuration = world.get(&world.worker, &world.key_slot(key)).await.unwrap();
        assert_eq!((configuration.version, configuration.deleted, configuration.payload), (2, true, None));
    }
    assert_eq!(world.stored_keys().await, 0);
    assert_eq!(world.pending(&world.worker).await, [(ConfigType::Byok, 2), (ConfigType::Byok, 2)]);
    // The other user's stands, and there is nothing more to delete.
    let bobs = Slot::per_key(world.customer, "bob", ConfigType::Byok, "k1");
    assert_eq!(world.version(&bobs).await, 1);
    assert!(!world.delete_backends(&world.admin, "ada").await);
    assert!(!world.delete_backends(&world.admin, "nobody").await);
    // The slot goes on where it was.
    assert_eq!(world.save(save("k1", vec![])).await.configuration.unwrap().version, 3);
}

async fn deleting_a_user_deletes_its_keys(db: TestDb) {
    let world = World::new(&db, "acme").await;
    world.save(save("k1", vec![backend("a", Some("sk-1"))])).await;
    let mut tx = db.db.begin().await.unwrap();
    assert_eq!(delete_user_slots(&mut tx, world.customer, "ada").await.unwrap(), 1);
    tx.commit_unaudited("test").await.unwrap();
    assert_eq!((world.stored_keys().await, world.backends(&world.worker, "k1").await.0), (0, 2));
}

async fn users_of_ours_must_exist(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    let (own, foreign) =
        (db.identity(world.customer, "Ada").await, db.identity(globex.customer, "Bob").await);
    let of = |user: String| SaveByokBackendsRequest { user_id: user, ..save("k1", vec![]) };
    let saved = world.save(of(own.to_string().to_lowercase())).await;
    assert_eq!(saved.configuration.unwrap().user_id, own.to_string());
    let missing = (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned());
    assert_eq!(refused(world.try_save(&world.worker, of(foreign.to_string())).await), missing);
    assert!(world.delete_backends(&world.worker, &own.to_string().to_lowercase()).await);
}

async fn every_wrong_field_is_named(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let wrong = ByokBackend {
        name: "a".to_owned(),
        schema: "OpenAI".to_owned(),
        base_url: "nowhere".to_owned(),
        models: ["m", "", "m"].map(str::to_owned).to_vec(),
        authentication: "x".repeat(256),
        secret_ref: "x".repeat(256),
        credential: Some(Credential { value: " ".to_owned(), ..Credential::default() }),
    };
    let mut nameless = backend("", None);
    nameless.models = vec!["x".repeat(256)];
    let message = SaveByokBackendsRequest {
        user_id: "system".to_owned(),
        key_address: String::new(),
        backends: vec![wrong, backend("a", Some(&format!("sk-{}", "x".repeat(16_384)))), nameless],
    };
    let refusal = world.try_save(&world.admin, message.clone()).await;
    assert!(!format!("{refusal:?}").contains("sk-"));
    let expected = [
        "user_id",
        "key_address",
        "backends[0].schema",
        "backends[0].base_url",
        "backends[0].models[1]",
        "backends[0].models[2]",
        "backends[0].authentication",
        "backends[0].secret_ref",
        "backends[0].credential.value",
        "backends[1].name",
        "backends[1].credential.value",
        "backends[2].name",
        "backends[2].models[0]",
    ];
    assert_eq!(violations(refusal), expected);
    let many = (0..101).map(|index| backend(&format!("b{index}"), None)).collect();
    let message = SaveByokBackendsRequest { user_id: String::new(), ..save("k1", many) };
    assert_eq!(violations(world.try_save(&world.admin, message).await), ["user_id", "backends"]);
    let message = DeleteByokBackendsRequest { user_id: "system".to_owned() };
    let refusal = world.service.delete_byok_backends(request(call(&world.admin), message)).await;
    assert_eq!(violations(refusal), ["user_id"]);
}

async fn tenants_do_not_reach_each_others_backends(db: TestDb) {
    let acme = World::new(&db, "acme").await;
    let globex = World::new(&db, "globex").await;
    acme.save(save("k1", vec![backend("a", Some("sk-acme"))])).await;
    // A user of that name is another one here.
    assert_eq!(globex.get(&globex.worker, &acme.key_slot("k1")).await, None);
    assert!(!globex.delete_backends(&globex.worker, "ada").await);
    globex.save(save("k1", vec![backend("a", Some("sk-globex"))])).await;
    assert!(globex.delete_backends(&globex.worker, "ada").await);
    assert_eq!(acme.key(&acme.worker).await, (1, 1, "sk-acme".to_owned()));
}

async fn a_repeated_save_answers_the_same(db: TestDb) {
    let world = World::new(&db, "acme").await;
    let mut context = call(&world.worker);
    context.idempotency_key = Some("once".to_owned());
    let message = save("k1", vec![backend("a", Some("sk-1"))]);
    for _ in 0..2 {
        let sent = request(context.clone(), message.clone());
        assert!(world.service.save_byok_backends(sent).await.unwrap().into_inner().updated);
    }
    assert_eq!(world.audited().await, 1);
}
