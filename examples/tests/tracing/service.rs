//! A service that logs JSON, sends spans to OpenTelemetry, exposes Prometheus metrics, and calls a model.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get as on_get, post};
use l0_core::{Backoff, L0, Retry, Source, keys, source};
use l0_examples::server::{Fault, Server};
use l0_metrics::MetricsInterceptor;
use l0_providers::openai::{ChatRequest, Client};
use l0_tracing::TracingInterceptor;
use metrics::{counter, describe_counter, set_global_recorder};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use opentelemetry::trace::{TraceId, TracerProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use serde_json::Value;
use tokio::net::TcpListener;
use tracing::{Instrument, Subscriber, info, info_span};
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::format::FmtSpan;
use tracing_subscriber::layer::SubscriberExt;

use crate::common::{check_strictly, get, read};

/// The captured log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Returns the lines with this target.
    fn lines(&self, target: &str) -> Vec<Value> {
        let log = self.0.lock().unwrap();
        let lines = serde_json::Deserializer::from_slice(&log).into_iter();
        let lines = lines.map(Result::unwrap);
        lines
            .filter(|line: &Value| line["target"] == target)
            .collect()
    }
}

/// Creates the subscriber of the service.
fn subscriber(log: &Log, spans: &SdkTracerProvider) -> impl Subscriber + Send + Sync + 'static {
    let log = log.clone();
    let lines = fmt::layer()
        .json()
        .with_span_events(FmtSpan::CLOSE)
        .with_writer(move || log.clone());
    let traces = tracing_opentelemetry::layer().with_tracer(spans.tracer("service"));
    tracing_subscriber::registry().with(lines).with(traces)
}

/// Installs the metrics recorder of the service.
fn recorder(metrics: &MetricsInterceptor) -> PrometheusHandle {
    let mut exporter = PrometheusBuilder::new();
    for (name, bounds) in metrics.buckets() {
        let matcher = Matcher::Full(name);
        exporter = exporter.set_buckets_for_metric(matcher, bounds).unwrap();
    }
    let recorder = exporter.build_recorder();
    let handle = recorder.handle();
    set_global_recorder(recorder).unwrap();
    describe_counter!("chats_total", "What was asked");
    handle
}

#[derive(Clone)]
struct Service {
    l0: L0,
    client: Client,
}

/// Creates a span for each request.
async fn traced(request: Request, next: Next) -> Response {
    let span = info_span!(
        "request",
        otel.kind = "server",
        uri.path = request.uri().path()
    );
    next.run(request).instrument(span).await
}

async fn chat(State(Service { l0, client }): State<Service>, prompt: Bytes) -> String {
    counter!("chats_total").increment(1);
    let prompt = String::from_utf8_lossy(&prompt);
    let request = |model| ChatRequest::new(model).user(&*prompt);
    let (first, second) = (request("gpt-4o-mini"), request("gpt-4.1-mini"));
    let call = async |request: &ChatRequest| {
        info!("model called");
        client.chat_stream(request).await
    };
    let other = source(|_attempt| call(&second)).metadata(keys::MODEL, "gpt-4.1-mini");
    let mut run = l0
        .stream(|_attempt| call(&first))
        .metadata(keys::MODEL, "gpt-4o-mini")
        .fallback(other)
        .start();
    let _ = run.text().await;
    run.info().id().to_owned()
}

