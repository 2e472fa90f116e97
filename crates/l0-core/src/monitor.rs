//! Monitoring: what is measured. Monitor: measures a run that is reported by hand.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clock;
use crate::end::End;
use crate::event::RetryKind;
use crate::failure::{self, NetworkErrorKind};
use crate::recording::{MAX_CUSTOM_EVENTS, Recording};
use crate::redact;
use crate::telemetry::{NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Violation};

/// What is measured, of which runs.
///
/// [`Monitoring::new`] is on, for every run, with timings and network details.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Monitoring {
    enabled: bool,
    sample_rate: f64,
    pub(crate) include_network_details: bool,
    pub(crate) include_timings: bool,
    error_text: bool,
    metadata: Arc<BTreeMap<String, Value>>,
}

impl Monitoring {
    /// Creates the default: on.
    pub fn new() -> Self {
        Self {
            enabled: true,
            sample_rate: 1.0,
            include_network_details: true,
            include_timings: true,
            error_text: false,
            metadata: Arc::default(),
        }
    }

    /// Creates a configuration that is off: no telemetry, no clock reads. Events and metadata are there
    /// all the same.
    pub fn off() -> Self {
        Self::new().enabled(false)
    }

    /// Switches on or off by a condition.
    pub fn enabled(mut self, enabled: bool) -> Self {
        self.enabled = enabled;
        self
    }

    /// Sets which share of the runs is measured, drawn once per run, when it starts. It is clamped to
    /// 0..=1; NaN is 0. Default: 1.
    pub fn sample_rate(mut self, rate: f64) -> Self {
        self.sample_rate = if rate.is_nan() {
            0.0
        } else {
            rate.clamp(0.0, 1.0)
        };
        self
    }

    /// Sets whether telemetry lists each network error, with its message. The counts by type are there
    /// in any case. Default: true.
    pub fn include_network_details(mut self, include: bool) -> Self {
        self.include_network_details = include;
        self
    }

    /// Sets whether tokens are timed. If not, no clock is read per token: the time to the first token,
    /// gaps, rates and waits are absent; the duration is there. Default: true.
    pub fn include_timings(mut self, include: bool) -> Self {
        self.include_timings = include;
        self
    }

    /// Sets whether messages carry the redacted texts of errors, whatever they are. Default: false.
    ///
    /// By default a message is in L0's own words, made of kind, status and type, with the texts of
    /// [`io::Error`](std::io::Error)s and of transports: see [`redact::message`]. Any other text of an
    /// error may quote a prompt or an answer, and leaves only if this is on: in
    /// [`End::message`], in the messages of network errors, and so through every exporter. It holds for
    /// runs that are not measured, too.
    pub fn error_text(mut self, include: bool) -> Self {
        self.error_text = include;
        self
    }

