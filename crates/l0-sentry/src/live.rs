//! Live: the spans of the runs that are live, below which the runs nest that serve them.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use sentry_core::TransactionOrSpan;

/// The spans of the live runs, by the runs' ids. Touched when a run starts and ends.
#[derive(Default)]
pub(crate) struct LiveSpans(Mutex<HashMap<String, TransactionOrSpan>>);

impl LiveSpans {
    pub(crate) fn enter(&self, run: &str, span: &TransactionOrSpan) {
        self.lock().insert(run.to_owned(), span.clone());
    }

    pub(crate) fn leave(&self, run: &str) {
        self.lock().remove(run);
    }

    /// Returns the span of a run; none if the run is not live.
    pub(crate) fn get(&self, run: &str) -> Option<TransactionOrSpan> {
        self.lock().get(run).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, TransactionOrSpan>> {
        // A change cannot be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Without what is in the spans.
impl fmt::Debug for LiveSpans {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LiveSpans").finish_non_exhaustive()
    }
}
