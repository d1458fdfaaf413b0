//! The `agentrouter` program.
fn main() {}
