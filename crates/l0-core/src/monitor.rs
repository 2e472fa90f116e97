//! Monitor: measures a run that is reported manually.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::clock;
use crate::end::End;
use crate::event::RetryKind;
use crate::failure::{self, NetworkErrorKind};
use crate::keys;
use crate::metadata::Metadata;
use crate::monitoring::Monitoring;
use crate::recording::{AttemptEnd, Identity, Recording, RunId};
use crate::telemetry::{NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Violation};

/// Measures a run that is reported manually, without a stream to wrap.
///
/// Recording never fails. It costs nothing if monitoring is off or the run is not sampled. After
/// [`complete`](Self::complete) it has no effect.
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
    /// `None` if the run is not measured.
    run: Option<ManualRun>,
}

/// A measured run.
struct ManualRun {
    id: RunId,
    metadata: Metadata,
    custom_events: Vec<Value>,
    recording: Box<Recording>,
}

impl Monitor {
    /// The maximum number of custom events. Further events are dropped.
    pub const MAX_CUSTOM_EVENTS: usize = 100;

    /// Creates a monitor for one run, and decides if the run is sampled.
    #[must_use]
    pub fn new(monitoring: Monitoring) -> Self {
        let mut rng = fastrand::Rng::new();
        let run = monitoring.draw(&mut rng).then(|| {
            let start_time = Timestamp::now();
            let mut metadata = monitoring.shared_metadata();
            keys::redact_endpoint(&mut metadata);
            let mut recording = Recording::start(&monitoring, start_time, clock::now());
            recording.open();
            ManualRun {
                id: RunId::new(start_time.as_millis(), &mut rng),
                metadata,
                custom_events: Vec::new(),
                recording,
            }
        });
        Self { monitoring, run }
    }

    /// Starts the clock of the run. Call it before anything is recorded.
    pub fn start(&mut self) {
        if let Some(recording) = self.live() {
            recording.restart();
        }
    }

    /// Counts an attempt: a call of the source. An earlier attempt is discarded, as with
    /// [`record_retry`](Self::record_retry).
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

    /// Counts a token that arrived at the given time. A time before the last token of the same
    /// attempt counts as that token's, and its gap as zero.
    pub fn record_token_at(&mut self, at: Instant) {
        if let Some(recording) = self.live() {
            recording.token_at(Some(at));
        }
    }

    /// Records an item that arrives now: counts it if it is a token, and takes the usage and the
    /// finish reason that it carries.
    pub fn record_item(&mut self, view: &TokenView<'_>) {
        if let Some(recording) = self.live() {
            let now = recording.timed().then(clock::now);
            recording.item(view, now);
        }
    }

    /// Records a network error: if it was retried, after which delay, and in which attempt it
    /// happened, counted from 1.
    ///
    /// The type is read from the error. It is `unknown` if the error is not a network error.
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

    /// Counts a retry. The tokens and the usage of the previous attempt count as wasted, and its
    /// finish reason is discarded. The next token has no gap.
    pub fn record_retry(&mut self, kind: RetryKind) {
        if let Some(recording) = self.live() {
            recording.retry(kind);
        }
    }

    /// Counts violations. An empty slice records that rules were checked without a violation.
    pub fn record_violations(&mut self, violations: &[Violation]) {
        if let Some(recording) = self.live() {
            recording.violations(violations);
        }
    }

    /// Records a drift check. The kinds of drift accumulate, and detected drift stays detected.
    pub fn record_drift(&mut self, report: &DriftReport) {
        if let Some(recording) = self.live() {
            recording.drift(report);
        }
    }

    /// Keeps an event of the application, with the time of the call. The metadata lists it in
    /// `customEvents`, as an object with the given `fields`, `type` and `timestamp`.
    pub fn log_event<K, V>(
        &mut self,
        name: impl Into<String>,
        fields: impl IntoIterator<Item = (K, V)>,
    ) where
        K: Into<String>,
        V: Into<Value>,
    {
        let run = self.run.as_mut().filter(|run| {
            !run.recording.is_final() && run.custom_events.len() < Self::MAX_CUSTOM_EVENTS
        });
        let Some(run) = run else {
            return;
        };
        let fields = fields.into_iter();
        let mut event: Map<_, _> = fields
            .map(|(key, value)| (key.into(), value.into()))
            .collect();
        event.insert("type".to_owned(), name.into().into());
        let at = run.recording.timestamp();
        event.insert("timestamp".to_owned(), at.as_millis().into());
        run.custom_events.push(Value::Object(event));
    }

    /// Ends the run. Only the first call has an effect, and telemetry is final afterwards.
    #[allow(
        clippy::needless_pass_by_value,
        reason = "a caller that ends a run has no further use for the value"
    )]
    pub fn complete(&mut self, end: End) {
        if let Some(recording) = self.live() {
            let mut report = AttemptEnd::of(&end);
            recording.finish(&end, Some(&mut report));
        }
    }

    /// Ends the run as failed with this error. It does not count a network error: record that
    /// first. For an [`Error`](crate::Error) of a run, call `complete(error.end())`.
    pub fn fail(&mut self, error: &(dyn StdError + 'static)) {
        if self.live().is_some() {
            let failure = failure::read(error);
            let message = self.monitoring.message(error, &failure);
            self.complete(End::of_source(failure, &message));
        }
    }

    /// Returns what was measured so far; final once the run is complete. `None` if monitoring is
    /// off or the run was not sampled.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        let run = self.run.as_ref()?;
        let mut metadata = run.metadata.clone();
        if !run.custom_events.is_empty() {
            metadata.insert("customEvents".to_owned(), run.custom_events.clone().into());
        }
        Some(*run.recording.telemetry(Identity {
            session_id: run.id.text(),
            parent_id: None,
            metadata,
        }))
    }

    /// Begins a new run, with a new id, a new sampling decision and all counts at 0.
    pub fn reset(&mut self) {
        *self = Self::new(self.monitoring.clone());
    }

    /// Returns the recording, or `None` if the run is not measured or has ended.
    #[inline]
    fn live(&mut self) -> Option<&mut Recording> {
        let recording = &mut self.run.as_mut()?.recording;
        (!recording.is_final()).then_some(recording)
    }
}

impl fmt::Debug for Monitor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Monitor")
            .field("monitoring", &self.monitoring)
            .field("measured", &self.run.is_some())
            .finish_non_exhaustive()
    }
}
