//! Scripted sources, captured events and constructors of events, for tests of code that uses L0.
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//! use l0_core::testing::{Captured, Script};
//! use l0_core::{Backoff, L0, Monitoring, Retry};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), l0_core::Error<l0_core::testing::ScriptedError>> {
//! let captured = Captured::new();
//! let l0 = L0::builder()
//!     .monitoring(Monitoring::new())
//!     .retry(Retry::new().backoff(Backoff::none()))
//!     .interceptor(captured.clone())
//!     .build();
//! let script = Script::new()
//!     .attempt(|a| a.wait(Duration::from_millis(5)).token("Hel").fail(io::ErrorKind::ConnectionReset))
//!     .attempt(|a| a.tokens(["Hel", "lo"]));
//!
//! let mut run = l0.stream(script.source()).start();
//! assert_eq!(run.text().await?, "Hello");
//! assert_eq!(script.calls(), 2);
//! assert_eq!(
//!     captured.kinds(),
//!     [
//!         "started", "attempt_started", "first_token", "token", "network_error", "retry",
//!         "attempt_started", "token", "token", "finished",
//!     ]
//! );
//! # Ok(())
//! # }
//! ```

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::Stream;
use tokio::time::{Sleep, sleep};

use crate::distribution::Distribution;
use crate::end::End;
use crate::event::{Event, RetryKind, RetryReason};
use crate::failure::{Failure, NetworkErrorKind};
use crate::observe::{Interceptor, Interest, Observer, Observers, RunInfo};
use crate::source::Attempt;
use crate::telemetry::{Metrics, Network, NetworkErrorRecord, Telemetry, Timestamp};
use crate::token::{FinishReason, Token, TokenKind, TokenView, Usage};
use crate::verdict::{DriftReport, Outcome, Violation};

/// What a source does, attempt by attempt. Clones share the counts.
///
/// Calls past the last attempt repeat the last one.
#[derive(Debug, Clone, Default)]
pub struct Script {
    attempts: Arc<Vec<ScriptedAttempt>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicUsize,
    dropped: AtomicUsize,
}

impl Script {
    /// A script without attempts: its source ends at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds what the source does when it is called once more.
    #[must_use]
    pub fn attempt(mut self, script: impl FnOnce(ScriptedAttempt) -> ScriptedAttempt) -> Self {
        Arc::make_mut(&mut self.attempts).push(script(ScriptedAttempt::default()));
        self
    }

    /// A factory for [`L0::stream`](crate::L0::stream).
    pub fn source(
        &self,
    ) -> impl FnMut(Attempt) -> Pin<Box<dyn Future<Output = ScriptedResult> + Send>>
    + Clone
    + Send
    + 'static {
        let script = self.clone();
        move |_attempt| {
            let script = script.clone();
            Box::pin(async move { script.connect().await })
        }
    }

    /// Calls the source once.
    ///
    /// # Errors
    ///
    /// What [`ScriptedAttempt::connect_error`] says.
    ///
    /// # Panics
    ///
    /// If [`ScriptedAttempt::connect_panic`] says so.
    pub async fn connect(&self) -> ScriptedResult {
        let call = self.counts.calls.fetch_add(1, Ordering::Relaxed);
        let attempt = self.attempts.get(call).or(self.attempts.last());
        let attempt = attempt.cloned().unwrap_or_default();
        for step in &attempt.connect {
            match step {
                Step::Wait(duration) => sleep(*duration).await,
                Step::Hang => std::future::pending().await,
                Step::Fail(error) => return Err(error.clone()),
                Step::Panic(message) => panic!("{message}"),
                Step::Item(_) => {}
            }
        }
        Ok(self.open(attempt))
    }

    /// The stream of the first attempt, for [`L0::watch`](crate::L0::watch).
    pub fn stream(&self) -> ScriptedStream {
        self.open(self.attempts.first().cloned().unwrap_or_default())
    }

    fn open(&self, attempt: ScriptedAttempt) -> ScriptedStream {
        ScriptedStream {
            steps: attempt.steps,
            next: 0,
            sleep: None,
            counts: Arc::clone(&self.counts),
        }
    }

    /// How often the source was called.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.counts.calls.load(Ordering::Relaxed)
    }

    /// How many of its streams were dropped, whether or not they had ended.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

