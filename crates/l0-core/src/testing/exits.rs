//! Every way a run can end, as a table to test exporters against.
//!
//! [`all`] returns the table. [`Exit::run`] makes a run that ends in one of these ways, while your
//! interceptors watch it. Compare what they export with what the exit says: its [`end`](Exit::end), its
//! [`events`](Exit::events) and its [`duration`](Exit::duration).
//!
//! ```
//! use l0_core::testing::{Captured, OwnedEvent, exits};
//! use l0_core::{L0, Monitoring};
//!
//! # fn main() -> std::io::Result<()> {
//! for exit in exits::all() {
//!     let runtime = tokio::runtime::Builder::new_current_thread()
//!         .enable_time()
//!         .start_paused(true)
//!         .build()?;
//!     let captured = Captured::new(); // yours in place of this one
//!     let builder = L0::builder()
//!         .monitoring(Monitoring::new().metadata("model", "gpt-4"))
//!         .interceptor(captured.clone());
//!
//!     let exited = exit.run(runtime, builder);
//!
//!     assert_eq!(exited.last, exit.last, "{exit}");
//!     assert_eq!(exited.handle.end(), Some(exit.end.clone()), "{exit}");
//!     assert_eq!(captured.kinds(), exit.events, "{exit}");
//!     let Some(OwnedEvent::Finished { end, telemetry, .. }) = captured.events().pop() else {
//!         panic!("{exit}: there is no end");
//!     };
//!     assert_eq!(end, exit.end, "{exit}");
//!     assert_eq!(telemetry.as_deref(), exited.handle.telemetry().as_ref(), "{exit}");
//! }
//! # Ok(())
//! # }
//! ```

use std::fmt;
use std::future::{Future, pending, poll_fn};
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::stream::{FusedStream, Stream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::script::{Script, ScriptedError, ScriptedStream, ScriptedToken};
use crate::budget::Budget;
use crate::check::{Check, Finding, Findings};
use crate::end::{Cause, End, LimitKind, TimeoutKind};
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::failure::Failure;
use crate::l0::{L0, L0Builder};
use crate::limits::Limits;
use crate::money::{Currency, Money};
use crate::observe::{Interceptor, NewRun, Observer, Observers, RunInfo};
use crate::options::Builder;
use crate::price::{Cost, CostSource};
use crate::retry::{Backoff, Retry};
use crate::run::{Call, Chunk, ForRun, Run, Watched};
use crate::source::{View, source};
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::timeout::Timeouts;
use crate::token::{FinishReason, TokenKind, TokenView};
use crate::usage::Usage;
use crate::verdict::{DriftReport, Outcome, Severity, Violation};

const MS: Duration = Duration::from_millis(1);

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A run of a source that can be called again: of [`L0::stream`].
    Stream,
    /// A stream that is only watched: of [`L0::watch`].
    Watch,
    /// A request whose answer comes as one: of [`L0::call`].
    Call,
}

/// What the consumer of a run sees last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Last {
    /// Nothing: it drops the run before the end.
    Unseen,
    /// The end of the stream, or the answer of a call.
    End,
    /// An error with this text: of the run, or that of the source if the stream is watched.
    Error(String),
    /// A panic.
    Panic,
}

/// One way a run can end.
///
/// The consumer's ways to stop reading are among them, and so is a runtime that shuts down. Several
/// have the same [`End`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exit {
    /// What happens, in a few words. A retried run, a watched stream and a call that end in the same way
    /// have the same name.
    pub name: &'static str,
    /// What ends.
    pub subject: Subject,
    /// How it ends. The message is the one without
    /// [`Monitoring::error_text`](crate::Monitoring::error_text).
    pub end: End,
    /// What the consumer sees last.
    pub last: Last,
    /// The [names](Event::name) of the events, in their order.
    pub events: Vec<&'static str>,
    /// How long the run takes if its clock is paused; absent where it runs outside of a runtime, whose
    /// clock cannot be.
    pub duration: Option<Duration>,
    setup: Setup,
}

/// Names the exit and its subject.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject {
            Subject::Stream => f.write_str(self.name),
            Subject::Watch => write!(f, "{} (watched)", self.name),
            Subject::Call => write!(f, "{} (called)", self.name),
        }
    }
}

/// A run that has ended, as its consumer saw it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exited {
    /// What the consumer saw last.
    pub last: Last,
    /// What was known of the run from its start on.
    pub info: RunInfo,
    /// A handle of the run: it has the end and the final telemetry.
    pub handle: RunHandle,
    /// What the run said of itself when it handed its last item out; absent if nobody saw that.
    pub at_last_item: Option<AtLastItem>,
    /// What happened, in its order. These are the [names](Event::name) of the events, without tokens;
    /// `item` and `restart` for what the consumer got, `last` for the last item, and `more` if a run
    /// gave anything after that; `abort` if the consumer aborted and did not poll again.
    pub trace: Vec<&'static str>,
}

/// What a run says of itself when it hands its last item out.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AtLastItem {
    /// Its end.
    pub end: Option<End>,
    /// Its telemetry.
    pub telemetry: Option<Telemetry>,
    /// Whether it says that it gives nothing more; absent if that is up to a watched stream.
    pub is_terminated: Option<bool>,
}

/// What an exit is made of.
#[derive(Debug, Clone)]
struct Setup {
    script: Script,
    /// What stands in for it.
    fallback: Option<Script>,
    consumer: Consumer,
    configure: fn(L0Builder) -> L0Builder,
    expect_finish: bool,
    panics_in: Option<Hook>,
}

