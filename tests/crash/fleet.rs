//! Everybody who uses the server: somebody who creates customers; of two customers those who change providers, who hand
//! out keys and who trigger; and in each of their two workspaces two workers that race.

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
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::call::Gone;
use crate::client::{Client, Signs};
use crate::common::program::{PATIENCE, Program};
use crate::common::{Api, OPERATOR_KEY};
use crate::ledger::Ledger;
use crate::worker::Worker;
use crate::writers::{CustomerWriter, KeyWriter, ProviderWriter, Trigger};

pub(crate) const CUSTOMERS: [&str; 2] = ["acme", "globex"];
pub(crate) const WORKSPACES: [&str; 2] = ["east", "west"];

pub(crate) struct Fleet {
    pub(crate) clients: Vec<Client>,
    pub(crate) ledger: Arc<Mutex<Ledger>>,
}

/// Clients at work.
pub(crate) struct Load {
    tasks: JoinSet<(Client, Result<(), Gone>)>,
    ledger: Arc<Mutex<Ledger>>,
    signs: Signs,
}

impl Fleet {
    /// Creates what the clients need to begin.
    pub(crate) async fn prepare(program: &Program, rng: &mut fastrand::Rng) -> Self {
        let api = program.api(OPERATOR_KEY);
        let ledger = Arc::new(Mutex::new(Ledger::default()));
        let mut clients = vec![Client::Customer(CustomerWriter::new("other"))];
        for (customer, providers, has_keys) in
            [(CUSTOMERS[0], &["openai", "anthropic"][..], false), (CUSTOMERS[1], &["openai"], true)]
        {
            let create = CreateCustomerRequest { customer_id: customer.to_owned(), ..Default::default() };
            TenancyServiceClient::new(api.clone()).create_customer(create).await.unwrap();
            for name in providers {
                clients.push(Client::Provider(ProviderWriter::new(customer, name)));
            }
            clients.push(if has_keys {
                Client::Keys(KeyWriter::new(customer, &create_identity(&api, customer).await))
            } else {
                Client::Trigger(Trigger::new(customer, WORKSPACES[0]))
            });
            for workspace in WORKSPACES {
                let token = create_workspace(&api, customer, workspace).await;
                for number in 1..=2 {
                    let id = format!("{customer}-{workspace}-{number}");
                    let worker = Worker::new(workspace, &id, &token, Arc::clone(&ledger));
                    clients.push(Client::Worker(worker.with_rng(rng.fork())));
                }
            }
        }
        Self { clients, ledger }
    }

    /// Sets everybody to work.
    pub(crate) fn work(self, program: &Program) -> Load {
        let signs = Signs { stop: CancellationToken::new(), at_work: watch::Sender::new(0) };
        let mut tasks = JoinSet::new();
        for client in self.clients {
            let token = if let Client::Worker(worker) = &client { &worker.token } else { OPERATOR_KEY };
            let api = program.api(token);
            tasks.spawn(client.work(api, signs.clone()));
        }
        Load { tasks, ledger: self.ledger, signs }
    }

    /// Lets the writers learn what became of their open writes, and the workers apply what is left, without anything
    /// getting in their way any more.
    pub(crate) async fn settle(self, program: &Program) -> Self {
        let (mut workers, writers): (Vec<_>, Vec<_>) =
            self.clients.into_iter().partition(|client| matches!(client, Client::Worker(_)));
        let writers = Self { clients: writers, ledger: Arc::clone(&self.ledger) };
        let mut writers = writers.work(program).finish().await;
        for client in &mut workers {
            if let Client::Worker(worker) = client {
                worker.is_calm = true;
            }
        }
        let workers = Self { clients: workers, ledger: self.ledger }.work(program);
        for (customer, workspace) in workspaces() {
            converged(&program.api(OPERATOR_KEY), customer, workspace).await;
        }
        writers.clients.extend(workers.finish().await.clients);
        writers
    }

    /// How many slots a customer has in the end.
    pub(crate) fn slots(&self, customer: &str) -> usize {
        1 + self.keys().filter(|writer| writer.customer == customer).count()
    }

    pub(crate) fn providers(&self) -> impl Iterator<Item = &ProviderWriter> {
        self.clients
            .iter()
            .filter_map(|client| if let Client::Provider(it) = client { Some(it) } else { None })
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

impl Load {
    /// Waits until everybody is at work.
    pub(crate) async fn flows(&self) {
        let (mut at_work, all) = (self.signs.at_work.subscribe(), self.tasks.len());
        let flows = timeout(PATIENCE, at_work.wait_for(|clients| *clients == all)).await;
        assert!(flows.is_ok(), "{} of {all} clients came back", *self.signs.at_work.borrow());
    }

    /// Kills the server under their hands.
    pub(crate) async fn cut_short(mut self, program: Program) -> Fleet {
        let gone = self.tasks.try_join_next().map(|ended| ended.map(|(_, ended)| ended));
        assert!(gone.is_none(), "a client ended before the server did: {gone:?}\n{}", program.log());
        program.kill().await;
        let (fleet, ends) = self.end().await;
        assert!(ends.iter().all(Result::is_err), "nobody was told to stop");
        fleet
    }

    /// Lets everybody finish.
    async fn finish(self) -> Fleet {
        self.signs.stop.cancel();
        let (fleet, ends) = self.end().await;
        assert!(ends.iter().all(Result::is_ok), "nobody was cut off: {ends:?}");
        fleet
    }

    async fn end(mut self) -> (Fleet, Vec<Result<(), Gone>>) {
        let (mut clients, mut ends) = (Vec::new(), Vec::new());
        let deadline = Instant::now() + PATIENCE;
        while let Some(ended) =
            tokio::time::timeout_at(deadline, self.tasks.join_next()).await.expect("a client hangs")
        {
            let (client, end) = ended.unwrap();
            clients.push(client);
            ends.push(end);
        }
        (Fleet { clients, ledger: self.ledger }, ends)
    }
}

/// Every workspace, with its customer.
pub(crate) fn workspaces() -> impl Iterator<Item = (&'static str, &'static str)> {
    CUSTOMERS.into_iter().flat_map(|customer| WORKSPACES.map(|workspace| (customer, workspace)))
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

/// Waits until a workspace runs the newest version of everything and nothing is under way.
async fn converged(api: &Api, customer: &str, workspace: &str) {
    let mut client = WorkspacesServiceClient::new(api.clone());
    let mut last = WorkspaceStatus::default();
    let is_converged = async {
        loop {
            let request = GetWorkspaceStatusRequest {
                customer_id: customer.to_owned(),
                workspace_id: workspace.to_owned(),
            };
            last = client.get_workspace_status(request).await.unwrap().into_inner();
            if last.converged && last.pending_events + last.in_flight_events + last.stuck_events == 0 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let in_time = timeout(PATIENCE, is_converged).await.is_ok();
    assert!(in_time, "{customer}/{workspace} does not converge: {last:#?}");
}
