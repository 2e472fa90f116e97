//! Run: the retrying stream, and the state machine that decides what happens next.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::{FusedStream, Stream};
use serde_json::Value;

use super::attempt::{AttemptState, Verdict, Woken};
use super::reading::BoxedReading;
use super::sources::{Connecting, Sources};
use super::timer::{NoTimer, Timer};
use super::{Chunk, NextChunk};
use crate::clock;
use crate::end::{Cause, End, TimeoutKind};
use crate::error::{Error, Refusal, SourceError};
use crate::event::{RetryKind, RetryReason};
use crate::failure::{self, Failure, FailureKind, NetworkErrorKind};
use crate::observe::RunInfo;
use crate::options::Options;
use crate::recorder::Next;
use crate::retry::{Failed, Retries};
use crate::source::Attempt;
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::token::TokenKind;
use crate::verdict::{Outcome, Severity, Violation};

pub(super) type Classify<'a, E> = Box<dyn Fn(&E) -> Option<Failure> + Send + 'a>;

/// A measured stream that retries its source. Created by [`L0::stream`](crate::L0::stream).
///
/// Everything happens inside the consumer's polls: no task is spawned, and dropping the run stops
/// it. A run finishes exactly once, however it ends, also after a drop or a panic. When it yields
/// its last item, its telemetry and outcome are final.
///
/// `T` is the source's item, `E` its error. `'a` bounds what the factory, the `until` futures and
/// the source borrow. A `Run<'static, T, E>` can be spawned, returned as a body, or kept in a
/// struct.
#[must_use = "a run does nothing unless it is read: poll it as a stream, or await `text()`"]
pub struct Run<'a, T, E>(Box<Machine<'a, T, E>>);

/// The state machine. It is boxed because runs are often moved: returned, kept in futures, spawned.
///
/// The order of the fields keeps those that each token touches adjacent: the end of the attempt,
/// and the state.
#[repr(C)]
struct Machine<'a, T, E> {
    // First, so a dropped run finishes before its source is dropped.
    attempt: AttemptState<'a>,
    state: State<'a, T, E>,
    sources: Sources<'a, T, E>,
    classify: Option<Classify<'a, E>>,
    /// `true` if every source must send a finish reason.
    expect_finish: bool,
    options: Arc<Options>,
    rng: fastrand::Rng,
    retries: Retries,
}

enum State<'a, T, E> {
    /// The run was refused, and the consumer has not received the error yet.
    Refused(Refusal),
    /// The next attempt begins at the next poll.
    Ready,
    /// The source is connecting; `None` until it is called.
    Connecting(Option<Connecting<'a, T, E>>),
    Streaming(BoxedReading<'a, T, E>),
    /// The timer of the back-off, and `true` if the run completes when there is no timer to wait
    /// with.
    BackingOff(Timer, bool),
    /// A back-off without a delay. It yields to other tasks, because a source that fails
    /// immediately would otherwise occupy the thread.
    Yielding,
    Done,
}

/// A failed attempt, and why it failed.
struct Fault<E> {
    cause: Cause,
    failure: Failure,
    /// The error that the run would end with.
    error: Error<E>,
    /// The message that events and telemetry carry.
    message: String,
}

/// The result of one part of a poll.
enum Step<T, E> {
    Continue,
    Yield(NextChunk<T, E>),
}

impl<T, E> Run<'_, T, E> {
    /// Returns the run's information, known from its start on.
    #[must_use]
    pub fn info(&self) -> &RunInfo {
        self.0.attempt.recorder.info()
    }

    /// Returns what was measured so far; final once the run has ended. `None` if the run is not
    /// measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        self.0.attempt.recorder.telemetry()
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
        self.0.attempt.recorder.end()
    }

    /// Returns a handle that can stop the run from any thread or task.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.0.attempt.recorder.handle()
    }

    /// Sets a metadata entry while the run is live: see [`RunHandle::set_metadata`].
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.handle().set_metadata(key, value);
    }

    /// Returns how the run ended, once the consumer has received everything.
    pub(super) fn final_end(&self) -> Option<&End> {
        self.end().filter(|_| matches!(self.0.state, State::Done))
    }
}

