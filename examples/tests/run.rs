//! Each example runs, without a key, and says what it is there to say. `server` and `load` have
//! tests of their own, `server.rs` and `prometheus`; `sentry` has `sentry.rs`; what `otel` sends,
//! `otel.rs` looks at.

use std::process::Command;

/// Runs an example in a folder of its own and gives what it printed.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    // Nothing outside of the process is asked.
    let elsewhere = [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "GEMINI_API_KEY",
        "GEMINI_BASE_URL",
        "GOOGLE_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        "DD_DOGSTATSD_URL",
    ];
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if elsewhere.contains(&&*name) || name.starts_with("OTEL_") {
            command.env_remove(&variable);
        }
    }
    let output = command.args(arguments).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

/// Checks that these texts were printed, in this order.
fn assert_in_order(text: &str, expected: &[&str]) {
    let mut rest = text;
    for expected in expected {
        let at = rest.find(expected);
        let at = at.unwrap_or_else(|| panic!("`{expected}` is missing, or out of order: {text}"));
        rest = &rest[at + expected.len()..];
    }
}

#[test]
fn chat() {
    let chat = |arguments: &[&str]| output(env!("CARGO_BIN_EXE_chat"), arguments);
    let expected = [
        "A token stream",
        "Outcome: completed",
        "Retries: 1 (1 network, 0 model)",
    ];
    assert_in_order(&chat(&[]), &expected);
    for provider in ["openai", "responses", "anthropic", "gemini"] {
        let text = chat(&["--provider", provider]);
        assert_in_order(&text, &expected);
        assert!(text.contains("Finish reason: stop"), "{provider}: {text}");
    }
}

#[test]
fn console() {
    let text = output(env!("CARGO_BIN_EXE_console"), &[]);
    let expected = [
        "A token stream",
        "--- Telemetry ---",
        "Tokens: 58",
        "58 tokens in",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn file_logging() {
    let folder = std::env::temp_dir().join(format!("l0-example-{}", std::process::id()));
    // There only if the same process id failed before.
    let _ = std::fs::remove_dir_all(&folder);
    let argument = folder.to_str().expect("UTF-8");
    let expected = [
        "\"message\":\"L0 execution completed\"",
        "\"metrics.network_retries\":1",
        "sessionId,duration,tokens",
        ",gpt-4o,",
        ",gpt-4o-mini,",
    ];
    for runs in [2, 4] {
        let text = output(env!("CARGO_BIN_EXE_file_logging"), &[argument]);
        assert_in_order(&text, &expected);
        let lines = std::fs::read_to_string(folder.join("l0.jsonl")).expect("a file");
        let rows = std::fs::read_to_string(folder.join("l0.csv")).expect("a file");
        assert_eq!(
            (lines.lines().count(), rows.lines().count()),
            (runs, runs + 1)
        );
    }
    std::fs::remove_dir_all(folder).expect("removed");
}

#[test]
fn analytics() {
    let text = output(env!("CARGO_BIN_EXE_analytics"), &[]);
    assert_eq!(
        text.matches("\"event\":\"l0_execution\"").count(),
        4,
        "{text}"
    );
    assert_eq!(text.matches("\"outcome\":\"dropped\"").count(), 1, "{text}");
    assert!(text.contains("not exported: 0"), "{text}");
}

#[test]
fn profiling() {
    let text = output(env!("CARGO_BIN_EXE_profiling"), &["40"]);
    assert_in_order(
        &text,
        &["runs", "completed", "duration, ms", "40 runs took"],
    );
}

#[test]
fn ab_testing() {
    let text = output(env!("CARGO_BIN_EXE_ab_testing"), &[]);
    assert_in_order(&text, &["A    ", "B    ", "duration, ms", "B takes"]);
}

#[test]
fn datadog() {
    let text = output(env!("CARGO_BIN_EXE_datadog"), &[]);
    let expected = [
        "l0.tokens.total:70|c|#env:example,model:gpt-4o-mini",
        "l0.runs:1|c|#env:example,model:gpt-4o-mini,outcome:completed",
        "points not sent: 0",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn otel() {
    let text = output(env!("CARGO_BIN_EXE_otel"), &[]);
    let expected = [
        "-- and again --",
        "outcome: completed",
        ": chat gpt-4o-mini",
        ": gen_ai.client.operation.duration",
        "l0.outcome: completed",
    ];
    assert_in_order(&text, &expected);
}
