//! The bucket bounds of the histograms of runs.

use std::sync::Arc;

use l0_core::Unit;

use crate::error::BuildError;
use crate::histogram::UnitBounds;
use crate::layout::{HistogramRow, LAYOUT};
use crate::number::scale;

/// The upper bounds of the buckets of each histogram. `+Inf` is always added.
///
/// Bounds must be finite, not negative, and ascending. Every bound adds one line to every scrape for every
/// label set.
///
/// Five histograms have a setter. Every other histogram has the bounds of its kind. Histograms of times use
/// those of [`time_to_first_token`](Self::time_to_first_token). Histograms of rates use those of
/// [`output_tokens_per_second`](Self::output_tokens_per_second). Histograms of counts use powers of four, from
/// 1 to 1,048,576.
///
/// ```
/// use l0_prometheus::{Buckets, Collector};
///
/// # fn main() -> Result<(), l0_prometheus::BuildError> {
/// let collector = Collector::builder()
///     .buckets(Buckets::new().time_to_first_token([0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]))
///     .build()?;
/// # drop(collector);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
#[must_use]
pub struct Buckets {
    request_duration: Vec<f64>,
    time_to_first_token: Vec<f64>,
    inter_token: Vec<f64>,
    max_gap: Vec<f64>,
    output_tokens_per_second: Vec<f64>,
}

impl Buckets {
    /// Creates the default bounds. They cover fast models as well as reasoning models that think for minutes.
    /// Each setter lists them.
    pub fn new() -> Self {
        Self {
            request_duration: vec![
                0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0,
                300.0, 600.0, 1200.0,
            ],
            time_to_first_token: vec![
                0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 20.0,
                40.0, 80.0, 160.0, 320.0,
            ],
            inter_token: vec![
                0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075,
                0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
            ],
            max_gap: vec![
                0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0,
            ],
            output_tokens_per_second: vec![
                1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0,
                300.0, 500.0, 1000.0,
            ],
        }
    }

    /// Creates the bounds that the OpenTelemetry conventions for generative AI recommend for client durations,
    /// doubling from 0.01 s to 81.92 s, for all histograms of durations. They do not resolve values below 10
    /// ms, so models faster than 100 tokens per second look alike.
    pub fn otel() -> Self {
        let seconds: Vec<f64> = (0..14).map(|power| f64::from(1 << power) / 100.0).collect();
        Self {
            request_duration: seconds.clone(),
            time_to_first_token: seconds.clone(),
            inter_token: seconds.clone(),
            max_gap: seconds,
            ..Self::new()
        }
    }

    /// Sets the bounds of `request_duration_seconds`.
    ///
    /// Default: 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180, 300, 600, 1200.
    pub fn request_duration(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.request_duration = seconds.into_iter().collect();
        self
    }

    /// Sets the bounds of `time_to_first_token_seconds` and of every other histogram of times that has no
    /// setter.
    ///
    /// Default: 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 1.5, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 320.
    pub fn time_to_first_token(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.time_to_first_token = seconds.into_iter().collect();
        self
    }

    /// Sets the bounds of `inter_token_seconds`.
    ///
    /// Default: 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
    /// 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80.
    pub fn inter_token(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.inter_token = seconds.into_iter().collect();
        self
    }

    /// Sets the bounds of `stream_max_gap_seconds`.
    ///
    /// Default: 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120.
    pub fn max_gap(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.max_gap = seconds.into_iter().collect();
        self
    }

    /// Sets the bounds of `output_tokens_per_second` and of every other histogram of rates.
    ///
    /// Default: 1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500, 1000.
    pub fn output_tokens_per_second(mut self, rates: impl IntoIterator<Item = f64>) -> Self {
        self.output_tokens_per_second = rates.into_iter().collect();
        self
    }

    /// Returns the bounds of each histogram, in the order of the layout.
    pub(crate) fn bounds(&self) -> Result<Box<[Arc<UnitBounds>]>, BuildError> {
        let bounds = |histogram, values: &[f64], unit| match UnitBounds::new(values, scale(unit)) {
            Ok(bounds) => Ok(Arc::new(bounds)),
            Err(bound) => Err(BuildError::Buckets { histogram, bound }),
        };
        let seconds = |histogram, values| bounds(histogram, values, Unit::Seconds);
        let request_duration = seconds("request_duration", &self.request_duration)?;
        let time_to_first_token = seconds("time_to_first_token", &self.time_to_first_token)?;
        let inter_token = seconds("inter_token", &self.inter_token)?;
        let max_gap = seconds("max_gap", &self.max_gap)?;
        let rates = bounds(
            "output_tokens_per_second",
            &self.output_tokens_per_second,
            Unit::PerSecond("token"),
        )?;
        let counts = bounds("counts", &COUNTS, Unit::Each("token"))?;
        let of = |row: &HistogramRow| match (row.quantity.name, row.quantity.unit) {
            ("duration", _) => &request_duration,
            ("inter_token", _) if row.longest => &max_gap,
            ("inter_token", _) => &inter_token,
            (_, Unit::Seconds) => &time_to_first_token,
            (_, Unit::Each(_)) => &counts,
            _ => &rates,
        };
        Ok(LAYOUT.histograms.iter().map(of).map(Arc::clone).collect())
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::new()
    }
}

/// Bounds of histograms of counts, in powers of four.
const COUNTS: [f64; 11] = [
    1.0,
    4.0,
    16.0,
    64.0,
    256.0,
    1024.0,
    4096.0,
    16384.0,
    65536.0,
    262_144.0,
    1_048_576.0,
];

/// Bounds of custom histograms that were not declared with other bounds.
pub(crate) const CUSTOM: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_presets_are_valid() {
        Buckets::new().bounds().unwrap();
        Buckets::otel().bounds().unwrap();
        assert_eq!(
            Buckets::otel().request_duration,
            [
                0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96,
                81.92
            ]
        );
    }

    #[test]
    fn an_invalid_bound_is_reported_with_its_histogram() {
        let error = Buckets::new().max_gap([0.5, 0.1]).bounds().unwrap_err();
        assert_eq!(
            error.to_string(),
            "buckets: bound 0.1 of `max_gap` must be finite, not negative and greater than the bound before it"
        );
    }
}
