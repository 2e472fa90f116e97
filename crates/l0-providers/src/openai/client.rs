//! A small streaming client on `reqwest`.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use futures_core::Stream;
use reqwest::header::{
    ACCEPT, AUTHORIZATION, CONTENT_TYPE, DATE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER,
};
use reqwest::{Response, Url};
use serde::Serialize;
use serde::de::MapAccess;

use super::payload::{ErrorObject, parse_seconds, read_error};
use super::{Decoder, decode};
use crate::decode::MAX_EVENT_BYTES;
use crate::error::{InvalidRequest, NotAStream, ProviderError};
use crate::lenient::{Fields, Object, skip};

/// The tokens of a response that came over `reqwest`.
pub type ChatStream = Decoder<BodyStream>;

type Error = ProviderError<reqwest::Error>;

/// How much of an error's body is read.
const MAX_ERROR_BODY: usize = 64 * 1024;

/// The bytes of a `reqwest::Response`'s body. Its errors do not name the address.
pub struct BodyStream(Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>);

impl BodyStream {
    fn new(response: Response) -> Self {
        Self(Box::pin(response.bytes_stream()))
    }
}

impl fmt::Debug for BodyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BodyStream").finish_non_exhaustive()
    }
}

impl Stream for BodyStream {
    type Item = reqwest::Result<Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let chunk = self.0.as_mut().poll_next(cx);
        chunk.map_err(reqwest::Error::without_url)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

/// Reads a response: its status, and an error in place of the stream, or else its tokens.
///
/// For a response to a request of your own. The request must ask for a stream
/// (`"stream": true`).
///
/// # Errors
///
/// [`ProviderError::Api`] if the status is no success, with what the first 64 KiB of the body say
/// and the wait from `retry-after-ms` or `Retry-After`; also if a successful response is JSON with
/// an error in it. [`ProviderError::NotAStream`] if a successful response is other JSON or a web
/// page. [`ProviderError::Transport`] if the body of such a JSON response breaks off.
pub async fn from_response(response: Response) -> Result<ChatStream, Error> {
    read_response(response, &[]).await
}

/// `secrets` must not show in an error.
async fn read_response(response: Response, secrets: &[String]) -> Result<ChatStream, Error> {
    let status = response.status();
    let content_type = content_type(response.headers());
    let is_json = content_type == "application/json" || content_type.ends_with("+json");
    if status.is_success() {
        if is_json {
            let body = read_up_to(response, MAX_ERROR_BODY).await?;
            let body = String::from_utf8_lossy(&body);
            return Err(match in_band_error(&body) {
                Some(error) => ProviderError::Api(Box::new(error.into_api_error(None, secrets))),
                None => ProviderError::NotAStream(NotAStream { content_type }),
            });
        }
        if content_type == "text/html" {
            return Err(ProviderError::NotAStream(NotAStream { content_type }));
        }
        return Ok(decode(BodyStream::new(response)));
    }

    let wait = retry_after(response.headers(), SystemTime::now());
    let request_id = ["x-request-id", "request-id", "apim-request-id"]
        .iter()
        .find_map(|name| response.headers().get(*name)?.to_str().ok())
        .map(str::to_owned);
    // The status is known; a body that breaks off only takes away words.
    let body = read_up_to(response, MAX_ERROR_BODY)
        .await
        .unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let error = read_error(&body).unwrap_or_else(|| {
        let text = body.trim();
        let is_text = !text.is_empty() && content_type == "text/plain";
        ErrorObject::from_message(is_text.then_some(text))
    });
    let error = error.into_api_error(Some(status.as_u16()), secrets);
    let wait = wait.or(error.retry_after);
    let error = error.retry_after(wait).request_id(request_id);
    Err(ProviderError::Api(Box::new(error)))
}

/// The error in a JSON body with a successful status.
fn in_band_error(body: &str) -> Option<ErrorObject<'_>> {
    #[derive(Default)]
    struct Shape {
        is_error: bool,
    }
    impl<'de> Fields<'de> for Shape {
        fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
            match key {
                "error" => {
                    let error: super::payload::ErrorField<'de> = map.next_value()?;
                    self.is_error |= error.error(false).is_some();
                }
                "object" | "type" => {
                    let word: crate::lenient::Text<'de> = map.next_value()?;
                    self.is_error |= word.as_str() == "error";
                }
                _ => skip(map)?,
            }
            Ok(())
        }
    }
    let shape: Object<Shape> = serde_json::from_str(body).ok()?;
    let is_error = shape.0.is_some_and(|shape| shape.is_error);
    is_error.then(|| read_error(body).unwrap_or_default())
}

