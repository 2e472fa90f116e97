//! Layout: derives the metrics of the facade from the list of quantities, once. Descriptions, recording and
//! documentation all use it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use l0_core::{Quantity, QuantityKind, Unit};

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    /// A gauge that only rises. It stands for a counter of seconds or money, because a counter of the facade
    /// accepts only whole numbers.
    RisingGauge,
    Histogram,
}

/// One metric.
pub(crate) struct Metric {
    /// The name without the prefix.
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: Kind,
    pub(crate) unit: Option<metrics::Unit>,
    pub(crate) help: &'static str,
    /// The labels in addition to those of the label set.
    #[cfg_attr(not(test), allow(dead_code, reason = "listed in the documentation"))]
    pub(crate) own: Vec<&'static str>,
}

/// The index of a metric in the list of all.
pub(crate) type Place = usize;

/// A quantity and its metric.
pub(crate) type Row = (Place, &'static Quantity);

/// All metrics, in documentation order, and the quantities by form. A series has a list for each form, in the
/// same order.
pub(crate) struct Layout {
    pub(crate) metrics: Vec<Metric>,
    pub(crate) sums: Vec<Row>,
    pub(crate) last: Vec<Row>,
    pub(crate) histograms: Vec<HistogramRow>,
    /// The index of the histogram of gaps between tokens.
    pub(crate) gaps: Option<usize>,
    pub(crate) breakdowns: Vec<Row>,
    pub(crate) fallbacks: Place,
    pub(crate) finished: Place,
    pub(crate) failures: Place,
    pub(crate) own: Own,
}

/// A quantity that is a histogram.
#[derive(Clone, Copy)]
pub(crate) struct HistogramRow {
    pub(crate) place: Place,
    pub(crate) quantity: &'static Quantity,
    pub(crate) values: Values,
}

/// The values of a run that a histogram records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Values {
    /// The values known at its end.
    End,
    /// The longest of many.
    Longest,
    /// Many values, recorded one by one while the run is live.
    Gaps,
}

/// The metrics that are not quantities of a run.
pub(crate) struct Own {
    pub(crate) requests: Place,
    pub(crate) backoff: Place,
    pub(crate) active_seconds: Place,
    pub(crate) started: Place,
    pub(crate) active: Place,
    pub(crate) oldest: Place,
    pub(crate) stalled: Place,
    pub(crate) overflow: Place,
    pub(crate) observer_panics: Place,
}

/// The labels of fallbacks: the model given up and the model tried next.
pub(crate) const FALLBACK_LABELS: [&str; 2] = ["from", "to"];

/// The way a quantity becomes a metric.
#[derive(Clone, Copy, PartialEq)]
enum Form {
    /// By its kind: a sum becomes a counter, anything else a histogram.
    Kind,
    /// A gauge with the value of the run that ended last.
    Last,
    /// A histogram of the longest duration of each run, in addition to that of all durations.
    Longest,
    /// A counter of every run, measured or not.
    EveryRun,
}

/// A metric whose name the guide fixes, or that is not derived from the kind of its quantity.
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

/// All metrics that are not derived. The guide's metrics come first, in its order.
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
        "Tokens generated per second by the request that ended last",
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
    // The guide's metrics end here.
    fixed(
        FALLBACKS,
        "fallbacks_total",
        "Fallbacks from one model to another, measured or not",
    )
    .in_form(Form::EveryRun),
    fixed(
        FINISHED,
        "streams_finished_total",
        "Finished runs by outcome, measured or not",
    )
    .in_form(Form::EveryRun),
    fixed(
        FAILURES,
        "failures_total",
        "Failed runs by error type, measured or not",
    )
    .in_form(Form::EveryRun),
    fixed(
        "tokens.wasted",
        "wasted_tokens_total",
        "Tokens of attempts discarded by a retry or a fallback",
    ),
    fixed(
        GAPS,
        "stream_max_gap_seconds",
        "Longest time between two tokens of a request in seconds",
    )
    .in_form(Form::Longest),
];

const FALLBACKS: &str = "fallbacks";
const FINISHED: &str = "runs";
const FAILURES: &str = "failures";
const GAPS: &str = "inter_token";

pub(crate) static LAYOUT: LazyLock<Layout> = LazyLock::new(Layout::new);

