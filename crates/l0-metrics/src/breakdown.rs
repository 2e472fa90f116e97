//! Breakdowns: sums by the values of a metric's own labels.

use std::sync::{PoisonError, RwLock};

use l0_core::{GuardrailStats, KeyList, Value, keys};

use crate::handles::{Deferred, Registrar};
use crate::labels::OTHER;
use crate::layout::Place;
use crate::sum::Sum;

/// Sums by label values: of the first 64 sets of values, and of `other`.
#[derive(Debug)]
pub(crate) struct Breakdown {
    place: Place,
    labels: &'static [&'static str],
    parts: RwLock<Vec<Part>>,
}

/// A set of values and its sum. Parts are sorted by their values.
type Part = (Box<[Box<str>]>, Sum);

impl Breakdown {
    /// The same limit as that of rules in telemetry.
    const MAX: usize = GuardrailStats::MAX_RULES;

    pub(crate) fn new(place: Place, labels: &'static [&'static str]) -> Self {
        Self {
            place,
            labels,
            parts: RwLock::default(),
        }
    }

    /// Registers sums of known values, which start at 0, so rates see the first event of each.
    pub(crate) fn begin(&self, values: &[&str], registrar: Registrar<'_>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(at) = find(&parts, values) {
            parts.insert(at, self.part(values, registrar));
        }
    }

    pub(crate) fn add(&self, values: &[&str], value: Value<'_>, deferred: &Deferred) {
        /// More labels than any metric has of its own.
        const MAX_LABELS: usize = 4;

        if value.as_f64() == 0.0 {
            return;
        }
        // Prometheus treats an empty value as a missing label.
        let mut named = [OTHER; MAX_LABELS];
        let named = &mut named[..values.len().min(MAX_LABELS)];
        for (named, value) in named.iter_mut().zip(values) {
            *named = match keys::cut(value, KeyList::MAX_VALUE) {
                "" => OTHER,
                value => value,
            };
        }
        if !self.add_to_known(named, value) {
            self.add_to_new(named, value, deferred);
        }
    }

    fn add_to_known(&self, values: &[&str], value: Value<'_>) -> bool {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let known = match find(&parts, values) {
            Err(_) if parts.len() >= Self::MAX => find(&parts, &self.others()),
            known => known,
        };
        known.is_ok_and(|at| {
            parts[at].1.add(value);
            true
        })
    }

    fn add_to_new(&self, values: &[&str], value: Value<'_>, deferred: &Deferred) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = parts.len() < Self::MAX;
        let others = self.others();
        let values = if has_room || find(&parts, values).is_ok() {
            values
        } else {
            &others
        };
        match find(&parts, values) {
            Ok(at) => parts[at].1.add(value),
            Err(at) => {
                if let Some(part) = deferred.register(|registrar| self.part(values, registrar)) {
                    part.1.add(value);
                    parts.insert(at, part);
                }
            }
        }
    }

    fn others(&self) -> Vec<&'static str> {
        vec![OTHER; self.labels.len()]
    }

    fn part(&self, values: &[&str], registrar: Registrar<'_>) -> Part {
        let own = self.labels.iter().copied().zip(values.iter().copied());
        let sum = Sum::new(registrar, self.place, &Vec::from_iter(own));
        (values.iter().map(|value| Box::from(*value)).collect(), sum)
    }
}

fn find(parts: &[Part], values: &[&str]) -> Result<usize, usize> {
    /// Up to this many, a linear search is faster than comparing the order of texts.
    const MAX_LINEAR: usize = 8;

    if parts.len() <= MAX_LINEAR {
        let same = |known: &[Box<str>]| {
            known
                .iter()
                .zip(values)
                .all(|(known, one)| **known == **one)
        };
        if let Some(at) = parts.iter().position(|(known, _)| same(known)) {
            return Ok(at);
        }
    }
    let values = values.iter().copied();
    parts.binary_search_by(|(known, _)| known.iter().map(|one| &**one).cmp(values.clone()))
}
