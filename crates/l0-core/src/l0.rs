//! L0: an application's shared configuration, from which its runs are made.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_core::stream::Stream;

use crate::error::SourceError;
use crate::failure;
use crate::options::{Builder, Options, sealed};
use crate::redact;
use crate::run::{RunBuilder, WatchBuilder};
use crate::source::{Attempt, FnSource};

/// An application's configuration of its runs: make one, share it. Cheap to clone.
///
/// `L0::default()` measures nothing and has the default retries.
#[derive(Clone)]
pub struct L0 {
    options: Arc<Options>,
    /// Panics of observers that were contained.
    panics: Arc<AtomicU64>,
}

impl L0 {
    /// Begins a configuration with the defaults.
    pub fn builder() -> L0Builder {
        L0Builder::default()
    }

    /// Begins a variant of this configuration. What it builds counts runs and panics by itself.
    pub fn to_builder(&self) -> L0Builder {
        L0Builder {
            options: Arc::clone(&self.options),
            kind: Configuration,
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
    pub fn stream<'a, F, Fut, S, T, E>(&self, factory: F) -> RunBuilder<'a, FnSource<F>>
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<S, E>> + Send + 'a,
        S: Stream<Item = Result<T, E>> + Send + 'a,
        E: SourceError,
    {
        RunBuilder::stream(
            Arc::clone(&self.options),
            Arc::clone(&self.panics),
            FnSource::new(factory),
        )
    }

    /// Begins a run of a stream that is there already: it is measured and otherwise left alone.
    pub fn watch<S, T, E>(&self, stream: S) -> WatchBuilder<S>
    where
        S: Stream<Item = Result<T, E>>,
        E: SourceError,
    {
        WatchBuilder::watch(Arc::clone(&self.options), Arc::clone(&self.panics), stream)
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
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct Configuration;

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
        }
    }
}
