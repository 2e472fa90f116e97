//! The observer of one run: its spans and events, from its start to its end.

use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use l0_core::{
    AttemptStats, End, ErrorRecord, Event, KeepReason, Metadata, Observer, Outcome, RunInfo,
    Telemetry, keys,
};
use tracing::{Dispatch, Span, dispatcher};

use crate::attributes::{self, list, text, value};
use crate::fields::Fields;
use crate::live::LiveSpans;
use crate::names;
use crate::numbers;
use crate::sites::{Site, Sites};

/// A run that has started. Spans that are still open when it is dropped close then.
pub(crate) struct ObservedRun {
    /// The span of the current attempt. Disabled between two attempts, or if no subscriber wants it. It closes before
    /// the run's span.
    attempt: Span,
    /// The span of the run. Disabled if no subscriber wants it.
    span: Span,
    /// The parent of the spans of attempts: the run's span, or the span that was current in `start()`.
    attempt_parent: Span,
    sites: &'static Sites,
    /// The subscriber of `start()`. A thread that polls or drops the run can have another one.
    dispatch: Dispatch,
    live: LiveSpans,
    run: RunInfo,
    attempts: u32,
}

impl ObservedRun {
    /// Starts to observe a run. Called inside `start()`, where the current span is the caller's.
    pub(crate) fn start(sites: &'static Sites, live: &LiveSpans, run: &RunInfo) -> Self {
        let dispatch = dispatcher::get_default(Dispatch::clone);
        let start = || {
            if !sites.run.is_enabled(&dispatch) {
                return Span::none();
            }
            let mut fields = Fields::new(sites.run);
            fields.set(names::SESSION_ID, text(run.id()));
            fields.set_known(names::PARENT_ID, run.parent_id().map(text));
            attributes::set_of_run(&mut fields, run.metadata(), &sites.settings.keys);
            fields.span(None)
        };
        let parent = run.parent_id().and_then(|id| live.get(id));
        let span = match parent {
            // Entered instead of passed as the parent, because it can belong to another subscriber.
            Some(parent) => parent.in_scope(start),
            None => start(),
        };
        if !span.is_disabled() {
            live.enter(run.id(), &span);
        }
        // Creates the thread-local after those of the subscriber.
        thread_is_alive();
        Self {
            attempt: Span::none(),
            attempt_parent: span.clone().or_current(),
            span,
            sites,
            dispatch,
            live: live.clone(),
            run: run.clone(),
            attempts: 0,
        }
    }

    /// Returns the span of the current attempt, or of the run between two attempts.
    fn current(&self) -> &Span {
        if self.attempt.is_disabled() {
            &self.attempt_parent
        } else {
            &self.attempt
        }
    }

