//! The parents of spans, the span in which a factory runs, and the subscriber that receives a run.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::cell::RefCell;
use std::io::ErrorKind;
use std::sync::mpsc;
use std::task::Poll;
use std::thread;

use common::{Kept, Span};
use futures_util::{StreamExt, stream};
use l0_core::testing::{Script, ScriptedError, ScriptedToken};
use l0_core::{Backoff, L0, Retry, Run, RunInfo};
use l0_tracing::TracingInterceptor;
use tracing::dispatcher::{self, with_default};
use tracing::{Dispatch, info, info_span};

fn l0() -> L0 {
    L0::builder()
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(TracingInterceptor::new())
        .build()
}

/// Starts a run inside a span `request`. Its source is called twice and logs its steps.
fn start() -> Run<'static, ScriptedToken, ScriptedError> {
    let script = Script::new()
        .attempt(|a| a.fail(ErrorKind::ConnectionReset))
        .attempt(|a| a.token("a"));
    let mut source = script.source();
    let connect = move |attempt| {
        info!("dial");
        let connect = source(attempt);
        async move {
            // The future is polled twice.
            tokio::task::yield_now().await;
            info!("post");
            let stream = connect.await?;
            let seen = stream::poll_fn(|_| {
                info!("read");
                Poll::Ready(None)
            });
            Ok::<_, ScriptedError>(stream.chain(seen))
        }
    };
    let _request = info_span!("request").entered();
    l0().stream(connect).start()
}

fn read(mut run: Run<'static, ScriptedToken, ScriptedError>) -> RunInfo {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    assert_eq!(runtime.unwrap().block_on(run.text()).unwrap(), "a");
    assert_eq!(run.info().observer_panics(), 0);
    run.info().clone()
}

/// Returns the names of a span and its ancestors.
fn path(spans: &[Span], place: Option<usize>) -> String {
    let up = std::iter::successors(place, |place| spans[*place].parent);
    let names = up.map(|place| spans[place].name);
    Vec::from_iter(names).join(" < ")
}

/// Checks the spans of a run.
fn check(kept: &Kept) {
    let spans = kept.spans();
    assert!(spans.iter().all(|span| span.is_closed));
    let paths = (0..spans.len()).map(|place| path(&spans, Some(place)));
    let expected = [
        "request",
        "l0.run < request",
        "l0.attempt < l0.run < request",
        "l0.attempt < l0.run < request",
    ];
    assert_eq!(Vec::from_iter(paths), expected);
}

#[test]
fn a_run_is_below_the_callers_span_and_its_source_inside_the_attempts() {
    let kept = Kept::default();
    let dispatch = kept.dispatch();
    let run = with_default(&dispatch, start);
    let other = {
        let dispatch = dispatch.clone();
        thread::spawn(move || with_default(&dispatch, || read(run)))
    };
    let info = other.join().unwrap();

    check(&kept);
    let spans = kept.spans();
    let events = kept.events();
    let of = |name: &str| {
        let named = events.iter().filter(|one| one.fields["message"] == name);
        let paths = named.map(|one| path(&spans, one.span));
        Vec::from_iter(paths)
    };
    let attempt = "l0.attempt < l0.run < request";
    assert_eq!(of("dial"), [attempt; 2]);
    assert_eq!(of("post"), [attempt; 2]);
    assert_eq!(of("read"), [""]);
    assert_eq!(of("l0.retry"), ["l0.run < request"]);
    let places = events
        .iter()
        .filter(|event| event.fields["message"] == "post");
    let places = Vec::from_iter(places.map(|event| event.span.unwrap()));
    assert_eq!(places, [2, 3]);
    for span in &spans[1..] {
        assert_eq!(span.fields["l0.session_id"], info.id());
    }
}

#[test]
fn the_subscriber_of_the_start_receives_the_run_on_every_thread() {
    for other in [Dispatch::none(), Kept::default().dispatch()] {
        let kept = Kept::default();
        let run = with_default(&kept.dispatch(), start);
        let reading = thread::spawn(move || with_default(&other, || read(run)));
        reading.join().unwrap();
        check(&kept);
        assert_eq!(kept.events().len(), 3);
    }
}

#[test]
fn a_run_can_be_dropped_when_its_thread_ends() {
    thread_local! {
        static LATE: RefCell<Option<Run<'static, ScriptedToken, ScriptedError>>> =
            const { RefCell::new(None) };
    }

    let kept = Kept::default();
    let dispatch = kept.dispatch();
    let (sender, receiver) = mpsc::channel();
    let ending = thread::spawn(move || {
        // Created first, so it is destroyed last.
        LATE.with(|late| assert!(late.borrow().is_none()));
        let run = with_default(&dispatch, start);
        sender.send(run.info().clone()).unwrap();
        LATE.set(Some(run));
    });
    ending.join().unwrap();
    assert_eq!(receiver.recv().unwrap().observer_panics(), 0);
    let run = kept.only("l0.run");
    assert!(run.is_closed);
    assert_eq!(run.fields["l0.outcome"], "dropped");
}

#[test]
fn a_child_run_nests_below_its_parent_run_while_that_is_live() {
    let kept = Kept::default();
    let l0 = l0();
    let serve = |parent: &RunInfo| {
        let _step = info_span!("step").entered();
        drop(l0.stream(Script::new().source()).parent(parent).start());
    };
    with_default(&kept.dispatch(), || {
        let outer = l0.stream(Script::new().source()).start();
        let info = outer.info().clone();
        serve(&info);
        // Another subscriber, which does not know the parent's span.
        let other = Kept::default();
        with_default(&other.dispatch(), || serve(&info));
        assert_eq!(path(&other.spans(), Some(1)), "l0.run < step");
        drop(outer);
        serve(&info);
        let spans = kept.spans();
        let paths = (0..spans.len()).map(|place| path(&spans, Some(place)));
        let expected = ["l0.run", "step", "l0.run < l0.run", "step", "l0.run < step"];
        assert_eq!(Vec::from_iter(paths), expected);
        for place in [2, 4] {
            assert_eq!(spans[place].fields["l0.parent_id"], info.id());
        }
        assert!(spans.iter().all(|span| span.is_closed));
    });
    dispatcher::get_default(|current| assert!(current.is::<tracing::subscriber::NoSubscriber>()));
}
