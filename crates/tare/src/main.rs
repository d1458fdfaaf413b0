//! `tare`, the client program of AgentRouter.

use std::process::ExitCode;

fn main() -> ExitCode {
    agentrouter_tare::main()
}
