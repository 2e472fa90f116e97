//! Gemini's streams, valid and invalid, from payloads to tokens.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::*;
use l0_core::{FailureKind, FinishReason, TokenKind, Usage};
use l0_providers::ProviderToken;

fn tokens(payloads: &[&str]) -> Vec<ProviderToken> {
    GEMINI.tokens(payloads)
}

/// A payload with one candidate of these parts.
fn parts(parts: &str) -> String {
    format!(r#"{{"candidates":[{{"content":{{"parts":[{parts}],"role":"model"}},"index":0}}]}}"#)
}

fn finish(reason: &str) -> String {
    format!(
        r#"{{"candidates":[{{"content":{{"parts":[{{"text":""}}]}},"finishReason":"{reason}"}}]}}"#
    )
}

#[test]
fn a_plain_response() {
    let payload = |text: &str, more: &str, output: &str| {
        format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}],"role":"model"}},{more}"index":0,"safetyRatings":[{{"category":"C","probability":"LOW"}}]}}],"usageMetadata":{{"promptTokenCount":9,"cachedContentTokenCount":4,"thoughtsTokenCount":2,{output}"promptTokensDetails":[{{"modality":"TEXT","tokenCount":9}}]}},"modelVersion":"m-1","responseId":"r1"}}"#
        )
    };
    let all = tokens(&[
        &payload("Gr\\u00fc", "", ""),
        &payload(
            "ße 🦀",
            r#""finishReason":"STOP","#,
            r#""candidatesTokenCount":5,"totalTokenCount":16,"#,
        ),
    ]);
    let counts = Usage::new().input(9).cached_input(4).reasoning(2);
    let mut first = ProviderToken::new(TokenKind::Text, "Grü");
    first.model = Some("m-1".to_owned());
    first.response_id = Some("r1".to_owned());
    first.usage = Some(counts.output(2).total(11));
    let mut last = ProviderToken::new(TokenKind::Text, "ße 🦀");
    last.usage = Some(counts.output(7).total(16));
    last.finish = Some(FinishReason::Stop);
    last.finish_reason = Some("STOP".to_owned());
    assert_eq!(all, [first, last]);
}

