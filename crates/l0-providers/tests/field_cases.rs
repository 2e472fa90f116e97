//! Problems that users reported from production streams: each kind, in every dialect in which it can occur, from the
//! bytes to what a run reports.
//!
//! Run with `--nocapture` to print the table. If `L0_FIELD_CASES` is set, cases in the files of that folder are read
//! too.
#![cfg(feature = "reqwest")]
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::convert::Infallible;
use std::error::Error as StdError;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use common::server::{APIS, Api, answer, server};
use common::*;
use futures_util::{Stream, StreamExt, stream};
use l0_core::{Attempt, Backoff, Chunk, Error, L0, Monitoring, Retry, Timeouts, Token, TokenKind};
use l0_providers::{ProviderError, ProviderToken};
use tokio::time::Instant;

/// Summarizes a run on one line: outcome, calls, text, tokens, finish reason, the provider's counts (input with cache
/// reads and writes in parentheses, output with reasoning in parentheses, and total), and the failure.
async fn value<S, E, F>(timeouts: Timeouts, mut connect: impl FnMut(Attempt) -> F + Send) -> String
where
    S: Stream<Item = Result<ProviderToken, ProviderError<E>>> + Send,
    F: Future<Output = Result<S, ProviderError<E>>> + Send,
    E: StdError + Send + Sync + 'static,
{
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(
            Retry::new()
                .model_retries(1)
                .max_retries(1)
                .backoff(Backoff::none()),
        )
        .timeouts(timeouts)
        .build();
    let calls = Arc::new(AtomicUsize::new(0));
    let counter = calls.clone();
    let mut run = l0
        .stream(move |attempt| {
            counter.fetch_add(1, Ordering::Relaxed);
            connect(attempt)
        })
        .start();
    let (mut text, mut failure) = (String::new(), None);
    while let Some(chunk) = run.next().await {
        match chunk {
            Ok(Chunk::Item(token)) if token.kind == TokenKind::Text => text.push_str(&token.text),
            Ok(Chunk::Restart { .. }) => text.clear(),
            Err(Error::Source { source, .. }) => {
                let kind = source.failure().kind;
                failure = Some(match &source {
                    ProviderError::NotAnAnswer(not) => {
                        format!("{} ({kind:?})", not.content_type)
                    }
                    ProviderError::Transport(_) => "transport".to_owned(),
                    _ => format!("{kind:?}"),
                });
            }
            _ => {}
        }
    }
    let telemetry = serde_json::to_value(run.telemetry().unwrap()).unwrap();
    let usage = &telemetry["usage"];
    let count = |name: &str| {
        usage[name]
            .as_u64()
            .map_or("-".to_owned(), |n| n.to_string())
    };
    let mut summary = vec![
        telemetry["outcome"].as_str().unwrap_or_default().to_owned(),
        format!("{} calls", calls.load(Ordering::Relaxed)),
        format!("{text:?}"),
        format!("{} tokens", telemetry["metrics"]["totalTokens"]),
    ];
    summary.extend(telemetry["finishReason"].as_str().map(str::to_owned));
    if usage.is_object() {
        let [input, cached, written] = ["input", "cachedInput", "cacheWriteInput"].map(count);
        let [output, reasoning, total] = ["output", "reasoning", "total"].map(count);
        summary.push(format!(
            "{input} ({cached}, {written}) + {output} ({reasoning}) = {total}"
        ));
    }
    summary.extend(failure);
    summary.join(", ")
}

/// The summary of a run whose attempts all have this body.
async fn of_body(dialect: Dialect, body: impl Into<Vec<u8>>) -> String {
    let body: Vec<u8> = body.into();
    value(Timeouts::new(), move |_| {
        let chunks = stream::iter([Ok::<_, Infallible>(body.clone())]);
        let decoder = (dialect.decoder)(chunks.boxed());
        async move { Ok(decoder) }
    })
    .await
}

/// The summary of a run whose attempts all get this HTTP response.
async fn of_response(api: Api, response: String) -> String {
    let (address, _requests) = server(response).await;
    value(Timeouts::new(), move |_| {
        let address = address.clone();
        let from_response = api.from_response;
        async move { from_response(reqwest::get(address).await.unwrap()).await }
    })
    .await
}

/// The summary in each dialect; dialects without one are skipped.
struct Case {
    kind: &'static str,
    /// In the order of [`DIALECTS`].
    bodies: [Option<String>; 4],
    expected: &'static str,
}

fn case<const N: usize>(
    kind: &'static str,
    expected: &'static str,
    payloads: impl Fn(Dialect) -> [String; N],
) -> Case {
    let body = |dialect| {
        let payloads = payloads(dialect);
        let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
        Some(sse(&payloads)).filter(|body| !body.is_empty())
    };
    Case {
        kind,
        bodies: DIALECTS.map(body),
        expected,
    }
}

/// The same body in each dialect.
fn raw(kind: &'static str, expected: &'static str, body: &str) -> Case {
    Case {
        kind,
        bodies: DIALECTS.map(|_| Some(body.to_owned())),
        expected,
    }
}

fn only(dialect: Dialect, kind: &'static str, expected: &'static str, payloads: &[&str]) -> Case {
    let body = |other: Dialect| (other.name == dialect.name).then(|| sse(payloads));
    Case {
        kind,
        bodies: DIALECTS.map(body),
        expected,
    }
}

/// Picks the value for a dialect, in the order of [`DIALECTS`].
fn pick(dialect: Dialect, of: [&str; 4]) -> String {
    let at = DIALECTS.iter().position(|d| d.name == dialect.name);
    of[at.unwrap()].to_owned()
}

