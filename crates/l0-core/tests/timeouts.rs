//! Timeouts: what they cover, when they expire, and what happens without a timer.

use std::future::{Future, ready};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt, ScriptedToken};
use l0_core::{
    Backoff, Cause, Chunk, End, Error, Failure, FinishReason, L0, Monitoring, NetworkErrorKind,
    Outcome, Retry, RetryKind, RetryReason, TimeoutKind, Timeouts, Token, TokenKind, Usage,
};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

fn reset() -> Failure {
    Failure::network(NetworkErrorKind::Econnreset)
}

/// Returns how and when a run ended.
async fn timed_out(
    script: &Script,
    timeouts: Timeouts,
    retry: Retry,
    monitoring: Monitoring,
) -> (Option<TimeoutKind>, Duration) {
    let l0 = L0::builder()
        .monitoring(monitoring)
        .timeouts(timeouts)
        .retry(retry)
        .build();
    let start = Instant::now();
    let mut run = l0.stream(script.source()).start();
    let kind = match run.text().await {
        Ok(_) => None,
        Err(Error::Timeout(kind)) => {
            assert_eq!(run.outcome(), Some(Outcome::TimedOut));
            Some(kind)
        }
        Err(Error::Source { .. }) => {
            assert_eq!(run.outcome(), Some(Outcome::Failed));
            None
        }
        Err(other) => panic!("{other}"),
    };
    (kind, start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn a_timeout_expires_exactly_when_its_wait_is_over() {
    use TimeoutKind::{FirstToken, Idle, InterToken, Total};
    let all = Timeouts::new()
        .first_token(100 * MS)
        .inter_token(50 * MS)
        .total(SEC);
    let first = || Timeouts::new().first_token(100 * MS);
    let inter = || Timeouts::new().inter_token(50 * MS);
    let total = || Timeouts::new().total(SEC);
    let idle = || Timeouts::new().idle(50 * MS);
    let one = |attempt: fn(ScriptedAttempt) -> ScriptedAttempt| Script::new().attempt(attempt);
    let every = |wait: Duration, times: usize| {
        Script::new().attempt(|a| (0..times).fold(a, |a, _| a.wait(wait).token("a")))
    };
    let cases = [
        (
            "a hung factory",
            first(),
            one(ScriptedAttempt::connect_hang),
            Some(FirstToken),
            100,
        ),
        (
            "a hung source",
            first(),
            one(ScriptedAttempt::hang),
            Some(FirstToken),
            100,
        ),
        (
            "a factory and a source that are too slow together",
            first(),
            one(|a| a.connect_wait(60 * MS).wait(60 * MS).token("a")),
            Some(FirstToken),
            100,
        ),
        (
            "just in time",
            first(),
            one(|a| a.connect_wait(60 * MS).wait(39 * MS).token("a")),
            None,
            99,
        ),
        (
            "no limit after the first token",
            first(),
            one(|a| a.token("a").wait(60 * SEC).token("b")),
            None,
            60_000,
        ),
        (
            "an item without a token does not count as a token",
            first(),
            one(|a| a.wait(90 * MS).token("").wait(SEC).token("a")),
            Some(FirstToken),
            100,
        ),
        (
            "an item without a token, and the token just in time",
            first(),
            one(|a| a.wait(90 * MS).token("").wait(9 * MS).token("a")),
            None,
            99,
        ),
        (
            "items without a token between two tokens",
            inter(),
            one(|a| {
                let a = a.token("a").wait(40 * MS).token("");
                a.wait(9 * MS).token("b").wait(40 * MS).token("").hang()
            }),
            Some(InterToken),
            99,
        ),
        (
            "a token that is ready after an item without",
            inter(),
            one(|a| {
                let a = a.token("a").wait(40 * MS).token("").token("b");
                a.wait(49 * MS).token("c")
            }),
            None,
            89,
        ),
        (
            "any item, and each in time",
            idle(),
            one(|a| {
                let a = a.connect_wait(20 * MS).wait(29 * MS).token("");
                let a = a.wait(49 * MS).usage(Usage::new()).wait(49 * MS).token("a");
                a.wait(49 * MS)
            }),
            None,
            4 * 49,
        ),
        (
            "no item",
            idle(),
            one(|a| a.connect_wait(20 * MS).hang()),
            Some(Idle),
            50,
        ),
        (
            "no item after one without a token",
            idle(),
            one(|a| a.wait(20 * MS).token("").hang()),
            Some(Idle),
            70,
        ),
        (
            "no item after a token",
            idle(),
            one(|a| a.wait(20 * MS).token("a").hang()),
            Some(Idle),
            70,
        ),
        (
            "a token and an item at the same time",
            idle().inter_token(50 * MS),
            one(|a| a.token("a").hang()),
            Some(InterToken),
            50,
        ),
        (
            "hung in mid-stream",
            inter(),
            one(|a| a.token("a").hang()),
            Some(InterToken),
            50,
        ),
        (
            "hung after an item without a token",
            first().inter_token(50 * MS),
            one(|a| a.token("").hang()),
            Some(FirstToken),
            100,
        ),
        (
            "no limit before the first token",
            inter(),
            one(|a| a.connect_wait(SEC).wait(SEC).token("").wait(SEC).token("a")),
            None,
            3_000,
        ),
        (
            "an end that never comes",
            inter(),
            one(|a| a.wait(40 * MS).token("a").wait(60 * MS)),
            Some(InterToken),
            90,
        ),
        (
            "many items, each in time",
            inter(),
            every(49 * MS, 200),
            None,
            9_800,
        ),
        (
            "a source that is too slow",
            total(),
            every(30 * MS, 100),
            Some(Total),
            1_000,
        ),
        (
            "total: a hung source",
            total(),
            one(ScriptedAttempt::hang),
            Some(Total),
            1_000,
        ),
        (
            "total: a hung factory",
            total(),
            one(ScriptedAttempt::connect_hang),
            Some(Total),
            1_000,
        ),
        ("total: in time", total(), every(30 * MS, 33), None, 990),
        (
            "all, and the first expires",
            all,
            one(ScriptedAttempt::hang),
            Some(FirstToken),
            100,
        ),
        (
            "all, and the second expires",
            all,
            one(|a| a.token("a").hang()),
            Some(InterToken),
            50,
        ),
        (
            "all, and the third expires",
            all,
            every(49 * MS, 100),
            Some(Total),
            1_000,
        ),
        ("all, and none expires", all, every(49 * MS, 20), None, 980),
        (
            "a second that is due before the first would have been",
            all,
            one(|a| a.wait(10 * MS).token("a").hang()),
            Some(InterToken),
            60,
        ),
        (
            "two at the same time",
            Timeouts::new().first_token(SEC).total(SEC),
            one(ScriptedAttempt::hang),
            Some(Total),
            1_000,
        ),
        (
            "none",
            Timeouts::new(),
            one(|a| a.wait(1_000 * SEC).token("a")),
            None,
            1_000_000,
        ),
        (
            "zero, and ready at once",
            Timeouts::new()
                .first_token(Duration::ZERO)
                .inter_token(Duration::ZERO),
            one(|a| a.tokens(["a", "b"])),
            None,
            0,
        ),
        (
            "zero, and not ready",
            Timeouts::new().first_token(Duration::ZERO),
            one(|a| a.wait(5 * MS).token("a")),
            Some(FirstToken),
            0,
        ),
        (
            "beyond all clocks",
            Timeouts::new()
                .first_token(Duration::MAX)
                .inter_token(Duration::MAX)
                .idle(Duration::MAX)
                .total(Duration::MAX),
            one(|a| a.wait(SEC).token("a").wait(SEC)),
            None,
            2_000,
        ),
    ];
    for (name, timeouts, script, kind, millis) in cases {
        for monitoring in [Monitoring::new(), Monitoring::off()] {
            let (tripped, elapsed) = timed_out(&script, timeouts, Retry::none(), monitoring).await;
            assert_eq!(tripped, kind, "{name}");
            assert_eq!(elapsed, Duration::from_millis(millis), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn attempt_timeouts_are_retried_and_restart_while_the_total_timeout_continues() {
    use TimeoutKind::{FirstToken, Idle, Total};
    let retry = || {
        Retry::new()
            .max_retries(3)
            .backoff(Backoff::fixed(500 * MS))
    };
    let first = || Timeouts::new().first_token(100 * MS);
    let hangs = || Script::new().attempt(ScriptedAttempt::connect_hang);
    // Built again for each run, because a script continues where the last run ended.
    let cases = || {
        [
            (
                "every attempt hangs",
                first(),
                hangs(),
                Some(FirstToken),
                1_900,
                4,
            ),
            (
                "the second attempt has its own time",
                first(),
                hangs().attempt(|a| a.connect_wait(50 * MS).wait(49 * MS).token("a")),
                None,
                699,
                2,
            ),
            (
                "the second attempt waits again for its first token",
                first(),
                Script::new()
                    .attempt(|a| a.token("a").fail(reset()))
                    .attempt(|a| a.wait(99 * MS).token("a").wait(SEC).fail(reset()))
                    .attempt(|a| a.wait(90 * MS).token("").hang()),
                Some(FirstToken),
                500 + 99 + 1_000 + 500 + 100 + 500 + 100,
                4,
            ),
            (
                "nothing comes",
                Timeouts::new().idle(100 * MS),
                Script::new()
                    .attempt(|a| a.wait(99 * MS).token("").hang())
                    .attempt(|a| a.wait(99 * MS).token("a").hang()),
                Some(Idle),
                4 * 199 + 3 * 500,
                4,
            ),
            (
                "the back-off counts toward the total",
                Timeouts::new().total(SEC),
                Script::new()
                    .attempt(|a| a.wait(100 * MS).fail(reset()))
                    .attempt(ScriptedAttempt::hang),
                Some(Total),
                1_000,
                2,
            ),
            (
                "a back-off that is longer than what is left, after a timeout",
                first().total(SEC),
                hangs(),
                Some(FirstToken),
                700,
                2,
            ),
            (
                "a back-off that is longer than what is left",
                Timeouts::new().total(300 * MS),
                Script::new().attempt(|a| a.wait(SEC / 10).fail(reset())),
                None,
                100,
                1,
            ),
            (
                "a back-off that is as long as what is left",
                Timeouts::new().total(600 * MS),
                Script::new().attempt(|a| a.wait(SEC / 10).fail(reset())),
                None,
                100,
                1,
            ),
            (
                "a back-off that just fits",
                Timeouts::new().total(601 * MS),
                Script::new()
                    .attempt(|a| a.wait(SEC / 10).fail(reset()))
                    .attempt(|a| a.token("a")),
                None,
                600,
                2,
            ),
            (
                "in mid-stream",
                Timeouts::new().inter_token(20 * MS),
                Script::new()
                    .attempt(|a| a.tokens(["a", "b"]).hang())
                    .attempt(|a| a.wait(SEC).token("a").wait(19 * MS).token("b")),
                None,
                20 + 500 + 1_019,
                2,
            ),
        ]
    };
    for monitoring in [Monitoring::new(), Monitoring::off()] {
        for (name, timeouts, script, kind, millis, calls) in cases() {
            let (tripped, elapsed) =
                timed_out(&script, timeouts, retry(), monitoring.clone()).await;
            assert_eq!(tripped, kind, "{name}");
            assert_eq!(elapsed, Duration::from_millis(millis), "{name}");
            assert_eq!(script.calls(), calls, "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_a_network_error_with_its_own_type() {
    for (timeouts, retries, message) in [
        (
            Timeouts::new().first_token(SEC),
            1,
            "the first token did not arrive in time",
        ),
        (
            Timeouts::new().idle(SEC),
            1,
            "the source sent nothing in time",
        ),
        (Timeouts::new().total(SEC), 0, "the run took too long"),
    ] {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .timeouts(timeouts)
            .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(MS)))
            .interceptor(captured.clone())
            .build();
        let script = Script::new().attempt(ScriptedAttempt::hang);
        let mut run = l0.stream(script.source()).start();
        run.text().await.expect_err("timed out");
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(telemetry.metrics.network_retries, retries);
        let network = telemetry.network;
        assert_eq!(
            Vec::from_iter(network.errors_by_type),
            [(NetworkErrorKind::Timeout, u64::from(retries) + 1)]
        );
        let errors = network.errors.expect("details");
        assert!(errors.iter().all(|error| error.message == message));
        let last = errors.last().expect("one at least");
        assert_eq!((last.was_retried(), last.delay()), (false, None));
        for event in captured.events() {
            match event {
                OwnedEvent::Retry { reason, kind, .. } => {
                    assert_eq!((reason, kind), (RetryReason::Timeout, RetryKind::Network));
                }
                OwnedEvent::Finished { end, .. } => {
                    assert_eq!(end.outcome(), Outcome::TimedOut);
                    assert_eq!(end.message(), Some(message));
                }
                _ => {}
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn only_waiting_counts_and_consumer_hold_does_not() {
    let limits = Timeouts::new().inter_token(60 * MS).total(250 * MS);
    let script = Script::new().attempt(|a| (0..9).fold(a, |a, _| a.wait(30 * MS).token("a")));
    let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
    let mut run = l0.stream(script.source()).start();
    let mut items = 0;
    let error = loop {
        match run.next().await.expect("the source never ends") {
            Ok(Chunk::Item(_)) => items += 1,
            Ok(other) => panic!("{other:?}"),
            Err(error) => break error,
        }
        sleep(70 * MS).await;
    };
    assert_eq!(items, 8, "8 waits of 30 ms are within 250 ms, 9 are not");
    assert!(matches!(error, Error::Timeout(TimeoutKind::Total)));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_does_not_fit_into_the_total_timeout_ends_with_the_failure_to_be_retried() {
    let retry_after = |failure: Failure| {
        let failure = failure.retry_after(60 * SEC);
        Script::new().attempt(|a| a.wait(SEC).fail(failure))
    };
    let truncated = || Script::new().attempt(|a| a.wait(SEC).token("a"));
    let empty = || Script::new().attempt(|a| a.wait(SEC).token(" ").finish(FinishReason::Stop));
    let long = Backoff::fixed(60 * SEC);
    for (name, script, backoff, outcome, error_type) in [
        (
            "rate limited",
            retry_after(Failure::status(429)),
            Backoff::none(),
            Outcome::Failed,
            "rate_limited",
        ),
        (
            "unavailable",
            retry_after(Failure::status(503)),
            Backoff::none(),
            Outcome::Failed,
            "server_error",
        ),
        (
            "truncated",
            truncated(),
            long,
            Outcome::Truncated,
            "truncated",
        ),
        ("empty", empty(), long, Outcome::Failed, "zero_output"),
        (
            "empty, complete, and then silent to the end",
            Script::new().attempt(|a| a.token(" ").finish(FinishReason::Stop).hang()),
            Backoff::none(),
            Outcome::Failed,
            "zero_output",
        ),
    ] {
        let captured = Captured::new();
        let retry = Retry::new().backoff(backoff);
        let l0 = timed_l0(retry, Timeouts::new().total(20 * SEC), &captured);
        let start = Instant::now();
        let mut run = l0.stream(script.source()).expect_finish().start();
        run.text().await.expect_err(name);
        let waits_to_the_end = name.ends_with("silent to the end");
        let elapsed = if waits_to_the_end { 20 * SEC } else { SEC };
        assert_eq!(start.elapsed(), elapsed, "{name}");
        assert_eq!(script.calls(), 1, "{name}");
        let end = run.end().expect("ended");
        assert_eq!(end.outcome(), outcome, "{name}");
        assert_eq!(end.error_type().as_deref(), Some(error_type), "{name}");
        assert!(!captured.kinds().contains(&"retry"), "{name}");
        let telemetry = run.telemetry().expect("measured");
        for error in telemetry.network.errors.expect("details") {
            assert_eq!((error.was_retried(), error.delay()), (false, None));
        }
    }
}

/// Yields the model's answer so far, then an item without a token at a fixed interval, forever.
struct Chatter {
    answer: Vec<ScriptedToken>,
    item: ScriptedToken,
    every: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Stream for Chatter {
    type Item = io::Result<ScriptedToken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(item) = self.answer.pop() {
            return Poll::Ready(Some(Ok(item)));
        }
        let every = self.every;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(every)));
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(Some(Ok(self.item.clone())))
    }
}

/// Items of every kind without a token.
fn without_token() -> Vec<ScriptedToken> {
    let empty = |kind: &TokenKind| ScriptedToken::new(*kind, "");
    let kinds = TokenKind::ALL.iter().map(empty);
    let mut items: Vec<_> = kinds.filter(|item| !item.view().is_token()).collect();
    let other = ScriptedToken::new(TokenKind::Other, "");
    items.push(ScriptedToken::new(TokenKind::Other, "keep-alive"));
    let mut usage = other.clone();
    usage.usage = Some(Usage::new().input(1));
    let mut name = other;
    name.model = Some("gpt-4".to_owned());
    items.extend([usage, name]);
    items
}

#[tokio::test(start_paused = true)]
async fn a_source_that_only_yields_items_without_tokens_ends_within_every_limit_that_applies() {
    let text = |text| ScriptedToken::new(TokenKind::Text, text);
    let prefixes = [
        vec![],
        vec![text("")],
        vec![text("a")],
        vec![text("a"), text("b"), text("")],
        vec![ScriptedToken::new(TokenKind::Reasoning, "Hm")],
    ];
    for item in without_token() {
        for answer in &prefixes {
            let began = answer.iter().any(|item| item.view().is_token());
            // Items arrive more often than the idle timeout, so it never expires.
            for (timeouts, within, expected) in ending(began) {
                let l0 = L0::builder()
                    .timeouts(timeouts)
                    .retry(Retry::none())
                    .build();
                let (item, answer) = (item.clone(), answer.iter().rev().cloned().collect());
                let mut chatter = Some(Chatter {
                    answer,
                    item,
                    every: 100 * MS,
                    sleep: None,
                });
                let mut run = l0
                    .stream(move |_| ready(Ok(chatter.take().expect("one call"))))
                    .start();
                let start = Instant::now();
                let ended = run.text().await;
                let what = format!("{timeouts:?}, {within:?}: {ended:?}");
                assert!(
                    matches!(ended, Err(Error::Timeout(kind)) if kind == expected),
                    "{what}"
                );
                let elapsed = start.elapsed();
                assert!(elapsed >= within && elapsed <= within + MS, "{what}");
            }
        }
    }
}

/// Yields the model's answer so far, then an item without a token at every poll, forever. Each poll
/// takes this long.
struct Flood {
    answer: Vec<ScriptedToken>,
    item: ScriptedToken,
    takes: Duration,
    polls: u32,
}

impl Stream for Flood {
    type Item = io::Result<ScriptedToken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.takes.is_zero() {
            // The clock advances after its first poll.
            let _ = pin!(tokio::time::advance(self.takes)).poll(cx);
        }
        self.polls += 1;
        assert!(self.polls < 10_000_000, "the run never ends");
        let item = self.answer.pop().unwrap_or_else(|| self.item.clone());
        Poll::Ready(Some(Ok(item)))
    }
}

fn flood(answer: &[ScriptedToken], item: &ScriptedToken, takes: Duration) -> Flood {
    Flood {
        answer: answer.iter().rev().cloned().collect(),
        item: item.clone(),
        takes,
        polls: 0,
    }
}

/// Combinations of timeouts of which one ends a source that yields items without a token, each with the
/// timeout that expires.
fn ending(began: bool) -> Vec<(Timeouts, Duration, TimeoutKind)> {
    use TimeoutKind::{FirstToken, InterToken, Total};
    let limits = [None, Some(250 * MS), Some(1_030 * MS)];
    let mut mixes = Vec::new();
    for first in limits {
        for inter in limits {
            for total in limits {
                let mut timeouts = Timeouts::new().idle(101 * MS);
                if let Some(limit) = first {
                    timeouts = timeouts.first_token(limit);
                }
                if let Some(limit) = inter {
                    timeouts = timeouts.inter_token(limit);
                }
                if let Some(limit) = total {
                    timeouts = timeouts.total(limit);
                }
                let of_token = if began { inter } else { first };
                let kind = if began { InterToken } else { FirstToken };
                let all = [(total, Total), (of_token, kind)].into_iter();
                let all = all.filter_map(|(limit, kind)| Some((limit?, kind)));
                if let Some((limit, kind)) = all.min_by_key(|(limit, _)| *limit) {
                    mixes.push((timeouts, limit, kind));
                }
            }
        }
    }
    mixes
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_never_pending_and_yields_no_token_ends_at_the_first_poll_after_a_limit() {
    // The number of polls before they are timed.
    const UNTIMED: u32 = 16;
    let text = |text| ScriptedToken::new(TokenKind::Text, text);
    for answer in [vec![], vec![text("a")], vec![text("a"), text("")]] {
        let began = !answer.is_empty();
        for (timeouts, limit, expected) in ending(began) {
            for item in without_token() {
                let l0 = L0::builder()
                    .timeouts(timeouts)
                    .retry(Retry::none())
                    .build();
                let start = Instant::now();
                let mut source = Some(flood(&answer, &item, MS));
                let mut run = l0
                    .stream(move |_| ready(Ok(source.take().expect("one call"))))
                    .start();
                let kind = loop {
                    match run.next().await {
                        Some(Ok(_)) => {}
                        Some(Err(Error::Timeout(kind))) => break kind,
                        other => panic!("{other:?}"),
                    }
                };
                assert_eq!(kind, expected, "{timeouts:?}");
                let untimed = UNTIMED + u32::try_from(answer.len()).expect("few");
                let elapsed = start.elapsed();
                assert!(
                    (limit..=limit + MS * (untimed + 1)).contains(&elapsed),
                    "{timeouts:?}: {elapsed:?}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_after_many_items_without_one_starts_the_next_wait() {
    // 100 items of 1 ms each without a token before each token, for longer than any limit.
    struct Slow(u32);
    impl Stream for Slow {
        type Item = io::Result<ScriptedToken>;

        fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
            let _ = pin!(tokio::time::advance(MS)).poll(cx);
            self.0 += 1;
            let text = if self.0 % 100 == 0 { "a" } else { "" };
            let item = ScriptedToken::new(TokenKind::Text, text);
            Poll::Ready((self.0 <= 5_000).then_some(Ok(item)))
        }
    }
    let limits = Timeouts::new().first_token(120 * MS).inter_token(120 * MS);
    let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
    let mut run = l0.stream(|_| ready(Ok(Slow(0)))).start();
    assert_eq!(run.text().await.expect("the source ends").len(), 50);
}

#[tokio::test(start_paused = true)]
async fn consumer_hold_on_items_without_a_token_is_not_a_wait() {
    let item = ScriptedToken::new(TokenKind::Other, "");
    let limits = Timeouts::new().first_token(SEC).idle(SEC).total(SEC);
    let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
    let mut run = l0
        .stream(|_| ready(Ok(flood(&[], &item, Duration::ZERO))))
        .start();
    for _ in 0..1_000 {
        run.next().await.expect("no end").expect("no error");
        sleep(SEC).await;
    }
}

#[tokio::test(start_paused = true)]
async fn text_yields_to_other_tasks_while_its_source_is_never_pending() {
    let item = ScriptedToken::new(TokenKind::Other, "");
    for (name, timeouts, abort) in [
        ("timed out", Timeouts::new().first_token(SEC), false),
        ("timed out by the total", Timeouts::new().total(SEC), false),
        ("aborted", Timeouts::new(), true),
        ("aborted in time", Timeouts::new().total(SEC), true),
    ] {
        let l0 = L0::builder()
            .timeouts(timeouts)
            .retry(Retry::none())
            .build();
        let item = item.clone();
        let mut run = l0
            .stream(move |_| ready(Ok(flood(&[], &item, Duration::ZERO))))
            .start();
        let handle = run.handle();
        let start = Instant::now();
        let task = tokio::spawn(async move { run.text().await });
        for _ in 0..150 {
            if task.is_finished() {
                break;
            }
            tokio::time::advance(10 * MS).await;
            if abort && start.elapsed() == 500 * MS {
                handle.abort();
            }
        }
        assert!(task.is_finished(), "{name}");
        let after = if abort { 500 * MS } else { SEC };
        assert!(start.elapsed() <= after + 20 * MS, "{name}");
        let ended = task.await.expect("no panic").expect_err(name);
        assert_eq!(matches!(ended, Error::Aborted), abort, "{name}: {ended}");
    }
}

#[tokio::test(start_paused = true)]
async fn consumer_hold_does_not_count_toward_the_wait_for_a_token() {
    let (first, inter) = (TimeoutKind::FirstToken, TimeoutKind::InterToken);
    for (token, limits, kind) in [
        ("", Timeouts::new().first_token(100 * MS), first),
        ("a", Timeouts::new().inter_token(100 * MS), inter),
    ] {
        let script = Script::new().attempt(|a| {
            let a = a.token(token);
            (0..9).fold(a, |a, _| a.wait(30 * MS).token(""))
        });
        let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
        let mut run = l0.stream(script.source()).start();
        let start = Instant::now();
        let mut seen = 0;
        let error = loop {
            match run.next().await.expect("the source never ends") {
                Ok(_) => seen += 1,
                Err(error) => break error,
            }
            sleep(70 * MS).await;
        };
        assert!(matches!(error, Error::Timeout(timeout) if timeout == kind));
        // The first token is ready. Three more arrive within 100 ms of waiting.
        assert_eq!(seen, 4, "{kind}");
        assert_eq!(start.elapsed(), 100 * MS + seen * 70 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn extra_polls_do_not_change_a_timeout() {
    let script = Script::new().attempt(|a| a.wait(90 * MS).token("a").hang());
    let limits = Timeouts::new().first_token(100 * MS).inter_token(50 * MS);
    let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
    let mut run = l0.stream(script.source()).start();
    let start = Instant::now();
    let mut items = 0;
    let error = loop {
        // Drops the future after a while and polls again, as a `select!` does.
        match tokio::time::timeout(7 * MS, run.next()).await {
            Err(_) => {}
            Ok(Some(Ok(_))) => items += 1,
            Ok(Some(Err(error))) => break error,
            Ok(None) => panic!("the source never ends"),
        }
    };
    assert_eq!(items, 1);
    assert_eq!(start.elapsed(), 140 * MS);
    assert!(matches!(error, Error::Timeout(TimeoutKind::InterToken)));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_moves_to_another_task_is_woken_by_its_timeout() {
    let script = Script::new().attempt(|a| a.token("a").hang());
    let limits = Timeouts::new().inter_token(100 * MS);
    let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
    let mut run = l0.stream(script.source()).start();
    run.next().await.expect("an item").expect("no error");
    // Waits here first, then in another task.
    tokio::time::timeout(30 * MS, run.next())
        .await
        .expect_err("still waiting");
    let start = Instant::now();
    let last = tokio::spawn(async move { run.next().await }).await;
    assert!(matches!(
        last.expect("no panic"),
        Some(Err(Error::Timeout(TimeoutKind::InterToken)))
    ));
    assert_eq!(start.elapsed(), 70 * MS);
}

/// Polls once with a no-op waker.
fn poll<S: Stream + Unpin>(stream: &mut S) -> Poll<Option<S::Item>> {
    Pin::new(stream).poll_next(&mut Context::from_waker(Waker::noop()))
}

/// Always pending.
struct Hung;

impl Stream for Hung {
    type Item = io::Result<&'static str>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Pending
    }
}

fn timed_l0(retry: Retry, timeouts: Timeouts, captured: &Captured) -> L0 {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(retry)
        .timeouts(timeouts)
        .interceptor(captured.clone())
        .build()
}

/// Runs a check in each environment without a Tokio timer.
fn without_timer(check: impl Fn(&str)) {
    check("no runtime");
    let runtime = Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(async { check("a runtime without a timer") });
}

#[test]
fn without_a_timer_a_back_off_fails_with_that_reason_and_retries_without_back_off_work() {
    without_timer(|place| {
        for backoff in [Backoff::default(), Backoff::fixed(MS)] {
            let captured = Captured::new();
            let retry = Retry::new().backoff(backoff);
            let l0 = timed_l0(retry, Timeouts::new(), &captured);
            let script = Script::new().attempt(|a| a.token("a").fail(reset()));
            let mut run = l0.stream(script.source()).start();
            assert!(matches!(poll(&mut run), Poll::Ready(Some(Ok(_)))));
            let last = poll(&mut run);
            let Poll::Ready(Some(Err(Error::NoTimer))) = last else {
                panic!("{place}: {last:?}");
            };
            assert!(matches!(poll(&mut run), Poll::Ready(None)));
            let cause = run.end().and_then(End::cause);
            assert_eq!(cause, Some(&Cause::NoTimer), "{place}");
            assert!(!captured.kinds().contains(&"retry"), "{place}");
            let telemetry = captured.telemetry().expect("measured");
            assert_eq!(telemetry.metrics.total_retries, 0);
            let errors = telemetry.network.errors.expect("details");
            assert_eq!((errors[0].was_retried(), errors[0].delay()), (false, None));
            assert_eq!(errors[0].kind, NetworkErrorKind::Econnreset, "{place}");
        }
        let l0 = timed_l0(
            Retry::new().backoff(Backoff::none()),
            Timeouts::new(),
            &Captured::new(),
        );
        let script = Script::new()
            .attempt(|a| a.fail(reset()))
            .attempt(|a| a.token(" "))
            .attempt(|a| a.token("fine"));
        let mut run = l0.stream(script.source()).start();
        let mut text = pin!(run.text());
        let mut cx = Context::from_waker(Waker::noop());
        // Each retry yields to other tasks.
        for _ in 0..2 {
            assert!(text.as_mut().poll(&mut cx).is_pending(), "{place}");
        }
        let text = text.poll(&mut cx);
        assert!(
            matches!(text, Poll::Ready(Ok(text)) if text == "fine"),
            "{place}"
        );
    });
}

#[test]
fn without_a_timer_a_timeout_fails_the_first_wait_but_not_a_run_that_never_waits() {
    let limits = [Timeouts::new().first_token(SEC), Timeouts::new().total(SEC)];
    without_timer(|place| {
        for timeouts in limits {
            let captured = Captured::new();
            let l0 = timed_l0(Retry::new(), timeouts, &captured);
            let mut run = l0.stream(|_| ready(Ok(Hung))).start();
            let last = poll(&mut run);
            assert!(
                matches!(last, Poll::Ready(Some(Err(Error::NoTimer)))),
                "{place}: {last:?}"
            );
            assert!(matches!(poll(&mut run), Poll::Ready(None)));
            let telemetry = captured.telemetry().expect("measured");
            assert_eq!(telemetry.outcome, Some(Outcome::Failed), "{place}");
            assert_eq!(telemetry.network.error_count, 0, "{place}");

            let script = Script::new().attempt(|a| a.tokens(["a", "b"]));
            let mut run = l0.stream(script.source()).start();
            assert!(matches!(poll(&mut run), Poll::Ready(Some(Ok(_)))));
            assert!(matches!(poll(&mut run), Poll::Ready(Some(Ok(_)))));
            assert!(matches!(poll(&mut run), Poll::Ready(None)), "{place}");
            assert_eq!(run.outcome(), Some(Outcome::Completed), "{place}");
        }
    });
}

fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// Runs that wait: in a back-off, for the source, or both.
fn waiting() -> [(&'static str, Retry, Timeouts, Script); 3] {
    let fails = || {
        Script::new()
            .attempt(|a| a.fail(reset()))
            .attempt(|a| a.token("fine"))
    };
    [
        ("in a back-off", Retry::new(), Timeouts::new(), fails()),
        (
            "with a timeout",
            Retry::none(),
            Timeouts::new().first_token(SEC),
            Script::new().attempt(ScriptedAttempt::connect_hang),
        ),
        (
            "in a back-off, with a timeout",
            Retry::new(),
            Timeouts::new().total(60 * SEC),
            fails(),
        ),
    ]
}

#[test]
fn a_run_that_outlives_its_runtime_fails_without_a_panic() {
    for (name, retry, timeouts, script) in waiting() {
        let captured = Captured::new();
        let l0 = timed_l0(retry, timeouts, &captured);
        let mut run = l0.stream(script.source()).start();
        let first = runtime();
        first.block_on(async { assert!(poll(&mut run).is_pending(), "{name}") });
        drop(first);
        let last = poll(&mut run);
        assert!(
            matches!(last, Poll::Ready(Some(Err(Error::NoTimer)))),
            "{name}: {last:?}"
        );
        assert!(matches!(poll(&mut run), Poll::Ready(None)), "{name}");
        let finished = captured.kinds().into_iter();
        assert_eq!(finished.filter(|kind| *kind == "finished").count(), 1);
    }
}

#[test]
fn a_run_uses_the_timer_of_the_runtime_that_polls_it() {
    // The first runtime is gone, or exists without being driven.
    for first_is_gone in [true, false] {
        for (name, retry, timeouts, script) in waiting() {
            let what = format!("{name}, the first runtime is gone: {first_is_gone}");
            let l0 = timed_l0(retry, timeouts, &Captured::new());
            let mut run = l0.stream(script.source()).start();
            let first = runtime();
            first.block_on(async { assert!(poll(&mut run).is_pending(), "{what}") });
            let kept = (!first_is_gone).then_some(first);
            let text = runtime().block_on(async {
                // A paused clock advances automatically only if something waits for it.
                let text = tokio::time::timeout(600 * SEC, run.text()).await;
                text.unwrap_or_else(|_| panic!("{what}: nothing woke it"))
            });
            if name == "with a timeout" {
                let kind = TimeoutKind::FirstToken;
                assert!(
                    matches!(text, Err(Error::Timeout(is)) if is == kind),
                    "{what}"
                );
            } else {
                assert_eq!(text.ok().as_deref(), Some("fine"), "{what}");
            }
            drop(kept);
        }
    }
}

#[test]
fn a_run_can_be_polled_by_two_runtimes_in_turn() {
    // Neither poll is inside a task, so only the runtime differs. Their threads' wakers are the same.
    let runtimes = [(); 2].map(|()| {
        let mut builder = Builder::new_multi_thread();
        builder
            .worker_threads(1)
            .enable_time()
            .build()
            .expect("a runtime")
    });
    let l0 = timed_l0(
        Retry::none(),
        Timeouts::new().idle(60 * SEC),
        &Captured::new(),
    );
    let mut run = l0.stream(|_| ready(Ok(Hung))).start();
    for runtime in runtimes {
        runtime.block_on(async {
            let last = tokio::time::timeout(10 * MS, run.next()).await;
            assert!(last.is_err(), "too early: {last:?}");
        });
        drop(runtime);
    }
    runtime().block_on(async {
        let last = run.next().await;
        assert!(matches!(last, Some(Err(Error::Timeout(_)))), "{last:?}");
    });
}

/// Ready when an item is pushed, from any thread.
#[derive(Clone, Default)]
struct Fed(Arc<std::sync::Mutex<Vec<&'static str>>>);

impl Stream for Fed {
    type Item = io::Result<&'static str>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        match self.0.lock().expect("no panic").pop() {
            Some(token) => Poll::Ready(Some(Ok(token))),
            None => Poll::Pending,
        }
    }
}

#[test]
fn a_run_that_continues_in_another_runtime_keeps_its_timeouts() {
    for timeouts in [
        Timeouts::new().inter_token(SEC),
        Timeouts::new().total(60 * SEC),
    ] {
        let fed = Fed::default();
        let l0 = timed_l0(Retry::none(), timeouts, &Captured::new());
        let source = fed.clone();
        let mut run = l0.stream(move |_| ready(Ok(source.clone()))).start();
        let feed = || fed.0.lock().expect("no panic").push("token");
        let first = runtime();
        feed();
        first.block_on(async {
            assert!(matches!(poll(&mut run), Poll::Ready(Some(Ok(_)))));
            // Sets the timer.
            assert!(poll(&mut run).is_pending());
        });
        drop(first);
        feed();
        runtime().block_on(async {
            assert!(matches!(poll(&mut run), Poll::Ready(Some(Ok(_)))));
            let last = run.next().await;
            assert!(matches!(last, Some(Err(Error::Timeout(_)))), "{last:?}");
        });
    }
}

/// Yields an item at a fixed interval, forever.
struct Regular {
    every: Duration,
    sleep: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl Stream for Regular {
    type Item = io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let every = self.every;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(every)));
        ready!(sleep.as_mut().poll(cx));
        self.sleep = None;
        Poll::Ready(Some(Ok("token")))
    }
}

#[tokio::test(start_paused = true)]
async fn regular_items_never_trigger_a_timeout_however_many_there_are() {
    // Near the limit and far from it, so the single timer is early, late and stale.
    for millis in [1, 7, 99, 100] {
        let every = Duration::from_millis(millis);
        let limits = Timeouts::new().first_token(101 * MS).inter_token(101 * MS);
        let l0 = L0::builder().timeouts(limits).retry(Retry::none()).build();
        let mut run = l0
            .stream(move |_| ready(Ok(Regular { every, sleep: None })))
            .start();
        for item in 0..5_000 {
            let next = run.next().await.expect("no end");
            next.unwrap_or_else(|error| panic!("item {item}, every {every:?}: {error}"));
        }
    }
}

#[test]
fn a_retry_without_a_back_off_needs_no_timer_even_with_a_timeout() {
    without_timer(|place| {
        for timeouts in [
            Timeouts::new().total(60 * SEC),
            Timeouts::new().first_token(SEC).inter_token(SEC),
        ] {
            let retry = Retry::new().backoff(Backoff::none());
            let l0 = timed_l0(retry, timeouts, &Captured::new());
            let script = Script::new()
                .attempt(|a| a.fail(reset()))
                .attempt(|a| a.token("fine"));
            let mut run = l0.stream(script.source()).start();
            let mut text = pin!(run.text());
            let mut cx = Context::from_waker(Waker::noop());
            let text = loop {
                if let Poll::Ready(text) = text.as_mut().poll(&mut cx) {
                    break text;
                }
            };
            assert_eq!(text.ok().as_deref(), Some("fine"), "{place}");
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_ends_a_run_that_fails_and_yields_forever() {
    let retry = Retry::new().unlimited().backoff(Backoff::none());
    let captured = Captured::new();
    let l0 = timed_l0(retry, Timeouts::new().total(SEC), &captured);
    let script = Script::new().attempt(|a| a.connect_error(reset()));
    let mut run = l0.stream(script.source()).start();
    let task = tokio::spawn(async move { run.text().await });
    // Nothing waits, so the paused clock does not advance automatically.
    for _ in 0..200 {
        tokio::time::advance(10 * MS).await;
        if task.is_finished() {
            break;
        }
    }
    assert!(task.is_finished());
    let ended = task.await.expect("no panic");
    // No time is left for a retry, so the run ends with the failure.
    assert!(matches!(ended, Err(Error::Source { .. })));
    let kinds = captured.kinds();
    let errors = kinds
        .iter()
        .filter(|kind| **kind == "network_error")
        .count();
    let telemetry = captured.telemetry().expect("measured");
    assert_eq!(telemetry.network.error_count, errors as u64);
    assert_eq!(telemetry.metrics.attempts as usize, errors);
    assert_eq!(telemetry.metrics.total_retries as usize, errors - 1);
}

#[tokio::test(start_paused = true)]
async fn a_timeout_after_the_answer_is_reported_as_the_one_that_expired() {
    for (timeouts, message) in [
        (
            Timeouts::new().inter_token(SEC),
            "the next token did not arrive in time",
        ),
        (Timeouts::new().total(SEC), "the run took too long"),
    ] {
        let l0 = timed_l0(Retry::new(), timeouts, &Captured::new());
        let script = Script::new().attempt(|a| a.token("a").finish(FinishReason::Stop).hang());
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.expect("answered"), "a");
        let errors = run.telemetry().expect("measured").network.errors;
        assert_eq!(errors.expect("details")[0].message, message);
    }
}
