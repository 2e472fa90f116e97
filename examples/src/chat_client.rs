//! A client of the chat application. It sends a chat and reads its events.

use std::error::Error;
use std::fmt;
use std::net::SocketAddr;

use futures_util::{Stream, StreamExt, future};
use reqwest::StatusCode;
use reqwest::header::CONTENT_TYPE;
use serde_json::{Value, json};
use sse_stream::{Sse, SseByteStream};

/// Any error of a chat.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// One event of an answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatEvent {
    /// The name, such as `token`.
    pub name: String,
    /// The data.
    pub data: Value,
}

/// The application refused a chat.
#[derive(Debug)]
pub struct Refused(pub StatusCode);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the chat was refused: {}", self.0)
    }
}

impl Error for Refused {}

/// Sends a chat to a model, or to the default one. Dropping the stream before its end closes the
/// connection.
///
/// # Errors
///
/// [`Refused`] if the application refuses the chat, or another error if it cannot be reached. An error
/// in the stream is a broken connection, or an event that cannot be read.
pub async fn chat(
    http: &reqwest::Client,
    address: SocketAddr,
    model: Option<&str>,
    prompt: &str,
) -> Result<impl Stream<Item = Result<ChatEvent, BoxError>> + Unpin + Send + use<>, BoxError> {
    let body = json!({ "prompt": prompt, "model": model });
    let response = http
        .post(format!("http://{address}/chat"))
        .header(CONTENT_TYPE, "application/json")
        .body(body.to_string())
        .send()
        .await?;
    if !response.status().is_success() {
        return Err(Refused(response.status()).into());
    }
    let events = SseByteStream::new(Box::pin(response.bytes_stream()));
    Ok(events.filter_map(|event| future::ready(read(event).transpose())))
}

/// Returns `None` for a block without data.
fn read(block: Result<Sse, sse_stream::Error>) -> Result<Option<ChatEvent>, BoxError> {
    let block = block?;
    let Some(data) = block.data else {
        return Ok(None);
    };
    Ok(Some(ChatEvent {
        name: block.event.unwrap_or_else(|| "message".to_owned()),
        data: serde_json::from_str(&data)?,
    }))
}
