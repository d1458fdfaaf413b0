//! People who change things. Each one is alone with what it changes, so it knows exactly what must be stored: what
//! the last answer said, or, where an answer is open, that or what the open write makes of it.
//!
//! An open write is repeated under its idempotency key until it is answered. Updates carry the etag of the answer
//! before, so that neither a lost nor a doubled write goes unseen.

use std::time::Duration;

use agentrouter_api::configurator::configurator_service_client::ConfiguratorServiceClient;
use agentrouter_api::configurator::{ConfigType, TriggerUpdateRequest};
use agentrouter_api::identity::api_keys_service_client::ApiKeysServiceClient;
use agentrouter_api::identity::{ApiKey, ApiKeyKind, ApiKeyState, CreateApiKeyRequest, RevokeApiKeyRequest};
use agentrouter_api::providers::providers_service_client::ProvidersServiceClient;
use agentrouter_api::providers::{
    CreateProviderRequest, DisableProviderRequest, EnableProviderRequest, GetProviderRequest, Provider,
    ProviderSchema, UpdateProviderRequest,
};
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_api::tenancy::{
    CreateCustomerRequest, Customer, CustomerState, GetCustomerRequest, UpdateCustomerRequest,
};
use tokio::time::sleep;
use tonic::Code;

use crate::call::{Gone, Trouble, answered, keyed, keyed_for, told};
use crate::common::Api;

/// How long before a server that lives and could not decide is asked again.
const AGAIN: Duration = Duration::from_millis(20);

/// Changes one provider. Every write of it changes what the data planes are to run.
pub(crate) struct ProviderWriter {
    pub(crate) customer: String,
    pub(crate) name: String,
    /// As the last answer had it.
    pub(crate) stored: Option<Provider>,
    /// Writes that were answered.
    pub(crate) writes: i32,
    open: Option<Edit>,
}

/// A write to a provider.
#[derive(Debug, Clone, Copy)]
enum Edit {
    Create,
    Weigh(i32),
    Rekey,
    Disable,
    Enable,
}

impl ProviderWriter {
    pub(crate) fn new(customer: &str, name: &str) -> Self {
        Self { customer: customer.to_owned(), name: name.to_owned(), stored: None, writes: 0, open: None }
    }

    pub(crate) fn is_settled(&self) -> bool {
        self.open.is_none()
    }

    pub(crate) async fn look(&self, api: &Api) -> Result<(), Gone> {
        let request =
            GetProviderRequest { customer_id: self.customer.clone(), provider_id: self.name.clone() };
        let mut client = ProvidersServiceClient::new(api.clone());
        let found = loop {
            match told(client.get_provider(request.clone()).await) {
                Ok(found) => break Some(found),
                Err(Trouble::Refused { code: Code::NotFound, .. }) => break None,
                Err(Trouble::Again) => sleep(AGAIN).await,
                Err(Trouble::Gone) => return Err(Gone),
                Err(trouble) => panic!("{trouble:?}"),
            }
        };
        let done = self.open.zip(found.as_ref()).map(|(edit, found)| self.after(edit, found));
        assert!(
            found == self.stored || (found.is_some() && found == done),
            "stored: {found:?}, told: {:?}, open: {:?}",
            self.stored,
            self.open
        );
        Ok(())
    }

    pub(crate) async fn step(&mut self, api: &Api) -> Result<(), Gone> {
        let edit = *self.open.get_or_insert(match self.writes % 8 {
            _ if self.stored.is_none() => Edit::Create,
            // A provider that is out of service changes nothing for the data planes, so it comes back at once.
            3 => Edit::Disable,
            4 => Edit::Enable,
            6 => Edit::Rekey,
            _ => Edit::Weigh(1_000 + self.writes),
        });
        let Some(answer) = answered(self.call(api, edit).await)? else { return Ok(()) };
        assert_eq!(answer, self.after(edit, &answer), "{edit:?} of {:?}", self.stored);
        let before = self.stored.as_ref().map(|stored| stored.etag.as_str());
        assert_ne!(before, Some(answer.etag.as_str()), "{edit:?}");
        self.stored = Some(answer);
        self.writes += 1;
        self.open = None;
        Ok(())
    }

