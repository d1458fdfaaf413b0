//! The OpenAPI 3.1 document of what is served over REST, from the descriptors
//! that the routes come from, and a page that shows it to people.
//!
//! The document says what the transcoder does: parameters are the fields that
//! the binder takes, bodies and answers have the form that is read and written,
//! and every route is an operation. What a product knows beyond its descriptors
//! (who needs a credential, bounds, examples) it says by a [`Contract`].
//!
//! | module | makes |
//! |---|---|
//! | `endpoint` | the routes, once more, in terms of descriptors |
//! | `names` | names of operations, tags and schemas |
//! | `path`, `parameters` | paths and what is bound from path, query and headers |
//! | `schema`, `well_known` | schemas of messages |
//! | `rules`, `validation`, `text_rules`, `number_rules` | what annotations and the contract narrow them to |
//! | `answer`, `error` | answers, errors among them |
//! | `operation`, `example` | operations and their examples |
//! | `page` | HTML from the document |
//!
//! It is made once and then only sent, so clarity comes before speed here.

mod answer;
mod comments;
mod contract;
mod endpoint;
mod error;
mod example;
mod names;
mod number_rules;
mod operation;
mod page;
mod parameters;
mod path;
mod rules;
mod schema;
mod text_rules;
mod validation;
mod well_known;

use prost_reflect::DescriptorPool;
use serde_json::{Map, Value, json};

use comments::Comments;
use endpoint::Endpoint;
use names::Names;
use path::Paths;
use schema::Schemas;

pub use contract::{Contract, Header, Info, Rules, Security};
pub use page::{Page, PageSettings, page};

/// What every part of the document is made from.
struct Source<'s> {
    contract: &'s dyn Contract,
    comments: Comments,
    names: Names,
}

/// The document of every annotated method in the pool.
///
/// Rules that a [`Transcoder`](crate::Transcoder) of the pool refuses are left out.
pub fn openapi(pool: &DescriptorPool, info: &Info, contract: &dyn Contract) -> Value {
    let endpoints = endpoint::endpoints(pool);
    let source = Source { contract, comments: Comments::read(pool), names: Names::new(&endpoints) };
    let mut schemas = Schemas::new(&source, &endpoints);
    let mut paths = Paths::default();
    for endpoint in &endpoints {
        let names = paths.parameters(endpoint);
        let operation = operation::operation(&source, endpoint, &names, &mut schemas);
        paths.insert(endpoint, &names, &operation);
    }

    json!({
        "openapi": "3.1.1",
        "jsonSchemaDialect": "https://spec.openapis.org/oas/3.1/dialect/base",
        "info": info.to_json(),
        "servers": [{"url": "/"}],
        "security": [{contract::BEARER: []}],
        "tags": tags(&source, &endpoints),
        "paths": paths.into_json(),
        "components": {
            "schemas": schemas.into_components(),
            "responses": error::responses(),
            "headers": error::headers(),
            "securitySchemes": {
                contract::BEARER: {"type": "http", "scheme": "bearer", "description": info.bearer},
            },
        },
    })
}

fn tags(source: &Source<'_>, endpoints: &[Endpoint]) -> Vec<Value> {
    let mut tags: Vec<Value> = Vec::new();
    for endpoint in endpoints {
        let service = endpoint.rpc.parent_service();
        let mut tag = Map::new();
        put(&mut tag, "name", source.names.tag(service));
        if let Some(comment) = source.comments.of(&service.parent_file(), service.path()) {
            put(&mut tag, "description", comment);
        }
        let tag = Value::Object(tag);
        if !tags.contains(&tag) {
            tags.push(tag);
        }
    }
    tags
}

fn put(map: &mut Map<String, Value>, key: &str, value: impl Into<Value>) {
    map.insert(key.to_owned(), value.into());
}
