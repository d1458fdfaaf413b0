//! The page that runs the clients of browsers, served from an origin of its own.

use std::net::Ipv4Addr;
use std::path::Path;

use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// A served page, gone when dropped.
pub(crate) struct Page {
    pub(crate) origin: String,
    pub(crate) url: String,
    _serving: JoinSet<()>,
}

impl Page {
    /// Serves a page of this script, on all names of the loopback interface.
    pub(crate) async fn serve(script: &Path) -> Self {
        const HTML: &str = "<!doctype html><title>Clients</title><script src=\"/page.js\"></script>";
        let script = std::fs::read_to_string(script).unwrap();
        let javascript = move || async move { ([(CONTENT_TYPE, "text/javascript")], script) };
        let router =
            Router::new().route("/", get(|| async { Html(HTML) })).route("/page.js", get(javascript));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let mut serving = JoinSet::new();
        serving.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url: format!("{origin}/"), origin, _serving: serving }
    }
}
