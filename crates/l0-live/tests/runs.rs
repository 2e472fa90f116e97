//! The listed, counted and reported data of runs.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::Stream;
use l0_core::testing::exits;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedError};
use l0_core::{
    Backoff, Cost, CostSource, Currency, Failure, L0, Money, Monitoring, Outcome, Retry, RunState,
    Source as _, Stalls, source,
};
use l0_live::Live;
use tokio::time::{Instant, advance};

fn poll<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[tokio::test(start_paused = true)]
async fn a_live_run_is_listed_with_its_state_and_without_its_text() {
    let live = Live::builder().metadata_keys(["endpoint"]).unwrap().build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = Script::new().attempt(|a| a.tokens(["a secret", "and more"]).hang());
    let mut run = l0
        .stream(|_| script.connect())
        .metadata("model", "gpt-4")
        .metadata("provider", "openai")
        .metadata("endpoint", "/chat")
        .metadata("user", "not listed")
        .start();
    advance(seconds(1)).await;
    assert!(poll(&mut run).is_ready());
    advance(seconds(1)).await;
    assert!(poll(&mut run).is_ready());
    assert!(poll(&mut run).is_pending());
    advance(seconds(2)).await;

    let snapshot = live.snapshot();
    let row = &snapshot.live[0];
    assert_eq!(row.id, run.info().id());
    assert_eq!(
        row.metadata,
        BTreeMap::from([("endpoint".into(), "/chat".into())])
    );
    assert_eq!(row.model.as_deref(), Some("gpt-4"));
    assert_eq!(row.provider.as_deref(), Some("openai"));
    assert_eq!((row.attempt, row.tokens, row.stalled), (1, 2, false));
    assert_eq!(row.state, RunState::Streaming);
    assert_eq!(row.silence, Some(seconds(2)));
    assert_eq!(row.since_last, Some(seconds(2)));
    assert_eq!(row.time_to_first_token, Some(seconds(1)));
    assert_eq!(row.age, seconds(4));
    assert_eq!(row.rate, 0.5);
    let json = serde_json::to_string(&snapshot).unwrap();
    for text in ["secret", "more", "not listed"] {
        assert!(!json.contains(text), "{json}");
    }
    drop(run);
    let snapshot = live.snapshot();
    assert!(snapshot.live.is_empty());
    assert_eq!(snapshot.finished[0].outcome, Outcome::Dropped);
    assert_eq!(snapshot.finished[0].duration, seconds(4));
}

#[tokio::test(start_paused = true)]
async fn a_silent_source_stalls_an_unpolled_run_and_a_slow_consumer_does_not() {
    let live = Live::new();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = || Script::new().attempt(|a| a.tokens(["one", "two"]).hang());
    let (silent, held, connecting) = (
        script(),
        script(),
        Script::new().attempt(|a| a.connect_hang()),
    );
    let mut silent = l0.stream(|_| silent.connect()).start();
    let mut held = l0.stream(|_| held.connect()).start();
    let mut connecting = l0.stream(|_| connecting.connect()).start();
    assert!(poll(&mut silent).is_ready());
    assert!(poll(&mut silent).is_ready());
    assert!(poll(&mut silent).is_pending());
    assert!(poll(&mut held).is_ready());
    assert!(poll(&mut connecting).is_pending());
    let stalled = || -> Vec<String> { live.stalled().into_iter().map(|run| run.id).collect() };

    advance(Duration::from_millis(9_999)).await;
    assert_eq!(stalled(), [] as [&str; 0]);
    advance(Duration::from_millis(1)).await;
    assert_eq!(stalled(), [silent.info().id()]);
    advance(seconds(49)).await;
    assert_eq!(stalled().len(), 1);
    advance(seconds(1)).await;
    assert_eq!(stalled().len(), 2);

    let snapshot = live.snapshot();
    let order: Vec<_> = snapshot
        .live
        .iter()
        .map(|run| (run.stalled, run.state))
        .collect();
    assert_eq!(order[2], (false, RunState::Held));
    assert_eq!(snapshot.totals.stalled, 2);
    assert_eq!(snapshot.totals.states[&RunState::Held], 1);
    assert_eq!(snapshot.totals.states[&RunState::Connecting], 1);
}

