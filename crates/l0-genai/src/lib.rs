//! Sends the requests of a [`genai`] client through [`l0_core`].
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use genai::Client;
//! use genai::chat::{ChatRequest, ChatStreamEvent};
//! use l0_core::{Chunk, L0, Monitoring};
//! use l0_genai::chat;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let l0 = L0::builder().monitoring(Monitoring::new()).build();
//! let client = Client::new()?;
//! let request = ChatRequest::from_user("What is a monad?");
//!
//! let mut run = l0.stream_from(chat(&client, "gpt-4o-mini", request)).start();
//! while let Some(chunk) = run.next().await {
//!     match chunk? {
//!         // Dereferences to the client's own event.
//!         Chunk::Item(event) => match &*event {
//!             ChatStreamEvent::Chunk(chunk) => print!("{}", chunk.content),
//!             ChatStreamEvent::End(end) => println!("\n{:?}", end.captured_tool_calls()),
//!             _ => {}
//!         },
//!         Chunk::Restart { .. } => println!(), // a retry
//!     }
//! }
//! println!("{}", run.telemetry().ok_or("monitoring is off")?);
//! # Ok(())
//! # }
//! ```
//!
//! | function | returns | for |
//! |---|---|---|
//! | [`chat`] | a stream of [`Event`]s, which dereference to the client's [`ChatStreamEvent`](genai::chat::ChatStreamEvent)s | `stream_from` |
//! | [`chat_once`] | a [`ChatResponse`](genai::chat::ChatResponse) | `call_from` |
//! | [`embeddings`] | an [`EmbedResponse`](genai::embed::EmbedResponse) | `call_from` |
//!
//! Each takes the client's own request and any form of model that the client accepts: a name, a
//! [`ModelIden`](genai::ModelIden) or a [`ServiceTarget`](genai::ServiceTarget). `options` takes the client's own
//! options. For a stream, the options for token counts and whole tool calls are enabled. L0 reads text, reasoning and
//! tool calls, the finish reason, the token counts with the meaning of [`Usage`](l0_core::Usage), and the names that
//! the client reports. Use [`Source::map`](l0_core::Source::map) to combine requests of different clients in a
//! fallback.
//!
//! # Description of a request
//!
//! A request reports the requested model without the client's namespace, the operation (`chat`, `embeddings`), whether
//! it streams, and the parameters `temperature`, `top_p`, `max_tokens`, `seed` and the number of dimensions. The
//! provider is the one of the client's adapter. With a `ServiceTarget`, the request also reports the server's address
//! and port, and the provider is the one at that address. If that address is not known and other servers speak the
//! adapter's API, such as OpenAI's, the provider is absent. `.metadata("provider", ..)` on the source sets it.
//!
//! # Retries
//!
//! Only L0 retries: the client sends each request once. Its `stream_header_timeout` and `stream_read_timeout` are read
//! as timeouts and retried. They are distinct from [`Timeouts`](l0_core::Timeouts).
//!
//! # Errors
//!
//! An [`Error`] wraps the client's own error with its meaning for a run. An error that the provider reports, as the response or in
//! the middle of a stream, is an [`ApiError`](l0_providers::ApiError). [`l0_providers`] reads it by type, code, status,
//! the headers `Retry-After`, `retry-after-ms`, `x-ratelimit-*` and `x-should-retry`, and the delays in its message. No
//! message contains a prompt, an answer or a body. The client's own error, which prints them, is in [`Error::get_ref`].
//!
//! # TLS
//!
//! This crate enables no TLS. Your own dependency on `genai` does: `rustls-tls` is one of its default features.
//!
//! # Limitations of the client
//!
//! | content | result |
//! |---|---|
//! | the model that answers a stream | absent; present for a whole answer |
//! | the id of the response | absent, except with OpenAI's Responses |
//! | the address, unless the model is a `ServiceTarget` | absent: the client resolves it when it sends |
//! | a count of cached tokens or of reasoning that is 0 | absent: the client does not distinguish it from a missing count |
//! | a truncated answer of Gemini, Ollama or OpenAI's Responses | an end without a reason, which is read as truncated and retried |
//! | an end mark (`[DONE]`) without a finish reason, of the other providers | the finish reason `other` |
//! | a response to a streaming request that is not an event stream, such as a web page | a truncated answer, which is retried |
//! | images and audio of a stream | lost |
//! | further texts of a whole answer | present in the client's answer; L0 reads the first |
//! | why a whole answer cannot be read, including an error in a successful response | fatal: the client keeps only a text |
//! | limits on the size of an answer | not available in the client |
//! | a response that it cannot read, and errors of streams | `tracing` records of the levels `warn` and `error` that contain the bodies: filter its target `genai` |
//!
//! `genai` enables `serde_json`'s feature `preserve_order` for the whole program.
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Sources](https://docs.rs/l0-core/latest/l0_core/guide/sources/)
//! - [With what you have](https://docs.rs/l0-core/latest/l0_core/guide/with_what_you_have/)

mod error;
mod event;
mod request;
mod usage;

use genai::chat::ChatRequest;
use genai::embed::EmbedRequest;
use genai::{Client, ModelSpec};

pub use error::Error;
pub use event::{Event, Events};
pub use request::{Chat, ChatOnce, Embeddings};

/// Creates a chat whose answer is streamed, for [`L0::stream_from`](l0_core::L0::stream_from).
pub fn chat(client: &Client, model: impl Into<ModelSpec>, request: ChatRequest) -> Chat {
    Chat::new(client, model.into(), request)
}

/// Creates a chat whose answer is whole, for [`L0::call_from`](l0_core::L0::call_from).
pub fn chat_once(client: &Client, model: impl Into<ModelSpec>, request: ChatRequest) -> ChatOnce {
    ChatOnce::new(client, model.into(), request)
}

/// Creates a request for embeddings, for [`L0::call_from`](l0_core::L0::call_from).
pub fn embeddings(
    client: &Client,
    model: impl Into<ModelSpec>,
    request: EmbedRequest,
) -> Embeddings {
    Embeddings::new(client, model.into(), request)
}