impl<'a, T, E: SourceError> Run<'a, T, E> {
    pub(super) fn new(
        attempt: AttemptState<'a>,
        allowed: Result<(), Refusal>,
        sources: Sources<'a, T, E>,
        classify: Option<Classify<'a, E>>,
        expect_finish: bool,
        options: Arc<Options>,
        rng: fastrand::Rng,
    ) -> Self {
        Self(Box::new(Machine {
            attempt,
            state: match allowed {
                Ok(()) => State::Ready,
                Err(refusal) => State::Refused(refusal),
            },
            sources,
            classify,
            expect_finish,
            options,
            rng,
            retries: Retries::default(),
        }))
    }

    /// Runs to the end, and returns the text of the last attempt: of its items of kind
    /// [`TokenKind::Text`] that were not yielded before.
    ///
    /// Telemetry is available afterwards, also after an error. Dropping the future loses the text
    /// collected so far; the run continues when it is polled again.
    ///
    /// # Errors
    ///
    /// Returns the error that the stream ends with, or [`Error::Ended`] if the run had already
    /// ended without completing.
    pub async fn text(&mut self) -> Result<String, Error<E>> {
        let before = self.final_end();
        if let Some(end) = before.filter(|end| end.outcome() != Outcome::Completed) {
            return Err(Error::Ended(end.clone()));
        }
        let mut text = String::new();
        let mut in_a_row = 0;
        while let Some(chunk) = poll_fn(|cx| self.0.poll_or_yield(&mut in_a_row, cx)).await {
            match chunk? {
                Chunk::Item(item) => {
                    if let State::Streaming(reading) = &self.0.state {
                        let view = reading.view(&item);
                        if view.kind == TokenKind::Text {
                            text.push_str(view.text);
                        }
                    }
                }
                Chunk::Restart { .. } => text.clear(),
            }
        }
        Ok(text)
    }

    #[inline]
    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<NextChunk<T, E>> {
        self.0.poll_chunk(cx)
    }
}

