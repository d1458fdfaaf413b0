//! CPU time of a REST unary call, beside a hand-written axum handler that does the same work (A12 #120).

use anyhow::{Result, ensure};
use tokio::task::JoinSet;

use crate::bars;
use crate::peer::Peer;
use crate::report::Report;
use crate::server::{KEY, Process, free_port};
use crate::stats::Rates;

const CONNECTIONS: u32 = 8;
const ROUNDS: usize = 5;
const SERVER: &str = "the server";
const PATH: &str = "/v1/customers/default";

pub(crate) async fn run(report: &Report, quick: bool) -> Result<()> {
    let calls = if quick { 50 } else { 4_000 };
    let folder = tempfile::tempdir()?;
    let client = reqwest::Client::new();
    let server = Process::agentrouter(folder.path(), free_port()?)?;
    server.ready(&client, PATH).await?;
    let database = folder.path().join("agentrouter.db");
    let mut measured = vec![(SERVER, server, Vec::new())];
    for peer in [Peer::Gateway, Peer::ByHand] {
        let process = Process::peer(peer, &database, free_port()?)?;
        process.ready(&client, PATH).await?;
        measured.push((peer.title(), process, Vec::new()));
    }
    // In turns, so that all see the same machine; the first turn warms up.
    for round in 0..=ROUNDS {
        for (_, process, figures) in &mut measured {
            let micros = micros_per_call(process, &client, calls).await?;
            if round > 0 {
                figures.push(micros);
            }
        }
    }
    let measured: Vec<_> =
        measured.into_iter().map(|(title, _, figures)| (title, Rates::new(figures))).collect();
    let by_hand = measured.last().map(|(_, micros)| micros.median()).unwrap_or_default();
    for (title, micros) in measured {
        let ratio = by_hand / micros.median();
        report.line(
            "rest",
            "",
            format_args!("CPU time of a GetCustomer in us, by {title}: {micros}; by hand / this: {ratio:.2}"),
        );
        if title == SERVER {
            report.judge(&bars::REST_SERVER, "", ratio);
        } else if title == Peer::Gateway.title() {
            report.judge(&bars::REST_GATEWAY, "", ratio);
        }
    }
    Ok(())
}

async fn micros_per_call(process: &Process, client: &reqwest::Client, calls: u32) -> Result<f64> {
    let before = process.cpu_ticks()?;
    let mut callers = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let (client, url) = (client.clone(), format!("{}{PATH}", process.base_url));
        callers.spawn(async move {
            for _ in 0..calls {
                let answer = client.get(&url).bearer_auth(KEY).send().await?;
                ensure!(answer.status().is_success(), "{}", answer.status());
                ensure!(answer.bytes().await?.starts_with(b"{\"id\":\"cust_"), "another answer");
            }
            Ok(())
        });
    }
    callers.join_all().await.into_iter().collect::<Result<()>>()?;
    let ticks = u32::try_from(process.cpu_ticks()? - before)?;
    Ok(f64::from(ticks) * 10_000.0 / f64::from(CONNECTIONS * calls))
}
