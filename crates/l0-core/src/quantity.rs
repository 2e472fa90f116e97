//! Quantities: the single list of the numbers of a run. All code that sends numbers iterates over it
//! and derives its own spelling of the names. To add a number, add a row.

use std::fmt;
use std::time::Duration;

use crate::attempt_stats::AttemptStats;
use crate::distribution::Distribution;
use crate::money::{Currency, Money};
use crate::telemetry::Telemetry;
use crate::usage::Usage;
use crate::verdict::Severity;

/// One number of a run: its name, unit and kind, and how to read it from [`Telemetry`].
///
/// ```
/// use l0_core::Quantity;
///
/// # let telemetry = l0_core::Telemetry::default();
/// for quantity in Quantity::ALL {
///     if let Some(value) = quantity.value(&telemetry) {
///         println!("{} = {} {:?}", quantity.name, value.as_f64(), quantity.unit);
///     }
/// }
/// ```
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct Quantity {
    /// The name, in parts joined by dots: `tokens.wasted`.
    pub name: &'static str,
    /// The unit of measurement.
    pub unit: Unit,
    /// How the values of many runs combine.
    pub kind: QuantityKind,
    /// A short description.
    pub description: &'static str,
    read: Read,
}

/// The unit of a [`Quantity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A count of these things, in the singular: `token`.
    Each(&'static str),
    /// A duration in seconds.
    Seconds,
    /// A rate: these things per second.
    PerSecond(&'static str),
    /// An amount of money, in the currency given by the label `currency`.
    Money,
}

/// How the values of many runs combine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuantityKind {
    /// A counter: values add up.
    Sum,
    /// A histogram with one value per run or per attempt.
    Sample,
    /// A histogram with many values per run, which add up bucket by bucket.
    Distribution,
}

/// The value of a [`Quantity`] in one run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// A count.
    Count(u64),
    /// A duration.
    Duration(Duration),
    /// A rate per second; finite.
    Rate(f64),
    /// An amount of money.
    Amount(Money),
    /// A distribution of durations.
    Distribution(&'a Distribution),
}

impl Value<'_> {
    /// Returns the value as one number: a duration in seconds, a distribution as its mean, or 0 if it
    /// is empty. Counts above 2^53 are rounded.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Count(count) => count as f64,
            Self::Duration(duration) => duration.as_secs_f64(),
            Self::Rate(rate) => rate,
            Self::Amount(money) => money.as_f64(),
            Self::Distribution(all) => all.mean().unwrap_or_default().as_secs_f64(),
        }
    }
}

#[derive(Clone, Copy)]
enum Read {
    Count(fn(&Telemetry) -> Option<u64>),
    Duration(fn(&Telemetry) -> Option<Duration>),
    Rate(fn(&Telemetry) -> Option<f64>),
    Distribution(fn(&Telemetry) -> Option<&Distribution>),
    /// One duration per attempt.
    OfAttempts(fn(&AttemptStats) -> Option<Duration>),
    /// One count per value of a label. `None` if unknown.
    Each(Labels, fn(&Telemetry, &mut Count<'_>) -> Option<()>),
    /// One amount of money per set of label values. `None` if unknown.
    Amounts(Labels, fn(&Telemetry, &mut Amount<'_>) -> Option<()>),
}

type Labels = &'static [&'static str];

/// Receives the value of the label and the count.
type Count<'a> = dyn FnMut(&str, u64) + 'a;

/// Receives the values of the labels and the amount.
type Amount<'a> = dyn FnMut(&[&str], Money) + 'a;

impl Quantity {
    /// Every quantity. Those of the TypeScript L0 come first, in its order.
    pub const ALL: &'static [Self] = ALL;

    /// Returns the labels that divide the quantity, or an empty slice if it has none. Read a quantity
    /// with labels with [`each`](Self::each), all others with [`value`](Self::value) or
    /// [`values`](Self::values).
    #[must_use]
    pub const fn labels(&self) -> &'static [&'static str] {
        match self.read {
            Read::Each(labels, _) | Read::Amounts(labels, _) => labels,
            _ => &[],
        }
    }

    /// Returns `true` if the quantity has [labels](Self::labels).
    #[must_use]
    pub const fn is_labeled(&self) -> bool {
        !self.labels().is_empty()
    }

    /// Returns `true` if a run has one value per attempt. Read them with [`values`](Self::values).
    #[must_use]
    pub const fn is_of_attempts(&self) -> bool {
        matches!(self.read, Read::OfAttempts(_))
    }

    /// Returns the value of a run, or `None` if it is unknown, if a run has several values, or if the
    /// quantity has labels.
    #[must_use]
    #[inline]
    pub fn value<'t>(&self, telemetry: &'t Telemetry) -> Option<Value<'t>> {
        match self.read {
            Read::Count(read) => read(telemetry).map(Value::Count),
            Read::Duration(read) => read(telemetry).map(Value::Duration),
            Read::Rate(read) => {
                let rate = read(telemetry).filter(|rate| rate.is_finite());
                rate.map(Value::Rate)
            }
            Read::Distribution(read) => {
                let all = read(telemetry).filter(|all| !all.is_empty());
                all.map(Value::Distribution)
            }
            Read::OfAttempts(_) | Read::Each(..) | Read::Amounts(..) => None,
        }
    }

