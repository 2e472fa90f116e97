//! Quantiles: a summary of many numbers in constant memory.

use std::fmt;
use std::time::Duration;

use l0_core::Distribution;
use serde::{Serialize, Serializer};

use crate::cells::{Cell, Cells};
use crate::text::millis;

/// A summary of many numbers, in memory that does not depend on their number.
///
/// Count, mean and maximum are exact. Quantiles of numbers that were recorded individually are within
/// 0.1 % of the number at that rank, for numbers from 1e-9 to 1e12. Quantiles of a [`Distribution`], which is
/// coarser, are within 2 %, like its own. The quantile of the highest rank is the exact maximum. Summaries merge
/// without loss, in any order. In JSON: `count`, `mean`, `p50`, `p95`, `p99` and `max`, with six decimals. All
/// except `count` are absent if empty.
#[derive(Clone, Default)]
pub struct Quantiles {
    /// Numbers that were recorded individually.
    numbers: Counts,
    /// Durations that were recorded as distributions, in milliseconds.
    durations: Distribution,
}

impl Quantiles {
    pub(crate) const fn new() -> Self {
        Self {
            numbers: Counts::new(),
            durations: Distribution::new(),
        }
    }

    /// Adds a number. Ignores negative and non-finite numbers.
    pub(crate) fn record(&mut self, number: f64) {
        if number.is_finite() && number >= 0.0 {
            self.numbers.record(number);
        }
    }

    /// Adds all durations of a distribution, in milliseconds.
    pub(crate) fn record_all(&mut self, durations: &Distribution) {
        self.durations.merge(durations);
    }

    /// Adds all numbers of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.numbers.merge(&other.numbers);
        self.durations.merge(&other.durations);
    }

    /// Returns the number of recorded numbers.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.numbers.count.saturating_add(self.durations.count())
    }

    /// Returns `true` if no numbers were recorded.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Returns the mean. `None` if empty, or if the sum exceeds 10^32.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let millionths = self.durations.sum().as_nanos();
        let sum = self.numbers.sum.checked_add(millionths)?;
        let is_known = !self.is_empty() && sum < u128::MAX;
        is_known.then(|| sum as f64 / 1e6 / self.count() as f64)
    }

    /// Returns the maximum. `None` if empty.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.numbers.max.max(millis(self.durations.max())))
    }

    /// Returns the number that a share `q` of all numbers does not exceed, by nearest rank. `q` is clamped to
    /// 0 to 1. `None` if empty or if `q` is NaN.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let max = self.max().filter(|_| !q.is_nan())?;
        // One rounding step down, because most decimal shares have no exact `f64`: 0.07 of 100 numbers
        // are 7, and not slightly more.
        let q = q.clamp(0.0, 1.0) * (1.0 - f64::EPSILON);
        let rank = (q * self.count() as f64).ceil() as u64;
        if rank >= self.count() {
            return Some(max);
        }
        let mut seen = 0_u64;
        let mut counts = self.counts();
        let at_rank = counts.find(|(_, count)| {
            seen = seen.saturating_add(*count);
            seen >= rank
        });
        Some(at_rank.map_or(max, |(number, _)| number))
    }

    /// Returns the median, as [`quantile`](Self::quantile) estimates it. `None` if empty.
    #[must_use]
    pub fn p50(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// Returns the 95th percentile, as [`quantile`](Self::quantile) estimates it. `None` if empty.
    #[must_use]
    pub fn p95(&self) -> Option<f64> {
        self.quantile(0.95)
    }

    /// Returns the 99th percentile, as [`quantile`](Self::quantile) estimates it. `None` if empty.
    #[must_use]
    pub fn p99(&self) -> Option<f64> {
        self.quantile(0.99)
    }

    /// Iterates over the numbers in ascending order, with the precision of quantiles, each with its count: the
    /// data of a histogram.
    pub fn counts(&self) -> impl Iterator<Item = (f64, u64)> {
        let max = millis(self.durations.max());
        let durations = self.durations.buckets().map(move |bucket| {
            let middle = match bucket.upper {
                // The last bucket has no upper bound, so its middle is unknown.
                Duration::MAX => max,
                upper => middle(millis(bucket.lower), millis(upper)).min(max),
            };
            (middle, bucket.count)
        });
        // A quantity is recorded in only one of the two forms.
        self.numbers.counts().chain(durations)
    }
}

/// Returns the value that represents a distribution's bucket, in milliseconds.
fn middle(low: f64, high: f64) -> f64 {
    /// The end of the buckets of equal width.
    const LINEAR: f64 = 0.000_256;

    if high <= LINEAR {
        f64::midpoint(low, high)
    } else {
        // The harmonic mean has the same relative error at both ends. The arithmetic mean has a larger one at
        // the lower end.
        2.0 * low * high / (low + high)
    }
}

/// Counts of numbers that are rounded to cells, with exact totals.
#[derive(Clone, Default)]
struct Counts {
    /// The number of zeros.
    zeros: u64,
    cells: Cells<u64>,
    count: u64,
    /// In millionths (nanoseconds for milliseconds), so the sum does not depend on the order.
    sum: u128,
    /// Minimum and maximum. Meaningless while empty.
    min: f64,
    max: f64,
}

