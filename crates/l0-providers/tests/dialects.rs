//! Properties of the decoder of every dialect, for any bytes.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::cell::Cell;
use std::convert::Infallible;

use common::*;
use futures_util::{FutureExt, StreamExt, stream};
use l0_core::TokenKind;
use l0_providers::{Decoder, ProviderError};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// A response with everything that a dialect reads, as payloads.
fn payloads(dialect: Dialect) -> &'static [&'static str] {
    match dialect.name {
        "openai-chat" => &[
            r#"{"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"reasoning":"r"}},{"index":1,"delta":{"content":"ä"}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"content":[{"type":"text","text":"a🦀"}]}}]}"#,
            r#"{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"i","function":{"name":"f","arguments":"{}"}}]}}]}"#,
            r#"{"choices":[{"index":1,"delta":{},"finish_reason":"length"},{"index":0,"delta":{},"finish_reason":"stop"}]}"#,
            r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7},"x_groq":{"usage":{"queue_time":0.1}}}"#,
            "[DONE]",
        ],
        "openai-responses" => &[
            r#"{"type":"response.created","response":{"id":"r","model":"m","error":null,"usage":null}}"#,
            r#"{"type":"response.reasoning_summary_text.delta","delta":"r"}"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"a🦀"}"#,
            r#"{"type":"response.refusal.delta","delta":"no"}"#,
            r#"{"type":"response.output_item.added","output_index":1,"item":{"type":"function_call","call_id":"i","name":"f","arguments":""}}"#,
            r#"{"type":"response.function_call_arguments.delta","output_index":1,"delta":"{}"}"#,
            r#"{"type":"response.output_item.done","output_index":1,"item":{"type":"function_call","arguments":"{}"}}"#,
            r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":"max_output_tokens"},"usage":{"input_tokens":3,"output_tokens":4,"output_tokens_details":{"reasoning_tokens":1}}}}"#,
        ],
        "anthropic" => &[
            r#"{"type":"message_start","message":{"id":"i","model":"m","usage":{"input_tokens":3,"output_tokens":1}}}"#,
            r#"{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":""}}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"r"}}"#,
            r#"{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"a🦀"}}"#,
            r#"{"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"t","name":"f","input":{}}}"#,
            r#"{"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{}"}}"#,
            r#"{"type":"content_block_stop","index":2}"#,
            r#"{"type":"content_block_start","index":3,"content_block":{"type":"server_tool_use","id":"u","name":"g","input":{"q":[1]}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":9}}"#,
            r#"{"type":"message_stop"}"#,
        ],
        _ => &[
            r#"{"candidates":[{"content":{"parts":[{"text":"r","thought":true}]},"index":0}],"usageMetadata":{"promptTokenCount":3},"modelVersion":"m","responseId":"r"}"#,
            r#"{"candidates":[{"content":{"parts":[{"text":"a🦀"},{"text":"b"}]}},{"index":1,"content":{"parts":[{"text":"c"}]}}]}"#,
            r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{"x":[1]}}}]}}]}"#,
            r#"{"candidates":[{"index":1,"finishReason":"SAFETY"},{"finishReason":"STOP"}],"usageMetadata":{"candidatesTokenCount":4,"totalTokenCount":7}}"#,
        ],
    }
}

/// The payloads as a body, with event names if the dialect has them.
fn body(dialect: Dialect) -> String {
    let named = |payload: &&str| {
        let fields: serde_json::Value = serde_json::from_str(payload).unwrap_or_default();
        let name = fields["type"]
            .as_str()
            .map(|name| format!("event: {name}\n"));
        format!("{}data: {payload}\n\n", name.unwrap_or_default())
    };
    payloads(dialect).iter().map(named).collect()
}

const ERROR: &str =
    r#"{"type":"error","error":{"type":"overloaded_error","message":"m","code":503}}"#;

