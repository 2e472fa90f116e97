//! The exporters, each with a reader of its output.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::net::UdpSocket;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use l0_core::{
    Event, Interceptor, L0Builder, Observer, Observers, RunInfo, Telemetry, keys, on_finish,
};
use l0_export::log::LogRecord;
use l0_export::{csv, json};
use l0_live::Live;
use l0_metrics::MetricsInterceptor;
use l0_otel::OtelInterceptor;
use l0_prometheus::Collector;
use l0_report::Profile;
use l0_sentry::{SentryConfig, SentryInterceptor};
use l0_statsd::StatsdInterceptor;
use l0_tracing::TracingInterceptor;
use metrics::set_default_local_recorder;
use metrics_exporter_prometheus::PrometheusBuilder;
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Status, TracerProvider};
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider};
use sentry::test::TestTransport;
use sentry::{ClientOptions, Hub};
use serde_json::{Value, json};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Subscriber, dispatcher};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::common::{self, Samples};

/// The reported parts of an end: outcome, error type, status, message.
pub(crate) type Reported = [Option<String>; 4];

/// The positions of the last two.
pub(crate) const STATUS: usize = 2;
pub(crate) const MESSAGE: usize = 3;

/// The parts that an exporter reports.
pub(crate) fn carried(exporter: &str, is_failure: bool) -> [bool; 4] {
    match (exporter, is_failure) {
        ("JSON" | "CSV" | "log record" | "log event" | "l0-live", _) => [true; 4],
        // An abort has a reason in the records above, but is not a failure.
        (_, false) => [true, false, false, false],
        ("l0-report", true) => [true; 4],
        ("Prometheus" | FACADE | "StatsD" | "OTel metrics", true) => [true, true, false, false],
        ("Sentry" | "OTel span" | "tracing", true) => [true, true, false, true],
        (other, _) => panic!("{other}"),
    }
}

/// The whole output of one exporter, and the end that was read from it.
pub(crate) struct Output {
    pub(crate) exporter: &'static str,
    pub(crate) reported: Box<dyn FnOnce() -> Reported>,
    pub(crate) text: String,
}

impl Output {
    fn new(
        exporter: &'static str,
        text: String,
        reported: impl FnOnce() -> Reported + 'static,
    ) -> Self {
        Self {
            exporter,
            reported: Box::new(reported),
            text,
        }
    }
}

/// Reads the output once the run has ended.
pub(crate) type Read = Box<dyn FnOnce() -> Vec<Output>>;

/// Attaches an exporter, and returns the reader of its output.
pub(crate) type Attach = fn(L0Builder) -> (L0Builder, Read);

pub(crate) const ALL: [Attach; 8] = [
    records, live, prometheus, facade, statsd, sentry, otel, tracing,
];

/// Returns a JSON value as text, or `None` if it is missing.
fn text(value: &Value) -> Option<String> {
    let string = value.as_str().map(str::to_owned);
    string.or_else(|| (!value.is_null()).then(|| value.to_string()))
}

/// Reads the end from a JSON record.
fn reported_in(record: &Value) -> Reported {
    let parts = ["/outcome", "/error/type", "/error/status", "/error/message"];
    parts.map(|part| text(record.pointer(part)?))
}

/// Returns the fields of the only `tracing` event.
#[derive(Clone, Default)]
struct Fields(Arc<Mutex<BTreeMap<&'static str, String>>>);

impl<S: Subscriber> Layer<S> for Fields {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        event.record(&mut self.clone());
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let before = self
            .0
            .lock()
            .unwrap()
            .insert(field.name(), format!("{value:?}"));
        assert_eq!(before, None, "{field}");
    }
}

/// The exporters that use the telemetry only.
fn records(builder: L0Builder) -> (L0Builder, Read) {
    let fields = Fields::default();
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let log = Dispatch::new(tracing_subscriber::registry().with(fields.clone()));
    let interceptor = on_finish(move |finished| {
        let telemetry = finished.telemetry.unwrap();
        dispatcher::with_default(&log, || LogRecord::from(telemetry).emit());
        *keep.lock().unwrap() = Some(telemetry.clone());
    });
    let read = move || {
        let telemetry: Telemetry = kept.lock().unwrap().take().unwrap();
        let mut line = Vec::new();
        json::write_line(&mut line, &telemetry).unwrap();
        let line = String::from_utf8(line).unwrap();
        let read_back = json::read_lines(line.as_bytes()).next().unwrap().unwrap();

        let csv = csv::to_string(&telemetry).unwrap();
        let mut reader = ::csv::Reader::from_reader(csv.as_bytes());
        let row: BTreeMap<String, String> = reader.deserialize().next().unwrap().unwrap();
        let columns = ["outcome", "errorType", "errorStatus", "errorMessage"];
        let cells = columns.map(|key| Some(row[key].clone()).filter(|cell| !cell.is_empty()));

        let log = json!(LogRecord::from(&telemetry));
        let fields = fields.0.lock().unwrap();
        let keys = ["outcome", "error.type", "error.status", "error.message"];
        let event = keys.map(|key| fields.get(key).cloned());
        let report = reported(&line);
        let fields = format!("{fields:?}");
        vec![
            Output::new("JSON", line, move || reported_in(&json!(read_back))),
            Output::new("CSV", csv, move || cells),
            Output::new("log record", log.to_string(), move || reported_in(&log)),
            Output::new("log event", fields, move || event),
            report,
        ]
    };
    (builder.interceptor(interceptor), Box::new(read))
}

