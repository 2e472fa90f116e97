//! Retry and Backoff: whether a failed attempt is tried again, and after which delay. It decides;
//! it does not sleep.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::event::{RetryKind, RetryReason};
use crate::failure::{Failure, FailureKind};

/// How often a failed attempt is tried again, and after which delays.
///
/// Counts are of retries, not of attempts: with 2 model retries up to 3 attempts are made.
///
/// ```
/// use std::time::Duration;
/// use l0_core::{Backoff, Retry};
///
/// let retry = Retry::new()
///     .model_retries(1)
///     .max_retries(4)
///     .backoff(Backoff::exponential(Duration::from_millis(200), Duration::from_secs(5)));
/// # drop(retry);
/// ```
#[derive(Clone)]
#[non_exhaustive]
#[must_use]
pub struct Retry {
    model_retries: u32,
    max_retries: Option<u32>,
    backoff: Backoff,
    max_retry_after: Duration,
    decide: Option<Decide>,
    budget: Option<RetryBudget>,
}

type Decide = Arc<dyn Fn(&RetryContext<'_>) -> Option<Duration> + Send + Sync>;

impl Retry {
    /// Creates the default: 2 model retries, 6 retries in all, [`Backoff::default`], and at most 60 s of `Retry-After`.
    pub fn new() -> Self {
        Self {
            model_retries: 2,
            max_retries: Some(6),
            backoff: Backoff::default(),
            max_retry_after: Duration::from_secs(60),
            decide: None,
            budget: None,
        }
    }

    /// Creates a policy without retries.
    pub fn none() -> Self {
        Self::new().max_retries(0)
    }

    /// Sets how many retries the model's faulty answers may cause. Default: 2. Network errors, rate
    /// limits and server errors do not count toward it.
    pub fn model_retries(mut self, retries: u32) -> Self {
        self.model_retries = retries;
        self
    }

    /// Sets how many retries of any kind there may be. Default: 6.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// Lifts the limit of [`max_retries`](Self::max_retries). The model retries stay limited.
    pub fn unlimited(mut self) -> Self {
        self.max_retries = None;
        self
    }

    /// Sets the delays. Default [`Backoff::default`]. A delay needs the timer of the Tokio runtime that polls
    /// the run, else the run fails with [`Error::NoTimer`](crate::Error::NoTimer).
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the longest `Retry-After` to wait for. Default: 60 s. If a server asks for more, the run
    /// fails at once. The wait is up to a tenth longer than what the server asked for, or up to 50 ms
    /// if that is more, so that not all clients come back at the same time.
    pub fn max_retry_after(mut self, limit: Duration) -> Self {
        self.max_retry_after = limit;
        self
    }

    /// Asks `decide` about every retry that is about to happen: it gives the delay, which
    /// [`RetryContext::delay`] proposes, or `None` for no retry. It is not asked about failures
    /// that are not retried anyway. A [`budget`](Self::budget) is asked after it. Called inside the
    /// run's poll: it must not block.
    pub fn decide(
        mut self,
        decide: impl Fn(&RetryContext<'_>) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.decide = Some(Arc::new(decide));
        self
    }

    /// Limits the retries of all runs together. Default: no such limit. Whoever is given a clone of the
    /// same budget shares it: an `L0`, its clones and its variants, unless another `Retry` replaces this
    /// one.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// A run has begun its first attempt.
    pub(crate) fn count_run(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Returns whether a retry that is to happen now can be paid for, and pays for it.
    pub(crate) fn affordable(&self) -> bool {
        self.budget.as_ref().is_none_or(RetryBudget::withdraw)
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Retry")
            .field("model_retries", &self.model_retries)
            .field("max_retries", &self.max_retries)
            .field("backoff", &self.backoff)
            .field("max_retry_after", &self.max_retry_after)
            .field("decide", &self.decide.is_some())
            .field("budget", &self.budget)
            .finish()
    }
}

/// How many retries all runs that share it may make: a share of the runs, and a few besides.
///
/// Without one, each run against a provider that is down calls it as often as its own limits allow,
/// which keeps down what would come up again. With one, the retries of about the last ten seconds are
/// at most a share of the runs that began in them, and what [`min_per_second`](Self::min_per_second)
/// adds. Where nothing is left, a run ends with the failure that it would have retried.
///
/// Clones share one budget: make it once.
///
/// ```
/// use l0_core::{L0, Retry, RetryBudget};
///
/// let budget = RetryBudget::share(0.2); // one retry for five runs
/// let l0 = L0::builder().retry(Retry::new().budget(budget.clone())).build();
/// println!("retries refused: {}", budget.refused());
/// # drop(l0);
/// ```
#[derive(Clone)]
#[must_use]
pub struct RetryBudget {
    share: f64,
    min_per_second: f64,
    /// What clones share.
    account: Arc<Account>,
}

struct Account {
    balance: Mutex<Balance>,
    refused: AtomicU64,
}

/// How many retries can be paid for, at a time.
struct Balance {
    retries: f64,
    at: Instant,
}

impl RetryBudget {
    /// For how many seconds the balance remembers: what is above or below the minimum is a third of it
    /// after that time, and next to nothing after four times as much.
    const MEMORY: f64 = 10.0;

    /// Creates a budget of this share of the runs: 0.2 is one retry for every five of them. A negative
    /// share, or NaN, counts as 0. On top of it comes one retry a second: see
    /// [`min_per_second`](Self::min_per_second).
    pub fn share(share: f64) -> Self {
        Self::new(share.max(0.0).min(f64::from(u32::MAX)), 1.0)
    }

    /// Sets how many retries a second there may be however few runs there are. Default: 1. What is not
    /// used adds up to those of ten seconds. This makes a new budget: call it before the first clone.
    pub fn min_per_second(self, retries: u32) -> Self {
        Self::new(self.share, f64::from(retries))
    }

    fn new(share: f64, min_per_second: f64) -> Self {
        Self {
            share,
            min_per_second,
            account: Arc::new(Account {
                balance: Mutex::new(Balance {
                    retries: min_per_second * Self::MEMORY,
                    at: clock::now(),
                }),
                refused: AtomicU64::new(0),
            }),
        }
    }

    /// Returns how many retries were refused so far, because nothing was left.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.account.refused.load(Ordering::Relaxed)
    }

    /// A run has begun.
    fn deposit(&self) {
        self.balance().retries += self.share;
    }

    /// Takes one retry out, if there is one.
    fn withdraw(&self) -> bool {
        let mut balance = self.balance();
        let is_there = balance.retries >= 1.0;
        if is_there {
            balance.retries -= 1.0;
        } else {
            self.account.refused.fetch_add(1, Ordering::Relaxed);
        }
        is_there
    }

    /// Returns the balance as it is now: it tends to what the minimum adds up to.
    fn balance(&self) -> MutexGuard<'_, Balance> {
        let balance = self.account.balance.lock();
        let mut balance = balance.unwrap_or_else(PoisonError::into_inner);
        let now = clock::now();
        let passed = now.saturating_duration_since(balance.at).as_secs_f64();
        let tends_to = self.min_per_second * Self::MEMORY;
        let remembered = (-passed / Self::MEMORY).exp();
        balance.retries = tends_to + (balance.retries - tends_to) * remembered;
        balance.at = now;
        balance
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("share", &self.share)
            .field("min_per_second", &self.min_per_second)
            .field("refused", &self.refused())
            .finish_non_exhaustive()
    }
}

/// A retry that is about to happen, as [`Retry::decide`] sees it.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RetryContext<'a> {
    /// The attempt that failed, from 1.
    pub attempt: u32,
    /// Why it failed.
    pub reason: RetryReason,
    /// Whether the retry counts toward the model retries.
    pub kind: RetryKind,
    /// What was read from the error.
    pub failure: Failure,
    /// The error itself.
    pub error: &'a (dyn StdError + 'static),
    /// The delay by the back-off and the server's `Retry-After`.
    pub delay: Duration,
}

