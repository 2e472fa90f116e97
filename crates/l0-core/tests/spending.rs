//! Limits and budgets: shared by runs, in waits, and with costs that become known late.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Budget, Cost, CostSource, Currency, Error, Failure, FinishReason, L0, L0Builder,
    LimitKind, Limits, Money, Monitoring, Outcome, Price, Priced, Retry, Timeouts, TokenKind,
    TokenPrices, TokenView, Unfinished, Usage, source,
};

/// An output token costs a cent, an input token a tenth of a cent.
fn prices(model: &Priced<'_>) -> Option<Arc<Price>> {
    let tokens = TokenPrices::new(Money::micros(1_000), Money::cents(1));
    let is_known = [model.model, model.response_model].contains(&Some("gpt-4"));
    is_known.then(|| Arc::new(Price::new(Currency::USD, tokens)))
}

fn usd(amount: Money) -> Cost {
    Cost::new(amount, Currency::USD, CostSource::Provider)
}

fn monitorings() -> [Monitoring; 3] {
    [
        Monitoring::off(),
        Monitoring::new(),
        Monitoring::new().sample_rate(0.0),
    ]
}

fn retrying(backoff: Backoff) -> L0Builder {
    L0::builder()
        .retry(Retry::new().max_retries(3).backoff(backoff))
        .pricing(prices)
}

/// Spends from a budget by another run.
async fn spend(budget: &Budget, amount: Money) {
    let script =
        Script::new().attempt(|a| a.token("a").finish(FinishReason::Stop).cost(usd(amount)));
    let l0 = L0::builder().budget(budget.clone()).build();
    l0.stream(script.source())
        .start()
        .text()
        .await
        .expect("an answer");
}

/// Estimates one model token per stream token.
fn by_items(attempt: &Unfinished<'_>) -> Option<Usage> {
    Some(Usage::new().output(attempt.tokens))
}

