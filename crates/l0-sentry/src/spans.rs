//! Spans: an execution's spans, from their start to their end.

use std::time::SystemTime;

use l0_core::Outcome;
use sentry_core::protocol::{SpanStatus, Value};
use sentry_core::{Hub, Span, TransactionContext, TransactionOrSpan};

use crate::config::Parent;
use crate::data::{Data, primitive};
use crate::ending::Ending;
use crate::gen_ai::Call;

/// The name and operation of the span of an execution.
pub(crate) const EXECUTION: &str = "l0.execution";
const STREAM: &str = "l0.stream.consume";

/// At most three: of the execution, and its children.
pub(crate) struct Spans {
    execution: TransactionOrSpan,
    call: Option<(Call, Span)>,
    stream: Option<Stream>,
}

struct Stream {
    span: Span,
    /// When it completed; if it did not, it ends with the execution.
    completed: Option<SystemTime>,
}

impl Spans {
    /// Starts the spans of an execution.
    pub(crate) fn start(hub: &Hub, parent: Parent, name: &str, data: &Data) -> Self {
        let in_scope = hub.configure_scope(|scope| scope.get_span());
        let execution: TransactionOrSpan = match (parent, in_scope) {
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
        let call = Call::of(data).map(|mut call| {
            let span = execution.start_child(&call.op(), &call.name());
            span.data().extend(std::mem::take(&mut call.data));
            (call, span)
        });
        Self {
            execution,
            call,
            stream: None,
        }
    }

    /// The span of the whole.
    pub(crate) fn execution(&self) -> &TransactionOrSpan {
        &self.execution
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

    /// Ends them all, with these numbers; a transaction is sent.
    pub(crate) fn finish(self, ending: &Ending<'_>, numbers: Data) {
        let status = status(ending.outcome);
        let now = SystemTime::now();

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
            let response = call.response(ending);
            span.data().extend(response);
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
