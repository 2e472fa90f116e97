//! Metric points: one telemetry as a list of named numbers, for time-series systems.
//!
//! This is the one list of the `l0.*` names. Durations are milliseconds. What is unknown has no
//! point. Counts are those of one run, so that a server adds them up.
//!
//! | name | kind | own tag |
//! |---|---|---|
//! | `l0.duration` | duration | |
//! | `l0.tokens.total` | count | |
//! | `l0.tokens.per_second` | rate | |
//! | `l0.time_to_first_token` | duration | |
//! | `l0.retries.total` | count | |
//! | `l0.retries.network` | count | |
//! | `l0.retries.model` | count | |
//! | `l0.network.errors` | count | |
//! | `l0.guardrails.violations` | count | |
//! | `l0.time_to_first_text` | duration | |
//! | `l0.inter_token.avg` | duration | |
//! | `l0.inter_token.p50` | duration | |
//! | `l0.inter_token.p99` | duration | |
//! | `l0.inter_token.max` | duration | |
//! | `l0.consumer_hold` | duration | |
//! | `l0.wait` | duration | |
//! | `l0.output_tokens.per_second` | rate | |
//! | `l0.tokens.wasted` | count | |
//! | `l0.attempts` | count | |
//! | `l0.usage.input` | count | |
//! | `l0.usage.output` | count | |
//! | `l0.usage.total` | count | |
//! | `l0.usage.cached_input` | count | |
//! | `l0.usage.reasoning` | count | |
//! | `l0.drift.detected` | count | |
//! | `l0.runs` | count | `outcome` |
//! | `l0.network.errors_by_type` | count | `error_type` |
//! | `l0.guardrails.violations_by_severity` | count | `severity` |
//! | `l0.guardrails.violations_by_rule` | count | `rule` |

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::vec;

use l0_core::{Severity, Telemetry, Timestamp, Usage, keys};
use serde::{Serialize, Serializer};

use crate::values::{gaps, millis};

/// The tags that points have of themselves. A tag of the same key from elsewhere gives way.
pub const OWN_TAGS: &[&str] = &[OUTCOME, ERROR_TYPE, SEVERITY, RULE];

const OUTCOME: &str = "outcome";
const ERROR_TYPE: &str = "error_type";
const SEVERITY: &str = "severity";
const RULE: &str = "rule";

/// What the value of a point is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricKind {
    /// How many in this run: a whole number, to be added up over runs.
    Count,
    /// How long, in milliseconds.
    Duration,
    /// How many per second.
    Rate,
}

/// Tags by key.
pub type Tags<'a> = BTreeMap<&'a str, Cow<'a, str>>;

/// One number of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MetricPoint<'a> {
    /// Its name, which begins with `l0.`.
    pub name: &'static str,
    /// What the value is.
    pub kind: MetricKind,
    /// The value; always finite. Counts above 2^53 are rounded.
    pub value: f64,
    /// The end of the run; of a run that has not ended, its start. JSON: ms since the Unix epoch.
    pub timestamp: Timestamp,
    /// The tags from metadata, and the point's own.
    #[serde(serialize_with = "shared")]
    pub tags: Arc<Tags<'a>>,
}

fn shared<S: Serializer>(tags: &Arc<Tags<'_>>, serializer: S) -> Result<S::Ok, S::Error> {
    tags.as_ref().serialize(serializer)
}

/// The points of a telemetry, in the order of the table above.
///
/// ```
/// # let telemetry = l0_core::Telemetry::default();
/// for point in l0_export::metrics::points(&telemetry).tag_keys(["model"]) {
///     println!("{} = {} {:?}", point.name, point.value, point.tags);
/// }
/// ```
pub fn points(telemetry: &Telemetry) -> Points<'_> {
    Points {
        telemetry,
        tags: Arc::default(),
        plain: PLAIN.iter(),
        tagged: tagged(telemetry).into_iter(),
    }
}

/// The iterator that [`points`] makes.
#[derive(Debug, Clone)]
#[must_use = "iterators do nothing unless consumed"]
pub struct Points<'a> {
    telemetry: &'a Telemetry,
    tags: Arc<Tags<'a>>,
    plain: slice::Iter<'static, Plain>,
    tagged: vec::IntoIter<Tagged<'a>>,
}

