//! Quantity: the one list of the numbers of a run. Whatever sends numbers iterates it, and derives its
//! own spelling of the names. One more number is one more row.

use std::fmt;
use std::time::Duration;

use crate::attempt_stats::AttemptStats;
use crate::distribution::Distribution;
use crate::money::{Currency, Money};
use crate::telemetry::Telemetry;
use crate::usage::Usage;
use crate::verdict::Severity;

/// One number of a run: what it is called, what it counts, and how it is read from [`Telemetry`].
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
    /// Its name, in parts joined by dots: `tokens.wasted`.
    pub name: &'static str,
    /// What it is measured in.
    pub unit: Unit,
    /// How the numbers of many runs go together.
    pub kind: QuantityKind,
    /// What it is, in a phrase.
    pub description: &'static str,
    read: Read,
}

/// What a [`Quantity`] is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// A count of these things, in the singular: `token`.
    Each(&'static str),
    /// A time.
    Seconds,
    /// How many of these things per second.
    PerSecond(&'static str),
    /// Money, in the currency that its label `currency` says.
    Money,
}

/// How the numbers of many runs go together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum QuantityKind {
    /// They add up: a counter.
    Sum,
    /// Each run has one, or one for each attempt, and how they are spread is of interest: a histogram.
    Sample,
    /// Each run has many, which add up bucket by bucket: a histogram.
    Distribution,
}

/// The value of a [`Quantity`] in one run.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// How many.
    Count(u64),
    /// How long.
    Duration(Duration),
    /// How many per second; finite.
    Rate(f64),
    /// How much money.
    Amount(Money),
    /// Many durations.
    Distribution(&'a Distribution),
}

