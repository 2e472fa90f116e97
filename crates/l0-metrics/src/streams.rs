//! Streams: the live runs of one label set, measured or not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use l0_core::{RunInfo, Stalls};
use metrics::{Counter, Gauge};
use tokio::time::Instant;

use crate::handles::{Deferred, LazyGauge, Registrar};
use crate::layout::LAYOUT;

/// The runs that started here, and the waits for sources with these labels. The lock is taken when a run
/// starts, ends, begins and ends a wait for a retry, and when times are updated.
#[derive(Debug)]
pub(crate) struct Streams {
    began: Instant,
    state: Mutex<State>,
    /// Present once a run has started here.
    runs: OnceLock<RunHandles>,
    /// Present once a run has started here, or waited.
    backoff: OnceLock<Gauge>,
    /// Present after the first refresh, if stalls are counted.
    stalled: LazyGauge,
}

#[derive(Debug)]
struct RunHandles {
    started: Counter,
    active: Gauge,
    active_seconds: Gauge,
    oldest: Gauge,
}

#[derive(Debug, Default)]
struct State {
    started: u64,
    /// The start time of each live run, by its number, so the oldest comes first. With the run, if stalls are
    /// counted.
    live: BTreeMap<u64, (Nanos, Option<RunInfo>)>,
    living: Stopwatch,
    waiting: Stopwatch,
}

/// Nanoseconds since counting began.
type Nanos = u128;

/// A live run, from its start to its end.
#[derive(Debug)]
pub(crate) struct Stream {
    number: u64,
    started: Nanos,
}

/// A wait for a retry, with its start time.
#[derive(Debug)]
pub(crate) struct Wait(Nanos);

/// The total duration of many activities, including the current ones. It needs no list of them: the current
/// ones have taken "now" times their number, minus the sum of their start times.
#[derive(Debug, Default)]
struct Stopwatch {
    finished: Nanos,
    running: u64,
    start_sum: Nanos,
    reported: Nanos,
}

impl Stopwatch {
    fn begin(&mut self, at: Nanos) {
        self.running += 1;
        self.start_sum += at;
    }

    fn end(&mut self, began: Nanos, at: Nanos) {
        self.running -= 1;
        self.start_sum -= began;
        self.finished += at.saturating_sub(began);
    }

    /// Reports the time that was not reported yet.
    fn report(&mut self, now: Nanos, gauge: Option<&Gauge>) {
        let running = Nanos::from(self.running) * now;
        let total = self.finished + running.saturating_sub(self.start_sum);
        if let (Some(gauge), true) = (gauge, total > self.reported) {
            gauge.increment(seconds(total - self.reported));
            self.reported = total;
        }
    }
}

impl Streams {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::default(),
            runs: OnceLock::new(),
            backoff: OnceLock::new(),
            stalled: LazyGauge::default(),
        }
    }

    /// Registers the handles that the first run needs.
    pub(crate) fn begin(&self, registrar: Registrar<'_>) {
        let own = &LAYOUT.own;
        self.runs.get_or_init(|| RunHandles {
            started: registrar.counter(own.started),
            active: registrar.gauge(own.active),
            active_seconds: registrar.gauge(own.active_seconds),
            oldest: registrar.gauge(own.oldest),
        });
        self.begin_backoff(registrar);
    }

    fn begin_backoff(&self, registrar: Registrar<'_>) {
        let place = LAYOUT.own.backoff;
        self.backoff.get_or_init(|| registrar.gauge(place));
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.runs.get().is_some()
    }

    /// Starts a run. `run` is passed if stalls are counted.
    pub(crate) fn start(&self, run: Option<&RunInfo>) -> Stream {
        let (now, mut state) = self.lock();
        let number = state.started;
        state.started += 1;
        state.live.insert(number, (now, run.cloned()));
        state.living.begin(now);
        if let Some(runs) = self.runs.get() {
            runs.started.increment(1);
            runs.active.increment(1.0);
        }
        self.report(now, &mut state);
        Stream {
            number,
            started: now,
        }
    }

    /// Starts a wait for a retry. The run can have started under another label set.
    pub(crate) fn wait(&self, deferred: &Deferred) -> Wait {
        if self.backoff.get().is_none() {
            deferred.register(|registrar| self.begin_backoff(registrar));
        }
        let (now, mut state) = self.lock();
        state.waiting.begin(now);
        Wait(now)
    }

    /// Ends a wait.
    pub(crate) fn resume(&self, Wait(since): Wait) {
        let (now, mut state) = self.lock();
        state.waiting.end(since, now);
        self.report(now, &mut state);
    }

    /// Call once for each start.
    pub(crate) fn finish(&self, stream: &Stream) {
        let (now, mut state) = self.lock();
        state.living.end(stream.started, now);
        let run = state.live.remove(&stream.number);
        if let Some(runs) = self.runs.get() {
            runs.active.decrement(1.0);
        }
        self.report(now, &mut state);
        drop(state);
        drop(run);
    }

    /// Updates the times and the number of stalled runs.
    pub(crate) fn refresh(&self, stalls: Option<Stalls>, deferred: &Deferred) {
        let (now, mut state) = self.lock();
        self.report(now, &mut state);
        let Some(stalls) = stalls.filter(|_| self.has_begun()) else {
            return;
        };
        let runs = state.live.values().filter_map(|(_, run)| run.clone());
        let runs: Vec<_> = runs.collect();
        // Read without the lock, so runs that start and end do not wait for it.
        drop(state);
        let progress = runs.iter().filter_map(RunInfo::progress);
        let stalled = progress.filter(|one| one.is_stalled(&stalls));
        let stalled = stalled.count() as f64;
        self.stalled.set(stalled, LAYOUT.own.stalled, deferred);
    }

    /// Reporting under the lock keeps the order of events.
    fn report(&self, now: Nanos, state: &mut State) {
        let runs = self.runs.get();
        state
            .living
            .report(now, runs.map(|runs| &runs.active_seconds));
        state.waiting.report(now, self.backoff.get());
        if let Some(runs) = runs {
            let oldest = state.live.first_key_value();
            let age = oldest.map_or(0, |(_, (started, _))| now.saturating_sub(*started));
            runs.oldest.set(seconds(age));
        }
    }

    /// The time is read under the lock, so it never goes back from one holder to the next.
    fn lock(&self) -> (Nanos, MutexGuard<'_, State>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().saturating_duration_since(self.began);
        (now.as_nanos(), state)
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
