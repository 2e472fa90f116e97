//! Drift: whether an answer leaves the track while it streams.

use std::sync::Arc;

use crate::checks::{Detect, MakeDetector};
use crate::verdict::DriftReport;

/// Which kinds of drift are looked for, and how.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[must_use]
pub struct Drift {}

impl Drift {
    /// All kinds, with the default thresholds.
    pub fn new() -> Self {
        Self {}
    }
}

impl Default for Drift {
    fn default() -> Self {
        Self::new()
    }
}

impl Drift {
    pub(crate) fn into_make_detector(self) -> MakeDetector {
        Arc::new(move || Box::new(Detector::new(&self)))
    }
}

/// Looks for drift in one attempt.
#[derive(Debug)]
struct Detector {}

impl Detector {
    fn new(drift: &Drift) -> Self {
        let _ = drift;
        Self {}
    }
}

impl Detect for Detector {
    fn text(&mut self, delta: &str) -> Option<DriftReport> {
        let _ = delta;
        None
    }

    fn end(&mut self) -> Option<DriftReport> {
        None
    }
}
