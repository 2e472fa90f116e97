//! The errors of a run as its consumer receives them: texts, chains, their classification, and the
//! text of a run that has ended.

use std::collections::BTreeMap;
use std::error::Error as StdError;
use std::fmt;
use std::future::ready;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use futures_core::Stream;
use futures_util::{StreamExt, TryStreamExt};
use l0_core::testing::{Script, ScriptedError, exits};
use l0_core::{
    Backoff, Cause, Chunk, DriftReport, End, Error, Failure, FailureKind, L0, LimitKind,
    Monitoring, NetworkErrorKind, Outcome, Refusal, Retry, Severity, SourceError, TimeoutKind,
    Violation,
};

/// Returns the error of a run whose source always fails like this. The run makes `attempts` if the
/// error is retried.
fn failed<E: SourceError>(attempts: u32, error: impl Fn() -> E + Send) -> Error<E> {
    type Never<E> = Pin<Box<dyn Stream<Item = Result<&'static str, E>> + Send>>;
    let retry = Retry::new().model_retries(attempts - 1);
    let l0 = L0::builder()
        .retry(retry.max_retries(attempts - 1).backoff(Backoff::none()))
        .build();
    let mut run = l0
        .stream(move |_| ready(Err::<Never<E>, E>(error())))
        .start();
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    let runtime = runtime.expect("a runtime");
    runtime.block_on(run.text()).expect_err("it fails")
}

