//! Labels: a label set in the spelling of the text format, and the equality of sets.

use std::borrow::Cow;
use std::fmt;

use l0_core::{KeyList, keys};

use crate::error::LabelError;
use crate::names::check_label;

/// A label set: names and values, sorted by name.
///
/// A name can be any that Prometheus allows, `[a-zA-Z_][a-zA-Z0-9_]*`, except reserved ones: `le`, `quantile`,
/// names that begin with `__`, and the labels of L0's own metrics, `error_type`, `severity`, `rule`, `outcome`,
/// `result`, `currency`, `wasted`, `from` and `to`. A value can be any text, and is cut to 256 bytes.
///
/// Prometheus treats an empty value as a missing label. Two sets that differ only by labels with empty values
/// are therefore counted as one, shown as it was first seen.
///
/// ```
/// use l0_prometheus::Labels;
///
/// # fn main() -> Result<(), l0_prometheus::LabelError> {
/// let labels = Labels::new([("model", "gpt-4"), ("endpoint", "/chat")])?;
/// assert_eq!(labels.to_string(), r#"{endpoint="/chat",model="gpt-4"}"#);
/// assert_eq!(labels.get("model").as_deref(), Some("gpt-4"));
///
/// let error = Labels::new([("le", "0.5")]).unwrap_err();
/// assert!(error.to_string().starts_with("label name `le` is reserved"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels {
    /// `a="1",b="2"`: the text between the braces. Equal sets have equal texts, so one text serves as key, for
    /// comparison and as output.
    text: String,
}

impl Labels {
    /// The maximum length of a value, in bytes. Longer values are cut at a character boundary.
    pub const MAX_VALUE: usize = KeyList::MAX_VALUE;

    /// Creates labels with these names and values, in any order.
    ///
    /// # Errors
    ///
    /// Returns an error if a name is not allowed, is reserved, or is used twice.
    pub fn new<I, N, V>(labels: I) -> Result<Self, LabelError>
    where
        I: IntoIterator<Item = (N, V)>,
        N: AsRef<str>,
        V: AsRef<str>,
    {
        let mut labels: Vec<(N, V)> = labels.into_iter().collect();
        labels.sort_by(|a, b| a.0.as_ref().cmp(b.0.as_ref()));
        let mut text = LabelsText::default();
        let mut before = None;
        for (name, value) in &labels {
            let name = check_label(name.as_ref())?;
            if before.replace(name) == Some(name) {
                return Err(LabelError::Repeated(name.to_owned()));
            }
            text.push(name, value.as_ref());
        }
        Ok(text.into())
    }

    /// Creates an empty label set.
    #[must_use]
    pub const fn none() -> Self {
        Self {
            text: String::new(),
        }
    }

    /// Returns the value of a label, or `None` if there is no label of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Cow<'_, str>> {
        self.iter()
            .find_map(|(key, value)| (key == name).then_some(value))
    }

    /// Iterates over the names and values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, Cow<'_, str>)> {
        Pairs { rest: &self.text }.map(|pair| (pair.name, unescape(pair.value)))
    }

    /// Returns `true` if there are no labels.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Returns its buffer for reuse.
    pub(crate) fn into_buffer(self) -> String {
        self.text
    }

    /// Returns the text between the braces.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Returns the one text for all label sets that Prometheus treats as equal once the defaults are added. It
    /// leaves out values that change nothing.
    pub(crate) fn canonical(&self, defaults: &Self) -> Cow<'_, str> {
        let says_something = |pair: &Pair<'_>| {
            let default = defaults.pair(pair.name);
            pair.value != default.map_or("", |pair| pair.value)
        };
        if self.pairs().all(|pair| says_something(&pair)) {
            return Cow::Borrowed(&self.text);
        }
        let mut text = LabelsText::default();
        for pair in self.pairs().filter(says_something) {
            text.push_escaped(pair.name, pair.value);
        }
        Cow::Owned(text.0)
    }

    /// Returns these labels after the defaults that they do not override.
    pub(crate) fn after(&self, defaults: &Self) -> Self {
        let mut text = LabelsText::default();
        let kept = defaults
            .pairs()
            .filter(|pair| self.pair(pair.name).is_none());
        for pair in kept.chain(self.pairs()) {
            text.push_escaped(pair.name, pair.value);
        }
        text.into()
    }

    /// Returns the same names, each with this value.
    pub(crate) fn with_every_value(&self, value: &str) -> Self {
        let mut text = LabelsText::default();
        for pair in self.pairs() {
            text.push(pair.name, value);
        }
        text.into()
    }

    fn pair(&self, name: &str) -> Option<Pair<'_>> {
        self.pairs().find(|pair| pair.name == name)
    }

    fn pairs(&self) -> Pairs<'_> {
        Pairs { rest: &self.text }
    }
}

impl fmt::Display for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{}}}", self.text)
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A label text under construction.
#[derive(Default)]
pub(crate) struct LabelsText(String);

impl LabelsText {
    /// Starts in an existing buffer.
    pub(crate) fn in_buffer(mut buffer: String) -> Self {
        buffer.clear();
        Self(buffer)
    }

    /// Adds a label. Names must be validated, ascending and unique.
    pub(crate) fn push(&mut self, name: &str, value: &str) {
        let value = keys::cut(value, Labels::MAX_VALUE);
        self.0.reserve(name.len() + value.len() + 4);
        self.open(name);
        escape_into(&mut self.0, value);
        self.0.push('"');
    }

    fn push_escaped(&mut self, name: &str, value: &str) {
        self.open(name);
        self.0.push_str(value);
        self.0.push('"');
    }

