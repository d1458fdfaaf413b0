//! `tare events`: deliveries of changes to workspaces.

mod follow;
mod history;

use std::time::Duration;

use agentrouter_api::configurator as pb;
use tokio::time::Instant;

use crate::Output;
use crate::client::{Client, Connect};
use crate::exit::Failure;
use crate::pause::Pauses;
use crate::refusal;
use crate::screen::Screen;
use crate::slot::TypeName;
use follow::Follower;

/// Between two looks, at least and at most. In between a look may take a fifth of the time.
const LOOK: Duration = Duration::from_secs(1);
const LOOK_MAX: Duration = Duration::from_secs(10);

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Prints a line for every change of an event, as they happen.
    ///
    /// The server is asked once a second. What happened in between is told by what events remember of themselves:
    /// their creation, their last claim, every failed attempt and their end.
    Tail(Tail),
}

#[derive(Debug, clap::Args)]
pub(crate) struct Tail {
    #[command(flatten)]
    connect: Connect,
    /// Only events of this workspace, by slug or row id.
    #[arg(long, value_name = "WORKSPACE")]
    workspace: Option<String>,
    /// Only events of this type, such as `providers` or `user-keys`.
    #[arg(long = "type", value_name = "TYPE")]
    config_type: Option<TypeName>,
    /// Only events that get stuck, and what becomes of them.
    #[arg(long)]
    stuck: bool,
    /// Begin with the newest events that are there already.
    #[arg(long, short = 'n', value_name = "COUNT", default_value_t = 10)]
    lines: usize,
}

impl Command {
    pub(super) async fn run(&self, output: Output, screen: &mut Screen) -> Result<(), Failure> {
        let Self::Tail(tail) = self;
        let wanted = pb::ListEventsRequest {
            workspace_id: tail.workspace.clone().unwrap_or_default(),
            config_type: tail.config_type.map_or(0, |name| name.0.into()),
            stuck: tail.stuck,
            ..Default::default()
        };
        let client = Client::open(&tail.connect).await?;
        let mut follower = Follower::new(client.clone(), wanted, tail.lines);
        let mut pauses = Pauses::new(fastrand::Rng::new());
        let mut is_first = true;
        loop {
            let asked = Instant::now();
            let pause = match follower.look().await {
                Ok(changes) => {
                    pauses.reset();
                    is_first = false;
                    for change in changes {
                        match output {
                            Output::Json => screen.json(&change)?,
                            Output::Human => screen.print(&[change.line()])?,
                        }
                    }
                    (asked.elapsed() * 4).clamp(LOOK, LOOK_MAX)
                }
                Err(status) if !is_first && refusal::is_passing(&status) => {
                    let pause = pauses.after(&status);
                    let retry_in_ms = pause.as_millis();
                    tracing::warn!(retry_in_ms, "no answer: {}", client.sentence(&status));
                    pause
                }
                Err(status) => return Err(client.failure(&status)),
            };
            tokio::time::sleep(pause).await;
        }
    }
}