#[test]
fn line_ends_comments_and_cuts_change_nothing() {
    for dialect in DIALECTS {
        let plain = body(dialect);
        let whole = dialect.decode(&plain);
        assert!(whole.1.is_none(), "{whole:?}");
        let kinds = whole.0.iter().map(|token| token.kind);
        for kind in [TokenKind::Text, TokenKind::Reasoning, TokenKind::ToolCall] {
            assert!(kinds.clone().any(|other| other == kind), "{}", dialect.name);
        }
        let finished = whole.0.iter().filter(|token| token.finish.is_some());
        assert_eq!(finished.count(), 1, "{}", dialect.name);
        for form in [
            plain.clone(),
            plain.replace('\n', "\r\n"),
            plain.replace('\n', "\r"),
            format!("\u{feff}{plain}"),
            plain.replace("data: ", "data:"),
            plain.replace(
                "\n\n",
                "\n\n: keep-alive\n\n:\n\nevent: ping\ndata: x\n\ndata:\n\n",
            ),
            plain.replace(",\"", "\ndata: ,\ndata: \""),
            plain.trim_end().to_owned(),
        ] {
            let form = form.as_bytes();
            assert!(same(&dialect.decode(form), &whole), "{}", dialect.name);
            assert!(
                same(&dialect.chunks(by_bytes(form)), &whole),
                "{}",
                dialect.name
            );
            for place in 0..form.len() {
                let cut = dialect.chunks(cut_at(form, &[place]));
                assert!(same(&cut, &whole), "{}: cut at {place}", dialect.name);
            }
        }
    }
}

#[test]
fn a_truncated_body_yields_a_prefix() {
    for dialect in DIALECTS {
        let body = body(dialect);
        let (all, _) = dialect.decode(&body);
        let finish = all.iter().position(|token| token.finish.is_some()).unwrap();
        for end in 0..body.len() {
            let (tokens, error) = dialect.decode(&body.as_bytes()[..end]);
            assert!(error.is_none(), "{}: {end}: {error:?}", dialect.name);
            // A call that is only announced may be yielded without its arguments.
            assert_eq!(tokens[..], all[..tokens.len()], "{}: {end}", dialect.name);
            let finished = tokens.iter().any(|token| token.finish.is_some());
            assert_eq!(finished, tokens.len() > finish, "{}: {end}", dialect.name);
        }
    }
}

#[test]
fn fields_of_unexpected_types_are_read_as_absent() {
    let odd = [
        "null",
        "true",
        "7",
        "-7.5",
        "\"odd\"",
        "[]",
        "[null,1,\"x\",{}]",
        "{}",
        r#"{"a":[{}]}"#,
    ];
    for dialect in DIALECTS {
        for payload in payloads(dialect) {
            // Each value of the payload in turn, by its key.
            for (at, _) in payload.match_indices("\":") {
                let rest = serde_json::Deserializer::from_str(&payload[at + 2..]);
                let mut values = rest.into_iter::<serde::de::IgnoredAny>();
                values.next().unwrap().unwrap();
                let end = at + 2 + values.byte_offset();
                for value in odd {
                    let odd = format!("{}{value}{}", &payload[..at + 2], &payload[end..]);
                    let (_, error) = dialect.decode(sse(&[&odd]));
                    let name = &payload[..at];
                    let typed = name.ends_with("\"error") || name.ends_with("\"type");
                    assert!(error.is_none() || typed, "{odd}: {error:?}");
                }
            }
        }
    }
}

#[test]
fn garbage_is_typed_and_not_quoted() {
    for dialect in DIALECTS {
        for garbage in [
            "canary",
            "[\"canary\"]",
            "12",
            "<html>canary",
            "{\"type\": canary}",
            "{\"canary\":1}}",
        ] {
            let (_, error) = dialect.decode(sse(&[garbage]));
            let error = error.unwrap();
            assert!(
                matches!(error, ProviderError::Json(_)),
                "{garbage}: {error:?}"
            );
            assert!(
                !format!("{error} {error:?}").contains("canary"),
                "{error:?}"
            );
        }
        let (_, error) = dialect.decode(b"data: {\"a\":\"\xF0\x9F\"}\n\n");
        assert!(matches!(error, Some(ProviderError::Utf8(_))), "{error:?}");
    }
}

