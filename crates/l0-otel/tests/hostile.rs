//! Hostile metadata and sources: nothing private is sent, nothing grows without bound, nothing breaks.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use common::{Sdk, value};
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Backoff, Check, DriftReport, Findings, FinishReason, KeyError, L0, Monitoring, Retry, RunInfo,
    Severity, TokenKind, Usage, Violation,
};
use l0_otel::{OtelBuilder, OtelInterceptor};
use opentelemetry::trace::Status;
use opentelemetry_sdk::trace::SpanData;
use proptest::prelude::*;
use serde_json::{Value, json};

const CANARY: &str = "canary";

/// Runs a script with this metadata.
async fn run(sdk: &Sdk, metadata: &BTreeMap<String, Value>, builder: OtelBuilder) {
    let mut monitoring = Monitoring::new();
    for (key, value) in metadata {
        monitoring = monitoring.metadata(key, value.clone());
    }
    let l0 = L0::builder()
        .monitoring(monitoring)
        .interceptor(builder.build())
        .build();
    let script = Script::new().attempt(|a| a.tokens(["a", "c"]));
    l0.stream(script.source()).start().text().await.unwrap();
    assert_eq!(l0.observer_panics(), 0);
    assert_eq!((sdk.runs().len(), sdk.attempts().len()), (1, 1));
}

fn metadata<const N: usize>(entries: [(&str, Value); N]) -> BTreeMap<String, Value> {
    entries.map(|(key, value)| (key.to_owned(), value)).into()
}

#[tokio::test]
async fn metadata_is_read_like_labels_and_cut() {
    let long = "é".repeat(1_000);
    let cut = "é".repeat(128);
    let cases = [
        (json!("gpt-4o"), Some("gpt-4o")),
        (json!(long), Some(&*cut)),
        (json!(""), None),
        (json!(null), None),
        (json!(4), Some("4")),
        (json!(true), Some("true")),
        (json!(["a", { "b": 1 }]), Some("[\"a\",{\"b\":1}]")),
        (json!("a\nb\0c\u{202e}\""), Some("a\nb\0c\u{202e}\"")),
    ];
    for (model, expected) in cases {
        let sdk = Sdk::new();
        let metadata = metadata([("model", model.clone()), ("tier", model)]);
        let builder = sdk.builder().attribute_keys(["tier"]).unwrap();
        run(&sdk, &metadata, builder).await;
        let (run, attempt) = (sdk.run(), sdk.attempt());
        let name = expected.map_or("chat".to_owned(), |model| format!("chat {model}"));
        assert_eq!(attempt.name, name);
        assert_eq!(value(&run.attributes, "tier").as_deref(), expected);
        for key in ["gen_ai.request.model", "tier"] {
            assert_eq!(value(&attempt.attributes, key).as_deref(), expected);
            for metric in sdk.metrics() {
                let of_point = value(&metric.points[0].attributes, key);
                assert_eq!(of_point.as_deref(), expected, "{}", metric.name);
            }
        }
    }
}

