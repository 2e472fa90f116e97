//! Samples: the numbers of many runs, in bounded memory.

use std::collections::BTreeMap;

use super::interval::{Estimate, Level, Moments, ranks};
use crate::cells::{Cell, Cells, HIGHEST};

/// A sample with one number for each run.
///
/// Cells are at most 0.2 % wide. Each keeps its smallest and its largest number, so a cell is exact if it has one
/// or two numbers, or equal ones. Other numbers count as evenly spread between them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Sample {
    moments: Moments,
    zeros: u64,
    cells: Cells<Within>,
}

/// The number of values in a cell, and their range in fractions of its width.
#[derive(Debug, Clone, Copy, Default)]
struct Within {
    count: u32,
    min: u32,
    max: u32,
}

/// Numbers in ascending order, evenly spread from the first to the last.
#[derive(Debug, Clone, Copy)]
struct Stretch {
    count: u64,
    min: f64,
    max: f64,
}

impl Sample {
    /// Adds a number. Ignores negative and non-finite numbers.
    pub(crate) fn add(&mut self, number: f64) {
        if !number.is_finite() || number < 0.0 {
            return;
        }
        self.moments.add(number, 1.0);
        let Some(cell) = Cell::of(number) else {
            self.zeros += 1;
            return;
        };
        let (low, high) = (cell.low(), cell.high());
        let place = (number.min(HIGHEST) - low) / (high - low) * PARTS;
        let place = place.round().min(PARTS - 1.0) as u32;
        let cell = self.cells.at(cell);
        if cell.count == 0 {
            (cell.min, cell.max) = (place, place);
        } else {
            (cell.min, cell.max) = (cell.min.min(place), cell.max.max(place));
        }
        cell.count = cell.count.saturating_add(1);
    }

    pub(crate) const fn runs(&self) -> u64 {
        self.moments.runs()
    }

    /// Returns the number of non-zero values.
    pub(crate) const fn not_zero(&self) -> u64 {
        self.moments.runs() - self.zeros
    }

    /// Returns the sum of the numbers.
    pub(crate) const fn sum(&self) -> f64 {
        self.moments.sum()
    }

    pub(crate) fn mean(&self, level: Level) -> Option<Estimate> {
        self.moments.mean(level)
    }

    /// Returns a quantile by nearest rank, and the order statistics of its interval.
    pub(crate) fn quantile(&self, q: f64, level: Level) -> Option<Estimate> {
        let count = self.runs();
        if count == 0 {
            return None;
        }
        // One rounding step down, because most decimal shares have no exact `f64`.
        let rank = (q * (1.0 - f64::EPSILON) * count as f64).ceil().max(1.0);
        let (low, high) = ranks(count, q, level);
        let [value, lower, upper] = self.at_ranks([rank, low, high]);
        Some(Estimate {
            value,
            lower: lower.min(value),
            upper: upper.max(value),
        })
    }

    /// Returns the numbers at these ranks, from 1. Interpolates between two whole ranks.
    fn at_ranks<const N: usize>(&self, ranks: [f64; N]) -> [f64; N] {
        let last = self.runs() as f64;
        let ranks = ranks.map(|rank| rank.clamp(1.0, last));
        let mut found = [f64::NAN; N];
        let mut before = 0.0;
        let mut end = 0.0;
        for stretch in self.stretches() {
            let count = stretch.count as f64;
            let step = (stretch.max - stretch.min) / (count - 1.0).max(1.0);
            for (rank, found) in ranks.iter().zip(&mut found) {
                if !found.is_nan() || *rank > before + count {
                    continue;
                }
                // Between the last number of the previous stretch and the first of this one, or within it.
                let place = rank - before - 1.0;
                *found = if place < 0.0 {
                    stretch.min + place * (stretch.min - end)
                } else {
                    stretch.min + place * step
                };
            }
            before += count;
            end = stretch.max;
        }
        found.map(|number| if number.is_nan() { end } else { number })
    }

    fn stretches(&self) -> impl Iterator<Item = Stretch> {
        let cells = self.cells.iter().map(|(cell, within)| {
            let (low, width) = (cell.low(), cell.high() - cell.low());
            let place = |part: u32| low + width * f64::from(part) / PARTS;
            Stretch {
                count: within.count.into(),
                min: place(within.min),
                max: place(within.max),
            }
        });
        let zeros = Stretch {
            count: self.zeros,
            min: 0.0,
            max: 0.0,
        };
        let all = std::iter::once(zeros).chain(cells);
        all.filter(|stretch| stretch.count > 0)
    }
}

