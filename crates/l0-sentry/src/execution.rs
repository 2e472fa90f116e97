//! An execution that reports to Sentry in its own hub.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::Duration;

use l0_core::{
    AttemptStats, DriftReport, End, NetworkErrorKind, RetryKind, RetryReason, TokenView, Violation,
    redact,
};
use sentry_core::protocol::{Breadcrumb, Context, Event, Value};
use sentry_core::{Hub, Scope, TracesSamplingStrategy, TransactionOrSpan};

use crate::breadcrumb;
use crate::config::SentryConfig;
use crate::content::ContentBuffer;
use crate::data::{Data, data, millis, numbers};
use crate::ending::{Ending, GUARDRAIL};
use crate::event;
use crate::gen_ai::Call;
use crate::spans::{EXECUTION, Spans};
use crate::tags;

/// The maximum number of violations captured per execution.
const MAX_VIOLATIONS: usize = 32;

/// An execution: a run, a future, or a manual report.
///
/// Errors are captured at its end, when the numbers sent with them are final.
pub(crate) struct Execution {
    config: SentryConfig,
    hub: Arc<Hub>,
    spans: Option<Spans>,
    /// The prompt and the answer. Absent if content is not sent.
    content: Option<ContentBuffer>,
    session_id: Option<String>,
    stream: Stream,
    /// Metadata that was set after the start.
    late: Data,
    violations: Vec<CapturedViolation>,
    /// The network error of a manual report that ends the execution, with a redacted message.
    network_error: Option<(NetworkErrorKind, String)>,
    finished: bool,
}

#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Awaited,
    Open,
    Completed,
}

/// A violation to capture at the end, and its event.
struct CapturedViolation {
    rule: String,
    message: String,
    event: Event<'static>,
}

/// The parameters of a new execution, in addition to its data.
#[derive(Default)]
pub(crate) struct Start<'a> {
    /// The name. If it is empty, [`EXECUTION`].
    pub(crate) name: &'a str,
    pub(crate) session_id: Option<&'a str>,
    /// The span of the parent run.
    pub(crate) parent_span: Option<TransactionOrSpan>,
    /// `true` if the whole execution is one call of the model that its data names.
    pub(crate) is_one_call: bool,
}

impl Execution {
    /// Starts an execution. Returns `None` if there is no enabled client.
    pub(crate) fn start(
        config: SentryConfig,
        start: Start<'_>,
        data: impl FnOnce() -> Data,
    ) -> Option<Self> {
        let name = if start.name.is_empty() {
            EXECUTION
        } else {
            start.name
        };
        let settings = config.settings();
        let host = match &settings.hub {
            Some(hub) => Arc::clone(hub),
            None => thread_has_hub().then(Hub::current)?,
        };
        let client = host.client().filter(|client| client.is_enabled())?;
        // Checked only now: the check creates the thread's hub, and the hub of the first thread becomes the
        // template of all others.
        if !thread_has_hub() {
            return None;
        }
        let tracing = settings.enable_tracing
            && !matches!(
                client.options().traces_sampling_strategy,
                TracesSamplingStrategy::Disabled
            );
        let hub = Arc::new(Hub::new_from_top(host));
        let data = data();

        let mut all_tags = settings.tags.clone();
        for (tag, value) in settings.tag_keys.pick(&data) {
            all_tags.extend(tags::value(&value).map(|value| (tag.to_owned(), value)));
        }

        let spans = Hub::run(Arc::clone(&hub), || {
            let mut spans = tracing
                .then(|| Spans::start(&hub, settings.parent, start.parent_span, name, &data));
            let call = Call::of(&data, true).filter(|_| start.is_one_call);
            if let (Some(spans), Some(call)) = (&mut spans, call) {
                spans.start_call(call);
            }
            hub.configure_scope(|scope| {
                if let Some(spans) = &spans {
                    scope.set_span(Some(spans.execution().clone()));
                }
                for (key, value) in &all_tags {
                    scope.set_tag(key, value);
                    // The scope's tags do not reach a span of another transaction.
                    spans
                        .iter()
                        .for_each(|spans| spans.execution().set_tag(key, value));
                }
            });
            hub.add_breadcrumb(breadcrumb::execution_started(data));
            spans
        });
        let are_sent = spans.as_ref().is_some_and(Spans::are_sent);
        let content = config.settings().content.as_ref().filter(|_| are_sent);
        let content = content.map(ContentBuffer::new);
        Some(Self {
            config,
            hub,
            spans,
            content,
            session_id: start.session_id.map(str::to_owned),
            stream: Stream::Awaited,
            late: Data::new(),
            violations: Vec::new(),
            network_error: None,
            finished: false,
        })
    }

