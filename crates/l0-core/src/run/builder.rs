//! The builders of runs: what a run is made of, until `start()` starts it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;

use futures_core::stream::{Stream, TryStream};
use serde_json::Value;

use super::deadlines::Deadlines;
use super::output::{Expect, Output};
use super::view::{ByFn, ByToken, ReadItem, View};
use super::watched::Watched;
use super::{Attempt, Classify, Connecting, Factory, Run, State};
#[cfg(feature = "drift")]
use crate::drift::Drift;
use crate::error::{Refusal, SourceError};
use crate::failure::Failure;
use crate::guardrail::Guardrails;
use crate::monitor::Monitoring;
use crate::observe::Interceptor;
use crate::recorder::{Recorder, Start};
use crate::retry::{Retries, Retry};
use crate::settings::{Settings, Shared, randomness};
use crate::stop::Until;
use crate::timeout::Timeouts;

/// What both builders set up.
pub(crate) struct Setup<'a> {
    shared: Arc<Shared>,
    /// The `L0`'s own settings, until one is changed for this run.
    settings: Arc<Settings>,
    metadata: BTreeMap<String, Value>,
    until: Vec<Until<'a>>,
    expect_finish: bool,
    /// Whether the seed is of this run alone, which is then the first of its seed.
    own_seed: bool,
}

impl<'a> Setup<'a> {
    pub(crate) fn new(settings: Arc<Settings>, shared: Arc<Shared>) -> Self {
        Self {
            shared,
            settings,
            metadata: BTreeMap::new(),
            until: Vec::new(),
            expect_finish: false,
            own_seed: false,
        }
    }

    fn seed(&mut self, seed: u64) {
        self.settings().seed = Some(seed);
        self.own_seed = true;
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.settings)
    }

    fn until(&mut self, until: impl Future + Send + 'a) {
        self.until.push(Box::pin(async move {
            until.await;
        }));
    }

    fn expect(&self, sends_finish: bool) -> Expect {
        Expect {
            finish: self.expect_finish || sends_finish,
            output: self.settings.detect_zero_output,
        }
    }

    fn start(self) -> (Recorder<'a>, Result<(), Refusal>, fastrand::Rng) {
        let number = if self.own_seed {
            1
        } else {
            self.shared.next_run()
        };
        let mut rng = randomness(self.settings.seed, number);
        let start = Start {
            monitoring: self.settings.monitoring(),
            interceptors: &self.settings.interceptors,
            metadata: self.metadata,
            until: self.until,
            seeded_number: self.settings.seed.map(|_| number),
            panics: Arc::clone(&self.shared.panics),
        };
        let (recorder, allowed) = Recorder::start(start, &mut rng);
        (recorder, allowed, rng)
    }
}

/// A run of a source that can be called again: made by [`L0::stream`](crate::L0::stream), started by
/// [`start`](Self::start).
///
/// Every setter of [`L0Builder`](crate::L0Builder) is here too, for this run only:
/// [`interceptor`](Self::interceptor) adds, the others replace.
#[must_use = "a run does nothing until it is started, with `start()`"]
pub struct RunBuilder<'a, S: TryStream, V = ByToken> {
    setup: Setup<'a>,
    factory: Factory<'a, S, S::Error>,
    classify: Option<Classify<'a, S::Error>>,
    view: V,
}

