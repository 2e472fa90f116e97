//! Series: the numbers of one label set of runs, and how a run is counted into them.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use l0_core::{End, GuardrailStats, Outcome, Quantity, Severity, Telemetry, Value};

use crate::histogram::{UnitBounds, UnitHistogram};
use crate::layout::{FINISHED, LAYOUT};
use crate::number::{Count, Float, nanos, units};

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
            streams: Streams::default(),
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
    pub(crate) fn finish(&self, end: &End) {
        self.streams.finish();
        for ((_, of_end), counts) in LAYOUT.ends.iter().zip(&self.ends) {
            if let Some(value) = of_end(end) {
                counts.add(&value, 1);
            }
        }
    }
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
            Ok(at) => *parts[at].1.get_mut() += count,
            Err(at) => parts.insert(at, (value.to_owned().into(), count.into())),
        }
    }

    fn add_to_known(&self, value: &str, count: u64) -> bool {
        let parts = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let known = match find(&parts, value) {
            Err(_) if parts.len() >= Self::MAX => find(&parts, Self::OTHER),
            known => known,
        };
        // A start happened before its end, and whoever sees the end is to see the start.
        known.is_ok_and(|at| {
            parts[at].1.fetch_add(count, Ordering::Release);
            true
        })
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

/// The runs that an interceptor saw start, measured or not.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    started: Count,
    active: AtomicU64,
    /// In nanoseconds.
    pub(crate) backoff: Count,
}

impl Streams {
    pub(crate) fn start(&self) {
        self.started.add(1);
        self.active.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn back_off(&self, delay: Duration) {
        self.backoff.add(nanos(delay));
    }

    /// To be called once for each start.
    fn finish(&self) {
        self.active.fetch_sub(1, Ordering::Relaxed);
    }

    /// How many started; `None` if no interceptor ever saw a run of this label set.
    pub(crate) fn started(&self) -> Option<u64> {
        Some(self.started.get()).filter(|started| *started > 0)
    }

    pub(crate) fn active(&self) -> u64 {
        self.active.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_started_and_did_not_finish_is_active() {
        let streams = Streams::default();
        assert_eq!(streams.started(), None);
        streams.start();
        streams.start();
        assert_eq!(streams.active(), 2);
        streams.finish();
        streams.finish();
        assert_eq!(streams.active(), 0);
        assert_eq!(streams.started(), Some(2));
    }
}
