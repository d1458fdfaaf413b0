//! AuditService on both engines.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

use std::time::Duration;

use agentrouter_api::audit as pb;
use agentrouter_api::audit::audit_service_server::AuditService;
use agentrouter_api::common::PageRequest;
use agentrouter_audit::Audit;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_kernel::{Principal, Timestamp};
use agentrouter_storage::{AuditEntry, CallOrigin, audit, query};
use agentrouter_testkit::{TestDb, admin, call, operator, refused, request, session, viewer, violations};
use tonic::{Code, Response, Status};

agentrouter_testkit::on_both_engines!(
    an_entry_says_who_did_what,
    repeated_denials_share_an_entry,
    entries_come_newest_first,
    entries_of_one_moment_keep_their_order,
    filters_select,
    a_token_continues_its_own_list_only,
    a_page_names_every_violation,
    tenants_see_their_own_entries_only,
);

struct World {
    db: TestDb,
    audit: Audit,
    customer: Id<Customer>,
    caller: Principal,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let customer = db.customer("acme").await;
        Self { audit: Audit::new(db.deps()), caller: admin(customer, "acme"), customer, db }
    }

    fn entry(&self, action: &str, target: &str) -> AuditEntry {
        AuditEntry {
            customer: self.customer,
            action: action.to_owned(),
            target: target.to_owned(),
            origin: CallOrigin { request_id: format!("req-{target}"), peer: "192.0.2.1:5".to_owned() },
        }
    }

    async fn succeed(&self, caller: &Principal, action: &str, target: &str) {
        let tx = self.db.db.begin().await.unwrap();
        tx.commit(caller, self.entry(action, target)).await.unwrap();
    }

    async fn deny(&self, caller: &Principal, action: &str, target: &str) {
        audit::record_denial(&self.db.db, caller, &self.entry(action, target), "ROLE_REQUIRED")
            .await
            .unwrap();
    }

    async fn list(
        &self,
        caller: &Principal,
        customer: &str,
        page: PageRequest,
    ) -> Result<Response<pb::ListAuditEntriesResponse>, Status> {
        let message = pb::ListAuditEntriesRequest { customer_id: customer.to_owned(), page: Some(page) };
        self.audit.list_audit_entries(request(call(caller), message)).await
    }

    /// The targets on every page of a list.
    async fn targets(&self, filter: &str, order_by: &str, page_size: i32) -> Vec<String> {
        let mut targets = Vec::new();
        let mut page =
            PageRequest { page_size, filter: filter.into(), order_by: order_by.into(), ..Default::default() };
        loop {
            let answer = self.list(&self.caller, "acme", page.clone()).await.unwrap().into_inner();
            targets.extend(answer.audit_entries.into_iter().map(|entry| entry.target));
            page.page_token = answer.page.unwrap().next_page_token;
            if page.page_token.is_empty() {
                return targets;
            }
            assert!(targets.len() < 100, "the list does not end");
        }
    }
}

async fn an_entry_says_who_did_what(db: TestDb) {
    let world = World::new(db).await;
    let person = world.db.identity(world.customer, "Ada").await;
    let person = session(world.customer, "acme", person, None);
    world.succeed(&person, "project.create", "proj_1").await;
    world.db.db.advance_clock(Duration::from_secs(1));
    world.deny(&world.caller, "customer.create", "").await;

    let answer = world.list(&world.caller, "acme", PageRequest::default()).await.unwrap().into_inner();
    assert_eq!(answer.page.unwrap().next_page_token, "");
    let [denied, succeeded] = answer.audit_entries.try_into().unwrap();
    assert!(succeeded.id.starts_with("aud_01"), "{}", succeeded.id);
    assert!(succeeded.created_at.unwrap().seconds < denied.created_at.unwrap().seconds);
    let expected = pb::AuditEntry {
        id: succeeded.id.clone(),
        customer_id: "acme".into(),
        created_at: succeeded.created_at,
        actor_kind: "session".into(),
        actor_id: person.credential_id.clone(),
        identity_id: person.identity.unwrap().to_string(),
        action: "project.create".into(),
        target: "proj_1".into(),
        outcome: pb::AuditOutcome::Succeeded.into(),
        reason: String::new(),
        request_id: "req-proj_1".into(),
        peer: "192.0.2.1:5".into(),
        count: 1,
    };
    assert_eq!(succeeded, expected);
    let expected = pb::AuditEntry {
        id: denied.id.clone(),
        created_at: denied.created_at,
        actor_kind: "api_key".into(),
        actor_id: "key_admin".into(),
        identity_id: String::new(),
        action: "customer.create".into(),
        target: String::new(),
        outcome: pb::AuditOutcome::Denied.into(),
        reason: "ROLE_REQUIRED".into(),
        request_id: "req-".into(),
        ..expected
    };
    assert_eq!(denied, expected);
}

