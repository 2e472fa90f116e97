//! The ways to stop a run from outside: its handle and its `until` futures.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::ptr;
use std::sync::{Arc, PoisonError};
use std::task::{Context, RawWakerVTable, Wake, Waker};

use serde_json::Value;

use crate::end::End;
use crate::metadata::Metadata;
use crate::progress::{Cells, Progress};
use crate::sync::{AtomicU8, Mutex, MutexGuard, OnceLock, Ordering};
use crate::telemetry::Telemetry;
use crate::verdict::Outcome;

/// The run was asked to stop.
const ABORTED: u8 = 1;
/// An `until` future was woken, or has not been polled yet.
const UNTIL_WOKEN: u8 = 2;
/// The run has ended.
const ENDED: u8 = 4;
/// The run must run extra code at its next poll. This is not a request to stop.
const PENDING_WORK: u8 = 8;

/// State that a run shares with its handles.
///
/// The flags come first, next to the counts of the `Arc`, because each token touches only these.
#[derive(Debug, Default)]
#[repr(C)]
pub(crate) struct Signal {
    flags: AtomicU8,
    /// The task that polls the run. It stays registered when it is woken, so a run that is always
    /// polled by the same task registers it once.
    task: Mutex<Option<Waker>>,
    /// The metadata that was set while the run is live.
    metadata: Mutex<Metadata>,
    end: OnceLock<Final>,
    /// `None` if no interceptor needs it.
    progress: Option<Arc<Cells>>,
}

/// The result of a run that has ended.
#[derive(Debug)]
pub(crate) struct Final {
    pub(crate) end: End,
    /// Boxed, because a live run does not have it yet.
    pub(crate) telemetry: Option<Box<Telemetry>>,
}

impl Signal {
    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Release);
        // Woken without the lock, because wakers run foreign code.
        let task = self.task().clone();
        if let Some(task) = task {
            task.wake();
        }
    }

    fn task(&self) -> MutexGuard<'_, Option<Waker>> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn metadata(&self) -> MutexGuard<'_, Metadata> {
        self.metadata.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes the run when an `until` future is woken.
impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.raise(UNTIL_WOKEN);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.raise(UNTIL_WOKEN);
    }
}

/// A handle that stops a run from any thread or task, and returns how it ended. Cheap to clone.
///
/// An abort wakes the run's task, and takes effect when the run is polled next or dropped. Nothing
/// happens while the run is not polled.
#[derive(Clone)]
pub struct RunHandle(Arc<Signal>);

impl RunHandle {
    /// Asks the run to stop. It ends as aborted, unless it has already ended.
    pub fn abort(&self) {
        self.0.raise(ABORTED);
    }

    /// Sets a metadata entry that becomes known while the run is live. It replaces an entry with
    /// the same key.
    ///
    /// The entry is part of telemetry and of [`Event::Finished`](crate::Event::Finished), but not
    /// of any metric's labels, which are fixed when the run starts. Has no effect once the run has
    /// ended.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        if !self.is_finished() {
            self.0.metadata().insert(key, value);
        }
    }

    /// Returns `true` if the run has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.end.get().is_some()
    }

    /// Returns the progress of the run. Can be called from any thread, also while the run is not
    /// polled.
    ///
    /// `None` unless an interceptor [needs](crate::Interceptor::needs_progress) it, and once the
    /// run has ended.
    #[must_use]
    pub fn progress(&self) -> Option<Progress> {
        self.0.progress.as_ref()?.read()
    }

    /// Returns how and why the run ended; `None` while it is live.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        Some(self.0.end.get()?.end.clone())
    }

    /// Returns the outcome; `None` while the run is live.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        Some(self.0.end.get()?.end.outcome())
    }

    /// Returns the final telemetry. `None` before the end, and if the run is not measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.0.end.get()?.telemetry.as_deref().cloned()
    }
}

impl fmt::Debug for RunHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunHandle")
            .field("is_finished", &self.is_finished())
            .finish_non_exhaustive()
    }
}

pub(crate) type Until<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// The run's side: checks for requests to stop, and publishes the end.
///
/// The signal comes last, next to the other fields that each token touches.
#[repr(C)]
pub(crate) struct Stop<'a> {
    until: Vec<Until<'a>>,
    /// `true` if the futures were polled, and so can have been woken.
    polled: bool,
    /// The task in the signal, cached here because comparing it takes no lock.
    task: Option<Task>,
    signal: Arc<Signal>,
}

/// The task that polled, identified by its waker.
struct Task {
    waker: Waker,
    /// The table of the original waker. The table of the clone in `waker` can differ, because each
    /// crate that polls through a generic function can have its own table.
    table: &'static RawWakerVTable,
}

impl Task {
    fn of(waker: &Waker) -> Self {
        Self {
            waker: waker.clone(),
            table: waker.vtable(),
        }
    }

    /// Returns `true` if this is known to be the same task. The clone keeps the task alive, so no
    /// other task can have its address.
    #[inline]
    fn is(&self, other: &Waker) -> bool {
        self.waker.data() == other.data() && ptr::eq(self.table, other.vtable())
    }
}

impl<'a> Stop<'a> {
    pub(crate) fn new(until: Vec<Until<'a>>, progress: Option<Arc<Cells>>) -> Self {
        let signal = Signal {
            progress,
            ..Signal::default()
        };
        if !until.is_empty() {
            signal.flags.store(UNTIL_WOKEN, Ordering::Relaxed);
        }
        Self {
            signal: Arc::new(signal),
            until,
            polled: false,
            task: None,
        }
    }