    /// Emits an event in the current span, if the subscriber wants it.
    fn event<'a>(&'a self, site: &'static Site, set: impl FnOnce(&mut Fields<'a>)) {
        if !thread_is_alive() || !site.is_enabled(&self.dispatch) {
            return;
        }
        let mut fields = Fields::new(site);
        fields.set(names::MESSAGE, site.metadata().name());
        // The span has it too, but the filter of a layer can disable spans.
        fields.set(names::SESSION_ID, text(self.run.id()));
        set(&mut fields);
        // Entered instead of passed as the parent: a layer that does not see this span then finds the next one.
        self.current()
            .in_scope(|| dispatcher::with_default(&self.dispatch, || fields.event()));
    }

    fn start_attempt(&mut self, number: u32, source: u32) {
        self.attempts = number;
        let Some(info) = self.run.source(source) else {
            return;
        };
        let site = self.sites.attempt;
        if !site.is_enabled(&self.dispatch) {
            return;
        }
        let mut fields = Fields::new(site);
        attributes::set_of_attempt(&mut fields, &self.run, info, &self.sites.settings.keys);
        fields.set(names::ATTEMPT, number);
        fields.set(names::SOURCE, source);
        let parent = self.attempt_parent.id();
        let span = dispatcher::with_default(&self.dispatch, || fields.span(parent));
        drop(fields);
        self.attempt = span;
    }

    fn end_attempt(&mut self, attempt: &AttemptStats) {
        let error = failure(attempt);
        if let Some(error) = error {
            self.event(self.sites.attempt_failed, |fields| {
                set_exception(fields, Some(&error.error_type), &error.message);
            });
        }
        let span = mem::replace(&mut self.attempt, Span::none());
        if span.is_disabled() {
            return;
        }
        let outcome = attempt.outcome.unwrap_or(Outcome::Other);
        let reasons = self.finish_reason(attempt).map(|reason| list(&[reason]));
        let mut fields = Fields::new(self.sites.attempt);
        fields.set(names::OUTCOME, outcome.as_str());
        fields.set_known(names::ERROR_TYPE, error.map(|error| &*error.error_type));
        for (name, value) in [
            (names::RESPONSE_MODEL, &attempt.response_model),
            (names::RESPONSE_ID, &attempt.response_id),
        ] {
            let value = value.as_deref().filter(|value| !value.is_empty());
            fields.set_known(name, value.map(text));
        }
        fields.set_known(names::FINISH_REASONS, reasons);
        set_status(&mut fields, error.map(|error| &*error.message));
        if self.run.measured() {
            numbers::set_of_attempt(&mut fields, attempt);
        }
        end(&self.dispatch, span, &fields);
    }

    /// Returns the finish reason of the model. Without one, an attempt that did not complete after its first token gets
    /// its outcome or `error` as the reason.
    fn finish_reason(&self, attempt: &AttemptStats) -> Option<&'static str> {
        let cut = match attempt.outcome? {
            Outcome::Completed => None,
            outcome if outcome.is_failure() => Some("error"),
            outcome => Some(outcome.as_str()),
        };
        let cut = cut.filter(|_| attempt.tokens > 0);
        let reason = attempt.finish_reason.map(|reason| reason.as_str());
        reason.or(cut).filter(|_| self.run.measured())
    }

    fn end_run(
        &mut self,
        run_end: &End,
        telemetry: Option<&Telemetry>,
        metadata: &Metadata,
        kept: Option<KeepReason>,
    ) {
        self.live.leave(self.run.id());
        // An abort has an error type too, but is not a failure.
        let error_type = run_end.error_type().filter(|_| run_end.is_failure());
        let message = run_end.message().unwrap_or_default();
        if run_end.is_failure() {
            self.event(self.sites.run_failed, |fields| {
                set_exception(fields, error_type.as_deref(), message);
            });
        }
        close(
            &self.dispatch,
            mem::replace(&mut self.attempt_parent, Span::none()),
        );
        let span = mem::replace(&mut self.span, Span::none());
        if span.is_disabled() {
            return;
        }
        let mut fields = Fields::new(self.sites.run);
        fields.set(names::OUTCOME, run_end.outcome().as_str());
        fields.set_known(names::ERROR_TYPE, error_type);
        fields.set(names::ATTEMPTS, self.attempts);
        fields.set_known(names::KEPT, kept.map(KeepReason::as_str));
        set_status(&mut fields, run_end.is_failure().then_some(message));
        if let Some(telemetry) = telemetry {
            numbers::set_of_run(&mut fields, telemetry);
        }
        if metadata != self.run.metadata() {
            attributes::set_of_run(&mut fields, metadata, &self.sites.settings.keys);
        }
        end(&self.dispatch, span, &fields);
    }

    /// Returns the name of a source in a fallback: its model, or its number if the model is unknown.
    fn name(&self, source: u32) -> String {
        let metadata = self.run.source(source).map(|source| &source.metadata);
        let model = metadata.and_then(|metadata| value(metadata, keys::MODEL));
        model.map_or_else(|| source.to_string(), |model| model.into_owned())
    }
}

/// Returns the error of an attempt that failed, or `None` if it completed, was aborted or was dropped.
fn failure(attempt: &AttemptStats) -> Option<&ErrorRecord> {
    let failed = attempt.outcome.is_some_and(Outcome::is_failure);
    attempt.error.as_ref().filter(|_| failed)
}

fn set_exception<'a>(fields: &mut Fields<'a>, error_type: Option<&'a str>, message: &'a str) {
    fields.set_known(names::EXCEPTION_TYPE, error_type.map(text));
    let message = Some(message).filter(|message| !message.is_empty());
    fields.set_known(names::EXCEPTION_MESSAGE, message);
}

