//! The gRPC service: decode, call, encode.

use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_server::ProjectsService;
use agentrouter_kernel::Fault;
use agentrouter_rpc::convert::expected_revision;
use agentrouter_rpc::{Call, Deps, Write, into_status};
use tonic::{Request, Response, Status};

use crate::{access, convert, members, projects, store};

/// `agentrouter.tenancy.v1.ProjectsService`.
#[derive(Debug, Clone)]
pub struct Projects {
    deps: Deps,
}

impl Projects {
    /// The service.
    pub fn new(deps: Deps) -> Self {
        Self { deps }
    }

    async fn create(&self, call: Call, req: pb::CreateProjectRequest) -> Result<pb::Project, Fault> {
        let new = convert::new_project(&req)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let project = projects::create(write.tx(), customer.id, new).await?;
        write.commit(customer.id, project.id, convert::project(project, &customer.slug)).await
    }

    async fn get(&self, call: Call, req: pb::GetProjectRequest) -> Result<pb::Project, Fault> {
        convert::check_names(&req.customer_id, &req.project_id)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let project = access::read(&self.deps.db, call.principal()?, customer.id, &req.project_id).await?;
        Ok(convert::project(project, &customer.slug))
    }

    async fn list(
        &self,
        call: Call,
        req: pb::ListProjectsRequest,
    ) -> Result<pb::ListProjectsResponse, Fault> {
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let show_deleted = call.show_deleted(req.show_deleted)?;
        let list = call.list(&store::PROJECTS, req.page).bind(customer.id).bind(show_deleted);
        let (found, page) = list.fetch(&self.deps).await?;
        let found = found.into_iter().map(|project| convert::project(project, &customer.slug));
        Ok(pb::ListProjectsResponse { projects: found.collect(), page: Some(page) })
    }

    async fn update(&self, call: Call, req: pb::UpdateProjectRequest) -> Result<pb::Project, Fault> {
        let changes = convert::changes(&req)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let before = access::write(write.tx(), call.principal()?, customer.id, &req.project_id).await?;
        let expected = expected_revision(&req.etag);
        let project = projects::update(write.tx(), before, changes, expected).await?;
        write.commit(customer.id, project.id, convert::project(project, &customer.slug)).await
    }

    async fn archive(
        &self,
        call: Call,
        req: pb::ArchiveProjectRequest,
    ) -> Result<pb::ArchiveProjectResponse, Fault> {
        convert::check_names(&req.customer_id, &req.project_id)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let project = access::write(write.tx(), call.principal()?, customer.id, &req.project_id).await?;
        projects::archive(write.tx(), &project, expected_revision(&req.etag)).await?;
        write.commit(customer.id, project.id, pb::ArchiveProjectResponse {}).await
    }

    async fn undelete(&self, call: Call, req: pb::UndeleteProjectRequest) -> Result<pb::Project, Fault> {
        convert::check_names(&req.customer_id, &req.project_id)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let project = projects::undelete(write.tx(), customer.id, &req.project_id).await?;
        write.commit(customer.id, project.id, convert::project(project, &customer.slug)).await
    }

    async fn purge(
        &self,
        call: Call,
        req: pb::PurgeProjectRequest,
    ) -> Result<pb::PurgeProjectResponse, Fault> {
        convert::check_names(&req.customer_id, &req.project_id)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let purged = projects::purge(write.tx(), customer.id, &req.project_id).await?;
        write.commit(customer.id, purged, pb::PurgeProjectResponse {}).await
    }

    async fn add_member(
        &self,
        call: Call,
        req: pb::AddProjectMemberRequest,
    ) -> Result<pb::ProjectMember, Fault> {
        let names = (req.customer_id.as_str(), req.project_id.as_str());
        let (identity, role) = convert::grant(names, &req.identity_id, &req.role)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let project = access::write(write.tx(), call.principal()?, customer.id, &req.project_id).await?;
        let member = members::add(write.tx(), customer.id, &project, identity, role).await?;
        let answer = convert::member(&member, &customer.slug, &project.slug);
        write.commit(customer.id, member.id, answer).await
    }