/// Returns the texts of an error and of its source chain.
fn chain(error: &(dyn StdError + 'static)) -> Vec<String> {
    let links = std::iter::successors(Some(error), |link| (*link).source());
    links.map(ToString::to_string).collect()
}

/// Asserts that no error of the chain repeats another one.
fn assert_nothing_is_repeated(error: &(dyn StdError + 'static)) {
    let chain = chain(error);
    for (place, text) in chain
        .iter()
        .enumerate()
        .filter(|(_, text)| !text.is_empty())
    {
        for (other, another) in chain.iter().enumerate() {
            assert!(
                place == other || !another.to_lowercase().contains(&text.to_lowercase()),
                "{text:?} is repeated: {chain:#?}"
            );
        }
    }
}

/// An application's error whose source is a `Failure`.
#[derive(Debug, Clone)]
struct Denied(&'static str, Failure);

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl StdError for Denied {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.1)
    }
}

fn violation() -> Violation {
    Violation::new("no-b", Severity::Fatal, "There is a b")
}

/// Every error that a run creates itself, with its cause.
fn own_errors<E>() -> Vec<(Error<E>, Cause)> {
    vec![
        (Error::Guardrail(violation()), Cause::Violation(violation())),
        (Error::ZeroOutput, Cause::ZeroOutput),
        (Error::Truncated, Cause::Truncated),
        (
            Error::Timeout(TimeoutKind::FirstToken),
            Cause::Timeout(TimeoutKind::FirstToken),
        ),
        (
            Error::Timeout(TimeoutKind::InterToken),
            Cause::Timeout(TimeoutKind::InterToken),
        ),
        (
            Error::Timeout(TimeoutKind::Total),
            Cause::Timeout(TimeoutKind::Total),
        ),
        (
            Error::Limit(LimitKind::OutputTokens),
            Cause::Limit(LimitKind::OutputTokens),
        ),
        (Error::Limit(LimitKind::Cost), Cause::Limit(LimitKind::Cost)),
        (Error::Aborted, Cause::Aborted),
        (Error::Refused(Refusal::new("over budget")), Cause::Refused),
        (Error::NoTimer, Cause::NoTimer),
    ]
}

/// Every end of a run.
fn ends() -> Vec<End> {
    let denied = io::Error::other(Failure::status(401));
    let mut ends = vec![
        End::dropped(),
        End::failed(&denied),
        End::refused("over budget"),
        End::of(Cause::Panic),
    ];
    ends.extend(
        own_errors::<io::Error>()
            .into_iter()
            .map(|(_, cause)| End::of(cause)),
    );
    ends.extend(exits::all().into_iter().map(|exit| exit.end));
    ends.retain(|end| end.outcome() != Outcome::Completed);
    ends
}

#[test]
fn every_error_has_this_text() {
    let own = |error: Error<io::Error>| error.to_string();
    let of_status = |attempts, status| {
        let denied = Denied("Incorrect API key", Failure::status(status));
        failed(attempts, || denied.clone()).to_string()
    };
    for (text, expected) in [
        (
            of_status(1, 401),
            "the source failed after 1 attempt (status 401)",
        ),
        (
            of_status(3, 503),
            "the source failed after 3 attempts (status 503)",
        ),
        (
            of_status(2, 429),
            "the source failed after 2 attempts (status 429)",
        ),
        (
            failed(1, || io::Error::other("an unknown fault")).to_string(),
            "the source failed after 1 attempt",
        ),
        (
            failed(2, || Failure::status(401)).to_string(),
            "the source failed after 1 attempt (status 401)",
        ),
        (
            failed(2, || Failure::network(NetworkErrorKind::Econnrefused)).to_string(),
            "the source failed after 2 attempts (connection refused)",
        ),
        (
            failed(1, || io::Error::from_raw_os_error(111)).to_string(),
            "the source failed after 1 attempt (connection refused)",
        ),
        // The source's own text is not repeated.
        (
            failed(2, || io::Error::from(io::ErrorKind::TimedOut)).to_string(),
            "the source failed after 2 attempts (timeout)",
        ),
        // A run whose source is a run, and a run around it.
        (
            deeper(failed(1, || {
                Denied("Incorrect API key", Failure::status(401))
            }))
            .to_string(),
            "the source, 1 run deep, failed after 1 attempt (status 401)",
        ),
        (
            deeper(deeper(failed(2, || Denied("No", Failure::status(503))))).to_string(),
            "the source, 2 runs deep, failed after 1 attempt (status 503)",
        ),
        (
            own(Error::Guardrail(violation())),
            "guardrail violation: no-b (fatal): There is a b",
        ),
        (
            own(Error::ZeroOutput),
            "the answer is empty: no visible text, no media, and no tool call",
        ),
        (
            own(Error::Truncated),
            "the stream ended without a finish reason",
        ),
        (
            own(Error::Timeout(TimeoutKind::FirstToken)),
            "the first token did not arrive in time",
        ),
        (
            own(Error::Timeout(TimeoutKind::InterToken)),
            "the next token did not arrive in time",
        ),
        (
            own(Error::Timeout(TimeoutKind::Total)),
            "the run took too long",
        ),
        (
            own(Error::Limit(LimitKind::OutputTokens)),
            "the limit of tokens was reached",
        ),
        (
            own(Error::Limit(LimitKind::Cost)),
            "the limit of cost was reached",
        ),
        (own(Error::Aborted), "the run was aborted"),
        (
            own(Error::Refused(Refusal::new("over budget"))),
            "refused: over budget",
        ),
        (
            own(Error::NoTimer),
            "waiting needs a Tokio runtime with its timer enabled (`Builder::enable_time`)",
        ),
        (
            own(Error::Ended(End::of(Cause::Truncated))),
            "the run had ended as truncated: the stream ended without a finish reason",
        ),
        (
            own(Error::Ended(End::of(Cause::Aborted))),
            "the run had ended as aborted: the run was aborted",
        ),
        (
            own(Error::Ended(End::dropped())),
            "the run had ended as dropped",
        ),
    ] {
        assert_eq!(text, expected);
        let first = expected.chars().next().expect("a text");
        assert!(first.is_lowercase(), "{expected}");
        assert!(!expected.ends_with('.'), "{expected}");
    }
}

#[test]
fn an_error_does_not_repeat_its_source() {
    let denied = Denied("Incorrect API key", Failure::status(401));
    let error = failed(1, || denied.clone());
    assert_eq!(
        chain(&error)[..2],
        [
            "the source failed after 1 attempt (status 401)",
            "Incorrect API key"
        ]
    );
    assert_eq!(
        error.into_source().map(|source| source.0),
        Some("Incorrect API key")
    );
}

/// An error whose text is endless, or cannot be formatted.
#[derive(Debug, Clone, Copy)]
enum Unspeakable {
    Endless,
    Faulty,
}

impl fmt::Display for Unspeakable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endless => {
                (0..10_000).try_for_each(|_| f.write_str("and so on "))?;
                panic!("the text was not cut")
            }
            Self::Faulty => Err(fmt::Error),
        }
    }
}

