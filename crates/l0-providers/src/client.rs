//! A small client based on `reqwest`, shared by all providers.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;
use l0_core::redact;
use reqwest::Url;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::MapAccess;

use crate::decode::MAX_EVENT_BYTES;
use crate::error::InvalidRequest;
use crate::lenient::{Fields, Object, skip};
use crate::request::{Call, ProviderRequest, Reading, shown};
use crate::secrets::Secrets;

/// Default limit on a whole answer: 64 MiB, enough for 2,000 long vectors as JSON.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// A provider's API. Implemented by the type parameters of [`Client`], such as `openai::OpenAi`.
pub trait Provider: Default {
    #[doc(hidden)]
    const API: Api;
}

/// An API's address and the form of its key.
#[derive(Debug)]
pub struct Api {
    pub(crate) base_url: &'static str,
    /// Environment variables for another address and for the key. The first variable that is set is used.
    pub(crate) base_url_vars: &'static [&'static str],
    pub(crate) key_vars: &'static [&'static str],
    /// The key's header, and the text before the key in it.
    pub(crate) key_header: &'static str,
    pub(crate) key_prefix: &'static str,
    /// `true` if the API at its own address rejects requests without a key.
    pub(crate) needs_key: bool,
    /// The `accept` header of requests for a stream.
    pub(crate) accept: &'static str,
    /// Headers of every request.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Converts the value of an address variable to an address.
    pub(crate) read_address: fn(&str) -> Cow<'_, str>,
}

/// A client for one provider's API, such as `openai::Client`.
///
/// Its methods create [`ProviderRequest`]s, the sources of runs and calls. Methods that end in `_stream` send a request
/// at once. Clones are cheap and share one connection pool. The client sets no timeouts, as the run's are better,
/// follows no redirects and does not retry.
#[derive(Clone)]
#[must_use]
pub struct Client<P> {
    http: reqwest::Client,
    base_url: Url,
    headers: HeaderMap,
    secrets: Secrets,
    max_event_bytes: usize,
    max_answer_bytes: usize,
    provider_name: Option<Cow<'static, str>>,
    pub(crate) provider: P,
}

impl<P: Provider> Client<P> {
    /// The address of the provider's own API.
    pub const DEFAULT_BASE_URL: &'static str = P::API.base_url;

    /// Creates a client from the environment: an address and a key from the variables that the provider's module names.
    /// The key is required unless an address is set or the provider's own address is local, as local servers need no
    /// key. Empty variables count as unset.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::MissingKey`] if a required key is not set; otherwise the errors of [`new`](Self::new) and
    /// [`api_key`](Self::api_key).
    pub fn from_env() -> Result<Self, ClientError> {
        Self::from_vars(|name| std::env::var(name).ok())
    }

    fn from_vars(var: impl Fn(&str) -> Option<String>) -> Result<Self, ClientError> {
        let first = |names: &[&str]| {
            let values = names.iter().filter_map(|name| var(name));
            let mut values = values.map(|value| value.trim().to_owned());
            values.find(|value| !value.is_empty())
        };
        let api = P::API;
        let base_url = first(api.base_url_vars);
        let address = base_url.as_deref().map(api.read_address);
        let client = Self::new(address.as_deref().unwrap_or(Self::DEFAULT_BASE_URL))?;
        match first(api.key_vars) {
            Some(key) => client.api_key(&key),
            None if base_url.is_some() || !api.needs_key => Ok(client),
            None => Err(ClientError::MissingKey {
                key: api.key_vars[0],
                base_url: api.base_url_vars[0],
            }),
        }
    }

