//! The OpenAPI document: that it is what is served, that others can read it, and that the server keeps to it.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that meets the unexpected must stop")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../surface/mod.rs"]
mod surface;

mod answers;
mod bounds;
mod checks;
mod document;
mod fuzz;
mod served;

use agentrouter_testkit::on_both_engines;
use answers::every_operation_answers_as_documented;
use bounds::what_the_document_forbids_is_refused;

on_both_engines!(every_operation_answers_as_documented, what_the_document_forbids_is_refused);
