//! Watched: the plain wrapper. Same items, same errors, same order; it only measures.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::stream::{FusedStream, Stream};
use pin_project_lite::pin_project;

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
    /// A stream that is measured and otherwise left alone: made by
    /// [`L0::watch`](crate::L0::watch).
    ///
    /// Items and errors pass as they are. Its one power is to end: an abort ends it with `None`,
    /// and so does the refusal of an interceptor, before the first item. The run ends with the
    /// stream's first error or its end; what the stream gives after that passes unmeasured. An end
    /// without the expected finish reason or without output shows in the outcome only.
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

    /// Returns what is known of the run from its start on.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        self.attempt.recorder.info()
    }

    /// Returns what was measured so far; final once the run has ended. Absent if the run is not
    /// measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.attempt.recorder.telemetry()
    }

    /// Returns how the run ended, in one word; absent while it runs. It is there whether or not the
    /// run is measured.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.end().map(End::outcome)
    }

    /// Returns how and why the run ended; absent while it runs. It is there whether or not the run is
    /// measured.
    #[must_use]
    pub fn end(&self) -> Option<&End> {
        self.attempt.recorder.end()
    }

    /// Returns a handle that ends the stream from anywhere.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.attempt.recorder.handle()
    }

    /// Returns the stream inside.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// Returns the stream inside. A run that has not ended ends as dropped.
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
        /// Finishes the run if a panic of the stream unwinds.
        struct OnUnwind<'r>(&'r mut AttemptState<'static>);

        impl Drop for OnUnwind<'_> {
            fn drop(&mut self) {
                self.0.recorder.finish(End::of(Cause::Panic), None);
            }
        }

        let this = self.project();
        if this.attempt.recorder.stop().signalled() {
            if this.attempt.recorder.finished() {
                if *this.closed {
                    return Poll::Ready(None);
                }
                return this.stream.poll_next(cx);
            }
            let guard = OnUnwind(this.attempt);
            let requested = guard.0.recorder.stop().requested();
            std::mem::forget(guard);
            if requested {
                return close(this.attempt, this.closed);
            }
        }
        let guard = OnUnwind(this.attempt);
        let polled = this.stream.poll_next(cx);
        match &polled {
            // A watched stream is not halted.
            Poll::Ready(Some(Ok(item))) => {
                guard.0.item(&this.view.view(item));
            }
            Poll::Ready(Some(Err(error))) => failed(guard.0, error),
            Poll::Ready(None) => ended(guard.0),
            Poll::Pending => {
                let stop = guard.0.recorder.stop();
                stop.register(cx.waker());
                if stop.requested() {
                    std::mem::forget(guard);
                    return close(this.attempt, this.closed);
                }
                guard.0.park(false);
            }
        }
        std::mem::forget(guard);
        polled
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.closed {
            return (0, Some(0));
        }
        // An abort may end it at any time.
        (0, self.stream.size_hint().1)
    }
}

/// The stream was told to end.
#[cold]
fn close<T>(attempt: &mut AttemptState<'static>, closed: &mut bool) -> Poll<Option<T>> {
    *closed = true;
    attempt.recorder.finish(End::of(Cause::Aborted), None);
    Poll::Ready(None)
}

/// The stream gave an error.
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

/// The stream ended by itself.
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
        // What checks find is recorded, and changes nothing.
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

/// Without the stream: its own `Debug` may print what it buffers.
impl<S, V> fmt::Debug for Watched<S, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("info", self.info())
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}
