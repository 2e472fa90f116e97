//! The effects of findings: a run halts, retries, or continues.

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedAttempt, ScriptedToken};
use l0_core::{
    Backoff, Cause, Check, Checks, Chunk, DriftReport, DriftStats, Effect, End, Ended, Error,
    Finding, Findings, L0, L0Builder, Monitoring, Outcome, Retry, RetryKind, RetryReason, Severity,
    Telemetry, TokenKind, Violation,
};

/// Splits a text at random character boundaries, without empty pieces.
fn split<'a>(text: &'a str, rng: &mut fastrand::Rng) -> Vec<&'a str> {
    let mut borders: Vec<usize> = text.char_indices().map(|(at, _)| at).collect();
    borders.retain(|_| rng.u8(..4) == 0);
    borders.push(text.len());
    let mut start = 0;
    borders
        .into_iter()
        .map(|end| &text[std::mem::replace(&mut start, end)..end])
        .filter(|piece| !piece.is_empty())
        .collect()
}

/// Reports a violation named after its trigger when a delta contains the trigger, or at the end.
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

    fn report(&self, violations: &mut Findings) {
        let violation = Violation::new(self.trigger, self.severity, "the trigger was found");
        violations.report(violation.recoverable(self.recoverable));
    }
}

impl Check for Trigger {
    fn name(&self) -> &'static str {
        "trigger"
    }

    fn text(&mut self, delta: &str, violations: &mut Findings) {
        assert!(!delta.is_empty(), "empty deltas are not passed");
        if delta.contains(self.trigger) {
            self.seen = true;
            if !self.at_end {
                self.report(violations);
            }
        }
    }

    fn end(&mut self, _: &Ended, violations: &mut Findings) {
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
            "not retried, and the source is dropped"
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
        let rules = Checks::none().with(move || -> Box<dyn Check> {
            let rule = Trigger::new("bad", Severity::Error, true);
            Box::new(if at_end { rule.at_end() } else { rule })
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
            OwnedEvent::Retry { reason, kind, .. } => Some((reason, kind)),
            _ => None,
        });
        let expected = (RetryReason::GuardrailViolation, RetryKind::Model);
        assert_eq!(reason, Some(expected));
    }
}

#[tokio::test]
async fn exhausted_retries_complete_and_report_the_violations() {
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
async fn a_warning_has_no_effect_and_a_clean_answer_is_recorded() {
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
async fn rules_see_only_text_and_are_created_for_each_attempt() {
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

/// Panics in the given call, and counts its calls.
struct Panics {
    at: PanicsAt,
    calls: Arc<AtomicUsize>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum PanicsAt {
    Text,
    End,
    Drop,
    /// The panic's payload panics as well, when it is dropped.
    Payload,
}

const PANICS: [PanicsAt; 4] = [
    PanicsAt::Text,
    PanicsAt::End,
    PanicsAt::Drop,
    PanicsAt::Payload,
];

impl Panics {
    fn called(&self, at_end: bool) {
        self.calls.fetch_add(1, Ordering::Relaxed);
        match self.at {
            PanicsAt::Payload => std::panic::panic_any(PanicsWhenDropped),
            PanicsAt::End if !at_end => {}
            _ => panic!("a check panics"),
        }
    }
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("the payload panics");
        }
    }
}

impl<F: Finding> Check<F> for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn text(&mut self, _: &str, _: &mut Findings<F>) {
        self.called(false);
    }

    fn end(&mut self, _: &Ended, _: &mut Findings<F>) {
        self.called(true);
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if self.at == PanicsAt::Drop && !std::thread::panicking() {
            panic!("a check panics when it is dropped");
        }
    }
}

#[tokio::test]
async fn a_rule_that_panics_becomes_a_warning_under_its_name_and_the_others_continue() {
    for at in PANICS {
        let captured = Captured::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let rules = Checks::none()
            .with(|| Trigger::new("first", Severity::Warning, true))
            .with(move || Panics {
                at,
                calls: Arc::clone(&counter),
            })
            .with(|| Trigger::new("last", Severity::Warning, true));
        let l0 = l0(&captured).guardrails(rules).build();
        let script = Script::new().attempt(|a| a.tokens(["first last", "first last"]));
        let mut run = l0.stream(script.source()).start();
        run.text().await.unwrap();
        assert_eq!(run.end(), Some(&End::completed()), "{at:?}");
        let stats = run.telemetry().unwrap().guardrails.unwrap();
        let by_rule: Vec<_> = stats.violations_by_rule.into_iter().collect();
        assert_eq!(
            by_rule,
            [("first", 1), ("last", 1), ("panics", 1)].map(|(k, v)| (k.to_owned(), v)),
            "{at:?}"
        );
        assert_eq!(stats.violations_by_severity.warning, 3, "{at:?}");
        let expected = if at == PanicsAt::End { 3 } else { 1 };
        assert_eq!(calls.load(Ordering::Relaxed), expected, "{at:?}");
    }
}

#[tokio::test]
async fn a_drift_detector_that_panics_is_silent_and_the_others_continue() {
    for at in PANICS {
        let captured = Captured::new();
        let calls = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&calls);
        let detectors = Checks::none()
            .with(move || Panics {
                at,
                calls: Arc::clone(&counter),
            })
            .with(|| Drifts::new(&[("b", &["tone"])]));
        let l0 = l0(&captured).drift(detectors).build();
        let script = Script::new().attempt(|a| a.tokens(["a", "b"]));
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.unwrap(), "ab", "{at:?}");
        assert_eq!(run.end(), Some(&End::completed()), "{at:?}");
        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.drift.unwrap().types, ["tone"], "{at:?}");
        assert_eq!(telemetry.guardrails, None, "{at:?}: no rule was checked");
        assert_eq!(violations(&captured), 0, "{at:?}");
        let expected = if at == PanicsAt::End { 3 } else { 1 };
        assert_eq!(calls.load(Ordering::Relaxed), expected, "{at:?}");
    }
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

