//! Buckets: where the histograms of runs have their bounds.

use std::sync::Arc;

use crate::error::BuildError;
use crate::histogram::UnitBounds;
use crate::number::NANOS;

/// The upper bounds of the buckets of each histogram, without `+Inf`, which is always there.
///
/// Bounds must be finite, not negative, and ascend. Every bound is one more line in every scrape, for
/// every label set.
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
    /// The defaults, which reach from fast models to reasoning ones that think for minutes. Each
    /// setter says what they are.
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

    /// The bounds that the OpenTelemetry conventions for generative AI advise for the durations of
    /// a client, doubling from 0.01 s to 81.92 s, for all four histograms of durations. They tell
    /// nothing apart below 10 ms, so models faster than 100 tokens per second look alike.
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

    /// For `request_duration_seconds`: 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 45, 60, 90, 120, 180,
    /// 300, 600, 1200.
    pub fn request_duration(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.request_duration = seconds.into_iter().collect();
        self
    }

    /// For `time_to_first_token_seconds`: 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1, 1.5,
    /// 2.5, 5, 7.5, 10, 20, 40, 80, 160, 320.
    pub fn time_to_first_token(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.time_to_first_token = seconds.into_iter().collect();
        self
    }

    /// For `inter_token_seconds`: 0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03,
    /// 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80.
    pub fn inter_token(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.inter_token = seconds.into_iter().collect();
        self
    }

    /// For `stream_max_gap_seconds`: 0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10, 15, 30, 60, 120.
    pub fn max_gap(mut self, seconds: impl IntoIterator<Item = f64>) -> Self {
        self.max_gap = seconds.into_iter().collect();
        self
    }

    /// For `output_tokens_per_second`: 1, 2, 5, 10, 20, 30, 40, 50, 60, 80, 100, 150, 200, 300, 500,
    /// 1000.
    pub fn output_tokens_per_second(mut self, rates: impl IntoIterator<Item = f64>) -> Self {
        self.output_tokens_per_second = rates.into_iter().collect();
        self
    }

    pub(crate) fn bounds(&self) -> Result<RunBounds, BuildError> {
        let bounds = |histogram, values: &[f64], scale| match UnitBounds::new(values, scale) {
            Ok(bounds) => Ok(Arc::new(bounds)),
            Err(bound) => Err(BuildError::Buckets { histogram, bound }),
        };
        Ok(RunBounds {
            request_duration: bounds("request_duration", &self.request_duration, NANOS)?,
            time_to_first_token: bounds("time_to_first_token", &self.time_to_first_token, NANOS)?,
            inter_token: bounds("inter_token", &self.inter_token, NANOS)?,
            max_gap: bounds("max_gap", &self.max_gap, NANOS)?,
            output_tokens_per_second: bounds(
                "output_tokens_per_second",
                &self.output_tokens_per_second,
                THOUSANDTHS,
            )?,
        })
    }
}

impl Default for Buckets {
    fn default() -> Self {
        Self::new()
    }
}

/// Telemetry gives rates to three decimals.
pub(crate) const THOUSANDTHS: f64 = 1e3;

/// What custom histograms have unless they were declared with bounds of their own.
pub(crate) const CUSTOM: [f64; 11] = [
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// The bounds that all series of a registry share.
#[derive(Debug)]
pub(crate) struct RunBounds {
    pub(crate) request_duration: Arc<UnitBounds>,
    pub(crate) time_to_first_token: Arc<UnitBounds>,
    pub(crate) inter_token: Arc<UnitBounds>,
    pub(crate) max_gap: Arc<UnitBounds>,
    pub(crate) output_tokens_per_second: Arc<UnitBounds>,
}

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
    fn a_bad_bound_is_named_with_its_histogram() {
        let error = Buckets::new().max_gap([0.5, 0.1]).bounds().unwrap_err();
        assert_eq!(
            error.to_string(),
            "buckets: the bound 0.1 of `max_gap` is not finite, negative or not ascending"
        );
    }
}
