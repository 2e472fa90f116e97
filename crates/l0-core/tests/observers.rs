//! Interceptors and observers: their order, what they may do, and that a panic in one of them
//! costs nobody else.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use futures_util::{FutureExt, StreamExt};
use l0_core::testing::{Captured, Script};
use l0_core::{
    Backoff, Error, Event, Interceptor, Interest, L0, Monitoring, Observer, Observers, Outcome,
    Refusal, Request, Retry, RunInfo, observe_fn,
};

/// Where an observer panics.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Where {
    Observe,
    Interest,
    On(&'static str),
    Connect,
    ConnectAfterwards,
    Drop,
    PayloadToo,
}

#[derive(Clone)]
struct Panics(Where);

struct PanickingObserver(Where);

/// A panic's payload that panics when it is dropped, and so does what that throws.
struct Payload(u8);

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(left) = self.0.checked_sub(1) {
            std::panic::panic_any(Payload(left));
        }
    }
}

impl Interceptor for Panics {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        assert!(self.0 != Where::Observe, "in observe");
        observers.push(PanickingObserver(self.0));
    }
}

impl Observer for PanickingObserver {
    fn interest(&self) -> Interest {
        assert!(self.0 != Where::Interest, "in interest");
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        match self.0 {
            Where::On(name) if name == event.name() => panic!("on {name}"),
            Where::PayloadToo => std::panic::panic_any(Payload(1)),
            _ => {}
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        assert!(self.0 != Where::Connect, "in connect");
        poll();
        assert!(self.0 != Where::ConnectAfterwards, "in connect, afterwards");
    }
}

impl Drop for PanickingObserver {
    fn drop(&mut self) {
        assert!(self.0 != Where::Drop, "in drop");
    }
}

fn l0(panics: Where, before: &Captured, after: &Captured) -> L0 {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(before.clone())
        .interceptor(Panics(panics))
        .interceptor(after.clone())
        .build()
}

fn places() -> Vec<Where> {
    let events = [
        "started",
        "attempt_started",
        "first_token",
        "token",
        "network_error",
        "retry",
        "finished",
    ];
    let mut places: Vec<_> = events.map(Where::On).into();
    places.extend([
        Where::Observe,
        Where::Interest,
        Where::Connect,
        Where::ConnectAfterwards,
        Where::Drop,
        Where::PayloadToo,
    ]);
    places
}

#[tokio::test]
async fn a_panic_of_an_observer_is_counted_and_stops_neither_the_stream_nor_its_siblings() {
    for place in places() {
        let (before, after) = (Captured::new(), Captured::new());
        let l0 = l0(place, &before, &after);
        let script = Script::new()
            .attempt(|a| a.token("Hel").fail(std::io::ErrorKind::ConnectionReset))
            .attempt(|a| a.tokens(["Hel", "lo"]));
        let mut run = l0.stream(script.source()).start();
        let info = run.info().clone();

        assert_eq!(run.text().await.expect("answered"), "Hello", "{place:?}");
        assert_eq!(run.outcome(), Some(Outcome::Completed), "{place:?}");
        assert_eq!(run.telemetry().expect("measured").metrics.total_tokens, 3);
        assert_eq!(before.kinds(), after.kinds(), "{place:?}");
        assert_eq!(before.kinds().len(), 10, "{place:?}");
        assert_eq!(
            (info.observer_panics(), l0.observer_panics()),
            (1, 1),
            "{place:?}"
        );
    }
}

#[test]
fn an_observer_may_panic_while_its_run_is_dropped_by_another_panic() {
    for place in [Where::On("finished"), Where::Drop, Where::PayloadToo] {
        let (before, after) = (Captured::new(), Captured::new());
        let l0 = l0(place, &before, &after);
        let script = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
        let consumer = catch_unwind(AssertUnwindSafe(|| {
            let mut run = l0.stream(script.source()).start();
            run.next().now_or_never();
            panic!("the consumer panics");
        }));
        let message = consumer
            .expect_err("panics")
            .downcast::<&str>()
            .expect("its own");
        assert_eq!(*message, "the consumer panics");
        for captured in [before, after] {
            assert_eq!(captured.kinds().last(), Some(&"finished"), "{place:?}");
        }
        assert_eq!(l0.observer_panics(), 1, "{place:?}");
    }
}

/// Writes down what it is asked, and refuses or panics if told to.
struct Hook {
    name: &'static str,
    asked: Arc<Mutex<Vec<String>>>,
    answer: fn(&mut Request) -> Result<(), Refusal>,
}

impl Interceptor for Hook {
    fn before(&self, request: &mut Request) -> Result<(), Refusal> {
        self.asked
            .lock()
            .expect("no panic while locked")
            .push(format!("{} before", self.name));
        (self.answer)(request)
    }

