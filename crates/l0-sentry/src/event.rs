//! The errors of an execution, as Sentry events.

use std::borrow::Cow;
use std::collections::BTreeMap;

use l0_core::{NetworkErrorKind, Severity};
use sentry_core::protocol::{Event, Exception, Values};

use crate::breadcrumb::level;
use crate::ending::GUARDRAIL;
use crate::tags;

/// Returns the event of a network error that ended an execution. The message must be redacted.
///
/// A truncated answer is a network error of the kind `partial_chunks`. Its `error_type` is `truncated`, as in all
/// other exports.
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

/// Returns the event of a guardrail violation. The message must be redacted.
pub(crate) fn violation(rule: &str, severity: Severity, message: &str) -> Event<'static> {
    let mut own = own_tags("l0.guardrail", GUARDRAIL);
    own.extend(tags::value(rule).map(|rule| (tags::RULE.to_owned(), rule)));
    Event {
        level: level(severity),
        // An exception, because Sentry's error pages do not list other events.
        exception: exception(&format!("Guardrail violation: {rule}"), message.to_owned()),
        tags: own,
        fingerprint: fingerprint(["l0.guardrail".into(), rule.to_owned().into()]),
        ..Event::default()
    }
}

/// Returns the event of any other failure of an execution. The message must be redacted. Sentry's default grouping
/// ignores numbers and ids in it.
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
