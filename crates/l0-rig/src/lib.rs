//! Send the requests of `rig` through [`l0_core`].
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
//!         // The whole answer, when the provider has ended it.
//!         Chunk::Item(Event::Done(response)) => println!("\n{:?}", response.choice),
//!         Chunk::Item(event) => print!("{}", event.view().answer()),
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
//! | [`completion`] | a stream of [`Event`]s: the client's items, and at last its [`CompletionResponse`](rig_core::completion::CompletionResponse) | `stream_from` |
//! | [`completion_once`] | a [`CompletionResponse`](rig_core::completion::CompletionResponse) | `call_from` |
//! | [`embeddings`] | an [`EmbeddingResponse`](rig_core::embeddings::EmbeddingResponse) | `call_from` |
//! | `agent` (feature `agent`) | a stream of the items of an agent's run, tools and further turns included | `stream_from` |
//!
//! Each takes any model of the client, a `Model` or a [`DynModel`], and owns the request. L0 reads text,
//! reasoning and tool calls; the finish reason, the token counts, the model that answers and the id come
//! with the client's own response, which ends the stream. By [`Source::map`](l0_core::Source::map),
//! requests fit into fallbacks beside those of other clients.
//!
//! # What a request says of itself
//!
//! The provider and the model, as the client's model has them; the operation (`chat`, `embeddings`,
//! `invoke_agent`); whether it streams; and the parameters `temperature`, `top_p`, `max_tokens` and
//! `seed`. An agent's run says of its model only what its method `model` is told.
//!
//! # Who asks again
//!
//! L0 alone: the client sends each request once. An agent asks again only where one of your hooks tells
//! it to, or a limit for invalid tool calls is raised; these requests are part of one attempt.
//!
//! # How it fails
//!
//! An [`Error`] tells what the client's own error means. What a provider reports, as the response or in
//! mid-stream, is an [`ApiError`](l0_providers::ApiError), read as [`l0_providers`] reads it: by type,
//! code, status, the headers `Retry-After`, `retry-after-ms`, `x-ratelimit-*` and `x-should-retry`, and what
//! the provider's words say of waiting. An answer that is cut is truncated, and asked for again. Prompts,
//! answers and bodies are in no message; the client's own error, which prints them, is in
//! [`Error::get_ref`].
//!
//! # TLS
//!
//! This crate chooses none, and no HTTP client. Your own dependency on `rig-core` or `rig` does:
//! `reqwest` and `rustls` are features of theirs.
//!
//! # Versions
//!
//! `rig-core` and `rig-agent` 0.44. Later versions need a later Rust than this crate.
//!
//! # What the client loses
//!
//! | what | becomes |
//! |---|---|
//! | the server's address | absent: a model does not tell it |
//! | the name of the provider behind an address of your own | the client's: `openai` for all that its OpenAI client asks. `.metadata("provider", ..)` on the source names another |
//! | a reason why the answer ended, if the provider gives none | the finish reason `other` |
//! | of an answer that is cut, the token counts that came before | absent: they come with the response |
//! | what an agent is asked, and its model | absent; the model, unless `model` tells it |
//! | an agent's transport error | the kind that the client's text tells, or that a connection was dropped |
//! | limits on the size of an answer | the client has none |
//!
//! The client opens spans of `tracing` of its own, with the names of OpenTelemetry's conventions: beside
//! those of L0 they tell of the same request twice.
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `agent` | no | `agent`: the runs of `rig-agent` |

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
pub use request::{ByAnswer, Completion, CompletionOnce, Connecting, Embeddings};

/// Creates a completion whose answer comes as a stream, for
/// [`L0::stream_from`](l0_core::L0::stream_from). The request is a prompt, a conversation or a
/// [`CompletionRequest`].
pub fn completion<M>(model: &M, request: impl Into<CompletionRequest>) -> Completion
where
    M: Clone + Into<DynModel<operation::Completion>>,
{
    Completion {
        model: model.clone().into(),
        request: request.into(),
    }
}

/// Creates a completion whose answer comes whole, for [`L0::call_from`](l0_core::L0::call_from).
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
