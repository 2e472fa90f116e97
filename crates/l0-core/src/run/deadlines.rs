//! Deadlines: the timeouts of a run, with one timer that no token touches.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::timer::{NoTimer, Timer};
use crate::clock;
use crate::end::TimeoutKind;
use crate::timeout::Timeouts;

/// The reason for a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WaitFor {
    /// The source.
    Source,
    /// The end of a back-off.
    BackOff,
}

#[derive(Debug)]
pub(super) struct Deadlines {
    timeouts: Timeouts,
    /// `true` if any timeout is set.
    any: bool,
    /// Set to a deadline of a past or the current wait. Resetting it per token would lock the
    /// runtime's timer wheel each time. Instead it is reset when it fires too early.
    timer: Option<Timer>,
    /// The start of the current wait.
    since: Option<Instant>,
    /// The total of earlier waits.
    waited: Duration,
    /// The total of earlier waits for the next token. An item without a token ends a wait, but not
    /// this one. Stale if tokens came since, because recording a token does not write here.
    waited_for_token: Duration,
    /// The number of the run's tokens when the attempt began.
    tokens_before: u64,
    /// The number of the run's tokens when the last wait began.
    tokens: u64,
    /// The earliest deadline of this wait.
    due: Option<(Instant, TimeoutKind)>,
}

impl Deadlines {
    pub(super) fn new(timeouts: Timeouts) -> Self {
        Self {
            timeouts,
            any: timeouts.any(),
            timer: None,
            since: None,
            waited: Duration::ZERO,
            waited_for_token: Duration::ZERO,
            tokens_before: 0,
            tokens: 0,
            due: None,
        }
    }

    /// Returns `true` if any timeout is set, so the clock must be read.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// Begins an attempt. `tokens` is the number of the run's tokens so far.
    pub(super) fn new_attempt(&mut self, tokens: u64) {
        self.waited_for_token = Duration::ZERO;
        self.tokens_before = tokens;
        self.tokens = tokens;
    }

    /// Returns how long the whole run may still wait, or `None` without a limit. Called between two
    /// waits.
    pub(super) fn left(&self) -> Option<Duration> {
        let limit = self.timeouts.total?;
        Some(limit.saturating_sub(self.waited))
    }

    /// Begins a wait. `tokens` is the number of the run's tokens so far.
    pub(super) fn arm(&mut self, wait_for: WaitFor, tokens: u64, now: Instant) {
        if !self.any {
            return;
        }
        self.since = Some(now);
        if std::mem::replace(&mut self.tokens, tokens) != tokens {
            self.waited_for_token = Duration::ZERO;
        }
        let timeouts = self.timeouts;
        let mut first = self.left().map(|left| (left, TimeoutKind::Total));
        if wait_for == WaitFor::Source {
            let (limit, kind) = if tokens == self.tokens_before {
                (timeouts.first_token, TimeoutKind::FirstToken)
            } else {
                (timeouts.inter_token, TimeoutKind::InterToken)
            };
            let left = limit.map(|limit| limit.saturating_sub(self.waited_for_token));
            // A call has no tokens.
            let answer = timeouts.answer;
            let answer = answer.map(|limit| limit.saturating_sub(self.waited_for_token));
            for (left, kind) in [
                (left, kind),
                (timeouts.idle, TimeoutKind::Idle),
                (answer, TimeoutKind::Answer),
            ] {
                let Some(left) = left else { continue };
                // The first of two equal deadlines is reported.
                if first.is_none_or(|(first, _)| left < first) {
                    first = Some((left, kind));
                }
            }
        }
        // A deadline beyond the clock's range never comes.
        self.due = first.and_then(|(left, kind)| Some((now.checked_add(left)?, kind)));
    }

    /// Ends the wait. `now` is the current time, if the clock was read.
    #[inline]
    pub(super) fn disarm(&mut self, now: Option<Instant>) {
        if let Some(since) = self.since {
            self.disarm_since(since, now);
        }
    }

    fn disarm_since(&mut self, since: Instant, now: Option<Instant>) {
        let now = now.unwrap_or_else(clock::now);
        let waited = now.saturating_duration_since(since);
        self.waited += waited;
        self.waited_for_token += waited;
        self.since = None;
        self.due = None;
    }

    /// Returns the deadline that had already passed when this wait began.
    pub(super) fn passed(&self) -> Option<TimeoutKind> {
        let (due, kind) = self.due?;
        (due <= self.since?).then_some(kind)
    }

    /// Ready if a deadline of this wait has passed.
    #[inline]
    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<TimeoutKind, NoTimer>> {
        match self.due {
            Some((due, kind)) => self.poll_until(due, kind, cx),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn poll_until(
        &mut self,
        due: Instant,
        kind: TimeoutKind,
        cx: &mut Context<'_>,
    ) -> Poll<Result<TimeoutKind, NoTimer>> {
        let timer = match &mut self.timer {
            Some(timer) => {
                if timer.deadline() > due {
                    timer.reset(due);
                }
                timer
            }
            none => none.insert(Timer::new(due)?),
        };
        loop {
            ready!(timer.poll(cx))?;
            if timer.deadline() >= due {
                return Poll::Ready(Ok(kind));
            }
            timer.reset(due);
        }
    }
}
