//! The possible usage of an answer that ended early is estimated, and kept apart from the reported
//! usage.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Script, ScriptedAttempt};
use l0_core::{
    Cost, CostSource, Currency, Failure, FinishReason, L0, L0Builder, Monitoring, Outcome, Price,
    Priced, Retry, Source, Telemetry, Timeouts, TokenPrices, Unfinished, Usage, source,
};
use serde_json::{Value, json};

/// The arguments of an estimate.
#[derive(Debug, Clone, PartialEq)]
struct Asked {
    model: Option<String>,
    tokens: u64,
    characters: u64,
    input: Option<Value>,
    told: Option<Usage>,
}

/// Estimates one token per character and ten of input, and records its arguments.
#[derive(Clone, Default)]
struct Estimates(Arc<Mutex<Vec<Asked>>>);

impl Estimates {
    fn l0(&self) -> L0Builder {
        let asked = Arc::clone(&self.0);
        let estimate = move |attempt: &Unfinished<'_>| {
            asked.lock().expect("no panic").push(Asked {
                model: attempt.model.model.map(str::to_owned),
                tokens: attempt.tokens,
                characters: attempt.characters,
                input: attempt.input.cloned(),
                told: attempt.reported,
            });
            Some(Usage::new().input(10).output(attempt.characters))
        };
        let l0 = L0::builder().monitoring(Monitoring::new());
        l0.estimate_usage(estimate).pricing(prices)
    }

    fn take(&self) -> Vec<Asked> {
        std::mem::take(&mut self.0.lock().expect("no panic"))
    }
}

/// A cent for each input token, two for each output token.
fn prices(model: &Priced<'_>) -> Option<Arc<Price>> {
    let cents = |text: &str| text.parse().expect("an amount");
    let tokens = TokenPrices::new(cents("0.01"), cents("0.02"));
    (model.model != Some("unknown")).then(|| Arc::new(Price::new(Currency::USD, tokens)))
}

fn usd(amount: &str) -> Option<Cost> {
    let amount = amount.parse().expect("an amount");
    Some(Cost::new(amount, Currency::USD, CostSource::PriceList))
}

/// Five characters in two items.
fn begun(attempt: ScriptedAttempt) -> ScriptedAttempt {
    attempt.reasoning("Hé").token("llo")
}

/// Reads two items of a run of this script, and then the rest or nothing.
async fn read(l0: L0Builder, script: Script, ends: &str) -> Telemetry {
    let l0 = l0.retry(Retry::none()).build();
    let mut run = l0
        .stream(script.source())
        .metadata("model", "gpt-4")
        .input(json!("Say hello."))
        .expect_finish()
        .start();
    let handle = run.handle();
    for _ in 0..2 {
        let _ = run.next().await;
    }
    match ends {
        "aborted" => handle.abort(),
        "dropped" => {
            drop(run);
            return handle.telemetry().expect("measured");
        }
        _ => {}
    }
    while run.next().await.is_some() {}
    run.telemetry().expect("measured")
}