/// What connecting to a scripted source gives.
pub type ScriptedResult = Result<ScriptedStream, ScriptedError>;

/// What a source does in one attempt: its steps in order, then its end.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct ScriptedAttempt {
    connect: Vec<Step>,
    steps: Vec<Step>,
}

#[derive(Debug, Clone)]
enum Step {
    Wait(Duration),
    Item(ScriptedToken),
    Fail(ScriptedError),
    Hang,
    Panic(String),
}

impl ScriptedAttempt {
    /// Takes this long to connect. Needs a Tokio timer.
    pub fn connect_wait(mut self, duration: Duration) -> Self {
        self.connect.push(Step::Wait(duration));
        self
    }

    /// Fails to connect.
    pub fn connect_error(mut self, error: impl Into<ScriptedError>) -> Self {
        self.connect.push(Step::Fail(error.into()));
        self
    }

    /// Never connects.
    pub fn connect_hang(mut self) -> Self {
        self.connect.push(Step::Hang);
        self
    }

    /// Panics while it connects.
    pub fn connect_panic(mut self, message: impl Into<String>) -> Self {
        self.connect.push(Step::Panic(message.into()));
        self
    }

    /// Is pending for this long. Needs a Tokio timer.
    pub fn wait(mut self, duration: Duration) -> Self {
        self.steps.push(Step::Wait(duration));
        self
    }

    /// Gives an item.
    pub fn item(mut self, item: ScriptedToken) -> Self {
        self.steps.push(Step::Item(item));
        self
    }

    /// Gives a piece of text.
    pub fn token(self, text: impl Into<String>) -> Self {
        self.item(ScriptedToken::new(TokenKind::Text, text))
    }

    /// Gives pieces of text, all ready at once.
    pub fn tokens<I>(self, texts: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        texts.into_iter().fold(self, Self::token)
    }

    /// Gives a piece of reasoning.
    pub fn reasoning(self, text: impl Into<String>) -> Self {
        self.item(ScriptedToken::new(TokenKind::Reasoning, text))
    }

    /// Gives a piece of a tool call.
    pub fn tool_call(self, text: impl Into<String>) -> Self {
        self.item(ScriptedToken::new(TokenKind::ToolCall, text))
    }

    /// Gives an item with the provider's token counts.
    pub fn usage(self, usage: Usage) -> Self {
        let mut item = ScriptedToken::new(TokenKind::Other, "");
        item.usage = Some(usage);
        self.item(item)
    }

    /// Gives an item with a finish reason.
    pub fn finish(self, finish: FinishReason) -> Self {
        let mut item = ScriptedToken::new(TokenKind::Other, "");
        item.finish = Some(finish);
        self.item(item)
    }

    /// Gives an error.
    pub fn fail(mut self, error: impl Into<ScriptedError>) -> Self {
        self.steps.push(Step::Fail(error.into()));
        self
    }

    /// Is pending for ever.
    pub fn hang(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    /// Panics.
    pub fn panic(mut self, message: impl Into<String>) -> Self {
        self.steps.push(Step::Panic(message.into()));
        self
    }
}

/// The stream of one attempt of a [`Script`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct ScriptedStream {
    steps: Vec<Step>,
    next: usize,
    sleep: Option<Pin<Box<Sleep>>>,
    counts: Arc<Counts>,
}

