//! The interceptor that adds an observer to every run.

use std::sync::Arc;

use l0_core::{Interceptor, Observers, RunInfo};

use crate::run::{Destination, ObservedRun};

/// An [`Interceptor`] that sends every run to OpenTelemetry. Clones share everything.
///
/// Use one interceptor per application. A run with two of them is counted twice.
#[derive(Debug, Clone)]
pub struct OtelInterceptor(Arc<Destination>);

impl OtelInterceptor {
    pub(crate) fn new(destination: Destination) -> Self {
        Self(Arc::new(destination))
    }
}

impl Default for OtelInterceptor {
    /// Creates an interceptor that sends metrics and spans through the global providers.
    fn default() -> Self {
        Self::builder().build()
    }
}

impl Interceptor for OtelInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(ObservedRun::start(Arc::clone(&self.0), run));
    }

    fn needs_telemetry(&self) -> bool {
        true
    }

    fn needs_input(&self) -> bool {
        self.0.content.is_some()
    }
}
