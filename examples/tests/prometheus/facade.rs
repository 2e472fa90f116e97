//! The `metrics` facade, exported for Prometheus, has the same values as `l0-prometheus` for the same runs.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::routing::get as on_get;
use l0_core::testing::Script;
use l0_core::testing::exits::{self, Exit};
use l0_core::{
    Currency, Failure, L0, L0Builder, Money, Monitoring, Price, Priced, Retry, Source, Stalls,
    Timeouts, TokenPrices, Usage, source,
};
use l0_examples::chat_app::ChatApp;
use l0_guardrails::Guardrails;
use l0_metrics::MetricsInterceptor;
use l0_pricing::Characters;
use l0_prometheus::Collector;
use metrics::{set_global_recorder, with_local_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusRecorder};

use crate::common::{Labels, Samples, Service, check_strictly, read, switched_on, wait_for};
use crate::documents::{check_dashboards, check_rules, rule_files};
use crate::guide::{Window, check_guide};
use crate::programs::{Prometheus, with_one_spelling};
use crate::sent::Sent;
use crate::{OURS, served};

/// Reports runs to both.
struct Both {
    collector: Collector,
    metrics: Arc<MetricsInterceptor>,
    recorder: PrometheusRecorder,
}

fn recorder(metrics: &MetricsInterceptor) -> PrometheusRecorder {
    let mut exporter = PrometheusBuilder::new();
    for (name, bounds) in metrics.buckets() {
        let matcher = Matcher::Full(name);
        exporter = exporter.set_buckets_for_metric(matcher, bounds).unwrap();
    }
    exporter.build_recorder()
}

/// Sets the same stall threshold as for the collector.
fn counting_stalls(metrics: MetricsInterceptor) -> MetricsInterceptor {
    metrics.stalls(Stalls::new())
}

/// Reads the output of the exporter, without its empty lines.
fn read_facade(text: &str) -> Samples {
    let lines = text.lines().filter(|line| !line.is_empty());
    with_one_spelling(read(&lines.collect::<Vec<_>>().join("\n")))
}

impl Both {
    fn new() -> Self {
        let metrics = counting_stalls(MetricsInterceptor::new());
        let metrics = metrics.label_keys(["model"]).unwrap();
        let collector = crate::common::counting_stalls(Collector::builder());
        Self {
            collector: collector.build().unwrap(),
            recorder: recorder(&metrics),
            metrics: Arc::new(metrics),
        }
    }

    fn builder(&self) -> L0Builder {
        L0::builder()
            .monitoring(Monitoring::new().metadata("model", "a"))
            .guardrails(Guardrails::recommended())
            .pricing(prices)
            .estimate_usage(Characters::per_token(4.0).estimator())
            .interceptor(self.collector.label_keys(["model"]).unwrap())
            .interceptor(Arc::clone(&self.metrics))
    }

    fn compare(&self, what: &str, has_paused_clock: bool) {
        with_local_recorder(&self.recorder, || self.metrics.refresh());
        let mut facade = read_facade(&self.recorder.handle().render());
        let theirs = with_one_spelling(read(&self.collector.expose()));
        // A gauge of the facade cannot be removed.
        facade.0.retain(|labels, value| {
            let is_age = labels["__name__"] == "l0_stream_oldest_seconds";
            assert!(!is_age || *value == 0.0, "{what}: {value}");
            !is_age
        });
        let series = |samples: &Samples| BTreeSet::from_iter(samples.0.keys().cloned());
        let (ours, expected) = (series(&facade), series(&theirs));
        let missing: Vec<_> = expected.difference(&ours).collect();
        let foreign: Vec<_> = ours.difference(&expected).collect();
        assert!(
            missing.is_empty() && foreign.is_empty(),
            "{what}: {missing:?} {foreign:?}"
        );
        for (labels, value) in &facade.0 {
            let expected = theirs.0[labels];
            let name = &*labels["__name__"];
            let is_same = if name == "l0_inter_token_seconds_bucket" {
                // The collector can count a gap slightly below a bound as above it.
                (expected..=above(&theirs, labels)).contains(value)
            } else if name == "l0_streams_active_seconds_total" && !has_paused_clock {
                (value - expected).abs() < 1.0
            } else {
                (value - expected).abs() <= 1e-9 * expected.abs()
            };
            assert!(is_same, "{what}: {labels:?} {value} instead of {expected}");
        }
    }
}