/// What the consumer does with the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Consumer {
    ReadsToTheEnd,
    ReadsOutsideOfARuntime,
    DropsBeforeTheFirstPoll,
    DropsAfterOneItem,
    AbortsByHandleAfterOneItem,
    AbortsByFutureAfterOneItem,
    AbortsByFuture,
    AbortsByHandle,
    AbortsByHandleBeforeTheFirstPoll,
    AbortsByHandleThenDrops,
    AbortsByFutureThenDrops,
    IsATaskThatIsAborted,
    Panics,
    OutlivesItsRuntime,
}

/// A closure of the run, beside those that its configuration has.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hook {
    Classify,
    Until,
    View,
}

/// How a subject ends.
#[derive(Debug, Clone)]
struct Way {
    end: End,
    last: Last,
    /// Between the start and the end; where attempts end is added.
    events: &'static str,
    duration: Option<Duration>,
}

impl Way {
    fn new(end: End, last: Last) -> Self {
        Self {
            end,
            last,
            events: "",
            duration: Some(Duration::ZERO),
        }
    }

    fn completed() -> Self {
        Self::new(End::completed(), Last::End)
    }

    /// The consumer is told why.
    fn failed(cause: Cause) -> Self {
        let error = match &cause {
            Cause::Truncated => Error::Truncated,
            Cause::ZeroOutput => Error::ZeroOutput,
            Cause::Timeout(kind) => Error::Timeout(*kind),
            Cause::Violation(violation) => Error::Guardrail(violation.clone()),
            Cause::Limit(kind) => Error::Limit(*kind),
            Cause::Aborted => Error::Aborted,
            _ => Error::NoTimer,
        };
        Self::new(End::of(cause), Last::Error(text(&error)))
    }

    /// The source fails, in as many attempts.
    fn source(source: impl Into<ScriptedError>, attempts: u32) -> Self {
        let source = source.into();
        let end = End::failed(&source);
        let failure = Failure::read(&source);
        let error = Error::Source {
            source,
            failure,
            attempts,
        };
        Self::new(end, Last::Error(text(&error)))
    }

    /// It takes as many milliseconds, and between its start and its end this happens.
    fn takes(mut self, millis: u32, events: &'static str) -> Self {
        self.duration = Some(millis * MS);
        self.events = events;
        self
    }

    /// It takes as long as the machine needs.
    fn takes_real_time(mut self) -> Self {
        self.duration = None;
        self
    }

    fn last(mut self, last: Last) -> Self {
        self.last = last;
        self
    }
}

fn text(error: &Error<ScriptedError>) -> String {
    error.to_string()
}

/// A row of the table: how a run ends, and how a watched stream does.
struct Row {
    name: &'static str,
    setup: Setup,
    stream: Way,
    /// Absent where a watched stream cannot end so.
    watch: Option<Way>,
    /// Absent where a call cannot end so.
    call: Option<Way>,
}

/// A row of which a watched stream, and a call, end as a run does.
fn row(name: &'static str, script: Script, stream: Way) -> Row {
    Row {
        name,
        setup: Setup {
            script,
            fallback: None,
            consumer: Consumer::ReadsToTheEnd,
            configure: |builder| builder,
            expect_finish: false,
            panics_in: None,
        },
        watch: Some(stream.clone()),
        call: Some(stream.clone()),
        stream,
    }
}

impl Row {
    fn consumer(mut self, consumer: Consumer) -> Self {
        self.setup.consumer = consumer;
        self
    }

    fn configure(mut self, configure: fn(L0Builder) -> L0Builder) -> Self {
        self.setup.configure = configure;
        self
    }

    fn expect_finish(mut self) -> Self {
        self.setup.expect_finish = true;
        self
    }

    fn panics_in(mut self, hook: Hook) -> Self {
        self.setup.panics_in = Some(hook);
        self
    }

    /// A watched stream ends in another way.
    fn watch(mut self, way: Way) -> Self {
        self.watch = Some(way);
        self
    }

    /// A watched stream gives no error of L0: it only ends.
    fn watch_ends(mut self) -> Self {
        self.watch = Some(self.stream.clone().last(Last::End));
        self
    }

    /// The first error of a watched stream is the end, after 5 ms.
    fn watch_fails(self, source: impl Into<ScriptedError>, events: &'static str) -> Self {
        let source = source.into();
        let last = Last::Error(source.to_string());
        self.watch(Way::new(End::failed(&source), last).takes(5, events))
    }

    /// An attempt of a watched stream starts with it, and that of a run with its first poll.
    fn watch_has_started(mut self) -> Self {
        self.watch = Some(self.stream.clone().takes(0, STARTED));
        self
    }

    /// A watched stream cannot end so.
    fn no_watch(mut self) -> Self {
        self.watch = None;
        self
    }

    /// A call ends in another way.
    fn call(mut self, way: Way) -> Self {
        self.call = Some(way);
        self
    }

    /// A call cannot end so.
    fn no_call(mut self) -> Self {
        self.call = None;
        self
    }

    /// Another source stands in.
    fn fallback(mut self, script: Script) -> Self {
        self.setup.fallback = Some(script);
        self.no_watch()
    }

    fn exits(self) -> impl Iterator<Item = Exit> {
        let Self { name, setup, .. } = self;
        let stream = (Subject::Stream, self.stream);
        let watch = self.watch.map(|way| (Subject::Watch, way));
        let call = self.call.map(|way| (Subject::Call, way));
        let ways = [stream].into_iter().chain(watch).chain(call);
        ways.map(move |(subject, way)| Exit {
            name,
            subject,
            events: events(subject, &way),
            end: way.end,
            last: way.last,
            duration: way.duration,
            setup: setup.clone(),
        })
    }
}

