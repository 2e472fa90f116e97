//! The SDK with in-memory exporters, and the exported data as text.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use l0_core::{
    AttemptStats, End, Interceptor, L0, Monitoring, Quantity, QuantityKind, Telemetry, Unit, Value,
    keys, on_finish,
};
use l0_otel::{OtelBuilder, OtelInterceptor};
use opentelemetry::KeyValue;
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};

pub(crate) const MS: Duration = Duration::from_millis(1);

/// The attributes that all runs of these tests have, as a prefix of a point's attributes.
pub(crate) const SHARED: &str = "gen_ai.operation.name=chat gen_ai.provider.name=openai \
                                gen_ai.request.model=gpt-4o";

pub(crate) struct Sdk {
    spans: InMemorySpanExporter,
    metrics: InMemoryMetricExporter,
    pub(crate) tracer_provider: SdkTracerProvider,
    pub(crate) meter_provider: SdkMeterProvider,
    ended: Arc<Mutex<Vec<Ended>>>,
}

/// The end of a run, as core reports it.
#[derive(Debug, Clone)]
pub(crate) struct Ended {
    pub(crate) end: End,
    pub(crate) telemetry: Option<Telemetry>,
}

impl Sdk {
    pub(crate) fn new() -> Self {
        let spans = InMemorySpanExporter::default();
        let metrics = InMemoryMetricExporter::default();
        Self {
            tracer_provider: SdkTracerProvider::builder()
                .with_simple_exporter(spans.clone())
                .build(),
            meter_provider: SdkMeterProvider::builder()
                .with_periodic_exporter(metrics.clone())
                .build(),
            spans,
            metrics,
            ended: Arc::default(),
        }
    }

    /// Returns an interceptor that stores the ends of runs, to compare with the exported data.
    pub(crate) fn stores_ends(&self) -> impl Interceptor + 'static {
        let ended = Arc::clone(&self.ended);
        on_finish(move |finished| {
            ended.lock().unwrap().push(Ended {
                end: finished.end.clone(),
                telemetry: finished.telemetry.cloned(),
            });
        })
    }

    /// Returns the ends of the runs of [`l0`](Self::l0).
    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.ended.lock().unwrap().clone()
    }

    /// Returns a builder of interceptors that export to this SDK.
    pub(crate) fn builder(&self) -> OtelBuilder {
        let scope = l0_otel::scope();
        OtelInterceptor::builder()
            .meter(self.meter_provider.meter_with_scope(scope.clone()))
            .tracer(self.tracer_provider.tracer_with_scope(scope))
    }

    /// Returns an `L0` that exports to this SDK, with a model and a provider.
    pub(crate) fn l0(&self) -> L0 {
        use l0_core::{Backoff, Retry};

        L0::builder()
            .monitoring(with_model(Monitoring::new()))
            .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(5 * MS)))
            .interceptor(self.builder().build())
            .interceptor(self.stores_ends())
            .build()
    }

    /// Returns all spans that have ended.
    pub(crate) fn spans(&self) -> Vec<SpanData> {
        self.spans.get_finished_spans().unwrap()
    }

    /// Returns the spans of runs.
    pub(crate) fn runs(&self) -> Vec<SpanData> {
        let spans = self.spans().into_iter();
        spans.filter(|span| span.name == "l0.run").collect()
    }

    /// Returns the spans of attempts.
    pub(crate) fn attempts(&self) -> Vec<SpanData> {
        let is_attempt = |span: &SpanData| value(&span.attributes, "l0.attempt").is_some();
        self.spans().into_iter().filter(is_attempt).collect()
    }

    /// Returns the span of the only run.
    pub(crate) fn run(&self) -> SpanData {
        only(self.runs())
    }

    /// Returns the span of the only attempt.
    pub(crate) fn attempt(&self) -> SpanData {
        only(self.attempts())
    }

    /// Returns the current values of all metrics.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        self.metrics.reset();
        self.meter_provider.force_flush().unwrap();
        let exported = self.metrics.get_finished_metrics().unwrap();
        let scopes = exported.iter().flat_map(|all| all.scope_metrics());
        let metrics = scopes.flat_map(|scope| scope.metrics());
        let mut metrics: Vec<_> = metrics
            .map(|metric| {
                let (instrument, boundaries, points) = match metric.data() {
                    AggregatedMetrics::F64(data) => read(data),
                    AggregatedMetrics::U64(data) => read(data),
                    AggregatedMetrics::I64(data) => read(data),
                };
                Metric {
                    name: metric.name().to_owned(),
                    unit: metric.unit().to_owned(),
                    description: metric.description().to_owned(),
                    instrument,
                    boundaries,
                    points,
                }
            })
            .collect();
        metrics.sort_by(|a, b| a.name.cmp(&b.name));
        metrics
    }

    /// Returns all points in order, one per line. `[...]` are the attributes in addition to [`SHARED`]. If
    /// nothing is known of the source, they begin with a `?`.
    pub(crate) fn points(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for metric in self.metrics() {
            for Point { attributes, value } in metric.points {
                let all = text(&attributes);
                let rest = match all.strip_prefix(SHARED) {
                    Some(rest) => rest.trim_start().to_owned(),
                    None => all.replacen("gen_ai.operation.name=chat", "?", 1),
                };
                lines.push(format!("{}[{rest}] {value}", metric.name));
            }
        }
        lines.sort();
        lines
    }
}

