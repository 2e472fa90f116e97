//! The builders of runs: what a run is made of, until `start()` starts it.

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

/// Builds a run of a source that can be called again: made by [`L0::stream`](crate::L0::stream) and
/// [`L0::stream_from`](crate::L0::stream_from), started by `start()`.
pub type RunBuilder<'a, S, T> = Builder<ForRun<'a, Retried<'a, S, T, OfStreams>>>;

/// Builds a call: made by [`L0::call`](crate::L0::call) and
/// [`L0::call_from`](crate::L0::call_from), started by `start()`.
pub type CallBuilder<'a, S, T> = Builder<ForRun<'a, Retried<'a, S, T, OfAnswers>>>;

/// Builds a watched stream: made by [`L0::watch`](crate::L0::watch), started by `start()`.
pub type WatchBuilder<S, V = ByToken> = Builder<ForRun<'static, Watching<S, V>>>;

/// Says that a [`Builder`] builds one run: of `W`.
#[derive(Debug)]
pub struct ForRun<'a, W> {
    of_l0: OfL0,
    metadata: Metadata,
    parent: Option<RunInfo>,
    input: Option<Value>,
    until: UntilAny<'a>,
    expect_finish: bool,
    of: W,
}

/// What a run shares with all others of its `L0`.
#[derive(Debug)]
pub(crate) struct OfL0 {
    pub(crate) panics: Arc<AtomicU64>,
    pub(crate) live: Arc<LiveRuns>,
}

/// Stops the run when any of them is ready.
#[derive(Default)]
struct UntilAny<'a>(Vec<Until<'a>>);

impl std::fmt::Debug for UntilAny<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} futures", self.0.len())
    }
}

/// A source that is called for each attempt, and those that stand in for it. `K` says how they answer.
pub struct Retried<'a, S: Source, T, K> {
    source: S,
    fallbacks: Vec<BoxedSource<'a, T, S::Error>>,
    classify: Option<Classify<'a, S::Error>>,
    answers: PhantomData<K>,
}

/// Says that answers come as streams.
#[derive(Debug)]
pub struct OfStreams(());

/// Says that answers come as one.
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

/// A stream that is there already, and how its items are read.
#[derive(Debug)]
pub struct Watching<S, V> {
    stream: S,
    view: V,
}

impl<'a, S: Source, T, K> sealed::CallsSource for ForRun<'a, Retried<'a, S, T, K>> {}