#[tokio::test]
async fn a_budget_overspent_by_other_runs_ends_a_run_after_its_next_item() {
    for monitoring in monitorings() {
        let budget = Budget::new(Money::cents(10));
        let script = Script::new().attempt(|a| a.tokens(["a"; 9]));
        let l0 = L0::builder()
            .monitoring(monitoring)
            .budget(budget.clone())
            .build();
        let mut run = l0.stream(script.source()).start();
        assert!(matches!(run.next().await, Some(Ok(_))));
        spend(&budget, Money::cents(11)).await;
        assert!(matches!(run.next().await, Some(Ok(_))));
        let last = run.next().await;
        assert!(
            matches!(last, Some(Err(Error::Limit(LimitKind::Budget)))),
            "{last:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn no_source_is_called_after_the_budget_is_overspent() {
    let second = Duration::from_secs(1);
    for monitoring in monitorings() {
        for (name, backoff, wait, ends, calls) in [
            (
                "before the first attempt",
                Backoff::none(),
                None,
                LimitKind::Budget,
                0,
            ),
            (
                "in a back-off",
                Backoff::fixed(second),
                Some(second / 2),
                LimitKind::Budget,
                1,
            ),
        ] {
            let budget = Budget::new(Money::cents(10));
            let script = Script::new()
                .attempt(|a| a.connect_error(Failure::status(500)))
                .attempt(|a| a.token("a"));
            let l0 = retrying(backoff)
                .monitoring(monitoring.clone())
                .budget(budget.clone())
                .build();
            let mut run = l0.stream(script.source()).start();
            if let Some(wait) = wait {
                assert!(
                    tokio::time::timeout(wait, run.next()).await.is_err(),
                    "{name}"
                );
            }
            spend(&budget, Money::cents(11)).await;
            let last = run.next().await;
            assert!(
                matches!(last, Some(Err(Error::Limit(kind))) if kind == ends),
                "{name}: {last:?}"
            );
            assert_eq!(script.calls(), calls, "{name}");
            assert_eq!(run.outcome(), Some(Outcome::Limited), "{name}");
        }
    }
}

#[tokio::test]
async fn no_retry_is_reported_if_the_budget_is_overspent() {
    let budget = Budget::new(Money::cents(10));
    let script = Script::new()
        .attempt(|a| a.token("a").hang())
        .attempt(|a| a.token("a"));
    let other = Script::new().attempt(|a| a.token("a"));
    let l0 = retrying(Backoff::none())
        .monitoring(Monitoring::new())
        .timeouts(Timeouts::new().inter_token(Duration::from_secs(1)))
        .budget(budget.clone())
        .build();
    tokio::time::pause();
    let mut run = l0
        .stream(script.source())
        .fallback(source(other.source()))
        .start();
    assert!(matches!(run.next().await, Some(Ok(_))));
    spend(&budget, Money::cents(11)).await;
    let last = run.next().await;
    assert!(
        matches!(last, Some(Err(Error::Limit(LimitKind::Budget)))),
        "{last:?}"
    );
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(telemetry.metrics.total_retries, 0);
    assert_eq!(
        telemetry.metrics.wasted_tokens, 0,
        "nothing follows the attempt"
    );
    assert_eq!((script.calls(), other.calls()), (1, 0));
}

#[tokio::test]
async fn an_answer_of_a_call_is_returned_even_if_it_exceeds_the_limit() {
    for monitoring in monitorings() {
        let budget = Budget::new(Money::cents(5));
        for limits in [
            Limits::new(),
            Limits::new().cost(Money::cents(5)).output_tokens(0),
        ] {
            let l0 = retrying(Backoff::none())
                .monitoring(monitoring.clone())
                .limits(limits)
                .budget(budget.clone())
                .build();
            let reply = || async { Ok::<_, ScriptedError>(Usage::new().input(100).output(0)) };
            let call = l0
                .call(|_| reply())
                .view_with(|usage: &Usage| TokenView::other().usage(*usage))
                .metadata("model", "gpt-4");
            let reply = call.start().await;
            if limits == Limits::new() {
                assert!(reply.is_ok(), "{reply:?}");
                assert_eq!(budget.spent(), Money::cents(10));
            } else {
                assert!(matches!(reply, Err(Error::Refused(_))), "{reply:?}");
            }
        }
        let l0 = retrying(Backoff::none())
            .limits(Limits::new().cost(Money::cents(5)))
            .build();
        let call = l0
            .call(|_| async { Ok::<_, ScriptedError>(Usage::new().input(100).output(0)) })
            .view_with(|usage: &Usage| TokenView::other().usage(*usage))
            .metadata("model", "gpt-4");
        assert!(call.start().await.is_ok());
    }
}

#[tokio::test]
async fn a_budget_that_is_set_twice_is_charged_once() {
    let budget = Budget::new(Money::units(1));
    let l0 = L0::builder().budget(budget.clone()).build();
    let script = Script::new().attempt(|a| a.token("a").cost(usd(Money::cents(6))));
    let l0 = l0.to_builder().budget(budget.clone()).build();
    let mut run = l0.stream(script.source()).budget(budget.clone()).start();
    run.text().await.expect("an answer");
    assert_eq!(budget.spent(), Money::cents(6));
}

#[tokio::test]
async fn a_window_beyond_the_range_of_the_clock_never_ends() {
    let budget = Budget::new(Money::cents(10)).per(Duration::MAX);
    spend(&budget, Money::cents(6)).await;
    assert_eq!(budget.spent(), Money::cents(6));
    spend(&budget, Money::cents(6)).await;
    assert_eq!(budget.left(), Money::ZERO);
    let l0 = L0::builder().budget(budget.clone()).build();
    let script = Script::new().attempt(|a| a.token("a"));
    let mut run = l0.stream(script.source()).start();
    assert!(matches!(run.next().await, Some(Err(Error::Refused(_)))));
}

#[tokio::test]
async fn a_model_that_is_reported_late_is_priced_from_then_on() {
    for monitoring in monitorings() {
        let calls = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&calls);
        let counted = move |model: &Priced<'_>| {
            count.fetch_add(1, Ordering::Relaxed);
            prices(model)
        };
        let script = Script::new().attempt(|a| {
            let mut named = ScriptedToken::new(TokenKind::Other, "");
            named.model = Some("gpt-4".to_owned());
            a.tokens(["a"; 3]).item(named).tokens(["a"; 9])
        });
        let l0 = L0::builder()
            .monitoring(monitoring)
            .pricing(counted)
            .estimate_usage(by_items)
            .limits(Limits::new().cost(Money::cents(5)))
            .build();
        let mut run = l0
            .stream(script.source())
            .metadata("model", "deployment")
            .start();
        let mut tokens = 0;
        let last = loop {
            match run.next().await {
                Some(Ok(chunk)) => {
                    tokens += usize::from(chunk.into_item().is_some_and(|item| item.text == "a"));
                }
                last => break last,
            }
        };
        assert!(
            matches!(last, Some(Err(Error::Limit(LimitKind::Cost)))),
            "{last:?}"
        );
        assert_eq!(tokens, 6);
        assert_eq!(
            calls.load(Ordering::Relaxed),
            3,
            "twice while the run is live, and once at its end"
        );
    }
}

#[tokio::test]
async fn a_final_failure_is_reported_even_if_the_budget_is_overspent() {
    let denied = || ScriptedError::new(Failure::status(401));
    let reset = || ScriptedError::from(std::io::ErrorKind::ConnectionReset);
    let other = Script::new().attempt(|a| a.token("b"));
    for (name, error, retries, falls_back, outcome) in [
        ("denied", denied(), 3, false, Outcome::Failed),
        (
            "denied, with a fallback",
            denied(),
            3,
            true,
            Outcome::Limited,
        ),
        ("reset", reset(), 3, false, Outcome::Limited),
        ("reset without a retry", reset(), 0, false, Outcome::Failed),
    ] {
        for monitoring in monitorings() {
            let budget = Budget::new(Money::cents(10));
            let error = error.clone();
            let script = Script::new().attempt(|a| a.token("a").fail(error));
            let retry = Retry::new().max_retries(retries).backoff(Backoff::none());
            let l0 = L0::builder()
                .monitoring(monitoring)
                .retry(retry)
                .budget(budget.clone())
                .build();
            let run = l0.stream(script.source());
            let mut run = match falls_back {
                true => run.fallback(source(other.source())).start(),
                false => run.start(),
            };
            assert!(matches!(run.next().await, Some(Ok(_))), "{name}");
            spend(&budget, Money::cents(11)).await;
            assert!(matches!(run.next().await, Some(Err(_))), "{name}");
            assert_eq!(run.outcome(), Some(outcome), "{name}");
            assert_eq!((script.calls(), other.calls()), (1, 0), "{name}");
        }
    }
}