/// Reports an answer that is empty by core's definition.
struct ZeroOutput;

impl Check for ZeroOutput {
    fn name(&self) -> &'static str {
        "zero-output"
    }

    fn text(&mut self, _: &str, _: &mut Findings) {}

    fn end(&mut self, ended: &Ended, violations: &mut Findings) {
        if !ended.has_output {
            let violation = Violation::new("zero-output", Severity::Error, "No output");
            violations.report(violation);
        }
    }
}

#[tokio::test]
async fn a_check_receives_at_the_end_if_there_was_output() {
    for (script, has_output) in [
        (Script::new(), false),
        (Script::new().attempt(|a| a.reasoning("thinking")), false),
        (Script::new().attempt(|a| a.tokens([" ", "\n"])), false),
        (Script::new().attempt(|a| a.tokens([" ", "a"])), true),
        (Script::new().attempt(|a| a.tool_call("{}")), true),
        (Script::new().attempt(ScriptedAttempt::media), true),
    ] {
        let captured = Captured::new();
        let builder = l0(&captured).guardrails(|| ZeroOutput).retry(Retry::none());
        let l0 = builder.build();
        let mut run = l0.stream(script.source()).start();
        let ended = run.text().await;
        assert_eq!(ended.is_ok(), has_output, "{script:?}");
        assert_eq!(
            violations(&captured),
            usize::from(!has_output),
            "{script:?}"
        );

        // If an empty answer is not an error, a rule can still report it.
        let captured = Captured::new();
        let builder = self::l0(&captured).guardrails(|| ZeroOutput);
        let l0 = builder.detect_zero_output(false).build();
        let mut run = l0.stream(script.source()).start();
        run.text().await.unwrap();
        let metrics = run.telemetry().unwrap().metrics;
        assert_eq!(metrics.model_retries, if has_output { 0 } else { 2 });
    }
}

#[tokio::test]
async fn media_reaches_neither_the_text_nor_the_checks() {
    let captured = Captured::new();
    let rules = Checks::none().with(|| Trigger::new("cat", Severity::Fatal, false));
    let script = Script::new().attempt(|a| {
        let described = ScriptedToken::new(TokenKind::Media, "a cat");
        a.token("a").item(described).media()
    });
    let l0 = l0(&captured).guardrails(rules).build();
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.unwrap(), "a");
    assert_eq!(run.telemetry().unwrap().metrics.total_tokens, 3);
}

