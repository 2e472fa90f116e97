//! Every way a run can end, measured and not, retried and watched: exactly one `Finished`, with
//! the outcome that the architecture names, before the last item, and telemetry that agrees.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_core::Stream;
use l0_core::testing::{Captured, OwnedEvent, Script, ScriptedStream};
use l0_core::{
    Backoff, Error, Failure, Interceptor, L0, L0Builder, Monitoring, Outcome, Refusal, NewRun,
    Retry, Run, RunHandle, Telemetry, TimeoutKind, Timeouts, Watched,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const MS: Duration = Duration::from_millis(1);

/// What the consumer does with the stream.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Consumer {
    ReadsToTheEnd,
    DropsBeforeTheFirstPoll,
    DropsAfterOneItem,
    AbortsByHandleAfterOneItem,
    CancelsTheFutureAfterOneItem,
    AbortsByHandleThenDrops,
    CancelsTheFutureThenDrops,
    IsATaskThatIsAborted,
    Panics,
    OutlivesItsRuntime,
}
use Consumer::*;

/// The last item that the consumer saw.
#[derive(Debug, Clone, PartialEq)]
enum Last {
    /// It saw none: it dropped the stream.
    Unseen,
    End,
    Error(String),
    Panic,
}

struct Case {
    name: &'static str,
    script: Script,
    consumer: Consumer,
    configure: fn(L0Builder) -> L0Builder,
    expect_finish: bool,
    stream: (Outcome, Last),
    /// `None` where a watched stream cannot end this way.
    watch: Option<(Outcome, Last)>,
    /// Network errors that telemetry counts: retried, and watched.
    network_errors: (u64, u64),
}

fn case(name: &'static str, script: Script, outcome: Outcome, last: Last) -> Case {
    Case {
        name,
        script,
        consumer: ReadsToTheEnd,
        configure: |builder| builder,
        expect_finish: false,
        watch: Some((outcome, last.clone())),
        stream: (outcome, last),
        network_errors: (0, 0),
    }
}

impl Case {
    fn consumer(mut self, consumer: Consumer) -> Self {
        self.consumer = consumer;
        self
    }

    fn configure(mut self, configure: fn(L0Builder) -> L0Builder) -> Self {
        self.configure = configure;
        self
    }

    fn expect_finish(mut self) -> Self {
        self.expect_finish = true;
        self
    }

    fn watch(mut self, watch: Option<(Outcome, Last)>) -> Self {
        self.watch = watch;
        self
    }

    fn network_errors(mut self, retried: u64, watched: u64) -> Self {
        self.network_errors = (retried, watched);
        self
    }
}

struct Refuses;

impl Interceptor for Refuses {
    fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
        Err(Refusal::new("too many runs"))
    }
}

fn error(error: &str) -> Last {
    Last::Error(error.to_owned())
}

