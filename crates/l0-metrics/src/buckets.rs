//! The bucket bounds of the histograms of runs, for exporters that need them.

use l0_core::Unit;

use crate::layout::{HistogramRow, Values};

const REQUEST_DURATION: [f64; 17] = [
    0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 45.0, 60.0, 90.0, 120.0, 180.0, 300.0, 600.0,
    1200.0,
];

const TIME_TO_FIRST_TOKEN: [f64; 19] = [
    0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0,
    160.0, 320.0,
];

const GAPS: [f64; 23] = [
    0.001, 0.0025, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.025, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15,
    0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 40.0, 80.0,
];

const LONGEST_GAP: [f64; 12] = [
    0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0,
];

const RATES: [f64; 16] = [
    1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 80.0, 100.0, 150.0, 200.0, 300.0, 500.0,
    1000.0,
];

/// Powers of four.
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

/// Returns the upper bounds of a histogram's buckets, without `+Inf`.
pub(crate) fn bounds(row: &HistogramRow) -> &'static [f64] {
    match (row.values, row.quantity.unit) {
        (Values::Longest, _) => &LONGEST_GAP,
        (Values::Gaps, _) => &GAPS,
        _ if row.quantity.name == "duration" => &REQUEST_DURATION,
        (_, Unit::Seconds) => &TIME_TO_FIRST_TOKEN,
        (_, Unit::Each(_)) => &COUNTS,
        _ => &RATES,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::LAYOUT;

    #[test]
    fn bounds_ascend() {
        for row in &LAYOUT.histograms {
            assert!(
                bounds(row).is_sorted_by(|a, b| a < b),
                "{}",
                row.quantity.name
            );
        }
    }
}
