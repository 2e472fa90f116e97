//! Fallback: when the next source is called, and when it is not.

use std::error::Error as StdError;
use std::fmt;
use std::future::{Ready, ready};
use std::io::{self, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use l0_core::source::{ByToken, Connecting};
use l0_core::testing::{
    Captured, OwnedEvent, Script, ScriptedError, ScriptedStream, ScriptedToken,
};
use l0_core::{
    Attempt, Backoff, Cause, Check, Chunk, Description, DriftReport, Error, Failure, Findings,
    FinishReason, Interceptor, L0, L0Builder, Monitoring, NetworkErrorKind, NewRun, Outcome,
    Refusal, Retry, RetryBudget, RetryReason, Severity, Source, TimeoutKind, Timeouts, Token,
    TokenKind, TokenView, Violation, source,
};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);
const RESET: ErrorKind = ErrorKind::ConnectionReset;

fn answers() -> Script {
    Script::new().attempt(|a| a.wait(MS).token("Hello").finish(FinishReason::Stop))
}

fn denied() -> Script {
    Script::new().attempt(|a| a.connect_error(Failure::status(401)))
}

fn resets() -> Script {
    Script::new().attempt(|a| a.wait(MS).token("Well").fail(RESET))
}

#[tokio::test(start_paused = true)]
async fn telemetry_prints_what_each_attempt_yielded() {
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .build();
    let two = Script::new().attempt(|a| a.tokens(["Hello", "!"]).finish(FinishReason::Stop));
    let run = l0.stream(resets().source()).metadata("model", "a");
    let mut run = run.fallback(source(two.source())).start();
    run.text().await.unwrap();
    let printed = run.telemetry().unwrap().to_string();
    for line in ["Attempt 1, a: 1 token, ", "Attempt 2, source 2: 2 tokens\n"] {
        assert!(printed.contains(line), "{printed}");
    }
}

/// Reports what its answers contain.
struct Finds;

impl Check for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        match delta {
            "faulty" => findings.report(Violation::new("finds", Severity::Error, "It is faulty")),
            "harmful" => {
                let found = Violation::new("finds", Severity::Fatal, "It is harmful");
                findings.report(found.recoverable(false));
            }
            _ => {}
        }
    }
}

impl Check<DriftReport> for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<DriftReport>) {
        if delta == "drift" {
            findings.report(DriftReport::new(["drift"], 0.9).retry(true));
        }
    }
}

fn l0(configure: fn(L0Builder) -> L0Builder) -> (L0, Captured) {
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .guardrails(|| Finds)
        .drift(|| Finds)
        .interceptor(captured.clone());
    (configure(builder).build(), captured)
}

fn says(text: &str) -> Script {
    Script::new().attempt(|a| a.wait(MS).token(text).finish(FinishReason::Stop))
}

