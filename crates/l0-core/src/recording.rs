//! Recording: what one measured run measured so far.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::clock;
use crate::distribution::Histogram;
use crate::end::End;
use crate::event::RetryKind;
use crate::failure::NetworkErrorKind;
use crate::metadata::Metadata;
use crate::monitoring::Monitoring;
use crate::telemetry::{
    DriftStats, ErrorRecord, GuardrailStats, Metrics, Network, NetworkErrorRecord, Telemetry,
    Timestamp,
};
use crate::token::{FinishReason, TokenKind, TokenView, Usage};
use crate::units::rate;
use crate::verdict::{DriftReport, Violation};

/// How many custom events are kept; further ones are dropped.
pub(crate) const MAX_CUSTOM_EVENTS: usize = 100;

/// What was measured so far. Times are nanoseconds since `start`.
pub(crate) struct Recording {
    session_id: Arc<str>,
    metadata: Metadata,
    custom_events: Vec<Value>,
    start: Instant,
    start_time: Timestamp,
    end: Option<u64>,
    ended: Option<End>,
    finish_reason: Option<FinishReason>,
    usage: Option<Usage>,
    wasted_usage: Option<Usage>,
    total_tokens: u64,
    attempt_tokens: u64,
    wasted_tokens: u64,
    attempts: u32,
    network_retries: u32,
    model_retries: u32,
    first_token: Option<u64>,
    first_text: Option<u64>,
    /// The last token of this attempt.
    last_token: Option<u64>,
    /// When the last item was handed out, while the consumer holds the run up.
    handed_out: Option<u64>,
    hold: u64,
    /// Absent without timings.
    gaps: Option<Histogram>,
    errors_by_type: BTreeMap<NetworkErrorKind, u64>,
    /// Absent without network details.
    errors: Option<VecDeque<NetworkErrorRecord>>,
    guardrails: Option<Box<GuardrailStats>>,
    drift: Option<DriftStats>,
}

/// What a token's arrival told, in nanoseconds.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Arrival {
    /// Since the start of the run; only for its first token.
    pub(crate) first: Option<u64>,
    /// Since the token before, of the same attempt.
    pub(crate) gap: Option<u64>,
}

impl Recording {
    /// Starts to measure a run.
    pub(crate) fn start(
        monitoring: &Monitoring,
        session_id: Arc<str>,
        metadata: Metadata,
        start_time: Timestamp,
        start: Instant,
    ) -> Self {
        Self {
            session_id,
            metadata,
            custom_events: Vec::new(),
            start,
            start_time,
            end: None,
            ended: None,
            finish_reason: None,
            usage: None,
            wasted_usage: None,
            total_tokens: 0,
            attempt_tokens: 0,
            wasted_tokens: 0,
            attempts: 0,
            network_retries: 0,
            model_retries: 0,
            first_token: None,
            first_text: None,
            last_token: None,
            handed_out: None,
            hold: 0,
            gaps: monitoring.include_timings.then(Histogram::new),
            errors_by_type: BTreeMap::new(),
            errors: monitoring.include_network_details.then(VecDeque::new),
            guardrails: None,
            drift: None,
        }
    }

    /// Moves the start to now.
    pub(crate) fn restart(&mut self) {
        self.start = clock::now();
        self.start_time = Timestamp::now();
    }

    /// Counts an attempt.
    pub(crate) fn attempt(&mut self) {
        self.attempts += 1;
    }

    /// Returns whether tokens are timed.
    pub(crate) fn timed(&self) -> bool {
        self.gaps.is_some()
    }

    /// Returns whether the run has ended.
    #[inline]
    pub(crate) fn is_final(&self) -> bool {
        self.end.is_some()
    }

