//! Runs with several sources, child runs, and calls: each attempt's span has its own model, and each token is
//! reported once.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::{Sentry, attempts, forbids, paused, span, trace};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Failure, Monitoring, Retry, Severity, Source, TokenKind, Usage, Violation, keys,
    source,
};
use l0_sentry::Parent;
use sentry::protocol::SpanStatus;
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);

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
    /// Returns the statuses of the attempts of the last source, and of the run.
    fn statuses(self) -> (&'static [SpanStatus], SpanStatus) {
        use SpanStatus::{Cancelled, InternalError};

        match self {
            Ok => (&[SpanStatus::Ok], SpanStatus::Ok),
            FailsBeforeTheFirstToken | FailsInMidStream | HaltedByARule => {
                (&[InternalError], InternalError)
            }
            RateLimited => (&[InternalError, InternalError], InternalError),
            AbortedInABackOff => (&[InternalError], Cancelled),
            Dropped => (&[Cancelled], Cancelled),
        }
    }

    /// Returns `true` if its attempts report usage.
    fn answers(self) -> bool {
        matches!(self, Ok | FailsInMidStream | HaltedByARule | Dropped)
    }
}

fn script(number: u64, way: Way) -> Script {
    Script::new().attempt(|a| {
        let mut first = ScriptedToken::new(TokenKind::Text, "a");
        first.usage = Some(Usage::new().input(10 * number).output(number));
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

/// Runs this many sources, with the models `m1`, `m2` and so on.
async fn run(sentry: &Sentry, sources: u64, way: Way, monitoring: Monitoring) {
    let mut violation = Violation::new("no brace", Severity::Fatal, "a brace");
    violation.recoverable = false;
    let l0 = sentry
        .l0()
        .monitoring(monitoring.metadata(keys::PROVIDER, "openai"))
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(5 * MS)))
        .guardrails(forbids("{", violation))
        .build();
    let way_of = |number| {
        if number == sources {
            way
        } else {
            FailsInMidStream
        }
    };
    let of = |number| script(number, way_of(number)).source();
    let mut builder = l0.stream(of(1)).metadata(keys::MODEL, "m1");
    for number in 2..=sources {
        let next = source(of(number)).metadata(keys::MODEL, format!("m{number}"));
        builder = builder.fallback(next.metadata(keys::PROVIDER, "anthropic"));
    }
    let mut run = builder.start();
    let handle = run.handle();
    let read = async { while run.next().await.is_some() {} };
    match way {
        AbortedInABackOff => {
            let abort = async {
                // Each source before it takes one millisecond.
                tokio::time::sleep(sources as u32 * MS + MS).await;
                handle.abort();
            };
            tokio::join!(read, abort);
        }
        Dropped => drop(tokio::time::timeout(100 * MS, read).await.unwrap_err()),
        _ => read.await,
    }
    drop(run);
    assert_eq!(l0.observer_panics(), 0);
}

#[test]
fn each_attempt_is_a_call_of_its_own_model_with_its_own_usage() {
    for (sources, way) in (1..=3).flat_map(|sources| WAYS.map(|way| (sources, way))) {
        for measured in [true, false] {
            let row = format!("{sources} sources, {way:?}, measured: {measured}");
            let sentry = Sentry::start();
            let share = f64::from(u8::from(measured));
            let monitoring = Monitoring::new().sample_rate(share);
            paused().block_on(run(&sentry, sources, way, monitoring));

            let (last, ended) = way.statuses();
            let failed = (1..sources).map(|number| (number, SpanStatus::InternalError));
            let last = last.iter().map(|status| (sources, *status));
            let expected = Vec::from_iter(failed.chain(last));
            let sent = sentry.sent();
            let transaction = sent.transaction();
            assert_eq!(trace(transaction).status, Some(ended), "{row}");
            let stream = span(transaction, "l0.stream.consume");
            let spans = attempts(transaction);
            assert_eq!(spans.len(), expected.len(), "{row}");
            // The only other span is the stream's.
            assert_eq!(transaction.spans.len(), 1 + spans.len(), "{row}");
            for (index, (call, (number, status))) in spans.iter().zip(expected).enumerate() {
                let name = format!("chat m{number}");
                assert_eq!(call.op.as_deref(), Some("gen_ai.chat"), "{row}");
                assert_eq!(call.description.as_ref(), Some(&name), "{row}");
                assert_eq!(call.status, Some(status), "{row}");
                assert_eq!(call.parent_span_id, Some(stream.span_id), "{row}");
                let answers = number < sources || way.answers();
                let provider = if number == 1 { "openai" } else { "anthropic" };
                let reported = |count: u64| (answers && measured).then_some(count);
                for (key, expected) in [
                    ("attempt", json!(index + 1)),
                    ("source", json!(number)),
                    ("gen_ai.request.model", json!(format!("m{number}"))),
                    ("gen_ai.provider.name", json!(provider)),
                    // An attempt that failed before its first token has no response model.
                    (
                        "gen_ai.response.model",
                        json!(answers.then(|| format!("m{number}"))),
                    ),
                    ("gen_ai.usage.input_tokens", json!(reported(10 * number))),
                    ("gen_ai.usage.output_tokens", json!(reported(number))),
                ] {
                    let value = call.data.get(key).unwrap_or(&Value::Null);
                    assert_eq!(*value, expected, "{row}: {key}");
                }
            }
            let of_run = &trace(transaction).data;
            for (key, total) in [
                ("gen_ai.usage.input_tokens", "usage_input"),
                ("gen_ai.usage.output_tokens", "usage_output"),
            ] {
                let all = transaction
                    .spans
                    .iter()
                    .filter_map(|span| span.data.get(key));
                let sum = all
                    .map(|count| count.as_u64().unwrap())
                    .reduce(|a, b| a + b);
                let total = of_run.get(total).unwrap_or(&Value::Null);
                assert_eq!(json!(sum), *total, "{row}: {key}");
                assert!(!of_run.contains_key(key), "{row}: {key}");
            }
            let trail = sentry.trail();
            let sent = trail.iter().filter(|line| line.contains(" l0.fallback: "));
            let expected = (1..sources).map(|from| {
                let to = from + 1;
                format!(
                    r#"warning l0.fallback: Fallback to m{to} {{"from":"m{from}","to":"m{to}"}}"#
                )
            });
            assert_eq!(
                Vec::from_iter(sent.cloned()),
                Vec::from_iter(expected),
                "{row}"
            );
        }
    }
}

#[test]
fn attempts_with_the_same_outcome_are_counted_together() {
    let sentry = Sentry::start();
    paused().block_on(run(&sentry, 3, Ok, Monitoring::new()));
    let sent = sentry.sent();
    let data = &trace(sent.transaction()).data;
    for (key, expected) in [
        ("attempts.failed", 2),
        ("attempts.completed", 1),
        ("fallbacks", 2),
    ] {
        assert_eq!(data[key], expected, "{key}");
    }
}

#[test]
fn a_call_has_no_stream_and_its_attempts_are_children_of_the_execution() {
    let sentry = Sentry::start();
    let l0 = sentry.l0().build();
    let mut failed = false;
    let answer = move |_| {
        let failed = std::mem::replace(&mut failed, true);
        std::future::ready(if failed {
            let mut answer = ScriptedToken::new(TokenKind::Text, "a");
            answer.usage = Some(Usage::new().input(3).output(2));
            Result::Ok(answer)
        } else {
            Err(ScriptedError::from(Failure::status(503)))
        })
    };
    let call = l0
        .call(answer)
        .metadata("model", "m")
        .metadata("provider", "p");
    paused().block_on(call.start().into_future()).unwrap();

    let sent = sentry.sent();
    assert_eq!(
        sent.spans(),
        [
            "l0.execution ok",
            "gen_ai.chat internal_error",
            "gen_ai.chat ok"
        ]
    );
    let own = trace(sent.transaction());
    for (call, (usage, model)) in attempts(sent.transaction())
        .into_iter()
        .zip([(Value::Null, Value::Null), (json!(2), json!("m"))])
    {
        assert_eq!(call.parent_span_id, Some(own.span_id));
        for (key, expected) in [
            ("gen_ai.response.streaming", json!(false)),
            ("gen_ai.usage.output_tokens", usage),
            ("gen_ai.response.model", model),
            ("gen_ai.response.time_to_first_chunk", Value::Null),
            ("gen_ai.response.tokens_per_second", Value::Null),
        ] {
            let value = call.data.get(key).unwrap_or(&Value::Null);
            assert_eq!(*value, expected, "{key}");
        }
    }
    assert!(!own.data.contains_key("ttft_ms"));
    let trail = sentry.trail();
    assert!(
        trail.iter().all(|line| !line.contains("l0.stream")),
        "{trail:?}"
    );
}

#[test]
fn a_child_run_nests_below_its_parent_run_while_that_is_live() {
    for parent in [Parent::Trace, Parent::Child] {
        for lives in [true, false] {
            let sentry = Sentry::start();
            let config = sentry.config().parent(parent);
            let l0 = common::l0(config).build();
            let script = Script::new().attempt(|a| a.token("a"));
            let outer = l0.stream(script.source()).start();
            let info = outer.info().clone();
            let outer = lives.then_some(outer);
            let first = sentry.sent();
            let inner = l0.stream(script.source()).parent(&info).start();
            drop(inner);
            drop(outer);
            let sent = sentry.sent();
            let what = format!("{parent:?}, lives: {lives}");
            match (lives, parent) {
                (true, Parent::Child) => {
                    let own = trace(sent.transaction());
                    let inner = span(sent.transaction(), "l0.execution");
                    assert_eq!(inner.parent_span_id, Some(own.span_id), "{what}");
                }
                (true, _) => {
                    let [inner, outer] = &*sent.transactions else {
                        panic!("{what}: {:?}", sent.transactions);
                    };
                    let (inner, outer) = (trace(inner), trace(outer));
                    assert_eq!(inner.parent_span_id, Some(outer.span_id), "{what}");
                    assert_eq!(inner.trace_id, outer.trace_id, "{what}");
                }
                (false, _) => {
                    let outer = trace(first.transaction());
                    let inner = trace(sent.transaction());
                    assert_ne!(inner.parent_span_id, Some(outer.span_id), "{what}");
                }
            }
        }
    }
}

#[test]
fn metadata_set_while_the_run_is_live_is_in_the_context_and_not_a_tag() {
    let sentry = Sentry::start();
    let config = sentry
        .config()
        .tag_keys(["tier", "verdict", "tokens"])
        .unwrap();
    let l0 = common::l0(config).build();
    let script = Script::new().attempt(|a| a.tokens(["a", "b"]).fail("broken"));
    let mut run = l0.stream(script.source()).metadata("tier", "free").start();
    for (key, value) in [
        ("verdict", json!("bad")),
        ("tier", json!("paid")),
        ("tokens", json!(7)),
        ("secret", json!("s")),
    ] {
        run.set_metadata(key, value);
    }
    paused().block_on(async { run.text().await.unwrap_err() });
    let sent = sentry.sent();
    let event = sent.event();
    assert_eq!(event.tags["tier"], "free");
    assert!(!event.tags.contains_key("verdict"));
    for context in [
        json!(event.contexts["l0_telemetry"]),
        json!(trace(sent.transaction()).data),
    ] {
        // Metadata does not replace a number.
        assert_eq!(context["tokens"], 2);
        assert_eq!(context["verdict"], "bad");
        assert_eq!(context["tier"], "paid");
        assert_eq!(context.get("secret"), None);
    }
}
