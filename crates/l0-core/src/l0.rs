//! L0: an application's shared configuration, from which its runs are made.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_core::stream::Stream;

use crate::error::SourceError;
use crate::monitor::Monitoring;
use crate::observe::Interceptor;
use crate::retry::Retry;
use crate::run::{Attempt, RunBuilder, Setup, WatchBuilder};
use crate::settings::{Settings, Shared};
use crate::timeout::Timeouts;

/// An application's configuration of its runs: make one, share it. Cheap to clone.
///
/// `L0::default()` measures nothing and has the default retries.
#[derive(Clone)]
pub struct L0 {
    settings: Arc<Settings>,
    shared: Arc<Shared>,
}

impl L0 {
    /// Begins a configuration with the defaults.
    pub fn builder() -> L0Builder {
        L0Builder::default()
    }

    /// Begins a variant of this configuration. What it builds counts runs and panics by itself.
    pub fn to_builder(&self) -> L0Builder {
        L0Builder {
            settings: Settings::clone(&self.settings),
        }
    }

    /// A run of a source that can be called again.
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
    /// or own what it needs, for a run that is spawned or returned:
    ///
    /// ```
    /// # use l0_core::{L0, Run, testing::{Script, ScriptedStream}};
    /// # let client = Script::new().attempt(|a| a.tokens(["Hello"]));
    /// # let l0 = L0::default();
    /// let run: Run<'static, _> = l0
    ///     .stream(move |_attempt| {
    ///         let client = client.clone();
    ///         async move { client.connect().await }
    ///     })
    ///     .start();
    /// # drop(run);
    /// ```
    ///
    /// (`move |_| client.connect()` does not compile: the future would borrow from the closure.)
    pub fn stream<'a, F, Fut, S, T, E>(&self, factory: F) -> RunBuilder<'a, S>
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<S, E>> + Send + 'a,
        S: Stream<Item = Result<T, E>> + Send + 'a,
        E: SourceError,
    {
        RunBuilder::new(self.setup(), factory)
    }

    /// A run of a stream that is there already: it is measured and otherwise left alone.
    pub fn watch<S, T, E>(&self, stream: S) -> WatchBuilder<S>
    where
        S: Stream<Item = Result<T, E>>,
        E: SourceError,
    {
        WatchBuilder::new(self.setup(), stream)
    }

    /// How many panics of observers were contained so far, in all runs of this `L0` and its
    /// clones.
    #[must_use]
    pub fn observer_panics(&self) -> u64 {
        self.shared.panics.load(Ordering::Relaxed)
    }

    fn setup<'a>(&self) -> Setup<'a> {
        Setup::new(Arc::clone(&self.settings), Arc::clone(&self.shared))
    }
}

impl Default for L0 {
    fn default() -> Self {
        Self::builder().build()
    }
}

impl fmt::Debug for L0 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("L0").field(&self.settings).finish()
    }
}

/// Configures an [`L0`].
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct L0Builder {
    settings: Settings,
}

impl L0Builder {
    /// What is measured. Default: nothing, unless an interceptor needs telemetry.
    pub fn monitoring(mut self, monitoring: Monitoring) -> Self {
        self.settings.monitoring = Some(monitoring);
        self
    }

    /// How often failed attempts are tried again. Default [`Retry::new`].
    pub fn retry(mut self, retry: Retry) -> Self {
        self.settings.retry = retry;
        self
    }

    /// How long to wait for the source. Default: for ever.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.settings.timeouts = timeouts;
        self
    }

    /// Whether an empty answer, without a letter or digit and without a tool call, is an error,
    /// which is retried like the model's other faults. Default true.
    pub fn detect_zero_output(mut self, detect: bool) -> Self {
        self.settings.detect_zero_output = detect;
        self
    }

    /// Adds an interceptor. They are called in the order in which they were added.
    pub fn interceptor(mut self, interceptor: impl Interceptor + 'static) -> Self {
        self.settings.interceptors.push(Arc::new(interceptor));
        self
    }

    /// Fixes sampling, jitter and session ids: the first, second, ... run of an `L0` with this
    /// seed draws the same as that of any other. A seeded session id holds the run's number in
    /// place of the time.
    pub fn seed(mut self, seed: u64) -> Self {
        self.settings.seed = Some(seed);
        self
    }

    /// The `L0`.
    #[must_use]
    pub fn build(self) -> L0 {
        L0 {
            settings: Arc::new(self.settings),
            shared: Arc::default(),
        }
    }
}
