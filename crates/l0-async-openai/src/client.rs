//! A client that sends each request once, and reads error responses before `async-openai` does.

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_openai::config::{Config, OpenAIConfig};
use async_openai::error::OpenAIError;
use async_openai::middleware::{HttpRequestFactory, ReqwestService};
use bytes::Bytes;
use futures_core::Stream;
use l0_core::Failure;
use l0_providers::ApiError;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tower_service::Service;

use crate::error::RejectedResponse;

/// A client of `async-openai` that sends each request once, so only L0 retries.
///
/// It is created like an [`async_openai::Client`] and dereferences to one, so all APIs of that client are available.
/// Requests through them are sent once too, with or without L0.
///
/// An `async_openai::Client` sends a request up to four times, with its own unreported delays. An existing client
/// cannot be told to stop, so the functions of this crate only accept this type.
#[derive(Clone)]
pub struct Client<C: Config = OpenAIConfig> {
    /// For direct requests of the application. Their errors are unchanged.
    plain: async_openai::Client<C>,
    /// For requests that stream.
    streams: async_openai::Client<C>,
    /// For requests for whole answers.
    whole: async_openai::Client<C>,
}

impl Client<OpenAIConfig> {
    /// Creates a client with the address and the key from the environment, as [`async_openai::Client::new`] does.
    #[must_use]
    pub fn new() -> Self {
        Self::with_config(OpenAIConfig::default())
    }
}

impl Default for Client<OpenAIConfig> {
    fn default() -> Self {
        Self::new()
    }
}

impl<C: Config + Clone> Client<C> {
    /// Creates a client with this configuration and a new `reqwest` client.
    #[must_use]
    pub fn with_config(config: C) -> Self {
        Self::build(reqwest::Client::new(), config)
    }

    /// Creates a client with this configuration and your own `reqwest` client, with its connection pool, proxies and
    /// TLS.
    #[must_use]
    pub fn build(http: reqwest::Client, config: C) -> Self {
        let client = async_openai::Client::build(http.clone(), config);
        Self::over(client, ReqwestService::new(http))
    }

    /// Sets the `reqwest` client.
    #[must_use]
    pub fn with_http_client(self, http: reqwest::Client) -> Self {
        let client = self.plain.with_http_client(http.clone());
        Self::over(client, ReqwestService::new(http))
    }

    /// Sets your own `tower` service, which must not retry: do not use `OpenAIRetryLayer` or `SimpleRetryPolicy`.
    #[must_use]
    pub fn with_http_service<S>(self, service: S) -> Self
    where
        S: Service<HttpRequestFactory, Response = Response> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<OpenAIError> + Send + Sync + 'static,
    {
        Self::over(self.plain, service)
    }

    fn over<S>(client: async_openai::Client<C>, service: S) -> Self
    where
        S: Service<HttpRequestFactory, Response = Response> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<OpenAIError> + Send + Sync + 'static,
    {
        let reading = |streams| {
            let service = Reading {
                service: service.clone(),
                streams,
            };
            client.clone().with_http_service(service)
        };
        Self {
            streams: reading(true),
            whole: reading(false),
            plain: client.with_http_service(service),
        }
    }

    pub(crate) fn for_streams(&self) -> async_openai::Client<C> {
        self.streams.clone()
    }

    pub(crate) fn for_whole_answers(&self) -> async_openai::Client<C> {
        self.whole.clone()
    }
}

impl<C: Config> Deref for Client<C> {
    type Target = async_openai::Client<C>;

    fn deref(&self) -> &async_openai::Client<C> {
        &self.plain
    }
}

/// Omits the configuration, which contains the key.
impl<C: Config> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// Limit on the bytes that are read of a body that should have been a stream.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Limit on one event of a stream, in bytes.
const MAX_EVENT_BYTES: usize = 8 * 1024 * 1024;

/// Limit on a whole answer, in bytes: enough for 2,000 long vectors.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

const TOO_LARGE: Failure = Failure::fatal().detail("the response is too large");

/// Reads error responses with their headers, which the client ignores, for every shape of body, and without logging the
/// body. Limits the other responses, which the client keeps in memory.
#[derive(Clone)]
struct Reading<S> {
    service: S,
    streams: bool,
}

impl<S> Service<HttpRequestFactory> for Reading<S>
where
    S: Service<HttpRequestFactory, Response = Response>,
    S::Future: Send + 'static,
    S::Error: Into<OpenAIError>,
{
    type Response = Response;
    type Error = OpenAIError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, OpenAIError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), OpenAIError>> {
        self.service.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: HttpRequestFactory) -> Self::Future {
        let sending = self.service.call(request);
        let streams = self.streams;
        Box::pin(async move {
            let response = sending.await.map_err(Into::into)?;
            let refused = match () {
                () if !response.status().is_success() => {
                    RejectedResponse::Api(ApiError::from_response(response).await)
                }
                () if has_subtype(&response, "html") => RejectedResponse::NotAnAnswer,
                () if streams && has_subtype(&response, "json") => match read_json(response).await?
                {
                    Ok(stream) => return Ok(stream),
                    Err(refused) => refused,
                },
                () => return Ok(limited(Bytes::new(), response, streams)),
            };
            Err(OpenAIError::Boxed(Box::new(refused)))
        })
    }
}

/// Returns `true` if the content type has this subtype or suffix.
fn has_subtype(response: &Response, subtype: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with(&format!("/{subtype}")) || essence.ends_with(&format!("+{subtype}"))
}

