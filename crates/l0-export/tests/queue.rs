//! The export queue: final telemetry of every run, in order, without waiting, with each loss counted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;
use std::{hint, io, iter, thread};

use futures_util::{FutureExt, Stream, StreamExt};
use l0_core::testing::Script;
use l0_core::{Backoff, Failure, Keep, L0, Monitoring, Outcome, Retry, Telemetry, on_finish};
use l0_export::{Queue, QueueReceiver, queue};

const fn assert_traits<T: Send + Sync + std::fmt::Debug>() {}
const _: () = {
    assert_traits::<Queue>();
    assert_traits::<QueueReceiver>();
};

fn l0(queue: &Queue) -> L0 {
    L0::builder()
        .retry(Retry::new().max_retries(0).backoff(Backoff::none()))
        .interceptor(queue.clone())
        .build()
}

fn outcomes(batch: &[Telemetry]) -> Vec<Option<Outcome>> {
    batch.iter().map(|telemetry| telemetry.outcome).collect()
}

#[tokio::test]
async fn every_outcome_sends_its_final_telemetry() {
    let (queue, mut receiver) = queue(16);
    let l0 = l0(&queue);
    let completes = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
    let fails = Script::new().attempt(|a| a.token("Hel").fail(io::ErrorKind::ConnectionReset));
    let hangs = Script::new().attempt(|a| a.token("Hel").hang());

    l0.stream(completes.source())
        .start()
        .text()
        .await
        .expect("completes");
    l0.stream(fails.source())
        .start()
        .text()
        .await
        .expect_err("fails");
    let mut aborted = l0.stream(hangs.source()).start();
    aborted.handle().abort();
    aborted.text().await.expect_err("aborted");
    drop(l0.stream(hangs.source()).start());
    l0.watch(completes.stream())
        .start()
        .collect::<Vec<_>>()
        .await;

    let mut batch = Vec::new();
    assert_eq!(receiver.recv_many(&mut batch, 100).await, 5);
    assert_eq!(
        outcomes(&batch),
        [
            Some(Outcome::Completed),
            Some(Outcome::Failed),
            Some(Outcome::Aborted),
            Some(Outcome::Dropped),
            Some(Outcome::Completed),
        ]
    );
    assert!(batch.iter().all(|telemetry| telemetry.duration.is_some()));
    assert_eq!(queue.dropped(), 0);
}

#[tokio::test]
async fn a_full_queue_drops_later_telemetry_and_counts_it() {
    let (queue, mut receiver) = queue(2);
    let l0 = l0(&queue);
    let script = Script::new().attempt(|a| a.token("Hello"));
    let mut ids = Vec::new();
    for _ in 0..5 {
        let mut run = l0.stream(script.source()).start();
        run.text().await.expect("completes");
        ids.push(run.telemetry().expect("measured").session_id);
    }
    assert_eq!(queue.dropped(), 3);
    assert!(format!("{queue:?}").contains("dropped: 3"));

    for id in &ids[..2] {
        assert_eq!(&receiver.recv().await.expect("there").session_id, id);
    }
    l0.stream(script.source())
        .start()
        .text()
        .await
        .expect("completes");
    assert_eq!(queue.dropped(), 3);
    assert!(receiver.recv().await.is_some());
}

#[tokio::test]
async fn without_a_receiver_everything_is_dropped_and_counted() {
    let (queue, receiver) = queue(0);
    drop(receiver);
    let l0 = l0(&queue);
    drop(l0.stream(Script::new().source()).start());
    assert_eq!(queue.dropped(), 1);
}

#[tokio::test]
async fn telemetry_in_the_queue_of_a_dropped_receiver_is_counted() {
    let (queue, mut receiver) = queue(8);
    let l0 = l0(&queue);
    for _ in 0..4 {
        drop(l0.stream(Script::new().source()).start());
    }
    assert!(receiver.recv().await.is_some());
    drop(receiver);
    assert_eq!(queue.dropped(), 3);
    drop(l0.stream(Script::new().source()).start());
    assert_eq!(queue.dropped(), 4);
}

#[tokio::test]
async fn the_receiver_ends_when_all_queues_are_gone() {
    let (queue, mut receiver) = queue(usize::MAX);
    let l0 = l0(&queue);
    let run = l0
        .stream(Script::new().attempt(|a| a.hang()).source())
        .start();
    drop((queue, l0));
    // The live run still holds the queue.
    assert!(receiver.recv().now_or_never().is_none());
    drop(run);
    let rest: Vec<_> = receiver.collect().await;
    assert_eq!(outcomes(&rest), [Some(Outcome::Dropped)]);
}

