//! Money: exact amounts and their currencies.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign, Mul};
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The number of steps in one unit of a currency.
const UNIT: u128 = 10_u128.pow(Money::DECIMALS);

/// An exact, non-negative amount of money. It is counted in steps of 10^-18 of a currency's unit, so
/// sums do not depend on their order.
///
/// The currency is stored next to the amount; see [`Cost`](crate::Cost).
///
/// ```
/// use l0_core::Money;
///
/// let limit: Money = "0.05".parse()?;
/// assert_eq!(limit, Money::cents(5));
///
/// // 12,000 tokens at 2.50 a million.
/// let price: Money = "2.5e-6".parse()?;
/// assert_eq!((price * 12_000).to_string(), "0.03");
/// # Ok::<(), l0_core::ParseMoneyError>(())
/// ```
///
/// Amounts above 10^20 units saturate at the largest amount. In JSON an amount is a string, because a
/// JSON number cannot hold it exactly. Numbers read back too.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Money(u128);

impl Money {
    /// The number of decimals.
    pub const DECIMALS: u32 = 18;

    /// The zero amount.
    pub const ZERO: Self = Self(0);

    /// Creates an amount from whole units, such as dollars.
    #[must_use]
    pub const fn units(units: u64) -> Self {
        Self(units as u128 * UNIT)
    }

    /// Creates an amount from hundredths of a unit.
    #[must_use]
    pub const fn cents(cents: u64) -> Self {
        Self(cents as u128 * (UNIT / 100))
    }

    /// Creates an amount from millionths of a unit.
    #[must_use]
    pub const fn micros(micros: u64) -> Self {
        Self(micros as u128 * (UNIT / 1_000_000))
    }

    /// Creates an amount from steps of 10^-18 units.
    #[must_use]
    pub const fn from_steps(steps: u128) -> Self {
        Self(steps)
    }

    /// Returns the amount in steps of 10^-18 units.
    #[must_use]
    pub const fn as_steps(self) -> u128 {
        self.0
    }

    /// Returns the amount in units, rounded to the precision of a float.
    #[must_use]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / UNIT as f64
    }

    /// Returns the difference, or zero if `other` is larger.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Creates an amount from billionths of a unit.
    pub(crate) const fn nanos(nanos: u64) -> Self {
        Self(nanos as u128 * (UNIT / 1_000_000_000))
    }

    /// Returns the amount in whole billionths of a unit, at most `u64::MAX`.
    pub(crate) const fn as_nanos(self) -> u64 {
        let nanos = self.0 / (UNIT / 1_000_000_000);
        if nanos > u64::MAX as u128 {
            u64::MAX
        } else {
            nanos as u64
        }
    }

    /// Returns a millionth of the amount, truncated to 18 decimals.
    pub(crate) const fn millionth(self) -> Self {
        Self(self.0 / 1_000_000)
    }

    /// Reads the digits of a decimal text with an optional power of ten. If `rounds` is `true`,
    /// decimals beyond the 18th are rounded; otherwise they are an error.
    fn read(text: &str, rounds: bool) -> Result<Self, ParseMoneyError> {
        if text.starts_with('-') {
            return Err(ParseMoneyError::Negative);
        }
        let text = text.strip_prefix('+').unwrap_or(text);
        let (digits, exponent) = match text.split_once(['e', 'E']) {
            Some((digits, exponent)) => (digits, exponent.parse().map_err(|_| NOT_DECIMAL)?),
            None => (text, 0_i32),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, ""));
        if whole.is_empty() && part.is_empty() {
            return Err(NOT_DECIMAL);
        }
        // The position of the first digit, as a power of ten of the steps.
        let first = i64::try_from(whole.len()).map_err(|_| NOT_DECIMAL)? - 1;
        let mut place = first + i64::from(exponent) + i64::from(Self::DECIMALS);
        let mut steps = 0_u128;
        for digit in whole.bytes().chain(part.bytes()) {
            let digit = u128::from(digit.wrapping_sub(b'0'));
            if digit > 9 {
                return Err(NOT_DECIMAL);
            }
            if digit > 0 {
                let step = match u32::try_from(place) {
                    Ok(place) => 10_u128
                        .checked_pow(place)
                        .ok_or(ParseMoneyError::TooLarge)?,
                    Err(_) if place == -1 && rounds => u128::from(digit >= 5),
                    Err(_) if place < 0 && rounds => 0,
                    Err(_) if place < 0 => return Err(ParseMoneyError::TooPrecise),
                    Err(_) => return Err(ParseMoneyError::TooLarge),
                };
                let times = if place < 0 { 1 } else { digit };
                let added = step.checked_mul(times);
                let sum = added.and_then(|added| steps.checked_add(added));
                steps = sum.ok_or(ParseMoneyError::TooLarge)?;
            }
            place -= 1;
        }
        Ok(Self(steps))
    }
}