/// All events of a way. An attempt that has started ends before what follows it; an answer that comes
/// as one has no tokens, and is there before it is judged, and before a call completes.
fn events(subject: Subject, way: &Way) -> Vec<&'static str> {
    let is_call = subject == Subject::Call;
    let mut events = vec!["started"];
    let (mut is_open, mut is_answered) = (false, false);
    for event in way.events.split_whitespace().chain(["finished"]) {
        let follows = ["retry", "fallback", "finished"].contains(&event);
        let completes = event == "finished" && way.end.outcome() == Outcome::Completed;
        let is_cut = event == "network_error" && way.end.cause() == Some(&Cause::Truncated);
        let is_judged = is_cut || ["violation", "drift"].contains(&event);
        if is_call && !is_answered && (completes || is_judged) {
            events.push("answer");
            is_answered = true;
        }
        if follows && std::mem::take(&mut is_open) {
            events.push("attempt_finished");
        }
        if event == STARTED {
            (is_open, is_answered) = (true, false);
        }
        if !is_call || !["first_token", "token"].contains(&event) {
            events.push(event);
        }
    }
    events
}

/// Returns every way a run can end.
#[must_use]
pub fn all() -> Vec<Exit> {
    let rows = [
        completed(),
        failed(),
        checked(),
        timed_out(),
        fallen_back(),
        stopped(),
        panicked(),
        limited(),
    ];
    rows.into_iter().flatten().flat_map(Row::exits).collect()
}

/// An attempt has started, and nothing more has happened.
const STARTED: &str = "attempt_started";

/// The first of all tokens is the only one.
const ONE_TOKEN: &str = "attempt_started first_token token";

const TWO_TOKENS: &str = "attempt_started first_token token token";

const THREE_NETWORK_ERRORS: &str = "attempt_started network_error retry \
                                    attempt_started network_error retry \
                                    attempt_started network_error";

/// Answers after a while.
fn answers() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").wait(5 * MS).token("!"))
}

/// Answers, and says all that a provider can say.
fn answers_in_full() -> Script {
    let mut first = ScriptedToken::new(TokenKind::Text, "Hello");
    first.model = Some("gpt-4-0613".to_owned());
    first.response_id = Some("resp_1".to_owned());
    let usage = Usage::new().input(12).output(3).total(15);
    let usage = usage.cached_input(5).cache_write_input(4).reasoning(1);
    Script::new().attempt(|a| {
        let a = a.wait(5 * MS).item(first).wait(5 * MS).token("!");
        a.usage(usage).finish(FinishReason::Length)
    })
}

/// Says something after a while, and then nothing more.
fn hangs() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").hang())
}

/// Says something after a while, and fails.
fn fails(error: impl Into<ScriptedError>) -> Script {
    let error = error.into();
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").fail(error))
}

fn long_back_off(builder: L0Builder) -> L0Builder {
    builder.retry(Retry::new().backoff(Backoff::fixed(100 * MS)))
}

fn two_retries(builder: L0Builder) -> L0Builder {
    builder.retry(Retry::new().max_retries(2).backoff(Backoff::fixed(MS)))
}

const RESET: ErrorKind = ErrorKind::ConnectionReset;

fn completed() -> Vec<Row> {
    let behind = |a: super::ScriptedAttempt| {
        let answer = a.wait(5 * MS).token("Hello").finish(FinishReason::Stop);
        answer.fail(RESET)
    };
    let broken = "attempt_started first_token token network_error";
    vec![
        row(
            "completed",
            answers(),
            Way::completed().takes(10, TWO_TOKENS),
        ),
        row(
            "completed by a token limit",
            answers_in_full(),
            Way::completed().takes(10, TWO_TOKENS),
        ),
        row(
            "completed after a retry",
            fails(RESET).attempt(|a| a.wait(5 * MS).token("Hello").wait(7 * MS).token("!")),
            Way::completed().takes(
                18,
                "attempt_started first_token token network_error retry \
                 attempt_started token token",
            ),
        )
        .configure(two_retries)
        .no_watch(),
        row(
            "completed, and then the connection fails",
            Script::new().attempt(behind),
            Way::completed().takes(5, broken),
        )
        .configure(two_retries)
        .watch_fails(RESET, broken)
        .call(Way::source(RESET, 3).takes(17, THREE_NETWORK_ERRORS)),
        row(
            "empty but allowed",
            Script::new(),
            Way::completed().takes(0, STARTED),
        )
        .configure(|builder| builder.detect_zero_output(false)),
        row(
            "completed by a refusal of the model",
            Script::new().attempt(|a| a.finish(FinishReason::Refusal)),
            Way::completed().takes(0, STARTED),
        ),
    ]
}

