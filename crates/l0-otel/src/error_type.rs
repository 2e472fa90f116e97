//! Error type: the class of error that a run ended with, as one of few stable names.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;

use l0_core::{Event, Failure, FailureKind, NetworkErrorKind, Outcome, Refusal, Severity};

/// How many links of an error's chain are looked at: a chain may be a ring.
const MAX_CHAIN: usize = 32;

/// What the events before the end say about the error at the end.
#[derive(Debug, Default)]
pub(crate) struct LastFailure(Option<Last>);

#[derive(Debug)]
enum Last {
    /// A network error after which there is no retry.
    Network(NetworkErrorKind),
    /// A violation that stops a run.
    Violation,
}

impl LastFailure {
    /// Takes note of an event.
    pub(crate) fn note(&mut self, event: &Event<'_>) {
        self.0 = match *event {
            Event::NetworkError {
                kind,
                retried: false,
                ..
            } => Some(Last::Network(kind)),
            Event::Violation { violation, .. }
                if violation.severity == Severity::Fatal
                    || violation.severity == Severity::Error && !violation.recoverable =>
            {
                Some(Last::Violation)
            }
            // Others that the same item violates.
            Event::Violation { .. } => return,
            _ => None,
        };
    }

    /// The `error.type` of a run that ended so; `None` if it is no error.
    pub(crate) fn error_type(
        &self,
        outcome: Outcome,
        error: Option<&(dyn StdError + 'static)>,
    ) -> Option<Cow<'static, str>> {
        match outcome {
            Outcome::Completed | Outcome::Aborted | Outcome::Dropped => None,
            Outcome::Truncated => Some("truncated".into()),
            Outcome::TimedOut => Some("timeout".into()),
            _ => Some(self.failed(error)),
        }
    }

    fn failed(&self, error: Option<&(dyn StdError + 'static)>) -> Cow<'static, str> {
        let Some(error) = error else {
            return "panic".into();
        };
        let failure = failure(error);
        let of_model = failure.is_some_and(|failure| matches!(failure.kind, FailureKind::Model));
        // A connection may also break when the answer is complete, but empty.
        if let Some(Last::Network(kind)) = self.0
            && !of_model
        {
            return kind.as_str().into();
        }
        if error.is::<Refusal>() {
            return "refused".into();
        }
        if let Some(status) = failure.and_then(|failure| failure.status) {
            return status.to_string().into();
        }
        match (failure.map(|failure| failure.kind), &self.0) {
            (Some(FailureKind::Model), _) => "model_error".into(),
            // A run says so of a violation. A watched stream goes on after one, and may fail by
            // itself.
            (Some(FailureKind::Fatal), Some(Last::Violation)) => "guardrail_violation".into(),
            // The name of the conventions for what has none.
            _ => "_OTHER".into(),
        }
    }
}

/// The failure in an error's chain of sources.
fn failure<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a Failure> {
    std::iter::successors(Some(error), |error| cause(*error))
        .take(MAX_CHAIN)
        .find_map(|error| error.downcast_ref::<Failure>())
}

fn cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
    // Its own `source()` skips what it holds.
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(held) => Some(held),
        None => error.source(),
    }
}

#[cfg(test)]
mod tests {
    use l0_core::Violation;

    use super::*;

    #[test]
    fn each_end_has_one_of_few_names() {
        let fatal = Violation::new("json", Severity::Fatal, "wrong");
        let hopeless = Violation::new("json", Severity::Error, "wrong").recoverable(false);
        let warning = Violation::new("json", Severity::Warning, "odd");
        let network = |delay| {
            let kind = NetworkErrorKind::DnsError;
            Event::network_error(kind, "no such host", delay, Some(1))
        };
        let refusal = Refusal::new("no");
        let plain = io::Error::other("what");
        let of = |failure: Failure| io::Error::other(failure);
        let (fatal_failure, model, denied) = (
            of(Failure::fatal()),
            of(Failure::model()),
            of(Failure::status(401)),
        );
        type Error<'a> = Option<&'a (dyn StdError + 'static)>;
        let cases: [(&[Event<'_>], Outcome, Error<'_>, Option<&str>); 19] = [
            (&[], Outcome::Completed, None, None),
            (&[network(None)], Outcome::Completed, None, None),
            (&[], Outcome::Aborted, Some(&fatal_failure), None),
            (&[network(None)], Outcome::Dropped, None, None),
            (
                &[network(None)],
                Outcome::Truncated,
                Some(&plain),
                Some("truncated"),
            ),
            (
                &[network(None)],
                Outcome::TimedOut,
                Some(&plain),
                Some("timeout"),
            ),
            (&[], Outcome::Failed, None, Some("panic")),
            (
                &[network(None)],
                Outcome::Failed,
                Some(&plain),
                Some("dns_error"),
            ),
            // It was retried, and then something else happened.
            (
                &[network(Some(std::time::Duration::ZERO))],
                Outcome::Failed,
                Some(&plain),
                Some("_OTHER"),
            ),
            (
                &[network(None), Event::attempt_started(2)],
                Outcome::Failed,
                Some(&plain),
                Some("_OTHER"),
            ),
            (&[], Outcome::Failed, Some(&refusal), Some("refused")),
            (&[], Outcome::Failed, Some(&denied), Some("401")),
            (&[], Outcome::Failed, Some(&model), Some("model_error")),
            (
                &[network(None)],
                Outcome::Failed,
                Some(&model),
                Some("model_error"),
            ),
            (&[], Outcome::Failed, Some(&fatal_failure), Some("_OTHER")),
            (
                &[Event::violation(&fatal), Event::violation(&warning)],
                Outcome::Failed,
                Some(&fatal_failure),
                Some("guardrail_violation"),
            ),
            (
                &[Event::violation(&hopeless)],
                Outcome::Failed,
                Some(&fatal_failure),
                Some("guardrail_violation"),
            ),
            (
                &[Event::violation(&warning)],
                Outcome::Failed,
                Some(&fatal_failure),
                Some("_OTHER"),
            ),
            // Of a watched stream.
            (
                &[Event::violation(&fatal)],
                Outcome::Failed,
                Some(&plain),
                Some("_OTHER"),
            ),
        ];
        for (events, outcome, error, expected) in cases {
            let mut last = LastFailure::default();
            events.iter().for_each(|event| last.note(event));
            let named = last.error_type(outcome, error);
            assert_eq!(named.as_deref(), expected, "{events:?} {outcome}");
        }
    }
}