#[test]
fn an_error_in_the_stream_is_the_last_item() {
    for dialect in DIALECTS {
        let payloads = payloads(dialect);
        for count in 0..payloads.len() - 1 {
            let mut with_error = payloads[..count].to_vec();
            with_error.push(ERROR);
            let (_, error) = dialect.failed(&with_error);
            assert_eq!(error.status(), Some(503), "{}", dialect.name);
            assert_eq!(error.error_type(), Some("overloaded_error"));
        }
    }
}

#[test]
fn an_endless_event_reads_no_more_than_the_limit() {
    fn check<S>(dialect: &str, decoder: Decoder<S>, read: &Cell<usize>)
    where
        S: futures_util::Stream<Item = Result<Vec<u8>, Infallible>>,
    {
        let decoder = decoder.max_event_bytes(100_000);
        let items: Vec<_> = decoder.collect().now_or_never().unwrap();
        let [Err(error @ ProviderError::EventTooLarge(_))] = &items[..] else {
            panic!("{dialect}: {items:?}");
        };
        assert_eq!(
            error.failure(),
            l0_core::Failure::fatal().detail("the response is too large")
        );
        assert_eq!(read.get(), 101_000);
    }
    for dialect in DIALECTS {
        let read = Cell::new(0_usize);
        let body = stream::repeat_with(|| {
            read.set(read.get() + 1000);
            Ok::<_, Infallible>(vec![b'x'; 1000])
        });
        match dialect.name {
            "openai-chat" => check(dialect.name, l0_providers::openai::decode(body), &read),
            "openai-responses" => {
                check(
                    dialect.name,
                    l0_providers::openai::responses::decode(body),
                    &read,
                );
            }
            "anthropic" => check(dialect.name, l0_providers::anthropic::decode(body), &read),
            _ => check(dialect.name, l0_providers::gemini::decode(body), &read),
        }
    }
}

#[test]
fn endless_repetition_does_not_grow_the_state() {
    // More calls, blocks and choices than are distinguished, each with a different name.
    let count = 2000;
    for (dialect, payload) in [
        (
            CHAT,
            r#"{"choices":[{"index":N,"delta":{"tool_calls":[{"index":N,"id":"N","function":{"name":"f"}}]}}]}"#,
        ),
        (
            RESPONSES,
            r#"{"type":"response.output_item.added","output_index":N,"item":{"type":"function_call","call_id":"N","name":"f"}}"#,
        ),
        (
            ANTHROPIC,
            r#"{"type":"content_block_start","index":N,"content_block":{"type":"tool_use","id":"N","name":"f","input":{}}}"#,
        ),
        (
            GEMINI,
            r#"{"candidates":[{"index":N,"content":{"parts":[{"functionCall":{"name":"f"}}]}}]}"#,
        ),
    ] {
        let payloads: Vec<_> = (0..count)
            .map(|n| payload.replace('N', &n.to_string()))
            .collect();
        let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
        let body = sse(&payloads);
        let one = sse(&payloads[..1]);
        let state = |body: &str| allocation_counter::measure(|| drop(dialect.decode(body)));
        let (all, first) = (state(&body), state(&one));
        // The tokens that the test itself collects, and the bounded state.
        let tokens = count as u64 * 700;
        assert!(
            all.bytes_max < first.bytes_max + tokens + 200_000,
            "{}: {all:?}",
            dialect.name
        );
        let (tokens, error) = dialect.decode(&body);
        assert!(
            error.is_none() && tokens.len() + 1 >= count as usize,
            "{}",
            dialect.name
        );
    }
}

