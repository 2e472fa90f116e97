//! The attributes that one backend reads in addition to the conventions. A dialect is data, so
//! adding one takes no logic.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use l0_core::{Metadata, Quantity, Telemetry, Value as Number, keys};
use opentelemetry::{Array, KeyValue, Value};
use serde_json::{Map, Value as Json};

use crate::attributes::text;
use crate::numbers;

/// A table of the attributes that one backend reads. This crate provides [`LANGFUSE`](crate::LANGFUSE),
/// [`OPENINFERENCE`](crate::OPENINFERENCE) and [`SIGNOZ`](crate::SIGNOZ). For other backends, define your own
/// table:
///
/// ```
/// use l0_otel::{Dialect, OtelInterceptor, Row};
///
/// static WEAVE: Dialect = Dialect::new(
///     "weave",
///     &[
///         Row::attribute("llm.provider", "gen_ai.provider.name"),
///         Row::attribute("wandb.thread_id", "gen_ai.conversation.id"),
///     ],
/// );
///
/// let otel = OtelInterceptor::builder().dialect(&WEAVE).build();
/// # drop(otel);
/// ```
///
/// The attributes are set when a span ends, in the order of the rows. A row is skipped if the span already has
/// an attribute of that name. Among rows with the same name, the first with a value is used.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Dialect {
    /// The name of the dialect.
    pub name: &'static str,
    /// The attributes that the dialect adds.
    pub rows: &'static [Row],
}

impl Dialect {
    /// Creates a dialect.
    #[must_use]
    pub const fn new(name: &'static str, rows: &'static [Row]) -> Self {
        Self { name, rows }
    }
}

/// One attribute of a [`Dialect`]. Only the spans of attempts have it, unless [`on`](Self::on) is changed.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Row {
    /// The name of the attribute.
    pub attribute: &'static str,
    /// The origin of the value.
    pub reads: Reads,
    /// The type and format in which the value is sent.
    pub form: Form,
    /// The spans that have the attribute.
    pub on: On,
}

/// The origin of the value of a [`Row`]. An unknown value adds no attribute.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Reads {
    /// A number of a measured attempt or a measured run.
    Quantity(&'static Quantity),
    /// The first number minus the others, such as the input that no cache served.
    Difference(&'static Quantity, &'static [&'static Quantity]),
    /// The attribute of this name on the same span.
    Attribute(&'static str),
    /// The attribute of this name on the same span, translated by a table of pairs (from, to).
    Words(&'static str, &'static [(&'static str, &'static str)]),
    /// The metadata entry with this key, cut to 256 bytes.
    Metadata(&'static str),
    /// A fixed text.
    Constant(&'static str),
    /// A JSON object of the fields whose values are known. Absent if no value is known.
    Object(&'static [(&'static str, Reads)]),
}

/// The type and format in which the value of a [`Row`] is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// The value's own type, unchanged.
    Own,
    /// A string. The items of a list are joined by commas.
    Text,
    /// An integer. Times are in whole seconds. A value that is not a number is left out.
    Int,
    /// A double. Times are in seconds. A value that is not a number is left out.
    Double,
    /// A JSON string.
    Json,
    /// A timestamp in ISO 8601: the start of the span plus the value in seconds. A value that is not a number
    /// is left out.
    Time,
}

/// The spans that have the attribute of a [`Row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum On {
    /// The spans of attempts. Values that backends add up, such as usage, belong only here.
    Attempts,
    /// The spans of runs.
    Runs,
    /// The spans of attempts and of runs.
    Both,
}

impl Row {
    const fn new(attribute: &'static str, reads: Reads) -> Self {
        Self {
            attribute,
            reads,
            form: Form::Own,
            on: On::Attempts,
        }
    }

    /// Creates a row that reads a number by its name in [`Quantity::ALL`], such as `usage.input`.
    ///
    /// # Panics
    ///
    /// Panics if no number has this name. In a `const` or a `static`, this is a compile error.
    #[must_use]
    pub const fn quantity(attribute: &'static str, name: &'static str) -> Self {
        Self::new(attribute, Reads::quantity(name))
    }

    /// Creates a row that reads another attribute of the same span.
    #[must_use]
    pub const fn attribute(attribute: &'static str, name: &'static str) -> Self {
        Self::new(attribute, Reads::Attribute(name))
    }

    /// Creates a row that reads an attribute of the same span and translates its value by a table of pairs
    /// (from, to). A value that is not in the table adds no attribute.
    #[must_use]
    pub const fn words(
        attribute: &'static str,
        name: &'static str,
        words: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::new(attribute, Reads::Words(name, words))
    }

    /// Creates a row that reads an entry of the metadata. The key does not have to be listed with
    /// [`attribute_keys`](crate::OtelBuilder::attribute_keys).
    #[must_use]
    pub const fn metadata(attribute: &'static str, key: &'static str) -> Self {
        Self::new(attribute, Reads::Metadata(key))
    }

    /// Creates a row with a fixed value.
    #[must_use]
    pub const fn constant(attribute: &'static str, value: &'static str) -> Self {
        Self::new(attribute, Reads::Constant(value))
    }

    /// Creates a row whose value is a JSON object.
    #[must_use]
    pub const fn object(attribute: &'static str, fields: &'static [(&'static str, Reads)]) -> Self {
        Self::new(attribute, Reads::Object(fields))
    }

    /// Sets the type and format in which the value is sent. Default: [`Form::Own`].
    #[must_use]
    pub const fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Sets which spans have the attribute. Default: [`On::Attempts`].
    #[must_use]
    pub const fn on(mut self, on: On) -> Self {
        self.on = on;
        self
    }
}

impl Reads {
    /// Reads a number by its name in [`Quantity::ALL`].
    ///
    /// # Panics
    ///
    /// Panics if no number has this name. In a `const` or a `static`, this is a compile error.
    #[must_use]
    pub const fn quantity(name: &str) -> Self {
        Self::Quantity(quantity(name))
    }

    fn value(self, span: &EndingSpan<'_>) -> Option<Value> {
        Some(match self {
            Self::Quantity(quantity) => number(quantity, span.telemetry?)?,
            Self::Difference(whole, parts) => {
                let count = |quantity: &Quantity| match quantity.value(span.telemetry?)? {
                    Number::Count(count) => Some(count),
                    _ => None,
                };
                let known = parts.iter().filter_map(|part| count(part));
                let rest = known.fold(count(whole)?, u64::saturating_sub);
                Value::I64(i64::try_from(rest).unwrap_or(i64::MAX))
            }
            Self::Attribute(name) => span.attribute(name)?.clone(),
            Self::Words(name, words) => {
                let word = span.attribute(name)?.as_str();
                let mut words = words.iter();
                words.find(|(from, _)| *from == word)?.1.into()
            }
            Self::Metadata(key) => {
                let value = keys::text(span.metadata, key)?;
                (!value.is_empty()).then(|| text(&value))?.into()
            }
            Self::Constant(value) => value.into(),
            Self::Object(fields) => {
                let known = fields.iter().filter_map(|(name, reads)| {
                    let value = json(&reads.value(span)?);
                    Some(((*name).to_owned(), value))
                });
                // Sorted by name: the order of a JSON map depends on the features of the build.
                let known = Map::from_iter(BTreeMap::from_iter(known));
                (!known.is_empty())
                    .then(|| Json::Object(known).to_string())?
                    .into()
            }
        })
    }
}

/// Looks up a number by its name.
pub(crate) const fn quantity(name: &str) -> &'static Quantity {
    let mut index = 0;
    while index < Quantity::ALL.len() {
        if is_same(Quantity::ALL[index].name, name) {
            return &Quantity::ALL[index];
        }
        index += 1;
    }
    panic!("`Quantity::ALL` has no number of this name");
}

const fn is_same(one: &str, other: &str) -> bool {
    let (one, other) = (one.as_bytes(), other.as_bytes());
    let mut index = 0;
    while index < one.len() && index < other.len() && one[index] == other[index] {
        index += 1;
    }
    index == one.len() && index == other.len()
}

/// The data of a span that is about to end.
pub(crate) struct EndingSpan<'a> {
    pub(crate) known: &'a [KeyValue],
    pub(crate) telemetry: Option<&'a Telemetry>,
    pub(crate) metadata: &'a Metadata,
    pub(crate) start: SystemTime,
}

impl EndingSpan<'_> {
    fn attribute(&self, name: &str) -> Option<&Value> {
        let mut known = self.known.iter().rev();
        known
            .find(|one| one.key.as_str() == name)
            .map(|one| &one.value)
    }
}

