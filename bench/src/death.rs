//! Measure 8: workers die with claims in their hands.

use std::collections::HashMap;
use std::time::Duration;

use agentrouter_api::configurator as pb;
use anyhow::{Context, Result, ensure};
use tokio::time::Instant;
use tonic::Code;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::fleet::Fleet;
use crate::server;
use crate::stats::{Millis, figure};
use crate::worker::{Client, batch, completion};

/// Short, so that one need not wait for long.
const LEASE: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_mins(1);

/// A claim whose worker is gone.
struct Orphan {
    token: String,
    /// No later than the end of its lease by the server's clock.
    lease_ends: Instant,
}

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let events = bench.size(5_000, 60);
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "death", events).await?;
    let key = fleet.admin_key(&site.api).await?;
    let ids = fleet.events(site.db(), &site.api).await?;
    let (dying, living) = ids.split_at(events / 10);
    let mut orphans = claim_and_die(&site, &key, dying).await?;
    let mut survivor = Client::new(server::api(site.running.address, &key).await?);
    let mut completed = 0_usize;
    // Quick enough to wait for the orphans before they come.
    for events in living.chunks(100) {
        batch(&mut survivor, events, "survivor").await?;
        completed += events.len();
    }
    let (late, tokens) = reclaim(&mut survivor, &mut orphans).await?;
    completed += late.len();

    // The dead come back and report what they did.
    let (mut refused, mut accepted) = (0_usize, 0_usize);
    for (event, token) in &tokens {
        match survivor.complete_event(completion(event, token)).await {
            Err(status) if status.code() == Code::Aborted => refused += 1,
            Err(status) => return Err(status.into()),
            Ok(answer) => accepted += usize::from(answer.into_inner().success),
        }
    }
    let lost = fleet.behind(site.db()).await?;
    let late = Millis::new(late);
    bench.line(
        "death",
        format_args!(
            "{} of {events} claims of {} s orphaned: in other hands {late} after the lease ended; \
                 {refused} late completions refused, {accepted} accepted; {lost} events lost, {completed} \
                 applied",
            dying.len(),
            LEASE.as_secs()
        ),
    );
    bench.judge(&bars::DEATH, late.p99());
    bench.judge(&bars::DEATH_LOST, figure(lost) + figure(accepted) + figure(completed.abs_diff(events)));
    drop(survivor);
    site.close(bench).await
}

/// A worker that claims all of these and is never heard of again.
async fn claim_and_die(site: &Site, key: &str, events: &[String]) -> Result<HashMap<String, Orphan>> {
    let mut client = Client::new(server::api(site.running.address, key).await?);
    let mut orphans = HashMap::new();
    for event_id in events {
        let claim = pb::AcknowledgeEventRequest {
            event_id: event_id.clone(),
            worker_id: "dying".to_owned(),
            lease: Some(LEASE.try_into()?),
        };
        let lease_ends = Instant::now() + LEASE;
        let claim = client.acknowledge_event(claim).await?.into_inner();
        ensure!(claim.success, "{event_id} is held by {:?}", claim.holder);
        orphans.insert(event_id.clone(), Orphan { token: claim.claim_token, lease_ends });
    }
    Ok(orphans)
}

/// Takes over what comes back, by long polls. Returns how late each event came, and the old tokens.
async fn reclaim(
    survivor: &mut Client,
    orphans: &mut HashMap<String, Orphan>,
) -> Result<(Vec<Duration>, Vec<(String, String)>)> {
    let (mut late, mut tokens) = (Vec::new(), Vec::new());
    let deadline = Instant::now() + LEASE + PATIENCE;
    while !orphans.is_empty() {
        ensure!(Instant::now() < deadline, "{} events never came back", orphans.len());
        let poll = pb::ListPendingEventsRequest {
            wait: Some(Duration::from_secs(5).try_into()?),
            limit: 1_000,
            ..Default::default()
        };
        let events = survivor.list_pending_events(poll).await?.into_inner().events;
        let seen = Instant::now();
        for event in &events {
            let orphan = orphans.remove(&event.id).with_context(|| format!("{} came unasked", event.id))?;
            late.push(seen.saturating_duration_since(orphan.lease_ends));
            tokens.push((event.id.clone(), orphan.token));
        }
        // In batches, so that those that come next are not measured late because of these.
        let ids: Vec<_> = events.into_iter().map(|event| event.id).collect();
        for ids in ids.chunks(100) {
            batch(survivor, ids, "survivor").await?;
        }
    }
    Ok((late, tokens))
}
