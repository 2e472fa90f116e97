//! Stalls: the thresholds at which a silent source counts as stalled.

use std::time::Duration;

/// Thresholds of silence: a run is stalled once its source has been silent for that long.
///
/// A run is not stalled while it waits for its consumer or backs off before a retry. Runs whose arrivals
/// are not timed are never stalled. Stalls only describe a run: [`Timeouts`](crate::Timeouts) end it.
///
/// ```
/// use std::time::Duration;
///
/// use l0_core::Stalls;
///
/// let stalls = Stalls::new().after(Duration::from_secs(5));
/// assert_eq!(stalls.first_token_after, Duration::from_secs(60));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Stalls {
    /// The threshold after the first token of an attempt.
    pub after: Duration,
    /// The threshold before the first token of an attempt.
    pub first_token_after: Duration,
}

impl Stalls {
    /// Creates thresholds of 10 s, and 60 s before the first token of an attempt.
    pub const fn new() -> Self {
        Self {
            after: Duration::from_secs(10),
            first_token_after: Duration::from_secs(60),
        }
    }

    /// Sets the threshold after the first token of an attempt. Default: 10 s.
    pub const fn after(mut self, silence: Duration) -> Self {
        self.after = silence;
        self
    }

    /// Sets the threshold before the first token of an attempt. Default: 60 s.
    pub const fn first_token_after(mut self, silence: Duration) -> Self {
        self.first_token_after = silence;
        self
    }
}

impl Default for Stalls {
    fn default() -> Self {
        Self::new()
    }
}
