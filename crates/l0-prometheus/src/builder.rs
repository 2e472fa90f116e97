//! Builder: what collectors and registries are made from, checked once.

use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use l0_core::RunInfo;

use crate::buckets::Buckets;
use crate::collector::Collector;
use crate::error::BuildError;
use crate::exemplar::{Trace, TraceOf};
use crate::labels::Labels;
use crate::names::is_metric_name;
use crate::registry::{Registry, Settings};

/// Builds a [`Collector`] or a [`Registry`].
#[must_use]
pub struct Builder<T> {
    prefix: String,
    labels: Vec<(String, String)>,
    buckets: Buckets,
    max_series: usize,
    idle_timeout: Option<Duration>,
    exemplars: bool,
    trace_of: Option<TraceOf>,
    made: PhantomData<fn() -> T>,
}

impl Collector {
    /// Creates a builder with the prefix `l0` and no default labels.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }
}

impl Registry {
    /// Creates a builder with the prefix `l0` and no default labels.
    pub fn builder() -> Builder<Self> {
        Builder::new()
    }
}

impl<T: From<Registry>> Builder<T> {
    fn new() -> Self {
        Self {
            prefix: "l0".to_owned(),
            labels: Vec::new(),
            buckets: Buckets::new(),
            max_series: 10_000,
            idle_timeout: None,
            exemplars: false,
            trace_of: None,
            made: PhantomData,
        }
    }

    /// Sets what all metric names begin with, before an underscore. Default: `l0`.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// Adds a label to every series. A label of the same name in a call overrides it.
    pub fn label(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.push((name.into(), value.into()));
        self
    }

    /// Sets the bounds of the histograms of runs.
    pub fn buckets(mut self, buckets: Buckets) -> Self {
        self.buckets = buckets;
        self
    }

    /// Sets how many label sets are told apart, those of runs and those of each custom metric. Default:
    /// 10,000.
    ///
    /// Further ones are counted together under one more label set, with the label names of the first
    /// beyond the limit and `other` for every value, so that sums over all series stay exact;
    /// `l0_series_overflow_total` counts how often that was done. Default labels keep their value.
    ///
    /// With the default buckets, a label set takes about 3 kB of memory and 190 lines in a scrape, and
    /// one more line for each type of error and each rule that it has seen.
    pub fn max_series(mut self, max: usize) -> Self {
        self.max_series = max;
        self
    }

    /// Drops label sets of runs that were not used for this long. Default: never.
    ///
    /// It happens when metrics are read, so to the precision of a scrape. What is in use,
    /// by a live run or a [`LabelledCollector`](crate::LabelledCollector), stays. A label set that
    /// comes back starts at 0, which `rate` and `increase` take for a restart of the counter; that
    /// is right as long as the timeout is longer than the range that is asked for.
    pub fn idle_timeout(mut self, timeout: Duration) -> Self {
        self.idle_timeout = Some(timeout);
        self
    }

    /// Keeps examples: for each bucket of the histograms that have one value per run, which run was
    /// the last in it. Default: off.
    ///
    /// A slow bucket then leads to a run that was slow: by the id of the run, `session_id`, which is the
    /// `sessionId` of logs and JSON, or by its [trace](Self::exemplar_trace). Only
    /// [OpenMetrics](Registry::expose_openmetrics) has them, and with this on, the route for axum gives
    /// OpenMetrics to those who prefer it, as Prometheus does. It keeps them if it runs with
    /// `--enable-feature=exemplar-storage`. OpenMetrics spells bounds with a point, `le="1.0"`; Prometheus
    /// before version 3 takes that for another series than `le="1"`.
    ///
    /// A label set takes 7 kB more memory, and a run 0.1 µs more to count.
    pub fn exemplars(mut self, exemplars: bool) -> Self {
        self.exemplars = exemplars;
        self
    }

    /// Switches [examples](Self::exemplars) on, and sets how the trace is found that is current where a run
    /// starts. Default: none, and a run is found by its `session_id`.
    ///
    /// The example then has `trace_id` and `span_id`, which lead Grafana to the trace, in place of
    /// `session_id`. The function is called once for each measured run that an interceptor sees, on the
    /// thread that starts it. It returns `None` where no trace is current, or none that is kept. A run that
    /// is recorded by hand has its `session_id`.
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
    ///         let current = tracer::current()?; // of the tracer that you use
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

    /// Checks the settings, and builds the collector or the registry.
    ///
    /// # Errors
    ///
    /// If the prefix, a label or the buckets are not valid.
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
        };
        Ok(Registry::new(settings, bounds).into())
    }
}

impl<T> fmt::Debug for Builder<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Builder")
            .field("prefix", &self.prefix)
            .field("labels", &self.labels)
            .field("buckets", &self.buckets)
            .field("max_series", &self.max_series)
            .field("idle_timeout", &self.idle_timeout)
            .field("exemplars", &self.exemplars)
            .field("trace_of", &self.trace_of)
            .finish_non_exhaustive()
    }
}

impl<T> Clone for Builder<T> {
    fn clone(&self) -> Self {
        Self {
            prefix: self.prefix.clone(),
            labels: self.labels.clone(),
            buckets: self.buckets.clone(),
            max_series: self.max_series,
            idle_timeout: self.idle_timeout,
            exemplars: self.exemplars,
            trace_of: self.trace_of.clone(),
            made: PhantomData,
        }
    }
}
