//! The cost of attempts: reported by their sources, or computed from their usage and a price.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use futures_util::{StreamExt, stream};
use l0_core::testing::{
    Captured, OwnedEvent, Script, ScriptedAttempt, ScriptedError, ScriptedToken,
};
use l0_core::{
    AttemptStats, Cost, CostSource, Currency, Failure, FinishReason, L0, L0Builder, Money, Monitor,
    Monitoring, Price, Priced, Pricing, Retry, Source, Telemetry, TokenKind, TokenPrices,
    TokenView, Usage, source,
};

const USAGE: Usage = Usage::new().input(1_000).output(100).total(1_100);

fn price(currency: Currency) -> Arc<Price> {
    let tokens = TokenPrices::per_million(Money::units(2), Money::units(10));
    Arc::new(Price::new(currency, tokens))
}

/// Prices one model.
fn prices(model: &Priced<'_>) -> Option<Arc<Price>> {
    (model.model == Some("gpt-4")).then(|| price(Currency::USD))
}

fn usd(amount: &str, source: CostSource) -> Option<Cost> {
    let amount = amount.parse().expect("an amount");
    Some(Cost::new(amount, Currency::USD, source))
}

fn priced() -> L0Builder {
    let shared: Arc<dyn Pricing> = Arc::new(prices);
    L0::builder().monitoring(Monitoring::new()).pricing(shared)
}

/// An answer that reports its usage.
fn answer(attempt: ScriptedAttempt) -> ScriptedAttempt {
    let attempt = attempt.token("Hi").finish(FinishReason::Stop);
    attempt.usage(USAGE)
}

#[tokio::test]
async fn the_cost_of_an_answer_is_reported_or_computed_from_usage_and_price() {
    let reported = usd("0.5", CostSource::Provider);
    for (name, model, script, cost, unpriced) in [
        (
            "priced",
            "gpt-4",
            Script::new().attempt(answer),
            usd("0.003", CostSource::PriceList),
            0,
        ),
        (
            "reported",
            "gpt-4",
            Script::new().attempt(move |a| answer(a).cost(reported.expect("reported"))),
            reported,
            0,
        ),
        (
            "reported for an unknown model",
            "unknown",
            Script::new().attempt(move |a| answer(a).cost(reported.expect("reported"))),
            reported,
            0,
        ),
        (
            "unknown model",
            "unknown",
            Script::new().attempt(answer),
            None,
            1,
        ),
        (
            "unknown model without usage",
            "unknown",
            Script::new().attempt(|a| a.token("Hi").finish(FinishReason::Stop)),
            None,
            0,
        ),
        (
            "half of the usage",
            "gpt-4",
            Script::new().attempt(|a| {
                let answer = a.token("Hi").finish(FinishReason::Stop);
                answer.usage(Usage::new().input(5))
            }),
            None,
            0,
        ),
    ] {
        let mut run = priced()
            .build()
            .stream(script.source())
            .metadata("model", model)
            .start();
        run.text().await.expect(name);
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(telemetry.cost, cost, "{name}");
        assert_eq!(telemetry.attempts[0].cost, cost, "{name}");
        assert_eq!(telemetry.unpriced(), unpriced, "{name}");
        assert_eq!(telemetry.wasted_cost, None, "{name}");
    }
}

#[tokio::test]
async fn calls_and_watched_streams_are_priced_too() {
    let l0 = priced().build();
    let cost = usd("0.003", CostSource::PriceList);

    let reply = || async { Ok::<_, ScriptedError>(USAGE) };
    let mut call = l0
        .call(|_| reply())
        .view_with(|usage: &Usage| TokenView::other().usage(*usage))
        .metadata("model", "gpt-4")
        .start();
    (&mut call).await.expect("an answer");
    assert_eq!(call.telemetry().and_then(|telemetry| telemetry.cost), cost);

    let mut item = ScriptedToken::new(TokenKind::Text, "Hi");
    item.usage = Some(USAGE);
    let items = stream::iter([Ok::<_, ScriptedError>(item)]);
    let mut watched = l0.watch(items).metadata("model", "gpt-4").start();
    while watched.next().await.is_some() {}
    assert_eq!(
        watched.telemetry().and_then(|telemetry| telemetry.cost),
        cost
    );
}

