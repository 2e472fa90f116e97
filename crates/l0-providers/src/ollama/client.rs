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
/// [`from_env`](client::Client::from_env) reads `OLLAMA_HOST`, as Ollama's own programs do: an address,
/// or a host with or without a port, which is then 11434. Without it, the address is
/// `http://localhost:11434`. `OLLAMA_API_KEY` is optional, for servers that ask for a key, such as
/// `https://ollama.com`; it is sent as `Authorization: Bearer`.
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

/// What makes a request a streaming one, and what makes it none: Ollama streams unless told otherwise.
const STREAM: [(&str, &str); 1] = [("stream", "true")];
const NO_STREAM: [(&str, &str); 1] = [("stream", "false")];

/// Ollama's own API: what a [`Client`] is of.
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

/// Reads a response: its status, and an error in place of the stream, or else its tokens.
///
/// For a response of `/api/chat` or `/api/generate` to a request of your own.
///
/// # Errors
///
/// [`ProviderError::Api`](crate::ProviderError::Api) if the status is no success, with what the first 64 KiB of the body say
/// and the wait from `Retry-After`; also if a successful response is JSON with an error in it.
/// [`ProviderError::NotAnAnswer`](crate::ProviderError::NotAnAnswer) if a successful response is another protocol.
/// What its body is counts, not its label.
/// [`ProviderError::Transport`](crate::ProviderError::Transport) if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ProviderStream, RequestError> {
    http_response::from_response(response, Box::new(Reply::default()), MAX_EVENT_BYTES).await
}

/// Requests to Ollama's own API.
impl Client {
    /// Makes a request to `/api/chat` that is a run's source: see [`L0::stream_from`](l0_core::L0).
    /// `/api/chat` is added to the address's path, or what of it is missing.
    ///
    /// `request` is anything that serializes to the API's JSON: your own type, a
    /// `serde_json::Value`. It is serialized here, once. `"stream": true` is added unless it is there.
    ///
    /// # Errors
    ///
    /// Connecting fails as [`from_response`] does, with [`ProviderError::Transport`](crate::ProviderError::Transport) if no response came
    /// (where Ollama does not run, the connection is refused), and with [`ProviderError::Request`](crate::ProviderError::Request) if
    /// `request` does not serialize to an object.
    pub fn chat<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::stream::<Reply>(CHAT);
        self.request(self.url("/chat"), None, request, &STREAM, call)
    }

    /// Makes a request to `/api/chat` for a whole answer, which is a call's source. `request` and the
    /// address are as for [`chat`](Self::chat), with `"stream": false` in place of `true`. An answer that
    /// comes as a stream all the same is read, too.
    ///
    /// # Errors
    ///
    /// Connecting fails as that of [`chat`](Self::chat) does, with the errors that a stream tells later,
    /// and with [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub fn chat_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::whole::<Reply>(CHAT);
        self.request(self.url("/chat"), None, request, &NO_STREAM, call)
    }

    /// Makes a request to `/api/generate`, which completes a prompt, that is a run's source. Otherwise as
    /// [`chat`](Self::chat).
    ///
    /// # Errors
    ///
    /// Those of [`chat`](Self::chat).
    pub fn generate<R>(&self, request: &R) -> ProviderRequest<ProviderStream>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::stream::<Reply>(TEXT_COMPLETION);
        self.request(self.url("/generate"), None, request, &STREAM, call)
    }

    /// Makes a request to `/api/generate` for a whole answer, which is a call's source. Otherwise as
    /// [`chat_once`](Self::chat_once).
    ///
    /// # Errors
    ///
    /// Those of [`chat_once`](Self::chat_once).
    pub fn generate_once<R>(&self, request: &R) -> ProviderRequest<Completion>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::whole::<Reply>(TEXT_COMPLETION);
        self.request(self.url("/generate"), None, request, &NO_STREAM, call)
    }

    /// Makes a request to `/api/embed`, for the embeddings of one input or several, which is a call's
    /// source. Nothing is added to it.
    ///
    /// # Errors
    ///
    /// Those of [`chat_once`](Self::chat_once).
    pub fn embed<R>(&self, request: &R) -> ProviderRequest<Embeddings>
    where
        R: Serialize + ?Sized,
    {
        let call = http_response::embeddings();
        self.request(self.url("/embed"), None, request, &[], call)
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

    /// Sends a [`generate`](Self::generate) request and gives its tokens, as
    /// [`chat_stream`](Self::chat_stream) does.
    ///
    /// # Errors
    ///
    /// The same.
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

/// The address of a server whose own setting of where to listen this is, if it is no address.
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
        // An address of version 6 without brackets has more than one.
        Some(at) if host[after..].find(':') == Some(at) => host.split_at(after + at),
        _ => (host, ""),
    };
    let name = match name {
        // What a server listens on is nothing to connect to.
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
    fn a_host_is_an_address() {
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
