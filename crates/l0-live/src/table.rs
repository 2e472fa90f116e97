//! Table: the live runs, the runs that ended last, and totals.

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use l0_core::{
    AttemptStats, Cost, KeyList, Metadata, Outcome, Progress, RunInfo, RunState, Stalls, Timestamp,
    keys,
};
use slab::Slab;

use crate::snapshot::{FinishedRun, LiveRun, ModelTotals, Snapshot, Spent, Totals, cut};

/// The maximum number of models.
const MAX_MODELS: usize = 64;

/// The maximum number of currencies, because a source can invent some.
const MAX_CURRENCIES: usize = 8;

/// The minimum period of a rate.
const RATE_OVER: Duration = Duration::from_secs(1);

/// The number of rows that are read under one lock. Runs that start or end wait at most for these.
const ROWS_AT_ONCE: usize = 256;

/// The limits and thresholds of the table.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) keys: KeyList,
    pub(crate) max_live: usize,
    pub(crate) max_listed: usize,
    pub(crate) max_finished: usize,
    pub(crate) stalls: Stalls,
}

/// The data of all runs. Its lock is taken when a run starts, when an attempt or a run ends, and for reading.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) settings: Settings,
    rows: Mutex<Rows>,
}

#[derive(Debug, Default)]
struct Rows {
    live: Slab<Row>,
    finished: VecDeque<Arc<FinishedRun>>,
    started: u64,
    ended: BTreeMap<Outcome, u64>,
    models: Vec<ModelTotals>,
}

#[derive(Debug)]
struct Row {
    /// The position in the order of starts.
    number: u64,
    entry: Arc<Entry>,
}

/// A live run at the time of reading.
#[derive(Debug)]
pub(crate) struct Reading {
    rank: Rank,
    progress: Progress,
    entry: Arc<Entry>,
}

/// The position in the list: stalled runs first, then by the time since the last item, the longest first, then by
/// start. Ranks are unique.
type Rank = (Reverse<bool>, Reverse<Option<Duration>>, u64);

/// The identity of a silence: the run, its start relative to that of the run, and the attempt and tokens before it.
pub(crate) type Silence = (u64, Duration, u32, u64);

impl Reading {
    pub(crate) fn silence(&self) -> Silence {
        let progress = &self.progress;
        let since = progress
            .age
            .saturating_sub(progress.in_state.unwrap_or_default());
        (self.rank.2, since, progress.attempt, progress.tokens)
    }

    pub(crate) fn to_live_run(&self, settings: &Settings) -> LiveRun {
        self.entry
            .to_live_run(&self.progress, self.rank.0.0, settings)
    }
}

/// Returns the time since the last item of the source. `None` if arrivals are not timed.
fn since_last(progress: &Progress) -> Option<Duration> {
    let last = progress.last_arrival.unwrap_or_default();
    progress.in_state.map(|_| progress.age.saturating_sub(last))
}

/// A live run.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) run: RunInfo,
    /// The number of the current source.
    source: AtomicU32,
    /// Earlier readings, for the rate.
    rate_history: Mutex<RateHistory>,
}

/// The age and the number of tokens of a run at two readings.
#[derive(Debug, Default)]
struct RateHistory {
    before: (Duration, u64),
    last: (Duration, u64),
}

impl RateHistory {
    /// Records a reading. Returns the rate since the last reading that is old enough.
    fn record(&mut self, age: Duration, tokens: u64) -> f64 {
        if age.saturating_sub(self.last.0) >= RATE_OVER {
            self.before = std::mem::replace(&mut self.last, (age, tokens));
        }
        let over = age.saturating_sub(self.before.0).as_secs_f64();
        let more = tokens.saturating_sub(self.before.1);
        if over <= 0.0 {
            return 0.0;
        }
        #[allow(clippy::cast_precision_loss, reason = "shown with one decimal")]
        let rate = more as f64 / over;
        (rate * 10.0).round() / 10.0
    }
}

