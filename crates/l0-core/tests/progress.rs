//! Progress of a run, read by code that does not poll it.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use l0_core::testing::{Script, ScriptedError};
use l0_core::{
    Backoff, Failure, Interceptor, L0, L0Builder, Monitoring, Observers, Progress, Retry, RunInfo,
    RunState, Stalls, TokenView,
};
use tokio::time::advance;

/// Requests progress, and keeps the runs.
#[derive(Clone, Default)]
struct ProgressReader(Arc<Mutex<Vec<RunInfo>>>);

impl Interceptor for ProgressReader {
    fn observe(&self, run: &RunInfo, _: &mut Observers) {
        self.0.lock().expect("no panic").push(run.clone());
    }

    fn needs_progress(&self) -> bool {
        true
    }
}

impl ProgressReader {
    fn progress(&self) -> Option<Progress> {
        self.0.lock().expect("no panic").last()?.progress()
    }

    /// Returns everything except the age, in milliseconds.
    fn seen(&self) -> Seen {
        let progress = self.progress().expect("live");
        let millis = |time: Option<Duration>| time.map(|time| time.as_millis());
        (
            progress.state,
            progress.attempt,
            progress.tokens,
            millis(progress.in_state),
            millis(progress.last_arrival),
            millis(progress.first_token),
        )
    }
}

type Seen = (RunState, u32, u64, Option<u128>, Option<u128>, Option<u128>);

fn measured() -> L0Builder {
    let backoff = Backoff::fixed(Duration::from_secs(1));
    L0::builder().monitoring(Monitoring::new()).retry(
        Retry::new()
            .model_retries(1)
            .max_retries(1)
            .backoff(backoff),
    )
}

fn poll<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

async fn pass(millis: u64) {
    advance(Duration::from_millis(millis)).await;
}

/// Connects after 100 ms, yields an item without a token, then a token after 200 ms, and fails 200 ms
/// later. The next attempt yields one token.
fn script() -> Script {
    let millis = Duration::from_millis;
    Script::new()
        .attempt(|a| {
            a.connect_wait(millis(100))
                .item(l0_core::testing::ScriptedToken::new(
                    l0_core::TokenKind::Other,
                    "",
                ))
                .wait(millis(200))
                .token("one")
                .wait(millis(200))
                .fail(ScriptedError::new(Failure::status(503)))
        })
        .attempt(|a| a.connect_wait(millis(100)).token("two").hang())
}

#[tokio::test(start_paused = true)]
async fn each_state_is_reported_with_the_arrivals_before_it() {
    use RunState::{BackingOff, Connecting, Held, Streaming, Waiting};
    let reader = ProgressReader::default();
    let l0 = measured().interceptor(reader.clone()).build();
    let script = script();
    let mut run = l0.stream(|_| script.connect()).start();
    let seen = || reader.seen();

    pass(10).await;
    assert_eq!(seen(), (Held, 0, 0, Some(10), None, None));
    assert!(poll(&mut run).is_pending());
    pass(90).await;
    assert_eq!(seen(), (Connecting, 1, 0, Some(90), None, None));
    pass(10).await;
    // The item without a token.
    assert!(poll(&mut run).is_ready());
    pass(30).await;
    assert_eq!(seen(), (Held, 1, 0, Some(30), Some(110), None));
    assert!(poll(&mut run).is_pending());
    pass(200).await;
    assert_eq!(seen(), (Waiting, 1, 0, Some(200), Some(110), None));
    assert!(poll(&mut run).is_ready());
    pass(20).await;
    assert_eq!(seen(), (Held, 1, 1, Some(20), Some(340), Some(340)));
    assert!(poll(&mut run).is_pending());
    pass(200).await;
    assert_eq!(seen(), (Streaming, 1, 1, Some(200), Some(340), Some(340)));
    // The attempt fails, and the run backs off.
    assert!(poll(&mut run).is_pending());
    pass(1_000).await;
    assert_eq!(
        seen(),
        (BackingOff, 1, 1, Some(1_000), Some(340), Some(340))
    );
    // The restart.
    assert!(poll(&mut run).is_ready());
    pass(5).await;
    assert_eq!(seen(), (Held, 1, 1, Some(5), Some(340), Some(340)));
    assert!(poll(&mut run).is_pending());
    pass(100).await;
    assert_eq!(seen(), (Connecting, 2, 1, Some(100), Some(340), Some(340)));
    assert!(poll(&mut run).is_ready());
    assert_eq!(seen(), (Held, 2, 2, Some(0), Some(1_665), Some(340)));
    assert!(poll(&mut run).is_pending());
    pass(9).await;
    assert_eq!(seen(), (Streaming, 2, 2, Some(9), Some(1_665), Some(340)));
    assert_eq!(run.handle().progress(), reader.progress());
    let age = reader.progress().expect("live").age;
    assert_eq!(age, Duration::from_millis(1_674));

    drop(run);
    assert_eq!(reader.progress(), None);
}

