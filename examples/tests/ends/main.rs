//! The ends of a run, reported by all exporters at once. All report the same, and none contains the error
//! text of the source.
//!
//! `cargo test -p l0-examples --all-features --test ends -- --nocapture` prints the reports.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the table is printed too")]

#[path = "../common/mod.rs"]
mod common;
mod exporters;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use exporters::{MESSAGE, Reported, STATUS};
use l0_core::testing::{Script, ScriptedError};
use l0_core::{
    Backoff, Budget, Cost, CostSource, Currency, Failure, FailureKind, Interceptor, L0, L0Builder,
    Limits, Money, Monitoring, NewRun, Refusal, Retry, Severity, Timeouts,
};
use l0_export::json;
use l0_guardrails::CustomPattern;

/// The part of the prompt in the error of a source.
const PROMPT: &str = "c4n4ry-prompt";
/// The part of a credential in that error.
const KEY: &str = "sk-c4n4ryKeyAbCdEf0123456789";
/// A part of the answer.
const ANSWER: &str = "c4n4ry-answer";

/// The error of a client: a failure, and the text of the provider.
#[derive(Debug)]
struct Denied(Failure);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no answer to `{PROMPT}` with api_key={KEY}")
    }
}

impl std::error::Error for Denied {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.0)
    }
}

/// An end, and its expected report.
struct Case {
    name: &'static str,
    script: Script,
    configure: fn(L0Builder) -> L0Builder,
    reported: Reported,
}

impl Case {
    fn new(name: &'static str, script: Script, [outcome, error_type, message]: [&str; 3]) -> Self {
        let some = |text: &str| Some(text.to_owned());
        Self {
            name,
            script,
            configure: |builder| builder,
            reported: [some(outcome), some(error_type), None, some(message)],
        }
    }

    /// The source fails on each call.
    fn denied(name: &'static str, failure: Failure, error_type: &str, message: &str) -> Self {
        let error = ScriptedError::new(Denied(failure));
        let script = Script::new().attempt(|a| a.connect_error(error));
        let mut case = Self::new(name, script, ["failed", error_type, message]);
        case.reported[STATUS] = failure.status.map(|status| status.to_string());
        case
    }

    fn configure(self, configure: fn(L0Builder) -> L0Builder) -> Self {
        Self { configure, ..self }
    }

    /// Returns the expected report of an exporter.
    fn expected_from(&self, exporter: &str) -> Reported {
        let is_failure = self.name != "aborted";
        let carried = exporters::carried(exporter, is_failure);
        std::array::from_fn(|part| self.reported[part].clone().filter(|_| carried[part]))
    }
}

struct Refuses;

impl Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("the run has no user"))
    }
}

fn guarded(builder: L0Builder) -> L0Builder {
    let rule = CustomPattern::phrases(["harmful"]).unwrap();
    let rule = rule.rule("no-harm").severity(Severity::Fatal);
    let rule = rule.message("The answer is harmful");
    builder.guardrails(move || rule.clone())
}

#[rustfmt::skip] // one per line
fn cases() -> Vec<Case> {
    let status = Failure::status;
    let mut quota = status(429).detail("no credit output");
    quota.kind = FailureKind::Fatal;
    let says = |text: &str| Script::new().attempt(|a| a.token(ANSWER).token(text));
    let hangs = || Script::new().attempt(|a| a.token(ANSWER).hang());
    let costs = || {
        let cost = Cost::new(Money::units(1), Currency::USD, CostSource::Provider);
        Script::new().attempt(move |a| a.token(ANSWER).cost(cost).hang())
    };
    let panics = Script::new().attempt(|a| a.token(ANSWER).panic(PROMPT));
    vec![
        Case::denied("401", status(401), "401", "status 401 Unauthorized"),
        Case::denied("400", status(400), "400", "status 400 Bad Request"),
        Case::denied("404", status(404), "404", "status 404 Not Found"),
        Case::denied("402", status(402), "402", "status 402 Payment Required"),
        Case::denied("429, retries exhausted", status(429), "rate_limited", "status 429 Too Many Requests"),
        Case::denied("429, quota exhausted", quota, "429", "status 429 Too Many Requests, no credit output"),
        Case::denied("500, retries exhausted", status(500), "server_error", "status 500 Internal Server Error"),
        Case::new("empty answer", Script::new().attempt(|a| a.token(" ")),
            ["failed", "zero_output", "the answer is empty: no visible text, no media, and no tool call"]),
        Case::new("guardrail halt", says(" harmful"),
            ["failed", "guardrail_violation", "guardrail violation: no-harm (fatal): The answer is harmful"])
            .configure(guarded),
        Case::new("refused by a hook", says(""), ["failed", "refused", "refused: the run has no user"])
            .configure(|builder| builder.interceptor(Refuses)),
        Case::new("refused by a budget", says(""), ["failed", "refused", "refused: the budget is spent"])
            .configure(|builder| builder.budget(Budget::new(Money::ZERO))),
        Case::new("limited by tokens", says("!"), ["limited", "limit", "the limit of tokens was reached"])
            .configure(|builder| builder.limits(Limits::new().output_tokens(0))),
        Case::new("limited by cost", costs(), ["limited", "limit", "the limit of cost was reached"])
            .configure(|builder| builder.limits(Limits::new().cost(Money::cents(1)))),
        Case::new("limited by a budget", costs(), ["limited", "limit", "the budget was overspent"])
            .configure(|builder| builder.budget(Budget::new(Money::cents(1)))),
        Case::new("aborted", hangs(), ["aborted", "aborted", "the run was aborted"]),
        Case::new("total timeout", hangs(), ["timed_out", "timeout", "the run took too long"])
            .configure(|builder| builder.timeouts(Timeouts::new().total(Duration::from_millis(50)))),
        Case::new("panic", panics, ["failed", "panic", "the source, the factory or a hook panicked"]),
    ]
}

