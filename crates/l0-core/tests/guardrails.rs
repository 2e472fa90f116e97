//! What follows from what rules report: a run halts, tries again, or goes on.

mod support;

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use l0_core::guardrail::{Guardrail, Violations};
use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{
    Backoff, Chunk, Error, Guardrails, L0, L0Builder, Monitoring, Outcome, Retry, RetryReason,
    Severity, Violation,
};

/// Reports a violation of its own name whenever a delta holds its trigger, or at the end.
struct Trigger {
    trigger: &'static str,
    severity: Severity,
    recoverable: bool,
    at_end: bool,
    seen: bool,
}

impl Trigger {
    fn new(trigger: &'static str, severity: Severity, recoverable: bool) -> Self {
        Self {
            trigger,
            severity,
            recoverable,
            at_end: false,
            seen: false,
        }
    }

    fn at_end(mut self) -> Self {
        self.at_end = true;
        self
    }

    fn report(&self, violations: &mut Violations) {
        let violation = Violation::new(self.trigger, self.severity, "it was said");
        violations.report(violation.recoverable(self.recoverable));
    }
}

impl Guardrail for Trigger {
    fn name(&self) -> &'static str {
        "trigger"
    }

    fn text(&mut self, delta: &str, violations: &mut Violations) {
        assert!(!delta.is_empty(), "empty deltas are not passed");
        if delta.contains(self.trigger) {
            self.seen = true;
            if !self.at_end {
                self.report(violations);
            }
        }
    }

    fn end(&mut self, violations: &mut Violations) {
        if self.seen {
            self.report(violations);
        }
    }
}

fn l0(captured: &Captured) -> L0Builder {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(captured.clone())
}

fn violations(captured: &Captured) -> usize {
    captured
        .kinds()
        .iter()
        .filter(|kind| **kind == "violation")
        .count()
}

#[tokio::test]
async fn a_fatal_or_unrecoverable_violation_ends_the_run_at_once_and_withholds_the_item() {
    for (severity, recoverable) in [
        (Severity::Fatal, true),
        (Severity::Fatal, false),
        (Severity::Error, false),
    ] {
        let captured = Captured::new();
        let rules = Checks::none().with(move || Trigger::new("bad", severity, recoverable));
        let l0 = l0(&captured).guardrails(rules).build();
        let script = Script::new().attempt(|a| a.tokens(["good", "bad", "good"]));
        let mut run = l0.stream(script.source()).start();

        let mut items = Vec::new();
        let error = loop {
            match run.next().await.expect("an error comes") {
                Ok(Chunk::Item(item)) => items.push(item.text),
                Ok(_) => panic!("no retry"),
                Err(error) => break error,
            }
        };
        assert_eq!(items, ["good"], "{severity}");
        assert!(matches!(error, Error::Guardrail(violation) if violation.rule == "bad"));
        assert_eq!(run.outcome(), Some(Outcome::Failed));
        assert_eq!(
            (script.calls(), script.dropped()),
            (1, 1),
            "not retried, and let go"
        );
        let stats = run.telemetry().unwrap().guardrails.unwrap();
        assert_eq!(stats.violation_count, 1);
        assert_eq!(stats.violations_by_severity.get(severity), 1);
        assert_eq!(captured.kinds().last(), Some(&"finished"));
    }
}

#[tokio::test]
async fn a_recoverable_error_is_a_model_retry_when_the_attempt_ends() {
    for at_end in [false, true] {
        let captured = Captured::new();
        let rules = Checks::none().with(move || {
            let rule = Trigger::new("bad", Severity::Error, true);
            if at_end { rule.at_end() } else { rule }
        });
        let l0 = l0(&captured).guardrails(rules).build();
        let script = Script::new()
            .attempt(|a| a.tokens(["bad", " and more"]))
            .attempt(|a| a.tokens(["good"]));
        let mut run = l0.stream(script.source()).start();

        assert_eq!(run.text().await.unwrap(), "good");
        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.metrics.model_retries, 1);
        assert_eq!(telemetry.metrics.total_retries, 1);
        assert_eq!(telemetry.metrics.wasted_tokens, 2);
        assert_eq!(telemetry.network.error_count, 0);
        assert_eq!(telemetry.guardrails.unwrap().violation_count, 1);
        let reason = captured.events().into_iter().find_map(|event| match event {
            OwnedEvent::Retry {
                reason, network, ..
            } => Some((reason, network)),
            _ => None,
        });
        assert_eq!(reason, Some((RetryReason::GuardrailViolation, false)));
    }
}

