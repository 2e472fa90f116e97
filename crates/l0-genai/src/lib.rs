//! `genai` through L0.
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
