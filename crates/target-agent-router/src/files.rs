//! The folder: what is where in it.

use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::options::{AgentRouterOptions, OpenError};

/// The longest path of a socket on the systems that `aigw` is there for, with its end.
const SOCKET_PATH_MAX: usize = 104;

/// The paths of a data plane.
#[derive(Debug, Clone)]
pub(crate) struct Files {
    folder: PathBuf,
    /// Envoy, as `aigw` calls it.
    pub(crate) envoy: PathBuf,
}

impl Files {
    /// Prepares the folder, all of it readable by its owner only.
    pub(crate) fn prepare(options: &AgentRouterOptions) -> Result<Self, OpenError> {
        let fail = |action, path: &Path| {
            let path = path.to_owned();
            move |source| OpenError::Io { action, path, source }
        };
        let folder = &options.folder;
        create(folder).map_err(fail("create the folder", folder))?;
        let folder = fs::canonicalize(folder).map_err(fail("find the folder", folder))?;
        let envoys = folder.join("data/envoy-versions").join(&options.envoy_version).join("bin");
        let files = Self { envoy: envoys.join("envoy"), folder };
        if files.socket().as_os_str().len() >= SOCKET_PATH_MAX {
            return Err(OpenError::PathTooLong(files.folder));
        }
        for path in [files.home(), files.state(), files.runtime(), envoys] {
            create(&path).map_err(fail("create the folder", &path))?;
        }
        if let Some(envoy) = &options.envoy {
            let envoy = fs::canonicalize(envoy).map_err(|_| OpenError::NoProgram(envoy.clone()))?;
            files.link(&envoy).map_err(fail("link Envoy at", &files.envoy))?;
        }
        Ok(files)
    }

    /// `aigw` looks for Envoy under the folder's own path, whatever the version is called elsewhere.
    fn link(&self, envoy: &Path) -> io::Result<()> {
        if fs::read_link(&self.envoy).is_ok_and(|linked| linked == envoy) {
            return Ok(());
        }
        match fs::remove_file(&self.envoy) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        std::os::unix::fs::symlink(envoy, &self.envoy)
    }

    /// What `aigw` reads.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.join("config.yaml")
    }

    /// The newest content of each slot.
    pub(crate) fn slots(&self) -> PathBuf {
        self.folder.join("slots")
    }

    pub(crate) fn home(&self) -> PathBuf {
        self.folder.join("home")
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.folder.join("state")
    }

    pub(crate) fn runtime(&self) -> PathBuf {
        self.folder.join("run")
    }

    fn socket(&self) -> PathBuf {
        self.runtime().join("0/uds.sock")
    }

    /// Replaces what `aigw` reads, or leaves it as it was.
    pub(crate) fn write_config(&self, text: &str) -> io::Result<()> {
        // Mode 0600, since there are keys in it.
        let mut file = tempfile::NamedTempFile::with_prefix_in(".config.", &self.folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist(self.config())?;
        fs::File::open(&self.folder)?.sync_all()
    }

    /// Removes what an earlier run left: logs with keys in them, and sockets.
    pub(crate) fn clean(&self) -> io::Result<()> {
        for path in [self.state(), self.runtime()] {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => create(&path)?,
            }
        }
        Ok(())
    }
}

fn create(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// A program as a shell finds it: by its path, or by its name in the folders of `PATH`.
pub(crate) fn find(program: &Path) -> Option<PathBuf> {
    let file = if program.components().count() > 1 { Some(program.to_owned()) } else { in_path(program) };
    fs::canonicalize(file?).ok()
}

/// Where a program lies in the folders of `PATH`.
pub fn in_path(program: impl AsRef<Path>) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program.as_ref())).find(|file| file.is_file())
}
