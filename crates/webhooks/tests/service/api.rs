//! The calls of people.

use agentrouter_api::common::PageRequest;
use agentrouter_api::workspaces::webhooks_service_server::WebhooksService;
use agentrouter_api::workspaces::{
    CreateWebhookRequest, DeleteWebhookRequest, GetWebhookRequest, ListWebhookDeliveriesRequest,
    ListWebhooksRequest, RotateWebhookSecretRequest, TestWebhookRequest, UpdateWebhookRequest,
    WebhookDeliveryState, WebhookDisabledReason,
};
use agentrouter_kernel::Timestamp;
use agentrouter_kernel::id::{self, Id};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, refused, request, viewer, violations};
use prost_types::{Duration, FieldMask};
use tonic::Code;

use crate::Tenant;
use crate::receiver::Receiver;

on_both_engines!(
    a_webhook_lives,
    every_wrong_field_is_named,
    an_update_follows_its_mask,
    a_stale_etag_is_aborted_and_a_missing_one_accepted,
    disabling_cancels_what_waits,
    webhooks_of_others_do_not_exist,
    page_tokens_belong_to_their_list,
    changes_are_audited,
);

const URL: &str = "https://hooks.example/a?token=1";

async fn a_webhook_lives(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateWebhookRequest {
        display_name: "Pager".to_owned(),
        event_types: ["slot.stuck", "workspace.offline", "slot.stuck"].map(str::to_owned).to_vec(),
        labels: [("team".to_owned(), "core".to_owned())].into(),
        ..acme.new_webhook(URL)
    };
    let created = acme.create(message).await.unwrap().into_inner();
    let webhook = created.webhook.unwrap();
    assert!(webhook.id.starts_with("whk_"));
    assert_eq!((webhook.customer_id.as_str(), webhook.url.as_str()), ("acme", URL));
    assert_eq!(webhook.event_types, ["workspace.offline", "slot.stuck"]);
    assert!(webhook.enabled);
    assert_eq!(webhook.disabled_reason(), WebhookDisabledReason::Unspecified);
    assert_eq!(acme.get(&webhook.id).await.unwrap().into_inner(), webhook);

    let list = ListWebhooksRequest { customer_id: "acme".to_owned(), page: None };
    let listed = acme.service.list_webhooks(request(call(&viewer(acme.id, "acme")), list)).await;
    assert_eq!(listed.unwrap().into_inner().webhooks, std::slice::from_ref(&webhook));

    let delete = DeleteWebhookRequest {
        customer_id: "acme".to_owned(),
        webhook_id: webhook.id.clone(),
        etag: webhook.etag,
    };
    acme.test(&webhook.id).await.unwrap();
    acme.service.delete_webhook(request(call(&acme.admin), delete.clone())).await.unwrap();
    let gone = (Code::NotFound, "WEBHOOK_NOT_FOUND".to_owned());
    assert_eq!(refused(acme.get(&webhook.id).await), gone);
    assert_eq!(refused(acme.service.delete_webhook(request(call(&acme.admin), delete)).await), gone);
    let left = query("SELECT CAST(COUNT(*) AS BIGINT) AS value FROM webhook_deliveries");
    assert_eq!(left.value(&db.db).await.unwrap(), Some(0));
}

async fn every_wrong_field_is_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message = CreateWebhookRequest {
        display_name: "x".repeat(256),
        event_types: ["slot.stuck", "slot.lost", "webhook.test"].map(str::to_owned).to_vec(),
        labels: [(String::new(), String::new())].into(),
        ..acme.new_webhook("ftp://hooks.example")
    };
    assert_eq!(
        violations(acme.create(message).await),
        ["display_name", "url", "event_types[1]", "event_types[2]", "labels"]
    );
    let message = UpdateWebhookRequest {
        url: Some("https://user:password@hooks.example".to_owned()),
        update_mask: Some(FieldMask { paths: vec!["url".to_owned(), "secret".to_owned()] }),
        ..acme.change("pager")
    };
    assert_eq!(violations(acme.update(message).await), ["webhook_id", "update_mask", "url"]);
    let message = RotateWebhookSecretRequest {
        customer_id: "acme".to_owned(),
        webhook_id: Id::<id::Webhook>::new(Timestamp::from_secs(1)).to_string(),
        overlap: Some(Duration { seconds: 31 * 86_400, nanos: 0 }),
    };
    let rotated = acme.service.rotate_webhook_secret(request(call(&acme.admin), message)).await;
    assert_eq!(violations(rotated), ["overlap"]);
}

