//! Values, in the form that all formats share.

use std::time::Duration;

/// Converts a duration to milliseconds.
pub(crate) fn millis(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// Returns compact JSON.
#[cfg(any(feature = "csv", feature = "tracing"))]
pub(crate) fn json<T: serde::Serialize + ?Sized>(value: &T) -> String {
    // Every value of a telemetry serializes.
    serde_json::to_string(value).unwrap_or_default()
}
