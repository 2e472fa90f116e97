//! Number of allocations in the decoders.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use allocation_counter::measure;
use common::*;
use futures_util::{FutureExt, StreamExt, stream};

/// An event or a line with a piece of text for each dialect, framed as the provider does.
const EVENTS: [(Dialect, &str); 5] = [
    (
        CHAT,
        r#"data: {"id":"c1","object":"chat.completion.chunk","created":1741570283,"model":"m-1","system_fingerprint":"fp","choices":[{"index":0,"delta":{"content":" token"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
    ),
    (
        RESPONSES,
        "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_1\",\"output_index\":0,\"content_index\":0,\"delta\":\" token\",\"logprobs\":[],\"sequence_number\":5}",
    ),
    (
        ANTHROPIC,
        "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" token\"}}",
    ),
    (
        GEMINI,
        r#"data: {"candidates":[{"content":{"parts":[{"text":" token"}],"role":"model"},"index":0}],"usageMetadata":{"promptTokenCount":4,"totalTokenCount":9},"modelVersion":"m-1","responseId":"r1"}"#,
    ),
    (
        OLLAMA,
        r#"{"model":"m-1","created_at":"2026-01-01T00:00:00.123456Z","message":{"role":"assistant","content":" token"},"done":false}"#,
    ),
];

#[test]
fn a_token_costs_its_text() {
    const TOKENS: u64 = 10_000;
    for (dialect, event) in EVENTS {
        let body = format!("{event}\n\n").repeat(TOKENS as usize);
        let chunks: Vec<_> = body
            .as_bytes()
            .chunks(16 * 1024)
            .map(<[u8]>::to_vec)
            .collect();
        let reads = chunks.len() as u64;
        let decoder = (dialect.decoder)(stream::iter(chunks.into_iter().map(Ok)).boxed());
        let counted = measure(|| {
            let tokens = decoder.fold(0, async |count, token| {
                assert_eq!(token.unwrap().text, " token");
                count + 1
            });
            assert_eq!(tokens.now_or_never(), Some(TOKENS));
        });
        println!(
            "{}: {} allocations for {TOKENS} tokens in {reads} reads",
            dialect.name, counted.count_total
        );
        // One for the text, and per read, one for the chunk and one for the event that its end cuts.
        let allowed = TOKENS + 2 * reads + 50;
        assert!(
            counted.count_total <= allowed,
            "{}: {counted:?}",
            dialect.name
        );
        assert!(
            counted.bytes_max < 256 * 1024,
            "{}: {counted:?}",
            dialect.name
        );
    }
}
