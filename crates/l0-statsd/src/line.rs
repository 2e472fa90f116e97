//! Lines: a telemetry as lines of the protocol, one for each of its points.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Write as _;

use l0_core::{KeyList, Metadata, Telemetry};
use l0_export::metrics::{self, MetricKind, Points};

/// The maximum length of a tag, in bytes. Datadog's server cuts tags longer than 200 characters.
const MAX_TAG: usize = 200;

/// Enough for the lines of most runs, in bytes.
const CAPACITY: usize = 4_096;

/// The protocol types for the [kinds](MetricKind) of points.
///
/// | | counts | durations, in ms | rates |
/// |---|---|---|---|
/// | `DogStatsd` | `c`, a counter | `d`, a distribution | `d` |
/// | `Statsd` | `c` | `ms`, a timer | `g`, a gauge |
/// | `Gauges` | `g` | `g` | `g` |
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MetricTypes {
    /// For Datadog's agent and servers that support distributions as it does. Quantiles are computed over all
    /// hosts.
    #[default]
    DogStatsd,
    /// For servers that support only the original `StatsD` types. A rate is that of the last run that ended
    /// before the server flushes.
    Statsd,
    /// For dashboards over the gauges of the TypeScript L0. Each number is that of the last run that ended
    /// before the server flushes; runs are not summed.
    Gauges,
}

/// The format of a run's lines.
#[derive(Debug)]
pub(crate) struct Format {
    /// The prefix, with a dot at the end.
    pub(crate) prefix: String,
    pub(crate) types: MetricTypes,
    /// `None` if the server does not support tags.
    pub(crate) tags: Option<Tags>,
}

/// The tags that all points of a run share. Their keys are valid and differ from the points' own tags.
#[derive(Debug, Default)]
pub(crate) struct Tags {
    pub(crate) constant: BTreeMap<String, String>,
    pub(crate) metadata: KeyList,
}

impl Format {
    /// Returns all lines, separated by newlines. The tags of a source's lines come from its metadata, or else
    /// from the telemetry.
    pub(crate) fn lines<'m>(
        &self,
        telemetry: &Telemetry,
        metadata: impl Fn(u32) -> Option<&'m Metadata>,
    ) -> String {
        let mut lines = String::with_capacity(CAPACITY);
        metrics::points_by_source(telemetry, &mut |source, points| {
            let metadata = metadata(source).unwrap_or(points.metadata());
            self.push_lines(&mut lines, points, metadata);
        });
        lines
    }

    fn push_lines(&self, lines: &mut String, points: Points<'_>, metadata: &Metadata) {
        // Not through `Points::tags`: here values are cleaned once, and not for each point.
        let shared = self.tags.as_ref().map(|tags| tags.shared(metadata));
        for point in points {
            // A sign would make a gauge relative. The numbers of a run are never negative.
            if point.value.is_sign_negative() {
                continue;
            }
            if !lines.is_empty() {
                lines.push('\n');
            }
            let name = point.name.strip_prefix("l0.").unwrap_or(point.name);
            if let Some(shared) = &shared {
                self.push_metric(lines, name, point.kind, point.value);
                let mut tags = Cow::Borrowed(shared);
                for (key, value) in point.tags.iter() {
                    push_tag(tags.to_mut(), key, value);
                }
                if !tags.is_empty() {
                    lines.push_str("|#");
                    lines.push_str(&tags);
                }
            } else {
                let mut name = Cow::Borrowed(name);
                for value in point.tags.values() {
                    push_part(name.to_mut(), value);
                }
                self.push_metric(lines, &name, point.kind, point.value);
            }
        }
    }

    fn push_metric(&self, line: &mut String, name: &str, kind: MetricKind, value: f64) {
        let kind = match (self.types, kind) {
            (MetricTypes::Gauges, _) => "g",
            (_, MetricKind::Count) => "c",
            (MetricTypes::DogStatsd, _) => "d",
            (MetricTypes::Statsd, MetricKind::Duration) => "ms",
            (MetricTypes::Statsd, _) => "g",
        };
        let prefix = &self.prefix;
        // Writing into a `String` does not fail.
        let _ = match kind {
            // Servers read a counter as a signed 64-bit integer. Only money has a fraction.
            "c" if value.fract() == 0.0 => write!(line, "{prefix}{name}:{}|c", value as i64),
            _ => write!(line, "{prefix}{name}:{value}|{kind}"),
        };
    }
}

