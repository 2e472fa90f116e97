//! L0: an application's shared configuration, and the entry point to its runs.

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
use crate::run::{CallBuilder, RunBuilder, SharedState, WatchBuilder};
use crate::source::{Attempt, FnSource, Source, source};

/// A shared configuration for an application's runs. Cheap to clone.
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
    /// Returns a builder with the default configuration.
    pub fn builder() -> L0Builder {
        L0Builder::default()
    }

    /// Returns a builder with this configuration. The new `L0` has its own counts of runs and
    /// panics, and shares the list of [live](Self::live) runs.
    pub fn to_builder(&self) -> L0Builder {
        let live = Some(Arc::clone(&self.live));
        L0Builder {
            options: Arc::clone(&self.options),
            kind: Configuration { live },
        }
    }

    /// Returns the builder of a run whose source can be called again.
    ///
    /// `factory` is called once per attempt, not before the run's first poll. Its future connects:
    /// it resolves to the attempt's stream, or to a connection error, which is treated like an
    /// error of the stream. The factory can borrow:
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
    /// or own what it needs, if the run is spawned, returned, or kept in a struct:
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
    /// (`async move |_| client.connect().await` does not compile, because the future would borrow
    /// from the closure. Clone first.)
    pub fn stream<'a, F, Fut, S, T, E>(&self, factory: F) -> RunBuilder<'a, FnSource<F>, T>
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<S, E>> + Send + 'a,
        S: Stream<Item = Result<T, E>> + Send + 'a,
        E: SourceError,
    {
        self.stream_from(source(factory))
    }

    /// Returns the builder of a run whose source describes itself, such as `client.chat(&request)`
    /// of `l0-providers`. Model, provider and operation then need no metadata, and every exporter
    /// receives them.
    pub fn stream_from<'a, S, T>(&self, source: S) -> RunBuilder<'a, S, T>
    where
        S: Source<Answer: Stream<Item = Result<T, S::Error>>>,
    {
        Builder::with_source(Arc::clone(&self.options), self.shared(), source)
    }

    /// Returns the builder of a call: a request with a single answer, such as embeddings.
    ///
    /// `factory` is called once per attempt, as in [`stream`](Self::stream). Its future resolves to
    /// the answer, which is read as a [`Token`](crate::Token), or by the function set with
    /// [`view_with`](crate::CallBuilder::view_with).
    pub fn call<'a, F, Fut, T, E>(&self, factory: F) -> CallBuilder<'a, FnSource<F>, T>
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<T, E>> + Send + 'a,
        E: SourceError,
    {
        self.call_from(source(factory))
    }

    /// Returns the builder of a call whose source describes itself, as
    /// [`stream_from`](Self::stream_from) does for streams.
    pub fn call_from<'a, S: Source>(&self, source: S) -> CallBuilder<'a, S, S::Answer> {
        Builder::with_source(Arc::clone(&self.options), self.shared(), source)
    }

    fn shared(&self) -> SharedState {
        SharedState {
            panics: Arc::clone(&self.panics),
            live: Arc::clone(&self.live),
        }
    }

    /// Returns the builder of a run of an existing stream, which is measured and otherwise left
    /// unchanged.
    pub fn watch<S, T, E>(&self, stream: S) -> WatchBuilder<S>
    where
        S: Stream<Item = Result<T, E>>,
        E: SourceError,
    {
        WatchBuilder::watch(Arc::clone(&self.options), self.shared(), stream)
    }

    /// Returns the number of live runs of this `L0`, its clones and its
    /// [variants](Self::to_builder), including watched streams. A run is live from its start until
    /// its observers have received its end.
    #[must_use]
    pub fn live(&self) -> usize {
        self.live.count()
    }

    /// Returns how long the oldest [live](Self::live) run has been live, or `None` if no run is.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.live.oldest()
    }

    /// Asks all [live](Self::live) runs to stop, as [`RunHandle::abort`](crate::RunHandle::abort)
    /// does. Runs that start later are not affected.
    pub fn abort_all(&self) {
        self.live.abort_all();
    }

    /// Waits until no run is [live](Self::live). Ready at once if none is.
    ///
    /// Runs that start during the wait extend it, so stop whatever starts them first. The future
    /// needs no runtime, can be dropped at any time, and keeps only the list of live runs alive.
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
    ///     // Runs that are not polled end when they are dropped.
    ///     let _ = timeout(Duration::from_secs(1), l0.ended()).await;
    /// }
    /// # }
    /// ```
    pub fn ended(&self) -> impl Future<Output = ()> + Send + Unpin + use<> {
        self.live.ended()
    }

    /// Returns the number of observer panics contained so far, in all runs of this `L0` and its
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

/// Builds an [`L0`]. Created by [`L0::builder`].
pub type L0Builder = Builder<Configuration>;

/// Marks a [`Builder`] of an [`L0`].
#[derive(Debug, Clone, Default)]
pub struct Configuration {
    /// The list of live runs that a variant shares with its original.
    live: Option<Arc<LiveRuns>>,
}

impl sealed::CallsSource for Configuration {}

impl L0Builder {
    /// Builds the `L0`.
    #[must_use]
    pub fn build(self) -> L0 {
        // Here rather than in the poll of the first failing run.
        failure::prepare();
        redact::prepare();
        let counted =
            self.set(|options| options.seed = options.seed.as_ref().map(|seed| seed.restarted()));
        L0 {
            options: counted.options,
            panics: Arc::default(),
            live: counted.kind.live.unwrap_or_default(),
        }
    }
}
