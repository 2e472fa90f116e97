//! Chat Completions streams, valid and invalid, from bytes to tokens.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::convert::Infallible;
use std::error::Error as _;
use std::time::Duration;

use common::*;
use futures_util::Stream as _;
use futures_util::stream::FusedStream;
use futures_util::{FutureExt, StreamExt, stream};
use l0_core::{Failure, FailureKind, FinishReason, NetworkErrorKind, Token, TokenKind, Usage};
use l0_providers::{ApiError, Decoder, ProviderError, ProviderToken, openai};
use proptest::prelude::*;

/// As sent by OpenAI: role, text, finish, counts, end mark.
const PLAIN: &str = concat!(
    r#"data: {"id":"c1","object":"chat.completion.chunk","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c1","model":"m-1","choices":[{"index":0,"delta":{"content":"Gr\u00fc"},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c1","model":"m-1","choices":[{"index":0,"delta":{"content":"ße 🦀"},"finish_reason":null}]}"#,
    "\n\n",
    r#"data: {"id":"c1","model":"m-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
    "\n\n",
    r#"data: {"id":"c1","model":"m-1","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":5,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":2}}}"#,
    "\n\ndata: [DONE]\n\n",
);

fn token(kind: TokenKind, text: &str) -> ProviderToken {
    ProviderToken::new(kind, text)
}

#[track_caller]
fn tokens_of(body: impl AsRef<[u8]>) -> Vec<ProviderToken> {
    let (tokens, error) = decode(body);
    assert!(error.is_none(), "{error:?}");
    tokens
}

#[track_caller]
fn api_error(body: impl AsRef<[u8]>) -> (Vec<ProviderToken>, ApiError) {
    match decode(body) {
        (tokens, Some(ProviderError::Api(error))) => (tokens, *error),
        other => panic!("no API error: {other:?}"),
    }
}

fn read_finishes(tokens: &[ProviderToken]) -> Vec<FinishReason> {
    tokens
        .iter()
        .filter_map(|token| token.view().finish)
        .collect()
}

#[test]
fn a_plain_response() {
    let tokens = tokens_of(PLAIN);
    let mut first = token(TokenKind::Other, "");
    first.model = Some("m-1".to_owned());
    first.response_id = Some("c1".to_owned());
    let mut finish = token(TokenKind::Other, "");
    finish.finish = Some(FinishReason::Stop);
    finish.finish_reason = Some("stop".to_owned());
    let mut usage = token(TokenKind::Other, "");
    let counts = Usage::new().input(9).output(5).total(14);
    usage.usage = Some(counts.cached_input(4).reasoning(2));
    let expected = [
        first,
        token(TokenKind::Text, "Grü"),
        token(TokenKind::Text, "ße 🦀"),
        finish,
        usage,
    ];
    assert_eq!(tokens, expected);
}

#[test]
fn the_view_has_the_content_of_the_token() {
    const { assert!(ProviderToken::SENDS_FINISH) };
    let tokens = tokens_of(PLAIN);
    assert_eq!(tokens[0].view().model, Some("m-1"));
    assert_eq!(tokens[0].view().response_id, Some("c1"));
    assert!(!tokens[0].view().is_token());
    assert_eq!(tokens[1].view().kind, TokenKind::Text);
    assert_eq!(tokens[1].view().text, "Grü");
    assert_eq!(tokens[3].view().finish, Some(FinishReason::Stop));
    assert_eq!(tokens[4].view().usage.unwrap().cached_input, Some(4));
}

#[test]
fn line_ends_bom_comments_and_cuts_change_nothing() {
    let expected = tokens_of(PLAIN);
    let comments = PLAIN.replace("\n\n", "\n\n: keep-alive\n\n:\n\n");
    let forms = [
        PLAIN.replace('\n', "\r\n"),
        PLAIN.replace('\n', "\r"),
        format!("\u{feff}{PLAIN}"),
        PLAIN.replace("data: ", "data:"),
        comments,
        PLAIN.replace("data: {", "event: message\nid: 7\nretry: 10\ndata: {"),
        PLAIN.replace("\"choices\":", "\ndata: \"choices\":\ndata:  "),
        PLAIN.replace(
            "\n\n",
            "\n\nevent: ping\ndata: 12:00\n\ndata:\n\ndata: {}\n\n",
        ),
        PLAIN.trim_end().to_owned(),
        format!("{PLAIN}data: garbage after the end mark \n\n"),
    ];
    for form in forms {
        let form = form.as_bytes();
        assert_eq!(tokens_of(form), expected);
        assert_eq!(decode_chunks(by_bytes(form)).0, expected);
        for place in 0..form.len() {
            let (tokens, error) = decode_chunks(cut_at(form, &[place]));
            assert!(error.is_none() && tokens == expected, "cut at {place}");
        }
    }
}

