//! Reads a `reqwest::Response`: its status, wait and error, or else its tokens.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_core::Stream;
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, HeaderMap};

use crate::completion::{Completion, Gathered};
use crate::decode::{Decoder, Dialect};
use crate::embeddings::{self, Embeddings};
use crate::error::{
    AnswerTooLarge, ApiError, EventTooLarge, NotAnAnswer, ProviderError, RequestError,
};
use crate::error_response::MAX_ERROR_BODY;
use crate::opening::{begins_like_events, is_space};
use crate::request::Call;

/// The tokens of a `reqwest` response.
pub type ProviderStream = Decoder<BodyStream>;

/// Parts of the content types of protocols that are not event streams.
const OTHER_PROTOCOLS: [&str; 7] = [
    "ndjson",
    "jsonl",
    "json-seq",
    "amazon.eventstream",
    "grpc",
    "protobuf",
    "multipart/",
];

/// The bytes of a `reqwest::Response`'s body. Its errors do not contain the address.
pub struct BodyStream {
    /// Bytes that were peeked at and not yet yielded.
    first: Bytes,
    rest: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
}

impl BodyStream {
    fn new(response: Response) -> Self {
        Self {
            first: Bytes::new(),
            rest: Box::pin(response.bytes_stream()),
        }
    }

    /// Reads up to the first significant byte.
    async fn peek(&mut self) -> reqwest::Result<()> {
        while self.first.is_empty()
            && let Some(chunk) = poll_fn(|cx| self.rest.as_mut().poll_next(cx)).await
        {
            let mut chunk = chunk.map_err(reqwest::Error::without_url)?;
            let start = chunk.iter().position(|byte| !is_space(byte));
            self.first = chunk.split_off(start.unwrap_or(chunk.len()));
        }
        Ok(())
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream").finish_non_exhaustive()
    }
}

impl Stream for BodyStream {
    type Item = reqwest::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.first.is_empty() {
            return Poll::Ready(Some(Ok(std::mem::take(&mut self.first))));
        }
        let chunk = self.rest.as_mut().poll_next(cx);
        chunk.map_err(reqwest::Error::without_url)
    }
}

/// Reads a response: its tokens, or the error that its status or body reports.
pub(crate) async fn from_response(
    response: Response,
    dialect: Box<dyn Dialect>,
    max_event_bytes: usize,
) -> Result<ProviderStream, RequestError> {
    let response = successful(response).await?;
    let content_type = content_type(response.headers());
    let mut body = BodyStream::new(response);
    let decoder = |body| Decoder::of(body, dialect).max_event_bytes(max_event_bytes);
    if content_type == "text/event-stream" {
        return Ok(decoder(body));
    }
    // The content type may be wrong.
    body.peek().await.map_err(ProviderError::Transport)?;
    if begins_like_events(&body.first) {
        return Ok(decoder(body));
    }
    let not_an_answer = || ProviderError::NotAnAnswer(NotAnAnswer::of(content_type.clone()));
    if is_json(&content_type) {
        // The whole answer, or an error in its place.
        let mut answer = decoder(body);
        return match answer.first().await {
            Some(Ok(())) => Ok(answer),
            Some(Err(ProviderError::NotAnAnswer(not)))
                if not.content_type != "application/json" =>
            {
                Err(ProviderError::NotAnAnswer(not))
            }
            Some(Err(ProviderError::NotAnAnswer(_))) | None => Err(not_an_answer()),
            Some(Err(error)) => Err(error),
        };
    }
    // The decoder searches JSON for an answer or an error.
    let other = OTHER_PROTOCOLS.iter().any(|of| content_type.contains(of));
    if content_type == "text/html" || (other && !body.first.starts_with(b"{")) {
        return Err(not_an_answer());
    }
    Ok(decoder(body))
}

/// Creates a streaming call in this dialect.
pub(crate) fn stream<D: Dialect + Default + 'static>(
    operation: &'static str,
) -> Call<ProviderStream> {
    Call {
        operation,
        streaming: true,
        read: |response, reading| {
            Box::pin(async move {
                let dialect = Box::new(D::default());
                let stream = from_response(response, dialect, reading.max_event_bytes).await?;
                Ok(stream.hiding(reading.secrets))
            })
        },
    }
}