async fn repeated_denials_share_an_entry(db: TestDb) {
    let world = World::new(db).await;
    for _ in 0..3 {
        world.deny(&world.caller, "customer.create", "").await;
    }
    let answer = world.list(&world.caller, "acme", PageRequest::default()).await.unwrap().into_inner();
    let counts: Vec<_> = answer.audit_entries.iter().map(|entry| entry.count).collect();
    assert_eq!(counts, [3]);
}

/// Eleven entries `0` to `10`, a second apart; the odd ones denied.
async fn populated(db: TestDb) -> World {
    let world = World::new(db).await;
    let viewer = viewer(world.customer, "acme");
    for number in 0..11 {
        world.db.db.advance_clock(Duration::from_secs(1));
        if number % 2 == 0 {
            world.succeed(&world.caller, "customer.update", &number.to_string()).await;
        } else {
            world.deny(&viewer, "project.create", &number.to_string()).await;
        }
    }
    world
}

fn numbers(numbers: impl IntoIterator<Item = i32>) -> Vec<String> {
    numbers.into_iter().map(|number| number.to_string()).collect()
}

async fn entries_come_newest_first(db: TestDb) {
    let world = populated(db).await;
    for page_size in [1, 2, 3, 10, 11, 12, 0] {
        assert_eq!(world.targets("", "", page_size).await, numbers((0..11).rev()), "{page_size}");
        assert_eq!(world.targets("", "created_at", page_size).await, numbers(0..11), "{page_size}");
    }
}

async fn entries_of_one_moment_keep_their_order(db: TestDb) {
    let world = World::new(db).await;
    for number in 0..9 {
        world.succeed(&world.caller, "customer.update", &number.to_string()).await;
    }
    let mut tx = world.db.db.begin().await.unwrap();
    let now = tx.now().await.unwrap();
    query("UPDATE audit_entries SET created_at = $1").bind(now).execute(&mut tx).await.unwrap();
    tx.commit_unaudited("test data").await.unwrap();
    let whole = world.targets("", "", 50).await;
    assert_eq!(whole.len(), 9);
    for page_size in [1, 2, 4] {
        assert_eq!(world.targets("", "", page_size).await, whole, "{page_size}");
    }
    let mut reversed = world.targets("", "created_at", 2).await;
    reversed.reverse();
    assert_eq!(reversed, whole);
}

async fn filters_select(db: TestDb) {
    let world = populated(db).await;
    let all = world.list(&world.caller, "acme", PageRequest::default()).await.unwrap().into_inner();
    let time = all.audit_entries.iter().find(|entry| entry.target == "5").unwrap().created_at.unwrap();
    let time = Timestamp::from_micros(time.seconds * 1_000_000 + i64::from(time.nanos) / 1_000);
    for (filter, expected) in [
        ("action = customer.update", numbers([10, 8, 6, 4, 2, 0])),
        ("action : project", numbers([9, 7, 5, 3, 1])),
        ("outcome = AUDIT_OUTCOME_DENIED", numbers([9, 7, 5, 3, 1])),
        ("outcome != AUDIT_OUTCOME_DENIED AND target != 8", numbers([10, 6, 4, 2, 0])),
        ("actor_id = key_viewer", numbers([9, 7, 5, 3, 1])),
        ("actor_kind = session", numbers([])),
        ("target = 3 OR target = 4", numbers([4, 3])),
        ("request_id = req-7", numbers([7])),
        (&format!("created_at > \"{time}\""), numbers([10, 9, 8, 7, 6])),
        (&format!("created_at <= \"{time}\" AND outcome = AUDIT_OUTCOME_DENIED"), numbers([5, 3, 1])),
    ] {
        assert_eq!(world.targets(filter, "", 2).await, expected, "{filter}");
    }
}

