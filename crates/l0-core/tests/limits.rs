//! Limits of a run, and budgets of many: which runs end, which are refused, and what was spent.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedAttempt, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Budget, Budgets, Cause, Chunk, Cost, CostSource, Currency, Error, FinishReason, L0,
    L0Builder, LimitKind, Limits, Money, Monitoring, Outcome, Price, Priced, Retry, Run, TokenKind,
    TokenPrices, TokenView, Unfinished, Usage, source,
};

/// An output token costs a cent; an input token a tenth of it.
fn prices(model: &Priced<'_>) -> Option<Arc<Price>> {
    let tokens = TokenPrices::new(Money::micros(1_000), Money::cents(1));
    (model.model == Some("gpt-4")).then(|| Arc::new(Price::new(Currency::USD, tokens)))
}

fn usd(amount: Money) -> Cost {
    Cost::new(amount, Currency::USD, CostSource::Provider)
}

/// Adds this number of tokens of one letter.
fn tokens(attempt: ScriptedAttempt, count: usize) -> ScriptedAttempt {
    attempt.tokens(std::iter::repeat_n("a", count))
}

/// Reads to the end. Returns the number of yielded items, and the error at the end.
async fn read(
    run: &mut Run<'_, ScriptedToken, ScriptedError>,
) -> (usize, Option<Error<ScriptedError>>) {
    let mut items = 0;
    while let Some(chunk) = run.next().await {
        match chunk {
            Ok(Chunk::Item(_)) => items += 1,
            Ok(Chunk::Restart { .. }) => {}
            Err(error) => return (items, Some(error)),
        }
    }
    (items, None)
}

fn retrying() -> L0Builder {
    L0::builder()
        .retry(Retry::new().max_retries(3).backoff(Backoff::none()))
        .pricing(prices)
}

