//! Helpers that the test binaries share.
#![allow(dead_code, reason = "each test binary uses its own part")]

use std::convert::Infallible;

use futures_util::{FutureExt, StreamExt, stream};
use l0_providers::{ProviderError, ProviderToken, openai};

pub(crate) type Decoded = (Vec<ProviderToken>, Option<ProviderError<Infallible>>);

/// Decodes chunks to tokens and the error, if there is one.
pub(crate) fn decode_chunks(chunks: impl IntoIterator<Item = Vec<u8>>) -> Decoded {
    decode_limited(chunks, None)
}

pub(crate) fn decode_limited(
    chunks: impl IntoIterator<Item = Vec<u8>>,
    limit: Option<usize>,
) -> Decoded {
    let mut decoder = openai::decode(stream::iter(chunks.into_iter().map(Ok::<_, Infallible>)));
    if let Some(limit) = limit {
        decoder = decoder.max_event_bytes(limit);
    }
    let items: Vec<_> = decoder.collect().now_or_never().unwrap();
    let mut tokens = Vec::new();
    let mut error = None;
    for item in items {
        assert!(error.is_none(), "an item after the error");
        match item {
            Ok(token) => tokens.push(token),
            Err(e) => error = Some(e),
        }
    }
    (tokens, error)
}

pub(crate) fn decode(body: impl AsRef<[u8]>) -> Decoded {
    decode_chunks([body.as_ref().to_vec()])
}

pub(crate) fn by_bytes(body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    body.iter().map(|byte| vec![*byte])
}

/// Cuts a body in two or more at these places, in any order, modulo its length.
pub(crate) fn cut_at(body: &[u8], places: &[usize]) -> Vec<Vec<u8>> {
    let mut places: Vec<_> = places.iter().map(|at| at % (body.len() + 1)).collect();
    places.sort_unstable();
    let mut chunks = Vec::new();
    let mut start = 0;
    for place in places {
        chunks.push(body[start..place].to_vec());
        start = place;
    }
    chunks.push(body[start..].to_vec());
    chunks
}

/// Equality of results, errors by their text and type.
pub(crate) fn same(a: &Decoded, b: &Decoded) -> bool {
    a.0 == b.0 && format!("{:?}", a.1) == format!("{:?}", b.1)
}

/// The payloads as an event stream, without `[DONE]`.
pub(crate) fn sse(payloads: &[&str]) -> String {
    payloads.iter().map(|p| format!("data: {p}\n\n")).collect()
}

/// A payload with one choice.
pub(crate) fn choice(choice: &str) -> String {
    format!(r#"{{"choices":[{choice}]}}"#)
}

/// A payload with one delta.
pub(crate) fn delta(delta: &str) -> String {
    choice(&format!(r#"{{"index":0,"delta":{delta}}}"#))
}

/// Text of the answer, choice 0.
pub(crate) fn text_of(tokens: &[ProviderToken]) -> String {
    let text = |token: &&ProviderToken| token.kind == l0_core::TokenKind::Text && token.choice == 0;
    tokens
        .iter()
        .filter(text)
        .map(|token| &token.text[..])
        .collect()
}
