//! Tests against other projects' servers over HTTP: recorded streams with faults (enabled by `L0_REPLAY`, the folder of
//! `replay.py` and its recordings; needs Python), and a mock of the providers' APIs (enabled by `L0_AIMOCK`, the folder
//! of the npm package `@copilotkit/aimock`; needs Node.js).
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{self, Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::server::{APIS, Api};
use futures_util::StreamExt;
use l0_core::{
    Backoff, Chunk, Error, L0, Monitoring, NetworkErrorKind, Outcome, Retry, Telemetry,
    TimeoutKind, Timeouts, TokenKind,
};
use l0_providers::ProviderError;

/// Time for a server to start listening.
const DEADLINE: Duration = Duration::from_secs(60);

/// A program that listens on a loopback port until this is dropped.
struct Server {
    process: Child,
    address: String,
    folder: Option<PathBuf>,
}

impl Server {
    fn start(command: impl FnOnce(u16) -> Command, folder: Option<PathBuf>) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr();
        let port = port.unwrap().port();
        let mut command = command(port);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = command.spawn().expect("the server's program");
        let mut server = Self {
            process,
            address: format!("127.0.0.1:{port}"),
            folder,
        };
        let deadline = Instant::now() + DEADLINE;
        while TcpStream::connect(&server.address).is_err() {
            let ended = server.process.try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(folder) = &self.folder {
            let _ = fs::remove_dir_all(folder);
        }
    }
}

type RunError = Error<ProviderError<reqwest::Error>>;

/// The result of a run.
#[derive(Debug)]
struct Ended {
    text: String,
    calls: usize,
    outcome: Outcome,
    error: Option<RunError>,
    telemetry: Telemetry,
}

impl Ended {
    /// Number of attempts, network retries and network errors.
    fn counts(&self) -> (u32, u32, BTreeMap<NetworkErrorKind, u64>) {
        let metrics = &self.telemetry.metrics;
        let errors = self.telemetry.network.errors_by_type.clone();
        assert_eq!(metrics.model_retries, 0);
        (metrics.attempts, metrics.network_retries, errors)
    }
}

/// Calls the API at the address for each attempt, with at most one retry.
async fn run(api: Api, prompt: &str, address: impl Fn(u32) -> String + Send + 'static) -> Ended {
    run_with(Timeouts::new(), api, prompt, address).await
}

async fn run_with(
    timeouts: Timeouts,
    api: Api,
    prompt: &str,
    address: impl Fn(u32) -> String + Send + 'static,
) -> Ended {
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().max_retries(1).backoff(Backoff::none()))
        .timeouts(timeouts)
        .build();
    let prompt = prompt.to_owned();
    let mut run = l0
        .stream(move |attempt| (api.ask)(&address(attempt.number()), &prompt))
        .start();
    let (mut text, mut calls, mut error) = (String::new(), 0, None);
    while let Some(chunk) = run.next().await {
        match chunk {
            Ok(Chunk::Item(token)) if token.choice == 0 => match token.kind {
                TokenKind::Text => text.push_str(&token.text),
                TokenKind::ToolCall => calls += 1,
                _ => {}
            },
            Ok(Chunk::Restart { .. }) => {
                text.clear();
                calls = 0;
            }
            Ok(_) => {}
            Err(e) => error = Some(e),
        }
    }
    Ended {
        text,
        calls,
        outcome: run.outcome().unwrap(),
        error,
        telemetry: run.telemetry().unwrap(),
    }
}

/// A recording of each API with text, and a number of events below its own.
fn recording(api: Api) -> (&'static str, u32) {
    match api.dialect.name {
        "openai-chat" => ("openai-chat/sdk-e2aad469.sse", 5),
        "openai-responses" => ("openai-responses/otel-create-streaming.sse", 6),
        "anthropic" => ("anthropic/prompt-caching.sse", 6),
        _ => ("gemini/text.chunks.txt", 2),
    }
}

/// Two attempts with the same error.
fn twice(kind: NetworkErrorKind) -> (u32, u32, BTreeMap<NetworkErrorKind, u64>) {
    (2, 1, BTreeMap::from([(kind, 2)]))
}

