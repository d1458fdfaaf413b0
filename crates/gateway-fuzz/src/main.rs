//! The program that the fuzzing engine drives; `cargo xtask fuzz` builds and runs it.
#![no_main]

use std::sync::OnceLock;

use agentrouter_gateway_fuzz::{Run, target};
use libfuzzer_sys::fuzz_target;

/// What names the target: the engine takes the arguments.
const TARGET: &str = "AGENTROUTER_FUZZ_TARGET";

static RUN: OnceLock<Run> = OnceLock::new();

fuzz_target!(|data: &[u8]| {
    let run = RUN.get_or_init(|| {
        #[expect(clippy::disallowed_methods, reason = "the engine owns the arguments")]
        let name = std::env::var(TARGET).unwrap_or_default();
        target(&name).unwrap_or_else(|| panic!("{TARGET} names no target: `{name}`"))
    });
    run(data);
});
