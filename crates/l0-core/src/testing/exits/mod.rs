//! Every way a run can end, as a table to test exporters with.
//!
//! [`all`] returns the table. [`Exit::run`] runs a case with your interceptors. Compare their
//! output with the expectation: the [`end`](Exit::end), the [`events`](Exit::events) and the
//! [`duration`](Exit::duration) of the exit.
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
//!     let captured = Captured::new(); // replace it with your interceptor
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
//!         panic!("{exit}: the run has no end");
//!     };
//!     assert_eq!(end, exit.end, "{exit}");
//!     assert_eq!(telemetry.as_deref(), exited.handle.telemetry().as_ref(), "{exit}");
//! }
//! # Ok(())
//! # }
//! ```

mod drive;
mod table;

use std::fmt;
use std::time::Duration;

use super::script::{Script, ScriptedError};
use crate::end::{Cause, End};
use crate::error::Error;
use crate::failure::Failure;
use crate::l0::L0Builder;
use crate::observe::RunInfo;
use crate::stop::RunHandle;
use crate::telemetry::Telemetry;
use crate::verdict::Outcome;

const MS: Duration = Duration::from_millis(1);

/// An attempt has started, without any other event.
const STARTED: &str = "attempt_started";

/// The kind of what ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// A run of a source that can be called again, from [`L0::stream`](crate::L0::stream).
    Stream,
    /// A stream that is only measured, from [`L0::watch`](crate::L0::watch).
    Watch,
    /// A request with a single answer, from [`L0::call`](crate::L0::call).
    Call,
}

/// The last thing that the consumer of a run receives.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Last {
    /// Nothing, because it drops the run before the end.
    Unseen,
    /// The end of the stream, or the answer of a call.
    End,
    /// An error with this text: of the run, or of the source if the stream is watched.
    Error(String),
    /// A panic.
    Panic,
}

/// One way a run can end.
///
/// The table includes consumers that stop reading, and a runtime that shuts down. Several exits
/// have the same [`End`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Exit {
    /// A short description. A retried run, a watched stream and a call with the same kind of end
    /// have the same name.
    pub name: &'static str,
    /// The kind of what ends.
    pub subject: Subject,
    /// The end. Its message is the one without
    /// [`Monitoring::error_text`](crate::Monitoring::error_text).
    pub end: End,
    /// The last thing that the consumer receives.
    pub last: Last,
    /// The [names](crate::Event::name) of the events, in their order.
    pub events: Vec<&'static str>,
    /// The duration of the run with a paused clock; `None` if it runs outside of a runtime, where
    /// the clock cannot be paused.
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

/// A run that has ended, as its consumer observed it.
#[derive(Debug)]
#[non_exhaustive]
pub struct Exited {
    /// The last thing that the consumer received.
    pub last: Last,
    /// The information known from the start of the run.
    pub info: RunInfo,
    /// A handle of the run, with its end and the final telemetry.
    pub handle: RunHandle,
    /// The state of the run when it yielded its last item; `None` if no consumer received it.
    pub at_last_item: Option<AtLastItem>,
    /// The sequence of what happened: the [names](crate::Event::name) of the events, without
    /// tokens; `item` and `restart` for what the consumer received, `last` for the last item, and `more` if
    /// the run yielded anything after it; `abort` if the consumer aborted the run and did not poll
    /// it again.
    pub trace: Vec<&'static str>,
}

/// The state of a run when it yields its last item.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct AtLastItem {
    /// Its end. `None` if the run has not published one.
    pub end: Option<End>,
    /// Its telemetry. `None` if it is not measured.
    pub telemetry: Option<Telemetry>,
    /// `true` if the run reports that it is terminated; `None` for a watched stream, where this
    /// depends on the stream.
    pub is_terminated: Option<bool>,
}

/// The setup of an exit.
#[derive(Debug, Clone)]
struct Setup {
    script: Script,
    /// The fallback of the source.
    fallback: Option<Script>,
    consumer: Consumer,
    configure: fn(L0Builder) -> L0Builder,
    expect_finish: bool,
    panics_in: Option<Hook>,
}

/// The behavior of the consumer.
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

/// A closure of the run, in addition to those of its configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Hook {
    Classify,
    Until,
    View,
}