/// Returns the count of the next bucket.
fn above(samples: &Samples, labels: &Labels) -> f64 {
    let bound = |labels: &Labels| labels["le"].parse::<f64>().unwrap();
    let without_bound = |labels: &Labels| {
        let mut labels = labels.clone();
        labels.remove("le");
        labels
    };
    let is_above = |(other, _): &(&Labels, &f64)| {
        let of_same = without_bound(other) == without_bound(labels);
        of_same && other.contains_key("le") && bound(other) > bound(labels)
    };
    let above = samples.0.iter().filter(is_above);
    let next = above.min_by(|(a, _), (b, _)| bound(a).total_cmp(&bound(b)));
    next.map_or(samples.0[labels], |(_, count)| *count)
}

/// A script with enough failing attempts for these tests.
fn failing() -> Script {
    (0..3).fold(Script::new(), |script, _| {
        script.attempt(|a| {
            let gap = Duration::from_millis(7);
            a.tokens(["a", "b"])
                .wait(gap)
                .token("c")
                .fail(Failure::status(503))
        })
    })
}

fn prices(_: &Priced<'_>) -> Option<Arc<Price>> {
    let tokens = TokenPrices::per_million(Money::units(2), Money::units(8));
    Some(Arc::new(Price::new(Currency::USD, tokens)))
}

/// A text that violates a rule.
const BAD: &str = "As an AI language model, I cannot say. ";

fn paused() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

#[test]
fn every_end_gives_the_same_series_and_values_as_the_collector() {
    type Configure = fn(L0Builder) -> L0Builder;
    let measurements: [(&str, Configure); 2] = [
        ("measured", |builder| builder),
        ("off", |builder| builder.monitoring(Monitoring::off())),
    ];
    let all: Vec<Exit> = exits::all().into_iter().collect();
    for (measurement, configure) in measurements {
        for exit in &all {
            let both = Both::new();
            with_local_recorder(&both.recorder, || {
                exit.run(paused(), configure(both.builder()))
            });
            let what = format!("{exit}, {measurement}");
            both.compare(&what, exit.duration.is_some());
        }
    }
}

#[test]
fn retries_fallbacks_and_violations_give_the_same_series_and_values_as_the_collector() {
    let both = Both::new();
    let ms = Duration::from_millis;
    let runs = async {
        let retry = Retry::new().max_retries(2);
        let l0 = both.builder().retry(retry).build();
        for round in 0..3_u32 {
            let failing = failing();
            let answering = Script::new()
                .attempt(|a| {
                    a.wait(ms(300))
                        .tokens(["Hello", ", world"])
                        .fail(Failure::status(429))
                })
                .attempt(|a| {
                    a.wait(ms(20))
                        .tokens(["Hello", ", world"])
                        .wait(ms(900))
                        .token("!")
                });
            let run = l0.stream(failing.source());
            let other = source(answering.source()).metadata("model", format!("b{round}"));
            run.fallback(other).start().text().await.unwrap();
        }
        let bad = Script::new()
            .attempt(|a| a)
            .attempt(|a| a.token(BAD))
            .attempt(|a| a.token("x"));
        l0.stream(bad.source()).start().text().await.unwrap();
    };
    with_local_recorder(&both.recorder, || paused().block_on(runs));
    both.compare("retries and fallbacks", true);
    let text = both.recorder.handle().render();
    check_strictly("text", &text);
    let samples = read_facade(&text);
    assert_eq!(samples.sum("l0_fallbacks_total", &[]), 3.0);
    assert!(samples.sum("l0_retries_total", &[]) >= 9.0);
    assert!(samples.sum("l0_guardrail_violations_by_rule_total", &[]) > 0.0);
}

/// Reads the table of metrics of a crate: the name, and the rest of each row.
fn table(of: &str) -> BTreeMap<String, (String, String)> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../crates")
        .join(of);
    let text = fs::read_to_string(path.join("METRICS.md")).unwrap();
    let rows = text.lines().filter(|line| line.starts_with("| `l0_"));
    let row = |line: &str| {
        let cells: Vec<_> = line.split('|').map(str::trim).collect();
        (
            cells[1].to_owned(),
            (cells[2].to_owned(), cells[3].to_owned()),
        )
    };
    rows.map(row).collect()
}

#[test]
fn the_metrics_have_the_names_types_and_labels_of_the_collector() {
    let mut ours = table("l0-metrics");
    let expected = table("l0-prometheus");
    assert!(!expected.is_empty());
    for (name, (kind, _)) in &mut ours {
        // A counter of the facade takes whole numbers.
        if kind == "monotonic gauge" {
            let is_no_count = ["_seconds_total`", "cost_total`"];
            assert!(is_no_count.iter().any(|end| name.ends_with(end)), "{name}");
            "counter".clone_into(kind);
        }
    }
    assert_eq!(ours, expected);
}

