//! Whole tool calls from the pieces of every dialect.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::error::Error;

use common::*;
use futures_util::{StreamExt, stream};
use l0_core::{Chunk, L0, TokenKind};
use l0_providers::{ProviderError, ProviderToken, TooManyCalls, ToolCall, ToolCalls, WholeCall};
use proptest::prelude::*;
use serde::Deserialize;

/// The calls of a response.
fn whole(tokens: &[ProviderToken]) -> Vec<WholeCall> {
    let mut calls = ToolCalls::new();
    for token in tokens {
        calls.push(token).unwrap();
    }
    calls.finish()
}

/// (choice, index, id, name, arguments, hosted)
type Plain<'a> = (u32, u32, Option<&'a str>, &'a str, &'a str, bool);

fn plain(calls: &[WholeCall]) -> Vec<Plain<'_>> {
    calls
        .iter()
        .map(|call| {
            let WholeCall {
                choice,
                index,
                id,
                name,
                arguments,
                hosted,
                ..
            } = call;
            (
                *choice,
                *index,
                id.as_deref(),
                &**name,
                &**arguments,
                *hosted,
            )
        })
        .collect()
}

fn piece(choice: u32, index: u32, name: Option<&str>, arguments: &str) -> ProviderToken {
    let mut call = ToolCall::new(index);
    call.name = name.map(str::to_owned);
    call.id = name.map(|name| format!("id-{name}"));
    call.arguments = arguments.to_owned();
    let mut token = ProviderToken::tool_call(call);
    token.choice = choice;
    token
}

