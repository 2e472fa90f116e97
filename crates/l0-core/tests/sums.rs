//! Sums over the attempts of a run are the totals of the run: of tokens and of usage, however it ends.

use std::io;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt};
use l0_core::{
    Backoff, Failure, FinishReason, L0, Monitoring, Outcome, Quantity, Retry, Telemetry, Timeouts,
    Usage, Value,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const SEC: Duration = Duration::from_secs(1);

/// What the counters get of a number of usage; absent if it is unknown.
fn counted(telemetry: &Telemetry, name: &str) -> Option<u64> {
    let quantity = Quantity::ALL.iter().find(|quantity| quantity.name == name);
    match quantity.expect("a quantity").value(telemetry)? {
        Value::Count(count) => Some(count),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_thrown_away_was_billed() {
    let usage = Usage::new().input(1_000).output(500).total(1_500);
    // Nothing to see: the model's fault, twice asked again.
    let empty = move |a: ScriptedAttempt| a.token(" \n").finish(FinishReason::Stop).usage(usage);
    for (name, script, outcome) in [
        (
            "all three fail",
            Script::new().attempt(empty),
            Outcome::Failed,
        ),
        (
            "the third is an answer",
            Script::new()
                .attempt(empty)
                .attempt(empty)
                .attempt(|a| a.token("Hi").finish(FinishReason::Stop).usage(usage)),
            Outcome::Completed,
        ),
    ] {
        let l0 = L0::builder().monitoring(Monitoring::new()).build();
        let mut run = l0.stream(script.source()).start();
        let _ = run.text().await;
        assert_eq!(
            (script.calls(), run.outcome()),
            (3, Some(outcome)),
            "{name}"
        );
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(telemetry.usage, Some(usage), "{name}: of the last one");
        assert_eq!(telemetry.wasted_usage, Some(usage.plus(usage)), "{name}");
        for (quantity, count) in [
            ("usage.input", 3_000),
            ("usage.output", 1_500),
            ("usage.total", 4_500),
            ("usage.wasted_input", 2_000),
            ("usage.wasted_output", 1_000),
        ] {
            assert_eq!(
                counted(&telemetry, quantity),
                Some(count),
                "{name}: {quantity}"
            );
        }
        assert_eq!(counted(&telemetry, "usage.reasoning"), None, "{name}");
    }
}

#[test]
fn counts_add_up_saturate_and_are_absent_only_if_both_are() {
    let most = Usage::new().input(u64::MAX).output(1);
    let sum = most.plus(Usage::new().input(1).reasoning(3));
    assert_eq!(sum, Usage::new().input(u64::MAX).output(1).reasoning(3));
    assert_eq!(Usage::new().plus(Usage::new()), Usage::new());
}

/// What one attempt does.
#[derive(Debug, Clone)]
struct Planned {
    /// How many tokens it gives.
    tokens: u8,
    /// What its source tells after them; the last one counts.
    usages: Vec<Usage>,
    finish: bool,
    end: Ending,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    End,
    Reset,
    Unavailable,
    Denied,
    Hang,
}

impl Planned {
    fn script(&self, attempt: ScriptedAttempt) -> ScriptedAttempt {
        let tokens = usize::from(self.tokens);
        // A token of no visible character, so that an attempt may be empty.
        let mut attempt = attempt.tokens(["a", " "].into_iter().cycle().skip(1).take(tokens));
        for usage in &self.usages {
            attempt = attempt.usage(*usage);
        }
        if self.finish {
            attempt = attempt.finish(FinishReason::Stop);
        }
        match self.end {
            Ending::End => attempt,
            Ending::Reset => attempt.fail(io::ErrorKind::ConnectionReset),
            Ending::Unavailable => attempt.fail(Failure::status(503)),
            Ending::Denied => attempt.fail(Failure::status(401)),
            Ending::Hang => attempt.hang(),
        }
    }
}

fn usage() -> impl Strategy<Value = Usage> {
    let count = || option::of(prop_oneof![4 => 0_u64..1_000, 1 => Just(u64::MAX)]);
    let counts = (count(), count(), count(), count(), count(), count());
    counts.prop_map(|(input, output, total, cached, written, reasoning)| {
        let mut usage = Usage::new();
        (usage.input, usage.output, usage.total) = (input, output, total);
        (usage.cached_input, usage.cache_write_input) = (cached, written);
        usage.reasoning = reasoning;
        usage
    })
}

fn planned() -> impl Strategy<Value = Planned> {
    let end = prop_oneof![
        Just(Ending::End),
        Just(Ending::Reset),
        Just(Ending::Unavailable),
        Just(Ending::Denied),
        Just(Ending::Hang),
    ];
    (0_u8..5, vec(usage(), 0..3), any::<bool>(), end).prop_map(|(tokens, usages, finish, end)| {
        Planned {
            tokens,
            usages,
            finish,
            end,
        }
    })
}

/// When the consumer stops to read.
fn stops() -> impl Strategy<Value = (Option<u8>, Option<u64>)> {
    (option::of(0_u8..12), option::of(0_u64..4_000))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn sums_over_the_attempts_are_the_totals_of_the_run(
        planned in vec(planned(), 1..5),
        (items, millis) in stops(),
        (delay, total) in (0_u64..1_500, option::of(1_u64..6_000)),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let captured = Captured::new();
            let mut timeouts = Timeouts::new().first_token(SEC).inter_token(SEC);
            if let Some(total) = total {
                timeouts = timeouts.total(MS * u32::try_from(total).expect("small"));
            }
            let l0 = L0::builder()
                .monitoring(Monitoring::new())
                .retry(Retry::new().backoff(Backoff::fixed(Duration::from_millis(delay))))
                .timeouts(timeouts)
                .interceptor(captured.clone())
                .build();
            let script = planned.iter().fold(Script::new(), |script, planned| {
                script.attempt(|attempt| planned.script(attempt))
            });
            let mut run = l0.stream(script.source()).start();
            // Read to the end, so many items, or so long.
            let reading = async {
                let mut items = items;
                while items != Some(0) && run.next().await.is_some() {
                    items = items.map(|items| items - 1);
                }
            };
            let limit = Duration::from_millis(millis.unwrap_or(u64::from(u32::MAX)));
            let _ = tokio::time::timeout(limit, reading).await;
            drop(run);

            // What each attempt was seen to do, apart from what was recorded.
            let mut attempts: Vec<u64> = Vec::new();
            for event in captured.events() {
                match event {
                    OwnedEvent::AttemptStarted { .. } => attempts.push(0),
                    OwnedEvent::Token { .. } => *attempts.last_mut().expect("in an attempt") += 1,
                    _ => {}
                }
            }
            let telemetry = captured.telemetry().expect("measured");
            let metrics = &telemetry.metrics;
            prop_assert_eq!(metrics.attempts as usize, attempts.len());
            prop_assert_eq!(metrics.total_tokens, attempts.iter().sum::<u64>());
            let last = attempts.pop();
            prop_assert_eq!(metrics.wasted_tokens, attempts.iter().sum::<u64>());
            prop_assert_eq!(
                metrics.total_tokens - metrics.wasted_tokens,
                last.unwrap_or_default()
            );

            // Attempts that another one follows were read to their end.
            let told = |index: usize| planned.get(index).or(planned.last())?.usages.last().copied();
            let thrown_away = (0..attempts.len()).filter_map(told);
            let wasted = thrown_away.reduce(Usage::plus);
            prop_assert_eq!(telemetry.wasted_usage, wasted);
            let wholes = [wasted, telemetry.usage].into_iter().flatten();
            prop_assert_eq!(telemetry.billed(), wholes.reduce(Usage::plus));
            if telemetry.outcome != Some(Outcome::Dropped) && last.is_some() {
                prop_assert_eq!(telemetry.usage, told(attempts.len()));
            }
            let billed = telemetry.billed();
            prop_assert_eq!(counted(&telemetry, "usage.input"), billed.and_then(|all| all.input));
            prop_assert_eq!(counted(&telemetry, "usage.output"), billed.and_then(|all| all.output));
            prop_assert_eq!(
                counted(&telemetry, "usage.wasted_input"),
                wasted.and_then(|wasted| wasted.input)
            );
            Ok(())
        })?;
    }
}
