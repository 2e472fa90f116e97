//! Runs over time.

use std::collections::BTreeMap;

use l0_core::{Outcome, Telemetry, Timestamp};
use serde::Serialize;

use super::{OUTCOMES, cell};
use crate::text::millis;

/// Runs over time, in a limited number of periods. Periods become longer if there are too many.
#[derive(Debug, Clone, Default)]
pub(super) struct Times {
    /// The index of the current length of periods.
    length: usize,
    periods: BTreeMap<u64, Period>,
    /// The number of runs whose start is unknown.
    unknown: u64,
    /// From the first start to the last end, in milliseconds.
    span: Option<(u64, u64)>,
}

#[derive(Debug, Clone)]
struct Period {
    outcomes: Vec<u64>,
    first_tokens: Coarse,
}

impl Times {
    /// The maximum number of periods. A length is at most 7 times the previous one.
    const MAX_PERIODS: u64 = 360;
    /// Common lengths, in milliseconds, each a multiple of the previous one. Longer lengths double.
    const LENGTHS: [u64; 12] = [
        1_000,
        5_000,
        10_000,
        30_000,
        60_000,
        300_000,
        600_000,
        1_800_000,
        3_600_000,
        21_600_000,
        86_400_000,
        604_800_000,
    ];

    fn length(index: usize) -> u64 {
        let last = Self::LENGTHS.len() - 1;
        let doubled = index.saturating_sub(last).min(34);
        Self::LENGTHS[index.min(last)] << doubled
    }

    pub(super) fn add(&mut self, run: &Telemetry) {
        if run.start_time == Timestamp::default() {
            self.unknown = self.unknown.saturating_add(1);
            return;
        }
        let start = run.start_time.as_millis();
        let end = run.end_time().map_or(start, Timestamp::as_millis);
        let (first, last) = self.span.unwrap_or((start, end));
        self.span = Some((first.min(start), last.max(end)));
        let period = self.periods.entry(start / Self::length(self.length));
        let period = period.or_default();
        let outcome = run.outcome.unwrap_or(Outcome::Other);
        if let Some(place) = OUTCOMES.iter().position(|known| *known == outcome) {
            period.outcomes[place] += 1;
        }
        if let Some(first) = run.metrics.time_to_first_token {
            period.first_tokens.add(millis(first));
        }
        self.shrink();
    }

    fn shrink(&mut self) {
        while self.width() >= Self::MAX_PERIODS {
            let before = Self::length(self.length);
            self.length += 1;
            self.lengthen(Self::length(self.length) / before);
        }
    }

    /// Returns the number of periods from the first to the last, without the last.
    fn width(&self) -> u64 {
        let first = self.periods.first_key_value();
        let last = self.periods.last_key_value();
        let width = first.zip(last);
        width.map_or(0, |((first, _), (last, _))| last - first)
    }

    /// Merges every `times` periods into one.
    fn lengthen(&mut self, times: u64) {
        for (index, period) in std::mem::take(&mut self.periods) {
            self.periods
                .entry(index / times)
                .or_default()
                .merge(&period);
        }
    }

    pub(super) fn data(&self) -> TimesData<'_> {
        let length = Self::length(self.length);
        let periods = self.periods.iter().map(|(index, period)| PeriodData {
            start: index * length,
            outcomes: &period.outcomes,
            p50: period.first_tokens.quantile(0.5),
            p95: period.first_tokens.quantile(0.95),
        });
        TimesData {
            length,
            span: self.span,
            unknown: self.unknown,
            periods: periods.collect(),
        }
    }
}

impl Default for Period {
    fn default() -> Self {
        Self {
            outcomes: vec![0; OUTCOMES.len()],
            first_tokens: Coarse::default(),
        }
    }
}

impl Period {
    fn merge(&mut self, other: &Self) {
        for (count, more) in self.outcomes.iter_mut().zip(&other.outcomes) {
            *count += more;
        }
        self.first_tokens.merge(&other.first_tokens);
    }
}

#[derive(Serialize)]
pub(super) struct TimesData<'a> {
    length: u64,
    span: Option<(u64, u64)>,
    unknown: u64,
    periods: Vec<PeriodData<'a>>,
}

#[derive(Serialize)]
struct PeriodData<'a> {
    start: u64,
    outcomes: &'a [u64],
    p50: Option<f64>,
    p95: Option<f64>,
}

/// Numbers of a period. Quantiles are within 2.2 %, which is enough for a line.
#[derive(Debug, Clone, Default)]
struct Coarse(BTreeMap<i32, u64>);

impl Coarse {
    const PER_OCTAVE: f64 = 16.0;

    fn add(&mut self, number: f64) {
        *self.0.entry(cell(number, Self::PER_OCTAVE)).or_default() += 1;
    }

    fn merge(&mut self, other: &Self) {
        for (cell, count) in &other.0 {
            *self.0.entry(*cell).or_default() += count;
        }
    }

    fn quantile(&self, q: f64) -> Option<f64> {
        let count: u64 = self.0.values().sum();
        let rank = (q * count as f64).ceil() as u64;
        let mut seen = 0;
        let mut cells = self.0.iter();
        let (cell, _) = cells.find(|(_, count)| {
            seen += **count;
            seen >= rank
        })?;
        Some(((f64::from(*cell) + 0.5) / Self::PER_OCTAVE).exp2())
    }
}