impl Entry {
    pub(crate) fn new(run: RunInfo) -> Arc<Self> {
        Arc::new(Self {
            run,
            source: AtomicU32::new(1),
            rate_history: Mutex::default(),
        })
    }

    pub(crate) fn set_source(&self, number: u32) {
        self.source.store(number, Ordering::Relaxed);
    }

    /// Returns a metadata entry of the current source.
    pub(crate) fn name(&self, key: &str) -> Option<String> {
        let source = self.run.source(self.source.load(Ordering::Relaxed))?;
        Some(cut(&keys::text(&source.metadata, key)?))
    }

    fn to_live_run(&self, progress: &Progress, stalled: bool, settings: &Settings) -> LiveRun {
        LiveRun {
            id: self.run.id().to_owned(),
            parent_id: self.run.parent_id().map(str::to_owned),
            metadata: picked(&settings.keys, self.run.metadata()),
            model: self.name(keys::MODEL),
            provider: self.name(keys::PROVIDER),
            attempt: progress.attempt,
            state: progress.state,
            in_state: progress.in_state,
            stalled,
            silence: progress.silence(),
            age: progress.age,
            since_last: since_last(progress),
            time_to_first_token: progress.first_token,
            tokens: progress.tokens,
            rate: lock(&self.rate_history).record(progress.age, progress.tokens),
        }
    }
}

impl Table {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            settings,
            rows: Mutex::default(),
        }
    }

    /// Adds a run. Returns its row, if the table has space.
    pub(crate) fn start(&self, entry: &Arc<Entry>) -> Option<usize> {
        let mut rows = lock(&self.rows);
        let number = rows.started;
        rows.started += 1;
        let is_room = rows.live.len() < self.settings.max_live;
        let entry = is_room.then(|| Arc::clone(entry))?;
        Some(rows.live.insert(Row { number, entry }))
    }

    /// Counts an ended attempt.
    pub(crate) fn attempt(&self, attempt: &AttemptStats) {
        let mut rows = lock(&self.rows);
        let totals = rows.model(attempt.model.as_deref());
        totals.attempts += 1;
        totals.tokens += attempt.tokens;
        spend(&mut totals.cost, attempt.cost);
    }

    /// Moves a run from the live to the ended runs.
    pub(crate) fn finish(&self, row: Option<usize>, finished: FinishedRun) {
        let mut rows = lock(&self.rows);
        let row = row.and_then(|row| rows.live.try_remove(row));
        *rows.ended.entry(finished.outcome).or_default() += 1;
        let totals = rows.model(finished.model.as_deref());
        *totals.finished.entry(finished.outcome).or_default() += 1;
        let mut gone = None;
        if self.settings.max_finished > 0 {
            if rows.finished.len() >= self.settings.max_finished {
                gone = rows.finished.pop_back();
            }
            rows.finished.push_front(Arc::new(finished));
        }
        drop(rows);
        drop((row, gone));
    }

    /// Reads some live runs, beginning with a row, and adds those that are `wanted` to `readings`. Returns the next
    /// row, or `None` at the end.
    fn scan(
        &self,
        from: usize,
        readings: &mut Vec<Reading>,
        mut wanted: impl FnMut(&Progress, Rank) -> bool,
    ) -> Option<usize> {
        let rows = lock(&self.rows);
        let end = from + ROWS_AT_ONCE;
        for Row { number, entry } in (from..end).filter_map(|row| rows.live.get(row)) {
            // Absent if the run has just ended.
            let Some(progress) = entry.run.progress() else {
                continue;
            };
            let is_stalled = progress.is_stalled(&self.settings.stalls);
            let rank = (Reverse(is_stalled), Reverse(since_last(&progress)), *number);
            if wanted(&progress, rank) {
                readings.push(Reading {
                    rank,
                    progress,
                    entry: Arc::clone(entry),
                });
            }
        }
        (end < rows.live.capacity()).then_some(end)
    }

    /// Returns the stalled runs, the longest silence first.
    pub(crate) fn stalled(&self) -> Vec<Reading> {
        let mut readings = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            next = self.scan(from, &mut readings, |_, (Reverse(is_stalled), ..)| {
                is_stalled
            });
        }
        readings.sort_by_key(|reading| Reverse(reading.progress.silence()));
        readings
    }

    /// Returns the state of all runs, with at most `limit` live runs. Reads all runs, but allocates only for the
    /// listed ones.
    pub(crate) fn snapshot(&self, limit: usize) -> Snapshot {
        let limit = limit.min(self.settings.max_listed);
        let mut totals = Totals::default();
        for state in RunState::ALL {
            totals.states.entry(*state).or_default();
        }
        let mut first: BTreeMap<Rank, Reading> = BTreeMap::new();
        let mut readings = Vec::new();
        let mut next = Some(0);
        while let Some(from) = next {
            let last = first.last_key_value().map(|(rank, _)| *rank);
            let last = last.filter(|_| first.len() >= limit);
            next = self.scan(from, &mut readings, |progress, rank| {
                totals.stalled += u64::from(rank.0.0);
                *totals.states.entry(progress.state).or_default() += 1;
                limit > 0 && last.is_none_or(|last| rank < last)
            });
            for reading in readings.drain(..) {
                first.insert(reading.rank, reading);
                if first.len() > limit {
                    first.pop_last();
                }
            }
        }
        let live: Vec<_> = first
            .values()
            .map(|reading| reading.to_live_run(&self.settings))
            .collect();
        let rows = lock(&self.rows);
        totals.started = rows.started;
        totals.finished.clone_from(&rows.ended);
        totals.models.clone_from(&rows.models);
        let finished = rows.finished.iter().cloned().collect();
        let watched = rows.live.len() as u64;
        drop(rows);
        let ended: u64 = totals.finished.values().sum();
        totals.live = totals.started - ended;
        totals.unlisted = totals.live.saturating_sub(live.len() as u64);
        totals.unwatched = totals.live - watched;
        Snapshot {
            at: Timestamp::now(),
            stall_after: self.settings.stalls.after,
            first_token_after: self.settings.stalls.first_token_after,
            totals,
            live,
            finished,
        }
    }
}

