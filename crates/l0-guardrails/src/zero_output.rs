//! The rule that there is an answer.

use l0_core::{Check, Ended, Findings, Severity, Violation};

const RULE: &str = "zero-output";

/// Checks that there is an answer, or a reason why there is none: see [`Ended::is_empty`].
///
/// Reports `zero-output` at the end, a recoverable [`Severity::Error`]. By itself, L0 asks again if
/// an answer is empty, and the run fails if all are; with this rule, telemetry counts each empty
/// answer as a violation too.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ZeroOutput {}

impl ZeroOutput {
    /// Creates the rule, for one attempt.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl Check for ZeroOutput {
    fn name(&self) -> &'static str {
        RULE
    }

    fn text(&mut self, _: &str, _: &mut Findings) {}

    fn end(&mut self, ended: &Ended, findings: &mut Findings) {
        if ended.is_empty() {
            let message = "The answer is empty";
            findings.report(Violation::new(RULE, Severity::Error, message));
        }
    }
}
