//! Series: the numbers of one label set of runs, and how a run is counted into them.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use l0_core::{End, GuardrailStats, Outcome, Quantity, Severity, Telemetry, Value, keys};
use tokio::time::Instant;

use crate::histogram::{UnitBounds, UnitHistogram};
use crate::labels::Labels;
use crate::layout::{FINISHED, LAYOUT};
use crate::number::{Count, Float, NANOS, add, nanos, units};

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
        let breakdown = |quantity: &Quantity| Breakdown::new(quantity.label());
        Self {
            requests: Count::default(),
            sums: LAYOUT.sums.iter().map(|_| Count::default()).collect(),
            last: LAYOUT.last.iter().map(|_| Float::new(f64::NAN)).collect(),
            histograms: histograms.collect(),
            breakdowns: LAYOUT.breakdowns.iter().map(|one| breakdown(one)).collect(),
            ends: LAYOUT.ends.iter().map(|(one, _)| breakdown(one)).collect(),
            streams: Streams::new(),
        }
    }

    /// Counts one measured run, but not how it ended.
    pub(crate) fn record_measured(&self, telemetry: &Telemetry) {
        let layout = &*LAYOUT;
        self.requests.add(1);
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
            match row.quantity.value(telemetry) {
                Some(Value::Distribution(all)) if row.longest => {
                    histogram.observe(nanos(all.max()), telemetry);
                }
                Some(Value::Distribution(all)) => histogram.fold(all),
                Some(value) => histogram.observe(units(value), telemetry),
                None => {}
            }
        }
        for (quantity, counts) in layout.breakdowns.iter().zip(&self.breakdowns) {
            quantity.each(telemetry, &mut |value, count| counts.add(value, count));
        }
    }

    /// Counts one measured run, and what it failed with. It is no end of a run that was counted as
    /// started: ends and starts are those of interceptors.
    pub(crate) fn record(&self, telemetry: &Telemetry) {
        self.record_measured(telemetry);
        for ((quantity, _), counts) in LAYOUT.ends.iter().zip(&self.ends) {
            if quantity.name != FINISHED {
                quantity.each(telemetry, &mut |value, count| counts.add(value, count));
            }
        }
    }

    /// Counts the end of a run that was counted as started.
    pub(crate) fn finish(&self, stream: &Stream, end: &End) {
        self.streams.finish(stream, || {
            for ((_, of_end), counts) in LAYOUT.ends.iter().zip(&self.ends) {
                if let Some(value) = of_end(end) {
                    counts.add(&value, 1);
                }
            }
        });
    }

    /// What is to agree in one scrape, read at one time: what started has finished or is active, and no more
    /// runs of interceptors were measured than have finished.
    pub(crate) fn snapshot(&self) -> Snapshot {
        // Counted after the end, so it is read before.
        let requests = self.requests.get();
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

/// What of a series has to agree.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) requests: u64,
    /// By outcome.
    pub(crate) finished: Vec<(Cow<'static, str>, u64)>,
    /// `None` if no interceptor ever saw a run of this label set.
    pub(crate) streams: Option<StreamsRead>,
}

/// Counts by the value of a label: the first 64 values, and `other`.
#[derive(Debug)]
pub(crate) struct Breakdown(RwLock<Vec<Part>>);

/// A value and its count, in ascending order of the values.
type Part = (Cow<'static, str>, AtomicU64);

impl Breakdown {
    /// As many as telemetry has rules.
    const MAX: usize = GuardrailStats::MAX_RULES;
    const OTHER: &str = "other";

    /// Counts by this label. Where its values are few and known, they begin at 0, so that `rate` sees
    /// the first of each.
    fn new(label: Option<&str>) -> Self {
        let mut known: Vec<_> = match label {
            Some("outcome") => Outcome::ALL.iter().map(|one| one.as_str()).collect(),
            Some("severity") => Severity::ALL.iter().map(|one| one.as_str()).collect(),
            _ => Vec::new(),
        };
        known.sort_unstable();
        let parts = known.into_iter().map(|value| (value.into(), 0.into()));
        Self(RwLock::new(parts.collect()))
    }

    fn add(&self, value: &str, count: u64) {
        // To Prometheus an empty value is no label.
        let value = keys::cut(value, Labels::MAX_VALUE);
        let value = if value.is_empty() { Self::OTHER } else { value };
        if count == 0 || self.add_to_known(value, count) {
            return;
        }
        let parts = &mut *self.0.write().unwrap_or_else(PoisonError::into_inner);
        let room = parts.len() < Self::MAX;
        let value = if room || find(parts, value).is_ok() {
            value
        } else {
            Self::OTHER
        };
        match find(parts, value) {
            Ok(at) => add(&parts[at].1, count),
            Err(at) => parts.insert(at, (value.to_owned().into(), count.into())),
        }
    }

    fn add_to_known(&self, value: &str, count: u64) -> bool {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = match find(&parts, value) {
            Err(_) if parts.len() >= Self::MAX => find(&parts, Self::OTHER),
            known => known,
        };
        known.is_ok_and(|at| {
            add(&parts[at].1, count);
            true
        })
    }

    fn copy(&self) -> Vec<(Cow<'static, str>, u64)> {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let copy = |(value, count): &Part| (value.clone(), count.load(Ordering::Acquire));
        parts.iter().map(copy).collect()
    }

    pub(crate) fn each(&self, mut f: impl FnMut(&str, u64)) {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (value, count) in &*parts {
            f(value, count.load(Ordering::Acquire));
        }
    }
}

fn find(parts: &[Part], value: &str) -> Result<usize, usize> {
    parts.binary_search_by(|(known, _)| (**known).cmp(value))
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
    /// Since when it waits for a retry.
    waits: Option<Nanos>,
}

impl Stream {
    pub(crate) fn waits(&self) -> bool {
        self.waits.is_some()
    }
}

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
    pub(crate) backoff_seconds: f64,
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
            waits: None,
        }
    }

    /// It waits for a retry from now on.
    pub(crate) fn wait(&self, stream: &mut Stream) {
        let (now, mut state) = self.lock();
        if stream.waits.is_none() {
            stream.waits = Some(now);
            state.waiting.begin(now);
        }
    }

    /// It does not wait any more.
    pub(crate) fn resume(&self, stream: &mut Stream) {
        let (now, mut state) = self.lock();
        if let Some(since) = stream.waits.take() {
            state.waiting.end(since, now);
        }
    }

    /// To be called once for each start.
    fn finish(&self, stream: &Stream, count: impl FnOnce()) {
        let (now, mut state) = self.lock();
        if let Some(since) = stream.waits {
            state.waiting.end(since, now);
        }
        state.living.end(stream.started, now);
        state.live.remove(&stream.number);
        count();
    }

    /// `None` if no run was ever started.
    fn read(&self, ends: impl FnOnce()) -> Option<StreamsRead> {
        let (now, state) = self.lock();
        ends();
        let oldest = state.live.first_key_value();
        (state.started > 0).then(|| StreamsRead {
            started: state.started,
            active: state.live.len() as u64,
            active_seconds: seconds(state.living.read(now)),
            backoff_seconds: seconds(state.waiting.read(now)),
            oldest_seconds: oldest.map(|(_, started)| seconds(now.saturating_sub(*started))),
        })
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
        counts.each(|value, count| all.push((value.to_owned(), count)));
        all
    }

    #[test]
    fn values_are_capped_and_their_sum_is_exact() {
        let rules = Breakdown::new(Some("rule"));
        for _ in 0..2 {
            for index in 0..1_000 {
                rules.add(&format!("rule-{index:04}"), 3);
            }
        }
        let all = all(&rules);
        assert_eq!(all.len(), GuardrailStats::MAX_RULES + 1);
        assert_eq!(all[0], ("other".to_owned(), 3 * 2 * 936));
        assert_eq!(all[64], ("rule-0063".to_owned(), 6));
    }

    #[test]
    fn known_values_begin_at_zero_and_one_without_a_name_is_other() {
        let severities = Breakdown::new(Some("severity"));
        severities.add("error", 2);
        severities.add("", 1);
        severities.add("absurd", 0);
        let expected = [("error", 2), ("fatal", 0), ("other", 1), ("warning", 0)];
        assert_eq!(all(&severities), expected.map(|(v, n)| (v.to_owned(), n)));
    }

    #[tokio::test(start_paused = true)]
    async fn what_started_and_did_not_finish_is_active_and_its_time_counts_at_once() {
        let second = || tokio::time::advance(Duration::from_secs(1));
        let streams = Streams::new();
        assert_eq!(streams.read(|| {}), None);
        let mut first = streams.start();
        second().await;
        let second_run = streams.start();
        streams.wait(&mut first);
        second().await;
        let read = streams.read(|| {}).unwrap();
        let expected = StreamsRead {
            started: 2,
            active: 2,
            active_seconds: 3.0,
            backoff_seconds: 1.0,
            oldest_seconds: Some(2.0),
        };
        assert_eq!(read, expected);

        streams.resume(&mut first);
        streams.finish(&first, || {});
        second().await;
        let read = streams.read(|| {}).unwrap();
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
        assert_eq!(streams.read(|| {}), Some(expected));
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_that_ends_while_it_waits_has_waited_until_then() {
        let streams = Streams::new();
        let mut stream = streams.start();
        for _ in 0..2 {
            streams.wait(&mut stream);
            tokio::time::advance(Duration::from_millis(250)).await;
        }
        streams.finish(&stream, || {});
        let read = streams.read(|| {}).unwrap();
        assert_eq!((read.backoff_seconds, read.active_seconds), (0.5, 0.5));
    }
}
