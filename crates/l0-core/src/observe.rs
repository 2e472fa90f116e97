//! Interceptor and Observer: how code outside of a run takes part in it and watches it.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::end::End;
use crate::error::Refusal;
use crate::event::Event;
use crate::keep::KeepReason;
use crate::keys;
use crate::metadata::Metadata;
use crate::source::Description;
use crate::telemetry::{Telemetry, Timestamp};

/// Takes part in every run of an [`L0`](crate::L0): shared by all of them, and the maker of the
/// [`Observer`]s that belong to one.
///
/// Both hooks are called inside `start()`, on the caller's thread and so in the caller's context:
/// first [`before`](Self::before) of every interceptor in the order of registration, then
/// [`observe`](Self::observe) of every interceptor. Nothing of the source has been called yet.
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
    /// A [`Refusal`] ends the run as failed, before the source is called; the interceptors after
    /// this one are not asked. A panic here is a refusal too.
    fn before(&self, run: &mut NewRun) -> Result<(), Refusal> {
        let _ = run;
        Ok(())
    }

    /// Adds the observers of a run that starts. A panic here is contained and counted; observers
    /// added before it stay.
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        let _ = (run, observers);
    }

    /// Whether the interceptor is of no use without telemetry. If so, monitoring is on by default
    /// in every [`L0`](crate::L0) and run that it is added to; an explicit setting wins.
    fn needs_telemetry(&self) -> bool {
        false
    }

    /// Whether the interceptor sends what is asked: the prompt. If so, each source of a run is asked for
    /// its [input](crate::Source::input) when the run starts, and
    /// [`RunInfo::source`] has it. Nothing of it is sent or kept by L0 itself.
    fn needs_input(&self) -> bool {
        false
    }
}

/// Watches one run. It cannot change the run, nor fail it.
///
/// All calls come from whatever thread starts, polls or drops the run, one at a time, with the run
/// waiting: they must not block. The last one, [`Event::Finished`], may come from the run's `Drop`,
/// even while a runtime shuts down, so it must not spawn tasks. A panic in any call, or in the
/// observer's own `Drop`, is contained and counted, and the observer is dropped; the run and the
/// other observers go on.
pub trait Observer: Send {
    /// Which events to deliver. Asked once, when the run starts.
    fn interest(&self) -> Interest {
        Interest::LIFECYCLE
    }

    /// Something happened to the run.
    fn on_event(&mut self, event: &Event<'_>);

    /// Surrounds each poll of the future that the source's factory returned, the first one together
    /// with the factory's call (not the polls of the stream): enter a context, call `poll` once,
    /// leave the context.
    fn connect(&mut self, poll: &mut dyn FnMut()) {
        poll();
    }
}

/// Which events an observer wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interest(Level);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Level {
    Lifecycle,
    Tokens,
}

impl Interest {
    /// Every event but [`Event::Token`] and [`Event::Answer`].
    pub const LIFECYCLE: Self = Self(Level::Lifecycle);
    /// Every event, [`Event::Token`] and [`Event::Answer`] included.
    pub const TOKENS: Self = Self(Level::Tokens);
}

/// A run that is about to start, as [`Interceptor::before`] sees it.
#[derive(Debug)]
pub struct NewRun {
    metadata: Metadata,
}

impl NewRun {
    pub(crate) fn new(metadata: Metadata) -> Self {
        Self { metadata }
    }

    /// Returns the metadata so far: that of the `L0`, the run's own over it, and what interceptors before
    /// this one set.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Sets one entry of the metadata, over an entry of the same key.
    pub fn set_metadata(&mut self, key: impl Into<String>, value: impl Into<Value>) {
        self.metadata.insert(key.into(), value.into());
    }

    pub(crate) fn into_metadata(mut self) -> Metadata {
        keys::redact_endpoint(&mut self.metadata);
        self.metadata
    }
}

/// What is known of a run from its start on, whether or not it is measured. Cheap to clone.
#[derive(Clone)]
pub struct RunInfo(Arc<Info>);

