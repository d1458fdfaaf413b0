//! The jobs: what is in them, what is written on them, and what they say.

use std::collections::BTreeMap;

use agentrouter_manifests::MANAGED_BY_LABEL;
use aws_lc_rs::digest;
use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{Job, JobSpec};
use k8s_openapi::api::core::v1::{
    Capabilities, Container, EmptyDirVolumeSource, EnvVar, Pod, PodSecurityContext, PodSpec, PodTemplateSpec,
    SeccompProfile, Secret, SecretVolumeSource, SecurityContext, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::options::UpgradeOptions;
use super::release::Release;
use super::request::Request;
use crate::object::hex;
use crate::state::KEPT_BY;

/// The upgrade's event.
const EVENT: &str = "agentrouter/upgrade-event";
/// The version to install.
pub(super) const TARGET: &str = "agentrouter/target-version";
/// The revision that ran before.
const PREVIOUS: &str = "agentrouter/previous-revision";
/// The logins that it waits for, with commas between them.
pub(super) const NEEDS: &str = "agentrouter/needs-credentials";
/// Set once a cancel was asked for.
pub(super) const CANCELLED: &str = "agentrouter/cancelled";

/// The longest event id that is part of a name as it is.
const PLAIN_MAX: usize = 32;
/// Jobs are told about for as long as the management plane keeps events.
const KEEP_SECONDS: i32 = 30 * 24 * 3600;

/// The names of everything that belongs to an upgrade.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) upgrade: String,
    pub(super) values: String,
    pub(super) login: String,
    /// Goes back after a cancel.
    pub(super) undo: String,
    /// Goes back after a completed upgrade.
    pub(super) rollback: String,
}

impl Names {
    pub(super) fn new(event_id: &str) -> Self {
        let plain = (1..=PLAIN_MAX).contains(&event_id.len())
            && event_id
                .bytes()
                .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
            && event_id.ends_with(|c: char| c != '_');
        let id = if plain {
            event_id.replace('_', "-")
        } else {
            let hash = digest::digest(&digest::SHA256, event_id.as_bytes());
            // Ids have no hyphens, so that this is no other id's name.
            format!("x--{}", hex(hash.as_ref().get(..12).unwrap_or_default()))
        };
        let upgrade = format!("agentrouter-upgrade-{id}");
        let with = |suffix: &str| format!("{upgrade}-{suffix}");
        Self {
            values: with("values"),
            login: with("login"),
            undo: with("undo"),
            rollback: with("rollback"),
            upgrade,
        }
    }
}

/// What Helm shall do.
#[derive(Debug)]
pub(super) enum Action<'a> {
    Upgrade(&'a Request),
    /// Back to a revision.
    Rollback(u64),
}

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    None,
    Complete,
    Failed,
}

/// What is written on an upgrade's job.
pub(super) fn notes(
    event_id: &str,
    request: &Request,
    release: &Release,
    instance: &str,
) -> BTreeMap<String, String> {
    let mut notes = BTreeMap::from([
        (EVENT.to_owned(), event_id.to_owned()),
        (TARGET.to_owned(), request.version.clone()),
        ("agentrouter/chart".to_owned(), request.chart.clone()),
        ("agentrouter/running-version".to_owned(), release.running_version.clone()),
        ("agentrouter/instance".to_owned(), instance.to_owned()),
    ]);
    if let Some(revision) = release.revision {
        notes.insert(PREVIOUS.to_owned(), revision.to_string());
    }
    notes
}

