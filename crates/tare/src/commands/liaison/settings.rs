//! The settings that need more than clap.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

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
}