#[tokio::test(start_paused = true)]
async fn a_source_is_silent_only_while_the_run_waits_for_it() {
    let reader = ProgressReader::default();
    let l0 = measured().interceptor(reader.clone()).build();
    let script = Script::new().attempt(|a| a.token("one").hang());
    let mut run = l0.stream(|_| script.connect()).start();
    let is_stalled = || {
        let progress = reader.progress().expect("live");
        progress.is_stalled(&Stalls::new())
    };
    let silence = || reader.progress().expect("live").silence();

    pass(100_000).await;
    assert_eq!((silence(), is_stalled()), (None, false));
    assert!(poll(&mut run).is_ready());
    // The consumer holds the item for minutes before it polls again.
    pass(100_000).await;
    assert_eq!((silence(), is_stalled()), (None, false));
    assert!(poll(&mut run).is_pending());
    pass(9_999).await;
    assert!(!is_stalled());
    pass(1).await;
    assert_eq!(silence(), Some(Duration::from_secs(10)));
    assert!(is_stalled());
    // A poll that finds nothing changes nothing.
    assert!(poll(&mut run).is_pending());
    assert!(is_stalled());
}

#[tokio::test(start_paused = true)]
async fn the_wait_for_the_first_token_starts_with_the_call() {
    let reader = ProgressReader::default();
    let l0 = measured().interceptor(reader.clone()).build();
    let script = Script::new().attempt(|a| a.connect_wait(Duration::from_millis(100)).hang());
    let mut run = l0.stream(|_| script.connect()).start();
    assert!(poll(&mut run).is_pending());
    pass(100).await;
    // The attempt has its stream from here on.
    assert!(poll(&mut run).is_pending());
    pass(50).await;
    let expected = (RunState::Waiting, 1, 0, Some(150), None, None);
    assert_eq!(reader.seen(), expected);
}

