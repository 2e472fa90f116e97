//! Requests to Ollama's own API.

use std::borrow::Cow;
use std::future::Future;

use reqwest::{Response, Url};
use serde::Serialize;

use super::Reply;
use crate::client::{self, Api, Provider};
use crate::completion::Completion;
use crate::decode::MAX_EVENT_BYTES;
use crate::embeddings::Embeddings;
use crate::error::RequestError;
use crate::http_response::{self, ProviderStream};
use crate::request::{ACCEPT_LINES, ProviderRequest};

/// A client for Ollama's own API, or a server that speaks it.
///
/// [`from_env`](client::Client::from_env) reads `OLLAMA_HOST` as Ollama's own programs do: an address, or a host with
/// an optional port. The default port is 11434, and the default address is `http://localhost:11434`. `OLLAMA_API_KEY`
/// is optional, for servers that require a key, such as `https://ollama.com`. It is sent as `Authorization: Bearer`.
///
/// ```no_run
/// use futures_util::StreamExt;
/// use l0_providers::ollama::Client;
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let client = Client::from_env()?;
/// let request = serde_json::json!({
///     "model": "llama3.2",
///     "messages": [{"role": "user", "content": "What is a monad?"}],
///     "options": {"num_ctx": 8192, "temperature": 0.2},
///     "keep_alive": "10m",
/// });
/// let mut tokens = client.chat_stream(&request).await?;
/// while let Some(token) = tokens.next().await {
///     print!("{}", token?.answer());
/// }
/// # Ok(())
/// # }
/// ```
pub type Client = client::Client<Ollama>;

const CHAT: &str = "chat";
const TEXT_COMPLETION: &str = "text_completion";

/// Make a request stream or not: Ollama streams by default.
const STREAM: [(&str, &str); 1] = [("stream", "true")];
const NO_STREAM: [(&str, &str); 1] = [("stream", "false")];

/// Ollama's own API, the provider of this module's [`Client`].
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Ollama;

impl Provider for Ollama {
    const API: Api = Api {
        base_url: "http://localhost:11434",
        base_url_vars: &["OLLAMA_HOST"],
        key_vars: &["OLLAMA_API_KEY"],
        key_header: "authorization",
        key_prefix: "Bearer ",
        needs_key: false,
        accept: ACCEPT_LINES,
        headers: &[],
        read_address,
    };
}

/// Reads a response: its tokens, or the error that its status or body reports.
///
/// For a response of `/api/chat` or `/api/generate` to a request of your own.
///
/// # Errors
///
/// - [`ProviderError::Api`](crate::ProviderError::Api) if the status is not a success, or if a successful response is
///   JSON with an error in it. The error is read from the first 64 KiB of the body, and the wait from `Retry-After`.
/// - [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response speaks another
///   protocol. The body decides, not its content type.
/// - [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Reply::default()), MAX_EVENT_BYTES).await
}