impl<'a, T, E: SourceError> Machine<'a, T, E> {
    /// Polls for a chunk, but yields to other tasks after a number of ready chunks in a row. A
    /// source that always has another item would otherwise occupy the thread.
    fn poll_or_yield(&mut self, in_a_row: &mut u32, cx: &mut Context<'_>) -> Poll<NextChunk<T, E>> {
        const AT_MOST: u32 = 128;
        if *in_a_row == AT_MOST {
            *in_a_row = 0;
            // The time until the next poll is measured like the wait for a pending source.
            self.attempt.park(false);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.poll_chunk(cx);
        *in_a_row = if polled.is_ready() { *in_a_row + 1 } else { 0 };
        polled
    }

    #[inline(always)]
    fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<NextChunk<T, E>> {
        /// Finishes the run if a panic of the source or a hook unwinds.
        struct OnUnwind<'r, 'a, T, E>(&'r mut Machine<'a, T, E>);

        impl<T, E> Drop for OnUnwind<'_, '_, T, E> {
            fn drop(&mut self) {
                let end = End::of(Cause::Panic);
                self.0.attempt.recorder.finish(end, None);
                self.0.state = State::Done;
            }
        }

        let guard = OnUnwind(self);
        let run = &mut *guard.0;
        let signaled = run.attempt.recorder.stop().signaled();
        // The path of each token: the item is returned as the stream yielded it, without a copy.
        let polled = match &mut run.state {
            State::Streaming(reading) if !signaled => {
                let mut polled = reading.as_mut().poll_read(cx, &mut run.attempt);
                if !matches!(polled, Poll::Ready(Some(Ok(_)))) {
                    polled = run.no_item(polled, cx);
                }
                polled
            }
            _ => run.advance(Step::Continue, cx),
        };
        std::mem::forget(guard);
        polled
    }

    /// Continues after a poll of the stream that yielded no item.
    fn no_item(
        &mut self,
        polled: Poll<NextChunk<T, E>>,
        cx: &mut Context<'_>,
    ) -> Poll<NextChunk<T, E>> {
        let step = match polled {
            Poll::Pending => {
                let woken = ready!(self.attempt.wait(false, cx));
                self.woken(woken, false)
            }
            Poll::Ready(last) => self.stream_ended(last),
        };
        self.advance(step, cx)
    }

    /// Takes steps until a chunk can be yielded, or the run has to wait.
    #[inline(never)]
    fn advance(&mut self, mut step: Step<T, E>, cx: &mut Context<'_>) -> Poll<NextChunk<T, E>> {
        loop {
            if let Step::Yield(last) = step {
                return Poll::Ready(last);
            }
            if self.attempt.recorder.stop().signaled() {
                if let Some(last) = self.interrupted() {
                    return Poll::Ready(last);
                }
            }
            step = match &mut self.state {
                State::Streaming(reading) => {
                    if let Some(kind) = self.attempt.poll_begins() {
                        step = self.attempt_failed(timeout(kind));
                        continue;
                    }
                    let polled = reading.as_mut().poll_read(cx, &mut self.attempt);
                    self.attempt.poll_ended();
                    match polled {
                        Poll::Ready(Some(Ok(chunk))) => Step::Yield(Some(Ok(chunk))),
                        Poll::Ready(last) => self.stream_ended(last),
                        Poll::Pending => ready!(self.wait(cx)),
                    }
                }
                _ => ready!(self.between_streams(cx)),
            };
        }
    }

    /// Handles a run that has ended, a request to stop, or a wake-up of an `until` future that is
    /// not ready.
    #[cold]
    fn interrupted(&mut self) -> Option<NextChunk<T, E>> {
        if self.attempt.recorder.finished() {
            return Some(self.after_the_end());
        }
        if self.attempt.recorder.stop().requested() {
            return Some(self.fail(Error::Aborted));
        }
        let limit = self.attempt.limited()?;
        Some(self.fail(Error::Limit(limit)))
    }

    /// Returns what a finished run yields: the refusal, once, and then nothing.
    #[cold]
    fn after_the_end(&mut self) -> NextChunk<T, E> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Refused(refusal) => Some(Err(Error::Refused(refusal))),
            _ => None,
        }
    }

    /// Polls a run that has no stream at the moment.
    #[inline(never)]
    fn between_streams(&mut self, cx: &mut Context<'_>) -> Poll<Step<T, E>> {
        Poll::Ready(match &mut self.state {
            State::Connecting(_) => match self.poll_connect(cx) {
                Poll::Ready(Ok(reading)) => {
                    self.attempt.recorder.connected();
                    self.state = State::Streaming(reading);
                    Step::Continue
                }
                Poll::Ready(Err(error)) => {
                    let fault = self.source_fault(error);
                    self.attempt_failed(fault)
                }
                Poll::Pending => return self.wait(cx),
            },
            State::Yielding => {
                self.state = State::Ready;
                // The time until the next poll is waited for, and some of the total timeout is left.
                self.attempt.park(true);
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            State::BackingOff(timer, completes) => match timer.poll(cx) {
                Poll::Ready(Ok(())) => {
                    self.state = State::Ready;
                    Step::Continue
                }
                Poll::Ready(Err(NoTimer)) => {
                    let completes = *completes;
                    self.back_off_failed(completes)
                }
                Poll::Pending => return self.wait(cx),
            },
            State::Ready => self.begin_attempt(),
            // `poll_chunk` polls the stream itself, and finished runs do not get here.
            State::Streaming(_) | State::Refused(_) | State::Done => Step::Continue,
        })
    }

    fn begin_attempt(&mut self) -> Step<T, E> {
        // Other runs can have spent the budget while this one waited.
        if let Some(limit) = self.attempt.recorder.reached() {
            return Step::Yield(self.fail(Error::Limit(limit)));
        }
        let finish = self.expect_finish || self.sources.current().sends_finish();
        let to_revoke = self.attempt.begin(&self.options, finish);
        if self.attempt.number == 1 {
            self.options.retry.count_run();
        }
        self.state = State::Connecting(None);
        if !to_revoke {
            return Step::Continue;
        }
        self.attempt.recorder.yielded();
        let attempt = self.attempt.number;
        Step::Yield(Some(Ok(Chunk::Restart { attempt })))
    }

    /// Calls the source if needed, and polls its future, inside the observers' contexts.
    fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<Result<BoxedReading<'a, T, E>, E>> {
        let Self {
            attempt: AttemptState {
                recorder, number, ..
            },
            state: State::Connecting(connecting),
            sources,
            ..
        } = self
        else {
            return Poll::Pending;
        };
        if connecting.is_none() {
            // Here and not in `begin_attempt`: the consumer can be gone after the restart.
            recorder.attempt_started(*number, sources.number());
            recorder.connecting();
        }
        let mut polled = Poll::Pending;
        recorder.connect(|| {
            let future =
                connecting.get_or_insert_with(|| sources.current().connect(Attempt::new(*number)));
            polled = future.as_mut().poll(cx);
        });
        polled
    }

    /// Waits: pending, unless a deadline has passed or the run was asked to stop.
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Step<T, E>> {
        let backs_off = matches!(self.state, State::BackingOff(..));
        let woken = ready!(self.attempt.wait(backs_off, cx));
        Poll::Ready(self.woken(woken, backs_off))
    }

    /// Handles a wait that ended before anything was ready.
    #[cold]
    fn woken(&mut self, woken: Woken, backs_off: bool) -> Step<T, E> {
        match woken {
            Woken::StopRequested => Step::Continue,
            // Between two attempts, no attempt fails.
            Woken::TimedOut(kind) if backs_off => Step::Yield(self.fail(Error::Timeout(kind))),
            Woken::TimedOut(kind) => self.attempt_failed(timeout(kind)),
            Woken::NoTimer => Step::Yield(self.fail(Error::NoTimer)),
        }
    }

    /// Handles the end of the stream, or its error.
    #[cold]
    fn stream_ended(&mut self, last: NextChunk<T, E>) -> Step<T, E> {
        match last {
            Some(Err(Error::Source { source, .. })) => {
                let fault = self.source_fault(source);
                self.attempt_failed(fault)
            }
            Some(Err(Error::Guardrail(violation))) => self.halt(violation),
            None => self.source_ended(),
            other => Step::Yield(other),
        }
    }

    #[cold]
    fn source_ended(&mut self) -> Step<T, E> {
        match self.attempt.end() {
            Verdict::Complete => self.complete(),
            Verdict::Halt(violation) => self.halt(violation),
            Verdict::Failed(cause) => self.attempt_failed(Fault::of(cause)),
        }
    }

    fn complete(&mut self) -> Step<T, E> {
        // First, because a panic of the source's `Drop` fails the run.
        self.state = State::Done;
        self.attempt.recorder.finish(End::completed(), None);
        Step::Yield(None)
    }

    fn halt(&mut self, violation: Violation) -> Step<T, E> {
        Step::Yield(self.fail(Error::Guardrail(violation)))
    }

    /// Classifies an error of the source.
    fn source_fault(&self, source: E) -> Fault<E> {
        let classified = self.classify.as_ref().and_then(|read| read(&source));
        let classified = classified.or_else(|| self.sources.classify(&source));
        let failure = classified.unwrap_or_else(|| failure::read(&source));
        Fault {
            cause: Cause::Source,
            failure,
            message: self.attempt.recorder.message(&source, &failure),
            error: Error::Source {
                source,
                failure,
                attempts: self.attempt.number,
            },
        }
    }

    /// Retries a failed attempt, falls back to the next source, or ends the run. An answer with
    /// violations or drift completes, because it is better than none.
    #[cold]
    fn attempt_failed(&mut self, fault: Fault<E>) -> Step<T, E> {
        // Closes the connection before the back-off.
        self.state = State::Done;
        self.attempt.unpark();
        let number = self.attempt.number;
        let network_error = fault.failure.network_error_kind();
        if self.attempt.is_finished() && matches!(fault.failure.kind, FailureKind::Network(_)) {
            // The connection failed after the finish reason. The answer is complete, and another
            // attempt would discard it.
            if let (Some(kind), Cause::Source | Cause::Timeout(_)) = (network_error, &fault.cause) {
                let recorder = &mut self.attempt.recorder;
                recorder.network_error(kind, &fault.message, None, number);
            }
            return self.source_ended();
        }
        let reason = fault.reason();
        let limit = self.attempt.recorder.reached();
        let retry = self.plan_retry(&fault, reason);
        // All sources share the total timeout. A timeout after a finish reason leaves no time
        // either.
        let falls_back =
            self.sources.has_next() && self.attempt.deadlines.left() != Some(Duration::ZERO);
        // A limit only ends a run that would continue.
        let limit = limit.filter(|_| falls_back || matches!(retry, Ok(Some(_))));
        let retry = match retry {
            // Last, because what is taken from the retry budget is not available to other runs.
            Ok(Some(_)) if limit.is_some() || !self.options.retry.affordable() => Ok(None),
            retry => retry,
        };
        let recorder = &mut self.attempt.recorder;
        if let Some(kind) = network_error {
            let delay = match &retry {
                Ok(Some((_, delay, _))) => Some(*delay),
                _ => None,
            };
            recorder.network_error(kind, &fault.message, delay, number);
        }
        match retry {
            Ok(Some((kind, delay, timer))) => {
                recorder.attempt_finished(&fault.end(), Next::Retry(kind));
                self.retries.count(kind);
                recorder.retry(number + 1, kind, reason, delay);
                // The attempt is discarded from here on. A timeout of the back-off must not find it
                // complete.
                self.attempt.reset();
                self.state = match timer {
                    Some(timer) => State::BackingOff(timer, fault.completes()),
                    None => State::Yielding,
                };
                Step::Continue
            }
            _ if falls_back && limit.is_none() => {
                recorder.attempt_finished(&fault.end(), Next::Fallback);
                let from = self.sources.number();
                self.sources.advance();
                recorder.fallback(from, self.sources.number());
                self.retries = Retries::default();
                self.attempt.reset();
                self.state = State::Ready;
                Step::Continue
            }
            _ if fault.completes() => self.complete(),
            Ok(None) => Step::Yield(match limit {
                Some(limit) => self.fail(Error::Limit(limit)),
                None => self.fail_with(fault),
            }),
            Err(NoTimer) => {
                // The attempt is recorded with the failure that would have been retried.
                recorder.attempt_finished(&fault.end(), Next::Nothing);
                Step::Yield(self.fail(Error::NoTimer))
            }
        }
    }

    /// Returns the retry that follows a failed attempt, its delay, and the delay's timer.
    #[allow(clippy::type_complexity, reason = "it is destructured immediately")]
    fn plan_retry(
        &mut self,
        fault: &Fault<E>,
        reason: RetryReason,
    ) -> Result<Option<(RetryKind, Duration, Option<Timer>)>, NoTimer> {
        if fault.cause == Cause::Timeout(TimeoutKind::Total) {
            return Ok(None);
        }
        let failed = Failed {
            attempt: self.attempt.number,
            failure: fault.failure,
            reason,
            error: fault.error(),
        };
        let Self { retries, rng, .. } = self;
        let Some((kind, delay)) = retries.plan(&self.options.retry, &failed, rng) else {
            return Ok(None);
        };
        // A delay beyond the total timeout would only end in that timeout, which is less
        // informative than the failure.
        let left = self.attempt.deadlines.left();
        if left.is_some_and(|left| delay >= left) {
            return Ok(None);
        }
        Ok(Some((kind, delay, back_off(delay)?)))
    }

    /// Ends a run without a timer: no further attempt is possible.
    #[cold]
    fn back_off_failed(&mut self, completes: bool) -> Step<T, E> {
        if completes {
            self.complete()
        } else {
            Step::Yield(self.fail(Error::NoTimer))
        }
    }

    fn fail_with(&mut self, fault: Fault<E>) -> NextChunk<T, E> {
        self.finish(fault.end(), fault.error)
    }

    #[cold]
    fn fail(&mut self, error: Error<E>) -> NextChunk<T, E> {
        self.finish(error.end(), error)
    }

    /// Finishes the run with an error, and drops the source.
    fn finish(&mut self, end: End, error: Error<E>) -> NextChunk<T, E> {
        let source = match &error {
            Error::Source { source, .. } => Some(source as &(dyn StdError + 'static)),
            _ => None,
        };
        // First, because a panic of the source's `Drop` fails the run.
        self.state = State::Done;
        self.attempt.recorder.finish(end, source);
        Some(Err(error))
    }
}

impl<E: SourceError> Fault<E> {
    /// Creates a fault that the run itself found.
    fn of(cause: Cause) -> Self {
        let error = match &cause {
            Cause::Truncated => Error::Truncated,
            Cause::Timeout(kind) => Error::Timeout(*kind),
            Cause::Violation(violation) => Error::Guardrail(violation.clone()),
            Cause::Drift(_) => {
                let found = Violation::new("drift", Severity::Error, cause.to_string());
                Error::Guardrail(found)
            }
            // No other cause fails an attempt.
            _ => Error::ZeroOutput,
        };
        Self {
            failure: cause.failure(),
            message: cause.to_string(),
            cause,
            error,
        }
    }

    /// Returns the end of the failed attempt, which is that of the run if nothing follows.
    fn end(&self) -> End {
        match &self.cause {
            Cause::Source => End::of_source(self.failure, &self.message),
            cause => End::of(cause.clone()),
        }
    }

    /// The error to report: the source's own, or else the run's.
    fn error(&self) -> &(dyn StdError + 'static) {
        match &self.error {
            Error::Source { source, .. } => source,
            error => error,
        }
    }

    /// `true` if the run completes without a retry.
    fn completes(&self) -> bool {
        matches!(self.cause, Cause::Violation(_) | Cause::Drift(_))
    }

    fn reason(&self) -> RetryReason {
        match (&self.cause, self.failure.kind) {
            (Cause::Truncated, _) => RetryReason::Truncated,
            (Cause::ZeroOutput, _) => RetryReason::ZeroOutput,
            (Cause::Violation(_), _) => RetryReason::GuardrailViolation,
            (Cause::Drift(_), _) => RetryReason::Drift,
            (Cause::Timeout(_), _) | (_, FailureKind::Network(NetworkErrorKind::Timeout)) => {
                RetryReason::Timeout
            }
            (_, FailureKind::RateLimited) => RetryReason::RateLimited,
            (_, FailureKind::Server) => RetryReason::ServerError,
            (_, FailureKind::Model) => RetryReason::ModelError,
            (_, FailureKind::Network(_) | FailureKind::Fatal) => RetryReason::NetworkError,
        }
    }
}

fn timeout<E: SourceError>(kind: TimeoutKind) -> Fault<E> {
    Fault::of(Cause::Timeout(kind))
}

/// Creates the timer of a back-off. A zero delay needs none.
fn back_off(delay: Duration) -> Result<Option<Timer>, NoTimer> {
    if delay.is_zero() {
        return Ok(None);
    }
    let now = clock::now();
    let deadline = now.checked_add(delay).unwrap_or(now);
    Timer::new(deadline).map(Some)
}

impl<T, E: SourceError> Stream for Run<'_, T, E> {
    type Item = Result<Chunk<T>, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll_chunk(cx)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self.0.state {
            State::Done => (0, Some(0)),
            State::Refused(_) => (1, Some(1)),
            // A retry can yield any number of items.
            _ => (0, None),
        }
    }
}

