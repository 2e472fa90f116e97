//! Live: the spans of the runs that are live, below which the runs nest that serve them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Span;

/// The spans of the live runs, by the runs' ids. Touched when a run starts and ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveSpans(Arc<Mutex<HashMap<String, Span>>>);

impl LiveSpans {
    pub(crate) fn enter(&self, run: &str, span: &Span) {
        self.lock().insert(run.to_owned(), span.clone());
    }

    pub(crate) fn leave(&self, run: &str) {
        let span = self.lock().remove(run);
        // A subscriber is foreign code, and closes it without the lock.
        drop(span);
    }

    /// Returns the span of a run; none if the run is not live.
    pub(crate) fn get(&self, run: &str) -> Option<Span> {
        self.lock().get(run).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Span>> {
        // A change cannot be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