#[tokio::test(start_paused = true)]
async fn the_next_source_is_called_only_when_the_current_one_is_given_up() {
    type Case = (
        &'static str,
        Script,
        fn(L0Builder) -> L0Builder,
        (usize, usize),
    );
    let as_it_is = |builder| builder;
    let once =
        |builder: L0Builder| builder.retry(Retry::new().max_retries(1).backoff(Backoff::fixed(MS)));
    let total = |builder: L0Builder| builder.timeouts(Timeouts::new().total(50 * MS));
    let hangs = || Script::new().attempt(|a| a.wait(MS).token("Well").hang());
    let limited = || {
        Script::new()
            .attempt(|a| a.connect_error(Failure::status(429).retry_after(60 * 60 * 1_000 * MS)))
    };
    let cases: Vec<Case> = vec![
        ("a completed answer", answers(), as_it_is, (1, 0)),
        ("a fatal failure", denied(), once, (1, 1)),
        (
            "an unknown failure",
            Script::new().attempt(|a| a.fail("an unknown fault")),
            once,
            (1, 1),
        ),
        ("retries used up", resets(), once, (2, 1)),
        ("no retries", resets(), as_it_is, (1, 1)),
        ("a wait that is too long", limited(), once, (1, 1)),
        (
            "a model's fault, retries used up",
            Script::new().attempt(|a| a.token(" ")),
            once,
            (2, 1),
        ),
        (
            "a truncated answer",
            Script::new().attempt(|a| a.token("Well").fail(RESET)),
            as_it_is,
            (1, 1),
        ),
        (
            "`decide` returns `None`",
            resets(),
            |builder| builder.retry(Retry::new().decide(|_| None)),
            (1, 1),
        ),
        (
            "an empty retry budget",
            resets(),
            |builder| builder.retry(Retry::new().budget(RetryBudget::share(0.0).min_per_second(0))),
            (1, 1),
        ),
        ("a violation, retries used up", says("faulty"), once, (2, 1)),
        ("drift, retries used up", says("drift"), once, (2, 1)),
        (
            "a first-token timeout",
            Script::new().attempt(|a| a.connect_hang()),
            |builder| builder.timeouts(Timeouts::new().first_token(50 * MS)),
            (1, 1),
        ),
        (
            "an inter-token timeout",
            hangs(),
            |builder| builder.timeouts(Timeouts::new().inter_token(50 * MS)),
            (1, 1),
        ),
        (
            "an idle timeout",
            hangs(),
            |builder| builder.timeouts(Timeouts::new().idle(50 * MS)),
            (1, 1),
        ),
        (
            "a back-off longer than the rest of the total timeout",
            resets(),
            |builder| {
                let retry = Retry::new().backoff(Backoff::fixed(100 * MS));
                builder
                    .retry(retry)
                    .timeouts(Timeouts::new().total(50 * MS))
            },
            (1, 1),
        ),
        ("a total timeout", hangs(), total, (1, 0)),
        (
            "a total timeout after a faulty answer",
            Script::new().attempt(|a| a.wait(MS).token("faulty").finish(FinishReason::Stop).hang()),
            total,
            (1, 0),
        ),
        (
            "a total timeout after a complete answer",
            Script::new().attempt(|a| a.wait(MS).token("Hello").finish(FinishReason::Stop).hang()),
            total,
            (1, 0),
        ),
        (
            "a failure after a complete answer",
            Script::new().attempt(|a| {
                a.wait(MS)
                    .token("Hello")
                    .finish(FinishReason::Stop)
                    .fail(RESET)
            }),
            as_it_is,
            (1, 0),
        ),
        ("a rule that halts", says("harmful"), once, (1, 0)),
        (
            "a refusal of the model",
            Script::new().attempt(|a| a.finish(FinishReason::Refusal)),
            once,
            (1, 0),
        ),
    ];
    for (name, script, configure, calls) in cases {
        let (l0, captured) = l0(configure);
        let other = answers();
        let mut run = l0
            .stream(script.source())
            .fallback(source(other.source()))
            .start();
        let _ = run.text().await;
        assert_eq!((script.calls(), other.calls()), calls, "{name}");
        let fallbacks = captured
            .kinds()
            .iter()
            .filter(|kind| **kind == "fallback")
            .count();
        assert_eq!(fallbacks, calls.1, "{name}");
        if calls.1 == 1 {
            assert_eq!(run.outcome(), Some(Outcome::Completed), "{name}");
        }
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(telemetry.fallbacks() as usize, calls.1, "{name}");
        assert_eq!(
            telemetry.metrics.attempts as usize,
            calls.0 + calls.1,
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_or_aborted_run_calls_no_other_source() {
    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
            Err(Refusal::new("not today"))
        }
    }

    let (first, other) = (answers(), answers());
    let refusing = L0::builder().interceptor(Refuses).build();
    let mut run = refusing
        .stream(first.source())
        .fallback(source(other.source()))
        .start();
    assert!(matches!(run.text().await, Err(Error::Refused(_))));
    assert_eq!((first.calls(), other.calls()), (0, 0));

    let (l0, _) = l0(|builder| builder.retry(Retry::new().backoff(Backoff::fixed(100 * MS))));
    for (name, script) in [
        (
            "in mid-stream",
            Script::new().attempt(|a| a.token("Well").hang()),
        ),
        ("in a back-off", resets()),
    ] {
        let other = answers();
        let mut run = l0
            .stream(script.source())
            .fallback(source(other.source()))
            .until(sleep(10 * MS))
            .start();
        assert!(matches!(run.text().await, Err(Error::Aborted)), "{name}");
        assert_eq!((script.calls(), other.calls()), (1, 0), "{name}");
    }
    // The same in the last source.
    let hangs = Script::new().attempt(|a| a.hang());
    let mut run = l0
        .stream(denied().source())
        .fallback(source(hangs.source()))
        .until(sleep(10 * MS))
        .start();
    assert!(matches!(run.text().await, Err(Error::Aborted)));
    let attempts = run.telemetry().expect("measured").attempts;
    let outcomes: Vec<_> = attempts.iter().map(|attempt| attempt.outcome).collect();
    assert_eq!(outcomes, [Some(Outcome::Failed), Some(Outcome::Aborted)]);
}

#[tokio::test(start_paused = true)]
async fn an_answer_with_violations_is_replaced_except_in_the_last_source() {
    for (text, events) in [("faulty", "violation"), ("drift", "drift")] {
        let (l0, captured) = l0(|builder| builder);
        let mut run = l0
            .stream(says(text).source())
            .fallback(source(says(text).source()))
            .fallback(source(says(text).source()))
            .start();
        let mut seen = Vec::new();
        while let Some(chunk) = run.next().await {
            match chunk.expect("it completes") {
                Chunk::Item(item) if item.text.is_empty() => {}
                Chunk::Item(item) => seen.push(item.text),
                Chunk::Restart { attempt, .. } => seen.push(attempt.to_string()),
            }
        }
        assert_eq!(seen, [text, "2", text, "3", text]);
        assert_eq!(run.outcome(), Some(Outcome::Completed));
        let expected = format!(
            "started attempt_started first_token token {events} attempt_finished fallback \
             attempt_started token {events} attempt_finished fallback \
             attempt_started token {events} attempt_finished finished"
        );
        assert_eq!(captured.kinds().join(" "), expected);
        let attempts = run.telemetry().expect("measured").attempts;
        let outcomes = attempts
            .iter()
            .map(|attempt| attempt.outcome.expect("ended"));
        let failed = Outcome::Failed;
        assert_eq!(
            outcomes.collect::<Vec<_>>(),
            [failed, failed, Outcome::Completed]
        );
    }

    // If the last source fails, its failure is the run's, although there was an answer before.
    let (l0, _) = l0(|builder| builder);
    let mut run = l0
        .stream(says("faulty").source())
        .fallback(source(denied().source()))
        .start();
    let Err(error) = run.text().await else {
        panic!("the last one fails")
    };
    assert_eq!(
        error.to_string(),
        "the source failed after 2 attempts (status 401)"
    );
    assert_eq!(
        run.end().and_then(|end| end.cause().cloned()),
        Some(Cause::Source)
    );
}

#[tokio::test(start_paused = true)]
async fn each_source_has_its_own_retries_and_follows_without_a_delay() {
    let (l0, captured) = l0(|builder| {
        builder.retry(
            Retry::new()
                .max_retries(2)
                .backoff(Backoff::exponential(10 * MS, 1_000 * MS)),
        )
    });
    let dead = || Script::new().attempt(|a| a.connect_error(ErrorKind::ConnectionRefused));
    let (first, second, third) = (dead(), dead(), dead());
    let start = Instant::now();
    let mut run = l0
        .stream(first.source())
        .fallback(source(second.source()))
        .fallback(source(third.source()))
        .start();
    let Err(error) = run.text().await else {
        panic!("all fail")
    };
    assert_eq!(
        error.to_string(),
        "the source failed after 9 attempts (econnrefused)"
    );
    assert_eq!((first.calls(), second.calls(), third.calls()), (3, 3, 3));
    assert_eq!(start.elapsed(), 3 * 30 * MS, "10 and 20 ms each");
    let telemetry = run.telemetry().expect("measured");
    let delays: Vec<_> = telemetry
        .attempts
        .iter()
        .map(|attempt| attempt.delay)
        .collect();
    let of_each = [None, Some(10 * MS), Some(20 * MS)];
    assert_eq!(delays, [of_each, of_each, of_each].concat());
    assert_eq!(telemetry.metrics.network_retries, 6);
    let retries = captured
        .events()
        .into_iter()
        .filter_map(|event| match event {
            OwnedEvent::Retry {
                attempt, reason, ..
            } => Some((attempt, reason)),
            _ => None,
        });
    let numbers = [2, 3, 5, 6, 8, 9].map(|number| (number, RetryReason::NetworkError));
    assert_eq!(
        retries.collect::<Vec<_>>(),
        numbers,
        "numbers count over the whole run"
    );
}

#[tokio::test(start_paused = true)]
async fn the_total_timeout_applies_to_all_sources_together() {
    let (l0, _) =
        l0(|builder| builder.timeouts(Timeouts::new().total(50 * MS).first_token(30 * MS)));
    let hangs = || Script::new().attempt(|a| a.connect_hang());
    let (first, second, third) = (hangs(), hangs(), answers());
    let start = Instant::now();
    let mut run = l0
        .stream(first.source())
        .fallback(source(second.source()))
        .fallback(source(third.source()))
        .start();
    let failed = run.text().await;
    assert!(
        matches!(failed, Err(Error::Timeout(TimeoutKind::Total))),
        "{failed:?}"
    );
    assert_eq!(start.elapsed(), 50 * MS);
    assert_eq!((first.calls(), second.calls(), third.calls()), (1, 1, 0));
    let attempts = run.telemetry().expect("measured").attempts;
    let ended: Vec<_> = attempts
        .iter()
        .map(|attempt| {
            (
                attempt.duration,
                attempt.error.as_ref().map(|error| error.message.clone()),
            )
        })
        .collect();
    assert_eq!(ended[0].0, Some(30 * MS));
    assert_eq!(ended[1].0, Some(20 * MS));
    assert_ne!(ended[0].1, ended[1].1);
}

#[tokio::test(start_paused = true)]
async fn the_consumers_time_between_sources_does_not_count() {
    let (l0, _) =
        l0(|builder| builder.timeouts(Timeouts::new().total(50 * MS).first_token(30 * MS)));
    let mut run = l0
        .stream(resets().source())
        .fallback(source(answers().source()))
        .start();
    let mut text = String::new();
    while let Some(chunk) = run.next().await {
        match chunk.expect("it completes") {
            Chunk::Item(item) => text.push_str(&item.text),
            Chunk::Restart { .. } => text.clear(),
        }
        sleep(200 * MS).await;
    }
    assert_eq!(text, "Hello");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(telemetry.metrics.wait, Some(2 * MS));
}

#[test]
fn without_a_timer_the_next_source_is_called_at_once() {
    let poll = |run: &mut l0_core::Run<'_, ScriptedToken, ScriptedError>| {
        let mut text = Box::pin(run.text());
        match text.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(text) => text,
            Poll::Pending => panic!("the run waits without a timer"),
        }
    };
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let resets = || Script::new().attempt(|a| a.token("Well").fail(RESET));
    let answers = Script::new().attempt(|a| a.token("Hello"));
    let mut run = l0
        .stream(resets().source())
        .fallback(source(answers.source()))
        .start();
    assert_eq!(poll(&mut run).expect("it completes"), "Hello");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(
        (telemetry.metrics.total_retries, telemetry.fallbacks()),
        (0, 1)
    );

    // Without a fallback, or in the last source, the run fails for lack of a timer.
    for mut run in [
        l0.stream(resets().source()).start(),
        l0.stream(resets().source())
            .fallback(source(resets().source()))
            .start(),
    ] {
        assert!(matches!(poll(&mut run), Err(Error::NoTimer)));
        assert_eq!(run.outcome(), Some(Outcome::Failed));
        let last = run
            .telemetry()
            .and_then(|telemetry| telemetry.attempts.last().cloned());
        let error = last
            .and_then(|last| last.error)
            .expect("the attempt has its own error");
        assert_eq!(error.error_type, "econnreset");
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_given_up_is_dropped_before_the_next_is_called() {
    let first = resets();
    let watched = first.clone();
    let dropped = Arc::new(AtomicUsize::new(usize::MAX));
    let seen = Arc::clone(&dropped);
    let other = answers();
    let (never, gone) = (answers(), Arc::new(()));
    let kept = Arc::clone(&gone);
    let (l0, _) = l0(|builder| builder);
    let mut run = l0
        .stream(first.source())
        .fallback(source(|_| {
            seen.store(watched.dropped(), Ordering::Relaxed);
            other.connect()
        }))
        .fallback(source(move |_| {
            let _kept = &kept;
            let never = never.clone();
            async move { never.connect().await }
        }))
        .start();
    assert_eq!(run.text().await.expect("it completes"), "Hello");
    assert_eq!(
        dropped.load(Ordering::Relaxed),
        1,
        "the connection is closed"
    );
    drop(run);
    assert_eq!(
        Arc::strong_count(&gone),
        1,
        "a source that is never called is dropped with its run"
    );
}

/// A source that describes itself, and classifies its own errors.
struct Described {
    script: Script,
    description: Description,
    failure: Option<Failure>,
}

impl Described {
    fn new(script: Script) -> Self {
        Self {
            script,
            description: Description::default(),
            failure: None,
        }
    }
}

impl Source for Described {
    type Answer = ScriptedStream;
    type Error = ScriptedError;
    type Connecting = Connecting<ScriptedStream, ScriptedError>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        let script = self.script.clone();
        Box::pin(async move { script.connect().await })
    }

    fn view(&self) -> Self::View {
        ByToken
    }

    fn describe(&self) -> Description {
        self.description.clone()
    }

    fn classify(&self, _: &ScriptedError) -> Option<Failure> {
        self.failure
    }
}

