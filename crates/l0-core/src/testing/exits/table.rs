//! The rows of the table.

use std::io::ErrorKind;

use super::super::script::{Script, ScriptedAttempt, ScriptedError, ScriptedToken};
use super::{Consumer, ExpectedEnd, Hook, Last, MS, Row, STARTED, row, text};
use crate::budget::Budget;
use crate::check::{Check, Finding, Findings};
use crate::end::{Cause, End, LimitKind, TimeoutKind};
use crate::error::{Error, Refusal};
use crate::failure::Failure;
use crate::l0::L0Builder;
use crate::limits::Limits;
use crate::money::{Currency, Money};
use crate::observe::{Interceptor, NewRun};
use crate::price::{Cost, CostSource};
use crate::retry::{Backoff, Retry};
use crate::timeout::Timeouts;
use crate::token::{FinishReason, TokenKind};
use crate::usage::Usage;
use crate::verdict::{DriftReport, Severity, Violation};

/// Returns all rows.
pub(super) fn rows() -> impl Iterator<Item = Row> {
    let rows = [
        completed(),
        failed(),
        checked(),
        timed_out(),
        fallen_back(),
        stopped(),
        panicked(),
        limited(),
    ];
    rows.into_iter().flatten()
}

/// One token, which is the first of the run.
const ONE_TOKEN: &str = "attempt_started first_token token";

const TWO_TOKENS: &str = "attempt_started first_token token token";

const THREE_NETWORK_ERRORS: &str = "attempt_started network_error retry \
                                    attempt_started network_error retry \
                                    attempt_started network_error";

/// Answers after a delay.
fn answers() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").wait(5 * MS).token("!"))
}

/// Answers with everything that a provider can report.
fn answers_in_full() -> Script {
    let mut first = ScriptedToken::new(TokenKind::Text, "Hello");
    first.model = Some("gpt-4-0613".to_owned());
    first.response_id = Some("resp_1".to_owned());
    let usage = Usage::new().input(12).output(3).total(15);
    let usage = usage.cached_input(5).cache_write_input(4).reasoning(1);
    Script::new().attempt(|a| {
        let a = a.wait(5 * MS).item(first).wait(5 * MS).token("!");
        a.usage(usage).finish(FinishReason::Length)
    })
}

/// Yields an item after a delay, and then hangs.
fn hangs() -> Script {
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").hang())
}

/// Yields an item after a delay, and then fails.
fn fails(error: impl Into<ScriptedError>) -> Script {
    let error = error.into();
    Script::new().attempt(|a| a.wait(5 * MS).token("Hello").fail(error))
}

fn long_back_off(builder: L0Builder) -> L0Builder {
    builder.retry(Retry::new().backoff(Backoff::fixed(100 * MS)))
}

fn two_retries(builder: L0Builder) -> L0Builder {
    builder.retry(Retry::new().max_retries(2).backoff(Backoff::fixed(MS)))
}

const RESET: ErrorKind = ErrorKind::ConnectionReset;

fn completed() -> Vec<Row> {
    let behind = |a: ScriptedAttempt| {
        let answer = a.wait(5 * MS).token("Hello").finish(FinishReason::Stop);
        answer.fail(RESET)
    };
    let broken = "attempt_started first_token token network_error";
    vec![
        row(
            "completed",
            answers(),
            ExpectedEnd::completed().takes(10, TWO_TOKENS),
        ),
        row(
            "completed by a token limit",
            answers_in_full(),
            ExpectedEnd::completed().takes(10, TWO_TOKENS),
        ),
        row(
            "completed after a retry",
            fails(RESET).attempt(|a| a.wait(5 * MS).token("Hello").wait(7 * MS).token("!")),
            ExpectedEnd::completed().takes(
                18,
                "attempt_started first_token token network_error retry \
                 attempt_started token token",
            ),
        )
        .configure(two_retries)
        .no_watch(),
        row(
            "completed, and then the connection fails",
            Script::new().attempt(behind),
            ExpectedEnd::completed().takes(5, broken),
        )
        .configure(two_retries)
        .watch_fails(RESET, broken)
        .call(ExpectedEnd::source(RESET, 3).takes(17, THREE_NETWORK_ERRORS)),
        row(
            "empty but allowed",
            Script::new(),
            ExpectedEnd::completed().takes(0, STARTED),
        )
        .configure(|builder| builder.detect_zero_output(false)),
        row(
            "completed by a refusal of the model",
            Script::new().attempt(|a| a.finish(FinishReason::Refusal)),
            ExpectedEnd::completed().takes(0, STARTED),
        ),
    ]
}