/// The end of a subject.
#[derive(Debug, Clone)]
struct ExpectedEnd {
    end: End,
    last: Last,
    /// The events between the start and the end. Those of attempts that end are added.
    events: &'static str,
    duration: Option<Duration>,
}

impl ExpectedEnd {
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

    /// Creates an exit with an error for the consumer.
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

    /// Creates an exit by an error of the source, after this many attempts.
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

    /// Sets the duration in milliseconds, and the events between the start and the end.
    fn takes(mut self, millis: u32, events: &'static str) -> Self {
        self.duration = Some(millis * MS);
        self.events = events;
        self
    }

    /// Removes the duration, because the run takes real time.
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

/// A row of the table: how a run ends, and how a watched stream and a call do.
struct Row {
    name: &'static str,
    setup: Setup,
    stream: ExpectedEnd,
    /// `None` if a watched stream cannot end like this.
    watch: Option<ExpectedEnd>,
    /// `None` if a call cannot end like this.
    call: Option<ExpectedEnd>,
}

/// Creates a row in which a watched stream and a call end like a run.
fn row(name: &'static str, script: Script, stream: ExpectedEnd) -> Row {
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

    /// Sets a different end for a watched stream.
    fn watch(mut self, expected: ExpectedEnd) -> Self {
        self.watch = Some(expected);
        self
    }

    /// A watched stream yields no error of L0, and only ends.
    fn watch_ends(mut self) -> Self {
        self.watch = Some(self.stream.clone().last(Last::End));
        self
    }

    /// A watched stream ends with its first error, after 5 ms.
    fn watch_fails(self, source: impl Into<ScriptedError>, events: &'static str) -> Self {
        let source = source.into();
        let last = Last::Error(source.to_string());
        self.watch(ExpectedEnd::new(End::failed(&source), last).takes(5, events))
    }

    /// The attempt of a watched stream starts with the stream, and that of a run with its first
    /// poll.
    fn watch_has_started(mut self) -> Self {
        self.watch = Some(self.stream.clone().takes(0, STARTED));
        self
    }

    /// A watched stream cannot end like this.
    fn no_watch(mut self) -> Self {
        self.watch = None;
        self
    }

    /// Sets a different end for a call.
    fn call(mut self, expected: ExpectedEnd) -> Self {
        self.call = Some(expected);
        self
    }

    /// A call cannot end like this.
    fn no_call(mut self) -> Self {
        self.call = None;
        self
    }

    /// Sets the fallback.
    fn fallback(mut self, script: Script) -> Self {
        self.setup.fallback = Some(script);
        self.no_watch()
    }

    fn exits(self) -> impl Iterator<Item = Exit> {
        let Self { name, setup, .. } = self;
        let stream = (Subject::Stream, self.stream);
        let watch = self.watch.map(|expected| (Subject::Watch, expected));
        let call = self.call.map(|expected| (Subject::Call, expected));
        let ways = [stream].into_iter().chain(watch).chain(call);
        ways.map(move |(subject, expected)| Exit {
            name,
            subject,
            events: events(subject, &expected),
            end: expected.end,
            last: expected.last,
            duration: expected.duration,
            setup: setup.clone(),
        })
    }
}

/// Returns all events of a subject. A started attempt ends before the event that follows it. A
/// single answer has no tokens. Its event comes before its checks, and before a call completes.
fn events(subject: Subject, expected: &ExpectedEnd) -> Vec<&'static str> {
    let is_call = subject == Subject::Call;
    let mut events = vec!["started"];
    let (mut is_open, mut is_answered) = (false, false);
    for event in expected.events.split_whitespace().chain(["finished"]) {
        let follows = ["retry", "fallback", "finished"].contains(&event);
        let completes = event == "finished" && expected.end.outcome() == Outcome::Completed;
        let is_cut = event == "network_error" && expected.end.cause() == Some(&Cause::Truncated);
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
    table::rows().flat_map(Row::exits).collect()
}

impl Exit {
    /// Returns the number of events with this [name](crate::Event::name).
    #[must_use]
    pub fn count(&self, event: &str) -> u64 {
        self.events.iter().filter(|name| **name == event).count() as u64
    }
}
