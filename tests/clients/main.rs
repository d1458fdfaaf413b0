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
use std::collections::HashMap;
use std::fmt::Write;
use std::time::Instant;

use agentrouter_testkit::{TestDb, on_both_engines};
use common::program::{Program, Settings};
use page::Page;
use run::Server;
use tokio::task::{Id, JoinSet};
use tools::Tools;

on_both_engines!(every_client_does_the_main_job);

// A11 #109, #111, #112; A12 #114: GET by a browser, gRPC-Web binary and in base64, a page of another origin, and one
// port for all.
async fn every_client_does_the_main_job(db: TestDb) {
    let tools = Tools::ready().await;
    let page = Page::serve(&tools.page).await;
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &db.target);
    settings.flags.extend(["--cors-origins".to_owned(), page.origin.clone()]);
    let program = Program::start(&settings).await;
    let server = Server { address: program.address(), base_url: program.base_url() };

    let mut clients = Clients::default();
    clients.add("curl", curl::main_job(server.clone()));
    clients.add("grpcurl", grpcurl::main_job(tools, server.clone()));
    clients.add("ghz, the main job", ghz::main_job(tools, server.clone()));
    clients.add("ghz, a load", ghz::load(tools, server.clone()));
    clients.add("grpcio in Python", scripts::python(tools, server.clone()));
    for (name, protocol) in [
        ("Connect-ES in Node.js, Connect over HTTP/2", "connect"),
        ("Connect-ES in Node.js, Connect over HTTP/1.1", "connect-1.1"),
        ("Connect-ES in Node.js, gRPC", "grpc"),
        ("Connect-ES in Node.js, gRPC-Web", "grpc-web"),
    ] {
        clients.add(name, scripts::node(tools, server.clone(), protocol));
    }
    for (name, protocol) in [
        ("Connect-ES in Chromium, Connect", "connect"),
        ("Connect-ES in Chromium, gRPC-Web", "grpc-web"),
        ("grpc-web in Chromium, in base64", "grpc-web-text"),
        ("grpc-web in Chromium, binary", "grpc-web-binary"),
    ] {
        clients.add(name, scripts::chromium(tools, server.clone(), page.url.clone(), protocol));
    }
    clients.add("a page of another origin", scripts::foreign_page(tools, server, page.url.clone()));

    let (failed, report) = clients.ended().await;
    assert!(failed == 0, "{failed} clients failed\n{report}\nThe server's log:\n{}", program.log());
    program.stop().await;
}

/// Clients at work, each by its name.
#[derive(Default)]
struct Clients {
    running: JoinSet<()>,
    names: HashMap<Id, &'static str>,
}

impl Clients {
    fn add(&mut self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        self.names.insert(self.running.spawn(work).id(), name);
    }

    /// Waits for all; how many failed, and a line for each.
    async fn ended(mut self) -> (usize, String) {
        let (started, mut failed, mut report) = (Instant::now(), 0, String::new());
        while let Some(ended) = self.running.join_next_with_id().await {
            let took = started.elapsed().as_secs_f64();
            match ended {
                Ok((id, ())) => writeln!(report, "ok      {} ({took:.1} s)", self.names[&id]).unwrap(),
                Err(error) => {
                    failed += 1;
                    let name = self.names[&error.id()];
                    writeln!(report, "FAILED  {name}:\n{}", told(&*error.into_panic())).unwrap();
                }
            }
        }
        (failed, report)
    }
}

/// The message of a panic.
fn told(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message")
}
