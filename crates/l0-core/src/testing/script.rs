//! Script: a source that follows a script, attempt by attempt.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::stream::Stream;
use tokio::time::{Sleep, sleep};

use crate::failure::Failure;
use crate::price::Cost;
use crate::source::Attempt;
use crate::token::{FinishReason, Token, TokenKind, TokenView};
use crate::usage::Usage;

/// A source that follows a script, attempt by attempt. Clones share the counts.
///
/// Calls after the last attempt repeat that attempt.
///
/// Items are [`ScriptedToken`]s by default. Use [`of`](Self::of) for items of the type that the
/// code under test reads.
///
/// ```
/// use l0_core::testing::Script;
/// use l0_core::{L0, Token, TokenView};
///
/// /// An item of your service's stream.
/// #[derive(Clone)]
/// struct Delta {
///     content: String,
/// }
///
/// impl Token for Delta {
///     fn view(&self) -> TokenView<'_> {
///         TokenView::text(&self.content)
///     }
/// }
///
/// # async fn test() {
/// let delta = |content: &str| Delta { content: content.to_owned() };
/// let script = Script::of::<Delta>()
///     .attempt(|a| a.item(delta("Hel")).fail(std::io::ErrorKind::ConnectionReset))
///     .attempt(|a| a.items([delta("Hel"), delta("lo")]));
///
/// let mut run = L0::default().stream(script.source()).start();
/// assert_eq!(run.text().await.unwrap(), "Hello");
/// # }
/// # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(test());
/// ```
#[derive(Debug, Clone)]
pub struct Script<T = ScriptedToken> {
    attempts: Arc<Vec<ScriptedAttempt<T>>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    calls: AtomicUsize,
    dropped: AtomicUsize,
}

impl Script {
    /// Creates a script without attempts: its source ends at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Creates a script without attempts, for items of type `T`.
    #[must_use]
    pub fn of<T>() -> Script<T> {
        Script::default()
    }
}

impl<T> Default for Script<T> {
    fn default() -> Self {
        Self {
            attempts: Arc::default(),
            counts: Arc::default(),
        }
    }
}

impl<T> Script<T> {
    /// Returns the same script with its counts reset.
    pub(super) fn restarted(&self) -> Self {
        Self {
            attempts: Arc::clone(&self.attempts),
            counts: Arc::default(),
        }
    }

    /// Returns the number of calls of the source.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.counts.calls.load(Ordering::Relaxed)
    }

    /// Returns the number of dropped streams, including those that had not ended.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.counts.dropped.load(Ordering::Relaxed)
    }
}

impl<T: Clone> Script<T> {
    /// Adds an attempt: the behavior of the source at its next call.
    #[must_use]
    pub fn attempt(
        mut self,
        script: impl FnOnce(ScriptedAttempt<T>) -> ScriptedAttempt<T>,
    ) -> Self {
        Arc::make_mut(&mut self.attempts).push(script(ScriptedAttempt::default()));
        self
    }