#[tokio::test]
async fn zero_output_is_a_violation_only_if_a_rule_reports_it() {
    for (rules, count) in [
        (Checks::from(|| ZeroOutput), Some(3)),
        (Checks::none(), None),
    ] {
        let captured = Captured::new();
        let l0 = l0(&captured).guardrails(rules).build();
        let script = Script::new().attempt(|a| a.tokens(["\n", " "]));
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

/// Reports unbalanced brackets. Its state is the open brackets.
#[derive(Default)]
struct Balanced(Vec<char>);

impl Check for Balanced {
    fn name(&self) -> &'static str {
        "balanced"
    }

    fn text(&mut self, delta: &str, violations: &mut Findings) {
        for c in delta.chars() {
            match c {
                '{' => self.0.push('}'),
                '[' => self.0.push(']'),
                '}' | ']' if self.0.pop() != Some(c) => violations.report(Violation::new(
                    "balanced",
                    Severity::Error,
                    "A bracket closes what is not open",
                )),
                _ => {}
            }
        }
    }

    fn end(&mut self, _: &Ended, violations: &mut Findings) {
        if !self.0.is_empty() {
            let message = format!("{} brackets are left open", self.0.len());
            violations.report(Violation::new("balanced", Severity::Warning, message));
        }
    }
}

#[tokio::test]
async fn interleaved_runs_with_all_rules_and_drift_find_the_same_as_single_runs() {
    let rules = Checks::from(Balanced::default)
        .and(|| ZeroOutput)
        .with(|| Trigger::new("`", Severity::Warning, true).at_end())
        .with(|| Trigger::new("$", Severity::Fatal, false));
    let detectors = Checks::none()
        .with(|| Drifts::new(&[("!", &["tone"]), (":", &["format"])]))
        .with(|| Drifts::new(&[("I", &["meta"])]));
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .guardrails(rules)
        .drift(detectors)
        .build();
    let answers = [
        "{\"a\": [1, 2, {\"b\": null}]}",
        "{\"a\": [1, 2,, {\"b\": null]}",
        "```rust\nfn main() {}\n```\nDone.",
        "```rust\nfn main() {\n",
        "\\begin{align} x \\end{equation} and $y",
        "Sure!\nAs an AI language model, I have [insert opinion here].",
        "...",
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
    assert_eq!(alone.len(), answers.len());
    assert!(
        alone
            .iter()
            .any(|found| found.1.as_ref().is_some_and(DriftStats::detected))
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
async fn zero_output_is_text_without_a_visible_character_in_any_split() {
    let empty = [
        "",
        " ",
        "\n",
        "\t\r\n",
        "\u{a0}\u{2003}\u{3000}",
        "\0\u{7}\u{1b}\u{7f}\u{85}",
        "\u{200b}",
        "\u{feff}\u{200d} \u{2060}\u{ad}",
        "\u{fe0f}\u{200e}\u{202e}\u{e0020}",
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
        ".",
        "...",
        "?",
        "!?",
        "---",
        "```\n```",
        "{}",
        "[]",
        "\"\"",
        "_",
        "…",
        "。",
        "！？",
        "«»",
        "👍",
        "🎉 🎉",
        "🏳\u{fe0f}\u{200d}🌈",
        "❤\u{fe0f}",
        "| | |\n|---|",
        "$$",
        "\u{fffd}",
        "\u{301}",
    ];
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .guardrails(|| ZeroOutput)
        .build();
    let table = empty
        .map(|text| (text, true))
        .into_iter()
        .chain(meaningful.map(|text| (text, false)));
    for (text, is_empty) in table {
        let mut rng = fastrand::Rng::with_seed(7);
        let whole = vec![text];
        let letters: Vec<&str> = text.split("").collect();
        let splits = (0..50).map(|_| split(text, &mut rng));
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
async fn a_faulty_answer_completes_at_once_if_the_back_off_exceeds_the_total_timeout() {
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
    assert_eq!(run.text().await.unwrap(), "bad");
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.outcome, Some(Outcome::Completed));
    assert_eq!(telemetry.duration, Some(Duration::ZERO));
    assert_eq!(telemetry.metrics.model_retries, 0);
    assert_eq!(telemetry.guardrails.unwrap().violation_count, 1);
}

#[tokio::test]
async fn a_closure_that_creates_a_rule_is_a_set_of_rules() {
    struct NoB;

    impl Check for NoB {
        fn name(&self) -> &'static str {
            "no-b"
        }

        fn text(&mut self, delta: &str, findings: &mut Findings) {
            if delta.contains('b') {
                findings.report(Violation::new("no-b", Severity::Fatal, "There is a b"));
            }
        }
    }

    let captured = Captured::new();
    // On an `L0`, and on a single run.
    let guarded = l0(&captured).guardrails(|| NoB).build();
    let free = l0(&captured).build();
    let script = Script::new().attempt(|a| a.tokens(["a", "b"]));
    for mut run in [
        guarded.stream(script.source()).start(),
        free.stream(script.source()).guardrails(|| NoB).start(),
    ] {
        let error = run.text().await.unwrap_err();
        let Error::Guardrail(violation) = error else {
            panic!("{error:?}");
        };
        let end = End::of(Cause::Violation(violation));
        assert_eq!(run.end(), Some(&end));
        let telemetry = run.telemetry().unwrap();
        let error = telemetry.error.unwrap();
        assert_eq!(error.error_type, "guardrail_violation");
        assert_eq!(
            error.message,
            "guardrail violation: no-b (fatal): There is a b"
        );
    }
    assert!(Checks::<Violation>::none().is_empty());
    assert!(!Checks::from(|| NoB).is_empty());
}

#[tokio::test]
async fn a_violation_at_the_end_that_halts_is_not_retried() {
    let captured = Captured::new();
    let rule = || Trigger::new("bad", Severity::Fatal, false).at_end();
    let l0 = l0(&captured).guardrails(rule).build();
    let script = Script::new().attempt(|a| a.tokens(["bad", " to the end"]));
    let mut run = l0.stream(script.source()).start();
    let error = run.text().await.unwrap_err();
    assert!(matches!(error, Error::Guardrail(_)), "{error:?}");
    assert_eq!(script.calls(), 1);
    assert_eq!(run.telemetry().unwrap().metrics.total_tokens, 2);
}

#[tokio::test]
async fn a_violation_that_becomes_more_severe_takes_effect_and_is_recorded_once() {
    /// Reports the same violation with each of these severities, one per piece.
    struct Worse(std::vec::IntoIter<(Severity, bool)>);

    impl Check for Worse {
        fn name(&self) -> &'static str {
            "worse"
        }

        fn text(&mut self, _: &str, findings: &mut Findings) {
            if let Some((severity, recoverable)) = self.0.next() {
                let violation = Violation::new("worse", severity, "the trigger was found");
                findings.report(violation.recoverable(recoverable));
            }
        }
    }

    let warning = (Severity::Warning, true);
    let error = (Severity::Error, true);
    let fatal = (Severity::Fatal, false);
    let grave = (Severity::Error, false);
    for (reports, halts, calls) in [
        (vec![warning, error], false, 3),
        (vec![error, warning], false, 3),
        (vec![warning, fatal], true, 1),
        (vec![error, grave], true, 1),
        (vec![warning, warning], false, 1),
    ] {
        let captured = Captured::new();
        let what = format!("{reports:?}");
        let first = reports[0].0;
        let l0 = l0(&captured)
            .guardrails(move || Worse(reports.clone().into_iter()))
            .build();
        let script = Script::new().attempt(|a| a.tokens(["a", "b"]));
        let mut run = l0.stream(script.source()).start();
        assert_eq!(run.text().await.is_err(), halts, "{what}");
        assert_eq!(script.calls(), calls, "{what}");
        let stats = run.telemetry().unwrap().guardrails.unwrap();
        assert_eq!(stats.violation_count, calls as u64, "{what}");
        assert_eq!(stats.violations_by_severity.get(first), calls as u64);
        assert_eq!(violations(&captured), calls, "{what}");
    }
}

#[tokio::test]
async fn a_rule_halts_the_run_however_much_was_reported_before() {
    struct Many;

    impl Check for Many {
        fn name(&self) -> &'static str {
            "many"
        }

        fn text(&mut self, delta: &str, findings: &mut Findings) {
            for number in 0..2 * Findings::<Violation>::MAX {
                let message = format!("fault {number}");
                findings.report(Violation::new("many", Severity::Warning, message));
            }
            if delta == "bad" {
                findings.report(Violation::new("many", Severity::Fatal, "the last one"));
            }
        }
    }

    let captured = Captured::new();
    let l0 = l0(&captured).guardrails(|| Many).build();
    let script = Script::new().attempt(|a| a.tokens(["good", "bad"]));
    let error = l0.stream(script.source()).start().text().await.unwrap_err();
    let Error::Guardrail(violation) = error else {
        panic!("{error:?}");
    };
    assert_eq!(violation.message, "the last one");
    assert_eq!(violations(&captured), Findings::<Violation>::MAX + 1);
}

fn found<F: Finding>(findings: &Findings<F>) -> usize {
    findings.iter().count()
}

#[test]
fn findings_keep_each_distinct_one_once_up_to_a_limit() {
    let warning = |message: &str| Violation::new("rule", Severity::Warning, message);
    let mut findings = Findings::new();
    assert_eq!((found(&findings), findings.effect()), (0, Effect::Record));
    for _ in 0..3 {
        findings.report(warning("a"));
        findings.report(warning("a").position(7));
        findings.report(warning("b"));
        findings.report(Violation::new("another", Severity::Warning, "a"));
    }
    assert_eq!(found(&findings), 3, "by rule and message");
    assert_eq!(findings.effect(), Effect::Record);

    for number in 0..2 * Findings::<Violation>::MAX {
        findings.report(warning(&number.to_string()));
    }
    assert_eq!(found(&findings), Findings::<Violation>::MAX);
    // A finding with a stronger effect than all before is kept beyond the limit, and no other.
    let error = |message: &str| Violation::new("rule", Severity::Error, message);
    for message in ["retry", "retry again"] {
        findings.report(error(message));
    }
    assert_eq!(findings.effect(), Effect::Retry);
    for message in ["halt", "halt again"] {
        findings.report(error(message).recoverable(false));
    }
    assert_eq!(findings.effect(), Effect::Halt);
    assert_eq!(found(&findings), Findings::<Violation>::MAX + 2);
}

#[test]
fn a_finding_reported_again_has_its_strongest_effect() {
    let with = |severity, recoverable| {
        let violation = Violation::new("rule", severity, "a");
        violation.recoverable(recoverable)
    };
    let mut findings = Findings::new();
    for (severity, recoverable, effect) in [
        (Severity::Warning, false, Effect::Record),
        (Severity::Error, true, Effect::Retry),
        (Severity::Warning, true, Effect::Retry),
        (Severity::Error, false, Effect::Halt),
        (Severity::Error, true, Effect::Halt),
        (Severity::Fatal, true, Effect::Halt),
    ] {
        findings.report(with(severity, recoverable));
        assert_eq!(findings.effect(), effect);
        assert_eq!(found(&findings), 1);
    }
    let kept = findings.iter().next().expect("one");
    assert_eq!(kept.effect(), Effect::Halt);

    let mut findings = Findings::new();
    for (retry, effect) in [
        (false, Effect::Record),
        (true, Effect::Retry),
        (false, Effect::Retry),
    ] {
        findings.report(DriftReport::new(["tone"], 0.5).retry(retry));
        assert_eq!((findings.effect(), found(&findings)), (effect, 1));
    }
    findings.report(DriftReport::new(["tone"], 0.9));
    assert_eq!(found(&findings), 1, "by the types");
    findings.report(DriftReport::new(["tone", "format"], 0.9));
    assert_eq!(found(&findings), 2);
}

/// Reports kinds of drift when a piece contains their phrases.
struct Drifts {
    phrases: &'static [(&'static str, &'static [&'static str])],
    retry: bool,
    /// `true` if findings are repeated at the end, and request another attempt only there.
    at_end: bool,
    seen: Vec<&'static [&'static str]>,
}