    pub(crate) fn config(&self) -> &SentryConfig {
        &self.config
    }

    /// Runs code in the execution's hub, unless the thread has already destroyed its hub.
    pub(crate) fn inside<R>(&self, code: impl FnOnce() -> R) -> R {
        if thread_has_hub() {
            Hub::run(Arc::clone(&self.hub), code)
        } else {
            code()
        }
    }

    fn add_breadcrumb(&self, breadcrumb: Breadcrumb) {
        if thread_has_hub() {
            self.inside(|| self.hub.add_breadcrumb(breadcrumb));
        }
    }

    /// Starts the stream. Only the first call has an effect: a retry does not start another stream.
    pub(crate) fn start_stream(&mut self) {
        if self.stream != Stream::Awaited {
            return;
        }
        self.stream = Stream::Open;
        if let Some(spans) = &mut self.spans {
            spans.start_stream();
        }
        self.add_breadcrumb(breadcrumb::stream_started());
    }

    /// Returns the span of the execution, if spans are enabled.
    pub(crate) fn span(&self) -> Option<&TransactionOrSpan> {
        self.spans.as_ref().map(Spans::execution)
    }

    /// Starts an attempt. `call` returns its call of a model, if model and provider are known.
    pub(crate) fn start_attempt(
        &mut self,
        number: u32,
        source: u32,
        call: impl FnOnce() -> Option<Call>,
    ) {
        if let Some(content) = &mut self.content {
            content.begin();
        }
        if let Some(spans) = &mut self.spans {
            let span = spans.start_attempt(number, source, call());
            self.hub.configure_scope(|scope| scope.set_span(Some(span)));
        }
    }

    /// Finishes the current attempt. `input` is its prompt, if known. Content is added last, because the mask can
    /// panic.
    pub(crate) fn finish_attempt(
        &mut self,
        stats: &AttemptStats,
        measured: bool,
        input: Option<&Value>,
    ) {
        if let Some(spans) = &mut self.spans {
            spans.finish_attempt(stats, measured);
            let span = spans.execution().clone();
            self.hub.configure_scope(|scope| scope.set_span(Some(span)));
            if let Some(content) = &mut self.content {
                spans.add(content.attributes(input, stats.finish_reason, spans.embeds()));
            }
        }
    }

    /// Records a fallback. The sources are named by their models, or by their numbers if the models are unknown.
    pub(crate) fn fallback(&self, from: &str, to: &str) {
        self.add_breadcrumb(breadcrumb::fallback(from, to));
    }

    /// Sets the metadata that was set after the start.
    pub(crate) fn set_late(&mut self, late: Data) {
        self.late = late;
    }

    pub(crate) fn first_token(&mut self, after: Option<Duration>) {
        if let (Some(spans), Some(after)) = (&self.spans, after) {
            spans.set_stream_data("ttft_ms", millis(after));
        }
        self.add_breadcrumb(breadcrumb::first_token(after));
    }

    /// Sets the prompt, if content is sent.
    pub(crate) fn set_input(&mut self, input: impl FnOnce() -> Value) {
        if let Some(content) = &mut self.content {
            content.set_input(input());
        }
    }