/// Reads a decimal text, such as `0.05` or `2.5e-6`.
impl FromStr for Money {
    type Err = ParseMoneyError;

    fn from_str(text: &str) -> Result<Self, ParseMoneyError> {
        Self::read(text, false)
    }
}

/// Reads the shortest decimal number that stands for the float, rounded to 18 decimals: 0.1 is a tenth.
impl TryFrom<f64> for Money {
    type Error = ParseMoneyError;

    fn try_from(units: f64) -> Result<Self, ParseMoneyError> {
        if units == 0.0 {
            return Ok(Self::ZERO);
        }
        Self::read(&format!("{units:e}"), true)
    }
}

/// Prints a decimal number without an exponent: `0.05`.
impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, part) = (self.0 / UNIT, self.0 % UNIT);
        if part == 0 {
            return f.pad_integral(true, "", &whole.to_string());
        }
        let part = format!("{part:018}");
        let text = format!("{whole}.{}", part.trim_end_matches('0'));
        f.pad_integral(true, "", &text)
    }
}

impl fmt::Debug for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Money({self})")
    }
}

impl Add for Money {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Mul<u64> for Money {
    type Output = Self;

    fn mul(self, times: u64) -> Self {
        Self(self.0.saturating_mul(times.into()))
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Add::add)
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl de::Visitor<'_> for Visitor {
            type Value = Money;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount of money: a decimal number, not negative")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Money, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, units: u64) -> Result<Money, E> {
                Ok(Money::units(units))
            }

            fn visit_f64<E: de::Error>(self, units: f64) -> Result<Money, E> {
                Money::try_from(units).map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

const NOT_DECIMAL: ParseMoneyError = ParseMoneyError::NotDecimal;

/// The reason why a text, or a float, is not an amount of money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ParseMoneyError {
    /// The text does not consist of digits, a decimal point and an exponent.
    #[error("an amount of money must be a decimal number, such as `0.05`")]
    NotDecimal,
    /// The amount is less than zero.
    #[error("an amount of money must not be negative")]
    Negative,
    /// The amount has more decimals than [`Money::DECIMALS`].
    #[error("an amount of money must have at most 18 decimals")]
    TooPrecise,
    /// The amount is more than 10^20 units.
    #[error("an amount of money must be at most 10^20 units")]
    TooLarge,
}

/// A currency, identified by a code of three letters: an ISO 4217 code, or a provider's own unit.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Currency([u8; 3]);

impl Currency {
    /// The dollar of the United States, the currency of most prices.
    pub const USD: Self = Self(*b"USD");

    /// The euro.
    pub const EUR: Self = Self(*b"EUR");

    /// Returns the code: three uppercase letters.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // The code is always ASCII.
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// Reads a code of three letters, in lowercase or uppercase.
impl FromStr for Currency {
    type Err = ParseCurrencyError;