#[tokio::test]
async fn only_listed_metadata_is_sent_and_only_once() {
    let sdk = Sdk::new();
    let metadata = metadata([
        ("model", json!("gpt-4o")),
        ("operation", json!("generate_content")),
        ("conversation_id", json!("c-1")),
        ("endpoint", json!("/chat")),
        ("tier", json!("free")),
        ("user", json!("u-1")),
        ("secret", json!(CANARY)),
        ("gen_ai.agent.name", json!("planner")),
        ("gen_ai.request.model", json!(CANARY)),
        ("error.type", json!(CANARY)),
        ("l0.outcome", json!(CANARY)),
        ("", json!(CANARY)),
    ]);
    let builder = sdk
        .builder()
        .attribute_keys(["tier", "endpoint", "tier", "gen_ai.agent.name"])
        .and_then(|builder| builder.attribute_keys(["tier", "absent"]))
        .and_then(|builder| builder.span_attribute_keys(["user", "tier", "model"]))
        .unwrap();
    run(&sdk, &metadata, builder).await;

    let (run, attempt) = (sdk.run(), sdk.attempt());
    assert_eq!(attempt.name, "generate_content gpt-4o");
    let keys = [
        ("tier", Some("free")),
        ("endpoint", Some("/chat")),
        ("user", Some("u-1")),
        ("gen_ai.agent.name", Some("planner")),
        ("absent", None),
        ("gen_ai.conversation.id", Some("c-1")),
        ("l0.outcome", Some("completed")),
        ("conversation_id", None),
        ("model", Some("gpt-4o")),
    ];
    for (key, expected) in keys {
        for span in [&run, &attempt] {
            assert_eq!(value(&span.attributes, key).as_deref(), expected, "{key}");
        }
    }
    let model = |span: &SpanData| value(&span.attributes, "gen_ai.request.model");
    assert_eq!(
        (model(&run), model(&attempt)),
        (None, Some("gpt-4o".into()))
    );
    for metric in sdk.metrics() {
        for point in metric.points {
            let of_point = |key| value(&point.attributes, key);
            assert_eq!(of_point("tier").as_deref(), Some("free"));
            assert_eq!(of_point("endpoint").as_deref(), Some("/chat"));
            assert_eq!(of_point("gen_ai.agent.name").as_deref(), Some("planner"));
            assert_eq!(of_point("user"), None);
            assert_eq!(of_point("model"), None);
            let text = common::text(&point.attributes);
            for hidden in [CANARY, "c-1", "l0_", "session"] {
                assert!(!text.contains(hidden), "{text}");
            }
        }
    }
    assert!(!format!("{run:?}{attempt:?}").contains(CANARY));
}

/// Adds a key with both setters, which must agree.
fn add_key(key: &str) -> Result<OtelBuilder, KeyError> {
    let of_points = OtelInterceptor::builder().attribute_keys([key]);
    let of_spans = OtelInterceptor::builder().span_attribute_keys([key]);
    assert_eq!(of_points.as_ref().err(), of_spans.as_ref().err(), "{key}");
    of_points
}

#[tokio::test]
async fn only_names_that_are_already_sent_are_rejected() {
    // The attributes of a run in which everything is known.
    let sdk = Sdk::new();
    let usage = Usage::new().input(3).output(2).total(5).cached_input(1);
    let usage = usage.cache_write_input(1).reasoning(1);
    let script =
        Script::new().attempt(|a| a.tokens(["a", "c"]).usage(usage).finish(FinishReason::Stop));
    let l0 = sdk.l0();
    let run = l0
        .stream(script.source())
        .metadata("conversation_id", "c-1");
    run.start().text().await.unwrap();
    let failing = Script::new().attempt(|a| a.token("a").fail(io::ErrorKind::ConnectionReset));
    l0.stream(failing.source())
        .start()
        .text()
        .await
        .unwrap_err();
    let mut sent = BTreeSet::new();
    for span in sdk.spans() {
        sent.extend(span.attributes.iter().map(|one| one.key.to_string()));
        let of_events = span.events.iter().flat_map(|event| &event.attributes);
        sent.extend(of_events.map(|one| one.key.to_string()));
    }
    for metric in sdk.metrics() {
        let of_points = metric.points.iter().flat_map(|point| &point.attributes);
        sent.extend(of_points.map(|one| one.key.to_string()));
    }
    assert!(sent.len() > 30, "{sent:?}");
    for name in sent {
        let error = add_key(&name).unwrap_err();
        assert!(matches!(error, KeyError::Reserved { .. }), "{error}");
        assert!(error.to_string().contains(&name), "{error}");
    }
    for rare in ["l0.rule", "l0.drift.types", "gen_ai.conversation.id"] {
        assert!(add_key(rare).is_err(), "{rare}");
    }

    let error = add_key("").unwrap_err();
    assert!(matches!(error, KeyError::Invalid { .. }), "{error}");
    for free in [
        "model",
        "provider",
        "user.id",
        "gen_ai.agent.name",
        "gen_ai.request.temperature",
        "error.code",
        "l0.mine",
        "é \u{202e}",
    ] {
        assert!(add_key(free).is_ok(), "{free}");
    }
}

