//! Random interleavings of what people, workers and time do to upgrades, against the table of phases.

use agentrouter_api::configurator as pb;
use agentrouter_api::configurator::configurator_service_server::ConfiguratorService;
use agentrouter_api::configurator::{EventType, UpgradePhase};
use agentrouter_delivery::upgrade::{Mover, Phase};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, call, on_both_engines, request};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tonic::Status;
use tonic_types::StatusExt;

use super::world::{Ended, PHASES, World};

on_both_engines!(any_interleaving_follows_the_table);

/// One of the events of an upgrade.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Start,
    Cancel,
    Rollback,
}

/// Something that somebody does. Which upgrade it is about is counted back from the newest.
#[derive(Debug, Clone, Copy)]
enum Op {
    Start,
    Claim(usize, Part),
    Complete(usize, Part, Ended),
    Report(usize, UpgradePhase),
    Cancel(usize),
    RollBack(usize),
    Submit(usize),
    Ack(usize),
    Wait(u64),
    Retire,
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![Just(Part::Start), Just(Part::Cancel), Just(Part::Rollback)]
}

/// Weighed so that upgrades live long enough for something to happen to them.
fn op() -> impl Strategy<Value = Op> {
    let which = || prop_oneof![12 => Just(0usize), 1 => Just(1), 1 => Just(2)];
    let ended = prop_oneof![3 => Just(Ended::Applied), 2 => Just(Ended::Failed), 1 => Just(Ended::Rejected)];
    let going = prop_oneof![Just(UpgradePhase::NeedsCredentials), Just(UpgradePhase::Running)];
    let any = (0..PHASES.len()).prop_map(|index| PHASES[index]);
    let phase = prop_oneof![2 => going, 1 => any];
    prop_oneof![
        6 => Just(Op::Start),
        12 => (which(), part()).prop_map(|(which, part)| Op::Claim(which, part)),
        9 => (which(), part(), ended).prop_map(|(which, part, ended)| Op::Complete(which, part, ended)),
        9 => (which(), phase).prop_map(|(which, phase)| Op::Report(which, phase)),
        3 => which().prop_map(Op::Cancel),
        6 => which().prop_map(Op::RollBack),
        3 => which().prop_map(Op::Submit),
        1 => which().prop_map(Op::Ack),
        3 => prop_oneof![3 => Just(3u64), 1 => Just(31), 1 => Just(400)].prop_map(Op::Wait),
        1 => Just(Op::Retire),
    ]
}

/// An upgrade as the model knows it.
#[derive(Debug)]
struct Known {
    id: String,
    phase: Phase,
    was_claimed: bool,
    rollback: Option<String>,
    cancel: Option<String>,
    /// Tokens of the last claims, and whether they are used up.
    claims: Vec<(Part, String, bool)>,
}

impl Known {
    fn event(&self, part: Part) -> Option<&String> {
        match part {
            Part::Start => Some(&self.id),
            Part::Cancel => self.cancel.as_ref(),
            Part::Rollback => self.rollback.as_ref(),
        }
    }
}

/// A workspace without upgrades, and the model beside it.
struct Model<'a> {
    world: &'a World,
    known: Vec<Known>,
}

fn phase_of(wire: UpgradePhase) -> Phase {
    Phase::from_proto(wire.into()).unwrap()
}

#[track_caller]
fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