#[tokio::test(start_paused = true)]
async fn the_run_classifies_an_error_and_then_the_failed_source() {
    let fault = || Script::new().attempt(|a| a.connect_error("an unknown fault"));
    let describe = |failure: Option<Failure>| Described {
        failure,
        ..Described::new(fault())
    };
    let (l0, _) =
        l0(|builder| builder.retry(Retry::new().max_retries(1).backoff(Backoff::fixed(MS))));
    let network = Failure::network(NetworkErrorKind::Econnrefused);
    // The sources that are retried: only network errors are.
    for (by_run, by_sources, calls) in [
        (None, [None, None], (1, 1)),
        (None, [Some(network), None], (2, 1)),
        (None, [None, Some(network)], (1, 2)),
        (Some(network), [None, None], (2, 2)),
        (
            Some(Failure::fatal()),
            [Some(network), Some(network)],
            (1, 1),
        ),
    ] {
        let [first, second] = by_sources.map(describe);
        let scripts = (first.script.clone(), second.script.clone());
        let mut builder = l0.stream_from(first).fallback(second);
        if let Some(failure) = by_run {
            builder = builder.classify(move |_| Some(failure));
        }
        let _ = builder.start().text().await;
        assert_eq!(
            (scripts.0.calls(), scripts.1.calls()),
            calls,
            "{by_run:?}, {by_sources:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn each_source_has_its_own_view_and_declares_if_it_always_sends_a_finish_reason() {
    /// Always sends a finish reason, unless it was cut.
    #[derive(Clone)]
    struct Strict(&'static str, Option<FinishReason>);
    impl Token for Strict {
        const SENDS_FINISH: bool = true;
        fn view(&self) -> TokenView<'_> {
            let mut view = TokenView::text(self.0);
            view.finish = self.1;
            view
        }
    }

    // Read as tokens, both answers without a finish reason are truncated. Read by a function, they
    // are complete.
    let cut = || stream::iter([io::Result::Ok(Strict("cut", None))]);
    let whole = || stream::iter([Ok(Strict("whole", Some(FinishReason::Stop)))]);
    fn loose(item: &Strict) -> TokenView<'_> {
        TokenView::text(if item.0 == "cut" { "loose" } else { "" })
    }
    let (l0, _) = l0(|builder| builder);

    let mut run = l0
        .stream(|_| ready(Ok(cut())))
        .fallback(source(|_| ready(Ok(whole()))))
        .start();
    assert_eq!(run.text().await.expect("it completes"), "whole");
    let attempts = run.telemetry().expect("measured").attempts;
    assert_eq!(attempts[0].outcome, Some(Outcome::Truncated));

    let mut run = l0
        .stream(|_| ready(Ok(cut())))
        .fallback(source(|_| ready(Ok(cut()))).view_with(loose))
        .start();
    assert_eq!(run.text().await.expect("it is not cut"), "loose");
    assert_eq!(run.telemetry().expect("measured").fallbacks(), 1);

    let mut run = l0
        .stream(|_| ready(Ok(cut())))
        .view_with(loose)
        .fallback(source(|_| ready(Ok(cut()))))
        .start();
    assert_eq!(run.text().await.expect("it is not cut"), "loose");
    assert_eq!(run.telemetry().expect("measured").fallbacks(), 0);

    // The run's expectation applies to every source.
    let mut run = l0
        .stream(|_| ready(Ok(cut())))
        .view_with(loose)
        .expect_finish()
        .fallback(source(|_| ready(Ok(cut()))).view_with(loose))
        .start();
    assert!(matches!(run.text().await, Err(Error::Truncated)));
    assert_eq!(run.telemetry().expect("measured").fallbacks(), 1);
}

/// Another client's error.
#[derive(Debug)]
struct OtherError {
    source: Option<Failure>,
}

impl fmt::Display for OtherError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("another client failed")
    }
}

