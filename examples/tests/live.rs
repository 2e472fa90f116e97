//! Runs of all outcomes on many threads: `l0-live`, Prometheus and observers have the same numbers, while
//! runs are live and after all have ended.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "common/samples.rs"]
mod samples;

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::{Arc, Barrier, Mutex};
use std::thread;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use l0_core::testing::{Script, ScriptedError, ScriptedToken};
use l0_core::{
    Backoff, Cost, CostSource, Currency, Event, Failure, Interceptor, L0, Limits, Money, Observer,
    Observers, Retry, Run, RunInfo, Source, Stalls, Timeouts, keys, source,
};
use l0_guardrails::Guardrails;
use l0_live::Live;
use l0_prometheus::Collector;
use samples::{Samples, read};
use serde_json::Value;
use tokio::time::advance;
use tower::ServiceExt;

const SEC: Duration = Duration::from_secs(1);
const THREADS: usize = 4;
const RUNS: usize = 10_000;
const MODELS: [&str; 3] = ["large", "small", "other"];

/// A text that violates a rule.
const BAD: &str = "As an AI language model, I cannot say. ";

/// Numbers by name and label values.
type Numbers = BTreeMap<(&'static str, String), u64>;

/// Counts the events of observers.
#[derive(Clone, Default)]
struct Counts(Arc<Mutex<Numbers>>);

struct CountingObserver {
    counts: Counts,
    run: RunInfo,
    source: u32,
}

impl Interceptor for Counts {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(CountingObserver {
            counts: self.clone(),
            run: run.clone(),
            source: 1,
        });
    }
}

impl CountingObserver {
    fn count(&self, name: &'static str, label: impl Into<String>, more: u64) {
        let mut numbers = self.counts.0.lock().unwrap();
        *numbers.entry((name, label.into())).or_default() += more;
    }

    fn model(&self, source: u32) -> String {
        let metadata = &self.run.source(source).unwrap().metadata;
        keys::text(metadata, keys::MODEL).unwrap().into_owned()
    }
}

impl Observer for CountingObserver {
    fn on_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Started { .. } => self.count("started", "", 1),
            Event::AttemptStarted { source, .. } => self.source = source,
            Event::AttemptFinished { attempt, .. } => {
                let model = attempt.model.clone().unwrap();
                self.count("attempts", &*model, 1);
                self.count("tokens", &*model, attempt.tokens);
                if let Some(cost) = attempt.cost {
                    self.count("cost", model, micros(cost.amount.as_f64()));
                }
            }
            Event::Finished { end, .. } => {
                let outcome = end.outcome();
                self.count("finished", outcome.as_str(), 1);
                let (first, last) = (self.model(1), self.model(self.source));
                self.count("finished by first", format!("{first} {outcome}"), 1);
                self.count("finished by last", format!("{last} {outcome}"), 1);
            }
            _ => {}
        }
    }
}

fn micros(dollars: f64) -> u64 {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is a small amount"
    )]
    let micros = (dollars * 1e6).round() as u64;
    micros
}

/// The numbers of the live runs.
#[derive(Debug, PartialEq)]
struct Now {
    live: u64,
    stalled: u64,
    /// Live runs by model.
    stalled_of: Vec<u64>,
}