    /// Creates a client for the API at this address, without a key. Each request documents what it appends to the path
    /// of the address. The query is kept, such as Azure's `api-version`.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::BadUrl`] if this is not an `http` or `https` address, and [`ClientError::Http`] if the
    /// reqwest client cannot be created.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadUrl {
            reason: reason.to_owned(),
        };
        let base_url = base_url.trim();
        // Without a scheme, the parser reads a host name as one, or its error mentions a base.
        if !["http://", "https://"]
            .iter()
            .any(|scheme| begins_with(base_url, scheme))
        {
            return Err(bad("it does not begin with `https://` or `http://`"));
        }
        let base_url = Url::parse(base_url).map_err(|error| bad(&error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(P::API.accept));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in P::API.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        // A redirect would carry the prompt, and a key in a custom header, to another server.
        let http = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|error| ClientError::Http(error.without_url()))?;
        let mut secrets = Secrets::default();
        secrets.add_address(&base_url);
        Ok(Self {
            http,
            base_url,
            headers,
            secrets,
            max_event_bytes: MAX_EVENT_BYTES,
            max_answer_bytes: MAX_ANSWER_BYTES,
            provider_name: None,
            provider: P::default(),
        })
    }

    /// Sets the key, which is sent in the header that the provider's module names.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::BadHeader`] if the key contains characters that are not allowed in a header.
    pub fn api_key(mut self, key: &str) -> Result<Self, ClientError> {
        let Api {
            key_header,
            key_prefix,
            ..
        } = P::API;
        let key = key.trim();
        self.secret_header(
            HeaderName::from_static(key_header),
            &format!("{key_prefix}{key}"),
        )?;
        self.secrets.add(key);
        Ok(self)
    }

    /// Sets a header of every request, such as Azure's `api-key` or a gateway's `x-portkey-provider`. The client's
    /// `Debug` output omits the value.
    ///
    /// A value that is a credential is treated like a key: it is removed from errors and model names in which a server
    /// repeats it. A value is a credential if
    ///
    /// - a word of the header's name marks it: `auth`, `key`, `jwt` and similar words, and words that end in
    ///   `authorization`, `apikey`, `token`, `secret`, `cookie`, `password`, `credential` or `signature`;
    /// - or the value itself does: it follows a scheme such as `Bearer`, has a form that
    ///   [`redact::text`](l0_core::redact::text) recognizes, or looks random. A value looks random with 16 letters and
    ///   digits in a row that change often between lower case, upper case and digits, or with 32 of any kind.
    ///
    /// Any other value is kept, and so is a UUID, as model names can contain a provider's name. Send a credential of
    /// another form in a header whose name marks it.
    ///
    /// # Errors
    ///
    /// Returns [`ClientError::BadHeader`] if the name or the value is not allowed in a header.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ClientError> {
        let header = HeaderName::from_bytes(name.as_bytes());
        let header = header.map_err(|_| ClientError::BadHeader {
            // The name can be a value in the wrong place.
            name: redact::text(name),
        })?;
        self.secrets.add_header(header.as_str(), value);
        self.secret_header(header, value)?;
        Ok(self)
    }

    fn secret_header(&mut self, name: HeaderName, value: &str) -> Result<(), ClientError> {
        let Ok(mut value) = HeaderValue::from_str(value) else {
            let name = name.as_str().to_owned();
            return Err(ClientError::BadHeader { name });
        };
        value.set_sensitive(true);
        self.headers.insert(name, value);
        Ok(())
    }

    /// Sets the HTTP client, for custom proxies, certificates or timeouts. The default client follows no redirects;
    /// configure your own client likewise.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http = client;
        self
    }

    /// Sets the limit on one event, in bytes, as [`Decoder::max_event_bytes`](crate::Decoder::max_event_bytes) does.
    pub const fn max_event_bytes(mut self, limit: usize) -> Self {
        self.max_event_bytes = limit;
        self
    }

    /// Sets the limit on a whole answer, in bytes. The default is 64 MiB. A larger answer fails with
    /// [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub const fn max_answer_bytes(mut self, limit: usize) -> Self {
        self.max_answer_bytes = limit;
        self
    }

    /// Sets the provider that requests [report](l0_core::Description::provider), for an address that does not identify
    /// it, such as a gateway's. Use the names of OpenTelemetry's conventions, such as `openai` or `aws.bedrock`, where
    /// one exists.
    pub fn provider_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.provider_name = Some(name.into());
        self
    }

    /// The address without a slash at the end of its path.
    pub(crate) fn base_url(&self) -> Url {
        let mut url = self.base_url.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        url
    }

    /// The address with `path` appended, unless it already ends with it.
    pub(crate) fn endpoint(&self, path: &str) -> Url {
        let mut url = self.base_url();
        if !url.path().ends_with(path) {
            let path = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        url
    }

    /// Creates a request to this address, and adds the fields that it does not have. `model` is the model in the
    /// address, if any.
    pub(crate) fn request<R, A>(
        &self,
        url: Url,
        model: Option<&str>,
        request: &R,
        fields: &[(&str, &str)],
        call: Call<A>,
    ) -> ProviderRequest<A>
    where
        R: Serialize + ?Sized,
    {
        let body = body(request, fields);
        ProviderRequest {
            http: self.http.clone(),
            url,
            headers: self.headers.clone(),
            body: body
                .map(Bytes::from)
                .map_err(|problem| InvalidRequest { problem }),
            reading: Reading {
                max_event_bytes: self.max_event_bytes,
                max_answer_bytes: self.max_answer_bytes,
                secrets: self.secrets.clone(),
            },
            provider: self.provider_name.clone(),
            model: model.map(str::to_owned),
            call,
        }
    }
}

