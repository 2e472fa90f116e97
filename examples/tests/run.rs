//! Each example runs without a key and prints the expected lines. `server` and `load` are tested in
//! `server.rs` and `prometheus`, `sentry` in `sentry.rs`, and the data that `otel` sends in `otel.rs`.

use std::process::Command;

/// Runs an example, and returns its standard output.
fn output(program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    // No server outside the process is called.
    let removed = [
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "ANTHROPIC_API_KEY",
        "ANTHROPIC_BASE_URL",
        "GEMINI_API_KEY",
        "GEMINI_BASE_URL",
        "OLLAMA_HOST",
        "OLLAMA_API_KEY",
        "GOOGLE_API_KEY",
        "GOOGLE_GEMINI_BASE_URL",
        "DD_DOGSTATSD_URL",
        "RUST_LOG",
    ];
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if removed.contains(&&*name) || name.starts_with("OTEL_") {
            command.env_remove(&variable);
        }
    }
    let output = command.args(arguments).output().expect("starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    text
}

/// Asserts that the output has these texts in this order.
fn assert_in_order(text: &str, expected: &[&str]) {
    let mut rest = text;
    for expected in expected {
        let at = rest.find(expected);
        let at = at.unwrap_or_else(|| panic!("`{expected}` is missing, or out of order: {text}"));
        rest = &rest[at + expected.len()..];
    }
}

