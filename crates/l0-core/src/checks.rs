//! Checks: the guardrails and the drift detection of one attempt, and what follows from what they
//! find.

use std::borrow::Cow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::guardrail::{Guardrail, Guardrails, Violations};
use crate::recorder::Recorder;
use crate::verdict::{DriftReport, Severity, Violation};

/// Looks for drift in one attempt.
pub(crate) trait Detect: Send {
    /// A piece of the answer arrived; it is not empty. Gives the kinds of drift that were not
    /// found before in this attempt, if there are any.
    fn text(&mut self, delta: &str) -> Option<DriftReport>;

    /// The answer is complete. Gives the drift that it ends with, if there is any.
    fn end(&mut self) -> Option<DriftReport>;
}

pub(crate) type MakeDetector = Arc<dyn Fn() -> Box<dyn Detect> + Send + Sync>;

/// What is looked at in one attempt. Fresh for each.
pub(crate) struct Checks {
    rules: Vec<Box<dyn Guardrail>>,
    violations: Violations,
    guarded: bool,
    reports_zero_output: bool,
    detector: Option<Box<dyn Detect>>,
    /// The kinds of drift found so far.
    drifts: Vec<Cow<'static, str>>,
    /// Whether the recorder knows what is checked.
    announced: bool,
}

/// What the checks of a complete answer come to.
#[derive(Debug)]
pub(crate) enum Verdict {
    Pass,
    /// The run ends.
    Halt(Violation),
    /// A new attempt may do better.
    Violated(Violation),
    /// The answer drifted.
    Drifted(DriftReport),
}

impl Checks {
    /// The checks of a new attempt; `None` if there are none.
    pub(crate) fn new(guardrails: &Guardrails, drift: Option<&MakeDetector>) -> Option<Box<Self>> {
        let guarded = !guardrails.is_empty();
        (guarded || drift.is_some()).then(|| {
            Box::new(Self {
                rules: guardrails.make().collect(),
                violations: Violations::new(),
                guarded,
                reports_zero_output: guardrails.reports_zero_output(),
                detector: drift.map(|make| make()),
                drifts: Vec::new(),
                announced: false,
            })
        })
    }

    /// A piece of the answer arrived. Gives the violation that ends the run, if there is one.
    pub(crate) fn text(&mut self, delta: &str, recorder: &mut Recorder<'_>) -> Option<Violation> {
        self.announce(recorder);
        if let Some(report) = self
            .detector
            .as_mut()
            .and_then(|detector| detector.text(delta))
        {
            self.drifted(&report, recorder);
        }
        self.run_rules(|rule, violations| rule.text(delta, violations));
        if !self.violations.has_new() {
            return None;
        }
        recorder.violations(self.violations.take_new());
        self.violations.halting().cloned()
    }

    /// The answer is empty, as core's own detector found.
    pub(crate) fn zero_output(&mut self, recorder: &mut Recorder<'_>) {
        self.announce(recorder);
        if self.reports_zero_output {
            let message = "No meaningful output: no text with a letter or digit, and no tool call";
            let violation = Violation::new("zero-output", Severity::Error, message);
            self.violations.report(violation);
            recorder.violations(self.violations.take_new());
        }
    }

    /// The answer is complete.
    pub(crate) fn end(&mut self, recorder: &mut Recorder<'_>) -> Verdict {
        self.announce(recorder);
        let drifted = self.detector.as_mut().and_then(|detector| detector.end());
        if let Some(report) = &drifted {
            self.drifted(report, recorder);
        }
        self.run_rules(|rule, violations| rule.end(violations));
        recorder.violations(self.violations.take_new());
        if let Some(violation) = self.violations.halting() {
            Verdict::Halt(violation.clone())
        } else if let Some(violation) = self.violations.recoverable() {
            Verdict::Violated(violation.clone())
        } else {
            drifted.map_or(Verdict::Pass, Verdict::Drifted)
        }
    }

    /// Tells the recorder, once, what is checked: so that telemetry can say "none found".
    fn announce(&mut self, recorder: &mut Recorder<'_>) {
        if std::mem::replace(&mut self.announced, true) {
            return;
        }
        if self.guarded {
            recorder.violations(&[]);
        }
        if self.detector.is_some() {
            recorder.looked_for_drift();
        }
    }

    /// Tells the recorder of drift, each kind once.
    fn drifted(&mut self, report: &DriftReport, recorder: &mut Recorder<'_>) {
        let is_new = |kind: &&Cow<'static, str>| !self.drifts.contains(kind);
        let new: Vec<_> = report.types.iter().filter(is_new).cloned().collect();
        if !new.is_empty() {
            self.drifts.extend_from_slice(&new);
            recorder.drift(&DriftReport::detected(new, report.confidence));
        }
    }

    /// Calls every rule. One that panics becomes a warning, and is not called again.
    fn run_rules(&mut self, call: impl Fn(&mut dyn Guardrail, &mut Violations)) {
        let Self {
            rules, violations, ..
        } = self;
        let mut next = 0;
        while next < rules.len() {
            let run = catch_unwind(AssertUnwindSafe(|| {
                while let Some(rule) = rules.get_mut(next) {
                    call(&mut **rule, violations);
                    next += 1;
                }
            }));
            if run.is_err() {
                let rule = rules.remove(next);
                let message = "Rule execution failed: it panicked";
                violations.report(Violation::new(rule.name(), Severity::Warning, message));
            }
        }
    }
}
