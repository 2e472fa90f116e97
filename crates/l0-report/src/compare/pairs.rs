//! Pairs: runs of both arms that have the same value of a metadata entry.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use l0_core::{Outcome, Quantity, Telemetry, keys};

use super::interval::{Level, correlation};
use super::sample::Sample;
use super::side::{Read, estimate, read};
use super::statistic::{Kind, Of, Statistic};
use super::{Arm, Known, PairCounts};
use crate::stats::{MAX_NAME, Stats};

/// The paired runs of one group.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    /// Keyed by a hash of the value, so the order of sums is deterministic and long values use no memory.
    runs: BTreeMap<u64, Pair>,
    base_runs: u64,
    new_runs: u64,
    repeated: u64,
    without_key: u64,
    left_out: u64,
    /// The currency of each quantity of money: the first that occurred.
    currencies: Vec<(usize, String)>,
    /// Error types, in the order of their first occurrence.
    error_types: Vec<String>,
}

#[derive(Debug, Clone, Default)]
struct Pair {
    base: Option<Box<Numbers>>,
    new: Option<Box<Numbers>>,
}

/// The values that are kept of a run.
#[derive(Debug, Clone)]
struct Numbers {
    /// Values by the index of the quantity; NaN if unknown. Seven digits are enough.
    of: Box<[f32]>,
    outcome: Option<Outcome>,
    /// The index of the error type.
    error_type: Option<u8>,
}

impl Pairs {
    /// Adds a run. Returns `true` if it is the first run of both arms with its value.
    pub(crate) fn add(
        &mut self,
        arm: Arm,
        key: Option<&str>,
        run: &Telemetry,
        has_space: bool,
    ) -> bool {
        match arm {
            Arm::Base => self.base_runs += 1,
            Arm::New => self.new_runs += 1,
        }
        let Some(key) = key else {
            self.without_key += 1;
            return false;
        };
        // Fixed keys, so hashes are the same in each process.
        let mut hasher = DefaultHasher::new();
        key.hash(&mut hasher);
        let hash = hasher.finish();
        let is_new = !self.runs.contains_key(&hash);
        if is_new && !has_space {
            self.left_out += 1;
            return false;
        }
        let numbers = self.numbers(run);
        let pair = self.runs.entry(hash).or_default();
        let slot = match arm {
            Arm::Base => &mut pair.base,
            Arm::New => &mut pair.new,
        };
        if slot.is_some() {
            self.repeated += 1;
        } else {
            *slot = Some(Box::new(numbers));
        }
        is_new
    }

    fn numbers(&mut self, run: &Telemetry) -> Numbers {
        let mut of = vec![f32::NAN; Quantity::ALL.len()].into_boxed_slice();
        let currencies = &mut self.currencies;
        read(run, &mut |place, read| match read {
            Read::One(number) => of[place] = number as f32,
            Read::Money(currency, amount) => {
                let known = currencies.iter().find(|(known, _)| *known == place);
                match known {
                    Some((_, known)) if known != currency => {}
                    Some(_) => of[place] = amount as f32,
                    None => {
                        currencies.push((place, currency.to_owned()));
                        of[place] = amount as f32;
                    }
                }
            }
            // The order of these values in one run is unrelated to that in another.
            Read::Many(..) => {}
        });
        let error = run.error.as_ref();
        let error = error.filter(|_| run.outcome.is_some_and(Outcome::is_failure));
        let error_type = error.and_then(|error| {
            let label = keys::cut(&error.error_type, MAX_NAME);
            let known = self.error_types.iter().position(|known| known == label);
            let place = known.or_else(|| {
                let fits = self.error_types.len() < Stats::MAX_LABELS;
                fits.then(|| self.error_types.push(label.to_owned()));
                fits.then(|| self.error_types.len() - 1)
            });
            place.and_then(|place| u8::try_from(place).ok())
        });
        Numbers {
            of,
            outcome: run.outcome,
            error_type,
        }
    }

    /// Returns the number of runs of each arm, paired or not.
    pub(crate) const fn runs(&self) -> (u64, u64) {
        (self.base_runs, self.new_runs)
    }

    pub(crate) fn currencies(&self) -> Vec<(usize, String)> {
        self.currencies.clone()
    }

    pub(crate) fn counts(&self) -> PairCounts {
        let pairs = self.both().count() as u64;
        PairCounts {
            pairs,
            alone: self.runs.len() as u64 - pairs,
            repeated: self.repeated,
            without_key: self.without_key,
            left_out: self.left_out,
        }
    }

    fn both(&self) -> impl Iterator<Item = (&Numbers, &Numbers)> + Clone {
        let pairs = self.runs.values();
        pairs.filter_map(|pair| Some((pair.base.as_deref()?, pair.new.as_deref()?)))
    }

    /// Returns the estimates of both arms, and the correlation of their errors.
    pub(crate) fn estimates(&self, statistic: &Statistic, level: Level) -> (Known, Known, f64) {
        let number = |numbers: &Numbers| {
            let flag = |is: bool| f64::from(u8::from(is));
            match &statistic.of {
                Of::Quantity(place) => Some(f64::from(numbers.of[*place])),
                Of::Money(place, currency) => {
                    let mut known = self.currencies.iter();
                    let known = known.any(|(of, known)| of == place && known == currency);
                    known.then(|| f64::from(numbers.of[*place]))
                }
                Of::Outcome(outcome) => numbers.outcome.map(|of| flag(of == *outcome)),
                Of::ErrorType(label) => {
                    let of = numbers
                        .error_type
                        .map(|place| &self.error_types[place as usize]);
                    numbers.outcome.map(|_| flag(of == Some(label)))
                }
            }
            .filter(|number| !number.is_nan())
        };
        let both = self
            .both()
            .filter_map(|(a, b)| Some((number(a)?, number(b)?)));
        let (mut base, mut new) = (Sample::default(), Sample::default());
        for (a, b) in both.clone() {
            base.add(a);
            new.add(b);
        }
        let known = |sample: &Sample| Known {
            runs: sample.runs(),
            estimate: estimate(sample, statistic.kind, level),
            not_zero: Some((sample.not_zero(), sample.sum())),
        };
        let (base, new) = (known(&base), known(&new));
        // The errors of two quantiles correlate as far as the same pairs are beyond them.
        let beyond = |number: f64, known: &Known| {
            let limit = match (statistic.kind, known.estimate) {
                (Kind::Mean, _) | (_, None) => return number,
                (Kind::Share, _) => 0.0,
                (Kind::Quantile(_), Some(estimate)) => estimate.value,
            };
            f64::from(u8::from(number > limit))
        };
        let together = both.map(|(a, b)| (beyond(a, &base), beyond(b, &new)));
        let correlation = correlation(together);
        (base, new, correlation)
    }
}
