//! The measurements of a run, as plain data with the JSON names of the TypeScript L0.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize, Serializer};

use crate::attempt_stats::{AttemptStats, merge, plus};
use crate::distribution::Distribution;
use crate::failure::NetworkErrorKind;
use crate::keep::KeepReason;
use crate::metadata::Metadata;
use crate::price::Cost;
use crate::stats::{DriftStats, ErrorRecord, GuardrailStats, add_up};
use crate::token::FinishReason;
use crate::units::{millis, rate};
use crate::usage::Usage;
use crate::verdict::Outcome;

/// A point in wall-clock time, in whole milliseconds since the Unix epoch.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(u64);

impl Timestamp {
    /// Creates a timestamp from milliseconds since the Unix epoch.
    #[must_use]
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Returns the milliseconds since the Unix epoch.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Reads the wall clock. A clock set before 1970 gives 0.
    #[must_use]
    pub fn now() -> Self {
        SystemTime::now().into()
    }

    /// Returns this point plus `duration`, truncated to whole milliseconds.
    pub(crate) fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(saturating_millis(duration)))
    }
}

impl From<SystemTime> for Timestamp {
    fn from(time: SystemTime) -> Self {
        Self(time.duration_since(UNIX_EPOCH).map_or(0, saturating_millis))
    }
}

impl From<Timestamp> for SystemTime {
    fn from(timestamp: Timestamp) -> Self {
        UNIX_EPOCH + Duration::from_millis(timestamp.0)
    }
}

fn saturating_millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The measurements of one run: a snapshot while it runs, final once it has ended.
///
/// An unknown value is absent, never 0. In JSON, durations are milliseconds with nanosecond precision
/// up to 99 days. A JSON number cannot hold that precision for longer durations. Rates have three
/// decimals. Written records read back equal. [`Display`](fmt::Display) prints a summary for people.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Telemetry {
    /// The run's id.
    pub session_id: String,
    /// The id of the run that this run serves. `None` if it serves none.
    pub parent_id: Option<String>,
    /// When the run started, by the wall clock.
    pub start_time: Timestamp,
    /// The time from start to end. `None` in a snapshot of a live run.
    #[serde(with = "millis::option")]
    pub duration: Option<Duration>,
    /// How the run ended. `None` while it runs.
    pub outcome: Option<Outcome>,
    /// Why the run did not complete. `None` if it completed or was dropped.
    pub error: Option<ErrorRecord>,
    /// Why per-run exporters send this run. `None` while it runs, and if they do not send it. See
    /// [`Monitoring::keep`](crate::Monitoring::keep).
    pub kept: Option<KeepReason>,
    /// Why the model stopped. `None` if the source did not report a reason.
    pub finish_reason: Option<FinishReason>,
    /// The provider's own token counts for the final attempt. `None` if its source reported none.
    pub usage: Option<Usage>,
    /// The provider's own token counts for all attempts before the final one, added up. `None` if no
    /// source reported any. See [`billed`](Self::billed).
    pub wasted_usage: Option<Usage>,
    /// The cost of the final attempt; see [`AttemptStats::cost`]. `None` if unknown.
    #[serde(deserialize_with = "Cost::read_back")]
    pub cost: Option<Cost>,
    /// The cost of all attempts before the final one, added up. `None` if no cost is known, or if the
    /// currencies differ; the attempts list each cost. See [`total_cost`](Self::total_cost).
    #[serde(deserialize_with = "Cost::read_back")]
    pub wasted_cost: Option<Cost>,
    /// The estimated usage that providers did not report for attempts that ended early, added up. See
    /// [`AttemptStats::estimated_usage`]. `None` without an estimate.
    pub estimated_usage: Option<Usage>,
    /// The cost of the estimated usage of all attempts, computed from prices and added up. The other
    /// costs do not include it. `None` if no cost is known, or if the currencies differ.
    #[serde(deserialize_with = "Cost::read_back")]
    pub estimated_cost: Option<Cost>,
    /// Times, counts and rates.
    pub metrics: Metrics,
    /// Network errors.
    pub network: Network,
    /// Guardrail violations. `None` until rules are checked.
    pub guardrails: Option<GuardrailStats>,
    /// Drift. `None` until drift is checked.
    pub drift: Option<DriftStats>,
    /// The attempts, in order: at most [`AttemptStats::MAX`] entries. Empty if no source was called,
    /// and in records of versions that did not list attempts.
    #[serde(deserialize_with = "AttemptStats::read_back")]
    pub attempts: Vec<AttemptStats>,
    /// The metadata of the run. Custom events are under the key `customEvents`.
    pub metadata: Metadata,
}