#[test]
fn parts_of_every_kind() {
    use TokenKind::{Media, Reasoning, Text, ToolCall};
    for (list, expected) in [
        (r#"{"text":"a"}"#, vec![(Text, "a")]),
        (r#"{"text":"a"},{"text":"b"}"#, vec![(Text, "ab")]),
        (r#"{"text":"r","thought":true}"#, vec![(Reasoning, "r")]),
        (
            r#"{"text":"r","thought":true},{"text":"a","thoughtSignature":"s"},{"text":"t","thought":true}"#,
            vec![(Reasoning, "r"), (Text, "a"), (Reasoning, "t")],
        ),
        (r#"{"text":"","thoughtSignature":"s"}"#, vec![]),
        (r#"{"text":"a","thought":false}"#, vec![(Text, "a")]),
        (r#"{"text":"a","thought":"odd"}"#, vec![(Text, "a")]),
        (
            r#"{"text":"a"},{"functionCall":{"name":"f","args":{"x":1}}},{"text":"b"}"#,
            vec![(Text, "a"), (ToolCall, r#"{"x":1}"#), (Text, "b")],
        ),
        (
            r#"{"executableCode":{"language":"PYTHON","code":"1"}}"#,
            vec![],
        ),
        (
            r#"{"codeExecutionResult":{"outcome":"OUTCOME_OK","output":"1"}}"#,
            vec![],
        ),
        (
            r#"{"text":"a"},{"inlineData":{"mimeType":"image/png","data":"x"}}"#,
            vec![(Text, "a"), (Media, "")],
        ),
        (r#"{},null,7,"text",[]"#, vec![]),
        ("", vec![]),
    ] {
        assert_eq!(texts(&tokens(&[&parts(list)])), expected, "{list}");
    }
    for none in [
        r#"{"candidates":[{"content":{"role":"model"},"index":0}]}"#,
        r#"{"candidates":[{"content":{},"groundingMetadata":{"webSearchQueries":["x"]}}]}"#,
        r#"{"candidates":[{}]}"#,
        r#"{"candidates":[]}"#,
        r#"{"candidates":null,"promptFeedback":{"safetyRatings":[]}}"#,
        "{}",
    ] {
        assert!(tokens(&[none]).is_empty(), "{none}");
    }
}

#[test]
fn tool_calls_keep_their_identity() {
    let all = tokens(&[
        &parts(
            r#"{"functionCall":{"name":"get","args":{"b":[1,null]}},"thoughtSignature":"s"},{"functionCall":{"id":"i2","name":"put","args":{}}}"#,
        ),
        &parts(r#"{"functionCall":{"name":"now"}}"#),
        // Streamed arguments.
        &parts(r#"{"functionCall":{"name":"slow","willContinue":true}}"#),
        &parts(
            r#"{"functionCall":{"partialArgs":[{"jsonPath":"$.x","stringValue":"a"}],"willContinue":true}}"#,
        ),
        &parts(r#"{"functionCall":{}}"#),
        &parts(r#"{"functionCall":{"name":"big","args":{"z": 1, "a": 12345678901234567890123}}}"#),
        &finish("STOP"),
    ]);
    assert_eq!(
        calls(&all),
        [
            (0, None, Some("get"), r#"{"b":[1,null]}"#),
            (1, Some("i2"), Some("put"), "{}"),
            (2, None, Some("now"), ""),
            (3, None, Some("slow"), ""),
            (3, None, None, r#"[{"jsonPath":"$.x","stringValue":"a"}]"#),
            (3, None, None, ""),
            // As sent: in order and exact.
            (
                4,
                None,
                Some("big"),
                r#"{"z": 1, "a": 12345678901234567890123}"#
            ),
        ]
    );
    assert_eq!(
        finishes(&all),
        [(Some("STOP"), Some(FinishReason::ToolCalls))]
    );
}

#[test]
fn finish_reasons_are_normalized_and_kept() {
    use FinishReason::{ContentFilter, Length, Other, Stop};
    for (reason, expected) in [
        ("STOP", Stop),
        ("MAX_TOKENS", Length),
        ("SAFETY", ContentFilter),
        ("RECITATION", ContentFilter),
        ("BLOCKLIST", ContentFilter),
        ("PROHIBITED_CONTENT", ContentFilter),
        ("SPII", ContentFilter),
        ("IMAGE_SAFETY", ContentFilter),
        ("LANGUAGE", Other),
        ("OTHER", Other),
        ("MALFORMED_FUNCTION_CALL", Other),
        ("UNEXPECTED_TOOL_CALL", Other),
        ("SOMETHING_NEW", Other),
    ] {
        let all = tokens(&[&parts(r#"{"text":"a"}"#), &finish(reason)]);
        assert_eq!(finishes(&all), [(Some(reason), Some(expected))]);
    }
    // Without any content.
    let bare = r#"{"candidates":[{"finishReason":"MALFORMED_FUNCTION_CALL","finishMessage":"x","index":0}]}"#;
    assert_eq!(
        finishes(&tokens(&[bare])),
        [(Some("MALFORMED_FUNCTION_CALL"), Some(Other))]
    );
    assert!(finishes(&tokens(&[&parts(r#"{"text":"a"}"#)])).is_empty());
    // Not a mark of this API.
    assert!(finishes(&tokens(&[&parts(r#"{"text":"a"}"#), "[DONE]"])).is_empty());
}

#[test]
fn a_blocked_prompt_is_a_complete_response() {
    for reason in ["SAFETY", "PROHIBITED_CONTENT", "BLOCKLIST", "OTHER"] {
        let payload = format!(
            r#"{{"promptFeedback":{{"blockReason":"{reason}","safetyRatings":[]}},"usageMetadata":{{"promptTokenCount":4,"totalTokenCount":4}},"modelVersion":"m"}}"#
        );
        let all = tokens(&[&payload]);
        assert_eq!(all.len(), 1);
        assert_eq!(
            finishes(&all),
            [(Some(reason), Some(FinishReason::ContentFilter))]
        );
        assert_eq!(all[0].usage, Some(Usage::new().input(4).total(4)));
        assert_eq!(all[0].model.as_deref(), Some("m"));
    }
}

#[test]
fn several_candidates_finish_together() {
    let two = |first: &str, second: &str| {
        format!(
            r#"{{"candidates":[{{"index":0,"content":{{"parts":[{{"text":"{first}"}}]}}}},{{"index":1,"content":{{"parts":[{{"text":"{second}"}}]}}}}]}}"#
        )
    };
    let all = tokens(&[
        &two("a", "b"),
        r#"{"candidates":[{"index":1,"content":{"parts":[{"text":"c"}]},"finishReason":"MAX_TOKENS"}]}"#,
        r#"{"candidates":[{"index":0,"content":{"parts":[{"text":"d"}]},"finishReason":"STOP"}]}"#,
    ]);
    let of = |choice| -> String {
        let of = all.iter().filter(|token| token.choice == choice);
        of.map(|token| &token.text[..]).collect()
    };
    assert_eq!((of(0), of(1)), ("ad".to_owned(), "bc".to_owned()));
    let expected = [
        (Some("MAX_TOKENS"), None),
        (Some("STOP"), Some(FinishReason::Stop)),
    ];
    assert_eq!(finishes(&all), expected);
}

#[test]
fn counts_are_cumulative_and_never_guessed() {
    let usage = |usage: &str| {
        let all = tokens(&[&format!(r#"{{"usageMetadata":{usage}}}"#)]);
        all.first().and_then(|token| token.usage)
    };
    assert_eq!(usage("{}"), None);
    assert_eq!(usage("null"), None);
    assert_eq!(usage(r#"{"trafficType":"ON_DEMAND"}"#), None);
    assert_eq!(
        usage(r#"{"promptTokenCount":3}"#),
        Some(Usage::new().input(3))
    );
    let counts = r#"{"promptTokenCount":3,"candidatesTokenCount":0,"totalTokenCount":3}"#;
    assert_eq!(
        usage(counts),
        Some(Usage::new().input(3).output(0).total(3))
    );
}

#[test]
fn errors_are_typed_and_follow_the_content() {
    use FailureKind::{Fatal, RateLimited, Server};
    for (code, status, kind) in [
        (429, "RESOURCE_EXHAUSTED", RateLimited),
        (500, "INTERNAL", Server),
        (503, "UNAVAILABLE", Server),
        (504, "DEADLINE_EXCEEDED", Server),
        (400, "INVALID_ARGUMENT", Fatal),
        (400, "FAILED_PRECONDITION", Fatal),
        (403, "PERMISSION_DENIED", Fatal),
        (404, "NOT_FOUND", Fatal),
    ] {
        let error = format!(
            r#"{{"error":{{"code":{code},"message":"m","status":"{status}","details":[{{"@type":"type.googleapis.com/google.rpc.Help"}},{{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"27.5s"}}]}}}}"#
        );
        let (all, failed) = GEMINI.failed(&[&parts(r#"{"text":"a"}"#), &error, &finish("STOP")]);
        assert_eq!(text_of(&all), "a");
        assert!(finishes(&all).is_empty());
        assert_eq!(failed.error_type(), Some(status));
        assert_eq!(failed.status(), Some(code));
        assert_eq!(failed.message(), Some("m"));
        assert_eq!(failed.retry_after(), Some(Duration::from_millis(27_500)));
        assert_eq!(failed.failure().kind, kind, "{status}");
    }
    let with_error = r#"{"candidates":[{"content":{"parts":[{"text":"b"}]}}],"usageMetadata":{"promptTokenCount":1},"error":{"code":503,"message":"m"}}"#;
    let (all, failed) = GEMINI.failed(&[with_error]);
    assert_eq!(text_of(&all), "b");
    assert_eq!(all[0].usage, Some(Usage::new().input(1)));
    assert_eq!(failed.status(), Some(503));
}
