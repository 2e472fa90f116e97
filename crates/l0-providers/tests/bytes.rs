//! Payloads that are almost JSON, and bodies without an end.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use common::*;
use l0_core::TokenKind;

/// Payloads with these pieces of JSON text, and the one that ends the answer.
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
fn half_characters_join_and_a_half_alone_is_replaced() {
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
            // Without the last payload: the text is the same.
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
        assert_eq!(error.message.as_deref(), Some("a\u{FFFD}"));
    }
}

#[test]
fn numbers_that_are_none_cost_no_answer() {
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
