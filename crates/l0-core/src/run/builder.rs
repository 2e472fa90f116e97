//! The builders of runs: what a run is made of, until `start()` starts it.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures_core::stream::Stream;
use serde_json::Value;

use super::attempt::{AttemptState, Required};
use super::reading::{BoxedReading, Reading};
use super::run::{Classify, Connect, Connecting, Run};
use super::watch::Watched;
use crate::error::{Refusal, SourceError};
use crate::failure::Failure;
use crate::live::LiveRuns;
use crate::options::{Builder, Options, sealed};
use crate::recorder::Recorder;
use crate::source::{ByFn, ByToken, Source, View, WithView};
use crate::stop::Until;
use crate::timeout::Timeouts;
use crate::token::TokenView;

/// Builds a run of a source that can be called again: made by [`L0::stream`](crate::L0::stream),
/// started by `start()`.
pub type RunBuilder<'a, S> = Builder<ForRun<'a, Retried<'a, S>>>;

/// Builds a watched stream: made by [`L0::watch`](crate::L0::watch), started by `start()`.
pub type WatchBuilder<S, V = ByToken> = Builder<ForRun<'static, Watching<S, V>>>;

/// Says that a [`Builder`] builds one run: of `W`.
#[derive(Debug)]
pub struct ForRun<'a, W> {
    panics: Arc<AtomicU64>,
    live: Arc<LiveRuns>,
    metadata: BTreeMap<String, Value>,
    until: UntilAny<'a>,
    expect_finish: bool,
    of: W,
}

/// Stops the run when any of them is ready.
#[derive(Default)]
struct UntilAny<'a>(Vec<Until<'a>>);

impl std::fmt::Debug for UntilAny<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} futures", self.0.len())
    }
}

/// A source that is called for each attempt.
pub struct Retried<'a, S: Source> {
    source: S,
    classify: Option<Classify<'a, S::Error>>,
}

impl<S: Source> std::fmt::Debug for Retried<'_, S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Retried").finish_non_exhaustive()
    }
}

/// A stream that is there already, and how its items are read.
#[derive(Debug)]
pub struct Watching<S, V> {
    stream: S,
    view: V,
}

impl<'a, S: Source> sealed::CallsSource for ForRun<'a, Retried<'a, S>> {}

impl<'a, W> ForRun<'a, W> {
    fn new(panics: Arc<AtomicU64>, live: Arc<LiveRuns>, of: W) -> Self {
        Self {
            panics,
            live,
            metadata: BTreeMap::new(),
            until: UntilAny::default(),
            expect_finish: false,
            of,
        }
    }

    fn map<X>(self, map: impl FnOnce(W) -> X) -> ForRun<'a, X> {
        ForRun {
            panics: self.panics,
            live: self.live,
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
    fn begin(self, timeouts: Timeouts, sends_finish: bool) -> (Started<'a>, W) {
        let Self { options, kind } = self;
        let required = Required {
            finish: kind.expect_finish || sends_finish,
            output: options.detect_zero_output,
        };
        let (recorder, allowed, rng) = Recorder::start(
            &options,
            kind.metadata,
            kind.until.0,
            kind.panics,
            &kind.live,
        );
        let started = Started {
            attempt: AttemptState::new(recorder, timeouts, required),
            allowed,
            rng,
            options,
        };
        (started, kind.of)
    }
}

/// A run that has started, and was not polled yet.
struct Started<'a> {
    attempt: AttemptState<'a>,
    allowed: Result<(), Refusal>,
    rng: fastrand::Rng,
    options: Arc<Options>,
}

impl<'a, S: Source> RunBuilder<'a, S> {
    pub(crate) fn stream(
        options: Arc<Options>,
        panics: Arc<AtomicU64>,
        live: Arc<LiveRuns>,
        source: S,
    ) -> Self {
        let retried = Retried {
            source,
            classify: None,
        };
        Self {
            options,
            kind: ForRun::new(panics, live, retried),
        }
    }

    /// Reads what kind of failure an error of the source is; `None` leaves it to the default
    /// reading. `classify` is called once per failed attempt, inside the run's poll.
    pub fn classify(mut self, classify: impl Fn(&S::Error) -> Option<Failure> + Send + 'a) -> Self {
        self.kind.of.classify = Some(Box::new(classify));
        self
    }
}

impl<'a, S, T> RunBuilder<'a, S>
where
    S: Source<Answer: Stream<Item = Result<T, S::Error>> + Send + 'a> + 'a,
{
    /// Reads the items by a function: for item types that are no [`Token`](crate::Token). Whether the
    /// source always sends a finish reason is not known then: see
    /// [`expect_finish`](Self::expect_finish).
    pub fn view_with<F>(self, view: F) -> RunBuilder<'a, WithView<S, ByFn<F>>>
    where
        F: Fn(&T) -> TokenView<'_> + Clone + Send,
    {
        self.map(|kind| {
            kind.map(|Retried { source, classify }| Retried {
                source: WithView {
                    source,
                    view: ByFn(view),
                },
                classify,
            })
        })
    }

    /// Starts the run, on this thread: draws the sample, asks the interceptors, makes the
    /// observers and says `Started`. From here on exactly one `Finished` follows. The source is
    /// called at the first poll, not before.
    pub fn start(self) -> Run<'a, T, S::Error>
    where
        S::View: View<T> + 'a,
        T: 'a,
    {
        let timeouts = self.options.timeouts;
        let sends_finish = <S::View as View<T>>::SENDS_FINISH;
        let (started, Retried { source, classify }) = self.begin(timeouts, sends_finish);
        Run::new(
            started.attempt,
            started.allowed,
            forget_types(source),
            classify,
            started.options,
            started.rng,
        )
    }
}

/// Makes a source into a closure that names neither its stream nor how its items are read.
fn forget_types<'a, S, T>(mut source: S) -> Connect<'a, T, S::Error>
where
    S: Source<Answer: Stream<Item = Result<T, S::Error>> + Send + 'a, View: View<T> + 'a> + 'a,
    T: 'a,
{
    Box::new(move |attempt| {
        let view = source.view();
        let connecting = source.connect(attempt);
        let connecting: Connecting<'a, T, S::Error> = Box::pin(async move {
            let stream = connecting.await?;
            Ok(Box::pin(Reading::new(stream, view)) as BoxedReading<'a, T, S::Error>)
        });
        connecting
    })
}

impl<S> WatchBuilder<S> {
    pub(crate) fn watch(
        options: Arc<Options>,
        panics: Arc<AtomicU64>,
        live: Arc<LiveRuns>,
        stream: S,
    ) -> Self {
        let watching = Watching {
            stream,
            view: ByToken,
        };
        Self {
            options,
            kind: ForRun::new(panics, live, watching),
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
        let (started, Watching { stream, view }) = self.begin(Timeouts::new(), V::SENDS_FINISH);
        let mut attempt = started.attempt;
        let closed = started.allowed.is_err();
        if !closed {
            attempt.begin(&started.options);
            attempt.recorder.attempt_started(attempt.number);
        }
        Watched::new(attempt, view, closed, stream)
    }
}
