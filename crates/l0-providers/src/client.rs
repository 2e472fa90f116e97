//! A small client on `reqwest`, the same for all providers.

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

/// The largest whole answer allowed unless the user says otherwise: 64 MiB, enough for 2,000 long vectors
/// as JSON.
const MAX_ANSWER_BYTES: usize = 64 * 1024 * 1024;

/// What is particular to one provider's API. Implemented by the types that a [`Client`] is of, such
/// as `openai::OpenAi`.
pub trait Provider: Default {
    #[doc(hidden)]
    const API: Api;
}

/// An API's address, and how it takes a key.
#[derive(Debug)]
pub struct Api {
    pub(crate) base_url: &'static str,
    /// The environment variables with another address, and with the key; the first that is set
    /// counts.
    pub(crate) base_url_vars: &'static [&'static str],
    pub(crate) key_vars: &'static [&'static str],
    /// The key's header, and what stands before the key in it.
    pub(crate) key_header: &'static str,
    pub(crate) key_prefix: &'static str,
    /// Whether the API at its own address takes no request without a key.
    pub(crate) needs_key: bool,
    /// What requests for a stream accept.
    pub(crate) accept: &'static str,
    /// Headers of every request.
    pub(crate) headers: &'static [(&'static str, &'static str)],
    /// Makes an address of what the variable for one may have instead.
    pub(crate) read_address: fn(&str) -> Cow<'_, str>,
}

/// A client for one provider's API, such as `openai::Client`.
///
/// Its methods make [`ProviderRequest`]s, which runs and calls take as their sources; those that end in
/// `_stream` send one at once. Cheap to clone. It holds one connection pool, sets no timeouts (the run's are the better ones),
/// follows no redirects and does not retry by itself.
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

    /// A client from the environment: an address and a key from the variables that the provider's
    /// module names. The key is required unless an address is set, or the provider's own is a local one:
    /// local servers need none. Empty variables count as unset.
    ///
    /// # Errors
    ///
    /// [`ClientError::MissingKey`], and those of [`new`](Self::new) and
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

    /// A client for the API at this address, without a key. What a request adds to the address's
    /// path is said there; its query stays (Azure's `api-version`).
    ///
    /// # Errors
    ///
    /// [`ClientError::BadUrl`] if this is no `http` or `https` address; [`ClientError::Http`] if
    /// reqwest's own client cannot be set up.
    pub fn new(base_url: &str) -> Result<Self, ClientError> {
        let bad = |reason: &str| ClientError::BadUrl {
            reason: reason.to_owned(),
        };
        let base_url = base_url.trim();
        // Without a scheme, the parser takes a host's name for one, or speaks of a base.
        if !["http://", "https://"]
            .iter()
            .any(|scheme| begins_with(base_url, scheme))
        {
            return Err(bad("it begins with neither `https://` nor `http://`"));
        }
        let base_url = Url::parse(base_url).map_err(|error| bad(&error.to_string()))?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(P::API.accept));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in P::API.headers {
            headers.insert(*name, HeaderValue::from_static(value));
        }
        // A redirect would carry the prompt, and a key in a header of one's own, to another server.
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

    /// Sets the key, sent in the header that the provider's module names.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadHeader`] if the key has characters that no header may hold.
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

    /// Sets a header of every request, such as Azure's `api-key` or a gateway's `x-portkey-provider`.
    /// `Debug` of the client does not print its value.
    ///
    /// A value that is a credential is treated like a key: where a server repeats it, in an error or in
    /// the name of a model, it is taken out. It is one
    ///
    /// - if a word of the name says so: `auth`, `key`, `jwt` and the like, and those that end in
    ///   `authorization`, `apikey`, `token`, `secret`, `cookie`, `password`, `credential`, `signature`;
    /// - or if the value does: behind a scheme such as `Bearer`, in a form that
    ///   [`redact::text`](l0_core::redact::text) knows, or because it looks random: 16 letters and digits
    ///   in a row that change often between lower case, upper case and digits, or 32 of any.
    ///
    /// Any other value is left where it stands, and so is a UUID: a provider's name is a part of models'
    /// names. A credential of another form needs a header whose name says what it is.
    ///
    /// # Errors
    ///
    /// [`ClientError::BadHeader`] if the name or the value is none that a header may have.
    pub fn header(mut self, name: &str, value: &str) -> Result<Self, ClientError> {
        let header = HeaderName::from_bytes(name.as_bytes());
        let header = header.map_err(|_| ClientError::BadHeader {
            // It may be the value, in the name's place.
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

    /// Sets the HTTP client, for one with proxies, certificates or timeouts of its own. The client
    /// that is set otherwise follows no redirects; what this one does about them is up to you.
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http = client;
        self
    }

    /// Sets the largest event allowed, in bytes, as [`Decoder::max_event_bytes`](crate::Decoder::max_event_bytes)
    /// does.
    pub const fn max_event_bytes(mut self, limit: usize) -> Self {
        self.max_event_bytes = limit;
        self
    }

    /// Sets the largest whole answer allowed, in bytes: 64 MiB unless set. A larger one fails with
    /// [`ProviderError::AnswerTooLarge`](crate::ProviderError::AnswerTooLarge).
    pub const fn max_answer_bytes(mut self, limit: usize) -> Self {
        self.max_answer_bytes = limit;
        self
    }

    /// Sets who serves the model, for an address that does not tell, such as a gateway's: what the
    /// requests' [descriptions](l0_core::Description::provider) say. Use the names of OpenTelemetry's
    /// conventions, such as `openai` or `aws.bedrock`, where there is one.
    pub fn provider_name(mut self, name: impl Into<Cow<'static, str>>) -> Self {
        self.provider_name = Some(name.into());
        self
    }

    /// The address, without a slash at the end of its path.
    pub(crate) fn base_url(&self) -> Url {
        let mut url = self.base_url.clone();
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        url
    }

    /// The address with `path` added, unless it ends so.
    pub(crate) fn endpoint(&self, path: &str) -> Url {
        let mut url = self.base_url();
        if !url.path().ends_with(path) {
            let path = format!("{}{path}", url.path().trim_end_matches('/'));
            url.set_path(&path);
        }
        url
    }

    /// A request to this address, with these fields added unless they are there. `model` is the one that
    /// the address names.
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

/// Whether a text begins so, in any case.
fn begins_with(text: &str, beginning: &str) -> bool {
    let head = text.get(..beginning.len());
    head.is_some_and(|head| head.eq_ignore_ascii_case(beginning))
}

/// The request's JSON, with the fields that make it a streaming one. Everything else stays byte
/// for byte as the request serializes.
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

/// Why a [`Client`] cannot be built.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// There is neither a key nor the address of another server.
    #[error("{key} is not set (and neither is {base_url}, for a server without keys)")]
    #[non_exhaustive]
    MissingKey {
        /// The environment variable for the key.
        key: &'static str,
        /// The environment variable for another server's address.
        base_url: &'static str,
    },
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
#[cfg(feature = "openai")]
mod tests {
    use super::*;
    use crate::error::ProviderError;
    use crate::http_response::ProviderStream;
    use crate::openai::{ChatRequest, Client};

    #[test]
    fn requests_become_streaming_and_stay_as_they_are() {
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