impl StdError for OtherError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_ref().map(|failure| failure as _)
    }
}

#[tokio::test(start_paused = true)]
async fn a_converted_source_of_another_client_can_be_a_fallback() {
    let (l0, _) =
        l0(|builder| builder.retry(Retry::new().max_retries(1).backoff(Backoff::fixed(MS))));
    let calls = AtomicUsize::new(0);
    // The items are numbers. The errors keep their cause, so the first one is retried.
    let other = source(|_| {
        let call = calls.fetch_add(1, Ordering::Relaxed);
        async move {
            match call {
                0 => Err(OtherError {
                    source: Some(Failure::status(503)),
                }),
                _ => Ok(stream::iter([Ok(1), Ok(2)])),
            }
        }
    })
    .metadata("model", "other");
    let mapped = other.map(
        |number: i32| ScriptedToken::new(TokenKind::Text, number.to_string()),
        |error: OtherError| ScriptedError::new(error),
    );
    let mut run = l0.stream(denied().source()).fallback(mapped).start();
    assert_eq!(run.text().await.expect("it completes"), "12");
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    let telemetry = run.telemetry().expect("measured");
    let reported: Vec<_> = telemetry
        .attempts
        .iter()
        .map(|attempt| {
            (
                attempt.model.as_deref(),
                attempt.error.as_ref().and_then(|error| error.status),
            )
        })
        .collect();
    assert_eq!(
        reported,
        [
            (None, Some(401)),
            (Some("other"), Some(503)),
            (Some("other"), None)
        ]
    );

    // An error of its stream is converted too.
    let failing = source(|_| {
        ready(Ok(stream::iter([
            Ok(1),
            Err(OtherError {
                source: Some(Failure::status(402)),
            }),
        ])))
    });
    let mapped = failing.map(
        |number: i32| ScriptedToken::new(TokenKind::Text, number.to_string()),
        |error: OtherError| ScriptedError::new(error),
    );
    let mut run = l0.stream_from(mapped).start();
    let Err(error) = run.text().await else {
        panic!("it fails")
    };
    assert_eq!(
        error.to_string(),
        "the source failed after 1 attempt (status 402)"
    );
}