impl StdError for Unspeakable {}

#[test]
fn an_error_displays_whatever_its_source_does() {
    for source in [Unspeakable::Endless, Unspeakable::Faulty] {
        let error = failed(1, || source);
        assert_eq!(error.to_string(), "the source failed after 1 attempt");
    }
}

#[test]
fn a_failure_in_a_chain_displays_its_classification() {
    let refused = Failure::network(NetworkErrorKind::Econnrefused);
    let quota = Failure::status(429).retry_after(Duration::from_secs(2));
    for (failure, expected) in [
        (refused, "classified as connection refused"),
        (
            Failure::status(401),
            "classified as not retryable, status 401",
        ),
        (
            quota.detail("no credit left"),
            "classified as rate limited, status 429, no credit left, retry after 2 s",
        ),
        (Failure::model(), "classified as faulty answer"),
        (Failure::fatal(), "classified as not retryable"),
    ] {
        assert_eq!(failure.to_string(), expected);
    }
}

/// Every kind of failure, with and without the details of a server.
fn failures() -> Vec<Failure> {
    let mut failures = vec![
        Failure::model(),
        Failure::fatal(),
        Failure::status(429),
        Failure::status(503).retry_after(Duration::from_millis(1)),
    ];
    failures.extend([400, 401, 402, 404, 418, 429, 500, 529].map(Failure::status));
    failures.extend(NetworkErrorKind::ALL.iter().copied().map(Failure::network));
    failures
}

/// Errors of the system, plain and as clients wrap them.
fn io_errors() -> Vec<fn() -> io::Error> {
    vec![
        || io::ErrorKind::ConnectionRefused.into(),
        || io::ErrorKind::ConnectionReset.into(),
        || io::ErrorKind::ConnectionAborted.into(),
        || io::ErrorKind::BrokenPipe.into(),
        || io::ErrorKind::NotConnected.into(),
        || io::ErrorKind::TimedOut.into(),
        || io::ErrorKind::UnexpectedEof.into(),
        || io::ErrorKind::HostUnreachable.into(),
        || io::ErrorKind::PermissionDenied.into(),
        || io::Error::from_raw_os_error(104),
        || io::Error::from_raw_os_error(111),
        || io::Error::from_raw_os_error(110),
        || io::Error::from_raw_os_error(32),
        || io::Error::new(io::ErrorKind::ConnectionReset, "the peer went away"),
        || io::Error::other("an unknown fault"),
        || io::Error::other("Connection refused"),
        || io::Error::other("rate limited"),
        || io::Error::other("status 503"),
        || io::Error::other("the source is offline"),
        || io::Error::other(Denied("Incorrect API key", Failure::status(401))),
        || io::Error::other(""),
    ]
}

/// Returns the error of a run whose source is a run that failed with this error.
fn deeper<E: SourceError>(error: E) -> Error<E> {
    let once = Mutex::new(Some(error));
    failed(1, || {
        let error = once.lock().expect("no panic").take();
        error.expect("one attempt is made")
    })
}

