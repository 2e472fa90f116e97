//! The spans of an execution, from their start to their end.

use std::time::SystemTime;

use l0_core::{AttemptStats, Outcome};
use sentry_core::protocol::{SpanStatus, Value};
use sentry_core::{Hub, Span, TransactionContext, TransactionOrSpan};

use crate::config::Parent;
use crate::data::{Data, data, primitive};
use crate::ending::Ending;
use crate::gen_ai::{self, Answer, Call};

/// The name and operation of the span of an execution.
pub(crate) const EXECUTION: &str = "l0.execution";
const STREAM: &str = "l0.stream.consume";
/// The operation of an attempt whose model or provider is unknown.
const ATTEMPT: &str = "l0.attempt";

/// The span of the execution, its child for the stream, and below that one span for each attempt. A manual report
/// has one call of a model next to its stream instead of attempts.
pub(crate) struct Spans {
    execution: TransactionOrSpan,
    call: Option<(Call, Span)>,
    stream: Option<Stream>,
    /// The current attempt, or the last one.
    attempt: Option<Attempt>,
}

struct Stream {
    span: Span,
    /// The time at which it completed. Otherwise it ends with the execution.
    completed: Option<SystemTime>,
}

struct Attempt {
    call: Option<Call>,
    span: Span,
    /// The time at which it ended. Its span stays open after that, until another attempt follows or the run ends.
    ended: Option<SystemTime>,
}

impl Spans {
    /// Starts the spans of an execution, below the given span or the span in the hub's scope.
    pub(crate) fn start(
        hub: &Hub,
        parent: Parent,
        parent_span: Option<TransactionOrSpan>,
        name: &str,
        data: &Data,
    ) -> Self {
        let parent_span = parent_span.or_else(|| hub.configure_scope(|scope| scope.get_span()));
        let execution: TransactionOrSpan = match (parent, parent_span) {
            (Parent::Child, Some(span)) => span.start_child(EXECUTION, name).into(),
            (_, span) => {
                let context = TransactionContext::continue_from_span(name, EXECUTION, span);
                hub.start_transaction(context).into()
            }
        };
        let entries = data.iter();
        extend(
            &execution,
            entries.map(|(key, value)| (key.clone(), primitive(value))),
        );
        Self {
            execution,
            call: None,
            stream: None,
            attempt: None,
        }
    }

    /// Returns the span of the execution.
    pub(crate) fn execution(&self) -> &TransactionOrSpan {
        &self.execution
    }

    /// Starts the span of the call of a model that the whole execution is.
    pub(crate) fn start_call(&mut self, mut call: Call) {
        let span = self.execution.start_child(&call.op(), &call.name());
        span.data().extend(std::mem::take(&mut call.data));
        self.call = Some((call, span));
    }

    pub(crate) fn start_stream(&mut self) {
        let span = self.execution.start_child(STREAM, "Consuming LLM stream");
        let completed = None;
        self.stream = Some(Stream { span, completed });
    }

    pub(crate) fn complete_stream(&mut self, tokens: Option<u64>) {
        if let Some(stream) = &mut self.stream {
            stream.completed = Some(SystemTime::now());
            if let Some(tokens) = tokens {
                set_tokens(&mut stream.span.data(), tokens.into());
            }
        }
    }

    /// Sets data on the span of the stream.
    pub(crate) fn set_stream_data(&self, key: &str, value: Value) {
        if let Some(stream) = &self.stream {
            stream.span.set_data(key, value);
        }
    }

    /// Returns `true` if the spans are sampled.
    pub(crate) fn are_sent(&self) -> bool {
        #[expect(deprecated, reason = "spans that are not sampled are never sent")]
        self.execution.is_sampled()
    }

    /// Returns `true` if the whole execution is one call of a model.
    pub(crate) fn is_one_call(&self) -> bool {
        self.call.is_some()
    }

    /// Returns `true` if the last call requests embeddings.
    pub(crate) fn embeds(&self) -> bool {
        let attempt = self.attempt.as_ref();
        let call = attempt.and_then(|attempt| attempt.call.as_ref());
        let call = call.or(self.call.as_ref().map(|(call, _)| call));
        call.is_some_and(Call::embeds)
    }

    /// Adds data to the span of the last call.
    pub(crate) fn add(&self, data: Data) {
        let attempt = self.attempt.as_ref().map(|attempt| &attempt.span);
        let span = attempt.or(self.call.as_ref().map(|(_, span)| span));
        if let Some(span) = span {
            span.data().extend(data);
        }
    }

    /// Starts the span of an attempt, of the source with this number. Returns the span.
    pub(crate) fn start_attempt(
        &mut self,
        number: u32,
        source: u32,
        mut call: Option<Call>,
    ) -> TransactionOrSpan {
        self.release_attempt();
        let (op, name) = match &call {
            Some(call) => (call.op(), call.name()),
            None => (ATTEMPT.to_owned(), format!("Attempt {number}")),
        };
        let span = match &self.stream {
            Some(stream) => stream.span.start_child(&op, &name),
            None => self.execution.start_child(&op, &name),
        };
        let request = call.as_mut().map(|call| std::mem::take(&mut call.data));
        let mut known = request.unwrap_or_default();
        known.extend(data([
            ("attempt", Some(number.into())),
            ("source", Some(source.into())),
        ]));
        span.data().extend(known);
        let started = span.clone().into();
        self.attempt = Some(Attempt {
            call,
            span,
            ended: None,
        });
        started
    }

