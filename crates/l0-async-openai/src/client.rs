//! A client that asks once, and reads what is no answer before the client does.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::task::{Context, Poll};

use async_openai::config::{Config, OpenAIConfig};
use async_openai::error::OpenAIError;
use async_openai::middleware::{HttpRequestFactory, ReqwestService};
use bytes::Bytes;
use futures_core::Stream;
use l0_providers::ApiError;
use reqwest::Response;
use reqwest::header::CONTENT_TYPE;
use tower_service::Service;

use crate::error::Refused;

/// A client of `async-openai` that sends each request once: what is asked again, L0 decides alone.
///
/// It is made as an [`async_openai::Client`] is, and is one by `Deref`: all APIs of that client are
/// there. What is asked through them is sent once, too, with L0 or without.
///
/// An `async_openai::Client` itself sends up to four requests where one was meant, with waits of its
/// own between them, of which nobody is told. That cannot be switched off in a client that exists, so
/// this crate's functions take this one only.
#[derive(Clone)]
pub struct Client<C: Config = OpenAIConfig> {
    /// What the application asks directly: its errors are as it knows them.
    plain: async_openai::Client<C>,
    /// For requests of streams.
    streams: async_openai::Client<C>,
    /// For requests of whole answers.
    whole: async_openai::Client<C>,
}

impl Client<OpenAIConfig> {
    /// Creates a client of the address and the key in the environment, as
    /// [`async_openai::Client::new`] does.
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
    /// Creates a client with this configuration, and a `reqwest` client of its own.
    #[must_use]
    pub fn with_config(config: C) -> Self {
        Self::build(reqwest::Client::new(), config)
    }

    /// Creates a client with this configuration that sends by this `reqwest` client: with its pool, its
    /// proxies, its TLS.
    #[must_use]
    pub fn build(http: reqwest::Client, config: C) -> Self {
        let client = async_openai::Client::build(http.clone(), config);
        Self::over(client, ReqwestService::new(http))
    }

    /// Sends by another `reqwest` client.
    #[must_use]
    pub fn with_http_client(self, http: reqwest::Client) -> Self {
        let client = self.plain.with_http_client(http.clone());
        Self::over(client, ReqwestService::new(http))
    }

    /// Sends by the application's own `tower` service, which must not ask again: without
    /// `OpenAIRetryLayer` and `SimpleRetryPolicy`.
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

/// Without the configuration, which has the key.
impl<C: Config> fmt::Debug for Client<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// How much of a body that should have been a stream is read.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// Reads responses that are no answers: with their headers, which the client passes over, whatever
/// the shape of their bodies, and without writing these into the log.
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
                    Refused::Api(ApiError::from_response(response).await)
                }
                () if is(&response, "html") => Refused::NotAnAnswer,
                () if streams && is(&response, "json") => match read_json(response).await? {
                    Ok(stream) => return Ok(stream),
                    Err(refused) => refused,
                },
                () => return Ok(response),
            };
            Err(OpenAIError::Boxed(Box::new(refused)))
        })
    }
}

/// Whether the content type ends so.
fn is(response: &Response, subtype: &str) -> bool {
    let value = response.headers().get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next();
    let essence = essence.unwrap_or_default().trim().to_ascii_lowercase();
    essence.ends_with(&format!("/{subtype}")) || essence.ends_with(&format!("+{subtype}"))
}

/// What is labelled as JSON in the place of a stream: what it is, or the stream that it is all the same.
async fn read_json(mut response: Response) -> Result<Result<Response, Refused>, OpenAIError> {
    let mut body = Vec::new();
    while body.len() < MAX_ERROR_BODY
        && let Some(chunk) = response.chunk().await?
    {
        body.extend_from_slice(&chunk);
        match body.trim_ascii_start().first() {
            Some(b'{' | b'[') | None => {}
            Some(_) => return Ok(Ok(put_back(body.into(), response))),
        }
    }
    let error = ApiError::from_json(&String::from_utf8_lossy(&body), None);
    Ok(Err(error.map_or(Refused::NotAnAnswer, Refused::Api)))
}

/// The response with what was read of its body before the rest.
fn put_back(first: Bytes, rest: Response) -> Response {
    let mut response = http::Response::new(());
    *response.status_mut() = rest.status();
    *response.headers_mut() = rest.headers().clone();
    let body = Body {
        first: Some(first),
        rest: Box::pin(rest.bytes_stream()),
    };
    response.map(|()| reqwest::Body::wrap_stream(body)).into()
}

/// A body of which something was read.
struct Body {
    first: Option<Bytes>,
    rest: Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>,
}

impl Stream for Body {
    type Item = reqwest::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.first.take() {
            Some(first) => Poll::Ready(Some(Ok(first))),
            None => self.rest.as_mut().poll_next(cx),
        }
    }
}
