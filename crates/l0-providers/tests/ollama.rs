//! Ollama's own API: lines of JSON.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::cell::Cell;
use std::convert::Infallible;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake};

use common::*;
use futures_util::{FutureExt, StreamExt, stream};
use l0_core::{Failure, FailureKind, FinishReason, TokenKind, Usage};
use l0_providers::{ApiError, ProviderError, ollama};
use proptest::prelude::*;
use proptest::sample::{Index, select};

/// Synthetic, in the form of `/api/chat`: thinking, text, an image, calls, counts.
const CHAT_LINES: [&str; 6] = [
    r#"{"model":"m","created_at":"2026-01-01T00:00:00.1Z","message":{"role":"assistant","content":"","thinking":"r"},"done":false}"#,
    r#"{"model":"m","created_at":"2026-01-01T00:00:00.2Z","message":{"role":"assistant","content":"a🦀\n"},"done":false,"logprobs":[{"token":"a"}]}"#,
    r#"{"model":"m","message":{"role":"assistant","content":"b","images":["aGk="]},"done":false}"#,
    r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_1","function":{"index":0,"name":"f","arguments":{"x": [1, "}"]}}},{"function":{"name":"g","arguments":{}}}]},"done":false}"#,
    r#"{"model":"m","message":{"role":"assistant","content":"","tool_calls":[{"id":"call_3","function":{"index":0,"name":"h","arguments":{"y":1}}}]},"done":false}"#,
    r#"{"model":"m","message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","total_duration":7,"load_duration":1,"prompt_eval_count":3,"prompt_eval_duration":2,"eval_count":4,"eval_duration":3}"#,
];

/// Synthetic, in the form of `/api/generate`.
const GENERATE_LINES: [&str; 4] = [
    r#"{"model":"m","created_at":"2026-01-01T00:00:00Z","response":"","thinking":"r","done":false}"#,
    r#"{"model":"m","response":"a🦀","done":false}"#,
    r#"{"model":"m","response":"b","done":false}"#,
    r#"{"model":"m","response":"","done":true,"done_reason":"length","context":[1,2,3],"prompt_eval_count":3,"eval_count":4}"#,
];