/// The profile that `l0-report` prints for JSON Lines.
pub(crate) fn profile(lines: &str) -> Profile {
    let mut profile = Profile::new();
    json::read_lines(lines.as_bytes()).for_each(|run| profile.add(&run.unwrap()));
    profile
}

fn reported(line: &str) -> Output {
    let profile = profile(line);
    let all = json!(profile)["all"].clone();
    let printed = profile.to_string();
    let output = format!("{printed}\n{all}");
    Output::new("l0-report", output, move || {
        let mut outcomes = all["outcomes"].as_object().unwrap().keys().cloned();
        let outcome = outcomes.next();
        assert_eq!(outcomes.next(), None);
        let reason = &all["reasons"][0];
        assert_eq!(all["reasons"][1], Value::Null);
        let [error_type, status, message] =
            ["errorType", "status", "message"].map(|key| text(&reason[key]));
        let reported = [outcome, error_type, status, message];
        if let [_, Some(error_type), _, Some(message)] = &reported {
            // The table truncates a long message, and omits the type before a message that starts
            // with it.
            let message = keys::cut(message, 60);
            let row = if message.starts_with(&error_type.replace('_', " ")) {
                format!("  {message}")
            } else {
                format!("{error_type}: {message}")
            };
            assert!(printed.contains(&row), "{printed}");
        }
        reported
    })
}

/// Reads the data of the page at each event, while the runs are live.
#[derive(Clone, Default)]
struct Looks {
    live: Live,
    output: Arc<Mutex<String>>,
}

impl Looks {
    fn look(&self) -> Value {
        let snapshot = self.live.snapshot();
        let stalled = self.live.stalled();
        let mut output = self.output.lock().unwrap();
        let json = serde_json::to_value(&snapshot).unwrap();
        *output += &format!("{json}\n{snapshot:?} {stalled:?} {:?}\n", self.live);
        json
    }
}

impl Interceptor for Looks {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(self.clone());
    }
}

impl Observer for Looks {
    fn on_event(&mut self, _: &Event<'_>) {
        self.look();
    }
}

fn live(builder: L0Builder) -> (L0Builder, Read) {
    let looks = Looks::default();
    let builder = builder.interceptor(looks.live.clone());
    let builder = builder.interceptor(looks.clone());
    let read = move || {
        let snapshot = looks.look();
        let output = std::mem::take(&mut *looks.output.lock().unwrap());
        let reported = move || {
            let parts = ["outcome", "reason/type", "reason/status", "reason/message"];
            parts.map(|part| text(snapshot.pointer(&format!("/finished/0/{part}"))?))
        };
        vec![Output::new("l0-live", output, reported)]
    };
    (builder, Box::new(read))
}

fn prometheus(builder: L0Builder) -> (L0Builder, Read) {
    let collector = Collector::builder().build().unwrap();
    let interceptor = collector.interceptor();
    let read = move || {
        let exposition = collector.expose();
        let output = exposition.clone();
        vec![Output::new("Prometheus", output, move || {
            exposed(&exposition)
        })]
    };
    (builder.interceptor(interceptor), Box::new(read))
}

/// Reads the end from the Prometheus text format.
fn exposed(exposition: &str) -> Reported {
    let Samples(samples) = common::read(exposition);
    // The label of the only sample that is not 0, or `None`.
    let only = |name: &str, label: &str| {
        let mut samples = samples
            .iter()
            .filter(|(all, count)| all["__name__"] == name && **count > 0.0);
        let (labels, count) = samples.next()?;
        assert_eq!((*count, samples.next()), (1.0, None), "{name}");
        Some(labels[label].clone())
    };
    let outcome = only("l0_streams_finished_total", "outcome");
    [outcome, only("l0_failures_total", "error_type"), None, None]
}

