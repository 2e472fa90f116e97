//! The data that the example `otel` sends, decoded with the protobuf types of OpenTelemetry, and a chat that
//! does not wait for the collector.
//!
//! | variable | enables |
//! |---|---|
//! | `L0_PEERS`, `L0_OTLP_PYTHON` | the test of the sent data: the folder of `otlp_recv.py`, and a Python with `opentelemetry-proto` |

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the decoded tree is printed")]

mod common;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use common::{ANSWER, DEADLINE, free_address, switched_on, wait_for};
use l0_core::Quantity;
use serde_json::Value;

/// A process that is killed on drop.
struct Process(Child);

impl Process {
    /// Starts a process. Returns its output lines as they arrive.
    fn start(command: &mut Command) -> (Self, Receiver<String>) {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("it starts");
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || pass_on(stdout, &sender));
        (Self(child), lines)
    }
}

fn pass_on(stdout: ChildStdout, lines: &Sender<String>) {
    for line in BufReader::new(stdout).lines() {
        if lines.send(line.unwrap()).is_err() {
            return;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns the command of the example with this endpoint.
fn example(endpoint: SocketAddr) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_otel"));
    for (variable, _) in std::env::vars_os() {
        let name = variable.to_string_lossy();
        if name.starts_with("OTEL_") || name.starts_with("OPENAI_") {
            command.env_remove(&variable);
        }
    }
    command.env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{endpoint}"));
    command
}

/// Reads lines up to the first with this prefix.
fn read_until(lines: &Receiver<String>, begin: &str) -> Vec<String> {
    let mut read = Vec::new();
    loop {
        let line = lines.recv_timeout(DEADLINE);
        let line = line.unwrap_or_else(|_| panic!("`{begin}` is missing: {read:#?}"));
        let found = line.starts_with(begin);
        read.push(line);
        if found {
            return read;
        }
    }
}

/// Returns the attributes of a span, an event or a point as text.
fn attributes(of: &Value) -> BTreeMap<&str, String> {
    let attributes = of["attributes"].as_array().into_iter().flatten();
    let attributes = attributes.map(|attribute| {
        let value = attribute["value"].as_object().unwrap().values().next();
        let value = value.unwrap();
        let text = value.as_str().map_or(value.to_string(), str::to_owned);
        (attribute["key"].as_str().unwrap(), text)
    });
    attributes.collect()
}

/// Returns all values at this path below the requests.
fn below<'a>(requests: &'a [Value], path: [&str; 3]) -> Vec<&'a Value> {
    let mut found: Vec<&Value> = requests.iter().collect();
    for key in path {
        let lists = found.into_iter().filter_map(|one| one[key].as_array());
        found = lists.flatten().collect();
    }
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn all_sent_data_is_decoded_and_correct() {
    let (Some(peers), Some(python)) = (switched_on("L0_PEERS"), switched_on("L0_OTLP_PYTHON"))
    else {
        return;
    };
    let address = free_address();
    let script = Path::new(&peers).join("otlp_recv.py");
    let port = address.port().to_string();
    let (mut receiver, lines) = Process::start(Command::new(python).arg(script).arg(port));
    wait_for("it listens", async || {
        let ended = receiver.0.try_wait().unwrap();
        assert!(ended.is_none(), "it has ended");
        TcpStream::connect(address).ok()
    })
    .await;

    let output = example(address).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{errors}");
    assert_eq!(errors, "");
    // The receiver has answered every request, so it has printed all content.
    drop(receiver);
    let requests: Vec<Value> = lines
        .iter()
        .map(|line| serde_json::from_str(&line).unwrap())
        .collect();
    for request in &requests {
        assert_eq!(request["unknown_fields"], 0, "{request}");
        assert_eq!(request["error"], Value::Null, "{request}");
    }
    check_spans(&requests);
    check_metrics(&requests);
}

/// Returns the spans of a trace as a tree, each with some of its attributes.
fn tree(spans: &[&Value], parent: &Value, depth: usize, shown: &[&str], tree: &mut Vec<String>) {
    let children = spans.iter();
    let children = children.filter(|span| span["parent_span_id"] == *parent);
    let mut children = Vec::from_iter(children);
    children.sort_by_key(|span| span["start_time_unix_nano"].as_str());
    for span in children {
        let mut line = format!("{}{}", "  ".repeat(depth), span["name"].as_str().unwrap());
        let attributes = attributes(span);
        for key in shown {
            if let Some(value) = attributes.get(key) {
                line.push_str(&format!("  {key}={value}"));
            }
        }
        tree.push(line);
        self::tree(spans, &span["span_id"], depth + 1, shown, tree);
    }
}

fn check_spans(requests: &[Value]) {
    let spans = below(requests, ["resource_spans", "scope_spans", "spans"]);
    let trace = &spans[0]["trace_id"];
    assert!(spans.iter().all(|span| span["trace_id"] == *trace));
    let shown = [
        "l0.outcome",
        "l0.attempts",
        "l0.fallbacks",
        "l0.source",
        "error.type",
        "gen_ai.usage.output_tokens",
    ];
    let mut lines = Vec::new();
    tree(&spans, &Value::Null, 0, &shown, &mut lines);
    println!("{}", lines.join("\n"));
    let failed = "    chat gpt-4o-mini  l0.outcome=failed  l0.source=1  error.type=partial_chunks";
    let answer = format!(
        "    chat gpt-4.1-mini  l0.outcome=completed  l0.source=2  gen_ai.usage.output_tokens={ANSWER}"
    );
    let expected = [
        "answer",
        "  l0.run  l0.outcome=completed  l0.attempts=3  l0.fallbacks=1",
        failed,
        "      POST",
        failed,
        "      POST",
        &answer,
        "      POST",
    ];
    assert_eq!(lines, expected);

    let named = |name: &str| -> Vec<&Value> {
        let spans = spans.iter().filter(|span| span["name"] == name);
        spans.copied().collect()
    };
    let (run, chat) = (named("l0.run")[0], named("chat gpt-4.1-mini")[0]);
    assert_eq!(run["kind"], "SPAN_KIND_INTERNAL");
    assert_eq!(chat["kind"], "SPAN_KIND_CLIENT");
    let codes = [run, chat].map(|span| &span["status"]["code"]);
    assert_eq!(codes, [&Value::Null; 2]);
    for failed in named("chat gpt-4o-mini") {
        assert_eq!(failed["status"]["code"], "STATUS_CODE_ERROR");
        let events = failed["events"].as_array().unwrap();
        let events: Vec<_> = events.iter().map(|event| event["name"].as_str()).collect();
        assert_eq!(events, ["l0.network_error", "exception"].map(Some));
    }
    let expected = [
        ("gen_ai.operation.name", "chat"),
        ("gen_ai.provider.name", "openai"),
        ("gen_ai.request.model", "gpt-4.1-mini"),
        ("gen_ai.request.stream", "true"),
        ("gen_ai.response.model", "gpt-4.1-mini"),
        ("l0.attempt", "3"),
    ];
    let of_chat = attributes(chat);
    for (key, value) in expected {
        assert_eq!(of_chat.get(key).map(String::as_str), Some(value), "{key}");
    }
    // The span of the run is not a model call.
    let of_run = attributes(run);
    assert!(
        of_run.keys().all(|key| !key.starts_with("gen_ai.")),
        "{of_run:?}"
    );
    let events = run["events"].as_array().unwrap();
    let events: Vec<_> = events.iter().map(|event| event["name"].as_str()).collect();
    assert_eq!(events, ["l0.retry", "l0.fallback"].map(Some));
}

fn check_metrics(requests: &[Value]) {
    let metrics = below(requests, ["resource_metrics", "scope_metrics", "metrics"]);
    // The last value of each metric, because all are cumulative.
    let metrics: BTreeMap<_, _> = metrics
        .into_iter()
        .map(|metric| (metric["name"].as_str().unwrap(), metric))
        .collect();
    let whole = |value: &Value| value.as_str().unwrap().parse::<u64>().unwrap();
    let (failing, answering) = ("gpt-4o-mini", "gpt-4.1-mini");
    let mut tokens = BTreeMap::new();
    for (name, unit, counted) in [
        ("gen_ai.client.operation.duration", "s", Some(1)),
        ("gen_ai.client.operation.time_to_first_chunk", "s", Some(1)),
        ("gen_ai.client.operation.time_per_output_chunk", "s", None),
        ("gen_ai.client.token.usage", "{token}", Some(2)),
    ] {
        let metric = metrics[name];
        assert_eq!(metric["unit"], unit, "{name}");
        let points = metric["histogram"]["data_points"].as_array().unwrap();
        let mut count = 0;
        for point in points {
            count += whole(&point["count"]);
            assert_eq!(point["explicit_bounds"].as_array().unwrap().len(), 14);
            let model = attributes(point)["gen_ai.request.model"].clone();
            match counted {
                // The run as a whole and the billed usage belong to the model that answered.
                Some(_) => assert_eq!(model, answering, "{name}"),
                None => *tokens.entry(model).or_insert(0) += whole(&point["count"]),
            }
        }
        assert!(
            counted.is_none_or(|counted| counted == count),
            "{name}: {count}"
        );
    }
    // Each attempt has one gap less than tokens. The first model has two attempts.
    assert_eq!(tokens[answering], ANSWER as u64 - 1);
    assert!(tokens[failing] > 2, "{tokens:?}");

    for (name, value) in [
        ("l0.runs", 1),
        ("l0.retries", 1),
        ("l0.fallbacks", 1),
        ("l0.network.errors", 2),
        ("l0.runs.active", 0),
    ] {
        let points = metrics[name]["sum"]["data_points"].as_array().unwrap();
        assert_eq!(points.len(), 1, "{name}");
        assert_eq!(whole(&points[0]["as_int"]), value, "{name}");
        let model = &attributes(&points[0])["gen_ai.request.model"];
        assert_eq!(model, failing, "{name}");
    }
    // A number without a conventional name has its name in core.
    let conventions = metrics.keys().filter(|name| name.starts_with("gen_ai."));
    assert_eq!(conventions.count(), 4);
    let own = metrics.keys().filter_map(|name| name.strip_prefix("l0."));
    for name in own.filter(|name| *name != "retries" && *name != "runs.active") {
        let known = Quantity::ALL.iter().any(|quantity| quantity.name == name);
        assert!(known, "{name}");
    }
}

#[test]
fn the_answer_does_not_wait_for_a_missing_collector() {
    let output = example(free_address()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{text}{errors}");
    assert!(text.contains("outcome: completed"), "{text}");
    assert!(errors.contains("were not exported"), "{errors}");
}

#[test]
fn the_answer_does_not_wait_for_a_silent_endpoint() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = listener.local_addr().unwrap();
    let mut command = example(endpoint);
    // Exports everything immediately.
    command
        .env("OTEL_BSP_SCHEDULE_DELAY", "1")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "1");
    let (mut process, lines) = Process::start(command.stderr(Stdio::piped()));
    let (sender, asked) = channel();
    thread::spawn(move || sender.send((listener.accept(), listener)));
    // The exporter has sent a request and receives no answer until the chat has ended.
    let asked = asked.recv_timeout(DEADLINE).expect("it connects");
    let read = read_until(&lines, "outcome: ");
    assert_eq!(read.last().unwrap(), "outcome: completed");
    drop(asked);
    let status = process.0.wait().unwrap();
    let mut errors = String::new();
    let stderr = process.0.stderr.take().unwrap();
    BufReader::new(stderr).read_to_string(&mut errors).unwrap();
    assert!(status.success(), "{errors}");
}
