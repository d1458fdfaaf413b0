//! `tare rollout`: how far a change has come.

mod view;

use std::time::Duration;

use agentrouter_api::configurator as pb;
use anyhow::anyhow;
use serde_json::{Value, json};
use tokio::time::Instant;
use tonic::Status;

use crate::Output;
use crate::client::{Client, Connect};
use crate::exit::Failure;
use crate::json;
use crate::pause::Pauses;
use crate::refusal;
use crate::screen::Screen;
use crate::slot::SlotName;
use crate::times::{length, parse_length};
use view::Progress;

/// The most workspaces of a page.
const PAGE: i32 = 1_000;
/// Workspaces that are named unless all are asked for.
const NAMED: usize = 20;
/// Between two looks, for small fleets and at most.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(10);
const ROLLOUT: &str = "agentrouter.configurator.v1.GetRolloutResponse";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// How many workspaces run the newest version of a slot, and which do not yet.
    Status(StatusOf),
}

#[derive(Debug, clap::Args)]
pub(crate) struct StatusOf {
    /// `providers`, `mcp-catalog`, `revoked-tokens`, `proxy-url/<workspace id>`, `user-keys/<user>`,
    /// `byok/<user>/<key>` or `mcp-profile/<user>/<key>`, with ids percent-encoded as the worker's log shows them.
    #[arg(value_name = "SLOT")]
    slot: SlotName,
    #[command(flatten)]
    connect: Connect,
    /// Name every workspace that does not run it yet, instead of the first 20.
    #[arg(long)]
    all: bool,
    /// Wait until every workspace runs it. A version that comes meanwhile is waited for as well.
    #[arg(long)]
    watch: bool,
    /// Give up as soon as a workspace is stuck.
    #[arg(long, requires = "watch")]
    exit_on_stuck: bool,
    /// Give up after this long, such as 90s, 5m or 1h.
    #[arg(long, requires = "watch", value_name = "TIME", value_parser = parse_length)]
    timeout: Option<Duration>,
}

impl Command {
    pub(super) async fn run(&self, output: Output, screen: &mut Screen) -> Result<(), Failure> {
        let Self::Status(status) = self;
        // A time beyond all clocks is no limit.
        let deadline = status.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let client = within(deadline, Client::open(&status.connect)).await;
        let client = client.unwrap_or_else(|| Err(status.unanswered()))?;
        let view = View { of: status, client, output };
        if status.watch { view.follow(deadline, screen).await } else { view.once(screen).await }
    }
}

impl StatusOf {
    fn unanswered(&self) -> Failure {
        let after = length(self.timeout.unwrap_or_default());
        Failure::other(anyhow!("the server has not answered after {after}"))
    }
}

/// What comes of something until a deadline; none where it is late.
async fn within<T>(deadline: Option<Instant>, work: impl Future<Output = T>) -> Option<T> {
    match deadline {
        Some(deadline) => tokio::time::timeout_at(deadline, work).await.ok(),
        None => Some(work.await),
    }
}

struct View<'a> {
    of: &'a StatusOf,
    client: Client,
    output: Output,
}

