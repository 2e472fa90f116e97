//! Sampling: drawn once per run, for the whole run. Ids are unique. A seed makes all of it
//! reproducible.

use std::collections::HashSet;
use std::future::ready;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_core::Stream;
use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{
    Backoff, End, Event, Failure, Interceptor, Interest, L0, Monitoring, NetworkErrorKind,
    Observer, Observers, Outcome, Retry, RunInfo,
};
use regex_lite::Regex;

/// Two tokens, both ready immediately.
struct Two(u8);

impl Stream for Two {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let left = self.0.checked_sub(1);
        self.0 = left.unwrap_or_default();
        Poll::Ready(left.map(|_| Ok("token")))
    }
}

/// Counts, separately for measured and unmeasured runs: runs, and events with and without times.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<[Counts; 2]>>);

#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Counts {
    runs: usize,
    events: usize,
    times: usize,
    complete: usize,
}

impl Interceptor for Tally {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(RunTally {
            counts: Counts::default(),
            run: run.clone(),
            tally: self.clone(),
        });
    }
}

struct RunTally {
    counts: Counts,
    run: RunInfo,
    tally: Tally,
}

impl Observer for RunTally {
    fn interest(&self) -> Interest {
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        self.counts.events += 1;
        let time = match event {
            Event::Started { at, .. } => at.is_some(),
            Event::FirstToken { after, .. } => after.is_some(),
            Event::Token { gap, .. } => gap.is_some(),
            Event::Finished { telemetry, .. } => telemetry.is_some(),
            _ => false,
        };
        self.counts.times += usize::from(time);
        let Event::Finished { end, telemetry, .. } = event else {
            return;
        };
        assert_eq!(**end, End::completed());
        assert_eq!(telemetry.is_some(), self.run.measured());
        let complete = telemetry.is_some_and(|telemetry| {
            let metrics = &telemetry.metrics;
            telemetry.session_id == self.run.id()
                && telemetry.outcome == Some(Outcome::Completed)
                && telemetry.duration.is_some()
                && metrics.total_tokens == 2
                && metrics.attempts == 1
                && metrics.time_to_first_token.is_some()
                && metrics
                    .inter_token
                    .as_ref()
                    .is_some_and(|gaps| gaps.count() == 1)
                && metrics.wait.is_some()
                && telemetry.metadata["model"] == "gpt-4"
        });
        let tally = &mut self.tally.0.lock().expect("no panic")[usize::from(self.run.measured())];
        tally.runs += 1;
        tally.events += self.counts.events;
        tally.times += self.counts.times;
        tally.complete += usize::from(complete);
    }
}

#[test]
fn a_rate_of_one_half_measures_half_of_the_runs_completely_and_all_runs_emit_events() {
    const RUNS: usize = 100_000;
    let tally = Tally::default();
    let l0 = L0::builder()
        .monitoring(
            Monitoring::new()
                .sample_rate(0.5)
                .metadata("model", "gpt-4"),
        )
        .seed(7)
        .interceptor(tally.clone())
        .build();
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..RUNS {
        let mut run = l0.stream(|_| ready(Ok(Two(2)))).start();
        let measured = run.info().measured();
        assert_eq!(run.telemetry().is_some(), measured, "from the start");
        let mut items = 0;
        while let Poll::Ready(Some(_)) = Pin::new(&mut run).poll_next(&mut cx) {
            items += 1;
        }
        assert_eq!(items, 2);
        assert_eq!(run.telemetry().is_some(), measured, "to the end");
        assert_eq!(run.outcome(), Some(Outcome::Completed));
    }
    let [others, measured] = *tally.0.lock().unwrap();
    assert_eq!(others.runs + measured.runs, RUNS);
    let share = measured.runs as f64 / RUNS as f64;
    assert!((0.49..=0.51).contains(&share), "{share}");
    assert_eq!(measured.complete, measured.runs);
    // Started, attempt started, first token, two tokens, attempt finished, finished. All except the
    // second have a time, and the first token has no gap.
    assert_eq!(measured.events, measured.runs * 7);
    assert_eq!(measured.times, measured.runs * 4);
    assert_eq!(others.events, others.runs * 7);
    assert_eq!((others.times, others.complete), (0, 0));
}

