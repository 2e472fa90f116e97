//! The observer of one run: its spans and metrics, from its start to its end.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use l0_core::{
    AnswerBuffer, AttemptStats, Content, End, ErrorRecord, Event, Interest, KeepReason, KeyList,
    Metadata, Observer, Outcome, RunInfo, Telemetry, TokenView, keys,
};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanBuilder, SpanKind, SpanRef, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use serde_json::Value as Json;
use tokio::time::Instant;

use crate::attributes::{SourceAttributes, of_run, text, value};
use crate::conventions::{Keys, Table};
use crate::dialect::{self, On, Row};
use crate::gaps::Gaps;
use crate::instruments::Instruments;
use crate::live::LiveSpans;
use crate::numbers::SpanNumber;

/// The settings and instruments that all runs of an interceptor share.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) conventions: &'static Table,
    /// Absent if metrics are disabled.
    pub(crate) instruments: Option<Instruments>,
    /// Absent if spans are disabled.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
    pub(crate) run_numbers: Vec<SpanNumber>,
    pub(crate) attempt_numbers: Vec<SpanNumber>,
    /// The metadata keys for spans and points.
    pub(crate) keys: KeyList,
    /// The metadata keys for spans, a superset of `keys`.
    pub(crate) span_keys: KeyList,
    pub(crate) live: LiveSpans,
    /// The rows of all dialects.
    pub(crate) rows: Vec<&'static Row>,
    /// The limits and mask of prompts and answers. Absent if these are not sent.
    pub(crate) content: Option<Content>,
}

/// A run that has started. It ends at the latest when it is dropped.
pub(crate) struct ObservedRun {
    destination: Arc<Destination>,
    run: RunInfo,
    /// The attributes of the run's first source.
    first: SourceAttributes,
    /// The attributes of the fallbacks called so far, in order.
    fallbacks: Vec<SourceAttributes>,
    /// The context of `start()`, with the run's span if spans are enabled.
    context: Context,
    /// The attributes of the run's span at its start.
    known: Vec<KeyValue>,
    /// The current attempt, if spans are enabled.
    attempt: Option<Attempt>,
    /// The gaps that are not recorded yet. Absent if gaps are not measured.
    gaps: Option<Gaps>,
    /// The answer of the current attempt. Absent if content is not sent.
    captured: Option<AnswerBuffer>,
    started: Started,
    attempts: u32,
    /// The end of the run. Until the run has finished: dropped.
    end: End,
    /// `true` until the span has ended. Separate from `is_active`: each step is done once, even if the other
    /// panics.
    span_is_open: bool,
    /// `true` until the run has been counted as ended.
    is_active: bool,
    /// A panic to resume after the run has been recorded.
    panic: Option<Box<dyn Any + Send>>,
}

/// A live attempt.
struct Attempt {
    /// The run's context, with the span of the attempt.
    context: Context,
    /// The attributes of the span at its start. Empty without dialects.
    known: Vec<KeyValue>,
    started: SystemTime,
    source: u32,
}

/// The start of the run: the wall clock, which is read once, and the monotonic clock.
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

    /// Returns the current time, counted from the wall clock at the start. The times of a run are therefore
    /// in order even if the wall clock is set back.
    fn time(self) -> SystemTime {
        self.at + self.clock.elapsed()
    }
}

impl ObservedRun {
    /// Starts to observe a run. Called inside `start()`, where the current context is the caller's.
    pub(crate) fn start(destination: Arc<Destination>, run: &RunInfo) -> Self {
        let started = Started::now();
        let conventions = destination.conventions;
        let first = SourceAttributes::new(conventions, run.metadata(), &destination.keys);
        let context = thread_has_context().then(Context::current);
        let mut context = context.unwrap_or_default();
        let mut known = Vec::new();
        if let Some(tracer) = &destination.tracer {
            let parent = run.parent_id().and_then(|id| destination.live.get(id));
            if let Some(parent) = parent {
                context = context.with_remote_span_context(parent);
            }
            let keys = &conventions.keys;
            known.push(KeyValue::new(keys.session_id, text(run.id())));
            let parent = run.parent_id();
            known.extend(parent.map(|id| KeyValue::new(keys.parent_id, text(id))));
            known.extend(of_run(conventions, run.metadata(), &destination.span_keys));
            let span = SpanBuilder::from_name(conventions.run)
                .with_start_time(started.at)
                .with_attributes(known.clone());
            context = context.with_span(tracer.build_with_context(span, &context));
            let span = context.span();
            destination.live.enter(run.id(), span.span_context());
        }
        if let Some(instruments) = &destination.instruments {
            instruments.active(&first, 1);
        }
        let content = destination.content.as_ref();
        let content = content.filter(|_| context.span().is_recording());
        let has_gaps = destination.instruments.is_some() && run.measured();
        Self {
            gaps: has_gaps.then(Gaps::new),
            captured: content.map(Content::buffer),
            span_is_open: destination.tracer.is_some(),
            is_active: destination.instruments.is_some(),
            destination,
            run: run.clone(),
            first,
            fallbacks: Vec::new(),
            context,
            known,
            attempt: None,
            started,
            attempts: 0,
            end: End::dropped(),
            panic: None,
        }
    }

