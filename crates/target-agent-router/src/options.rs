//! What a target is opened with.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// How Agent Router is run, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentRouterOptions {
    /// The folder of the data plane, created where it does not exist. It holds secrets.
    pub folder: PathBuf,
    /// The program `aigw`.
    pub aigw: PathBuf,
    /// The program `envoy`, which `aigw` starts; none lets it download one.
    pub envoy: Option<PathBuf>,
    /// The version of Envoy.
    pub envoy_version: String,
    /// Where it listens.
    pub ports: Ports,
    /// Whether to run it.
    pub mode: Mode,
    /// How long nothing more must have arrived before a change is made.
    pub quiet: Duration,
    /// How long a change waits for others at most.
    pub max_delay: Duration,
    /// How long open requests may go on when it stops.
    pub drain: Duration,
    /// How long it may take to come up; a little is added for each resource.
    pub ready: Duration,
}

impl AgentRouterOptions {
    /// Agent Router in a folder, with this `aigw`, and the settings that suit most.
    pub fn new(folder: impl Into<PathBuf>, aigw: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            aigw: aigw.into(),
            envoy: None,
            envoy_version: "1.39.3".to_owned(),
            ports: Ports::default(),
            mode: Mode::Run,
            quiet: Duration::from_secs(1),
            max_delay: Duration::from_secs(10),
            drain: Duration::from_secs(10),
            ready: Duration::from_secs(30),
        }
    }
}

/// Where Agent Router listens. It takes further ports, which cannot be moved: a machine has one of it at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// Requests of clients.
    pub data: u16,
    /// Its health and metrics.
    pub admin: u16,
}

impl Ports {
    /// The ports that it takes whatever it is told.
    pub(crate) const FIXED: [u16; 7] = [1061, 8081, 9856, 18000, 18002, 19000, 19001];
}

impl Default for Ports {
    fn default() -> Self {
        Self { data: 1975, admin: 1064 }
    }
}

/// Whether to run Agent Router.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Run it and keep it running.
    Run,
    /// Write its file only; who runs it is somebody else's business.
    WriteOnly,
}

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The slots.
    #[error(transparent)]
    Slots(#[from] agentrouter_liaison::OpenError),
    /// A program is not there.
    #[error("there is no program {}", .0.display())]
    NoProgram(PathBuf),
    /// A socket in the folder would have a longer path than systems take.
    #[error("the path of the folder {} is too long for sockets in it", .0.display())]
    PathTooLong(PathBuf),
    /// The operating system says no.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}
