//! The SDK never delays a run, and a panic in it affects nothing else.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use common::{Sdk, own_points, value};
use l0_core::testing::Script;
use l0_core::{Backoff, L0, Retry};
use l0_otel::OtelInterceptor;
use opentelemetry::Context;
use opentelemetry::metrics::{
    Counter, InstrumentBuilder, InstrumentProvider, Meter, MeterProvider, SyncInstrument,
};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{SdkMeterProvider, Temporality};
use opentelemetry_sdk::trace::{SdkTracerProvider, Span, SpanData, SpanExporter, SpanProcessor};

/// Longer than any step takes, so a test that hangs fails instead.
const DEADLINE: Duration = Duration::from_secs(60);

/// An endpoint that accepts data and does not answer until it is released.
struct Stuck {
    reached: Sender<()>,
    open: Mutex<Receiver<()>>,
    exported: Arc<Mutex<usize>>,
}

impl Stuck {
    fn wait(&self, count: usize) {
        let _ = self.reached.send(());
        // Dropping the other end releases it permanently.
        let _ = self.open.lock().unwrap().recv();
        *self.exported.lock().unwrap() += count;
    }
}

impl fmt::Debug for Stuck {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stuck")
    }
}

impl SpanExporter for Stuck {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.wait(batch.len());
        Ok(())
    }
}

impl PushMetricExporter for Stuck {
    async fn export(&self, _: &ResourceMetrics) -> OTelSdkResult {
        self.wait(1);
        Ok(())
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }

    fn temporality(&self) -> Temporality {
        Temporality::Cumulative
    }
}

#[tokio::test]
async fn runs_end_while_the_endpoint_does_not_answer() {
    let (reached, wait) = channel();
    let exported = Arc::new(Mutex::new(0));
    let mut doors = Vec::new();
    let mut stuck = || {
        let (door, open) = channel::<()>();
        doors.push(door);
        Stuck {
            reached: reached.clone(),
            open: Mutex::new(open),
            exported: Arc::clone(&exported),
        }
    };
    let tracers = SdkTracerProvider::builder()
        .with_batch_exporter(stuck())
        .build();
    let meters = SdkMeterProvider::builder()
        .with_periodic_exporter(stuck())
        .build();
    let otel = OtelInterceptor::builder()
        .tracer(tracers.tracer("app"))
        .meter(meters.meter("app"))
        .build();
    let l0 = L0::builder().interceptor(otel).build();
    let script = Script::new().attempt(|a| a.tokens(["a", "c"]));

    l0.stream(script.source()).start().text().await.unwrap();
    let flushes = [
        thread::spawn({
            let tracers = tracers.clone();
            move || tracers.force_flush()
        }),
        thread::spawn({
            let meters = meters.clone();
            move || meters.force_flush()
        }),
    ];
    // Both exports now block. No run is allowed to wait for them.
    for _ in &flushes {
        wait.recv_timeout(DEADLINE).unwrap();
    }
    // More than the queue of the SDK holds.
    for _ in 0..5_000 {
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.unwrap(), "ac");
    }
    assert_eq!(*exported.lock().unwrap(), 0);
    assert_eq!(l0.observer_panics(), 0);

    drop(doors);
    for flush in flushes {
        // The SDK stops waiting for a flush after five seconds, which the runs can take. The export goes on.
        let _ = flush.join().unwrap();
    }
    let _ = (tracers.shutdown(), meters.shutdown());
    assert!(*exported.lock().unwrap() > 2);
}

/// Panics when a span ends.
#[derive(Debug)]
struct PanicsAtEnd;

impl SpanProcessor for PanicsAtEnd {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, _: SpanData) {
        panic!("bug")
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Runs an attempt that is retried, then one that answers.
async fn retried(otel: OtelInterceptor) -> L0 {
    let l0 = L0::builder()
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(otel)
        .build();
    let script = Script::new()
        .attempt(|a| a.fail(ErrorKind::ConnectionReset))
        .attempt(|a| a.tokens(["a", "c"]));
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.unwrap(), "ac");
    l0
}

#[tokio::test]
async fn a_panicking_span_processor_affects_neither_the_run_nor_its_metrics() {
    let sdk = Sdk::new();
    let tracers = SdkTracerProvider::builder()
        .with_span_processor(PanicsAtEnd)
        .build();
    let otel = sdk.builder().tracer(tracers.tracer("app"));
    let l0 = retried(otel.build()).await;
    assert_eq!(l0.observer_panics(), 1);
    for metric in sdk.metrics() {
        match &*metric.name {
            "l0.runs" => {
                assert_eq!(metric.points[0].value, "1");
                let outcome = value(&metric.points[0].attributes, "l0.outcome");
                assert_eq!(outcome.as_deref(), Some("completed"));
            }
            "l0.runs.active" => assert_eq!(metric.points[0].value, "0"),
            _ => {}
        }
    }
}

/// Creates counters that panic.
struct PanickingCounters;

impl InstrumentProvider for PanickingCounters {
    fn u64_counter(&self, _: InstrumentBuilder<'_, Counter<u64>>) -> Counter<u64> {
        Counter::new(Arc::new(Panics))
    }
}

struct Panics;

impl SyncInstrument<u64> for Panics {
    fn measure(&self, _: u64, _: &[opentelemetry::KeyValue]) {
        panic!("bug")
    }
}

#[tokio::test]
async fn a_panicking_instrument_affects_neither_the_run_nor_the_end_of_its_span() {
    let sdk = Sdk::new();
    let meter = Meter::new(Arc::new(PanickingCounters));
    let l0 = retried(sdk.builder().meter(meter).build()).await;
    // The first panic ends the observation of the run. The second happens when its end is recorded.
    assert_eq!(l0.observer_panics(), 2);
    let span = sdk.run();
    let outcome = value(&span.attributes, "l0.outcome");
    assert_eq!(outcome.as_deref(), Some("dropped"));
}

#[tokio::test]
async fn without_an_sdk_nothing_happens() {
    let l0 = retried(OtelInterceptor::default()).await;
    assert_eq!(l0.observer_panics(), 0);
}

/// A thread that ends destroys its thread-locals in reverse order of creation: here the run after its context.
#[test]
fn a_run_that_outlives_the_context_of_its_thread_is_counted() {
    thread_local! {
        static KEPT: RefCell<Option<Box<dyn Any>>> = RefCell::default();
    }

    let sdk = Sdk::new();
    let l0 = sdk.l0();
    let runs = l0.clone();
    let thread = thread::spawn(move || {
        KEPT.with_borrow_mut(|kept| {
            *kept = Some(Box::new(runs.stream(Script::new().source()).start()));
        });
    });
    thread.join().unwrap();
    assert_eq!(l0.observer_panics(), 0);
    let counted = sdk.points().into_iter();
    let counted: Vec<_> = counted.filter(|line| line.starts_with("l0.")).collect();
    let telemetry = sdk.ended()[0].telemetry.clone().unwrap();
    let mut expected = own_points(&telemetry, "");
    expected.push("l0.runs.active[] 0".to_owned());
    expected.push("l0.runs[l0.outcome=dropped] 1".to_owned());
    expected.sort();
    assert_eq!(counted, expected);
    assert_eq!(sdk.runs().len(), 1);
}
