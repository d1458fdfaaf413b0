//! What a worker remembers over a restart: one small file, always whole. Nothing in it is needed to be correct: without
//! it the worker starts as if for the first time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use agentrouter_api::configurator::ObservedSlot;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use zeroize::Zeroize;

use crate::dir::file;
use crate::slot::Slot;
use crate::token::Token;

const NAME: &str = "liaison.json";
const LOCK_FILE: &str = ".liaison.lock";
/// The version of the file's format; a file of another one is not read.
const FORMAT: u32 = 1;

/// The file.
#[derive(Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    format: u32,
    /// The workspace that all of it is about, where the token says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    workspace: String,
    /// The newest token.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    token: String,
    /// Where the watch goes on.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    cursor: String,
    /// What was applied, for targets that cannot tell.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    slots: Vec<KeptSlot>,
    /// The upgrades that have not ended.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    upgrades: BTreeSet<String>,
}

#[derive(Clone, PartialEq, Serialize, Deserialize)]
struct KeptSlot {
    config_type: i32,
    user_id: String,
    #[serde(default)]
    key_id: String,
    version: i64,
    #[serde(default)]
    checksum: String,
}

/// The memory of a worker, with or without a file behind it.
pub(crate) struct Store {
    folder: Option<Folder>,
    memory: Mutex<Memory>,
    /// Told when the file should be written.
    pub(crate) changed: Notify,
}

struct Folder {
    path: PathBuf,
    /// Two workers must not share what they remember. Locked by being open.
    _lock: File,
    /// The number of the newest state that was written, held by whoever writes.
    written: Arc<Mutex<u64>>,
}

#[derive(Default)]
struct Memory {
    workspace: String,
    token: Option<Token>,
    cursor: String,
    slots: BTreeMap<Slot, (i64, String)>,
    upgrades: BTreeSet<String>,
    is_dirty: bool,
    /// Counts the states that were written.
    number: u64,
}

impl Store {
    /// A memory that ends with the worker.
    pub(crate) fn volatile() -> Self {
        Self { folder: None, memory: Mutex::default(), changed: Notify::new() }
    }

