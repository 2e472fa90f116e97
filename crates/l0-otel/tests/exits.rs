//! Each way a run can end, measured and not measured: one span for the run and for each attempt, each ended
//! once, and exactly the expected points.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::io::ErrorKind;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use common::{
    MS, Sdk, attempt_number_attributes, length, nanos, number_attributes, own_points, value,
    with_model,
};
use l0_core::testing::exits::{self, Exit, Exited};
use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{AttemptStats, End, FinishReason, L0, Monitoring, Outcome, Usage};
use l0_otel::OtelInterceptor;
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, SpanKind, Status, Tracer};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::SpanData;
use tokio::runtime::{Builder, Runtime};

/// Returns a runtime with a paused clock, so times are exact.
fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// Returns the error type of a run that failed. An abort is not a failure.
fn error_type(end: &End) -> Option<Cow<'static, str>> {
    end.error_type().filter(|_| end.is_failure())
}

/// Returns the events of the run's span, and of the spans of its attempts.
fn span_events(events: &[OwnedEvent]) -> (Vec<&'static str>, Vec<Vec<&'static str>>) {
    let (mut of_run, mut of_attempts) = (Vec::new(), Vec::<Vec<_>>::new());
    let mut is_open = false;
    for event in events {
        let name = match event {
            OwnedEvent::AttemptStarted { .. } => {
                of_attempts.push(Vec::new());
                is_open = true;
                continue;
            }
            OwnedEvent::AttemptFinished { attempt, .. } => {
                let failed = attempt.outcome.is_some_and(Outcome::is_failure);
                if let Some(of_attempt) = of_attempts.last_mut().filter(|_| failed) {
                    of_attempt.push("exception");
                }
                is_open = false;
                continue;
            }
            OwnedEvent::Finished { end, .. } if end.is_failure() => {
                of_run.push("exception");
                continue;
            }
            OwnedEvent::NetworkError { .. } => "l0.network_error",
            OwnedEvent::Retry { .. } => "l0.retry",
            OwnedEvent::Fallback { .. } => "l0.fallback",
            OwnedEvent::Violation { .. } => "l0.violation",
            OwnedEvent::Drift { .. } => "l0.drift",
            _ => continue,
        };
        match of_attempts.last_mut().filter(|_| is_open) {
            Some(of_attempt) => of_attempt.push(name),
            None => of_run.push(name),
        }
    }
    (of_run, of_attempts)
}

fn event_names(span: &SpanData) -> Vec<&str> {
    span.events.iter().map(|event| &*event.name).collect()
}

