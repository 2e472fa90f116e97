//! The same runs, sent by `l0-otel` and through `tracing-opentelemetry`.

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Ready, ready};
use std::io::ErrorKind;
use std::time::Duration;

use l0_core::source::ByToken;
use l0_core::testing::{Script, ScriptedError, ScriptedStream, ScriptedToken, exits};
use l0_core::{
    Attempt, Backoff, Description, L0, L0Builder, Monitoring, Retry, Source, TokenKind, Usage, keys,
};
use l0_otel::OtelInterceptor;
use l0_tracing::TracingInterceptor;
use opentelemetry::trace::{SpanId, SpanKind, Status, TracerProvider};
use opentelemetry::{Array, KeyValue, StringValue, Value};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};
use tracing::Dispatch;
use tracing::dispatcher::with_default;
use tracing::instrument::WithSubscriber;
use tracing_subscriber::layer::SubscriberExt;

const MS: Duration = Duration::from_millis(1);

/// Attributes that only this path sends, on spans and on events.
const OF_ITS_SPANS: [&str; 5] = ["busy_ns", "idle_ns", "target", "thread.id", "thread.name"];
const OF_ITS_EVENTS: [&str; 3] = ["l0.session_id", "level", "target"];
/// Lists, which `tracing` does not support. They are sent as JSON text.
const LISTS: [&str; 4] = [
    "gen_ai.response.finish_reasons",
    "gen_ai.request.encoding_formats",
    "gen_ai.request.stop_sequences",
    "l0.drift.types",
];

/// Both paths, each with its own exporter.
struct Both {
    by_otel: InMemorySpanExporter,
    by_tracing: InMemorySpanExporter,
    providers: [SdkTracerProvider; 2],
    dispatch: Dispatch,
}

impl Both {
    fn new() -> Self {
        let exporters = [(); 2].map(|()| InMemorySpanExporter::default());
        let providers = exporters.each_ref().map(|exporter| {
            SdkTracerProvider::builder()
                .with_simple_exporter(exporter.clone())
                .build()
        });
        let layer = tracing_opentelemetry::layer().with_tracer(providers[1].tracer("app"));
        let [by_otel, by_tracing] = exporters;
        Self {
            by_otel,
            by_tracing,
            providers,
            dispatch: Dispatch::new(tracing_subscriber::registry().with(layer)),
        }
    }

    fn attach(&self, builder: L0Builder) -> L0Builder {
        let tracer = self.providers[0].tracer_with_scope(l0_otel::scope());
        let otel = OtelInterceptor::builder().metrics(false).tracer(tracer);
        let otel = otel.span_attribute_keys(["user", "gen_ai.agent.name"]);
        let tracing = TracingInterceptor::new().field_keys(["user", "gen_ai.agent.name"]);
        let monitoring = Monitoring::new()
            .metadata(keys::MODEL, "gpt-4o")
            .metadata(keys::PROVIDER, "openai")
            .metadata(keys::CONVERSATION_ID, "c-1")
            .metadata("user", "u-1")
            .metadata("not listed", "secret");
        builder
            .monitoring(monitoring)
            .interceptor(otel.unwrap().build())
            .interceptor(tracing.unwrap())
    }

    /// Checks that both sent the same spans, and their number. Returns the lists in them.
    fn check(&self, what: &str, spans: usize) -> BTreeSet<String> {
        let by_otel = exported(&self.by_otel, |_, _| true);
        let mut lists = BTreeSet::new();
        let by_tracing = exported(&self.by_tracing, |of, attribute| {
            let key = attribute.key.as_str();
            match of {
                Of::Span => !OF_ITS_SPANS.contains(&key),
                Of::Event => !OF_ITS_EVENTS.contains(&key),
            }
        });
        assert_eq!(by_otel.len(), spans, "{what}");
        assert_eq!(by_otel.len(), by_tracing.len(), "{what}");
        for (otel, mut tracing) in by_otel.into_iter().zip(by_tracing) {
            for attributes in [&mut tracing.attributes]
                .into_iter()
                .chain(tracing.events.iter_mut().map(|(_, attributes)| attributes))
            {
                for (key, (kind, _)) in attributes {
                    if LISTS.contains(&&**key) {
                        assert_eq!(*kind, "text", "{what}: {key}");
                        *kind = "list";
                        lists.insert(key.clone());
                    }
                }
            }
            assert_eq!(tracing, otel, "{what}");
        }
        lists
    }
}

