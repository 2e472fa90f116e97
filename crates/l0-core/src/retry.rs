//! Retry and Backoff: decide if and when a failed attempt is retried. They do not sleep.

use std::error::Error as StdError;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::event::{RetryKind, RetryReason};
use crate::failure::{Failure, FailureKind};

/// A policy for retries: which failed attempts are retried, how often, and after which delays.
///
/// Counts are of retries, not of attempts: 2 model retries allow up to 3 attempts.
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
    /// Creates the default: 2 model retries, 6 retries in total, [`Backoff::default`], and a
    /// `Retry-After` of at most 60 s.
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

    /// Sets the maximum number of retries after faulty answers of the model. Default: 2. Network
    /// errors, rate limits and server errors do not count toward it.
    pub fn model_retries(mut self, retries: u32) -> Self {
        self.model_retries = retries;
        self
    }

    /// Sets the maximum number of retries of any kind. Default: 6.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// Removes the limit of [`max_retries`](Self::max_retries). Model retries remain limited.
    pub fn unlimited(mut self) -> Self {
        self.max_retries = None;
        self
    }

    /// Sets the delays. Default: [`Backoff::default`].
    ///
    /// A delay needs the timer of the Tokio runtime that polls the run. Without one the run fails
    /// with [`Error::NoTimer`](crate::Error::NoTimer).
    pub fn backoff(mut self, backoff: Backoff) -> Self {
        self.backoff = backoff;
        self
    }

    /// Sets the longest `Retry-After` to wait for. Default: 60 s. If a server requests a longer
    /// wait, the run fails at once.
    ///
    /// The wait is up to 10 % or 50 ms longer than requested, whichever is more, so not all clients
    /// come back at the same time.
    pub fn max_retry_after(mut self, limit: Duration) -> Self {
        self.max_retry_after = limit;
        self
    }

    /// Sets a function that decides on each retry. It returns the delay, for which
    /// [`RetryContext::delay`] is the proposal, or `None` to not retry.
    ///
    /// `decide` is not called for failures that are not retried anyway. A [`budget`](Self::budget)
    /// is checked after it. It is called inside the run's poll, so it must not block.
    pub fn decide(
        mut self,
        decide: impl Fn(&RetryContext<'_>) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.decide = Some(Arc::new(decide));
        self
    }

    /// Limits the retries of all runs that share the budget. Default: no such limit.
    ///
    /// Clones of a budget are shared: by an `L0`, its clones and its variants, unless another
    /// `Retry` replaces this one, and by any other policy that you give a clone to.
    pub fn budget(mut self, budget: RetryBudget) -> Self {
        self.budget = Some(budget);
        self
    }

    /// Counts a run that has begun its first attempt.
    pub(crate) fn count_run(&self) {
        if let Some(budget) = &self.budget {
            budget.deposit();
        }
    }

    /// Withdraws a retry from the budget. Returns `true` if the retry can happen.
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

/// A budget of retries, shared by many runs: a share of the number of runs, plus a minimum per
/// second.
///
/// Without a budget, each run calls a failing provider as often as its own limits allow, which can
/// keep the provider down. With a budget, the retries of about the last ten seconds are at most a
/// share of the runs that began in this time, plus [`min_per_second`](Self::min_per_second) for each
/// second. Once the budget is empty, a run ends with the failure that it would have retried.
///
/// Clones share one budget: create it once.
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
    /// Shared by clones.
    account: Arc<Account>,
}

struct Account {
    balance: Mutex<Balance>,
    refused: AtomicU64,
}

/// The number of available retries, at a given time.
struct Balance {
    retries: f64,
    at: Instant,
}

impl RetryBudget {
    /// The memory of the balance, in seconds. A deviation from the minimum falls to about a third
    /// after this time, and to almost zero after four times as much.
    const MEMORY: f64 = 10.0;

    /// Creates a budget of a share of the runs: 0.2 is one retry for every five runs. A negative
    /// share or NaN counts as 0. One retry per second is added: see
    /// [`min_per_second`](Self::min_per_second).
    pub fn share(share: f64) -> Self {
        Self::new(share.max(0.0).min(f64::from(u32::MAX)), 1.0)
    }

    /// Sets the minimum number of retries per second, however few runs there are. Default: 1.
    /// Unused retries accumulate for up to ten seconds. This creates a new budget: call it before
    /// the first clone.
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

    /// Returns the number of retries refused so far because the budget was empty.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.account.refused.load(Ordering::Relaxed)
    }

    /// Adds the share of a run that has begun.
    fn deposit(&self) {
        self.balance().retries += self.share;
    }

    /// Withdraws one retry, if available.
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

    /// Returns the current balance, which tends to the accumulated minimum.
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

/// A retry that is about to happen, passed to [`Retry::decide`].
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct RetryContext<'a> {
    /// The attempt that failed, from 1.
    pub attempt: u32,
    /// Why it failed.
    pub reason: RetryReason,
    /// The kind of the retry: only model retries count toward the limit of model retries.
    pub kind: RetryKind,
    /// The classification of the error.
    pub failure: Failure,
    /// The error itself.
    pub error: &'a (dyn StdError + 'static),
    /// The proposed delay, from the back-off and the server's `Retry-After`.
    pub delay: Duration,
}

/// Omits the error, which can contain a prompt or a key.
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

/// The delays between attempts. Those of [`exponential`](Self::exponential) and
/// [`full_jitter`](Self::full_jitter) grow with the number of retries of the same kind, network or model.
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

    /// Creates a back-off without delay. It is the only one that needs no Tokio timer.
    pub const fn none() -> Self {
        Self::fixed(Duration::ZERO)
    }

    /// Creates a constant delay.
    pub const fn fixed(delay: Duration) -> Self {
        Self::new(Shape::Fixed, delay, delay)
    }

    /// Creates a delay of `base` that doubles each time, up to `cap`.
    pub const fn exponential(base: Duration, cap: Duration) -> Self {
        Self::new(Shape::Exponential, base, cap)
    }

    /// Creates a random delay between 0 and the exponential delay.
    pub const fn full_jitter(base: Duration, cap: Duration) -> Self {
        Self::new(Shape::FullJitter, base, cap)
    }

    /// Creates a random delay between `base` and 1.5 times `base`, up to `cap`.
    pub const fn fixed_jitter(base: Duration, cap: Duration) -> Self {
        Self::new(Shape::FixedJitter, base, cap)
    }

    /// Returns the delay of the retry after `retries` others of its kind.
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

/// A year: the longest delay. Longer delays are equivalent, and can exceed the clock's range.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// Returns the addition to a requested wait: between 0 and 10 % of it, or 50 ms if that is more, so
/// clients that received the same wait do not come back at the same time. A wait of 0 has no
/// addition, because the back-off spreads these retries.
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

/// A failed attempt, before the decision on a retry.
#[derive(Debug)]
pub(crate) struct Failed<'a> {
    pub(crate) attempt: u32,
    pub(crate) failure: Failure,
    pub(crate) reason: RetryReason,
    pub(crate) error: &'a (dyn StdError + 'static),
}

impl Retries {
    /// Returns the kind and the delay of the retry, or `None` if the attempt is not retried.
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