#[tokio::test]
async fn exhausted_retries_complete_with_the_violations_visible() {
    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("bad", Severity::Error, true));
    let l0 = l0(&captured).guardrails(rules).build();
    let script = Script::new().attempt(|a| a.tokens(["bad"]));
    let mut run = l0.stream(script.source()).start();

    assert_eq!(run.text().await.unwrap(), "bad");
    assert_eq!(run.outcome(), Some(Outcome::Completed));
    let telemetry = run.telemetry().unwrap();
    assert_eq!(
        (telemetry.metrics.attempts, telemetry.metrics.model_retries),
        (3, 2)
    );
    let stats = telemetry.guardrails.unwrap();
    assert_eq!(stats.violation_count, 3, "once per attempt");
    assert_eq!(stats.violations_by_rule["bad"], 3);
    assert_eq!(violations(&captured), 3);
}

#[tokio::test]
async fn a_warning_changes_nothing_and_a_clean_answer_says_so() {
    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("odd", Severity::Warning, true));
    let l0 = l0(&captured).guardrails(rules).build();
    for (text, count) in [("odd", 1), ("good", 0)] {
        let script = Script::new().attempt(|a| a.tokens([text]));
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.unwrap(), text);
        assert_eq!(run.outcome(), Some(Outcome::Completed));
        let stats = run.telemetry().unwrap().guardrails.unwrap();
        assert_eq!(stats.violation_count, count);
    }
    let unguarded = L0::builder().monitoring(Monitoring::new()).build();
    let script = Script::new().attempt(|a| a.tokens(["odd"]));
    let mut run = unguarded.stream(script.source()).start();
    run.text().await.unwrap();
    assert_eq!(
        run.telemetry().unwrap().guardrails,
        None,
        "nothing was checked"
    );
}

#[tokio::test]
async fn a_distinct_violation_counts_once_per_attempt_however_often_it_is_reported() {
    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("odd", Severity::Warning, true));
    let l0 = l0(&captured).guardrails(rules).build();
    let script = Script::new().attempt(|a| a.tokens(["odd"; 50]));
    l0.stream(script.source()).start().text().await.unwrap();
    assert_eq!(violations(&captured), 1);
}

#[tokio::test]
async fn rules_see_text_only_and_are_made_afresh_for_each_attempt() {
    let made = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&made);
    let captured = Captured::new();
    let rules = Checks::none().with(move || {
        counter.fetch_add(1, Ordering::Relaxed);
        Trigger::new("bad", Severity::Fatal, false)
    });
    let l0 = l0(&captured).guardrails(rules).build();
    let script = Script::new()
        .attempt(|a| {
            a.reasoning("bad")
                .tool_call("bad")
                .token("")
                .token("x")
                .fail(ErrorKind::TimedOut)
        })
        .attempt(|a| a.tokens(["good"]));
    let mut run = l0.stream(script.source()).start();
    assert_eq!(
        made.load(Ordering::Relaxed),
        0,
        "not before the first attempt"
    );
    assert_eq!(run.text().await.unwrap(), "good");
    assert_eq!(made.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_rule_that_panics_becomes_a_warning_under_its_name_and_the_others_go_on() {
    struct Panics;

    impl Guardrail for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }

        fn text(&mut self, _: &str, _: &mut Violations) {
            panic!("a rule panics");
        }

        fn end(&mut self, _: &mut Violations) {
            panic!("a rule panics at the end");
        }
    }

    let captured = Captured::new();
    let rules = Guardrails::none()
        .with(|| Trigger::new("first", Severity::Warning, true))
        .with(|| Panics)
        .with(|| Trigger::new("last", Severity::Warning, true));
    let l0 = l0(&captured).guardrails(rules).build();
    let script = Script::new().attempt(|a| a.tokens(["first last", "first last"]));
    let mut run = l0.stream(script.source()).start();
    run.text().await.unwrap();
    let stats = run.telemetry().unwrap().guardrails.unwrap();
    let by_rule: Vec<_> = stats.violations_by_rule.into_iter().collect();
    assert_eq!(
        by_rule,
        [("first", 1), ("last", 1), ("panics", 1)].map(|(k, v)| (k.to_owned(), v))
    );
    assert_eq!(stats.violations_by_severity.warning, 3);
}

