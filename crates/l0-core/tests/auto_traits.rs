//! The compiler checks which types can cross threads, be trait objects, and be moved while they are
//! polled.

#![allow(dead_code, reason = "most of the code is only compiled")]

use std::fmt::{Debug, Display};
use std::future::{Ready, ready};
use std::hash::Hash;
use std::io;
use std::pin::Pin;
use std::sync::Arc;

use futures_core::Stream;
use futures_core::stream::FusedStream;
use futures_util::{StreamExt, TryStreamExt};
use l0_core::source::{FnSource, Map, MapAnswer, WithMetadata};
use l0_core::testing::{
    Captured, OwnedEvent, Script, ScriptedError, ScriptedStream, ScriptedToken,
};
use l0_core::{
    Attempt, AttemptStats, Backoff, Bucket, Call, CallBuilder, Cause, Check, Checks, Chunk,
    Description, Distribution, DriftReport, DriftStats, End, Error, ErrorRecord, Event, Failure,
    FailureKind, Findings, FinishReason, GuardrailStats, Interceptor, Interest, L0, L0Builder,
    LimitKind, Metadata, Metrics, Monitor, Monitoring, Network, NetworkErrorKind,
    NetworkErrorRecord, NewRun, Observer, Observers, Outcome, Pricing, Refusal, Retry, RetryBudget,
    RetryContext, RetryKind, RetryReason, Run, RunBuilder, RunHandle, RunInfo, Severity,
    SeverityCounts, Source, SourceInfo, SourcePart, Stalls, Summary, Telemetry, TimeoutKind,
    Timeouts, Timestamp, Token, TokenKind, TokenView, Usage, Violation, WatchBuilder, Watched,
};
use serde::Serialize;
use serde::de::DeserializeOwned;

type BoxedSource = Pin<Box<dyn Stream<Item = Result<String, io::Error>> + Send>>;

/// A source whose attempts return this type of stream.
type Calls<S> = FnSource<fn(Attempt) -> Ready<io::Result<S>>>;

/// Asserts that each of the types has all of the traits.
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
    // Items do not cross threads inside a run.
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
// A source does not have to be `Unpin` or `Debug`.
assert_all!([Send + Debug + Stream] Watched<NotUnpin>);
assert_all!([Send + Debug]
    RunBuilder<'static, Calls<BoxedSource>, String>, RunBuilder<'static, Calls<NotUnpin>, &'static str>,
    CallBuilder<'static, Calls<String>, String>,
);
assert_all!([Send + Debug] WatchBuilder<ScriptedStream>, WatchBuilder<NotUnpin>);

assert_all!([Clone + Send + Sync + Debug + Unpin + 'static]
    L0, L0Builder, End, RunHandle, RunInfo, Attempt, Monitoring, Retry, RetryBudget, Backoff, Stalls, Timeouts, Captured, Script,
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
// All label enums have the same traits.
assert_all!([Copy + Debug + Display + Eq + Hash + Ord + Serialize + Send + Sync + 'static]
    Outcome, Severity, FinishReason, TokenKind, NetworkErrorKind, RetryKind, RetryReason, TimeoutKind,
    LimitKind,
);
assert_all!([Clone + Debug + PartialEq + Send + Sync + 'static] End, Cause);
assert_all!([Clone + Debug + Default + Send + Sync + 'static] Checks, Checks<DriftReport>);
assert_all!([Clone + Debug + Default + Send + Sync] Findings, Findings<DriftReport>);
assert_all!([Check + Send] dyn Check, Box<dyn Check>);
assert_all!([Check<DriftReport> + Send] dyn Check<DriftReport>, Box<dyn Check<DriftReport>>);
assert_all!([Pricing + Send + Sync] dyn Pricing, Arc<dyn Pricing>);
assert_all!([Copy + Debug + Send + Sync] TokenView<'_>);
// They refer to a `dyn Error` without bounds, so they are neither `Send` nor `Sync`.
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
assert_all!([Observer] dyn Observer, Box<dyn Observer>);
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
async fn factory_future_source_classify_and_until_can_borrow_from_the_stack() {
    let (script, prompt) = (script(), String::from("Say hello."));
    let stopped = tokio::sync::Notify::new();
    let fatal = ["bad key"];
    let mut numbers = Vec::new();
    let text = {
        let mut run: Run<'_, _, _> = L0::default()
            .stream(|attempt| {
                numbers.push(attempt.number());
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
    assert_eq!((text.as_str(), numbers), ("Hello", vec![1]));
}

#[tokio::test]
async fn a_source_can_be_boxed_and_does_not_have_to_be_unpin() {
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
async fn boxed_errors_are_wrapped_in_an_io_error() {
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
async fn a_function_reads_a_foreign_item_type() {
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
