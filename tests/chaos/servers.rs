//! Servers that share a database, each watched over by somebody who starts it again.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::common::Api;
use crate::common::program::{Program, Settings, api_at};

/// How long before a server that did not come up is tried again.
const AGAIN: Duration = Duration::from_millis(200);

/// How a server is to go down.
struct Fall {
    gently: bool,
    down: Duration,
}

/// The servers. Each one keeps its address.
pub(crate) struct Servers {
    addresses: Vec<SocketAddr>,
    falls: Vec<mpsc::UnboundedSender<Fall>>,
    watchers: JoinSet<()>,
}

impl Servers {
    /// Starts one for each of the settings, all at once.
    pub(crate) async fn start(all: Vec<Settings>) -> Self {
        let mut servers = Self { addresses: Vec::new(), falls: Vec::new(), watchers: JoinSet::new() };
        let mut born = Vec::new();
        for settings in all {
            let (fall, falls) = mpsc::unbounded_channel();
            let (found, address) = watch::channel(None);
            servers.falls.push(fall);
            servers.watchers.spawn(watch_over(settings, falls, found));
            born.push(address);
        }
        for mut address in born {
            let address = address.wait_for(Option::is_some).await.unwrap().unwrap();
            servers.addresses.push(address);
        }
        servers
    }

    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    pub(crate) fn api(&self, index: usize, token: &str) -> Api {
        api_at(self.addresses[index], token)
    }

    /// Brings a server down for a while; where it is down already, once more after it came back.
    pub(crate) fn fell(&self, index: usize, gently: bool, down: Duration) {
        self.falls[index].send(Fall { gently, down }).unwrap();
    }

    /// Ends them well.
    pub(crate) async fn stop(self) {
        drop(self.falls);
        // The panic of a watcher is the panic of the test.
        self.watchers.join_all().await;
    }
}

async fn watch_over(
    mut settings: Settings,
    mut falls: mpsc::UnboundedReceiver<Fall>,
    found: watch::Sender<Option<SocketAddr>>,
) {
    loop {
        let mut program = Program::spawn(&settings);
        if !program.serves().await {
            // The database was away for too long, or came back in the middle.
            let (_, log) = program.ended().await;
            assert!(!log.contains("panicked"), "{log}");
            tokio::time::sleep(AGAIN).await;
            continue;
        }
        // Those who knew it find it again.
        settings.listen = program.address().to_string();
        found.send_replace(Some(program.address()));
        let fall = falls.recv().await;
        let log = program.log();
        assert!(program.is_running(), "a server ended by itself:\n{log}");
        assert!(!log.contains("panicked"), "{log}");
        // Whoever called has been told of an error, too, and stops the test; here is what was behind it.
        for line in log.lines().filter(|line| line.contains("\"ERROR\"")) {
            println!("{line}");
        }
        match fall {
            None => return program.stop().await,
            Some(Fall { gently: true, down }) => {
                program.stop().await;
                tokio::time::sleep(down).await;
            }
            Some(Fall { gently: false, down }) => {
                program.kill().await;
                tokio::time::sleep(down).await;
            }
        }
    }
}
