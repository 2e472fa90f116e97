//! The example `sentry`: the data that an ingest receives, its check by Sentry's own normalizer, and chats
//! that do not wait for it.
//!
//! These variables enable the last test:
//!
//! | variable | value |
//! |---|---|
//! | `L0_PEERS` | the folder of `sentry_sink.py` and `relay_check.py` |
//! | `L0_RELAY_PYTHON` | a Python with `sentry_relay`, for both |

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the results of checks are printed")]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{env, fs};

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::IntoResponse;
use axum::routing::any;
use common::{DEADLINE, free_address, names, switched_on, wait_for};
use futures_util::StreamExt;
use l0_core::testing::Script;
use l0_core::{Content, Failure, L0, Retry, Source, Usage, source};
use l0_examples::chat_client::{ChatEvent, chat};
use l0_examples::server::{Fault, Server};
use l0_sentry::{SentryConfig, SentryInterceptor};
use sentry::{Client, ClientOptions, Hub};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};

/// The prompt of clients, which only the model must receive.
const PROMPT: &str = "c4n4ry: what is a token?";

/// Kills the process on drop.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The example, with a model server in this process.
struct Example {
    process: Running,
    address: SocketAddr,
    upstream: Server,
}

impl Example {
    /// Starts the example with the ingest at this address.
    async fn start(ingest: SocketAddr) -> Self {
        let upstream = Server::start(0).await.unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_sentry"))
            .args(["--listen", "127.0.0.1:0"])
            .env("SENTRY_DSN", format!("http://public@{ingest}/1"))
            .env("OPENAI_BASE_URL", upstream.base_url())
            .env("OPENAI_API_KEY", "sk-c4n4ryAbCdEf0123456789AbCdEf")
            .stdout(Stdio::piped())
            .spawn();
        let mut process = Running(child.unwrap());
        let mut lines = BufReader::new(process.0.stdout.take().unwrap()).lines();
        let first = lines.next().unwrap().unwrap();
        let address = first.strip_prefix("listening on http://").unwrap();
        Self {
            address: address.parse().unwrap(),
            process,
            upstream,
        }
    }

    /// Returns all events of one chat with these faults.
    async fn chat(&self, faults: impl IntoIterator<Item = Fault>) -> Vec<ChatEvent> {
        self.upstream.fail_next(faults);
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, Some("gpt-4o-mini"), PROMPT);
        events.await.unwrap().map(Result::unwrap).collect().await
    }

    /// Starts a chat that never ends, and disconnects after the first token.
    async fn go_away(&self) {
        self.upstream.fail_next([Fault::Stall]);
        let http = reqwest::Client::new();
        let events = chat(&http, self.address, Some("gpt-4o-mini"), PROMPT);
        assert_eq!(
            events.await.unwrap().next().await.unwrap().unwrap().name,
            "token"
        );
    }

    /// Stops the example, which sends the rest.
    async fn stop(mut self) {
        let pid = self.process.0.id().to_string();
        let sent = Command::new("kill").args(["-TERM", &pid]).status();
        assert!(sent.unwrap().success());
        let process = &mut self.process.0;
        let status = wait_for("it ends", async || process.try_wait().unwrap()).await;
        assert!(status.success());
    }
}

/// Runs chats with every end that a client can cause.
async fn chats(example: &Example) {
    assert_eq!(names(&example.chat([]).await), ["token", "done"]);
    let broken = example.chat([Fault::Break]).await;
    assert_eq!(names(&broken), ["token", "restart", "token", "done"]);
    for fault in [Fault::Unavailable, Fault::RateLimited] {
        assert_eq!(names(&example.chat([fault]).await), ["token", "done"]);
    }
    assert_eq!(names(&example.chat([Fault::Forbidden]).await), ["error"]);
    example.chat([Fault::Bad, Fault::Bad, Fault::Bad]).await;
    example
        .chat([Fault::Empty, Fault::Empty, Fault::Empty])
        .await;
    example.go_away().await;
}

/// Starts an ingest on a free loopback port, with `answer` as its handler.
async fn ingest<F, A>(answer: F) -> SocketAddr
where
    F: Fn(String) -> A + Clone + Send + Sync + 'static,
    A: Future<Output: IntoResponse> + Send,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let handler = any(move |body: String| {
        let answer = answer.clone();
        async move { answer(body).await }
    });
    let router = Router::new().fallback(handler);
    tokio::spawn(async move {
        let _ = axum::serve(listener, router).await;
    });
    address
}

/// Returns the events and transactions of envelopes, each with its type. Envelopes consist of lines: headers,
/// and an item after each item header.
fn items(envelopes: &[String]) -> Vec<(String, Value)> {
    let mut items = Vec::new();
    for envelope in envelopes {
        let lines = envelope.lines();
        let mut lines = lines.map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.next().unwrap();
        while let (Some(header), Some(item)) = (lines.next(), lines.next()) {
            let kind = header["type"].as_str().unwrap().to_owned();
            if ["event", "transaction"].contains(&&*kind) {
                items.push((kind, item));
            }
        }
    }
    items
}

