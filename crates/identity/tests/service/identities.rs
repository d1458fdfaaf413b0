//! IdentitiesService: everything but the deletion.

use agentrouter_api::common::PageRequest;
use agentrouter_api::identity as pb;
use agentrouter_api::identity::identities_service_server::IdentitiesService;
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, admin, on_both_engines, refused, violations};
use prost_types::FieldMask;
use tokio::task::JoinSet;
use tonic::{Code, Response, Status};

use crate::{World, by};

on_both_engines!(
    an_identity_is_created_and_found,
    every_violation_is_reported_at_once,
    an_address_belongs_to_one_identity_of_a_customer,
    racing_creations_share_no_address,
    updates_set_clear_and_leave,
    a_stale_etag_changes_nothing,
    identities_of_another_customer_do_not_exist,
    lists_filter_and_order,
);

fn create(customer: &str, display_name: &str, email: &str) -> pb::CreateIdentityRequest {
    pb::CreateIdentityRequest {
        customer_id: customer.to_owned(),
        display_name: display_name.to_owned(),
        email: email.to_owned(),
        ..Default::default()
    }
}

fn update(id: &str) -> pb::UpdateIdentityRequest {
    pb::UpdateIdentityRequest {
        customer_id: "acme".to_owned(),
        identity_id: id.to_owned(),
        ..Default::default()
    }
}

async fn created(world: &World, message: pb::CreateIdentityRequest) -> pb::Identity {
    world.identities.create_identity(by(&world.operator, message)).await.unwrap().into_inner()
}

async fn updated(
    world: &World,
    message: pb::UpdateIdentityRequest,
) -> Result<Response<pb::Identity>, Status> {
    world.identities.update_identity(by(&world.operator, message)).await
}

async fn found(
    world: &World,
    caller: &Principal,
    customer: &str,
    id: &str,
) -> Result<Response<pb::Identity>, Status> {
    let message = pb::GetIdentityRequest { customer_id: customer.to_owned(), identity_id: id.to_owned() };
    world.identities.get_identity(by(caller, message)).await
}

async fn an_identity_is_created_and_found(test: TestDb) {
    let world = World::new(test).await;
    let ada = created(&world, create("acme", "Ada", "ada@example.com")).await;
    assert!(ada.id.starts_with("id_"));
    assert!(ada.created_at.is_some());
    assert_eq!(
        ada,
        pb::Identity {
            id: ada.id.clone(),
            customer_id: "acme".to_owned(),
            display_name: "Ada".to_owned(),
            email: "ada@example.com".to_owned(),
            kind: pb::IdentityKind::Person.into(),
            created_at: ada.created_at,
            updated_at: ada.created_at,
            etag: ada.etag.clone(),
            external_subjects: Vec::new(),
        }
    );
    assert_eq!(found(&world, &world.operator, "acme", &ada.id).await.unwrap().into_inner(), ada);
    let service =
        pb::CreateIdentityRequest { kind: pb::IdentityKind::Service.into(), ..create("acme", "", "") };
    let service = created(&world, service).await;
    assert_eq!((service.kind(), service.display_name.as_str()), (pb::IdentityKind::Service, ""));
    let never = "id_01K9ZZZZZZZZZZZZZZZZZZZZZZ";
    let missing = refused(found(&world, &world.operator, "acme", never).await);
    assert_eq!(missing, (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned()));
}

async fn every_violation_is_reported_at_once(test: TestDb) {
    let world = World::new(test).await;
    let wrong = pb::CreateIdentityRequest { kind: 7, ..create("acme", &"x".repeat(256), "ada") };
    let answer = world.identities.create_identity(by(&world.operator, wrong)).await;
    assert_eq!(violations(answer), ["display_name", "email", "kind"]);
    let wrong = pb::UpdateIdentityRequest {
        display_name: Some("x\u{0}".to_owned()),
        email: Some("a b@c".to_owned()),
        update_mask: Some(FieldMask { paths: vec!["*".to_owned(), "kind".to_owned()] }),
        ..update("ada")
    };
    assert_eq!(
        violations(updated(&world, wrong).await),
        ["identity_id", "update_mask", "display_name", "email"]
    );
    assert_eq!(violations(found(&world, &world.operator, "acme", "").await), ["identity_id"]);
}

