//! What can stop a run from outside: its handle and its `until` futures.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Wake, Waker};

use serde_json::Value;

use crate::end::End;
use crate::metadata::Metadata;
use crate::sync::{AtomicU8, Mutex, MutexGuard, OnceLock, Ordering};
use crate::telemetry::Telemetry;
use crate::verdict::Outcome;

/// Somebody asked the run to stop.
const ABORTED: u8 = 1;
/// An `until` future was woken, or not polled yet.
const UNTIL_WOKEN: u8 = 2;
/// The run has ended.
const ENDED: u8 = 4;
/// The run itself has something to look at when it is polled. Nobody asked it to stop.
const LOOK: u8 = 8;

/// What a run shares with its handles.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    flags: AtomicU8,
    /// The task that polls the run. It stays when it is woken, so that a run that is always polled by
    /// the same task registers it once.
    task: Mutex<Option<Waker>>,
    /// What was set while the run is live.
    metadata: Mutex<Metadata>,
    /// Boxed: while a run is live it has no end yet.
    end: OnceLock<Box<Final>>,
}

/// What is known of a run that has ended.
#[derive(Debug)]
pub(crate) struct Final {
    pub(crate) end: End,
    pub(crate) telemetry: Option<Telemetry>,
}

impl Signal {
    fn raise(&self, flag: u8) {
        self.flags.fetch_or(flag, Ordering::Release);
        // Woken without the lock: what a waker does is foreign code.
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

/// Stops a run from anywhere, and tells how it ended. Cheap to clone.
///
/// An abort takes effect when the run is polled next, for which its task is woken, or when it is
/// dropped: nothing acts while nobody polls.
#[derive(Clone)]
pub struct RunHandle(Arc<Signal>);

impl RunHandle {
    /// Asks the run to stop. It ends as aborted, unless it has ended already.
    pub fn abort(&self) {
        self.0.raise(ABORTED);
    }

    /// Sets an entry of the run's metadata that has become known while it is live, over an entry of the
    /// same key. It reaches telemetry and [`Event::Finished`](crate::Event::Finished), but no label of a
    /// metric: those are fixed when the run starts. Once the run has ended it does nothing.
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        if !self.is_finished() {
            self.0.metadata().insert(key, value);
        }
    }

    /// Returns whether the run has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.0.end.get().is_some()
    }

    /// Returns how and why the run ended; absent while it runs.
    #[must_use]
    pub fn end(&self) -> Option<End> {
        Some(self.0.end.get()?.end.clone())
    }

    /// Returns how the run ended, in one word; absent while it runs.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        Some(self.0.end.get()?.end.outcome())
    }

    /// Returns the final telemetry. Absent before the end, and for a run that is not measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.0.end.get()?.telemetry.clone()
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

/// The run's side: asks whether it was told to stop, and says how it ended.
pub(crate) struct Stop<'a> {
    signal: Arc<Signal>,
    until: Vec<Until<'a>>,
    /// Whether the futures were polled, and so can have been woken.
    polled: bool,
    /// The task that the signal has, here too: comparing it takes no lock.
    task: Option<Waker>,
}

impl<'a> Stop<'a> {
    pub(crate) fn new(until: Vec<Until<'a>>) -> Self {
        let signal = Signal::default();
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

    /// Whether anything happened that has to be looked at: one atomic load.
    #[inline]
    pub(crate) fn signalled(&self) -> bool {
        self.signal.flags.load(Ordering::Acquire) != 0
    }

    /// Sets whether the run itself has something to look at when it is polled: then
    /// [`signalled`](Self::signalled) is true. It is here because a look at the flags is what every
    /// poll has to pay anyway.
    #[cold]
    pub(crate) fn set_look(&self, look: bool) {
        if look {
            self.signal.flags.fetch_or(LOOK, Ordering::Relaxed);
        } else {
            self.signal.flags.fetch_and(!LOOK, Ordering::Relaxed);
        }
    }

    /// Whether the run was told to stop. One atomic load, unless something happened.
    #[inline]
    pub(crate) fn requested(&mut self) -> bool {
        match self.signal.flags.load(Ordering::Acquire) & !LOOK {
            0 => false,
            flags => self.look(flags),
        }
    }

    /// Whether the run was told to stop before it was dropped. A future that nobody has polled is
    /// not polled now either: it may need a context that is gone.
    pub(crate) fn requested_before_drop(&mut self) -> bool {
        let flags = self.signal.flags.load(Ordering::Acquire) & !LOOK;
        flags & ABORTED != 0 || flags != 0 && self.polled && self.look(flags)
    }

    #[cold]
    fn look(&mut self, flags: u8) -> bool {
        if flags & ABORTED != 0 {
            return true;
        }
        self.polled = true;
        // Lower the flag before polling: a wake during the poll raises it again.
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

    /// Returns what was set of the metadata while the run is live.
    pub(crate) fn metadata(&self) -> Metadata {
        self.signal.metadata().clone()
    }

    /// Has this task woken when the run is told to stop. For the one of the last call nothing has to
    /// be done.
    #[inline]
    pub(crate) fn register(&mut self, task: &Waker) {
        let same = self
            .task
            .as_ref()
            .is_some_and(|known| known.will_wake(task));
        if !same {
            self.register_new(task);
        }
    }

    #[cold]
    fn register_new(&mut self, task: &Waker) {
        let shared = task.clone();
        self.task = Some(task.clone());
        let before = self.signal.task().replace(shared);
        drop(before); // without the lock
    }

    /// Lets go of the task, which a handle that is kept must not keep. May run foreign code: what a
    /// waker does when it is dropped.
    pub(crate) fn forget_task(&mut self) {
        let shared = self.signal.task().take();
        drop((self.task.take(), shared)); // both, without the lock
    }

    /// Makes the end known to the handles. Only the first one counts.
    pub(crate) fn publish(&mut self, end: Box<Final>) -> &Final {
        self.signal.flags.fetch_or(ENDED, Ordering::Release);
        self.signal.end.get_or_init(|| end)
    }

    /// How the run ended, if it has.
    pub(crate) fn end(&self) -> Option<&Final> {
        self.signal.end.get().map(|end| &**end)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Counts how often it is woken.
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
        let mut stop = Stop::new(vec![Box::pin(std::future::pending())]);
        for woken in 1..=3 {
            stop.register(&waker);
            stop.signal.raise(UNTIL_WOKEN);
            assert_eq!(task.0.load(Ordering::Relaxed), woken);
            assert!(stop.signalled());
            assert!(!stop.requested());
            assert!(!stop.signalled());
        }
    }

    #[test]
    fn only_the_last_task_is_woken_and_the_others_are_let_go() {
        let (first, waker) = task();
        let (second, other) = task();
        let mut stop = Stop::new(Vec::new());
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
        stop.publish(Box::new(Final {
            end: End::dropped(),
            telemetry: None,
        }));
        assert_eq!(Arc::strong_count(&second), 1);
        handle.abort(); // wakes nobody
        assert_eq!(second.0.load(Ordering::Relaxed), 1);
    }
}
