//! The metrics of runs: derived from the list of quantities, once. What is recorded, collected, written
//! and documented comes from it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use l0_core::{End, Quantity, QuantityKind, Unit};

use crate::histogram::HistogramView;
use crate::number::{Count, NANOS, scale};
use crate::series::Series;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// As the text format spells it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What a sample says.
#[derive(Clone, Copy)]
pub(crate) enum Value<'a> {
    Count(u64),
    Number(f64),
    Histogram(HistogramView<'a>),
}

/// One metric of runs.
pub(crate) struct Metric {
    /// Without the prefix.
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// The label that it has besides those of the label set.
    pub(crate) label: Option<&'static str>,
    read: Read,
}

/// Where a series keeps what a metric says: for quantities, the place in the list of their form.
#[derive(Clone, Copy)]
enum Read {
    Sum { at: usize, scale: f64 },
    Last(usize),
    Histogram(usize),
    Breakdown(usize),
    Ends(usize),
    Own(fn(&Series, &mut Samples<'_>)),
}

/// Takes the samples of one metric and one label set: the value of the metric's own label, which is
/// empty if it has none, and what the sample says.
type Samples<'a> = dyn FnMut(&str, Value<'_>) + 'a;

impl Metric {
    const fn own(
        name: &'static str,
        kind: Kind,
        help: &'static str,
        read: fn(&Series, &mut Samples<'_>),
    ) -> Self {
        Self {
            name: Cow::Borrowed(name),
            kind,
            help,
            label: None,
            read: Read::Own(read),
        }
    }

    /// Reads the samples of one label set.
    pub(crate) fn read(&self, series: &Series, samples: &mut Samples<'_>) {
        let mut counts = |value: &str, count| samples(value, Value::Count(count));
        match self.read {
            Read::Sum { at, scale } => {
                let sum = series.sums[at].get();
                if scale == 1.0 {
                    counts("", sum);
                } else {
                    samples("", Value::Number(sum as f64 / scale));
                }
            }
            Read::Last(at) => {
                let last = series.last[at].get();
                if !last.is_nan() {
                    samples("", Value::Number(last));
                }
            }
            Read::Histogram(at) => samples("", Value::Histogram(series.histograms[at].view())),
            Read::Breakdown(at) => series.breakdowns[at].each(&mut counts),
            Read::Ends(at) => series.ends[at].each(&mut counts),
            Read::Own(read) => read(series, samples),
        }
    }
}

/// How a quantity becomes a metric.
#[derive(Clone, Copy)]
enum Form {
    /// As its kind says: a sum is a counter, anything else a histogram.
    Kind,
    /// A gauge: the value of the run that ended last.
    Last,
    /// A histogram of the longest duration of each run, beside that of all of them.
    Longest,
    /// A counter of every run, measured or not, read from its end.
    Ends(OfEnd),
}

/// Gives the value of a label under which an end is counted, if it is.
pub(crate) type OfEnd = fn(&End) -> Option<Cow<'static, str>>;

/// A metric whose name the guide fixes, or which is not just a quantity by its kind.
struct Fixed {
    quantity: &'static str,
    name: &'static str,
    help: &'static str,
    form: Form,
}

const fn fixed(quantity: &'static str, name: &'static str, help: &'static str) -> Fixed {
    Fixed {
        quantity,
        name,
        help,
        form: Form::Kind,
    }
}

impl Fixed {
    const fn in_form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }
}

/// How many runs were counted. The guide's first metric, and not a quantity of a run.
const REQUESTS: Metric = Metric::own(
    "requests_total",
    Kind::Counter,
    "Total L0 requests",
    |series, to| to("", Value::Count(series.requests.get())),
);

/// Everything that is not derived. The guide's metrics come first, in its order.
static FIXED: &[Fixed] = &[
    fixed(
        "duration",
        "request_duration_seconds",
        "L0 request duration in seconds",
    ),
    fixed("tokens.total", "tokens_total", "Total tokens generated"),
    fixed(
        "tokens.per_second",
        "tokens_per_second",
        "Tokens generated per second, by the request that ended last",
    )
    .in_form(Form::Last),
    fixed(
        "time_to_first_token",
        "time_to_first_token_seconds",
        "Time to first token in seconds",
    ),
    fixed("retries.total", "retries_total", "Total retry attempts"),
    fixed(
        "retries.network",
        "retries_network_total",
        "Network-related retry attempts",
    ),
    fixed(
        "retries.model",
        "retries_model_total",
        "Model-related retry attempts",
    ),
    fixed(
        "network.errors",
        "network_errors_total",
        "Total network errors",
    ),
    fixed(
        "network.errors_by_type",
        "network_errors_by_type_total",
        "Network errors by type",
    ),
    fixed(
        "guardrails.violations",
        "guardrail_violations_total",
        "Total guardrail violations",
    ),
    fixed(
        "guardrails.violations_by_severity",
        "guardrail_violations_by_severity_total",
        "Guardrail violations by severity",
    ),
    fixed(
        "guardrails.violations_by_rule",
        "guardrail_violations_by_rule_total",
        "Guardrail violations by rule",
    ),
    fixed(
        "drift.detected",
        "drift_detected_total",
        "Requests with drift",
    ),
    // So far the guide.
    fixed(
        "runs",
        "streams_finished_total",
        "Runs finished, measured or not, by outcome",
    )
    .in_form(Form::Ends(|end| Some(end.outcome().as_str().into()))),
    fixed(
        "failures",
        "failures_total",
        "Runs failed, measured or not, by what went wrong",
    )
    .in_form(Form::Ends(|end| {
        end.is_failure().then(|| end.error_type()).flatten()
    })),
    fixed(
        "tokens.wasted",
        "wasted_tokens_total",
        "Tokens of attempts that a retry threw away",
    ),
    fixed(
        "inter_token",
        "stream_max_gap_seconds",
        "Longest time between two tokens of a request in seconds",
    )
    .in_form(Form::Longest),
];

/// What is counted while runs are live. Ends are read before starts, so that no scrape shows more ends:
/// these come after [`FIXED`].
const LIVE: [Metric; 3] = [
    Metric::own(
        "backoff_seconds_total",
        Kind::Counter,
        "Time that runs were to wait before retries in seconds, measured or not",
        |series, to| {
            if series.streams.started().is_some() {
                let backoff = series.streams.backoff.get() as f64 / NANOS;
                to("", Value::Number(backoff));
            }
        },
    ),
    Metric::own(
        "streams_started_total",
        Kind::Counter,
        "Runs started, measured or not",
        |series, to| {
            if let Some(started) = series.streams.started() {
                to("", Value::Count(started));
            }
        },
    ),
    Metric::own(
        "streams_active",
        Kind::Gauge,
        "Runs started and not finished, measured or not",
        |series, to| {
            if series.streams.started().is_some() {
                to("", Value::Count(series.streams.active()));
            }
        },
    ),
];

/// All metrics of runs, in the order in which they are written, and the quantities behind them by form:
/// a [`Series`] has an array for each form, in the same order.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) metrics: Vec<Metric>,
    pub(crate) sums: Vec<&'static Quantity>,
    pub(crate) last: Vec<&'static Quantity>,
    pub(crate) histograms: Vec<HistogramRow>,
    pub(crate) breakdowns: Vec<&'static Quantity>,
    pub(crate) ends: Vec<(&'static Quantity, OfEnd)>,
}

/// A quantity that is a histogram.
#[derive(Clone, Copy)]
pub(crate) struct HistogramRow {
    pub(crate) quantity: &'static Quantity,
    /// Whether it has the longest duration of each run only.
    pub(crate) longest: bool,
}

impl HistogramRow {
    /// Whether each run has one value in it.
    pub(crate) fn is_of_runs(&self) -> bool {
        self.longest || self.quantity.kind != QuantityKind::Distribution
    }
}

pub(crate) static LAYOUT: LazyLock<Layout> = LazyLock::new(Layout::new);

impl Layout {
    fn new() -> Self {
        let mut layout = Self::default();
        layout.metrics.push(REQUESTS);
        let mut done = HashSet::new();
        for fixed in FIXED {
            let all = Quantity::ALL;
            if let Some(quantity) = all.iter().find(|one| one.name == fixed.quantity) {
                layout.add(quantity, fixed.name.into(), fixed.help, fixed.form);
                if !matches!(fixed.form, Form::Longest) {
                    done.insert(quantity.name);
                }
            }
        }
        for quantity in Quantity::ALL {
            if !done.contains(quantity.name) {
                let name = derive_name(quantity.name, quantity.unit, quantity.kind);
                layout.add(quantity, name.into(), quantity.description, Form::Kind);
            }
        }
        layout.metrics.extend(LIVE);
        layout
    }