fn lines(lines: &[&str]) -> String {
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// The tokens of lines, and the provider's error after them.
#[track_caller]
fn failed(body: &[&str]) -> (String, ApiError) {
    match OLLAMA.decode(lines(body)) {
        (tokens, Some(ProviderError::Api(error))) => (text_of(&tokens), *error),
        other => panic!("no API error: {other:?}"),
    }
}

#[test]
fn a_chat_yields_all_of_its_content() {
    let (tokens, error) = OLLAMA.decode(lines(&CHAT_LINES));
    assert!(error.is_none(), "{error:?}");
    use TokenKind::{Media, Other, Reasoning, Text, ToolCall};
    let expected = [
        (Reasoning, "r"),
        (Text, "a🦀\n"),
        (Text, "b"),
        (Media, ""),
        (ToolCall, r#"{"x": [1, "}"]}"#),
        (ToolCall, "{}"),
        (ToolCall, r#"{"y":1}"#),
        (Other, ""),
    ];
    assert_eq!(texts(&tokens), expected);
    let expected = [
        (0, Some("call_1"), Some("f"), r#"{"x": [1, "}"]}"#),
        (1, None, Some("g"), "{}"),
        (2, Some("call_3"), Some("h"), r#"{"y":1}"#),
    ];
    assert_eq!(calls(&tokens), expected);
    assert_eq!(
        finishes(&tokens),
        [(Some("stop"), Some(FinishReason::ToolCalls))]
    );
    assert_eq!(tokens[0].model.as_deref(), Some("m"));
    assert!(tokens[1..].iter().all(|token| token.model.is_none()));
    let usage: Vec<_> = tokens.iter().filter_map(|token| token.usage).collect();
    assert_eq!(usage, [Usage::new().input(3).output(4).total(7)]);
}

#[test]
fn a_completion_of_a_prompt_yields_the_same() {
    let (tokens, error) = OLLAMA.decode(lines(&GENERATE_LINES));
    assert!(error.is_none(), "{error:?}");
    use TokenKind::{Other, Reasoning, Text};
    let expected = [(Reasoning, "r"), (Text, "a🦀"), (Text, "b"), (Other, "")];
    assert_eq!(texts(&tokens), expected);
    assert_eq!(
        finishes(&tokens),
        [(Some("length"), Some(FinishReason::Length))]
    );
    let usage = tokens.last().unwrap().usage;
    assert_eq!(usage, Some(Usage::new().input(3).output(4).total(7)));
}

#[test]
fn every_reason_for_the_end_is_read() {
    use FinishReason::{Length, Other, Stop};
    for (end, reason, finish) in [
        (r#""done_reason":"stop""#, Some("stop"), Stop),
        (r#""done_reason":"length""#, Some("length"), Length),
        (r#""done_reason":"load""#, Some("load"), Other),
        (r#""done_reason":"unload""#, Some("unload"), Other),
        (r#""done_reason":"anything""#, Some("anything"), Other),
        // The end that older servers send.
        (r#""done_reason":"""#, None, Other),
        (r#""x":1"#, None, Other),
    ] {
        let last = format!(r#"{{"message":{{"content":"b"}},"done":true,{end}}}"#);
        let (tokens, error) = OLLAMA.decode(lines(&[CHAT_LINES[1], &last]));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(text_of(&tokens), "a🦀\nb");
        assert_eq!(finishes(&tokens), [(reason, Some(finish))], "{end}");
    }
    // A reason without an end is ignored, and so is an end that is not a boolean.
    for last in [
        r#"{"message":{"content":"b"},"done":false,"done_reason":"stop"}"#,
        r#"{"message":{"content":"b"},"done":"true","done_reason":"stop"}"#,
    ] {
        assert_eq!(finishes(&OLLAMA.decode(lines(&[last])).0), [], "{last}");
    }
}

#[test]
fn missing_counts_are_absent() {
    let count = |fields: &str| {
        let last = format!(r#"{{"response":"","done":true{fields}}}"#);
        OLLAMA.decode(lines(&[&last])).0[0].usage
    };
    assert_eq!(count(""), None);
    assert_eq!(count(r#","eval_count":4"#), Some(Usage::new().output(4)));
    assert_eq!(count(r#","eval_count":-1"#), None);
    assert_eq!(
        count(r#","prompt_eval_count":0,"eval_count":4"#),
        Some(Usage::new().input(0).output(4).total(4))
    );
}

#[test]
fn nothing_after_the_last_line_is_read() {
    let after = [GENERATE_LINES[3], GENERATE_LINES[1], "garbage"];
    let (tokens, error) = OLLAMA.decode(lines(&after));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(text_of(&tokens), "");
}

#[test]
fn line_ends_blank_lines_and_cuts_change_nothing() {
    for all in [&CHAT_LINES[..], &GENERATE_LINES[..]] {
        let plain = lines(all);
        let whole = OLLAMA.decode(&plain);
        assert!(whole.1.is_none(), "{whole:?}");
        for form in [
            plain.clone(),
            plain.replace('\n', "\r\n"),
            plain.replace('\n', "\r"),
            plain.replace('\n', "\n\n \n\r\n"),
            format!("\u{feff}{plain}"),
            format!("\n \r\n\u{feff}{plain}"),
            plain.replace(
                "{\"model\"",
                "\t { \"unknown\": {\"done\": true}, \"model\"",
            ),
            plain.trim_end().to_owned(),
        ] {
            let form = form.as_bytes();
            assert!(same(&OLLAMA.decode(form), &whole));
            assert!(same(&OLLAMA.chunks(by_bytes(form)), &whole));
            for place in 0..form.len() {
                let cut = OLLAMA.chunks(cut_at(form, &[place]));
                assert!(same(&cut, &whole), "cut at {place}: {cut:?}");
            }
        }
    }
}

#[test]
fn a_truncated_body_yields_a_prefix_without_a_finish() {
    for all in [&CHAT_LINES[..], &GENERATE_LINES[..]] {
        let body = lines(all);
        let (tokens, _) = OLLAMA.decode(&body);
        let first = all[0].len();
        for end in 0..body.len() {
            let (prefix, error) = OLLAMA.decode(&body.as_bytes()[..end]);
            // A part of the first line does not identify a stream.
            match error {
                None => assert!(end == 0 || end >= first, "{end}"),
                Some(ProviderError::Json(_)) => assert!(end < first, "{end}"),
                Some(error) => panic!("{end}: {error:?}"),
            }
            assert_eq!(prefix[..], tokens[..prefix.len()], "{end}");
            let finished = prefix.iter().any(|token| token.finish.is_some());
            assert_eq!(finished, prefix.len() == tokens.len(), "{end}");
        }
    }
}

#[test]
fn an_error_in_the_stream_is_a_server_failure_unless_its_message_says_otherwise() {
    for (message, kind) in [
        (
            "an error was encountered while running the model",
            FailureKind::Server,
        ),
        ("model runner has unexpectedly stopped", FailureKind::Server),
        ("rate limit exceeded", FailureKind::RateLimited),
        ("you are out of credits", FailureKind::Fatal),
    ] {
        let line = format!(r#"{{"error":"{message}"}}"#);
        for count in 0..CHAT_LINES.len() - 1 {
            let mut all = CHAT_LINES[..count].to_vec();
            all.extend([&*line, CHAT_LINES[1]]);
            let (_, error) = failed(&all);
            assert_eq!(error.failure().kind, kind, "{message}");
            assert_eq!(error.message(), Some(message));
            assert_eq!((error.status(), error.error_type()), (None, None));
        }
    }
    // An error with a type or a status is read by these, as from any gateway.
    for (line, kind) in [
        (
            r#"{"error":{"type":"invalid_request_error","message":"m"}}"#,
            FailureKind::Fatal,
        ),
        (
            r#"{"error":"m","status_code":429}"#,
            FailureKind::RateLimited,
        ),
        (r#"{"error":"m","status_code":404}"#, FailureKind::Fatal),
        (
            r#"{"message":{"content":"b"},"done":true,"done_reason":"error"}"#,
            FailureKind::Server,
        ),
    ] {
        let (_, error) = failed(&[CHAT_LINES[1], line]);
        assert_eq!(error.failure().kind, kind, "{line}");
    }
    let with_error = r#"{"message":{"content":"b"},"done":false,"error":"m"}"#;
    assert_eq!(failed(&[with_error]).0, "b");
}

#[test]
fn an_error_needs_no_line_end_and_no_end_of_the_body() {
    for error in [r#"{"error":"m"}"#, "{\"error\":\"m\"}\n"] {
        let body = stream::iter([Ok::<_, Infallible>(error)]).chain(stream::pending());
        let mut decoder = ollama::decode(body.boxed());
        let item = decoder.next().now_or_never().unwrap().unwrap();
        assert!(matches!(item, Err(ProviderError::Api(_))), "{item:?}");
        assert!(decoder.next().now_or_never().unwrap().is_none());
    }
}

#[test]
fn a_body_that_is_not_an_answer_is_named() {
    for (body, content_type) in [
        ("data: {\"choices\":[]}\n\n", "text/event-stream"),
        (": hi\n\ndata: {}\n\n", "text/event-stream"),
        ("event: message\ndata: {}", "text/event-stream"),
        ("<html><body>Sign in</body></html>", "text/html"),
        ("[{\"done\":true}]", "application/json"),
        ("{\"choices\":[]}", "application/json"),
        ("{\"status\":\"pulling\"}\n{}\n", "application/json"),
        ("{}\n{\"choices\":[]}", "application/json"),
        ("{\"message\":\"hi\",\"response\":{}}", "application/json"),
        ("{\n  \"choices\": []\n}", "application/json"),
        (
            "\0\0\0\u{7c}\0\0\0\u{4b}abcd\u{b}:event-type\u{7}\0\u{5}chunk",
            "application/vnd.amazon.eventstream",
        ),
    ] {
        for (tokens, error) in [
            OLLAMA.decode(body),
            OLLAMA.chunks(by_bytes(body.as_bytes())),
        ] {
            assert!(tokens.is_empty(), "{tokens:?}");
            let Some(ProviderError::NotAnAnswer(not)) = error else {
                panic!("{body}: {error:?}")
            };
            assert_eq!(not.content_type, content_type, "{body}");
        }
    }
}

#[test]
fn a_connection_that_breaks_is_the_transports_error_after_any_start() {
    for first in ["", "{}\n", "{\n", CHAT_LINES[1], "[", "data: x"] {
        let body = stream::iter([
            Ok(first),
            Err(std::io::Error::from(ErrorKind::ConnectionReset)),
        ]);
        let mut items: Vec<_> = now(ollama::decode(body).collect());
        let error = items.pop().unwrap();
        assert!(matches!(error, Err(ProviderError::Transport(_))), "{first}");
    }
}

#[test]
fn a_whole_answer_is_read_on_one_line_or_several() {
    let compact = r#"{"model":"m","message":{"role":"assistant","content":"Hi","thinking":"r"},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":4}"#;
    let value: serde_json::Value = serde_json::from_str(compact).unwrap();
    let pretty = serde_json::to_string_pretty(&value).unwrap();
    let (tokens, _) = OLLAMA.decode(compact);
    assert_eq!(texts(&tokens)[1], (TokenKind::Text, "Hi"));
    for body in [
        pretty.clone(),
        pretty.replace('\n', "\r\n"),
        format!("{pretty}\n"),
        format!("{compact}\n"),
    ] {
        let whole = OLLAMA.decode(&body);
        assert_eq!(whole.0, tokens, "{body}");
        assert!(same(&OLLAMA.chunks(by_bytes(body.as_bytes())), &whole));
        let (_, error) = OLLAMA.decode(&body[..body.trim_end().len() - 9]);
        assert!(matches!(error, Some(ProviderError::Json(_))), "{error:?}");
    }
    // Without `done`, it has no finish.
    let open = pretty.replace("\"done\": true", "\"done\": false");
    assert_eq!(finishes(&OLLAMA.decode(open).0), []);
}

#[test]
fn two_halves_of_a_character_are_joined_across_lines() {
    let text = |text: &str| format!(r#"{{"message":{{"content":"{text}"}},"done":false}}"#);
    let body = [&*text(r"Hi \ud83d"), &*text(r"\ude00!"), CHAT_LINES[5]];
    let (tokens, error) = OLLAMA.decode(lines(&body));
    assert!(error.is_none(), "{error:?}");
    assert_eq!(text_of(&tokens), "Hi 😀!");
}

#[test]
fn fields_of_unexpected_types_are_read_as_absent() {
    for payload in CHAT_LINES.iter().chain(&GENERATE_LINES) {
        for (at, _) in payload.match_indices("\":") {
            let rest = serde_json::Deserializer::from_str(&payload[at + 2..]);
            let mut values = rest.into_iter::<serde::de::IgnoredAny>();
            values.next().unwrap().unwrap();
            let end = at + 2 + values.byte_offset();
            for value in [
                "null",
                "true",
                "7",
                "-7.5",
                "\"odd\"",
                "[]",
                "[null,1,\"x\",{}]",
                "{}",
            ] {
                let odd = format!("{}{value}{}", &payload[..at + 2], &payload[end..]);
                let (_, error) = OLLAMA.decode(lines(&[CHAT_LINES[0], &odd]));
                assert!(error.is_none(), "{odd}: {error:?}");
            }
        }
    }
}

#[test]
fn garbage_is_typed_and_not_quoted() {
    for garbage in [
        "canary",
        "[\"canary\"]",
        "12",
        "{\"a\": canary}",
        "{\"canary\":1}}",
    ] {
        let (tokens, error) = OLLAMA.decode(lines(&[CHAT_LINES[1], garbage, CHAT_LINES[5]]));
        assert_eq!(text_of(&tokens), "a🦀\n");
        let error = error.unwrap();
        assert!(matches!(error, ProviderError::Json(_)), "{error:?}");
        assert!(
            !format!("{error} {error:?}").contains("canary"),
            "{error:?}"
        );
    }
    let (_, error) = OLLAMA.decode(b"{}\n{\"a\":\"\xF0\x9F\"}\n{}\n");
    assert!(matches!(error, Some(ProviderError::Utf8(_))), "{error:?}");
    // A last line that is cut inside a character is handled like any other cut line.
    let mut cut = lines(&CHAT_LINES[..1]).into_bytes();
    cut.extend(b"{\"message\":{\"content\":\"\xF0\x9F");
    let (tokens, error) = OLLAMA.decode(cut);
    assert!(error.is_none() && tokens.len() == 1, "{error:?}");
}

#[test]
fn a_large_line_is_an_error_however_it_is_split() {
    let limit = CHAT_LINES[..5].iter().map(|line| line.len()).max().unwrap();
    let large = CHAT_LINES[1].replace("🦀", &"x".repeat(limit));
    for end in ["\n", "\r\n", "\r"] {
        let body = [CHAT_LINES[1], &*large, CHAT_LINES[1]].join(end);
        let body = body.as_bytes();
        for place in 0..=body.len() {
            let (tokens, error) = OLLAMA.limited(cut_at(body, &[place]), Some(limit));
            assert_eq!(text_of(&tokens), "a🦀\n", "{place}");
            let Some(ProviderError::EventTooLarge(error)) = error else {
                panic!("{place}: {error:?}")
            };
            assert_eq!(error.limit, limit);
        }
        // The limit applies to a line, not to the body.
        let body = lines(&[CHAT_LINES[1]; 100]).replace('\n', end);
        let (tokens, error) = OLLAMA.limited([body.into_bytes()], Some(limit));
        assert!(error.is_none() && tokens.len() == 100, "{error:?}");
    }
}

#[test]
fn an_endless_line_reads_no_more_than_the_limit() {
    for first in ["", "{\n", "{\"done\":false}\n"] {
        let read = Cell::new(0_usize);
        let endless = stream::repeat_with(|| {
            read.set(read.get() + 1000);
            Ok::<_, Infallible>(vec![b'x'; 1000])
        });
        let body = stream::iter([Ok(first.as_bytes().to_vec())]).chain(endless);
        let decoder = ollama::decode(body).max_event_bytes(100_000);
        let items: Vec<_> = decoder.collect().now_or_never().unwrap();
        let [Err(error @ ProviderError::EventTooLarge(_))] = &items[..] else {
            panic!("{items:?}");
        };
        assert_eq!(
            error.failure(),
            Failure::fatal().detail("the response is too large")
        );
        assert!(read.get() <= 101_000, "{}", read.get());
    }
}

#[test]
fn endless_repetition_does_not_grow_the_state() {
    let call = r#"{"message":{"content":"","tool_calls":[{"id":"i","function":{"name":"f","arguments":{}}}]},"done":false}"#;
    let all = lines(&vec![call; 2000]);
    let peak = |body: &str| allocation_counter::measure(|| drop(OLLAMA.decode(body))).bytes_max;
    let (all, one) = (peak(&all), peak(&lines(&[call])));
    // The tokens that the test itself collects, and the body.
    assert!(all < one + 2000 * 700 + 200_000, "{all} {one}");
}

#[test]
fn one_line_takes_a_small_multiple_of_its_size() {
    for shape in [
        r#"{"message":{"tool_calls":[X]}}"#,
        r#"{"message":{"tool_calls":[{"function":{"arguments":[X]}}]}}"#,
        r#"{"message":{"thinking":[X],"images":[X]}}"#,
        r#"{"context":[X],"done":true}"#,
        r#"{"error":[X]}"#,
    ] {
        for item in ["{}", "[]", "[[]]", "1", "\"\"", r#"{"function":{}}"#] {
            let many = vec![item; 50_000 / item.len()].join(",");
            let body = lines(&[&shape.replace('X', &many)]);
            let taken = allocation_counter::measure(|| drop(OLLAMA.decode(&body)));
            let allowed = 5 * body.len() as u64 + 256 * 1024;
            assert!(taken.bytes_max < allowed, "{shape} {item}: {taken:?}");
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
fn lines_without_content_let_other_tasks_run() {
    for filler in ["\n", "{}\n", "{\"done\":false}\n", " ", ""] {
        let mut decoder = ollama::decode(stream::repeat(Ok::<_, Infallible>(filler)));
        let woken = Arc::new(Woken::default());
        let waker = Arc::clone(&woken).into();
        let mut context = Context::from_waker(&waker);
        for count in 1..4 {
            let poll = decoder.poll_next_unpin(&mut context);
            assert!(matches!(poll, Poll::Pending), "{filler:?}: {poll:?}");
            assert_eq!(woken.0.load(Ordering::Relaxed), count, "{filler:?}");
        }
    }
}

/// Lines in any order, valid and invalid.
fn pieces() -> impl Strategy<Value = Vec<Vec<u8>>> {
    const ODD: [&str; 8] = [
        r#"{"error":"m"}"#,
        "[DONE]",
        "garbage",
        "{\n\n}",
        "{}",
        "",
        "{\"choices\":[]}",
        "data: x",
    ];
    const OTHER: [&[u8]; 4] = [b"\xF0\x9F\n", b"\xEF\xBB\xBF", b" \t", b"\0"];
    let all = CHAT_LINES.iter().chain(&GENERATE_LINES);
    let all: Vec<_> = all.map(|line| (*line).to_owned()).collect();
    let line = prop_oneof![
        12 => select(all),
        2 => select(ODD.as_slice()).prop_map(str::to_owned),
    ];
    let end = select(["\n", "\r\n", "\r", "\n\n"].as_slice());
    let line = (line, end).prop_map(|(line, end)| format!("{line}{end}").into_bytes());
    let other = select(OTHER.as_slice());
    let piece = prop_oneof![12 => line, 1 => other.prop_map(<[u8]>::to_vec)];
    prop::collection::vec(piece, 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_split_of_any_prefix_gives_the_same_tokens(
        pieces in pieces(),
        places in prop::collection::vec(any::<usize>(), 0..12),
        limit in prop::option::of(16_usize..600),
        end in any::<usize>(),
    ) {
        let body = pieces.concat();
        let body = &body[..body.len() - end % (body.len() + 1)];
        let whole = OLLAMA.limited([body.to_vec()], limit);
        let split = OLLAMA.limited(cut_at(body, &places), limit);
        prop_assert!(same(&whole, &split), "{whole:?}\n{split:?}");
        let bytes = OLLAMA.limited(by_bytes(body), limit);
        prop_assert!(same(&whole, &bytes), "{whole:?}\n{bytes:?}");
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..64), 0..8),
    ) {
        let whole = OLLAMA.decode(chunks.concat());
        prop_assert!(same(&whole, &OLLAMA.chunks(chunks)));
    }

    #[test]
    fn mutated_responses_never_panic(
        changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut body = lines(&CHAT_LINES).into_bytes();
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        let whole = OLLAMA.decode(&body);
        prop_assert!(same(&whole, &OLLAMA.chunks(by_bytes(&body))));
    }
}
