//! Options: the configuration of runs, and the setters that all builders share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::budget::Budget;
use crate::check::Checks;
use crate::estimate::{Estimate, Unfinished};
use crate::limits::Limits;
use crate::monitoring::Monitoring;
use crate::observe::Interceptor;
use crate::price::Pricing;
use crate::retry::Retry;
use crate::timeout::Timeouts;
use crate::usage::Usage;
use crate::verdict::{DriftReport, Violation};

/// The options of an `L0`, or of a run with its own options.
#[derive(Clone)]
pub(crate) struct Options {
    pub(crate) monitoring: Monitoring,
    /// `true` until monitoring is set: it is then on if an interceptor needs it.
    on_if_needed: bool,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    pub(crate) limits: Limits,
    pub(crate) budgets: Vec<Budget>,
    pub(crate) detect_zero_output: bool,
    pub(crate) guardrails: Checks<Violation>,
    pub(crate) drift: Checks<DriftReport>,
    pub(crate) interceptors: Vec<Arc<dyn Interceptor>>,
    pub(crate) pricing: Option<Arc<dyn Pricing>>,
    pub(crate) estimate_usage: Option<Arc<Estimate>>,
    pub(crate) seed: Option<Seed>,
}

impl Options {
    /// Decides if the next run is measured.
    pub(crate) fn draw(&self, rng: &mut fastrand::Rng) -> bool {
        let needs = || self.interceptors.iter().any(Interceptor::needs_telemetry);
        (!self.on_if_needed || needs()) && self.monitoring.draw(rng)
    }

    /// `true` if an interceptor reads the progress of live runs.
    pub(crate) fn needs_progress(&self) -> bool {
        self.interceptors.iter().any(Interceptor::needs_progress)
    }

    /// `true` if an interceptor sends the input, or usage is estimated from it.
    pub(crate) fn needs_input(&self) -> bool {
        self.estimate_usage.is_some() || self.interceptors.iter().any(Interceptor::needs_input)
    }
}

impl Default for Options {
    fn default() -> Self {
        Self {
            monitoring: Monitoring::new(),
            on_if_needed: true,
            retry: Retry::new(),
            timeouts: Timeouts::new(),
            limits: Limits::new(),
            budgets: Vec::new(),
            detect_zero_output: true,
            guardrails: Checks::none(),
            drift: Checks::none(),
            interceptors: Vec::new(),
            pricing: None,
            estimate_usage: None,
            seed: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("monitoring", &self.monitoring)
            .field("on_if_needed", &self.on_if_needed)
            .field("retry", &self.retry)
            .field("timeouts", &self.timeouts)
            .field("limits", &self.limits)
            .field("budgets", &self.budgets)
            .field("detect_zero_output", &self.detect_zero_output)
            .field("guardrails", &self.guardrails)
            .field("drift", &self.drift)
            .field("interceptors", &self.interceptors.len())
            .field("pricing", &self.pricing.is_some())
            .field("estimate_usage", &self.estimate_usage.is_some())
            .field("seed", &self.seed)
            .finish()
    }
}

/// A seed, and the number of runs that have drawn from it. Setting a seed starts the count at the
/// first run.
#[derive(Debug, Clone)]
pub(crate) struct Seed {
    seed: u64,
    runs: Arc<AtomicU64>,
}

impl Seed {
    fn new(seed: u64) -> Self {
        Self {
            seed,
            runs: Arc::default(),
        }
    }

    /// Returns the number of the next run, from 1, and its random number generator.
    pub(crate) fn next_run(&self) -> (u64, fastrand::Rng) {
        let number = self.runs.fetch_add(1, Ordering::Relaxed) + 1;
        // Spreads consecutive numbers over the generator's states.
        let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let rng = fastrand::Rng::with_seed(self.seed.wrapping_add(spread));
        (number, rng)
    }

    /// Returns the same seed with its count reset.
    pub(crate) fn restarted(&self) -> Self {
        Self::new(self.seed)
    }
}

/// Builds an [`L0`](crate::L0), a [`Run`](crate::Run), a [`Call`](crate::Call) or a
/// [`Watched`](crate::Watched) stream, depending on `K`.
///
/// On the builder of a run, the setters apply to this run only: [`interceptor`](Self::interceptor)
/// and `budget` add to those of the `L0`, the others replace them.
#[must_use = "a builder does nothing until it is built or started"]
pub struct Builder<K> {
    /// Shared with the `L0` until one is changed.
    pub(crate) options: Arc<Options>,
    pub(crate) kind: K,
}

/// The kinds of builders, public only because public signatures name them.
pub(crate) mod sealed {
    /// Marks what calls its source, and can call it again.
    pub trait CallsSource {}
}

impl<K> Builder<K> {
    pub(crate) fn set(mut self, set: impl FnOnce(&mut Options)) -> Self {
        set(Arc::make_mut(&mut self.options));
        self
    }

    /// Replaces what is built, and keeps the options.
    pub(crate) fn map<L>(self, map: impl FnOnce(K) -> L) -> Builder<L> {
        Builder {
            options: self.options,
            kind: map(self.kind),
        }
    }