#[tokio::test]
async fn factories_can_borrow_and_their_streams_can_have_any_types() {
    let prompt = String::from("Say hello.");
    let words: Vec<String> = vec!["Hello".to_owned(), "!".to_owned()];
    let fails = |_: &str| -> Ready<io::Result<stream::Empty<io::Result<&str>>>> {
        ready(Err(io::Error::other("no")))
    };
    let l0 = L0::builder().retry(Retry::none()).build();
    let mut run = l0
        .stream(|_| fails(&prompt))
        .fallback(source(|_| async {
            io::Result::Ok(
                stream::iter(words.iter().map(|word| Ok(&**word)))
                    .take(1)
                    .chain(stream::once(async { Err(io::Error::other("late")) }))
                    .boxed(),
            )
        }))
        .fallback(source(|_| {
            ready(io::Result::Ok(stream::iter(
                words.iter().map(|word| Ok(&**word)),
            )))
        }))
        .start();
    assert_eq!(run.text().await.expect("it completes"), "Hello!");
}

#[tokio::test]
async fn a_run_that_owns_its_sources_can_be_spawned() {
    let run = L0::default()
        .stream(denied().source())
        .fallback(source(Script::new().attempt(|a| a.token("Hello")).source()))
        .start();
    let text = tokio::spawn(async move {
        let mut run = run;
        run.text().await.expect("it completes")
    });
    assert_eq!(text.await.expect("no panic"), "Hello");
}

