//! Interceptor: records runs as they happen, under labels from their metadata.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use l0_core::{
    End, Event, Interceptor, Interest, KeyError, KeyList, Metadata, Observer, Observers, RunInfo,
    Telemetry, keys,
};

use crate::buckets::bounds;
use crate::gaps::Gaps;
use crate::handles::Names;
use crate::label_sets::{Found, LabelSets, Settings};
use crate::labels::KEYS;
use crate::layout::LAYOUT;
use crate::series::{Series, source_name};
use crate::streams::{Stream, Wait};

/// Records every run through the `metrics` facade. Clones share their handles.
///
/// ```
/// use l0_core::L0;
/// use l0_metrics::MetricsInterceptor;
///
/// # fn main() -> Result<(), l0_core::KeyError> {
/// let l0 = L0::builder()
///     .interceptor(MetricsInterceptor::new().label_keys(["model", "endpoint"])?)
///     .build();
/// # drop(l0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
#[must_use]
pub struct MetricsInterceptor {
    prefix: String,
    shared: Arc<Shared>,
}

struct Shared {
    settings: Settings,
    sets: LabelSets,
}

impl MetricsInterceptor {
    /// Creates an interceptor with the prefix `l0` and no labels of runs.
    pub fn new() -> Self {
        Self::with("l0".to_owned(), KeyList::new(), 10_000)
    }

    /// Sets what all metric names begin with, before an underscore. Default: `l0`.
    ///
    /// What an exporter's system does not allow in a name, the exporter replaces.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        let settings = &self.shared.settings;
        Self::with(prefix.into(), settings.keys.clone(), settings.max_series)
    }

    /// Adds metadata keys: every run is recorded under the values that its metadata has for them.
    ///
    /// No other metadata becomes a label. A key that a run does not have, or whose value is empty, gives
    /// no label. Values are cut to 256 bytes. They are those of the start of the run; of one that falls
    /// back, what each source measures is under the values that its own metadata has.
    ///
    /// # Errors
    ///
    /// If a key is not of the form `[a-zA-Z_][a-zA-Z0-9_]*`, or has a meaning already: `le`, `quantile`,
    /// whatever begins with `__`, and the labels of L0's own metrics, `error_type`, `severity`, `rule`,
    /// `outcome`, `result`, `from` and `to`.
    pub fn label_keys<I>(self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let settings = &self.shared.settings;
        let mut list = settings.keys.clone();
        list.add(keys, &KEYS)?;
        Ok(Self::with(self.prefix, list, settings.max_series))
    }

    /// Sets how many label sets are told apart. Default: 10,000.
    ///
    /// Further ones are counted together under one more label set, with the label names of the first
    /// beyond the limit and `other` for every value, so that sums over all label sets stay exact;
    /// `l0_series_overflow_total` counts how often that was done. Their handles are kept for as long as
    /// the interceptor.
    pub fn max_series(self, max: usize) -> Self {
        let keys = self.shared.settings.keys.clone();
        Self::with(self.prefix, keys, max)
    }

    /// What is changed begins anew: handles are of one prefix and one list of keys.
    fn with(prefix: String, keys: KeyList, max_series: usize) -> Self {
        let settings = Settings {
            names: Arc::new(Names::new(&prefix)),
            keys,
            max_series,
        };
        let shared = Shared {
            settings,
            sets: LabelSets::default(),
        };
        Self {
            prefix,
            shared: Arc::new(shared),
        }
    }

    /// Returns the name of each histogram and the upper bounds that its buckets should have, in ascending
    /// order and without `+Inf`: those of `l0-prometheus`.
    ///
    /// The facade has no place for them, so that an exporter has to be told: see the
    /// [crate's documentation](crate#prometheus).
    pub fn buckets(&self) -> impl Iterator<Item = (String, &'static [f64])> {
        let name = |place| self.shared.settings.names.get(place);
        let histograms = LAYOUT.histograms.iter();
        histograms.map(move |row| (name(row.place), bounds(row)))
    }

    /// Brings up to date what grows while nothing happens: the age of the oldest live run of each label
    /// set, and the seconds that runs were live and waited for retries.
    ///
    /// They are also brought up to date when a run of their label set starts or ends. To see runs that hang,
    /// call this before each scrape, or every few seconds.
    pub fn refresh(&self) {
        for series in self.shared.sets.all() {
            series.streams.refresh();
        }
    }
}

impl Default for MetricsInterceptor {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MetricsInterceptor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetricsInterceptor")
            .field("prefix", &self.prefix)
            .field("label_keys", &self.shared.settings.keys)
            .field("max_series", &self.shared.settings.max_series)
            .finish_non_exhaustive()
    }
}

