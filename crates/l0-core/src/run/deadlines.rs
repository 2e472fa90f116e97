//! Deadlines: keeps a run's timeouts, with one timer that is not touched per token.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Instant;

use super::timer::{NoTimer, Timer};
use crate::clock;
use crate::end::TimeoutKind;
use crate::timeout::Timeouts;

/// What a run waits for.
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
    /// Whether there are any.
    any: bool,
    /// Set to some deadline of the past or the present wait. Resetting it per token would cost a
    /// lock of the runtime's timer wheel; instead it is set on when it fires too early.
    timer: Option<Timer>,
    /// Since when the run waits.
    since: Option<Instant>,
    /// How long it waited before.
    waited: Duration,
    /// How long it waited for the next token before. An item without a token ends a wait, and not
    /// this. It is stale if tokens came since: a token touches nothing here.
    waited_for_token: Duration,
    /// How many tokens the run had when the attempt began.
    tokens_before: u64,
    /// How many it had when the last wait began.
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

    /// Whether there are any, so that somebody has to read the clock.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// An attempt begins, of a run that had so many tokens.
    pub(super) fn new_attempt(&mut self, tokens: u64) {
        self.waited_for_token = Duration::ZERO;
        self.tokens_before = tokens;
        self.tokens = tokens;
    }

    /// Returns how long the run may still wait in all; absent without a limit. Asked between two
    /// waits.
    pub(super) fn left(&self) -> Option<Duration> {
        let limit = self.timeouts.total?;
        Some(limit.saturating_sub(self.waited))
    }

    /// A wait begins, in a run that had so many tokens so far.
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
                // Of two at the same time the first is told.
                if first.is_none_or(|(first, _)| left < first) {
                    first = Some((left, kind));
                }
            }
        }
        // A deadline beyond the clock's range never comes.
        self.due = first.and_then(|(left, kind)| Some((now.checked_add(left)?, kind)));
    }

    /// The wait is over. `now` is what the clock says, if it was read.
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

    /// The deadline that had passed when this wait began.
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
