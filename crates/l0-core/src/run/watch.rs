//! Watched: a wrapper that only measures. Items, errors and their order stay the same.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::stream::{FusedStream, Stream};
use pin_project_lite::pin_project;
use serde_json::Value;

use super::attempt::{AttemptState, Verdict};
use crate::end::{Cause, End};
use crate::error::SourceError;
use crate::failure;
use crate::observe::RunInfo;
use crate::source::{ByToken, View};
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::verdict::Outcome;

pin_project! {
    /// A measured stream that is otherwise left unchanged. Created by
    /// [`L0::watch`](crate::L0::watch).
    ///
    /// Items and errors pass through unchanged. The wrapper can only end the stream: an abort ends
    /// it with `None`, and so does a refusal by an interceptor, before the first item.
    ///
    /// The run ends with the stream's first error or its end. Anything the stream yields later
    /// passes through without being measured. A missing finish reason or an empty answer only shows
    /// in the outcome.
    #[must_use = "streams do nothing unless polled"]
    pub struct Watched<S, V = ByToken> {
        attempt: AttemptState<'static>,
        view: V,
        closed: bool,
        #[pin]
        stream: S,
    }
}

impl<S, V> Watched<S, V> {
    pub(super) fn new(attempt: AttemptState<'static>, view: V, closed: bool, stream: S) -> Self {
        Self {
            attempt,
            view,
            closed,
            stream,
        }
    }

    /// Returns the run's information, known from its start on.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        self.attempt.recorder.info()
    }

    /// Returns what was measured so far; final once the run has ended. `None` if the run is not
    /// measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.attempt.recorder.telemetry()
    }

    /// Returns the outcome; `None` while the run is live. Also present if the run is not measured.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.end().map(End::outcome)
    }

    /// Returns how and why the run ended; `None` while it is live. Also present if the run is not
    /// measured.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.attempt.recorder.end()
    }

    /// Returns a handle that can end the stream from any thread or task.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.attempt.recorder.handle()
    }

    /// Sets a metadata entry while the run is live: see [`RunHandle::set_metadata`].
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.handle().set_metadata(key, value);
    }

    /// Returns a reference to the wrapped stream.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns the wrapped stream. A run that has not ended ends as dropped.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S, V, T, E> Stream for Watched<S, V>
where
    S: Stream<Item = Result<T, E>>,
    V: View<T>,
    E: SourceError,
{
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.project();
        if this.attempt.recorder.stop().signaled() {
            match next_poll(this.attempt, this.closed) {
                NextPoll::Measured => {}
                NextPoll::Unmeasured => return this.stream.poll_next(cx),
                NextPoll::Closed => return Poll::Ready(None),
            }
        }
        poll_measured(this.stream, this.view, this.attempt, this.closed, cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.closed {
            return (0, Some(0));
        }
        // An abort can end it at any time.
        (0, self.stream.size_hint().1)
    }
}

/// Polls the stream of a live run.
///
/// It has one return, so the item stays where the stream has written it. The processor stalls if it
/// copies an item right after it was written.
#[inline]
fn poll_measured<S, V, T, E>(
    stream: Pin<&mut S>,
    view: &V,
    attempt: &mut AttemptState<'static>,
    closed: &mut bool,
    cx: &mut Context<'_>,
) -> Poll<Option<S::Item>>
where
    S: Stream<Item = Result<T, E>>,
    V: View<T>,
    E: SourceError,
{
    let guard = OnUnwind(attempt);
    let mut polled = stream.poll_next(cx);
    match &polled {
        // Checks never halt a watched stream.
        Poll::Ready(Some(Ok(item))) => {
            let view = view.view(item);
            if !guard.0.token(&view) && guard.0.checked_token(&view).is_none() {
                guard.0.item(&{ view });
            }
        }
        Poll::Ready(Some(Err(error))) => failed(guard.0, error),
        Poll::Ready(None) => ended(guard.0),
        Poll::Pending => {
            // A watched stream has no deadlines.
            if guard.0.wait(false, cx).is_ready() {
                close(guard.0, closed);
                polled = Poll::Ready(None);
            }
        }
    }
    std::mem::forget(guard);
    polled
}

/// Finishes the run if a panic of the stream unwinds.
struct OnUnwind<'r>(&'r mut AttemptState<'static>);

impl Drop for OnUnwind<'_> {
    fn drop(&mut self) {
        self.0.recorder.finish(End::of(Cause::Panic), None);
    }
}

/// How the stream is polled.
enum NextPoll {
    Measured,
    /// The run has ended.
    Unmeasured,
    /// Not at all.
    Closed,
}

/// Returns how the stream is polled while a flag of the run is set.
#[cold]
fn next_poll(attempt: &mut AttemptState<'static>, closed: &mut bool) -> NextPoll {
    if attempt.recorder.finished() {
        return match closed {
            true => NextPoll::Closed,
            false => NextPoll::Unmeasured,
        };
    }
    let guard = OnUnwind(attempt);
    let requested = guard.0.recorder.stop().requested();
    if requested {
        close(guard.0, closed);
    }
    std::mem::forget(guard);
    match requested {
        true => NextPoll::Closed,
        false => NextPoll::Measured,
    }
}

/// Ends the stream after an abort.
#[cold]
fn close(attempt: &mut AttemptState<'static>, closed: &mut bool) {
    *closed = true;
    attempt.recorder.finish(End::of(Cause::Aborted), None);
}

/// Records an error of the stream.
#[cold]
fn failed<E: SourceError>(attempt: &mut AttemptState<'static>, error: &E) {
    let failure = failure::read(error);
    let recorder = &mut attempt.recorder;
    let message = recorder.message(error, &failure);
    if let Some(kind) = failure.network_error_kind() {
        recorder.network_error(kind, &message, None, attempt.number);
    }
    recorder.finish(End::of_source(failure, &message), Some(error));
}

/// Records the end of the stream.
#[cold]
fn ended(attempt: &mut AttemptState<'static>) {
    let end = match attempt.end() {
        Verdict::Failed(cause @ (Cause::Truncated | Cause::ZeroOutput)) => {
            if let Some(kind) = cause.failure().network_error_kind() {
                let recorder = &mut attempt.recorder;
                recorder.network_error(kind, &cause.to_string(), None, attempt.number);
            }
            End::of(cause)
        }
        // Findings are only recorded.
        Verdict::Complete | Verdict::Halt(_) | Verdict::Failed(_) => End::completed(),
    };
    attempt.recorder.finish(end, None);
}

impl<S, V, T, E> FusedStream for Watched<S, V>
where
    S: FusedStream<Item = Result<T, E>>,
    V: View<T>,
    E: SourceError,
{
    fn is_terminated(&self) -> bool {
        self.closed || self.stream.is_terminated()
    }
}

/// Omits the stream, because its own `Debug` can print buffered text.
impl<S, V> fmt::Debug for Watched<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("info", self.info())
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}