    /// Sets what is measured. Default: nothing, unless an interceptor needs telemetry.
    pub fn monitoring(self, monitoring: Monitoring) -> Self {
        self.set(|options| {
            options.monitoring = monitoring;
            options.on_if_needed = false;
        })
    }

    /// Enables the detection of empty answers. An empty answer is an error, and is retried like
    /// other faults of the model. A watched stream is recorded as failed, but yields no error.
    /// Default: `true`.
    ///
    /// An answer is empty if it has no visible text, no media and no tool call, and its finish
    /// reason does not explain this: see [`Ended::is_empty`](crate::Ended::is_empty).
    pub fn detect_zero_output(self, detect: bool) -> Self {
        self.set(|options| options.detect_zero_output = detect)
    }

    /// Sets the rules that check answers: those of `l0-guardrails`, or [a closure](crate::Check)
    /// that creates one. Violations in a watched stream are only recorded. Default: none.
    pub fn guardrails(self, rules: impl Into<Checks>) -> Self {
        let rules = rules.into();
        self.set(|options| options.guardrails = rules)
    }

    /// Sets the drift detectors: those of `l0-guardrails`, or a closure that creates a
    /// [`Check<DriftReport>`](crate::Check). Default: none.
    pub fn drift(self, detectors: impl Into<Checks<DriftReport>>) -> Self {
        let detectors = detectors.into();
        self.set(|options| options.drift = detectors)
    }

    /// Adds an interceptor. Interceptors are called in the order in which they were added.
    pub fn interceptor(self, interceptor: impl Interceptor + 'static) -> Self {
        self.set(|options| options.interceptors.push(Arc::new(interceptor)))
    }

    /// Sets the prices of models, which turn the usage that sources report into a
    /// [cost](crate::AttemptStats::cost): the price list of `l0-pricing`, or your own.
    ///
    /// Each attempt of a measured run is priced when it ends, unless its source reported the cost
    /// itself. A panic in the pricing is contained, and the cost is then unknown. Default: none.
    pub fn pricing(self, pricing: impl Pricing + 'static) -> Self {
        self.set(|options| options.pricing = Some(Arc::new(pricing)))
    }

    /// Sets how to estimate the usage of attempts that ended early. A truncated, aborted or dropped
    /// answer is billed, but its provider does not report the usage. Default: no estimate.
    ///
    /// `estimate` is called once for each attempt of a measured run that yielded a token, did not
    /// complete and has no finish reason. It returns the attempt's total usage. The part that was
    /// not reported becomes [`estimated_usage`](crate::AttemptStats::estimated_usage), and is never
    /// added to the reported usage. A panic in `estimate` is contained, and nothing is estimated.
    /// If the run has a cost limit or a budget, `estimate` is also called with each token, measured
    /// or not.
    ///
    /// ```
    /// use l0_core::{L0, Monitoring, Unfinished, Usage};
    ///
    /// // Four characters are about one token of English.
    /// let l0 = L0::builder()
    ///     .monitoring(Monitoring::new())
    ///     .estimate_usage(|attempt: &Unfinished<'_>| {
    ///         Some(Usage::new().output(attempt.characters.div_ceil(4)))
    ///     })
    ///     .build();
    /// # drop(l0);
    /// ```
    pub fn estimate_usage(
        self,
        estimate: impl Fn(&Unfinished<'_>) -> Option<Usage> + Send + Sync + 'static,
    ) -> Self {
        self.set(|options| options.estimate_usage = Some(Arc::new(estimate)))
    }

    /// Makes sampling, jitter and session ids reproducible. The first, second, ... run of an `L0`
    /// draws the same values as that of any other `L0` with this seed; a run with its own seed is
    /// the first. A seeded session id contains the run's number in place of the time.
    pub fn seed(self, seed: u64) -> Self {
        self.set(|options| options.seed = Some(Seed::new(seed)))
    }
}

impl<K: sealed::CallsSource> Builder<K> {
    /// Sets how failed attempts are retried. Default: [`Retry::new`].
    pub fn retry(self, retry: Retry) -> Self {
        self.set(|options| options.retry = retry)
    }

    /// Sets how long to wait for the source. Default: indefinitely.
    pub fn timeouts(self, timeouts: Timeouts) -> Self {
        self.set(|options| options.timeouts = timeouts)
    }

    /// Sets how much a run can produce and cost. Default: unlimited.
    pub fn limits(self, limits: Limits) -> Self {
        self.set(|options| options.limits = limits)
    }

    /// Adds a budget that runs share. A run can have several, such as a user's and a tenant's: it
    /// ends when one of them is overspent.
    pub fn budget(self, budget: Budget) -> Self {
        self.set(|options| options.budgets.push(budget))
    }
}

impl<K: Clone> Clone for Builder<K> {
    fn clone(&self) -> Self {
        Self {
            options: Arc::clone(&self.options),
            kind: self.kind.clone(),
        }
    }
}

impl<K: Default> Default for Builder<K> {
    fn default() -> Self {
        Self {
            options: Arc::default(),
            kind: K::default(),
        }
    }
}

impl<K> fmt::Debug for Builder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
