//! Run: the retrying stream. It decides what happens next, and tells the recorder what happened.

mod builder;
mod deadlines;
mod output;
mod timer;
mod view;
mod watched;

pub(crate) use builder::Setup;
pub use builder::{RunBuilder, WatchBuilder};
pub use view::{ByFn, ByToken, View};
pub use watched::Watched;

use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::{FusedStream, Stream, TryStream};

use self::deadlines::{Deadlines, WaitFor};
use self::output::{Expect, Output, Shortfall};
use self::timer::{NoTimer, Timer};
use self::view::ReadItem;
use crate::checks::{Checks, Verdict};
use crate::clock;
use crate::error::{Error, Refusal, TimeoutKind};
use crate::event::RetryReason;
use crate::failure::{self, Failure, FailureKind, NetworkErrorKind};
use crate::observe::RunInfo;
use crate::recorder::Recorder;
use crate::retry::{Failed, Retries};
use crate::settings::Settings;
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::token::TokenKind;
use crate::verdict::{DriftReport, Outcome, Severity, Violation};

/// Which attempt a factory is called for.
#[derive(Debug, Clone)]
pub struct Attempt {
    number: u32,
}

impl Attempt {
    /// The number of the attempt, from 1.
    #[must_use]
    pub fn number(&self) -> u32 {
        self.number
    }
}

/// What a run hands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Chunk<T> {
    /// The source's own item, untouched.
    Item(T),
    /// A retry begins, and items of the attempt before had been handed out: discard them.
    Restart {
        /// The number of the attempt that begins.
        attempt: u32,
    },
}

impl<T> Chunk<T> {
    /// The item, if it is one.
    pub fn into_item(self) -> Option<T> {
        match self {
            Self::Item(item) => Some(item),
            Self::Restart { .. } => None,
        }
    }
}

type Connecting<'a, S, E> = Pin<Box<dyn Future<Output = Result<S, E>> + Send + 'a>>;
type Factory<'a, S, E> = Box<dyn FnMut(Attempt) -> Connecting<'a, S, E> + Send + 'a>;
type Classify<'a, E> = Box<dyn Fn(&E) -> Option<Failure> + Send + 'a>;

/// A stream that retries its source, measured: made by [`L0::stream`](crate::L0::stream).
///
/// It runs inside its consumer's polls: no task is spawned, and dropping it stops it. Every way it
/// can end, a drop and a panic included, finishes it exactly once; when its last item is handed
/// out, telemetry and outcome are final.
///
/// `'a` is how long the factory, the `until` futures and the source may borrow for;
/// `Run<'static, S>` can be spawned or returned as a body.
#[must_use = "a run does nothing unless it is read: poll it as a stream, or await `text()`"]
pub struct Run<'a, S: TryStream> {
    // First, so that a dropped run is finished before its source is dropped.
    recorder: Recorder<'a>,
    state: State<'a, S>,
    factory: Factory<'a, S, S::Error>,
    read_item: ReadItem<S::Ok>,
    /// Chosen where it is known how items are read, so that the reading is compiled into it.
    poll: PollRun<'a, S>,
    classify: Option<Classify<'a, S::Error>>,
    settings: Arc<Settings>,
    rng: fastrand::Rng,
    expect: Expect,
    deadlines: Deadlines,
    retries: Retries,
    /// The number of the present attempt.
    attempt: u32,
    output: Output,
    /// What the present attempt's text is checked by.
    checks: Option<Box<Checks>>,
    /// Whether the last attempt handed out an item of any kind.
    has_item: bool,
    /// Whether the source was found pending since the last item.
    parked: bool,
}

enum State<'a, S: TryStream> {
    /// The interceptors refused the run, which nobody was told yet.
    Refused(Refusal),
    /// The next attempt begins at the next poll.
    Ready,
    /// The factory works; `None` until it was called.
    Connecting(Option<Connecting<'a, S, S::Error>>),
    Streaming(Pin<Box<S>>),
    /// What is waited for, and what the run fails with if its runtime, and so the timer, goes.
    BackingOff(Timer, Box<Error<S::Error>>),
    /// A back-off of no time: other tasks get their turn all the same, since a source that fails
    /// at once would otherwise never let go of the thread.
    Yielding,
    Done,
}

/// Why an attempt failed.
enum Cause<E> {
    Source(E),
    Truncated,
    ZeroOutput,
    Timeout(TimeoutKind),
    /// The answer broke a rule in a way that a new attempt may repair.
    Violated(Violation),
    Drifted(DriftReport),
}

