//! Metric points: one telemetry as a list of named numbers, for time-series systems.
//!
//! Each quantity of [`Quantity::ALL`] has a point, in the order of the list. The name of the point is that
//! of the quantity with the prefix `l0.`. The first are those of the TypeScript library: `l0.duration`,
//! `l0.tokens.total`, `l0.tokens.per_second`, `l0.time_to_first_token`, `l0.retries.total`,
//! `l0.retries.network`, `l0.retries.model`, `l0.network.errors`, `l0.guardrails.violations`.
//! [`names`] lists all of them.
//!
//! A distribution has five points, with the suffixes `.avg`, `.p50`, `.p90`, `.p99` and `.max`
//! (`l0.inter_token.p99`). A quantity that is counted by a label has a point for each value of the label,
//! with a tag of the label's name: `l0.runs` has `outcome`, `l0.attempts` has `result`, `l0.failures` and
//! `l0.network.errors_by_type` have `error_type`.
//!
//! `l0.attempt_time_to_first_token` has a point for each attempt that produced a token.
//!
//! Durations are in milliseconds. Unknown values have no point. Counts are those of one run, so
//! servers must add them up.
//!
//! [`points`] yields all numbers of a run together. If a run fell back to another source, its numbers belong
//! to several models: [`points_by_source`] separates them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::slice;
use std::sync::Arc;
use std::vec;

use l0_core::{
    KeyError, KeyList, KeyRules, Metadata, Quantity, QuantityKind, Telemetry, Timestamp, Unit,
};
use serde::{Serialize, Serializer};

use crate::numbers::{Counts, NUMBERS, Number};
use crate::sources::by_source;

/// The kind of a point's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum MetricKind {
    /// A number of things in this run: a whole number that can be added up over runs.
    Count,
    /// A duration in milliseconds.
    Duration,
    /// A number per second, which cannot be added up.
    Rate,
}

/// Tags by key.
pub type Tags<'a> = BTreeMap<&'a str, Cow<'a, str>>;

/// One number of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct MetricPoint<'a> {
    /// The name, which begins with `l0.`.
    pub name: &'static str,
    /// The kind of the value.
    pub kind: MetricKind,
    /// The value, always finite. Counts above 2^53 are rounded.
    pub value: f64,
    /// The end of the run, or the start if it has not ended. In JSON: ms since the Unix epoch.
    pub timestamp: Timestamp,
    /// The tags from the metadata, and the tags of the point itself.
    #[serde(serialize_with = "shared")]
    pub tags: Arc<Tags<'a>>,
}

fn shared<S: Serializer>(tags: &Arc<Tags<'_>>, serializer: S) -> Result<S::Ok, S::Error> {
    tags.as_ref().serialize(serializer)
}

/// Iterates over the names of all points that a run can have, in the order of [`points`].
pub fn names() -> impl Iterator<Item = &'static str> {
    NUMBERS.iter().map(|number| number.point.as_str())
}

/// Returns `true` if some points have a tag with this key themselves. No metadata key can have such a name:
/// `outcome`, `result`, `error_type`, `severity`, `rule`, `currency`, `wasted`.
#[must_use]
pub fn is_own_tag(key: &str) -> bool {
    Quantity::ALL
        .iter()
        .any(|quantity| quantity.labels().contains(&key))
}

/// Creates a list of metadata keys, for [`Points::tags`]. A key can be any text, except the empty text
/// and the [keys of the points themselves](is_own_tag).
///
/// # Errors
///
/// Returns an error if a key is empty or a tag of the points themselves.
pub fn tag_keys<I>(keys: I) -> Result<KeyList, KeyError>
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    const RULES: KeyRules = KeyRules::new(
        |key| (!key.is_empty()).then(|| key.to_owned()),
        "a non-empty text",
    )
    .reserved(is_own_tag);

    let mut list = KeyList::new();
    list.add(keys, &RULES)?;
    Ok(list)
}

/// Iterates over the points of a telemetry. All have the same tags: those of the run.
///
/// ```
/// use l0_export::metrics;
///
/// # fn main() -> Result<(), l0_core::KeyError> {
/// # let telemetry = l0_core::Telemetry::default();
/// let keys = metrics::tag_keys(["model"])?;
/// for point in metrics::points(&telemetry).tags(&keys) {
///     println!("{} = {} {:?}", point.name, point.value, point.tags);
/// }
/// # Ok(())
/// # }
/// ```
pub fn points(telemetry: &Telemetry) -> Points<'_> {
    Points {
        telemetry,
        metadata: &telemetry.metadata,
        timestamp: telemetry.end_time().unwrap_or(telemetry.start_time),
        tags: Arc::default(),
        numbers: NUMBERS.iter(),
        several: None,
    }
}

