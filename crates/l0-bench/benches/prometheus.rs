//! Measures counting a run and writing the metrics, compared with the `prometheus` crate's vectors and with
//! `metrics` and its exporter.
//!
//! The others count the guide's 14 metrics; `l0-prometheus` counts all of its metrics, including the histogram
//! of gaps.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench prometheus
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]
#![allow(clippy::print_stdout, reason = "criterion does not report tails")]

use std::hint::black_box;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use l0_core::{
    Distribution, End, Monitor, Monitoring, NetworkErrorKind, Severity, Telemetry, Violation,
};
use l0_prometheus::{Collector, Labels};
use prometheus::core::Collector as _;

/// Returns a plain run of 150 tokens.
fn plain() -> Telemetry {
    let mut random = fastrand::Rng::with_seed(1);
    let mut gaps = Distribution::new();
    for _ in 1..150 {
        // Most gaps are close to 12 ms, some far above.
        let nanos = 6e6 - 6e6 * (1.0 - random.f64()).ln();
        gaps.record(Duration::from_nanos(nanos as u64));
    }
    let mut telemetry = Telemetry::example();
    telemetry.metrics.inter_token = Some(gaps);
    telemetry.metrics.wasted_tokens = 0;
    telemetry.metrics.total_retries = 0;
    telemetry.metrics.network_retries = 0;
    telemetry.network.error_count = 0;
    telemetry.network.errors_by_type.clear();
    telemetry
}

/// Returns the same run with retries, errors of two types and violations of three rules.
fn eventful() -> Telemetry {
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.start();
    for (rule, severity) in [
        ("json", Severity::Error),
        ("latex-environment", Severity::Warning),
        ("zero-output", Severity::Fatal),
    ] {
        monitor.record_violations(&[Violation::new(rule, severity, "wrong")]);
    }
    monitor.complete(End::completed());
    let checked = monitor.telemetry().expect("monitoring is on");

    let mut telemetry = plain();
    telemetry.guardrails = checked.guardrails;
    telemetry.metrics.wasted_tokens = 40;
    telemetry.metrics.total_retries = 3;
    telemetry.metrics.network_retries = 2;
    telemetry.metrics.model_retries = 1;
    telemetry.network.error_count = 3;
    telemetry.network.errors_by_type = [
        (NetworkErrorKind::Timeout, 1),
        (NetworkErrorKind::ConnectionDropped, 2),
    ]
    .into();
    telemetry
}

/// Returns this many names of models.
fn models(count: usize) -> Vec<String> {
    (0..count)
        .map(|index| format!("model-{index:05}"))
        .collect()
}

fn labels(model: &str) -> Labels {
    Labels::new([("model", model), ("endpoint", "/chat")]).expect("valid")
}

fn collector() -> Collector {
    Collector::builder()
        .label("service", "my-app")
        .build()
        .expect("valid")
}

/// Yields label sets in an order that caches cannot predict.
fn spread(count: usize) -> impl FnMut() -> usize {
    let mut random = fastrand::Rng::with_seed(2);
    move || random.usize(..count)
}

fn record(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let runs = [("plain", plain()), ("eventful", eventful())];
    let exemplars = || {
        let builder = Collector::builder().label("service", "my-app");
        builder.exemplars(true).build().expect("valid")
    };
    for (row, collector) in [
        ("l0, labels resolved", collector()),
        ("l0, labels resolved, exemplars", exemplars()),
    ] {
        for (name, telemetry) in &runs {
            let handle = collector.with_labels(&labels("gpt-4"));
            group.bench_function(BenchmarkId::new(row, name), |bencher| {
                bencher.iter(|| handle.record(black_box(telemetry)));
            });
        }
    }
    for sets in [1, 10_000] {
        let models = models(sets);
        let telemetry = &runs[0].1;
        let known: Vec<_> = models.iter().map(|model| labels(model)).collect();
        let collector = collector();
        let mut next = spread(sets);
        group.bench_function(BenchmarkId::new("l0, labels passed", sets), |bencher| {
            bencher.iter(|| collector.record(black_box(telemetry), &known[next()]));
        });
        group.bench_function(BenchmarkId::new("l0, labels built", sets), |bencher| {
            bencher.iter(|| collector.record(black_box(telemetry), &labels(&models[next()])));
        });
    }
    group.finish();
}

