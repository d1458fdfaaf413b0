//! Fuzz targets for the gateway: what a target does with an input, and what has to be true of the answer.
//!
//! `cargo xtask fuzz` makes inputs, guided by the branches that they reach, starting from `corpus/`. The tests of this
//! crate run every file of the corpus once more without an engine, so an input that broke something is kept there and
//! never breaks it again. Targets use what the gateway's crate offers to everybody, and nothing of its inside.
//!
//! | target | input | has to be true |
//! |---|---|---|
//! | `template` | rules and requests, one a line | the order of rules decides nothing; all rules together serve what each serves alone |
//! | `query` | a query string | what it binds is the same message as a form, and as its own JSON |
//! | `json` | text, or bytes of a message | what was read can be written, and read again, as the same text |
//! | `frames` | a body in the framing of a protocol | the answer is the same however the body is cut |
//! | `requests` | a request in the notation of HTTP/1.1 | no fault of the server, and an answer in its protocol |
#![expect(
    clippy::expect_used,
    clippy::panic,
    reason = "a target that meets the unexpected has found something"
)]

mod answer;
mod backend;
mod frames;
mod json;
mod query;
mod requests;
mod template;
mod world;

/// What is run with an input.
pub type Run = fn(&[u8]);

/// The targets by name. They panic where something is wrong.
pub const TARGETS: [(&str, Run); 5] = [
    ("template", template::run),
    ("query", query::run),
    ("json", json::run),
    ("frames", frames::run),
    ("requests", requests::run),
];

/// The target of a name.
pub fn target(name: &str) -> Option<Run> {
    TARGETS.iter().find(|(known, _)| *known == name).map(|(_, run)| *run)
}
