//! CPU time of a REST unary call, beside a hand-written axum handler that does the same work.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;

use agentrouter_kernel::SystemClock;
use agentrouter_storage::{Db, Limits, Target, query, row};
use anyhow::{Context, Result, ensure};
use axum::extract::{Path as UrlPath, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::task::JoinSet;

use crate::server::{KEY, Process, free_port};

const CONNECTIONS: u32 = 8;
const CALLS: u32 = 4_000;
const ROUNDS: usize = 5;
const PATH: &str = "/v1/customers/default";

pub(crate) async fn run() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let ours = Process::agentrouter(folder.path(), free_port()?)?;
    let client = reqwest::Client::new();
    ours.ready(&client, PATH).await?;
    let peer = Process::peer(folder.path().join("agentrouter.db"), free_port()?)?;
    peer.ready(&client, PATH).await?;
    // In turns, so that both see the same machine.
    let (mut left, mut right) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        left.push(micros_per_call(&ours, &client).await?);
        right.push(micros_per_call(&peer, &client).await?);
    }
    let (ours, by_hand) = (median(left), median(right));
    println!(
        "rest: CPU time of a GET by REST, medians of {ROUNDS}: {ours:.0} us here, {by_hand:.0} us by hand in axum; ratio {:.2}",
        by_hand / ours
    );
    Ok(())
}

async fn micros_per_call(process: &Process, client: &reqwest::Client) -> Result<f64> {
    let before = process.cpu_ticks()?;
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, url) = (client.clone(), format!("{}{PATH}", process.base_url));
        callers.spawn(async move {
            for _ in 0..CALLS {
                let answer = client.get(&url).bearer_auth(KEY).send().await?;
                ensure!(answer.status().is_success(), "{}", answer.status());
                ensure!(answer.bytes().await?.starts_with(b"{\"id\":\"cust_"), "another answer");
            }
            Ok(())
        });
    }
    callers.join_all().await.into_iter().collect::<Result<()>>()?;
    let ticks = u32::try_from(process.cpu_ticks()? - before)?;
    Ok(f64::from(ticks) * 10_000.0 / f64::from(CONNECTIONS * CALLS))
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

row! {
    #[derive(Serialize)]
    struct Answer {
        id: String,
        customer_id: String,
        display_name: String,
        description: String,
    }
}

/// Serves the hand-written handler: the same row, found and read the same way, as JSON by serde.
pub(crate) async fn peer(database: &Path) -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "how the benchmark tells its own child")]
    let port: u16 = std::env::var("PEER_PORT").context("PEER_PORT")?.parse()?;
    let db = Db::open(&Target::Sqlite(database.to_owned()), Limits::default(), Arc::new(SystemClock)).await?;
    let router = Router::new().route("/v1/customers/{customer_id}", get(customer)).with_state(db);
    let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    Ok(axum::serve(listener, router).await?)
}

async fn customer(State(db): State<Db>, UrlPath(slug): UrlPath<String>) -> Result<Json<Answer>, StatusCode> {
    const FIND: &str = "SELECT 'cust_' || hex(id) AS id, slug AS customer_id, display_name, description \
         FROM customers WHERE slug = $1 AND deleted_at IS NULL";
    let found = query(FIND).bind(slug).optional(&db).await.map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
    found.map(Json).ok_or(StatusCode::NOT_FOUND)
}