#[tokio::test]
async fn no_prompt_no_output_and_no_credential_is_sent() {
    /// Checks whose names and findings quote the text.
    struct Quotes;

    impl Check for Quotes {
        fn name(&self) -> &'static str {
            "quotes"
        }

        fn text(&mut self, delta: &str, findings: &mut Findings) {
            findings.report(Violation::new("quotes", Severity::Error, delta));
            findings.report(Violation::new("quotes", Severity::Warning, "It began"));
        }
    }

    impl Check<DriftReport> for Quotes {
        fn name(&self) -> &'static str {
            "quotes"
        }

        fn text(&mut self, _: &str, findings: &mut Findings<DriftReport>) {
            findings.report(DriftReport::new(["meta_commentary"], 0.9));
        }
    }

    let sdk = Sdk::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new().metadata("prompt", CANARY))
        .retry(Retry::new().max_retries(1).backoff(Backoff::none()))
        .guardrails(|| Quotes)
        .drift(|| Quotes)
        .interceptor(sdk.builder().build())
        .build();
    let message = "connection reset by https://user:canary@host/?key=canary: Bearer canary-0123456789abcdef, sk-canary0123456789abcdef";
    let error = || io::Error::new(io::ErrorKind::ConnectionReset, message);
    let script = Script::new().attempt(|a| {
        a.reasoning(format!("As an AI language model, {CANARY}"))
            .token(format!("As an AI language model, {CANARY} {{"))
            .tool_call(CANARY)
            .fail(error())
    });
    l0.stream(script.source()).start().text().await.unwrap_err();

    let spans = sdk.spans();
    let events = spans.iter().map(|span| span.events.len());
    // Two of drift, two violations, a network error and the exception. Then a retry and the exception.
    assert_eq!(Vec::from_iter(events), [5, 5, 2], "{spans:?}");
    for span in &spans {
        let Status::Error { description } = &span.status else {
            panic!("{:?}", span.status);
        };
        assert!(description.contains("connection reset"), "{description}");
    }
    let mut sent = format!("{spans:?}");
    for metric in sdk.metrics() {
        for point in metric.points {
            sent += &common::text(&point.attributes);
        }
    }
    assert!(!sent.to_lowercase().contains(CANARY), "{sent}");
}

#[tokio::test]
async fn model_and_id_from_a_provider_are_cut() {
    let sdk = Sdk::new();
    let mut token = ScriptedToken::new(TokenKind::Text, "a");
    token.model = Some("é".repeat(10_000));
    token.response_id = Some(String::new());
    let script = Script::new().attempt(|a| a.item(token.clone()));
    let mut run = sdk.l0().stream(script.source()).start();
    run.text().await.unwrap();
    let span = sdk.attempt();
    let model = value(&span.attributes, "gen_ai.response.model").unwrap();
    assert_eq!(model, "é".repeat(128));
    assert_eq!(value(&span.attributes, "gen_ai.response.id"), None);
    let id = value(&span.attributes, "l0.session_id");
    assert_eq!(id.as_deref(), Some(RunInfo::id(run.info())));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_metadata_results_in_one_span_and_attributes_once(
        entries in prop::collection::btree_map(
            prop_oneof![
                prop::sample::select(vec![
                    "model", "provider", "operation", "conversation_id", "endpoint", "gen_ai.x",
                ])
                .prop_map(str::to_owned),
                ".{0,40}",
            ],
            prop_oneof![
                any::<String>().prop_map(Value::from),
                any::<i64>().prop_map(Value::from),
                prop::collection::vec(any::<bool>(), 0..200).prop_map(Value::from),
            ],
            0..8,
        )
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let sdk = Sdk::new();
        let mut builder = sdk.builder();
        for key in entries.keys() {
            let added = builder.clone().attribute_keys([key]);
            let added = added.and_then(|builder| builder.span_attribute_keys([key]));
            prop_assert_eq!(added.is_err(), key.is_empty());
            builder = added.unwrap_or(builder);
        }
        runtime.block_on(run(&sdk, &entries, builder));
        for span in sdk.spans() {
            for one in &span.attributes {
                prop_assert!(one.value.as_str().len() <= 256);
                value(&span.attributes, one.key.as_str());
            }
            prop_assert!(span.name.len() <= 2 * 256 + 1);
        }
    }
}