impl Tags {
    /// Returns the tags as they appear in a line. A metadata entry wins over a constant tag.
    fn shared(&self, metadata: &Metadata) -> String {
        let constant = self.constant.iter();
        let mut tags: BTreeMap<&str, Cow<'_, str>> = constant
            .map(|(key, value)| (key.as_str(), Cow::Borrowed(value.as_str())))
            .collect();
        tags.extend(self.metadata.pick(metadata));
        let mut shared = String::new();
        for (key, value) in &tags {
            push_tag(&mut shared, key, value);
        }
        shared
    }
}

/// Adds a tag, unless its value is empty.
fn push_tag(tags: &mut String, key: &str, value: &str) {
    if value.is_empty() {
        return;
    }
    if !tags.is_empty() {
        tags.push(',');
    }
    let end = tags.len() + MAX_TAG;
    tags.push_str(key);
    tags.push(':');
    push_up_to(end, tags, clean(value));
}

/// Adds a value to a name, after a dot, unless it is empty.
fn push_part(name: &mut String, value: &str) {
    if value.is_empty() {
        return;
    }
    name.push('.');
    // A dot in the value would start one more level.
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let part = value.chars().map(|c| if allowed(c) { c } else { '_' });
    push_up_to(name.len() + MAX_TAG, name, part);
}

fn push_up_to(end: usize, text: &mut String, chars: impl Iterator<Item = char>) {
    for c in chars {
        if text.len() + c.len_utf8() > end {
            break;
        }
        text.push(c);
    }
}

