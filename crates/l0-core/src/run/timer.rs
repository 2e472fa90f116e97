//! Timer: Tokio's sleep, of the runtime that polls it, with errors in place of its panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::runtime::{self, Handle};
use tokio::task;
use tokio::time::{Instant, Sleep, sleep_until};

/// The runtime that polls is none of Tokio's, or has no timer, or was shut down.
#[derive(Debug)]
pub(super) struct NoTimer;

/// A run may be polled in one runtime after the other. A sleep belongs to the one that it was made
/// in, and never ends if nothing drives that one any more: where another one polls, it is made anew.
#[derive(Debug)]
pub(super) struct Timer {
    deadline: Instant,
    sleep: Pin<Box<Sleep>>,
    /// Where `sleep` was made.
    runtime: runtime::Id,
    /// In which task, if in any: a task stays in its runtime, and is asked for more cheaply.
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
        // A sleep panics when its runtime is being shut down.
        match catch_unwind(AssertUnwindSafe(|| self.sleep.as_mut().poll(cx))) {
            Ok(polled) => polled.map(Ok),
            Err(_) => Poll::Ready(Err(NoTimer)),
        }
    }

    /// Makes the sleep anew, if it belongs to another runtime than the one that polls.
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

/// Whether a runtime has a timer cannot be asked: it panics if not.
fn sleep(deadline: Instant) -> Result<Pin<Box<Sleep>>, NoTimer> {
    match catch_unwind(|| sleep_until(deadline)) {
        Ok(sleep) => Ok(Box::pin(sleep)),
        Err(_) => Err(NoTimer),
    }
}
