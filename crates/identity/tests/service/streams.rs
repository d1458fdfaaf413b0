//! Streams and the credentials that opened them, as another replica than the one that ends those sees it.

use std::time::Duration;

use agentrouter_identity::{issue_workspace_token, revoke_token};
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_rpc::enforce::UntilEnded;
use agentrouter_testkit::on_both_engines;
use tokio_util::sync::CancellationToken;

use super::*;

on_both_engines!(
    streams_end_with_what_is_revoked,
    streams_end_with_what_is_archived,
    streams_end_with_what_expires,
    streams_of_a_replaced_secret_end_and_those_of_the_new_one_go_on,
    a_credential_that_ended_before_its_stream_was_known_ends_it,
    all_streams_are_asked_for_at_once,
    a_worker_with_a_stream_needs_no_look_up,
);

/// Longer than an end may take, so that nothing but a stream that never ends is waited for that long.
const LONG: Duration = Duration::from_secs(20);

/// The statement that asks for all open streams.
const LOOK: &str = "SELECT t.id, t.expires_at";

/// Another replica, which ends its streams.
struct Replica {
    db: Db,
    authenticator: Arc<Authenticator>,
    stop: CancellationToken,
    jobs: JoinSet<()>,
    _usage: KeyUsage,
}

impl Replica {
    async fn start(test: &TestDb) -> Self {
        let db = test.reopen().await;
        let (authenticator, _, usage) = authenticator(test, &db).await;
        let (stop, mut jobs) = (CancellationToken::new(), JoinSet::new());
        let (job, job_stop) = (Arc::clone(&authenticator), stop.clone());
        jobs.spawn(async move { job.end_streams(&job_stop).await });
        Self { db, authenticator, stop, jobs, _usage: usage }
    }

    /// What the enforcement layer waits for beside a stream.
    async fn open(&self, token: &str) -> UntilEnded {
        let token = token.strip_prefix("ak-").unwrap_or(token);
        let caller = self.authenticator.authenticate(token).await.unwrap();
        self.authenticator.until_ended(token, &caller)
    }

    async fn stop(mut self) {
        self.stop.cancel();
        self.jobs.join_next().await.unwrap().unwrap();
    }
}

#[track_caller]
fn ends(stream: &mut UntilEnded) -> impl Future<Output = ()> {
    let place = std::panic::Location::caller();
    async move {
        assert!(tokio::time::timeout(LONG, stream).await.is_ok(), "{place}: the stream does not end");
    }
}

/// Asserts that a stream is still open. Comes after another one ended in the same look, or a later one.
async fn is_open(stream: &mut UntilEnded) {
    tokio::select! {
        biased;
        () = stream => panic!("the stream ended"),
        () = std::future::ready(()) => {}
    }
}

async fn workspace_token(world: &World, customer: Id<Customer>, slug: &str) -> (String, String) {
    let workspace = world.test.workspace(customer, slug).await;
    let mut tx = world.test.db.begin().await.unwrap();
    let issued = issue_workspace_token(&mut tx, &world.signing, customer, workspace).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    (issued.token.expose().to_owned(), issued.jti)
}

async fn change(db: &Db, statement: &'static str) {
    let mut tx = db.begin().await.unwrap();
    assert_eq!(query(statement).execute(&mut tx).await.unwrap(), 1);
    tx.commit_unaudited("test data").await.unwrap();
}

// Behaviour 45: streams of a revoked key, session or workspace token end on another replica, and no others do.
async fn streams_end_with_what_is_revoked(test: TestDb) {
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let identity = world.identity("acme", "").await;
    let viewer = world.key(&world.operator, key("acme", "viewer")).await;
    let maker = world.key(&world.operator, key("acme", "admin")).await;
    let caller = world.principal(&maker.key).await;
    let session = world.session(&caller, &identity, "viewer").await;
    let made_with_key = world.session(&caller, &identity, "viewer").await;
    let (token, jti) = workspace_token(&world, world.acme, "west").await;
    let (other, _) = workspace_token(&world, world.acme, "east").await;

    let (mut by_key, mut twice) = (replica.open(&viewer.key).await, replica.open(&viewer.key).await);
    let (mut by_session, mut by_token) = (replica.open(&session.token).await, replica.open(&token).await);
    let (mut by_made, mut by_other) = (replica.open(&made_with_key.token).await, replica.open(&other).await);
    let mut by_operator = replica.open(BOOTSTRAP).await;

    world.revoke_key(&world.operator, "acme", id_of(&viewer)).await.unwrap();
    ends(&mut by_key).await;
    ends(&mut twice).await;
    refuses(&replica.authenticator, &viewer.key).await;
    is_open(&mut by_session).await;
    is_open(&mut by_token).await;

    world.revoke_session(&world.operator, &session.session.unwrap().id).await.unwrap();
    ends(&mut by_session).await;
    refuses(&replica.authenticator, &session.token).await;

    let mut tx = world.test.db.begin().await.unwrap();
    let expires_at = tx.now().await.unwrap().plus(Duration::from_hours(1));
    revoke_token(&mut tx, world.acme, &jti, "key_1", "lost", expires_at).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    ends(&mut by_token).await;

    // A session ends with the key that it was made with.
    is_open(&mut by_made).await;
    world.revoke_key(&world.operator, "acme", id_of(&maker)).await.unwrap();
    ends(&mut by_made).await;
    is_open(&mut by_other).await;
    is_open(&mut by_operator).await;
    replica.stop().await;
}

