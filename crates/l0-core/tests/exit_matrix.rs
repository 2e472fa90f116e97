//! Every way a run can end, measured and not, retried and watched: exactly one `Finished` before
//! the last item, with the end that the architecture defines. Everything that carries the end
//! agrees.

use std::collections::BTreeSet;
use std::future::poll_fn;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_core::Stream;
use l0_core::testing::exits::{self, Exit, Exited, Last, Subject};
use l0_core::testing::{Captured, OwnedEvent, Script};
use l0_core::{AttemptStats, Cause, End, ErrorRecord, L0, Limits, Monitoring, Outcome, Retry};
use tokio::runtime::Runtime;

fn finished(captured: &Captured) -> Vec<OwnedEvent> {
    let events = captured.events().into_iter();
    events.filter(|event| event.name() == "finished").collect()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

/// Asserts that the end comes once, before the last item, and that nothing follows.
fn assert_in_order(exited: &Exited, what: &str) {
    let trace = &exited.trace;
    let places = |name: &str| {
        let places = trace.iter().enumerate().filter(|(_, one)| **one == name);
        Vec::from_iter(places.map(|(place, _)| place))
    };
    assert_eq!(trace.first(), Some(&"started"), "{what}");
    let finished = places("finished");
    assert_eq!(finished.len(), 1, "{what}: {trace:?}");
    let after = &trace[finished[0] + 1..];
    match &exited.at_last_item {
        Some(_) => assert_eq!(after, ["last"], "{what}: finished, and then the last item"),
        None => assert!(after.is_empty(), "{what}: finished, and then {after:?}"),
    }
    for aborted in places("abort") {
        assert!(
            aborted < finished[0],
            "{what}: nothing happens without a poll"
        );
    }
}

fn check(exit: &Exit, measurement: &str, monitoring: Monitoring) {
    let what = format!("{exit}, {measurement}");
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(monitoring)
        .interceptor(captured.clone());
    let exited = exit.run(runtime(), builder);
    let handle = &exited.handle;

    assert_eq!(exited.last, exit.last, "{what}");
    assert_in_order(&exited, &what);
    let seen = matches!(exit.last, Last::End | Last::Error(_));
    assert_eq!(exited.at_last_item.is_some(), seen, "{what}");
    if let Some(run) = &exited.at_last_item {
        assert_eq!(
            run.end.as_ref(),
            Some(&exit.end),
            "{what}: the end is final"
        );
        assert_eq!(run.telemetry, handle.telemetry(), "{what}: so is telemetry");
        assert_ne!(run.is_terminated, Some(false), "{what}: fused");
    }
    assert!(handle.is_finished(), "{what}");
    assert_eq!(handle.end().as_ref(), Some(&exit.end), "{what}");
    let outcome = exit.end.outcome();
    assert_eq!(handle.outcome(), Some(outcome), "{what}");

    assert_eq!(exited.info.observer_panics(), 0, "{what}");

    let events = captured.events();
    assert_eq!(captured.kinds(), exit.events, "{what}");
    assert_eq!(exit.events.first(), Some(&"started"), "{what}");
    assert_eq!(exit.count("finished"), 1, "{what}");
    let Some(OwnedEvent::Finished {
        end,
        telemetry,
        error,
        ..
    }) = events.last()
    else {
        panic!("{what}: the last event is {:?}", events.last());
    };
    assert_eq!(*end, exit.end, "{what}");
    let of_source = exit.end.cause() == Some(&Cause::Source);
    assert_eq!(error.is_some(), of_source, "{what}: {error:?}");

    let measured = measurement == "measured";
    assert_eq!(telemetry.is_some(), measured, "{what}");
    assert_eq!(telemetry.as_deref(), handle.telemetry().as_ref(), "{what}");
    assert_eq!(exited.info.measured(), measured, "{what}");
    let Some(telemetry) = telemetry else {
        for event in &events {
            assert_untimed(event, &what);
        }
        return;
    };
    assert_eq!(telemetry.session_id, exited.info.id(), "{what}");
    assert_eq!(telemetry.outcome, Some(outcome), "{what}");
    assert_eq!(telemetry.error, ErrorRecord::of(&exit.end), "{what}");
    let metrics = &telemetry.metrics;
    let count = |name: &str| exit.count(name);
    assert_eq!(metrics.total_tokens, count("token"), "{what}");
    assert_eq!(
        u64::from(metrics.attempts),
        count("attempt_started"),
        "{what}"
    );
    assert_eq!(u64::from(metrics.total_retries), count("retry"), "{what}");
    assert_eq!(
        u64::from(telemetry.fallbacks()),
        count("fallback"),
        "{what}"
    );
    assert_eq!(
        count("attempt_started"),
        count("attempt_finished"),
        "{what}"
    );
    assert_eq!(finished_attempts(&events), telemetry.attempts, "{what}");
    let last = telemetry.attempts.last();
    if exit.events.iter().nth_back(1) == Some(&"attempt_finished") {
        assert_eq!(last.and_then(|last| last.outcome), Some(outcome), "{what}");
        assert_eq!(
            last.map(|last| &last.error),
            Some(&telemetry.error),
            "{what}"
        );
    }
    assert_eq!(
        telemetry.network.error_count,
        count("network_error"),
        "{what}"
    );
    assert!(telemetry.duration.is_some(), "{what}");
    if exit.duration.is_some() {
        assert_eq!(telemetry.duration, exit.duration, "{what}");
    }
    assert_eq!(
        metrics
            .wait
            .zip(metrics.consumer_hold)
            .map(|(wait, hold)| wait + hold),
        telemetry.duration,
        "{what}"
    );
}

/// Returns the attempts of the `AttemptFinished` events.
fn finished_attempts(events: &[OwnedEvent]) -> Vec<AttemptStats> {
    let reported = events.iter().filter_map(|event| match event {
        OwnedEvent::AttemptFinished { attempt, .. } => Some((**attempt).clone()),
        _ => None,
    });
    reported.collect()
}

fn assert_untimed(event: &OwnedEvent, what: &str) {
    match event {
        OwnedEvent::Started { at, .. } => assert_eq!(*at, None, "{what}"),
        OwnedEvent::FirstToken { after, .. } => assert_eq!(*after, None, "{what}"),
        OwnedEvent::Token { gap, .. } => assert_eq!(*gap, None, "{what}"),
        OwnedEvent::AttemptFinished { attempt, .. } => {
            assert_eq!(
                (attempt.start_offset, attempt.duration),
                (None, None),
                "{what}"
            );
        }
        _ => {}
    }
}

#[test]
fn every_exit_finishes_exactly_once_with_its_end() {
    for exit in exits::all() {
        check(&exit, "measured", Monitoring::new());
        check(&exit, "sampled out", Monitoring::new().sample_rate(0.0));
        check(&exit, "off", Monitoring::off());
    }
}

/// With the texts of errors, only the message of the source's own failure can differ, and it is the
/// same everywhere.
#[test]
fn error_texts_change_only_the_message_of_the_end() {
    for exit in exits::all() {
        let captured = Captured::new();
        let builder = L0::builder()
            .monitoring(Monitoring::new().error_text(true))
            .interceptor(captured.clone());
        let exited = exit.run(runtime(), builder);
        let handle = &exited.handle;
        let end = handle.end().expect("it has ended");
        assert_eq!(end.cause(), exit.end.cause(), "{exit}");
        assert_eq!(end.failure(), exit.end.failure(), "{exit}");
        assert_eq!(end.outcome(), exit.end.outcome(), "{exit}");
        if end.cause() != Some(&Cause::Source) {
            assert_eq!(end, exit.end, "{exit}");
        }
        if let Some(run) = &exited.at_last_item {
            assert_eq!(run.end.as_ref(), Some(&end), "{exit}");
        }
        let Some(OwnedEvent::Finished { end: reported, .. }) = captured.events().pop() else {
            panic!("{exit}");
        };
        assert_eq!(reported, end, "{exit}");
        let telemetry = handle.telemetry().expect("measured");
        assert_eq!(telemetry.error, ErrorRecord::of(&end), "{exit}");
    }
}

/// The parts of an end agree with each other and with the record in telemetry.
#[test]
fn the_parts_of_an_end_agree() {
    for exit in exits::all() {
        let end = &exit.end;
        let outcome = end.outcome();
        let unexplained = matches!(outcome, Outcome::Completed | Outcome::Dropped);
        assert_eq!(end.cause().is_none(), unexplained, "{exit}");
        assert_eq!(end.failure().is_none(), unexplained, "{exit}");
        assert_eq!(end.message().is_none(), unexplained, "{exit}");
        assert_eq!(end.error_type().is_none(), unexplained, "{exit}");
        assert_ne!(end.message(), Some(""), "{exit}");
        assert_eq!(end.is_failure(), outcome.is_failure(), "{exit}");
        if let Some(cause) = end.cause() {
            assert_eq!(cause.outcome(), outcome, "{exit}");
        }
        let record = ErrorRecord::of(end);
        assert_eq!(record.is_none(), unexplained, "{exit}");
        if let Some(record) = record {
            assert_eq!(Some(record.error_type), end.error_type(), "{exit}");
            assert_eq!(Some(&*record.message), end.message(), "{exit}");
            assert_eq!(record.status, end.failure().expect("it has one").status);
        }
        // A clone has the same value.
        assert_eq!(end.clone(), *end);
    }
}

#[test]
fn the_table_contains_every_outcome_and_error_type() {
    let exits = exits::all();
    let names = BTreeSet::from_iter(exits.iter().map(ToString::to_string));
    assert_eq!(names.len(), exits.len(), "each has a unique name");
    let outcomes = BTreeSet::from_iter(exits.iter().map(|exit| exit.end.outcome()));
    let known = BTreeSet::from_iter(Outcome::ALL.iter().copied());
    assert_eq!(outcomes, known);

    let types = exits.iter().filter_map(|exit| exit.end.error_type());
    let types = BTreeSet::from_iter(types);
    for expected in [
        "400",
        "401",
        "402",
        "404",
        "rate_limited",
        "server_error",
        "econnreset",
        "model_error",
        "truncated",
        "zero_output",
        "timeout",
        "guardrail_violation",
        "limit",
        "refused",
        "aborted",
        "no_timer",
        "panic",
        "_OTHER",
    ] {
        assert!(types.contains(expected), "{expected} is not in {types:?}");
    }
    let watched = exits.iter().filter(|exit| exit.subject == Subject::Watch);
    assert!(watched.count() > 20);
}

#[test]
fn an_exit_can_be_run_again() {
    let exits = exits::all();
    let retried = exits
        .iter()
        .find(|exit| exit.name == "completed after a retry");
    let retried = retried.expect("it is in the table");
    let [first, again] = [(); 2].map(|()| retried.run(runtime(), L0::builder()));
    assert_eq!(first.trace, again.trace);
    assert_eq!(
        first.trace,
        [
            "started",
            "attempt_started",
            "first_token",
            "item",
            "network_error",
            "attempt_finished",
            "retry",
            "restart",
            "attempt_started",
            "item",
            "item",
            "attempt_finished",
            "finished",
            "last",
        ]
    );
    assert_eq!(first.handle.end(), Some(End::completed()));
}

#[test]
fn a_panic_in_classify_decide_or_the_view_propagates_and_fails_the_run() {
    let reset = || Script::new().attempt(|a| a.fail(ErrorKind::ConnectionReset));
    for hook in ["classify", "decide", "view"] {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .interceptor(captured.clone())
            .build();
        let script = if hook == "view" {
            Script::new().attempt(|a| a.token("a"))
        } else {
            reset()
        };
        let mut builder = l0.stream(script.source());
        if hook == "classify" {
            builder = builder.classify(|_| panic!("in classify"));
        }
        if hook == "decide" {
            builder = builder.retry(Retry::new().decide(|_| panic!("in decide")));
        }
        let mut run = if hook == "view" {
            builder.view_with(|_| panic!("in view")).start()
        } else {
            builder.start()
        };
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            runtime().block_on(poll_fn(|cx| Pin::new(&mut run).poll_next(cx)))
        }));
        assert!(panicked.is_err(), "{hook}: the panic propagates");
        assert_eq!(run.outcome(), Some(Outcome::Failed), "{hook}");
        assert_eq!(run.end(), Some(&End::of(Cause::Panic)), "{hook}");
        assert_eq!(finished(&captured).len(), 1, "{hook}");
        let again = runtime().block_on(poll_fn(|cx| Pin::new(&mut run).poll_next(cx)));
        assert!(again.is_none(), "{hook}: fused");
    }
}

