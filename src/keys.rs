//! Management keys, handled directly in the database: the way back in when no working key is left.
//!
//! Runs the same service as the API, as a local operator, so that every rule holds and the audit log tells.

use std::fmt::Write as _;

use agentrouter_api::identity as pb;
use agentrouter_api::identity::api_keys_service_server::ApiKeysService;
use agentrouter_identity::{ApiKeys, Authenticator, SigningKeys};
use agentrouter_kernel::id::NameOrId;
use agentrouter_kernel::{CredentialKind, Principal, Role};
use agentrouter_rpc::{Call, Deps};
use agentrouter_storage::scope::{CustomerScope, find_customer};
use agentrouter_storage::{CallOrigin, query};
use anyhow::{Context, Result, anyhow};
use tonic::{Request, Status};

use crate::cli::{KeyRole, KeysCommand};
use crate::config::{Secrets, StoreArgs, StoreConfig, environment};
use crate::{rotate, store};

/// Runs a `keys` command and prints its answer.
///
/// # Errors
/// Where the database cannot be opened, or the service refuses.
pub async fn run(command: KeysCommand) -> Result<()> {
    let answer = match command {
        KeysCommand::Create(args) => {
            let local = Local::open(&args.store, &args.customer).await?;
            let request = pb::CreateApiKeyRequest {
                customer_id: local.customer.slug.clone(),
                display_name: args.display_name,
                kind: pb::ApiKeyKind::Management.into(),
                role: role(args.role).as_str().to_owned(),
                ..Default::default()
            };
            let created = local
                .service
                .create_api_key(local.request("api_key.create", request))
                .await
                .map_err(refused)?;
            format!("{}\n", created.into_inner().key)
        }
        KeysCommand::RotateKek(args) => rotate::run(&args).await?,
        KeysCommand::List(args) => list(&Local::open(&args.store, &args.customer).await?).await?,
        KeysCommand::Revoke(args) => {
            let local = Local::open_for_key(&args.store, &args.api_key_id).await?;
            let request = pb::RevokeApiKeyRequest {
                customer_id: local.customer.slug.clone(),
                api_key_id: args.api_key_id,
            };
            let revoked = local
                .service
                .revoke_api_key(local.request("api_key.revoke", request))
                .await
                .map_err(refused)?;
            format!("{} is revoked\n", revoked.into_inner().id)
        }
    };
    print(&answer)
}

/// Prints what a command answers.
///
/// # Errors
/// Where nobody takes it.
pub fn print(answer: &str) -> Result<()> {
    use std::io::Write;
    std::io::stdout().write_all(answer.as_bytes()).context("standard output")
}

async fn list(local: &Local) -> Result<String> {
    let mut lines = String::from("ID\tROLE\tSTATE\tPREFIX\tNAME\n");
    let mut page_token = String::new();
    loop {
        let request = pb::ListApiKeysRequest {
            customer_id: local.customer.slug.clone(),
            page: Some(agentrouter_api::common::PageRequest {
                page_size: 1000,
                page_token,
                ..Default::default()
            }),
            show_deleted: true,
        };
        let page = local
            .service
            .list_api_keys(local.request("api_key.list", request))
            .await
            .map_err(refused)?
            .into_inner();
        for key in page.api_keys {
            let state = key.state().as_str_name().trim_start_matches("API_KEY_STATE_").to_lowercase();
            writeln!(lines, "{}\t{}\t{state}\t{}\t{}", key.id, key.role, key.key_prefix, key.display_name)?;
        }
        page_token = page.page.unwrap_or_default().next_page_token;
        if page_token.is_empty() {
            return Ok(lines);
        }
    }
}

/// The service, and the local operator who calls it.
struct Local {
    service: ApiKeys,
    customer: CustomerScope,
}

impl Local {
    async fn open(args: &StoreArgs, customer: &str) -> Result<Self> {
        let deps = open(args).await?;
        let customer = find_customer(&deps.db, &NameOrId::parse(customer))
            .await?
            .with_context(|| format!("customer {customer:?} does not exist"))?;
        Self::new(deps, customer).await
    }

    async fn open_for_key(args: &StoreArgs, key: &str) -> Result<Self> {
        const OWNER: &str =
            "SELECT c.id, c.slug FROM api_keys k JOIN customers c ON c.id = k.customer_id WHERE k.id = $1";
        let deps = open(args).await?;
        let id = agentrouter_kernel::Id::<agentrouter_kernel::id::ApiKey>::parse(key)
            .with_context(|| format!("{key:?} is not the row id of a key"))?;
        let customer = query(OWNER)
            .bind(id)
            .optional(&deps.db)
            .await?
            .with_context(|| format!("key {key} does not exist"))?;
        Self::new(deps, customer).await
    }

    async fn new(deps: Deps, customer: CustomerScope) -> Result<Self> {
        let keys = SigningKeys::load_or_create(&deps.db, &deps.keyring).await?;
        let (authenticator, _) = Authenticator::new(deps.db.clone(), keys.into());
        Ok(Self { service: ApiKeys::new(deps, authenticator.into()), customer })
    }

    fn request<T>(&self, action: &str, message: T) -> Request<T> {
        let operator = Principal {
            credential: CredentialKind::ApiKey,
            credential_id: "command-line".to_owned(),
            secret: None,
            customer: self.customer.id,
            customer_slug: self.customer.slug.clone(),
            role: Some(Role::Operator),
            identity: None,
            workspace: None,
            expires_at: None,
        };
        let mut request = Request::new(message);
        request.extensions_mut().insert(Call {
            method: action.to_owned(),
            action: action.to_owned(),
            caller: Some(operator),
            origin: CallOrigin::default(),
            customer_header: None,
            idempotency_key: None,
        });
        request
    }
}

async fn open(args: &StoreArgs) -> Result<Deps> {
    let secrets = Secrets::load(&environment)?;
    store::open(&StoreConfig::load(args)?, secrets.keyring).await
}

fn role(role: KeyRole) -> Role {
    match role {
        KeyRole::Operator => Role::Operator,
        KeyRole::Admin => Role::Admin,
        KeyRole::Viewer => Role::Viewer,
    }
}

#[expect(clippy::needless_pass_by_value, reason = "the shape that `map_err` takes")]
fn refused(status: Status) -> anyhow::Error {
    anyhow!("{}", status.message())
}
