//! The field values of a span or an event, set by field name.

use std::borrow::Cow;

use tracing::{Event, Id, Span};
use tracing_core::field::{Field, Value as FieldValue, ValueSet};

use crate::sites::Site;

/// The value of a field. Whole numbers are signed, because `tracing-opentelemetry` sends unsigned ones as text.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    Borrowed(&'a str),
    Owned(String),
    Whole(i64),
    Double(f64),
    Flag(bool),
}

impl Value<'_> {
    fn of_field(&self) -> &dyn FieldValue {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
            Self::Whole(number) => number,
            Self::Double(number) => number,
            Self::Flag(flag) => flag,
        }
    }
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Self {
        Self::Borrowed(text)
    }
}

impl From<String> for Value<'_> {
    fn from(text: String) -> Self {
        Self::Owned(text)
    }
}

impl<'a> From<Cow<'a, str>> for Value<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => Self::Borrowed(text),
            Cow::Owned(text) => Self::Owned(text),
        }
    }
}

impl From<u64> for Value<'_> {
    fn from(number: u64) -> Self {
        Self::Whole(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<u32> for Value<'_> {
    fn from(number: u32) -> Self {
        Self::Whole(number.into())
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Self::Whole(number.into())
    }
}

impl From<i64> for Value<'_> {
    fn from(number: i64) -> Self {
        Self::Whole(number)
    }
}

impl From<f64> for Value<'_> {
    fn from(number: f64) -> Self {
        Self::Double(number)
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// The maximum number of values recorded at once, which is the length of an array.
const BATCH: usize = 32;

/// Values for the fields of one call site.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    site: &'static Site,
    values: Vec<(&'static Field, Value<'a>)>,
    /// The index at which the search for the next field starts. Fields are usually set in their declared order.
    next: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(site: &'static Site) -> Self {
        Self {
            site,
            values: Vec::with_capacity(BATCH),
            next: 0,
        }
    }

    /// Sets a field. Ignores a field that the call site does not have.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value<'a>>) {
        let fields = self.site.fields();
        let (before, after) = fields.split_at(self.next.min(fields.len()));
        let found = after
            .iter()
            .chain(before)
            .find(|field| field.name() == name);
        if let Some(field) = found {
            self.next = field.index() + 1;
            self.values.push((field, value.into()));
        }
    }

    /// Sets a field, if its value is known.
    pub(crate) fn set_known(&mut self, name: &str, value: Option<impl Into<Value<'a>>>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    /// Returns `true` if a field is set.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(field, _)| field.name() == name)
    }

    /// Creates a span below the given parent, or below the current span if there is none.
    pub(crate) fn span(&self, parent: Option<Id>) -> Span {
        let (first, rest) = self.values.split_at(self.values.len().min(BATCH));
        let span = self.with(first, |values| {
            let metadata = self.site.metadata();
            match parent {
                Some(parent) => Span::child_of(parent, metadata, values),
                None => Span::new(metadata, values),
            }
        });
        self.record_each(&span, rest);
        span
    }

    /// Records the values on a span of their call site.
    pub(crate) fn record(&self, span: &Span) {
        self.record_each(span, &self.values);
    }

    fn record_each(&self, span: &Span, values: &[(&'static Field, Value<'_>)]) {
        for some in values.chunks(BATCH) {
            self.with(some, |values| {
                span.record_all(values);
            });
        }
    }

    /// Emits an event in the current span.
    pub(crate) fn event(&self) {
        self.with(&self.values, |values| {
            Event::dispatch(self.site.metadata(), values);
        });
    }

    /// Calls `f` with the first [`BATCH`] values.
    fn with<R>(
        &self,
        values: &[(&'static Field, Value<'_>)],
        f: impl FnOnce(&ValueSet<'_>) -> R,
    ) -> R {
        // Entries without a value are ignored.
        let mut array = [(&self.site.fields()[0], None); BATCH];
        for (place, (field, value)) in array.iter_mut().zip(values) {
            *place = (field, Some(value.of_field()));
        }
        // The macros of `tracing` call this too.
        f(&self.site.metadata().fields().value_set(&array))
    }
}
