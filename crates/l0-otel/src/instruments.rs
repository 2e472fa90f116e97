//! The instruments, created from the table of the conventions.

use std::fmt;

use l0_core::{Quantity, Telemetry, Unit, Value};
use opentelemetry::metrics::{Counter, Histogram, Meter, UpDownCounter};
use opentelemetry::{Key, KeyValue};

use crate::attributes::{SourceAttributes, text};
use crate::conventions::{Metric, Table};
use crate::numbers;

pub(crate) struct Instruments {
    schema_url: &'static str,
    active_runs: UpDownCounter<i64>,
    runs: LiveCounter,
    failures: LiveCounter,
    retries: LiveCounter,
    network_errors: LiveCounter,
    violations: LiveCounter,
    drift: LiveCounter,
    fallbacks: LiveCounter,
    gaps: Histogram<f64>,
    numbers: Vec<NumberInstrument>,
}

impl Instruments {
    pub(crate) fn new(conventions: &'static Table, meter: &Meter) -> Self {
        let live = &conventions.metrics;
        let counter = |metric: &'static Metric| LiveCounter {
            counter: counter(meter, metric),
            attributes: metric.attributes,
        };
        let numbers = Quantity::ALL.iter().filter_map(|quantity| {
            let (metric, token_type) = numbers::metric(conventions, quantity)?;
            let mut number = NumberInstrument::new(conventions, meter, quantity, &metric);
            let token_type =
                token_type.map(|kind| KeyValue::new(conventions.keys.token_type, kind));
            number.token_type = token_type;
            Some(number)
        });
        Self {
            schema_url: conventions.schema_url,
            active_runs: meter
                .i64_up_down_counter(live.active_runs.name.clone())
                .with_unit(live.active_runs.unit.clone())
                .with_description(live.active_runs.description)
                .build(),
            runs: counter(&live.runs),
            failures: counter(&live.failures),
            retries: counter(&live.retries),
            network_errors: counter(&live.network_errors),
            violations: counter(&live.violations),
            drift: counter(&live.drift),
            fallbacks: counter(&live.fallbacks),
            gaps: histogram(meter, &live.gaps),
            numbers: numbers.collect(),
        }
    }

    /// Changes the number of active runs when a run starts (1) or ends (-1). `first` is its first source.
    pub(crate) fn active(&self, first: &SourceAttributes, change: i64) {
        self.active_runs.add(change, &first.of_points);
    }

    /// Counts a run that has ended. `end` are the attributes of its outcome.
    pub(crate) fn ended(&self, first: &SourceAttributes, end: &[KeyValue]) {
        self.runs.count(first, end);
    }

    /// Counts a run that has failed. `last` is the source called last.
    pub(crate) fn failed(&self, last: &SourceAttributes, end: &[KeyValue]) {
        self.failures.count(last, end);
    }

    pub(crate) fn retry(&self, source: &SourceAttributes, what: &[KeyValue]) {
        self.retries.count(source, what);
    }

    pub(crate) fn fallback(&self, from: &SourceAttributes, what: &[KeyValue]) {
        self.fallbacks.count(from, what);
    }

    pub(crate) fn network_error(&self, source: &SourceAttributes, what: &[KeyValue]) {
        self.network_errors.count(source, what);
    }

    pub(crate) fn violation(&self, source: &SourceAttributes, what: &[KeyValue]) {
        self.violations.count(source, what);
    }

    pub(crate) fn drift(&self, source: &SourceAttributes) {
        self.drift.count(source, &[]);
    }

    /// Records gaps between tokens, in seconds.
    pub(crate) fn gaps(&self, gaps: &[f64], attributes: &[KeyValue]) {
        for gap in gaps {
            self.gaps.record(*gap, attributes);
        }
    }

    /// Records the numbers that a run measured with one source. `end` are further attributes of the run.
    pub(crate) fn measured(
        &self,
        source: &SourceAttributes,
        telemetry: &Telemetry,
        end: &[KeyValue],
    ) {
        // One buffer for all numbers, because nearly all their attributes are the same.
        let mut attributes = source.of_points.clone();
        for number in &self.numbers {
            attributes.truncate(source.of_points.len());
            number.record(telemetry, end, &mut attributes);
        }
    }
}

impl fmt::Debug for Instruments {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Instruments")
            .field("conventions", &self.schema_url)
            .finish_non_exhaustive()
    }
}

