//! The metrics of runs, and how to read each of them from a series.

use std::borrow::Cow;
use std::sync::LazyLock;

use crate::histogram::HistogramView;
use crate::layout::{Kind, LAYOUT, Place};
use crate::number::{Count, Number, Units};
use crate::series::{Series, Snapshot};

/// The value of a sample.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Count(u64),
    Number(Number),
    Histogram(HistogramView<'a>),
}

impl Value<'_> {
    fn of(number: f64) -> Self {
        Self::Number(number.into())
    }
}

/// One metric of runs.
pub(crate) struct Metric {
    /// The name without the prefix.
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// The labels in addition to those of the label set.
    pub(crate) own: Vec<&'static str>,
    read: Read,
}

/// The source of a metric's samples.
#[derive(Clone, Copy)]
enum Read {
    Quantity(Place),
    Own(fn(&Snapshot) -> Option<Value<'static>>),
}

/// A callback for the samples of one metric and one label set: the values of the metric's own labels, and the
/// sample's value.
type Samples<'a> = dyn FnMut(&[&str], Value<'_>) + 'a;

impl Metric {
    const fn own(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        read: fn(&Snapshot) -> Option<Value<'static>>,
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind,
            help,
            own: Vec::new(),
            read: Read::Own(read),
        }
    }

    /// Reads the samples of one label set.
    pub(crate) fn read(&self, series: &Series, snapshot: &Snapshot, samples: &mut Samples<'_>) {
        let place = match self.read {
            Read::Own(read) => {
                if let Some(value) = read(snapshot) {
                    samples(&[], value);
                }
                return;
            }
            Read::Quantity(place) => place,
        };
        let mut count_by = |values: &[&str], sum: Units| samples(values, Value::Count(sum.whole));
        match place {
            Place::Sum { at, scale: 1.0 } => samples(&[], Value::Count(series.sums[at].get())),
            Place::Sum { at, scale } => {
                let sum = Number::of_units(series.sums[at].get(), scale);
                samples(&[], Value::Number(sum));
            }
            Place::Last(at) => {
                let last = series.last[at].get();
                if !last.is_nan() {
                    samples(&[], Value::Number(last.into()));
                }
            }
            Place::Histogram(at) => samples(&[], Value::Histogram(series.histograms[at].view())),
            Place::Breakdown { at, scale: 1.0 } => series.breakdowns[at].each(&mut count_by),
            Place::Breakdown { at, scale } => series.breakdowns[at].each(&mut |values, sum| {
                samples(values, Value::Number((sum.as_f64() / scale).into()));
            }),
            Place::Ends(at) if LAYOUT.finished == Some(at) => {
                // Without a start, no end is known.
                let finished = snapshot.finished.iter();
                let finished = finished.filter(|_| snapshot.streams().is_some());
                finished.for_each(|(value, count)| samples(&[value], Value::Count(*count)));
            }
            Place::Ends(at) => series.ends[at].each(&mut count_by),
            Place::Fallbacks => series.fallbacks.each(&mut count_by),
        }
    }
}

/// The number of counted runs. It is the guide's first metric, and not a quantity of a run.
const REQUESTS: Metric = Metric::own(
    "requests_total",
    Kind::Counter,
    "Total L0 requests",
    |snapshot| Some(Value::Count(snapshot.requests)),
);

/// The metrics that are counted while runs are live.
const LIVE: [Metric; 6] = [
    Metric::own(
        "backoff_seconds_total",
        Kind::Counter,
        "Time that runs waited for retries in seconds, measured or not, including live runs",
        |snapshot| snapshot.streams.backoff_seconds.map(Value::of),
    ),
    Metric::own(
        "streams_active_seconds_total",
        Kind::Counter,
        "Time that runs were live in seconds, measured or not, including live runs",
        |snapshot| Some(Value::of(snapshot.streams()?.active_seconds)),
    ),
    Metric::own(
        "streams_started_total",
        Kind::Counter,
        "Started runs, measured or not",
        |snapshot| Some(Value::Count(snapshot.streams()?.started)),
    ),
    Metric::own(
        "streams_active",
        Kind::Gauge,
        "Runs that have started and not finished, measured or not",
        |snapshot| Some(Value::Count(snapshot.streams()?.active)),
    ),
    Metric::own(
        "stream_oldest_seconds",
        Kind::Gauge,
        "Age of the oldest live run in seconds, measured or not",
        |snapshot| snapshot.streams.oldest_seconds.map(Value::of),
    ),
    Metric::own(
        "streams_stalled",
        Kind::Gauge,
        "Live runs with a silent source, if stalls are counted",
        |snapshot| snapshot.streams()?.stalled.map(Value::Count),
    ),
];