/// Reads a response that is labeled as JSON instead of a stream: an error, or a stream with a wrong content type.
async fn read_json(
    mut response: Response,
) -> Result<Result<Response, RejectedResponse>, OpenAIError> {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BODY
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
        match body.trim_ascii_start().first() {
            Some(b'{' | b'[') | None => {}
            Some(_) => return Ok(Ok(limited(body.into(), response, true))),
        }
    }
    let error = ApiError::from_json(&String::from_utf8_lossy(&body), None);
    Ok(Err(error.map_or(
        RejectedResponse::NotAnAnswer,
        RejectedResponse::Api,
    )))
}

/// Returns the response with the bytes that were read put back before the rest, and with a limit on its size: on each
/// event of a stream, or on the whole.
fn limited(first: Bytes, rest: Response, streams: bool) -> Response {
    let mut response = http::Response::new(());
    *response.status_mut() = rest.status();
    *response.headers_mut() = rest.headers().clone();
    let body = Body {
        first: Some(first).filter(|first| !first.is_empty()),
        rest: Some(Box::pin(rest.bytes_stream())),
        size: if streams {
            Size::event()
        } else {
            Size::whole()
        },
    };
    response.map(|()| reqwest::Body::wrap_stream(body)).into()
}

/// A body of limited size, whose first bytes may have been read. Its first error is its last item.
struct Body {
    first: Option<Bytes>,
    /// `None` after an error.
    rest: Option<Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>>,
    size: Size,
}

impl Stream for Body {
    type Item = Result<Bytes, Box<dyn StdError + Send + Sync>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = match (self.first.take(), &mut self.rest) {
            (Some(first), _) => Ok(first),
            (None, None) => return Poll::Ready(None),
            (None, Some(rest)) => match ready!(rest.as_mut().poll_next(cx)) {
                None => return Poll::Ready(None),
                Some(chunk) => chunk,
            },
        };
        let item = match chunk {
            Ok(chunk) if self.size.allows(&chunk) => Ok(chunk),
            Ok(_) => Err(TOO_LARGE.into()),
            Err(error) => Err(error.without_url().into()),
        };
        if item.is_err() {
            self.rest = None;
        }
        Poll::Ready(Some(item))
    }
}

/// Counts the bytes of a whole answer, or of the current event of a stream.
#[derive(Debug)]
struct Size {
    limit: usize,
    bytes: usize,
    /// `None` for a whole answer.
    line: Option<Line>,
}

/// The state of the current line of a stream.
#[derive(Debug)]
struct Line {
    is_empty: bool,
    after_cr: bool,
}

impl Size {
    const fn whole() -> Self {
        Self {
            limit: MAX_ANSWER_BYTES,
            bytes: 0,
            line: None,
        }
    }

    const fn event() -> Self {
        Self {
            limit: MAX_EVENT_BYTES,
            bytes: 0,
            line: Some(Line {
                is_empty: true,
                after_cr: false,
            }),
        }
    }

    /// Counts a chunk. Returns `false` if it exceeds the limit.
    fn allows(&mut self, mut chunk: &[u8]) -> bool {
        let Some(line) = &mut self.line else {
            self.bytes = self.bytes.saturating_add(chunk.len());
            return self.bytes <= self.limit;
        };
        while let Some(end) = chunk.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            let is_rest_of_crlf = end == 0 && chunk[0] == b'\n' && line.after_cr;
            self.bytes = self.bytes.saturating_add(end + 1);
            if self.bytes > self.limit {
                return false;
            }
            if !is_rest_of_crlf {
                if end == 0 && line.is_empty {
                    // An empty line ends the event.
                    self.bytes = 0;
                }
                line.is_empty = true;
            }
            line.after_cr = chunk[end] == b'\r';
            chunk = &chunk[end + 1..];
        }
        if !chunk.is_empty() {
            (line.is_empty, line.after_cr) = (false, false);
        }
        self.bytes = self.bytes.saturating_add(chunk.len());
        self.bytes <= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a body in chunks of this length. Returns the number of bytes until the limit is exceeded.
    fn read(body: &str, length: usize, limit: usize) -> Option<usize> {
        let mut size = Size {
            limit,
            ..Size::event()
        };
        let mut chunks = body.as_bytes().chunks(length);
        let exceeded = chunks.position(|chunk| !size.allows(chunk));
        exceeded.map(|chunks| chunks * length)
    }

    #[test]
    fn the_size_of_an_event_is_counted_from_the_last_empty_line_in_any_chunks() {
        for end in ["\n", "\r\n", "\r"] {
            let event = format!("event: x{end}data: 0123456789{end}{end}");
            let events = event.repeat(50);
            for length in [1, 2, 3, 7, event.len(), events.len()] {
                assert_eq!(read(&events, length, event.len()), None, "{end:?} {length}");
                let longer = format!("{events}data: {}", "0".repeat(event.len()));
                let exceeded = read(&longer, length, event.len());
                assert!(exceeded.is_some(), "{end:?} {length}");
                assert!(
                    read(&events, length, event.len() - 3).is_some(),
                    "{end:?} {length}"
                );
            }
        }
        for line in [": x\n", "data: x\n", "x\r\n", "x\r"] {
            assert!(read(&line.repeat(100), 5, 100).is_some(), "{line:?}");
        }
        assert_eq!(read(&"\n".repeat(1_000), 3, 100), None);
    }

    #[test]
    fn the_size_of_a_whole_answer_is_that_of_its_bytes() {
        let mut size = Size {
            limit: 10,
            ..Size::whole()
        };
        assert!(size.allows(b"01234\n\n"));
        assert!(size.allows(b"789"));
        assert!(!size.allows(b"0"));
    }
}
