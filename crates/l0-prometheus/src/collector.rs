//! The collector: records runs.

use std::sync::Arc;

use l0_core::Telemetry;
use prometheus::core::Desc;
use prometheus::proto::MetricFamily;

use crate::label_sets::Cell;
use crate::labels::Labels;
use crate::registry::Registry;
use crate::series::Series;

/// Records runs. Clones share what is recorded.
///
/// Runs can be recorded in three ways: with [`record`](Self::record) after a run, with
/// [`with_labels`](Self::with_labels) for labels that do not change, and with an interceptor from
/// [`interceptor`](Self::interceptor) or [`label_keys`](Self::label_keys), which also sees live runs. A run
/// that is recorded in two ways counts twice.
#[derive(Debug, Clone)]
pub struct Collector {
    registry: Registry,
}

impl Collector {
    /// Counts one measured run from its final telemetry, including its outcome and the reason for a failure.
    ///
    /// ```
    /// use l0_core::Telemetry;
    /// use l0_prometheus::{Collector, Labels};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let collector = Collector::builder().label("service", "my-app").build()?;
    /// # let telemetry = Telemetry::default();
    /// collector.record(&telemetry, &Labels::new([("model", "gpt-4"), ("endpoint", "/chat")])?);
    ///
    /// let text = collector.expose();
    /// assert!(text.contains(
    ///     "l0_requests_total{service=\"my-app\",endpoint=\"/chat\",model=\"gpt-4\"} 1\n"
    /// ));
    /// # Ok(())
    /// # }
    /// ```
    pub fn record(&self, telemetry: &Telemetry, labels: &Labels) {
        self.registry.record_telemetry(telemetry, labels);
    }

    /// Creates a collector for these labels, which are looked up once and not for each run. If the limit of
    /// label sets is reached, it records under `other` from then on.
    #[must_use]
    pub fn with_labels(&self, labels: &Labels) -> LabeledCollector {
        LabeledCollector {
            registry: self.registry.clone(),
            labels: labels.clone(),
            series: self.registry.series(labels),
        }
    }

    /// Writes all metrics in the text format of Prometheus. See [`Registry::expose`].
    #[must_use]
    pub fn expose(&self) -> String {
        self.registry.expose()
    }

    /// Writes all metrics in the OpenMetrics format. See [`Registry::expose_openmetrics`].
    #[must_use]
    pub fn expose_openmetrics(&self) -> String {
        self.registry.expose_openmetrics()
    }

    /// Clears everything that was recorded. See [`Registry::clear`].
    pub fn clear(&self) {
        self.registry.clear();
    }

    /// Drops label sets. See [`Registry::retain`].
    pub fn retain(&self, keep: impl FnMut(&Labels) -> bool) -> usize {
        self.registry.retain(keep)
    }

    /// Returns the registry that holds the metrics of this collector. Custom metrics that you add to it are
    /// exposed too.
    #[must_use]
    pub const fn registry(&self) -> &Registry {
        &self.registry
    }
}

impl From<Registry> for Collector {
    fn from(registry: Registry) -> Self {
        Self { registry }
    }
}

/// Joins an existing [`prometheus::Registry`], as [`Registry`] does.
///
/// ```
/// use l0_prometheus::Collector;
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let collector = Collector::builder().build()?;
/// let registry = prometheus::Registry::new();
/// registry.register(Box::new(collector.clone()))?;
/// # assert!(registry.gather().is_empty());
/// # Ok(())
/// # }
/// ```
impl prometheus::core::Collector for Collector {
    fn desc(&self) -> Vec<&Desc> {
        self.registry.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.registry.collect()
    }
}

/// A [`Collector`] with its labels already looked up. Its label set is not dropped while it lives.
#[derive(Debug, Clone)]
pub struct LabeledCollector {
    registry: Registry,
    labels: Labels,
    series: Arc<Cell<Series>>,
}

impl LabeledCollector {
    /// Counts one measured run from its final telemetry.
    pub fn record(&self, telemetry: &Telemetry) {
        if self.series.is_forgotten() {
            // After a `clear`, the labels belong to another series.
            self.registry.record_telemetry(telemetry, &self.labels);
        } else {
            self.series.value.record(telemetry);
        }
    }
}
