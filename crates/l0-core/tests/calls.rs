//! Calls: requests with a single answer behave like runs, except for tokens.

use std::future::ready;
use std::io::ErrorKind;
use std::marker::PhantomPinned;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use l0_core::source::{ByToken, Connecting};
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedError, ScriptedToken};
use l0_core::{
    Attempt, Backoff, Call, Cause, Check, Description, Ended, Error, Failure, Findings,
    FinishReason, Interceptor, L0, L0Builder, Monitoring, NewRun, Observers, Outcome, Quantity,
    Refusal, Retry, RunInfo, Severity, Source, TimeoutKind, Timeouts, Token, TokenKind, TokenView,
    Usage, Violation, source,
};
use tokio::time::{Instant, sleep};

const MS: Duration = Duration::from_millis(1);

fn l0(configure: fn(L0Builder) -> L0Builder) -> (L0, Captured) {
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(10 * MS)))
        .interceptor(captured.clone());
    (configure(builder).build(), captured)
}

fn as_it_is(builder: L0Builder) -> L0Builder {
    builder
}

fn answers(text: &str) -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token(text))
}

fn resets() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).fail(ErrorKind::ConnectionReset))
}

#[tokio::test(start_paused = true)]
async fn an_answer_reports_its_usage_finish_reason_and_model_and_no_tokens() {
    let (l0, captured) = l0(as_it_is);
    let mut said = ScriptedToken::new(TokenKind::Text, "Hello");
    said.model = Some("gpt-4-0613".to_owned());
    said.response_id = Some("resp_1".to_owned());
    let usage = Usage::new().input(12).output(3).total(15);
    let script = Script::new().attempt(|a| {
        a.wait(5 * MS)
            .item(said)
            .usage(usage)
            .finish(FinishReason::Length)
    });
    let mut call = l0.call(script.answers()).metadata("model", "gpt-4").start();
    assert!(call.info().is_call());
    assert_eq!(
        (l0.live(), script.calls()),
        (1, 0),
        "the source is not called before the first poll"
    );
    assert_eq!(call.outcome(), None);
    let answer = (&mut call).await.expect("it completes");
    assert_eq!(answer.text, "Hello");
    assert_eq!(l0.live(), 0);
    assert_eq!(call.outcome(), Some(Outcome::Completed));

    let telemetry = call.telemetry().expect("measured");
    assert_eq!(Some(&telemetry), call.handle().telemetry().as_ref());
    assert_eq!(telemetry.duration, Some(5 * MS));
    assert_eq!(telemetry.usage, Some(usage));
    assert_eq!(telemetry.finish_reason, Some(FinishReason::Length));
    let metrics = &telemetry.metrics;
    assert_eq!((metrics.total_tokens, metrics.attempts), (0, 1));
    assert_eq!(
        (metrics.time_to_first_token, metrics.time_to_first_text),
        (None, None)
    );
    assert_eq!(
        (metrics.tokens_per_second, metrics.output_tokens_per_second),
        (None, None)
    );
    assert_eq!(
        (&metrics.inter_token, metrics.avg_inter_token_time),
        (&None, None)
    );
    assert_eq!(
        (metrics.wait, metrics.consumer_hold),
        (Some(5 * MS), Some(Duration::ZERO))
    );
    let [attempt] = &*telemetry.attempts else {
        panic!("one attempt")
    };
    assert_eq!((attempt.tokens, attempt.time_to_first_token), (0, None));
    assert_eq!(
        (attempt.usage, attempt.finish_reason),
        (Some(usage), Some(FinishReason::Length))
    );
    assert_eq!(attempt.model.as_deref(), Some("gpt-4"));
    assert_eq!(attempt.response_model.as_deref(), Some("gpt-4-0613"));
    assert_eq!(attempt.response_id.as_deref(), Some("resp_1"));
    for quantity in Quantity::ALL
        .iter()
        .filter(|quantity| quantity.name.contains("time_to_first"))
    {
        quantity.values(&telemetry, &mut |_| panic!("{quantity:?}"));
    }
    let expected = "started attempt_started answer attempt_finished finished";
    assert_eq!(captured.kinds().join(" "), expected);
    let events = captured.events();
    let mut answers = events.iter().filter_map(|event| match event {
        OwnedEvent::Answer { kind, text, .. } => Some((*kind, text.as_str())),
        _ => None,
    });
    assert_eq!(answers.next(), Some((TokenKind::Text, "Hello")));
    let Some(OwnedEvent::Finished {
        response_model,
        response_id,
        ..
    }) = captured.events().pop()
    else {
        panic!("it has finished");
    };
    assert_eq!(
        (response_model.as_deref(), response_id.as_deref()),
        (Some("gpt-4-0613"), Some("resp_1"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_empty_answer_of_a_call_is_not_an_error() {
    let (l0, _) = l0(as_it_is);
    let mut call = l0.call(Script::new().attempt(|a| a).answers()).start();
    assert_eq!((&mut call).await.expect("it completes").text, "");
    let vectors = || ready(Ok::<_, ScriptedError>(vec![0.1_f32, 0.2]));
    let call = l0
        .call(|_| vectors())
        .view_with(|vectors: &Vec<f32>| {
            TokenView::other().usage(Usage::new().input(vectors.len() as u64))
        })
        .start();
    assert_eq!(call.await.expect("it completes").len(), 2);
    // Except with `expect_finish`.
    let (l0, _) = self::l0(as_it_is);
    let script = answers("Hello");
    let call = l0.call(script.answers()).expect_finish().start();
    assert!(matches!(call.await, Err(Error::Truncated)));
    assert_eq!(script.calls(), 2);
    let script = Script::new().attempt(|a| a.token("Hello").finish(FinishReason::Stop));
    let call = l0.call(script.answers()).expect_finish().start();
    assert_eq!(call.await.expect("it completes").text, "Hello");
}

#[tokio::test(start_paused = true)]
async fn a_call_is_retried_and_falls_back_like_a_run() {
    let (l0, captured) = l0(as_it_is);
    let (first, second) = (
        resets(),
        Script::new().attempt(|a| a.connect_error(Failure::status(400))),
    );
    let third = answers("Hello");
    let mut call = l0
        .call(first.answers())
        .metadata("model", "one")
        .fallback(source(second.answers()).metadata("model", "two"))
        .fallback(source(third.answers()).metadata("model", "three"))
        .start();
    assert_eq!((&mut call).await.expect("it completes").text, "Hello");
    assert_eq!((first.calls(), second.calls(), third.calls()), (2, 1, 1));
    let expected = "started attempt_started network_error attempt_finished retry \
                    attempt_started network_error attempt_finished fallback \
                    attempt_started attempt_finished fallback attempt_started answer attempt_finished finished";
    assert_eq!(captured.kinds().join(" "), expected);
    let telemetry = call.telemetry().expect("measured");
    let reported: Vec<_> = telemetry
        .attempts
        .iter()
        .map(|attempt| {
            (
                attempt.source,
                attempt.model.as_deref(),
                attempt.start_offset,
                attempt.delay,
                attempt.outcome,
            )
        })
        .collect();
    let failed = Some(Outcome::Failed);
    assert_eq!(
        reported,
        [
            (1, Some("one"), Some(Duration::ZERO), None, failed),
            (1, Some("one"), Some(15 * MS), Some(10 * MS), failed),
            (2, Some("two"), Some(20 * MS), None, failed),
            (
                3,
                Some("three"),
                Some(20 * MS),
                None,
                Some(Outcome::Completed)
            ),
        ]
    );
    let error = l0
        .call(resets().answers())
        .fallback(source(resets().answers()))
        .start()
        .await
        .expect_err("both fail");
    assert_eq!(
        error.to_string(),
        "the source failed after 4 attempts (econnreset)"
    );
}

#[tokio::test(start_paused = true)]
async fn only_the_answer_and_total_timeouts_apply_to_a_call() {
    let slow = || Script::new().attempt(|a| a.connect_wait(30 * MS).token("Hello"));
    type Case = (&'static str, Timeouts, Result<(), TimeoutKind>, u32, usize);
    let all = Timeouts::new().first_token(MS).inter_token(MS).idle(MS);
    let cases: [Case; 6] = [
        ("those of streams", all, Ok(()), 30, 1),
        (
            "answer",
            Timeouts::new().answer(20 * MS),
            Err(TimeoutKind::Answer),
            50,
            2,
        ),
        (
            "a longer answer",
            Timeouts::new().answer(31 * MS),
            Ok(()),
            30,
            1,
        ),
        (
            "total",
            Timeouts::new().total(20 * MS),
            Err(TimeoutKind::Total),
            20,
            1,
        ),
        (
            "total in the second attempt",
            Timeouts::new().answer(20 * MS).total(35 * MS),
            Err(TimeoutKind::Total),
            35,
            2,
        ),
        (
            "no time for the back-off",
            Timeouts::new().answer(20 * MS).total(25 * MS),
            Err(TimeoutKind::Answer),
            20,
            1,
        ),
    ];
    for (name, timeouts, expected, millis, calls) in cases {
        let (l0, _) = l0(as_it_is);
        let l0 = l0.to_builder().timeouts(timeouts).build();
        let (script, start) = (slow(), Instant::now());
        let ended = l0.call(script.answers()).start().await;
        let ended = ended.map(drop).map_err(|error| match error {
            Error::Timeout(kind) => kind,
            error => panic!("{name}: {error}"),
        });
        assert_eq!(ended, expected, "{name}");
        assert_eq!(
            (start.elapsed(), script.calls()),
            (millis * MS, calls),
            "{name}"
        );
    }
    // Each source has its own timeout.
    let (l0, _) = l0(|builder| {
        builder
            .retry(Retry::none())
            .timeouts(Timeouts::new().answer(20 * MS))
    });
    let call = l0
        .call(slow().answers())
        .fallback(source(slow().answers()))
        .fallback(source(answers("Hi").answers()));
    assert_eq!(call.start().await.expect("the last is in time").text, "Hi");
}

#[tokio::test(start_paused = true)]
async fn a_handle_a_future_and_a_drop_stop_a_call() {
    let hangs = || Script::new().attempt(|a| a.connect_hang());
    let (l0, captured) = l0(as_it_is);
    let call = l0.call(hangs().answers()).start();
    let handle = call.handle();
    tokio::spawn(async move {
        sleep(5 * MS).await;
        handle.abort();
    });
    assert!(matches!(call.await, Err(Error::Aborted)));

    let call = l0
        .call(hangs().answers())
        .fallback(source(answers("Hi").answers()))
        .until(sleep(5 * MS))
        .start();
    assert!(matches!(call.await, Err(Error::Aborted)));

    let call = l0.call(resets().answers()).start();
    let handle = call.handle();
    assert_eq!(l0.live(), 1);
    drop(tokio::time::timeout(8 * MS, call).await);
    assert_eq!((handle.outcome(), l0.live()), (Some(Outcome::Dropped), 0));
    let expected = "attempt_started network_error attempt_finished retry finished";
    assert!(captured.kinds().join(" ").ends_with(expected));
}

/// Reports what an answer contains.
struct Finds;

impl Check for Finds {
    fn name(&self) -> &'static str {
        "finds"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        if delta.contains("faulty") {
            findings.report(Violation::new("finds", Severity::Error, "It is faulty"));
        }
        if delta.contains("harmful") {
            findings.report(
                Violation::new("finds", Severity::Fatal, "It is harmful").recoverable(false),
            );
        }
    }

    fn end(&mut self, ended: &Ended, findings: &mut Findings) {
        if ended.finish == Some(FinishReason::ContentFilter) {
            findings.report(
                Violation::new("finds", Severity::Fatal, "It was filtered").recoverable(false),
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn rules_read_the_text_of_an_answer() {
    let fixed = || {
        Script::new()
            .attempt(|a| a.token("faulty"))
            .attempt(|a| a.token("fine"))
    };
    let filtered = Script::new().attempt(|a| a.token("Well").finish(FinishReason::ContentFilter));
    let reasons = Script::new().attempt(|a| a.reasoning("harmful").token("fine"));
    for (name, script, calls, expected) in [
        ("halted", answers("harmful"), 1, None),
        ("halted at its end", filtered, 1, None),
        ("fixed by a retry", fixed(), 2, Some("fine")),
        ("not fixed", answers("faulty"), 2, Some("faulty")),
        ("reasoning", reasons, 1, Some("fine")),
    ] {
        let (l0, _) = l0(|builder| builder.guardrails(|| Finds));
        let mut call = l0.call(script.answers()).start();
        let answer = (&mut call).await;
        assert_eq!(script.calls(), calls, "{name}");
        match expected {
            Some(text) => assert_eq!(answer.expect("it completes").text, text, "{name}"),
            None => {
                assert!(matches!(answer, Err(Error::Guardrail(_))), "{name}");
                let cause = call.end().and_then(|end| end.cause().cloned());
                assert!(matches!(cause, Some(Cause::Violation(_))), "{name}");
            }
        }
    }
    // If no retry fixes it, the next source is called, and its answer completes.
    let (l0, _) = l0(|builder| builder.guardrails(|| Finds));
    for (first, second, expected) in [
        ("faulty", "fine", Some("fine")),
        ("faulty", "faulty, too", Some("faulty, too")),
        ("harmful", "fine", None),
    ] {
        let (first, second) = (answers(first), answers(second));
        let mut call = l0
            .call(first.answers())
            .fallback(source(second.answers()))
            .start();
        let answer = (&mut call).await;
        assert_eq!(answer.ok().map(|answer| answer.text).as_deref(), expected);
        let violations = call
            .telemetry()
            .and_then(|telemetry| telemetry.guardrails)
            .expect("rules are checked");
        assert!(violations.violation_count > 0);
    }
}

#[tokio::test(start_paused = true)]
async fn awaiting_a_call_again_returns_how_it_ended() {
    let (l0, _) = l0(as_it_is);
    let mut call = l0.call(answers("Hello").answers()).start();
    assert!((&mut call).await.is_ok());
    for _ in 0..2 {
        let Err(Error::Ended(end)) = (&mut call).await else {
            panic!("the call had ended")
        };
        assert_eq!(end.outcome(), Outcome::Completed);
    }
    let mut call = l0
        .call(
            Script::new()
                .attempt(|a| a.fail(Failure::status(401)))
                .answers(),
        )
        .start();
    assert!(matches!((&mut call).await, Err(Error::Source { .. })));
    let Err(error) = (&mut call).await else {
        panic!("the call had ended")
    };
    assert_eq!(
        error.to_string(),
        "the run had ended as failed: status 401 Unauthorized"
    );

    struct Refuses;
    impl Interceptor for Refuses {
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
            Err(Refusal::new("not today"))
        }
    }
    let script = answers("Hello");
    let refusing = L0::builder().interceptor(Refuses).build();
    let mut call = refusing.call(script.answers()).start();
    assert!(matches!((&mut call).await, Err(Error::Refused(_))));
    assert!(matches!((&mut call).await, Err(Error::Ended(_))));
    assert_eq!(script.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_answer_can_have_any_type_and_a_factory_can_borrow() {
    struct Pinned(
        #[allow(dead_code, reason = "the field only makes the type `!Unpin`")] PhantomPinned,
        String,
    );
    let prompt = String::from("Hello");
    let calls = AtomicUsize::new(0);
    let ask = |prompt: &str| {
        calls.fetch_add(1, Ordering::Relaxed);
        let answer = Pinned(PhantomPinned, format!("{prompt}!"));
        async move { Ok::<_, ScriptedError>(answer) }
    };
    let (l0, _) = l0(as_it_is);
    let fails = |_: Attempt| ready(Err::<Pinned, _>(ScriptedError::from("no")));
    let mut call = l0
        .call(fails)
        .view_with(|answer: &Pinned| TokenView::text(&answer.1))
        .fallback(
            source(|_| ask(&prompt)).view_answer_with(|answer: &Pinned| TokenView::text(&answer.1)),
        )
        .start();
    // It is awaited by reference, although its answer cannot be moved once it is pinned.
    assert!(matches!((&mut call).await, Ok(Pinned(_, text)) if text == "Hello!"));
    assert_eq!(calls.load(Ordering::Relaxed), 1);

    // A call that owns everything can be spawned.
    let call: Call<'static, ScriptedToken, ScriptedError> =
        l0.call(answers("Hi").answers()).start();
    assert_eq!(
        tokio::spawn(call)
            .await
            .expect("no panic")
            .expect("it completes")
            .text,
        "Hi"
    );
}

#[tokio::test(start_paused = true)]
async fn a_source_with_converted_answers_can_be_a_fallback() {
    let numbers = source(|_| ready(Ok::<_, ScriptedError>(7)));
    let failing = source(|_| ready(Err::<i32, _>(ScriptedError::from(Failure::status(402)))));
    let text = |number: i32| ScriptedToken::new(TokenKind::Text, number.to_string());
    let wrap = |error: ScriptedError| ScriptedError::new(error);
    let (l0, _) = l0(as_it_is);
    let mut call = l0
        .call_from(failing.map_answer(text, wrap))
        .fallback(numbers.metadata("model", "seven").map_answer(text, wrap))
        .start();
    assert_eq!((&mut call).await.expect("it completes").text, "7");
    let attempts = call.telemetry().expect("measured").attempts;
    assert_eq!(
        attempts[0].error.as_ref().and_then(|error| error.status),
        Some(402)
    );
    assert_eq!(attempts[1].model.as_deref(), Some("seven"));
}

#[tokio::test(start_paused = true)]
async fn an_unmeasured_call_emits_the_same_events() {
    let (measured, captured) = l0(as_it_is);
    let unmeasured = measured.to_builder().monitoring(Monitoring::off()).build();
    let mut all = Vec::new();
    for l0 in [measured, unmeasured] {
        let before = captured.kinds().len();
        let mut call = l0
            .call(resets().answers())
            .fallback(source(answers("Hi").answers()))
            .start();
        assert_eq!((&mut call).await.expect("it completes").text, "Hi");
        all.push(captured.kinds().split_off(before));
        assert_eq!(call.telemetry().is_some(), all.len() == 1);
    }
    assert_eq!(all[0], all[1]);
}

/// A source of answers that describes itself.
struct Described;

impl Source for Described {
    type Answer = ScriptedToken;
    type Error = ScriptedError;
    type Connecting = Connecting<ScriptedToken, ScriptedError>;
    type View = ByToken;

    fn connect(&mut self, _: Attempt) -> Self::Connecting {
        Box::pin(async { Ok(ScriptedToken::new(TokenKind::Text, "Hello")) })
    }

    fn view(&self) -> ByToken {
        ByToken
    }

    fn describe(&self) -> Description {
        let mut description = Description::new();
        description.model = Some("text-embedding-3-small".into());
        description.operation = Some("embeddings".into());
        description.streaming = Some(false);
        description
    }
}

#[tokio::test]
async fn a_described_call_needs_no_metadata() {
    struct Asks;
    impl Interceptor for Asks {
        fn observe(&self, run: &RunInfo, _: &mut Observers) {
            assert!(run.is_call());
            let source = run.source(1).expect("the first");
            assert_eq!(source.description.streaming, Some(false));
        }
    }
    let (l0, _) = l0(|builder| builder.interceptor(Asks));
    let mut call = l0.call_from(Described).start();
    (&mut call).await.expect("it completes");
    assert_eq!(call.info().observer_panics(), 0);
    let telemetry = call.telemetry().expect("measured");
    assert_eq!(telemetry.metadata["model"], "text-embedding-3-small");
    assert_eq!(
        telemetry.attempts[0].operation.as_deref(),
        Some("embeddings")
    );
}

#[tokio::test]
async fn a_single_answer_needs_no_finish_reason_even_if_its_type_always_sends_one() {
    #[derive(Debug)]
    struct Strict;
    impl Token for Strict {
        const SENDS_FINISH: bool = true;
        fn view(&self) -> TokenView<'_> {
            TokenView::text("whole")
        }
    }

    let (l0, _) = l0(|builder| builder);
    let call = l0.call(|_| ready(Ok::<_, ScriptedError>(Strict))).start();
    call.await.expect("a single answer is never cut");
    let call = l0
        .call(|_| ready(Ok::<_, ScriptedError>(Strict)))
        .expect_finish()
        .start();
    let error = call.await.expect_err("a finish reason is required");
    assert!(matches!(error, Error::Truncated));
}
