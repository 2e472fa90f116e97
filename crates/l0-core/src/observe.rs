//! Interceptor and Observer: the hooks for code outside of a run.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use serde_json::Value;

use crate::error::Refusal;
use crate::event::Event;
use crate::keys;
use crate::metadata::Metadata;
use crate::progress::{Cells, Progress};
use crate::recording::RunId;
use crate::source::Description;
use crate::telemetry::Timestamp;

/// A hook into every run of an [`L0`](crate::L0). It is shared by all runs, and creates the
/// [`Observer`]s of each.
///
/// Both methods are called inside `start()`, on the caller's thread and in the caller's context:
/// first [`before`](Self::before) of every interceptor in the order of registration, then
/// [`observe`](Self::observe) of every interceptor. The source has not been called yet.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not an `Interceptor`",
    note = "wrap a closure in `l0_core::observe_fn` or `l0_core::on_finish`",
    note = "an `Observer` belongs to one run: implement `Interceptor`, and push a new observer in its `observe`"
)]
pub trait Interceptor: Send + Sync {
    /// Adds metadata to a run that is about to start, or refuses it.
    ///
    /// # Errors
    ///
    /// Returns a [`Refusal`] to end the run as failed before the source is called. The interceptors
    /// after this one are then not called. A panic is also a refusal.
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        let _ = run;
        Ok(())
    }

    /// Adds the observers of a run that starts. A panic is contained and counted; observers that
    /// were added before it stay.
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let _ = (run, observers);
    }

    /// Returns `true` if the interceptor needs telemetry. Monitoring is then on by default in every
    /// [`L0`](crate::L0) and run that it is added to. An explicit setting takes precedence.
    fn needs_telemetry(&self) -> bool {
        false
    }

    /// Returns `true` if the interceptor sends the input of runs, such as the prompt. The
    /// [input](crate::Source::input) of each source is then requested when a run starts, and is
    /// available in [`RunInfo::source`]. L0 itself does not send or keep it.
    fn needs_input(&self) -> bool {
        false
    }

    /// Returns `true` if the interceptor reads the [progress](RunInfo::progress) of live runs. Each
    /// run then maintains it, which costs a few instructions per item, and no lock.
    fn needs_progress(&self) -> bool {
        false
    }
}

/// Watches one run. It cannot change the run or make it fail.
///
/// All calls come from the thread that starts, polls or drops the run, one at a time, and the run
/// waits for them: they must not block. The last one, [`Event::Finished`], can come from the run's
/// `Drop`, even while a runtime shuts down, so it must not spawn tasks.
///
/// A panic in any call, or in the observer's own `Drop`, is contained and counted, and the observer
/// is dropped. The run and the other observers continue.
pub trait Observer: Send {
    /// Returns the events to deliver. Called once, when the run starts.
    fn interest(&self) -> Interest {
        Interest::LIFECYCLE
    }

    /// Handles an event of the run.
    fn on_event(&mut self, event: &Event<'_>);

    /// Wraps each poll of the future that the source's factory returned. The first poll includes
    /// the call of the factory; polls of the stream are not wrapped.
    ///
    /// Enter a context, call `poll` once, then leave the context.
    fn connect(&mut self, poll: &mut dyn FnMut()) {
        poll();
    }
}

/// The events that an observer receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Lifecycle,
    Tokens,
}

impl Interest {
    /// Every event except [`Event::Token`] and [`Event::Answer`].
    pub const LIFECYCLE: Self = Self(Level::Lifecycle);
    /// Every event, including [`Event::Token`] and [`Event::Answer`].
    pub const TOKENS: Self = Self(Level::Tokens);
}

/// A run that is about to start, passed to [`Interceptor::before`].
#[derive(Debug)]
pub struct NewRun {
    metadata: Metadata,
}

impl NewRun {
    pub(crate) fn new(metadata: Metadata) -> Self {
        Self { metadata }
    }

    /// Returns the metadata so far: that of the `L0`, then the run's own, then what earlier
    /// interceptors set. Later entries replace earlier ones.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Sets a metadata entry. It replaces an entry with the same key.
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.metadata.insert(key.into(), value.into());
    }

    pub(crate) fn into_metadata(mut self) -> Metadata {
        keys::redact_endpoint(&mut self.metadata);
        self.metadata
    }
}

/// The information known from the start of a run, measured or not. Cheap to clone.
#[derive(Clone)]
pub struct RunInfo(Arc<Info>);

struct Info {
    parts: RunParts,
    /// The text of the id, once it was needed.
    id: OnceLock<Box<str>>,
    panics: AtomicU64,
    all_panics: Arc<AtomicU64>,
}

/// The information known about a source before it is called.
///
/// `Debug` omits the input.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SourceInfo {
    /// The metadata of its attempts: that of the run, overridden by the source's description of
    /// itself. The run's entries `model`, `provider` and `operation` are those of its first source.
    pub metadata: Metadata,
    /// Its description of its request.
    pub description: Description,
    /// Its input. `None` if no interceptor [needs](Interceptor::needs_input) it, or if it is
    /// unknown.
    pub input: Option<Box<Value>>,
}

