//! Many runs at once do not mix.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, HashMap};
use std::task::{Context as TaskContext, Poll, Waker};

use common::{Sdk, value};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedError, ScriptedStream, ScriptedToken};
use l0_core::{Failure, L0, Retry, Run, TokenKind, Usage, keys};
use opentelemetry::Context;
use opentelemetry::trace::{TraceContextExt, Tracer, TracerProvider};

const RUNS: usize = 200;

/// How many tokens a run has, and how it ends.
fn plan(number: usize) -> (usize, &'static str) {
    let ends = ["completed", "failed", "aborted", "dropped"];
    (1 + number % 7, ends[number % 4])
}

fn start(sdk: &Sdk, l0: &L0, number: usize) -> Run<'static, ScriptedStream> {
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
        .build();
    let mut runs: Vec<_> = (0..RUNS)
        .map(|number| (number, start(&sdk, &l0, number), 0))
        .collect();
    let mut ids = BTreeMap::new();
    for (number, run, _) in &runs {
        ids.insert(run.info().id().to_owned(), *number);
    }
    assert_eq!(ids.len(), RUNS);

    // One poll of one run after the other; each turn begins with another one.
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
            // One more item carries the usage.
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
        assert_eq!(parent.unwrap().name, format!("request-{number}"));
        let of_span = |key| value(&span.attributes, key).unwrap();
        assert_eq!(ids[&of_span("l0.session_id")], number);
        assert_eq!(of_span("l0.outcome"), end);
        assert_eq!(of_span("l0.tokens"), tokens.to_string());
        assert_eq!(of_span("gen_ai.response.id"), format!("response-{number}"));
        assert_eq!(of_span("gen_ai.usage.output_tokens"), number.to_string());
        assert_eq!(span.events.len(), 1);
    }
    assert_eq!((chats, spans.len()), (RUNS, 4 * RUNS));

    // One point of each metric for each run.
    let mut expected: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for number in 0..RUNS {
        let (tokens, end) = plan(number);
        let mut add = |metric, more: &str, value| {
            let key = format!("model-{number} {more}");
            expected.entry(metric).or_default().insert(key, value);
        };
        let model = format!("answers-{number}");
        let duration = format!("{model} {end}");
        add("gen_ai.client.operation.duration", &duration, 1);
        add("gen_ai.client.operation.time_to_first_chunk", &model, 1);
        if tokens > 1 {
            let gaps = tokens - 1;
            add(
                "gen_ai.client.operation.time_per_output_chunk",
                &model,
                gaps,
            );
        }
        add("gen_ai.client.token.usage", &model, 1);
        add("l0.runs", end, 1);
        add("l0.runs.active", "", 0);
    }
    let mut emitted: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for metric in sdk.metrics() {
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
            let (count, _) = point.value.split_once(" x ").unwrap_or((&point.value, ""));
            (key, count.parse().unwrap())
        });
        emitted.insert(metric.name, points.collect());
    }
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(metric, points)| (metric.to_owned(), points))
        .collect();
    assert_eq!(emitted, expected);
}
