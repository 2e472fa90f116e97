//! Run: the retrying stream. It decides what happens next.

use std::error::Error as StdError;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::{FusedStream, Stream};
use serde_json::Value;

use super::attempt::{AttemptState, Verdict};
use super::reading::BoxedReading;
use super::sources::{Connecting, Sources};
use super::timer::{NoTimer, Timer};
use super::{Chunk, HandOut};
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

/// A stream that retries its source, measured: made by [`L0::stream`](crate::L0::stream).
///
/// It runs inside its consumer's polls: no task is spawned, and dropping it stops it. Every way it
/// can end, a drop and a panic included, finishes it exactly once; when its last item is handed
/// out, telemetry and outcome are final.
///
/// `T` is the source's item, `E` its error. `'a` is how long the factory, the `until` futures and the
/// source may borrow for; a `Run<'static, T, E>` can be spawned, returned as a body, or kept in a
/// struct.
#[must_use = "a run does nothing unless it is read: poll it as a stream, or await `text()`"]
pub struct Run<'a, T, E> {
    // First, so that a dropped run is finished before its source is dropped.
    attempt: AttemptState<'a>,
    state: State<'a, T, E>,
    sources: Sources<'a, T, E>,
    classify: Option<Classify<'a, E>>,
    /// Whether every source must say why it ended.
    expect_finish: bool,
    options: Arc<Options>,
    rng: fastrand::Rng,
    retries: Retries,
}

