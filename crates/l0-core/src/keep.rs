//! Keep: chooses which runs are exported individually, after they have ended.

use std::time::Duration;

use crate::label::{label_enum, read_back};

/// A choice of the runs that are exported individually, by exporters such as files, queues, Sentry
/// and spans. Aggregated numbers include all runs.
///
/// [`Monitoring::sample_rate`](crate::Monitoring::sample_rate) decides which runs are measured when
/// they start. `Keep` then chooses among all runs when they have ended, by their outcome.
///
/// ```
/// use std::time::Duration;
/// use l0_core::{Keep, L0, Monitoring};
///
/// let keep = Keep::rate(0.01) // one of a hundred, and also
///     .failures()
///     .retried()
///     .slower_than(Duration::from_secs(30));
/// let l0 = L0::builder().monitoring(Monitoring::new().keep(keep)).build();
/// # drop(l0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
#[must_use]
pub struct Keep {
    rate: f64,
    failures: bool,
    retried: bool,
    violated: bool,
    slower_than: Option<Duration>,
}

label_enum! {
    /// The reason why a run is exported individually. If several apply, the first in this order is
    /// used.
    pub enum KeepReason {
        /// It [failed](crate::Outcome::is_failure).
        Failed = "failed",
        /// It took longer than [`Keep::slower_than`].
        Slow = "slow",
        /// It had a violation, or drift.
        Violated = "violated",
        /// It made more than one attempt.
        Retried = "retried",
        /// It was selected by [`Keep::rate`], or all runs are kept.
        Rate = "rate",
    }
    only_read {
        /// Any other reason, in a record of another version.
        Other = "other"
    }
}

read_back!(KeepReason);

/// A run that has ended, as far as the choice needs it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct EndedRun {
    pub(crate) is_failure: bool,
    /// `None` if the run is not measured.
    pub(crate) duration: Option<Duration>,
    pub(crate) is_violated: bool,
    pub(crate) attempts: u32,
}

impl Keep {
    /// Creates the default: all runs are kept.
    pub const fn all() -> Self {
        Self::rate(1.0)
    }

    /// Keeps a share of the runs, decided once per run. It is clamped to 0..=1; NaN is 0.
    pub const fn rate(rate: f64) -> Self {
        // `clamp` lets NaN through.
        let rate = if rate >= 0.0 { rate.min(1.0) } else { 0.0 };
        Self {
            rate,
            failures: false,
            retried: false,
            violated: false,
            slower_than: None,
        }
    }

    /// Also keeps every run that [failed](crate::Outcome::is_failure).
    pub const fn failures(mut self) -> Self {
        self.failures = true;
        self
    }

    /// Also keeps every run with more than one attempt: with a retry or a fallback.
    pub const fn retried(mut self) -> Self {
        self.retried = true;
        self
    }

    /// Also keeps every run with a violation or drift.
    pub const fn violated(mut self) -> Self {
        self.violated = true;
        self
    }

    /// Also keeps every run that took longer. The duration of a run is known only if it is
    /// measured.
    pub const fn slower_than(mut self, limit: Duration) -> Self {
        self.slower_than = Some(limit);
        self
    }

    /// Decides if a run is kept, whatever its outcome.
    pub(crate) fn draw(self, rng: &mut fastrand::Rng) -> bool {
        // No random number is drawn for a rate of 0 or 1, so a seed produces the same values with
        // and without.
        self.rate >= 1.0 || self.rate > 0.0 && rng.f64() < self.rate
    }

    /// Returns why a run is kept, or `None` if it is not.
    pub(crate) fn reason(self, is_drawn: bool, run: EndedRun) -> Option<KeepReason> {
        let slow = self.slower_than.zip(run.duration);
        let reasons = [
            (self.failures && run.is_failure, KeepReason::Failed),
            (
                slow.is_some_and(|(limit, took)| took > limit),
                KeepReason::Slow,
            ),
            (self.violated && run.is_violated, KeepReason::Violated),
            (self.retried && run.attempts > 1, KeepReason::Retried),
            (is_drawn, KeepReason::Rate),
        ];
        let mut reasons = reasons.into_iter().filter(|(applies, _)| *applies);
        reasons.next().map(|(_, reason)| reason)
    }
}

impl Default for Keep {
    fn default() -> Self {
        Self::all()
    }
}
