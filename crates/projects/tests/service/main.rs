//! ProjectsService on both engines.

#![expect(clippy::unwrap_used, reason = "a test stops at what it did not expect")]

mod access;
mod archive;
mod isolation;
mod lists;
mod members;
mod projects;
mod writes;

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id, Identity};
use agentrouter_projects::Projects;
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, request, session};
use tonic::{Code, Request, Response, Status};

/// The customer `acme` with its default project, and one of its admins.
struct World {
    db: TestDb,
    projects: Projects,
    customer: Id<Customer>,
    admin: Principal,
}

impl World {
    async fn new(db: TestDb) -> Self {
        let customer = db.customer("acme").await;
        db.project(customer, "default", true).await;
        Self { projects: Projects::new(db.deps()), customer, admin: admin(customer, "acme"), db }
    }

    /// Creates a project through the API.
    async fn create(&self, slug: &str) -> pb::Project {
        let answer = self.projects.create_project(by(&self.admin, create(slug))).await;
        answer.unwrap().into_inner()
    }

    async fn get(&self, caller: &Principal, name: &str) -> Result<Response<pb::Project>, Status> {
        let message = pb::GetProjectRequest { customer_id: "acme".into(), project_id: name.into() };
        self.projects.get_project(by(caller, message)).await
    }

    /// A session, without a role, of a new identity.
    async fn person(&self, name: &str) -> Principal {
        let identity = self.db.identity(self.customer, name).await;
        session(self.customer, "acme", identity, None)
    }

    /// A session, without a role, of a new member of a project.
    async fn member(&self, project: &str, name: &str, role: &str) -> Principal {
        let person = self.person(name).await;
        self.add(&self.admin, project, &person, role).await.unwrap();
        person
    }

    async fn add(
        &self,
        caller: &Principal,
        project: &str,
        person: &Principal,
        role: &str,
    ) -> Result<Response<pb::ProjectMember>, Status> {
        self.projects.add_project_member(by(caller, add(project, identity(person), role))).await
    }

    async fn set_role(
        &self,
        caller: &Principal,
        project: &str,
        person: &Principal,
        role: &str,
    ) -> Result<Response<pb::ProjectMember>, Status> {
        let message = pb::UpdateProjectMemberRequest {
            customer_id: "acme".into(),
            project_id: project.into(),
            identity_id: identity(person).to_string(),
            role: role.into(),
            etag: String::new(),
        };
        self.projects.update_project_member(by(caller, message)).await
    }

    async fn remove(
        &self,
        caller: &Principal,
        project: &str,
        person: &Principal,
    ) -> Result<Response<pb::RemoveProjectMemberResponse>, Status> {
        let message = pb::RemoveProjectMemberRequest {
            customer_id: "acme".into(),
            project_id: project.into(),
            identity_id: identity(person).to_string(),
            etag: String::new(),
        };
        self.projects.remove_project_member(by(caller, message)).await
    }

    async fn list_members(
        &self,
        caller: &Principal,
        project: &str,
    ) -> Result<Response<pb::ListProjectMembersResponse>, Status> {
        let message = pb::ListProjectMembersRequest {
            customer_id: "acme".into(),
            project_id: project.into(),
            page: None,
        };
        self.projects.list_project_members(by(caller, message)).await
    }

    /// The members of a project as `<identity>: <role>`, oldest first.
    async fn roles(&self, project: &str) -> Vec<String> {
        let answer = self.list_members(&self.admin, project).await.unwrap().into_inner();
        answer.members.into_iter().map(|member| format!("{}: {}", member.identity_id, member.role)).collect()
    }

    async fn archive(
        &self,
        caller: &Principal,
        name: &str,
    ) -> Result<Response<pb::ArchiveProjectResponse>, Status> {
        self.projects.archive_project(by(caller, archive(name))).await
    }

    async fn undelete(&self, caller: &Principal, name: &str) -> Result<Response<pb::Project>, Status> {
        let message = pb::UndeleteProjectRequest { customer_id: "acme".into(), project_id: name.into() };
        self.projects.undelete_project(by(caller, message)).await
    }

    async fn purge(
        &self,
        caller: &Principal,
        name: &str,
    ) -> Result<Response<pb::PurgeProjectResponse>, Status> {
        let message = pb::PurgeProjectRequest { customer_id: "acme".into(), project_id: name.into() };
        self.projects.purge_project(by(caller, message)).await
    }

    /// Renames a project.
    async fn rename(
        &self,
        caller: &Principal,
        name: &str,
        display_name: &str,
    ) -> Result<Response<pb::Project>, Status> {
        let message = pb::UpdateProjectRequest { display_name: Some(display_name.into()), ..update(name) };
        self.projects.update_project(by(caller, message)).await
    }

    /// Counts rows with a statement that names its only column `value`.
    async fn count(&self, sql: &'static str) -> i64 {
        query(sql).value(&self.db.db).await.unwrap().unwrap()
    }
}

fn by<T>(caller: &Principal, message: T) -> Request<T> {
    request(call(caller), message)
}

fn by_with_key<T>(caller: &Principal, key: &str, message: T) -> Request<T> {
    let mut call = call(caller);
    call.idempotency_key = Some(key.to_owned());
    request(call, message)
}

fn create(slug: &str) -> pb::CreateProjectRequest {
    pb::CreateProjectRequest { customer_id: "acme".into(), project_id: slug.into(), ..Default::default() }
}

fn update(name: &str) -> pb::UpdateProjectRequest {
    pb::UpdateProjectRequest { customer_id: "acme".into(), project_id: name.into(), ..Default::default() }
}

fn archive(name: &str) -> pb::ArchiveProjectRequest {
    pb::ArchiveProjectRequest { customer_id: "acme".into(), project_id: name.into(), ..Default::default() }
}

fn add(project: &str, identity: Id<Identity>, role: &str) -> pb::AddProjectMemberRequest {
    pb::AddProjectMemberRequest {
        customer_id: "acme".into(),
        project_id: project.into(),
        identity_id: identity.to_string(),
        role: role.into(),
    }
}

fn identity(person: &Principal) -> Id<Identity> {
    person.identity.unwrap()
}

fn not_found(reason: &str) -> (Code, String) {
    (Code::NotFound, reason.to_owned())
}