struct Info {
    known: Known,
    panics: AtomicU64,
    all_panics: Arc<AtomicU64>,
}

/// What is known of a source of a run before it is called.
///
/// `Debug` leaves the input out.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct SourceInfo {
    /// The metadata of its attempts: that of the run, and over it what the source says of itself. The
    /// entries `model`, `provider` and `operation` of the run are those of its first source.
    pub metadata: Metadata,
    /// What it says of its request.
    pub description: Description,
    /// What it asks; absent unless an interceptor [needs](Interceptor::needs_input) it, and if it is not
    /// known.
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

/// What a [`RunInfo`] is made of.
pub(crate) struct Known {
    pub(crate) id: Arc<str>,
    pub(crate) parent_id: Option<Arc<str>>,
    pub(crate) metadata: Metadata,
    pub(crate) source: SourceInfo,
    pub(crate) fallbacks: Vec<SourceInfo>,
    pub(crate) is_call: bool,
    pub(crate) started_at: Timestamp,
    pub(crate) measured: bool,
}

impl RunInfo {
    pub(crate) fn new(known: Known, all_panics: Arc<AtomicU64>) -> Self {
        Self(Arc::new(Info {
            known,
            panics: AtomicU64::new(0),
            all_panics,
        }))
    }

    /// Returns the run's id: the `sessionId` of its telemetry.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.0.known.id
    }

    /// Returns the run's metadata, as it was at the start: that of the `L0`, the run's own over it, what its first source
    /// says of itself, then what interceptors set.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.0.known.metadata
    }

    /// Returns the id of the run that this one serves; absent if it serves none: see
    /// [`parent`](crate::RunBuilder::parent).
    #[must_use]
    pub fn parent_id(&self) -> Option<&str> {
        self.0.known.parent_id.as_deref()
    }

    /// Returns whether the run is a call, whose answer comes as one: see [`L0::call`](crate::L0::call).
    #[must_use]
    pub fn is_call(&self) -> bool {
        self.0.known.is_call
    }

    /// Returns what is known of a source, by its number from 1; absent if the run has none of this
    /// number.
    #[must_use]
    pub fn source(&self, number: u32) -> Option<&SourceInfo> {
        match number.checked_sub(2) {
            Some(index) => self.0.known.fallbacks.get(index as usize),
            None if number == 1 => Some(&self.0.known.source),
            None => None,
        }
    }

    /// Iterates over the sources: first the run's own, then its fallbacks.
    pub fn sources(&self) -> impl Iterator<Item = &SourceInfo> {
        std::iter::once(&self.0.known.source).chain(&self.0.known.fallbacks)
    }

    pub(crate) fn shared_id(&self) -> Arc<str> {
        Arc::clone(&self.0.known.id)
    }

    /// Returns when the run started, by the wall clock.
    #[must_use]
    pub fn started_at(&self) -> Timestamp {
        self.0.known.started_at
    }

    /// Returns whether the run is measured: monitoring is on and the run was sampled.
    #[must_use]
    pub fn measured(&self) -> bool {
        self.0.known.measured
    }

    /// Returns how many panics of this run's observers were contained so far.
    #[must_use]
    pub fn observer_panics(&self) -> u64 {
        self.0.panics.load(Ordering::Relaxed)
    }

    fn count_panic(&self) {
        self.0.panics.fetch_add(1, Ordering::Relaxed);
        self.0.all_panics.fetch_add(1, Ordering::Relaxed);
    }

    /// Runs code of an observer. A panic is counted and gives `None`.
    pub(crate) fn contain<R>(&self, code: impl FnOnce() -> R) -> Option<R> {
        let value = contain(code);
        if value.is_none() {
            self.count_panic();
        }
        value
    }
}

/// Runs foreign code. A panic gives `None`.
pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Option<R> {
    catch_unwind(AssertUnwindSafe(code)).map_err(discard).ok()
}

/// Drops a panic's payload, whose own `Drop` may panic as well.
fn discard(payload: Box<dyn std::any::Any + Send>) {
    if let Err(another) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        // Someone throws values that throw values: keep this one rather than go on for ever.
        std::mem::forget(another);
    }
}

