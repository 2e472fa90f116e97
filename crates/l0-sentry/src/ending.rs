//! The outcome of an execution and its reason, from an `End` or from telemetry.

use std::borrow::Cow;

use l0_core::{Cause, End, NetworkErrorKind, Outcome, RetryReason, Telemetry, Violation};

/// The error type of an execution that a rule ended.
pub(crate) const GUARDRAIL: &str = RetryReason::GuardrailViolation.as_str();

/// The outcome of an execution, with its reason and its telemetry.
pub(crate) struct Ending<'a> {
    pub(crate) outcome: Outcome,
    /// The reason why it did not complete, if known.
    pub(crate) reason: Option<Reason<'a>>,
    pub(crate) telemetry: Option<&'a Telemetry>,
}

/// The reason why an execution did not complete.
pub(crate) struct Reason<'a> {
    /// The class of the error: see [`End::error_type`].
    pub(crate) error_type: Cow<'a, str>,
    /// The redacted message.
    pub(crate) message: Cow<'a, str>,
    /// The kind of network error, if it is one.
    pub(crate) network_error: Option<NetworkErrorKind>,
    /// The violation, if it is one. Absent if the reason comes from telemetry.
    pub(crate) violation: Option<&'a Violation>,
}

impl<'a> Ending<'a> {
    fn new(outcome: Outcome, reason: Option<Reason<'a>>) -> Self {
        Self {
            outcome,
            reason,
            telemetry: None,
        }
    }

    /// Creates an ending from an `End`.
    pub(crate) fn of(end: &'a End) -> Self {
        let reason = || {
            Some(Reason {
                error_type: end.error_type()?,
                message: end.message()?.into(),
                network_error: end.failure()?.network_error_kind(),
                violation: match end.cause()? {
                    Cause::Violation(violation) => Some(violation),
                    _ => None,
                },
            })
        };
        Self::new(end.outcome(), reason())
    }

    /// Creates an ending from telemetry. Returns `None` if it has no outcome or is completed.
    pub(crate) fn recorded(telemetry: Option<&'a Telemetry>) -> Option<Self> {
        let telemetry = telemetry?;
        let outcome = telemetry.outcome?;
        if outcome == Outcome::Completed {
            return None;
        }
        let reason = telemetry.error.as_ref().map(|record| Reason {
            error_type: (&*record.error_type).into(),
            message: (&*record.message).into(),
            network_error: match (outcome, NetworkErrorKind::from_label(&record.error_type)) {
                (Outcome::Truncated, _) => Some(NetworkErrorKind::PartialChunks),
                (_, NetworkErrorKind::Other) => None,
                (_, kind) => Some(kind),
            },
            violation: None,
        });
        Some(Self {
            telemetry: Some(telemetry),
            ..Self::new(outcome, reason)
        })
    }

    /// Returns the reason of a failure. An aborted or dropped execution has not failed.
    pub(crate) fn failed(&self) -> Option<&Reason<'a>> {
        self.reason.as_ref().filter(|_| self.outcome.is_failure())
    }

    /// Replaces the message of the reason.
    pub(crate) fn set_message(&mut self, message: String) {
        if let Some(reason) = &mut self.reason {
            reason.message = message.into();
        }
    }
}

#[cfg(test)]
mod tests {
    use l0_core::{DriftReport, Failure, LimitKind, Monitor, Monitoring, Severity, TimeoutKind};

    use super::*;

    #[test]
    fn telemetry_and_end_agree() {
        let violation = Violation::new("rule", Severity::Fatal, "not fit");
        let failed = |failure: Failure| End::failed(&failure);
        for end in [
            End::dropped(),
            End::refused("the budget is spent"),
            End::of(Cause::Truncated),
            End::of(Cause::ZeroOutput),
            End::of(Cause::Timeout(TimeoutKind::Total)),
            End::of(Cause::Violation(violation)),
            End::of(Cause::Drift(DriftReport::new(["tone_shift"], 1.0))),
            End::of(Cause::Limit(LimitKind::Cost)),
            End::of(Cause::Aborted),
            End::of(Cause::NoTimer),
            End::of(Cause::Panic),
            failed(Failure::fatal()),
            failed(Failure::model()),
            failed(Failure::status(401)),
            failed(Failure::status(429)),
            failed(Failure::status(503)),
        ]
        .into_iter()
        .chain(
            NetworkErrorKind::ALL
                .iter()
                .map(|kind| failed(Failure::network(*kind))),
        ) {
            let mut monitor = Monitor::new(Monitoring::new());
            monitor.complete(end.clone());
            let telemetry = monitor.telemetry();
            let recorded = Ending::recorded(telemetry.as_ref()).unwrap();
            let direct = Ending::of(&end);
            let what = |ending: &Ending<'_>| {
                let reason = ending.reason.as_ref();
                let reason = reason.map(|reason| {
                    let texts = (&*reason.error_type, &*reason.message);
                    (texts.0.to_owned(), texts.1.to_owned(), reason.network_error)
                });
                (ending.outcome, reason)
            };
            assert_eq!(what(&recorded), what(&direct), "{end:?}");
            let of_rule = |ending: &Ending<'_>| {
                let mut reason = ending.reason.iter();
                reason.any(|reason| reason.error_type == GUARDRAIL)
            };
            let is_violation = matches!(end.cause(), Some(Cause::Violation(_)));
            assert_eq!(of_rule(&recorded), is_violation);
            assert_eq!(of_rule(&direct), is_violation);
        }
    }

    #[test]
    fn telemetry_without_an_outcome_or_completed_is_none() {
        let mut monitor = Monitor::new(Monitoring::new());
        assert!(Ending::recorded(None).is_none());
        assert!(Ending::recorded(monitor.telemetry().as_ref()).is_none());
        monitor.complete(End::completed());
        assert!(Ending::recorded(monitor.telemetry().as_ref()).is_none());
    }
}
