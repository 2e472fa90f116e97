//! The parents of spans.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::io::ErrorKind;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use common::{MS, Sdk, since_start, value};
use futures_util::{StreamExt, stream};
use l0_core::testing::Script;
use l0_core::{Backoff, L0, Retry, RunInfo};
use l0_otel::OtelBuilder;
use opentelemetry::metrics::{
    Counter, InstrumentBuilder, InstrumentProvider, Meter, SyncInstrument,
};
use opentelemetry::trace::{SpanId, TraceContextExt, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider, SpanData};

/// Runs two attempts of a source that creates a span while it connects. The run is polled on another thread than
/// `start()` was called on, without the span around `start()`.
fn run(sdk: &Sdk, change: impl FnOnce(OtelBuilder) -> OtelBuilder) {
    let tracer = sdk.tracer_provider.tracer("app");
    let l0 = L0::builder()
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(change(sdk.builder()).build())
        .build();
    let script = Script::new()
        .attempt(|a| a.fail(ErrorKind::ConnectionReset))
        .attempt(|a| a.token("a"));
    let mut source = script.source();
    let (http, dialled) = (tracer.clone(), tracer.clone());
    let connect = move |attempt| {
        // Work of the factory before it returns its future belongs to the attempt too.
        drop(dialled.start("dial"));
        let (http, connect) = (http.clone(), source(attempt));
        async move {
            let post = http.start("POST");
            // The future is polled twice.
            tokio::task::yield_now().await;
            let stream = connect.await?;
            drop(post);
            let seen = stream::poll_fn(|_| {
                assert!(!Context::current().has_active_span());
                Poll::Ready(None)
            });
            Ok::<_, l0_core::testing::ScriptedError>(stream.chain(seen))
        }
    };

    let request = Context::current_with_span(tracer.start("request"));
    let guard = request.attach();
    let mut run = l0.stream(connect).start();
    drop(guard);
    let other = thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        assert_eq!(runtime.unwrap().block_on(run.text()).unwrap(), "a");
        assert!(!Context::current().has_active_span());
    });
    other.join().unwrap();
}

/// Returns the names of all metrics.
fn metrics(sdk: &Sdk) -> Vec<String> {
    sdk.metrics()
        .into_iter()
        .map(|metric| metric.name)
        .collect()
}

/// Returns the names of the metrics of a run with spans.
fn usual_metrics() -> Vec<String> {
    let sdk = Sdk::new();
    run(&sdk, |builder| builder);
    let metrics = metrics(&sdk);
    assert!(metrics.contains(&"l0.retries".to_owned()));
    assert!(metrics.contains(&"gen_ai.client.operation.duration".to_owned()));
    metrics
}

fn named<'a>(spans: &'a [SpanData], name: &str) -> Vec<&'a SpanData> {
    spans.iter().filter(|span| span.name == name).collect()
}

#[test]
fn the_callers_span_is_the_parent_of_the_runs_and_each_attempts_span_that_of_the_clients() {
    let sdk = Sdk::new();
    run(&sdk, |builder| builder);
    let spans = sdk.spans();
    assert_eq!(spans.len(), 8);
    let request = named(&spans, "request")[0];
    let (run, attempts) = (sdk.run(), sdk.attempts());
    assert_eq!(run.parent_span_id, request.span_context.span_id());
    for name in ["dial", "POST"] {
        // In the order in which they ended, like the attempts.
        for (made, attempt) in named(&spans, name).into_iter().zip(&attempts) {
            assert_eq!(attempt.parent_span_id, run.span_context.span_id());
            assert_eq!(made.parent_span_id, attempt.span_context.span_id());
        }
    }
    assert_eq!(attempts.len(), 2);
    let trace = request.span_context.trace_id();
    assert!(
        spans
            .iter()
            .all(|span| span.span_context.trace_id() == trace)
    );
}

#[test]
fn without_spans_the_callers_span_is_the_parent_of_the_clients_span() {
    let sdk = Sdk::new();
    run(&sdk, |builder| builder.spans(false));
    let spans = sdk.spans();
    assert_eq!(spans.len(), 5);
    let request = named(&spans, "request")[0];
    let made = [named(&spans, "dial"), named(&spans, "POST")].concat();
    assert_eq!(made.len(), 4);
    for span in made {
        assert_eq!(span.parent_span_id, request.span_context.span_id());
    }
    assert_eq!(metrics(&sdk), usual_metrics());
}

#[test]
fn without_metrics_there_are_spans() {
    let sdk = Sdk::new();
    run(&sdk, |builder| builder.metrics(false));
    assert_eq!(sdk.spans().len(), 8);
    assert_eq!(sdk.metrics().len(), 0);
}

#[test]
fn metrics_do_not_depend_on_what_traces_sample() {
    let mut sdk = Sdk::new();
    sdk.tracer_provider = SdkTracerProvider::builder()
        .with_sampler(Sampler::AlwaysOff)
        .build();
    run(&sdk, |builder| builder);
    assert!(sdk.spans().is_empty());
    assert_eq!(metrics(&sdk), usual_metrics());
}

