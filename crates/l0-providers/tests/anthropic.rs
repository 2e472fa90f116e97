//! Anthropic's Messages streams, valid and invalid, from payloads to tokens.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::time::Duration;

use common::*;
use l0_core::{FailureKind, FinishReason, Token, TokenKind, Usage};
use l0_providers::{ProviderError, ProviderToken};

fn tokens(payloads: &[&str]) -> Vec<ProviderToken> {
    ANTHROPIC.tokens(payloads)
}

fn block(fields: &str) -> String {
    format!(r#"{{"type":"content_block_start","index":0,"content_block":{{{fields}}}}}"#)
}

fn delta(fields: &str) -> String {
    delta_of(0, fields)
}

fn delta_of(index: u32, fields: &str) -> String {
    format!(r#"{{"type":"content_block_delta","index":{index},"delta":{{{fields}}}}}"#)
}

fn stop(reason: &str) -> String {
    format!(
        r#"{{"type":"message_delta","delta":{{"stop_reason":"{reason}","stop_sequence":null}}}}"#
    )
}

const BLOCK_STOP: &str = r#"{"type":"content_block_stop","index":0}"#;
const MESSAGE_STOP: &str = r#"{"type":"message_stop"}"#;

#[test]
fn a_plain_response() {
    let all = tokens(&[
        r#"{"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"m-1","content":[],"stop_reason":null,"usage":{"input_tokens":9,"cache_creation_input_tokens":1,"cache_read_input_tokens":4,"output_tokens":1}}}"#,
        &block(r#""type":"text","text":"""#),
        r#"{"type":"ping"}"#,
        &delta(r#""type":"text_delta","text":"Gr\u00fc""#),
        &delta(r#""type":"text_delta","text":"ße 🦀""#),
        BLOCK_STOP,
        r#"{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":5}}"#,
        MESSAGE_STOP,
    ]);
    let counts = Usage::new().input(14).cached_input(4).cache_write_input(1);
    let mut first = ProviderToken::new(TokenKind::Other, "");
    first.model = Some("m-1".to_owned());
    first.response_id = Some("msg_1".to_owned());
    first.usage = Some(counts.output(1).total(15));
    let mut last = ProviderToken::new(TokenKind::Other, "");
    last.usage = Some(counts.output(5).total(19));
    last.finish = Some(FinishReason::Stop);
    last.finish_reason = Some("end_turn".to_owned());
    let expected = [
        first,
        ProviderToken::new(TokenKind::Text, "Grü"),
        ProviderToken::new(TokenKind::Text, "ße 🦀"),
        last,
    ];
    assert_eq!(all, expected);
}

#[test]
fn content_of_every_kind() {
    use TokenKind::{Reasoning, Text};
    for (payload, expected) in [
        (
            delta(r#""type":"text_delta","text":"a""#),
            vec![(Text, "a")],
        ),
        (delta(r#""type":"text_delta","text":"""#), vec![]),
        (
            delta(r#""type":"thinking_delta","thinking":"r""#),
            vec![(Reasoning, "r")],
        ),
        (delta(r#""type":"signature_delta","signature":"s""#), vec![]),
        (
            delta(
                r#""type":"citations_delta","citation":{"type":"char_location","cited_text":"c"}"#,
            ),
            vec![],
        ),
        (delta(r#""type":"a_new_delta","text":"n""#), vec![]),
        (block(r#""type":"text","text":"b""#), vec![(Text, "b")]),
        (
            block(r#""type":"thinking","thinking":"","signature":"""#),
            vec![],
        ),
        (block(r#""type":"redacted_thinking","data":"x""#), vec![]),
        (
            block(
                r#""type":"web_search_tool_result","tool_use_id":"t","content":[{"type":"web_search_result","title":"x"}]"#,
            ),
            vec![],
        ),
        (block(r#""type":"a_new_block","text":"n""#), vec![]),
        (r#"{"type":"a_new_event","text":"n"}"#.to_owned(), vec![]),
        (r#"{"type":"ping"}"#.to_owned(), vec![]),
        ("{}".to_owned(), vec![]),
    ] {
        assert_eq!(texts(&tokens(&[&payload])), expected, "{payload}");
    }
    // The event's name counts if the payload has no type.
    let named = "event: content_block_delta\ndata: {\"delta\":{\"type\":\"text_delta\",\"text\":\"a\"}}\n\n";
    let (all, error) = ANTHROPIC.decode(named);
    assert!(error.is_none());
    assert_eq!(texts(&all), [(Text, "a")]);
}

#[test]
fn several_content_blocks_keep_their_order() {
    use TokenKind::{Reasoning, Text, ToolCall};
    let all = tokens(&[
        &block(r#""type":"thinking","thinking":"""#),
        &delta(r#""type":"thinking_delta","thinking":"r""#),
        BLOCK_STOP,
        r#"{"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}"#,
        &delta_of(1, r#""type":"text_delta","text":"a""#),
        r#"{"type":"content_block_stop","index":1}"#,
        r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t1","name":"get","input":{}}}"#,
        &delta_of(2, r#""type":"input_json_delta","partial_json":"""#),
        &delta_of(2, r#""type":"input_json_delta","partial_json":"{}""#),
        r#"{"type":"content_block_stop","index":2}"#,
        r#"{"type":"content_block_start","index":3,"content_block":{"type":"text","text":""}}"#,
        &delta_of(3, r#""type":"text_delta","text":"b""#),
        &stop("tool_use"),
    ]);
    let expected = [
        (Reasoning, "r"),
        (Text, "a"),
        (ToolCall, "get"),
        (ToolCall, "{}"),
        (Text, "b"),
        (TokenKind::Other, ""),
    ];
    assert_eq!(texts(&all), expected);
    assert_eq!(text_of(&all), "ab");
}

#[test]
fn tool_calls_keep_their_identity() {
    let start = |index: u32, kind: &str, id: &str, input: &str| {
        format!(
            r#"{{"type":"content_block_start","index":{index},"content_block":{{"type":"{kind}","id":"{id}","name":"f{id}","input":{input}}}}}"#
        )
    };
    let piece = |index, json: &str| {
        let json = serde_json::to_string(json).unwrap();
        delta_of(
            index,
            &format!(r#""type":"input_json_delta","partial_json":{json}"#),
        )
    };
    let end = |index: u32| format!(r#"{{"type":"content_block_stop","index":{index}}}"#);
    let all = tokens(&[
        &start(1, "tool_use", "a", "{}"),
        &piece(1, ""),
        &piece(1, "{\"x\""),
        &piece(1, ":1}"),
        &end(1),
        // Without any piece.
        &start(2, "tool_use", "b", "{}"),
        &end(2),
        // The whole input at once.
        &start(3, "tool_use", "c", r#"{"y":[1,null]}"#),
        &end(3),
        &start(4, "server_tool_use", "d", "{}"),
        &piece(4, "{}"),
        &end(4),
        // Neither a piece nor an end.
        &start(5, "mcp_tool_use", "e", "{}"),
        &stop("tool_use"),
    ]);
    assert_eq!(
        calls(&all),
        [
            (0, Some("a"), Some("fa"), ""),
            (0, None, None, "{\"x\""),
            (0, None, None, ":1}"),
            (1, Some("b"), Some("fb"), ""),
            (2, Some("c"), Some("fc"), r#"{"y":[1,null]}"#),
            (3, Some("d"), Some("fd"), "{}"),
            (4, Some("e"), Some("fe"), ""),
        ]
    );
    // A call without arguments counts as output.
    assert!(
        all.iter()
            .all(|token| token.tool_call.is_none() || token.view().is_token())
    );
    assert_eq!(
        finishes(&all),
        [(Some("tool_use"), Some(FinishReason::ToolCalls))]
    );
    // Pieces that were not announced.
    let all = tokens(&[&piece(7, "{"), &piece(7, "}"), &piece(8, "x")]);
    let expected = [
        (0, None, None, "{"),
        (0, None, None, "}"),
        (1, None, None, "x"),
    ];
    assert_eq!(calls(&all), expected);
    // A proxy retries within one response, and the numbers of the blocks start again.
    let all = tokens(&[
        &start(1, "tool_use", "a", "{}"),
        &piece(1, "{\"x"),
        r#"{"type":"message_start","message":{"id":"msg_2","content":[]}}"#,
        &start(1, "tool_use", "b", "{}"),
        &piece(1, "{"),
        &piece(1, "}"),
    ]);
    let expected = [
        (0, Some("a"), Some("fa"), "{\"x"),
        (1, Some("b"), Some("fb"), "{"),
        (1, None, None, "}"),
    ];
    assert_eq!(calls(&all), expected);
}

#[test]
fn a_message_that_arrives_whole() {
    use TokenKind::{Reasoning, Text, ToolCall};
    let all = tokens(&[
        r#"{"type":"message_start","message":{"id":"msg_1","model":"m-1","content":[{"type":"thinking","thinking":"r","signature":"s"},{"type":"text","text":"a"},{"type":"tool_use","id":"t1","name":"get","input":{"x":1}},{"type":"tool_use","id":"t2","name":"now","input":{}}],"stop_reason":"tool_use","usage":{"input_tokens":0,"output_tokens":0}}}"#,
        MESSAGE_STOP,
    ]);
    let expected = [
        (Reasoning, "r"),
        (Text, "a"),
        (ToolCall, r#"{"x":1}"#),
        (ToolCall, "now"),
    ];
    assert_eq!(texts(&all), expected);
    assert_eq!(
        calls(&all),
        [
            (0, Some("t1"), Some("get"), r#"{"x":1}"#),
            (1, Some("t2"), Some("now"), ""),
        ]
    );
    assert_eq!(all[0].model.as_deref(), Some("m-1"));
    assert_eq!(
        finishes(&all),
        [(Some("tool_use"), Some(FinishReason::ToolCalls))]
    );
}

#[test]
fn marks_that_complete_a_response() {
    let text = delta(r#""type":"text_delta","text":"a""#);
    let of = |payloads: &[&str]| -> Vec<_> {
        let finishes = tokens(payloads);
        finishes.iter().filter_map(|token| token.finish).collect()
    };
    let end_turn = stop("end_turn");
    let no_reason =
        r#"{"type":"message_delta","delta":{"stop_reason":null},"usage":{"output_tokens":3}}"#;
    assert_eq!(of(&[&text]), []);
    assert_eq!(of(&[&text, BLOCK_STOP]), []);
    assert_eq!(of(&[&text, no_reason]), []);
    assert_eq!(of(&[&text, &end_turn]), [FinishReason::Stop]);
    assert_eq!(of(&[&text, &end_turn, MESSAGE_STOP]), [FinishReason::Stop]);
    assert_eq!(
        of(&[&text, &end_turn, MESSAGE_STOP, &text, "[DONE]"]),
        [FinishReason::Stop]
    );
    assert_eq!(of(&[&text, no_reason, MESSAGE_STOP]), [FinishReason::Other]);
    // Not a mark of this API.
    assert_eq!(of(&[&text, "[DONE]"]), []);
}

#[test]
fn stop_reasons_are_normalized_and_kept() {
    for (reason, finish) in [
        ("end_turn", FinishReason::Stop),
        ("stop_sequence", FinishReason::Stop),
        ("max_tokens", FinishReason::Length),
        ("model_context_window_exceeded", FinishReason::Length),
        ("tool_use", FinishReason::ToolCalls),
        ("refusal", FinishReason::Refusal),
        ("pause_turn", FinishReason::Other),
        ("something_new", FinishReason::Other),
    ] {
        let all = tokens(&[&stop(reason), MESSAGE_STOP]);
        assert_eq!(finishes(&all), [(Some(reason), Some(finish))]);
    }
}

#[test]
fn counts_come_in_parts_and_are_never_guessed() {
    let start =
        |usage: &str| format!(r#"{{"type":"message_start","message":{{"usage":{usage}}}}}"#);
    let end = |usage: &str| format!(r#"{{"type":"message_delta","delta":{{}},"usage":{usage}}}"#);
    let of = |payloads: &[&str]| -> Vec<_> {
        let all = tokens(payloads);
        all.iter().filter_map(|token| token.usage).collect()
    };
    let new = Usage::new;
    for (first, last, expected) in [
        (
            r#"{"input_tokens":9,"output_tokens":1}"#,
            r#"{"output_tokens":5}"#,
            vec![
                new().input(9).output(1).total(10),
                new().input(9).output(5).total(14),
            ],
        ),
        // Counts are cumulative, and nulls are ignored.
        (
            r#"{"input_tokens":9,"cache_read_input_tokens":0,"output_tokens":1}"#,
            r#"{"input_tokens":20,"cache_read_input_tokens":null,"output_tokens":5}"#,
            vec![
                new().input(9).cached_input(0).output(1).total(10),
                new().input(20).cached_input(0).output(5).total(25),
            ],
        ),
        ("{}", r#"{"output_tokens":5}"#, vec![new().output(5)]),
        ("{}", "{}", vec![]),
        ("null", "[]", vec![]),
        (
            r#"{"output_tokens":-1}"#,
            r#"{"output_tokens":5,"output_tokens_details":{"thinking_tokens":3}}"#,
            vec![new().output(5).reasoning(3)],
        ),
    ] {
        assert_eq!(of(&[&start(first), &end(last)]), expected, "{first} {last}");
    }
    assert_eq!(of(&[&stop("end_turn")]), []);
}

#[test]
fn errors_are_typed_and_follow_the_content() {
    use FailureKind::{Fatal, RateLimited, Server};
    for (error_type, kind) in [
        ("overloaded_error", Server),
        ("api_error", Server),
        ("timeout_error", Server),
        ("rate_limit_error", RateLimited),
        ("invalid_request_error", Fatal),
        ("authentication_error", Fatal),
        ("permission_error", Fatal),
        ("not_found_error", Fatal),
        ("billing_error", Fatal),
        ("request_too_large", Fatal),
        ("something_new", Fatal),
    ] {
        let error = format!(
            r#"{{"type":"error","error":{{"type":"{error_type}","message":"m"}},"request_id":"req_1"}}"#
        );
        let text = delta(r#""type":"text_delta","text":"a""#);
        let (all, failed) = ANTHROPIC.failed(&[&text, &error, MESSAGE_STOP]);
        assert_eq!(text_of(&all), "a");
        assert!(finishes(&all).is_empty());
        assert_eq!(failed.error_type(), Some(error_type));
        assert_eq!(failed.message(), Some("m"));
        assert_eq!(failed.request_id(), Some("req_1"));
        assert_eq!(failed.failure().kind, kind, "{error_type}");
    }
    // Errors from proxies.
    let (_, failed) = ANTHROPIC.failed(&[r#"{"error":{"message":"m","code":502}}"#]);
    assert_eq!(failed.status(), Some(502));
    let (_, error) = ANTHROPIC.decode("event: error\ndata: {\"message\":\"m\"}\n\n");
    assert!(matches!(error, Some(ProviderError::Api(error)) if error.message() == Some("m")));
    let (_, error) = ANTHROPIC.decode("event: error\ndata: overloaded\n\n");
    assert!(matches!(error, Some(ProviderError::Api(_))));
    let (_, failed) = ANTHROPIC.failed(&[
        r#"{"type":"error","error":{"type":"rate_limit_error","message":"m","retry_after":2}}"#,
    ]);
    assert_eq!(failed.retry_after(), Some(Duration::from_secs(2)));
}
