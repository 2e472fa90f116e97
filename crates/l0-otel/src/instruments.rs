//! Instruments: made by the table, and recorded into.

use std::fmt;

use l0_core::Telemetry;
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{KeyValue, StringValue};

use crate::attributes::RunAttributes;
use crate::conventions::{Conventions, Metric};
use crate::gaps;

/// An instrument, and its row of the table.
struct Instrument<I> {
    metric: &'static Metric,
    instrument: I,
}

pub(crate) struct Instruments {
    conventions: &'static Conventions,
    operation_duration: Instrument<Histogram<f64>>,
    time_to_first_chunk: Instrument<Histogram<f64>>,
    time_per_output_chunk: Instrument<Histogram<f64>>,
    token_usage: Instrument<Histogram<u64>>,
    active_runs: Instrument<UpDownCounter<i64>>,
    runs: Instrument<Counter<u64>>,
    retries: Instrument<Counter<u64>>,
    network_errors: Instrument<Counter<u64>>,
    violations: Instrument<Counter<u64>>,
    drift: Instrument<Counter<u64>>,
}

impl Instruments {
    pub(crate) fn new(conventions: &'static Conventions, meter: &Meter) -> Self {
        let metrics = &conventions.metrics;
        let seconds = |metric: &'static Metric| Instrument {
            metric,
            instrument: meter
                .f64_histogram(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .with_boundaries(metric.boundaries.to_vec())
                .build(),
        };
        let counter = |metric: &'static Metric| Instrument {
            metric,
            instrument: meter
                .u64_counter(metric.name)
                .with_unit(metric.unit)
                .with_description(metric.description)
                .build(),
        };
        let usage = &metrics.token_usage;
        let active = &metrics.active_runs;
        Self {
            conventions,
            operation_duration: seconds(&metrics.operation_duration),
            time_to_first_chunk: seconds(&metrics.time_to_first_chunk),
            time_per_output_chunk: seconds(&metrics.time_per_output_chunk),
            token_usage: Instrument {
                metric: usage,
                instrument: meter
                    .u64_histogram(usage.name)
                    .with_unit(usage.unit)
                    .with_description(usage.description)
                    .with_boundaries(usage.boundaries.to_vec())
                    .build(),
            },
            active_runs: Instrument {
                metric: active,
                instrument: meter
                    .i64_up_down_counter(active.name)
                    .with_unit(active.unit)
                    .with_description(active.description)
                    .build(),
            },
            runs: counter(&metrics.runs),
            retries: counter(&metrics.retries),
            network_errors: counter(&metrics.network_errors),
            violations: counter(&metrics.violations),
            drift: counter(&metrics.drift),
        }
    }

    /// A run starts (1) or ends (-1).
    pub(crate) fn active(&self, run: &RunAttributes, change: i64) {
        let Instrument { metric, instrument } = &self.active_runs;
        instrument.add(change, &run.of_point(metric, &[]));
    }

    /// A run has ended; `end` says how.
    pub(crate) fn ended(&self, run: &RunAttributes, end: &[KeyValue]) {
        count(&self.runs, run, end);
    }

    pub(crate) fn retry(&self, run: &RunAttributes, what: &[KeyValue]) {
        count(&self.retries, run, what);
    }

    pub(crate) fn network_error(&self, run: &RunAttributes, what: &[KeyValue]) {
        count(&self.network_errors, run, what);
    }

    pub(crate) fn violation(&self, run: &RunAttributes, what: &[KeyValue]) {
        count(&self.violations, run, what);
    }

    pub(crate) fn drift(&self, run: &RunAttributes) {
        count(&self.drift, run, &[]);
    }

    /// What a run measured; `end` says how it ended, and who answered.
    pub(crate) fn measured(&self, run: &RunAttributes, telemetry: &Telemetry, end: &[KeyValue]) {
        let durations = [
            (&self.operation_duration, telemetry.duration),
            (
                &self.time_to_first_chunk,
                telemetry.metrics.time_to_first_token,
            ),
        ];
        for (Instrument { metric, instrument }, duration) in durations {
            if let Some(duration) = duration {
                instrument.record(duration.as_secs_f64(), &run.of_point(metric, end));
            }
        }

        if let Some(between) = &telemetry.metrics.inter_token {
            let Instrument { metric, instrument } = &self.time_per_output_chunk;
            let attributes = run.of_point(metric, end);
            gaps::replay(between, |gap| instrument.record(gap, &attributes));
        }

        let Some(usage) = telemetry.usage else { return };
        let Instrument { metric, instrument } = &self.token_usage;
        for (kind, tokens) in [("input", usage.input), ("output", usage.output)] {
            if let Some(tokens) = tokens {
                let mut attributes = run.of_point(metric, end);
                let kind = StringValue::from(kind);
                attributes.push(KeyValue::new(self.conventions.keys.token_type, kind));
                instrument.record(tokens, &attributes);
            }
        }
    }
}

fn count(counter: &Instrument<Counter<u64>>, run: &RunAttributes, what: &[KeyValue]) {
    let attributes = run.of_point(counter.metric, what);
    counter.instrument.add(1, &attributes);
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instruments")
            .field("conventions", &self.conventions.schema_url)
            .finish_non_exhaustive()
    }
}