#[test]
fn rates_are_clamped_and_nan_is_zero() {
    const RUNS: usize = 2_000;
    for (rate, least, most) in [
        (0.0, 0, 0),
        (-1.0, 0, 0),
        (f64::NEG_INFINITY, 0, 0),
        (f64::NAN, 0, 0),
        (1.0, RUNS, RUNS),
        (2.0, RUNS, RUNS),
        (f64::INFINITY, RUNS, RUNS),
        (0.1, 140, 260),
        (f64::MIN_POSITIVE, 0, 0),
    ] {
        let l0 = L0::builder()
            .monitoring(Monitoring::new().sample_rate(rate))
            .seed(7)
            .build();
        let runs = (0..RUNS).filter(|run| {
            if run % 2 == 0 {
                l0.stream(|_| ready(Ok(Two(2)))).start().info().measured()
            } else {
                l0.watch(Two(2)).start().info().measured()
            }
        });
        let measured = runs.count();
        assert!((least..=most).contains(&measured), "{rate}: {measured}");
    }
    let off = Monitoring::new().sample_rate(1.0).enabled(false);
    let l0 = L0::builder().monitoring(off).build();
    assert!(!l0.watch(Two(2)).start().info().measured());
}

/// Returns the values that a seed determines, for a number of runs: the id, the sampling decision and
/// the jitter.
async fn drawn(l0: &L0, captured: &Captured, runs: usize) -> Vec<(String, bool, Vec<Duration>)> {
    let reset = || Failure::network(NetworkErrorKind::Econnreset);
    let mut all = Vec::new();
    for number in 0..runs {
        let script = Script::new()
            .attempt(|a| a.fail(reset()))
            .attempt(|a| a.connect_error(reset()))
            .attempt(|a| a.token("a"));
        let info = if number % 5 == 4 {
            l0.watch(Script::new().stream()).start().info().clone()
        } else {
            let mut run = l0.stream(script.source()).start();
            run.text().await.expect("answered");
            run.info().clone()
        };
        let events = captured.events_of(info.id()).into_iter();
        let delays = events.filter_map(|event| match event {
            OwnedEvent::Retry { delay, .. } => Some(delay),
            _ => None,
        });
        all.push((info.id().to_owned(), info.measured(), delays.collect()));
    }
    all
}

#[tokio::test(start_paused = true)]
async fn a_seed_repeats_sampling_ids_and_jitter() {
    const RUNS: usize = 200;
    let build = |seed: Option<u64>| {
        let captured = Captured::new();
        let minute = Duration::from_secs(60);
        let builder = L0::builder()
            .monitoring(Monitoring::new().sample_rate(0.5))
            .retry(Retry::new().backoff(Backoff::full_jitter(minute, minute)))
            .interceptor(captured.clone());
        let l0 = match seed {
            Some(seed) => builder.seed(seed).build(),
            None => builder.build(),
        };
        (l0, captured)
    };
    let (first, captured) = build(Some(7));
    let expected = drawn(&first, &captured, RUNS).await;
    let (second, captured) = build(Some(7));
    assert_eq!(drawn(&second, &captured, RUNS).await, expected);
    let variant = second.to_builder().build();
    assert_eq!(drawn(&variant, &captured, RUNS).await[0].0, expected[0].0);
    let on = drawn(&second.clone(), &captured, 1).await;
    assert!(!expected.contains(&on[0]), "a clone continues");

    for seed in [Some(8), None] {
        let (other, captured) = build(seed);
        let other = drawn(&other, &captured, RUNS).await;
        assert!(other.iter().all(|drawn| !expected.contains(drawn)));
    }
    // Runs with the same seed differ from each other.
    let ids: HashSet<_> = expected.iter().map(|(id, ..)| id).collect();
    assert_eq!(ids.len(), RUNS);
    let jitter: HashSet<_> = expected.iter().flat_map(|(.., delays)| delays).collect();
    assert_eq!(jitter.len(), RUNS / 5 * 4 * 2);
    let measured = expected.iter().filter(|(_, measured, _)| *measured).count();
    assert!((60..140).contains(&measured), "{measured}");
}

#[test]
fn ids_have_the_guides_shape_and_are_unique_across_threads() {
    const THREADS: usize = 4;
    const RUNS: usize = 25_000;
    let shape = Regex::new(r"^l0_\d+_[a-z0-9]+$").expect("a pattern");
    for seed in [None, Some(7)] {
        let builder = L0::builder();
        let l0 = match seed {
            Some(seed) => builder.seed(seed).build(),
            None => builder.build(),
        };
        let ids = || (0..RUNS).map(|_| l0.watch(Two(2)).start().info().id().to_owned());
        let ids = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..THREADS)
                .map(|_| scope.spawn(|| Vec::from_iter(ids())))
                .collect();
            let ids = threads.into_iter();
            let ids = ids.flat_map(|thread| thread.join().expect("no panic"));
            ids.collect::<HashSet<_>>()
        });
        assert_eq!(ids.len(), THREADS * RUNS, "{seed:?}");
        for id in ids.iter().take(1_000) {
            assert!(shape.is_match(id), "{id}");
        }
    }
}