fn failed() -> Vec<Row> {
    let denied = || Failure::status(401);
    let unconnected = Script::new().attempt(|a| a.connect_error(denied()));
    let empty = Script::new().attempt(|a| a.tokens([" ", "\u{200b}", "\n"]).reasoning("Well"));
    let broken = "attempt_started first_token token network_error";
    let mut rows = vec![
        row(
            "truncated",
            answers(),
            Way::failed(Cause::Truncated)
                .takes(10, "attempt_started first_token token token network_error"),
        )
        .expect_finish()
        .watch_ends(),
        row(
            "empty answer",
            empty,
            Way::failed(Cause::ZeroOutput)
                .takes(0, "attempt_started first_token token token token token"),
        )
        .watch_ends()
        .call(Way::completed().takes(0, STARTED)),
        row(
            "error while connecting",
            unconnected,
            Way::source(denied(), 1).takes(0, STARTED),
        )
        .no_watch(),
        row(
            "error in mid-stream",
            fails(RESET),
            Way::source(RESET, 1).takes(5, broken),
        )
        .watch_fails(RESET, broken),
        row(
            "retries exhausted",
            fails(RESET),
            Way::source(RESET, 3).takes(
                17,
                "attempt_started first_token token network_error retry \
                 attempt_started token network_error retry \
                 attempt_started token network_error",
            ),
        )
        .configure(two_retries)
        .no_watch(),
        row(
            "unknown error",
            fails("a novel fault"),
            Way::source("a novel fault", 1).takes(5, ONE_TOKEN),
        )
        .configure(two_retries)
        .watch_fails("a novel fault", ONE_TOKEN),
        row(
            "faulty answer",
            fails(Failure::model()),
            Way::source(Failure::model(), 3).takes(
                17,
                "attempt_started first_token token retry \
                 attempt_started token retry \
                 attempt_started token",
            ),
        )
        .configure(two_retries)
        .watch_fails(Failure::model(), ONE_TOKEN),
    ];
    for (name, status) in [
        ("status 400", 400),
        ("status 401", 401),
        ("status 402", 402),
        ("status 404", 404),
    ] {
        let failure = Failure::status(status);
        let script = Script::new().attempt(|a| a.wait(5 * MS).fail(failure));
        let way = Way::source(failure, 1).takes(5, STARTED);
        let row = row(name, script, way).configure(two_retries);
        rows.push(row.watch_fails(failure, STARTED));
    }
    for (name, status) in [
        ("status 429, retries exhausted", 429),
        ("status 500, retries exhausted", 500),
    ] {
        let failure = Failure::status(status);
        let script = Script::new().attempt(|a| a.wait(5 * MS).fail(failure));
        let way = Way::source(failure, 3).takes(17, THREE_NETWORK_ERRORS);
        let row = row(name, script, way).configure(two_retries);
        rows.push(row.watch_fails(failure, "attempt_started network_error"));
    }
    rows
}

/// Reports a finding once it sees a phrase.
struct Finds<F>(&'static str, F);

impl<F: Finding> Check<F> for Finds<F> {
    fn name(&self) -> &'static str {
        "exit"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<F>) {
        if delta.contains(self.0) {
            findings.report(self.1.clone());
        }
    }
}

fn faulty() -> Violation {
    Violation::new("no-fault", Severity::Error, "The answer is faulty")
}

fn deadly() -> Violation {
    let violation = Violation::new("no-death", Severity::Fatal, "The answer is deadly");
    violation.recoverable(false)
}

fn drift() -> DriftReport {
    DriftReport::new(["tone_shift"], 0.9)
}

fn checked() -> Vec<Row> {
    fn says(text: &str) -> Script {
        Script::new().attempt(|a| a.wait(5 * MS).token("Hello, ").token(text))
    }
    let violated = "attempt_started first_token token token violation";
    let drifted = "attempt_started first_token token token drift";
    vec![
        row(
            "halted by a rule",
            says("deadly"),
            Way::failed(Cause::Violation(deadly())).takes(5, violated),
        )
        .configure(|builder| two_retries(builder).guardrails(|| Finds("deadly", deadly())))
        .watch(Way::completed().takes(5, violated)),
        row(
            "recoverable violation, retries exhausted",
            says("faulty"),
            Way::completed().takes(
                17,
                "attempt_started first_token token token violation retry \
                 attempt_started token token violation retry \
                 attempt_started token token violation",
            ),
        )
        .configure(|builder| two_retries(builder).guardrails(|| Finds("faulty", faulty())))
        .watch(Way::completed().takes(5, violated)),
        row(
            "drift, recorded",
            says("drift"),
            Way::completed().takes(5, drifted),
        )
        .configure(|builder| two_retries(builder).drift(|| Finds("drift", drift()))),
        row(
            "drift, retries exhausted",
            says("drift"),
            Way::completed().takes(
                17,
                "attempt_started first_token token token drift retry \
                 attempt_started token token drift retry \
                 attempt_started token token drift",
            ),
        )
        .configure(|builder| two_retries(builder).drift(|| Finds("drift", drift().retry(true))))
        .watch(Way::completed().takes(5, drifted)),
        row(
            "drift and a violation, retries exhausted",
            says("faulty drift"),
            Way::completed().takes(
                17,
                "attempt_started first_token token token drift violation retry \
                 attempt_started token token drift violation retry \
                 attempt_started token token drift violation",
            ),
        )
        .configure(|builder| {
            let checked = two_retries(builder).drift(|| Finds("drift", drift()));
            checked.guardrails(|| Finds("faulty", faulty()))
        })
        .watch(
            Way::completed().takes(5, "attempt_started first_token token token drift violation"),
        ),
    ]
}

