//! Breakdown: sums by the values of labels that a metric has of its own.

use std::sync::{PoisonError, RwLock};

use l0_core::{GuardrailStats, KeyList, Value, keys};

use crate::handles::{Later, Registrar};
use crate::labels::OTHER;
use crate::layout::Place;
use crate::sum::Sum;

/// Sums by the values of labels: of the first 64 sets of values, and of `other`.
#[derive(Debug)]
pub(crate) struct Breakdown {
    place: Place,
    labels: &'static [&'static str],
    parts: RwLock<Vec<Part>>,
}

/// The values and their sum, in ascending order of the values.
type Part = (Box<[Box<str>]>, Sum);

impl Breakdown {
    /// As many as telemetry has rules.
    const MAX: usize = GuardrailStats::MAX_RULES;

    pub(crate) fn new(place: Place, labels: &'static [&'static str]) -> Self {
        Self {
            place,
            labels,
            parts: RwLock::default(),
        }
    }

    /// Where values are known, their sums begin at 0, so that rates see the first of each.
    pub(crate) fn begin(&self, values: &[&str], registrar: Registrar<'_>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(at) = find(&parts, values) {
            parts.insert(at, self.part(values, registrar));
        }
    }

    pub(crate) fn add(&self, values: &[&str], value: Value<'_>, later: &Later) {
        /// More labels than any metric has.
        const MOST: usize = 4;

        if value.as_f64() == 0.0 {
            return;
        }
        // To Prometheus an empty value is no label.
        let mut named = [OTHER; MOST];
        let named = &mut named[..values.len().min(MOST)];
        for (named, value) in named.iter_mut().zip(values) {
            *named = match keys::cut(value, KeyList::MAX_VALUE) {
                "" => OTHER,
                value => value,
            };
        }
        if !self.add_to_known(named, value) {
            self.add_to_new(named, value, later);
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

    fn add_to_new(&self, values: &[&str], value: Value<'_>, later: &Later) {
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
                if let Some(part) = later.ask(|registrar| self.part(values, registrar)) {
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
    let values = values.iter().copied();
    parts.binary_search_by(|(known, _)| known.iter().map(|one| &**one).cmp(values.clone()))
}
