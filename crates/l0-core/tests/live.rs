//! The list of live runs: which runs are on it and until when, aborting all of them, and waiting
//! for their end.

use std::future::{Future, ready};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use futures_core::Stream;
use futures_util::{FutureExt, StreamExt};
use l0_core::testing::{Script, exits};
use l0_core::{Event, Interceptor, L0, NewRun, Outcome, Refusal, Run, observe_fn};
use tokio::runtime::{Builder, Runtime};
use tokio::time::advance;

const SEC: Duration = Duration::from_secs(1);

/// Always pending.
struct Hung;

impl Stream for Hung {
    type Item = io::Result<&'static str>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

fn hung(l0: &L0) -> Run<'static, &'static str, io::Error> {
    l0.stream(|_| ready(Ok(Hung))).start()
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// Counts its wake-ups.
#[derive(Default)]
struct Task(AtomicUsize);

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

impl Task {
    fn new() -> (Arc<Self>, Waker) {
        let task = Arc::new(Self::default());
        (Arc::clone(&task), task.into())
    }

    fn woken(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll<F: Future + Unpin>(future: &mut F, task: &Waker) -> Poll<F::Output> {
    Pin::new(future).poll(&mut Context::from_waker(task))
}

#[test]
fn clones_and_variants_share_one_list_and_other_configurations_do_not() {
    let l0 = L0::default();
    let clone = l0.clone();
    let variant = l0.to_builder().detect_zero_output(false).build();
    let variant_of_it = variant.to_builder().build();
    let builder = L0::builder();
    let others = [builder.clone().build(), builder.build()];
    let runs = (
        hung(&l0),
        hung(&clone),
        hung(&variant),
        hung(&variant_of_it),
    );
    let watched = l0.watch(Hung).start();
    let other = hung(&others[0]);
    for one in [&l0, &clone, &variant, &variant_of_it] {
        assert_eq!(one.live(), 5);
    }
    assert_eq!((others[0].live(), others[1].live()), (1, 0));
    drop((runs, watched));
    assert_eq!(
        (l0.live(), variant_of_it.live(), others[0].live()),
        (0, 0, 1)
    );
    drop(other);
    assert_eq!(others[0].live(), 0);
}

#[test]
fn every_run_leaves_the_list_however_it_ends() {
    let l0 = L0::default();
    let started = Arc::new(AtomicUsize::new(0));
    let all = exits::all();
    for exit in &all {
        let (seen, count) = (l0.clone(), Arc::clone(&started));
        let observe = observe_fn(move |_, event| match event {
            Event::Started { .. } => {
                count.fetch_add(1, Ordering::Relaxed);
                assert_eq!(seen.live(), 1);
            }
            Event::Finished { .. } => {
                assert_eq!(seen.live(), 1, "until its observers are notified");
            }
            _ => {}
        });
        let exited = exit.run(runtime(), l0.to_builder().interceptor(observe));
        assert_eq!(exited.info.observer_panics(), 0, "{exit}");
        assert_eq!(l0.live(), 0, "{exit}");
        assert!(l0.ended().now_or_never().is_some(), "{exit}");
    }
    assert_eq!(started.load(Ordering::Relaxed), all.len());
}

#[test]
fn a_run_leaves_the_list_before_it_yields_its_last_item() {
    let l0 = L0::default();
    let script = Script::new().attempt(|a| a.token("Hello"));
    let mut run = l0.stream(script.source()).start();
    assert!(run.next().now_or_never().flatten().is_some());
    assert_eq!(l0.live(), 1);
    assert!(matches!(run.next().now_or_never(), Some(None)));
    assert_eq!(l0.live(), 0);

    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
            Err(Refusal::new("not now"))
        }
    }
    let refusing = l0.to_builder().interceptor(Refuses).build();
    let mut refused = refusing.stream(script.source()).start();
    assert_eq!(
        l0.live(),
        0,
        "it has finished, before its consumer received the error"
    );
    assert!(refused.next().now_or_never().flatten().is_some());
}

#[test]
fn the_age_is_that_of_the_run_that_started_first() {
    runtime().block_on(async {
        let l0 = L0::default();
        assert_eq!(l0.oldest(), None);
        let first = hung(&l0);
        advance(2 * SEC).await;
        let second = hung(&l0);
        advance(3 * SEC).await;
        assert_eq!(l0.oldest(), Some(5 * SEC));
        drop(first);
        assert_eq!(l0.oldest(), Some(3 * SEC));
        drop(second);
        assert_eq!(l0.oldest(), None);
    });
}

#[test]
fn abort_all_ends_the_live_runs_and_no_later_ones() {
    let l0 = L0::default();
    let variant = l0.to_builder().build();
    let mut runs = [hung(&l0), hung(&variant)];
    let mut watched = l0.watch(Hung).start();
    let (task, waker) = Task::new();
    for run in &mut runs {
        assert!(poll(&mut run.next(), &waker).is_pending());
    }
    assert!(poll(&mut watched.next(), &waker).is_pending());
    l0.abort_all();
    assert_eq!(task.woken(), 3);
    assert_eq!(l0.live(), 3, "nothing happens without a poll");

    let later = hung(&l0);
    let [polled, dropped] = &mut runs;
    assert!(poll(&mut polled.next(), &waker).is_ready());
    assert!(matches!(
        poll(&mut watched.next(), &waker),
        Poll::Ready(None)
    ));
    let handle = dropped.handle();
    drop(runs);
    assert_eq!(handle.outcome(), Some(Outcome::Aborted));
    assert_eq!(watched.outcome(), Some(Outcome::Aborted));
    assert_eq!((l0.live(), later.outcome()), (1, None));
}

#[test]
fn the_end_of_the_last_run_wakes_all_waiting_tasks() {
    let l0 = L0::default();
    let (task, waker) = Task::new();
    assert!(poll(&mut l0.ended(), &waker).is_ready(), "no run was live");

    let (first, second) = (hung(&l0), hung(&l0));
    let mut waits = [l0.ended(), l0.clone().ended()];
    for wait in &mut waits {
        assert!(poll(wait, &waker).is_pending());
        assert!(poll(wait, &waker).is_pending(), "its task once more");
    }
    drop(first);
    assert_eq!(task.woken(), 0);
    drop(second);
    assert_eq!(task.woken(), 2);
    assert!(waits.iter_mut().all(|wait| poll(wait, &waker).is_ready()));

    // A run that starts before the task is polled extends the wait.
    let run = hung(&l0);
    let mut wait = l0.ended();
    assert!(poll(&mut wait, &waker).is_pending());
    drop(run);
    assert_eq!(task.woken(), 3);
    let late = hung(&l0);
    assert!(poll(&mut wait, &waker).is_pending());
    drop(late);
    assert_eq!(task.woken(), 4);
    assert!(poll(&mut wait, &waker).is_ready());
}

#[test]
fn a_task_that_no_longer_waits_is_not_woken_or_kept() {
    let l0 = L0::default();
    let run = hung(&l0);
    let (first, first_waker) = Task::new();
    let (second, second_waker) = Task::new();
    let mut wait = l0.ended();
    assert!(poll(&mut wait, &first_waker).is_pending());
    assert!(poll(&mut wait, &second_waker).is_pending());
    drop(first_waker);
    assert_eq!(Arc::strong_count(&first), 1, "it waits in another task now");
    drop(wait);
    drop(second_waker);
    assert_eq!(Arc::strong_count(&second), 1);
    drop(run);
    assert_eq!((first.woken(), second.woken()), (0, 0));

    // A waiting task keeps neither the configuration nor its observers alive.
    let kept = Arc::new(());
    let held = Arc::clone(&kept);
    let l0 = L0::builder()
        .interceptor(observe_fn(move |_, _| drop(Arc::clone(&held))))
        .build();
    let run = hung(&l0);
    let mut wait = l0.ended();
    drop(l0);
    let (_, waker) = Task::new();
    assert!(poll(&mut wait, &waker).is_pending());
    drop(run);
    assert_eq!(Arc::strong_count(&kept), 1);
    assert!(poll(&mut wait, &waker).is_ready());
}

#[test]
fn a_panic_of_one_task_does_not_keep_others_from_being_woken() {
    struct Panics;
    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("of the waker");
        }
    }
    let l0 = L0::default();
    let panics = Waker::from(Arc::new(Panics));
    let (task, waker) = Task::new();
    let mut runs = [hung(&l0), hung(&l0)];
    for (run, task) in runs.iter_mut().zip([&panics, &waker]) {
        assert!(poll(&mut run.next(), task).is_pending());
    }
    l0.abort_all();
    assert_eq!(task.woken(), 1);

