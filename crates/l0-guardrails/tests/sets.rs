//! The sets of rules, and the rule for empty answers, in runs.

use std::collections::BTreeSet;

use l0_core::testing::{Script, ScriptedAttempt};
use l0_core::{
    Backoff, Check, Checks, Ended, Findings, FinishReason, L0, L0Builder, Monitoring, Retry,
};
use l0_guardrails::{Drift, Guardrails, Json, StrictJson, ZeroOutput};

fn l0(rules: impl Into<Checks>) -> L0Builder {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::none())
        .guardrails(rules)
}

/// Returns the violations of one attempt by rule, and `true` if the run failed.
async fn violated(
    l0: L0,
    attempt: impl FnOnce(ScriptedAttempt) -> ScriptedAttempt,
) -> (BTreeSet<String>, bool) {
    let script = Script::new().attempt(attempt);
    let mut run = l0.stream(script.source()).start();
    let failed = run.text().await.is_err();
    let telemetry = run.telemetry().expect("monitoring is on");
    let rules = telemetry.guardrails.map(|stats| stats.violations_by_rule);
    (
        rules.into_iter().flatten().map(|one| one.0).collect(),
        failed,
    )
}

/// Answers that break one rule each, and the violations.
const ANSWERS: [(&str, &str); 6] = [
    ("{\"a\": 1", "json-parseable"),
    ("A fence:\n```\ncode", "markdown-fences"),
    ("So \\begin{align} x.", "latex-environments"),
    ("I am an AI.", "pattern-meta-commentary"),
    ("Prose is no JSON.", "json-strict"),
    ("", "zero-output"),
];

#[tokio::test]
async fn each_set_finds_different_violations() {
    type Set = (fn() -> Checks, &'static [&'static str]);

    let sets: [Set; 7] = [
        (Guardrails::none, &[]),
        (Guardrails::minimal, &["json-parseable", "zero-output"]),
        (
            Guardrails::recommended,
            &[
                "json-parseable",
                "markdown-fences",
                "pattern-meta-commentary",
                "zero-output",
            ],
        ),
        (
            Guardrails::strict,
            &[
                "json-parseable",
                "latex-environments",
                "markdown-fences",
                "pattern-meta-commentary",
                "zero-output",
            ],
        ),
        (
            Guardrails::json_only,
            &["json-parseable", "json-strict", "zero-output"],
        ),
        (
            Guardrails::markdown_only,
            &["markdown-fences", "zero-output"],
        ),
        (
            Guardrails::latex_only,
            &["latex-environments", "zero-output"],
        ),
    ];
    for (number, (set, expected)) in sets.iter().enumerate() {
        let mut found = BTreeSet::new();
        for (answer, rule) in ANSWERS {
            let (rules, _) = violated(l0(set()).build(), |a| a.token(answer)).await;
            found.extend(rules.contains(rule).then_some(rule));
        }
        assert_eq!(found, expected.iter().copied().collect(), "set {number}");
        for (other, (_, rules)) in sets.iter().enumerate() {
            assert_eq!(
                other == number,
                rules == expected,
                "sets {number} and {other}"
            );
        }
    }
}

#[tokio::test]
async fn an_empty_answer_is_a_violation_of_zero_output() {
    for (detect, failed) in [(true, true), (false, false)] {
        let l0 = l0(ZeroOutput::new).detect_zero_output(detect).build();
        let empty = violated(l0.clone(), |a| a.tokens([" ", "\n"])).await;
        assert_eq!(empty, (BTreeSet::from(["zero-output".to_owned()]), failed));
        for answer in ["ok", "0", "日本語"] {
            let found = violated(l0.clone(), |a| a.token(answer)).await;
            assert_eq!(found, (BTreeSet::new(), false), "{answer}");
        }
        let tool_call = violated(l0, |a| a.tool_call("{}")).await;
        assert_eq!(tool_call, (BTreeSet::new(), false));
    }

    let l0 = l0(ZeroOutput::new)
        .detect_zero_output(false)
        .retry(Retry::new().backoff(Backoff::none()))
        .build();
    let script = Script::new()
        .attempt(|a| a.token(" "))
        .attempt(|a| a.token("ok"));
    let mut run = l0.stream(script.source()).start();
    assert_eq!(
        run.text().await.unwrap(),
        "ok",
        "the rule causes a retry on its own"
    );
}

#[test]
fn zero_output_uses_the_findings_of_core() {
    for has_output in [true, false] {
        let mut findings = Findings::new();
        let mut rule = ZeroOutput::new();
        rule.text("...", &mut findings);
        assert_eq!(findings.iter().count(), 0);
        rule.end(&Ended::new(has_output), &mut findings);
        assert_eq!(findings.iter().count(), usize::from(!has_output));

        let mut explained = Findings::new();
        let refused = Ended::new(has_output).finish(Some(FinishReason::Refusal));
        ZeroOutput::new().end(&refused, &mut explained);
        assert_eq!(explained.iter().count(), 0);
        for violation in findings.iter() {
            assert_eq!(violation.rule, rule.name());
            assert!(violation.recoverable);
        }
    }
}

#[test]
fn closures_sets_and_drift_can_be_configured() {
    fn ours() -> Checks {
        Guardrails::minimal().with(StrictJson::new)
    }
    let l0 = L0::builder().guardrails(Json::new).drift(Drift::new());
    let l0 = l0.guardrails(ours().and(Guardrails::latex_only()));
    let variant = l0.build().to_builder().guardrails(Guardrails::none());
    drop(variant.drift(Checks::none()).build());
}