/// Reads the numbers from the data of the page.
async fn served(app: &Router) -> (Now, Numbers) {
    let request = Request::get("/?format=json").body(Body::empty()).unwrap();
    let response = app.clone().oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let body = to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let json: Value = serde_json::from_slice(&body).unwrap();
    let totals = &json["totals"];
    let number = |value: &Value| value.as_u64().unwrap();
    let listed = json["live"].as_array().unwrap();
    assert_eq!(listed.len() as u64, number(&totals["live"]));
    assert_eq!(
        (number(&totals["unlisted"]), number(&totals["unwatched"])),
        (0, 0)
    );
    let states = totals["states"].as_object().unwrap().values();
    assert_eq!(states.map(number).sum::<u64>(), number(&totals["live"]));
    let stalled_of = |model: &&str| {
        let stalled = listed.iter().filter(|run| run["stalled"] == true);
        stalled.filter(|run| run["model"] == *model).count() as u64
    };
    let now = Now {
        live: number(&totals["live"]),
        stalled: number(&totals["stalled"]),
        stalled_of: MODELS.iter().map(stalled_of).collect(),
    };

    let mut numbers = Numbers::new();
    numbers.insert(("started", String::new()), number(&totals["started"]));
    for (outcome, runs) in totals["finished"].as_object().unwrap() {
        numbers.insert(("finished", outcome.clone()), number(runs));
    }
    for of in totals["models"].as_array().unwrap() {
        let model = of["model"].as_str().unwrap();
        numbers.insert(("attempts", model.to_owned()), number(&of["attempts"]));
        numbers.insert(("tokens", model.to_owned()), number(&of["tokens"]));
        for spent in of["cost"].as_array().unwrap() {
            assert_eq!(spent["currency"], "USD");
            let amount = spent["amount"].to_string().replace('"', "");
            let key = ("cost", model.to_owned());
            numbers.insert(key, micros(amount.parse().unwrap()));
        }
        for (outcome, runs) in of["finished"].as_object().unwrap() {
            let key = ("finished by last", format!("{model} {outcome}"));
            numbers.insert(key, number(runs));
        }
    }
    (now, numbers)
}

/// Reads the same numbers from the scrape.
fn scraped(samples: &Samples) -> (Now, Numbers) {
    let whole = |name: &str, labels: &[(&str, &str)]| {
        let sum = samples.sum(name, labels);
        assert_eq!(sum.fract(), 0.0, "{name} {labels:?}");
        micros(sum / 1e6)
    };
    let stalled_of = |model: &&str| whole("l0_streams_stalled", &[("model", model)]);
    let now = Now {
        live: whole("l0_streams_active", &[]),
        stalled: whole("l0_streams_stalled", &[]),
        stalled_of: MODELS.iter().map(stalled_of).collect(),
    };
    let mut numbers = Numbers::new();
    let started = whole("l0_streams_started_total", &[]);
    numbers.insert(("started", String::new()), started);
    for labels in samples.0.keys() {
        let of = |label: &str| labels.get(label).map_or("", |value| value.as_str());
        if labels["__name__"] == "l0_streams_finished_total" {
            let (model, outcome) = (of("model"), of("outcome"));
            let runs = whole("l0_streams_finished_total", &[("outcome", outcome)]);
            numbers.insert(("finished", outcome.to_owned()), runs);
            let labels = [("model", model), ("outcome", outcome)];
            let runs = whole("l0_streams_finished_total", &labels);
            numbers.insert(("finished by first", format!("{model} {outcome}")), runs);
        }
    }
    for model in MODELS {
        let labels = [("model", model)];
        let mut insert = |name, value| numbers.insert((name, model.to_owned()), value);
        insert("attempts", whole("l0_attempts_total", &labels));
        insert("tokens", whole("l0_tokens_total", &labels));
        insert("cost", micros(samples.sum("l0_cost_total", &labels)));
    }
    (now, numbers)
}

/// Returns the numbers with these names, without zeros: some places have a 0 where others have no value.
fn of(numbers: &Numbers, names: &[&str]) -> Numbers {
    let numbers = numbers.iter();
    numbers
        .filter(|((name, _), number)| names.contains(name) && **number > 0)
        .map(|(key, number)| (key.clone(), *number))
        .collect()
}

fn usd(micros: u64) -> Cost {
    Cost::new(Money::micros(micros), Currency::USD, CostSource::Provider)
}

/// The course of a run.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Way {
    Completes,
    Fails,
    RetriesAndCompletes,
    FallsBack,
    FallsBackAndFails,
    BreaksARule,
    TimesOutBeforeTheFirstToken,
    TimesOutAltogether,
    ReachesItsLimit,
    Aborted,
    AbortedInABackOff,
    DroppedAtOnce,
    DroppedInMidStream,
    /// Stays live until all others have ended.
    Held,
    Silent,
}

const WAYS: [Way; 15] = [
    Way::Completes,
    Way::Fails,
    Way::RetriesAndCompletes,
    Way::FallsBack,
    Way::FallsBackAndFails,
    Way::BreaksARule,
    Way::TimesOutBeforeTheFirstToken,
    Way::TimesOutAltogether,
    Way::ReachesItsLimit,
    Way::Aborted,
    Way::AbortedInABackOff,
    Way::DroppedAtOnce,
    Way::DroppedInMidStream,
    Way::Held,
    Way::Silent,
];

