//! Quantiles: many numbers in constant memory.

use std::fmt;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Two digits: each bucket is at most 1/128 as wide as what falls into it.
const DIGITS: u8 = 2;
/// The buckets hold whole numbers: nanoseconds of milliseconds, millionths of rates.
const SCALE: f64 = 1e6;
/// What is larger is counted as this: 104 days in ns, and far from where resizing could fail.
const MAX: u64 = 1 << 53;

/// Many numbers, kept as counts in buckets: memory does not grow with how many there are.
///
/// Count, mean and largest are exact. Quantiles are within 1 % of the number at that rank, for
/// numbers from 0.0001 to 9e9 (of milliseconds, 100 ns to 104 days), and the largest at the highest
/// rank. What is recorded apart merges without loss. In JSON: `count`, `mean`, `p50`, `p95`, `p99`
/// and `max`, to six decimals; absent if empty.
#[derive(Clone, Default)]
pub struct Quantiles {
    /// `None` until there is something to count.
    buckets: Option<Histogram<u64>>,
    sum: f64,
    /// Smallest and largest; of no meaning while empty.
    min: f64,
    max: f64,
}

impl Quantiles {
    /// Adds a number that is not negative; what is none is left out.
    pub(crate) fn record(&mut self, number: f64) {
        if !number.is_finite() || number < 0.0 {
            return;
        }
        self.widen(number, number);
        self.sum += number;
        // Two digits are valid, so this is `Some`.
        self.buckets = self.buckets.take().or_else(|| Histogram::new(DIGITS).ok());
        if let Some(buckets) = &mut self.buckets {
            // Cannot fail: the buckets grow, and the number is not too large for them.
            let _ = buckets.record(((number * SCALE).round() as u64).min(MAX));
        }
    }

    /// Adds all numbers of `other`.
    pub(crate) fn merge(&mut self, other: &Self) {
        let Some(theirs) = &other.buckets else {
            return;
        };
        self.widen(other.min, other.max);
        self.sum += other.sum;
        match &mut self.buckets {
            // Cannot fail: the buckets grow.
            Some(ours) => drop(ours.add(theirs)),
            None => self.buckets = Some(theirs.clone()),
        }
    }

    fn widen(&mut self, min: f64, max: f64) {
        if self.is_empty() {
            (self.min, self.max) = (min, max);
        } else {
            (self.min, self.max) = (self.min.min(min), self.max.max(max));
        }
    }

    /// How many numbers.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.as_ref().map_or(0, Histogram::len)
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count() == 0
    }

    /// Their mean; absent if empty, or if the sum is beyond all numbers.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        let mean = (!self.is_empty()).then(|| self.sum / self.count() as f64);
        mean.filter(|mean| mean.is_finite())
    }

    /// The largest; absent if empty.
    #[must_use]
    pub fn max(&self) -> Option<f64> {
        (!self.is_empty()).then_some(self.max)
    }

    /// The number that a share `q` of all numbers does not exceed, by nearest rank. `q` below 0
    /// counts as 0, above 1 as 1. Absent if empty or if `q` is NaN.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<f64> {
        let buckets = self.buckets.as_ref()?;
        if q.is_nan() {
            return None;
        }
        // One rounding step down, since most decimal shares have no exact `f64`: 0.07 of 100 numbers
        // are 7, and not slightly more.
        let q = q.clamp(0.0, 1.0) * (1.0 - f64::EPSILON);
        if (q * buckets.len() as f64).ceil() as u64 == buckets.len() {
            return Some(self.max);
        }
        Some(self.estimate(buckets, buckets.value_at_quantile(q)))
    }

    /// The median, as [`quantile`](Self::quantile) estimates it; absent if empty.
    #[must_use]
    pub fn p50(&self) -> Option<f64> {
        self.quantile(0.5)
    }

    /// The 95th percentile, as [`quantile`](Self::quantile) estimates it; absent if empty.
    #[must_use]
    pub fn p95(&self) -> Option<f64> {
        self.quantile(0.95)
    }

    /// The 99th percentile, as [`quantile`](Self::quantile) estimates it; absent if empty.
    #[must_use]
    pub fn p99(&self) -> Option<f64> {
        self.quantile(0.99)
    }

    /// The numbers in ascending order, each within 1 %, with how many of it there are: what a
    /// histogram is drawn from.
    pub fn counts(&self) -> impl Iterator<Item = (f64, u64)> {
        self.buckets.iter().flat_map(|buckets| {
            buckets.iter_recorded().map(|step| {
                let number = self.estimate(buckets, step.value_iterated_to());
                (number, step.count_since_last_iteration())
            })
        })
    }

    /// What stands for all numbers in the bucket of this one: its middle.
    fn estimate(&self, buckets: &Histogram<u64>, number: u64) -> f64 {
        let low = buckets.lowest_equivalent(number);
        let width = buckets.equivalent_range(number) - 1;
        ((low as f64 + width as f64 / 2.0) / SCALE).clamp(self.min, self.max)
    }
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
    #[serde(serialize_with = "rounded", skip_serializing_if = "Option::is_none")]
    pub(crate) mean: Option<f64>,
    #[serde(serialize_with = "rounded", skip_serializing_if = "Option::is_none")]
    pub(crate) p50: Option<f64>,
    #[serde(serialize_with = "rounded", skip_serializing_if = "Option::is_none")]
    pub(crate) p95: Option<f64>,
    #[serde(serialize_with = "rounded", skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    #[serde(serialize_with = "rounded", skip_serializing_if = "Option::is_none")]
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
fn rounded<S: Serializer>(number: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
    number
        .map(|number| (number * SCALE).round() / SCALE)
        .serialize(serializer)
}

impl fmt::Debug for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Quantiles")
            .field(&Numbers::from(self))
            .finish()
    }
}