impl fmt::Debug for SourceInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SourceInfo")
            .field("metadata", &self.metadata)
            .field("description", &self.description)
            .finish_non_exhaustive()
    }
}

/// The contents of a [`RunInfo`].
pub(crate) struct RunParts {
    pub(crate) id: RunId,
    pub(crate) parent_id: Option<Box<str>>,
    pub(crate) metadata: Metadata,
    pub(crate) source: SourceInfo,
    pub(crate) fallbacks: Vec<SourceInfo>,
    pub(crate) is_call: bool,
    pub(crate) started_at: Timestamp,
    pub(crate) measured: bool,
    pub(crate) progress: Option<Arc<Cells>>,
}

impl RunInfo {
    pub(crate) fn new(parts: RunParts, all_panics: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Info {
            parts,
            id: OnceLock::new(),
            panics: AtomicU64::new(0),
            all_panics,
        }))
    }

    /// Returns the run's id: the `sessionId` of its telemetry.
    #[must_use]
    pub fn id(&self) -> &str {
        let text = || self.0.parts.id.text().into();
        self.0.id.get_or_init(text)
    }

    /// Returns a copy of the run's id, and keeps none if there is none yet.
    pub(crate) fn own_id(&self) -> String {
        match self.0.id.get() {
            Some(id) => id.as_ref().to_owned(),
            None => self.0.parts.id.text(),
        }
    }

    /// Returns the metadata of the run at its start. Later entries replace earlier ones: those of
    /// the `L0`, the run's own, those of its first source, and those set by interceptors.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.parts.metadata
    }

    /// Returns the id of the parent run, or `None` if it has no
    /// [`parent`](crate::RunBuilder::parent).
    #[must_use]
    pub fn parent_id(&self) -> Option<&str> {
        self.0.parts.parent_id.as_deref()
    }

    /// Returns `true` if the run is a call, with a single answer: see
    /// [`L0::call`](crate::L0::call).
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.0.parts.is_call
    }

    /// Returns the information about a source by its number, from 1. `None` if the run has no such
    /// source.
    #[must_use]
    pub fn source(&self, number: u32) -> Option<&SourceInfo> {
        match number.checked_sub(2) {
            Some(index) => self.0.parts.fallbacks.get(index as usize),
            None if number == 1 => Some(&self.0.parts.source),
            None => None,
        }
    }

    /// Iterates over the sources: first the run's own, then its fallbacks.
    pub fn sources(&self) -> impl Iterator<Item = &SourceInfo> {
        std::iter::once(&self.0.parts.source).chain(&self.0.parts.fallbacks)
    }

    /// Returns when the run started, by the wall clock.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.0.parts.started_at
    }

    /// Returns `true` if the run is measured: monitoring is on and the run was sampled.
    #[must_use]
    pub fn measured(&self) -> bool {
        self.0.parts.measured
    }

    /// Returns the progress of the run. Can be called from any thread, also while the run is not
    /// polled.
    ///
    /// `None` unless an interceptor [needs](Interceptor::needs_progress) it, and once the run has
    /// ended.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.0.parts.progress.as_ref()?.read()
    }

    /// Returns the number of this run's observer panics contained so far.
    #[must_use]
    pub fn observer_panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    fn count_panic(&self) {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
        self.0.all_panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Calls code of an observer. A panic is counted and returns `None`.
    pub(crate) fn contain<R>(&self, code: impl FnOnce() -> R) -> Option<R> {
        let value = contain(code);
        if value.is_none() {
            self.count_panic();
        }
        value
    }
}

/// Calls foreign code. A panic returns `None`.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard).ok()
}

/// Drops a panic's payload, whose own `Drop` can panic as well.
fn discard(payload: Box<dyn std::any::Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Each payload throws another one: leak this one instead of looping forever.
        std::mem::forget(another);
    }
}

impl fmt::Debug for RunInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunInfo")
            .field("id", &self.id())
            .field("metadata", &self.0.parts.metadata)
            .field("started_at", &self.0.parts.started_at)
            .field("measured", &self.0.parts.measured)
            .field("sources", &(1 + self.0.parts.fallbacks.len()))
            .finish_non_exhaustive()
    }
}

/// The observers of one run.
pub struct Observers {
    pub(crate) run: RunInfo,
    slots: Vec<Slot>,
    want_tokens: bool,
}

struct Slot {
    observer: Box<dyn Observer>,
    interest: Interest,
    /// `true` if its `connect` has panicked.
    failed: bool,
}

impl Observers {
    pub(crate) fn new(run: RunInfo) -> Self {
        Self {
            run,
            slots: Vec::new(),
            want_tokens: false,
        }
    }

