//! Measures decoding a stream from bytes to tokens, for each provider's format. For Chat Completions, also
//! measures what an application does without L0: `eventsource-stream` and `serde_json` into `async-openai`'s
//! type.
//!
//! ```console
//! $ cargo bench -p l0-bench --bench decode
//! ```
#![allow(missing_docs, reason = "criterion's macros make public functions")]

use std::convert::Infallible;
use std::hint::black_box;

use async_openai::types::chat::CreateChatCompletionStreamResponse;
use bytes::Bytes;
use criterion::{
    BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main,
};
use eventsource_stream::Eventsource;
use futures_util::{FutureExt, StreamExt, stream};
use l0_bench::bodies::{CHAT, FORMATS, Format};
use l0_core::Token;
use l0_providers::{Decoder, anthropic, gemini, ollama, openai};

/// The number of bytes that a read returns from a socket with much data.
const CHUNK: usize = 16 * 1024;

/// The number of tokens in a body.
const TOKENS: usize = 20_000;

/// Returns a body in reads of [`CHUNK`] bytes, or of one event each, as servers send them.
fn reads(format: Format, small: bool) -> Vec<Bytes> {
    let events = format.events(TOKENS).map(Bytes::from);
    if small {
        return events.collect();
    }
    // Clients return shared slices.
    let mut body = Bytes::from(Vec::from_iter(events).concat());
    let reads =
        std::iter::from_fn(|| (!body.is_empty()).then(|| body.split_to(body.len().min(CHUNK))));
    reads.collect()
}

type Body = stream::Iter<std::vec::IntoIter<Result<Bytes, Infallible>>>;

fn source(reads: &[Bytes]) -> Body {
    stream::iter(Vec::from_iter(reads.iter().cloned().map(Ok)))
}

fn decoder(format: Format, body: Body) -> Decoder<Body> {
    match format.name {
        "responses" => openai::responses::decode(body),
        "anthropic" => anthropic::decode(body),
        "gemini" => gemini::decode(body),
        "ollama" => ollama::decode(body),
        _ => openai::decode(body),
    }
}

/// Decoding in memory is never pending.
fn now<T>(future: impl Future<Output = T>) -> T {
    future.now_or_never().expect("never pending")
}

fn decode(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("decode");
    group.sampling_mode(SamplingMode::Flat);
    for format in FORMATS {
        for small in [false, true] {
            let reads = reads(format, small);
            let length = reads.iter().map(Bytes::len).sum::<usize>();
            group.throughput(Throughput::Bytes(length as u64));
            let row = if small {
                "an event a read"
            } else {
                "16 KiB a read"
            };
            group.bench_function(BenchmarkId::new(format.name, row), |bencher| {
                bencher.iter(|| {
                    let tokens = decoder(format, source(&reads));
                    now(tokens.fold(0, async |length, token| {
                        length + black_box(token.expect("a token")).view().text.len()
                    }))
                });
            });
        }
    }
    let reads = reads(CHAT, false);
    let length = reads.iter().map(Bytes::len).sum::<usize>();
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function("eventsource-stream + async-openai", |bencher| {
        bencher.iter(|| {
            let events = source(&reads).eventsource();
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