fn failed() -> Vec<Row> {
    let denied = || Failure::status(401);
    let unconnected = Script::new().attempt(|a| a.connect_error(denied()));
    let empty = Script::new().attempt(|a| a.tokens([" ", "\u{200b}", "\n"]).reasoning("Well"));
    let broken = "attempt_started first_token token network_error";
    let mut rows = vec![
        row(
            "truncated",
            answers(),
            ExpectedEnd::failed(Cause::Truncated)
                .takes(10, "attempt_started first_token token token network_error"),
        )
        .expect_finish()
        .watch_ends(),
        row(
            "empty answer",
            empty,
            ExpectedEnd::failed(Cause::ZeroOutput)
                .takes(0, "attempt_started first_token token token token token"),
        )
        .watch_ends()
        .call(ExpectedEnd::completed().takes(0, STARTED)),
        row(
            "error while connecting",
            unconnected,
            ExpectedEnd::source(denied(), 1).takes(0, STARTED),
        )
        .no_watch(),
        row(
            "error in mid-stream",
            fails(RESET),
            ExpectedEnd::source(RESET, 1).takes(5, broken),
        )
        .watch_fails(RESET, broken),
        row(
            "retries exhausted",
            fails(RESET),
            ExpectedEnd::source(RESET, 3).takes(
                17,
                "attempt_started first_token token network_error retry \
                 attempt_started token network_error retry \
                 attempt_started token network_error",
            ),
        )
        .configure(two_retries)
        .no_watch(),
        row(
            "unknown error",
            fails("an unknown fault"),
            ExpectedEnd::source("an unknown fault", 1).takes(5, ONE_TOKEN),
        )
        .configure(two_retries)
        .watch_fails("an unknown fault", ONE_TOKEN),
        row(
            "faulty answer",
            fails(Failure::model()),
            ExpectedEnd::source(Failure::model(), 3).takes(
                17,
                "attempt_started first_token token retry \
                 attempt_started token retry \
                 attempt_started token",
            ),
        )
        .configure(two_retries)
        .watch_fails(Failure::model(), ONE_TOKEN),
    ];
    for (name, status) in [
        ("status 400", 400),
        ("status 401", 401),
        ("status 402", 402),
        ("status 404", 404),
    ] {
        let failure = Failure::status(status);
        let script = Script::new().attempt(|a| a.wait(5 * MS).fail(failure));
        let expected = ExpectedEnd::source(failure, 1).takes(5, STARTED);
        let row = row(name, script, expected).configure(two_retries);
        rows.push(row.watch_fails(failure, STARTED));
    }
    for (name, status) in [
        ("status 429, retries exhausted", 429),
        ("status 500, retries exhausted", 500),
    ] {
        let failure = Failure::status(status);
        let script = Script::new().attempt(|a| a.wait(5 * MS).fail(failure));
        let expected = ExpectedEnd::source(failure, 3).takes(17, THREE_NETWORK_ERRORS);
        let row = row(name, script, expected).configure(two_retries);
        rows.push(row.watch_fails(failure, "attempt_started network_error"));
    }
    rows
}

/// Reports a finding once it sees a phrase.
struct Finds<F>(&'static str, F);

impl<F: Finding> Check<F> for Finds<F> {
    fn name(&self) -> &'static str {
        "exit"
    }

    fn text(&mut self, delta: &str, findings: &mut Findings<F>) {
        if delta.contains(self.0) {
            findings.report(self.1.clone());
        }
    }
}

fn faulty() -> Violation {
    Violation::new("no-fault", Severity::Error, "The answer is faulty")
}

fn harmful() -> Violation {
    let violation = Violation::new("no-harm", Severity::Fatal, "The answer is harmful");
    violation.recoverable(false)
}

fn drift() -> DriftReport {
    DriftReport::new(["tone_shift"], 0.9)
}

