//! Sends the requests of `rig` through [`l0_core`].
//!
//! ```no_run
//! use futures_util::StreamExt;
//! use l0_core::{Chunk, L0, Monitoring, Token};
//! use l0_rig::{Event, completion};
//! use rig_core::completion::CompletionRequest;
//! use rig_core::providers::openai::OpenAI;
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let l0 = L0::builder().monitoring(Monitoring::new()).build();
//! let model = OpenAI::from_env()?.chat("gpt-4o-mini");
//! let request = CompletionRequest::new("What is a monad?").temperature(0.2);
//!
//! let mut run = l0.stream_from(completion(&model, request)).start();
//! while let Some(chunk) = run.next().await {
//!     match chunk? {
//!         // The whole answer, once the provider has ended it.
//!         Chunk::Item(Event::Done(response)) => println!("\n{:?}", response.choice),
//!         Chunk::Item(event) => print!("{}", event.view().answer()),
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
//! | [`completion`] | a stream of [`Event`]s: the client's items, and finally its [`CompletionResponse`](rig_core::completion::CompletionResponse) | `stream_from` |
//! | [`completion_once`] | a [`CompletionResponse`](rig_core::completion::CompletionResponse) | `call_from` |
//! | [`embeddings`] | an [`EmbeddingResponse`](rig_core::embeddings::EmbeddingResponse) | `call_from` |
//! | `agent` (feature `agent`) | a stream of the items of an agent's run, including tools and further turns | `stream_from` |
//!
//! Each takes any model of the client, a `Model` or a [`DynModel`], and owns the request. L0 reads text, reasoning and
//! tool calls. The finish reason, the token counts, the model that answered and the id come from the client's own
//! response, which ends the stream. Use [`Source::map`](l0_core::Source::map) to combine requests of different clients
//! in a fallback.
//!
//! # Description of a request
//!
//! A request reports the provider and the model of the client's model, the operation (`chat`, `embeddings`,
//! `invoke_agent`), whether it streams, and the parameters `temperature`, `top_p`, `max_tokens` and `seed`. An agent's
//! run reports a model only if you set it with its method `model`.
//!
//! # Retries
//!
//! Only L0 retries: the client sends each request once. An agent repeats a request only if one of your hooks requests
//! it, or if you raise its limit for invalid tool calls. These requests are part of one attempt.
//!
//! # Errors
//!
//! An [`Error`] wraps the client's own error with its meaning for a run. An error that the provider reports, as the response or in
//! the middle of a stream, is an [`ApiError`](l0_providers::ApiError). [`l0_providers`] reads it by type, code, status,
//! the headers `Retry-After`, `retry-after-ms`, `x-ratelimit-*` and `x-should-retry`, and the delays in its message. A
//! stream that breaks off is truncated, and retried. No message contains a prompt, an answer or a body. The client's
//! own error, which prints them, is in [`Error::get_ref`].
//!
//! # TLS
//!
//! This crate enables neither TLS nor an HTTP client. Your own dependency on `rig-core` or `rig` does, with its
//! features `reqwest` and `rustls`.
//!
//! # Versions
//!
//! `rig-core` and `rig-agent` 0.44. Later versions need a newer Rust than this crate.
//!
//! # Limitations of the client
//!
//! | content | result |
//! |---|---|
//! | the server's address | absent: a model does not expose it |
//! | the name of the provider at a custom address | the client's: `openai` for every request of its OpenAI client. `.metadata("provider", ..)` on the source sets another name |
//! | a finish reason, if the provider sends none | the finish reason `other` |
//! | the token counts of a truncated answer | absent: they arrive with the response |
//! | an agent's prompt and model | absent; the model can be set with `model` |
//! | an agent's transport error | the kind that the client's text indicates, or a dropped connection |
//! | limits on the size of an answer | not available in the client |
//!
//! The client opens its own `tracing` spans, with the names of OpenTelemetry's conventions. Together with L0's spans,
//! they report the same request twice.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `agent` | no | `agent`: the runs of `rig-agent` |
//!
//! # Guide
//!
//! In the [guide](https://docs.rs/l0-core/latest/l0_core/guide/) of `l0-core`:
//!
//! - [Sources](https://docs.rs/l0-core/latest/l0_core/guide/sources/)
//! - [With what you have](https://docs.rs/l0-core/latest/l0_core/guide/with_what_you_have/)

#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "agent")]
mod agent;
mod error;
mod event;
mod request;

use rig_core::DynModel;
use rig_core::completion::CompletionRequest;
use rig_core::operation;

#[cfg(feature = "agent")]
pub use agent::{AgentError, AgentEvent, AgentEvents, AgentStream, agent};
pub use error::Error;
pub use event::{Event, Events};
pub use request::{Completion, CompletionOnce, Embeddings};

/// Creates a completion whose answer is streamed, for [`L0::stream_from`](l0_core::L0::stream_from). The request is a
/// prompt, a conversation or a [`CompletionRequest`].
pub fn completion<M>(model: &M, request: impl Into<CompletionRequest>) -> Completion
where
    M: Clone + Into<DynModel<operation::Completion>>,
{
    Completion {
        model: model.clone().into(),
        request: request.into(),
    }
}

/// Creates a completion whose answer is whole, for [`L0::call_from`](l0_core::L0::call_from).
pub fn completion_once<M>(model: &M, request: impl Into<CompletionRequest>) -> CompletionOnce
where
    M: Clone + Into<DynModel<operation::Completion>>,
{
    CompletionOnce {
        model: model.clone().into(),
        request: request.into(),
    }
}

/// Creates a request for embeddings of texts, for [`L0::call_from`](l0_core::L0::call_from).
pub fn embeddings<M, T>(model: &M, texts: impl IntoIterator<Item = T>) -> Embeddings
where
    M: Clone + Into<DynModel<operation::Embedding>>,
    T: Into<String>,
{
    Embeddings {
        model: model.clone().into(),
        texts: texts.into_iter().map(Into::into).collect(),
    }
}
