//! Checks the stop signal, the handles, the `until` futures, the list of live runs and the progress of a run
//! under every interleaving of two or three threads: no wake is lost, and what one thread publishes is visible
//! to the others.
//!
//! The files of `l0-core` are compiled unchanged. Their `crate::sync` is defined here with the model checker's
//! own primitives.
#![allow(clippy::print_stdout, reason = "a terminal program")]

#[allow(dead_code, reason = "only a part is checked here")]
#[path = "../../crates/l0-core/src/live.rs"]
mod live;
#[allow(dead_code, reason = "only a part is checked here")]
#[path = "../../crates/l0-core/src/progress.rs"]
mod progress;
#[allow(dead_code, reason = "only a part is checked here")]
#[path = "../../crates/l0-core/src/stop.rs"]
mod stop;

mod clock {
    pub(crate) use tokio::time::Instant;

    pub(crate) fn now() -> Instant {
        Instant::now()
    }
}

mod end {
    pub(crate) use l0_core::End;
}

mod stalls {
    pub(crate) use l0_core::Stalls;
}

mod label {
    /// The parts that use labels are not checked here.
    macro_rules! label_enum {
        ($(#[$about:meta])* pub enum $name:ident {
            $($(#[$value_about:meta])* $value:ident = $label:literal,)+
        }) => {
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub(crate) enum $name {
                $($value,)+
            }
        };
    }

    pub(crate) use label_enum;
}

mod metadata {
    pub(crate) use l0_core::Metadata;
}

mod observe {
    /// A panic is a detected error, so it is not contained.
    pub(crate) fn contain<R>(code: impl FnOnce() -> R) -> Option<R> {
        Some(code())
    }
}

mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    /// The checker has no `OnceLock`. This one stores whether it is set in an atomic of the checker, and is as
    /// strong as the real one.
    #[derive(Debug)]
    pub(crate) struct OnceLock<T> {
        is_set: AtomicU8,
        value: std::sync::OnceLock<T>,
    }

    impl<T> Default for OnceLock<T> {
        fn default() -> Self {
            Self {
                is_set: AtomicU8::new(0),
                value: std::sync::OnceLock::new(),
            }
        }
    }

    impl<T> OnceLock<T> {
        pub(crate) fn get(&self) -> Option<&T> {
            let is_set = self.is_set.load(Ordering::Acquire) == 1;
            is_set.then(|| self.value.get().expect("set before the flag"))
        }

        pub(crate) fn get_or_init(&self, init: impl FnOnce() -> T) -> &T {
            let value = self.value.get_or_init(init);
            self.is_set.store(1, Ordering::Release);
            value
        }
    }
}

mod telemetry {
    pub(crate) use l0_core::Telemetry;
}

mod verdict {
    pub(crate) use l0_core::Outcome;
}

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use l0_core::{Cause, End};
use live::LiveRuns;
use loom::future::block_on;
use loom::sync::Mutex;
use loom::thread;
use progress::{Cells, RunState};
use stop::{Final, RunHandle, Stop};

fn main() {
    for (name, model) in [
        ("an abort reaches the waiting task", abort as fn()),
        ("an abort reaches the task that a run moved to", moved),
        (
            "a future that becomes ready reaches the waiting task",
            until,
        ),
        (
            "a thread that sees the end of a run sees its outcome",
            published,
        ),
        ("an abort of an ending run has no effect", ending),
        ("the last end wakes a waiter for all runs", ended),
        (
            "an abort of all runs ends all, and wakes a waiter for that",
            abort_all,
        ),
        (
            "a dropped waiter is removed, whatever ends meanwhile",
            cancelled,
        ),
        (
            "a thread that sees a run wait sees what came before",
            progress,
        ),
    ] {
        let interleavings = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = Arc::clone(&interleavings);
        loom::model(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            model();
        });
        let interleavings = interleavings.load(std::sync::atomic::Ordering::Relaxed);
        println!("{name}: holds in {interleavings} interleavings");
    }
}

/// Polls as a run does while its source is pending.
fn poll(stop: &mut Stop<'_>, cx: &mut Context<'_>) -> Poll<()> {
    if stop.requested() {
        return Poll::Ready(());
    }
    stop.register(cx.waker());
    if stop.requested() {
        return Poll::Ready(());
    }
    Poll::Pending
}

/// Waits like a run whose source is always pending.
fn run(mut stop: Stop<'_>) {
    block_on(poll_fn(|cx| poll(&mut stop, cx)));
    finish(stop);
}

/// Does what a run does when it ends.
fn finish(mut stop: Stop<'_>) {
    stop.forget_task();
    stop.publish(Final {
        end: End::of(Cause::Aborted),
        telemetry: None,
    });
}

