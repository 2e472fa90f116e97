//! Every way a run can end: to hold what you export of a run against how it ended.
//!
//! [`all`] is the table. [`Exit::run`] lets a run end in that way, with your interceptors watching:
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

use super::script::{Script, ScriptedAttempt, ScriptedError, ScriptedStream, ScriptedToken};
use crate::check::{Check, Checks, Finding, Findings};
use crate::end::{Cause, End, TimeoutKind};
use crate::error::{Error, Refusal};
use crate::event::Event;
use crate::failure::Failure;
use crate::l0::{L0, L0Builder};
use crate::observe::{Interceptor, NewRun, Observer, Observers, RunInfo};
use crate::options::Builder;
use crate::retry::{Backoff, Retry};
use crate::run::{Chunk, ForRun, Run, Watched};
use crate::source::View;
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::timeout::Timeouts;
use crate::token::{FinishReason, TokenView};
use crate::verdict::{DriftReport, Severity, Violation};

const MS: Duration = Duration::from_millis(1);

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A run of a source that can be called again: of [`L0::stream`].
    Stream,
    /// A stream that is only watched: of [`L0::watch`].
    Watch,
}

/// What the consumer of a run sees last.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Last {
    /// Nothing: it drops the run before the end.
    Unseen,
    /// The end of the stream.
    End,
    /// An error with this text: of the run, or that of the source if the stream is watched.
    Error(String),
    /// A panic.
    Panic,
}

/// One way a run can end.
///
/// Among them are the consumer's ways to stop reading, and a runtime that shuts down. Several have the
/// same [`End`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exit {
    /// What happens, in a few words. A retried run and a watched stream that end in the same way have
    /// the same name.
    pub name: &'static str,
    /// What ends.
    pub subject: Subject,
    /// How it ends. The message is the one without
    /// [`Monitoring::error_text`](crate::Monitoring::error_text).
    pub end: End,
    /// What the consumer sees last.
    pub last: Last,
    /// How many network errors happen.
    pub network_errors: u64,
    setup: Setup,
}

/// Names the exit and its subject.
impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.subject {
            Subject::Stream => f.write_str(self.name),
            Subject::Watch => write!(f, "{} (watched)", self.name),
        }
    }
}

/// A run that has ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exited {
    /// What the consumer saw last.
    pub last: Last,
    /// What was known of the run from its start on.
    pub info: RunInfo,
    /// A handle of the run: it has the end and the final telemetry.
    pub handle: RunHandle,
    /// What the run itself said when it handed its last item out; absent if nobody saw that.
    pub at_last_item: Option<AtLastItem>,
    /// What happened, in this order: the [names](Event::name) of the events, but for tokens; `item` and
    /// `restart` for what the consumer got, `last` for the last item, and `more` if a run gave anything
    /// after that; `abort` if the consumer aborts and does not poll again.
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
    network_errors: u64,
}

impl Way {
    fn new(end: End, last: Last) -> Self {
        Self {
            end,
            last,
            network_errors: 0,
        }
    }

    fn completed() -> Self {
        Self::new(End::completed(), Last::End)
    }

    /// The consumer gets this error.
    fn failed(error: &Error<ScriptedError>) -> Self {
        Self::new(error.end(), Last::Error(error.to_string()))
    }

    /// The source fails, in as many attempts.
    fn source(source: impl Into<ScriptedError>, attempts: u32) -> Self {
        let source = source.into();
        let failure = Failure::read(&source);
        Self::failed(&Error::Source {
            source,
            failure,
            attempts,
        })
    }

    fn network_errors(mut self, count: u64) -> Self {
        self.network_errors = count;
        self
    }

    fn last(mut self, last: Last) -> Self {
        self.last = last;
        self
    }
}

/// A row of the table: how a run ends, and how a watched stream does.
struct Row {
    name: &'static str,
    setup: Setup,
    stream: Way,
    /// Absent where a watched stream cannot end so.
    watch: Option<Way>,
}

