//! Interceptors and observers: which events they receive, in which order, and that they cannot affect
//! the run.

use std::any::Any;
use std::cell::Cell;
use std::fmt;
use std::future::ready;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use futures_core::Stream;
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use l0_core::testing::{
    Captured, OwnedEvent, Script, ScriptedAttempt, ScriptedResult, ScriptedToken,
};
use l0_core::{
    Backoff, End, Error, Event, Failure, Interceptor, Interest, L0, Monitoring, NetworkErrorKind,
    NewRun, Observer, Observers, Outcome, Refusal, Retry, RunInfo, Telemetry, TokenKind,
    observe_fn,
};
use serde_json::{Value, json};

const MS: Duration = Duration::from_millis(1);

fn reset() -> Failure {
    Failure::network(NetworkErrorKind::Econnreset)
}

/// A run with every kind of event that can occur without rules.
fn eventful() -> Script {
    Script::new()
        .attempt(|a| a.wait(MS).token("a").fail(reset()))
        .attempt(|a| a.connect_wait(MS).tokens(["fi", "ne"]))
}

/// The place where an observer panics.
#[derive(Debug, Clone, Copy, PartialEq)]
enum At {
    Observe,
    Interest,
    Event(&'static str),
    ConnectBefore,
    ConnectAfter,
    Drop,
    EventAndDrop(&'static str),
    InterestAndDrop,
}

const PLACES: [At; 16] = [
    At::Observe,
    At::Interest,
    At::InterestAndDrop,
    At::Event("started"),
    At::Event("attempt_started"),
    At::Event("first_token"),
    At::Event("token"),
    At::Event("network_error"),
    At::Event("attempt_finished"),
    At::Event("retry"),
    At::Event("finished"),
    At::ConnectBefore,
    At::ConnectAfter,
    At::Drop,
    At::EventAndDrop("token"),
    At::EventAndDrop("finished"),
];

impl At {
    fn event(self) -> Option<&'static str> {
        match self {
            Self::Event(name) | Self::EventAndDrop(name) => Some(name),
            _ => None,
        }
    }

    fn interest(self) -> bool {
        matches!(self, Self::Interest | Self::InterestAndDrop)
    }

    fn drop(self) -> bool {
        matches!(
            self,
            Self::Drop | Self::EventAndDrop(_) | Self::InterestAndDrop
        )
    }

    fn panics(self) -> u64 {
        match self {
            Self::EventAndDrop(_) | Self::InterestAndDrop => 2,
            _ => 1,
        }
    }

    /// Returns `true` if a watched stream reaches this place.
    fn in_watched(self) -> bool {
        let emitted = [
            "started",
            "attempt_started",
            "first_token",
            "token",
            "finished",
        ];
        match self {
            Self::ConnectBefore | Self::ConnectAfter => false,
            _ => self.event().is_none_or(|name| emitted.contains(&name)),
        }
    }
}

/// The payload of a panic.
#[derive(Debug, Clone, Copy)]
enum Thrown {
    Message,
    /// A value whose drop panics with another one.
    Bomb,
}

impl Thrown {
    fn throw(self) -> ! {
        match self {
            Self::Message => panic!("the observer panics"),
            Self::Bomb => panic_any(Bomb),
        }
    }
}

struct Bomb;

impl Drop for Bomb {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic_any(Self);
        }
    }
}

#[derive(Clone)]
struct Panics {
    at: At,
    thrown: Thrown,
    /// Events delivered to an observer after its panic.
    late: Arc<Mutex<Vec<&'static str>>>,
}

impl Panics {
    fn new(at: At, thrown: Thrown) -> Self {
        Self {
            at,
            thrown,
            late: Arc::default(),
        }
    }
}

impl Interceptor for Panics {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        observers.push(PanicsObserver {
            panics: self.clone(),
            panicked: Cell::new(false),
            armed: true,
        });
        if self.at == At::Observe {
            self.thrown.throw();
        }
    }
}

struct PanicsObserver {
    panics: Panics,
    panicked: Cell<bool>,
    armed: bool,
}

impl PanicsObserver {
    fn panic(&self) -> ! {
        self.panicked.set(true);
        self.panics.thrown.throw();
    }
}

impl Observer for PanicsObserver {
    fn interest(&self) -> Interest {
        if self.panics.at.interest() {
            self.panic();
        }
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        if self.panicked.get() {
            self.panics
                .late
                .lock()
                .expect("no panic")
                .push(event.name());
        }
        if self.panics.at.event() == Some(event.name()) {
            self.panic();
        }
    }

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        if self.panics.at == At::ConnectBefore {
            self.panic();
        }
        poll();
        if self.panics.at == At::ConnectAfter {
            self.panic();
        }
    }
}

impl Drop for PanicsObserver {
    fn drop(&mut self) {
        if std::mem::take(&mut self.armed) && self.panics.at.drop() {
            self.panics.thrown.throw();
        }
    }
}

