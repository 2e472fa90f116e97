//! Sends the requests of an [`async_openai`] client through [`l0_core`].
//!
//! Create this crate's [`Client`] and pass its requests to an [`L0`](l0_core::L0):
//!
//! ```no_run
//! use async_openai::types::chat::{
//!     ChatCompletionRequestUserMessage, CreateChatCompletionRequestArgs,
//! };
//! use futures_util::StreamExt;
//! use l0_async_openai::{Client, chat};
//! use l0_core::{Chunk, L0, Monitoring, Retry};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let l0 = L0::builder().monitoring(Monitoring::new()).retry(Retry::new()).build();
//! let client = Client::new(); // reads the address and the key from the environment
//! let request = CreateChatCompletionRequestArgs::default()
//!     .model("gpt-4o-mini")
//!     .messages([ChatCompletionRequestUserMessage::from("What is a monad?").into()])
//!     .build()?;
//!
//! let mut run = l0.stream_from(chat(&client, request)).start();
//! while let Some(chunk) = run.next().await {
//!     match chunk? {
//!         Chunk::Item(chunk) => {
//!             // Dereferences to the client's own type.
//!             for choice in &chunk.choices {
//!                 print!("{}", choice.delta.content.as_deref().unwrap_or_default());
//!             }
//!         }
//!         Chunk::Restart { .. } => println!(), // a retry: discard the text so far
//!     }
//! }
//! println!("\n{}", run.telemetry().ok_or("monitoring is off")?);
//! # Ok(())
//! # }
//! ```
//!
//! | function | returns | for |
//! |---|---|---|
//! | [`chat`] | a stream of [`CreateChatCompletionStreamResponse`](async_openai::types::chat::CreateChatCompletionStreamResponse) | `stream_from` |
//! | [`chat_once`] | a [`CreateChatCompletionResponse`](async_openai::types::chat::CreateChatCompletionResponse) | `call_from` |
//! | [`responses`] | a stream of [`ResponseStreamEvent`](async_openai::types::responses::ResponseStreamEvent) | `stream_from` |
//! | [`responses_once`] | a [`Response`](async_openai::types::responses::Response) | `call_from` |
//! | [`embeddings`] | a [`CreateEmbeddingResponse`](async_openai::types::embeddings::CreateEmbeddingResponse) | `call_from` |
//!
//! Each takes the client's own request and returns the client's own types in a [`Viewed`]. L0 reads their text,
//! reasoning and tool calls, the finish reason, the token counts with the meaning of [`Usage`](l0_core::Usage), and the
//! model and id of the response. [`ClientRequest`] lists what a request reports about itself. Use
//! [`Source::map`](l0_core::Source::map) to combine requests of different clients in a fallback.
//!
//! # Retries
//!
//! Only L0 retries. An [`async_openai::Client`] sends a request up to four times by itself if the answer is 429 or 5xx,
//! or if the connection fails. With an `L0` of three attempts, that is twelve requests, of which L0 reports three.
//! Retries cannot be disabled in an existing client, so this crate has its own [`Client`]. It is created in the same
//! ways (`new`, `with_config`, `build`, `with_http_client`, `with_http_service`), dereferences to the original, and
//! sends each request once, including requests without L0.
//!
//! # Errors
//!
//! The variants of [`Error`] show what failed. An error that the provider reports, as the response or in the middle of
//! a stream, is an [`ApiError`](l0_providers::ApiError). [`l0_providers`] reads it by type, code, status and the delays
//! in its message. The headers `Retry-After`, `retry-after-ms`, `x-ratelimit-*` and `x-should-retry` count, although
//! the client ignores them. No message contains a prompt, an answer or a body.
//!
//! # TLS
//!
//! This crate enables no TLS. Your own dependency on `async-openai` does: `rustls` is one of its default features. This
//! crate needs, and so enables, its features `chat-completion`, `responses`, `embedding` and `middleware`. The last one
//! adds the variant `Boxed` to its error type.
//!
//! # Limitations of the client
//!
//! | content | result |
//! |---|---|
//! | a finish reason that the API does not define (`eos`, `error`) | a fatal error of the client, after the text before it |
//! | an answer without a field that the API always sends (`created`, `id`; `usage` of embeddings) | a fatal error of the client |
//! | reasoning in Chat Completions (`reasoning_content`, `reasoning`) | lost: the client's type has no such field. The token count includes it |
//! | an end mark (`[DONE]`) without a finish reason | a truncated answer, which is retried: the client does not distinguish it from a stream that broke off |
//! | why a connection broke mid-stream (reset, timeout) | a network error of type `partial_chunks`: the client keeps a text without the reason |
//! | in Responses, an event of a type that the client does not know | skipped |
//! | further pieces in one chunk: a second choice (`n`), a second tool call | present in the client's items; L0 counts and reads the first |
//! | headers of a successful answer, such as the request's id | lost |
//! | an event of more than 8 MiB | a stream that broke off, which is retried: the client keeps a text without the reason |
//! | a whole answer of more than 64 MiB | a fatal error |
//! | a slow reader | no backpressure: the client reads in its own task, into unbounded memory, until the run is dropped. It needs Tokio |
//! | a response that it cannot read | a `tracing` record of level `error` that contains the text of the answer: filter its target `async_openai` |
//!
//! A response with status 4xx or 5xx is read before the client sees it, and is not logged. [`l0_providers::openai`] has
//! none of these limitations.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Sources](https://docs.rs/l0-core/latest/l0_core/guide/sources/)
//! - [With what you have](https://docs.rs/l0-core/latest/l0_core/guide/with_what_you_have/)

mod chat;
mod client;
mod embeddings;
mod error;
mod request;
mod responses;
mod stream;
mod viewed;

pub use chat::{chat, chat_once};
pub use client::Client;
pub use embeddings::embeddings;
pub use error::Error;
pub use request::ClientRequest;
pub use responses::{responses, responses_once};
pub use stream::AnswerStream;
pub use viewed::Viewed;
