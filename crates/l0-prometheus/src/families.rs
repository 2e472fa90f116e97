//! Metrics as the types of the `prometheus` crate, for an application's registry.
//!
//! Uses only the methods that these types have with and without the `protobuf` feature of that crate, because
//! the application can enable it.

use prometheus::proto::{self, MetricType};

use crate::exposition::{Family, Sample, Sink};
use crate::histogram::HistogramView;
use crate::layout::Kind;
use crate::metrics::Value;

/// A sink that collects families.
#[derive(Default)]
pub(crate) struct Families {
    done: Vec<proto::MetricFamily>,
    current: proto::MetricFamily,
    samples: Vec<proto::Metric>,
}

impl Families {
    pub(crate) fn finish(mut self) -> Vec<proto::MetricFamily> {
        self.finish_family();
        self.done
    }

    fn finish_family(&mut self) {
        if !self.samples.is_empty() {
            let mut family = std::mem::take(&mut self.current);
            family.set_metric(std::mem::take(&mut self.samples));
            self.done.push(family);
        }
    }
}

impl Sink for Families {
    fn family(&mut self, family: &Family<'_>) {
        self.finish_family();
        self.current.set_name(family.name.to_owned());
        self.current.set_help(family.help.to_owned());
        self.current.set_field_type(match family.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        let labels = sample.labels.iter();
        let own = sample.own().map(|(name, value)| (name, value.into()));
        let pairs = labels
            .chain(own)
            .map(|(name, value)| label(name, value.into_owned()));
        let mut metric = proto::Metric::from_label(pairs.collect());
        match sample.value {
            Value::Count(count) => self.set_number(&mut metric, count as f64),
            Value::Number(number) => self.set_number(&mut metric, number.as_f64()),
            Value::Histogram(view) => metric.set_histogram(histogram(view)),
        }
        self.samples.push(metric);
    }
}

impl Families {
    fn set_number(&self, metric: &mut proto::Metric, number: f64) {
        if self.current.get_field_type() == MetricType::GAUGE {
            let mut gauge = proto::Gauge::default();
            gauge.set_value(number);
            metric.set_gauge(gauge);
        } else {
            let mut counter = proto::Counter::default();
            counter.set_value(number);
            metric.set_counter(counter);
        }
    }
}

fn label(name: &str, value: String) -> proto::LabelPair {
    let mut label = proto::LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value);
    label
}

fn histogram(view: HistogramView<'_>) -> proto::Histogram {
    let mut cumulative = view.cumulative();
    let buckets = view.bounds.values.iter().zip(&mut cumulative);
    let buckets = buckets.map(|(&bound, count)| {
        let mut bucket = proto::Bucket::default();
        bucket.set_upper_bound(bound);
        bucket.set_cumulative_count(count);
        bucket
    });
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.collect());
    // `+Inf` is not a bucket here: encoders derive it from the count.
    histogram.set_sample_count(cumulative.next().unwrap_or(0));
    histogram.set_sample_sum(view.sum.as_f64());
    histogram
}