/// Sets the status of a failed span. `message` is `None` if it did not fail.
fn set_status<'a>(fields: &mut Fields<'a>, message: Option<&'a str>) {
    if let Some(message) = message {
        fields.set(names::STATUS_CODE, "ERROR");
        let message = Some(message).filter(|message| !message.is_empty());
        fields.set_known(names::STATUS_DESCRIPTION, message);
    }
}

/// Ends a span of this subscriber.
fn end(dispatch: &Dispatch, span: Span, fields: &Fields<'_>) {
    // If a subscriber panics, the span is closed after the unwinding: a second panic during it would abort the
    // process.
    let recorded = catch_unwind(AssertUnwindSafe(|| {
        fields.record(&span);
        // For `tracing-opentelemetry`, a span ends when it is exited last, not when it closes.
        if thread_is_alive() {
            span.in_scope(|| ());
        }
    }));
    close(dispatch, span);
    if let Err(panic) = recorded {
        resume_unwind(panic);
    }
}

/// Closes a span of this subscriber. The subscriber must be current, because a registry closes the parents of a span
/// through the thread's current subscriber.
fn close(dispatch: &Dispatch, span: Span) {
    dispatcher::with_default(dispatch, || drop(span));
}

thread_local! {
    /// A value created after the thread-locals of subscribers and therefore destroyed before them. It is a `Box`,
    /// because only a value that needs a drop is destroyed.
    static AFTER_SUBSCRIBER: Box<()> = Box::default();
}

/// Returns `true` if spans can be entered on this thread. When a thread ends, the thread-locals of subscribers can be
/// destroyed already. Entering a span then panics.
fn thread_is_alive() -> bool {
    AFTER_SUBSCRIBER.try_with(|_| ()).is_ok()
}

impl Observer for ObservedRun {
    fn on_event(&mut self, event: &Event<'_>) {
        let sites = self.sites;
        match *event {
            Event::AttemptStarted { number, source, .. } => self.start_attempt(number, source),
            Event::AttemptFinished { attempt, .. } => self.end_attempt(attempt),
            Event::NetworkError {
                kind,
                message,
                delay,
                ..
            } => self.event(sites.network_error, |fields| {
                fields.set(names::ERROR_TYPE, kind.as_str());
                fields.set(names::EXCEPTION_MESSAGE, message);
                fields.set(names::RETRIED, delay.is_some());
            }),
            Event::Retry {
                attempt,
                reason,
                delay,
                kind,
                ..
            } => self.event(sites.retry, |fields| {
                fields.set(names::ATTEMPT, attempt);
                fields.set(names::RETRY_REASON, reason.as_str());
                fields.set(names::RETRY_KIND, kind.as_str());
                fields.set(names::RETRY_DELAY, delay.as_secs_f64());
            }),
            Event::Fallback { from, to, .. } => self.event(sites.fallback, |fields| {
                fields.set(names::FALLBACK_FROM, self.name(from));
                fields.set(names::FALLBACK_TO, self.name(to));
            }),
            Event::Violation { violation, .. } => self.event(sites.violation, |fields| {
                fields.set(names::RULE, text(&violation.rule));
                fields.set(names::SEVERITY, violation.severity.as_str());
                fields.set(names::RECOVERABLE, violation.recoverable);
            }),
            Event::Drift { report, .. } => self.event(sites.drift, |fields| {
                fields.set(names::DRIFT_TYPES, list(&report.types));
                fields.set(names::DRIFT_CONFIDENCE, report.confidence);
            }),
            Event::Finished {
                end,
                telemetry,
                metadata,
                kept,
                ..
            } => self.end_run(end, telemetry, metadata, kept),
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        self.current().in_scope(poll);
        // Creates the thread-local after those of the subscriber.
        thread_is_alive();
    }
}

/// Closes the spans that a panic has left open. Otherwise all spans are closed already.
impl Drop for ObservedRun {
    fn drop(&mut self) {
        self.live.leave(self.run.id());
        for span in [&mut self.attempt, &mut self.attempt_parent, &mut self.span] {
            let span = mem::replace(span, Span::none());
            if !span.is_none() {
                // Each span in its own `catch_unwind`, as in `end`.
                let _ = catch_unwind(AssertUnwindSafe(|| close(&self.dispatch, span)));
            }
        }
    }
}
