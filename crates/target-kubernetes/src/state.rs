//! What was asked for and what was applied, kept in the cluster itself: a secret for each slot.
//!
//! A secret, since configurations hold credentials; one for each slot, since all of them together may be larger than
//! an object of the cluster can be, and since replicas of a worker that change different slots do not meet. Two that
//! change the same slot are told apart by its resource version.

use std::collections::BTreeMap;
use std::fmt;

use agentrouter_api::configurator::{Configuration, ResourceResult};
use agentrouter_liaison::{Rejected, Slot};
use agentrouter_manifests::{MANAGED_BY_LABEL, Snapshot};
use aws_lc_rs::digest;
use http::StatusCode;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams, Preconditions};
use prost::Message;
use serde::{Deserialize, Serialize};

use crate::cluster::{Cluster, FIELD_MANAGER, circumstances, status};
use crate::object::hex;

/// How the names of the secrets begin; a hash of the slot follows, as ids may be anything.
const NAME: &str = "agentrouter-liaison-state";
/// What a liaison keeps for itself is never pruned.
pub(crate) const KEPT_BY: &str = "agentrouter-liaison";
const STATE_LABEL: &str = "agentrouter/state";
/// Whether a slot becomes objects.
const RENDERED_LABEL: &str = "agentrouter/rendered";
const DESIRED: &str = "desired";
const EFFECTIVE: &str = "effective";
/// Stands for the effective content where that is the desired one: an object of the cluster holds it once, not twice.
const SETTLED: &str = "effective-is-desired";
const OUTCOME: &str = "outcome.json";

/// What is known of a slot.
#[derive(Clone)]
pub(crate) struct Held {
    /// The newest content that was asked for.
    pub(crate) desired: Configuration,
    /// What the objects were made from: the same, or the last good content of what was rejected, under the version
    /// that runs. None where nothing was ever applied.
    pub(crate) effective: Option<Configuration>,
    /// What became of the newest content.
    pub(crate) outcome: Outcome,
    /// The secret as it was read.
    resource_version: Option<String>,
}

/// What became of the newest content.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Outcome {
    /// What does not run of what is applied.
    #[serde(default)]
    pub(crate) rejected: BTreeMap<String, String>,
    /// The version that was refused as a whole, so that it is not tried with every change of another slot.
    #[serde(default)]
    pub(crate) refused: Option<i64>,
}

impl fmt::Debug for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("slot", &self.slot().to_string())
            .field("desired", &self.desired.version)
            .field("applied", &self.applied_version())
            .finish_non_exhaustive()
    }
}

impl Held {
    /// A slot that nothing is known of yet.
    pub(crate) fn new(desired: Configuration) -> Self {
        Self { desired, effective: None, outcome: Outcome::default(), resource_version: None }
    }

    pub(crate) fn slot(&self) -> Slot {
        Slot::from(&self.desired)
    }

    pub(crate) fn applied_version(&self) -> i64 {
        self.effective.as_ref().map_or(0, |effective| effective.version)
    }

    /// Whether the newest content is applied, as far as it can be.
    pub(crate) fn is_settled(&self) -> bool {
        let of_same = self.effective.as_ref().is_some_and(|effective| effective.id == self.desired.id);
        of_same && self.applied_version() == self.desired.version
            || self.outcome.refused == Some(self.desired.version)
    }

    /// Whether `other` is an older version of what is asked for already. Another id is another configuration (of a
    /// server that was set up anew), whatever its version.
    pub(crate) fn is_newer_than(&self, other: &Configuration) -> bool {
        self.desired.id == other.id && self.desired.version > other.version
    }

    /// Asks for another content.
    pub(crate) fn ask(&mut self, desired: Configuration) {
        self.outcome.refused = None;
        self.desired = desired;
    }

    /// What does not run, as it is reported.
    pub(crate) fn results(&self) -> Vec<ResourceResult> {
        let rejected = self.outcome.rejected.iter();
        rejected
            .map(|(resource, reason)| ResourceResult {
                resource: resource.clone(),
                applied: false,
                reason: reason.clone(),
            })
            .collect()
    }

    fn read(secret: &Secret) -> Option<Self> {
        let data = secret.data.as_ref()?;
        let configuration = |key: &str| Configuration::decode(data.get(key)?.0.as_slice()).ok();
        let outcome = data.get(OUTCOME).and_then(|text| serde_json::from_slice(&text.0).ok());
        let desired = configuration(DESIRED)?;
        let settled = data.contains_key(SETTLED).then(|| desired.clone());
        Some(Self {
            desired,
            effective: settled.or_else(|| configuration(EFFECTIVE)),
            outcome: outcome.unwrap_or_default(),
            resource_version: secret.metadata.resource_version.clone(),
        })
    }
}

/// Whether a slot becomes objects. Of the others only the version is kept: content that nothing reads is better not
/// there.
pub(crate) fn is_rendered(configuration: &Configuration) -> bool {
    Snapshot::concerns(configuration.config_type())
}

/// The state of one target.
#[derive(Debug, Clone)]
pub(crate) struct State {
    cluster: Cluster,
    instance: String,
}

impl State {
    pub(crate) fn new(cluster: Cluster, instance: &str) -> Self {
        Self { cluster, instance: instance.to_owned() }
    }

    /// Every slot, ordered.
    pub(crate) async fn all(&self) -> Result<Vec<Held>, Rejected> {
        self.list(&format!("{STATE_LABEL}={}", self.instance)).await
    }

