//! The registry: holds the series of runs and the custom metrics, and writes them.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use l0_core::{RunInfo, Stalls, Telemetry};
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use crate::custom::{CustomMetric, CustomMetrics, CustomValue};
use crate::error::MetricError;
use crate::exemplar::{Panic, Trace, TraceOf};
use crate::exposition::{Family, Format, Sample, Sink, Writer};
use crate::families::Families;
use crate::histogram::{Bounds, UnitBounds};
use crate::label_sets::{Cell, Found, LabelSets};
use crate::labels::Labels;
use crate::layout::Kind;
use crate::metrics::{HEALTH, Health, METRICS, Value};
use crate::series::Series;

/// Holds the metrics of runs and custom metrics. Clones share what is recorded.
///
/// A [`Collector`](crate::Collector) keeps its metrics in a registry. You can also use one on its own:
///
/// ```
/// use l0_core::Telemetry;
/// use l0_prometheus::{Labels, Registry};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let registry = Registry::builder().prefix("myapp_l0").label("service", "api").build()?;
/// # let telemetry = Telemetry::default();
/// registry.record_telemetry(&telemetry, &Labels::new([("model", "gpt-4")])?);
///
/// let special = Labels::new([("type", "special")])?;
/// registry.inc_counter("custom_events_total", "Custom event count", 1, &special)?;
/// registry.set_gauge("queue_length", "Requests in the queue", 5, &Labels::none())?;
/// registry.observe_histogram("custom_latency_seconds", "Custom latency", 0.5, &Labels::none())?;
///
/// let text = registry.expose();
/// assert!(text.contains("\nmyapp_l0_custom_events_total{service=\"api\",type=\"special\"} 1\n"));
/// # Ok(())
/// # }
/// ```
///
/// The first use of a custom metric fixes its type and its help text: a later use of the name with another type
/// or help text is an error. Each custom metric has its own limit of label sets, the same as for runs.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    /// The bounds of each histogram of runs.
    bounds: Box<[Arc<UnitBounds>]>,
    /// The names of the metrics of runs, with the prefix.
    names: Box<[String]>,
    /// The names of [`HEALTH`], with the prefix.
    health_names: Box<[String]>,
    descs: Vec<Desc>,
    defaults: Labels,
    idle_timeout: Option<Duration>,
    exemplars: bool,
    trace_of: Option<TraceOf>,
    stalls: Option<Stalls>,
    runs: LabelSets<Series>,
    custom: CustomMetrics,
    health: Health,
    /// The length of the last exposition, in bytes.
    exposed: AtomicUsize,
}

/// Returns the name of a metric that is described but never written. It is unique to these default labels.
///
/// The `prometheus` crate treats two collectors as the same if the hashes of their descriptions have the same
/// sum. Labels that differ only in their last character, such as `web-1` and `web-2`, have hashes so similar
/// that their sums can be equal.
fn identity(defaults: &Labels) -> String {
    let mut hasher = DefaultHasher::new();
    for label in defaults.iter() {
        label.hash(&mut hasher);
    }
    format!("collector_{:016x}", hasher.finish())
}

/// The settings of a registry, validated by the builder.
pub(crate) struct Settings {
    pub(crate) prefix: String,
    pub(crate) labels: Labels,
    pub(crate) max_series: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) exemplars: bool,
    pub(crate) trace_of: Option<TraceOf>,
    /// `None` if stalls are not counted.
    pub(crate) stalls: Option<Stalls>,
}

impl Registry {
    pub(crate) fn new(settings: Settings, bounds: Box<[Arc<UnitBounds>]>) -> Self {
        let Settings {
            prefix,
            labels: defaults,
            max_series,
            idle_timeout,
            exemplars,
            trace_of,
            stalls,
        } = settings;
        let full = |name: &str| format!("{prefix}_{name}");
        let metrics = &*METRICS;
        let runs = metrics.iter().map(|one| (&*one.name, one.help, &*one.own));
        let health = HEALTH.iter().map(|one| (one.name, one.help, &[][..]));
        let identity = identity(&defaults);
        let identity = (&*identity, "Distinguishes collectors", &[][..]);
        let descs = runs.chain(health).chain([identity]);
        let descs = descs.filter_map(|(name, help, own)| {
            let own = own.iter().map(|label| (*label).to_owned()).collect();
            let constant = defaults
                .iter()
                .map(|(name, value)| (name.into(), value.into()));
            // Names and labels are validated, so none is left out.
            Desc::new(full(name), help.to_owned(), own, constant.collect()).ok()
        });
        Self(Arc::new(Shared {
            bounds,
            names: metrics.iter().map(|metric| full(&metric.name)).collect(),
            health_names: HEALTH.iter().map(|metric| full(metric.name)).collect(),
            descs: descs.collect(),
            idle_timeout,
            exemplars,
            trace_of,
            stalls,
            runs: LabelSets::new(defaults.clone(), max_series),
            custom: CustomMetrics::new(prefix, defaults.clone(), max_series),
            defaults,
            health: Health::default(),
            exposed: AtomicUsize::new(0),
        }))
    }

