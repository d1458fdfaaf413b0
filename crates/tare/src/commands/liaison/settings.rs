//! The settings that need more than clap.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// What a worker applies configurations to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum TargetSpec {
    /// A folder.
    Dir(PathBuf),
}

impl FromStr for TargetSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("dir", "")) => Err("dir: needs a folder, as in dir:./slots".to_owned()),
            Some(("dir", folder)) => Ok(Self::Dir(folder.into())),
            _ => Err("must be dir:<folder>".to_owned()),
        }
    }
}

impl fmt::Display for TargetSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Dir(folder) = self;
        write!(f, "dir:{}", folder.display())
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
        for wrong in ["", "dir", "dir:", "./slots", "file:/a", "DIR:/a"] {
            assert!(wrong.parse::<TargetSpec>().is_err(), "{wrong}");
        }
    }
}
