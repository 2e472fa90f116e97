//! Statistics of a quantity, and the thresholds that fail a comparison.

use std::fmt;
use std::str::FromStr;

use l0_core::{Outcome, Quantity, QuantityKind, Unit};

use crate::text::likely;

/// A number computed from many runs, such as `p95(time_to_first_token)`, `mean(cost)` or
/// `share(outcome=failed)`.
///
/// | syntax | meaning |
/// |---|---|
/// | `mean(QUANTITY)` | the mean of the runs that have it; for a sum, such as `tokens.total`, the amount per run |
/// | `p50(QUANTITY)`, `p95`, `p99.9` | a quantile |
/// | `share(QUANTITY)` | the share of runs with more than zero: `share(failures)`, `share(retries.total)` |
/// | `share(outcome=LABEL)` | the share of runs with this outcome: see [`Outcome`] |
/// | `share(error_type=LABEL)` | the share of runs that failed with this error type |
/// | `mean(cost=EUR)` | of money, in one currency |
///
/// Quantities have the names of [`Quantity::ALL`]. `duration`, `wait`, `consumer_hold` and
/// `tokens.per_second` include only completed runs: a run that fails at once is not a fast one. For
/// `inter_token` and `attempt_time_to_first_token`, which have many values per run, the values of all runs are
/// combined.
#[derive(Debug, Clone, PartialEq)]
pub struct Statistic {
    pub(crate) kind: Kind,
    pub(crate) of: Of,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Kind {
    Mean,
    /// Between 0 and 1.
    Quantile(f64),
    Share,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Of {
    /// A quantity, by its index in the list.
    Quantity(usize),
    /// Money, in this currency.
    Money(usize, String),
    Outcome(Outcome),
    ErrorType(String),
}

/// The names that are not quantities.
const OUTCOME: &str = "outcome";
const ERROR_TYPE: &str = "error_type";
pub(crate) const FAILURES: &str = "failures";

/// Quantities for which less is better.
const LOWER_IS_BETTER: [&str; 21] = [
    "duration",
    "time_to_first_token",
    "time_to_first_text",
    "inter_token",
    "attempt_time_to_first_token",
    "wait",
    "retries.total",
    "retries.network",
    "retries.model",
    "network.errors",
    "guardrails.violations",
    "tokens.wasted",
    "fallbacks",
    "usage.wasted_input",
    "usage.wasted_output",
    "cost",
    "estimated_cost",
    "unpriced_runs",
    "drift.detected",
    FAILURES,
    "attempts",
];
/// Quantities for which more is better.
const HIGHER_IS_BETTER: [&str; 2] = ["tokens.per_second", "output_tokens.per_second"];
/// Quantities that are meaningful only for completed runs.
const OF_COMPLETED: [&str; 4] = ["duration", "wait", "consumer_hold", "tokens.per_second"];

/// The better direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    Lower,
    Higher,
    Neither,
}

/// Returns `true` if only completed runs count for a quantity.
pub(crate) fn is_of_completed(quantity: &Quantity) -> bool {
    OF_COMPLETED.contains(&quantity.name)
}

pub(crate) fn place_of(name: &str) -> Option<usize> {
    Quantity::ALL
        .iter()
        .position(|quantity| quantity.name == name)
}

impl Statistic {
    /// Returns the quantity. `None` for outcomes and error types.
    pub(crate) fn quantity(&self) -> Option<&'static Quantity> {
        match self.of {
            Of::Quantity(place) | Of::Money(place, _) => Some(&Quantity::ALL[place]),
            Of::Outcome(_) | Of::ErrorType(_) => None,
        }
    }

    pub(crate) fn better(&self) -> Better {
        match (&self.of, self.quantity()) {
            (Of::Outcome(Outcome::Completed), _) => Better::Higher,
            (Of::Outcome(_) | Of::ErrorType(_), _) => Better::Lower,
            (_, Some(quantity)) if LOWER_IS_BETTER.contains(&quantity.name) => Better::Lower,
            (_, Some(quantity)) if HIGHER_IS_BETTER.contains(&quantity.name) => Better::Higher,
            _ => Better::Neither,
        }
    }

    /// Returns this statistic in the currency of its money, if there is only one.
    pub(crate) fn in_only_currency(&self, currencies: &[(usize, String)]) -> Self {
        let mut statistic = self.clone();
        if let Of::Quantity(place) = self.of {
            let mut of = currencies.iter().filter(|(known, _)| *known == place);
            if let (Some((_, currency)), None) = (of.next(), of.next()) {
                statistic.of = Of::Money(place, currency.clone());
            }
        }
        statistic
    }