fn checked() -> Vec<Row> {
    fn says(text: &str) -> Script {
        Script::new().attempt(|a| a.wait(5 * MS).token("Hello, ").token(text))
    }
    let violated = "attempt_started first_token token token violation";
    let drifted = "attempt_started first_token token token drift";
    vec![
        row(
            "halted by a rule",
            says("harmful"),
            ExpectedEnd::failed(Cause::Violation(harmful())).takes(5, violated),
        )
        .configure(|builder| two_retries(builder).guardrails(|| Finds("harmful", harmful())))
        .watch(ExpectedEnd::completed().takes(5, violated)),
        row(
            "recoverable violation, retries exhausted",
            says("faulty"),
            ExpectedEnd::completed().takes(
                17,
                "attempt_started first_token token token violation retry \
                 attempt_started token token violation retry \
                 attempt_started token token violation",
            ),
        )
        .configure(|builder| two_retries(builder).guardrails(|| Finds("faulty", faulty())))
        .watch(ExpectedEnd::completed().takes(5, violated)),
        row(
            "drift, recorded",
            says("drift"),
            ExpectedEnd::completed().takes(5, drifted),
        )
        .configure(|builder| two_retries(builder).drift(|| Finds("drift", drift()))),
        row(
            "drift, retries exhausted",
            says("drift"),
            ExpectedEnd::completed().takes(
                17,
                "attempt_started first_token token token drift retry \
                 attempt_started token token drift retry \
                 attempt_started token token drift",
            ),
        )
        .configure(|builder| two_retries(builder).drift(|| Finds("drift", drift().retry(true))))
        .watch(ExpectedEnd::completed().takes(5, drifted)),
        row(
            "drift and a violation, retries exhausted",
            says("faulty drift"),
            ExpectedEnd::completed().takes(
                17,
                "attempt_started first_token token token drift violation retry \
                 attempt_started token token drift violation retry \
                 attempt_started token token drift violation",
            ),
        )
        .configure(|builder| {
            let checked = two_retries(builder).drift(|| Finds("drift", drift()));
            checked.guardrails(|| Finds("faulty", faulty()))
        })
        .watch(
            ExpectedEnd::completed()
                .takes(5, "attempt_started first_token token token drift violation"),
        ),
    ]
}

fn timed_out() -> Vec<Row> {
    let timeout = |kind| ExpectedEnd::failed(Cause::Timeout(kind));
    let first_token = |builder: L0Builder| builder.timeouts(Timeouts::new().first_token(50 * MS));
    let in_mid_stream = "attempt_started first_token token network_error";
    vec![
        row(
            "first-token timeout of a slow source",
            Script::new().attempt(|a| a.hang()),
            timeout(TimeoutKind::FirstToken).takes(50, "attempt_started network_error"),
        )
        .configure(first_token)
        .no_call(),
        row(
            "first-token timeout of a slow factory",
            Script::new().attempt(|a| a.connect_hang()),
            timeout(TimeoutKind::FirstToken).takes(50, "attempt_started network_error"),
        )
        .configure(first_token)
        .no_call(),
        row(
            "inter-token timeout",
            hangs(),
            timeout(TimeoutKind::InterToken).takes(55, in_mid_stream),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().inter_token(50 * MS)))
        .no_call(),
        row(
            "answer timeout, which applies to calls only",
            answers(),
            ExpectedEnd::completed().takes(10, TWO_TOKENS),
        )
        .configure(|builder| two_retries(builder).timeouts(Timeouts::new().answer(7 * MS)))
        .call(timeout(TimeoutKind::Answer).takes(23, THREE_NETWORK_ERRORS)),
        row(
            "total timeout",
            hangs(),
            timeout(TimeoutKind::Total).takes(50, in_mid_stream),
        )
        .configure(|builder| {
            let timeouts = Timeouts::new().total(50 * MS);
            two_retries(builder).timeouts(timeouts)
        }),
        row(
            "idle timeout",
            hangs(),
            timeout(TimeoutKind::Idle).takes(55, in_mid_stream),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().idle(50 * MS)))
        .no_call(),
        row(
            "a back-off longer than the rest of the total timeout",
            fails(RESET),
            ExpectedEnd::source(RESET, 1).takes(5, in_mid_stream),
        )
        .configure(|builder| {
            let retry = Retry::new().backoff(Backoff::fixed(100 * MS));
            builder
                .retry(retry)
                .timeouts(Timeouts::new().total(50 * MS))
        }),
        row(
            "no timer to wait with",
            Script::new().attempt(|a| a.token("Hello").hang()),
            ExpectedEnd::failed(Cause::NoTimer)
                .takes(0, ONE_TOKEN)
                .takes_real_time(),
        )
        .consumer(Consumer::ReadsOutsideOfARuntime)
        .configure(|builder| {
            let timeouts = Timeouts::new().answer(50 * MS);
            builder.timeouts(timeouts.inter_token(50 * MS))
        }),
    ]
    .into_iter()
    .map(Row::no_watch)
    .collect()
}

