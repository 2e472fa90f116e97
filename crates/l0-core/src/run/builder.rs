//! The builders of runs.

use std::future::Future;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_core::stream::Stream;
use serde_json::Value;

use super::attempt::AttemptState;
use super::call::Call;
use super::run::{Classify, Run};
use super::sources::{Answers, BoxedSource, Sources, Streams};
use super::watch::Watched;
use crate::error::{Refusal, SourceError};
use crate::failure::Failure;
use crate::keys;
use crate::live::LiveRuns;
use crate::metadata::Metadata;
use crate::observe::RunInfo;
use crate::options::{Builder, Options, sealed};
use crate::recorder::{Recorder, Setup};
use crate::source::{ByFn, ByToken, Description, Source, View, WithView};
use crate::stop::Until;
use crate::timeout::Timeouts;
use crate::token::TokenView;

/// Builds a run of a source that can be called again.
///
/// Created by [`L0::stream`](crate::L0::stream) and [`L0::stream_from`](crate::L0::stream_from),
/// started by `start()`.
pub type RunBuilder<'a, S, T> = Builder<ForRun<'a, Retried<'a, S, T, OfStreams>>>;

/// Builds a call.
///
/// Created by [`L0::call`](crate::L0::call) and [`L0::call_from`](crate::L0::call_from), started by
/// `start()`.
pub type CallBuilder<'a, S, T> = Builder<ForRun<'a, Retried<'a, S, T, OfAnswers>>>;

/// Builds a watched stream.
///
/// Created by [`L0::watch`](crate::L0::watch), started by `start()`.
pub type WatchBuilder<S, V = ByToken> = Builder<ForRun<'static, Watching<S, V>>>;

/// Marks a [`Builder`] of one run, of kind `W`.
#[derive(Debug)]
pub struct ForRun<'a, W> {
    shared: SharedState,
    metadata: Metadata,
    parent: Option<RunInfo>,
    input: Option<Value>,
    until: UntilAny<'a>,
    expect_finish: bool,
    of: W,
}

/// State shared by all runs of an `L0`.
#[derive(Debug)]
pub(crate) struct SharedState {
    pub(crate) panics: Arc<AtomicU64>,
    pub(crate) live: Arc<LiveRuns>,
}

/// Futures that stop the run as soon as any of them is ready.
#[derive(Default)]
struct UntilAny<'a>(Vec<Until<'a>>);

impl std::fmt::Debug for UntilAny<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} futures", self.0.len())
    }
}

/// A source that is called for each attempt, and its fallbacks. `K` is the form of their answers.
pub struct Retried<'a, S: Source, T, K> {
    source: S,
    fallbacks: Vec<BoxedSource<'a, T, S::Error>>,
    classify: Option<Classify<'a, S::Error>>,
    answers: PhantomData<K>,
}

/// Marks sources that answer with a stream.
#[derive(Debug)]
pub struct OfStreams(());

/// Marks sources that answer with a single value.
#[derive(Debug)]
pub struct OfAnswers(());

impl<S: Source, T, K> std::fmt::Debug for Retried<'_, S, T, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retried")
            .field("fallbacks", &self.fallbacks.len())
            .finish_non_exhaustive()
    }
}

impl<'a, S: Source, T, K> Retried<'a, S, T, K> {
    fn new(source: S) -> Self {
        Self {
            source,
            fallbacks: Vec::new(),
            classify: None,
            answers: PhantomData,
        }
    }

    fn view_with<F>(self, view: F) -> Retried<'a, WithView<S, ByFn<F>>, T, K>
    where
        F: Clone + Send,
    {
        Retried {
            source: WithView {
                source: self.source,
                view: ByFn(view),
            },
            fallbacks: self.fallbacks,
            classify: self.classify,
            answers: PhantomData,
        }
    }
}

/// An existing stream, and how its items are read.
#[derive(Debug)]
pub struct Watching<S, V> {
    stream: S,
    view: V,
}

impl<'a, S: Source, T, K> sealed::CallsSource for ForRun<'a, Retried<'a, S, T, K>> {}

impl<'a, W> ForRun<'a, W> {
    fn new(shared: SharedState, of: W) -> Self {
        Self {
            shared,
            parent: None,
            input: None,
            metadata: Metadata::new(),
            until: UntilAny::default(),
            expect_finish: false,
            of,
        }
    }

    fn map<X>(self, map: impl FnOnce(W) -> X) -> ForRun<'a, X> {
        ForRun {
            shared: self.shared,
            parent: self.parent,
            input: self.input,
            metadata: self.metadata,
            until: self.until,
            expect_finish: self.expect_finish,
            of: map(self.of),
        }
    }
}

impl<'a, W> Builder<ForRun<'a, W>> {
    /// Adds an entry to this run's metadata. It overrides an entry of the `L0` with the same key.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.kind.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the id of the conversation that the run belongs to. It is stored in the run's metadata
    /// as [`conversation_id`](crate::keys::CONVERSATION_ID).
    pub fn conversation_id(self, id: impl Into<String>) -> Self {
        self.metadata(keys::CONVERSATION_ID, id.into())
    }