/// Returns the transactions with this name.
fn transactions<'a>(items: &'a [(String, Value)], name: &str) -> Vec<&'a Value> {
    let items = items.iter();
    let items = items.filter(|(kind, item)| kind == "transaction" && item["transaction"] == name);
    items.map(|(_, item)| item).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_runs_are_in_one_trace_and_no_prompt_is_sent() {
    let sent = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&sent);
    let keep = move |body| {
        kept.lock().unwrap().push(body);
        std::future::ready(StatusCode::OK)
    };
    let example = Example::start(ingest(keep).await).await;
    chats(&example).await;
    example.stop().await;

    let sent = sent.lock().unwrap();
    let leak = sent.iter().find(|body| body.contains("c4n4ry"));
    assert_eq!(leak, None);
    let items = items(&sent);
    let requests = transactions(&items, "POST /chat");
    let runs = transactions(&items, "l0.execution");
    assert_eq!((requests.len(), runs.len()), (8, 8), "{items:#?}");

    let mut outcomes = Vec::new();
    for run in runs {
        let trace = &run["contexts"]["trace"];
        outcomes.push(trace["data"]["outcome"].as_str().unwrap());
        let is_parent = |request: &&&Value| {
            let parent = &request["contexts"]["trace"];
            parent["trace_id"] == trace["trace_id"] && parent["span_id"] == trace["parent_span_id"]
        };
        assert_eq!(requests.iter().filter(is_parent).count(), 1);
        assert_eq!(
            run["tags"],
            json!({ "model": "gpt-4o-mini", "service": "chat" })
        );
        let spans = run["spans"].as_array().unwrap();
        let ops: Vec<_> = spans
            .iter()
            .map(|span| span["op"].as_str().unwrap())
            .collect();
        let (stream, attempts) = ops.split_last().unwrap();
        assert_eq!(*stream, "l0.stream.consume");
        assert!(
            !attempts.is_empty() && attempts.iter().all(|op| *op == "gen_ai.chat"),
            "{ops:?}"
        );
    }
    outcomes.sort_unstable();
    let completed = ["completed"; 5];
    let (last, first) = (["dropped", "failed", "failed"], completed);
    assert_eq!(outcomes, [&first[..], &last[..]].concat());

    // The errors of the run have the log lines of the handler as breadcrumbs.
    let errors = items.iter().filter(|(kind, _)| kind == "event");
    let mut count = 0;
    for (_, error) in errors {
        count += 1;
        let trail = error["breadcrumbs"]["values"].as_array().unwrap();
        let logged = trail.iter().filter(|one| one["message"] == "a chat begins");
        assert_eq!(logged.count(), 1, "{error:#}");
        assert!(error["request"]["url"].as_str().unwrap().ends_with("/chat"));
    }
    assert!(count >= 2, "{items:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn chats_continue_while_the_ingest_is_down_slow_or_rejecting() {
    let nobody = free_address();
    let silent = ingest(|_| std::future::pending::<StatusCode>()).await;
    let refusal = || (StatusCode::TOO_MANY_REQUESTS, [(RETRY_AFTER, "60")]);
    let refusing = ingest(move |_| std::future::ready(refusal())).await;
    for ingest in [nobody, silent, refusing] {
        let example = Example::start(ingest).await;
        // More envelopes than a transport queues.
        let chats = (0..60).map(|number| {
            let fault = (number % 2 == 0).then_some(Fault::Forbidden);
            example.chat(fault)
        });
        let ends: Vec<_> = futures_util::future::join_all(chats).await;
        let done = |name: &str| {
            let ends = ends.iter().map(|events| events.last().unwrap());
            ends.filter(|event| event.name == name).count()
        };
        assert_eq!((done("done"), done("error")), (30, 30));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_that_never_answers_does_not_block_the_shutdown() {
    let silent = ingest(|_| std::future::pending::<StatusCode>()).await;
    let example = Example::start(silent).await;
    // More than one envelope, so a request is in flight when the example stops.
    example.chat([Fault::Forbidden]).await;
    example.chat([]).await;
    let by_hand = Command::new(env!("CARGO_BIN_EXE_sentry_by_hand"))
        .env("SENTRY_DSN", format!("http://public@{silent}/1"))
        .env_remove("OPENAI_API_KEY")
        .stdout(Stdio::piped())
        .spawn();
    let mut by_hand = Running(by_hand.unwrap());
    example.stop().await;
    wait_for("the manual example ends", async || {
        by_hand.0.try_wait().unwrap()
    })
    .await;
    let mut printed = String::new();
    by_hand
        .0
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut printed)
        .unwrap();
    assert!(
        printed.contains("Sentry did not receive everything in time."),
        "{printed}"
    );
}

/// A folder that is removed on drop.
struct Folder(PathBuf);

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn envelopes(folder: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "envelope")
        })
        .collect()
}