impl<T, E: SourceError> FusedStream for Run<'_, T, E> {
    fn is_terminated(&self) -> bool {
        self.0.attempt.recorder.finished() && !matches!(self.0.state, State::Refused(_))
    }
}

impl<T, E> fmt::Debug for Run<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("info", self.info())
            .field("attempt", &self.0.attempt.number)
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::Waker;

    use crate::clock;
    use crate::monitoring::Monitoring;
    use crate::timeout::Timeouts;
    use crate::{Chunk, L0};

    use super::*;

    /// Yields items forever, each after it was pending `pending` times.
    struct Endless {
        pending: u32,
        left: u32,
    }

    impl Stream for Endless {
        type Item = io::Result<&'static str>;

        fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            if let Some(left) = self.left.checked_sub(1) {
                self.left = left;
                return Poll::Pending;
            }
            self.left = self.pending;
            Poll::Ready(Some(Ok("token")))
        }
    }

    /// Returns the clock reads for a thousand tokens, after the first.
    fn reads(stream: &mut (impl Stream + Unpin)) -> u64 {
        let mut cx = Context::from_waker(Waker::noop());
        let mut before = 0;
        let mut tokens = 0;
        while tokens <= 1_000 {
            if Pin::new(&mut *stream).poll_next(&mut cx).is_ready() {
                if tokens == 0 {
                    before = clock::reads();
                }
                tokens += 1;
            }
        }
        clock::reads() - before
    }

    #[tokio::test]
    async fn the_clock_is_read_once_per_ready_token_twice_per_pending_one_and_otherwise_never() {
        let on = Monitoring::new;
        let timeouts = Timeouts::new().inter_token(Duration::from_secs(60));
        for (name, monitoring, timeouts, ready, pending) in [
            ("off", Monitoring::off(), Timeouts::new(), 0, 0),
            ("sampled out", on().sample_rate(0.0), Timeouts::new(), 0, 0),
            (
                "without timings",
                on().include_timings(false),
                Timeouts::new(),
                0,
                0,
            ),
            ("on", on(), Timeouts::new(), 1_000, 2_000),
            ("off, with timeouts", Monitoring::off(), timeouts, 0, 2_000),
            ("on, with timeouts", on(), timeouts, 1_000, 2_000),
        ] {
            let l0 = L0::builder()
                .monitoring(monitoring)
                .timeouts(timeouts)
                .build();
            for (pending, expected) in [(0, ready), (1, pending), (3, pending)] {
                let source = || Endless {
                    pending,
                    left: pending,
                };
                let mut run = l0.stream(|_| async { io::Result::Ok(source()) }).start();
                assert_eq!(reads(&mut run), expected, "{name}, pending {pending} times");
                if timeouts == Timeouts::new() {
                    let mut watched = l0.watch(source()).start();
                    assert_eq!(reads(&mut watched), expected, "{name}, watched");
                }
            }
        }
    }

    #[tokio::test]
    async fn the_clock_is_read_twice_only_for_each_of_many_items_without_a_token() {
        // Empty texts, 20 in a row before each token.
        struct Mixed(u32);
        impl Stream for Mixed {
            type Item = io::Result<&'static str>;

            fn poll_next(
                mut self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.0 = (self.0 + 1) % 21;
                Poll::Ready(Some(Ok(if self.0 == 0 { "token" } else { "" })))
            }
        }

        let minute = Duration::from_secs(60);
        for (timeouts, expected) in [
            (Timeouts::new(), 0),
            // From the seventeenth empty text to the token, for each token.
            (Timeouts::new().total(minute), 2 * 5 * 100),
        ] {
            let l0 = L0::builder().timeouts(timeouts).build();
            let mut run = l0.stream(|_| async { io::Result::Ok(Mixed(0)) }).start();
            let mut cx = Context::from_waker(Waker::noop());
            let before = clock::reads();
            for _ in 0..100 * 21 {
                assert!(Pin::new(&mut run).poll_next(&mut cx).is_ready());
            }
            assert_eq!(clock::reads() - before, expected);
        }
    }

    #[test]
    fn a_chunk_returns_its_item() {
        assert_eq!(Chunk::Item(1).into_item(), Some(1));
        assert_eq!(Chunk::<u8>::Restart { attempt: 2 }.into_item(), None);
    }
}