async fn an_address_belongs_to_one_identity_of_a_customer(test: TestDb) {
    let world = World::new(test).await;
    let ada = created(&world, create("acme", "Ada", "ada@example.com")).await;
    let taken = (Code::AlreadyExists, "IDENTITY_ALREADY_EXISTS".to_owned());
    let again = create("acme", "Another", "ada@example.com");
    assert_eq!(refused(world.identities.create_identity(by(&world.operator, again)).await), taken);
    created(&world, create("other", "Ada", "ada@example.com")).await;
    // Any number of identities have none.
    let [first, second] =
        [created(&world, create("acme", "", "")).await, created(&world, create("acme", "", "")).await];
    let rename = |id: &str, email: &str| pb::UpdateIdentityRequest {
        email: Some(email.to_owned()),
        display_name: Some("renamed".to_owned()),
        ..update(id)
    };
    assert_eq!(refused(updated(&world, rename(&first.id, "ada@example.com")).await), taken);
    assert_eq!(found(&world, &world.operator, "acme", &first.id).await.unwrap().into_inner(), first);
    updated(&world, rename(&ada.id, "countess@example.com")).await.unwrap();
    updated(&world, rename(&second.id, "ada@example.com")).await.unwrap();
    updated(&world, rename(&second.id, "")).await.unwrap();
}

async fn racing_creations_share_no_address(test: TestDb) {
    let world = World::new(test).await;
    let renamed = created(&world, create("acme", "", "")).await;
    let mut calls = JoinSet::new();
    for index in 0..6 {
        let (service, caller, id) = (world.identities.clone(), world.operator.clone(), renamed.id.clone());
        calls.spawn(async move {
            if index == 0 {
                let message =
                    pb::UpdateIdentityRequest { email: Some("ada@example.com".to_owned()), ..update(&id) };
                return service.update_identity(by(&caller, message)).await;
            }
            service.create_identity(by(&caller, create("acme", "", "ada@example.com"))).await
        });
    }
    let (won, lost): (Vec<_>, Vec<_>) = calls.join_all().await.into_iter().partition(Result::is_ok);
    assert_eq!((won.len(), lost.len()), (1, 5));
    for answer in lost {
        assert_eq!(refused(answer), (Code::AlreadyExists, "IDENTITY_ALREADY_EXISTS".to_owned()));
    }
}

async fn updates_set_clear_and_leave(test: TestDb) {
    let world = World::new(test).await;
    let ada = created(&world, create("acme", "Ada", "ada@example.com")).await;
    let mask =
        |paths: &[&str]| Some(FieldMask { paths: paths.iter().map(|&path| path.to_owned()).collect() });
    let renamed = pb::UpdateIdentityRequest { display_name: Some("Countess".to_owned()), ..update(&ada.id) };
    let renamed = updated(&world, renamed).await.unwrap().into_inner();
    assert_eq!((renamed.display_name.as_str(), renamed.email.as_str()), ("Countess", "ada@example.com"));
    assert_ne!(renamed.etag, ada.etag);
    assert_eq!(renamed.created_at, ada.created_at);

    let cleared = pb::UpdateIdentityRequest {
        display_name: Some("ignored".to_owned()),
        update_mask: mask(&["email", "id", "etag", "created_at", "customer_id"]),
        ..update(&ada.id)
    };
    let cleared = updated(&world, cleared).await.unwrap().into_inner();
    assert_eq!((cleared.display_name.as_str(), cleared.email.as_str()), ("Countess", ""));
    // Nothing to change: nothing changes.
    assert_eq!(updated(&world, update(&ada.id)).await.unwrap().into_inner(), cleared);
    let same = pb::UpdateIdentityRequest { display_name: Some("Countess".to_owned()), ..update(&ada.id) };
    assert_eq!(updated(&world, same).await.unwrap().into_inner(), cleared);
}