fn timed_out() -> Vec<Row> {
    let timeout = |kind| Way::failed(Cause::Timeout(kind));
    let first_token = |builder: L0Builder| builder.timeouts(Timeouts::new().first_token(50 * MS));
    let in_mid_stream = "attempt_started first_token token network_error";
    vec![
        row(
            "first-token timeout of a slow source",
            Script::new().attempt(|a| a.hang()),
            timeout(TimeoutKind::FirstToken).takes(50, "attempt_started network_error"),
        )
        .configure(first_token)
        .no_call(),
        row(
            "first-token timeout of a slow factory",
            Script::new().attempt(|a| a.connect_hang()),
            timeout(TimeoutKind::FirstToken).takes(50, "attempt_started network_error"),
        )
        .configure(first_token)
        .no_call(),
        row(
            "inter-token timeout",
            hangs(),
            timeout(TimeoutKind::InterToken).takes(55, in_mid_stream),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().inter_token(50 * MS)))
        .no_call(),
        row(
            "answer timeout that holds for calls only",
            answers(),
            Way::completed().takes(10, TWO_TOKENS),
        )
        .configure(|builder| two_retries(builder).timeouts(Timeouts::new().answer(7 * MS)))
        .call(timeout(TimeoutKind::Answer).takes(23, THREE_NETWORK_ERRORS)),
        row(
            "total timeout",
            hangs(),
            timeout(TimeoutKind::Total).takes(50, in_mid_stream),
        )
        .configure(|builder| {
            let timeouts = Timeouts::new().total(50 * MS);
            two_retries(builder).timeouts(timeouts)
        }),
        row(
            "idle timeout",
            hangs(),
            timeout(TimeoutKind::Idle).takes(55, in_mid_stream),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().idle(50 * MS)))
        .no_call(),
        row(
            "a back-off that does not fit into the total timeout",
            fails(RESET),
            Way::source(RESET, 1).takes(5, in_mid_stream),
        )
        .configure(|builder| {
            let retry = Retry::new().backoff(Backoff::fixed(100 * MS));
            builder
                .retry(retry)
                .timeouts(Timeouts::new().total(50 * MS))
        }),
        row(
            "nothing to wait with",
            Script::new().attempt(|a| a.token("Hello").hang()),
            Way::failed(Cause::NoTimer)
                .takes(0, ONE_TOKEN)
                .takes_real_time(),
        )
        .consumer(Consumer::ReadsOutsideOfARuntime)
        .configure(|builder| {
            let timeouts = Timeouts::new().answer(50 * MS);
            builder.timeouts(timeouts.inter_token(50 * MS))
        }),
    ]
    .into_iter()
    .map(Row::no_watch)
    .collect()
}

fn fallen_back() -> Vec<Row> {
    let denied = || Failure::status(401);
    let refuses = || Script::new().attempt(|a| a.wait(5 * MS).fail(denied()));
    vec![
        row(
            "completed by a fallback before the first token",
            refuses(),
            Way::completed().takes(
                15,
                "attempt_started fallback attempt_started first_token token token",
            ),
        )
        .fallback(answers()),
        row(
            "completed by a fallback in mid-stream",
            fails(RESET),
            Way::completed().takes(
                15,
                "attempt_started first_token token network_error fallback \
                 attempt_started token token",
            ),
        )
        .fallback(answers()),
        row(
            "completed by a fallback after retries",
            fails(RESET),
            Way::completed().takes(
                27,
                "attempt_started first_token token network_error retry \
                 attempt_started token network_error retry \
                 attempt_started token network_error fallback \
                 attempt_started token token",
            ),
        )
        .configure(two_retries)
        .fallback(answers()),
        row(
            "all sources failed",
            fails(RESET),
            Way::source(denied(), 2).takes(
                10,
                "attempt_started first_token token network_error fallback attempt_started",
            ),
        )
        .fallback(refuses()),
        row(
            "no fallback after a total timeout",
            hangs(),
            Way::failed(Cause::Timeout(TimeoutKind::Total))
                .takes(50, "attempt_started first_token token network_error"),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().total(50 * MS)))
        .fallback(answers()),
        row(
            "no fallback after a rule that halts",
            Script::new().attempt(|a| a.wait(5 * MS).token("deadly")),
            Way::failed(Cause::Violation(deadly()))
                .takes(5, "attempt_started first_token token violation"),
        )
        .configure(|builder| builder.guardrails(|| Finds("deadly", deadly())))
        .fallback(answers()),
    ]
}

struct Refuses;

impl Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("the budget is spent"))
    }
}

struct PanicsBefore;

impl Interceptor for PanicsBefore {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        panic!("the interceptor panics")
    }
}

/// The item that crosses a limit is handed out, and the source, which would hang, is not asked again.
fn limited() -> Vec<Row> {
    let limit = |kind| Way::failed(Cause::Limit(kind));
    let refused = Error::Refused(Refusal::new("the budget is spent"));
    let refused = Way::new(
        End::refused("the budget is spent"),
        Last::Error(text(&refused)),
    );
    let dollar = Cost::new(Money::units(1), Currency::USD, CostSource::Provider);
    let costly = move || {
        Script::new().attempt(move |a| a.wait(5 * MS).token("Hello").cost(dollar).token("!").hang())
    };
    vec![
        row(
            "limited by tokens",
            Script::new().attempt(|a| a.wait(5 * MS).tokens(["Hello", "!"]).hang()),
            limit(LimitKind::OutputTokens).takes(5, TWO_TOKENS),
        )
        .configure(|builder| builder.limits(Limits::new().output_tokens(1)))
        .no_watch()
        .no_call(),
        row(
            "limited by cost",
            costly(),
            limit(LimitKind::Cost).takes(5, ONE_TOKEN),
        )
        .configure(|builder| builder.limits(Limits::new().cost(Money::cents(99))))
        .no_watch()
        .no_call(),
        row(
            "limited by a budget",
            costly(),
            limit(LimitKind::Budget).takes(5, ONE_TOKEN),
        )
        .configure(|builder| builder.budget(Budget::new(Money::cents(99))))
        .no_watch()
        .no_call(),
        row("refused by a budget", answers(), refused)
            .configure(|builder| builder.budget(Budget::new(Money::ZERO)))
            .no_watch(),
        row(
            "limited instead of a retry",
            Script::new().attempt(move |a| a.wait(5 * MS).finish(FinishReason::Stop).cost(dollar)),
            limit(LimitKind::Cost).takes(5, STARTED),
        )
        .configure(|builder| two_retries(builder).limits(Limits::new().cost(Money::cents(99))))
        .no_watch()
        .no_call(),
    ]
}

