//! Prompts and answers are not sent unless enabled. If they are, they are limited, redacted and masked.
//!
//! `L0_CONTENT_RUNS` sets the number of runs with a canary. Default: 5,000.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::{Sentry, attempts, l0, paused};
use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{
    Content, Failure, FinishReason, Keep, Monitoring, Retry, Telemetry, TokenKind, Usage,
};
use l0_sentry::{SentryConfig, SentryIntegration};
use sentry::protocol::Span;
use sentry::{ClientOptions, Envelope, Hub, Transport};
use serde_json::{Value, json};

const INPUT: &str = "gen_ai.input.messages";
const OUTPUT: &str = "gen_ai.output.messages";
const INSTRUCTIONS: &str = "gen_ai.system_instructions";
/// In capitals, because no run id contains them.
const CANARY: &str = "CANARY";
const MARK: &str = "…[cut]";

/// Runs a script with an input.
fn run(config: SentryConfig, script: &Script, input: Value) {
    let l0 = l0(config).build();
    let run = l0
        .stream(script.source())
        .metadata("model", "gpt-4")
        .metadata("provider", "openai")
        .input(input);
    paused().block_on(run.start().for_each(|_| async {}));
    assert_eq!(l0.observer_panics(), 0);
}

fn messages(span: &Span, key: &str) -> Option<Value> {
    let text = span.data.get(key)?.as_str().unwrap();
    Some(serde_json::from_str(text).unwrap())
}

fn message(role: &str, text: &str) -> Value {
    json!({ "role": role, "parts": [{ "type": "text", "content": text }] })
}

#[test]
fn no_content_is_sent_unless_enabled() {
    let sentry = Sentry::start();
    let script = Script::new().attempt(|a| a.token(CANARY).tool_call(CANARY));
    let input = json!({ "system": CANARY, "messages": [message("user", CANARY)] });
    run(sentry.config(), &script, input);
    let sent = sentry.sent();
    assert_eq!(sent.transactions.len(), 1);
    assert!(!sent.text.contains(CANARY), "{}", sent.text);
}

#[test]
fn each_attempt_has_only_its_own_prompt_and_answer() {
    let sentry = Sentry::start();
    let script = Script::new()
        .attempt(|a| a.token("first").fail(Failure::status(503)))
        .attempt(|a| {
            a.reasoning("hm")
                .token("sec")
                .token("ond")
                .tool_call("{\"city\":")
                .tool_call("\"Rome\"}")
                .finish(FinishReason::ToolCalls)
        });
    let input = json!({ "instructions": "be brief", "input": "hi" });
    run(sentry.config().content(Content::new()), &script, input);
    let sent = sentry.sent();
    let attempts = attempts(sent.transaction());
    let second = json!([{ "role": "assistant", "finish_reason": "tool_call", "parts": [
        { "type": "text", "content": "second" },
        { "type": "tool_call", "arguments": "{\"city\":\"Rome\"}" },
    ] }]);
    // The schema requires a finish reason even if there is none.
    let mut first = json!([message("assistant", "first")]);
    first[0]["finish_reason"] = "".into();
    let answers: Vec<_> = attempts.iter().map(|one| messages(one, OUTPUT)).collect();
    assert_eq!(answers, [Some(first), Some(second)]);
    for attempt in &attempts {
        assert_eq!(
            messages(attempt, INPUT),
            Some(json!([message("user", "hi")]))
        );
        assert_eq!(attempt.data[INSTRUCTIONS], "be brief");
    }
    assert_eq!(sent.text.matches("be brief").count(), 2);
}

#[test]
fn a_call_has_its_prompt_and_answer_and_embeddings_have_a_separate_attribute() {
    for (operation, expected) in [
        (
            "chat",
            (
                Some(json!([message("user", "one"), message("user", "two")])),
                None,
            ),
        ),
        ("embeddings", (None, Some("one\ntwo"))),
    ] {
        let sentry = Sentry::start();
        let l0 = l0(sentry.config().content(Content::new())).build();
        let script = Script::new().attempt(|a| a.token("answer").finish(FinishReason::Stop));
        let call = l0
            .call(script.answers())
            .metadata("model", "m")
            .metadata("provider", "p")
            .metadata("operation", operation)
            .input(json!({ "input": ["one", "two"] }));
        paused().block_on(call.start().into_future()).unwrap();
        let sent = sentry.sent();
        let attempt = attempts(sent.transaction())[0];
        let embedded = attempt.data.get("gen_ai.embeddings.input");
        let embedded = embedded.map(|text| text.as_str().unwrap());
        assert_eq!((messages(attempt, INPUT), embedded), expected);
        let mut answer = message("assistant", "answer");
        answer["finish_reason"] = "stop".into();
        assert_eq!(messages(attempt, OUTPUT), Some(json!([answer])));
    }
}

#[test]
fn the_prompt_of_an_attempt_without_an_answer_is_sent() {
    let sentry = Sentry::start();
    let script = Script::new().attempt(|a| a.connect_error(Failure::status(400)));
    run(
        sentry.config().content(Content::new()),
        &script,
        json!("hi"),
    );
    let sent = sentry.sent();
    let data = &attempts(sent.transaction())[0].data;
    assert!(data.contains_key(INPUT) && !data.contains_key(OUTPUT));
    assert!(!data.contains_key("gen_ai.response.model"), "{data:?}");
}