/// Without parameters, in lower case; empty if there is none.
fn content_type(headers: &HeaderMap) -> String {
    let value = headers.get(CONTENT_TYPE);
    let value = value.and_then(|value| value.to_str().ok());
    let essence = value.unwrap_or_default().split(';').next();
    essence.unwrap_or_default().trim().to_ascii_lowercase()
}

async fn read_up_to(response: Response, limit: usize) -> reqwest::Result<Vec<u8>> {
    let mut chunks = BodyStream::new(response);
    let mut body = Vec::new();
    while body.len() < limit
        && let Some(chunk) = poll_fn(|cx| Pin::new(&mut chunks).poll_next(cx)).await
    {
        let chunk = chunk?;
        body.extend_from_slice(&chunk[..chunk.len().min(limit - body.len())]);
    }
    Ok(body)
}

/// How long the server asks to wait: `retry-after-ms`, or `Retry-After` in seconds or as a date.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
    let millis = headers.get("retry-after-ms").and_then(text);
    if let Some(wait) = millis.as_deref().and_then(parse_seconds) {
        return Some(wait / 1000);
    }
    let value = headers.get(RETRY_AFTER).and_then(text)?;
    if let Some(wait) = parse_seconds(&value) {
        return Some(wait);
    }
    let date = |text: &str| httpdate::parse_http_date(text.trim()).ok();
    let until = date(&value)?;
    // The server's own clock, if it tells the time: ours may be off.
    let sent = headers.get(DATE).and_then(text);
    let now = sent.as_deref().and_then(date).unwrap_or(now);
    Some(until.duration_since(now).unwrap_or_default())
}

/// A client for one Chat Completions endpoint.
///
/// Cheap to clone. It holds one connection pool, sets no timeouts (the run's are the better ones)
/// and does not retry by itself.
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
///     print!("{}", token?.text);
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct Client {
    http: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    secrets: Vec<String>,
    include_usage: bool,
    max_event_bytes: usize,
}

impl Client {
    /// The address of OpenAI's own API.
    pub const DEFAULT_BASE_URL: &'static str = "https://api.openai.com/v1";

