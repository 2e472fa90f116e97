//! Numbers that many threads write: counters and floating-point cells; and the whole units in which quantities
//! are summed exactly.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use l0_core::{Money, Unit, Value};

/// Adds to a number, which stops at its maximum. A reader that sees the sum also sees everything counted
/// before.
#[inline]
pub(crate) fn add(number: &AtomicU64, n: u64) {
    /// Too far from the maximum for concurrent additions to overflow.
    const FAR: u64 = u64::MAX / 2;

    if n < FAR && number.load(Ordering::Relaxed) < FAR {
        number.fetch_add(n, Ordering::Release);
    } else {
        let sum = |now: u64| Some(now.saturating_add(n));
        let _ = number.fetch_update(Ordering::Release, Ordering::Relaxed, sum);
    }
}

/// A count that only grows, up to its maximum.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add(&self, n: u64) {
        // Most additions are zero, and reading is much cheaper than writing.
        if n > 0 {
            add(&self.0, n);
        }
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Acquire)
    }

    pub(crate) fn clear(&self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

/// An exact sum of numbers made of whole units and a fraction. The fractions have their own sum, so no lock is
/// needed.
#[derive(Debug, Default)]
pub(crate) struct Exact {
    whole: AtomicU64,
    parts: AtomicU64,
}

impl Exact {
    pub(crate) fn add(&self, units: Units) {
        for (sum, n) in [(&self.whole, units.whole), (&self.parts, units.parts)] {
            if n > 0 {
                add(sum, n);
            }
        }
    }

    pub(crate) fn get(&self) -> Units {
        Units {
            whole: self.whole.load(Ordering::Acquire),
            parts: self.parts.load(Ordering::Acquire),
        }
    }
}

/// Whole units, and a fraction in parts of 10^-9.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Units {
    pub(crate) whole: u64,
    pub(crate) parts: u64,
}

impl Units {
    /// Converts a number; of money, to billionths.
    pub(crate) fn of(value: Value<'_>) -> Self {
        let Value::Amount(money) = value else {
            return Self {
                whole: units(value),
                parts: 0,
            };
        };
        let steps = money.as_steps();
        Self {
            whole: u64::try_from(steps / PARTS).unwrap_or(u64::MAX),
            // Less than 10^9.
            parts: (steps % PARTS) as u64,
        }
    }

    pub(crate) fn as_f64(self) -> f64 {
        self.whole as f64 + self.parts as f64 / NANOS
    }
}

/// The number of money steps in one billionth.
const PARTS: u128 = 10_u128.pow(Money::DECIMALS - 9);

/// A floating-point number that many threads write.
#[derive(Debug)]
pub(crate) struct Float(AtomicU64);

impl Float {
    pub(crate) const fn new(value: f64) -> Self {
        Self(AtomicU64::new(value.to_bits()))
    }

    #[inline]
    pub(crate) fn get(&self) -> f64 {
        f64::from_bits(self.0.load(Ordering::Relaxed))
    }

    #[inline]
    pub(crate) fn set(&self, value: f64) {
        self.0.store(value.to_bits(), Ordering::Relaxed);
    }

    pub(crate) fn add(&self, value: f64) {
        let mut bits = self.0.load(Ordering::Relaxed);
        loop {
            let sum = (f64::from_bits(bits) + value).to_bits();
            match self
                .0
                .compare_exchange_weak(bits, sum, Ordering::Relaxed, Ordering::Relaxed)
            {
                Ok(_) => return,
                Err(now) => bits = now,
            }
        }
    }
}

/// A number as it is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Number {
    Float(f64),
    /// Whole units, with this many digits after the decimal point.
    Decimal(u64, u32),
}

impl Number {
    /// Creates a number from whole units and the number of units in one.
    pub(crate) fn of_units(units: u64, scale: f64) -> Self {
        let digits = match scale {
            scale if scale > THOUSANDTHS => 9,
            scale if scale > 1.0 => 3,
            _ => 0,
        };
        Self::Decimal(units, digits)
    }

    pub(crate) fn as_f64(self) -> f64 {
        match self {
            Self::Float(number) => number,
            Self::Decimal(units, digits) => units as f64 / 10_u64.pow(digits) as f64,
        }
    }
}

impl From<f64> for Number {
    /// Uses a decimal without fraction if it is exact, because that is much faster to write.
    fn from(number: f64) -> Self {
        /// Above this, a float cannot represent every whole number.
        const LARGE: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

        let thousandths = (number * THOUSANDTHS).round();
        let is_exact = (thousandths / THOUSANDTHS).to_bits() == number.to_bits();
        if is_exact && (0.0..LARGE).contains(&thousandths) {
            Self::Decimal(thousandths as u64, 3)
        } else {
            Self::Float(number)
        }
    }
}

/// Converts a duration to whole nanoseconds, the unit of all sums of durations; enough for 584 years.
#[inline]
pub(crate) fn nanos(duration: Duration) -> u64 {
    let seconds = duration.as_secs().saturating_mul(1_000_000_000);
    seconds.saturating_add(duration.subsec_nanos().into())
}

/// Nanoseconds in a second.
pub(crate) const NANOS: f64 = 1e9;

/// Telemetry reports rates with three decimals.
pub(crate) const THOUSANDTHS: f64 = 1e3;

/// Returns the number of whole units in one unit of a quantity.
pub(crate) const fn scale(unit: Unit) -> f64 {
    match unit {
        Unit::Each(_) => 1.0,
        Unit::Seconds | Unit::Money => NANOS,
        _ => THOUSANDTHS,
    }
}

/// Converts a value to whole units.
#[inline]
pub(crate) fn units(value: Value<'_>) -> u64 {
    match value {
        Value::Count(count) => count,
        Value::Duration(duration) => nanos(duration),
        Value::Amount(_) => Units::of(value).whole,
        value => (value.as_f64() * THOUSANDTHS).round() as u64,
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use l0_core::{Quantity, QuantityKind, Telemetry};

    use super::*;

    #[test]
    fn additions_from_many_threads_all_count() {
        let (count, float) = (Count::default(), Float::new(0.0));
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        count.add(3);
                        float.add(0.5);
                    }
                });
            }
        });
        assert_eq!(count.get(), 120_000);
        assert_eq!(float.get(), 20_000.0);
    }

    #[test]
    fn a_count_stays_at_the_largest_number() {
        for parts in [
            &[u64::MAX, 1][..],
            &[1, u64::MAX],
            &[u64::MAX - 1, 1, 1],
            &[u64::MAX / 2, u64::MAX / 2, 1, 1],
            &[u64::MAX, u64::MAX],
        ] {
            let count = Count::default();
            let mut before = 0;
            for part in parts {
                count.add(*part);
                assert!(count.get() >= before, "{parts:?}");
                before = count.get();
            }
            assert_eq!(before, u64::MAX, "{parts:?}");
        }
    }

    #[test]
    fn a_duration_beyond_the_range_saturates() {
        assert_eq!(nanos(Duration::from_millis(1_500)), 1_500_000_000);
        assert_eq!(nanos(Duration::MAX), u64::MAX);
    }

    #[test]
    fn values_have_the_units_of_their_quantity() {
        let telemetry = Telemetry::example();
        let one_number = |quantity: &&Quantity| quantity.kind != QuantityKind::Distribution;
        for quantity in Quantity::ALL.iter().filter(one_number) {
            if let Some(value) = quantity.value(&telemetry) {
                let read = units(value) as f64 / scale(quantity.unit);
                assert_eq!(read, value.as_f64(), "{quantity:?}");
            }
        }
    }
}
