//! Live: the interceptor that maintains the table, and its builder.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use l0_core::{
    AttemptStats, End, ErrorRecord, Event, Interceptor, KeyError, KeyList, KeyRules, Metadata,
    Observer, Observers, RunInfo, Stalls, Telemetry, keys,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::snapshot::{FinishedAttempt, FinishedRun, LiveRun, Reason, Snapshot, cut};
use crate::table::{Entry, Reading, Settings, Silence, Table, picked, spend};

/// Any non-empty text can be a key.
const KEYS: KeyRules = KeyRules::new(
    |key| (!key.is_empty()).then(|| key.to_owned()),
    "a non-empty text",
);

/// The maximum number of attempts that are kept of an ended run.
const MAX_ATTEMPTS: usize = 32;

/// An interceptor that watches runs while they are live. Cheap to clone; clones
/// share their data. One `Live` can watch several [`L0`](l0_core::L0)s.
#[derive(Clone)]
pub struct Live(Arc<Table>);

impl Live {
    /// Creates a `Live` with the defaults of the [builder](Self::builder).
    #[must_use]
    pub fn new() -> Self {
        Self::builder().build()
    }

    /// Returns a builder.
    pub fn builder() -> LiveBuilder {
        LiveBuilder {
            settings: Settings {
                keys: KeyList::new(),
                max_live: 100_000,
                max_listed: 1_000,
                max_finished: 100,
                stalls: Stalls::new(),
            },
        }
    }

    /// Returns the current state, with as many live runs as the builder [lists](LiveBuilder::max_listed). Runs
    /// are read one after another, from atomics that they write. No run waits for this.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot(usize::MAX)
    }

    /// Returns the current state, with at most `limit` live runs.
    #[cfg(feature = "axum")]
    pub(crate) fn snapshot_of(&self, limit: usize) -> Snapshot {
        self.0.snapshot(limit)
    }

    /// Returns all runs that are currently stalled, the longest silence first. Runs beyond the
    /// [limit](LiveBuilder::max_live) of the table are not included.
    #[must_use]
    pub fn stalled(&self) -> Vec<LiveRun> {
        let readings = self.0.stalled();
        readings
            .iter()
            .map(|reading| reading.to_live_run(&self.0.settings))
            .collect()
    }

    /// Calls `on_stall` for each run that stalls, once for each silence. The future never completes; drop it
    /// to stop watching. It checks the runs at the interval `every`, which is the maximum delay of a report. A
    /// silence that ends between two checks may not be reported. Runs beyond the
    /// [limit](LiveBuilder::max_live) of the table are not watched: [`Totals::unwatched`](crate::Totals::unwatched)
    /// is their number. Requires a Tokio runtime with a timer.
    ///
    /// ```no_run
    /// # use std::time::Duration;
    /// # fn start(live: &l0_live::Live) {
    /// tokio::spawn(live.watch_stalls(Duration::from_secs(1), |run| {
    ///     eprintln!("{} is stalled: {} tokens, then nothing", run.id, run.tokens);
    /// }));
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// The future panics if `every` is zero, or outside of a runtime with a timer.
    pub fn watch_stalls<F>(
        &self,
        every: Duration,
        mut on_stall: F,
    ) -> impl Future<Output = ()> + use<F>
    where
        F: FnMut(&LiveRun),
    {
        let live = self.clone();
        async move {
            let mut reported: HashSet<Silence> = HashSet::new();
            let mut ticks = interval(every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let stalled = live.0.stalled();
                for reading in &stalled {
                    if !reported.contains(&reading.silence()) {
                        on_stall(&reading.to_live_run(&live.0.settings));
                    }
                }
                reported = stalled.iter().map(Reading::silence).collect();
            }
        }
    }
}

impl Default for Live {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Live").field(&self.0.settings).finish()
    }
}

/// Builds a [`Live`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct LiveBuilder {
    settings: Settings,
}

impl LiveBuilder {
    /// Adds metadata keys whose values are shown, for each run that has them. The model and the provider are always
    /// shown. Default: none.
    ///
    /// # Errors
    ///
    /// Returns an error if a key is empty.
    pub fn metadata_keys<I>(mut self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        self.settings.keys.add(keys, &KEYS)?;
        Ok(self)
    }

    /// Sets the maximum number of live runs that are watched at once. Further runs are only counted. A run that
    /// is watched from its start is watched until it ends. Default: 100,000.
    pub fn max_live(mut self, runs: usize) -> Self {
        self.settings.max_live = runs;
        self
    }

