//! The trait of sources, what they are called with, and the source that is a closure.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;

use futures_core::stream::Stream;
use serde_json::Value;

use super::map::{Map, MapAnswer};
use super::view::{ByFn, ByToken};
use super::with::{WithMetadata, WithView};
use crate::error::SourceError;
use crate::failure::Failure;
use crate::keys;
use crate::metadata::Metadata;
use crate::token::TokenView;

/// The attempt that a source is called for.
#[derive(Debug, Clone)]
pub struct Attempt {
    number: u32,
}

impl Attempt {
    pub(crate) const fn new(number: u32) -> Self {
        Self { number }
    }

    /// Returns the number of the attempt, from 1, counted over all sources of the run.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// A source of answers, called once per attempt of a run or a call.
///
/// [`source`] makes a source of a closure. [`L0::stream`](crate::L0::stream) and
/// [`L0::call`](crate::L0::call) take the closure itself. The clients' requests are sources that
/// describe themselves: see [`L0::stream_from`](crate::L0::stream_from).
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a `Source`",
    note = "wrap a closure in `l0_core::source`: `source(|_attempt| client.connect())`",
    note = "a client's request is a source, such as `client.chat(&request)` of `l0-providers`",
    note = "`L0::stream` and `L0::call` take the closure itself; `L0::watch` takes a stream"
)]
pub trait Source: Send {
    /// The result of an attempt: a stream of items for a run, the answer itself for a call.
    type Answer;
    /// The error of a failed attempt.
    type Error: SourceError;
    /// The future that connects.
    type Connecting: Future<Output = Result<Self::Answer, Self::Error>> + Send;
    /// The view that reads the items, or the answer.
    type View: Clone + Send;

    /// Begins an attempt. Called once per attempt, inside the run's poll.
    fn connect(&mut self, attempt: Attempt) -> Self::Connecting;

    /// Returns how the items, or the answer, are read.
    fn view(&self) -> Self::View;

    /// Returns a description of the request. Called once per run, when it starts. By default
    /// nothing is known.
    fn describe(&self) -> Description {
        Description::default()
    }

    /// Returns the input: the messages of the request. Called only if an interceptor or an estimate
    /// needs it. By default it is unknown.
    fn input(&self) -> Option<Value> {
        None
    }

    /// Classifies an error of this source. `None` falls back to the default classification, as it
    /// does by default. The run's own `classify` takes precedence.
    fn classify(&self, error: &Self::Error) -> Option<Failure> {
        let _ = error;
        None
    }

    /// Adds a metadata entry to the attempts of this source. It overrides entries of the run, and
    /// the source's description of itself.
    fn metadata(self, key: impl Into<String>, value: impl Into<Value>) -> WithMetadata<Self>
    where
        Self: Sized,
    {
        WithMetadata {
            metadata: Metadata::from([(key, value)]),
            source: self,
        }
    }

    /// Sets the function that reads the items, for item types that do not implement
    /// [`Token`](crate::Token).
    fn view_with<T, F>(self, view: F) -> WithView<Self, ByFn<F>>
    where
        Self: Sized + Source<Answer: Stream<Item = Result<T, Self::Error>>>,
        F: Fn(&T) -> TokenView<'_> + Clone + Send,
    {
        WithView {
            source: self,
            view: ByFn(view),
        }
    }

    /// Sets the function that reads the answers of a call's source, for answers that do not
    /// implement [`Token`](crate::Token).
    fn view_answer_with<F>(self, view: F) -> WithView<Self, ByFn<F>>
    where
        Self: Sized,
        F: Fn(&Self::Answer) -> TokenView<'_> + Clone + Send,
    {
        WithView {
            source: self,
            view: ByFn(view),
        }
    }

    /// Converts the items and errors of a stream, so the source can be a
    /// [fallback](crate::RunBuilder::fallback) for another client's. The new items are read as
    /// [`Token`](crate::Token)s, or by a [`view_with`](Self::view_with) that follows.
    ///
    /// Return the old error as the [`source`](std::error::Error::source) of the new one, because
    /// the new error is classified from it. [`classify`](Self::classify) of this source is not
    /// called.
    fn map<T, U, X, I, F>(self, item: I, error: F) -> Map<Self, I, F>
    where
        Self: Sized + Source<Answer: Stream<Item = Result<T, Self::Error>>>,
        I: Fn(T) -> U + Clone + Send,
        F: Fn(Self::Error) -> X + Clone + Send,
        X: SourceError,
    {
        Map {
            source: self,
            item,
            error,
        }
    }

    /// Converts the answers and errors of a call's source, as [`map`](Self::map) does for streams.
    fn map_answer<U, X, I, F>(self, answer: I, error: F) -> MapAnswer<Self, I, F>
    where
        Self: Sized,
        I: Fn(Self::Answer) -> U + Clone + Send,
        F: Fn(Self::Error) -> X + Clone + Send,
        X: SourceError,
    {
        MapAnswer {
            source: self,
            answer,
            error,
        }
    }
}