    fn observe(&self, _: &RunInfo, _: &mut Observers) {
        self.asked
            .lock()
            .expect("no panic while locked")
            .push(format!("{} observe", self.name));
    }
}

#[tokio::test]
async fn before_of_all_comes_in_order_until_one_refuses_and_then_observe_of_all() {
    let panics = |_: &mut Request| -> Result<(), Refusal> { panic!("in before") };
    let refuses = |_: &mut Request| Err(Refusal::new("quota"));
    let goes_on = |_: &mut Request| Ok(());
    type Answer = fn(&mut Request) -> Result<(), Refusal>;
    for (answer, refused) in [
        (goes_on as Answer, None),
        (refuses, Some("quota")),
        (panics, Some("an interceptor panicked before the run")),
    ] {
        let asked = Arc::default();
        let hook = |name, answer| Hook {
            name,
            asked: Arc::clone(&asked),
            answer,
        };
        let captured = Captured::new();
        let l0 = L0::builder()
            .interceptor(hook("a", goes_on as Answer))
            .interceptor(vec![Box::new(hook("b", answer)) as Box<dyn Interceptor>])
            .interceptor(Some(Arc::new(hook("c", goes_on as Answer))))
            .interceptor(None::<Captured>)
            .interceptor(captured.clone())
            .build();
        let script = Script::new().attempt(|a| a.tokens(["Hello"]));
        let mut run = l0.stream(script.source()).start();

        let mut expected = vec![
            "a before",
            "b before",
            "c before",
            "a observe",
            "b observe",
            "c observe",
        ];
        if refused.is_some() {
            expected.retain(|call| *call != "c before");
        }
        assert_eq!(*asked.lock().unwrap(), expected);
        match refused {
            None => assert_eq!(run.text().await.expect("answered"), "Hello"),
            Some(reason) => {
                assert_eq!(captured.kinds(), ["started", "finished"]);
                assert_eq!(run.outcome(), Some(Outcome::Failed));
                let error = run.text().await.expect_err("refused");
                assert!(matches!(&error, Error::Refused(refusal) if refusal.message == reason));
                assert_eq!(script.calls(), 0);
            }
        }
    }
}

#[tokio::test]
async fn metadata_of_a_run_wins_over_that_of_the_l0_and_an_interceptors_over_both() {
    let sets = Hook {
        name: "sets",
        asked: Arc::default(),
        answer: |request| {
            assert_eq!(request.metadata()["b"], "run");
            request.set_metadata("c", "before");
            Ok(())
        },
    };
    let monitoring = Monitoring::new()
        .metadata("a", "l0")
        .metadata("b", "l0")
        .metadata("c", "l0");
    let l0 = L0::builder()
        .monitoring(monitoring)
        .interceptor(sets)
        .build();
    let script = Script::new().attempt(|a| a.tokens(["Hello"]));
    let mut run = l0
        .stream(script.source())
        .metadata("b", "run")
        .metadata("c", "run")
        .start();
    run.text().await.expect("answered");
    let expected: BTreeMap<_, _> = [("a", "l0"), ("b", "run"), ("c", "before")]
        .map(|(key, value)| (key.to_owned(), value.into()))
        .into();
    assert_eq!(*run.info().metadata(), expected);
    assert_eq!(run.telemetry().expect("measured").metadata, expected);
}

/// Writes down when a poll of the factory's future begins and ends.
struct Bracket(&'static str, Arc<Mutex<Vec<String>>>);

impl Bracket {
    fn say(&self, what: &str) {
        self.1
            .lock()
            .expect("no panic while locked")
            .push(format!("{} {what}", self.0));
    }
}

impl Interceptor for Bracket {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(Bracket(self.0, Arc::clone(&self.1)));
    }
}

impl Observer for Bracket {
    fn on_event(&mut self, _: &Event<'_>) {}

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        self.say("enters");
        poll();
        // More than once is once.
        poll();
        self.say("leaves");
    }
}

#[tokio::test]
async fn connect_surrounds_the_factory_and_each_poll_of_its_future_but_not_the_stream() {
    let said = Arc::default();
    let l0 = L0::builder()
        .interceptor(Bracket("outer", Arc::clone(&said)))
        .interceptor(Bracket("inner", Arc::clone(&said)))
        .build();
    let script = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
    let factory = Bracket("factory", Arc::clone(&said));
    let mut run = l0
        .stream(|_| {
            factory.say("is called");
            async {
                tokio::task::yield_now().await;
                factory.say("connects");
                script.connect().await
            }
        })
        .start();
    run.text().await.expect("answered");
    let said = said.lock().unwrap();
    let (first, second) = said.split_at(5);
    assert_eq!(
        first,
        [
            "outer enters",
            "inner enters",
            "factory is called",
            "inner leaves",
            "outer leaves"
        ]
    );
    assert_eq!(
        second,
        [
            "outer enters",
            "inner enters",
            "factory connects",
            "inner leaves",
            "outer leaves"
        ]
    );
}

#[test]
fn a_panic_of_the_factory_is_not_blamed_on_an_observer() {
    let captured = Captured::new();
    let l0 = L0::builder().interceptor(captured.clone()).build();
    let script = Script::new().attempt(|a| a.connect_panic("the factory panics"));
    let mut run = l0.stream(script.source()).start();
    let panicked = catch_unwind(AssertUnwindSafe(|| run.next().now_or_never()));
    let message = panicked
        .expect_err("panics")
        .downcast::<String>()
        .expect("its own");
    assert_eq!(*message, "the factory panics");
    assert_eq!(
        run.outcome(),
        Some(Outcome::Failed),
        "finished before the panic went on"
    );
    assert_eq!(captured.kinds(), ["started", "attempt_started", "finished"]);
    assert_eq!(l0.observer_panics(), 0);
    assert!(run.next().now_or_never().expect("ready").is_none(), "fused");
}

#[tokio::test]
async fn observe_fn_gets_every_event_and_can_be_narrowed() {
    let count = |narrow: fn(&Event<'_>) -> bool, interest| {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&seen);
        let l0 = L0::builder()
            .interceptor(
                observe_fn(move |run, event| {
                    assert!(run.id().starts_with("l0_"));
                    names
                        .lock()
                        .expect("no panic while locked")
                        .push(event.name());
                })
                .filter(narrow)
                .interest(interest),
            )
            .build();
        let script = Script::new().attempt(|a| a.tokens(["Hel", "lo"]));
        l0.stream(script.source())
            .start()
            .text()
            .now_or_never()
            .expect("ready")
            .expect("answered");
        let seen = seen.lock().expect("no panic while locked");
        seen.join(" ")
    };
    let all = "started attempt_started first_token token token finished";
    assert_eq!(count(|_| true, Interest::TOKENS), all);
    assert_eq!(
        count(|_| true, Interest::LIFECYCLE),
        all.replace(" token", "")
    );
    assert_eq!(
        count(|event| event.name() == "token", Interest::TOKENS),
        "token token"
    );
}

#[tokio::test]
async fn concurrent_runs_of_one_l0_never_see_each_others_metadata_events_or_counts() {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(captured.clone())
        .build();
    let mut runs: Vec<_> = (0..20_u64)
        .map(|number| {
            let texts = (0..=number).map(|token| format!("{number}.{token} "));
            let script = Script::new().attempt(|a| a.tokens(texts));
            l0.stream(script.source())
                .metadata("number", number)
                .start()
        })
        .collect();
    // Interleaved: one item of each in turn.
    while futures_util::future::join_all(runs.iter_mut().map(StreamExt::next))
        .await
        .iter()
        .any(Option::is_some)
    {}
    for (number, run) in (0..).zip(&runs) {
        let telemetry = run.telemetry().expect("measured");
        assert_eq!(telemetry.metrics.total_tokens, number + 1);
        assert_eq!(telemetry.metadata["number"], number);
        assert_eq!(run.info().metadata().len(), 1);
        let events = captured.events_of(run.info().id());
        let tokens: Vec<_> = events
            .iter()
            .filter_map(|event| match event {
                l0_core::testing::OwnedEvent::Token { text, index, .. } => {
                    Some((*index, text.clone()))
                }
                _ => None,
            })
            .collect();
        let expected: Vec<_> = (0..=number)
            .map(|token| (token, format!("{number}.{token} ")))
            .collect();
        assert_eq!(tokens, expected);
    }
}

#[test]
fn concurrent_runs_on_many_threads_never_mix() {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(Monitoring::new())
        .interceptor(captured.clone())
        .build();
    std::thread::scope(|scope| {
        for thread in 0..8_u64 {
            let l0 = &l0;
            scope.spawn(move || {
                for count in 1..50_usize {
                    let script = Script::new().attempt(|a| a.tokens(vec!["x"; count]));
                    let mut run = l0
                        .stream(script.source())
                        .metadata("thread", thread)
                        .start();
                    run.text().now_or_never().expect("ready").expect("answered");
                    let telemetry = run.telemetry().expect("measured");
                    assert_eq!(telemetry.metrics.total_tokens, count as u64);
                    assert_eq!(telemetry.metadata["thread"], thread);
                }
            });
        }
    });
    let kinds = captured.kinds();
    let count = |name| kinds.iter().filter(|kind| **kind == name).count();
    assert_eq!((count("started"), count("finished")), (8 * 49, 8 * 49));
}