    let mut waits = [l0.ended(), l0.ended()];
    for (wait, task) in waits.iter_mut().zip([&panics, &waker]) {
        assert!(poll(wait, task).is_pending());
    }
    let dropped = catch_unwind(AssertUnwindSafe(|| drop(runs)));
    assert!(dropped.is_ok(), "a drop does not panic");
    assert_eq!((task.woken(), l0.live()), (2, 0));
}

#[test]
fn observers_can_start_abort_and_await_runs() {
    let l0: Arc<OnceLock<L0>> = Arc::default();
    let started = Arc::new(Mutex::new(None));
    let (known, kept) = (Arc::clone(&l0), Arc::clone(&started));
    let observe = observe_fn(move |_, event| {
        let (Some(l0), Event::Finished { .. }) = (known.get(), event) else {
            return;
        };
        l0.abort_all();
        assert!(l0.ended().now_or_never().is_none());
        let another = hung(&L0::to_builder(l0).build());
        assert_eq!(l0.live(), 2);
        kept.lock().expect("no panic").get_or_insert(another);
    });
    let l0 = l0.get_or_init(|| L0::builder().interceptor(observe).build());
    drop(hung(l0));
    assert_eq!(l0.observer_panics(), 0);
    assert_eq!(l0.live(), 1);
    // The observer's own run ends, and starts one that is dropped at once.
    let another = started.lock().expect("no panic").take();
    drop(another);
}

/// Wakes a thread: a minimal executor.
struct Unparks(Thread);

impl Wake for Unparks {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn block_on<F: Future + Unpin>(mut future: F) -> F::Output {
    let waker = Waker::from(Arc::new(Unparks(thread::current())));
    loop {
        if let Poll::Ready(output) = poll(&mut future, &waker) {
            return output;
        }
        thread::park();
    }
}

#[test]
fn many_threads_start_and_end_runs_while_others_wait_without_a_runtime() {
    const RUNS: usize = 500;
    let l0 = L0::default();
    let first = hung(&l0);
    thread::scope(|scope| {
        for _ in 0..2 {
            let ended = l0.ended();
            scope.spawn(move || block_on(ended));
        }
        let starts: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| (0..RUNS).for_each(|_| drop(hung(&l0)))))
            .collect();
        for thread in starts {
            thread.join().expect("no panic");
        }
        assert_eq!(l0.live(), 1);
        drop(first); // or the scope would not end
    });
    assert_eq!(l0.live(), 0);
}
