//! Run: one run's span and counts, from its start to its end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::SystemTime;

use l0_core::{
    AttemptStats, End, ErrorRecord, Event, KeyList, Metadata, Observer, Outcome, RunInfo,
    Telemetry, keys,
};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use tokio::time::Instant;

use crate::attributes::{SourceAttributes, of_run, text, value};
use crate::conventions::{Conventions, Keys};
use crate::instruments::Instruments;
use crate::live::LiveSpans;
use crate::numbers::SpanNumber;

/// Where runs are sent to, and what of them: what all runs share.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) conventions: &'static Conventions,
    /// Absent without metrics.
    pub(crate) instruments: Option<Instruments>,
    /// Absent without spans.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
    pub(crate) run_numbers: Vec<SpanNumber>,
    pub(crate) attempt_numbers: Vec<SpanNumber>,
    /// The metadata for spans and points.
    pub(crate) keys: KeyList,
    /// The metadata for spans, that for points included.
    pub(crate) span_keys: KeyList,
    pub(crate) live: LiveSpans,
}

/// A run that has started. Its drop is its end, at the latest.
pub(crate) struct ObservedRun {
    destination: Arc<Destination>,
    run: RunInfo,
    /// Of the run's own source.
    first: SourceAttributes,
    /// Of the fallbacks that were asked, in order.
    fallbacks: Vec<SourceAttributes>,
    /// That of `start()`, with the run's span if there is one.
    context: Context,
    /// The same with the span of the present attempt, if there are spans.
    attempt: Option<Context>,
    started: Started,
    attempts: u32,
    /// How it ended, once it has; dropped before.
    end: End,
    /// What is still to be done at the end: each is done once, even if the other panics.
    span_is_open: bool,
    is_active: bool,
    /// A panic that is to go on when all has been done.
    panic: Option<Box<dyn Any + Send>>,
}

/// When the run started: by the wall clock, read once, and by the monotonic one.
#[derive(Clone, Copy)]
struct Started {
    at: SystemTime,
    clock: Instant,
}

impl Started {
    fn now() -> Self {
        Self {
            at: SystemTime::now(),
            clock: Instant::now(),
        }
    }

    /// The time that is, by the wall clock of then: the times of one run are in order.
    fn time(self) -> SystemTime {
        self.at + self.clock.elapsed()
    }
}

impl ObservedRun {
    /// Called inside `start()`: the context that is current there is the caller's.
    pub(crate) fn start(destination: Arc<Destination>, run: &RunInfo) -> Self {
        let started = Started::now();
        let conventions = destination.conventions;
        let first = SourceAttributes::new(conventions, run.metadata(), &destination.keys);
        let context = thread_has_context().then(Context::current);
        let mut context = context.unwrap_or_default();
        if let Some(tracer) = &destination.tracer {
            let parent = run.parent_id().and_then(|id| destination.live.get(id));
            if let Some(parent) = parent {
                context = context.with_remote_span_context(parent);
            }
            let keys = &conventions.keys;
            let mut known = vec![KeyValue::new(keys.session_id, text(run.id()))];
            let parent = run.parent_id();
            known.extend(parent.map(|id| KeyValue::new(keys.parent_id, text(id))));
            known.extend(of_run(conventions, run.metadata(), &destination.span_keys));
            let span = SpanBuilder::from_name(conventions.run)
                .with_start_time(started.at)
                .with_attributes(known);
            context = context.with_span(tracer.build_with_context(span, &context));
            let span = context.span();
            destination.live.enter(run.id(), span.span_context());
        }
        if let Some(instruments) = &destination.instruments {
            instruments.active(&first, 1);
        }
        Self {
            span_is_open: destination.tracer.is_some(),
            is_active: destination.instruments.is_some(),
            destination,
            run: run.clone(),
            first,
            fallbacks: Vec::new(),
            context,
            attempt: None,
            started,
            attempts: 0,
            end: End::dropped(),
            panic: None,
        }
    }