/// Beyond the limit, every look-up is of an unknown label set.
fn overflow(criterion: &mut Criterion) {
    let collector = Collector::builder().max_series(100).build().expect("valid");
    let telemetry = plain();
    let models = models(10_000);
    for model in &models {
        collector.record(&telemetry, &labels(model));
    }
    let mut next = spread(models.len());
    criterion.bench_function("record/l0, labels built, beyond the limit", |bencher| {
        bencher.iter(|| collector.record(black_box(&telemetry), &labels(&models[next()])));
    });
}

fn by_others(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("record");
    let runs = [("plain", plain()), ("eventful", eventful())];
    for (name, telemetry) in &runs {
        let manual = manual::Vectors::new();
        let resolved = manual.resolve("gpt-4", "/chat");
        group.bench_function(
            BenchmarkId::new("prometheus, labels resolved", name),
            |bencher| bencher.iter(|| manual.record_resolved(&resolved, black_box(telemetry))),
        );
        let facade = facade::Facade::new();
        let resolved = facade.resolve("gpt-4", "/chat");
        group.bench_function(
            BenchmarkId::new("metrics, labels resolved", name),
            |bencher| bencher.iter(|| facade.record_resolved(&resolved, black_box(telemetry))),
        );
    }
    for sets in [1, 10_000] {
        let models = models(sets);
        let telemetry = &runs[0].1;
        let manual = manual::Vectors::new();
        let mut next = spread(sets);
        group.bench_function(
            BenchmarkId::new("prometheus, labels passed", sets),
            |bencher| {
                bencher.iter(|| manual.record(black_box(telemetry), &models[next()], "/chat"));
            },
        );
        let facade = facade::Facade::new();
        group.bench_function(BenchmarkId::new("metrics, labels built", sets), |bencher| {
            bencher.iter(|| facade.record(black_box(telemetry), &models[next()], "/chat"));
        });
    }
    group.finish();
}

fn expose(criterion: &mut Criterion) {
    const SETS: usize = 1_000;
    let mut group = criterion.benchmark_group("expose");
    group.sample_size(20);
    let telemetry = eventful();
    let (collector, manual, facade) = (collector(), manual::Vectors::new(), facade::Facade::new());
    for model in models(SETS) {
        collector.record(&telemetry, &labels(&model));
        manual.record(&telemetry, &model, "/chat");
        facade.record(&telemetry, &model, "/chat");
    }
    let lines = |text: &str| format!("{SETS} label sets, {} lines", text.lines().count());

    let text = collector.expose();
    group.bench_function(BenchmarkId::new("l0", lines(&text)), |bencher| {
        bencher.iter(|| collector.expose());
    });
    group.bench_function(
        BenchmarkId::new("l0, through the prometheus crate", lines(&text)),
        |bencher| {
            bencher.iter(|| manual::encode(&collector.collect()));
        },
    );
    let text = manual.expose();
    group.bench_function(BenchmarkId::new("prometheus", lines(&text)), |bencher| {
        bencher.iter(|| manual.expose());
    });
    let text = facade.expose();
    group.bench_function(BenchmarkId::new("metrics", lines(&text)), |bencher| {
        bencher.iter(|| facade.expose());
    });
    group.finish();
}

/// Measures the longest recording time while a scraper scrapes without a pause.
fn tail(_: &mut Criterion) {
    const RECORDS: usize = 1_000_000;
    const SETS: usize = 1_000;
    let collector = collector();
    let telemetry = plain();
    let known: Vec<_> = models(SETS).iter().map(|model| labels(model)).collect();
    for labels in &known {
        collector.record(&telemetry, labels);
    }
    for scraped in [false, true] {
        let done = AtomicBool::new(false);
        let (mut nanos, scrapes) = thread::scope(|scope| {
            let scraper = scope.spawn(|| {
                let mut scrapes = 0;
                while scraped && !done.load(Ordering::Relaxed) {
                    black_box(collector.expose());
                    scrapes += 1;
                }
                scrapes
            });
            let mut next = spread(SETS);
            let nanos: Vec<u128> = (0..RECORDS)
                .map(|_| {
                    let labels = &known[next()];
                    let start = Instant::now();
                    collector.record(&telemetry, labels);
                    start.elapsed().as_nanos()
                })
                .collect();
            done.store(true, Ordering::Relaxed);
            (nanos, scraper.join().expect("no panic"))
        });
        nanos.sort_unstable();
        let at = |share: f64| nanos[(share * RECORDS as f64) as usize];
        println!(
            "tail/{RECORDS} records, {SETS} label sets, {scrapes} scrapes: \
             p50 {} ns, p99 {} ns, p99.9 {} ns, p99.99 {} ns",
            at(0.5),
            at(0.99),
            at(0.999),
            at(0.9999),
        );
    }
}

