//! First starts that end before they have begun: whatever is half done then must not be in the way of the next one.

use std::time::{Duration, Instant};

use agentrouter_api::tenancy::projects_service_client::ProjectsServiceClient;
use agentrouter_api::tenancy::tenancy_service_client::TenancyServiceClient;
use agentrouter_api::tenancy::{GetProjectRequest, ListCustomersRequest};
use agentrouter_api::workspaces::GetWorkspaceRequest;
use agentrouter_api::workspaces::workspaces_service_client::WorkspacesServiceClient;
use agentrouter_storage::Target;
use agentrouter_testkit::TestDb;

use crate::common::program::{Program, Settings};

const BIRTHS: u32 = 6;
const KILLS: u32 = 5;

/// The key-encryption key and the operator key are made by the server itself here, so files are part of it.
pub(crate) async fn first_starts_that_are_cut_short(mut db: TestDb) {
    let mut rng = fastrand::Rng::new();
    let mut takes = Duration::from_millis(200);
    for _ in 0..BIRTHS {
        db.db.close().await;
        let data_dir = tempfile::tempdir().unwrap();
        let mut settings = Settings::new(data_dir.path(), &db.target);
        settings.environment.clear();
        for _ in 0..KILLS {
            let program = Program::spawn(&settings);
            tokio::time::sleep(takes.mul_f64(rng.f64())).await;
            program.kill().await;
        }
        let began = Instant::now();
        let program = Program::start(&settings).await;
        takes = began.elapsed();
        is_whole(&program, &settings).await;
        program.stop().await;
        db = match db.target {
            Target::Sqlite(_) => agentrouter_testkit::sqlite().await,
            Target::Postgres(_) => agentrouter_testkit::postgres().await,
        };
    }
}

/// The one moment that kills hardly ever meet: the key is written, and nothing is committed.
pub(crate) async fn a_key_that_was_written_but_not_stored_is_used(db: TestDb) {
    db.db.close().await;
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    settings.environment.clear();
    let file = data_dir.path().join("operator-key");
    let key = agentrouter_identity::keys::generate_key().unwrap();
    std::fs::write(&file, format!("{}\n", key.expose())).unwrap();
    let program = Program::start(&settings).await;
    is_whole(&program, &settings).await;
    program.stop().await;
    assert_eq!(std::fs::read_to_string(file).unwrap().trim(), key.expose());
}

/// One customer with its project and its workspace, and one key that opens it all.
async fn is_whole(program: &Program, settings: &Settings) {
    let key = std::fs::read_to_string(settings.data_dir.join("operator-key")).unwrap();
    let api = program.api(key.trim());
    let customers =
        TenancyServiceClient::new(api.clone()).list_customers(ListCustomersRequest::default()).await;
    let customers = customers.unwrap().into_inner().customers;
    assert_eq!(
        customers.iter().map(|customer| customer.customer_id.as_str()).collect::<Vec<_>>(),
        ["default"]
    );
    let (customer_id, name) = ("default".to_owned(), "default".to_owned());
    let project = GetProjectRequest { customer_id: customer_id.clone(), project_id: name.clone() };
    ProjectsServiceClient::new(api.clone()).get_project(project).await.unwrap();
    let workspace = GetWorkspaceRequest { customer_id, workspace_id: name };
    WorkspacesServiceClient::new(api).get_workspace(workspace).await.unwrap();
}
