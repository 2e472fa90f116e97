//! Recorder: one run's monitor and observers. It is told what happens, and finishes exactly once,
//! at the latest when it is dropped. It never sees the state machine that tells it.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clock;
use crate::error::Refusal;
use crate::event::{Event, RetryReason};
use crate::failure::NetworkErrorKind;
use crate::monitor::{Arrival, Monitor, Monitoring, RetryKind, session_id};
use crate::observe::{Interceptor, Observers, Request, RunInfo, contain};
use crate::redact;
use crate::stop::{End, RunHandle, Stop, Until};
use crate::telemetry::{Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Outcome, Violation};

/// What a run starts with.
pub(crate) struct Start<'a, 'r> {
    pub(crate) monitoring: Monitoring,
    pub(crate) interceptors: &'r [Arc<dyn Interceptor>],
    pub(crate) metadata: BTreeMap<String, Value>,
    pub(crate) until: Vec<Until<'a>>,
    /// Tells seeded runs apart; `None` if the run is not seeded.
    pub(crate) seeded_number: Option<u64>,
    pub(crate) panics: Arc<AtomicU64>,
}

pub(crate) struct Recorder<'a> {
    info: RunInfo,
    monitor: Option<Monitor>,
    observers: Observers,
    stop: Stop<'a>,
    tokens: u64,
    timed: bool,
    finished: bool,
    /// What the last attempt's source said of its response, for the observers.
    response_model: Option<Box<str>>,
    response_id: Option<Box<str>>,
}

/// How much is kept of what a provider calls its model or response, in bytes.
const MAX_NAME: usize = 256;

impl<'a> Recorder<'a> {
    /// Starts a run: draws the sample, asks the interceptors, makes the observers and says
    /// `Started`. A refused run is finished when this returns.
    pub(crate) fn start(
        start: Start<'a, '_>,
        rng: &mut fastrand::Rng,
    ) -> (Self, Result<(), Refusal>) {
        let measured = start.monitoring.draw(rng);
        let started_at = Timestamp::now();
        let number = start.seeded_number.unwrap_or(started_at.as_millis());
        let id = session_id(number, rng);
        let now = measured.then(clock::now);

        let mut metadata = start.monitoring.shared_metadata();
        if !start.metadata.is_empty() {
            Arc::make_mut(&mut metadata).extend(start.metadata);
        }
        let mut request = Request::new(metadata);
        let allowed = start
            .interceptors
            .iter()
            .try_for_each(|interceptor| ask(&**interceptor, &mut request));

        let info = RunInfo::new(
            id,
            request.into_metadata(),
            started_at,
            measured,
            start.panics,
        );
        let monitor = now.map(|now| {
            let (id, metadata) = (info.shared_id(), info.shared_metadata());
            Monitor::of_run(start.monitoring, id, metadata, started_at, now)
        });
        let mut observers = Observers::new(info.clone());
        for interceptor in start.interceptors {
            info.contain(|| interceptor.observe(&info, &mut observers));
        }

        let mut recorder = Self {
            timed: monitor.as_ref().is_some_and(Monitor::timed),
            info,
            monitor,
            observers,
            stop: Stop::new(start.until),
            tokens: 0,
            finished: false,
            response_model: None,
            response_id: None,
        };
        recorder.observers.deliver(&Event::Started {
            at: measured.then_some(started_at),
        });
        if let Err(refusal) = &allowed {
            recorder.finish(Outcome::Failed, Some(refusal));
        }
        (recorder, allowed)
    }

    pub(crate) fn info(&self) -> &RunInfo {
        &self.info
    }

    pub(crate) fn handle(&self) -> RunHandle {
        self.stop.handle()
    }