    fn from_str(code: &str) -> Result<Self, ParseCurrencyError> {
        let letters: [u8; 3] = code.as_bytes().try_into().map_err(|_| ParseCurrencyError)?;
        if !letters.iter().all(u8::is_ascii_alphabetic) {
            return Err(ParseCurrencyError);
        }
        Ok(Self(letters.map(|letter| letter.to_ascii_uppercase())))
    }
}

impl fmt::Display for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl fmt::Debug for Currency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Serialize for Currency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Currency {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let code = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        code.parse().map_err(de::Error::custom)
    }
}

/// The error for a text that is not a currency code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a currency code must be three letters, such as `USD`")]
#[non_exhaustive]
pub struct ParseCurrencyError;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_read_exactly_and_print_as_plain_decimals() {
        for (text, printed) in [
            ("0", "0"),
            ("0.05", "0.05"),
            (".5", "0.5"),
            ("5.", "5"),
            ("+1.50", "1.5"),
            ("1e-7", "0.0000001"),
            ("2.5E-6", "0.0000025"),
            ("1.5e3", "1500"),
            ("0.000000000000000001", "0.000000000000000001"),
            ("0.0000000000000000010", "0.000000000000000001"),
            (
                "340282366920938463463.374607431768211455",
                "340282366920938463463.374607431768211455",
            ),
        ] {
            let money: Money = text.parse().expect(text);
            assert_eq!(money.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(money), "{text}");
        }
    }

    #[test]
    fn what_is_no_amount_is_refused_with_its_reason() {
        use ParseMoneyError::{Negative, NotDecimal, TooLarge, TooPrecise};
        for (text, error) in [
            ("", NotDecimal),
            (".", NotDecimal),
            ("five", NotDecimal),
            ("1,5", NotDecimal),
            ("1.2.3", NotDecimal),
            ("1e", NotDecimal),
            ("1e99999999999", NotDecimal),
            ("NaN", NotDecimal),
            ("-0.05", Negative),
            ("0.0000000000000000001", TooPrecise),
            ("1e-19", TooPrecise),
            ("1e21", TooLarge),
            ("1e2147483647", TooLarge),
            ("340282366920938463463.374607431768211456", TooLarge),
        ] {
            assert_eq!(text.parse::<Money>(), Err(error), "{text}");
        }
    }

    #[test]
    fn floats_are_the_shortest_decimals_that_they_stand_for() {
        for (float, text) in [
            (0.1, "0.1"),
            (1.5e-7, "0.00000015"),
            (1e-7, "0.0000001"),
            (1e-19, "0"),
            (6e-19, "0.000000000000000001"),
            (3.0, "3"),
            (-0.0, "0"),
        ] {
            let money = Money::try_from(float).map(|money| money.to_string());
            assert_eq!(money.as_deref(), Ok(text), "{float}");
        }
        assert_eq!(Money::try_from(-1.0), Err(ParseMoneyError::Negative));
        assert_eq!(Money::try_from(f64::NAN), Err(ParseMoneyError::NotDecimal));
        assert_eq!(
            Money::try_from(f64::INFINITY),
            Err(ParseMoneyError::NotDecimal)
        );
    }

    #[test]
    fn sums_and_products_are_exact_and_stop_at_the_largest_amount() {
        let tenth: Money = "0.1".parse().expect("an amount");
        assert_eq!((0..10).map(|_| tenth).sum::<Money>(), Money::units(1));
        let price: Money = "1.5e-7".parse().expect("an amount");
        assert_eq!((price * 1_234_567).to_string(), "0.18518505");
        let largest = Money(u128::MAX);
        assert_eq!(largest + tenth, largest);
        assert_eq!(Money::units(u64::MAX) * u64::MAX, largest);
        assert_eq!(tenth.saturating_sub(Money::units(1)), Money::ZERO);
    }

    #[test]
    fn json_carries_a_text_and_reads_numbers_too() {
        let money: Money = "0.0123".parse().expect("an amount");
        assert_eq!(serde_json::to_string(&money).expect("JSON"), "\"0.0123\"");
        for json in ["\"0.0123\"", "0.0123", "1.23e-2"] {
            assert_eq!(serde_json::from_str::<Money>(json).expect(json), money);
        }
        assert_eq!(
            serde_json::from_str::<Money>("3").expect("3"),
            Money::units(3)
        );
        assert!(serde_json::from_str::<Money>("-3").is_err());
    }

    #[test]
    fn currencies_are_three_letters() {
        assert_eq!("usd".parse(), Ok(Currency::USD));
        assert_eq!(Currency::EUR.to_string(), "EUR");
        for wrong in ["", "US", "USDT", "U$D", "€"] {
            assert_eq!(
                wrong.parse::<Currency>(),
                Err(ParseCurrencyError),
                "{wrong}"
            );
        }
    }
}