/// Without the error, which may hold a prompt or a key.
impl fmt::Debug for RetryContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryContext")
            .field("attempt", &self.attempt)
            .field("reason", &self.reason)
            .field("kind", &self.kind)
            .field("failure", &self.failure)
            .field("delay", &self.delay)
            .finish_non_exhaustive()
    }
}

/// The delays between attempts. They grow with the retries of the same kind, network or model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Backoff {
    shape: Shape,
    base: Duration,
    cap: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    Fixed,
    Exponential,
    FullJitter,
    FixedJitter,
}

impl Backoff {
    const fn new(shape: Shape, base: Duration, cap: Duration) -> Self {
        Self { shape, base, cap }
    }

    /// Creates a back-off without delay: the only back-off that needs no Tokio timer.
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// Waits this long, always.
    pub const fn fixed(delay: Duration) -> Self {
        Self::new(Shape::Fixed, delay, delay)
    }

    /// Waits for `base`, then twice as long each time, at most `cap`.
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self::new(Shape::Exponential, base, cap)
    }

    /// Waits for a random time between 0 and the exponential delay.
    pub const fn full_jitter(base: Duration, cap: Duration) -> Self {
        Self::new(Shape::FullJitter, base, cap)
    }

    /// Waits for a random time between `base` and one and a half times `base`, at most `cap`.
    pub const fn fixed_jitter(base: Duration, cap: Duration) -> Self {
        Self::new(Shape::FixedJitter, base, cap)
    }

    /// The delay of the retry after `retries` others of its kind.
    fn delay(&self, retries: u32, rng: &mut fastrand::Rng) -> Duration {
        let exponential = || {
            let factor = 1_u32.checked_shl(retries).unwrap_or(u32::MAX);
            self.base.saturating_mul(factor).min(self.cap)
        };
        match self.shape {
            Shape::Fixed => self.base,
            Shape::Exponential => exponential(),
            Shape::FullJitter => exponential().mul_f64(rng.f64()),
            Shape::FixedJitter => {
                let jitter = self.base.min(self.cap).mul_f64(0.5 * rng.f64());
                self.base.saturating_add(jitter).min(self.cap)
            }
        }
    }
}

