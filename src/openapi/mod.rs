//! The OpenAPI document of the REST API, and the page that shows it.

mod contract;
mod examples;
mod serve;

use agentrouter_api::DESCRIPTOR_POOL;
use agentrouter_gateway::{Info, openapi};
use serde_json::Value;

use contract::Product;

pub(crate) use serve::routes;

const DESCRIPTION: &str = include_str!("description.md");

/// The document. It holds nothing of an installation.
pub fn document() -> Value {
    let info = Info {
        title: "AgentRouter".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        description: DESCRIPTION.to_owned(),
        license: env!("CARGO_PKG_LICENSE").to_owned(),
        bearer: "A management key (`ak-…`), a session token or a workspace token.".to_owned(),
    };
    openapi(&DESCRIPTOR_POOL, &info, &Product::new(&DESCRIPTOR_POOL))
}

/// The document for people to read and to compare, as it is kept in `docs/openapi.json`.
pub fn text() -> String {
    format!("{:#}\n", document())
}