impl Rows {
    /// Returns the totals of a model. Beyond the limit, these are the totals of unnamed models.
    fn model(&mut self, model: Option<&str>) -> &mut ModelTotals {
        let model = model.map(cut);
        let known = |models: &[ModelTotals], model: &Option<String>| {
            models.iter().position(|totals| totals.model == *model)
        };
        let named = self.models.iter().filter(|totals| totals.model.is_some());
        let is_full = named.count() >= MAX_MODELS;
        let at = known(&self.models, &model);
        let model = if at.is_none() && is_full { None } else { model };
        let at = at.or_else(|| known(&self.models, &model));
        let at = at.unwrap_or_else(|| {
            self.models.push(ModelTotals {
                model,
                ..ModelTotals::default()
            });
            self.models.len() - 1
        });
        &mut self.models[at]
    }
}

/// Adds a cost, if it is known.
pub(crate) fn spend(spent: &mut Vec<Spent>, cost: Option<Cost>) {
    let Some(cost) = cost else { return };
    if let Some(of) = spent.iter_mut().find(|of| of.currency == cost.currency) {
        of.amount += cost.amount;
    } else if spent.len() < MAX_CURRENCIES {
        spent.push(Spent {
            amount: cost.amount,
            currency: cost.currency,
        });
    }
}

/// Returns the listed metadata.
pub(crate) fn picked(keys: &KeyList, metadata: &Metadata) -> BTreeMap<String, String> {
    let picked = keys.pick(metadata);
    picked
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
