//! Ends of runs, each told by every exporter at once: all say the same, and none repeats the text of a
//! source's own error.
//!
//! `cargo test -p l0-examples --test ends -- --nocapture` prints what they say.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
#![allow(clippy::print_stdout, reason = "the table is for people too")]

#[path = "../common/mod.rs"]
mod common;
mod exporters;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use exporters::{MESSAGE, STATUS, Said};
use l0_core::testing::{Script, ScriptedError};
use l0_core::{
    Backoff, Budget, Cost, CostSource, Currency, Failure, FailureKind, Interceptor, L0, L0Builder,
    Limits, Money, Monitoring, NewRun, Refusal, Retry, Severity, Timeouts,
};
use l0_export::json;
use l0_guardrails::CustomPattern;

/// What a source's error repeats of the prompt.
const PROMPT: &str = "c4n4ry-prompt";
/// What it repeats of a credential.
const KEY: &str = "sk-c4n4ryKeyAbCdEf0123456789";
/// A piece of the answer.
const ANSWER: &str = "c4n4ry-answer";

/// What a client makes of a provider's answer: a failure, and the provider's words.
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

/// A way to end, and what is to be said of it.
struct Case {
    name: &'static str,
    script: Script,
    configure: fn(L0Builder) -> L0Builder,
    said: Said,
}

impl Case {
    fn new(name: &'static str, script: Script, [outcome, error_type, message]: [&str; 3]) -> Self {
        let some = |text: &str| Some(text.to_owned());
        Self {
            name,
            script,
            configure: |builder| builder,
            said: [some(outcome), some(error_type), None, some(message)],
        }
    }

    /// The source fails whenever it is called.
    fn denied(name: &'static str, failure: Failure, error_type: &str, message: &str) -> Self {
        let error = ScriptedError::new(Denied(failure));
        let script = Script::new().attempt(|a| a.connect_error(error));
        let mut case = Self::new(name, script, ["failed", error_type, message]);
        case.said[STATUS] = failure.status.map(|status| status.to_string());
        case
    }

    fn configure(self, configure: fn(L0Builder) -> L0Builder) -> Self {
        Self { configure, ..self }
    }

    /// What an exporter is to say.
    fn told_by(&self, exporter: &str) -> Said {
        let is_failure = self.name != "aborted";
        let carried = exporters::carried(exporter, is_failure);
        std::array::from_fn(|part| self.said[part].clone().filter(|_| carried[part]))
    }
}

struct Refuses;

impl Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("nobody pays for it"))
    }
}

fn guarded(builder: L0Builder) -> L0Builder {
    let rule = CustomPattern::phrases(["deadly"]).unwrap();
    let rule = rule.rule("no-death").severity(Severity::Fatal);
    let rule = rule.message("The answer is deadly");
    builder.guardrails(move || rule.clone())
}

#[rustfmt::skip] // a line each
fn cases() -> Vec<Case> {
    let status = Failure::status;
    let mut quota = status(429).detail("no credit left");
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
        Case::denied("429, quota exhausted", quota, "429", "status 429 Too Many Requests, no credit left"),
        Case::denied("500, retries exhausted", status(500), "server_error", "status 500 Internal Server Error"),
        Case::new("empty answer", Script::new().attempt(|a| a.token(" ")),
            ["failed", "zero_output", "the answer is empty: no visible text, no media, and no tool call"]),
        Case::new("guardrail halt", says(" deadly"),
            ["failed", "guardrail_violation", "guardrail violation: no-death (fatal): The answer is deadly"])
            .configure(guarded),
        Case::new("refused by a hook", says(""), ["failed", "refused", "refused: nobody pays for it"])
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

/// Makes the run of a case with all exporters attached.
fn tell(case: &Case, monitoring: Monitoring) -> Vec<(&'static str, Said, String)> {
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
    let told = readers.into_iter().flat_map(|read| read());
    told.map(|told| (told.exporter, (told.said)(), told.left))
        .collect()
}

/// A table with the exporters that say the same of all ends in one column.
fn table(cases: &[Case], told: &[Vec<(&str, Said, String)>]) -> String {
    let mut columns: Vec<(String, Vec<String>)> = Vec::new();
    for (place, (exporter, ..)) in told[0].iter().enumerate() {
        let cell = |told: &Vec<(&str, Said, String)>| {
            let (_, said, _) = &told[place];
            let said: Vec<_> = said.iter().flatten().map(String::as_str).collect();
            said.join(" · ")
        };
        let cells: Vec<_> = told.iter().map(cell).collect();
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
fn every_exporter_tells_the_same_end() {
    let cases = cases();
    let told = cases.iter().map(|case| tell(case, Monitoring::new()));
    let told = Vec::from_iter(told);
    let mut file = String::new();
    let mut apart = BTreeMap::<_, BTreeSet<_>>::new();
    for (case, told) in cases.iter().zip(&told) {
        assert_eq!(told.len(), 12);
        for (exporter, said, left) in told {
            let what = format!("{exporter}, {}", case.name);
            assert_eq!(*said, case.told_by(exporter), "{what}");
            for canary in [PROMPT, KEY, ANSWER] {
                assert!(!left.contains(canary), "{what}: {left}");
            }
            let is_new = apart.entry(exporter).or_default().insert(said);
            // Labels say that it was a limit; which one, the message does.
            let is_apart = is_new || said[MESSAGE].is_none();
            assert!(is_apart, "{what}: another end is told so too");
            if *exporter == "JSON" {
                file += left;
            }
        }
    }
    println!("Outcome · error type · status · message\n");
    println!("{}\n\n{}", table(&cases, &told), exporters::profile(&file));
}

#[test]
fn the_text_of_an_error_leaves_only_if_it_is_switched_on() {
    const TEXT: &str = "the script says so: no answer to `c4n4ry-prompt` with api_key=[redacted]";

    for mut case in cases() {
        let told = tell(&case, Monitoring::new().error_text(true));
        let is_denied = case.said[STATUS].is_some();
        if is_denied {
            case.said[MESSAGE] = Some(TEXT.to_owned());
        }
        for (exporter, mut said, left) in told {
            let what = format!("{exporter}, {}: {left}", case.name);
            let carries_it = is_denied && said[MESSAGE].is_some();
            if let (true, Some(message)) = (is_denied, &mut said[MESSAGE]) {
                // Behind it are the texts of the error's chain.
                message.truncate(TEXT.len());
            }
            assert_eq!(said, case.told_by(exporter), "{what}");
            assert_eq!(left.contains(TEXT), carries_it, "{what}");
            assert_eq!(left.contains(PROMPT), carries_it, "{what}");
            assert!(!left.contains(KEY) && !left.contains(ANSWER), "{what}");
            if exporter == "JSON" {
                let telemetry = json::read_lines(left.as_bytes()).next().unwrap().unwrap();
                for error in telemetry.network.errors.unwrap() {
                    assert_eq!(error.message.starts_with(TEXT), is_denied, "{what}");
                }
            }
        }
    }
}
