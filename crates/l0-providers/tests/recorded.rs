//! Recorded streams of real providers, which are not part of this repository: the folder in `L0_RECORDED_STREAMS`, with
//! `expected.json` next to the recordings.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::*;
use futures_util::StreamExt;
use l0_core::{L0, Outcome, Retry, TokenKind};
use l0_providers::{ProviderError, ProviderToken};
use serde_json::Value;
use sha2::{Digest, Sha256};

#[test]
fn recorded_streams_decode_to_what_is_expected() {
    let Some(folder) = std::env::var_os("L0_RECORDED_STREAMS") else {
        println!("skipped: L0_RECORDED_STREAMS names no folder of recorded streams");
        return;
    };
    let folder = Path::new(&folder);
    let expected = std::fs::read_to_string(folder.join("expected.json")).unwrap();
    let expected: BTreeMap<String, Value> = serde_json::from_str(&expected).unwrap();
    for (name, expected) in &expected {
        let format = expected["format"].as_str().unwrap();
        let dialect = DIALECTS.iter().find(|dialect| dialect.name == format);
        let raw = std::fs::read_to_string(folder.join(name)).unwrap();
        // Gemini's servers end lines with CRLF.
        let recording = raw.replace("\r\n", "\n");
        let frames = frames(name, format, &recording);
        let dialect = *dialect.unwrap();
        check(name, dialect, &frames, expected);
        assert!(
            !name.ends_with(".sse") || same(&dialect.decode(&raw), &dialect.decode(&recording)),
            "{name}: as sent"
        );
        println!("{name}: as expected");
    }
    println!("{} recordings", expected.len());
}

/// The events of a recording, each with the blank line that ends it.
fn frames(name: &str, format: &str, recording: &str) -> Vec<String> {
    if name.ends_with(".sse") {
        return recording
            .split_inclusive("\n\n")
            .map(str::to_owned)
            .collect();
    }
    let payloads = recording.lines().filter(|line| !line.trim().is_empty());
    let done = (format == "openai-chat").then_some("[DONE]");
    let frame = |payload: &str| {
        let fields: Value = serde_json::from_str(payload).unwrap_or_default();
        let event = fields["type"].as_str();
        let event = event.map_or(String::new(), |name| format!("event: {name}\n"));
        format!("{event}data: {payload}\n\n")
    };
    payloads.chain(done).map(frame).collect()
}

fn check(name: &str, dialect: Dialect, frames: &[String], expected: &Value) {
    let body = frames.concat();
    let whole = dialect.decode(&body);
    compare(name, &whole, &frames_of(dialect, frames), expected);

    assert!(
        same(&dialect.chunks(by_bytes(body.as_bytes())), &whole),
        "{name}: byte by byte"
    );
    let crlf = body.replace('\n', "\r\n");
    assert!(same(&dialect.decode(&crlf), &whole), "{name}: CRLF");
    assert!(
        same(&dialect.decode(body.replace('\n', "\r")), &whole),
        "{name}: CR"
    );
    // A fixed pseudo-random sequence: the same splits every time.
    let mut state = 7_u64;
    let mut random = move || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        usize::try_from(state >> 40).unwrap()
    };
    for _ in 0..20 {
        let places: Vec<_> = (0..random() % 200).map(|_| random()).collect();
        let chunks = cut_at(body.as_bytes(), &places);
        assert!(
            same(&dialect.chunks(chunks), &whole),
            "{name}: split at {places:?}"
        );
        let chunks = cut_at(crlf.as_bytes(), &places);
        assert!(
            same(&dialect.chunks(chunks), &whole),
            "{name}: CRLF split at {places:?}"
        );
    }

    // Cut after each event: the tokens are a prefix, and only a finish reason makes the response complete.
    let first_finish = frames.iter().position(|frame| finishes_in(frame));
    let first_finish = first_finish.unwrap_or(frames.len());
    for count in 0..frames.len() {
        let body = frames[..count].concat();
        let (tokens, error) = dialect.decode(&body);
        let (all, _) = &whole;
        assert_eq!(tokens[..], all[..tokens.len()], "{name}: cut after {count}");
        let has_error = frames[..count].iter().any(|frame| frame.contains("error"));
        assert!(error.is_none() || has_error, "{name}: {error:?}");
        if count <= first_finish && error.is_none() {
            let outcome = outcome_of(dialect, body);
            assert_eq!(outcome, Outcome::Truncated, "{name}: cut after {count}");
        }
    }
    let outcome = match (&expected["finish_reason"], &expected["errors"]) {
        (_, Value::Array(errors)) if !errors.is_empty() => Outcome::Failed,
        // The end mark completes a response too.
        (Value::Null, _) if !body.contains("data: [DONE]") => Outcome::Truncated,
        _ => Outcome::Completed,
    };
    assert_eq!(outcome_of(dialect, body), outcome, "{name}");
}