/// The boxed future of a [`Source`] that connects in an `async` block.
pub type Connecting<A, E> = Pin<Box<dyn Future<Output = Result<A, E>> + Send>>;

/// A source's description of its request. Unknown fields are absent.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The provider that serves the model, by its name in OpenTelemetry's conventions: `openai`,
    /// `anthropic`, `azure.ai.openai`.
    pub provider: Option<Cow<'static, str>>,
    /// The requested model.
    pub model: Option<Cow<'static, str>>,
    /// The operation, by its name in the conventions: `chat`, `embeddings`.
    pub operation: Option<Cow<'static, str>>,
    /// The host of the server, without a port. Of a URL, only the host is used.
    pub server_address: Option<Cow<'static, str>>,
    /// The port of the server.
    pub server_port: Option<u16>,
    /// `true` if a streamed answer is requested.
    pub streaming: Option<bool>,
    /// The parameters of the request, such as `temperature`, by the names that follow
    /// `gen_ai.request.` in the conventions. Never a text of the prompt.
    pub parameters: Metadata,
    /// Metadata entries for its attempts.
    pub metadata: Metadata,
}

impl Description {
    /// Creates a description in which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the metadata of a run with this first source. What the run sets about its model
    /// overrides the source.
    pub(crate) fn metadata_of_first(&self, run: &Metadata) -> Metadata {
        let mut all = run.clone();
        for (key, value) in self.names() {
            if let (Some(value), false) = (value, all.contains_key(key)) {
                all.insert(key.to_owned(), value.as_ref().into());
            }
        }
        all.overlay(self.metadata.clone());
        all
    }

    /// Redacts everything that can contain a secret.
    pub(crate) fn redact(&mut self) {
        if let Some(redacted) = keys::redacted_endpoint(&self.metadata) {
            self.metadata.insert(keys::ENDPOINT.to_owned(), redacted);
        }
        // Sources of applications can have the address as a URL.
        if let Some(address) = &self.server_address {
            if address.contains(['/', '\\', '@', '?', '#']) {
                self.server_address = keys::host(address).map(|host| Cow::Owned(host.to_owned()));
            }
        }
    }

    /// Returns the metadata of the attempts of a fallback: that of the run without the first
    /// source's description, overridden by this one. `own` is the run's metadata without its
    /// sources.
    pub(crate) fn metadata_of_fallback(
        &self,
        run: &Metadata,
        first: &Self,
        own: &Metadata,
    ) -> Metadata {
        let mut all = run.clone();
        for (key, value) in &first.metadata {
            if run.get(key) != Some(value) {
                // An interceptor has set another value, for the whole run.
                continue;
            }
            match own.get(key) {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        for (key, value) in self.names() {
            match value {
                Some(value) => all.insert(key.to_owned(), value.as_ref().into()),
                None => all.remove(key),
            };
        }
        all.overlay(self.metadata.clone());
        keys::redact_endpoint(&mut all);
        all
    }

    fn names(&self) -> [(&'static str, Option<&Cow<'static, str>>); 3] {
        [
            (keys::MODEL, self.model.as_ref()),
            (keys::PROVIDER, self.provider.as_ref()),
            (keys::OPERATION, self.operation.as_ref()),
        ]
    }
}

/// Makes a source of a closure, which is called for each attempt. [`L0::stream`](crate::L0::stream)
/// and [`L0::call`](crate::L0::call) take the closure itself.
///
/// ```
/// use l0_core::{Source, source};
/// # use l0_core::testing::Script;
/// # let client = Script::new();
///
/// let other = source(|_attempt| client.connect()).metadata("model", "claude-sonnet-4-5");
/// # drop(other);
/// ```
pub const fn source<F, Fut, A, E>(factory: F) -> FnSource<F>
where
    F: FnMut(Attempt) -> Fut + Send,
    Fut: Future<Output = Result<A, E>> + Send,
    E: SourceError,
{
    FnSource(factory)
}

/// A source that is a closure. Created by [`source`], [`L0::stream`](crate::L0::stream) and
/// [`L0::call`](crate::L0::call).
#[derive(Clone)]
pub struct FnSource<F>(F);

impl<F, Fut, A, E> Source for FnSource<F>
where
    F: FnMut(Attempt) -> Fut + Send,
    Fut: Future<Output = Result<A, E>> + Send,
    E: SourceError,
{
    type Answer = A;
    type Error = E;
    type Connecting = Fut;
    type View = ByToken;

    fn connect(&mut self, attempt: Attempt) -> Fut {
        (self.0)(attempt)
    }

    fn view(&self) -> ByToken {
        ByToken
    }
}

impl<F> fmt::Debug for FnSource<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FnSource").finish_non_exhaustive()
    }
}