    /// The attributes of a source that was asked, by its number from 1.
    fn source(&self, number: u32) -> &SourceAttributes {
        let fallback = number.checked_sub(2);
        let fallback = fallback.and_then(|index| self.fallbacks.get(index as usize));
        fallback.unwrap_or(&self.first)
    }

    /// Those of the source that was asked last.
    fn present_source(&self) -> &SourceAttributes {
        self.fallbacks.last().unwrap_or(&self.first)
    }

    /// The context of what happens now: that of the attempt, or of the run between two of them.
    fn present_context(&self) -> &Context {
        self.attempt.as_ref().unwrap_or(&self.context)
    }

    /// Adds an event to the span of what happens now, if it keeps any.
    fn add_event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if self.span_is_open {
            let span = self.present_context().span();
            if span.is_recording() {
                span.add_event_with_timestamp(name, self.started.time(), attributes());
            }
        }
    }

    /// Counts something, while the span of what happens now is current: it is what an exemplar leads to.
    fn count(&self, count: impl FnOnce(&Instruments, &SourceAttributes)) {
        if let Some(instruments) = &self.destination.instruments {
            let _current = thread_has_context().then(|| self.present_context().clone().attach());
            count(instruments, self.present_source());
        }
    }

    fn start_attempt(&mut self, number: u32, source: u32) {
        let Destination {
            conventions,
            tracer,
            keys,
            span_keys,
            ..
        } = &*self.destination;
        self.attempts = number;
        let Some(asked) = self.run.source(source) else {
            return;
        };
        // Sources are asked in order.
        if source as usize > 1 + self.fallbacks.len() {
            let attributes = SourceAttributes::new(conventions, &asked.metadata, keys);
            self.fallbacks.push(attributes);
        }
        let Some(tracer) = tracer else {
            return;
        };
        let attributes = self.present_source();
        let mut known = attributes.of_attempt(conventions, &self.run, asked, span_keys);
        let Keys {
            attempt,
            source: key,
            ..
        } = conventions.keys;
        known.push(KeyValue::new(attempt, i64::from(number)));
        known.push(KeyValue::new(key, i64::from(source)));
        let span = SpanBuilder::from_name(attributes.title.clone())
            .with_kind(SpanKind::Client)
            .with_start_time(self.started.time())
            .with_attributes(known);
        let span = tracer.build_with_context(span, &self.context);
        self.attempt = Some(self.context.with_span(span));
    }

    /// Ends the span of the present attempt, if there is one. Without results, the attempt was dropped.
    fn end_attempt(&mut self, results: Option<&AttemptStats>) {
        let Some(context) = self.attempt.take() else {
            return;
        };
        let span = context.span();
        if span.is_recording() {
            match results {
                Some(results) => {
                    span.set_attributes(self.attempt_results(results));
                    if let Some(error) = failure(results) {
                        span.set_status(Status::error(error.message.clone()));
                    }
                }
                None => {
                    let outcome = self.destination.conventions.keys.outcome;
                    span.set_attribute(KeyValue::new(outcome, self.end.outcome().as_str()));
                }
            }
        }
        span.end_with_timestamp(self.started.time());
    }

    /// What the span of an attempt says at its end.
    fn attempt_results(&self, attempt: &AttemptStats) -> Vec<KeyValue> {
        let keys = &self.destination.conventions.keys;
        let outcome = attempt.outcome.unwrap_or(Outcome::Other);
        let mut known = vec![KeyValue::new(keys.outcome, outcome.as_str())];
        let error = failure(attempt);
        known.extend(error.map(|error| KeyValue::new(keys.error_type, error.error_type.clone())));
        for (key, name) in [
            (keys.response_model, &attempt.response_model),
            (keys.response_id, &attempt.response_id),
        ] {
            let name = not_empty(name.as_deref());
            known.extend(name.map(|name| KeyValue::new(key, name)));
        }
        if self.run.measured() {
            let telemetry = alone(attempt);
            known.extend(telemetry.finish_reason_or_error().map(|reason| {
                let reasons = vec![StringValue::from(reason)];
                KeyValue::new(keys.finish_reasons, Value::Array(Array::String(reasons)))
            }));
            add_numbers(&self.destination.attempt_numbers, &telemetry, &mut known);
        }
        known
    }

    fn finish(&mut self, telemetry: Option<&Telemetry>, metadata: Option<&Metadata>) {
        self.end_attempt(None);
        if std::mem::take(&mut self.span_is_open) {
            self.end_span(telemetry, metadata);
        }
        if std::mem::take(&mut self.is_active) {
            let known = self.end_attributes();
            self.count(|instruments, last| {
                instruments.active(&self.first, -1);
                instruments.ended(&self.first, &known);
                if self.end.is_failure() {
                    instruments.failed(last, &known);
                }
                if let Some(telemetry) = telemetry {
                    self.measured(instruments, telemetry, &known);
                }
            });
        }
    }

    /// Records the numbers of each source under its own attributes.
    fn measured(&self, instruments: &Instruments, telemetry: &Telemetry, known: &[KeyValue]) {
        let response_model = self.destination.conventions.keys.response_model;
        telemetry.by_source(&mut |part| {
            let answered = part.telemetry.attempts.last();
            let model = answered.and_then(|attempt| not_empty(attempt.response_model.as_deref()));
            let mut known = known.to_vec();
            known.extend(model.map(|model| KeyValue::new(response_model, model)));
            instruments.measured(self.source(part.source), part.telemetry, &known);
        });
    }

    /// Returns what both the span and the points of a run that has ended say.
    fn end_attributes(&self) -> Vec<KeyValue> {
        let keys = &self.destination.conventions.keys;
        let mut known = vec![KeyValue::new(keys.outcome, self.end.outcome().as_str())];
        // An abort has a type too, but is no error.
        if self.end.is_failure() {
            let error_type = self.end.error_type();
            known.extend(error_type.map(|error| KeyValue::new(keys.error_type, error)));
        }
        known
    }

    fn end_span(&self, telemetry: Option<&Telemetry>, metadata: Option<&Metadata>) {
        let Destination {
            conventions,
            run_numbers,
            span_keys,
            live,
            ..
        } = &*self.destination;
        live.leave(self.run.id());
        let span = self.context.span();
        if span.is_recording() {
            let mut known = self.end_attributes();
            let attempts = i64::from(self.attempts);
            known.push(KeyValue::new(conventions.keys.attempts, attempts));
            if let Some(telemetry) = telemetry {
                add_numbers(run_numbers, telemetry, &mut known);
            }
            let before = self.run.metadata();
            if let Some(late) = metadata.filter(|metadata| *metadata != before) {
                let before = of_run(conventions, before, span_keys);
                let late = of_run(conventions, late, span_keys).into_iter();
                known.extend(late.filter(|one| !before.contains(one)));
            }
            span.set_attributes(known);
            if self.end.is_failure() {
                let message = self.end.message().unwrap_or_default();
                span.set_status(Status::error(message.to_owned()));
            }
        }
        span.end_with_timestamp(self.started.time());
    }

    /// What a source is called where one follows another: its model, or else its number.
    fn name(&self, source: u32) -> StringValue {
        let metadata = self.run.source(source).map(|source| &source.metadata);
        let model = metadata.and_then(|metadata| value(metadata, keys::MODEL));
        model.unwrap_or_else(|| source.to_string().into())
    }
}

