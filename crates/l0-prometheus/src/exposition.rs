//! Exposition: the sink that metrics are read into, and the writer of the text formats.

use std::fmt::Write as _;
use std::io;

use crate::histogram::HistogramView;
use crate::labels::{Labels, escape_into};
use crate::layout::Kind;
use crate::metrics::Value;
use crate::number::Number;

/// A receiver of metrics, one family after another, each with at least one sample.
pub(crate) trait Sink {
    /// Starts a family.
    fn family(&mut self, family: &Family<'_>);

    /// Adds a sample to the current family.
    fn sample(&mut self, sample: &Sample<'_>);
}

/// A metric family: all samples of one name.
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
    /// The names and values of the metric's own labels.
    pub(crate) own: (&'a [&'a str], &'a [&'a str]),
    pub(crate) value: Value<'a>,
}

impl<'a> Sample<'a> {
    /// Returns the metric's own labels.
    pub(crate) fn own(&self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let (names, values) = self.own;
        names.iter().copied().zip(values.iter().copied())
    }
}

/// A text format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// The Prometheus text format, version 0.0.4.
    Text,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

/// The size of a piece, in bytes, when the text is written in pieces.
const PIECE: usize = 64 * 1024;

/// Writes metrics as text.
pub(crate) struct Writer<'a> {
    format: Format,
    /// The text. With an output, the part that is not written to it yet.
    text: String,
    /// The output for the pieces and the result of writing to it, unless the whole text is returned.
    pieces: Option<(&'a mut dyn io::Write, io::Result<()>)>,
    /// The start of each line of a histogram's buckets.
    line: String,
    /// The name of the current family, as its samples begin.
    name: String,
    /// The labels of the current sample, including the metric's own.
    labels: String,
    digits: itoa::Buffer,
}

#[cfg(feature = "axum")]
impl<'a> Writer<'a> {
    /// Creates a writer that writes to an output in pieces, to keep little text in memory.
    pub(crate) fn to(out: &'a mut dyn io::Write, format: Format) -> Self {
        Self {
            pieces: Some((out, Ok(()))),
            ..Self::new(format, 2 * PIECE)
        }
    }
}

impl Writer<'_> {
    pub(crate) fn new(format: Format, capacity: usize) -> Self {
        Self {
            format,
            text: String::with_capacity(capacity),
            pieces: None,
            line: String::new(),
            name: String::new(),
            labels: String::new(),
            digits: itoa::Buffer::new(),
        }
    }

    /// Returns the text, which is empty if it went to an output.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        if self.format == Format::OpenMetrics {
            self.text.push_str("# EOF\n");
        }
        self.flush(0);
        match self.pieces {
            Some((_, written)) => written.map(|()| String::new()),
            None => Ok(self.text),
        }
    }

    /// Writes the pending text to the output, if there is one and the text is longer than this.
    fn flush(&mut self, longer_than: usize) {
        if let Some((out, written)) = &mut self.pieces {
            if self.text.len() > longer_than {
                if written.is_ok() {
                    *written = out.write_all(self.text.as_bytes());
                }
                self.text.clear();
            }
        }
    }

    /// Writes the part of a line before its value.
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

    fn number(&mut self, number: Number) {
        // `NaN` is spelled the same in both formats.
        let _ = match number {
            Number::Decimal(units, digits) => return self.decimal(units, digits),
            Number::Float(f64::INFINITY) => write!(self.text, "+Inf"),
            Number::Float(f64::NEG_INFINITY) => write!(self.text, "-Inf"),
            Number::Float(number) => write!(self.text, "{number}"),
        };
    }

    fn decimal(&mut self, units: u64, digits: u32) {
        let one = 10_u64.pow(digits);
        self.integer(units / one);
        let rest = units % one;
        if rest > 0 {
            self.text.push('.');
            // A leading one keeps the leading zeros of the fraction.
            let places = self.digits.format(one + rest);
            self.text.push_str(places[1..].trim_end_matches('0'));
        }
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
        let separator = if self.labels.is_empty() { "" } else { "," };
        self.line.clear();
        for part in [&*self.name, "_bucket{", &self.labels, separator, "le=\""] {
            self.line.push_str(part);
        }
        let mut count = 0;
        let mut digits = self.digits.format(count);
        for (bucket, (le, cumulative)) in le.iter().zip(histogram.cumulative()).enumerate() {
            if cumulative != count {
                count = cumulative;
                digits = self.digits.format(count);
            }
            self.text.push_str(&self.line);
            self.text.push_str(le);
            self.text.push_str(digits);
            if self.format == Format::OpenMetrics {
                histogram.write_exemplar(bucket, &mut self.text);
            }
            self.text.push('\n');
        }
        // A sum over negative values can fall, and OpenMetrics then allows neither a sum nor a count.
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
}

impl Sink for Writer<'_> {
    fn family(&mut self, family: &Family<'_>) {
        let (mut name, kind) = (family.name, family.kind.as_str());
        family.name.clone_into(&mut self.name);
        if self.format == Format::OpenMetrics && family.kind == Kind::Counter {
            // In OpenMetrics the name of a counter has no suffix, but its samples do.
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
        self.flush(PIECE);
    }
}
