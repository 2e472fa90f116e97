//! Custom metrics, which an application adds by name.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, PoisonError, RwLock};

use crate::buckets::CUSTOM;
use crate::error::MetricError;
use crate::exposition::{Family, Sample, Sink};
use crate::histogram::{Bounds, FloatHistogram};
use crate::label_sets::{Found, LabelSets};
use crate::labels::Labels;
use crate::layout::Kind;
use crate::metrics::{HEALTH, METRICS, Value};
use crate::names::is_metric_name;
use crate::number::Float;

/// All custom metrics of a registry.
#[derive(Debug)]
pub(crate) struct CustomMetrics {
    prefix: String,
    defaults: Labels,
    max_series: usize,
    named: RwLock<Named>,
}

/// Metrics by name, without the prefix.
#[derive(Debug)]
struct Named {
    metrics: BTreeMap<String, Arc<CustomMetric>>,
    /// Every name that a line can begin with, and the metric that owns it.
    taken: HashMap<String, String>,
}

impl CustomMetrics {
    /// Creates an empty set, with the names of L0's own metrics taken.
    pub(crate) fn new(prefix: String, defaults: Labels, max_series: usize) -> Self {
        let mut named = Named {
            metrics: BTreeMap::new(),
            taken: HashMap::new(),
        };
        for metric in &*METRICS {
            named.take(&metric.name, metric.kind);
        }
        for metric in &HEALTH {
            named.take(metric.name, Kind::Counter);
        }
        Self {
            prefix,
            defaults,
            max_series,
            named: RwLock::new(named),
        }
    }

    /// Returns the metric with this name, which must have this kind, help text and bounds. A metric that does
    /// not exist is created; a histogram gets these bounds, or the default ones.
    pub(crate) fn get(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        bounds: Option<&Arc<Bounds>>,
    ) -> Result<Arc<CustomMetric>, MetricError> {
        let found = {
            let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
            named.metrics.get(name).map(Arc::clone)
        };
        let metric = match found {
            Some(metric) => metric,
            None => self.make(kind, name, help, bounds)?,
        };
        metric.check(kind, name, help, bounds)?;
        Ok(metric)
    }

    fn make(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        bounds: Option<&Arc<Bounds>>,
    ) -> Result<Arc<CustomMetric>, MetricError> {
        let full_name = format!("{}_{name}", self.prefix);
        if name.is_empty() || !is_metric_name(&full_name) {
            return Err(MetricError::Name(name.to_owned()));
        }
        let named = &mut *self.named.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(metric) = named.metrics.get(name) {
            return Ok(Arc::clone(metric));
        }
        named.check_free(name, kind)?;
        named.take(name, kind);
        let metric = Arc::new(CustomMetric {
            full_name,
            kind,
            help: help.to_owned(),
            bounds: bounds.map_or_else(|| Arc::new(Bounds::ascending(&CUSTOM)), Arc::clone),
            sets: LabelSets::new(self.defaults.clone(), self.max_series),
        });
        named.metrics.insert(name.to_owned(), Arc::clone(&metric));
        Ok(metric)
    }

    /// Returns all metrics, sorted by name.
    pub(crate) fn all(&self) -> Vec<Arc<CustomMetric>> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        named.metrics.values().map(Arc::clone).collect()
    }
}

impl Named {
    fn take(&mut self, name: &str, kind: Kind) {
        for line in line_names(name, kind) {
            self.taken.insert(line, name.to_owned());
        }
    }

    fn check_free(&self, name: &str, kind: Kind) -> Result<(), MetricError> {
        match line_names(name, kind).find_map(|line| self.taken.get(&line)) {
            Some(by) => Err(MetricError::Taken {
                name: name.to_owned(),
                by: by.clone(),
            }),
            None => Ok(()),
        }
    }
}

/// Returns the names that the lines and the header of a metric use, in either format.
fn line_names(name: &str, kind: Kind) -> impl Iterator<Item = String> {
    let (base, suffixes): (_, &[&str]) = match kind {
        Kind::Counter => (name.strip_suffix("_total").unwrap_or(name), &["", "_total"]),
        Kind::Gauge => (name, &[""]),
        Kind::Histogram => (name, &["", "_bucket", "_sum", "_count"]),
    };
    suffixes.iter().map(move |suffix| format!("{base}{suffix}"))
}

/// One custom metric. Its first use fixes its kind, help text and bounds.
#[derive(Debug)]
pub(crate) struct CustomMetric {
    full_name: String,
    kind: Kind,
    help: String,
    bounds: Arc<Bounds>,
    pub(crate) sets: LabelSets<CustomValue>,
}

#[derive(Debug)]
pub(crate) enum CustomValue {
    Number(Float),
    Histogram(FloatHistogram),
}

impl CustomMetric {
    fn check(
        &self,
        kind: Kind,
        name: &str,
        help: &str,
        bounds: Option<&Arc<Bounds>>,
    ) -> Result<(), MetricError> {
        let name = || name.to_owned();
        if self.kind != kind {
            Err(MetricError::Kind {
                name: name(),
                is: self.kind.as_str(),
                used_as: kind.as_str(),
            })
        } else if self.help != help {
            Err(MetricError::Help {
                name: name(),
                is: self.help.clone(),
                used_as: help.to_owned(),
            })
        } else if bounds.is_some_and(|bounds| *bounds != self.bounds) {
            Err(MetricError::BucketsDiffer { name: name() })
        } else {
            Ok(())
        }
    }

    pub(crate) fn cell(&self, labels: &Labels) -> Found<CustomValue> {
        self.sets.get(labels, || match self.kind {
            Kind::Counter | Kind::Gauge => CustomValue::Number(Float::new(0.0)),
            Kind::Histogram => CustomValue::Histogram(FloatHistogram::new(&self.bounds)),
        })
    }

    /// Reads all label sets. Writes nothing if there are none.
    pub(crate) fn read(&self, sink: &mut dyn Sink) {
        let cells = self.sets.all();
        if cells.is_empty() {
            return;
        }
        sink.family(&Family {
            name: &self.full_name,
            help: &self.help,
            kind: self.kind,
        });
        for cell in &cells {
            sink.sample(&Sample {
                labels: &cell.labels,
                own: (&[], &[]),
                value: match &cell.value {
                    CustomValue::Number(number) => Value::Number(number.get().into()),
                    CustomValue::Histogram(histogram) => Value::Histogram(histogram.view()),
                },
            });
        }
    }
}
