//! Settings: the configuration that runs are made from, and what the runs of one `L0` share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::monitor::Monitoring;
use crate::observe::Interceptor;
use crate::retry::Retry;
use crate::timeout::Timeouts;

/// What the runs of one `L0` share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    /// How many runs were started: with the seed, it fixes each run's randomness.
    runs: AtomicU64,
    /// Panics of observers that were contained.
    pub(crate) panics: Arc<AtomicU64>,
}

impl Shared {
    /// The number, from 1, of the next run.
    pub(crate) fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The randomness of a run.
pub(crate) fn randomness(seed: Option<u64>, number: u64) -> fastrand::Rng {
    match seed {
        // Spreads consecutive numbers over the generator's states.
        Some(seed) => {
            fastrand::Rng::with_seed(seed.wrapping_add(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
        }
        None => fastrand::Rng::new(),
    }
}

/// How runs are made: an `L0`'s configuration, or that of one run that differs.
#[derive(Clone)]
pub(crate) struct Settings {
    /// `None` if not set: on if an interceptor needs it.
    pub(crate) monitoring: Option<Monitoring>,
    pub(crate) retry: Retry,
    pub(crate) timeouts: Timeouts,
    pub(crate) detect_zero_output: bool,
    pub(crate) interceptors: Vec<Arc<dyn Interceptor>>,
    pub(crate) seed: Option<u64>,
}

impl Settings {
    pub(crate) fn monitoring(&self) -> Monitoring {
        self.monitoring.clone().unwrap_or_else(|| {
            let needed = self.interceptors.iter().any(Interceptor::needs_telemetry);
            Monitoring::new().enabled(needed)
        })
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            monitoring: None,
            retry: Retry::new(),
            timeouts: Timeouts::new(),
            detect_zero_output: true,
            interceptors: Vec::new(),
            seed: None,
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("monitoring", &self.monitoring)
            .field("retry", &self.retry)
            .field("timeouts", &self.timeouts)
            .field("detect_zero_output", &self.detect_zero_output)
            .field("interceptors", &self.interceptors.len())
            .field("seed", &self.seed)
            .finish()
    }
}
