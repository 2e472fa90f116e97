//! Send the requests of an [`async_openai`] client through [`l0_core`].
//!
//! Make the client as this crate's [`Client`], and give its requests to an [`L0`](l0_core::L0):
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
//! let client = Client::new(); // the address and the key are those of the environment
//! let request = CreateChatCompletionRequestArgs::default()
//!     .model("gpt-4o-mini")
//!     .messages([ChatCompletionRequestUserMessage::from("What is a monad?").into()])
//!     .build()?;
//!
//! let mut run = l0.stream_from(chat(&client, request)).start();
//! while let Some(chunk) = run.next().await {
//!     match chunk? {
//!         Chunk::Item(chunk) => {
//!             // The client's own type, by `Deref`.
//!             for choice in &chunk.choices {
//!                 print!("{}", choice.delta.content.as_deref().unwrap_or_default());
//!             }
//!         }
//!         Chunk::Restart { .. } => println!(), // a retry: what was shown so far is void
//!     }
//! }
//! println!("\n{}", run.telemetry().ok_or("monitoring is on")?);
//! # Ok(())
//! # }
//! ```
//!
//! | function | gives | for |
//! |---|---|---|
//! | [`chat`] | a stream of [`CreateChatCompletionStreamResponse`](async_openai::types::chat::CreateChatCompletionStreamResponse) | `stream_from` |
//! | [`chat_once`] | a [`CreateChatCompletionResponse`](async_openai::types::chat::CreateChatCompletionResponse) | `call_from` |
//! | [`responses`] | a stream of [`ResponseStreamEvent`](async_openai::types::responses::ResponseStreamEvent) | `stream_from` |
//! | [`responses_once`] | a [`Response`](async_openai::types::responses::Response) | `call_from` |
//! | [`embeddings`] | a [`CreateEmbeddingResponse`](async_openai::types::embeddings::CreateEmbeddingResponse) | `call_from` |
//!
//! Each takes the client's own request and gives the client's own types, [`Viewed`] by L0: their text,
//! reasoning and tool calls, the finish reason, the token counts in the meaning of
//! [`Usage`](l0_core::Usage), the model and the id of the response. [`ClientRequest`] lists what a request
//! says of itself. By [`Source::map`](l0_core::Source::map) it stands in for another client's request in a
//! fallback, or that one for it.
//!
//! # Who asks again
//!
//! L0 alone. An [`async_openai::Client`] asks up to four times by itself where the answer is 429, 5xx or a
//! connection that was not made, so that an `L0` of three attempts would send twelve requests, and know of
//! three. A client that exists cannot be told to stop; hence [`Client`], which is made in the same ways
//! (`new`, `with_config`, `build`, `with_http_client`, `with_http_service`), is one by `Deref`, and sends
//! each request once, also those that are sent without L0.
//!
//! # How it fails
//!
//! An [`Error`] says in its type what failed. What a provider reports, as the response or in mid-stream, is
//! an [`ApiError`](l0_providers::ApiError), read as [`l0_providers`] reads it: by type, code, status and
//! what the provider's words say of waiting. The headers `Retry-After`, `retry-after-ms`, `x-ratelimit-*` and
//! `x-should-retry` count, though the client passes over them. Prompts, answers and bodies are in no
//! message.
//!
//! # TLS
//!
//! This crate chooses none. Your own dependency on `async-openai` does: `rustls` is one of its default
//! features. This crate needs, and so switches on, its features `chat-completion`, `responses`,
//! `embedding` and `middleware`; the last one adds the variant `Boxed` to its error type.
//!
//! # What the client loses
//!
//! | what | becomes |
//! |---|---|
//! | a finish reason that the API does not have (`eos`, `error`) | an error of the client, fatal; the text before it has been given |
//! | an answer without a field that the API always sends (`created`, `id`; of embeddings, `usage`) | an error of the client, fatal |
//! | reasoning in Chat Completions (`reasoning_content`, `reasoning`) | nothing: the client's type has no such field. The token count has it |
//! | an end mark (`[DONE]`) without a finish reason | a truncated answer, which is asked for again: the client does not tell it from a stream that was cut |
//! | why a connection broke in mid-stream (reset, timed out) | a network error of type `partial_chunks`: the client keeps a text that says no more |
//! | in Responses, an event of a type that the client does not know | nothing: it is passed over |
//! | further pieces in one chunk: a second choice (`n`), a second tool call | the client's items have them; L0 counts and reads the first |
//! | headers of an answer that succeeds, such as the request's id | nothing |
//! | that the reader is slow | nothing: the client reads on in a task of its own, into memory without a limit, until the run is dropped. It needs Tokio |
//! | what it cannot read | a record of level `error` in `tracing`, the text of the answer included: filter its target `async_openai` |
//!
//! An answer of status 4xx or 5xx is read before the client sees it, and is in no log. What the client loses,
//! [`l0_providers::openai`] does not.

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
pub use request::{ClientRequest, Connecting};
pub use responses::{responses, responses_once};
pub use stream::AnswerStream;
pub use viewed::Viewed;
