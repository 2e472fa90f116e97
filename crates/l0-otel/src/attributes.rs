//! Attributes: what a run's metadata becomes.

use std::borrow::Cow;
use std::sync::Arc;

use l0_core::{RunInfo, keys};
use opentelemetry::{Key, KeyValue, StringValue};

use crate::conventions::{Conventions, Keys, Metric};

/// How much of a text becomes the value of an attribute, in bytes.
pub(crate) const MAX_TEXT: usize = 256;

/// The keys of metadata that an application wants as attributes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Chosen(Vec<(String, Key)>);

impl Chosen {
    /// Adds a key, unless it is there, its entry leaves under a name of the conventions anyway, or it
    /// could be taken for one of those names.
    pub(crate) fn add(&mut self, conventions: &Conventions, key: String) {
        const NAMED: [&str; 4] = [
            keys::MODEL,
            keys::PROVIDER,
            keys::OPERATION,
            keys::CONVERSATION_ID,
        ];
        let reserved = &mut conventions.reserved.iter();
        let taken = key.is_empty()
            || NAMED.contains(&&*key)
            || reserved.any(|start| key.starts_with(start))
            || self.0.iter().any(|(chosen, _)| *chosen == key);
        if !taken {
            let name = Arc::<str>::from(&*key).into();
            self.0.push((key, name));
        }
    }

    /// Those that are not in the other one.
    pub(crate) fn without(mut self, other: &Self) -> Self {
        let repeated = |key: &String| other.0.iter().any(|(chosen, _)| chosen == key);
        self.0.retain(|(key, _)| !repeated(key));
        self
    }

    fn of<'a>(&'a self, run: &'a RunInfo) -> impl Iterator<Item = KeyValue> + 'a {
        self.0
            .iter()
            .filter_map(|(key, name)| Some(KeyValue::new(name.clone(), value(run, key)?)))
    }
}

/// The attributes that one run has from its start on.
#[derive(Debug)]
pub(crate) struct RunAttributes {
    /// What is done, and which model does it: the span's name.
    pub(crate) title: String,
    /// Those that the conventions name.
    named: Vec<KeyValue>,
    /// Those that the application chose.
    chosen: Vec<KeyValue>,
}

impl RunAttributes {
    pub(crate) fn new(conventions: &Conventions, run: &RunInfo, chosen: &Chosen) -> Self {
        let Keys {
            operation,
            provider,
            request_model,
            ..
        } = conventions.keys;
        let done = value(run, keys::OPERATION);
        let done = done.unwrap_or_else(|| conventions.default_operation.into());
        let model = value(run, keys::MODEL);
        let title = match &model {
            Some(model) => format!("{} {}", done.as_str(), model.as_str()),
            None => done.as_str().to_owned(),
        };
        let mut named = vec![KeyValue::new(operation, done)];
        let asked = [
            (provider, value(run, keys::PROVIDER)),
            (request_model, model),
        ];
        for (name, value) in asked {
            named.extend(value.map(|value| KeyValue::new(name, value)));
        }
        Self {
            title,
            named,
            chosen: chosen.of(run).collect(),
        }
    }

    /// Those of a point of this metric, of which `more` are known besides.
    pub(crate) fn of_point(&self, metric: &Metric, more: &[KeyValue]) -> Vec<KeyValue> {
        self.named
            .iter()
            .chain(more)
            .filter(|known| metric.attributes.contains(&known.key.as_str()))
            .chain(&self.chosen)
            .cloned()
            .collect()
    }

    /// Those of the span at its start; `chosen` are for spans only.
    pub(crate) fn of_span(
        &self,
        conventions: &Conventions,
        run: &RunInfo,
        chosen: &Chosen,
    ) -> Vec<KeyValue> {
        let Keys {
            request_stream,
            conversation_id,
            ..
        } = conventions.keys;
        let mut attributes = vec![KeyValue::new(request_stream, true)];
        let conversation = value(run, keys::CONVERSATION_ID);
        attributes.extend(conversation.map(|id| KeyValue::new(conversation_id, id)));
        attributes.extend(self.named.iter().chain(&self.chosen).cloned());
        attributes.extend(chosen.of(run));
        attributes
    }
}

/// A text as the value of an attribute.
pub(crate) fn text(text: &str) -> StringValue {
    Arc::<str>::from(&text[..text.floor_char_boundary(MAX_TEXT)]).into()
}

/// An entry of the metadata of a run; none if it is empty.
fn value(run: &RunInfo, key: &str) -> Option<StringValue> {
    keys::text(run.metadata(), key)
        .filter(|value| !value.is_empty())
        .map(|value: Cow<'_, str>| text(&value))
}