type Started = Run<'static, ScriptedToken, ScriptedError>;

impl Way {
    /// Returns the course of a run. Fewer runs stay live.
    fn of(number: usize) -> Self {
        match WAYS[number % WAYS.len()] {
            Self::Held | Self::Silent if !number.is_multiple_of(4) => Self::Completes,
            way => way,
        }
    }

    fn script(self) -> Script {
        let busy = || ScriptedError::new(Failure::status(503));
        let refused = || ScriptedError::new(Failure::status(401));
        let script = Script::new();
        match self {
            Self::Completes => script.attempt(|a| a.tokens(["a", "b"]).wait(SEC).cost(usd(7))),
            Self::Fails => script.attempt(|a| a.token("a").cost(usd(5)).fail(refused())),
            Self::RetriesAndCompletes => script
                .attempt(|a| a.tokens(["a", "b"]).cost(usd(3)).fail(busy()))
                .attempt(|a| a.wait(SEC).tokens(["c", "d", "e"]).cost(usd(4))),
            Self::FallsBack | Self::FallsBackAndFails => {
                script.attempt(|a| a.token("a").cost(usd(2)).fail(refused()))
            }
            Self::BreaksARule => script
                .attempt(|a| a.token(BAD).cost(usd(6)))
                .attempt(|a| a.tokens(["f", "g"])),
            // The second attempt succeeds in time.
            Self::TimesOutBeforeTheFirstToken => script
                .attempt(|a| a.hang())
                .attempt(|a| a.tokens(["h", "i"]).cost(usd(1))),
            Self::TimesOutAltogether => script.attempt(|a| a.token("a").wait(900 * SEC).token("b")),
            Self::ReachesItsLimit => script.attempt(|a| a.tokens(["x"; 20]).cost(usd(9))),
            Self::AbortedInABackOff => script.attempt(|a| a.token("a").cost(usd(8)).fail(busy())),
            Self::Aborted | Self::DroppedAtOnce | Self::DroppedInMidStream => {
                script.attempt(|a| a.cost(usd(2)).tokens(["a", "b", "c"]).hang())
            }
            Self::Held | Self::Silent => script.attempt(|a| a.tokens(["a", "b"]).hang()),
        }
    }

    fn start(self, l0: &L0, number: usize) -> Started {
        let model = number / WAYS.len() % MODELS.len();
        let run = l0.stream(self.script().source());
        let run = run.metadata(keys::MODEL, MODELS[model]);
        let second = match self {
            Self::FallsBack => Script::new().attempt(|a| a.tokens(["y", "z"]).cost(usd(11))),
            Self::FallsBackAndFails => Script::new()
                .attempt(|a| a.token("y").fail(ScriptedError::new(Failure::status(400)))),
            _ => return run.start(),
        };
        let other = MODELS[(model + 1) % MODELS.len()];
        let second = source(second.source()).metadata(keys::MODEL, other);
        run.fallback(second).start()
    }

    /// Reads the run. Returns it if it stays live.
    async fn go(self, mut run: Started) -> Option<Started> {
        match self {
            Self::DroppedAtOnce => None,
            Self::DroppedInMidStream => {
                run.next().await;
                None
            }
            Self::Held => {
                run.next().await;
                Some(run)
            }
            Self::Silent => {
                run.next().await;
                run.next().await;
                assert!(pin!(run.next()).now_or_never().is_none());
                Some(run)
            }
            Self::Aborted => {
                run.next().await;
                run.handle().abort();
                while run.next().await.is_some() {}
                Some(run)
            }
            Self::AbortedInABackOff => {
                run.next().await;
                let handle = run.handle();
                let abort = async {
                    tokio::time::sleep(SEC / 2).await;
                    handle.abort();
                };
                tokio::join!(async { while run.next().await.is_some() {} }, abort);
                None
            }
            _ => {
                while run.next().await.is_some() {}
                None
            }
        }
    }
}

