//! Delays that providers ask for, in any form.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Parses a non-negative number of seconds, with or without a fraction.
pub(crate) fn parse_seconds(text: &str) -> Option<Duration> {
    let seconds = text.trim().parse::<f64>().ok()?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// Parses a span: a number of seconds, or numbers with units, such as `6m0s`, `27.5s` and `20 ms`.
pub(crate) fn parse_span(text: &str) -> Option<Duration> {
    let text = text.trim();
    if let Some(wait) = parse_seconds(text) {
        return Some(wait);
    }
    match leading_span(text)? {
        (wait, "") => Some(wait),
        _ => None,
    }
}

/// Returns the span with units at the start of a text, and the rest of it.
fn leading_span(text: &str) -> Option<(Duration, &str)> {
    let mut rest = text;
    let mut sum: Option<Duration> = None;
    loop {
        let next = rest.trim_start_matches([' ', ',']);
        let next = match sum {
            Some(_) => next.strip_prefix("and ").unwrap_or(next),
            None => next,
        };
        let digits = next.find(|c: char| !c.is_ascii_digit() && c != '.');
        let (number, after) = next.split_at(digits.unwrap_or(next.len()));
        let after = after.trim_start_matches(' ');
        let letters = after.find(|c: char| !c.is_ascii_alphabetic());
        let (unit, after) = after.split_at(letters.unwrap_or(after.len()));
        let unit = match unit.to_ascii_lowercase().as_str() {
            "ms" | "msec" | "millis" | "millisecond" | "milliseconds" => 0.001,
            "s" | "sec" | "secs" | "second" | "seconds" => 1.0,
            "m" | "min" | "mins" | "minute" | "minutes" => 60.0,
            "h" | "hr" | "hrs" | "hour" | "hours" => 3600.0,
            "d" | "day" | "days" => 86400.0,
            _ => break,
        };
        // A full stop at the end of a sentence is not part of the number.
        let Ok(number) = number.trim_end_matches('.').parse::<f64>() else {
            break;
        };
        let wait = Duration::try_from_secs_f64(number * unit).ok()?;
        sum = Some(sum.unwrap_or_default().saturating_add(wait));
        rest = after;
    }
    sum.map(|sum| (sum, rest))
}

/// Parses the time at which a limit resets: a span, or a time in seconds or milliseconds since 1970 or as a date.
pub(crate) fn parse_reset(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    let until = if let Some(date) = parse_date(text) {
        date
    } else {
        let span = parse_span(text)?;
        match span.as_secs() {
            // Numbers up to 30 years are spans.
            0..1_000_000_000 => return Some(span),
            1_000_000_000..100_000_000_000 => UNIX_EPOCH.checked_add(span)?,
            _ => UNIX_EPOCH.checked_add(span / 1000)?,
        }
    };
    Some(until.duration_since(now).unwrap_or_default())
}

/// Parses an RFC 3339 date, such as `2026-01-01T00:00:30.5Z` or `...+02:00`.
fn parse_date(text: &str) -> Option<SystemTime> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let bytes = text.as_bytes();
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
    if year < 1970 || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970, counted with years that begin in March.
    let (shifted, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let leap_days = shifted / 4 - shifted / 100 + shifted / 400;
    let days = (365 * shifted + leap_days + (153 * month + 2) / 5 + day).checked_sub(719_469)?;
    let seconds = days * 86400 + hour * 3600 + minute * 60 + second;
    let rest = text.get(19..)?;
    let digits = rest.strip_prefix('.').unwrap_or_default();
    let digits = digits
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(digits.len());
    let fraction = match digits {
        0 => 0.0,
        count => rest.get(..=count)?.parse::<f64>().ok()?,
    };
    let zone = rest.get(if digits == 0 { 0 } else { digits + 1 }..)?;
    let offset = || {
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        Some(hours.parse::<u64>().ok()?.min(24) * 3600 + minutes.parse::<u64>().ok()?.min(60) * 60)
    };
    let seconds = match zone.as_bytes().first() {
        None | Some(b'Z' | b'z') => seconds,
        Some(b'+') => seconds.checked_sub(offset()?)?,
        Some(b'-') => seconds + offset()?,
        Some(_) => return None,
    };
    UNIX_EPOCH
        .checked_add(Duration::from_secs(seconds).saturating_add(Duration::from_secs_f64(fraction)))
}

/// Phrases before a delay in the messages of providers.
const BEFORE: [&str; 10] = [
    "try again in ",
    "try again after ",
    "retry in ",
    "retry after ",
    "retry again in ",
    "please wait ",
    "reset in ",
    "resets in ",
    "reset after ",
    "available in ",
];

/// Returns the delay in a provider's message: `Please try again in 6.379s`.
pub(crate) fn in_message(message: &str) -> Option<Duration> {
    let end = message
        .char_indices()
        .nth(1000)
        .map_or(message.len(), |(at, _)| at);
    let message = message[..end].to_ascii_lowercase();
    BEFORE.iter().find_map(|before| {
        let rest = &message[message.find(before)? + before.len()..];
        let rest = rest
            .trim_start_matches("about ")
            .trim_start_matches("at least ");
        if let Some((wait, _)) = leading_span(rest) {
            return Some(wait);
        }
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.');
        parse_seconds(rest[..digits.unwrap_or(rest.len())].trim_end_matches('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_dates_and_messages() {
        let now = UNIX_EPOCH + Duration::from_secs(1_767_225_600);
        let reset = |text| parse_reset(text, now).map(|wait| wait.as_millis());
        for (text, millis) in [
            ("30", Some(30_000)),
            ("0.5", Some(500)),
            ("6m0s", Some(360_000)),
            ("20ms", Some(20)),
            ("1h2m3.5s", Some(3_723_500)),
            ("1 minute and 5 seconds", Some(65_000)),
            ("1767225630", Some(30_000)),
            ("1767225630500", Some(30_500)),
            ("1767225000", Some(0)),
            ("2026-01-01T00:00:30Z", Some(30_000)),
            ("2026-01-01T00:00:30.25Z", Some(30_250)),
            ("2026-01-01T02:00:30+02:00", Some(30_000)),
            ("2025-12-31T23:00:30-01:00", Some(30_000)),
            ("2028-03-01T00:00:00Z", Some(68_256_000_000)),
            ("2025-01-01T00:00:00Z", Some(0)),
            ("2026-13-01T00:00:30Z", None),
            ("soon", None),
            ("-1", None),
            ("1e300", None),
            ("NaN", None),
            ("5 apples", None),
            ("", None),
        ] {
            assert_eq!(reset(text), millis, "{text}");
        }
        let message = |text| in_message(text).map(|wait| wait.as_millis());
        for (text, millis) in [
            (
                "Limit 100, used 99. Please try again in 6.379s. Visit us",
                Some(6379),
            ),
            ("please TRY AGAIN in 250ms", Some(250)),
            ("Try again in 1m30s.", Some(90_000)),
            ("Retry after 20 seconds, please", Some(20_000)),
            ("retry after 20.", Some(20_000)),
            ("Please wait 3 minutes and 5 seconds", Some(185_000)),
            ("try again in a while", None),
            ("no 6s here", None),
        ] {
            assert_eq!(message(text), millis, "{text}");
        }
    }
}