impl Model<'_> {
    /// The index of an upgrade counted from the newest.
    fn at(&self, back: usize) -> Option<usize> {
        self.known.len().checked_sub(back + 1)
    }

    fn is_busy(&self) -> bool {
        self.known.iter().any(|known| !known.phase.has_ended())
    }

    /// Does it, and checks what the answer says and which phases follow. Those of other upgrades stay.
    async fn apply(&mut self, op: Op) {
        // Where the table alone does not say what comes, any move of this mover may.
        let mut free = None;
        let mut expected: Vec<Phase> = self.known.iter().map(|known| known.phase).collect();
        match op {
            Op::Start => {
                let busy = self.is_busy();
                match self.world.start_in("edge").await {
                    Ok(id) => {
                        assert!(!busy);
                        self.known.push(Known {
                            id,
                            phase: Phase::Pending,
                            was_claimed: false,
                            rollback: None,
                            cancel: None,
                            claims: Vec::new(),
                        });
                        expected.push(Phase::Pending);
                    }
                    Err(status) => assert!(busy && reason(&status) == "UPGRADE_ACTIVE", "{status:?}"),
                }
            }
            Op::Claim(back, part) => self.claim(back, part).await,
            Op::Complete(back, part, ended) => {
                let Some(index) = self.at(back) else { return };
                if let Some(after) = self.complete(index, part, ended).await {
                    expected[index] = after;
                    // The last of five attempts is final, too.
                    free = (ended == Ended::Failed || part == Part::Cancel).then_some(Mover::Worker);
                }
            }
            Op::Report(back, phase) => {
                let Some(index) = self.at(back) else { return };
                let (known, to) = (&self.known[index], phase_of(phase));
                let allowed = known.phase == to || known.phase.may_move(Mover::Worker, to);
                match self.world.report(&known.id, phase).await {
                    Ok(told) => {
                        assert!(allowed && told.phase() == phase, "{known:?} {to:?}");
                        expected[index] = to;
                    }
                    Err(status) => {
                        assert!(!allowed && reason(&status) == "UPGRADE_PHASE_MISMATCH", "{known:?} {to:?}");
                    }
                }
            }
            Op::Cancel(back) => {
                let Some(index) = self.at(back) else { return };
                let known = &mut self.known[index];
                assert!(self.world.cancel(&known.id).await.unwrap());
                if known.phase == Phase::Pending && !known.was_claimed {
                    expected[index] = Phase::Cancelled;
                } else if known.phase.may_move(Mover::Person, Phase::Cancelling) {
                    expected[index] = Phase::Cancelling;
                    let events = self.world.pending().await;
                    let event = events.into_iter().find(|event| {
                        event.event_type() == EventType::UpgradeCancel && names(event, &known.id)
                    });
                    known.cancel = Some(event.unwrap().id);
                }
            }
            Op::RollBack(back) => {
                let Some(index) = self.at(back) else { return };
                let is_current = self.known[index + 1..].iter().all(|newer| newer.phase != Phase::Completed);
                let busy = self.is_busy();
                let known = &mut self.known[index];
                let allowed = known.phase == Phase::Completed && is_current && !busy;
                match self.world.roll_back(&known.id).await {
                    Ok(event) => {
                        assert!(allowed, "{known:?}");
                        known.rollback = Some(event);
                        known.claims.retain(|(part, ..)| *part != Part::Rollback);
                        expected[index] = Phase::RollingBack;
                    }
                    Err(status) => assert!(!allowed, "{known:?} {status:?}"),
                }
            }
            Op::Submit(back) => {
                let Some(index) = self.at(back) else { return };
                let is_parked = self.known[index].phase == Phase::NeedsCredentials;
                assert_eq!(self.submit(&self.known[index].id).await.is_ok(), is_parked);
            }
            Op::Ack(back) => {
                let Some(index) = self.at(back) else { return };
                let ack =
                    pb::AckDataplaneUpgradeCredentialsRequest { event_id: self.known[index].id.clone() };
                let ack = request(call(&self.world.worker), ack);
                self.world.service.ack_dataplane_upgrade_credentials(ack).await.unwrap();
            }
            Op::Wait(seconds) => {
                self.world.advance(seconds).await;
                free = Some(Mover::Worker);
            }
            Op::Retire => {
                self.world.clear().await;
                for phase in expected.iter_mut().filter(|phase| !phase.has_ended()) {
                    *phase = Phase::Cancelled;
                }
            }
        }
        self.check(op, &expected, free).await;
    }

    async fn claim(&mut self, back: usize, part: Part) {
        let Some(index) = self.at(back) else { return };
        let known = &mut self.known[index];
        let Some(event) = known.event(part).cloned() else { return };
        let answer = self.world.try_claim(&event).await;
        let is_new = !known.claims.iter().any(|(_, token, _)| *token == answer.claim_token);
        if answer.success && is_new {
            let is_of_use = match part {
                Part::Start => known.phase.is_forward() && known.phase != Phase::Cancelling,
                Part::Rollback => known.phase == Phase::RollingBack,
                // It may be on its way still when the upgrade ended, and finds nothing to do.
                Part::Cancel => true,
            };
            assert!(is_of_use, "{part:?} of {known:?} is handed out");
            known.was_claimed |= part == Part::Start;
            known.claims.retain(|(other, ..)| *other != part);
            known.claims.push((part, answer.claim_token, false));
        }
    }

    /// Completes what was claimed last. Returns the phase that follows, where this decided.
    async fn complete(&mut self, index: usize, part: Part, ended: Ended) -> Option<Phase> {
        let known = &mut self.known[index];
        let event = known.event(part).cloned()?;
        let position = known.claims.iter().position(|(of, ..)| *of == part)?;
        let (_, token, is_used) = known.claims[position].clone();
        match self.world.complete(&event, &token, ended).await {
            Ok(done) => assert!(done),
            Err(status) => {
                let reason = reason(&status);
                assert!(
                    reason == "STALE_CLAIM" || (is_used && reason == "EVENT_ALREADY_COMPLETED"),
                    "{reason}"
                );
                return None;
            }
        }
        if is_used {
            return None;
        }
        known.claims[position].2 = true;
        Some(match (part, ended, known.phase) {
            (Part::Start, Ended::Applied, phase) if phase.is_forward() => Phase::Completed,
            (Part::Start, Ended::Failed | Ended::Rejected, Phase::Cancelling)
            | (Part::Cancel, Ended::Applied, Phase::Cancelling) => Phase::Cancelled,
            (Part::Start, Ended::Rejected, phase) if phase.is_forward() => Phase::Failed,
            (Part::Rollback, Ended::Applied, Phase::RollingBack) => Phase::RolledBack,
            (Part::Rollback, Ended::Rejected, Phase::RollingBack) => Phase::Completed,
            (.., phase) => phase,
        })
    }

    async fn submit(&self, upgrade: &str) -> Result<(), Status> {
        let login = pb::RegistryCredential {
            slot: "chart".into(),
            registry: "r.example".into(),
            username: "u".into(),
            password: "p".into(),
        };
        let submit = pb::SubmitDataplaneUpgradeCredentialsRequest {
            upgrade_event_id: upgrade.into(),
            credentials: vec![login],
            persist_in_cluster: false,
        };
        let submit = request(call(&self.world.admin), submit);
        self.world.service.submit_dataplane_upgrade_credentials(submit).await.map(|_| ())
    }

    /// Compares the phases with those that were to come, and asserts what always holds.
    async fn check(&mut self, op: Op, expected: &[Phase], free: Option<Mover>) {
        const ACTIVE: &str =
            "SELECT CAST(COUNT(*) AS BIGINT) AS value FROM dataplane_upgrades WHERE ended_at IS NULL";
        for (known, expected) in self.known.iter_mut().zip(expected) {
            let now = phase_of(self.world.phase(&known.id).await);
            let is_free = free.is_some_and(|mover| known.phase.may_move(mover, now));
            assert!(now == *expected || is_free, "{op:?} made {now:?} of {known:?}, not {expected:?}");
            known.phase = now;
        }
        let active: i64 = query(ACTIVE).value(&self.world.test.db).await.unwrap().unwrap();
        let under_way = self.known.iter().find(|known| !known.phase.has_ended());
        assert_eq!(active, i64::from(under_way.is_some()), "{op:?}");
        let keeps = under_way.is_some_and(|known| known.phase != Phase::Cancelling);
        assert!(keeps || self.world.count("dataplane_upgrade_credentials").await == 0, "{op:?}");
        for event in self.world.pending().await {
            let known = self.known.iter().find(|known| names(&event, &known.id)).unwrap();
            let is_of_use = match event.event_type() {
                EventType::Upgrade => known.phase.is_forward() && known.phase != Phase::Cancelling,
                EventType::UpgradeRollback => known.phase == Phase::RollingBack,
                EventType::UpgradeCancel => true,
                other => panic!("{other:?}"),
            };
            assert!(is_of_use, "{op:?} leaves {event:?} of {known:?} waiting");
        }
    }

    /// A worker that does what it is told brings every upgrade to its end.
    async fn drain(&mut self) {
        for _ in 0..20 {
            for event in self.world.pending().await {
                let token = self.world.claim(&event.id).await;
                self.world.complete(&event.id, &token, Ended::Applied).await.unwrap();
            }
            let mut phases = Vec::new();
            for known in &self.known {
                phases.push(phase_of(self.world.phase(&known.id).await));
            }
            if phases.iter().all(|phase| phase.has_ended()) && self.world.pending().await.is_empty() {
                return;
            }
            // Leases of workers that are gone run out, and retries become due.
            self.world.advance(400).await;
        }
        panic!("something never ends: {:?}", self.known);
    }
}

/// Whether an event is about an upgrade.
fn names(event: &pb::ConfigurationEvent, upgrade: &str) -> bool {
    let fields = event.metadata.as_ref().map(|metadata| &metadata.fields);
    let named = fields.and_then(|fields| fields.get("upgrade_event_id"));
    named.map_or(event.id == upgrade, |named| *named == super::world::text(upgrade))
}

// Behaviour 5: repeated and racing completions of an upgrade's events move its phase once, by the table.
// Behaviour 16: whatever happens in whatever order, no phase goes back but by a rollback.
// Behaviour 24: an upgrade that was undone is never handed out again.
async fn any_interleaving_follows_the_table(db: TestDb) {
    let world = World::new(db).await;
    let cases = Config { cases: 32, failure_persistence: None, ..Config::default() };
    let runtime = tokio::runtime::Handle::current();
    let outcome = tokio::task::block_in_place(|| {
        TestRunner::new(cases).run(&prop::collection::vec(op(), 1..80), |ops| {
            runtime.block_on(async {
                world.clear().await;
                let mut model = Model { world: &world, known: Vec::new() };
                for op in ops {
                    model.apply(op).await;
                }
                model.drain().await;
            });
            Ok(())
        })
    });
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}
