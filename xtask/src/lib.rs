//! What the benchmarks need of the project's tasks, too: a PostgreSQL of their own, and running other programs.
#![expect(clippy::print_stdout, reason = "installing a server takes a while, so it is told")]

pub mod postgres;
pub mod process;