fn stopped() -> Vec<Row> {
    let refused = |reason: &str| {
        let error = Error::Refused(Refusal::new(reason));
        Way::new(End::refused(reason), Last::Error(text(&error)))
    };
    let aborted = || Way::failed(Cause::Aborted);
    let dropped = || Way::new(End::dropped(), Last::Unseen);
    let ready = || Script::new().attempt(|a| a.tokens(["Hello", ", ", "you"]));
    let silent = || Script::new().attempt(|a| a.hang());
    vec![
        row("refused", answers(), refused("the budget is spent"))
            .configure(|builder| builder.interceptor(Refuses))
            .watch_ends(),
        row(
            "refused by a panic",
            answers(),
            refused("an interceptor panicked before the run"),
        )
        .configure(|builder| builder.interceptor(PanicsBefore))
        .watch_ends(),
        row("aborted by handle", hangs(), aborted().takes(15, ONE_TOKEN))
            .consumer(Consumer::AbortsByHandleAfterOneItem)
            .watch_ends()
            .no_call(),
        row("aborted by future", hangs(), aborted().takes(10, ONE_TOKEN))
            .consumer(Consumer::AbortsByFutureAfterOneItem)
            .watch_ends()
            .no_call(),
        row(
            "aborted by future before the first token",
            silent(),
            aborted().takes(10, STARTED),
        )
        .consumer(Consumer::AbortsByFuture)
        .watch_ends(),
        row(
            "aborted by handle, source ready",
            ready(),
            aborted().takes(10, ONE_TOKEN),
        )
        .consumer(Consumer::AbortsByHandleAfterOneItem)
        .watch_ends()
        .no_call(),
        row(
            "aborted by handle while it waits",
            silent(),
            aborted().takes(10, STARTED),
        )
        .consumer(Consumer::AbortsByHandle)
        .watch_ends(),
        row(
            "aborted by handle in a back-off",
            fails(RESET),
            aborted().takes(10, "attempt_started first_token token network_error retry"),
        )
        .configure(long_back_off)
        .consumer(Consumer::AbortsByHandle)
        .no_watch(),
        row(
            "aborted by future in a back-off",
            fails(RESET),
            aborted().takes(10, "attempt_started first_token token network_error retry"),
        )
        .configure(long_back_off)
        .consumer(Consumer::AbortsByFuture)
        .no_watch(),
        row(
            "dropped in a back-off",
            fails(RESET),
            dropped().takes(10, "attempt_started first_token token network_error retry"),
        )
        .configure(long_back_off)
        .consumer(Consumer::IsATaskThatIsAborted)
        .no_watch(),
        row(
            "aborted by handle, then dropped before the first poll",
            answers(),
            aborted().last(Last::Unseen),
        )
        .consumer(Consumer::AbortsByHandleBeforeTheFirstPoll)
        .watch_has_started(),
        row(
            "aborted by handle, then dropped unpolled",
            answers(),
            aborted().last(Last::Unseen).takes(5, ONE_TOKEN),
        )
        .consumer(Consumer::AbortsByHandleThenDrops)
        .no_call(),
        row(
            "aborted by future, then dropped unpolled",
            answers(),
            aborted().last(Last::Unseen).takes(25, ONE_TOKEN),
        )
        .consumer(Consumer::AbortsByFutureThenDrops)
        .no_call(),
        row("dropped before the first poll", answers(), dropped())
            .consumer(Consumer::DropsBeforeTheFirstPoll)
            .watch_has_started(),
        row(
            "dropped in mid-stream",
            answers(),
            dropped().takes(5, ONE_TOKEN),
        )
        .consumer(Consumer::DropsAfterOneItem)
        .no_call(),
        row("task aborted", hangs(), dropped().takes(10, ONE_TOKEN))
            .consumer(Consumer::IsATaskThatIsAborted),
        row("runtime shut down", hangs(), dropped().takes(10, ONE_TOKEN))
            .consumer(Consumer::OutlivesItsRuntime),
        row(
            "panic in the consumer",
            answers(),
            dropped().last(Last::Panic).takes(5, ONE_TOKEN),
        )
        .consumer(Consumer::Panics)
        .no_call(),
    ]
}

fn panicked() -> Vec<Row> {
    let panic = || Way::new(End::of(Cause::Panic), Last::Panic);
    let source =
        Script::new().attempt(|a| a.wait(5 * MS).token("Hello").panic("the source panics"));
    let factory = Script::new().attempt(|a| a.connect_panic("the factory panics"));
    vec![
        row("panic in the source", source, panic().takes(5, ONE_TOKEN)),
        row("panic in the factory", factory, panic().takes(0, STARTED)).no_watch(),
        row("panic in the view", answers(), panic().takes(5, STARTED))
            .panics_in(Hook::View)
            .call(panic().takes(10, STARTED)),
        row("panic in an `until` future", answers(), panic())
            .panics_in(Hook::Until)
            .watch_has_started(),
        row(
            "panic in `classify`",
            fails(RESET),
            panic().takes(5, ONE_TOKEN),
        )
        .panics_in(Hook::Classify)
        .no_watch(),
        row(
            "panic in `decide`",
            fails(RESET),
            panic().takes(5, ONE_TOKEN),
        )
        .configure(|builder| builder.retry(Retry::new().decide(|_| panic!("`decide` panics"))))
        .no_watch(),
    ]
}

