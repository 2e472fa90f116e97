//! Decodes the streams of LLM providers into tokens for [`l0_core`].
//!
//! A decoder takes the bytes of a response, from any HTTP client, and yields [`ProviderToken`]s: text, reasoning,
//! pieces of tool calls, token counts and the finish reason. [`answer`](ProviderToken::answer) returns the text to
//! display, and [`ToolCalls`] joins the pieces of calls. Tokens implement [`l0_core::Token`], so `L0` wraps the stream
//! directly. It reads from a [`ProviderError`] whether to retry.
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
//! Decoding is strict about UTF-8, whole JSON and the end of a response. It is lenient about the rest: a field of an
//! unexpected type is read as absent. Memory is bounded, whatever the server sends. No input causes a panic. A body
//! that is not an event stream is recognized by how it begins. A whole answer as JSON is read; any other body fails
//! with [`ProviderError::NotAnAnswer`]. A decoder that reads for long without yielding a token yields to the executor.
//!
//! Images, audio and files are tokens of kind [`Media`](l0_core::TokenKind::Media). They count as tokens, but their
//! data is not read. Text and arguments that a provider sends whole, instead of in pieces or after them, are yielded
//! once.
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `openai` | yes | [`openai`]: Chat Completions, as OpenAI, Azure, Groq, DeepSeek, Mistral, xAI, OpenRouter, vLLM, Ollama and LM Studio speak it |
//! | `responses` | yes | [`openai::responses`]: OpenAI's Responses |
//! | `anthropic` | yes | [`anthropic`]: Anthropic's Messages |
//! | `gemini` | yes | [`gemini`]: Google's `streamGenerateContent` |
//! | `ollama` | yes | [`ollama`]: Ollama's own API, `/api/chat` and `/api/generate` |
//! | `reqwest` | no | a small client for each, such as `openai::Client`, whose requests are sources of runs and calls; and `from_response` for a `reqwest::Response` |
//! | `testing` | no | `testing::ScriptedProvider`, a provider on the loopback interface that follows a script |
//!
//! The feature `reqwest` enables no TLS. To reach `https` addresses, enable one of reqwest's TLS features in your own
//! `Cargo.toml`: `reqwest = { version = "0.13", features = ["rustls"] }`.
//!
//! The stream of another crate needs no decoder: pass a function that reads its items to `view_with` of the run's
//! builder. The crates `l0-async-openai`, `l0-genai` and `l0-rig` have sources for their clients. If you write a source
//! for another client, read its errors with [`ApiError::read`] and convert its token counts with [`normalize`].
//!
//! # Numbers
//!
//! Three numbers are easily confused, and none can be derived from another. A [`ProviderToken`] is one piece of the
//! provider's stream; `L0` counts these. The model's own tokens are known only from the provider's
//! [`usage`](ProviderToken::usage), which is absent if it sends none and is never guessed. A text has characters.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Sources](https://docs.rs/l0-core/latest/l0_core/guide/sources/)
//! - [Tool calls](https://docs.rs/l0-core/latest/l0_core/guide/tool_calls/)

#![cfg_attr(docsrs, feature(doc_cfg))]
#![allow(clippy::doc_markdown, reason = "names of providers are not code")]
#![cfg_attr(
    not(all(
        feature = "responses",
        feature = "anthropic",
        feature = "gemini",
        feature = "ollama"
    )),
    allow(dead_code, reason = "no dialect uses everything that they share")
)]

#[cfg(feature = "anthropic")]
pub mod anthropic;
mod classify;
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
mod opening;
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
pub use request::ProviderRequest;
pub use token::{ProviderToken, ToolCall};
pub use tool_calls::{InvalidArguments, TooManyCalls, ToolCalls, WholeCall};
pub use usage::normalize;