/// The `metrics` facade.
pub(crate) const FACADE: &str = "metrics facade";

fn facade(builder: L0Builder) -> (L0Builder, Read) {
    let recorder = Box::leak(Box::new(PrometheusBuilder::new().build_recorder()));
    let handle = recorder.handle();
    // Installed on this thread until the output is read.
    let current = set_default_local_recorder(recorder);
    let read = move || {
        drop(current);
        let exposition = handle.render();
        let output = exposition.clone();
        let lines = exposition.lines().filter(|line| !line.is_empty());
        let lines = lines.collect::<Vec<_>>().join("\n");
        vec![Output::new(FACADE, output, move || exposed(&lines))]
    };
    (
        builder.interceptor(MetricsInterceptor::new()),
        Box::new(read),
    )
}

fn statsd(builder: L0Builder) -> (L0Builder, Read) {
    const END: &[u8] = b"end";

    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let deadline = Duration::from_secs(60);
    server.set_read_timeout(Some(deadline)).unwrap();
    let address = server.local_addr().unwrap();
    let interceptor = StatsdInterceptor::builder(address.to_string())
        .build()
        .unwrap();
    let read = move || {
        // The loopback keeps the order, so this arrives last.
        server.send_to(END, address).unwrap();
        let mut output = String::new();
        let mut buffer = [0; 65_536];
        loop {
            let length = server.recv(&mut buffer).unwrap();
            if buffer[..length] == *END {
                break;
            }
            output += std::str::from_utf8(&buffer[..length]).unwrap();
            output.push('\n');
        }
        let lines = output.clone();
        let reported = move || {
            let only = |start: &str| {
                let mut tags = lines.lines().filter_map(|line| line.strip_prefix(start));
                let tag = tags.next()?.to_owned();
                assert_eq!(tags.next(), None, "{start}");
                Some(tag)
            };
            let outcome = only("l0.runs:1|c|#outcome:");
            [outcome, only("l0.failures:1|c|#error_type:"), None, None]
        };
        vec![Output::new("StatsD", output, reported)]
    };
    (builder.interceptor(interceptor), Box::new(read))
}

fn sentry(builder: L0Builder) -> (L0Builder, Read) {
    let transport = TestTransport::new();
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0);
    let client = options.transport(Arc::clone(&transport)).into();
    let hub = Hub::new(Some(Arc::new(client)), Arc::default());
    let interceptor = SentryInterceptor::new(SentryConfig::new().hub(Arc::new(hub)));
    let read = move || {
        let mut output = Vec::new();
        for envelope in transport.fetch_and_clear_envelopes() {
            envelope.to_writer(&mut output).unwrap();
        }
        let output = String::from_utf8(output).unwrap();
        let lines = output.clone();
        let reported = move || {
            let items: Vec<Value> = lines
                .lines()
                .map(|line| serde_json::from_str(line).unwrap())
                .collect();
            let transaction = items.iter().find(|item| item["spans"].is_array()).unwrap();
            let ended = &transaction["contexts"]["trace"]["data"];
            let mut events = items
                .iter()
                .filter(|item| item["tags"]["error_type"].is_string());
            let event = events.next().unwrap_or(&Value::Null);
            assert_eq!(events.next(), None);

            let tags = &event["tags"];
            assert_eq!(tags["error_type"], ended["error_type"]);
            let exception = &event["exception"]["values"][0];
            let error_type = text(&tags["error_type"]);
            let message = match (exception["type"].as_str(), &error_type) {
                (Some("Network error"), Some(kind)) => {
                    let value = exception["value"].as_str().unwrap();
                    value.strip_prefix(&format!("{kind}: ")).map(str::to_owned)
                }
                // A violation is split: the rule is in the type, and the severity is the level.
                (Some(kind), _) if kind.starts_with("Guardrail violation: ") => {
                    let rule = kind.trim_start_matches("Guardrail violation: ");
                    let [severity, value] =
                        [&event["level"], &exception["value"]].map(|part| text(part).unwrap());
                    Some(format!("guardrail violation: {rule} ({severity}): {value}"))
                }
                _ => text(&exception["value"]),
            };
            [text(&ended["outcome"]), error_type, None, message]
        };
        vec![Output::new("Sentry", output, reported)]
    };
    (builder.interceptor(interceptor), Box::new(read))
}

fn attribute(all: &[KeyValue], key: &str) -> Option<String> {
    let found = all.iter().find(|one| one.key.as_str() == key);
    found.map(|one| one.value.as_str().into_owned())
}