/// Returns `true` if a frame reports that the response, or one of its choices, is complete.
fn finishes_in(frame: &str) -> bool {
    let data: Vec<_> = frame
        .lines()
        .filter_map(|line| line.strip_prefix("data:"))
        .collect();
    let data = data.join("\n");
    if data.trim() == "[DONE]" {
        return true;
    }
    let payload: Value = serde_json::from_str(&data).unwrap_or_default();
    let choices = ["choices", "candidates"].map(|key| payload[key].as_array());
    let mut choices = choices.into_iter().flatten().flatten();
    let reasons = [
        "/delta/stop_reason",
        "/message/stop_reason",
        "/promptFeedback/blockReason",
    ];
    matches!(
        payload["type"].as_str(),
        Some("message_stop" | "response.completed" | "response.incomplete" | "response.failed")
    ) || reasons
        .iter()
        .any(|reason| payload.pointer(reason).is_some_and(Value::is_string))
        || choices
            .any(|choice| choice["finish_reason"].is_string() || choice["finishReason"].is_string())
}

/// Returns the frame of each token.
fn frames_of(dialect: Dialect, frames: &[String]) -> Vec<usize> {
    let read = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&read);
    // The decoder reads the next frame after all tokens of the previous one have been yielded.
    let frames: Vec<_> = frames.iter().map(|frame| frame.clone().into()).collect();
    let body = futures_util::stream::iter(frames).map(move |frame| {
        counter.fetch_add(1, Ordering::Relaxed);
        Ok(frame)
    });
    let decoder = (dialect.decoder)(body.boxed());
    let tokens = decoder.filter_map(|token| {
        let frame = token.ok().map(|_| read.load(Ordering::Relaxed));
        std::future::ready(frame)
    });
    now(tokens.collect())
}

/// Returns the outcome of a run over this body.
fn outcome_of(dialect: Dialect, body: String) -> Outcome {
    let once = futures_util::stream::iter([Ok(body.into_bytes())]).boxed();
    let mut once = Some((dialect.decoder)(once));
    let l0 = L0::builder()
        .retry(Retry::new().model_retries(0).max_retries(0))
        .build();
    let mut run = l0
        .stream(move |_| {
            let stream = once.take();
            async move { Ok::<_, ProviderError<Infallible>>(stream.unwrap()) }
        })
        .start();
    while let Some(item) = now(run.next()) {
        // A complete answer without a word: the one that was cut after `{"`.
        if matches!(item, Err(l0_core::Error::ZeroOutput)) {
            return Outcome::Completed;
        }
    }
    run.outcome().unwrap()
}