impl<'a, S, T, E> RunBuilder<'a, S, ByToken>
where
    S: Stream<Item = Result<T, E>>,
{
    pub(crate) fn new<F, Fut>(setup: Setup<'a>, mut factory: F) -> Self
    where
        F: FnMut(Attempt) -> Fut + Send + 'a,
        Fut: Future<Output = Result<S, E>> + Send + 'a,
    {
        Self {
            setup,
            factory: Box::new(move |attempt| Box::pin(factory(attempt)) as Connecting<'a, S, E>),
            classify: None,
            view: ByToken,
        }
    }
}

impl<'a, S, T, E, V> RunBuilder<'a, S, V>
where
    S: Stream<Item = Result<T, E>>,
{
    /// Adds an entry to this run's metadata, over an entry of the same key of the `L0`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.setup.metadata.insert(key.into(), value.into());
        self
    }

    /// Stops the run, as aborted, once the future is ready; its output is ignored. Several add up.
    /// The future is polled inside the run's polls, only when it was woken.
    pub fn until(mut self, until: impl Future + Send + 'a) -> Self {
        self.setup.until(until);
        self
    }

    /// Reads what kind of failure an error of the source is; `None` leaves it to the default
    /// reading. Called once per failed attempt, inside the run's poll.
    pub fn classify(mut self, classify: impl Fn(&E) -> Option<Failure> + Send + 'a) -> Self {
        self.classify = Some(Box::new(classify));
        self
    }

    /// Reads the items by a function: for item types that are no [`Token`](crate::Token). The
    /// function captures nothing. Whether the source sends finish reasons is not known then: see
    /// [`expect_finish`](Self::expect_finish).
    pub fn view_with(self, view: ReadItem<T>) -> RunBuilder<'a, S, ByFn<T>> {
        RunBuilder {
            setup: self.setup,
            factory: self.factory,
            classify: self.classify,
            view: ByFn(view),
        }
    }

    /// Says that this source always sends a finish reason: an end without one is truncated.
    pub fn expect_finish(mut self) -> Self {
        self.setup.expect_finish = true;
        self
    }

    /// What is measured.
    pub fn monitoring(mut self, monitoring: Monitoring) -> Self {
        self.setup.settings().monitoring = Some(monitoring);
        self
    }

    /// How often failed attempts are tried again.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.setup.settings().retry = retry;
        self
    }

    /// How long to wait for the source.
    pub fn timeouts(mut self, timeouts: Timeouts) -> Self {
        self.setup.settings().timeouts = timeouts;
        self
    }

    /// Whether an empty answer is an error, which is retried.
    pub fn detect_zero_output(mut self, detect: bool) -> Self {
        self.setup.settings().detect_zero_output = detect;
        self
    }

    /// The rules that answers are checked by.
    pub fn guardrails(mut self, guardrails: Guardrails) -> Self {
        self.setup.settings().guardrails = guardrails;
        self
    }

    /// Which drift is looked for.
    #[cfg(feature = "drift")]
    pub fn drift(mut self, drift: Drift) -> Self {
        self.setup.settings().drift = Some(drift.into_make_detector());
        self
    }

    /// Adds an interceptor, after those of the `L0`.
    pub fn interceptor(mut self, interceptor: impl Interceptor + 'static) -> Self {
        self.setup
            .settings()
            .interceptors
            .push(Arc::new(interceptor));
        self
    }

    /// Fixes sampling, jitter and the session id of this run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.setup.seed(seed);
        self
    }

    /// Starts the run, on this thread: draws the sample, asks the interceptors, makes the
    /// observers and says `Started`. From here on exactly one `Finished` follows. The source is
    /// called at the first poll, not before.
    pub fn start(self) -> Run<'a, S>
    where
        E: SourceError,
        V: View<T>,
    {
        let settings = Arc::clone(&self.setup.settings);
        let expect = self.setup.expect(V::SENDS_FINISH);
        let (recorder, allowed, rng) = self.setup.start();
        Run {
            recorder,
            state: match allowed {
                Ok(()) => State::Ready,
                Err(refusal) => State::Refused(refusal),
            },
            factory: self.factory,
            read_item: self.view.into_fn(),
            poll: Run::poll_chunk::<V>,
            classify: self.classify,
            deadlines: Deadlines::new(settings.timeouts),
            settings,
            rng,
            expect,
            retries: Retries::default(),
            attempt: 0,
            output: Output::default(),
            checks: None,
            has_item: false,
            parked: false,
        }
    }
}

impl<S: TryStream, V> fmt::Debug for RunBuilder<'_, S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunBuilder")
            .field("settings", &self.setup.settings)
            .field("metadata", &self.setup.metadata)
            .finish_non_exhaustive()
    }
}

