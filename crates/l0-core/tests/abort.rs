//! Stopping a run in any state, by its handle and by futures, from any thread or task.

use std::future::{Future, poll_fn, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt};
use l0_core::{
    Backoff, Chunk, Error, Event, Failure, L0, L0Builder, Monitoring, NetworkErrorKind, Outcome,
    Retry, RunHandle, Timeouts, observe_fn,
};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn measured() -> (L0Builder, Captured) {
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(Monitoring::new())
        .retry(
            Retry::new()
                .unlimited()
                .backoff(Backoff::fixed(3_600 * SEC)),
        )
        .interceptor(captured.clone());
    (builder, captured)
}

fn reset() -> Failure {
    Failure::network(NetworkErrorKind::Econnreset)
}

/// Returns the output of a task. A task that hangs fails here, by the paused clock.
async fn joined<T>(task: tokio::task::JoinHandle<T>) -> T {
    let joined = tokio::time::timeout(86_400 * SEC, task).await;
    joined.expect("it hangs").expect("no panic")
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum By {
    Handle,
    Future,
}

#[tokio::test(start_paused = true)]
async fn an_abort_interrupts_every_wait_at_once() {
    let cases = || {
        [
            (
                "a hung source",
                Script::new().attempt(ScriptedAttempt::hang),
            ),
            (
                "a source hung in mid-stream",
                Script::new().attempt(|a| a.token("a").hang()),
            ),
            (
                "a slow source",
                Script::new().attempt(|a| a.wait(3_600 * SEC).token("a")),
            ),
            (
                "a hung factory",
                Script::new().attempt(ScriptedAttempt::connect_hang),
            ),
            ("a back-off", Script::new().attempt(|a| a.fail(reset()))),
            (
                "a back-off in mid-stream",
                Script::new().attempt(|a| a.token("a").fail(reset())),
            ),
        ]
    };
    for by in [By::Handle, By::Future] {
        for timeouts in [Timeouts::new(), Timeouts::new().total(7_200 * SEC)] {
            for (name, script) in cases() {
                let what = format!("{name}, {by:?}");
                let (builder, captured) = measured();
                let token = CancellationToken::new();
                let mut run = builder
                    .timeouts(timeouts)
                    .build()
                    .stream(script.source())
                    .until(token.clone().cancelled_owned())
                    .start();
                let handle = run.handle();
                let task = tokio::spawn(async move {
                    let text = run.text().await;
                    (text, Instant::now(), run.telemetry().expect("measured"))
                });
                sleep(10 * MS).await;
                let aborted_at = Instant::now();
                match by {
                    By::Handle => handle.abort(),
                    By::Future => token.cancel(),
                }
                let (text, ended_at, telemetry) = joined(task).await;

                let error = text.expect_err("aborted");
                assert!(matches!(error, Error::Aborted), "{what}: {error:?}");
                assert_eq!(error.to_string(), "the run was aborted");
                assert_eq!(ended_at, aborted_at, "{what}: at once");
                assert_eq!(telemetry.outcome, Some(Outcome::Aborted), "{what}");
                assert_eq!(telemetry.duration, Some(10 * MS), "{what}");
                assert_eq!(script.calls(), 1, "{what}: no further attempt");
                let retries = u64::from(name.starts_with("a back-off"));
                assert_eq!(
                    telemetry.network.error_count, retries,
                    "{what}: an abort is not a network error"
                );
                assert_eq!(telemetry, handle.telemetry().expect("final"), "{what}");
                let kinds = captured.kinds();
                assert_eq!(kinds.last(), Some(&"finished"), "{what}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_ends_a_watched_stream_that_hangs_and_drops_its_source() {
    for by in [By::Handle, By::Future] {
        let script = Script::new().attempt(|a| a.token("a").hang());
        let (builder, captured) = measured();
        let token = CancellationToken::new();
        let mut watched = builder
            .build()
            .watch(script.stream())
            .until(token.clone().cancelled_owned())
            .start();
        let handle = watched.handle();
        let task = tokio::spawn(async move {
            let mut items = 0;
            while watched.next().await.is_some() {
                items += 1;
            }
            assert!(watched.next().await.is_none(), "it stays ended");
            (items, Instant::now(), watched.into_inner())
        });
        sleep(10 * MS).await;
        let aborted_at = Instant::now();
        match by {
            By::Handle => handle.abort(),
            By::Future => token.cancel(),
        }
        let (items, ended_at, _source) = joined(task).await;
        assert_eq!((items, ended_at), (1, aborted_at), "{by:?}");
        assert_eq!(script.dropped(), 0, "{by:?}");
        let telemetry = captured.telemetry().expect("measured");
        assert_eq!(telemetry.outcome, Some(Outcome::Aborted), "{by:?}");
        assert_eq!(telemetry.network.error_count, 0, "{by:?}");
    }
}

/// Reports each poll, and hangs.
struct Hung(mpsc::Sender<()>);

impl Stream for Hung {
    type Item = io::Result<&'static str>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Only the first poll is received.
        let _ = self.0.send(());
        Poll::Pending
    }
}

/// Waits for a future, without a runtime.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return value;
        }
        std::thread::park();
    }
}

/// Starts a run that hangs, and aborts it from another thread, possibly just before it waits.
async fn abort_from_another_thread(watch: bool, by: By) -> Option<Outcome> {
    let (sender, polled) = mpsc::channel();
    let token = CancellationToken::new();
    let until = token.clone().cancelled_owned();
    let l0 = L0::default();
    let abort = move |handle: RunHandle| {
        std::thread::spawn(move || {
            polled.recv().expect("polled");
            match by {
                By::Handle => handle.abort(),
                By::Future => token.cancel(),
            }
        })
    };
    let (aborter, outcome) = if watch {
        let mut watched = l0.watch(Hung(sender)).until(until).start();
        let aborter = abort(watched.handle());
        assert!(watched.next().await.is_none());
        (aborter, watched.outcome())
    } else {
        let mut source = Some(Hung(sender));
        let mut run = l0
            .stream(move |_| ready(Ok(source.take().expect("one attempt"))))
            .until(until)
            .start();
        let aborter = abort(run.handle());
        let error = run.text().await.expect_err("aborted");
        assert!(matches!(error, Error::Aborted));
        (aborter, run.outcome())
    };
    aborter.join().expect("no panic");
    outcome
}

#[test]
fn an_abort_from_another_thread_is_never_missed() {
    const ROUNDS: usize = 250;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    for watch in [false, true] {
        for by in [By::Handle, By::Future] {
            for _ in 0..ROUNDS {
                let task = runtime.spawn(abort_from_another_thread(watch, by));
                let outcome = runtime.block_on(task).expect("no panic");
                assert_eq!(outcome, Some(Outcome::Aborted));
                let outcome = block_on(abort_from_another_thread(watch, by));
                assert_eq!(outcome, Some(Outcome::Aborted), "without a runtime");
            }
        }
    }
}

/// A future that counts its polls, keeps its waker, and is ready at a given poll.
#[derive(Clone, Default)]
struct Counted {
    polls: Arc<AtomicUsize>,
    ready_after: Arc<AtomicUsize>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Counted {
    /// Never ready.
    fn never() -> Self {
        Self::ready_at(usize::MAX)
    }

    /// Ready at this poll, counted from 1.
    fn ready_at(poll: usize) -> Self {
        let counted = Self::default();
        counted.ready_after.store(poll, Ordering::Relaxed);
        counted
    }

    fn polls(&self) -> usize {
        self.polls.load(Ordering::Relaxed)
    }

    fn wake(&self) {
        let waker = self.waker.lock().expect("no panic").clone();
        waker.expect("polled before").wake();
    }
}

impl Future for Counted {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polls = self.polls.fetch_add(1, Ordering::Relaxed) + 1;
        let ready_at = self.ready_after.load(Ordering::Relaxed);
        assert!(polls <= ready_at, "polled after it was ready");
        *self.waker.lock().expect("no panic") = Some(cx.waker().clone());
        if polls == ready_at {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}

/// Yields items, each after it was pending once if `pending` is set.
struct Items {
    left: usize,
    pending: bool,
    was_pending: bool,
}

impl Items {
    fn new(left: usize, pending: bool) -> Self {
        Self {
            left,
            pending,
            was_pending: false,
        }
    }
}

impl Stream for Items {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.pending && !self.was_pending {
            self.was_pending = true;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.was_pending = false;
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        Poll::Ready(Some(Ok("token")))
    }
}

#[tokio::test]
async fn futures_are_polled_once_and_then_only_after_a_wake() {
    const TOKENS: usize = 10_000;
    for pending in [false, true] {
        for woken in [0, 1, 7] {
            let futures = [Counted::never(), Counted::never()];
            let mut run = L0::default()
                .stream(|_| ready(Ok(Items::new(TOKENS, pending))))
                .until(futures[0].clone())
                .until(futures[1].clone())
                .start();
            let mut watched = L0::default()
                .watch(Items::new(TOKENS, pending))
                .until(futures[0].clone())
                .until(futures[1].clone())
                .start();
            let mut items = 0;
            while run.next().await.is_some() {
                items += 1;
                if items <= woken {
                    // Several wakes between two polls count once.
                    futures[0].wake();
                    futures[0].wake();
                }
            }
            assert_eq!(items, TOKENS);
            for future in &futures {
                assert_eq!(future.polls(), 1 + woken, "pending: {pending}");
            }
            assert_eq!(watched.by_ref().count().await, TOKENS);
            for future in &futures {
                assert_eq!(future.polls(), 2 + woken, "pending: {pending}");
            }
            assert_eq!(run.outcome(), Some(Outcome::Completed));
            assert_eq!(watched.outcome(), Some(Outcome::Completed));
        }
    }
}

#[tokio::test]
async fn a_future_that_wakes_itself_is_polled_while_the_source_hangs() {
    let mut left = 1_000;
    let wakes_itself = poll_fn(move |cx| {
        left -= 1;
        if left == 0 {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    });
    let script = Script::new().attempt(ScriptedAttempt::hang);
    let mut run = L0::default()
        .stream(script.source())
        .until(wakes_itself)
        .start();
    assert!(matches!(run.text().await, Err(Error::Aborted)));
}

#[tokio::test(start_paused = true)]
async fn any_of_several_futures_stops_the_run_ready_at_first_or_later() {
    for (name, futures, items) in [
        ("none", vec![], 3),
        ("one that never comes", vec![Counted::never()], 3),
        ("ready at first", vec![Counted::ready_at(1)], 0),
        (
            "the last of three ready at first",
            vec![Counted::never(), Counted::never(), Counted::ready_at(1)],
            0,
        ),
        (
            "the first of two ready at first",
            vec![Counted::ready_at(1), Counted::ready_at(1)],
            0,
        ),
        ("ready when woken", vec![Counted::ready_at(2)], 1),
        (
            "ready when woken once more",
            vec![Counted::ready_at(9), Counted::ready_at(3)],
            2,
        ),
    ] {
        let script = Script::new().attempt(|a| a.tokens(["a", "b", "c"]));
        let l0 = L0::default();
        let mut run = l0.stream(script.source());
        for future in &futures {
            run = run.until(future.clone());
        }
        let mut run = run.start();
        let mut seen = 0;
        let last = loop {
            match run.next().await {
                Some(Ok(Chunk::Item(_))) => seen += 1,
                last => break last,
            }
            if let Some(future) = futures.last() {
                future.wake();
            }
        };
        assert_eq!(seen, items, "{name}");
        assert_eq!(
            matches!(last, Some(Err(Error::Aborted))),
            items < 3,
            "{name}: {last:?}"
        );
        assert_eq!(script.calls(), usize::from(items > 0), "{name}");
        assert!(run.next().await.is_none(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_tokio_timer_stops_the_run_in_time() {
    let script = Script::new().attempt(|a| (0..100).fold(a, |a, _| a.wait(SEC).token("a")));
    let mut run = L0::default()
        .stream(script.source())
        .until(sleep(50 * SEC + 500 * MS))
        .start();
    let start = Instant::now();
    let seen = run.by_ref().take_while(|item| ready(item.is_ok()));
    assert_eq!(seen.count().await, 50);
    assert_eq!(start.elapsed(), 50 * SEC + 500 * MS);
    assert_eq!(run.outcome(), Some(Outcome::Aborted));
}

#[tokio::test(start_paused = true)]
async fn an_abort_after_the_end_has_no_effect() {
    let fails = || Script::new().attempt(|a| a.fail(Failure::fatal()));
    let completes = || Script::new().attempt(|a| a.token("a"));
    for (script, outcome) in [
        (completes(), Outcome::Completed),
        (fails(), Outcome::Failed),
    ] {
        for watch in [false, true] {
            let (builder, captured) = measured();
            let token = CancellationToken::new();
            let until = token.clone().cancelled_owned();
            let l0 = builder.build();
            let abort = |handle: RunHandle| {
                let telemetry = handle.telemetry();
                handle.abort();
                token.cancel();
                handle.abort();
                assert!(handle.is_finished());
                assert_eq!(handle.telemetry(), telemetry);
            };
            if watch {
                let mut watched = l0.watch(script.stream()).until(until).start();
                while watched.next().await.is_some() {}
                abort(watched.handle());
                assert!(watched.next().await.is_none());
                assert_eq!(watched.outcome(), Some(outcome));
            } else {
                let mut run = l0.stream(script.source()).until(until).start();
                while run.next().await.is_some() {}
                abort(run.handle());
                assert!(run.next().await.is_none());
                assert_eq!(run.outcome(), Some(outcome));
            }
            let finished = captured.events().into_iter();
            let finished: Vec<_> = finished
                .filter_map(|event| match event {
                    OwnedEvent::Finished { end, .. } => Some(end.outcome()),
                    _ => None,
                })
                .collect();
            assert_eq!(finished, [outcome]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn handles_return_the_end_immediately_and_agree() {
    let (builder, _) = measured();
    let script = Script::new().attempt(|a| a.token("a"));
    let mut run = builder.build().stream(script.source()).start();
    let (first, second) = (run.handle(), run.handle().clone());
    assert!(!first.is_finished());
    assert_eq!(first.telemetry(), None, "none before the end");
    run.text().await.expect("answered");
    for handle in [&first, &second] {
        assert!(handle.is_finished());
        assert_eq!(handle.telemetry(), run.telemetry());
    }
    drop(run);
    assert!(
        first.telemetry().is_some(),
        "also after the run was dropped"
    );

    let run = L0::default().stream(script.source()).start();
    let handle = run.handle();
    drop(run);
    assert!(handle.is_finished());
    assert_eq!(handle.telemetry(), None, "not measured");
}

#[tokio::test(start_paused = true)]
async fn an_observer_can_abort_its_own_run() {
    for at in ["started", "attempt_started", "token", "retry"] {
        let handle = Arc::new(OnceLock::<RunHandle>::new());
        let (known, script) = (
            Arc::clone(&handle),
            Script::new()
                .attempt(|a| a.tokens(["a", "b"]).fail(reset()))
                .attempt(|a| a.token("fine")),
        );
        let mut run = L0::builder()
            .retry(Retry::new().backoff(Backoff::none()))
            .build()
            .stream(script.source())
            .interceptor(observe_fn(move |_, event: &Event<'_>| {
                if let Some(handle) = known.get().filter(|_| event.name() == at) {
                    handle.abort();
                }
            }))
            .start();
        handle.set(run.handle()).expect("set once");
        let ended = run.text().await;
        // `Started` came before the handle.
        assert_eq!(
            matches!(ended, Err(Error::Aborted)),
            at != "started",
            "{at}"
        );
        assert_eq!(script.calls() > 1, at == "started", "{at}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_abort_takes_precedence_over_a_ready_item_and_a_ready_end() {
    for script in [
        Script::new().attempt(|a| a.tokens(["a", "b"])),
        Script::new().attempt(|a| a.token("a")),
        Script::new().attempt(|a| a.token("a").fail(Failure::fatal())),
        Script::new().attempt(|a| a.token("a").fail(reset())),
    ] {
        let mut run = L0::default().stream(script.source()).start();
        run.next().await.expect("an item").expect("no error");
        run.handle().abort();
        let last = run.next().await;
        assert!(matches!(last, Some(Err(Error::Aborted))), "{last:?}");
    }
}

#[test]
fn a_future_that_panics_fails_the_run_exactly_once() {
    let finished = |captured: &Captured| {
        let events = captured.events().into_iter();
        let outcomes = events.filter_map(|event| match event {
            OwnedEvent::Finished { end, .. } => Some(end.outcome()),
            _ => None,
        });
        outcomes.collect::<Vec<_>>()
    };
    let panics = || poll_fn(|_| -> Poll<()> { panic!("the future panics") });
    let mut cx = Context::from_waker(Waker::noop());
    let script = Script::new().attempt(|a| a.token("a"));

    let (builder, captured) = measured();
    let l0 = builder.build();
    let mut run = l0.stream(script.source()).until(panics()).start();
    let polled = catch_unwind(AssertUnwindSafe(|| {
        drop(Pin::new(&mut run).poll_next(&mut cx));
    }));
    polled.expect_err("the panic propagates");
    assert!(matches!(
        Pin::new(&mut run).poll_next(&mut cx),
        Poll::Ready(None)
    ));
    drop(run);
    assert_eq!(finished(&captured), [Outcome::Failed]);
}
