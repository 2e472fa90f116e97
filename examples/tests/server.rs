//! The chat application, as its clients and its scraper meet it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use common::{ANSWER, Service, count, get, names, text};
use futures_util::StreamExt;
use l0_examples::chat_client::chat;
use l0_examples::server::Fault;
use l0_prometheus::CONTENT_TYPE;
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test]
async fn a_chat_whose_connection_breaks_begins_anew() {
    let service = Service::start().await;
    service.upstream.fail_next([Fault::Break]);
    let events = service.chat("gpt-4o-mini").await;

    assert_eq!(names(&events), ["token", "restart", "token", "done"]);
    let restart = events.iter().find(|event| event.name == "restart");
    assert_eq!(restart.unwrap().data, json!({ "attempt": 2 }));
    let last = events.last().unwrap();
    assert_eq!(last.data, json!({ "outcome": "completed" }));
    let answer = text(&events);
    assert!(
        answer.starts_with("A token stream is a promise"),
        "{answer}"
    );
    assert!(answer.ends_with("it tells you what happened."), "{answer}");

    // The run has ended before its last event goes out.
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
async fn a_client_that_goes_away_drops_its_run() {
    let service = Service::start().await;
    // It would never end by itself.
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
async fn a_chat_that_fails_ends_with_an_error_that_is_not_the_raw_one() {
    let service = Service::start().await;
    let impatient = service.impatient().await;
    service.upstream.fail_next([Fault::Forbidden]);
    impatient.upstream.fail_next([Fault::Silence]);
    for (service, outcome, message) in [
        (
            &service,
            "failed",
            "The model cannot be asked at the moment.",
        ),
        (&impatient, "timed_out", "The model takes too long."),
    ] {
        let events = service.chat("gpt-4o").await;
        assert_eq!(names(&events), ["error"]);
        let data = json!({ "outcome": outcome, "message": message });
        assert_eq!(events[0].data, data);
        let metrics = service.metrics().await;
        let finished = metrics.sum("l0_streams_finished_total", &[("outcome", outcome)]);
        assert_eq!(finished, 1.0);
    }
}

#[tokio::test]
async fn a_bad_request_is_refused_and_is_no_run() {
    let service = Service::start().await;
    let url = format!("http://{}/chat", service.address);
    let http = reqwest::Client::new();
    let long = json!({ "prompt": "a".repeat(70_000) }).to_string();
    for (content_type, body, status) in [
        ("application/json", "{", StatusCode::BAD_REQUEST),
        ("application/json", "{}", StatusCode::UNPROCESSABLE_ENTITY),
        (
            "application/json",
            r#"{"prompt": " "}"#,
            StatusCode::BAD_REQUEST,
        ),
        (
            "application/json",
            r#"{"prompt": "Hi", "model": "any\nlabel"}"#,
            StatusCode::BAD_REQUEST,
        ),
        ("text/plain", "Hi", StatusCode::UNSUPPORTED_MEDIA_TYPE),
        ("application/json", &*long, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        let request = http.post(&url).header("content-type", content_type);
        let response = request.body(body.to_owned()).send().await.unwrap();
        assert_eq!(response.status(), status, "{content_type}");
    }
    let response = http.get(&url).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(service.collector.expose(), "");
}

#[tokio::test]
async fn the_metrics_are_text_for_prometheus() {
    let service = Service::start().await;
    service.chat("gpt-4.1-mini").await;
    let url = format!("http://{}/metrics", service.address);
    let response = reqwest::get(&url).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], CONTENT_TYPE);
    assert_eq!(response.text().await.unwrap(), service.collector.expose());
}

#[tokio::test]
async fn load_says_what_came_of_its_chats() {
    let service = Service::start().await;
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
    // That a client went away may be noticed after its answer was complete.
    let metrics = service.at_rest().await;
    assert_eq!(metrics.sum("l0_streams_finished_total", &[]), 10.0);
    let finished = |outcome| metrics.sum("l0_streams_finished_total", &[("outcome", outcome)]);
    assert!(finished("completed") >= 7.0);
    assert_eq!(finished("completed") + finished("dropped"), 10.0);
}

#[test]
fn load_goes_to_this_machine_only() {
    for address in ["192.0.2.1:80", "[2001:db8::1]:80", "example.com:80"] {
        let mut load = Command::new(env!("CARGO_BIN_EXE_load"));
        let output = load.args(["--address", address]).output().unwrap();
        assert!(!output.status.success(), "{address}");
        assert!(output.stdout.is_empty(), "{address}");
    }
}

/// Ends its process with itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(unix)]
#[tokio::test]
async fn the_program_says_where_it_listens_and_stops_when_it_is_told() {
    let mut server = Command::new(env!("CARGO_BIN_EXE_server"));
    for variable in ["OPENAI_API_KEY", "OPENAI_BASE_URL"] {
        server.env_remove(variable);
    }
    server.args(["--listen", "127.0.0.1:0", "--faults", "0"]);
    let child = server.stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
    let mut server = Running(child.unwrap());
    let mut lines = BufReader::new(server.0.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    let url = first.strip_prefix("listening on ").unwrap();
    assert_eq!(get(&format!("{url}/metrics")).await, "");

    // A chat that is under way is given the time to end.
    let address = url.strip_prefix("http://").unwrap().parse().unwrap();
    let http = reqwest::Client::new();
    let events = chat(&http, address, None, "What is a token?").await;
    let mut events = events.unwrap();
    assert_eq!(events.next().await.unwrap().unwrap().name, "token");
    let pid = server.0.id().to_string();
    let told = Command::new("kill").args(["-TERM", &pid]).status();
    assert!(told.unwrap().success());
    let rest: Vec<_> = events.map(Result::unwrap).collect().await;
    assert_eq!(names(&rest), ["token", "done"]);
    let status = tokio::task::spawn_blocking(move || server.0.wait().unwrap()).await;
    assert!(status.unwrap().success());
}