impl View<'_> {
    async fn once(&self, screen: &mut Screen) -> Result<(), Failure> {
        let progress = self.look().await.map_err(|status| self.client.failure(&status))?;
        match self.output {
            Output::Json => screen.json(&self.json(&progress)?),
            Output::Human => screen.print(&progress.lines()),
        }
    }

    /// Shows every change until all have applied it, one is stuck, or the time is over.
    async fn follow(&self, deadline: Option<Instant>, screen: &mut Screen) -> Result<(), Failure> {
        let mut pauses = Pauses::new(fastrand::Rng::new());
        let mut last: Option<Progress> = None;
        loop {
            let asked = Instant::now();
            let Some(answer) = within(deadline, self.look()).await else {
                return Err(self.too_late(last.as_ref(), screen));
            };
            let pause = match answer {
                Ok(progress) => {
                    pauses.reset();
                    self.show(last.as_ref(), &progress, screen)?;
                    if progress.is_complete() {
                        return Ok(());
                    }
                    if self.of.exit_on_stuck && progress.rollout.stuck > 0 {
                        if self.output == Output::Human && !screen.redraws() {
                            screen.print(&progress.lines())?;
                        }
                        return Err(Failure::other(anyhow!(
                            "{} is stuck in {}",
                            self.of.slot.0,
                            workspaces(progress.rollout.stuck)
                        )));
                    }
                    let pause = pace(progress.rollout.wanted, asked.elapsed());
                    last = Some(progress);
                    pause
                }
                Err(status) if last.is_some() && refusal::is_passing(&status) => {
                    let pause = pauses.after(&status);
                    screen.settle();
                    let retry_in_ms = pause.as_millis();
                    tracing::warn!(retry_in_ms, "no answer: {}", self.client.sentence(&status));
                    pause
                }
                Err(status) => return Err(self.client.failure(&status)),
            };
            let wake = Instant::now() + pause;
            tokio::time::sleep_until(deadline.map_or(wake, |deadline| wake.min(deadline))).await;
        }
    }

    fn too_late(&self, last: Option<&Progress>, screen: &mut Screen) -> Failure {
        let Some(last) = last else { return self.of.unanswered() };
        let after = length(self.of.timeout.unwrap_or_default());
        // Who reads a log wants to know which ones.
        if self.output == Output::Human
            && !screen.redraws()
            && let Err(failure) = screen.print(&last.lines())
        {
            return failure;
        }
        let missing = workspaces(last.rollout.wanted - last.rollout.applied);
        Failure::other(anyhow!("{} is not applied in {missing} after {after}", self.of.slot.0))
    }

    fn show(&self, last: Option<&Progress>, progress: &Progress, screen: &mut Screen) -> Result<(), Failure> {
        match self.output {
            Output::Human if screen.redraws() => screen.redraw(&progress.lines()),
            _ if last == Some(progress) => Ok(()),
            Output::Human => screen.print(&progress.changes(last)),
            Output::Json => screen.json(&self.json(progress)?),
        }
    }

    fn json(&self, progress: &Progress) -> Result<Value, Failure> {
        let mut value = json::of(ROLLOUT, &progress.rollout)?;
        if let Some(fields) = value.as_object_mut() {
            // Pages are this program's business.
            fields.remove("next_page_token");
            fields.insert("slot".to_owned(), json!(self.of.slot.0));
            fields.insert("complete".to_owned(), json!(progress.is_complete()));
        }
        Ok(value)
    }

    /// Asks for the counts and for as many names as are shown, the stuck ones for sure: they are what somebody has to
    /// see to.
    async fn look(&self) -> Result<Progress, Status> {
        let slot = &self.of.slot.0;
        let request = pb::GetRolloutRequest {
            user_id: slot.user_id.clone(),
            config_type: slot.config_type,
            key_id: slot.key_id.clone(),
            version: 0,
            page_size: PAGE,
            page_token: String::new(),
        };
        let mut rollout = self.client.configurator().get_rollout(request.clone()).await?.into_inner();
        while !rollout.next_page_token.is_empty() && (self.of.all || wants_more(&rollout)) {
            let request = pb::GetRolloutRequest {
                version: rollout.version,
                page_token: std::mem::take(&mut rollout.next_page_token),
                ..request.clone()
            };
            let page = self.client.configurator().get_rollout(request).await?.into_inner();
            rollout.lagging.extend(page.lagging);
            rollout.next_page_token = page.next_page_token;
        }
        Ok(Progress::new(slot.clone(), rollout, if self.of.all { usize::MAX } else { NAMED }))
    }
}

fn wants_more(rollout: &pb::GetRolloutResponse) -> bool {
    let stuck = rollout.lagging.iter().filter(|workspace| workspace.stuck).count();
    let all = usize::try_from(rollout.stuck).unwrap_or_default();
    stuck < all.min(NAMED)
}

/// How long to leave the server alone: a second, longer where there is more to count, and where it takes its time.
fn pace(wanted: i32, took: Duration) -> Duration {
    let thousands = u32::try_from(wanted).unwrap_or_default() / 1_000;
    (LOOK * thousands.max(1)).max(took * 4).min(LOOK_MAX)
}

fn workspaces(count: i32) -> String {
    if count == 1 { "1 workspace".to_owned() } else { format!("{count} workspaces") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_and_slow_ones_are_asked_less_often() {
        let quick = Duration::from_millis(5);
        assert_eq!(pace(0, quick), LOOK);
        assert_eq!(pace(1_999, quick), LOOK);
        assert_eq!(pace(5_000, quick), LOOK * 5);
        assert_eq!(pace(1_000_000, quick), LOOK_MAX);
        assert_eq!(pace(10, Duration::from_millis(500)), LOOK * 2);
    }

    #[test]
    fn pages_are_turned_for_stuck_ones_only() {
        let mut rollout = pb::GetRolloutResponse::default();
        assert!(!wants_more(&rollout));
        rollout.stuck = 2;
        assert!(wants_more(&rollout));
        rollout.lagging = vec![pb::WorkspaceRollout { stuck: true, ..Default::default() }; 2];
        assert!(!wants_more(&rollout));
    }
}
