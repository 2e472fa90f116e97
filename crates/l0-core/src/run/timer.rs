//! Timer: Tokio's sleep, with errors in place of its panics.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::runtime::Handle;
use tokio::time::{Instant, Sleep, sleep_until};

/// There is no Tokio runtime with its timer enabled, or it was shut down.
#[derive(Debug)]
pub(super) struct NoTimer;

#[derive(Debug)]
pub(super) struct Timer(Pin<Box<Sleep>>);

impl Timer {
    pub(super) fn new(deadline: Instant) -> Result<Self, NoTimer> {
        // Asking first keeps the usual case, no runtime at all, free of a panic's message.
        Handle::try_current().map_err(|_| NoTimer)?;
        // The runtime may have no timer, which cannot be asked for.
        let sleep = catch_unwind(|| sleep_until(deadline)).map_err(|_| NoTimer)?;
        Ok(Self(Box::pin(sleep)))
    }

    pub(super) fn deadline(&self) -> Instant {
        self.0.deadline()
    }

    pub(super) fn reset(&mut self, deadline: Instant) {
        self.0.as_mut().reset(deadline);
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), NoTimer>> {
        // A sleep panics when its runtime has been shut down.
        let polled = catch_unwind(AssertUnwindSafe(|| self.0.as_mut().poll(cx)));
        match polled {
            Ok(poll) => {
                ready!(poll);
                Poll::Ready(Ok(()))
            }
            Err(_) => Poll::Ready(Err(NoTimer)),
        }
    }
}
