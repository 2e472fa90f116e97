//! Layout: derives the metrics from the list of quantities, once. Recording, output and documentation all use
//! it.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::LazyLock;

use l0_core::{End, Quantity, QuantityKind, Unit};

use crate::number::scale;

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    /// Returns the name of the type in the text format.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// The way a quantity becomes a metric.
#[derive(Clone, Copy)]
enum Form {
    /// By its kind: a sum becomes a counter, anything else a histogram.
    Kind,
    /// A gauge with the value of the run that ended last.
    Last,
    /// A histogram of the longest duration of each run, in addition to that of all durations.
    Longest,
    /// A counter of every run, measured or not, from how it ended.
    Ends(EndLabel),
    /// A counter of every run, measured or not, by the two models of a fallback.
    Fallbacks,
}

/// Returns the label value under which the end of a run is counted, or `None` if it is not counted.
pub(crate) type EndLabel = fn(&End) -> Option<Cow<'static, str>>;

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
        "fallbacks",
        "fallbacks_total",
        "Fallbacks from one model to another, measured or not",
    )
    .in_form(Form::Fallbacks),
    fixed(
        FINISHED,
        "streams_finished_total",
        "Finished runs by outcome, measured or not",
    )
    .in_form(Form::Ends(|end| Some(end.outcome().as_str().into()))),
    fixed(
        "failures",
        "failures_total",
        "Failed runs by error type, measured or not",
    )
    .in_form(Form::Ends(|end| {
        end.is_failure().then(|| end.error_type()).flatten()
    })),
    fixed(
        "tokens.wasted",
        "wasted_tokens_total",
        "Tokens of attempts discarded by a retry or a fallback",
    ),
    fixed(
        "inter_token",
        "stream_max_gap_seconds",
        "Longest time between two tokens of a request in seconds",
    )
    .in_form(Form::Longest),
];

/// The quantity that counts the ends of runs.
const FINISHED: &str = "runs";

/// The labels of fallbacks: the model given up and the model tried next.
pub(crate) const FALLBACK_LABELS: [&str; 2] = ["from", "to"];

/// The quantities as metrics: in output order, and by form. A series has an array for each form, in the same
/// order.
#[derive(Default)]
pub(crate) struct Layout {
    pub(crate) rows: Vec<Row>,
    pub(crate) sums: Vec<&'static Quantity>,
    pub(crate) last: Vec<&'static Quantity>,
    pub(crate) histograms: Vec<HistogramRow>,
    pub(crate) breakdowns: Vec<&'static Quantity>,
    pub(crate) ends: Vec<(&'static Quantity, EndLabel)>,
    /// The index of the end that counts all runs.
    pub(crate) finished: Option<usize>,
}

/// A quantity as a metric.
pub(crate) struct Row {
    /// The name without the prefix.
    pub(crate) name: Cow<'static, str>,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// The labels in addition to those of the label set.
    pub(crate) own: Vec<&'static str>,
    pub(crate) place: Place,
}

/// The place of a metric's value in a series: the index in the list of its form.
#[derive(Clone, Copy)]
pub(crate) enum Place {
    Sum { at: usize, scale: f64 },
    Last(usize),
    Histogram(usize),
    Breakdown { at: usize, scale: f64 },
    Ends(usize),
    Fallbacks,
}

/// A quantity that is a histogram.
#[derive(Clone, Copy)]
pub(crate) struct HistogramRow {
    pub(crate) quantity: &'static Quantity,
    /// `true` if it has only the longest duration of each run.
    pub(crate) longest: bool,
}

impl HistogramRow {
    /// Returns `true` if each of its values belongs to one run or attempt.
    pub(crate) fn is_of_runs(&self) -> bool {
        self.longest || self.quantity.kind != QuantityKind::Distribution
    }
}

pub(crate) static LAYOUT: LazyLock<Layout> = LazyLock::new(Layout::new);

impl Layout {
    fn new() -> Self {
        let mut layout = Self::default();
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
        layout
    }

    fn add(
        &mut self,
        quantity: &'static Quantity,
        name: Cow<'static, str>,
        help: &'static str,
        form: Form,
    ) {
        let (kind, place) = match form {
            Form::Fallbacks => (Kind::Counter, Place::Fallbacks),
            Form::Ends(of_end) => {
                let at = push(&mut self.ends, (quantity, of_end));
                if quantity.name == FINISHED {
                    self.finished = Some(at);
                }
                (Kind::Counter, Place::Ends(at))
            }
            _ if quantity.is_labeled() => {
                let at = push(&mut self.breakdowns, quantity);
                let scale = scale(quantity.unit);
                (Kind::Counter, Place::Breakdown { at, scale })
            }
            Form::Kind if quantity.kind == QuantityKind::Sum => {
                let at = push(&mut self.sums, quantity);
                let scale = scale(quantity.unit);
                (Kind::Counter, Place::Sum { at, scale })
            }
            Form::Last => (Kind::Gauge, Place::Last(push(&mut self.last, quantity))),
            Form::Kind | Form::Longest => {
                let longest = matches!(form, Form::Longest);
                let at = push(&mut self.histograms, HistogramRow { quantity, longest });
                (Kind::Histogram, Place::Histogram(at))
            }
        };
        self.rows.push(Row {
            name,
            kind,
            help,
            own: match place {
                Place::Fallbacks => FALLBACK_LABELS.to_vec(),
                _ => quantity.labels().to_vec(),
            },
            place,
        });
    }
}

/// Adds an item and returns its index.
fn push<T>(all: &mut Vec<T>, one: T) -> usize {
    all.push(one);
    all.len() - 1
}

/// Derives the name of a metric by Prometheus's conventions: the words of the quantity, its unit unless they
/// contain it, and `total` for a counter.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_quantity_is_a_metric() {
        let named = |name| Quantity::ALL.iter().any(|one| one.name == name);
        for fixed in FIXED {
            assert!(
                named(fixed.quantity),
                "{} is not a quantity",
                fixed.quantity
            );
        }
        let besides = FIXED
            .iter()
            .filter(|one| matches!(one.form, Form::Longest))
            .count();
        assert_eq!(LAYOUT.rows.len(), besides + Quantity::ALL.len());
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
}
