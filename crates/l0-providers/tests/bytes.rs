//! Payloads that are almost JSON, and bodies without an end.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use common::*;
use futures_util::{Stream, StreamExt, stream};
use l0_core::{TokenKind, Usage};
use l0_providers::ProviderError;

/// Payloads with these pieces of JSON text, and the payload that ends the answer.
fn answer(dialect: Dialect, texts: &[&str]) -> Vec<String> {
    let payload = |text: &&str| match dialect.name {
        "openai-chat" => delta(&format!(r#"{{"content":"{text}"}}"#)),
        "openai-responses" => {
            format!(r#"{{"type":"response.output_text.delta","delta":"{text}"}}"#)
        }
        "anthropic" => format!(
            r#"{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{text}"}}}}"#
        ),
        _ => format!(r#"{{"candidates":[{{"content":{{"parts":[{{"text":"{text}"}}]}}}}]}}"#),
    };
    let last = match dialect.name {
        "openai-chat" => choice(r#"{"index":0,"delta":{},"finish_reason":"stop"}"#),
        "openai-responses" => {
            r#"{"type":"response.completed","response":{"status":"completed"}}"#.to_owned()
        }
        "anthropic" => r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"}}"#.to_owned(),
        _ => r#"{"candidates":[{"finishReason":"STOP"}]}"#.to_owned(),
    };
    texts.iter().map(payload).chain([last]).collect()
}

#[test]
fn half_characters_are_joined_and_a_lone_half_is_replaced() {
    for dialect in DIALECTS {
        for (texts, expected) in [
            (&[r"Hi \ud83d", r"\ude00!"][..], "Hi 😀!"),
            (&[r"\uD83D", r"\uDE00"], "😀"),
            (&[r"a\ud83d\ude00b"], "a😀b"),
            (&[r"\\ud83d"], "\\ud83d"),
            (&[r"a\ud83d", "b"], "a\u{FFFD}b"),
            (&[r"a\ud83db"], "a\u{FFFD}b"),
            (&["a", r"\ude00b"], "a\u{FFFD}b"),
            (&[r"a\ud83d\ud83d", r"\ude00"], "a\u{FFFD}😀"),
            (&[r"a\ud83d"], "a\u{FFFD}"),
            (&[r"\ud83d", "", r"\ude00"], "😀"),
        ] {
            let payloads = answer(dialect, texts);
            let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
            let body = sse(&payloads);
            let (tokens, error) = dialect.decode(&body);
            let name = dialect.name;
            assert!(error.is_none(), "{name} {texts:?}: {error:?}");
            assert_eq!(text_of(&tokens), expected, "{name} {texts:?}");
            assert!(tokens.last().unwrap().finish.is_some(), "{name}");
            let bytes = dialect.chunks(by_bytes(body.as_bytes()));
            assert!(same(&bytes, &(tokens, error)), "{name}");
            // The text is the same without the last payload.
            let (tokens, _) = dialect.decode(sse(&payloads[..texts.len()]));
            assert_eq!(text_of(&tokens), expected, "{name} {texts:?}: cut");
        }
    }
}

#[test]
fn halves_in_every_field_are_read() {
    let (tokens, error) = CHAT.decode(sse(&[
        r#"{"id":"\ud83d","model":"m\ude00","x":"\ud83d","choices":[{"delta":{"reasoning":"r\ud83d","tool_calls":[{"index":0,"id":"\ud83d","function":{"name":"f\ud83d","arguments":"{"}}]},"finish_reason":null}]}"#,
        r#"{"choices":[{"delta":{"reasoning":"\ude00"},"finish_reason":"\ud83d"}]}"#,
    ]));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(tokens[0].response_id.as_deref(), Some("\u{FFFD}"));
    assert_eq!(tokens[0].model.as_deref(), Some("m\u{FFFD}"));
    let reasoning = tokens
        .iter()
        .filter(|token| token.kind == TokenKind::Reasoning);
    assert_eq!(
        reasoning.map(|token| &token.text[..]).collect::<String>(),
        "r😀"
    );
    let expected = [(0, Some("\u{FFFD}"), Some("f\u{FFFD}"), "{")];
    assert_eq!(calls(&tokens), expected);
    for dialect in DIALECTS {
        let (_, error) = dialect
            .failed(&[r#"{"type":"error","error":{"type":"server_error","message":"a\ud83d"}}"#]);
        assert_eq!(error.message(), Some("a\u{FFFD}"));
    }
}

#[test]
fn nan_and_infinity_do_not_break_an_answer() {
    for dialect in DIALECTS {
        let payloads = answer(dialect, &["NaN, \\\"-Infinity\\\""]);
        let odd: Vec<_> = payloads
            .iter()
            .map(|payload| {
                let rest = payload.strip_prefix('{').unwrap();
                format!(r#"{{"x":NaN,"y":[-Infinity,Infinity],"usage":{{"z":NaN}},{rest}"#)
            })
            .collect();
        let odd: Vec<_> = odd.iter().map(String::as_str).collect();
        let tokens = dialect.tokens(&odd);
        assert_eq!(text_of(&tokens), "NaN, \"-Infinity\"", "{}", dialect.name);
        assert!(tokens.last().unwrap().finish.is_some());
    }
}

#[test]
fn a_number_above_all_floats_does_not_break_an_answer() {
    let digits = "9".repeat(400);
    for number in ["1e400", "-1E+999", &digits] {
        let chat = format!(
            r#"{{"choices":[{{"delta":{{"content":"1e400"}},"finish_reason":"stop"}}],
            "usage":{{"prompt_tokens":{number},"completion_tokens":2}}}}"#
        );
        let gemini = format!(
            r#"{{"candidates":[{{"content":{{"parts":[{{"text":"1e400"}}]}},"finishReason":"STOP"}}],
            "usageMetadata":{{"promptTokenCount":{number},"candidatesTokenCount":2}}}}"#
        );
        for (dialect, payload) in [(CHAT, chat), (GEMINI, gemini)] {
            let (tokens, error) =
                dialect.decode(format!("data: {}\n\n", payload.replace('\n', "")));
            assert!(error.is_none(), "{}: {error:?}", dialect.name);
            assert_eq!(text_of(&tokens), "1e400");
            let usage = tokens.last().and_then(|token| token.usage);
            assert_eq!(usage, Some(Usage::new().output(2)), "{number}");
        }
    }
}

/// Counts its wakeups.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_source_without_end_or_token_yields() {
    for dialect in DIALECTS {
        for filler in [
            "",
            "\n",
            ": comment\n",
            ": comment\n\n",
            "event: ping\ndata: {}\n\n",
            "data: {}\n\n",
            "id: 1\n\n",
        ] {
            for repeat in [1, 40] {
                let reads = Arc::new(AtomicUsize::new(0));
                let counter = reads.clone();
                let chunk = filler.repeat(repeat).into_bytes();
                let body = stream::repeat_with(move || {
                    counter.fetch_add(1, Ordering::Relaxed);
                    Ok::<_, Infallible>(chunk.clone())
                });
                let mut decoder = (dialect.decoder)(body.boxed());
                let woken = Arc::new(Woken::default());
                let waker = Waker::from(woken.clone());
                let mut context = Context::from_waker(&waker);
                for polls in 1..10 {
                    let poll = decoder.poll_next_unpin(&mut context);
                    let name = dialect.name;
                    assert!(poll.is_pending(), "{name} {filler:?}: {poll:?}");
                    assert_eq!(woken.0.load(Ordering::Relaxed), polls, "{name} {filler:?}");
                    let reads = reads.load(Ordering::Relaxed);
                    assert!(reads <= polls * 130, "{name} {filler:?}: {reads} reads");
                }
            }
        }
    }
}

#[test]
fn tokens_arrive_with_any_amount_of_filler_between_them() {
    for dialect in DIALECTS {
        let payloads = answer(dialect, &["a", "b"]);
        let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
        let body = sse(&payloads).replace("\n\n", &format!("\n\n{}", ": comment\n\n".repeat(1000)));
        let (tokens, error) = dialect.decode(&body);
        assert!(error.is_none(), "{}: {error:?}", dialect.name);
        assert_eq!(text_of(&tokens), "ab", "{}", dialect.name);
        let bytes = dialect.chunks(by_bytes(body.as_bytes()));
        assert!(same(&bytes, &(tokens, error)), "{}", dialect.name);
    }
}

/// Tokens of a stream that is always ready are yielded without a pause.
#[test]
fn tokens_that_are_ready_never_yield() {
    for dialect in DIALECTS {
        let payloads = answer(dialect, &["a"; 1000]);
        let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
        let chunks: Vec<_> = payloads.iter().map(|payload| sse(&[payload])).collect();
        let chunks = stream::iter(chunks.into_iter().map(|chunk| Ok(chunk.into_bytes())));
        let mut decoder = (dialect.decoder)(chunks.boxed());
        let mut context = Context::from_waker(Waker::noop());
        let mut count = 0;
        while let Poll::Ready(Some(_)) = decoder.poll_next_unpin(&mut context) {
            count += 1;
        }
        assert!(decoder.size_hint().1 == Some(0), "{}", dialect.name);
        assert!(count >= 1000, "{}: {count}", dialect.name);
    }
}

/// How a body begins identifies its protocol, however the body is split.
#[test]
fn a_body_that_is_not_an_event_stream_is_named_however_it_is_split() {
    let long = format!("{{\"x\":\"{}\"}}\n{{}}", "y".repeat(70_000));
    for (body, content_type) in [
        ("{\"a\":1}\n{\"a\":2}\n", "application/x-ndjson"),
        (" \r\n{\"a\":1}\r\n{", "application/x-ndjson"),
        ("\u{feff}{\"a\":1}", "application/json"),
        ("{\n\"a\":\n1}\n", "application/json"),
        ("[{\n\"candidates\":[]}\n,\n{", "application/json"),
        (&long, "application/x-ndjson"),
        ("<!doctype html>", "text/html"),
        (
            "\0\0\0\u{7c}\0\0\0\u{4b}abcd\u{b}:event-type",
            "application/vnd.amazon.eventstream",
        ),
        ("\0\0\0", "application/octet-stream"),
    ] {
        for dialect in DIALECTS {
            let (tokens, error) = dialect.decode(body);
            assert!(tokens.is_empty());
            let Some(ProviderError::NotAnAnswer(not)) = &error else {
                panic!("{}: {body:.20}: {error:?}", dialect.name);
            };
            assert_eq!(not.content_type, content_type, "{body:.20}");
            let bytes = dialect.chunks(by_bytes(body.as_bytes()));
            assert!(same(&bytes, &(tokens, error)), "{body:.20}");
        }
    }
}

#[test]
fn a_truncated_object_is_not_an_answer_however_it_is_split() {
    let whole = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    for at in 1..whole.len() {
        for dialect in DIALECTS {
            let cut = &whole[..at];
            let (tokens, error) = dialect.decode(cut);
            assert!(tokens.is_empty());
            let Some(ProviderError::Json(json)) = &error else {
                panic!("{}: {cut}: {error:?}", dialect.name);
            };
            assert_eq!(json.problem, "it ends too early");
            let bytes = dialect.chunks(by_bytes(cut.as_bytes()));
            assert!(same(&bytes, &(tokens, error)), "{cut}");
        }
    }
}

#[test]
fn an_object_has_the_size_limit_of_an_event() {
    let whole = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    for cut in [whole.len(), 1, 7] {
        let chunks = || whole.as_bytes().chunks(cut).map(<[u8]>::to_vec);
        let (tokens, error) = CHAT.limited(chunks(), Some(whole.len()));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(text_of(&tokens), "hi");
        let (_, error) = CHAT.limited(chunks(), Some(whole.len() - 1));
        assert!(
            matches!(error, Some(ProviderError::EventTooLarge(_))),
            "{error:?}"
        );
    }
}

#[test]
fn an_object_is_awaited_unless_it_is_an_error() {
    let answer = r#"{"choices":[{"message":{"content":"hi"},"finish_reason":"stop"}]}"#;
    let error = r#"{"error":{"message":"m","type":"overloaded_error"}}"#;
    for end in ["", "\n"] {
        for dialect in DIALECTS {
            let first = |body: &str| {
                let body = format!("{body}{end}").into_bytes();
                let body = stream::iter([Ok(body)]).chain(stream::pending());
                let mut decoder = (dialect.decoder)(body.boxed());
                decoder.poll_next_unpin(&mut Context::from_waker(Waker::noop()))
            };
            let name = dialect.name;
            // More objects may follow, which would make it lines of JSON.
            assert!(first(answer).is_pending(), "{name}");
            assert!(first(&error[..error.len() - 1]).is_pending(), "{name}");
            let Poll::Ready(Some(Err(ProviderError::Api(_)))) = first(error) else {
                panic!("{name}");
            };
        }
    }
}
