//! The breadcrumbs of an execution.

use std::time::Duration;

use l0_core::{
    DriftReport, NetworkErrorKind, Outcome, RetryKind, RetryReason, Severity, Telemetry,
};
use sentry_core::protocol::Breadcrumb;
use sentry_core::{Level, protocol::Value};

use crate::data::{Data, data, millis};

/// The maximum length of a token's text in a breadcrumb, in characters.
const MAX_TOKEN: usize = 50;

fn breadcrumb(
    ty: &str,
    category: &str,
    level: Level,
    message: impl Into<String>,
    data: Data,
) -> Breadcrumb {
    Breadcrumb {
        ty: ty.to_owned(),
        category: Some(category.to_owned()),
        level,
        message: Some(message.into()),
        data,
        ..Breadcrumb::default()
    }
}

pub(crate) fn execution_started(data: Data) -> Breadcrumb {
    breadcrumb("info", "l0", Level::Info, "L0 execution started", data)
}

pub(crate) fn stream_started() -> Breadcrumb {
    let none = Data::new();
    breadcrumb("info", "l0.stream", Level::Info, "Stream started", none)
}

pub(crate) fn first_token(after: Option<Duration>) -> Breadcrumb {
    let data = data([("ttft_ms", after.map(millis))]);
    breadcrumb(
        "info",
        "l0.stream",
        Level::Info,
        "First token received",
        data,
    )
}

/// Returns the breadcrumb of a token. `text` is `None` if texts are not sent.
pub(crate) fn token(text: Option<&str>) -> Breadcrumb {
    let message = match text {
        Some(text) => {
            let shown = text.char_indices().nth(MAX_TOKEN).map(|(end, _)| end);
            format!("Token: {}", &text[..shown.unwrap_or(text.len())])
        }
        None => "Token received".to_owned(),
    };
    breadcrumb("debug", "l0.token", Level::Debug, message, Data::new())
}

/// Returns the breadcrumb of a network error. The message must be redacted.
pub(crate) fn network_error(kind: NetworkErrorKind, message: &str, retried: bool) -> Breadcrumb {
    let data = data([
        ("error_type", Some(kind.as_str().into())),
        ("message", Some(message.into())),
        ("retried", Some(retried.into())),
    ]);
    let text = format!("Network error: {kind}");
    breadcrumb("error", "l0.network", Level::Error, text, data)
}

pub(crate) fn retry(
    attempt: u32,
    reason: RetryReason,
    kind: RetryKind,
    delay: Option<Duration>,
) -> Breadcrumb {
    let data = data([
        ("attempt", Some(attempt.into())),
        ("reason", Some(reason.as_str().into())),
        (
            "is_network_error",
            Some((kind == RetryKind::Network).into()),
        ),
        ("delay_ms", delay.map(millis)),
    ]);
    let text = format!("Retry attempt {attempt}");
    breadcrumb("info", "l0.retry", Level::Warning, text, data)
}

/// Returns the breadcrumb of a fallback. The sources are named by their models, or by their numbers.
pub(crate) fn fallback(from: &str, to: &str) -> Breadcrumb {
    let data = data([("from", Some(from.into())), ("to", Some(to.into()))]);
    let text = format!("Fallback to {to}");
    breadcrumb("info", "l0.fallback", Level::Warning, text, data)
}

/// Returns the breadcrumb of a violation. The message must be redacted.
pub(crate) fn violation(
    rule: &str,
    severity: Severity,
    message: &str,
    recoverable: bool,
) -> Breadcrumb {
    let data = data([
        ("rule", Some(rule.into())),
        ("severity", Some(severity.as_str().into())),
        ("message", Some(message.into())),
        ("recoverable", Some(recoverable.into())),
    ]);
    let text = format!("Guardrail violation: {rule}");
    breadcrumb("error", "l0.guardrail", level(severity), text, data)
}

pub(crate) fn drift(report: &DriftReport) -> Breadcrumb {
    let types = report.types.iter().map(|kind| Value::from(&**kind));
    let data = data([("types", Some(types.collect()))]);
    let text = format!("Drift detected: {}", report.types.join(", "));
    breadcrumb("error", "l0.drift", Level::Warning, text, data)
}

pub(crate) fn stream_completed(tokens: Option<u64>) -> Breadcrumb {
    let data = data([("token_count", tokens.map(Value::from))]);
    breadcrumb("info", "l0.stream", Level::Info, "Stream completed", data)
}

pub(crate) fn execution_finished(outcome: Outcome, telemetry: Option<&Telemetry>) -> Breadcrumb {
    let level = if outcome.is_failure() {
        Level::Error
    } else {
        Level::Info
    };
    let metrics = telemetry.map(|telemetry| &telemetry.metrics);
    let data = data([
        ("outcome", Some(outcome.as_str().into())),
        (
            "duration_ms",
            telemetry
                .and_then(|telemetry| telemetry.duration)
                .map(millis),
        ),
        ("tokens", metrics.map(|metrics| metrics.total_tokens.into())),
        (
            "retries",
            metrics.map(|metrics| metrics.total_retries.into()),
        ),
    ]);
    let text = format!("L0 execution {}", outcome.as_str().replace('_', " "));
    breadcrumb("info", "l0", level, text, data)
}

/// Returns the Sentry level of a severity.
pub(crate) fn level(severity: Severity) -> Level {
    match severity {
        Severity::Warning => Level::Warning,
        Severity::Fatal => Level::Fatal,
        _ => Level::Error,
    }
}