/// Returns the attributes that these rows add to a span.
pub(crate) fn attributes(rows: &[&'static Row], on: On, span: &EndingSpan<'_>) -> Vec<KeyValue> {
    let mut added = Vec::<KeyValue>::new();
    for row in rows.iter().filter(|row| row.on == on || row.on == On::Both) {
        let is_there = |one: &KeyValue| one.key.as_str() == row.attribute;
        if added.iter().any(is_there) || span.known.iter().any(is_there) {
            continue;
        }
        let value = row.reads.value(span);
        if let Some(value) = value.and_then(|value| formed(row.form, value, span.start)) {
            added.push(KeyValue::new(row.attribute, value));
        }
    }
    added
}

/// Returns a number as an attribute value, or `None` if it is unknown or has several values.
fn number(quantity: &Quantity, telemetry: &Telemetry) -> Option<Value> {
    Some(match numbers::single(quantity, telemetry)? {
        Number::Count(count) => Value::I64(i64::try_from(count).unwrap_or(i64::MAX)),
        value => Value::F64(value.as_f64()),
    })
}

fn formed(form: Form, value: Value, start: SystemTime) -> Option<Value> {
    let as_double = |value: &Value| match value {
        Value::I64(count) => Some(*count as f64),
        Value::F64(number) => Some(*number),
        _ => None,
    };
    Some(match form {
        Form::Own => value,
        Form::Text => match value {
            Value::Array(Array::String(words)) => {
                let words = words.iter().map(|word| word.as_str());
                Vec::from_iter(words).join(",").into()
            }
            Value::String(text) => text.into(),
            other => other.as_str().into_owned().into(),
        },
        Form::Int => Value::I64(as_double(&value)? as i64),
        Form::Double => Value::F64(as_double(&value)?),
        Form::Json => json(&value).to_string().into(),
        Form::Time => {
            let after = Duration::try_from_secs_f64(as_double(&value)?).ok()?;
            let time = start.checked_add(after)?;
            humantime::format_rfc3339_millis(time).to_string().into()
        }
    })
}

fn json(value: &Value) -> Json {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::I64(count) => (*count).into(),
        Value::F64(number) => (*number).into(),
        Value::Array(Array::String(words)) => words.iter().map(|word| word.as_str()).collect(),
        other => match other.as_str() {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        },
    }
}
