//! The spans of live runs, used as parents for the spans of their child runs.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tracing::Span;

/// The spans of live runs by run id. Accessed only when a run starts and ends.
#[derive(Debug, Clone, Default)]
pub(crate) struct LiveSpans(Arc<Mutex<HashMap<String, Span>>>);

impl LiveSpans {
    pub(crate) fn enter(&self, run: &str, span: &Span) {
        self.lock().insert(run.to_owned(), span.clone());
    }

    pub(crate) fn leave(&self, run: &str) {
        let span = self.lock().remove(run);
        // Dropped after the lock is released, because closing the span calls the subscriber.
        drop(span);
    }

    /// Returns the span of a run, or `None` if the run is not live.
    pub(crate) fn get(&self, run: &str) -> Option<Span> {
        self.lock().get(run).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Span>> {
        // A panic cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
