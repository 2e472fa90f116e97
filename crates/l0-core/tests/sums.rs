//! Sums: the attempts of a run add up to its totals of tokens, usage and money, however it ends.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt};
use l0_core::{
    AttemptStats, Backoff, Check, Cost, CostSource, Currency, Distribution, DriftReport, Failure,
    Findings, FinishReason, L0, Money, Monitoring, NetworkErrorKind, Outcome, Price, Priced,
    Quantity, QuantityKind, Retry, RetryKind, Severity, Source, Telemetry, Timeouts, TokenPrices,
    Unfinished, Usage, Value, Violation, source,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::test_runner::{TestCaseError, TestRunner};

const MS: Duration = Duration::from_millis(1);

/// Returns the value of a usage quantity as counters receive it, or `None` if unknown.
fn counted(telemetry: &Telemetry, name: &str) -> Option<u64> {
    let quantity = Quantity::ALL.iter().find(|quantity| quantity.name == name);
    match quantity.expect("a quantity").value(telemetry)? {
        Value::Count(count) => Some(count),
        other => panic!("{name} is {other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_attempt_alone_has_the_numbers_of_a_run_with_it_alone() {
    let usage = |output| Usage::new().input(7).output(output).total(7 + output);
    let script = Script::new()
        .attempt(|a| {
            let cut = a.tokens(["Hel"]).usage(usage(1)).wait(MS);
            cut.fail(Failure::status(503))
        })
        .attempt(|a| {
            let answer = a.wait(3 * MS).token("Hello").wait(2 * MS).token("!");
            answer.usage(usage(2)).finish(FinishReason::Stop)
        });
    let builder = L0::builder().monitoring(Monitoring::new());
    let retry = Retry::new().backoff(Backoff::fixed(MS));
    let l0 = builder.retry(retry).build();
    let mut both = l0.stream(script.source()).start();
    both.text().await.unwrap();
    let both = both.telemetry().unwrap();
    // The script's last attempt answers all further calls.
    let mut one = l0.stream(script.source()).start();
    one.text().await.unwrap();
    let one = one.telemetry().unwrap();

    assert_eq!((both.attempts.len(), one.attempts.len()), (2, 1));
    let alone = both.attempts[1].to_telemetry();
    for quantity in Quantity::ALL {
        // Only runs measure these.
        let of_runs = [
            "time_to_first_text",
            "tokens.per_second",
            "consumer_hold",
            "wait",
        ];
        if !of_runs.contains(&quantity.name) {
            let (value, run) = (quantity.value(&alone), quantity.value(&one));
            assert_eq!(
                format!("{value:?}"),
                format!("{run:?}"),
                "{}",
                quantity.name
            );
        }
    }
    assert_eq!(alone.outcome, Some(Outcome::Completed));
    assert_eq!(alone.finish_reason, Some(FinishReason::Stop));
    let failed = both.attempts[0].to_telemetry();
    assert_eq!(failed.error, both.attempts[0].error);
    assert_eq!((failed.usage, failed.wasted_usage), (Some(usage(1)), None));
}

#[tokio::test(start_paused = true)]
async fn a_discarded_answer_was_billed() {
    let usage = Usage::new().input(1_000).output(500).total(1_500);
    // No visible text is the model's fault, which is retried twice.
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

/// The script of one attempt.
#[derive(Debug, Clone)]
struct Planned {
    /// The tokens it yields.
    texts: Vec<(u64, &'static str)>,
    /// The usage that its source reports afterwards. The last one counts.
    usages: Vec<Usage>,
    /// The costs that its source reports, in millionths.
    cost: Option<u64>,
    finish: bool,
    end: Ending,
}

#[derive(Debug, Clone, Copy)]
enum Ending {
    End,
    Reset,
    Unavailable,
    RateLimited,
    Denied,
    Unconnected,
    Hang,
}

impl Planned {
    fn script(&self, attempt: ScriptedAttempt) -> ScriptedAttempt {
        let mut attempt = attempt;
        for (wait, text) in &self.texts {
            attempt = attempt.wait(Duration::from_millis(*wait)).token(*text);
        }
        for usage in &self.usages {
            attempt = attempt.usage(*usage);
        }
        if let Some(cost) = self.reported_cost() {
            attempt = attempt.cost(cost);
        }
        if self.finish {
            attempt = attempt.finish(FinishReason::Stop);
        }
        match self.end {
            Ending::End => attempt,
            Ending::Reset => attempt.fail(io::ErrorKind::ConnectionReset),
            Ending::Unavailable => attempt.fail(Failure::status(503)),
            Ending::RateLimited => attempt.fail(Failure::status(429)),
            Ending::Denied => attempt.fail(Failure::status(401)),
            Ending::Unconnected => attempt.connect_error(io::ErrorKind::ConnectionRefused),
            Ending::Hang => attempt.hang(),
        }
    }

    fn reported_cost(&self) -> Option<Cost> {
        let amount = Money::micros(self.cost?);
        Some(Cost::new(amount, Currency::USD, CostSource::Provider))
    }

    /// The usage reported if the attempt is read to its end.
    fn usage(&self) -> Option<Usage> {
        let connects = !matches!(self.end, Ending::Unconnected);
        self.usages.last().copied().filter(|_| connects)
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
        3 => Just(Ending::End),
        1 => Just(Ending::Reset),
        1 => Just(Ending::Unavailable),
        1 => Just(Ending::RateLimited),
        1 => Just(Ending::Denied),
        1 => Just(Ending::Unconnected),
        1 => Just(Ending::Hang),
    ];
    // A token without a visible character, so an attempt can be empty, and the words that checks find.
    let text = prop_oneof![
        4 => Just("a"),
        4 => Just(" "),
        1 => Just("warning"),
        1 => Just("error"),
        1 => Just("drift"),
        1 => Just("tone"),
    ];
    let texts = vec((0_u64..40, text), 0..5);
    let reported = (vec(usage(), 0..3), option::weighted(0.2, 0_u64..1_000));
    (texts, reported, any::<bool>(), end).prop_map(|(texts, (usages, cost), finish, end)| Planned {
        texts,
        usages,
        cost,
        finish,
        end,
    })
}

/// The prices of models, each of a different form. One model has no known price.
fn price(model: &Priced<'_>) -> Option<Arc<Price>> {
    let tokens = TokenPrices::per_million(Money::cents(30), Money::units(1));
    let price = match model.model? {
        "model-1" => Price::new(Currency::USD, tokens.reasoning(Money::units(3))),
        "model-2" => Price::new(Currency::EUR, tokens.cached_input(Money::cents(1))),
        "model-3" => Price::new(Currency::USD, tokens).request(Money::cents(1)),
        _ => return None,
    };
    Some(Arc::new(price))
}

/// Estimates three tokens per character.
#[allow(clippy::unnecessary_wraps, reason = "signature of an estimate")]
fn estimate(attempt: &Unfinished<'_>) -> Option<Usage> {
    Some(Usage::new().input(100).output(3 * attempt.characters))
}

type OfAttempt = fn(&AttemptStats) -> Option<Cost>;

/// The costs of attempts, per currency.
fn costs(attempts: &[AttemptStats], of: OfAttempt) -> BTreeMap<Currency, Money> {
    let mut costs = BTreeMap::new();
    for cost in attempts.iter().filter_map(of) {
        *costs.entry(cost.currency).or_default() += cost.amount;
    }
    costs
}

/// A check that finds words.
struct Words;

impl Check for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings) {
        match delta {
            "warning" => findings.report(Violation::new("soft", Severity::Warning, delta)),
            "error" => findings.report(Violation::new("hard", Severity::Error, delta)),
            _ => {}
        }
    }
}

impl Check<DriftReport> for Words {
    fn name(&self) -> &'static str {
        "words"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<DriftReport>) {
        match delta {
            "drift" => findings.report(DriftReport::new(["drift"], 0.9).retry(true)),
            "tone" => findings.report(DriftReport::new(["tone"], 0.9)),
            _ => {}
        }
    }
}

/// A run with several sources, and how its consumer reads it.
#[derive(Debug, Clone)]
struct Plan {
    sources: Vec<Vec<Planned>>,
    max_retries: u32,
    model_retries: u32,
    back_off: u64,
    total: Option<u64>,
    /// The number of items read.
    items: Option<u8>,
    /// The time spent reading, in milliseconds.
    millis: Option<u64>,
}

fn plan() -> impl Strategy<Value = Plan> {
    let retries = (
        prop_oneof![6 => 0_u32..5, 1 => Just(30)],
        0_u32..4,
        0_u64..150,
    );
    let consumer = (
        option::weighted(0.3, 0_u8..24),
        option::weighted(0.3, 0_u64..800),
    );
    (
        vec(vec(planned(), 1..5), 1..5),
        retries,
        option::weighted(0.3, 1_u64..1_500),
        consumer,
    )
        .prop_map(
            |(sources, (max_retries, model_retries, back_off), total, (items, millis))| Plan {
                sources,
                max_retries,
                model_retries,
                back_off,
                total,
                items,
                millis,
            },
        )
}

/// The data of one attempt, collected from events.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    source: u32,
    tokens: u64,
    gaps: (u64, Duration),
    errors: BTreeMap<NetworkErrorKind, u64>,
    retries: (u32, u32),
    fallbacks: u32,
    violations: BTreeMap<String, u64>,
    drift: Vec<String>,
}

impl Seen {
    fn add(&mut self, other: &Self) {
        self.tokens += other.tokens;
        self.gaps.0 += other.gaps.0;
        self.gaps.1 += other.gaps.1;
        for (kind, count) in &other.errors {
            *self.errors.entry(*kind).or_default() += count;
        }
        self.retries.0 += other.retries.0;
        self.retries.1 += other.retries.1;
        self.fallbacks += other.fallbacks;
        for (rule, count) in &other.violations {
            *self.violations.entry(rule.clone()).or_default() += count;
        }
        for kind in &other.drift {
            if !self.drift.contains(kind) {
                self.drift.push(kind.clone());
            }
        }
    }
}

fn gaps(of: Option<&Distribution>) -> (u64, Duration) {
    of.map_or((0, Duration::ZERO), |gaps| (gaps.count(), gaps.sum()))
}

/// The measurements of an attempt. It has gaps unless it is the only attempt.
fn recorded(attempt: &AttemptStats) -> Seen {
    let drift = attempt.drift.iter().flat_map(|drift| &drift.types);
    let guardrails = attempt.guardrails.clone().unwrap_or_default();
    Seen {
        source: attempt.source,
        tokens: attempt.tokens,
        gaps: gaps(attempt.inter_token.as_ref()),
        errors: attempt.network_errors.clone(),
        retries: (attempt.network_retries, attempt.model_retries),
        fallbacks: attempt.fallbacks,
        violations: guardrails.violations_by_rule,
        drift: drift.map(ToString::to_string).collect(),
    }
}

/// Returns the totals of a run, or of a part of it.
fn totals(telemetry: &Telemetry) -> Seen {
    let metrics = &telemetry.metrics;
    let drift = telemetry.drift.iter().flat_map(|drift| &drift.types);
    let guardrails = telemetry.guardrails.clone().unwrap_or_default();
    Seen {
        source: 0,
        tokens: metrics.total_tokens,
        gaps: gaps(metrics.inter_token.as_ref()),
        errors: telemetry.network.errors_by_type.clone(),
        retries: (metrics.network_retries, metrics.model_retries),
        fallbacks: telemetry.fallbacks(),
        violations: guardrails.violations_by_rule,
        drift: drift.map(ToString::to_string).collect(),
    }
}

/// Returns every sum of a run, by the name of the quantity and the value of its label. `None` if
/// unknown.
fn sums(telemetry: &Telemetry) -> BTreeMap<(&'static str, String), Option<u128>> {
    let mut sums = BTreeMap::new();
    for quantity in Quantity::ALL {
        if quantity.kind != QuantityKind::Sum {
            continue;
        }
        if quantity.is_labeled() {
            quantity.each(telemetry, &mut |labels, value| {
                let count = match value {
                    Value::Count(count) => count.into(),
                    Value::Amount(money) => money.as_steps(),
                    other => panic!("{} is {other:?}", quantity.name),
                };
                let sum = sums.entry((quantity.name, labels.join(" ")));
                let sum = sum.or_insert(Some(0)).get_or_insert_default();
                *sum += count;
            });
        } else {
            let value = quantity.value(telemetry).map(|value| match value {
                Value::Count(count) => count.into(),
                Value::Duration(duration) => duration.as_nanos(),
                other => panic!("{} is {other:?}", quantity.name),
            });
            sums.insert((quantity.name, String::new()), value);
        }
    }
    sums
}

/// Returns the number of cases: `L0_SUMS_CASES`, or a default that keeps the test fast.
fn cases() -> u32 {
    let cases = std::env::var("L0_SUMS_CASES").ok();
    cases.map_or(2_000, |cases| cases.parse().expect("a number of cases"))
}

#[test]
fn sums_over_attempts_and_over_sources_are_the_totals_of_the_run() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    let config = ProptestConfig {
        failure_persistence: None,
        cases: cases(),
        ..ProptestConfig::default()
    };
    let seen = Cell::new([0_u32; 4]);
    let tested =
        TestRunner::new(config).run(&plan(), |plan| runtime.block_on(adds_up(plan, &seen)));
    tested.unwrap_or_else(|failed| panic!("{failed}"));
    // The cases cover every kind.
    let of_each_kind = seen.get();
    assert!(
        of_each_kind.iter().all(|count| *count > cases() / 1_000),
        "{of_each_kind:?}"
    );
}