/// Starts the run of a case with all exporters.
fn run(case: &Case, monitoring: Monitoring) -> Vec<(&'static str, Reported, String)> {
    let retry = Retry::new().max_retries(1).backoff(Backoff::none());
    let mut builder = (case.configure)(L0::builder().monitoring(monitoring).retry(retry));
    let mut readers = Vec::new();
    for attach in exporters::ALL {
        let (attached, read) = attach(builder);
        builder = attached;
        readers.push(read);
    }
    let l0 = builder.build();

    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_time().start_paused(true).build().unwrap();
    let reading = async {
        let mut run = l0.stream(case.script.source()).start();
        if case.name == "aborted" {
            run.handle().abort();
        }
        run.text().await.unwrap_err();
    };
    let ended = catch_unwind(AssertUnwindSafe(|| runtime.block_on(reading)));
    assert_eq!(ended.is_err(), case.name == "panic", "{}", case.name);
    let outputs = readers.into_iter().flat_map(|read| read());
    outputs
        .map(|outputs| (outputs.exporter, (outputs.reported)(), outputs.text))
        .collect()
}

/// Returns a table of the ends. Exporters with equal reports share a column.
fn table(cases: &[Case], outputs: &[Vec<(&str, Reported, String)>]) -> String {
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for (place, (exporter, ..)) in outputs[0].iter().enumerate() {
        let cell = |outputs: &Vec<(&str, Reported, String)>| {
            let (_, reported, _) = &outputs[place];
            let reported: Vec<_> = reported.iter().flatten().map(String::as_str).collect();
            reported.join(" · ")
        };
        let cells: Vec<_> = outputs.iter().map(cell).collect();
        match columns.iter_mut().find(|(_, column)| *column == cells) {
            Some((head, _)) => *head = format!("{head}, {exporter}"),
            None => columns.push(((*exporter).to_owned(), cells)),
        }
    }
    let heads: Vec<_> = columns.iter().map(|(head, _)| &**head).collect();
    let mut lines = vec![
        format!("| end | {} |", heads.join(" | ")),
        "|---".repeat(1 + heads.len()) + "|",
    ];
    for (row, case) in cases.iter().enumerate() {
        let cells: Vec<_> = columns.iter().map(|(_, cells)| &*cells[row]).collect();
        lines.push(format!("| {} | {} |", case.name, cells.join(" | ")));
    }
    lines.join("\n")
}

#[test]
fn every_exporter_reports_the_same_end() {
    let cases = cases();
    let outputs = cases.iter().map(|case| run(case, Monitoring::new()));
    let outputs = Vec::from_iter(outputs);
    let mut file = String::new();
    let mut apart = BTreeMap::<_, BTreeSet<_>>::new();
    for (case, outputs) in cases.iter().zip(&outputs) {
        assert_eq!(outputs.len(), 13);
        for (exporter, reported, output) in outputs {
            let what = format!("{exporter}, {}", case.name);
            assert_eq!(*reported, case.expected_from(exporter), "{what}");
            for canary in [PROMPT, KEY, ANSWER] {
                assert!(!output.contains(canary), "{what}: {output}");
            }
            let is_new = apart.entry(exporter).or_default().insert(reported);
            // Labels have the outcome `limited`. The message names the limit.
            let is_apart = is_new || reported[MESSAGE].is_none();
            assert!(is_apart, "{what}: another end has the same report");
            if *exporter == "JSON" {
                file += output;
            }
        }
    }
    println!("Outcome · error type · status · message\n");
    println!(
        "{}\n\n{}",
        table(&cases, &outputs),
        exporters::profile(&file)
    );
}

#[test]
fn the_text_of_an_error_is_exported_only_if_enabled() {
    const TEXT: &str = "scripted error: no answer to `c4n4ry-prompt` with api_key=[redacted]";

    for mut case in cases() {
        let outputs = run(&case, Monitoring::new().error_text(true));
        let is_denied = case.reported[STATUS].is_some();
        if is_denied {
            case.reported[MESSAGE] = Some(TEXT.to_owned());
        }
        for (exporter, mut reported, output) in outputs {
            let what = format!("{exporter}, {}: {output}", case.name);
            let carries_it = is_denied && reported[MESSAGE].is_some();
            if let (true, Some(message)) = (is_denied, &mut reported[MESSAGE]) {
                // The texts of the error chain follow it.
                message.truncate(TEXT.len());
            }
            assert_eq!(reported, case.expected_from(exporter), "{what}");
            assert_eq!(output.contains(TEXT), carries_it, "{what}");
            assert_eq!(output.contains(PROMPT), carries_it, "{what}");
            assert!(!output.contains(KEY) && !output.contains(ANSWER), "{what}");
            if exporter == "JSON" {
                let telemetry = json::read_lines(output.as_bytes()).next().unwrap().unwrap();
                for error in telemetry.network.errors.unwrap() {
                    assert_eq!(error.message.starts_with(TEXT), is_denied, "{what}");
                }
            }
        }
    }
}