enum State<'a, T, E> {
    /// The interceptors refused the run, which nobody was told yet.
    Refused(Refusal),
    /// The next attempt begins at the next poll.
    Ready,
    /// The source connects; `None` until it was called.
    Connecting(Option<Connecting<'a, T, E>>),
    Streaming(BoxedReading<'a, T, E>),
    /// What is waited for, and whether the run completes if it cannot be waited for.
    BackingOff(Timer, bool),
    /// A back-off of no time: other tasks get their turn all the same, since a source that fails
    /// at once would otherwise never let go of the thread.
    Yielding,
    Done,
}

/// Why an attempt failed.
struct Fault<E> {
    cause: Cause,
    failure: Failure,
    /// The error, as the run would fail with it.
    error: Error<E>,
    /// What is said of it.
    message: String,
}

/// What the parts of a poll come to.
enum Step<T, E> {
    Continue,
    HandOut(HandOut<T, E>),
}

impl<T, E> Run<'_, T, E> {
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

    /// Returns a handle that stops the run from anywhere.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.attempt.recorder.handle()
    }

    /// Sets an entry of the metadata while the run is live: see [`RunHandle::set_metadata`].
    pub fn set_metadata(&self, key: impl Into<String>, value: impl Into<Value>) {
        self.handle().set_metadata(key, value);
    }

    /// How the run ended, if nothing is left to be told.
    pub(super) fn told_end(&self) -> Option<&End> {
        self.end().filter(|_| matches!(self.state, State::Done))
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
        Self {
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
        }
    }

    /// Runs to the end and collects the text of the items of kind [`TokenKind::Text`] that are still
    /// to come, of the last attempt only. Telemetry is there afterwards, also after an error. If the
    /// future is dropped, what it has collected is lost; the run goes on when it is polled again.
    ///
    /// # Errors
    ///
    /// The error that the stream ends with; [`Error::Ended`] if it has ended before, and did not
    /// complete.
    pub async fn text(&mut self) -> Result<String, Error<E>> {
        let before = self.told_end();
        if let Some(end) = before.filter(|end| end.outcome() != Outcome::Completed) {
            return Err(Error::Ended(end.clone()));
        }
        let mut text = String::new();
        let mut in_a_row = 0;
        while let Some(chunk) = poll_fn(|cx| self.poll_or_yield(&mut in_a_row, cx)).await {
            match chunk? {
                Chunk::Item(item) => {
                    if let State::Streaming(reading) = &self.state {
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

    /// Polls for a chunk, but lets other tasks have their turn after so many that were ready: a source
    /// that always has another one would never let go of the thread.
    fn poll_or_yield(&mut self, in_a_row: &mut u32, cx: &mut Context<'_>) -> Poll<HandOut<T, E>> {
        const AT_MOST: u32 = 128;
        if *in_a_row == AT_MOST {
            *in_a_row = 0;
            // What the others take is waited for like a source that is pending.
            self.attempt.park(false);
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let polled = self.poll_chunk(cx);
        *in_a_row = if polled.is_ready() { *in_a_row + 1 } else { 0 };
        polled
    }

    pub(super) fn poll_chunk(&mut self, cx: &mut Context<'_>) -> Poll<HandOut<T, E>> {
        /// Finishes the run if a panic of the source, or of a hook, unwinds.
        struct OnUnwind<'r, 'a, T, E>(&'r mut Run<'a, T, E>);

        impl<T, E> Drop for OnUnwind<'_, '_, T, E> {
            fn drop(&mut self) {
                let end = End::of(Cause::Panic);
                self.0.attempt.recorder.finish(end, None);
                self.0.state = State::Done;
            }
        }

        let guard = OnUnwind(self);
        let run = &mut *guard.0;
        let signalled = run.attempt.recorder.stop().signalled();
        // The path of a token: what the stream gives goes to the caller as it is, without a copy.
        let polled = match &mut run.state {
            State::Streaming(reading) if !signalled => {
                let mut polled = reading.as_mut().poll_read(cx, &mut run.attempt);
                if !matches!(polled, Poll::Ready(Some(Ok(_)))) {
                    polled = run.no_item(polled, cx);
                }
                polled
            }
            _ => run.go_on(Step::Continue, cx),
        };
        std::mem::forget(guard);
        polled
    }

    /// Goes on after the stream gave no item.
    fn no_item(
        &mut self,
        polled: Poll<HandOut<T, E>>,
        cx: &mut Context<'_>,
    ) -> Poll<HandOut<T, E>> {
        let step = match polled {
            Poll::Pending => ready!(self.wait(cx)),
            Poll::Ready(last) => self.stream_ended(last),
        };
        self.go_on(step, cx)
    }

    /// Takes one step after another until there is something to hand out, or to wait for.
    #[inline(never)]
    fn go_on(&mut self, mut step: Step<T, E>, cx: &mut Context<'_>) -> Poll<HandOut<T, E>> {
        loop {
            if let Step::HandOut(last) = step {
                return Poll::Ready(last);
            }
            if self.attempt.recorder.stop().signalled() {
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
                        Poll::Ready(Some(Ok(chunk))) => Step::HandOut(Some(Ok(chunk))),
                        Poll::Ready(last) => self.stream_ended(last),
                        Poll::Pending => ready!(self.wait(cx)),
                    }
                }
                _ => ready!(self.between_streams(cx)),
            };
        }
    }

    /// The run has ended, or was told to stop, or an `until` future was woken for nothing.
    #[cold]
    fn interrupted(&mut self) -> Option<HandOut<T, E>> {
        if self.attempt.recorder.finished() {
            return Some(self.after_the_end());
        }
        if self.attempt.recorder.stop().requested() {
            return Some(self.fail(Error::Aborted));
        }
        let limit = self.attempt.limited()?;
        Some(self.fail(Error::Limit(limit)))
    }

    /// What a finished run hands out: the refusal, once, and then nothing.
    #[cold]
    fn after_the_end(&mut self) -> HandOut<T, E> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Refused(refusal) => Some(Err(Error::Refused(refusal))),
            _ => None,
        }
    }

    /// There is no stream, or none yet.
    #[inline(never)]
    fn between_streams(&mut self, cx: &mut Context<'_>) -> Poll<Step<T, E>> {
        Poll::Ready(match &mut self.state {
            State::Connecting(_) => match self.poll_connect(cx) {
                Poll::Ready(Ok(reading)) => {
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
                self.attempt.park(true);
                // By the clock, since a wait of no time needs no timer.
                match self.attempt.deadlines.passed() {
                    Some(kind) => Step::HandOut(self.fail(Error::Timeout(kind))),
                    None => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
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
            // A stream was looked for before, and finished runs do not get here.
            State::Streaming(_) | State::Refused(_) | State::Done => Step::Continue,
        })
    }

    fn begin_attempt(&mut self) -> Step<T, E> {
        // Other runs may have spent what there was while this one waited.
        if let Some(limit) = self.attempt.recorder.reached() {
            return Step::HandOut(self.fail(Error::Limit(limit)));
        }
        let finish = self.expect_finish || self.sources.present().sends_finish();
        let to_revoke = self.attempt.begin(&self.options, finish);
        if self.attempt.number == 1 {
            self.options.retry.count_run();
        }
        self.state = State::Connecting(None);
        if !to_revoke {
            return Step::Continue;
        }
        self.attempt.recorder.handed_out();
        let attempt = self.attempt.number;
        Step::HandOut(Some(Ok(Chunk::Restart { attempt })))
    }

    /// Calls the source, if it was not, and polls its future, inside the observers' contexts.
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
            // Here and not where the attempt begins: a consumer may be gone after the restart.
            recorder.attempt_started(*number, sources.number());
        }
        let mut polled = Poll::Pending;
        recorder.connect(|| {
            let future =
                connecting.get_or_insert_with(|| sources.present().connect(Attempt::new(*number)));
            polled = future.as_mut().poll(cx);
        });
        polled
    }

    /// Nothing is ready: pending, unless a deadline has passed or the run was told to stop.
    #[inline(never)]
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Step<T, E>> {
        let stop = self.attempt.recorder.stop();
        stop.register(cx.waker());
        // Told between the last look and the registration: go round once more.
        if stop.requested() {
            return Poll::Ready(Step::Continue);
        }
        let backs_off = matches!(self.state, State::BackingOff(..));
        self.attempt.park(backs_off);
        match ready!(self.attempt.deadlines.poll(cx)) {
            // Between two attempts none has failed.
            Ok(kind) if backs_off => Poll::Ready(Step::HandOut(self.fail(Error::Timeout(kind)))),
            Ok(kind) => Poll::Ready(self.attempt_failed(timeout(kind))),
            Err(NoTimer) => Poll::Ready(Step::HandOut(self.fail(Error::NoTimer))),
        }
    }

    /// The stream gave something else than an item.
    #[cold]
    fn stream_ended(&mut self, last: HandOut<T, E>) -> Step<T, E> {
        match last {
            Some(Err(Error::Source { source, .. })) => {
                let fault = self.source_fault(source);
                self.attempt_failed(fault)
            }
            Some(Err(Error::Guardrail(violation))) => self.halt(violation),
            None => self.source_ended(),
            other => Step::HandOut(other),
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
        self.attempt.recorder.finish(End::completed(), None);
        self.state = State::Done;
        Step::HandOut(None)
    }

    fn halt(&mut self, violation: Violation) -> Step<T, E> {
        Step::HandOut(self.fail(Error::Guardrail(violation)))
    }

    /// Reads what the source failed with.
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

    /// Retries a failed attempt, asks the next source, or ends the run: an answer that only broke rules
    /// is better than none, so that it completes.
    #[cold]
    fn attempt_failed(&mut self, fault: Fault<E>) -> Step<T, E> {
        // Gives the connection back before the back-off.
        self.state = State::Done;
        self.attempt.unpark();
        let number = self.attempt.number;
        let network_error = fault.failure.network_error_kind();
        if self.attempt.is_finished() && matches!(fault.failure.kind, FailureKind::Network(_)) {
            // The connection failed after the finish reason: nothing of the answer is missing, and
            // another attempt would throw it away.
            if let (Some(kind), Cause::Source | Cause::Timeout(_)) = (network_error, &fault.cause) {
                let recorder = &mut self.attempt.recorder;
                recorder.network_error(kind, &fault.message, None, number);
            }
            return self.source_ended();
        }
        let reason = fault.reason();
        let limit = self.attempt.recorder.reached();
        let retry = self.plan_retry(&fault, reason);
        // What the whole run may wait is waited for by all sources together. A timeout behind a finish
        // reason leaves no time either.
        let falls_back =
            self.sources.has_next() && self.attempt.deadlines.left() != Some(Duration::ZERO);
        // A limit ends only what would have gone on.
        let limit = limit.filter(|_| falls_back || matches!(retry, Ok(Some(_))));
        let retry = match retry {
            // Last, since what the budget of retries gives is gone for other runs.
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
                // The attempt is void from here on: a timeout of the back-off must not find it complete.
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
                self.sources.go_on();
                recorder.fallback(from, self.sources.number());
                self.retries = Retries::default();
                self.attempt.reset();
                self.state = State::Ready;
                Step::Continue
            }
            _ if fault.completes() => self.complete(),
            Ok(None) => Step::HandOut(match limit {
                Some(limit) => self.fail(Error::Limit(limit)),
                None => self.fail_with(fault),
            }),
            Err(NoTimer) => {
                // What would have been waited out is told of the attempt.
                recorder.attempt_finished(&fault.end(), Next::Nothing);
                Step::HandOut(self.fail(Error::NoTimer))
            }
        }
    }

    /// Returns which retry follows a failed attempt, after which delay, with the timer of it.
    #[allow(clippy::type_complexity, reason = "it is taken apart at once")]
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
        // A delay that does not fit into what is left of the run's time would end in its timeout,
        // which says less than the failure.
        let left = self.attempt.deadlines.left();
        let waits = !delay.is_zero() || fault.completes();
        if waits && left.is_some_and(|left| delay >= left) {
            return Ok(None);
        }
        Ok(Some((kind, delay, back_off(delay)?)))
    }

    /// There is nothing to wait with any more, and so no further attempt.
    #[cold]
    fn back_off_failed(&mut self, completes: bool) -> Step<T, E> {
        if completes {
            self.complete()
        } else {
            Step::HandOut(self.fail(Error::NoTimer))
        }
    }

    fn fail_with(&mut self, fault: Fault<E>) -> HandOut<T, E> {
        self.finish(fault.end(), fault.error)
    }

    #[cold]
    fn fail(&mut self, error: Error<E>) -> HandOut<T, E> {
        self.finish(error.end(), error)
    }

    /// Finishes the run with this error, and drops the source.
    fn finish(&mut self, end: End, error: Error<E>) -> HandOut<T, E> {
        let source = match &error {
            Error::Source { source, .. } => Some(source as &(dyn StdError + 'static)),
            _ => None,
        };
        self.attempt.recorder.finish(end, source);
        self.state = State::Done;
        Some(Err(error))
    }
}

impl<E: SourceError> Fault<E> {
    /// What the run itself found wrong with the attempt.
    fn of(cause: Cause) -> Self {
        let error = match &cause {
            Cause::Truncated => Error::Truncated,
            Cause::Timeout(kind) => Error::Timeout(*kind),
            Cause::Violation(violation) => Error::Guardrail(violation.clone()),
            Cause::Drift(_) => {
                let found = Violation::new("drift", Severity::Error, cause.to_string());
                Error::Guardrail(found)
            }
            // Attempts fail for no other cause.
            _ => Error::ZeroOutput,
        };
        Self {
            failure: cause.failure(),
            message: cause.to_string(),
            cause,
            error,
        }
    }

    /// How an attempt that failed so ended, and its run, if nothing follows.
    fn end(&self) -> End {
        match &self.cause {
            Cause::Source => End::of_source(self.failure, &self.message),
            cause => End::of(cause.clone()),
        }
    }

    /// The error that says what happened: the source's own, or else the run's.
    fn error(&self) -> &(dyn StdError + 'static) {
        match &self.error {
            Error::Source { source, .. } => source,
            error => error,
        }
    }

    /// Whether the run completes all the same, if there is no retry.
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

/// The timer of a back-off. No delay needs none.
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
        match self.state {
            State::Done => (0, Some(0)),
            State::Refused(_) => (1, Some(1)),
            // A retry may hand out anything again.
            _ => (0, None),
        }
    }
}

impl<T, E: SourceError> FusedStream for Run<'_, T, E> {
    fn is_terminated(&self) -> bool {
        self.attempt.recorder.finished() && !matches!(self.state, State::Refused(_))
    }
}

impl<T, E> fmt::Debug for Run<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("info", self.info())
            .field("attempt", &self.attempt.number)
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

    /// Gives items for ever, each after being pending so many times.
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

    /// How often the clock is read for a thousand tokens, after the first.
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
    async fn the_clock_is_read_once_per_ready_token_twice_per_pending_one_and_else_never() {
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
    async fn the_clock_is_read_twice_for_each_of_many_items_without_a_token_and_for_no_other() {
        // Empty texts, of which 20 come in a row before each token.
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
            // From the seventeenth to the token, for each token.
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
    fn a_chunk_gives_its_item() {
        assert_eq!(Chunk::Item(1).into_item(), Some(1));
        assert_eq!(Chunk::<u8>::Restart { attempt: 2 }.into_item(), None);
    }
}