#[test]
fn calls_of_every_dialect_are_assembled() {
    let chat = |calls: &str| delta(&format!(r#"{{"tool_calls":[{calls}]}}"#));
    // Description, payloads and expected calls.
    let cases: &[(&str, Dialect, Vec<String>, Vec<Plain<'_>>)] = &[
        (
            "interleaved, one without arguments",
            CHAT,
            vec![
                chat(r#"{"index":0,"id":"a","function":{"name":"f","arguments":""}}"#),
                chat(r#"{"index":1,"id":"b","function":{"name":"g","arguments":"{\"y\""}}"#),
                chat(r#"{"index":0,"function":{"arguments":"{\"x\":"}}"#),
                chat(r#"{"index":1,"function":{"arguments":":2}"}},{"index":2,"id":"c","function":{"name":"now"}}"#),
                chat(r#"{"index":0,"function":{"arguments":"1}"}}"#),
            ],
            vec![
                (0, 0, Some("a"), "f", r#"{"x":1}"#, false),
                (0, 1, Some("b"), "g", r#"{"y":2}"#, false),
                (0, 2, Some("c"), "now", "{}", false),
            ],
        ),
        (
            "all numbered 0, as an object, with repeated id and name",
            CHAT,
            vec![
                chat(r#"{"index":0,"id":"a","function":{"name":"f","arguments":{"x":1}}}"#),
                chat(r#"{"index":0,"id":"b","function":{"name":"f","arguments":"{\"x\""}}"#),
                chat(r#"{"index":0,"id":"b","function":{"name":"f","arguments":":2}"}}"#),
            ],
            vec![
                (0, 0, Some("a"), "f", r#"{"x":1}"#, false),
                (0, 1, Some("b"), "f", r#"{"x":2}"#, false),
            ],
        ),
        (
            "without numbers and ids, in two choices",
            CHAT,
            vec![
                r#"{"choices":[{"index":1,"delta":{"tool_calls":[{"function":{"name":"f","arguments":"{}"}},{"function":{"name":"g","arguments":"[1]"}}]}},{"index":0,"delta":{"tool_calls":[{"function":{"name":"h","arguments":"{}"}}]}}]}"#.to_owned(),
            ],
            vec![
                (0, 0, None, "h", "{}", false),
                (1, 0, None, "f", "{}", false),
                (1, 1, None, "g", "[1]", false),
            ],
        ),
        (
            "a character whose halves are in separate pieces",
            CHAT,
            vec![
                chat(r#"{"index":0,"id":"a","function":{"name":"f","arguments":"\"\ud83d"}}"#),
                chat(r#"{"index":0,"function":{"arguments":"\ude00\""}}"#),
            ],
            vec![(0, 0, Some("a"), "f", "\"\u{1F600}\"", false)],
        ),
        (
            "interleaved, one without a piece, and one that OpenAI runs",
            RESPONSES,
            vec![
                r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","call_id":"a","name":"f"}}"#.to_owned(),
                r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"mcp_call","id":"m","name":"ask"}}"#.to_owned(),
                r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":"{\"x\""}"#.to_owned(),
                r#"{"type":"response.mcp_call_arguments.delta","output_index":1,"delta":"{}"}"#.to_owned(),
                r#"{"type":"response.function_call_arguments.delta","output_index":0,"delta":":1}"}"#.to_owned(),
                r#"{"type":"response.output_item.added","output_index":2,"item":{"type":"function_call","call_id":"b","name":"g"}}"#.to_owned(),
                r#"{"type":"response.output_item.done","output_index":2,"item":{"type":"function_call","call_id":"b","name":"g","arguments":"{\"y\":2}"}}"#.to_owned(),
            ],
            vec![
                (0, 0, Some("a"), "f", r#"{"x":1}"#, false),
                (0, 1, Some("m"), "ask", "{}", true),
                (0, 2, Some("b"), "g", r#"{"y":2}"#, false),
            ],
        ),
        (
            "one that Anthropic runs; in pieces, whole, and without a piece",
            ANTHROPIC,
            vec![
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"s","name":"web_search","input":{}}}"#.to_owned(),
                r#"{"type":"content_block_stop","index":0}"#.to_owned(),
                r#"{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"a","name":"f","input":{}}}"#.to_owned(),
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":""}}"#.to_owned(),
                r#"{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"x\":1}"}}"#.to_owned(),
                r#"{"type":"content_block_stop","index":1}"#.to_owned(),
                r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"b","name":"g","input":{"y":2}}}"#.to_owned(),
                r#"{"type":"content_block_stop","index":2}"#.to_owned(),
                r#"{"type":"content_block_start","index":3,"content_block":{"type":"tool_use","id":"c","name":"now","input":{}}}"#.to_owned(),
                r#"{"type":"content_block_stop","index":3}"#.to_owned(),
            ],
            vec![
                (0, 0, Some("s"), "web_search", "{}", true),
                (0, 1, Some("a"), "f", r#"{"x":1}"#, false),
                (0, 2, Some("b"), "g", r#"{"y":2}"#, false),
                (0, 3, Some("c"), "now", "{}", false),
            ],
        ),
        (
            "whole, without arguments and ids",
            GEMINI,
            vec![
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"x":1}}},{"functionCall":{"name":"now"}}]}}]}"#.to_owned(),
                r#"{"candidates":[{"content":{"parts":[{"functionCall":{"id":"i","name":"f","args":{"x":2}}}]},"finishReason":"STOP"}]}"#.to_owned(),
            ],
            vec![
                (0, 0, None, "f", r#"{"x":1}"#, false),
                (0, 1, None, "now", "{}", false),
                (0, 2, Some("i"), "f", r#"{"x":2}"#, false),
            ],
        ),
    ];
    for (case, dialect, payloads, expected) in cases {
        let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
        let tokens = dialect.tokens(&payloads);
        let calls = whole(&tokens);
        assert_eq!(plain(&calls), *expected, "{}: {case}", dialect.name);
        assert!(tokens.iter().all(|token| token.text.is_empty()), "{case}");
        let json = serde_json::to_string(&calls).unwrap();
        assert_eq!(
            serde_json::from_str::<Vec<WholeCall>>(&json).unwrap(),
            calls
        );
    }
}

#[test]
fn the_first_id_and_name_count() {
    let mut tokens = ["f", "g"].map(|name| piece(0, 0, Some(name), "1"));
    tokens[1].tool_call.as_mut().unwrap().hosted = true;
    let calls = whole(&tokens);
    assert_eq!(plain(&calls), [(0, 0, Some("id-f"), "f", "11", true)]);
}

#[derive(Debug, Deserialize)]
struct Weather {
    city: String,
}

#[test]
fn invalid_arguments_are_an_error_that_names_the_call_and_omits_the_arguments() {
    let call = |arguments: &str| {
        let tokens = [piece(0, 0, Some("get_weather"), arguments)];
        whole(&tokens).remove(0)
    };
    let weather: Weather = call(r#"{"city":"Bern"}"#).parse().unwrap();
    assert_eq!(weather.city, "Bern");
    for (arguments, expected) in [
        (
            r#"{"city":"canary"#,
            "the arguments of the tool call `get_weather` end too early (line 1, column 15)",
        ),
        (
            "canary",
            "the arguments of the tool call `get_weather` are not valid JSON (line 1, column 1)",
        ),
        (
            r#""canary""#,
            "the arguments of the tool call `get_weather` do not match the expected type (line 1, column 8)",
        ),
    ] {
        let error = call(arguments).parse::<Weather>().unwrap_err();
        assert_eq!(error.to_string(), expected);
        assert!(!format!("{error:?}").contains("canary"), "{error:?}");
        let source = error.source().unwrap();
        assert!(source.is::<serde_json::Error>());
    }
    // A model can write anything as a name.
    for name in ["`\n", "the canary asks for", &"x".repeat(65), ""] {
        let tokens = [piece(0, 0, Some(name), "canary")];
        let error = whole(&tokens)[0].parse::<Weather>().unwrap_err();
        let expected = "the arguments of a tool call are not valid JSON (line 1, column 1)";
        assert_eq!(error.to_string(), expected, "{name}");
        let debug = format!("{error:?}");
        assert!(debug.contains("name: None"), "{debug}");
    }
}

#[tokio::test]
async fn after_a_restart_only_the_new_calls_are_left() {
    let body = |name: &str, end: &str| {
        let call = delta(&format!(
            r#"{{"tool_calls":[{{"index":0,"id":"{name}","function":{{"name":"{name}","arguments":"{{}}"}}}}]}}"#
        ));
        format!("{}{end}", sse(&[&call]))
    };
    let done = sse(&[&choice(r#"{"finish_reason":"tool_calls"}"#)]);
    // The first answer is truncated.
    let mut bodies = [body("first", ""), body("second", &done)].into_iter();
    let l0 = L0::builder()
        .retry(l0_core::Retry::new().backoff(l0_core::Backoff::none()))
        .build();
    let mut run = l0
        .stream(move |_| {
            let body = bodies.next().unwrap().into_bytes();
            let body: Body = stream::iter([Ok(body)]).boxed();
            async move { Ok::<_, ProviderError<_>>(l0_providers::openai::decode(body)) }
        })
        .start();
    let mut calls = ToolCalls::new();
    let mut restarts = 0;
    while let Some(chunk) = run.next().await {
        match chunk.unwrap() {
            Chunk::Item(token) => calls.push(&token).unwrap(),
            Chunk::Restart { .. } => {
                restarts += 1;
                calls.clear();
                assert!(calls.is_empty());
            }
        }
    }
    assert_eq!(restarts, 1);
    let second = (0, 0, Some("second"), "second", "{}", false);
    assert_eq!(plain(&calls.finish()), [second]);
}

#[test]
fn exceeding_a_limit_is_an_error_without_calls() {
    let mut calls = ToolCalls::new();
    for index in 0..256 {
        calls.push(&piece(0, index, Some("f"), "{")).unwrap();
        calls.push(&piece(0, index, None, "}")).unwrap();
    }
    let error = calls.push(&piece(0, 256, Some("f"), "")).unwrap_err();
    assert!(matches!(error, TooManyCalls::Calls { limit: 256, .. }));
    assert_eq!(error.to_string(), "the response exceeds 256 tool calls");
    // Later pieces do not bring calls back.
    assert_eq!(calls.push(&piece(0, 0, Some("f"), "")), Err(error));
    let text = ProviderToken::new(TokenKind::Text, "a");
    assert_eq!(calls.push(&text), Ok(()));
    assert!(calls.clone().finish().is_empty());
    calls.clear();
    calls.push(&piece(0, 0, Some("f"), "{}")).unwrap();
    assert_eq!(calls.finish().len(), 1);

    // "id-f", "f" and the arguments.
    let mut calls = ToolCalls::new().max_bytes(10);
    calls.push(&piece(0, 0, Some("f"), "12345")).unwrap();
    let error = calls.push(&piece(0, 0, None, "6")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the tool calls of the response exceed 10 bytes"
    );
    assert!(calls.finish().is_empty());
}

/// A model's calls in order, each cut into pieces at these places.
type CallPieces = Vec<(Option<String>, String, String, Vec<usize>)>;

fn call_pieces() -> impl Strategy<Value = CallPieces> {
    let text = "[a-z{}:\"\u{e4}\u{1F600}]{0,12}";
    let id = proptest::option::of("[a-z]{1,4}");
    let cuts = proptest::collection::vec(0..16_usize, 0..4);
    let call = (id, "[a-z]{1,6}", text, cuts);
    proptest::collection::vec(call, 0..6)
}

proptest! {
    /// The model: pieces are cut and mixed, and each call is the concatenation of its own pieces.
    #[test]
    fn calls_are_what_was_cut_however_the_pieces_mix(
        call_pieces in call_pieces(),
        order in proptest::collection::vec(any::<proptest::sample::Index>(), 64),
        choices in 1..3_u32,
    ) {
        let mut queues: Vec<Vec<ProviderToken>> = Vec::new();
        let mut expected = Vec::new();
        let mut counts = [0_u32; 3];
        for (number, (id, name, arguments, cuts)) in call_pieces.iter().enumerate() {
            let choice = u32::try_from(number).unwrap() % choices;
            let index = counts[choice as usize];
            counts[choice as usize] += 1;
            let boundaries: Vec<_> = arguments.char_indices().map(|(at, _)| at).collect();
            let mut cuts: Vec<_> = cuts
                .iter()
                .map(|cut| boundaries.get(*cut).copied().unwrap_or(arguments.len()))
                .chain([arguments.len()])
                .collect();
            cuts.sort_unstable();
            let mut from = 0;
            let mut pieces = Vec::new();
            for to in cuts {
                let mut call = ToolCall::new(index);
                if from == 0 && pieces.is_empty() {
                    call.id.clone_from(id);
                    call.name = Some(name.clone());
                }
                call.arguments = arguments[from..to].to_owned();
                from = to;
                let mut token = ProviderToken::tool_call(call);
                token.choice = choice;
                pieces.push(token);
            }
            pieces.reverse();
            queues.push(pieces);
            let arguments = if arguments.is_empty() { "{}" } else { arguments };
            expected.push((choice, index, id.as_deref(), &**name, arguments, false));
        }
        let mut mixed = Vec::new();
        let mut picks = order.iter().cycle();
        while queues.iter().any(|queue| !queue.is_empty()) {
            let filled: Vec<_> = (0..queues.len()).filter(|at| !queues[*at].is_empty()).collect();
            let at = filled[picks.next().unwrap().index(filled.len())];
            mixed.push(queues[at].pop().unwrap());
            mixed.push(ProviderToken::new(TokenKind::Text, "between"));
        }
        expected.sort_unstable_by_key(|call| (call.0, call.1));
        let calls = whole(&mixed);
        prop_assert_eq!(plain(&calls), expected);
    }
}
