//! Compares spans with two files after they were encoded as OTLP and decoded again. `spans.txt` has each way a
//! run can end. `attempts.txt` has each way an attempt can end: as the only attempt, after a retry, after a
//! fallback, and of a call.
//!
//! `L0_WRITE=1` rewrites the files.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::fmt::Write as _;
use std::io::ErrorKind;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;

use common::{MS, Sdk};
use futures_util::FutureExt;
use l0_core::testing::{Script, ScriptedAttempt, ScriptedToken, exits};
use l0_core::{
    Backoff, Check, Failure, Findings, FinishReason, L0, Monitoring, Retry, RunHandle, Severity,
    Source, Timeouts, TokenKind, Usage, Violation, keys, source,
};
use l0_otel::{LANGFUSE, OPENINFERENCE, SIGNOZ};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use prost::Message;
use tokio::runtime::{Builder, Runtime};

/// Returns a value as text. Times are replaced if the clock could not be paused.
fn text(value: &AnyValue, has_times: bool) -> String {
    match value.value.as_ref().unwrap() {
        Value::StringValue(text) => text.clone(),
        Value::BoolValue(flag) => flag.to_string(),
        Value::IntValue(count) => count.to_string(),
        Value::DoubleValue(number) if has_times => number.to_string(),
        Value::DoubleValue(_) => "(double)".to_owned(),
        Value::ArrayValue(list) => {
            let items = list.values.iter().map(|one| text(one, has_times));
            format!("[{}]", Vec::from_iter(items).join(", "))
        }
        other => panic!("{other:?}"),
    }
}

fn attributes(all: &[KeyValue], indent: &str, has_times: bool) -> String {
    let lines = all.iter().map(|one| {
        let value = match &*one.key {
            "l0.session_id" => "(id)".to_owned(),
            "langfuse.observation.completion_start_time" => "(time)".to_owned(),
            _ => text(one.value.as_ref().unwrap(), has_times),
        };
        format!("{indent}{} = {value}\n", one.key)
    });
    let mut lines = Vec::from_iter(lines);
    lines.sort();
    let before = lines.len();
    lines.dedup_by(|one, other| one.split(" =").next() == other.split(" =").next());
    assert_eq!(lines.len(), before, "an attribute is set twice");
    lines.concat()
}

fn describe(span: &Span, has_times: bool) -> String {
    let mut lines = format!("  {} ({})\n", span.name, span.kind().as_str_name());
    let status = span
        .status
        .as_ref()
        .map(|status| (status.code(), &status.message));
    if let Some((code, message)) = status {
        if !message.is_empty() {
            writeln!(lines, "    {}: {message}", code.as_str_name()).unwrap();
        }
    }
    lines += &attributes(&span.attributes, "    ", has_times);
    for event in &span.events {
        writeln!(lines, "    event {}", event.name).unwrap();
        lines += &attributes(&event.attributes, "      ", has_times);
    }
    lines
}

/// Returns the exported spans as an OTLP receiver decodes them.
fn decoded(sdk: &Sdk, what: &str, has_times: bool) -> String {
    let resource = ResourceAttributesWithSchema::default();
    let resource_spans = group_spans_by_resource_and_scope(sdk.spans(), &resource);
    let sent = ExportTraceServiceRequest { resource_spans };
    let decoded = ExportTraceServiceRequest::decode(&*sent.encode_to_vec()).unwrap();
    assert_eq!(decoded, sent, "{what}");
    let resources = decoded.resource_spans.iter();
    let scopes = resources.flat_map(|one| &one.scope_spans);
    let spans = scopes.flat_map(|scope| &scope.spans);
    let mut spans = Vec::from_iter(spans.map(|span| describe(span, has_times)));
    // The span of the run ends last, but is listed first.
    spans.rotate_right(1);
    format!("{what}\n{}\n", spans.concat())
}

fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn the_spans_of_every_exit_match_the_file() {
    let mut lines = String::new();
    for exit in exits::all() {
        let sdk = Sdk::new();
        let otel = sdk.builder().dialect(&LANGFUSE).dialect(&OPENINFERENCE);
        let builder = L0::builder()
            .monitoring(common::with_model(Monitoring::new()))
            .interceptor(otel.dialect(&SIGNOZ).build());
        let exited = exit.run(paused(), builder);
        assert_eq!(exited.info.observer_panics(), 0, "{exit}");
        lines += &decoded(&sdk, &exit.to_string(), false);
    }
    common::assert_is("tests/spans.txt", &lines);
}

/// The attempts before the last one, or a call instead of a run.
#[derive(Debug, Clone, Copy)]
enum Shape {
    OneAttempt,
    Retry,
    Fallback,
    Call,
}

/// The action of the test during the last attempt.
#[derive(Clone, Copy)]
enum Action {
    Reads,
    Aborts,
    Drops,
}

/// The script of the last attempt.
type Last = fn(ScriptedAttempt) -> ScriptedAttempt;

