//! A folder as a data plane: one file per slot, always whole, readable by its owner only.

pub(crate) mod file;
mod name;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fmt, fs, io};

use agentrouter_api::configurator::{Configuration, ObservedSlot};
use async_trait::async_trait;

pub(crate) use name::encode;

use crate::slot::Slot;
use crate::target::{Applied, Rejected, Target};

/// Held for as long as a worker uses the folder.
const LOCK_FILE: &str = ".liaison.lock";

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another worker uses it: two would overwrite each other's versions.
    #[error("the folder {} is used by another worker", .0.display())]
    InUse(PathBuf),
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

/// A [`Target`] that keeps each slot's newest content as a JSON file in a folder of its own.
///
/// Files appear and change at once and survive a crash of the machine. They have mode 0600, because they may hold
/// credentials. A tombstone removes the file. A version older than the one in the file is not written; a file that
/// cannot be read, or that belongs to another configuration (of another customer, or of a server that was set up
/// anew), is overwritten. Clones share the folder.
#[derive(Clone)]
pub struct DirTarget {
    folder: Arc<Folder>,
}

struct Folder {
    path: PathBuf,
    /// Locked against other processes by being open, and against other calls while a file is compared and replaced.
    lock: Mutex<File>,
}

impl DirTarget {
    /// Uses a folder, which is created (mode 0700) where it does not exist. What a crash left half-written is removed.
    ///
    /// # Errors
    /// [`OpenError`], for the person who chose the folder: it names paths.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, OpenError> {
        let path = path.into();
        let fail = |action, path: &Path, source| OpenError::Io { action, path: path.to_owned(), source };
        file::create_folder(&path).map_err(|error| fail("create the folder", &path, error))?;
        let lock_path = path.join(LOCK_FILE);
        let lock = file::open_lock(&lock_path).map_err(|error| fail("open", &lock_path, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(OpenError::InUse(path)),
            // A file system without locks leaves it to whoever runs the worker.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(fail("lock", &lock_path, error)),
        }
        file::remove_leftovers(&path).map_err(|error| fail("clean the folder", &path, error))?;
        Ok(Self { folder: Arc::new(Folder { path, lock: Mutex::new(lock) }) })
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.folder.path
    }

    /// Where a slot's file is, or would be; none for types that are no configurations.
    pub fn file(&self, slot: &Slot) -> Option<PathBuf> {
        name::file_name(slot).map(|name| self.folder.path.join(name))
    }

    /// What the folder holds, ordered by slot. Files that are no configurations, or not where they belong, are left
    /// out. Blocks on the file system.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn observed(&self) -> io::Result<Vec<ObservedSlot>> {
        let observed = self.configurations()?.into_iter().map(|configuration| ObservedSlot {
            user_id: configuration.user_id,
            config_type: configuration.config_type,
            key_id: configuration.key_id,
            version: configuration.version,
            checksum: configuration.checksum,
        });
        Ok(observed.collect())
    }

    /// The content of what [`Self::observed`] tells of, in the same order. It has secrets in it.
    ///
    /// # Errors
    /// The folder cannot be listed.
    pub fn configurations(&self) -> io::Result<Vec<Configuration>> {
        let mut held = Vec::new();
        for entry in fs::read_dir(&self.folder.path)? {
            let entry = entry?;
            if entry.path().extension().is_none_or(|extension| extension != "json") {
                continue;
            }
            let Ok(Some(file::Held { configuration, .. })) = file::read(&entry.path()) else {
                continue;
            };
            let slot = Slot::from(&configuration);
            if name::file_name(&slot).is_some_and(|name| entry.file_name() == *name) {
                held.push((slot, configuration));
            }
        }
        held.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        Ok(held.into_iter().map(|(_, configuration)| configuration).collect())
    }
}

impl fmt::Debug for DirTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DirTarget").field(&self.folder.path).finish()
    }
}

#[async_trait]
impl Target for DirTarget {
    async fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        let (folder, configuration) = (Arc::clone(&self.folder), configuration.clone());
        tokio::task::spawn_blocking(move || folder.apply(&configuration))
            .await
            .unwrap_or_else(|_| Err(Rejected::transient("writing the file was interrupted")))
    }

    async fn observed(&self) -> Result<Option<Vec<ObservedSlot>>, Rejected> {
        let target = self.clone();
        let listed = tokio::task::spawn_blocking(move || DirTarget::observed(&target)).await;
        let listed = listed.map_err(|_| Rejected::transient("listing the folder was interrupted"))?;
        listed.map(Some).map_err(|error| Rejected::transient(format!("cannot list the folder: {error}")))
    }
}

impl Folder {
    fn apply(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        let slot = Slot::from(configuration);
        let name = name::file_name(&slot)
            .ok_or_else(|| Rejected::permanent("a folder holds configurations only, not this type"))?;
        let _only_one = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        self.replace(&name, &slot, configuration).map_err(|error| {
            // An error of the system names no path by itself.
            Rejected::transient(format!("cannot write {name}: {error}"))
        })?
    }

    fn replace(
        &self,
        name: &str,
        slot: &Slot,
        configuration: &Configuration,
    ) -> io::Result<Result<Applied, Rejected>> {
        let path = self.path.join(name);
        let held = file::read(&path)?;
        if let Some(held) = &held {
            let held = &held.configuration;
            if Slot::from(held) != *slot {
                // Two ids that differ in case only, on a file system that does not tell them apart.
                return Ok(Err(Rejected::permanent(format!(
                    "{name} holds another slot, {}",
                    Slot::from(held)
                ))));
            }
            if held.id == configuration.id && held.version > configuration.version {
                return Ok(Ok(applied(held)));
            }
        }
        if configuration.deleted {
            file::remove(&self.path, &path)?;
        } else {
            let text = file::render(configuration)?;
            if held.is_none_or(|held| held.text != text) {
                file::write(&self.path, name, &text)?;
            }
        }
        Ok(Ok(applied(configuration)))
    }
}

fn applied(configuration: &Configuration) -> Applied {
    Applied { version: configuration.version, checksum: configuration.checksum.clone(), ..Applied::default() }
}

#[cfg(test)]
mod tests;
