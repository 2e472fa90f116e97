//! Runs on executors other than Tokio's, and runs that outlive their runtime. A run that has to wait
//! either waits or reports that it cannot, without panicking. This also holds with `panic = "abort"`.

use std::cell::Cell;
use std::future::{Future, ready};
use std::io;
use std::panic;
use std::pin::{Pin, pin};
use std::sync::{Arc, Once};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_core::Stream;
use l0_core::testing::{Script, ScriptedAttempt};
use l0_core::{
    Backoff, Cause, Error, Failure, L0, NetworkErrorKind, Outcome, Retry, TimeoutKind, Timeouts,
};
use tokio::runtime::{Builder, Runtime};

const MS: Duration = Duration::from_millis(1);

/// Wakes a thread: the smallest possible executor.
struct Unparks(Thread);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Unparks(thread::current())));
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker)) {
            return output;
        }
        thread::park();
    }
}

thread_local! {
    static PANICS: Cell<u32> = const { Cell::new(0) };
}

/// Returns the number of panics in this thread during `run`, including caught ones.
fn panics(run: impl FnOnce()) -> u32 {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.set(PANICS.get() + 1);
            before(info);
        }));
    });
    let before = PANICS.get();
    run();
    PANICS.get() - before
}

fn runtime() -> Runtime {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(1).enable_time();
    builder.build().expect("a runtime")
}

fn fails_once() -> Script {
    let reset = Failure::network(NetworkErrorKind::Econnreset);
    Script::new()
        .attempt(move |a| a.fail(reset))
        .attempt(|a| a.token("fine"))
}

fn waits() -> Script {
    Script::new().attempt(ScriptedAttempt::connect_hang)
}

/// With a back-off and a timeout.
fn patient() -> L0 {
    L0::builder()
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(20 * MS)))
        .timeouts(Timeouts::new().first_token(300 * MS))
        .build()
}

#[test]
fn another_executor_runs_everything_that_needs_no_timer() {
    let panics = panics(|| {
        let l0 = L0::builder()
            .retry(Retry::new().backoff(Backoff::none()))
            .timeouts(Timeouts::new().total(60_000 * MS))
            .build();
        let script = fails_once();
        let mut run = l0.stream(script.source()).start();
        assert_eq!(block_on(run.text()).ok().as_deref(), Some("fine"));
        assert_eq!(l0.live(), 0);
    });
    assert_eq!(panics, 0);
}

#[test]
fn another_executor_waits_with_the_timer_of_an_entered_runtime() {
    let runtime = runtime();
    let _entered = runtime.enter();
    let l0 = patient();
    let script = fails_once();
    let mut run = l0.stream(script.source()).start();
    assert_eq!(block_on(run.text()).ok().as_deref(), Some("fine"));

    let script = waits();
    let mut run = l0.stream(script.source()).start();
    let text = block_on(run.text());
    let kind = TimeoutKind::FirstToken;
    assert!(
        matches!(text, Err(Error::Timeout(is)) if is == kind),
        "{text:?}"
    );
    assert_eq!(script.calls(), 2);
}

#[test]
fn without_a_runtime_a_run_that_has_to_wait_reports_it_and_does_not_panic() {
    for script in [fails_once(), waits()] {
        let panics = panics(|| {
            let mut run = patient().stream(script.source()).start();
            let text = block_on(run.text());
            assert!(matches!(text, Err(Error::NoTimer)), "{text:?}");
            let cause = run.end().and_then(|end| end.cause().cloned());
            assert_eq!(cause, Some(Cause::NoTimer));
            assert_eq!(run.outcome(), Some(Outcome::Failed));
        });
        assert_eq!(panics, 0);
    }
}

/// Always pending.
struct Hung;

impl Stream for Hung {
    type Item = io::Result<&'static str>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

#[test]
fn a_run_that_outlives_its_runtime_continues_elsewhere_or_reports_that_it_cannot_and_does_not_panic()
 {
    for elsewhere in [true, false] {
        let panics = panics(|| {
            let mut run = patient().stream(|_| ready(Ok(Hung))).start();
            let first = runtime();
            first.block_on(async {
                let mut text = pin!(run.text());
                let mut cx = Context::from_waker(Waker::noop());
                assert!(text.as_mut().poll(&mut cx).is_pending());
            });
            drop(first);
            let text = if elsewhere {
                runtime().block_on(run.text())
            } else {
                block_on(run.text())
            };
            match text {
                Err(Error::Timeout(TimeoutKind::FirstToken)) => assert!(elsewhere),
                Err(Error::NoTimer) => assert!(!elsewhere),
                text => panic!("{text:?}, elsewhere: {elsewhere}"),
            }
        });
        assert_eq!(panics, 0, "elsewhere: {elsewhere}");
    }
}
