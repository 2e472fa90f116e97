//! Source: what a run calls for each attempt, what it says of itself, and how its items are read.

use std::borrow::Cow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use futures_core::stream::Stream;
use pin_project_lite::pin_project;
use serde_json::Value;

use crate::error::SourceError;
use crate::failure::Failure;
use crate::keys;
use crate::metadata::Metadata;
use crate::token::{Token, TokenView};

/// Which attempt a source is called for.
#[derive(Debug, Clone)]
pub struct Attempt {
    number: u32,
}

impl Attempt {
    pub(crate) const fn new(number: u32) -> Self {
        Self { number }
    }

    /// Returns the number of the attempt, from 1. It counts the attempts of all sources of the run.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// What a run or a call asks for an answer, once per attempt.
///
/// A closure becomes one by [`source`], and in [`L0::stream`](crate::L0::stream) and
/// [`L0::call`](crate::L0::call). The clients' requests are sources that describe themselves: see
/// [`L0::stream_from`](crate::L0::stream_from).
pub trait Source: Send {
    /// What an attempt gives: a stream of items for a run, the answer itself for a call.
    type Answer;
    /// How it fails.
    type Error: SourceError;
    /// Connects.
    type Connecting: Future<Output = Result<Self::Answer, Self::Error>> + Send;
    /// How the items, or the answer, are read: see [`View`].
    type View: Clone + Send;

    /// Begins an attempt. Called once per attempt, inside the run's poll.
    fn connect(&mut self, attempt: Attempt) -> Self::Connecting;

    /// Returns how the items, or the answer, are read.
    fn view(&self) -> Self::View;

    /// Returns what the source knows of its request. Called once per run, when it starts. By default
    /// nothing is known.
    fn describe(&self) -> Description {
        Description::default()
    }

    /// Returns what is asked: the messages of the request. Called only if content is to be kept. By
    /// default it is not known.
    fn input(&self) -> Option<Value> {
        None
    }

    /// Reads what kind of failure an error of this source is; `None` leaves it to the default reading.
    /// It is asked after the run's own `classify`. By default it leaves all of them.
    fn classify(&self, error: &Self::Error) -> Option<Failure> {
        let _ = error;
        None
    }

    /// Adds an entry to the metadata of the attempts of this source, over an entry of the same key of
    /// the run, and over what the source says of itself.
    fn metadata(self, key: impl Into<String>, value: impl Into<Value>) -> WithMetadata<Self>
    where
        Self: Sized,
    {
        WithMetadata {
            metadata: Metadata::from([(key, value)]),
            source: self,
        }
    }

    /// Reads the items by a function: for item types that are no [`Token`].
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

    /// Reads the answers by a function: for the source of a call whose answers are no [`Token`].
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

    /// Makes other items and errors of those of a stream, so that it can stand in for another client's:
    /// see [`fallback`](crate::RunBuilder::fallback). The new items are read as [`Token`]s, or by
    /// [`view_with`](Self::view_with) after this.
    ///
    /// Keep the old error as the [`source`](std::error::Error::source) of the new one: what kind of
    /// failure it is, is read from there. [`classify`](Self::classify) of this source is not asked.
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

    /// Makes other answers and errors of those of a call's source, as [`map`](Self::map) does for
    /// streams.
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

/// What a source knows of its request. What it does not know is absent.
#[derive(Debug, Clone, Default, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// Who serves the model, by the name that OpenTelemetry's conventions give it: `openai`,
    /// `anthropic`, `azure.ai.openai`.
    pub provider: Option<Cow<'static, str>>,
    /// The model asked for.
    pub model: Option<Cow<'static, str>>,
    /// What is done, by the name that the conventions give it: `chat`, `embeddings`.
    pub operation: Option<Cow<'static, str>>,
    /// The host that is asked, without a port.
    pub server_address: Option<Cow<'static, str>>,
    /// The port that is asked.
    pub server_port: Option<u16>,
    /// Whether the answer is to come as a stream.
    pub streaming: Option<bool>,
    /// The parameters of the request, such as `temperature`, by the words that follow
    /// `gen_ai.request.` in the conventions. Never a text of the prompt.
    pub parameters: Metadata,
    /// Entries for the metadata of its attempts.
    pub metadata: Metadata,
}

impl Description {
    /// Creates a description in which nothing is known.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The metadata of the run whose first source this is. What the run says of its model is its first
    /// source's word.
    pub(crate) fn metadata_of_first(&self, run: &Metadata) -> Metadata {
        let mut all = run.clone();
        for (key, value) in self.names() {
            if let (Some(value), false) = (value, all.contains_key(key)) {
                all.insert(key.to_owned(), value.as_ref().into());
            }
        }
        all.lay_over(self.metadata.clone());
        all
    }