impl Layout {
    fn new() -> Self {
        use Kind::{Counter, Gauge, RisingGauge};

        let mut layout = Self {
            metrics: Vec::new(),
            sums: Vec::new(),
            last: Vec::new(),
            histograms: Vec::new(),
            gaps: None,
            breakdowns: Vec::new(),
            fallbacks: 0,
            finished: 0,
            failures: 0,
            own: Own {
                requests: 0,
                backoff: 0,
                active_seconds: 0,
                started: 0,
                active: 0,
                oldest: 0,
                stalled: 0,
                overflow: 0,
                observer_panics: 0,
            },
        };
        layout.own.requests = layout.own("requests_total", Counter, "Total L0 requests");
        let mut done = HashSet::new();
        for fixed in FIXED {
            let all = Quantity::ALL;
            if let Some(quantity) = all.iter().find(|one| one.name == fixed.quantity) {
                layout.add(quantity, fixed.name.into(), fixed.help, fixed.form);
                if fixed.form != Form::Longest {
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
        layout.own.backoff = layout.own(
            "backoff_seconds_total",
            RisingGauge,
            "Time that runs waited for retries in seconds, measured or not, including live runs",
        );
        layout.own.active_seconds = layout.own(
            "streams_active_seconds_total",
            RisingGauge,
            "Time that runs were live in seconds, measured or not, including live runs",
        );
        layout.own.started = layout.own(
            "streams_started_total",
            Counter,
            "Started runs, measured or not",
        );
        layout.own.active = layout.own(
            "streams_active",
            Gauge,
            "Runs that have started and not finished, measured or not",
        );
        layout.own.oldest = layout.own(
            "stream_oldest_seconds",
            Gauge,
            "Age of the oldest live run in seconds, measured or not; 0 if none is live",
        );
        layout.own.stalled = layout.own(
            "streams_stalled",
            Gauge,
            "Live runs with a silent source, if stalls are counted",
        );
        layout.own.overflow = layout.own(
            "series_overflow_total",
            Counter,
            "Look-ups of label sets beyond the limit, counted as other",
        );
        layout.own.observer_panics = layout.own(
            "observer_panics_total",
            Counter,
            "Panics of observers, contained by their run",
        );
        layout
    }

    /// Adds a metric that is not a quantity.
    fn own(&mut self, name: &'static str, kind: Kind, help: &'static str) -> Place {
        let unit = if name.contains("_seconds") {
            metrics::Unit::Seconds
        } else {
            metrics::Unit::Count
        };
        push(
            &mut self.metrics,
            Metric {
                name: name.into(),
                kind,
                unit: Some(unit),
                help,
                own: Vec::new(),
            },
        )
    }

    fn add(
        &mut self,
        quantity: &'static Quantity,
        name: Cow<'static, str>,
        help: &'static str,
        form: Form,
    ) {
        let place = self.metrics.len();
        let is_sum = quantity.kind == QuantityKind::Sum;
        let kind = match form {
            Form::EveryRun => {
                let of = match quantity.name {
                    FALLBACKS => &mut self.fallbacks,
                    FINISHED => &mut self.finished,
                    _ => &mut self.failures,
                };
                *of = place;
                Kind::Counter
            }
            _ if quantity.is_labeled() => {
                self.breakdowns.push((place, quantity));
                kind_of_sum(quantity.unit)
            }
            Form::Kind if is_sum => {
                self.sums.push((place, quantity));
                kind_of_sum(quantity.unit)
            }
            Form::Last => {
                self.last.push((place, quantity));
                Kind::Gauge
            }
            Form::Kind | Form::Longest => {
                let values = match (form, quantity.kind) {
                    (Form::Longest, _) => Values::Longest,
                    (_, QuantityKind::Distribution) => Values::Gaps,
                    _ => Values::End,
                };
                let row = HistogramRow {
                    place,
                    quantity,
                    values,
                };
                let at = push(&mut self.histograms, row);
                if values == Values::Gaps {
                    self.gaps = Some(at);
                }
                Kind::Histogram
            }
        };
        self.metrics.push(Metric {
            name,
            kind,
            unit: unit(quantity.unit),
            help,
            own: match quantity.name {
                FALLBACKS => FALLBACK_LABELS.to_vec(),
                _ => quantity.labels().to_vec(),
            },
        });
    }
}

/// Adds an item and returns its index.
fn push<T>(all: &mut Vec<T>, one: T) -> usize {
    all.push(one);
    all.len() - 1
}

/// A counter of the facade accepts only whole numbers.
const fn kind_of_sum(unit: Unit) -> Kind {
    match unit {
        Unit::Each(_) => Kind::Counter,
        _ => Kind::RisingGauge,
    }
}

/// Returns the unit in the facade. Rates have none, because an exporter would repeat it in a name that already
/// contains it.
fn unit(unit: Unit) -> Option<metrics::Unit> {
    match unit {
        Unit::Each(_) => Some(metrics::Unit::Count),
        Unit::Seconds => Some(metrics::Unit::Seconds),
        _ => None,
    }
}

/// Derives the name of a metric by Prometheus's conventions: the words of the quantity, its unit unless they
/// contain it, and `total` for a sum.
fn derive_name(quantity: &str, unit: Unit, kind: QuantityKind) -> String {
    let adds_up = kind == QuantityKind::Sum;
    let mut name = quantity.replace('.', "_");
    if adds_up && name.ends_with("_total") {
        name.truncate(name.len() - "_total".len());
    }
    let unit = match unit {
        Unit::Each(thing) => match thing.strip_suffix('y') {
            Some(stem) => format!("{stem}ies"),
            None => format!("{thing}s"),
        },
        Unit::Seconds => "seconds".to_owned(),
        Unit::PerSecond(_) => "per_second".to_owned(),
        _ => String::new(),
    };
    if !format!("_{name}_").contains(&format!("_{unit}_")) && !unit.is_empty() {
        name = format!("{name}_{unit}");
    }
    if adds_up {
        name.push_str("_total");
    }
    name
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;
    use std::fs;

    use super::*;

    #[test]
    fn every_quantity_is_a_metric_and_every_fixed_name_belongs_to_a_quantity() {
        let named = |name| Quantity::ALL.iter().any(|one| one.name == name);
        for fixed in FIXED {
            assert!(
                named(fixed.quantity),
                "{} is not a quantity",
                fixed.quantity
            );
        }
        let besides = FIXED.iter().filter(|one| one.form == Form::Longest).count();
        const OWN: usize = 9;
        assert_eq!(LAYOUT.metrics.len(), OWN + besides + Quantity::ALL.len());
    }

    /// Only these are recorded one by one.
    #[test]
    fn the_gaps_are_the_one_quantity_with_many_values() {
        let many = LAYOUT
            .histograms
            .iter()
            .filter(|row| row.values == Values::Gaps);
        let names: Vec<_> = many.map(|row| row.quantity.name).collect();
        assert_eq!(names, [GAPS]);
        assert_eq!(LAYOUT.histograms[LAYOUT.gaps.unwrap()].values, Values::Gaps);
    }

    #[test]
    fn names_are_distinct_and_contain_their_kind_and_unit() {
        let mut names = HashSet::new();
        for metric in &LAYOUT.metrics {
            let name = &*metric.name;
            assert!(names.insert(name), "{name}");
            let rises = matches!(metric.kind, Kind::Counter | Kind::RisingGauge);
            assert_eq!(name.ends_with("_total"), rises, "{name}");
            let stem = name.strip_suffix("_total").unwrap_or(name);
            let seconds = stem.ends_with("_seconds");
            assert_eq!(
                seconds,
                metric.unit == Some(metrics::Unit::Seconds),
                "{name}"
            );
        }
    }

    /// Returns the expected content of `METRICS.md`.
    fn table() -> String {
        let mut table = "| metric | type | labels | help |\n|---|---|---|---|\n".to_owned();
        for metric in &LAYOUT.metrics {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::RisingGauge => "monotonic gauge",
                Kind::Histogram => "histogram",
            };
            let own: Vec<_> = metric.own.iter().map(|own| format!("`{own}`")).collect();
            let (name, own, help) = (&metric.name, own.join(", "), metric.help);
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
            "METRICS.md is out of date; run: L0_WRITE=1 cargo test -p l0-metrics --lib"
        );
    }
}