/// Times, counts and rates of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Metrics {
    /// The time from the start of the run to its first token of any kind, failed attempts included.
    /// `None` without a token or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub time_to_first_token: Option<Duration>,
    /// The time from the start of the run to its first token of the answer itself. Reasoning and tool
    /// calls do not count. `None` without such a token or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub time_to_first_text: Option<Duration>,
    /// The mean gap between two tokens of one attempt. `None` without a gap or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub avg_inter_token_time: Option<Duration>,
    /// Tokens per second over the whole duration, to three decimals. `None` without a token, for a
    /// duration of zero, before the end, or without timings.
    #[serde(with = "rate", skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// Tokens per second while tokens flow, to three decimals: the number of gaps divided by their sum.
    /// The time to the first token and back-off do not count. `None` without a gap, for gaps of zero,
    /// or without timings.
    #[serde(with = "rate", skip_serializing_if = "Option::is_none")]
    pub output_tokens_per_second: Option<f64>,
    /// Tokens of all attempts. One stream item is one token.
    pub total_tokens: u64,
    /// Tokens of attempts before the final one. Included in [`total_tokens`](Self::total_tokens).
    pub wasted_tokens: u64,
    /// Attempts: calls of a source.
    pub attempts: u32,
    /// All retries: the sum of network and model retries.
    pub total_retries: u32,
    /// Retries for network errors, rate limits and server errors.
    #[serde(alias = "networkRetryCount")]
    pub network_retries: u32,
    /// Retries because of the model's answers.
    #[serde(alias = "modelRetryCount")]
    pub model_retries: u32,
    /// The gaps between two tokens of one attempt, from arrival to arrival. `None` without a gap or
    /// without timings.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inter_token: Option<Distribution>,
    /// The time that the run waited for its consumer. It is measured from each item yielded until the
    /// source was next found pending, or until the next arrival if the source was ready at once. `None`
    /// before the end or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub consumer_hold: Option<Duration>,
    /// The rest of the duration: the time spent waiting for the source, back-off included. `None`
    /// before the end or without timings.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub wait: Option<Duration>,
}

impl Metrics {
    /// Sets the averages derived from the gaps.
    pub(crate) fn read_gaps(&mut self) {
        let gaps = self.inter_token.as_ref().filter(|gaps| !gaps.is_empty());
        if let Some(gaps) = gaps {
            let nanos = u64::try_from(gaps.sum().as_nanos()).unwrap_or(u64::MAX);
            self.avg_inter_token_time = Some(Duration::from_nanos(nanos / gaps.count()));
            self.output_tokens_per_second = rate::per_second(gaps.count(), nanos);
        }
    }
}

/// The network errors of a run, retried ones included.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[non_exhaustive]
pub struct Network {
    /// The number of errors.
    pub error_count: u64,
    /// The number of errors of each type.
    #[serde(deserialize_with = "add_up")]
    pub errors_by_type: BTreeMap<NetworkErrorKind, u64>,
    /// The latest errors, oldest first, at most [`MAX_ERRORS`](Self::MAX_ERRORS). `None` if network
    /// details are off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub errors: Option<Vec<NetworkErrorRecord>>,
}

impl Network {
    /// The number of errors kept in detail. The counts stay exact beyond it.
    pub const MAX_ERRORS: usize = 100;
}