#[tokio::test(start_paused = true)]
async fn each_silence_is_reported_once_to_the_watching_task() {
    let live = Live::builder()
        .stalls(Stalls::new().after(seconds(5)))
        .build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = Script::new().attempt(|a| a.token("one").wait(seconds(20)).token("two").hang());
    let mut run = l0.stream(|_| script.connect()).start();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&reported);
    let start = Instant::now();
    let watch = live.watch_stalls(seconds(1), move |run| {
        log.lock().unwrap().push((start.elapsed(), run.tokens));
    });
    let drain = async {
        use futures_util::StreamExt as _;
        while run.next().await.is_some() {}
    };
    tokio::select! {
        () = watch => unreachable!(),
        () = drain => unreachable!(),
        () = tokio::time::sleep(seconds(60)) => {}
    }
    assert_eq!(
        *reported.lock().unwrap(),
        [(seconds(5), 1), (seconds(25), 2)]
    );
}

#[tokio::test(start_paused = true)]
async fn concurrent_silences_are_all_reported_except_beyond_the_limit() {
    let live = Live::builder()
        .stalls(Stalls::new().after(seconds(5)))
        .max_live(2)
        .build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let twice = Script::new().attempt(|a| a.token("one").wait(seconds(9)).token("two").hang());
    let once = Script::new().attempt(|a| a.token("one").hang());
    let mut runs = [&twice, &once, &once].map(|script| l0.stream(script.source()).start());
    let ids: Vec<_> = runs.iter().map(|run| run.info().id().to_owned()).collect();
    let reported = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&reported);
    let watch = live.watch_stalls(Duration::from_millis(500), move |run| {
        let number = ids.iter().position(|known| *known == run.id).unwrap();
        log.lock().unwrap().push((number, run.tokens));
    });
    let mut watch = Box::pin(watch);
    for _ in 0..40 {
        for run in &mut runs {
            while poll(run).is_ready() {}
        }
        let mut context = Context::from_waker(Waker::noop());
        assert!(watch.as_mut().poll(&mut context).is_pending());
        advance(Duration::from_millis(500)).await;
    }
    assert_eq!(*reported.lock().unwrap(), [(0, 1), (1, 1), (0, 2)]);
    let totals = live.snapshot().totals;
    assert_eq!((totals.stalled, totals.unwatched), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_falls_back_has_its_attempts_and_the_usage_of_each_model() {
    let live = Live::new();
    let usd = |micros| Cost::new(Money::micros(micros), Currency::USD, CostSource::Provider);
    let l0 = L0::builder()
        .interceptor(live.clone())
        .retry(
            Retry::new()
                .max_retries(1)
                .backoff(Backoff::fixed(seconds(1))),
        )
        .build();
    let first = Script::new()
        .attempt(|a| {
            a.token("one")
                .cost(usd(5))
                .fail(ScriptedError::new(Failure::status(503)))
        })
        .attempt(|a| {
            a.wait(seconds(2))
                .fail(ScriptedError::new(Failure::status(503)))
        });
    let second = Script::new().attempt(|a| a.tokens(["two", "three"]).cost(usd(7)));
    let mut run = l0
        .stream(|_| first.connect())
        .metadata("model", "large")
        .fallback(source(|_| second.connect()).metadata("model", "small"))
        .start();
    use futures_util::StreamExt as _;
    while let Some(chunk) = run.next().await {
        chunk.unwrap();
    }

    let snapshot = live.snapshot();
    let finished = &snapshot.finished[0];
    assert_eq!(finished.outcome, Outcome::Completed);
    assert_eq!(finished.model.as_deref(), Some("small"));
    assert_eq!((finished.tokens, finished.attempt_count), (3, 3));
    assert_eq!(finished.cost[0].amount, Money::micros(12));
    let attempts: Vec<_> = finished
        .attempts
        .iter()
        .map(|attempt| {
            let status = attempt.reason.as_ref().and_then(|reason| reason.status);
            (
                attempt.model.as_deref(),
                attempt.start,
                attempt.duration,
                status,
            )
        })
        .collect();
    assert_eq!(
        attempts,
        [
            (Some("large"), Some(seconds(0)), Some(seconds(0)), Some(503)),
            (Some("large"), Some(seconds(1)), Some(seconds(2)), Some(503)),
            (Some("small"), Some(seconds(3)), Some(seconds(0)), None),
        ]
    );
    let models: Vec<_> = snapshot
        .totals
        .models
        .iter()
        .map(|of| {
            (
                of.model.as_deref(),
                of.attempts,
                of.tokens,
                of.finished.len(),
            )
        })
        .collect();
    assert_eq!(models, [(Some("large"), 2, 1, 0), (Some("small"), 1, 2, 1)]);
}

#[tokio::test(start_paused = true)]
async fn beyond_the_limit_runs_are_counted_and_not_listed() {
    let live = Live::builder().max_live(2).max_finished(3).build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = Script::new().attempt(|a| a.hang());
    let start = || l0.stream(|_| script.connect()).start();
    let mut runs = vec![start(), start(), start(), start(), start()];
    let count = || {
        let snapshot = live.snapshot();
        let totals = snapshot.totals;
        (
            snapshot.live.len(),
            totals.live,
            (totals.unlisted, totals.unwatched),
            snapshot.finished.len(),
        )
    };
    assert_eq!(count(), (2, 5, (3, 3), 0));
    // An unobserved run ends, then an observed one. The next run gets its row.
    drop(runs.pop());
    assert_eq!(count(), (2, 4, (2, 2), 1));
    drop(runs.remove(0));
    assert_eq!(count(), (1, 3, (2, 2), 2));
    runs.push(start());
    assert_eq!(count(), (2, 4, (2, 2), 2));
    runs.clear();
    assert_eq!(count(), (0, 0, (0, 0), 3));
    assert_eq!(live.snapshot().totals.finished[&Outcome::Dropped], 6);
}

#[tokio::test(start_paused = true)]
async fn the_most_urgent_of_many_runs_are_listed() {
    let live = Live::builder().max_listed(5).build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = Script::new().attempt(|a| a.token("one").hang());
    let mut runs = Vec::new();
    // More than are read under one lock. Every 300th waits for its source.
    for number in 0..1_000 {
        let mut run = l0.stream(script.source()).start();
        assert!(poll(&mut run).is_ready());
        if number % 300 == 299 {
            assert!(poll(&mut run).is_pending());
        }
        runs.push(run);
        advance(Duration::from_millis(1)).await;
    }
    let numbers = || -> Vec<usize> {
        let listed = live.snapshot().live.into_iter();
        let number = |id: &str| runs.iter().position(|run| run.info().id() == id);
        listed.map(|run| number(&run.id).unwrap()).collect()
    };
    assert_eq!(numbers(), [0, 1, 2, 3, 4]);
    advance(seconds(10)).await;
    assert_eq!(numbers(), [299, 599, 899, 0, 1]);
    let totals = live.snapshot().totals;
    assert_eq!(
        (totals.live, totals.unlisted, totals.unwatched),
        (1_000, 995, 0)
    );
    assert_eq!(totals.stalled, 3);
    assert_eq!(totals.states[&RunState::Held], 997);
    assert_eq!(totals.states[&RunState::Streaming], 3);
    assert_eq!(live.stalled().len(), 3);
}

#[test]
fn every_outcome_ends_the_run_once_with_its_reason() {
    for measured in [true, false] {
        for exit in exits::all() {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .start_paused(true)
                .build()
                .unwrap();
            let monitoring = if measured {
                Monitoring::new()
            } else {
                Monitoring::off()
            };
            let live = Live::new();
            let captured = Captured::new();
            let builder = L0::builder()
                .monitoring(monitoring)
                .interceptor(live.clone())
                .interceptor(captured.clone());
            drop(exit.run(runtime, builder));

            let snapshot = live.snapshot();
            let totals = &snapshot.totals;
            assert_eq!((totals.started, totals.live), (1, 0), "{exit}");
            assert!(snapshot.live.is_empty(), "{exit}");
            assert_eq!(
                totals.finished,
                BTreeMap::from([(exit.end.outcome(), 1)]),
                "{exit}"
            );
            let [finished] = &snapshot.finished[..] else {
                panic!("{exit}: {:?}", snapshot.finished);
            };
            assert_eq!(finished.outcome, exit.end.outcome(), "{exit}");
            let message = finished
                .reason
                .as_ref()
                .map(|reason| reason.message.as_str());
            assert_eq!(message, exit.end.message(), "{exit}");
            let attempts = exit
                .count("AttemptFinished")
                .max(exit.count("attempt_finished"));
            assert_eq!(u64::from(finished.attempt_count), attempts, "{exit}");
            assert_eq!(
                finished.attempts.iter().all(|of| of.start.is_some()),
                measured || attempts == 0,
                "{exit}"
            );
            if let Some(OwnedEvent::Finished {
                telemetry: Some(telemetry),
                ..
            }) = captured.events().pop()
            {
                assert_eq!(finished.tokens, telemetry.metrics.total_tokens, "{exit}");
                assert_eq!(finished.duration, telemetry.duration.unwrap(), "{exit}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn counts_agree_with_the_events_of_ten_thousand_runs() {
    let live = Live::new();
    let captured = Captured::new();
    let l0 = L0::builder()
        .interceptor(live.clone())
        .interceptor(captured.clone())
        .retry(Retry::new().backoff(Backoff::fixed(Duration::ZERO)))
        .build();
    let mut open = Vec::new();
    for number in 0..10_000_u32 {
        let script = Script::new()
            .attempt(|a| match number % 5 {
                0 => a.tokens(["a", "b"]),
                1 => a.token("a").fail(ScriptedError::new(Failure::status(503))),
                2 => a.fail(ScriptedError::new(Failure::status(401))),
                3 => a.tokens(["a", "b", "c"]).hang(),
                _ => a,
            })
            .attempt(|a| a.tokens(["c"]));
        let mut run = l0
            .stream(script.source())
            .metadata("model", format!("model-{}", number % 3))
            .start();
        let mut polls = 0;
        // Some are dropped at once, some in the middle, some at the end.
        while polls < number % 7 {
            match poll(&mut run) {
                Poll::Ready(Some(_)) | Poll::Pending => polls += 1,
                Poll::Ready(None) => break,
            }
        }
        if number % 97 == 0 {
            open.push(run);
        }
    }
    let snapshot = live.snapshot();
    let (mut started, mut tokens, mut attempts) = (0, 0, 0);
    let mut outcomes: BTreeMap<Outcome, u64> = BTreeMap::new();
    for event in captured.events() {
        match event {
            OwnedEvent::Started { .. } => started += 1,
            OwnedEvent::AttemptFinished { attempt, .. } => {
                attempts += 1;
                tokens += attempt.tokens;
            }
            OwnedEvent::Finished { end, .. } => *outcomes.entry(end.outcome()).or_default() += 1,
            _ => {}
        }
    }
    let totals = &snapshot.totals;
    assert_eq!(totals.started, started);
    assert_eq!(totals.finished, outcomes);
    assert!(
        outcomes.len() >= 3 && outcomes.values().all(|runs| *runs > 100),
        "{outcomes:?}"
    );
    assert_eq!(
        totals.models.iter().map(|of| of.tokens).sum::<u64>(),
        tokens
    );
    assert_eq!(
        totals.models.iter().map(|of| of.attempts).sum::<u64>(),
        attempts
    );
    let of_models = totals.models.iter().flat_map(|of| of.finished.values());
    assert_eq!(of_models.sum::<u64>(), outcomes.values().sum::<u64>());
    let live_now = started - outcomes.values().sum::<u64>();
    assert_eq!((totals.live, totals.unlisted), (live_now, 0));
    assert_eq!(snapshot.live.len() as u64, live_now);
    assert!(live_now > 0);
}

#[tokio::test(start_paused = true)]
async fn names_are_cut_and_the_number_of_models_is_limited() {
    let live = Live::builder().metadata_keys(["endpoint"]).unwrap().build();
    let l0 = L0::builder().interceptor(live.clone()).build();
    let script = Script::new().attempt(|a| a.hang());
    let huge = "x".repeat(1 << 20);
    let run = l0
        .stream(|_| script.connect())
        .metadata("model", huge.clone())
        .metadata("endpoint", huge)
        .start();
    assert!(serde_json::to_string(&live.snapshot()).unwrap().len() < 4_096);
    drop(run);
    assert!(serde_json::to_string(&live.snapshot()).unwrap().len() < 4_096);
    for number in 0..200 {
        drop(
            l0.stream(|_| script.connect())
                .metadata("model", format!("m{number}"))
                .start(),
        );
    }
    let totals = live.snapshot().totals;
    assert_eq!(totals.models.len(), 65);
    let runs = totals.models.iter().flat_map(|of| of.finished.values());
    assert_eq!(runs.sum::<u64>(), 201);
}