    /// Returns the unit of its numbers.
    pub(crate) fn measure(&self) -> Measure<'_> {
        let unit = self.quantity().map(|quantity| quantity.unit);
        match (self.kind, unit) {
            (Kind::Share, _) | (_, None) => Measure::Share,
            (_, Some(Unit::Seconds)) => Measure::Millis,
            (_, Some(Unit::PerSecond(_))) => Measure::PerSecond,
            (_, Some(Unit::Money)) => match &self.of {
                Of::Money(_, currency) => Measure::Money(currency),
                _ => Measure::Money(""),
            },
            (_, Some(_)) => Measure::Number,
        }
    }
}

/// The unit of the numbers of a statistic.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Measure<'a> {
    Number,
    Millis,
    PerSecond,
    Share,
    /// Money in this currency, which may be unknown.
    Money(&'a str),
}

impl fmt::Display for Statistic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            Kind::Mean => f.write_str("mean")?,
            // Multiplying and dividing a fraction would leave one digit too many.
            Kind::Quantile(q) => write!(f, "p{}", (q * 1e8).round() / 1e6)?,
            Kind::Share => f.write_str("share")?,
        }
        match &self.of {
            Of::Quantity(place) => write!(f, "({})", Quantity::ALL[*place].name),
            Of::Money(place, currency) => {
                write!(f, "({}={currency})", Quantity::ALL[*place].name)
            }
            Of::Outcome(outcome) => write!(f, "({OUTCOME}={})", outcome.as_str()),
            Of::ErrorType(label) => write!(f, "({ERROR_TYPE}={label})"),
        }
    }
}

/// An error while parsing a [`Statistic`] or a [`Threshold`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// The text does not have the form of a statistic.
    #[error(
        "`{text}` is not a statistic: write `p95(duration)`, `mean(cost)` or `share(failures)`"
    )]
    #[non_exhaustive]
    NoStatistic {
        /// The text.
        text: String,
    },
    /// The function is unknown.
    #[error(
        "unknown function `{function}` in `{text}`: use mean, share, or a quantile such as p50, p95, p99.9"
    )]
    #[non_exhaustive]
    UnknownFunction {
        /// The unknown function.
        function: String,
        /// The text.
        text: String,
    },
    /// The quantity is unknown.
    #[error(
        "unknown quantity `{quantity}` in `{text}`: use one of {}{}",
        known(),
        likely(quantity)
    )]
    #[non_exhaustive]
    UnknownQuantity {
        /// The unknown quantity.
        quantity: String,
        /// The text.
        text: String,
    },
    /// The quantity does not support the function, or does not have the label.
    #[error("invalid statistic `{text}`: {reason}")]
    #[non_exhaustive]
    DoesNotFit {
        /// The text.
        text: String,
        /// The reason, and the alternatives.
        reason: String,
    },
    /// The text does not have the form of a threshold.
    #[error("`{text}` is not a condition: write `p95(duration) > +10%` or `mean(cost) < -0.001`")]
    #[non_exhaustive]
    NoThreshold {
        /// The text.
        text: String,
    },
    /// The limit does not have the unit of the statistic.
    #[error("invalid limit `{limit}` in `{text}`: write {expected}")]
    #[non_exhaustive]
    Limit {
        /// The invalid limit.
        limit: String,
        /// The text.
        text: String,
        /// The valid forms.
        expected: &'static str,
    },
}

fn known() -> String {
    let names = Quantity::ALL.iter().map(|quantity| quantity.name);
    names.collect::<Vec<_>>().join(", ")
}

