//! A whole installation, moved from one engine to the other.

use agentrouter_storage::catalog::{self, Column, Table};
use agentrouter_storage::{Db, Engine, Target};
use agentrouter_testkit::{TestDb, postgres, sqlite};
use reqwest::Method;
use serde_json::json;

use crate::common::program::{Program, Settings};
use crate::common::{KEK, TestServer};
use crate::populated::{populate, works};
use crate::{failed, ran};

fn url(target: &Target) -> String {
    match target {
        Target::Sqlite(path) => format!("sqlite:{}", path.display()),
        Target::Postgres(url) => url.clone(),
    }
}

/// An empty database of the other engine.
async fn other(db: &TestDb) -> TestDb {
    match db.db.engine() {
        Engine::Sqlite => postgres().await,
        Engine::Postgres => sqlite().await,
    }
}

pub(crate) async fn an_installation_moves_to_the_other_engine(db: TestDb) {
    let (source, target) = (db.target.clone(), other(&db).await);
    let server = TestServer::start(db).await;
    let given = populate(&server).await;
    let keys = server.http.get(format!("{}/.well-known/jwks.json", server.base_url));
    let keys = keys.send().await.unwrap().text().await.unwrap();
    let db = server.stop_and_keep().await;
    let report = ran(&["copy-store", "--from", &url(&source), "--to", &url(&target.target)], &[]).await;
    assert!(report.ends_with("both sides are the same\n"), "{report}");
    let tables = catalog::tables(&db.db).await.unwrap();
    let mut rows = 0;
    for table in &tables {
        let (left, right) = (cells(&db.db, table).await, cells(&target.db, table).await);
        assert!(left == right, "{} differs", table.name);
        assert!(report.contains(&format!("\n{}\t{}\t", table.name, left.len())), "{}: {report}", table.name);
        rows += left.len();
    }
    assert!(tables.len() > 20 && rows > 200, "{} tables, {rows} rows", tables.len());

    let server = TestServer::start(target).await;
    works(&server, &given).await;
    let copied = server.http.get(format!("{}/.well-known/jwks.json", server.base_url));
    assert_eq!(copied.send().await.unwrap().text().await.unwrap(), keys);
    server.ok(Method::POST, "/v1/customers", Some(json!({"customer_id": "new"}))).await;
    server.stop().await;
}

/// All rows, in the order of the key.
async fn cells(db: &Db, table: &Table) -> Vec<Vec<catalog::Cell>> {
    let columns: Vec<&Column> = table.columns.iter().collect();
    catalog::rows(db, table, &columns, &[], 100_000).await.unwrap()
}

pub(crate) async fn a_copy_needs_an_empty_target(db: TestDb) {
    let target = other(&db).await;
    db.customer("acme").await;
    target.customer("other").await;
    let (from, to) = (url(&db.target), url(&target.target));
    let said = failed(&["copy-store", "--from", &from, "--to", &to], &[]).await;
    assert!(said.contains("the database is not empty"), "{said}");
    // Nothing of it was written.
    let customers = catalog::tables(&target.db).await.unwrap();
    let customers = customers.iter().find(|table| table.name == "customers").unwrap();
    assert_eq!(cells(&target.db, customers).await.len(), 1);
    let said = failed(&["copy-store", "--from", "sqlite:/nowhere/at/all.db", "--to", &to], &[]).await;
    assert!(said.contains("there is no such file"), "{said}");
}

pub(crate) async fn a_copy_needs_an_unused_source(db: TestDb) {
    let target = other(&db).await;
    let source = db.target.clone();
    let server = TestServer::start(db).await;
    let (from, to) = (url(&source), url(&target.target));
    for (from, to) in [(&from, &to), (&to, &from)] {
        let said = failed(&["copy-store", "--from", from, "--to", to], &[]).await;
        assert!(said.contains("stop every server of it first"), "{said}");
    }
    let db = server.stop_and_keep().await;

    // And a server does not start while its store is copied.
    let copying = db.reopen().await;
    copying.take_alone().await.unwrap();
    let data_dir = tempfile::tempdir().unwrap();
    let mut settings = Settings::new(data_dir.path(), &source);
    settings.database_url = Some(from);
    settings.environment.push(("AGENTROUTER_KEK", KEK.to_owned()));
    let said = Program::refused(&settings).await;
    assert!(said.contains("the database is being copied"), "{said}");
    copying.close().await;
    Program::start(&settings).await.stop().await;
}