    async fn call(&self, api: &Api, edit: Edit) -> Result<tonic::Response<Provider>, tonic::Status> {
        let mut client = ProvidersServiceClient::new(api.clone());
        let key = format!("{}-{}-{}", self.customer, self.name, self.writes);
        let (customer_id, provider_id) = (self.customer.clone(), self.name.clone());
        let etag = self.stored.as_ref().map(|stored| stored.etag.clone()).unwrap_or_default();
        let update = UpdateProviderRequest {
            customer_id: customer_id.clone(),
            provider_id: provider_id.clone(),
            etag,
            ..Default::default()
        };
        match edit {
            Edit::Create => {
                let create = CreateProviderRequest {
                    customer_id,
                    provider_id,
                    display_name: self.name.clone(),
                    schema: ProviderSchema::Openai.into(),
                    base_url: "https://api.example.com/v1".to_owned(),
                    models: vec!["a-model".to_owned()],
                    weight: Some(1),
                    api_key: "the first key".to_owned(),
                    ..Default::default()
                };
                client.create_provider(keyed(&key, create)).await
            }
            Edit::Weigh(weight) => {
                let update = UpdateProviderRequest { weight: Some(weight), ..update };
                client.update_provider(keyed(&key, update)).await
            }
            Edit::Rekey => {
                let update = UpdateProviderRequest { api_key: Some(format!("key {key}")), ..update };
                client.update_provider(keyed(&key, update)).await
            }
            Edit::Disable => {
                let disable = DisableProviderRequest { customer_id, provider_id };
                client.disable_provider(keyed(&key, disable)).await
            }
            Edit::Enable => {
                let enable = EnableProviderRequest { customer_id, provider_id };
                client.enable_provider(keyed(&key, enable)).await
            }
        }
    }

    /// What a write makes of what was stored before it; what the server decides is taken from what it shows.
    fn after(&self, edit: Edit, shown: &Provider) -> Provider {
        let mut provider = self.stored.clone().unwrap_or_else(|| Provider {
            id: shown.id.clone(),
            customer_id: self.customer.clone(),
            provider_id: self.name.clone(),
            display_name: self.name.clone(),
            schema: ProviderSchema::Openai.into(),
            base_url: "https://api.example.com/v1".to_owned(),
            models: vec!["a-model".to_owned()],
            weight: 1,
            enabled: true,
            has_api_key: true,
            created_at: shown.created_at,
            ..Default::default()
        });
        match edit {
            Edit::Create | Edit::Rekey => {}
            Edit::Weigh(weight) => provider.weight = weight,
            Edit::Disable => provider.enabled = false,
            Edit::Enable => provider.enabled = true,
        }
        provider.updated_at = shown.updated_at;
        provider.etag.clone_from(&shown.etag);
        provider
    }
}

/// Creates customers, and changes each of them once.
pub(crate) struct CustomerWriter {
    pub(crate) prefix: String,
    /// As the last answers had them.
    pub(crate) stored: Vec<Customer>,
    pub(crate) writes: usize,
    is_open: bool,
}

impl CustomerWriter {
    pub(crate) fn new(prefix: &str) -> Self {
        Self { prefix: prefix.to_owned(), stored: Vec::new(), writes: 0, is_open: false }
    }

    pub(crate) fn is_settled(&self) -> bool {
        !self.is_open
    }

    /// The even writes create, the odd ones change what was created.
    fn next(&self) -> (String, bool) {
        (format!("{}-{}", self.prefix, self.writes / 2), self.writes.is_multiple_of(2))
    }

    pub(crate) async fn look(&self, api: &Api) -> Result<(), Gone> {
        let Some(last) = self.stored.last() else { return Ok(()) };
        let request = GetCustomerRequest { customer_id: last.customer_id.clone() };
        let mut client = TenancyServiceClient::new(api.clone());
        let found = loop {
            match answered(client.get_customer(request.clone()).await)? {
                Some(found) => break found,
                None => sleep(AGAIN).await,
            }
        };
        let (customer_id, creates) = self.next();
        let may_be_changed = self.is_open && !creates && last.customer_id == customer_id;
        let changed = may_be_changed.then(|| after(&customer_id, Some(last), &found));
        assert!(found == *last || Some(&found) == changed.as_ref(), "stored: {found:?}, told: {last:?}");
        Ok(())
    }

    pub(crate) async fn step(&mut self, api: &Api) -> Result<(), Gone> {
        let mut client = TenancyServiceClient::new(api.clone());
        let (customer_id, creates) = self.next();
        let key = format!("{customer_id}-{creates}");
        self.is_open = true;
        let answer = if creates {
            let create = CreateCustomerRequest { customer_id: customer_id.clone(), ..Default::default() };
            client.create_customer(keyed(&key, create)).await
        } else {
            let update = UpdateCustomerRequest {
                customer_id: customer_id.clone(),
                description: Some("changed".to_owned()),
                etag: self.stored.last().unwrap().etag.clone(),
                ..Default::default()
            };
            client.update_customer(keyed(&key, update)).await
        };
        let Some(answer) = answered(answer)? else { return Ok(()) };
        let before = if creates { None } else { self.stored.pop() };
        assert_eq!(answer, after(&customer_id, before.as_ref(), &answer));
        assert!(before.is_none_or(|before| before.etag != answer.etag));
        self.stored.push(answer);
        self.writes += 1;
        self.is_open = false;
        Ok(())
    }
}

