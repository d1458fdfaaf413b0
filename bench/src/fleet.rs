//! A customer with many workspaces, written straight into the database: making them is not what is measured.

use std::sync::Arc;

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{ConfigType, TriggerUpdateResponse};
use agentrouter_api::identity::api_keys_service_client::ApiKeysServiceClient;
use agentrouter_api::identity::{ApiKeyKind, CreateApiKeyRequest};
use agentrouter_identity::{SigningKeys, issue_workspace_token};
use agentrouter_kernel::id::{Customer, Id, Provider, Workspace};
use agentrouter_storage::{Db, Sql, StorageError, Value, query};
use anyhow::{Context, Result};
use tonic::Request;

use crate::server::{self, Api};

/// Nothing of a benchmark is audited.
pub(crate) const UNAUDITED: &str = "nothing of a benchmark is audited";
/// Longer than the answer to a trigger of 10,000 workspaces.
const ANSWER_MAX: usize = 64 << 20;
const CHANGE_ATTEMPTS: usize = 5;

/// A customer with one provider and this many workspaces.
#[derive(Debug, Clone)]
pub(crate) struct Fleet {
    pub(crate) customer: Id<Customer>,
    pub(crate) slug: String,
    pub(crate) workspaces: Vec<Id<Workspace>>,
}