    /// Returns the attributes of a source that was called, by its number, which starts at 1.
    fn source(&self, number: u32) -> &SourceAttributes {
        let fallback = number.checked_sub(2);
        let fallback = fallback.and_then(|index| self.fallbacks.get(index as usize));
        fallback.unwrap_or(&self.first)
    }

    /// Returns the attributes of the source that was called last.
    fn current_source(&self) -> &SourceAttributes {
        self.fallbacks.last().unwrap_or(&self.first)
    }

    /// Returns the context of the current attempt, or of the run between two attempts.
    fn current_context(&self) -> &Context {
        let attempt = self.attempt.as_ref();
        attempt.map_or(&self.context, |attempt| &attempt.context)
    }

    /// Adds an event to the current span, if it is recording.
    fn add_event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if self.span_is_open {
            let span = self.current_context().span();
            if span.is_recording() {
                span.add_event_with_timestamp(name, self.started.time(), attributes());
            }
        }
    }

    /// Records a metric while the span of the attempt or run is current, because exemplars refer to it.
    fn count(&self, count: impl FnOnce(&Instruments, &SourceAttributes)) {
        if let Some(instruments) = &self.destination.instruments {
            let _current = thread_has_context().then(|| self.current_context().clone().attach());
            count(instruments, self.current_source());
        }
    }

    fn token(&mut self, gap: Option<Duration>, view: &TokenView<'_>) {
        if let Some(captured) = &mut self.captured {
            captured.add(view);
        }
        if let (Some(gaps), Some(gap)) = (&mut self.gaps, gap) {
            if gaps.push(gap) {
                self.record_gaps(view.model);
            }
        }
    }

    /// Records the gaps of the current attempt that are not recorded yet.
    fn record_gaps(&mut self, response_model: Option<&str>) {
        let Some(mut gaps) = self.gaps.take() else {
            return;
        };
        if !gaps.all.is_empty() {
            let key = self.destination.conventions.keys.response_model;
            let of_points = &self.current_source().of_points;
            gaps.prepare(of_points, key, response_model);
            let gaps = &gaps;
            self.count(|to, _| to.gaps(&gaps.all, &gaps.attributes));
        }
        gaps.all.clear();
        self.gaps = Some(gaps);
    }

    fn start_attempt(&mut self, number: u32, source: u32) {
        let Destination {
            conventions,
            tracer,
            keys,
            span_keys,
            rows,
            ..
        } = &*self.destination;
        self.attempts = number;
        if let Some(gaps) = &mut self.gaps {
            gaps.reset();
        }
        if let Some(captured) = &mut self.captured {
            captured.clear();
        }
        let Some(info) = self.run.source(source) else {
            return;
        };
        // Sources are called in order.
        if source as usize > 1 + self.fallbacks.len() {
            let attributes = SourceAttributes::new(conventions, &info.metadata, keys);
            self.fallbacks.push(attributes);
        }
        let Some(tracer) = tracer else {
            return;
        };
        let attributes = self.current_source();
        let mut known = attributes.of_attempt(conventions, &self.run, info, span_keys);
        let Keys {
            attempt,
            source: key,
            ..
        } = conventions.keys;
        known.push(KeyValue::new(attempt, i64::from(number)));
        known.push(KeyValue::new(key, i64::from(source)));
        let started = self.started.time();
        let span = SpanBuilder::from_name(attributes.title.clone())
            .with_kind(SpanKind::Client)
            .with_start_time(started)
            .with_attributes(known.clone());
        let span = tracer.build_with_context(span, &self.context);
        if rows.is_empty() {
            known.clear();
        }
        self.attempt = Some(Attempt {
            context: self.context.with_span(span),
            known,
            started,
            source,
        });
    }

    /// Ends the span of the current attempt, if there is one. Without results, the attempt was dropped.
    fn end_attempt(&mut self, results: Option<&AttemptStats>) {
        let Some(mut attempt) = self.attempt.take() else {
            return;
        };
        let context = attempt.context.clone();
        let span = context.span();
        if span.is_recording() {
            let telemetry = results.map(AttemptStats::to_telemetry);
            let known = match (results, &telemetry) {
                (Some(results), Some(telemetry)) => self.attempt_results(results, telemetry),
                _ => {
                    let outcome = self.destination.conventions.keys.outcome;
                    vec![KeyValue::new(outcome, self.end.outcome().as_str())]
                }
            };
            if let Some(error) = results.and_then(failure) {
                self.fail(&span, Some(&error.error_type), &error.message);
            }
            span.set_attributes(known.iter().cloned());
            attempt.known.extend(known);
            self.add_of_dialects(&mut attempt, telemetry.as_ref());
            // Last, because an attribute limit drops what is set last.
            let ended = results.zip(telemetry.as_ref());
            let reason = ended.and_then(|(results, telemetry)| finish_reason(results, telemetry));
            let content = self.content(attempt.source, reason);
            if !content.is_empty() {
                span.set_attributes(content.iter().cloned());
                attempt.known.extend(content);
                self.add_of_dialects(&mut attempt, telemetry.as_ref());
            }
        }
        span.end_with_timestamp(self.started.time());
    }

    /// Adds the attributes of the dialects to an attempt's span.
    fn add_of_dialects(&self, attempt: &mut Attempt, telemetry: Option<&Telemetry>) {
        let metadata = self.run.source(attempt.source);
        let metadata = metadata.map_or(self.run.metadata(), |source| &source.metadata);
        let added = self.of_dialects(
            On::Attempts,
            &dialect::EndingSpan {
                known: &attempt.known,
                telemetry: telemetry.filter(|_| self.run.measured()),
                metadata,
                start: attempt.started,
            },
        );
        attempt.context.span().set_attributes(added.iter().cloned());
        attempt.known.extend(added);
    }

    /// Returns the prompt and the answer of an attempt, if content is sent.
    fn content(&self, source: u32, reason: Option<&'static str>) -> Vec<KeyValue> {
        let Destination {
            conventions,
            content,
            ..
        } = &*self.destination;
        let (Some(captured), Some(content)) = (&self.captured, content) else {
            return Vec::new();
        };
        let keys = &conventions.keys;
        let input = self
            .run
            .source(source)
            .and_then(|source| source.input.as_deref());
        let prompt = input.map(|input| content.prompt(input)).unwrap_or_default();
        let answered = content.answer(captured, reason);
        let all = [
            (keys.system_instructions, prompt.instructions),
            (keys.input_messages, prompt.messages),
            (keys.output_messages, answered),
            (keys.tool_definitions, prompt.tools),
        ];
        let known = all.into_iter().filter(|(_, messages)| !messages.is_empty());
        known
            .map(|(key, messages)| KeyValue::new(key, Json::Array(messages).to_string()))
            .collect()
    }

    fn of_dialects(&self, on: On, span: &dialect::EndingSpan<'_>) -> Vec<KeyValue> {
        dialect::attributes(&self.destination.rows, on, span)
    }

    /// Marks a span as failed.
    fn fail(&self, span: &SpanRef<'_>, error_type: Option<&str>, message: &str) {
        let Table { keys, events, .. } = self.destination.conventions;
        let error_type = error_type.map(|kind| KeyValue::new(keys.exception_type, text(kind)));
        let mut known = Vec::from_iter(error_type);
        if !message.is_empty() {
            known.push(KeyValue::new(keys.error_message, message.to_owned()));
        }
        span.add_event_with_timestamp(events.exception, self.started.time(), known);
        span.set_status(Status::error(message.to_owned()));
    }

    /// Returns the attributes of an attempt's span at its end.
    fn attempt_results(&self, attempt: &AttemptStats, telemetry: &Telemetry) -> Vec<KeyValue> {
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
            let reason = finish_reason(attempt, telemetry);
            known.extend(reason.map(|reason| {
                let reasons = vec![StringValue::from(reason)];
                KeyValue::new(keys.finish_reasons, Value::Array(Array::String(reasons)))
            }));
            add_numbers(&self.destination.attempt_numbers, telemetry, &mut known);
        }
        known
    }

    fn finish(
        &mut self,
        telemetry: Option<&Telemetry>,
        metadata: Option<&Metadata>,
        kept: Option<KeepReason>,
    ) {
        self.record_gaps(None);
        self.end_attempt(None);
        if std::mem::take(&mut self.span_is_open) {
            self.end_span(telemetry, metadata, kept);
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

    /// Returns the attributes that the run's span and points share at the end.
    fn end_attributes(&self) -> Vec<KeyValue> {
        let keys = &self.destination.conventions.keys;
        let mut known = vec![KeyValue::new(keys.outcome, self.end.outcome().as_str())];
        // An abort has an error type too, but is not a failure.
        if self.end.is_failure() {
            let error_type = self.end.error_type();
            known.extend(error_type.map(|error| KeyValue::new(keys.error_type, error)));
        }
        known
    }

    fn end_span(
        &self,
        telemetry: Option<&Telemetry>,
        metadata: Option<&Metadata>,
        kept: Option<KeepReason>,
    ) {
        let Destination {
            conventions,
            run_numbers,
            span_keys,
            live,
            rows,
            ..
        } = &*self.destination;
        live.leave(self.run.id());
        let span = self.context.span();
        if span.is_recording() {
            let before = self.run.metadata();
            let mut known = self.end_attributes();
            let attempts = i64::from(self.attempts);
            known.push(KeyValue::new(conventions.keys.attempts, attempts));
            known.extend(kept.map(|why| KeyValue::new(conventions.keys.kept, why.as_str())));
            if let Some(telemetry) = telemetry {
                add_numbers(run_numbers, telemetry, &mut known);
            }
            if let Some(late) = metadata.filter(|metadata| *metadata != before) {
                let before = of_run(conventions, before, span_keys);
                let late = of_run(conventions, late, span_keys).into_iter();
                known.extend(late.filter(|one| !before.contains(one)));
            }
            if self.end.is_failure() {
                let message = self.end.message().unwrap_or_default();
                self.fail(&span, self.end.error_type().as_deref(), message);
            }
            span.set_attributes(known.iter().cloned());
            if !rows.is_empty() {
                span.set_attributes(self.of_dialects(
                    On::Runs,
                    &dialect::EndingSpan {
                        known: &[&*self.known, &*known].concat(),
                        telemetry,
                        metadata: metadata.unwrap_or(before),
                        start: self.started.at,
                    },
                ));
            }
        }
        span.end_with_timestamp(self.started.time());
    }

    /// Returns the name of a source in a fallback: its model, or its number if the model is unknown.
    fn name(&self, source: u32) -> StringValue {
        let metadata = self.run.source(source).map(|source| &source.metadata);
        let model = metadata.and_then(|metadata| value(metadata, keys::MODEL));
        model.unwrap_or_else(|| source.to_string().into())
    }
}

/// Returns the error of an attempt that failed, or `None` if it completed, was aborted or was dropped.
fn failure(attempt: &AttemptStats) -> Option<&ErrorRecord> {
    let failed = attempt.outcome.is_some_and(Outcome::is_failure);
    attempt.error.as_ref().filter(|_| failed)
}

/// Returns the finish reason of the model. Without one, an attempt that did not complete after its first token
/// gets its outcome or `error` as the reason.
fn finish_reason(attempt: &AttemptStats, telemetry: &Telemetry) -> Option<&'static str> {
    // An attempt that was aborted or dropped while it answered has no finish reason of the model.
    let stopped = attempt
        .outcome
        .filter(|outcome| !outcome.is_failure() && *outcome != Outcome::Completed)
        .filter(|_| attempt.tokens > 0);
    let reason = telemetry.finish_reason_or_error();
    reason.or(stopped.map(Outcome::as_str))
}

