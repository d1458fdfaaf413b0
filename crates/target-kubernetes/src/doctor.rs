//! The doctor job of a data plane, looked at from outside: a broken doctor cannot report itself.

use std::sync::Arc;

use agentrouter_api::configurator::DoctorRuntime;
use agentrouter_kernel::{Clock, SystemClock};
use agentrouter_liaison::Rejected;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{ContainerState, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::ListParams;

use crate::cluster::{Cluster, circumstances};

/// The CronJob that the data plane's chart makes.
const CRON_JOB: &str = "tare-doctor";
/// The longest message, in bytes.
const MESSAGE_MAX: usize = 1024;

/// Looks at the CronJob `tare-doctor` of a namespace and at its newest pod.
#[derive(Debug, Clone)]
pub struct KubernetesDoctor {
    cluster: Cluster,
    clock: Arc<dyn Clock>,
}

/// A reason, and a sentence about it.
type Trouble = (String, String);

impl KubernetesDoctor {
    pub(crate) fn new(cluster: Cluster) -> Self {
        Self { cluster, clock: Arc::new(SystemClock) }
    }

    /// The same with another clock, which tells when it looked.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// What it sees; nothing where the cluster does not say.
    pub async fn observe(&self) -> Option<DoctorRuntime> {
        match self.look().await {
            Ok(runtime) => Some(runtime),
            Err(rejected) => {
                tracing::debug!(error = %rejected, "cannot look at the doctor");
                None
            }
        }
    }

    async fn look(&self) -> Result<DoctorRuntime, Rejected> {
        let micros = self.clock.now().as_micros();
        let mut runtime = DoctorRuntime {
            observed_at: Some(timestamp(
                micros.div_euclid(1_000_000),
                i32::try_from(micros.rem_euclid(1_000_000) * 1_000).unwrap_or_default(),
            )),
            ..DoctorRuntime::default()
        };
        let cron_job = self.cluster.typed::<CronJob>().get_opt(CRON_JOB).await;
        let cron_job = cron_job.map_err(|error| circumstances("cannot read the doctor", &error))?;
        let Some(cron_job) = cron_job else {
            return Ok(runtime);
        };
        runtime.cron_job_present = true;
        if let Some(spec) = &cron_job.spec {
            runtime.suspended = spec.suspend.unwrap_or_default();
            runtime.schedule.clone_from(&spec.schedule);
        }
        if let Some(status) = &cron_job.status {
            runtime.last_schedule_time = status.last_schedule_time.as_ref().map(of_time);
            runtime.last_successful_time = status.last_successful_time.as_ref().map(of_time);
            let active = status.active.as_ref().map_or(0, Vec::len);
            runtime.active_jobs = i32::try_from(active).unwrap_or(i32::MAX);
        }
        let Some(job) = self.newest_job(&cron_job).await? else {
            return Ok(runtime);
        };
        let pod = self.newest_pod(&job).await?;
        if let Some(pod) = &pod {
            let phase = pod.status.as_ref().and_then(|status| status.phase.clone());
            runtime.pod_phase = phase.unwrap_or_default();
            let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
            runtime.image = containers.first().and_then(|it| it.image.clone()).unwrap_or_default();
        }
        let trouble = pod.as_ref().and_then(trouble_of_pod).or_else(|| trouble_of_job(&job));
        if let Some((reason, mut message)) = trouble {
            message.truncate(message.floor_char_boundary(MESSAGE_MAX));
            (runtime.reason, runtime.message) = (reason, message);
        }
        Ok(runtime)
    }

    async fn newest_job(&self, cron_job: &CronJob) -> Result<Option<Job>, Rejected> {
        let jobs = self.cluster.typed::<Job>().list(&ListParams::default()).await;
        let jobs = jobs.map_err(|error| circumstances("cannot list the doctor's jobs", &error))?;
        let uid = cron_job.metadata.uid.as_deref().unwrap_or_default();
        let of_doctor =
            |job: &Job| job.metadata.owner_references.iter().flatten().any(|owner| owner.uid == uid);
        Ok(jobs.items.into_iter().filter(of_doctor).max_by_key(|job| age_key(&job.metadata)))
    }

    async fn newest_pod(&self, job: &Job) -> Result<Option<Pod>, Rejected> {
        let name = job.metadata.name.as_deref().unwrap_or_default();
        let selector = ListParams::default().labels(&format!("batch.kubernetes.io/job-name={name}"));
        let pods = self.cluster.typed::<Pod>().list(&selector).await;
        let pods = pods.map_err(|error| circumstances("cannot list the doctor's pods", &error))?;
        Ok(pods.items.into_iter().max_by_key(|pod| age_key(&pod.metadata)))
    }
}

/// Newer is greater; names tell apart what was made in the same second.
fn age_key(metadata: &ObjectMeta) -> (Option<Time>, Option<String>) {
    (metadata.creation_timestamp.clone(), metadata.name.clone())
}

fn trouble_of_pod(pod: &Pod) -> Option<Trouble> {
    let status = pod.status.as_ref()?;
    let mut containers = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    let in_container = containers.find_map(|it| trouble_of_container(it.state.as_ref()?));
    let unscheduled = || {
        let condition = status.conditions.iter().flatten().find(|it| it.type_ == "PodScheduled")?;
        (condition.status == "False").then(|| trouble(condition.reason.as_ref(), condition.message.as_ref()))
    };
    let of_pod = || status.reason.as_ref().map(|reason| trouble(Some(reason), status.message.as_ref()));
    in_container.or_else(unscheduled).or_else(of_pod)
}

fn trouble_of_container(state: &ContainerState) -> Option<Trouble> {
    if let Some(waiting) = &state.waiting {
        return Some(trouble(waiting.reason.as_ref(), waiting.message.as_ref()));
    }
    let ended = state.terminated.as_ref().filter(|ended| ended.exit_code != 0)?;
    let (reason, mut message) = trouble(ended.reason.as_ref(), ended.message.as_ref());
    if message.is_empty() {
        message = format!("it ended with code {}", ended.exit_code);
    }
    Some((reason, message))
}

fn trouble_of_job(job: &Job) -> Option<Trouble> {
    let conditions = job.status.as_ref()?.conditions.iter().flatten();
    let failed = conditions.into_iter().find(|it| it.type_ == "Failed" && it.status == "True")?;
    Some(trouble(failed.reason.as_ref(), failed.message.as_ref()))
}

fn trouble(reason: Option<&String>, message: Option<&String>) -> Trouble {
    (reason.cloned().unwrap_or_default(), message.cloned().unwrap_or_default())
}

fn of_time(time: &Time) -> prost_types::Timestamp {
    timestamp(time.0.as_second(), time.0.subsec_nanosecond())
}

fn timestamp(seconds: i64, nanos: i32) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds, nanos }
}