fn compare(name: &str, (tokens, error): &Decoded, frames: &[usize], expected: &Value) {
    // Refusals are not part of the expected text: they are text, but not the answer.
    let fits = |token: &ProviderToken, kind| token.kind == kind && !token.refusal;
    let of = |kind, choice: Option<u32>| -> Vec<&ProviderToken> {
        let fits = |token: &&ProviderToken| {
            fits(token, kind) && choice.is_none_or(|choice| token.choice == choice)
        };
        tokens.iter().filter(fits).collect()
    };
    // A payload can yield several tokens of a kind: of several choices, or between others.
    let payloads_with = |kind| {
        let tokens = tokens.iter().zip(frames);
        let frames = tokens.filter(|(token, _)| fits(token, kind));
        frames
            .map(|(_, frame)| frame)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let text = |tokens: &[&ProviderToken]| -> String {
        tokens.iter().map(|token| &token.text[..]).collect()
    };
    let hash = |text: &str| -> String {
        Sha256::digest(text)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    };
    let finish = |choice: u32| {
        let of_choice = tokens.iter().filter(|token| token.choice == choice);
        of_choice
            .filter_map(|token| token.finish_reason.clone())
            .next_back()
    };

    let answer = text(&of(TokenKind::Text, Some(0)));
    let reasoning = text(&of(TokenKind::Reasoning, None));
    let usage = tokens.iter().filter_map(|token| token.usage).next_back();
    let calls = of(TokenKind::ToolCall, None);
    let mut pieces = BTreeMap::<_, usize>::new();
    for token in &calls {
        let call = (token.choice, token.tool_call.as_ref().unwrap().index);
        *pieces.entry(call).or_default() += 1;
    }
    // A call whose arguments arrive without any delta is still one token.
    let deltas = usize::try_from(expected["tool_call_deltas"].as_u64().unwrap()).unwrap();
    let single = pieces.values().filter(|pieces| **pieces == 1).count();
    assert!(
        (deltas..=deltas + single).contains(&calls.len()),
        "{name}: {} pieces of calls, {deltas} deltas",
        calls.len()
    );
    let model = tokens
        .iter()
        .filter_map(|token| token.model.clone())
        .next_back();
    if let Some(error) = error {
        // Nothing after the first error is read.
        assert!(matches!(error, ProviderError::Api(_)), "{name}: {error:?}");
        let ProviderError::Api(error) = error else {
            unreachable!()
        };
        let first = &expected["errors"][0];
        assert_eq!(Value::from(error.message()), first["message"], "{name}");
        assert_eq!(Value::from(error.error_type()), first["type"], "{name}");
    }

    for (field, value) in [
        (
            "text_delta_chunks",
            Value::from(payloads_with(TokenKind::Text)),
        ),
        ("text_chars", answer.chars().count().into()),
        ("text_utf8_bytes", answer.len().into()),
        ("text_sha256", hash(&answer).into()),
        (
            "reasoning_delta_chunks",
            payloads_with(TokenKind::Reasoning).into(),
        ),
        ("reasoning_chars", reasoning.chars().count().into()),
        ("reasoning_sha256", hash(&reasoning).into()),
        ("finish_reason", finish(0).into()),
        ("tool_calls", pieces.len().into()),
        ("model", model.into()),
    ] {
        assert_eq!(value, expected[field], "{name}: {field}");
    }
    let reported = expected["errors"].as_array().unwrap();
    assert_eq!(error.is_some(), !reported.is_empty(), "{name}: errors");
    for (choice, expected) in expected["per_choice"].as_object().into_iter().flatten() {
        let choice = choice.parse().unwrap();
        let answer = text(&of(TokenKind::Text, Some(choice)));
        assert_eq!(
            Value::from(answer.chars().count()),
            expected["text_chars"],
            "{name}"
        );
        assert_eq!(
            Value::from(hash(&answer)),
            expected["text_sha256"],
            "{name}"
        );
        assert_eq!(
            Value::from(finish(choice)),
            expected["finish_reason"],
            "{name}"
        );
    }
    let counts = usage.map_or(Value::Null, |usage| serde_json::to_value(usage).unwrap());
    assert_eq!(counts, expected["usage"], "{name}: usage");
}
