//! Reading a secret. It is never an argument: those are seen by everybody on the machine.

use std::io::Read;
use std::path::Path;

use anyhow::{Context, anyhow};
use zeroize::Zeroizing;

use crate::exit::Failure;

/// Where the credential is, unless a file is named.
const VARIABLE: &str = "AGENTROUTER_API_KEY";
/// More than any credential has, in bytes.
const LENGTH_MAX: u64 = 64 << 10;

/// What kind of credential a command needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    /// In a sentence.
    pub(crate) name: &'static str,
    /// What to use, for those who have none yet.
    pub(crate) advice: &'static str,
    /// The flag that names its file.
    pub(crate) flag: &'static str,
}

/// The credential of a worker.
pub(crate) const TOKEN: Wanted = Wanted { name: "token", advice: "a workspace token", flag: "--token-file" };
/// The credential of a person.
pub(crate) const KEY: Wanted =
    Wanted { name: "API key", advice: "a management API key", flag: "--api-key-file" };

impl Wanted {
    /// Reads it from a file, else from the environment.
    pub(crate) fn read(self, file: Option<&Path>) -> Result<Zeroizing<String>, Failure> {
        let name = self.name;
        let text = match file {
            Some(path) => {
                read_start(path).with_context(|| format!("cannot read the {name} file {}", path.display()))
            }
            None => self.in_environment(),
        };
        let text = Zeroizing::new(text.map_err(Failure::usage)?);
        if text.trim().is_empty() {
            let from = file.map_or_else(|| VARIABLE.to_owned(), |path| path.display().to_string());
            return Err(Failure::usage(anyhow!("there is no {name} in {from}")));
        }
        Ok(text)
    }

    #[expect(clippy::disallowed_methods, reason = "a secret that clap would offer as a flag")]
    fn in_environment(self) -> anyhow::Result<String> {
        let Self { name, advice, flag } = self;
        std::env::var(VARIABLE).map_err(|error| match error {
            std::env::VarError::NotPresent => {
                anyhow!("no {name}: set {VARIABLE} to {advice}, or name a file with {flag}")
            }
            std::env::VarError::NotUnicode(_) => anyhow!("{VARIABLE} is not text"),
        })
    }
}

fn read_start(path: &Path) -> anyhow::Result<String> {
    let mut text = String::new();
    std::fs::File::open(path)?.take(LENGTH_MAX).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("token");
        std::fs::write(&path, " \n").expect("a file");
        let failure = TOKEN.read(Some(&path)).map(|_| ()).expect_err("no token");
        assert!(failure.to_string().contains("there is no token in "), "{failure:?}");
        std::fs::write(&path, "abc\n").expect("a file");
        assert!(TOKEN.read(Some(&path)).is_ok());
        assert!(TOKEN.read(Some(folder.path())).is_err());
    }
}
