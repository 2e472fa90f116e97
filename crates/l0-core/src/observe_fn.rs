//! Closures as observers and interceptors.

use std::fmt;
use std::sync::Arc;

use crate::end::End;
use crate::event::Event;
use crate::keep::KeepReason;
use crate::metadata::Metadata;
use crate::observe::{Interceptor, Interest, Observer, Observers, RunInfo};
use crate::telemetry::Telemetry;

/// A run that has ended, passed to [`on_finish`].
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// The information known from the start of the run.
    pub run: &'a RunInfo,
    /// The outcome of the run, and its cause.
    pub end: &'a End,
    /// The final telemetry; `None` if the run is not measured.
    pub telemetry: Option<&'a Telemetry>,
    /// The metadata of the run, including what was [set](crate::RunHandle::set_metadata) while it
    /// was live.
    pub metadata: &'a Metadata,
    /// Why the run is exported individually; `None` if it is not: see
    /// [`Monitoring::keep`](crate::Monitoring::keep). Aggregated numbers include all runs.
    pub kept: Option<KeepReason>,
}

impl Observers {
    /// Adds an observer that calls `f` once, when the run has ended.
    pub fn on_finish(&mut self, f: impl FnMut(&Finished<'_>) + Send + 'static) {
        let run = self.run.clone();
        self.push(FinishObserver { on_finish: f, run });
    }
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
/// `f` is called however the run ends, on the thread that polls or drops the run. It must not
/// block, because the run's last item is yielded after it returns. Telemetry is present if the run
/// is measured: enable monitoring.
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

/// The interceptor created by [`on_finish`].
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
///             eprintln!("{} is retried: {reason}", run.id());
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

/// The interceptor created by [`observe_fn`].
#[must_use]
pub struct ObserveFn<F> {
    on_event: Arc<F>,
    interest: Interest,
    filter: Option<Filter>,
}

type Filter = Arc<dyn Fn(&Event<'_>) -> bool + Send + Sync>;

impl<F> ObserveFn<F> {
    /// Restricts the calls to the events that `wanted` accepts.
    pub fn filter(mut self, wanted: impl Fn(&Event<'_>) -> bool + Send + Sync + 'static) -> Self {
        self.filter = Some(Arc::new(wanted));
        self
    }

    /// Sets which events are delivered. A token costs nothing if [`Event::Token`] is not included.
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