#[tokio::test]
async fn a_watched_stream_only_records() {
    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("bad", Severity::Fatal, false));
    let l0 = l0(&captured).guardrails(rules).build();
    let script = Script::new().attempt(|a| a.tokens(["good", "bad", "good"]));
    let mut watched = l0.watch(script.stream()).start();
    let items: Vec<_> = watched
        .by_ref()
        .map(|item| item.unwrap().text)
        .collect()
        .await;
    assert_eq!(items, ["good", "bad", "good"]);
    assert_eq!(watched.outcome(), Some(Outcome::Completed));
    assert_eq!(
        watched
            .telemetry()
            .unwrap()
            .guardrails
            .unwrap()
            .violations_by_severity
            .fatal,
        1
    );
}

#[tokio::test]
async fn zero_output_is_a_violation_if_the_rules_say_so_and_else_only_an_error() {
    for (rules, count) in [
        (Guardrails::none().with_zero_output(), Some(3)),
        (Guardrails::none(), None),
    ] {
        let captured = Captured::new();
        let l0 = l0(&captured).guardrails(rules).build();
        let script = Script::new().attempt(|a| a.tokens(["...", " "]));
        let mut run = l0.stream(script.source()).start();
        assert!(matches!(run.text().await, Err(Error::ZeroOutput)));
        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.metrics.model_retries, 2);
        let by_rule = telemetry
            .guardrails
            .map(|stats| stats.violations_by_rule["zero-output"]);
        assert_eq!(by_rule, count);
    }
}

#[tokio::test]
async fn a_thousand_interleaved_runs_of_one_l0_never_mix_state() {
    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("bad", Severity::Warning, true));
    let l0 = l0(&captured).guardrails(rules).build();
    let mut runs: Vec<_> = (0..1_000)
        .map(|number| {
            let texts = if number % 3 == 0 {
                ["one", "bad", "two"]
            } else {
                ["one", "two", "three"]
            };
            let script = Script::new().attempt(|a| a.tokens(texts));
            (number, l0.stream(script.source()).start())
        })
        .collect();
    let mut live = true;
    while live {
        live = false;
        for (_, run) in &mut runs {
            live |= run.next().await.is_some();
        }
    }
    for (number, run) in runs {
        let count = run.telemetry().unwrap().guardrails.unwrap().violation_count;
        assert_eq!(count, u64::from(number % 3 == 0), "run {number}");
    }
}

