//! Event: what went wrong with an execution, as Sentry's errors.

use std::borrow::Cow;

use l0_core::{NetworkErrorKind, Outcome, RetryReason, Severity};
use sentry_core::protocol::{Event, Exception};

use crate::breadcrumb::level;

/// A network error that was not retried. The message is a redacted one.
pub(crate) fn network_error(kind: NetworkErrorKind, message: &str) -> Event<'static> {
    let kind = kind.as_str();
    Event {
        exception: exception("Network error", format!("{kind}: {message}")),
        tags: tags([("component", "l0.network"), ("error_type", kind)]),
        fingerprint: fingerprint(["l0.network".into(), kind.into()]),
        ..Event::default()
    }
}

/// A guardrail violation. The message is a redacted one.
pub(crate) fn violation(rule: &str, severity: Severity, message: &str) -> Event<'static> {
    let error_type = RetryReason::GuardrailViolation.as_str();
    Event {
        level: level(severity),
        message: Some(format!("Guardrail violation: {message}")),
        tags: tags([("component", "l0.guardrail"), ("error_type", error_type)])
            .into_iter()
            .chain(crate::tags::value(rule).map(|rule| ("rule".to_owned(), rule)))
            .collect(),
        fingerprint: fingerprint(["l0.guardrail".into(), rule.to_owned().into()]),
        ..Event::default()
    }
}

/// An execution that failed, for another reason than the above. The message is a redacted one;
/// there is none after a panic. Sentry's own grouping takes numbers and ids out of it.
pub(crate) fn failure(outcome: Outcome, message: Option<&str>) -> Event<'static> {
    let error_type = outcome.as_str();
    let message = message.unwrap_or("without an error, as after a panic");
    Event {
        exception: exception("L0 execution failed", message.to_owned()),
        tags: tags([("component", "l0"), ("error_type", error_type)]),
        fingerprint: fingerprint(["l0".into(), error_type.into(), "{{ default }}".into()]),
        ..Event::default()
    }
}

fn exception(ty: &str, value: String) -> sentry_core::protocol::Values<Exception> {
    vec![Exception {
        ty: ty.to_owned(),
        value: Some(value),
        ..Exception::default()
    }]
    .into()
}

fn tags<const N: usize>(tags: [(&str, &str); N]) -> std::collections::BTreeMap<String, String> {
    tags.map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

fn fingerprint<const N: usize>(parts: [Cow<'static, str>; N]) -> Cow<'static, [Cow<'static, str>]> {
    Vec::from(parts).into()
}
