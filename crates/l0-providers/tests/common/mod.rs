//! Helpers shared by the test binaries.
#![allow(dead_code, reason = "each test binary uses its own part")]

#[cfg(feature = "reqwest")]
pub(crate) mod server;

use std::convert::Infallible;
use std::task::{Context, Poll, Waker};

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use l0_core::Token;
use l0_providers::openai::{self, responses};
use l0_providers::{ApiError, Decoder, ProviderError, ProviderToken, anthropic, gemini, ollama};

pub(crate) type Decoded = (Vec<ProviderToken>, Option<ProviderError<Infallible>>);

pub(crate) type Body = BoxStream<'static, Result<Vec<u8>, Infallible>>;

/// A provider's format, with its decoder.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dialect {
    pub(crate) name: &'static str,
    pub(crate) decoder: fn(Body) -> Decoder<Body>,
}

pub(crate) const CHAT: Dialect = Dialect {
    name: "openai-chat",
    decoder: |body| openai::decode(body),
};
pub(crate) const RESPONSES: Dialect = Dialect {
    name: "openai-responses",
    decoder: |body| responses::decode(body),
};
pub(crate) const ANTHROPIC: Dialect = Dialect {
    name: "anthropic",
    decoder: |body| anthropic::decode(body),
};
pub(crate) const GEMINI: Dialect = Dialect {
    name: "gemini",
    decoder: |body| gemini::decode(body),
};
/// Payloads are lines, unlike those of [`DIALECTS`].
pub(crate) const OLLAMA: Dialect = Dialect {
    name: "ollama",
    decoder: |body| ollama::decode(body),
};
/// The dialects whose payloads are events.
pub(crate) const DIALECTS: [Dialect; 4] = [CHAT, RESPONSES, ANTHROPIC, GEMINI];

impl Dialect {
    /// Decodes chunks to tokens and the error, if there is one.
    pub(crate) fn chunks(self, chunks: impl IntoIterator<Item = Vec<u8>>) -> Decoded {
        self.limited(chunks, None)
    }

    pub(crate) fn limited(
        self,
        chunks: impl IntoIterator<Item = Vec<u8>>,
        limit: Option<usize>,
    ) -> Decoded {
        let chunks: Vec<_> = chunks.into_iter().map(Ok::<_, Infallible>).collect();
        let mut decoder = (self.decoder)(stream::iter(chunks).boxed());
        if let Some(limit) = limit {
            decoder = decoder.max_event_bytes(limit);
        }
        let items: Vec<_> = now(decoder.collect());
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

    pub(crate) fn decode(self, body: impl AsRef<[u8]>) -> Decoded {
        self.chunks([body.as_ref().to_vec()])
    }

    /// Decodes payloads to tokens, without an error.
    #[track_caller]
    pub(crate) fn tokens(self, payloads: &[&str]) -> Vec<ProviderToken> {
        let (tokens, error) = self.decode(sse(payloads));
        assert!(error.is_none(), "{error:?}");
        tokens
    }

    /// Decodes payloads to tokens and the provider's error after them.
    #[track_caller]
    pub(crate) fn failed(self, payloads: &[&str]) -> (Vec<ProviderToken>, ApiError) {
        match self.decode(sse(payloads)) {
            (tokens, Some(ProviderError::Api(error))) => (tokens, *error),
            other => panic!("no API error: {other:?}"),
        }
    }
}

/// Returns the output of a future that never waits, although it may yield.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    for _ in 0..1_000_000 {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return value;
        }
    }
    panic!("it waits");
}

/// Decodes Chat Completions.
pub(crate) fn decode(body: impl AsRef<[u8]>) -> Decoded {
    CHAT.decode(body)
}

pub(crate) fn decode_chunks(chunks: impl IntoIterator<Item = Vec<u8>>) -> Decoded {
    CHAT.chunks(chunks)
}

pub(crate) fn decode_limited(
    chunks: impl IntoIterator<Item = Vec<u8>>,
    limit: Option<usize>,
) -> Decoded {
    CHAT.limited(chunks, limit)
}

pub(crate) fn by_bytes(body: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    body.iter().map(|byte| vec![*byte])
}

/// Splits a body at these places, in any order, modulo its length.
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

/// Compares results, and errors by their text and type.
pub(crate) fn same(a: &Decoded, b: &Decoded) -> bool {
    let shown = |error: &ProviderError<Infallible>| format!("{error:?} {error:#}");
    a.0 == b.0 && a.1.as_ref().map(shown) == b.1.as_ref().map(shown)
}

/// Formats payloads as an event stream, without `[DONE]`.
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

/// The text of the answer of choice 0.
pub(crate) fn text_of(tokens: &[ProviderToken]) -> String {
    let text = |token: &&ProviderToken| token.kind == l0_core::TokenKind::Text && token.choice == 0;
    tokens
        .iter()
        .filter(text)
        .map(|token| &token.text[..])
        .collect()
}

/// (kind, text) of every token, as core reads it.
pub(crate) fn texts(tokens: &[ProviderToken]) -> Vec<(l0_core::TokenKind, &str)> {
    tokens.iter().map(|t| (t.kind, t.view().text)).collect()
}

/// (call, id, name, arguments) of every piece of a tool call.
pub(crate) fn calls(tokens: &[ProviderToken]) -> Vec<(u32, Option<&str>, Option<&str>, &str)> {
    let pieces = tokens.iter().filter_map(|token| {
        let call = token.tool_call.as_ref()?;
        assert_eq!(token.kind, l0_core::TokenKind::ToolCall);
        let (id, name) = (call.id.as_deref(), call.name.as_deref());
        Some((call.index, id, name, &*call.arguments))
    });
    pieces.collect()
}

/// Every finish, in the provider's spelling and as it is read.
pub(crate) fn finishes(
    tokens: &[ProviderToken],
) -> Vec<(Option<&str>, Option<l0_core::FinishReason>)> {
    let finished = tokens
        .iter()
        .filter(|token| token.finish.is_some() || token.finish_reason.is_some());
    finished
        .map(|token| (token.finish_reason.as_deref(), token.finish))
        .collect()
}