fn abort() {
    let stop = Stop::new(Vec::new(), None);
    let handle = stop.handle();
    let aborts = thread::spawn(move || handle.abort());
    run(stop);
    aborts.join().expect("no panic");
}

fn moved() {
    let mut stop = Stop::new(Vec::new(), None);
    let handle = stop.handle();
    let aborts = thread::spawn(move || handle.abort());
    // Polled once by a task that then passes it on.
    let first = block_on(poll_fn(|cx| Poll::Ready(poll(&mut stop, cx))));
    let second = thread::spawn(move || match first {
        Poll::Ready(()) => finish(stop),
        Poll::Pending => run(stop),
    });
    aborts.join().expect("no panic");
    second.join().expect("no panic");
}

/// A future that another thread completes.
#[derive(Clone, Default)]
struct Flag(Arc<Mutex<(bool, Option<Waker>)>>);

impl Flag {
    fn set(&self) {
        let mut flag = self.0.lock().expect("no panic");
        flag.0 = true;
        let task = flag.1.take();
        drop(flag);
        if let Some(task) = task {
            task.wake();
        }
    }
}

impl Future for Flag {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut flag = self.0.lock().expect("no panic");
        if flag.0 {
            return Poll::Ready(());
        }
        flag.1 = Some(cx.waker().clone());
        Poll::Pending
    }
}

fn until() {
    let flag = Flag::default();
    let stop = Stop::new(vec![Box::pin(flag.clone())], None);
    let sets = thread::spawn(move || flag.set());
    run(stop);
    sets.join().expect("no panic");
}

fn published() {
    let stop = Stop::new(Vec::new(), None);
    let handle = stop.handle();
    let sees = thread::spawn(move || {
        if handle.is_finished() {
            let end = handle.end().expect("the run has finished");
            assert_eq!(end.cause(), Some(&Cause::Aborted));
        }
    });
    finish(stop);
    sees.join().expect("no panic");
}

fn ending() {
    let mut stop = Stop::new(Vec::new(), None);
    let handle = stop.handle();
    let aborts = thread::spawn(move || handle.abort());
    let polled = block_on(poll_fn(|cx| Poll::Ready(poll(&mut stop, cx))));
    let handle = stop.handle();
    finish(stop);
    assert!(handle.is_finished(), "{polled:?}");
    aborts.join().expect("no panic");
}

fn live(runs: &Arc<LiveRuns>, handle: RunHandle) -> live::Place {
    runs.enter(handle, clock::now())
}

fn ended() {
    let runs = Arc::new(LiveRuns::default());
    let start = || live(&runs, Stop::new(Vec::new(), None).handle());
    let places = [start(), start()];
    let threads = places.map(|place| thread::spawn(move || drop(place)));
    block_on(runs.ended());
    assert_eq!(runs.count(), 0);
    for thread in threads {
        thread.join().expect("no panic");
    }
}

fn abort_all() {
    let runs = Arc::new(LiveRuns::default());
    let stop = Stop::new(Vec::new(), None);
    let place = live(&runs, stop.handle());
    let runs_on = thread::spawn(move || {
        run(stop);
        drop(place);
    });
    runs.abort_all();
    block_on(runs.ended());
    assert_eq!(runs.count(), 0);
    runs_on.join().expect("no panic");
}

fn cancelled() {
    let runs = Arc::new(LiveRuns::default());
    let place = live(&runs, Stop::new(Vec::new(), None).handle());
    let ends = thread::spawn(move || drop(place));
    let waits = {
        let mut ended = runs.ended();
        thread::spawn(move || {
            block_on(poll_fn(|cx| {
                let _ = Pin::new(&mut ended).poll(cx);
                Poll::Ready(())
            }));
            drop(ended);
        })
    };
    block_on(runs.ended());
    assert_eq!(runs.count(), 0);
    ends.join().expect("no panic");
    waits.join().expect("no panic");
}

fn progress() {
    let cells = Arc::new(Cells::new(clock::now(), true));
    let looks = {
        let cells = Arc::clone(&cells);
        thread::spawn(move || cells.read().expect("the run has not ended"))
    };
    cells.attempt(1);
    cells.connecting(1);
    cells.connected();
    cells.first_token(Duration::from_nanos(2));
    cells.item(1, 2);
    cells.pending(false, true, 3);
    let seen = looks.join().expect("no panic");
    if seen.state == RunState::Streaming {
        assert_eq!((seen.attempt, seen.tokens), (1, 1));
        let arrival = Some(Duration::from_nanos(2));
        assert_eq!((seen.last_arrival, seen.first_token), (arrival, arrival));
    }
}
