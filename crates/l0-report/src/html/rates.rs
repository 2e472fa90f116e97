//! The lengths of answers, and the rates of their tokens.

use std::collections::BTreeMap;

use serde::Serialize;

use super::cell;

/// The number of runs by length and rate, both in cells.
#[derive(Debug, Clone, Default)]
pub(super) struct Rates(BTreeMap<(i32, i32), u64>);

impl Rates {
    /// The number of cells per doubling of a length, and of a rate.
    const PER_OCTAVE: (f64, f64) = (4.0, 8.0);

    pub(super) fn add(&mut self, tokens: u64, rate: f64) {
        if rate > 0.0 && rate.is_finite() {
            let tokens = cell(tokens as f64, Self::PER_OCTAVE.0);
            let rate = cell(rate, Self::PER_OCTAVE.1);
            *self.0.entry((tokens, rate)).or_default() += 1;
        }
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }
}

impl Serialize for Rates {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0
                .iter()
                .map(|((tokens, rate), runs)| (tokens, rate, runs)),
        )
    }
}