impl Drifts {
    fn new(phrases: &'static [(&'static str, &'static [&'static str])]) -> Self {
        Self {
            phrases,
            retry: false,
            at_end: false,
            seen: Vec::new(),
        }
    }

    fn retry(mut self, retry: bool) -> Self {
        self.retry = retry;
        self
    }

    fn at_end(mut self) -> Self {
        self.at_end = true;
        self
    }
}

impl Check<DriftReport> for Drifts {
    fn name(&self) -> &'static str {
        "drifts"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<DriftReport>) {
        assert!(!delta.is_empty(), "empty deltas are not passed");
        for (phrase, types) in self.phrases {
            if delta.contains(phrase) {
                let report = DriftReport::new(types.iter().copied(), 0.8);
                findings.report(report.retry(self.retry && !self.at_end));
                self.seen.push(types);
            }
        }
    }

    fn end(&mut self, _: &Ended, findings: &mut Findings<DriftReport>) {
        for types in self.seen.iter().filter(|_| self.at_end) {
            let report = DriftReport::new(types.iter().copied(), 0.9);
            findings.report(report.retry(self.retry));
        }
    }
}

/// Returns the drift reports of the events, in order.
fn reports(captured: &Captured) -> Vec<DriftReport> {
    let report = |event| match event {
        OwnedEvent::Drift { report, .. } => Some(report),
        _ => None,
    };
    captured.events().into_iter().filter_map(report).collect()
}