    /// Takes what may be secret out of it.
    pub(crate) fn redact(&mut self) {
        if let Some(redacted) = keys::redacted_endpoint(&self.metadata) {
            self.metadata.insert(keys::ENDPOINT.to_owned(), redacted);
        }
    }

    /// The metadata of the attempts of a source that is not the first one: that of the run without what
    /// its first source says of itself, and over it what this one says. `own` is what the run has
    /// without its sources.
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
        all.lay_over(self.metadata.clone());
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

/// Makes a source of a closure, which is called for each attempt: see
/// [`L0::stream`](crate::L0::stream) and [`L0::call`](crate::L0::call), which take the closure itself.
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

/// A source that is a closure: made by [`source`], [`L0::stream`](crate::L0::stream) and
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

/// A source with metadata: made by [`Source::metadata`].
#[derive(Debug, Clone)]
pub struct WithMetadata<S> {
    source: S,
    metadata: Metadata,
}

impl<S: Source> Source for WithMetadata<S> {
    type Answer = S::Answer;
    type Error = S::Error;
    type Connecting = S::Connecting;
    type View = S::View;

    fn connect(&mut self, attempt: Attempt) -> S::Connecting {
        self.source.connect(attempt)
    }

    fn view(&self) -> S::View {
        self.source.view()
    }

    fn describe(&self) -> Description {
        let mut description = self.source.describe();
        description.metadata.lay_over(self.metadata.clone());
        description
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }

    fn classify(&self, error: &S::Error) -> Option<Failure> {
        self.source.classify(error)
    }
}

/// A source whose items are read in another way: made by [`Source::view_with`].
#[derive(Debug, Clone)]
pub struct WithView<S, V> {
    pub(crate) source: S,
    pub(crate) view: V,
}

impl<S: Source, V: Clone + Send> Source for WithView<S, V> {
    type Answer = S::Answer;
    type Error = S::Error;
    type Connecting = S::Connecting;
    type View = V;

    fn connect(&mut self, attempt: Attempt) -> S::Connecting {
        self.source.connect(attempt)
    }

    fn view(&self) -> V {
        self.view.clone()
    }

    fn describe(&self) -> Description {
        self.source.describe()
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }

    fn classify(&self, error: &S::Error) -> Option<Failure> {
        self.source.classify(error)
    }
}

/// A source with other items and errors: made by [`Source::map`].
#[derive(Clone)]
pub struct Map<S, I, F> {
    source: S,
    item: I,
    error: F,
}

impl<S, T, U, X, I, F> Source for Map<S, I, F>
where
    S: Source<Answer: Stream<Item = Result<T, S::Error>>>,
    I: Fn(T) -> U + Clone + Send,
    F: Fn(S::Error) -> X + Clone + Send,
    X: SourceError,
{
    type Answer = MapStream<S::Answer, I, F>;
    type Error = X;
    type Connecting = MapConnecting<S::Connecting, Items<I>, F>;
    type View = ByToken;

    fn connect(&mut self, attempt: Attempt) -> Self::Connecting {
        MapConnecting {
            connecting: self.source.connect(attempt),
            map: Some((Items(self.item.clone()), self.error.clone())),
        }
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.source.describe()
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }
}

/// A source with other answers and errors: made by [`Source::map_answer`].
#[derive(Clone)]
pub struct MapAnswer<S, I, F> {
    source: S,
    answer: I,
    error: F,
}

impl<S, U, X, I, F> Source for MapAnswer<S, I, F>
where
    S: Source,
    I: Fn(S::Answer) -> U + Clone + Send,
    F: Fn(S::Error) -> X + Clone + Send,
    X: SourceError,
{
    type Answer = U;
    type Error = X;
    type Connecting = MapConnecting<S::Connecting, Answers<I>, F>;
    type View = ByToken;

    fn connect(&mut self, attempt: Attempt) -> Self::Connecting {
        MapConnecting {
            connecting: self.source.connect(attempt),
            map: Some((Answers(self.answer.clone()), self.error.clone())),
        }
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        self.source.describe()
    }

    fn input(&self) -> Option<Value> {
        self.source.input()
    }
}

impl<S, I, F> fmt::Debug for Map<S, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map").finish_non_exhaustive()
    }
}