    fn add(
        &mut self,
        quantity: &'static Quantity,
        name: Cow<'static, str>,
        help: &'static str,
        form: Form,
    ) {
        let (kind, read) = match form {
            Form::Ends(of_end) => {
                let at = push(&mut self.ends, (quantity, of_end));
                (Kind::Counter, Read::Ends(at))
            }
            _ if quantity.label().is_some() => {
                let at = push(&mut self.breakdowns, quantity);
                (Kind::Counter, Read::Breakdown(at))
            }
            Form::Kind if quantity.kind == QuantityKind::Sum => {
                let at = push(&mut self.sums, quantity);
                let scale = scale(quantity.unit);
                (Kind::Counter, Read::Sum { at, scale })
            }
            Form::Last => (Kind::Gauge, Read::Last(push(&mut self.last, quantity))),
            Form::Kind | Form::Longest => {
                let longest = matches!(form, Form::Longest);
                let at = push(&mut self.histograms, HistogramRow { quantity, longest });
                (Kind::Histogram, Read::Histogram(at))
            }
        };
        self.metrics.push(Metric {
            name,
            kind,
            help,
            label: quantity.label(),
            read,
        });
    }
}

/// Adds one, and gives its place.
fn push<T>(all: &mut Vec<T>, one: T) -> usize {
    all.push(one);
    all.len() - 1
}

/// The name of a metric, by Prometheus's conventions: the quantity's words, then its unit unless they
/// say it, then `total` if it is a counter.
fn derive_name(quantity: &str, unit: Unit, kind: QuantityKind) -> String {
    let counter = kind == QuantityKind::Sum;
    let mut name = quantity.replace('.', "_");
    if counter && name.ends_with("_total") {
        name.truncate(name.len() - "_total".len());
    }
    let unit = match unit {
        Unit::Each(thing) => plural(thing),
        Unit::Seconds => "seconds".to_owned(),
        Unit::PerSecond(_) => "per_second".to_owned(),
        _ => String::new(),
    };
    if !format!("_{name}_").contains(&format!("_{unit}_")) && !unit.is_empty() {
        name = format!("{name}_{unit}");
    }
    if counter {
        name.push_str("_total");
    }
    name
}

fn plural(thing: &str) -> String {
    match thing.strip_suffix('y') {
        Some(stem) => format!("{stem}ies"),
        None => format!("{thing}s"),
    }
}

/// What a registry counts about itself. It has the default labels only.
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

/// One count of [`Health`].
pub(crate) struct HealthMetric {
    /// Without the prefix.
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) read: fn(&Health) -> u64,
}

