//! Every way a run can end: one span, ended once, and exactly these points.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::borrow::Cow;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use common::{MS, Sdk, length, number_attributes, own_points, value};
use futures_util::{FutureExt, StreamExt};
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Check, DriftReport, Failure, Findings, FinishReason, Interceptor, L0, Monitoring, NewRun,
    Refusal, Retry, Severity, Timeouts, TokenKind, Usage, Violation,
};
use l0_otel::OtelInterceptor;
use opentelemetry::trace::{Span, SpanBuilder, SpanContext, Status, Tracer};
use opentelemetry::{Context, KeyValue};

struct Exit {
    name: &'static str,
    run: fn(L0) -> Pin<Box<dyn Future<Output = ()>>>,
    /// The outcome and the type of the error.
    end: (&'static str, Option<&'static str>),
    /// What the description of the span's status says; `None` if it is no error.
    error: Option<&'static str>,
    millis: u64,
    events: &'static [&'static str],
    /// The points besides those that every measured run has, and those of numbers under their own
    /// names.
    points: &'static [&'static str],
}

struct Rule(Severity);

impl Check for Rule {
    fn name(&self) -> &'static str {
        "no-b"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains('b') {
            findings.report(Violation::new("no-b", self.0, "There is a b"));
        }
    }
}

struct Drifts;

impl Check<DriftReport> for Drifts {
    fn name(&self) -> &'static str {
        "drifts"
    }

    fn text(&mut self, _: &str, findings: &mut Findings<DriftReport>) {
        findings.report(DriftReport::new(["meta_commentary"], 0.9));
    }
}

struct Refuse;

impl Interceptor for Refuse {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("over budget"))
    }
}

/// Reads a script to its end.
async fn read(l0: L0, script: Script) {
    let mut run = l0.stream(script.source()).start();
    while run.next().await.is_some() {}
}

fn two_tokens() -> Script {
    Script::new().attempt(|a| a.wait(20 * MS).token("a").wait(5 * MS).token("c"))
}

const ONE_ATTEMPT: &[&str] = &["l0.attempt"];

/// Of a run of [`two_tokens`].
const GAP: &str = "gen_ai.client.operation.time_per_output_chunk[] 1 x 0.005";
const FIRST: &str = "gen_ai.client.operation.time_to_first_chunk[] 1 x 0.02";

const FIRST_AT_ONCE: &str = "gen_ai.client.operation.time_to_first_chunk[] 1 x 0";