impl<P: fmt::Debug> fmt::Debug for Client<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client")
            .field("base_url", &shown(&self.base_url))
            .field("headers", &self.headers)
            .field("max_event_bytes", &self.max_event_bytes)
            .field("max_answer_bytes", &self.max_answer_bytes)
            .field("provider_name", &self.provider_name)
            .field("provider", &self.provider)
            .finish_non_exhaustive()
    }
}

/// Returns `true` if the text begins with `beginning`, ignoring case.
fn begins_with(text: &str, beginning: &str) -> bool {
    let head = text.get(..beginning.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(beginning))
}

/// Serializes the request, and adds the fields that it does not have. Everything else stays byte for byte as it
/// serializes.
fn body<R: Serialize + ?Sized>(
    request: &R,
    fields: &[(&str, &str)],
) -> Result<Vec<u8>, &'static str> {
    /// The names of an object's fields.
    #[derive(Default)]
    struct Names(Vec<String>);
    impl<'de> Fields<'de> for Names {
        fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
            self.0.push(key.to_owned());
            skip(map)
        }
    }
    let mut body = serde_json::to_vec(request).map_err(|_| "it does not serialize")?;
    let names = serde_json::from_slice::<Object<Names>>(&body).ok();
    let Some(Names(names)) = names.and_then(|object| object.0) else {
        return Err("it is another kind of value");
    };
    // The last byte is the object's closing brace.
    body.pop();
    let mut separator = if names.is_empty() { "" } else { "," };
    for (name, value) in fields {
        if !names.iter().any(|present| present == name) {
            body.extend_from_slice(format!("{separator}\"{name}\":{value}").as_bytes());
            separator = ",";
        }
    }
    body.push(b'}');
    Ok(body)
}

/// An error of building a [`Client`].
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No key is set, and no address of another server.
    #[error("{key} is not set; set it, or set {base_url} for a server that needs no key")]
    #[non_exhaustive]
    MissingKey {
        /// The environment variable for the key.
        key: &'static str,
        /// The environment variable for another server's address.
        base_url: &'static str,
    },
    /// The base URL is not an `http` or `https` address.
    #[error("the base URL is not valid: {reason}")]
    #[non_exhaustive]
    BadUrl {
        /// The reason; never contains the address.
        reason: String,
    },
    /// A header's name or value, such as the key, contains characters that are not allowed in a header.
    #[error("header `{name}` has characters in its name or value that are not allowed in a header")]
    #[non_exhaustive]
    BadHeader {
        /// The header's name.
        name: String,
    },
    /// The reqwest client cannot be created.
    #[error("the HTTP client cannot be created")]
    Http(#[source] reqwest::Error),
}

#[cfg(test)]
#[cfg(feature = "openai")]
mod tests {
    use super::*;
    use crate::error::ProviderError;
    use crate::http_response::ProviderStream;
    use crate::openai::{ChatRequest, Client};