    /// The slots that become objects, ordered.
    pub(crate) async fn rendered(&self) -> Result<Vec<Held>, Rejected> {
        self.list(&format!("{STATE_LABEL}={},{RENDERED_LABEL}=true", self.instance)).await
    }

    async fn list(&self, selector: &str) -> Result<Vec<Held>, Rejected> {
        let list = self.cluster.secrets().list(&ListParams::default().labels(selector)).await;
        let list = list.map_err(|error| circumstances("cannot list what was applied", &error))?;
        let mut all: Vec<Held> = list.items.iter().filter_map(Held::read).collect();
        all.sort_by_key(Held::slot);
        Ok(all)
    }

    /// One slot.
    pub(crate) async fn get(&self, slot: &Slot) -> Result<Option<Held>, Rejected> {
        match self.cluster.secrets().get_opt(&self.name(slot)).await {
            Ok(secret) => Ok(secret.as_ref().and_then(Held::read)),
            Err(error) => Err(circumstances("cannot read what was applied", &error)),
        }
    }

    /// Keeps what is known of a slot; false where somebody else changed it since it was read.
    pub(crate) async fn put(&self, held: &mut Held) -> Result<bool, Rejected> {
        let secret = self.secret(held)?;
        let (secrets, how) = (
            self.cluster.secrets(),
            PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() },
        );
        let name = self.name(&held.slot());
        let written = match &held.resource_version {
            Some(_) => secrets.replace(&name, &how, &secret).await,
            None => secrets.create(&how, &secret).await,
        };
        match written {
            Ok(secret) => {
                held.resource_version = secret.metadata.resource_version;
                Ok(true)
            }
            Err(error) => match status(&error) {
                Some(StatusCode::CONFLICT) => {
                    self.remove_unreadable(&name).await?;
                    Ok(false)
                }
                // Deleted meanwhile, which is a change, too.
                Some(StatusCode::NOT_FOUND) => Ok(false),
                Some(StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY) => {
                    Err(Rejected::permanent("the content is larger than a secret of the cluster can be"))
                }
                _ => Err(circumstances("cannot keep what was applied", &error)),
            },
        }
    }

    /// What nobody can read is in the way of what is true.
    async fn remove_unreadable(&self, name: &str) -> Result<(), Rejected> {
        let secrets = self.cluster.secrets();
        let found = secrets.get_opt(name).await;
        let found = found.map_err(|error| circumstances("cannot read what was applied", &error))?;
        let Some(secret) = found.filter(|secret| Held::read(secret).is_none()) else {
            return Ok(());
        };
        let how = DeleteParams {
            preconditions: Some(Preconditions {
                resource_version: secret.metadata.resource_version,
                uid: None,
            }),
            ..DeleteParams::default()
        };
        tracing::warn!(name, "the record of a slot cannot be read, and is written anew");
        match secrets.delete(name, &how).await {
            Ok(_) => Ok(()),
            Err(error) if matches!(status(&error), Some(StatusCode::NOT_FOUND | StatusCode::CONFLICT)) => {
                Ok(())
            }
            Err(error) => Err(circumstances("cannot remove an unreadable record", &error)),
        }
    }

    fn secret(&self, held: &Held) -> Result<Secret, Rejected> {
        let rendered = is_rendered(&held.desired);
        let encode = |configuration: &Configuration| {
            if rendered {
                return ByteString(configuration.encode_to_vec());
            }
            let bare = Configuration { payload: None, ..configuration.clone() };
            ByteString(bare.encode_to_vec())
        };
        let outcome = serde_json::to_vec(&held.outcome)
            .map_err(|error| Rejected::transient(format!("cannot write what was applied: {error}")))?;
        let mut data = BTreeMap::from([
            (DESIRED.to_owned(), encode(&held.desired)),
            (OUTCOME.to_owned(), ByteString(outcome)),
        ]);
        match &held.effective {
            Some(effective) if *effective == held.desired => {
                data.insert(SETTLED.to_owned(), ByteString::default());
            }
            Some(effective) => {
                data.insert(EFFECTIVE.to_owned(), encode(effective));
            }
            None => {}
        }
        let labels = [
            (MANAGED_BY_LABEL, KEPT_BY),
            (STATE_LABEL, &self.instance),
            (RENDERED_LABEL, if rendered { "true" } else { "false" }),
        ];
        // For people who look at it.
        let annotations = [
            ("agentrouter/of", held.slot().to_string()),
            ("agentrouter/desired-version", held.desired.version.to_string()),
            ("agentrouter/applied-version", held.applied_version().to_string()),
        ];
        Ok(Secret {
            metadata: ObjectMeta {
                name: Some(self.name(&held.slot())),
                resource_version: held.resource_version.clone(),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                annotations: Some(annotations.map(|(key, value)| (key.to_owned(), value)).into()),
                ..ObjectMeta::default()
            },
            type_: Some("agentrouter/state".to_owned()),
            data: Some(data),
            ..Secret::default()
        })
    }

    fn name(&self, slot: &Slot) -> String {
        let mut context = digest::Context::new(&digest::SHA256);
        context.update(&slot.config_type.to_be_bytes());
        for part in [&self.instance, &slot.user_id, &slot.key_id] {
            // Each with its length, so that no two slots are the same bytes.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let hash = context.finish();
        format!("{NAME}-{}", hex(hash.as_ref().get(..16).unwrap_or_default()))
    }
}
