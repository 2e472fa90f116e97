//! Run: one run's span and counts, from its start to its end.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use l0_core::{Event, Observer, Outcome, RunInfo, Telemetry};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use tokio::time::Instant;

use crate::attributes::{Chosen, RunAttributes, text};
use crate::conventions::Conventions;
use crate::error_type::LastFailure;
use crate::instruments::Instruments;

/// Where runs are sent to: what they share.
#[derive(Debug)]
pub(crate) struct Outlets {
    pub(crate) conventions: &'static Conventions,
    /// Absent without metrics.
    pub(crate) instruments: Option<Instruments>,
    /// Absent without spans.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
    pub(crate) chosen: Chosen,
    pub(crate) chosen_for_spans: Chosen,
}

/// A run that has started. Its drop is its end, at the latest.
pub(crate) struct ObservedRun {
    outlets: Arc<Outlets>,
    attributes: RunAttributes,
    /// That of `start()`, with the run's span if there is one.
    context: Context,
    started: Started,
    attempts: u32,
    last_failure: LastFailure,
    /// How it ended, once it has.
    outcome: Outcome,
    /// What is still to be done at the end: each is done once, even if the other panics.
    span_is_open: bool,
    is_active: bool,
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

/// What is known of a run's end, besides its outcome.
#[derive(Default)]
struct End<'a> {
    telemetry: Option<&'a Telemetry>,
    error_type: Option<Cow<'static, str>>,
    message: Option<&'a str>,
    response_model: Option<&'a str>,
    response_id: Option<&'a str>,
}

impl ObservedRun {
    /// Called inside `start()`: the context that is current there is the caller's.
    pub(crate) fn start(outlets: Arc<Outlets>, run: &RunInfo) -> Self {
        let started = Started::now();
        let conventions = outlets.conventions;
        let attributes = RunAttributes::new(conventions, run, &outlets.chosen);
        let context = thread_has_context().then(Context::current);
        let mut context = context.unwrap_or_default();
        if let Some(tracer) = &outlets.tracer {
            let for_spans = &outlets.chosen_for_spans;
            let mut known = attributes.of_span(conventions, run, for_spans);
            let id = text(run.id());
            known.push(KeyValue::new(conventions.keys.session_id, id));
            let span = SpanBuilder::from_name(attributes.title.clone())
                .with_kind(SpanKind::Client)
                .with_start_time(started.at)
                .with_attributes(known);
            context = context.with_span(tracer.build_with_context(span, &context));
        }
        if let Some(instruments) = &outlets.instruments {
            instruments.active(&attributes, 1);
        }
        Self {
            span_is_open: outlets.tracer.is_some(),
            is_active: outlets.instruments.is_some(),
            outlets,
            attributes,
            context,
            started,
            attempts: 0,
            last_failure: LastFailure::default(),
            outcome: Outcome::Dropped,
        }
    }

    /// Adds an event to the span, if it keeps any.
    fn add_event(&self, name: &'static str, attributes: impl FnOnce() -> Vec<KeyValue>) {
        if self.span_is_open {
            let span = self.context.span();
            if span.is_recording() {
                span.add_event_with_timestamp(name, self.started.time(), attributes());
            }
        }
    }

    /// Counts something, while the span is current: it is what an exemplar leads to.
    fn count(&self, count: impl FnOnce(&Instruments, &RunAttributes)) {
        if let Some(instruments) = &self.outlets.instruments {
            let _current = thread_has_context().then(|| self.context.clone().attach());
            count(instruments, &self.attributes);
        }
    }

    fn finish(&mut self, end: &End<'_>) {
        if std::mem::take(&mut self.span_is_open) {
            self.end_span(end);
        }
        if std::mem::take(&mut self.is_active) {
            let keys = &self.outlets.conventions.keys;
            let mut known = vec![KeyValue::new(keys.outcome, self.outcome.as_str())];
            let error = end.error_type.clone();
            known.extend(error.map(|error| KeyValue::new(keys.error_type, error)));
            let model = end.response_model.filter(|model| !model.is_empty());
            known.extend(model.map(|model| KeyValue::new(keys.response_model, text(model))));
            self.count(|instruments, run| {
                instruments.active(run, -1);
                instruments.ended(run, &known);
                if let Some(telemetry) = end.telemetry {
                    instruments.measured(run, telemetry, &known);
                }
            });
        }
    }

