//! Execution: one execution, in a hub of its own, told what happens by typed calls.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use l0_core::{
    DriftReport, NetworkErrorKind, Outcome, RetryReason, Severity, Telemetry, Violation, redact,
};
use sentry_core::protocol::{Breadcrumb, Context, Event, Value};
use sentry_core::{Hub, TracesSamplingStrategy};

use crate::config::SentryConfig;
use crate::data::{Data, data, millis, numbers};
use crate::spans::{Spans, Told};
use crate::{breadcrumb, event, tags};

/// How many violations of one execution are captured.
const MAX_VIOLATIONS: usize = 32;

/// One execution: a run, a future, or what is told by hand.
///
/// Errors are captured at its end, when the numbers that go with them are final.
pub(crate) struct Execution {
    config: SentryConfig,
    hub: Arc<Hub>,
    spans: Option<Spans>,
    session_id: Option<String>,
    stream: Stream,
    violations: Vec<Captured>,
    network_error: Option<Event<'static>>,
    /// A final network error or a violation is why it fails, whether or not that is captured.
    cause_known: bool,
    finished: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Awaited,
    Open,
    Completed,
}

/// A violation that was not seen before, and its event.
struct Captured {
    rule: String,
    message: String,
    event: Event<'static>,
}

/// How an execution ends.
#[derive(Clone, Copy)]
pub(crate) struct End<'a> {
    pub(crate) outcome: Outcome,
    /// What went wrong, redacted.
    pub(crate) message: Option<&'a str>,
    pub(crate) telemetry: Option<&'a Telemetry>,
    pub(crate) response_model: Option<&'a str>,
    pub(crate) response_id: Option<&'a str>,
}

impl End<'_> {
    pub(crate) fn new(outcome: Outcome) -> Self {
        Self {
            outcome,
            message: None,
            telemetry: None,
            response_model: None,
            response_id: None,
        }
    }
}

impl Execution {
    /// Starts one; `None` if there is no client to tell.
    pub(crate) fn start(
        config: &SentryConfig,
        name: &str,
        session_id: Option<&str>,
        data: impl FnOnce() -> Data,
    ) -> Option<Self> {
        let settings = config.settings();
        let host = settings.hub.clone().unwrap_or_else(Hub::current);
        let client = host.client().filter(|client| client.is_enabled())?;
        let tracing = settings.enable_tracing
            && !matches!(
                client.options().traces_sampling_strategy,
                TracesSamplingStrategy::Disabled
            );
        let hub = Arc::new(Hub::new_from_top(host));
        let data = data();

        let from_data = settings.tag_keys.iter().filter_map(|(tag, key)| {
            let value = l0_core::keys::text(&data, key)?;
            Some((tag, tags::value(&value)?))
        });
        let mut all_tags = settings.tags.clone();
        all_tags.extend(from_data.map(|(tag, value)| (tag.clone(), value)));

        let spans = Hub::run(Arc::clone(&hub), || {
            let spans = hub.configure_scope(|scope| {
                let start = || Spans::start(&hub, scope, settings.parent, name, &data);
                let spans = tracing.then(start);
                for (key, value) in &all_tags {
                    scope.set_tag(key, value);
                    // The scope does not reach a span of another transaction.
                    spans.iter().for_each(|spans| spans.set_tag(key, value));
                }
                spans
            });
            hub.add_breadcrumb(breadcrumb::execution_started(data));
            spans
        });
        Some(Self {
            config: config.clone(),
            hub,
            spans,
            session_id: session_id.map(str::to_owned),
            stream: Stream::Awaited,
            violations: Vec::new(),
            network_error: None,
            cause_known: false,
            finished: false,
        })
    }

    pub(crate) fn config(&self) -> &SentryConfig {
        &self.config
    }

    /// Runs code in the execution's hub.
    pub(crate) fn inside<R>(&self, code: impl FnOnce() -> R) -> R {
        Hub::run(Arc::clone(&self.hub), code)
    }

    fn leave(&self, breadcrumb: Breadcrumb) {
        self.inside(|| self.hub.add_breadcrumb(breadcrumb));
    }

    /// Only the first call counts: a retry does not start another stream.
    pub(crate) fn start_stream(&mut self) {
        if self.stream != Stream::Awaited {
            return;
        }
        self.stream = Stream::Open;
        if let Some(spans) = &mut self.spans {
            spans.start_stream();
        }
        self.leave(breadcrumb::stream_started());
    }

