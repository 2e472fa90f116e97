//! WIP
mod chat;
mod client;
mod embeddings;
mod error;
mod request;
mod responses;
mod stream;
mod usage;
mod viewed;

pub use chat::{chat, chat_once};
pub use client::Client;
pub use embeddings::embeddings;
pub use error::Error;
pub use request::{ClientRequest, Connecting};
pub use responses::{responses, responses_once};
pub use stream::AnswerStream;
pub use viewed::Viewed;
