//! A Sentry client whose transport stores its envelopes, and helpers to read them.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use l0_core::testing::ScriptedError;
use l0_core::{Backoff, Check, End, Findings, L0, L0Builder, Retry, Violation};
use l0_sentry::{SentryConfig, SentryInterceptor};
use sentry::protocol::{
    Breadcrumb, Context, EnvelopeItem, Event, Span, SpanStatus, TraceContext, Transaction,
};
use sentry::test::TestTransport;
use sentry::{ClientOptions, Envelope, Hub};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

/// Returns a runtime with a paused clock, so times are exact.
pub(crate) fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// A hub with a test client.
pub(crate) struct Sentry {
    pub(crate) hub: Arc<Hub>,
    transport: Arc<TestTransport>,
    trail: Arc<Mutex<Vec<Breadcrumb>>>,
}

impl Sentry {
    /// Creates a hub whose client samples all traces.
    pub(crate) fn start() -> Self {
        Self::with(|options| options.traces_sample_rate(1.0))
    }

    pub(crate) fn with(change: impl FnOnce(ClientOptions) -> ClientOptions) -> Self {
        let transport = TestTransport::new();
        let trail = Arc::new(Mutex::new(Vec::new()));
        let left = Arc::clone(&trail);
        let options = change(ClientOptions::new())
            .dsn("https://public@sentry.invalid/1")
            .transport(Arc::clone(&transport))
            .before_breadcrumb(move |breadcrumb| {
                left.lock().unwrap().push(breadcrumb.clone());
                Some(breadcrumb)
            });
        let client = Arc::new(options.into());
        Self {
            hub: Arc::new(Hub::new(Some(client), Arc::default())),
            transport,
            trail,
        }
    }

    /// Returns a configuration for this hub.
    pub(crate) fn config(&self) -> SentryConfig {
        SentryConfig::new().hub(Arc::clone(&self.hub))
    }

    /// Returns a builder whose runs report to this hub and retry without back-off.
    pub(crate) fn l0(&self) -> L0Builder {
        l0(self.config())
    }

    /// Returns the data sent since the last call.
    pub(crate) fn sent(&self) -> Sent {
        Sent::from(self.transport.fetch_and_clear_envelopes())
    }

    /// Returns the breadcrumbs added since the last call, sent or not.
    pub(crate) fn trail(&self) -> Vec<String> {
        let trail = std::mem::take(&mut *self.trail.lock().unwrap());
        trail.iter().map(breadcrumb).collect()
    }
}

/// Returns a builder whose runs report with this configuration and retry without back-off.
pub(crate) fn l0(config: SentryConfig) -> L0Builder {
    L0::builder()
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(SentryInterceptor::new(config))
}

/// Returns the message of a source that fails with this error.
pub(crate) fn message(error: impl Into<ScriptedError>) -> String {
    End::failed(&error.into()).message().unwrap().to_owned()
}

/// A rule that reports a phrase within one piece of the answer.
pub(crate) struct Forbids(&'static str, Violation);

/// Returns a factory of rules that forbid this phrase.
pub(crate) fn forbids(
    phrase: &'static str,
    violation: Violation,
) -> impl Fn() -> Forbids + Send + Sync {
    move || Forbids(phrase, violation.clone())
}

impl Check for Forbids {
    fn name(&self) -> &'static str {
        "forbids"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains(self.0) {
            findings.report(self.1.clone());
        }
    }
}

/// The sent data, in order.
pub(crate) struct Sent {
    pub(crate) events: Vec<Event<'static>>,
    pub(crate) transactions: Vec<Transaction<'static>>,
    /// The raw text of the envelopes.
    pub(crate) text: String,
}