const PHRASES: &[(&str, &[&str])] = &[
    ("Sure", &["hedging"]),
    ("clarify", &["meta"]),
    ("words", &["meta"]),
];

#[tokio::test]
async fn drift_is_only_recorded_by_default() {
    for at_end in [false, true] {
        let captured = Captured::new();
        let l0 = l0(&captured)
            .drift(move || {
                let drifts = Drifts::new(PHRASES);
                if at_end { drifts.at_end() } else { drifts }
            })
            .build();
        let script = Script::new().attempt(|a| a.tokens(["Sure! ", "In other words, yes."]));
        let mut run = l0.stream(script.source()).start();
        let text = run.text().await.expect("drift is not an error");
        assert_eq!(text, "Sure! In other words, yes.");
        assert_eq!(script.calls(), 1, "no other attempt");
        assert_eq!(run.end(), Some(&End::completed()));
        let telemetry = run.telemetry().unwrap();
        assert_eq!(telemetry.drift.unwrap().types, ["hedging", "meta"]);
        assert_eq!(telemetry.metrics.total_retries, 0);
        let expected = ["hedging", "meta"].map(|kind| DriftReport::new([kind], 0.8));
        assert_eq!(reports(&captured), expected);
    }
}

#[tokio::test]
async fn drift_with_retry_is_a_model_retry_and_completes_when_retries_are_exhausted() {
    for at_end in [false, true] {
        let captured = Captured::new();
        let l0 = l0(&captured)
            .drift(move || {
                let drifts = Drifts::new(PHRASES).retry(true);
                if at_end { drifts.at_end() } else { drifts }
            })
            .build();
        let script = Script::new()
            .attempt(|a| a.tokens(["Sure", "!"]))
            .attempt(|a| a.tokens(["To clarify", ", no."]))
            .attempt(|a| a.tokens(["Sure!", "\n", "In other words, yes."]));
        let mut run = l0.stream(script.source()).start();
        let text = run.text().await.expect("drift is not an error");
        assert_eq!(text, "Sure!\nIn other words, yes.");
        assert_eq!(run.outcome(), Some(Outcome::Completed));
        assert_eq!(script.calls(), 3);
        let telemetry = run.telemetry().unwrap();
        let drift = telemetry.drift.expect("drift was checked");
        assert_eq!(
            drift.types,
            ["hedging", "meta"],
            "the union, in order of first sight"
        );
        assert_eq!(telemetry.metrics.model_retries, 2);
        assert_eq!(telemetry.metrics.network_retries, 0);
        assert_eq!(telemetry.network.error_count, 0);
        assert_eq!(telemetry.error, None);
        let retries: Vec<_> = captured
            .events()
            .into_iter()
            .filter_map(|event| match event {
                OwnedEvent::Retry { reason, kind, .. } => Some((reason, kind)),
                _ => None,
            })
            .collect();
        assert_eq!(retries, [(RetryReason::Drift, RetryKind::Model); 2]);
        // A finding that is repeated at the end with a stronger effect is recorded once.
        let expected = ["hedging", "meta", "hedging", "meta"]
            .map(|kind| DriftReport::new([kind], 0.8).retry(!at_end));
        assert_eq!(reports(&captured), expected);
    }
}

