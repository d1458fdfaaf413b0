//! Everybody who uses the servers: somebody who creates customers; of some customers those who change providers, who
//! hand out keys and who trigger; and in each of their workspaces workers, some of which race.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrouter_api::identity::identities_service_client::IdentitiesServiceClient;
use agentrouter_api::identity::{CreateIdentityRequest, IdentityKind};
use agentrouter_api::tenancy::CreateCustomerRequest;
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_api::workspaces::{
    CreateWorkspaceRequest, GetWorkspaceStatusRequest, IssueWorkspaceTokenRequest, WorkspaceStatus,
};
use tokio::time::Instant;

use crate::call::answered;
use crate::client::Client;
use crate::common::Api;
use crate::common::program::PATIENCE;
use crate::ledger::Ledger;
use crate::worker::{Habits, Worker};
use crate::writers::{CustomerWriter, KeyWriter, ProviderWriter, Trigger};

/// A customer, and who works there.
#[derive(Debug, Clone)]
pub(crate) struct Tenant {
    pub(crate) customer: &'static str,
    /// Each one is changed by somebody.
    pub(crate) providers: &'static [&'static str],
    /// Whether somebody hands out keys.
    pub(crate) has_keys: bool,
    /// Whether somebody triggers.
    pub(crate) has_trigger: bool,
    pub(crate) workspaces: Vec<String>,
    /// In how many of the workspaces, the first ones, two workers race.
    pub(crate) races: usize,
}

impl Tenant {
    /// Every workspace, with its customer.
    pub(crate) fn workspaces(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.workspaces.iter().map(|workspace| (self.customer, workspace.as_str()))
    }
}

pub(crate) struct Fleet {
    pub(crate) tenants: Vec<Tenant>,
    pub(crate) clients: Vec<Client>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

impl Fleet {
    /// Creates what the clients need to begin.
    pub(crate) async fn prepare(
        api: &Api,
        tenants: Vec<Tenant>,
        habits: Habits,
        rng: &mut fastrand::Rng,
    ) -> Self {
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut clients = vec![Client::Customer(CustomerWriter::new("other"))];
        for tenant in &tenants {
            let customer = tenant.customer;
            let create = CreateCustomerRequest { customer_id: customer.to_owned(), ..Default::default() };
            TenancyServiceClient::new(api.clone()).create_customer(create).await.unwrap();
            for name in tenant.providers {
                clients.push(Client::Provider(Box::new(ProviderWriter::new(customer, name))));
            }
            if tenant.has_keys {
                let identity = create_identity(api, customer).await;
                clients.push(Client::Keys(KeyWriter::new(customer, &identity)));
            }
            if tenant.has_trigger {
                clients.push(Client::Trigger(Trigger::new(customer, &tenant.workspaces[0])));
            }
            for (index, workspace) in tenant.workspaces.iter().enumerate() {
                let token = create_workspace(api, customer, workspace).await;
                for number in 1..=1 + usize::from(index < tenant.races) {
                    let id = format!("{customer}-{workspace}-{number}");
                    let worker = Worker::new(workspace, &id, &token, habits, Arc::clone(&ledger));
                    clients.push(Client::Worker(Box::new(worker.with_rng(rng.fork()))));
                }
            }
        }
        Self { tenants, clients, ledger }
    }

    /// How many slots a customer has in the end.
    pub(crate) fn slots(&self, customer: &str) -> usize {
        1 + self.keys().filter(|writer| writer.customer == customer).count()
    }

    pub(crate) fn providers(&self) -> impl Iterator<Item = &ProviderWriter> {
        self.clients
            .iter()
            .filter_map(|client| if let Client::Provider(it) = client { Some(it.as_ref()) } else { None })
    }

    pub(crate) fn customers(&self) -> impl Iterator<Item = &CustomerWriter> {
        self.clients
            .iter()
            .filter_map(|client| if let Client::Customer(it) = client { Some(it) } else { None })
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &KeyWriter> {
        self.clients.iter().filter_map(|client| if let Client::Keys(it) = client { Some(it) } else { None })
    }

    pub(crate) fn triggers(&self) -> impl Iterator<Item = &Trigger> {
        self.clients
            .iter()
            .filter_map(|client| if let Client::Trigger(it) = client { Some(it) } else { None })
    }
}

async fn create_identity(api: &Api, customer: &str) -> String {
    let create = CreateIdentityRequest {
        customer_id: customer.to_owned(),
        display_name: "Ada".to_owned(),
        kind: IdentityKind::Person.into(),
        ..Default::default()
    };
    IdentitiesServiceClient::new(api.clone()).create_identity(create).await.unwrap().into_inner().id
}

async fn create_workspace(api: &Api, customer: &str, workspace: &str) -> String {
    let mut client = WorkspacesServiceClient::new(api.clone());
    let (customer_id, workspace_id) = (customer.to_owned(), workspace.to_owned());
    let create = CreateWorkspaceRequest {
        customer_id: customer_id.clone(),
        workspace_id: workspace_id.clone(),
        ..Default::default()
    };
    client.create_workspace(create).await.unwrap();
    let issue = IssueWorkspaceTokenRequest { customer_id, workspace_id };
    client.issue_workspace_token(issue).await.unwrap().into_inner().token
}

/// Waits until a workspace runs the newest version of everything and nothing is under way. As long as anything is
/// applied anywhere, a slow machine is only slow.
pub(crate) async fn converged(api: &Api, customer: &str, workspace: &str, ledger: &Mutex<Ledger>) {
    let applied = || ledger.lock().unwrap().applied.len();
    let mut client = WorkspacesServiceClient::new(api.clone());
    let (mut before, mut deadline) = (applied(), Instant::now() + PATIENCE * 2);
    let mut last = WorkspaceStatus::default();
    while !(last.converged && last.pending_events + last.in_flight_events + last.stuck_events == 0) {
        if applied() != before {
            (before, deadline) = (applied(), Instant::now() + PATIENCE * 2);
        }
        assert!(Instant::now() < deadline, "{customer}/{workspace} does not converge: {last:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (customer_id, workspace_id) = (customer.to_owned(), workspace.to_owned());
        let request = GetWorkspaceStatusRequest { customer_id, workspace_id };
        if let Ok(Some(status)) = answered(client.get_workspace_status(request).await) {
            last = status;
        }
    }
}