fn fallen_back() -> Vec<Row> {
    let denied = || Failure::status(401);
    let refuses = || Script::new().attempt(|a| a.wait(5 * MS).fail(denied()));
    vec![
        row(
            "completed by a fallback before the first token",
            refuses(),
            ExpectedEnd::completed().takes(
                15,
                "attempt_started fallback attempt_started first_token token token",
            ),
        )
        .fallback(answers()),
        row(
            "completed by a fallback in mid-stream",
            fails(RESET),
            ExpectedEnd::completed().takes(
                15,
                "attempt_started first_token token network_error fallback \
                 attempt_started token token",
            ),
        )
        .fallback(answers()),
        row(
            "completed by a fallback after retries",
            fails(RESET),
            ExpectedEnd::completed().takes(
                27,
                "attempt_started first_token token network_error retry \
                 attempt_started token network_error retry \
                 attempt_started token network_error fallback \
                 attempt_started token token",
            ),
        )
        .configure(two_retries)
        .fallback(answers()),
        row(
            "all sources failed",
            fails(RESET),
            ExpectedEnd::source(denied(), 2).takes(
                10,
                "attempt_started first_token token network_error fallback attempt_started",
            ),
        )
        .fallback(refuses()),
        row(
            "no fallback after a total timeout",
            hangs(),
            ExpectedEnd::failed(Cause::Timeout(TimeoutKind::Total))
                .takes(50, "attempt_started first_token token network_error"),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().total(50 * MS)))
        .fallback(answers()),
        row(
            "no fallback after a rule that halts",
            Script::new().attempt(|a| a.wait(5 * MS).token("harmful")),
            ExpectedEnd::failed(Cause::Violation(harmful()))
                .takes(5, "attempt_started first_token token violation"),
        )
        .configure(|builder| builder.guardrails(|| Finds("harmful", harmful())))
        .fallback(answers()),
    ]
}

struct Refuses;

impl Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("the budget is spent"))
    }
}

struct PanicsBefore;

impl Interceptor for PanicsBefore {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        panic!("the interceptor panics")
    }
}

/// The item that crosses a limit is yielded, and the source, which would hang, is not polled again.
fn limited() -> Vec<Row> {
    let limit = |kind| ExpectedEnd::failed(Cause::Limit(kind));
    let refused = Error::Refused(Refusal::new("the budget is spent"));
    let refused = ExpectedEnd::new(
        End::refused("the budget is spent"),
        Last::Error(text(&refused)),
    );
    let dollar = Cost::new(Money::units(1), Currency::USD, CostSource::Provider);
    let costly = move || {
        Script::new().attempt(move |a| a.wait(5 * MS).token("Hello").cost(dollar).token("!").hang())
    };
    vec![
        row(
            "limited by tokens",
            Script::new().attempt(|a| a.wait(5 * MS).tokens(["Hello", "!"]).hang()),
            limit(LimitKind::OutputTokens).takes(5, TWO_TOKENS),
        )
        .configure(|builder| builder.limits(Limits::new().output_tokens(1)))
        .no_watch()
        .no_call(),
        row(
            "limited by cost",
            costly(),
            limit(LimitKind::Cost).takes(5, ONE_TOKEN),
        )
        .configure(|builder| builder.limits(Limits::new().cost(Money::cents(99))))
        .no_watch()
        .no_call(),
        row(
            "limited by a budget",
            costly(),
            limit(LimitKind::Budget).takes(5, ONE_TOKEN),
        )
        .configure(|builder| builder.budget(Budget::new(Money::cents(99))))
        .no_watch()
        .no_call(),
        row("refused by a budget", answers(), refused)
            .configure(|builder| builder.budget(Budget::new(Money::ZERO)))
            .no_watch(),
        row(
            "limited instead of a retry",
            Script::new().attempt(move |a| a.wait(5 * MS).finish(FinishReason::Stop).cost(dollar)),
            limit(LimitKind::Cost).takes(5, STARTED),
        )
        .configure(|builder| two_retries(builder).limits(Limits::new().cost(Money::cents(99))))
        .no_watch()
        .no_call(),
    ]
}

