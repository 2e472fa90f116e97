//! The tables of the documentation are what is emitted: names, kinds, units, boundaries, attributes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;

use common::{Metric, Sdk};
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Backoff, Drift, Failure, FinishReason, Guardrails, L0, Monitoring, Retry, TokenKind, Usage,
};
use opentelemetry::trace::SpanKind;
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

/// The cells of the rows of the table whose first column is headed so.
fn table(first: &str) -> Vec<Vec<String>> {
    let head = format!("| {first} |");
    let lines = include_str!("../names.md").lines();
    let rows = lines.skip_while(|line| !line.starts_with(&head)).skip(2);
    let rows: Vec<_> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|row| {
            let row = row.trim_matches('|').replace('`', "");
            row.split('|').map(|cell| cell.trim().to_owned()).collect()
        })
        .collect();
    assert!(!rows.is_empty(), "{first}");
    rows
}

fn list(cell: &str) -> BTreeSet<String> {
    let items = cell.split(", ").filter(|item| !item.is_empty());
    items.map(str::to_owned).collect()
}

fn keys(attributes: &[KeyValue]) -> BTreeSet<String> {
    attributes.iter().map(|one| one.key.to_string()).collect()
}

/// Runs after which there is every metric, every attribute and every event, once with and once
/// without what need not be known.
async fn everything(sdk: &Sdk) {
    let token = |text: &str| {
        let mut token = ScriptedToken::new(TokenKind::Text, text);
        token.model = Some("gpt-4o-2024-08-06".to_owned());
        token.response_id = Some("chatcmpl-1".to_owned());
        token
    };
    let usage = Usage::new()
        .input(12)
        .output(2)
        .cached_input(5)
        .reasoning(1);
    let drifts = "As an AI language model, I have {";
    let script = Script::new()
        .attempt(|a| a.item(token("a")).fail(ErrorKind::ConnectionReset))
        .attempt(|a| {
            a.item(token(drifts))
                .item(token("\"b\": 1"))
                .usage(usage)
                .finish(FinishReason::Stop)
        })
        .attempt(|a| {
            a.item(token("a"))
                .item(token("b"))
                .usage(usage)
                .fail(Failure::fatal())
        });
    let known = Monitoring::new()
        .metadata("model", "gpt-4o")
        .metadata("provider", "openai")
        .metadata("conversation_id", "c-1");
    for monitoring in [known, Monitoring::new()] {
        let l0 = L0::builder()
            .monitoring(monitoring)
            .retry(Retry::new().backoff(Backoff::none()))
            .guardrails(Guardrails::recommended())
            .drift(Drift::new())
            .interceptor(sdk.builder().build())
            .build();
        l0.stream(script.source()).start().text().await.unwrap_err();
        let script = Script::new().attempt(|a| a.finish(FinishReason::Stop));
        let run = l0.stream(script.source()).detect_zero_output(false);
        run.start().text().await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_are_those_of_the_table() {
    let sdk = Sdk::new();
    everything(&sdk).await;
    let emitted: BTreeMap<_, _> = sdk
        .metrics()
        .into_iter()
        .map(|metric| (metric.name.clone(), metric))
        .collect();

    let boundaries: BTreeMap<_, _> = table("boundaries")
        .into_iter()
        .map(|row| {
            let values = row[1]
                .split(", ")
                .map(|value| value.parse::<f64>().unwrap());
            (row[0].clone(), values.collect::<Vec<_>>())
        })
        .collect();
    let rows = table("metric");
    assert_eq!(
        rows.iter().map(|row| &row[0]).collect::<BTreeSet<_>>(),
        emitted.keys().collect()
    );
    for row in rows {
        let Metric {
            name,
            unit,
            description,
            instrument,
            boundaries: bounds,
            points,
        } = &emitted[&row[0]];
        assert_eq!(&row[1], instrument, "{name}");
        assert_eq!(&row[2], unit, "{name}");
        let expected = boundaries.get(&row[3]).cloned().unwrap_or_default();
        assert_eq!(bounds, &expected, "{name}");
        let (always, if_known) = (list(&row[4]), list(&row[5]));
        let mut seen = BTreeSet::new();
        for point in points {
            let keys = keys(&point.attributes);
            assert!(keys.is_superset(&always), "{name}: {keys:?}");
            seen.extend(keys);
        }
        assert_eq!(seen, &always | &if_known, "{name}");
        assert_eq!(&row[6], description, "{name}");
    }
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Bool(_) => "boolean",
        Value::I64(_) => "integer",
        Value::F64(_) => "double",
        Value::String(_) => "string",
        Value::Array(Array::String(_)) => "strings",
        _ => panic!("of another type: {value:?}"),
    }
}

/// The types of attributes, which may be there once only.
fn types(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    for one in attributes {
        let before = types.insert(one.key.to_string(), type_of(&one.value).to_owned());
        assert_eq!(before, None, "{} is there twice", one.key);
    }
    types
}

#[tokio::test(start_paused = true)]
async fn spans_are_those_of_the_tables() {
    let sdk = Sdk::new();
    everything(&sdk).await;
    let rows = table("attribute");
    let expected: BTreeMap<_, _> = rows
        .iter()
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    let always: BTreeSet<_> = rows
        .iter()
        .filter(|row| row[2] == "always")
        .map(|row| row[0].clone())
        .collect();
    let mut events: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for row in table("event") {
        let attributes = list(&row[1]).into_iter().map(|attribute| {
            let (key, kind) = attribute.split_once(": ").unwrap();
            (key.to_owned(), kind.to_owned())
        });
        events.insert(row[0].clone(), attributes.collect());
    }

    let (mut seen, mut seen_events) = (BTreeMap::new(), BTreeMap::new());
    let mut names = BTreeSet::new();
    for span in sdk.spans() {
        let SpanData {
            name,
            span_kind,
            attributes,
            events,
            instrumentation_scope,
            ..
        } = span;
        assert_eq!(span_kind, SpanKind::Client);
        assert_eq!(instrumentation_scope, l0_otel::scope());
        names.insert(name.into_owned());
        let types = types(&attributes);
        assert!(
            always.iter().all(|key| types.contains_key(key)),
            "{types:?}"
        );
        seen.extend(types);
        for event in events {
            seen_events.insert(event.name.into_owned(), self::types(&event.attributes));
        }
    }
    assert_eq!(seen, expected);
    assert_eq!(seen_events, events);
    assert_eq!(names, ["chat", "chat gpt-4o"].map(str::to_owned).into());
}

#[test]
fn the_version_of_the_conventions_is_said() {
    let scope = l0_otel::scope();
    assert_eq!(scope.name(), "l0-otel");
    assert_eq!(scope.version(), Some(env!("CARGO_PKG_VERSION")));
    let url = scope.schema_url().unwrap();
    let (_, version) = url.rsplit_once('/').unwrap();
    assert!(include_str!("../names.md").contains(&format!("version {version}.")));
}
