//! Execution: one execution, in a hub of its own, which learns what happens by typed calls.

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
use crate::content::Exchange;
use crate::data::{Data, data, millis, numbers};
use crate::ending::{Ending, GUARDRAIL};
use crate::event;
use crate::gen_ai::Call;
use crate::spans::{EXECUTION, Spans};
use crate::tags;

/// How many violations of one execution are captured.
const MAX_VIOLATIONS: usize = 32;

/// One execution: a run, a future, or what is reported manually.
///
/// Errors are captured at its end, when the numbers that go with them are final.
pub(crate) struct Execution {
    config: SentryConfig,
    hub: Arc<Hub>,
    spans: Option<Spans>,
    /// What is asked and answered; absent if that is not sent.
    exchange: Option<Exchange>,
    session_id: Option<String>,
    stream: Stream,
    /// Metadata that became known after the start.
    late: Data,
    violations: Vec<Captured>,
    /// What the execution failed with, as was reported manually; the message is a redacted one.
    network_error: Option<(NetworkErrorKind, String)>,
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

/// What is known of an execution when it starts, besides its data.
#[derive(Default)]
pub(crate) struct Start<'a> {
    /// Its name; that of all executions if it is empty.
    pub(crate) name: &'a str,
    pub(crate) session_id: Option<&'a str>,
    /// The span of the execution that it serves.
    pub(crate) above: Option<TransactionOrSpan>,
    /// Whether the whole is one call of the model that its data names.
    pub(crate) is_one_call: bool,
}

