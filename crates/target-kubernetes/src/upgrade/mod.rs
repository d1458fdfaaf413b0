//! Upgrades of the data plane by Helm, run as jobs of the cluster.
//!
//! A job's name comes from the event that started the upgrade, and everything else is written on it, so that a worker
//! that starts anew, or another replica of it, finds the upgrade where it is. A job is made suspended and let go when
//! its secrets are there; one that is still suspended was cut short, and is begun again.
//!
//! A cancel suspends the job, which ends its pod; Helm then goes back by itself. Where it was killed before it could,
//! a job of its own does it.

mod job;
mod options;
mod release;
mod request;

use std::fmt;

use agentrouter_liaison::{Rejected, Upgrade, UpgradeState, Upgrader};
use async_trait::async_trait;
use http::StatusCode;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

pub use options::{Registry, UpgradeOptions};

use crate::cluster::{Cluster, FIELD_MANAGER, circumstances, status};
use job::{Action, Ending, Names};
use release::Release;
use request::Request;

/// What a failed job says at most, in bytes.
const MESSAGE_MAX: usize = 4096;

/// Upgrades the data plane of a namespace.
#[derive(Clone)]
pub struct KubernetesUpgrader {
    cluster: Cluster,
    options: UpgradeOptions,
    instance: String,
}

impl fmt::Debug for KubernetesUpgrader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesUpgrader")
            .field("cluster", &self.cluster)
            .field("release", &self.options.release)
            .finish_non_exhaustive()
    }
}

impl KubernetesUpgrader {
    pub(crate) fn new(cluster: Cluster, options: UpgradeOptions, instance: &str) -> Self {
        Self { cluster, options, instance: instance.to_owned() }
    }

    async fn job(&self, name: &str) -> Result<Option<Job>, Rejected> {
        let found = self.cluster.typed::<Job>().get_opt(name).await;
        found.map_err(|error| circumstances(&format!("cannot read the job {name}"), &error))
    }

    /// Makes an object, or leaves the one that is there.
    async fn create<K>(&self, object: &K) -> Result<(), Rejected>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + fmt::Debug + serde::Serialize + serde::de::DeserializeOwned,
    {
        let how = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match self.cluster.typed::<K>().create(&how, object).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(StatusCode::CONFLICT) => Ok(()),
            Err(error) => Err(circumstances(&format!("cannot create the {}", K::kind(&())), &error)),
        }
    }

    async fn patch_job(&self, name: &str, patch: &Value) -> Result<(), Rejected> {
        let patched =
            self.cluster.typed::<Job>().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).map_err(|error| circumstances(&format!("cannot change the job {name}"), &error))
    }

    async fn delete<K>(&self, name: &str) -> Result<(), Rejected>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
        K: Clone + fmt::Debug + serde::de::DeserializeOwned,
    {
        match self.cluster.typed::<K>().delete(name, &DeleteParams::background()).await {
            Ok(_) => Ok(()),
            Err(error) if status(&error) == Some(StatusCode::NOT_FOUND) => Ok(()),
            Err(error) => Err(circumstances(&format!("cannot delete the {}", K::kind(&())), &error)),
        }
    }

    async fn release(&self) -> Result<Release, Rejected> {
        Release::read(&self.cluster, &self.options.release).await
    }

    /// A login that an earlier upgrade left for this one.
    async fn kept_login(&self, request: &Request) -> Result<Option<Secret>, Rejected> {
        let found = self.cluster.secrets().get_opt(&request.kept_login_name(&self.instance)).await;
        found.map_err(|error| circumstances("cannot read the registry's login", &error))
    }

    /// Lets a job go that was made suspended: gives it its secrets first.
    async fn let_go(&self, names: &Names, request: &Request) -> Result<(), Rejected> {
        let Some(job) = self.job(&names.upgrade).await? else {
            return Err(Rejected::transient("the job is gone"));
        };
        let login = match request.login() {
            Some(login) => Some(login),
            None => self.kept_login(request).await?.and_then(|kept| kept.data),
        };
        self.create(&job::secret(&names.values, &job, request.values()?)).await?;
        if let Some(login) = login {
            self.create(&job::secret(&names.login, &job, login.clone())).await?;
            if request.keeps_login() {
                let name = request.kept_login_name(&self.instance);
                self.delete::<Secret>(&name).await?;
                self.create(&job::kept_secret(&name, login)).await?;
            }
        }
        // As it was read: a cancel in between is not overwritten.
        let metadata = json!({
            "resourceVersion": job.metadata.resource_version,
            "annotations": { job::NEEDS: null },
        });
        let patch = json!({"metadata": metadata, "spec": {"suspend": false}});
        self.patch_job(&names.upgrade, &patch).await
    }

    /// Why a job failed, in Helm's own words where its pod is still there.
    async fn reason(&self, job: &str) -> Result<String, Rejected> {
        let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={job}"));
        let pods = self.cluster.typed::<Pod>().list(&selector).await;
        let pods = pods.map_err(|error| circumstances("cannot list the pods of the job", &error))?;
        let message = pods.items.iter().filter_map(job::termination_message).next_back();
        let mut message = message.unwrap_or_else(|| "the job failed without a word".to_owned());
        message.truncate(message.floor_char_boundary(MESSAGE_MAX));
        Ok(message)
    }

    async fn end(&self, names: &Names) -> Result<(), Rejected> {
        self.delete::<Secret>(&names.login).await
    }

    /// Where a cancelled upgrade stands.
    async fn cancelled(&self, names: &Names, job: &Job) -> Result<UpgradeState, Rejected> {
        if job::has_pods(job) {
            return Ok(UpgradeState::Running {
                message: "Helm is going back to the release before".to_owned(),
            });
        }
        let release = self.release().await?;
        if !release.is_pending {
            self.end(names).await?;
            return Ok(UpgradeState::Cancelled { running_version: release.running_version });
        }
        let Some(revision) = job::previous_revision(job) else {
            self.end(names).await?;
            let message = "it was cancelled during the first installation, which has nothing to return to";
            return Ok(failed(job, message.to_owned(), release));
        };
        match self.job(&names.undo).await? {
            Some(undo) => match job::ending(&undo) {
                Ending::Failed => {
                    self.end(names).await?;
                    let message = format!("cannot go back: {}", self.reason(&names.undo).await?);
                    return Ok(failed(job, message, release));
                }
                // The record of the release follows at once.
                Ending::Complete | Ending::None => {}
            },
            None => {
                self.create(&job::new(&Action::Rollback(revision), &names.undo, None, &self.options)).await?;
            }
        }
        Ok(UpgradeState::Running { message: "a job goes back to the release before".to_owned() })
    }
}

