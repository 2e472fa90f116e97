//! Monitor: measures one run. Monitoring: what is measured.

use std::collections::{BTreeMap, VecDeque};
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::clock;
use crate::distribution::Histogram;
use crate::failure::{self, NetworkErrorKind};
use crate::redact;
use crate::telemetry::{
    DriftStats, GuardrailStats, Metrics, Network, NetworkErrorRecord, Telemetry, Timestamp,
};
use crate::token::{FinishReason, TokenKind, TokenView, Usage};
use crate::units::rate;
use crate::verdict::{DriftReport, Outcome, Violation};

/// What is measured, of which runs.
///
/// [`Monitoring::new`] is on, for every run, with timings and network details.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Monitoring {
    enabled: bool,
    sample_rate: f64,
    include_network_details: bool,
    include_timings: bool,
    metadata: Arc<BTreeMap<String, Value>>,
}

impl Monitoring {
    /// On.
    pub fn new() -> Self {
        Self {
            enabled: true,
            sample_rate: 1.0,
            include_network_details: true,
            include_timings: true,
            metadata: Arc::default(),
        }
    }

    /// Off: no telemetry, no clock reads. Events and metadata are there all the same.
    pub fn off() -> Self {
        Self::new().enabled(false)
    }

    /// Switches on or off by a condition.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Which share of the runs is measured, drawn once per run, when it starts; clamped to 0..=1,
    /// NaN is 0. Default 1.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.sample_rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        self
    }

    /// Whether telemetry lists each network error, with its redacted text. Default true. The
    /// counts by type are there in any case.
    pub fn include_network_details(mut self, include: bool) -> Self {
        self.include_network_details = include;
        self
    }

    /// Whether tokens are timed. Default true. Without, no clock is read per token: the time to
    /// the first token, gaps, rates and waits are absent; the duration is there.
    pub fn include_timings(mut self, include: bool) -> Self {
        self.include_timings = include;
        self
    }

    /// Adds an entry to the metadata of every run, over an entry of the same key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Arc::make_mut(&mut self.metadata).insert(key.into(), value.into());
        self
    }

    /// Whether to measure the next run.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> bool {
        self.enabled && rng.f64() < self.sample_rate
    }

    pub(crate) fn shared_metadata(&self) -> Arc<BTreeMap<String, Value>> {
        Arc::clone(&self.metadata)
    }
}

impl Default for Monitoring {
    fn default() -> Self {
        Self::new()
    }
}

/// Which limit a retry counts toward.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryKind {
    /// A retry for a network error, a rate limit or a server error.
    Network,
    /// A retry for the model's answer.
    Model,
}

/// Measures one run: what a `Run` and a `Watched` use inside, usable alone.
///
/// Recording costs nothing if monitoring is off or the run is not sampled, never fails, and after
/// [`complete`](Self::complete) does nothing.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use l0_core::{Monitor, Monitoring, Outcome, RetryKind};
///
/// let mut monitor = Monitor::new(Monitoring::new());
/// monitor.start();
/// monitor.record_token();
/// monitor.record_token();
/// let error = io::Error::from(io::ErrorKind::ConnectionReset);
/// monitor.record_network_error(&error, true, Some(Duration::from_secs(1)), Some(1));
/// monitor.record_retry(RetryKind::Network);
/// monitor.complete(Outcome::Completed);
///
/// let telemetry = monitor.telemetry().expect("monitoring is on");
/// assert_eq!(telemetry.metrics.total_tokens, 2);
/// assert_eq!(telemetry.summary().retries, 1);
/// ```
pub struct Monitor {
    monitoring: Monitoring,
    recording: Option<Box<Recording>>,
}

/// What was measured so far. Times are nanoseconds since `start`.
struct Recording {
    session_id: Arc<str>,
    metadata: Arc<BTreeMap<String, Value>>,
    custom_events: Vec<Value>,
    start: Instant,
    start_time: Timestamp,
    end: Option<u64>,
    outcome: Option<Outcome>,
    finish_reason: Option<FinishReason>,
    usage: Option<Usage>,
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

impl Monitor {
    /// How many custom events are kept; further ones are dropped.
    pub const MAX_CUSTOM_EVENTS: usize = 100;