/// One network error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct NetworkErrorRecord {
    /// The type of the error.
    #[serde(rename = "type")]
    pub kind: NetworkErrorKind,
    /// What happened. The text is redacted, and by default in L0's own words; see
    /// [`Monitoring::error_text`](crate::Monitoring::error_text).
    pub message: String,
    /// The wall-clock time of the error.
    pub timestamp: Timestamp,
    retried: bool,
    #[serde(
        with = "millis::option",
        skip_serializing_if = "Option::is_none",
        default
    )]
    delay: Option<Duration>,
    /// The number of the attempt that failed, from 1. `None` if unknown.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub attempt: Option<u32>,
}

impl NetworkErrorRecord {
    /// Creates a record of an error that was not retried.
    #[must_use]
    pub fn new(kind: NetworkErrorKind, message: impl Into<String>, timestamp: Timestamp) -> Self {
        Self {
            kind,
            message: message.into(),
            timestamp,
            retried: false,
            delay: None,
            attempt: None,
        }
    }

    /// Sets that a retry followed, with its delay if known.
    #[must_use]
    pub fn retried(mut self, delay: Option<Duration>) -> Self {
        self.retried = true;
        self.delay = delay;
        self
    }

    /// Sets the number of the attempt that failed, from 1.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = Some(attempt);
        self
    }

    /// Returns `true` if a retry followed.
    #[must_use]
    pub const fn was_retried(&self) -> bool {
        self.retried
    }

    /// Returns the delay before the retry, or `None` without a retry or if the delay is unknown.
    #[must_use]
    pub const fn delay(&self) -> Option<Duration> {
        self.delay
    }
}

/// The key numbers of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct Summary<'a> {
    /// The run's id.
    pub session_id: &'a str,
    /// The time from start to end. `None` while the run is live.
    #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
    pub duration: Option<Duration>,
    /// Tokens of all attempts.
    pub tokens: u64,
    /// Tokens per second over the whole duration. `None` as in [`Metrics`].
    #[serde(with = "rate", skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// All retries.
    pub retries: u32,
    /// Network errors, retried ones included.
    pub network_errors: u64,
    /// Guardrail violations.
    pub violations: u64,
}

impl Telemetry {
    /// Returns the wall-clock time at which the run ended, or `None` while it runs.
    ///
    /// It is the start time plus the duration measured by the monotonic clock, in whole milliseconds.
    /// In JSON it is `endTime`.
    #[must_use]
    pub fn end_time(&self) -> Option<Timestamp> {
        Some(self.start_time.after(self.duration?))
    }

    /// Returns the provider's own token counts for all attempts, added up: the billed usage. Returns
    /// `None` if no source reported any.
    ///
    /// Adapters that send numbers send these counts, because [`Quantity`](crate::Quantity) reads them.
    #[must_use]
    pub fn billed(&self) -> Option<Usage> {
        plus(self.usage, self.wasted_usage)
    }

    /// Returns the cost of all attempts, added up: the bill, as far as it is known. Returns `None` if
    /// no cost is known, or if the currencies differ.
    #[must_use]
    pub fn total_cost(&self) -> Option<Cost> {
        if self.attempts.is_empty() {
            return Cost::sum(self.cost.into_iter().chain(self.wasted_cost));
        }
        Cost::sum(self.attempts.iter().filter_map(|attempt| attempt.cost))
    }

    /// Returns the cost of each attempt before the final one.
    pub(crate) fn wasted_costs(&self) -> impl Iterator<Item = Cost> {
        // In the part of an abandoned source, the last attempt was wasted too.
        let answer = usize::from(self.cost.is_some() && !self.attempts.is_empty());
        let wasted = &self.attempts[..self.attempts.len() - answer];
        // Records of versions that did not list attempts hold only the sum.
        let sum = self.wasted_cost.filter(|_| self.attempts.is_empty());
        wasted.iter().filter_map(|attempt| attempt.cost).chain(sum)
    }

    /// Returns the number of attempts that reported usage for a model without a known price.
    #[must_use]
    pub fn unpriced(&self) -> u32 {
        let attempts = self.attempts.iter();
        attempts.fold(0, |sum, attempt| sum.saturating_add(attempt.unpriced))
    }

