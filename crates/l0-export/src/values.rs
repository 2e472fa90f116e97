//! Values: the forms in which they leave, in whatever format.

use std::time::Duration;

use unicode_width::UnicodeWidthChar;

/// A duration in milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// Compact JSON.
#[cfg(any(feature = "csv", feature = "tracing"))]
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Nothing that a telemetry holds fails to serialize.
    serde_json::to_string(value).unwrap_or_default()
}

/// A text of unknown origin, fit for a terminal: what moves the cursor, or cannot be seen, is
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
