//! Runs with several sources: each attempt's span has its own model, and each token is counted once, under the
//! model that generated it.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use common::{MS, Sdk, value};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Backoff, Check, Failure, Findings, L0, Monitoring, Outcome, Retry, Severity, Source, TokenKind,
    Usage, Violation, keys, source,
};
use opentelemetry::trace::{SpanKind, Status};
use opentelemetry_sdk::trace::SpanData;

/// The way the last source of a run ends. The sources before it fail in mid-stream with an error that is not
/// retried.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Way {
    Ok,
    FailsBeforeTheFirstToken,
    FailsInMidStream,
    RateLimited,
    HaltedByARule,
    AbortedInABackOff,
    Dropped,
}

use Way::{
    AbortedInABackOff, Dropped, FailsBeforeTheFirstToken, FailsInMidStream, HaltedByARule, Ok,
    RateLimited,
};

const WAYS: [Way; 7] = [
    Ok,
    FailsBeforeTheFirstToken,
    FailsInMidStream,
    RateLimited,
    HaltedByARule,
    AbortedInABackOff,
    Dropped,
];

impl Way {
    /// Returns the attempts of the last source, as outcome and error type, and the outcome of the run.
    fn attempts(self) -> (Vec<(Outcome, Option<&'static str>)>, Outcome) {
        let (failed, limited) = (Outcome::Failed, (Outcome::Failed, Some("rate_limited")));
        match self {
            Ok => (vec![(Outcome::Completed, None)], Outcome::Completed),
            FailsBeforeTheFirstToken | FailsInMidStream => (vec![(failed, Some("401"))], failed),
            RateLimited => (vec![limited, limited], failed),
            HaltedByARule => (vec![(failed, Some("guardrail_violation"))], failed),
            AbortedInABackOff => (vec![limited], Outcome::Aborted),
            Dropped => (vec![(Outcome::Dropped, None)], Outcome::Dropped),
        }
    }

    /// Returns `true` if its attempts report usage.
    fn answers(self) -> bool {
        !matches!(
            self,
            FailsBeforeTheFirstToken | RateLimited | AbortedInABackOff
        )
    }
}

/// Returns the numbers of tokens that a source reports.
fn usage(number: usize) -> (u64, u64) {
    (10 * number as u64, number as u64)
}

fn script(number: usize, way: Way) -> Script {
    Script::new().attempt(|a| {
        let mut first = ScriptedToken::new(TokenKind::Text, "a");
        let (input, output) = usage(number);
        first.usage = Some(Usage::new().input(input).output(output));
        first.model = Some(format!("m{number}-answers"));
        match way {
            Ok => a.wait(MS).item(first).wait(MS).token("b"),
            FailsBeforeTheFirstToken => a.connect_error(Failure::status(401)),
            FailsInMidStream => a.wait(MS).item(first).fail(Failure::status(401)),
            RateLimited | AbortedInABackOff => a.connect_error(Failure::status(429)),
            HaltedByARule => a.item(first).token("{").hang(),
            Dropped => a.item(first).hang(),
        }
    })
}

/// A rule that rejects a brace.
struct NoBrace;

impl Check for NoBrace {
    fn name(&self) -> &'static str {
        "no brace"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains('{') {
            let mut violation = Violation::new("no brace", Severity::Fatal, "a brace");
            violation.recoverable = false;
            findings.report(violation);
        }
    }
}

/// Runs this many sources, with the models `m1`, `m2` and so on.
async fn run(sdk: &Sdk, sources: usize, way: Way, monitoring: Monitoring) {
    let l0 = L0::builder()
        .monitoring(monitoring.metadata(keys::PROVIDER, "openai"))
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(5 * MS)))
        .guardrails(|| NoBrace)
        .interceptor(sdk.builder().build())
        .interceptor(sdk.stores_ends())
        .build();
    let way_of = |number| {
        if number == sources {
            way
        } else {
            FailsInMidStream
        }
    };
    let of = |number| script(number, way_of(number)).source();
    let model = |number| format!("m{number}");
    let mut builder = l0.stream(of(1)).metadata(keys::MODEL, model(1));
    for number in 2..=sources {
        let next = source(of(number)).metadata(keys::MODEL, model(number));
        builder = builder.fallback(next.metadata(keys::PROVIDER, "anthropic"));
    }
    let mut run = builder.start();
    match way {
        AbortedInABackOff => {
            let handle = run.handle();
            let read = async { while run.next().await.is_some() {} };
            let abort = async {
                // Each source before it takes one millisecond.
                tokio::time::sleep(sources as u32 * MS + MS).await;
                handle.abort();
            };
            tokio::join!(read, abort);
        }
        Dropped => {
            let read = async { while run.next().await.is_some() {} };
            let waited = Duration::from_millis(100);
            tokio::time::timeout(waited, read).await.unwrap_err();
        }
        _ => while run.next().await.is_some() {},
    }
    drop(run);
    assert_eq!(l0.observer_panics(), 0);
}

