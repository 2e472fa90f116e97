//! What it costs to decode a Chat Completions stream from bytes to tokens, beside what an application
//! does without L0: `eventsource-stream` and `serde_json` into `async-openai`'s type.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench decode
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::convert::Infallible;
use std::hint::black_box;

use async_openai::types::chat::CreateChatCompletionStreamResponse;
use criterion::{Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use eventsource_stream::Eventsource;
use futures_util::{FutureExt, StreamExt, stream};
use l0_bench::{ANSWER, TOKEN};
use l0_core::Token;
use l0_providers::openai;

/// How many bytes a read from a socket gives.
const CHUNK: usize = 16 * 1024;

/// An answer as OpenAI sends it, in tokens of [`TOKEN`] bytes.
fn body() -> Vec<u8> {
    let mut body = String::new();
    for text in ANSWER.as_bytes().chunks(TOKEN).cycle().take(20_000) {
        let text = serde_json::to_string(std::str::from_utf8(text).expect("ASCII"));
        body.push_str(concat!(
            r#"data: {"id":"chatcmpl-B9MHDbslfkBeAs8l4bebGdFOJ6PeG","object":"chat.completion.chunk","#,
            r#""created":1741570283,"model":"gpt-4o-2024-08-06","service_tier":"default","#,
            r#""system_fingerprint":"fp_fc9f1d7035","choices":[{"index":0,"delta":{"content":"#,
        ));
        body.push_str(&text.expect("a string"));
        body.push_str("},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n");
    }
    body.push_str(
        "data: {\"id\":\"\",\"object\":\"chat.completion.chunk\",\"created\":0,\"model\":\"m\",",
    );
    body.push_str("\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n");
    body.push_str("data: [DONE]\n\n");
    body.into_bytes()
}

/// Decoding in memory: nothing is ever pending.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("never pending")
}

fn decode(criterion: &mut Criterion) {
    let body = body();
    // What a client hands out: shared slices.
    let bytes = bytes::Bytes::from(body);
    let chunks: Vec<_> = (0..bytes.len().div_ceil(CHUNK))
        .map(|at| bytes.slice(at * CHUNK..bytes.len().min((at + 1) * CHUNK)))
        .collect();
    let source = || stream::iter(chunks.clone().into_iter().map(Ok::<_, Infallible>));

    let mut group = criterion.benchmark_group("decode");
    group.throughput(Throughput::Bytes(bytes.len() as u64));
    group.sampling_mode(SamplingMode::Flat);
    group.bench_function("l0-providers", |bencher| {
        bencher.iter(|| {
            let tokens = openai::decode(source());
            now(tokens.fold(0, async |length, token| {
                length + black_box(token.expect("a token")).view().text.len()
            }))
        });
    });
    group.bench_function("eventsource-stream + async-openai", |bencher| {
        bencher.iter(|| {
            let events = source().eventsource();
            let chunks = events.filter_map(async |event| {
                let data = event.expect("an event").data;
                (data != "[DONE]").then(|| {
                    serde_json::from_str::<CreateChatCompletionStreamResponse>(&data)
                        .expect("a chunk")
                })
            });
            now(chunks.fold(0, async |length, chunk| {
                let text = &black_box(&chunk).choices[0].delta.content;
                length + text.as_ref().map_or(0, String::len)
            }))
        });
    });
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