impl Fleet {
    pub(crate) async fn new(db: &Db, slug: &str, workspaces: usize) -> Result<Self> {
        const CUSTOMER: &str = "INSERT INTO customers (id, slug, display_name, description, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, '', '', '{}', 1, :now, :now)";
        const SEQUENCE: &str = "INSERT INTO customer_sequences (customer_id, head) VALUES ($1, 0)";
        const PROVIDER: &str = "INSERT INTO providers (id, customer_id, slug, display_name, schema_name, base_url, models, priority, \
             weight, enabled, labels, revision, created_at, updated_at) \
             VALUES ($1, $2, 'openai', '', 'openai', 'https://api.example', '[\"m\"]', 0, 1, TRUE, '{}', 1, :now, :now)";
        const WORKSPACES: Sql = Sql::Each {
            sqlite: "INSERT INTO workspaces (id, customer_id, slug, number, display_name, labels, revision, created_at, updated_at) \
                 SELECT unhex(value), $2, 'ws-' || (key + 1), $3 + key + 1, '', '{}', 1, $4, $4 FROM json_each($1)",
            postgres: "INSERT INTO workspaces (id, customer_id, slug, number, display_name, labels, revision, created_at, updated_at) \
                 SELECT w.id, $2, 'ws-' || w.n, $3 + w.n, '', '{}', 1, $4, $4 FROM unnest($1) WITH ORDINALITY AS w (id, n)",
        };
        const SYNC: &str = "INSERT INTO workspace_sync (workspace_id, customer_id, position) \
             SELECT id, customer_id, 0 FROM workspaces WHERE customer_id = $1";
        const LAST: &str = "SELECT COALESCE(MAX(number), 0) AS value FROM workspaces";
        let mut tx = db.begin().await?;
        let now = tx.now().await?;
        let customer = Id::<Customer>::new(now);
        query(CUSTOMER).bind(customer).bind(slug).execute(&mut tx).await?;
        query(SEQUENCE).bind(customer).execute(&mut tx).await?;
        query(PROVIDER).bind(Id::<Provider>::new(now)).bind(customer).execute(&mut tx).await?;
        let last: i64 = query(LAST).value(&mut tx).await?.unwrap_or_default();
        let workspaces: Vec<_> = (0..workspaces).map(|_| Id::<Workspace>::new(now)).collect();
        query(WORKSPACES)
            .bind(Value::Uuids(workspaces.iter().map(|id| id.uuid()).collect()))
            .bind(customer)
            .bind(last)
            .bind(now)
            .execute(&mut tx)
            .await?;
        query(SYNC).bind(customer).execute(&mut tx).await?;
        tx.commit_unaudited(UNAUDITED).await?;
        Ok(Self { customer, slug: slug.to_owned(), workspaces })
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

    /// A token for each workspace, as its worker has it.
    pub(crate) async fn tokens(&self, db: &Db) -> Result<Vec<String>> {
        let keys = SigningKeys::load_or_create(db, &Arc::new(server::keyring()?)).await?;
        let mut tokens = Vec::with_capacity(self.workspaces.len());
        for some in self.workspaces.chunks(1_000) {
            let mut tx = db.begin().await?;
            for workspace in some {
                let issued = issue_workspace_token(&mut tx, &keys, self.customer, *workspace).await?;
                tokens.push(issued.token.expose().to_owned());
            }
            tx.commit_unaudited(UNAUDITED).await?;
        }
        Ok(tokens)
    }

    /// Changes the provider, so that the next trigger finds new content.
    pub(crate) async fn change(&self, db: &Db) -> Result<()> {
        // A second process gets the one writer of SQLite by luck while the server has work for it.
        for _ in 1..CHANGE_ATTEMPTS {
            if self.try_to_change(db).await.is_ok() {
                return Ok(());
            }
        }
        Ok(self.try_to_change(db).await?)
    }

    async fn try_to_change(&self, db: &Db) -> Result<(), StorageError> {
        let mut tx = db.begin().await?;
        query("UPDATE providers SET weight = weight + 1 WHERE customer_id = $1")
            .bind(self.customer)
            .execute(&mut tx)
            .await?;
        tx.commit_unaudited(UNAUDITED).await
    }

    /// Triggers the slot of the providers, as an operator.
    pub(crate) async fn trigger(&self, operator: &Api) -> Result<TriggerUpdateResponse> {
        let mut request = Request::new(pb::TriggerUpdateRequest {
            user_id: "system".to_owned(),
            config_type: ConfigType::Providers.into(),
            ..Default::default()
        });
        request.metadata_mut().insert("x-agentrouter-customer", self.slug.parse().context("a slug")?);
        let mut client =
            ConfiguratorServiceClient::new(operator.clone()).max_decoding_message_size(ANSWER_MAX);
        Ok(client.trigger_update(request).await?.into_inner())
    }

    /// New content for all workspaces; returns the ids of the events, which are laid out.
    pub(crate) async fn events(&self, db: &Db, operator: &Api) -> Result<Vec<String>> {
        self.change(db).await?;
        let events = self.trigger(operator).await?.event_ids;
        self.lay_out(db).await?;
        Ok(events)
    }

    /// Writes the events of all workspaces.
    pub(crate) async fn lay_out(&self, db: &Db) -> Result<()> {
        loop {
            let mut tx = db.begin().await?;
            let more = agentrouter_delivery::lay_out_customer(&mut tx, self.customer, 1_000).await?;
            tx.commit_unaudited(UNAUDITED).await?;
            if !more {
                return Ok(());
            }
        }
    }

    /// Gives every workspace so many slots of users, all applied, and nothing to deliver.
    pub(crate) async fn converged_slots(&self, db: &Db, slots: usize) -> Result<()> {
        const HEAD: &str = "UPDATE customer_sequences SET head = $2 WHERE customer_id = $1";
        const CONFIGURATIONS: &str = "INSERT INTO liaison_configurations (id, customer_id, user_id, config_type, key_id, version, \
             checksum, deleted, content, event_type, position, broadcast_position, created_at, updated_at) \
             VALUES ($1, $2, $3, $5, '', 1, 'bench', FALSE, $6, $7, $4, $4, :now, :now)";
        const VERSIONS: &str = "INSERT INTO liaison_configuration_versions (configuration_id, version, customer_id, position, checksum, \
             deleted, content, event_type, created_at) \
             SELECT id, version, customer_id, position, checksum, deleted, content, event_type, created_at \
             FROM liaison_configurations WHERE customer_id = $1";
        const APPLIED: &str = "INSERT INTO workspace_slots (workspace_id, configuration_id, customer_id, applied_version, \
             applied_checksum, applied_at, withheld_version) \
             SELECT w.id, c.id, c.customer_id, c.version, c.checksum, c.updated_at, 0 \
             FROM workspaces w CROSS JOIN liaison_configurations c WHERE w.customer_id = $1 AND c.customer_id = $1 AND c.id = $2";
        const SYNC: &str = "UPDATE workspace_sync SET position = $2 WHERE customer_id = $1";
        let config_type = agentrouter_delivery::config_type_name(ConfigType::UserKeys);
        let event_type = agentrouter_delivery::event_type_name(pb::EventType::Updated);
        let head = i64::try_from(slots)?;
        let mut tx = db.begin().await?;
        let now = tx.now().await?;
        query(HEAD).bind(self.customer).bind(head).execute(&mut tx).await?;
        let mut ids = Vec::with_capacity(slots);
        for position in 1..=head {
            let id = Id::<agentrouter_kernel::id::Configuration>::new(now);
            query(CONFIGURATIONS)
                .bind(id)
                .bind(self.customer)
                .bind(format!("user-{position}"))
                .bind(position)
                .bind(&config_type)
                .bind(Vec::<u8>::new())
                .bind(&event_type)
                .execute(&mut tx)
                .await?;
            ids.push(id);
        }
        query(VERSIONS).bind(self.customer).execute(&mut tx).await?;
        query(SYNC).bind(self.customer).bind(head).execute(&mut tx).await?;
        tx.commit_unaudited(UNAUDITED).await?;
        // One slot at a time: a statement may take 30 s at most.
        for id in ids {
            let mut tx = db.begin().await?;
            query(APPLIED).bind(self.customer).bind(id).execute(&mut tx).await?;
            tx.commit_unaudited(UNAUDITED).await?;
        }
        Ok(())
    }

    /// How many workspaces do not run the newest version of every slot.
    pub(crate) async fn behind(&self, db: &Db) -> Result<i64> {
        const BEHIND: &str = "SELECT CAST(COUNT(DISTINCT w.id) AS BIGINT) AS value FROM workspaces w \
             JOIN liaison_configurations c ON c.customer_id = w.customer_id AND c.workspace_id IS NULL \
             LEFT JOIN workspace_slots s ON s.workspace_id = w.id AND s.configuration_id = c.id \
             WHERE w.customer_id = $1 AND c.deleted = FALSE AND (s.applied_version IS NULL OR s.applied_version < c.version)";
        Ok(query(BEHIND).bind(self.customer).value(db).await?.unwrap_or_default())
    }
}