/// Calls `visit` with the number of each source that was called, from 1, and with its points. Each
/// number then has the tags of the model that it belongs to: see
/// [`Telemetry::by_source`](l0_core::Telemetry::by_source). A fallback is a point of the source that was
/// abandoned. A run with one source has the points of [`points`].
///
/// [`Points::tags`] picks from the metadata of the run, with the model, provider and operation of the
/// source. Other metadata of the source is available only from
/// [`RunInfo::source`](l0_core::RunInfo::source).
///
/// ```
/// use l0_export::metrics;
///
/// # fn main() -> Result<(), l0_core::KeyError> {
/// # let telemetry = l0_core::Telemetry::default();
/// let keys = metrics::tag_keys(["model"])?;
/// metrics::points_by_source(&telemetry, &mut |_source, points| {
///     for point in points.tags(&keys) {
///         println!("{} = {} {:?}", point.name, point.value, point.tags);
///     }
/// });
/// # Ok(())
/// # }
/// ```
pub fn points_by_source(telemetry: &Telemetry, visit: &mut dyn FnMut(u32, Points<'_>)) {
    let whole = points(telemetry);
    by_source(telemetry, &mut |part, metadata| {
        let points = Points {
            telemetry: part.telemetry,
            metadata,
            ..whole.clone()
        };
        visit(part.source, points);
    });
}

/// The iterator returned by [`points`].
#[derive(Debug, Clone)]
#[must_use = "iterators do nothing unless consumed"]
pub struct Points<'a> {
    telemetry: &'a Telemetry,
    metadata: &'a Metadata,
    timestamp: Timestamp,
    tags: Arc<Tags<'a>>,
    numbers: slice::Iter<'static, Number>,
    /// The remaining values of the last number, if it has several.
    several: Option<(&'static Number, vec::IntoIter<Value>)>,
}

/// One of several values of a number, with the values of its labels.
type Value = (Vec<String>, f64);

impl<'a> Points<'a> {
    /// Tags every point with these metadata entries. Without this call, no metadata is exported.
    /// If the run lacks an entry, its points lack the tag.
    pub fn tags(mut self, keys: &'a KeyList) -> Self {
        Arc::make_mut(&mut self.tags).extend(keys.pick(self.metadata));
        self
    }

    /// Returns the metadata from which the tags are picked.
    #[must_use]
    pub const fn metadata(&self) -> &'a Metadata {
        self.metadata
    }

    fn point(&self, number: &'static Number, value: f64) -> MetricPoint<'a> {
        MetricPoint {
            name: &number.point,
            kind: kind(number.quantity()),
            value,
            timestamp: self.timestamp,
            tags: Arc::clone(&self.tags),
        }
    }
}

fn kind(quantity: &Quantity) -> MetricKind {
    match (quantity.unit, quantity.kind) {
        (Unit::Seconds, _) => MetricKind::Duration,
        (Unit::Each(_) | Unit::Money, QuantityKind::Sum) => MetricKind::Count,
        _ => MetricKind::Rate,
    }
}

impl<'a> Iterator for Points<'a> {
    type Item = MetricPoint<'a>;

    fn next(&mut self) -> Option<MetricPoint<'a>> {
        loop {
            if let Some((number, values)) = &mut self.several {
                let number = *number;
                if let Some((labels, value)) = values.next() {
                    let mut point = self.point(number, value);
                    for (key, label) in number.quantity().labels().iter().zip(labels) {
                        Arc::make_mut(&mut point.tags).insert(key, Cow::Owned(label));
                    }
                    return Some(point);
                }
                self.several = None;
            }
            let number = self.numbers.next()?;
            if let Some(value) = number.value(self.telemetry) {
                return Some(self.point(number, value.as_f64()));
            }
            let values: Vec<_> = match number.counts(self.telemetry) {
                Some(Counts(counts)) => counts
                    .into_iter()
                    .map(|(labels, number)| (labels, number.as_f64()))
                    .collect(),
                None => number
                    .of_attempts(self.telemetry)
                    .into_iter()
                    .map(|value| (Vec::new(), value.as_f64()))
                    .collect(),
            };
            self.several = Some((number, values.into_iter()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use l0_core::{
        Distribution, End, ErrorRecord, Failure, GuardrailStats, Monitor, Monitoring,
        NetworkErrorKind, Outcome, Severity, Usage, Violation,
    };
    use serde_json::json;

    use super::*;

    fn millis(duration: Duration) -> f64 {
        duration.as_nanos() as f64 / 1e6
    }

    /// A telemetry without unknown values.
    fn full() -> Telemetry {
        let mut monitor = Monitor::new(Monitoring::new());
        monitor.start();
        monitor.record_violations(&[
            Violation::new("json-parseable", Severity::Error, "not JSON"),
            Violation::new("meta-commentary", Severity::Warning, "talks about itself"),
        ]);
        monitor.record_drift(&l0_core::DriftReport::new(["tone_shift"], 0.9));
        let recorded = monitor.telemetry().expect("on");
        let mut telemetry = Telemetry::example();
        (telemetry.guardrails, telemetry.drift) = (recorded.guardrails, recorded.drift);
        telemetry.usage = Some(
            Usage::new()
                .input(12)
                .output(160)
                .total(172)
                .cached_input(4)
                .cache_write_input(3)
                .reasoning(100),
        );
        telemetry.wasted_usage = Some(Usage::new().input(12).output(3).total(15));
        telemetry
    }

    fn failed() -> Telemetry {
        let denied = std::io::Error::other(Failure::status(401));
        let mut telemetry = full();
        telemetry.outcome = Some(Outcome::Failed);
        telemetry.error = ErrorRecord::of(&End::failed(&denied));
        telemetry
    }

    fn named(telemetry: &Telemetry) -> Vec<(String, f64)> {
        points(telemetry)
            .map(|point| {
                let own = point.tags.iter().find(|(key, _)| is_own_tag(key));
                let own = own.map_or(String::new(), |(_, tag)| format!("{{{tag}}}"));
                (format!("{}{own}", point.name), point.value)
            })
            .collect()
    }

    #[test]
    fn every_number_of_a_run_is_a_point() {
        let gaps = failed().metrics.inter_token.expect("gaps");
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
            ("l0.inter_token.p90", gap(0.9)),
            ("l0.inter_token.p99", gap(0.99)),
            ("l0.inter_token.max", 11.0),
            ("l0.consumer_hold", 10.0),
            ("l0.wait", 1_490.0),
            ("l0.output_tokens.per_second", 133.574),
            ("l0.tokens.wasted", 1.0),
            ("l0.attempts{failed}", 1.0),
            ("l0.attempts{completed}", 1.0),
            ("l0.attempt_time_to_first_token", 250.0),
            ("l0.attempt_time_to_first_token", 20.0),
            ("l0.fallbacks", 0.0),
            ("l0.usage.input", 24.0),
            ("l0.usage.output", 163.0),
            ("l0.usage.total", 187.0),
            ("l0.usage.cached_input", 4.0),
            ("l0.usage.cache_write_input", 3.0),
            ("l0.usage.reasoning", 100.0),
            ("l0.usage.wasted_input", 12.0),
            ("l0.usage.wasted_output", 3.0),
            ("l0.drift.detected", 1.0),
            ("l0.runs{failed}", 1.0),
            ("l0.failures{401}", 1.0),
            ("l0.network.errors_by_type{connection_dropped}", 1.0),
            ("l0.guardrails.violations_by_severity{warning}", 1.0),
            ("l0.guardrails.violations_by_severity{error}", 1.0),
            ("l0.guardrails.violations_by_severity{fatal}", 0.0),
            ("l0.guardrails.violations_by_rule{json-parseable}", 1.0),
            ("l0.guardrails.violations_by_rule{meta-commentary}", 1.0),
        ]
        .map(|(name, value)| (name.to_owned(), value));
        // In this order. Newer points may be in between.
        let named = named(&failed());
        let mut left = named.iter();
        for point in &expected {
            assert!(left.any(|named| named == point), "{point:?}: {named:?}");
        }
    }

    #[test]
    fn every_known_quantity_has_a_point() {
        let telemetry = failed();
        for quantity in Quantity::ALL {
            let start = format!("l0.{}", quantity.name);
            let of_this = |point: &MetricPoint<'_>| {
                let rest = point.name.strip_prefix(&start);
                rest.is_some_and(|rest| {
                    rest.is_empty() || quantity.kind == QuantityKind::Distribution
                })
            };
            let points: Vec<_> = points(&telemetry).filter(of_this).collect();
            let mut counts = 0;
            quantity.each(&telemetry, &mut |_, _| counts += 1);
            quantity.values(&telemetry, &mut |value| {
                counts += match value {
                    l0_core::Value::Distribution(_) => 5,
                    _ => 1,
                };
            });
            assert_eq!(points.len(), counts, "{quantity:?}");
        }
    }

    #[test]
    fn the_documented_names_are_in_the_list() {
        let docs = include_str!("metrics.rs").lines();
        let docs: String = docs.filter(|line| line.starts_with("//! ")).collect();
        let documented: Vec<_> = docs
            .split('`')
            .filter(|word| word.starts_with("l0.") && word.len() > "l0.".len())
            .collect();
        let listed: Vec<_> = names().collect();
        // Those of the TypeScript library come first.
        assert_eq!(documented[..9], listed[..9]);
        for name in &documented {
            assert!(listed.contains(name), "the docs name `{name}`");
        }

        // Points come in the order of the list.
        let telemetry = failed();
        let mut left = listed.iter();
        let mut last = "";
        for point in points(&telemetry) {
            let known = point.name == last || left.any(|name| *name == point.name);
            assert!(known, "{}", point.name);
            last = point.name;
        }
    }

    #[test]
    fn only_failed_runs_count_as_failures() {
        let failures = |telemetry: &Telemetry| {
            let points = points(telemetry).filter(|point| point.name == "l0.failures");
            let tags = points.map(|point| point.tags["error_type"].clone().into_owned());
            tags.collect::<Vec<_>>()
        };
        assert_eq!(failures(&failed()), ["401"]);
        let mut telemetry = failed();
        for outcome in [Outcome::Aborted, Outcome::Dropped, Outcome::Other] {
            telemetry.outcome = Some(outcome);
            assert_eq!(failures(&telemetry), [] as [&str; 0], "{outcome}");
        }
        assert_eq!(failures(&full()), [] as [&str; 0]);
    }

    #[test]
    fn unknown_values_have_no_point() {
        // Counts that L0 always records.
        let named = named(&Telemetry::default());
        assert!(named.iter().all(|(_, value)| *value == 0.0), "{named:?}");
        let names: Vec<_> = named.iter().map(|(name, _)| &**name).collect();
        for name in [
            "l0.tokens.total",
            "l0.retries.total",
            "l0.retries.network",
            "l0.retries.model",
            "l0.network.errors",
            "l0.tokens.wasted",
            "l0.fallbacks",
        ] {
            assert!(names.contains(&name), "{name}: {names:?}");
        }
        for name in ["l0.duration", "l0.guardrails.violations", "l0.usage.input"] {
            assert!(!names.contains(&name), "{name}: {names:?}");
        }

        let mut telemetry = full();
        telemetry.metrics.tokens_per_second = Some(f64::NAN);
        telemetry.metrics.output_tokens_per_second = Some(f64::INFINITY);
        telemetry.metrics.inter_token = Some(Distribution::new());
        telemetry.guardrails = Some(GuardrailStats::default());
        assert!(points(&telemetry).all(|point| point.value.is_finite()));
        assert!(points(&telemetry).all(|point| !point.name.ends_with("tokens.per_second")));
        assert!(points(&telemetry).all(|point| !point.name.starts_with("l0.inter_token.p")));
        assert!(points(&telemetry).any(|point| point.name == "l0.guardrails.violations"));
    }

    /// A run that fell back twice: the first model failed twice, the second once, and the third answered.
    fn fell_back() -> Telemetry {
        let mut telemetry = failed();
        let [broken, completed] = &mut *telemetry.attempts else {
            panic!("two attempts");
        };
        broken.provider = Some("openai".to_owned());
        (completed.model, completed.source) = (Some("claude".to_owned()), 3);
        let mut again = broken.clone();
        (again.number, again.fallbacks) = (2, 1);
        let mut other = broken.clone();
        (other.number, other.source, other.model) = (3, 2, None);
        other.fallbacks = 1;
        completed.number = 4;
        telemetry.attempts.splice(1..1, [again, other]);
        telemetry
    }

    #[test]
    fn each_source_has_its_own_points() {
        let telemetry = fell_back();
        let keys = tag_keys(["model", "provider", "endpoint"]).expect("valid");
        let mut reported = Vec::new();
        points_by_source(&telemetry, &mut |source, points| {
            for point in points.tags(&keys) {
                assert_eq!(Some(point.timestamp), telemetry.end_time());
                assert_eq!(point.tags["endpoint"], "/chat");
                let [model, provider] = ["model", "provider"].map(|key| {
                    point
                        .tags
                        .get(key)
                        .cloned()
                        .unwrap_or_default()
                        .into_owned()
                });
                let result = point.tags.get("result").cloned().unwrap_or_default();
                reported.push((
                    source,
                    model,
                    provider,
                    format!("{}{result}", point.name),
                    point.value,
                ));
            }
        });
        let of = |name: &str| -> Vec<_> {
            let named = reported
                .iter()
                .filter(|(_, _, _, reported, _)| reported == name);
            named
                .map(|(source, model, provider, _, value)| (*source, &**model, &**provider, *value))
                .collect()
        };
        let (first, second, third) = ((1, "gpt-4", "openai"), (2, "", "openai"), (3, "claude", ""));
        let at = |(source, model, provider), value| (source, model, provider, value);
        assert_eq!(of("l0.attemptsfailed"), [at(first, 2.0), at(second, 1.0)]);
        assert_eq!(of("l0.attemptscompleted"), [at(third, 1.0)]);
        assert_eq!(
            of("l0.tokens.total"),
            [at(first, 2.0), at(second, 1.0), at(third, 149.0)]
        );
        assert_eq!(
            of("l0.attempt_time_to_first_token"),
            [
                at(first, 250.0),
                at(first, 250.0),
                at(second, 250.0),
                at(third, 20.0)
            ]
        );
        assert_eq!(
            of("l0.fallbacks"),
            [at(first, 1.0), at(second, 1.0), at(third, 0.0)]
        );
        assert_eq!(of("l0.duration"), [at(third, 1_500.0)]);
        assert_eq!(of("l0.runs"), [at(third, 1.0)]);

        // With a single source, all points.
        let telemetry = full();
        points_by_source(&telemetry, &mut |source, by_source| {
            assert_eq!(source, 1);
            let (by_source, all) = (by_source.tags(&keys), points(&telemetry).tags(&keys));
            assert!(by_source.eq(all));
        });
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
                ("empty", json!("")),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let keys = [
            "model", "retry", "shard", "user", "nothing", "missing", "empty",
        ];
        let keys = tag_keys(keys).expect("valid");
        for point in points(&telemetry).tags(&keys) {
            let tags = point.tags.iter().map(|(key, text)| (*key, &**text));
            let (own, listed): (Vec<_>, Vec<_>) = tags.partition(|(key, _)| is_own_tag(key));
            let expected = [
                ("model", "gpt-4"),
                ("retry", "true"),
                ("shard", "7"),
                ("user", "{\"id\":12}"),
            ];
            assert_eq!(listed, expected, "{}", point.name);
            match point.name {
                "l0.runs" => assert_eq!(own, [("outcome", "completed")]),
                "l0.network.errors_by_type" => {
                    assert_eq!(own, [("error_type", "connection_dropped")]);
                }
                "l0.tokens.total" => assert!(own.is_empty(), "{own:?}"),
                _ => {}
            }
        }
        for point in points(&telemetry) {
            assert!(point.tags.keys().all(|key| is_own_tag(key)), "{point:?}");
        }
    }

    #[test]
    fn a_reserved_tag_is_rejected() {
        for own in ["outcome", "result", "error_type", "severity", "rule"] {
            let error = tag_keys(["model", own]).unwrap_err();
            assert!(matches!(error, KeyError::Reserved { key, .. } if key == own));
        }
        assert!(tag_keys([""]).is_err());
        // Other adapters may use these keys; points do not.
        tag_keys(["reason", "type", "le", "session_id"]).expect("valid");
    }

    #[test]
    fn the_timestamp_is_the_end_of_the_run_or_else_its_start() {
        let mut telemetry = Telemetry::example();
        let ended = Timestamp::from_millis(1_700_000_001_500);
        assert!(points(&telemetry).all(|point| point.timestamp == ended));
        telemetry.duration = None;
        assert!(points(&telemetry).all(|point| point.timestamp == telemetry.start_time));
    }

    #[test]
    fn points_are_written_as_plain_json() {
        let mut telemetry = Telemetry::example();
        telemetry.outcome = Some(Outcome::Dropped);
        telemetry.network.errors_by_type = [(NetworkErrorKind::Timeout, 3)].into();
        let keys = tag_keys(["model"]).expect("valid");
        let points: Vec<_> = points(&telemetry).tags(&keys).collect();
        let json = serde_json::to_value(&points[points.len() - 2..]).unwrap();
        assert_eq!(
            json,
            json!([
                {
                    "name": "l0.runs", "kind": "count", "value": 1.0,
                    "timestamp": 1_700_000_001_500_u64,
                    "tags": { "model": "gpt-4", "outcome": "dropped" },
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
