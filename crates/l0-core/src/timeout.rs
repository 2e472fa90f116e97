//! Timeouts: how long a run waits for its source.

use std::time::Duration;

/// How long a run waits. Absent timeouts never expire.
///
/// Timeouts measure waiting only: a clock runs while the source is pending, never while the
/// consumer holds the run up, and any item stops it. They need a Tokio runtime with its timer
/// enabled, else the run fails with [`Error::NoTimer`](crate::Error::NoTimer) when it first has to
/// wait. Like all of a run, they act only while it is polled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Timeouts {
    pub(crate) first_token: Option<Duration>,
    pub(crate) inter_token: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

impl Timeouts {
    /// Creates a set without timeouts.
    pub const fn new() -> Self {
        Self {
            first_token: None,
            inter_token: None,
            total: None,
        }
    }

    /// Sets how long each attempt may take until its first item, the factory's work included. Retried
    /// as a network error.
    pub const fn first_token(mut self, limit: Duration) -> Self {
        self.first_token = Some(limit);
        self
    }

    /// Sets how long the source may take from one item to the next. Retried as a network error.
    pub const fn inter_token(mut self, limit: Duration) -> Self {
        self.inter_token = Some(limit);
        self
    }

    /// Sets how long the whole run may wait, retries and back-off included. Not retried.
    pub const fn total(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    pub(crate) const fn any(&self) -> bool {
        self.first_token.is_some() || self.inter_token.is_some() || self.total.is_some()
    }
}