fn otel(builder: L0Builder) -> (L0Builder, Read) {
    let spans = InMemorySpanExporter::default();
    let metrics = InMemoryMetricExporter::default();
    let tracers = SdkTracerProvider::builder()
        .with_simple_exporter(spans.clone())
        .build();
    let meters = SdkMeterProvider::builder()
        .with_periodic_exporter(metrics.clone())
        .build();
    let interceptor = OtelInterceptor::builder()
        .tracer(tracers.tracer_with_scope(l0_otel::scope()))
        .meter(meters.meter_with_scope(l0_otel::scope()))
        .build();
    let read = move || {
        let spans = spans.get_finished_spans().unwrap();
        let output_as_spans = format!("{spans:?}");
        let of_span = move || {
            let mut runs = spans.iter().filter(|span| span.name == "l0.run");
            let (Some(span), None) = (runs.next(), runs.next()) else {
                panic!("{spans:?}");
            };
            let message = match &span.status {
                Status::Error { description } => Some(description.to_string()),
                _ => None,
            };
            let [outcome, error_type] =
                ["l0.outcome", "error.type"].map(|key| attribute(&span.attributes, key));
            [outcome, error_type, None, message]
        };

        meters.force_flush().unwrap();
        let metrics = metrics.get_finished_metrics().unwrap();
        let output_as_metrics = format!("{metrics:?}");
        let of_metrics = move || {
            let only = |name: &str, key: &str| {
                let scopes = metrics.iter().flat_map(|all| all.scope_metrics());
                let metric = scopes
                    .flat_map(|scope| scope.metrics())
                    .find(|metric| metric.name() == name)?;
                let AggregatedMetrics::U64(MetricData::Sum(sum)) = metric.data() else {
                    panic!("{metric:?}");
                };
                let points: Vec<_> = sum.data_points().collect();
                assert_eq!((points.len(), points[0].value()), (1, 1), "{name}");
                let attributes: Vec<_> = points[0].attributes().cloned().collect();
                attribute(&attributes, key)
            };
            let outcome = only("l0.runs", "l0.outcome");
            [outcome, only("l0.failures", "error.type"), None, None]
        };
        vec![
            Output::new("OTel span", output_as_spans, of_span),
            Output::new("OTel metrics", output_as_metrics, of_metrics),
        ]
    };
    (builder.interceptor(interceptor), Box::new(read))
}

/// Spans and events with all records of each, in order.
#[derive(Clone, Default)]
struct Spans(Arc<Mutex<Vec<(&'static str, FieldValues)>>>);

/// The fields of one record.
#[derive(Debug, Clone, Default)]
struct FieldValues(Vec<(&'static str, String)>);

impl Visit for FieldValues {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.push((field.name(), value.to_owned()));
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push((field.name(), format!("{value:?}")));
    }
}

impl Spans {
    fn add(&self, name: &'static str, record: impl FnOnce(&mut FieldValues)) {
        let mut fields = FieldValues::default();
        record(&mut fields);
        self.0.lock().unwrap().push((name, fields));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Spans {
    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        self.add(span.metadata().name(), |fields| span.record(fields));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let metadata = context.metadata(id).unwrap();
        self.add(metadata.name(), |fields| values.record(fields));
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        self.add(event.metadata().name(), |fields| event.record(fields));
    }
}

/// Starts the runs of an interceptor with a separate subscriber.
struct WithSubscriber(Dispatch, TracingInterceptor);

impl Interceptor for WithSubscriber {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        dispatcher::with_default(&self.0, || self.1.observe(run, observers));
    }

    fn needs_telemetry(&self) -> bool {
        self.1.needs_telemetry()
    }
}

fn tracing(builder: L0Builder) -> (L0Builder, Read) {
    let spans = Spans::default();
    let dispatch = Dispatch::new(tracing_subscriber::registry().with(spans.clone()));
    let read = move || {
        let fields = spans.0.lock().unwrap().clone();
        let output = format!("{fields:?}");
        let reported = move || {
            let of_run = fields.iter().filter(|(name, _)| *name == "l0.run");
            let of_run = Vec::from_iter(of_run.flat_map(|(_, FieldValues(fields))| fields));
            let field = |name: &str| {
                let mut values = of_run.iter().filter(|(field, _)| *field == name);
                let (_, value) = values.next()?;
                assert_eq!(values.next(), None, "{name}");
                Some(value.clone())
            };
            let reported = [field("l0.outcome"), field("error.type"), None];
            let [outcome, error_type, status] = reported;
            [
                outcome,
                error_type,
                status,
                field("otel.status_description"),
            ]
        };
        vec![Output::new("tracing", output, reported)]
    };
    let interceptor = WithSubscriber(dispatch, TracingInterceptor::new());
    (builder.interceptor(interceptor), Box::new(read))
}