/// Requests to Ollama's own API.
impl Client {
    /// Creates a request to `/api/chat`, the source of a run: see [`L0::stream_from`](l0_core::L0). `/api/chat`, or the
    /// missing part of it, is appended to the path of the address.
    ///
    /// `request` is anything that serializes to the API's JSON: your own type, or a `serde_json::Value`. It is
    /// serialized once, here. `"stream": true` is added if the request has no such field.
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport)
    /// if no response arrived (the connection is refused if Ollama is not running), and with
    /// [`ProviderError::Request`](crate::ProviderError::Request) if `request` does not serialize to an object.
    pub fn chat<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::stream::<Reply>(CHAT);
        self.request(self.url("/chat"), None, request, &STREAM, call)
    }

    /// Creates a request to `/api/chat` for a whole answer, the source of a call. `request` and the address are as for
    /// [`chat`](Self::chat), with `"stream": false` instead of `true`. An answer that is streamed all the same is read
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
        let call = http_response::whole::<Reply>(CHAT);
        self.request(self.url("/chat"), None, request, &NO_STREAM, call)
    }

    /// Creates a request to `/api/generate`, which completes a prompt, the source of a run. Otherwise the same as
    /// [`chat`](Self::chat).
    ///
    /// # Errors
    ///
    /// The same as for [`chat`](Self::chat).
    pub fn generate<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::stream::<Reply>(TEXT_COMPLETION);
        self.request(self.url("/generate"), None, request, &STREAM, call)
    }

    /// Creates a request to `/api/generate` for a whole answer, the source of a call. Otherwise the same as
    /// [`chat_once`](Self::chat_once).
    ///
    /// # Errors
    ///
    /// The same as for [`chat_once`](Self::chat_once).
    pub fn generate_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::whole::<Reply>(TEXT_COMPLETION);
        self.request(self.url("/generate"), None, request, &NO_STREAM, call)
    }

    /// Creates a request to `/api/embed` for the embeddings of one or several inputs, the source of a call. Nothing is
    /// added to the request.
    ///
    /// # Errors
    ///
    /// The same as for [`chat_once`](Self::chat_once).
    pub fn embed<R>(&self, request: &R) -> ProviderRequest<Embeddings>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::embeddings();
        self.request(self.url("/embed"), None, request, &[], call)
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

    /// Sends a [`generate`](Self::generate) request and returns its tokens, as [`chat_stream`](Self::chat_stream) does.
    ///
    /// # Errors
    ///
    /// The same as for [`generate`](Self::generate).
    pub fn generate_stream<R>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<ProviderStream, RequestError>> + Send + 'static + use<R>
    where
        R: Serialize + ?Sized,
    {
        self.generate(request).send()
    }

    fn url(&self, method: &str) -> Url {
        let whole = format!("/api{method}");
        let path = self.base_url();
        match path.path() {
            path if path.ends_with("/api") || path.ends_with(&whole) => self.endpoint(method),
            _ => self.endpoint(&whole),
        }
    }
}

/// Converts a server's listen address to the address that clients connect to. A URL stays as it is.
fn read_address(host: &str) -> Cow<'_, str> {
    if host.contains("://") {
        return host.into();
    }
    let (host, path) = match host.find('/') {
        Some(at) => host.split_at(at),
        None => (host, ""),
    };
    let after = host.rfind(']').map_or(0, |end| end + 1);
    let (name, port) = match host[after..].rfind(':') {
        // An IPv6 address without brackets has more than one colon.
        Some(at) if host[after..].find(':') == Some(at) => host.split_at(after + at),
        _ => (host, ""),
    };
    let name = match name {
        // A wildcard address is not one to connect to.
        "" | "0.0.0.0" => "127.0.0.1".into(),
        "::" | "[::]" => "[::1]".into(),
        name if name.contains(':') && !name.starts_with('[') => format!("[{name}]").into(),
        name => Cow::Borrowed(name),
    };
    let port = match port.trim_start_matches(':') {
        "" => "11434",
        port => port,
    };
    match &*name {
        "ollama.com" => format!("https://ollama.com{path}").into(),
        name => format!("http://{name}:{port}{path}").into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (base, expected) in [
            ("http://h", "http://h/api/chat"),
            ("http://h/", "http://h/api/chat"),
            ("http://h/api", "http://h/api/chat"),
            ("http://h/api/", "http://h/api/chat"),
            ("http://h/api/chat", "http://h/api/chat"),
            ("http://h/ollama?a=b", "http://h/ollama/api/chat?a=b"),
            ("https://ollama.com", "https://ollama.com/api/chat"),
        ] {
            let client = Client::new(base).unwrap();
            assert_eq!(client.url("/chat").as_str(), expected, "{base}");
        }
    }

    #[test]
    fn a_host_is_completed_to_an_address() {
        for (host, address) in [
            ("http://h:1/x", "http://h:1/x"),
            ("https://h", "https://h"),
            ("h", "http://h:11434"),
            ("h:1", "http://h:1"),
            (":1", "http://127.0.0.1:1"),
            ("h:", "http://h:11434"),
            ("h/x", "http://h:11434/x"),
            ("0.0.0.0", "http://127.0.0.1:11434"),
            ("0.0.0.0:1", "http://127.0.0.1:1"),
            ("::", "http://[::1]:11434"),
            ("[::]:1", "http://[::1]:1"),
            ("fe80::1", "http://[fe80::1]:11434"),
            ("[fe80::1]", "http://[fe80::1]:11434"),
            ("[fe80::1]:1", "http://[fe80::1]:1"),
            ("ollama.com", "https://ollama.com"),
        ] {
            assert_eq!(read_address(host), address, "{host}");
            assert!(Client::new(&read_address(host)).is_ok(), "{host}");
        }
    }
}