    /// Sets the parent of this run, such as the run of the agent whose step it is.
    ///
    /// The parent's id is part of telemetry and of spans. The conversation is the parent's unless
    /// you set another one. Nothing that this run counts is counted for its parent.
    pub fn parent(mut self, parent: &RunInfo) -> Self {
        self.kind.parent = Some(parent.clone());
        self
    }

    /// Sets the input of the run, such as its messages, if its first source does not provide it.
    /// Only interceptors that [need](crate::Interceptor::needs_input) the input receive it.
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.kind.input = Some(input.into());
        self
    }

    /// Aborts the run once the future is ready. The future's output is ignored. Can be called
    /// several times.
    ///
    /// The future is polled inside the run's polls, and only after it was woken.
    pub fn until(mut self, until: impl Future + Send + 'a) -> Self {
        self.kind.until.0.push(Box::pin(async move {
            until.await;
        }));
        self
    }

    /// Requires a finish reason: a stream that ends without one is truncated. Sources of
    /// [`Token`](crate::Token) items declare on their own if they always send one.
    pub fn expect_finish(mut self) -> Self {
        self.kind.expect_finish = true;
        self
    }

    /// Starts the run. Returns its first attempt, not yet begun, and the `W` of the builder.
    fn begin(self, plan: Plan) -> (Started<'a>, W) {
        let Self { options, kind } = self;
        let requires_output = options.detect_zero_output && !plan.is_call;
        let setup = Setup {
            metadata: kind.metadata,
            until: kind.until.0,
            panics: kind.shared.panics,
            live: kind.shared.live,
            parent: kind.parent,
            source: (plan.source.0, kind.input.or(plan.source.1)),
            fallbacks: plan.fallbacks,
            is_call: plan.is_call,
            may_stop: plan.may_stop,
        };
        let (recorder, allowed, rng) = Recorder::start(&options, setup);
        let started = Started {
            attempt: AttemptState::new(recorder, plan.timeouts, requires_output),
            expect_finish: kind.expect_finish,
            allowed,
            rng,
            options,
        };
        (started, kind.of)
    }
}

/// The parameters of a run that are known before it starts.
#[derive(Default)]
struct Plan {
    timeouts: Timeouts,
    is_call: bool,
    /// `true` if limits and budgets can end the run. They never end a watched stream.
    may_stop: bool,
    source: SourceRequest,
    fallbacks: Vec<SourceRequest>,
}

/// A source's description of its request, and the request's input.
type SourceRequest = (Description, Option<Value>);

impl<'a, S: Source, T, K> Builder<ForRun<'a, Retried<'a, S, T, K>>> {
    pub(crate) fn with_source(options: Arc<Options>, shared: SharedState, source: S) -> Self {
        Self {
            options,
            kind: ForRun::new(shared, Retried::new(source)),
        }
    }

    /// Sets how errors of the sources are classified. `None` falls back to the source's own
    /// [`classify`](Source::classify), and then to the default classification.
    ///
    /// `classify` is called once per failed attempt, inside the run's poll.
    pub fn classify(mut self, classify: impl Fn(&S::Error) -> Option<Failure> + Send + 'a) -> Self {
        self.kind.of.classify = Some(Box::new(classify));
        self
    }

    /// Starts a run of the builder's source and its fallbacks.
    fn start_with(
        self,
        timeouts: Timeouts,
        is_call: bool,
        erase: impl FnOnce(S) -> BoxedSource<'a, T, S::Error>,
    ) -> Run<'a, T, S::Error> {
        let retried = &self.kind.of;
        let needs_input = self.options.needs_input();
        // The input is built only if an interceptor needs it.
        let input = |input: &dyn Fn() -> Option<Value>| needs_input.then(input).flatten();
        let fallbacks = retried.fallbacks.iter();
        let plan = Plan {
            timeouts,
            is_call,
            may_stop: true,
            source: (retried.source.describe(), input(&|| retried.source.input())),
            fallbacks: fallbacks
                .map(|one| (one.describe(), input(&|| one.input())))
                .collect(),
        };
        let (started, retried) = self.begin(plan);
        let sources = Sources::new(erase(retried.source), retried.fallbacks);
        Run::new(
            started.attempt,
            started.allowed,
            sources,
            retried.classify,
            started.expect_finish,
            started.options,
            started.rng,
        )
    }
}

