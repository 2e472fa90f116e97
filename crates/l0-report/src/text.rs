//! Text: the display of numbers, times and texts of unknown origin, and suggestions for misspelled names.

use std::time::Duration;

use jiff::civil;
use jiff::tz::TimeZone;
use l0_core::{Quantity, Timestamp};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Converts a duration to milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// Escapes a text of unknown origin for a terminal: invisible characters and those that move the cursor are
/// escaped.
pub(crate) fn printable(text: &str) -> impl Iterator<Item = char> {
    text.chars().flat_map(|character| {
        let shown = character.width().is_some_and(|width| width > 0);
        let separates = matches!(character, '\u{2028}' | '\u{2029}');
        let (shown, escaped) = if shown && !separates {
            (Some(character), None)
        } else {
            (None, Some(character.escape_default()))
        };
        shown.into_iter().chain(escaped.into_iter().flatten())
    })
}

/// Returns a text without control characters, shortened to this width.
pub(crate) fn shortened(text: &str, width: usize) -> String {
    let mut shown = String::new();
    for character in printable(text) {
        if shown.width() + character.width().unwrap_or_default() > width {
            shown.push('…');
            break;
        }
        shown.push(character);
    }
    shown
}

/// Returns a count with its noun, in the plural unless it is 1.
pub(crate) fn counted(count: u64, one: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {one}{plural}")
}

/// Formats a number that is not negative with three digits: the reports are not more precise. Costs of a single answer
/// are often below a millionth of a unit.
pub(crate) fn three_digits(number: Option<f64>) -> String {
    let Some(number) = number else {
        return "-".to_owned();
    };
    if number == 0.0 {
        return "0".to_owned();
    }
    if !(1e-9..1e12).contains(&number) {
        return format!("{number:.2e}");
    }
    // A number that rounds up to the next power of ten has its digits.
    let magnitude = (number * 1.0005).log10().floor();
    let decimals = (2.0 - magnitude).max(0.0);
    format!("{number:.0$}", decimals as usize)
}

/// Suggests a quantity: one whose name has the same letters in another spelling, or contains the given
/// name.
pub(crate) fn likely(name: &str) -> String {
    let letters = |name: &str| -> String {
        let letters = name.chars().filter(char::is_ascii_alphanumeric);
        letters.map(|letter| letter.to_ascii_lowercase()).collect()
    };
    let wanted = letters(name);
    let mut all = Quantity::ALL.iter().map(|quantity| quantity.name);
    let found = all.find(|known| {
        let known = letters(known);
        known == wanted || (wanted.len() > 3 && known.contains(&wanted))
    });
    found.map_or_else(String::new, |found| format!("; did you mean `{found}`?"))
}

/// Parses an RFC 3339 time, or a date, which means its midnight in UTC.
pub(crate) fn timestamp(text: &str) -> Option<Timestamp> {
    let time = match text.parse::<civil::Date>() {
        // Parsing a time as a date would ignore the time.
        Ok(date) if !text.contains(':') => TimeZone::UTC.to_timestamp(date.at(0, 0, 0, 0)).ok()?,
        _ => text.parse().ok()?,
    };
    let millis = u64::try_from(time.as_millisecond()).ok()?;
    Some(Timestamp::from_millis(millis))
}

/// Formats a time as RFC 3339 in UTC, to the second.
pub(crate) fn rfc3339(time: Timestamp) -> String {
    let seconds = i64::try_from(time.as_millis() / 1_000).ok();
    let time = seconds.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok());
    time.map_or_else(|| "an unknown time".to_owned(), |time| time.to_string())
}

/// Formats a duration in its two largest units: `3 d 4 h`, `1 min 5 s`, `0.51 s`.
pub(crate) fn duration(duration: Duration) -> String {
    const UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1)];

    let seconds = duration.as_secs();
    let Some(largest) = UNITS.iter().position(|(_, unit)| seconds >= *unit) else {
        return format!("{} s", three_digits(Some(duration.as_secs_f64())));
    };
    let (name, unit) = UNITS[largest];
    match UNITS.get(largest + 1) {
        Some((next, of_next)) => {
            format!(
                "{} {name} {} {next}",
                seconds / unit,
                seconds % unit / of_next
            )
        }
        None => format!("{} s", three_digits(Some(duration.as_secs_f64()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_any_size_have_three_digits() {
        for (number, shown) in [
            (0.0, "0"),
            (1e-12, "1.00e-12"),
            (0.000_000_123_4, "0.000000123"),
            (0.000_061_2, "0.0000612"),
            (0.000_999_9, "0.00100"),
            (0.5, "0.500"),
            (9.996, "10.0"),
            (123.4, "123"),
            (123_456.7, "123457"),
            (1e12, "1.00e12"),
        ] {
            assert_eq!(three_digits(Some(number)), shown, "{number}");
        }
        assert_eq!(three_digits(None), "-");
    }
}