    /// Adds an observer, and requests its interest. Events are delivered in the order in which
    /// observers were added.
    pub fn push(&mut self, observer: impl Observer + 'static) {
        let observer: Box<dyn Observer> = Box::new(observer);
        match self.run.contain(|| observer.interest()) {
            Some(interest) => {
                self.want_tokens |= interest == Interest::TOKENS;
                if self.slots.capacity() == 0 {
                    // Most runs have one observer, so the list starts at that capacity.
                    self.slots = Vec::with_capacity(1);
                }
                self.slots.push(Slot {
                    observer,
                    interest,
                    failed: false,
                });
            }
            None => self.discard(observer),
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    pub(crate) fn want_tokens(&self) -> bool {
        self.want_tokens
    }

    /// Delivers an event to every observer.
    pub(crate) fn deliver(&mut self, event: &Event<'_>) {
        self.deliver_if(event, |_| true);
    }

    /// Delivers an event with text to the observers that requested it.
    pub(crate) fn deliver_token(&mut self, event: &Event<'_>) {
        self.deliver_if(event, |interest| interest == Interest::TOKENS);
    }

    fn deliver_if(&mut self, event: &Event<'_>, wanted: impl Fn(Interest) -> bool) {
        let mut index = 0;
        while let Some(slot) = self.slots.get_mut(index) {
            if !wanted(slot.interest)
                || self.run.contain(|| slot.observer.on_event(event)).is_some()
            {
                index += 1;
            } else {
                let slot = self.slots.remove(index);
                self.discard(slot.observer);
            }
        }
    }

    /// Calls `poll` exactly once, inside every observer's `connect`. A panic of `poll` propagates
    /// past the observers, and does not count as theirs.
    pub(crate) fn connect(&mut self, mut poll: impl FnMut()) {
        if self.slots.is_empty() {
            return poll();
        }
        let mut polled = Ok(());
        let mut caught = || polled = catch_unwind(AssertUnwindSafe(&mut poll));
        nest(&self.run, &mut self.slots, &mut caught);
        while let Some(index) = self.slots.iter().rposition(|slot| slot.failed) {
            let slot = self.slots.remove(index);
            self.discard(slot.observer);
        }
        if let Err(payload) = polled {
            resume_unwind(payload);
        }
    }

    fn discard(&self, observer: Box<dyn Observer>) {
        self.run.contain(|| drop(observer));
    }

    /// Drops all observers, each on its own.
    pub(crate) fn clear(&mut self) {
        self.want_tokens = false;
        for slot in std::mem::take(&mut self.slots) {
            self.discard(slot.observer);
        }
    }
}

/// Calls `poll` once, inside the `connect` of each observer, with the first one outermost.
fn nest(run: &RunInfo, slots: &mut [Slot], poll: &mut dyn FnMut()) {
    let Some((slot, slots)) = slots.split_first_mut() else {
        return poll();
    };
    let mut called = false;
    let mut rest = || {
        if !std::mem::replace(&mut called, true) {
            nest(run, slots, poll);
        }
    };
    slot.failed = run.contain(|| slot.observer.connect(&mut rest)).is_none();
    // `connect` can have panicked before it called `poll`, or not have called it.
    rest();
}

impl Drop for Observers {
    fn drop(&mut self) {
        self.clear();
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observers")
            .field("run", &self.run)
            .field("count", &self.slots.len())
            .finish_non_exhaustive()
    }
}

impl<O: Observer + ?Sized> Observer for Box<O> {
    fn interest(&self) -> Interest {
        (**self).interest()
    }

    fn on_event(&mut self, event: &Event<'_>) {
        (**self).on_event(event);
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        (**self).connect(poll);
    }
}

impl<I: Interceptor + ?Sized> Interceptor for Arc<I> {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        (**self).before(run)
    }

    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        (**self).observe(run, observers);
    }

    fn needs_telemetry(&self) -> bool {
        (**self).needs_telemetry()
    }

    fn needs_input(&self) -> bool {
        (**self).needs_input()
    }

    fn needs_progress(&self) -> bool {
        (**self).needs_progress()
    }
}

impl<I: Interceptor + ?Sized> Interceptor for Box<I> {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        (**self).before(run)
    }

    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        (**self).observe(run, observers);
    }

    fn needs_telemetry(&self) -> bool {
        (**self).needs_telemetry()
    }

    fn needs_input(&self) -> bool {
        (**self).needs_input()
    }

    fn needs_progress(&self) -> bool {
        (**self).needs_progress()
    }
}

/// `None` does nothing.
impl<I: Interceptor> Interceptor for Option<I> {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        self.iter().try_for_each(|one| one.before(run))
    }

    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        self.iter().for_each(|one| one.observe(run, observers));
    }

    fn needs_telemetry(&self) -> bool {
        self.iter().any(Interceptor::needs_telemetry)
    }

    fn needs_input(&self) -> bool {
        self.iter().any(Interceptor::needs_input)
    }

    fn needs_progress(&self) -> bool {
        self.iter().any(Interceptor::needs_progress)
    }
}

/// Calls all of them, in order. A panic in one counts as a panic of the whole.
impl<I: Interceptor> Interceptor for Vec<I> {
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        self.iter().try_for_each(|one| one.before(run))
    }

    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        self.iter().for_each(|one| one.observe(run, observers));
    }

    fn needs_telemetry(&self) -> bool {
        self.iter().any(Interceptor::needs_telemetry)
    }

    fn needs_input(&self) -> bool {
        self.iter().any(Interceptor::needs_input)
    }

    fn needs_progress(&self) -> bool {
        self.iter().any(Interceptor::needs_progress)
    }
}