impl<'a, S, T> RunBuilder<'a, S, T>
where
    S: Source<Answer: Stream<Item = Result<T, S::Error>> + Send + 'a> + 'a,
    T: 'a,
{
    /// Sets the function that reads the items of the run's first source, for item types that do not
    /// implement [`Token`](crate::Token). The run then does not know if the source always sends a
    /// finish reason: see [`expect_finish`](Self::expect_finish).
    pub fn view_with<F>(self, view: F) -> RunBuilder<'a, WithView<S, ByFn<F>>, T>
    where
        F: Fn(&T) -> TokenView<'_> + Clone + Send,
    {
        self.map(|kind| kind.map(|retried| retried.view_with(view)))
    }

    /// Adds a source that is called when the previous one is given up: its retries are used up, its
    /// failure is not retryable, or no retry produced an answer without violations or drift.
    ///
    /// Each source has its own retries, and its first attempt follows without a delay. If items
    /// were already yielded, a [`Chunk::Restart`](crate::Chunk::Restart) comes first. The outcome
    /// of the run is that of its last attempt.
    ///
    /// No fallback follows an abort, a refusal, a check that halts the run, the
    /// [total](Timeouts::total) timeout, or a limit.
    ///
    /// The items and errors must have the same types as those of the first source. The type of the
    /// stream can differ, and how its items are read. Use [`source`](crate::source()) to make a
    /// source of a closure, and [`Source::map`] to convert other types.
    ///
    /// ```
    /// use l0_core::{L0, Source, source};
    /// # use l0_core::testing::Script;
    /// # let client = Script::new();
    /// # let other = Script::new();
    /// # let l0 = L0::default();
    ///
    /// let run = l0
    ///     .stream(|_attempt| client.connect())
    ///     .metadata("model", "gpt-4")
    ///     .fallback(source(|_attempt| other.connect()).metadata("model", "claude-sonnet-4-5"))
    ///     .start();
    /// # drop(run);
    /// ```
    pub fn fallback<F>(mut self, source: F) -> Self
    where
        F: Source<Error = S::Error> + 'a,
        F: Source<Answer: Stream<Item = Result<T, S::Error>> + Send + 'a, View: View<T> + 'a>,
    {
        self.kind.of.fallbacks.push(Box::new(Streams(source)));
        self
    }

    /// Starts the run on the current thread: decides if it is sampled, calls the interceptors,
    /// creates the observers and emits `Started`. From here on, exactly one `Finished` follows. The
    /// source is not called before the first poll.
    pub fn start(self) -> Run<'a, T, S::Error>
    where
        S::View: View<T> + 'a,
    {
        let timeouts = self.options.timeouts.of_streams();
        self.start_with(timeouts, false, |source| Box::new(Streams(source)))
    }
}

impl<'a, S, T> CallBuilder<'a, S, T>
where
    S: Source<Answer = T> + 'a,
    T: Send + 'a,
{
    /// Sets the function that reads the answers of the call's first source, for types that do not
    /// implement [`Token`](crate::Token).
    pub fn view_with<F>(self, view: F) -> CallBuilder<'a, WithView<S, ByFn<F>>, T>
    where
        F: Fn(&T) -> TokenView<'_> + Clone + Send,
    {
        self.map(|kind| kind.map(|retried| retried.view_with(view)))
    }

    /// Adds a source that is called when the previous one is given up, as [`RunBuilder::fallback`]
    /// does for runs.
    pub fn fallback<F>(mut self, source: F) -> Self
    where
        F: Source<Answer = T, Error = S::Error, View: View<T> + 'a> + 'a,
    {
        self.kind.of.fallbacks.push(Box::new(Answers(source)));
        self
    }

    /// Starts the call on the current thread: decides if it is sampled, calls the interceptors,
    /// creates the observers and emits `Started`. From here on, exactly one `Finished` follows. The
    /// source is not called before the first poll.
    pub fn start(self) -> Call<'a, T, S::Error>
    where
        S::View: View<T> + 'a,
    {
        let timeouts = self.options.timeouts.of_calls();
        Call::new(self.start_with(timeouts, true, |source| Box::new(Answers(source))))
    }
}

/// A run that has started and has not been polled yet.
struct Started<'a> {
    attempt: AttemptState<'a>,
    expect_finish: bool,
    allowed: Result<(), Refusal>,
    rng: fastrand::Rng,
    options: Arc<Options>,
}

impl<S> WatchBuilder<S> {
    pub(crate) fn watch(options: Arc<Options>, shared: SharedState, stream: S) -> Self {
        let watching = Watching {
            stream,
            view: ByToken,
        };
        Self {
            options,
            kind: ForRun::new(shared, watching),
        }
    }
}

impl<S, V, T, E> WatchBuilder<S, V>
where
    S: Stream<Item = Result<T, E>>,
    E: SourceError,
{
    /// Sets the function that reads the items, for item types that do not implement
    /// [`Token`](crate::Token).
    pub fn view_with<F>(self, view: F) -> WatchBuilder<S, ByFn<F>>
    where
        F: Fn(&T) -> TokenView<'_> + Clone,
    {
        self.map(|kind| {
            kind.map(|watching| Watching {
                stream: watching.stream,
                view: ByFn(view),
            })
        })
    }

    /// Starts the run on the current thread: decides if it is sampled, calls the interceptors,
    /// creates the observers and emits `Started`. From here on, exactly one `Finished` follows.
    pub fn start(self) -> Watched<S, V>
    where
        V: View<T>,
    {
        let (started, Watching { stream, view }) = self.begin(Plan::default());
        let mut attempt = started.attempt;
        let closed = started.allowed.is_err();
        if !closed {
            attempt.begin(&started.options, started.expect_finish || V::SENDS_FINISH);
            attempt.recorder.attempt_started(attempt.number, 1);
        }
        Watched::new(attempt, view, closed, stream)
    }
}
