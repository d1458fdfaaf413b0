//! Create, get, update, delete, enable and disable.

use agentrouter_api::configurator::ProviderConfig;
use agentrouter_api::providers::providers_service_server::ProvidersService;
use agentrouter_api::providers::{
    CreateProviderRequest, DeleteProviderRequest, DeleteProviderResponse, DisableProviderRequest,
    EnableProviderRequest, GetProviderRequest, Provider, ProviderSchema, UpdateProviderRequest,
};
use agentrouter_kernel::id::{self, Id};
use agentrouter_testkit::{TestDb, call, on_both_engines, operator, refused, request, viewer, violations};
use tonic::{Code, Response, Status};

use crate::{Tenant, labels, mask, texts};

on_both_engines!(
    a_provider_reads_back_as_created,
    unset_fields_have_defaults,
    every_wrong_field_is_named,
    a_slug_is_taken_once,
    a_repeat_with_the_same_key_answers_the_same,
    updates_set_what_is_present_or_named,
    updates_check_what_they_set,
    an_update_without_effect_keeps_the_etag,
    a_stale_etag_changes_nothing,
    a_disabled_provider_is_not_delivered,
    a_deleted_provider_is_gone,
    what_data_planes_do_not_see_is_no_new_version,
    tenants_do_not_see_each_other,
    mutations_are_audited,
);

impl Tenant<'_> {
    async fn get(&self, provider_id: &str) -> Result<Response<Provider>, Status> {
        let message =
            GetProviderRequest { customer_id: self.slug.to_owned(), provider_id: provider_id.to_owned() };
        self.providers.get_provider(request(call(&self.admin), message)).await
    }

    async fn delete(
        &self,
        provider_id: &str,
        etag: &str,
    ) -> Result<Response<DeleteProviderResponse>, Status> {
        let message = DeleteProviderRequest {
            customer_id: self.slug.to_owned(),
            provider_id: provider_id.to_owned(),
            etag: etag.to_owned(),
        };
        self.providers.delete_provider(request(call(&self.admin), message)).await
    }

    async fn disable(&self, provider_id: &str) -> Result<Response<Provider>, Status> {
        let message =
            DisableProviderRequest { customer_id: self.slug.to_owned(), provider_id: provider_id.to_owned() };
        self.providers.disable_provider(request(call(&self.admin), message)).await
    }

    async fn enable(&self, provider_id: &str) -> Result<Response<Provider>, Status> {
        let message =
            EnableProviderRequest { customer_id: self.slug.to_owned(), provider_id: provider_id.to_owned() };
        self.providers.enable_provider(request(call(&self.admin), message)).await
    }
}

async fn a_provider_reads_back_as_created(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateProviderRequest {
        display_name: "Bedrock, Frankfurt".to_owned(),
        schema: ProviderSchema::AwsBedrock.into(),
        base_url: "https://bedrock.example:8443/eu".to_owned(),
        models: texts(&["claude", "nova"]),
        priority: 3,
        weight: Some(250),
        api_key: "sk-1".to_owned(),
        labels: labels(&[("region", "eu"), ("team", "ml")]),
        enabled: Some(false),
        ..acme.openai("bedrock-eu")
    };
    let created = acme.create(message).await.unwrap().into_inner();
    assert!(Id::<id::Provider>::parse(&created.id).is_some());
    assert_eq!(created.created_at, created.updated_at);
    assert!(created.created_at.is_some());
    let expected = Provider {
        id: created.id.clone(),
        customer_id: "acme".to_owned(),
        provider_id: "bedrock-eu".to_owned(),
        display_name: "Bedrock, Frankfurt".to_owned(),
        schema: ProviderSchema::AwsBedrock.into(),
        base_url: "https://bedrock.example:8443/eu".to_owned(),
        models: texts(&["claude", "nova"]),
        priority: 3,
        weight: 250,
        enabled: false,
        has_api_key: true,
        labels: labels(&[("region", "eu"), ("team", "ml")]),
        created_at: created.created_at,
        updated_at: created.created_at,
        etag: "r1".to_owned(),
    };
    assert_eq!(created, expected);
    assert_eq!(acme.get("bedrock-eu").await.unwrap().into_inner(), expected);
    assert_eq!(acme.get(&created.id).await.unwrap().into_inner(), expected);

    // By the customer's row id, by a viewer, and by an operator of another customer.
    let elsewhere = Tenant::new(&db, "elsewhere").await;
    for caller in [viewer(acme.id, acme.slug), operator(elsewhere.id, elsewhere.slug)] {
        let message =
            GetProviderRequest { customer_id: acme.id.to_string(), provider_id: "bedrock-eu".to_owned() };
        let found = acme.providers.get_provider(request(call(&caller), message)).await.unwrap();
        assert_eq!(found.into_inner(), expected);
    }
    assert_eq!(refused(acme.get("bedrock").await), (Code::NotFound, "PROVIDER_NOT_FOUND".to_owned()));
}

