//! A management plane in memory, behind a real socket: events with claims, leases and fencing, and a place to put
//! trouble in.

mod calls;
mod service;
mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configuration::Payload;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorServiceServer;
use agentrouter_api::workspaces::workspaces_service_server::WorkspacesServiceServer;
use agentrouter_kernel::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::Instant;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use service::Service;

pub(crate) const TOKEN: &str = "workspace-token";
/// How long a test waits for what has to happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// What happens at the nth call of an rpc, counted from 1, and whether it makes the call fail.
type Trouble = Arc<dyn Fn(&mut State, &str, u32) -> Option<Status> + Send + Sync>;

#[derive(Clone)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch that a test turns by itself")]
pub(crate) struct State {
    pub(crate) events: Vec<Delivery>,
    pub(crate) configurations: Vec<pb::Configuration>,
    pub(crate) calls: BTreeMap<&'static str, u32>,
    pub(crate) token: &'static str,
    /// Before a call is looked at.
    pub(crate) before: Trouble,
    /// After it was carried out: the answer is lost.
    pub(crate) after: Trouble,
    /// Whether polls are answered at once, whatever they ask for.
    pub(crate) ignores_wait: bool,
    /// Whether there is a watch.
    pub(crate) watches: bool,
    /// Whether something keeps all of a watch until it ends.
    pub(crate) holds_back: bool,
    /// The cursors that watches began with.
    pub(crate) cursors: Vec<String>,
    /// Cursors below are too old.
    pub(crate) oldest_cursor: u64,
    /// Changing it ends all watches.
    pub(crate) cuts: u32,
    /// What looked, waiting polls left out.
    pub(crate) looks: Vec<pb::ListPendingEventsRequest>,
    /// Whether there are full syncs and reconciles.
    pub(crate) syncs: bool,
    pub(crate) sweeps: Vec<Sweep>,
    pub(crate) released: Vec<String>,
    /// What the token is exchanged for; that one is good from then on.
    pub(crate) next_token: String,
    pub(crate) renewals: Vec<(String, String)>,
    /// Whether what was exchanged is still good.
    pub(crate) keeps_renewed: bool,
    pub(crate) upgrade: Upgrade,
}

/// What the plane was asked about drift.
#[derive(Debug, Clone)]
pub(crate) struct Sweep {
    pub(crate) full_sync: bool,
    pub(crate) observed: Vec<(String, i64)>,
    pub(crate) is_complete: bool,
}

/// What the plane knows of an upgrade.
#[derive(Debug, Clone, Default)]
pub(crate) struct Upgrade {
    pub(crate) reports: Vec<pb::ReportDataplaneUpgradeRequest>,
    pub(crate) credentials: Vec<pb::RegistryCredential>,
    pub(crate) confirmed: u32,
    /// Phases that do not follow the one it is in.
    pub(crate) refuses: Vec<pb::UpgradePhase>,
}

#[derive(Debug, Clone)]
pub(crate) struct Delivery {
    pub(crate) event: pb::ConfigurationEvent,
    pub(crate) claim: Option<Claim>,
    pub(crate) renewals: u32,
    pub(crate) completion: Option<pb::CompleteEventRequest>,
}

#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) worker_id: String,
    pub(crate) token: String,
    pub(crate) lease: Duration,
    pub(crate) ends: Instant,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("events", &self.events)
            .field("calls", &self.calls)
            .finish_non_exhaustive()
    }
}

impl State {
    pub(crate) fn calls(&self, rpc: &str) -> u32 {
        self.calls.get(rpc).copied().unwrap_or_default()
    }

    pub(crate) fn delivery(&self, event_id: &str) -> &Delivery {
        self.events.iter().find(|delivery| delivery.event.id == event_id).expect("the event exists")
    }

    fn delivery_mut(&mut self, event_id: &str) -> Result<&mut Delivery, Status> {
        let found = self.events.iter_mut().find(|delivery| delivery.event.id == event_id);
        found.ok_or_else(|| Status::not_found("no such event"))
    }

    pub(crate) fn completion(&self, event_id: &str) -> Option<&pb::CompleteEventRequest> {
        self.delivery(event_id).completion.as_ref()
    }

    fn pending(&self) -> Vec<pb::ConfigurationEvent> {
        let now = Instant::now();
        let waits = |delivery: &&Delivery| {
            delivery.completion.is_none() && delivery.claim.as_ref().is_none_or(|claim| claim.ends <= now)
        };
        self.events.iter().filter(waits).map(|delivery| delivery.event.clone()).collect()
    }