    /// Returns a factory for [`L0::stream`](crate::L0::stream).
    pub fn source(
        &self,
    ) -> impl FnMut(Attempt) -> Pin<Box<dyn Future<Output = ScriptedResult<T>> + Send>>
    + Clone
    + Send
    + 'static
    + use<T>
    where
        T: Send + Sync + 'static,
    {
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
    /// Returns the error of [`ScriptedAttempt::connect_error`].
    ///
    /// # Panics
    ///
    /// Panics after [`ScriptedAttempt::connect_panic`].
    pub async fn connect(&self) -> ScriptedResult<T> {
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

    /// Returns the stream of the first attempt, for [`L0::watch`](crate::L0::watch).
    pub fn stream(&self) -> ScriptedStream<T> {
        self.open(self.attempts.first().cloned().unwrap_or_default())
    }

    fn open(&self, attempt: ScriptedAttempt<T>) -> ScriptedStream<T> {
        ScriptedStream {
            steps: attempt.steps,
            next: 0,
            sleep: None,
            counts: Arc::clone(&self.counts),
        }
    }
}

impl Script {
    /// Returns a factory for [`L0::call`](crate::L0::call). The answer combines all items of an
    /// attempt into a single one.
    pub fn answers(
        &self,
    ) -> impl FnMut(
        Attempt,
    )
        -> Pin<Box<dyn Future<Output = Result<ScriptedToken, ScriptedError>> + Send>>
    + Clone
    + Send
    + 'static
    + use<> {
        let mut connect = self.source();
        move |attempt| {
            let connecting = connect(attempt);
            Box::pin(async move {
                let mut stream = Box::pin(connecting.await?);
                let mut answer = ScriptedToken::new(TokenKind::Text, "");
                while let Some(item) = poll_fn(|cx| stream.as_mut().poll_next(cx)).await {
                    answer.add(item?);
                }
                Ok(answer)
            })
        }
    }
}

/// The result of connecting to a scripted source.
pub type ScriptedResult<T = ScriptedToken> = Result<ScriptedStream<T>, ScriptedError>;

/// One attempt of a [`Script`]: its steps in order, and then the end of the stream.
#[derive(Debug, Clone)]
#[must_use]
pub struct ScriptedAttempt<T = ScriptedToken> {
    connect: Vec<Step<T>>,
    steps: Vec<Step<T>>,
}

#[derive(Debug, Clone)]
enum Step<T> {
    Wait(Duration),
    Item(T),
    Fail(ScriptedError),
    Hang,
    Panic(String),
}

impl<T> Default for ScriptedAttempt<T> {
    fn default() -> Self {
        Self {
            connect: Vec::new(),
            steps: Vec::new(),
        }
    }
}

/// The behavior of a source of any items.
impl<T> ScriptedAttempt<T> {
    /// Waits while it connects. This needs a Tokio timer.
    pub fn connect_wait(mut self, duration: Duration) -> Self {
        self.connect.push(Step::Wait(duration));
        self
    }

    /// Fails to connect.
    pub fn connect_error(mut self, error: impl Into<ScriptedError>) -> Self {
        self.connect.push(Step::Fail(error.into()));
        self
    }

    /// Hangs while it connects: the call never returns.
    pub fn connect_hang(mut self) -> Self {
        self.connect.push(Step::Hang);
        self
    }

    /// Panics with this message while it connects.
    pub fn connect_panic(mut self, message: impl Into<String>) -> Self {
        self.connect.push(Step::Panic(message.into()));
        self
    }

    /// Waits before the next step. This needs a Tokio timer.
    pub fn wait(mut self, duration: Duration) -> Self {
        self.steps.push(Step::Wait(duration));
        self
    }

    /// Yields an item.
    pub fn item(mut self, item: T) -> Self {
        self.steps.push(Step::Item(item));
        self
    }

    /// Yields items, all ready at once.
    pub fn items(self, items: impl IntoIterator<Item = T>) -> Self {
        items.into_iter().fold(self, Self::item)
    }

    /// Yields an error.
    pub fn fail(mut self, error: impl Into<ScriptedError>) -> Self {
        self.steps.push(Step::Fail(error.into()));
        self
    }

    /// Hangs: the stream stays pending forever.
    pub fn hang(mut self) -> Self {
        self.steps.push(Step::Hang);
        self
    }

    /// Panics with this message.
    pub fn panic(mut self, message: impl Into<String>) -> Self {
        self.steps.push(Step::Panic(message.into()));
        self
    }
}

/// The items of the default type.
impl ScriptedAttempt {
    /// Yields a piece of text.
    pub fn token(self, text: impl Into<String>) -> Self {
        self.item(ScriptedToken::new(TokenKind::Text, text))
    }

    /// Yields pieces of text, all ready at once.
    pub fn tokens<I>(self, texts: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        texts.into_iter().fold(self, Self::token)
    }

    /// Yields a piece of reasoning.
    pub fn reasoning(self, text: impl Into<String>) -> Self {
        self.item(ScriptedToken::new(TokenKind::Reasoning, text))
    }

    /// Yields a piece of a tool call.
    pub fn tool_call(self, text: impl Into<String>) -> Self {
        self.item(ScriptedToken::new(TokenKind::ToolCall, text))
    }

    /// Yields a piece of media.
    pub fn media(self) -> Self {
        self.item(ScriptedToken::new(TokenKind::Media, ""))
    }

    /// Yields an item with the provider's token counts.
    pub fn usage(self, usage: Usage) -> Self {
        let mut item = ScriptedToken::new(TokenKind::Other, "");
        item.usage = Some(usage);
        self.item(item)
    }

    /// Yields an item with the cost of the request.
    pub fn cost(self, cost: Cost) -> Self {
        let mut item = ScriptedToken::new(TokenKind::Other, "");
        item.cost = Some(cost);
        self.item(item)
    }

    /// Yields an item with a finish reason.
    pub fn finish(self, finish: FinishReason) -> Self {
        let mut item = ScriptedToken::new(TokenKind::Other, "");
        item.finish = Some(finish);
        self.item(item)
    }
}

/// The stream of one attempt of a [`Script`].
#[derive(Debug)]
#[must_use = "streams do nothing unless polled"]
pub struct ScriptedStream<T = ScriptedToken> {
    steps: Vec<Step<T>>,
    next: usize,
    sleep: Option<Pin<Box<Sleep>>>,
    counts: Arc<Counts>,
}

// It pins none of its items.
impl<T> Unpin for ScriptedStream<T> {}

impl<T: Clone> Stream for ScriptedStream<T> {
    type Item = Result<T, ScriptedError>;

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

impl<T> Drop for ScriptedStream<T> {
    fn drop(&mut self) {
        self.counts.dropped.fetch_add(1, Ordering::Relaxed);
    }
}

/// An item of a scripted source. It owns what a [`TokenView`] borrows.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScriptedToken {
    /// The kind of text.
    pub kind: TokenKind,
    /// The text.
    pub text: String,
    /// The called tool.
    pub tool: Option<String>,
    /// Token counts.
    pub usage: Option<Usage>,
    /// The cost of the request.
    pub cost: Option<Cost>,
    /// A finish reason.
    pub finish: Option<FinishReason>,
    /// The model that answers.
    pub model: Option<String>,
    /// The id of the response.
    pub response_id: Option<String>,
}

impl ScriptedToken {
    /// Creates an item with a text and nothing else.
    #[must_use]
    pub fn new(kind: TokenKind, text: impl Into<String>) -> Self {
        Self {
            kind,
            text: text.into(),
            tool: None,
            usage: None,
            cost: None,
            finish: None,
            model: None,
            response_id: None,
        }
    }
}

impl ScriptedToken {
    /// Merges a later item into this one.
    fn add(&mut self, item: Self) {
        if item.kind == self.kind {
            self.text.push_str(&item.text);
        }
        self.usage = item.usage.or(self.usage);
        self.cost = item.cost.or(self.cost);
        self.finish = item.finish.or(self.finish);
        self.model = item.model.or(self.model.take());
        self.response_id = item.response_id.or(self.response_id.take());
    }
}

impl Token for ScriptedToken {
    fn view(&self) -> TokenView<'_> {
        let mut view = TokenView::text(&self.text);
        view.kind = self.kind;
        view.tool = self.tool.as_deref();
        view.usage = self.usage;
        view.cost = self.cost.as_ref();
        view.finish = self.finish;
        view.model = self.model.as_deref();
        view.response_id = self.response_id.as_deref();
        view
    }
}

/// An error of a scripted source. Created from a [`Failure`], an [`io::Error`] or an
/// [`io::ErrorKind`], which becomes its `source()`, or from a text, which becomes its message.
#[derive(Debug, Clone)]
pub struct ScriptedError(Arc<Scripted>);

#[derive(Debug)]
enum Scripted {
    Text(String),
    Cause(Box<dyn StdError + Send + Sync>),
}

impl ScriptedError {
    /// Creates an error with this cause.
    #[must_use]
    pub fn new(cause: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self(Arc::new(Scripted::Cause(cause.into())))
    }
}

impl fmt::Display for ScriptedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match &*self.0 {
            Scripted::Text(text) => text,

            Scripted::Cause(_) => "scripted error",
        })
    }
}

impl StdError for ScriptedError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match &*self.0 {
            Scripted::Text(_) => None,
            Scripted::Cause(cause) => Some(&**cause),
        }
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
        text.to_owned().into()
    }
}

impl From<String> for ScriptedError {
    fn from(text: String) -> Self {
        Self(Arc::new(Scripted::Text(text)))
    }
}
