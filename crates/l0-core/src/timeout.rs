//! Timeouts: how long a run waits for its source.

use std::time::Duration;

/// Limits on how long a run waits. Absent timeouts never expire.
///
/// Timeouts measure waiting only: they run while the source is pending, and never while the run
/// waits for its consumer. A source that is never pending, but yields only items without a token,
/// counts as waited for while it is polled.
///
/// [`TokenView`](crate::TokenView) defines what a *token* is. Roles, usage reports, keep-alives and
/// other items without a token only end the wait of [`idle`](Self::idle). So each of `first_token`,
/// `inter_token` and `total` ends a source that sends such items forever.
///
/// Timeouts need the timer of the Tokio runtime that polls the run, which can change from poll to
/// poll. Without a timer, a run that has to wait fails with
/// [`Error::NoTimer`](crate::Error::NoTimer). Like everything in a run, timeouts act only while the
/// run is polled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
#[must_use]
pub struct Timeouts {
    pub(crate) first_token: Option<Duration>,
    pub(crate) inter_token: Option<Duration>,
    pub(crate) idle: Option<Duration>,
    pub(crate) answer: Option<Duration>,
    pub(crate) total: Option<Duration>,
}

impl Timeouts {
    /// Creates a set without timeouts.
    pub const fn new() -> Self {
        Self {
            first_token: None,
            inter_token: None,
            idle: None,
            answer: None,
            total: None,
        }
    }

    /// Sets how long each attempt can wait for its first token, including the time of the factory.
    /// Retried as a network error.
    pub const fn first_token(mut self, limit: Duration) -> Self {
        self.first_token = Some(limit);
        self
    }

    /// Sets how long the run can wait from one token to the next, and from the last token to the
    /// end of the source. It applies from the first token of each attempt on. Retried as a network
    /// error.
    pub const fn inter_token(mut self, limit: Duration) -> Self {
        self.inter_token = Some(limit);
        self
    }

    /// Sets how long the run can wait for an item of any kind, with or without a token, including
    /// the time of the factory. Retried as a network error.
    ///
    /// If the source sends keep-alives as items, this timeout detects a dead connection sooner than
    /// the other two. Bytes that yield no item, such as comments of server-sent events, do not
    /// count.
    pub const fn idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Sets how long each attempt of a call can wait for its answer. Retried as a network error.
    ///
    /// Streams ignore this timeout, and calls ignore [`first_token`](Self::first_token),
    /// [`inter_token`](Self::inter_token) and [`idle`](Self::idle).
    pub const fn answer(mut self, limit: Duration) -> Self {
        self.answer = Some(limit);
        self
    }

    /// Sets how long the whole run can wait, including retries and back-off. Not retried.
    ///
    /// If a delay would exceed the remaining time, or none remains, the run ends at once with the
    /// failure that would have been retried.
    pub const fn total(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Returns the timeouts that apply to streams.
    pub(crate) const fn of_streams(mut self) -> Self {
        self.answer = None;
        self
    }

    /// Returns the timeouts that apply to calls.
    pub(crate) const fn of_calls(self) -> Self {
        Self {
            answer: self.answer,
            total: self.total,
            ..Self::new()
        }
    }

    pub(crate) const fn any(&self) -> bool {
        self.first_token.is_some()
            || self.inter_token.is_some()
            || self.idle.is_some()
            || self.answer.is_some()
            || self.total.is_some()
    }
}
