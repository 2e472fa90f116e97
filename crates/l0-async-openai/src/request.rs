//! A request of the client, ready to be sent, that says what it is.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_openai::Client;
use async_openai::config::Config;
use l0_core::{Attempt, ByToken, Description, Metadata, Source};
use reqwest::Url;
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::Error;

/// Sends a [`ClientRequest`] and gives its answer, or the stream of it.
pub type Connecting<A> = Pin<Box<dyn Future<Output = Result<A, Error>> + Send>>;

/// A request of the client, made by [`chat`](crate::chat), [`responses`](crate::responses) and the other
/// functions of this crate.
///
/// It is a [`Source`] that describes itself: `A` is what it gives, an
/// [`AnswerStream`](crate::AnswerStream) for a run, a [`Viewed`](crate::Viewed) answer for a call. It owns
/// the request, of which the client takes a copy for each attempt. Cheap to clone. `Debug` shows neither
/// the request nor a key.
///
/// What it says of itself ([`describe`](Source::describe)):
///
/// - the provider, by the host of the client's address as
///   [`provider_at`](l0_providers::provider_at) tells it; absent where the host is not known, as of a proxy
///   or a local server. `.metadata("provider", name)` sets it;
/// - the model, and the operation: `chat` or `embeddings`;
/// - the host and the port;
/// - whether a stream is asked for;
/// - the parameters `temperature`, `top_p`, `max_tokens`, `frequency_penalty`, `presence_penalty`, `seed`,
///   `choice.count` (unless it is 1) and `encoding_formats`; and `embeddings.dimension.count`, which in the
///   conventions follows `gen_ai.`.
///
/// [`input`](Source::input) is an object with those fields of the request that hold its prompt:
/// `messages`; or `input` and `instructions`.
#[must_use = "a request is sent by a run or a call"]
pub struct ClientRequest<A> {
    asked: Arc<dyn Asked<A>>,
}

/// A request of whatever type, with its client.
trait Asked<A>: Send + Sync {
    fn send(&self) -> Connecting<A>;
    fn describe(&self) -> Description;
    fn input(&self) -> Value;
}

/// What a type of request says.
pub(crate) trait Asks: Clone + Send + Sync + 'static {
    /// The operation, by the name that the conventions give it.
    const OPERATION: &'static str;
    /// What follows the client's address.
    const PATH: &'static str;

    fn model(&self) -> Option<&str>;
    fn parameters(&self) -> Parameters;
    fn input(&self) -> Input;
}

struct Ask<C: Config, R, A> {
    client: Client<C>,
    request: R,
    streaming: bool,
    send: fn(Client<C>, R) -> Connecting<A>,
}

impl<A> ClientRequest<A> {
    pub(crate) fn new<C, R>(
        client: Client<C>,
        request: R,
        streaming: bool,
        send: fn(Client<C>, R) -> Connecting<A>,
    ) -> Self
    where
        C: Config + Clone + 'static,
        R: Asks,
        A: 'static,
    {
        Self {
            asked: Arc::new(Ask {
                client,
                request,
                streaming,
                send,
            }),
        }
    }
}

impl<C: Config + Clone, R: Asks, A> Asked<A> for Ask<C, R, A> {
    fn send(&self) -> Connecting<A> {
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
            // An address of version 6 stands in brackets.
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
    type Connecting = Connecting<A>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Connecting<A> {
        self.asked.send()
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.asked.describe()
    }

    fn input(&self) -> Option<Value> {
        Some(self.asked.input())
    }
}

impl<A> Clone for ClientRequest<A> {
    fn clone(&self) -> Self {
        Self {
            asked: Arc::clone(&self.asked),
        }
    }
}

impl<A> fmt::Debug for ClientRequest<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let description = self.asked.describe();
        f.debug_struct("ClientRequest")
            .field("operation", &description.operation)
            .field("server_address", &description.server_address)
            .finish_non_exhaustive()
    }
}

/// The parameters of a request, by the words of the conventions.
#[derive(Default)]
pub(crate) struct Parameters(Metadata);

impl Parameters {
    pub(crate) fn with(mut self, name: &'static str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.0.insert(name.to_owned(), value.into());
        }
        self
    }

    /// A number of single precision, as it was written: 0.7 is not 0.699999988.
    pub(crate) fn with_number(self, name: &'static str, value: Option<f32>) -> Self {
        let value = value.and_then(|value| value.to_string().parse::<f64>().ok());
        self.with(name, value)
    }
}

/// The fields of a request that hold its prompt.
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
