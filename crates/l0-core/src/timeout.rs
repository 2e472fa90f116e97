//! Timeouts: how long a run waits for its source.

use std::time::Duration;

/// How long a run waits. Absent timeouts never expire.
///
/// Timeouts measure waiting only: a clock runs while the source is pending, never while the
/// consumer holds the run up. A source that is never pending and gives nothing but items without a
/// token is waited for while it is polled. What a *token* is, [`TokenView`](crate::TokenView) says: roles, usage
/// reports, keep-alives and other items without a token end no wait but that of
/// [`idle`](Self::idle). So each of `first_token`, `inter_token` and `total` ends a source that
/// sends them for ever.
///
/// Timeouts need the timer of the Tokio runtime that polls the run, which may be another one each time.
/// Without one the run fails with [`Error::NoTimer`](crate::Error::NoTimer) when it has to wait. Like
/// all of a run, they act only while it is polled.
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

    /// Sets how long each attempt may wait for its first token, the factory's work included. Retried
    /// as a network error.
    pub const fn first_token(mut self, limit: Duration) -> Self {
        self.first_token = Some(limit);
        self
    }

    /// Sets how long the run may wait from one token to the next, and from the last token to the end
    /// of the source. It begins with the first token of each attempt. Retried as a network error.
    pub const fn inter_token(mut self, limit: Duration) -> Self {
        self.inter_token = Some(limit);
        self
    }

    /// Sets how long the run may wait for an item of any kind, with a token or without, the
    /// factory's work included. Retried as a network error.
    ///
    /// It finds a dead connection sooner than the other two where the source sends keep-alives as
    /// items. Bytes that make no item, such as the comments of server-sent events, do not count.
    pub const fn idle(mut self, limit: Duration) -> Self {
        self.idle = Some(limit);
        self
    }

    /// Sets how long each attempt of a call may wait for its answer. Retried as a network error. Runs of
    /// streams ignore it, as calls ignore [`first_token`](Self::first_token),
    /// [`inter_token`](Self::inter_token) and [`idle`](Self::idle).
    pub const fn answer(mut self, limit: Duration) -> Self {
        self.answer = Some(limit);
        self
    }

    /// Sets how long the whole run may wait, retries and back-off included. Not retried. A delay that
    /// does not fit into what is left is not waited for: the run ends at once, with the failure that
    /// would have been retried.
    pub const fn total(mut self, limit: Duration) -> Self {
        self.total = Some(limit);
        self
    }

    /// Those that hold for streams.
    pub(crate) const fn of_streams(mut self) -> Self {
        self.answer = None;
        self
    }

    /// Those that hold for calls.
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
