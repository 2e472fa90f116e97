//! Runs an exit, with the behavior of its consumer.

use std::future::{Future, pending, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use futures_core::stream::{FusedStream, Stream};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use super::super::script::{Script, ScriptedError, ScriptedStream, ScriptedToken};
use super::{AtLastItem, Consumer, Exit, Exited, Hook, Last, MS, Setup, Subject, text};
use crate::event::Event;
use crate::l0::{L0, L0Builder};
use crate::observe::{Interceptor, Observer, Observers, RunInfo};
use crate::options::Builder;
use crate::retry::Retry;
use crate::run::{Call, Chunk, ForRun, Run, Watched};
use crate::source::{View, source};
use crate::stop::RunHandle;
use crate::token::TokenView;

impl Exit {
    /// Runs this exit, and returns what its consumer observed. A panic that is part of the exit is
    /// caught. Its message is printed like that of any other panic.
    ///
    /// `builder` configures the run. This method sets retries, timeouts and checks; retries are off
    /// unless the exit needs them. Interceptors, monitoring and the seed are yours.
    ///
    /// `runtime` needs a timer. Pause its clock to get exact times. It is shut down before this
    /// method returns.
    ///
    /// # Panics
    ///
    /// Panics if `runtime` has no timer, or if this is called inside another runtime.
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
                // Here, because a sleep can only be created inside a runtime.
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
        let script = setup.script.restarted();
        let fallback = setup.fallback.as_ref().map(Script::restarted);
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
    /// Sets the options that runs and watched streams share.
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

/// A run, a watched stream or a call.
trait Driven: Send {
    /// Returns the name of what was yielded, or what came last.
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

type Received = (Last, Option<AtLastItem>);

const UNSEEN: Received = (Last::Unseen, None);

async fn consume(mut subject: Box<dyn Driven>, consumer: Consumer, trace: &Trace) -> Received {
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
            // From another task.
            tokio::spawn(async move {
                sleep(10 * MS).await;
                handle.abort();
            });
            read(&mut *subject, trace).await
        }
        Consumer::AbortsByHandleAfterOneItem => {
            one_item(&mut *subject, trace).await;
            let handle = subject.handle();
            // From another task.
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

/// Reads to the end, and captures the state of the run when it yields its last item.
async fn read(subject: &mut dyn Driven, trace: &Trace) -> Received {
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

/// Reads to the end, without a runtime that could wake it.
fn read_without_waiting(subject: &mut dyn Driven, trace: &Trace) -> Received {
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
    item.expect("the source yields an item");
}

async fn next(subject: &mut dyn Driven, trace: &Trace) -> Result<&'static str, Last> {
    let next = poll_fn(|cx| subject.poll(cx)).await;
    trace.push(next.as_ref().unwrap_or(&"last"));
    next
}

/// Records the order of what happens.
#[derive(Debug, Clone, Default)]
struct Trace(Arc<Mutex<Vec<&'static str>>>);

impl Trace {
    fn lock(&self) -> MutexGuard<'_, Vec<&'static str>> {
        // A push cannot be left incomplete.
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
