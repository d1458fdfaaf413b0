//! The calls to the API server, and what its refusals mean.

use std::fmt;
use std::time::Duration;

use agentrouter_liaison::Rejected;
use http::StatusCode;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, Preconditions,
    PropagationPolicy,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::object::{Desired, Kind};
use crate::options::{Access, ConnectError};

/// The field manager of everything that is applied.
pub(crate) const FIELD_MANAGER: &str = "agentrouter";
/// How long the server may take to answer.
const READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest reason of one object, in bytes: what the contract allows for a resource.
const REASON_MAX: usize = 1024;

/// A namespace of a cluster. Clones share the connection.
#[derive(Clone)]
pub(crate) struct Cluster {
    client: Client,
    namespace: String,
}

/// Why one object was not taken.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The server does not take this object, and would not take it again.
    Object(String),
    /// Something else than the object is at fault.
    Circumstances(Rejected),
}

impl Cluster {
    /// Reads how the server is reached; it need not be there yet.
    pub(crate) async fn connect(access: &Access, namespace: &str) -> Result<Self, ConnectError> {
        let mut config = match access {
            Access::InCluster => Config::incluster().map_err(ConnectError::in_cluster)?,
            Access::Kubeconfig { path, context } => {
                let file =
                    Kubeconfig::read_from(path).map_err(|error| ConnectError::kubeconfig(path, error))?;
                let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
                Config::from_custom_kubeconfig(file, &options)
                    .await
                    .map_err(|error| ConnectError::kubeconfig(path, error))?
            }
        };
        config.read_timeout = Some(READ_TIMEOUT);
        config.write_timeout = Some(READ_TIMEOUT);
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // The worker tries again by itself, and says so.
        config.default_retry = false;
        let client = Client::try_from(config).map_err(ConnectError::client)?;
        Ok(Self { client, namespace: namespace.to_owned() })
    }

    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// A kind that the client library has a type for.
    pub(crate) fn typed<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub(crate) fn secrets(&self) -> Api<Secret> {
        self.typed()
    }

    fn objects(&self, kind: Kind) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: kind.group().to_owned(),
            version: kind.version().to_owned(),
            api_version: kind.api_version.to_owned(),
            kind: kind.name.to_owned(),
            plural: kind.plural.to_owned(),
        };
        Api::namespaced_with(self.client.clone(), &self.namespace, &resource)
    }

    /// The objects of a kind with these labels. A kind that the cluster does not know has none.
    pub(crate) async fn list(&self, kind: Kind, selector: &str) -> Result<Vec<DynamicObject>, Rejected> {
        match self.objects(kind).list(&ListParams::default().labels(selector)).await {
            Ok(list) => Ok(list.items),
            Err(error) if status(&error) == Some(StatusCode::NOT_FOUND) => Ok(Vec::new()),
            Err(error) => Err(circumstances(&format!("cannot list {}", kind.plural), &error)),
        }
    }

    /// The labels of an object, where it exists.
    pub(crate) async fn find(&self, kind: Kind, name: &str) -> Result<Option<DynamicObject>, Rejected> {
        match self.objects(kind).get_opt(name).await {
            Ok(found) => Ok(found),
            Err(error) => Err(circumstances(&format!("cannot read {} {name}", kind.name), &error)),
        }
    }

    /// Makes an object what is desired, whoever else has set its fields.
    pub(crate) async fn apply(&self, desired: &Desired) -> Result<DynamicObject, Refusal> {
        self.patch(desired, &PatchParams::apply(FIELD_MANAGER).force()).await
    }

    /// What [`Self::apply`] would make of an object.
    pub(crate) async fn try_apply(&self, desired: &Desired) -> Result<DynamicObject, Refusal> {
        self.patch(desired, &PatchParams::apply(FIELD_MANAGER).force().dry_run()).await
    }

    async fn patch(&self, desired: &Desired, how: &PatchParams) -> Result<DynamicObject, Refusal> {
        let kind = desired.kind;
        let patch = Patch::Apply(&desired.json);
        self.objects(kind).patch(&desired.name, how, &patch).await.map_err(|error| refusal(desired, &error))
    }

    /// Removes an object, unless it is another one of the same name by now. One that is gone is fine.
    pub(crate) async fn delete(&self, kind: Kind, object: &DynamicObject) -> Result<(), Rejected> {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        let how = DeleteParams {
            preconditions: Some(Preconditions { resource_version: None, uid: object.metadata.uid.clone() }),
            propagation_policy: Some(PropagationPolicy::Background),
            ..DeleteParams::default()
        };
        match self.objects(kind).delete(name, &how).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(status(&error), Some(StatusCode::NOT_FOUND | StatusCode::CONFLICT)) => {
                Ok(())
            }
            Err(error) => Err(circumstances(&format!("cannot delete {} {name}", kind.name), &error)),
        }
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cluster").field(&self.namespace).finish()
    }
}

/// The status of an answer; none where there was no answer.
pub(crate) fn status(error: &kube::Error) -> Option<StatusCode> {
    match error {
        kube::Error::Api(status) => StatusCode::from_u16(status.code).ok(),
        _ => None,
    }
}

/// A failure that may pass. What the server says is told; what the connection says is only logged, since it names
/// addresses and files.
pub(crate) fn circumstances(action: &str, error: &kube::Error) -> Rejected {
    match error {
        kube::Error::Api(status) => Rejected::transient(format!("{action}: {}", status.message)),
        other => {
            tracing::debug!(error = %other, action, "no answer from the API server");
            Rejected::transient(format!("{action}: the API server cannot be reached"))
        }
    }
}

fn refusal(desired: &Desired, error: &kube::Error) -> Refusal {
    let (kind, name) = (desired.kind, &desired.name);
    let action = format!("cannot apply {} {name}", kind.name);
    let kube::Error::Api(answer) = error else {
        return Refusal::Circumstances(circumstances(&action, error));
    };
    let says = if kind.holds_secrets() {
        // Its message may quote what it refuses.
        answer.reason.as_str()
    } else {
        answer.message.as_str()
    };
    let by_policy = ["admission webhook", "ValidatingAdmissionPolicy", "denied the request"]
        .iter()
        .any(|sign| answer.message.contains(sign));
    let of_object = match status(error) {
        Some(
            StatusCode::BAD_REQUEST
            | StatusCode::CONFLICT
            | StatusCode::UNPROCESSABLE_ENTITY
            | StatusCode::PAYLOAD_TOO_LARGE,
        ) => true,
        // The same answer says that the worker may not, which is not the object's fault.
        Some(StatusCode::FORBIDDEN) => by_policy,
        _ => false,
    };
    if of_object {
        let mut reason = format!("{} {name}: {says}", kind.name);
        reason.truncate(reason.floor_char_boundary(REASON_MAX));
        return Refusal::Object(reason);
    }
    if status(error) == Some(StatusCode::NOT_FOUND) {
        return Refusal::Circumstances(Rejected::transient(format!(
            "{action}: the cluster does not know this kind, or has no namespace for it; are the gateway's \
             definitions installed?"
        )));
    }
    Refusal::Circumstances(Rejected::transient(format!("{action}: {says}")))
}