    /// Returns why the model stopped, as semantic conventions define it for a response.
    ///
    /// Returns `error` if the run failed after the model began to answer and the source reported no
    /// reason. Returns `None` in all other cases without a reason: the model had not begun, the run
    /// completed, or the consumer dropped the run, which is not an error of the model.
    #[must_use]
    pub fn finish_reason_or_error(&self) -> Option<&'static str> {
        // Tokens of the final attempt; all others are wasted.
        let begun = self.metrics.total_tokens > self.metrics.wasted_tokens;
        let failed = self.outcome.is_some_and(Outcome::is_failure);
        let given = self.finish_reason.map(FinishReason::as_str);
        given.or((begun && failed).then_some("error"))
    }

    /// Returns the key numbers of the run.
    #[must_use]
    pub fn summary(&self) -> Summary<'_> {
        Summary {
            session_id: &self.session_id,
            duration: self.duration,
            tokens: self.metrics.total_tokens,
            tokens_per_second: self.metrics.tokens_per_second,
            retries: self.metrics.total_retries,
            network_errors: self.network.error_count,
            violations: self.violation_count(),
        }
    }

    /// Returns the network errors by type.
    #[must_use]
    pub fn network_error_breakdown(&self) -> &BTreeMap<NetworkErrorKind, u64> {
        &self.network.errors_by_type
    }

    /// Returns the most frequent network error type, or `None` without network errors. If several are
    /// equally frequent, returns the first in the order of [`NetworkErrorKind::ALL`].
    #[must_use]
    pub fn most_common_network_error(&self) -> Option<NetworkErrorKind> {
        let by_type = &self.network.errors_by_type;
        // `max_by_key` returns the last of equal elements, so iterate in reverse.
        by_type
            .iter()
            .rev()
            .max_by_key(|(_, count)| **count)
            .map(|(kind, _)| *kind)
    }

    /// Returns `true` if there were network errors, retried ones included.
    #[must_use]
    pub fn has_network_errors(&self) -> bool {
        self.network.error_count > 0
    }

    /// Returns `true` if there were guardrail violations.
    #[must_use]
    pub fn has_violations(&self) -> bool {
        self.violation_count() > 0
    }

    /// Returns the number of times that the run moved on to its next source, even if it ended before
    /// calling it.
    #[must_use]
    pub fn fallbacks(&self) -> u32 {
        let attempts = self.attempts.iter();
        attempts.fold(0, |sum, attempt| sum.saturating_add(attempt.fallbacks))
    }

    /// Calls `visit` with the numbers of each source that was called, in order. Each number can then be
    /// recorded under the labels of the model it belongs to.
    ///
    /// Measurements of attempts belong to their source: tokens, usage, cost, network errors, retries,
    /// gaps, the rate while tokens flow, violations and drift. What the run measures as a whole belongs
    /// to the last source tried: duration, time to first token, rates and waits, outcome and error.
    ///
    /// The parts add up to the run's totals. Drift and unknown prices are the exception: they count
    /// once per run in the totals, but once for each source that had them in the parts. A run with one
    /// source has one part, which is the run itself.
    pub fn by_source(&self, visit: &mut dyn FnMut(SourcePart<'_>)) {
        let last = self.attempts.last().map_or(1, |attempt| attempt.source);
        if self.attempts.iter().all(|attempt| attempt.source == last) {
            return visit(SourcePart {
                source: last,
                is_last: true,
                telemetry: self,
            });
        }
        let mut rest = &*self.attempts;
        while let Some(source) = rest.first().map(|attempt| attempt.source) {
            let end = rest.iter().position(|attempt| attempt.source != source);
            let (attempts, others) = rest.split_at(end.unwrap_or(rest.len()));
            rest = others;
            visit(SourcePart {
                source,
                is_last: rest.is_empty(),
                telemetry: &self.part(attempts, rest.is_empty()),
            });
        }
    }

    /// Returns the part made of some attempts of one source.
    fn part(&self, attempts: &[AttemptStats], is_last: bool) -> Self {
        let mut part = Self {
            session_id: self.session_id.clone(),
            start_time: self.start_time,
            guardrails: self.guardrails.as_ref().map(|_| GuardrailStats::default()),
            drift: self.drift.as_ref().map(|_| DriftStats::default()),
            ..Self::default()
        };
        if is_last {
            part.duration = self.duration;
            part.outcome = self.outcome;
            part.error = self.error.clone();
            part.finish_reason = self.finish_reason;
            part.metrics = Metrics {
                time_to_first_token: self.metrics.time_to_first_token,
                time_to_first_text: self.metrics.time_to_first_text,
                tokens_per_second: self.metrics.tokens_per_second,
                consumer_hold: self.metrics.consumer_hold,
                wait: self.metrics.wait,
                ..Metrics::default()
            };
        }
        part.add_attempts(attempts, is_last);
        if self.billed().is_some_and(|usage| usage.total.is_some()) {
            // A usage without a total still contributes to the run's total.
            part.usage = part.usage.map(Usage::with_total);
            part.wasted_usage = part.wasted_usage.map(Usage::with_total);
        }
        part.attempts = attempts.to_vec();
        part
    }

    /// Adds the measurements of attempts to the totals. `has_answer` is `true` if the last one is the
    /// run's final attempt.
    pub(crate) fn add_attempts(&mut self, attempts: &[AttemptStats], has_answer: bool) {
        let (answer, wasted) = match attempts.split_last() {
            Some((last, before)) if has_answer => (Some(last), before),
            _ => (None, attempts),
        };
        for attempt in wasted {
            self.add_attempt(attempt, false);
        }
        if let Some(attempt) = answer {
            self.add_attempt(attempt, true);
            self.cost = attempt.cost;
        }
        self.wasted_cost = Cost::sum(wasted.iter().filter_map(|attempt| attempt.cost));
        self.estimated_cost = Cost::sum(attempts.iter().filter_map(|one| one.estimated_cost));
        self.metrics.read_gaps();
    }

    /// Adds the measurements of one attempt to the totals. `is_answer` is `true` if it is the run's
    /// final attempt.
    fn add_attempt(&mut self, attempt: &AttemptStats, is_answer: bool) {
        let metrics = &mut self.metrics;
        metrics.total_tokens = metrics.total_tokens.saturating_add(attempt.tokens);
        metrics.attempts = metrics.attempts.saturating_add(attempt.count);
        let (network, model) = (attempt.network_retries, attempt.model_retries);
        metrics.network_retries = metrics.network_retries.saturating_add(network);
        metrics.model_retries = metrics.model_retries.saturating_add(model);
        metrics.total_retries = metrics
            .network_retries
            .saturating_add(metrics.model_retries);
        merge(
            &mut metrics.inter_token,
            attempt.inter_token.as_ref(),
            Distribution::merge,
        );
        self.estimated_usage = plus(self.estimated_usage, attempt.estimated_usage);
        if is_answer {
            self.usage = attempt.usage;
            self.finish_reason = attempt.finish_reason;
        } else {
            metrics.wasted_tokens = metrics.wasted_tokens.saturating_add(attempt.tokens);
            self.wasted_usage = plus(self.wasted_usage, attempt.usage);
        }
        for (kind, count) in &attempt.network_errors {
            let of_kind = self.network.errors_by_type.entry(*kind).or_default();
            *of_kind = of_kind.saturating_add(*count);
            self.network.error_count = self.network.error_count.saturating_add(*count);
        }
        merge(
            &mut self.guardrails,
            attempt.guardrails.as_ref(),
            GuardrailStats::merge,
        );
        merge(&mut self.drift, attempt.drift.as_ref(), DriftStats::merge);
    }

    fn violation_count(&self) -> u64 {
        self.guardrails
            .as_ref()
            .map_or(0, |stats| stats.violation_count)
    }
}

