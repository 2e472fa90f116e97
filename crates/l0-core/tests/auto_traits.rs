//! What is `Send`, `Sync`, `Unpin` and object-safe: compile-time facts that users build on.

use std::fmt::Debug;
use std::io;

use l0_core::testing::{Captured, Script, ScriptedStream};
use l0_core::{
    Attempt, Backoff, Chunk, Distribution, DriftReport, Error, Event, Failure, Interceptor,
    Interest, L0, L0Builder, Monitor, Monitoring, Observer, Observers, Outcome, Refusal, Request,
    Retry, Run, RunBuilder, RunHandle, RunInfo, Severity, Telemetry, Timeouts, Timestamp,
    TokenView, Violation, WatchBuilder, Watched,
};

fn plain<T: Clone + Debug + Send + Sync + Unpin + 'static>() {}
fn send<T: Debug + Send + Unpin>() {}
fn send_sync<T: Debug + Send + Sync>() {}

#[test]
fn plain_data_and_shared_parts_go_anywhere() {
    plain::<L0>();
    plain::<L0Builder>();
    plain::<RunHandle>();
    plain::<RunInfo>();
    plain::<Telemetry>();
    plain::<Distribution>();
    plain::<Timestamp>();
    plain::<Outcome>();
    plain::<Severity>();
    plain::<Violation>();
    plain::<DriftReport>();
    plain::<Failure>();
    plain::<Refusal>();
    plain::<Monitoring>();
    plain::<Retry>();
    plain::<Backoff>();
    plain::<Timeouts>();
    plain::<Attempt>();
    plain::<Interest>();
    plain::<Chunk<String>>();
    plain::<TokenView<'static>>();
    plain::<Captured>();
    plain::<Script>();
    send_sync::<Monitor>();
    send_sync::<Error<io::Error>>();
    send_sync::<Request>();
}

#[test]
fn runs_can_be_spawned_and_need_no_pinning() {
    send::<Run<'static, ScriptedStream>>();
    send::<Watched<ScriptedStream>>();
    send::<RunBuilder<'static, ScriptedStream>>();
    send::<WatchBuilder<ScriptedStream>>();
    send::<Observers>();

    // Even around a stream that must be pinned.
    type Pinned = futures_util::stream::Once<std::future::Ready<io::Result<String>>>;
    send::<Run<'static, Pinned>>();
}

#[test]
fn interceptors_and_observers_are_object_safe() {
    fn boxed(_: Option<Box<dyn Interceptor>>, _: Option<Box<dyn Observer>>) {}
    fn interceptor<I: Interceptor>() {}
    boxed(None, None);
    interceptor::<Box<dyn Interceptor>>();
    interceptor::<std::sync::Arc<dyn Interceptor>>();
    interceptor::<Option<Captured>>();
    interceptor::<Vec<Box<dyn Interceptor>>>();
}

#[tokio::test]
async fn a_run_is_named_spawned_and_borrowed_for() {
    let l0 = L0::default();
    let script = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));

    let run: Run<'static, ScriptedStream> = l0.stream(script.source()).start();
    let spawned = tokio::spawn(async move {
        let mut run = run;
        run.text().await
    });
    assert_eq!(
        spawned.await.expect("not cancelled").expect("answered"),
        "Hello"
    );

    let prompt = String::from("Say hello.");
    let client = |prompt: &str| {
        assert_eq!(prompt, "Say hello.");
        script.connect()
    };
    let mut borrowed = l0.stream(|_| client(&prompt)).start();
    assert_eq!(borrowed.text().await.expect("answered"), "Hello");
}

#[tokio::test]
async fn errors_that_are_no_standard_errors_take_part_by_a_conversion() {
    use futures_util::{TryStreamExt, stream};

    type Boxed = Box<dyn std::error::Error + Send + Sync>;

    let l0 = L0::builder().retry(Retry::none()).build();
    let mut run = l0
        .stream(|_| async {
            let items = [Ok("a"), Err(Boxed::from("connection refused"))];
            io::Result::Ok(stream::iter(items).map_err(io::Error::other))
        })
        .interceptor(Captured::new())
        .monitoring(Monitoring::new())
        .start();
    assert!(matches!(
        run.text().await,
        Err(Error::Source { attempts: 1, .. })
    ));
    let telemetry = run.telemetry().expect("measured");
    assert_eq!(
        telemetry
            .most_common_network_error()
            .map(|kind| kind.as_str()),
        Some("econnrefused")
    );
}

#[test]
fn events_are_borrowed() {
    fn shorter<'short>(event: Event<'static>) -> Event<'short> {
        event
    }
    let _ = shorter;
}