/// The guide's metrics with the vectors of the `prometheus` crate.
mod manual {
    use l0_core::Telemetry;
    use prometheus::proto::MetricFamily;
    use prometheus::{
        Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter,
        IntCounterVec, Opts, Registry, TextEncoder,
    };

    use super::{DURATION, SEVERITIES, TTFT};

    const LABELS: [&str; 3] = ["service", "model", "endpoint"];

    pub(crate) struct Vectors {
        registry: Registry,
        requests: IntCounterVec,
        duration: HistogramVec,
        tokens: IntCounterVec,
        rate: GaugeVec,
        first_token: HistogramVec,
        retries: IntCounterVec,
        network_retries: IntCounterVec,
        model_retries: IntCounterVec,
        errors: IntCounterVec,
        errors_by_type: IntCounterVec,
        violations: IntCounterVec,
        by_severity: IntCounterVec,
        by_rule: IntCounterVec,
        drift: IntCounterVec,
    }

    pub(crate) struct Resolved {
        labels: [String; 3],
        requests: IntCounter,
        duration: Histogram,
        tokens: IntCounter,
        rate: Gauge,
        first_token: Histogram,
        retries: IntCounter,
        network_retries: IntCounter,
        model_retries: IntCounter,
        errors: IntCounter,
        violations: IntCounter,
        drift: IntCounter,
    }

    impl Vectors {
        pub(crate) fn new() -> Self {
            let registry = Registry::new();
            let counter = |name: &str, own: Option<&'static str>| {
                let labels: Vec<_> = LABELS.into_iter().chain(own).collect();
                let vector = IntCounterVec::new(Opts::new(name, "help"), &labels).expect("valid");
                registry.register(Box::new(vector.clone())).expect("new");
                vector
            };
            let histogram = |name: &str, bounds: &[f64]| {
                let opts = HistogramOpts::new(name, "help").buckets(bounds.to_vec());
                let vector = HistogramVec::new(opts, &LABELS).expect("valid");
                registry.register(Box::new(vector.clone())).expect("new");
                vector
            };
            let rate = GaugeVec::new(Opts::new("l0_tokens_per_second", "help"), &LABELS);
            let rate = rate.expect("valid");
            registry.register(Box::new(rate.clone())).expect("new");
            Self {
                requests: counter("l0_requests_total", None),
                duration: histogram("l0_request_duration_seconds", &DURATION),
                tokens: counter("l0_tokens_total", None),
                rate,
                first_token: histogram("l0_time_to_first_token_seconds", &TTFT),
                retries: counter("l0_retries_total", None),
                network_retries: counter("l0_retries_network_total", None),
                model_retries: counter("l0_retries_model_total", None),
                errors: counter("l0_network_errors_total", None),
                errors_by_type: counter("l0_network_errors_by_type_total", Some("error_type")),
                violations: counter("l0_guardrail_violations_total", None),
                by_severity: counter(
                    "l0_guardrail_violations_by_severity_total",
                    Some("severity"),
                ),
                by_rule: counter("l0_guardrail_violations_by_rule_total", Some("rule")),
                drift: counter("l0_drift_detected_total", None),
                registry,
            }
        }

        pub(crate) fn resolve(&self, model: &str, endpoint: &str) -> Resolved {
            let labels = ["my-app", model, endpoint];
            Resolved {
                labels: labels.map(str::to_owned),
                requests: self.requests.with_label_values(&labels),
                duration: self.duration.with_label_values(&labels),
                tokens: self.tokens.with_label_values(&labels),
                rate: self.rate.with_label_values(&labels),
                first_token: self.first_token.with_label_values(&labels),
                retries: self.retries.with_label_values(&labels),
                network_retries: self.network_retries.with_label_values(&labels),
                model_retries: self.model_retries.with_label_values(&labels),
                errors: self.errors.with_label_values(&labels),
                violations: self.violations.with_label_values(&labels),
                drift: self.drift.with_label_values(&labels),
            }
        }

