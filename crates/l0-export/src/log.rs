//! Log records: one telemetry under the keys of a structured log.

use l0_core::{AttemptStats, ErrorRecord, Outcome, Telemetry};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::numbers::{Number, numbers_of_records};
use crate::values::millis;

/// The log record of one run, borrowed from its telemetry.
///
/// Its serialized form has these keys: `session_id`, `timestamp` (the start of the run, in ms since the
/// Unix epoch), `duration_ms`, `outcome`, `error` (`type`, `status`, `message`), `kept`, `finish_reason`,
/// `metrics`, `usage`, `network`, `guardrails`, `drift`, `attempts`, `metadata`. The groups `metrics`, `usage`,
/// `network` and `guardrails` contain the numbers of [`Quantity::ALL`](l0_core::Quantity::ALL), in snake case,
/// with their unit: `metrics.tokens`, `metrics.time_to_first_token_ms`, `usage.input`.
///
/// `attempts` is present if the run made more than one attempt. Each entry has `number`, `source`, `model`,
/// `provider`, `outcome`, `error` (why it failed), `tokens`, `duration_ms`, `time_to_first_token_ms` and
/// `delay_ms` (the planned wait before it). An entry that combines several further retries of one source
/// has a `count`.
///
/// Unknown values are absent. Numbers that can have decimals always have them (`1500.0`), so a log store
/// that infers types from the first record infers the right ones. All metadata is included, but no text of
/// the model.
///
/// ```
/// use l0_export::log::LogRecord;
///
/// # let telemetry = l0_core::Telemetry::default();
/// let record = serde_json::to_string(&LogRecord::from(&telemetry))?;
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogRecord<'a> {
    telemetry: &'a Telemetry,
}

impl<'a> From<&'a Telemetry> for LogRecord<'a> {
    fn from(telemetry: &'a Telemetry) -> Self {
        Self { telemetry }
    }
}

impl Serialize for LogRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let telemetry = self.telemetry;
        let mut record = serializer.serialize_map(None)?;
        record.serialize_entry("session_id", &telemetry.session_id)?;
        record.serialize_entry("timestamp", &telemetry.start_time)?;
        if let Some(duration) = telemetry.duration {
            record.serialize_entry(DURATION, &millis(duration))?;
        }
        if let Some(outcome) = telemetry.outcome {
            record.serialize_entry("outcome", &outcome)?;
        }
        if let Some(error) = &telemetry.error {
            record.serialize_entry("error", error)?;
        }
        if let Some(kept) = telemetry.kept {
            record.serialize_entry("kept", &kept)?;
        }
        if let Some(reason) = telemetry.finish_reason {
            record.serialize_entry("finish_reason", &reason)?;
        }
        for group in ["metrics", "usage", "network", "guardrails"] {
            let group = Group { telemetry, group };
            if group.numbers().any(|number| number.is_known(telemetry)) {
                record.serialize_entry(group.group, &group)?;
            }
        }
        if let Some(drift) = &telemetry.drift {
            record.serialize_entry("drift", drift)?;
        }
        if let attempts @ [_, _, ..] = &*telemetry.attempts {
            record.serialize_entry("attempts", &Attempts(attempts))?;
        }
        if !telemetry.metadata.is_empty() {
            record.serialize_entry("metadata", &telemetry.metadata)?;
        }
        record.end()
    }
}

/// The attempts of a run.
struct Attempts<'a>(&'a [AttemptStats]);

impl Serialize for Attempts<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0.iter().map(AttemptRecord::from))
    }
}

#[derive(Serialize)]
struct AttemptRecord<'a> {
    number: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<u32>,
    source: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    delay_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    duration_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time_to_first_token_ms: Option<f64>,
    tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    outcome: Option<Outcome>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a ErrorRecord>,
}

impl<'a> From<&'a AttemptStats> for AttemptRecord<'a> {
    fn from(attempt: &'a AttemptStats) -> Self {
        Self {
            number: attempt.number,
            count: (attempt.count > 1).then_some(attempt.count),
            source: attempt.source,
            model: attempt.model.as_deref(),
            provider: attempt.provider.as_deref(),
            delay_ms: attempt.delay.map(millis),
            duration_ms: attempt.duration.map(millis),
            time_to_first_token_ms: attempt.time_to_first_token.map(millis),
            tokens: attempt.tokens,
            outcome: attempt.outcome,
            error: attempt.error.as_ref(),
        }
    }
}

/// The key of the duration, which is not in a group.
const DURATION: &str = "duration_ms";

/// Iterates over the numbers of a record, except the duration.
fn numbers() -> impl Iterator<Item = &'static Number> {
    numbers_of_records().filter(|number| number.log.1 != DURATION)
}

/// A group of a record.
struct Group<'a> {
    telemetry: &'a Telemetry,
    group: &'static str,
}

impl Group<'_> {
    fn numbers(&self) -> impl Iterator<Item = &'static Number> {
        let group = self.group;
        numbers().filter(move |number| number.log.0 == group)
    }
}

