//! Requests to Anthropic's API.

use std::future::Future;

use reqwest::Response;
use serde::Serialize;

use super::Messages;
use crate::client::{self, Api, Provider};
use crate::error::ProviderError;
use crate::http_response::{self, ProviderStream};

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
        headers: &[("anthropic-version", "2023-06-01")],
    };
}

/// Reads a response: its status, and an error in place of the stream, or else its tokens.
///
/// For a response to a request of your own. The request must ask for a stream
/// (`"stream": true`).
///
/// # Errors
///
/// [`ProviderError::Api`] if the status is no success, with what the first 64 KiB of the body say
/// and the wait from `Retry-After`; also if a successful response is JSON with an error in it.
/// [`ProviderError::NotAStream`] if a successful response is another protocol.
/// What its body is counts, not its label.
/// [`ProviderError::Transport`] if the body of such a JSON response breaks off.
pub async fn from_response(
    response: Response,
) -> Result<ProviderStream, ProviderError<reqwest::Error>> {
    http_response::from_response(response, Box::new(Messages::default())).await
}

/// Requests to Anthropic's API.
impl Client {
    /// Sends a Messages request and gives its tokens. `/v1/messages` is added to the address's
    /// path, or what of it is missing.
    ///
    /// `request` is anything that serializes to the API's JSON: your own type, a
    /// `serde_json::Value`. `"stream": true` is added unless it is there. The future borrows
    /// nothing.
    ///
    /// # Errors
    ///
    /// Those of [`from_response`]; [`ProviderError::Transport`] if no response came;
    /// [`ProviderError::Request`] if `request` does not serialize to an object.
    pub fn messages_stream<R>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<ProviderStream, ProviderError<reqwest::Error>>>
    + Send
    + 'static
    + use<R>
    where
        R: Serialize + ?Sized,
    {
        let path = match self.base_url().path() {
            path if path.ends_with("/v1") || path.ends_with("/v1/messages") => "/messages",
            _ => "/v1/messages",
        };
        let url = self.endpoint(path);
        self.post(url, request, &[("stream", "true")], Messages::default())
    }
}