/// The type of a value, and its text.
type Attributes = BTreeMap<String, (&'static str, String)>;

/// The content of a span.
#[derive(Debug, PartialEq)]
struct Exported {
    name: String,
    kind: SpanKind,
    status: Status,
    /// The index of its parent among the spans.
    parent: Option<usize>,
    attributes: Attributes,
    events: Vec<(String, Attributes)>,
}

enum Of {
    Span,
    Event,
}

fn attributes(of: &Of, all: &[KeyValue], wanted: &impl Fn(&Of, &KeyValue) -> bool) -> Attributes {
    let wanted = all.iter().filter(|one| wanted(of, one));
    let exported = wanted.map(|one| {
        let kind = match one.value {
            Value::Bool(_) => "flag",
            Value::I64(_) => "whole",
            Value::F64(_) => "double",
            Value::String(_) => "text",
            _ => "list",
        };
        let value = match &one.value {
            Value::Array(Array::String(words)) => {
                let words = words.iter().map(StringValue::as_str);
                json!(Vec::from_iter(words)).to_string()
            }
            value => value.as_str().into_owned(),
        };
        (one.key.to_string(), (kind, value))
    });
    exported.collect()
}

/// Returns the spans of a run: its own first, then those of its attempts in order.
fn exported(
    exporter: &InMemorySpanExporter,
    wanted: impl Fn(&Of, &KeyValue) -> bool,
) -> Vec<Exported> {
    let mut spans = exporter.get_finished_spans().unwrap();
    let number = |span: &SpanData| {
        let mut known = span.attributes.iter();
        let number = known.find(|one| one.key.as_str() == "l0.attempt");
        number.map(|number| match number.value {
            Value::I64(number) => number,
            ref other => panic!("{other:?}"),
        })
    };
    spans.sort_by_key(number);
    let ids = spans.iter().map(|span| span.span_context.span_id());
    let ids = Vec::<SpanId>::from_iter(ids);
    let spans = spans.into_iter().map(|span| Exported {
        parent: ids.iter().position(|id| *id == span.parent_span_id),
        attributes: attributes(&Of::Span, &span.attributes, &wanted),
        events: span
            .events
            .iter()
            .map(|event| {
                let exported = attributes(&Of::Event, &event.attributes, &wanted);
                (event.name.to_string(), exported)
            })
            .collect(),
        name: span.name.into_owned(),
        kind: span.span_kind,
        status: span.status,
    });
    spans.collect()
}

fn paused() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

#[test]
fn every_exit_is_the_same_trace() {
    for exit in exits::all() {
        let both = Both::new();
        let builder = both.attach(L0::builder());
        let exited = with_default(&both.dispatch, || exit.run(paused(), builder));
        assert_eq!(exited.info.observer_panics(), 0, "{exit}");
        let spans = 1 + exit
            .events
            .iter()
            .filter(|name| **name == "attempt_started")
            .count();
        both.check(&exit.to_string(), spans);
    }
}

/// A source with a complete description.
struct Described(Script);

impl Source for Described {
    type Answer = ScriptedStream;
    type Error = ScriptedError;
    type Connecting = Ready<Result<ScriptedStream, ScriptedError>>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        ready(Ok(self.0.stream()))
    }

    fn view(&self) -> Self::View {
        ByToken
    }

    fn describe(&self) -> Description {
        let mut description = Description::new();
        description.provider = Some("anthropic".into());
        description.model = Some("other".into());
        description.operation = Some("generate_content".into());
        description.server_address = Some("localhost".into());
        description.server_port = Some(8443);
        description.streaming = Some(false);
        for (name, value) in [
            ("temperature", json!(1)),
            ("top_p", json!(0.5)),
            ("top_k", json!(40)),
            ("max_tokens", json!(4_000)),
            ("frequency_penalty", json!(0)),
            ("presence_penalty", json!(-1.5)),
            ("seed", json!(7)),
            ("choice.count", json!(2)),
            ("stop_sequences", json!(["END", "\"STOP\""])),
            ("encoding_formats", json!(["float"])),
            ("embeddings.dimension.count", json!(256)),
        ] {
            description.parameters.insert(name.into(), value);
        }
        description
    }
}

