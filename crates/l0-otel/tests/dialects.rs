//! The attributes and metrics of each version of the conventions and of each dialect.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::time::Duration;

use common::{MS, Sdk, table, value, with_model};
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Backoff, Cost, CostSource, Currency, FinishReason, L0, Monitoring, Retry, TokenKind, Usage,
    keys,
};
use l0_otel::{Conventions, Dialect, Form, LANGFUSE, OPENINFERENCE, On, OtelBuilder, Row, SIGNOZ};
use opentelemetry::Value;
use opentelemetry_sdk::trace::SpanData;

/// Runs an attempt that is retried, then an attempt that answers.
async fn answered(builder: OtelBuilder, monitoring: Monitoring) {
    let usage = Usage::new()
        .input(1_390)
        .output(40)
        .total(1_430)
        .cached_input(1_100)
        .cache_write_input(65)
        .reasoning(30);
    let amount = "0.0123".parse().unwrap();
    let cost = Cost::new(amount, Currency::USD, CostSource::Provider);
    let mut token = ScriptedToken::new(TokenKind::Text, "a");
    token.model = Some("gpt-4o-2024-08-06".to_owned());
    let script = Script::new()
        .attempt(|a| a.token("a").fail(ErrorKind::ConnectionReset))
        .attempt(|a| {
            a.wait(1_500 * MS)
                .item(token)
                .token("b")
                .usage(usage)
                .cost(cost)
                .finish(FinishReason::Stop)
        });
    let l0 = L0::builder()
        .monitoring(monitoring)
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(builder.build())
        .build();
    let mut run = l0
        .stream(script.source())
        .metadata(keys::CONVERSATION_ID, "c-1")
        .metadata("user_id", "u-1")
        .metadata("tags", ["beta", "eu"].as_slice())
        .start();
    run.text().await.unwrap();
}

