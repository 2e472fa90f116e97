//! Runs that start, stream, fail, fall back, end, are dropped, and are aborted alone or together,
//! in any order.
//!
//! At every step, the number of started runs is that of finished and live runs, and the number of
//! started attempts is that of ended and open ones. A task that waits for the end of all runs waits
//! exactly as long as one is live.
//!
//! `L0_INTERLEAVINGS` is the number of orders to try. Ten million take ten minutes:
//!
//! ```console
//! $ L0_INTERLEAVINGS=10000000 cargo test -p l0-core --test interleavings
//! ```

use std::collections::{HashMap, VecDeque};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::{env, io};

use futures_core::Stream;
use l0_core::{
    Backoff, Event, Failure, Interceptor, L0, Monitoring, Observer, Observers, Outcome, Retry, Run,
    RunHandle, RunInfo, Watched,
};

type Item = io::Result<&'static str>;

/// A source that yields the items put into it; `None` ends it.
#[derive(Clone, Default)]
struct Fed(Arc<Mutex<VecDeque<Option<Item>>>>);

impl Fed {
    fn feed(&self, item: Option<Item>) {
        self.0
            .lock()
            .expect("no panic while locked")
            .push_back(item);
    }
}

impl Stream for Fed {
    type Item = Item;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Item>> {
        match self.0.lock().expect("no panic while locked").pop_front() {
            Some(item) => Poll::Ready(item),
            None => Poll::Pending,
        }
    }
}

/// The number of starts and ends of each run.
#[derive(Clone, Default)]
struct Tally(Arc<Mutex<HashMap<String, Counts>>>);

#[derive(Default)]
struct Counts {
    started: u32,
    finished: u32,
    attempts: u32,
    /// `true` while an attempt is open.
    is_open: bool,
    fallbacks: u32,
}

impl Tally {
    fn started_and_finished(&self) -> (usize, usize) {
        let runs = self.0.lock().expect("no panic while locked");
        assert!(
            runs.values()
                .all(|run| run.started == 1 && run.finished <= 1)
        );
        let finished = runs.values().filter(|run| run.finished == 1).count();
        (runs.len(), finished)
    }
}

impl Interceptor for Tally {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(RunTally(run.id().to_owned(), self.clone()));
    }
}

struct RunTally(String, Tally);

impl Observer for RunTally {
    fn on_event(&mut self, event: &Event<'_>) {
        let mut runs = self.1.0.lock().expect("no panic while locked");
        let run = runs.entry(self.0.clone()).or_default();
        assert_eq!(run.finished, 0, "{event:?} after the end");
        match event {
            Event::Started { .. } => run.started += 1,
            Event::AttemptStarted { number, source, .. } => {
                assert!(!std::mem::replace(&mut run.is_open, true));
                run.attempts += 1;
                assert_eq!((*number, *source), (run.attempts, run.fallbacks + 1));
            }
            Event::AttemptFinished { attempt, .. } => {
                assert!(std::mem::take(&mut run.is_open));
                assert_eq!(attempt.number, run.attempts);
            }
            Event::Retry { .. } => assert!(!run.is_open),
            Event::Fallback { from, to, .. } => {
                assert!(!run.is_open);
                run.fallbacks += 1;
                assert_eq!((*from, *to), (run.fallbacks, run.fallbacks + 1));
            }
            Event::Finished {
                telemetry,
                metadata,
                ..
            } => {
                assert!(!run.is_open);
                run.finished += 1;
                if let Some(telemetry) = telemetry {
                    assert_eq!(telemetry.metrics.attempts, run.attempts);
                    assert_eq!(telemetry.fallbacks(), run.fallbacks);
                    assert_eq!(&telemetry.metadata, *metadata);
                }
            }
            _ => assert!(run.is_open),
        }
    }
}

enum Subject {
    Run(Box<Run<'static, &'static str, io::Error>>),
    Watched(Box<Watched<Fed>>),
}

struct Live {
    stream: Subject,
    handle: RunHandle,
    fed: Fed,
    /// `true` if it was asked to stop, and so must have ended after the next poll.
    aborted: bool,
}

impl Live {
    fn start(l0: &L0, rng: &mut fastrand::Rng) -> Self {
        let fed = Fed::default();
        let source = fed.clone();
        let monitoring = match rng.u8(..3) {
            0 => Monitoring::off(),
            1 => Monitoring::new().sample_rate(0.5),
            _ => Monitoring::new(),
        };
        let (stream, handle) = if rng.bool() {
            let connect = |source: Fed| {
                move |_| {
                    let source = source.clone();
                    async move { io::Result::Ok(source) }
                }
            };
            let mut builder = l0.stream(connect(source.clone())).monitoring(monitoring);
            for _ in 0..rng.u8(..3) {
                builder = builder.fallback(l0_core::source(connect(source.clone())));
            }
            let run = builder.start();
            let handle = run.handle();
            (Subject::Run(Box::new(run)), handle)
        } else {
            let watched = l0.watch(source).monitoring(monitoring).start();
            let handle = watched.handle();
            (Subject::Watched(Box::new(watched)), handle)
        };
        Self {
            stream,
            handle,
            fed,
            aborted: false,
        }
    }