fn around(panics: &Panics) -> (L0, Captured, Captured) {
    let (before, after) = (Captured::new(), Captured::new());
    let l0 = L0::builder()
        .retry(Retry::new().backoff(Backoff::fixed(MS)))
        .interceptor(before.clone())
        .interceptor(panics.clone())
        .interceptor(after.clone())
        .build();
    (l0, before, after)
}

#[tokio::test(start_paused = true)]
async fn a_panicking_observer_is_counted_and_affects_neither_the_run_nor_other_observers() {
    const ALL: [&str; 12] = [
        "started",
        "attempt_started",
        "first_token",
        "token",
        "network_error",
        "attempt_finished",
        "retry",
        "attempt_started",
        "token",
        "token",
        "attempt_finished",
        "finished",
    ];
    for at in PLACES {
        for thrown in [Thrown::Message, Thrown::Bomb] {
            let what = format!("{at:?}, {thrown:?}");
            let panics = Panics::new(at, thrown);
            let (l0, before, after) = around(&panics);
            let mut run = l0.stream(eventful().source()).start();
            assert_eq!(run.text().await.expect("answered"), "fine", "{what}");
            for captured in [before, after] {
                assert_eq!(captured.kinds(), ALL, "{what}");
            }
            assert_eq!(run.info().observer_panics(), at.panics(), "{what}");
            assert_eq!(l0.observer_panics(), at.panics(), "{what}");
            assert_eq!(*panics.late.lock().unwrap(), [""; 0], "{what}");
            drop(run);
            assert_eq!(l0.observer_panics(), at.panics(), "{what}, dropped");

            if !at.in_watched() {
                continue;
            }
            let (l0, before, after) = around(&panics);
            let script = Script::new().attempt(|a| a.wait(MS).tokens(["a", "b"]));
            let mut watched = l0.watch(script.stream()).start();
            assert_eq!(watched.by_ref().count().await, 2, "{what}");
            for captured in [before, after] {
                let all = [
                    "started",
                    "attempt_started",
                    "first_token",
                    "token",
                    "token",
                    "attempt_finished",
                    "finished",
                ];
                assert_eq!(captured.kinds(), all, "{what}");
            }
            assert_eq!(watched.info().observer_panics(), at.panics(), "{what}");
            assert_eq!(l0.clone().observer_panics(), at.panics(), "{what}");
        }
    }
}

#[test]
fn an_observer_that_panics_while_the_consumer_unwinds_is_contained() {
    for at in [
        At::Event("finished"),
        At::Drop,
        At::EventAndDrop("finished"),
    ] {
        for thrown in [Thrown::Message, Thrown::Bomb] {
            for watch in [false, true] {
                let what = format!("{at:?}, {thrown:?}, watch: {watch}");
                let (l0, before, after) = around(&Panics::new(at, thrown));
                let script = Script::new().attempt(|a| a.tokens(["a", "b"]));
                let payload = catch_unwind(AssertUnwindSafe(|| {
                    let (mut run, mut watched);
                    let mut cx = Context::from_waker(Waker::noop());
                    if watch {
                        watched = l0.watch(script.stream()).start();
                        assert!(Pin::new(&mut watched).poll_next(&mut cx).is_ready());
                    } else {
                        run = l0.stream(script.source()).start();
                        assert!(Pin::new(&mut run).poll_next(&mut cx).is_ready());
                    }
                    panic_any("the consumer panics");
                }))
                .expect_err("panics");
                assert_eq!(message_of(&*payload), "the consumer panics", "{what}");
                for captured in [before, after] {
                    let last = captured.events().pop();
                    let Some(OwnedEvent::Finished { end, .. }) = last else {
                        panic!("{what}: {last:?}");
                    };
                    assert_eq!(end, End::dropped(), "{what}");
                }
                assert_eq!(l0.observer_panics(), at.panics(), "{what}");
            }
        }
    }
}

fn message_of(payload: &(dyn Any + Send)) -> &str {
    payload.downcast_ref::<&str>().copied().unwrap_or_default()
}

#[tokio::test]
async fn panics_are_counted_per_run_and_per_l0() {
    let panics = Panics::new(At::Event("token"), Thrown::Message);
    let l0 = L0::builder().interceptor(panics.clone()).build();
    let variant = l0.to_builder().build();
    let script = || Script::new().attempt(|a| a.token("a"));
    let (first, second) = (script(), script());
    let mut runs = [
        l0.stream(first.source()).start(),
        l0.stream(second.source()).interceptor(panics).start(),
    ];
    for run in &mut runs {
        run.text().await.expect("answered");
    }
    assert_eq!(runs[0].info().observer_panics(), 1);
    assert_eq!(runs[1].info().observer_panics(), 2);
    assert_eq!(l0.observer_panics(), 3);
    assert_eq!(variant.observer_panics(), 0);
}

/// An interceptor whose `before` is a function.
struct Before<F>(F);

impl<F> Interceptor for Before<F>
where
    F: Fn(&mut NewRun) -> Result<(), Refusal> + Send + Sync,
{
    fn before(&self, request: &mut NewRun) -> Result<(), Refusal> {
        (self.0)(request)
    }
}

type Log = Arc<Mutex<Vec<String>>>;