    /// Adds an entry to the metadata of every run, over an entry of the same key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        Arc::make_mut(&mut self.metadata).insert(key.into(), value.into());
        self
    }

    /// Returns the message of an error, from which `failure` was read.
    pub(crate) fn message(
        &self,
        error: &(dyn StdError + 'static),
        failure: &failure::Failure,
    ) -> String {
        if self.error_text {
            redact::error_text(error)
        } else {
            redact::message_of(error, failure)
        }
    }

    /// Draws whether to measure the next run.
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

/// Measures a run that is reported by hand, where there is no stream to wrap.
///
/// Recording costs nothing if monitoring is off or the run is not sampled, never fails, and after
/// [`complete`](Self::complete) does nothing.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use l0_core::{End, Monitor, Monitoring, RetryKind};
///
/// let mut monitor = Monitor::new(Monitoring::new());
/// monitor.start();
/// monitor.record_token();
/// monitor.record_token();
/// let error = io::Error::from(io::ErrorKind::ConnectionReset);
/// monitor.record_network_error(&error, true, Some(Duration::from_secs(1)), Some(1));
/// monitor.record_retry(RetryKind::Network);
/// monitor.complete(End::completed());
///
/// let telemetry = monitor.telemetry().expect("monitoring is on");
/// assert_eq!(telemetry.metrics.total_tokens, 2);
/// assert_eq!(telemetry.summary().retries, 1);
/// ```
pub struct Monitor {
    monitoring: Monitoring,
    /// Absent if the run is not measured.
    recording: Option<Box<Recording>>,
}

impl Monitor {
    /// How many custom events are kept; further ones are dropped.
    pub const MAX_CUSTOM_EVENTS: usize = MAX_CUSTOM_EVENTS;

    /// Creates a monitor for one run, and draws whether it is measured.
    #[must_use]
    pub fn new(monitoring: Monitoring) -> Self {
        let mut rng = fastrand::Rng::new();
        let recording = monitoring.draw(&mut rng).then(|| {
            let start_time = Timestamp::now();
            let id = session_id(start_time.as_millis(), &mut rng);
            let metadata = monitoring.shared_metadata();
            let start = clock::now();
            Box::new(Recording::start(
                &monitoring,
                id,
                metadata,
                start_time,
                start,
            ))
        });
        Self {
            monitoring,
            recording,
        }
    }

    /// Starts the clock: now is the start of the run. Call it before anything is recorded.
    pub fn start(&mut self) {
        if let Some(recording) = self.live() {
            recording.restart();
        }
    }

    /// Counts an attempt: a call of the source.
    pub fn record_attempt(&mut self) {
        if let Some(recording) = self.live() {
            recording.attempt();
        }
    }

    /// Counts a token that arrives now.
    pub fn record_token(&mut self) {
        if let Some(recording) = self.live() {
            let now = recording.timed().then(clock::now);
            recording.token_at(now);
        }
    }

    /// Counts a token that arrived at this time.
    pub fn record_token_at(&mut self, at: Instant) {
        if let Some(recording) = self.live() {
            recording.token_at(Some(at));
        }
    }

    /// Records an item that arrives now: counts it if it is a token, and takes the usage and the
    /// finish reason that it tells.
    pub fn record_item(&mut self, view: &TokenView<'_>) {
        if let Some(recording) = self.live() {
            let now = recording.timed().then(clock::now);
            recording.item(view, now);
        }
    }

    /// Records a network error: whether it was retried, after which delay, and in which attempt (from
    /// 1) it happened. Its type is read from the error; one that is no network error is of type
    /// `unknown`.
    pub fn record_network_error(
        &mut self,
        error: &(dyn StdError + 'static),
        retried: bool,
        delay: Option<Duration>,
        attempt: Option<u32>,
    ) {
        if self.live().is_none() {
            return;
        }
        let failure = failure::read(error);
        let kind = failure
            .network_error_kind()
            .unwrap_or(NetworkErrorKind::Unknown);
        let message = self.monitoring.message(error, &failure);
        let mut record = NetworkErrorRecord::new(kind, message, Timestamp::default());
        if retried {
            record = record.retried(delay);
        }
        record.attempt = attempt;
        if let Some(recording) = self.live() {
            recording.network_error(record);
        }
    }

    /// Counts a retry. The tokens of the attempt before count as wasted, and what it told of usage
    /// and finish reason is forgotten; the next token makes no gap with it.
    pub fn record_retry(&mut self, kind: RetryKind) {
        if let Some(recording) = self.live() {
            recording.retry(kind);
        }
    }

    /// Counts violations. An empty slice says that rules were checked and found nothing.
    pub fn record_violations(&mut self, violations: &[Violation]) {
        if let Some(recording) = self.live() {
            recording.violations(violations);
        }
    }

    /// Records a drift check: kinds of drift add up, and what was once detected stays so.
    pub fn record_drift(&mut self, report: &DriftReport) {
        if let Some(recording) = self.live() {
            recording.drift(report);
        }
    }

    /// Keeps an event of the application, with the time of the call. It appears in the metadata, in
    /// the list `customEvents`, as an object with the `fields` and with `type` and `timestamp`.
    pub fn log_event<K, V>(
        &mut self,
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (K, V)>,
    ) where
        K: Into<String>,
        V: Into<Value>,
    {
        if let Some(recording) = self.live() {
            let fields = fields
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()));
            recording.custom_event(name.into(), fields.collect());
        }
    }

    /// Ends the run, so. Only the first call counts; telemetry is final from here on.
    pub fn complete(&mut self, end: End) {
        if let Some(recording) = self.live() {
            recording.finish(&end);
        }
    }

    /// Ends the run as failed with this error.
    pub fn fail(&mut self, error: &(dyn StdError + 'static)) {
        if self.live().is_some() {
            let failure = failure::read(error);
            let message = self.monitoring.message(error, &failure);
            self.complete(End::of_source(failure, &message));
        }
    }

    /// Returns what was measured so far; final once the run is complete. Absent if monitoring is off
    /// or the run was not sampled.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.recording.as_deref().map(Recording::telemetry)
    }

    /// Begins a new run: a new id, a new draw, and no counts.
    pub fn reset(&mut self) {
        *self = Self::new(self.monitoring.clone());
    }

    /// Returns what is recorded into: nothing if the run is not measured or has ended.
    fn live(&mut self) -> Option<&mut Recording> {
        self.recording
            .as_deref_mut()
            .filter(|recording| !recording.is_final())
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

/// Makes a new id: `l0_`, a number that tells runs apart in time, and 64 random bits.
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