/// All metrics of runs, in output order.
pub(crate) static METRICS: LazyLock<Vec<Metric>> = LazyLock::new(|| {
    let quantities = LAYOUT.rows.iter().map(|row| Metric {
        name: row.name.clone(),
        kind: row.kind,
        help: row.help,
        own: row.own.clone(),
        read: Read::Quantity(row.place),
    });
    [REQUESTS]
        .into_iter()
        .chain(quantities)
        .chain(LIVE)
        .collect()
});

/// The registry's own counters. They have only the default labels.
#[derive(Debug, Default)]
pub(crate) struct Health {
    pub(crate) overflow: Count,
    pub(crate) observer_panics: Count,
}

impl Health {
    pub(crate) fn clear(&self) {
        self.overflow.clear();
        self.observer_panics.clear();
    }
}

/// One counter of [`Health`].
pub(crate) struct HealthMetric {
    /// The name without the prefix.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) read: fn(&Health) -> u64,
}

/// Written after the metrics of runs.
pub(crate) static HEALTH: [HealthMetric; 2] = [
    HealthMetric {
        name: "series_overflow_total",
        help: "Look-ups of label sets beyond the limit, counted as other",
        read: |health| health.overflow.get(),
    },
    HealthMetric {
        name: "observer_panics_total",
        help: "Panics of observers, contained by their run",
        read: |health| health.observer_panics.get(),
    },
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    /// Returns the expected content of `METRICS.md`.
    fn table() -> String {
        let runs = METRICS
            .iter()
            .map(|one| (&*one.name, one.kind, &*one.own, one.help));
        let health = HEALTH
            .iter()
            .map(|one| (one.name, Kind::Counter, &[][..], one.help));
        let mut table = "| metric | type | labels | help |\n|---|---|---|---|\n".to_owned();
        for (name, kind, own, help) in runs.chain(health) {
            let own: Vec<_> = own.iter().map(|label| format!("`{label}`")).collect();
            let (kind, own) = (kind.as_str(), own.join(", "));
            let _ = writeln!(table, "| `l0_{name}` | {kind} | {own} | {help} |");
        }
        table
    }

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/METRICS.md");
        if std::env::var_os("L0_WRITE").is_some() {
            fs::write(path, table()).unwrap();
        }
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            table(),
            "METRICS.md is out of date; run: L0_WRITE=1 cargo test -p l0-prometheus --lib"
        );
    }

    #[test]
    fn the_guides_names_and_types_are_kept_and_come_first() {
        let first: Vec<_> = METRICS
            .iter()
            .take(14)
            .map(|one| (&*one.name, one.kind))
            .collect();
        assert_eq!(
            first,
            [
                ("requests_total", Kind::Counter),
                ("request_duration_seconds", Kind::Histogram),
                ("tokens_total", Kind::Counter),
                ("tokens_per_second", Kind::Gauge),
                ("time_to_first_token_seconds", Kind::Histogram),
                ("retries_total", Kind::Counter),
                ("retries_network_total", Kind::Counter),
                ("retries_model_total", Kind::Counter),
                ("network_errors_total", Kind::Counter),
                ("network_errors_by_type_total", Kind::Counter),
                ("guardrail_violations_total", Kind::Counter),
                ("guardrail_violations_by_severity_total", Kind::Counter),
                ("guardrail_violations_by_rule_total", Kind::Counter),
                ("drift_detected_total", Kind::Counter),
            ]
        );
    }

    #[test]
    fn names_are_distinct_and_end_as_their_kind_does() {
        let mut names = HashSet::new();
        for metric in &*METRICS {
            assert!(names.insert(&*metric.name), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
        }
        assert!(HEALTH.iter().all(|metric| names.insert(metric.name)));
    }

    /// A caller's label can never repeat a label of a metric.
    #[test]
    fn labels_of_metrics_are_reserved() {
        for label in METRICS.iter().flat_map(|metric| &metric.own) {
            crate::Labels::new([(label, "x")]).unwrap_err();
        }
    }
}
