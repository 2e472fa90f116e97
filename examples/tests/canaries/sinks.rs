//! Captures the output of a run in every sink.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt::{Debug, Display, Write as _};
use std::mem;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use aho_corasick::AhoCorasick;
use futures_util::{Stream, StreamExt};
use l0_core::{
    Backoff, Event, Interceptor, Interest, L0, L0Builder, Monitoring, Observer, Observers, Retry,
    RunInfo, Telemetry,
};
use serde_json::json;
use tracing::field::Field;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

use crate::canary::{CANARIES, Canary, Class, ENDPOINT, NESTED, TAG};
use crate::exporters::{self, Read};

/// The output of one sink.
pub(crate) type Captured = (&'static str, String);

/// The sinks of this file, in addition to the exporters.
const PRINTED: [&str; 4] = [
    "Debug of events",
    "Debug and Display of telemetry, end and run",
    "Display of the error",
    "Debug of the error",
];
/// The output of the crates to `tracing` and `log`.
pub(crate) const LOGS: &str = "tracing and log at TRACE";
pub(crate) const CHAIN: &str = "Display and Debug of the error's chain";

/// Returns `true` if the sink has messages.
pub(crate) fn carries_messages(sink: &str) -> bool {
    let numbers = ["Prometheus", exporters::FACADE, "StatsD", "OTel metrics"];
    let of_error = ["Display of the error", "Debug of the error", LOGS, CHAIN];
    !numbers.contains(&sink) && !of_error.contains(&sink)
}

/// Returns `true` if the sink has unlisted metadata, as documented.
pub(crate) fn carries_metadata(sink: &str) -> bool {
    let records = ["JSON", "CSV", "log record", "log event"];
    records.contains(&sink) || PRINTED[..2].contains(&sink)
}

/// All sinks of one run.
pub(crate) struct Listening {
    readers: Vec<Read>,
    prints: Prints,
}

/// Creates an `L0` with these settings, and all sinks with their defaults.
pub(crate) fn listen(
    monitoring: Monitoring,
    configure: impl FnOnce(L0Builder) -> L0Builder,
) -> (L0, Listening) {
    LazyLock::force(&LOGGING);
    drop(logged());
    let monitoring = monitoring
        .metadata("model", "m-1")
        .metadata("provider", "p-1")
        .metadata("endpoint", ENDPOINT)
        .metadata("tag", TAG)
        .metadata("nested", json!({ "list": [NESTED] }));
    let retry = Retry::new().max_retries(1).backoff(Backoff::none());
    let mut builder = configure(L0::builder().monitoring(monitoring).retry(retry));
    let mut readers = Vec::new();
    for attach in exporters::ALL {
        let (attached, read) = attach(builder);
        builder = attached;
        readers.push(read);
    }
    let prints = Prints::default();
    let l0 = builder.interceptor(prints.clone()).build();
    (l0, Listening { readers, prints })
}

impl Listening {
    /// Reads a run or a watched stream to its end, and returns its error as printed by `print`.
    pub(crate) async fn read<T, E>(
        self,
        mut run: impl Stream<Item = Result<T, E>> + Unpin + Debug,
        print: impl Fn(&E) -> Vec<Captured>,
    ) -> Vec<Captured> {
        let mut captured = Vec::new();
        while let Some(item) = run.next().await {
            self.prints.end(&format!("{run:?}"));
            if let Err(error) = item {
                captured.extend(print(&error));
            }
        }
        drop(run);
        captured.extend(self.captured());
        captured
    }

    fn captured(self) -> Vec<Captured> {
        let Prints(prints) = self.prints;
        let [events, ends] = mem::take(&mut *lock(&prints));
        let outputs = self.readers.into_iter().flat_map(|read| read());
        let mut captured: Vec<Captured> = outputs
            .map(|outputs| (outputs.exporter, outputs.text))
            .collect();
        captured.push((PRINTED[0], events));
        captured.push((PRINTED[1], ends));
        captured.push((LOGS, logged()));
        captured
    }
}

/// Prints an L0 error without its source.
pub(crate) fn own<E: Display + Debug>(error: &E) -> Vec<Captured> {
    vec![
        (PRINTED[2], error.to_string()),
        (PRINTED[3], format!("{error:?} {error:#?}")),
    ]
}

/// Prints an error with its chain, which belongs to L0.
pub(crate) fn chain(error: &(dyn StdError + 'static)) -> Captured {
    let links = std::iter::successors(Some(error), |&link| link.source());
    let prints = links.map(|link| format!("{link} {link:?} {link:#?}\n"));
    (CHAIN, prints.collect())
}

/// Prints everything that observers receive, in two texts: the events, and the state at the end.
#[derive(Debug, Clone, Default)]
struct Prints(Arc<Mutex<[String; 2]>>);

impl Prints {
    fn end(&self, text: &str) {
        lock(&self.0)[1] += text;
    }
}

impl Interceptor for Prints {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        self.end(&format!("{run:?} {observers:?}"));
        observers.push(self.clone());
    }
}

impl Observer for Prints {
    fn interest(&self) -> Interest {
        Interest::TOKENS
    }

    fn on_event(&mut self, event: &Event<'_>) {
        lock(&self.0)[0] += &format!("{event:?}\n{event:#?}\n");
        if let Event::Finished { end, telemetry, .. } = *event {
            self.end(&format!("{end:?} {:?}", end.message()));
            self.end(&telemetry.map(printed).unwrap_or_default());
        }
    }
}

fn printed(telemetry: &Telemetry) -> String {
    format!("{telemetry} {telemetry:?} {:?}", telemetry.summary())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Takes the log output of all crates since the last call.
fn logged() -> String {
    mem::take(&mut *lock(&LOGGED))
}

static LOGGED: Mutex<String> = Mutex::new(String::new());

static LOGGING: LazyLock<()> = LazyLock::new(|| {
    tracing::subscriber::set_global_default(Registry::default().with(Logs)).unwrap();
    log::set_logger(&Logs).unwrap();
    log::set_max_level(log::LevelFilter::Trace);
});

/// Captures `tracing` and `log` at every level.
struct Logs;

/// Crates that log the data they read. Users control these logs with a filter.
const NOT_OURS: [&str; 3] = ["async_openai", "genai", "rig"];

impl Logs {
    fn write(metadata: &str, text: impl Display) {
        if !NOT_OURS.iter().any(|name| metadata.starts_with(name)) {
            *lock(&LOGGED) += &format!("{metadata}: {text}\n");
        }
    }

    fn fields(metadata: &Metadata<'_>, record: impl FnOnce(&mut dyn FnMut(&Field, &dyn Debug))) {
        let mut text = metadata.name().to_owned();
        record(&mut |field, value| write!(text, " {field}={value:?}").unwrap());
        Self::write(metadata.target(), text);
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Logs {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        Self::fields(event.metadata(), |mut visit| event.record(&mut visit));
    }

    fn on_new_span(&self, span: &Attributes<'_>, _: &Id, _: Context<'_, S>) {
        Self::fields(span.metadata(), |mut visit| span.record(&mut visit));
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let metadata = context.metadata(id).unwrap();
        Self::fields(metadata, |mut visit| values.record(&mut visit));
    }
}

impl log::Log for Logs {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        Self::write(record.target(), record.args());
    }

    fn flush(&self) {}
}

static MARKS: LazyLock<AhoCorasick> =
    LazyLock::new(|| AhoCorasick::new(CANARIES.iter().map(|canary| canary.mark)).unwrap());

/// The extent and the results of the search.
#[derive(Default)]
pub(crate) struct Found {
    /// Source, sink, canary, and the text around it.
    pub(crate) leaks: Vec<(String, &'static str, &'static Canary, String)>,
    pub(crate) sources: BTreeSet<String>,
    pub(crate) sinks: BTreeSet<&'static str>,
    pub(crate) runs: usize,
    searches: usize,
    /// Metadata in the sinks that are allowed to have it.
    pub(crate) metadata: usize,
    pub(crate) logged: usize,
}

impl Found {
    /// Searches all output of one run for all canaries.
    pub(crate) fn look(&mut self, source: &str, captured: &[Captured]) {
        self.runs += 1;
        self.sources.insert(source.to_owned());
        for (sink, text) in captured {
            self.sinks.insert(sink);
            self.logged += if *sink == LOGS { text.len() } else { 0 };
            self.searches += CANARIES.len();
            // Reports each canary once, at its first position.
            let mut places = [None; CANARIES.len()];
            for place in MARKS.find_overlapping_iter(text) {
                places[place.pattern()].get_or_insert(place.start());
            }
            for (canary, at) in CANARIES.iter().zip(places) {
                let Some(at) = at else {
                    continue;
                };
                if canary.class == Class::Metadata && carries_metadata(sink) {
                    self.metadata += 1;
                    continue;
                }
                let [start, end] = [at.saturating_sub(80), at + 80];
                let around = text.char_indices();
                let around = around.filter(|(at, _)| (start..end).contains(at));
                let around = around.map(|(_, letter)| letter).collect();
                self.leaks.push((source.to_owned(), sink, canary, around));
            }
        }
    }

    /// Returns the sizes of the search and of the results.
    pub(crate) fn numbers(&self) -> String {
        format!(
            "{} canaries x {} sources x {} sinks, {} runs, {} searches: {} found",
            CANARIES.len(),
            self.sources.len(),
            self.sinks.len(),
            self.runs,
            self.searches,
            self.leaks.len(),
        )
    }

    /// Prints the numbers, and the first result of each kind.
    pub(crate) fn report(&self) -> String {
        let mut report = self.numbers();
        let mut kinds = BTreeSet::new();
        for (source, sink, canary, around) in &self.leaks {
            let shape = source.split(": ").last().unwrap_or_default();
            if kinds.insert((shape, sink, format!("{:?}", canary.class))) {
                let name = canary.name;
                write!(report, "\n{source} | {sink} | {name} | {around:?}").unwrap();
            }
        }
        report
    }
}
