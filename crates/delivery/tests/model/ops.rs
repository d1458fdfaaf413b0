//! What may happen. Everything is named by a number that is taken modulo what there is, so that any list of steps is
//! possible, and stays so when some are left out.

use proptest::collection::vec;
use proptest::prelude::*;

/// One step.
#[derive(Debug, Clone)]
pub(crate) enum Op {
    /// The source of the generated slot changes, or gives what it gave before, and is triggered for everybody.
    Trigger { content: u8 },
    /// The same for one workspace only.
    TriggerOnly { content: u8, workspace: usize },
    /// The content of the given slot is replaced.
    Put { content: u8 },
    /// The given slot is triggered as it is.
    TriggerGiven,
    /// The given slot is deleted.
    Delete,
    /// An older version of the given slot comes back.
    RollBack { version: i64 },
    /// A worker asks what waits.
    Poll { workspace: usize },
    /// A worker claims an event that it once heard of.
    Claim { event: usize, worker: usize },
    /// A worker claims everything of a workspace in one call.
    ClaimAll { workspace: usize, worker: usize },
    /// A worker, alive or not, reports on one of the claims that were ever made.
    Complete { claim: usize, report: Report, proof: Proof },
    /// A worker gives a claim back.
    Release { claim: usize },
    /// A person retries an event.
    Retry { event: usize },
    /// A worker reconciles, with a report of what its data plane runs or without one.
    Reconcile { workspace: usize, reports: bool },
    /// The same for the slots of users.
    FullSync { workspace: usize },
    /// The data plane forgets what it runs.
    Wipe { workspace: usize },
    /// Time passes, and leases with it.
    Wait { seconds: u64 },
    /// A server looks for what time has brought about.
    Settle,
    /// A workspace comes to be.
    Create,
    /// A workspace goes out of service.
    Retire { workspace: usize },
}

/// What a worker says came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    Applied,
    Failed,
    Rejected,
    /// The data plane tried it and went back to what it ran before.
    WentBack,
}

/// How a worker shows that it holds the claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Proof {
    Token,
    Worker,
    Bare,
}

/// Lists of steps.
pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let index = || 0..1_000_usize;
    let worker = || 0..3_usize;
    let report = prop_oneof![
        5 => Just(Report::Applied),
        2 => Just(Report::Failed),
        1 => Just(Report::Rejected),
        1 => Just(Report::WentBack),
    ];
    let proof = prop_oneof![6 => Just(Proof::Token), 1 => Just(Proof::Worker), 1 => Just(Proof::Bare)];
    let op = prop_oneof![
        6 => (0..4_u8).prop_map(|content| Op::Trigger { content }),
        2 => (0..4_u8, index()).prop_map(|(content, workspace)| Op::TriggerOnly { content, workspace }),
        3 => (0..4_u8).prop_map(|content| Op::Put { content }),
        1 => Just(Op::TriggerGiven),
        1 => Just(Op::Delete),
        1 => (1..6_i64).prop_map(|version| Op::RollBack { version }),
        6 => index().prop_map(|workspace| Op::Poll { workspace }),
        9 => (index(), worker()).prop_map(|(event, worker)| Op::Claim { event, worker }),
        3 => (index(), worker()).prop_map(|(workspace, worker)| Op::ClaimAll { workspace, worker }),
        12 => (index(), report, proof)
            .prop_map(|(claim, report, proof)| Op::Complete { claim, report, proof }),
        2 => index().prop_map(|claim| Op::Release { claim }),
        2 => index().prop_map(|event| Op::Retry { event }),
        3 => (index(), any::<bool>()).prop_map(|(workspace, reports)| Op::Reconcile { workspace, reports }),
        1 => index().prop_map(|workspace| Op::FullSync { workspace }),
        1 => index().prop_map(|workspace| Op::Wipe { workspace }),
        5 => prop_oneof![Just(40_u64), Just(200), Just(700)].prop_map(|seconds| Op::Wait { seconds }),
        1 => Just(Op::Settle),
        1 => Just(Op::Create),
        1 => index().prop_map(|workspace| Op::Retire { workspace }),
    ];
    vec(op, 1..60)
}
