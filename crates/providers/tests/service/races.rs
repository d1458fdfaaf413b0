//! Changes that run at the same time.

use agentrouter_api::providers::providers_service_server::ProvidersService;
use agentrouter_api::providers::{CreateProviderRequest, UpdateProviderRequest};
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request};
use tokio::task::JoinSet;
use tonic::Code;

use crate::Tenant;

on_both_engines!(
    no_change_of_another_provider_is_lost_to_delivery,
    no_change_of_another_field_is_lost,
    one_of_many_takes_the_slug,
    one_of_many_wins_an_etag,
);

const TASKS: i32 = 12;

async fn no_change_of_another_provider_is_lost_to_delivery(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (providers, call) = (acme.providers.clone(), call(&acme.admin));
        let message = acme.openai(&format!("p-{number:02}"));
        tasks.spawn(async move { providers.create_provider(request(call, message)).await.unwrap() });
    }
    tasks.join_all().await;
    let (version, delivered) = acme.delivered_providers().await;
    let names: Vec<_> = delivered.into_iter().map(|provider| provider.provider_id).collect();
    assert_eq!(names, (0..TASKS).map(|number| format!("p-{number:02}")).collect::<Vec<_>>());
    assert_eq!(version, i64::from(TASKS));
}

async fn no_change_of_another_field_is_lost(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    acme.create(acme.openai("openai")).await.unwrap();
    let changes = [
        UpdateProviderRequest { display_name: Some("Name".to_owned()), ..acme.change("openai") },
        UpdateProviderRequest { priority: Some(4), ..acme.change("openai") },
        UpdateProviderRequest { weight: Some(5), ..acme.change("openai") },
        UpdateProviderRequest { models: vec!["m".to_owned()], ..acme.change("openai") },
        UpdateProviderRequest { api_key: Some("sk-1".to_owned()), ..acme.change("openai") },
    ];
    let mut tasks = JoinSet::new();
    for change in changes {
        let (providers, call) = (acme.providers.clone(), call(&acme.admin));
        tasks.spawn(async move { providers.update_provider(request(call, change)).await.unwrap() });
    }
    tasks.join_all().await;
    let last = acme.update(acme.change("openai")).await.unwrap().into_inner();
    assert_eq!((last.display_name.as_str(), last.priority, last.weight), ("Name", 4, 5));
    assert_eq!((last.models, last.has_api_key, last.etag.as_str()), (vec!["m".to_owned()], true, "r6"));
}

async fn one_of_many_takes_the_slug(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let mut tasks = JoinSet::new();
    for number in 0..TASKS {
        let (providers, call) = (acme.providers.clone(), call(&acme.admin));
        let message = CreateProviderRequest { display_name: number.to_string(), ..acme.openai("openai") };
        tasks.spawn(async move { providers.create_provider(request(call, message)).await });
    }
    let (created, mut others): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(created.len(), 1);
    for other in others.drain(..) {
        assert_eq!(refused(other), (Code::AlreadyExists, "PROVIDER_ALREADY_EXISTS".to_owned()));
    }
    assert_eq!(acme.audited().await.len(), 1);
}

async fn one_of_many_wins_an_etag(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let etag = acme.create(acme.openai("openai")).await.unwrap().into_inner().etag;
    let mut tasks = JoinSet::new();
    for number in 1..=TASKS {
        let (providers, call) = (acme.providers.clone(), call(&acme.admin));
        let change =
            UpdateProviderRequest { priority: Some(number), etag: etag.clone(), ..acme.change("openai") };
        tasks.spawn(async move { providers.update_provider(request(call, change)).await });
    }
    let (updated, mut others): (Vec<_>, Vec<_>) = tasks.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!(updated.len(), 1);
    for other in others.drain(..) {
        assert_eq!(refused(other), (Code::Aborted, "ETAG_MISMATCH".to_owned()));
    }
}