#[tokio::test(start_paused = true)]
async fn every_end_in_mid_answer_is_estimated_once() {
    for (name, script, outcome) in [
        (
            "aborted",
            Script::new().attempt(|a| begun(a).hang()),
            Outcome::Aborted,
        ),
        (
            "dropped",
            Script::new().attempt(|a| begun(a).hang()),
            Outcome::Dropped,
        ),
        ("cut", Script::new().attempt(begun), Outcome::Truncated),
        (
            "late",
            Script::new().attempt(|a| begun(a).hang()),
            Outcome::TimedOut,
        ),
        (
            "failed",
            Script::new().attempt(|a| begun(a).fail(Failure::status(500))),
            Outcome::Failed,
        ),
    ] {
        let estimates = Estimates::default();
        let timeouts = Timeouts::new().inter_token(Duration::from_secs(1));
        let l0 = estimates.l0().timeouts(timeouts);
        let telemetry = read(l0, script, name).await;
        assert_eq!(telemetry.outcome, Some(outcome), "{name}");
        let asked = Asked {
            model: Some("gpt-4".to_owned()),
            tokens: 2,
            characters: 5,
            input: Some(json!("Say hello.")),
            told: None,
        };
        assert_eq!(estimates.take(), [asked], "{name}");
        let estimated = Usage::new().input(10).output(5).total(15);
        assert_eq!(telemetry.estimated_usage, Some(estimated), "{name}");
        assert_eq!(telemetry.estimated_cost, usd("0.2"), "{name}");
        // None of it counts as reported.
        assert_eq!((telemetry.usage, telemetry.cost), (None, None), "{name}");
        assert_eq!(
            (telemetry.billed(), telemetry.total_cost()),
            (None, None),
            "{name}"
        );
        assert_eq!(telemetry.unpriced(), 0, "{name}");
        let text = telemetry.to_string();
        assert!(
            text.contains("\nEstimated usage: 10 input, 5 output\n"),
            "{text}"
        );
        assert!(text.contains("\nEstimated cost: 0.2 USD\n"), "{text}");
        let json = serde_json::to_string(&telemetry).expect("JSON");
        assert_eq!(
            serde_json::from_str::<Telemetry>(&json).expect("JSON"),
            telemetry,
            "{name}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_complete_or_never_began_is_not_estimated() {
    let whole = |a: ScriptedAttempt| begun(a).finish(FinishReason::Stop);
    for (name, script, ends) in [
        ("whole", Script::new().attempt(whole), "read"),
        (
            "dropped after the finish reason",
            Script::new().attempt(|a| a.item(finished()).token("o").hang()),
            "dropped",
        ),
        (
            "failed before it began",
            Script::new().attempt(|a| a.fail(Failure::status(500))),
            "read",
        ),
        (
            "not connected",
            Script::new().attempt(|a| a.connect_error("no")),
            "read",
        ),
    ] {
        let estimates = Estimates::default();
        let telemetry = read(estimates.l0(), script, ends).await;
        assert_eq!(estimates.take(), [], "{name}");
        assert_eq!(telemetry.estimated_usage, None, "{name}");
        assert_eq!(telemetry.estimated_cost, None, "{name}");
    }
    // Attempts that are not measured are not estimated either.
    let estimates = Estimates::default();
    let l0 = estimates.l0().monitoring(Monitoring::off()).build();
    let script = Script::new().attempt(|a| begun(a).hang());
    let mut run = l0.stream(script.source()).start();
    run.next().await.expect("an item").expect("an item");
    drop(run);
    assert_eq!(estimates.take(), []);
}

fn finished() -> l0_core::testing::ScriptedToken {
    let mut token = l0_core::testing::ScriptedToken::new(l0_core::TokenKind::Text, "Hell");
    token.finish = Some(FinishReason::Stop);
    token
}

#[tokio::test]
async fn reported_usage_is_subtracted_from_an_estimate_and_keeps_its_own_cost() {
    let told = Usage::new().input(20).output(1).total(21);
    let script = Script::new().attempt(move |a| {
        let mut first = finished();
        (first.finish, first.usage) = (None, Some(told));
        a.item(first).token("o").fail(Failure::status(400))
    });
    let estimates = Estimates::default();
    let telemetry = read(estimates.l0(), script, "read").await;
    assert_eq!(estimates.take()[0].told, Some(told));
    assert_eq!((telemetry.usage, telemetry.cost), (Some(told), usd("0.22")));
    let rest = Usage::new().output(4).total(4);
    assert_eq!(telemetry.estimated_usage, Some(rest));
    assert_eq!(telemetry.estimated_cost, usd("0.08"));
}

#[tokio::test]
async fn estimates_of_all_attempts_are_summed_each_for_its_own_model() {
    let broken = |text: &str| {
        let text = text.to_owned();
        Script::new().attempt(move |a| a.token(text.clone()).fail(Failure::status(400)))
    };
    let (first, second) = (broken("one"), broken("four"));
    let third = Script::new().attempt(|a| a.token("Hi").finish(FinishReason::Stop));
    let estimates = Estimates::default();
    let mut run = estimates
        .l0()
        .build()
        .stream(first.source())
        .metadata("model", "gpt-4")
        .fallback(source(second.source()).metadata("model", "unknown"))
        .fallback(source(third.source()).metadata("model", "claude"))
        .start();
    run.text().await.expect("an answer");
    let telemetry = run.telemetry().expect("measured");
    let models: Vec<_> = estimates
        .take()
        .into_iter()
        .filter_map(|asked| asked.model)
        .collect();
    assert_eq!(models, ["gpt-4", "unknown"]);
    let all = Usage::new().input(20).output(7).total(27);
    assert_eq!(telemetry.estimated_usage, Some(all));
    assert_eq!(telemetry.estimated_cost, usd("0.16"));
    let estimated = telemetry
        .attempts
        .iter()
        .map(|attempt| attempt.estimated_cost);
    assert_eq!(estimated.collect::<Vec<_>>(), [usd("0.16"), None, None]);
}

#[tokio::test]
async fn an_estimate_that_panics_returns_nothing_and_does_not_affect_the_run() {
    let estimate = |_: &Unfinished<'_>| -> Option<Usage> { panic!("no estimate") };
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .estimate_usage(estimate)
        .build();
    let script = Script::new().attempt(|a| begun(a).hang());
    let mut run = l0.stream(script.source()).start();
    run.next().await.expect("an item").expect("an item");
    let handle = run.handle();
    drop(run);
    assert_eq!(handle.outcome(), Some(Outcome::Dropped));
    assert_eq!(handle.telemetry().expect("measured").estimated_usage, None);
    assert_eq!(l0.observer_panics(), 1);
}
