//! What Helm wrote down about a release: the only one who knows what runs.

use std::io::Read;

use agentrouter_liaison::Rejected;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use serde::Deserialize;

use crate::cluster::{Cluster, circumstances};

/// More than a record has, in bytes: secrets are at most 1 MiB, compressed.
const RECORD_MAX: u64 = 64 << 20;

/// A release as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Release {
    /// The version of the chart that runs; empty where none does.
    pub(super) running_version: String,
    /// The revision that runs.
    pub(super) revision: Option<u64>,
    /// Whether an operation is under way, or was killed.
    pub(super) is_pending: bool,
}

/// The part of a record that is of interest.
#[derive(Deserialize)]
struct Record {
    chart: Chart,
}

#[derive(Deserialize)]
struct Chart {
    metadata: ChartMetadata,
}

#[derive(Deserialize)]
struct ChartMetadata {
    version: String,
}

impl Release {
    /// Reads the records of a release, which Helm keeps as secrets.
    pub(super) async fn read(cluster: &Cluster, name: &str) -> Result<Self, Rejected> {
        let selector = ListParams::default().labels(&format!("owner=helm,name={name}"));
        let records = cluster.secrets().list(&selector).await;
        let records = records.map_err(|error| circumstances("cannot read Helm's records", &error))?.items;
        let newest_of = |wanted: &dyn Fn(&str) -> bool| {
            let of_status = records.iter().filter(|record| label(record, "status").is_some_and(wanted));
            of_status
                .filter_map(|record| Some((revision(record)?, record)))
                .max_by_key(|(revision, _)| *revision)
        };
        let newest = newest_of(&|_| true);
        let deployed = newest_of(&|status| status == "deployed");
        Ok(Self {
            running_version: deployed.and_then(|(_, record)| version(record)).unwrap_or_default(),
            revision: deployed.map(|(revision, _)| revision),
            is_pending: newest
                .and_then(|(_, record)| label(record, "status"))
                .is_some_and(|status| status.starts_with("pending-")),
        })
    }
}

fn label<'a>(secret: &'a Secret, name: &str) -> Option<&'a str> {
    secret.metadata.labels.as_ref()?.get(name).map(String::as_str)
}

fn revision(secret: &Secret) -> Option<u64> {
    label(secret, "version")?.parse().ok()
}

/// JSON, compressed, in Base64.
fn version(secret: &Secret) -> Option<String> {
    let text = &secret.data.as_ref()?.get("release")?.0;
    let compressed = STANDARD.decode(text).ok()?;
    let mut json = Vec::new();
    GzDecoder::new(compressed.as_slice()).take(RECORD_MAX).read_to_end(&mut json).ok()?;
    let record: Record = serde_json::from_slice(&json).ok()?;
    Some(record.chart.metadata.version)
}