/// A piece of text, escaped as in JSON.
fn text(dialect: Dialect, text: &str) -> String {
    pick(
        dialect,
        [
            r#"{"choices":[{"index":0,"delta":{"content":"X"}}]}"#,
            r#"{"type":"response.output_text.delta","output_index":0,"delta":"X"}"#,
            r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"X"}}"#,
            r#"{"candidates":[{"index":0,"content":{"parts":[{"text":"X"}]}}]}"#,
        ],
    )
    .replace('X', text)
}

/// The end of the answer, with a reason as JSON.
fn end(dialect: Dialect, reason: &str) -> String {
    pick(
        dialect,
        [
            r#"{"choices":[{"index":0,"delta":{},"finish_reason":X}]}"#,
            r#"{"type":"response.incomplete","response":{"status":"incomplete","incomplete_details":{"reason":X}}}"#,
            r#"{"type":"message_delta","delta":{"stop_reason":X}}"#,
            r#"{"candidates":[{"index":0,"finishReason":X}]}"#,
        ],
    )
    .replace('X', reason)
}

/// The end of a whole answer.
fn stop(dialect: Dialect) -> String {
    match dialect.name {
        "openai-responses" => r#"{"type":"response.completed","response":{"status":"completed"}}"#,
        _ => return end(dialect, "\"stop\""),
    }
    .to_owned()
}

/// The end of a whole answer, with counts.
fn counts(dialect: Dialect, counts: &str) -> String {
    match dialect.name {
        "openai-responses" => {
            r#"{"type":"response.completed","response":{"status":"completed","usage":X}}"#
        }
        "openai-chat" => r#"{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":X}"#,
        "anthropic" => r#"{"type":"message_delta","delta":{"stop_reason":"stop"},"usage":X}"#,
        _ => r#"{"candidates":[{"index":0,"finishReason":"stop"}],"usageMetadata":X}"#,
    }
    .replace('X', counts)
}

