//! Ending: how and why an execution ended, as its `End` or its telemetry says.

use std::borrow::Cow;

use l0_core::{Cause, End, NetworkErrorKind, Outcome, RetryReason, Telemetry, Violation};

/// The class of what a rule ended.
pub(crate) const GUARDRAIL: &str = RetryReason::GuardrailViolation.as_str();

/// How an execution ended, and what is known then.
pub(crate) struct Ending<'a> {
    pub(crate) outcome: Outcome,
    /// Why it did not complete, if that is known.
    pub(crate) reason: Option<Reason<'a>>,
    pub(crate) telemetry: Option<&'a Telemetry>,
}

/// Why an execution did not complete.
pub(crate) struct Reason<'a> {
    /// The class of what went wrong: see [`End::error_type`].
    pub(crate) error_type: Cow<'a, str>,
    /// A redacted one.
    pub(crate) message: Cow<'a, str>,
    /// Which network error it is, if it is one.
    pub(crate) network_error: Option<NetworkErrorKind>,
    /// The violation that it is. Telemetry does not keep it.
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

    /// What a run's end says.
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

    /// What telemetry says; `None` if it tells of no end, or of one that is complete.
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

    /// Why it failed. That its user stopped it is no failure.
    pub(crate) fn failed(&self) -> Option<&Reason<'a>> {
        self.reason.as_ref().filter(|_| self.outcome.is_failure())
    }

    /// Says the reason in these words.
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

    /// The telemetry of a run that ends so says what its end says.
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
            let told = Ending::of(&end);
            let what = |ending: &Ending<'_>| {
                let reason = ending.reason.as_ref();
                let reason = reason.map(|reason| {
                    let texts = (&*reason.error_type, &*reason.message);
                    (texts.0.to_owned(), texts.1.to_owned(), reason.network_error)
                });
                (ending.outcome, reason)
            };
            assert_eq!(what(&recorded), what(&told), "{end:?}");
            let of_rule = |ending: &Ending<'_>| {
                let mut reason = ending.reason.iter();
                reason.any(|reason| reason.error_type == GUARDRAIL)
            };
            let is_violation = matches!(end.cause(), Some(Cause::Violation(_)));
            assert_eq!(of_rule(&recorded), is_violation);
            assert_eq!(of_rule(&told), is_violation);
        }
    }

    #[test]
    fn telemetry_of_no_end_or_a_complete_one_is_none() {
        let mut monitor = Monitor::new(Monitoring::new());
        assert!(Ending::recorded(None).is_none());
        assert!(Ending::recorded(monitor.telemetry().as_ref()).is_none());
        monitor.complete(End::completed());
        assert!(Ending::recorded(monitor.telemetry().as_ref()).is_none());
    }
}
