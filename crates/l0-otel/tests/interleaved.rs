//! Concurrent runs do not mix.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::task::{Context as TaskContext, Poll, Waker};

use common::{Sdk, number_attributes, own_metrics, own_points, value};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedError, ScriptedToken};
use l0_core::{Failure, L0, Retry, Run, TokenKind, Usage, keys};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};

const RUNS: usize = 200;

/// Returns the number of tokens of a run, and its outcome.
fn plan(number: usize) -> (usize, &'static str) {
    let ends = ["completed", "failed", "aborted", "dropped"];
    (1 + number % 7, ends[number % 4])
}

fn start(sdk: &Sdk, l0: &L0, number: usize) -> Run<'static, ScriptedToken, ScriptedError> {
    let (tokens, end) = plan(number);
    let script = Script::new().attempt(|mut a| {
        let mut first = ScriptedToken::new(TokenKind::Text, "a");
        first.model = Some(format!("answers-{number}"));
        first.response_id = Some(format!("response-{number}"));
        a = a.item(first).tokens(vec!["a"; tokens - 1]);
        a = a.usage(Usage::new().output(number as u64));
        match end {
            "completed" => a,
            "failed" => a.fail(Failure::status(401)),
            _ => a.hang(),
        }
    });
    let tracer = sdk.tracer_provider.tracer("app");
    let caller = Context::current_with_span(tracer.start(format!("request-{number}")));
    let _guard = caller.attach();
    l0.stream(move |_| {
        let (script, tracer) = (script.clone(), tracer.clone());
        async move {
            let _post = tracer.start(format!("POST-{number}"));
            tokio::task::yield_now().await;
            let _more = tracer.start(format!("POST-{number}"));
            Ok::<_, ScriptedError>(script.stream())
        }
    })
    .metadata(keys::MODEL, format!("model-{number}"))
    .start()
}

#[tokio::test]
async fn two_hundred_interleaved_runs_do_not_mix() {
    let sdk = Sdk::new();
    let l0 = L0::builder()
        .retry(Retry::none())
        .interceptor(sdk.builder().build())
        .interceptor(sdk.stores_ends())
        .build();
    let mut runs: Vec<_> = (0..RUNS)
        .map(|number| (number, start(&sdk, &l0, number), 0))
        .collect();
    let mut ids = BTreeMap::new();
    for (number, run, _) in &runs {
        ids.insert(run.info().id().to_owned(), *number);
    }
    assert_eq!(ids.len(), RUNS);

    // Polls each run once per turn. Each turn begins with another run.
    let mut cx = TaskContext::from_waker(Waker::noop());
    let mut turn = 0;
    while !runs.is_empty() {
        let first = turn % runs.len();
        runs.rotate_left(first);
        turn += 1;
        runs.retain_mut(|(number, run, seen)| {
            let (tokens, end) = plan(*number);
            match run.poll_next_unpin(&mut cx) {
                Poll::Ready(None) => return false,
                Poll::Ready(Some(Ok(_))) => *seen += 1,
                Poll::Ready(Some(Err(_))) | Poll::Pending => {}
            }
            // A further item carries the usage.
            if *seen == tokens + 1 {
                match end {
                    "aborted" => run.handle().abort(),
                    "dropped" => return false,
                    _ => {}
                }
            }
            true
        });
    }

    let spans = sdk.spans();
    let by_id: HashMap<_, _> = spans
        .iter()
        .map(|span| (span.span_context.span_id(), span))
        .collect();
    let telemetry: HashMap<_, _> = sdk
        .ended()
        .into_iter()
        .map(|ended| {
            let telemetry = ended.telemetry.unwrap();
            (ids[&telemetry.session_id], telemetry)
        })
        .collect();
    let mut chats = 0;
    for span in &spans {
        let parent = by_id.get(&span.parent_span_id);
        if let Some(number) = span.name.strip_prefix("POST-") {
            assert_eq!(parent.unwrap().name, format!("chat model-{number}"));
        }
        let Some(model) = span.name.strip_prefix("chat model-") else {
            continue;
        };
        chats += 1;
        let number: usize = model.parse().unwrap();
        let (tokens, end) = plan(number);
        let run = parent.unwrap();
        assert_eq!(run.name, "l0.run");
        let request = by_id[&run.parent_span_id];
        assert_eq!(request.name, format!("request-{number}"));
        for of in [span, run] {
            let of_span = |key| value(&of.attributes, key).unwrap();
            assert_eq!(ids[&of_span("l0.session_id")], number);
            assert_eq!(of_span("l0.outcome"), end);
        }
        let of_span = |key| value(&span.attributes, key).unwrap();
        assert_eq!(of_span("l0.attempt_tokens"), tokens.to_string());
        assert_eq!(of_span("gen_ai.response.id"), format!("response-{number}"));
        assert_eq!(of_span("gen_ai.usage.output_tokens"), number.to_string());
        for (key, expected) in number_attributes(&telemetry[&number]) {
            let sent = value(&run.attributes, &key);
            assert_eq!(sent, Some(expected), "{key}");
        }
    }
    assert_eq!((chats, spans.len()), (RUNS, 5 * RUNS));

    // Each metric of the conventions has one point for each run, with this number of values.
    let mut expected: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for (number, telemetry) in &telemetry {
        let (tokens, end) = plan(*number);
        let mut add = |metric: &str, more: &str, value: String| {
            let key = format!("model-{number} {more}");
            let points = expected.entry(metric.to_owned()).or_default();
            points.insert(key, value);
        };
        let model = format!("answers-{number}");
        let duration = format!("{model} {end}");
        let one = || "1".to_owned();
        add("gen_ai.client.operation.duration", &duration, one());
        add("gen_ai.client.operation.time_to_first_chunk", &model, one());
        if tokens > 1 {
            let gaps = (tokens - 1).to_string();
            add(
                "gen_ai.client.operation.time_per_output_chunk",
                &model,
                gaps,
            );
        }
        add("gen_ai.client.token.usage", &model, one());
        add("l0.runs", end, one());
        add("l0.runs.active", "", "0".to_owned());
        if end == "failed" {
            add("l0.failures", "", one());
        }
        for point in own_points(telemetry, "") {
            if let Some((metric, value)) = point.split_once("[] ") {
                add(metric, &model, value.to_owned());
            }
        }
    }
    let mut emitted: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    // A metric with a label has a point for each value of the label.
    let labeled: Vec<_> = own_metrics()
        .filter(|(_, quantity)| quantity.is_labeled())
        .map(|(name, _)| name)
        .collect();
    for metric in sdk.metrics() {
        if labeled.contains(&metric.name) {
            continue;
        }
        let of_conventions = metric.name.starts_with("gen_ai.");
        let points = metric.points.into_iter().map(|point| {
            let keys = [
                "gen_ai.request.model",
                "gen_ai.response.model",
                "l0.outcome",
            ];
            let values = keys.map(|key| value(&point.attributes, key));
            let values: Vec<_> = values.into_iter().flatten().collect();
            let key = match &values[..] {
                [model] => format!("{model} "),
                values => values.join(" "),
            };
            let count = point.value.split_once(" x ").filter(|_| of_conventions);
            let value = count.map_or(&*point.value, |(count, _)| count).to_owned();
            (key, value)
        });
        emitted.insert(metric.name, points.collect());
    }
    assert_eq!(emitted, expected);
}