/// Asserts the chain of the error, and of the errors of runs around it.
fn assert_chain<E: SourceError>(error: Error<E>) {
    let meaning = Failure::read(&error);
    let depth = chain(&error).len();
    assert_nothing_is_repeated(&error);
    let error = deeper(error);
    assert_nothing_is_repeated(&error);
    let error = deeper(error);
    assert_nothing_is_repeated(&error);
    let error = deeper(error);
    assert_nothing_is_repeated(&error);
    assert_eq!(chain(&error).len(), depth + 3, "no link is left out");
    assert_eq!(Failure::read(&error), meaning, "{:?}", chain(&error));
    let Error::Source { failure, .. } = &error else {
        panic!("{error:?}");
    };
    assert_eq!(*failure, meaning);
}

#[test]
fn no_text_is_repeated_in_a_chain_and_a_run_inside_a_run_has_the_same_texts() {
    for attempts in [1, 2] {
        for failure in failures() {
            assert_chain(failed(attempts, || failure));
            assert_chain(failed(attempts, || Denied("Incorrect API key", failure)));
            assert_chain(failed(attempts, || io::Error::other(failure)));
        }
        for error in io_errors() {
            assert_chain(failed(attempts, error));
        }
    }
    for (error, _) in own_errors::<io::Error>() {
        assert_chain(error);
    }
    for end in ends() {
        assert_chain(Error::<io::Error>::Ended(end));
    }
}

#[test]
fn an_outer_run_classifies_the_error_of_an_inner_run_the_same() {
    let kind = |error: &Error<io::Error>| Failure::read(error).kind;
    for (error, cause) in own_errors::<io::Error>() {
        let expected = match &cause {
            Cause::Truncated => FailureKind::Network(NetworkErrorKind::PartialChunks),
            Cause::Timeout(_) => FailureKind::Network(NetworkErrorKind::Timeout),
            Cause::ZeroOutput => FailureKind::Model,
            _ => FailureKind::Fatal,
        };
        assert_eq!(kind(&error), expected, "{error}");
        let deeper = deeper(error);
        assert_eq!(Failure::read(&deeper).kind, expected, "{deeper}");
    }
    for failure in failures() {
        let around = deeper(failed(1, || Denied("Incorrect API key", failure)));
        assert_eq!(Failure::read(&around), failure);
    }
    // The text of a run that has ended returns the same end.
    for end in ends() {
        assert_eq!(kind(&Error::Ended(end)), FailureKind::Fatal);
    }
}

#[test]
fn an_error_contains_the_end_of_its_run() {
    for (error, cause) in own_errors::<io::Error>() {
        let end = match cause {
            Cause::Refused => End::refused("over budget"),
            cause => End::of(cause),
        };
        assert_eq!(error.end(), end, "{error}");
        assert_eq!(error.outcome(), end.outcome(), "{error}");
        assert!(error.into_source().is_none());
    }
    for end in ends() {
        let error = Error::<io::Error>::Ended(end.clone());
        assert_eq!((error.outcome(), error.end()), (end.outcome(), end));
    }
    let source = || io::Error::other(Failure::status(401));
    let failed = failed(1, source);
    assert_eq!(failed.outcome(), Outcome::Failed);
    assert_eq!(failed.end(), End::failed(&source()));
}