fn stopped() -> Vec<Row> {
    let refused = |reason: &str| {
        let error = Error::Refused(Refusal::new(reason));
        ExpectedEnd::new(End::refused(reason), Last::Error(text(&error)))
    };
    let aborted = || ExpectedEnd::failed(Cause::Aborted);
    let dropped = || ExpectedEnd::new(End::dropped(), Last::Unseen);
    let ready = || Script::new().attempt(|a| a.tokens(["Hello", ", ", "you"]));
    let silent = || Script::new().attempt(|a| a.hang());
    vec![
        row("refused", answers(), refused("the budget is spent"))
            .configure(|builder| builder.interceptor(Refuses))
            .watch_ends(),
        row(
            "refused by a panic",
            answers(),
            refused("an interceptor panicked before the run"),
        )
        .configure(|builder| builder.interceptor(PanicsBefore))
        .watch_ends(),
        row("aborted by handle", hangs(), aborted().takes(15, ONE_TOKEN))
            .consumer(Consumer::AbortsByHandleAfterOneItem)
            .watch_ends()
            .no_call(),
        row("aborted by future", hangs(), aborted().takes(10, ONE_TOKEN))
            .consumer(Consumer::AbortsByFutureAfterOneItem)
            .watch_ends()
            .no_call(),
        row(
            "aborted by future before the first token",
            silent(),
            aborted().takes(10, STARTED),
        )
        .consumer(Consumer::AbortsByFuture)
        .watch_ends(),
        row(
            "aborted by handle, source ready",
            ready(),
            aborted().takes(10, ONE_TOKEN),
        )
        .consumer(Consumer::AbortsByHandleAfterOneItem)
        .watch_ends()
        .no_call(),
        row(
            "aborted by handle while waiting",
            silent(),
            aborted().takes(10, STARTED),
        )
        .consumer(Consumer::AbortsByHandle)
        .watch_ends(),
        row(
            "aborted by handle in a back-off",
            fails(RESET),
            aborted().takes(10, "attempt_started first_token token network_error retry"),
        )
        .configure(long_back_off)
        .consumer(Consumer::AbortsByHandle)
        .no_watch(),
        row(
            "aborted by future in a back-off",
            fails(RESET),
            aborted().takes(10, "attempt_started first_token token network_error retry"),
        )
        .configure(long_back_off)
        .consumer(Consumer::AbortsByFuture)
        .no_watch(),
        row(
            "dropped in a back-off",
            fails(RESET),
            dropped().takes(10, "attempt_started first_token token network_error retry"),
        )
        .configure(long_back_off)
        .consumer(Consumer::IsATaskThatIsAborted)
        .no_watch(),
        row(
            "aborted by handle, then dropped before the first poll",
            answers(),
            aborted().last(Last::Unseen),
        )
        .consumer(Consumer::AbortsByHandleBeforeTheFirstPoll)
        .watch_has_started(),
        row(
            "aborted by handle, then dropped unpolled",
            answers(),
            aborted().last(Last::Unseen).takes(5, ONE_TOKEN),
        )
        .consumer(Consumer::AbortsByHandleThenDrops)
        .no_call(),
        row(
            "aborted by future, then dropped unpolled",
            answers(),
            aborted().last(Last::Unseen).takes(25, ONE_TOKEN),
        )
        .consumer(Consumer::AbortsByFutureThenDrops)
        .no_call(),
        row("dropped before the first poll", answers(), dropped())
            .consumer(Consumer::DropsBeforeTheFirstPoll)
            .watch_has_started(),
        row(
            "dropped in mid-stream",
            answers(),
            dropped().takes(5, ONE_TOKEN),
        )
        .consumer(Consumer::DropsAfterOneItem)
        .no_call(),
        row("task aborted", hangs(), dropped().takes(10, ONE_TOKEN))
            .consumer(Consumer::IsATaskThatIsAborted),
        row("runtime shut down", hangs(), dropped().takes(10, ONE_TOKEN))
            .consumer(Consumer::OutlivesItsRuntime),
        row(
            "panic in the consumer",
            answers(),
            dropped().last(Last::Panic).takes(5, ONE_TOKEN),
        )
        .consumer(Consumer::Panics)
        .no_call(),
    ]
}

fn panicked() -> Vec<Row> {
    let panic = || ExpectedEnd::new(End::of(Cause::Panic), Last::Panic);
    let source =
        Script::new().attempt(|a| a.wait(5 * MS).token("Hello").panic("the source panics"));
    let factory = Script::new().attempt(|a| a.connect_panic("the factory panics"));
    vec![
        row("panic in the source", source, panic().takes(5, ONE_TOKEN)),
        row("panic in the factory", factory, panic().takes(0, STARTED)).no_watch(),
        row("panic in the view", answers(), panic().takes(5, STARTED))
            .panics_in(Hook::View)
            .call(panic().takes(10, STARTED)),
        row("panic in an `until` future", answers(), panic())
            .panics_in(Hook::Until)
            .watch_has_started(),
        row(
            "panic in `classify`",
            fails(RESET),
            panic().takes(5, ONE_TOKEN),
        )
        .panics_in(Hook::Classify)
        .no_watch(),
        row(
            "panic in `decide`",
            fails(RESET),
            panic().takes(5, ONE_TOKEN),
        )
        .configure(|builder| builder.retry(Retry::new().decide(|_| panic!("`decide` panics"))))
        .no_watch(),
    ]
}
