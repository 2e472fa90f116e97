//! Histogram: counts in buckets and a sum, written by many threads, read without contradiction.
//!
//! Counts are kept per bucket. A reader adds them up, and takes the sum of all for the count of the
//! histogram: so whatever is recorded meanwhile, buckets ascend, and `+Inf` is the count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use l0_core::Distribution;

use crate::number::{Count, Float, nanos};

/// The upper bounds of a histogram's buckets; one more bucket, `+Inf`, takes the rest.
#[derive(Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) values: Box<[f64]>,
    /// The label values.
    pub(crate) le: Box<[String]>,
}

impl Bounds {
    /// Finite and ascending, or the first value that is not.
    pub(crate) fn new(values: &[f64]) -> Result<Self, f64> {
        let mut before = f64::NEG_INFINITY;
        for &value in values {
            if !value.is_finite() || value <= before {
                return Err(value);
            }
            before = value;
        }
        Ok(Self::ascending(values))
    }

    /// Of values that are known to be finite and to ascend.
    pub(crate) fn ascending(values: &[f64]) -> Self {
        Self {
            le: values.iter().map(f64::to_string).collect(),
            values: values.into(),
        }
    }

    fn counts(&self) -> Box<[AtomicU64]> {
        (0..=self.values.len()).map(|_| AtomicU64::new(0)).collect()
    }
}

/// A histogram as a reader meets it.
#[derive(Clone, Copy)]
pub(crate) struct HistogramView<'a> {
    pub(crate) bounds: &'a Bounds,
    pub(crate) sum: f64,
    counts: &'a [AtomicU64],
}

impl HistogramView<'_> {
    /// The cumulative counts, that of `+Inf` last. To be read once: a second reading may see more.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().scan(0_u64, |total, count| {
            *total = total.wrapping_add(count.load(Ordering::Relaxed));
            Some(*total)
        })
    }
}

/// A histogram of whole units: nanoseconds, thousandths. Its sum is exact.
#[derive(Debug)]
pub(crate) struct UnitHistogram {
    bounds: Arc<UnitBounds>,
    counts: Box<[AtomicU64]>,
    sum: Count,
}

/// Bounds, and the same in whole units.
#[derive(Debug)]
pub(crate) struct UnitBounds {
    bounds: Bounds,
    units: Box<[u64]>,
    /// How many units make one of what the bounds are given in.
    scale: f64,
}

impl UnitBounds {
    /// Finite, not negative and ascending, or the first value that is not.
    pub(crate) fn new(values: &[f64], scale: f64) -> Result<Self, f64> {
        if let Some(&negative) = values.iter().find(|value| **value < 0.0) {
            return Err(negative);
        }
        let bounds = Bounds::new(values)?;
        // To the nearest unit: 0.3 s is 300,000,000 ns, although the `f64` is a little less.
        let units = bounds
            .values
            .iter()
            .map(|bound| (bound * scale).round() as u64);
        Ok(Self {
            units: units.collect(),
            bounds,
            scale,
        })
    }
}

impl UnitHistogram {
    pub(crate) fn new(bounds: &Arc<UnitBounds>) -> Self {
        Self {
            counts: bounds.bounds.counts(),
            bounds: Arc::clone(bounds),
            sum: Count::default(),
        }
    }

    /// Adds one value.
    #[inline]
    pub(crate) fn observe(&self, units: u64) {
        let index = self.bounds.units.partition_point(|bound| *bound < units);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum.add(units);
    }

    /// Adds one duration to a histogram of nanoseconds.
    #[inline]
    pub(crate) fn observe_duration(&self, duration: Duration) {
        self.observe(nanos(duration));
    }

    /// Adds all durations of a distribution to a histogram of nanoseconds, with one addition for
    /// each bucket of ours. A bucket of theirs that straddles one of our bounds goes to its upper
    /// side, so a duration up to 4 % below a bound may be counted above it. Sum and count are exact.
    pub(crate) fn fold(&self, durations: &Distribution) {
        let mut index = 0;
        let mut count = 0;
        for bucket in durations.buckets() {
            let upper = nanos(bucket.upper);
            while self
                .bounds
                .units
                .get(index)
                .is_some_and(|bound| *bound < upper)
            {
                self.add(index, count);
                count = 0;
                index += 1;
            }
            count += bucket.count;
        }
        self.add(index, count);
        self.sum.add(nanos(durations.sum));
    }

    fn add(&self, index: usize, count: u64) {
        if count > 0 {
            self.counts[index].fetch_add(count, Ordering::Relaxed);
        }
    }

