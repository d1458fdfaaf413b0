//! Running the clients' programs.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

use crate::common::program::PATIENCE;

/// The one server of a test.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) base_url: String,
}

/// How a program ended.
pub(crate) struct Ended {
    pub(crate) ok: bool,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// Runs a program to its end.
pub(crate) async fn end(mut command: Command) -> Ended {
    let output = timeout(PATIENCE * 3, command.stdin(Stdio::null()).kill_on_drop(true).output()).await;
    let output = output.unwrap_or_else(|_| panic!("it does not end: {:?}", command.as_std())).unwrap();
    let [stdout, stderr] =
        [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    Ended { ok: output.status.success(), stdout, stderr }
}

/// Runs a program to its end, which must be good; what it printed.
pub(crate) async fn succeed(command: Command) -> String {
    let shown = format!("{:?}", command.as_std());
    let ended = end(command).await;
    assert!(ended.ok, "{shown}\n{}{}", ended.stdout, ended.stderr);
    ended.stdout
}

/// A program that follows a stream, ended when dropped.
pub(crate) struct Following {
    _child: Child,
    stdout: ChildStdout,
    printed: Vec<u8>,
}

impl Following {
    pub(crate) fn start(mut command: Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let stdout = child.stdout.take().unwrap();
        Self { _child: child, stdout, printed: Vec::new() }
    }

    /// Waits until all that was printed holds what is looked for.
    pub(crate) async fn until(&mut self, holds: impl Fn(&str) -> bool) {
        let reading = async {
            while !holds(&self.printed()) {
                let read = self.stdout.read_buf(&mut self.printed).await.unwrap();
                assert!(read > 0, "the stream ended: {}", self.printed());
            }
        };
        let found = timeout(PATIENCE * 3, reading).await.is_ok();
        assert!(found, "not in the stream: {}", self.printed());
    }

    fn printed(&self) -> String {
        String::from_utf8_lossy(&self.printed).into_owned()
    }
}

/// A string of an answer.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("{value} is no string"))
}