/// Ends after this many items, and panics when it is dropped.
struct DropPanics(u32);

impl Stream for DropPanics {
    type Item = std::io::Result<&'static str>;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.0.checked_sub(1).map(|left| {
            self.0 = left;
            Ok("item")
        }))
    }
}

impl Drop for DropPanics {
    fn drop(&mut self) {
        panic!("in drop");
    }
}

#[test]
fn a_panic_of_a_source_that_is_dropped_inside_a_poll_fails_the_run() {
    for (name, limits, aborts) in [
        ("at its end", Limits::new(), false),
        ("at a limit", Limits::new().output_tokens(1), false),
        ("at an abort", Limits::new(), true),
    ] {
        let captured = Captured::new();
        let l0 = L0::builder().interceptor(captured.clone()).build();
        let source = |_| async { std::io::Result::Ok(DropPanics(2)) };
        let mut run = l0.stream(source).limits(limits).start();
        let runtime = runtime();
        let mut next = || runtime.block_on(poll_fn(|cx| Pin::new(&mut run).poll_next(cx)));
        assert!(next().is_some_and(|item| item.is_ok()));
        assert!(next().is_some_and(|item| item.is_ok()));
        if aborts {
            l0.abort_all();
        }
        let panicked = catch_unwind(AssertUnwindSafe(&mut next));
        assert!(panicked.is_err(), "{name}: the panic propagates");
        assert!(next().is_none(), "{name}: fused");
        assert_eq!(run.end(), Some(&End::of(Cause::Panic)), "{name}");
        assert_eq!(finished(&captured).len(), 1, "{name}");
    }
}
