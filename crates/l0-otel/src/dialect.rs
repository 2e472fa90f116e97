//! Dialect: the attributes that one backend reads beside those of the conventions. Data only: one more
//! dialect is no line of logic.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use l0_core::{Metadata, Quantity, Telemetry, Value as Number, keys};
use opentelemetry::{Array, KeyValue, Value};
use serde_json::{Map, Value as Json};

use crate::attributes::text;
use crate::numbers;

/// The attributes that one backend reads, as a table. [`LANGFUSE`](crate::LANGFUSE),
/// [`OPENINFERENCE`](crate::OPENINFERENCE) and [`SIGNOZ`](crate::SIGNOZ) are there; any other is a table of
/// yours:
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
/// Its attributes are set when a span ends, in the order of the rows. One that has the name of an attribute
/// that is there already is left out, so of several rows with the same name the first that has a value
/// counts.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Dialect {
    /// Its name.
    pub name: &'static str,
    /// Its attributes.
    pub rows: &'static [Row],
}

impl Dialect {
    /// Creates a dialect.
    #[must_use]
    pub const fn new(name: &'static str, rows: &'static [Row]) -> Self {
        Self { name, rows }
    }
}

/// One attribute of a [`Dialect`]. Only spans of attempts have it, unless [`on`](Self::on) says otherwise.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Row {
    /// Its name.
    pub attribute: &'static str,
    /// Where its value comes from.
    pub reads: Reads,
    /// As what it is sent.
    pub form: Form,
    /// Which spans have it.
    pub on: On,
}

/// Where the value of a [`Row`] comes from. What is unknown gives no attribute.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum Reads {
    /// A number of a measured attempt, or of a measured run.
    Quantity(&'static Quantity),
    /// What is left of the first number without the others: such as the input that no cache served.
    Difference(&'static Quantity, &'static [&'static Quantity]),
    /// An attribute of the same span, of this name.
    Attribute(&'static str),
    /// An attribute of the same span, each of whose words has another word here.
    Words(&'static str, &'static [(&'static str, &'static str)]),
    /// An entry of the metadata, cut to 256 bytes.
    Metadata(&'static str),
    /// This text.
    Constant(&'static str),
    /// A JSON object of those of these that are known; absent if none is.
    Object(&'static [(&'static str, Reads)]),
}

/// As what the value of a [`Row`] is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Form {
    /// As what it is.
    Own,
    /// A string; of a list its words, joined by commas.
    Text,
    /// An integer: times in whole seconds. What is no number is left out.
    Int,
    /// A double: times in seconds. What is no number is left out.
    Double,
    /// A string that is JSON.
    Json,
    /// A string that is a point in time, in ISO 8601: so many seconds after the start of the span. What is
    /// no number is left out.
    Time,
}

/// Which spans have the attribute of a [`Row`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum On {
    /// Those of attempts. What backends add up, such as usage, belongs here only.
    Attempts,
    /// Those of runs.
    Runs,
    /// Both.
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
    /// If there is no number of this name: at compile time, in a `const` or a `static`.
    #[must_use]
    pub const fn quantity(attribute: &'static str, name: &'static str) -> Self {
        Self::new(attribute, Reads::quantity(name))
    }

    /// Creates a row that reads another attribute of the same span.
    #[must_use]
    pub const fn attribute(attribute: &'static str, name: &'static str) -> Self {
        Self::new(attribute, Reads::Attribute(name))
    }

    /// Creates a row that reads an attribute of the same span, and says another word for each of its words.
    /// A word without another gives no attribute.
    #[must_use]
    pub const fn words(
        attribute: &'static str,
        name: &'static str,
        words: &'static [(&'static str, &'static str)],
    ) -> Self {
        Self::new(attribute, Reads::Words(name, words))
    }

    /// Creates a row that reads an entry of the metadata. It leaves without being listed.
    #[must_use]
    pub const fn metadata(attribute: &'static str, key: &'static str) -> Self {
        Self::new(attribute, Reads::Metadata(key))
    }

    /// Creates a row that is always the same.
    #[must_use]
    pub const fn constant(attribute: &'static str, value: &'static str) -> Self {
        Self::new(attribute, Reads::Constant(value))
    }

    /// Creates a row that is a JSON object.
    #[must_use]
    pub const fn object(attribute: &'static str, fields: &'static [(&'static str, Reads)]) -> Self {
        Self::new(attribute, Reads::Object(fields))
    }

    /// Sets as what it is sent. Default: as what it is.
    #[must_use]
    pub const fn form(mut self, form: Form) -> Self {
        self.form = form;
        self
    }

    /// Sets which spans have it. Default: those of attempts.
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
    /// If there is no number of this name: at compile time, in a `const` or a `static`.
    #[must_use]
    pub const fn quantity(name: &str) -> Self {
        Self::Quantity(quantity(name))
    }

    fn value(self, span: &Ended<'_>) -> Option<Value> {
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
                // By name, whatever a map of JSON keeps of an order in this build.
                let known = Map::from_iter(BTreeMap::from_iter(known));
                (!known.is_empty())
                    .then(|| Json::Object(known).to_string())?
                    .into()
            }
        })
    }
}

/// Looks a number up.
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

/// What is known of a span that ends.
pub(crate) struct Ended<'a> {
    pub(crate) known: &'a [KeyValue],
    pub(crate) telemetry: Option<&'a Telemetry>,
    pub(crate) metadata: &'a Metadata,
    pub(crate) start: SystemTime,
}

impl Ended<'_> {
    fn attribute(&self, name: &str) -> Option<&Value> {
        let mut known = self.known.iter().rev();
        known
            .find(|one| one.key.as_str() == name)
            .map(|one| &one.value)
    }
}

/// Returns what these rows add to a span.
pub(crate) fn attributes(rows: &[&'static Row], on: On, span: &Ended<'_>) -> Vec<KeyValue> {
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

/// A number as it is sent; none if it is unknown, or more than one.
fn number(quantity: &Quantity, telemetry: &Telemetry) -> Option<Value> {
    Some(match numbers::one(quantity, telemetry)? {
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