/// Returns the known values by key.
fn known<const N: usize>(entries: [(&str, Option<Cow<'_, str>>); N]) -> BTreeMap<String, String> {
    let known = entries.into_iter();
    known
        .filter_map(|(key, value)| Some((key.to_owned(), value?.into_owned())))
        .collect()
}

/// Returns all attributes of the run's span.
fn run_attributes(exit: &Exit, exited: &Exited) -> BTreeMap<String, String> {
    let mut all = known([
        ("l0.session_id", Some(exited.info.id().into())),
        ("l0.outcome", Some(exit.end.outcome().as_str().into())),
        (
            "l0.attempts",
            Some(exit.count("attempt_started").to_string().into()),
        ),
        ("error.type", error_type(&exit.end)),
        // Without a `Keep` of the application, every run is kept.
        ("l0.kept", Some("rate".into())),
    ]);
    let telemetry = exited.handle.telemetry();
    all.extend(telemetry.iter().flat_map(number_attributes));
    all
}

/// Returns the finish reason of the model. Without one, an attempt that did not complete after its first token
/// has `error` if it failed, and otherwise its outcome.
fn finish_reason(attempt: &AttemptStats) -> Option<&'static str> {
    let reason = attempt.finish_reason.map(FinishReason::as_str);
    let cut = match attempt.outcome? {
        Outcome::Completed => None,
        outcome if outcome.is_failure() => Some("error"),
        outcome => Some(outcome.as_str()),
    };
    reason.or(cut.filter(|_| attempt.tokens > 0))
}

/// Returns all attributes of an attempt's span.
fn attempt_attributes(exited: &Exited, attempt: &AttemptStats) -> BTreeMap<String, String> {
    let error = attempt.error.as_ref();
    let error = error.filter(|_| attempt.outcome.is_some_and(Outcome::is_failure));
    let measured = exited.info.measured();
    let finish = finish_reason(attempt).filter(|_| measured);
    let mut all = known([
        ("gen_ai.operation.name", Some("chat".into())),
        (
            "gen_ai.provider.name",
            attempt.provider.as_deref().map(Cow::from),
        ),
        (
            "gen_ai.request.model",
            attempt.model.as_deref().map(Cow::from),
        ),
        (
            "gen_ai.request.stream",
            Some((!exited.info.is_call()).to_string().into()),
        ),
        (
            "gen_ai.response.model",
            attempt.response_model.as_deref().map(Cow::from),
        ),
        (
            "gen_ai.response.id",
            attempt.response_id.as_deref().map(Cow::from),
        ),
        (
            "gen_ai.response.finish_reasons",
            finish.map(|reason| format!("[\"{reason}\"]").into()),
        ),
        ("l0.session_id", Some(exited.info.id().into())),
        ("l0.attempt", Some(attempt.number.to_string().into())),
        ("l0.source", Some(attempt.source.to_string().into())),
        (
            "l0.outcome",
            attempt.outcome.map(|outcome| outcome.as_str().into()),
        ),
        ("error.type", error.map(|error| error.error_type.clone())),
    ]);
    if measured {
        all.extend(attempt_number_attributes(attempt));
    }
    all
}

fn attributes(span: &SpanData) -> BTreeMap<String, String> {
    let sent = span.attributes.iter();
    let sent = sent.map(|one| (one.key.to_string(), one.value.as_str().into_owned()));
    let sent = BTreeMap::from_iter(sent);
    assert_eq!(
        sent.len(),
        span.attributes.len(),
        "an attribute is set twice"
    );
    sent
}

fn status(message: Option<&str>) -> Status {
    match message {
        Some(message) => Status::error(message.to_owned()),
        None => Status::Unset,
    }
}

/// Returns a point with these attributes, of the source with this number. The model of a fallback is unknown.
fn point(name: &str, source: u32, attributes: &[Option<&str>], value: impl fmt::Display) -> String {
    let unknown = (source > 1).then_some("?");
    let all = [unknown].into_iter().chain(attributes.iter().copied());
    let all = all.flatten();
    let all = all.filter(|attribute| !attribute.is_empty());
    format!("{name}[{}] {value}", Vec::from_iter(all).join(" "))
}

/// Returns all points.
fn points(exit: &Exit, exited: &Exited, events: &[OwnedEvent]) -> Vec<String> {
    let outcome = exit.end.outcome();
    let outcome = format!("l0.outcome={outcome}");
    let error_type = error_type(&exit.end);
    let error_type = error_type.map(|error_type| format!("error.type={error_type}"));
    let error_type = error_type.as_deref();
    // Events are counted even if the run is not measured.
    let mut counts = BTreeMap::<(&str, u32, String), u64>::new();
    let mut count = |name, source, attributes: String| {
        *counts.entry((name, source, attributes)).or_default() += 1;
    };
    let mut gaps = BTreeMap::<u32, Vec<Duration>>::new();
    let mut first_token = None;
    let mut last = 1;
    count("l0.runs", 1, outcome.clone());
    for event in events {
        match event {
            OwnedEvent::AttemptStarted { source, .. } => last = *source,
            OwnedEvent::Retry { reason, kind, .. } => {
                let what = format!("l0.retry.kind={kind} l0.retry.reason={reason}");
                count("l0.retries", last, what);
            }
            OwnedEvent::Fallback { .. } => {
                let pair = "l0.fallback.from=gpt-4o l0.fallback.to=2";
                count("l0.fallbacks", last, pair.to_owned());
            }
            OwnedEvent::NetworkError { kind, .. } => {
                count("l0.network.errors", last, format!("error.type={kind}"));
            }
            OwnedEvent::Violation { violation, .. } => {
                let what = format!(
                    "l0.rule={} l0.severity={}",
                    violation.rule, violation.severity
                );
                count("l0.guardrails.violations", last, what);
            }
            OwnedEvent::Drift { .. } => count("l0.drift.detected", last, String::new()),
            OwnedEvent::FirstToken { after, .. } => first_token = *after,
            OwnedEvent::Token { gap, .. } => gaps.entry(last).or_default().extend(*gap),
            _ => {}
        }
    }
    if let Some(error_type) = error_type {
        count("l0.failures", last, error_type.to_owned());
    }
    let counts = counts.into_iter();
    let counts = counts.map(|((name, source, attributes), count)| {
        point(name, source, &[Some(&*attributes)], count)
    });
    let mut points = Vec::from_iter(counts);
    points.push("l0.runs.active[] 0".to_owned());

    if let Some(telemetry) = exited.handle.telemetry() {
        telemetry.by_source(&mut |part| {
            let source = part.source;
            let answered = part.telemetry.attempts.last();
            let model = answered.and_then(|attempt| attempt.response_model.as_deref());
            let model = model.map(|model| format!("gen_ai.response.model={model}"));
            let model = model.as_deref();
            let mut measure = |name: &str, attributes: [Option<&str>; 3], value: String| {
                let name = format!("gen_ai.client.{name}");
                points.push(point(&name, source, &attributes, value));
            };
            let seconds = |duration: Duration| nanos(duration.as_secs_f64());
            if source == last {
                // If the clock could not be paused, only the telemetry has the exact duration.
                let duration = exit.duration.or(telemetry.duration).unwrap();
                measure(
                    "operation.duration",
                    [error_type, model, Some(&outcome)],
                    format!("1 x {}", seconds(duration)),
                );
            }
            if let Some(after) = first_token.filter(|_| source == last) {
                measure(
                    "operation.time_to_first_chunk",
                    [model, None, None],
                    format!("1 x {}", seconds(after)),
                );
            }
            let gaps = gaps.remove(&source).unwrap_or_default();
            if !gaps.is_empty() {
                measure(
                    "operation.time_per_output_chunk",
                    [model, None, None],
                    format!("{} x {}", gaps.len(), seconds(gaps.iter().sum())),
                );
            }
            let usage = part.telemetry.billed().unwrap_or_default();
            for (token_type, tokens) in [("input", usage.input), ("output", usage.output)] {
                let token_type = format!("gen_ai.token.type={token_type}");
                if let Some(tokens) = tokens {
                    measure(
                        "token.usage",
                        [model, Some(&token_type), None],
                        format!("1 x {tokens}"),
                    );
                }
            }
            let unknown = (source > 1).then_some("?");
            let attributes = unknown.into_iter().chain(model);
            let attributes = Vec::from_iter(attributes).join(" ");
            points.extend(own_points(part.telemetry, &attributes));
        });
    }
    points.sort();
    points
}

fn check(exit: &Exit, measurement: &str, monitoring: Monitoring) {
    let what = format!("{exit}, {measurement}");
    let sdk = Sdk::new();
    let captured = Captured::new();
    let builder = sdk.l0().to_builder().monitoring(with_model(monitoring));
    let exited = exit.run(paused(), builder.interceptor(captured.clone()));
    assert_eq!(exited.info.observer_panics(), 0, "{what}");
    let events = captured.events();
    let measured = measurement == "measured";
    assert_eq!(exited.handle.telemetry().is_some(), measured, "{what}");

    let run = sdk.run();
    assert_eq!(run.span_kind, SpanKind::Internal, "{what}");
    let message = exit.end.message().filter(|_| exit.end.is_failure());
    assert_eq!(run.status, status(message), "{what}");
    if let Some(duration) = exit.duration {
        assert_eq!(length(&run), duration, "{what}");
    }
    let (of_run, of_attempts) = span_events(&events);
    assert_eq!(event_names(&run), of_run, "{what}");
    assert_eq!(attributes(&run), run_attributes(exit, &exited), "{what}");

    let finished = events.iter().filter_map(|event| match event {
        OwnedEvent::AttemptFinished { attempt, .. } => Some(attempt),
        _ => None,
    });
    let finished = Vec::from_iter(finished);
    let attempts = sdk.attempts();
    let started = exit.count("attempt_started") as usize;
    assert_eq!(
        (attempts.len(), finished.len(), of_attempts.len()),
        (started, started, started),
        "{what}"
    );
    assert_eq!(sdk.spans().len(), 1 + started, "{what}");
    for ((span, attempt), expected_events) in attempts.iter().zip(finished).zip(of_attempts) {
        // The model of a fallback is unknown.
        let known = attempt.source == 1;
        let name = if known { "chat gpt-4o" } else { "chat" };
        assert_eq!(span.name, name, "{what}");
        assert_eq!(attempt.model.is_some(), known, "{what}");
        assert_eq!(span.span_kind, SpanKind::Client, "{what}");
        assert_eq!(span.parent_span_id, run.span_context.span_id(), "{what}");
        let failed = attempt.outcome.unwrap().is_failure();
        let error = attempt.error.as_ref().filter(|_| failed);
        let message = error.map(|error| &*error.message);
        assert_eq!(span.status, status(message), "{what}");
        if let (Some(start), Some(duration), true) = (
            attempt.start_offset,
            attempt.duration,
            exit.duration.is_some(),
        ) {
            let after = span.start_time.duration_since(run.start_time);
            assert_eq!((after.unwrap(), length(span)), (start, duration), "{what}");
        }
        assert_eq!(event_names(span), expected_events, "{what}");
        let expected = attempt_attributes(&exited, attempt);
        assert_eq!(attributes(span), expected, "{what}");
    }

    // The points of a fallback have other attributes, which `fallback.rs` checks.
    if exit.count("fallback") == 0 {
        assert_eq!(sdk.points(), points(exit, &exited, &events), "{what}");
    }
}

#[test]
fn every_exit_has_a_span_for_the_run_and_each_attempt_and_the_exact_points() {
    for exit in exits::all() {
        check(&exit, "measured", Monitoring::new());
        check(&exit, "sampled out", Monitoring::new().sample_rate(0.0));
        check(&exit, "off", Monitoring::off());
    }
}

/// A tracer whose spans count their ends. The SDK's spans ignore a second end.
#[derive(Clone, Default)]
struct Ends(Arc<Mutex<Vec<Arc<AtomicU32>>>>);

/// The number of times that the span was ended.
struct CountedSpan(Arc<AtomicU32>);

impl CountedSpan {
    fn is_open(&self) {
        assert_eq!(self.0.load(Ordering::Relaxed), 0, "it has ended");
    }
}

impl Tracer for Ends {
    type Span = CountedSpan;

    fn build_with_context(&self, _: SpanBuilder, _: &Context) -> CountedSpan {
        let ends = Arc::new(AtomicU32::new(0));
        self.0.lock().unwrap().push(Arc::clone(&ends));
        CountedSpan(ends)
    }
}

impl Span for CountedSpan {
    fn add_event_with_timestamp<T>(&mut self, _: T, _: SystemTime, _: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
        self.is_open();
    }

    fn span_context(&self) -> &SpanContext {
        &SpanContext::NONE
    }

    fn is_recording(&self) -> bool {
        true
    }

    fn set_attribute(&mut self, _: KeyValue) {
        self.is_open();
    }

    fn set_status(&mut self, _: Status) {
        self.is_open();
    }

    fn update_name<T: Into<Cow<'static, str>>>(&mut self, _: T) {}

    fn add_link(&mut self, _: SpanContext, _: Vec<KeyValue>) {}

    fn end_with_timestamp(&mut self, _: SystemTime) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn every_exit_ends_each_span_once_and_does_not_change_it_afterwards() {
    for exit in exits::all() {
        let ends = Ends::default();
        let otel = OtelInterceptor::builder().tracer(ends.clone());
        let exited = exit.run(paused(), L0::builder().interceptor(otel.build()));
        let ends = ends.0.lock().unwrap();
        let ends = ends.iter().map(|ends| ends.load(Ordering::Relaxed));
        let expected = vec![1; 1 + exit.count("attempt_started") as usize];
        assert_eq!(Vec::from_iter(ends), expected, "{exit}");
        assert_eq!(exited.info.observer_panics(), 0, "{exit}");
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_without_a_name_in_the_conventions_are_sent_under_their_own() {
    let sdk = Sdk::new();
    let script = Script::new()
        .attempt(|a| {
            let thrown_away = Usage::new().input(12).output(1).total(13);
            let a = a.token("a").usage(thrown_away);
            a.fail(ErrorKind::ConnectionReset)
        })
        .attempt(|a| {
            let usage = Usage::new().input(12).output(3).total(15);
            a.wait(10 * MS)
                .reasoning("hm")
                .wait(8 * MS)
                .token("a")
                .wait(2 * MS)
                .token("c")
                .usage(usage.cached_input(5).cache_write_input(4).reasoning(1))
        });
    sdk.l0()
        .stream(script.source())
        .start()
        .text()
        .await
        .unwrap();

    let points = sdk.points();
    for point in [
        "gen_ai.client.token.usage[gen_ai.token.type=input] 1 x 24",
        "gen_ai.client.token.usage[gen_ai.token.type=output] 1 x 4",
        "l0.attempt_time_to_first_token[] 2 x 0.01",
        "l0.attempts[l0.result=completed] 1",
        "l0.attempts[l0.result=failed] 1",
        "l0.output_tokens.per_second[] 1 x 200",
        "l0.time_to_first_text[] 1 x 0",
        "l0.tokens.total[] 4",
        "l0.tokens.wasted[] 1",
        "l0.usage.cache_write_input[] 4",
        "l0.usage.cached_input[] 5",
        "l0.usage.reasoning[] 1",
        "l0.usage.total[] 28",
        "l0.usage.wasted_input[] 12",
        "l0.usage.wasted_output[] 1",
        "l0.wait[] 0.025",
    ] {
        assert!(points.contains(&point.to_owned()), "{point}: {points:#?}");
    }
    // Numbers that are counted as they happen are not counted again.
    for name in ["l0.retries.", "l0.network.errors_by", "l0.usage.input"] {
        let again = points.iter().find(|point| point.starts_with(name));
        assert_eq!(again, None);
    }

    let run = sdk.run();
    for (key, expected) in [
        ("l0.attempts", Some("2")),
        ("l0.inter_token.avg", Some("0.005")),
        ("l0.inter_token.max", Some("0.008")),
        ("l0.retries.network", Some("1")),
        ("l0.retries.model", Some("0")),
        ("l0.time_to_first_text", Some("0")),
        ("l0.time_to_first_token", Some("0")),
        ("l0.usage.wasted_input", Some("12")),
        ("l0.usage.wasted_output", Some("1")),
        ("l0.tokens.wasted", Some("1")),
        ("l0.wait", Some("0.025")),
        // No rule checked the text.
        ("l0.guardrails.violations", None),
        ("l0.duration", None),
        // The spans of attempts have these.
        ("l0.usage.input", None),
        ("l0.usage.total", None),
        ("gen_ai.usage.input_tokens", None),
    ] {
        assert_eq!(value(&run.attributes, key).as_deref(), expected, "{key}");
    }
    let attempts = sdk.attempts();
    for (key, expected) in [
        ("gen_ai.usage.input_tokens", [Some("12"), Some("12")]),
        ("gen_ai.usage.output_tokens", [Some("1"), Some("3")]),
        (
            "gen_ai.usage.cache_creation.input_tokens",
            [None, Some("4")],
        ),
        ("gen_ai.usage.cache_write.input_tokens", [None, Some("4")]),
        ("gen_ai.usage.cache_read.input_tokens", [None, Some("5")]),
        ("gen_ai.usage.reasoning.output_tokens", [None, Some("1")]),
        (
            "gen_ai.response.time_to_first_chunk",
            [Some("0"), Some("0.01")],
        ),
        ("l0.usage.total", [Some("13"), Some("15")]),
        ("l0.attempt_tokens", [Some("1"), Some("3")]),
    ] {
        let sent = attempts.iter().map(|span| value(&span.attributes, key));
        let expected = expected.map(|value| value.map(str::to_owned));
        assert_eq!(Vec::from_iter(sent), expected, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_live_run_is_active_and_its_span_has_not_ended() {
    let sdk = Sdk::new();
    let run = sdk.l0().stream(Script::new().source()).start();
    assert_eq!(sdk.points(), ["l0.runs.active[] 1"]);
    assert!(sdk.spans().is_empty());
    drop(run);
    assert_eq!(sdk.runs().len(), 1);
}