/// Returns a key or value of a tag, with `_` for each character that could end it.
pub(crate) fn clean(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| match c {
        '|' | ':' | ',' | '#' | '@' => '_',
        // Separates the tags of Graphite, which servers build from these.
        ';' => '_',
        // These include all line separators of Unicode.
        c if c.is_whitespace() || c.is_control() => '_',
        c => c,
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use l0_core::{Cost, CostSource, Currency, Money};
    use l0_core::{GuardrailStats, Metrics};
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::builder::TAG_KEYS;
    use crate::packet::datagrams;

    fn format(types: MetricTypes, tags: Option<Tags>) -> Format {
        Format {
            prefix: "l0.".to_owned(),
            types,
            tags,
        }
    }

    fn tags(constant: &[(&str, &str)], metadata: &[&str]) -> Tags {
        let owned = |text: &str| text.to_owned();
        let mut keys = KeyList::new();
        for key in metadata {
            // If two keys have the same name, an adapter uses the first only.
            let _ = keys.add([*key], &TAG_KEYS);
        }
        Tags {
            constant: constant
                .iter()
                .map(|(key, value)| (owned(key), owned(value)))
                .collect(),
            metadata: keys,
        }
    }

    /// Returns a telemetry with a count, durations, a rate, and a point with its own tag.
    fn small() -> Telemetry {
        let mut telemetry = Telemetry::example();
        telemetry.usage = None;
        telemetry.network.errors_by_type.clear();
        telemetry.metrics = Metrics::default();
        telemetry.metrics.total_tokens = 150;
        telemetry.metrics.tokens_per_second = Some(133.574);
        telemetry.metrics.time_to_first_text = Some(Duration::from_micros(7_446));
        telemetry
    }

    fn with_rule(rule: &str) -> Telemetry {
        let mut guardrails = GuardrailStats::default();
        guardrails.violations_by_rule.insert(rule.to_owned(), 1);
        let mut telemetry = Telemetry::example();
        telemetry.guardrails = Some(guardrails);
        telemetry
    }

    /// Returns the line of one point of each kind.
    fn known_lines(lines: &str) -> Vec<&str> {
        let known = [
            "l0.duration:",
            "l0.tokens.total:",
            "l0.tokens.per_second:",
            "l0.time_to_first_text:",
            "l0.runs",
        ];
        lines
            .lines()
            .filter(|line| known.iter().any(|start| line.starts_with(start)))
            .collect()
    }

    #[test]
    fn costs_are_counters_with_decimals_whose_sum_is_within_a_billionth_of_the_exact_one() {
        let mut exact = [Money::ZERO; 2];
        let mut sent = [0.0; 2];
        for number in 0..10_000_u128 {
            let steps = number * 12_345_678_901_234_567 % 400_000_000_000_000_003;
            let mut telemetry = Telemetry::example();
            for (attempt, exact) in telemetry.attempts.iter_mut().zip(&mut exact) {
                let amount = Money::from_steps(steps + u128::from(attempt.number));
                *exact += amount;
                attempt.cost = Some(Cost::new(amount, Currency::EUR, CostSource::Provider));
            }
            telemetry.cost = telemetry.attempts[1].cost;
            let lines = format(MetricTypes::DogStatsd, Some(Tags::default()));
            let lines = lines.lines(&telemetry, |_| None);
            for (wasted, sent) in ["true", "false"].iter().zip(&mut sent) {
                let end = format!("|c|#currency:EUR,wasted:{wasted}");
                let of = lines
                    .lines()
                    .filter_map(|line| line.strip_prefix("l0.cost:"));
                let of: Vec<_> = of.filter_map(|line| line.strip_suffix(&*end)).collect();
                let [value] = &*of else {
                    panic!("{lines}");
                };
                *sent += value.parse::<f64>().expect("a number");
            }
        }
        for (sent, exact) in sent.into_iter().zip(exact) {
            assert!(
                sent > 1_000.0 && (sent - exact.as_f64()).abs() < 1e-9,
                "{sent} {exact}"
            );
        }
    }

    #[test]
    fn points_are_lines_of_each_type_with_and_without_tags() {
        use MetricTypes::{DogStatsd, Gauges, Statsd};

        let all = || Some(tags(&[("env", "prod")], &["model"]));
        let cases = [
            (
                DogStatsd,
                all(),
                [
                    "l0.duration:1500|d|#env:prod,model:gpt-4",
                    "l0.tokens.total:150|c|#env:prod,model:gpt-4",
                    "l0.tokens.per_second:133.574|d|#env:prod,model:gpt-4",
                    "l0.time_to_first_text:7.446|d|#env:prod,model:gpt-4",
                    "l0.runs:1|c|#env:prod,model:gpt-4,outcome:completed",
                ],
            ),
            (
                DogStatsd,
                Some(Tags::default()),
                [
                    "l0.duration:1500|d",
                    "l0.tokens.total:150|c",
                    "l0.tokens.per_second:133.574|d",
                    "l0.time_to_first_text:7.446|d",
                    "l0.runs:1|c|#outcome:completed",
                ],
            ),
            (
                DogStatsd,
                None,
                [
                    "l0.duration:1500|d",
                    "l0.tokens.total:150|c",
                    "l0.tokens.per_second:133.574|d",
                    "l0.time_to_first_text:7.446|d",
                    "l0.runs.completed:1|c",
                ],
            ),
            (
                Statsd,
                all(),
                [
                    "l0.duration:1500|ms|#env:prod,model:gpt-4",
                    "l0.tokens.total:150|c|#env:prod,model:gpt-4",
                    "l0.tokens.per_second:133.574|g|#env:prod,model:gpt-4",
                    "l0.time_to_first_text:7.446|ms|#env:prod,model:gpt-4",
                    "l0.runs:1|c|#env:prod,model:gpt-4,outcome:completed",
                ],
            ),
            (
                Statsd,
                None,
                [
                    "l0.duration:1500|ms",
                    "l0.tokens.total:150|c",
                    "l0.tokens.per_second:133.574|g",
                    "l0.time_to_first_text:7.446|ms",
                    "l0.runs.completed:1|c",
                ],
            ),
            (
                Gauges,
                all(),
                [
                    "l0.duration:1500|g|#env:prod,model:gpt-4",
                    "l0.tokens.total:150|g|#env:prod,model:gpt-4",
                    "l0.tokens.per_second:133.574|g|#env:prod,model:gpt-4",
                    "l0.time_to_first_text:7.446|g|#env:prod,model:gpt-4",
                    "l0.runs:1|g|#env:prod,model:gpt-4,outcome:completed",
                ],
            ),
            (
                Gauges,
                None,
                [
                    "l0.duration:1500|g",
                    "l0.tokens.total:150|g",
                    "l0.tokens.per_second:133.574|g",
                    "l0.time_to_first_text:7.446|g",
                    "l0.runs.completed:1|g",
                ],
            ),
        ];
        for (types, tags, expected) in cases {
            let lines = format(types, tags).lines(&small(), |_| None);
            assert_eq!(known_lines(&lines), expected, "{types:?}");
        }
    }

    #[test]
    fn the_prefix_stands_in_place_of_l0() {
        let mut format = format(MetricTypes::DogStatsd, None);
        format.prefix = "shop.llm.".to_owned();
        let lines = format.lines(&small(), |_| None);
        assert!(lines.starts_with("shop.llm.duration:1500|d\n"), "{lines}");
        assert!(lines.lines().all(|line| line.starts_with("shop.llm.")));
    }

    #[test]
    fn metadata_wins_over_constant_tags_and_an_entry_without_text_adds_no_tag() {
        let cases = [
            (json!("eu"), "|#env:eu,host:a"),
            (json!(3), "|#env:3,host:a"),
            (json!(true), "|#env:true,host:a"),
            (json!(["x", 1]), "|#env:[\"x\"_1],host:a"),
            (json!(""), "|#env:prod,host:a"),
            (json!(null), "|#env:prod,host:a"),
        ];
        let constant = [("env", "prod"), ("host", "a"), ("empty", "")];
        let format = format(
            MetricTypes::DogStatsd,
            Some(tags(&constant, &["env", "absent"])),
        );
        for (value, expected) in cases {
            let mut telemetry = small();
            telemetry.metadata = [("env".to_owned(), value)].into();
            let lines = format.lines(&telemetry, |_| None);
            assert_eq!(
                lines.lines().next(),
                Some(&*format!("l0.duration:1500|d{expected}"))
            );
        }
    }

    const HOSTILE: [(&str, &str); 9] = [
        ("a|b:c,d#e@f;g", "a_b_c_d_e_f_g"),
        ("gpt 4\tturbo", "gpt_4_turbo"),
        ("x\nl0.runs:999|c", "x_l0.runs_999_c"),
        ("a\r\nb\0c\u{7f}d", "a__b_c_d"),
        ("a\u{85}b\u{2028}c\u{2029}d\u{a0}e", "a_b_c_d_e"),
        ("https://u:p@h/x?y=1", "https_//u_p_h/x?y=1"),
        ("|", "_"),
        ("größe", "größe"),
        ("🦀", "🦀"),
    ];

    #[test]
    fn a_value_cannot_end_its_tag() {
        let format = format(MetricTypes::DogStatsd, Some(tags(&[], &["model"])));
        for (value, expected) in HOSTILE {
            let mut telemetry = with_rule(value);
            telemetry.metadata = [("model", value)].into();
            let lines = format.lines(&telemetry, |_| None);
            let mut lines = lines.lines();
            assert_eq!(
                lines.next(),
                Some(&*format!("l0.duration:1500|d|#model:{expected}"))
            );
            assert_eq!(
                lines.last(),
                Some(&*format!(
                    "l0.guardrails.violations_by_rule:1|c|#model:{expected},rule:{expected}"
                ))
            );
        }
    }

    #[test]
    fn a_value_becomes_one_part_of_a_name() {
        let format = format(MetricTypes::Statsd, None);
        for (rule, expected) in [
            ("json-parseable", ".json-parseable"),
            ("a.b/c d", ".a_b_c_d"),
            ("x\nl0.runs:999|c", ".x_l0_runs_999_c"),
            ("größe", ".gr__e"),
            ("", ""),
        ] {
            let lines = format.lines(&with_rule(rule), |_| None);
            assert_eq!(
                lines.lines().last(),
                Some(&*format!("l0.guardrails.violations_by_rule{expected}:1|c"))
            );
        }
    }

    #[test]
    fn a_tag_is_cut_between_characters() {
        let format = format(MetricTypes::DogStatsd, Some(tags(&[], &["k"])));
        for (value, kept) in [
            ("a".repeat(198), 198),
            ("a".repeat(199), 198),
            ("ä".repeat(99), 198),
            ("ä".repeat(100), 198),
            (format!("a{}", "ä".repeat(99)), 197),
            ("🦀".repeat(50), 196),
        ] {
            let mut telemetry = small();
            telemetry.metadata = [("k".to_owned(), Value::from(&*value))].into();
            let lines = format.lines(&telemetry, |_| None);
            let (_, tag) = lines.lines().next().unwrap().split_once("|#k:").unwrap();
            assert_eq!(tag, &value[..kept]);
        }
    }

    #[test]
    fn a_number_has_no_sign_and_no_exponent() {
        let mut telemetry = small();
        telemetry.metrics.total_tokens = u64::MAX;
        for (rate, expected) in [
            (Some(1e21), Some("1000000000000000000000")),
            (Some(1e-7), Some("0.0000001")),
            (Some(0.0), Some("0")),
            (Some(-0.0), None),
            (Some(-1.5), None),
            (Some(f64::NAN), None),
            (None, None),
        ] {
            telemetry.metrics.tokens_per_second = rate;
            let lines = format(MetricTypes::Statsd, None).lines(&telemetry, |_| None);
            let line = lines.lines().find(|line| line.contains("per_second"));
            let expected = expected.map(|value| format!("l0.tokens.per_second:{value}|g"));
            assert_eq!(line, expected.as_deref());
            let total = format!("l0.tokens.total:{}|c", i64::MAX);
            assert!(lines.lines().any(|line| line == total), "{lines}");
        }
    }

    /// Checks the strict grammar: `name:value|type`, then `|#key:value,...` if there are tags.
    fn assert_line(line: &str, tagged: bool) {
        let (name, rest) = line.split_once(':').expect("a name");
        let allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        assert!(!name.is_empty() && name.chars().all(allowed), "{line:?}");
        let (metric, tags) = match rest.split_once("|#") {
            Some((metric, tags)) => (metric, Some(tags)),
            None => (rest, None),
        };
        let (value, kind) = metric.split_once('|').expect("a type");
        let (whole, fraction) = value.split_once('.').unwrap_or((value, "0"));
        for digits in [whole, fraction] {
            assert!(!digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit()));
        }
        assert!(["c", "d", "g", "ms"].contains(&kind), "{line:?}");
        assert!(tagged || tags.is_none(), "{line:?}");
        for tag in tags.into_iter().flat_map(|tags| tags.split(',')) {
            assert!(tag.len() <= MAX_TAG, "{line:?}");
            let (key, value) = tag.split_once(':').expect("a value");
            assert!(!key.is_empty() && !value.is_empty(), "{line:?}");
            let ends = |c: char| "|:,#@;".contains(c) || c.is_whitespace() || c.is_control();
            assert!(!key.contains(ends) && !value.contains(ends), "{line:?}");
        }
    }

    /// Generates any text, often with characters that have a meaning in the protocol.
    fn text() -> impl Strategy<Value = String> {
        let char = prop_oneof![
            any::<char>(),
            prop::sample::select(vec![
                '|', ':', ',', '#', '@', ';', '\n', '\r', ' ', '\u{2028}'
            ]),
        ];
        prop::collection::vec(char, 0..300).prop_map(String::from_iter)
    }

    fn types() -> impl Strategy<Value = MetricTypes> {
        prop::sample::select(vec![
            MetricTypes::DogStatsd,
            MetricTypes::Statsd,
            MetricTypes::Gauges,
        ])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_text_makes_or_breaks_a_line(
            metadata in prop::collection::btree_map(text(), text(), 0..4),
            constant in text(),
            rule in text(),
            types in types(),
            tagged in any::<bool>(),
            limit in prop::sample::select(vec![1_432, 8_192]),
        ) {
            let mut telemetry = with_rule(&rule);
            telemetry.metadata = metadata
                .iter()
                .map(|(key, value)| (key.clone(), Value::from(value.as_str())))
                .collect();
            let keys: Vec<_> = metadata.keys().map(String::as_str).collect();
            let tags = tagged.then(|| tags(&[("constant", &constant)], &keys));
            let lines = format(types, tags).lines(&telemetry, |_| None);

            let points: Vec<_> = metrics::points(&telemetry).collect();
            let mut seen = 0;
            for datagram in datagrams(&lines, limit) {
                prop_assert!(datagram.len() <= limit);
                for line in datagram.split('\n') {
                    assert_line(line, tagged);
                    prop_assert!(line.starts_with(points[seen].name), "{line:?}");
                    seen += 1;
                }
            }
            prop_assert_eq!(seen, points.len());
        }
    }
}
