//! Live: the list of live runs. Only a run's start and its end touch it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use slab::Slab;
use tokio::time::Instant;

use crate::clock;
use crate::observe::contain;
use crate::stop::RunHandle;
use crate::sync::{Mutex, MutexGuard};

/// The live runs of an `L0`, its clones and its variants: those that have started and not ended.
#[derive(Default)]
pub(crate) struct LiveRuns(Mutex<List>);

#[derive(Default)]
struct List {
    runs: Slab<LiveRun>,
    /// The tasks that wait until no run is live, by a number that is never reused.
    waiting: BTreeMap<u64, Waker>,
    next_number: u64,
}

struct LiveRun {
    handle: RunHandle,
    started: Instant,
}

// Wakers run foreign code when they are cloned, woken or dropped, so that happens without the lock.
impl LiveRuns {
    /// Adds a run, until its place is dropped.
    pub(crate) fn enter(self: &Arc<Self>, handle: RunHandle, started: Instant) -> Place {
        let place = self.list().runs.insert(LiveRun { handle, started });
        Place {
            runs: Arc::clone(self),
            place,
        }
    }

    fn leave(&self, place: usize) {
        let mut list = self.list();
        let run = list.runs.try_remove(place);
        let waiting = if list.runs.is_empty() {
            std::mem::take(&mut list.waiting)
        } else {
            BTreeMap::new()
        };
        drop(list);
        drop(run);
        for task in waiting.into_values() {
            // A run can end inside a `Drop`, from which a panic must not escape.
            let _ = contain(|| task.wake());
        }
    }

    /// Returns the number of live runs.
    pub(crate) fn count(&self) -> usize {
        self.list().runs.len()
    }

    /// Returns how long the oldest live run has been live, or `None` if no run is.
    pub(crate) fn oldest(&self) -> Option<Duration> {
        let list = self.list();
        let started = list.runs.iter().map(|(_, run)| run.started).min();
        drop(list);
        let started = started?;
        Some(clock::now().saturating_duration_since(started))
    }

    /// Asks all runs that are live now to stop.
    pub(crate) fn abort_all(&self) {
        let list = self.list();
        let handles: Vec<_> = list
            .runs
            .iter()
            .map(|(_, run)| run.handle.clone())
            .collect();
        drop(list);
        for handle in handles {
            // A panic of one task's waker must not keep the other runs from being aborted.
            let _ = contain(|| handle.abort());
        }
    }

    /// Returns a future that is ready once no run is live.
    pub(crate) fn ended(self: &Arc<Self>) -> Ended {
        Ended {
            runs: Arc::clone(self),
            number: None,
        }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LiveRuns {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LiveRuns").field(&self.count()).finish()
    }
}

/// A run's place in the list: the run is live until this is dropped.
#[derive(Debug)]
pub(crate) struct Place {
    runs: Arc<LiveRuns>,
    place: usize,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.runs.leave(self.place);
    }
}

/// Waits until no run is live.
#[derive(Debug)]
pub(crate) struct Ended {
    runs: Arc<LiveRuns>,
    /// The number under which its task waits; `None` before the first poll.
    number: Option<u64>,
}

impl Future for Ended {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let task = cx.waker().clone();
        let Self { runs, number } = &mut *self;
        let mut list = runs.list();
        if list.runs.is_empty() {
            drop(list);
            return Poll::Ready(());
        }
        let number = *number.get_or_insert_with(|| {
            list.next_number += 1;
            list.next_number
        });
        let before = list.waiting.insert(number, task);
        drop(list);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let task = self.runs.list().waiting.remove(&number);
            drop(task);
        }
    }
}
