//! Event: what went wrong with an execution, as Sentry's errors.

use std::borrow::Cow;
use std::collections::BTreeMap;

use l0_core::{NetworkErrorKind, Severity};
use sentry_core::protocol::{Event, Exception, Values};

use crate::breadcrumb::level;
use crate::ending::GUARDRAIL;
use crate::tags;

/// A network error that ended an execution. The message is a redacted one.
///
/// A truncated answer counts as a network error of the type `partial_chunks`; its `error_type` is
/// `truncated`, as everywhere else.
pub(crate) fn network_error(
    kind: NetworkErrorKind,
    error_type: &str,
    message: &str,
) -> Event<'static> {
    let kind = kind.as_str();
    Event {
        exception: exception("Network error", format!("{kind}: {message}")),
        tags: own_tags("l0.network", error_type),
        fingerprint: fingerprint(["l0.network".into(), kind.into()]),
        ..Event::default()
    }
}

/// A guardrail violation. The message is a redacted one.
pub(crate) fn violation(rule: &str, severity: Severity, message: &str) -> Event<'static> {
    let mut own = own_tags("l0.guardrail", GUARDRAIL);
    own.extend(tags::value(rule).map(|rule| (tags::RULE.to_owned(), rule)));
    Event {
        level: level(severity),
        // An exception, since pages of errors leave out what is none.
        exception: exception(&format!("Guardrail violation: {rule}"), message.to_owned()),
        tags: own,
        fingerprint: fingerprint(["l0.guardrail".into(), rule.to_owned().into()]),
        ..Event::default()
    }
}

/// An execution that failed, for another reason than the above. The message is a redacted one.
/// Sentry's own grouping takes numbers and ids out of it.
pub(crate) fn failure(error_type: &str, message: &str) -> Event<'static> {
    let part = error_type.to_owned().into();
    Event {
        exception: exception("L0 execution failed", message.to_owned()),
        tags: own_tags("l0", error_type),
        fingerprint: fingerprint(["l0".into(), part, "{{ default }}".into()]),
        ..Event::default()
    }
}

fn exception(ty: &str, value: String) -> Values<Exception> {
    vec![Exception {
        ty: ty.to_owned(),
        value: Some(value),
        ..Exception::default()
    }]
    .into()
}

fn own_tags(component: &str, error_type: &str) -> BTreeMap<String, String> {
    [
        (tags::COMPONENT, component.to_owned()),
        (tags::ERROR_TYPE, error_type.to_owned()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

fn fingerprint<const N: usize>(parts: [Cow<'static, str>; N]) -> Cow<'static, [Cow<'static, str>]> {
    Vec::from(parts).into()
}
