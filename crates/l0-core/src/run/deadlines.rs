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
    /// The first item of an attempt.
    FirstItem,
    /// A further item.
    NextItem,
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
    /// When the attempt's first item is due.
    first_item: Option<Instant>,
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
            first_item: None,
            due: None,
        }
    }

    /// Whether there are any, so that somebody has to read the clock.
    pub(super) fn any(&self) -> bool {
        self.any
    }

    /// An attempt begins.
    pub(super) fn new_attempt(&mut self) {
        self.first_item = None;
    }

    /// A wait begins.
    pub(super) fn arm(&mut self, wait_for: WaitFor, now: Instant) {
        if !self.any {
            return;
        }
        self.since = Some(now);
        let timeouts = self.timeouts;
        // A deadline beyond the clock's range never comes.
        let of_item = match wait_for {
            WaitFor::FirstItem => {
                let due = || now.checked_add(timeouts.first_token?);
                self.first_item = self.first_item.or_else(due);
                self.first_item.map(|due| (due, TimeoutKind::FirstToken))
            }
            WaitFor::NextItem => timeouts
                .inter_token
                .and_then(|limit| now.checked_add(limit))
                .map(|due| (due, TimeoutKind::InterToken)),
            WaitFor::BackOff => None,
        };
        let of_run = timeouts
            .total
            .and_then(|limit| now.checked_add(limit.saturating_sub(self.waited)))
            .map(|due| (due, TimeoutKind::Total));
        self.due = match (of_item, of_run) {
            (Some(item), Some(run)) => Some(if run.0 <= item.0 { run } else { item }),
            (item, run) => item.or(run),
        };
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
        self.waited += now.saturating_duration_since(since);
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