fn only(mut spans: Vec<SpanData>) -> SpanData {
    assert_eq!(spans.len(), 1, "{spans:#?}");
    spans.remove(0)
}

/// Adds the model and the provider of the runs of these tests.
pub(crate) fn with_model(monitoring: Monitoring) -> Monitoring {
    monitoring
        .metadata(keys::MODEL, "gpt-4o")
        .metadata(keys::PROVIDER, "openai")
}

pub(crate) struct Metric {
    pub(crate) name: String,
    pub(crate) unit: String,
    pub(crate) description: String,
    pub(crate) instrument: &'static str,
    pub(crate) boundaries: Vec<f64>,
    pub(crate) points: Vec<Point>,
}

pub(crate) struct Point {
    pub(crate) attributes: Vec<KeyValue>,
    /// The value. For a histogram, the count and the sum, rounded to the nanosecond.
    pub(crate) value: String,
}

fn read<T>(data: &MetricData<T>) -> (&'static str, Vec<f64>, Vec<Point>)
where
    T: Debug + Copy,
{
    let mut boundaries = Vec::new();
    let (instrument, mut points): (_, Vec<_>) = match data {
        MetricData::Histogram(histogram) => {
            let points = histogram.data_points().map(|point| {
                boundaries = point.bounds().collect();
                let counted: u64 = point.bucket_counts().sum();
                assert_eq!(counted, point.count());
                let sum: f64 = format!("{:?}", point.sum()).parse().unwrap();
                Point {
                    attributes: point.attributes().cloned().collect(),
                    value: format!("{counted} x {}", nanos(sum)),
                }
            });
            ("histogram", points.collect())
        }
        MetricData::Sum(sum) => {
            let kind = if sum.is_monotonic() {
                "counter"
            } else {
                "up-down counter"
            };
            let points = sum.data_points().map(|point| Point {
                attributes: point.attributes().cloned().collect(),
                value: format!("{:?}", point.value()),
            });
            (kind, points.collect())
        }
        _ => panic!("neither a histogram nor a sum"),
    };
    for point in &mut points {
        point.attributes.sort_by(|a, b| a.key.cmp(&b.key));
    }
    (instrument, boundaries, points)
}

/// Rounds seconds to the nanosecond.
pub(crate) fn nanos(seconds: f64) -> f64 {
    (seconds * 1e9).round() / 1e9
}

/// Returns the attributes as `key=value`, sorted by key. Those that all runs have come first.
pub(crate) fn text(attributes: &[KeyValue]) -> String {
    let mut texts: Vec<_> = attributes
        .iter()
        .map(|one| format!("{}={}", one.key, one.value.as_str()))
        .collect();
    texts.sort_by_key(|text| (!SHARED.contains(&**text), text.clone()));
    texts.join(" ")
}

/// Returns the value of an attribute, as text.
pub(crate) fn value(attributes: &[KeyValue], key: &str) -> Option<String> {
    let mut found = attributes.iter().filter(|one| one.key.as_str() == key);
    let value = found.next().map(|one| one.value.as_str().into_owned());
    assert!(found.next().is_none(), "{key} is set twice");
    value
}

/// Returns the time since the start of a span.
pub(crate) fn since_start(span: &SpanData, time: SystemTime) -> Duration {
    time.duration_since(span.start_time).unwrap()
}

/// Returns the length of a span.
pub(crate) fn length(span: &SpanData) -> Duration {
    since_start(span, span.end_time)
}

/// Returns the cells of the table in `names.md` whose first column has this heading.
pub(crate) fn table(first: &str) -> Vec<Vec<String>> {
    let head = format!("| {first} |");
    let lines = include_str!("../../names.md").lines();
    let rows = lines.skip_while(|line| !line.starts_with(&head)).skip(2);
    let rows: Vec<_> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let row = row.trim_matches('|').replace('`', "");
            row.split('|').map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "{first}");
    rows
}

