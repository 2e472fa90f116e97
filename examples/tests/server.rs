//! The example `server`, from the view of its clients and its scraper.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails; what is off is said"
)]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{ANSWER, DEADLINE, ServerProgram, count, get, names, read, text};
use futures_util::StreamExt;
use l0_core::{L0, Retry};
use l0_examples::chat_client::chat;
use l0_examples::server::Fault;
use l0_prometheus::CONTENT_TYPE;
use l0_providers::openai::{ChatRequest, Client};
use reqwest::StatusCode;
use serde_json::json;

/// Starts the program with a timeout that no test reaches, so a machine that pauses ends no run.
async fn start() -> ServerProgram {
    ServerProgram::start(env!("CARGO_BIN_EXE_server"), 300).await
}

#[tokio::test]
async fn a_chat_restarts_after_a_broken_connection() {
    let service = start().await;
    service.upstream.fail_next([Fault::Break]);
    let events = service.chat("gpt-4o-mini").await;

    assert_eq!(names(&events), ["token", "restart", "token", "done"]);
    let answer = text(&events);
    assert!(
        answer.starts_with("A token stream is a promise"),
        "{answer}"
    );
    assert!(answer.ends_with("it tells you what happened."), "{answer}");

    // The run ends before its last event is sent.
    let metrics = service.metrics().await;
    let labels = [("model", "gpt-4o-mini"), ("endpoint", "/chat")];
    let tokens = count(&events, "token") as f64;
    for (name, value) in [
        ("l0_requests_total", 1.0),
        ("l0_tokens_total", tokens),
        ("l0_wasted_tokens_total", tokens - ANSWER as f64),
        ("l0_retries_total", 1.0),
        ("l0_retries_network_total", 1.0),
        ("l0_network_errors_total", 1.0),
        ("l0_streams_started_total", 1.0),
        ("l0_streams_finished_total", 1.0),
        ("l0_streams_active", 0.0),
    ] {
        assert_eq!(metrics.sum(name, &labels), value, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_disconnects_drops_its_run() {
    let service = start().await;
    // This chat never ends by itself.
    service.upstream.fail_next([Fault::Stall]);
    let http = reqwest::Client::new();
    let events = chat(&http, service.address, None, "What is a token?").await;
    let mut events = events.unwrap();
    let first = events.next().await.unwrap().unwrap();
    assert_eq!(first.name, "token");
    let metrics = service.metrics().await;
    assert_eq!(metrics.sum("l0_streams_active", &[]), 1.0);

    drop(events);
    let metrics = service.at_rest().await;
    let finished = |outcome| metrics.sum("l0_streams_finished_total", &[("outcome", outcome)]);
    assert_eq!(finished("dropped"), 1.0);
    assert_eq!(finished("completed"), 0.0);
    assert_eq!(metrics.sum("l0_requests_total", &[]), 1.0);
}

#[tokio::test]
async fn a_failed_chat_ends_with_a_class_and_a_message_for_users() {
    let service = start().await;
    // The provider rejects the request with an error that quotes the prompt.
    service.upstream.fail_next([Fault::Forbidden]);
    let impatient = ServerProgram::start(env!("CARGO_BIN_EXE_server"), 1).await;
    impatient.upstream.fail_next([Fault::Silence; 20]);
    for (service, outcome, class, message) in [
        (
            &service,
            "failed",
            "403",
            "The model is not available at the moment.",
        ),
        (
            &impatient,
            "timed_out",
            "timeout",
            "The model takes too long.",
        ),
    ] {
        let events = service.chat("gpt-4o").await;
        assert_eq!(names(&events), ["error"]);
        let data = json!({ "class": class, "message": message });
        assert_eq!(events[0].data, data);
        let metrics = service.metrics().await;
        let finished = metrics.sum("l0_streams_finished_total", &[("outcome", outcome)]);
        assert_eq!(finished, 1.0);
    }
}

#[tokio::test]
async fn a_bad_request_is_rejected_without_a_run() {
    let service = start().await;
    let url = format!("http://{}/chat", service.address);
    let http = reqwest::Client::new();
    // One byte more than axum's default limit, so the server reads all of it before it answers.
    let too_large = " ".repeat(2 * 1024 * 1024 + 1);
    for (content_type, body, status) in [
        ("application/json", "{", StatusCode::BAD_REQUEST),
        ("application/json", "{}", StatusCode::UNPROCESSABLE_ENTITY),
        (
            "application/json",
            r#"{"prompt": "Hi", "model": "any\nlabel"}"#,
            StatusCode::BAD_REQUEST,
        ),
        ("text/plain", "Hi", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        (
            "application/json",
            &too_large,
            StatusCode::PAYLOAD_TOO_LARGE,
        ),
    ] {
        let request = http.post(&url).header("content-type", content_type);
        let response = request.body(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), status, "{content_type}");
    }
    let response = http.get(&url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    let metrics = get(&format!("http://{}/metrics", service.address)).await;
    assert_eq!(metrics, "");
}

#[tokio::test]
async fn the_metrics_are_text_for_prometheus() {
    let service = start().await;
    service.chat("gpt-4.1-mini").await;
    let url = format!("http://{}/metrics", service.address);
    let response = reqwest::get(&url).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
    let samples = read(&response.text().await.unwrap());
    let labels = [("model", "gpt-4.1-mini"), ("endpoint", "/chat")];
    assert_eq!(samples.sum("l0_requests_total", &labels), 1.0);
    let page = get(&format!("http://{}/l0", service.address)).await;
    assert!(page.contains("<html"), "{page}");
}

#[tokio::test]
async fn load_prints_the_results_of_its_chats() {
    let service = start().await;
    let address = service.address.to_string();
    let load = tokio::task::spawn_blocking(move || {
        let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
        load.args(["--address", &address, "--chats", "10", "--drop", "0.3"]);
        load.args(["--at-a-time", "5", "--model", "gpt-4o-mini"]);
        load.output().unwrap()
    });
    let output = load.await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}{errors}");
    for line in [
        "chats:    10",
        "done:     7",
        "dropped:  3",
        "tokens:   436",
        "restarts: 0",
    ] {
        assert!(text.lines().any(|one| one == line), "{line}: {text}");
    }
    // The server can notice a disconnect after the answer is complete.
    let metrics = service.at_rest().await;
    assert_eq!(metrics.sum("l0_streams_finished_total", &[]), 10.0);
    let finished = |outcome| metrics.sum("l0_streams_finished_total", &[("outcome", outcome)]);
    assert!(finished("completed") >= 7.0);
    assert_eq!(finished("completed") + finished("dropped"), 10.0);
}

/// Kills the process on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn answers_of_the_faulty_model_break_if_enabled() {
    for (faults, breaks) in [("0", false), ("1", true)] {
        let mut model = Command::new(env!("CARGO_BIN_EXE_faulty_model"));
        let model = model.args(["--faults", faults]).stdout(Stdio::piped());
        let mut model = Running(model.spawn().unwrap());
        let mut lines = BufReader::new(model.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on ").unwrap();
        let client = Client::new(address).unwrap();
        let request = ChatRequest::new("gpt-4o-mini").user("What is a token?");
        let l0 = L0::builder().retry(Retry::none()).build();
        let answer = l0.stream_from(client.chat(&request)).start().text().await;
        assert_eq!(answer.is_err(), breaks, "{answer:?}");
    }
}

/// Runs the JavaScript of the page on web services, if `node` is available.
#[tokio::test]
async fn the_javascript_of_the_page_reads_the_events() {
    if Command::new("node").arg("--version").output().is_err() {
        println!("switched off: there is no node");
        return;
    }
    let page = include_str!("../../docs/web-service.md");
    let blocks: Vec<_> = page.split("```js\n").skip(1).collect();
    let blocks = blocks.iter().filter_map(|block| block.split("```").next());
    let code: String = blocks.collect();
    let service = start().await;
    service.upstream.fail_next([Fault::Break]);
    // A browser has an element for the answer, and resolves paths without a host.
    let around = format!(
        "const output = {{}}; const ask = fetch; \
         globalThis.fetch = (path, options) => ask('http://{}' + path, options);\n",
        service.address
    );
    let code = format!("{around}{code}\nconsole.log(output.textContent);");
    let node = tokio::task::spawn_blocking(move || {
        let arguments = ["--input-type=module", "--eval", &code];
        Command::new("node").args(arguments).output().unwrap()
    });
    let output = node.await.unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("A token stream is a promise"), "{text}");
    assert!(text.ends_with("it tells you what happened.\n"), "{text}");
    assert_eq!(text.matches("A token stream").count(), 1, "{text}");
}

#[test]
fn load_accepts_only_loopback_addresses() {
    for address in ["192.0.2.1:80", "[2001:db8::1]:80", "example.com:80"] {
        let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
        let output = load.args(["--address", address]).output().unwrap();
        assert!(!output.status.success(), "{address}");
        assert!(output.stdout.is_empty(), "{address}");
    }
}

#[tokio::test]
async fn on_a_signal_it_lets_answers_end_and_accepts_no_more() {
    let mut server = start().await;
    let http = reqwest::Client::new();
    let events = chat(&http, server.address, None, "What is a token?").await;
    let mut events = events.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().name, "token");
    server.signal("-TERM");
    let rest: Vec<_> = events.map(Result::unwrap).collect().await;
    assert_eq!(names(&rest), ["token", "done"]);
    let status = server.process.wait().unwrap();
    assert!(status.success());
    let late = chat(&http, server.address, None, "What is a token?").await;
    assert!(late.is_err());
}

#[tokio::test]
async fn on_a_signal_it_aborts_answers_that_do_not_end_in_time() {
    let mut server = start().await;
    server.upstream.fail_next([Fault::Stall]);
    let http = reqwest::Client::new();
    let events = chat(&http, server.address, None, "What is a token?").await;
    let mut events = events.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().name, "token");
    let sent = Instant::now();
    server.signal("-TERM");
    let rest: Vec<_> = events.map(Result::unwrap).collect().await;
    assert_eq!(names(&rest), ["token", "error"]);
    let message = "The answer broke off.";
    let data = json!({ "class": "aborted", "message": message });
    assert_eq!(rest.last().unwrap().data, data);
    assert!(server.process.wait().unwrap().success());
    // 20 s for answers, 1 s each for their last events and for tasks, 5 s for Sentry. Without an abort, the answer
    // would take at least 300 s.
    let most = Duration::from_secs(28) + DEADLINE;
    assert!(sent.elapsed() < most, "{:?}", sent.elapsed());
}