    /// Opens a folder, which is made (mode 0700) where it does not exist. A file that cannot be read is passed over.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        file::create_folder(path)?;
        let lock = file::open_lock(&path.join(LOCK_FILE))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::Error::other("another worker uses it")),
            // A file system without locks leaves it to whoever runs the worker.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
        file::remove_leftovers(path)?;
        let memory = read(&path.join(NAME)).map(Memory::from).unwrap_or_default();
        let folder = Some(Folder { path: path.to_owned(), _lock: lock, written: Arc::default() });
        Ok(Self { folder, memory: Mutex::new(memory), changed: Notify::new() })
    }

    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes what is remembered, to be written soon.
    fn change(&self, change: impl FnOnce(&mut Memory) -> bool) {
        let mut memory = self.memory();
        let changed = change(&mut memory);
        memory.is_dirty |= changed;
        drop(memory);
        if changed && self.folder.is_some() {
            self.changed.notify_one();
        }
    }

    /// Says which workspace the worker is of. What is remembered of another one is forgotten.
    pub(crate) fn belong_to(&self, workspace: &str) {
        self.change(|memory| {
            if memory.workspace == workspace {
                return false;
            }
            if !memory.workspace.is_empty() {
                tracing::warn!("the state is that of another workspace, and is not used");
                *memory = Memory { number: memory.number, ..Memory::default() };
            }
            workspace.clone_into(&mut memory.workspace);
            true
        });
    }

    /// Whether it survives the worker.
    pub(crate) fn is_kept(&self) -> bool {
        self.folder.is_some()
    }

    pub(crate) fn token(&self) -> Option<Token> {
        self.memory().token.clone()
    }

    pub(crate) fn keep_token(&self, token: &Token) {
        self.change(|memory| memory.token.replace(token.clone()).as_ref() != Some(token));
    }

    /// Forgets a token that is not good any more.
    pub(crate) fn forget_token(&self) {
        self.change(|memory| memory.token.take().is_some());
    }

    pub(crate) fn cursor(&self) -> String {
        self.memory().cursor.clone()
    }

    /// Notes where the watch stands. Every message moves it, so it is written along with other things only, and at the
    /// end: an older one is as good.
    pub(crate) fn keep_cursor(&self, cursor: &str) {
        if self.is_kept() {
            let mut memory = self.memory();
            memory.is_dirty |= memory.cursor != cursor;
            cursor.clone_into(&mut memory.cursor);
        }
    }

    /// Notes what a target runs that cannot tell it itself.
    pub(crate) fn keep_slot(&self, slot: Slot, version: i64, checksum: &str) {
        if self.is_kept() {
            let held = (version, checksum.to_owned());
            self.change(|memory| memory.slots.insert(slot, held.clone()).as_ref() != Some(&held));
        }
    }

    /// What such a target was given, as far as it is remembered.
    pub(crate) fn slots(&self) -> Vec<ObservedSlot> {
        let slots = &self.memory().slots;
        let observed = slots.iter().map(|(slot, (version, checksum))| ObservedSlot {
            user_id: slot.user_id.clone(),
            config_type: slot.config_type,
            key_id: slot.key_id.clone(),
            version: *version,
            checksum: checksum.clone(),
        });
        observed.collect()
    }

    /// Forgets what was applied: the target tells it itself.
    pub(crate) fn forget_slots(&self) {
        self.change(|memory| !std::mem::take(&mut memory.slots).is_empty());
    }

    /// The upgrades that have not ended, as far as is known.
    pub(crate) fn upgrades(&self) -> BTreeSet<String> {
        self.memory().upgrades.clone()
    }

    pub(crate) fn begin_upgrade(&self, event_id: &str) {
        self.change(|memory| memory.upgrades.insert(event_id.to_owned()));
    }

    pub(crate) fn end_upgrade(&self, event_id: &str) {
        self.change(|memory| memory.upgrades.remove(event_id));
    }

    /// Writes the file, if there is anything new. A failure is told and tried again with the next change.
    pub(crate) async fn save(&self) {
        let Some(folder) = &self.folder else { return };
        let (number, kept) = {
            let mut memory = self.memory();
            if !std::mem::take(&mut memory.is_dirty) {
                return;
            }
            memory.number += 1;
            (memory.number, Kept::from(&*memory))
        };
        let (path, written) = (folder.path.clone(), Arc::clone(&folder.written));
        let written = tokio::task::spawn_blocking(move || {
            let mut newest = written.lock().unwrap_or_else(PoisonError::into_inner);
            if number < *newest {
                return Ok(());
            }
            write(&path, kept).map(|()| *newest = number)
        });
        let written = written.await;
        if let Err(error) = written.unwrap_or_else(|_| Err(io::Error::other("interrupted"))) {
            tracing::warn!(%error, "cannot write the state of the worker");
            self.memory().is_dirty = true;
        }
    }
}

fn write(folder: &Path, kept: Kept) -> io::Result<()> {
    let mut text = serde_json::to_vec(&kept)?;
    text.push(b'\n');
    let written = file::write(folder, NAME, &text);
    text.zeroize();
    let mut token = kept.token;
    token.zeroize();
    written
}

/// Reads the file; none where there is none that is understood.
fn read(path: &Path) -> Option<Kept> {
    let mut text = match std::fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            tracing::warn!(%error, "cannot read the state of the worker, which starts without it");
            return None;
        }
    };
    let kept = serde_json::from_slice::<Kept>(&text);
    text.zeroize();
    match kept {
        Ok(kept) if kept.format == FORMAT => Some(kept),
        Ok(kept) => {
            tracing::warn!(
                format = kept.format,
                "the state of the worker has another format, and is not used"
            );
            None
        }
        // The error would quote what it read.
        Err(_) => {
            tracing::warn!("the state of the worker is damaged, and is not used");
            None
        }
    }
}

