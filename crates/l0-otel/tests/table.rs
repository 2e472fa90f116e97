//! The tables of the documentation match the exported data: names, kinds, units, boundaries, attributes.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::future::{Ready, ready};
use std::io::ErrorKind;

use common::{
    Ended, Metric, Sdk, attempt_number_attributes, attribute_of, list, number_attributes,
    own_metrics, table,
};
use l0_core::source::ByToken;
use l0_core::testing::{Script, ScriptedError, ScriptedStream, ScriptedToken};
use l0_core::{
    Attempt, Backoff, Check, Description, DriftReport, Failure, Findings, FinishReason, L0,
    Monitoring, Quantity, QuantityKind, Retry, Severity, Source, TokenKind, Unit, Usage, Violation,
};
use opentelemetry::{Array, KeyValue, Value};
use opentelemetry_sdk::trace::SpanData;

fn keys(attributes: &[KeyValue]) -> BTreeSet<String> {
    attributes.iter().map(|one| one.key.to_string()).collect()
}

/// A check that reports answers with a brace.
struct Finds;

impl Check for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains('{') {
            findings.report(Violation::new("finds", Severity::Error, "A list begins"));
        }
    }
}

impl Check<DriftReport> for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<DriftReport>) {
        if delta.contains('{') {
            findings.report(DriftReport::new(["lists"], 0.5));
        }
    }
}

/// A source that describes itself completely.
struct Described(Script);

impl Source for Described {
    type Answer = ScriptedStream;
    type Error = ScriptedError;
    type Connecting = Ready<Result<ScriptedStream, ScriptedError>>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        ready(Ok(self.0.stream()))
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        let mut description = Description::new();
        description.provider = Some("anthropic".into());
        description.model = Some("other".into());
        description.operation = Some("chat".into());
        description.server_address = Some("localhost".into());
        description.server_port = Some(8443);
        description.streaming = Some(true);
        description
            .parameters
            .insert("temperature".into(), 1.into());
        description
    }
}