impl Counts {
    const fn new() -> Self {
        Self {
            zeros: 0,
            cells: Cells::new(),
            count: 0,
            sum: 0,
            min: 0.0,
            max: 0.0,
        }
    }

    fn record(&mut self, number: f64) {
        self.widen(number, number);
        self.count = self.count.saturating_add(1);
        self.sum = self.sum.saturating_add((number * 1e6).round() as u128);
        let count = match Cell::of(number) {
            Some(cell) => self.cells.at(cell),
            None => &mut self.zeros,
        };
        *count = count.saturating_add(1);
    }

    fn merge(&mut self, other: &Self) {
        if other.count == 0 {
            return;
        }
        self.widen(other.min, other.max);
        self.count = self.count.saturating_add(other.count);
        self.sum = self.sum.saturating_add(other.sum);
        self.zeros = self.zeros.saturating_add(other.zeros);
        for (cell, count) in other.cells.iter().filter(|(_, count)| **count > 0) {
            let total = self.cells.at(cell);
            *total = total.saturating_add(*count);
        }
    }

    fn widen(&mut self, min: f64, max: f64) {
        if self.count == 0 {
            (self.min, self.max) = (min, max);
        } else {
            (self.min, self.max) = (self.min.min(min), self.max.max(max));
        }
    }

    fn counts(&self) -> impl Iterator<Item = (f64, u64)> {
        let cells = self
            .cells
            .iter()
            .map(|(cell, count)| (cell.middle(), *count));
        let all = std::iter::once((0.0, self.zeros)).chain(cells);
        all.filter(|(_, count)| *count > 0)
            .map(|(number, count)| (number.clamp(self.min, self.max), count))
    }
}

impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Numbers::from(self).serialize(serializer)
    }
}

/// The statistics of many numbers.
#[derive(Debug, Serialize)]
pub(crate) struct Numbers {
    pub(crate) count: u64,
    #[serde(
        serialize_with = "six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) mean: Option<f64>,
    #[serde(
        serialize_with = "six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) p50: Option<f64>,
    #[serde(
        serialize_with = "six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) p95: Option<f64>,
    #[serde(
        serialize_with = "six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) p99: Option<f64>,
    #[serde(
        serialize_with = "six_decimals",
        skip_serializing_if = "Option::is_none"
    )]
    pub(crate) max: Option<f64>,
}

impl From<&Quantiles> for Numbers {
    fn from(all: &Quantiles) -> Self {
        Self {
            count: all.count(),
            mean: all.mean(),
            p50: all.p50(),
            p95: all.p95(),
            p99: all.p99(),
            max: all.max(),
        }
    }
}

impl Numbers {
    /// Returns all statistics except the count, each with its name.
    pub(crate) fn in_order(&self) -> [(&'static str, Option<f64>); 5] {
        [
            ("Mean", self.mean),
            ("P50", self.p50),
            ("P95", self.p95),
            ("P99", self.p99),
            ("Max", self.max),
        ]
    }
}

#[allow(
    clippy::ref_option,
    reason = "the signature that serde's `serialize_with` asks for"
)]
fn six_decimals<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number
        .map(|number| (number * 1e6).round() / 1e6)
        .serialize(serializer)
}

impl fmt::Debug for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Quantiles")
            .field(&Numbers::from(self))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_keeps_its_own_quantiles() {
        let mut durations = Distribution::new();
        let mut nanos = 1_u64;
        while nanos < 1 << 45 {
            durations.record(Duration::from_nanos(nanos));
            nanos += nanos / 50 + 1;
        }
        let mut all = Quantiles::new();
        all.record_all(&durations);
        assert_eq!(all.count(), durations.count());
        assert_eq!(all.max(), Some(millis(durations.max())));
        let mean = durations.mean().map(millis).expect("not empty");
        assert!((all.mean().expect("not empty") - mean).abs() <= mean * 1e-9);
        for percent in 0..100 {
            let q = f64::from(percent) / 100.0;
            let (ours, theirs) = (all.quantile(q), durations.quantile(q));
            let (ours, theirs) = (ours.expect("there"), millis(theirs.expect("there")));
            // The conversion cuts off a nanosecond.
            assert!((ours - theirs).abs() <= 1e-6, "{q}: {ours} for {theirs}");
        }
    }

    #[test]
    fn merging_does_not_depend_on_the_order() {
        let numbers: Vec<_> = (1..1_000).map(|n| f64::from(n) * 0.1).collect();
        let of = |numbers: &[f64]| {
            let mut all = Quantiles::new();
            numbers.iter().for_each(|number| all.record(*number));
            all
        };
        let whole = of(&numbers);
        for split in [0, 1, 500, 998] {
            let (left, right) = numbers.split_at(split);
            let mut merged = of(right);
            merged.merge(&of(left));
            assert_eq!(merged.mean(), whole.mean());
            assert!(merged.counts().eq(whole.counts()));
        }
    }
}