impl fmt::Debug for RunInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunInfo")
            .field("id", &self.0.known.id)
            .field("metadata", &self.0.known.metadata)
            .field("started_at", &self.0.known.started_at)
            .field("measured", &self.0.known.measured)
            .field("sources", &(1 + self.0.known.fallbacks.len()))
            .finish_non_exhaustive()
    }
}

/// The observers of one run.
pub struct Observers {
    run: RunInfo,
    slots: Vec<Slot>,
    want_tokens: bool,
}

struct Slot {
    observer: Box<dyn Observer>,
    interest: Interest,
}

impl Observers {
    pub(crate) fn new(run: RunInfo) -> Self {
        Self {
            run,
            slots: Vec::new(),
            want_tokens: false,
        }
    }

    /// Adds an observer and asks for its interest. Events reach observers in the order in which
    /// they were added.
    pub fn push(&mut self, observer: impl Observer + 'static) {
        let observer: Box<dyn Observer> = Box::new(observer);
        match self.run.contain(|| observer.interest()) {
            Some(interest) => {
                self.want_tokens |= interest == Interest::TOKENS;
                self.slots.push(Slot { observer, interest });
            }
            None => self.discard(observer),
        }
    }

    /// Adds an observer that calls `f` once, when the run has ended.
    pub fn on_finish(&mut self, f: impl FnMut(&Finished<'_>) + Send + 'static) {
        let run = self.run.clone();
        self.push(FinishObserver { on_finish: f, run });
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

    /// Delivers what says text to the observers that asked for it.
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

    /// Calls `poll` exactly once, inside every observer's `connect`. A panic of `poll` goes on
    /// past the observers, none of which is blamed for it.
    pub(crate) fn connect(&mut self, mut poll: impl FnMut()) {
        if self.slots.is_empty() {
            return poll();
        }
        let mut polled = Ok(());
        let mut caught = || polled = catch_unwind(AssertUnwindSafe(&mut poll));
        let mut panicked = vec![false; self.slots.len()];
        nest(&self.run, &mut self.slots, &mut panicked, &mut caught);
        for index in (0..panicked.len()).rev().filter(|index| panicked[*index]) {
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

    /// Drops all observers, each by itself.
    pub(crate) fn clear(&mut self) {
        self.want_tokens = false;
        for slot in std::mem::take(&mut self.slots) {
            self.discard(slot.observer);
        }
    }
}

/// Calls `poll` once, inside the `connect` of each of the observers, the first outermost.
fn nest(run: &RunInfo, slots: &mut [Slot], panicked: &mut [bool], poll: &mut dyn FnMut()) {
    let (Some((slot, slots)), Some((failed, panicked))) =
        (slots.split_first_mut(), panicked.split_first_mut())
    else {
        return poll();
    };
    let mut called = false;
    let mut rest = || {
        if !std::mem::replace(&mut called, true) {
            nest(run, slots, panicked, poll);
        }
    };
    *failed = run.contain(|| slot.observer.connect(&mut rest)).is_none();
    // It may have panicked before it called on, or not have called at all.
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

/// A run that has ended, as [`on_finish`] sees it.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// What was known of the run from its start on.
    pub run: &'a RunInfo,
    /// How and why it ended.
    pub end: &'a End,
    /// The final telemetry; absent in a run that is not measured.
    pub telemetry: Option<&'a Telemetry>,
    /// The metadata of the run, with what was [set](crate::RunHandle::set_metadata) while it was live.
    pub metadata: &'a Metadata,
    /// Why the run is to be told by itself; absent if it is not: see
    /// [`Monitoring::keep`](crate::Monitoring::keep). What counts runs counts them all.
    pub kept: Option<KeepReason>,
}

struct FinishObserver<F> {
    on_finish: F,
    run: RunInfo,
}

impl<F: FnMut(&Finished<'_>) + Send> Observer for FinishObserver<F> {
    fn on_event(&mut self, event: &Event<'_>) {
        if let Event::Finished {
            end,
            telemetry,
            metadata,
            kept,
            ..
        } = *event
        {
            (self.on_finish)(&Finished {
                run: &self.run,
                end,
                telemetry,
                metadata,
                kept,
            });
        }
    }
}

/// Creates an interceptor that calls `f` once for every run, when it has ended.
///
/// `f` is called on every exit, on whatever thread polls or drops the run. It must not block: the last
/// item of the run is handed out when it returns. The telemetry is there if the run is measured: switch
/// monitoring on.
///
/// ```
/// use l0_core::{L0, Monitoring, on_finish};
///
/// let l0 = L0::builder()
///     .monitoring(Monitoring::new())
///     .interceptor(on_finish(|finished| {
///         if let Some(message) = finished.end.message() {
///             eprintln!("{} did not complete: {message}", finished.run.id());
///         }
///     }))
///     .build();
/// # drop(l0);
/// ```
pub fn on_finish<F>(f: F) -> OnFinish<F>
where
    F: Fn(&Finished<'_>) + Send + Sync + 'static,
{
    OnFinish(Arc::new(f))
}

/// The interceptor that [`on_finish`] creates.
#[must_use]
pub struct OnFinish<F>(Arc<F>);

impl<F> Interceptor for OnFinish<F>
where
    F: Fn(&Finished<'_>) + Send + Sync + 'static,
{
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        let f = Arc::clone(&self.0);
        observers.on_finish(move |finished| f(finished));
    }
}

impl<F> fmt::Debug for OnFinish<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnFinish").finish_non_exhaustive()
    }
}

/// Creates an interceptor that calls `on_event` for every event of every run.
///
/// ```
/// use l0_core::{Event, L0, observe_fn};
///
/// let l0 = L0::builder()
///     .interceptor(observe_fn(|run, event| {
///         if let Event::Retry { reason, .. } = event {
///             eprintln!("{} tries again: {reason}", run.id());
///         }
///     }))
///     .build();
/// # drop(l0);
/// ```
pub fn observe_fn<F>(on_event: F) -> ObserveFn<F>
where
    F: Fn(&RunInfo, &Event<'_>) + Send + Sync + 'static,
{
    ObserveFn {
        on_event: Arc::new(on_event),
        interest: Interest::TOKENS,
        filter: None,
    }
}

/// The interceptor that [`observe_fn`] makes.
#[must_use]
pub struct ObserveFn<F> {
    on_event: Arc<F>,
    interest: Interest,
    filter: Option<Filter>,
}

type Filter = Arc<dyn Fn(&Event<'_>) -> bool + Send + Sync>;

impl<F> ObserveFn<F> {
    /// Calls the function only for the events that `wanted` accepts.
    pub fn filter(mut self, wanted: impl Fn(&Event<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(wanted));
        self
    }

    /// Sets which events are delivered at all. Without [`Event::Token`] a token costs nothing.
    pub fn interest(mut self, interest: Interest) -> Self {
        self.interest = interest;
        self
    }
}

impl<F> Interceptor for ObserveFn<F>
where
    F: Fn(&RunInfo, &Event<'_>) + Send + Sync + 'static,
{
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(FnObserver {
            on_event: Arc::clone(&self.on_event),
            interest: self.interest,
            filter: self.filter.clone(),
            run: run.clone(),
        });
    }
}

impl<F> fmt::Debug for ObserveFn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObserveFn").finish_non_exhaustive()
    }
}

struct FnObserver<F> {
    on_event: Arc<F>,
    interest: Interest,
    filter: Option<Filter>,
    run: RunInfo,
}

impl<F> Observer for FnObserver<F>
where
    F: Fn(&RunInfo, &Event<'_>) + Send + Sync + 'static,
{
    fn interest(&self) -> Interest {
        self.interest
    }

    fn on_event(&mut self, event: &Event<'_>) {
        if self.filter.as_ref().is_none_or(|wanted| wanted(event)) {
            (self.on_event)(&self.run, event);
        }
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
}

/// All of them, in order. A panic in one counts as one of the whole.
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
}