#[tokio::test]
async fn a_new_attempt_starts_without_earlier_drift() {
    let captured = Captured::new();
    let drift = || Drifts::new(PHRASES).retry(true).at_end();
    let l0 = l0(&captured).drift(drift).build();
    let script = Script::new()
        .attempt(|a| a.tokens(["Sure!"]))
        .attempt(|a| a.tokens(["The answer is 42."]));
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.unwrap(), "The answer is 42.");
    assert_eq!(script.calls(), 2);
    let telemetry = run.telemetry().unwrap();
    assert_eq!(
        telemetry.drift.unwrap().types,
        ["hedging"],
        "in any attempt"
    );
}

#[tokio::test]
async fn a_kind_of_drift_is_reported_once_per_attempt() {
    let captured = Captured::new();
    let drift = || Drifts::new(PHRASES).retry(true);
    let l0 = l0(&captured)
        .retry(Retry::new().model_retries(1).backoff(Backoff::none()))
        .drift(drift)
        .build();
    let script = Script::new().attempt(|a| a.tokens(["Sure. "; 100]));
    l0.stream(script.source()).start().text().await.unwrap();
    assert_eq!(reports(&captured).len(), 2, "in each of two attempts");
}

#[tokio::test]
async fn a_drift_check_without_findings_is_recorded() {
    let captured = Captured::new();
    let l0 = l0(&captured).drift(|| Drifts::new(PHRASES)).build();
    let script = Script::new().attempt(|a| a.token("The answer is 42."));
    let mut run = l0.stream(script.source()).start();
    run.text().await.unwrap();
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.drift, Some(DriftStats::default()));
    assert_eq!(telemetry.guardrails, None, "no rule was checked");
    assert_eq!(reports(&captured), []);
}

