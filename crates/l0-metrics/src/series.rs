//! Series: the handles of one label set, and how a run is counted into them.

use std::borrow::Cow;
use std::sync::Arc;

use l0_core::{End, Outcome, Severity, Telemetry, Value};
use metrics::{Counter, Histogram, Label};

use crate::breakdown::Breakdown;
use crate::handles::{Deferred, LazyGauge, Names, RecorderId, Registrar};
use crate::layout::{FALLBACK_LABELS, LAYOUT, Layout, Values};
use crate::streams::{Stream, Streams};
use crate::sum::Sum;

/// The handles of one label set with one recorder. Lists are in the order of the layout.
#[derive(Debug)]
pub(crate) struct Series {
    deferred: Deferred,
    requests: Counter,
    sums: Box<[Sum]>,
    last: Box<[LazyGauge]>,
    histograms: Box<[Histogram]>,
    breakdowns: Box<[Breakdown]>,
    finished: Breakdown,
    failures: Breakdown,
    fallbacks: Breakdown,
    pub(crate) streams: Streams,
}

impl Series {
    pub(crate) fn new(registrar: Registrar<'_>, names: &Arc<Names>) -> Self {
        let layout: &Layout = &LAYOUT;
        let sums = layout.sums.iter();
        let sums = sums.map(|(place, _)| Sum::new(registrar, *place, &[]));
        let histograms = layout.histograms.iter();
        let breakdowns = layout.breakdowns.iter().map(|(place, quantity)| {
            let breakdown = Breakdown::new(*place, quantity.labels());
            for value in known_values(quantity.labels()) {
                breakdown.begin(&[value], registrar);
            }
            breakdown
        });
        Self {
            deferred: Deferred::new(RecorderId::of(registrar.recorder), names, registrar.labels),
            requests: registrar.counter(layout.own.requests),
            sums: sums.collect(),
            last: layout.last.iter().map(|_| LazyGauge::default()).collect(),
            histograms: histograms
                .map(|row| registrar.histogram(row.place))
                .collect(),
            breakdowns: breakdowns.collect(),
            finished: Breakdown::new(layout.finished, &["outcome"]),
            failures: Breakdown::new(layout.failures, &["error_type"]),
            fallbacks: Breakdown::new(layout.fallbacks, &FALLBACK_LABELS),
            streams: Streams::new(),
        }
    }

    /// Registers the handles for runs that start under these labels.
    pub(crate) fn begin(&self) {
        if self.streams.has_begun() {
            return;
        }
        self.deferred.register(|registrar| {
            self.streams.begin(registrar);
            for outcome in known_values(&["outcome"]) {
                self.finished.begin(&[outcome], registrar);
            }
        });
    }

    /// Records gaps between tokens, in seconds.
    pub(crate) fn record_gaps(&self, gaps: &[f64]) {
        let histogram = LAYOUT.gaps.and_then(|at| self.histograms.get(at));
        if let Some(histogram) = histogram {
            gaps.iter().for_each(|gap| histogram.record(*gap));
        }
    }

    /// Counts the measurements of a run, or of the attempts of one of its sources, but not its end. The run
    /// counts as one more request where it `is_last`.
    pub(crate) fn record_measured(&self, telemetry: &Telemetry, is_last: bool) {
        let layout: &Layout = &LAYOUT;
        if is_last {
            self.requests.increment(1);
        }
        for ((_, quantity), sum) in layout.sums.iter().zip(&self.sums) {
            if let Some(value) = quantity.value(telemetry) {
                sum.add(value);
            }
        }
        for ((place, quantity), last) in layout.last.iter().zip(&self.last) {
            if let Some(value) = quantity.value(telemetry) {
                last.set(value.as_f64(), *place, &self.deferred);
            }
        }
        for (row, histogram) in layout.histograms.iter().zip(&self.histograms) {
            let values = row.values;
            row.quantity
                .values(telemetry, &mut |value| match (values, value) {
                    (Values::End, value) => histogram.record(value.as_f64()),
                    (Values::Longest, Value::Distribution(all)) => {
                        histogram.record(all.max().as_secs_f64());
                    }
                    // Gaps were recorded one by one.
                    _ => {}
                });
        }
        for ((_, quantity), counts) in layout.breakdowns.iter().zip(&self.breakdowns) {
            quantity.each(telemetry, &mut |of, value| {
                counts.add(of, value, &self.deferred);
            });
        }
    }

    pub(crate) fn record_fallback(&self, from: &str, to: &str) {
        self.fallbacks
            .add(&[from, to], Value::Count(1), &self.deferred);
    }

    pub(crate) fn deferred(&self) -> &Deferred {
        &self.deferred
    }

    /// Counts the end of a run that started here, and its failure under the source that was tried last.
    pub(crate) fn finish(&self, stream: &Stream, end: &End, last: &Self) {
        let error_type = end.is_failure().then(|| end.error_type()).flatten();
        if let Some(error_type) = error_type {
            let failures = &last.failures;
            failures.add(&[&*error_type], Value::Count(1), &last.deferred);
        }
        let outcome = [end.outcome().as_str()];
        self.finished.add(&outcome, Value::Count(1), &self.deferred);
        self.streams.finish(stream);
    }
}

/// Returns the values of labels that have few, known values.
fn known_values(labels: &[&str]) -> Vec<&'static str> {
    match labels {
        ["outcome" | "result"] => Outcome::ALL.iter().map(|one| one.as_str()).collect(),
        ["severity"] => Severity::ALL.iter().map(|one| one.as_str()).collect(),
        _ => Vec::new(),
    }
}

/// Returns the label of a source in fallbacks: its model, or else its number.
pub(crate) fn source_name(model: Option<Cow<'_, str>>, number: u32) -> Cow<'_, str> {
    let model = model.filter(|model| !model.is_empty());
    model.unwrap_or_else(|| number.to_string().into())
}

/// Registers the handles of these labels.
pub(crate) fn series(
    recorder: &dyn metrics::Recorder,
    names: &Arc<Names>,
    labels: &[Label],
) -> Arc<Series> {
    let registrar = Registrar {
        recorder,
        names,
        labels,
    };
    Arc::new(Series::new(registrar, names))
}
