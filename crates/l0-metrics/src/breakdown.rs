//! Breakdown: counters by the values of labels that a metric has of its own.

use std::sync::{PoisonError, RwLock};

use l0_core::{GuardrailStats, KeyList, keys};
use metrics::Counter;

use crate::handles::{Later, Registrar};
use crate::labels::OTHER;
use crate::layout::Place;

/// Counters by the values of `N` labels: the first 64, and `other`.
#[derive(Debug)]
pub(crate) struct Breakdown<const N: usize> {
    place: Place,
    labels: [&'static str; N],
    parts: RwLock<Vec<Part<N>>>,
}

/// The values and their counter, in ascending order of the values.
type Part<const N: usize> = ([Box<str>; N], Counter);

impl<const N: usize> Breakdown<N> {
    /// As many as telemetry has rules.
    const MAX: usize = GuardrailStats::MAX_RULES;

    pub(crate) fn new(place: Place, labels: [&'static str; N]) -> Self {
        Self {
            place,
            labels,
            parts: RwLock::default(),
        }
    }

    /// Where values are known, their counters begin at 0, so that rates see the first of each.
    pub(crate) fn begin(&self, values: [&str; N], registrar: Registrar<'_>) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        if let Err(at) = find(&parts, values) {
            let counter = self.register(values, registrar);
            parts.insert(at, (values.map(Into::into), counter));
        }
    }

    pub(crate) fn add(&self, values: [&str; N], count: u64, later: &Later) {
        if count == 0 {
            return;
        }
        // To Prometheus an empty value is no label.
        let values = values.map(|value| match keys::cut(value, KeyList::MAX_VALUE) {
            "" => OTHER,
            value => value,
        });
        if !self.add_to_known(values, count) {
            self.add_to_new(values, count, later);
        }
    }

    fn add_to_known(&self, values: [&str; N], count: u64) -> bool {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        let known = match find(&parts, values) {
            Err(_) if parts.len() >= Self::MAX => find(&parts, [OTHER; N]),
            known => known,
        };
        known.is_ok_and(|at| {
            parts[at].1.increment(count);
            true
        })
    }

    fn add_to_new(&self, values: [&str; N], count: u64, later: &Later) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        let has_room = parts.len() < Self::MAX;
        let values = if has_room || find(&parts, values).is_ok() {
            values
        } else {
            [OTHER; N]
        };
        match find(&parts, values) {
            Ok(at) => parts[at].1.increment(count),
            Err(at) => {
                if let Some(counter) = later.ask(|registrar| self.register(values, registrar)) {
                    counter.increment(count);
                    parts.insert(at, (values.map(Into::into), counter));
                }
            }
        }
    }

    fn register(&self, values: [&str; N], registrar: Registrar<'_>) -> Counter {
        let mut values = values.into_iter();
        let own = self
            .labels
            .map(|name| (name, values.next().unwrap_or(OTHER)));
        registrar.counter_of(self.place, own)
    }
}

fn find<const N: usize>(parts: &[Part<N>], values: [&str; N]) -> Result<usize, usize> {
    parts.binary_search_by(|(known, _)| known.iter().map(|one| &**one).cmp(values))
}