/// A counter of events of a live run.
struct LiveCounter {
    counter: Counter<u64>,
    attributes: &'static [&'static str],
}

impl LiveCounter {
    fn count(&self, source: &SourceAttributes, known: &[KeyValue]) {
        let mut attributes = source.of_points.clone();
        attributes.extend(only(self.attributes, known));
        self.counter.add(1, &attributes);
    }
}

/// A number of the telemetry and its instrument.
struct NumberInstrument {
    quantity: &'static Quantity,
    instrument: Instrument,
    attributes: &'static [&'static str],
    token_type: Option<KeyValue>,
    /// The attribute names of its labels.
    labels: Vec<Key>,
}

enum Instrument {
    Count(Counter<u64>),
    Sum(Counter<f64>),
    Histogram(Histogram<f64>),
}

impl NumberInstrument {
    fn new(
        conventions: &Table,
        meter: &Meter,
        quantity: &'static Quantity,
        metric: &Metric,
    ) -> Self {
        let labels = quantity.labels().iter();
        Self {
            quantity,
            instrument: Instrument::new(quantity, meter, metric),
            attributes: metric.attributes,
            token_type: None,
            labels: labels
                .map(|label| numbers::label(conventions, label).into())
                .collect(),
        }
    }

    /// Records the number, if it is known. `attributes` are those of every point of the source. The
    /// attributes of this metric are added.
    fn record(&self, telemetry: &Telemetry, end: &[KeyValue], attributes: &mut Vec<KeyValue>) {
        attributes.extend(only(self.attributes, end));
        attributes.extend(self.token_type.clone());
        self.quantity.values(telemetry, &mut |value| {
            self.instrument.record(value, attributes);
        });
        self.quantity.each(telemetry, &mut |of, value| {
            let shared = attributes.len();
            let labels = self.labels.iter().zip(of);
            attributes.extend(labels.map(|(label, of)| KeyValue::new(label.clone(), text(of))));
            self.instrument.record(value, attributes);
            attributes.truncate(shared);
        });
    }
}

impl Instrument {
    fn new(quantity: &Quantity, meter: &Meter, metric: &Metric) -> Self {
        let Metric {
            name,
            unit,
            description,
            boundaries,
            ..
        } = metric;
        if !boundaries.is_empty() {
            Self::Histogram(histogram(meter, metric))
        } else if matches!(quantity.unit, Unit::Each(_)) {
            Self::Count(counter(meter, metric))
        } else {
            let sum = meter
                .f64_counter(name.clone())
                .with_unit(unit.clone())
                .with_description(*description);
            Self::Sum(sum.build())
        }
    }

    fn record(&self, value: Value<'_>, attributes: &[KeyValue]) {
        match (self, value) {
            (Self::Count(counter), Value::Count(count)) => counter.add(count, attributes),
            // Unreachable unless the list of numbers is wrong: the unit `Each` means a count.
            (Self::Count(_), _) => {}
            (Self::Sum(sum), value) => sum.add(value.as_f64(), attributes),
            (Self::Histogram(histogram), value) => histogram.record(value.as_f64(), attributes),
        }
    }
}

fn histogram(meter: &Meter, metric: &Metric) -> Histogram<f64> {
    meter
        .f64_histogram(metric.name.clone())
        .with_unit(metric.unit.clone())
        .with_description(metric.description)
        .with_boundaries(metric.boundaries.to_vec())
        .build()
}

fn counter(meter: &Meter, metric: &Metric) -> Counter<u64> {
    meter
        .u64_counter(metric.name.clone())
        .with_unit(metric.unit.clone())
        .with_description(metric.description)
        .build()
}

/// Returns the known attributes that a metric is allowed to have.
fn only<'a>(
    allowed: &'a [&'static str],
    known: &'a [KeyValue],
) -> impl Iterator<Item = KeyValue> + 'a {
    let of_metric = known
        .iter()
        .filter(|known| allowed.contains(&known.key.as_str()));
    of_metric.cloned()
}

#[cfg(test)]
mod tests {
    use l0_core::{DriftStats, ErrorRecord, GuardrailStats, Outcome, QuantityKind, Usage};
    use opentelemetry::metrics::MeterProvider;
    use opentelemetry_sdk::metrics::data::{AggregatedMetrics, MetricData};
    use opentelemetry_sdk::metrics::{InMemoryMetricExporter, SdkMeterProvider};

    use super::*;
    use crate::conventions::Conventions;

