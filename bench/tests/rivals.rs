//! The rivals still build, start and answer the same; nothing is said of how fast.

use std::process::Command;

const SERVERS: [&str; 10] = [
    "axum and serde by hand",
    "ours",
    "ours as in production",
    "ours with 10 routes",
    "ours with 1,000 routes",
    "ours, remote service",
    "grpc-gateway",
    "grpc-gateway, over gRPC",
    "vanguard-go",
    "Envoy, remote service",
];

#[test]
fn all_are_measured_and_answer_the_same() {
    let output = Command::new(env!("CARGO_BIN_EXE_agentrouter-bench"))
        .args(["rivals", "--quick"])
        .output()
        .expect("the benchmark starts");
    let printed = String::from_utf8(output.stdout).expect("text");
    assert!(output.status.success(), "{printed}");
    assert!(printed.contains("all 10 answer the same"), "{printed}");
    for server in SERVERS {
        // Once for each kind of request, in a column of its own.
        assert_eq!(printed.matches(&format!("rivals: {server:<24} ")).count(), 2, "{server} in {printed}");
    }
    assert!(!printed.contains("NOT MEASURED"), "{printed}");
}
