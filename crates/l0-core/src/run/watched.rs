//! Watched: the plain wrapper. Same items, same errors, same order; it only measures.

use std::error::Error as StdError;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::stream::{FusedStream, Stream, TryStream};
use pin_project_lite::pin_project;

use super::output::{Expect, Output, Shortfall};
use super::view::{ReadItem, View};
use crate::checks::Checks;
use crate::clock;
use crate::error::Error;
use crate::failure::{self, NetworkErrorKind};
use crate::observe::RunInfo;
use crate::recorder::Recorder;
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::token::TokenKind;
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
    pub struct Watched<S: TryStream> {
        pub(super) recorder: Recorder<'static>,
        pub(super) read_item: ReadItem<S::Ok>,
        // Chosen where it is known how items are read, so that the reading is compiled into it.
        pub(super) poll: PollWatched<S>,
        pub(super) expect: Expect,
        pub(super) output: Output,
        pub(super) checks: Option<Box<Checks>>,
        pub(super) parked: bool,
        pub(super) closed: bool,
        #[pin]
        pub(super) stream: S,
    }
}

type Polled<S> = Poll<Option<Result<<S as TryStream>::Ok, <S as TryStream>::Error>>>;
type PollWatched<S> = fn(Pin<&mut Watched<S>>, &mut Context<'_>) -> Polled<S>;

impl<S: TryStream> Watched<S> {
    /// What is known of the run from its start on.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        self.recorder.info()
    }

    /// What was measured so far; final once the run has ended. `None` if the run is not measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.recorder.telemetry()
    }

    /// How the run ended; `None` while it runs. There whether or not the run is measured.
    #[must_use]
    pub fn outcome(&self) -> Option<Outcome> {
        self.recorder.outcome()
    }

    /// A handle that ends the stream from anywhere.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.recorder.handle()
    }

    /// The stream inside.
    pub fn get_ref(&self) -> &S {
        &self.stream
    }

    /// The stream inside. A run that has not ended ends as dropped.
    pub fn into_inner(self) -> S {
        self.stream
    }
}

impl<S> Watched<S>
where
    S: TryStream,
    S::Error: StdError + 'static,
{
    /// Polls a stream whose items are read by a `V`.
    pub(super) fn poll_item<V: View<S::Ok>>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Polled<S> {
        /// Finishes the run if a panic of the stream unwinds.
        struct OnUnwind<'r>(&'r mut Recorder<'static>);

        impl Drop for OnUnwind<'_> {
            fn drop(&mut self) {
                self.0.finish(Outcome::Failed, None);
            }
        }

        let this = self.project();
        let guard = OnUnwind(this.recorder);
        if guard.0.stop().signalled() {
            if guard.0.finished() {
                std::mem::forget(guard);
                if *this.closed {
                    return Poll::Ready(None);
                }
                return this.stream.try_poll_next(cx);
            }
            if guard.0.stop().requested() {
                std::mem::forget(guard);
                return close(this.recorder, this.closed);
            }
        }
        let polled = this.stream.try_poll_next(cx);
        match &polled {
            Poll::Ready(Some(Ok(item))) => {
                *this.parked = false;
                let now = guard.0.timed().then(clock::now);
                let view = V::read(*this.read_item, item);
                this.output.add(&view);
                guard.0.item(&view, now);
                if let Some(checks) = this.checks
                    && view.kind == TokenKind::Text
                    && !view.text.is_empty()
                {
                    // Recorded; a watched stream is not halted.
                    checks.text(view.text, guard.0);
                }
            }
            Poll::Ready(Some(Err(error))) => failed(guard.0, error),
            Poll::Ready(None) => ended(guard.0, this.checks, this.output.judge(*this.expect)),
            Poll::Pending => {
                guard.0.stop().register(cx.waker());
                if guard.0.stop().requested() {
                    std::mem::forget(guard);
                    return close(this.recorder, this.closed);
                }
                if !std::mem::replace(this.parked, true) && guard.0.timed() {
                    guard.0.pending(clock::now());
                }
            }
        }
        std::mem::forget(guard);
        polled
    }
}

impl<S, T, E> Stream for Watched<S>
where
    S: Stream<Item = Result<T, E>>,
    E: StdError + 'static,
{
    type Item = S::Item;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        (self.poll)(self, cx)
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
fn close<T>(recorder: &mut Recorder<'_>, closed: &mut bool) -> Poll<Option<T>> {
    *closed = true;
    recorder.finish(Outcome::Aborted, Some(&RunError::Aborted));
    Poll::Ready(None)
}

/// The stream gave an error.
#[cold]
fn failed<E: StdError + 'static>(recorder: &mut Recorder<'_>, error: &E) {
    if let Some(kind) = failure::read(error).network_error_kind() {
        recorder.network_error(kind, error, None, Some(1));
    }
    recorder.finish(Outcome::Failed, Some(error));
}

/// The stream ended by itself.
#[cold]
fn ended(
    recorder: &mut Recorder<'_>,
    checks: &mut Option<Box<Checks>>,
    judged: Result<(), Shortfall>,
) {
    let error = match judged {
        Ok(()) => {
            if let Some(checks) = checks {
                checks.end(recorder);
            }
            return recorder.finish(Outcome::Completed, None);
        }
        Err(Shortfall::Truncated) => {
            let error = RunError::Truncated;
            recorder.network_error(NetworkErrorKind::PartialChunks, &error, None, Some(1));
            error
        }
        Err(Shortfall::ZeroOutput) => {
            if let Some(checks) = checks {
                checks.zero_output(recorder);
            }
            RunError::ZeroOutput
        }
    };
    recorder.finish(error.outcome(), Some(&error));
}

/// The errors of a run itself, where there is no source's error to carry.
type RunError = Error<std::convert::Infallible>;

impl<S, T, E> FusedStream for Watched<S>
where
    S: FusedStream<Item = Result<T, E>>,
    E: StdError + 'static,
{
    fn is_terminated(&self) -> bool {
        self.closed || self.stream.is_terminated()
    }
}

/// Without the stream: its own `Debug` may print what it buffers.
impl<S: TryStream> fmt::Debug for Watched<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("info", self.info())
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}