#[tokio::test]
async fn an_empty_drift_report_is_ignored() {
    let captured = Captured::new();
    let drift = || Drifts::new(&[("fine", &[])]).retry(true);
    let l0 = l0(&captured).drift(drift).build();
    let script = Script::new().attempt(|a| a.tokens(["All ", "is fine."]));
    let mut run = l0.stream(script.source()).start();
    run.text().await.unwrap();
    assert_eq!(script.calls(), 1);
    assert_eq!(run.telemetry().unwrap().drift, Some(DriftStats::default()));
    assert_eq!(reports(&captured), []);
}

#[tokio::test]
async fn drift_of_a_watched_stream_is_only_recorded() {
    let captured = Captured::new();
    let drift = || Drifts::new(PHRASES).retry(true);
    let l0 = l0(&captured).drift(drift).build();
    let script = Script::new().attempt(|a| a.tokens(["Sure! ", "In other words, yes."]));
    let mut watched = l0.watch(script.stream()).start();
    assert_eq!(watched.by_ref().count().await, 2);
    assert_eq!(watched.end(), Some(&End::completed()));
    let telemetry = watched.telemetry().unwrap();
    assert_eq!(telemetry.drift.unwrap().types, ["hedging", "meta"]);
    assert_eq!(telemetry.metrics.total_retries, 0);
}

#[tokio::test]
async fn a_violation_takes_precedence_over_drift_as_the_reason() {
    let captured = Captured::new();
    let l0 = l0(&captured)
        .guardrails(|| Trigger::new("Sure", Severity::Error, true))
        .drift(|| Drifts::new(PHRASES).retry(true))
        .build();
    let script = Script::new()
        .attempt(|a| a.tokens(["Sure!"]))
        .attempt(|a| a.tokens(["Yes."]));
    let mut run = l0.stream(script.source()).start();
    assert_eq!(run.text().await.unwrap(), "Yes.");
    let reason = captured.events().into_iter().find_map(|event| match event {
        OwnedEvent::Retry { reason, .. } => Some(reason),
        _ => None,
    });
    assert_eq!(reason, Some(RetryReason::GuardrailViolation));
    let telemetry = run.telemetry().unwrap();
    assert_eq!(telemetry.guardrails.unwrap().violation_count, 1);
    assert_eq!(telemetry.drift.unwrap().types, ["hedging"]);
}