impl Exit {
    /// Returns how often an event of this [name](Event::name) happens.
    #[must_use]
    pub fn count(&self, event: &str) -> u64 {
        self.events.iter().filter(|name| **name == event).count() as u64
    }

    /// Makes a run that ends in this way, and returns what its consumer saw. A panic that belongs to
    /// the way is caught; its message is printed as that of any other panic.
    ///
    /// `builder` makes the run. This method sets its retries, timeouts and checks; retries are off
    /// unless the way is about them. Interceptors, monitoring and the seed are yours.
    ///
    /// `runtime` needs a timer, and its clock should be paused, so that times are exact. It is shut
    /// down before this method returns.
    ///
    /// # Panics
    ///
    /// Panics if `runtime` has no timer, or if this is called inside of another runtime.
    #[must_use]
    pub fn run(&self, runtime: Runtime, builder: L0Builder) -> Exited {
        let trace = Trace::default();
        let builder = (self.setup.configure)(builder.retry(Retry::none()));
        let l0 = builder.interceptor(trace.clone()).build();
        let started = OnceLock::new();
        let start = || {
            let subject = self.start(&l0);
            let known = started.set((subject.info().clone(), subject.handle()));
            known.expect("it is started once");
            subject
        };
        let consumer = self.setup.consumer;
        let ended = catch_unwind(AssertUnwindSafe(|| {
            if consumer == Consumer::ReadsOutsideOfARuntime {
                let mut subject = start();
                return read_without_waiting(&mut *subject, &trace);
            }
            runtime.block_on(async {
                // Here, since a sleep can only be made inside a runtime.
                let subject = start();
                consume(subject, consumer, &trace).await
            })
        }));
        drop(runtime);
        let (last, at_last_item) = ended.unwrap_or((Last::Panic, None));
        let (info, handle) = started.into_inner().expect("a run starts");
        Exited {
            last,
            info,
            handle,
            at_last_item,
            trace: std::mem::take(&mut *trace.lock()),
        }
    }

    fn start(&self, l0: &L0) -> Box<dyn Driven> {
        fn panics(_: &ScriptedToken) -> TokenView<'_> {
            panic!("the view panics")
        }

        let setup = &self.setup;
        let script = setup.script.anew();
        let fallback = setup.fallback.as_ref().map(Script::anew);
        let view_panics = setup.panics_in == Some(Hook::View);
        match self.subject {
            Subject::Stream => {
                let mut builder = setup.stopped_by(l0.stream(script.source()));
                if let Some(fallback) = fallback {
                    builder = builder.fallback(source(fallback.source()));
                }
                if setup.panics_in == Some(Hook::Classify) {
                    builder = builder.classify(|_| panic!("`classify` panics"));
                }
                if view_panics {
                    Box::new(builder.view_with(panics).start())
                } else {
                    Box::new(builder.start())
                }
            }
            Subject::Call => {
                let mut builder = setup.stopped_by(l0.call(script.answers()));
                if let Some(fallback) = fallback {
                    builder = builder.fallback(source(fallback.answers()));
                }
                if setup.panics_in == Some(Hook::Classify) {
                    builder = builder.classify(|_| panic!("`classify` panics"));
                }
                if view_panics {
                    Box::new(builder.view_with(panics).start())
                } else {
                    Box::new(builder.start())
                }
            }
            Subject::Watch => {
                let builder = setup.stopped_by(l0.watch(script.stream()));
                if view_panics {
                    Box::new(builder.view_with(panics).start())
                } else {
                    Box::new(builder.start())
                }
            }
        }
    }
}

impl Setup {
    /// Sets what runs and watched streams share.
    fn stopped_by<W>(&self, builder: Builder<ForRun<'static, W>>) -> Builder<ForRun<'static, W>> {
        let builder = if self.expect_finish {
            builder.expect_finish()
        } else {
            builder
        };
        if self.panics_in == Some(Hook::Until) {
            return builder.until(poll_fn(|_| -> Poll<()> { panic!("`until` panics") }));
        }
        match self.consumer {
            Consumer::AbortsByFuture
            | Consumer::AbortsByFutureAfterOneItem
            | Consumer::AbortsByFutureThenDrops => builder.until(sleep(10 * MS)),
            _ => builder.until(pending::<()>()),
        }
    }
}

/// A run or a watched stream.
trait Driven: Send {
    /// Gives the name of what was handed out, or what came last.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<&'static str, Last>>;
    fn info(&self) -> &RunInfo;
    fn handle(&self) -> RunHandle;
    fn at_last_item(&self) -> AtLastItem;
}

impl Driven for Run<'static, ScriptedToken, ScriptedError> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<&'static str, Last>> {
        Pin::new(self).poll_next(cx).map(|item| match item {
            Some(Ok(Chunk::Item(_))) => Ok("item"),
            Some(Ok(Chunk::Restart { .. })) => Ok("restart"),
            Some(Err(error)) => Err(Last::Error(text(&error))),
            None => Err(Last::End),
        })
    }

    fn info(&self) -> &RunInfo {
        self.info()
    }

    fn handle(&self) -> RunHandle {
        self.handle()
    }

