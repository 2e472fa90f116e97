//! Requests to Anthropic's API.

use std::future::Future;

use reqwest::{Response, Url};
use serde::Serialize;

use super::Messages;
use crate::client::{self, Api, Provider};
use crate::completion::Completion;
use crate::decode::MAX_EVENT_BYTES;
use crate::error::RequestError;
use crate::http_response::{self, ProviderStream};
use crate::request::{ACCEPT_EVENTS, ProviderRequest};

/// A client for Anthropic's API, or a server that speaks it.
///
/// [`from_env`](client::Client::from_env) reads `ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL`. The key is sent as
/// `x-api-key`, together with `anthropic-version: 2023-06-01`. Override either with [`header`](client::Client::header).
///
/// ```no_run
/// use futures_util::StreamExt;
/// use l0_providers::anthropic::Client;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::from_env()?;
/// let request = serde_json::json!({
///     "model": "claude-sonnet-4-5",
///     "max_tokens": 1024,
///     "messages": [{"role": "user", "content": "What is a monad?"}],
/// });
/// let mut tokens = client.messages_stream(&request).await?;
/// while let Some(token) = tokens.next().await {
///     print!("{}", token?.answer());
/// }
/// # Ok(())
/// # }
/// ```
pub type Client = client::Client<Anthropic>;

const CHAT: &str = "chat";

/// Anthropic's API, the provider of this module's [`Client`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Anthropic;

impl Provider for Anthropic {
    const API: Api = Api {
        base_url: "https://api.anthropic.com",
        base_url_vars: &["ANTHROPIC_BASE_URL"],
        key_vars: &["ANTHROPIC_API_KEY"],
        key_header: "x-api-key",
        key_prefix: "",
        needs_key: true,
        accept: ACCEPT_EVENTS,
        headers: &[("anthropic-version", "2023-06-01")],
        read_address: |address| address.into(),
    };
}

/// Reads a response: its tokens, or the error that its status or body reports.
///
/// For a response to a request of your own. The request must ask for a stream (`"stream": true`).
///
/// # Errors
///
/// - [`ProviderError::Api`](crate::ProviderError::Api) if the status is not a success, or if a successful response is
///   JSON with an error in it. The error is read from the first 64 KiB of the body, and the wait from `Retry-After`.
/// - [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response speaks another
///   protocol. The body decides, not its content type.
/// - [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Messages::default()), MAX_EVENT_BYTES).await
}

/// Requests to Anthropic's API.
impl Client {
    /// Creates a Messages request, the source of a run: see [`L0::stream_from`](l0_core::L0). `/v1/messages`, or the
    /// missing part of it, is appended to the path of the address.
    ///
    /// `request` is anything that serializes to the API's JSON: your own type, or a `serde_json::Value`. It is
    /// serialized once, here. `"stream": true` is added if the request has no such field.
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport)
    /// if no response arrived, and with [`ProviderError::Request`](crate::ProviderError::Request) if `request` does not
    /// serialize to an object.
    pub fn messages<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::stream::<Messages>(CHAT);
        self.request(self.url(), None, request, &[("stream", "true")], call)
    }

    /// Creates a Messages request for a whole answer, the source of a call. `request` and the address are as for
    /// [`messages`](Self::messages), but nothing is added to the request. An answer that is streamed all the same is
    /// read too.
    ///
    /// # Errors
    ///
    /// Connecting fails as for [`messages`](Self::messages), with the errors that a stream reports later, and with
    /// [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub fn messages_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::whole::<Messages>(CHAT);
        self.request(self.url(), None, request, &[], call)
    }

    /// Sends a [`messages`](Self::messages) request and returns its tokens, as [`send`](ProviderRequest::send)
    /// does. Use it for a run whose source is a closure.
    ///
    /// # Errors
    ///
    /// The same as for [`messages`](Self::messages).
    pub fn messages_stream<R>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<ProviderStream, RequestError>> + Send + 'static + use<R>
    where
        R: Serialize + ?Sized,
    {
        self.messages(request).send()
    }

    fn url(&self) -> Url {
        let path = match self.base_url().path() {
            path if path.ends_with("/v1") || path.ends_with("/v1/messages") => "/messages",
            _ => "/v1/messages",
        };
        self.endpoint(path)
    }
}