#[tokio::test]
async fn recorded_streams_over_http_with_faults() {
    let Some(folder) = env::var_os("L0_REPLAY").map(PathBuf::from) else {
        println!("skipped: L0_REPLAY is not set");
        return;
    };
    let python = env::var_os("L0_PYTHON").unwrap_or_else(|| "python3".into());
    let script = folder.join("replay.py");
    let server = Server::start(
        |port| {
            let mut command = Command::new(python);
            command.arg(script).arg(port.to_string()).arg(&folder);
            command
        },
        None,
    );
    let expected = fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();

    for api in APIS {
        let (file, events) = recording(api);
        let url = |options: &str| format!("http://{}/{options}/{file}", server.address);
        let with = |options: String| run(api, "hi", move |_| options.clone());
        let name = api.dialect.name;
        let length = usize::try_from(expected[file]["text_utf8_bytes"].as_u64().unwrap());

        for options in ["-", "split=3", "split=1,crlf=1", "delay=1"] {
            let ended = with(url(options)).await;
            assert_eq!(
                ended.outcome,
                Outcome::Completed,
                "{name} {options}: {ended:?}"
            );
            assert_eq!(ended.counts(), (1, 0, BTreeMap::new()), "{name} {options}");
            assert_eq!(Ok(ended.text.len()), length, "{name} {options}");
            let usage = serde_json::to_value(ended.telemetry.usage).unwrap();
            assert_eq!(usage, expected[file]["usage"], "{name}");
        }

        let ended = with(url(&format!("cut={events}"))).await;
        assert_eq!(ended.outcome, Outcome::Truncated, "{name}: {ended:?}");
        assert!(
            matches!(ended.error, Some(Error::Truncated)),
            "{name}: {ended:?}"
        );
        assert_eq!(
            ended.counts(),
            twice(NetworkErrorKind::PartialChunks),
            "{name}"
        );

        let ended = with(url(&format!("drop={events}"))).await;
        assert_eq!(ended.outcome, Outcome::Failed, "{name}: {ended:?}");
        let Some(Error::Source {
            source,
            attempts: 2,
            ..
        }) = &ended.error
        else {
            panic!("{name}: {ended:?}");
        };
        assert!(
            matches!(source, ProviderError::Transport(_)),
            "{name}: {ended:?}"
        );
        assert_eq!(
            ended.counts(),
            twice(NetworkErrorKind::Econnreset),
            "{name}"
        );

        let stalled = url(&format!("stall={events}"));
        let second = Timeouts::new().inter_token(Duration::from_secs(1));
        let ended = run_with(second, api, "hi", move |_| stalled.clone()).await;
        assert_eq!(ended.outcome, Outcome::TimedOut, "{name}: {ended:?}");
        let timeout = Some(TimeoutKind::InterToken);
        let timed_out = match ended.error {
            Some(Error::Timeout(kind)) => Some(kind),
            _ => None,
        };
        assert_eq!(timed_out, timeout, "{name}");
        assert_eq!(ended.counts(), twice(NetworkErrorKind::Timeout), "{name}");

        let status = |error: &Option<RunError>| match error {
            Some(Error::Source {
                source: ProviderError::Api(error),
                ..
            }) => (
                error.status(),
                error.error_type().map(str::to_owned),
                error.retry_after(),
            ),
            other => panic!("{name}: {other:?}"),
        };
        let replayed = Some("replay_error".to_owned());
        let ended = with(url("status=500")).await;
        assert_eq!(ended.outcome, Outcome::Failed, "{name}: {ended:?}");
        assert_eq!(status(&ended.error), (Some(500), replayed.clone(), None));
        assert_eq!(
            ended.counts(),
            twice(NetworkErrorKind::ServerError),
            "{name}"
        );

        // A delay that exceeds the run's limit fails it at once; a short one is awaited.
        let ended = with(url("status=429,retry=61")).await;
        let minute = Some(Duration::from_secs(61));
        assert_eq!(status(&ended.error), (Some(429), replayed.clone(), minute));
        let once = BTreeMap::from([(NetworkErrorKind::RateLimited, 1)]);
        assert_eq!(ended.counts(), (1, 0, once.clone()), "{name}");
        let (faulty, plain) = (url("status=429,retry=1"), url("-"));
        let started = Instant::now();
        let ended = run(api, "hi", move |attempt| match attempt {
            1 => faulty.clone(),
            _ => plain.clone(),
        })
        .await;
        assert!(started.elapsed() >= Duration::from_secs(1), "{name}");
        assert_eq!(ended.outcome, Outcome::Completed, "{name}: {ended:?}");
        assert_eq!(ended.counts(), (2, 1, once), "{name}");

        let ended = with(url("status=401")).await;
        assert_eq!(status(&ended.error), (Some(401), replayed, None));
        assert_eq!(ended.counts(), (1, 0, BTreeMap::new()), "{name}");

        // A fault in mid-stream, then the whole answer.
        for fault in ["cut", "drop"] {
            let (faulty, plain) = (url(&format!("{fault}={events}")), url("-"));
            let ended = run(api, "hi", move |attempt| match attempt {
                1 => faulty.clone(),
                _ => plain.clone(),
            })
            .await;
            assert_eq!(ended.outcome, Outcome::Completed, "{name}: {ended:?}");
            assert_eq!(Ok(ended.text.len()), length, "{name}");
            assert_eq!(ended.telemetry.metrics.network_retries, 1, "{name}");
        }
        println!("{name}: {file} over HTTP, with every fault, as expected");
    }
}

