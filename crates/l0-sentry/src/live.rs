//! The spans of live runs, used as parents for the spans of their child runs.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sentry_core::TransactionOrSpan;

/// The spans of live runs by run id. Accessed only when a run starts and ends.
#[derive(Default)]
pub(crate) struct LiveSpans(Mutex<HashMap<String, TransactionOrSpan>>);

impl LiveSpans {
    pub(crate) fn enter(&self, run: &str, span: &TransactionOrSpan) {
        self.lock().insert(run.to_owned(), span.clone());
    }

    pub(crate) fn leave(&self, run: &str) {
        self.lock().remove(run);
    }

    /// Returns the span of a run, or `None` if the run is not live.
    pub(crate) fn get(&self, run: &str) -> Option<TransactionOrSpan> {
        self.lock().get(run).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TransactionOrSpan>> {
        // A panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Omits the spans.
impl fmt::Debug for LiveSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSpans").finish_non_exhaustive()
    }
}