impl Points<'_> {
    /// Tags every point with these entries of the metadata; without it, none of the metadata
    /// leaves. How a value is written says [`keys::text`]; a run without the entry has no such
    /// tag.
    pub fn tag_keys<I>(mut self, keys: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        let metadata = &self.telemetry.metadata;
        let tags = Arc::make_mut(&mut self.tags);
        for key in keys {
            let key = key.as_ref();
            if let (Some((key, _)), Some(text)) =
                (metadata.get_key_value(key), keys::text(metadata, key))
            {
                tags.insert(key, text);
            }
        }
        self
    }
}

impl<'a> Iterator for Points<'a> {
    type Item = MetricPoint<'a>;

    fn next(&mut self) -> Option<MetricPoint<'a>> {
        let ended = self.telemetry.end_time();
        let timestamp = ended.unwrap_or(self.telemetry.start_time);
        for plain in self.plain.by_ref() {
            if let Some(value) = (plain.value)(self.telemetry).filter(|value| value.is_finite()) {
                return Some(MetricPoint {
                    name: plain.name,
                    kind: plain.kind,
                    value,
                    timestamp,
                    tags: Arc::clone(&self.tags),
                });
            }
        }
        let Tagged {
            name,
            tag: (key, text),
            count,
        } = self.tagged.next()?;
        let mut tags = Arc::clone(&self.tags);
        Arc::make_mut(&mut tags).insert(key, Cow::Borrowed(text));
        Some(MetricPoint {
            name,
            kind: MetricKind::Count,
            value: count as f64,
            timestamp,
            tags,
        })
    }
}

/// A point without a tag of its own.
#[derive(Debug)]
struct Plain {
    name: &'static str,
    kind: MetricKind,
    value: fn(&Telemetry) -> Option<f64>,
}

const fn count(name: &'static str, value: fn(&Telemetry) -> Option<f64>) -> Plain {
    Plain {
        name,
        kind: MetricKind::Count,
        value,
    }
}

const fn duration(name: &'static str, value: fn(&Telemetry) -> Option<f64>) -> Plain {
    Plain {
        name,
        kind: MetricKind::Duration,
        value,
    }
}

const fn rate(name: &'static str, value: fn(&Telemetry) -> Option<f64>) -> Plain {
    Plain {
        name,
        kind: MetricKind::Rate,
        value,
    }
}

/// The first nine are those of the original, in its order.
static PLAIN: [Plain; 25] = [
    duration("l0.duration", |t| t.duration.map(millis)),
    count("l0.tokens.total", |t| Some(t.metrics.total_tokens as f64)),
    rate("l0.tokens.per_second", |t| t.metrics.tokens_per_second),
    duration("l0.time_to_first_token", |t| {
        t.metrics.time_to_first_token.map(millis)
    }),
    count("l0.retries.total", |t| Some(t.metrics.total_retries.into())),
    count("l0.retries.network", |t| {
        Some(t.metrics.network_retries.into())
    }),
    count("l0.retries.model", |t| Some(t.metrics.model_retries.into())),
    count("l0.network.errors", |t| Some(t.network.error_count as f64)),
    count("l0.guardrails.violations", |t| {
        Some(t.guardrails.as_ref()?.violation_count as f64)
    }),
    duration("l0.time_to_first_text", |t| {
        t.metrics.time_to_first_text.map(millis)
    }),
    duration("l0.inter_token.avg", |t| {
        t.metrics.avg_inter_token_time.map(millis)
    }),
    duration("l0.inter_token.p50", |t| gaps(t)?.p50().map(millis)),
    duration("l0.inter_token.p99", |t| gaps(t)?.p99().map(millis)),
    duration("l0.inter_token.max", |t| Some(millis(gaps(t)?.max))),
    duration("l0.consumer_hold", |t| t.metrics.consumer_hold.map(millis)),
    duration("l0.wait", |t| t.metrics.wait.map(millis)),
    rate("l0.output_tokens.per_second", |t| {
        t.metrics.output_tokens_per_second
    }),
    count("l0.tokens.wasted", |t| Some(t.metrics.wasted_tokens as f64)),
    count("l0.attempts", |t| Some(t.metrics.attempts.into())),
    count("l0.usage.input", |t| usage(t, |usage| usage.input)),
    count("l0.usage.output", |t| usage(t, |usage| usage.output)),
    count("l0.usage.total", |t| usage(t, |usage| usage.total)),
    count("l0.usage.cached_input", |t| {
        usage(t, |usage| usage.cached_input)
    }),
    count("l0.usage.reasoning", |t| usage(t, |usage| usage.reasoning)),
    count("l0.drift.detected", |t| {
        Some(f64::from(u8::from(t.drift.as_ref()?.detected)))
    }),
];