fn cases() -> Vec<Case> {
    let tokens = || Script::new().attempt(|a| a.tokens(["a", "b", "c"]));
    let hangs = || Script::new().attempt(|a| a.token("a").hang());
    let fails = |kind: ErrorKind| Script::new().attempt(move |a| a.token("a").fail(kind));
    let source_error = |attempts| error(&format!("Source after {attempts}"));
    let timeout = |kind: TimeoutKind| error(&format!("Timeout({kind:?})"));

    vec![
        case("completed", tokens(), Outcome::Completed, Last::End),
        case(
            "empty but allowed",
            Script::new(),
            Outcome::Completed,
            Last::End,
        )
        .configure(|builder| builder.detect_zero_output(false)),
        case(
            "truncated",
            tokens(),
            Outcome::Truncated,
            error("Truncated"),
        )
        .expect_finish()
        .watch(Some((Outcome::Truncated, Last::End)))
        .network_errors(1, 1),
        case(
            "fatal error before the first token",
            Script::new().attempt(|a| a.fail(Failure::status(401))),
            Outcome::Failed,
            source_error(1),
        )
        .watch(Some((Outcome::Failed, error("Item")))),
        case(
            "error while connecting",
            Script::new().attempt(|a| a.connect_error(Failure::status(401))),
            Outcome::Failed,
            source_error(1),
        )
        .watch(None),
        case(
            "error in mid-stream",
            fails(ErrorKind::ConnectionReset),
            Outcome::Failed,
            source_error(1),
        )
        .watch(Some((Outcome::Failed, error("Item"))))
        .network_errors(1, 1),
        case(
            "retries exhausted",
            fails(ErrorKind::ConnectionReset),
            Outcome::Failed,
            source_error(4),
        )
        .configure(|builder| builder.retry(Retry::new().max_retries(3).backoff(Backoff::fixed(MS))))
        .watch(None)
        .network_errors(4, 0),
        case("refused", tokens(), Outcome::Failed, error("Refused"))
            .configure(|builder| builder.interceptor(Refuses))
            .watch(Some((Outcome::Failed, Last::End))),
        case(
            "dropped before the first poll",
            tokens(),
            Outcome::Dropped,
            Last::Unseen,
        )
        .consumer(DropsBeforeTheFirstPoll),
        case(
            "dropped in mid-stream",
            tokens(),
            Outcome::Dropped,
            Last::Unseen,
        )
        .consumer(DropsAfterOneItem),
        case(
            "aborted by handle",
            hangs(),
            Outcome::Aborted,
            error("Aborted"),
        )
        .consumer(AbortsByHandleAfterOneItem)
        .watch(Some((Outcome::Aborted, Last::End))),
        case(
            "aborted by future",
            hangs(),
            Outcome::Aborted,
            error("Aborted"),
        )
        .consumer(CancelsTheFutureAfterOneItem)
        .watch(Some((Outcome::Aborted, Last::End))),
        case(
            "aborted by handle, source ready",
            tokens(),
            Outcome::Aborted,
            error("Aborted"),
        )
        .consumer(AbortsByHandleAfterOneItem)
        .watch(Some((Outcome::Aborted, Last::End))),
        case(
            "aborted by handle, then dropped unpolled",
            tokens(),
            Outcome::Aborted,
            Last::Unseen,
        )
        .consumer(AbortsByHandleThenDrops),
        case(
            "aborted by future, then dropped unpolled",
            tokens(),
            Outcome::Aborted,
            Last::Unseen,
        )
        .consumer(CancelsTheFutureThenDrops),
        case("task aborted", hangs(), Outcome::Dropped, Last::Unseen)
            .consumer(IsATaskThatIsAborted),
        case(
            "panic in the consumer",
            tokens(),
            Outcome::Dropped,
            Last::Panic,
        )
        .consumer(Panics),
        case(
            "panic in the source",
            Script::new().attempt(|a| a.token("a").panic("the source panics")),
            Outcome::Failed,
            Last::Panic,
        ),
        case(
            "panic in the factory",
            Script::new().attempt(|a| a.connect_panic("the factory panics")),
            Outcome::Failed,
            Last::Panic,
        )
        .watch(None),
        case(
            "first-token timeout of a slow source",
            Script::new().attempt(|a| a.hang()),
            Outcome::TimedOut,
            timeout(TimeoutKind::FirstToken),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().first_token(50 * MS)))
        .watch(None)
        .network_errors(1, 0),
        case(
            "first-token timeout of a slow factory",
            Script::new().attempt(|a| a.connect_hang()),
            Outcome::TimedOut,
            timeout(TimeoutKind::FirstToken),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().first_token(50 * MS)))
        .watch(None)
        .network_errors(1, 0),
        case(
            "inter-token timeout",
            hangs(),
            Outcome::TimedOut,
            timeout(TimeoutKind::InterToken),
        )
        .configure(|builder| builder.timeouts(Timeouts::new().inter_token(50 * MS)))
        .watch(None)
        .network_errors(1, 0),
        case(
            "total timeout",
            hangs(),
            Outcome::TimedOut,
            timeout(TimeoutKind::Total),
        )
        .configure(|builder| {
            builder
                .retry(Retry::new())
                .timeouts(Timeouts::new().total(50 * MS))
        })
        .watch(None)
        .network_errors(1, 0),
        case(
            "zero output",
            Script::new().attempt(|a| a.tokens([" ", "...", "\n"]).reasoning("thinking")),
            Outcome::Failed,
            error("ZeroOutput"),
        )
        .watch(Some((Outcome::Failed, Last::End))),
        case("runtime shut down", hangs(), Outcome::Dropped, Last::Unseen)
            .consumer(OutlivesItsRuntime),
    ]
}