impl Stream for ScriptedStream {
    type Item = Result<ScriptedToken, ScriptedError>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        while let Some(step) = this.steps.get(this.next) {
            let item = match step {
                Step::Wait(duration) => {
                    let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep(*duration)));
                    ready!(sleep.as_mut().poll(cx));
                    this.sleep = None;
                    this.next += 1;
                    continue;
                }
                Step::Hang => return Poll::Pending,
                Step::Item(item) => Ok(item.clone()),
                Step::Fail(error) => Err(error.clone()),
                Step::Panic(message) => panic!("{message}"),
            };
            this.next += 1;
            return Poll::Ready(Some(item));
        }
        Poll::Ready(None)
    }
}

impl Drop for ScriptedStream {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// An item of a scripted source: an owned [`TokenView`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptedToken {
    /// What the text is.
    pub kind: TokenKind,
    /// The text.
    pub text: String,
    /// Token counts.
    pub usage: Option<Usage>,
    /// A finish reason.
    pub finish: Option<FinishReason>,
    /// The model that answers.
    pub model: Option<String>,
    /// The id of the response.
    pub response_id: Option<String>,
}

impl ScriptedToken {
    /// An item with nothing but a text.
    #[must_use]
    pub fn new(kind: TokenKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            usage: None,
            finish: None,
            model: None,
            response_id: None,
        }
    }
}

impl Token for ScriptedToken {
    fn view(&self) -> TokenView<'_> {
        let mut view = TokenView::text(&self.text);
        view.kind = self.kind;
        view.usage = self.usage;
        view.finish = self.finish;
        view.model = self.model.as_deref();
        view.response_id = self.response_id.as_deref();
        view
    }
}

/// An error of a scripted source. Made from a [`Failure`], an [`io::Error`], an
/// [`io::ErrorKind`] or a text; what it is made from is its `source()`.
#[derive(Debug, Clone)]
pub struct ScriptedError(Arc<dyn StdError + Send + Sync>);

impl ScriptedError {
    /// An error that is caused by this one.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Arc::from(cause.into()))
    }
}

impl fmt::Display for ScriptedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for ScriptedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&*self.0)
    }
}

impl From<Failure> for ScriptedError {
    fn from(failure: Failure) -> Self {
        Self::new(failure)
    }
}

impl From<io::Error> for ScriptedError {
    fn from(error: io::Error) -> Self {
        Self::new(error)
    }
}

impl From<io::ErrorKind> for ScriptedError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::new(io::Error::from(kind))
    }
}

impl From<&str> for ScriptedError {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

impl From<String> for ScriptedError {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// An interceptor that keeps every event of every run. Clones share what is kept.
#[derive(Debug, Clone, Default)]
pub struct Captured {
    events: Arc<Mutex<Vec<(String, OwnedEvent)>>>,
}

impl Captured {
    /// Nothing captured yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All events so far, of all runs, in the order in which they were delivered.
    #[must_use]
    pub fn events(&self) -> Vec<OwnedEvent> {
        self.lock().iter().map(|(_, event)| event.clone()).collect()
    }

    /// The events of the run with this id.
    #[must_use]
    pub fn events_of(&self, id: &str) -> Vec<OwnedEvent> {
        let events = self.lock();
        let of_run = events.iter().filter(|(run, _)| run == id);
        of_run.map(|(_, event)| event.clone()).collect()
    }

    /// The names of all events so far: see [`Event::name`].
    #[must_use]
    pub fn kinds(&self) -> Vec<&'static str> {
        self.lock().iter().map(|(_, event)| event.name()).collect()
    }

    /// The final telemetry of the run that finished last; `None` if it was not measured.
    #[must_use]
    pub fn telemetry(&self) -> Option<Telemetry> {
        let events = self.lock();
        events.iter().rev().find_map(|(_, event)| match event {
            OwnedEvent::Finished { telemetry, .. } => Some(telemetry.as_deref().cloned()),
            _ => None,
        })?
    }