    fn end_span(&self, end: &End<'_>) {
        let span = self.context.span();
        if span.is_recording() {
            span.set_attributes(self.end_attributes(end));
            if end.error_type.is_some() {
                span.set_status(Status::error(end.message.unwrap_or_default().to_owned()));
            }
        }
        span.end_with_timestamp(self.started.time());
    }

    fn end_attributes(&self, end: &End<'_>) -> Vec<KeyValue> {
        let keys = &self.outlets.conventions.keys;
        let mut known = vec![
            KeyValue::new(keys.outcome, self.outcome.as_str()),
            KeyValue::new(keys.attempts, i64::from(self.attempts)),
        ];
        let mut add = |key: &'static str, value: Option<Value>| {
            known.extend(value.map(|value| KeyValue::new(key, value)));
        };
        let said = |said: Option<&str>| {
            let said = said.filter(|said| !said.is_empty());
            said.map(|said| Value::String(text(said)))
        };
        add(keys.error_type, end.error_type.clone().map(Value::from));
        add(keys.response_model, said(end.response_model));
        add(keys.response_id, said(end.response_id));
        let Some(telemetry) = end.telemetry else {
            return known;
        };

        let reason = telemetry.finish_reason.map(|reason| {
            let reasons = vec![StringValue::from(reason.as_str())];
            Value::Array(Array::String(reasons))
        });
        add(keys.finish_reasons, reason);
        let first = telemetry.metrics.time_to_first_token;
        add(keys.time_to_first_chunk, first.map(seconds));
        add(keys.tokens, Some(whole(telemetry.metrics.total_tokens)));
        let usage = telemetry.usage.unwrap_or_default();
        add(keys.input_tokens, usage.input.map(whole));
        add(keys.output_tokens, usage.output.map(whole));
        add(keys.cached_input_tokens, usage.cached_input.map(whole));
        add(keys.reasoning_tokens, usage.reasoning.map(whole));
        known
    }
}

impl Observer for ObservedRun {
    fn on_event(&mut self, event: &Event<'_>) {
        let Conventions { keys, events, .. } = self.outlets.conventions;
        match *event {
            Event::AttemptStarted { number, .. } => {
                self.attempts = number;
                self.add_event(events.attempt, || {
                    vec![KeyValue::new(keys.attempt, i64::from(number))]
                });
            }
            Event::NetworkError {
                kind,
                message,
                retried,
                ..
            } => {
                let kind = KeyValue::new(keys.error_type, kind.as_str());
                self.count(|to, run| to.network_error(run, std::slice::from_ref(&kind)));
                self.add_event(events.network_error, || {
                    vec![
                        kind,
                        KeyValue::new(keys.error_message, message.to_owned()),
                        KeyValue::new(keys.retried, retried),
                    ]
                });
            }
            Event::Retry {
                attempt,
                reason,
                delay,
                network,
                ..
            } => {
                let what = [
                    KeyValue::new(keys.retry_reason, reason.as_str()),
                    KeyValue::new(keys.retry_kind, if network { "network" } else { "model" }),
                ];
                self.count(|to, run| to.retry(run, &what));
                self.add_event(events.retry, || {
                    let mut known = what.to_vec();
                    known.push(KeyValue::new(keys.attempt, i64::from(attempt)));
                    known.push(KeyValue::new(keys.retry_delay, seconds(delay)));
                    known
                });
            }
            Event::Violation { violation, .. } => {
                let what = [
                    KeyValue::new(keys.rule, text(&violation.rule)),
                    KeyValue::new(keys.severity, violation.severity.as_str()),
                ];
                self.count(|to, run| to.violation(run, &what));
                self.add_event(events.violation, || {
                    let mut known = what.to_vec();
                    known.push(KeyValue::new(keys.recoverable, violation.recoverable));
                    known
                });
            }
            Event::Drift { report, .. } => {
                self.count(|to, run| to.drift(run));
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
                outcome,
                telemetry,
                error,
                message,
                response_model,
                response_id,
                ..
            } => {
                self.outcome = outcome;
                let error_type = self.last_failure.error_type(outcome, error);
                self.finish(&End {
                    telemetry,
                    error_type,
                    message,
                    response_model,
                    response_id,
                });
            }
            _ => {}
        }
        self.last_failure.note(event);
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        let _current = self.context.clone().attach();
        poll();
    }
}

impl Drop for ObservedRun {
    fn drop(&mut self) {
        self.finish(&End::default());
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

fn seconds(duration: Duration) -> Value {
    Value::F64(duration.as_secs_f64())
}

fn whole(number: u64) -> Value {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}