    fn poll(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        match &mut self.stream {
            Subject::Run(run) => drop(Pin::new(run).poll_next(&mut cx)),
            Subject::Watched(watched) => drop(Pin::new(watched).poll_next(&mut cx)),
        }
    }

    fn outcome(&self) -> Option<Outcome> {
        match &self.stream {
            Subject::Run(run) => run.outcome(),
            Subject::Watched(watched) => watched.outcome(),
        }
    }
}

/// A task that waits until no run is live.
struct Waits {
    ended: Pin<Box<dyn Future<Output = ()> + Send>>,
    woken: Arc<Woken>,
}

struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Waits {
    fn begin(l0: &L0) -> Self {
        Self {
            ended: Box::pin(l0.ended()),
            woken: Arc::new(Woken(AtomicBool::new(true))), // a task is polled when it is spawned
        }
    }

    /// Polls it if it was woken, as its executor would. Returns `true` if it is ready.
    fn is_over(&mut self) -> bool {
        if !self.woken.0.swap(false, Ordering::Relaxed) {
            return false;
        }
        let waker = Waker::from(Arc::clone(&self.woken));
        let polled = self.ended.as_mut().poll(&mut Context::from_waker(&waker));
        polled.is_ready()
    }
}

fn interleavings() -> usize {
    match env::var("L0_INTERLEAVINGS") {
        Ok(number) => number.parse().expect("L0_INTERLEAVINGS is a number"),
        Err(_) => 100_000,
    }
}

#[test]
fn started_is_finished_plus_live_at_every_step_of_any_interleaving() {
    const STEPS: usize = 24;

    let mut rng = fastrand::Rng::with_seed(7);
    for interleaving in 0..interleavings() {
        let tally = Tally::default();
        let l0 = L0::builder()
            .interceptor(tally.clone())
            .retry(Retry::new().backoff(Backoff::none()))
            .build();
        let variant = l0.to_builder().detect_zero_output(false).build();
        let mut waits: Vec<Waits> = Vec::new();
        let mut runs: Vec<Live> = Vec::new();
        let mut dropped = 0;
        for _ in 0..STEPS {
            let chosen = rng.usize(..runs.len().max(1));
            match (rng.u8(..13), runs.get_mut(chosen)) {
                (10, _) => waits.push(Waits::begin(&l0)),
                (11, _) if !waits.is_empty() => drop(waits.pop()),
                (12, _) if rng.u8(..4) == 0 => {
                    l0.abort_all();
                    runs.iter_mut().for_each(|run| run.aborted = true);
                }
                (0, _) | (_, None) => {
                    let l0 = if rng.bool() { &l0 } else { &variant };
                    runs.push(Live::start(l0, &mut rng));
                }
                (1, _) => {
                    // Dropped in any state. A run that was asked to stop ends as aborted, not as
                    // dropped.
                    let run = runs.swap_remove(chosen);
                    drop(run.stream);
                    assert!(run.handle.is_finished());
                    dropped += 1;
                }
                (2, Some(run)) if rng.bool() => {
                    run.handle.abort();
                    run.aborted = true;
                }
                (2, Some(run)) => run.handle.set_metadata("key", rng.u8(..)),
                (3, Some(run)) => run.fed.feed(Some(Err(io::Error::other(Failure::fatal())))),
                (4, Some(run)) => {
                    let reset = io::Error::from(io::ErrorKind::ConnectionReset);
                    run.fed.feed(Some(Err(reset)));
                }
                (5, Some(run)) => run.fed.feed(None),
                (6, Some(run)) => run.fed.feed(Some(Ok("token"))),
                (_, Some(run)) => {
                    run.poll();
                    assert!(!run.aborted || run.outcome().is_some());
                }
            }
            let live = runs.iter().filter(|run| run.outcome().is_none()).count();
            let (started, finished) = tally.started_and_finished();
            assert_eq!(started, finished + live, "interleaving {interleaving}");
            assert_eq!(started, runs.len() + dropped, "interleaving {interleaving}");
            assert_eq!(l0.live(), live, "interleaving {interleaving}");
            for wait in &mut waits {
                assert_eq!(wait.is_over(), live == 0, "interleaving {interleaving}");
            }
            if live == 0 {
                waits.clear();
            }
        }
        drop(runs);
        assert_eq!(l0.live(), 0, "interleaving {interleaving}");
        for wait in &mut waits {
            assert!(wait.is_over(), "interleaving {interleaving}");
        }
        let (started, finished) = tally.started_and_finished();
        assert_eq!(started, finished, "interleaving {interleaving}");
    }
}
