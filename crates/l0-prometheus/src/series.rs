//! Series: the numbers of one label set of runs, and how a run is counted into them.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use l0_core::{
    AttemptStats, End, GuardrailStats, Outcome, Quantity, RunInfo, Severity, Stalls, Telemetry,
    Value, keys,
};
use tokio::time::Instant;

use crate::exemplar::Trace;
use crate::histogram::{UnitBounds, UnitHistogram};
use crate::labels::Labels;
use crate::layout::LAYOUT;
use crate::number::{Count, Exact, Float, NANOS, Units, nanos, units};
use crate::roster::Roster;

/// The numbers of the runs of one label set. Arrays are in the order of the layout.
#[derive(Debug)]
pub(crate) struct Series {
    /// Measured runs, counted when they end.
    pub(crate) requests: Count,
    /// Sums in whole units.
    pub(crate) sums: Box<[Count]>,
    /// NaN until a value is known.
    pub(crate) last: Box<[Float]>,
    pub(crate) histograms: Box<[UnitHistogram]>,
    pub(crate) breakdowns: Box<[Breakdown]>,
    /// The ends of all runs, measured or not.
    pub(crate) ends: Box<[Breakdown]>,
    /// Fallbacks by source and target, of all runs, measured or not.
    pub(crate) fallbacks: Breakdown,
    pub(crate) streams: Streams,
}

impl Series {
    pub(crate) fn new(bounds: &[Arc<UnitBounds>], exemplars: bool, stalls: Option<Stalls>) -> Self {
        let histograms = LAYOUT.histograms.iter().zip(bounds).map(|(row, bounds)| {
            let histogram = UnitHistogram::new(bounds);
            if exemplars && row.is_of_runs() {
                histogram.with_exemplars()
            } else {
                histogram
            }
        });
        let breakdown = |quantity: &Quantity| Breakdown::of_values(quantity.labels());
        Self {
            requests: Count::default(),
            sums: LAYOUT.sums.iter().map(|_| Count::default()).collect(),
            last: LAYOUT.last.iter().map(|_| Float::new(f64::NAN)).collect(),
            histograms: histograms.collect(),
            breakdowns: LAYOUT.breakdowns.iter().map(|one| breakdown(one)).collect(),
            ends: LAYOUT.ends.iter().map(|(one, _)| breakdown(one)).collect(),
            fallbacks: Breakdown::new(),
            streams: Streams::new(stalls),
        }
    }

