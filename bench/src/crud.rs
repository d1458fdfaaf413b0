//! Measure 16: projects, made one by one and listed among 100,000.

use std::time::{Duration, Instant};

use agentrouter_api::common::PageRequest;
use agentrouter_api::tenancy as pb;
use agentrouter_api::tenancy::projects_service_client::ProjectsServiceClient;
use agentrouter_storage::{Db, Engine, Sql, query};
use anyhow::Result;
use tokio::task::JoinSet;

use crate::bars;
use crate::bench::{Bench, Site};
use crate::fleet::{Fleet, UNAUDITED};
use crate::server::{self, Api};
use crate::stats::{Millis, Rates, figure};

const PAGE: i32 = 100;
const CALLERS: usize = 8;

pub(crate) async fn run(bench: &Bench<'_>) -> Result<()> {
    let projects = bench.size(100_000, 2_000);
    let site = bench.site().await?;
    let fleet = Fleet::new(site.db(), "crud", 1).await?;
    fill(site.db(), &fleet, projects).await?;
    let api = server::api(site.running.address, &fleet.admin_key(&site.api).await?).await?;
    let walks = [
        ("unfiltered", ""),
        ("every second one, by label", "labels.half = \"1\""),
        ("every thousandth one, by label", "labels.mille = \"1\""),
        ("by text in the name", "display_name:\"7\""),
    ];
    for (index, (title, filter)) in walks.into_iter().enumerate() {
        let took = walk(&api, &fleet, filter).await?;
        let tenth = (took.len() / 10).max(1);
        let first = Millis::new(took.iter().take(tenth).copied());
        let last = Millis::new(took.iter().rev().take(tenth).copied());
        let flat = last.p50() / first.p50();
        let all = Millis::new(took);
        bench.line(
            "crud",
            format_args!(
                "ListProjects, pages of {PAGE} of {projects}, {title}: {all}; the last tenth takes \
                     {flat:.2} of the first"
            ),
        );
        if index < 2 {
            bench.judge(&bars::LIST, all.p99());
            bench.judge(&bars::LIST_FLAT, flat);
        }
    }
    create(bench, &site, &fleet).await?;
    drop(api);
    site.close(bench).await
}

async fn fill(db: &Db, fleet: &Fleet, projects: i64) -> Result<()> {
    const PROJECTS: Sql = Sql::Each {
        sqlite: "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < $2) \
             INSERT INTO projects (id, customer_id, slug, display_name, description, labels, is_default, revision, created_at, updated_at) \
             SELECT randomblob(16), $1, 'project-' || i, 'Project ' || i, '', \
                 '{\"half\":\"' || (i % 2) || '\",\"mille\":\"' || (i % 1000) || '\"}', FALSE, 1, :now + i, :now + i FROM n",
        postgres: "INSERT INTO projects (id, customer_id, slug, display_name, description, labels, is_default, revision, created_at, updated_at) \
             SELECT gen_random_uuid(), $1, 'project-' || i, 'Project ' || i, '', \
                 '{\"half\":\"' || (i % 2) || '\",\"mille\":\"' || (i % 1000) || '\"}', FALSE, 1, :now + i, :now + i \
             FROM generate_series(1, $2) AS n (i)",
    };
    let mut tx = db.begin().await?;
    query(PROJECTS).bind(fleet.customer).bind(projects).execute(&mut tx).await?;
    if db.engine() == Engine::Postgres {
        query("ANALYZE projects").execute(&mut tx).await?;
    }
    Ok(tx.commit_unaudited(UNAUDITED).await?)
}

/// Reads all pages; returns how long each took.
async fn walk(api: &Api, fleet: &Fleet, filter: &str) -> Result<Vec<Duration>> {
    let mut client = ProjectsServiceClient::new(api.clone());
    let (mut took, mut page_token) = (Vec::new(), String::new());
    loop {
        let page =
            PageRequest { page_size: PAGE, page_token, filter: filter.to_owned(), ..Default::default() };
        let request = pb::ListProjectsRequest {
            customer_id: fleet.slug.clone(),
            page: Some(page),
            ..Default::default()
        };
        let started = Instant::now();
        let answer = client.list_projects(request).await?.into_inner();
        took.push(started.elapsed());
        page_token = answer.page.unwrap_or_default().next_page_token;
        if page_token.is_empty() {
            return Ok(took);
        }
    }
}

/// Makes projects with several callers at once.
async fn create(bench: &Bench<'_>, site: &Site, fleet: &Fleet) -> Result<()> {
    let each = bench.size(100, 5);
    let key = fleet.admin_key(&site.api).await?;
    let (mut rates, mut took) = (Vec::new(), Vec::new());
    for run in 0..5 {
        let mut callers = JoinSet::new();
        let started = Instant::now();
        for caller in 0..CALLERS {
            let mut client = ProjectsServiceClient::new(server::api(site.running.address, &key).await?);
            let customer_id = fleet.slug.clone();
            callers.spawn(async move {
                let mut took = Vec::new();
                for index in 0..each {
                    let request = pb::CreateProjectRequest {
                        customer_id: customer_id.clone(),
                        project_id: format!("new-{run}-{caller}-{index}"),
                        ..Default::default()
                    };
                    let started = Instant::now();
                    client.create_project(request).await?;
                    took.push(started.elapsed());
                }
                anyhow::Ok(took)
            });
        }
        let done: Result<Vec<_>> = callers.join_all().await.into_iter().collect();
        took.extend(done?.concat());
        rates.push(figure(CALLERS * each) / started.elapsed().as_secs_f64());
    }
    bench.line(
        "crud",
        format_args!(
            "CreateProject, audited and idempotent, {CALLERS} callers: {}/s; {}; anchor: Zitadel \
                 publishes 1,806 iterations/s, on far more hardware",
            Rates::new(rates),
            Millis::new(took)
        ),
    );
    Ok(())
}
