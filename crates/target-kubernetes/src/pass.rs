//! One pass: everything that is asked for is rendered, applied and pruned, and what came of it is kept.

use std::collections::BTreeMap;

use agentrouter_api::configurator::{ConfigType, Configuration, ObservedSlot};
use agentrouter_liaison::{Applied, Rejected, Slot};
use agentrouter_manifests::{Options, SLOT_LABEL, Snapshot, render};
use futures::future::try_join_all;
use kube::api::DynamicObject;

use crate::candidate::Candidate;
use crate::cluster::{Cluster, Refusal};
use crate::content::type_of_label;
use crate::object::{Desired, Kind, is_ours, selector};
use crate::state::{Held, State, is_rendered};

/// How often a pass begins anew because another worker changed what is asked for.
const ATTEMPTS: usize = 5;

/// Applies what is asked for to a namespace.
#[derive(Debug)]
pub(crate) struct Passes {
    pub(crate) cluster: Cluster,
    pub(crate) state: State,
    pub(crate) instance: String,
    pub(crate) render: Options,
}

/// An object that was not taken.
struct Refused {
    desired: Desired,
    reason: String,
}

type Live = BTreeMap<(&'static str, String), (Kind, DynamicObject)>;

impl Passes {
    /// Applies configurations together, and answers for each of them.
    pub(crate) async fn run(&self, asked: &[Configuration]) -> Vec<Result<Applied, Rejected>> {
        let mut answers = BTreeMap::new();
        let (rendered, others): (Vec<_>, Vec<_>) = asked.iter().partition(|one| is_rendered(one));
        for configuration in others {
            answers.insert(Slot::from(configuration), self.note(configuration).await);
        }
        if !rendered.is_empty() {
            match self.converge_with_others(&rendered).await {
                Ok(slots) => answers.extend(slots),
                Err(rejected) => {
                    answers.extend(rendered.iter().map(|one| (Slot::from(*one), Err(rejected.clone()))));
                }
            }
        }
        let missing = || Err(Rejected::transient("the slot was not applied"));
        asked.iter().map(|one| answers.get(&Slot::from(one)).cloned().unwrap_or_else(missing)).collect()
    }

    /// Keeps the version of a slot that becomes no object.
    async fn note(&self, configuration: &Configuration) -> Result<Applied, Rejected> {
        for _ in 0..ATTEMPTS {
            let held = self.state.get(&Slot::from(configuration)).await?;
            let mut held = match held {
                Some(held) if held.is_newer_than(configuration) => return Ok(applied(&held)),
                Some(held) => held,
                None => Held::new(configuration.clone()),
            };
            held.ask(configuration.clone());
            held.effective = Some(configuration.clone());
            if self.state.put(&mut held).await? {
                return Ok(applied(&held));
            }
        }
        Err(others_are_busy())
    }

    async fn converge_with_others(
        &self,
        asked: &[&Configuration],
    ) -> Result<BTreeMap<Slot, Result<Applied, Rejected>>, Rejected> {
        'attempts: for _ in 0..ATTEMPTS {
            let mut slots = self.read().await?;
            let mut failed = BTreeMap::new();
            for configuration in asked {
                let slot = Slot::from(*configuration);
                let before = slots.get(&slot).cloned();
                if before.as_ref().is_some_and(|held| held.is_newer_than(configuration)) {
                    continue;
                }
                let mut held = before.unwrap_or_else(|| Held::new((*configuration).clone()));
                held.ask((*configuration).clone());
                // Written down before anything is applied: a pass of another worker that begins now takes it along.
                match self.state.put(&mut held).await {
                    Ok(true) => {
                        slots.insert(slot, held);
                    }
                    Ok(false) => continue 'attempts,
                    Err(rejected) if rejected.is_permanent() => {
                        failed.insert(slot, Err(rejected));
                    }
                    Err(rejected) => return Err(rejected),
                }
            }
            let is_asked = |slot: &Slot| asked.iter().any(|one| Slot::from(*one) == *slot);
            let anew = |held: &Held| is_asked(&held.slot()) || !held.is_settled();
            let mut candidates: Vec<Candidate> =
                slots.into_values().map(|held| Candidate::new(anew(&held), held)).collect();
            self.converge(&mut candidates).await?;

            for candidate in &mut candidates {
                if candidate.conclude() && !self.state.put(&mut candidate.held).await? {
                    continue 'attempts;
                }
            }
            // What was asked for meanwhile may have been applied by its worker before this pass applied the older
            // content over it.
            let now = self.read().await?;
            let same = |candidate: &Candidate| {
                now.get(&candidate.held.slot()).is_some_and(|held| {
                    held.desired.id == candidate.held.desired.id
                        && held.desired.version == candidate.held.desired.version
                })
            };
            if now.len() == candidates.len() && candidates.iter().all(same) {
                let mut answers: BTreeMap<_, _> =
                    candidates.into_iter().map(|it| (it.held.slot(), it.answer())).collect();
                answers.append(&mut failed);
                return Ok(answers);
            }
        }
        Err(others_are_busy())
    }

    async fn read(&self) -> Result<BTreeMap<Slot, Held>, Rejected> {
        let all = self.state.rendered().await?;
        Ok(all.into_iter().map(|held| (held.slot(), held)).collect())
    }

    /// Makes the cluster what the candidates say; what is refused goes back to its last good state.
    async fn converge(&self, candidates: &mut [Candidate]) -> Result<(), Rejected> {
        let mut live = self.live().await?;
        loop {
            let snapshot: Snapshot = candidates.iter().filter_map(Candidate::content).collect();
            let rendered = render(&snapshot, &self.render);
            let mut changed = false;
            for rejection in rendered.rejected {
                let of_type = |it: &&mut Candidate| it.held.desired.config_type() == rejection.config_type;
                if let Some(candidate) = candidates.iter_mut().find(of_type) {
                    candidate.reject_part(&rejection.resource, &rejection.reason);
                    changed = true;
                }
            }
            if changed {
                continue;
            }
            let desired = self.desired(&rendered.resources);
            let refused = self.apply(&desired, &mut live).await?;
            if refused.is_empty() {
                let known: Vec<ConfigType> =
                    candidates.iter().map(|candidate| candidate.held.desired.config_type()).collect();
                return self.prune(&desired, &known, live).await;
            }
            for Refused { desired, reason } in refused {
                let kind = type_of_label(&desired.slot);
                let of_type = |it: &&mut Candidate| Some(it.held.desired.config_type()) == kind;
                let Some(candidate) = candidates.iter_mut().find(of_type) else {
                    // It belongs to all slots, so none can be had without it.
                    return Err(Rejected::transient(reason));
                };
                candidate.reject_object(&desired, &reason, &self.render)?;
            }
        }
    }

    fn desired(&self, resources: &[agentrouter_manifests::Resource]) -> Vec<Desired> {
        let as_object = |resource| Desired::new(resource, self.cluster.namespace(), &self.instance);
        let mut desired: Vec<Desired> = resources.iter().filter_map(as_object).collect();
        desired.sort_by_key(|desired| desired.kind.rank());
        desired
    }

    /// The objects of this target that are there.
    async fn live(&self) -> Result<Live, Rejected> {
        let selector = selector(&self.instance);
        let lists = Kind::all().map(|kind| {
            let selector = selector.as_str();
            async move { Ok::<_, Rejected>((kind, self.cluster.list(kind, selector).await?)) }
        });
        let mut live = Live::new();
        for (kind, objects) in try_join_all(lists).await? {
            for object in objects {
                let name = object.metadata.name.clone().unwrap_or_default();
                live.insert((kind.name, name), (kind, object));
            }
        }
        Ok(live)
    }

    /// Applies what is not there as it shall be. What refers to something that was refused is not tried.
    async fn apply(&self, desired: &[Desired], live: &mut Live) -> Result<Vec<Refused>, Rejected> {
        let mut refused: Vec<Refused> = Vec::new();
        for desired in desired {
            if refused.last().is_some_and(|last| last.desired.kind.rank() < desired.kind.rank()) {
                break;
            }
            let key = (desired.kind.name, desired.name.clone());
            match live.get(&key) {
                Some((_, object)) if desired.is_met_by(object) => continue,
                Some(_) => {}
                None => {
                    let there = self.cluster.find(desired.kind, &desired.name).await?;
                    if there.is_some_and(|object| !is_ours(&object, &self.instance)) {
                        let (kind, name) = (desired.kind.name, &desired.name);
                        let reason =
                            format!("{kind} {name}: there is one that is not managed by this worker");
                        refused.push(Refused { desired: desired.clone(), reason });
                        continue;
                    }
                }
            }
            match self.cluster.apply(desired).await {
                Ok(object) => {
                    live.insert(key, (desired.kind, object));
                }
                Err(Refusal::Object(reason)) => refused.push(Refused { desired: desired.clone(), reason }),
                Err(Refusal::Circumstances(rejected)) => return Err(rejected),
            }
        }
        Ok(refused)
    }

    /// Removes what is not desired any more: what refers to others first. What came from a slot that nothing is known
    /// of stays, since its record may be lost; and so does the gateway, which is not given up by a change of options.
    async fn prune(&self, desired: &[Desired], known: &[ConfigType], live: Live) -> Result<(), Rejected> {
        let wanted =
            |kind: Kind, object: &DynamicObject| desired.iter().any(|it| it.kind == kind && it.is(object));
        let is_known = |object: &DynamicObject| {
            let label = object.metadata.labels.as_ref().and_then(|labels| labels.get(SLOT_LABEL));
            label.and_then(|label| type_of_label(label)).is_some_and(|kind| known.contains(&kind))
        };
        let mut left: Vec<_> = live.into_values().collect();
        left.retain(|(kind, object)| !wanted(*kind, object) && is_known(object));
        left.sort_by_key(|(kind, _)| std::cmp::Reverse(kind.rank()));
        for (kind, object) in left {
            self.cluster.delete(kind, &object).await?;
        }
        Ok(())
    }

    /// What runs of every slot. A slot of which an object is gone or changed runs at no version.
    pub(crate) async fn observed(&self) -> Result<Vec<ObservedSlot>, Rejected> {
        let slots = self.state.all().await?;
        let snapshot: Snapshot = slots
            .iter()
            .filter(|held| is_rendered(&held.desired))
            .filter_map(|held| held.effective.as_ref())
            .collect();
        let live = self.live().await?;
        let mut drifted = Vec::new();
        for desired in self.desired(&render(&snapshot, &self.render).resources) {
            let there = live.get(&(desired.kind.name, desired.name.clone()));
            let as_applied = match there {
                Some((_, object)) => {
                    desired.is_met_by(object) || self.would_be_same(&desired, object).await?
                }
                None => false,
            };
            if !as_applied {
                tracing::debug!(kind = desired.kind.name, name = desired.name, "is not as it was applied");
                drifted.push(type_of_label(&desired.slot));
            }
        }
        let observed = slots.iter().filter(|held| held.effective.is_some()).map(|held| {
            let of_all = drifted.contains(&None) && is_rendered(&held.desired);
            let gone = of_all || drifted.contains(&Some(held.desired.config_type()));
            let applied = if gone { Applied::default() } else { applied(held) };
            ObservedSlot {
                user_id: held.desired.user_id.clone(),
                config_type: held.desired.config_type,
                key_id: held.desired.key_id.clone(),
                version: applied.version,
                checksum: applied.checksum,
            }
        });
        Ok(observed.collect())
    }

    async fn would_be_same(&self, desired: &Desired, object: &DynamicObject) -> Result<bool, Rejected> {
        match self.cluster.try_apply(desired).await {
            Ok(applied) => Ok(Desired::is_same(&applied, object)),
            Err(Refusal::Object(_)) => Ok(false),
            Err(Refusal::Circumstances(rejected)) => Err(rejected),
        }
    }
}

/// What runs of a slot.
pub(crate) fn applied(held: &Held) -> Applied {
    let effective = held.effective.as_ref();
    Applied {
        version: held.applied_version(),
        checksum: effective.map(|effective| effective.checksum.clone()).unwrap_or_default(),
        resources: held.results(),
    }
}

fn others_are_busy() -> Rejected {
    Rejected::transient("other workers of this data plane change the same slots")
}
