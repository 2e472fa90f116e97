//! Requests to the Gemini API.

use std::future::Future;

use reqwest::{Response, Url};
use serde::Serialize;

use super::Generate;
use crate::client::{self, Api, Provider};
use crate::completion::Completion;
use crate::decode::MAX_EVENT_BYTES;
use crate::embeddings::Embeddings;
use crate::error::RequestError;
use crate::http_response::{self, ProviderStream};
use crate::request::{ACCEPT_EVENTS, ProviderRequest};

/// A client for the Gemini API, or a server that speaks it.
///
/// [`from_env`](client::Client::from_env) reads `GEMINI_API_KEY` (or `GOOGLE_API_KEY`) and `GEMINI_BASE_URL` (or
/// `GOOGLE_GEMINI_BASE_URL`). The key is sent as `x-goog-api-key`, never in the address. Vertex AI takes a token
/// instead: set the `authorization` [header](client::Client::header).
///
/// ```no_run
/// use futures_util::StreamExt;
/// use l0_providers::gemini::Client;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::from_env()?;
/// let request = serde_json::json!({
///     "contents": [{"role": "user", "parts": [{"text": "What is a monad?"}]}],
/// });
/// let mut tokens = client.generate_content_stream("gemini-2.5-flash", &request).await?;
/// while let Some(token) = tokens.next().await {
///     print!("{}", token?.answer());
/// }
/// # Ok(())
/// # }
/// ```
pub type Client = client::Client<Gemini>;

const GENERATE_CONTENT: &str = "generate_content";

/// The Gemini API, the provider of this module's [`Client`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Gemini;

impl Provider for Gemini {
    const API: Api = Api {
        base_url: "https://generativelanguage.googleapis.com/v1beta",
        base_url_vars: &["GEMINI_BASE_URL", "GOOGLE_GEMINI_BASE_URL"],
        key_vars: &["GEMINI_API_KEY", "GOOGLE_API_KEY"],
        key_header: "x-goog-api-key",
        key_prefix: "",
        needs_key: true,
        accept: ACCEPT_EVENTS,
        headers: &[],
        read_address: |address| address.into(),
    };
}

/// Reads a response: its tokens, or the error that its status or body reports.
///
/// For a response to a request of your own. The request must ask for events (`alt=sse` in its query).
///
/// # Errors
///
/// - [`ProviderError::Api`](crate::ProviderError::Api) if the status is not a success, or if a successful response is
///   JSON with an error in it. The error is read from the first 64 KiB of the body, and the wait from `Retry-After` or
///   the error's `RetryInfo`.
/// - [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response speaks another
///   protocol. The body decides, not its content type.
/// - [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Generate::default()), MAX_EVENT_BYTES).await
}