/// A row of which a watched stream ends as a run does.
fn row(name: &'static str, script: Script, stream: Way) -> Row {
    Row {
        name,
        setup: Setup {
            script,
            consumer: Consumer::ReadsToTheEnd,
            configure: |builder| builder,
            expect_finish: false,
            panics_in: None,
        },
        watch: Some(stream.clone()),
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

    /// The first error of a watched stream is the end.
    fn watch_fails(self, source: impl Into<ScriptedError>, network_errors: u64) -> Self {
        let source = source.into();
        let last = Last::Error(source.to_string());
        let way = Way::new(End::failed(&source), last);
        self.watch(way.network_errors(network_errors))
    }

    /// A watched stream cannot end so.
    fn no_watch(mut self) -> Self {
        self.watch = None;
        self
    }

    fn exits(self) -> impl Iterator<Item = Exit> {
        let Self { name, setup, .. } = self;
        let stream = (Subject::Stream, self.stream);
        let watch = self.watch.map(|way| (Subject::Watch, way));
        [stream]
            .into_iter()
            .chain(watch)
            .map(move |(subject, way)| Exit {
                name,
                subject,
                end: way.end,
                last: way.last,
                network_errors: way.network_errors,
                setup: setup.clone(),
            })
    }
}

/// Returns every way a run can end. [`Exit::run`] starts each of them from a runtime whose clock is
/// paused, so that its times are exact.
#[must_use]
pub fn all() -> Vec<Exit> {
    let rows = [
        completed(),
        failed(),
        checked(),
        timed_out(),
        stopped(),
        panicked(),
    ];
    rows.into_iter().flatten().flat_map(Row::exits).collect()
}

/// Answers after a while.
fn answers() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").wait(5 * MS).token("!"))
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

fn two_retries(builder: L0Builder) -> L0Builder {
    builder.retry(Retry::new().max_retries(2).backoff(Backoff::fixed(MS)))
}

const RESET: ErrorKind = ErrorKind::ConnectionReset;

fn completed() -> Vec<Row> {
    let says = |reason| move |a: ScriptedAttempt| a.wait(5 * MS).token("Hello").finish(reason);
    let cut = Script::new().attempt(says(FinishReason::Length));
    let breaks = |a| says(FinishReason::Stop)(a).fail(RESET);
    vec![
        row("completed", answers(), Way::completed()),
        row("completed by a token limit", cut, Way::completed()),
        row(
            "completed after a retry",
            fails(RESET).attempt(|a| a.wait(5 * MS).token("Hello")),
            Way::completed().network_errors(1),
        )
        .configure(two_retries)
        .no_watch(),
        row(
            "completed, and then the connection fails",
            Script::new().attempt(breaks),
            Way::completed().network_errors(1),
        )
        .configure(two_retries)
        .watch_fails(RESET, 1),
        row("empty but allowed", Script::new(), Way::completed())
            .configure(|builder| builder.detect_zero_output(false)),
    ]
}

fn failed() -> Vec<Row> {
    let denied = Failure::status(401);
    let unconnected = Script::new().attempt(|a| a.connect_error(denied));
    let truncated = Way::failed(&Error::Truncated).network_errors(1);
    let empty = Script::new().attempt(|a| a.tokens([" ", "...", "\n"]).reasoning("Well"));
    let mut rows = vec![
        row("truncated", answers(), truncated)
            .expect_finish()
            .watch_ends(),
        row("empty answer", empty, Way::failed(&Error::ZeroOutput)).watch_ends(),
        row(
            "error while connecting",
            unconnected,
            Way::source(denied, 1),
        )
        .no_watch(),
        row(
            "error in mid-stream",
            fails(RESET),
            Way::source(RESET, 1).network_errors(1),
        )
        .watch_fails(RESET, 1),
        row(
            "retries exhausted",
            fails(RESET),
            Way::source(RESET, 3).network_errors(3),
        )
        .configure(two_retries)
        .no_watch(),
        row(
            "unknown error",
            fails("a novel fault"),
            Way::source("a novel fault", 1),
        )
        .configure(two_retries)
        .watch_fails("a novel fault", 0),
        row(
            "faulty answer",
            fails(Failure::model()),
            Way::source(Failure::model(), 3),
        )
        .configure(two_retries)
        .watch_fails(Failure::model(), 0),
    ];
    for (name, status, attempts) in [
        ("status 400", 400, 1),
        ("status 401", 401, 1),
        ("status 402", 402, 1),
        ("status 404", 404, 1),
        ("status 429, retries exhausted", 429, 3),
        ("status 500, retries exhausted", 500, 3),
    ] {
        let failure = Failure::status(status);
        let counted = u64::from(failure.network_error_kind().is_some());
        let script = Script::new().attempt(|a| a.wait(5 * MS).fail(failure));
        let way = Way::source(failure, attempts);
        let way = way.network_errors(counted * u64::from(attempts));
        rows.push(
            row(name, script, way)
                .configure(two_retries)
                .watch_fails(failure, counted),
        );
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
    vec![
        row(
            "halted by a rule",
            says("deadly"),
            Way::failed(&Error::Guardrail(deadly())),
        )
        .configure(|builder| two_retries(builder).guardrails(|| Finds("deadly", deadly())))
        .watch(Way::completed()),
        row(
            "recoverable violation, retries exhausted",
            says("faulty"),
            Way::completed(),
        )
        .configure(|builder| two_retries(builder).guardrails(|| Finds("faulty", faulty()))),
        row("drift, recorded", says("drift"), Way::completed())
            .configure(|builder| two_retries(builder).drift(|| Finds("drift", drift()))),
        row("drift, retries exhausted", says("drift"), Way::completed()).configure(|builder| {
            two_retries(builder).drift(|| Finds("drift", drift().retry(true)))
        }),
    ]
}

fn timed_out() -> Vec<Row> {
    let timeout = |kind| Way::failed(&Error::Timeout(kind)).network_errors(1);
    let first_token = |builder: L0Builder| builder.timeouts(Timeouts::new().first_token(50 * MS));
    vec![
        row(
            "first-token timeout of a slow source",
            Script::new().attempt(|a| a.hang()),
            timeout(TimeoutKind::FirstToken),
        )
        .configure(first_token),
        row(
            "first-token timeout of a slow factory",
            Script::new().attempt(|a| a.connect_hang()),
            timeout(TimeoutKind::FirstToken),
        )
        .configure(first_token),
        row(
            "inter-token timeout",
            hangs(),
            timeout(TimeoutKind::InterToken),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().inter_token(50 * MS))),
        row("total timeout", hangs(), timeout(TimeoutKind::Total)).configure(|builder| {
            let timeouts = Timeouts::new().total(50 * MS);
            two_retries(builder).timeouts(timeouts)
        }),
        row(
            "total timeout in the back-off",
            fails(RESET),
            timeout(TimeoutKind::Total).network_errors(2),
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
            Way::failed(&Error::NoTimer),
        )
        .consumer(Consumer::ReadsOutsideOfARuntime)
        .configure(|builder| builder.timeouts(Timeouts::new().inter_token(50 * MS))),
    ]
    .into_iter()
    .map(Row::no_watch)
    .collect()
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

fn stopped() -> Vec<Row> {
    let refused = |reason| Way::failed(&Error::Refused(Refusal::new(reason)));
    let aborted = || Way::failed(&Error::Aborted);
    let dropped = || Way::new(End::dropped(), Last::Unseen);
    let ready = || Script::new().attempt(|a| a.tokens(["Hello", ", ", "you"]));
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
        row("aborted by handle", hangs(), aborted())
            .consumer(Consumer::AbortsByHandleAfterOneItem)
            .watch_ends(),
        row("aborted by future", hangs(), aborted())
            .consumer(Consumer::AbortsByFutureAfterOneItem)
            .watch_ends(),
        row("aborted by handle, source ready", ready(), aborted())
            .consumer(Consumer::AbortsByHandleAfterOneItem)
            .watch_ends(),
        row(
            "aborted by handle, then dropped unpolled",
            answers(),
            aborted().last(Last::Unseen),
        )
        .consumer(Consumer::AbortsByHandleThenDrops),
        row(
            "aborted by future, then dropped unpolled",
            answers(),
            aborted().last(Last::Unseen),
        )
        .consumer(Consumer::AbortsByFutureThenDrops),
        row("dropped before the first poll", answers(), dropped())
            .consumer(Consumer::DropsBeforeTheFirstPoll),
        row("dropped in mid-stream", answers(), dropped()).consumer(Consumer::DropsAfterOneItem),
        row("task aborted", hangs(), dropped()).consumer(Consumer::IsATaskThatIsAborted),
        row("runtime shut down", hangs(), dropped()).consumer(Consumer::OutlivesItsRuntime),
        row(
            "panic in the consumer",
            answers(),
            dropped().last(Last::Panic),
        )
        .consumer(Consumer::Panics),
    ]
}

fn panicked() -> Vec<Row> {
    let panic = || Way::new(End::of(Cause::Panic), Last::Panic);
    let source =
        Script::new().attempt(|a| a.wait(5 * MS).token("Hello").panic("the source panics"));
    let factory = Script::new().attempt(|a| a.connect_panic("the factory panics"));
    vec![
        row("panic in the source", source, panic()),
        row("panic in the factory", factory, panic()).no_watch(),
        row("panic in the view", answers(), panic()).panics_in(Hook::View),
        row("panic in an `until` future", answers(), panic()).panics_in(Hook::Until),
        row("panic in `classify`", fails(RESET), panic())
            .panics_in(Hook::Classify)
            .no_watch(),
        row("panic in `decide`", fails(RESET), panic())
            .configure(|builder| builder.retry(Retry::new().decide(|_| panic!("`decide` panics"))))
            .no_watch(),
    ]
}

impl Exit {
    /// Lets a run end in this way, and gives what its consumer saw. Where a panic is the way, it is
    /// caught, and its message is printed like any other.
    ///
    /// The run is made by `builder`, of which this sets retries, timeouts and checks: there are none,
    /// unless the way is about them. Its interceptors, monitoring and seed are yours.
    ///
    /// `runtime` should have its clock paused, and its timer enabled. It is shut down before this
    /// returns. Call it outside of any other runtime.
    ///
    /// # Panics
    ///
    /// If the run cannot be started: this is called inside a runtime, or `runtime` has no timer.
    #[must_use]
    pub fn run(&self, runtime: Runtime, builder: L0Builder) -> Exited {
        let trace = Trace::default();
        let plain = builder
            .retry(Retry::none())
            .timeouts(Timeouts::new())
            .guardrails(Checks::none())
            .drift(Checks::none())
            .detect_zero_output(true);
        let builder = (self.setup.configure)(plain);
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
        let (info, handle) = started.into_inner().expect("the run starts");
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
        let view_panics = setup.panics_in == Some(Hook::View);
        match self.subject {
            Subject::Stream => {
                let mut builder = setup.stopped_by(l0.stream(script.source()));
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
            Consumer::AbortsByFutureAfterOneItem | Consumer::AbortsByFutureThenDrops => {
                builder.until(sleep(10 * MS))
            }
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
            is_terminated: Some(self.is_terminated()),
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
        Consumer::ReadsToTheEnd | Consumer::ReadsOutsideOfARuntime => {
            read(&mut *subject, trace).await
        }
        Consumer::DropsBeforeTheFirstPoll => UNSEEN,
        Consumer::DropsAfterOneItem => {
            one_item(&mut *subject, trace).await;
            UNSEEN
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
