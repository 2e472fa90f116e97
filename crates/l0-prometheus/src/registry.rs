//! Registry: holds the series of runs and the custom metrics, and writes them out.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use l0_core::{RunInfo, Telemetry};
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

/// Holds the metrics of runs, and custom metrics beside them. Clones share what is recorded.
///
/// It is what a [`Collector`](crate::Collector) keeps its metrics in, and can be used by itself:
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
/// The first use of a custom metric settles its type and its help text: a later use with the same name
/// and another of these is an error. Its label sets are limited like those of runs, each metric by
/// itself.
#[derive(Clone)]
pub struct Registry(Arc<Shared>);

struct Shared {
    /// Of each histogram of runs.
    bounds: Box<[Arc<UnitBounds>]>,
    /// Of the metrics of runs, with the prefix.
    names: Box<[String]>,
    /// Of [`HEALTH`], with the prefix.
    health_names: Box<[String]>,
    descs: Vec<Desc>,
    defaults: Labels,
    idle_timeout: Option<Duration>,
    exemplars: bool,
    trace_of: Option<TraceOf>,
    runs: LabelSets<Series>,
    custom: CustomMetrics,
    health: Health,
    /// How long the last exposition was.
    exposed: AtomicUsize,
}

/// The name of a metric that is described and never written, of which no other default labels have the
/// same.
///
/// The `prometheus` crate takes two collectors for one if the hashes of their descriptions have one sum, and
/// labels that differ in their last character only, such as `web-1` and `web-2`, have hashes that are so
/// much alike that their sums may be the same.
fn identity(defaults: &Labels) -> String {
    let mut hasher = DefaultHasher::new();
    for label in defaults.iter() {
        label.hash(&mut hasher);
    }
    format!("collector_{:016x}", hasher.finish())
}

