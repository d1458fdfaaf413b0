//! First start on an empty database: the customer `default` with its project and workspace, and one operator key.

use std::io::{ErrorKind, IsTerminal};
use std::path::Path;

use agentrouter_envelope::Secret;
use agentrouter_identity::keys::is_key_format;
use agentrouter_rpc::Deps;
use agentrouter_storage::query;
use agentrouter_tenancy::NewCustomer;
use agentrouter_workspaces::NewWorkspace;
use anyhow::{Context, Result, ensure};

use crate::store::write_private;

/// Name of the customer and workspace of the first start.
const DEFAULT: &str = "default";
/// Name of the file in the data dir that the first key goes to where there is no terminal.
const KEY_FILE: &str = "operator-key";

/// Prepares an empty database; does nothing on any other. Replicas that start together take turns.
///
/// # Errors
/// Where the database or the key file cannot be written.
pub async fn bootstrap(deps: &Deps, given: Option<&Secret>, data_dir: &Path) -> Result<()> {
    const ANY: &str = "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM customers";
    if query(ANY).value::<i64>(&deps.db).await?.unwrap_or_default() > 0 {
        return Ok(());
    }
    let mut tx = deps.db.begin().await?;
    tx.lock("bootstrap").await?;
    if query(ANY).value::<i64>(&mut tx).await?.unwrap_or_default() > 0 {
        return Ok(());
    }
    let customer = NewCustomer {
        slug: DEFAULT.to_owned(),
        display_name: "Default".to_owned(),
        ..NewCustomer::default()
    };
    let customer = agentrouter_tenancy::create_customer(&mut tx, customer).await?;
    let workspace = NewWorkspace {
        slug: DEFAULT.to_owned(),
        display_name: "Default".to_owned(),
        ..NewWorkspace::default()
    };
    agentrouter_workspaces::create_workspace(&mut tx, customer.id, workspace).await?;
    let kept = if given.is_none() { kept_key(data_dir)? } else { None };
    let made = agentrouter_identity::bootstrap_key(&mut tx, customer.id, given.or(kept.as_ref())).await?;
    // The key is safe before anything is committed that only it opens.
    if let Some(key) = &made {
        show(key, data_dir)?;
    }
    tx.commit_unaudited("nobody is there yet to have done it").await?;
    Ok(())
}

/// The key that a first start wrote before it was cut short.
fn kept_key(data_dir: &Path) -> Result<Option<Secret>> {
    let path = data_dir.join(KEY_FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => Secret::new(text),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("{}", path.display())),
    };
    let key = Secret::new(text.expose().trim());
    ensure!(is_key_format(key.expose()), "{} holds no key; remove it", path.display());
    tracing::info!(path = %path.display(), "the operator key that an earlier start wrote is used");
    Ok(Some(key))
}

#[expect(clippy::print_stderr, reason = "the key is shown once, to a person, and must not reach a log")]
fn show(key: &Secret, data_dir: &Path) -> Result<()> {
    if std::io::stderr().is_terminal() {
        eprintln!("\nThe first operator key, shown this once:\n\n  AGENTROUTER_API_KEY={}\n", key.expose());
        return Ok(());
    }
    let path = data_dir.join(KEY_FILE);
    write_private(&path, &format!("{}\n", key.expose())).context("the first operator key")?;
    tracing::info!(path = %path.display(), "the first operator key was written");
    Ok(())
}
