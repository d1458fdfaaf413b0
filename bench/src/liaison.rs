//! Real workers: the liaison's own, with a data plane that is a variable. How soon they have applied a change, and what
//! they cost while there is none.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use agentrouter_api::configurator::Configuration;
use agentrouter_liaison::{Applied, Rejected, Report, Target, Token, Worker, WorkerConfig};
use anyhow::{Context, Result, bail, ensure};
use async_trait::async_trait;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bars;
use crate::bench::{self, Bench};
use crate::fleet::Fleet;
use crate::server::{self, KEY, Process, free_port};
use crate::stats::{Millis, digits, figure};

/// Far longer than anything here takes.
const PATIENCE: Duration = Duration::from_mins(2);
/// Files that a process has open besides its connections.
const OTHER_FILES: usize = 200;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let workers = bench.size(1_000, 50);
    server::allow_open_files(workers + OTHER_FILES)?;
    let target = bench.database().await?;
    let client = reqwest::Client::new();
    let folder = tempfile::tempdir()?;
    let server = Process::over(&target, folder.path(), free_port()?)?;
    server.ready(&client, "/readyz").await?;
    let db = bench::open(&target).await?;
    // First, while nothing else has been in the server's memory.
    idle(bench, &server, &Fleet::new(&db, "idle", workers).await?.tokens(&db).await?).await?;
    let api = server::api(server.address(), KEY).await?;
    for (slug, workers, triggers) in
        [("alone", 1, bench.size(300, 20)), ("together", workers, bench.size(20, 3))]
    {
        let fleet = Fleet::new(&db, slug, workers).await?;
        let mut crew = Crew::start(&server.base_url, &fleet.tokens(&db).await?)?;
        // A first version, so that all are connected.
        fleet.trigger(&api).await?;
        crew.take(workers, 1).await?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut applied, mut reported, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for version in (2..).take(triggers) {
            fleet.change(&db).await?;
            let started = Instant::now();
            fleet.trigger(&api).await?;
            let done = crew.take(workers, version).await?;
            ends.extend(done.iter().map(|done| done.reported - started).max());
            applied.extend(done.iter().map(|done| done.applied - started));
            reported.extend(done.iter().map(|done| done.reported - started));
        }
        crew.stop().await?;
        let applied = Millis::new(applied);
        bench.line(
            "liaison",
            format_args!(
                "{workers} workers of the liaison with a connection each, {triggers} triggers, from the call: \
                 applied {applied}; recorded {}; all of them recorded {}",
                Millis::new(reported),
                Millis::new(ends)
            ),
        );
        if workers == 1 {
            bench.judge(&bars::LIAISON_P50, applied.p50());
            bench.judge(&bars::LIAISON_P99, applied.p99());
        }
    }
    drop((api, server));
    db.close().await;
    bench.drop_database(&target).await
}

/// What workers without work cost, their own process and the server's.
async fn idle(bench: &Bench<'_>, server: &Process, tokens: &[String]) -> Result<()> {
    let window = Duration::from_secs(bench.size(20, 3));
    let folder = tempfile::tempdir()?;
    let (none, all) = (folder.path().join("none"), folder.path().join("all"));
    std::fs::write(&none, "")?;
    std::fs::write(&all, tokens.join("\n"))?;
    let empty = Process::workers(server, &none)?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let base = empty.resident_kib()?;
    drop(empty);

    let server_before = server.resident_kib()?;
    let crew = Process::workers(server, &all)?;
    // Until all have connected and asked once.
    tokio::time::sleep(Duration::from_secs(bench.size(10, 3))).await;
    let before = (crew.cpu_ticks()?, server.cpu_ticks()?);
    tokio::time::sleep(window).await;
    let (own, servers) = (crew.cpu_ticks()? - before.0, server.cpu_ticks()? - before.1);
    let (resident, server_after) = (crew.resident_kib()?, server.resident_kib()?);
    ensure!(resident > 0, "the process of the workers is gone");
    let each = |kib: u64| digits(figure(kib) / figure(tokens.len()));
    bench.line(
        "liaison",
        format_args!(
            "{} idle workers over {} s: {} KiB each in their process ({base} KiB without any, {resident} KiB \
             with all) at {:.1} % of one core; {} KiB each in the server at {:.1} % of one core",
            tokens.len(),
            window.as_secs(),
            each(resident.saturating_sub(base)),
            figure(own) / window.as_secs_f64(),
            each(server_after.saturating_sub(server_before)),
            figure(servers) / window.as_secs_f64(),
        ),
    );
    Ok(())
}