    /// Returns the sum of all amounts of a run if each is in this currency. Returns `None` if the
    /// quantity is not money, or no amount is known.
    #[must_use]
    pub fn amount_in(&self, currency: Currency, telemetry: &Telemetry) -> Option<Money> {
        let mut sum = None;
        let mut is_other = false;
        self.each(telemetry, &mut |labels, value| {
            if let (Value::Amount(amount), Some(of)) = (value, labels.first()) {
                is_other |= *of != currency.as_str();
                *sum.get_or_insert(Money::ZERO) += amount;
            }
        });
        sum.filter(|_| !is_other)
    }

    /// Calls `visit` with each value of a run: the single value, or one per attempt. Unknown values,
    /// and quantities with labels, have none.
    #[inline]
    pub fn values(&self, telemetry: &Telemetry, visit: &mut dyn FnMut(Value<'_>)) {
        match self.read {
            Read::OfAttempts(read) => {
                let durations = telemetry.attempts.iter().filter_map(read);
                durations.map(Value::Duration).for_each(visit);
            }
            _ => self.value(telemetry).into_iter().for_each(visit),
        }
    }

    /// Calls `visit` with the label values, in the order of the labels, and the count or amount of
    /// each. Does not call it for a quantity without labels. The same label values can occur several
    /// times; their values add up. Returns `true` if the values are known, even if there are none.
    pub fn each(
        &self,
        telemetry: &Telemetry,
        visit: &mut dyn FnMut(&[&str], Value<'static>),
    ) -> bool {
        match self.read {
            Read::Each(_, read) => read(telemetry, &mut |of, count| {
                visit(&[of], Value::Count(count));
            })
            .is_some(),
            Read::Amounts(_, read) => {
                let mut visit = |of: &[&str], money: Money| visit(of, Value::Amount(money));
                read(telemetry, &mut visit).is_some()
            }
            _ => false,
        }
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Quantity")
            .field("name", &self.name)
            .field("unit", &self.unit)
            .field("kind", &self.kind)
            .field("labels", &self.labels())
            .finish_non_exhaustive()
    }
}

const fn count(
    name: &'static str,
    unit: Unit,
    description: &'static str,
    read: fn(&Telemetry) -> Option<u64>,
) -> Quantity {
    Quantity {
        name,
        unit,
        kind: QuantityKind::Sum,
        description,
        read: Read::Count(read),
    }
}

const fn durations(
    name: &'static str,
    kind: QuantityKind,
    description: &'static str,
    read: fn(&Telemetry) -> Option<Duration>,
) -> Quantity {
    Quantity {
        name,
        unit: Unit::Seconds,
        kind,
        description,
        read: Read::Duration(read),
    }
}

const fn rate(
    name: &'static str,
    description: &'static str,
    read: fn(&Telemetry) -> Option<f64>,
) -> Quantity {
    Quantity {
        name,
        unit: Unit::PerSecond("token"),
        kind: QuantityKind::Sample,
        description,
        read: Read::Rate(read),
    }
}

const fn by(
    name: &'static str,
    labels: Labels,
    unit: Unit,
    description: &'static str,
    read: fn(&Telemetry, &mut Count<'_>) -> Option<()>,
) -> Quantity {
    Quantity {
        name,
        unit,
        kind: QuantityKind::Sum,
        description,
        read: Read::Each(labels, read),
    }
}

const fn amounts(
    name: &'static str,
    labels: Labels,
    description: &'static str,
    read: fn(&Telemetry, &mut Amount<'_>) -> Option<()>,
) -> Quantity {
    Quantity {
        name,
        unit: Unit::Money,
        kind: QuantityKind::Sum,
        description,
        read: Read::Amounts(labels, read),
    }
}

const TOKEN: Unit = Unit::Each("token");
const RETRY: Unit = Unit::Each("retry");
const ERROR: Unit = Unit::Each("error");
const VIOLATION: Unit = Unit::Each("violation");
const RUN: Unit = Unit::Each("run");

static ALL: &[Quantity] = &[
    durations(
        "duration",
        QuantityKind::Sample,
        "Duration of runs, retries included",
        |t| t.duration,
    ),
    count("tokens.total", TOKEN, "Tokens of all attempts", |t| {
        Some(t.metrics.total_tokens)
    }),
    rate(
        "tokens.per_second",
        "Tokens per second over the whole duration",
        |t| t.metrics.tokens_per_second,
    ),
    durations(
        "time_to_first_token",
        QuantityKind::Sample,
        "Time from the start of runs to their first token",
        |t| t.metrics.time_to_first_token,
    ),
    count("retries.total", RETRY, "Retries", |t| {
        Some(t.metrics.total_retries.into())
    }),
    count(
        "retries.network",
        RETRY,
        "Retries for network errors, rate limits and server errors",
        |t| Some(t.metrics.network_retries.into()),
    ),
    count(
        "retries.model",
        RETRY,
        "Retries for the model's answers",
        |t| Some(t.metrics.model_retries.into()),
    ),
    count(
        "network.errors",
        ERROR,
        "Network errors, retried ones included",
        |t| Some(t.network.error_count),
    ),
    count(
        "guardrails.violations",
        VIOLATION,
        "Guardrail violations",
        |t| Some(t.guardrails.as_ref()?.violation_count),
    ),
    durations(
        "time_to_first_text",
        QuantityKind::Sample,
        "Time from the start of runs to their first text",
        |t| t.metrics.time_to_first_text,
    ),
    Quantity {
        name: "inter_token",
        unit: Unit::Seconds,
        kind: QuantityKind::Distribution,
        description: "Time between two tokens of one attempt",
        read: Read::Distribution(|t| t.metrics.inter_token.as_ref()),
    },
    durations(
        "consumer_hold",
        QuantityKind::Sum,
        "Time that runs waited for their consumer",
        |t| t.metrics.consumer_hold,
    ),
    durations(
        "wait",
        QuantityKind::Sum,
        "Time that runs waited for their source, including back-off",
        |t| t.metrics.wait,
    ),
    rate(
        "output_tokens.per_second",
        "Tokens per second while tokens flow",
        |t| t.metrics.output_tokens_per_second,
    ),
    count(
        "tokens.wasted",
        TOKEN,
        "Tokens of attempts before the final one",
        |t| Some(t.metrics.wasted_tokens),
    ),
    by(
        "attempts",
        &["result"],
        Unit::Each("attempt"),
        "Attempts (calls of a source), by outcome",
        |t, to| {
            for attempt in &t.attempts {
                // An attempt that continues has no outcome yet.
                if let Some(outcome) = attempt.outcome {
                    to(outcome.as_str(), attempt.count.into());
                }
            }
            (t.attempts.is_empty() == (t.metrics.attempts == 0)).then_some(())
        },
    ),
    Quantity {
        kind: QuantityKind::Sample,
        name: "attempt_time_to_first_token",
        unit: Unit::Seconds,
        description: "Time from the call of a source to its first token",
        read: Read::OfAttempts(|attempt| attempt.time_to_first_token),
    },
    count(
        "fallbacks",
        Unit::Each("fallback"),
        "Fallbacks to another source",
        |t| Some(t.fallbacks().into()),
    ),
    count(
        "usage.input",
        TOKEN,
        "Prompt tokens of all attempts, as reported by providers",
        |t| billed(t, |usage| usage.input),
    ),
    count(
        "usage.output",
        TOKEN,
        "Generated tokens of all attempts, as reported by providers",
        |t| billed(t, |usage| usage.output),
    ),
    count(
        "usage.total",
        TOKEN,
        "Tokens of all attempts, as reported by providers",
        |t| billed(t, |usage| usage.total),
    ),
    count(
        "usage.cached_input",
        TOKEN,
        "Prompt tokens read from providers' caches",
        |t| billed(t, |usage| usage.cached_input),
    ),
    count(
        "usage.cache_write_input",
        TOKEN,
        "Prompt tokens written to providers' caches",
        |t| billed(t, |usage| usage.cache_write_input),
    ),
    count(
        "usage.reasoning",
        TOKEN,
        "Generated reasoning tokens",
        |t| billed(t, |usage| usage.reasoning),
    ),
    count(
        "usage.wasted_input",
        TOKEN,
        "Prompt tokens of attempts before the final one",
        |t| t.wasted_usage?.input,
    ),
    count(
        "usage.wasted_output",
        TOKEN,
        "Generated tokens of attempts before the final one",
        |t| t.wasted_usage?.output,
    ),
    count(
        "usage.estimated_input",
        TOKEN,
        "Estimated prompt tokens that providers did not report",
        |t| t.estimated_usage?.input,
    ),
    count(
        "usage.estimated_output",
        TOKEN,
        "Estimated generated tokens that providers did not report",
        |t| t.estimated_usage?.output,
    ),
    amounts(
        "cost",
        &["currency", "wasted"],
        "Cost of attempts, reported by providers or computed from prices; wasted if another attempt followed",
        |t, to| {
            let answer = t.cost.map(|cost| (cost, "false"));
            let wasted = t.wasted_costs().map(|cost| (cost, "true"));
            let mut known = None;
            for (cost, wasted) in answer.into_iter().chain(wasted) {
                to(&[cost.currency.as_str(), wasted], cost.amount);
                known = Some(());
            }
            known
        },
    ),
    amounts(
        "estimated_cost",
        &["currency"],
        "Estimated cost of tokens that providers did not report",
        |t, to| {
            let mut known = None;
            for cost in t
                .attempts
                .iter()
                .filter_map(|attempt| attempt.estimated_cost)
            {
                to(&[cost.currency.as_str()], cost.amount);
                known = Some(());
            }
            known
        },
    ),
    count(
        "unpriced_runs",
        RUN,
        "Runs that reported usage for a model without a known price",
        |t| {
            let unpriced = t.unpriced() > 0;
            (unpriced || t.attempts.iter().any(|attempt| attempt.cost.is_some()))
                .then_some(unpriced.into())
        },
    ),
    count("drift.detected", RUN, "Runs with drift", |t| {
        Some(t.drift.as_ref()?.detected().into())
    }),
    by(
        "runs",
        &["outcome"],
        RUN,
        "Finished runs, by outcome",
        |t, to| {
            to(t.outcome?.as_str(), 1);
            Some(())
        },
    ),
    by(
        "failures",
        &["error_type"],
        RUN,
        "Failed runs, by type of error",
        |t, to| {
            if t.outcome?.is_failure() {
                to(&t.error.as_ref()?.error_type, 1);
            }
            Some(())
        },
    ),
    by(
        "network.errors_by_type",
        &["error_type"],
        ERROR,
        "Network errors by type",
        |t, to| {
            for (kind, count) in &t.network.errors_by_type {
                to(kind.as_str(), *count);
            }
            Some(())
        },
    ),
    by(
        "guardrails.violations_by_severity",
        &["severity"],
        VIOLATION,
        "Guardrail violations by severity",
        |t, to| {
            let counts = t.guardrails.as_ref()?.violations_by_severity;
            for &severity in Severity::ALL {
                to(severity.as_str(), counts.get(severity));
            }
            Some(())
        },
    ),
    by(
        "guardrails.violations_by_rule",
        &["rule"],
        VIOLATION,
        "Guardrail violations by rule",
        |t, to| {
            for (rule, count) in &t.guardrails.as_ref()?.violations_by_rule {
                to(rule, *count);
            }
            Some(())
        },
    ),
];

/// Reads the billed usage, so the sums over many runs match the bill.
fn billed(telemetry: &Telemetry, field: fn(&Usage) -> Option<u64>) -> Option<u64> {
    match (&telemetry.usage, &telemetry.wasted_usage) {
        (Some(_), Some(_)) => field(&telemetry.billed()?),
        // Most runs have one attempt.
        (usage, wasted) => field(usage.as_ref().or(wasted.as_ref())?),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_distinct_and_of_lower_case_words() {
        let mut names = BTreeSet::new();
        for quantity in Quantity::ALL {
            let allowed = |c: char| c.is_ascii_lowercase() || c == '_' || c == '.';
            assert!(quantity.name.chars().all(allowed), "{}", quantity.name);
            assert!(names.insert(quantity.name), "{} twice", quantity.name);
        }
    }

    #[test]
    fn a_quantity_is_one_number_or_one_for_each_value_of_its_label() {
        let mut telemetry = Telemetry::default();
        telemetry.metrics.tokens_per_second = Some(f64::NAN);
        telemetry.metrics.inter_token = Some(Distribution::new());
        for quantity in Quantity::ALL {
            let mut visited = 0;
            let known = quantity.each(&telemetry, &mut |_, _| visited += 1);
            assert_eq!(visited, 0, "{quantity:?}");
            // Without an error, all error counts are known to be zero.
            assert_eq!(
                known,
                ["attempts", "network.errors_by_type"].contains(&quantity.name)
            );
            let known = matches!(quantity.value(&telemetry), Some(Value::Count(0)));
            let always = [
                "tokens.total",
                "retries.total",
                "retries.network",
                "retries.model",
                "network.errors",
                "tokens.wasted",
                "fallbacks",
            ];
            assert_eq!(known, always.contains(&quantity.name), "{quantity:?}");
        }
    }
}