/// A truncated body is never an error here, and never looks complete.
#[test]
fn a_truncated_body_yields_a_prefix() {
    let all = tokens_of(PLAIN);
    let finish_at = PLAIN.find(r#""stop"}]}"#).unwrap() + r#""stop"}]}"#.len();
    for end in 0..PLAIN.len() {
        let body = &PLAIN.as_bytes()[..end];
        for (tokens, error) in [decode(body), decode_chunks(by_bytes(body))] {
            assert!(error.is_none(), "{end}: {error:?}");
            assert_eq!(tokens[..], all[..tokens.len()], "{end}");
            assert_eq!(
                !read_finishes(&tokens).is_empty(),
                end >= finish_at,
                "{end}"
            );
        }
    }
}

#[test]
fn marks_that_complete_a_response() {
    let text = delta(r#"{"content":"a"}"#);
    let stop = choice(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#);
    let finishes = |payloads: &[&str]| read_finishes(&tokens_of(sse(payloads)));
    assert_eq!(finishes(&[&text]), []);
    assert_eq!(finishes(&[&text, &stop]), [FinishReason::Stop]);
    assert_eq!(finishes(&[&text, "[DONE]"]), [FinishReason::Other]);
    assert_eq!(finishes(&[&text, &stop, "[DONE]"]), [FinishReason::Stop]);
    assert_eq!(finishes(&[&text, "[DONE]", &stop]), [FinishReason::Other]);
    assert_eq!(finishes(&["[DONE]"]), [FinishReason::Other]);
    assert!(tokens_of("").is_empty());
    // An end mark without the blank line after it.
    let unterminated = format!("{}data: [DONE]", sse(&[&text]));
    assert_eq!(tokens_of(unterminated).len(), 2);
    // An empty reason is not a reason.
    let empty = choice(r#"{"index":0,"delta":{"content":"b"},"finish_reason":""}"#);
    assert_eq!(finishes(&[&empty]), []);
}

#[test]
fn finish_reasons_are_normalized_and_kept() {
    for (reason, finish) in [
        ("stop", FinishReason::Stop),
        ("length", FinishReason::Length),
        ("model_length", FinishReason::Length),
        ("tool_calls", FinishReason::ToolCalls),
        ("function_call", FinishReason::ToolCalls),
        ("content_filter", FinishReason::ContentFilter),
        ("something_new", FinishReason::Other),
    ] {
        let body = sse(&[&choice(&format!(
            r#"{{"delta":{{"content":"x"}},"finish_reason":"{reason}"}}"#
        ))]);
        let tokens = tokens_of(body);
        assert_eq!(tokens.len(), 1);
        assert_eq!(tokens[0].finish, Some(finish));
        assert_eq!(tokens[0].finish_reason.as_deref(), Some(reason));
    }
}

#[test]
fn a_finish_reason_can_report_a_failure() {
    for reason in ["error", "insufficient_system_resource"] {
        let choice = choice(&format!(
            r#"{{"delta":{{"content":"x"}},"finish_reason":"{reason}"}}"#
        ));
        let (tokens, error) = api_error(sse(&[&choice, "[DONE]"]));
        assert_eq!(tokens[0].finish_reason.as_deref(), Some(reason));
        assert_eq!(error.code(), Some(reason));
        assert_eq!(error.failure().kind, FailureKind::Server);
    }
}

#[test]
fn several_choices_finish_together() {
    let tokens = tokens_of(sse(&[
        &choice(r#"{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}"#),
        &choice(r#"{"index":1,"delta":{"content":"c"},"finish_reason":"length"}"#),
        &choice(r#"{"index":0,"delta":{"content":"d"}}"#),
        &choice(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#),
        "[DONE]",
    ]));
    let of = |choice| {
        let of = tokens.iter().filter(move |token| token.choice == choice);
        of.map(|token| &token.text[..]).collect::<String>()
    };
    assert_eq!((of(0), of(1)), ("ad".to_owned(), "bc".to_owned()));
    let reasons: Vec<_> = tokens
        .iter()
        .filter_map(|t| Some((t.choice, t.finish_reason.as_deref()?, t.finish)))
        .collect();
    let expected = [(1, "length", None), (0, "stop", Some(FinishReason::Stop))];
    assert_eq!(reasons, expected);
}

#[test]
fn an_end_mark_completes_choices_that_did_not_finish() {
    let tokens = tokens_of(sse(&[
        &choice(r#"{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}"#),
        &choice(r#"{"index":1,"delta":{},"finish_reason":"length"}"#),
        "[DONE]",
    ]));
    assert_eq!(read_finishes(&tokens), [FinishReason::Length]);
}

#[test]
fn one_payload_gives_one_token_per_kind() {
    use TokenKind::{Reasoning, Text, ToolCall};
    for (fields, expected) in [
        (r#""content":"a""#, vec![(Text, "a")]),
        (r#""reasoning_content":"r""#, vec![(Reasoning, "r")]),
        (r#""reasoning":"r""#, vec![(Reasoning, "r")]),
        (
            r#""reasoning":"r","reasoning_content":"r""#,
            vec![(Reasoning, "r")],
        ),
        (
            r#""content":"a","reasoning":"r""#,
            vec![(Reasoning, "r"), (Text, "a")],
        ),
        (
            r#""content":"","reasoning":"r","reasoning_details":[{"text":"r"}]"#,
            vec![(Reasoning, "r")],
        ),
        (
            r#""reasoning":null,"reasoning_details":[{"type":"reasoning.text","text":"r"},{"type":"reasoning.summary","summary":"s"},{"type":"reasoning.encrypted","data":"x"}]"#,
            vec![(Reasoning, "rs")],
        ),
        (
            r#""reasoning_details":[{"type":"reasoning.text","text":"","signature":"x"}]"#,
            vec![],
        ),
        (
            r#""content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]"#,
            vec![(Text, "ab")],
        ),
        (
            r#""content":[{"type":"thinking","thinking":[{"type":"text","text":"r"},{"type":"text","text":"s"}]},{"type":"text","text":"a"},{"type":"thinking","thinking":"t"},{"type":"reference","reference_ids":[1]},"b"]"#,
            vec![(Reasoning, "rst"), (Text, "ab")],
        ),
        (r#""content":[]"#, vec![]),
        (
            r#""content":null,"tool_calls":null,"function_call":null,"refusal":null"#,
            vec![],
        ),
        (
            r#""content":"a","tool_calls":[{"index":0,"id":"i","function":{"name":"f","arguments":"{}"}}]"#,
            vec![(Text, "a"), (ToolCall, "{}")],
        ),
    ] {
        let tokens = tokens_of(sse(&[&delta(&format!("{{{fields}}}"))]));
        assert_eq!(texts(&tokens), expected, "{fields}");
    }
    // The text of legacy completions, and messages instead of deltas, but not next to or after them.
    let tokens = tokens_of(sse(&[
        &choice(r#"{"message":{"content":"a"}}"#),
        &choice(r#"{"delta":{},"message":{"content":"b"}}"#),
        &choice(r#"{"delta":{"content":"c"},"message":{"content":"abc"}}"#),
        &choice(r#"{"text":"d","index":0}"#),
        &choice(r#"{"message":{"content":"abcd"}}"#),
    ]));
    assert_eq!(text_of(&tokens), "abcd");
}

#[test]
fn refusals_are_marked() {
    let tokens = tokens_of(sse(&[&delta(r#"{"refusal":"I cannot"}"#)]));
    assert_eq!(texts(&tokens), [(TokenKind::Text, "I cannot")]);
    assert!(tokens[0].refusal);
}

#[test]
fn tool_calls_keep_their_identity() {
    let tokens = tokens_of(sse(&[
        &delta(
            r#"{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"get","arguments":""}}]}"#,
        ),
        &delta(
            r#"{"tool_calls":[{"index":0,"id":"","function":{"name":"","arguments":"{\"x\""}},{"index":1,"id":"b","function":{"name":"put","arguments":"{}"}}]}"#,
        ),
        &delta(r#"{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]}"#),
        &delta(
            r#"{"tool_calls":[{"index":2,"type":"custom","id":"c","custom":{"name":"run","input":"ls"}}]}"#,
        ),
    ]));
    let calls: Vec<_> = tokens
        .iter()
        .map(|token| {
            let call = token.tool_call.as_ref().unwrap();
            assert_eq!(token.kind, TokenKind::ToolCall);
            let name = call.name.as_deref();
            (
                call.index,
                call.id.as_deref(),
                name,
                &*call.arguments,
                token.view().text,
            )
        })
        .collect();
    assert_eq!(
        calls,
        [
            (0, Some("a"), Some("get"), "", "get"),
            (0, None, None, "{\"x\"", "{\"x\""),
            (1, Some("b"), Some("put"), "{}", "{}"),
            (0, None, None, ":1}", ":1}"),
            (2, Some("c"), Some("run"), "ls", "ls"),
        ]
    );
}

#[test]
fn tool_calls_without_numbers_are_numbered() {
    let indexes = |payloads: &[&str]| -> Vec<_> {
        let tokens = tokens_of(sse(payloads));
        tokens
            .iter()
            .map(|t| t.tool_call.as_ref().unwrap().index)
            .collect()
    };
    assert_eq!(
        indexes(&[
            &delta(
                r#"{"tool_calls":[{"id":"a","function":{"name":"f","arguments":"{}"}},{"id":"b","function":{"name":"f","arguments":"{}"}}]}"#
            ),
            &delta(
                r#"{"tool_calls":[{"id":"b","function":{"arguments":"1"}},{"function":{"arguments":"2"}}]}"#
            ),
            &delta(r#"{"tool_calls":[{"id":"c","function":{"name":"g"}}]}"#),
        ]),
        [0, 1, 1, 1, 2]
    );
    assert_eq!(
        indexes(&[&delta(
            r#"{"tool_calls":[{"function":{"name":"f","arguments":{"x":[1,null]}}},{"function":{"name":"g"}}]}"#
        ),]),
        [0, 1]
    );
    let tokens = tokens_of(sse(&[
        &delta(r#"{"tool_calls":[{"function":{"name":"f","arguments":{"x":[1,null]}}}]}"#),
        &delta(r#"{"function_call":{"name":"old","arguments":"{"}}"#),
    ]));
    assert_eq!(
        tokens[0].tool_call.as_ref().unwrap().arguments,
        r#"{"x":[1,null]}"#
    );
    assert_eq!(calls(&tokens[1..]), [(0, None, Some("old"), "{")]);
}

#[test]
fn tool_calls_that_share_a_number_are_numbered() {
    let call = |index: u32, id: &str, function: &str| {
        delta(&format!(
            r#"{{"tool_calls":[{{"index":{index},"id":"{id}","function":{{{function}}}}}]}}"#
        ))
    };
    let tokens = tokens_of(sse(&[
        &call(0, "a", r#""name":"f","arguments":"{}""#),
        &call(0, "b", r#""name":"f","arguments":"[""#),
        &call(0, "", r#""arguments":"]""#),
        &call(1, "c", r#""name":"g","arguments":"1""#),
    ]));
    assert_eq!(
        calls(&tokens),
        [
            (0, Some("a"), Some("f"), "{}"),
            (1, Some("b"), Some("f"), "["),
            (1, None, None, "]"),
            (2, Some("c"), Some("g"), "1"),
        ]
    );
    // A repeated name or id does not begin a new call, and another id alone does not either.
    let tokens = tokens_of(sse(&[
        &call(0, "a", r#""name":"f","arguments":"""#),
        &call(0, "a", r#""name":"f","arguments":"1""#),
        &call(0, "x", r#""arguments":"2""#),
        &call(0, "", r#""name":"f","arguments":"3""#),
        &call(1, "b", r#""name":"f","arguments":"""#),
        &call(0, "", r#""arguments":"4""#),
    ]));
    let indexes: Vec<_> = calls(&tokens).iter().map(|call| call.0).collect();
    assert_eq!(indexes, [0, 0, 0, 0, 1, 0]);
}

#[test]
fn counts_are_read_from_every_place() {
    let usage = |payload: &str| tokens_of(sse(&[payload])).first().and_then(|t| t.usage);
    let new = Usage::new;
    for (payload, expected) in [
        (
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":0}}"#,
            Some(new().input(1).output(0).total(1)),
        ),
        (
            r#"{"x_groq":{"usage":{"completion_tokens":3}}}"#,
            Some(new().output(3)),
        ),
        (
            r#"{"x_groq":{"usage":{"completion_tokens":3}},"usage":{"completion_tokens":4}}"#,
            Some(new().output(4)),
        ),
        (
            r#"{"x_groq":{"usage":{"completion_tokens":3}},"usage":null}"#,
            Some(new().output(3)),
        ),
        (
            r#"{"choices":[{"delta":{},"usage":{"completion_tokens":3}}]}"#,
            Some(new().output(3)),
        ),
        (
            r#"{"usage":{"prompt_tokens":9,"prompt_cache_hit_tokens":8}}"#,
            Some(new().input(9).cached_input(8)),
        ),
        (
            r#"{"usage":{"cached_tokens":8,"reasoning_tokens":2,"prompt_tokens_details":null}}"#,
            Some(new().cached_input(8).reasoning(2)),
        ),
        (
            r#"{"usage":{"num_cached_tokens":8}}"#,
            Some(new().cached_input(8)),
        ),
        (
            r#"{"usage":{"cached_tokens":8,"reasoning_tokens":2,"prompt_tokens_details":{"cached_tokens":7},"completion_tokens_details":{"reasoning_tokens":1}}}"#,
            Some(new().cached_input(7).reasoning(1)),
        ),
        (
            r#"{"usage":{"prompt_tokens":9.0,"completion_tokens":1.5}}"#,
            Some(new().input(9)),
        ),
        (
            r#"{"usage":{"prompt_tokens":-1,"completion_tokens":"7","total_tokens":-99999999999999999999999}}"#,
            None,
        ),
        (r#"{"usage":{}}"#, None),
        (r#"{"usage":{"prompt_tokens":null}}"#, None),
        (r#"{"usage":[]}"#, None),
        (r#"{"usage":null}"#, None),
    ] {
        assert_eq!(usage(payload), expected, "{payload}");
    }
    // The last counts are valid, and each is reported.
    let with = |n| {
        format!(
            r#"{{"choices":[{{"delta":{{"content":"x"}}}}],"usage":{{"completion_tokens":{n}}}}}"#
        )
    };
    let tokens = tokens_of(sse(&[&with(1), &with(2)]));
    let counts: Vec<_> = tokens.iter().map(|t| t.usage.unwrap().output).collect();
    assert_eq!(counts, [Some(1), Some(2)]);
}

#[test]
fn model_and_id_come_once_and_when_they_change() {
    let with = |id: &str, model: &str| {
        format!(r#"{{"id":"{id}","model":"{model}","choices":[{{"delta":{{"content":"x"}}}}]}}"#)
    };
    let tokens = tokens_of(sse(&[
        // As Azure begins.
        r#"{"id":"","model":"","choices":[],"prompt_filter_results":[{"prompt_index":0}]}"#,
        &with("1", "m"),
        &with("1", "m"),
        &with("2", "m"),
        &with("2", "n"),
    ]));
    let identities: Vec<_> = tokens
        .iter()
        .map(|t| (t.response_id.as_deref(), t.model.as_deref()))
        .collect();
    assert_eq!(
        identities,
        [
            (Some("1"), Some("m")),
            (None, None),
            (Some("2"), None),
            (None, Some("n"))
        ]
    );
}

#[test]
fn fields_of_unexpected_types_are_read_as_absent() {
    for odd in [
        "null",
        "true",
        "7",
        "-7",
        "1.5",
        "\"odd\"",
        "[]",
        "[null,1,\"x\",[],{}]",
        "{}",
        "{\"a\":{\"b\":[1]}}",
    ] {
        for field in [
            "id",
            "model",
            "object",
            "created",
            "choices",
            "usage",
            "x_groq",
            "system_fingerprint",
        ] {
            let text = delta(r#"{"content":"kept"}"#);
            let odd_payload = format!(r#"{{"{field}":{odd}}}"#);
            let (tokens, error) = decode(sse(&[&odd_payload, &text]));
            assert!(error.is_none(), "{odd_payload}: {error:?}");
            assert_eq!(text_of(&tokens), "kept", "{odd_payload}");
        }
        for field in [
            "role",
            "reasoning",
            "reasoning_content",
            "reasoning_details",
            "refusal",
            "tool_calls",
            "function_call",
            "audio",
        ] {
            let payload = delta(&format!(r#"{{"content":"kept","{field}":{odd}}}"#));
            let (tokens, error) = decode(sse(&[&payload]));
            assert!(error.is_none(), "{payload}: {error:?}");
            assert!(text_of(&tokens).starts_with("kept"), "{payload}");
        }
        for field in ["index", "logprobs", "usage", "text", "message"] {
            let payload = choice(&format!(
                r#"{{"{field}":{odd},"delta":{{"reasoning":"kept"}}}}"#
            ));
            let (tokens, error) = decode(sse(&[&payload]));
            assert!(error.is_none(), "{payload}: {error:?}");
            assert_eq!(tokens[0].text, "kept", "{payload}");
        }
    }
    // For a repeated key, the last value counts.
    let tokens = tokens_of(sse(&[&delta(r#"{"content":"a","content":"b"}"#)]));
    assert_eq!(text_of(&tokens), "b");
    // Escaped keys are keys.
    let tokens = tokens_of(sse(&[&delta(r#"{"cont\u0065nt":"a"}"#)]));
    assert_eq!(text_of(&tokens), "a");
}

#[test]
fn unlimited_choices_do_not_grow_the_state() {
    let payloads: Vec<_> = (0..5000_u32)
        .map(|n| choice(&format!(r#"{{"index":{n},"delta":{{"content":"x"}}}}"#)))
        .collect();
    let payloads: Vec<_> = payloads.iter().map(|payload| &payload[..]).collect();
    assert_eq!(tokens_of(sse(&payloads)).len(), 5000);
}

#[test]
fn long_lists_are_cut() {
    let many = |item: &str| vec![item; 100_000].join(",");
    let calls = delta(&format!(r#"{{"tool_calls":[{}]}}"#, many("{}")));
    let choices = choice(&many(r#"{"delta":{"content":"x"}}"#));
    for payload in [calls, choices] {
        let after = delta(r#"{"content":"after"}"#);
        let tokens = tokens_of(sse(&[&payload, &after]));
        assert_eq!(tokens.len(), 257);
        assert_eq!(tokens[256].text, "after");
    }
}

#[test]
fn errors_of_every_shape() {
    let check = |event: &str, code: Option<&str>, message: Option<&str>, status, kind| {
        let (tokens, error) = api_error(format!(
            "{}{event}\n\n{PLAIN}",
            sse(&[&delta(r#"{"content":"a"}"#)])
        ));
        assert_eq!(text_of(&tokens), "a", "{event}");
        assert_eq!(error.code(), code, "{event}");
        assert_eq!(error.message(), message, "{event}");
        assert_eq!(error.status(), status, "{event}");
        assert_eq!(error.failure().kind, kind, "{event}");
    };
    use FailureKind::{Fatal, RateLimited, Server};
    let boom = Some("boom");
    check(
        r#"data: {"error":{"message":"boom","type":"server_error","param":null,"code":null}}"#,
        None,
        boom,
        None,
        Server,
    );
    check(
        r#"error: {"code":400,"message":"boom","type":"invalid_request_error"}"#,
        Some("400"),
        boom,
        Some(400),
        Fatal,
    );
    check(
        r#"data: {"error":{"message":"boom","code":429}}"#,
        Some("429"),
        boom,
        Some(429),
        RateLimited,
    );
    check(
        r#"data: {"error":{"message":"boom","code":"503"}}"#,
        Some("503"),
        boom,
        Some(503),
        Server,
    );
    check(
        r#"data: {"error":{"message":"boom","type":"invalid_request_error","code":"tool_use_failed","status_code":400}}"#,
        Some("tool_use_failed"),
        boom,
        Some(400),
        Fatal,
    );
    check(
        r#"data: {"error":{"message":"boom","code":429,"type":"insufficient_quota"}}"#,
        Some("429"),
        boom,
        Some(429),
        Fatal,
    );
    check(
        r#"data: {"error":{"message":"boom","status":"RESOURCE_EXHAUSTED"}}"#,
        None,
        boom,
        None,
        RateLimited,
    );
    check(
        r#"data: [1]"#.replace("[1]", r#"{"error":["boom"]}"#).as_str(),
        None,
        boom,
        None,
        Fatal,
    );
    check(r#"data: {"error":"boom"}"#, None, boom, None, Fatal);
    check(
        r#"data: {"error":"boom","code":500}"#,
        Some("500"),
        boom,
        Some(500),
        Server,
    );
    check(r#"data: {"error":{}}"#, None, None, None, Fatal);
    check(r#"data: {"error":true}"#, None, None, None, Fatal);
    check(
        r#"data: {"object":"error","message":"boom","type":"BadRequestError","code":400}"#,
        Some("400"),
        boom,
        Some(400),
        Fatal,
    );
    check(
        r#"data: {"type":"error","message":"boom","code":"overloaded"}"#,
        Some("overloaded"),
        boom,
        None,
        Server,
    );
    check(
        r#"data: {"type":"error","error":{"type":"overloaded_error","message":"boom"}}"#,
        None,
        boom,
        None,
        Server,
    );
    check(
        "event: error\ndata: {\"message\":\"boom\",\"code\":502}",
        Some("502"),
        boom,
        Some(502),
        Server,
    );
    check(
        "event: error\ndata: {\"detail\":\"boom\"}",
        None,
        boom,
        None,
        Fatal,
    );
    check("event: error\ndata: {}", None, None, None, Fatal);
    check("event: error\ndata: boom", None, boom, None, Fatal);
    check(
        r#"data: {"x_groq":{"error":"boom"}}"#,
        None,
        boom,
        None,
        Fatal,
    );
    check(
        r#"data: {"x_groq":{"error":{"message":"boom","type":"server_error"}}}"#,
        None,
        boom,
        None,
        Server,
    );
    check(
        r#"data: {"choices":[{"index":0,"delta":{},"error":{"code":502,"message":"boom"}}]}"#,
        Some("502"),
        boom,
        Some(502),
        Server,
    );
}

#[test]
fn empty_error_fields_are_not_errors() {
    for payload in [
        r#"{"error":null,"choices":[{"delta":{"content":"a"}}]}"#,
        r#"{"error":{},"choices":[{"delta":{"content":"a"}}]}"#,
        r#"{"error":"","choices":[{"delta":{"content":"a"}}]}"#,
        r#"{"error":false,"choices":[{"delta":{"content":"a"},"error":null}],"x_groq":{"error":null}}"#,
    ] {
        assert_eq!(text_of(&tokens_of(sse(&[payload]))), "a", "{payload}");
    }
}

#[test]
fn content_of_a_payload_comes_before_its_error() {
    let (tokens, error) = api_error(sse(&[
        r#"{"id":"g","model":"m","error":{"code":502,"message":"upstream","retry_after":1.5},"choices":[{"index":0,"delta":{"content":"last"},"finish_reason":"error"}],"usage":{"completion_tokens":3}}"#,
        "[DONE]",
    ]));
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].text, "last");
    assert_eq!(tokens[0].finish_reason.as_deref(), Some("error"));
    assert_eq!(tokens[0].usage, Some(Usage::new().output(3)));
    assert_eq!(error.message(), Some("upstream"));
    assert_eq!(error.retry_after(), Some(Duration::from_millis(1500)));
    assert_eq!(error.failure().retry_after, error.retry_after());
}

#[test]
fn garbage_is_typed_and_not_quoted() {
    for (garbage, problem) in [
        ("canary", "malformed"),
        ("{\"choices\": canary}", "malformed"),
        (
            "{\"choices\":[{\"delta\":{\"content\":\"canary",
            "too early",
        ),
        ("[\"canary\"]", "another kind"),
        ("\"canary\"", "another kind"),
        ("12", "another kind"),
        ("null", "another kind"),
        ("<html>canary</html>", "web page"),
        ("{\"canary\":1}}", "malformed"),
    ] {
        let body = sse(&[&delta(r#"{"content":"a"}"#), garbage, "[DONE]"]);
        let (tokens, error) = decode(&body);
        assert!(same(
            &decode_chunks(by_bytes(body.as_bytes())),
            &decode(&body)
        ));
        assert_eq!(text_of(&tokens), "a");
        let error = error.unwrap();
        assert!(
            matches!(error, ProviderError::Json(_)),
            "{garbage}: {error:?}"
        );
        let shown = format!("{error} {error:?}");
        assert!(shown.contains(problem), "{garbage}: {shown}");
        assert!(!shown.contains("canary"), "{shown}");
        let failure = Failure::network(NetworkErrorKind::PartialChunks);
        assert_eq!(error.source().unwrap().downcast_ref(), Some(&failure));
    }
}

#[test]
fn deep_nesting_is_an_error_or_nothing() {
    for depth in [100, 1000, 200_000] {
        let (open, close) = ("[".repeat(depth), "]".repeat(depth));
        // Nesting of any depth is skipped in fields that are not read.
        let ignored = format!(r#"{{"x":{open}{close},"choices":[{{"delta":{{"content":"a"}}}}]}}"#);
        assert_eq!(text_of(&tokens_of(sse(&[&ignored]))), "a");
        let looked_at = delta(&format!(r#"{{"content":{open}{close}}}"#));
        let thinking = r#"[{"type":"thinking","thinking":"#.repeat(depth);
        let thinking = delta(&format!(r#"{{"content":{thinking}"#));
        let arguments = delta(&format!(
            r#"{{"tool_calls":[{{"function":{{"arguments":{open}{close}}}}}]}}"#
        ));
        for payload in [&looked_at, &thinking, &arguments] {
            let (_, error) = decode(sse(&[payload]));
            assert!(
                matches!(error, None | Some(ProviderError::Json(_))),
                "{error:?}"
            );
        }
    }
}

#[test]
fn invalid_utf8_is_typed_however_it_is_split() {
    let mut body = sse(&[&delta(r#"{"content":"a"}"#)]).into_bytes();
    body.extend_from_slice(b"data: {\"choices\":[{\"delta\":{\"content\":\"\xF0\x9F\xA6\"}}]}\n\n");
    body.extend_from_slice(PLAIN.as_bytes());
    let whole = decode(&body);
    assert_eq!(text_of(&whole.0), "a");
    let error = whole.1.as_ref().unwrap();
    assert!(matches!(error, ProviderError::Utf8(_)), "{error:?}");
    assert!(error.source().unwrap().is::<Failure>());
    for place in 0..body.len() {
        assert!(
            same(&decode_chunks(cut_at(&body, &[place])), &whole),
            "cut at {place}"
        );
    }
}

#[test]
fn a_line_of_ten_megabytes_is_a_typed_error() {
    let ok = sse(&[&delta(r#"{"content":"a"}"#)]);
    let long = format!(
        "{ok}data: {}",
        delta(&format!(r#"{{"content":"{}"}}"#, "x".repeat(10_000_000)))
    );
    let chunks = long.as_bytes().chunks(16 * 1024).map(<[u8]>::to_vec);
    for (tokens, error) in [decode(&long), decode_chunks(chunks)] {
        assert_eq!(text_of(&tokens), "a");
        let error = error.unwrap();
        let ProviderError::EventTooLarge(large) = &error else {
            panic!("{error:?}");
        };
        assert_eq!(large.limit, 8 * 1024 * 1024);
        assert_eq!(error.failure().kind, FailureKind::Fatal);
    }
    // The limit is a default.
    let (tokens, error) = decode_limited([long.into_bytes()], Some(usize::MAX));
    assert!(error.is_none());
    assert_eq!(text_of(&tokens).len(), 10_000_001);
    // Many lines of one event count too.
    let lines = "data: x\n".repeat(2_000_000);
    let (_, error) = decode(lines);
    assert!(matches!(error, Some(ProviderError::EventTooLarge(_))));
}

#[test]
fn an_endless_event_reads_no_more_than_the_limit() {
    let read = std::cell::Cell::new(0_usize);
    let body = stream::repeat_with(|| {
        read.set(read.get() + 1000);
        Ok::<_, Infallible>(vec![b'x'; 1000])
    });
    let decoder = openai::decode(body).max_event_bytes(100_000);
    let items: Vec<_> = decoder.collect().now_or_never().unwrap();
    assert!(matches!(items[..], [Err(ProviderError::EventTooLarge(_))]));
    assert_eq!(read.get(), 101_000);
}

#[test]
fn the_transports_error_stays_typed_and_in_the_chain() {
    let reset = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
    let body = stream::iter([
        Ok(sse(&[&delta(r#"{"content":"a"}"#)])),
        Err(reset),
        Ok(PLAIN.to_owned()),
    ]);
    let mut items: Vec<_> = openai::decode(body).collect().now_or_never().unwrap();
    assert_eq!(items.len(), 2);
    let error = items.remove(1).unwrap_err();
    let source = error
        .source()
        .unwrap()
        .downcast_ref::<std::io::Error>()
        .unwrap();
    assert_eq!(source.kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(
        error.failure(),
        Failure::network(NetworkErrorKind::Econnreset)
    );
    assert_eq!(error.api(), None);
    assert!(matches!(error, ProviderError::Transport(_)));
    // `?` converts an error.
    let from = || -> Result<(), ProviderError<std::io::Error>> {
        Err(std::io::Error::from(std::io::ErrorKind::TimedOut))?
    };
    assert!(matches!(from(), Err(ProviderError::Transport(_))));
}

#[test]
fn an_errors_own_chain_ends_in_a_failure() {
    let (_, error) = decode(sse(&[
        r#"{"error":{"message":"m","code":429,"retry_after":2}}"#,
    ]));
    let error = error.unwrap();
    let failure = Failure::status(429).retry_after(Duration::from_secs(2));
    assert_eq!(error.source().unwrap().downcast_ref(), Some(&failure));
    assert!(error.source().unwrap().source().is_none());
}

#[test]
fn keys_in_messages_do_not_show() {
    let (_, error) = decode(sse(&[
        r#"{"error":{"message":"bad key sk-canary-1234, Bearer canary5678","code":"sk-canary-1234"}}"#,
    ]));
    let error = error.unwrap();
    assert!(
        !format!("{error} {error:?}").contains("canary"),
        "{error:?}"
    );
}

#[test]
fn the_decoder_is_fused_and_stops_reading_at_the_end_mark() {
    let body = stream::iter([Ok::<_, Infallible>(PLAIN)])
        .chain(stream::once(async { panic!("read on after the end mark") }));
    let mut decoder = Box::pin(openai::decode(body));
    let mut count = 0;
    while decoder.next().now_or_never().unwrap().is_some() {
        assert!(!decoder.is_terminated());
        count += 1;
    }
    assert_eq!(count, 5);
    assert!(decoder.is_terminated());
    assert!(decoder.next().now_or_never().unwrap().is_none());
    assert_eq!(decoder.size_hint(), (0, Some(0)));
}

#[test]
fn the_decoder_waits_when_its_source_does() {
    let (first, second) = PLAIN.split_at(300);
    let body = stream::iter([Ok::<_, Infallible>(first)])
        .chain(stream::pending().take(1))
        .chain(stream::iter([Ok(second)]));
    let mut decoder = Box::pin(openai::decode(body));
    let mut count = 0;
    while let Some(item) = decoder.next().now_or_never() {
        item.unwrap().unwrap();
        count += 1;
    }
    assert_eq!(count, 1);
    assert!(!decoder.is_terminated());
}

#[test]
fn types_can_cross_threads() {
    fn check<T: Send + Sync + Unpin + std::fmt::Debug + 'static>() {}
    type Bytes = stream::Iter<std::vec::IntoIter<Result<bytes::Bytes, std::io::Error>>>;
    check::<Decoder<Bytes>>();
    check::<ProviderToken>();
    check::<ProviderError<std::io::Error>>();
    fn send<T: Send>(_: T) {}
    let body: stream::BoxStream<'static, Result<Vec<u8>, std::io::Error>> = stream::empty().boxed();
    send(openai::decode(body));
}

/// Pieces of a stream: payloads, valid and invalid, and other events.
fn piece() -> impl Strategy<Value = Vec<u8>> {
    let text = "[ -~äß🦀]{0,12}"
        .prop_map(|text: String| delta(&serde_json::json!({ "content": text }).to_string()));
    let payload = prop_oneof![
        6 => text,
        1 => Just(delta(r#"{"reasoning":"r","tool_calls":[{"index":0,"function":{"name":"f"}}]}"#)),
        1 => Just(choice(r#"{"index":1,"delta":{"content":"z"},"finish_reason":"stop"}"#)),
        1 => Just(r#"{"usage":{"prompt_tokens":3}}"#.to_owned()),
        1 => Just(r#"{"error":{"message":"boom"}}"#.to_owned()),
        1 => Just("[DONE]".to_owned()),
        1 => Just("{ \n \n}".to_owned()),
        1 => Just("garbage".to_owned()),
    ];
    let end = prop_oneof![Just("\n"), Just("\r\n"), Just("\r")];
    let event = (payload, end).prop_map(|(payload, end)| {
        let data = payload.replace('\n', &format!("{end}data:"));
        format!("data: {data}{end}{end}").into_bytes()
    });
    prop_oneof![
        12 => event,
        1 => Just(b": comment\n\n".to_vec()),
        1 => Just(b"event: error\n".to_vec()),
        1 => Just(b"data: \xF0\x9F\n\n".to_vec()),
        1 => Just(format!("data: {}\n\n", "y".repeat(400)).into_bytes()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_tokens(
        pieces in prop::collection::vec(piece(), 0..12),
        places in prop::collection::vec(any::<usize>(), 0..12),
        limit in prop::option::of(64_usize..600),
        end in any::<usize>(),
    ) {
        let body = pieces.concat();
        let body = &body[..body.len() - end % (body.len() + 1) / 4];
        let whole = decode_limited([body.to_vec()], limit);
        let split = decode_limited(cut_at(body, &places), limit);
        prop_assert!(same(&whole, &split), "{whole:?}\n{split:?}");
        let bytes = decode_limited(by_bytes(body), limit);
        prop_assert!(same(&whole, &bytes), "{whole:?}\n{bytes:?}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let whole = decode(chunks.concat());
        prop_assert!(same(&whole, &decode_chunks(chunks)));
    }

    #[test]
    fn arbitrary_json_never_panics(text in r#"[\[\]{}:,"a-d0-9\\ \r\n]{0,200}"#) {
        let _ = decode(format!("data: {{\"choices\":[{text}]}}\n\ndata: {text}\n\n"));
        let _ = decode(text);
    }

    /// Any value in any place of a payload is read or leads to a typed error, and intact parts are kept.
    #[test]
    fn mutated_payloads_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut body = PLAIN.as_bytes().to_vec();
        let at = at.index(body.len());
        body[at] = byte;
        let _ = decode(body);
    }
}
