//! A tenant cannot see, change or learn of another one.

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::tenancy_service_server::TenancyService;
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, admin, session, viewer};
use tonic::{Code, Status};

use crate::{World, archive, by, get, id_of};

agentrouter_testkit::on_both_engines!(
    foreign_customers_look_like_missing_ones,
    everybody_but_operators_lists_the_own_customer,
);

/// What a caller learns from a refusal, with the name it asked for left out.
fn seen(status: &Status, name: &str) -> (Code, String, Vec<u8>) {
    let details = String::from_utf8_lossy(status.details()).replace(name, "*").into_bytes();
    (status.code(), status.message().replace(name, "*"), details)
}

async fn foreign_customers_look_like_missing_ones(db: TestDb) {
    let world = World::new(db).await;
    let own = world.create("aaaa").await;
    let other = world.create("bbbb").await;
    let caller = admin(id_of(&own), "aaaa");
    for (foreign, missing) in [("bbbb", "cccc"), (other.id.as_str(), "cust_01K9ZZZZZZZZZZZZZZZZZZZZZZ")] {
        let mut answers = Vec::new();
        for name in [foreign, missing] {
            let update = pb::UpdateCustomerRequest {
                customer_id: name.into(),
                display_name: Some("mine now".into()),
                ..Default::default()
            };
            let refusals = [
                world.tenancy.get_customer(by(&caller, get(name))).await.unwrap_err(),
                world.tenancy.update_customer(by(&caller, update)).await.unwrap_err(),
                world.tenancy.archive_customer(by(&caller, archive(name))).await.unwrap_err(),
            ];
            for refusal in &refusals {
                assert_eq!(refusal.code(), Code::NotFound);
            }
            answers.push(refusals.map(|status| seen(&status, name)));
        }
        assert_eq!(answers[0], answers[1]);
    }
    assert_eq!(world.get("bbbb").await.unwrap().into_inner(), other);
}

async fn listed(world: &World, caller: &Principal, show_deleted: bool) -> Vec<String> {
    let message = pb::ListCustomersRequest { show_deleted, ..Default::default() };
    let answer = world.tenancy.list_customers(by(caller, message)).await.unwrap().into_inner();
    assert_eq!(answer.page.unwrap().next_page_token, "");
    answer.customers.into_iter().map(|customer| customer.customer_id).collect()
}

async fn everybody_but_operators_lists_the_own_customer(db: TestDb) {
    let world = World::new(db).await;
    let own = id_of(&world.create("aaaa").await);
    world.create("bbbb").await;
    world.create("gone").await;
    world.tenancy.archive_customer(by(&world.operator, archive("gone"))).await.unwrap();
    let person = world.db.identity(own, "Ada").await;
    assert_eq!(listed(&world, &world.operator, false).await, ["aaaa", "bbbb", "default"]);
    assert_eq!(listed(&world, &world.operator, true).await, ["aaaa", "bbbb", "default", "gone"]);
    assert_eq!(listed(&world, &admin(own, "aaaa"), false).await, ["aaaa"]);
    assert_eq!(listed(&world, &admin(own, "aaaa"), true).await, ["aaaa"]);
    assert_eq!(listed(&world, &viewer(own, "aaaa"), false).await, ["aaaa"]);
    assert_eq!(listed(&world, &session(own, "aaaa", person, None), false).await, ["aaaa"]);
    // A filter selects among them, and adds none.
    let page = agentrouter_api::common::PageRequest {
        filter: "customer_id = bbbb OR NOT customer_id = bbbb".into(),
        ..Default::default()
    };
    let message = pb::ListCustomersRequest { page: Some(page), show_deleted: false };
    let answer = world.tenancy.list_customers(by(&admin(own, "aaaa"), message)).await.unwrap().into_inner();
    assert_eq!(answer.customers.len(), 1);
    assert_eq!(answer.customers[0].customer_id, "aaaa");
}
