//! Prepared requests that describe themselves: the sources of runs and calls.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;

use bytes::Bytes;
use l0_core::source::{ByToken, Connecting};
use l0_core::{Attempt, Description, Source};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{InvalidRequest, ProviderError, RequestError};
use crate::hosts;
use crate::lenient::{Count, Fields, Object, Text, anything, default_on, skip};
use crate::secrets::Secrets;

/// The `accept` header of requests for a stream.
pub(crate) const ACCEPT_EVENTS: &str = "text/event-stream";
/// The same for an API that streams lines.
pub(crate) const ACCEPT_LINES: &str = "application/x-ndjson";

/// A request to a provider, created by a client's methods, such as `openai::Client::chat`.
///
/// It is a [`Source`] that describes itself. `A` is its answer: a [`ProviderStream`](crate::ProviderStream) for a run,
/// a [`Completion`](crate::Completion) or [`Embeddings`](crate::Embeddings) for a call. It owns the request as JSON,
/// which is serialized once and sent again by each attempt. `Debug` shows neither the request nor a key.
///
/// Its description ([`describe`](Source::describe)) has:
///
/// - the provider, from the host of the address, unless [`provider_name`](crate::Client::provider_name) sets it. It is
///   absent if the host is not known, such as a proxy or a local server, as the API does not identify the provider
///   there;
/// - the model and the operation: `chat`, `generate_content`, `text_completion`, `embeddings`;
/// - the host and the port;
/// - whether the request asks for a stream;
/// - the parameters `temperature`, `top_p`, `top_k`, `max_tokens`, `frequency_penalty`, `presence_penalty`, `seed`,
///   `choice.count` (unless it is 1) and `encoding_formats`, under any name that an API uses, and
///   `embeddings.dimension.count`, which follows `gen_ai.` in the conventions.
///
/// [`input`](Source::input) is an object with the request's own fields that contain its prompt, such as `messages` and
/// `system`, and its `tools`.
#[must_use = "a request does nothing until it is sent, by a run, a call or `send`"]
pub struct ProviderRequest<A> {
    pub(crate) http: reqwest::Client,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, InvalidRequest>,
    pub(crate) reading: Reading,
    pub(crate) provider: Option<Cow<'static, str>>,
    /// The model in the address, if any.
    pub(crate) model: Option<String>,
    pub(crate) call: Call<A>,
}

/// The operation of a request, and how its answer is read.
pub(crate) struct Call<A> {
    /// The operation's name in the conventions.
    pub(crate) operation: &'static str,
    /// `true` for a streaming request, unless the request's own field says otherwise.
    pub(crate) streaming: bool,
    pub(crate) read: fn(Response, Reading) -> Connecting<A, RequestError>,
}

impl<A> Clone for Call<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Call<A> {}

/// Limits and secrets for reading an answer.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) max_event_bytes: usize,
    pub(crate) max_answer_bytes: usize,
    pub(crate) secrets: Secrets,
}

impl<A: 'static> ProviderRequest<A> {
    /// Sends the request without a run, and returns its answer. Nothing is retried or measured. Each call sends the
    /// request once. The future borrows nothing.
    ///
    /// # Errors
    ///
    /// Returns the errors of the client's method that created the request.
    pub fn send(&self) -> impl Future<Output = Result<A, RequestError>> + Send + 'static + use<A> {
        let request = self.body.clone().map(|body| {
            let mut headers = self.headers.clone();
            let set = headers.get(ACCEPT);
            let for_stream = set.is_some_and(|set| set == ACCEPT_EVENTS || set == ACCEPT_LINES);
            if !self.call.streaming && for_stream {
                headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
            }
            self.http.post(self.url.clone()).headers(headers).body(body)
        });
        let reading = self.reading.clone();
        let read = self.call.read;
        async move {
            let request = request.map_err(ProviderError::Request)?;
            let response = request.send().await;
            let response =
                response.map_err(|error| ProviderError::Transport(error.without_url()))?;
            let secrets = reading.secrets.clone();
            let answer = read(response, reading).await;
            answer.map_err(|error| secrets.hide_in_error(error))
        }
    }

    fn fields<'a, F: Fields<'a>>(&'a self) -> F {
        let body = self.body.as_deref().unwrap_or_default();
        let fields = serde_json::from_slice::<Object<F>>(body).ok();
        fields.and_then(|fields| fields.0).unwrap_or_default()
    }
}

