//! Monitor: measures a run that is reported by hand.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clock;
use crate::end::End;
use crate::event::RetryKind;
use crate::failure::{self, NetworkErrorKind};
use crate::keys;
use crate::monitoring::Monitoring;
use crate::recording::{AttemptEnd, MAX_CUSTOM_EVENTS, Recording, session_id};
use crate::telemetry::{NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Violation};

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
            let mut metadata = monitoring.shared_metadata();
            keys::redact_endpoint(&mut metadata);
            let start = clock::now();
            let mut recording = Recording::start(&monitoring, id, metadata, start_time, start);
            recording.open();
            Box::new(recording)
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

    /// Counts an attempt: a call of the source. What was recorded of an attempt before was thrown away,
    /// as with [`record_retry`](Self::record_retry).
    pub fn record_attempt(&mut self) {
        if let Some(recording) = self.live() {
            recording.next_attempt();
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

    /// Records a network error: whether it was retried, after which delay, and in which attempt it
    /// happened, from 1. Its type is read from the error; one that is no network error is of type
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

    /// Counts a retry. The tokens and the usage of the attempt before count as wasted, and its finish
    /// reason is forgotten; the next token makes no gap with it.
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
            let told = AttemptEnd::of(&end);
            recording.finish(end, Some(told));
        }
    }

    /// Ends the run as failed with this error. It counts no network error: record it first. For an
    /// [`Error`](crate::Error) of a run, call `complete(error.end())`.
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
    #[inline]
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
