//! Exposition: who takes metrics when they are read, and the writer of the text format.

use std::fmt::Write as _;

use crate::labels::{Labels, escape_into};
use crate::metrics::{Kind, Value};

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
    /// The metric's own label.
    pub(crate) own: Option<(&'a str, &'a str)>,
    pub(crate) value: Value<'a>,
}

/// The text format, version 0.0.4.
#[derive(Default)]
pub(crate) struct Text {
    pub(crate) text: String,
    /// The name of the family that began last.
    name: String,
    /// The labels of the sample at hand, its own among them.
    labels: String,
    digits: itoa::Buffer,
}

impl Text {
    pub(crate) fn with_capacity(bytes: usize) -> Self {
        Self {
            text: String::with_capacity(bytes),
            ..Self::default()
        }
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
        self.text.push('\n');
    }

    fn number(&mut self, value: f64) {
        // `NaN` is spelled the same.
        let _ = match value {
            f64::INFINITY => writeln!(self.text, "+Inf"),
            f64::NEG_INFINITY => writeln!(self.text, "-Inf"),
            value => writeln!(self.text, "{value}"),
        };
    }
}

impl Sink for Text {
    fn family(&mut self, family: &Family<'_>) {
        family.name.clone_into(&mut self.name);
        let (name, kind) = (family.name, family.kind.as_str());
        if !family.help.is_empty() {
            // Quotes are not special here, unlike in label values.
            let help = family.help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = writeln!(self.text, "# HELP {name} {help}");
        }
        let _ = writeln!(self.text, "# TYPE {name} {kind}");
    }

    fn sample(&mut self, sample: &Sample<'_>) {
        self.labels.clear();
        self.labels.push_str(sample.labels.as_str());
        if let Some((name, value)) = sample.own {
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
            }
            Value::Number(number) => {
                self.start("");
                self.number(number);
            }
            Value::Histogram(histogram) => {
                let mut count = 0;
                let le = histogram.bounds.le.iter().map(String::as_str);
                let separator = if self.labels.is_empty() { "" } else { "," };
                for (le, cumulative) in le.chain(["+Inf"]).zip(histogram.cumulative()) {
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
                    count = cumulative;
                }
                self.start("_sum");
                self.number(histogram.sum);
                self.start("_count");
                self.integer(count);
            }
        }
    }
}