    /// Counts the measurements of a run, or of the attempts of one of its sources, but not its end. The run,
    /// which started in this trace, counts as one more request where it `is_last`.
    pub(crate) fn record_measured(
        &self,
        telemetry: &Telemetry,
        trace: Option<Trace>,
        is_last: bool,
    ) {
        let layout = &*LAYOUT;
        self.requests.add(is_last.into());
        for (quantity, sum) in layout.sums.iter().zip(&self.sums) {
            if let Some(value) = quantity.value(telemetry) {
                sum.add(units(value));
            }
        }
        for (quantity, last) in layout.last.iter().zip(&self.last) {
            if let Some(value) = quantity.value(telemetry) {
                last.set(value.as_f64());
            }
        }
        for (row, histogram) in layout.histograms.iter().zip(&self.histograms) {
            let observe = |value: Value<'_>| match value {
                Value::Distribution(all) if row.longest => {
                    histogram.observe(nanos(all.max()), telemetry, trace);
                }
                Value::Distribution(all) => histogram.fold(all),
                value => histogram.observe(units(value), telemetry, trace),
            };
            row.quantity.values(telemetry, &mut { observe });
        }
        for (quantity, counts) in layout.breakdowns.iter().zip(&self.breakdowns) {
            quantity.each(telemetry, &mut |of, value| counts.add(of, Units::of(value)));
        }
    }

    /// Counts one measured run, its failure and its fallbacks. It does not count as a finished stream: starts
    /// and ends are counted by interceptors.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        self.record_measured(telemetry, None, true);
        for (at, counts) in self.ends.iter().enumerate() {
            if LAYOUT.finished != Some(at) {
                LAYOUT.ends[at]
                    .0
                    .each(telemetry, &mut |of, value| counts.add(of, Units::of(value)));
            }
        }
        for (index, attempt) in telemetry.attempts.iter().enumerate() {
            if attempt.fallbacks == 0 {
                continue;
            }
            let to = match telemetry.attempts.get(index + 1) {
                Some(next) => name(next),
                // The run ended before the source was called, so only its number is known.
                None => source_name(None, attempt.source.saturating_add(1)),
            };
            let count = attempt.fallbacks.into();
            self.fallbacks.add(&[&name(attempt), &to], count_of(count));
        }
    }

    /// Counts the end of a run that was counted as started here, and its failure under the source that was
    /// tried last. `took` is the duration of the run, if known, which saves reading the clock.
    pub(crate) fn finish(&self, stream: &Stream, end: &End, took: Option<Duration>, last: &Self) {
        for (at, counts) in last.ends.iter().enumerate() {
            if LAYOUT.finished != Some(at) {
                counts.count_end(at, end);
            }
        }
        self.streams.finish(stream, took, || {
            if let Some(at) = LAYOUT.finished {
                self.ends[at].count_end(at, end);
            }
        });
    }

    /// Reads at one time the numbers that must agree in one scrape: every started run is finished or active.
    /// Requests are counted after the end, so they are read before.
    pub(crate) fn snapshot(&self, requests: u64) -> Snapshot {
        let mut finished = Vec::new();
        let streams = self.streams.read(|| {
            if let Some(at) = LAYOUT.finished {
                finished = self.ends[at].copy();
            }
        });
        Snapshot {
            requests,
            finished,
            streams,
        }
    }
}

fn name(attempt: &AttemptStats) -> Cow<'_, str> {
    let model = attempt.model.as_deref().map(Cow::Borrowed);
    source_name(model, attempt.source)
}

