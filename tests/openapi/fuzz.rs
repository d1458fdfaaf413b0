//! schemathesis makes thousands of calls of what the document says, good and bad ones, and holds every answer against
//! it: no answer of 500 and above, no status, media type, header or body that is not documented.

#![expect(clippy::print_stdout, reason = "how much was tried is shown where it is asked for")]

use std::path::Path;

use serde_json::Value;
use tokio::time::Instant;

use crate::answers::World;
use crate::checks::{program, succeed};
use crate::common::OPERATOR_KEY;
use crate::document::operations;
use crate::surface::tenant::{Caller, Form};

const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance,\
     response_headers_conformance";

/// What would end the caller's own key, and with it everything that the run could find. These are called last.
const ENDS_CALLERS: [&str; 6] =
    ["RevokeApiKey", "RotateApiKey", "ArchiveCustomer", "PurgeCustomer", "DeleteIdentity", "RevokeUserToken"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schemathesis_finds_nothing_undocumented() {
    let world = World::new(agentrouter_testkit::sqlite().await).await;
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(&world);
    let configure = |header: &str| {
        std::fs::write(folder.path().join("schemathesis.toml"), format!("{settings}{header}")).unwrap();
    };
    // The streams never end, which it does not wait for. Other tests read them.
    let streams = operations().iter().filter(|operation| operation.is_stream()).map(|operation| operation.id);
    let streams: Vec<_> = streams.collect();
    assert_eq!(streams.len(), 2);

    let worker = world.tenant.token(Caller::Workspace).to_owned();
    let for_workers: Vec<_> = operations()
        .iter()
        .filter(|operation| operation.value["description"].as_str().unwrap().contains("workspace token"))
        .map(|operation| operation.id)
        .filter(|id| !streams.contains(id) && !ENDS_CALLERS.contains(id))
        .collect();
    assert!(for_workers.len() > 15, "{for_workers:?}");

    let left_out = [&streams[..], &ENDS_CALLERS].concat();
    // Where no path names the customer, an operator does.
    configure("\"header.x-agentrouter-customer\" = \"acme\"\n");
    run(&world, folder.path(), OPERATOR_KEY, "--exclude-operation-id", &left_out, 8).await;
    // Had the key ended on the way, all else would have been answered with 401.
    assert_eq!(world.server.rest(reqwest::Method::GET, "/v1/whoami", None).await.status(), 200);
    configure("");
    run(&world, folder.path(), &worker, "--include-operation-id", &for_workers, 5).await;
    run(&world, folder.path(), OPERATOR_KEY, "--include-operation-id", &ENDS_CALLERS, 5).await;
    world.server.stop().await;
}

async fn run(world: &World, folder: &Path, token: &str, filter: &str, operations: &[&str], examples: u32) {
    let mut schemathesis = program("schemathesis");
    schemathesis
        .current_dir(folder)
        .args(["run", &format!("{}/openapi.json", world.server.base_url)])
        .args(["-H", &format!("Authorization: Bearer {token}")])
        .args(["--checks", CHECKS, "--max-examples", &examples.to_string()])
        // The same calls every time, as far as the answers are the same.
        .args(["--seed", "1", "--no-color", "--request-timeout", "30", "--warnings", "off"]);
    for operation in operations {
        schemathesis.args([filter, operation]);
    }
    let started = Instant::now();
    let told = succeed(schemathesis).await;
    let cases = told.lines().find(|line| line.contains(" generated, ")).unwrap_or_else(|| panic!("{told}"));
    let generated: u32 = cases.split_whitespace().next().unwrap().parse().unwrap();
    assert!(generated > 50 && cases.contains(&format!("{generated} passed")), "{told}");
    let took = started.elapsed();
    println!("schemathesis made {generated} calls in {took:.0?} ({filter} {})", operations.len());
}

/// The rows there are, so that most calls reach what they are about.
fn settings(world: &World) -> String {
    let rows = [
        ("customer_id", "$customer"),
        ("project_id", "$project"),
        ("workspace_id", "$workspace"),
        ("provider_id", "$provider"),
        ("mcp_server_id", "$mcp_server"),
        ("mcp_profile_id", "$mcp_profile"),
        ("identity_id", "$identity"),
        ("api_key_id", "$api_key"),
        ("webhook_id", "$webhook"),
        ("session_id", "$session"),
        ("event_id", "$event"),
        ("configuration_id", "$configuration"),
    ];
    let rows = rows.map(|(parameter, row)| {
        let name = Value::from(world.tenant.name(row, Form::Slug));
        format!("\"path.{parameter}\" = {name}\n")
    });
    // A poll that is held open for half a minute finds no more than one that is not.
    format!("[parameters]\n\"query.wait\" = \"0.01s\"\n{}", rows.concat())
}