/// Written after the metrics of runs.
pub(crate) static HEALTH: [HealthMetric; 2] = [
    HealthMetric {
        name: "series_overflow_total",
        help: "Look-ups of label sets beyond the limit, counted under other",
        read: |health| health.overflow.get(),
    },
    HealthMetric {
        name: "observer_panics_total",
        help: "Panics of observers that runs contained",
        read: |health| health.observer_panics.get(),
    },
];

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    /// What `METRICS.md` is to say.
    fn table() -> String {
        let runs = LAYOUT
            .metrics
            .iter()
            .map(|one| (&*one.name, one.kind, one.label, one.help));
        let health = HEALTH
            .iter()
            .map(|one| (one.name, Kind::Counter, None, one.help));
        let mut table = "| metric | type | label | what it says |\n|---|---|---|---|\n".to_owned();
        for (name, kind, label, help) in runs.chain(health) {
            let label = label.map_or_else(String::new, |label| format!("`{label}`"));
            let kind = kind.as_str();
            let _ = writeln!(table, "| `l0_{name}` | {kind} | {label} | {help} |");
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
            "the list of quantities has changed: L0_WRITE=1 cargo test -p l0-prometheus --lib"
        );
    }

    #[test]
    fn every_quantity_is_a_metric() {
        let named = |name| Quantity::ALL.iter().any(|one| one.name == name);
        for fixed in FIXED {
            assert!(named(fixed.quantity), "{} is no quantity", fixed.quantity);
        }
        let own = 1 + LIVE.len();
        let besides = FIXED
            .iter()
            .filter(|one| matches!(one.form, Form::Longest))
            .count();
        assert_eq!(LAYOUT.metrics.len(), own + besides + Quantity::ALL.len());
    }

    #[test]
    fn the_guides_names_and_types_are_kept_and_come_first() {
        let first: Vec<_> = LAYOUT
            .metrics
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
    fn names_are_derived() {
        const TOKEN: Unit = Unit::Each("token");
        for (quantity, unit, kind, name) in [
            (
                "wait",
                Unit::Seconds,
                QuantityKind::Sum,
                "wait_seconds_total",
            ),
            ("tokens.total", TOKEN, QuantityKind::Sum, "tokens_total"),
            (
                "usage.total",
                TOKEN,
                QuantityKind::Sum,
                "usage_tokens_total",
            ),
            (
                "usage.input",
                TOKEN,
                QuantityKind::Sum,
                "usage_input_tokens_total",
            ),
            (
                "retries.total",
                Unit::Each("retry"),
                QuantityKind::Sum,
                "retries_total",
            ),
            (
                "inter_token",
                Unit::Seconds,
                QuantityKind::Distribution,
                "inter_token_seconds",
            ),
            (
                "a.per_second",
                Unit::PerSecond("token"),
                QuantityKind::Sample,
                "a_per_second",
            ),
            ("context", TOKEN, QuantityKind::Sample, "context_tokens"),
        ] {
            assert_eq!(derive_name(quantity, unit, kind), name);
        }
    }

    #[test]
    fn names_are_distinct_and_end_as_their_kind_does() {
        let mut names = HashSet::new();
        for metric in &LAYOUT.metrics {
            assert!(names.insert(&*metric.name), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
        }
        assert!(HEALTH.iter().all(|metric| names.insert(metric.name)));
    }

    /// A caller's label can never repeat one of a metric.
    #[test]
    fn labels_of_metrics_are_reserved() {
        for label in LAYOUT.metrics.iter().filter_map(|metric| metric.label) {
            crate::Labels::new([(label, "x")]).unwrap_err();
        }
    }
}