#[test]
fn one_event_takes_a_small_multiple_of_its_size() {
    let shapes = [
        r#"{"choices":[X]}"#,
        r#"{"choices":[{"delta":{"content":[X],"reasoning":[X]}}]}"#,
        r#"{"choices":[{"delta":{"content":[{"type":"thinking","thinking":[X]}]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[X]}}]}"#,
        r#"{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":[X]}}]}}]}"#,
        r#"{"type":"response.output_item.done","item":{"type":"function_call","arguments":[X]}}"#,
        r#"{"type":"response.completed","response":{"output":[X],"error":[X]}}"#,
        r#"{"type":"content_block_start","content_block":{"type":"tool_use","input":{"x":[X]}}}"#,
        r#"{"type":"message_start","message":{"content":[X]}}"#,
        r#"{"candidates":[X]}"#,
        r#"{"candidates":[{"content":{"parts":[X]}}]}"#,
        r#"{"candidates":[{"content":{"parts":[{"functionCall":{"args":[X]}}]}}]}"#,
        r#"{"error":[X]}"#,
        r#"{"error":{"message":"m","details":[X]}}"#,
        r#"{"type":"error","x":[X]}"#,
    ];
    let items = [
        "{}",
        "[]",
        "[[]]",
        "1",
        "\"\"",
        r#"{"text":"a"}"#,
        r#"{"delta":{}}"#,
    ];
    for dialect in DIALECTS {
        for (shape, item) in shapes
            .iter()
            .flat_map(|shape| items.map(|item| (shape, item)))
        {
            let many = vec![item; 50_000 / item.len()].join(",");
            let body = sse(&[&shape.replace('X', &many)]);
            let taken = allocation_counter::measure(|| drop(dialect.decode(&body)));
            // The body, which the test copies, its event, and the part that is kept of it.
            let allowed = 5 * body.len() as u64 + 256 * 1024;
            let name = dialect.name;
            assert!(
                taken.bytes_max < allowed,
                "{name}: {shape} {item}: {taken:?}"
            );
        }
    }
}

fn dialect() -> impl Strategy<Value = Dialect> {
    select(DIALECTS.as_slice())
}

const ODD: [&str; 5] = [ERROR, "[DONE]", "garbage", "{\n\n}", "{}"];
const ENDS: [&str; 3] = ["\n", "\r\n", "\r"];
const OTHER: [&[u8]; 4] = [
    b": comment\n\n",
    b"event: error\n",
    b"data: \xF0\x9F\n\n",
    b"\xEF\xBB\xBF",
];

/// Events of any dialect in any order, valid and invalid.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let all = DIALECTS.iter().flat_map(|dialect| payloads(*dialect));
    let all: Vec<String> = all.map(|payload| (*payload).to_owned()).collect();
    let payload = prop_oneof![
        12 => select(all),
        1 => select(ODD.as_slice()).prop_map(str::to_owned),
    ];
    let end = select(ENDS.as_slice());
    let event = (payload, end).prop_map(|(payload, end)| {
        let data = payload.replace('\n', &format!("{end}data:"));
        format!("data: {data}{end}{end}").into_bytes()
    });
    let other = select(OTHER.as_slice());
    let piece = prop_oneof![12 => event, 1 => other.prop_map(<[u8]>::to_vec)];
    prop::collection::vec(piece, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_gives_the_same_tokens(
        dialect in dialect(),
        pieces in pieces(),
        places in prop::collection::vec(any::<usize>(), 0..12),
        limit in prop::option::of(64_usize..600),
        end in any::<usize>(),
    ) {
        let body = pieces.concat();
        let body = &body[..body.len() - end % (body.len() + 1) / 4];
        let whole = dialect.limited([body.to_vec()], limit);
        let split = dialect.limited(cut_at(body, &places), limit);
        prop_assert!(same(&whole, &split), "{whole:?}\n{split:?}");
        let bytes = dialect.limited(by_bytes(body), limit);
        prop_assert!(same(&whole, &bytes), "{whole:?}\n{bytes:?}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        dialect in dialect(),
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
    ) {
        let whole = dialect.decode(chunks.concat());
        prop_assert!(same(&whole, &dialect.chunks(chunks)));
    }

    /// Any byte in any place of a response is read or leads to a typed error.
    #[test]
    fn mutated_responses_never_panic(
        dialect in dialect(),
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = body(dialect).into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let whole = dialect.decode(&body);
        prop_assert!(same(&whole, &dialect.chunks(by_bytes(&body))));
    }
}
