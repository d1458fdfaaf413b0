//! One module per command.

pub(crate) mod events;
pub(crate) mod liaison;
pub(crate) mod rollout;
pub(crate) mod workspace;

use crate::Output;
use crate::exit::Failure;
use crate::screen::Screen;

/// The commands that look at a management plane and change nothing.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum View {
    /// Data planes and what they run.
    #[command(subcommand)]
    Workspace(workspace::Command),
    /// How far a change has come.
    #[command(subcommand)]
    Rollout(rollout::Command),
    /// Deliveries of changes to workspaces.
    #[command(subcommand)]
    Events(events::Command),
}

impl View {
    /// Runs the command.
    pub(crate) async fn run(&self, output: Output, screen: &mut Screen) -> Result<(), Failure> {
        match self {
            Self::Workspace(command) => command.run(output, screen).await,
            Self::Rollout(command) => command.run(output, screen).await,
            Self::Events(command) => command.run(output, screen).await,
        }
    }
}