impl From<Kept> for Memory {
    fn from(kept: Kept) -> Self {
        let slots = kept.slots.into_iter().map(|slot| {
            let held = (slot.version, slot.checksum);
            (Slot { config_type: slot.config_type, user_id: slot.user_id, key_id: slot.key_id }, held)
        });
        Self {
            workspace: kept.workspace,
            token: (!kept.token.is_empty()).then(|| Token::new(kept.token)),
            cursor: kept.cursor,
            slots: slots.collect(),
            upgrades: kept.upgrades,
            ..Self::default()
        }
    }
}

impl From<&Memory> for Kept {
    fn from(memory: &Memory) -> Self {
        let slots = memory.slots.iter().map(|(slot, (version, checksum))| KeptSlot {
            config_type: slot.config_type,
            user_id: slot.user_id.clone(),
            key_id: slot.key_id.clone(),
            version: *version,
            checksum: checksum.clone(),
        });
        Self {
            format: FORMAT,
            workspace: memory.workspace.clone(),
            token: memory.token.as_ref().map(|token| token.expose().to_owned()).unwrap_or_default(),
            cursor: memory.cursor.clone(),
            slots: slots.collect(),
            upgrades: memory.upgrades.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn slot(user_id: &str) -> Slot {
        Slot { config_type: 1, user_id: user_id.to_owned(), key_id: String::new() }
    }

    #[tokio::test]
    async fn what_was_kept_is_there_after_a_restart_and_private() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("state");
        let store = Store::open(&path).expect("a folder");
        store.keep_token(&Token::new("secret"));
        store.keep_cursor("cursor-7");
        store.keep_slot(slot("ann"), 3, "sum-3");
        store.begin_upgrade("evt_1");
        store.begin_upgrade("evt_2");
        store.end_upgrade("evt_1");
        store.save().await;
        assert!(Store::open(&path).is_err(), "another worker must not use it");
        drop(store);

        let store = Store::open(&path).expect("the folder");
        assert_eq!(store.token(), Some(Token::new("secret")));
        assert_eq!(store.cursor(), "cursor-7");
        assert_eq!(
            store.slots().first().map(|slot| (slot.version, slot.checksum.as_str())),
            Some((3, "sum-3"))
        );
        assert_eq!(store.upgrades(), BTreeSet::from(["evt_2".to_owned()]));
        #[cfg(unix)]
        {
            let mode = |path: &Path| {
                std::os::unix::fs::PermissionsExt::mode(&fs::metadata(path).expect("it is").permissions())
            };
            assert_eq!((mode(&path.join(NAME)) & 0o777, mode(&path) & 0o777), (0o600, 0o700));
        }
    }

    #[tokio::test]
    async fn a_file_that_is_not_understood_is_passed_over_and_replaced() {
        for text in ["", "{", "[]", "{\"format\":2}", "{\"format\":1,\"slots\":7}", "\u{0}\u{0}"] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            fs::write(folder.path().join(NAME), text).expect("a file");
            let store = Store::open(folder.path()).expect("the folder is good");
            assert_eq!(
                (store.token(), store.cursor(), store.slots()),
                (None, String::new(), vec![]),
                "{text}"
            );
            store.keep_cursor("next");
            store.save().await;
            drop(store);
            assert_eq!(Store::open(folder.path()).expect("the folder").cursor(), "next");
        }
    }

    #[tokio::test]
    async fn what_is_remembered_of_another_workspace_is_forgotten() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("a folder");
        store.belong_to("ws_1");
        store.keep_slot(slot("ann"), 3, "sum-3");
        store.save().await;
        drop(store);
        let store = Store::open(folder.path()).expect("the folder");
        store.belong_to("ws_1");
        assert_eq!(store.slots().len(), 1);
        store.belong_to("ws_2");
        assert!(store.slots().is_empty());
    }

    #[tokio::test]
    async fn nothing_is_written_where_nothing_changed() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let store = Store::open(folder.path()).expect("a folder");
        store.save().await;
        assert!(!folder.path().join(NAME).exists());
        store.keep_token(&Token::new("secret"));
        store.save().await;
        fs::remove_file(folder.path().join(NAME)).expect("it was written");
        store.keep_token(&Token::new("secret"));
        store.save().await;
        assert!(!folder.path().join(NAME).exists());
    }
}