        pub(crate) fn record(&self, telemetry: &Telemetry, model: &str, endpoint: &str) {
            self.record_resolved(&self.resolve(model, endpoint), telemetry);
        }

        pub(crate) fn record_resolved(&self, to: &Resolved, telemetry: &Telemetry) {
            let metrics = &telemetry.metrics;
            to.requests.inc();
            if let Some(duration) = telemetry.duration {
                to.duration.observe(duration.as_secs_f64());
            }
            to.tokens.inc_by(metrics.total_tokens);
            if let Some(rate) = metrics.tokens_per_second {
                to.rate.set(rate);
            }
            if let Some(after) = metrics.time_to_first_token {
                to.first_token.observe(after.as_secs_f64());
            }
            to.retries.inc_by(metrics.total_retries.into());
            to.network_retries.inc_by(metrics.network_retries.into());
            to.model_retries.inc_by(metrics.model_retries.into());
            to.errors.inc_by(telemetry.network.error_count);
            let [service, model, endpoint] = &to.labels;
            let with = |vector: &IntCounterVec, own: &str, count| {
                vector
                    .with_label_values(&[service, model, endpoint, own])
                    .inc_by(count);
            };
            for (kind, count) in &telemetry.network.errors_by_type {
                with(&self.errors_by_type, kind.as_str(), *count);
            }
            if let Some(guardrails) = &telemetry.guardrails {
                to.violations.inc_by(guardrails.violation_count);
                for severity in SEVERITIES {
                    let count = guardrails.violations_by_severity.get(severity);
                    if count > 0 {
                        with(&self.by_severity, severity.as_str(), count);
                    }
                }
                for (rule, count) in &guardrails.violations_by_rule {
                    with(&self.by_rule, rule, *count);
                }
            }
            to.drift.inc_by(
                telemetry
                    .drift
                    .as_ref()
                    .is_some_and(|drift| drift.detected())
                    .into(),
            );
        }

        pub(crate) fn expose(&self) -> String {
            encode(&self.registry.gather())
        }
    }

    pub(crate) fn encode(families: &[MetricFamily]) -> String {
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(families, &mut text)
            .expect("valid");
        String::from_utf8(text).expect("text")
    }
}

/// The guide's metrics through `metrics` and `metrics-exporter-prometheus`.
mod facade {
    use std::cell::Cell;

    use l0_core::Telemetry;
    use metrics::{Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString};
    use metrics_exporter_prometheus::{
        Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
    };

    use super::{DURATION, SEVERITIES, TTFT};

    static METADATA: Metadata<'static> = Metadata::new("bench", Level::INFO, None);
    /// A histogram keeps each value until the exporter's upkeep runs, which the application must call.
    const UPKEEP: u64 = 1_000;

    pub(crate) struct Facade {
        recorder: PrometheusRecorder,
        handle: PrometheusHandle,
        records: Cell<u64>,
    }

    pub(crate) struct Resolved {
        labels: Vec<Label>,
        requests: Counter,
        duration: Histogram,
        tokens: Counter,
        rate: Gauge,
        first_token: Histogram,
        retries: Counter,
        network_retries: Counter,
        model_retries: Counter,
        errors: Counter,
        violations: Counter,
        drift: Counter,
    }

    impl Facade {
        pub(crate) fn new() -> Self {
            let buckets = |builder: PrometheusBuilder, name: &str, bounds: &[f64]| {
                let matcher = Matcher::Full(name.to_owned());
                builder
                    .set_buckets_for_metric(matcher, bounds)
                    .expect("valid")
            };
            let builder = PrometheusBuilder::new().add_global_label("service", "my-app");
            let builder = buckets(builder, "l0_request_duration_seconds", &DURATION);
            let builder = buckets(builder, "l0_time_to_first_token_seconds", &TTFT);
            let recorder = builder.build_recorder();
            Self {
                handle: recorder.handle(),
                recorder,
                records: Cell::new(0),
            }
        }