impl AttemptStats {
    /// Returns the telemetry of a run that made this attempt only, to read [quantities](crate::Quantity)
    /// from. It has no session id, start time or metadata.
    #[must_use]
    pub fn to_telemetry(&self) -> Telemetry {
        let mut alone = Telemetry {
            duration: self.duration,
            outcome: self.outcome,
            error: self.error.clone(),
            attempts: vec![self.clone()],
            ..Telemetry::default()
        };
        alone.metrics.time_to_first_token = self.time_to_first_token;
        alone.add_attempts(std::slice::from_ref(self), true);
        alone
    }
}

/// The numbers of one source that a run called; see [`Telemetry::by_source`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct SourcePart<'t> {
    /// The number of the source, from 1.
    pub source: u32,
    /// `true` if this source was tried last. Its part then includes what belongs to the run as a whole;
    /// count the request itself here.
    pub is_last: bool,
    /// The source's part of the telemetry.
    pub telemetry: &'t Telemetry,
}

/// The JSON form: `endTime` is derived, and absent parts are omitted.
impl Serialize for Telemetry {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Json<'a> {
            session_id: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            parent_id: Option<&'a str>,
            start_time: Timestamp,
            #[serde(skip_serializing_if = "Option::is_none")]
            end_time: Option<Timestamp>,
            #[serde(with = "millis::option", skip_serializing_if = "Option::is_none")]
            duration: Option<Duration>,
            #[serde(skip_serializing_if = "Option::is_none")]
            outcome: Option<Outcome>,
            #[serde(skip_serializing_if = "Option::is_none")]
            error: Option<&'a ErrorRecord>,
            #[serde(skip_serializing_if = "Option::is_none")]
            kept: Option<KeepReason>,
            #[serde(skip_serializing_if = "Option::is_none")]
            finish_reason: Option<FinishReason>,
            #[serde(skip_serializing_if = "Option::is_none")]
            usage: Option<Usage>,
            #[serde(skip_serializing_if = "Option::is_none")]
            wasted_usage: Option<Usage>,
            #[serde(skip_serializing_if = "Option::is_none")]
            cost: Option<Cost>,
            #[serde(skip_serializing_if = "Option::is_none")]
            wasted_cost: Option<Cost>,
            #[serde(skip_serializing_if = "Option::is_none")]
            estimated_usage: Option<Usage>,
            #[serde(skip_serializing_if = "Option::is_none")]
            estimated_cost: Option<Cost>,
            metrics: &'a Metrics,
            network: &'a Network,
            #[serde(skip_serializing_if = "Option::is_none")]
            guardrails: Option<&'a GuardrailStats>,
            #[serde(skip_serializing_if = "Option::is_none")]
            drift: Option<&'a DriftStats>,
            #[serde(skip_serializing_if = "<[_]>::is_empty")]
            attempts: &'a [AttemptStats],
            #[serde(skip_serializing_if = "has_no_entry")]
            metadata: &'a Metadata,
        }

        Json {
            session_id: &self.session_id,
            parent_id: self.parent_id.as_deref(),
            start_time: self.start_time,
            end_time: self.end_time(),
            duration: self.duration,
            outcome: self.outcome,
            error: self.error.as_ref(),
            kept: self.kept,
            finish_reason: self.finish_reason,
            usage: self.usage,
            wasted_usage: self.wasted_usage,
            cost: self.cost,
            wasted_cost: self.wasted_cost,
            estimated_usage: self.estimated_usage,
            estimated_cost: self.estimated_cost,
            metrics: &self.metrics,
            network: &self.network,
            guardrails: self.guardrails.as_ref(),
            drift: self.drift.as_ref(),
            attempts: &self.attempts,
            metadata: &self.metadata,
        }
        .serialize(serializer)
    }
}