    fn open(&mut self, name: &str) {
        if !self.0.is_empty() {
            self.0.push(',');
        }
        self.0.push_str(name);
        self.0.push_str("=\"");
    }
}

impl From<LabelsText> for Labels {
    fn from(text: LabelsText) -> Self {
        Self { text: text.0 }
    }
}

/// One label with its escaped value.
struct Pair<'a> {
    name: &'a str,
    value: &'a str,
}

struct Pairs<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Pairs<'a> {
    type Item = Pair<'a>;

    fn next(&mut self) -> Option<Pair<'a>> {
        let (name, rest) = self.rest.split_once("=\"")?;
        let mut bytes = rest.bytes().enumerate();
        let end = loop {
            match bytes.next()? {
                (_, b'\\') => drop(bytes.next()),
                (end, b'"') => break end,
                _ => {}
            }
        };
        // A quote follows the value, and a comma unless it was the last.
        self.rest = rest.get(end + 2..).unwrap_or_default();
        Some(Pair {
            name,
            value: &rest[..end],
        })
    }
}

/// Appends a label value, escaped for the text format.
pub(crate) fn escape_into(text: &mut String, value: &str) {
    let is_special = |byte: u8| matches!(byte, b'\\' | b'"' | b'\n');
    if !value.bytes().any(is_special) {
        return text.push_str(value);
    }
    let mut rest = value;
    while let Some(at) = rest.find(['\\', '"', '\n']) {
        text.push_str(&rest[..at]);
        text.push_str(match rest.as_bytes()[at] {
            b'\\' => "\\\\",
            b'"' => "\\\"",
            _ => "\\n",
        });
        rest = &rest[at + 1..];
    }
    text.push_str(rest);
}

fn unescape(value: &str) -> Cow<'_, str> {
    if !value.contains('\\') {
        return Cow::Borrowed(value);
    }
    let mut text = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(char) = chars.next() {
        text.push(match char {
            '\\' => match chars.next() {
                Some('n') => '\n',
                Some(escaped) => escaped,
                None => break,
            },
            char => char,
        });
    }
    Cow::Owned(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels<const N: usize>(pairs: [(&str, &str); N]) -> Labels {
        Labels::new(pairs).unwrap()
    }

    #[test]
    fn labels_are_sorted_by_name() {
        assert_eq!(
            labels([("b", "2"), ("a", "1")]),
            labels([("a", "1"), ("b", "2")])
        );
        assert_eq!(
            labels([("b", "2"), ("a", "1")]).to_string(),
            r#"{a="1",b="2"}"#
        );
        assert_eq!(Labels::none(), labels([]));
    }

    #[test]
    fn an_invalid_name_is_reported() {
        for (name, error) in [
            ("a-b", LabelError::Invalid("a-b".to_owned())),
            ("le", LabelError::Reserved("le".to_owned())),
            ("ok", LabelError::Repeated("ok".to_owned())),
        ] {
            assert_eq!(Labels::new([("ok", "1"), (name, "2")]), Err(error));
        }
    }

    #[test]
    fn any_value_reads_back() {
        let values = [
            "",
            "plain",
            "}",
            "{",
            "\"",
            "\\",
            "\n",
            "\\n",
            "\\\"",
            "a=\"b\",c=\"d\"",
            "\u{2028}",
            "\r",
            ",",
            "=",
            "\\\\n",
            "ends with \\",
            "\0",
        ];
        for first in values {
            for second in values {
                let labels = labels([("a", first), ("b", second)]);
                let read: Vec<_> = labels.iter().collect();
                assert_eq!(read, [("a", first.into()), ("b", second.into())]);
            }
        }
    }

    #[test]
    fn a_long_value_is_cut_at_the_end_of_a_character() {
        for (value, cut) in [
            ("x".repeat(256), 256),
            ("x".repeat(257), 256),
            ("\u{e9}".repeat(1_000), 256),
            (format!("x{}", "\u{1f980}".repeat(1_000)), 253),
            ("\n".repeat(1_000), 256),
        ] {
            let labels = labels([("a", &value)]);
            let read = labels.get("a").unwrap();
            assert_eq!(read, value[..cut], "{value}");
        }
    }

    #[test]
    fn values_that_look_like_labels_do_not_collide() {
        assert_ne!(
            labels([("a", "1,b=2")]).as_str(),
            labels([("a", "1"), ("b", "2")]).as_str()
        );
        assert_ne!(
            labels([("a", "1\",b=\"2")]).as_str(),
            labels([("a", "1"), ("b", "2")]).as_str()
        );
    }

    #[test]
    fn labels_that_prometheus_treats_as_equal_have_one_canonical_text() {
        let defaults = labels([("service", "app")]);
        let canonical = |call: &Labels| call.canonical(&defaults).into_owned();
        let plain = labels([("model", "x")]);
        assert!(matches!(plain.canonical(&defaults), Cow::Borrowed(_)));
        for same in [
            labels([("model", "x"), ("service", "app")]),
            labels([("model", "x"), ("user", "")]),
            labels([("model", "x"), ("service", "app"), ("user", "")]),
        ] {
            assert_eq!(canonical(&same), canonical(&plain));
        }
        for other in [
            labels([("model", "x"), ("service", "")]),
            labels([("model", "x"), ("service", "app2")]),
            labels([("model", "x"), ("user", "y")]),
        ] {
            assert_ne!(canonical(&other), canonical(&plain));
        }
    }

    #[test]
    fn defaults_come_first_unless_overridden() {
        let defaults = labels([("service", "app"), ("zone", "b")]);
        let shown = labels([("model", "x"), ("zone", "a")]).after(&defaults);
        assert_eq!(shown.to_string(), r#"{service="app",model="x",zone="a"}"#);
    }
}