async fn unset_fields_have_defaults(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    for (schema, name) in [
        (ProviderSchema::Openai, "openai"),
        (ProviderSchema::Anthropic, "anthropic"),
        (ProviderSchema::AzureOpenai, "azure_openai"),
        (ProviderSchema::AwsBedrock, "aws_bedrock"),
        (ProviderSchema::GcpVertexAi, "gcp_vertex_ai"),
        (ProviderSchema::Cohere, "cohere"),
    ] {
        let slug = name.replace('_', "-");
        let message = CreateProviderRequest { schema: schema.into(), ..acme.openai(&slug) };
        let created = acme.create(message).await.unwrap().into_inner();
        assert_eq!(created.schema(), schema);
        assert_eq!((created.priority, created.weight), (0, 1));
        assert_eq!((created.enabled, created.has_api_key), (true, false));
        let (_, delivered) = acme.delivered_providers().await;
        let expected = ProviderConfig {
            provider_id: slug,
            schema: name.to_owned(),
            base_url: "https://api.openai.example/v1".to_owned(),
            weight: 1,
            ..ProviderConfig::default()
        };
        assert!(delivered.contains(&expected), "{delivered:?}");
    }
}

async fn every_wrong_field_is_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateProviderRequest {
        customer_id: String::new(),
        provider_id: "No Slug".to_owned(),
        display_name: "x".repeat(256),
        schema: 99,
        base_url: "https://user:secret@api.example".to_owned(),
        models: texts(&["a", "a"]),
        priority: -1,
        weight: Some(0),
        api_key: " ".to_owned(),
        labels: labels(&[("", "")]),
        enabled: None,
    };
    let expected = [
        "customer_id",
        "provider_id",
        "display_name",
        "schema",
        "base_url",
        "models[1]",
        "priority",
        "weight",
        "labels",
        "api_key",
    ];
    assert_eq!(violations(acme.create(message).await), expected);
    let message =
        CreateProviderRequest { customer_id: "acme".to_owned(), ..CreateProviderRequest::default() };
    assert_eq!(violations(acme.create(message).await), ["provider_id", "schema", "base_url"]);
    assert_eq!(violations(acme.get("").await), ["provider_id"]);
    assert_eq!(violations(acme.delete("", "").await), ["provider_id"]);
    assert_eq!(violations(acme.enable("").await), ["provider_id"]);
    assert_eq!(violations(acme.disable("").await), ["provider_id"]);
    assert_eq!(
        violations(acme.update(UpdateProviderRequest::default()).await),
        ["customer_id", "provider_id"]
    );
}

async fn a_slug_is_taken_once(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let first = acme.create(acme.openai("openai")).await.unwrap().into_inner();
    let again = CreateProviderRequest { display_name: "Another".to_owned(), ..acme.openai("openai") };
    assert_eq!(
        refused(acme.create(again).await),
        (Code::AlreadyExists, "PROVIDER_ALREADY_EXISTS".to_owned())
    );
    assert_eq!(acme.get("openai").await.unwrap().into_inner(), first);
}

async fn a_repeat_with_the_same_key_answers_the_same(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let keyed = |message: CreateProviderRequest| {
        let mut call = call(&acme.admin);
        call.idempotency_key = Some("once".to_owned());
        acme.providers.create_provider(request(call, message))
    };
    let message = CreateProviderRequest { api_key: "sk-1".to_owned(), ..acme.openai("openai") };
    let first = keyed(message.clone()).await.unwrap().into_inner();
    assert_eq!(keyed(message.clone()).await.unwrap().into_inner(), first);
    assert_eq!(acme.audited().await, [first.id]);
    // The key is part of the request, though it is in no answer.
    let other = CreateProviderRequest { api_key: "sk-2".to_owned(), ..message };
    assert_eq!(refused(keyed(other).await), (Code::Aborted, "IDEMPOTENCY_KEY_REUSED".to_owned()));
}