fn logging(log: &Log, name: &'static str) -> impl Interceptor + use<> {
    struct Logs(Log, &'static str);
    impl Interceptor for Logs {
        fn before(&self, _: &mut NewRun) -> Result<(), Refusal> {
            self.0
                .lock()
                .expect("no panic")
                .push(format!("before {}", self.1));
            Ok(())
        }

        fn observe(&self, _: &RunInfo, _: &mut Observers) {
            self.0
                .lock()
                .expect("no panic")
                .push(format!("observe {}", self.1));
        }
    }
    Logs(Arc::clone(log), name)
}

#[test]
fn all_before_hooks_run_before_all_observe_hooks_in_the_order_of_registration() {
    let log = Log::default();
    let l0 = L0::builder()
        .interceptor(logging(&log, "a"))
        .interceptor(Some(logging(&log, "b")))
        .interceptor(None::<Captured>)
        .interceptor(vec![logging(&log, "c"), logging(&log, "d")])
        .interceptor(Arc::new(logging(&log, "e")))
        .interceptor(Box::new(logging(&log, "f")) as Box<dyn Interceptor>)
        .interceptor(Vec::<Arc<dyn Interceptor>>::new())
        .build();
    let script = Script::new();
    let builder = l0.stream(script.source()).interceptor(logging(&log, "g"));
    assert_eq!(*log.lock().unwrap(), [""; 0], "nothing before the start");
    let run = builder.start();
    let called =
        |hook: &str| ["a", "b", "c", "d", "e", "f", "g"].map(|name| format!("{hook} {name}"));
    assert_eq!(
        *log.lock().unwrap(),
        [called("before"), called("observe")].concat()
    );
    assert_eq!(script.calls(), 0, "the source is called at the first poll");
    drop(run);
}

#[tokio::test]
async fn metadata_set_in_before_overrides_the_runs_which_overrides_the_l0s() {
    let captured = Captured::new();
    let l0 = L0::builder()
        .monitoring(
            Monitoring::new()
                .metadata("l0", "l0")
                .metadata("run", "l0")
                .metadata("before", "l0"),
        )
        .interceptor(Before(|request: &mut NewRun| {
            assert_eq!(request.metadata()["run"], "run");
            assert_eq!(request.metadata()["before"], "run");
            request.set_metadata("before", "first");
            request.set_metadata("last", "first");
            Ok(())
        }))
        .interceptor(Before(|request: &mut NewRun| {
            assert_eq!(request.metadata()["last"], "first");
            request.set_metadata("last", json!({"of": "all"}));
            Ok(())
        }))
        .interceptor(captured.clone())
        .build();
    let expected = json!({"l0": "l0", "run": "run", "before": "first", "last": {"of": "all"}});
    for monitoring in [None, Some(false)] {
        let script = Script::new().attempt(|a| a.token("a"));
        let mut builder = l0
            .stream(script.source())
            .metadata("run", "run")
            .metadata("before", "run");
        if let Some(enabled) = monitoring {
            let of_l0 = [("l0", "l0"), ("run", "l0"), ("before", "l0")];
            let off = Monitoring::new().enabled(enabled);
            let off = of_l0
                .iter()
                .fold(off, |m, (key, value)| m.metadata(*key, *value));
            builder = builder.monitoring(off);
        }
        let mut run = builder.start();
        assert_eq!(json!(run.info().metadata()), expected);
        run.text().await.expect("answered");
        if monitoring.is_none() {
            let telemetry = run.telemetry().expect("measured");
            assert_eq!(json!(telemetry.metadata), expected);
            assert_eq!(telemetry.session_id, run.info().id());
            assert_eq!(telemetry.start_time, run.info().started_at());
        }
    }
}

#[tokio::test]
async fn a_refusal_or_a_panic_in_before_ends_the_run_and_skips_the_remaining_hooks() {
    type Hook = fn(&mut NewRun) -> Result<(), Refusal>;
    let hooks: [(&str, Hook, &str); 3] = [
        (
            "refuses",
            |_| Err(Refusal::new("over budget")),
            "refused: over budget",
        ),
        (
            "panics",
            |_| panic!("the interceptor panics"),
            "refused: an interceptor panicked before the run",
        ),
        (
            "panics with a payload that panics on drop",
            |_| panic_any(Bomb),
            "refused: an interceptor panicked before the run",
        ),
    ];
    for (name, hook, text) in hooks {
        for watch in [false, true] {
            let (log, captured) = (Log::default(), Captured::new());
            let l0 = L0::builder()
                .monitoring(Monitoring::new())
                .interceptor(captured.clone())
                .interceptor(Before(|request: &mut NewRun| {
                    request.set_metadata("seen", true);
                    Ok(())
                }))
                .interceptor(Before(hook))
                .interceptor(logging(&log, "later"))
                .build();
            let script = Script::new().attempt(|a| a.token("a"));
            let (outcome, info) = if watch {
                let mut watched = l0.watch(script.stream()).start();
                assert_eq!(watched.outcome(), Some(Outcome::Failed), "{name}: at once");
                assert!(watched.next().await.is_none(), "{name}");
                (watched.outcome(), watched.info().clone())
            } else {
                let mut run = l0.stream(script.source()).start();
                assert!(run.handle().is_finished(), "{name}: at once");
                let error = run.next().await.expect("an item").expect_err("refused");
                assert!(matches!(error, Error::Refused(_)), "{name}");
                assert_eq!(error.to_string(), text, "{name}");
                assert!(run.next().await.is_none(), "{name}");
                (run.outcome(), run.info().clone())
            };
            assert_eq!(outcome, Some(Outcome::Failed), "{name}");
            assert_eq!(script.calls(), 0, "{name}: the source is never called");
            assert_eq!(*log.lock().unwrap(), ["observe later"], "{name}");
            assert_eq!(captured.kinds(), ["started", "finished"], "{name}");
            assert_eq!(info.metadata()["seen"], true, "{name}");
            let telemetry = captured.telemetry().expect("measured");
            assert_eq!(telemetry.outcome, Some(Outcome::Failed), "{name}");
            assert_eq!(telemetry.metrics.attempts, 0, "{name}");
            assert_eq!(telemetry.network.error_count, 0, "{name}");
        }
    }
}

struct NeedsTelemetry;

impl Interceptor for NeedsTelemetry {
    fn needs_telemetry(&self) -> bool {
        true
    }
}

#[tokio::test]
async fn an_interceptor_that_needs_telemetry_enables_it_and_an_explicit_setting_wins() {
    let script = Script::new().attempt(|a| a.token("a"));
    let measured = |l0: &L0, run: Option<Monitoring>, needs: bool| {
        let mut builder = l0.stream(script.source());
        if let Some(monitoring) = run {
            builder = builder.monitoring(monitoring);
        }
        if needs {
            builder = builder.interceptor(NeedsTelemetry);
        }
        let run = builder.start();
        assert_eq!(run.info().measured(), run.telemetry().is_some());
        run.info().measured()
    };
    let (on, off) = (Monitoring::new, Monitoring::off);
    // (of the `L0`: needs, setting; of the run: needs, setting; measured)
    for (l0_needs, l0_setting, run_needs, run_setting, expected) in [
        (false, None, false, None, false),
        (true, None, false, None, true),
        (false, None, true, None, true),
        (true, None, true, None, true),
        (true, Some(off()), true, None, false),
        (true, Some(on().sample_rate(0.0)), true, None, false),
        (false, Some(on()), false, None, true),
        (true, None, false, Some(off()), false),
        (false, None, true, Some(off()), false),
        (true, Some(off()), false, Some(on()), true),
        (false, Some(on()), false, Some(off()), false),
    ] {
        let mut builder = L0::builder();
        // In both orders.
        if let Some(setting) = l0_setting.clone() {
            builder = builder.monitoring(setting);
        }
        if l0_needs {
            builder = builder.interceptor(NeedsTelemetry);
        }
        let what = (l0_needs, &l0_setting, run_needs, &run_setting);
        assert_eq!(
            measured(&builder.build(), run_setting.clone(), run_needs),
            expected,
            "{what:?}"
        );
    }
    for (wrapped, needs) in [
        (Arc::new(NeedsTelemetry) as Arc<dyn Interceptor>, true),
        (Arc::new(Some(Box::new(NeedsTelemetry))), true),
        (Arc::new(vec![NeedsTelemetry]), true),
        (Arc::new(None::<NeedsTelemetry>), false),
        (Arc::new(Vec::<NeedsTelemetry>::new()), false),
        (Arc::new(Captured::new()), false),
    ] {
        let l0 = L0::builder().interceptor(wrapped).build();
        assert_eq!(measured(&l0, None, false), needs);
        let watched = l0.watch(script.stream()).start();
        assert_eq!(watched.telemetry().is_some(), needs);
    }
}

/// Logs when its context is entered and left.
struct Connects(&'static str, Log, Habit);

/// The number of times that an observer polls where it must poll once.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Habit {
    Once,
    Never,
    Twice,
}

impl Observer for Connects {
    fn on_event(&mut self, _: &Event<'_>) {}

    fn connect(&mut self, poll: &mut dyn FnMut()) {
        let log = |what| {
            self.1
                .lock()
                .expect("no panic")
                .push(format!("{what} {}", self.0));
        };
        log("enter");
        match self.2 {
            Habit::Once => poll(),
            Habit::Never => {}
            Habit::Twice => {
                poll();
                poll();
            }
        }
        log("leave");
    }
}

struct ConnectsBoth(Log, [Habit; 2]);

impl Interceptor for ConnectsBoth {
    fn observe(&self, _: &RunInfo, observers: &mut Observers) {
        for (name, habit) in ["a", "b"].into_iter().zip(self.1) {
            let observer: Box<dyn Observer> = Box::new(Connects(name, Arc::clone(&self.0), habit));
            observers.push(observer);
        }
    }
}

/// Runs a source that is pending once while it connects, and logs its calls and polls.
async fn connect_log(habits: [Habit; 2]) -> Vec<String> {
    let log = Log::default();
    let note = |what: &str| log.lock().expect("no panic").push(what.to_owned());
    let l0 = L0::builder()
        .interceptor(ConnectsBoth(Arc::clone(&log), habits))
        .retry(Retry::new().backoff(Backoff::none()))
        .build();
    let script = Script::new()
        .attempt(|a| a.connect_error(reset()))
        .attempt(|a| a.token("a"));
    let mut run = l0
        .stream(|attempt| {
            note(&format!("call {}", attempt.number()));
            let script = &script;
            async move {
                note("poll");
                tokio::task::yield_now().await;
                note("poll");
                Ok(script.connect().await?.inspect_ok(move |_| note("item")))
            }
        })
        .start();
    run.text().await.expect("answered");
    std::mem::take(&mut *log.lock().expect("no panic"))
}

#[tokio::test]
async fn connect_wraps_the_factory_call_and_each_poll_of_its_future_but_not_the_stream() {
    let attempt = |number: u32| {
        [
            "enter a",
            "enter b",
            &format!("call {number}"),
            "poll",
            "leave b",
            "leave a",
            "enter a",
            "enter b",
            "poll",
            "leave b",
            "leave a",
        ]
        .map(str::to_owned)
        .to_vec()
    };
    let log = connect_log([Habit::Once, Habit::Once]).await;
    let expected = [attempt(1), attempt(2), vec!["item".to_owned()]].concat();
    assert_eq!(log, expected);
}

#[tokio::test]
async fn the_source_is_polled_once_even_if_an_observer_calls_the_closure_repeatedly() {
    let polls = |log: &[String]| {
        let polls = log.iter().filter(|what| *what == "poll").count();
        let calls = log.iter().filter(|what| what.starts_with("call")).count();
        let entered = |name: &str| log.iter().filter(|what| *what == name).count();
        (calls, polls, entered("enter a"), entered("leave a"))
    };
    for a in [Habit::Once, Habit::Never, Habit::Twice] {
        for b in [Habit::Once, Habit::Never, Habit::Twice] {
            let log = connect_log([a, b]).await;
            assert_eq!(polls(&log), (2, 4, 4, 4), "{a:?}, {b:?}: {log:?}");
            assert_eq!(log.last().map(String::as_str), Some("item"));
        }
    }
}

#[test]
fn a_panic_of_the_factory_propagates_unchanged_and_counts_against_no_observer() {
    let log = Log::default();
    let captured = Captured::new();
    let l0 = L0::builder()
        .interceptor(ConnectsBoth(Arc::clone(&log), [Habit::Once, Habit::Once]))
        .interceptor(captured.clone())
        .build();
    type Connected = std::future::Ready<ScriptedResult>;
    let mut run = l0
        .stream(|_| -> Connected { panic_any("the factory panics") })
        .start();
    let payload = catch_unwind(AssertUnwindSafe(|| {
        let mut cx = Context::from_waker(Waker::noop());
        drop(Pin::new(&mut run).poll_next(&mut cx));
    }))
    .expect_err("panics");
    assert_eq!(message_of(&*payload), "the factory panics");
    assert_eq!(l0.observer_panics(), 0);
    assert_eq!(run.outcome(), Some(Outcome::Failed));
    let left = ["enter a", "enter b", "leave b", "leave a"];
    assert_eq!(*log.lock().unwrap(), left, "every context was left");
    assert_eq!(
        captured.kinds(),
        ["started", "attempt_started", "attempt_finished", "finished"]
    );
}

#[tokio::test(start_paused = true)]
async fn finished_carries_the_response_id_and_model_of_the_last_attempt() {
    /// An item with a response id and model.
    fn named(model: Option<&str>, id: Option<&str>) -> ScriptedToken {
        let mut item = ScriptedToken::new(TokenKind::Other, "");
        item.model = model.map(str::to_owned);
        item.response_id = id.map(str::to_owned);
        item
    }
    let long = "ü".repeat(1_000);
    for (script, model, id) in [
        (Script::new().attempt(|a| a.token("Hi")), None, None),
        (
            // With the first item, or later. A repeated value changes nothing.
            Script::new().attempt(|a| {
                a.item(named(Some("gpt-4-0613"), None))
                    .token("Hi")
                    .item(named(Some("another"), Some("chatcmpl-1")))
            }),
            Some("gpt-4-0613"),
            Some("chatcmpl-1"),
        ),
        (
            Script::new()
                .attempt(|a| a.item(named(Some("a"), Some("1"))).fail(reset()))
                .attempt(|a| a.item(named(None, Some("2"))).token("Hi")),
            None,
            Some("2"),
        ),
        (
            Script::new().attempt(|a| a.item(named(Some(&long), None)).token("Hi")),
            Some(&long[..256]),
            None,
        ),
        (
            // Some servers start with a chunk that contains nothing.
            Script::new().attempt(|a| {
                a.item(named(Some(""), Some("")))
                    .item(named(Some("gpt-4-0613"), Some("chatcmpl-1")))
                    .token("Hi")
            }),
            Some("gpt-4-0613"),
            Some("chatcmpl-1"),
        ),
    ] {
        for monitoring in [Monitoring::new(), Monitoring::off()] {
            let captured = Captured::new();
            let l0 = L0::builder()
                .monitoring(monitoring)
                .retry(Retry::new().backoff(Backoff::none()))
                .interceptor(captured.clone())
                .build();
            l0.stream(script.source()).start().count().await;
            let Some(OwnedEvent::Finished {
                response_model,
                response_id,
                ..
            }) = captured.events().pop()
            else {
                panic!("not finished");
            };
            // In the second round the script repeats its last attempt.
            assert_eq!(response_model.as_deref(), model);
            assert_eq!(response_id.as_deref(), id);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn events_of_an_unmeasured_run_are_the_same_without_times() {
    /// The event as an unmeasured run emits it.
    fn untimed(mut event: OwnedEvent) -> OwnedEvent {
        match &mut event {
            OwnedEvent::Started { at, .. } => *at = None,
            OwnedEvent::FirstToken { after, .. } => *after = None,
            OwnedEvent::Token { gap, .. } => *gap = None,
            OwnedEvent::AttemptFinished { attempt, .. } => {
                attempt.start_offset = None;
                attempt.duration = None;
                attempt.time_to_first_token = None;
                attempt.inter_token = None;
                attempt.network_errors.clear();
            }
            OwnedEvent::Finished { telemetry, .. } => *telemetry = None,
            _ => {}
        }
        event
    }
    async fn events(script: Script, watch: bool, monitoring: Monitoring) -> Vec<OwnedEvent> {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(monitoring)
            .retry(Retry::new().backoff(Backoff::fixed(MS)))
            .interceptor(captured.clone())
            .build();
        if watch {
            l0.watch(script.stream()).start().count().await;
        } else {
            l0.stream(script.source()).start().count().await;
        }
        captured.events()
    }
    let scripts = || {
        [
            eventful(),
            Script::new().attempt(|a| a.token(" ")),
            Script::new().attempt(|a| a.wait(MS).token("a").fail(Failure::status(401))),
            Script::new().attempt(|a| a.connect_error("invalid peer certificate")),
        ]
    };
    for index in 0..scripts().len() {
        for watch in [false, true] {
            let of = |monitoring| events(scripts()[index].clone(), watch, monitoring);
            let measured = of(Monitoring::new()).await;
            assert!(matches!(
                measured[0],
                OwnedEvent::Started { at: Some(_), .. }
            ));
            let expected: Vec<_> = measured.into_iter().map(untimed).collect();
            for monitoring in [Monitoring::off(), Monitoring::new().sample_rate(0.0)] {
                assert_eq!(of(monitoring).await, expected, "script {index}");
            }
        }
    }
}

#[tokio::test]
async fn observe_fn_receives_the_events_that_its_filter_and_interest_allow() {
    let names = |log: &Log| std::mem::take(&mut *log.lock().expect("no panic"));
    let all = [
        "started",
        "attempt_started",
        "first_token",
        "token",
        "token",
        "attempt_finished",
        "finished",
    ];
    let script = || Script::new().attempt(|a| a.tokens(["a", "b"]));
    let log = Log::default();
    let keep = Arc::clone(&log);
    let push = move |run: &RunInfo, event: &Event<'_>| {
        assert!(run.id().starts_with("l0_"));
        keep.lock().expect("no panic").push(event.name().to_owned());
    };
    let l0 = L0::builder().interceptor(observe_fn(push.clone())).build();
    l0.stream(script().source()).start().count().await;
    assert_eq!(names(&log), all);

    let tokens = observe_fn(push.clone()).filter(|event| matches!(event, Event::Token { .. }));
    let l0 = L0::builder().interceptor(tokens).build();
    l0.stream(script().source()).start().count().await;
    assert_eq!(names(&log), ["token", "token"]);

    let lifecycle = observe_fn(push).interest(Interest::LIFECYCLE);
    let l0 = L0::builder().interceptor(lifecycle).build();
    l0.stream(script().source()).start().count().await;
    assert_eq!(
        names(&log),
        [
            "started",
            "attempt_started",
            "first_token",
            "attempt_finished",
            "finished"
        ]
    );
}

#[tokio::test]
async fn interest_is_queried_once_and_only_interested_observers_receive_token_events() {
    struct Wants(Interest, Arc<Mutex<(u32, u32)>>);
    impl Observer for Wants {
        fn interest(&self) -> Interest {
            self.1.lock().expect("no panic").0 += 1;
            self.0
        }

        fn on_event(&mut self, event: &Event<'_>) {
            self.1.lock().expect("no panic").1 += u32::from(event.name() == "token");
        }
    }
    struct WantsBoth([Arc<Mutex<(u32, u32)>>; 2]);
    impl Interceptor for WantsBoth {
        fn observe(&self, _: &RunInfo, observers: &mut Observers) {
            let [lifecycle, tokens] = &self.0;
            observers.push(Wants(Interest::LIFECYCLE, Arc::clone(lifecycle)));
            let boxed: Box<dyn Observer> = Box::new(Wants(Interest::TOKENS, Arc::clone(tokens)));
            observers.push(boxed);
        }
    }
    let counts = [Arc::default(), Arc::default()];
    let l0 = L0::builder().interceptor(WantsBoth(counts.clone())).build();
    let script = Script::new().attempt(|a| a.tokens(["a", "b", "c"]));
    l0.stream(script.source()).start().count().await;
    assert_eq!(*counts[0].lock().unwrap(), (1, 0));
    assert_eq!(*counts[1].lock().unwrap(), (1, 3));
}

/// An error whose `Display` panics.
#[derive(Debug)]
struct Unspeakable;

impl fmt::Display for Unspeakable {
    fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
        panic!("the error panics")
    }
}

impl std::error::Error for Unspeakable {}

#[test]
fn a_run_whose_error_panics_in_display_finishes_exactly_once() {
    let source = || futures_util::stream::iter([Ok("a"), Err(Unspeakable)]);
    for failure in [Failure::fatal(), reset()] {
        for watch in [false, true] {
            let what = format!("{failure}, watch: {watch}");
            let captured = Captured::new();
            let l0 = L0::builder()
                .monitoring(Monitoring::new())
                .retry(Retry::none())
                .interceptor(captured.clone())
                .build();
            // The panic can propagate or not: the source caused it.
            let _ = catch_unwind(AssertUnwindSafe(|| {
                if watch {
                    l0.watch(source()).start().count().now_or_never();
                } else {
                    l0.stream(|_| ready(Ok(source())))
                        .classify(move |_| Some(failure))
                        .start()
                        .count()
                        .now_or_never();
                }
            }));
            let kinds = captured.kinds().into_iter();
            assert_eq!(
                kinds.filter(|kind| *kind == "finished").count(),
                1,
                "{what}"
            );
            let telemetry = captured.telemetry().expect("measured");
            assert_eq!(telemetry.outcome, Some(Outcome::Failed), "{what}");
            assert_eq!(l0.observer_panics(), 0, "{what}");
        }
    }
}

/// A task whose drop panics.
struct Grudge;

impl Wake for Grudge {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Grudge {
    fn drop(&mut self) {
        panic!("the task panics");
    }
}

#[test]
fn a_task_that_panics_when_dropped_does_not_prevent_the_end() {
    for watch in [false, true] {
        let captured = Captured::new();
        let l0 = L0::builder()
            .monitoring(Monitoring::new())
            .interceptor(captured.clone())
            .build();
        let source = || futures_util::stream::pending::<io::Result<&str>>();
        // The run holds the last reference to its task.
        let waker = Waker::from(Arc::new(Grudge));
        let outcome = if watch {
            let mut run = l0.watch(source()).start();
            let mut cx = Context::from_waker(&waker);
            assert!(run.poll_next_unpin(&mut cx).is_pending());
            drop(waker);
            run.handle().abort();
            assert!(run.next().now_or_never().expect("ended").is_none());
            run.outcome()
        } else {
            let mut run = l0.stream(|_| ready(Ok(source()))).start();
            let mut cx = Context::from_waker(&waker);
            assert!(run.poll_next_unpin(&mut cx).is_pending());
            drop(waker);
            run.handle().abort();
            let last = run.next().now_or_never().expect("ended");
            assert!(matches!(last, Some(Err(Error::Aborted))));
            assert!(run.next().now_or_never().expect("ended").is_none());
            run.outcome()
        };
        assert_eq!(outcome, Some(Outcome::Aborted), "watch: {watch}");
        assert_eq!(captured.kinds().last(), Some(&"finished"), "watch: {watch}");
    }
}

#[test]
fn a_future_that_panics_with_a_panicking_payload_is_contained_in_a_drop() {
    let captured = Captured::new();
    let l0 = L0::builder().interceptor(captured.clone()).build();
    let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
    // Waits until its waker is taken, then panics.
    let throws = || {
        let waker = Arc::clone(&waker);
        let mut waits = false;
        std::future::poll_fn(move |cx| -> Poll<()> {
            if std::mem::replace(&mut waits, true) {
                panic_any(Bomb);
            }
            *waker.lock().expect("no panic while locked") = Some(cx.waker().clone());
            Poll::Pending
        })
    };
    let wake = || {
        waker
            .lock()
            .expect("no panic while locked")
            .take()
            .expect("polled")
            .wake();
    };
    let hangs = Script::new().attempt(|a| a.hang());

    let mut run = l0.stream(hangs.source()).until(throws()).start();
    assert!(run.next().now_or_never().is_none());
    wake();
    drop(run);
    let mut watched = l0.watch(hangs.stream()).until(throws()).start();
    assert!(watched.next().now_or_never().is_none());
    wake();
    drop(watched);
    let once = ["started", "attempt_started", "attempt_finished", "finished"];
    assert_eq!(captured.kinds(), [once, once].concat());
}

#[test]
fn a_future_that_was_never_polled_is_not_polled_in_a_drop() {
    let l0 = L0::default();
    let never = || std::future::poll_fn(|_| -> Poll<()> { panic!("polled") });
    let run = l0.stream(Script::new().source()).until(never()).start();
    let handle = run.handle();
    drop(run);
    assert!(handle.is_finished());
}

/// Returns the script of run number `run`, and the telemetry expected at its end.
fn numbered(run: usize) -> (Script, Value) {
    let text = format!("text {run}");
    let script = Script::new()
        .attempt(|a: ScriptedAttempt| match run % 3 {
            0 => a.fail(reset()),
            _ => a.token("lost").fail(Failure::status(503)),
        })
        .attempt(|a| (0..=run % 7).fold(a, |a, _| a.wait(MS).token(text.clone())));
    (script, json!({"run": run, "text": text}))
}

fn check_numbered(run: usize, info: &RunInfo, telemetry: &Telemetry, captured: &Captured) {
    let metadata = json!({"run": run, "text": format!("text {run}")});
    assert_eq!(json!(info.metadata()), metadata);
    assert_eq!(json!(telemetry.metadata), metadata);
    assert_eq!(telemetry.session_id, info.id());
    let metrics = &telemetry.metrics;
    let lost = usize::from(run % 3 != 0);
    assert_eq!(metrics.total_tokens as usize, run % 7 + 1 + lost);
    assert_eq!(metrics.wasted_tokens as usize, lost);
    assert_eq!(metrics.total_retries, 1);
    let kind = match lost {
        0 => NetworkErrorKind::Econnreset,
        _ => NetworkErrorKind::ServerError,
    };
    assert_eq!(
        Vec::from_iter(&telemetry.network.errors_by_type),
        [(&kind, &1)]
    );

    let events = captured.events_of(info.id());
    let tokens = events.iter().filter_map(|event| match event {
        OwnedEvent::Token { index, text, .. } => Some((*index as usize, text.as_str())),
        _ => None,
    });
    let tokens: Vec<_> = tokens.collect();
    assert_eq!(tokens.len(), run % 7 + 1 + lost);
    for (place, (index, text)) in tokens.into_iter().enumerate() {
        assert_eq!(place, index);
        assert!(text == format!("text {run}") || (place < lost && text == "lost"));
    }
    let Some(OwnedEvent::Finished {
        telemetry: final_telemetry,
        ..
    }) = events.last()
    else {
        panic!("{:?}", events.last());
    };
    assert_eq!(final_telemetry.as_deref(), Some(telemetry));
}

fn shared_l0(captured: &Captured) -> L0 {
    L0::builder()
        .monitoring(Monitoring::new())
        .retry(Retry::new().backoff(Backoff::none()))
        .interceptor(captured.clone())
        .interceptor(Before(|request: &mut NewRun| {
            let text = format!("text {}", request.metadata()["run"]);
            request.set_metadata("text", text);
            Ok(())
        }))
        .build()
}

#[tokio::test(start_paused = true)]
async fn interleaved_runs_on_one_thread_are_isolated() {
    const RUNS: usize = 50;
    let captured = Captured::new();
    let l0 = shared_l0(&captured);
    let mut runs: Vec<_> = (0..RUNS)
        .map(|run| {
            let started = l0
                .stream(numbered(run).0.source())
                .metadata("run", run)
                .start();
            (run, started)
        })
        .collect();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut cx = Context::from_waker(Waker::noop());
    while !runs.is_empty() {
        let chosen = rng.usize(..runs.len());
        let (run, stream) = &mut runs[chosen];
        match Pin::new(&mut *stream).poll_next(&mut cx) {
            Poll::Pending => tokio::time::advance(MS).await,
            Poll::Ready(Some(item)) => drop(item.expect("no error")),
            Poll::Ready(None) => {
                let telemetry = stream.telemetry().expect("measured");
                check_numbered(*run, stream.info(), &telemetry, &captured);
                drop(runs.swap_remove(chosen));
            }
        }
    }
    let finished = captured.kinds().into_iter();
    assert_eq!(finished.filter(|kind| *kind == "finished").count(), RUNS);
}

#[test]
fn runs_on_many_threads_are_isolated() {
    const RUNS: usize = 400;
    let captured = Captured::new();
    let l0 = shared_l0(&captured);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_time()
        .build()
        .expect("a runtime");
    let tasks = (0..RUNS).map(|run| {
        let (l0, captured) = (l0.clone(), captured.clone());
        runtime.spawn(async move {
            let (script, metadata) = numbered(run);
            let mut stream = l0.stream(script.source()).metadata("run", run).start();
            while let Some(item) = stream.next().await {
                item.expect("no error");
                assert_eq!(json!(stream.info().metadata()), metadata);
                tokio::task::yield_now().await;
            }
            let telemetry = stream.telemetry().expect("measured");
            check_numbered(run, stream.info(), &telemetry, &captured);
        })
    });
    let tasks: Vec<_> = tasks.collect();
    for task in tasks {
        runtime.block_on(task).expect("no panic");
    }
    let kinds = captured.kinds();
    let count = |name| kinds.iter().filter(|kind| **kind == name).count();
    assert_eq!((count("started"), count("finished")), (RUNS, RUNS));
}