    /// Adds an event without content.
    pub(crate) fn announce(&mut self, event: pb::ConfigurationEvent) -> String {
        let id = format!("evt_{}", self.events.len() + 1);
        let now = SystemClock.now();
        let created_at = prost_types::Timestamp { seconds: now.as_secs(), nanos: now.subsec_nanos() };
        let event = pb::ConfigurationEvent { id: id.clone(), created_at: Some(created_at), ..event };
        self.events.push(Delivery { event, claim: None, renewals: 0, completion: None });
        id
    }

    /// Stores a configuration and the event that delivers it.
    pub(crate) fn publish(&mut self, configuration: pb::Configuration) -> String {
        self.configurations.retain(|held| held.user_id != configuration.user_id);
        let event = pb::ConfigurationEvent {
            workspace_id: "edge".to_owned(),
            user_id: configuration.user_id.clone(),
            config_type: configuration.config_type,
            key_id: configuration.key_id.clone(),
            version: configuration.version,
            ..Default::default()
        };
        self.configurations.push(configuration);
        self.announce(event)
    }
}

/// A version of a user's slot.
pub(crate) fn configuration(user_id: &str, version: i64) -> pb::Configuration {
    pb::Configuration {
        id: format!("cfg_{user_id}"),
        user_id: user_id.to_owned(),
        config_type: pb::ConfigType::ProxyUrl.into(),
        version,
        checksum: format!("sum-{version}"),
        payload: Some(Payload::ProxyUrl(pb::ProxyUrlPayload { url: format!("https://{version}.example") })),
        ..Default::default()
    }
}

pub(crate) fn stale_claim() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("STALE_CLAIM", "agentrouter", std::collections::HashMap::new());
    Status::with_error_details(Code::Aborted, "the claim is not current any more", details)
}

/// The server, and the state that outlives it.
pub(crate) struct Plane {
    state: watch::Sender<State>,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Plane {
    pub(crate) async fn start() -> Self {
        let state = State {
            events: Vec::new(),
            configurations: Vec::new(),
            calls: BTreeMap::new(),
            token: TOKEN,
            before: Arc::new(|_, _, _| None),
            after: Arc::new(|_, _, _| None),
            ignores_wait: false,
            watches: false,
            holds_back: false,
            cursors: Vec::new(),
            oldest_cursor: 0,
            cuts: 0,
            looks: Vec::new(),
            syncs: false,
            sweeps: Vec::new(),
            released: Vec::new(),
            next_token: String::new(),
            renewals: Vec::new(),
            keeps_renewed: true,
            upgrade: Upgrade::default(),
        };
        let address = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut plane = Self { state: watch::Sender::new(state), address, runtime: None };
        plane.resume().await;
        plane
    }

    /// Serves (again), on the same port.
    pub(crate) async fn resume(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime of the server's own");
        let (service, address) = (Service(self.state.clone()), self.address);
        let (bound, mut bound_to) = watch::channel(None);
        runtime.spawn(async move {
            let listener = TcpListener::bind(address).await.expect("the port is free");
            bound.send_replace(listener.local_addr().ok());
            Server::builder()
                .add_service(ConfiguratorServiceServer::new(service.clone()))
                .add_service(WorkspacesServiceServer::new(service))
                .serve_with_incoming(TcpIncoming::from(listener))
                .await
        });
        self.runtime = Some(runtime);
        self.address = bound_to.wait_for(Option::is_some).await.expect("it listens").expect("an address");
    }

    /// Ends the server and its connections without a word, as kill -9 would.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime must not wait inside another one.
            let ended = std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join();
            ended.expect("the server ends");
        }
    }

    pub(crate) fn base_url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut result = None;
        self.state.send_modify(|state| result = Some(change(state)));
        result.expect("it ran")
    }

    pub(crate) fn state(&self) -> State {
        self.state.borrow().clone()
    }

    pub(crate) fn publish(&self, user_id: &str, version: i64) -> String {
        self.change(|state| state.publish(configuration(user_id, version)))
    }

    /// Waits until something holds.
    pub(crate) async fn until(&self, holds: impl FnMut(&State) -> bool) -> State {
        let mut states = self.state.subscribe();
        let found = match tokio::time::timeout(PATIENCE, states.wait_for(holds)).await {
            Ok(state) => Some(state.expect("the plane lives").clone()),
            Err(_) => None,
        };
        found.unwrap_or_else(|| panic!("it never held: {:?}", self.state()))
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        self.kill();
    }
}
