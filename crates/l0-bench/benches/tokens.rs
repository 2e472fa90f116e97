//! Measures a token: bare, through L0 in each of its configurations, and counted directly with other crates.
//!
//! All rows poll the same boxed source to its end. The rows of other crates measure what `on` does and no more:
//! the time to first token, a histogram of the gaps, and a count of the tokens.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench tokens
//! $ docs/performance.py --print tokens
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::future::{Ready, ready};
use std::hint::black_box;
use std::io;
use std::time::{Duration, Instant};

use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use l0_bench::{ANSWER, Source, drain, drain_with, source, waiting};
use l0_core::{Attempt, Checks, L0, L0Builder, Monitoring, Retry, Timeouts};
use l0_guardrails::{Drift, Guardrails, Json, Markdown, ZeroOutput};
use l0_prometheus::Collector;
use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, PeriodicReader, SdkMeterProvider};
use prometheus::{HistogramOpts, HistogramVec, IntCounterVec, Opts};
use tokio::runtime::Builder;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::fmt;

const LENGTHS: [u64; 2] = [20_000, 1_000_000];

fn on() -> L0Builder {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
}

fn three_rules() -> Checks {
    Guardrails::none()
        .with(Json::new)
        .with(Markdown::new)
        .with(ZeroOutput::new)
}

fn timeouts() -> Timeouts {
    let minute = Duration::from_secs(60);
    Timeouts::new()
        .first_token(minute)
        .inter_token(minute)
        .total(60 * minute)
}

/// All parts of core, and an adapter.
fn full_stack(guardrails: Checks) -> L0Builder {
    let collector = Collector::builder().build().expect("valid");
    on().guardrails(guardrails)
        .drift(Drift::new())
        .timeouts(timeouts())
        .interceptor(collector.label_keys(["model"]).expect("valid"))
}

fn configurations() -> Vec<(&'static str, L0Builder)> {
    let off = || on().monitoring(Monitoring::off());
    let with = |monitoring| on().monitoring(monitoring);
    vec![
        ("off", off()),
        ("sampled out", with(Monitoring::new().sample_rate(0.0))),
        (
            "on, without timings",
            with(Monitoring::new().include_timings(false)),
        ),
        (
            "on, without network details",
            with(Monitoring::new().include_network_details(false)),
        ),
        ("on", on()),
        ("on + timeouts", on().timeouts(timeouts())),
        ("on + json", on().guardrails(Guardrails::minimal())),
        ("on + three rules", on().guardrails(three_rules())),
        ("on + drift", on().drift(Drift::new())),
        ("full stack", full_stack(three_rules())),
        ("full stack, strict rules", full_stack(Guardrails::strict())),
    ]
}

/// Polls a bare source, and passes on the time to first token and the gaps, in seconds, and the number of
/// tokens.
fn manual(tokens: u64, first: impl Fn(f64), gap: impl Fn(f64), count: impl Fn()) {
    let mut last = Instant::now();
    let mut seen = false;
    drain_with(source(ANSWER, tokens), || {
        let now = Instant::now();
        let since = (now - last).as_secs_f64();
        last = now;
        if seen {
            gap(since);
        } else {
            seen = true;
            first(since);
        }
        count();
    });
}

/// Counts a run of this many tokens.
type Peer = Box<dyn Fn(u64)>;

const FIRST: &str = "time_to_first_token_seconds";
const GAP: &str = "inter_token_seconds";
const TOKENS: &str = "tokens_total";
const MODEL: [(&str, &str); 1] = [("model", "gpt-4o")];
/// The bounds of a histogram, in seconds.
const BOUNDS: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Resolves handles before the run, the fastest use of the crate.
fn prometheus() -> Peer {
    let histogram = |name: &str| {
        let options = HistogramOpts::new(name, name).buckets(BOUNDS.to_vec());
        let vector = HistogramVec::new(options, &[MODEL[0].0]).expect("valid");
        vector.with_label_values(&[MODEL[0].1])
    };
    let (first, gap) = (histogram(FIRST), histogram(GAP));
    let count = IntCounterVec::new(Opts::new(TOKENS, TOKENS), &[MODEL[0].0]).expect("valid");
    let count = count.with_label_values(&[MODEL[0].1]);
    Box::new(move |tokens| {
        manual(
            tokens,
            |value| first.observe(value),
            |value| gap.observe(value),
            || count.inc(),
        );
    })
}