    /// A monitor for one run, whose sampling is drawn here.
    #[must_use]
    pub fn new(monitoring: Monitoring) -> Self {
        let mut rng = fastrand::Rng::new();
        let recording = monitoring.draw(&mut rng).then(|| {
            let start_time = Timestamp::now();
            let id = session_id(start_time.as_millis(), &mut rng);
            let metadata = monitoring.shared_metadata();
            Box::new(Recording::new(
                &monitoring,
                id,
                metadata,
                start_time,
                clock::now(),
            ))
        });
        Self {
            monitoring,
            recording,
        }
    }

    /// The monitor of a run that is measured.
    pub(crate) fn of_run(
        monitoring: Monitoring,
        session_id: Arc<str>,
        metadata: Arc<BTreeMap<String, Value>>,
        start_time: Timestamp,
        start: Instant,
    ) -> Self {
        let recording = Recording::new(&monitoring, session_id, metadata, start_time, start);
        Self {
            monitoring,
            recording: Some(Box::new(recording)),
        }
    }

    /// Starts the clock: now is the start of the run. To be called before anything is recorded.
    pub fn start(&mut self) {
        if let Some(recording) = self.live() {
            recording.start = clock::now();
            recording.start_time = Timestamp::now();
        }
    }

    /// Counts an attempt: a call of the source.
    pub fn record_attempt(&mut self) {
        if let Some(recording) = self.live() {
            recording.attempts += 1;
        }
    }

    /// Counts a token that arrives now.
    pub fn record_token(&mut self) {
        let now = self.timed().then(clock::now);
        if let Some(recording) = self.live() {
            recording.token(recording.timed_nanos(now));
        }
    }

    /// Counts a token that arrived at this time.
    pub fn record_token_at(&mut self, at: Instant) {
        if let Some(recording) = self.live() {
            recording.token(recording.timed_nanos(Some(at)));
        }
    }

    /// Records an item that arrives now: counts it if it is a token, and takes the usage and the
    /// finish reason that it tells.
    pub fn record_item(&mut self, view: &TokenView<'_>) {
        let now = self.timed().then(clock::now);
        self.record_arrival(view, now);
    }

    /// Records an item of a run; `arrived` is given if arrivals are timed.
    #[inline]
    pub(crate) fn record_arrival(
        &mut self,
        view: &TokenView<'_>,
        arrived: Option<Instant>,
    ) -> Arrival {
        match self.live() {
            Some(recording) => recording.item(view, arrived),
            None => Arrival::default(),
        }
    }

    /// The consumer is back, and the source is pending.
    pub(crate) fn record_pending(&mut self, now: Instant) {
        if let Some(recording) = self.live() {
            let now = recording.nanos(now);
            recording.take_hold(now);
        }
    }

    /// A chunk other than an item was handed out.
    pub(crate) fn record_handed_out(&mut self, now: Instant) {
        if let Some(recording) = self.live() {
            let now = recording.nanos(now);
            recording.take_hold(now);
            recording.handed_out = Some(now);
        }
    }

