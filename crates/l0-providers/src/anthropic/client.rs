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
/// [`from_env`](client::Client::from_env) reads `ANTHROPIC_API_KEY` and `ANTHROPIC_BASE_URL`. The
/// key is sent as `x-api-key`, and `anthropic-version: 2023-06-01` with it; either can be set
/// otherwise by [`header`](client::Client::header).
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

/// Anthropic's API: what a [`Client`] is of.
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

/// Reads a response: its status, and an error in place of the stream, or else its tokens.
///
/// For a response to a request of your own. The request must ask for a stream
/// (`"stream": true`).
///
/// # Errors
///
/// [`ProviderError::Api`](crate::ProviderError::Api) if the status is no success, with what the first 64 KiB of the body say
/// and the wait from `Retry-After`; also if a successful response is JSON with an error in it.
/// [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response is another protocol.
/// What its body is counts, not its label.
/// [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Messages::default()), MAX_EVENT_BYTES).await
}

/// Requests to Anthropic's API.
impl Client {
    /// Makes a Messages request that is a run's source: see [`L0::stream_from`](l0_core::L0).
    /// `/v1/messages` is added to the address's path, or what of it is missing.
    ///
    /// `request` is anything that serializes to the API's JSON: your own type, a
    /// `serde_json::Value`. It is serialized here, once. `"stream": true` is added unless it is there.
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport) if no response came,
    /// and with [`ProviderError::Request`](crate::ProviderError::Request) if `request` does not serialize to an object.
    pub fn messages<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::stream::<Messages>(CHAT);
        self.request(self.url(), None, request, &[("stream", "true")], call)
    }

    /// Makes a Messages request for a whole answer, which is a call's source. `request` and the address
    /// are as for [`messages`](Self::messages); nothing is added to the request. An answer that comes as
    /// a stream all the same is read, too.
    ///
    /// # Errors
    ///
    /// Connecting fails as that of [`messages`](Self::messages) does, with the errors that a stream tells
    /// later, and with [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub fn messages_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::whole::<Messages>(CHAT);
        self.request(self.url(), None, request, &[], call)
    }

    /// Sends a [`messages`](Self::messages) request and gives its tokens: for what is no run, or for one
    /// whose source is a closure. The future borrows nothing.
    ///
    /// # Errors
    ///
    /// The same.
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