#[tokio::test]
async fn each_request_is_one_trace_log_lines_name_the_run_and_metrics_are_one_text() {
    let (log, exporter) = (Log::default(), InMemorySpanExporter::default());
    let spans = SdkTracerProvider::builder()
        .with_simple_exporter(exporter.clone())
        .build();
    let _subscriber = tracing::subscriber::set_default(subscriber(&log, &spans));

    let metrics = MetricsInterceptor::new().label_keys([keys::MODEL]).unwrap();
    let metrics = Arc::new(metrics);
    let handle = recorder(&metrics);

    let upstream = Server::start(0).await.unwrap();
    let retry = Retry::new().max_retries(1);
    let l0 = L0::builder()
        .retry(retry.backoff(Backoff::fixed(Duration::from_millis(5))))
        .interceptor(TracingInterceptor::new())
        .interceptor(Arc::clone(&metrics))
        .build();
    let client = Client::new(&upstream.base_url()).unwrap();
    let scraped = on_get(async move || {
        metrics.refresh();
        handle.render()
    });
    let router = Router::new()
        .route("/chat", post(chat))
        .layer(middleware::from_fn(traced))
        .route("/metrics", scraped)
        .with_state(Service { l0, client });
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });

    let http = reqwest::Client::new();
    let call = async || {
        let asked = http
            .post(format!("http://{address}/chat"))
            .body("hi")
            .send();
        asked.await.unwrap().text().await.unwrap()
    };
    // The first request needs two models and three attempts. The other two, concurrently, need one each.
    upstream.fail_next([Fault::Break, Fault::Unavailable]);
    let first = call().await;
    let (second, third) = tokio::join!(call(), call());
    let exposed = get(&format!("http://{address}/metrics")).await;
    serving.abort();

    let lines = log.lines("l0");
    let mut traces = HashSet::<TraceId>::new();
    let spans = exporter.get_finished_spans().unwrap();
    for (run, attempts) in [(&first, 3), (&second, 1), (&third, 1)] {
        let has = |key: &str, value: &str| {
            let expected = value.to_owned();
            let key = key.to_owned();
            move |span: &&opentelemetry_sdk::trace::SpanData| {
                let mut known = span.attributes.iter();
                known.any(|one| one.key.as_str() == key && one.value.as_str() == expected)
            }
        };
        let of_run = spans.iter().filter(has("l0.session_id", run));
        let of_run = Vec::from_iter(of_run);
        assert_eq!(of_run.len(), 1 + attempts);
        let trace = of_run[0].span_context.trace_id();
        assert!(traces.insert(trace));
        let of_trace = spans.iter();
        let of_trace = of_trace.filter(|span| span.span_context.trace_id() == trace);
        let mut names = BTreeMap::<_, usize>::new();
        for span in of_trace {
            *names.entry(&*span.name).or_default() += 1;
        }
        let mut expected = BTreeMap::from([("request", 1), ("l0.run", 1)]);
        match attempts {
            3 => expected.extend([("chat gpt-4o-mini", 2), ("chat gpt-4.1-mini", 1)]),
            _ => expected.extend([("chat gpt-4o-mini", 1)]),
        }
        assert_eq!(names, expected);
        // Each is the child of the one before.
        let id = |name: &str| {
            let mut named = spans.iter().filter(|span| span.name == name);
            let span = named.find(|span| span.span_context.trace_id() == trace);
            span.unwrap().span_context.span_id()
        };
        for span in of_run {
            let parent = if span.name == "l0.run" {
                "request"
            } else {
                "l0.run"
            };
            assert_eq!(span.parent_span_id, id(parent), "{}", span.name);
        }

        // The log lines of the application, inside the source.
        let named = |line: &&Value| {
            let spans = line["spans"].as_array().into_iter().flatten();
            let mut spans = spans.filter(|span| span["name"] != "request");
            spans
                .next()
                .is_some_and(|span| span["l0.session_id"] == **run)
        };
        let own = log.lines("tracing::service");
        let asked = own.iter().filter(named);
        let asked = asked.map(|line| {
            assert_eq!(line["fields"]["message"], "model called");
            line["span"]["l0.attempt"].as_u64().unwrap() as usize
        });
        assert_eq!(Vec::from_iter(asked), Vec::from_iter(1..=attempts));

        // The lines of the run itself, and the line of its end.
        let closed = lines.iter().filter(|line| {
            line["fields"]["message"] == "close" && line["span"]["l0.session_id"] == **run
        });
        let outcomes = closed.map(|line| line["span"]["l0.outcome"].as_str().unwrap());
        let mut expected = vec!["failed"; attempts - 1];
        expected.extend(["completed"; 2]);
        assert_eq!(Vec::from_iter(outcomes), expected);
        let events = lines.iter().filter(|line| {
            line["fields"]["message"] != "close" && line["span"]["l0.session_id"] == **run
        });
        let events = events.map(|line| line["fields"]["message"].as_str().unwrap());
        let expected = match attempts {
            3 => vec![
                "l0.network_error",
                "exception",
                "l0.retry",
                "l0.network_error",
                "exception",
                "l0.fallback",
            ],
            _ => vec![],
        };
        assert_eq!(Vec::from_iter(events), expected);
    }
    // One text has the metrics of the application and those of the same three runs.
    check_strictly("text", &exposed);
    let lines = exposed.lines().filter(|line| !line.is_empty());
    let samples = read(&lines.collect::<Vec<_>>().join("\n"));
    // A run with a fallback is a request of the model that answered.
    let (asked, other) = (("model", "gpt-4o-mini"), ("model", "gpt-4.1-mini"));
    for (name, labels, value) in [
        ("chats_total", vec![], 3.0),
        ("l0_requests_total", vec![asked], 2.0),
        ("l0_requests_total", vec![other], 1.0),
        ("l0_request_duration_seconds_count", vec![], 3.0),
        ("l0_retries_total", vec![asked], 1.0),
        ("l0_fallbacks_total", vec![("to", "gpt-4.1-mini")], 1.0),
        ("l0_network_errors_total", vec![asked], 2.0),
        ("l0_streams_active", vec![], 0.0),
    ] {
        assert_eq!(samples.sum(name, &labels), value, "{name}");
    }
}
