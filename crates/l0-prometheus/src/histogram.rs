//! Histograms: bucket counts and a sum, written by many threads and read consistently.
//!
//! Counts are kept per bucket. A reader adds them up and uses the total as the count of the histogram.
//! Concurrent writes therefore never make a bucket fall below the one before it, and `+Inf` equals the count.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use l0_core::{Distribution, Telemetry};

use crate::exemplar::{Exemplar, Trace};
use crate::number::{Count, Float, Number, add, nanos};

/// The upper bounds of a histogram's buckets. One more bucket, `+Inf`, takes the rest.
#[derive(Debug, PartialEq)]
pub(crate) struct Bounds {
    pub(crate) values: Box<[f64]>,
    /// The label values including `+Inf`, each with the text that ends the label set.
    pub(crate) le: Box<[String]>,
    /// The same in the spelling of OpenMetrics.
    pub(crate) canonical: Box<[String]>,
}

impl Bounds {
    /// Creates bounds, or returns the first value that is not finite or not ascending.
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

    /// Creates bounds from values that are finite and ascending.
    pub(crate) fn ascending(values: &[f64]) -> Self {
        Self {
            le: with_ends(values.iter().map(f64::to_string)),
            canonical: with_ends(values.iter().copied().map(canonical)),
            values: values.into(),
        }
    }

    fn counts(&self) -> Box<[AtomicU64]> {
        (0..=self.values.len()).map(|_| AtomicU64::new(0)).collect()
    }
}

/// Returns the values of `le` with the text that follows them in a line.
fn with_ends(values: impl Iterator<Item = String>) -> Box<[String]> {
    let all = values.chain(["+Inf".to_owned()]);
    all.map(|value| value + "\"} ").collect()
}

/// Formats a number with a point, or with an exponent of at least two digits outside of 0.0001 to one million.
/// With one spelling, the label is the same from every producer.
fn canonical(value: f64) -> String {
    if value == 0.0 || (1e-4..1e6).contains(&value.abs()) {
        return format!("{value:?}");
    }
    let text = format!("{value:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (sign, exponent) = match exponent.strip_prefix('-') {
        Some(exponent) => ('-', exponent),
        None => ('+', exponent),
    };
    format!("{digits}e{sign}{exponent:0>2}")
}

/// A histogram as a reader sees it.
#[derive(Clone, Copy)]
pub(crate) struct HistogramView<'a> {
    pub(crate) bounds: &'a Bounds,
    pub(crate) sum: Number,
    counts: &'a [AtomicU64],
    exemplars: &'a [Mutex<Exemplar>],
}

impl HistogramView<'_> {
    /// Returns the cumulative counts, `+Inf` last. Call it once: a second call can see more.
    pub(crate) fn cumulative(&self) -> impl Iterator<Item = u64> {
        self.counts.iter().scan(0_u64, |total, count| {
            *total = total.saturating_add(count.load(Ordering::Relaxed));
            Some(*total)
        })
    }

    /// Writes the exemplar of a bucket, if it has one.
    pub(crate) fn write_exemplar(&self, bucket: usize, text: &mut String) {
        if let Some(exemplar) = self.exemplars.get(bucket) {
            let exemplar = exemplar.lock().unwrap_or_else(PoisonError::into_inner);
            exemplar.write(text);
        }
    }
}

/// A histogram of whole units, such as nanoseconds or thousandths. Its sum is exact.
#[derive(Debug)]
pub(crate) struct UnitHistogram {
    bounds: Arc<UnitBounds>,
    counts: Box<[AtomicU64]>,
    sum: Count,
    /// One exemplar for each bucket; empty if exemplars are off.
    exemplars: Box<[Mutex<Exemplar>]>,
}

/// Bounds, also in whole units.
#[derive(Debug)]
pub(crate) struct UnitBounds {
    bounds: Bounds,
    units: Box<[u64]>,
    /// The number of whole units in one unit of the bounds.
    scale: f64,
}

impl UnitBounds {
    /// Creates bounds, or returns the first value that is not finite, negative or not ascending.
    pub(crate) fn new(values: &[f64], scale: f64) -> Result<Self, f64> {
        if let Some(&negative) = values.iter().find(|value| **value < 0.0) {
            return Err(negative);
        }
        let bounds = Bounds::new(values)?;
        // Rounds to the nearest unit: the `f64` for 0.3 s is slightly below 300,000,000 ns.
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
            exemplars: Box::default(),
        }
    }

    /// Adds an exemplar to each bucket.
    pub(crate) fn with_exemplars(mut self) -> Self {
        self.exemplars = self.counts.iter().map(|_| Mutex::default()).collect();
        self
    }

    /// Adds one value of this run, which started in this trace.
    #[inline]
    pub(crate) fn observe(&self, units: u64, run: &Telemetry, trace: Option<Trace>) {
        let index = self.bounds.units.partition_point(|bound| *bound < units);
        add(&self.counts[index], 1);
        self.sum.add(units);
        if let Some(exemplar) = self.exemplars.get(index) {
            // If another thread holds the exemplar, the previous one is just as good.
            if let Ok(mut exemplar) = exemplar.try_lock() {
                exemplar.set(run, trace, units as f64 / self.bounds.scale);
            }
        }
    }

    /// Adds all durations of a distribution to a histogram of nanoseconds, with one addition per bucket. A
    /// bucket of the distribution that spans a bound counts above it, so a duration up to 4 % below a bound can
    /// be counted above it. Sum and count are exact.
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
            count = bucket.count.saturating_add(count);
        }
        self.add(index, count);
        self.sum.add(nanos(durations.sum()));
    }

    fn add(&self, index: usize, count: u64) {
        if count > 0 {
            add(&self.counts[index], count);
        }
    }

    pub(crate) fn view(&self) -> HistogramView<'_> {
        HistogramView {
            bounds: &self.bounds.bounds,
            sum: Number::of_units(self.sum.get(), self.bounds.scale),
            counts: &self.counts,
            exemplars: &self.exemplars,
        }
    }
}

