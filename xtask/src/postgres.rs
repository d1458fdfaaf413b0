//! The throw-away PostgreSQL of the tests and benchmarks, and finding or installing the server's programs.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

use crate::process::{capture, run};

/// Where Debian puts the server's programs: `<here>/<major version>/bin`.
const DEBIAN_HOME: &str = "/usr/lib/postgresql";

/// The script that owns the cluster, see its own words.
const SCRIPT: &str = include_str!("postgres.sh");

/// What of a cluster outlives the loss of power.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Nothing: nobody cares, and it is fast.
    None,
    /// Every commit, by the server's own defaults.
    Commits,
}

/// A running cluster, gone with its folder when dropped or when this process ends.
#[derive(Debug)]
pub struct Cluster {
    keeper: Child,
    answers: BufReader<ChildStdout>,
    port: u16,
}

impl Cluster {
    /// Starts a cluster in a new folder, on a free port of the loopback interface.
    pub fn start(durability: Durability) -> Result<Self> {
        let binaries = binaries()?;
        let mut failure = None;
        // Another program may take the free port before the server does.
        for _ in 0..3 {
            match Self::start_on(free_port()?, &binaries, durability) {
                Ok(cluster) => return Ok(cluster),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure.context("no attempt was made")?).context("cannot start PostgreSQL")
    }

    fn start_on(port: u16, binaries: &Path, durability: Durability) -> Result<Self> {
        // The server refuses to run as root.
        let mut command = if is_root()? {
            let mut command = Command::new("runuser");
            command.args(["-u", "postgres", "--", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        command.arg("-c").arg(SCRIPT).env("PG_BIN", binaries).env("PG_PORT", port.to_string());
        if durability == Durability::Commits {
            command.env("PG_DURABLE", "yes");
        }
        // A process group of its own: Ctrl-C in the terminal reaches the tests, not the keeper of their database.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut keeper = command.spawn().context("cannot start the keeper of the cluster")?;

        let answers = BufReader::new(keeper.stdout.take().context("the keeper has no standard output")?);
        // Dropped on failure, so that the keeper is waited for.
        let mut cluster = Self { keeper, answers, port };
        cluster.answered()?;
        Ok(cluster)
    }

    /// Ends the server as a loss of power would: nothing is written that was not yet, and every connection breaks.
    pub fn crash(&mut self) -> Result<()> {
        self.ask("crash")
    }

    /// Brings a crashed server back, on the same port; returns once it accepts connections.
    pub fn restart(&mut self) -> Result<()> {
        self.ask("start")
    }

    fn ask(&mut self, command: &str) -> Result<()> {
        writeln!(self.keeper.stdin.as_ref().context("the keeper has no standard input")?, "{command}")?;
        self.answered()
    }

    fn answered(&mut self) -> Result<()> {
        let mut answer = String::new();
        self.answers.read_line(&mut answer)?;
        ensure!(answer.trim() == "ready", "the keeper of the cluster gave up");
        Ok(())
    }

    /// The URL of the cluster's maintenance database, with a superuser that needs no password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        // Nothing is left to do about a keeper that cannot be waited for.
        let _ = self.keeper.wait();
    }
}

/// The folder of `initdb` and `pg_ctl`; installs PostgreSQL where it is missing and that is possible.
pub fn binaries() -> Result<PathBuf> {
    if let Some(found) = find() {
        return Ok(found);
    }
    if !Path::new("/etc/debian_version").exists() || !is_root()? {
        bail!("PostgreSQL is missing: install its server (15 or newer) and put `initdb` on the PATH");
    }
    println!("installing postgresql");
    run(Command::new("apt-get").args(["update", "-qq"]))?;
    run(Command::new("apt-get")
        .args(["install", "-y", "-qq", "--no-install-recommends", "postgresql"])
        .env("DEBIAN_FRONTEND", "noninteractive"))?;
    find().with_context(|| format!("the package postgresql left no server in {DEBIAN_HOME}"))
}

fn find() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // A folder on the PATH may hold links to some of the programs only; all of them lie where the links lead.
    let on_path = std::env::split_paths(&path).find_map(|folder| {
        let initdb = folder.join("initdb").canonicalize().ok()?;
        initdb.parent().filter(|home| is_server(home)).map(Path::to_path_buf)
    });
    on_path.or_else(|| newest_server(Path::new(DEBIAN_HOME)))
}

fn is_server(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("pg_ctl").is_file()
}

fn newest_server(home: &Path) -> Option<PathBuf> {
    let versions = home.read_dir().ok()?.filter_map(Result::ok).filter_map(|entry| {
        let version: u32 = entry.file_name().to_str()?.parse().ok()?;
        let folder = entry.path().join("bin");
        is_server(&folder).then_some((version, folder))
    });
    versions.max().map(|(_, folder)| folder)
}

fn is_root() -> Result<bool> {
    Ok(capture(Command::new("id").arg("-u"))?.trim() == "0")
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_comes_back_from_a_crash_and_ends_with_its_owner() {
        let mut cluster = Cluster::start(Durability::None).unwrap();
        let port = cluster.port;
        let is_ready = || {
            let program = binaries().unwrap().join("pg_isready");
            let port = port.to_string();
            Command::new(program).args(["-q", "-h", "127.0.0.1", "-p", &port]).status().unwrap().success()
        };
        assert!(is_ready());
        assert_eq!(cluster.url(), format!("postgres://postgres@127.0.0.1:{port}/postgres"));

        cluster.crash().unwrap();
        assert!(!is_ready());
        cluster.restart().unwrap();
        assert!(is_ready());

        drop(cluster);
        assert!(std::net::TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err());
    }
}
