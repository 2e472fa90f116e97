//! OpenAI's Responses streams, valid and invalid, from payloads to tokens.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::*;
use l0_core::{FailureKind, FinishReason, TokenKind, Usage};
use l0_providers::{ProviderError, ProviderToken};

fn tokens(payloads: &[&str]) -> Vec<ProviderToken> {
    RESPONSES.tokens(payloads)
}

fn event(kind: &str, fields: &str) -> String {
    format!(r#"{{"type":"response.{kind}","sequence_number":1,{fields}}}"#)
}

fn over(kind: &str, fields: &str) -> String {
    event(kind, &format!(r#""response":{{{fields}}}"#))
}

fn item(kind: &str, index: u32, fields: &str) -> String {
    event(
        &format!("output_item.{kind}"),
        &format!(r#""output_index":{index},"item":{{{fields}}}"#),
    )
}

const TEXT: &str = r#"{"type":"response.output_text.delta","delta":"a","output_index":0,"content_index":0,"logprobs":[],"obfuscation":"x"}"#;
const COMPLETED: &str = r#"{"type":"response.completed","response":{"status":"completed"}}"#;

#[test]
fn a_plain_response() {
    let head = r#""id":"resp_1","model":"m-1","output":[],"tools":[{"type":"function"}]"#;
    let all = tokens(&[
        &over(
            "created",
            &format!(r#"{head},"status":"in_progress","usage":null,"error":null"#),
        ),
        &over("in_progress", &format!(r#"{head},"status":"in_progress""#)),
        &item("added", 0, r#""id":"msg_1","type":"message","content":[]"#),
        &event(
            "content_part.added",
            r#""part":{"type":"output_text","text":""}"#,
        ),
        TEXT,
        &event("output_text.delta", r#""delta":"b""#),
        &event("output_text.done", r#""text":"ab""#),
        &event(
            "content_part.done",
            r#""part":{"type":"output_text","text":"ab"}"#,
        ),
        &item(
            "done",
            0,
            r#""id":"msg_1","type":"message","content":[{"type":"output_text","text":"ab"}]"#,
        ),
        &over(
            "completed",
            &format!(
                r#"{head},"status":"completed","incomplete_details":null,"usage":{{"input_tokens":9,"input_tokens_details":{{"cached_tokens":4}},"output_tokens":5,"output_tokens_details":{{"reasoning_tokens":2}},"total_tokens":14}}"#
            ),
        ),
    ]);
    let mut first = ProviderToken::new(TokenKind::Other, "");
    first.model = Some("m-1".to_owned());
    first.response_id = Some("resp_1".to_owned());
    let mut last = ProviderToken::new(TokenKind::Other, "");
    let counts = Usage::new().input(9).output(5).total(14);
    last.usage = Some(counts.cached_input(4).reasoning(2));
    last.finish = Some(FinishReason::Stop);
    last.finish_reason = Some("completed".to_owned());
    let expected = [
        first,
        ProviderToken::new(TokenKind::Text, "a"),
        ProviderToken::new(TokenKind::Text, "b"),
        last,
    ];
    assert_eq!(all, expected);
}

#[test]
fn deltas_of_every_kind() {
    use TokenKind::{Media, Reasoning, Text};
    for (kind, expected) in [
        ("output_text.delta", vec![(Text, "d")]),
        ("refusal.delta", vec![(Text, "d")]),
        ("reasoning_summary_text.delta", vec![(Reasoning, "d")]),
        ("reasoning_text.delta", vec![(Reasoning, "d")]),
        ("reasoning_summary_part.added", vec![]),
        ("output_text.annotation.added", vec![]),
        ("web_search_call.in_progress", vec![]),
        ("code_interpreter_call_code.delta", vec![]),
        ("audio.delta", vec![(Media, "")]),
        ("audio.transcript.delta", vec![(Text, "d")]),
        ("reasoning.delta", vec![(Reasoning, "d")]),
        ("something_new.delta", vec![]),
    ] {
        let all = tokens(&[&event(kind, r#""delta":"d""#)]);
        assert_eq!(texts(&all), expected, "{kind}");
        let refusal = kind == "refusal.delta";
        assert!(all.iter().all(|token| token.refusal == refusal), "{kind}");
        for empty in [
            r#""delta":"""#,
            r#""delta":null"#,
            r#""delta":{"x":"x"}"#,
            r#""x":1"#,
        ] {
            assert!(tokens(&[&event(kind, empty)]).is_empty(), "{kind} {empty}");
        }
    }
    for other in [
        "{}",
        r#"{"type":"keepalive","sequence_number":3}"#,
        r#"{"type":7}"#,
    ] {
        assert!(tokens(&[other]).is_empty());
    }
    // The event's name counts if the payload has no type.
    let named = "event: response.output_text.delta\ndata: {\"delta\":\"a\"}\n\n";
    assert_eq!(texts(&RESPONSES.decode(named).0), [(Text, "a")]);
}

#[test]
fn tool_calls_keep_their_identity() {
    let piece = |kind: &str, index: u32, text: &str| {
        let text = serde_json::to_string(text).unwrap();
        event(
            &format!("{kind}.delta"),
            &format!(r#""output_index":{index},"delta":{text}"#),
        )
    };
    let all = tokens(&[
        &item("added", 0, r#""type":"reasoning","id":"rs_1","summary":[]"#),
        &item(
            "added",
            1,
            r#""type":"function_call","id":"fc_1","call_id":"call_1","name":"get","arguments":"""#,
        ),
        &piece("function_call_arguments", 1, "{\"x\""),
        &piece("function_call_arguments", 1, ":1}"),
        &event(
            "function_call_arguments.done",
            r#""output_index":1,"arguments":"{\"x\":1}""#,
        ),
        &item(
            "done",
            1,
            r#""type":"function_call","id":"fc_1","call_id":"call_1","name":"get","arguments":"{\"x\":1}""#,
        ),
        // Without any piece.
        &item(
            "added",
            2,
            r#""type":"function_call","id":"fc_2","call_id":"call_2","name":"put","arguments":"""#,
        ),
        &item(
            "done",
            2,
            r#""type":"function_call","id":"fc_2","call_id":"call_2","name":"put","arguments":"{}""#,
        ),
        &item(
            "added",
            3,
            r#""type":"custom_tool_call","call_id":"call_3","name":"run","input":"""#,
        ),
        &piece("custom_tool_call_input", 3, "ls"),
        &item(
            "done",
            3,
            r#""type":"custom_tool_call","call_id":"call_3","name":"run","input":"ls""#,
        ),
        &item(
            "added",
            4,
            r#""type":"mcp_call","id":"mcp_1","name":"ask","server_label":"s","arguments":"""#,
        ),
        &piece("mcp_call_arguments", 4, "{}"),
        &item(
            "added",
            5,
            r#""type":"web_search_call","id":"ws_1","status":"in_progress""#,
        ),
        &item(
            "done",
            5,
            r#""type":"web_search_call","id":"ws_1","status":"completed""#,
        ),
        COMPLETED,
    ]);
    assert_eq!(
        calls(&all),
        [
            (0, Some("call_1"), Some("get"), "{\"x\""),
            (0, None, None, ":1}"),
            (1, Some("call_2"), Some("put"), "{}"),
            (2, Some("call_3"), Some("run"), "ls"),
            (3, Some("mcp_1"), Some("ask"), "{}"),
        ]
    );
    assert_eq!(
        finishes(&all),
        [(Some("completed"), Some(FinishReason::ToolCalls))]
    );
    // A server that does not number its items.
    let added = |id: &str| {
        let item = format!(r#""item":{{"type":"function_call","call_id":"{id}","name":"f"}}"#);
        event("output_item.added", &item)
    };
    let bare = |text: &str| {
        event(
            "function_call_arguments.delta",
            &format!(r#""delta":"{text}""#),
        )
    };
    let all = tokens(&[&added("a"), &bare("["), &bare("]"), &added("b"), &bare("1")]);
    let expected = [
        (0, Some("a"), Some("f"), "["),
        (0, None, None, "]"),
        (1, Some("b"), Some("f"), "1"),
    ];
    assert_eq!(calls(&all), expected);
}

#[test]
fn calls_of_the_apis_own_tools_are_yielded_unless_hosted() {
    for (kind, fields, expected) in [
        (
            "computer_call",
            r#""action":{"type":"wait"}"#,
            Some(r#"{"type":"wait"}"#),
        ),
        (
            "computer_call",
            r#""action":null,"actions":[1]"#,
            Some("[1]"),
        ),
        (
            "local_shell_call",
            r#""action":{"command":["ls"]}"#,
            Some(r#"{"command":["ls"]}"#),
        ),
        (
            "shell_call",
            r#""action":{"commands":["ls"]}"#,
            Some(r#"{"commands":["ls"]}"#),
        ),
        (
            "shell_call",
            r#""action":{},"environment":{"type":"local"}"#,
            Some("{}"),
        ),
        (
            "shell_call",
            r#""action":{},"environment":{"type":"container_reference"}"#,
            None,
        ),
        (
            "apply_patch_call",
            r#""operation":{"path":"a"}"#,
            Some(r#"{"path":"a"}"#),
        ),
        (
            "tool_search_call",
            r#""arguments":{"q":1}"#,
            Some(r#"{"q":1}"#),
        ),
        ("tool_search_call", r#""arguments":{},"call_id":null"#, None),
        ("web_search_call", r#""action":{"type":"search"}"#, None),
        ("code_interpreter_call", r#""code":"1""#, None),
    ] {
        let fields = format!(r#""type":"{kind}","id":"i","call_id":"c",{fields}"#);
        let all = tokens(&[
            &item("added", 0, &fields),
            &item("done", 0, &fields),
            COMPLETED,
        ]);
        let name = kind.strip_suffix("_call");
        let call = expected.map(|arguments| (0, Some("c"), name, arguments));
        assert_eq!(calls(&all), Vec::from_iter(call), "{fields}");
        let finish = match expected {
            Some(_) => FinishReason::ToolCalls,
            None => FinishReason::Stop,
        };
        assert_eq!(finishes(&all), [(Some("completed"), Some(finish))]);
    }
    // An MCP call has already run when it is reported.
    let all = tokens(&[
        &item(
            "added",
            0,
            r#""type":"mcp_call","id":"m","name":"ask","arguments":"""#,
        ),
        &event(
            "mcp_call_arguments.delta",
            r#""output_index":0,"delta":"{}""#,
        ),
        TEXT,
        COMPLETED,
    ]);
    assert_eq!(calls(&all), [(0, Some("m"), Some("ask"), "{}")]);
    assert_eq!(
        finishes(&all),
        [(Some("completed"), Some(FinishReason::Stop))]
    );
}

#[test]
fn marks_that_complete_a_response() {
    let finish = |payload: &str| {
        finishes(&tokens(&[TEXT, payload, TEXT]))
            .into_iter()
            .map(|(reason, finish)| (reason.unwrap().to_owned(), finish.unwrap()))
            .collect::<Vec<_>>()
    };
    let one = |reason: &str, finish| vec![(reason.to_owned(), finish)];
    assert_eq!(finish(COMPLETED), one("completed", FinishReason::Stop));
    assert_eq!(
        finish(r#"{"type":"response.completed"}"#),
        one("completed", FinishReason::Stop)
    );
    for (reason, expected) in [
        ("max_output_tokens", FinishReason::Length),
        ("content_filter", FinishReason::ContentFilter),
        ("something_new", FinishReason::Length),
    ] {
        let payload = over(
            "incomplete",
            &format!(r#""status":"incomplete","incomplete_details":{{"reason":"{reason}"}}"#),
        );
        assert_eq!(finish(&payload), one(reason, expected));
    }
    let bare = over(
        "incomplete",
        r#""status":"incomplete","incomplete_details":null"#,
    );
    assert_eq!(finish(&bare), one("incomplete", FinishReason::Length));
    let cancelled = over("cancelled", r#""status":"cancelled""#);
    assert_eq!(finish(&cancelled), one("cancelled", FinishReason::Other));
    // The decoder stops there. Without that event, nothing is complete.
    assert_eq!(text_of(&tokens(&[TEXT, COMPLETED, TEXT])), "a");
    assert!(finishes(&tokens(&[TEXT, TEXT])).is_empty());
    // Not a mark of this API.
    assert!(finishes(&tokens(&[TEXT, "[DONE]"])).is_empty());
}

#[test]
fn errors_of_every_shape() {
    use FailureKind::{Fatal, RateLimited, Server};
    let failed = |code: &str| {
        over(
            "failed",
            &format!(
                r#""id":"r","status":"failed","error":{{"code":"{code}","message":"m"}},"usage":null"#
            ),
        )
    };
    for (payload, code, kind) in [
        (failed("server_error"), Some("server_error"), Server),
        (failed("rate_limit_exceeded"), Some("rate_limit_exceeded"), RateLimited),
        (failed("invalid_prompt"), Some("invalid_prompt"), Fatal),
        (failed("vector_store_timeout"), Some("vector_store_timeout"), Server),
        (
            r#"{"type":"error","code":"server_error","message":"m","param":null,"sequence_number":2}"#.to_owned(),
            Some("server_error"),
            Server,
        ),
        (
            r#"{"type":"error","error":{"type":"tokens","code":"rate_limit_exceeded","message":"m"}}"#.to_owned(),
            Some("rate_limit_exceeded"),
            RateLimited,
        ),
        (r#"{"error":{"message":"m","code":502}}"#.to_owned(), Some("502"), Server),
    ] {
        let (all, error) = RESPONSES.failed(&[TEXT, &payload]);
        assert_eq!(text_of(&all), "a", "{payload}");
        assert_eq!(error.code(), code, "{payload}");
        assert_eq!(error.message(), Some("m"), "{payload}");
        assert_eq!(error.failure().kind, kind, "{payload}");
    }
    let (all, error) = RESPONSES.failed(&[&over("failed", r#""status":"failed","error":null"#)]);
    assert_eq!(error.failure().kind, Server);
    assert_eq!(all[0].finish_reason.as_deref(), Some("failed"));
}

#[test]
fn an_error_event_waits_for_the_failed_response_if_it_follows() {
    const ERROR: &str =
        r#"{"type":"error","error":{"type":"t","code":"server_error","message":"first"}}"#;
    let failed = over(
        "failed",
        r#""status":"failed","error":{"code":"x","message":"second"}"#,
    );
    let (all, error) = RESPONSES.failed(&[TEXT, ERROR, &failed, TEXT]);
    assert_eq!(text_of(&all), "a");
    assert_eq!(all.last().unwrap().finish_reason.as_deref(), Some("failed"));
    assert_eq!(error.message(), Some("first"));
    // Without a failed response, and for every end of the body.
    for tail in [
        "",
        "data: [DONE]\n\n",
        "data: {\"type\":\"resp",
        "data: \u{fffd}",
    ] {
        let (all, error) = RESPONSES.decode(format!("{}{tail}", sse(&[TEXT, ERROR])));
        let Some(ProviderError::Api(error)) = error else {
            panic!("{tail}: {error:?}");
        };
        assert_eq!(error.message(), Some("first"));
        assert!(finishes(&all).is_empty(), "{tail}");
    }
    let broken = [sse(&[ERROR]).into_bytes(), b"data: \xFF\n\n".to_vec()].concat();
    assert!(matches!(
        RESPONSES.decode(broken).1,
        Some(ProviderError::Api(_))
    ));
}

#[test]
fn counts_are_never_guessed() {
    let usage =
        |usage: &str| tokens(&[&over("completed", &format!(r#""usage":{usage}"#))])[0].usage;
    assert_eq!(usage("null"), None);
    assert_eq!(usage("{}"), None);
    assert_eq!(usage(r#"{"input_tokens":-1}"#), None);
    assert_eq!(
        usage(r#"{"output_tokens":0}"#),
        Some(Usage::new().output(0))
    );
    let partial = r#"{"input_tokens":3,"input_tokens_details":null,"output_tokens_details":{}}"#;
    assert_eq!(usage(partial), Some(Usage::new().input(3)));
}
