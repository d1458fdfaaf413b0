//! The look at the doctor.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::server::Space;

#[tokio::test]
async fn a_doctor_that_cannot_start() {
    let space = Space::new("doctor").await;
    let doctor = space.target().await.doctor();
    let seen = doctor.observe().await.expect("it looks");
    assert!(!seen.cron_job_present);
    assert!(seen.observed_at.is_some());

    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "doctor", "image": "registry.example/doctor:1"}]});
    let job = json!({"template": {"spec": pod}});
    let cron_job = json!({"metadata": {"name": "tare-doctor"}, "spec": {
        "schedule": "*/5 * * * *", "suspend": true, "jobTemplate": {"spec": job},
    }});
    space.create(&space.api::<CronJob>(), cron_job).await;
    let status = json!({"status": {
        "lastScheduleTime": "2026-01-01T00:00:00Z",
        "active": [{"kind": "Job", "name": "doctor-2"}],
    }});
    let cron_jobs = space.api::<CronJob>();
    let how = PatchParams::default();
    let cron_job =
        cron_jobs.patch_status("tare-doctor", &how, &Patch::Merge(status)).await.expect("a status");
    let seen = doctor.observe().await.expect("it looks");
    assert!(seen.cron_job_present && seen.suspended);
    assert_eq!((seen.schedule.as_str(), seen.active_jobs), ("*/5 * * * *", 1));
    assert_eq!(seen.last_schedule_time.map(|time| time.seconds), Some(1_767_225_600));
    assert_eq!((seen.last_successful_time, seen.pod_phase.as_str()), (None, ""));

    let owner = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "name": "tare-doctor", "uid": cron_job.metadata.uid,
    }]);
    let metadata = json!({"name": "doctor-2", "ownerReferences": owner});
    space.create(&space.api::<Job>(), json!({"metadata": metadata, "spec": job})).await;
    space.create(&space.api::<Job>(), json!({"metadata": {"name": "other"}, "spec": job})).await;
    let labels = json!({"batch.kubernetes.io/job-name": "doctor-2"});
    let metadata = json!({"name": "doctor-2-x", "labels": labels});
    space.create(&space.api::<Pod>(), json!({"metadata": metadata, "spec": pod})).await;
    let waiting = json!({"reason": "ImagePullBackOff", "message": "x".repeat(2000)});
    let container = json!({
        "name": "doctor", "image": "x", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting},
    });
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [container]}});
    space.api::<Pod>().patch_status("doctor-2-x", &how, &Patch::Merge(status)).await.expect("a status");
    let seen = doctor.observe().await.expect("it looks");
    assert_eq!((seen.pod_phase.as_str(), seen.reason.as_str()), ("Pending", "ImagePullBackOff"));
    assert_eq!((seen.image.as_str(), seen.message.len()), ("registry.example/doctor:1", 1024));
}
