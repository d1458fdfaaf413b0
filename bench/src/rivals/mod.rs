//! The gateway beside what it replaces: a handler written by hand, and other transcoders. One service, each server a
//! process of its own on one core, the client on another.

mod by_hand;
mod cores;
mod load;
mod orders;
mod ours;
mod rival;
mod table;

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::json;

use crate::report::Report;
use crate::server::Process;
use load::Exchange;
use rival::{Rival, Running};
use table::{Sample, Table};

pub(crate) use rival::Serve;

/// An order of about a kilobyte, with something of everything.
const ORDER: &str = include_str!("order.json");
const FIND: &str = "/v1/shops/shop-17/orders/9007199254740993?state=STATE_OPEN&limit=50&since=2026-11-29T06:00:00.123456Z&tags=express";

/// How much is measured.
struct Size {
    connections: usize,
    rounds: usize,
    /// One server under one kind of request.
    turn: Duration,
}

const FULL: Size = Size { connections: 32, rounds: 11, turn: Duration::from_millis(500) };
const QUICK: Size = Size { connections: 4, rounds: 1, turn: Duration::from_millis(20) };

pub(crate) async fn run(report: &Report, quick: bool) -> Result<()> {
    let size = if quick { QUICK } else { FULL };
    let folder = tempfile::tempdir()?;
    let client = reqwest::Client::new();
    let mut running = Vec::new();
    for rival in Rival::ALL {
        // Each has a folder, since some write files of the same names.
        let own = folder.path().join(rival.title());
        std::fs::create_dir(&own)?;
        let server = rival.start(&own).with_context(|| rival.title())?;
        server.process.ready(&client, FIND).await.with_context(|| rival.title())?;
        running.push(server);
    }
    let found = json!({
        "shop": "shop-17", "number": "9007199254740993", "state": "STATE_OPEN", "limit": 50,
        "since": "2026-11-29T06:00:00.123456Z", "tags": ["express"],
    });
    let exchanges = [Exchange::post("POST", "/v1/orders", ORDER.trim())?, Exchange::get("GET", FIND, found)];
    for server in &running {
        for exchange in &exchanges {
            exchange.check(server.process.address()).with_context(|| server.rival.title())?;
        }
    }
    report.line("rivals", "", format_args!("all {} answer the same", running.len()));
    let mut table = Table::default();
    for exchange in &exchanges {
        // In turns, so that all see the same machine; the first turn warms up.
        for round in 0..=size.rounds {
            for server in &running {
                let sample = sample(server, exchange, &size)?;
                if round > 0 {
                    table.add(exchange.title, server.rival, sample);
                }
            }
        }
    }
    table.print(report);
    Ok(())
}

fn sample(server: &Running, exchange: &Exchange, size: &Size) -> Result<Sample> {
    let remote = || server.remote.as_ref().map_or(Ok(Duration::ZERO), Process::cpu_time);
    let (cpu, remote_cpu) = (server.process.cpu_time()?, remote()?);
    let load = exchange.load(server.process.address(), size.connections, size.turn)?;
    let each = |time: Duration| time.as_secs_f64() * 1e6 / load.requests;
    Ok(Sample {
        rate: load.requests / load.elapsed.as_secs_f64(),
        cpu: each(server.process.cpu_time()?.saturating_sub(cpu)),
        remote_cpu: each(remote()?.saturating_sub(remote_cpu)),
        client_cpu: each(load.busy),
        p50: load.latencies.p50(),
        p99: load.latencies.p99(),
        resident: crate::stats::figure(server.process.resident_kib()?) / 1024.0,
    })
}
