//! L0: an application's shared configuration, from which its runs are made.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_core::stream::Stream;

use crate::error::SourceError;
use crate::failure;
use crate::live::LiveRuns;
use crate::options::{Builder, Options, sealed};
use crate::redact;
use crate::run::{CallBuilder, OfL0, RunBuilder, WatchBuilder};
use crate::source::{Attempt, FnSource, Source, source};

/// An application's configuration of its runs: make one, share it. Cheap to clone.
///
/// `L0::default()` measures nothing and has the default retries.
#[derive(Clone)]
pub struct L0 {
    options: Arc<Options>,
    /// Panics of observers that were contained.
    panics: Arc<AtomicU64>,
    live: Arc<LiveRuns>,
}

impl L0 {
    /// Begins a configuration with the defaults.
    pub fn builder() -> L0Builder {
        L0Builder::default()
    }

    /// Begins a variant of this configuration. What it builds counts runs and panics by itself; the
    /// [live](Self::live) runs of both are one list.
    pub fn to_builder(&self) -> L0Builder {
        let live = Some(Arc::clone(&self.live));
        L0Builder {
            options: Arc::clone(&self.options),
            kind: Configuration { live },
        }
    }

    /// Begins a run of a source that can be called again.
    ///
    /// `factory` is called once per attempt, not before the run's first poll, and returns a future
    /// that connects: it gives the attempt's stream, or the error to connect, which counts like an
    /// error of the stream. It may borrow:
    ///
    /// ```
    /// # use l0_core::{L0, testing::Script};
    /// # let client = Script::new().attempt(|a| a.tokens(["Hello"]));
    /// # let l0 = L0::default();
    /// let prompt = String::from("Say hello.");
    /// let run = l0.stream(|_attempt| client.chat(&prompt)).start();
    /// # drop(run);
    /// # trait Chat { fn chat(&self, prompt: &str)
    /// #     -> impl Future<Output = Result<l0_core::testing::ScriptedStream, l0_core::testing::ScriptedError>> + Send; }
    /// # impl Chat for Script {
    /// #     async fn chat(&self, _: &str) -> Result<l0_core::testing::ScriptedStream, l0_core::testing::ScriptedError> {
    /// #         self.connect().await
    /// #     }
    /// # }
    /// ```
    ///
    /// or own what it needs, for a run that is spawned, returned, or kept in a struct:
    ///
    /// ```
    /// # use l0_core::{L0, Run, testing::{Script, ScriptedError, ScriptedToken}};
    /// # let client = Script::new().attempt(|a| a.tokens(["Hello"]));
    /// # let l0 = L0::default();
    /// let run: Run<'static, ScriptedToken, ScriptedError> = l0
    ///     .stream(move |_attempt| {
    ///         let client = client.clone();
    ///         async move { client.connect().await }
    ///     })
    ///     .start();
    /// # drop(run);
    /// ```
    ///
    /// (`async move |_| client.connect().await` does not compile: the future would borrow from the
    /// closure. Clone first.)
    pub fn stream<'a, F, Fut, S, T, E>(&self, factory: F) -> RunBuilder<'a, FnSource<F>, T>
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<S, E>> + Send + 'a,
        S: Stream<Item = Result<T, E>> + Send + 'a,
        E: SourceError,
    {
        self.stream_from(source(factory))
    }

    /// Begins a run of a source that describes itself: the request of a client, such as
    /// `client.chat(&request)` of `l0-providers`. Model, provider and operation need no metadata then,
    /// and every exporter has them.
    pub fn stream_from<'a, S, T>(&self, source: S) -> RunBuilder<'a, S, T>
    where
        S: Source<Answer: Stream<Item = Result<T, S::Error>>>,
    {
        Builder::asking(Arc::clone(&self.options), self.of_l0(), source)
    }

    /// Begins a call: a request whose answer comes as one, such as embeddings. `factory` is called once
    /// per attempt, as that of [`stream`](Self::stream), and its future gives the answer.
    ///
    /// The answer is read as a [`Token`](crate::Token), or by
    /// [`view_with`](crate::CallBuilder::view_with).
    pub fn call<'a, F, Fut, T, E>(&self, factory: F) -> CallBuilder<'a, FnSource<F>, T>
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
        E: SourceError,
    {
        self.call_from(source(factory))
    }

    /// Begins a call of a source that describes itself, as [`stream_from`](Self::stream_from) does for
    /// streams.
    pub fn call_from<'a, S: Source>(&self, source: S) -> CallBuilder<'a, S, S::Answer> {
        Builder::asking(Arc::clone(&self.options), self.of_l0(), source)
    }

    fn of_l0(&self) -> OfL0 {
        OfL0 {
            panics: Arc::clone(&self.panics),
            live: Arc::clone(&self.live),
        }
    }

    /// Begins a run of a stream that is there already: it is measured and otherwise left alone.
    pub fn watch<S, T, E>(&self, stream: S) -> WatchBuilder<S>
    where
        S: Stream<Item = Result<T, E>>,
        E: SourceError,
    {
        WatchBuilder::watch(Arc::clone(&self.options), self.of_l0(), stream)
    }

    /// Returns how many runs are live: those of this `L0`, of its clones and of its
    /// [variants](Self::to_builder), watched ones too. A run is live from its start until it has told
    /// its observers that it has finished.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.count()
    }

    /// Returns how long the run has been live that has been so for the longest; absent if none
    /// [is](Self::live).
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.live.oldest()
    }

    /// Asks all [live](Self::live) runs to stop, as [`RunHandle::abort`](crate::RunHandle::abort) does.
    /// Runs that start later are not affected.
    pub fn abort_all(&self) {
        self.live.abort_all();
    }

    /// Waits until no run is [live](Self::live); at once if none is. Runs that start while it waits are
    /// waited for too: stop what starts them first. The future needs no runtime, may be dropped at any
    /// time, and holds nothing but the list of live runs.
    ///
    /// ```
    /// use std::time::Duration;
    /// # use l0_core::L0;
    /// use tokio::time::timeout;
    ///
    /// # async fn shut_down(l0: L0) {
    /// // Once no request can come in any more:
    /// if timeout(Duration::from_secs(20), l0.ended()).await.is_err() {
    ///     l0.abort_all();
    ///     // Those that nobody polls end when they are dropped.
    ///     let _ = timeout(Duration::from_secs(1), l0.ended()).await;
    /// }
    /// # }
    /// ```
    pub fn ended(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        self.live.ended()
    }

    /// Returns how many panics of observers were contained so far, in all runs of this `L0` and its
    /// clones.
    #[must_use]
    pub fn observer_panics(&self) -> u64 {
        self.panics.load(Ordering::Relaxed)
    }
}

impl Default for L0 {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl fmt::Debug for L0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("L0").field(&self.options).finish()
    }
}

/// Builds an [`L0`]: made by [`L0::builder`].
pub type L0Builder = Builder<Configuration>;

/// Says that a [`Builder`] builds an [`L0`].
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// The list of live runs that a variant shares with what it is one of.
    live: Option<Arc<LiveRuns>>,
}

impl sealed::CallsSource for Configuration {}

impl L0Builder {
    /// Builds the `L0`.
    #[must_use]
    pub fn build(self) -> L0 {
        // Here rather than in the poll of the first run that fails.
        failure::prepare();
        redact::prepare();
        let counted =
            self.set(|options| options.seed = options.seed.as_ref().map(|seed| seed.anew()));
        L0 {
            options: counted.options,
            panics: Arc::default(),
            live: counted.kind.live.unwrap_or_default(),
        }
    }
}