#[tokio::test]
async fn a_closed_queue_returns_its_content_and_accepts_no_more() {
    let (queue, mut receiver) = queue(8);
    let l0 = l0(&queue);
    let live = l0.stream(Script::new().source()).start();
    drop(l0.stream(Script::new().source()).start());
    queue.clone().close();
    drop(live);
    assert_eq!(receiver.size_hint(), (1, None));
    assert!(receiver.recv().await.is_some());
    assert!(receiver.recv().await.is_none());
    assert_eq!(queue.dropped(), 1);
    queue.close(); // again
    assert!(format!("{queue:?}").contains("free: None"));
    drop(receiver);
    assert_eq!(queue.dropped(), 1);
}

#[tokio::test]
async fn a_receiving_task_ends_when_the_queue_is_closed() {
    let (queue, mut receiver) = queue(8);
    let l0 = l0(&queue);
    let task = tokio::spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, 2).await > 0 {}
        batch.len()
    });
    tokio::task::yield_now().await;
    for _ in 0..3 {
        drop(l0.stream(Script::new().source()).start());
    }
    queue.close();
    assert_eq!(task.await.expect("no panic"), 3);
    assert_eq!(queue.dropped(), 0);
}

/// A run ends in one thread while another closes the queue or drops its receiver.
#[test]
fn telemetry_sent_while_the_queue_closes_is_received_or_counted() {
    const ROUNDS: u32 = 20_000;
    let (runs, ends) = mpsc::channel();
    let (ended, waits) = mpsc::channel();
    let thread = thread::spawn(move || {
        for run in ends {
            drop::<Box<dyn Send>>(run);
            ended.send(()).expect("a receiver");
        }
    });
    let source = Script::new();
    let mut before = 0;
    for round in 0..ROUNDS {
        let (queue, mut receiver) = queue(2);
        let l0 = l0(&queue);
        let run = Box::new(l0.stream(source.source()).start());
        runs.send(run as Box<dyn Send>).expect("the thread runs");
        for _ in 0..round % 512 {
            hint::spin_loop();
        }
        let mut received = 0;
        if round % 2 == 0 {
            queue.close();
            received = iter::from_fn(|| receiver.recv().now_or_never().flatten()).count();
            assert!(matches!(receiver.recv().now_or_never(), Some(None)));
        }
        drop(receiver);
        before += usize::from(received == 0);
        waits.recv().expect("the thread runs");
        assert_eq!(received as u64 + queue.dropped(), 1, "round {round}");
    }
    drop(runs);
    thread.join().expect("no panic");
    assert!(before > 0, "the queue was closed before some runs ended");
}

#[tokio::test]
async fn unmeasured_runs_send_nothing() {
    let (queue, mut receiver) = queue(8);
    let l0 = l0(&queue)
        .to_builder()
        .monitoring(Monitoring::off())
        .build();
    drop(l0.stream(Script::new().source()).start());
    drop((l0, queue));
    assert!(receiver.recv().await.is_none());
}

/// The queue receives all failed and all slow runs, and one in a hundred of the others. Counters count all
/// runs.
#[tokio::test(start_paused = true)]
async fn failed_and_slow_runs_among_a_hundred_thousand_are_queued() {
    const RUNS: u32 = 100_000;
    let (queue, mut receiver) = queue(RUNS as usize);
    let counted = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&counted);
    let keep = Keep::rate(0.01)
        .failures()
        .slower_than(Duration::from_millis(50));
    let l0 = L0::builder()
        .monitoring(Monitoring::new().keep(keep))
        .retry(Retry::none())
        .interceptor(queue.clone())
        .interceptor(on_finish(move |_| {
            count.fetch_add(1, Ordering::Relaxed);
        }))
        .seed(7)
        .build();
    let fine = Script::new().attempt(|a| a.token("a"));
    let failing = Script::new().attempt(|a| a.fail(Failure::status(401)));
    let slow = Script::new().attempt(|a| a.wait(Duration::from_millis(60)).token("a"));
    for number in 0..RUNS {
        let script = match number % 100 {
            0 => &failing,
            1 | 2 => &slow,
            _ => &fine,
        };
        let _ = l0.stream(script.source()).start().text().await;
    }
    queue.close();
    let (mut failed, mut late, mut drawn) = (0, 0, 0);
    while let Some(telemetry) = receiver.recv().await {
        match telemetry.outcome {
            Some(Outcome::Failed) => failed += 1,
            _ if telemetry.duration > Some(Duration::from_millis(50)) => late += 1,
            _ => drawn += 1,
        }
    }
    assert_eq!((failed, late), (RUNS / 100, RUNS / 50));
    assert!((870..=1_070).contains(&drawn), "{drawn}");
    assert_eq!(counted.load(Ordering::Relaxed), RUNS);
    assert_eq!(queue.dropped(), 0);
}
