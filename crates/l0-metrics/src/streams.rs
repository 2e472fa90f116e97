//! Streams: the runs of one label set that are live, measured or not.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use metrics::{Counter, Gauge};
use tokio::time::Instant;

use crate::handles::{Later, Registrar};
use crate::layout::LAYOUT;

/// The runs that started here, and the waits for sources of these labels. It is locked when a run
/// starts, ends, begins to wait for a retry and goes on, and when time is brought up to date.
#[derive(Debug)]
pub(crate) struct Streams {
    began: Instant,
    state: Mutex<State>,
    /// There once a run has started here.
    runs: OnceLock<RunHandles>,
    /// There once a run has started here, or waited.
    backoff: OnceLock<Gauge>,
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
    /// When each live run started, by its number, and so the oldest first.
    live: BTreeMap<u64, Nanos>,
    living: Stopwatch,
    waiting: Stopwatch,
}

/// Nanoseconds since the streams began to be counted.
type Nanos = u128;

/// A live run, as long as it is one.
#[derive(Debug)]
pub(crate) struct Stream {
    number: u64,
    started: Nanos,
}

/// A wait for a retry, as long as it lasts: since when.
#[derive(Debug)]
pub(crate) struct Wait(Nanos);

/// How long many things took together, those that still go on included. No list of them is needed: all
/// that go on have taken now for each, without the sum of their beginnings.
#[derive(Debug, Default)]
struct Stopwatch {
    done: Nanos,
    going: u64,
    beginnings: Nanos,
    told: Nanos,
}

impl Stopwatch {
    fn begin(&mut self, at: Nanos) {
        self.going += 1;
        self.beginnings += at;
    }

    fn end(&mut self, began: Nanos, at: Nanos) {
        self.going -= 1;
        self.beginnings -= began;
        self.done += at.saturating_sub(began);
    }

    /// Tells what has not been told yet.
    fn tell(&mut self, now: Nanos, gauge: Option<&Gauge>) {
        let going = Nanos::from(self.going) * now;
        let total = self.done + going.saturating_sub(self.beginnings);
        if let (Some(gauge), true) = (gauge, total > self.told) {
            gauge.increment(seconds(total - self.told));
            self.told = total;
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
        }
    }

    /// Asks for the handles that the first run needs.
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

    pub(crate) fn start(&self) -> Stream {
        let (now, mut state) = self.lock();
        let number = state.started;
        state.started += 1;
        state.live.insert(number, now);
        state.living.begin(now);
        if let Some(runs) = self.runs.get() {
            runs.started.increment(1);
            runs.active.increment(1.0);
        }
        self.tell(now, &mut state);
        Stream {
            number,
            started: now,
        }
    }

    /// A run waits for a retry from now on. It may have started elsewhere.
    pub(crate) fn wait(&self, later: &Later) -> Wait {
        if self.backoff.get().is_none() {
            later.ask(|registrar| self.begin_backoff(registrar));
        }
        let (now, mut state) = self.lock();
        state.waiting.begin(now);
        Wait(now)
    }

    /// It does not wait any more.
    pub(crate) fn resume(&self, Wait(since): Wait) {
        let (now, mut state) = self.lock();
        state.waiting.end(since, now);
        self.tell(now, &mut state);
    }

    /// To be called once for each start.
    pub(crate) fn finish(&self, stream: &Stream) {
        let (now, mut state) = self.lock();
        state.living.end(stream.started, now);
        state.live.remove(&stream.number);
        if let Some(runs) = self.runs.get() {
            runs.active.decrement(1.0);
        }
        self.tell(now, &mut state);
    }

    /// Tells how much time has gone by.
    pub(crate) fn refresh(&self) {
        let (now, mut state) = self.lock();
        self.tell(now, &mut state);
    }

    /// What is told under the lock is told in the order in which it happened.
    fn tell(&self, now: Nanos, state: &mut State) {
        let runs = self.runs.get();
        state
            .living
            .tell(now, runs.map(|runs| &runs.active_seconds));
        state.waiting.tell(now, self.backoff.get());
        if let Some(runs) = runs {
            let oldest = state.live.first_key_value();
            let age = oldest.map_or(0, |(_, started)| now.saturating_sub(*started));
            runs.oldest.set(seconds(age));
        }
    }

    /// The time is read under the lock, so that it does not go back from one user of it to the next.
    fn lock(&self) -> (Nanos, MutexGuard<'_, State>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().saturating_duration_since(self.began);
        (now.as_nanos(), state)
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / 1e9
}