/// The ways an attempt can end: the script of the source and the action of the test.
#[rustfmt::skip]
const WAYS: &[(&str, Last, Action)] = &[
    ("completed", answers, Action::Reads),
    ("completed by a token limit", |a| a.token("a").finish(FinishReason::Length), Action::Reads),
    ("completed by a refusal of the model", |a| a.finish(FinishReason::Refusal), Action::Reads),
    ("truncated", |a| a.token("a"), Action::Reads),
    ("empty answer", |a| a.token(" ").finish(FinishReason::Stop), Action::Reads),
    ("error while connecting", |a| a.connect_error(Failure::status(401)), Action::Reads),
    ("error in mid-stream", |a| a.token("a").fail(ErrorKind::ConnectionReset), Action::Reads),
    ("server error", |a| a.wait(5 * MS).fail(Failure::status(503)), Action::Reads),
    ("rate limit", |a| a.connect_error(Failure::status(429)), Action::Reads),
    ("unknown error", |a| a.token("a").fail("odd"), Action::Reads),
    ("faulty answer", |a| a.token("a").fail(Failure::model()), Action::Reads),
    ("halted by a rule", |a| a.token("bad").finish(FinishReason::Stop), Action::Reads),
    ("first-token or answer timeout", |a| a.connect_hang(), Action::Reads),
    ("inter-token or answer timeout", |a| a.token("a").hang(), Action::Reads),
    ("panic", |a| a.token("a").panic("at the source"), Action::Reads),
    ("aborted before the first token", |a| a.connect_hang(), Action::Aborts),
    ("aborted", |a| a.token("a").hang(), Action::Aborts),
    ("dropped before the first token", |a| a.connect_hang(), Action::Drops),
    ("dropped", |a| a.token("a").hang(), Action::Drops),
];

fn answers(attempt: ScriptedAttempt) -> ScriptedAttempt {
    let mut first = ScriptedToken::new(TokenKind::Text, "a");
    first.model = Some("gpt-4o-2024-08-06".to_owned());
    first.response_id = Some("resp_1".to_owned());
    let usage = Usage::new().input(12).output(3).total(15);
    let usage = usage.cached_input(5).cache_write_input(4).reasoning(1);
    let attempt = attempt.wait(5 * MS).item(first).wait(5 * MS).token("b");
    attempt.usage(usage).finish(FinishReason::Stop)
}

/// A rule that halts a run.
struct Halts;

impl Check for Halts {
    fn name(&self) -> &'static str {
        "halts"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<Violation>) {
        if delta == "bad" {
            let violation = Violation::new("halts", Severity::Fatal, "it is bad");
            findings.report(violation.recoverable(false));
        }
    }
}

/// Runs the last attempt to its end, and returns the spans.
async fn ended(shape: Shape, last: Last, action: Action) -> Sdk {
    let sdk = Sdk::new();
    let retries = u32::from(matches!(shape, Shape::Retry));
    let l0 = L0::builder()
        .monitoring(common::with_model(Monitoring::new()))
        .retry(
            Retry::new()
                .model_retries(0)
                .max_retries(retries)
                .backoff(Backoff::fixed(2 * MS)),
        )
        .timeouts(
            Timeouts::new()
                .first_token(50 * MS)
                .inter_token(50 * MS)
                .answer(50 * MS),
        )
        .guardrails(|| Halts)
        .interceptor(sdk.builder().build())
        .build();
    let before = |a: ScriptedAttempt| {
        let usage = Usage::new().input(12).output(1).total(13);
        let a = a.wait(MS).token("lost").wait(MS).token("too");
        a.usage(usage).fail(ErrorKind::ConnectionReset)
    };
    let script = match shape {
        Shape::Retry => Script::new().attempt(before).attempt(last),
        _ => Script::new().attempt(last),
    };
    let first = match shape {
        Shape::Fallback => Script::new().attempt(before),
        _ => script.clone(),
    };
    let (handle, reading): (RunHandle, Pin<Box<dyn Future<Output = ()>>>) = match shape {
        Shape::Call => {
            let call = l0.call(script.answers()).start();
            (call.handle(), Box::pin(call.map(drop)))
        }
        _ => {
            let mut run = l0.stream(first.source()).expect_finish();
            if let Shape::Fallback = shape {
                let other = source(script.source()).metadata(keys::MODEL, "claude");
                run = run.fallback(other.metadata(keys::PROVIDER, "anthropic"));
            }
            let mut run = run.start();
            let handle = run.handle();
            (handle, Box::pin(async move { drop(run.text().await) }))
        }
    };
    let reading = AssertUnwindSafe(reading).catch_unwind();
    match action {
        Action::Reads => drop(reading.await),
        Action::Drops => drop(tokio::time::timeout(20 * MS, reading).await),
        Action::Aborts => {
            let abort = async {
                tokio::time::sleep(20 * MS).await;
                handle.abort();
            };
            drop(futures_util::join!(reading, abort));
        }
    }
    assert_eq!(l0.observer_panics(), 0);
    sdk
}

#[test]
fn the_spans_of_every_way_an_attempt_can_end_match_the_file_for_every_shape_of_a_run() {
    // Silences the intended panics of the sources.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let mut lines = String::new();
    for (name, last, action) in WAYS {
        for shape in [
            Shape::OneAttempt,
            Shape::Retry,
            Shape::Fallback,
            Shape::Call,
        ] {
            let what = match shape {
                Shape::OneAttempt => (*name).to_owned(),
                Shape::Retry => format!("{name}, after a retry"),
                Shape::Fallback => format!("{name}, after a fallback"),
                Shape::Call => format!("{name}, of a call"),
            };
            let sdk = paused().block_on(ended(shape, *last, *action));
            lines += &decoded(&sdk, &what, true);
        }
    }
    std::panic::set_hook(hook);
    common::assert_is("tests/attempts.txt", &lines);
}
