//! A customer with many workspaces, written straight into the database: making them is not what is measured.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{ConfigType, TriggerUpdateResponse};
use agentrouter_api::identity::api_keys_service_client::ApiKeysServiceClient;
use agentrouter_api::identity::{ApiKeyKind, CreateApiKeyRequest};
use agentrouter_kernel::id::{Customer, Id, Provider, Workspace};
use agentrouter_storage::{Db, query};
use anyhow::{Context, Result};
use tonic::Request;

use crate::server::Api;

/// A customer with one provider and this many workspaces.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) customer: Id<Customer>,
    slug: String,
}

impl Fleet {
    pub(crate) async fn new(db: &Db, slug: &str, workspaces: usize) -> Result<Self> {
        const CUSTOMER: &str = "INSERT INTO customers (id, slug, display_name, description, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, '', '', '{}', 1, :now, :now)";
        const SEQUENCE: &str = "INSERT INTO customer_sequences (customer_id, head) VALUES ($1, 0)";
        const PROVIDER: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, priority, \
             weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, 1, TRUE, '{}', 1, :now, :now)";
        const WORKSPACE: &str = "INSERT INTO workspaces (id, customer_id, slug, number, display_name, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, $3, $4, '', '{}', 1, :now, :now)";
        const SYNC: &str =
            "INSERT INTO workspace_sync (workspace_id, customer_id, position) VALUES ($1, $2, 0)";
        const LAST: &str = "SELECT COALESCE(MAX(number), 0) AS value FROM workspaces";
        let mut tx = db.begin().await?;
        let now = tx.now().await?;
        let customer = Id::<Customer>::new(now);
        query(CUSTOMER).bind(customer).bind(slug).execute(&mut tx).await?;
        query(SEQUENCE).bind(customer).execute(&mut tx).await?;
        query(PROVIDER).bind(Id::<Provider>::new(now)).bind(customer).execute(&mut tx).await?;
        let last: i64 = query(LAST).value(&mut tx).await?.unwrap_or_default();
        for index in 1..=workspaces {
            let workspace = Id::<Workspace>::new(now);
            let number = last + i64::try_from(index)?;
            query(WORKSPACE)
                .bind(workspace)
                .bind(customer)
                .bind(format!("ws-{index}"))
                .bind(number)
                .execute(&mut tx)
                .await?;
            query(SYNC).bind(workspace).bind(customer).execute(&mut tx).await?;
        }
        tx.commit_unaudited("nothing of a benchmark is audited").await?;
        Ok(Self { customer, slug: slug.to_owned() })
    }

    /// A key of the customer itself. Operators name the customer with every call, which costs a look-up.
    pub(crate) async fn admin_key(&self, operator: &Api) -> Result<String> {
        let create = CreateApiKeyRequest {
            customer_id: self.slug.clone(),
            display_name: "workers".to_owned(),
            kind: ApiKeyKind::Management.into(),
            role: "admin".to_owned(),
            ..Default::default()
        };
        Ok(ApiKeysServiceClient::new(operator.clone()).create_api_key(create).await?.into_inner().key)
    }

    /// Changes the provider, so that the next trigger finds new content.
    pub(crate) async fn change(&self, db: &Db) -> Result<()> {
        let mut tx = db.begin().await?;
        query("UPDATE providers SET weight = weight + 1 WHERE customer_id = $1")
            .bind(self.customer)
            .execute(&mut tx)
            .await?;
        Ok(tx.commit_unaudited("nothing of a benchmark is audited").await?)
    }

    /// Triggers the slot of the providers.
    pub(crate) async fn trigger(&self, api: &Api) -> Result<TriggerUpdateResponse> {
        let mut request = Request::new(pb::TriggerUpdateRequest {
            user_id: "system".to_owned(),
            config_type: ConfigType::Providers.into(),
            ..Default::default()
        });
        request.metadata_mut().insert("x-agentrouter-customer", self.slug.parse().context("a slug")?);
        let mut client = ConfiguratorServiceClient::new(api.clone()).max_decoding_message_size(64 << 20);
        Ok(client.trigger_update(request).await?.into_inner())
    }

    /// Writes the events of all workspaces.
    pub(crate) async fn lay_out(&self, db: &Db) -> Result<()> {
        loop {
            let mut tx = db.begin().await?;
            let more = agentrouter_delivery::lay_out_customer(&mut tx, self.customer, 1_000).await?;
            tx.commit_unaudited("nothing of a benchmark is audited").await?;
            if !more {
                return Ok(());
            }
        }
    }
}