    pub(crate) fn stop(&mut self) -> &mut Stop<'a> {
        &mut self.stop
    }

    /// Whether arrivals are to be timed.
    pub(crate) fn timed(&self) -> bool {
        self.timed
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn outcome(&self) -> Option<Outcome> {
        self.stop.end().map(|end| end.outcome)
    }

    pub(crate) fn telemetry(&self) -> Option<Telemetry> {
        match self.stop.end() {
            Some(end) => end.telemetry.clone(),
            None => self.monitor.as_ref()?.telemetry(),
        }
    }

    pub(crate) fn attempt_started(&mut self, number: u32) {
        if let Some(monitor) = &mut self.monitor {
            monitor.record_attempt();
        }
        (self.response_model, self.response_id) = (None, None);
        self.observers.deliver(&Event::AttemptStarted { number });
    }

    /// Calls `poll` once, inside the observers' contexts.
    pub(crate) fn connect(&mut self, poll: impl FnMut()) {
        self.observers.connect(poll);
    }

    /// An item arrived; `arrived` is given if arrivals are timed.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) {
        let arrival = match &mut self.monitor {
            Some(monitor) => monitor.record_arrival(view, arrived),
            None => Arrival::default(),
        };
        // Many sources say it with every item; it is kept once, and not at all if nobody is told.
        if (view.model.is_some() || view.response_id.is_some()) && !self.observers.is_empty() {
            keep_first(&mut self.response_model, view.model);
            keep_first(&mut self.response_id, view.response_id);
        }
        if view.is_token() {
            let index = self.tokens;
            self.tokens += 1;
            if index == 0 || self.observers.want_tokens() {
                self.token_events(index, arrival, view);
            }
        }
    }

    fn token_events(&mut self, index: u64, arrival: Arrival, view: &TokenView<'_>) {
        if index == 0 {
            self.observers.deliver(&Event::FirstToken {
                after: arrival.first.map(Duration::from_nanos),
            });
        }
        if self.observers.want_tokens() {
            self.observers.deliver_token(&Event::Token {
                index,
                gap: arrival.gap.map(Duration::from_nanos),
                view: *view,
            });
        }
    }

    /// The source was found pending.
    pub(crate) fn pending(&mut self, now: Instant) {
        if let Some(monitor) = &mut self.monitor {
            monitor.record_pending(now);
        }
    }

    /// A chunk that is no item was handed out.
    pub(crate) fn handed_out(&mut self) {
        if let Some(monitor) = self.monitor.as_mut().filter(|_| self.timed) {
            monitor.record_handed_out(clock::now());
        }
    }

    pub(crate) fn network_error(
        &mut self,
        kind: NetworkErrorKind,
        error: &(dyn StdError + 'static),
        delay: Option<Duration>,
        attempt: Option<u32>,
    ) {
        if self.monitor.is_none() && self.observers.is_empty() {
            return;
        }
        let message = redact::message(error);
        let retried = delay.is_some();
        if let Some(monitor) = &mut self.monitor {
            monitor.record_network_error_kind(kind, &message, retried, delay, attempt);
        }
        self.observers.deliver(&Event::NetworkError {
            kind,
            message: &message,
            retried,
            delay,
            attempt,
        });
    }

    /// The run will make the attempt of this number after the delay.
    pub(crate) fn retry(
        &mut self,
        attempt: u32,
        kind: RetryKind,
        reason: RetryReason,
        delay: Duration,
    ) {
        if let Some(monitor) = &mut self.monitor {
            monitor.record_retry(kind);
        }
        self.observers.deliver(&Event::Retry {
            attempt,
            reason,
            delay,
            network: kind == RetryKind::Network,
        });
    }

    /// Rules were checked, and found this.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        if let Some(monitor) = &mut self.monitor {
            monitor.record_violations(violations);
        }
        for violation in violations {
            self.observers.deliver(&Event::Violation { violation });
        }
    }

    /// Drift is looked for, and was not found yet.
    pub(crate) fn looked_for_drift(&mut self) {
        if let Some(monitor) = &mut self.monitor {
            monitor.record_drift(&DriftReport::none());
        }
    }

    /// Drift was found.
    pub(crate) fn drift(&mut self, report: &DriftReport) {
        if let Some(monitor) = &mut self.monitor {
            monitor.record_drift(report);
        }
        self.observers.deliver(&Event::Drift { report });
    }

    /// Ends the run: makes telemetry final, tells the handles, says `Finished` and drops the
    /// observers. Only the first call counts.
    pub(crate) fn finish(&mut self, outcome: Outcome, error: Option<&(dyn StdError + 'static)>) {
        if self.finished {
            return;
        }
        // Before anything is ended: the text is foreign code, which may panic, and then the run is
        // still to be finished.
        let told = error.filter(|_| !self.observers.is_empty());
        let message = told.map(redact::message);
        self.finished = true;
        let telemetry = self.monitor.take().and_then(|mut monitor| {
            monitor.complete(outcome);
            monitor.telemetry()
        });
        // A panic of a waker must not keep the end from those who wait for it.
        let _ = contain(|| self.stop.forget_task());
        let end = self.stop.publish(End { outcome, telemetry });
        if self.observers.is_empty() {
            return;
        }
        let telemetry = end.telemetry.as_ref();
        self.observers.deliver(&Event::Finished {
            outcome,
            telemetry,
            error,
            message: message.as_deref(),
            duration: telemetry.and_then(|telemetry| telemetry.duration),
            response_model: self.response_model.as_deref(),
            response_id: self.response_id.as_deref(),
        });
        self.observers.clear();
    }
}

/// Keeps a name, unless there is one. An empty one is none: some servers begin with a chunk without.
#[inline]
fn keep_first(kept: &mut Option<Box<str>>, name: Option<&str>) {
    let name = name.filter(|name| !name.is_empty());
    if let (None, Some(name)) = (&kept, name) {
        *kept = Some(name[..name.floor_char_boundary(MAX_NAME)].into());
    }
}

/// Asks one interceptor. Its panic is a refusal.
fn ask(interceptor: &dyn Interceptor, request: &mut Request) -> Result<(), Refusal> {
    contain(|| interceptor.before(request))
        .unwrap_or_else(|| Err(Refusal::new("an interceptor panicked before the run")))
}

impl Drop for Recorder<'_> {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // An abort that nobody polled for is an abort all the same. The `until` futures are
        // foreign code, and a panic must not leave a `Drop`.
        let aborted = contain(|| self.stop.requested_before_drop());
        let outcome = if aborted.unwrap_or(false) {
            Outcome::Aborted
        } else {
            Outcome::Dropped
        };
        self.finish(outcome, None);
    }
}
