//! The spans that backends convert: recorded answers of three providers through a run.
//!
//! | variable | enables |
//! |---|---|
//! | `L0_RECORDED_STREAMS` | the tests: a folder of recorded streams with `expected.json` |
//! | `L0_SPAN_DUMPS` | writing the spans to this folder as JSON, for `.ci/converters` |

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a panic is how a test fails; skipped tests are reported"
)]

use std::collections::BTreeMap;
use std::path::Path;

use l0_core::{Content, L0, Monitoring};
use l0_otel::OtelInterceptor;
use l0_providers::testing::{Answer, ScriptedProvider};
use l0_providers::{ProviderRequest, ProviderStream, anthropic, gemini, openai};
use opentelemetry::trace::TracerProvider;
use opentelemetry::{Array, Value as Attribute};
use opentelemetry_sdk::trace::{InMemorySpanExporter, SdkTracerProvider, SpanData};
use serde_json::{Map, Value, json};

const SYSTEM: &str = "You are a poet of few words.";
const QUESTION: &str = "What is the weather like?";

fn request(provider: &str, url: &str, model: &str) -> ProviderRequest<ProviderStream> {
    let parameters = json!({ "type": "object", "properties": { "city": { "type": "string" } } });
    let user = json!({ "role": "user", "content": QUESTION });
    match provider {
        "anthropic" => {
            let body = json!({ "model": model, "system": SYSTEM, "messages": [user], "max_tokens": 512,
                "tools": [{ "name": "get_weather", "description": "Tells the weather", "input_schema": parameters }] });
            let client = anthropic::Client::new(url).unwrap();
            client.provider_name("anthropic").messages(&body)
        }
        "gcp.gemini" => {
            let body = json!({ "systemInstruction": { "parts": [{ "text": SYSTEM }] },
                "contents": [{ "role": "user", "parts": [{ "text": QUESTION }] }] });
            let client = gemini::Client::new(url).unwrap();
            client
                .provider_name("gcp.gemini")
                .generate_content(model, &body)
        }
        _ => {
            let function = json!({ "name": "get_weather", "description": "Tells the weather", "parameters": parameters });
            let body = json!({ "model": model, "messages": [{ "role": "system", "content": SYSTEM }, user],
                "tools": [{ "type": "function", "function": function }] });
            let client = openai::Client::new(url).unwrap();
            client.provider_name("openai").chat(&body)
        }
    }
}

/// Returns the span of the only attempt of a run.
async fn span(request: ProviderRequest<ProviderStream>) -> SpanData {
    let spans = InMemorySpanExporter::default();
    let tracers = SdkTracerProvider::builder()
        .with_simple_exporter(spans.clone())
        .build();
    let otel = OtelInterceptor::builder()
        .metrics(false)
        .content(Content::new())
        .tracer(tracers.tracer_with_scope(l0_otel::scope()));
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(otel.build())
        .build();
    let mut run = l0.stream_from(request).conversation_id("c-1").start();
    let _ = run.text().await;
    let all = spans.get_finished_spans().unwrap();
    let mut attempts = all.into_iter().filter(|span| span.name != "l0.run");
    let span = attempts.next().unwrap();
    assert!(attempts.next().is_none());
    span
}

fn dump(span: &SpanData) -> Map<String, Value> {
    let attributes = span.attributes.iter().map(|one| {
        let value = match &one.value {
            Attribute::Bool(flag) => (*flag).into(),
            Attribute::I64(count) => (*count).into(),
            Attribute::F64(number) => (*number).into(),
            Attribute::Array(Array::String(words)) => {
                words.iter().map(|word| word.as_str()).collect()
            }
            other => other.as_str().into(),
        };
        (one.key.to_string(), value)
    });
    attributes.collect()
}

#[tokio::test]
async fn spans_of_recorded_answers_have_the_usage_that_was_billed() {
    let Some(folder) = std::env::var_os("L0_RECORDED_STREAMS") else {
        println!("skipped: L0_RECORDED_STREAMS is not a folder of recorded streams");
        return;
    };
    let folder = Path::new(&folder);
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_str(&expected).unwrap();
    let formats = [
        ("anthropic", "anthropic"),
        ("gemini", "gcp.gemini"),
        ("openai-chat", "openai"),
    ];
    let mut dumps = Map::new();
    for (name, expected) in &expected {
        let format = formats
            .iter()
            .find(|(format, _)| expected["format"] == *format);
        let (Some((_, provider)), true) = (format, name.ends_with(".sse")) else {
            continue;
        };
        let recording = std::fs::read(folder.join(name)).unwrap();
        let answer = Answer::new().body("text/event-stream", recording);
        let server = ScriptedProvider::start([answer]).await.unwrap();
        let model = expected["model"].as_str().unwrap_or("unknown");
        let span = span(request(provider, &server.base_url(), model)).await;
        let attributes = dump(&span);

        let usage = |key: &str| attributes.get(&format!("gen_ai.usage.{key}"));
        for (key, name) in [
            ("input_tokens", "input"),
            ("output_tokens", "output"),
            ("cache_read.input_tokens", "cachedInput"),
            ("cache_write.input_tokens", "cacheWriteInput"),
            ("cache_creation.input_tokens", "cacheWriteInput"),
            ("reasoning.output_tokens", "reasoning"),
        ] {
            assert_eq!(
                usage(key),
                expected["usage"].get(name),
                "{}: {key}",
                span.name
            );
        }
        // Many backends compute prices with this formula. No term may be negative.
        let count = |key: &str| usage(key).and_then(Value::as_u64).unwrap_or(0);
        let cached = count("cache_read.input_tokens") + count("cache_creation.input_tokens");
        assert!(cached <= count("input_tokens"), "{name}");
        assert!(
            count("reasoning.output_tokens") <= count("output_tokens"),
            "{name}"
        );
        dumps.insert(
            name.clone(),
            json!({ "name": span.name, "attributes": attributes }),
        );
    }
    assert!(dumps.len() > 3, "{}", dumps.len());
    println!("{} recordings", dumps.len());
    if let Some(folder) = std::env::var_os("L0_SPAN_DUMPS") {
        let file = Path::new(&folder).join("spans.json");
        std::fs::write(file, Value::Object(dumps).to_string()).unwrap();
    }
}
