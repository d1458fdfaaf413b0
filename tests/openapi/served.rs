//! The document and its page, as they are served; and that the document is of what is served.

use std::collections::BTreeSet;
use std::path::Path;

use agentrouter::openapi;
use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_gateway::{Contract, Info, Transcoder};
use reqwest::Method;
use serde_json::Value;

use crate::checks::{program, succeed};
use crate::common::TestServer;
use crate::document::{document, operations};

#[test]
fn the_document_in_the_repository_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/openapi.json");
    let kept: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(kept == *document(), "docs/openapi.json is behind the protos: run `cargo xtask openapi --write`");
}

#[tokio::test]
async fn a_validator_of_others_accepts_it() {
    validate(&openapi::text()).await;
}

/// The gateway's own test services say everything that annotations can.
#[tokio::test]
async fn whatever_annotations_say_is_valid() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut compiler =
        protox::Compiler::new([root.join("crates/gateway/tests/proto"), root.join("proto")]).unwrap();
    compiler.include_imports(true).open_files(["gateway_test.proto"]).unwrap();
    let [title, version, description, license, bearer] =
        ["Test", "1", "All of it.", "Apache-2.0", "A token."].map(str::to_owned);
    let info = Info { title, version, description, license, bearer };
    let made = agentrouter_gateway::openapi(&compiler.descriptor_pool(), &info, &Silent);
    assert!(made["paths"].as_object().unwrap().len() > 20);
    validate(&made.to_string()).await;
}

struct Silent;

impl Contract for Silent {}

async fn validate(document: &str) {
    let file = tempfile::NamedTempFile::with_suffix(".json").unwrap();
    std::fs::write(file.path(), document).unwrap();
    let mut validator = program("openapi-spec-validator");
    validator.args(["--schema", "3.1", "--validation-errors", "all"]).arg(file.path());
    let told = succeed(validator).await;
    assert!(told.trim_end().ends_with(": OK"), "{told}");
}

#[test]
fn its_operations_are_the_routes() {
    let transcoder = Transcoder::new(&DESCRIPTOR_POOL, ()).unwrap();
    let routes: BTreeSet<_> = transcoder
        .routes()
        .map(|route| {
            let (service, method) = route.rpc.rsplit_once('.').unwrap();
            // No template here has more than a name within its braces, so they are OpenAPI's already.
            (route.method.clone(), route.template.clone(), format!("{service}/{method}"))
        })
        .collect();
    let operations = operations().iter();
    let operations = operations
        .map(|operation| (operation.method.clone(), operation.path.to_owned(), operation.rpc().to_owned()));
    assert_eq!(operations.collect::<BTreeSet<_>>(), routes);
    assert_eq!(transcoder.routes().len(), routes.len());
}

#[tokio::test]
async fn both_are_served_to_anybody_and_cached() {
    let server = TestServer::start(agentrouter_testkit::sqlite().await).await;
    for (path, media) in [("/openapi.json", "application/json"), ("/docs", "text/html; charset=utf-8")] {
        let url = format!("{}{path}", server.base_url);
        let response = server.http.get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], media);
        assert_eq!(response.headers()["cache-control"], "public, max-age=300");
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        let etag = response.headers()["etag"].to_str().unwrap().to_owned();
        let body = response.text().await.unwrap();
        for known in [etag.clone(), format!("\"other\", W/{etag}"), "*".to_owned()] {
            let response = server.http.get(&url).header("if-none-match", known).send().await.unwrap();
            assert_eq!(
                (response.status().as_u16(), response.headers()["etag"].to_str().unwrap()),
                (304, &*etag)
            );
            assert_eq!(response.text().await.unwrap(), "");
        }
        let other = server.http.get(&url).header("if-none-match", "\"other\"").send().await.unwrap();
        assert_eq!(other.text().await.unwrap(), body);
        let head = server.http.head(&url).send().await.unwrap();
        assert_eq!((head.status().as_u16(), head.headers()["etag"].to_str().unwrap()), (200, &*etag));
        assert_eq!(server.rest(Method::POST, path, None).await.status(), 405);
    }
    server.stop().await;
}

#[tokio::test]
async fn the_served_document_is_the_one_that_was_tested() {
    let server = TestServer::start(agentrouter_testkit::sqlite().await).await;
    let served: Value = server
        .http
        .get(format!("{}/openapi.json", server.base_url))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert!(served == *document());
    server.stop().await;
}

#[tokio::test]
async fn the_page_shows_everything_and_fetches_nothing() {
    let server = TestServer::start(agentrouter_testkit::sqlite().await).await;
    let response = server.http.get(format!("{}/docs", server.base_url)).send().await.unwrap();
    let policy = response.headers()["content-security-policy"].to_str().unwrap().to_owned();
    let html = response.text().await.unwrap();
    for operation in operations() {
        assert!(html.contains(&format!("id=\"{}\"", operation.id)), "{}", operation.id);
    }
    let schemas = document()["components"]["schemas"].as_object().unwrap();
    for name in schemas.keys() {
        assert!(html.contains(&format!("id=\"schema-{name}\"")), "{name}");
    }
    // Every link within the page leads somewhere.
    let targets: BTreeSet<&str> =
        html.split("id=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
    let markup = html.split("<script>").next().unwrap();
    for link in markup.split("href=\"#").skip(1).filter_map(|rest| rest.split('"').next()) {
        assert!(targets.contains(link), "{link}");
    }
    for fetched in ["src=", "@import", "url(", "<link", "<iframe", "http-equiv"] {
        assert!(!html.contains(fetched), "{fetched}");
    }
    // The policy allows the page's own style and script, and nothing else.
    for element in ["style", "script"] {
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        assert_eq!(html.matches(&open).count(), 1);
        let text = html.split(&open).nth(1).unwrap().split(&close).next().unwrap();
        assert!(policy.contains(&format!("{element}-src 'sha256-{}'", sha256(text))), "{policy}");
    }
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    server.stop().await;
}

fn sha256(text: &str) -> String {
    use aws_lc_rs::digest::{SHA256, digest};
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(digest(&SHA256, text.as_bytes()))
}
