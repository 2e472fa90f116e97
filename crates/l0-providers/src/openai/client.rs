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

/// OpenAI's API: what a [`Client`] is of.
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

/// Reads a response: its status, and an error in place of the stream, or else its tokens.
///
/// For a response to a request of your own. The request must ask for a stream
/// (`"stream": true`).
///
/// # Errors
///
/// [`ProviderError::Api`](crate::ProviderError::Api) if the status is no success, with what the first 64 KiB of the body say
/// and the wait from `retry-after-ms`, `Retry-After`, the body or the headers of limits that are
/// reset; `x-should-retry` decides on another attempt. Also if a successful response is JSON with
/// an error in it. [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response is another
/// protocol; what its body is counts, not its label. [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Chat::default()), MAX_EVENT_BYTES).await
}

/// Requests to OpenAI's API.
impl Client {
    /// Sets whether chat requests ask for token counts (`stream_options.include_usage`): yes unless
    /// set. For servers that refuse the field.
    pub const fn include_usage(mut self, include: bool) -> Self {
        self.provider.include_usage = include;
        self
    }

    /// Makes a Chat Completions request that is a run's source: see
    /// [`L0::stream_from`](l0_core::L0). `/chat/completions` is added to the address's path, unless it
    /// ends so.
    ///
    /// `request` is anything that serializes to the API's JSON: a [`ChatRequest`], your own type, a
    /// `serde_json::Value`. It is serialized here, once. `"stream": true` and
    /// `"stream_options": {"include_usage": true}` are added unless they are there.
    ///
    /// [`ChatRequest`]: super::ChatRequest
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport) if no response came,
    /// and with [`ProviderError::Request`](crate::ProviderError::Request) if `request` does not serialize to an object.
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

    /// Makes a Chat Completions request for a whole answer, which is a call's source. `request` and the
    /// address are as for [`chat`](Self::chat); nothing is added to the request. An answer that comes as
    /// a stream all the same is read, too.
    ///
    /// # Errors
    ///
    /// Connecting fails as that of [`chat`](Self::chat) does, with the errors that a stream tells later,
    /// and with [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub fn chat_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let url = self.endpoint("/chat/completions");
        self.request(url, None, request, &[], http_response::whole::<Chat>(CHAT))
    }

    /// Makes a request for embeddings, which is a call's source. `/embeddings` is added to the address's
    /// path, unless it ends so. Vectors in base64 (`"encoding_format": "base64"`) are read, too.
    ///
    /// # Errors
    ///
    /// Those of [`chat_once`](Self::chat_once).
    pub fn embeddings<R>(&self, request: &R) -> ProviderRequest<Embeddings>
    where
        R: Serialize + ?Sized,
    {
        let url = self.endpoint("/embeddings");
        self.request(url, None, request, &[], http_response::embeddings())
    }

    /// Sends a [`chat`](Self::chat) request and gives its tokens: for what is no run, or for one whose
    /// source is a closure. The future borrows nothing.
    ///
    /// # Errors
    ///
    /// The same.
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
