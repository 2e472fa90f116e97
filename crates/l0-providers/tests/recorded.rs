//! Recorded streams of real providers, which are not part of this repository: the folder that
//! `L0_RECORDED_STREAMS` names, with `expected.json` beside the recordings.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::*;
use l0_core::{Token, TokenKind};
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
    let mut checked = 0;
    for (name, expected) in &expected {
        if expected["format"] == "openai-chat" {
            let recording = std::fs::read_to_string(folder.join(name)).unwrap();
            check(name, &frames(name, &recording), expected);
            checked += 1;
        }
    }
    assert!(checked > 0, "no recording of this format");
    println!("{checked} recordings decode as expected");
}

/// The recording's events, each with the blank line that ends it.
fn frames(name: &str, recording: &str) -> Vec<String> {
    if name.ends_with(".sse") {
        return recording
            .split_inclusive("\n\n")
            .map(str::to_owned)
            .collect();
    }
    let payloads = recording.lines().filter(|line| !line.trim().is_empty());
    let done = std::iter::once("[DONE]");
    payloads
        .chain(done)
        .map(|payload| format!("data: {payload}\n\n"))
        .collect()
}

fn check(name: &str, frames: &[String], expected: &Value) {
    let body = frames.concat();
    let whole = decode(&body);
    compare(name, &whole, expected);

    assert!(
        same(&decode_chunks(by_bytes(body.as_bytes())), &whole),
        "{name}: byte by byte"
    );
    let crlf = body.replace('\n', "\r\n");
    assert!(same(&decode(&crlf), &whole), "{name}: CRLF");
    assert!(
        same(&decode(body.replace('\n', "\r")), &whole),
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
            same(&decode_chunks(chunks), &whole),
            "{name}: split at {places:?}"
        );
        let chunks = cut_at(crlf.as_bytes(), &places);
        assert!(
            same(&decode_chunks(chunks), &whole),
            "{name}: CRLF split at {places:?}"
        );
    }

    // Cut after each event: what came is a prefix, and only a finish reason makes it complete.
    let done = |frame: &String| frame.trim() == "data: [DONE]";
    let finishing = |frame: &String| frame.contains(r#""finish_reason":""#) || done(frame);
    let first_finish = frames.iter().position(finishing).unwrap_or(frames.len());
    for count in 0..frames.len() {
        let (tokens, error) = decode(frames[..count].concat());
        let (all, _) = &whole;
        assert_eq!(tokens[..], all[..tokens.len()], "{name}: cut after {count}");
        assert!(
            error.is_none() || tokens.len() == all.len(),
            "{name}: {error:?}"
        );
        if count <= first_finish {
            let finished = tokens.iter().any(|token| token.view().finish.is_some());
            assert!(!finished, "{name}: complete after {count} events");
        }
    }
    let complete = whole.0.iter().any(|token| token.view().finish.is_some());
    assert_eq!(complete, !expected["finish_reason"].is_null(), "{name}");
}

fn compare(name: &str, (tokens, error): &Decoded, expected: &Value) {
    let of = |kind, choice: Option<u32>| -> Vec<&ProviderToken> {
        let fits = |token: &&ProviderToken| {
            token.kind == kind && choice.is_none_or(|choice| token.choice == choice)
        };
        tokens.iter().filter(fits).collect()
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
    let distinct: BTreeSet<_> = calls
        .iter()
        .map(|token| (token.choice, token.tool_call.as_ref().unwrap().index))
        .collect();
    let model = tokens
        .iter()
        .filter_map(|token| token.model.clone())
        .next_back();
    if let Some(error) = error {
        assert!(matches!(error, ProviderError::Api(_)), "{name}: {error:?}");
        let ProviderError::Api(error) = error else {
            unreachable!()
        };
        let first = &expected["errors"][0];
        assert_eq!(
            Value::from(error.message.clone()),
            first["message"],
            "{name}"
        );
        assert_eq!(
            Value::from(error.error_type.clone()),
            first["type"],
            "{name}"
        );
    }

    for (field, value) in [
        (
            "text_delta_chunks",
            Value::from(of(TokenKind::Text, None).len()),
        ),
        ("text_chars", answer.chars().count().into()),
        ("text_utf8_bytes", answer.len().into()),
        ("text_sha256", hash(&answer).into()),
        (
            "reasoning_delta_chunks",
            of(TokenKind::Reasoning, None).len().into(),
        ),
        ("reasoning_chars", reasoning.chars().count().into()),
        ("reasoning_sha256", hash(&reasoning).into()),
        ("finish_reason", finish(0).into()),
        ("prompt_tokens", usage.and_then(|usage| usage.input).into()),
        (
            "completion_tokens",
            usage.and_then(|usage| usage.output).into(),
        ),
        ("tool_call_deltas", calls.len().into()),
        ("tool_calls", distinct.len().into()),
        ("model", model.into()),
    ] {
        assert_eq!(value, expected[field], "{name}: {field}");
    }
    let errors = usize::from(error.is_some());
    assert_eq!(
        Some(errors),
        expected["errors"].as_array().map(Vec::len),
        "{name}: errors"
    );
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
    if let Some(usage) = usage {
        let raw = &expected["usage_raw"];
        let number = |value: Option<u64>| Value::from(value);
        assert_eq!(number(usage.total), raw["total_tokens"], "{name}");
        let reasoning = &raw["completion_tokens_details"]["reasoning_tokens"];
        assert_eq!(&number(usage.reasoning), reasoning, "{name}");
        let cached = &raw["prompt_tokens_details"]["cached_tokens"];
        assert_eq!(&number(usage.cached_input), cached, "{name}");
    }
}