#[tokio::test(start_paused = true)]
async fn descriptions_and_metadata_give_the_same_attributes() {
    let both = Both::new();
    let retry = Retry::new().max_retries(1).backoff(Backoff::fixed(5 * MS));
    let l0 = both.attach(L0::builder().retry(retry)).build();
    let failing = Script::new().attempt(|a| a.token("a").fail(ErrorKind::ConnectionReset));
    let answering = Script::new().attempt(|a| {
        let mut token = ScriptedToken::new(TokenKind::Text, "a");
        token.model = Some("other-2".to_owned());
        token.response_id = Some("r-1".to_owned());
        let usage = Usage::new().input(12).output(3).total(15);
        let usage = usage.cached_input(5).cache_write_input(4).reasoning(1);
        a.item(token).wait(3 * MS).token("b").usage(usage)
    });
    let dispatch = both.dispatch.clone();
    async move {
        let mut run = l0
            .stream(failing.source())
            .fallback(Described(answering).metadata("user", "u-2"))
            .start();
        run.handle().set_metadata("user", "u-3");
        run.text().await.unwrap();
    }
    .with_subscriber(dispatch)
    .await;

    let lists = both.check("described", 4);
    let expected = [
        "gen_ai.request.encoding_formats",
        "gen_ai.request.stop_sequences",
        "gen_ai.response.finish_reasons",
    ];
    assert_eq!(Vec::from_iter(lists), expected);
    let spans = exported(&both.by_tracing, |_, _| true);
    let last = &spans[3];
    assert_eq!(last.name, "generate_content other");
    for (key, kind, value) in [
        ("user", "text", "u-2"),
        ("gen_ai.request.temperature", "double", "1"),
        ("gen_ai.request.seed", "whole", "7"),
        ("gen_ai.request.stream", "flag", "false"),
        ("gen_ai.usage.cache_write.input_tokens", "whole", "4"),
        ("gen_ai.response.time_to_first_chunk", "double", "0"),
        ("server.port", "whole", "8443"),
    ] {
        assert_eq!(last.attributes[key], (kind, value.to_owned()), "{key}");
    }
    // Only process tracing adds these.
    for of_its in OF_ITS_SPANS {
        assert!(last.attributes.contains_key(of_its), "{of_its}");
    }
    // Sent at the end of the span.
    assert_eq!(spans[0].attributes["user"].1, "u-3");
}

#[tokio::test]
async fn a_span_ends_with_its_attempt_and_not_with_its_connection() {
    let both = Both::new();
    let l0 = both.attach(L0::builder()).build();
    let waits = 20 * MS;
    let script = Script::new().attempt(|a| a.token("a").wait(waits).token("b"));
    let dispatch = both.dispatch.clone();
    let reading = async move { l0.stream(script.source()).start().text().await.unwrap() };
    assert_eq!(reading.with_subscriber(dispatch).await, "ab");

    let spans = both.by_tracing.get_finished_spans().unwrap();
    assert_eq!(spans.len(), 2);
    for span in spans {
        let length = span.end_time.duration_since(span.start_time).unwrap();
        // The connection takes no time. The clock of spans may be slowed down meanwhile.
        assert!(length >= waits / 2, "{}: {length:?}", span.name);
    }
}