impl FromStr for Statistic {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let no_statistic = || ParseError::NoStatistic {
            text: text.to_owned(),
        };
        let (function, rest) = text.split_once('(').ok_or_else(no_statistic)?;
        let inner = rest.strip_suffix(')').ok_or_else(no_statistic)?.trim();
        let function = function.trim();
        if inner.is_empty() || inner.contains(['(', ')']) {
            return Err(no_statistic());
        }
        let kind = match function {
            "mean" => Kind::Mean,
            "share" => Kind::Share,
            _ => quantile(function).ok_or_else(|| ParseError::UnknownFunction {
                function: function.to_owned(),
                text: text.to_owned(),
            })?,
        };
        let does_not_fit = |reason: String| ParseError::DoesNotFit {
            text: text.to_owned(),
            reason,
        };
        let (name, label) = match inner.split_once('=') {
            Some((name, label)) => (name.trim(), Some(label.trim())),
            None => (inner, None),
        };
        let of = match (name, label) {
            (OUTCOME, Some(label)) => {
                let mut outcomes = Outcome::ALL.iter().chain([&Outcome::Other]);
                let found = outcomes.find(|outcome| outcome.as_str() == label);
                Of::Outcome(*found.ok_or_else(|| {
                    let known: Vec<_> = Outcome::ALL.iter().map(|known| known.as_str()).collect();
                    does_not_fit(format!("outcomes are {}", known.join(", ")))
                })?)
            }
            (ERROR_TYPE, Some(label)) if !label.is_empty() => Of::ErrorType(label.to_owned()),
            (OUTCOME | ERROR_TYPE, _) => {
                return Err(does_not_fit(format!("name the label: `share({name}=...)`")));
            }
            _ => {
                let place = place_of(name).ok_or_else(|| ParseError::UnknownQuantity {
                    quantity: name.to_owned(),
                    text: text.to_owned(),
                })?;
                let quantity = &Quantity::ALL[place];
                let is_many =
                    quantity.is_of_attempts() || quantity.kind == QuantityKind::Distribution;
                if is_many && kind == Kind::Share {
                    return Err(does_not_fit(format!("a run has many values of `{name}`")));
                }
                match (label, quantity.unit) {
                    (Some(label), Unit::Money) if label.len() == 3 => {
                        Of::Money(place, label.to_ascii_uppercase())
                    }
                    (None, _) => Of::Quantity(place),
                    (Some(_), _) => {
                        return Err(does_not_fit(
                            "only `outcome` and `error_type` have labels, and `cost` has currencies"
                                .to_owned(),
                        ));
                    }
                }
            }
        };
        if matches!(of, Of::Outcome(_) | Of::ErrorType(_)) && kind != Kind::Share {
            return Err(does_not_fit(format!("write `share({inner})`")));
        }
        Ok(Self { kind, of })
    }
}

fn quantile(function: &str) -> Option<Kind> {
    let percent = function.strip_prefix('p')?;
    let is_number = percent.starts_with(|c: char| c.is_ascii_digit());
    let percent: f64 = percent.parse().ok().filter(|_| is_number)?;
    (percent > 0.0 && percent < 100.0).then_some(Kind::Quantile(percent / 100.0))
}

/// The allowed change of a statistic: `p95(time_to_first_token) > +10%`, `mean(cost) > +0.001`,
/// `share(failures) > +2pp`, `mean(tokens.per_second) < -5%`.
///
/// The limit is a change from base to new, so it has a sign. It is in percent of the base, for times with a
/// unit (`+50ms`), for shares in percentage points (`+2pp`), and otherwise a number. The threshold is crossed
/// if the whole interval of the difference is beyond the limit.
#[derive(Debug, Clone, PartialEq)]
pub struct Threshold {
    pub(crate) statistic: Statistic,
    pub(crate) is_above: bool,
    pub(crate) limit: Limit,
    /// The limit, as it was written.
    written: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// The change as a share of the base.
    Relative(f64),
    /// The difference. For times, in milliseconds.
    Absolute(f64),
}

impl Threshold {
    /// Returns the statistic of the threshold.
    #[must_use]
    pub const fn statistic(&self) -> &Statistic {
        &self.statistic
    }
}

impl fmt::Display for Threshold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.is_above { '>' } else { '<' };
        write!(f, "{} {sign} {}", self.statistic, self.written)
    }
}

impl FromStr for Threshold {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let no_threshold = || ParseError::NoThreshold {
            text: text.to_owned(),
        };
        let place = text.find(['<', '>']).ok_or_else(no_threshold)?;
        let (statistic, rest) = text.split_at(place);
        let is_above = rest.starts_with('>');
        let written = rest[1..].trim();
        if written.is_empty() || written.starts_with('=') {
            return Err(no_threshold());
        }
        let statistic: Statistic = statistic.parse()?;
        let limit = limit(written, statistic.measure()).ok_or_else(|| ParseError::Limit {
            limit: written.to_owned(),
            text: text.to_owned(),
            expected: match statistic.measure() {
                Measure::Millis => "`+10%` or `+50ms`, with the sign and the unit",
                Measure::Share => {
                    "`+2pp` (percentage points) or `+10%` (of the base), with the sign"
                }
                Measure::Number | Measure::PerSecond | Measure::Money(_) => {
                    "`+10%` or `+0.5`, with the sign"
                }
            },
        })?;
        Ok(Self {
            statistic,
            is_above,
            limit,
            written: written.split_whitespace().collect(),
        })
    }
}

