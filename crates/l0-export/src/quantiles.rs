//! Quantiles: many numbers in constant memory.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use l0_core::Distribution;
use serde::{Serialize, Serializer};

use crate::values::millis;

/// How many bits of a number's fraction are kept: each octave has 512 cells, so that the middle of a
/// cell is within 1/1024 of all that is in it. People read three digits.
const KEPT_BITS: u32 = 9;
const DROPPED_BITS: u32 = f64::MANTISSA_DIGITS - 1 - KEPT_BITS;
/// What is smaller is counted as zero: 2^-14, about 0.00006.
const LOWEST: f64 = 1.0 / 16_384.0;
/// What is larger is counted as this: 2^34, about 17 thousand millions.
const HIGHEST: f64 = 17_179_869_184.0;

/// Many numbers, of which only so many are kept apart that memory does not grow with how many there
/// are.
///
/// Count, mean and largest are exact. Quantiles of numbers that were recorded one by one are within
/// 0.1 % of the number at that rank, for numbers from 0.0001 to 1e10 (of milliseconds, 100 ns to 115
/// days); those of a [`Distribution`], which keeps fewer apart, are within 2 %, as its own are. The
/// largest is exact at the highest rank. What is recorded apart merges without loss. In JSON:
/// `count`, `mean`, `p50`, `p95`, `p99` and `max`, to six decimals; absent if empty.
#[derive(Clone, Default)]
pub struct Quantiles {
    /// How many there are of each rounded number. The key is the number's bits, which for numbers
    /// that are not negative are in the order of the numbers.
    counts: BTreeMap<u64, u64>,
    count: u64,
    sum: f64,
    /// Smallest and largest; of no meaning while empty.
    min: f64,
    max: f64,
}

impl Quantiles {
    pub(crate) const fn new() -> Self {
        Self {
            counts: BTreeMap::new(),
            count: 0,
            sum: 0.0,
            min: 0.0,
            max: 0.0,
        }
    }

    /// Adds a number that is not negative; what is none is left out.
    pub(crate) fn record(&mut self, number: f64) {
        if number.is_finite() && number >= 0.0 {
            self.widen(number, number);
            self.sum += number;
            self.add(rounded(number), 1);
        }
    }

    /// Adds all durations of a distribution, in milliseconds.
    pub(crate) fn record_all(&mut self, durations: &Distribution) {
        let max = millis(durations.max());
        for bucket in durations.buckets() {
            // That of the open bucket cannot be told from its bounds.
            let estimate = middle(bucket.lower, bucket.upper);
            let estimate = estimate.unwrap_or_else(|| rounded(max));
            self.widen(millis(bucket.lower).min(max), max);
            self.add(estimate, bucket.count);
        }
        self.sum += millis(durations.sum());
    }

