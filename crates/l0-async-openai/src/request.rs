//! Prepared requests of the client that describe themselves.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use async_openai::Client;
use async_openai::config::Config;
use l0_core::source::{ByToken, Connecting};
use l0_core::{Attempt, Description, Metadata, Source};
use reqwest::Url;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// A request of the client, created by [`chat`](crate::chat), [`responses`](crate::responses) and the other functions
/// of this crate.
///
/// It is a [`Source`] that describes itself. `A` is its answer: an [`AnswerStream`](crate::AnswerStream) for a run, a
/// [`Viewed`](crate::Viewed) answer for a call. It owns the request, and the client gets a copy for each attempt.
/// Clones are cheap. `Debug` shows neither the request nor a key.
///
/// Its description ([`describe`](Source::describe)) has:
///
/// - the provider, from the host of the client's address, see [`provider_at`](l0_providers::provider_at); absent if the
///   host is not known, such as a proxy or a local server. `.metadata("provider", name)` sets it;
/// - the model and the operation: `chat` or `embeddings`;
/// - the host and the port;
/// - whether the request asks for a stream;
/// - the parameters `temperature`, `top_p`, `max_tokens`, `frequency_penalty`, `presence_penalty`, `seed`,
///   `choice.count` (unless it is 1) and `encoding_formats`, and `embeddings.dimension.count`, which follows `gen_ai.`
///   in the conventions.
///
/// [`input`](Source::input) is an object with the fields of the request that contain its prompt: `messages`, or `input`
/// and `instructions`.
#[must_use = "a request is sent by a run or a call"]
pub struct ClientRequest<A> {
    request: Arc<dyn AnyRequest<A>>,
}

/// A request of any type, with its client.
trait AnyRequest<A>: Send + Sync {
    fn send(&self) -> Connecting<A, Error>;
    fn describe(&self) -> Description;
    fn input(&self) -> Value;
}

/// A request type that describes itself.
pub(crate) trait DescribeRequest: Clone + Send + Sync + 'static {
    /// The operation's name in the conventions.
    const OPERATION: &'static str;
    /// The path after the client's address.
    const PATH: &'static str;

    fn model(&self) -> Option<&str>;
    fn parameters(&self) -> Parameters;
    fn input(&self) -> Input;
}

struct BoundRequest<C: Config, R, A> {
    client: Client<C>,
    request: R,
    streaming: bool,
    send: fn(Client<C>, R) -> Connecting<A, Error>,
}

impl<A> ClientRequest<A> {
    pub(crate) fn new<C, R>(
        client: Client<C>,
        request: R,
        streaming: bool,
        send: fn(Client<C>, R) -> Connecting<A, Error>,
    ) -> Self
    where
        C: Config + Clone + 'static,
        R: DescribeRequest,
        A: 'static,
    {
        Self {
            request: Arc::new(BoundRequest {
                client,
                request,
                streaming,
                send,
            }),
        }
    }
}

impl<C: Config + Clone, R: DescribeRequest, A> AnyRequest<A> for BoundRequest<C, R, A> {
    fn send(&self) -> Connecting<A, Error> {
        (self.send)(self.client.clone(), self.request.clone())
    }

    fn describe(&self) -> Description {
        let url = Url::parse(&self.client.config().url(R::PATH)).ok();
        let mut description = Description::new();
        description.provider = url
            .as_ref()
            .and_then(l0_providers::provider_at)
            .map(Cow::Borrowed);
        description.model = self
            .request
            .model()
            .map(|model| Cow::Owned(model.to_owned()));
        description.operation = Some(Cow::Borrowed(R::OPERATION));
        description.server_address = url.as_ref().and_then(|url| {
            // An IPv6 address is in brackets.
            let host = url
                .host_str()?
                .trim_start_matches('[')
                .trim_end_matches(']');
            Some(Cow::Owned(host.to_owned()))
        });
        description.server_port = url.and_then(|url| url.port_or_known_default());
        description.streaming = Some(self.streaming);
        description.parameters = self.request.parameters().0;
        description
    }

    fn input(&self) -> Value {
        self.request.input().0.into()
    }
}

impl<A> Source for ClientRequest<A> {
    type Answer = A;
    type Error = Error;
    type Connecting = Connecting<A, Error>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Connecting<A, Error> {
        self.request.send()
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.request.describe()
    }

    fn input(&self) -> Option<Value> {
        Some(self.request.input())
    }
}

impl<A> Clone for ClientRequest<A> {
    fn clone(&self) -> Self {
        Self {
            request: Arc::clone(&self.request),
        }
    }
}

impl<A> fmt::Debug for ClientRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let description = self.request.describe();
        f.debug_struct("ClientRequest")
            .field("operation", &description.operation)
            .field("server_address", &description.server_address)
            .finish_non_exhaustive()
    }
}

/// The parameters of a request, by their names in the conventions.
#[derive(Default)]
pub(crate) struct Parameters(Metadata);

impl Parameters {
    pub(crate) fn with(mut self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// Adds a single-precision number as it was written: 0.7 is not 0.699999988.
    pub(crate) fn with_number(self, name: &'static str, value: Option<f32>) -> Self {
        let value = value.and_then(|value| value.to_string().parse::<f64>().ok());
        self.with(name, value)
    }
}

/// The fields of a request that contain its prompt.
#[derive(Default)]
pub(crate) struct Input(Map<String, Value>);

impl Input {
    pub(crate) fn with(mut self, name: &'static str, value: &impl Serialize) -> Self {
        if let Ok(value) = serde_json::to_value(value)
            && !value.is_null()
        {
            self.0.insert(name.to_owned(), value);
        }
        self
    }
}
