//! Requests to OpenAI's API, and to compatible servers.

use std::future::Future;

use reqwest::Response;
use serde::Serialize;

use super::Chat;
use crate::client::{self, Api, Provider};
use crate::completion::Completion;
use crate::decode::MAX_EVENT_BYTES;
use crate::embeddings::Embeddings;
use crate::error::RequestError;
use crate::http_response::{self, ProviderStream};
use crate::request::{ACCEPT_EVENTS, ProviderRequest};

/// A client for OpenAI's API, or a compatible server's.
///
/// [`from_env`](client::Client::from_env) reads `OPENAI_API_KEY` and `OPENAI_BASE_URL`. The key is
/// sent as `Authorization: Bearer`.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use l0_providers::openai::{ChatRequest, Client};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::from_env()?;
/// let request = ChatRequest::new("gpt-4o-mini").user("What is a monad?");
/// let mut tokens = client.chat_stream(&request).await?;
/// while let Some(token) = tokens.next().await {
///     print!("{}", token?.answer());
/// }
/// # Ok(())
/// # }
/// ```
pub type Client = client::Client<OpenAi>;

/// The operation of Chat Completions and of Responses.
pub(super) const CHAT: &str = "chat";

/// OpenAI's API, the provider of this module's [`Client`].
#[derive(Debug, Clone)]
pub struct OpenAi {
    include_usage: bool,
}

impl Default for OpenAi {
    fn default() -> Self {
        Self {
            include_usage: true,
        }
    }
}

impl Provider for OpenAi {
    const API: Api = Api {
        base_url: "https://api.openai.com/v1",
        base_url_vars: &["OPENAI_BASE_URL"],
        key_vars: &["OPENAI_API_KEY"],
        key_header: "authorization",
        key_prefix: "Bearer ",
        needs_key: true,
        accept: ACCEPT_EVENTS,
        headers: &[],
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
///   JSON with an error in it. The error is read from the first 64 KiB of the body, and the wait from `retry-after-ms`,
///   `Retry-After`, the body or the rate limit headers. `x-should-retry` decides whether to retry.
/// - [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response speaks another
///   protocol. The body decides, not its content type.
/// - [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Chat::default()), MAX_EVENT_BYTES).await
}

/// Requests to OpenAI's API.
impl Client {
    /// Sets whether chat requests ask for token counts (`stream_options.include_usage`). The default is `true`. Disable
    /// it for servers that reject the field.
    pub const fn include_usage(mut self, include: bool) -> Self {
        self.provider.include_usage = include;
        self
    }

    /// Creates a Chat Completions request, the source of a run: see [`L0::stream_from`](l0_core::L0).
    /// `/chat/completions` is appended to the path of the address, unless it already ends with it.
    ///
    /// `request` is anything that serializes to the API's JSON: a [`ChatRequest`], your own type, or a
    /// `serde_json::Value`. It is serialized once, here. `"stream": true` and `"stream_options": {"include_usage":
    /// true}` are added if the request has no such fields.
    ///
    /// [`ChatRequest`]: super::ChatRequest
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport)
    /// if no response arrived, and with [`ProviderError::Request`](crate::ProviderError::Request) if `request` does not
    /// serialize to an object.
    pub fn chat<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        const FIELDS: [(&str, &str); 2] = [
            ("stream", "true"),
            ("stream_options", r#"{"include_usage":true}"#),
        ];
        let fields = if self.provider.include_usage { 2 } else { 1 };
        let url = self.endpoint("/chat/completions");
        let call = http_response::stream::<Chat>(CHAT);
        self.request(url, None, request, &FIELDS[..fields], call)
    }

    /// Creates a Chat Completions request for a whole answer, the source of a call. `request` and the address are as
    /// for [`chat`](Self::chat), but nothing is added to the request. An answer that is streamed all the same is read
    /// too.
    ///
    /// # Errors
    ///
    /// Connecting fails as for [`chat`](Self::chat), with the errors that a stream reports later, and with
    /// [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub fn chat_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let url = self.endpoint("/chat/completions");
        self.request(url, None, request, &[], http_response::whole::<Chat>(CHAT))
    }

    /// Creates a request for embeddings, the source of a call. `/embeddings` is appended to the path of the address,
    /// unless it already ends with it. Vectors in base64 (`"encoding_format": "base64"`) are read too.
    ///
    /// # Errors
    ///
    /// The same as for [`chat_once`](Self::chat_once).
    pub fn embeddings<R>(&self, request: &R) -> ProviderRequest<Embeddings>
    where
        R: Serialize + ?Sized,
    {
        let url = self.endpoint("/embeddings");
        self.request(url, None, request, &[], http_response::embeddings())
    }

    /// Sends a [`chat`](Self::chat) request and returns its tokens, as [`send`](ProviderRequest::send)
    /// does. Use it for a run whose source is a closure.
    ///
    /// # Errors
    ///
    /// The same as for [`chat`](Self::chat).
    pub fn chat_stream<R>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<ProviderStream, RequestError>> + Send + 'static + use<R>
    where
        R: Serialize + ?Sized,
    {
        self.chat(request).send()
    }
}