fn limit(written: &str, measure: Measure<'_>) -> Option<Limit> {
    /// The units of time, in milliseconds.
    const TIMES: [(&str, f64); 4] = [("us", 1e-3), ("ms", 1.0), ("s", 1e3), ("m", 6e4)];

    let is_unit = |c: char| c.is_alphabetic() || c == '%';
    // From the end, because a number can contain a letter, as `1e-3` does.
    let number = written.trim_end_matches(is_unit);
    let unit = &written[number.len()..];
    let number = number.trim();
    if !number.starts_with(['+', '-']) {
        return None;
    }
    let number: f64 = number
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite())?;
    match (unit.trim(), measure) {
        ("%", _) => Some(Limit::Relative(number / 100.0)),
        ("pp", Measure::Share) => Some(Limit::Absolute(number / 100.0)),
        (unit, Measure::Millis) => {
            let (_, millis) = TIMES.iter().find(|(known, _)| *known == unit)?;
            Some(Limit::Absolute(number * millis))
        }
        ("", Measure::Number | Measure::PerSecond | Measure::Money(_)) => {
            Some(Limit::Absolute(number))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_name_only_known_quantities() {
        for name in LOWER_IS_BETTER
            .iter()
            .chain(&HIGHER_IS_BETTER)
            .chain(&OF_COMPLETED)
        {
            assert!(
                place_of(name).is_some(),
                "no quantity `{name}`: update this table"
            );
        }
    }

    #[test]
    fn displayed_statistics_parse_again() {
        for text in [
            "mean(duration)",
            "p50(time_to_first_token)",
            "p99.9(inter_token)",
            "share(failures)",
            "share(outcome=timed_out)",
            "share(error_type=rate_limited)",
            "mean(cost=EUR)",
        ] {
            let statistic: Statistic = text.parse().expect(text);
            assert_eq!(statistic.to_string(), text);
        }
        for percent in 1..1_000 {
            let text = format!("p{}(duration)", f64::from(percent) / 10.0);
            let statistic: Statistic = text.parse().expect("a quantile");
            assert_eq!(statistic.to_string(), text);
        }
        let odd: Threshold = " p95 ( duration )>+ 10 % "
            .parse::<Threshold>()
            .unwrap_or_else(|_| " p95 ( duration )>+10 % ".parse().expect("a threshold"));
        assert_eq!(odd.to_string(), "p95(duration) > +10%");
    }

    #[test]
    fn limits_are_parsed_in_their_unit() {
        for (text, limit) in [
            ("p95(duration) > +10%", Limit::Relative(0.1)),
            ("p95(duration) > +1.5s", Limit::Absolute(1_500.0)),
            ("p95(duration) < -50ms", Limit::Absolute(-50.0)),
            ("share(failures) > +2pp", Limit::Absolute(0.02)),
            ("share(failures) > +2%", Limit::Relative(0.02)),
            ("mean(cost) > +0.001", Limit::Absolute(0.001)),
            ("mean(cost) > +1e-3", Limit::Absolute(0.001)),
            ("p95(duration) > +1e-1 s", Limit::Absolute(100.0)),
            ("mean(tokens.per_second) < -5%", Limit::Relative(-0.05)),
        ] {
            let threshold: Threshold = text.parse().expect(text);
            assert_eq!(threshold.limit, limit, "{text}");
            assert_eq!(threshold.is_above, text.contains('>'), "{text}");
        }
    }

    #[test]
    fn errors_point_at_the_fault() {
        for (text, fault) in [
            ("", "not a condition"),
            ("p95(duration)", "not a condition"),
            ("p95(duration) >", "not a condition"),
            ("p95(duration) >= +1%", "not a condition"),
            ("duration > +1%", "`duration` is not a statistic"),
            ("p95(duration > +1%", "`p95(duration` is not a statistic"),
            ("p95() > +1%", "`p95()` is not a statistic"),
            ("max(duration) > +1%", "`max` in"),
            ("p0(duration) > +1%", "`p0` in"),
            ("p100(duration) > +1%", "`p100` in"),
            ("p+5(duration) > +1%", "`p+5` in"),
            ("pinf(duration) > +1%", "`pinf` in"),
            (
                "p95(timeToFirstToken) > +1%",
                "did you mean `time_to_first_token`?",
            ),
            (
                "p95(first_token) > +1%",
                "did you mean `time_to_first_token`?",
            ),
            ("p95(speed) > +1%", "use one of duration, tokens.total"),
            ("share(outcome=lost) > +1%", "outcomes are completed"),
            ("share(outcome) > +1%", "name the label"),
            (
                "mean(outcome=failed) > +1pp",
                "write `share(outcome=failed)`",
            ),
            ("share(duration=failed) > +1pp", "have labels"),
            ("p95(duration) > 10%", "`10%` in"),
            ("p95(duration) > +10", "with the sign and the unit"),
            ("share(failures) > +0.02", "`+2pp`"),
            ("mean(cost) > +2pp", "`+0.5`"),
            ("mean(cost) > +nan", "`+nan` in"),
        ] {
            let error = text.parse::<Threshold>().expect_err(text).to_string();
            assert!(error.contains(fault), "{text}: {error}");
        }
    }
}