    const CURRENT: &Table = Conventions::V1_41.table();

    /// Returns telemetry in which every number is known.
    fn telemetry() -> Telemetry {
        let mut telemetry = Telemetry::example();
        let usage = Usage::new().input(12).output(160).total(172);
        telemetry.usage = Some(usage.cached_input(4).cache_write_input(3).reasoning(9));
        telemetry.outcome = Some(Outcome::Failed);
        telemetry.error = Some(ErrorRecord::default());
        let mut guardrails = GuardrailStats::default();
        guardrails.violation_count = 1;
        guardrails.violations_by_severity.error = 1;
        guardrails.violations_by_rule.insert("json".to_owned(), 1);
        telemetry.guardrails = Some(guardrails);
        telemetry.drift = Some(DriftStats::default());
        telemetry
    }

    /// Returns all quantities except the gaps. Gaps are recorded as they happen, because a single value for a
    /// distribution would be its mean.
    fn quantities() -> impl Iterator<Item = &'static Quantity> {
        let all = Quantity::ALL.iter();
        all.filter(|quantity| quantity.name != "inter_token")
    }

    #[test]
    fn every_other_number_is_one_value_and_not_a_distribution() {
        for quantity in quantities() {
            assert_ne!(quantity.kind, QuantityKind::Distribution, "{quantity:?}");
        }
    }

    /// Sums a metric's points and checks that their attributes are allowed.
    fn sum(metric: &AggregatedMetrics, allowed: &[&str]) -> f64 {
        let check = |attributes: &mut dyn Iterator<Item = &KeyValue>| {
            attributes.for_each(|one| assert!(allowed.contains(&one.key.as_str()), "{one:?}"));
        };
        let mut total = 0.0;
        match metric {
            AggregatedMetrics::F64(MetricData::Sum(sum)) => {
                for point in sum.data_points() {
                    check(&mut point.attributes());
                    total += point.value();
                }
            }
            AggregatedMetrics::U64(MetricData::Sum(sum)) => {
                for point in sum.data_points() {
                    check(&mut point.attributes());
                    total += point.value() as f64;
                }
            }
            AggregatedMetrics::F64(MetricData::Histogram(all)) => {
                for point in all.data_points() {
                    check(&mut point.attributes());
                    total += point.sum();
                }
            }
            _ => panic!("neither a sum nor a histogram"),
        }
        total
    }

    // Also covers numbers that are sent under another name today.
    #[test]
    fn every_number_can_be_recorded_under_its_own_name() {
        let exporter = InMemoryMetricExporter::default();
        let provider = SdkMeterProvider::builder()
            .with_periodic_exporter(exporter.clone())
            .build();
        let meter = provider.meter("test");
        let telemetry = telemetry();
        let end = [
            KeyValue::new(CURRENT.keys.response_model, "gpt-4o"),
            KeyValue::new(CURRENT.keys.outcome, "failed"),
        ];
        for quantity in quantities() {
            let metric = numbers::own_metric(CURRENT, quantity);
            let number = NumberInstrument::new(CURRENT, &meter, quantity, &metric);
            number.record(&telemetry, &end, &mut Vec::new());
        }

        provider.force_flush().unwrap();
        let exported = exporter.get_finished_metrics().unwrap();
        let scopes = exported.iter().flat_map(|all| all.scope_metrics());
        let metrics: Vec<_> = scopes.flat_map(|scope| scope.metrics()).collect();
        for quantity in quantities() {
            let (mut expected, mut known) = (0.0, false);
            quantity.each(&telemetry, &mut |_, value| {
                (expected, known) = (expected + value.as_f64(), true);
            });
            quantity.values(&telemetry, &mut |value| {
                known = true;
                expected += value.as_f64();
            });
            let name = format!("l0.{}", quantity.name);
            let metric = metrics.iter().find(|metric| metric.name() == name);
            assert_eq!(metric.is_some(), known, "{name}");
            let labels = quantity.labels().iter();
            let labels: Vec<_> = labels.map(|label| numbers::label(CURRENT, label)).collect();
            let mut allowed = vec!["gen_ai.response.model"];
            allowed.extend(labels.iter().map(|label| &**label));
            let sent = metric.map_or(0.0, |metric| sum(metric.data(), &allowed));
            assert!(
                (sent - expected).abs() <= expected * 1e-9,
                "{name}: {sent} {expected}"
            );
        }
    }
}
