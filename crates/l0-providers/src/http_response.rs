//! What a `reqwest::Response` says: its status, how long to wait, an error, or else tokens.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_core::Stream;
use l0_core::FailureKind;
use reqwest::Response;
use reqwest::header::{CONTENT_TYPE, DATE, HeaderMap, HeaderValue, RETRY_AFTER};

use crate::completion::{Completion, Gathered};
use crate::decode::{Decoder, Dialect};
use crate::embeddings::{self, Embeddings};
use crate::error::{
    AnswerTooLarge, ApiError, EventTooLarge, NotAnAnswer, ProviderError, RequestError,
};
use crate::report::{ErrorObject, read_error};
use crate::request::Call;
use crate::sse::{begins_like_events, is_space};
use crate::wait::{parse_reset, parse_seconds};

/// The tokens of a response that came over `reqwest`.
pub type ProviderStream = Decoder<BodyStream>;

/// How much of an error's body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Parts of the content types of protocols that are no event streams.
const OTHER_PROTOCOLS: [&str; 7] = [
    "ndjson",
    "jsonl",
    "json-seq",
    "amazon.eventstream",
    "grpc",
    "protobuf",
    "multipart/",
];

/// The bytes of a `reqwest::Response`'s body. Its errors do not name the address.
pub struct BodyStream {
    /// What was looked at and is still to be given.
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

    /// Reads up to the first byte that says something.
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

/// Reads a response: its status, and an error in place of the stream, or else its tokens.
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
    // The label may be wrong.
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
    // The decoder looks for an answer or an error in JSON.
    let other = OTHER_PROTOCOLS.iter().any(|of| content_type.contains(of));
    if content_type == "text/html" || (other && !body.first.starts_with(b"{")) {
        return Err(not_an_answer());
    }
    Ok(decoder(body))
}

/// A request for a stream in this dialect.
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

/// A request for a whole answer in this dialect. A stream in its place is read too.
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

/// An event has as much room as a whole answer here.
fn whole_too_large(error: RequestError) -> RequestError {
    match error {
        ProviderError::EventTooLarge(EventTooLarge { limit }) => answer_too_large(limit),
        error => error,
    }
}

fn answer_too_large(limit: usize) -> RequestError {
    ProviderError::AnswerTooLarge(AnswerTooLarge { limit, of: "bytes" })
}

/// A request for embeddings.
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

/// Reads a response that is JSON and never a stream: all of its body.
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

/// A response with a successful status, or the error that it is.
async fn successful(response: Response) -> Result<Response, RequestError> {
    if response.status().is_success() {
        return Ok(response);
    }
    let error = ApiError::from_response(response).await;
    Err(ProviderError::Api(Box::new(error)))
}

impl ApiError {
    /// Reads a response whose status is no success: its status, what its headers say of waiting and of
    /// another attempt, and the error in its body, in whatever shape. Of the body, 64 KiB are read.
    ///
    /// For an application that sends requests with its own client.
    pub async fn from_response(response: Response) -> Self {
        let status = response.status();
        let content_type = content_type(response.headers());
        let now = SystemTime::now();
        let wait = retry_after(response.headers(), now);
        let reset = reset(response.headers(), now);
        let should_retry = match response.headers().get("x-should-retry") {
            Some(value) if value == "true" => Some(true),
            Some(value) if value == "false" => Some(false),
            _ => None,
        };
        let request_id = ["x-request-id", "request-id", "apim-request-id"]
            .iter()
            .find_map(|name| response.headers().get(*name)?.to_str().ok())
            .map(str::to_owned);
        // The status is known; a body that breaks off only takes away words.
        let body = read_up_to(BodyStream::new(response), MAX_ERROR_BODY)
            .await
            .unwrap_or_default();
        let body = String::from_utf8_lossy(&body);
        let event = event_data(&body);
        let error = read_error(&body).or_else(|| read_error(&event));
        let error = error.unwrap_or_else(|| {
            let text = body.trim();
            let is_text = !text.is_empty() && content_type == "text/plain";
            ErrorObject::from_message(is_text.then_some(text))
        });
        let error = error.into_api_error(Some(status.as_u16()));
        // The headers of a limit stand on every response.
        let reset = reset.filter(|_| error.failure().kind == FailureKind::RateLimited);
        let wait = wait.or(error.retry_after).or(reset);
        let mut error = error.retry_after(wait);
        if request_id.is_some() {
            error = error.request_id(request_id.as_deref());
        }
        error.should_retry(should_retry)
    }
}

/// Without parameters, in lower case; empty if there is none.
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

/// The data of the first event, if a body is an event stream.
fn event_data(body: &str) -> String {
    let mut data = String::new();
    for line in body.lines() {
        if let Some(more) = line.strip_prefix("data:") {
            data.push_str(more);
            data.push('\n');
        } else if line.is_empty() && !data.is_empty() {
            break;
        }
    }
    data
}

/// When the limits that are used up are reset, as `x-ratelimit-reset-tokens`,
/// `anthropic-ratelimit-requests-reset` and the like say; any limit, if it is not told which.
fn reset(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let resets = headers.iter().filter_map(|(name, value)| {
        let name = name.as_str();
        if !name.contains("ratelimit") || !name.contains("reset") {
            return None;
        }
        let wait = parse_reset(value.to_str().ok()?, now)?;
        let remaining = headers.get(name.replace("reset", "remaining"));
        let used_up = remaining.and_then(|value| value.to_str().ok()) == Some("0");
        Some((used_up, wait))
    });
    resets.max().map(|(_, wait)| wait)
}

/// How long the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let millis = headers.get("retry-after-ms").and_then(text);
    if let Some(wait) = millis.as_deref().and_then(parse_seconds) {
        return Some(wait / 1000);
    }
    let value = headers.get(RETRY_AFTER).and_then(text)?;
    if let Some(wait) = parse_seconds(&value) {
        return Some(wait);
    }
    let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let until = date(&value)?;
    // The server's own clock, if it tells the time: ours may be off.
    let sent = headers.get(DATE).and_then(text);
    let now = sent.as_deref().and_then(date).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use reqwest::header::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let check = |pairs: &[(&'static str, &str)], millis: Option<u64>| {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(retry_after(&headers(pairs), now), expected, "{pairs:?}");
        };
        check(&[], None);
        check(&[("retry-after", "2")], Some(2000));
        check(&[("retry-after", " 0.25 ")], Some(250));
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "inf")], None);
        check(&[("retry-after", "1e300")], None);
        check(&[("retry-after", "soon")], None);
        check(
            &[("retry-after", "2"), ("retry-after-ms", "1500")],
            Some(1500),
        );
        check(&[("retry-after", "2"), ("retry-after-ms", "x")], Some(2000));
        let date = ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT");
        check(&[date], Some(5000));
        check(
            &[date, ("date", "Wed, 21 Oct 2015 07:28:04 GMT")],
            Some(1000),
        );
        check(&[("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")], Some(0));
    }
}