/// The number of fractions of a cell's width.
const PARTS: f64 = 4_294_967_296.0;

/// A sample with many numbers for each run, such as gaps. The numbers of a run are correlated, so runs and not
/// numbers are the units.
#[derive(Debug, Clone, Default)]
pub(crate) struct Clusters {
    moments: Moments,
    /// The number of values, and the sum of the squares of the number of values of each run.
    count: f64,
    squares: f64,
    /// Keyed by the bits of the lower bound, whose order is that of the non-negative numbers.
    steps: BTreeMap<u64, Step>,
}

/// The contribution of one bucket to the sums over runs.
#[derive(Debug, Clone, Copy, Default)]
struct Step {
    upper: f64,
    /// The contribution to the sum of the number of a run's values up to `upper`, to the sum of its square, and to
    /// the sum of its product with the number of all values of the run.
    count: f64,
    squares: f64,
    products: f64,
}

/// A bucket of values of one run, with its bounds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Bucket {
    pub(crate) lower: f64,
    pub(crate) upper: f64,
    pub(crate) count: u64,
}

impl Bucket {
    /// Returns the bucket of a single number.
    pub(crate) fn of(number: f64) -> Self {
        let cell = Cell::of(number).unwrap_or(Cell::first());
        Self {
            lower: cell.low(),
            upper: cell.high(),
            count: 1,
        }
    }
}

impl Clusters {
    /// The maximum number of buckets. A [`Distribution`](l0_core::Distribution) has fewer.
    const MAX_STEPS: usize = 16_384;

    /// Adds the values of a run: their sum, and their buckets in ascending order.
    pub(crate) fn add(&mut self, sum: f64, buckets: &[Bucket]) {
        let all: u64 = buckets.iter().map(|bucket| bucket.count).sum();
        if all == 0 || !sum.is_finite() {
            return;
        }
        let all = all as f64;
        self.moments.add(sum, all);
        self.count += all;
        self.squares += all * all;
        let mut before = 0.0;
        for bucket in buckets {
            let after = before + bucket.count as f64;
            let key = bucket.lower.to_bits();
            if self.steps.len() < Self::MAX_STEPS || self.steps.contains_key(&key) {
                let step = self.steps.entry(key).or_default();
                step.upper = step.upper.max(bucket.upper);
                step.count += after - before;
                step.squares += after * after - before * before;
                step.products += (after - before) * all;
            }
            before = after;
        }
    }

    pub(crate) const fn runs(&self) -> u64 {
        self.moments.runs()
    }

    pub(crate) fn mean(&self, level: Level) -> Option<Estimate> {
        self.moments.mean(level)
    }

    /// Returns a quantile of all values, with its interval. The ends are the quantiles of the shares that the
    /// variance between runs allows.
    pub(crate) fn quantile(&self, q: f64, level: Level) -> Option<Estimate> {
        let runs = self.runs() as f64;
        if self.runs() < 2 {
            return None;
        }
        let [value] = self.at_shares([q]);
        // The number of uncorrelated values with the same information.
        let count = self.count / self.design_effect(q);
        let t = level.t(runs - 1.0);
        let middle = q + (t * t - 1.0) * (1.0 - 2.0 * q) / 6.0 / count;
        let spread = t * (q * (1.0 - q) / count).sqrt();
        let [lower, upper] = self.at_shares([middle - spread, middle + spread]);
        Some(Estimate {
            value,
            lower: lower.min(value),
            upper: upper.max(value),
        })
    }

    /// Returns the ratio of the variance of the share of values below this quantile to that of uncorrelated
    /// values. Of the values at the two ends of the quantile's bucket, the larger one counts.
    fn design_effect(&self, q: f64) -> f64 {
        let runs = self.runs() as f64;
        let mut sums = Step::default();
        let mut largest = 0.0_f64;
        for step in self.steps.values() {
            let before = sums.count / self.count;
            sums.count += step.count;
            sums.squares += step.squares;
            sums.products += step.products;
            let share = sums.count / self.count;
            if share < 1.0 {
                let deviations =
                    sums.squares - 2.0 * share * sums.products + share * share * self.squares;
                let effect = runs / (runs - 1.0) * deviations / (share * (1.0 - share));
                // Keeps only the last effect before the quantile.
                largest = if before < q && share < q {
                    effect
                } else {
                    largest.max(effect)
                };
            }
            if share >= q {
                break;
            }
        }
        // With a single bucket, the values of a run count as fully correlated.
        let effect = if largest > 0.0 { largest } else { self.squares };
        (effect / self.count).max(f64::MIN_POSITIVE)
    }

