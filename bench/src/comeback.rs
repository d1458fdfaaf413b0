//! All watchers come back after the server was restarted: as in a crash, and as when a new version is rolled out.

use std::time::Duration;

use agentrouter_api::configurator as pb;
use anyhow::{Context, Result, bail};
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::bars;
use crate::bench::{self, Bench};
use crate::bystander::Bystander;
use crate::fleet::Fleet;
use crate::herd::SLOTS;
use crate::retry::{Retry, asked, is_passing};
use crate::server::{Process, free_port};
use crate::stats::{Millis, figure};
use crate::worker::{Client, Lines};

const PATIENCE: Duration = Duration::from_mins(5);

/// How the server goes away.
#[derive(Debug, Clone, Copy)]
enum End {
    Killed,
    Asked,
}

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let workers = bench.size(10_000, 100);
    let target = bench.database().await?;
    let client = reqwest::Client::new();
    let folder = tempfile::tempdir()?;
    let port = free_port()?;
    let mut server = Process::over(&target, folder.path(), port)?;
    server.ready(&client, "/readyz").await?;
    let db = bench::open(&target).await?;
    let fleet = Fleet::new(&db, "comeback", workers).await?;
    fleet.converged_slots(&db, SLOTS).await?;
    let tokens = fleet.tokens(&db).await?;
    let alone = Fleet::new(&db, "bystander", 1).await?;
    let alone_tokens = alone.tokens(&db).await?;
    let mut watchers = Watchers::start(&server, &tokens).await?;
    watchers.all_back(workers).await?;
    let mut bystander = Bystander::start(&db, server.address(), &alone, &alone_tokens).await?;
    let (quiet, ()) = bystander.until(tokio::time::sleep(Duration::from_secs(bench.size(5, 2)))).await?;
    drop(bystander);
    let mut errors = 0;
    for (end, word) in [(End::Killed, "killed"), (End::Asked, "stopped by SIGTERM")] {
        let stopped = Instant::now();
        match end {
            End::Killed => drop(server),
            End::Asked => tokio::task::spawn_blocking(move || server.terminate()).await??,
        }
        server = Process::over(&target, folder.path(), port)?;
        server.ready(&client, "/readyz").await?;
        let away = stopped.elapsed();
        let ready = Instant::now();
        let mut bystander = Bystander::start(&db, server.address(), &alone, &alone_tokens).await?;
        let (beside, returned) = bystander.until(watchers.all_back(workers)).await?;
        drop(bystander);
        let returned = returned?;
        let since =
            |times: &[Instant]| Millis::new(times.iter().map(|time| time.saturating_duration_since(ready)));
        bench.line(
            "comeback",
            format_args!(
                "{workers} watchers, the server {word} and ready again after {} ms: watching again {}; served a \
                 full sync {}; {} calls tried again, {} errors that a retry does not cure{}; at most {} MiB \
                 resident",
                away.as_millis(),
                since(&returned.watching),
                since(&returned.synced),
                returned.later,
                returned.errors,
                returned.example.map(|status| format!(" ({status})")).unwrap_or_default(),
                server.peak_kib()? / 1024
            ),
        );
        bench.line(
            "comeback",
            format_args!(
                "a bystander's trigger to its completion: quiet {quiet}; meanwhile {beside}; p99 {:.1} times",
                beside.p99() / quiet.p99()
            ),
        );
        errors += returned.errors;
    }
    bench.judge(&bars::RETURN_ERRORS, figure(errors));
    drop((watchers, server));
    db.close().await;
    bench.drop_database(&target).await
}

/// What a watcher tells.
#[derive(Debug)]
enum News {
    Watching(Instant),
    Synced(Instant),
    /// Something failed that is tried again.
    Later,
    Error(Box<Status>),
}

#[derive(Debug, Default)]
struct Returned {
    watching: Vec<Instant>,
    synced: Vec<Instant>,
    later: usize,
    errors: usize,
    example: Option<Status>,
}

/// Watchers at work. Dropping them ends them.
#[derive(Debug)]
struct Watchers {
    tasks: JoinSet<()>,
    news: UnboundedReceiver<News>,
}

impl Watchers {
    async fn start(server: &Process, tokens: &[String]) -> Result<Self> {
        let lines = Lines::open(server.address(), tokens.len()).await?;
        let (sender, news) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        for (index, token) in tokens.iter().enumerate() {
            let watcher = Watcher {
                index,
                client: lines.client(index, token)?,
                news: sender.clone(),
                retry: Retry::new(index),
            };
            tasks.spawn(watcher.run());
        }
        Ok(Self { tasks, news })
    }

    /// Waits until each has a stream and a full sync again.
    async fn all_back(&mut self, workers: usize) -> Result<Returned> {
        let deadline = Instant::now() + PATIENCE;
        let mut returned = Returned::default();
        // A watcher that gave up does not come back, and is counted.
        while returned.synced.len() + returned.errors < workers {
            let news = tokio::time::timeout_at(deadline, self.news.recv()).await;
            let news = news.with_context(|| format!("{} of {workers} are back", returned.synced.len()))?;
            match news.context("all watchers ended")? {
                News::Watching(time) => returned.watching.push(time),
                News::Synced(time) => returned.synced.push(time),
                News::Later => returned.later += 1,
                News::Error(status) => {
                    returned.errors += 1;
                    returned.example = Some(*status);
                }
            }
        }
        if returned.errors > 0 && self.tasks.len() == returned.errors {
            bail!("no watcher is left: {:?}", returned.example);
        }
        Ok(returned)
    }
}

/// A worker as far as its connection goes: a stream, and a full sync for each stream that it had to open anew.
struct Watcher {
    index: usize,
    client: Client,
    news: UnboundedSender<News>,
    retry: Retry,
}

impl Watcher {
    async fn run(mut self) {
        let mut cursor = String::new();
        loop {
            let Err(status) = self.watch(&mut cursor).await else { continue };
            if status.code() == Code::OutOfRange {
                // The cursor is too old, so that everything is listed again.
                cursor.clear();
            } else if !is_passing(&status) {
                let _ = self.news.send(News::Error(Box::new(status)));
                return;
            }
            self.pause(&status).await;
        }
    }

    /// A stream from its beginning to its end, with a full sync beside it.
    async fn watch(&mut self, cursor: &mut String) -> Result<(), Status> {
        let request = pb::WatchPendingEventsRequest {
            cursor: cursor.clone(),
            worker_id: format!("watcher-{}", self.index),
            ..Default::default()
        };
        let mut stream = self.client.watch_pending_events(request).await?.into_inner();
        let _ = self.news.send(News::Watching(Instant::now()));
        while let Err(status) = self.client.full_sync_workspace(pb::FullSyncWorkspaceRequest::default()).await
        {
            // Told to wait, it waits with its stream open. Anything else ends the stream, too.
            if asked(&status).is_none() || !is_passing(&status) {
                return Err(status);
            }
            self.pause(&status).await;
        }
        self.retry.succeeded();
        let _ = self.news.send(News::Synced(Instant::now()));
        while let Some(news) = stream.message().await? {
            *cursor = news.cursor;
        }
        Err(Status::unavailable("the stream ended"))
    }

    async fn pause(&mut self, status: &Status) {
        let _ = self.news.send(News::Later);
        self.retry.pause(status).await;
    }
}
