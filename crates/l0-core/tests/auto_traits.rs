//! What crosses threads, what can be an object, what can be moved while it is polled: checked by
//! the compiler.

#![allow(dead_code, reason = "most of it is only compiled")]

use std::fmt::{Debug, Display};
use std::future::{Ready, ready};
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use futures_core::stream::FusedStream;
use futures_util::{StreamExt, TryStreamExt};
use l0_core::testing::{
    Captured, OwnedEvent, Script, ScriptedError, ScriptedStream, ScriptedToken,
};
use l0_core::{
    Attempt, AttemptStats, Backoff, Bucket, Call, CallBuilder, Cause, Check, Checks, Chunk,
    Description, Distribution, DriftReport, DriftStats, End, Error, ErrorRecord, Event, Failure,
    FailureKind, Findings, FinishReason, FnSource, GuardrailStats, Interceptor, Interest, L0,
    L0Builder, LimitKind, Map, MapAnswer, Metadata, Metrics, Monitor, Monitoring, Network,
    NetworkErrorKind, NetworkErrorRecord, NewRun, Observer, Observers, Outcome, Refusal, Retry,
    RetryBudget, RetryContext, RetryKind, RetryReason, Run, RunBuilder, RunHandle, RunInfo,
    Severity, SeverityCounts, Source, SourceInfo, SourcePart, Summary, Telemetry, TimeoutKind,
    Timeouts, Timestamp, Token, TokenKind, TokenView, Usage, Violation, WatchBuilder, Watched,
    WithMetadata,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

type BoxedSource = Pin<Box<dyn Stream<Item = Result<String, io::Error>> + Send>>;

/// A source whose attempts give such a stream.
type Calls<S> = FnSource<fn(Attempt) -> Ready<io::Result<S>>>;

/// Each of the types has all of the traits.
macro_rules! assert_all {
    ([$($bound:tt)+] $($kind:ty),+ $(,)?) => {
        const _: fn() = || {
            fn check<T: ?Sized + $($bound)+>() {}
            $( check::<$kind>(); )+
        };
    };
}

assert_all!([Send + Unpin + Debug + FusedStream]
    Run<'static, ScriptedToken, ScriptedError>,
    Run<'static, String, io::Error>,
    Run<'_, ScriptedToken, ScriptedError>,
    // An item crosses no thread inside of a run.
    Run<'static, std::rc::Rc<str>, io::Error>,
    Run<'static, std::marker::PhantomPinned, io::Error>,
);
assert_all!([Send + Unpin + Debug + Future<Output = Result<String, Error<io::Error>>>]
    Call<'static, String, io::Error>,
);
assert_all!([Send + Unpin + Debug + Future]
    Call<'static, std::marker::PhantomPinned, io::Error>,
);
assert_all!([Send + Unpin + Debug + Stream] Watched<ScriptedStream>);
// A source need be neither `Unpin` nor `Debug`.
assert_all!([Send + Debug + Stream] Watched<NotUnpin>);
assert_all!([Send + Debug]
    RunBuilder<'static, Calls<BoxedSource>, String>, RunBuilder<'static, Calls<NotUnpin>, &'static str>,
    CallBuilder<'static, Calls<String>, String>,
);
assert_all!([Send + Debug] WatchBuilder<ScriptedStream>, WatchBuilder<NotUnpin>);

assert_all!([Clone + Send + Sync + Debug + Unpin + 'static]
    L0, L0Builder, End, RunHandle, RunInfo, Attempt, Monitoring, Retry, RetryBudget, Backoff, Timeouts, Captured, Script,
);
assert_all!([Send + Sync + Debug + Unpin + 'static] Monitor, NewRun, Refusal);
assert_all!([Send + Debug + 'static] Observers);
assert_all!([Clone + Send + Sync + Debug + Default + 'static] Description, SourceInfo);
assert_all!([Copy + Send + Sync + Debug] SourcePart<'_>);
assert_all!([Source + Clone + Send + Debug]
    Calls<BoxedSource>, WithMetadata<Calls<BoxedSource>>,
    Map<Calls<BoxedSource>, fn(String) -> u8, fn(io::Error) -> ScriptedError>,
    MapAnswer<Calls<String>, fn(String) -> u8, fn(io::Error) -> ScriptedError>,
);
assert_all!([Clone + Debug + Default + PartialEq + Serialize + DeserializeOwned + Send + Sync]
    Telemetry, AttemptStats, Metadata, Metrics, Network, GuardrailStats, SeverityCounts, DriftStats, Usage,
    Distribution, Timestamp,
);
assert_all!([Clone + Debug + PartialEq + Serialize + DeserializeOwned + Send + Sync]
    NetworkErrorRecord, ErrorRecord, Outcome, FinishReason, NetworkErrorKind, TokenKind,
);
assert_all!([Clone + Debug + PartialEq + Serialize + Send + Sync]
    Summary<'_>, Violation, DriftReport,
);
// Every enum of labels has the same.
assert_all!([Copy + Debug + Display + Eq + Hash + Ord + Serialize + Send + Sync + 'static]
    Outcome, Severity, FinishReason, TokenKind, NetworkErrorKind, RetryKind, RetryReason, TimeoutKind,
    LimitKind,
);
assert_all!([Clone + Debug + PartialEq + Send + Sync + 'static] End, Cause);
assert_all!([Clone + Debug + Default + Send + Sync + 'static] Checks, Checks<DriftReport>);
assert_all!([Clone + Debug + Default + Send + Sync] Findings, Findings<DriftReport>);
assert_all!([Check + Send] dyn Check);
assert_all!([Check<DriftReport> + Send] dyn Check<DriftReport>);
assert_all!([Copy + Debug + Send + Sync] TokenView<'_>);
// An error behind a reference is what it is, so these stay on the thread that made them.
assert_all!([Copy + Debug] Event<'_>, RetryContext<'_>);
assert_all!([Copy + Debug + PartialEq + Send + Sync]
    Chunk<&str>, Failure, FailureKind, TimeoutKind, RetryKind, RetryReason, Interest, Bucket, Usage,
);
assert_all!([std::error::Error + Send + Sync + 'static]
    Error<io::Error>, Error<ScriptedError>, Error<std::convert::Infallible>, Refusal, Failure, ScriptedError,
);
assert_all!([Clone + Debug + PartialEq + Send + Sync] OwnedEvent, ScriptedToken);
assert_all!([Interceptor]
    dyn Interceptor,
    Arc<dyn Interceptor>,
    Box<dyn Interceptor>,
    Option<Arc<dyn Interceptor>>,
    Vec<Box<dyn Interceptor>>,
    Option<Vec<Arc<Captured>>>,
);
assert_all!([Observer] dyn Observer);
assert_all!([Token]
    str, String, &str, &&String, Box<str>, Arc<str>, std::borrow::Cow<'_, str>,
    Arc<ScriptedToken>,
);

struct NotUnpin(std::marker::PhantomPinned);

impl Stream for NotUnpin {
    type Item = io::Result<&'static str>;

    fn poll_next(
        self: Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        std::task::Poll::Ready(None)
    }
}

fn script() -> Script {
    Script::new().attempt(|a| a.tokens(["Hel", "lo"]))
}

#[tokio::test]
async fn a_run_can_be_named_kept_and_spawned() {
    struct Kept {
        run: Run<'static, ScriptedToken, ScriptedError>,
    }
    let mut kept = Kept {
        run: L0::default().stream(script().source()).start(),
    };
    let text = tokio::spawn(async move { kept.run.text().await });
    assert_eq!(text.await.expect("no panic").expect("answered"), "Hello");

    let watched: Watched<ScriptedStream> = L0::default().watch(script().stream()).start();
    let items = tokio::spawn(watched.count());
    assert_eq!(items.await.expect("no panic"), 2);
}

#[tokio::test]
async fn factory_future_source_classify_and_until_may_borrow_from_the_stack() {
    let (script, prompt) = (script(), String::from("Say hello."));
    let stopped = tokio::sync::Notify::new();
    let fatal = ["bad key"];
    let mut asked = Vec::new();
    let text = {
        let mut run: Run<'_, _, _> = L0::default()
            .stream(|attempt| {
                asked.push(attempt.number());
                async {
                    assert_eq!(prompt, "Say hello.");
                    Ok(script
                        .connect()
                        .await?
                        .inspect_ok(|_| assert!(!prompt.is_empty())))
                }
            })
            .classify(|error: &ScriptedError| {
                let known = fatal.contains(&error.to_string().as_str());
                known.then(Failure::fatal)
            })
            .until(stopped.notified())
            .start();
        run.text().await.expect("answered")
    };
    assert_eq!((text.as_str(), asked), ("Hello", vec![1]));
}

#[tokio::test]
async fn a_source_may_be_boxed_and_need_not_be_unpin() {
    let boxed = || -> BoxedSource { Box::pin(futures_util::stream::iter([Ok("a".to_owned())])) };
    let mut run = L0::default()
        .stream(move |_| ready(io::Result::Ok(boxed())))
        .start();
    assert_eq!(run.text().await.expect("answered"), "a");

    let mut run = L0::builder()
        .detect_zero_output(false)
        .build()
        .stream(|_| ready(io::Result::Ok(NotUnpin(std::marker::PhantomPinned))))
        .start();
    assert_eq!(run.text().await.expect("answered"), "");
}

#[tokio::test]
async fn errors_that_are_no_standard_errors_come_in_through_io_error() {
    type Boxed = Box<dyn std::error::Error + Send + Sync>;
    let fails = || async { Err::<BoxedSource, Boxed>("no such model".into()) };
    let mut run = L0::default()
        .stream(|_| async { fails().await.map_err(io::Error::other) })
        .start();
    let error = run.text().await.expect_err("fails");
    let source = error.into_source().expect("the source's own");
    assert_eq!(source.to_string(), "no such model");

    let items = || futures_util::stream::iter([Ok("a"), Err(String::from("Broken pipe"))]);
    let mut run = L0::builder()
        .retry(Retry::none())
        .monitoring(Monitoring::new())
        .build()
        .stream(|_| ready(Ok(items().map_err(io::Error::other))))
        .start();
    run.text().await.expect_err("fails");
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(
        telemetry.most_common_network_error(),
        Some(NetworkErrorKind::ConnectionDropped),
        "read through the wrapper"
    );
}

#[tokio::test]
async fn a_foreign_item_type_is_read_by_a_function() {
    struct Foreign {
        delta: Option<String>,
    }
    let items = || {
        let deltas = [Some("Hel"), None, Some("lo")];
        futures_util::stream::iter(deltas.map(|delta| {
            io::Result::Ok(Foreign {
                delta: delta.map(str::to_owned),
            })
        }))
    };
    fn view(item: &Foreign) -> TokenView<'_> {
        TokenView::text(item.delta.as_deref().unwrap_or_default())
    }
    let l0 = L0::builder().monitoring(Monitoring::new()).build();
    let mut run = l0.stream(|_| ready(Ok(items()))).view_with(view).start();
    assert_eq!(run.text().await.expect("answered"), "Hello");
    let mut closure = l0
        .stream(|_| ready(Ok(items())))
        .view_with(|item: &Foreign| TokenView::text(item.delta.as_deref().unwrap_or_default()))
        .start();
    assert_eq!(closure.text().await.expect("answered"), "Hello");
    let mut watched = l0.watch(items()).view_with(view).start();
    while watched.next().await.is_some() {}
    for telemetry in [run.telemetry(), watched.telemetry()] {
        assert_eq!(telemetry.expect("measured").metrics.total_tokens, 2);
    }
}