    pub(crate) fn first_token(&mut self, after: Option<Duration>) {
        if let (Some(spans), Some(after)) = (&self.spans, after) {
            spans.set_stream_data("ttft_ms", millis(after));
        }
        self.leave(breadcrumb::first_token(after));
    }

    pub(crate) fn token(&mut self, text: &str) {
        let settings = self.config.settings();
        if settings.breadcrumbs_for_tokens {
            let text = settings.include_token_text.then_some(text);
            self.leave(breadcrumb::token(text));
        }
    }

    /// The message is a redacted one.
    pub(crate) fn network_error(&mut self, kind: NetworkErrorKind, message: &str, retried: bool) {
        self.leave(breadcrumb::network_error(kind, message, retried));
        if !retried {
            self.cause_known = true;
            let capture = self.config.settings().capture_network_errors;
            self.network_error = capture.then(|| event::network_error(kind, message));
        }
    }

    /// The last network error did no harm after all.
    pub(crate) fn forget_network_error(&mut self) {
        self.network_error = None;
    }

    pub(crate) fn retry(
        &mut self,
        attempt: u32,
        reason: RetryReason,
        network: bool,
        delay: Option<Duration>,
    ) {
        self.leave(breadcrumb::retry(attempt, reason, network, delay));
    }

    pub(crate) fn violation(&mut self, violation: &Violation) {
        let Violation {
            severity,
            recoverable,
            ..
        } = *violation;
        // Rules of the application's own may say anything.
        let rule = redact::text(&violation.rule);
        let message = redact::text(&violation.message);
        self.leave(breadcrumb::violation(
            &rule,
            severity,
            &message,
            recoverable,
        ));
        self.cause_known |=
            severity == Severity::Fatal || (severity == Severity::Error && !recoverable);

        let settings = self.config.settings();
        let wanted = settings.capture_guardrail_violations
            && severity >= settings.min_guardrail_severity
            && self.violations.len() < MAX_VIOLATIONS;
        let seen = |captured: &Captured| captured.rule == rule && captured.message == message;
        if wanted && !self.violations.iter().any(seen) {
            let event = event::violation(&rule, severity, &message);
            self.violations.push(Captured {
                rule,
                message,
                event,
            });
        }
    }

    pub(crate) fn drift(&mut self, report: &DriftReport) {
        if report.detected {
            self.leave(breadcrumb::drift(report));
        }
    }

    pub(crate) fn complete_stream(&mut self, tokens: Option<u64>) {
        if self.stream != Stream::Open {
            return;
        }
        self.stream = Stream::Completed;
        if let Some(spans) = &mut self.spans {
            spans.complete_stream(tokens);
        }
        self.leave(breadcrumb::stream_completed(tokens));
    }

    /// Ends it: the trail, the errors, the spans. Only the first call counts.
    pub(crate) fn finish(&mut self, end: &End<'_>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let known = end.telemetry.map_or_else(
            || {
                let id = self.session_id.take();
                data([("session_id", id.map(Value::from))])
            },
            numbers,
        );
        let failed = !matches!(
            end.outcome,
            Outcome::Completed | Outcome::Aborted | Outcome::Dropped
        );
        let failure = failed && !self.cause_known;
        let failure = failure.then(|| event::failure(end.outcome, end.message));
        let violations = std::mem::take(&mut self.violations);
        let events = violations
            .into_iter()
            .map(|captured| captured.event)
            .chain(self.network_error.take())
            .chain(failure);
        let spans = self.spans.take();

        self.inside(|| {
            let last = breadcrumb::execution_finished(end.outcome, end.telemetry);
            self.hub.add_breadcrumb(last);
            if !known.is_empty() {
                let context = Context::Other(known.clone());
                self.hub
                    .configure_scope(|scope| scope.set_context("l0_telemetry", context));
            }
            for event in events {
                self.hub.capture_event(event);
            }
            if let Some(spans) = spans {
                spans.finish(&Told {
                    outcome: end.outcome,
                    data: &known,
                    telemetry: end.telemetry,
                    response_model: end.response_model,
                    response_id: end.response_id,
                });
            }
        });
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        // The client's callbacks are foreign code, and a panic must not leave a `Drop`.
        let finish = || self.finish(&End::new(Outcome::Dropped));
        let _ = catch_unwind(AssertUnwindSafe(finish));
    }
}