/// Returns the L0 metric names in a text, without those of recording rules.
fn names(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == ':';
    let words = text.split(|c: char| !is_of_name(c));
    let names = words.filter(|word| word.starts_with("l0_"));
    names.map(str::to_owned).collect()
}

#[test]
fn every_metric_of_the_dashboard_the_rules_and_the_alerts_is_exported() {
    let both = Both::new();
    let runs = async {
        let failing = failing();
        let usage = Usage::new().input(9).output(3);
        let answering = Script::new().attempt(move |a| a.token(BAD).usage(usage));
        let retry = Retry::none();
        let l0 = both.builder().retry(retry).build();
        let run = l0.stream(failing.source());
        let run = run.fallback(source(answering.source()).metadata("model", "b"));
        run.start().text().await.unwrap();
        let failing = l0.stream(failing.source()).input("What is it?");
        let failed = failing.start().text().await;
        failed.unwrap_err();
    };
    with_local_recorder(&both.recorder, || {
        paused().block_on(runs);
        both.metrics.refresh();
    });
    let samples = read_facade(&both.recorder.handle().render());
    let exported = samples.0.keys().map(|labels| labels["__name__"].clone());
    let exported: BTreeSet<_> = exported.collect();

    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut texts = vec![fs::read_to_string(docs.join("grafana/l0.json")).unwrap()];
    texts.extend(
        rule_files()
            .iter()
            .map(|file| fs::read_to_string(file).unwrap()),
    );
    assert!(texts.len() > 2);
    // Only expressions: comments and descriptions mention other names.
    let mut used = BTreeSet::new();
    for text in &texts {
        let lines = text
            .lines()
            .filter(|line| !line.trim_start().starts_with('#'));
        used.extend(lines.flat_map(names));
    }
    assert!(used.len() > 20, "{used:?}");
    let missing: Vec<_> = used.difference(&exported).collect();
    assert!(missing.is_empty(), "{missing:?}");
}

/// Starts the chat application, and reports its runs to both.
async fn service(
    collector: &Collector,
    metrics: &Arc<MetricsInterceptor>,
    timeouts: Option<Timeouts>,
) -> Service {
    let made = Mutex::new(None);
    let change = |app: ChatApp| {
        let app = ChatApp {
            collector: collector.clone(),
            timeouts: timeouts.unwrap_or(app.timeouts),
            ..app
        };
        *made.lock().unwrap() = Some(app.clone());
        app
    };
    let layer = |_: Router| {
        let app = made.lock().unwrap().take().unwrap();
        let l0 = app.l0().unwrap().to_builder();
        app.router_of(l0.interceptor(Arc::clone(metrics)).build())
    };
    Service::with(change, layer).await
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_sees_through_the_facade_exactly_what_was_sent() {
    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    let metrics = counting_stalls(MetricsInterceptor::new());
    let metrics = Arc::new(metrics.label_keys(["model", "endpoint"]).unwrap());
    let recorder = recorder(&metrics);
    let handle = recorder.handle();
    set_global_recorder(recorder).unwrap();
    let collector = crate::common::counting_stalls(Collector::builder());
    let collector = collector.build().unwrap();
    let patient = service(&collector, &metrics, None).await;
    let impatient = Timeouts::new().total(Duration::from_millis(200));
    let impatient = service(&collector, &metrics, Some(impatient)).await;
    let exported = {
        let (metrics, handle) = (Arc::clone(&metrics), handle.clone());
        on_get(async move || {
            metrics.refresh();
            handle.render()
        })
    };
    let (address, _serving) = served(Router::new().route("/metrics", exported)).await;
    let prometheus = Prometheus::start(&binary, &[address], &[]).await;

    // The facade records the end of a run slightly after the collector.
    let at_rest = async || {
        let requests = |samples: &Samples| samples.sum("l0_requests_total", &[]);
        let all = requests(&read(&collector.expose()));
        wait_for("all runs have ended", async || {
            let samples = read_facade(&handle.render());
            (requests(&samples) == all).then_some(samples)
        })
        .await
    };
    let mut sent = Sent::default();
    sent.round(&patient, &impatient).await;
    let before = at_rest().await;
    sent.check(&before);
    prometheus.wait_for(OURS, &before).await;
    let start = prometheus.scraped().await;
    sent.round(&patient, &impatient).await;
    let after = at_rest().await;
    sent.check(&after);
    check_strictly("text", &handle.render());

    prometheus.wait_for(OURS, &after).await;
    sent.check(&prometheus.samples().await);
    let window = Window {
        before,
        after,
        start,
        end: prometheus.scraped().await,
    };
    check_guide(&prometheus, &window).await;
    check_dashboards(&prometheus, &window, &[]).await;
    check_rules(&binary, &prometheus, &window).await;
}