fn exits() -> Vec<Exit> {
    vec![
        Exit {
            name: "completed",
            run: |l0| read(l0, two_tokens()).boxed(),
            end: ("completed", None),
            error: None,
            millis: 25,
            events: ONE_ATTEMPT,
            points: &[GAP, FIRST],
        },
        Exit {
            name: "completed, and the provider said everything",
            run: |l0| {
                let usage = Usage::new()
                    .input(12)
                    .output(2)
                    .cached_input(5)
                    .reasoning(1);
                let mut first = ScriptedToken::new(TokenKind::Text, "a");
                first.model = Some("gpt-4o-2024-08-06".to_owned());
                first.response_id = Some("chatcmpl-1".to_owned());
                let script = Script::new().attempt(|a| {
                    a.item(first)
                        .wait(5 * MS)
                        .token("c")
                        .usage(usage)
                        .finish(FinishReason::Length)
                });
                read(l0, script).boxed()
            },
            end: ("completed", None),
            error: None,
            millis: 5,
            events: ONE_ATTEMPT,
            points: &[
                "gen_ai.client.operation.time_per_output_chunk[gen_ai.response.model=gpt-4o-2024-08-06] 1 x 0.005",
                "gen_ai.client.operation.time_to_first_chunk[gen_ai.response.model=gpt-4o-2024-08-06] 1 x 0",
                "gen_ai.client.token.usage[gen_ai.response.model=gpt-4o-2024-08-06 gen_ai.token.type=input] 1 x 12",
                "gen_ai.client.token.usage[gen_ai.response.model=gpt-4o-2024-08-06 gen_ai.token.type=output] 1 x 2",
            ],
        },
        Exit {
            name: "completed after a retry",
            run: |l0| {
                let script = Script::new()
                    .attempt(|a| a.token("a").fail(ErrorKind::ConnectionReset))
                    .attempt(|a| a.wait(10 * MS).token("a").wait(7 * MS).token("c"));
                read(l0, script).boxed()
            },
            end: ("completed", None),
            error: None,
            millis: 22,
            events: &["l0.attempt", "l0.network_error", "l0.retry", "l0.attempt"],
            points: &[
                "gen_ai.client.operation.time_per_output_chunk[] 1 x 0.007",
                FIRST_AT_ONCE,
                "l0.network.errors[error.type=econnreset] 1",
                "l0.retries[l0.retry.kind=network l0.retry.reason=network_error] 1",
            ],
        },
        Exit {
            name: "completed, in spite of drift and a violation",
            run: |l0| {
                let l0 = l0
                    .to_builder()
                    .guardrails(|| Rule(Severity::Error))
                    .drift(|| Drifts)
                    .build();
                let drifts = "As an AI language model, I have no b. ";
                read(l0, Script::new().attempt(|a| a.token(drifts))).boxed()
            },
            end: ("completed", None),
            error: None,
            millis: 5,
            events: &[
                "l0.attempt",
                "l0.drift",
                "l0.violation",
                "l0.retry",
                "l0.attempt",
                "l0.drift",
                "l0.violation",
            ],
            points: &[
                FIRST_AT_ONCE,
                "l0.drift.detected[] 2",
                "l0.guardrails.violations[l0.rule=no-b l0.severity=error] 2",
                "l0.retries[l0.retry.kind=model l0.retry.reason=guardrail_violation] 1",
            ],
        },
        Exit {
            name: "completed, and then the connection broke",
            run: |l0| {
                let script = Script::new().attempt(|a| {
                    a.token("a")
                        .finish(FinishReason::Stop)
                        .fail(ErrorKind::ConnectionReset)
                });
                read(l0, script).boxed()
            },
            end: ("completed", None),
            error: None,
            millis: 0,
            events: &["l0.attempt", "l0.network_error"],
            points: &[FIRST_AT_ONCE, "l0.network.errors[error.type=econnreset] 1"],
        },
        Exit {
            name: "truncated",
            run: |l0| {
                let l0 = l0.to_builder().retry(Retry::none()).build();
                async move {
                    let script = two_tokens();
                    let mut run = l0.stream(script.source()).expect_finish().start();
                    run.text().await.unwrap_err();
                }
                .boxed()
            },
            end: ("truncated", Some("truncated")),
            error: Some("the stream ended without a finish reason"),
            millis: 25,
            events: &["l0.attempt", "l0.network_error"],
            points: &[GAP, FIRST, "l0.network.errors[error.type=partial_chunks] 1"],
        },
        Exit {
            name: "failed for good",
            run: |l0| {
                let script = Script::new().attempt(|a| a.connect_error(Failure::status(401)));
                read(l0, script).boxed()
            },
            end: ("failed", Some("401")),
            error: Some("status 401"),
            millis: 0,
            events: ONE_ATTEMPT,
            points: &[],
        },
        Exit {
            name: "failed, with retries exhausted",
            run: |l0| {
                let script = Script::new().attempt(|a| a.fail(Failure::status(503)));
                read(l0, script).boxed()
            },
            end: ("failed", Some("server_error")),
            error: Some("status 503"),
            millis: 5,
            events: &[
                "l0.attempt",
                "l0.network_error",
                "l0.retry",
                "l0.attempt",
                "l0.network_error",
            ],
            points: &[
                "l0.network.errors[error.type=server_error] 2",
                "l0.retries[l0.retry.kind=network l0.retry.reason=server_error] 1",
            ],
        },
        Exit {
            name: "stopped by a rule",
            run: |l0| {
                let l0 = l0.to_builder().guardrails(|| Rule(Severity::Fatal)).build();
                read(l0, Script::new().attempt(|a| a.tokens(["a", "b"]))).boxed()
            },
            end: ("failed", Some("guardrail_violation")),
            error: Some("guardrail violation: no-b (fatal): There is a b"),
            millis: 0,
            events: &["l0.attempt", "l0.violation"],
            points: &[
                "gen_ai.client.operation.time_per_output_chunk[] 1 x 0",
                FIRST_AT_ONCE,
                "l0.guardrails.violations[l0.rule=no-b l0.severity=fatal] 1",
            ],
        },
        Exit {
            name: "empty",
            run: |l0| {
                async move {
                    let script = Script::new().attempt(|a| a.token(" "));
                    let run = l0.stream(script.source()).detect_zero_output(true);
                    run.retry(Retry::none()).start().text().await.unwrap_err();
                }
                .boxed()
            },
            end: ("failed", Some("zero_output")),
            error: Some("the answer is empty: no text with a letter or digit, and no tool call"),
            millis: 0,
            events: ONE_ATTEMPT,
            points: &[FIRST_AT_ONCE],
        },
        Exit {
            name: "timed out",
            run: |l0| {
                let timeouts = Timeouts::new().total(30 * MS);
                let l0 = l0.to_builder().timeouts(timeouts).build();
                read(l0, Script::new().attempt(|a| a.token("a").hang())).boxed()
            },
            end: ("timed_out", Some("timeout")),
            error: Some("the run took too long"),
            millis: 30,
            events: &["l0.attempt", "l0.network_error"],
            points: &[FIRST_AT_ONCE, "l0.network.errors[error.type=timeout] 1"],
        },
        Exit {
            name: "refused",
            run: |l0| read(l0.to_builder().interceptor(Refuse).build(), two_tokens()).boxed(),
            end: ("failed", Some("refused")),
            error: Some("refused: over budget"),
            millis: 0,
            events: &[],
            points: &[],
        },
        Exit {
            name: "aborted",
            run: |l0| {
                async move {
                    let script = Script::new().attempt(|a| a.token("a").hang());
                    let mut run = l0.stream(script.source()).start();
                    run.next().await.unwrap().unwrap();
                    run.handle().abort();
                    run.next().await.unwrap().unwrap_err();
                }
                .boxed()
            },
            end: ("aborted", None),
            error: None,
            millis: 0,
            events: ONE_ATTEMPT,
            points: &[FIRST_AT_ONCE],
        },
        Exit {
            name: "aborted by a future",
            run: |l0| {
                async move {
                    let script = Script::new().attempt(|a| a.hang());
                    let until = tokio::time::sleep(6 * MS);
                    let mut run = l0.stream(script.source()).until(until).start();
                    run.text().await.unwrap_err();
                }
                .boxed()
            },
            end: ("aborted", None),
            error: None,
            millis: 6,
            events: ONE_ATTEMPT,
            points: &[],
        },
        Exit {
            name: "told to stop, then dropped",
            run: |l0| {
                async move {
                    let run = l0.stream(two_tokens().source()).start();
                    run.handle().abort();
                }
                .boxed()
            },
            end: ("aborted", None),
            error: None,
            millis: 0,
            events: &[],
            points: &[],
        },
        Exit {
            name: "dropped before the first poll",
            run: |l0| async move { drop(l0.stream(two_tokens().source()).start()) }.boxed(),
            end: ("dropped", None),
            error: None,
            millis: 0,
            events: &[],
            points: &[],
        },
        Exit {
            name: "dropped on the way",
            run: |l0| {
                async move {
                    let script = Script::new().attempt(|a| a.wait(8 * MS).token("a").hang());
                    let mut run = l0.stream(script.source()).start();
                    run.next().await.unwrap().unwrap();
                }
                .boxed()
            },
            end: ("dropped", None),
            error: None,
            millis: 8,
            events: ONE_ATTEMPT,
            points: &["gen_ai.client.operation.time_to_first_chunk[] 1 x 0.008"],
        },
        Exit {
            name: "in a task that is aborted",
            run: |l0| {
                async move {
                    let script = Script::new().attempt(|a| a.token("a").hang());
                    let mut run = l0.stream(script.source()).start();
                    run.next().await.unwrap().unwrap();
                    let task = tokio::spawn(async move { run.next().await.is_some() });
                    tokio::task::yield_now().await;
                    task.abort();
                    assert!(task.await.unwrap_err().is_cancelled());
                }
                .boxed()
            },
            end: ("dropped", None),
            error: None,
            millis: 0,
            events: ONE_ATTEMPT,
            points: &[FIRST_AT_ONCE],
        },
        Exit {
            name: "the factory panics",
            run: |l0| {
                let script = Script::new().attempt(|a| a.connect_panic("bug"));
                AssertUnwindSafe(read(l0, script))
                    .catch_unwind()
                    .map(|end| drop(end.unwrap_err()))
                    .boxed()
            },
            end: ("failed", Some("panic")),
            error: Some("the source, the factory or a hook panicked"),
            millis: 0,
            events: ONE_ATTEMPT,
            points: &[],
        },
        Exit {
            name: "the source panics",
            run: |l0| {
                let script = Script::new().attempt(|a| a.token("a").panic("bug"));
                AssertUnwindSafe(read(l0, script))
                    .catch_unwind()
                    .map(|end| drop(end.unwrap_err()))
                    .boxed()
            },
            end: ("failed", Some("panic")),
            error: Some("the source, the factory or a hook panicked"),
            millis: 0,
            events: ONE_ATTEMPT,
            points: &[FIRST_AT_ONCE],
        },
        Exit {
            name: "the consumer panics",
            run: |l0| {
                async move {
                    let run = l0.stream(two_tokens().source()).start();
                    let consumer = AssertUnwindSafe(|| {
                        let _run = run;
                        panic!("bug");
                    });
                    catch_unwind(consumer).unwrap_err();
                }
                .boxed()
            },
            end: ("dropped", None),
            error: None,
            millis: 0,
            events: &[],
            points: &[],
        },
        Exit {
            name: "watched",
            run: |l0| {
                async move {
                    let mut watched = l0.watch(two_tokens().stream()).start();
                    while watched.next().await.is_some() {}
                }
                .boxed()
            },
            end: ("completed", None),
            error: None,
            millis: 25,
            events: ONE_ATTEMPT,
            points: &[GAP, FIRST],
        },
        Exit {
            name: "watched and dropped",
            run: |l0| {
                async move {
                    let mut watched = l0.watch(two_tokens().stream()).start();
                    watched.next().await.unwrap().unwrap();
                }
                .boxed()
            },
            end: ("dropped", None),
            error: None,
            millis: 20,
            events: ONE_ATTEMPT,
            points: &[FIRST],
        },
        Exit {
            name: "watched, and it failed",
            run: |l0| {
                async move {
                    let script = Script::new().attempt(|a| a.fail(ErrorKind::BrokenPipe));
                    let mut watched = l0.watch(script.stream()).start();
                    while watched.next().await.is_some() {}
                }
                .boxed()
            },
            end: ("failed", Some("connection_dropped")),
            error: Some("broken pipe"),
            millis: 0,
            events: &["l0.attempt", "l0.network_error"],
            points: &["l0.network.errors[error.type=connection_dropped] 1"],
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn every_exit_gives_one_span_and_the_exact_points() {
    for exit in exits() {
        let sdk = Sdk::new();
        (exit.run)(sdk.l0()).await;

        let Exit { name, end, .. } = exit;
        let span = sdk.span();
        assert_eq!(span.name, "chat gpt-4o", "{name}");
        let of_span = |key| value(&span.attributes, key);
        assert_eq!(of_span("l0.outcome").as_deref(), Some(end.0), "{name}");
        assert_eq!(of_span("error.type").as_deref(), end.1, "{name}");
        let ended = sdk.ended().remove(0);
        let said = ended.end.message().unwrap_or_default().to_owned();
        let status = exit.error.map(|part| {
            assert!(said.contains(part), "{name}: {said}");
            Status::error(said)
        });
        assert_eq!(span.status, status.unwrap_or(Status::Unset), "{name}");
        assert_eq!(length(&span), Duration::from_millis(exit.millis), "{name}");
        let events: Vec<_> = span.events.iter().map(|event| &*event.name).collect();
        assert_eq!(events, exit.events, "{name}");

        let error = end.1.map(|error| format!("error.type={error} "));
        let model = exit
            .points
            .iter()
            .any(|point| point.contains("gen_ai.response.model"));
        let model = if model {
            "gen_ai.response.model=gpt-4o-2024-08-06"
        } else {
            ""
        };
        let duration = format!(
            "gen_ai.client.operation.duration[{}{model}{}l0.outcome={}] 1 x {}",
            error.unwrap_or_default(),
            if model.is_empty() { "" } else { " " },
            end.0,
            exit.millis as f64 / 1e3,
        );
        let mut points = vec![
            duration,
            format!("l0.runs[l0.outcome={}] 1", end.0),
            "l0.runs.active[] 0".to_owned(),
        ];
        let failure = end
            .1
            .map(|error| format!("l0.failures[error.type={error}] 1"));
        points.extend(failure);
        points.extend(exit.points.iter().map(|point| (*point).to_owned()));
        let telemetry = ended.telemetry.unwrap();
        points.extend(own_points(&telemetry, model));
        points.sort();
        assert_eq!(sdk.points(), points, "{name}");
        for (key, expected) in number_attributes(&telemetry) {
            let sent = value(&span.attributes, &key);
            assert_eq!(sent, Some(expected), "{name}: {key}");
        }
    }
}

/// A tracer whose spans count how often they are ended: those of the SDK pass over a second time.
#[derive(Clone, Default)]
struct Ends(Arc<AtomicU32>);

impl Tracer for Ends {
    type Span = Self;

    fn build_with_context(&self, _: SpanBuilder, _: &Context) -> Self {
        self.clone()
    }
}

impl Span for Ends {
    fn add_event_with_timestamp<T>(&mut self, _: T, _: SystemTime, _: Vec<KeyValue>)
    where
        T: Into<Cow<'static, str>>,
    {
        assert_eq!(self.0.load(Ordering::Relaxed), 0, "it has ended");
    }

    fn span_context(&self) -> &SpanContext {
        &SpanContext::NONE
    }

    fn is_recording(&self) -> bool {
        true
    }

    fn set_attribute(&mut self, _: KeyValue) {
        assert_eq!(self.0.load(Ordering::Relaxed), 0, "it has ended");
    }

    fn set_status(&mut self, _: Status) {
        assert_eq!(self.0.load(Ordering::Relaxed), 0, "it has ended");
    }

    fn update_name<T: Into<Cow<'static, str>>>(&mut self, _: T) {}

    fn add_link(&mut self, _: SpanContext, _: Vec<KeyValue>) {}

    fn end_with_timestamp(&mut self, _: SystemTime) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn every_exit_ends_the_span_once_and_then_leaves_it_alone() {
    for exit in exits() {
        let ends = Ends::default();
        let otel = OtelInterceptor::builder().tracer(ends.clone());
        let l0 = L0::builder().interceptor(otel.build()).build();
        (exit.run)(l0.clone()).await;
        assert_eq!(ends.0.load(Ordering::Relaxed), 1, "{}", exit.name);
        assert_eq!(l0.observer_panics(), 0, "{}", exit.name);
    }
}

#[tokio::test(start_paused = true)]
async fn numbers_without_a_name_in_the_conventions_leave_under_their_own() {
    let sdk = Sdk::new();
    let script = Script::new()
        .attempt(|a| a.token("a").fail(ErrorKind::ConnectionReset))
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
    read(sdk.l0(), script).await;

    let points = sdk.points();
    for point in [
        "gen_ai.client.token.usage[gen_ai.token.type=input] 1 x 12",
        "gen_ai.client.token.usage[gen_ai.token.type=output] 1 x 3",
        "l0.attempts[] 2",
        "l0.output_tokens.per_second[] 1 x 200",
        "l0.time_to_first_text[] 1 x 0",
        "l0.tokens.total[] 4",
        "l0.tokens.wasted[] 1",
        "l0.usage.cache_write_input[] 4",
        "l0.usage.cached_input[] 5",
        "l0.usage.reasoning[] 1",
        "l0.usage.total[] 15",
        "l0.wait[] 0.025",
    ] {
        assert!(points.contains(&point.to_owned()), "{point}: {points:#?}");
    }
    // What is counted as it happens is not counted again.
    for name in ["l0.retries.", "l0.network.errors_by", "l0.usage.input"] {
        let again = points.iter().find(|point| point.starts_with(name));
        assert_eq!(again, None);
    }

    let span = sdk.span();
    for (key, expected) in [
        ("gen_ai.usage.cache_creation.input_tokens", Some("4")),
        ("gen_ai.usage.cache_write.input_tokens", Some("4")),
        ("gen_ai.usage.cache_read.input_tokens", Some("5")),
        ("gen_ai.usage.input_tokens", Some("12")),
        ("gen_ai.usage.output_tokens", Some("3")),
        ("gen_ai.usage.reasoning.output_tokens", Some("1")),
        ("gen_ai.response.time_to_first_chunk", Some("0")),
        ("l0.attempts", Some("2")),
        ("l0.inter_token.avg", Some("0.005")),
        ("l0.inter_token.max", Some("0.008")),
        ("l0.retries.network", Some("1")),
        ("l0.retries.model", Some("0")),
        ("l0.time_to_first_text", Some("0")),
        ("l0.tokens.wasted", Some("1")),
        ("l0.wait", Some("0.025")),
        // Nobody judged the text.
        ("l0.guardrails.violations", None),
        ("l0.duration", None),
        ("l0.usage.input", None),
    ] {
        assert_eq!(value(&span.attributes, key).as_deref(), expected, "{key}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_not_measured_has_its_span_and_what_happens_counted() {
    for monitoring in [Monitoring::off(), Monitoring::new().sample_rate(0.0)] {
        let sdk = Sdk::new();
        let monitoring = monitoring
            .metadata("model", "gpt-4o")
            .metadata("provider", "openai");
        let l0 = sdk.l0().to_builder().monitoring(monitoring).build();
        let script = Script::new()
            .attempt(|a| a.wait(4 * MS).fail(ErrorKind::ConnectionReset))
            .attempt(|a| a.tokens(["a", "c"]).usage(Usage::new().input(1)));
        read(l0, script).await;

        let span = sdk.span();
        assert_eq!(length(&span), 9 * MS);
        assert_eq!(value(&span.attributes, "l0.attempts").as_deref(), Some("2"));
        assert_eq!(value(&span.attributes, "gen_ai.usage.input_tokens"), None);
        assert_eq!(
            sdk.points(),
            [
                "l0.network.errors[error.type=econnreset] 1",
                "l0.retries[l0.retry.kind=network l0.retry.reason=network_error] 1",
                "l0.runs.active[] 0",
                "l0.runs[l0.outcome=completed] 1",
            ]
        );
    }
}

#[test]
fn a_runtime_that_shuts_down_ends_its_runs() {
    let sdk = Sdk::new();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.unwrap();
    let script = Script::new().attempt(|a| a.token("a").hang());
    let mut run = sdk.l0().stream(script.source()).start();
    runtime.block_on(async move {
        run.next().await.unwrap().unwrap();
        tokio::spawn(async move { run.next().await.is_some() });
        tokio::task::yield_now().await;
    });
    assert!(sdk.spans().is_empty());
    drop(runtime);
    assert_eq!(
        value(&sdk.span().attributes, "l0.outcome").as_deref(),
        Some("dropped")
    );
    let points = sdk.points();
    assert!(points.contains(&"l0.runs[l0.outcome=dropped] 1".to_owned()));
    assert!(points.contains(&"l0.runs.active[] 0".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_live_run_is_active_and_its_span_has_not_ended() {
    let sdk = Sdk::new();
    let run = sdk.l0().stream(two_tokens().source()).start();
    assert_eq!(sdk.points(), ["l0.runs.active[] 1"]);
    assert!(sdk.spans().is_empty());
    drop(run);
    assert_eq!(sdk.spans().len(), 1);
}
