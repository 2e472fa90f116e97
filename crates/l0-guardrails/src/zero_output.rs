//! The rule that an answer must not be empty.

use l0_core::{Check, Ended, Findings, Severity, Violation};

const RULE: &str = "zero-output";

/// Checks that the answer is not empty, unless there is a reason for it; see [`Ended::is_empty`].
///
/// Reports `zero-output` at the end, as a recoverable [`Severity::Error`]. L0 retries empty answers
/// even without this rule, and the run fails if all answers are empty. With this rule, telemetry also
/// counts each empty answer as a violation.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ZeroOutput {}

impl ZeroOutput {
    /// Creates the rule for one attempt.
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