async fn an_update_follows_its_mask(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let message =
        CreateWebhookRequest { event_types: vec!["slot.stuck".to_owned()], ..acme.new_webhook(URL) };
    let before = acme.create(message).await.unwrap().into_inner().webhook.unwrap();
    let unchanged = acme.update(acme.change(&before.id)).await.unwrap().into_inner();
    assert_eq!(unchanged, before, "nothing changed, so the etag did not");

    let named = UpdateWebhookRequest { display_name: Some("Pager".to_owned()), ..acme.change(&before.id) };
    let named = acme.update(named).await.unwrap().into_inner();
    assert_eq!(
        (named.display_name.as_str(), named.event_types.as_slice()),
        ("Pager", &before.event_types[..])
    );
    assert_ne!(named.etag, before.etag);

    let all = UpdateWebhookRequest {
        update_mask: Some(FieldMask { paths: vec!["event_types".to_owned(), "etag".to_owned()] }),
        ..acme.change(&before.id)
    };
    let all = acme.update(all).await.unwrap().into_inner();
    assert_eq!((all.display_name.as_str(), all.event_types.len()), ("Pager", 0));
}

// Behaviour 42: the etag of a webhook guards its update and its deletion; without one, both go through.
async fn a_stale_etag_is_aborted_and_a_missing_one_accepted(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let (id, _) = acme.created(URL).await;
    let stale = acme.get(&id).await.unwrap().into_inner().etag;
    let rename = |name: &str, etag: &str| UpdateWebhookRequest {
        display_name: Some(name.to_owned()),
        etag: etag.to_owned(),
        ..acme.change(&id)
    };
    acme.update(rename("one", &stale)).await.unwrap();
    let aborted = (Code::Aborted, "ETAG_MISMATCH".to_owned());
    assert_eq!(refused(acme.update(rename("two", &stale)).await), aborted);
    assert_eq!(acme.update(rename("three", "")).await.unwrap().into_inner().display_name, "three");
    let delete = |etag: &str| DeleteWebhookRequest {
        customer_id: "acme".to_owned(),
        webhook_id: id.clone(),
        etag: etag.to_owned(),
    };
    let deleted = acme.service.delete_webhook(request(call(&acme.admin), delete(&stale))).await;
    assert_eq!(refused(deleted), aborted);
    acme.service.delete_webhook(request(call(&acme.admin), delete(""))).await.unwrap();
}

async fn disabling_cancels_what_waits(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    let (id, _) = acme.created(&receiver.url).await;
    acme.test(&id).await.unwrap();
    let switch = |enabled| UpdateWebhookRequest { enabled: Some(enabled), ..acme.change(&id) };
    let disabled = acme.update(switch(false)).await.unwrap().into_inner();
    assert!(!disabled.enabled);
    assert_eq!(disabled.disabled_reason(), WebhookDisabledReason::Requested);
    assert_eq!(refused(acme.test(&id).await), (Code::FailedPrecondition, "WEBHOOK_DISABLED".to_owned()));
    assert!(acme.update(switch(true)).await.unwrap().into_inner().enabled);
    assert_eq!(acme.sender.send_due().await.unwrap(), 0);
    assert_eq!(acme.states(&id).await, [WebhookDeliveryState::Cancelled]);
    assert!(receiver.received().is_empty());
}