/// Creates a call for a whole answer in this dialect. A stream in its place is read too.
pub(crate) fn whole<D: Dialect + Default + 'static>(operation: &'static str) -> Call<Completion> {
    Call {
        operation,
        streaming: false,
        read: |response, reading| {
            Box::pin(async move {
                let limit = reading.max_answer_bytes;
                let dialect = Box::new(D::default());
                let tokens = from_response(response, dialect, limit).await;
                let tokens = tokens.map_err(whole_too_large)?;
                let mut tokens = tokens.hiding(reading.secrets);
                let mut answer = Gathered::new(limit);
                while let Some(token) = poll_fn(|cx| Pin::new(&mut tokens).poll_next(cx)).await {
                    answer.push(token.map_err(whole_too_large)?)?;
                }
                answer.finish()
            })
        },
    }
}

/// Reports an event that is too large as an answer that is too large, as both have the same limit here.
fn whole_too_large(error: RequestError) -> RequestError {
    match error {
        ProviderError::EventTooLarge(EventTooLarge { limit }) => answer_too_large(limit),
        error => error,
    }
}

fn answer_too_large(limit: usize) -> RequestError {
    ProviderError::AnswerTooLarge(AnswerTooLarge { limit, of: "bytes" })
}

/// Creates a call for embeddings.
pub(crate) fn embeddings() -> Call<Embeddings> {
    Call {
        operation: "embeddings",
        streaming: false,
        read: |response, reading| {
            Box::pin(async move {
                let body = json(response, reading.max_answer_bytes).await?;
                let embeddings = embeddings::read(&body);
                let mut embeddings = embeddings.map_err(|fault| fault.widen())?;
                let Embeddings {
                    model, response_id, ..
                } = &mut embeddings;
                reading.secrets.hide_in_all([model, response_id]);
                Ok(embeddings)
            })
        },
    }
}

/// Reads the whole body of a response that is JSON and never a stream.
async fn json(response: Response, max_bytes: usize) -> Result<Vec<u8>, RequestError> {
    let response = successful(response).await?;
    let content_type = content_type(response.headers());
    let mut body = BodyStream::new(response);
    body.peek().await.map_err(ProviderError::Transport)?;
    if !body.first.starts_with(b"{") {
        return Err(ProviderError::NotAnAnswer(NotAnAnswer::of(content_type)));
    }
    let body = read_up_to(body, max_bytes.saturating_add(1)).await;
    let body = body.map_err(ProviderError::Transport)?;
    if body.len() > max_bytes {
        return Err(answer_too_large(max_bytes));
    }
    Ok(body)
}

fn is_json(content_type: &str) -> bool {
    content_type == "application/json" || content_type.ends_with("+json")
}

/// Returns a response with a successful status, or the error that it reports.
async fn successful(response: Response) -> Result<Response, RequestError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let error = ApiError::from_response(response).await;
    Err(ProviderError::Api(Box::new(error)))
}

impl ApiError {
    /// Reads a response whose status is not a success: its status, the headers for waits and retries, and the error in
    /// its body, in any shape. At most 64 KiB of the body are read.
    ///
    /// Use it with your own HTTP client.
    pub async fn from_response(response: Response) -> Self {
        let status = response.status();
        let headers = response.headers().clone();
        // The status is known, so a body that breaks off only loses detail.
        let body = read_up_to(BodyStream::new(response), MAX_ERROR_BODY)
            .await
            .unwrap_or_default();
        let headers = headers.iter().filter_map(|(name, value)| {
            let value = value.to_str().ok()?;
            Some((name.as_str(), value))
        });
        let body = String::from_utf8_lossy(&body);
        Self::read(Some(status.as_u16()), headers, &body)
    }
}

/// The content type without parameters, in lower case; empty if there is none.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next();
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}

async fn read_up_to(mut chunks: BodyStream, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(chunk) = poll_fn(|cx| Pin::new(&mut chunks).poll_next(cx)).await
    {
        let chunk = chunk?;
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
    }
    Ok(body)
}