    /// Nanoseconds since the start; a time before it is 0.
    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        // A u64 holds 584 years.
        since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
    }

    /// Records an item; `arrived` is given if arrivals are timed.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) -> Arrival {
        if view.usage.is_some() {
            self.usage = view.usage;
        }
        if view.finish.is_some() {
            self.finish_reason = view.finish;
        }
        let now = self.timed_nanos(arrived);
        let mut arrival = Arrival::default();
        if view.is_token() {
            arrival = self.token(now);
            if self.first_text.is_none() && view.kind == TokenKind::Text {
                self.first_text = now;
            }
        }
        if let Some(now) = now {
            self.take_hold(now);
            self.handed_out = Some(now);
        }
        arrival
    }

    /// Counts a token that arrived at this time.
    #[inline]
    pub(crate) fn token_at(&mut self, arrived: Option<Instant>) {
        self.token(self.timed_nanos(arrived));
    }

    /// Counts a token. `now` is given if tokens are timed.
    #[inline]
    fn token(&mut self, now: Option<u64>) -> Arrival {
        self.total_tokens += 1;
        self.attempt_tokens += 1;
        let mut arrival = Arrival::default();
        let (Some(now), Some(gaps)) = (now, &mut self.gaps) else {
            return arrival;
        };
        if self.first_token.is_none() {
            self.first_token = Some(now);
            arrival.first = Some(now);
        }
        if let Some(before) = self.last_token.replace(now) {
            let gap = now.saturating_sub(before);
            gaps.record(gap);
            arrival.gap = Some(gap);
        }
        arrival
    }

    /// The time of an arrival, if tokens are timed.
    #[inline]
    fn timed_nanos(&self, arrived: Option<Instant>) -> Option<u64> {
        self.gaps.as_ref()?;
        Some(self.nanos(arrived?))
    }

    /// Ends the consumer's hold, if there is one.
    #[inline]
    fn take_hold(&mut self, now: u64) {
        if let Some(since) = self.handed_out.take() {
            self.hold += now.saturating_sub(since);
        }
    }

    /// The consumer is back, and the source is pending.
    pub(crate) fn pending(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.take_hold(now);
    }

    /// A chunk other than an item was handed out.
    pub(crate) fn handed_out(&mut self, now: Instant) {
        let now = self.nanos(now);
        self.take_hold(now);
        self.handed_out = Some(now);
    }

    /// Records a network error that happened now. The timestamp of the record is set here.
    pub(crate) fn network_error(&mut self, mut error: NetworkErrorRecord) {
        *self.errors_by_type.entry(error.kind).or_default() += 1;
        if self.errors.is_none() {
            return;
        }
        error.timestamp = self.timestamp();
        let errors = self.errors.get_or_insert_default();
        if errors.len() == Network::MAX_ERRORS {
            errors.pop_front();
        }
        errors.push_back(error);
    }

    /// Counts a retry.
    pub(crate) fn retry(&mut self, kind: RetryKind) {
        match kind {
            RetryKind::Network => self.network_retries += 1,
            RetryKind::Model => self.model_retries += 1,
        }
    }

    /// Counts the tokens and the usage of the attempt so far as wasted, and forgets what it told:
    /// another one begins.
    pub(crate) fn throw_away(&mut self) {
        self.wasted_tokens += self.attempt_tokens;
        self.attempt_tokens = 0;
        self.last_token = None;
        if let Some(usage) = self.usage.take() {
            self.wasted_usage = Some(self.wasted_usage.unwrap_or_default().plus(usage));
        }
        self.finish_reason = None;
    }

    /// Counts violations; an empty slice says that rules are checked.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        let stats = self.guardrails.get_or_insert_default();
        for violation in violations {
            stats.record(violation);
        }
    }

    /// Records drift; a report of none says that it is looked for.
    pub(crate) fn drift(&mut self, report: &DriftReport) {
        self.drift.get_or_insert_default().record(report);
    }

    /// Keeps an event of the application.
    pub(crate) fn custom_event(&mut self, name: String, mut fields: Map<String, Value>) {
        if self.custom_events.len() == MAX_CUSTOM_EVENTS {
            return;
        }
        fields.insert("type".to_owned(), name.into());
        fields.insert("timestamp".to_owned(), self.timestamp().as_millis().into());
        self.custom_events.push(Value::Object(fields));
    }

    /// Returns the time of now, by the wall clock of the start.
    fn timestamp(&self) -> Timestamp {
        let since = clock::now().saturating_duration_since(self.start);
        self.start_time.after(since)
    }

    /// Ends the run: telemetry is final from here on.
    pub(crate) fn finish(&mut self, end: End) {
        let now = self.nanos(clock::now());
        self.take_hold(now);
        self.end = Some(now);
        self.ended = Some(end);
    }

    /// Returns what was measured so far.
    pub(crate) fn telemetry(&self) -> Telemetry {
        let gaps = self.gaps.as_ref().filter(|gaps| gaps.count() > 0);
        let timed_end = self.end.filter(|_| self.gaps.is_some());
        let metrics = Metrics {
            time_to_first_token: self.first_token.map(Duration::from_nanos),
            time_to_first_text: self.first_text.map(Duration::from_nanos),
            avg_inter_token_time: gaps.map(|gaps| Duration::from_nanos(gaps.sum() / gaps.count())),
            tokens_per_second: timed_end
                .filter(|_| self.total_tokens > 0)
                .and_then(|nanos| rate::per_second(self.total_tokens, nanos)),
            output_tokens_per_second: gaps
                .and_then(|gaps| rate::per_second(gaps.count(), gaps.sum())),
            total_tokens: self.total_tokens,
            wasted_tokens: self.wasted_tokens,
            attempts: self.attempts,
            total_retries: self.network_retries + self.model_retries,
            network_retries: self.network_retries,
            model_retries: self.model_retries,
            inter_token: gaps.map(Histogram::distribution),
            consumer_hold: timed_end.map(|_| Duration::from_nanos(self.hold)),
            wait: timed_end.map(|end| Duration::from_nanos(end.saturating_sub(self.hold))),
        };
        let mut metadata = self.metadata.clone();
        if !self.custom_events.is_empty() {
            metadata.insert("customEvents".to_owned(), self.custom_events.clone().into());
        }
        Telemetry {
            session_id: self.session_id.as_ref().to_owned(),
            start_time: self.start_time,
            duration: self.end.map(Duration::from_nanos),
            outcome: self.ended.as_ref().map(End::outcome),
            error: self.ended.as_ref().and_then(ErrorRecord::of),
            finish_reason: self.finish_reason,
            usage: self.usage,
            wasted_usage: self.wasted_usage,
            metrics,
            network: Network {
                error_count: self.errors_by_type.values().sum(),
                errors_by_type: self.errors_by_type.clone(),
                errors: self
                    .errors
                    .as_ref()
                    .map(|errors| errors.iter().cloned().collect()),
            },
            guardrails: self.guardrails.as_deref().cloned(),
            drift: self.drift.clone(),
            metadata,
        }
    }
}

/// Makes a new id: `l0_`, a number that tells runs apart in time, and 64 random bits.
pub(crate) fn session_id(number: u64, rng: &mut fastrand::Rng) -> Arc<str> {
    // 20 digits hold any u64; 13 digits to the base of 36 hold 64 random bits.
    let mut id = String::with_capacity(3 + 20 + 1 + 13);
    id.push_str("l0_");
    push_digits(&mut id, number, 10, 1);
    id.push('_');
    push_digits(&mut id, rng.u64(..), 36, 13);
    id.into()
}

/// Appends a number, with at least so many digits.
fn push_digits(text: &mut String, mut number: u64, base: u64, at_least: usize) {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut digits = ['0'; 20];
    let mut first = digits.len();
    while number > 0 {
        first -= 1;
        digits[first] = char::from(DIGITS[(number % base) as usize]);
        number /= base;
    }
    text.extend(&digits[first.min(digits.len() - at_least)..]);
}