// Behaviour 39: what another customer has is as missing as what nobody has, for every call.
async fn webhooks_of_others_do_not_exist(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let other = Tenant::new(&db, "other").await;
    let (id, _) = other.created(URL).await;
    let nobodys = Id::<id::Webhook>::new(Timestamp::from_secs(1)).to_string();
    let text = |id: &str| id.to_owned();
    for id in [&id, &nobodys] {
        let caller = call(&acme.admin);
        let missing = (Code::NotFound, "WEBHOOK_NOT_FOUND".to_owned());
        assert_eq!(refused(acme.get(id).await), missing);
        assert_eq!(refused(acme.update(acme.change(id)).await), missing);
        assert_eq!(refused(acme.test(id).await), missing);
        let delete = DeleteWebhookRequest { customer_id: text("acme"), webhook_id: text(id), etag: text("") };
        assert_eq!(refused(acme.service.delete_webhook(request(caller.clone(), delete)).await), missing);
        let rotate =
            RotateWebhookSecretRequest { customer_id: text("acme"), webhook_id: text(id), overlap: None };
        let rotated = acme.service.rotate_webhook_secret(request(caller.clone(), rotate)).await;
        assert_eq!(refused(rotated), missing);
        let list =
            ListWebhookDeliveriesRequest { customer_id: text("acme"), webhook_id: text(id), page: None };
        assert_eq!(refused(acme.service.list_webhook_deliveries(request(caller, list)).await), missing);
    }
    for name in ["other", "nobody"] {
        let message = GetWebhookRequest { customer_id: text(name), webhook_id: id.clone() };
        let read = acme.service.get_webhook(request(call(&acme.admin), message)).await;
        assert_eq!(refused(read), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
        let message = TestWebhookRequest { customer_id: text(name), webhook_id: id.clone() };
        let tested = acme.service.test_webhook(request(call(&acme.admin), message)).await;
        assert_eq!(refused(tested), (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
    }
    assert!(other.deliveries(&id).await.is_empty());
}

// Behaviour 44: the token of a webhook's deliveries is refused for another webhook, filter, order and caller.
async fn page_tokens_belong_to_their_list(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let (id, _) = acme.created(URL).await;
    let (other, _) = acme.created(URL).await;
    for _ in 0..3 {
        acme.test(&id).await.unwrap();
    }
    let list = |webhook: &str, page: PageRequest| ListWebhookDeliveriesRequest {
        customer_id: "acme".to_owned(),
        webhook_id: webhook.to_owned(),
        page: Some(page),
    };
    let first = list(&id, PageRequest { page_size: 2, ..PageRequest::default() });
    let first = acme.service.list_webhook_deliveries(request(call(&acme.admin), first)).await.unwrap();
    let first = first.into_inner();
    let page = PageRequest { page_token: first.page.unwrap().next_page_token, ..PageRequest::default() };
    let second = list(&id, page.clone());
    let second = acme.service.list_webhook_deliveries(request(call(&acme.admin), second)).await.unwrap();
    assert_eq!((first.deliveries.len(), second.into_inner().deliveries.len()), (2, 1));
    for (message, caller) in [
        (list(&other, page.clone()), &acme.admin),
        (
            list(&id, PageRequest { filter: "event_type = \"webhook.test\"".to_owned(), ..page.clone() }),
            &acme.admin,
        ),
        (list(&id, PageRequest { order_by: "event_type".to_owned(), ..page.clone() }), &acme.admin),
        (list(&id, page.clone()), &viewer(acme.id, "acme")),
    ] {
        let answer = acme.service.list_webhook_deliveries(request(call(caller), message)).await;
        assert_eq!(violations(answer), ["page.page_token"]);
    }
}

async fn changes_are_audited(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let (id, _) = acme.created(URL).await;
    acme.rotate(&id, None).await;
    acme.test(&id).await.unwrap();
    let audited = query("SELECT target AS value FROM audit_entries WHERE customer_id = $1").bind(acme.id);
    assert_eq!(audited.values::<String>(&db.db).await.unwrap(), [id.clone(), id.clone(), id]);
}