/// Returns the attributes that a span has only with a dialect, as text with their types.
fn added(with: &SpanData, without: &SpanData) -> Vec<String> {
    let known = without.attributes.iter().map(|one| &one.key);
    let known: BTreeSet<_> = known.collect();
    let more = with.attributes.iter();
    let more = more.filter(|one| !known.contains(&one.key));
    let lines = more.map(|one| {
        let kind = match one.value {
            Value::String(_) => "string",
            Value::I64(_) => "integer",
            Value::F64(_) => "double",
            _ => "other",
        };
        format!("{}: {kind} = {}", one.key, one.value.as_str())
    });
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn each_dialect_adds_exactly_its_attributes() {
    let plain = Sdk::new();
    answered(plain.builder(), with_model(Monitoring::new())).await;
    let start = |span: &SpanData, after| {
        let time = span.start_time + after;
        humantime::format_rfc3339_millis(time).to_string()
    };
    for (dialect, of_run, of_failed, of_answer) in [
        (
            &LANGFUSE,
            vec![
                "langfuse.observation.level: string = DEFAULT",
                "session.id: string = c-1",
                "user.id: string = u-1",
                "langfuse.trace.tags: string = [\"beta\",\"eu\"]",
            ],
            vec![
                "langfuse.observation.type: string = generation",
                "langfuse.observation.completion_start_time: string = {start}",
                "langfuse.observation.level: string = ERROR",
                "session.id: string = c-1",
                "user.id: string = u-1",
                "langfuse.trace.tags: string = [\"beta\",\"eu\"]",
            ],
            vec![
                "langfuse.observation.type: string = generation",
                "langfuse.observation.completion_start_time: string = {start}",
                "langfuse.observation.usage_details: string = {\"input\":225,\
                 \"input_cache_creation\":65,\"input_cache_read\":1100,\"output\":10,\
                 \"output_reasoning_tokens\":30,\"total\":1430}",
                "langfuse.observation.cost_details: string = {\"total\":0.0123}",
                "langfuse.observation.level: string = DEFAULT",
                "session.id: string = c-1",
                "user.id: string = u-1",
                "langfuse.trace.tags: string = [\"beta\",\"eu\"]",
            ],
        ),
        (
            &OPENINFERENCE,
            vec![
                "openinference.span.kind: string = CHAIN",
                "session.id: string = c-1",
                "user.id: string = u-1",
            ],
            vec![
                "openinference.span.kind: string = LLM",
                "llm.model_name: string = gpt-4o",
                "llm.provider: string = openai",
                "llm.finish_reason: string = error",
                "session.id: string = c-1",
                "user.id: string = u-1",
            ],
            vec![
                "openinference.span.kind: string = LLM",
                "llm.model_name: string = gpt-4o-2024-08-06",
                "llm.provider: string = openai",
                "llm.token_count.prompt: integer = 1390",
                "llm.token_count.completion: integer = 40",
                "llm.token_count.total: integer = 1430",
                "llm.token_count.prompt_details.cache_read: integer = 1100",
                "llm.token_count.prompt_details.cache_write: integer = 65",
                "llm.token_count.completion_details.reasoning: integer = 30",
                "llm.cost.total: double = 0.0123",
                "llm.finish_reason: string = stop",
                "session.id: string = c-1",
                "user.id: string = u-1",
            ],
        ),
        (
            &SIGNOZ,
            vec![],
            vec!["gen_ai.server.ttft: double = 0"],
            vec!["gen_ai.server.ttft: double = 1.5"],
        ),
    ] {
        let sdk = Sdk::new();
        answered(
            sdk.builder().dialect(dialect),
            with_model(Monitoring::new()),
        )
        .await;
        assert_eq!(added(&sdk.run(), &plain.run()), of_run, "{}", dialect.name);
        let attempts = sdk.attempts().into_iter().zip(plain.attempts());
        for (((with, without), expected), after) in attempts
            .zip([of_failed, of_answer])
            .zip([Duration::ZERO, 1_500 * MS])
        {
            let start = start(&with, after);
            let expected = expected.into_iter();
            let expected = expected.map(|line| line.replace("{start}", &start));
            assert_eq!(
                added(&with, &without),
                Vec::from_iter(expected),
                "{}",
                dialect.name
            );
        }
    }
}

/// Returns a table of `dialects.md`: the attributes that a dialect adds to the span of a run and to the span of
/// the attempt that answered.
fn rows(run: &[String], answer: &[String]) -> String {
    let spans = [("run", run), ("attempt", answer)];
    let mut rows = BTreeMap::<&str, (Vec<&str>, String)>::new();
    let mut order = Vec::new();
    for (span, lines) in spans.into_iter().rev() {
        for line in lines {
            let (attribute, rest) = line.split_once(": ").unwrap();
            let (kind, value) = rest.split_once(" = ").unwrap();
            let value = match attribute {
                "langfuse.observation.completion_start_time" => "2026-01-31T12:00:01.500Z",
                _ => value,
            };
            let row = rows.entry(attribute).or_insert_with(|| {
                order.push(attribute);
                (Vec::new(), format!("{kind} | `{value}`"))
            });
            if !row.1.contains(&format!("`{value}`")) {
                row.1 += &format!(", `{value}`");
            }
            row.0.push(span);
        }
    }
    let lines = order.into_iter().map(|attribute| {
        let (spans, rest) = &rows[attribute];
        format!("| `{attribute}` | {} | {rest} |\n", spans.join(", "))
    });
    lines.collect()
}

#[tokio::test(start_paused = true)]
async fn the_page_of_dialects_shows_the_attributes_that_each_adds() {
    let plain = Sdk::new();
    answered(plain.builder(), with_model(Monitoring::new())).await;
    let mut page = String::from(
        "# Dialects\n\nThese attributes are added by each dialect to the spans of an example run and of its attempt that \
         answered. Of 1,390 input\ntokens, 1,100 were read from a cache and 65 were written to it. Of 40 output tokens, 30 \
         were reasoning. The first token came\nafter 1.5 s. The metadata had `conversation_id`, `user_id` and `tags`. A \
         test keeps this page up to date.\n",
    );
    for dialect in [&LANGFUSE, &OPENINFERENCE, &SIGNOZ] {
        let sdk = Sdk::new();
        answered(
            sdk.builder().dialect(dialect),
            with_model(Monitoring::new()),
        )
        .await;
        let answer = (sdk.attempts().remove(1), plain.attempts().remove(1));
        let of_run = added(&sdk.run(), &plain.run());
        let of_answer = added(&answer.0, &answer.1);
        let head = "| attribute | spans | type | value |\n|---|---|---|---|\n";
        let name = dialect.name;
        page += &format!("\n## `{name}`\n\n{head}{}", rows(&of_run, &of_answer));
    }
    common::assert_is("dialects.md", &page);
}

#[tokio::test(start_paused = true)]
async fn several_dialects_add_each_attribute_once_and_replace_none() {
    static OWN: Dialect = Dialect::new(
        "own",
        &[
            Row::constant("session.id", "another"),
            Row::constant("gen_ai.request.model", "another"),
            Row::constant("tier", "another"),
            Row::quantity("seconds", "time_to_first_token").form(Form::Int),
            Row::attribute("json", "gen_ai.response.finish_reasons").form(Form::Json),
            Row::attribute("absent", "gen_ai.response.id"),
            Row::attribute("no.number", "gen_ai.request.model").form(Form::Double),
            Row::constant("everywhere", "x").on(On::Both),
        ],
    );
    let sdk = Sdk::new();
    let builder = sdk.builder().dialect(&OPENINFERENCE).dialect(&LANGFUSE);
    let builder = builder.dialect(&OWN).dialect(&LANGFUSE);
    let builder = builder.span_attribute_keys(["tier"]).unwrap();
    let monitoring = with_model(Monitoring::new()).metadata("tier", "free");
    answered(builder, monitoring).await;
    let answer = sdk.attempts().remove(1);
    for (key, expected) in [
        ("session.id", Some("c-1")),
        ("gen_ai.request.model", Some("gpt-4o")),
        ("tier", Some("free")),
        ("seconds", Some("1")),
        ("json", Some("[\"stop\"]")),
        ("absent", None),
        ("no.number", None),
        ("everywhere", Some("x")),
    ] {
        let sent = value(&answer.attributes, key);
        assert_eq!(sent.as_deref(), expected, "{key}");
    }
    let of_run = value(&sdk.run().attributes, "everywhere");
    assert_eq!(of_run.as_deref(), Some("x"));
}

#[tokio::test(start_paused = true)]
async fn a_dropped_run_is_distinguished_from_a_completed_one() {
    let sdk = Sdk::new();
    let otel = sdk.builder().dialect(&LANGFUSE).dialect(&OPENINFERENCE);
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(otel.build())
        .build();
    let script = Script::new().attempt(|a| a.token("a").token("b"));
    let mut run = l0.stream(script.source()).start();
    futures_util::StreamExt::next(&mut run).await;
    drop(run);
    let expected = [
        ("langfuse.observation.level", "WARNING"),
        ("langfuse.observation.status_message", "dropped"),
        ("l0.outcome", "dropped"),
    ];
    for (key, expected) in expected {
        for span in sdk.spans() {
            let sent = value(&span.attributes, key);
            assert_eq!(sent.as_deref(), Some(expected), "{key}");
        }
    }
    let sent = value(&sdk.attempt().attributes, "llm.finish_reason");
    assert_eq!(sent.as_deref(), Some("dropped"));
}

#[tokio::test(start_paused = true)]
async fn versions_of_the_conventions_differ_only_in_the_names_of_the_table() {
    let mut sums = Vec::new();
    for conventions in [Conventions::V1_41, Conventions::DEVELOPMENT] {
        let sdk = Sdk::new();
        let builder = sdk.builder().conventions(conventions);
        answered(builder, with_model(Monitoring::new())).await;
        let points = sdk.points().into_iter().map(|point| {
            let (name, value) = point.rsplit_once("] ").unwrap();
            let (name, attributes) = name.split_once('[').unwrap();
            let token_type = ["input", "output"]
                .into_iter()
                .find(|kind| attributes.contains(&format!("gen_ai.token.type={kind}")));
            let of = token_type.map_or(String::new(), |kind| format!(" of {kind}"));
            (format!("{name}{of}"), value.to_owned())
        });
        sums.push(BTreeMap::from_iter(points));
    }
    let [released, mut developed] = sums.try_into().unwrap();
    for row in table("under 1.41") {
        let value = developed
            .remove(&row[1])
            .unwrap_or_else(|| panic!("{row:?}"));
        let before = developed.insert(row[0].clone(), value);
        assert_eq!(before, None, "{row:?}");
    }
    // Only the sums can be compared: a counter has nothing else.
    for (name, value) in &released {
        let sum = |value: &str| value.rsplit(' ').next().unwrap().to_owned();
        assert_eq!(sum(value), sum(&developed[name]), "{name}");
    }
    assert_eq!(released.len(), developed.len());

    for (conventions, url) in [
        (
            Conventions::V1_41,
            "https://opentelemetry.io/schemas/1.41.0",
        ),
        (
            Conventions::DEVELOPMENT,
            "https://opentelemetry.io/schemas/gen-ai-dev/1.42.0-dev",
        ),
    ] {
        assert_eq!(conventions.scope().schema_url(), Some(url));
    }
}

#[test]
fn names_sent_under_any_version_are_reserved_and_no_others() {
    let sdk = Sdk::new();
    let listed = |key: &str| sdk.builder().span_attribute_keys([key]).is_ok();
    for key in ["gen_ai.agent.name", "gen_ai.request.max_tokens", "user.id"] {
        assert!(listed(key), "{key}");
    }
    for key in ["gen_ai.usage.input_tokens", "l0.kept", "error.type"] {
        assert!(!listed(key), "{key}");
    }
}