/// Returns the label of a source in fallbacks: its model, or else its number.
pub(crate) fn source_name(model: Option<Cow<'_, str>>, number: u32) -> Cow<'_, str> {
    let model = model.filter(|model| !model.is_empty());
    model.unwrap_or_else(|| number.to_string().into())
}

/// The numbers of a series that must agree.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) requests: u64,
    /// Finished runs by outcome.
    pub(crate) finished: Vec<(Cow<'static, str>, u64)>,
    pub(crate) streams: StreamsRead,
}

impl Snapshot {
    /// Returns the streams, or `None` if no interceptor saw a run of this label set start.
    pub(crate) fn streams(&self) -> Option<&StreamsRead> {
        (self.streams.started > 0).then_some(&self.streams)
    }
}

/// Sums by label values: of the first 64 sets of values, and of `other`.
#[derive(Debug)]
pub(crate) struct Breakdown {
    /// Values that are few and known. They exist from the start, so no lock guards them.
    known: Box<[Part]>,
    others: RwLock<Vec<Part>>,
}

/// A set of values and its sum. Parts are sorted by their values.
type Part = (Box<[Cow<'static, str>]>, Exact);

/// More labels than any metric has of its own.
const MAX_LABELS: usize = 4;

pub(crate) const fn count_of(count: u64) -> Units {
    Units {
        whole: count,
        parts: 0,
    }
}

impl Breakdown {
    /// The same limit as that of rules in telemetry.
    const MAX: usize = GuardrailStats::MAX_RULES;
    const OTHER: &str = "other";

    /// Creates an empty breakdown.
    fn new() -> Self {
        Self::of_values(&[])
    }

    /// Creates a breakdown by these labels. If their values are few and known, all start at 0, so `rate` sees
    /// the first event of each.
    fn of_values(labels: &[&str]) -> Self {
        let mut known: Vec<_> = match labels {
            ["outcome" | "result"] => Outcome::ALL.iter().map(|one| one.as_str()).collect(),
            ["severity"] => Severity::ALL.iter().map(|one| one.as_str()).collect(),
            _ => Vec::new(),
        };
        known.sort_unstable();
        let known = known.into_iter();
        let known = known.map(|value| (Box::from([value.into()]), Exact::default()));
        Self {
            known: known.collect(),
            others: RwLock::default(),
        }
    }

    pub(crate) fn add(&self, values: &[&str], sum: Units) {
        if sum == Units::default() {
            return;
        }
        if let Ok(at) = find(&self.known, values) {
            return self.known[at].1.add(sum);
        }
        // Prometheus treats an empty value as a missing label.
        let mut named = [Self::OTHER; MAX_LABELS];
        let named = &mut named[..values.len().min(MAX_LABELS)];
        for (named, value) in named.iter_mut().zip(values) {
            *named = match keys::cut(value, Labels::MAX_VALUE) {
                "" => Self::OTHER,
                value => value,
            };
        }
        if self.add_to_known(named, sum) {
            return;
        }
        let parts = &mut *self.others.write().unwrap_or_else(PoisonError::into_inner);
        if self.is_full(parts) && find(parts, named).is_err() {
            named.fill(Self::OTHER);
        }
        match find(parts, named) {
            Ok(at) => parts[at].1.add(sum),
            Err(at) => {
                let values = named.iter().map(|value| (*value).to_owned().into());
                let exact = Exact::default();
                exact.add(sum);
                parts.insert(at, (values.collect(), exact));
            }
        }
    }

    fn is_full(&self, others: &[Part]) -> bool {
        self.known.len() + others.len() >= Self::MAX
    }

    /// Counts an end under the label value that the layout gives for this index.
    fn count_end(&self, place: usize, end: &End) {
        if let Some(value) = LAYOUT.ends[place].1(end) {
            self.add(&[&value], count_of(1));
        }
    }

    fn add_to_known(&self, values: &[&str], sum: Units) -> bool {
        let parts = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let found = match find(&parts, values) {
            Err(_) if self.is_full(&parts) => {
                find(&parts, &[Self::OTHER; MAX_LABELS][..values.len()])
            }
            found => found,
        };
        found.is_ok_and(|at| {
            parts[at].1.add(sum);
            true
        })
    }

    /// Copies the counts by one label.
    fn copy(&self) -> Vec<(Cow<'static, str>, u64)> {
        let mut all = Vec::new();
        self.each_part(&mut |(values, sum)| {
            all.extend(values.first().map(|value| (value.clone(), sum.get().whole)));
        });
        all
    }

    pub(crate) fn each(&self, f: &mut dyn FnMut(&[&str], Units)) {
        self.each_part(&mut |(values, sum)| {
            let mut texts = [""; MAX_LABELS];
            for (text, value) in texts.iter_mut().zip(values) {
                *text = value;
            }
            f(&texts[..values.len().min(MAX_LABELS)], sum.get());
        });
    }

    /// Calls the function with all parts, sorted by their values.
    fn each_part(&self, f: &mut dyn FnMut(&Part)) {
        let others = self.others.read().unwrap_or_else(PoisonError::into_inner);
        let mut others = others.iter().peekable();
        for part in &self.known {
            while let Some(before) = others.next_if(|other| other.0 < part.0) {
                f(before);
            }
            f(part);
        }
        others.for_each(f);
    }
}

fn find(parts: &[Part], values: &[&str]) -> Result<usize, usize> {
    /// Up to this many, a linear search is faster than comparing the order of texts.
    const MAX_LINEAR: usize = 8;

    if parts.len() <= MAX_LINEAR {
        let same = |(known, _): &Part| {
            known
                .iter()
                .zip(values)
                .all(|(known, value)| known == value)
        };
        if let Some(at) = parts.iter().position(same) {
            return Ok(at);
        }
    }
    parts.binary_search_by(|(known, _)| known.iter().map(|one| &**one).cmp(values.iter().copied()))
}

/// The runs that an interceptor saw start, measured or not. The lock is taken when a run starts, ends, begins
/// and ends a wait for a retry, and for each scrape.
#[derive(Debug)]
pub(crate) struct Streams {
    began: Instant,
    /// `None` if stalls are not counted.
    stalls: Option<Stalls>,
    state: Mutex<StreamsState>,
}

#[derive(Debug, Default)]
struct StreamsState {
    started: u64,
    /// The start time of each live run. With the run, if stalls are counted.
    live: Roster<(At, Option<RunInfo>)>,
    living: Stopwatch,
    waiting: Stopwatch,
}

/// A time in nanoseconds since counting began; enough for 584 years.
type At = u64;

/// A sum of nanoseconds over many runs.
type Nanos = u128;

/// A live run, from its start to its end.
#[derive(Debug)]
pub(crate) struct Stream {
    place: usize,
    started: At,
}

/// A wait for a retry, with its start time.
#[derive(Debug)]
pub(crate) struct Wait(At);

/// The total duration of many activities, including the current ones. It needs no list of them: the current
/// ones have taken "now" times their number, minus the sum of their start times.
#[derive(Debug, Default)]
struct Stopwatch {
    finished: Nanos,
    running: u64,
    start_sum: Nanos,
    /// The last time read. A duration reported by others can include time after it.
    read: Nanos,
}

impl Stopwatch {
    fn begin(&mut self, at: At) {
        self.running += 1;
        self.start_sum += Nanos::from(at);
    }

    fn end(&mut self, began: At, at: At) {
        self.running -= 1;
        self.start_sum -= Nanos::from(began);
        self.finished += Nanos::from(at.saturating_sub(began));
    }

    fn ever_began(&self) -> bool {
        self.finished > 0 || self.running > 0
    }

    /// Reads the total, which never decreases.
    fn read(&mut self, now: At) -> Nanos {
        let running = Nanos::from(self.running) * Nanos::from(now);
        let all = self.finished + running.saturating_sub(self.start_sum);
        self.read = self.read.max(all);
        self.read
    }
}

/// The stream numbers at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StreamsRead {
    pub(crate) started: u64,
    pub(crate) active: u64,
    pub(crate) active_seconds: f64,
    /// `None` if no run started under these labels and none waited for a source with them.
    pub(crate) backoff_seconds: Option<f64>,
    pub(crate) oldest_seconds: Option<f64>,
    /// `None` if stalls are not counted.
    pub(crate) stalled: Option<u64>,
}

impl Streams {
    fn new(stalls: Option<Stalls>) -> Self {
        Self {
            began: Instant::now(),
            stalls,
            state: Mutex::default(),
        }
    }

    pub(crate) fn start(&self, run: Option<&RunInfo>) -> Stream {
        let run = run.filter(|_| self.stalls.is_some()).cloned();
        let (now, mut state) = self.lock();
        state.started += 1;
        let place = state.live.add((now, run));
        state.living.begin(now);
        Stream {
            place,
            started: now,
        }
    }

    /// Starts a wait for a retry. The run can have started under another label set.
    pub(crate) fn wait(&self) -> Wait {
        let (now, mut state) = self.lock();
        state.waiting.begin(now);
        Wait(now)
    }

    /// Ends a wait.
    pub(crate) fn resume(&self, Wait(since): Wait) {
        let (now, mut state) = self.lock();
        state.waiting.end(since, now);
    }

    /// Call once for each start.
    fn finish(&self, stream: &Stream, took: Option<Duration>, count: impl FnOnce()) {
        let (now, mut state) = match took {
            Some(took) => (
                stream.started.saturating_add(nanos(took)),
                self.lock_state(),
            ),
            None => self.lock(),
        };
        state.living.end(stream.started, now);
        let run = state.live.remove(stream.place);
        count();
        drop(state);
        drop(run);
    }

    fn read(&self, ends: impl FnOnce()) -> StreamsRead {
        let (now, mut state) = self.lock();
        ends();
        let oldest = state.live.oldest().map(|(started, _)| *started);
        let known = state.started > 0 || state.waiting.ever_began();
        let mut read = StreamsRead {
            started: state.started,
            active: state.live.len() as u64,
            active_seconds: seconds(state.living.read(now)),
            backoff_seconds: known.then(|| seconds(state.waiting.read(now))),
            oldest_seconds: oldest.map(|started| seconds(now.saturating_sub(started).into())),
            stalled: None,
        };
        if let Some(stalls) = self.stalls {
            let runs = state.live.all().filter_map(|(_, run)| run.clone());
            let runs: Vec<_> = runs.collect();
            // Read without the lock, so runs that start and end do not wait for it.
            drop(state);
            let progress = runs.iter().filter_map(RunInfo::progress);
            let stalled = progress.filter(|one| one.is_stalled(&stalls));
            read.stalled = Some(stalled.count() as u64);
        }
        read
    }

    /// The time is read under the lock, so it never goes back from one holder to the next.
    fn lock(&self) -> (At, MutexGuard<'_, StreamsState>) {
        let state = self.lock_state();
        let now = Instant::now().saturating_duration_since(self.began);
        (nanos(now), state)
    }

    fn lock_state(&self) -> MutexGuard<'_, StreamsState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seconds(nanos: Nanos) -> f64 {
    nanos as f64 / NANOS
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn all(counts: &Breakdown) -> Vec<(String, u64)> {
        let mut all = Vec::new();
        counts.each(&mut |values, count| all.push((values.join(" to "), count.whole)));
        all
    }

    #[test]
    fn values_are_capped_and_their_sum_is_exact() {
        let rules = Breakdown::of_values(&["rule"]);
        for _ in 0..2 {
            for index in 0..1_000 {
                rules.add(&[&format!("rule-{index:04}")], count_of(3));
            }
        }
        let all = all(&rules);
        assert_eq!(all.len(), GuardrailStats::MAX_RULES + 1);
        assert_eq!(all[0], ("other".to_owned(), 3 * 2 * 936));
        assert_eq!(all[64], ("rule-0063".to_owned(), 6));
    }

    #[test]
    fn known_values_start_at_zero_and_a_nameless_one_is_other() {
        let severities = Breakdown::of_values(&["severity"]);
        severities.add(&["error"], count_of(2));
        severities.add(&[""], count_of(1));
        severities.add(&["absurd"], count_of(0));
        let expected = [("error", 2), ("fatal", 0), ("other", 1), ("warning", 0)];
        assert_eq!(all(&severities), expected.map(|(v, n)| (v.to_owned(), n)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_started_run_is_active_until_it_finishes_and_its_time_counts_at_once() {
        let second = || tokio::time::advance(Duration::from_secs(1));
        let streams = Streams::new(None);
        let nothing = streams.read(|| {});
        assert_eq!((nothing.started, nothing.backoff_seconds), (0, None));
        let first = streams.start(None);
        second().await;
        let second_run = streams.start(None);
        let wait = streams.wait();
        second().await;
        let read = streams.read(|| {});
        let expected = StreamsRead {
            started: 2,
            active: 2,
            active_seconds: 3.0,
            backoff_seconds: Some(1.0),
            oldest_seconds: Some(2.0),
            stalled: None,
        };
        assert_eq!(read, expected);

        streams.resume(wait);
        streams.finish(&first, None, || {});
        second().await;
        let read = streams.read(|| {});
        let expected = StreamsRead {
            active: 1,
            active_seconds: 4.0,
            ..expected
        };
        assert_eq!(read, expected);

        streams.finish(&second_run, None, || {});
        second().await;
        let expected = StreamsRead {
            active: 0,
            oldest_seconds: None,
            ..expected
        };
        assert_eq!(streams.read(|| {}), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_can_wait_under_labels_that_it_did_not_start_with() {
        let streams = Streams::new(None);
        for waited in [0.25, 0.5] {
            let wait = streams.wait();
            tokio::time::advance(Duration::from_millis(250)).await;
            let read = streams.read(|| {});
            assert_eq!((read.started, read.backoff_seconds), (0, Some(waited)));
            streams.resume(wait);
            assert_eq!(streams.read(|| {}), read);
        }
    }
}
