//! Send the requests of a [`genai`] client through [`l0_core`].
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
//!         // The client's own event, by `Deref`.
//!         Chunk::Item(event) => match &*event {
//!             ChatStreamEvent::Chunk(chunk) => print!("{}", chunk.content),
//!             ChatStreamEvent::End(end) => println!("\n{:?}", end.captured_tool_calls()),
//!             _ => {}
//!         },
//!         Chunk::Restart { .. } => println!(), // it is asked again
//!     }
//! }
//! println!("{}", run.telemetry().ok_or("monitoring is on")?);
//! # Ok(())
//! # }
//! ```
//!
//! | function | gives | for |
//! |---|---|---|
//! | [`chat`] | a stream of [`Event`]s, which are the client's [`ChatStreamEvent`](genai::chat::ChatStreamEvent)s | `stream_from` |
//! | [`chat_once`] | a [`ChatResponse`](genai::chat::ChatResponse) | `call_from` |
//! | [`embeddings`] | an [`EmbedResponse`](genai::embed::EmbedResponse) | `call_from` |
//!
//! Each takes the client's own request, and the model as the client takes it: a name, a
//! [`ModelIden`](genai::ModelIden) or a [`ServiceTarget`](genai::ServiceTarget). `options` takes the
//! client's own options; of a stream, those that the token counts and the whole tool calls need are
//! switched on. L0 reads text, reasoning and tool calls, the finish reason, the token counts in the
//! meaning of [`Usage`](l0_core::Usage), and the names that the client tells. By
//! [`Source::map`](l0_core::Source::map), requests fit into fallbacks beside those of other clients.
//!
//! # What a request says of itself
//!
//! The model as it was asked for, without the client's namespace; the operation (`chat`, `embeddings`);
//! whether it streams; and the parameters `temperature`, `top_p`, `max_tokens`, `seed` and the number of
//! dimensions. The provider is the one whose adapter the client takes. Of a `ServiceTarget`, the server's
//! address and port are told, and the provider is who is at that address; where it is not known, and the
//! adapter is one whose API others speak, such as OpenAI's, none is told. `.metadata("provider", ..)` on
//! the source names it.
//!
//! # Who asks again
//!
//! L0 alone: the client sends each request once. Its `stream_header_timeout` and `stream_read_timeout`
//! are read as timeouts, and asked for again; those of [`Timeouts`](l0_core::Timeouts) are told apart.
//!
//! # How it fails
//!
//! An [`Error`] tells what the client's own error means. What a provider reports, as the response or in
//! mid-stream, is an [`ApiError`](l0_providers::ApiError), read as [`l0_providers`] reads it: by type,
//! code, status, the headers `Retry-After`, `retry-after-ms`, `x-ratelimit-*` and `x-should-retry`, and what
//! the provider's words say of waiting. Prompts, answers and bodies are in no message; the client's own
//! error, which prints them, is in [`Error::get_ref`].
//!
//! # TLS
//!
//! This crate chooses none. Your own dependency on `genai` does: `rustls-tls` is one of its default
//! features.
//!
//! # What the client loses
//!
//! | what | becomes |
//! |---|---|
//! | the model that answers, of a stream | absent; of a whole answer it is there |
//! | the id of the response | absent, but of OpenAI's Responses |
//! | the address, unless the model is a `ServiceTarget` | absent: the client finds it when it sends |
//! | a count of cached tokens, or of reasoning, that is 0 | absent: the client does not tell it from none |
//! | an answer that is cut, of Gemini, Ollama and OpenAI's Responses | an end without a reason, which is read as truncated and asked for again |
//! | an end mark (`[DONE]`) without a finish reason, of the others | the finish reason `other` |
//! | a stream's response that is no event stream, such as a web page | a truncated answer, which is asked for again |
//! | images and audio, of a stream | nothing |
//! | further texts of a whole answer | the client's answer has them; L0 reads the first |
//! | why a whole answer cannot be read, an error in a response of success too | fatal: the client keeps a text |
//! | limits on the size of an answer | the client has none |
//! | what it cannot read, and errors of streams | the client writes them into `tracing` at the levels `warn` and `error`, with the bodies: filter its target `genai` |
//!
//! `genai` switches on `serde_json`'s feature `preserve_order` for the whole program.

mod error;
mod event;
mod request;
mod usage;

use genai::chat::ChatRequest;
use genai::embed::EmbedRequest;
use genai::{Client, ModelSpec};

pub use error::Error;
pub use event::{Event, Events};
pub use request::{ByAnswer, Chat, ChatOnce, Connecting, Embeddings};

/// Creates a chat whose answer comes as a stream, for [`L0::stream_from`](l0_core::L0::stream_from).
pub fn chat(client: &Client, model: impl Into<ModelSpec>, request: ChatRequest) -> Chat {
    Chat::new(client, model.into(), request)
}

/// Creates a chat whose answer comes whole, for [`L0::call_from`](l0_core::L0::call_from).
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