impl<A: 'static> Source for ProviderRequest<A> {
    type Answer = A;
    type Error = RequestError;
    type Connecting = Connecting<A, RequestError>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Connecting<A, RequestError> {
        Box::pin(self.send())
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        let fields: RequestFields<'_> = self.fields();
        let host = self.url.host_str().unwrap_or_default();
        let known = || hosts::provider_at(&self.url).map(Cow::Borrowed);
        // An IPv6 address is in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let model = self.model.clone();
        let model = model.or_else(|| fields.model.filled().map(Cow::into_owned));
        let mut description = Description::new();
        description.provider = self.provider.clone().or_else(known);
        description.model = model.map(Cow::Owned);
        description.operation = Some(Cow::Borrowed(self.call.operation));
        description.server_address = Some(Cow::Owned(host.to_owned()));
        description.server_port = self.url.port_or_known_default();
        description.streaming = Some(fields.stream.unwrap_or(self.call.streaming));
        let parameters = fields.parameters.into_iter();
        let parameters = parameters.map(|(name, value)| (Cow::Borrowed(name), value));
        description.parameters = parameters.collect();
        description
    }

    fn input(&self) -> Option<Value> {
        let Prompt(fields) = self.fields();
        (!fields.is_empty()).then_some(Value::Object(fields))
    }
}

impl<A> Clone for ProviderRequest<A> {
    fn clone(&self) -> Self {
        Self {
            http: self.http.clone(),
            url: self.url.clone(),
            headers: self.headers.clone(),
            body: self.body.clone(),
            reading: self.reading.clone(),
            provider: self.provider.clone(),
            model: self.model.clone(),
            call: self.call,
        }
    }
}

impl<A> fmt::Debug for ProviderRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProviderRequest")
            .field("url", &shown(&self.url))
            .field("operation", &self.call.operation)
            .field("bytes", &self.body.as_ref().map(Bytes::len))
            .finish_non_exhaustive()
    }
}

/// Returns an address without user information and query, which may contain a key.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// The fields that describe a request, under the names of all APIs.
#[derive(Default)]
struct RequestFields<'a> {
    model: Text<'a>,
    stream: Option<bool>,
    parameters: Vec<(&'static str, Value)>,
}

impl<'de> Fields<'de> for RequestFields<'de> {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let number = match key {
            "model" => {
                self.model = map.next_value()?;
                return Ok(());
            }
            "stream" => {
                let stream: Value = map.next_value()?;
                self.stream = stream.as_bool();
                return Ok(());
            }
            "encoding_format" => {
                let format: Text<'de> = map.next_value()?;
                if let Some(format) = format.0.filter(|format| is_word(format)) {
                    self.parameters
                        .push(("encoding_formats", vec![format.into_owned()].into()));
                }
                return Ok(());
            }
            "n" | "candidateCount" | "candidate_count" => {
                let Count(count) = map.next_value()?;
                let several = count.filter(|count| *count != 1);
                self.parameters
                    .extend(several.map(|count| ("choice.count", count.into())));
                return Ok(());
            }
            // Parameters of Gemini and of Ollama.
            "generationConfig" | "generation_config" | "embedContentConfig" | "options" => {
                let mut inner = Object::<Box<Self>>::default();
                inner.read(map)?;
                let inner = inner.0.into_iter().flat_map(|inner| inner.parameters);
                self.parameters.extend(inner);
                return Ok(());
            }
            "num_predict" => {
                // A negative value means no limit.
                let Count(count) = map.next_value()?;
                self.parameters
                    .extend(count.map(|count| ("max_tokens", count.into())));
                return Ok(());
            }
            "temperature" => "temperature",
            "top_p" | "topP" => "top_p",
            "top_k" | "topK" => "top_k",
            "seed" => "seed",
            "max_tokens" | "max_completion_tokens" | "max_output_tokens" | "maxOutputTokens" => {
                "max_tokens"
            }
            "frequency_penalty" | "frequencyPenalty" => "frequency_penalty",
            "presence_penalty" | "presencePenalty" => "presence_penalty",
            "dimensions" | "outputDimensionality" | "output_dimensionality" => {
                "embeddings.dimension.count"
            }
            _ => return skip(map),
        };
        let Number(value) = map.next_value()?;
        self.parameters.extend(value.map(|value| (number, value)));
        Ok(())
    }
}

/// Returns `true` if a text is an API's identifier, and not a prompt.
fn is_word(text: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(letter)
}

/// A number, kept as sent.
#[derive(Default)]
struct Number(Option<Value>);

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Number;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                anything(f)
            }
            fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
                Ok(Number(Some(number.into())))
            }
            fn visit_i64<E>(self, number: i64) -> Result<Self::Value, E> {
                Ok(Number(Some(number.into())))
            }
            fn visit_f64<E>(self, number: f64) -> Result<Self::Value, E> {
                Ok(Number(Some(number.into())))
            }
            default_on!(bool str null seq map);
        }
        deserializer.deserialize_any(V)
    }
}

/// The fields of a request that contain its prompt.
#[derive(Default)]
struct Prompt(Map<String, Value>);

impl<'de> Fields<'de> for Prompt {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "messages" | "input" | "contents" | "content" | "requests" | "prompt" | "suffix"
            | "images" | "system" | "instructions" | "systemInstruction" | "system_instruction"
            | "tools" => {
                self.0.insert(key.to_owned(), map.next_value()?);
                Ok(())
            }
            _ => skip(map),
        }
    }
}