/// What a write makes of a customer; what the server decides is taken from what it shows.
fn after(customer_id: &str, before: Option<&Customer>, shown: &Customer) -> Customer {
    let created = Customer {
        id: shown.id.clone(),
        customer_id: customer_id.to_owned(),
        display_name: shown.display_name.clone(),
        state: CustomerState::Active.into(),
        created_at: shown.created_at,
        ..Default::default()
    };
    let mut after =
        before.map_or(created, |before| Customer { description: "changed".to_owned(), ..before.clone() });
    after.updated_at = shown.updated_at;
    after.etag.clone_from(&shown.etag);
    after
}

/// Gives gateway keys to one person and takes every one back: each of both is a new version of the person's slot.
pub(crate) struct KeyWriter {
    pub(crate) customer: String,
    pub(crate) identity: String,
    /// As the last answers had them.
    pub(crate) stored: Vec<ApiKey>,
    pub(crate) writes: usize,
    is_open: bool,
}

impl KeyWriter {
    pub(crate) fn new(customer: &str, identity: &str) -> Self {
        Self {
            customer: customer.to_owned(),
            identity: identity.to_owned(),
            stored: Vec::new(),
            writes: 0,
            is_open: false,
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        !self.is_open
    }

    pub(crate) async fn step(&mut self, api: &Api) -> Result<(), Gone> {
        let mut client = ApiKeysServiceClient::new(api.clone());
        let key = format!("{}-{}", self.identity, self.writes);
        let creates = self.writes.is_multiple_of(2);
        self.is_open = true;
        let answer = if creates {
            let create = CreateApiKeyRequest {
                customer_id: self.customer.clone(),
                display_name: key.clone(),
                kind: ApiKeyKind::Gateway.into(),
                identity_id: self.identity.clone(),
                ..Default::default()
            };
            let Some(created) = answered(client.create_api_key(keyed(&key, create)).await)? else {
                return Ok(());
            };
            assert!(created.key.starts_with("gk-"), "a repeated answer has the secret, too");
            created.api_key.unwrap()
        } else {
            let api_key_id = self.stored.last().unwrap().id.clone();
            let revoke = RevokeApiKeyRequest { customer_id: self.customer.clone(), api_key_id };
            let Some(revoked) = answered(client.revoke_api_key(keyed(&key, revoke)).await)? else {
                return Ok(());
            };
            assert_eq!(self.stored.pop().unwrap().id, revoked.id);
            revoked
        };
        let state = if creates { ApiKeyState::Active } else { ApiKeyState::Revoked };
        assert_eq!(answer.state(), state);
        self.stored.push(answer);
        self.writes += 1;
        self.is_open = false;
        Ok(())
    }
}

/// Triggers the providers of a customer, for all of its workspaces and for one in turn. As every change is delivered
/// by itself, this finds nothing new.
pub(crate) struct Trigger {
    pub(crate) customer: String,
    pub(crate) workspace: String,
    /// The newest version it was told of.
    pub(crate) newest: i64,
    /// How often it was told that there is a new version.
    pub(crate) updates: i64,
    pub(crate) calls: u32,
    is_open: bool,
}

impl Trigger {
    pub(crate) fn new(customer: &str, workspace: &str) -> Self {
        Self {
            customer: customer.to_owned(),
            workspace: workspace.to_owned(),
            newest: 0,
            updates: 0,
            calls: 0,
            is_open: false,
        }
    }

    pub(crate) fn is_settled(&self) -> bool {
        !self.is_open
    }

    pub(crate) async fn step(&mut self, api: &Api) -> Result<(), Gone> {
        let workspace_id = if self.calls.is_multiple_of(2) { "" } else { &self.workspace };
        let request = TriggerUpdateRequest {
            user_id: "system".to_owned(),
            config_type: ConfigType::Providers.into(),
            workspace_id: workspace_id.to_owned(),
            ..Default::default()
        };
        let request = keyed_for(&self.customer, &format!("{}-{}", self.customer, self.calls), request);
        self.is_open = true;
        let answer = ConfiguratorServiceClient::new(api.clone()).trigger_update(request).await;
        let Some(answer) = answered(answer)? else { return Ok(()) };
        let version = answer.configuration.unwrap().version;
        assert!(version >= self.newest, "version {} was followed by {version}", self.newest);
        self.newest = version;
        self.updates += i64::from(answer.configuration_updated);
        self.calls += 1;
        self.is_open = false;
        Ok(())
    }
}
