//! `rig` through L0.
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