fn cases() -> Vec<Case> {
    let hi = |dialect| text(dialect, "Hi");
    let counted = |kind, expected, of: [&'static str; 4]| {
        case(kind, expected, move |dialect| {
            [hi(dialect), counts(dialect, &pick(dialect, of))]
        })
    };
    let media = |of: [&'static str; 4]| move |dialect| [pick(dialect, of), stop(dialect)];
    vec![
        // Usage.
        counted(
            "cache reads and writes are input",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 735 (600, 30) + 9 (-) = 744"#,
            [
                r#"{"prompt_tokens":735,"completion_tokens":9,"total_tokens":744,"prompt_tokens_details":{"cached_tokens":600,"cache_write_tokens":30}}"#,
                r#"{"input_tokens":735,"output_tokens":9,"total_tokens":744,"input_tokens_details":{"cached_tokens":600,"cache_write_tokens":30}}"#,
                r#"{"input_tokens":105,"cache_read_input_tokens":600,"cache_creation_input_tokens":30,"output_tokens":9}"#,
                r#"{"promptTokenCount":735,"cachedContentTokenCount":600,"cache_creation_input_tokens":30,"candidatesTokenCount":9,"totalTokenCount":744}"#,
            ],
        ),
        counted(
            "reasoning next to the output, according to the total",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 50 (-, -) + 40 (33) = 90"#,
            [
                r#"{"prompt_tokens":50,"completion_tokens":7,"total_tokens":90,"completion_tokens_details":{"reasoning_tokens":33}}"#,
                r#"{"input_tokens":50,"output_tokens":7,"total_tokens":90,"output_tokens_details":{"reasoning_tokens":33}}"#,
                r#"{"input_tokens":50,"output_tokens":7,"total_tokens":90,"output_tokens_details":{"thinking_tokens":33}}"#,
                r#"{"promptTokenCount":50,"candidatesTokenCount":7,"thoughtsTokenCount":33,"totalTokenCount":90}"#,
            ],
        ),
        counted(
            "reasoning inside the output, according to the total",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 50 (-, -) + 40 (33) = 90"#,
            [
                r#"{"prompt_tokens":50,"completion_tokens":40,"total_tokens":90,"completion_tokens_details":{"reasoning_tokens":33}}"#,
                r#"{"input_tokens":50,"output_tokens":40,"total_tokens":90,"output_tokens_details":{"reasoning_tokens":33}}"#,
                r#"{"input_tokens":50,"output_tokens":40,"total_tokens":90,"output_tokens_details":{"thinking_tokens":33}}"#,
                r#"{"promptTokenCount":50,"candidatesTokenCount":40,"thoughtsTokenCount":33,"totalTokenCount":90}"#,
            ],
        ),
        counted(
            "reasoning above the output, without a total",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 50 (-, -) + 40 (33) = 90"#,
            [
                r#"{"prompt_tokens":50,"completion_tokens":7,"completion_tokens_details":{"reasoning_tokens":33}}"#,
                r#"{"input_tokens":50,"output_tokens":7,"output_tokens_details":{"reasoning_tokens":33}}"#,
                r#"{"input_tokens":50,"output_tokens":7,"output_tokens_details":{"thinking_tokens":33}}"#,
                r#"{"promptTokenCount":50,"candidatesTokenCount":7,"thoughtsTokenCount":33}"#,
            ],
        ),
        counted(
            "counts under other names",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 50 (-, -) + 7 (-) = 57"#,
            [
                r#"{"input_tokens":50,"output_tokens":7}"#,
                r#"{"prompt_tokens":50,"completion_tokens":7,"total_tokens":57}"#,
                r#"{"prompt_tokens":50,"completion_tokens":7}"#,
                r#"{"prompt_token_count":50,"candidates_token_count":7,"total_token_count":57}"#,
            ],
        ),
        case(
            "late zeros do not replace counts",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 50 (20, -) + 7 (-) = 57"#,
            |dialect| {
                let first = match dialect.name {
                    "openai-chat" => {
                        r#"{"choices":[],"usage":{"prompt_tokens":50,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":20}}}"#
                    }
                    "openai-responses" => {
                        r#"{"type":"response.in_progress","response":{"usage":{"input_tokens":50,"output_tokens":7,"input_tokens_details":{"cached_tokens":20}}}}"#
                    }
                    "anthropic" => {
                        r#"{"type":"message_start","message":{"usage":{"input_tokens":30,"cache_read_input_tokens":20,"output_tokens":7}}}"#
                    }
                    _ => {
                        r#"{"usageMetadata":{"promptTokenCount":50,"cachedContentTokenCount":20,"candidatesTokenCount":7}}"#
                    }
                };
                let zeros = [
                    r#"{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0,"prompt_tokens_details":{"cached_tokens":0}}"#,
                    r#"{"input_tokens":0,"output_tokens":0,"input_tokens_details":{"cached_tokens":0}}"#,
                    r#"{"input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}"#,
                    r#"{"promptTokenCount":0,"cachedContentTokenCount":0,"candidatesTokenCount":0,"totalTokenCount":0}"#,
                ];
                let last = counts(dialect, &pick(dialect, zeros));
                [first.to_owned(), hi(dialect), last]
            },
        ),
        counted(
            "missing counts are absent",
            r#"completed, 1 calls, "Hi", 1 tokens, stop"#,
            [r#"{"prompt_tokens":null}"#, "null", "{}", "{}"],
        ),
        only(
            ANTHROPIC,
            "passes that are billed in addition",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 940 (-, -) + 77 (-) = 1017"#,
            &[
                &hi(ANTHROPIC),
                r#"{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":40,"output_tokens":7,"iterations":[{"type":"compaction","input_tokens":900,"output_tokens":70},{"type":"message","input_tokens":40,"output_tokens":7}]}}"#,
            ],
        ),
        only(
            GEMINI,
            "results of the provider's own tools are input",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 70 (-, -) + 12 (5) = 82"#,
            &[
                &hi(GEMINI),
                r#"{"candidates":[{"finishReason":"STOP"}],"usageMetadata":{"promptTokenCount":10,"toolUsePromptTokenCount":60,"candidatesTokenCount":7,"thoughtsTokenCount":5,"totalTokenCount":82}}"#,
            ],
        ),
        // Finish reasons.
        case(
            "a finish reason that reports a failure",
            r#"failed, 2 calls, "Hi", 2 tokens, Server"#,
            |dialect| [hi(dialect), end(dialect, "\"upstream_error\"")],
        ),
        case(
            "a finish reason in another provider's capitals",
            r#"completed, 1 calls, "Hi", 1 tokens, length"#,
            |dialect| [hi(dialect), end(dialect, "\"MAX_TOKENS\"")],
        ),
        case(
            "the text `null` is not a finish reason",
            r#"truncated, 2 calls, "Hi", 2 tokens"#,
            |dialect| match dialect.name {
                // The event's name reports how it ended.
                "openai-responses" => [
                    hi(dialect),
                    r#"{"type":"response.in_progress","response":{"status":"null"}}"#.to_owned(),
                ],
                _ => [hi(dialect), end(dialect, "\"null\"")],
            },
        ),
        case(
            "no text because the limit was reached",
            r#"completed, 1 calls, "", 0 tokens, length"#,
            |dialect| [end(dialect, "\"max_tokens\"")],
        ),
        case(
            "no text but reasoning because the limit was reached",
            r#"completed, 1 calls, "", 1 tokens, length"#,
            |dialect| {
                let reasoning = [
                    r#"{"choices":[{"index":0,"delta":{"reasoning_content":"Hm"}}]}"#,
                    r#"{"type":"response.reasoning_text.delta","delta":"Hm"}"#,
                    r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"Hm"}}"#,
                    r#"{"candidates":[{"content":{"parts":[{"text":"Hm","thought":true}]}}]}"#,
                ];
                [pick(dialect, reasoning), end(dialect, "\"length\"")]
            },
        ),
        case(
            "no text because the model refused",
            r#"completed, 1 calls, "", 0 tokens, refusal"#,
            |dialect| [end(dialect, "\"refusal\"")],
        ),
        case(
            "no text because it was blocked",
            r#"completed, 1 calls, "", 0 tokens, content_filter"#,
            |dialect| [end(dialect, "\"content_filter\"")],
        ),
        only(
            RESPONSES,
            "no text, and the answer is incomplete",
            r#"completed, 1 calls, "", 0 tokens, length"#,
            &[r#"{"type":"response.incomplete","response":{"status":"incomplete"}}"#],
        ),
        only(
            GEMINI,
            "no text because the prompt was blocked",
            r#"completed, 1 calls, "", 0 tokens, content_filter"#,
            &[r#"{"promptFeedback":{"blockReason":"OTHER"}}"#],
        ),
        case(
            "no text, and no reason",
            r#"failed, 2 calls, "", 0 tokens, stop"#,
            |dialect| [stop(dialect)],
        ),
        // Answers without letters.
        case(
            "an emoji is an answer",
            r#"completed, 1 calls, "👍", 1 tokens, stop"#,
            |dialect| [text(dialect, "👍"), stop(dialect)],
        ),
        case(
            "empty brackets are an answer",
            r#"completed, 1 calls, "[]", 1 tokens, stop"#,
            |dialect| [text(dialect, "[]"), stop(dialect)],
        ),
        case(
            "an image is an answer",
            r#"completed, 1 calls, "", 1 tokens, stop"#,
            media([
                r#"{"choices":[{"index":0,"delta":{"content":"","images":[{"type":"image_url","image_url":{"url":"data:"}}]}}]}"#,
                r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"image_generation_call","result":"iVBO"}}"#,
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"image","source":{"data":"iVBO"}}}"#,
                r#"{"candidates":[{"content":{"parts":[{"inlineData":{"mimeType":"image/png","data":"iVBO"}}]}}]}"#,
            ]),
        ),
        case(
            "audio is an answer",
            r#"completed, 1 calls, "", 1 tokens, stop"#,
            media([
                r#"{"choices":[{"index":0,"delta":{"audio":{"id":"a","data":"AAA="}}}]}"#,
                r#"{"type":"response.audio.delta","delta":"AAA="}"#,
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"audio_delta","data":"AAA="}}"#,
                r#"{"candidates":[{"content":{"parts":[{"inline_data":{"mime_type":"audio/pcm","data":"AAA="}}]}}]}"#,
            ]),
        ),
        only(
            RESPONSES,
            "a partial image is a token",
            r#"completed, 1 calls, "", 2 tokens, stop"#,
            &[
                r#"{"type":"response.image_generation_call.partial_image","output_index":0,"partial_image_b64":"iV"}"#,
                r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"image_generation_call","result":"iVBO"}}"#,
                r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"image_generation_call","result":"iVBO"}]}}"#,
            ],
        ),
        only(
            CHAT,
            "a transcript is text",
            r#"completed, 1 calls, "Hi", 2 tokens, stop"#,
            &[
                r#"{"choices":[{"index":0,"delta":{"audio":{"transcript":"Hi"}}}]}"#,
                r#"{"choices":[{"index":0,"delta":{"audio":{"data":"AAA="}}}]}"#,
                &stop(CHAT),
            ],
        ),
        only(
            RESPONSES,
            "a transcript is text",
            r#"completed, 1 calls, "Hi", 2 tokens, stop"#,
            &[
                r#"{"type":"response.output_audio_transcript.delta","delta":"Hi"}"#,
                r#"{"type":"response.output_audio.delta","delta":"AAA="}"#,
                r#"{"type":"response.output_audio_transcript.done","transcript":"Hi"}"#,
                &stop(RESPONSES),
            ],
        ),
        only(
            RESPONSES,
            "a request for approval is an answer",
            r#"completed, 1 calls, "", 1 tokens, tool_calls"#,
            &[
                r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"mcp_approval_request","id":"r","server_label":"s","name":"drop","arguments":"{}"}}"#,
                &stop(RESPONSES),
            ],
        ),
        only(
            ANTHROPIC,
            "a file is an answer",
            r#"completed, 1 calls, "", 1 tokens, stop"#,
            &[
                r#"{"type":"content_block_start","index":0,"content_block":{"type":"container_upload","file_id":"f"}}"#,
                &stop(ANTHROPIC),
            ],
        ),
        // Text and arguments that arrive whole.
        case(
            "text that arrives whole",
            r#"completed, 1 calls, "Hi", 1 tokens, stop"#,
            |dialect| {
                let whole = [
                    r#"{"choices":[{"index":0,"message":{"content":"Hi"},"finish_reason":"stop"}]}"#,
                    r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}]}}"#,
                    r#"{"type":"message","content":[{"type":"text","text":"Hi"}],"stop_reason":"end_turn"}"#,
                    r#"{"candidates":[{"content":{"parts":[{"text":"Hi"}]},"finishReason":"STOP"}]}"#,
                ];
                [pick(dialect, whole)]
            },
        ),
        case(
            "text that arrives whole after its pieces",
            r#"completed, 1 calls, "Hi!", 2 tokens, stop"#,
            |dialect| {
                let whole = [
                    r#"{"choices":[{"index":0,"delta":{},"message":{"content":"Hi!"}}]}"#,
                    r#"{"type":"response.output_text.done","output_index":0,"text":"Hi!"}"#,
                    r#"{"type":"content_block_stop","index":0,"content_block":{"type":"text","text":"Hi!"}}"#,
                    "{}",
                ];
                [
                    hi(dialect),
                    text(dialect, "!"),
                    pick(dialect, whole),
                    stop(dialect),
                ]
            },
        ),
        case(
            "a call that arrives whole",
            r#"completed, 1 calls, "", 1 tokens, tool_calls"#,
            |dialect| {
                let whole = [
                    r#"{"choices":[{"index":0,"message":{"tool_calls":[{"id":"i","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"}]}"#,
                    r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"function_call","call_id":"i","name":"f","arguments":"{}"}]}}"#,
                    r#"{"type":"message","content":[{"type":"tool_use","id":"i","name":"f","input":{"x":1}}],"stop_reason":"tool_use"}"#,
                    r#"{"candidates":[{"content":{"parts":[{"functionCall":{"name":"f","args":{}}}]},"finishReason":"STOP"}]}"#,
                ];
                [pick(dialect, whole)]
            },
        ),
        // The last event under other names.
        only(
            RESPONSES,
            "`response.done` ends the answer",
            r#"completed, 1 calls, "Hi", 1 tokens, stop, 3 (-, -) + 1 (-) = 4"#,
            &[
                &hi(RESPONSES),
                r#"{"type":"response.done","response":{"status":"completed","usage":{"input_tokens":3,"output_tokens":1}}}"#,
            ],
        ),
        only(
            RESPONSES,
            "`response.finished` ends the answer",
            r#"completed, 1 calls, "Hi", 1 tokens, stop"#,
            &[&hi(RESPONSES), r#"{"type":"response.finished"}"#],
        ),
        only(
            ANTHROPIC,
            "`message_end` ends the answer",
            r#"completed, 1 calls, "Hi", 1 tokens, other"#,
            &[&hi(ANTHROPIC), r#"{"type":"message_end"}"#],
        ),
        Case {
            kind: "an event `done` ends the answer",
            bodies: [
                Some(format!("data: {}\n\nevent: done\ndata: {{}}\n\n", hi(CHAT))),
                None,
                None,
                None,
            ],
            expected: r#"completed, 1 calls, "Hi", 1 tokens, other"#,
        },
        // Bytes.
        case(
            "half a character in each of two chunks",
            r#"completed, 1 calls, "Hi 😀!", 2 tokens, stop"#,
            |dialect| {
                [
                    text(dialect, r"Hi \ud83d"),
                    text(dialect, r"\ude00!"),
                    stop(dialect),
                ]
            },
        ),
        case(
            "half a character alone",
            "completed, 1 calls, \"Hi \u{FFFD}\", 2 tokens, stop",
            |dialect| [text(dialect, r"Hi \ud83d"), stop(dialect)],
        ),
        case(
            "`NaN` and `Infinity`",
            r#"completed, 1 calls, "Hi", 1 tokens, stop"#,
            |dialect| {
                let odd = hi(dialect).replacen('{', r#"{"score":NaN,"least":-Infinity,"#, 1);
                [odd, stop(dialect)]
            },
        ),
        raw(
            "lines of JSON",
            r#"failed, 1 calls, "", 0 tokens, application/x-ndjson (Fatal)"#,
            "{\"message\":{\"content\":\"Hi\"},\"done\":false}\n{\"message\":{\"content\":\"\"},\"done\":true}\n",
        ),
        raw(
            "lines of JSON, one of them an error",
            r#"failed, 2 calls, "", 0 tokens, RateLimited"#,
            "{\"error\":{\"code\":\"rate_limit\",\"message\":\"m\"}}\n",
        ),
        raw(
            "JSON that is not a stream",
            r#"failed, 1 calls, "", 0 tokens, application/json (Fatal)"#,
            "{\n  \"choices\": []\n}",
        ),
        raw(
            "binary messages",
            r#"failed, 1 calls, "", 0 tokens, application/vnd.amazon.eventstream (Fatal)"#,
            "\0\0\0\u{7c}\0\0\0\u{4b}abcd\u{b}:event-type\u{7}\0\u{5}chunk",
        ),
        raw(
            "a web page",
            r#"failed, 1 calls, "", 0 tokens, text/html (Fatal)"#,
            "<html><body>Sign in</body></html>",
        ),
        // Failures that are reported in the stream.
        raw(
            "throttling, by its code",
            r#"failed, 2 calls, "", 0 tokens, RateLimited"#,
            "id:1\nevent:error\n:HTTP_STATUS/429\ndata:{\"code\":\"Throttling.RateQuota\",\"message\":\"m\",\"request_id\":\"r\"}\n\n",
        ),
        raw(
            "throttling, by its message alone",
            r#"failed, 2 calls, "", 0 tokens, RateLimited"#,
            "data: {\"error\":{\"message\":\"Too many requests, slow down\"}}\n\n",
        ),
        raw(
            "no credit, by its message alone",
            r#"failed, 1 calls, "", 0 tokens, Fatal"#,
            "data: {\"error\":{\"message\":\"insufficient balance\"}}\n\n",
        ),
        raw(
            "a status under another name",
            r#"failed, 2 calls, "", 0 tokens, Server"#,
            "data: {\"error\":{\"httpStatus\":503,\"errorMessage\":\"m\"}}\n\n",
        ),
        raw(
            "an error as the message of another",
            r#"failed, 2 calls, "", 0 tokens, RateLimited"#,
            "data: {\"error\":{\"message\":\"{\\\"error\\\":{\\\"status\\\":\\\"RESOURCE_EXHAUSTED\\\"}}\"}}\n\n",
        ),
        raw(
            "an error within an error",
            r#"failed, 2 calls, "", 0 tokens, RateLimited"#,
            "data: {\"error\":{\"error\":{\"type\":\"rate_limit_error\",\"message\":\"m\"}}}\n\n",
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_kind_in_each_dialect() {
    let mut wrong = Vec::new();
    for Case {
        kind,
        bodies,
        expected,
    } in cases()
    {
        for (dialect, body) in DIALECTS.into_iter().zip(bodies) {
            let Some(body) = body else { continue };
            let value = of_body(dialect, body).await;
            println!("{kind} | {} | {value}", dialect.name);
            if value != expected {
                wrong.push(format!(
                    "{kind}, {}:\n  {value}\n  {expected}",
                    dialect.name
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Reasoning under each of its names is reasoning, and yielded once.
#[test]
fn reasoning_under_other_names() {
    let chat = [
        "reasoning_content",
        "reasoning",
        "reasoning_text",
        "reasoning_summary",
        "thinking",
        "thinking_content",
        "thought",
    ];
    let mut payloads: Vec<(Dialect, String)> = Vec::new();
    for name in chat {
        for value in [
            "\"r\"",
            r#"{"text":"r"}"#,
            r#"[{"type":"x","thinking":"r"}]"#,
        ] {
            payloads.push((
                CHAT,
                delta(&format!(r#"{{"{name}":{value},"content":""}}"#)),
            ));
        }
    }
    let details = r#"{"reasoning":"r","reasoning_details":[{"type":"reasoning.text","text":"r"}]}"#;
    payloads.push((CHAT, delta(details)));
    let parts = r#"{"content":[{"type":"reasoning","text":"r"}]}"#;
    payloads.push((CHAT, delta(parts)));
    for name in [
        "reasoning_text",
        "reasoning_summary_text",
        "reasoning",
        "reasoning_content",
        "reasoning_summary",
        "thinking",
    ] {
        for value in ["\"r\"", r#"{"text":"r"}"#] {
            payloads.push((
                RESPONSES,
                format!(r#"{{"type":"response.{name}.delta","delta":{value}}}"#),
            ));
        }
    }
    for (kind, name) in [
        ("thinking_delta", "thinking"),
        ("reasoning_delta", "reasoning"),
        ("reasoning_delta", "text"),
        ("reasoning_content_delta", "reasoning_content"),
        ("", "thinking"),
    ] {
        payloads.push((
            ANTHROPIC,
            format!(r#"{{"type":"content_block_delta","delta":{{"type":"{kind}","{name}":"r"}}}}"#),
        ));
    }
    payloads.push((
        ANTHROPIC,
        r#"{"type":"content_block_start","content_block":{"type":"reasoning","text":"r"}}"#
            .to_owned(),
    ));
    for part in [
        r#"{"text":"r","thought":true}"#,
        r#"{"reasoning":"r"}"#,
        r#"{"thinking":"r"}"#,
        r#"{"thoughtText":"r"}"#,
    ] {
        payloads.push((
            GEMINI,
            format!(r#"{{"candidates":[{{"content":{{"parts":[{part}]}}}}]}}"#),
        ));
    }
    for (dialect, payload) in payloads {
        let tokens = dialect.tokens(&[&payload]);
        assert_eq!(texts(&tokens), [(TokenKind::Reasoning, "r")], "{payload}");
    }
}

/// Content of `done` events is yielded once, whichever events arrive.
#[test]
fn responses_that_arrive_whole_are_yielded_once() {
    let text = [
        r#"{"type":"response.output_text.delta","output_index":0,"content_index":0,"delta":"Hi"}"#,
        r#"{"type":"response.output_text.done","output_index":0,"content_index":0,"text":"Hi"}"#,
        r#"{"type":"response.content_part.done","output_index":0,"content_index":0,"part":{"type":"output_text","text":"Hi"}}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"output_text","text":"Hi"}]}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"output_text","text":"Hi"}]}]}}"#,
    ];
    let reasoning = [
        r#"{"type":"response.reasoning_summary_text.delta","output_index":0,"summary_index":0,"delta":"Hi"}"#,
        r#"{"type":"response.reasoning_summary_text.done","output_index":0,"summary_index":0,"text":"Hi"}"#,
        r#"{"type":"response.reasoning_summary_part.done","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":"Hi"}}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"reasoning","summary":[{"type":"summary_text","text":"Hi"}]}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"Hi"}]}]}}"#,
    ];
    let refusal = [
        r#"{"type":"response.refusal.delta","output_index":0,"content_index":0,"delta":"Hi"}"#,
        r#"{"type":"response.refusal.done","output_index":0,"content_index":0,"refusal":"Hi"}"#,
        r#"{"type":"response.content_part.done","output_index":0,"content_index":0,"part":{"type":"refusal","refusal":"Hi"}}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"message","content":[{"type":"refusal","refusal":"Hi"}]}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"message","content":[{"type":"refusal","refusal":"Hi"}]}]}}"#,
    ];
    let call = [
        r#"{"type":"response.function_call_arguments.delta","output_index":0,"item_id":"x","delta":"{}"}"#,
        r#"{"type":"response.function_call_arguments.done","output_index":0,"item_id":"x","name":"f","arguments":"{}"}"#,
        r#"{"type":"response.output_item.done","output_index":0,"item":{"type":"function_call","id":"x","call_id":"i","name":"f","arguments":"{}"}}"#,
        r#"{"type":"response.completed","response":{"status":"completed","output":[{"type":"function_call","id":"x","call_id":"i","name":"f","arguments":"{}"}]}}"#,
    ];
    let added = r#"{"type":"response.output_item.added","output_index":0,"item":{"type":"function_call","id":"x","call_id":"i","name":"f","arguments":""}}"#;
    for (events, kind) in [
        (&text[..], TokenKind::Text),
        (&reasoning, TokenKind::Reasoning),
        (&refusal, TokenKind::Text),
        (&call, TokenKind::ToolCall),
    ] {
        // Every subset of the events, in order.
        for chosen in 1_u32..1 << events.len() {
            let mut payloads: Vec<_> = (0..events.len())
                .filter(|at| chosen >> at & 1 == 1)
                .map(|at| events[at])
                .collect();
            if kind == TokenKind::ToolCall {
                payloads.insert(0, added);
            }
            let refuses = events[0].contains("refusal");
            // The result is the same without positions.
            let placeless: Vec<_> = payloads
                .iter()
                .map(|payload| {
                    ["output", "content", "summary"]
                        .iter()
                        .fold((*payload).to_owned(), |payload, name| {
                            payload.replace(&format!(r#""{name}_index":0,"#), "")
                        })
                })
                .collect();
            let placeless: Vec<_> = placeless.iter().map(String::as_str).collect();
            for payloads in [payloads, placeless] {
                let tokens = RESPONSES.tokens(&payloads);
                let given: Vec<_> = tokens.iter().filter(|token| token.kind == kind).collect();
                let [given] = given[..] else {
                    panic!("{payloads:?}: {tokens:?}");
                };
                let expected = if kind == TokenKind::ToolCall {
                    "{}"
                } else {
                    "Hi"
                };
                assert_eq!(given.view().text, expected, "{payloads:?}");
                assert_eq!(given.refusal, refuses, "{payloads:?}");
            }
        }
    }
    // Calls that finish in another order than they began.
    let announce = |at: u32| {
        format!(
            r#"{{"type":"response.output_item.added","output_index":{at},"item":{{"type":"function_call","call_id":"i{at}","name":"f{at}"}}}}"#
        )
    };
    let done = |at: u32| {
        format!(
            r#"{{"type":"response.function_call_arguments.done","output_index":{at},"arguments":"{{\"n\":{at}}}"}}"#
        )
    };
    let payloads = [announce(0), announce(1), done(1), done(0), stop(RESPONSES)];
    let payloads: Vec<_> = payloads.iter().map(String::as_str).collect();
    let tokens = RESPONSES.tokens(&payloads);
    assert_eq!(
        calls(&tokens),
        [
            (0, Some("i0"), Some("f0"), ""),
            (1, Some("i1"), Some("f1"), r#"{"n":1}"#),
            (0, None, None, r#"{"n":0}"#),
        ]
    );
}

/// A body with the wrong content type is read for what it is; another protocol is named.
#[tokio::test(start_paused = true)]
async fn content_types_of_bodies() {
    for api in APIS {
        let dialect = api.dialect;
        let hi = [text(dialect, "Hi"), stop(dialect)];
        let events = sse(&[&hi[0], &hi[1]]);
        let lines = "{\"message\":{\"content\":\"Hi\"}}\n{\"done\":true}\n";
        let good = r#"completed, 1 calls, "Hi", 1 tokens, stop"#;
        let failed = |what: &str| format!(r#"failed, 1 calls, "", 0 tokens, {what} (Fatal)"#);
        for (label, body, expected) in [
            ("application/json", &events[..], good.to_owned()),
            ("text/html; charset=utf-8", &events, good.to_owned()),
            ("application/x-ndjson", &events, good.to_owned()),
            ("application/octet-stream", &events, good.to_owned()),
            (
                "application/json",
                &format!("\n: hi\n\n{events}"),
                good.to_owned(),
            ),
            (
                "application/x-ndjson",
                lines,
                failed("application/x-ndjson"),
            ),
            ("text/event-stream", lines, failed("application/x-ndjson")),
            ("text/plain", lines, failed("application/x-ndjson")),
            (
                "application/json",
                "{\"choices\":[]}",
                failed("application/json"),
            ),
            (
                "text/event-stream",
                "{\"choices\":[]}",
                failed("application/json"),
            ),
            (
                "application/vnd.amazon.eventstream",
                "\0\0\0\u{7c}\0\0\0\u{4b}abcd\u{b}:event-type",
                failed("application/vnd.amazon.eventstream"),
            ),
            ("application/grpc", "\0\0\0", failed("application/grpc")),
            ("text/html", "<html>", failed("text/html")),
            (
                "application/json",
                "{\"error\":{\"type\":\"rate_limit_error\"}}",
                r#"failed, 2 calls, "", 0 tokens, RateLimited"#.to_owned(),
            ),
            (
                "text/event-stream",
                "{\"error\":{\"type\":\"rate_limit_error\"}}",
                r#"failed, 2 calls, "", 0 tokens, RateLimited"#.to_owned(),
            ),
            (
                "application/x-ndjson",
                "{\"error\":{\"type\":\"rate_limit_error\"}}\n",
                r#"failed, 2 calls, "", 0 tokens, RateLimited"#.to_owned(),
            ),
        ] {
            let head = format!("200 OK\r\ncontent-type: {label}");
            let value = of_response(api, answer(&head, body)).await;
            println!("{label} | {} | {value}", dialect.name);
            assert_eq!(value, expected, "{}: {label}: {body}", dialect.name);
        }
    }
}

/// Events that a decoder may read indefinitely without a token, each after a pause.
fn quiet(dialect: Dialect) -> [String; 3] {
    let empty = text(dialect, "");
    [
        ": keep-alive\n\n".to_owned(),
        "event: ping\ndata: {\"type\":\"ping\"}\n\n".to_owned(),
        sse(&[&empty]),
    ]
}

fn prelude(dialect: Dialect) -> String {
    pick(
        dialect,
        [
            r#"{"id":"r","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}"#,
            r#"{"type":"response.created","response":{"id":"r","model":"m","status":"in_progress"}}"#,
            r#"{"type":"message_start","message":{"id":"r","model":"m","content":[],"usage":{"input_tokens":3,"output_tokens":1}}}"#,
            r#"{"modelVersion":"m","responseId":"r","usageMetadata":{"promptTokenCount":3}}"#,
        ],
    )
}

#[tokio::test(start_paused = true)]
async fn a_prelude_is_not_a_token() {
    for dialect in DIALECTS {
        for quiet in [vec![String::new()], quiet(dialect).to_vec()].concat() {
            // Silence, or events without content ten times a second.
            let timeouts = Timeouts::new().first_token(Duration::from_secs(60));
            let started = Instant::now();
            let filler = quiet.clone();
            let value = value(timeouts, move |_| {
                let first = sse(&[&prelude(dialect)]).into_bytes();
                let later = stream::unfold(filler.clone(), |quiet| async move {
                    match &quiet[..] {
                        "" => std::future::pending().await,
                        _ => tokio::time::sleep(Duration::from_millis(100)).await,
                    }
                    Some((Ok::<_, Infallible>(quiet.clone().into_bytes()), quiet))
                });
                let body = stream::iter([Ok(first)]).chain(later);
                let decoder = (dialect.decoder)(body.boxed());
                async move { Ok(decoder) }
            })
            .await;
            let name = dialect.name;
            assert!(value.starts_with("timed_out, 2 calls"), "{name}: {value}");
            let took = started.elapsed().as_millis();
            assert!((120_000..120_003).contains(&took), "{name}: {took}");
        }
        // Two minutes of thinking, then the answer.
        let timeouts = Timeouts::new()
            .first_token(Duration::from_secs(300))
            .inter_token(Duration::from_secs(10));
        let value = value(timeouts, move |_| {
            let first = sse(&[&prelude(dialect)]).into_bytes();
            let rest = sse(&[&text(dialect, "Hi"), &stop(dialect)]).into_bytes();
            let later = stream::once(async move {
                tokio::time::sleep(Duration::from_secs(120)).await;
                Ok::<_, Infallible>(rest)
            });
            let body = stream::iter([Ok(first)]).chain(later);
            let decoder = (dialect.decoder)(body.boxed());
            async move { Ok(decoder) }
        })
        .await;
        assert!(
            value.starts_with(r#"completed, 1 calls, "Hi", 1 tokens, stop"#),
            "{}: {value}",
            dialect.name
        );
    }
}

/// The summary of each case in a folder of files.
#[tokio::test(start_paused = true)]
async fn cases_in_files() {
    let Some(folder) = std::env::var_os("L0_FIELD_CASES").map(PathBuf::from) else {
        println!("skipped: L0_FIELD_CASES is not set");
        return;
    };
    let mut names: Vec<_> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    let mut wrong = Vec::new();
    for (name, expected) in FILES {
        assert!(names.iter().any(|other| other == name), "no {name}");
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let dialect = DIALECTS.into_iter().find(|dialect| {
            let short = dialect.name.trim_start_matches("openai-");
            name.starts_with(short)
        });
        let dialect = dialect.unwrap_or(CHAT);
        let value = if name.ends_with(".http") {
            let api = APIS.into_iter().find(|api| api.dialect.name == CHAT.name);
            let (head, body) = text.split_once("\n\n").unwrap();
            let head = head.trim_start_matches("HTTP/1.1 ").replace('\n', "\r\n");
            let reset = std::time::UNIX_EPOCH.elapsed().unwrap() + Duration::from_secs(3600);
            let body = body.replace("RESET", &reset.as_millis().to_string());
            of_response(api.unwrap(), answer(&head, &body)).await
        } else if name.ends_with("silence.sse") {
            let timeouts = Timeouts::new().first_token(Duration::from_secs(60));
            let started = Instant::now();
            let value = open(dialect, &text, timeouts).await;
            assert_eq!(started.elapsed().as_secs(), 120);
            value
        } else if name.ends_with("open-socket.sse") {
            open(dialect, &text, Timeouts::new()).await
        } else {
            of_body(dialect, text).await
        };
        println!("{name} | {value}");
        if value != *expected {
            wrong.push(format!("{name}:\n  {value}\n  {expected}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A body after which the connection stays open.
async fn open(dialect: Dialect, body: &str, timeouts: Timeouts) -> String {
    let body = body.to_owned().into_bytes();
    value(timeouts, move |_| {
        let body = stream::iter([Ok::<_, Infallible>(body.clone())]).chain(stream::pending());
        let decoder = (dialect.decoder)(body.boxed());
        async move { Ok(decoder) }
    })
    .await
}

const FILES: &[(&str, &str)] = &[
    (
        "anthropic-cached-usage.sse",
        r#"completed, 1 calls, "Hi", 1 tokens, stop, 2570 (2400, 120) + 23 (-) = 2593"#,
    ),
    (
        "anthropic-refusal-without-text.sse",
        r#"completed, 1 calls, "", 0 tokens, refusal, 15 (-, -) + 1 (-) = 16"#,
    ),
    (
        "chat-finish-in-capitals.sse",
        r#"completed, 1 calls, "The history of", 1 tokens, length, 9 (-, -) + 5 (-) = 14"#,
    ),
    (
        "chat-finish-network-error.sse",
        r#"failed, 2 calls, "The answer is", 2 tokens, Server"#,
    ),
    (
        "chat-finish-null-as-text.sse",
        r#"truncated, 2 calls, "The answer", 2 tokens"#,
    ),
    (
        "chat-half-a-surrogate-pair.sse",
        r#"completed, 1 calls, "Hi 😀!", 2 tokens, stop"#,
    ),
    (
        "chat-length-with-reasoning-only.sse",
        r#"completed, 1 calls, "", 1 tokens, length, 20 (-, -) + 32 (32) = 52"#,
    ),
    (
        "chat-reasoning-beside-completion.sse",
        r#"completed, 1 calls, "Hi", 1 tokens, stop, 10120 (128, -) + 4308 (2809) = 14428"#,
    ),
    (
        "chat-stream-labelled-json.http",
        r#"completed, 1 calls, "Hi", 1 tokens, stop"#,
    ),
    (
        "chat-throttling-in-stream.sse",
        r#"failed, 2 calls, "", 0 tokens, RateLimited"#,
    ),
    (
        "chat-usage-of-thrown-away-attempts.sse",
        "failed, 2 calls, \" \\n\", 2 tokens, stop, 1000 (-, -) + 500 (-) = 1500",
    ),
    (
        "gemini-image-only.sse",
        r#"completed, 1 calls, "", 1 tokens, stop, 8 (-, -) + 1290 (-) = 1298"#,
    ),
    (
        "gemini-thoughts-and-tools-usage.sse",
        r#"completed, 1 calls, "Hi", 1 tokens, stop, 18480 (-, -) + 2209 (1120) = 20689"#,
    ),
    (
        "ndjson-not-sse.ndjson",
        r#"failed, 1 calls, "", 0 tokens, application/x-ndjson (Fatal)"#,
    ),
    (
        "no-credit-by-other-words.http",
        r#"failed, 1 calls, "", 0 tokens, Fatal"#,
    ),
    (
        "reset-time-in-the-body.http",
        r#"failed, 1 calls, "", 0 tokens, RateLimited"#,
    ),
    (
        "responses-done-as-last-event.sse",
        r#"completed, 1 calls, "Hi", 1 tokens, stop, 3 (-, -) + 1 (-) = 4"#,
    ),
    (
        "responses-error-then-open-socket.sse",
        r#"failed, 2 calls, "", 0 tokens, Server"#,
    ),
    (
        "responses-prelude-then-silence.sse",
        r#"timed_out, 2 calls, "", 0 tokens"#,
    ),
    (
        "status-409.http",
        r#"failed, 2 calls, "", 0 tokens, Server"#,
    ),
    (
        "x-should-retry-false.http",
        r#"failed, 1 calls, "", 0 tokens, Fatal"#,
    ),
];