    /// Returns `true` if single tokens are reported or kept.
    pub(crate) fn wants_tokens(&self) -> bool {
        self.content.is_some() || self.config.settings().breadcrumbs_for_tokens
    }

    pub(crate) fn token(&mut self, view: &TokenView<'_>) {
        self.answer(view);
        let settings = self.config.settings();
        if settings.breadcrumbs_for_tokens {
            let text = settings.include_token_text.then_some(view.text);
            self.add_breadcrumb(breadcrumb::token(text));
        }
    }

    /// Adds a part of the answer, or the whole answer.
    pub(crate) fn answer(&mut self, view: &TokenView<'_>) {
        if let Some(content) = &mut self.content {
            content.add(view);
        }
    }

    /// Records a network error. The message must be redacted.
    pub(crate) fn network_error(&self, kind: NetworkErrorKind, message: &str, retried: bool) {
        self.add_breadcrumb(breadcrumb::network_error(kind, message, retried));
    }

    /// Sets the network error to capture at the end, in place of the failure in [`Ending`].
    pub(crate) fn set_network_error(&mut self, kind: NetworkErrorKind, message: String) {
        self.network_error = Some((kind, message));
    }

    pub(crate) fn retry(
        &self,
        attempt: u32,
        reason: RetryReason,
        kind: RetryKind,
        delay: Option<Duration>,
    ) {
        self.add_breadcrumb(breadcrumb::retry(attempt, reason, kind, delay));
    }

    pub(crate) fn violation(&mut self, violation: &Violation) {
        // Names and messages of custom rules can contain anything.
        let rule = redact::text(&violation.rule);
        let message = redact::text(&violation.message);
        self.add_breadcrumb(breadcrumb::violation(
            &rule,
            violation.severity,
            &message,
            violation.recoverable,
        ));
        self.keep_violation(violation, rule, message);
    }

    /// Keeps the violation for the end of the execution. Returns `true` if it will be captured, because of this call
    /// or an earlier one.
    fn keep_violation(&mut self, violation: &Violation, rule: String, message: String) -> bool {
        let settings = self.config.settings();
        let severity = violation.severity;
        if !settings.capture_guardrail_violations || severity < settings.min_guardrail_severity {
            return false;
        }
        let same = |kept: &CapturedViolation| kept.rule == rule && kept.message == message;
        if self.violations.iter().any(same) {
            return true;
        }
        let room = self.violations.len() < MAX_VIOLATIONS;
        if room {
            self.violations.push(CapturedViolation {
                event: event::violation(&rule, severity, &message),
                rule,
                message,
            });
        }
        room
    }