// Behaviour 45: archiving a workspace or a customer ends the streams that their credentials opened, and no others.
async fn streams_end_with_what_is_archived(test: TestDb) {
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let admin = world.key(&world.operator, key("other", "admin")).await;
    let (west, _) = workspace_token(&world, world.other, "west").await;
    let (east, _) = workspace_token(&world, world.other, "east").await;
    let (mut by_west, mut by_east) = (replica.open(&west).await, replica.open(&east).await);
    let (mut by_admin, mut by_operator) = (replica.open(&admin.key).await, replica.open(BOOTSTRAP).await);
    change(&world.test.db, "UPDATE workspaces SET deleted_at = :now WHERE slug = 'west'").await;
    ends(&mut by_west).await;
    is_open(&mut by_east).await;
    change(&world.test.db, "UPDATE customers SET deleted_at = :now WHERE slug = 'other'").await;
    ends(&mut by_east).await;
    ends(&mut by_admin).await;
    is_open(&mut by_operator).await;
    replica.stop().await;
}

async fn streams_end_with_what_expires(test: TestDb) {
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let now = world.test.db.now().await.unwrap();
    let expiring = pb::CreateApiKeyRequest { expires_at: Some(in_an_hour(now)), ..key("acme", "viewer") };
    let expiring = world.key(&world.operator, expiring).await;
    let (token, _) = workspace_token(&world, world.acme, "west").await;
    let (mut by_key, mut by_token) = (replica.open(&expiring.key).await, replica.open(&token).await);
    replica.db.advance_clock(Duration::from_mins(61));
    ends(&mut by_key).await;
    is_open(&mut by_token).await;
    replica.db.advance_clock(Duration::from_hours(24 * 3650));
    ends(&mut by_token).await;
    replica.stop().await;
}

async fn streams_of_a_replaced_secret_end_and_those_of_the_new_one_go_on(test: TestDb) {
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let old = world.key(&world.operator, key("acme", "viewer")).await;
    let mut by_old = replica.open(&old.key).await;
    let rotated = world.rotate_key(&world.operator, "acme", id_of(&old), Duration::ZERO).await.unwrap();
    let mut by_new = replica.open(&rotated.into_inner().key).await;
    ends(&mut by_old).await;
    is_open(&mut by_new).await;
    replica.stop().await;
}

async fn a_credential_that_ended_before_its_stream_was_known_ends_it(test: TestDb) {
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let created = world.key(&world.operator, key("acme", "viewer")).await;
    // The layer authenticates first, and here much happens before it asks to be told.
    let caller = authenticate(&replica.authenticator, &created.key).await.unwrap();
    world.revoke_key(&world.operator, "acme", id_of(&created)).await.unwrap();
    let token = created.key.strip_prefix("ak-").unwrap();
    ends(&mut replica.authenticator.until_ended(token, &caller)).await;
    replica.stop().await;
}

async fn all_streams_are_asked_for_at_once(test: TestDb) {
    const STREAMS: usize = 50;
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let mut streams = Vec::with_capacity(STREAMS);
    for number in 0..STREAMS {
        let (token, _) = workspace_token(&world, world.acme, &format!("w-{number}")).await;
        streams.push(replica.open(&token).await);
    }
    let started = std::time::Instant::now();
    let mut statements = replica.db.statements();
    change(&world.test.db, "UPDATE workspaces SET deleted_at = :now WHERE slug = 'w-7'").await;
    ends(&mut streams[7]).await;
    // One in 800 ms, the one that is under way, and the one that has just begun.
    let looks = started.elapsed().as_millis() / 800 + 2;
    drop(streams.remove(7));
    for stream in &mut streams {
        is_open(stream).await;
    }
    let mut asked = 0;
    while let Ok(statement) = statements.try_recv() {
        let text = statement.query.text(replica.db.engine());
        assert!(text.starts_with(LOOK), "{text}");
        asked += 1;
    }
    assert!((1..=looks).contains(&asked), "{asked} statements in {looks} looks");
    replica.stop().await;
}

async fn a_worker_with_a_stream_needs_no_look_up(test: TestDb) {
    let world = World::new(test).await;
    let replica = Replica::start(&world.test).await;
    let (token, jti) = workspace_token(&world, world.acme, "edge").await;
    let mut stream = replica.open(&token).await;
    let mut statements = replica.db.statements();
    let needs_none = async {
        loop {
            // Nothing is remembered but what the next look confirms.
            replica.authenticator.forget();
            while !statements.recv().await.unwrap().query.text(replica.db.engine()).starts_with(LOOK) {}
            tokio::time::sleep(Duration::from_millis(100)).await;
            while statements.try_recv().is_ok() {}
            let caller = replica.authenticator.authenticate(&token).await.unwrap();
            assert_eq!(caller.workspace.unwrap().1, "edge");
            if statements.try_recv().is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(LONG, needs_none).await.unwrap();
    // And it is confirmed no longer than the token is good.
    let mut tx = world.test.db.begin().await.unwrap();
    let expires_at = tx.now().await.unwrap().plus(Duration::from_hours(1));
    revoke_token(&mut tx, world.acme, &jti, "key_1", "lost", expires_at).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    ends(&mut stream).await;
    assert!(replica.authenticator.authenticate(&token).await.is_err());
    replica.stop().await;
}
