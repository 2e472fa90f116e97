//! Filter: the selection of runs.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use l0_core::{Outcome, Quantity, QuantityKind, Telemetry, Timestamp, Unit, Value, keys};

use crate::text::{likely, timestamp};

/// A selection of runs: those that match all conditions. By default, all runs.
///
/// ```
/// use l0_core::Telemetry;
/// use l0_report::Filter;
///
/// # fn main() -> Result<(), l0_report::FilterError> {
/// let slow = Filter::new()
///     .and("model=gpt-4".parse()?)
///     .and("duration>1.2s".parse()?);
/// assert!(slow.matches(&Telemetry::example()));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, Default)]
pub struct Filter {
    conditions: Vec<Condition>,
}

impl Filter {
    /// Creates a filter that matches all runs.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            conditions: Vec::new(),
        }
    }

    /// Adds a condition. Runs must match all conditions.
    #[must_use]
    pub fn and(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Returns `true` if the filter has no conditions, and so matches all runs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conditions.is_empty()
    }

    /// Returns `true` if this run matches all conditions.
    #[must_use]
    pub fn matches(&self, run: &Telemetry) -> bool {
        self.conditions.iter().all(|condition| condition.holds(run))
    }
}

impl FromIterator<Condition> for Filter {
    fn from_iter<I: IntoIterator<Item = Condition>>(conditions: I) -> Self {
        Self {
            conditions: conditions.into_iter().collect(),
        }
    }
}

impl<const N: usize> From<[Condition; N]> for Filter {
    fn from(conditions: [Condition; N]) -> Self {
        conditions.into_iter().collect()
    }
}

/// One condition: a field, a comparison and a value, such as `outcome=failed`, `tenant!=acme` or
/// `time_to_first_token > 500ms`.
///
/// The field is one of these:
///
/// | field | comparisons | value |
/// |---|---|---|
/// | `outcome` | `=` `!=` | `completed`, `failed`, ...: see [`Outcome`] |
/// | `error_type`, `finish_reason`, `session_id`, `parent_id` | `=` `!=` | a text |
/// | `started_at` | all | a time: `2026-03-01`, `2026-03-01T12:30:00Z`, `2026-03-01T14:30:00+02:00` |
/// | a name of [`Quantity::ALL`], such as `duration` | all | a number; for times with a unit: `500ms`, `1.5s`, `2m` |
/// | `metadata.KEY` | all | a text; after `<` and `>`, a number |
/// | any other, such as `tenant` | `=` `!=` | a text: the value of this metadata entry |
///
/// Comparisons are `=`, `!=`, `<`, `<=`, `>` and `>=`. If a run has several values of a field, such as
/// gaps between tokens, or the models of its attempts, it matches if one of them does. Unknown values match
/// no comparison except `!=`, which is the negation of `=`. Quantities with a label are compared by their sum.
/// Money is compared in each of its currencies, or in the given one: `cost>0.05EUR`.
#[derive(Debug, Clone)]
pub struct Condition {
    field: Field,
    comparison: Comparison,
    operand: Operand,
}

#[derive(Debug, Clone)]
enum Field {
    Text(TextField),
    StartedAt,
    Quantity(&'static Quantity),
    Metadata(String),
}

#[derive(Debug, Clone, Copy)]
enum TextField {
    Outcome,
    ErrorType,
    FinishReason,
    SessionId,
    ParentId,
}

/// The fields that are not numbers, by name.
const TEXT_FIELDS: [(&str, TextField); 5] = [
    ("outcome", TextField::Outcome),
    ("error_type", TextField::ErrorType),
    ("finish_reason", TextField::FinishReason),
    ("session_id", TextField::SessionId),
    ("parent_id", TextField::ParentId),
];
const STARTED_AT: &str = "started_at";
const TIME: &str = "a date or an RFC 3339 time, such as `2026-03-01`";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// The longer one of two operators with the same start comes first.
const COMPARISONS: [(&str, Comparison); 6] = [
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];

impl Comparison {
    const fn is_of_order(self) -> bool {
        !matches!(self, Self::Equal | Self::NotEqual)
    }