    /// A client from the environment: `OPENAI_BASE_URL`
    /// (default: [`DEFAULT_BASE_URL`](Self::DEFAULT_BASE_URL)) and `OPENAI_API_KEY`, which is
    /// required unless `OPENAI_BASE_URL` is set: local servers need none. Empty variables count as
    /// unset.
    ///
    /// # Errors
    ///
    /// [`ClientError::MissingKey`], and those of [`new`](Self::new) and
    /// [`api_key`](Self::api_key).
    pub fn from_env() -> Result<Self, ClientError> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, ClientError> {
        let var = |name| {
            let value = var(name)?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let base_url = var("OPENAI_BASE_URL");
        let client = Self::new(base_url.as_deref().unwrap_or(Self::DEFAULT_BASE_URL))?;
        match var("OPENAI_API_KEY") {
            Some(key) => client.api_key(&key),
            None if base_url.is_some() => Ok(client),
            None => Err(ClientError::MissingKey),
        }
    }

    /// A client for the API at this address, without a key. `/chat/completions` is added to the
    /// address's path, unless it ends so; its query stays (Azure's `api-version`).
    ///
    /// # Errors
    ///
    /// [`ClientError::BadUrl`] if this is no `http` or `https` address; [`ClientError::Http`] if
    /// reqwest's own client cannot be set up.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadUrl {
            reason: reason.to_owned(),
        };
        let mut url = Url::parse(base_url.trim()).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("the scheme is neither http nor https"));
        }
        let path = url.path().trim_end_matches('/');
        if !path.ends_with("/chat/completions") {
            let path = format!("{path}/chat/completions");
            url.set_path(&path);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("text/event-stream"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // A redirect would carry the prompt, and a key in a header of one's own, to another server.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Http(error.without_url()))?;
        Ok(Self {
            http,
            url,
            headers,
            secrets: Vec::new(),
            include_usage: true,
            max_event_bytes: MAX_EVENT_BYTES,
        })
    }

    /// Sets the key, sent as `Authorization: Bearer`.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadHeader`] if the key has characters that no header may hold.
    pub fn api_key(mut self, key: &str) -> Result<Self, ClientError> {
        let bearer = format!("Bearer {}", key.trim());
        let mut value = HeaderValue::from_str(&bearer).map_err(|_| ClientError::BadHeader {
            name: "authorization".to_owned(),
        })?;
        value.set_sensitive(true);
        self.headers.insert(AUTHORIZATION, value);
        self.secrets.push(key.trim().to_owned());
        Ok(self)
    }

    /// Sets a header of every request, such as Azure's `api-key`. Its value is treated like a key:
    /// it shows nowhere.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadHeader`] if the name or the value is none that a header may have.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ClientError> {
        let bad = || ClientError::BadHeader {
            name: name.to_owned(),
        };
        let header = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let mut sensitive = HeaderValue::from_str(value).map_err(|_| bad())?;
        sensitive.set_sensitive(true);
        self.headers.insert(header, sensitive);
        self.secrets.push(value.to_owned());
        Ok(self)
    }

    /// Sets the HTTP client, for one with proxies, certificates or timeouts of its own. The client
    /// that is set otherwise follows no redirects; what this one does about them is up to you.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http = client;
        self
    }

    /// Sets whether requests ask for token counts (`stream_options.include_usage`): yes unless
    /// set. For servers that refuse the field.
    pub const fn include_usage(mut self, include: bool) -> Self {
        self.include_usage = include;
        self
    }

    /// Sets the largest event allowed, in bytes, as [`Decoder::max_event_bytes`] does.
    pub const fn max_event_bytes(mut self, limit: usize) -> Self {
        self.max_event_bytes = limit;
        self
    }

    /// Sends a request and gives its tokens.
    ///
    /// `request` is anything that serializes to the API's JSON: a [`ChatRequest`], your own type, a
    /// `serde_json::Value`. `"stream": true` and
    /// `"stream_options": {"include_usage": true}` are added unless they are there. The future
    /// borrows nothing.
    ///
    /// [`ChatRequest`]: super::ChatRequest
    ///
    /// # Errors
    ///
    /// Those of [`from_response`]; [`ProviderError::Transport`] if no response came;
    /// [`ProviderError::Request`] if `request` does not serialize to an object.
    pub fn chat_stream<R>(
        &self,
        request: &R,
    ) -> impl Future<Output = Result<ChatStream, ProviderError<reqwest::Error>>> + Send + 'static + use<R>
    where
        R: Serialize + ?Sized,
    {
        let body = body(request, self.include_usage);
        let request = self
            .http
            .post(self.url.clone())
            .headers(self.headers.clone());
        let secrets = self.secrets.clone();
        let max_event_bytes = self.max_event_bytes;
        async move {
            let body =
                body.map_err(|problem| ProviderError::Request(InvalidRequest { problem }))?;
            let response = request.body(body).send().await;
            let response = response.map_err(reqwest::Error::without_url)?;
            let stream = read_response(response, &secrets).await?;
            Ok(stream.max_event_bytes(max_event_bytes))
        }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Neither user information nor the query: both may hold a key.
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map(|port| format!(":{port}"));
        let port = port.unwrap_or_default();
        let url = format!("{}://{host}{port}{}", self.url.scheme(), self.url.path());
        f.debug_struct("Client")
            .field("url", &url)
            .field("headers", &self.headers)
            .field("include_usage", &self.include_usage)
            .field("max_event_bytes", &self.max_event_bytes)
            .finish_non_exhaustive()
    }
}