    fn lock(&self) -> MutexGuard<'_, Vec<(String, OwnedEvent)>> {
        // A push cannot be half done.
        self.events.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Interceptor for Captured {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(Capture {
            run: run.id().to_owned(),
            captured: self.clone(),
        });
    }
}

struct Capture {
    run: String,
    captured: Captured,
}

impl Observer for Capture {
    fn interest(&self) -> Interest {
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        self.captured
            .lock()
            .push((self.run.clone(), OwnedEvent::from(event)));
    }
}

/// An [`Event`] that owns what it tells. The fields are those of the event.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
#[allow(missing_docs, reason = "the variants and fields are those of `Event`")]
pub enum OwnedEvent {
    Started {
        at: Option<Timestamp>,
    },
    AttemptStarted {
        number: u32,
    },
    FirstToken {
        after: Option<Duration>,
    },
    Token {
        index: u64,
        gap: Option<Duration>,
        kind: TokenKind,
        text: String,
    },
    NetworkError {
        kind: NetworkErrorKind,
        message: String,
        delay: Option<Duration>,
        attempt: Option<u32>,
    },
    Retry {
        attempt: u32,
        reason: RetryReason,
        delay: Duration,
        kind: RetryKind,
    },
    Violation {
        violation: Violation,
    },
    Drift {
        report: DriftReport,
    },
    Finished {
        end: End,
        telemetry: Option<Box<Telemetry>>,
        /// The text of the source's own error.
        error: Option<String>,
        response_model: Option<String>,
        response_id: Option<String>,
    },
}

impl OwnedEvent {
    /// The stable name of the kind of event: see [`Event::name`].
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Started { .. } => "started",
            Self::AttemptStarted { .. } => "attempt_started",
            Self::FirstToken { .. } => "first_token",
            Self::Token { .. } => "token",
            Self::NetworkError { .. } => "network_error",
            Self::Retry { .. } => "retry",
            Self::Violation { .. } => "violation",
            Self::Drift { .. } => "drift",
            Self::Finished { .. } => "finished",
        }
    }
}

impl From<&Event<'_>> for OwnedEvent {
    fn from(event: &Event<'_>) -> Self {
        match *event {
            Event::Started { at } => Self::Started { at },
            Event::AttemptStarted { number } => Self::AttemptStarted { number },
            Event::FirstToken { after } => Self::FirstToken { after },
            Event::Token { index, gap, view } => Self::Token {
                index,
                gap,
                kind: view.kind,
                text: view.text.to_owned(),
            },
            Event::NetworkError {
                kind,
                message,
                delay,
                attempt,
            } => Self::NetworkError {
                kind,
                message: message.to_owned(),
                delay,
                attempt,
            },
            Event::Retry {
                attempt,
                reason,
                delay,
                kind,
            } => Self::Retry {
                attempt,
                reason,
                delay,
                kind,
            },
            Event::Violation { violation } => Self::Violation {
                violation: violation.clone(),
            },
            Event::Drift { report } => Self::Drift {
                report: report.clone(),
            },
            Event::Finished {
                end,
                telemetry,
                error,
                response_model,
                response_id,
            } => Self::Finished {
                end: end.clone(),
                telemetry: telemetry.cloned().map(Box::new),
                error: error.map(ToString::to_string),
                response_model: response_model.map(str::to_owned),
                response_id: response_id.map(str::to_owned),
            },
        }
    }
}

/// Constructors, for tests of code that takes events. Runs make their own.
impl<'a> Event<'a> {
    /// An [`Event::Started`].
    #[must_use]
    pub fn started(at: Option<Timestamp>) -> Self {
        Self::Started { at }
    }

    /// An [`Event::AttemptStarted`].
    #[must_use]
    pub fn attempt_started(number: u32) -> Self {
        Self::AttemptStarted { number }
    }

    /// An [`Event::FirstToken`].
    #[must_use]
    pub fn first_token(after: Option<Duration>) -> Self {
        Self::FirstToken { after }
    }