/// Reports a run with a failing model and a fallback to the ingest at this address.
async fn fall_back(ingest: SocketAddr) {
    let options = ClientOptions::new()
        .dsn(&format!("http://public@{ingest}/1"))
        .traces_sample_rate(1.0);
    // Only the `init` of the application sets the transport.
    let client = Arc::new(Client::from(sentry::apply_defaults(options)));
    let hub = Arc::new(Hub::new(Some(Arc::clone(&client)), Arc::default()));
    let config = SentryConfig::new().hub(hub).content(Content::new());
    let l0 = L0::builder()
        .retry(Retry::none())
        .interceptor(SentryInterceptor::new(config))
        .build();
    let usage = Usage::new().input(12).output(1);
    let breaks = Script::new().attempt(|a| a.token("a").usage(usage).fail(Failure::status(503)));
    let answers = Script::new().attempt(|a| a.tokens(["b", "c"]).usage(usage.output(2)));
    let answers = source(answers.source());
    let mut run = l0
        .stream(breaks.source())
        .metadata("model", "breaks")
        .metadata("provider", "openai")
        .input("what is a token?")
        .fallback(
            answers
                .metadata("model", "answers")
                .metadata("provider", "anthropic"),
        )
        .start();
    assert_eq!(run.text().await.unwrap(), "bc");
    let flushed = tokio::task::spawn_blocking(move || client.flush(Some(DEADLINE)));
    assert!(flushed.await.unwrap());
}

/// Adds the spans of a transaction as a tree, each with the usage of its attempt.
fn tree(spans: &[Value], parent: &Value, depth: usize, tree: &mut Vec<String>) {
    let children = spans.iter();
    for span in children.filter(|span| span["parent_span_id"] == *parent) {
        let text = |key: &str| span[key].as_str().unwrap();
        let mut line = format!("{}{}", "  ".repeat(depth), text("op"));
        line += &format!(" \"{}\" {}", text("description"), text("status"));
        for key in ["gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"] {
            if let Some(count) = span["data"].get(key) {
                line += &format!("  {key}={count}");
            }
        }
        tree.push(line);
        self::tree(spans, &span["span_id"], depth + 1, tree);
    }
}

fn check_fallback(items: &[(String, Value)]) {
    let runs = transactions(items, "l0.execution").into_iter();
    let of = |run: &Value| {
        let mut lines = Vec::new();
        let spans = run["spans"].as_array().unwrap();
        tree(spans, &run["contexts"]["trace"]["span_id"], 1, &mut lines);
        lines
    };
    let mut trees = runs
        .map(of)
        .filter(|lines| lines.join("").contains("chat answers"));
    let lines = trees.next().expect("a trace");
    println!("l0.execution\n{}", lines.join("\n"));
    let usage =
        |output| format!("gen_ai.usage.input_tokens=12  gen_ai.usage.output_tokens={output}");
    assert_eq!(
        lines,
        [
            "  l0.stream.consume \"Consuming LLM stream\" ok".to_owned(),
            format!(
                "    gen_ai.chat \"chat breaks\" internal_error  {}",
                usage(1)
            ),
            format!("    gen_ai.chat \"chat answers\" ok  {}", usage(2)),
        ]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_normalizer_of_sentry_finds_no_error() {
    let (Some(peers), Some(python)) = (switched_on("L0_PEERS"), switched_on("L0_RELAY_PYTHON"))
    else {
        return;
    };
    let peers = PathBuf::from(peers);
    let folder = Folder(env::temp_dir().join(format!("l0-sentry-{}", std::process::id())));
    fs::create_dir_all(&folder.0).unwrap();
    let address = free_address();
    let sink = Command::new(&python)
        .arg(peers.join("sentry_sink.py"))
        .arg(address.port().to_string())
        .arg(&folder.0)
        .stdin(Stdio::null())
        .spawn();
    let _sink = Running(sink.unwrap());
    wait_for("the sink is ready", async || {
        TcpStream::connect(address).await.ok()
    })
    .await;

    let example = Example::start(address).await;
    tokio::time::timeout(DEADLINE, chats(&example))
        .await
        .unwrap();
    example.stop().await;
    fall_back(address).await;

    let files = envelopes(&folder.0);
    let texts: Vec<_> = files
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let items = items(&texts);
    assert_eq!(transactions(&items, "l0.execution").len(), 9);
    check_fallback(&items);
    let mut check = Command::new(&python);
    check.arg(peers.join("relay_check.py")).args(&files);
    let output = tokio::task::spawn_blocking(move || check.output().unwrap());
    let output = output.await.unwrap();
    let printed = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{printed}{errors}");
    println!("{printed}");
    let checked = |kind: &str| {
        printed
            .lines()
            .filter(|line| line.starts_with(kind))
            .count()
    };
    let all = checked("  event ok") + checked("  transaction ok");
    assert_eq!(all, items.len(), "{printed}");
}
