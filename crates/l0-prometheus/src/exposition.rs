//! Exposition: who takes metrics when they are read, and the writer of the text formats.

use std::fmt::Write as _;

use crate::histogram::{Exemplar, HistogramView};
use crate::labels::{Labels, escape_into};
use crate::layout::Kind;
use crate::metrics::Value;

/// What metrics are read into, one family after another, each with at least one sample.
pub(crate) trait Sink {
    /// A family begins.
    fn family(&mut self, family: &Family<'_>);

    /// A sample of the family that began last.
    fn sample(&mut self, sample: &Sample<'_>);
}

/// A metric of one name.
#[derive(Clone, Copy)]
pub(crate) struct Family<'a> {
    pub(crate) name: &'a str,
    pub(crate) help: &'a str,
    pub(crate) kind: Kind,
}

/// One label set of a metric.
#[derive(Clone, Copy)]
pub(crate) struct Sample<'a> {
    pub(crate) labels: &'a Labels,
    /// The names of the metric's own labels, and their values.
    pub(crate) own: (&'a [&'a str], &'a [&'a str]),
    pub(crate) value: Value<'a>,
}

impl<'a> Sample<'a> {
    /// The metric's own labels.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let (names, values) = self.own;
        names.iter().copied().zip(values.iter().copied())
    }
}

/// How metrics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The text format of Prometheus, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// Writes metrics as text.
pub(crate) struct Writer {
    format: Format,
    text: String,
    /// The name of the family that began last, as its samples begin.
    name: String,
    /// The labels of the sample at hand, its own among them.
    labels: String,
    digits: itoa::Buffer,
}

impl Writer {
    pub(crate) fn new(format: Format, capacity: usize) -> Self {
        Self {
            format,
            text: String::with_capacity(capacity),
            name: String::new(),
            labels: String::new(),
            digits: itoa::Buffer::new(),
        }
    }

    pub(crate) fn finish(mut self) -> String {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.text
    }

    /// The part of a line before its value.
    fn start(&mut self, suffix: &str) {
        self.text.push_str(&self.name);
        self.text.push_str(suffix);
        if !self.labels.is_empty() {
            self.text.push('{');
            self.text.push_str(&self.labels);
            self.text.push('}');
        }
        self.text.push(' ');
    }

    fn integer(&mut self, value: u64) {
        self.text.push_str(self.digits.format(value));
    }

    fn number(&mut self, value: f64) {
        // `NaN` is spelled the same.
        let _ = match value {
            f64::INFINITY => write!(self.text, "+Inf"),
            f64::NEG_INFINITY => write!(self.text, "-Inf"),
            value => write!(self.text, "{value}"),
        };
    }

    fn end(&mut self) {
        self.text.push('\n');
    }

    fn histogram(&mut self, histogram: HistogramView<'_>) {
        let bounds = histogram.bounds;
        let le = match self.format {
            Format::Text => &bounds.le,
            Format::OpenMetrics => &bounds.canonical,
        };
        let le = le.iter().map(String::as_str).chain(["+Inf"]);
        let separator = if self.labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (bucket, (le, cumulative)) in le.zip(histogram.cumulative()).enumerate() {
            for part in [
                &*self.name,
                "_bucket{",
                &self.labels,
                separator,
                "le=\"",
                le,
                "\"} ",
            ] {
                self.text.push_str(part);
            }
            self.integer(cumulative);
            if self.format == Format::OpenMetrics {
                histogram.exemplar(bucket, |exemplar| self.exemplar(exemplar));
            }
            self.end();
            count = cumulative;
        }
        // With buckets for negative values the sum may fall: OpenMetrics has neither it nor the count.
        let may_fall = bounds.values.first().is_some_and(|bound| *bound < 0.0);
        if self.format == Format::Text || !may_fall {
            self.start("_sum");
            self.number(histogram.sum);
            self.end();
            self.start("_count");
            self.integer(count);
            self.end();
        }
    }

    fn exemplar(&mut self, exemplar: &Exemplar) {
        let _ = write!(self.text, " # {{{}=\"", Exemplar::LABEL);
        escape_into(&mut self.text, &exemplar.id);
        let _ = write!(self.text, "\"}} {}", exemplar.value);
        if let Some(millis) = exemplar.at {
            let _ = write!(self.text, " {}.{:03}", millis / 1_000, millis % 1_000);
        }
    }
}

impl Sink for Writer {
    fn family(&mut self, family: &Family<'_>) {
        let (mut name, kind) = (family.name, family.kind.as_str());
        family.name.clone_into(&mut self.name);
        if self.format == Format::OpenMetrics && family.kind == Kind::Counter {
            // There the name of a counter has no suffix, and its samples do.
            name = name.strip_suffix("_total").unwrap_or(name);
            self.name = format!("{name}_total");
        }
        if !family.help.is_empty() {
            let mut help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            if self.format == Format::OpenMetrics {
                help = help.replace('"', "\\\"");
            }
            let _ = writeln!(self.text, "# HELP {name} {help}");
        }
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        self.labels.clear();
        self.labels.push_str(sample.labels.as_str());
        for (name, value) in sample.own() {
            if !self.labels.is_empty() {
                self.labels.push(',');
            }
            self.labels.push_str(name);
            self.labels.push_str("=\"");
            escape_into(&mut self.labels, value);
            self.labels.push('"');
        }
        match sample.value {
            Value::Count(count) => {
                self.start("");
                self.integer(count);
                self.end();
            }
            Value::Number(number) => {
                self.start("");
                self.number(number);
                self.end();
            }
            Value::Histogram(histogram) => self.histogram(histogram),
        }
    }
}