impl Serialize for Group<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for number in self.numbers() {
            number.serialize_entry(self.telemetry, &number.log.1, &mut map)?;
        }
        map.end()
    }
}

#[cfg(feature = "tracing")]
mod event {
    use l0_core::{FinishReason, KeepReason, NetworkErrorKind, Outcome, Telemetry};
    use serde::ser::SerializeMap;
    use serde::{Serialize, Serializer};

    use super::{Attempts, LogRecord, numbers};
    use crate::values::{json, millis};

    /// The quantities with separate fields: those of the TypeScript library, by which logs are filtered
    /// and charted. Field names are part of a call site, so they cannot be derived.
    const FIELDS: [&str; 9] = [
        "tokens.total",
        "tokens.per_second",
        "time_to_first_token",
        "retries.total",
        "retries.network",
        "retries.model",
        "network.errors",
        "network.errors_by_type",
        "guardrails.violations",
    ];

    /// All other numbers, by their path in the record.
    struct Others<'a>(&'a Telemetry);

    impl Serialize for Others<'_> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            for number in numbers() {
                if !FIELDS.contains(&number.quantity().name) {
                    let (group, key) = &number.log;
                    number.serialize_entry(self.0, &format!("{group}.{key}"), &mut map)?;
                }
            }
            map.end()
        }
    }

    impl LogRecord<'_> {
        /// Emits the record as one `tracing` event: target `l0`, level INFO, or WARN if the run
        /// ended with another outcome than completed.
        ///
        /// The fields have the record's keys, joined by dots (`metrics.tokens`, `error.type`). Only
        /// `timestamp` becomes `start_time`, because events have their own timestamp. `tracing` cannot create
        /// fields at run time, so the numbers that the TypeScript library does not have share the field
        /// `numbers`. This field, `network.errors_by_type`, `drift.types`, `attempts` and `metadata` are
        /// compact JSON. Unknown and empty values have no field.
        ///
        /// ```
        /// use l0_core::{L0, Monitoring, on_finish};
        /// use l0_export::log::LogRecord;
        ///
        /// // One log line per kept run, however it ended.
        /// let l0 = L0::builder()
        ///     .monitoring(Monitoring::new())
        ///     .interceptor(on_finish(|finished| {
        ///         if let (Some(telemetry), Some(_)) = (finished.telemetry, finished.kept) {
        ///             LogRecord::from(telemetry).emit();
        ///         }
        ///     }))
        ///     .build();
        /// # drop(l0);
        /// ```
        pub fn emit(&self) {
            // The level and the fields are part of a call site, so each level needs one, and only a macro
            // can list the fields once.
            macro_rules! emit {
                ($level:ident, $message:literal) => {
                    if tracing::enabled!(target: "l0", tracing::Level::$level) {
                        let telemetry = self.telemetry;
                        let metrics = &telemetry.metrics;
                        let error = telemetry.error.as_ref();
                        let by_type = &telemetry.network.errors_by_type;
                        let drift = telemetry.drift.as_ref();
                        tracing::event!(
                            target: "l0",
                            tracing::Level::$level,
                            session_id = telemetry.session_id,
                            start_time = telemetry.start_time.as_millis(),
                            duration_ms = telemetry.duration.map(millis),
                            outcome = telemetry.outcome.map(Outcome::as_str),
                            error.type = error.map(|error| &*error.error_type),
                            error.status = error.and_then(|error| error.status),
                            error.message = error.map(|error| &*error.message),
                            kept = telemetry.kept.map(KeepReason::as_str),
                            finish_reason = telemetry.finish_reason.map(FinishReason::as_str),
                            metrics.tokens = metrics.total_tokens,
                            metrics.tokens_per_second = metrics.tokens_per_second,
                            metrics.time_to_first_token_ms =
                                metrics.time_to_first_token.map(millis),
                            metrics.total_retries = metrics.total_retries,
                            metrics.network_retries = metrics.network_retries,
                            metrics.model_retries = metrics.model_retries,
                            network.error_count = telemetry.network.error_count,
                            network.errors_by_type = some(by_type).map(json),
                            guardrails.violation_count =
                                telemetry.guardrails.as_ref().map(|all| all.violation_count),
                            drift.detected = drift.map(|drift| drift.detected()),
                            drift.types = drift.map(|drift| json(&drift.types)),
                            numbers = json(&Others(telemetry)),
                            attempts = (telemetry.attempts.len() > 1)
                                .then(|| json(&Attempts(&telemetry.attempts))),
                            metadata = (!telemetry.metadata.is_empty())
                                .then(|| json(&telemetry.metadata)),
                            $message
                        );
                    }
                };
            }

            match self.telemetry.outcome {
                None => emit!(INFO, "L0 execution running"),
                Some(Outcome::Completed) => emit!(INFO, "L0 execution completed"),
                Some(_) => emit!(WARN, "L0 execution did not complete"),
            }
        }
    }

    type ByType = std::collections::BTreeMap<NetworkErrorKind, u64>;

    fn some(by_type: &ByType) -> Option<&ByType> {
        (!by_type.is_empty()).then_some(by_type)
    }
}