    #[test]
    fn requests_become_streaming_and_are_otherwise_unchanged() {
        let fields = [
            ("stream", "true"),
            ("stream_options", r#"{"include_usage":true}"#),
        ];
        let fields = |usage| &fields[..if usage { 2 } else { 1 }];
        let check = |request: serde_json::Value, usage, expected: &str| {
            let body = body(&request, fields(usage)).unwrap();
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
            String::from_utf8(body(&request, fields(false)).unwrap()).unwrap(),
            r#"{"model":"m","messages":[{"role":"user","content":"hi"}],"stream":true}"#
        );
        assert!(body("text", fields(true)).is_err());
        assert!(body(&[1], &[]).is_err());
    }

    #[test]
    fn addresses() {
        let url = |base| {
            let client = Client::new(base).unwrap();
            client.endpoint("/chat/completions").to_string()
        };
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
        assert_eq!(url(" HTTPS://h/v1\n"), "https://h/v1/chat/completions");
        for bad in [
            "",
            "h/v1",
            "h:1/v1",
            "ftp://h",
            "file:///x",
            "http://",
            "mailto:a@b",
        ] {
            let error = Client::new(bad).unwrap_err();
            assert!(
                matches!(error, ClientError::BadUrl { .. }),
                "{bad}: {error}"
            );
            let says_how = error.to_string().contains("`https://`");
            assert_eq!(says_how, bad != "http://", "{bad}: {error}");
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
        assert!(matches!(
            client(None, None),
            Err(ClientError::MissingKey { .. })
        ));
        assert!(matches!(
            client(Some(" "), Some("")),
            Err(ClientError::MissingKey { .. })
        ));
        assert!(client(None, Some("http://localhost:1/v1")).is_ok());
        let bad_key = client(Some("a\nb"), None).unwrap_err();
        assert!(matches!(bad_key, ClientError::BadHeader { .. }));
        assert!(!bad_key.to_string().contains("a\nb"));
        let openai = client(Some("sk-canary"), None).unwrap();
        assert_eq!(openai.base_url.as_str(), "https://api.openai.com/v1");
        assert_eq!(openai.headers["authorization"], "Bearer sk-canary");
    }

    #[cfg(feature = "ollama")]
    #[test]
    fn the_environment_of_a_local_server() {
        use crate::ollama::Client;

        let client = |key: Option<&str>, host: Option<&str>| {
            let client = Client::from_vars(|name| {
                let value = match name {
                    "OLLAMA_API_KEY" => key,
                    "OLLAMA_HOST" => host,
                    _ => None,
                };
                value.map(str::to_owned)
            });
            client.unwrap()
        };
        let local = client(None, None);
        assert_eq!(local.base_url.as_str(), "http://localhost:11434/");
        assert!(!local.headers.contains_key("authorization"));
        assert_eq!(client(None, Some("h")).base_url.as_str(), "http://h:11434/");
        let hosted = client(Some("canary"), Some("https://ollama.com"));
        assert_eq!(hosted.base_url.as_str(), "https://ollama.com/");
        assert_eq!(hosted.headers["authorization"], "Bearer canary");
    }

    #[test]
    fn nothing_secret_shows() {
        let client = Client::new("http://user:canary@h:1/v1?key=canary").unwrap();
        let client = client.api_key("canary").unwrap();
        let client = client.header("api-key", "canary").unwrap();
        let shown = format!("{client:?}");
        assert!(!shown.contains("canary"), "{shown}");
        assert!(shown.contains("http://h:1/v1"), "{shown}");
    }

    #[test]
    fn types_can_cross_threads() {
        fn send<T: Send>(_: &T) {}
        fn send_unpin<T: Send + Unpin + 'static>() {}
        fn send_sync<T: Send + Sync + 'static>() {}
        send_unpin::<ProviderStream>();
        send_sync::<Client>();
        send_sync::<ProviderError<reqwest::Error>>();
        let borrowed = "text".to_owned();
        let client = Client::new("http://h").unwrap();
        send(&client.chat_stream(&[borrowed.as_str()]));
    }
}