    async fn list_members(
        &self,
        call: Call,
        req: pb::ListProjectMembersRequest,
    ) -> Result<pb::ListProjectMembersResponse, Fault> {
        convert::check_names(&req.customer_id, &req.project_id)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let project = access::read(&self.deps.db, call.principal()?, customer.id, &req.project_id).await?;
        let list = call.list(&store::MEMBERS, req.page).bind(project.id).bind(customer.id);
        let (found, page) = list.fetch(&self.deps).await?;
        let found = found.iter().map(|member| convert::member(member, &customer.slug, &project.slug));
        Ok(pb::ListProjectMembersResponse { members: found.collect(), page: Some(page) })
    }

    async fn update_member(
        &self,
        call: Call,
        req: pb::UpdateProjectMemberRequest,
    ) -> Result<pb::ProjectMember, Fault> {
        let names = (req.customer_id.as_str(), req.project_id.as_str());
        let (identity, role) = convert::grant(names, &req.identity_id, &req.role)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let (principal, expected) = (call.principal()?, expected_revision(&req.etag));
        let project = access::write(write.tx(), principal, customer.id, &req.project_id).await?;
        let member = members::update(write.tx(), principal, &project, identity, role, expected).await?;
        let answer = convert::member(&member, &customer.slug, &project.slug);
        write.commit(customer.id, member.id, answer).await
    }

    async fn remove_member(
        &self,
        call: Call,
        req: pb::RemoveProjectMemberRequest,
    ) -> Result<pb::RemoveProjectMemberResponse, Fault> {
        let names = (req.customer_id.as_str(), req.project_id.as_str());
        let identity = convert::membership(names, &req.identity_id)?;
        let customer = call.customer(&self.deps.db, &req.customer_id).await?;
        let mut write = Write::begin(&self.deps, &call, &req).await?;
        if let Some(answer) = write.replay()? {
            return Ok(answer);
        }
        let (principal, expected) = (call.principal()?, expected_revision(&req.etag));
        let project = access::write(write.tx(), principal, customer.id, &req.project_id).await?;
        let removed = members::remove(write.tx(), principal, &project, identity, expected).await?;
        write.commit(customer.id, removed, pb::RemoveProjectMemberResponse {}).await
    }
}

#[tonic::async_trait]
impl ProjectsService for Projects {
    async fn create_project(
        &self,
        request: Request<pb::CreateProjectRequest>,
    ) -> Result<Response<pb::Project>, Status> {
        let (call, req) = Call::open(request)?;
        self.create(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn get_project(
        &self,
        request: Request<pb::GetProjectRequest>,
    ) -> Result<Response<pb::Project>, Status> {
        let (call, req) = Call::open(request)?;
        self.get(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn list_projects(
        &self,
        request: Request<pb::ListProjectsRequest>,
    ) -> Result<Response<pb::ListProjectsResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.list(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn update_project(
        &self,
        request: Request<pb::UpdateProjectRequest>,
    ) -> Result<Response<pb::Project>, Status> {
        let (call, req) = Call::open(request)?;
        self.update(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn archive_project(
        &self,
        request: Request<pb::ArchiveProjectRequest>,
    ) -> Result<Response<pb::ArchiveProjectResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.archive(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn undelete_project(
        &self,
        request: Request<pb::UndeleteProjectRequest>,
    ) -> Result<Response<pb::Project>, Status> {
        let (call, req) = Call::open(request)?;
        self.undelete(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn purge_project(
        &self,
        request: Request<pb::PurgeProjectRequest>,
    ) -> Result<Response<pb::PurgeProjectResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.purge(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn add_project_member(
        &self,
        request: Request<pb::AddProjectMemberRequest>,
    ) -> Result<Response<pb::ProjectMember>, Status> {
        let (call, req) = Call::open(request)?;
        self.add_member(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn list_project_members(
        &self,
        request: Request<pb::ListProjectMembersRequest>,
    ) -> Result<Response<pb::ListProjectMembersResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.list_members(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn update_project_member(
        &self,
        request: Request<pb::UpdateProjectMemberRequest>,
    ) -> Result<Response<pb::ProjectMember>, Status> {
        let (call, req) = Call::open(request)?;
        self.update_member(call, req).await.map(Response::new).map_err(into_status)
    }

    async fn remove_project_member(
        &self,
        request: Request<pb::RemoveProjectMemberRequest>,
    ) -> Result<Response<pb::RemoveProjectMemberResponse>, Status> {
        let (call, req) = Call::open(request)?;
        self.remove_member(call, req).await.map(Response::new).map_err(into_status)
    }
}