    /// Returns the numbers below which these shares of all values lie, evenly spread within a bucket.
    fn at_shares<const N: usize>(&self, shares: [f64; N]) -> [f64; N] {
        let mut found = [None; N];
        let mut before = 0.0;
        let mut last = 0.0;
        for (lower, step) in &self.steps {
            let lower = f64::from_bits(*lower);
            for (share, found) in shares.iter().zip(&mut found) {
                let wanted = share * self.count;
                if found.is_none() && wanted <= before + step.count {
                    let part = ((wanted - before) / step.count).clamp(0.0, 1.0);
                    *found = Some(lower + (step.upper - lower) * part);
                }
            }
            before += step.count;
            last = step.upper;
        }
        found.map(|number| number.unwrap_or(last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(numbers: impl IntoIterator<Item = f64>) -> Sample {
        let mut sample = Sample::default();
        numbers.into_iter().for_each(|number| sample.add(number));
        sample
    }

    #[test]
    fn whole_numbers_are_exact() {
        let counts = sample((0..512).map(f64::from));
        for rank in [1.0, 2.0, 17.0, 256.0, 511.0, 512.0] {
            assert_eq!(counts.at_ranks([rank]), [rank - 1.0]);
        }
        assert_eq!(counts.at_ranks([100.5]), [99.5]);
        assert_eq!((counts.runs(), counts.not_zero()), (512, 511));
    }

    #[test]
    fn numbers_have_the_documented_precision() {
        let mut number = 1e-8;
        while number < 1e11 {
            let one = sample([number, number * 1.3, number * 1.7]);
            for (rank, expected) in [(1.0, number), (2.0, number * 1.3), (3.0, number * 1.7)] {
                let [found] = one.at_ranks([rank]);
                assert!(
                    (found / expected - 1.0).abs() < 1e-12,
                    "{found} for {expected}"
                );
            }
            number *= 1.37;
        }
        let many = sample((0..100_000).map(|n| 100.0 + f64::from(n) / 1_000.0));
        for rank in [1.0, 777.0, 50_000.0, 99_999.0] {
            let [found] = many.at_ranks([rank]);
            let expected = 100.0 + (rank - 1.0) / 1_000.0;
            assert!(
                (found / expected - 1.0).abs() < 1e-5,
                "{found} for {expected}"
            );
        }
    }

    #[test]
    fn non_numbers_are_ignored_and_tiny_numbers_count_as_zero() {
        let odd = sample([
            f64::NAN,
            -1.0,
            f64::INFINITY,
            0.0,
            f64::MIN_POSITIVE,
            f64::MAX,
        ]);
        assert_eq!((odd.runs(), odd.not_zero()), (3, 1));
        assert_eq!(odd.at_ranks([3.0]), [HIGHEST]);
    }

    #[test]
    fn many_numbers_of_a_run_count_as_one_run() {
        // Runs of a hundred equal gaps give as much information as runs of one.
        let level = Level::of(0.95);
        let (mut one, mut hundred) = (Clusters::default(), Clusters::default());
        for run in 0..200 {
            let number = 10.0 + f64::from(run * 37 % 200) / 10.0;
            one.add(number, &[Bucket::of(number)]);
            hundred.add(
                number * 100.0,
                &[Bucket {
                    count: 100,
                    ..Bucket::of(number)
                }],
            );
        }
        for q in [0.5, 0.95] {
            let (a, b) = (one.quantile(q, level), hundred.quantile(q, level));
            let (a, b) = (a.expect("values"), b.expect("values"));
            for (a, b) in [(a.value, b.value), (a.lower, b.lower), (a.upper, b.upper)] {
                assert!((a / b - 1.0).abs() < 1e-9, "{a} {b}");
            }
        }
        let (a, b) = (one.mean(level), hundred.mean(level));
        let (a, b) = (a.expect("values"), b.expect("values"));
        assert!((a.lower / b.lower - 1.0).abs() < 1e-9 && (a.upper / b.upper - 1.0).abs() < 1e-9);
    }
}
