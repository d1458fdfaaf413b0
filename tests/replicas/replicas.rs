//! Three server processes on one PostgreSQL.

use std::future::Future;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use agentrouter_api::configurator::ConfigurationEvent;
use agentrouter_storage::Target;
use tokio::time::{Instant, sleep};
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::common::plane::{change, claim, complete, poll};
use crate::common::program::{PATIENCE, Program, Settings};
use crate::common::{Api, OPERATOR_KEY};

/// A claim that outlasts every test.
pub(crate) const LEASE: Duration = Duration::from_mins(5);

pub(crate) struct Replicas {
    pub(crate) programs: Vec<Program>,
    pub(crate) settings: Vec<Settings>,
    data_dir: tempfile::TempDir,
}

impl Replicas {
    /// Starts them, each at an address that it keeps.
    pub(crate) async fn start(target: &Target) -> Self {
        Self::with(target, &[]).await
    }

    /// Starts them with these variables, too.
    pub(crate) async fn with(target: &Target, environment: &[(&'static str, &str)]) -> Self {
        const KEK: &str = "shared:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=";
        let data_dir = tempfile::tempdir().unwrap();
        let mut replicas = Self { programs: Vec::new(), settings: Vec::new(), data_dir };
        for number in 0..3 {
            let folder = replicas.data_dir.path().join(number.to_string());
            let mut settings = Settings::new(&folder, target);
            settings.listen = free_address();
            settings.environment.push(("AGENTROUTER_KEK", KEK.to_owned()));
            settings.environment.extend(environment.iter().map(|(name, value)| (*name, (*value).to_owned())));
            replicas.programs.push(Program::start(&settings).await);
            replicas.settings.push(settings);
        }
        replicas
    }

    pub(crate) fn api(&self, number: usize, token: &str) -> Api {
        self.programs[number].api(token)
    }

    pub(crate) fn operator(&self, number: usize) -> Api {
        self.api(number, OPERATOR_KEY)
    }

    pub(crate) fn url(&self, number: usize) -> String {
        self.programs[number].base_url()
    }

    pub(crate) async fn stop(self) {
        for program in self.programs {
            program.stop().await;
        }
    }
}

/// An address that nobody listens at, and whose port nobody is given for a connection meanwhile.
fn free_address() -> String {
    // Below the ports that the system gives out. Test programs that run at the same time begin elsewhere.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let begin = 21_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = begin + NEXT.fetch_add(1, Ordering::Relaxed);
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().unwrap().to_string();
        }
    }
}

/// What a client does that was told so: tries again what is UNAVAILABLE, at the next replica, and nothing else. How
/// often it had to.
pub(crate) async fn retried<T, F>(mut call: impl FnMut(usize) -> F) -> (T, usize)
where
    F: Future<Output = Result<T, Status>>,
{
    let deadline = Instant::now() + PATIENCE;
    for attempt in 0.. {
        match call(attempt).await {
            Ok(answer) => return (answer, attempt),
            Err(status) => {
                assert!(status.code() == Code::Unavailable || never_left(&status), "{status:?}");
                assert!(Instant::now() < deadline, "it never comes back: {status:?}");
                let told = status.get_details_retry_info().and_then(|info| info.retry_delay);
                sleep(told.unwrap_or(Duration::from_millis(50)).min(Duration::from_secs(1))).await;
            }
        }
    }
    unreachable!("the attempts have no end")
}

/// Whether the client library dropped a call because its connection closed before it was sent; it calls that cancelled.
fn never_left(status: &Status) -> bool {
    let source = std::error::Error::source(status);
    status.code() == Code::Cancelled
        && source.is_some_and(<dyn std::error::Error>::is::<tonic::transport::Error>)
}

/// Takes a change to a workspace: changed at one replica, polled for at the next, claimed and completed at the third.
pub(crate) async fn deliver(
    replicas: &Replicas,
    turn: usize,
    customer: &str,
    token: &str,
    weight: i32,
) -> ConfigurationEvent {
    let (operator, at) =
        (replicas.operator(turn % 3), |number: usize| replicas.api((turn + number) % 3, token));
    let (polling, claiming, completing) = (at(1), at(2), at(0));
    let polled = retried(|_| poll(&polling, PATIENCE));
    let ((events, _), _) = tokio::join!(polled, retried(|_| change(&operator, customer, weight)));
    let event = match events.into_iter().next() {
        Some(event) => event,
        // The poll ended with its server.
        None => retried(|_| poll(&polling, PATIENCE)).await.0.remove(0),
    };
    let held = retried(|_| claim(&claiming, &event.id, "worker", LEASE)).await.0;
    assert!(held.success, "{held:?}");
    assert!(retried(|_| complete(&completing, &event.id, &held.claim_token)).await.0);
    event
}