#[tokio::test]
async fn the_item_that_crosses_a_limit_is_yielded_and_is_the_last() {
    use LimitKind::{Cost, OutputTokens};
    let usage = Usage::new().input(100).output(5);
    let limits = Limits::new();
    // 100 input tokens cost 10 cents, 5 output tokens cost 5.
    let cents = |cents| limits.cost(Money::cents(cents));
    // Created for each monitoring, because a script continues where it was.
    let rows = || {
        [
            (
                "no limit",
                limits,
                Script::new().attempt(|a| tokens(a, 9)),
                9,
                None,
            ),
            (
                "exactly the maximum of tokens",
                limits.output_tokens(9),
                Script::new().attempt(|a| tokens(a, 9)),
                9,
                None,
            ),
            (
                "one more token",
                limits.output_tokens(9),
                Script::new().attempt(|a| tokens(a, 12)),
                10,
                Some(OutputTokens),
            ),
            (
                "items without a token are not counted",
                limits.output_tokens(2),
                Script::new().attempt(|a| tokens(a.usage(usage).token("a").usage(usage), 2)),
                5,
                Some(OutputTokens),
            ),
            (
                "reasoning, tool calls and media count",
                limits.output_tokens(2),
                Script::new().attempt(|a| tokens(a.reasoning("so").tool_call("{}").media(), 9)),
                3,
                Some(OutputTokens),
            ),
            (
                "tokens of discarded attempts count",
                limits.output_tokens(4),
                Script::new()
                    .attempt(|a| tokens(a, 3).fail(std::io::ErrorKind::ConnectionReset))
                    .attempt(|a| tokens(a, 9)),
                5,
                Some(OutputTokens),
            ),
            (
                "reported usage costs exactly the maximum",
                cents(15),
                Script::new().attempt(move |a| tokens(a.usage(usage), 9)),
                10,
                None,
            ),
            (
                "reported usage costs more",
                cents(14),
                Script::new().attempt(move |a| tokens(a.usage(usage), 9)),
                1,
                Some(Cost),
            ),
            (
                "input alone costs more",
                cents(9),
                Script::new().attempt(move |a| tokens(a.usage(Usage::new().input(100)), 9)),
                1,
                Some(Cost),
            ),
            (
                "a reported cost takes precedence over the price",
                cents(14),
                Script::new()
                    .attempt(move |a| tokens(a.cost(usd(Money::cents(1))).usage(usage), 9)),
                11,
                None,
            ),
            (
                "a cost in another currency does not count",
                limits.cost_in(Money::cents(1), Currency::EUR),
                Script::new().attempt(move |a| tokens(a.usage(usage), 9)),
                10,
                None,
            ),
            (
                "discarded attempts cost too",
                cents(25),
                Script::new()
                    .attempt(move |a| a.usage(usage).fail(std::io::ErrorKind::ConnectionReset))
                    .attempt(move |a| tokens(a.usage(usage), 9)),
                2,
                Some(Cost),
            ),
            (
                "a complete answer is not discarded",
                cents(14),
                Script::new()
                    .attempt(move |a| tokens(a, 9).finish(FinishReason::Stop).usage(usage)),
                11,
                None,
            ),
        ]
    };
    for monitoring in [Monitoring::off(), Monitoring::new()] {
        for (name, limits, script, items, limit) in rows() {
            let l0 = retrying()
                .monitoring(monitoring.clone())
                .limits(limits)
                .build();
            let mut run = l0
                .stream(script.source())
                .metadata("model", "gpt-4")
                .start();
            let (handed_out, error) = read(&mut run).await;
            assert_eq!(handed_out, items, "{name}");
            let end = run.end().expect("it has ended");
            match limit {
                Some(limit) => {
                    let error = error.expect(name);
                    assert!(
                        matches!(error, Error::Limit(kind) if kind == limit),
                        "{name}: {error}"
                    );
                    assert_eq!(end.cause(), Some(&Cause::Limit(limit)), "{name}");
                    assert_eq!(end.outcome(), Outcome::Limited);
                }
                None => assert!(error.is_none(), "{name}: {error:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_model_without_a_price_has_no_cost_limit() {
    let usage = Usage::new().input(1_000_000).output(1_000_000);
    let script = Script::new().attempt(|a| tokens(a.usage(usage), 9));
    let l0 = retrying()
        .monitoring(Monitoring::new())
        .limits(Limits::new().cost(Money::cents(1)))
        .build();
    let mut run = l0
        .stream(script.source())
        .metadata("model", "unknown")
        .start();
    assert_eq!(read(&mut run).await.0, 10);
    assert_eq!(run.outcome(), Some(Outcome::Completed));
    let telemetry = run.telemetry().expect("it is measured");
    assert_eq!(telemetry.unpriced(), 1);
}

#[tokio::test]
async fn no_fallback_follows_a_limit() {
    let costly = Script::new().attempt(|a| a.token("a").cost(usd(Money::units(1))).token("b"));
    let other = Script::new().attempt(|a| tokens(a, 9));
    let l0 = retrying()
        .limits(Limits::new().cost(Money::cents(1)))
        .build();
    let mut run = l0
        .stream(costly.source())
        .fallback(source(other.source()))
        .start();
    let (items, error) = read(&mut run).await;
    assert_eq!(items, 2);
    assert!(matches!(error, Some(Error::Limit(LimitKind::Cost))));
    assert_eq!((costly.calls(), other.calls()), (1, 0));
}

#[tokio::test]
async fn a_budget_is_charged_for_runs_calls_and_discarded_attempts_however_they_end() {
    let cent = usd(Money::cents(1));
    let usage = Usage::new().input(100).output(5);
    let reset = std::io::ErrorKind::ConnectionReset;
    let complete = Script::new().attempt(|a| a.token("Hi").finish(FinishReason::Stop).usage(usage));
    let retried = Script::new()
        .attempt(|a| a.token("H").cost(cent).fail(reset))
        .attempt(|a| a.token("Hi").usage(usage));
    let failed = Script::new().attempt(|a| a.cost(cent).fail(l0_core::Failure::fatal()));
    for (name, script, reads, spent) in [
        ("completed", complete.clone(), 9, Money::cents(15)),
        ("retried", retried, 9, Money::cents(16)),
        ("failed", failed, 9, Money::cents(1)),
        ("dropped", complete.clone(), 3, Money::cents(15)),
        (
            "dropped before its usage was reported",
            complete,
            2,
            Money::ZERO,
        ),
    ] {
        let budget = Budget::new(Money::units(1));
        let l0 = retrying().budget(budget.clone()).build();
        let mut run = l0
            .stream(script.source())
            .metadata("model", "gpt-4")
            .start();
        for _ in 0..reads {
            if !matches!(run.next().await, Some(Ok(_))) {
                break;
            }
        }
        drop(run);
        assert_eq!(budget.spent(), spent, "{name}");
        assert_eq!(budget.left(), Money::units(1).saturating_sub(spent));
    }

    let budget = Budget::new(Money::units(1));
    let l0 = retrying().budget(budget.clone()).build();
    let reply = || async { Ok::<_, ScriptedError>(Usage::new().input(100)) };
    let call = l0
        .call(|_| reply())
        .view_with(|usage: &Usage| TokenView::other().usage(*usage))
        .metadata("model", "gpt-4");
    call.start().await.expect("an answer");
    // The price of output is not zero, but the amount of output was not reported.
    assert_eq!(budget.spent(), Money::cents(10));
}

#[tokio::test(start_paused = true)]
async fn a_spent_budget_refuses_runs_until_its_window_is_over() {
    let script = Script::new().attempt(|a| a.token("Hi").cost(usd(Money::cents(6))));
    let budget = Budget::new(Money::cents(10)).per(Duration::from_secs(60));
    let l0 = L0::builder().budget(budget.clone()).build();
    let begin = || l0.stream(script.source()).start();
    let outcome = |run: Run<'_, _, _>| run.outcome();
    for window in 0..3 {
        assert_eq!(budget.left(), Money::cents(10));
        // The second run overspends it, and the third is refused.
        let mut first = begin();
        assert_eq!(read(&mut first).await.0, 2);
        assert_eq!(outcome(first), Some(Outcome::Completed));
        let mut second = begin();
        let (items, error) = read(&mut second).await;
        assert_eq!(items, 2);
        assert!(
            matches!(error, Some(Error::Limit(LimitKind::Budget))),
            "{error:?}"
        );
        let error = read(&mut begin()).await.1.expect("it is refused");
        assert_eq!(error.to_string(), "refused: the budget is spent");
        assert_eq!(budget.spent(), Money::cents(12));
        assert_eq!(budget.refused(), window + 1);
        assert_eq!(script.calls(), 2 * (window as usize + 1));
        tokio::time::advance(Duration::from_secs(60)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_spends_from_the_window_in_which_it_started() {
    let script = Script::new().attempt(|a| {
        a.token("Hi")
            .wait(Duration::from_secs(90))
            .cost(usd(Money::cents(6)))
    });
    let budget = Budget::new(Money::cents(10)).per(Duration::from_secs(60));
    let l0 = L0::builder().budget(budget.clone()).build();
    let mut late = l0.stream(script.source()).start();
    assert_eq!(read(&mut late).await.0, 2);
    assert_eq!(budget.spent(), Money::ZERO);
}

#[tokio::test]
async fn a_run_with_several_budgets_ends_with_the_first_that_is_overspent() {
    let user = Budget::new(Money::cents(5));
    let tenant = Budget::new(Money::units(5));
    let script = Script::new().attempt(|a| a.token("Hi").cost(usd(Money::cents(6))).token("!"));
    let l0 = L0::builder().budget(tenant.clone()).build();
    let begin = || l0.stream(script.source()).budget(user.clone()).start();
    let (items, error) = read(&mut begin()).await;
    assert_eq!(items, 2);
    assert!(matches!(error, Some(Error::Limit(LimitKind::Budget))));
    assert!(matches!(
        read(&mut begin()).await.1,
        Some(Error::Refused(_))
    ));
    assert_eq!((user.refused(), tenant.refused()), (1, 0));
    assert_eq!(
        (user.spent(), tenant.spent()),
        (Money::cents(6), Money::cents(6))
    );
}

#[test]
fn threads_that_share_a_budget_lose_nothing() {
    const RUNS: usize = 2_000;
    let budget = Budget::new(Money::units(u64::MAX / 1_000_000_000));
    let l0 = retrying().budget(budget.clone()).build();
    let run = |usage: Usage| {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let script = Script::new().attempt(move |a| a.token("Hi").usage(usage));
        runtime.expect("a runtime").block_on(async {
            for _ in 0..RUNS {
                let mut run = l0
                    .stream(script.source())
                    .metadata("model", "gpt-4")
                    .start();
                assert_eq!(read(&mut run).await.0, 2);
            }
        });
    };
    std::thread::scope(|threads| {
        for output in [1, 2, 3, 4] {
            threads.spawn(move || run(Usage::new().input(7).output(output)));
        }
    });
    // 28 input tokens and 10 output tokens.
    let each = Money::micros(1_000) * 28 + Money::cents(1) * 10;
    assert_eq!(budget.spent(), each * RUNS as u64);
}

#[tokio::test(start_paused = true)]
async fn budgets_by_key_are_separate_and_removed_after_their_window() {
    let minute = Duration::from_secs(60);
    let budgets = Budgets::new(Budget::new(Money::cents(10)).per(minute));
    let l0 = L0::default();
    let spend = async |key: &str| {
        let script = Script::new().attempt(|a| a.token("Hi").cost(usd(Money::cents(6))));
        let mut run = l0.stream(script.source()).budget(budgets.of(key)).start();
        read(&mut run).await
    };
    spend("a").await;
    assert_eq!(budgets.of("a").spent(), Money::cents(6));
    assert_eq!(budgets.of("b").spent(), Money::ZERO);
    spend("a").await;
    assert!(matches!(spend("a").await.1, Some(Error::Refused(_))));
    assert!(spend("b").await.1.is_none());

    let held = budgets.of("held");
    for number in 0..10_000 {
        spend(&number.to_string()).await;
        if number % 1_000 == 0 {
            tokio::time::advance(minute).await;
        }
    }
    assert!(budgets.len() <= 4_096, "{} keys", budgets.len());
    let script = Script::new().attempt(|a| a.token("Hi").cost(usd(Money::cents(6))));
    let mut run = l0
        .stream(script.source())
        .budget(budgets.of("held"))
        .start();
    read(&mut run).await;
    assert_eq!(held.spent(), Money::cents(6), "it is the same one");
}

#[tokio::test]
async fn a_watched_stream_has_no_limits() {
    let budget = Budget::new(Money::ZERO);
    let l0 = L0::builder()
        .limits(Limits::new().output_tokens(1))
        .budget(budget)
        .build();
    let script = Script::new().attempt(|a| tokens(a, 9));
    let items: Vec<_> = l0.watch(script.stream()).start().collect().await;
    assert_eq!(items.len(), 9);
}

#[tokio::test]
async fn a_pricing_that_panics_limits_nothing() {
    let usage = Usage::new().input(100).output(5);
    let script = Script::new().attempt(|a| tokens(a.usage(usage), 9));
    let calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&calls);
    let panics = move |_: &Priced<'_>| -> Option<Arc<Price>> {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("it panics")
    };
    let l0 = L0::builder()
        .pricing(panics)
        .limits(Limits::new().cost(Money::cents(1)))
        .build();
    let mut run = l0.stream(script.source()).start();
    assert_eq!(read(&mut run).await.0, 10);
    assert_eq!(run.outcome(), Some(Outcome::Completed));
    assert_eq!(
        calls.load(Ordering::Relaxed),
        2,
        "while it is live, and at its end"
    );
}

/// Four characters are a token, in the input too.
fn by_characters(attempt: &Unfinished<'_>) -> Option<Usage> {
    let output = Usage::new().output(attempt.characters.div_ceil(4));
    Some(match attempt.input_characters {
        Some(characters) => output.input(characters.div_ceil(4)),
        None => output,
    })
}

#[tokio::test]
async fn with_estimates_the_live_attempt_counts() {
    let four = |count| Script::new().attempt(move |a| a.tokens(std::iter::repeat_n("four", count)));
    let reported = Usage::new().input(100).output(5);
    for monitoring in [Monitoring::off(), Monitoring::new()] {
        // In cents: the run's maximum. In items: what it yields.
        for (name, script, input, cents, items) in [
            ("output", four(9), "", 4, 5),
            ("exactly the maximum", four(4), "", 4, 4),
            // 400 characters are 100 tokens, which cost 10 cents.
            (
                "input is charged at once",
                four(9),
                &*"a".repeat(400),
                12,
                3,
            ),
            (
                "reported usage takes precedence over its estimate",
                Script::new().attempt(move |a| {
                    let a = a.usage(Usage::new().input(10)).tokens(["four"; 9]);
                    a.finish(FinishReason::Stop)
                }),
                &*"a".repeat(400),
                4,
                5,
            ),
            (
                "a complete answer is not estimated",
                Script::new().attempt(move |a| {
                    let a = a.tokens(["four"; 3]).finish(FinishReason::Stop);
                    a.usage(reported).token("four")
                }),
                "",
                14,
                6,
            ),
        ] {
            let l0 = retrying()
                .monitoring(monitoring.clone())
                .estimate_usage(by_characters)
                .limits(Limits::new().cost(Money::cents(cents)))
                .build();
            let run = l0.stream(script.source()).metadata("model", "gpt-4");
            let mut run = match input {
                "" => run.start(),
                input => run.input(input).start(),
            };
            assert_eq!(read(&mut run).await.0, items, "{name}");
        }
    }
}

#[tokio::test]
async fn an_estimated_cost_stays_charged_until_it_is_replaced() {
    let reported = Usage::new().input(100).output(5);
    for (name, script, reads, cents) in [
        (
            "dropped",
            Script::new().attempt(|a| a.tokens(["four"; 9])),
            3,
            3,
        ),
        (
            "completed with reported usage",
            Script::new().attempt(move |a| {
                a.tokens(["four"; 9])
                    .finish(FinishReason::Stop)
                    .usage(reported)
            }),
            99,
            15,
        ),
        (
            "completed without reported usage",
            Script::new().attempt(|a| a.tokens(["four"; 9])),
            99,
            9,
        ),
        (
            "completed by a token with a finish reason, without reported usage",
            Script::new().attempt(|a| {
                let mut last = ScriptedToken::new(TokenKind::Text, "four");
                last.finish = Some(FinishReason::Stop);
                a.tokens(["four"; 8]).item(last)
            }),
            99,
            8,
        ),
    ] {
        for monitoring in [Monitoring::off(), Monitoring::new()] {
            let budget = Budget::new(Money::units(1));
            let l0 = retrying()
                .monitoring(monitoring)
                .estimate_usage(by_characters)
                .budget(budget.clone())
                .build();
            let mut run = l0
                .stream(script.source())
                .metadata("model", "gpt-4")
                .start();
            for _ in 0..reads {
                let _ = run.next().await;
            }
            drop(run);
            assert_eq!(budget.spent(), Money::cents(cents), "{name}");
        }
    }
}

/// Random runs with budgets, which live runs share in part. No budget is overspent by more than one
/// item for each live run, and no refused run calls its source.
#[tokio::test]
async fn no_run_overspends_by_more_than_one_item() {
    let runs: u64 =
        std::env::var("L0_BUDGET_RUNS").map_or(10_000, |runs| runs.parse().expect("a number"));
    let mut rng = fastrand::Rng::with_seed(7);
    let mut done = 0;
    while done < runs {
        let limit = Money::micros(rng.u64(0..100_000));
        let budget = Budget::new(limit);
        let l0 = retrying()
            .monitoring(if rng.bool() {
                Monitoring::new()
            } else {
                Monitoring::off()
            })
            .estimate_usage(by_characters)
            .budget(budget.clone())
            .build();
        // An item has at most eight characters: two tokens, for two cents.
        let item = Money::cents(2);
        let alive = rng.usize(1..5);
        let scripts: Vec<Script> = (0..alive)
            .map(|_| {
                let items: Vec<_> = (0..rng.usize(1..15))
                    .map(|_| "eight ch"[..rng.usize(1..=8)].to_owned())
                    .collect();
                let fails = rng.bool();
                let first = items.clone();
                Script::new()
                    .attempt(move |a| match fails {
                        true => a.tokens(first).fail(std::io::ErrorKind::ConnectionReset),
                        false => a.tokens(first),
                    })
                    .attempt(move |a| a.tokens(items))
            })
            .collect();
        let mut live: Vec<_> = scripts
            .iter()
            .map(|script| {
                let refused = budget.spent() >= limit;
                let run = l0
                    .stream(script.source())
                    .metadata("model", "gpt-4")
                    .start();
                (refused, script, run)
            })
            .collect();
        done += live.len() as u64;
        while !live.is_empty() {
            let index = rng.usize(0..live.len());
            let (refused, script, run) = &mut live[index];
            let chunk = run.next().await;
            if *refused {
                assert!(matches!(chunk, Some(Err(Error::Refused(_)))));
                assert_eq!(script.calls(), 0);
            }
            if !matches!(chunk, Some(Ok(_))) || rng.u8(0..40) == 0 {
                drop(live.swap_remove(index));
            }
            assert!(budget.spent() <= limit + item * alive as u64, "{budget:?}");
        }
    }
}