#[test]
fn long_content_is_cut_and_displaces_no_number() {
    let usage = Usage::new().input(12).output(2).total(14);
    let script = Script::new().attempt(|mut a| {
        for _ in 0..2_000 {
            a = a.token("éé, ").tool_call("ä ");
        }
        a.usage(usage).finish(FinishReason::Stop)
    });
    let turns = vec![json!({ "role": "user", "content": "ü ".repeat(500) }); 100];
    let input = json!({ "messages": turns, "system": "ö ".repeat(100_000) });
    for max in [0, 1, 99, 4_096] {
        let sentry = Sentry::start();
        let content = Content::new().max_bytes(max);
        run(sentry.config().content(content), &script, input.clone());
        let sent = sentry.sent();
        let data = &attempts(sent.transaction())[0].data;
        for key in [INPUT, OUTPUT, INSTRUCTIONS] {
            let text = data.get(key).map_or("", |text| text.as_str().unwrap());
            assert!(text.len() <= max + 512, "{key} of {max}: {}", text.len());
            assert!(text.is_empty() || text.contains(MARK), "{key} of {max}");
        }
        assert!(data[OUTPUT].as_str().unwrap().contains(MARK));
        assert_eq!(data["gen_ai.usage.input_tokens"], 12);
        assert_eq!(data["gen_ai.response.finish_reasons"], "stop");
        assert_eq!(data["outcome"], "completed");
    }
}

/// Sentry rejects transactions larger than 1 MiB.
#[test]
fn the_content_of_a_run_leaves_room_for_its_numbers() {
    const TAKEN: usize = 1024 * 1024;
    let usage = Usage::new().input(12).output(2);
    // This text grows the most when it is escaped twice.
    let text = "\\\"".repeat(20_000);
    let script = (0..5).fold(Script::new(), |script, _| {
        script.attempt(|a| a.token(&text).usage(usage).fail(Failure::status(503)))
    });
    let sentry = Sentry::start();
    let l0 = l0(sentry.config().content(Content::new().max_bytes(1 << 20)))
        .retry(
            Retry::new()
                .max_retries(4)
                .backoff(l0_core::Backoff::none()),
        )
        .build();
    let run = l0.stream(script.source()).input(text.as_str()).start();
    paused().block_on(run.for_each(|_| async {}));
    let sent = sentry.sent();
    let attempts = attempts(sent.transaction());
    assert_eq!(attempts.len(), 5);
    assert!(attempts[0].data.contains_key(OUTPUT));
    assert!(!attempts[4].data.contains_key(OUTPUT));
    let size = serde_json::to_string(sent.transaction()).unwrap().len();
    assert!((TAKEN / 4..TAKEN).contains(&size), "{size}");
    for attempt in attempts {
        assert_eq!(attempt.data["outcome"], "failed");
    }
}

#[test]
fn credentials_are_removed_from_every_part_of_the_content() {
    let secret = "Authorization: Bearer abcdef0123456789abcdef";
    let script = Script::new().attempt(|a| {
        a.token("Authorization: Bearer abcdef01")
            .token("23456789abcdef\nok")
            .tool_call(secret)
    });
    for input in [
        json!(secret),
        json!({ "system": secret, "messages": [{ "role": "user", "content": [{ "header": secret }] }] }),
    ] {
        let sentry = Sentry::start();
        run(sentry.config().content(Content::new()), &script, input);
        let sent = sentry.sent();
        assert!(!sent.text.contains("abcdef0"), "{}", sent.text);
        let attempts = attempts(sent.transaction());
        let answer = attempts[0].data[OUTPUT].as_str().unwrap();
        assert!(answer.contains("\\nok"), "{answer}");
    }
}

#[test]
fn a_panicking_mask_loses_only_the_content() {
    for outcome in ["completed", "failed"] {
        let sentry = Sentry::start();
        let content = Content::new().mask(|_| panic!("no"));
        let l0 = l0(sentry.config().content(content))
            .retry(Retry::none())
            .build();
        let script = Script::new().attempt(|a| {
            let a = a.token("a").usage(Usage::new().input(12));
            if outcome == "failed" {
                return a.fail(Failure::status(503));
            }
            a
        });
        let run = l0.stream(script.source()).start();
        paused().block_on(run.for_each(|_| async {}));
        let sent = sentry.sent();
        let attempts = attempts(sent.transaction());
        assert_eq!(attempts[0].data["outcome"], outcome);
        assert_eq!(attempts[0].data.get(OUTPUT), None);
        assert_eq!(common::trace(sent.transaction()).data["outcome"], outcome);
        assert_eq!(sent.events.len(), usize::from(outcome == "failed"));
        // Exactly this panic is counted.
        assert_eq!(l0.observer_panics(), 1);
    }
}