fn failed(job: &Job, message: String, release: Release) -> UpgradeState {
    let failed_version = job::annotation(job, job::TARGET).unwrap_or_default();
    UpgradeState::Failed { message, running_version: release.running_version, failed_version }
}

#[async_trait]
impl Upgrader for KubernetesUpgrader {
    async fn start(&self, upgrade: &Upgrade) -> Result<(), Rejected> {
        let request = Request::new(upgrade, &self.options)?;
        let names = Names::new(&upgrade.event_id);
        let found = self.job(&names.upgrade).await?;
        if found.as_ref().is_some_and(job::was_begun) {
            return Ok(());
        }
        let missing = request.missing_logins();
        let waits = !missing.is_empty() && self.kept_login(&request).await?.is_none();
        if found.is_none() {
            let release = self.release().await?;
            if release.is_pending {
                return Err(Rejected::transient("another operation of Helm on this release is under way"));
            }
            let notes = job::notes(&upgrade.event_id, &request, &release, &self.instance);
            let action = Action::Upgrade(&request);
            self.create(&job::new(&action, &names.upgrade, Some(notes), &self.options)).await?;
        }
        if waits {
            let patch = json!({"metadata": {"annotations": { job::NEEDS: missing.join(",") }}});
            return self.patch_job(&names.upgrade, &patch).await;
        }
        self.let_go(&names, &request).await
    }

    async fn state(&self, event_id: &str) -> Result<UpgradeState, Rejected> {
        let names = Names::new(event_id);
        let Some(job) = self.job(&names.upgrade).await? else {
            return Ok(UpgradeState::Unknown);
        };
        match job::ending(&job) {
            Ending::Complete => {}
            Ending::Failed => {
                self.end(&names).await?;
                let message = self.reason(&names.upgrade).await?;
                return Ok(failed(&job, message, self.release().await?));
            }
            Ending::None if job::is_cancelled(&job) => return self.cancelled(&names, &job).await,
            Ending::None => {
                if let Some(needed) = job::annotation(&job, job::NEEDS) {
                    return Ok(UpgradeState::NeedsCredentials(
                        needed.split(',').map(str::to_owned).collect(),
                    ));
                }
                if !job::was_begun(&job) {
                    return Ok(UpgradeState::Unknown);
                }
                let target = job::annotation(&job, job::TARGET).unwrap_or_default();
                return Ok(UpgradeState::Running { message: format!("Helm installs {target}") });
            }
        }
        self.end(&names).await?;
        let running_version = self.release().await?.running_version;
        let Some(rollback) = self.job(&names.rollback).await? else {
            return Ok(UpgradeState::Completed { running_version });
        };
        match job::ending(&rollback) {
            Ending::Complete => Ok(UpgradeState::RolledBack { running_version }),
            Ending::None => {
                Ok(UpgradeState::Running { message: "Helm goes back to the release before".to_owned() })
            }
            // What was completed stays so; the failure is told by the state's message.
            Ending::Failed => {
                let message = format!("cannot go back: {}", self.reason(&names.rollback).await?);
                Ok(UpgradeState::Failed { message, running_version, failed_version: String::new() })
            }
        }
    }

    async fn cancel(&self, event_id: &str) -> Result<(), Rejected> {
        let names = Names::new(event_id);
        match self.job(&names.upgrade).await? {
            Some(job) if job::ending(&job) == Ending::None => {
                let annotations = json!({ job::CANCELLED: "true", job::NEEDS: null });
                let patch = json!({"metadata": {"annotations": annotations}, "spec": {"suspend": true}});
                self.patch_job(&names.upgrade, &patch).await
            }
            _ => Ok(()),
        }
    }

    async fn rollback(&self, event_id: &str) -> Result<(), Rejected> {
        let names = Names::new(event_id);
        let job = self.job(&names.upgrade).await?.filter(|job| job::ending(job) == Ending::Complete);
        let Some(job) = job else {
            return Err(Rejected::permanent("no completed upgrade of this id is known to the cluster"));
        };
        let Some(revision) = job::previous_revision(&job) else {
            return Err(Rejected::permanent("it was the first installation, which has nothing to return to"));
        };
        let before = self.job(&names.rollback).await?;
        if before.is_some_and(|before| job::ending(&before) == Ending::Failed) {
            self.delete::<Job>(&names.rollback).await?;
        }
        self.create(&job::new(&Action::Rollback(revision), &names.rollback, None, &self.options)).await
    }
}