/// Runs a worker for each token of a file until the process is killed.
pub(crate) async fn work(base_url: &str, tokens: &Path) -> Result<()> {
    let text = std::fs::read_to_string(tokens)?;
    let tokens: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut crew = Crew::start(base_url, &tokens)?;
    if tokens.is_empty() {
        std::future::pending::<()>().await;
    }
    // They have nothing to do, and would tell if they had.
    while crew.done.recv().await.is_some() {}
    Ok(())
}

/// A version that a worker applied.
#[derive(Debug, Clone, Copy)]
struct Done {
    version: i64,
    applied: Instant,
    /// When the server had recorded it.
    reported: Instant,
}

/// Workers at work.
#[derive(Debug)]
struct Crew {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    done: UnboundedReceiver<Result<Done, String>>,
}

impl Crew {
    fn start(base_url: &str, tokens: &[String]) -> Result<Self> {
        let (sender, done) = mpsc::unbounded_channel();
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        for token in tokens {
            let plane = Arc::new(Plane { started: Instant::now(), applied_micros: AtomicI64::new(0) });
            let config = WorkerConfig::new(base_url, Token::new(token.as_str()));
            let worker = Worker::new(config, Arc::clone(&plane) as Arc<dyn Target>)
                .map_err(|fault| anyhow::anyhow!("{fault}"))?
                .on_report(reporter(plane, sender.clone()));
            tasks.spawn(worker.run(stop.clone()));
        }
        Ok(Self { stop, tasks, done })
    }

    /// Waits until so many workers have a version.
    async fn take(&mut self, workers: usize, version: i64) -> Result<Vec<Done>> {
        let deadline = Instant::now() + PATIENCE;
        let mut taken = Vec::with_capacity(workers);
        while taken.len() < workers {
            let next = tokio::time::timeout_at(deadline, self.done.recv()).await;
            let next = next.with_context(|| format!("{} of {workers} workers", taken.len()))?;
            match next.context("all workers ended")? {
                Ok(done) if done.version == version => taken.push(done),
                Ok(_) => {}
                Err(report) => bail!("a worker reports {report}"),
            }
        }
        Ok(taken)
    }

    async fn stop(mut self) -> Result<()> {
        self.stop.cancel();
        while let Some(ended) = self.tasks.join_next().await {
            ended?;
        }
        Ok(())
    }
}

fn reporter(plane: Arc<Plane>, sender: UnboundedSender<Result<Done, String>>) -> impl Fn(&Report) {
    move |report| {
        let told = match report {
            Report::Applied { version, .. } => {
                let reported = Instant::now();
                Ok(Done { version: *version, applied: plane.applied(), reported })
            }
            Report::Failed { .. } | Report::Refused { .. } => Err(format!("{report:?}")),
            _ => return,
        };
        // Nobody listens where the measure is over.
        let _ = sender.send(told);
    }
}

/// A data plane that remembers when it last took something.
#[derive(Debug)]
struct Plane {
    started: Instant,
    applied_micros: AtomicI64,
}

impl Plane {
    fn applied(&self) -> Instant {
        let micros = u64::try_from(self.applied_micros.load(Ordering::Relaxed)).unwrap_or_default();
        self.started + Duration::from_micros(micros)
    }
}

#[async_trait]
impl Target for Plane {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        let micros = i64::try_from(self.started.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.applied_micros.store(micros, Ordering::Relaxed);
        Ok(Applied {
            version: configuration.version,
            checksum: configuration.checksum.clone(),
            resources: Vec::new(),
        })
    }
}