fn add_numbers(numbers: &[SpanNumber], telemetry: &Telemetry, known: &mut Vec<KeyValue>) {
    for number in numbers {
        let value = number.value(telemetry);
        known.extend(value.map(|value| KeyValue::new(number.key.clone(), value)));
    }
}

impl Observer for ObservedRun {
    fn interest(&self) -> Interest {
        if self.gaps.is_some() || self.captured.is_some() {
            Interest::TOKENS
        } else {
            Interest::LIFECYCLE
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        let Table { keys, events, .. } = self.destination.conventions;
        match *event {
            Event::AttemptStarted { number, source, .. } => self.start_attempt(number, source),
            Event::Token { gap, view, .. } => self.token(gap, &view),
            Event::Answer { view, .. } => self.token(None, &view),
            Event::AttemptFinished { attempt, .. } => {
                // If a span processor panics here, the rest of the run must still be recorded.
                let end = AssertUnwindSafe(|| {
                    self.record_gaps(attempt.response_model.as_deref());
                    self.end_attempt(Some(attempt));
                });
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
                kept,
                ..
            } => {
                self.end = end.clone();
                self.finish(telemetry, Some(metadata), kept);
                if let Some(panic) = self.panic.take() {
                    resume_unwind(panic);
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        let _current = self.current_context().clone().attach();
        poll();
    }
}

impl Drop for ObservedRun {
    fn drop(&mut self) {
        self.finish(None, None, None);
    }
}

thread_local! {
    /// A value created after the thread's context and therefore destroyed before it. It is a `Box`, because
    /// only a value that needs a drop is destroyed.
    static AFTER_CONTEXT: Box<()> = {
        drop(Context::current());
        Box::default()
    };
}

/// Returns `true` if this thread still has a current context. After a thread has destroyed its context,
/// reading it panics.
fn thread_has_context() -> bool {
    AFTER_CONTEXT.try_with(|_| ()).is_ok()
}

fn not_empty(value: Option<&str>) -> Option<StringValue> {
    value.filter(|value| !value.is_empty()).map(text)
}