#[tokio::test]
async fn each_attempt_is_priced_by_its_own_model_and_discarded_costs_are_separate() {
    let reported = usd("0.001", CostSource::Provider).expect("reported");
    let second = Script::new().attempt(answer);
    let l0 = priced().retry(Retry::new()).build();
    for (model, wasted, cost) in [
        (
            "gpt-4",
            usd("0.004", CostSource::Mixed),
            usd("0.003", CostSource::PriceList),
        ),
        ("other", usd("0.004", CostSource::Mixed), None),
    ] {
        let first = Script::new()
            .attempt(move |a| {
                a.token("H")
                    .usage(USAGE)
                    .cost(reported)
                    .fail(Failure::status(503))
            })
            .attempt(|a| a.token("H").usage(USAGE).fail(Failure::status(401)));
        let mut run = l0
            .stream(first.source())
            .metadata("model", "gpt-4")
            .fallback(source(second.source()).metadata("model", model))
            .start();
        run.text().await.expect("an answer");
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(
            (telemetry.cost, telemetry.wasted_cost),
            (cost, wasted),
            "{model}"
        );
        let costs: Vec<_> = telemetry
            .attempts
            .iter()
            .map(|attempt| attempt.cost)
            .collect();
        let expected = [Some(reported), usd("0.003", CostSource::PriceList), cost];
        assert_eq!(costs, expected, "{model}");
    }
}

#[tokio::test]
async fn a_pricing_is_called_once_per_attempt_with_reported_usage_and_receives_everything_known() {
    let calls = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&calls);
    let pricing = move |model: &Priced<'_>| {
        counted.fetch_add(1, Ordering::Relaxed);
        assert_eq!(model.provider, Some("openai"));
        assert_eq!(model.model, Some("gpt-4"));
        assert_eq!(model.response_model, Some("gpt-4-0613"));
        assert_eq!(model.operation, Some("chat"));
        Some(price(Currency::EUR))
    };
    let captured = Captured::new();
    let l0 = L0::builder().monitoring(Monitoring::new()).pricing(pricing);
    let l0 = l0.interceptor(captured.clone()).build();
    let mut named = ScriptedToken::new(TokenKind::Text, "Hi");
    named.model = Some("gpt-4-0613".to_owned());
    let script = Script::new()
        .attempt(|a| a.fail(Failure::status(500)))
        .attempt(move |a| answer(a.item(named.clone())));
    let run = l0.stream(script.source()).metadata("model", "gpt-4");
    let mut run = run
        .metadata("provider", "openai")
        .metadata("operation", "chat")
        .start();
    run.text().await.expect("an answer");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    // Observers of attempts receive it too.
    let reported = captured
        .events()
        .into_iter()
        .filter_map(|event| match event {
            OwnedEvent::AttemptFinished { attempt, .. } => Some(attempt.cost),
            _ => None,
        });
    let cost = Cost::new(
        "0.003".parse().expect("an amount"),
        Currency::EUR,
        CostSource::PriceList,
    );
    assert_eq!(reported.collect::<Vec<_>>(), [None, Some(cost)]);
    assert_eq!(
        run.telemetry().and_then(|telemetry| telemetry.cost),
        Some(cost)
    );

    // A run that is not measured is not priced.
    let l0 = l0.to_builder().monitoring(Monitoring::off()).build();
    let mut run = l0
        .stream(script.source())
        .metadata("model", "gpt-4")
        .start();
    run.text().await.expect("an answer");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_pricing_that_panics_has_no_price_and_does_not_affect_the_run() {
    let pricing = |_: &Priced<'_>| -> Option<Arc<Price>> { panic!("no price") };
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .pricing(pricing)
        .build();
    let script = Script::new().attempt(answer);
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.expect("an answer"), "Hi");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!((telemetry.cost, telemetry.unpriced()), (None, 1));
    assert_eq!(l0.observer_panics(), 1);
}