impl Sent {
    /// Returns the only transaction.
    #[track_caller]
    pub(crate) fn transaction(&self) -> &Transaction<'static> {
        let [transaction] = &*self.transactions else {
            panic!("{:?}", self.transactions);
        };
        transaction
    }

    /// Returns the only event.
    #[track_caller]
    pub(crate) fn event(&self) -> &Event<'static> {
        let [event] = &*self.events else {
            panic!("{:?}", self.events);
        };
        event
    }

    /// Returns all events, each as its level and its title.
    pub(crate) fn titles(&self) -> Vec<String> {
        self.events.iter().map(title).collect()
    }

    /// Returns the spans of the only transaction, each as its operation and its status. The transaction's own span is
    /// first.
    #[track_caller]
    pub(crate) fn spans(&self) -> Vec<String> {
        let transaction = self.transaction();
        let own = trace(transaction);
        let own = (own.op.clone(), own.status);
        let children = transaction.spans.iter();
        let children = children.map(|span| (span.op.clone(), span.status));
        [own]
            .into_iter()
            .chain(children)
            .map(|(op, status)| format!("{} {}", op.unwrap(), status.unwrap()))
            .collect()
    }
}

impl From<Vec<Envelope>> for Sent {
    fn from(envelopes: Vec<Envelope>) -> Self {
        let mut sent = Self {
            events: Vec::new(),
            transactions: Vec::new(),
            text: String::new(),
        };
        for envelope in envelopes {
            let mut bytes = Vec::new();
            envelope.to_writer(&mut bytes).unwrap();
            sent.text.push_str(&String::from_utf8(bytes).unwrap());
            for item in envelope.into_items() {
                match item {
                    EnvelopeItem::Event(event) => sent.events.push(*event),
                    EnvelopeItem::Transaction(transaction) => sent.transactions.push(*transaction),
                    _ => {}
                }
            }
        }
        sent
    }
}

pub(crate) fn trace<'a>(transaction: &'a Transaction<'_>) -> &'a TraceContext {
    match &transaction.contexts["trace"] {
        Context::Trace(trace) => trace,
        other => panic!("{other:?}"),
    }
}

/// Returns the spans of attempts, in order.
pub(crate) fn attempts<'a>(transaction: &'a Transaction<'_>) -> Vec<&'a Span> {
    let spans = transaction.spans.iter();
    spans
        .filter(|span| span.data.contains_key("attempt"))
        .collect()
}

pub(crate) fn span<'a>(transaction: &'a Transaction<'_>, op: &str) -> &'a Span {
    let mut spans = transaction.spans.iter();
    spans
        .find(|span| span.op.as_deref() == Some(op))
        .unwrap_or_else(|| panic!("there is no span {op}"))
}

/// Returns the values of a context or of data, without values that differ between runs.
pub(crate) fn stable(data: &impl serde::Serialize) -> Value {
    let mut data = json!(data);
    let fields = data.as_object_mut().unwrap();
    fields.remove("session_id");
    fields.remove("type");
    data
}

/// Returns a breadcrumb on one line.
pub(crate) fn breadcrumb(breadcrumb: &Breadcrumb) -> String {
    let category = breadcrumb.category.as_deref().unwrap_or_default();
    let message = breadcrumb.message.as_deref().unwrap_or_default();
    let line = format!("{} {category}: {message}", breadcrumb.level);
    match stable(&breadcrumb.data) {
        data if data == json!({}) => line,
        data => format!("{line} {data}"),
    }
}

pub(crate) fn title(event: &Event<'_>) -> String {
    let title = match (&*event.exception, &event.message) {
        ([exception], None) => {
            let value = exception.value.as_deref().unwrap_or_default();
            format!("{}: {value}", exception.ty)
        }
        ([], Some(message)) => message.clone(),
        other => panic!("{other:?}"),
    };
    format!("{} {title}", event.level)
}

/// Returns tags in a form that can be compared.
pub(crate) fn tags(tags: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let tags = tags.iter();
    tags.map(|(key, value)| (&**key, &**value)).collect()
}

pub(crate) fn status(transaction: &Transaction<'_>) -> SpanStatus {
    trace(transaction).status.unwrap()
}