impl Interceptor for MetricsInterceptor {
    fn observe(&self, run: &RunInfo, observers: &mut Observers) {
        observers.push(LiveRun::start(&self.shared, run));
    }

    fn needs_telemetry(&self) -> bool {
        true
    }
}

impl Shared {
    fn find(&self, metadata: &Metadata) -> Found {
        self.sets.get(&self.settings, metadata)
    }
}

/// A run that has started. Its drop is its end, at the latest.
struct LiveRun {
    shared: Arc<Shared>,
    run: RunInfo,
    /// Of the labels that were known at the start, which are those of the first source.
    first: Found,
    /// Until it has finished.
    stream: Option<Stream>,
    /// The number of the source that is tried.
    source: u32,
    /// Where that source is counted, if it is not the first.
    elsewhere: Option<Arc<Series>>,
    /// While it waits for a retry of that source.
    wait: Option<Wait>,
    /// Those of the present attempt that are not recorded yet.
    gaps: Gaps,
}

impl LiveRun {
    fn start(shared: &Arc<Shared>, run: &RunInfo) -> Self {
        let first = shared.find(run.metadata());
        first.series.begin();
        Self {
            shared: Arc::clone(shared),
            run: run.clone(),
            stream: Some(first.series.streams.start()),
            first,
            source: 1,
            elsewhere: None,
            wait: None,
            gaps: Gaps::new(),
        }
    }

    /// Where a source is counted, if it is not the first.
    fn elsewhere(&self, source: u32) -> Option<Arc<Series>> {
        match source {
            1 => None,
            same if same == self.source => self.elsewhere.clone(),
            other => {
                let metadata = &self.run.source(other)?.metadata;
                Some(self.shared.find(metadata).series)
            }
        }
    }

    /// Where the source is counted that is tried.
    fn present(&self) -> &Series {
        self.elsewhere.as_deref().unwrap_or(&self.first.series)
    }

    fn attempt_started(&mut self, source: u32) {
        self.resume();
        if source != self.source {
            self.elsewhere = self.elsewhere(source);
            self.source = source;
        }
    }

    fn wait(&mut self) {
        if self.wait.is_none() {
            let present = self.present();
            self.wait = Some(present.streams.wait(present.later()));
        }
    }

    fn resume(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.present().streams.resume(wait);
        }
    }

    fn token(&mut self, gap: Option<Duration>) {
        if gap.is_some_and(|gap| self.gaps.push(gap)) {
            self.record_gaps();
        }
    }

    fn record_gaps(&mut self) {
        let present = self.elsewhere.as_deref().unwrap_or(&self.first.series);
        present.record_gaps(self.gaps.take());
    }

    /// Under the labels of the start, as the runs are that it is a share of. What is given up and what is
    /// asked instead, its own labels say.
    fn count_fallback(&self, from: u32, to: u32) {
        let name = |number| {
            let source = self.run.source(number);
            let model = source.and_then(|source| keys::text(&source.metadata, keys::MODEL));
            source_name(model, number)
        };
        self.first.series.record_fallback(&name(from), &name(to));
    }

    fn finish(&mut self, end: &End) {
        if let Some(stream) = self.stream.take() {
            self.record_gaps();
            self.resume();
            self.first.series.finish(&stream, end, self.present());
        }
    }

    /// What each source measured goes under its labels.
    fn record(&self, telemetry: &Telemetry) {
        telemetry.by_source(&mut |part| {
            let elsewhere = self.elsewhere(part.source);
            let series = elsewhere.as_deref().unwrap_or(&self.first.series);
            series.record_measured(part.telemetry, part.is_last);
        });
    }
}

impl Observer for LiveRun {
    fn interest(&self) -> Interest {
        // Of a run that is not measured, no gap is known.
        if self.run.measured() && !self.run.is_call() {
            Interest::TOKENS
        } else {
            Interest::LIFECYCLE
        }
    }

    fn on_event(&mut self, event: &Event<'_>) {
        match *event {
            Event::Token { gap, .. } => self.token(gap),
            Event::AttemptFinished { .. } => self.record_gaps(),
            Event::Retry { .. } => self.wait(),
            Event::Fallback { from, to, .. } => self.count_fallback(from, to),
            Event::AttemptStarted { source, .. } => self.attempt_started(source),
            Event::Finished { end, telemetry, .. } => {
                self.finish(end);
                if let Some(telemetry) = telemetry {
                    self.record(telemetry);
                }
            }
            _ => {}
        }
    }
}

impl Drop for LiveRun {
    fn drop(&mut self) {
        self.finish(&End::dropped());
        // Now that all observers were told of the end.
        let panics = self.run.observer_panics();
        if panics > 0 {
            self.first.health.observer_panics.increment(panics);
        }
    }
}
