//! Fields: the values that a span or an event is given, by the names of its call site.

use std::borrow::Cow;

use tracing::{Event, Id, Span};
use tracing_core::field::{Field, Value as FieldValue, ValueSet};

use crate::sites::Site;

/// The value of a field. Whole numbers are signed: `tracing-opentelemetry` sends others as text.
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

/// How many values are given at once: an array has a fixed length.
const AT_ONCE: usize = 32;

/// Values for the fields of one call site.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    site: &'static Site,
    values: Vec<(&'static Field, Value<'a>)>,
    /// Where the next field is looked for first: they are filled in the order of their names.
    next: usize,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(site: &'static Site) -> Self {
        Self {
            site,
            values: Vec::with_capacity(AT_ONCE),
            next: 0,
        }
    }

    /// Sets a field. One that the call site does not have is passed over.
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

    /// Returns whether a field is set.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(field, _)| field.name() == name)
    }

    /// Creates a span: below this one, or else below the current one.
    pub(crate) fn span(&self, parent: Option<Id>) -> Span {
        let (first, rest) = self.values.split_at(self.values.len().min(AT_ONCE));
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

    /// Records them on a span of their call site.
    pub(crate) fn record(&self, span: &Span) {
        self.record_each(span, &self.values);
    }

    fn record_each(&self, span: &Span, values: &[(&'static Field, Value<'_>)]) {
        for some in values.chunks(AT_ONCE) {
            self.with(some, |values| {
                span.record_all(values);
            });
        }
    }

    /// Sends an event, in the current span.
    pub(crate) fn event(&self) {
        self.with(&self.values, |values| {
            Event::dispatch(self.site.metadata(), values);
        });
    }

    /// Calls `f` with the first of some values.
    fn with<R>(
        &self,
        values: &[(&'static Field, Value<'_>)],
        f: impl FnOnce(&ValueSet<'_>) -> R,
    ) -> R {
        // Those without a value are no values.
        let mut array = [(&self.site.fields()[0], None); AT_ONCE];
        for (place, (field, value)) in array.iter_mut().zip(values) {
            *place = (field, Some(value.of_field()));
        }
        // The macros of `tracing` call this too.
        f(&self.site.metadata().fields().value_set(&array))
    }
}
