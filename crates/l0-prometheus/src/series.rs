//! Series: the numbers of one label set of runs, and how a run is counted into them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use l0_core::{
    AttemptStats, End, GuardrailStats, Outcome, Quantity, Severity, Telemetry, Value, keys,
};
use tokio::time::Instant;

use crate::exemplar::Trace;
use crate::histogram::{UnitBounds, UnitHistogram};
use crate::labels::Labels;
use crate::layout::{FINISHED, LAYOUT};
use crate::number::{Count, Exact, Float, NANOS, Units, nanos, units};

/// What is known of the runs of one label set. Arrays are in the order of the layout.
#[derive(Debug)]
pub(crate) struct Series {
    /// Measured runs, counted at their end.
    pub(crate) requests: Count,
    /// In whole units.
    pub(crate) sums: Box<[Count]>,
    /// NaN until it is known.
    pub(crate) last: Box<[Float]>,
    pub(crate) histograms: Box<[UnitHistogram]>,
    pub(crate) breakdowns: Box<[Breakdown]>,
    /// Of all runs, measured or not.
    pub(crate) ends: Box<[Breakdown]>,
    /// From and to. Of all runs, measured or not.
    pub(crate) fallbacks: Breakdown,
    pub(crate) streams: Streams,
}

impl Series {
    pub(crate) fn new(bounds: &[Arc<UnitBounds>], exemplars: bool) -> Self {
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
            streams: Streams::new(),
        }
    }

    /// Counts what was measured of a run, or of the attempts of one of its sources, but not how it ended.
    /// The run itself, which started in this trace, is one more request where it `is_last`.
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
            row.quantity.values(telemetry, &mut |value| match value {
                Value::Distribution(all) if row.longest => {
                    histogram.observe(nanos(all.max()), telemetry, trace);
                }
                Value::Distribution(all) => histogram.fold(all),
                value => histogram.observe(units(value), telemetry, trace),
            });
        }
        for (quantity, counts) in layout.breakdowns.iter().zip(&self.breakdowns) {
            quantity.each(telemetry, &mut |of, value| counts.add(of, Units::of(value)));
        }
    }

    /// Counts one measured run, what it failed with, and where it fell back to. It is no end of a run that
    /// was counted as started: ends and starts are those of interceptors.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        self.record_measured(telemetry, None, true);
        for ((quantity, _), counts) in LAYOUT.ends.iter().zip(&self.ends) {
            if quantity.name != FINISHED {
                quantity.each(telemetry, &mut |of, value| counts.add(of, Units::of(value)));
            }
        }
        for (index, attempt) in telemetry.attempts.iter().enumerate() {
            if attempt.fallbacks == 0 {
                continue;
            }
            let to = match telemetry.attempts.get(index + 1) {
                Some(next) => name(next),
                // The run ended before it was called, so that only its number is known.
                None => source_name(None, attempt.source.saturating_add(1)),
            };
            let count = attempt.fallbacks.into();
            self.fallbacks.add(&[&name(attempt), &to], count_of(count));
        }
    }

    /// Counts the end of a run that was counted as started here, and what it failed with where the
    /// source counts that was tried last.
    pub(crate) fn finish(&self, stream: &Stream, end: &End, last: &Self) {
        last.count_end(end, |name| name != FINISHED);
        self.streams
            .finish(stream, || self.count_end(end, |name| name == FINISHED));
    }

    fn count_end(&self, end: &End, wanted: fn(&str) -> bool) {
        for ((quantity, of_end), counts) in LAYOUT.ends.iter().zip(&self.ends) {
            if let (true, Some(value)) = (wanted(quantity.name), of_end(end)) {
                counts.add(&[&value], count_of(1));
            }
        }
    }

    /// What is to agree in one scrape, read at one time: what started has finished or is active. The
    /// requests were read before, since they are counted after the end.
    pub(crate) fn snapshot(&self, requests: u64) -> Snapshot {
        let of_finished = |(one, _): &(&Quantity, _)| one.name == FINISHED;
        let mut finished = Vec::new();
        let streams = self.streams.read(|| {
            if let Some(at) = LAYOUT.ends.iter().position(of_finished) {
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

/// What fallbacks call a source: its model, or else its number.
pub(crate) fn source_name(model: Option<Cow<'_, str>>, number: u32) -> Cow<'_, str> {
    let model = model.filter(|model| !model.is_empty());
    model.unwrap_or_else(|| number.to_string().into())
}

/// What of a series has to agree.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) requests: u64,
    /// By outcome.
    pub(crate) finished: Vec<(Cow<'static, str>, u64)>,
    pub(crate) streams: StreamsRead,
}

impl Snapshot {
    /// The streams; `None` if no interceptor ever saw a run of this label set start.
    pub(crate) fn streams(&self) -> Option<&StreamsRead> {
        (self.streams.started > 0).then_some(&self.streams)
    }
}

/// Sums by the values of labels: of the first 64 sets of values, and of `other`.
#[derive(Debug)]
pub(crate) struct Breakdown(RwLock<Vec<Part>>);

/// The values and their sum, in ascending order of the values.
type Part = (Box<[Cow<'static, str>]>, Exact);

pub(crate) const fn count_of(count: u64) -> Units {
    Units {
        whole: count,
        parts: 0,
    }
}

impl Breakdown {
    /// As many as telemetry has rules.
    const MAX: usize = GuardrailStats::MAX_RULES;
    const OTHER: &str = "other";

    /// Counts of nothing.
    fn new() -> Self {
        Self(RwLock::default())
    }

    /// Counts by these labels. Where the values are few and known, they begin at 0, so that `rate` sees
    /// the first of each.
    fn of_values(labels: &[&str]) -> Self {
        let mut known: Vec<_> = match labels {
            ["outcome" | "result"] => Outcome::ALL.iter().map(|one| one.as_str()).collect(),
            ["severity"] => Severity::ALL.iter().map(|one| one.as_str()).collect(),
            _ => Vec::new(),
        };
        known.sort_unstable();
        let parts = known.into_iter();
        let parts = parts.map(|value| (Box::from([value.into()]), Exact::default()));
        Self(RwLock::new(parts.collect()))
    }

    pub(crate) fn add(&self, values: &[&str], sum: Units) {
        /// More labels than any metric has.
        const MOST: usize = 4;

        // To Prometheus an empty value is no label.
        let mut named = [Self::OTHER; MOST];
        let named = &mut named[..values.len().min(MOST)];
        for (named, value) in named.iter_mut().zip(values) {
            *named = match keys::cut(value, Labels::MAX_VALUE) {
                "" => Self::OTHER,
                value => value,
            };
        }
        if sum == Units::default() || self.add_to_known(named, sum) {
            return;
        }
        let parts = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        if parts.len() >= Self::MAX && find(parts, named).is_err() {
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

    fn add_to_known(&self, values: &[&str], sum: Units) -> bool {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = match find(&parts, values) {
            Err(_) if parts.len() >= Self::MAX => find(&parts, &[Self::OTHER; 4][..values.len()]),
            known => known,
        };
        known.is_ok_and(|at| {
            parts[at].1.add(sum);
            true
        })
    }

    /// Of counts by one label.
    fn copy(&self) -> Vec<(Cow<'static, str>, u64)> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let copy = |(values, sum): &Part| Some((values.first()?.clone(), sum.get().whole));
        parts.iter().filter_map(copy).collect()
    }

    pub(crate) fn each(&self, f: &mut dyn FnMut(&[&str], Units)) {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (values, sum) in &*parts {
            let values: Vec<&str> = values.iter().map(|value| &**value).collect();
            f(&values, sum.get());
        }
    }
}

fn find(parts: &[Part], values: &[&str]) -> Result<usize, usize> {
    parts.binary_search_by(|(known, _)| known.iter().map(|one| &**one).cmp(values.iter().copied()))
}

/// The runs that an interceptor saw start, measured or not. It is locked when a run starts, ends, begins
/// to wait for a retry and goes on, and for each scrape.
#[derive(Debug)]
pub(crate) struct Streams {
    began: Instant,
    state: Mutex<StreamsState>,
}

#[derive(Debug, Default)]
struct StreamsState {
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

    fn ever_began(&self) -> bool {
        self.done > 0 || self.going > 0
    }

    fn read(&self, now: Nanos) -> Nanos {
        let going = Nanos::from(self.going) * now;
        self.done + going.saturating_sub(self.beginnings)
    }
}

/// What streams say at one time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct StreamsRead {
    pub(crate) started: u64,
    pub(crate) active: u64,
    pub(crate) active_seconds: f64,
    /// `None` if no run ever started, and none waited for a source of these labels.
    pub(crate) backoff_seconds: Option<f64>,
    pub(crate) oldest_seconds: Option<f64>,
}

impl Streams {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            state: Mutex::default(),
        }
    }

    pub(crate) fn start(&self) -> Stream {
        let (now, mut state) = self.lock();
        let number = state.started;
        state.started += 1;
        state.live.insert(number, now);
        state.living.begin(now);
        Stream {
            number,
            started: now,
        }
    }

    /// A run waits for a retry from now on. It may have started elsewhere.
    pub(crate) fn wait(&self) -> Wait {
        let (now, mut state) = self.lock();
        state.waiting.begin(now);
        Wait(now)
    }

    /// It does not wait any more.
    pub(crate) fn resume(&self, Wait(since): Wait) {
        let (now, mut state) = self.lock();
        state.waiting.end(since, now);
    }

    /// To be called once for each start.
    fn finish(&self, stream: &Stream, count: impl FnOnce()) {
        let (now, mut state) = self.lock();
        state.living.end(stream.started, now);
        state.live.remove(&stream.number);
        count();
    }

    fn read(&self, ends: impl FnOnce()) -> StreamsRead {
        let (now, state) = self.lock();
        ends();
        let oldest = state.live.first_key_value();
        let known = state.started > 0 || state.waiting.ever_began();
        StreamsRead {
            started: state.started,
            active: state.live.len() as u64,
            active_seconds: seconds(state.living.read(now)),
            backoff_seconds: known.then(|| seconds(state.waiting.read(now))),
            oldest_seconds: oldest.map(|(_, started)| seconds(now.saturating_sub(*started))),
        }
    }

    /// The time is read under the lock, so that it does not go back from one user of it to the next.
    fn lock(&self) -> (Nanos, MutexGuard<'_, StreamsState>) {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now().saturating_duration_since(self.began);
        (now.as_nanos(), state)
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
    fn known_values_begin_at_zero_and_one_without_a_name_is_other() {
        let severities = Breakdown::of_values(&["severity"]);
        severities.add(&["error"], count_of(2));
        severities.add(&[""], count_of(1));
        severities.add(&["absurd"], count_of(0));
        let expected = [("error", 2), ("fatal", 0), ("other", 1), ("warning", 0)];
        assert_eq!(all(&severities), expected.map(|(v, n)| (v.to_owned(), n)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_started_and_did_not_finish_is_active_and_its_time_counts_at_once() {
        let second = || tokio::time::advance(Duration::from_secs(1));
        let streams = Streams::new();
        let nothing = streams.read(|| {});
        assert_eq!((nothing.started, nothing.backoff_seconds), (0, None));
        let first = streams.start();
        second().await;
        let second_run = streams.start();
        let wait = streams.wait();
        second().await;
        let read = streams.read(|| {});
        let expected = StreamsRead {
            started: 2,
            active: 2,
            active_seconds: 3.0,
            backoff_seconds: Some(1.0),
            oldest_seconds: Some(2.0),
        };
        assert_eq!(read, expected);

        streams.resume(wait);
        streams.finish(&first, || {});
        second().await;
        let read = streams.read(|| {});
        let expected = StreamsRead {
            active: 1,
            active_seconds: 4.0,
            ..expected
        };
        assert_eq!(read, expected);

        streams.finish(&second_run, || {});
        second().await;
        let expected = StreamsRead {
            active: 0,
            oldest_seconds: None,
            ..expected
        };
        assert_eq!(streams.read(|| {}), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_may_wait_where_it_did_not_start() {
        let streams = Streams::new();
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