#[test]
fn quick_start() {
    let text = output(env!("CARGO_BIN_EXE_quick_start"), &[]);
    let expected = [
        "A token stream",
        "Session ID: l0_",
        "Duration: ",
        "Tokens: 58",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn telemetry() {
    let text = output(env!("CARGO_BIN_EXE_telemetry"), &[]);
    let expected = [
        "\"retries\": 2",
        "partial_chunks: 1",
        "retried: true, after Some(50ms)",
        "violations: 4",
        "pattern-meta-commentary: 1",
        "first token after Some(",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn fallback() {
    let text = output(env!("CARGO_BIN_EXE_fallback"), &[]);
    let expected = [
        "A monad is",
        "-- attempt 2",
        "A monad is a way to chain steps.",
        "Tokens: 5 (2 wasted)",
        "Attempt 1, gpt-4o-mini of openai: 2 tokens, ",
        "Attempt 2, gpt-4o-mini of openai: 0 tokens, status 503",
        "Attempt 3, claude-haiku-4-5 of anthropic: 3 tokens",
        "l0_requests_total{model=\"claude-haiku-4-5\",provider=\"anthropic\"} 1",
    ];
    assert_in_order(&text, &expected);
    for line in [
        "l0_tokens_total{model=\"gpt-4o-mini\",provider=\"openai\"} 2",
        "l0_tokens_total{model=\"claude-haiku-4-5\",provider=\"anthropic\"} 3",
        "l0_network_errors_total{model=\"gpt-4o-mini\",provider=\"openai\"} 2",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[test]
fn budget() {
    let text = output(env!("CARGO_BIN_EXE_budget"), &[]);
    let expected = [
        "ada: A monad is a way to chain steps. -- 0.000285 USD",
        "ada has spent 0.00057, acme has 0.00013 left",
        "ada: refused: the user has spent the limit",
        "bob: A monad is a way to chain steps. -- 0.000285 USD",
        "bob has spent 0.000285, acme has 0 left",
        "eve: refused: the budget is spent",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn embeddings() {
    let text = output(env!("CARGO_BIN_EXE_embeddings"), &[]);
    let expected = [
        "3 dimensions: [0.5, -0.25, 0.125]",
        "Outcome: completed",
        "Usage: 8 input",
        "Retries: 1 (1 network, 0 model)",
        "rate_limited: 1",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn agent() {
    let text = output(env!("CARGO_BIN_EXE_agent"), &[]);
    let own = "[chat gpt-4o-mini: conversation conversation-7, top level, ";
    let nested = "[chat gpt-4o-nano: conversation conversation-7, nested, ";
    let expected = [own, nested, own, nested, own, "Functors map, monads chain."];
    assert_in_order(&text, &expected);
    assert_eq!(text.matches(own).count(), 3, "{text}");
}

#[test]
fn exporters() {
    let text = output(env!("CARGO_BIN_EXE_exporters"), &[]);
    let expected = [
        "\"totalTokens\": 58",
        "sessionId,duration,tokens",
        "\"duration_ms\":",
        "l0.tokens.total 58 Count model:gpt-4o-mini",
        "l0.runs 1 Count model:gpt-4o-mini,outcome:completed",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn retries() {
    let text = output(env!("CARGO_BIN_EXE_retries"), &[]);
    let expected = [
        "retry in 20 ms: rate_limited",
        "retry in 40 ms: server_error",
        "retry in 80 ms: timeout",
        "retry in 20 ms: zero_output",
        "5 attempts, 3 network and 1 model retries, 2 tokens discarded",
        "the source failed after 1 attempt",
        "caused by: the gateway is busy",
        "Here I am.",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn guardrails() {
    let text = output(env!("CARGO_BIN_EXE_guardrails"), &[]);
    let expected = [
        "drift: meta_commentary",
        "violation: markdown-complete",
        "retry: guardrail_violation",
        "A token stream",
        "model retries: 1",
        "guardrail violation: at-most (error): It is too long",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn abort() {
    let text = output(env!("CARGO_BIN_EXE_abort"), &[]);
    let expected = [
        "with a handle: the run was aborted",
        "Outcome: aborted",
        "with a future, after 6 items: the run was aborted",
        "by dropping: Some(Dropped)",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn tool_loop() {
    let text = output(env!("CARGO_BIN_EXE_tool_loop"), &[]);
    let expected = [
        "\n--\n",
        "Let me look.\n",
        r#"get_weather({"city": "Bern"}): 18 °C and sunny in Bern"#,
        r#"get_weather({"town": "Rome"}): the arguments of the tool call `get_weather` do not match"#,
        "It is sunny in Bern, at 18 °C.\n",
        "3 requests",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn monitor() {
    let text = output(env!("CARGO_BIN_EXE_monitor"), &[]);
    let expected = [
        "Tokens: 4 (1 wasted)",
        "\"retries\":1",
        "\"type\": \"econnreset\"",
        "\"customEvents\"",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn production() {
    let text = output(env!("CARGO_BIN_EXE_production"), &[]);
    let expected = [
        "a record: {\"sessionId\"",
        "exported 40 of 40 runs",
        "l0_requests_total{model=\"gpt-4o-mini\"} 40",
        "l0_streams_started_total{model=\"gpt-4o-mini\"} 40",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn debugging() {
    let text = output(env!("CARGO_BIN_EXE_debugging"), &["tokens"]);
    let expected = [
        "Started {",
        "Token {",
        "NetworkError {",
        "Retry {",
        "Finished: completed",
        "\"test_id\": 7",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn interceptor() {
    let text = output(env!("CARGO_BIN_EXE_interceptor"), &[]);
    let expected = [
        "live: 0",
        "the third: refused: too many requests at a time",
        "premium",
        "free",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn prometheus_registry() {
    let text = output(env!("CARGO_BIN_EXE_prometheus_registry"), &[]);
    let expected = [
        "myapp_l0_requests_total{service=\"api\",endpoint=\"/chat\",model=\"gpt-4o-mini\"} 1",
        "myapp_l0_custom_events_total{service=\"api\",type=\"special\"} 1",
        "myapp_l0_queue_length{service=\"api\"} 5",
        "l0_tokens_total{service=\"api\"",
        "visits_total 1",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn own_source() {
    let text = output(env!("CARGO_BIN_EXE_own_source"), &[]);
    let expected = [
        "Words of my own",
        "Some(Stop)",
        "Words of others",
        "Words of my own again: Some(Completed)",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn sentry_by_hand() {
    let text = output(env!("CARGO_BIN_EXE_sentry_by_hand"), &[]);
    let expected = [
        "-- around a future",
        "[transaction] l0.execution",
        "-- manually",
        "[transaction] my-chat-request",
        "l0.stream.consume",
        "l0_telemetry: ",
        "-- manually, with a failure",
        "[error] partial_chunks: answer cut short",
        "First token received",
    ];
    assert_in_order(&text, &expected);
}

#[test]
fn chat() {
    let chat = |arguments: &[&str]| output(env!("CARGO_BIN_EXE_chat"), arguments);
    let expected = [
        "A token stream",
        "Outcome: completed",
        "Retries: 1 (1 network, 0 model)",
    ];
    let text = chat(&[]);
    assert_in_order(&text, &expected);
    let line = text.lines().last().unwrap();
    let ends = line.strip_prefix("gaps ");
    let ends = ends.and_then(|line| line.split_once(" ms ")?.1.strip_suffix(" ms"));
    let (bars, longest) = ends.unwrap().rsplit_once(' ').unwrap();
    assert_eq!(bars.chars().count(), 24, "{line}");
    assert!(bars.contains('█'), "{line}");
    assert!(longest.parse::<u32>().unwrap() >= 20, "{line}");
    for provider in ["openai", "responses", "anthropic", "gemini", "ollama"] {
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
    // Exists only after a failed test of a process with the same id.
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

#[test]
fn tracing() {
    let text = output(env!("CARGO_BIN_EXE_tracing"), &[]);
    let expected = [
        r#""l0.retry.reason":"network_error""#,
        r#""l0.fallback.from":"gpt-4o-mini""#,
        r#""l0.outcome":"completed""#,
        r#""message":"answered","run":"l0_"#,
        "A token stream is a promise",
        ": chat gpt-4o-mini",
        ": chat gpt-4.1-mini",
        ": l0.run",
        ": answer",
    ];
    assert_in_order(&text, &expected);
}
