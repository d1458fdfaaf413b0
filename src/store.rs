//! Opens the store: the database, its schema, and the keys that its secrets are sealed under.

use std::fs::File;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::Arc;

use agentrouter_envelope::{Kek, Keyring, Secret};
use agentrouter_identity::{keks, secrets};
use agentrouter_kernel::SystemClock;
use agentrouter_rpc::Deps;
use agentrouter_storage::{Db, Limits, StorageError, Target};
use agentrouter_telemetry::Telemetry;
use anyhow::{Context, Result};

use crate::config::StoreConfig;

/// Name of the key file in the data dir.
const KEK_FILE: &str = "kek";

/// Opens the database and brings its schema up to date.
///
/// # Errors
/// Where the database cannot be reached, or was migrated by a newer program.
pub async fn open_database(config: &StoreConfig) -> Result<Db> {
    open_database_with(config, Telemetry::default()).await
}

async fn open_database_with(config: &StoreConfig, telemetry: Telemetry) -> Result<Db> {
    if let Target::Sqlite(path) = &config.target
        && let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty())
    {
        create_private_folder(folder)?;
    }
    let limits = Limits { max_connections: config.max_connections, ..Limits::default() };
    let db = Db::open_with(&config.target, limits, Arc::new(SystemClock), telemetry)
        .await
        .context("the database cannot be opened")?;
    db.share().await.map_err(|error| match error {
        StorageError::Occupied => anyhow::anyhow!("the database is being copied; wait until that is done"),
        error => anyhow::Error::new(error).context("the database cannot be marked as in use"),
    })?;
    db.migrate().await.context("the database cannot be migrated")?;
    Ok(db)
}

/// Opens the database and the keys.
///
/// # Errors
/// As [`open_database`], and where the keys do not open what is stored.
pub async fn open(config: &StoreConfig, keyring: Option<Keyring>) -> Result<Deps> {
    open_with(config, keyring, Telemetry::default()).await
}

/// [`open`], with the instruments of a server.
///
/// # Errors
/// As [`open`].
pub async fn open_with(config: &StoreConfig, keyring: Option<Keyring>, telemetry: Telemetry) -> Result<Deps> {
    let db = open_database_with(config, telemetry).await?;
    let keyring = match keyring {
        Some(keyring) => keyring,
        None => keyring_in(&config.data_dir, &db).await?,
    };
    keks::verify_keyring(&db, &keyring).await.context("AGENTROUTER_KEK")?;
    let page_key = secrets::page_key(&db, &keyring).await.context("the key of page tokens")?;
    Ok(Deps { db, keyring: Arc::new(keyring), page_key: Arc::new(page_key) })
}

/// The key in the data dir. One is made only for a database that has never seen a key.
async fn keyring_in(data_dir: &Path, db: &Db) -> Result<Keyring> {
    let path = data_dir.join(KEK_FILE);
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            let text = Secret::new(text);
            return Keyring::parse(text.expose()).with_context(|| format!("{}", path.display()));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    }
    if keks::has_kek_check(db).await? {
        anyhow::bail!(
            "the database holds secrets sealed under a key that is neither in AGENTROUTER_KEK, AGENTROUTER_KEK_FILE nor in {}",
            path.display()
        );
    }
    let text = Kek::generate("local-1")?;
    write_private(&path, &format!("{}\n", *text))?;
    tracing::info!(path = %path.display(), "a key-encryption key was made; keep it safe, nothing opens without it");
    Ok(Keyring::parse(&text)?)
}

/// Writes a new file that only its owner reads, and makes its folder where that is missing. The file is there as a whole
/// or not at all, whenever the process dies.
///
/// # Errors
/// Where the file exists already or cannot be written.
pub fn write_private(path: &Path, text: &str) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_folder(folder)?;
    let write = || {
        // Temporary files are made for their owner only.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(text.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        File::open(folder)?.sync_all()
    };
    write().with_context(|| format!("{}", path.display()))
}

fn create_private_folder(folder: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .with_context(|| format!("AGENTROUTER_DATA_DIR (data_dir): {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_brings_its_folder() {
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let home = tempfile::tempdir().unwrap();
        let path = home.path().join("data/operator-key");
        write_private(&path, "ak-1\n").unwrap();
        assert_eq!((mode(&path), mode(&home.path().join("data"))), (0o600, 0o700));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "ak-1\n");
        assert!(write_private(&path, "ak-2\n").is_err(), "a key that is there stays");
    }
}
