//! Data of a run does not get into another run or into the application's scope, and it is bounded.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod common;

use std::sync::Arc;

use common::{Sentry, breadcrumb, l0, message, paused, tags};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use l0_core::testing::{Script, ScriptedToken};
use l0_core::{Chunk, Error, Failure, L0, Monitoring, TokenKind};
use l0_sentry::{SentryConfig, SentryIntegration, with_sentry};
use sentry::protocol::{Context, Event};
use sentry::{Breadcrumb, Hub, Level};
use serde_json::{Value, json};

/// Sets up the scope of an application.
fn furnish(hub: &Hub) {
    hub.configure_scope(|scope| {
        scope.set_tag("host", "yes");
        scope.set_context("app", Context::Other(json_map(json!({ "name": "chat" }))));
    });
    hub.add_breadcrumb(Breadcrumb {
        message: Some("the host's own".to_owned()),
        ..Breadcrumb::default()
    });
}

fn json_map(value: Value) -> std::collections::BTreeMap<String, Value> {
    serde_json::from_value(value).unwrap()
}

/// Returns the data that an event would get from the hub's scope now.
fn scope_of(hub: &Hub) -> Event<'static> {
    hub.configure_scope(|scope| scope.apply_to_event(Event::default()))
        .unwrap()
}

#[test]
fn interleaved_runs_on_one_thread_share_nothing() {
    const RUNS: usize = 200;
    let sentry = Sentry::start();
    furnish(&sentry.hub);
    // Each run gets a different status.
    let failure = |number: usize| Failure::status(600 + number as u16);
    let l0 = l0(sentry.config().tag_keys(["number"]).unwrap()).build();

    paused().block_on(async {
        let runs: FuturesUnordered<_> = (0..RUNS)
            .map(|number| {
                let script = Script::new().attempt(|a| {
                    let wait = |step| std::time::Duration::from_millis((number + step) as u64 % 7);
                    let a = a.wait(wait(0)).token("a").wait(wait(1)).token("b");
                    a.fail(failure(number))
                });
                let run = l0
                    .stream(script.source())
                    .metadata("number", number)
                    .start();
                run.for_each(|_| async {})
            })
            .collect();
        runs.collect::<Vec<_>>().await;
    });

    let sent = sentry.sent();
    assert_eq!((sent.events.len(), sent.transactions.len()), (RUNS, RUNS));
    let mut seen = [false; RUNS];
    for event in &sent.events {
        let number: usize = event.tags["number"].parse().unwrap();
        assert!(!std::mem::replace(&mut seen[number], true));
        let value = event.exception[0].value.as_deref();
        assert_eq!(value, Some(&*message(failure(number))));
        assert_eq!(event.tags["error_type"], (600 + number).to_string());

        let trail: Vec<_> = event.breadcrumbs.iter().map(breadcrumb).collect();
        assert_eq!(trail.len(), 5, "{trail:?}");
        assert_eq!(trail[0], "info : the host's own");
        let started = format!(r#"info l0: L0 execution started {{"number":{number}}}"#);
        assert_eq!(trail[1], started);

        // The context, the trace and the transaction belong to the same run.
        let context = &event.contexts["l0_telemetry"];
        let trace = |contexts: &std::collections::BTreeMap<String, Context>| match &contexts["trace"]
        {
            Context::Trace(trace) => trace.trace_id,
            other => panic!("{other:?}"),
        };
        let mut own = sent.transactions.iter();
        let own = own
            .find(|one| trace(&one.contexts) == trace(&event.contexts))
            .unwrap();
        assert_eq!(own.contexts["l0_telemetry"], *context);
        assert_eq!(
            tags(&own.tags),
            [("host", "yes"), ("number", &*number.to_string())]
        );
    }
}

#[test]
fn the_applications_scope_is_unchanged() {
    let sentry = Sentry::start();
    furnish(&sentry.hub);
    let before = scope_of(&sentry.hub);
    let script = Script::new().attempt(|a| a.token("a").fail("broken"));

    Hub::run(Arc::clone(&sentry.hub), || {
        paused().block_on(async {
            let config = || SentryConfig::new().tag("mine", "yes");
            let l0 = l0(config()).build();
            let text = l0.stream(script.source()).start().text().await;
            text.unwrap_err();

            let plain = L0::default();
            let text = async { plain.stream(script.source()).start().text().await };
            with_sentry(config(), text).await.unwrap_err();

            let sentry = SentryIntegration::new(config());
            let mut execution = sentry.start_execution("manual", [("user_id", "123")]);
            execution.start_stream();
            execution.record_token("a");
            drop(execution);
        });
        // The current hub of this thread is unchanged.
        assert!(Arc::ptr_eq(&Hub::current(), &sentry.hub));
    });
    assert_eq!(sentry.sent().transactions.len(), 3);

    let after = scope_of(&sentry.hub);
    assert_eq!(after.breadcrumbs.len(), before.breadcrumbs.len());
    assert_eq!(after.tags, before.tags);
    assert_eq!(after.contexts, before.contexts);
    assert!(
        sentry
            .hub
            .configure_scope(|scope| scope.get_span())
            .is_none()
    );
}

#[test]
fn a_run_ends_in_its_own_hub_on_any_thread() {
    let (mine, foreign) = (Sentry::start(), Sentry::start());
    furnish(&mine.hub);
    let l0 = l0(SentryConfig::new()).build();
    let script = Script::new().attempt(|a| a.token("a").hang());
    let run = Hub::run(Arc::clone(&mine.hub), || {
        let mut run = l0.stream(script.source()).start();
        paused().block_on(async { run.next().await.unwrap().unwrap() });
        run
    });
    let hub = Arc::clone(&foreign.hub);
    hub.configure_scope(|scope| scope.set_tag("foreign", "yes"));
    std::thread::spawn(|| Hub::run(hub, || drop(run)))
        .join()
        .unwrap();

    assert_eq!(tags(&mine.sent().transaction().tags), [("host", "yes")]);
    let sent = foreign.sent();
    assert!(sent.events.is_empty() && sent.transactions.is_empty());
}

#[test]
fn a_long_stream_has_a_bounded_number_of_breadcrumbs() {
    const TOKENS: usize = 100_000;
    for breadcrumbs in [false, true] {
        let sentry = Sentry::start();
        let config = sentry.config().breadcrumbs_for_tokens(breadcrumbs);
        let l0 = l0(config).build();
        let item = |_| ScriptedToken::new(TokenKind::Text, "a ");
        let items = futures_util::stream::iter((0..TOKENS).map(item).map(Ok::<_, std::io::Error>));
        let broken = std::io::Error::other("broken");
        let items = items.chain(futures_util::stream::iter([Err(broken)]));
        let mut source = Some(items);
        let mut run = l0
            .stream(move |_attempt| {
                let items = source.take().unwrap();
                async { Ok(items) }
            })
            .start();
        let mut count = 0;
        paused().block_on(async {
            while let Some(chunk) = run.next().await {
                count += usize::from(matches!(chunk, Ok(Chunk::Item(_))));
            }
        });
        assert_eq!(count, TOKENS);

        let left = sentry.trail().len();
        let sent = sentry.sent();
        let event = sent.event();
        if breadcrumbs {
            assert!(left > TOKENS);
            assert_eq!(event.breadcrumbs.len(), 100);
        } else {
            assert_eq!((left, event.breadcrumbs.len()), (4, 4));
        }
        assert_eq!(sent.spans().len(), 3);
        assert_eq!(event.level, Level::Error);
    }
}

/// A thread that ends destroys its thread-locals in reverse order of creation: here the execution after its hub.
#[test]
fn an_execution_that_outlives_the_hub_of_its_thread_ends_without_a_panic() {
    use std::any::Any;
    use std::cell::RefCell;
    use std::sync::mpsc::{Sender, channel};

    struct SignalsDrop(Sender<()>);

    impl Drop for SignalsDrop {
        fn drop(&mut self) {
            self.0.send(()).unwrap();
        }
    }

    thread_local! {
        static KEPT: RefCell<Vec<Box<dyn Any>>> = RefCell::default();
    }

    let sentry = Sentry::start();
    // Not measured, because the thread-local of the clock is destroyed by then too.
    let l0 = sentry.l0().monitoring(Monitoring::off()).build();
    let (config, runs) = (sentry.config(), l0.clone());
    let (dropped, ended) = channel();
    let thread = std::thread::spawn(move || {
        KEPT.with_borrow_mut(|kept| {
            let signal = SignalsDrop(dropped);
            let future = with_sentry(config.clone(), async move {
                let _signal = signal;
                std::future::pending::<Result<(), Error<std::io::Error>>>().await
            });
            kept.push(Box::new(Box::pin(future)));
            let integration = SentryIntegration::new(config);
            kept.push(Box::new(integration.start_execution("", [("a", 1)])));
            kept.push(Box::new(runs.stream(Script::new().source()).start()));
        });
    });
    thread.join().unwrap();
    ended.recv().unwrap();
    assert_eq!(l0.observer_panics(), 0);
}