    pub(crate) fn drift(&self, report: &DriftReport) {
        if report.detected() {
            self.add_breadcrumb(breadcrumb::drift(report));
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
        self.add_breadcrumb(breadcrumb::stream_completed(tokens));
    }

    /// Ends the execution without sending errors or spans. Spans that have already ended are not affected.
    pub(crate) fn discard(&mut self) {
        self.finished = true;
        self.spans = None;
    }

    /// Ends the execution: adds the last breadcrumb, captures the errors, and ends the spans. Only the first call has
    /// an effect. If a callback of the client panics, the panic is resumed after all other steps. A thread that has
    /// destroyed its hub does none of this.
    pub(crate) fn finish(&mut self, ending: &Ending<'_>) {
        if std::mem::replace(&mut self.finished, true) || !thread_has_hub() {
            return;
        }
        let mut known = std::mem::take(&mut self.late);
        known.extend(ending.telemetry.map_or_else(
            || {
                let id = self.session_id.take();
                data([("session_id", id.map(Value::from))])
            },
            numbers,
        ));
        let last = self.last_event(ending);
        let violations = std::mem::take(&mut self.violations);
        let events = violations.into_iter().map(|captured| captured.event);
        let events = events.chain(last);
        let spans = self.spans.take();

        let mut steps = Steps::default();
        if let (Some(spans), Some(content)) = (&spans, &mut self.content)
            && spans.is_one_call()
        {
            let reason = ending.telemetry.and_then(|all| all.finish_reason);
            steps.take(|| spans.add(content.recorded(reason, spans.embeds())));
        }
        self.inside(|| {
            let last = breadcrumb::execution_finished(ending.outcome, ending.telemetry);
            steps.take(|| self.hub.add_breadcrumb(last));
            if !known.is_empty() {
                let context = Context::Other(known.clone());
                self.hub
                    .configure_scope(|scope| scope.set_context("l0_telemetry", context));
            }
            for event in events {
                steps.take(|| self.capture(event));
            }
            if let Some(spans) = spans {
                steps.take(|| spans.finish(ending, known));
            }
        });
        steps.resume();
    }

    /// Returns the event for the failure of the execution. Returns `None` if it did not fail, if a captured violation
    /// is the failure, or if the configuration disables the event.
    fn last_event(&mut self, ending: &Ending<'_>) -> Option<Event<'static>> {
        let settings = self.config.settings();
        let (of_networks, of_rules) = (
            settings.capture_network_errors,
            settings.capture_guardrail_violations,
        );
        if let Some((kind, message)) = self.network_error.take() {
            return of_networks.then(|| event::network_error(kind, kind.as_str(), &message));
        }
        if !ending.outcome.is_failure() {
            return None;
        }
        let Some(failed) = ending.failed() else {
            // Telemetry recorded by an older version has no reason.
            return Some(event::failure("_OTHER", "its telemetry has no reason"));
        };
        if let Some(kind) = failed.network_error {
            return of_networks
                .then(|| event::network_error(kind, &failed.error_type, &failed.message));
        }
        let is_captured = failed.error_type == GUARDRAIL
            && match failed.violation {
                _ if !of_rules => true,
                Some(violation) => {
                    let rule = redact::text(&violation.rule);
                    let message = redact::text(&violation.message);
                    self.keep_violation(violation, rule, message)
                }
                None => !self.violations.is_empty(),
            };
        (!is_captured).then(|| event::failure(&failed.error_type, &failed.message))
    }

    fn capture(&self, event: Event<'static>) {
        // Tags of the scope would override the event's own tags.
        let own = event.tags.clone();
        let set = |scope: &mut Scope| {
            for (key, value) in &own {
                scope.set_tag(key, value);
            }
        };
        self.hub.with_scope(set, || {
            self.hub.capture_event(event);
        });
    }
}

impl Drop for Execution {
    fn drop(&mut self) {
        // A panic in `drop` can abort the process.
        let _ = contain(|| self.finish(&Ending::of(&End::dropped())));
    }
}

thread_local! {
    /// A value created after the thread's hub and therefore destroyed before it. It is a `Box`, because only a
    /// value that needs a drop is destroyed.
    static AFTER_HUB: Box<()> = {
        drop(Hub::current());
        Box::default()
    };
}

/// Returns `true` if this thread still has a hub. After a thread has destroyed its hub, reading it panics.
/// Sentry's panic hook reads it too, so the process would abort.
fn thread_has_hub() -> bool {
    AFTER_HUB.try_with(|_| ()).is_ok()
}

/// Runs code that calls the client's callbacks. Returns `None` if it panics.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).ok()
}

/// Steps that are all taken, even if one of them panics.
#[derive(Default)]
struct Steps(Option<Box<dyn Any + Send>>);

impl Steps {
    fn take(&mut self, step: impl FnOnce()) {
        if let Err(panic) = catch_unwind(AssertUnwindSafe(step)) {
            self.0 = Some(panic);
        }
    }

    /// Resumes the last panic, if there was one.
    fn resume(self) {
        if let Some(panic) = self.0 {
            resume_unwind(panic);
        }
    }
}