    /// Sets the maximum number of live runs in a [snapshot](Live::snapshot), and on the page: stalled runs first,
    /// then those with the longest time since the last item. Default: 1,000.
    pub fn max_listed(mut self, runs: usize) -> Self {
        self.settings.max_listed = runs;
        self
    }

    /// Sets the maximum number of ended runs that are kept. Default: 100.
    pub fn max_finished(mut self, runs: usize) -> Self {
        self.settings.max_finished = runs;
        self
    }

    /// Sets the thresholds at which a run counts as stalled. Default: 10 s of silence, and 60 s before the first
    /// token of an attempt.
    pub fn stalls(mut self, stalls: Stalls) -> Self {
        self.settings.stalls = stalls;
        self
    }

    /// Builds the [`Live`].
    #[must_use]
    pub fn build(self) -> Live {
        Live(Arc::new(Table::new(self.settings)))
    }
}

impl Interceptor for Live {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let entry = Entry::new(run.clone());
        let row = self.0.start(&entry);
        observers.push(Watch {
            table: Arc::clone(&self.0),
            row,
            entry,
            started: Instant::now(),
            tokens: 0,
            attempt_count: 0,
            attempts: Vec::new(),
            cost: Vec::new(),
            has_finished: false,
        });
    }

    fn needs_telemetry(&self) -> bool {
        true
    }

    fn needs_progress(&self) -> bool {
        true
    }
}

/// Watches one run. Dropping it ends the run, if it has not ended yet.
struct Watch {
    table: Arc<Table>,
    row: Option<usize>,
    entry: Arc<Entry>,
    started: Instant,
    /// The tokens of the ended attempts.
    tokens: u64,
    attempt_count: u32,
    attempts: Vec<FinishedAttempt>,
    cost: Vec<crate::snapshot::Spent>,
    has_finished: bool,
}

impl Watch {
    fn attempt(&mut self, attempt: &AttemptStats) {
        self.table.attempt(attempt);
        self.tokens += attempt.tokens;
        self.attempt_count += 1;
        spend(&mut self.cost, attempt.cost);
        if self.attempts.len() < MAX_ATTEMPTS {
            self.attempts.push(FinishedAttempt {
                number: attempt.number,
                model: attempt.model.as_deref().map(cut),
                start: attempt.start_offset,
                duration: attempt.duration,
                time_to_first_token: attempt.time_to_first_token,
                tokens: attempt.tokens,
                outcome: attempt.outcome,
                reason: attempt.error.as_ref().map(Reason::of),
            });
        }
    }

    fn finish(&mut self, end: &End, telemetry: Option<&Telemetry>, metadata: &Metadata) {
        if std::mem::replace(&mut self.has_finished, true) {
            return;
        }
        let run = &self.entry.run;
        let measured = telemetry.map(|telemetry| &telemetry.metrics);
        let duration = telemetry.and_then(|telemetry| telemetry.duration);
        let finished = FinishedRun {
            id: run.id().to_owned(),
            parent_id: run.parent_id().map(str::to_owned),
            metadata: picked(&self.table.settings.keys, metadata),
            model: self.entry.name(keys::MODEL),
            provider: self.entry.name(keys::PROVIDER),
            started_at: run.started_at(),
            duration: duration.unwrap_or_else(|| self.started.elapsed()),
            outcome: end.outcome(),
            reason: ErrorRecord::of(end).as_ref().map(Reason::of),
            time_to_first_token: measured.and_then(|metrics| metrics.time_to_first_token),
            tokens: self.tokens,
            rate: measured.and_then(|metrics| metrics.tokens_per_second),
            cost: std::mem::take(&mut self.cost),
            attempt_count: self.attempt_count,
            attempts: std::mem::take(&mut self.attempts),
        };
        self.table.finish(self.row, finished);
    }
}

impl Observer for Watch {
    fn on_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::AttemptStarted { source, .. } => self.entry.set_source(source),
            Event::AttemptFinished { attempt, .. } => self.attempt(attempt),
            Event::Finished {
                end,
                telemetry,
                metadata,
                ..
            } => self.finish(end, telemetry, metadata),
            _ => {}
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let entry = Arc::clone(&self.entry);
        self.finish(&End::dropped(), None, entry.run.metadata());
    }
}
