//! A customer with data planes, and the calls that a change takes to them.

use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{
    AcknowledgeEventRequest, AcknowledgeEventResponse, CompleteEventRequest, ConfigurationEvent,
    ListPendingEventsRequest,
};
use agentrouter_api::providers::providers_service_client::ProvidersServiceClient;
use agentrouter_api::providers::{CreateProviderRequest, ProviderSchema, UpdateProviderRequest};
use agentrouter_api::tenancy::CreateCustomerRequest;
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_api::workspaces::{CreateWorkspaceRequest, IssueWorkspaceTokenRequest};
use tonic::{Response, Status};

use super::Api;

/// The only provider of each customer here.
const PROVIDER: &str = "openai";

pub(crate) async fn create_customer(operator: &Api, customer: &str) {
    let create = CreateCustomerRequest { customer_id: customer.to_owned(), ..Default::default() };
    TenancyServiceClient::new(operator.clone()).create_customer(create).await.unwrap();
}

/// Creates a workspace; its token.
pub(crate) async fn create_workspace(operator: &Api, customer: &str, workspace: &str) -> String {
    let mut workspaces = WorkspacesServiceClient::new(operator.clone());
    let (customer_id, workspace_id) = (customer.to_owned(), workspace.to_owned());
    let create = CreateWorkspaceRequest {
        customer_id: customer_id.clone(),
        workspace_id: workspace_id.clone(),
        ..Default::default()
    };
    workspaces.create_workspace(create).await.unwrap();
    let issue = IssueWorkspaceTokenRequest { customer_id, workspace_id };
    workspaces.issue_workspace_token(issue).await.unwrap().into_inner().token
}

/// The first change: version 1 of the customer's providers.
pub(crate) async fn create_provider(operator: &Api, customer: &str) {
    let create = CreateProviderRequest {
        customer_id: customer.to_owned(),
        provider_id: PROVIDER.to_owned(),
        schema: ProviderSchema::Openai.into(),
        base_url: "https://api.example.com/v1".to_owned(),
        models: vec!["a-model".to_owned()],
        ..Default::default()
    };
    ProvidersServiceClient::new(operator.clone()).create_provider(create).await.unwrap();
}

/// A further change, which must differ from the one before.
pub(crate) async fn change(operator: &Api, customer: &str, weight: i32) -> Result<(), Status> {
    let update = UpdateProviderRequest {
        customer_id: customer.to_owned(),
        provider_id: PROVIDER.to_owned(),
        weight: Some(weight),
        ..Default::default()
    };
    ProvidersServiceClient::new(operator.clone()).update_provider(update).await.map(|_| ())
}

/// What waits for a worker, held open for `wait`.
pub(crate) async fn poll(worker: &Api, wait: Duration) -> Result<Vec<ConfigurationEvent>, Status> {
    let wait = prost_types::Duration::try_from(wait).unwrap();
    let request = ListPendingEventsRequest { wait: Some(wait), ..Default::default() };
    let answer = ConfiguratorServiceClient::new(worker.clone()).list_pending_events(request).await?;
    Ok(answer.into_inner().events)
}

pub(crate) async fn claim(
    worker: &Api,
    event: &str,
    worker_id: &str,
    lease: Duration,
) -> Result<AcknowledgeEventResponse, Status> {
    let request = AcknowledgeEventRequest {
        event_id: event.to_owned(),
        worker_id: worker_id.to_owned(),
        lease: Some(prost_types::Duration::try_from(lease).unwrap()),
    };
    let answer = ConfiguratorServiceClient::new(worker.clone()).acknowledge_event(request).await;
    answer.map(Response::into_inner)
}

/// Reports an event as applied.
pub(crate) async fn complete(worker: &Api, event: &str, claim_token: &str) -> Result<bool, Status> {
    let request = CompleteEventRequest {
        event_id: event.to_owned(),
        success: true,
        claim_token: claim_token.to_owned(),
        ..Default::default()
    };
    let answer = ConfiguratorServiceClient::new(worker.clone()).complete_event(request).await;
    answer.map(|answer| answer.into_inner().success)
}
