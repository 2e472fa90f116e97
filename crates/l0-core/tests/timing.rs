//! Timing: times under a paused clock are exact. Telemetry matches the measurements of a bystander.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt, ScriptedToken};
use l0_core::{
    Backoff, Distribution, Failure, L0, Monitoring, NetworkErrorKind, Retry, Telemetry, Timeouts,
    TokenKind,
};
use tokio::time::{Instant, Sleep, sleep, sleep_until};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// The two wrappers, around the same source and read in the same way.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Wrapper {
    Run,
    Watched,
}

const WRAPPERS: [Wrapper; 2] = [Wrapper::Run, Wrapper::Watched];

type Items<'a> = Pin<Box<dyn Stream<Item = ()> + 'a>>;

fn wrap<'a, S, T, E>(l0: &L0, wrapper: Wrapper, source: S) -> Items<'a>
where
    S: Stream<Item = Result<T, E>> + Send + 'a,
    T: l0_core::Token + 'a,
    E: std::error::Error + Send + Sync + 'static,
{
    match wrapper {
        Wrapper::Run => {
            let mut source = Some(source);
            let run = l0
                .stream(move |_| std::future::ready(Ok(source.take().expect("one attempt"))))
                .start();
            Box::pin(run.map(|_| ()))
        }
        Wrapper::Watched => Box::pin(l0.watch(source).start().map(|_| ())),
    }
}

fn measured() -> (L0, Captured) {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::fixed(100 * MS)))
        .interceptor(captured.clone())
        .build();
    (l0, captured)
}

/// Reads to the end and returns the arrival time of each item, measured from the first poll.
async fn arrivals(mut items: impl Stream + Unpin) -> Vec<Duration> {
    let start = Instant::now();
    let mut arrivals = Vec::new();
    while items.next().await.is_some() {
        arrivals.push(start.elapsed());
    }
    arrivals
}

/// Returns the telemetry of a script that is watched, or streamed without a retry.
async fn telemetry_of(wrapper: Wrapper, script: &Script) -> Telemetry {
    let (l0, captured) = measured();
    arrivals(wrap(&l0, wrapper, script.stream())).await;
    captured.telemetry().expect("measured")
}

fn one(attempt: impl FnOnce(ScriptedAttempt) -> ScriptedAttempt) -> Script {
    Script::new().attempt(attempt)
}

fn reported_gaps(captured: &Captured) -> Vec<Option<Duration>> {
    let events = captured.events().into_iter();
    events
        .filter_map(|event| match event {
            OwnedEvent::Token { gap, .. } => Some(gap),
            _ => None,
        })
        .collect()
}

