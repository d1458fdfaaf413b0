//! Clients that go on whatever happens: from one server to the next, and from one life to the next.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;

use crate::call::Gone;
use crate::client::Client;
use crate::common::Api;
use crate::common::program::api_at;

/// What those who set a client to work tell it.
#[derive(Debug, Clone)]
pub(crate) struct Signs {
    /// Die.
    pub(crate) death: Arc<Notify>,
    /// Nothing gets in the way any more, so neither fail nor die.
    pub(crate) calm: watch::Receiver<bool>,
    /// Finish what is open, and nothing more.
    pub(crate) stop: CancellationToken,
}

/// Why a client leaves a server.
enum Left {
    Settled,
    Gone,
    Died,
}

/// Works until it is told to stop and knows what became of everything it did.
pub(crate) async fn drive(
    mut client: Client,
    servers: Vec<SocketAddr>,
    signs: Signs,
    mut rng: fastrand::Rng,
) -> Client {
    let mut server = rng.usize(..servers.len());
    loop {
        let api = api_at(servers[server], client.token());
        let pause = match work(&mut client, &api, &signs, &mut rng).await {
            Left::Settled => return client,
            Left::Gone => rng.u64(20..200),
            Left::Died => rng.u64(100..1_500),
        };
        tokio::time::sleep(Duration::from_millis(pause)).await;
        server = (server + 1) % servers.len();
    }
}

async fn work(client: &mut Client, api: &Api, signs: &Signs, rng: &mut fastrand::Rng) -> Left {
    let left = tokio::select! {
        worked = steps(client, api, signs, rng) => worked.map_or(Left::Gone, |()| Left::Settled),
        () = signs.death.notified() => Left::Died,
    };
    if let (Left::Died, Client::Worker(worker)) = (&left, client) {
        worker.die();
    }
    left
}

async fn steps(client: &mut Client, api: &Api, signs: &Signs, rng: &mut fastrand::Rng) -> Result<(), Gone> {
    client.resume(api).await?;
    while !signs.stop.is_cancelled() || !client.is_settled() {
        if let Client::Worker(worker) = client {
            worker.is_calm = *signs.calm.borrow();
        }
        client.step(api).await?;
        // People take their time, and a worker that is told to try again does not do so at once.
        let pause = if matches!(client, Client::Worker(_)) { rng.u64(1..10) } else { rng.u64(200..1_000) };
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    Ok(())
}
