//! WebhooksService: decode, call, encode.

use agentrouter_api::workspaces as pb;
use agentrouter_api::workspaces::webhooks_service_server::WebhooksService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status};

use crate::model::{Delivery, Webhook};
use crate::target::TargetPolicy;
use crate::{convert, service, store};

/// WebhooksService.
#[derive(Debug, Clone)]
pub struct Webhooks {
    deps: Deps,
    policy: TargetPolicy,
}

impl Webhooks {
    /// The service on this database, with these keys; targets outside the policy are refused.
    pub fn new(deps: Deps, policy: TargetPolicy) -> Self {
        Self { deps, policy }
    }

    async fn create(
        &self,
        call: &Call,
        request: pb::CreateWebhookRequest,
    ) -> Result<pb::CreateWebhookResponse, Fault> {
        let (settings, enabled) = convert::new_webhook(&request, self.policy)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let keyring = &self.deps.keyring;
        let (created, secret) = service::create(write.tx(), keyring, customer.id, settings, enabled).await?;
        let id = created.id;
        write.commit(customer.id, id, convert::created(created, &secret, &customer.slug)).await
    }

    async fn get(&self, call: &Call, request: pb::GetWebhookRequest) -> Result<pb::Webhook, Fault> {
        let id = convert::webhook_id(&request.customer_id, &request.webhook_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let found = service::find(&self.deps.db, customer.id, id).await?;
        Ok(convert::webhook(found, &customer.slug))
    }

    async fn list(
        &self,
        call: &Call,
        request: pb::ListWebhooksRequest,
    ) -> Result<pb::ListWebhooksResponse, Fault> {
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let list = call.list(&store::WEBHOOKS, request.page).bind(customer.id);
        let (found, page) = list.fetch::<Webhook>(&self.deps).await?;
        let webhooks = found.into_iter().map(|found| convert::webhook(found, &customer.slug)).collect();
        Ok(pb::ListWebhooksResponse { webhooks, page: Some(page) })
    }

    async fn update(&self, call: &Call, request: pb::UpdateWebhookRequest) -> Result<pb::Webhook, Fault> {
        let (id, change) = convert::change(&request, self.policy)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let expected = expected_revision(&request.etag);
        let updated = service::update(write.tx(), customer.id, id, expected, change).await?;
        write.commit(customer.id, id, convert::webhook(updated, &customer.slug)).await
    }

    async fn delete(
        &self,
        call: &Call,
        request: pb::DeleteWebhookRequest,
    ) -> Result<pb::DeleteWebhookResponse, Fault> {
        let id = convert::webhook_id(&request.customer_id, &request.webhook_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        service::delete(write.tx(), customer.id, id, expected_revision(&request.etag)).await?;
        write.commit(customer.id, id, pb::DeleteWebhookResponse {}).await
    }

    async fn rotate_secret(
        &self,
        call: &Call,
        request: pb::RotateWebhookSecretRequest,
    ) -> Result<pb::RotateWebhookSecretResponse, Fault> {
        let (id, overlap) = convert::rotation(&request)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let keyring = &self.deps.keyring;
        let (rotated, secret) = service::rotate_secret(write.tx(), keyring, customer.id, id, overlap).await?;
        write.commit(customer.id, id, convert::rotated(rotated, &secret, &customer.slug)).await
    }

    async fn test(&self, call: &Call, request: pb::TestWebhookRequest) -> Result<pb::WebhookDelivery, Fault> {
        let id = convert::webhook_id(&request.customer_id, &request.webhook_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        let mut write = Write::begin(&self.deps, call, &request).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let queued = service::test(write.tx(), customer.id, &customer.slug, id).await?;
        write.commit(customer.id, id, convert::delivery(queued)?).await
    }

    async fn list_deliveries(
        &self,
        call: &Call,
        request: pb::ListWebhookDeliveriesRequest,
    ) -> Result<pb::ListWebhookDeliveriesResponse, Fault> {
        let id = convert::webhook_id(&request.customer_id, &request.webhook_id)?;
        let customer = call.customer(&self.deps.db, &request.customer_id).await?;
        service::find(&self.deps.db, customer.id, id).await?;
        let list = call.list(&store::DELIVERIES, request.page).bind(customer.id).bind(id);
        let (found, page) = list.fetch::<Delivery>(&self.deps).await?;
        let deliveries = found.into_iter().map(convert::delivery).collect::<Result<_, _>>()?;
        Ok(pb::ListWebhookDeliveriesResponse { deliveries, page: Some(page) })
    }
}

#[tonic::async_trait]
impl WebhooksService for Webhooks {
    async fn create_webhook(
        &self,
        request: Request<pb::CreateWebhookRequest>,
    ) -> Result<Response<pb::CreateWebhookResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.create(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn get_webhook(
        &self,
        request: Request<pb::GetWebhookRequest>,
    ) -> Result<Response<pb::Webhook>, Status> {
        let (call, request) = Call::open(request)?;
        self.get(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_webhooks(
        &self,
        request: Request<pb::ListWebhooksRequest>,
    ) -> Result<Response<pb::ListWebhooksResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn update_webhook(
        &self,
        request: Request<pb::UpdateWebhookRequest>,
    ) -> Result<Response<pb::Webhook>, Status> {
        let (call, request) = Call::open(request)?;
        self.update(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn delete_webhook(
        &self,
        request: Request<pb::DeleteWebhookRequest>,
    ) -> Result<Response<pb::DeleteWebhookResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.delete(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn rotate_webhook_secret(
        &self,
        request: Request<pb::RotateWebhookSecretRequest>,
    ) -> Result<Response<pb::RotateWebhookSecretResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.rotate_secret(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn test_webhook(
        &self,
        request: Request<pb::TestWebhookRequest>,
    ) -> Result<Response<pb::WebhookDelivery>, Status> {
        let (call, request) = Call::open(request)?;
        self.test(&call, request).await.map(Response::new).map_err(into_status)
    }

    async fn list_webhook_deliveries(
        &self,
        request: Request<pb::ListWebhookDeliveriesRequest>,
    ) -> Result<Response<pb::ListWebhookDeliveriesResponse>, Status> {
        let (call, request) = Call::open(request)?;
        self.list_deliveries(&call, request).await.map(Response::new).map_err(into_status)
    }
}
