//! Log records: one telemetry under the keys of a structured log.

use std::collections::BTreeMap;

use l0_core::{
    DriftStats, FinishReason, NetworkErrorKind, Outcome, SeverityCounts, Telemetry, Timestamp,
    Usage,
};
use serde::Serialize;
use serde_json::Value;

#[cfg(feature = "tracing")]
use crate::values::json;
use crate::values::{gaps, millis};

/// What a log says of one run, borrowed from its telemetry.
///
/// Keys are snake case and carry their unit. What is unknown is absent. Numbers that may have
/// decimals always do (`1500.0`), so that a log store that goes by the first record it sees takes
/// them for what they are. All of the metadata is part of it, and no text of the model.
///
/// ```
/// use l0_export::log::LogRecord;
///
/// # let telemetry = l0_core::Telemetry::default();
/// let record = serde_json::to_string(&LogRecord::from(&telemetry))?;
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct LogRecord<'a> {
    /// The run's id.
    pub session_id: &'a str,
    /// When the run started, in ms since the Unix epoch.
    pub timestamp: Timestamp,
    /// From the start to the end, in ms; absent while the run lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<f64>,
    /// How the run ended; absent while it lives.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why the model stopped, if the source said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub finish_reason: Option<FinishReason>,
    /// Times, counts and rates.
    pub metrics: LogMetrics,
    /// The provider's own token counts, if it told them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub usage: Option<LogUsage>,
    /// Network errors.
    pub network: LogNetwork<'a>,
    /// Guardrail violations; absent unless rules were checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub guardrails: Option<LogGuardrails<'a>>,
    /// Drift; absent unless it was looked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub drift: Option<&'a DriftStats>,
    /// The run's metadata.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub metadata: &'a BTreeMap<String, Value>,
}

/// Times, counts and rates of a run. Times are milliseconds; what they mean, [`l0_core::Metrics`]
/// says.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are those of `l0_core::Metrics`")]
pub struct LogMetrics {
    pub tokens: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_second: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_token_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time_to_first_text_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub avg_inter_token_time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p50_inter_token_time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p99_inter_token_time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_inter_token_time_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consumer_hold_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<f64>,
    pub wasted_tokens: u64,
    pub attempts: u32,
    pub total_retries: u32,
    pub network_retries: u32,
    pub model_retries: u32,
}

/// The provider's own token counts; each is absent if it was not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the fields are those of `l0_core::Usage`")]
pub struct LogUsage {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cached_input: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reasoning: Option<u64>,
}

/// The network errors of a run, retried ones included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogNetwork<'a> {
    /// How many.
    pub error_count: u64,
    /// How many of each type.
    pub errors_by_type: &'a BTreeMap<NetworkErrorKind, u64>,
}

/// The guardrail violations of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct LogGuardrails<'a> {
    /// How many.
    pub violation_count: u64,
    /// How many of each severity.
    pub violations_by_severity: SeverityCounts,
    /// How many of each rule.
    pub violations_by_rule: &'a BTreeMap<String, u64>,
}

impl<'a> From<&'a Telemetry> for LogRecord<'a> {
    fn from(telemetry: &'a Telemetry) -> Self {
        let metrics = &telemetry.metrics;
        let gaps = gaps(telemetry);
        Self {
            session_id: &telemetry.session_id,
            timestamp: telemetry.start_time,
            duration_ms: telemetry.duration.map(millis),
            outcome: telemetry.outcome,
            finish_reason: telemetry.finish_reason,
            metrics: LogMetrics {
                tokens: metrics.total_tokens,
                tokens_per_second: metrics.tokens_per_second,
                output_tokens_per_second: metrics.output_tokens_per_second,
                time_to_first_token_ms: metrics.time_to_first_token.map(millis),
                time_to_first_text_ms: metrics.time_to_first_text.map(millis),
                avg_inter_token_time_ms: metrics.avg_inter_token_time.map(millis),
                p50_inter_token_time_ms: gaps.and_then(|gaps| gaps.p50()).map(millis),
                p99_inter_token_time_ms: gaps.and_then(|gaps| gaps.p99()).map(millis),
                max_inter_token_time_ms: gaps.map(|gaps| millis(gaps.max)),
                consumer_hold_ms: metrics.consumer_hold.map(millis),
                wait_ms: metrics.wait.map(millis),
                wasted_tokens: metrics.wasted_tokens,
                attempts: metrics.attempts,
                total_retries: metrics.total_retries,
                network_retries: metrics.network_retries,
                model_retries: metrics.model_retries,
            },
            usage: telemetry.usage.map(LogUsage::from),
            network: LogNetwork {
                error_count: telemetry.network.error_count,
                errors_by_type: &telemetry.network.errors_by_type,
            },
            guardrails: telemetry.guardrails.as_ref().map(|stats| LogGuardrails {
                violation_count: stats.violation_count,
                violations_by_severity: stats.violations_by_severity,
                violations_by_rule: &stats.violations_by_rule,
            }),
            drift: telemetry.drift.as_ref(),
            metadata: &telemetry.metadata,
        }
    }
}

