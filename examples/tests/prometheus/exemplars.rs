//! Exemplars contain the trace that is current when a run starts, with the code of the guide for each tracer.

use std::collections::BTreeMap;

use futures_util::FutureExt;
use l0_core::L0;
use l0_core::testing::Script;
use l0_prometheus::{Collector, metrics_route};
use opentelemetry::trace::{SpanContext, TraceContextExt, Tracer, TracerProvider};
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::layer::SubscriberExt;

use crate::common::{switched_on, wait_for};
use crate::documented;
use crate::programs::Prometheus;
use crate::served;

/// Returns the labels of the exemplar of the only run.
fn labels_of_exemplar(collector: &Collector) -> BTreeMap<String, String> {
    let text = collector.expose_openmetrics();
    let line = text.lines().find(|line| {
        line.starts_with("l0_request_duration_seconds_bucket{") && line.contains(" # ")
    });
    let (_, exemplar) = line.expect("an exemplar").split_once(" # {").unwrap();
    let (labels, _) = exemplar.split_once('}').unwrap();
    let labels = labels.split(',').map(|label| {
        let (name, value) = label.split_once('=').unwrap();
        (name.to_owned(), value.trim_matches('"').to_owned())
    });
    labels.collect()
}

fn of_span(span: &SpanContext) -> BTreeMap<String, String> {
    let trace = ("trace_id".to_owned(), span.trace_id().to_string());
    BTreeMap::from([trace, ("span_id".to_owned(), span.span_id().to_string())])
}

/// Runs once, and starts the run with `start`.
fn run(collector: &Collector, start: impl FnOnce(&mut dyn FnMut())) {
    let l0 = L0::builder().interceptor(collector.interceptor()).build();
    let script = Script::new().attempt(|a| a.tokens(["Hello"]));
    let mut run = None;
    start(&mut || run = Some(l0.stream(script.source()).start()));
    // The source is ready at once.
    let text = run.expect("it started").text().now_or_never();
    assert_eq!(text.expect("it is ready").unwrap(), "Hello");
}

fn provider(sampler: Sampler) -> SdkTracerProvider {
    SdkTracerProvider::builder().with_sampler(sampler).build()
}

#[test]
fn with_opentelemetry_it_is_the_current_span_if_it_is_sampled() {
    for sampler in [Sampler::AlwaysOn, Sampler::AlwaysOff] {
        let sampled = matches!(sampler, Sampler::AlwaysOn);
        let collector = documented::opentelemetry::make().unwrap();
        let tracer = provider(sampler).tracer("test");
        let mut span = None;
        run(&collector, |start| {
            tracer.in_span("request", |context| {
                span = Some(of_span(context.span().span_context()));
                start();
            });
        });
        let labels = labels_of_exemplar(&collector);
        assert_eq!(
            Some(&labels) == span.as_ref(),
            sampled,
            "{labels:?}, {span:?}"
        );
        assert_eq!(labels.contains_key("session_id"), !sampled, "{labels:?}");
    }
    // No current span.
    let collector = documented::opentelemetry::make().unwrap();
    run(&collector, |start| start());
    assert!(labels_of_exemplar(&collector).contains_key("session_id"));
}

#[test]
fn with_tracing_it_is_the_current_span_if_it_is_one_of_opentelemetry() {
    let collector = documented::tracing::make().unwrap();
    let tracer = provider(Sampler::AlwaysOn).tracer("test");
    let layer = tracing_opentelemetry::layer().with_tracer(tracer);
    let subscriber = tracing_subscriber::registry().with(layer);
    let mut span = None;
    run(&collector, |start| {
        tracing::subscriber::with_default(subscriber, || {
            let request = tracing::info_span!("request");
            let _entered = request.enter();
            start();
            span = Some(of_span(request.context().span().span_context()));
        });
    });
    assert_eq!(Some(labels_of_exemplar(&collector)), span);

    let collector = documented::tracing::make().unwrap();
    run(&collector, |start| {
        tracing::subscriber::with_default(tracing_subscriber::registry(), || {
            let _entered = tracing::info_span!("request").entered();
            start();
        });
    });
    assert!(labels_of_exemplar(&collector).contains_key("session_id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_real_prometheus_leads_from_a_bucket_to_the_trace() {
    let Some(binary) = switched_on("L0_PROMETHEUS") else {
        return;
    };
    let collector = documented::opentelemetry::make().unwrap();
    let mut span = None;
    run(&collector, |start| {
        provider(Sampler::AlwaysOn)
            .tracer("test")
            .in_span("request", |context| {
                span = Some(of_span(context.span().span_context()));
                start();
            });
    });
    let router = axum::Router::new().route("/metrics", metrics_route(collector));
    let (address, _server) = served(router).await;
    let more = ["--enable-feature=exemplar-storage"];
    let prometheus = Prometheus::start(&binary, &[address], &more).await;
    let parameters = [
        ("query", "l0_request_duration_seconds_bucket"),
        ("start", "0"),
        ("end", "9999999999"), // in the year 2286
    ];
    let labels = wait_for("an exemplar", async || {
        let series = prometheus
            .api("query_exemplars", &parameters)
            .await
            .unwrap();
        series.pointer("/0/exemplars/0/labels").cloned()
    })
    .await;
    let labels: BTreeMap<String, String> = serde_json::from_value(labels).unwrap();
    assert_eq!(Some(labels), span);
}
