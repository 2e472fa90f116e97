//! Recorder: one run's recording and observers. It is told what happens, and finishes exactly once, at
//! the latest when it is dropped. It never sees the state machine that tells it.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::clock;
use crate::end::{Cause, End};
use crate::error::Refusal;
use crate::event::{Event, RetryKind, RetryReason};
use crate::failure::{Failure, NetworkErrorKind};
use crate::keys;
use crate::live::{LiveRuns, Place};
use crate::monitoring::Monitoring;
use crate::observe::{Interceptor, NewRun, Observers, RunInfo, contain};
use crate::options::{Options, Seed};
use crate::recording::{Arrival, Recording, session_id};
use crate::stop::{Final, RunHandle, Stop, Until};
use crate::telemetry::{NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::TokenView;
use crate::verdict::{DriftReport, Violation};

pub(crate) struct Recorder<'a> {
    info: RunInfo,
    monitoring: Monitoring,
    /// Absent if the run is not measured, and once it has ended.
    recording: Option<Box<Recording>>,
    observers: Observers,
    stop: Stop<'a>,
    /// Until `Finished` was delivered.
    live: Option<Place>,
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
        options: &Options,
        metadata: BTreeMap<String, Value>,
        until: Vec<Until<'a>>,
        panics: Arc<AtomicU64>,
        live: &Arc<LiveRuns>,
    ) -> (Self, Result<(), Refusal>, fastrand::Rng) {
        let (number, rng) = options.seed.as_ref().map(Seed::next_run).unzip();
        let mut rng = rng.unwrap_or_default();
        let monitoring = options.monitoring();
        let measured = monitoring.draw(&mut rng);
        let started_at = Timestamp::now();
        let id = session_id(number.unwrap_or(started_at.as_millis()), &mut rng);
        let now = clock::now();

        let mut shared_metadata = monitoring.shared_metadata();
        shared_metadata.lay_over(metadata);
        let mut new_run = NewRun::new(shared_metadata);
        let allowed = options
            .interceptors
            .iter()
            .try_for_each(|interceptor| ask(&**interceptor, &mut new_run));

        let info = RunInfo::new(id, new_run.into_metadata(), started_at, measured, panics);
        let recording = measured.then(|| {
            let (id, metadata) = (info.shared_id(), info.shared_metadata());
            Box::new(Recording::start(&monitoring, id, metadata, started_at, now))
        });
        let mut observers = Observers::new(info.clone());
        for interceptor in &options.interceptors {
            info.contain(|| interceptor.observe(&info, &mut observers));
        }

        let stop = Stop::new(until);
        let mut recorder = Self {
            timed: recording
                .as_ref()
                .is_some_and(|recording| recording.timed()),
            info,
            monitoring,
            recording,
            observers,
            live: Some(live.enter(stop.handle(), now)),
            stop,
            tokens: 0,
            finished: false,
            response_model: None,
            response_id: None,
        };
        recorder.observers.deliver(&Event::Started {
            at: measured.then_some(started_at),
        });
        if let Err(refusal) = &allowed {
            recorder.finish(End::refused(&refusal.message), None);
        }
        (recorder, allowed, rng)
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

    /// Returns whether arrivals are to be timed.
    #[inline]
    pub(crate) fn timed(&self) -> bool {
        self.timed
    }

    /// Returns how many tokens all attempts gave so far.
    #[inline]
    pub(crate) fn tokens(&self) -> u64 {
        self.tokens
    }

    pub(crate) fn finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn end(&self) -> Option<&End> {
        self.stop.end().map(|ended| &ended.end)
    }

    pub(crate) fn telemetry(&self) -> Option<Telemetry> {
        match self.stop.end() {
            Some(ended) => ended.telemetry.clone(),
            None => self.recording.as_deref().map(Recording::telemetry),
        }
    }

    pub(crate) fn attempt_started(&mut self, number: u32) {
        if let Some(recording) = &mut self.recording {
            // Not with the retry: during the back-off the run may end, and then nothing follows.
            recording.throw_away();
            recording.attempt();
        }
        (self.response_model, self.response_id) = (None, None);
        self.observers.deliver(&Event::AttemptStarted { number });
    }

    /// Calls `poll` once, inside the observers' contexts.
    pub(crate) fn connect(&mut self, poll: impl FnMut()) {
        self.observers.connect(poll);
    }

    /// An item arrived; `arrived` is given if arrivals are timed. Returns whether it is a token.
    #[inline]
    pub(crate) fn item(&mut self, view: &TokenView<'_>, arrived: Option<Instant>) -> bool {
        let arrival = match &mut self.recording {
            Some(recording) => recording.item(view, arrived),
            None => Arrival::default(),
        };
        // Many sources say it with every item; it is kept once, and not at all if nobody is told.
        if (view.model.is_some() || view.response_id.is_some()) && !self.observers.is_empty() {
            keep_first(&mut self.response_model, view.model);
            keep_first(&mut self.response_id, view.response_id);
        }
        let is_token = view.is_token();
        if is_token {
            let index = self.tokens;
            self.tokens += 1;
            if index == 0 || self.observers.want_tokens() {
                self.token_events(index, arrival, view);
            }
        }
        is_token
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
        if let Some(recording) = &mut self.recording {
            recording.pending(now);
        }
    }

    /// A chunk that is no item was handed out.
    pub(crate) fn handed_out(&mut self) {
        if let Some(recording) = self.recording.as_mut().filter(|_| self.timed) {
            recording.handed_out(clock::now());
        }
    }

    /// Returns the message of a source's error, from which this failure was read.
    pub(crate) fn message(&self, error: &(dyn StdError + 'static), failure: &Failure) -> String {
        self.monitoring.message(error, failure)
    }

    /// A network error happened; a retry follows if there is a delay.
    pub(crate) fn network_error(
        &mut self,
        kind: NetworkErrorKind,
        message: &str,
        delay: Option<Duration>,
        attempt: u32,
    ) {
        if let Some(recording) = &mut self.recording {
            let mut record =
                NetworkErrorRecord::new(kind, message, Timestamp::default()).attempt(attempt);
            if delay.is_some() {
                record = record.retried(delay);
            }
            recording.network_error(record);
        }
        self.observers.deliver(&Event::NetworkError {
            kind,
            message,
            delay,
            attempt: Some(attempt),
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
        if let Some(recording) = &mut self.recording {
            recording.retry(kind);
        }
        self.observers.deliver(&Event::Retry {
            attempt,
            reason,
            delay,
            kind,
        });
    }

    /// Rules were checked, and found this.
    pub(crate) fn violations(&mut self, violations: &[Violation]) {
        if let Some(recording) = &mut self.recording {
            recording.violations(violations);
        }
        for violation in violations {
            self.observers.deliver(&Event::Violation { violation });
        }
    }

    /// Drift was looked for, and this was found.
    pub(crate) fn drift(&mut self, reports: &[DriftReport]) {
        if let Some(recording) = &mut self.recording {
            // A report of none says that it was looked for.
            recording.drift(&DriftReport::none());
            for report in reports {
                recording.drift(report);
            }
        }
        for report in reports {
            self.observers.deliver(&Event::Drift { report });
        }
    }

    /// Ends the run: makes telemetry final, tells the handles, says `Finished`, drops the observers
    /// and leaves the list of live runs. Only the first call counts.
    pub(crate) fn finish(&mut self, end: End, error: Option<&(dyn StdError + 'static)>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        // In its box from the first, since it is large.
        let mut last = Box::new(Final {
            end,
            telemetry: None,
        });
        if let Some(mut recording) = self.recording.take() {
            recording.finish(last.end.clone());
            last.telemetry = Some(recording.telemetry());
        }
        // A panic of a waker must not keep the end from those who wait for it.
        let _ = contain(|| self.stop.forget_task());
        let Final { end, telemetry } = self.stop.publish(last);
        if !self.observers.is_empty() {
            self.observers.deliver(&Event::Finished {
                end,
                telemetry: telemetry.as_ref(),
                error,
                response_model: self.response_model.as_deref(),
                response_id: self.response_id.as_deref(),
            });
            self.observers.clear();
        }
        self.live = None;
    }
}

/// Keeps a name, unless there is one. An empty one is none: some servers begin with a chunk without.
#[inline]
fn keep_first(kept: &mut Option<Box<str>>, name: Option<&str>) {
    let name = name.filter(|name| !name.is_empty());
    if let (None, Some(name)) = (&kept, name) {
        *kept = Some(keys::cut(name, MAX_NAME).into());
    }
}

/// Asks one interceptor. Its panic is a refusal.
fn ask(interceptor: &dyn Interceptor, run: &mut NewRun) -> Result<(), Refusal> {
    contain(|| interceptor.before(run))
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
        let end = if aborted.unwrap_or(false) {
            End::of(Cause::Aborted)
        } else {
            End::dropped()
        };
        self.finish(end, None);
    }
}
