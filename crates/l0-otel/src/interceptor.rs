//! Interceptor: has every run observed.

use std::sync::Arc;

use l0_core::{Interceptor, Observers, RunInfo};

use crate::run::{ObservedRun, Outlets};

/// Sends every run to OpenTelemetry: an [`Interceptor`]. Clones share everything.
///
/// One for an application: a run that goes through two of them counts twice.
#[derive(Debug, Clone)]
pub struct OtelInterceptor(Arc<Outlets>);

impl OtelInterceptor {
    pub(crate) fn new(outlets: Outlets) -> Self {
        Self(Arc::new(outlets))
    }
}

impl Default for OtelInterceptor {
    /// Metrics and spans, through the global providers.
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
}
