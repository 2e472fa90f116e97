//! Timer: a sleep of the Tokio runtime that polls it, with errors in place of panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{self, Handle};
use tokio::task;
use tokio::time::{Instant, Sleep, sleep_until};

/// The polling thread has no Tokio runtime, or its runtime has no timer or was shut down.
#[derive(Debug)]
pub(super) struct NoTimer;

/// A timer for runs that move between runtimes. A `Sleep` belongs to the runtime that created it,
/// and never ends if that runtime is no longer driven, so another runtime creates a new one.
#[derive(Debug)]
pub(super) struct Timer {
    deadline: Instant,
    sleep: Pin<Box<Sleep>>,
    /// The runtime that created `sleep`.
    runtime: runtime::Id,
    /// The task that created it, if any. A task stays in its runtime, and comparing task ids is
    /// cheaper.
    task: Option<task::Id>,
}

impl Timer {
    pub(super) fn new(deadline: Instant) -> Result<Self, NoTimer> {
        let runtime = current_runtime()?;
        Ok(Self {
            deadline,
            sleep: sleep(deadline)?,
            runtime,
            task: task::try_id(),
        })
    }

    pub(super) fn deadline(&self) -> Instant {
        self.deadline
    }

    pub(super) fn reset(&mut self, deadline: Instant) {
        self.deadline = deadline;
        self.sleep.as_mut().reset(deadline);
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoTimer>> {
        let task = task::try_id();
        if task.is_none() || task != self.task {
            if let Err(no_timer) = self.settle(task) {
                return Poll::Ready(Err(no_timer));
            }
        }
        // A sleep panics while its runtime is shutting down.
        match catch_unwind(AssertUnwindSafe(|| self.sleep.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(NoTimer)),
        }
    }

    /// Creates a new sleep if the current one belongs to another runtime.
    fn settle(&mut self, task: Option<task::Id>) -> Result<(), NoTimer> {
        let runtime = current_runtime()?;
        if runtime != self.runtime {
            self.sleep = sleep(self.deadline)?;
            self.runtime = runtime;
        }
        self.task = task;
        Ok(())
    }
}

fn current_runtime() -> Result<runtime::Id, NoTimer> {
    match Handle::try_current() {
        Ok(handle) => Ok(handle.id()),
        Err(_) => Err(NoTimer),
    }
}

/// Tokio has no query for a runtime's timer: creating a sleep panics without one.
fn sleep(deadline: Instant) -> Result<Pin<Box<Sleep>>, NoTimer> {
    match catch_unwind(|| sleep_until(deadline)) {
        Ok(sleep) => Ok(Box::pin(sleep)),
        Err(_) => Err(NoTimer),
    }
}