const FIXTURES: &str = r#"{"fixtures": [
    {"match": {"userMessage": "hello"}, "response": {"content": "Hello there, this is an answer in some chunks."}},
    {"match": {"userMessage": "cut"}, "response": {"content": "This answer breaks off before its end."}, "chunkSize": 5, "latency": 10, "truncateAfterChunks": 3},
    {"match": {"userMessage": "hang"}, "response": {"content": "This answer breaks off after some time."}, "chunkSize": 5, "latency": 50, "disconnectAfterMs": 200},
    {"match": {"userMessage": "rate"}, "response": {"error": {"message": "Rate limited", "type": "rate_limit_error"}, "status": 429, "retryAfter": 77}},
    {"match": {"userMessage": "boom"}, "response": {"error": {"message": "Server exploded", "type": "server_error"}, "status": 500}},
    {"match": {"userMessage": "tool"}, "response": {"toolCalls": [{"name": "get_weather", "arguments": "{\"city\":\"SF\"}"}]}}
]}"#;

#[tokio::test]
async fn a_mock_of_the_providers_with_faults() {
    let Some(package) = env::var_os("L0_AIMOCK") else {
        println!("skipped: L0_AIMOCK is not set");
        return;
    };
    let folder = env::temp_dir().join(format!("l0-aimock-{}", process::id()));
    fs::create_dir_all(&folder).unwrap();
    let fixtures = folder.join("fixtures.json");
    fs::write(&fixtures, FIXTURES).unwrap();
    let program = Path::new(&package).join("dist/cli.js");
    let server = Server::start(
        |port| {
            let mut command = Command::new("node");
            command.arg(program).arg("-f").arg(fixtures);
            command.args(["-h", "127.0.0.1", "--log-level", "silent", "-p"]);
            command.arg(port.to_string());
            command
        },
        Some(folder),
    );
    for api in APIS {
        let base = format!("http://{}{}", server.address, api.base);
        let with = |prompt: &'static str| {
            let base = base.clone();
            run(api, prompt, move |_| base.clone())
        };
        let name = api.dialect.name;

        let ended = with("hello").await;
        assert_eq!(ended.outcome, Outcome::Completed, "{name}: {ended:?}");
        assert_eq!(ended.text, "Hello there, this is an answer in some chunks.");
        assert_eq!(ended.counts(), (1, 0, BTreeMap::new()), "{name}");

        let ended = with("tool").await;
        assert_eq!(ended.outcome, Outcome::Completed, "{name}: {ended:?}");
        assert!(
            ended.calls > 0 && ended.text.is_empty(),
            "{name}: {ended:?}"
        );

        for fault in ["cut", "hang"] {
            let ended = with(fault).await;
            assert_eq!(ended.outcome, Outcome::Failed, "{name} {fault}: {ended:?}");
            let Some(Error::Source {
                source,
                attempts: 2,
                ..
            }) = &ended.error
            else {
                panic!("{name} {fault}: {ended:?}");
            };
            assert!(
                matches!(source, ProviderError::Transport(_)),
                "{name}: {ended:?}"
            );
            assert_eq!(
                ended.counts(),
                twice(NetworkErrorKind::PartialChunks),
                "{name}"
            );
        }

        for (prompt, status, error_type, wait) in [
            (
                "rate",
                429,
                "rate_limit_error",
                Some(Duration::from_secs(77)),
            ),
            ("boom", 500, "server_error", None),
        ] {
            let ended = with(prompt).await;
            assert_eq!(ended.outcome, Outcome::Failed, "{name}: {ended:?}");
            let counts = match wait {
                Some(_) => (1, 0, BTreeMap::from([(NetworkErrorKind::RateLimited, 1)])),
                None => twice(NetworkErrorKind::ServerError),
            };
            assert_eq!(ended.counts(), counts, "{name}");
            let Some(Error::Source {
                source: ProviderError::Api(error),
                ..
            }) = ended.error
            else {
                panic!("{name}: {ended:?}");
            };
            assert_eq!(error.status(), Some(status), "{name}");
            assert_eq!(error.error_type(), Some(error_type), "{name}");
            assert_eq!(error.retry_after(), wait, "{name}");
        }
        println!("{name}: with every fault as expected");
    }
}
