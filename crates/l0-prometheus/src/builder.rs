//! The settings of collectors and registries, validated once.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use l0_core::{RunInfo, Stalls};

use crate::buckets::Buckets;
use crate::collector::Collector;
use crate::error::BuildError;
use crate::exemplar::{Trace, TraceOf};
use crate::labels::Labels;
use crate::names::is_metric_name;
use crate::registry::{Registry, Settings};

/// Builds a [`Collector`] or a [`Registry`].
#[must_use]
pub struct PrometheusBuilder<T> {
    prefix: String,
    labels: Vec<(String, String)>,
    buckets: Buckets,
    max_series: usize,
    idle_timeout: Option<Duration>,
    exemplars: bool,
    trace_of: Option<TraceOf>,
    stalls: Option<Stalls>,
    target: PhantomData<fn() -> T>,
}

impl Collector {
    /// Creates a builder with the prefix `l0` and no default labels.
    pub fn builder() -> PrometheusBuilder<Self> {
        PrometheusBuilder::new()
    }
}

impl Registry {
    /// Creates a builder with the prefix `l0` and no default labels.
    pub fn builder() -> PrometheusBuilder<Self> {
        PrometheusBuilder::new()
    }
}

impl<T: From<Registry>> PrometheusBuilder<T> {
    fn new() -> Self {
        Self {
            prefix: "l0".to_owned(),
            labels: Vec::new(),
            buckets: Buckets::new(),
            max_series: 1_000,
            idle_timeout: None,
            exemplars: false,
            trace_of: None,
            stalls: None,
            target: PhantomData,
        }
    }

    /// Sets the prefix of all metric names, which an underscore follows. Default: `l0`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds a label to every series. A label with the same name in a call overrides it.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Sets the bounds of the histograms of runs.
    pub fn buckets(mut self, buckets: Buckets) -> Self {
        self.buckets = buckets;
        self
    }

    /// Sets the maximum number of label sets, for runs and for each custom metric. Default: 1,000.
    ///
    /// Label sets beyond the limit share one more label set. It has the label names of the first set beyond the
    /// limit, and `other` as every value, so sums over all series stay exact. `l0_series_overflow_total` counts
    /// these look-ups. Default labels keep their value.
    ///
    /// With the default buckets, a label set takes about 3 kB of memory and 190 lines in a scrape, and one more
    /// line for each error type and rule that it has seen. A thousand label sets are about 190,000 series and
    /// 11 MB of text. That is a lot for one Prometheus target: the memory of Prometheus grows far more than
    /// that of this process.
    pub fn max_series(mut self, max: usize) -> Self {
        self.max_series = max;
        self
    }

    /// Drops label sets of runs that were not used for this long. Default: never.
    ///
    /// Label sets are dropped when metrics are read, so the timeout is as precise as the scrape interval. A
    /// label set in use by a live run or a [`LabeledCollector`](crate::LabeledCollector) stays. A label set
    /// that returns starts at 0. `rate` and `increase` treat that as a counter restart, which is correct if the
    /// timeout is longer than the range that they query.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Keeps an exemplar for each bucket of the histograms with one value per run: the last run in that bucket.
    /// Default: off.
    ///
    /// A slow bucket then links to a slow run, by the run's id or by its [trace](Self::exemplar_trace). The id
    /// is `session_id`, the `sessionId` of logs and JSON. Only [OpenMetrics](Registry::expose_openmetrics)
    /// carries exemplars. With exemplars on, the axum route returns OpenMetrics to clients that prefer it, as
    /// Prometheus does. Prometheus stores exemplars if it runs with `--enable-feature=exemplar-storage`.
    /// OpenMetrics spells bounds with a point, `le="1.0"`; Prometheus before version 3 treats that as a
    /// different series from `le="1"`.
    ///
    /// Exemplars take 7 kB more memory per label set, and 0.1 µs more to count a run.
    pub fn exemplars(mut self, exemplars: bool) -> Self {
        self.exemplars = exemplars;
        self
    }

