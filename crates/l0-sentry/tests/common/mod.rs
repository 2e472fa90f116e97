//! A Sentry client whose transport keeps what it is given, and how tests read it.

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

/// A runtime whose clock only moves while it waits, so that times are exact.
pub(crate) fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// A hub with a client of its own.
pub(crate) struct Sentry {
    pub(crate) hub: Arc<Hub>,
    transport: Arc<TestTransport>,
    trail: Arc<Mutex<Vec<Breadcrumb>>>,
}

impl Sentry {
    /// One that samples all traces.
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

    /// A config for this hub.
    pub(crate) fn config(&self) -> SentryConfig {
        SentryConfig::new().hub(Arc::clone(&self.hub))
    }

    /// What makes runs that tell this hub, and that wait for no retry.
    pub(crate) fn l0(&self) -> L0Builder {
        l0(self.config())
    }

    /// What was sent since the last call.
    pub(crate) fn sent(&self) -> Sent {
        Sent::from(self.transport.fetch_and_clear_envelopes())
    }

    /// The breadcrumbs that were left since the last call, sent or not.
    pub(crate) fn trail(&self) -> Vec<String> {
        let trail = std::mem::take(&mut *self.trail.lock().unwrap());
        trail.iter().map(breadcrumb).collect()
    }
}

/// What makes runs that tell Sentry by this config, and that wait for no retry.
pub(crate) fn l0(config: SentryConfig) -> L0Builder {
    L0::builder()
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(SentryInterceptor::new(config))
}

/// What is said of a source that fails so.
pub(crate) fn message(error: impl Into<ScriptedError>) -> String {
    End::failed(&error.into()).message().unwrap().to_owned()
}

/// Reports a violation of answers with a phrase in one piece.
pub(crate) struct Forbids(&'static str, Violation);

/// What makes a rule that forbids this phrase.
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

/// What was sent, in order.
pub(crate) struct Sent {
    pub(crate) events: Vec<Event<'static>>,
    pub(crate) transactions: Vec<Transaction<'static>>,
    /// As it goes over the wire.
    pub(crate) text: String,
}

impl Sent {
    /// The only transaction.
    #[track_caller]
    pub(crate) fn transaction(&self) -> &Transaction<'static> {
        let [transaction] = &*self.transactions else {
            panic!("{:?}", self.transactions);
        };
        transaction
    }

    /// The only event.
    #[track_caller]
    pub(crate) fn event(&self) -> &Event<'static> {
        let [event] = &*self.events else {
            panic!("{:?}", self.events);
        };
        event
    }

    /// All events, each as its level and its title.
    pub(crate) fn titles(&self) -> Vec<String> {
        self.events.iter().map(title).collect()
    }

    /// The spans of the only transaction, its own first, each as its operation and its status.
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

/// The spans of attempts, in order.
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

/// The values of a context, of data and the like, without those that differ from run to run.
pub(crate) fn stable(data: &impl serde::Serialize) -> Value {
    let mut data = json!(data);
    let fields = data.as_object_mut().unwrap();
    fields.remove("session_id");
    fields.remove("type");
    data
}

/// A breadcrumb on one line.
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

/// Tags to compare.
pub(crate) fn tags(tags: &BTreeMap<String, String>) -> Vec<(&str, &str)> {
    let tags = tags.iter();
    tags.map(|(key, value)| (&**key, &**value)).collect()
}

pub(crate) fn status(transaction: &Transaction<'_>) -> SpanStatus {
    trace(transaction).status.unwrap()
}
