//! Sums: the handle of a quantity that is added up.

use l0_core::Value;
use metrics::{Counter, Gauge};

use crate::handles::Registrar;
use crate::layout::{Kind, LAYOUT, Place};

/// The handle of a sum.
#[derive(Debug)]
pub(crate) enum Sum {
    Count(Counter),
    /// A counter of the facade accepts only whole numbers.
    Real(Gauge),
}

impl Sum {
    /// Registers the sum with these values of the metric's own labels.
    pub(crate) fn new(
        registrar: Registrar<'_>,
        place: Place,
        own: &[(&'static str, &str)],
    ) -> Self {
        match LAYOUT.metrics[place].kind {
            Kind::RisingGauge => Self::Real(registrar.gauge_of(place, own)),
            _ => Self::Count(registrar.counter_of(place, own)),
        }
    }

    pub(crate) fn add(&self, value: Value<'_>) {
        match (self, value) {
            // Adding zero is not worth a call.
            (Self::Count(_), Value::Count(0)) => {}
            (Self::Count(counter), Value::Count(count)) => counter.increment(count),
            // A count has a whole number, or the list of quantities is wrong.
            (Self::Count(_), _) => {}
            (Self::Real(gauge), value) => {
                let value = value.as_f64();
                if value > 0.0 {
                    gauge.increment(value);
                }
            }
        }
    }
}