/// A run or a watched stream, which both hand out items and end.
enum Subject {
    Run(Box<Run<'static, ScriptedStream>>),
    Watched(Box<Watched<ScriptedStream>>),
}

impl Subject {
    /// `Ok` for an item or a restart, else what came last.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Last>> {
        match self {
            Self::Run(run) => Pin::new(run).poll_next(cx).map(|item| match item {
                Some(Ok(_)) => Ok(()),
                Some(Err(Error::Source { attempts, .. })) => {
                    Err(Last::Error(format!("Source after {attempts}")))
                }
                Some(Err(Error::Refused(_))) => Err(error("Refused")),
                Some(Err(other)) => Err(Last::Error(format!("{other:?}"))),
                None => Err(Last::End),
            }),
            Self::Watched(watched) => Pin::new(watched).poll_next(cx).map(|item| match item {
                Some(Ok(_)) => Ok(()),
                Some(Err(_)) => Err(error("Item")),
                None => Err(Last::End),
            }),
        }
    }

    async fn next(&mut self) -> Result<(), Last> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn handle(&self) -> RunHandle {
        match self {
            Self::Run(run) => run.handle(),
            Self::Watched(watched) => watched.handle(),
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        match self {
            Self::Run(run) => run.outcome(),
            Self::Watched(watched) => watched.outcome(),
        }
    }

    fn telemetry(&self) -> Option<Telemetry> {
        match self {
            Self::Run(run) => run.telemetry(),
            Self::Watched(watched) => watched.telemetry(),
        }
    }
}

fn finished(captured: &Captured) -> Vec<OwnedEvent> {
    let events = captured.events().into_iter();
    events.filter(|event| event.name() == "finished").collect()
}

/// Reads to the end, and looks at the run when it hands its last item out.
async fn read_to_the_end(subject: &mut Subject, captured: &Captured, what: &str) -> Last {
    loop {
        if let Err(last) = subject.next().await {
            assert_eq!(
                finished(captured).len(),
                1,
                "{what}: finished before the last item"
            );
            assert!(subject.outcome().is_some(), "{what}: outcome is final");
            assert_eq!(
                subject.telemetry(),
                subject.handle().telemetry(),
                "{what}: telemetry is final"
            );
            if let Subject::Run(run) = subject {
                use futures_core::stream::FusedStream;
                assert!(run.is_terminated(), "{what}: fused");
                let again = poll_fn(|cx| Pin::new(&mut *run).poll_next(cx)).await;
                assert!(again.is_none(), "{what}: nothing after the last item");
            }
            return last;
        }
        assert_eq!(
            finished(captured),
            [],
            "{what}: not finished while items come"
        );
    }
}

async fn consume(
    mut subject: Subject,
    consumer: Consumer,
    cancel: CancellationToken,
    captured: Captured,
    what: &str,
) -> Last {
    match consumer {
        ReadsToTheEnd => read_to_the_end(&mut subject, &captured, what).await,
        DropsBeforeTheFirstPoll => Last::Unseen,
        DropsAfterOneItem => {
            subject.next().await.expect("an item");
            Last::Unseen
        }
        AbortsByHandleAfterOneItem | CancelsTheFutureAfterOneItem => {
            subject.next().await.expect("an item");
            let handle = subject.handle();
            // From elsewhere, while the run may be waiting.
            tokio::spawn(async move {
                if consumer == AbortsByHandleAfterOneItem {
                    handle.abort();
                } else {
                    cancel.cancel();
                }
            });
            tokio::time::sleep(MS).await;
            read_to_the_end(&mut subject, &captured, what).await
        }
        AbortsByHandleThenDrops => {
            subject.next().await.expect("an item");
            subject.handle().abort();
            assert_eq!(
                finished(&captured),
                [],
                "{what}: nothing acts while nobody polls"
            );
            Last::Unseen
        }
        CancelsTheFutureThenDrops => {
            subject.next().await.expect("an item");
            cancel.cancel();
            Last::Unseen
        }
        IsATaskThatIsAborted => {
            let task = tokio::spawn(async move { while subject.next().await.is_ok() {} });
            tokio::time::sleep(MS).await;
            task.abort();
            assert!(task.await.expect_err("aborted").is_cancelled());
            Last::Unseen
        }
        Panics => {
            subject.next().await.expect("an item");
            panic!("the consumer panics");
        }
        OutlivesItsRuntime => {
            tokio::spawn(async move { while subject.next().await.is_ok() {} });
            tokio::time::sleep(MS).await;
            Last::Unseen
        }
    }
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
}

fn check(case: &Case, watch: bool, measurement: &str, monitoring: Monitoring) {
    let what = format!("{}, watch: {watch}, {measurement}", case.name);
    let (outcome, expected_last) = match (watch, &case.watch) {
        (false, _) => case.stream.clone(),
        (true, Some(watch)) => watch.clone(),
        (true, None) => return,
    };
    let captured = Captured::new();
    let builder = L0::builder()
        .monitoring(monitoring)
        .retry(Retry::none())
        .interceptor(captured.clone());
    let l0 = (case.configure)(builder).build();
    let cancel = CancellationToken::new();
    let until = cancel.clone().cancelled_owned();
    let (sender, receiver) = std::sync::mpsc::channel();

    let runtime = runtime();
    let ended = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let subject = if watch {
                let mut builder = l0.watch(case.script.stream()).until(until);
                if case.expect_finish {
                    builder = builder.expect_finish();
                }
                Subject::Watched(Box::new(builder.start()))
            } else {
                let mut builder = l0.stream(case.script.source()).until(until);
                if case.expect_finish {
                    builder = builder.expect_finish();
                }
                Subject::Run(Box::new(builder.start()))
            };
            sender.send(subject.handle()).expect("received below");
            consume(
                subject,
                case.consumer,
                cancel.clone(),
                captured.clone(),
                &what,
            )
            .await
        })
    }));
    drop(runtime);
    let handle = receiver.recv().expect("sent above");

    assert_eq!(ended.unwrap_or(Last::Panic), expected_last, "{what}");
    assert!(handle.is_finished(), "{what}");
    let events = captured.events();
    assert_eq!(
        events.first().map(OwnedEvent::name),
        Some("started"),
        "{what}"
    );
    assert_eq!(finished(&captured).len(), 1, "{what}");
    let Some(OwnedEvent::Finished {
        outcome: told,
        telemetry,
        message,
        duration,
        ..
    }) = events.last()
    else {
        panic!("{what}: the last event is {:?}", events.last());
    };
    assert_eq!(*told, outcome, "{what}");
    let silent = matches!(outcome, Outcome::Completed | Outcome::Dropped)
        || matches!(expected_last, Last::Panic | Last::Unseen);
    assert_eq!(message.is_none(), silent, "{what}: {message:?}");

    let measured = measurement == "measured";
    assert_eq!(telemetry.is_some(), measured, "{what}");
    assert_eq!(duration.is_some(), measured, "{what}");
    assert_eq!(telemetry.as_deref(), handle.telemetry().as_ref(), "{what}");
    let Some(telemetry) = telemetry else {
        for event in &events {
            assert_untimed(event, &what);
        }
        return;
    };
    assert_eq!(telemetry.outcome, Some(outcome), "{what}");
    assert_eq!(telemetry.duration, *duration, "{what}");
    let count = |name: &str| events.iter().filter(|event| event.name() == name).count() as u64;
    let metrics = &telemetry.metrics;
    assert_eq!(metrics.total_tokens, count("token"), "{what}");
    assert_eq!(
        u64::from(metrics.attempts),
        count("attempt_started"),
        "{what}"
    );
    assert_eq!(u64::from(metrics.total_retries), count("retry"), "{what}");
    assert_eq!(
        telemetry.network.error_count,
        count("network_error"),
        "{what}"
    );
    let (retried, watched) = case.network_errors;
    let network_errors = if watch { watched } else { retried };
    assert_eq!(telemetry.network.error_count, network_errors, "{what}");
    assert_eq!(
        metrics
            .wait
            .zip(metrics.consumer_hold)
            .map(|(wait, hold)| wait + hold),
        telemetry.duration,
        "{what}"
    );
}

fn assert_untimed(event: &OwnedEvent, what: &str) {
    match event {
        OwnedEvent::Started { at } => assert_eq!(*at, None, "{what}"),
        OwnedEvent::FirstToken { after } => assert_eq!(*after, None, "{what}"),
        OwnedEvent::Token { gap, .. } => assert_eq!(*gap, None, "{what}"),
        _ => {}
    }
}

#[test]
fn every_exit_finishes_exactly_once_with_its_outcome() {
    for case in cases() {
        for watch in [false, true] {
            check(&case, watch, "measured", Monitoring::new());
            check(
                &case,
                watch,
                "sampled out",
                Monitoring::new().sample_rate(0.0),
            );
            check(&case, watch, "off", Monitoring::off());
        }
    }
}

#[test]
fn a_panic_in_classify_in_decide_or_in_the_view_goes_on_and_fails_the_run() {
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
        assert!(panicked.is_err(), "{hook}: the panic goes on");
        assert_eq!(run.outcome(), Some(Outcome::Failed), "{hook}");
        assert_eq!(finished(&captured).len(), 1, "{hook}");
        let again = runtime().block_on(poll_fn(|cx| Pin::new(&mut run).poll_next(cx)));
        assert!(again.is_none(), "{hook}: fused");
    }
}