/// What a registry is made from: checked by the builder.
pub(crate) struct Settings {
    pub(crate) prefix: String,
    pub(crate) labels: Labels,
    pub(crate) max_series: usize,
    pub(crate) idle_timeout: Option<Duration>,
    pub(crate) exemplars: bool,
    pub(crate) trace_of: Option<TraceOf>,
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
        } = settings;
        let full = |name: &str| format!("{prefix}_{name}");
        let metrics = &*METRICS;
        let runs = metrics.iter().map(|one| (&*one.name, one.help, &*one.own));
        let health = HEALTH.iter().map(|one| (one.name, one.help, &[][..]));
        let identity = identity(&defaults);
        let identity = (&*identity, "Tells collectors apart", &[][..]);
        let descs = runs.chain(health).chain([identity]);
        let descs = descs.filter_map(|(name, help, own)| {
            let own = own.iter().map(|label| (*label).to_owned()).collect();
            let constant = defaults
                .iter()
                .map(|(name, value)| (name.into(), value.into()));
            // Names and labels were checked, so none is left out.
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
            runs: LabelSets::new(defaults.clone(), max_series),
            custom: CustomMetrics::new(prefix, defaults.clone(), max_series),
            defaults,
            health: Health::default(),
            exposed: AtomicUsize::new(0),
        }))
    }

    /// Counts one measured run: its final telemetry. How it ended and why it failed is counted too.
    pub fn record_telemetry(&self, telemetry: &Telemetry, labels: &Labels) {
        self.series(labels).value.record(telemetry);
    }

    /// Adds to a counter. It begins at 0.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, or means another metric; if the value is negative or not finite.
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

    /// Sets a gauge, to any value.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, or means another metric.
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

    /// Adds a value to a histogram. Its buckets are those that it was
    /// [declared](Self::declare_histogram) with, or else 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    /// 1, 2.5, 5 and 10.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, or means another metric; if the value is not finite.
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

    /// Sets the buckets of a histogram, before its first use.
    ///
    /// # Errors
    ///
    /// If the name is not allowed, or means another metric, also a histogram with other buckets; if
    /// the bounds do not ascend or are not finite.
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

    /// Writes all metrics in the text format of Prometheus, version 0.0.4; empty if nothing was recorded.
    ///
    /// Metrics of runs come first, in the order of the table in the [crate's documentation](crate),
    /// then custom ones by name, and the label sets of each in the order of their labels. Runs may be
    /// recorded meanwhile: a run that ends during the call may be in some metrics and not yet in
    /// others. What started is always finished or active, under the labels of each; runs of interceptors
    /// that were measured are never more than have finished, over all labels together and, without
    /// fallbacks, under the labels of each; and the buckets of a histogram ascend to its count.
    #[must_use]
    pub fn expose(&self) -> String {
        self.write(Format::Text)
    }

    /// Writes all metrics in the format of OpenMetrics, version 1.0.0, to be served as
    /// [`OPENMETRICS_CONTENT_TYPE`](crate::OPENMETRICS_CONTENT_TYPE), with
    /// [exemplars](crate::Builder::exemplars) if they are kept.
    #[must_use]
    pub fn expose_openmetrics(&self) -> String {
        self.write(Format::OpenMetrics)
    }

    fn write(&self, format: Format) -> String {
        let before = self.0.exposed.load(Ordering::Relaxed);
        let mut writer = Writer::new(format, before + before / 8);
        self.read(&mut writer);
        let text = writer.finish();
        self.0.exposed.store(text.len(), Ordering::Relaxed);
        text
    }

    /// Whether there is something that only OpenMetrics can tell.
    #[cfg(feature = "axum")]
    pub(crate) fn has_exemplars(&self) -> bool {
        self.0.exemplars
    }

    /// Forgets everything that was recorded. What custom metrics are stays settled; handles and
    /// interceptors go on, from 0. Runs that are live are forgotten as well: neither as active nor at their
    /// end are they counted.
    pub fn clear(&self) {
        self.0.runs.clear();
        for metric in self.0.custom.all() {
            metric.sets.clear();
        }
        self.0.health.clear();
    }

    /// Drops the label sets, of runs and of custom metrics, for which `keep` returns `false`, and returns
    /// how many.
    ///
    /// A label set in use at this moment stays: by a live run, a
    /// [`LabelledCollector`](crate::LabelledCollector), a thread that records, or a scrape. So no
    /// count is lost unseen. One that comes back starts at 0, which Prometheus takes for a restart of
    /// the counter.
    pub fn retain(&self, mut keep: impl FnMut(&Labels) -> bool) -> usize {
        let runs = self.0.runs.retain(&mut keep);
        let custom = self.0.custom.all();
        let custom = custom.iter().map(|metric| metric.sets.retain(&mut keep));
        runs + custom.sum::<usize>()
    }

    /// Returns how many label sets of runs there are, the one for what is beyond the limit included.
    #[must_use]
    pub fn series_count(&self) -> usize {
        self.0.runs.len()
    }

    /// The trace in which a run starts, if exemplars need it.
    pub(crate) fn trace_of(&self, run: &RunInfo) -> Option<Trace> {
        let wanted = self.0.exemplars && run.measured();
        let trace_of = self.0.trace_of.as_ref().filter(|_| wanted)?;
        // Without its trace the run is counted all the same.
        trace_of.get(run).unwrap_or_else(|Panic| {
            self.0.health.observer_panics.add(1);
            None
        })
    }

    /// How many label sets there are in all, of runs and of custom metrics.
    #[cfg(feature = "axum")]
    pub(crate) fn label_sets(&self) -> usize {
        let custom = self.0.custom.all();
        let custom = custom.iter().map(|metric| metric.sets.len());
        self.series_count() + custom.sum::<usize>()
    }

    /// The series of these labels.
    #[inline]
    pub(crate) fn series(&self, labels: &Labels) -> Arc<Cell<Series>> {
        let found = self
            .0
            .runs
            .get(labels, || Series::new(&self.0.bounds, self.0.exemplars));
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

    pub(crate) fn health(&self) -> &Health {
        &self.0.health
    }

    /// Reads all metrics.
    fn read(&self, sink: &mut dyn Sink) {
        if let Some(timeout) = self.0.idle_timeout {
            self.0.runs.sweep(timeout, Instant::now());
        }
        // Requests are counted after the end, and perhaps under other labels, so those of all label sets
        // are read before any end is; and before there is a label set that is not read.
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
            // An empty registry exposes nothing at all.
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
/// Labels that such a registry adds by itself ([`prometheus::Registry::new_custom`]) must not repeat
/// ours: it does not check, and a scrape with a label twice is invalid.
impl prometheus::core::Collector for Registry {
    /// Describes the metrics of runs, whether or not there are any yet. Two collectors can join one registry if
    /// their prefixes or the values of their default labels differ.
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

    /// What a scrape says of all label sets together.
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

    /// Runs that start under the labels of one model and are requests to another one. Without a text to
    /// write and to read, there are many scrapes.
    #[test]
    fn no_more_runs_are_requests_than_have_finished_whatever_their_labels() {
        const RUNS: usize = 2_000;

        let collector = Collector::builder().build().unwrap();
        // Read after the one model and before the other.
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