/// Why an attempt failed; none if it completed, was aborted or was dropped.
fn failure(attempt: &AttemptStats) -> Option<&ErrorRecord> {
    let failed = attempt.outcome.is_some_and(Outcome::is_failure);
    attempt.error.as_ref().filter(|_| failed)
}

/// The telemetry of an attempt alone, as of a run that made no other: of it what an attempt's span says.
fn alone(attempt: &AttemptStats) -> Telemetry {
    let mut telemetry = Telemetry::default();
    telemetry.outcome = attempt.outcome;
    telemetry.finish_reason = attempt.finish_reason;
    telemetry.usage = attempt.usage;
    telemetry.metrics.total_tokens = attempt.tokens;
    telemetry.metrics.time_to_first_token = attempt.time_to_first_token;
    telemetry
}

fn add_numbers(numbers: &[SpanNumber], telemetry: &Telemetry, known: &mut Vec<KeyValue>) {
    for number in numbers {
        let value = number.value(telemetry);
        known.extend(value.map(|value| KeyValue::new(number.key.clone(), value)));
    }
}

impl Observer for ObservedRun {
    fn on_event(&mut self, event: &Event<'_>) {
        let Conventions { keys, events, .. } = self.destination.conventions;
        match *event {
            Event::AttemptStarted { number, source, .. } => self.start_attempt(number, source),
            Event::AttemptFinished { attempt, .. } => {
                // A span processor that panics must not cost what the run has still to say.
                let end = AssertUnwindSafe(|| self.end_attempt(Some(attempt)));
                let ended = catch_unwind(end);
                self.panic = self.panic.take().or(ended.err());
            }
            Event::NetworkError {
                kind,
                message,
                delay,
                ..
            } => {
                let kind = KeyValue::new(keys.error_type, kind.as_str());
                self.count(|to, source| to.network_error(source, std::slice::from_ref(&kind)));
                self.add_event(events.network_error, || {
                    vec![
                        kind,
                        KeyValue::new(keys.error_message, message.to_owned()),
                        KeyValue::new(keys.retried, delay.is_some()),
                    ]
                });
            }
            Event::Retry {
                attempt,
                reason,
                delay,
                kind,
                ..
            } => {
                let what = [
                    KeyValue::new(keys.retry_reason, reason.as_str()),
                    KeyValue::new(keys.retry_kind, kind.as_str()),
                ];
                self.count(|to, source| to.retry(source, &what));
                self.add_event(events.retry, || {
                    let mut known = what.to_vec();
                    known.push(KeyValue::new(keys.attempt, i64::from(attempt)));
                    known.push(KeyValue::new(keys.retry_delay, delay.as_secs_f64()));
                    known
                });
            }
            Event::Fallback { from, to, .. } => {
                let what = [
                    KeyValue::new(keys.fallback_from, self.name(from)),
                    KeyValue::new(keys.fallback_to, self.name(to)),
                ];
                self.count(|to, source| to.fallback(source, &what));
                self.add_event(events.fallback, || what.to_vec());
            }
            Event::Violation { violation, .. } => {
                let what = [
                    KeyValue::new(keys.rule, text(&violation.rule)),
                    KeyValue::new(keys.severity, violation.severity.as_str()),
                ];
                self.count(|to, source| to.violation(source, &what));
                self.add_event(events.violation, || {
                    let mut known = what.to_vec();
                    known.push(KeyValue::new(keys.recoverable, violation.recoverable));
                    known
                });
            }
            Event::Drift { report, .. } => {
                self.count(|to, source| to.drift(source));
                self.add_event(events.drift, || {
                    let types = report.types.iter().map(|kind| text(kind)).collect();
                    let types = Value::Array(Array::String(types));
                    vec![
                        KeyValue::new(keys.drift_types, types),
                        KeyValue::new(keys.drift_confidence, report.confidence),
                    ]
                });
            }
            Event::Finished {
                end,
                telemetry,
                metadata,
                ..
            } => {
                self.end = end.clone();
                self.finish(telemetry, Some(metadata));
                if let Some(panic) = self.panic.take() {
                    resume_unwind(panic);
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        let _current = self.present_context().clone().attach();
        poll();
    }
}

impl Drop for ObservedRun {
    fn drop(&mut self) {
        self.finish(None, None);
    }
}

thread_local! {
    /// Made after the thread's context, and so destroyed before it. It has something to drop, or it
    /// would not be destroyed.
    static AFTER_CONTEXT: Box<()> = {
        drop(Context::current());
        Box::default()
    };
}

/// Whether this thread has a current context. It has none any more when it ends and drops what it
/// kept; whoever asks for it then panics.
fn thread_has_context() -> bool {
    AFTER_CONTEXT.try_with(|_| ()).is_ok()
}

fn not_empty(value: Option<&str>) -> Option<StringValue> {
    value.filter(|value| !value.is_empty()).map(text)
}