    /// Enables [exemplars](Self::exemplars), and sets the function that finds the current trace when a run
    /// starts. Default: no function; exemplars have a `session_id`.
    ///
    /// The exemplar then has `trace_id` and `span_id`, which link Grafana to the trace, instead of
    /// `session_id`. The function is called once for each measured run that an interceptor sees, on the thread
    /// that starts the run. Return `None` if no trace is current, or if the trace is not kept. A run that is
    /// recorded manually has its `session_id`.
    ///
    /// ```
    /// use l0_prometheus::{Collector, Trace};
    /// # mod tracer {
    /// #     pub(crate) struct Current { pub(crate) trace_id: [u8; 16], pub(crate) span_id: [u8; 8] }
    /// #     pub(crate) fn current() -> Option<Current> { None }
    /// # }
    ///
    /// # fn main() -> Result<(), l0_prometheus::BuildError> {
    /// let collector = Collector::builder()
    ///     .exemplar_trace(|_run| {
    ///         let current = tracer::current()?; // from your tracer
    ///         Some(Trace::new(current.trace_id, current.span_id))
    ///     })
    ///     .build()?;
    /// # drop(collector);
    /// # Ok(())
    /// # }
    /// ```
    pub fn exemplar_trace(
        mut self,
        trace_of: impl Fn(&RunInfo) -> Option<Trace> + Send + Sync + 'static,
    ) -> Self {
        self.exemplars = true;
        self.trace_of = Some(TraceOf::new(trace_of));
        self
    }

    /// Counts live runs whose source is silent for as long as `stalls` define, as `streams_stalled`. Default:
    /// stalls are not counted, and the metric is absent.
    ///
    /// A run is not stalled while it waits for its consumer or backs off. Unmeasured runs have no times and
    /// count as not stalled. With this setting, runs keep their [progress](l0_core::RunInfo::progress), which
    /// takes a few instructions for each item; a scrape reads the progress of each live run.
    pub fn stalls(mut self, stalls: Stalls) -> Self {
        self.stalls = Some(stalls);
        self
    }

    /// Validates the settings and builds the collector or the registry.
    ///
    /// # Errors
    ///
    /// Returns an error if the prefix, a label or the buckets are not valid.
    pub fn build(self) -> Result<T, BuildError> {
        if !is_metric_name(&self.prefix) {
            return Err(BuildError::Prefix(self.prefix));
        }
        let labels = Labels::new(self.labels).map_err(BuildError::Label)?;
        let bounds = self.buckets.bounds()?;
        let settings = Settings {
            prefix: self.prefix,
            labels,
            max_series: self.max_series,
            idle_timeout: self.idle_timeout,
            exemplars: self.exemplars,
            trace_of: self.trace_of,
            stalls: self.stalls,
        };
        Ok(Registry::new(settings, bounds).into())
    }
}

impl<T> fmt::Debug for PrometheusBuilder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrometheusBuilder")
            .field("prefix", &self.prefix)
            .field("labels", &self.labels)
            .field("buckets", &self.buckets)
            .field("max_series", &self.max_series)
            .field("idle_timeout", &self.idle_timeout)
            .field("exemplars", &self.exemplars)
            .field("trace_of", &self.trace_of)
            .field("stalls", &self.stalls)
            .finish_non_exhaustive()
    }
}

impl<T> Clone for PrometheusBuilder<T> {
    fn clone(&self) -> Self {
        Self {
            prefix: self.prefix.clone(),
            labels: self.labels.clone(),
            buckets: self.buckets.clone(),
            max_series: self.max_series,
            idle_timeout: self.idle_timeout,
            exemplars: self.exemplars,
            trace_of: self.trace_of.clone(),
            stalls: self.stalls,
            target: PhantomData,
        }
    }
}