/// Returns a number with the standard normal distribution.
fn normal(rng: &mut fastrand::Rng) -> f64 {
    (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos()
}

#[tokio::test(start_paused = true)]
async fn every_gap_is_reported_and_quantiles_are_within_two_percent_of_the_exact_ones() {
    type Shape = fn(&mut fastrand::Rng) -> f64;
    const SHAPES: [(&str, Shape); 6] = [
        ("constant", |_| 20.0),
        ("none", |_| 0.0),
        ("normal", |rng| 200.0 + 40.0 * normal(rng)),
        ("lognormal", |rng| (4.0 + normal(rng)).exp()),
        ("bimodal", |rng| if rng.f64() < 0.7 { 9.0 } else { 700.0 }),
        ("heavy-tailed", |rng| {
            10.0 * (1.0 - rng.f64()).powf(-1.0 / 1.1)
        }),
    ];
    const GAPS: usize = 2_000;

    for (shape, draw) in SHAPES {
        let mut rng = fastrand::Rng::with_seed(7);
        let script = one(|a| {
            (0..GAPS).fold(a.wait(30 * MS).token("first"), |a, _| {
                a.wait(Duration::from_millis(draw(&mut rng).round() as u64))
                    .token("a")
            })
        });
        for wrapper in WRAPPERS {
            let (l0, captured) = measured();
            let arrivals = arrivals(wrap(&l0, wrapper, script.stream())).await;
            let mut gaps: Vec<_> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
            let what = format!("{shape}, {wrapper:?}");

            let reported = reported_gaps(&captured);
            assert_eq!(reported[0], None, "{what}");
            let reported: Vec<_> = reported[1..]
                .iter()
                .map(|gap| gap.expect("a gap"))
                .collect();
            assert_eq!(reported, gaps, "{what}");

            let metrics = captured.telemetry().expect("measured").metrics;
            let inter_token = metrics.inter_token.expect("gaps");
            gaps.sort_unstable();
            let sum: Duration = gaps.iter().sum();
            assert_eq!(inter_token.count(), GAPS as u64, "{what}");
            assert_eq!(inter_token.sum(), sum, "{what}");
            assert_eq!(inter_token.max(), gaps[GAPS - 1], "{what}");
            assert_eq!(metrics.avg_inter_token_time, inter_token.mean(), "{what}");
            assert_eq!(
                metrics.avg_inter_token_time,
                Some(sum / GAPS as u32),
                "{what}"
            );
            for (q, estimate) in [
                (0.5, inter_token.p50()),
                (0.9, inter_token.p90()),
                (0.99, inter_token.p99()),
                (1.0, inter_token.quantile(1.0)),
            ] {
                let exact = gaps[(q * GAPS as f64).ceil() as usize - 1];
                let estimate = estimate.expect("not empty");
                assert!(
                    estimate.abs_diff(exact) <= exact.mul_f64(0.02),
                    "{what}: {q} is {exact:?}, not {estimate:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn time_to_first_token_duration_and_rates_are_exact() {
    struct Expected {
        ttft: Option<Duration>,
        duration: Duration,
        average: Option<Duration>,
        rate: Option<f64>,
        output_rate: Option<f64>,
    }
    let cases = [
        (
            "three tokens",
            one(|a| {
                a.wait(250 * MS)
                    .token("a")
                    .wait(20 * MS)
                    .token("b")
                    .wait(30 * MS)
                    .token("c")
                    .wait(700 * MS)
            }),
            Expected {
                ttft: Some(250 * MS),
                duration: SEC,
                average: Some(25 * MS),
                rate: Some(3.0),
                output_rate: Some(40.0),
            },
        ),
        (
            "a rate with more than three decimals",
            one(|a| a.wait(SEC).token("a").wait(2 * SEC).token("b")),
            Expected {
                ttft: Some(SEC),
                duration: 3 * SEC,
                average: Some(2 * SEC),
                rate: Some(0.667),
                output_rate: Some(0.5),
            },
        ),
        (
            "one token",
            one(|a| a.wait(250 * MS).token("a").wait(250 * MS)),
            Expected {
                ttft: Some(250 * MS),
                duration: 500 * MS,
                average: None,
                rate: Some(2.0),
                output_rate: None,
            },
        ),
        (
            "all at once",
            one(|a| a.tokens(["a", "b"])),
            Expected {
                ttft: Some(Duration::ZERO),
                duration: Duration::ZERO,
                average: Some(Duration::ZERO),
                rate: None,
                output_rate: None,
            },
        ),
        (
            "all at once, late",
            one(|a| a.wait(SEC).tokens(["a", "b"])),
            Expected {
                ttft: Some(SEC),
                duration: SEC,
                average: Some(Duration::ZERO),
                rate: Some(2.0),
                output_rate: None,
            },
        ),
        (
            "no token",
            one(|a| a.wait(SEC).fail(Failure::fatal())),
            Expected {
                ttft: None,
                duration: SEC,
                average: None,
                rate: None,
                output_rate: None,
            },
        ),
    ];
    for (name, script, expected) in cases {
        for wrapper in WRAPPERS {
            let telemetry = telemetry_of(wrapper, &script).await;
            let metrics = telemetry.metrics;
            let what = format!("{name}, {wrapper:?}");
            assert_eq!(metrics.time_to_first_token, expected.ttft, "{what}");
            assert_eq!(metrics.time_to_first_text, expected.ttft, "{what}");
            assert_eq!(telemetry.duration, Some(expected.duration), "{what}");
            assert_eq!(metrics.avg_inter_token_time, expected.average, "{what}");
            assert_eq!(metrics.tokens_per_second, expected.rate, "{what}");
            assert_eq!(
                metrics.output_tokens_per_second, expected.output_rate,
                "{what}"
            );
            assert_eq!(
                metrics.inter_token.is_some(),
                expected.average.is_some(),
                "{what}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_first_poll_counts_in_the_time_to_first_token_and_in_the_wait() {
    let script = one(|a| a.wait(10 * MS).token("a"));
    for wrapper in WRAPPERS {
        let (l0, captured) = measured();
        let items = wrap(&l0, wrapper, script.stream());
        sleep(5 * SEC).await;
        arrivals(items).await;
        let metrics = captured.telemetry().expect("measured").metrics;
        assert_eq!(metrics.time_to_first_token, Some(5 * SEC + 10 * MS));
        assert_eq!(metrics.wait, Some(5 * SEC + 10 * MS));
        assert_eq!(metrics.consumer_hold, Some(Duration::ZERO));
    }
}

#[tokio::test(start_paused = true)]
async fn back_off_and_slow_connecting_count_in_duration_and_time_to_first_token_but_not_in_gaps() {
    let reset = || Failure::network(NetworkErrorKind::Econnreset);
    struct Expected {
        ttft: Duration,
        duration: Duration,
        gaps: Vec<Option<Duration>>,
    }
    let cases = [
        (
            "failed before the first token",
            Script::new()
                .attempt(|a| a.connect_wait(5 * MS).wait(5 * MS).fail(reset()))
                .attempt(|a| a.connect_error(reset()))
                .attempt(|a| {
                    a.connect_wait(3 * MS)
                        .wait(7 * MS)
                        .token("a")
                        .wait(20 * MS)
                        .token("b")
                }),
            Expected {
                ttft: 220 * MS,
                duration: 240 * MS,
                gaps: vec![None, Some(20 * MS)],
            },
        ),
        (
            "failed in mid-stream",
            Script::new()
                .attempt(|a| {
                    a.wait(9 * MS)
                        .token("a")
                        .wait(4 * MS)
                        .token("b")
                        .fail(reset())
                })
                .attempt(|a| a.wait(30 * MS).token("a").wait(6 * MS).tokens(["b", "c"])),
            Expected {
                ttft: 9 * MS,
                duration: 149 * MS,
                gaps: vec![None, Some(4 * MS), None, Some(6 * MS), Some(Duration::ZERO)],
            },
        ),
        (
            "retried as the model's fault",
            Script::new()
                .attempt(|a| a.token(" ").wait(50 * MS))
                .attempt(|a| a.wait(10 * MS).token("a")),
            Expected {
                ttft: Duration::ZERO,
                duration: 160 * MS,
                gaps: vec![None, None],
            },
        ),
    ];
    for (name, script, expected) in cases {
        let (l0, captured) = measured();
        arrivals(l0.stream(script.source()).start()).await;
        let telemetry = captured.telemetry().expect("measured");
        let metrics = telemetry.metrics;
        assert_eq!(metrics.time_to_first_token, Some(expected.ttft), "{name}");
        assert_eq!(telemetry.duration, Some(expected.duration), "{name}");
        assert_eq!(metrics.wait, Some(expected.duration), "{name}");
        assert_eq!(reported_gaps(&captured), expected.gaps, "{name}");
        let gaps: Vec<_> = expected.gaps.into_iter().flatten().collect();
        let inter_token = metrics.inter_token.unwrap_or_default();
        assert_eq!(inter_token.count(), gaps.len() as u64, "{name}");
        assert_eq!(inter_token.sum(), gaps.iter().sum(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_first_token_can_be_of_any_kind_but_the_first_text_is_text() {
    let first = one(|a| a.wait(10 * MS).reasoning("hm").wait(10 * MS).token("a"));
    let tool = one(|a| {
        a.wait(5 * MS)
            .tool_call("f")
            .wait(5 * MS)
            .reasoning("hm")
            .wait(5 * MS)
            .token("a")
    });
    let only_tool = one(|a| a.wait(5 * MS).tool_call("f"));
    let media = one(|a| {
        let described = ScriptedToken::new(TokenKind::Media, "a cat");
        a.wait(5 * MS).media().wait(5 * MS).item(described)
    });
    let empty_text = one(|a| a.wait(5 * MS).token("").wait(5 * MS).token("a"));
    for (name, script, token, text, tokens) in [
        ("reasoning first", first, 10 * MS, Some(20 * MS), 2),
        ("tool call first", tool, 5 * MS, Some(15 * MS), 3),
        ("no text", only_tool, 5 * MS, None, 1),
        ("media", media, 5 * MS, None, 2),
        ("empty text first", empty_text, 10 * MS, Some(10 * MS), 1),
    ] {
        for wrapper in WRAPPERS {
            let metrics = telemetry_of(wrapper, &script).await.metrics;
            assert_eq!(metrics.time_to_first_token, Some(token), "{name}");
            assert_eq!(metrics.time_to_first_text, text, "{name}");
            assert_eq!(metrics.total_tokens, tokens, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn items_that_are_not_tokens_neither_count_nor_interrupt_a_gap() {
    let other = || ScriptedToken::new(TokenKind::Other, "keep-alive");
    let script = one(|a| {
        a.wait(10 * MS)
            .item(other())
            .wait(10 * MS)
            .token("a")
            .wait(10 * MS)
            .token("")
            .wait(10 * MS)
            .item(other())
            .wait(10 * MS)
            .reasoning("")
            .wait(10 * MS)
            .token("b")
            .wait(10 * MS)
            .item(other())
    });
    for wrapper in WRAPPERS {
        let telemetry = telemetry_of(wrapper, &script).await;
        let metrics = telemetry.metrics;
        assert_eq!(metrics.total_tokens, 2);
        assert_eq!(metrics.time_to_first_token, Some(20 * MS));
        let inter_token = metrics.inter_token.expect("a gap");
        assert_eq!((inter_token.count(), inter_token.sum()), (1, 40 * MS));
        assert_eq!(telemetry.duration, Some(70 * MS));
    }
}

/// A source that runs independently of polls: each item is due at a time, polled or not. The last time
/// is that of the end.
struct Scheduled {
    start: Instant,
    due: std::vec::IntoIter<Duration>,
    next: Option<Pin<Box<Sleep>>>,
}

impl Scheduled {
    fn new(due: Vec<Duration>) -> Self {
        Self {
            start: Instant::now(),
            due: due.into_iter(),
            next: None,
        }
    }
}

impl Stream for Scheduled {
    type Item = std::io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let Some(next) = &mut this.next else {
            match this.due.next() {
                Some(due) => this.next = Some(Box::pin(sleep_until(this.start + due))),
                None => return Poll::Ready(None),
            }
            return self.poll_next(cx);
        };
        ready!(next.as_mut().poll(cx));
        this.next = None;
        Poll::Ready((!this.due.as_slice().is_empty()).then_some(Ok("token")))
    }
}

/// The times that a run spends, if the consumer holds each item for the given time.
struct Model {
    hold: Duration,
    wait: Duration,
    gaps: Distribution,
}

fn model(due: &[Duration], holds: &[Duration]) -> Model {
    let (mut now, mut wait, mut gaps) = (Duration::ZERO, Duration::ZERO, Distribution::new());
    let mut last = None;
    for (index, due) in due.iter().enumerate() {
        let arrival = now.max(*due);
        wait += arrival - now;
        now = arrival;
        if let Some(hold) = holds.get(index) {
            if let Some(last) = last.replace(now) {
                gaps.record(now - last);
            }
            now += *hold;
        }
    }
    Model {
        hold: holds.iter().sum(),
        wait,
        gaps,
    }
}

async fn consume(mut items: Items<'_>, holds: &[Duration]) {
    let mut holds = holds.iter();
    while items.next().await.is_some() {
        if let Some(hold) = holds.next().filter(|hold| !hold.is_zero()) {
            sleep(*hold).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn wait_and_consumer_hold_are_separate_and_sum_to_the_duration() {
    let ms = |list: &[u64]| -> Vec<_> { list.iter().copied().map(Duration::from_millis).collect() };
    let mut cases = vec![
        (
            "slow consumer, ready source",
            ms(&[0, 0, 0, 0]),
            ms(&[10, 20, 30]),
        ),
        (
            "slow source, quick consumer",
            ms(&[10, 30, 60, 100]),
            ms(&[0, 0, 0]),
        ),
        ("both", ms(&[10, 30, 60, 100]), ms(&[5, 50, 5])),
        (
            "several items per poll",
            ms(&[10, 10, 10, 50, 50, 50]),
            ms(&[0, 0, 7, 0, 0]),
        ),
        (
            "ready during a hold",
            ms(&[10, 20, 30, 40]),
            ms(&[100, 0, 0]),
        ),
        ("held after the last item", ms(&[10, 10]), ms(&[1_000])),
    ];
    let mut rng = fastrand::Rng::with_seed(7);
    for _ in 0..200 {
        let count = rng.u64(1..20) as usize;
        let mut due: Vec<_> = (0..=count).map(|_| rng.u64(0..200)).collect();
        due.sort_unstable();
        let mut hold = || if rng.bool() { 0 } else { rng.u64(0..40) };
        let holds: Vec<_> = (0..count).map(|_| hold()).collect();
        cases.push(("random", ms(&due), ms(&holds)));
    }
    for (name, due, holds) in cases {
        for wrapper in WRAPPERS {
            let (l0, captured) = measured();
            consume(wrap(&l0, wrapper, Scheduled::new(due.clone())), &holds).await;
            let expected = model(&due, &holds);
            let telemetry = captured.telemetry().expect("measured");
            let metrics = telemetry.metrics;
            let what = format!("{name}, {wrapper:?}: {due:?} {holds:?}");
            assert_eq!(metrics.consumer_hold, Some(expected.hold), "{what}");
            assert_eq!(metrics.wait, Some(expected.wait), "{what}");
            assert_eq!(
                telemetry.duration,
                Some(expected.hold + expected.wait),
                "{what}"
            );
            assert_eq!(
                metrics.inter_token.unwrap_or_default(),
                expected.gaps,
                "{what}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_hold_ends_when_an_error_arrives_and_a_restart_is_held_like_an_item() {
    let reset = || Failure::network(NetworkErrorKind::Econnreset);
    for backoff in [Backoff::none(), Backoff::fixed(100 * MS)] {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .retry(Retry::new().backoff(backoff))
            .interceptor(captured.clone())
            .build();
        let script = Script::new()
            .attempt(|a| a.token("a").fail(reset()))
            .attempt(|a| a.connect_wait(3 * MS).token("a").wait(4 * MS));
        let start = Instant::now();
        let run = l0.stream(script.source()).start();
        // The item, the restart, the item.
        consume(Box::pin(run.map(|_| ())), &[10 * MS, 20 * MS, 30 * MS]).await;
        let telemetry = captured.telemetry().expect("measured");
        assert_eq!(telemetry.duration, Some(start.elapsed()));
        assert_eq!(telemetry.metrics.consumer_hold, Some(60 * MS));
        let waited = 7 * MS
            + if backoff == Backoff::none() {
                Duration::ZERO
            } else {
                100 * MS
            };
        assert_eq!(telemetry.metrics.wait, Some(waited));
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_consumer_triggers_no_timeout() {
    let limits = Timeouts::new()
        .first_token(20 * MS)
        .inter_token(20 * MS)
        .total(100 * MS);
    for (name, source) in [
        ("ready", one(|a| a.tokens(["a", "b", "c"]))),
        (
            "pending for less than the limits",
            one(|a| (0..4).fold(a, |a, _| a.wait(19 * MS).token("a"))),
        ),
    ] {
        for monitoring in [Monitoring::off(), Monitoring::new()] {
            let l0 = L0::builder()
                .monitoring(monitoring)
                .timeouts(limits)
                .retry(Retry::none())
                .build();
            let mut run = l0.stream(source.source()).start();
            sleep(SEC).await;
            while let Some(item) = run.next().await {
                item.unwrap_or_else(|error| panic!("{name}: {error}"));
                sleep(3_600 * SEC).await;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_timings_only_the_duration_is_measured() {
    let script = one(|a| a.wait(10 * MS).token("a").wait(10 * MS).token("b"));
    for wrapper in WRAPPERS {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(Monitoring::new().include_timings(false))
            .interceptor(captured.clone())
            .build();
        arrivals(wrap(&l0, wrapper, script.stream())).await;
        assert_eq!(reported_gaps(&captured), [None, None]);
        let telemetry = captured.telemetry().expect("measured");
        assert_eq!(telemetry.duration, Some(20 * MS));
        let metrics = telemetry.metrics;
        assert_eq!(metrics.total_tokens, 2);
        for time in [
            metrics.time_to_first_token,
            metrics.time_to_first_text,
            metrics.avg_inter_token_time,
            metrics.consumer_hold,
            metrics.wait,
        ] {
            assert_eq!(time, None);
        }
        assert_eq!(metrics.tokens_per_second, None);
        assert_eq!(metrics.output_tokens_per_second, None);
        assert_eq!(metrics.inter_token, None);
    }
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_of_a_live_run_has_the_arrivals_so_far_but_no_end_and_no_rate() {
    let (l0, _) = measured();
    let script = one(|a| a.wait(10 * MS).token("a").wait(20 * MS).token("b"));
    let mut run = l0.stream(script.source()).start();
    let before = run.telemetry().expect("measured");
    assert_eq!((before.duration, before.end_time()), (None, None));
    assert_eq!(before.metrics.time_to_first_token, None);
    run.next().await.expect("an item").expect("no error");
    run.next().await.expect("an item").expect("no error");
    let live = run.telemetry().expect("measured");
    assert_eq!(live.metrics.time_to_first_token, Some(10 * MS));
    assert_eq!(live.metrics.avg_inter_token_time, Some(20 * MS));
    assert_eq!((live.duration, live.outcome), (None, None));
    assert_eq!(live.metrics.tokens_per_second, None);
    assert!(run.next().await.is_none());
    let last = run.telemetry().expect("measured");
    assert_eq!(last.duration, Some(30 * MS));
    sleep(SEC).await;
    assert_eq!(run.telemetry(), Some(last), "final");
}
