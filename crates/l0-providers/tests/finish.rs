//! Finish reasons, in every provider's words and every dialect.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::*;
use l0_core::{FailureKind, FinishReason};
use l0_providers::ProviderError;

/// The last payload of an answer that ends for this reason, as JSON.
fn last(dialect: Dialect, reason: &str) -> String {
    match dialect.name {
        "openai-chat" => choice(&format!(
            r#"{{"index":0,"delta":{{"content":""}},"finish_reason":{reason}}}"#
        )),
        "openai-responses" => format!(
            r#"{{"type":"response.incomplete","response":{{"status":"incomplete","incomplete_details":{{"reason":{reason}}}}}}}"#
        ),
        "anthropic" => {
            format!(r#"{{"type":"message_delta","delta":{{"stop_reason":{reason}}}}}"#)
        }
        _ => format!(r#"{{"candidates":[{{"index":0,"finishReason":{reason}}}]}}"#),
    }
}

#[test]
fn every_dialect_knows_the_words_of_all_providers() {
    use FinishReason::{ContentFilter, Length, Other, Refusal, Stop, ToolCalls};
    for dialect in DIALECTS {
        for (reason, finish) in [
            ("stop", Stop),
            ("STOP", Stop),
            ("end_turn", Stop),
            ("EndTurn", Stop),
            ("MAX_TOKENS", Length),
            ("maxTokens", Length),
            ("Length", Length),
            ("max_output_tokens", Length),
            ("model_context_window_exceeded", Length),
            ("TOOL_CALLS", ToolCalls),
            ("tool_use", ToolCalls),
            ("SAFETY", ContentFilter),
            ("safety", ContentFilter),
            ("refusal", Refusal),
            ("Content_Filter", ContentFilter),
            ("PROHIBITED_CONTENT", ContentFilter),
            ("guardrail_intervened", ContentFilter),
            ("pause_turn", Other),
            ("MALFORMED_FUNCTION_CALL", Other),
            ("something_new", Other),
        ] {
            let tokens = dialect.tokens(&[&last(dialect, &format!("\"{reason}\""))]);
            let name = dialect.name;
            // The event reports that the answer is incomplete.
            let finish = match finish {
                Other if name == RESPONSES.name => Length,
                finish => finish,
            };
            assert_eq!(finishes(&tokens), [(Some(reason), Some(finish))], "{name}");
        }
    }
}

#[test]
fn a_failure_reason_is_an_error() {
    for dialect in DIALECTS {
        for reason in [
            "error",
            "ERROR",
            "network_error",
            "Network-Error",
            "internal_server_error",
            "upstream_error",
            "timeout",
            "abort",
            "overloaded",
            "insufficient_system_resource",
            "generation_failed",
        ] {
            let name = dialect.name;
            let (tokens, error) = dialect.failed(&[&last(dialect, &format!("\"{reason}\""))]);
            assert_eq!(error.failure().kind, FailureKind::Server, "{name} {reason}");
            assert_eq!(error.code(), Some(reason));
            assert_eq!(finishes(&tokens), [(Some(reason), None)], "{name}");
        }
    }
}

#[test]
fn null_in_any_form_is_not_a_reason() {
    for dialect in [CHAT, ANTHROPIC, GEMINI] {
        for reason in [
            "null",
            "\"\"",
            "\"null\"",
            "\"NULL\"",
            "\"None\"",
            "\" \"",
            "\"undefined\"",
            "[]",
            "false",
        ] {
            let tokens = dialect.tokens(&[&last(dialect, reason)]);
            assert!(finishes(&tokens).is_empty(), "{}: {reason}", dialect.name);
        }
    }
    // The event's name reports that it is incomplete.
    let tokens = RESPONSES.tokens(&[&last(RESPONSES, "\"null\"")]);
    let expected = [(Some("incomplete"), Some(FinishReason::Length))];
    assert_eq!(finishes(&tokens), expected);
}

#[test]
fn a_refusal_without_text_is_a_refusal() {
    let tokens = ANTHROPIC.tokens(&[
        r#"{"type":"message_start","message":{"model":"m","usage":{"input_tokens":4,"output_tokens":1}}}"#,
        r#"{"type":"message_delta","delta":{"stop_reason":"refusal"},"usage":{"output_tokens":1}}"#,
        r#"{"type":"message_stop"}"#,
    ]);
    let expected = [(Some("refusal"), Some(FinishReason::Refusal))];
    assert_eq!(finishes(&tokens), expected);
    let blocked = GEMINI.tokens(&[r#"{"promptFeedback":{"blockReason":"other_reason"}}"#]);
    assert_eq!(blocked[0].finish, Some(FinishReason::ContentFilter));
}

#[test]
fn a_done_response_ends_according_to_its_status() {
    let done = |response: &str| format!(r#"{{"type":"response.done","response":{response}}}"#);
    for (response, reason, finish) in [
        (r#"{"status":"completed"}"#, "completed", FinishReason::Stop),
        ("{}", "completed", FinishReason::Stop),
        (
            r#"{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"}}"#,
            "max_output_tokens",
            FinishReason::Length,
        ),
        (
            r#"{"status":"cancelled"}"#,
            "cancelled",
            FinishReason::Other,
        ),
    ] {
        let tokens = RESPONSES.tokens(&[&done(response), "never read"]);
        assert_eq!(finishes(&tokens), [(Some(reason), Some(finish))]);
    }
    let failed = r#"{"status":"failed","error":{"code":"server_error","message":"m"}}"#;
    for response in [failed, r#"{"status":"failed"}"#] {
        let (tokens, error) = RESPONSES.failed(&[&done(response)]);
        assert_eq!(finishes(&tokens), [(Some("failed"), None)]);
        assert_eq!(error.failure().kind, FailureKind::Server);
    }
    let (_, error) = RESPONSES.decode(sse(&[&done(failed), "never read"]));
    assert!(matches!(error, Some(ProviderError::Api(_))));
}