/// A row of the table, for messages of failed assertions.
struct Row(usize, Way, bool);

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(sources, way, measured) = self;
        write!(f, "{sources} sources, {way:?}, measured: {measured}")
    }
}

fn of<'a>(span: &'a SpanData) -> impl Fn(&str) -> Option<String> + 'a {
    |key| value(&span.attributes, key)
}

/// Adds up an attribute of spans.
fn sum(spans: &[SpanData], key: &str) -> Option<u64> {
    let known = spans.iter().filter_map(|span| of(span)(key));
    known
        .map(|count| count.parse::<u64>().unwrap())
        .reduce(|a, b| a + b)
}

#[tokio::test(start_paused = true)]
async fn each_attempt_has_its_own_model_status_and_usage() {
    for (sources, way) in (1..=3).flat_map(|sources| WAYS.map(|way| (sources, way))) {
        for measured in [true, false] {
            let row = Row(sources, way, measured);
            let sdk = Sdk::new();
            let share = f64::from(u8::from(measured));
            run(&sdk, sources, way, Monitoring::new().sample_rate(share)).await;
            check_spans(&sdk, &row);
        }
    }
}

fn check_spans(sdk: &Sdk, row: &Row) {
    let Row(sources, way, measured) = *row;
    let (last, outcome) = way.attempts();
    let failed = (1..sources).map(|number| (number, Outcome::Failed, Some("401")));
    let last = last
        .into_iter()
        .map(|(outcome, error)| (sources, outcome, error));
    let expected = Vec::from_iter(failed.chain(last));

    let (run, attempts) = (sdk.run(), sdk.attempts());
    assert_eq!(attempts.len(), expected.len(), "{row}");
    assert_eq!(sdk.spans().len(), 1 + attempts.len(), "{row}");
    assert_eq!(of(&run)("l0.outcome").unwrap(), outcome.as_str(), "{row}");
    let is_error = matches!(run.status, Status::Error { .. });
    assert_eq!(is_error, outcome.is_failure(), "{row}");
    for (index, (span, (number, outcome, error))) in attempts.iter().zip(expected).enumerate() {
        let provider = if number == 1 { "openai" } else { "anthropic" };
        assert_eq!(span.name, format!("chat m{number}"), "{row}");
        assert_eq!(span.span_kind, SpanKind::Client, "{row}");
        assert_eq!(span.parent_span_id, run.span_context.span_id(), "{row}");
        let answers = number < sources || way.answers();
        let reported = |count: u64| (answers && measured).then(|| count.to_string());
        let (input, output) = usage(number);
        for (key, expected) in [
            ("gen_ai.request.model", Some(format!("m{number}"))),
            ("gen_ai.provider.name", Some(provider.to_owned())),
            (
                "gen_ai.response.model",
                answers.then(|| format!("m{number}-answers")),
            ),
            ("gen_ai.usage.input_tokens", reported(input)),
            ("gen_ai.usage.output_tokens", reported(output)),
            ("l0.attempt", Some((index + 1).to_string())),
            ("l0.source", Some(number.to_string())),
            ("l0.outcome", Some(outcome.to_string())),
            ("error.type", error.map(str::to_owned)),
        ] {
            assert_eq!(of(span)(key), expected, "{row}: {key}");
        }
        let is_error = matches!(span.status, Status::Error { .. });
        assert_eq!(is_error, error.is_some(), "{row}");
    }
    let events = run
        .events
        .iter()
        .filter(|event| event.name == "l0.fallback");
    let pairs = events.map(|event| {
        let side = |key| value(&event.attributes, key).unwrap();
        (side("l0.fallback.from"), side("l0.fallback.to"))
    });
    let expected = (1..sources).map(|from| (format!("m{from}"), format!("m{}", from + 1)));
    assert_eq!(Vec::from_iter(pairs), Vec::from_iter(expected), "{row}");

    let telemetry = sdk.ended()[0].telemetry.clone();
    assert_eq!(telemetry.is_some(), measured, "{row}");
    let telemetry = telemetry.unwrap_or_default();
    let billed = telemetry.billed().unwrap_or_default();
    let spans = sdk.spans();
    for (key, total) in [
        ("gen_ai.usage.input_tokens", billed.input),
        ("gen_ai.usage.output_tokens", billed.output),
        (
            "l0.attempt_tokens",
            measured.then_some(telemetry.metrics.total_tokens),
        ),
        (
            "l0.tokens.total",
            measured.then_some(telemetry.metrics.total_tokens),
        ),
    ] {
        assert_eq!(sum(&spans, key), total, "{row}: {key}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_number_is_counted_under_its_own_model() {
    for (sources, way) in (1..=3).flat_map(|sources| WAYS.map(|way| (sources, way))) {
        let row = Row(sources, way, true);
        let sdk = Sdk::new();
        run(&sdk, sources, way, Monitoring::new()).await;
        let (attempts, outcome) = way.attempts();
        let mut expected = BTreeMap::<_, Vec<String>>::new();
        let mut add = |metric: &str, number: usize, value: String| {
            let points = expected.entry(metric.to_owned()).or_default();
            points.push(format!("m{number} {value}"));
        };
        for number in 1..=sources {
            let (input, output) = usage(number);
            if number < sources || way.answers() {
                add("gen_ai.client.token.usage", number, format!("1 x {input}"));
                add("gen_ai.client.token.usage", number, format!("1 x {output}"));
            }
            let is_last = number == sources;
            let made = if is_last { attempts.len() } else { 1 };
            add("l0.attempts", number, made.to_string());
            if !is_last {
                add("l0.fallbacks", number, "1".to_owned());
            }
        }
        add("l0.runs", 1, "1".to_owned());
        add("l0.runs.active", 1, "0".to_owned());
        if outcome.is_failure() {
            add("l0.failures", sources, "1".to_owned());
        }
        // A rate limit counts as a network error. One of these is retried.
        if attempts[0].1 == Some("rate_limited") {
            add("l0.network.errors", sources, attempts.len().to_string());
            add("l0.retries", sources, "1".to_owned());
        }

        let mut duration = Vec::new();
        for metric in sdk.metrics() {
            let points = metric.points.iter().map(|point| {
                let model = value(&point.attributes, "gen_ai.request.model").unwrap();
                let provider = value(&point.attributes, "gen_ai.provider.name").unwrap();
                assert_eq!(provider == "openai", model == "m1", "{row}");
                format!("{model} {}", point.value)
            });
            let points = Vec::from_iter(points);
            if metric.name == "gen_ai.client.operation.duration" {
                duration = points;
            } else if let Some(mut expected) = expected.remove(&metric.name) {
                expected.sort();
                let mut points = points;
                points.sort();
                assert_eq!(points, expected, "{row}: {}", metric.name);
            }
        }
        assert!(expected.is_empty(), "{row}: {expected:?}");
        assert_eq!(duration.len(), 1, "{row}");
        assert!(
            duration[0].starts_with(&format!("m{sources} 1 x ")),
            "{row}: {duration:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn metadata_set_while_the_run_is_live_is_on_the_runs_span() {
    let sdk = Sdk::new();
    let builder = sdk
        .builder()
        .span_attribute_keys(["user", "tier", "verdict"]);
    let l0 = L0::builder().interceptor(builder.unwrap().build()).build();
    let script = Script::new().attempt(|a| a.token("a"));
    let mut run = l0.stream(script.source()).metadata("tier", "free").start();
    run.set_metadata("verdict", "good");
    run.set_metadata(keys::CONVERSATION_ID, "c-1");
    run.set_metadata("secret", "s");
    run.text().await.unwrap();
    for (key, of_run, of_attempt) in [
        ("tier", Some("free"), Some("free")),
        ("verdict", Some("good"), None),
        ("gen_ai.conversation.id", Some("c-1"), None),
        ("secret", None, None),
        ("user", None, None),
    ] {
        let (run, attempt) = (sdk.run(), sdk.attempt());
        assert_eq!(of(&run)(key).as_deref(), of_run, "{key}");
        assert_eq!(of(&attempt)(key).as_deref(), of_attempt, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_does_not_stream_unless_its_source_reports_it() {
    let sdk = Sdk::new();
    let l0 = L0::builder().interceptor(sdk.builder().build()).build();
    let token = ScriptedToken::new(TokenKind::Text, "a");
    let answer = move |_| {
        std::future::ready(Result::<_, l0_core::testing::ScriptedError>::Ok(
            token.clone(),
        ))
    };
    l0.call(answer).start().await.unwrap();
    let attempt = sdk.attempt();
    for (key, expected) in [
        ("gen_ai.request.stream", Some("false")),
        ("gen_ai.response.time_to_first_chunk", None),
    ] {
        assert_eq!(of(&attempt)(key).as_deref(), expected, "{key}");
    }
    assert!(
        sdk.metrics()
            .iter()
            .all(|metric| !metric.name.contains("chunk"))
    );
}