#[tokio::test(start_paused = true)]
async fn a_span_without_a_parent_is_a_root_and_its_times_are_in_order() {
    let sdk = Sdk::new();
    let script = Script::new()
        .attempt(|a| a.connect_wait(2 * MS).fail(ErrorKind::ConnectionReset))
        .attempt(|a| a.connect_wait(3 * MS).token("a").wait(4 * MS));
    let mut run = sdk.l0().stream(script.source()).start();
    run.text().await.unwrap();
    let span = sdk.run();
    assert_eq!(span.parent_span_id, SpanId::INVALID);
    let times = |of: &SpanData| {
        let start = since_start(&span, of.start_time);
        let events = of.events.iter();
        let events = events.map(|event| since_start(&span, event.timestamp));
        let end = since_start(&span, of.end_time);
        [start]
            .into_iter()
            .chain(events)
            .chain([end])
            .collect::<Vec<_>>()
    };
    // The attempt has a network error and the exception. The retry comes before the back-off.
    assert_eq!(times(&span), [Duration::ZERO, 2 * MS, 14 * MS]);
    let attempts = sdk.attempts();
    assert_eq!(
        times(&attempts[0]),
        [Duration::ZERO, 2 * MS, 2 * MS, 2 * MS]
    );
    assert_eq!(times(&attempts[1]), [7 * MS, 14 * MS]);
    let measured = run.telemetry().unwrap().duration;
    assert_eq!(measured, Some(14 * MS));
}

#[tokio::test]
async fn a_child_span_can_outlive_the_run() {
    let sdk = Sdk::new();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let connect = move |_| {
        *keep.lock().unwrap() = Some(Context::current());
        let stream = Script::new().attempt(|a| a.token("a")).stream();
        Box::pin(std::future::ready(
            Ok::<_, l0_core::testing::ScriptedError>(stream),
        )) as Pin<Box<dyn Future<Output = _> + Send>>
    };
    sdk.l0().stream(connect).start().text().await.unwrap();
    // The spans have ended, although a context still refers to them.
    assert_eq!(sdk.spans().len(), 2);
    drop(kept);
    assert_eq!(sdk.spans().len(), 2);
}

/// Creates counters that store which span is current.
#[derive(Clone, Default)]
struct Currents(Arc<Mutex<Vec<SpanId>>>);

impl InstrumentProvider for Currents {
    fn u64_counter(&self, _: InstrumentBuilder<'_, Counter<u64>>) -> Counter<u64> {
        Counter::new(Arc::new(self.clone()))
    }
}

impl SyncInstrument<u64> for Currents {
    fn measure(&self, _: u64, _: &[KeyValue]) {
        let current = Context::map_current(|current| current.span().span_context().span_id());
        self.0.lock().unwrap().push(current);
    }
}

#[test]
fn the_span_of_the_attempt_or_run_is_current_while_a_metric_is_recorded() {
    let sdk = Sdk::new();
    let notes = Currents::default();
    let meter = Meter::new(Arc::new(notes.clone()));
    run(&sdk, |builder| builder.meter(meter));
    let id = |span: &SpanData| span.span_context.span_id();
    let counted = notes.0.lock().unwrap();
    // A network error of the first attempt. Then, on the run's span, a retry, the run and the sums.
    let (first, rest) = counted.split_first().unwrap();
    assert_eq!(*first, id(&sdk.attempts()[0]));
    assert!(rest.len() > 3);
    assert!(rest.iter().all(|span| *span == id(&sdk.run())));
}

/// Starts a child of this run, in the context of a span `step`.
fn serve(sdk: &Sdk, l0: &L0, parent: &RunInfo) {
    let tracer = sdk.tracer_provider.tracer("app");
    let _step = Context::current_with_span(tracer.start("step")).attach();
    let script = Script::new().attempt(|a| a.token("a"));
    drop(l0.stream(script.source()).parent(parent).start());
}

#[test]
fn a_child_run_nests_below_its_parent_run_while_that_is_live() {
    let sdk = Sdk::new();
    let l0 = sdk.l0();
    let outer = l0.stream(Script::new().source()).start();
    let info = outer.info().clone();
    serve(&sdk, &l0, &info);
    let inner = sdk.run();
    drop(outer);
    let [_, outer] = &sdk.runs()[..] else {
        panic!("{:?}", sdk.runs());
    };
    assert_eq!(inner.parent_span_id, outer.span_context.span_id());
    assert_eq!(inner.span_context.trace_id(), outer.span_context.trace_id());
    let parent_id = value(&inner.attributes, "l0.parent_id");
    assert_eq!(parent_id.as_deref(), Some(info.id()));
    assert_eq!(value(&outer.attributes, "l0.parent_id"), None);

    // The parent run has ended.
    serve(&sdk, &l0, &info);
    let late = sdk.runs().pop().unwrap();
    let step = sdk.spans().into_iter().rfind(|span| span.name == "step");
    assert_eq!(late.parent_span_id, step.unwrap().span_context.span_id());
    assert_eq!(value(&late.attributes, "l0.parent_id"), parent_id);
}
