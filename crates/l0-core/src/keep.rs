//! Keep: which of the runs are told one by one, chosen when they have ended.

use std::time::Duration;

use crate::label::{label_enum, read_back};

/// Which runs are told one by one: by the exporters that send each of them, such as files, queues, Sentry
/// and spans. What is counted stays whole.
///
/// [`Monitoring::sample_rate`](crate::Monitoring::sample_rate) draws which runs are measured, when they
/// start; this chooses among all of them when they have ended, by what became of them.
///
/// ```
/// use std::time::Duration;
/// use l0_core::{Keep, L0, Monitoring};
///
/// let keep = Keep::rate(0.01) // one of a hundred, and besides
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
    /// Why a run is told by itself. Of several reasons, the first in this order counts.
    pub enum KeepReason {
        /// It [failed](crate::Outcome::is_failure).
        Failed = "failed",
        /// It took longer than [`Keep::slower_than`].
        Slow = "slow",
        /// A rule found a violation, or it drifted.
        Violated = "violated",
        /// It made more than one attempt.
        Retried = "retried",
        /// It was drawn, by [`Keep::rate`], or all are kept.
        Rate = "rate",
    }
    only_read {
        /// Any other: of a record of another version.
        Other = "other"
    }
}

read_back!(KeepReason);

/// What is known of a run that has ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Known {
    pub(crate) is_failure: bool,
    /// Absent in a run that is not measured.
    pub(crate) duration: Option<Duration>,
    pub(crate) is_violated: bool,
    pub(crate) attempts: u32,
}

impl Keep {
    /// Creates the default: all runs are kept.
    pub const fn all() -> Self {
        Self::rate(1.0)
    }

    /// Keeps this share of the runs, drawn once per run. It is clamped to 0..=1; NaN is 0.
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

    /// Keeps every run that [failed](crate::Outcome::is_failure), too.
    pub const fn failures(mut self) -> Self {
        self.failures = true;
        self
    }

    /// Keeps every run of more than one attempt, too: those with a retry or a fallback.
    pub const fn retried(mut self) -> Self {
        self.retried = true;
        self
    }

    /// Keeps every run in which a rule found a violation, or that drifted, too.
    pub const fn violated(mut self) -> Self {
        self.violated = true;
        self
    }

    /// Keeps every run that took longer, too. How long a run takes is known only if it is measured.
    pub const fn slower_than(mut self, limit: Duration) -> Self {
        self.slower_than = Some(limit);
        self
    }

    /// Draws whether a run is kept whatever becomes of it.
    pub(crate) fn draw(self, rng: &mut fastrand::Rng) -> bool {
        // Without a draw where there is nothing to draw, so that a seed gives the same with and without.
        self.rate >= 1.0 || self.rate > 0.0 && rng.f64() < self.rate
    }

    /// Returns why a run is kept, which was drawn or not; absent if it is not kept.
    pub(crate) fn reason(self, is_drawn: bool, known: Known) -> Option<KeepReason> {
        let slow = self.slower_than.zip(known.duration);
        let reasons = [
            (self.failures && known.is_failure, KeepReason::Failed),
            (
                slow.is_some_and(|(limit, took)| took > limit),
                KeepReason::Slow,
            ),
            (self.violated && known.is_violated, KeepReason::Violated),
            (self.retried && known.attempts > 1, KeepReason::Retried),
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