// Behaviour 42: a stale etag keeps an identity from being changed.
async fn a_stale_etag_changes_nothing(test: TestDb) {
    let world = World::new(test).await;
    let ada = created(&world, create("acme", "Ada", "")).await;
    let rename = |etag: &str, name: &str| pb::UpdateIdentityRequest {
        display_name: Some(name.to_owned()),
        etag: etag.to_owned(),
        ..update(&ada.id)
    };
    let second = updated(&world, rename(&ada.etag, "second")).await.unwrap().into_inner();
    for etag in [ada.etag.as_str(), "r99", "nonsense"] {
        let stale = (Code::Aborted, "ETAG_MISMATCH".to_owned());
        assert_eq!(refused(updated(&world, rename(etag, "third")).await), stale);
        let delete = pb::DeleteIdentityRequest {
            customer_id: "acme".to_owned(),
            identity_id: ada.id.clone(),
            etag: etag.to_owned(),
        };
        assert_eq!(refused(world.identities.delete_identity(by(&world.operator, delete)).await), stale);
    }
    assert_eq!(found(&world, &world.operator, "acme", &ada.id).await.unwrap().into_inner(), second);
}

async fn identities_of_another_customer_do_not_exist(test: TestDb) {
    let world = World::new(test).await;
    let ada = created(&world, create("acme", "Ada", "")).await;
    let stranger = admin(world.other, "other");
    let gone = (Code::NotFound, "IDENTITY_NOT_FOUND".to_owned());
    assert_eq!(refused(found(&world, &stranger, "other", &ada.id).await), gone);
    let rename = pb::UpdateIdentityRequest {
        customer_id: "other".to_owned(),
        display_name: Some("theirs".to_owned()),
        ..update(&ada.id)
    };
    assert_eq!(refused(world.identities.update_identity(by(&stranger, rename)).await), gone);
    let delete = |customer: &str| pb::DeleteIdentityRequest {
        customer_id: customer.to_owned(),
        identity_id: ada.id.clone(),
        etag: String::new(),
    };
    assert_eq!(refused(world.identities.delete_identity(by(&stranger, delete("other"))).await), gone);
    let foreign = refused(world.identities.delete_identity(by(&stranger, delete("acme"))).await);
    assert_eq!(foreign, (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
    let message = pb::ListIdentitiesRequest { customer_id: "other".to_owned(), page: None };
    let listed = world.identities.list_identities(by(&stranger, message)).await.unwrap().into_inner();
    assert_eq!(listed.identities, []);
    assert_eq!(found(&world, &world.operator, "acme", &ada.id).await.unwrap().into_inner(), ada);
}

async fn lists_filter_and_order(test: TestDb) {
    let world = World::new(test).await;
    for (name, email) in [("Ada", "ada@a.example"), ("Bob", "bob@b.example"), ("Cy", "cy@a.example")] {
        created(&world, create("acme", name, email)).await;
    }
    let list = async |filter: &str, order_by: &str, page_size, page_token: &str| {
        let page = PageRequest {
            page_size,
            page_token: page_token.to_owned(),
            filter: filter.to_owned(),
            order_by: order_by.to_owned(),
        };
        let message = pb::ListIdentitiesRequest { customer_id: "acme".to_owned(), page: Some(page) };
        world.identities.list_identities(by(&world.operator, message)).await
    };
    let names = |answer: &pb::ListIdentitiesResponse| {
        answer.identities.iter().map(|identity| identity.display_name.clone()).collect::<Vec<_>>()
    };
    let answer = list("email : \"@a.example\"", "email desc", 0, "").await.unwrap().into_inner();
    assert_eq!(names(&answer), ["Cy", "Ada"]);
    let first = list("", "", 2, "").await.unwrap().into_inner();
    assert_eq!(names(&first), ["Ada", "Bob"]);
    let token = first.page.unwrap().next_page_token;
    let last = list("", "", 2, &token).await.unwrap().into_inner();
    assert_eq!(names(&last), ["Cy"]);
    assert_eq!(last.page.unwrap().next_page_token, "");
    assert_eq!(
        violations(list("kind = person", "id", -1, "").await),
        ["page.page_size", "page.filter", "page.order_by"]
    );
    assert_eq!(violations(list("email = x", "", 2, &token).await), ["page.page_token"]);
}