impl<S, I, F> fmt::Debug for MapAnswer<S, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapAnswer").finish_non_exhaustive()
    }
}

/// Maps what an attempt gives; `F` maps the errors of both.
pub trait MapInto<A, F> {
    /// What it makes of it.
    type Mapped;

    /// Maps it.
    fn map_into(self, answer: A, error: F) -> Self::Mapped;
}

/// Maps each item of a stream.
#[derive(Debug, Clone)]
pub struct Items<I>(I);

impl<A, I, F> MapInto<A, F> for Items<I> {
    type Mapped = MapStream<A, I, F>;

    fn map_into(self, answer: A, error: F) -> Self::Mapped {
        MapStream {
            stream: answer,
            item: self.0,
            error,
        }
    }
}

/// Maps an answer.
#[derive(Debug, Clone)]
pub struct Answers<I>(I);

impl<A, U, I: FnOnce(A) -> U, F> MapInto<A, F> for Answers<I> {
    type Mapped = U;

    fn map_into(self, answer: A, _: F) -> U {
        (self.0)(answer)
    }
}

pin_project! {
    /// Connects a source whose answers and errors are mapped.
    #[must_use = "futures do nothing unless polled"]
    pub struct MapConnecting<C, I, F> {
        #[pin]
        connecting: C,
        map: Option<(I, F)>,
    }
}

impl<C, A, E, X, I, F> Future for MapConnecting<C, I, F>
where
    C: Future<Output = Result<A, E>>,
    I: MapInto<A, F>,
    F: Fn(E) -> X,
{
    type Output = Result<I::Mapped, X>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let connected = ready!(this.connecting.poll(cx));
        let (answer, error) = this.map.take().expect("not polled after it was ready");
        Poll::Ready(match connected {
            Ok(stream) => Ok(answer.map_into(stream, error)),
            Err(source) => Err(error(source)),
        })
    }
}

pin_project! {
    /// A stream whose items and errors are mapped.
    #[must_use = "streams do nothing unless polled"]
    pub struct MapStream<S, I, F> {
        #[pin]
        stream: S,
        item: I,
        error: F,
    }
}

impl<S, T, E, U, X, I, F> Stream for MapStream<S, I, F>
where
    S: Stream<Item = Result<T, E>>,
    I: Fn(T) -> U,
    F: Fn(E) -> X,
{
    type Item = Result<U, X>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        let item = ready!(this.stream.poll_next(cx));
        Poll::Ready(item.map(|item| item.map(&*this.item).map_err(&*this.error)))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<S, I, F> fmt::Debug for MapStream<S, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapStream").finish_non_exhaustive()
    }
}

impl<C, I, F> fmt::Debug for MapConnecting<C, I, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapConnecting").finish_non_exhaustive()
    }
}

mod sealed {
    pub trait Sealed {}

    impl Sealed for super::ByToken {}

    impl<F> Sealed for super::ByFn<F> {}
}

/// How items of type `T` are read: by their own [`Token`], or by a function. There are these two.
pub trait View<T>: sealed::Sealed + Clone {
    /// Whether a source of these items always says why it ended.
    const SENDS_FINISH: bool;

    /// Reads an item.
    fn view<'t>(&self, item: &'t T) -> TokenView<'t>;
}

/// Reads items as the [`Token`]s that they are.
#[derive(Debug, Clone, Copy, Default)]
pub struct ByToken;

/// Reads items by a function: what `view_with` makes of a builder.
#[derive(Clone, Copy)]
pub struct ByFn<F>(pub(crate) F);

impl<F> ByFn<F> {
    /// Creates the view of a [`Source`] whose answers are types of another crate: for its
    /// [`view`](Source::view).
    pub const fn new(view: F) -> Self {
        Self(view)
    }
}

impl<T: Token> View<T> for ByToken {
    const SENDS_FINISH: bool = T::SENDS_FINISH;

    #[inline]
    fn view<'t>(&self, item: &'t T) -> TokenView<'t> {
        item.view()
    }
}

impl<T, F: Fn(&T) -> TokenView<'_> + Clone> View<T> for ByFn<F> {
    const SENDS_FINISH: bool = false;

    #[inline]
    fn view<'t>(&self, item: &'t T) -> TokenView<'t> {
        (self.0)(item)
    }
}

impl<F> fmt::Debug for ByFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ByFn").finish_non_exhaustive()
    }
}