    /// Returns `true` if the comparison accepts this ordering. `!=` is treated as `=`; the caller negates it.
    const fn takes(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal | Self::NotEqual => ordering.is_eq(),
            Self::Less => ordering.is_lt(),
            Self::AtMost => ordering.is_le(),
            Self::Greater => ordering.is_gt(),
            Self::AtLeast => ordering.is_ge(),
        }
    }
}

#[derive(Debug, Clone)]
enum Operand {
    Text(String),
    Number(f64),
    Money(f64, Option<String>),
    Time(Timestamp),
}

/// An error while parsing a [`Condition`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FilterError {
    /// The text has no comparison, or no field before it.
    #[error("`{condition}` is not a condition: write `outcome=failed` or `duration>10s`")]
    #[non_exhaustive]
    NoComparison {
        /// The whole text.
        condition: String,
    },
    /// The field cannot be ordered.
    #[error(
        "`{field}` cannot be ordered: use `=` or `!=`, a quantity such as `duration`, or \
         `metadata.{field}`{}",
        likely(field)
    )]
    #[non_exhaustive]
    NoOrder {
        /// The field.
        field: String,
    },
    /// The value is not valid for the field.
    #[error("invalid value `{value}` for `{field}`: expected {expected}")]
    #[non_exhaustive]
    Value {
        /// The field.
        field: String,
        /// The invalid value.
        value: String,
        /// The valid values.
        expected: String,
    },
}

impl Condition {
    /// Creates the condition that a run started at this time or later.
    #[must_use]
    pub const fn since(time: Timestamp) -> Self {
        Self {
            field: Field::StartedAt,
            comparison: Comparison::AtLeast,
            operand: Operand::Time(time),
        }
    }

    /// Creates the condition that a run started before this time.
    #[must_use]
    pub const fn until(time: Timestamp) -> Self {
        Self {
            field: Field::StartedAt,
            comparison: Comparison::Less,
            operand: Operand::Time(time),
        }
    }

    /// Returns `true` if this run matches the condition.
    #[must_use]
    pub fn holds(&self, run: &Telemetry) -> bool {
        let any = match &self.field {
            Field::Text(field) => field.read(run).is_some_and(|text| self.takes_text(&text)),
            Field::StartedAt => self.takes_time(run.start_time),
            Field::Quantity(quantity) => self.any_number(quantity, run),
            Field::Metadata(key) => self.any_entry(key, run),
        };
        any != (self.comparison == Comparison::NotEqual)
    }

    fn takes_text(&self, text: &str) -> bool {
        match &self.operand {
            Operand::Text(operand) => self.comparison.takes(text.cmp(operand)),
            Operand::Number(_) => text.parse().is_ok_and(|number| self.takes_number(number)),
            Operand::Money(..) | Operand::Time(_) => false,
        }
    }

    fn takes_number(&self, number: f64) -> bool {
        let (Operand::Number(operand) | Operand::Money(operand, _)) = &self.operand else {
            return false;
        };
        let ordering = number.partial_cmp(operand);
        ordering.is_some_and(|ordering| self.comparison.takes(ordering))
    }

    fn takes_time(&self, time: Timestamp) -> bool {
        // The default time stands for an unknown start.
        let is_known = time != Timestamp::default();
        matches!(&self.operand, Operand::Time(operand) if self.comparison.takes(time.cmp(operand)))
            && is_known
    }

    fn any_number(&self, quantity: &Quantity, run: &Telemetry) -> bool {
        if quantity.is_labeled() {
            return self.any_sum(quantity, run);
        }
        let mut any = false;
        quantity.values(run, &mut |value| {
            any |= match value {
                Value::Distribution(all) => {
                    let mut buckets = all.buckets();
                    buckets
                        .any(|bucket| self.takes_number(bucket.upper.min(all.max()).as_secs_f64()))
                }
                value => self.takes_number(value.as_f64()),
            };
        });
        any
    }

    /// Compares a quantity with labels: counts by their sum, money by currency.
    fn any_sum(&self, quantity: &Quantity, run: &Telemetry) -> bool {
        let mut sums: Vec<(String, f64)> = Vec::new();
        let known = quantity.each(run, &mut |labels, value| {
            let of = match (quantity.unit, labels) {
                (Unit::Money, [currency, ..]) => currency,
                _ => "",
            };
            match sums.iter_mut().find(|(known, _)| known == of) {
                Some((_, sum)) => *sum += value.as_f64(),
                None => sums.push((of.to_owned(), value.as_f64())),
            }
        });
        match &self.operand {
            Operand::Money(_, currency) => sums.iter().any(|(of, sum)| {
                currency.as_ref().is_none_or(|currency| currency == of) && self.takes_number(*sum)
            }),
            _ => {
                let sum = sums.first().map_or(0.0, |(_, sum)| *sum);
                known && self.takes_number(sum)
            }
        }
    }