/// Resolves handles before the run, the fastest use of the crate. Its upkeep runs at the end of each run, as
/// its own task does every few seconds.
fn metrics() -> Peer {
    let recorder = PrometheusBuilder::new()
        .set_buckets(&BOUNDS)
        .expect("valid")
        .build_recorder();
    let (first, gap, count) = metrics::with_local_recorder(&recorder, || {
        (
            metrics::histogram!(FIRST, &MODEL),
            metrics::histogram!(GAP, &MODEL),
            metrics::counter!(TOKENS, &MODEL),
        )
    });
    Box::new(move |tokens| {
        manual(
            tokens,
            |value| first.record(value),
            |value| gap.record(value),
            || count.increment(1),
        );
        recorder.handle().run_upkeep();
    })
}

/// Its API resolves attributes with every call.
fn opentelemetry() -> Peer {
    let exporter = InMemoryMetricExporter::default();
    let reader = PeriodicReader::builder(exporter)
        .with_interval(Duration::from_secs(3_600))
        .build();
    let provider = SdkMeterProvider::builder().with_reader(reader).build();
    let meter = provider.meter("bench");
    let histogram = |name| {
        let builder = meter.f64_histogram(name).with_boundaries(BOUNDS.to_vec());
        builder.build()
    };
    let (first, gap) = (histogram(FIRST), histogram(GAP));
    let count = meter.u64_counter(TOKENS).build();
    let attributes = MODEL.map(|(key, value)| KeyValue::new(key, value));
    Box::new(move |tokens| {
        // Kept with the instruments, which count nothing without it.
        let _ = &provider;
        manual(
            tokens,
            |value| first.record(value, &attributes),
            |value| gap.record(value, &attributes),
            || count.add(1, &attributes),
        );
    })
}

/// Writes one event per token as a line of text to a sink.
fn tracing() -> Peer {
    let subscriber = fmt().with_writer(io::sink).finish();
    let dispatch = tracing::Dispatch::new(subscriber);
    Box::new(move |tokens| {
        tracing::dispatcher::with_default(&dispatch, || {
            manual(
                tokens,
                |seconds| tracing::info!(seconds, "first token"),
                |seconds| tracing::info!(seconds, "token"),
                || {},
            );
        });
    })
}

fn tokens(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_time().build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter(); // for the timers of timeouts
    let never = CancellationToken::new();
    for tokens in LENGTHS {
        let mut group = criterion.benchmark_group("tokens");
        group
            .throughput(Throughput::Elements(tokens))
            .sampling_mode(SamplingMode::Flat);
        let mut row = |name: &str, run: &dyn Fn()| {
            group.bench_function(BenchmarkId::new(name, tokens), |bencher| bencher.iter(run));
        };

        row("bare", &|| drain(source(ANSWER, tokens)));
        row("clock read", &|| {
            for _ in 0..tokens {
                black_box(Instant::now());
            }
        });
        for (name, builder) in configurations() {
            let l0 = builder.build();
            row(name, &|| drain(l0.stream(once(source, tokens)).start()));
            // A watched stream has no timeouts.
            if !name.contains("timeouts") {
                let watched = format!("{name}, watched");
                row(&watched, &|| {
                    drain(l0.watch(source(ANSWER, tokens)).start());
                });
            }
        }
        let l0 = on().build();
        row("on + until", &|| {
            let until = never.clone().cancelled_owned();
            drain(l0.stream(once(source, tokens)).until(until).start());
        });

        row("bare, waiting", &|| drain(waiting(ANSWER, tokens)));
        for (name, builder) in [
            ("off, waiting", on().monitoring(Monitoring::off())),
            ("on, waiting", on()),
            ("full stack, waiting", full_stack(three_rules())),
        ] {
            let l0 = builder.build();
            row(name, &|| drain(l0.stream(once(waiting, tokens)).start()));
        }

        for (name, peer) in [
            ("prometheus alone", prometheus()),
            ("metrics alone", metrics()),
            ("opentelemetry alone", opentelemetry()),
            ("tracing alone", tracing()),
        ] {
            row(name, &|| peer(tokens));
        }
        group.finish();
    }
}

/// Returns a factory that yields this source for its only attempt.
fn once(
    source: fn(&'static str, u64) -> Source,
    tokens: u64,
) -> impl FnMut(Attempt) -> Ready<io::Result<Source>> {
    move |_| ready(Ok(source(ANSWER, tokens)))
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_secs(1))
        .without_plots();
    targets = tokens
}
criterion_main!(benches);