/// The error of a stream, the end of its run, and its telemetry agree.
#[tokio::test(start_paused = true)]
async fn the_error_of_the_stream_agrees_with_the_end() {
    let reset = || ScriptedError::from(io::ErrorKind::ConnectionReset);
    for (script, attempts, cause) in [
        (
            Script::new().attempt(|a| a.fail(Failure::status(401))),
            1,
            Cause::Source,
        ),
        (
            Script::new().attempt(|a| a.token("a").fail(reset())),
            3,
            Cause::Source,
        ),
        (Script::new(), 3, Cause::ZeroOutput),
    ] {
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .retry(Retry::new().max_retries(2).backoff(Backoff::none()))
            .build();
        let mut run = l0.stream(script.source()).start();
        let error = run.text().await.expect_err("it fails");
        let end = run.end().expect("it has ended");
        assert_eq!(end.cause(), Some(&cause));
        assert_eq!(error.outcome(), end.outcome());
        assert_eq!(error.end(), *end);
        if let Error::Source {
            source,
            failure,
            attempts: made,
            ..
        } = &error
        {
            assert_eq!(*made, attempts);
            assert_eq!(Some(*failure), end.failure());
            assert_eq!(*end, End::failed(source));
        }
        assert_eq!(script.calls(), attempts as usize);
        let telemetry = run.telemetry().expect("measured");
        let record = telemetry.error.expect("it failed");
        assert_eq!(Some(&*record.message), end.message());
        assert_eq!(Some(record.error_type), end.error_type());
        assert_eq!(telemetry.metrics.attempts, attempts);
    }
}

#[tokio::test]
async fn classify_determines_the_error_and_the_end() {
    let teapot = Failure::status(418);
    let script = Script::new().attempt(|a| a.fail("an unknown fault"));
    let mut run = L0::default()
        .stream(script.source())
        .classify(move |_| Some(teapot))
        .start();
    let error = run.text().await.expect_err("it fails");
    assert_eq!(
        error.to_string(),
        "the source failed after 1 attempt (status 418)"
    );
    let end = run.end().expect("it has ended");
    assert_eq!(end.failure(), Some(teapot));
    assert_eq!(end.error_type().as_deref(), Some("418"));

    // The same for a run around it that classifies the inner run's error.
    let script = Script::new().attempt(|a| a.fail("an unknown fault"));
    let inside = || {
        L0::default()
            .stream(script.source())
            .classify(move |_| Some(teapot))
            .start()
    };
    let mut around = L0::default()
        .stream(|_| ready(Ok(inside().map_ok(|_| "item"))))
        .classify(|error: &Error<ScriptedError>| match error {
            Error::Source { failure, .. } => Some(*failure),
            _ => None,
        })
        .start();
    around.text().await.expect_err("it fails");
    let end = around.end().expect("it has ended");
    assert_eq!(end.failure(), Some(teapot));
}

#[tokio::test(start_paused = true)]
async fn the_text_of_an_ended_run_returns_how_it_ended() {
    let answers = || Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
    let completed = |script: Script| async move {
        let mut run = L0::default().stream(script.source()).start();
        let first = run.text().await;
        (first.is_ok(), run.text().await, run.text().await)
    };
    let (ok, second, third) = completed(answers()).await;
    assert!(ok);
    for again in [second, third] {
        assert_eq!(again.expect("it completed"), "", "nothing was left");
    }

    for (name, script, expected) in [
        (
            "failed",
            Script::new().attempt(|a| a.token("a").fail(Failure::status(401))),
            Cause::Source,
        ),
        ("empty", Script::new(), Cause::ZeroOutput),
    ] {
        let mut run = L0::builder()
            .retry(Retry::none())
            .build()
            .stream(script.source())
            .start();
        run.text().await.expect_err(name);
        let end = run.end().expect(name).clone();
        assert_eq!(end.cause(), Some(&expected), "{name}");
        for _ in 0..2 {
            match run.text().await {
                Err(Error::Ended(reported)) => assert_eq!(reported, end, "{name}"),
                other => panic!("{name}: {other:?}"),
            }
        }
        assert_eq!(script.calls(), 1, "{name}: it is not called again");
    }
}