/// A histogram of any finite numbers.
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
        add(&self.counts[index], 1);
        self.sum.add(value);
    }

    pub(crate) fn view(&self) -> HistogramView<'_> {
        HistogramView {
            bounds: &self.bounds,
            sum: self.sum.get().into(),
            counts: &self.counts,
            exemplars: &[],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::number::NANOS;

    fn seconds(bounds: &[f64]) -> UnitHistogram {
        UnitHistogram::new(&Arc::new(UnitBounds::new(bounds, NANOS).unwrap()))
    }

    fn observe(histogram: &UnitHistogram, millis: u64, run: &Telemetry) {
        histogram.observe(nanos(Duration::from_millis(millis)), run, None);
    }

    fn cumulative(view: HistogramView<'_>) -> Vec<u64> {
        view.cumulative().collect()
    }

    #[test]
    fn a_value_on_a_bound_belongs_to_its_bucket() {
        let histogram = seconds(&[0.1, 0.3, 1.0]);
        for millis in [100, 300, 301, 1_000, 1_001] {
            observe(&histogram, millis, &Telemetry::default());
        }
        assert_eq!(cumulative(histogram.view()), [1, 2, 4, 5]);
        assert_eq!(histogram.view().sum.as_f64(), 2.702);
    }

    #[test]
    fn without_bounds_everything_is_in_the_last_bucket() {
        let histogram = seconds(&[]);
        observe(&histogram, 1_000, &Telemetry::default());
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
        let ended = |values: [&str; 5]| values.map(|value| format!("{value}\"}} "));
        assert_eq!(*bounds.le, ended(["-1", "0", "0.25", "10", "+Inf"]));
        assert_eq!(
            *bounds.canonical,
            ended(["-1.0", "0.0", "0.25", "10.0", "+Inf"])
        );
    }

    #[test]
    fn bounds_have_one_spelling_in_open_metrics() {
        for (value, text) in [
            (1.0, "1.0"),
            (1200.0, "1200.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (100_000.0, "100000.0"),
            (1e6, "1e+06"),
            (2.5e6, "2.5e+06"),
            (-1e21, "-1e+21"),
            (1e100, "1e+100"),
        ] {
            assert_eq!(canonical(value), text);
        }
    }

    #[test]
    fn a_bucket_has_the_run_that_it_counted_last_for_an_exemplar() {
        let histogram = seconds(&[1.0]).with_exemplars();
        let run = |id: &str| {
            let mut run = Telemetry::example();
            id.clone_into(&mut run.session_id);
            run
        };
        for (id, millis) in [("a", 500), ("b", 700), ("c", 2_000)] {
            observe(&histogram, millis, &run(id));
        }
        observe(&histogram, 3_000, &run(&"x".repeat(119)));
        let seen = |bucket| {
            let mut text = String::new();
            histogram.view().write_exemplar(bucket, &mut text);
            text
        };
        assert_eq!(seen(0), " # {session_id=\"b\"} 0.7 1700000001.500");
        assert_eq!(seen(1), " # {session_id=\"c\"} 2 1700000001.500");
        assert_eq!(seen(2), "");

        // Names and values can take 128 characters, and those of a trace always fit.
        let longest = "ä".repeat(118);
        observe(&histogram, 3_000, &run(&longest));
        assert!(seen(1).contains(&longest));
        let trace = Trace::new([0xf0; 16], [0x0f; 8]);
        histogram.observe(3_000_000_000, &run(&"x".repeat(119)), Some(trace));
        let id = format!(
            "trace_id=\"{}\",span_id=\"{}\"",
            "f0".repeat(16),
            "0f".repeat(8)
        );
        assert_eq!(seen(1), format!(" # {{{id}}} 3 1700000001.500"));
    }

    #[test]
    fn numbers_keep_their_exact_bound() {
        let histogram = FloatHistogram::new(&Arc::new(Bounds::new(&[-1.0, 0.5]).unwrap()));
        for value in [-2.0, -1.0, 0.5, 0.6] {
            histogram.observe(value);
        }
        assert_eq!(cumulative(histogram.view()), [2, 3, 4]);
        assert_eq!(histogram.view().sum.as_f64(), -1.9);
    }

    proptest! {
        /// Follows the documentation of `Distribution::buckets`, one bucket at a time.
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
            prop_assert_eq!(histogram.view().sum.as_f64(), nanos.iter().sum::<u64>() as f64 / 1e9);
        }
    }
}