        fn counter(&self, name: &'static str, labels: Vec<Label>) -> Counter {
            self.recorder
                .register_counter(&Key::from_parts(name, labels), &METADATA)
        }

        fn histogram(&self, name: &'static str, labels: Vec<Label>) -> Histogram {
            self.recorder
                .register_histogram(&Key::from_parts(name, labels), &METADATA)
        }

        fn gauge(&self, name: &'static str, labels: Vec<Label>) -> Gauge {
            self.recorder
                .register_gauge(&Key::from_parts(name, labels), &METADATA)
        }

        pub(crate) fn resolve(&self, model: &str, endpoint: &'static str) -> Resolved {
            let labels = vec![
                Label::new("model", model.to_owned()),
                Label::new("endpoint", endpoint),
            ];
            Resolved {
                requests: self.counter("l0_requests_total", labels.clone()),
                duration: self.histogram("l0_request_duration_seconds", labels.clone()),
                tokens: self.counter("l0_tokens_total", labels.clone()),
                rate: self.gauge("l0_tokens_per_second", labels.clone()),
                first_token: self.histogram("l0_time_to_first_token_seconds", labels.clone()),
                retries: self.counter("l0_retries_total", labels.clone()),
                network_retries: self.counter("l0_retries_network_total", labels.clone()),
                model_retries: self.counter("l0_retries_model_total", labels.clone()),
                errors: self.counter("l0_network_errors_total", labels.clone()),
                violations: self.counter("l0_guardrail_violations_total", labels.clone()),
                drift: self.counter("l0_drift_detected_total", labels.clone()),
                labels,
            }
        }

        pub(crate) fn record(&self, telemetry: &Telemetry, model: &str, endpoint: &'static str) {
            self.record_resolved(&self.resolve(model, endpoint), telemetry);
        }

        pub(crate) fn record_resolved(&self, to: &Resolved, telemetry: &Telemetry) {
            let metrics = &telemetry.metrics;
            to.requests.increment(1);
            if let Some(duration) = telemetry.duration {
                to.duration.record(duration);
            }
            to.tokens.increment(metrics.total_tokens);
            if let Some(rate) = metrics.tokens_per_second {
                to.rate.set(rate);
            }
            if let Some(after) = metrics.time_to_first_token {
                to.first_token.record(after);
            }
            to.retries.increment(metrics.total_retries.into());
            to.network_retries.increment(metrics.network_retries.into());
            to.model_retries.increment(metrics.model_retries.into());
            to.errors.increment(telemetry.network.error_count);
            let with = |name, label: &'static str, value: SharedString, count| {
                let mut labels = to.labels.clone();
                labels.push(Label::new(label, value));
                self.counter(name, labels).increment(count);
            };
            for (kind, count) in &telemetry.network.errors_by_type {
                with(
                    "l0_network_errors_by_type_total",
                    "error_type",
                    kind.as_str().into(),
                    *count,
                );
            }
            if let Some(guardrails) = &telemetry.guardrails {
                to.violations.increment(guardrails.violation_count);
                for severity in SEVERITIES {
                    let count = guardrails.violations_by_severity.get(severity);
                    if count > 0 {
                        let name = "l0_guardrail_violations_by_severity_total";
                        with(name, "severity", severity.as_str().into(), count);
                    }
                }
                for (rule, count) in &guardrails.violations_by_rule {
                    let name = "l0_guardrail_violations_by_rule_total";
                    with(name, "rule", rule.clone().into(), *count);
                }
            }
            to.drift.increment(
                telemetry
                    .drift
                    .as_ref()
                    .is_some_and(|drift| drift.detected())
                    .into(),
            );
            self.records.set(self.records.get() + 1);
            if self.records.get().is_multiple_of(UPKEEP) {
                self.handle.run_upkeep();
            }
        }

        pub(crate) fn expose(&self) -> String {
            self.handle.render()
        }
    }
}

const SEVERITIES: [Severity; 3] = [Severity::Warning, Severity::Error, Severity::Fatal];

/// The default buckets of `l0-prometheus`.
const DURATION: [f64; 17] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0,
    1200.0,
];
const TTFT: [f64; 19] = [
    0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 320.0,
];

criterion_group! {
    name = benches;
    config = Criterion::default().without_plots();
    targets = tail, record, overflow, by_others, expose
}
criterion_main!(benches);