#[tokio::test]
async fn costs_in_two_currencies_are_not_summed_and_each_attempt_reports_its_own() {
    let pricing = |model: &Priced<'_>| {
        Some(price(if model.model == Some("gpt-4") {
            Currency::USD
        } else {
            Currency::EUR
        }))
    };
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .pricing(pricing)
        .build();
    let failing = || Script::new().attempt(|a| a.usage(USAGE).fail(Failure::status(401)));
    let (first, second, third) = (failing(), failing(), Script::new().attempt(answer));
    let mut run = l0
        .stream(first.source())
        .metadata("model", "gpt-4")
        .fallback(source(second.source()).metadata("model", "other"))
        .fallback(source(third.source()).metadata("model", "gpt-4"))
        .start();
    run.text().await.expect("an answer");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(telemetry.cost, usd("0.003", CostSource::PriceList));
    assert_eq!(
        (telemetry.wasted_cost, telemetry.total_cost()),
        (None, None)
    );
    let currencies = telemetry
        .attempts
        .iter()
        .map(|attempt| attempt.cost.expect("priced").currency);
    let expected = [Currency::USD, Currency::EUR, Currency::USD];
    assert_eq!(currencies.collect::<Vec<_>>(), expected);
}

#[tokio::test(start_paused = true)]
async fn the_cost_of_many_attempts_is_exact_for_each_currency() {
    let last = AttemptStats::MAX as u64 + 20;
    let mut script = Script::new();
    for number in 1..=last {
        // In the order of the attempts: only the last ones are in euros.
        let currency = if number > 40 {
            Currency::EUR
        } else {
            Currency::USD
        };
        let cost = Cost::new(Money::cents(number), currency, CostSource::Provider);
        script = script.attempt(move |a| a.token("H").cost(cost).fail(Failure::status(503)));
    }
    let retry = Retry::new().max_retries(u32::try_from(last).expect("few") - 1);
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(retry)
        .build();
    let mut run = l0.stream(script.source()).start();
    run.text().await.expect_err("all fail");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(telemetry.attempts.len(), AttemptStats::MAX);
    let sum = |currency| {
        let costs = telemetry.attempts.iter().filter_map(|attempt| attempt.cost);
        costs
            .filter(|cost| cost.currency == currency)
            .map(|cost| cost.amount)
            .sum::<Money>()
    };
    assert_eq!(sum(Currency::USD), Money::cents((1..=40).sum()));
    assert_eq!(sum(Currency::EUR), Money::cents((41..=last).sum()));
    let count: u32 = telemetry.attempts.iter().map(|attempt| attempt.count).sum();
    assert_eq!(u64::from(count), last);
}

#[test]
fn a_manually_reported_run_has_its_reported_cost() {
    let cost = usd("0.02", CostSource::PriceList).expect("a cost");
    let mut monitor = Monitor::new(Monitoring::new());
    monitor.record_item(&TokenView::text("Hi").usage(USAGE).cost(&cost));
    let telemetry = monitor.telemetry().expect("measured");
    assert_eq!(telemetry.cost, Some(cost));
    let text = telemetry.to_string();
    assert!(text.contains("\nCost: 0.02 USD\n"), "{text}");
}

#[test]
fn an_invalid_cost_loses_only_itself() {
    let cost = r#"{"amount":"0.25","currency":"EUR","source":"provider"}"#;
    for (written, read) in [
        (cost, Some("0.25 EUR")),
        (
            r#"{"amount":0.25,"currency":"eur","source":"later"}"#,
            Some("0.25 EUR"),
        ),
        (
            r#"{"amount":"0.25","currency":"EUR","source":"provider","of":1}"#,
            Some("0.25 EUR"),
        ),
        (
            r#"{"amount":"-1","currency":"EUR","source":"provider"}"#,
            None,
        ),
        (
            r#"{"amount":"0.25","currency":"euros","source":"provider"}"#,
            None,
        ),
        (r#"{"amount":"0.25"}"#, None),
        ("0.25", None),
        ("null", None),
    ] {
        let json = format!(
            r#"{{"sessionId":"a","cost":{written},"wastedCost":{written},
                "attempts":[{{"tokens":3,"cost":{written}}}]}}"#
        );
        let telemetry: Telemetry = serde_json::from_str(&json).expect(written);
        assert_eq!(telemetry.session_id, "a");
        assert_eq!(telemetry.attempts[0].tokens, 3);
        for cost in [
            telemetry.cost,
            telemetry.wasted_cost,
            telemetry.attempts[0].cost,
        ] {
            assert_eq!(
                cost.map(|cost| cost.to_string()).as_deref(),
                read,
                "{written}"
            );
        }
    }
}