    /// Counts one measured run from its final telemetry, including its outcome and the reason for a failure.
    pub fn record_telemetry(&self, telemetry: &Telemetry, labels: &Labels) {
        self.series(labels).value.record(telemetry);
    }

    /// Adds to a counter, which starts at 0.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is not allowed or names another metric, or if the value is negative or not
    /// finite.
    pub fn inc_counter(
        &self,
        name: &str,
        help: &str,
        value: impl Into<f64>,
        labels: &Labels,
    ) -> Result<(), MetricError> {
        let value = value.into();
        if !value.is_finite() || value < 0.0 {
            return Err(MetricError::value(name, value));
        }
        let metric = self.0.custom.get(Kind::Counter, name, help, None)?;
        if let CustomValue::Number(number) = &self.custom_cell(&metric, labels).value {
            number.add(value);
        }
        Ok(())
    }

    /// Sets a gauge to any value.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is not allowed or names another metric.
    pub fn set_gauge(
        &self,
        name: &str,
        help: &str,
        value: impl Into<f64>,
        labels: &Labels,
    ) -> Result<(), MetricError> {
        let metric = self.0.custom.get(Kind::Gauge, name, help, None)?;
        if let CustomValue::Number(number) = &self.custom_cell(&metric, labels).value {
            number.set(value.into());
        }
        Ok(())
    }

    /// Adds a value to a histogram. Its buckets are those that you [declared](Self::declare_histogram), or else
    /// 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5 and 10.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is not allowed or names another metric, or if the value is not finite.
    pub fn observe_histogram(
        &self,
        name: &str,
        help: &str,
        value: impl Into<f64>,
        labels: &Labels,
    ) -> Result<(), MetricError> {
        let value = value.into();
        if !value.is_finite() {
            return Err(MetricError::value(name, value));
        }
        let metric = self.0.custom.get(Kind::Histogram, name, help, None)?;
        if let CustomValue::Histogram(histogram) = &self.custom_cell(&metric, labels).value {
            histogram.observe(value);
        }
        Ok(())
    }

    /// Sets the buckets of a histogram before its first use.
    ///
    /// # Errors
    ///
    /// Returns an error if the name is not allowed, names another metric, or names a histogram with other
    /// buckets, or if the bounds are not ascending or not finite.
    pub fn declare_histogram(
        &self,
        name: &str,
        help: &str,
        bounds: &[f64],
    ) -> Result<(), MetricError> {
        let bounds = Bounds::new(bounds).map_err(|bound| MetricError::Buckets {
            name: name.to_owned(),
            bound,
        })?;
        let bounds = Arc::new(bounds);
        self.0
            .custom
            .get(Kind::Histogram, name, help, Some(&bounds))?;
        Ok(())
    }

    /// Writes all metrics in the Prometheus text format, version 0.0.4. Empty if nothing was recorded.
    ///
    /// Metrics of runs come first, in the order of the table in the [crate's documentation](crate), then custom
    /// metrics by name. The label sets of each metric are sorted by their labels. Runs can be recorded
    /// concurrently: a run that ends during the call can be in some metrics and not yet in others. Three things
    /// always hold. Under each label set, every started run is finished or active. Over all label sets
    /// together, no more runs of interceptors were measured than have finished; without fallbacks this also
    /// holds under each label set. The buckets of a histogram ascend to its count.
    #[must_use]
    pub fn expose(&self) -> String {
        self.write(Format::Text)
    }