async fn a_token_continues_its_own_list_only(db: TestDb) {
    let world = populated(db).await;
    let first = PageRequest { page_size: 2, filter: "action : project".into(), ..Default::default() };
    let answer = world.list(&world.caller, "acme", first.clone()).await.unwrap().into_inner();
    let next = PageRequest { page_token: answer.page.unwrap().next_page_token, ..first };
    for wrong in [
        PageRequest { filter: String::new(), ..next.clone() },
        PageRequest { order_by: "created_at".into(), ..next.clone() },
    ] {
        assert_eq!(violations(world.list(&world.caller, "acme", wrong).await), ["page.page_token"]);
    }
    let viewer = viewer(world.customer, "acme");
    assert_eq!(violations(world.list(&viewer, "acme", next.clone()).await), ["page.page_token"]);

    // Nor does it reach into another customer, where the caller may look there.
    let operator = operator(world.customer, "acme");
    let other = world.db.customer("other").await;
    let first = PageRequest { page_size: 2, ..Default::default() };
    let answer = world.list(&operator, "acme", first.clone()).await.unwrap().into_inner();
    let token = answer.page.unwrap().next_page_token;
    let moved = PageRequest { page_token: token.clone(), ..first.clone() };
    assert_eq!(violations(world.list(&operator, "other", moved.clone()).await), ["page.page_token"]);
    assert_eq!(violations(world.list(&operator, &other.to_string(), moved).await), ["page.page_token"]);
    // The two names of one customer are one list.
    let same = PageRequest { page_token: token, ..first };
    let answer = world.list(&operator, &world.customer.to_string(), same).await.unwrap().into_inner();
    let targets: Vec<_> = answer.audit_entries.into_iter().map(|entry| entry.target).collect();
    assert_eq!(targets, numbers([8, 7]));
}

async fn a_page_names_every_violation(db: TestDb) {
    let world = World::new(db).await;
    let page = PageRequest {
        page_size: -5,
        filter: "outcome = denied".into(),
        order_by: "action".into(),
        page_token: String::new(),
    };
    let fields = violations(world.list(&world.caller, "acme", page).await);
    assert_eq!(fields, ["page.page_size", "page.filter", "page.order_by"]);
    for filter in ["reason = X", "peer = 1", "action < a", "outcome : AUDIT_OUTCOME_DENIED", "created_at = x"]
    {
        let page = PageRequest { filter: filter.into(), ..Default::default() };
        assert_eq!(violations(world.list(&world.caller, "acme", page).await), ["page.filter"], "{filter}");
    }
    let fields = violations(world.list(&world.caller, "", PageRequest::default()).await);
    assert_eq!(fields, ["customer_id"]);
}

async fn tenants_see_their_own_entries_only(db: TestDb) {
    let world = populated(db).await;
    let other = world.db.customer("other").await;
    let caller = admin(other, "other");
    let own = world.list(&caller, "other", PageRequest::default()).await.unwrap().into_inner();
    assert_eq!(own.audit_entries, []);
    let missing = (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned());
    for name in ["acme", &world.customer.to_string(), "nobody"] {
        let page = PageRequest { filter: "target = 1 OR NOT target = 1".into(), ..Default::default() };
        assert_eq!(refused(world.list(&caller, name, page).await), missing, "{name}");
    }
    let seen = world.list(&operator(other, "other"), "acme", PageRequest::default()).await.unwrap();
    assert_eq!(seen.into_inner().audit_entries.len(), 11);
}
