//! Everybody at work at one server, until it is killed under their hands.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::call::Gone;
use crate::client::Client;
use crate::common::program::{PATIENCE, Program};
use crate::common::{Api, OPERATOR_KEY};
use crate::fleet::{Fleet, Tenant, converged};
use crate::ledger::Ledger;

/// What clients and those who set them to work tell each other.
#[derive(Debug, Clone)]
struct Signs {
    /// Finish what is open, and nothing more.
    stop: CancellationToken,
    /// How many found the server as they left it, and go on.
    at_work: watch::Sender<usize>,
}

/// Clients at work.
pub(crate) struct Load {
    tasks: JoinSet<(Client, Result<(), Gone>)>,
    tenants: Vec<Tenant>,
    ledger: Arc<Mutex<Ledger>>,
    signs: Signs,
}

/// Works until it is told to stop and knows what became of everything it did, or the server is gone.
async fn work(mut client: Client, api: Api, signs: Signs) -> (Client, Result<(), Gone>) {
    let ended = steps(&mut client, &api, &signs).await;
    (client, ended)
}

async fn steps(client: &mut Client, api: &Api, Signs { stop, at_work }: &Signs) -> Result<(), Gone> {
    client.resume(api).await?;
    at_work.send_modify(|clients| *clients += 1);
    while !stop.is_cancelled() || !client.is_settled() {
        client.step(api).await?;
    }
    Ok(())
}

impl Load {
    /// Sets everybody to work.
    pub(crate) fn start(fleet: Fleet, program: &Program) -> Self {
        let signs = Signs { stop: CancellationToken::new(), at_work: watch::Sender::new(0) };
        let mut tasks = JoinSet::new();
        for client in fleet.clients {
            let api = program.api(client.token());
            tasks.spawn(work(client, api, signs.clone()));
        }
        Self { tasks, tenants: fleet.tenants, ledger: fleet.ledger, signs }
    }

    /// Waits until everybody is at work, and something has come of it.
    pub(crate) async fn flows(&self) {
        let (mut at_work, all) = (self.signs.at_work.subscribe(), self.tasks.len());
        let flows = timeout(PATIENCE, at_work.wait_for(|clients| *clients == all)).await;
        assert!(flows.is_ok(), "{} of {all} clients came back", *self.signs.at_work.borrow());
        let applied = || self.ledger.lock().unwrap().applied.len();
        let (deadline, before) = (Instant::now() + PATIENCE, applied());
        while applied() == before {
            assert!(Instant::now() < deadline, "nothing is applied any more");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
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
        while let Some(ended) = timeout_at(deadline, self.tasks.join_next()).await.expect("a client hangs") {
            let (client, end) = ended.unwrap();
            clients.push(client);
            ends.push(end);
        }
        (Fleet { tenants: self.tenants, clients, ledger: self.ledger }, ends)
    }
}

/// Lets the writers learn what became of their open writes, and the workers apply what is left, without anything
/// getting in their way any more.
pub(crate) async fn settle(mut fleet: Fleet, program: &Program) -> Fleet {
    let (mut workers, writers): (Vec<_>, Vec<_>) =
        fleet.clients.into_iter().partition(|client| matches!(client, Client::Worker(_)));
    fleet.clients = writers;
    let mut fleet = Load::start(fleet, program).finish().await;
    for client in &mut workers {
        if let Client::Worker(worker) = client {
            worker.is_calm = true;
        }
    }
    let writers = std::mem::replace(&mut fleet.clients, workers);
    let api = program.api(OPERATOR_KEY);
    let tenants = fleet.tenants.clone();
    let ledger = Arc::clone(&fleet.ledger);
    let load = Load::start(fleet, program);
    for (customer, workspace) in tenants.iter().flat_map(Tenant::workspaces) {
        converged(&api, customer, workspace, &ledger).await;
    }
    let mut fleet = load.finish().await;
    fleet.clients.extend(writers);
    fleet
}