    /// Sets the results of the current attempt.
    pub(crate) fn finish_attempt(&mut self, stats: &AttemptStats, measured: bool) {
        let Some(Attempt { call, span, ended }) = &mut self.attempt else {
            return;
        };
        *ended = Some(SystemTime::now());
        let outcome = stats.outcome.unwrap_or(Outcome::Other);
        span.set_status(status(outcome));
        let error = stats.error.as_ref().filter(|_| outcome.is_failure());
        let mut known = data([
            ("outcome", Some(outcome.as_str().into())),
            ("error_type", error.map(|error| (&*error.error_type).into())),
            ("attempt_tokens", measured.then(|| stats.tokens.into())),
        ]);
        if let Some(call) = call {
            let telemetry = measured.then(|| stats.to_telemetry());
            known.extend(call.response(&Answer {
                has_begun: stats.tokens > 0 || outcome == Outcome::Completed,
                model: stats.response_model.as_deref(),
                id: stats.response_id.as_deref(),
                telemetry: telemetry.as_ref(),
            }));
        }
        span.data().extend(known);
    }

    /// Ends the span of the last attempt, if it is still open.
    fn release_attempt(&mut self) {
        if let Some(Attempt { span, ended, .. }) = self.attempt.take() {
            span.finish_with_timestamp(ended.unwrap_or_else(SystemTime::now));
        }
    }

    /// Ends all spans, with these numbers. A transaction is sent.
    pub(crate) fn finish(mut self, ending: &Ending<'_>, numbers: Data) {
        let status = status(ending.outcome);
        let now = SystemTime::now();

        if let (Some(Attempt { call, span, .. }), Some(telemetry)) =
            (&self.attempt, ending.telemetry)
        {
            // With a single attempt, the gaps of the run are those of the attempt.
            if call.is_some() && telemetry.attempts.len() == 1 {
                span.data().extend(gen_ai::rate(telemetry));
            }
        }
        self.release_attempt();
        if let Some(Stream { span, completed }) = self.stream {
            let completed_status = completed.map(|_| SpanStatus::Ok);
            span.set_status(completed_status.unwrap_or(status));
            {
                let mut data = span.data();
                for key in ["duration_ms", "ttft_ms"] {
                    let number = numbers.get(key).cloned();
                    data.extend(number.map(|number| (key.to_owned(), number)));
                }
                if let Some(tokens) = numbers.get("tokens") {
                    set_tokens(&mut data, tokens.clone());
                }
            }
            span.finish_with_timestamp(completed.unwrap_or(now));
        }
        if let Some((call, span)) = self.call {
            let telemetry = ending.telemetry;
            let tokens = telemetry.map_or(0, |all| all.metrics.total_tokens);
            span.data().extend(call.response(&Answer {
                has_begun: tokens > 0 || ending.outcome == Outcome::Completed,
                telemetry,
                ..Answer::default()
            }));
            span.set_status(status);
            span.finish_with_timestamp(now);
        }
        extend(&self.execution, numbers);
        // The same as in the telemetry, if there is telemetry.
        self.execution
            .set_data("outcome", ending.outcome.as_str().into());
        if let Some(failed) = ending.failed() {
            let error_type = (&*failed.error_type).into();
            self.execution.set_data("error_type", error_type);
        }
        self.execution.set_status(status);
        self.execution.finish_with_timestamp(now);
    }
}

/// Adds data to a span, with a single lock.
fn extend(span: &TransactionOrSpan, data: impl IntoIterator<Item = (String, Value)>) {
    match span {
        TransactionOrSpan::Transaction(transaction) => {
            let mut all = transaction.data();
            for (key, value) in data {
                all.set_data(key.into(), value);
            }
        }
        TransactionOrSpan::Span(span) => span.data().extend(data),
    }
}

/// Sets the number of tokens under two names: the name in the monitoring guide, and the name that existing
/// dashboards use.
fn set_tokens(data: &mut Data, tokens: Value) {
    data.insert("token_count".to_owned(), tokens.clone());
    data.insert("tokens".to_owned(), tokens);
}

/// Returns the status for an outcome. An aborted or dropped execution is cancelled, not failed.
fn status(outcome: Outcome) -> SpanStatus {
    match outcome {
        Outcome::Completed => SpanStatus::Ok,
        Outcome::Aborted | Outcome::Dropped => SpanStatus::Cancelled,
        Outcome::Failed | Outcome::Truncated => SpanStatus::InternalError,
        Outcome::TimedOut => SpanStatus::DeadlineExceeded,
        Outcome::Limited => SpanStatus::ResourceExhausted,
        _ => SpanStatus::UnknownError,
    }
}