    /// Returns `true` if the run's metadata entry matches, or that of one of its sources.
    fn any_entry(&self, key: &str, run: &Telemetry) -> bool {
        let of_run = keys::text(&run.metadata, key);
        if of_run.is_some_and(|text| self.takes_text(&text)) {
            return true;
        }
        run.attempts.iter().any(|attempt| {
            let text = match key {
                keys::MODEL => &attempt.model,
                keys::PROVIDER => &attempt.provider,
                keys::OPERATION => &attempt.operation,
                _ => &None,
            };
            text.as_ref().is_some_and(|text| self.takes_text(text))
        })
    }
}

impl TextField {
    fn read(self, run: &Telemetry) -> Option<Cow<'_, str>> {
        let text = match self {
            Self::Outcome => run.outcome?.as_str(),
            Self::ErrorType => &run.error.as_ref()?.error_type,
            Self::FinishReason => run.finish_reason?.as_str(),
            Self::SessionId => &run.session_id,
            Self::ParentId => run.parent_id.as_deref()?,
        };
        Some(text.into())
    }
}

impl FromStr for Condition {
    type Err = FilterError;

    fn from_str(text: &str) -> Result<Self, FilterError> {
        let no_comparison = || FilterError::NoComparison {
            condition: text.to_owned(),
        };
        let place = text.find(['=', '!', '<', '>']).ok_or_else(no_comparison)?;
        let (field, rest) = text.split_at(place);
        let mut known = COMPARISONS.iter();
        let (comparison, value) = known
            .find_map(|(sign, comparison)| Some((*comparison, rest.strip_prefix(sign)?)))
            .ok_or_else(no_comparison)?;
        let (name, value) = (field.trim(), value.trim());
        if name.is_empty() || value.starts_with('=') {
            return Err(no_comparison());
        }
        let field = Field::named(name);
        let operand = field.operand(name, comparison, value)?;
        Ok(Self {
            field,
            comparison,
            operand,
        })
    }
}

impl Field {
    fn named(name: &str) -> Self {
        if let Some((_, field)) = TEXT_FIELDS.iter().find(|(known, _)| *known == name) {
            return Self::Text(*field);
        }
        if name == STARTED_AT {
            return Self::StartedAt;
        }
        if let Some(key) = name.strip_prefix("metadata.") {
            return Self::Metadata(key.to_owned());
        }
        let quantity = Quantity::ALL.iter().find(|quantity| quantity.name == name);
        match quantity {
            Some(quantity) => Self::Quantity(quantity),
            None => Self::Metadata(name.to_owned()),
        }
    }

    /// Parses the value to compare with.
    fn operand(
        &self,
        name: &str,
        comparison: Comparison,
        value: &str,
    ) -> Result<Operand, FilterError> {
        let wrong = |expected: &dyn fmt::Display| FilterError::Value {
            field: name.to_owned(),
            value: value.to_owned(),
            expected: expected.to_string(),
        };
        let text = || Operand::Text(value.to_owned());
        match self {
            Self::StartedAt => parse_time(value).map(Operand::Time),
            Self::Quantity(quantity) => {
                let is_many = quantity.kind == QuantityKind::Distribution;
                let is_many = is_many && !comparison.is_of_order();
                let (operand, expected) = match quantity.unit {
                    _ if is_many => (
                        None,
                        "`<` or `>` instead of `=`, because a run has many values",
                    ),
                    Unit::Seconds => (
                        seconds(value).map(Operand::Number),
                        "a time and its unit, such as `500ms`, `1.5s` or `2m`",
                    ),
                    Unit::Money => (money(value), "an amount, such as `0.05` or `0.05USD`"),
                    _ => (plain(value).map(Operand::Number), "a number"),
                };
                operand.ok_or_else(|| wrong(&expected))
            }
            Self::Text(TextField::Outcome) if !comparison.is_of_order() => {
                let mut known = Outcome::ALL.iter().chain([&Outcome::Other]);
                if known.any(|outcome| outcome.as_str() == value) {
                    return Ok(text());
                }
                let known: Vec<_> = Outcome::ALL
                    .iter()
                    .map(|outcome| outcome.as_str())
                    .collect();
                Err(wrong(&format_args!("one of {}", known.join(", "))))
            }
            Self::Metadata(_) if comparison.is_of_order() && name.starts_with("metadata.") => {
                let number = plain(value).map(Operand::Number);
                number.ok_or_else(|| wrong(&"a number"))
            }
            Self::Text(_) | Self::Metadata(_) if comparison.is_of_order() => {
                Err(FilterError::NoOrder {
                    field: name.to_owned(),
                })
            }
            Self::Text(_) | Self::Metadata(_) => Ok(text()),
        }
    }
}

