//! The settings that need more than clap.

use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use agentrouter_liaison::Token;
use anyhow::{Context, anyhow};

use crate::exit::Failure;

/// Where the token is, unless a file is named.
const TOKEN_VARIABLE: &str = "AGENTROUTER_API_KEY";
/// More than any token has, in bytes.
const TOKEN_MAX: u64 = 64 << 10;

/// What a worker applies configurations to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetSpec {
    /// A folder.
    Dir(PathBuf),
    /// Agent Router on this machine, in a folder.
    AgentRouter(PathBuf),
    /// A namespace of a cluster.
    Kubernetes(String),
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("dir", "")) => Err("dir: needs a folder, as in dir:./slots".to_owned()),
            Some(("dir", folder)) => Ok(Self::Dir(folder.into())),
            Some(("agent-router", "")) => {
                Err("agent-router: needs a folder, as in agent-router:./gateway".to_owned())
            }
            Some(("agent-router", folder)) => Ok(Self::AgentRouter(folder.into())),
            Some(("kubernetes", "")) => {
                Err("kubernetes: needs a namespace, as in kubernetes:gateway".to_owned())
            }
            Some(("kubernetes", namespace)) => Ok(Self::Kubernetes(namespace.to_owned())),
            _ => Err("must be dir:<folder>, agent-router:<folder> or kubernetes:<namespace>".to_owned()),
        }
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dir(folder) => write!(f, "dir:{}", folder.display()),
            Self::AgentRouter(folder) => write!(f, "agent-router:{}", folder.display()),
            Self::Kubernetes(namespace) => write!(f, "kubernetes:{namespace}"),
        }
    }
}

/// Reads the token from a file, else from the environment. It is never an argument: those are seen by everybody on
/// the machine.
pub(super) fn read_token(file: Option<&Path>) -> Result<Token, Failure> {
    let text = match file {
        Some(path) => {
            read_start(path).with_context(|| format!("cannot read the token file {}", path.display()))
        }
        None => from_environment(),
    };
    let text = text.map_err(Failure::usage)?;
    if text.trim().is_empty() {
        let from = file.map_or_else(|| TOKEN_VARIABLE.to_owned(), |path| path.display().to_string());
        return Err(Failure::usage(anyhow!("there is no token in {from}")));
    }
    Ok(Token::new(text))
}

fn read_start(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(TOKEN_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[expect(clippy::disallowed_methods, reason = "a secret that clap would offer as a flag")]
fn from_environment() -> anyhow::Result<String> {
    std::env::var(TOKEN_VARIABLE).map_err(|error| match error {
        std::env::VarError::NotPresent => {
            anyhow!("no token: set {TOKEN_VARIABLE} to a workspace token, or name a file with --token-file")
        }
        std::env::VarError::NotUnicode(_) => anyhow!("{TOKEN_VARIABLE} is not text"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets() {
        let dir = |folder: &str| Ok(TargetSpec::Dir(folder.into()));
        assert_eq!("dir:./slots".parse(), dir("./slots"));
        assert_eq!("dir:/a:b".parse(), dir("/a:b"));
        assert_eq!(TargetSpec::Dir("/a".into()).to_string(), "dir:/a");
        assert_eq!("agent-router:./a".parse(), Ok(TargetSpec::AgentRouter("./a".into())));
        assert_eq!(TargetSpec::AgentRouter("/a".into()).to_string(), "agent-router:/a");
        let gateway = TargetSpec::Kubernetes("gateway".to_owned());
        assert_eq!(gateway.to_string().parse(), Ok(gateway));
        let wrong =
            ["", "dir", "dir:", "agent-router:", "kubernetes", "kubernetes:", "./slots", "file:/a", "DIR:/a"];
        for wrong in wrong {
            assert!(wrong.parse::<TargetSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn token_files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("token");
        std::fs::write(&path, " \n").expect("a file");
        let failure = read_token(Some(&path)).map(|_| ()).expect_err("no token");
        assert!(format!("{failure:?}").contains("there is no token in "), "{failure:?}");
        std::fs::write(&path, "abc\n").expect("a file");
        assert!(read_token(Some(&path)).is_ok());
        assert!(read_token(Some(folder.path())).is_err());
    }
}