impl From<Usage> for LogUsage {
    fn from(usage: Usage) -> Self {
        Self {
            input: usage.input,
            output: usage.output,
            total: usage.total,
            cached_input: usage.cached_input,
            reasoning: usage.reasoning,
        }
    }
}

#[cfg(feature = "tracing")]
impl LogRecord<'_> {
    /// Writes the record as one event of `tracing`: target `l0`, level INFO, or WARN if the run
    /// ended in another way than completed.
    ///
    /// The fields have the record's keys, joined by dots (`metrics.tokens`); only `timestamp` is
    /// `start_time`, since events have a timestamp of their own. Lists and maps are
    /// compact JSON: `usage`, `network.errors_by_type`, `guardrails.violations_by_severity`,
    /// `guardrails.violations_by_rule`, `drift.types`, `metadata`. What is unknown or empty is no
    /// field.
    ///
    /// ```
    /// use l0_core::{Event, Interest, L0, Monitoring, observe_fn};
    /// use l0_export::log::LogRecord;
    ///
    /// // One line of log per measured run, on every exit.
    /// let log = observe_fn(|_run, event| {
    ///     if let Event::Finished { telemetry: Some(telemetry), .. } = event {
    ///         LogRecord::from(*telemetry).emit();
    ///     }
    /// });
    /// let l0 = L0::builder()
    ///     .monitoring(Monitoring::new())
    ///     .interceptor(log.interest(Interest::LIFECYCLE))
    ///     .build();
    /// # drop(l0);
    /// ```
    pub fn emit(&self) {
        // The level of an event is part of its call site, so there are two; and a call site's
        // fields can only be listed in the macro itself.
        macro_rules! emit {
            ($level:ident, $message:literal) => {
                if tracing::enabled!(target: "l0", tracing::Level::$level) {
                    let metrics = &self.metrics;
                    let guardrails = self.guardrails.as_ref();
                    let severities = guardrails.map(|g| json(&g.violations_by_severity));
                    tracing::event!(
                        target: "l0",
                        tracing::Level::$level,
                        session_id = self.session_id,
                        start_time = self.timestamp.as_millis(),
                        duration_ms = self.duration_ms,
                        outcome = self.outcome.map(Outcome::as_str),
                        finish_reason = self.finish_reason.map(FinishReason::as_str),
                        metrics.tokens = metrics.tokens,
                        metrics.tokens_per_second = metrics.tokens_per_second,
                        metrics.output_tokens_per_second = metrics.output_tokens_per_second,
                        metrics.time_to_first_token_ms = metrics.time_to_first_token_ms,
                        metrics.time_to_first_text_ms = metrics.time_to_first_text_ms,
                        metrics.avg_inter_token_time_ms = metrics.avg_inter_token_time_ms,
                        metrics.p50_inter_token_time_ms = metrics.p50_inter_token_time_ms,
                        metrics.p99_inter_token_time_ms = metrics.p99_inter_token_time_ms,
                        metrics.max_inter_token_time_ms = metrics.max_inter_token_time_ms,
                        metrics.consumer_hold_ms = metrics.consumer_hold_ms,
                        metrics.wait_ms = metrics.wait_ms,
                        metrics.wasted_tokens = metrics.wasted_tokens,
                        metrics.attempts = metrics.attempts,
                        metrics.total_retries = metrics.total_retries,
                        metrics.network_retries = metrics.network_retries,
                        metrics.model_retries = metrics.model_retries,
                        usage = self.usage.as_ref().map(json),
                        network.error_count = self.network.error_count,
                        network.errors_by_type = json_of_some(self.network.errors_by_type),
                        guardrails.violation_count = guardrails.map(|g| g.violation_count),
                        guardrails.violations_by_severity = severities,
                        guardrails.violations_by_rule =
                            guardrails.and_then(|g| json_of_some(g.violations_by_rule)),
                        drift.detected = self.drift.map(|drift| drift.detected),
                        drift.types = self.drift.map(|drift| json(&drift.types)),
                        metadata = json_of_some(self.metadata),
                        $message
                    );
                }
            };
        }

        match self.outcome {
            None => emit!(INFO, "L0 execution running"),
            Some(Outcome::Completed) => emit!(INFO, "L0 execution completed"),
            Some(_) => emit!(WARN, "L0 execution did not complete"),
        }
    }
}

#[cfg(feature = "tracing")]
fn json_of_some<K: Serialize + Ord, V: Serialize>(map: &BTreeMap<K, V>) -> Option<String> {
    (!map.is_empty()).then(|| json(map))
}