    /// An [`Event::Token`].
    #[must_use]
    pub fn token(index: u64, gap: Option<Duration>, view: TokenView<'a>) -> Self {
        Self::Token { index, gap, view }
    }

    /// An [`Event::NetworkError`]; it was retried if there is a delay.
    #[must_use]
    pub fn network_error(
        kind: NetworkErrorKind,
        message: &'a str,
        delay: Option<Duration>,
        attempt: Option<u32>,
    ) -> Self {
        Self::NetworkError {
            kind,
            message,
            delay,
            attempt,
        }
    }

    /// An [`Event::Retry`].
    #[must_use]
    pub fn retry(attempt: u32, reason: RetryReason, delay: Duration, kind: RetryKind) -> Self {
        Self::Retry {
            attempt,
            reason,
            delay,
            kind,
        }
    }

    /// An [`Event::Violation`].
    #[must_use]
    pub fn violation(violation: &'a Violation) -> Self {
        Self::Violation { violation }
    }

    /// An [`Event::Drift`].
    #[must_use]
    pub fn drift(report: &'a DriftReport) -> Self {
        Self::Drift { report }
    }

    /// An [`Event::Finished`].
    #[must_use]
    pub fn finished(end: &'a End, telemetry: Option<&'a Telemetry>) -> Self {
        Self::Finished {
            end,
            telemetry,
            error: None,
            response_model: None,
            response_id: None,
        }
    }

    /// This [`Event::Finished`], with what the source said of its response; any other event as it
    /// is.
    #[must_use]
    pub fn with_response(mut self, model: Option<&'a str>, id: Option<&'a str>) -> Self {
        if let Self::Finished {
            response_model,
            response_id,
            ..
        } = &mut self
        {
            (*response_model, *response_id) = (model, id);
        }
        self
    }
}

impl Telemetry {
    /// The telemetry of a plausible run: completed after one network retry, measured in full.
    #[must_use]
    pub fn example() -> Self {
        let start_time = Timestamp::from_millis(1_700_000_000_000);
        let mut gaps = Distribution::new();
        for millis in (0..148).map(|token| 4 + token % 8) {
            gaps.record(Duration::from_millis(millis));
        }
        let metadata: BTreeMap<_, _> = [
            ("model", "gpt-4"),
            ("endpoint", "/chat"),
            ("environment", "production"),
        ]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into();
        Self {
            session_id: "l0_1700000000000_0123456789abc".to_owned(),
            start_time,
            duration: Some(Duration::from_millis(1_500)),
            outcome: Some(Outcome::Completed),
            error: None,
            finish_reason: Some(FinishReason::Stop),
            usage: Some(Usage::new().input(12).output(160).total(172)),
            metrics: Metrics {
                time_to_first_token: Some(Duration::from_millis(250)),
                time_to_first_text: Some(Duration::from_millis(250)),
                avg_inter_token_time: gaps.mean(),
                tokens_per_second: Some(100.0),
                output_tokens_per_second: Some(133.574),
                total_tokens: 150,
                wasted_tokens: 1,
                attempts: 2,
                total_retries: 1,
                network_retries: 1,
                model_retries: 0,
                inter_token: Some(gaps),
                consumer_hold: Some(Duration::from_millis(10)),
                wait: Some(Duration::from_millis(1_490)),
            },
            network: Network {
                error_count: 1,
                errors_by_type: [(NetworkErrorKind::ConnectionDropped, 1)].into(),
                errors: Some(vec![
                    NetworkErrorRecord::new(
                        NetworkErrorKind::ConnectionDropped,
                        "broken pipe",
                        start_time.after(Duration::from_millis(260)),
                    )
                    .retried(Some(Duration::from_millis(100)))
                    .attempt(1),
                ]),
            },
            guardrails: None,
            drift: None,
            metadata,
        }
    }
}
