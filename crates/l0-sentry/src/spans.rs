//! Spans: an execution's spans, from their start to their end.

use std::time::SystemTime;

use l0_core::{AttemptStats, Distribution, Outcome, Telemetry};
use sentry_core::protocol::{SpanStatus, Value};
use sentry_core::{Hub, Span, TransactionContext, TransactionOrSpan};

use crate::config::Parent;
use crate::data::{Data, data, primitive};
use crate::ending::Ending;
use crate::gen_ai::{self, Answer, Call};

/// The name and operation of the span of an execution.
pub(crate) const EXECUTION: &str = "l0.execution";
const STREAM: &str = "l0.stream.consume";
/// The operation of an attempt of which the model or the provider is not known.
const ATTEMPT: &str = "l0.attempt";

/// That of the execution, that of its stream below it, and below that one for each attempt. An
/// execution that is reported manually is one call of a model, beside its stream.
pub(crate) struct Spans {
    execution: TransactionOrSpan,
    call: Option<(Call, Span)>,
    stream: Option<Stream>,
    /// The present attempt, or the last one.
    attempt: Option<Attempt>,
}

struct Stream {
    span: Span,
    /// When it completed; if it did not, it ends with the execution.
    completed: Option<SystemTime>,
}

struct Attempt {
    call: Option<Call>,
    span: Span,
    /// When it ended, once it has. Its span is held until it is known whether another one follows.
    ended: Option<SystemTime>,
}

impl Spans {
    /// Starts the spans of an execution, below this span or else that in the hub's scope.
    pub(crate) fn start(
        hub: &Hub,
        parent: Parent,
        above: Option<TransactionOrSpan>,
        name: &str,
        data: &Data,
    ) -> Self {
        let above = above.or_else(|| hub.configure_scope(|scope| scope.get_span()));
        let execution: TransactionOrSpan = match (parent, above) {
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

    /// The span of the whole.
    pub(crate) fn execution(&self) -> &TransactionOrSpan {
        &self.execution
    }

    /// The whole is this call of a model.
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

    /// Sets data of the stream.
    pub(crate) fn set_stream_data(&self, key: &str, value: Value) {
        if let Some(stream) = &self.stream {
            stream.span.set_data(key, value);
        }
    }

    /// Whether anything of them may be sent.
    pub(crate) fn are_sent(&self) -> bool {
        #[expect(
            deprecated,
            reason = "what is not sampled is not sent, whatever the reason"
        )]
        self.execution.is_sampled()
    }

    /// Whether the whole is one call of a model.
    pub(crate) fn is_one_call(&self) -> bool {
        self.call.is_some()
    }

    /// Whether what is asked last is to embed texts.
    pub(crate) fn embeds(&self) -> bool {
        let attempt = self.attempt.as_ref();
        let call = attempt.and_then(|attempt| attempt.call.as_ref());
        let call = call.or(self.call.as_ref().map(|(call, _)| call));
        call.is_some_and(Call::embeds)
    }

    /// Adds to the span of what is asked last.
    pub(crate) fn add(&self, data: Data) {
        let attempt = self.attempt.as_ref().map(|attempt| &attempt.span);
        let span = attempt.or(self.call.as_ref().map(|(_, span)| span));
        if let Some(span) = span {
            span.data().extend(data);
        }
    }

    /// Starts the span of an attempt, of a source of this number. Returns it.
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
        let asked = call.as_mut().map(|call| std::mem::take(&mut call.data));
        let mut known = asked.unwrap_or_default();
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

    /// The present attempt has ended so.
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
            let telemetry = measured.then(|| alone(stats));
            known.extend(call.response(&Answer {
                has_begun: stats.tokens > 0 || outcome == Outcome::Completed,
                model: stats.response_model.as_deref(),
                id: stats.response_id.as_deref(),
                telemetry: telemetry.as_ref(),
            }));
        }
        span.data().extend(known);
    }

    /// Ends the span of the last attempt, if it is held.
    fn release_attempt(&mut self) {
        if let Some(Attempt { span, ended, .. }) = self.attempt.take() {
            span.finish_with_timestamp(ended.unwrap_or_else(SystemTime::now));
        }
    }

    /// Ends them all, with these numbers; a transaction is sent.
    pub(crate) fn finish(mut self, ending: &Ending<'_>, numbers: Data) {
        let status = status(ending.outcome);
        let now = SystemTime::now();

        if let (Some(Attempt { call, span, .. }), Some(telemetry)) =
            (&self.attempt, ending.telemetry)
        {
            // The gaps of the only attempt are the run's.
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
        // Telemetry says the same, if there is any.
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

/// The telemetry of an attempt alone, as of a run that made no other: of it what its span says.
fn alone(attempt: &AttemptStats) -> Telemetry {
    let mut telemetry = Telemetry::default();
    telemetry.outcome = attempt.outcome;
    telemetry.finish_reason = attempt.finish_reason;
    telemetry.usage = attempt.usage;
    telemetry.cost = attempt.cost;
    telemetry.metrics.total_tokens = attempt.tokens;
    telemetry.metrics.time_to_first_token = attempt.time_to_first_token;
    let gaps = attempt.inter_token.as_ref();
    telemetry.metrics.output_tokens_per_second = gaps.and_then(rate);
    telemetry
}

/// Gaps over the time that they took, per second, to three decimals; none over zero time.
fn rate(gaps: &Distribution) -> Option<f64> {
    let rate = gaps.count() as f64 / gaps.sum().as_secs_f64();
    rate.is_finite().then(|| (rate * 1e3).round() / 1e3)
}

/// Adds data, at the price of one lock.
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

/// Under both names: the guide's, and the one that dashboards made for the original look for.
fn set_tokens(data: &mut Data, tokens: Value) {
    data.insert("token_count".to_owned(), tokens.clone());
    data.insert("tokens".to_owned(), tokens);
}

/// That an execution was stopped by its user is no error.
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