#[tokio::test(start_paused = true)]
async fn the_text_after_the_last_item_of_the_stream_returns_how_the_run_ended() {
    // Read as a stream up to the error, before the call of `text`.
    let script = Script::new().attempt(|a| a.token("a").fail(Failure::status(401)));
    let mut run = L0::default().stream(script.source()).start();
    while let Some(chunk) = run.next().await {
        if chunk.is_err() {
            break;
        }
    }
    let end = run.end().expect("it has ended").clone();
    let again = run.text().await;
    assert!(
        matches!(&again, Err(Error::Ended(reported)) if *reported == end),
        "{again:?}"
    );

    // Aborted, and not polled before the call of `text`.
    let script = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
    let mut run = L0::default().stream(script.source()).start();
    let first = run.next().await;
    assert!(matches!(first, Some(Ok(Chunk::Item(_)))));
    run.handle().abort();
    let text = run.text().await;
    assert!(matches!(text, Err(Error::Aborted)), "{text:?}");
    let again = run.text().await;
    assert!(
        matches!(&again, Err(Error::Ended(end)) if end.outcome() == Outcome::Aborted),
        "{again:?}"
    );

    // Half read, then to the end: returns the rest.
    let script = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
    let mut run = L0::default().stream(script.source()).start();
    run.next().await;
    assert_eq!(run.text().await.expect("it completes"), "lo");
}

#[tokio::test]
async fn a_refused_run_returns_its_refusal_once_and_then_how_it_ended() {
    struct Refuses;

    impl l0_core::Interceptor for Refuses {
        fn before(&self, _: &mut l0_core::NewRun) -> Result<(), Refusal> {
            Err(Refusal::new("over budget"))
        }
    }

    let script = Script::new().attempt(|a| a.token("a"));
    let l0 = L0::builder().interceptor(Refuses).build();
    let mut run = l0.stream(script.source()).start();
    let first = run.text().await;
    assert!(
        matches!(&first, Err(Error::Refused(refusal)) if refusal.message == "over budget"),
        "{first:?}"
    );
    let again = run.text().await;
    assert!(
        matches!(&again, Err(Error::Ended(end)) if *end == End::refused("over budget")),
        "{again:?}"
    );
    assert_eq!(script.calls(), 0);
}

#[test]
fn the_text_after_a_panic_reports_the_panic() {
    let script = Script::new().attempt(|a| a.token("a").panic("the source panics"));
    let mut run = L0::default().stream(script.source()).start();
    let runtime = || {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("a runtime")
    };
    let panicked = catch_unwind(AssertUnwindSafe(|| runtime().block_on(run.text())));
    assert!(panicked.is_err());
    let again = runtime().block_on(run.text());
    assert!(
        matches!(&again, Err(Error::Ended(end)) if *end == End::of(Cause::Panic)),
        "{again:?}"
    );
}

/// The error types of runs whose source fails like this, as counters report them.
#[tokio::test(start_paused = true)]
async fn ends_have_stable_error_types() {
    let mut types = BTreeMap::new();
    for failure in failures() {
        let end = End::failed(&failure);
        let known = failure.network_error_kind();
        let expected = match (known, failure.status, failure.kind) {
            (Some(kind), ..) => kind.as_str().to_owned(),
            (None, Some(status), _) => status.to_string(),
            (None, None, FailureKind::Model) => "model_error".to_owned(),
            (None, None, _) => "_OTHER".to_owned(),
        };
        assert_eq!(end.error_type().as_deref(), Some(&*expected));
        assert_eq!(failure.error_type(), expected);
        types.insert(expected, end);
    }
    assert!(types.len() > 20, "{types:?}");
    for (cause, expected) in [
        (Cause::Truncated, "truncated"),
        (Cause::ZeroOutput, "zero_output"),
        (Cause::Timeout(TimeoutKind::Total), "timeout"),
        (Cause::Violation(violation()), "guardrail_violation"),
        (Cause::Drift(DriftReport::new(["tone"], 0.5)), "drift"),
        (Cause::Limit(LimitKind::Cost), "limit"),
        (Cause::Refused, "refused"),
        (Cause::Aborted, "aborted"),
        (Cause::NoTimer, "no_timer"),
        (Cause::Panic, "panic"),
    ] {
        assert_eq!(End::of(cause).error_type().as_deref(), Some(expected));
    }
}