    /// Adds all numbers of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        if other.is_empty() {
            return;
        }
        self.widen(other.min, other.max);
        self.sum += other.sum;
        for (bits, count) in &other.counts {
            self.add(f64::from_bits(*bits), *count);
        }
    }

    fn add(&mut self, rounded: f64, count: u64) {
        let total = self.counts.entry(rounded.to_bits()).or_default();
        *total = total.saturating_add(count);
        self.count = self.count.saturating_add(count);
    }

    fn widen(&mut self, min: f64, max: f64) {
        if self.is_empty() {
            (self.min, self.max) = (min, max);
        } else {
            (self.min, self.max) = (self.min.min(min), self.max.max(max));
        }
    }

    /// Returns how many numbers there are.
    #[must_use]
    pub const fn count(&self) -> u64 {
        self.count
    }

    /// Returns whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns their mean; absent if empty, or if the sum is beyond all numbers.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let mean = (!self.is_empty()).then(|| self.sum / self.count as f64);
        mean.filter(|mean| mean.is_finite())
    }

    /// Returns the largest; absent if empty.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// Returns the number that a share `q` of all numbers does not exceed, by nearest rank. `q` below
    /// 0 counts as 0, above 1 as 1. Absent if empty or if `q` is NaN.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        if self.is_empty() || q.is_nan() {
            return None;
        }
        // One rounding step down, since most decimal shares have no exact `f64`: 0.07 of 100 numbers
        // are 7, and not slightly more.
        let q = q.clamp(0.0, 1.0) * (1.0 - f64::EPSILON);
        let rank = (q * self.count as f64).ceil() as u64;
        if rank >= self.count {
            return Some(self.max);
        }
        let mut seen = 0_u64;
        let mut counts = self.counts();
        let at_rank = counts.find(|(_, count)| {
            seen = seen.saturating_add(*count);
            seen >= rank
        });
        Some(at_rank.map_or(self.max, |(number, _)| number))
    }

    /// Returns the median, as [`quantile`](Self::quantile) estimates it; absent if empty.
    #[must_use]
    pub fn p50(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// Returns the 95th percentile, as [`quantile`](Self::quantile) estimates it; absent if empty.
    #[must_use]
    pub fn p95(&self) -> Option<f64> {
        self.quantile(0.95)
    }

    /// Returns the 99th percentile, as [`quantile`](Self::quantile) estimates it; absent if empty.
    #[must_use]
    pub fn p99(&self) -> Option<f64> {
        self.quantile(0.99)
    }

    /// Iterates over the numbers in ascending order, each as exact as a quantile, with how many of it
    /// there are: what a histogram is drawn from.
    pub fn counts(&self) -> impl Iterator<Item = (f64, u64)> {
        self.counts.iter().map(|(bits, count)| {
            let number = f64::from_bits(*bits).clamp(self.min, self.max);
            (number, *count)
        })
    }
}

/// The middle of the cell that a number is in.
fn rounded(number: f64) -> f64 {
    if number < LOWEST {
        return 0.0;
    }
    let low = number.min(HIGHEST).to_bits() >> DROPPED_BITS << DROPPED_BITS;
    f64::from_bits(low | 1 << (DROPPED_BITS - 1))
}

/// What stands for all durations of a distribution's bucket, in milliseconds; absent for the bucket
/// that is open.
fn middle(lower: Duration, upper: Duration) -> Option<f64> {
    /// Where the buckets that are equally wide end.
    const LINEAR: Duration = Duration::from_nanos(256);

    if upper == Duration::MAX {
        return None;
    }
    let (low, high) = (millis(lower), millis(upper));
    Some(if upper <= LINEAR {
        f64::midpoint(low, high)
    } else {
        // The harmonic middle errs by the same share at both ends, the arithmetic one by more at
        // the lower.
        2.0 * low * high / (low + high)
    })
}

impl Serialize for Quantiles {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        Numbers::from(self).serialize(serializer)
    }
}

/// What is told of many numbers.
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
    /// All but the count, each with its name.
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
    fn a_cell_is_as_exact_as_it_is_said_to_be() {
        let mut number = 0.000_1;
        while number < 1e10 {
            let error = (rounded(number) - number).abs() / number;
            assert!(error <= 0.001, "{number}: {error}");
            number *= 1.000_37;
        }
        for (number, expected) in [(0.0, 0.0), (-0.0, 0.0), (1e-9, 0.0)] {
            assert_eq!(
                rounded(number).to_bits(),
                f64::to_bits(expected),
                "{number}"
            );
        }
        assert_eq!(rounded(1e300), rounded(HIGHEST));
    }

    #[test]
    fn no_numbers_fill_the_memory() {
        let mut all = Quantiles::new();
        let mut number = 1e-9;
        while number < 1e15 {
            all.record(number);
            number *= 1.000_5;
        }
        for number in [f64::MIN_POSITIVE, f64::MAX] {
            all.record(number);
        }
        assert!(all.count() > 100_000);
        // 48 octaves of 512 cells, zero, and the cell of the highest.
        assert_eq!(all.counts.len(), 48 * 512 + 2);
    }

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
            // A nanosecond that it cuts off, and half a cell for the one that is open.
            let near = (ours - theirs).abs() <= 1e-6 || (ours - theirs).abs() <= theirs * 0.001;
            assert!(near, "{q}: {ours} for {theirs}");
        }
    }
}