/// [`fixed_jitter`](Backoff::fixed_jitter) of 1 s, at most 10 s.
impl Default for Backoff {
    fn default() -> Self {
        Self::fixed_jitter(Duration::from_secs(1), Duration::from_secs(10))
    }
}

/// A year: the longest delay. What is beyond the clock's range is as good as that.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// What is waited on top of what a server asked for: between 0 and a tenth of it, or 50 ms if that
/// is more, so that all who were told the same do not come back at the same time. Nothing on top of
/// nothing: the back-off spreads those.
fn spread(asked: Duration, rng: &mut fastrand::Rng) -> Duration {
    if asked.is_zero() {
        return Duration::ZERO;
    }
    let most = (asked / 10).max(Duration::from_millis(50));
    most.mul_f64(rng.f64())
}

/// The retries of one run.
#[derive(Debug, Default)]
pub(crate) struct Retries {
    network: u32,
    model: u32,
}

/// A failed attempt, before it is known whether it is retried.
#[derive(Debug)]
pub(crate) struct Failed<'a> {
    pub(crate) attempt: u32,
    pub(crate) failure: Failure,
    pub(crate) reason: RetryReason,
    pub(crate) error: &'a (dyn StdError + 'static),
}

impl Retries {
    /// The kind and the delay of the retry, if there is to be one.
    pub(crate) fn plan(
        &self,
        config: &Retry,
        failed: &Failed<'_>,
        rng: &mut fastrand::Rng,
    ) -> Option<(RetryKind, Duration)> {
        let failure = failed.failure;
        let (kind, before) = match failure.kind {
            FailureKind::Network(kind) if !kind.is_retryable() => return None,
            FailureKind::Network(_) | FailureKind::RateLimited | FailureKind::Server => {
                (RetryKind::Network, self.network)
            }
            FailureKind::Model if self.model < config.model_retries => {
                (RetryKind::Model, self.model)
            }
            FailureKind::Model | FailureKind::Fatal => return None,
        };
        if config
            .max_retries
            .is_some_and(|max| self.network + self.model >= max)
        {
            return None;
        }
        let mut delay = config.backoff.delay(before, rng);
        if let Some(asked) = failure.retry_after {
            if asked > config.max_retry_after {
                return None;
            }
            delay = delay.max(asked.saturating_add(spread(asked, rng)));
        }
        if let Some(decide) = &config.decide {
            delay = decide(&RetryContext {
                attempt: failed.attempt,
                reason: failed.reason,
                kind,
                failure,
                error: failed.error,
                delay,
            })?;
        }
        Some((kind, delay.min(LONGEST)))
    }

    /// Counts a retry that will happen.
    pub(crate) fn count(&mut self, kind: RetryKind) {
        match kind {
            RetryKind::Network => self.network += 1,
            RetryKind::Model => self.model += 1,
        }
    }
}