/// A stream that is to be watched: made by [`L0::watch`](crate::L0::watch), started by [`start`](Self::start).
///
/// The setters of [`L0Builder`](crate::L0Builder) that only watch are here too, for this run only:
/// [`interceptor`](Self::interceptor) adds, the others replace.
#[must_use = "a run does nothing until it is started, with `start()`"]
pub struct WatchBuilder<S: TryStream, V = ByToken> {
    setup: Setup<'static>,
    stream: S,
    view: V,
}

impl<S: TryStream> WatchBuilder<S, ByToken> {
    pub(crate) fn new(setup: Setup<'static>, stream: S) -> Self {
        Self {
            setup,
            stream,
            view: ByToken,
        }
    }
}

impl<S, T, E, V> WatchBuilder<S, V>
where
    S: Stream<Item = Result<T, E>>,
{
    /// Adds an entry to this run's metadata, over an entry of the same key of the `L0`.
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<Value>) -> Self {
        self.setup.metadata.insert(key.into(), value.into());
        self
    }

    /// Ends the stream, as aborted, once the future is ready; its output is ignored. Several add
    /// up.
    pub fn until(mut self, until: impl Future + Send + 'static) -> Self {
        self.setup.until(until);
        self
    }

    /// Reads the items by a function: for item types that are no [`Token`](crate::Token). The
    /// function captures nothing.
    pub fn view_with(self, view: ReadItem<T>) -> WatchBuilder<S, ByFn<T>> {
        WatchBuilder {
            setup: self.setup,
            stream: self.stream,
            view: ByFn(view),
        }
    }

    /// Says that this stream always sends a finish reason: an end without one is truncated.
    pub fn expect_finish(mut self) -> Self {
        self.setup.expect_finish = true;
        self
    }

    /// What is measured.
    pub fn monitoring(mut self, monitoring: Monitoring) -> Self {
        self.setup.settings().monitoring = Some(monitoring);
        self
    }

    /// Whether an empty answer makes the outcome failed.
    pub fn detect_zero_output(mut self, detect: bool) -> Self {
        self.setup.settings().detect_zero_output = detect;
        self
    }

    /// The rules that the answer is checked by: what they find is recorded, nothing more.
    pub fn guardrails(mut self, guardrails: Guardrails) -> Self {
        self.setup.settings().guardrails = guardrails;
        self
    }

    /// Which drift is looked for, to be recorded.
    #[cfg(feature = "drift")]
    pub fn drift(mut self, drift: Drift) -> Self {
        self.setup.settings().drift = Some(drift.into_make_detector());
        self
    }

    /// Adds an interceptor, after those of the `L0`.
    pub fn interceptor(mut self, interceptor: impl Interceptor + 'static) -> Self {
        self.setup
            .settings()
            .interceptors
            .push(Arc::new(interceptor));
        self
    }

    /// Fixes sampling and the session id of this run.
    pub fn seed(mut self, seed: u64) -> Self {
        self.setup.seed(seed);
        self
    }

    /// Starts the run, on this thread, as [`RunBuilder::start`] does.
    pub fn start(self) -> Watched<S>
    where
        E: SourceError,
        V: View<T>,
    {
        let expect = self.setup.expect(V::SENDS_FINISH);
        let checks = self.setup.settings.checks();
        let (mut recorder, allowed, _) = self.setup.start();
        if allowed.is_ok() {
            recorder.attempt_started(1);
        }
        Watched {
            recorder,
            read_item: self.view.into_fn(),
            poll: Watched::poll_item::<V>,
            expect,
            output: Output::default(),
            checks,
            parked: false,
            closed: allowed.is_err(),
            stream: self.stream,
        }
    }
}

impl<S: TryStream, V> fmt::Debug for WatchBuilder<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WatchBuilder")
            .field("settings", &self.setup.settings)
            .field("metadata", &self.setup.metadata)
            .finish_non_exhaustive()
    }
}