    /// Writes all metrics in the OpenMetrics format, version 1.0.0, including
    /// [exemplars](crate::PrometheusBuilder::exemplars) if they are kept. Serve it as
    /// [`OPENMETRICS_CONTENT_TYPE`](crate::OPENMETRICS_CONTENT_TYPE).
    #[must_use]
    pub fn expose_openmetrics(&self) -> String {
        self.write(Format::OpenMetrics)
    }

    fn write(&self, format: Format) -> String {
        let before = self.0.exposed.load(Ordering::Relaxed);
        let mut writer = Writer::new(format, before + before / 8);
        self.read(&mut writer);
        // Without an output, writing cannot fail.
        let text = writer.finish().unwrap_or_default();
        self.0.exposed.store(text.len(), Ordering::Relaxed);
        text
    }

    /// Writes all metrics as text to an output, piece by piece.
    #[cfg(feature = "axum")]
    pub(crate) fn write_to(
        &self,
        format: Format,
        out: &mut dyn std::io::Write,
    ) -> std::io::Result<()> {
        let mut writer = Writer::to(out, format);
        self.read(&mut writer);
        writer.finish().map(drop)
    }

    /// Returns `true` if exemplars are kept, which only OpenMetrics carries.
    #[cfg(feature = "axum")]
    pub(crate) fn has_exemplars(&self) -> bool {
        self.0.exemplars
    }

    /// Clears everything that was recorded. Custom metrics keep their types and help texts. Handles and
    /// interceptors continue from 0. Live runs are cleared too: they are counted neither as active nor when
    /// they end.
    pub fn clear(&self) {
        self.0.runs.clear();
        for metric in self.0.custom.all() {
            metric.sets.clear();
        }
        self.0.health.clear();
    }

    /// Drops the label sets, of runs and of custom metrics, for which `keep` returns `false`. Returns the
    /// number of dropped sets.
    ///
    /// A label set stays while a live run, a [`LabeledCollector`](crate::LabeledCollector), a recording
    /// thread or a scrape uses it, so no count is lost. A label set that returns starts at 0, which Prometheus
    /// treats as a counter restart.
    pub fn retain(&self, mut keep: impl FnMut(&Labels) -> bool) -> usize {
        let runs = self.0.runs.retain(&mut keep);
        let custom = self.0.custom.all();
        let custom = custom.iter().map(|metric| metric.sets.retain(&mut keep));
        runs + custom.sum::<usize>()
    }

    /// Returns the number of label sets of runs, including the shared one beyond the limit.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.0.runs.len()
    }

    /// Returns the trace in which a run starts, if exemplars need it.
    pub(crate) fn trace_of(&self, run: &RunInfo) -> Option<Trace> {
        let wanted = self.0.exemplars && run.measured();
        let trace_of = self.0.trace_of.as_ref().filter(|_| wanted)?;
        // A run without a trace is still counted.
        trace_of.get(run).unwrap_or_else(|Panic| {
            self.0.health.observer_panics.add(1);
            None
        })
    }

    /// Returns the number of all label sets, of runs and of custom metrics.
    #[cfg(feature = "axum")]
    pub(crate) fn label_sets(&self) -> usize {
        let custom = self.0.custom.all();
        let custom = custom.iter().map(|metric| metric.sets.len());
        self.series_count() + custom.sum::<usize>()
    }

    /// Returns the series of these labels.
    #[inline]
    pub(crate) fn series(&self, labels: &Labels) -> Arc<Cell<Series>> {
        let found = self.0.runs.get(labels, || {
            Series::new(&self.0.bounds, self.0.exemplars, self.0.stalls)
        });
        self.count_overflow(found)
    }

    fn custom_cell(&self, metric: &CustomMetric, labels: &Labels) -> Arc<Cell<CustomValue>> {
        self.count_overflow(metric.cell(labels))
    }

    #[inline]
    fn count_overflow<S>(&self, found: Found<S>) -> Arc<Cell<S>> {
        self.0.health.overflow.add(found.folded.into());
        found.cell
    }

    /// Returns `true` if stalled runs are counted.
    pub(crate) fn counts_stalls(&self) -> bool {
        self.0.stalls.is_some()
    }

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// Reads all metrics into a sink.
    fn read(&self, sink: &mut dyn Sink) {
        if let Some(timeout) = self.0.idle_timeout {
            self.0.runs.sweep(timeout, Instant::now());
        }
        // Requests are counted after the end, possibly under other labels. The requests of all label sets are
        // therefore read before any end, and before a label set can appear that is not read.
        let all = self.0.runs.all_with(|series| series.requests.get());
        let all: Vec<_> = all
            .into_iter()
            .map(|(series, requests)| (series.value.snapshot(requests), series))
            .collect();
        for (metric, name) in METRICS.iter().zip(&self.0.names) {
            let mut began = false;
            for (snapshot, series) in &all {
                metric.read(&series.value, snapshot, &mut |own, value| {
                    if !began {
                        began = true;
                        sink.family(&Family {
                            name,
                            help: metric.help,
                            kind: metric.kind,
                        });
                    }
                    sink.sample(&Sample {
                        labels: &series.labels,
                        own: (&metric.own, own),
                        value,
                    });
                });
            }
        }
        for (metric, name) in HEALTH.iter().zip(&self.0.health_names) {
            let count = (metric.read)(&self.0.health);
            // An empty registry exposes nothing.
            if count > 0 || !all.is_empty() {
                sink.family(&Family {
                    name,
                    help: metric.help,
                    kind: Kind::Counter,
                });
                sink.sample(&Sample {
                    labels: &self.0.defaults,
                    own: (&[], &[]),
                    value: Value::Count(count),
                });
            }
        }
        for metric in self.0.custom.all() {
            metric.read(sink);
        }
    }
}