async fn updates_set_what_is_present_or_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateProviderRequest {
        display_name: "Old".to_owned(),
        models: texts(&["a"]),
        priority: 5,
        weight: Some(7),
        labels: labels(&[("team", "ml")]),
        ..acme.openai("openai")
    };
    let created = acme.create(message).await.unwrap().into_inner();

    // Without a mask: present fields.
    let change = UpdateProviderRequest {
        display_name: Some("New".to_owned()),
        schema: Some(ProviderSchema::Cohere.into()),
        base_url: Some("http://10.0.0.1:8080".to_owned()),
        models: texts(&["b", "c"]),
        priority: Some(0),
        weight: Some(1_000_000),
        labels: labels(&[("team", "web")]),
        ..acme.change(&created.id)
    };
    let updated = acme.update(change).await.unwrap().into_inner();
    let expected = Provider {
        display_name: "New".to_owned(),
        schema: ProviderSchema::Cohere.into(),
        base_url: "http://10.0.0.1:8080".to_owned(),
        models: texts(&["b", "c"]),
        priority: 0,
        weight: 1_000_000,
        labels: labels(&[("team", "web")]),
        updated_at: updated.updated_at,
        etag: "r2".to_owned(),
        ..created
    };
    assert_eq!(updated, expected);
    assert_eq!(acme.get("openai").await.unwrap().into_inner(), expected);
    let (version, delivered) = acme.delivered_providers().await;
    assert_eq!((version, delivered[0].schema.as_str(), delivered[0].weight), (2, "cohere", 1_000_000));

    // With a mask: the named fields only, cleared where absent; a cleared weight is the default one. Fields that
    // only the service writes are ignored, and so are present fields that the mask does not name.
    let change = UpdateProviderRequest {
        base_url: Some("https://ignored.example".to_owned()),
        priority: Some(9),
        update_mask: Some(mask(&[
            "display_name",
            "models",
            "labels",
            "weight",
            "priority",
            "enabled",
            "etag",
            "id",
        ])),
        ..acme.change("openai")
    };
    let updated = acme.update(change).await.unwrap().into_inner();
    let expected = Provider {
        display_name: String::new(),
        models: Vec::new(),
        priority: 9,
        weight: 1,
        labels: labels(&[]),
        updated_at: updated.updated_at,
        etag: "r3".to_owned(),
        ..expected
    };
    assert_eq!(updated, expected);
}

async fn updates_check_what_they_set(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create(acme.openai("openai")).await.unwrap();
    let change = UpdateProviderRequest {
        display_name: Some("\u{1b}".to_owned()),
        schema: Some(0),
        base_url: Some("ftp://a".to_owned()),
        models: vec![String::new()],
        priority: Some(1_000_001),
        weight: Some(-1),
        api_key: Some("\t".to_owned()),
        labels: labels(&[("", "")]),
        ..acme.change("openai")
    };
    let expected =
        ["schema", "api_key", "display_name", "base_url", "models[0]", "priority", "weight", "labels"];
    assert_eq!(violations(acme.update(change).await), expected);
    // Required fields cannot be cleared; what is no field cannot be named.
    let change = UpdateProviderRequest {
        update_mask: Some(mask(&["schema", "base_url", "credential"])),
        ..acme.change("openai")
    };
    assert_eq!(violations(acme.update(change).await), ["update_mask", "schema", "base_url"]);
    assert_eq!(
        refused(acme.update(acme.change("other")).await),
        (Code::NotFound, "PROVIDER_NOT_FOUND".to_owned())
    );
}

async fn an_update_without_effect_keeps_the_etag(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.create(acme.openai("openai")).await.unwrap().into_inner();
    let same = UpdateProviderRequest { base_url: Some(created.base_url.clone()), ..acme.change("openai") };
    assert_eq!(acme.update(same).await.unwrap().into_inner(), created);
    assert_eq!(acme.update(acme.change("openai")).await.unwrap().into_inner(), created);
}

// Behaviour 42: a stale etag keeps a provider from being changed.
async fn a_stale_etag_changes_nothing(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create(acme.openai("openai")).await.unwrap();
    let rename = |name: &str, etag: &str| UpdateProviderRequest {
        display_name: Some(name.to_owned()),
        etag: etag.to_owned(),
        ..acme.change("openai")
    };
    let current = acme.update(rename("First", "r1")).await.unwrap().into_inner();
    assert_eq!(current.etag, "r2");
    let mismatch = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    for stale in ["r1", "r3", "nonsense"] {
        assert_eq!(refused(acme.update(rename("Second", stale)).await), mismatch);
        assert_eq!(refused(acme.delete("openai", stale).await), mismatch);
    }
    // Even where there would be nothing to change.
    assert_eq!(refused(acme.update(rename("First", "r1")).await), mismatch);
    assert_eq!(acme.get("openai").await.unwrap().into_inner(), current);
    acme.delete("openai", "r2").await.unwrap();
}

