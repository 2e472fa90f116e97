//! Decode the streams of LLM providers into tokens for [`l0_core`].
//!
//! Give a decoder the bytes of a response, from whatever HTTP client you use, and it gives
//! [`ProviderToken`]s: text, reasoning, pieces of tool calls, token counts, finish reason. What
//! people are to read of one is its [`answer`](ProviderToken::answer), and [`ToolCalls`] puts the
//! pieces of calls together. They
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
//!     answer.push_str(token?.answer());
//! }
//! # Ok(answer)
//! # }
//! # let answer = futures_util::FutureExt::now_or_never(example()).unwrap().unwrap();
//! # assert_eq!(answer, "hi");
//! ```
//!
//! Decoding is strict about what it must be sure of (UTF-8, whole JSON, when a response is
//! complete) and lenient about the rest: a field of an unexpected type reads like an absent one.
//! Memory is bounded, whatever the server sends. Nothing panics on any input. A body that is no event
//! stream is told by how it begins: one that is the whole answer as JSON is read as such, and another
//! fails with [`ProviderError::NotAnAnswer`]. A decoder that reads
//! on and on without anything to give yields to the executor.
//!
//! Images, audio and files are tokens of kind [`Media`](l0_core::TokenKind::Media): they count, but
//! their data is not read. Text and arguments that a provider sends whole, in place of pieces or
//! after them, are given once.
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `openai` | yes | [`openai`]: Chat Completions, as OpenAI, Azure, Groq, DeepSeek, Mistral, xAI, OpenRouter, vLLM, Ollama and LM Studio speak it |
//! | `responses` | yes | [`openai::responses`]: OpenAI's Responses |
//! | `anthropic` | yes | [`anthropic`]: Anthropic's Messages |
//! | `gemini` | yes | [`gemini`]: Google's `streamGenerateContent` |
//! | `ollama` | yes | [`ollama`]: Ollama's own API, `/api/chat` and `/api/generate` |
//! | `reqwest` | no | a small client for each, such as `openai::Client`, whose requests are sources for runs and calls; and `from_response` for a `reqwest::Response` |
//! | `testing` | no | `testing::ScriptedProvider`, a provider on the loopback that answers by a script |
//!
//! The feature `reqwest` chooses no TLS. To reach `https` addresses, switch on one of reqwest's in
//! your own `Cargo.toml`: `reqwest = { version = "0.13", features = ["rustls"] }`.
//!
//! A stream that another crate makes needs no decoder: `view_with` on the run's builder takes a
//! function that reads its items. The crates `l0-async-openai`, `l0-genai` and `l0-rig` have sources for
//! their clients. Whoever writes a source for another client reads its errors with [`ApiError::read`], and
//! gives its counts the one meaning with [`normalise`].
//!
//! # Numbers
//!
//! Three numbers are easily taken for one another. A [`ProviderToken`] is one piece of what the
//! provider sends, which `L0` counts; the model's own tokens are only known from the provider's
//! [`usage`](ProviderToken::usage), which is absent if it sends none, and never guessed; and a text
//! has characters. No two of them follow from each other.

#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(clippy::doc_markdown, reason = "the names of providers are no code")]
#![cfg_attr(
    not(all(
        feature = "responses",
        feature = "anthropic",
        feature = "gemini",
        feature = "ollama"
    )),
    allow(dead_code, reason = "no dialect needs all that they have in common")
)]

#[cfg(feature = "anthropic")]
pub mod anthropic;
#[cfg(feature = "reqwest")]
mod client;
#[cfg(feature = "reqwest")]
mod completion;
mod decode;
#[cfg(feature = "reqwest")]
mod embeddings;
mod error;
mod error_response;
mod finish;
mod frames;
#[cfg(feature = "gemini")]
pub mod gemini;
#[cfg(feature = "reqwest")]
mod hosts;
#[cfg(feature = "reqwest")]
mod http_response;
mod lenient;
mod lines;
#[cfg(feature = "ollama")]
pub mod ollama;
#[cfg(feature = "openai")]
pub mod openai;
mod repair;
mod report;
#[cfg(feature = "reqwest")]
mod request;
mod response;
mod secrets;
mod sse;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod tool_calls;
mod usage;
mod wait;

#[cfg(feature = "reqwest")]
pub use client::{Client, ClientError, Provider};
#[cfg(feature = "reqwest")]
pub use completion::Completion;
pub use decode::Decoder;
#[cfg(feature = "reqwest")]
pub use embeddings::Embeddings;
#[cfg(feature = "reqwest")]
pub use error::RequestError;
pub use error::{
    AnswerTooLarge, ApiError, EventTooLarge, InvalidJson, InvalidRequest, InvalidUtf8, NotAnAnswer,
    ProviderError,
};
#[cfg(feature = "reqwest")]
pub use hosts::provider_at;
#[cfg(feature = "reqwest")]
pub use http_response::{BodyStream, ProviderStream};
#[cfg(feature = "reqwest")]
pub use request::{Connecting, ProviderRequest};
pub use token::{ProviderToken, ToolCall};
pub use tool_calls::{InvalidArguments, TooManyCalls, ToolCalls, WholeCall};
pub use usage::normalise;
