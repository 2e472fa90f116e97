//! A subscriber that stores spans and events.

#![allow(dead_code, reason = "no test uses all of it")]

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use l0_core::{Monitoring, keys};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Dispatch, Event, Level, Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;

pub(crate) type Fields = BTreeMap<String, String>;

/// A span with the data recorded so far.
#[derive(Debug, Clone)]
pub(crate) struct Span {
    pub(crate) name: &'static str,
    pub(crate) target: &'static str,
    pub(crate) level: Level,
    /// The index of its parent among all spans.
    pub(crate) parent: Option<usize>,
    pub(crate) fields: Fields,
    pub(crate) is_closed: bool,
}

/// An event.
#[derive(Debug, Clone)]
pub(crate) struct LogEvent {
    pub(crate) level: Level,
    pub(crate) target: &'static str,
    /// The index of its span.
    pub(crate) span: Option<usize>,
    pub(crate) fields: Fields,
}

impl LogEvent {
    pub(crate) fn name(&self) -> &str {
        &self.fields["message"]
    }
}

/// The spans and events that a subscriber received. Clones share them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Kept {
    spans: Arc<Mutex<Vec<Span>>>,
    events: Arc<Mutex<Vec<LogEvent>>>,
}

impl Kept {
    pub(crate) fn dispatch(&self) -> Dispatch {
        Dispatch::new(tracing_subscriber::registry().with(self.clone()))
    }

    pub(crate) fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap().clone()
    }

    pub(crate) fn events(&self) -> Vec<LogEvent> {
        self.events.lock().unwrap().clone()
    }

    /// Returns the only span of this name.
    pub(crate) fn only(&self, name: &str) -> Span {
        let spans = self.spans();
        let mut spans = spans.into_iter().filter(|span| span.name == name);
        let (Some(span), None) = (spans.next(), spans.next()) else {
            panic!("there is not one {name}");
        };
        span
    }
}

/// Returns the index of a span among all spans.
struct Place(usize);

fn place<S>(context: &Context<'_, S>, id: &Id) -> usize
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let span = context.span(id).unwrap();
    let extensions = span.extensions();
    extensions.get::<Place>().unwrap().0
}

struct Visitor<'a>(&'a mut Fields);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().to_owned(), value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name().to_owned(), format!("{value:?}"));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Kept {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let span = context.span(id).unwrap();
        let parent = span.parent();
        let parent = parent.map(|parent| parent.extensions().get::<Place>().unwrap().0);
        let mut fields = Fields::new();
        attributes.record(&mut Visitor(&mut fields));
        let (name, target, level) = of(attributes.metadata());
        let mut spans = self.spans.lock().unwrap();
        span.extensions_mut().insert(Place(spans.len()));
        spans.push(Span {
            name,
            target,
            level,
            parent,
            fields,
            is_closed: false,
        });
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let span = &mut self.spans.lock().unwrap()[place(&context, id)];
        assert!(!span.is_closed);
        values.record(&mut Visitor(&mut span.fields));
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let span = context.event_span(event);
        let span = span.map(|span| span.extensions().get::<Place>().unwrap().0);
        let mut fields = Fields::new();
        event.record(&mut Visitor(&mut fields));
        let (_, target, level) = of(event.metadata());
        let event = LogEvent {
            level,
            target,
            span,
            fields,
        };
        self.events.lock().unwrap().push(event);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let span = &mut self.spans.lock().unwrap()[place(&context, &id)];
        assert!(!std::mem::replace(&mut span.is_closed, true));
    }
}

fn of(metadata: &'static Metadata<'static>) -> (&'static str, &'static str, Level) {
    (metadata.name(), metadata.target(), *metadata.level())
}

/// Adds the model and the provider of the runs of these tests.
pub(crate) fn with_model(monitoring: Monitoring) -> Monitoring {
    monitoring
        .metadata(keys::MODEL, "gpt-4o")
        .metadata(keys::PROVIDER, "openai")
}