#[tokio::test]
async fn runs_that_take_turns_with_all_rules_and_drift_find_what_they_find_alone() {
    use l0_core::{Drift, Telemetry};

    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .guardrails(Guardrails::strict())
        .drift(Drift::new())
        .build();
    let answers = [
        "{\"a\": [1, 2, {\"b\": null}]}",
        "{\"a\": [1, 2,, {\"b\": null]}",
        "```rust\nfn main() {}\n```\nDone.",
        "```rust\nfn main() {}\n",
        "\\begin{align} x \\end{equation} and $y",
        "Sure!\nAs an AI language model, I have [insert opinion here].",
        "- one\n1. two\n\nA plain end.",
        "Here is the answer: 42.",
    ];
    let found = |telemetry: Telemetry| (telemetry.guardrails, telemetry.drift);
    let run = |answer: &str| {
        let letters: Vec<String> = answer.chars().map(String::from).collect();
        l0.stream(Script::new().attempt(|a| a.tokens(letters)).source())
            .start()
    };
    let mut alone = Vec::new();
    for answer in answers {
        let mut run = run(answer);
        let _ = run.text().await;
        alone.push(found(run.telemetry().unwrap()));
    }
    assert!(
        alone
            .iter()
            .any(|found| found.1.as_ref().is_some_and(|drift| drift.detected))
    );

    let mut runs: Vec<_> = (0..1_000)
        .map(|number| run(answers[number % answers.len()]))
        .collect();
    let mut live = true;
    while live {
        live = false;
        for run in &mut runs {
            live |= run.next().await.is_some();
        }
    }
    for (number, run) in runs.iter().enumerate() {
        assert_eq!(
            found(run.telemetry().unwrap()),
            alone[number % answers.len()],
            "run {number}"
        );
    }
}

#[tokio::test]
async fn zero_output_is_text_without_a_letter_or_digit_of_any_script_in_any_split() {
    let empty = [
        "",
        " ",
        "\n",
        "\t\r\n",
        ".",
        "...",
        "!?",
        "---",
        "***",
        "```\n```",
        "{}",
        "[]",
        "\"\"",
        "()",
        "_",
        "…",
        "。",
        "！？",
        "«»",
        "👍",
        "🎉 🎉",
        "\u{200b}",
        "| | |\n|---|",
        "$$",
    ];
    let meaningful = [
        "ok",
        "a",
        "0",
        "42",
        "日本語",
        "はい",
        "да",
        "ναι",
        "نعم",
        "ไม่",
        "é",
        "ß",
        "½",
        "x.",
        "...a",
        "{\"a\":1}",
        "- b",
        "**c**",
        "1.",
        "Ⅳ",
        "가",
        "👍 ok",
        "\u{200b}a",
        "ñ!",
    ];
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .guardrails(Guardrails::none().with_zero_output())
        .build();
    let table = empty
        .map(|text| (text, true))
        .into_iter()
        .chain(meaningful.map(|text| (text, false)));
    for (text, is_empty) in table {
        let mut rng = fastrand::Rng::with_seed(7);
        let whole = vec![text];
        let letters: Vec<&str> = text.split("").collect();
        let splits = (0..50).map(|_| support::split(text, &mut rng));
        for pieces in [whole, letters].into_iter().chain(splits) {
            let script = Script::new().attempt(|a| a.tokens(pieces));
            let mut run = l0.stream(script.source()).start();
            assert_eq!(
                matches!(run.text().await, Err(Error::ZeroOutput)),
                is_empty,
                "{text:?}"
            );
            let by_rule = run
                .telemetry()
                .unwrap()
                .guardrails
                .unwrap()
                .violations_by_rule;
            assert_eq!(
                by_rule.get("zero-output"),
                is_empty.then_some(&1),
                "{text:?}"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_total_timeout_in_the_back_off_after_a_faulty_answer_is_a_timeout() {
    use std::time::Duration;

    use l0_core::{FinishReason, Timeouts};

    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("bad", Severity::Error, true));
    let l0 = l0(&captured)
        .guardrails(rules)
        .retry(Retry::new().backoff(Backoff::fixed(Duration::from_secs(10))))
        .timeouts(Timeouts::new().total(Duration::from_secs(5)))
        .build();
    let script = Script::new().attempt(|a| a.token("bad").finish(FinishReason::Stop));
    let mut run = l0.stream(script.source()).start();
    assert!(matches!(run.text().await, Err(Error::Timeout(_))));
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.outcome, Some(Outcome::TimedOut));
    assert_eq!(telemetry.duration, Some(Duration::from_secs(5)));
    assert_eq!(telemetry.metrics.model_retries, 1);
    assert_eq!(telemetry.guardrails.unwrap().violation_count, 1);
}
