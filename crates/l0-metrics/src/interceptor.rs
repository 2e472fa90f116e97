//! The interceptor: records runs as they happen, under labels from their metadata.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use l0_core::{
    End, Event, Interceptor, Interest, KeyError, KeyList, Metadata, Observer, Observers, RunInfo,
    Stalls, Telemetry, keys,
};

use crate::buckets::bounds;
use crate::gaps::Gaps;
use crate::handles::Names;
use crate::label_sets::{Found, LabelSets, Settings};
use crate::labels::KEYS;
use crate::layout::LAYOUT;
use crate::series::{Series, source_name};
use crate::streams::{Stream, Wait};

/// Records every run through the `metrics` facade.
///
/// To [refresh](Self::refresh) it, keep it in an [`Arc`] and add a clone of the `Arc` to the `L0`. The settings
/// then no longer change.
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
    /// Creates an interceptor with the prefix `l0` and no labels.
    pub fn new() -> Self {
        let prefix = "l0".to_owned();
        let settings = Settings {
            names: Arc::new(Names::new(&prefix)),
            keys: KeyList::new(),
            max_series: 1_000,
            stalls: None,
        };
        Self::with(prefix, settings)
    }

    /// Sets the prefix of all metric names, which an underscore follows. Default: `l0`.
    ///
    /// The exporter replaces characters that its system does not allow in a name.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        let prefix = prefix.into();
        let names = Arc::new(Names::new(&prefix));
        let settings = self.shared.settings.clone();
        Self::with(prefix, Settings { names, ..settings })
    }

    /// Adds metadata keys: every run is recorded under the values of these keys.
    ///
    /// No other metadata becomes a label. A key that is missing or has an empty value adds no label. Values are
    /// cut to 256 bytes. The values are those at the start of the run. If the run falls back, the measurements
    /// of each source use the values of that source's metadata.
    ///
    /// # Errors
    ///
    /// Returns an error if a key does not have the form `[a-zA-Z_][a-zA-Z0-9_]*` or is reserved: `le`,
    /// `quantile`, names that begin with `__`, and the labels of L0's own metrics, `error_type`, `severity`,
    /// `rule`, `outcome`, `result`, `from` and `to`.
    pub fn label_keys<I>(self, keys: I) -> Result<Self, KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut settings = self.shared.settings.clone();
        settings.keys.add(keys, &KEYS)?;
        Ok(Self::with(self.prefix, settings))
    }

    /// Sets the maximum number of label sets. Default: 1,000.
    ///
    /// Label sets beyond the limit share one more label set. It has the label names of the first set beyond the
    /// limit, and `other` as every value, so sums over all label sets stay exact. `l0_series_overflow_total`
    /// counts these look-ups. Handles are kept as long as the interceptor.
    pub fn max_series(self, max: usize) -> Self {
        let mut settings = self.shared.settings.clone();
        settings.max_series = max;
        Self::with(self.prefix, settings)
    }

    /// Counts live runs whose source is silent for as long as `stalls` define, as `l0_streams_stalled`.
    /// Default: stalls are not counted, and the metric is absent.
    ///
    /// The value is that of the last [`refresh`](Self::refresh), and is absent before the first. A run is not
    /// stalled while it waits for its consumer or backs off. Unmeasured runs have no times and count as not
    /// stalled. With this setting, runs keep their [progress](l0_core::RunInfo::progress), which takes a few
    /// instructions for each item.
    pub fn stalls(self, stalls: Stalls) -> Self {
        let mut settings = self.shared.settings.clone();
        settings.stalls = Some(stalls);
        Self::with(self.prefix, settings)
    }

    /// Starts with new handles, because handles belong to one prefix and one list of keys.
    fn with(prefix: String, settings: Settings) -> Self {
        let shared = Shared {
            settings,
            sets: LabelSets::default(),
        };
        Self {
            prefix,
            shared: Arc::new(shared),
        }
    }

    /// Returns the name of each histogram and the recommended upper bounds of its buckets, in ascending order
    /// and without `+Inf`. The bounds are those of `l0-prometheus`.
    ///
    /// The facade cannot carry bounds, so pass them to the exporter. See the [crate's
    /// documentation](crate#prometheus).
    pub fn buckets(&self) -> impl Iterator<Item = (String, &'static [f64])> {
        let name = |place| self.shared.settings.names.get(place);
        let histograms = LAYOUT.histograms.iter();
        histograms.map(move |row| (name(row.place), bounds(row)))
    }

    /// Updates the values that change while nothing happens: the age of the oldest live run of each label set,
    /// the seconds that runs were live and waited for retries, and, if stalls are [counted](Self::stalls), the
    /// number of stalled runs.
    ///
    /// All except the stalled runs are also updated when a run of their label set starts or ends. To see runs
    /// that hang, call this before each scrape, or every few seconds.
    pub fn refresh(&self) {
        for series in self.shared.sets.all() {
            series
                .streams
                .refresh(self.shared.settings.stalls, series.deferred());
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
            .field("stalls", &self.shared.settings.stalls)
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

    fn needs_progress(&self) -> bool {
        self.shared.settings.stalls.is_some()
    }
}

impl Shared {
    fn find(&self, metadata: &Metadata) -> Found {
        self.sets.get(&self.settings, metadata)
    }
}

/// A run that has started. Dropping it ends the run if nothing else did.
struct LiveRun {
    shared: Arc<Shared>,
    run: RunInfo,
    /// The series of the labels at the start, which are those of the first source.
    first: Found,
    /// `None` once the run has finished.
    stream: Option<Stream>,
    /// The number of the current source.
    source: u32,
    /// The series of the current source, if it differs from the first.
    fallback: Option<Arc<Series>>,
    /// The current wait for a retry of that source.
    wait: Option<Wait>,
    /// The gaps of the current attempt that are not recorded yet.
    gaps: Gaps,
}

impl LiveRun {
    fn start(shared: &Arc<Shared>, run: &RunInfo) -> Self {
        let first = shared.find(run.metadata());
        first.series.begin();
        let watched = shared.settings.stalls.map(|_| run);
        Self {
            shared: Arc::clone(shared),
            run: run.clone(),
            stream: Some(first.series.streams.start(watched)),
            first,
            source: 1,
            fallback: None,
            wait: None,
            gaps: Gaps::new(),
        }
    }

    /// Returns the series of a source, if it differs from the first.
    fn fallback_series(&self, source: u32) -> Option<Arc<Series>> {
        match source {
            1 => None,
            same if same == self.source => self.fallback.clone(),
            other => {
                let metadata = &self.run.source(other)?.metadata;
                Some(self.shared.find(metadata).series)
            }
        }
    }

    /// Returns the series of the current source.
    fn current(&self) -> &Series {
        self.fallback.as_deref().unwrap_or(&self.first.series)
    }

    fn attempt_started(&mut self, source: u32) {
        self.resume();
        if source != self.source {
            self.fallback = self.fallback_series(source);
            self.source = source;
        }
    }

    fn wait(&mut self) {
        if self.wait.is_none() {
            let current = self.current();
            self.wait = Some(current.streams.wait(current.deferred()));
        }
    }

    fn resume(&mut self) {
        if let Some(wait) = self.wait.take() {
            self.current().streams.resume(wait);
        }
    }

    fn token(&mut self, gap: Option<Duration>) {
        if gap.is_some_and(|gap| self.gaps.push(gap)) {
            self.record_gaps();
        }
    }

    fn record_gaps(&mut self) {
        let current = self.fallback.as_deref().unwrap_or(&self.first.series);
        current.record_gaps(self.gaps.take());
    }

    /// Counts under the labels of the start, like the runs that the fallbacks are a share of. The metric's own
    /// labels name both sources.
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
            self.first.series.finish(&stream, end, self.current());
        }
    }

    /// Records the measurements of each source under its labels.
    fn record(&self, telemetry: &Telemetry) {
        telemetry.by_source(&mut |part| {
            let fallback = self.fallback_series(part.source);
            let series = fallback.as_deref().unwrap_or(&self.first.series);
            series.record_measured(part.telemetry, part.is_last);
        });
    }
}

impl Observer for LiveRun {
    fn interest(&self) -> Interest {
        // An unmeasured run has no gaps.
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
        // All observers have been notified of the end by now.
        let panics = self.run.observer_panics();
        if panics > 0 {
            self.first.health.observer_panics.increment(panics);
        }
    }
}
