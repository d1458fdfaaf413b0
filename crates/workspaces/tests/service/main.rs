//! The service as a client meets it, on both engines.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a helper that fails fails its test")]

mod archive;
mod fleet;
mod lists;
mod races;
mod status;
mod tokens;
mod watch;
mod workspaces;

use std::collections::BTreeMap;
use std::sync::Arc;

use agentrouter_api::workspaces::workspaces_service_server::WorkspacesService;
use agentrouter_api::workspaces::{
    ArchiveWorkspaceRequest, ArchiveWorkspaceResponse, CreateWorkspaceRequest, GetWorkspaceRequest,
    UpdateWorkspaceRequest, Workspace,
};
use agentrouter_kernel::Principal;
use agentrouter_kernel::id::{Customer, Id};
use agentrouter_storage::query;
use agentrouter_testkit::{TestDb, admin, call, request};
use agentrouter_workspaces::Workspaces;
use tonic::{Response, Status};

/// A customer with an admin.
struct Tenant<'a> {
    db: &'a TestDb,
    id: Id<Customer>,
    slug: &'static str,
    admin: Principal,
    service: Workspaces,
}

impl<'a> Tenant<'a> {
    async fn new(db: &'a TestDb, slug: &'static str) -> Self {
        let id = db.customer(slug).await;
        let service = Workspaces::new(db.deps(), Arc::new(tokens::Issuer));
        Self { db, id, slug, admin: admin(id, slug), service }
    }

    fn new_workspace(&self, workspace_id: &str) -> CreateWorkspaceRequest {
        CreateWorkspaceRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
            ..CreateWorkspaceRequest::default()
        }
    }

    /// An update that names no field yet.
    fn change(&self, workspace_id: &str) -> UpdateWorkspaceRequest {
        UpdateWorkspaceRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
            ..UpdateWorkspaceRequest::default()
        }
    }

    async fn create(&self, message: CreateWorkspaceRequest) -> Result<Response<Workspace>, Status> {
        self.service.create_workspace(request(call(&self.admin), message)).await
    }

    async fn created(&self, workspace_id: &str) -> Workspace {
        self.create(self.new_workspace(workspace_id)).await.unwrap().into_inner()
    }

    async fn get(&self, workspace_id: &str) -> Result<Response<Workspace>, Status> {
        let message =
            GetWorkspaceRequest { customer_id: self.slug.to_owned(), workspace_id: workspace_id.to_owned() };
        self.service.get_workspace(request(call(&self.admin), message)).await
    }

    async fn update(&self, message: UpdateWorkspaceRequest) -> Result<Response<Workspace>, Status> {
        self.service.update_workspace(request(call(&self.admin), message)).await
    }

    async fn archive(
        &self,
        workspace_id: &str,
        etag: &str,
    ) -> Result<Response<ArchiveWorkspaceResponse>, Status> {
        let message = ArchiveWorkspaceRequest {
            customer_id: self.slug.to_owned(),
            workspace_id: workspace_id.to_owned(),
            etag: etag.to_owned(),
        };
        self.service.archive_workspace(request(call(&self.admin), message)).await
    }

    /// Targets in the audit log, oldest first.
    async fn audited(&self) -> Vec<String> {
        const AUDITED: &str =
            "SELECT target AS value FROM audit_entries WHERE customer_id = $1 ORDER BY created_at, id";
        query(AUDITED).bind(self.id).values(&self.db.db).await.unwrap()
    }
}

fn labels(entries: &[(&str, &str)]) -> BTreeMap<String, String> {
    entries.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}
