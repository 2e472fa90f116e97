//! Decode the streams of LLM providers into tokens for [`l0_core`].
//!
//! Give a decoder the bytes of a response, from whatever HTTP client you use, and it gives
//! [`ProviderToken`]s: text, reasoning, pieces of tool calls, token counts, finish reason. They
//! implement [`l0_core::Token`], so `L0` wraps the stream as it is; and a [`ProviderError`] tells
//! it what to retry.
//!
//! ```
//! use futures_util::{StreamExt, stream};
//! use l0_providers::{ProviderError, openai};
//!
//! # fn bytes_from_your_http_client()
//! # -> impl futures_util::Stream<Item = Result<&'static [u8], std::io::Error>> + Unpin {
//! #     stream::iter([Ok(&b"data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\n"[..])])
//! # }
//! # async fn example() -> Result<String, ProviderError<std::io::Error>> {
//! let mut answer = String::new();
//! let mut tokens = openai::decode(bytes_from_your_http_client());
//! while let Some(token) = tokens.next().await {
//!     answer.push_str(&token?.text);
//! }
//! # Ok(answer)
//! # }
//! # let answer = futures_util::FutureExt::now_or_never(example()).unwrap().unwrap();
//! # assert_eq!(answer, "hi");
//! ```
//!
//! Decoding is strict about what it must be sure of (UTF-8, whole JSON, when a response is
//! complete) and lenient about the rest: a field of an unexpected type reads like an absent one.
//! Memory is bounded, whatever the server sends. Nothing panics on any input.
//!
//! | module | format | spoken by |
//! |---|---|---|
//! | [`openai`] | Chat Completions | OpenAI, Azure, Groq, DeepSeek, Mistral, xAI, OpenRouter, vLLM, Ollama, LM Studio |
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `reqwest` | no | `openai::Client`, a small streaming client, and `openai::from_response` for a `reqwest::Response` |
//!
//! The feature `reqwest` chooses no TLS. To reach `https` addresses, switch on one of reqwest's in
//! your own `Cargo.toml`: `reqwest = { version = "0.13", features = ["rustls"] }`.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(clippy::doc_markdown, reason = "the names of providers are no code")]

mod decode;
mod error;
mod lenient;
pub mod openai;
mod sse;
mod token;

pub use error::{
    ApiError, EventTooLarge, InvalidJson, InvalidRequest, InvalidUtf8, NotAStream, ProviderError,
};
pub use token::{ProviderToken, ToolCall};