impl<'a, W> ForRun<'a, W> {
    fn new(of_l0: OfL0, of: W) -> Self {
        Self {
            of_l0,
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
            of_l0: self.of_l0,
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
    /// Adds an entry to this run's metadata, over an entry of the same key of the `L0`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.kind.metadata.insert(key.into(), value.into());
        self
    }

    /// Sets the conversation that the run belongs to: its metadata has the id as
    /// [`conversation_id`](crate::keys::CONVERSATION_ID).
    pub fn conversation_id(self, id: impl Into<String>) -> Self {
        self.metadata(keys::CONVERSATION_ID, id.into())
    }

    /// Sets the run or call that this one serves, such as that of the agent whose step it is. Its id is
    /// part of telemetry, and of spans; the conversation is the parent's unless another one is set.
    /// Nothing that this run counts is counted for its parent.
    pub fn parent(mut self, parent: &RunInfo) -> Self {
        self.kind.parent = Some(parent.clone());
        self
    }

    /// Sets what the run asks, such as its messages, where its first source does not know it. It is told
    /// only to interceptors that [need](crate::Interceptor::needs_input) it, and leaves only through
    /// those.
    pub fn input(mut self, input: impl Into<Value>) -> Self {
        self.kind.input = Some(input.into());
        self
    }

    /// Stops the run, as aborted, once the future is ready; its output is ignored. Several add up.
    /// The future is polled inside the run's polls, only when it was woken.
    pub fn until(mut self, until: impl Future + Send + 'a) -> Self {
        self.kind.until.0.push(Box::pin(async move {
            until.await;
        }));
        self
    }

    /// Requires a finish reason: an end without one is truncated. Sources whose items are
    /// [`Token`](crate::Token)s say by themselves whether they always send one.
    pub fn expect_finish(mut self) -> Self {
        self.kind.expect_finish = true;
        self
    }

    /// Starts the run. Gives its first attempt, before it has begun, and what was built of it.
    fn begin(self, plan: Plan) -> (Started<'a>, W) {
        let Self { options, kind } = self;
        let requires_output = options.detect_zero_output && !plan.is_call;
        let setup = Setup {
            metadata: kind.metadata,
            until: kind.until.0,
            panics: kind.of_l0.panics,
            live: kind.of_l0.live,
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

/// What is known of a run before it starts.
#[derive(Default)]
struct Plan {
    timeouts: Timeouts,
    is_call: bool,
    /// Whether limits and budgets stop it: what is only watched is never stopped.
    may_stop: bool,
    source: Asked,
    fallbacks: Vec<Asked>,
}

/// What a source says of its request, and what it asks.
type Asked = (Description, Option<Value>);

impl<'a, S: Source, T, K> Builder<ForRun<'a, Retried<'a, S, T, K>>> {
    pub(crate) fn asking(options: Arc<Options>, of_l0: OfL0, source: S) -> Self {
        Self {
            options,
            kind: ForRun::new(of_l0, Retried::new(source)),
        }
    }

    /// Reads what kind of failure an error of a source is; `None` leaves it to the source's own
    /// [`classify`](Source::classify), and then to the default reading. `classify` is called once per
    /// failed attempt, inside the run's poll.
    pub fn classify(mut self, classify: impl Fn(&S::Error) -> Option<Failure> + Send + 'a) -> Self {
        self.kind.of.classify = Some(Box::new(classify));
        self
    }

    /// Starts a run of these sources, of which the first is the run's own.
    fn start_with(
        self,
        timeouts: Timeouts,
        is_call: bool,
        erase: impl FnOnce(S) -> BoxedSource<'a, T, S::Error>,
    ) -> Run<'a, T, S::Error> {
        let asked = &self.kind.of;
        let needs_input = self.options.needs_input();
        // Written out at no cost to those who do not want it.
        let input = |input: &dyn Fn() -> Option<Value>| needs_input.then(input).flatten();
        let fallbacks = asked.fallbacks.iter();
        let plan = Plan {
            timeouts,
            is_call,
            may_stop: true,
            source: (asked.source.describe(), input(&|| asked.source.input())),
            fallbacks: fallbacks
                .map(|one| (one.describe(), input(&|| one.input())))
                .collect(),
        };
        let (started, asked) = self.begin(plan);
        let sources = Sources::new(erase(asked.source), asked.fallbacks);
        Run::new(
            started.attempt,
            started.allowed,
            sources,
            asked.classify,
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
    /// Reads the items of the run's first source by a function: for item types that are no
    /// [`Token`](crate::Token). Whether the source always sends a finish reason is not known then: see
    /// [`expect_finish`](Self::expect_finish).
    pub fn view_with<F>(self, view: F) -> RunBuilder<'a, WithView<S, ByFn<F>>, T>
    where
        F: Fn(&T) -> TokenView<'_> + Clone + Send,
    {
        self.map(|kind| kind.map(|asked| asked.view_with(view)))
    }

    /// Adds a source that is asked when the one before it is given up: when its retries are used up, or
    /// its failure is not to be retried, or an answer that broke rules or drifted was not mended. Each
    /// source has retries of its own, and the first attempt follows without a delay. If items had been
    /// handed out, a [`Chunk::Restart`](crate::Chunk::Restart) comes first. How the run ends is how its
    /// last attempt ends.
    ///
    /// No other source is asked after an abort, a refusal, a check that halts the run, its
    /// [total](Timeouts::total) timeout, or a limit.
    ///
    /// The items and errors must be of the same types as those of the first source; the stream, and how
    /// its items are read, may be others. See [`source`](crate::source()) for a closure, and
    /// [`Source::map`] for other types.
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

    /// Starts the run, on this thread: draws the sample, asks the interceptors, makes the
    /// observers and says `Started`. From here on exactly one `Finished` follows. The source is
    /// called at the first poll, not before.
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
    /// Reads the answers of the call's first source by a function: for types that are no
    /// [`Token`](crate::Token).
    pub fn view_with<F>(self, view: F) -> CallBuilder<'a, WithView<S, ByFn<F>>, T>
    where
        F: Fn(&T) -> TokenView<'_> + Clone + Send,
    {
        self.map(|kind| kind.map(|asked| asked.view_with(view)))
    }

    /// Adds a source that is asked when the one before it is given up, as
    /// [`RunBuilder::fallback`] does for runs.
    pub fn fallback<F>(mut self, source: F) -> Self
    where
        F: Source<Answer = T, Error = S::Error, View: View<T> + 'a> + 'a,
    {
        self.kind.of.fallbacks.push(Box::new(Answers(source)));
        self
    }

    /// Starts the call, on this thread: draws the sample, asks the interceptors, makes the
    /// observers and says `Started`. From here on exactly one `Finished` follows. The source is
    /// called at the first poll, not before.
    pub fn start(self) -> Call<'a, T, S::Error>
    where
        S::View: View<T> + 'a,
    {
        let timeouts = self.options.timeouts.of_calls();
        Call::new(self.start_with(timeouts, true, |source| Box::new(Answers(source))))
    }
}

/// A run that has started, and was not polled yet.
struct Started<'a> {
    attempt: AttemptState<'a>,
    expect_finish: bool,
    allowed: Result<(), Refusal>,
    rng: fastrand::Rng,
    options: Arc<Options>,
}

impl<S> WatchBuilder<S> {
    pub(crate) fn watch(options: Arc<Options>, of_l0: OfL0, stream: S) -> Self {
        let watching = Watching {
            stream,
            view: ByToken,
        };
        Self {
            options,
            kind: ForRun::new(of_l0, watching),
        }
    }
}

impl<S, V, T, E> WatchBuilder<S, V>
where
    S: Stream<Item = Result<T, E>>,
    E: SourceError,
{
    /// Reads the items by a function: for item types that are no [`Token`](crate::Token).
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

    /// Starts the run, on this thread: draws the sample, asks the interceptors, makes the observers
    /// and says `Started`. From here on exactly one `Finished` follows.
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
