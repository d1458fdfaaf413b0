//! The clients that people have, each with the main job, all against one listener: what works for tonic must work for
//! them. Each makes a customer of its own, is refused as it should be, follows a stream, and brings a change to a
//! worker that reports it as applied.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[path = "../common/mod.rs"]
mod common;
mod curl;
mod ghz;
mod grpcurl;
mod page;
mod run;
mod scripts;
mod tools;

use std::any::Any;
use std::fmt::Write;
use std::time::Instant;

use agentrouter_testkit::{TestDb, on_both_engines};
use common::program::{Program, Settings};
use page::Page;
use run::Server;
use tokio::task::JoinHandle;
use tools::Tools;

on_both_engines!(every_client_does_the_main_job);

// A11 #109 (GET by a browser), #111 (gRPC-Web, binary and in base64), #112 (a page of another origin); A12 #114 (one
// port for all).
async fn every_client_does_the_main_job(db: TestDb) {
    let tools = Tools::ready().await;
    let page = Page::serve(&tools.page).await;
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    settings.flags.extend(["--cors-origins".to_owned(), page.origin.clone()]);
    let program = Program::start(&settings).await;
    let server = Server { address: program.address(), base_url: program.base_url() };

    let of = |work: fn(&'static Tools, Server) -> JoinHandle<()>| work(tools, server.clone());
    let mut clients = vec![
        ("curl", tokio::spawn(curl::main_job(server.clone()))),
        ("grpcurl", of(|tools, server| tokio::spawn(grpcurl::main_job(tools, server)))),
        ("ghz, the main job", of(|tools, server| tokio::spawn(ghz::main_job(tools, server)))),
        ("ghz, a load", of(|tools, server| tokio::spawn(ghz::load(tools, server)))),
        ("grpcio in Python", of(|tools, server| tokio::spawn(scripts::python(tools, server)))),
    ];
    for (name, protocol) in [
        ("Connect-ES in Node.js, Connect over HTTP/2", "connect"),
        ("Connect-ES in Node.js, Connect over HTTP/1.1", "connect-1.1"),
        ("Connect-ES in Node.js, gRPC", "grpc"),
        ("Connect-ES in Node.js, gRPC-Web", "grpc-web"),
    ] {
        clients.push((name, tokio::spawn(scripts::node(tools, server.clone(), protocol))));
    }
    let browser = scripts::chromium(tools, server.clone(), page.url.clone());
    clients.push(("Connect-ES and grpc-web in Chromium", tokio::spawn(browser)));

    let (started, mut report, mut failed) = (Instant::now(), String::new(), 0);
    for (name, client) in clients {
        match client.await {
            Ok(()) => writeln!(report, "ok      {name} ({:.1} s)", started.elapsed().as_secs_f64()).unwrap(),
            Err(error) => {
                failed += 1;
                writeln!(report, "FAILED  {name}:\n{}", told(&*error.into_panic())).unwrap();
            }
        }
    }
    assert!(failed == 0, "{failed} clients failed\n{report}\nThe server's log:\n{}", program.log());
    program.stop().await;
}

/// The message of a panic.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