/// A job that runs Helm once. That of an upgrade is suspended until its secrets are there.
pub(super) fn new(
    action: &Action<'_>,
    name: &str,
    notes: Option<BTreeMap<String, String>>,
    options: &UpgradeOptions,
) -> Job {
    let timeout = options.timeout.as_secs();
    let (wait, release) = (format!("--timeout={timeout}s"), options.release.clone());
    let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
    let (args, suspend) = match action {
        Action::Upgrade(request) => {
            let mut args =
                owned(&["upgrade", "--install", "--atomic", "--wait", "--reset-then-reuse-values"]);
            args.extend([wait, format!("--version={}", request.version)]);
            args.extend(owned(&["--values=/upgrade/values.json", "--"]));
            args.extend([release, request.chart.clone()]);
            (args, true)
        }
        Action::Rollback(revision) => {
            let mut args = owned(&["rollback", "--wait"]);
            args.extend([wait, "--".to_owned(), release, revision.to_string()]);
            (args, false)
        }
    };
    // Once for the new release and once for the way back.
    let deadline = i64::try_from(timeout * 2 + 120).unwrap_or(i64::MAX);
    let labels = BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), KEPT_BY.to_owned())]);
    let pod = PodSpec {
        service_account_name: Some(options.service_account.clone()),
        restart_policy: Some("Never".to_owned()),
        // Helm goes back when it is told to end.
        termination_grace_period_seconds: Some(i64::try_from(timeout + 60).unwrap_or(i64::MAX)),
        security_context: Some(PodSecurityContext {
            run_as_non_root: Some(true),
            run_as_user: Some(65_532),
            run_as_group: Some(65_532),
            fs_group: Some(65_532),
            seccomp_profile: Some(SeccompProfile {
                type_: "RuntimeDefault".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        containers: vec![container(args, options)],
        volumes: Some(volumes(name)),
        ..Default::default()
    };
    Job {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(labels.clone()),
            annotations: notes,
            ..Default::default()
        },
        spec: Some(JobSpec {
            suspend: Some(suspend),
            backoff_limit: Some(0),
            active_deadline_seconds: Some(deadline),
            ttl_seconds_after_finished: Some(KEEP_SECONDS),
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..Default::default() }),
                spec: Some(pod),
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container(args: Vec<String>, options: &UpgradeOptions) -> Container {
    let set = |name: &str, value: &str| EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..Default::default()
    };
    let mount = |name: &str, path: &str| VolumeMount {
        name: name.to_owned(),
        mount_path: path.to_owned(),
        read_only: Some(name != "home"),
        ..Default::default()
    };
    Container {
        name: "helm".to_owned(),
        image: Some(options.image.clone()),
        command: Some(vec!["helm".to_owned()]),
        args: Some(args),
        env: Some(vec![set("HOME", "/helm"), set("HELM_REGISTRY_CONFIG", "/registry/config.json")]),
        volume_mounts: Some(vec![
            mount("values", "/upgrade"),
            mount("login", "/registry"),
            mount("home", "/helm"),
        ]),
        // What Helm says of a failure is read from the pod's status: the worker reads no logs.
        termination_message_policy: Some("FallbackToLogsOnError".to_owned()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            read_only_root_filesystem: Some(true),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), ..Default::default() }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn volumes(job: &str) -> Vec<Volume> {
    let secret = |name: &str| Volume {
        name: name.to_owned(),
        secret: Some(SecretVolumeSource {
            secret_name: Some(format!("{job}-{name}")),
            // A public registry has no login, and a way back no values.
            optional: Some(true),
            default_mode: Some(0o440),
            ..Default::default()
        }),
        ..Default::default()
    };
    let home = Volume {
        name: "home".to_owned(),
        empty_dir: Some(EmptyDirVolumeSource::default()),
        ..Default::default()
    };
    vec![secret("values"), secret("login"), home]
}

/// A secret that goes with its job.
pub(super) fn secret(name: &str, job: &Job, data: BTreeMap<String, ByteString>) -> Secret {
    let owner = OwnerReference {
        api_version: "batch/v1".to_owned(),
        kind: "Job".to_owned(),
        name: job.metadata.name.clone().unwrap_or_default(),
        uid: job.metadata.uid.clone().unwrap_or_default(),
        ..Default::default()
    };
    let mut secret = kept_secret(name, data);
    secret.metadata.owner_references = Some(vec![owner]);
    secret
}

/// A secret that stays.
pub(super) fn kept_secret(name: &str, data: BTreeMap<String, ByteString>) -> Secret {
    Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([(MANAGED_BY_LABEL.to_owned(), KEPT_BY.to_owned())])),
            ..Default::default()
        },
        data: Some(data),
        ..Default::default()
    }
}

pub(super) fn annotation(job: &Job, name: &str) -> Option<String> {
    job.metadata.annotations.as_ref()?.get(name).cloned()
}

pub(super) fn previous_revision(job: &Job) -> Option<u64> {
    annotation(job, PREVIOUS)?.parse().ok()
}

pub(super) fn is_cancelled(job: &Job) -> bool {
    annotation(job, CANCELLED).is_some()
}

/// Whether a job was let go once; a start that was cut short, or waits for logins, is repeated.
pub(super) fn was_begun(job: &Job) -> bool {
    let suspended = job.spec.as_ref().and_then(|spec| spec.suspend).unwrap_or_default();
    !suspended || is_cancelled(job) || ending(job) != Ending::None
}

/// Whether pods of a job run, or are about to end.
pub(super) fn has_pods(job: &Job) -> bool {
    let Some(status) = &job.status else {
        return false;
    };
    status.active.unwrap_or_default() > 0 || status.terminating.unwrap_or_default() > 0
}

pub(super) fn ending(job: &Job) -> Ending {
    let conditions = job.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let is = |kind: &str| conditions.iter().any(|it| it.type_ == kind && it.status == "True");
    if is("Complete") {
        Ending::Complete
    } else if is("Failed") {
        Ending::Failed
    } else {
        Ending::None
    }
}

/// What the container of a pod said when it ended.
pub(super) fn termination_message(pod: &Pod) -> Option<String> {
    let statuses = pod.status.as_ref()?.container_statuses.as_deref()?;
    let ended =
        statuses.iter().filter_map(|status| status.state.as_ref()?.terminated.as_ref()).next_back()?;
    let message = ended.message.as_deref().unwrap_or_default().trim();
    if message.is_empty() { ended.reason.clone() } else { Some(message.to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::is_label;

    #[test]
    fn names_are_labels_and_stay_apart() {
        assert_eq!(Names::new("evt_01k9").upgrade, "agentrouter-upgrade-evt-01k9");
        let ids = ["evt_01k9", "evt-01k9", "EVT_01K9", "evt_01K9", "", "_", "a_", &"a".repeat(500), "../x"];
        let names: std::collections::BTreeSet<String> = ids
            .iter()
            .map(|id| Names::new(id).rollback)
            .inspect(|name| assert!(is_label(name), "{name}"))
            .collect();
        assert_eq!(names.len(), ids.len());
    }
}
