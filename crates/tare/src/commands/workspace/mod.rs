//! `tare workspace`: data planes and what they run.

mod changes;
mod list;
mod status;

use std::time::Duration;

use agentrouter_api::workspaces as pb;
use agentrouter_kernel::{Clock, SystemClock};
use tonic::Status;

use crate::Output;
use crate::client::{Client, Connect};
use crate::exit::Failure;
use crate::json;
use crate::pause::Pauses;
use crate::refusal;
use crate::screen::Screen;

/// How often a picture is drawn again without news: it says how long ago things were.
const AGEING: Duration = Duration::from_secs(5);
const STATUS: &str = "agentrouter.workspaces.v1.WorkspaceStatus";

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// All workspaces: who is there, who is behind, and who is stuck.
    List {
        #[command(flatten)]
        connect: Connect,
        /// Only these, as an AIP-160 expression such as `labels.region = "eu"`.
        #[arg(long, value_name = "EXPRESSION", default_value = "", hide_default_value = true)]
        filter: String,
    },
    /// Everything about one workspace: what it runs, what it should run, and what is in the way.
    Status {
        /// The workspace, by slug or row id.
        workspace: String,
        #[command(flatten)]
        connect: Connect,
        /// Follow it: a picture that is drawn anew on a terminal, else a line per change.
        #[arg(long)]
        watch: bool,
    },
}

impl Command {
    pub(super) async fn run(&self, output: Output, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::List { connect, filter } => {
                list::run(&Client::open(connect).await?, filter, output, screen).await
            }
            Self::Status { workspace, connect, watch } => {
                let view = View { client: Client::open(connect).await?, workspace, output };
                if *watch { view.follow(screen).await } else { view.once(screen).await }
            }
        }
    }
}

/// One workspace, to be looked at.
struct View<'a> {
    client: Client,
    workspace: &'a str,
    output: Output,
}

impl View<'_> {
    async fn once(&self, screen: &mut Screen) -> Result<(), Failure> {
        let request = pb::GetWorkspaceStatusRequest {
            customer_id: self.client.customer.clone(),
            workspace_id: self.workspace.to_owned(),
        };
        let answer = self.client.workspaces().get_workspace_status(request).await;
        let status = answer.map_err(|status| self.client.failure(&status))?.into_inner();
        match self.output {
            Output::Json => screen.json(&json::of(STATUS, &status)?),
            Output::Human => screen.print(&status::lines(&status, SystemClock.now())),
        }
    }

    /// Shows every change until the program is ended, or the server refuses.
    async fn follow(&self, screen: &mut Screen) -> Result<(), Failure> {
        let mut pauses = Pauses::new(fastrand::Rng::new());
        let mut last = None;
        loop {
            let refused = self.stream(&mut last, &mut pauses, screen).await?;
            // Who never saw anything has the wrong address, more likely than bad luck.
            if last.is_none() || !refusal::is_passing(&refused) {
                return Err(self.client.failure(&refused));
            }
            let pause = pauses.after(&refused);
            screen.settle();
            let retry_in_ms = pause.as_millis();
            tracing::warn!(retry_in_ms, "the watch ended: {}", self.client.sentence(&refused));
            tokio::time::sleep(pause).await;
        }
    }

    /// Shows the changes of one stream; how it ended.
    async fn stream(
        &self,
        last: &mut Option<pb::WorkspaceStatus>,
        pauses: &mut Pauses,
        screen: &mut Screen,
    ) -> Result<Status, Failure> {
        let request = pb::WatchWorkspaceStatusRequest {
            customer_id: self.client.customer.clone(),
            workspace_id: self.workspace.to_owned(),
        };
        let mut stream = match self.client.workspaces().watch_workspace_status(request).await {
            Ok(stream) => stream.into_inner(),
            Err(status) => return Ok(status),
        };
        let mut ages = tokio::time::interval(AGEING);
        loop {
            let news = tokio::select! {
                news = stream.message() => news,
                _ = ages.tick() => {
                    if let Some(status) = last && self.output == Output::Human && screen.redraws() {
                        screen.redraw(&status::lines(status, SystemClock.now()))?;
                    }
                    continue;
                }
            };
            match news {
                Ok(Some(status)) => {
                    pauses.reset();
                    self.show(last.as_ref(), &status, screen)?;
                    *last = Some(status);
                }
                Ok(None) => return Ok(Status::unavailable("the server ended the stream")),
                Err(status) => return Ok(status),
            }
        }
    }

    fn show(
        &self,
        last: Option<&pb::WorkspaceStatus>,
        status: &pb::WorkspaceStatus,
        screen: &mut Screen,
    ) -> Result<(), Failure> {
        match self.output {
            // The first status of a new stream may be one that was shown already.
            Output::Json if last == Some(status) => Ok(()),
            Output::Json => screen.json(&json::of(STATUS, status)?),
            Output::Human if screen.redraws() => screen.redraw(&status::lines(status, SystemClock.now())),
            Output::Human => screen.print(&changes::lines(last, status, SystemClock.now())),
        }
    }
}
