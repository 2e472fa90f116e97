//! A request that is ready to be sent, and says what it is: a source for a run or a call.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use l0_core::{Attempt, ByToken, Description, Source};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue};
use reqwest::{Response, Url};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::error::{InvalidRequest, ProviderError};
use crate::hosts;
use crate::lenient::{Count, Fields, Object, Text, anything, default_on, skip};
use crate::secrets::Secrets;

type Error = ProviderError<reqwest::Error>;

/// What a request accepts that asks for a stream.
pub(crate) const ACCEPT_EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");

/// Sends a [`ProviderRequest`] and reads what comes.
pub type Connecting<A> = Pin<Box<dyn Future<Output = Result<A, Error>> + Send>>;

/// A request to a provider, made by a client's methods, such as `openai::Client::chat`.
///
/// It is a [`Source`] that describes itself: `A` is what it gives, a
/// [`ProviderStream`](crate::ProviderStream) for a run, a [`Completion`](crate::Completion) or
/// [`Embeddings`](crate::Embeddings) for a call. It owns the request as JSON, which is written once and
/// sent again for each attempt. `Debug` shows neither the request nor a key.
///
/// What it says of itself ([`describe`](Source::describe)):
///
/// - the provider, by the address's host, unless
///   [`provider_name`](crate::Client::provider_name) sets it. It is absent where the host is not known,
///   as of a proxy or a local server: what answers there, the API does not tell;
/// - the model, and the operation: `chat`, `generate_content`, `embeddings`;
/// - the host and the port;
/// - whether a stream is asked for;
/// - the parameters `temperature`, `top_p`, `top_k`, `max_tokens`, `frequency_penalty`,
///   `presence_penalty`, `seed`, `choice.count` (unless it is 1) and `encoding_formats`, whatever the
///   API's name for them; and `embeddings.dimension.count`, which in the conventions follows `gen_ai.`.
///
/// [`input`](Source::input) is an object with those of the request's own fields that hold its prompt,
/// such as `messages` and `system`.
#[must_use = "a request is sent by a run or a call"]
pub struct ProviderRequest<A> {
    pub(crate) http: reqwest::Client,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Result<Bytes, InvalidRequest>,
    pub(crate) reading: Reading,
    pub(crate) provider: Option<Cow<'static, str>>,
    /// The model, where the address names it.
    pub(crate) model: Option<String>,
    pub(crate) call: Call<A>,
}

/// What is to be done, and how its answer is read.
pub(crate) struct Call<A> {
    /// The operation, by the name that the conventions give it.
    pub(crate) operation: &'static str,
    /// Whether a stream is asked for, unless the request itself says.
    pub(crate) streaming: bool,
    pub(crate) read: fn(Response, Reading) -> Connecting<A>,
}

impl<A> Clone for Call<A> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A> Copy for Call<A> {}

/// What is to be seen to when an answer is read.
#[derive(Clone)]
pub(crate) struct Reading {
    pub(crate) max_event_bytes: usize,
    pub(crate) max_answer_bytes: usize,
    pub(crate) secrets: Secrets,
}

impl<A: 'static> ProviderRequest<A> {
    /// Sends the request, and reads the response.
    pub(crate) fn send(&self) -> impl Future<Output = Result<A, Error>> + Send + 'static + use<A> {
        let request = self.body.clone().map(|body| {
            let mut headers = self.headers.clone();
            if !self.call.streaming && headers.get(ACCEPT) == Some(&ACCEPT_EVENTS) {
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
    type Error = Error;
    type Connecting = Connecting<A>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Connecting<A> {
        Box::pin(self.send())
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        let asked: Asked<'_> = self.fields();
        let host = self.url.host_str().unwrap_or_default();
        let known = || hosts::provider_at(&self.url).map(Cow::Borrowed);
        // An address of version 6 stands in brackets.
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let model = self.model.clone();
        let model = model.or_else(|| asked.model.filled().map(Cow::into_owned));
        let mut description = Description::new();
        description.provider = self.provider.clone().or_else(known);
        description.model = model.map(Cow::Owned);
        description.operation = Some(Cow::Borrowed(self.call.operation));
        description.server_address = Some(Cow::Owned(host.to_owned()));
        description.server_port = self.url.port_or_known_default();
        description.streaming = Some(asked.stream.unwrap_or(self.call.streaming));
        let parameters = asked.parameters.into_iter();
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

/// An address without user information and query, which may hold a key.
pub(crate) fn shown(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}"));
    let port = port.unwrap_or_default();
    format!("{}://{host}{port}{}", url.scheme(), url.path())
}

/// The fields of a request that describe it, under the names of all APIs.
#[derive(Default)]
struct Asked<'a> {
    model: Text<'a>,
    stream: Option<bool>,
    parameters: Vec<(&'static str, Value)>,
}

impl<'de> Fields<'de> for Asked<'de> {
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
            // Gemini's parameters.
            "generationConfig" | "generation_config" | "embedContentConfig" => {
                let mut inner = Object::<Box<Self>>::default();
                inner.read(map)?;
                let inner = inner.0.into_iter().flat_map(|inner| inner.parameters);
                self.parameters.extend(inner);
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

/// Whether a text is a word that an API has for something, and no prompt.
fn is_word(text: &str) -> bool {
    let letter = |c: u8| c.is_ascii_alphanumeric() || c == b'_' || c == b'-';
    (1..=32).contains(&text.len()) && text.bytes().all(letter)
}

/// A number, as it is.
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

/// The fields of a request that hold its prompt.
#[derive(Default)]
struct Prompt(Map<String, Value>);

impl<'de> Fields<'de> for Prompt {
    fn read<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        match key {
            "messages" | "input" | "contents" | "content" | "requests" | "prompt" | "system"
            | "instructions" | "systemInstruction" | "system_instruction" => {
                self.0.insert(key.to_owned(), map.next_value()?);
                Ok(())
            }
            _ => skip(map),
        }
    }
}
