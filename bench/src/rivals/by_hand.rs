//! A handler as one writes it without a gateway: axum routes, structs, serde.

use std::collections::BTreeMap;

use axum::extract::{Path, Query};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};

/// The routes.
pub(crate) fn router() -> Router {
    Router::new().route("/v1/orders", post(echo)).route("/v1/shops/{shop}/orders/{number}", get(find))
}

async fn echo(Json(order): Json<Order>) -> Json<Order> {
    Json(order)
}

async fn find(Path((shop, number)): Path<(String, i64)>, Query(query): Query<Filter>) -> Json<Found> {
    let Filter { state, limit, since, tags } = query;
    // The parser of the query takes a name once.
    let tags = vec![tags];
    Json(Found { shop, number, state, limit, since, tags })
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    name: String,
    customer: String,
    state: State,
    #[serde(with = "text")]
    revision: i64,
    #[serde(with = "text")]
    total: u64,
    weight: f64,
    paid: bool,
    created: Option<jiff::Timestamp>,
    updated: Option<jiff::Timestamp>,
    address: Option<Address>,
    lines: Vec<Line>,
    labels: BTreeMap<String, String>,
    #[serde(with = "base64_text")]
    digest: Vec<u8>,
    tags: Vec<String>,
}

#[derive(Serialize, Deserialize, Clone, Copy)]
enum State {
    #[serde(rename = "STATE_UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "STATE_OPEN")]
    Open,
    #[serde(rename = "STATE_SHIPPED")]
    Shipped,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Address {
    street: String,
    city: String,
    country: String,
    point: Option<Point>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Point {
    latitude: f64,
    longitude: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    sku: String,
    title: String,
    quantity: i32,
    #[serde(with = "text")]
    price: i64,
    sizes: Vec<i32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Filter {
    state: State,
    limit: i32,
    since: Option<jiff::Timestamp>,
    tags: String,
}

#[derive(Serialize)]
struct Found {
    shop: String,
    #[serde(with = "text")]
    number: i64,
    state: State,
    limit: i32,
    since: Option<jiff::Timestamp>,
    tags: Vec<String>,
}

/// Numbers of 64 bits as text.
mod text {
    use std::borrow::Cow;
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(number: &impl Display, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(number)
    }

    pub(super) fn deserialize<'de, T, D>(deserializer: D) -> Result<T, D::Error>
    where
        T: FromStr<Err: Display>,
        D: Deserializer<'de>,
    {
        let text = Cow::<str>::deserialize(deserializer)?;
        text.parse().map_err(D::Error::custom)
    }
}

/// Bytes as text.
mod base64_text {
    use std::borrow::Cow;

    use base64::Engine as _;
    use base64::display::Base64Display;
    use base64::engine::general_purpose::STANDARD;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&Base64Display::new(bytes, &STANDARD))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = Cow::<str>::deserialize(deserializer)?;
        STANDARD.decode(text.as_bytes()).map_err(D::Error::custom)
    }
}