#[test]
fn content_that_is_not_sent_is_neither_kept_nor_masked() {
    let unsampled = |options: ClientOptions| options.traces_sample_rate(0.0);
    let untraced = |options: ClientOptions| options;
    let masked = Arc::new(AtomicUsize::new(0));
    for (sentry, enabled, expected) in [
        (Sentry::with(unsampled), true, 0),
        (Sentry::with(untraced), true, 0),
        (Sentry::start(), false, 0),
        (Sentry::start(), true, 2),
    ] {
        let count = Arc::clone(&masked);
        let content = Content::new().mask(move |text| {
            count.fetch_add(1, Ordering::Relaxed);
            text.to_owned()
        });
        let config = sentry.config().content(content).enable_tracing(enabled);
        run(
            config,
            &Script::new().attempt(|a| a.token("a")),
            json!("hi"),
        );
        // The role of a message is not part of the prompt's text.
        assert_eq!(masked.swap(0, Ordering::Relaxed), expected);
    }
}

#[test]
fn a_run_that_is_not_kept_sends_no_content() {
    let sentry = Sentry::start();
    let l0 = l0(sentry.config().content(Content::new()))
        .monitoring(Monitoring::new().keep(Keep::rate(0.0)))
        .build();
    let script = Script::new().attempt(|a| a.token(CANARY));
    let run = l0.stream(script.source()).input(CANARY).start();
    paused().block_on(run.for_each(|_| async {}));
    let sent = sentry.sent();
    assert_eq!((sent.transactions.len(), sent.text.as_str()), (0, ""));
}

#[test]
fn manual_reports_send_content_too() {
    for content in [None, Some(Content::new())] {
        let sentry = Sentry::start();
        let is_sent = content.is_some();
        let config = match content {
            Some(content) => sentry.config().content(content),
            None => sentry.config(),
        };
        let data = [("model", "gpt-4"), ("provider", "openai")];
        let mut execution = SentryIntegration::new(config).start_execution("chat", data);
        execution.record_input("hi");
        execution.record_token("hel");
        execution.record_token("lo");
        let mut telemetry = Telemetry::example();
        telemetry.finish_reason = Some(FinishReason::Length);
        execution.complete(Some(&telemetry));
        let sent = sentry.sent();
        let call = common::span(sent.transaction(), "gen_ai.chat");
        let mut answer = message("assistant", "hello");
        answer["finish_reason"] = "length".into();
        let expected = is_sent.then(|| json!([answer]));
        assert_eq!(messages(call, OUTPUT), expected);
        let expected = is_sent.then(|| json!([message("user", "hi")]));
        assert_eq!(messages(call, INPUT), expected);
        assert_eq!(call.data["gen_ai.usage.input_tokens"], 12);
    }
}

/// Searches all sent data for the canary, and for a prefix of a canary that was cut.
#[derive(Default)]
struct Looks([AtomicUsize; 2]);

impl Transport for Looks {
    fn send_envelope(&self, envelope: Envelope) {
        let mut sent = Vec::new();
        envelope.to_writer(&mut sent).unwrap();
        let sent = String::from_utf8(sent).unwrap();
        self.0[0].fetch_add(usize::from(sent.contains("[masked]")), Ordering::Relaxed);
        self.0[1].fetch_add(usize::from(sent.contains(&CANARY[..4])), Ordering::Relaxed);
    }
}

#[test]
fn no_masked_canary_is_in_any_envelope() {
    let runs = std::env::var("L0_CONTENT_RUNS").ok();
    let runs = runs.map_or(5_000, |runs| runs.parse::<usize>().unwrap());
    let looks = Arc::new(Looks::default());
    let options = ClientOptions::new()
        .dsn("https://public@sentry.invalid/1")
        .traces_sample_rate(1.0)
        .transport(Arc::clone(&looks));
    let hub = Arc::new(Hub::new(Some(Arc::new(options.into())), Arc::default()));
    let content = Content::new()
        .max_bytes(64)
        .mask(|text| text.replace(CANARY, "[masked]"));
    let l0 = l0(SentryConfig::new().hub(hub).content(content)).build();
    paused().block_on(async {
        for index in 0..runs {
            // At every position, also across tokens and across the cut.
            let at = index % 80;
            let text = format!("{}{CANARY} and so on", "- ".repeat(at / 2));
            let (one, other) = text.split_at(at / 2 + 3);
            let kind = [TokenKind::Text, TokenKind::ToolCall][index % 2];
            let token = |text: &str| ScriptedToken::new(kind, text);
            let script = Script::new().attempt(|a| a.item(token(one)).item(token(other)));
            let run = l0
                .stream(script.source())
                .metadata("model", "gpt-4")
                .metadata("provider", "openai")
                .input(json!({ "system": text, "messages": [
                    { "role": "user", "content": text },
                    { "role": CANARY, "content": { CANARY: [CANARY] } },
                ] }));
            run.start().for_each(|_| async {}).await;
        }
    });
    let [masked, found] = [0, 1].map(|at| looks.0[at].load(Ordering::Relaxed));
    assert_eq!(found, 0);
    // In the other runs it was cut.
    assert!(masked > runs / 2, "{masked}");
}
