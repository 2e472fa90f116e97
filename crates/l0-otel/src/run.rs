//! Run: one run's span and counts, from its start to its end.

use std::sync::Arc;
use std::time::SystemTime;

use l0_core::{End, Event, KeyList, Observer, RunInfo, Telemetry};
use opentelemetry::global::BoxedTracer;
use opentelemetry::trace::{SpanBuilder, SpanKind, Status, TraceContextExt, Tracer};
use opentelemetry::{Array, Context, KeyValue, StringValue, Value};
use tokio::time::Instant;

use crate::attributes::{RunAttributes, text};
use crate::conventions::Conventions;
use crate::instruments::Instruments;
use crate::numbers::SpanNumber;

/// Where runs are sent to, and what of them: what all runs share.
#[derive(Debug)]
pub(crate) struct Destination {
    pub(crate) conventions: &'static Conventions,
    /// Absent without metrics.
    pub(crate) instruments: Option<Instruments>,
    /// Absent without spans.
    pub(crate) tracer: Option<Arc<BoxedTracer>>,
    pub(crate) span_numbers: Vec<SpanNumber>,
    /// The metadata for spans and points.
    pub(crate) keys: KeyList,
    /// The metadata for spans, that for points included.
    pub(crate) span_keys: KeyList,
}

/// A run that has started. Its drop is its end, at the latest.
pub(crate) struct ObservedRun {
    destination: Arc<Destination>,
    attributes: RunAttributes,
    /// That of `start()`, with the run's span if there is one.
    context: Context,
    started: Started,
    attempts: u32,
    /// How it ended, once it has; dropped before.
    end: End,
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

/// What is known of a run once it has ended, besides its end.
#[derive(Default)]
struct Results<'a> {
    telemetry: Option<&'a Telemetry>,
    response_model: Option<&'a str>,
    response_id: Option<&'a str>,
}

impl ObservedRun {
    /// Called inside `start()`: the context that is current there is the caller's.
    pub(crate) fn start(destination: Arc<Destination>, run: &RunInfo) -> Self {
        let started = Started::now();
        let conventions = destination.conventions;
        let attributes = RunAttributes::new(conventions, run, &destination.keys);
        let context = thread_has_context().then(Context::current);
        let mut context = context.unwrap_or_default();
        if let Some(tracer) = &destination.tracer {
            let known = attributes.of_span(conventions, run, &destination.span_keys);
            let span = SpanBuilder::from_name(attributes.title.clone())
                .with_kind(SpanKind::Client)
                .with_start_time(started.at)
                .with_attributes(known);
            context = context.with_span(tracer.build_with_context(span, &context));
        }
        if let Some(instruments) = &destination.instruments {
            instruments.active(&attributes, 1);
        }
        Self {
            span_is_open: destination.tracer.is_some(),
            is_active: destination.instruments.is_some(),
            destination,
            attributes,
            context,
            started,
            attempts: 0,
            end: End::dropped(),
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
        if let Some(instruments) = &self.destination.instruments {
            let _current = thread_has_context().then(|| self.context.clone().attach());
            count(instruments, &self.attributes);
        }
    }

    fn finish(&mut self, results: &Results<'_>) {
        if std::mem::take(&mut self.span_is_open) {
            self.end_span(results);
        }
        if std::mem::take(&mut self.is_active) {
            let known = self.end_attributes(results.response_model);
            self.count(|instruments, run| {
                instruments.active(run, -1);
                instruments.ended(run, &known, self.end.is_failure());
                if let Some(telemetry) = results.telemetry {
                    instruments.measured(run, telemetry, &known);
                }
            });
        }
    }

    /// Returns what both the span and the points of a run that has ended say.
    fn end_attributes(&self, response_model: Option<&str>) -> Vec<KeyValue> {
        let keys = &self.destination.conventions.keys;
        let mut known = vec![KeyValue::new(keys.outcome, self.end.outcome().as_str())];
        // An abort has a type too, but is no error.
        if self.end.is_failure() {
            let error_type = self.end.error_type();
            known.extend(error_type.map(|error| KeyValue::new(keys.error_type, error)));
        }
        let model = not_empty(response_model);
        known.extend(model.map(|model| KeyValue::new(keys.response_model, model)));
        known
    }

    fn end_span(&self, results: &Results<'_>) {
        let span = self.context.span();
        if span.is_recording() {
            let mut known = self.end_attributes(results.response_model);
            self.add_results(results, &mut known);
            span.set_attributes(known);
            if self.end.is_failure() {
                let message = self.end.message().unwrap_or_default();
                span.set_status(Status::error(message.to_owned()));
            }
        }
        span.end_with_timestamp(self.started.time());
    }

    /// Adds what only the span says.
    fn add_results(&self, results: &Results<'_>, known: &mut Vec<KeyValue>) {
        let keys = &self.destination.conventions.keys;
        known.push(KeyValue::new(keys.attempts, i64::from(self.attempts)));
        let id = not_empty(results.response_id);
        known.extend(id.map(|id| KeyValue::new(keys.response_id, id)));
        let Some(telemetry) = results.telemetry else {
            return;
        };
        known.extend(telemetry.finish_reason_or_error().map(|reason| {
            let reasons = vec![StringValue::from(reason)];
            KeyValue::new(keys.finish_reasons, Value::Array(Array::String(reasons)))
        }));
        for number in &self.destination.span_numbers {
            let value = number.value(telemetry);
            known.extend(value.map(|value| KeyValue::new(number.key.clone(), value)));
        }
    }
}

impl Observer for ObservedRun {
    fn on_event(&mut self, event: &Event<'_>) {
        let Conventions { keys, events, .. } = self.destination.conventions;
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
                delay,
                ..
            } => {
                let kind = KeyValue::new(keys.error_type, kind.as_str());
                self.count(|to, run| to.network_error(run, std::slice::from_ref(&kind)));
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
                self.count(|to, run| to.retry(run, &what));
                self.add_event(events.retry, || {
                    let mut known = what.to_vec();
                    known.push(KeyValue::new(keys.attempt, i64::from(attempt)));
                    known.push(KeyValue::new(keys.retry_delay, delay.as_secs_f64()));
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
                end,
                telemetry,
                response_model,
                response_id,
                ..
            } => {
                self.end = end.clone();
                self.finish(&Results {
                    telemetry,
                    response_model,
                    response_id,
                });
            }
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        let _current = self.context.clone().attach();
        poll();
    }
}

impl Drop for ObservedRun {
    fn drop(&mut self) {
        self.finish(&Results::default());
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
