//! Targets inside the own network are refused, when they are named and when they are connected to.

use agentrouter_api::workspaces::webhooks_service_server::WebhooksService;
use agentrouter_api::workspaces::{UpdateWebhookRequest, WebhookDeliveryState};
use agentrouter_testkit::{TestDb, call, on_both_engines, request, violations};
use agentrouter_webhooks::{Sender, TargetPolicy, Webhooks};

use crate::Tenant;
use crate::receiver::Receiver;

on_both_engines!(a_private_target_cannot_be_named, a_name_is_judged_when_it_is_connected_to);

async fn a_private_target_cannot_be_named(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let public = Webhooks::new(db.deps(), TargetPolicy::Public);
    for url in ["http://hooks.example", "https://127.0.0.1", "https://10.0.0.1/x", "https://[::1]:8443"] {
        let created = public.create_webhook(request(call(&acme.admin), acme.new_webhook(url))).await;
        assert_eq!(violations(created), ["url"], "{url}");
    }
    let (id, _) = acme.created("https://hooks.example").await;
    let change =
        UpdateWebhookRequest { url: Some("https://169.254.169.254/".to_owned()), ..acme.change(&id) };
    assert_eq!(violations(public.update_webhook(request(call(&acme.admin), change)).await), ["url"]);
}

async fn a_name_is_judged_when_it_is_connected_to(db: TestDb) {
    let acme = Tenant::new(&db, "acme").await;
    let receiver = Receiver::start().await;
    // As a name that resolved to somewhere else when it was stored.
    let (named, _) = acme.created(&format!("https://localhost:{}/hook", receiver.port)).await;
    let (literal, _) = acme.created(&receiver.url).await;
    let public = Sender::new(&db.deps(), TargetPolicy::Public).unwrap();
    for (id, error) in [
        (named, "the URL must not lead to a private, loopback or reserved address"),
        (literal, "the URL must be an https URL"),
    ] {
        acme.test(&id).await.unwrap();
        assert_eq!(public.send_due().await.unwrap(), 1);
        let [delivery] = &acme.deliveries(&id).await[..] else { unreachable!("one delivery") };
        assert_eq!((delivery.state(), delivery.last_status_code), (WebhookDeliveryState::Pending, 0));
        assert_eq!(delivery.last_error, error);
    }
    assert!(receiver.received().is_empty());
}