fn usage(telemetry: &Telemetry, field: fn(Usage) -> Option<u64>) -> Option<f64> {
    Some(field(telemetry.usage?)? as f64)
}

/// A count with a tag of its own.
#[derive(Debug, Clone)]
struct Tagged<'a> {
    name: &'static str,
    tag: (&'static str, &'a str),
    count: u64,
}

fn tagged(telemetry: &Telemetry) -> Vec<Tagged<'_>> {
    let mut all = Vec::new();
    let mut add = |name, key, text, count| {
        all.push(Tagged {
            name,
            tag: (key, text),
            count,
        });
    };
    if let Some(outcome) = telemetry.outcome {
        add("l0.runs", OUTCOME, outcome.as_str(), 1);
    }
    for (kind, count) in &telemetry.network.errors_by_type {
        add(
            "l0.network.errors_by_type",
            ERROR_TYPE,
            kind.as_str(),
            *count,
        );
    }
    if let Some(guardrails) = &telemetry.guardrails {
        for severity in [Severity::Warning, Severity::Error, Severity::Fatal] {
            let count = guardrails.violations_by_severity.get(severity);
            add(
                "l0.guardrails.violations_by_severity",
                SEVERITY,
                severity.as_str(),
                count,
            );
        }
        for (rule, count) in &guardrails.violations_by_rule {
            add("l0.guardrails.violations_by_rule", RULE, rule, *count);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use l0_core::{
        Distribution, DriftStats, GuardrailStats, Monitor, Monitoring, NetworkErrorKind, Outcome,
        Violation,
    };
    use serde_json::json;

    use super::*;

    /// A telemetry in which nothing is unknown.
    fn full() -> Telemetry {
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.start();
        monitor.record_violations(&[
            Violation::new("json-parseable", Severity::Error, "not JSON"),
            Violation::new("meta-commentary", Severity::Warning, "talks about itself"),
        ]);
        let mut telemetry = Telemetry::example();
        telemetry.guardrails = monitor.telemetry().expect("on").guardrails;
        let mut drift = DriftStats::default();
        drift.detected = true;
        telemetry.drift = Some(drift);
        telemetry.usage = Some(
            Usage::new()
                .input(12)
                .output(160)
                .total(172)
                .cached_input(4)
                .reasoning(100),
        );
        telemetry
    }

    fn named(telemetry: &Telemetry) -> Vec<(String, f64)> {
        points(telemetry)
            .map(|point| {
                let own = OWN_TAGS.iter().find_map(|key| point.tags.get(key));
                let own = own.map_or(String::new(), |tag| format!("{{{tag}}}"));
                (format!("{}{own}", point.name), point.value)
            })
            .collect()
    }

    #[test]
    fn every_number_of_a_run_is_a_point() {
        let gaps = full().metrics.inter_token.expect("gaps");
        let gap = |q| millis(gaps.quantile(q).expect("not empty"));
        let expected = [
            ("l0.duration", 1_500.0),
            ("l0.tokens.total", 150.0),
            ("l0.tokens.per_second", 100.0),
            ("l0.time_to_first_token", 250.0),
            ("l0.retries.total", 1.0),
            ("l0.retries.network", 1.0),
            ("l0.retries.model", 0.0),
            ("l0.network.errors", 1.0),
            ("l0.guardrails.violations", 2.0),
            ("l0.time_to_first_text", 250.0),
            ("l0.inter_token.avg", 7.445_945),
            ("l0.inter_token.p50", gap(0.5)),
            ("l0.inter_token.p99", gap(0.99)),
            ("l0.inter_token.max", 11.0),
            ("l0.consumer_hold", 10.0),
            ("l0.wait", 1_490.0),
            ("l0.output_tokens.per_second", 133.574),
            ("l0.tokens.wasted", 1.0),
            ("l0.attempts", 2.0),
            ("l0.usage.input", 12.0),
            ("l0.usage.output", 160.0),
            ("l0.usage.total", 172.0),
            ("l0.usage.cached_input", 4.0),
            ("l0.usage.reasoning", 100.0),
            ("l0.drift.detected", 1.0),
            ("l0.runs{completed}", 1.0),
            ("l0.network.errors_by_type{connection_dropped}", 1.0),
            ("l0.guardrails.violations_by_severity{warning}", 1.0),
            ("l0.guardrails.violations_by_severity{error}", 1.0),
            ("l0.guardrails.violations_by_severity{fatal}", 0.0),
            ("l0.guardrails.violations_by_rule{json-parseable}", 1.0),
            ("l0.guardrails.violations_by_rule{meta-commentary}", 1.0),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        assert_eq!(named(&full()), expected);
    }

    #[test]
    fn the_documented_table_is_the_list() {
        let documented: Vec<_> = include_str!("metrics.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! | `")?.split('`').next())
            .collect();
        let mut seen = BTreeSet::new();
        let listed: Vec<_> = points(&full())
            .map(|point| point.name)
            .filter(|name| seen.insert(*name))
            .collect();
        assert_eq!(documented, listed);
    }

    #[test]
    fn what_is_unknown_has_no_point() {
        let names: Vec<_> = named(&Telemetry::default())
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert_eq!(
            names,
            [
                "l0.tokens.total",
                "l0.retries.total",
                "l0.retries.network",
                "l0.retries.model",
                "l0.network.errors",
                "l0.tokens.wasted",
                "l0.attempts",
            ]
        );

        let mut telemetry = full();
        telemetry.metrics.tokens_per_second = Some(f64::NAN);
        telemetry.metrics.output_tokens_per_second = Some(f64::INFINITY);
        telemetry.metrics.inter_token = Some(Distribution::new());
        telemetry.guardrails = Some(GuardrailStats::default());
        assert!(points(&telemetry).all(|point| point.value.is_finite()));
        assert!(points(&telemetry).all(|point| point.kind != MetricKind::Rate));
        assert!(points(&telemetry).all(|point| !point.name.starts_with("l0.inter_token.p")));
        assert!(points(&telemetry).any(|point| point.name == "l0.guardrails.violations"));
    }

    #[test]
    fn only_listed_metadata_becomes_tags() {
        let mut telemetry = Telemetry::example();
        telemetry.metadata.extend(
            [
                ("retry", json!(true)),
                ("shard", json!(7)),
                ("user", json!({ "id": 12 })),
                ("nothing", json!(null)),
                ("secret", json!("value")),
                ("outcome", json!("mine")),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let keys = [
            "model", "retry", "shard", "user", "nothing", "missing", "outcome",
        ];
        for point in points(&telemetry).tag_keys(keys) {
            let tags: Vec<_> = point
                .tags
                .iter()
                .map(|(key, text)| (*key, &**text))
                .collect();
            let outcome = if point.name == "l0.runs" {
                "completed"
            } else {
                "mine"
            };
            let mut expected = vec![
                ("model", "gpt-4"),
                ("outcome", outcome),
                ("retry", "true"),
                ("shard", "7"),
                ("user", "{\"id\":12}"),
            ];
            if point.name == "l0.network.errors_by_type" {
                expected.insert(0, ("error_type", "connection_dropped"));
            }
            assert_eq!(tags, expected, "{}", point.name);
        }
        assert!(
            points(&telemetry)
                .filter(|point| point.name != "l0.runs"
                    && point.name != "l0.network.errors_by_type")
                .all(|point| point.tags.is_empty())
        );
    }

    #[test]
    fn the_time_is_the_end_or_else_the_start() {
        let mut telemetry = Telemetry::example();
        let ended = Timestamp::from_millis(1_700_000_001_500);
        assert!(points(&telemetry).all(|point| point.timestamp == ended));
        telemetry.duration = None;
        assert!(points(&telemetry).all(|point| point.timestamp == telemetry.start_time));
    }

    #[test]
    fn points_are_written_as_plain_json() {
        let mut telemetry = Telemetry::example();
        telemetry.outcome = Some(Outcome::TimedOut);
        telemetry.network.errors_by_type = [(NetworkErrorKind::Timeout, 3)].into();
        let points: Vec<_> = points(&telemetry).tag_keys(["model"]).collect();
        let json = serde_json::to_value(&points[points.len() - 2..]).unwrap();
        assert_eq!(
            json,
            json!([
                {
                    "name": "l0.runs", "kind": "count", "value": 1.0,
                    "timestamp": 1_700_000_001_500_u64,
                    "tags": { "model": "gpt-4", "outcome": "timed_out" },
                },
                {
                    "name": "l0.network.errors_by_type", "kind": "count", "value": 3.0,
                    "timestamp": 1_700_000_001_500_u64,
                    "tags": { "model": "gpt-4", "error_type": "timeout" },
                },
            ])
        );
    }
}