    pub(crate) fn handle(&self) -> RunHandle {
        RunHandle(Arc::clone(&self.signal))
    }

    /// Returns `true` if any flag is set that must be handled: one atomic load.
    #[inline]
    pub(crate) fn signaled(&self) -> bool {
        self.signal.flags.load(Ordering::Acquire) != 0
    }

    /// Sets or clears the flag for extra code at the next poll. [`signaled`](Self::signaled) then
    /// returns `true`. This shares the flags because every poll loads them anyway.
    #[cold]
    pub(crate) fn set_pending_work(&self, pending: bool) {
        if pending {
            self.signal.flags.fetch_or(PENDING_WORK, Ordering::Relaxed);
        } else {
            self.signal
                .flags
                .fetch_and(!PENDING_WORK, Ordering::Relaxed);
        }
    }

    /// Returns `true` if the run was asked to stop. One atomic load, unless a flag is set.
    #[inline]
    pub(crate) fn requested(&mut self) -> bool {
        match self.signal.flags.load(Ordering::Acquire) & !PENDING_WORK {
            0 => false,
            flags => self.check(flags),
        }
    }

    /// Returns `true` if the run was asked to stop before it was dropped. A future that has never
    /// been polled is not polled here either, because it can need a context that no longer exists.
    pub(crate) fn requested_before_drop(&mut self) -> bool {
        let flags = self.signal.flags.load(Ordering::Acquire) & !PENDING_WORK;
        flags & ABORTED != 0 || flags != 0 && self.polled && self.check(flags)
    }

    #[cold]
    fn check(&mut self, flags: u8) -> bool {
        if flags & ABORTED != 0 {
            return true;
        }
        self.polled = true;
        // The flag is cleared before polling, because a wake during the poll sets it again.
        self.signal.flags.fetch_and(!UNTIL_WOKEN, Ordering::AcqRel);
        let waker = Waker::from(Arc::clone(&self.signal));
        let mut context = Context::from_waker(&waker);
        let mut polled = self
            .until
            .iter_mut()
            .map(|until| until.as_mut().poll(&mut context));
        let reached = polled.any(|poll| poll.is_ready());
        if reached {
            self.signal.flags.fetch_or(ABORTED, Ordering::Release);
        }
        reached
    }

    /// Returns the metadata that was set while the run is live.
    pub(crate) fn metadata(&self) -> Metadata {
        self.signal.metadata().clone()
    }

    /// Registers the task to wake when the run is asked to stop. Does nothing if it is already
    /// registered.
    #[inline]
    pub(crate) fn register(&mut self, task: &Waker) {
        let same = self.task.as_ref().is_some_and(|current| current.is(task));
        if !same {
            self.register_new(task);
        }
    }

    #[cold]
    fn register_new(&mut self, task: &Waker) {
        let shared = task.clone();
        self.task = Some(Task::of(task));
        let before = self.signal.task().replace(shared);
        drop(before); // without the lock
    }

    /// Drops the task, so a handle that is kept does not keep it alive. Can run foreign code,
    /// because wakers do when they are dropped.
    pub(crate) fn forget_task(&mut self) {
        let shared = self.signal.task().take();
        drop((self.task.take(), shared)); // both, without the lock
    }

    /// Publishes the end to the handles. Only the first call has an effect.
    pub(crate) fn publish(&mut self, end: Final) -> &Final {
        self.signal.flags.fetch_or(ENDED, Ordering::Release);
        if let Some(progress) = &self.signal.progress {
            progress.end();
        }
        self.signal.end.get_or_init(|| end)
    }

    /// Returns how the run ended, if it has.
    pub(crate) fn end(&self) -> Option<&Final> {
        self.signal.end.get()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts its wake-ups.
    #[derive(Default)]
    struct Task(AtomicU32);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Task>, Waker) {
        let task = Arc::new(Task::default());
        (Arc::clone(&task), task.into())
    }

    #[test]
    fn a_task_that_is_registered_once_is_woken_every_time() {
        let (task, waker) = task();
        let mut stop = Stop::new(vec![Box::pin(std::future::pending())], None);
        for woken in 1..=3 {
            stop.register(&waker);
            stop.signal.raise(UNTIL_WOKEN);
            assert_eq!(task.0.load(Ordering::Relaxed), woken);
            assert!(stop.signaled());
            assert!(!stop.requested());
            assert!(!stop.signaled());
        }
    }

    #[test]
    fn only_the_last_task_is_woken_and_the_others_are_dropped() {
        let (first, waker) = task();
        let (second, other) = task();
        let mut stop = Stop::new(Vec::new(), None);
        stop.register(&waker);
        stop.register(&other);
        drop(waker);
        assert_eq!(Arc::strong_count(&first), 1);
        stop.handle().abort();
        assert_eq!(first.0.load(Ordering::Relaxed), 0);
        assert_eq!(second.0.load(Ordering::Relaxed), 1);

        let handle = stop.handle();
        drop(other);
        stop.forget_task();
        stop.publish(Final {
            end: End::dropped(),
            telemetry: None,
        });
        assert_eq!(Arc::strong_count(&second), 1);
        handle.abort(); // wakes no task
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }
}