impl Value<'_> {
    /// Returns the value as one number: durations in seconds, a distribution as its mean (0 if it is
    /// empty). Counts above 2^53 are rounded.
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
    One(fn(&Telemetry) -> Option<Value<'_>>),
    /// One for each attempt.
    OfAttempts(fn(&AttemptStats) -> Option<Value<'static>>),
    /// A count for each value of a label; `None` if they are unknown.
    Each(Labels, fn(&Telemetry, &mut Count<'_>) -> Option<()>),
    /// An amount of money for each set of values of labels; `None` if they are unknown.
    Amounts(Labels, fn(&Telemetry, &mut Amount<'_>) -> Option<()>),
}

type Labels = &'static [&'static str];

/// Takes the value of the label, and the count.
type Count<'a> = dyn FnMut(&str, u64) + 'a;

/// Takes the values of the labels, and the amount.
type Amount<'a> = dyn FnMut(&[&str], Money) + 'a;

impl Quantity {
    /// Every quantity: first those of the original, in its order.
    pub const ALL: &'static [Self] = ALL;

    /// Returns the labels by which it is broken down; empty if it is not. In the latter case
    /// [`value`](Self::value) or [`values`](Self::values) read it, in the former [`each`](Self::each).
    #[must_use]
    pub const fn labels(&self) -> &'static [&'static str] {
        match self.read {
            Read::One(_) | Read::OfAttempts(_) => &[],
            Read::Each(labels, _) | Read::Amounts(labels, _) => labels,
        }
    }

    /// Returns whether it is broken down by [labels](Self::labels).
    #[must_use]
    pub const fn is_labelled(&self) -> bool {
        !self.labels().is_empty()
    }

    /// Returns whether a run has one for each attempt, so that only [`values`](Self::values) reads
    /// them.
    #[must_use]
    pub const fn is_of_attempts(&self) -> bool {
        matches!(self.read, Read::OfAttempts(_))
    }

    /// Reads the value of a run; absent if it is unknown, if a run has several, or if the quantity is
    /// broken down by labels.
    #[must_use]
    pub fn value<'t>(&self, telemetry: &'t Telemetry) -> Option<Value<'t>> {
        let Read::One(read) = self.read else {
            return None;
        };
        read(telemetry).filter(|value| match value {
            Value::Rate(rate) => rate.is_finite(),
            Value::Distribution(all) => !all.is_empty(),
            Value::Count(_) | Value::Duration(_) | Value::Amount(_) => true,
        })
    }

    /// Returns what all amounts of a run come to, if each is in this currency; absent if the quantity is
    /// no money, or none is known.
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

    /// Calls `visit` with each value of a run: the one, or one for each attempt. What is unknown, or
    /// broken down by labels, has none.
    pub fn values(&self, telemetry: &Telemetry, visit: &mut dyn FnMut(Value<'_>)) {
        match self.read {
            Read::OfAttempts(read) => telemetry.attempts.iter().filter_map(read).for_each(visit),
            Read::One(_) | Read::Each(..) | Read::Amounts(..) => {
                self.value(telemetry).into_iter().for_each(visit);
            }
        }
    }

    /// Calls `visit` with the values of the labels, in their order, and the count or the amount of each;
    /// not at all if the quantity is one number. The same values may come several times, and add up.
    /// Returns whether the counts are known, also if there are none.
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
            Read::One(_) | Read::OfAttempts(_) => false,
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

const fn sum(
    name: &'static str,
    unit: Unit,
    description: &'static str,
    read: fn(&Telemetry) -> Option<Value<'_>>,
) -> Quantity {
    Quantity {
        name,
        unit,
        kind: QuantityKind::Sum,
        description,
        read: Read::One(read),
    }
}

const fn sample(
    name: &'static str,
    unit: Unit,
    description: &'static str,
    read: fn(&Telemetry) -> Option<Value<'_>>,
) -> Quantity {
    Quantity {
        kind: QuantityKind::Sample,
        ..sum(name, unit, description, read)
    }
}

const fn distribution(
    name: &'static str,
    description: &'static str,
    read: fn(&Telemetry) -> Option<Value<'_>>,
) -> Quantity {
    Quantity {
        kind: QuantityKind::Distribution,
        ..sum(name, Unit::Seconds, description, read)
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
    sample(
        "duration",
        Unit::Seconds,
        "Duration of runs, retries included",
        |t| duration(t.duration),
    ),
    sum("tokens.total", TOKEN, "Tokens of all attempts", |t| {
        count(t.metrics.total_tokens)
    }),
    sample(
        "tokens.per_second",
        Unit::PerSecond("token"),
        "Tokens per second over the whole duration",
        |t| rate(t.metrics.tokens_per_second),
    ),
    sample(
        "time_to_first_token",
        Unit::Seconds,
        "Time from the start of runs to their first token",
        |t| duration(t.metrics.time_to_first_token),
    ),
    sum("retries.total", RETRY, "Retries", |t| {
        count(t.metrics.total_retries.into())
    }),
    sum(
        "retries.network",
        RETRY,
        "Retries for network errors, rate limits and server errors",
        |t| count(t.metrics.network_retries.into()),
    ),
    sum(
        "retries.model",
        RETRY,
        "Retries for the model's answers",
        |t| count(t.metrics.model_retries.into()),
    ),
    sum(
        "network.errors",
        ERROR,
        "Network errors, retried ones included",
        |t| count(t.network.error_count),
    ),
    sum(
        "guardrails.violations",
        VIOLATION,
        "Guardrail violations",
        |t| count(t.guardrails.as_ref()?.violation_count),
    ),
    sample(
        "time_to_first_text",
        Unit::Seconds,
        "Time from the start of runs to their first text",
        |t| duration(t.metrics.time_to_first_text),
    ),
    distribution(
        "inter_token",
        "Time between two tokens of one attempt",
        |t| Some(Value::Distribution(t.metrics.inter_token.as_ref()?)),
    ),
    sum(
        "consumer_hold",
        Unit::Seconds,
        "Time that runs were held up by their consumer",
        |t| duration(t.metrics.consumer_hold),
    ),
    sum(
        "wait",
        Unit::Seconds,
        "Time that runs waited for their source, back-off included",
        |t| duration(t.metrics.wait),
    ),
    sample(
        "output_tokens.per_second",
        Unit::PerSecond("token"),
        "Tokens per second while tokens flow",
        |t| rate(t.metrics.output_tokens_per_second),
    ),
    sum(
        "tokens.wasted",
        TOKEN,
        "Tokens of attempts that another one followed",
        |t| count(t.metrics.wasted_tokens),
    ),
    by(
        "attempts",
        &["result"],
        Unit::Each("attempt"),
        "Attempts: calls of a source, by how they ended",
        |t, to| {
            for attempt in &t.attempts {
                // One that goes on has not ended in any way.
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
        read: Read::OfAttempts(|attempt| duration(attempt.time_to_first_token)),
    },
    sum(
        "fallbacks",
        Unit::Each("fallback"),
        "Fallbacks to another source",
        |t| count(t.fallbacks().into()),
    ),
    sum(
        "usage.input",
        TOKEN,
        "Tokens of the prompts of all attempts, as providers told them",
        |t| billed(t, |usage| usage.input),
    ),
    sum(
        "usage.output",
        TOKEN,
        "Tokens generated by all attempts, as providers told them",
        |t| billed(t, |usage| usage.output),
    ),
    sum(
        "usage.total",
        TOKEN,
        "Tokens of all attempts, as providers told them",
        |t| billed(t, |usage| usage.total),
    ),
    sum(
        "usage.cached_input",
        TOKEN,
        "Tokens of prompts read from providers' caches",
        |t| billed(t, |usage| usage.cached_input),
    ),
    sum(
        "usage.cache_write_input",
        TOKEN,
        "Tokens of prompts written to providers' caches",
        |t| billed(t, |usage| usage.cache_write_input),
    ),
    sum(
        "usage.reasoning",
        TOKEN,
        "Generated tokens that were reasoning",
        |t| billed(t, |usage| usage.reasoning),
    ),
    sum(
        "usage.wasted_input",
        TOKEN,
        "Tokens of the prompts of attempts that another one followed",
        |t| count(t.wasted_usage?.input?),
    ),
    sum(
        "usage.wasted_output",
        TOKEN,
        "Tokens generated by attempts that another one followed",
        |t| count(t.wasted_usage?.output?),
    ),
    sum(
        "usage.estimated_input",
        TOKEN,
        "Tokens of prompts that providers did not tell, by an estimate",
        |t| count(t.estimated_usage?.input?),
    ),
    sum(
        "usage.estimated_output",
        TOKEN,
        "Generated tokens that providers did not tell, by an estimate",
        |t| count(t.estimated_usage?.output?),
    ),
    amounts(
        "cost",
        &["currency", "wasted"],
        "What attempts cost, as providers or prices tell, and whether another one followed",
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
        "What tokens cost that providers did not tell, by an estimate",
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
    sum(
        "unpriced_runs",
        RUN,
        "Runs that told their usage, and no price of the model was known",
        |t| {
            let unpriced = t.unpriced() > 0;
            (unpriced || t.attempts.iter().any(|attempt| attempt.cost.is_some()))
                .then_some(Value::Count(unpriced.into()))
        },
    ),
    sum("drift.detected", RUN, "Runs with drift", |t| {
        count(t.drift.as_ref()?.detected().into())
    }),
    by(
        "runs",
        &["outcome"],
        RUN,
        "Runs that have finished, by outcome",
        |t, to| {
            to(t.outcome?.as_str(), 1);
            Some(())
        },
    ),
    by(
        "failures",
        &["error_type"],
        RUN,
        "Runs that failed, by what went wrong",
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

fn count(count: u64) -> Option<Value<'static>> {
    Some(Value::Count(count))
}

fn duration(duration: Option<Duration>) -> Option<Value<'static>> {
    duration.map(Value::Duration)
}

fn rate(rate: Option<f64>) -> Option<Value<'static>> {
    rate.map(Value::Rate)
}

/// Reads what was billed, so that the numbers of many runs add up to the bill.
fn billed(telemetry: &Telemetry, field: fn(Usage) -> Option<u64>) -> Option<Value<'static>> {
    field(telemetry.billed()?).map(Value::Count)
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
            // Without an error, all types of them are known to be none.
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