/// Runs that export every metric, attribute and event, once with and once without the optional ones.
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
        .total(14)
        .cached_input(5)
        .cache_write_input(3)
        .reasoning(1);
    let script = Script::new()
        .attempt(|a| a.item(token("a")).fail(ErrorKind::ConnectionReset))
        .attempt(|a| {
            a.item(token("{"))
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
    let other = Script::new().attempt(|a| a.item(token("a")).fail(Failure::fatal()));
    let known = Monitoring::new()
        .metadata("model", "gpt-4o")
        .metadata("provider", "openai")
        .metadata("conversation_id", "c-1");
    for monitoring in [known, Monitoring::new()] {
        let l0 = L0::builder()
            .monitoring(monitoring)
            .retry(Retry::new().backoff(Backoff::none()))
            .guardrails(|| Finds)
            .drift(|| Finds)
            .interceptor(sdk.builder().build())
            .interceptor(sdk.stores_ends())
            .build();
        let run = l0
            .stream(script.source())
            .fallback(Described(other.clone()));
        let mut run = run.start();
        run.text().await.unwrap_err();
        let script = Script::new().attempt(|a| a.finish(FinishReason::Stop));
        let next = l0.stream(script.source()).detect_zero_output(false);
        next.parent(run.info()).start().text().await.unwrap();
    }
}

/// An expected metric.
#[derive(Debug)]
struct Expected {
    instrument: String,
    unit: String,
    boundaries: Vec<f64>,
    always: BTreeSet<String>,
    if_known: BTreeSet<String>,
    description: String,
}

/// Returns boundaries by name, from the table.
fn boundaries(name: &str) -> Vec<f64> {
    let rows = table("boundaries");
    let row = rows.iter().find(|row| row[0] == name);
    row.map_or_else(Vec::new, |row| {
        let values = row[1].split(", ");
        values.map(|value| value.parse().unwrap()).collect()
    })
}

/// Returns the metrics of the tables.
fn listed_metrics() -> BTreeMap<String, Expected> {
    let rows = table("metric").into_iter();
    let rows = rows.chain(table("metric of a number"));
    rows.map(|row| {
        let expected = Expected {
            instrument: row[1].clone(),
            unit: row[2].clone(),
            boundaries: boundaries(&row[3]),
            always: list(&row[4]),
            if_known: list(&row[5]),
            description: row[6].clone(),
        };
        (row[0].clone(), expected)
    })
    .collect()
}

/// Returns the expected metric of a number that is sent under its own name.
fn own_metric(quantity: &Quantity) -> Expected {
    let sum = quantity.kind == QuantityKind::Sum;
    let (unit, values) = match quantity.unit {
        Unit::Each(thing) => (format!("{{{thing}}}"), "count"),
        Unit::PerSecond(thing) => (format!("{{{thing}}}/s"), "rate"),
        Unit::Money => ("1".to_owned(), "money"),
        _ => ("s".to_owned(), "time"),
    };
    Expected {
        instrument: if sum { "counter" } else { "histogram" }.to_owned(),
        unit,
        boundaries: boundaries(if sum { "" } else { values }),
        always: quantity
            .labels()
            .iter()
            .map(|label| attribute_of(label))
            .collect(),
        if_known: list("gen_ai.response.model"),
        description: quantity.description.to_owned(),
    }
}

#[tokio::test(start_paused = true)]
async fn metrics_match_the_tables() {
    let sdk = Sdk::new();
    everything(&sdk).await;
    let ended = sdk.ended();
    let known = |quantity: &Quantity| {
        let mut telemetry = ended.iter().flat_map(|one: &Ended| &one.telemetry);
        telemetry.any(|telemetry| {
            let mut known = false;
            quantity.values(telemetry, &mut |_| known = true);
            quantity.each(telemetry, &mut |_, _| known = true);
            known
        })
    };
    let mut expected = listed_metrics();
    for (name, quantity) in own_metrics() {
        if known(quantity) {
            let before = expected.insert(name, own_metric(quantity));
            assert!(before.is_none(), "{before:?}");
        }
    }

    let (optional, always) = (
        list("gen_ai.provider.name, gen_ai.request.model"),
        list("gen_ai.operation.name"),
    );
    let mut emitted = BTreeSet::new();
    for metric in sdk.metrics() {
        let Metric {
            name,
            unit,
            description,
            instrument,
            boundaries,
            points,
        } = metric;
        let expected = expected.get(&name).unwrap_or_else(|| panic!("{name}"));
        assert_eq!(expected.instrument, instrument, "{name}");
        assert_eq!(expected.unit, unit, "{name}");
        assert_eq!(expected.boundaries, boundaries, "{name}");
        assert_eq!(expected.description, description, "{name}");
        let always = &always | &expected.always;
        let mut seen = BTreeSet::new();
        for point in points {
            let keys = keys(&point.attributes);
            assert!(keys.is_superset(&always), "{name}: {keys:?}");
            seen.extend(keys);
        }
        assert_eq!(seen, &(&always | &optional) | &expected.if_known, "{name}");
        emitted.insert(name);
    }
    assert_eq!(expected.into_keys().collect::<BTreeSet<_>>(), emitted);
}

#[test]
fn the_examples_of_numbers_match_what_is_sent() {
    let own: BTreeMap<_, _> = own_metrics().collect();
    for row in table("metric under its own name") {
        let metric = own_metric(own[&row[0]]);
        assert_eq!(metric.instrument, row[1], "{row:?}");
        assert_eq!(metric.unit, row[2], "{row:?}");
        assert_eq!(metric.boundaries, boundaries(&row[3]), "{row:?}");
    }
}

#[test]
fn the_numbers_with_other_names_exist() {
    let numbers: BTreeSet<_> = Quantity::ALL.iter().map(|one| one.name).collect();
    let metrics = listed_metrics();
    for row in table("number") {
        assert!(numbers.contains(&*row[0]), "{row:?}");
        let named = !["", "-"].contains(&&*row[1]);
        assert!(!named || metrics.contains_key(&row[1]), "{row:?}");
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

/// Returns the types of attributes, and checks that each is set only once.
fn types(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    let mut types = BTreeMap::new();
    for one in attributes {
        let before = types.insert(one.key.to_string(), type_of(&one.value).to_owned());
        assert_eq!(before, None, "{} is set twice", one.key);
    }
    types
}

/// Returns the types of the attributes of a table, and the attributes that are always set.
fn attributes(table_of: &str) -> (BTreeMap<String, String>, BTreeSet<String>) {
    let rows = table(table_of);
    let always = rows.iter().filter(|row| row[2] == "always");
    let always = always.map(|row| row[0].clone()).collect();
    let rows = rows.into_iter();
    let types = rows.map(|row| (row[0].clone(), row[1].clone()));
    (types.collect(), always)
}

/// The attributes of events, by the names of the events.
type Events = BTreeMap<String, BTreeMap<String, String>>;

fn listed_events(of: &str) -> Events {
    let rows = table("event").into_iter().filter(|row| row[1] == of);
    rows.map(|row| {
        let attributes = list(&row[2]).into_iter().map(|attribute| {
            let (key, kind) = attribute.split_once(": ").unwrap();
            (key.to_owned(), kind.to_owned())
        });
        (row[0].clone(), attributes.collect())
    })
    .collect()
}

/// Checks spans and the attributes that their numbers must have. Returns the names and kinds of the spans.
fn check(of: &str, spans: Vec<(SpanData, BTreeMap<String, String>)>) -> BTreeSet<String> {
    let (expected, always) = attributes(&format!("attribute of {of}"));
    let (mut seen, mut seen_events) = (BTreeMap::new(), Events::new());
    let mut names = BTreeSet::new();
    for (span, numbers) in spans {
        assert_eq!(span.instrumentation_scope, l0_otel::scope());
        let mut types = types(&span.attributes);
        for (key, value) in numbers {
            let kind = types.remove(&key);
            assert!(
                ["integer", "double"].contains(&kind.as_deref().unwrap_or("absent")),
                "{key}"
            );
            let sent = common::value(&span.attributes, &key);
            assert_eq!(sent, Some(value), "{key}");
        }
        assert!(
            always.iter().all(|key| types.contains_key(key)),
            "{types:?}"
        );
        seen.extend(types);
        for event in span.events {
            seen_events.insert(event.name.into_owned(), self::types(&event.attributes));
        }
        names.insert(format!("{} {:?}", span.name, span.span_kind));
    }
    assert_eq!(seen, expected);
    let listed = listed_events(of.rsplit(' ').next().unwrap());
    assert_eq!(seen_events, listed);
    names
}

#[tokio::test(start_paused = true)]
async fn spans_match_the_tables() {
    let sdk = Sdk::new();
    everything(&sdk).await;
    let telemetry = sdk
        .ended()
        .into_iter()
        .map(|ended| ended.telemetry.unwrap());
    let telemetry = Vec::from_iter(telemetry);
    let numbers = telemetry.iter().map(number_attributes);
    let runs = sdk.runs().into_iter().zip(numbers);
    assert_eq!(
        check("a run", runs.collect()),
        ["l0.run Internal".to_owned()].into()
    );

    let attempts = telemetry.iter().flat_map(|all| &all.attempts);
    let attempts = sdk
        .attempts()
        .into_iter()
        .zip(attempts.map(attempt_number_attributes));
    let names = ["chat Client", "chat gpt-4o Client", "chat other Client"];
    let names = names.map(str::to_owned);
    assert_eq!(check("an attempt", attempts.collect()), names.into());
}

#[test]
fn the_documentation_names_the_version_of_the_conventions() {
    let scope = l0_otel::scope();
    assert_eq!(scope.name(), "l0-otel");
    assert_eq!(scope.version(), Some(env!("CARGO_PKG_VERSION")));
    let url = scope.schema_url().unwrap();
    let (_, version) = url.rsplit_once('/').unwrap();
    assert!(include_str!("../names.md").contains(&format!("version {version}.")));
}
