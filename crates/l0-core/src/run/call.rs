//! Call: a retried request with a single answer.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use serde_json::Value;

use super::Chunk;
use super::run::Run;
use crate::end::End;
use crate::error::{Error, SourceError};
use crate::observe::RunInfo;
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::verdict::Outcome;

/// A retried and measured request with a single answer. Created by [`L0::call`](crate::L0::call)
/// and [`L0::call_from`](crate::L0::call_from).
///
/// A call is a run like any other: it has retries and fallbacks, can be stopped, finishes exactly
/// once, and reports to interceptors. But its answer has no tokens to count, no first token and no
/// gaps, and an empty answer is not an error. Await the call by reference to read its telemetry
/// afterwards:
///
/// ```
/// use l0_core::{L0, Monitoring, TokenView, Usage};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # struct Reply { vectors: Vec<f32>, tokens: u64 }
/// # async fn embed() -> std::io::Result<Reply> { Ok(Reply { vectors: vec![0.1], tokens: 3 }) }
/// let l0 = L0::builder().monitoring(Monitoring::new()).build();
/// let mut call = l0
///     .call(|_attempt| embed())
///     .view_with(|reply: &Reply| TokenView::other().usage(Usage::new().input(reply.tokens)))
///     .start();
/// let reply = (&mut call).await?;
/// let usage = call.telemetry().and_then(|telemetry| telemetry.usage);
/// # assert_eq!(reply.vectors.len(), 1);
/// # assert_eq!(usage, Some(Usage::new().input(3)));
/// # Ok(())
/// # }
/// ```
#[must_use = "a call does nothing unless it is awaited"]
pub struct Call<'a, T, E> {
    run: Run<'a, T, E>,
    /// Kept until the run has ended, because its checks can discard it.
    answer: Option<T>,
}

// Nothing in it is pinned.
impl<T, E> Unpin for Call<'_, T, E> {}

impl<'a, T, E> Call<'a, T, E> {
    pub(super) fn new(run: Run<'a, T, E>) -> Self {
        Self { run, answer: None }
    }

    /// Returns the call's information, known from its start on.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        self.run.info()
    }

    /// Returns what was measured so far; final once the call has ended. `None` if the call is not
    /// measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.run.telemetry()
    }

    /// Returns the outcome; `None` while the call is live.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.run.outcome()
    }

    /// Returns how and why the call ended; `None` while it is live.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.run.end()
    }

    /// Returns a handle that can stop the call from any thread or task.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.run.handle()
    }

    /// Sets a metadata entry while the call is live: see [`RunHandle::set_metadata`].
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.run.set_metadata(key, value);
    }
}

/// Resolves to the answer, or to the error that the call failed with. Awaiting the call again
/// returns [`Error::Ended`].
impl<T, E: SourceError> Future for Call<'_, T, E> {
    type Output = Result<T, Error<E>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { run, answer } = &mut *self;
        if let Some(end) = run.final_end() {
            return Poll::Ready(Err(Error::Ended(end.clone())));
        }
        while let Some(chunk) = ready!(run.poll_chunk(cx)) {
            match chunk {
                Ok(Chunk::Item(item)) => *answer = Some(item),
                Ok(Chunk::Restart { .. }) => *answer = None,
                Err(error) => {
                    *answer = None;
                    return Poll::Ready(Err(error));
                }
            }
        }
        Poll::Ready(answer.take().ok_or_else(|| {
            let end = run.end().cloned();
            Error::Ended(end.unwrap_or(End::completed()))
        }))
    }
}

impl<T, E> fmt::Debug for Call<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("info", self.info())
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}