/// Counts, in `of_each_kind`, the runs that fell back, retried because of the model's answer, were
/// folded, or completed.
async fn adds_up(plan: Plan, of_each_kind: &Cell<[u32; 4]>) -> Result<(), TestCaseError> {
    let captured = Captured::new();
    let mut timeouts = Timeouts::new().first_token(60 * MS).inter_token(60 * MS);
    if let Some(total) = plan.total {
        timeouts = timeouts.total(Duration::from_millis(total));
    }
    let retry = Retry::new()
        .max_retries(plan.max_retries)
        .model_retries(plan.model_retries);
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(retry.backoff(Backoff::fixed(Duration::from_millis(plan.back_off))))
        .timeouts(timeouts)
        .guardrails(|| Words)
        .drift(|| Words)
        .pricing(price)
        .estimate_usage(estimate)
        .interceptor(captured.clone())
        .build();
    let scripts = plan.sources.iter().map(|attempts| {
        let attempts = attempts.iter();
        attempts.fold(Script::new(), |script, planned| {
            script.attempt(|attempt| planned.script(attempt))
        })
    });
    let mut scripts = scripts.collect::<Vec<_>>().into_iter();
    let first = scripts.next().expect("one").source();
    let mut builder = l0.stream(first).metadata("model", "model-1");
    for (script, number) in scripts.zip(2..) {
        let model = format!("model-{number}");
        builder = builder.fallback(source(script.source()).metadata("model", model));
    }
    let mut run = builder.start();
    // Read to the end, up to a number of items, or for a time.
    let reading = async {
        let mut items = plan.items;
        while items != Some(0) && run.next().await.is_some() {
            items = items.map(|items| items - 1);
        }
    };
    let limit = Duration::from_millis(plan.millis.unwrap_or(u64::from(u32::MAX)));
    let _ = tokio::time::timeout(limit, reading).await;
    drop(run);

    // Collect the facts of each attempt from events, independently of telemetry.
    let mut seen: Vec<Seen> = Vec::new();
    let mut finished: Vec<AttemptStats> = Vec::new();
    for event in captured.events() {
        let name = event.name();
        match event {
            OwnedEvent::AttemptStarted { number, source, .. } => {
                prop_assert_eq!(finished.len(), seen.len(), "the previous attempt has ended");
                seen.push(Seen {
                    source,
                    ..Seen::default()
                });
                prop_assert_eq!(number as usize, seen.len());
            }
            OwnedEvent::AttemptFinished { attempt, .. } => {
                finished.push(*attempt);
                prop_assert_eq!(finished.len(), seen.len(), "one for each attempt");
            }
            OwnedEvent::Started { .. } | OwnedEvent::Finished { .. } => {}
            event => {
                let is_over = finished.len() == seen.len();
                prop_assert_eq!(is_over, ["retry", "fallback"].contains(&name), "{}", name);
                let attempt = seen.last_mut().expect("an attempt");
                match event {
                    OwnedEvent::Token { gap, .. } => {
                        attempt.tokens += 1;
                        if let Some(gap) = gap {
                            attempt.gaps.0 += 1;
                            attempt.gaps.1 += gap;
                        }
                    }
                    OwnedEvent::NetworkError { kind, .. } => {
                        *attempt.errors.entry(kind).or_default() += 1;
                    }
                    OwnedEvent::Retry {
                        kind: RetryKind::Network,
                        ..
                    } => attempt.retries.0 += 1,
                    OwnedEvent::Retry {
                        kind: RetryKind::Model,
                        ..
                    } => attempt.retries.1 += 1,
                    OwnedEvent::Fallback { .. } => attempt.fallbacks += 1,
                    OwnedEvent::Violation { violation, .. } => {
                        *attempt
                            .violations
                            .entry(violation.rule.to_string())
                            .or_default() += 1;
                    }
                    OwnedEvent::Drift { report, .. } => {
                        attempt
                            .drift
                            .extend(report.types.iter().map(ToString::to_string));
                    }
                    _ => {}
                }
            }
        }
    }
    let telemetry = captured.telemetry().expect("measured");
    let mut counts = of_each_kind.get();
    counts[0] += u32::from(telemetry.fallbacks() > 0);
    counts[1] += u32::from(telemetry.metrics.model_retries > 0);
    counts[2] += u32::from(seen.len() > AttemptStats::MAX);
    counts[3] += u32::from(telemetry.outcome == Some(Outcome::Completed));
    of_each_kind.set(counts);

    // Each attempt was reported as observed, and telemetry contains the same.
    let is_folded = seen.len() > AttemptStats::MAX;
    if !is_folded {
        prop_assert_eq!(&finished, &telemetry.attempts);
    }
    if let [only] = &mut *finished {
        // Its gaps are those of the run.
        only.inter_token = telemetry.metrics.inter_token.clone();
    }
    for (recorded, seen) in finished.iter().map(recorded).zip(&seen) {
        prop_assert_eq!(&recorded, seen);
    }
    prop_assert_eq!(finished.len(), seen.len());
    prop_assert_eq!(telemetry.attempts.len(), seen.len().min(AttemptStats::MAX));
    prop_assert_eq!(telemetry.metrics.attempts as usize, seen.len());

    // The totals are the sums of the observations and of the entries.
    let mut all = Seen::default();
    seen.iter().for_each(|attempt| all.add(attempt));
    prop_assert_eq!(&totals(&telemetry), &all);
    if telemetry.attempts.len() > 1 {
        let mut entries = Seen::default();
        let entry_stats = telemetry.attempts.iter().map(recorded);
        entry_stats.for_each(|attempt| entries.add(&attempt));
        prop_assert_eq!(&entries, &all);
    }
    let of_last = seen.last().map_or(0, |last| last.tokens);
    prop_assert_eq!(telemetry.metrics.wasted_tokens, all.tokens - of_last);
    let retries = all.retries.0 + all.retries.1;
    prop_assert_eq!(telemetry.metrics.total_retries, retries);

    // Attempts followed by another one were read to their end.
    let mut calls = [0; 4];
    for (attempt, number) in finished.iter().zip(1..) {
        let index = attempt.source as usize - 1;
        let planned = &plan.sources[index];
        let planned = planned.get(calls[index]).or(planned.last()).expect("one");
        calls[index] += 1;
        let reported = attempt
            .cost
            .filter(|cost| cost.source == CostSource::Provider);
        let model = attempt.model.as_deref().expect("named");
        let price = price(&Priced::model(model));
        let (priced, unpriced) = match (&price, attempt.usage) {
            (Some(price), Some(usage)) => (price.cost(&usage), 0),
            (price, usage) => (None, u32::from(price.is_none() && usage.is_some())),
        };
        prop_assert_eq!(attempt.cost, reported.or(priced));
        let is_early = attempt.outcome != Some(Outcome::Completed) && attempt.tokens > 0;
        let is_early = is_early && attempt.finish_reason.is_none();
        prop_assert!(is_early || attempt.estimated_usage.is_none());
        prop_assert!(!is_early || attempt.usage.is_some() || attempt.estimated_usage.is_some());
        prop_assert_eq!(
            attempt.unpriced,
            if reported.is_some() { 0 } else { unpriced }
        );
        if number < finished.len() {
            prop_assert_eq!(attempt.usage, planned.usage());
            let connects = !matches!(planned.end, Ending::Unconnected);
            prop_assert_eq!(reported, planned.reported_cost().filter(|_| connects));
        } else if let Some(usage) = attempt.usage {
            prop_assert!(planned.usages.contains(&usage));
        }
    }
    let sum = |attempts: &[AttemptStats]| {
        let usages = attempts.iter().filter_map(|attempt| attempt.usage);
        usages.reduce(Usage::plus)
    };
    let (last, before) = finished
        .split_last()
        .map_or((None, &[][..]), |(last, before)| (Some(last), before));
    prop_assert_eq!(telemetry.usage, last.and_then(|last| last.usage));
    prop_assert_eq!(telemetry.wasted_usage, sum(before));
    prop_assert_eq!(telemetry.billed(), sum(&finished));
    prop_assert_eq!(sum(&telemetry.attempts), sum(&finished));
    prop_assert_eq!(telemetry.cost, last.and_then(|last| last.cost));
    let cost = |cost: Cost| (cost.currency, cost.amount);
    let (reported, estimated): (OfAttempt, OfAttempt) = (|one| one.cost, |one| one.estimated_cost);
    for (sum, attempts, of) in [
        (telemetry.wasted_cost, before, reported),
        (telemetry.total_cost(), &finished, reported),
        (telemetry.total_cost(), &telemetry.attempts, reported),
        (telemetry.estimated_cost, &finished, estimated),
    ] {
        let costs = costs(attempts, of);
        let one = (costs.len() == 1)
            .then(|| costs.into_iter().next())
            .flatten();
        prop_assert_eq!(sum.map(cost), one);
    }
    for of in [reported, estimated] {
        prop_assert_eq!(costs(&telemetry.attempts, of), costs(&finished, of));
    }
    for attempts in [&finished, &telemetry.attempts] {
        let estimated = attempts
            .iter()
            .filter_map(|attempt| attempt.estimated_usage);
        prop_assert_eq!(telemetry.estimated_usage, estimated.reduce(Usage::plus));
    }
    let unpriced = finished.iter().map(|attempt| attempt.unpriced);
    prop_assert_eq!(telemetry.unpriced(), unpriced.sum::<u32>());
    let billed = telemetry.billed();
    for (name, count) in [
        ("usage.input", billed.and_then(|usage| usage.input)),
        ("usage.output", billed.and_then(|usage| usage.output)),
        (
            "usage.wasted_input",
            sum(before).and_then(|usage| usage.input),
        ),
    ] {
        prop_assert_eq!(counted(&telemetry, name), count, "{}", name);
    }

    // The sums over the sources are the totals of the run too.
    let mut parts: BTreeMap<_, Option<u128>> = BTreeMap::new();
    let (mut last, mut usages) = (Vec::new(), Vec::new());
    telemetry.by_source(&mut |part| {
        last.push(part.is_last);
        usages.extend(part.telemetry.billed());
        for (name, sum) in sums(part.telemetry) {
            let all = parts.entry(name).or_default();
            *all = all.map_or(sum, |all| Some(all + sum.unwrap_or(0)));
        }
    });
    prop_assert_eq!(last.iter().filter(|last| **last).count(), 1);
    prop_assert_eq!(last.last(), Some(&true));
    prop_assert_eq!(usages.into_iter().reduce(Usage::plus), telemetry.billed());
    for (name, sum) in &mut parts {
        *sum = match name.0 {
            // A run with drift counts once, however many of its sources drifted. The same applies to a
            // run without a price.
            "drift.detected" | "unpriced_runs" => sum.map(|sum| sum.min(1)),
            "cost" | "estimated_cost" => *sum,
            _ => sum.map(|sum| sum.min(u64::MAX.into())),
        };
    }
    prop_assert_eq!(parts, sums(&telemetry));

    let json = serde_json::to_string(&telemetry).expect("JSON");
    prop_assert_eq!(
        serde_json::from_str::<Telemetry>(&json).expect("JSON"),
        telemetry
    );
    Ok(())
}