async fn a_disabled_provider_is_not_delivered(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let created = acme.create(acme.openai("openai")).await.unwrap().into_inner();
    let disabled = acme.disable("openai").await.unwrap().into_inner();
    let expected =
        Provider { enabled: false, etag: "r2".to_owned(), updated_at: disabled.updated_at, ..created };
    assert_eq!(disabled, expected);
    assert_eq!(acme.disable(&disabled.id).await.unwrap().into_inner(), expected);
    assert_eq!(acme.get("openai").await.unwrap().into_inner(), expected);
    assert_eq!(acme.delivered_providers().await, (2, Vec::new()));

    let enabled = acme.enable("openai").await.unwrap().into_inner();
    assert_eq!((enabled.enabled, enabled.etag.as_str()), (true, "r3"));
    assert_eq!(acme.enable("openai").await.unwrap().into_inner(), enabled);
    let (version, delivered) = acme.delivered_providers().await;
    assert_eq!((version, delivered.len()), (3, 1));
    for missing in [acme.enable("other").await, acme.disable("other").await] {
        assert_eq!(refused(missing), (Code::NotFound, "PROVIDER_NOT_FOUND".to_owned()));
    }
}

async fn a_deleted_provider_is_gone(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateProviderRequest { api_key: "sk-1".to_owned(), ..acme.openai("openai") };
    let created = acme.create(message).await.unwrap().into_inner();
    assert_eq!(acme.delete(&created.id, "").await.unwrap().into_inner(), DeleteProviderResponse {});
    let not_found = (Code::NotFound, "PROVIDER_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get("openai").await), not_found);
    assert_eq!(refused(acme.delete("openai", "").await), not_found);
    assert_eq!(acme.delivered_providers().await, (2, Vec::new()));
    // A new one under the same slug is another provider, without the old one's key.
    let next = acme.create(acme.openai("openai")).await.unwrap().into_inner();
    assert_ne!(next.id, created.id);
    assert!(!next.has_api_key);
}

async fn what_data_planes_do_not_see_is_no_new_version(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create(acme.openai("openai")).await.unwrap();
    let change = UpdateProviderRequest {
        display_name: Some("Renamed".to_owned()),
        labels: labels(&[("team", "ml")]),
        ..acme.change("openai")
    };
    assert_eq!(acme.update(change).await.unwrap().into_inner().etag, "r2");
    assert_eq!(acme.delivered_providers().await.0, 1);
    // Neither is a provider that was never in service.
    let message = CreateProviderRequest { enabled: Some(false), ..acme.openai("spare") };
    acme.create(message).await.unwrap();
    acme.delete("spare", "").await.unwrap();
    assert_eq!(acme.delivered_providers().await.0, 1);
}

async fn tenants_do_not_see_each_other(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let globex = Tenant::new(&db, "globex").await;
    let ours = acme.create(acme.openai("openai")).await.unwrap().into_inner();
    let theirs = globex.create(globex.openai("openai")).await.unwrap().into_inner();
    assert_ne!(ours.id, theirs.id);

    // Under the own customer, a foreign row id is as good as none; so is the foreign customer.
    let not_found = (Code::NotFound, "PROVIDER_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get(&theirs.id).await), not_found);
    assert_eq!(refused(acme.update(acme.change(&theirs.id)).await), not_found);
    assert_eq!(refused(acme.delete(&theirs.id, "").await), not_found);
    assert_eq!(refused(acme.enable(&theirs.id).await), not_found);
    assert_eq!(refused(acme.disable(&theirs.id).await), not_found);
    let intruder = Tenant { slug: globex.slug, ..acme };
    let not_found = (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned());
    assert_eq!(refused(intruder.get("openai").await), not_found);
    assert_eq!(refused(intruder.create(intruder.openai("mine")).await), not_found);
    assert_eq!(refused(intruder.update(intruder.change("openai")).await), not_found);
    assert_eq!(refused(intruder.delete("openai", "").await), not_found);
    assert_eq!(refused(intruder.disable("openai").await), not_found);

    globex.disable("openai").await.unwrap();
    assert_eq!(globex.delivered_providers().await, (2, Vec::new()));
    assert_eq!(intruder.delivered_providers().await.0, 1);
}

async fn mutations_are_audited(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let id = acme.create(acme.openai("openai")).await.unwrap().into_inner().id;
    acme.update(UpdateProviderRequest { priority: Some(1), ..acme.change("openai") }).await.unwrap();
    acme.disable("openai").await.unwrap();
    acme.enable("openai").await.unwrap();
    acme.get("openai").await.unwrap();
    refused(acme.delete("openai", "r1").await);
    acme.delete("openai", "").await.unwrap();
    assert_eq!(acme.audited().await, vec![id; 5]);
}