fn plain(value: &str) -> Option<f64> {
    value.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Parses a time with its unit.
fn seconds(value: &str) -> Option<f64> {
    const UNITS: [(&str, f64); 7] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3_600.0),
        ("d", 86_400.0),
    ];

    let unit = value.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = value.split_at(unit);
    let (_, seconds) = UNITS.iter().find(|(known, _)| *known == unit)?;
    Some(plain(number.trim())? * seconds)
}

/// Parses an amount, with an optional currency.
fn money(value: &str) -> Option<Operand> {
    // From the end, because a number can contain a letter, as `1e-3` does.
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let currency = &value[number.len()..];
    let number = plain(number.trim())?;
    let currency = match currency.len() {
        0 => None,
        3 => Some(currency.to_ascii_uppercase()),
        _ => return None,
    };
    Some(Operand::Money(number, currency))
}

/// Parses a time like [`Condition`] does after `started_at`: an RFC 3339 time, or a date, which means its
/// midnight in UTC.
///
/// # Errors
///
/// Returns [`FilterError::Value`] for anything else.
pub fn parse_time(text: &str) -> Result<Timestamp, FilterError> {
    timestamp(text).ok_or_else(|| FilterError::Value {
        field: STARTED_AT.to_owned(),
        value: text.to_owned(),
        expected: TIME.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use l0_core::{Cause, Cost, CostSource, Currency, Distribution, End, ErrorRecord, Money};

    use super::*;

    fn condition(text: &str) -> Condition {
        text.parse().unwrap_or_else(|error| panic!("{error}"))
    }

    /// A failed run of two models, with the unknown values of [`Telemetry::default`].
    fn failed() -> Telemetry {
        let mut run = Telemetry::example();
        let end = End::of(Cause::ZeroOutput);
        run.outcome = Some(end.outcome());
        run.error = ErrorRecord::of(&end);
        run.finish_reason = None;
        run.metadata.insert("tenant".to_owned(), "acme".into());
        run.metadata.insert("turn".to_owned(), 7.into());
        run.metadata.insert("outcome".to_owned(), "mine".into());
        run.metadata.insert("model".to_owned(), "gpt-4".into());
        run.attempts[0].model = Some("gpt-4".to_owned());
        run.attempts[1].model = Some("claude".to_owned());
        let cost = |cents| {
            Some(Cost::new(
                Money::cents(cents),
                Currency::USD,
                CostSource::PriceList,
            ))
        };
        run.cost = cost(3);
        run.attempts[0].cost = cost(2);
        run.attempts[1].cost = cost(3);
        let mut gaps = Distribution::new();
        gaps.record(Duration::from_millis(5));
        gaps.record(Duration::from_secs(6));
        run.metrics.inter_token = Some(gaps);
        run
    }

    #[test]
    fn conditions_match_as_documented() {
        let run = failed();
        for (text, holds) in [
            ("outcome=failed", true),
            ("outcome = failed", true),
            ("outcome!=failed", false),
            ("outcome=completed", false),
            ("error_type=zero_output", true),
            ("finish_reason=stop", false),
            ("finish_reason!=stop", true),
            ("parent_id=x", false),
            ("tenant=acme", true),
            ("tenant!=acme", false),
            ("region=eu", false),
            ("region!=eu", true),
            ("metadata.outcome=mine", true),
            ("metadata.turn>6", true),
            ("metadata.turn>7", false),
            ("metadata.tenant>6", false),
            ("turn=7", true),
            ("model=gpt-4", true),
            ("model=claude", true),
            ("model!=claude", false),
            ("model=gemini", false),
            ("duration>1.4s", true),
            ("duration > 1500ms", false),
            ("duration>=1500ms", true),
            ("duration=1.5s", true),
            ("duration!=1.5s", false),
            ("duration<0.1m", true),
            ("duration<=1h", true),
            ("time_to_first_token>500ms", false),
            ("time_to_first_token<=250ms", true),
            ("tokens.total>=150", true),
            ("tokens.per_second<100", false),
            ("retries.total=1", true),
            ("guardrails.violations>=0", false),
            ("guardrails.violations!=0", true),
            ("inter_token>5s", true),
            ("inter_token>7s", false),
            ("inter_token<10ms", true),
            ("network.errors_by_type>0", true),
            ("cost>0.04", true),
            ("cost>0.05", false),
            ("cost>=0.05 usd", true),
            ("cost>0.01EUR", false),
            ("cost>1e-9", true),
            ("cost>1e-9usd", true),
            ("cost>1e-9EUR", false),
            ("started_at>=2023-11-14", true),
            ("started_at>2023-11-15", false),
            ("started_at<2023-11-14T22:13:21Z", true),
            ("started_at<2023-11-15T00:13:21+02:00", true),
        ] {
            assert_eq!(condition(text).holds(&run), holds, "{text}");
        }
    }

    #[test]
    fn unknown_values_match_only_not_equal() {
        let unknown = Telemetry::default();
        for text in [
            "outcome=failed",
            "error_type=x",
            "duration>=0s",
            "duration<1h",
            "cost>=0",
            "inter_token>=0s",
            "model=x",
            "metadata.turn<9",
            "started_at<2100-01-01",
        ] {
            assert!(!condition(text).holds(&unknown), "{text}");
        }
        for text in ["outcome!=failed", "model!=x", "duration!=1s"] {
            assert!(condition(text).holds(&unknown), "{text}");
        }
    }

    #[test]
    fn a_filter_requires_all_conditions() {
        let run = failed();
        let filter = Filter::from([condition("outcome=failed"), condition("tenant=acme")]);
        assert!(filter.matches(&run));
        assert!(!filter.and(condition("model=gemini")).matches(&run));
        assert!(Filter::new().matches(&run));
        let time = |text| parse_time(text).unwrap_or_else(|error| panic!("{error}"));
        let start = time("2023-11-14T22:13:20Z");
        assert_eq!(start, run.start_time);
        assert!(Condition::since(start).holds(&run));
        assert!(!Condition::until(start).holds(&run));
    }

    #[test]
    fn an_invalid_condition_is_an_error_with_its_reason() {
        for (text, message) in [
            ("", "`` is not a condition"),
            ("failed", "`failed` is not a condition"),
            ("=failed", "is not a condition"),
            ("outcome==failed", "is not a condition"),
            ("outcome!failed", "is not a condition"),
            (
                "outcome=faild",
                "for `outcome`: expected one of completed, ",
            ),
            ("outcome>failed", "`outcome` cannot be ordered"),
            ("tenant<acme", "or `metadata.tenant`"),
            ("durations>1s", "`durations` cannot be ordered"),
            ("retries>1", "did you mean `retries.total`?"),
            ("duration>10", "a time and its unit"),
            ("duration>1w", "a time and its unit"),
            ("duration>s", "a time and its unit"),
            ("duration>", "a time and its unit"),
            ("inter_token=1s", "because a run has many values"),
            (
                "tokens.total>many",
                "`many` for `tokens.total`: expected a number",
            ),
            ("tokens.total>inf", "a number"),
            ("cost>0.05 dollars", "an amount"),
            ("cost>USD", "an amount"),
            ("metadata.turn>x", "a number"),
            ("started_at>yesterday", "a date or an RFC 3339 time"),
            ("started_at>2026-13-01", "a date or an RFC 3339 time"),
            (
                "started_at>2026-01-01T10:00:00",
                "a date or an RFC 3339 time",
            ),
        ] {
            let error = text.parse::<Condition>().expect_err(text);
            assert!(error.to_string().contains(message), "{text}: {error}");
        }
    }
}