/// Joins an existing [`prometheus::Registry`].
///
/// Labels that such a registry adds itself ([`prometheus::Registry::new_custom`]) must not repeat those of this
/// registry: it does not check, and a scrape with a duplicate label is invalid.
impl prometheus::core::Collector for Registry {
    /// Describes the metrics of runs, even if none exist yet. Two collectors can join one registry if their
    /// prefixes or the values of their default labels differ.
    fn desc(&self) -> Vec<&Desc> {
        self.0.descs.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let mut families = Families::default();
        self.read(&mut families);
        families.finish()
    }
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Registry")
            .field("labels", &self.0.defaults)
            .field("series_count", &self.series_count())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use futures_util::FutureExt;
    use l0_core::testing::Script;
    use l0_core::{Failure, L0, Source, source};

    use super::*;
    use crate::collector::Collector;

    /// The sums over all label sets in one scrape.
    #[derive(Default)]
    struct Sums {
        name: String,
        requests: u64,
        finished: u64,
    }

    impl Sink for Sums {
        fn family(&mut self, family: &Family<'_>) {
            family.name.clone_into(&mut self.name);
        }

        fn sample(&mut self, sample: &Sample<'_>) {
            let Value::Count(count) = sample.value else {
                return;
            };
            match &*self.name {
                "l0_requests_total" => self.requests += count,
                "l0_streams_finished_total" => self.finished += count,
                _ => {}
            }
        }
    }

    /// Runs that start under the labels of one model and are counted as requests to another. Reading without
    /// text allows many scrapes.
    #[test]
    fn requests_never_exceed_finished_runs_over_all_labels() {
        const RUNS: usize = 2_000;

        let collector = Collector::builder().build().unwrap();
        // Its label set is read between those of the two models.
        for number in 0..200 {
            let labels = Labels::new([("model", format!("m{number}"))]).unwrap();
            drop(collector.with_labels(&labels));
        }
        let interceptor = collector.label_keys(["model"]).unwrap();
        let l0 = L0::builder().interceptor(interceptor).build();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let denied = Script::new().attempt(|a| a.connect_error(Failure::status(401)));
                let answer = Script::new().attempt(|a| a.token("a"));
                for _ in 0..RUNS {
                    let answer = source(answer.source()).metadata("model", "z");
                    let run = l0.stream(denied.source()).metadata("model", "a");
                    let text = run.fallback(answer).start().text().now_or_never();
                    text.unwrap().unwrap();
                }
                done.store(true, Ordering::Relaxed);
            });
            while !done.load(Ordering::Relaxed) {
                let mut sums = Sums::default();
                collector.registry().read(&mut sums);
                assert!(sums.requests <= sums.finished, "of {}", sums.finished);
            }
        });
        let mut sums = Sums::default();
        collector.registry().read(&mut sums);
        assert_eq!([sums.requests, sums.finished], [RUNS as u64; 2]);
    }
}