/// Requests to the Gemini API.
impl Client {
    /// Creates a request to `streamGenerateContent`, the source of a run: see [`L0::stream_from`](l0_core::L0).
    ///
    /// `model` is a name (`gemini-2.5-flash`) or a path (`tunedModels/mine`). It becomes part of the address:
    /// `/models/{model}:streamGenerateContent?alt=sse` is appended, after `/v1beta` if the address has no path of its
    /// own. `request` is anything that serializes to the API's JSON: your own type, or a `serde_json::Value`. It is
    /// serialized once, here, and nothing is added to it.
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport)
    /// if no response arrived, and with [`ProviderError::Request`](crate::ProviderError::Request) if `request` does not
    /// serialize to an object.
    pub fn generate_content<R>(&self, model: &str, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let mut url = url(self.base_url(), model, "streamGenerateContent");
        url.query_pairs_mut().append_pair("alt", "sse");
        let call = http_response::stream::<Generate>(GENERATE_CONTENT);
        self.request(url, Some(name(model)), request, &[], call)
    }

    /// Creates a request to `generateContent` for a whole answer, the source of a call. `model` and `request` are as
    /// for [`generate_content`](Self::generate_content). An answer that is streamed all the same is read too.
    ///
    /// # Errors
    ///
    /// Connecting fails as for [`generate_content`](Self::generate_content), with the errors that a stream reports
    /// later, and with [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub fn generate_content_once<R>(&self, model: &str, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let url = url(self.base_url(), model, "generateContent");
        let call = http_response::whole::<Generate>(GENERATE_CONTENT);
        self.request(url, Some(name(model)), request, &[], call)
    }

    /// Creates a request to `embedContent` for the embedding of one content, the source of a call.
    ///
    /// # Errors
    ///
    /// The same as for [`generate_content_once`](Self::generate_content_once).
    pub fn embed_content<R>(&self, model: &str, request: &R) -> ProviderRequest<Embeddings>
    where
        R: Serialize + ?Sized,
    {
        let url = url(self.base_url(), model, "embedContent");
        let call = http_response::embeddings();
        self.request(url, Some(name(model)), request, &[], call)
    }

    /// Creates a request to `batchEmbedContents` for the embeddings of several contents, the source of a call.
    ///
    /// # Errors
    ///
    /// The same as for [`generate_content_once`](Self::generate_content_once).
    pub fn batch_embed_contents<R>(&self, model: &str, request: &R) -> ProviderRequest<Embeddings>
    where
        R: Serialize + ?Sized,
    {
        let url = url(self.base_url(), model, "batchEmbedContents");
        let call = http_response::embeddings();
        self.request(url, Some(name(model)), request, &[], call)
    }

    /// Sends a [`generate_content`](Self::generate_content) request and returns its tokens, as
    /// [`send`](ProviderRequest::send) does. Use it for a run whose source is a closure.
    ///
    /// # Errors
    ///
    /// The same as for [`generate_content`](Self::generate_content).
    pub fn generate_content_stream<R>(
        &self,
        model: &str,
        request: &R,
    ) -> impl Future<Output = Result<ProviderStream, RequestError>> + Send + 'static + use<R>
    where
        R: Serialize + ?Sized,
    {
        self.generate_content(model, request).send()
    }
}

/// Returns a model's name without the `models/` folder of Google's own models.
fn name(model: &str) -> &str {
    model.strip_prefix("models/").unwrap_or(model)
}

fn url(mut url: Url, model: &str, method: &str) -> Url {
    let root = url.path().trim_end_matches('/').is_empty();
    let prefix: &[&str] = match (root, model.contains('/')) {
        (true, true) => &["v1beta"],
        (true, false) => &["v1beta", "models"],
        (false, true) => &[],
        (false, false) => &["models"],
    };
    let method = format!("{model}:{method}");
    // Unsafe characters of the name, such as `?`, are escaped. Only addresses like `mailto:` have no segments, and a
    // client never has one.
    if let Ok(mut segments) = url.path_segments_mut() {
        segments
            .pop_if_empty()
            .extend(prefix)
            .extend(method.split('/'));
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let url = |base: &str, model: &str| {
            let base = Url::parse(base).unwrap();
            url(base, model, "generateContent").to_string()
        };
        let default = client::Client::<Gemini>::DEFAULT_BASE_URL;
        assert_eq!(
            url(default, "gemini-2.5-flash"),
            format!("{default}/models/gemini-2.5-flash:generateContent")
        );
        for (base, model, expected) in [
            ("http://h", "m", "http://h/v1beta/models/m:generateContent"),
            ("http://h/", "m", "http://h/v1beta/models/m:generateContent"),
            ("http://h/v1", "m", "http://h/v1/models/m:generateContent"),
            (
                "http://h/v1/",
                "models/m",
                "http://h/v1/models/m:generateContent",
            ),
            (
                "http://h/v1?a=b",
                "tunedModels/m",
                "http://h/v1/tunedModels/m:generateContent?a=b",
            ),
            (
                "http://h/v1",
                "a?key=b#c%",
                "http://h/v1/models/a%3Fkey=b%23c%25:generateContent",
            ),
        ] {
            assert_eq!(url(base, model), expected);
        }
    }
}