/// Returns the items of a cell.
pub(crate) fn list(cell: &str) -> BTreeSet<String> {
    let items = cell.split(", ").filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

/// Returns a cell of the table of numbers: column 1 is the metric, 2 the attribute of runs, 3 the attributes of
/// attempts. The cell is empty if the number has its own name, or if attempts do not have it.
fn cell(quantity: &Quantity, column: usize) -> String {
    let mut rows = table("number").into_iter();
    let row = rows.find(|row| row[0] == quantity.name);
    row.map_or_else(String::new, |row| row[column].clone())
}

/// Returns the numbers that are metrics under their own names.
pub(crate) fn own_metrics() -> impl Iterator<Item = (String, &'static Quantity)> {
    let own = Quantity::ALL.iter().filter(|one| cell(one, 1).is_empty());
    own.map(|quantity| (format!("l0.{}", quantity.name), quantity))
}

/// Returns the points of the numbers that are metrics under their own names, in the form of [`Sdk::points`].
pub(crate) fn own_points(telemetry: &Telemetry, attributes: &str) -> Vec<String> {
    let mut points = Vec::new();
    for (name, quantity) in own_metrics() {
        let mut sums = BTreeMap::new();
        quantity.each(telemetry, &mut |of, value| {
            let labels = quantity.labels().iter().zip(of);
            let labels = labels.map(|(label, of)| format!("{}={of}", attribute_of(label)));
            *sums.entry(labels.collect::<Vec<_>>()).or_insert(0.0) += value.as_f64();
        });
        for (labels, sum) in sums {
            let mut attributes: Vec<_> = attributes.split_whitespace().collect();
            attributes.extend(labels.iter().map(|label| &**label));
            attributes.sort_unstable();
            let sum = match quantity.unit {
                Unit::Each(_) => format!("{sum}"),
                _ => format!("{sum:?}"),
            };
            points.push(format!("{name}[{}] {sum}", attributes.join(" ")));
        }
        let mut values = Vec::new();
        quantity.values(telemetry, &mut |value| {
            values.push(match value {
                Value::Count(count) => (1, count as f64),
                Value::Distribution(all) => (all.count(), all.sum().as_secs_f64()),
                value => (1, value.as_f64()),
            });
        });
        if values.is_empty() {
            continue;
        }
        let count: u64 = values.iter().map(|(count, _)| count).sum();
        let sum: f64 = values.iter().map(|(_, sum)| sum).sum();
        let value = match (quantity.kind, quantity.unit) {
            (QuantityKind::Sum, Unit::Each(_)) => (sum as u64).to_string(),
            (QuantityKind::Sum, _) => format!("{sum:?}"),
            _ => format!("{count} x {}", nanos(sum)),
        };
        points.push(format!("{name}[{attributes}] {value}"));
    }
    points
}

/// Returns the name of the attribute for a label of a number.
pub(crate) fn attribute_of(label: &str) -> String {
    match label {
        "error_type" => "error.type".to_owned(),
        _ => format!("l0.{label}"),
    }
}

/// Returns the attributes of a run's span for its numbers, as text.
pub(crate) fn number_attributes(telemetry: &Telemetry) -> BTreeMap<String, String> {
    let mut attributes = BTreeMap::new();
    for quantity in Quantity::ALL {
        let named = cell(quantity, 2);
        if named == "-" || quantity.is_labeled() {
            continue;
        }
        let Some(value) = quantity.value(telemetry) else {
            continue;
        };
        let own = format!("l0.{}", quantity.name);
        let mut add = |name: String, value: String| {
            assert_eq!(attributes.insert(name, value), None, "{quantity:?}");
        };
        match value {
            Value::Distribution(all) => {
                let seconds = |part: Option<Duration>| part.unwrap().as_secs_f64().to_string();
                add(format!("{own}.avg"), seconds(all.mean()));
                add(format!("{own}.p50"), seconds(all.p50()));
                add(format!("{own}.p90"), seconds(all.p90()));
                add(format!("{own}.p99"), seconds(all.p99()));
                add(format!("{own}.max"), seconds(Some(all.max())));
            }
            Value::Count(count) => add(own, count.to_string()),
            value => add(own, value.as_f64().to_string()),
        }
    }
    attributes
}

/// Returns the attributes of an attempt's span for its numbers, as text.
pub(crate) fn attempt_number_attributes(attempt: &AttemptStats) -> BTreeMap<String, String> {
    let usage = attempt.usage.unwrap_or_default();
    let first = attempt.time_to_first_token;
    let known = BTreeMap::from([
        ("tokens.total", Some(attempt.tokens.to_string())),
        (
            "time_to_first_token",
            first.map(|after| after.as_secs_f64().to_string()),
        ),
        ("usage.input", usage.input.map(|count| count.to_string())),
        ("usage.output", usage.output.map(|count| count.to_string())),
        ("usage.total", usage.total.map(|count| count.to_string())),
        (
            "usage.cached_input",
            usage.cached_input.map(|count| count.to_string()),
        ),
        (
            "usage.cache_write_input",
            usage.cache_write_input.map(|count| count.to_string()),
        ),
        ("cost", attempt.cost.map(|cost| cost.amount.to_string())),
        (
            "usage.reasoning",
            usage.reasoning.map(|count| count.to_string()),
        ),
    ]);
    let mut attributes = BTreeMap::new();
    for quantity in Quantity::ALL {
        for name in list(&cell(quantity, 3)) {
            if let Some(value) = &known[quantity.name] {
                attributes.insert(name, value.clone());
            }
        }
    }
    attributes
}

/// Compares a file of the crate with its expected content. `L0_WRITE=1` rewrites the file.
pub(crate) fn assert_is(file: &str, lines: &str) {
    let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("L0_WRITE").is_some() {
        std::fs::write(&path, lines).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    for (index, (line, expected)) in lines.lines().zip(expected.lines()).enumerate() {
        assert_eq!(line, expected, "line {} of {file}", index + 1);
    }
    assert_eq!(lines.len(), expected.len(), "{file}");
}