    /// Records a network error, retried or not, after which delay, and in which attempt (from 1).
    /// Its type is read from the error; one that is no network error is of type `unknown`.
    pub fn record_network_error(
        &mut self,
        error: &(dyn StdError + 'static),
        retried: bool,
        delay: Option<Duration>,
        attempt: Option<u32>,
    ) {
        if self.live().is_some() {
            let kind = failure::read(error)
                .network_error_kind()
                .unwrap_or(NetworkErrorKind::Unknown);
            let message = redact::message(error);
            self.record_network_error_kind(kind, &message, retried, delay, attempt);
        }
    }

    pub(crate) fn record_network_error_kind(
        &mut self,
        kind: NetworkErrorKind,
        message: &str,
        retried: bool,
        delay: Option<Duration>,
        attempt: Option<u32>,
    ) {
        let Some(recording) = self.live() else { return };
        *recording.errors_by_type.entry(kind).or_default() += 1;
        let timestamp = recording
            .start_time
            .after(clock::now().saturating_duration_since(recording.start));
        if let Some(errors) = &mut recording.errors {
            if errors.len() == Network::MAX_ERRORS {
                errors.pop_front();
            }
            errors.push_back(NetworkErrorRecord {
                kind,
                message: message.to_owned(),
                timestamp,
                retried,
                delay,
                attempt,
            });
        }
    }

    /// Counts a retry. The tokens of the attempt before count as wasted, and what it told of usage
    /// and finish reason is forgotten; the next token makes no gap with it.
    pub fn record_retry(&mut self, kind: RetryKind) {
        let Some(recording) = self.live() else { return };
        match kind {
            RetryKind::Network => recording.network_retries += 1,
            RetryKind::Model => recording.model_retries += 1,
        }
        recording.wasted_tokens += recording.attempt_tokens;
        recording.attempt_tokens = 0;
        recording.last_token = None;
        recording.usage = None;
        recording.finish_reason = None;
    }

    /// Counts violations. An empty slice says that rules were checked and found nothing.
    pub fn record_violations(&mut self, violations: &[Violation]) {
        let Some(recording) = self.live() else { return };
        let stats = recording.guardrails.get_or_insert_default();
        for violation in violations {
            stats.record(violation);
        }
    }

    /// Records a drift check: kinds of drift add up, and what was once detected stays so.
    pub fn record_drift(&mut self, report: &DriftReport) {
        if let Some(recording) = self.live() {
            recording.drift.get_or_insert_default().record(report);
        }
    }

    /// Keeps an event of the application's own, with the time of the call. It appears in the
    /// metadata, in the list `customEvents`, as an object with the `fields` and with `type` and
    /// `timestamp`.
    pub fn log_event<K, V>(
        &mut self,
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (K, V)>,
    ) where
        K: Into<String>,
        V: Into<Value>,
    {
        let Some(recording) = self.live() else { return };
        if recording.custom_events.len() == Self::MAX_CUSTOM_EVENTS {
            return;
        }
        let mut event: Map<_, _> = fields
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        let timestamp = recording
            .start_time
            .after(clock::now().saturating_duration_since(recording.start));
        event.insert("type".to_owned(), name.into().into());
        event.insert("timestamp".to_owned(), timestamp.as_millis().into());
        recording.custom_events.push(Value::Object(event));
    }

    /// Ends the run. Only the first call counts; telemetry is final from here on.
    pub fn complete(&mut self, outcome: Outcome) {
        if let Some(recording) = self.live() {
            let now = recording.nanos(clock::now());
            recording.take_hold(now);
            recording.end = Some(now);
            recording.outcome = Some(outcome);
        }
    }

    /// What was measured so far; final once the run is complete. `None` if monitoring is off or
    /// the run was not sampled.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.recording.as_deref().map(Recording::telemetry)
    }

    /// Begins a new run: a new id, a new draw, and no counts.
    pub fn reset(&mut self) {
        *self = Self::new(self.monitoring.clone());
    }

    /// Whether tokens are timed.
    pub(crate) fn timed(&self) -> bool {
        self.recording
            .as_ref()
            .is_some_and(|recording| recording.gaps.is_some())
    }

    /// What is recorded into: nothing if the run is not measured or has ended.
    #[inline]
    fn live(&mut self) -> Option<&mut Recording> {
        self.recording
            .as_deref_mut()
            .filter(|recording| recording.end.is_none())
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("monitoring", &self.monitoring)
            .field("measured", &self.recording.is_some())
            .finish_non_exhaustive()
    }
}

impl Recording {
    fn new(
        monitoring: &Monitoring,
        session_id: Arc<str>,
        metadata: Arc<BTreeMap<String, Value>>,
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
            outcome: None,
            finish_reason: None,
            usage: None,
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

    /// Nanoseconds since the start; a time before it is 0.
    #[inline]
    fn nanos(&self, at: Instant) -> u64 {
        let since = at.saturating_duration_since(self.start);
        // A u64 holds 584 years.
        since.as_secs() * 1_000_000_000 + u64::from(since.subsec_nanos())
    }

    #[inline]
    fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) -> Arrival {
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

    fn telemetry(&self) -> Telemetry {
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
        let mut metadata = BTreeMap::clone(&self.metadata);
        if !self.custom_events.is_empty() {
            metadata.insert("customEvents".to_owned(), self.custom_events.clone().into());
        }
        Telemetry {
            session_id: self.session_id.as_ref().to_owned(),
            start_time: self.start_time,
            duration: self.end.map(Duration::from_nanos),
            outcome: self.outcome,
            finish_reason: self.finish_reason,
            usage: self.usage,
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

/// A new id: `l0_`, a number that tells runs apart in time, and 64 random bits.
pub(crate) fn session_id(number: u64, rng: &mut fastrand::Rng) -> Arc<str> {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    // 13 digits to the base of 36 hold 64 bits.
    let mut random = rng.u64(..);
    let digits: [char; 13] = std::array::from_fn(|_| {
        let digit = DIGITS[(random % 36) as usize];
        random /= 36;
        char::from(digit)
    });
    let mut id = format!("l0_{number}_");
    id.extend(digits);
    id.into()
}