    fn at_last_item(&self) -> AtLastItem {
        AtLastItem {
            end: self.end().cloned(),
            telemetry: self.telemetry(),
            is_terminated: Some(self.is_terminated()),
        }
    }
}

impl Driven for Call<'static, ScriptedToken, ScriptedError> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<&'static str, Last>> {
        Pin::new(self).poll(cx).map(|answer| match answer {
            Ok(_) => Err(Last::End),
            Err(error) => Err(Last::Error(text(&error))),
        })
    }

    fn info(&self) -> &RunInfo {
        self.info()
    }

    fn handle(&self) -> RunHandle {
        self.handle()
    }

    fn at_last_item(&self) -> AtLastItem {
        AtLastItem {
            end: self.end().cloned(),
            telemetry: self.telemetry(),
            is_terminated: None,
        }
    }
}

impl<V: View<ScriptedToken> + Send> Driven for Watched<ScriptedStream, V> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<&'static str, Last>> {
        Pin::new(self).poll_next(cx).map(|item| match item {
            Some(Ok(_)) => Ok("item"),
            Some(Err(error)) => Err(Last::Error(error.to_string())),
            None => Err(Last::End),
        })
    }

    fn info(&self) -> &RunInfo {
        self.info()
    }

    fn handle(&self) -> RunHandle {
        self.handle()
    }

    fn at_last_item(&self) -> AtLastItem {
        AtLastItem {
            end: self.end().cloned(),
            telemetry: self.telemetry(),
            is_terminated: None,
        }
    }
}

type Seen = (Last, Option<AtLastItem>);

const UNSEEN: Seen = (Last::Unseen, None);

async fn consume(mut subject: Box<dyn Driven>, consumer: Consumer, trace: &Trace) -> Seen {
    match consumer {
        Consumer::ReadsToTheEnd | Consumer::ReadsOutsideOfARuntime | Consumer::AbortsByFuture => {
            read(&mut *subject, trace).await
        }
        Consumer::DropsBeforeTheFirstPoll => UNSEEN,
        Consumer::AbortsByHandleBeforeTheFirstPoll => {
            subject.handle().abort();
            trace.push("abort");
            UNSEEN
        }
        Consumer::DropsAfterOneItem => {
            one_item(&mut *subject, trace).await;
            UNSEEN
        }
        Consumer::AbortsByHandle => {
            let handle = subject.handle();
            // From elsewhere.
            tokio::spawn(async move {
                sleep(10 * MS).await;
                handle.abort();
            });
            read(&mut *subject, trace).await
        }
        Consumer::AbortsByHandleAfterOneItem => {
            one_item(&mut *subject, trace).await;
            let handle = subject.handle();
            // From elsewhere.
            tokio::spawn(async move { handle.abort() });
            sleep(10 * MS).await;
            read(&mut *subject, trace).await
        }
        Consumer::AbortsByFutureAfterOneItem => {
            one_item(&mut *subject, trace).await;
            read(&mut *subject, trace).await
        }
        Consumer::AbortsByHandleThenDrops => {
            one_item(&mut *subject, trace).await;
            subject.handle().abort();
            trace.push("abort");
            UNSEEN
        }
        Consumer::AbortsByFutureThenDrops => {
            one_item(&mut *subject, trace).await;
            sleep(20 * MS).await;
            UNSEEN
        }
        Consumer::IsATaskThatIsAborted => {
            let reader = trace.clone();
            let task = tokio::spawn(async move { read(&mut *subject, &reader).await });
            sleep(10 * MS).await;
            task.abort();
            task.await.unwrap_or(UNSEEN)
        }
        Consumer::Panics => {
            one_item(&mut *subject, trace).await;
            panic!("the consumer panics");
        }
        Consumer::OutlivesItsRuntime => {
            let reader = trace.clone();
            tokio::spawn(async move { read(&mut *subject, &reader).await });
            sleep(10 * MS).await;
            UNSEEN
        }
    }
}

/// Reads to the end, and looks at the run when it hands its last item out.
async fn read(subject: &mut dyn Driven, trace: &Trace) -> Seen {
    let last = loop {
        if let Err(last) = next(subject, trace).await {
            break last;
        }
    };
    let state = subject.at_last_item();
    if state.is_terminated.is_some() {
        let more = poll_fn(|cx| subject.poll(cx)).await;
        if more != Err(Last::End) {
            trace.push("more");
        }
    }
    (last, Some(state))
}

/// Reads to the end, where there is no runtime that could wake it.
fn read_without_waiting(subject: &mut dyn Driven, trace: &Trace) -> Seen {
    let mut reading = Box::pin(read(subject, trace));
    match reading
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
    {
        Poll::Ready(seen) => seen,
        Poll::Pending => UNSEEN,
    }
}

async fn one_item(subject: &mut dyn Driven, trace: &Trace) {
    let item = next(subject, trace).await;
    item.expect("the source gives an item");
}

async fn next(subject: &mut dyn Driven, trace: &Trace) -> Result<&'static str, Last> {
    let next = poll_fn(|cx| subject.poll(cx)).await;
    trace.push(next.as_ref().unwrap_or(&"last"));
    next
}

/// Keeps in which order things happen.
#[derive(Debug, Clone, Default)]
struct Trace(Arc<Mutex<Vec<&'static str>>>);

impl Trace {
    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        // A push cannot be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, name: &'static str) {
        self.lock().push(name);
    }
}

impl Interceptor for Trace {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(self.clone());
    }
}

impl Observer for Trace {
    fn on_event(&mut self, event: &Event<'_>) {
        self.push(event.name());
    }
}