#[test]
fn a_panic_of_a_fallback_ends_the_run_and_one_before_the_start_prevents_it() {
    #[derive(Clone, Copy, PartialEq)]
    enum In {
        Describe,
        View,
        Connect,
        Connecting,
        Classify,
        Stream,
    }

    struct Panics(In);

    impl Source for Panics {
        type Answer = ScriptedStream;
        type Error = ScriptedError;
        type Connecting = Connecting<ScriptedStream, ScriptedError>;
        type View = ByToken;

        fn connect(&mut self, _: Attempt) -> Self::Connecting {
            assert!(self.0 != In::Connect, "connect");
            let script = match self.0 {
                In::Connecting => Script::new().attempt(|a| a.connect_panic("connecting")),
                In::Stream => Script::new().attempt(|a| a.panic("stream")),
                _ => denied(),
            };
            Box::pin(async move { script.connect().await })
        }

        fn view(&self) -> Self::View {
            assert!(self.0 != In::View, "view");
            ByToken
        }

        fn describe(&self) -> Description {
            assert!(self.0 != In::Describe, "describe");
            Description::default()
        }

        fn classify(&self, _: &ScriptedError) -> Option<Failure> {
            assert!(self.0 != In::Classify, "classify");
            None
        }
    }

    for place in [
        In::Describe,
        In::View,
        In::Connect,
        In::Connecting,
        In::Classify,
        In::Stream,
    ] {
        let (l0, captured) = l0(|builder| builder);
        let ended = catch_unwind(AssertUnwindSafe(|| {
            let mut run = l0.stream(denied().source()).fallback(Panics(place)).start();
            let polled = catch_unwind(AssertUnwindSafe(|| {
                let mut text = Box::pin(run.text());
                let _ = text.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            }));
            assert!(polled.is_err());
            let last = run
                .telemetry()
                .and_then(|telemetry| telemetry.attempts.last().cloned());
            let last = last.expect("an attempt");
            assert_eq!((last.source, last.outcome), (2, Some(Outcome::Failed)));
            run.end().and_then(|end| end.cause().cloned())
        }));
        let kinds = captured.kinds().join(" ");
        if place == In::Describe {
            assert!(ended.is_err());
            assert_eq!(kinds, "", "nothing has started");
            assert_eq!(l0.live(), 0);
        } else {
            assert_eq!(ended.expect("contained"), Some(Cause::Panic));
            let expected = "started attempt_started attempt_finished fallback \
                            attempt_started attempt_finished finished";
            assert_eq!(kinds, expected);
        }
    }
}