fn has_no_entry(metadata: &Metadata) -> bool {
    metadata.is_empty()
}

/// A summary for people, one line per value. Unknown values have no line.
impl fmt::Display for Telemetry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fn millis(duration: Duration) -> String {
            format!("{:.1} ms", duration.as_secs_f64() * 1e3)
        }

        let metrics = &self.metrics;
        writeln!(f, "--- Telemetry ---")?;
        writeln!(f, "Session: {}", self.session_id)?;
        if let Some(outcome) = self.outcome {
            writeln!(f, "Outcome: {outcome}")?;
        }
        if let Some(ErrorRecord {
            error_type,
            message,
            ..
        }) = &self.error
        {
            writeln!(f, "Error: {error_type}: {message}")?;
        }
        if let Some(finish) = self.finish_reason {
            writeln!(f, "Finish reason: {}", finish.as_str())?;
        }
        if let Some(duration) = self.duration {
            writeln!(f, "Duration: {}", millis(duration))?;
        }
        if let Some(first) = metrics.time_to_first_token {
            writeln!(f, "Time to first token: {}", millis(first))?;
        }
        if let Some(gaps) = &metrics.inter_token {
            let (p50, p99) = (gaps.p50(), gaps.p99());
            if let (Some(p50), Some(p99)) = (p50, p99) {
                writeln!(
                    f,
                    "Gaps: p50 {}, p99 {}, max {}",
                    millis(p50),
                    millis(p99),
                    millis(gaps.max())
                )?;
            }
        }
        write!(f, "Tokens: {}", metrics.total_tokens)?;
        if metrics.wasted_tokens > 0 {
            write!(f, " ({} wasted)", metrics.wasted_tokens)?;
        }
        writeln!(f)?;
        if let Some(rate) = metrics.tokens_per_second {
            writeln!(f, "Tokens/sec: {rate:.2}")?;
        }
        if let Some(rate) = metrics.output_tokens_per_second {
            writeln!(f, "Tokens/sec while streaming: {rate:.2}")?;
        }
        for (name, usage) in [
            ("Usage", self.usage),
            ("Wasted usage", self.wasted_usage),
            ("Estimated usage", self.estimated_usage),
        ] {
            let Some(Usage { input, output, .. }) = usage else {
                continue;
            };
            let tokens = |count: Option<u64>| {
                count.map_or_else(|| "unknown".to_owned(), |count| count.to_string())
            };
            writeln!(
                f,
                "{name}: {} input, {} output",
                tokens(input),
                tokens(output)
            )?;
        }
        for (name, cost) in [
            ("Cost", self.cost),
            ("Wasted cost", self.wasted_cost),
            ("Estimated cost", self.estimated_cost),
        ] {
            if let Some(cost) = cost {
                writeln!(f, "{name}: {cost}")?;
            }
        }
        if self.fallbacks() > 0 {
            for attempt in &self.attempts {
                write!(f, "Attempt {}", attempt.number)?;
                if let Some(more @ 1..) = attempt.count.checked_sub(1) {
                    write!(f, " to {}", attempt.number.saturating_add(more))?;
                }
                match &attempt.model {
                    Some(model) => write!(f, ", {model}")?,
                    None => write!(f, ", source {}", attempt.source)?,
                }
                // Two providers can serve the same model.
                if let Some(provider) = &attempt.provider {
                    write!(f, " of {provider}")?;
                }
                let plural = if attempt.tokens == 1 { "" } else { "s" };
                write!(f, ": {} token{plural}", attempt.tokens)?;
                if let Some(ErrorRecord { message, .. }) = &attempt.error {
                    write!(f, ", {message}")?;
                }
                writeln!(f)?;
            }
        }
        if self.fallbacks() > 0 {
            writeln!(f, "Fallbacks: {}", self.fallbacks())?;
        }
        writeln!(
            f,
            "Retries: {} ({} network, {} model)",
            metrics.total_retries, metrics.network_retries, metrics.model_retries
        )?;
        write!(f, "Network errors: {}", self.network.error_count)?;
        for (index, (kind, count)) in self.network.errors_by_type.iter().enumerate() {
            let separator = if index == 0 { " (" } else { ", " };
            write!(f, "{separator}{kind}: {count}")?;
        }
        if !self.network.errors_by_type.is_empty() {
            write!(f, ")")?;
        }
        if let Some(guardrails) = &self.guardrails {
            write!(f, "\nViolations: {}", guardrails.violation_count)?;
        }
        if let Some(drift) = &self.drift {
            write!(
                f,
                "\nDrift: {}",
                if drift.detected() {
                    drift.types.join(", ")
                } else {
                    "none".to_owned()
                }
            )?;
        }
        Ok(())
    }
}