/// Runs on one thread with a paused clock, a few at a time.
fn work(l0: &L0, numbers: impl Iterator<Item = usize>, barriers: [&Barrier; 2]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let numbers: Vec<_> = numbers.collect();
    let live = runtime.block_on(async {
        let mut live = Vec::new();
        for numbers in numbers.chunks(50) {
            let runs = numbers.iter().map(|number| {
                let way = Way::of(*number);
                way.go(way.start(l0, *number))
            });
            live.extend(join_all(runs).await.into_iter().flatten());
        }
        live
    });
    barriers[0].wait();
    // The main thread compares the numbers here.
    barriers[1].wait();
    let _in_runtime = runtime.enter();
    drop(live);
}

#[test]
fn the_page_prometheus_and_observers_count_ten_thousand_runs_alike() {
    let live = Live::new();
    let counts = Counts::default();
    let collector = Collector::builder().stalls(Stalls::new());
    let collector = collector.build().unwrap();
    let l0 = L0::builder()
        .retry(Retry::new().max_retries(1).backoff(Backoff::fixed(SEC)))
        .guardrails(Guardrails::recommended())
        .timeouts(Timeouts::new().first_token(20 * SEC).total(100 * SEC))
        .limits(Limits::new().output_tokens(10))
        .interceptor(live.clone())
        .interceptor(collector.label_keys([keys::MODEL]).unwrap())
        .interceptor(counts.clone())
        .build();
    let app: Router = l0_live::routes(live);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let look = || {
        let (of_page, page) = runtime.block_on(served(&app));
        let text = runtime.block_on(async { collector.expose() });
        let (of_prometheus, prometheus) = scraped(&read(&text));
        assert_eq!(of_page, of_prometheus);
        let counts = counts.0.lock().unwrap().clone();
        let both = ["started", "finished", "attempts", "tokens"];
        assert_eq!(of(&page, &both), of(&counts, &both));
        // For a run with a fallback, they count the outcome under different models.
        assert_eq!(
            of(&page, &["finished by last"]),
            of(&counts, &["finished by last"])
        );
        let first = ["started", "finished", "finished by first"];
        assert_eq!(of(&prometheus, &first), of(&counts, &first));
        assert_eq!(of(&page, &["cost"]), of(&counts, &["cost"]));
        (of_page, counts, prometheus)
    };

    let barriers = [Barrier::new(THREADS + 1), Barrier::new(THREADS + 1)];
    let (in_the_middle, numbers) = thread::scope(|scope| {
        for thread in 0..THREADS {
            let numbers = (0..RUNS).skip(thread).step_by(THREADS);
            let (l0, barriers) = (&l0, barriers.each_ref());
            scope.spawn(move || work(l0, numbers, barriers));
        }
        barriers[0].wait();
        // Later than the paused clock of any thread.
        runtime.block_on(advance(10_000_000 * SEC));
        let (now, counts, _) = look();
        barriers[1].wait();
        (now, counts)
    });
    let is = |way| (0..RUNS).filter(|number| Way::of(*number) == way).count() as u64;
    let (held, silent) = (is(Way::Held), is(Way::Silent));
    assert!(held > 100 && silent > 100);
    assert_eq!(in_the_middle.live, held + silent);
    assert_eq!(in_the_middle.stalled, silent);
    assert!(in_the_middle.stalled_of.iter().all(|of| *of > 0));
    let finished: u64 = of(&numbers, &["finished"]).values().sum();
    assert_eq!(finished + held + silent, RUNS as u64);

    let (now, counts, prometheus) = look();
    assert_eq!((now.live, now.stalled), (0, 0));
    // Prometheus counts the tokens of a live attempt when its run ends.
    let at_the_end = ["attempts", "tokens", "cost"];
    assert_eq!(of(&prometheus, &at_the_end), of(&counts, &at_the_end));
    let outcomes = of(&counts, &["finished"]);
    assert_eq!(outcomes.values().sum::<u64>(), RUNS as u64);
    for outcome in [
        "completed",
        "failed",
        "timed_out",
        "limited",
        "aborted",
        "dropped",
    ] {
        let runs = outcomes[&("finished", outcome.to_owned())];
        assert!(runs > RUNS as u64 / 50, "{outcome}: {runs}");
    }
}