    pub(crate) fn view(&self) -> HistogramView<'_> {
        HistogramView {
            bounds: &self.bounds.bounds,
            sum: self.sum.get() as f64 / self.bounds.scale,
            counts: &self.counts,
        }
    }
}

/// A histogram of any numbers.
#[derive(Debug)]
pub(crate) struct FloatHistogram {
    bounds: Arc<Bounds>,
    counts: Box<[AtomicU64]>,
    sum: Float,
}

impl FloatHistogram {
    pub(crate) fn new(bounds: &Arc<Bounds>) -> Self {
        Self {
            counts: bounds.counts(),
            bounds: Arc::clone(bounds),
            sum: Float::new(0.0),
        }
    }

    /// Adds one finite value.
    pub(crate) fn observe(&self, value: f64) {
        let index = self.bounds.values.partition_point(|bound| *bound < value);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum.add(value);
    }

    pub(crate) fn view(&self) -> HistogramView<'_> {
        HistogramView {
            bounds: &self.bounds,
            sum: self.sum.get(),
            counts: &self.counts,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::number::NANOS;

    fn seconds(bounds: &[f64]) -> UnitHistogram {
        UnitHistogram::new(&Arc::new(UnitBounds::new(bounds, NANOS).unwrap()))
    }

    fn cumulative(view: HistogramView<'_>) -> Vec<u64> {
        view.cumulative().collect()
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_its_bucket() {
        let histogram = seconds(&[0.1, 0.3, 1.0]);
        for millis in [100, 300, 301, 1_000, 1_001] {
            histogram.observe_duration(Duration::from_millis(millis));
        }
        assert_eq!(cumulative(histogram.view()), [1, 2, 4, 5]);
        assert_eq!(histogram.view().sum, 2.702);
    }

    #[test]
    fn without_bounds_everything_is_in_the_last_bucket() {
        let histogram = seconds(&[]);
        histogram.observe_duration(Duration::from_secs(1));
        let mut gaps = Distribution::new();
        gaps.record(Duration::from_millis(5));
        gaps.record(Duration::from_secs(10_000));
        histogram.fold(&gaps);
        assert_eq!(cumulative(histogram.view()), [3]);
    }

    #[test]
    fn bounds_must_be_finite_and_ascend() {
        assert_eq!(Bounds::new(&[0.1, 0.1]), Err(0.1));
        assert_eq!(Bounds::new(&[0.2, 0.1]), Err(0.1));
        assert_eq!(Bounds::new(&[0.1, f64::INFINITY]), Err(f64::INFINITY));
        assert!(Bounds::new(&[f64::NAN]).unwrap_err().is_nan());
        let bounds = Bounds::new(&[-1.0, 0.0, 0.25, 10.0]).unwrap();
        assert_eq!(*bounds.le, ["-1", "0", "0.25", "10"]);
    }

    #[test]
    fn numbers_keep_their_exact_bound() {
        let histogram = FloatHistogram::new(&Arc::new(Bounds::new(&[-1.0, 0.5]).unwrap()));
        for value in [-2.0, -1.0, 0.5, 0.6] {
            histogram.observe(value);
        }
        assert_eq!(cumulative(histogram.view()), [2, 3, 4]);
        assert_eq!(histogram.view().sum, -1.9);
    }

    proptest! {
        /// As the documentation of `Distribution::buckets` says, one bucket at a time.
        #[test]
        fn a_fold_follows_the_rule(
            nanos in proptest::collection::vec(0_u64..200_000_000_000, 0..300),
            bounds in proptest::collection::btree_set(1_u32..100_000, 0..25),
        ) {
            let mut gaps = Distribution::new();
            for &nanos in &nanos {
                gaps.record(Duration::from_nanos(nanos));
            }
            let bounds: Vec<Duration> =
                bounds.into_iter().map(|millis| Duration::from_millis(millis.into())).collect();
            let mut expected = vec![0; bounds.len() + 1];
            for bucket in gaps.buckets() {
                expected[bounds.partition_point(|bound| *bound < bucket.upper)] += bucket.count;
            }
            for index in 1..expected.len() {
                expected[index] += expected[index - 1];
            }

            let histogram =
                seconds(&bounds.iter().map(Duration::as_secs_f64).collect::<Vec<_>>());
            histogram.fold(&gaps);
            prop_assert_eq!(cumulative(histogram.view()), expected);
            prop_assert_eq!(histogram.view().sum, nanos.iter().sum::<u64>() as f64 / 1e9);
        }
    }
}