/// The request's JSON, with the fields that make it a streaming one. Everything else stays byte
/// for byte as the request serializes.
fn body<R: Serialize + ?Sized>(request: &R, include_usage: bool) -> Result<Vec<u8>, &'static str> {
    #[derive(Default)]
    struct Present {
        any: bool,
        stream: bool,
        stream_options: bool,
    }
    impl<'de> Fields<'de> for Present {
        fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
            self.any = true;
            self.stream |= key == "stream";
            self.stream_options |= key == "stream_options";
            skip(map)
        }
    }
    let mut body = serde_json::to_vec(request).map_err(|_| "it does not serialize")?;
    let present = serde_json::from_slice::<Object<Present>>(&body).ok();
    let Some(present) = present.and_then(|object| object.0) else {
        return Err("it is another kind of value");
    };
    let mut added = String::new();
    if !present.stream {
        added.push_str(r#","stream":true"#);
    }
    if !present.stream_options && include_usage {
        added.push_str(r#","stream_options":{"include_usage":true}"#);
    }
    // The last byte is the object's closing brace.
    let added = if present.any {
        &added[..]
    } else {
        added.get(1..).unwrap_or_default()
    };
    body.pop();
    body.extend_from_slice(added.as_bytes());
    body.push(b'}');
    Ok(body)
}

/// Why a [`Client`] cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is neither a key nor the address of another server.
    #[error(
        "OPENAI_API_KEY is not set (and neither is OPENAI_BASE_URL, for a server without keys)"
    )]
    MissingKey,
    /// The base address is none.
    #[error("the base URL is not valid: {reason}")]
    #[non_exhaustive]
    BadUrl {
        /// What is wrong with it; never holds the address.
        reason: String,
    },
    /// A header's name or value, such as the key, has characters that no header may have.
    #[error("the value or name of the header `{name}` has characters that no header may have")]
    #[non_exhaustive]
    BadHeader {
        /// The header's name.
        name: String,
    },
    /// reqwest's own client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] reqwest::Error),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openai::ChatRequest;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &str)| {
            (HeaderName::from_static(name), value.parse().unwrap())
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn waits_are_read_in_every_form() {
        let now = httpdate::parse_http_date("Wed, 21 Oct 2015 07:28:00 GMT").unwrap();
        let check = |pairs: &[(&'static str, &str)], millis: Option<u64>| {
            let expected = millis.map(Duration::from_millis);
            assert_eq!(retry_after(&headers(pairs), now), expected, "{pairs:?}");
        };
        check(&[], None);
        check(&[("retry-after", "2")], Some(2000));
        check(&[("retry-after", " 0.25 ")], Some(250));
        check(&[("retry-after", "-1")], None);
        check(&[("retry-after", "NaN")], None);
        check(&[("retry-after", "inf")], None);
        check(&[("retry-after", "1e300")], None);
        check(&[("retry-after", "soon")], None);
        check(
            &[("retry-after", "2"), ("retry-after-ms", "1500")],
            Some(1500),
        );
        check(&[("retry-after", "2"), ("retry-after-ms", "x")], Some(2000));
        let date = ("retry-after", "Wed, 21 Oct 2015 07:28:05 GMT");
        check(&[date], Some(5000));
        check(
            &[date, ("date", "Wed, 21 Oct 2015 07:28:04 GMT")],
            Some(1000),
        );
        check(&[("retry-after", "Wed, 21 Oct 2015 07:27:00 GMT")], Some(0));
    }

    #[test]
    fn requests_become_streaming_and_stay_as_they_are() {
        let check = |request: serde_json::Value, usage, expected: &str| {
            let body = body(&request, usage).unwrap();
            assert_eq!(String::from_utf8(body).unwrap(), expected);
        };
        let both = r#"{"stream":true,"stream_options":{"include_usage":true}}"#;
        check(serde_json::json!({}), true, both);
        check(serde_json::json!({}), false, r#"{"stream":true}"#);
        check(
            serde_json::json!({"stream": false}),
            false,
            r#"{"stream":false}"#,
        );
        check(
            serde_json::json!({"a": 1, "stream_options": null}),
            true,
            r#"{"a":1,"stream_options":null,"stream":true}"#,
        );
        let request = ChatRequest::new("m").user("hi");
        assert_eq!(
            String::from_utf8(body(&request, false).unwrap()).unwrap(),
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#
        );
        assert!(body("text", true).is_err());
        assert!(body(&[1], true).is_err());
    }

    #[test]
    fn addresses() {
        let url = |base| Client::new(base).unwrap().url.to_string();
        assert_eq!(url("http://h/v1"), "http://h/v1/chat/completions");
        assert_eq!(url("http://h/v1/"), "http://h/v1/chat/completions");
        assert_eq!(url("http://h"), "http://h/chat/completions");
        assert_eq!(
            url("http://h/chat/completions"),
            "http://h/chat/completions"
        );
        assert_eq!(
            url("http://h/d%2Fe?v=1"),
            "http://h/d%2Fe/chat/completions?v=1"
        );
        for bad in ["", "h/v1", "ftp://h", "file:///x", "http://", "mailto:a@b"] {
            let error = Client::new(bad).unwrap_err();
            assert!(
                matches!(error, ClientError::BadUrl { .. }),
                "{bad}: {error}"
            );
        }
    }

    #[test]
    fn the_environment() {
        let client = |key: Option<&str>, base: Option<&str>| {
            Client::from_vars(|name| {
                let value = if name == "OPENAI_API_KEY" { key } else { base };
                value.map(str::to_owned)
            })
        };
        assert!(matches!(client(None, None), Err(ClientError::MissingKey)));
        assert!(matches!(
            client(Some(" "), Some("")),
            Err(ClientError::MissingKey)
        ));
        assert!(client(None, Some("http://localhost:1/v1")).is_ok());
        let bad_key = client(Some("a\nb"), None).unwrap_err();
        assert!(matches!(bad_key, ClientError::BadHeader { .. }));
        assert!(!bad_key.to_string().contains("a\nb"));
        let openai = client(Some("sk-canary"), None).unwrap();
        assert_eq!(
            openai.url.as_str(),
            "https://api.openai.com/v1/chat/completions"
        );
        assert_eq!(openai.headers[AUTHORIZATION], "Bearer sk-canary");
    }

    #[test]
    fn nothing_secret_shows() {
        let client = Client::new("http://user:canary@h:1/v1?key=canary").unwrap();
        let client = client.api_key("canary").unwrap();
        let client = client.header("api-key", "canary").unwrap();
        let shown = format!("{client:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("http://h:1/v1/chat/completions"), "{shown}");
    }

    #[test]
    fn types_can_cross_threads() {
        fn send<T: Send>(_: &T) {}
        fn send_unpin<T: Send + Unpin + 'static>() {}
        fn send_sync<T: Send + Sync + 'static>() {}
        send_unpin::<ChatStream>();
        send_sync::<Client>();
        send_sync::<ProviderError<reqwest::Error>>();
        let borrowed = "text".to_owned();
        let client = Client::new("http://h").unwrap();
        send(&client.chat_stream(&[borrowed.as_str()]));
    }
}
