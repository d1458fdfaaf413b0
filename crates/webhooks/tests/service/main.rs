//! Webhooks as their people and their receivers meet them, on both engines, with a receiver that listens.

#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a helper that fails fails its test")]

mod api;
mod presence;
mod receiver;
mod secrets;
mod sending;
mod slots;
mod targets;
mod upgrades;

use std::time::Duration;

use agentrouter_api::workspaces::webhooks_service_server::WebhooksService;
use agentrouter_api::workspaces::{
    CreateWebhookRequest, CreateWebhookResponse, GetWebhookRequest, ListWebhookDeliveriesRequest,
    RotateWebhookSecretRequest, TestWebhookRequest, UpdateWebhookRequest, Webhook, WebhookDelivery,
    WebhookDeliveryState,
};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_testkit::{TestDb, admin, call, request};
use agentrouter_webhooks::{Sender, TargetPolicy, Webhooks};
use tonic::{Response, Status};

/// A customer with an admin, and what sends for it.
struct Tenant<'a> {
    db: &'a TestDb,
    id: Id<Customer>,
    slug: &'static str,
    admin: Principal,
    service: Webhooks,
    sender: Sender,
}

impl<'a> Tenant<'a> {
    async fn new(db: &'a TestDb, slug: &'static str) -> Self {
        let id = db.customer(slug).await;
        let service = Webhooks::new(db.deps(), TargetPolicy::Any);
        let sender = Sender::new(&db.deps(), TargetPolicy::Any).unwrap();
        // Below the 30 s for which a sender keeps a message to itself.
        let sender = sender.with_timeout(Duration::from_secs(20));
        Self { db, id, slug, admin: admin(id, slug), service, sender }
    }

    fn new_webhook(&self, url: &str) -> CreateWebhookRequest {
        CreateWebhookRequest {
            customer_id: self.slug.to_owned(),
            url: url.to_owned(),
            ..CreateWebhookRequest::default()
        }
    }

    /// An update that names no field yet.
    fn change(&self, webhook: &str) -> UpdateWebhookRequest {
        UpdateWebhookRequest {
            customer_id: self.slug.to_owned(),
            webhook_id: webhook.to_owned(),
            ..UpdateWebhookRequest::default()
        }
    }

    async fn create(&self, message: CreateWebhookRequest) -> Result<Response<CreateWebhookResponse>, Status> {
        self.service.create_webhook(request(call(&self.admin), message)).await
    }

    /// A webhook for all types: its row id and its secret.
    async fn created(&self, url: &str) -> (String, String) {
        let answer = self.create(self.new_webhook(url)).await.unwrap().into_inner();
        (answer.webhook.unwrap().id, answer.secret)
    }

    async fn get(&self, webhook: &str) -> Result<Response<Webhook>, Status> {
        let message = GetWebhookRequest { customer_id: self.slug.to_owned(), webhook_id: webhook.to_owned() };
        self.service.get_webhook(request(call(&self.admin), message)).await
    }

    async fn update(&self, message: UpdateWebhookRequest) -> Result<Response<Webhook>, Status> {
        self.service.update_webhook(request(call(&self.admin), message)).await
    }

    async fn rotate(&self, webhook: &str, overlap: Option<Duration>) -> String {
        let message = RotateWebhookSecretRequest {
            customer_id: self.slug.to_owned(),
            webhook_id: webhook.to_owned(),
            overlap: overlap.map(|overlap| overlap.try_into().unwrap()),
        };
        self.service
            .rotate_webhook_secret(request(call(&self.admin), message))
            .await
            .unwrap()
            .into_inner()
            .secret
    }

    async fn test(&self, webhook: &str) -> Result<Response<WebhookDelivery>, Status> {
        let message =
            TestWebhookRequest { customer_id: self.slug.to_owned(), webhook_id: webhook.to_owned() };
        self.service.test_webhook(request(call(&self.admin), message)).await
    }

    /// The deliveries of a webhook, newest first.
    async fn deliveries(&self, webhook: &str) -> Vec<WebhookDelivery> {
        let message = ListWebhookDeliveriesRequest {
            customer_id: self.slug.to_owned(),
            webhook_id: webhook.to_owned(),
            page: None,
        };
        self.service
            .list_webhook_deliveries(request(call(&self.admin), message))
            .await
            .unwrap()
            .into_inner()
            .deliveries
    }

    async fn states(&self, webhook: &str) -> Vec<WebhookDeliveryState> {
        self.deliveries(webhook).await.iter().map(WebhookDelivery::state).collect()
    }
}