impl Execution {
    /// Starts one; `None` if there is no client to report to.
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
        // Not before: the first thread with a hub is the one that the others take theirs from.
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
            let mut spans =
                tracing.then(|| Spans::start(&hub, settings.parent, start.above, name, &data));
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
                    // The scope does not reach a span of another transaction.
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
        let exchange = content.map(Exchange::new);
        Some(Self {
            config,
            hub,
            spans,
            exchange,
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

    /// Runs code in the execution's hub, if that can be made the thread's.
    pub(crate) fn inside<R>(&self, code: impl FnOnce() -> R) -> R {
        if thread_has_hub() {
            Hub::run(Arc::clone(&self.hub), code)
        } else {
            code()
        }
    }

    fn leave(&self, breadcrumb: Breadcrumb) {
        if thread_has_hub() {
            self.inside(|| self.hub.add_breadcrumb(breadcrumb));
        }
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

    /// The span of the whole, if there are spans.
    pub(crate) fn span(&self) -> Option<&TransactionOrSpan> {
        self.spans.as_ref().map(Spans::execution)
    }

    /// An attempt starts; `call` tells what it asks, if that is known.
    pub(crate) fn start_attempt(
        &mut self,
        number: u32,
        source: u32,
        call: impl FnOnce() -> Option<Call>,
    ) {
        if let Some(exchange) = &mut self.exchange {
            exchange.begin();
        }
        if let Some(spans) = &mut self.spans {
            let span = spans.start_attempt(number, source, call());
            self.hub.configure_scope(|scope| scope.set_span(Some(span)));
        }
    }

    /// The attempt asked `input`, if that is known. A panic of the mask goes on when all the rest has been done.
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
            if let Some(exchange) = &mut self.exchange {
                spans.add(exchange.attributes(input, stats.finish_reason, spans.embeds()));
            }
        }
    }

    /// The sources are called by their models, or else by their numbers.
    pub(crate) fn fallback(&self, from: &str, to: &str) {
        self.leave(breadcrumb::fallback(from, to));
    }

    /// This metadata has become known since the start.
    pub(crate) fn becomes_known(&mut self, late: Data) {
        self.late = late;
    }

    pub(crate) fn first_token(&mut self, after: Option<Duration>) {
        if let (Some(spans), Some(after)) = (&self.spans, after) {
            spans.set_stream_data("ttft_ms", millis(after));
        }
        self.leave(breadcrumb::first_token(after));
    }

    /// This is asked, if anybody wants to know.
    pub(crate) fn is_asked(&mut self, input: impl FnOnce() -> Value) {
        if let Some(exchange) = &mut self.exchange {
            exchange.is_asked(input());
        }
    }

    /// Whether anything becomes of a token.
    pub(crate) fn wants_tokens(&self) -> bool {
        self.exchange.is_some() || self.config.settings().breadcrumbs_for_tokens
    }

    pub(crate) fn token(&mut self, view: &TokenView<'_>) {
        self.answer(view);
        let settings = self.config.settings();
        if settings.breadcrumbs_for_tokens {
            let text = settings.include_token_text.then_some(view.text);
            self.leave(breadcrumb::token(text));
        }
    }

    /// A part of the answer came, or all of it.
    pub(crate) fn answer(&mut self, view: &TokenView<'_>) {
        if let Some(exchange) = &mut self.exchange {
            exchange.add(view);
        }
    }

    /// The message is a redacted one.
    pub(crate) fn network_error(&self, kind: NetworkErrorKind, message: &str, retried: bool) {
        self.leave(breadcrumb::network_error(kind, message, retried));
    }

    /// The execution fails with this network error, whatever its end says.
    pub(crate) fn fails_with(&mut self, kind: NetworkErrorKind, message: String) {
        self.network_error = Some((kind, message));
    }

    pub(crate) fn retry(
        &self,
        attempt: u32,
        reason: RetryReason,
        kind: RetryKind,
        delay: Option<Duration>,
    ) {
        self.leave(breadcrumb::retry(attempt, reason, kind, delay));
    }

    pub(crate) fn violation(&mut self, violation: &Violation) {
        // Rules of the application's own may say anything.
        let rule = redact::text(&violation.rule);
        let message = redact::text(&violation.message);
        self.leave(breadcrumb::violation(
            &rule,
            violation.severity,
            &message,
            violation.recoverable,
        ));
        self.hold_violation(violation, rule, message);
    }

    /// Returns whether the violation is captured at the end, because of this call or one before.
    fn hold_violation(&mut self, violation: &Violation, rule: String, message: String) -> bool {
        let settings = self.config.settings();
        let severity = violation.severity;
        if !settings.capture_guardrail_violations || severity < settings.min_guardrail_severity {
            return false;
        }
        let same = |held: &Captured| held.rule == rule && held.message == message;
        if self.violations.iter().any(same) {
            return true;
        }
        let room = self.violations.len() < MAX_VIOLATIONS;
        if room {
            self.violations.push(Captured {
                event: event::violation(&rule, severity, &message),
                rule,
                message,
            });
        }
        room
    }

    pub(crate) fn drift(&self, report: &DriftReport) {
        if report.detected() {
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

    /// Ends it, and sends nothing: no error, and no span that has not ended yet.
    pub(crate) fn forget(&mut self) {
        self.finished = true;
        self.spans = None;
    }

    /// Ends it: the trail, the errors, the spans. Only the first call counts. A panic of one of the
    /// client's callbacks goes on when all the rest has been done. Nothing of it can be done by a
    /// thread that has lost its hub.
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
        if let (Some(spans), Some(exchange)) = (&spans, &mut self.exchange)
            && spans.is_one_call()
        {
            let reason = ending.telemetry.and_then(|all| all.finish_reason);
            steps.take(|| spans.add(exchange.recorded(reason, spans.embeds())));
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

    /// The error that says what the execution failed with; none if it did not fail, if that is a
    /// violation, which is among those that are held, or if the config does not want it.
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
            // A record of a version that kept no reasons.
            return Some(event::failure("_OTHER", "its telemetry does not say why"));
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
                    self.hold_violation(violation, rule, message)
                }
                None => !self.violations.is_empty(),
            };
        (!is_captured).then(|| event::failure(&failed.error_type, &failed.message))
    }

    fn capture(&self, event: Event<'static>) {
        // A tag of the scope would win over the event's own.
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
        // A panic must not leave a `Drop`.
        let _ = contain(|| self.finish(&Ending::of(&End::dropped())));
    }
}

thread_local! {
    /// Made after the thread's hub, and so destroyed before it. It has something to drop, or it would
    /// not be destroyed.
    static AFTER_HUB: Box<()> = {
        drop(Hub::current());
        Box::default()
    };
}

/// Whether this thread has a hub. It has none any more when it ends and drops what it kept; whoever
/// asks for the hub then panics, and Sentry's own panic hook asks, so that the process would abort.
fn thread_has_hub() -> bool {
    AFTER_HUB.try_with(|_| ()).is_ok()
}

/// Runs what calls the client's callbacks, which are foreign code. A panic gives `None`.
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

    /// Lets the last panic go on.
    fn resume(self) {
        if let Some(panic) = self.0 {
            resume_unwind(panic);
        }
    }
}
