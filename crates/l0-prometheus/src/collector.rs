//! Collector: the ways in which runs are recorded.

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
/// There are three ways in: [`record`](Self::record) after a run, the same through
/// [`with_labels`](Self::with_labels) where labels do not change, and as an interceptor, through
/// [`interceptor`](Self::interceptor) or [`label_keys`](Self::label_keys), which also sees runs while
/// they are live. A run that takes two of them counts twice.
#[derive(Debug, Clone)]
pub struct Collector {
    registry: Registry,
}

impl Collector {
    /// Counts one measured run: its final telemetry. How it ended and why it failed is counted too.
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

    /// Creates a collector for these labels only, which are looked up now and not for each run. If
    /// there is no room for them at this time, it is one for `other`, and stays that.
    #[must_use]
    pub fn with_labels(&self, labels: &Labels) -> LabelledCollector {
        LabelledCollector {
            registry: self.registry.clone(),
            labels: labels.clone(),
            series: self.registry.series(labels),
        }
    }

    /// Writes all metrics in the text format of Prometheus: see [`Registry::expose`].
    #[must_use]
    pub fn expose(&self) -> String {
        self.registry.expose()
    }

    /// Writes all metrics in the format of OpenMetrics: see [`Registry::expose_openmetrics`].
    #[must_use]
    pub fn expose_openmetrics(&self) -> String {
        self.registry.expose_openmetrics()
    }

    /// Forgets everything that was recorded: see [`Registry::clear`].
    pub fn clear(&self) {
        self.registry.clear();
    }

    /// Drops label sets: see [`Registry::retain`].
    pub fn retain(&self, keep: impl FnMut(&Labels) -> bool) -> usize {
        self.registry.retain(keep)
    }

    /// Returns the registry that this collector keeps its metrics in. Custom metrics that are added to it
    /// are exposed along with them.
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

/// Joins an existing [`prometheus::Registry`], as its [`Registry`] does.
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

/// A [`Collector`] whose labels are looked up already. While it lives, the label set is not dropped.
#[derive(Debug, Clone)]
pub struct LabelledCollector {
    registry: Registry,
    labels: Labels,
    series: Arc<Cell<Series>>,
}

impl LabelledCollector {
    /// Counts one measured run: its final telemetry.
    pub fn record(&self, telemetry: &Telemetry) {
        if self.series.is_forgotten() {
            // After a `clear`, the labels belong to another series.
            self.registry.record_telemetry(telemetry, &self.labels);
        } else {
            self.series.value.record(telemetry);
        }
    }

    pub(crate) fn series(&self) -> &Series {
        &self.series.value
    }

    /// The series of other labels; `None` if they are the same, or after a `clear`, which has forgotten
    /// the series of these.
    pub(crate) fn series_of_others(&self, labels: &Labels) -> Option<Arc<Cell<Series>>> {
        let series = (*labels != self.labels).then(|| self.registry.series(labels))?;
        // Asked last: a series that was looked up before the `clear` is forgotten, too.
        (!self.series.is_forgotten()).then_some(series)
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }
}
