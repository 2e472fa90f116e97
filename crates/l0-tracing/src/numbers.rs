//! The numbers of a run and of its attempts that become fields.

use l0_core::{AttemptStats, Currency, Telemetry, Value as Number};

use crate::fields::{Fields, Value};
use crate::names::{ATTEMPT_TOKENS, COST, RUN_NUMBERS, RunNumber, TIME_TO_FIRST_CHUNK, USAGE};

/// Sets the known numbers of a run's span.
pub(crate) fn set_of_run(fields: &mut Fields<'_>, telemetry: &Telemetry) {
    for RunNumber {
        field,
        quantity,
        statistic,
    } in &*RUN_NUMBERS
    {
        let value = match (quantity.value(telemetry), statistic) {
            (Some(Number::Distribution(all)), Some(statistic)) => {
                statistic(all).map(|value| Value::Double(value.as_secs_f64()))
            }
            (Some(Number::Count(count)), _) => Some(count.into()),
            (value, _) => value.map(|value| Value::Double(value.as_f64())),
        };
        fields.set_known(field, value);
    }
}

/// Sets the known numbers of an attempt's span.
pub(crate) fn set_of_attempt(fields: &mut Fields<'_>, attempt: &AttemptStats) {
    fields.set(ATTEMPT_TOKENS, attempt.tokens);
    let first = attempt.time_to_first_token;
    fields.set_known(TIME_TO_FIRST_CHUNK, first.map(|after| after.as_secs_f64()));
    let cost = attempt.cost.filter(|cost| cost.currency == Currency::USD);
    fields.set_known(COST, cost.map(|cost| cost.amount.as_f64()));
    if let Some(usage) = attempt.usage {
        for (field, count) in USAGE {
            fields.set_known(field, count(usage));
        }
    }
}