impl<E> Cause<E> {
    /// Whether the run completes all the same, if there is no retry.
    fn completes(&self) -> bool {
        matches!(self, Self::Violated(_) | Self::Drifted(_))
    }
}

/// What a poll hands out: a chunk, the error that ended the run, or nothing more.
type HandOut<S> = Option<Result<Chunk<<S as TryStream>::Ok>, Error<<S as TryStream>::Error>>>;

type PollRun<'a, S> = fn(&mut Run<'a, S>, &mut Context<'_>) -> Poll<HandOut<S>>;

/// What the parts of a poll come to.
enum Step<S: TryStream> {
    Continue,
    HandOut(HandOut<S>),
}

impl<S> Run<'_, S>
where
    S: TryStream,
{
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

    /// A handle that stops the run from anywhere.
    #[must_use]
    pub fn handle(&self) -> RunHandle {
        self.recorder.handle()
    }
}

impl<S> Run<'_, S>
where
    S: TryStream,
    S::Error: StdError + Send + Sync + 'static,
{
    /// Runs to the end and collects the text of the items of kind [`TokenKind::Text`] that are still
    /// to come, of the last attempt only. Telemetry is there afterwards, also after an error. If the
    /// future is dropped, what it has collected is lost; the run goes on when it is polled again.
    ///
    /// # Errors
    ///
    /// The error that the stream ends with. Of a run that has ended before, the text is empty.
    pub async fn text(&mut self) -> Result<String, Error<S::Error>> {
        let mut text = String::new();
        while let Some(chunk) = std::future::poll_fn(|cx| (self.poll)(self, cx)).await {
            match chunk? {
                Chunk::Item(item) => {
                    let view = (self.read_item)(&item);
                    if view.kind == TokenKind::Text {
                        text.push_str(view.text);
                    }
                }
                Chunk::Restart { .. } => text.clear(),
            }
        }
        Ok(text)
    }

    /// Polls a run whose items are read by a `V`.
    fn poll_chunk<V: View<S::Ok>>(&mut self, cx: &mut Context<'_>) -> Poll<HandOut<S>> {
        /// Finishes the run if a panic of the source, or of a hook, unwinds.
        struct OnUnwind<'r, 'a, S: TryStream>(&'r mut Run<'a, S>);

        impl<S: TryStream> Drop for OnUnwind<'_, '_, S> {
            fn drop(&mut self) {
                self.0.recorder.finish(Outcome::Failed, None);
            }
        }

        let guard = OnUnwind(self);
        let poll = guard.0.step::<V>(cx);
        std::mem::forget(guard);
        poll
    }

    /// The path of a token comes first, and is kept short: what else can happen is elsewhere.
    #[inline]
    fn step<V: View<S::Ok>>(&mut self, cx: &mut Context<'_>) -> Poll<HandOut<S>> {
        loop {
            if self.recorder.stop().signalled()
                && let Some(last) = self.interrupted()
            {
                return Poll::Ready(last);
            }
            let step = match &mut self.state {
                State::Streaming(source) => match source.as_mut().try_poll_next(cx) {
                    Poll::Ready(Some(Ok(item))) => {
                        if let Some(violation) = self.arrived::<V>(&item) {
                            return Poll::Ready(Some(Err(self.fail(Error::Guardrail(violation)))));
                        }
                        return Poll::Ready(Some(Ok(Chunk::Item(item))));
                    }
                    Poll::Ready(Some(Err(error))) => self.attempt_failed(Cause::Source(error)),
                    Poll::Ready(None) => self.source_ended(),
                    Poll::Pending => ready!(self.wait(cx)),
                },
                _ => ready!(self.between_sources(cx)),
            };
            if let Step::HandOut(last) = step {
                return Poll::Ready(last);
            }
        }
    }

    /// The run has ended, or was told to stop, or an `until` future was woken for nothing.
    #[cold]
    fn interrupted(&mut self) -> Option<HandOut<S>> {
        if self.recorder.finished() {
            return Some(self.end());
        }
        let requested = self.recorder.stop().requested();
        requested.then(|| Some(Err(self.fail(Error::Aborted))))
    }

    /// There is no source, or none yet.
    #[inline(never)]
    fn between_sources(&mut self, cx: &mut Context<'_>) -> Poll<Step<S>> {
        Poll::Ready(match &mut self.state {
            State::Connecting(_) => match self.poll_connect(cx) {
                Poll::Ready(Ok(source)) => {
                    self.state = State::Streaming(Box::pin(source));
                    Step::Continue
                }
                Poll::Ready(Err(error)) => self.attempt_failed(Cause::Source(error)),
                Poll::Pending => return self.wait(cx),
            },
            State::Yielding => {
                self.state = State::Ready;
                self.park();
                // By the clock, since a wait of no time needs no timer.
                match self.deadlines.passed() {
                    Some(kind) => self.attempt_failed(Cause::Timeout(kind)),
                    None => {
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                }
            }
            State::BackingOff(timer, _) => match timer.poll(cx) {
                Poll::Ready(Ok(())) => {
                    self.state = State::Ready;
                    Step::Continue
                }
                Poll::Ready(Err(NoTimer)) => self.back_off_failed(),
                Poll::Pending => return self.wait(cx),
            },
            State::Ready => self.begin_attempt(),
            // A source was looked for before, and finished runs do not get here.
            State::Streaming(_) | State::Refused(_) | State::Done => Step::Continue,
        })
    }

    /// What a finished run hands out: the refusal, once, and then nothing.
    #[cold]
    fn end(&mut self) -> HandOut<S> {
        match std::mem::replace(&mut self.state, State::Done) {
            State::Refused(refusal) => Some(Err(Error::Refused(refusal))),
            _ => None,
        }
    }

    fn begin_attempt(&mut self) -> Step<S> {
        self.unpark();
        self.attempt += 1;
        let to_revoke = std::mem::take(&mut self.has_item);
        self.deadlines.new_attempt();
        self.checks = self.settings.checks();
        self.state = State::Connecting(None);
        if !to_revoke {
            return Step::Continue;
        }
        self.recorder.handed_out();
        Step::HandOut(Some(Ok(Chunk::Restart {
            attempt: self.attempt,
        })))
    }

    /// Calls the factory, if it was not, and polls its future, inside the observers' contexts.
    fn poll_connect(&mut self, cx: &mut Context<'_>) -> Poll<Result<S, S::Error>> {
        let Self {
            recorder,
            state: State::Connecting(connecting),
            factory,
            attempt,
            ..
        } = self
        else {
            return Poll::Pending;
        };
        if connecting.is_none() {
            // Here and not where the attempt begins: a consumer may be gone after the restart.
            recorder.attempt_started(*attempt);
        }
        let mut polled = Poll::Pending;
        recorder.connect(|| {
            let attempt = Attempt { number: *attempt };
            let future = connecting.get_or_insert_with(|| factory(attempt));
            polled = future.as_mut().poll(cx);
        });
        polled
    }

    /// The source gave an item, which is handed out next, unless it breaks a rule that ends the
    /// run.
    #[inline]
    fn arrived<V: View<S::Ok>>(&mut self, item: &S::Ok) -> Option<Violation> {
        let timed = self.recorder.timed();
        let read_clock = timed || (self.parked && self.deadlines.any());
        let now = read_clock.then(clock::now);
        if let (true, Some(now)) = (self.parked, now) {
            self.deadlines.disarm(now);
        }
        self.parked = false;
        let view = V::read(self.read_item, item);
        self.output.add(&view);
        self.recorder.item(&view, now.filter(|_| timed));
        self.has_item = true;
        if let Some(checks) = &mut self.checks
            && view.kind == TokenKind::Text
            && !view.text.is_empty()
        {
            let halting = checks.text(view.text, &mut self.recorder);
            if halting.is_some() {
                return halting;
            }
        }
        None
    }

    /// Nothing is ready: pending, unless a deadline has passed or the run was told to stop.
    #[inline(never)]
    fn wait(&mut self, cx: &mut Context<'_>) -> Poll<Step<S>> {
        self.recorder.stop().register(cx.waker());
        // Told between the last look and the registration: go round once more.
        if self.recorder.stop().requested() {
            return Poll::Ready(Step::Continue);
        }
        if !self.parked {
            self.park();
        }
        match ready!(self.deadlines.poll(cx)) {
            Ok(kind) => Poll::Ready(self.attempt_failed(Cause::Timeout(kind))),
            Err(NoTimer) => Poll::Ready(Step::HandOut(Some(Err(self.fail(Error::NoTimer))))),
        }
    }

    /// A wait begins. The clock is read once per wait, however often it is polled.
    fn park(&mut self) {
        self.parked = true;
        let timed = self.recorder.timed();
        if !timed && !self.deadlines.any() {
            return;
        }
        let now = clock::now();
        if timed {
            self.recorder.pending(now);
        }
        let wait_for = match self.state {
            State::BackingOff(..) | State::Ready => WaitFor::BackOff,
            _ if self.has_item => WaitFor::NextItem,
            _ => WaitFor::FirstItem,
        };
        self.deadlines.arm(wait_for, now);
    }

    /// A wait ends without an item.
    fn unpark(&mut self) {
        if std::mem::take(&mut self.parked) && self.deadlines.any() {
            self.deadlines.disarm(clock::now());
        }
    }

    #[cold]
    fn source_ended(&mut self) -> Step<S> {
        match self.output.judge(self.expect) {
            Ok(()) => {}
            Err(Shortfall::Truncated) => return self.attempt_failed(Cause::Truncated),
            Err(Shortfall::ZeroOutput) => {
                if let Some(checks) = &mut self.checks {
                    checks.zero_output(&mut self.recorder);
                }
                return self.attempt_failed(Cause::ZeroOutput);
            }
        }
        let verdict = match &mut self.checks {
            Some(checks) => checks.end(&mut self.recorder),
            None => Verdict::Pass,
        };
        match verdict {
            Verdict::Pass => self.complete(),
            Verdict::Halt(violation) => {
                Step::HandOut(Some(Err(self.fail(Error::Guardrail(violation)))))
            }
            Verdict::Violated(violation) => self.attempt_failed(Cause::Violated(violation)),
            Verdict::Drifted(report) => self.attempt_failed(Cause::Drifted(report)),
        }
    }

    fn complete(&mut self) -> Step<S> {
        self.recorder.finish(Outcome::Completed, None);
        self.state = State::Done;
        Step::HandOut(None)
    }

    /// Retries a failed attempt, or ends the run: an answer that only broke rules is better than
    /// none, so that it completes.
    #[cold]
    fn attempt_failed(&mut self, cause: Cause<S::Error>) -> Step<S> {
        // Gives the connection back before the back-off.
        self.state = State::Done;
        self.unpark();
        let final_timeout = matches!(cause, Cause::Timeout(TimeoutKind::Total));
        let failure = self.read_failure(&cause);
        if self.output.finished() && matches!(failure.kind, FailureKind::Network(_)) {
            return self.broke_after_the_answer(&cause, failure);
        }
        let reason = reason(&cause, failure.kind);
        let completes = cause.completes();
        let error = match cause {
            Cause::Source(source) => Error::Source {
                source,
                attempts: self.attempt,
            },
            Cause::Truncated => Error::Truncated,
            Cause::ZeroOutput => Error::ZeroOutput,
            Cause::Timeout(kind) => Error::Timeout(kind),
            Cause::Violated(violation) => Error::Guardrail(violation),
            Cause::Drifted(report) => {
                let message = format!("The answer drifted: {}", report.types.join(", "));
                Error::Guardrail(Violation::new("drift", Severity::Error, message))
            }
        };
        let failed = Failed {
            attempt: self.attempt,
            failure,
            reason,
            error: error.cause(),
        };
        let planned = if final_timeout {
            None
        } else {
            self.retries
                .plan(&self.settings.retry, &failed, &mut self.rng)
        };
        // Without a timer there is no back-off, and so no retry.
        let retry = planned.and_then(|(kind, delay)| Some((kind, delay, back_off(delay).ok()?)));
        if let Some(kind) = failure.network_error_kind() {
            let delay = retry.as_ref().map(|(_, delay, _)| *delay);
            let attempt = Some(self.attempt);
            self.recorder
                .network_error(kind, failed.error, delay, attempt);
        }
        let Some((kind, delay, timer)) = retry else {
            if completes {
                return self.complete();
            }
            return Step::HandOut(Some(Err(self.fail(error))));
        };
        self.retries.count(kind);
        self.recorder.retry(self.attempt + 1, kind, reason, delay);
        // The attempt is void from here on: a timeout of the back-off must not find it complete.
        self.output = Output::default();
        self.state = match timer {
            Some(timer) => State::BackingOff(timer, Box::new(error)),
            None => State::Yielding,
        };
        Step::Continue
    }

    /// The connection failed after the finish reason: nothing of the answer is missing, and another
    /// attempt would throw it away.
    #[cold]
    fn broke_after_the_answer(&mut self, cause: &Cause<S::Error>, failure: Failure) -> Step<S> {
        if let Some(kind) = failure.network_error_kind() {
            let attempt = Some(self.attempt);
            match cause {
                Cause::Source(error) => self.recorder.network_error(kind, error, None, attempt),
                Cause::Timeout(which) => {
                    let error = Error::<S::Error>::Timeout(*which);
                    self.recorder.network_error(kind, &error, None, attempt);
                }
                _ => {}
            }
        }
        self.source_ended()
    }

    /// The runtime that kept the timer is gone: there is no further attempt.
    #[cold]
    fn back_off_failed(&mut self) -> Step<S> {
        let error = match std::mem::replace(&mut self.state, State::Done) {
            // It would have completed without the retry.
            State::BackingOff(_, error) if matches!(*error, Error::Guardrail(_)) => {
                return self.complete();
            }
            State::BackingOff(_, error) => *error,
            _ => Error::NoTimer,
        };
        Step::HandOut(Some(Err(self.fail(error))))
    }

    fn read_failure(&self, cause: &Cause<S::Error>) -> Failure {
        match cause {
            Cause::Source(error) => self
                .classify
                .as_ref()
                .and_then(|classify| classify(error))
                .unwrap_or_else(|| failure::read(error)),
            Cause::Truncated => Failure::network(NetworkErrorKind::PartialChunks),
            Cause::ZeroOutput | Cause::Violated(_) | Cause::Drifted(_) => Failure::model(),
            Cause::Timeout(_) => Failure::network(NetworkErrorKind::Timeout),
        }
    }

    /// Finishes the run with this error, and drops the source.
    #[cold]
    fn fail(&mut self, error: Error<S::Error>) -> Error<S::Error> {
        self.recorder.finish(error.outcome(), Some(error.cause()));
        self.state = State::Done;
        error
    }
}

/// The timer of a back-off. No delay needs none.
fn back_off(delay: Duration) -> Result<Option<Timer>, NoTimer> {
    if delay.is_zero() {
        return Ok(None);
    }
    let now = clock::now();
    // Beyond the clock's range is as good as a year.
    let year = Duration::from_secs(365 * 24 * 60 * 60);
    let deadline = now.checked_add(delay.min(year)).unwrap_or(now);
    Timer::new(deadline).map(Some)
}

fn reason<E>(cause: &Cause<E>, kind: FailureKind) -> RetryReason {
    match (cause, kind) {
        (Cause::Truncated, _) => RetryReason::Truncated,
        (Cause::ZeroOutput, _) => RetryReason::ZeroOutput,
        (Cause::Violated(_), _) => RetryReason::GuardrailViolation,
        (Cause::Drifted(_), _) => RetryReason::Drift,
        (Cause::Timeout(_), _) | (_, FailureKind::Network(NetworkErrorKind::Timeout)) => {
            RetryReason::Timeout
        }
        (_, FailureKind::RateLimited) => RetryReason::RateLimited,
        (_, FailureKind::Server) => RetryReason::ServerError,
        (_, FailureKind::Model) => RetryReason::ModelError,
        (_, FailureKind::Network(_) | FailureKind::Fatal) => RetryReason::NetworkError,
    }
}

impl<S, T, E> Stream for Run<'_, S>
where
    S: Stream<Item = Result<T, E>>,
    E: StdError + Send + Sync + 'static,
{
    type Item = Result<Chunk<T>, Error<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        (self.poll)(&mut self, cx)
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

impl<S, T, E> FusedStream for Run<'_, S>
where
    S: Stream<Item = Result<T, E>>,
    E: StdError + Send + Sync + 'static,
{
    fn is_terminated(&self) -> bool {
        self.recorder.finished() && !matches!(self.state, State::Refused(_))
    }
}

impl<S: TryStream> fmt::Debug for Run<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("info", self.info())
            .field("attempt", &self.attempt)
            .field("outcome", &self.outcome())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::task::Waker;

    use crate::clock;
    use crate::monitor::Monitoring;
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

    #[test]
    fn a_chunk_gives_its_item() {
        assert_eq!(Chunk::Item(1).into_item(), Some(1));
        assert_eq!(Chunk::<u8>::Restart { attempt: 2 }.into_item(), None);
    }
}
