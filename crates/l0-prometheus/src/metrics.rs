//! The one table of the metrics of runs. What is collected, written and documented comes from it.

use l0_core::NetworkErrorKind;

use crate::histogram::{HistogramView, UnitHistogram};
use crate::number::{Count, NANOS};
use crate::series::{SEVERITIES, Series};

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
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) help: &'static str,
    /// The label that it has besides those of the label set.
    pub(crate) label: Option<&'static str>,
    read: fn(&Series, &mut Samples<'_>),
}

/// Takes the samples of one metric and one label set: the value of the metric's own label, which is
/// empty if it has none, and what the sample says.
type Samples<'a> = dyn FnMut(&str, Value<'_>) + 'a;

impl Metric {
    /// Reads the samples of one label set.
    pub(crate) fn read(&self, series: &Series, samples: &mut Samples<'_>) {
        (self.read)(series, samples);
    }
}

const fn counter(
    name: &'static str,
    help: &'static str,
    read: fn(&Series, &mut Samples<'_>),
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        help,
        label: None,
        read,
    }
}

const fn labelled_counter(
    name: &'static str,
    label: &'static str,
    help: &'static str,
    read: fn(&Series, &mut Samples<'_>),
) -> Metric {
    Metric {
        label: Some(label),
        ..counter(name, help, read)
    }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    read: fn(&Series, &mut Samples<'_>),
) -> Metric {
    Metric {
        kind: Kind::Gauge,
        ..counter(name, help, read)
    }
}

const fn histogram(
    name: &'static str,
    help: &'static str,
    read: fn(&Series, &mut Samples<'_>),
) -> Metric {
    Metric {
        kind: Kind::Histogram,
        ..counter(name, help, read)
    }
}

/// In the order in which they are written.
pub(crate) static METRICS: [Metric; 25] = [
    counter("requests_total", "Total L0 requests", |s, to| {
        count(&s.requests, to);
    }),
    histogram(
        "request_duration_seconds",
        "L0 request duration in seconds",
        |s, to| view(&s.request_duration, to),
    ),
    counter("tokens_total", "Total tokens generated", |s, to| {
        count(&s.tokens, to);
    }),
    gauge(
        "tokens_per_second",
        "Tokens generated per second, by the request that ended last",
        |s, to| {
            let rate = s.tokens_per_second.get();
            if !rate.is_nan() {
                to("", Value::Number(rate));
            }
        },
    ),
    histogram(
        "time_to_first_token_seconds",
        "Time to first token in seconds",
        |s, to| view(&s.time_to_first_token, to),
    ),
    counter("retries_total", "Total retry attempts", |s, to| {
        count(&s.retries, to);
    }),
    counter(
        "retries_network_total",
        "Network-related retry attempts",
        |s, to| count(&s.network_retries, to),
    ),
    counter(
        "retries_model_total",
        "Model-related retry attempts",
        |s, to| count(&s.model_retries, to),
    ),
    counter("network_errors_total", "Total network errors", |s, to| {
        count(&s.network_errors, to);
    }),
    labelled_counter(
        "network_errors_by_type_total",
        "error_type",
        "Network errors by type",
        |s, to| {
            for (kind, count) in NetworkErrorKind::ALL.iter().zip(&s.network_errors_by_type) {
                let errors = count.get();
                if errors > 0 {
                    to(kind.as_str(), Value::Count(errors));
                }
            }
        },
    ),
    counter(
        "guardrail_violations_total",
        "Total guardrail violations",
        |s, to| count(&s.violations, to),
    ),
    labelled_counter(
        "guardrail_violations_by_severity_total",
        "severity",
        "Guardrail violations by severity",
        |s, to| {
            for (severity, count) in SEVERITIES.iter().zip(&s.violations_by_severity) {
                to(severity.as_str(), Value::Count(count.get()));
            }
        },
    ),
    labelled_counter(
        "guardrail_violations_by_rule_total",
        "rule",
        "Guardrail violations by rule",
        |s, to| {
            s.violations_by_rule
                .each(|rule, count| to(rule, Value::Count(count)));
        },
    ),
    counter("drift_detected_total", "Requests with drift", |s, to| {
        count(&s.drifted, to);
    }),
    histogram(
        "inter_token_seconds",
        "Time between two tokens of one attempt in seconds",
        |s, to| view(&s.inter_token, to),
    ),
    histogram(
        "stream_max_gap_seconds",
        "Longest time between two tokens of a request in seconds",
        |s, to| view(&s.max_gap, to),
    ),
    histogram(
        "output_tokens_per_second",
        "Tokens per second of a request while tokens flow",
        |s, to| view(&s.output_tokens_per_second, to),
    ),
    counter(
        "wasted_tokens_total",
        "Tokens of attempts that a retry threw away",
        |s, to| count(&s.wasted_tokens, to),
    ),
    counter(
        "usage_input_tokens_total",
        "Tokens of prompts, as far as providers told them",
        |s, to| count(&s.usage_input_tokens, to),
    ),
    counter(
        "usage_output_tokens_total",
        "Tokens of answers, as far as providers told them",
        |s, to| count(&s.usage_output_tokens, to),
    ),
    counter(
        "consumer_wait_seconds_total",
        "Time that requests were held up by their consumer in seconds",
        |s, to| seconds(&s.consumer_wait, to),
    ),
    counter(
        "backoff_seconds_total",
        "Time that runs were to wait before retries in seconds, measured or not",
        |s, to| {
            if s.streams.started().is_some() {
                seconds(&s.streams.backoff, to);
            }
        },
    ),
    // Ends are read before starts, so that no scrape shows more ends.
    labelled_counter(
        "streams_finished_total",
        "outcome",
        "Runs finished, measured or not, by outcome",
        |s, to| {
            if s.streams.started().is_some() {
                for (outcome, count) in s.streams.finished() {
                    to(outcome.as_str(), Value::Count(count));
                }
            }
        },
    ),
    counter(
        "streams_started_total",
        "Runs started, measured or not",
        |s, to| {
            if let Some(started) = s.streams.started() {
                to("", Value::Count(started));
            }
        },
    ),
    gauge(
        "streams_active",
        "Runs started and not finished, measured or not",
        |s, to| {
            if s.streams.started().is_some() {
                to("", Value::Count(s.streams.active()));
            }
        },
    ),
];

fn count(count: &Count, to: &mut Samples<'_>) {
    to("", Value::Count(count.get()));
}

fn seconds(nanos: &Count, to: &mut Samples<'_>) {
    to("", Value::Number(nanos.get() as f64 / NANOS));
}

fn view(histogram: &UnitHistogram, to: &mut Samples<'_>) {
    to("", Value::Histogram(histogram.view()));
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

/// Written after [`METRICS`].
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
    use std::collections::HashSet;

    use super::*;

    /// What the table in the crate's documentation is to say.
    fn rows() -> Vec<String> {
        let fixed = METRICS
            .iter()
            .map(|one| (one.name, one.kind, one.label, one.help));
        let health = HEALTH
            .iter()
            .map(|one| (one.name, Kind::Counter, None, one.help));
        let row = |(name, kind, label, help): (_, Kind, Option<_>, _)| {
            let label = label
                .map(|label: &str| format!("`{label}`"))
                .unwrap_or_default();
            format!("//! | `l0_{name}` | {} | {label} | {help} |", kind.as_str())
        };
        fixed.chain(health).map(row).collect()
    }

    #[test]
    fn the_documentation_lists_every_metric_and_no_other() {
        let documented: Vec<_> = include_str!("lib.rs")
            .lines()
            .filter(|line| line.starts_with("//! | `l0_"))
            .collect();
        assert_eq!(documented, rows());
    }

    #[test]
    fn the_guides_names_and_types_are_kept() {
        for (name, kind) in [
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
        ] {
            let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
            assert_eq!(metric.kind, kind, "{name}");
        }
    }

    #[test]
    fn names_are_distinct_and_end_as_their_kind_does() {
        let mut names = HashSet::new();
        for metric in &METRICS {
            assert!(names.insert(metric.name), "{}", metric.name);
            let total = metric.name.ends_with("_total");
            assert_eq!(total, metric.kind == Kind::Counter, "{}", metric.name);
        }
        assert!(HEALTH.iter().all(|metric| names.insert(metric.name)));
    }

    /// A caller's label can never repeat one of a metric.
    #[test]
    fn labels_of_metrics_are_reserved() {
        for label in METRICS.iter().filter_map(|metric| metric.label) {
            crate::Labels::new([(label, "x")]).unwrap_err();
        }
    }
}
