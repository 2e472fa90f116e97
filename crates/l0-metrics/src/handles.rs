//! Handles: their registration with a recorder, and the identity of that recorder.

use std::ptr;
use std::sync::{Arc, OnceLock};

use metrics::{
    Counter, Gauge, Histogram, Key, Label, Level, Metadata, Recorder, SharedString, with_recorder,
};

use crate::layout::{Kind, LAYOUT, Place};

/// The metadata of all registrations.
static METADATA: Metadata<'static> = Metadata::new("l0_metrics", Level::INFO, Some(module_path!()));

/// The names of the metrics, in the order of the layout.
#[derive(Debug)]
pub(crate) struct Names(Box<[SharedString]>);

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        let metrics = LAYOUT.metrics.iter();
        let name = |name: &str| SharedString::from_shared(format!("{prefix}_{name}").into());
        Self(metrics.map(|metric| name(&metric.name)).collect())
    }

    pub(crate) fn get(&self, place: Place) -> String {
        self.0[place].to_string()
    }

    /// Describes the metrics to a recorder.
    pub(crate) fn describe(&self, recorder: &dyn Recorder) {
        for (metric, name) in LAYOUT.metrics.iter().zip(&self.0) {
            let (name, unit, help) = (name.clone().into(), metric.unit, metric.help.into());
            match metric.kind {
                Kind::Counter => recorder.describe_counter(name, unit, help),
                Kind::Gauge | Kind::RisingGauge => recorder.describe_gauge(name, unit, help),
                Kind::Histogram => recorder.describe_histogram(name, unit, help),
            }
        }
    }
}

/// The identity of the recorder that handles belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecorderId(usize);

impl RecorderId {
    /// Identifies a recorder by its address. A global recorder stays forever, and the no-op recorder that is
    /// current until one is installed has another address.
    pub(crate) fn of(recorder: &dyn Recorder) -> Self {
        Self(ptr::from_ref(recorder).cast::<()>().addr())
    }
}

/// Registers the handles of one label set with a recorder.
#[derive(Clone, Copy)]
pub(crate) struct Registrar<'a> {
    pub(crate) recorder: &'a dyn Recorder,
    pub(crate) names: &'a Names,
    pub(crate) labels: &'a [Label],
}

impl Registrar<'_> {
    pub(crate) fn counter(&self, place: Place) -> Counter {
        self.counter_of(place, &[])
    }

    /// Returns the counter with these values of the metric's own labels.
    pub(crate) fn counter_of(&self, place: Place, own: &[(&'static str, &str)]) -> Counter {
        let key = self.key_of(place, own);
        self.recorder.register_counter(&key, &METADATA)
    }

    pub(crate) fn gauge(&self, place: Place) -> Gauge {
        self.gauge_of(place, &[])
    }

    /// Returns the gauge with these values of the metric's own labels.
    pub(crate) fn gauge_of(&self, place: Place, own: &[(&'static str, &str)]) -> Gauge {
        let key = self.key_of(place, own);
        self.recorder.register_gauge(&key, &METADATA)
    }

    pub(crate) fn histogram(&self, place: Place) -> Histogram {
        self.recorder
            .register_histogram(&self.key(place), &METADATA)
    }

    fn key(&self, place: Place) -> Key {
        self.key_of(place, &[])
    }

    fn key_of(&self, place: Place, own: &[(&'static str, &str)]) -> Key {
        let own = own
            .iter()
            .map(|(name, value)| Label::new(*name, (*value).to_owned()));
        let labels: Vec<_> = self.labels.iter().cloned().chain(own).collect();
        Key::from_parts(self.names.0[place].clone(), labels)
    }
}

/// Registers handles that are needed only once something happens.
#[derive(Debug)]
pub(crate) struct Deferred {
    recorder: RecorderId,
    names: Arc<Names>,
    labels: Box<[Label]>,
}

impl Deferred {
    pub(crate) fn new(recorder: RecorderId, names: &Arc<Names>, labels: &[Label]) -> Self {
        Self {
            recorder,
            names: Arc::clone(names),
            labels: labels.into(),
        }
    }

    /// Registers with the recorder, if it is still the current one.
    pub(crate) fn register<T>(&self, register: impl FnOnce(Registrar<'_>) -> T) -> Option<T> {
        with_recorder(|recorder| {
            let is_ours = RecorderId::of(recorder) == self.recorder;
            is_ours.then(|| {
                register(Registrar {
                    recorder,
                    names: &self.names,
                    labels: &self.labels,
                })
            })
        })
    }
}

/// A gauge that does not exist before its first value.
#[derive(Debug, Default)]
pub(crate) struct LazyGauge(OnceLock<Gauge>);

impl LazyGauge {
    pub(crate) fn set(&self, value: f64, place: Place, deferred: &Deferred) {
        match self.0.get() {
            Some(gauge) => gauge.set(value),
            None => {
                if let Some(gauge) = deferred.register(|registrar| registrar.gauge(place)) {
                    gauge.set(value);
                    let _ = self.0.set(gauge);
                }
            }
        }
    }
}