#[tokio::test(start_paused = true)]
async fn before_the_first_token_of_an_attempt_the_other_limit_applies() {
    let reader = ProgressReader::default();
    let l0 = measured().interceptor(reader.clone()).build();
    let stalls = Stalls::new().after(Duration::from_secs(1));
    for script in [
        Script::new().attempt(|a| a.connect_hang()),
        Script::new().attempt(|a| a.hang()),
    ] {
        let mut run = l0.stream(|_| script.connect()).start();
        assert!(poll(&mut run).is_pending());
        advance(stalls.first_token_after - Duration::from_millis(1)).await;
        let progress = || reader.progress().expect("live");
        assert!(!progress().is_stalled(&stalls), "{:?}", progress());
        pass(1).await;
        assert!(progress().is_stalled(&stalls), "{:?}", progress());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unmeasured_run_reports_no_times_except_its_age() {
    let reader = ProgressReader::default();
    for monitoring in [Monitoring::off(), Monitoring::new().include_timings(false)] {
        let l0 = L0::builder()
            .monitoring(monitoring)
            .interceptor(reader.clone())
            .build();
        let script = Script::new().attempt(|a| a.tokens(["one", "two"]).hang());
        let mut run = l0.stream(|_| script.connect()).start();
        pass(10).await;
        assert_eq!(reader.seen(), (RunState::Held, 0, 0, None, None, None));
        assert!(poll(&mut run).is_ready());
        assert!(poll(&mut run).is_ready());
        assert_eq!(reader.seen(), (RunState::Held, 1, 2, None, None, None));
        assert!(poll(&mut run).is_pending());
        pass(100_000).await;
        let progress = reader.progress().expect("live");
        assert_eq!(reader.seen(), (RunState::Streaming, 1, 2, None, None, None));
        assert_eq!(progress.age, Duration::from_millis(100_010));
        let stalls = Stalls::new();
        let stalls = stalls
            .after(Duration::ZERO)
            .first_token_after(Duration::ZERO);
        assert!(!progress.is_stalled(&stalls));
    }
}

#[tokio::test(start_paused = true)]
async fn watched_streams_and_calls_report_progress_too() {
    let reader = ProgressReader::default();
    let l0 = measured().interceptor(reader.clone()).build();
    let stream = Script::new().attempt(|a| a.token("one").hang()).stream();
    let mut watched = l0.watch(stream).start();
    assert_eq!(reader.seen(), (RunState::Held, 1, 0, Some(0), None, None));
    assert!(poll(&mut watched).is_ready());
    assert!(poll(&mut watched).is_pending());
    pass(7).await;
    let expected = (RunState::Streaming, 1, 1, Some(7), Some(0), Some(0));
    assert_eq!(reader.seen(), expected);

    let mut call = l0
        .call(|_| std::future::pending::<Result<(), ScriptedError>>())
        .view_with(|_: &()| TokenView::other())
        .start();
    let mut context = Context::from_waker(Waker::noop());
    assert!(Pin::new(&mut call).poll(&mut context).is_pending());
    pass(3).await;
    let expected = (RunState::Connecting, 1, 0, Some(3), None, None);
    assert_eq!(reader.seen(), expected);
}

#[tokio::test(start_paused = true)]
async fn there_is_no_progress_unless_an_interceptor_requests_it() {
    let script = Script::new().attempt(|a| a.token("one").hang());
    let run = measured().build().stream(|_| script.connect()).start();
    assert_eq!(run.handle().progress(), None);
    assert_eq!(run.info().progress(), None);

    let reader = ProgressReader::default();
    for l0 in [
        L0::builder().interceptor(Some(reader.clone())),
        L0::builder().interceptor(vec![reader.clone()]),
        L0::builder().interceptor(Arc::new(reader.clone())),
        L0::builder().interceptor(Box::new(reader)),
    ] {
        let run = l0.build().stream(|_| script.connect()).start();
        assert!(run.handle().progress().is_some());
    }
}

#[test]
fn values_read_while_another_thread_streams_never_decrease() {
    let reader = ProgressReader::default();
    let l0 = measured().interceptor(reader.clone()).build();
    let script = Script::new().attempt(|a| a.tokens((0..200_000).map(|_| "token")));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut run = l0.stream(|_| script.connect()).start();
            while matches!(poll(&mut run), Poll::Ready(Some(_))) {}
            done.store(true, Ordering::Release);
        });
        let mut last = None::<Progress>;
        while !done.load(Ordering::Acquire) {
            let Some(progress) = reader.progress() else {
                continue;
            };
            if let Some(last) = last {
                assert!(progress.tokens >= last.tokens);
                assert!(progress.last_arrival >= last.last_arrival);
                assert!(progress.attempt >= last.attempt);
            }
            assert!(progress.last_arrival <= Some(progress.age));
            assert!(progress.tokens == 0 || progress.attempt == 1);
            last = Some(progress);
        }
    });
    assert_eq!(reader.progress(), None);
}
