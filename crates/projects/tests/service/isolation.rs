//! Two customers with the same slugs.

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::Principal;
use agentrouter_testkit::{TestDb, admin, call, refused, request, session, violations};
use tonic::{Code, Response, Status};

use crate::{World, by, create, identity, not_found};

agentrouter_testkit::on_both_engines!(
    the_same_slugs_are_different_projects,
    nothing_reaches_another_customer,
    row_ids_of_another_customer_are_missing,
    the_customer_header_must_agree_with_the_path,
);

/// The outcome of every call, by name.
async fn everything(
    world: &World,
    caller: &Principal,
    customer: &str,
    project: &str,
    identity: &str,
) -> Vec<(&'static str, Result<(), Status>)> {
    let (customer_id, project_id) = (customer.to_owned(), project.to_owned());
    let identity_id = identity.to_owned();
    macro_rules! outcomes {
        ($($method:ident($message:expr);)*) => {
            vec![$((stringify!($method), world.projects.$method(by(caller, $message)).await.map(|_| ()))),*]
        };
    }
    outcomes! {
        get_project(pb::GetProjectRequest { customer_id: customer_id.clone(), project_id: project_id.clone() });
        update_project(pb::UpdateProjectRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
            display_name: Some("mine now".into()),
            ..Default::default()
        });
        archive_project(pb::ArchiveProjectRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
            etag: String::new(),
        });
        undelete_project(pb::UndeleteProjectRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
        });
        purge_project(pb::PurgeProjectRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
        });
        add_project_member(pb::AddProjectMemberRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
            identity_id: identity_id.clone(),
            role: "admin".into(),
        });
        list_project_members(pb::ListProjectMembersRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
            page: None,
        });
        update_project_member(pb::UpdateProjectMemberRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
            identity_id: identity_id.clone(),
            role: "admin".into(),
            etag: String::new(),
        });
        remove_project_member(pb::RemoveProjectMemberRequest {
            customer_id: customer_id.clone(),
            project_id: project_id.clone(),
            identity_id: identity_id.clone(),
            etag: String::new(),
        });
    }
}

async fn the_same_slugs_are_different_projects(db: TestDb) {
    let world = World::new(db).await;
    let mine = world.create("alpha").await;
    let other = world.db.customer("other").await;
    let caller = admin(other, "other");
    let message = pb::CreateProjectRequest { customer_id: "other".into(), ..create("alpha") };
    let theirs = world.projects.create_project(by(&caller, message)).await.unwrap().into_inner();
    assert_ne!(theirs.id, mine.id);
    assert_eq!(theirs.customer_id, "other");
    let message = pb::ListProjectsRequest { customer_id: "other".into(), page: None, show_deleted: true };
    let listed = world.projects.list_projects(by(&caller, message)).await.unwrap().into_inner();
    assert_eq!(listed.projects, [theirs]);
    world.archive(&world.admin, "alpha").await.unwrap();
    let message = pb::GetProjectRequest { customer_id: "other".into(), project_id: "alpha".into() };
    let found = world.projects.get_project(by(&caller, message)).await.unwrap().into_inner();
    assert_eq!(found.state(), pb::ProjectState::Active);
}

async fn nothing_reaches_another_customer(db: TestDb) {
    let world = World::new(db).await;
    let mine = world.create("alpha").await;
    let person = world.member("alpha", "Ada", "admin").await;
    let members = world.roles("alpha").await;
    let other = world.db.customer("other").await;
    let stranger = world.db.identity(other, "Eve").await;
    for caller in [admin(other, "other"), session(other, "other", stranger, None)] {
        for customer in ["acme".to_owned(), world.customer.to_string(), "nobody".to_owned()] {
            let person = identity(&person).to_string();
            for (name, outcome) in everything(&world, &caller, &customer, "alpha", &person).await {
                let refusal = refused(outcome.map(Response::new));
                assert_eq!(refusal, not_found("CUSTOMER_NOT_FOUND"), "{name}");
            }
            let message = pb::CreateProjectRequest { customer_id: customer.clone(), ..create("mine") };
            let refusal = refused(world.projects.create_project(by(&caller, message)).await);
            assert_eq!(refusal, not_found("CUSTOMER_NOT_FOUND"));
            let message = pb::ListProjectsRequest { customer_id: customer, ..Default::default() };
            let refusal = refused(world.projects.list_projects(by(&caller, message)).await);
            assert_eq!(refusal, not_found("CUSTOMER_NOT_FOUND"));
        }
    }
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), mine);
    assert_eq!(world.roles("alpha").await, members);
}

async fn row_ids_of_another_customer_are_missing(db: TestDb) {
    let world = World::new(db).await;
    let mine = world.create("alpha").await;
    let person = world.member("alpha", "Ada", "admin").await;
    let other = world.db.customer("other").await;
    let own = world.db.identity(other, "Eve").await;
    // Named under the caller's own customer.
    for identity in [identity(&person).to_string(), own.to_string()] {
        for (name, outcome) in everything(&world, &admin(other, "other"), "other", &mine.id, &identity).await
        {
            let refusal = refused(outcome.map(Response::new));
            assert_eq!(refusal, not_found("PROJECT_NOT_FOUND"), "{name}");
        }
    }
    assert_eq!(world.get(&world.admin, "alpha").await.unwrap().into_inner(), mine);
    assert_eq!(world.count("SELECT COUNT(*) AS value FROM project_members").await, 1);
}

async fn the_customer_header_must_agree_with_the_path(db: TestDb) {
    let world = World::new(db).await;
    world.create("alpha").await;
    let other = world.db.customer("other").await;
    let caller = agentrouter_testkit::operator(other, "other");
    for (header, agrees) in [("acme", true), ("other", false)] {
        let mut call = call(&caller);
        call.customer_header = Some(header.to_owned());
        let message = pb::GetProjectRequest { customer_id: "acme".into(), project_id: "alpha".into() };
        let result = world.projects.get_project(request(call, message)).await;
        if agrees {
            assert_eq!(result.unwrap().into_inner().project_id, "alpha");
        } else {
            assert_eq!(violations(result), ["x-agentrouter-customer"]);
        }
    }
    let message = pb::GetProjectRequest { customer_id: "nobody".into(), project_id: "alpha".into() };
    let refusal = refused(world.projects.get_project(by(&caller, message)).await);
    assert_eq!(refusal, (Code::NotFound, "CUSTOMER_NOT_FOUND".to_owned()));
}
