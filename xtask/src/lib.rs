//! What the benchmarks need of the project's tasks, too: a PostgreSQL of their own, other tools, and running them.
#![expect(clippy::print_stdout, reason = "installing takes a while, so it is told")]

pub mod postgres;
pub mod process;
pub mod tools;
