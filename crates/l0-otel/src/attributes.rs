//! Attributes: what a run's metadata becomes.

use std::sync::Arc;

use l0_core::keys::{self, cut};
use l0_core::{KeyList, KeyRules, Quantity, RunInfo};
use opentelemetry::{Key, KeyValue, StringValue};

use crate::conventions::{CURRENT, Conventions, Keys};
use crate::numbers::{self, SpanNumber};

/// Which keys of metadata may become attributes.
pub(crate) const RULES: KeyRules = KeyRules::new(
    |key| (!key.is_empty()).then(|| key.to_owned()),
    "a name of at least one character",
)
.reserved(|name| is_sent(CURRENT, name));

/// Returns whether an attribute of this name is sent whatever the metadata.
fn is_sent(conventions: &Conventions, name: &str) -> bool {
    let mut labels = Quantity::ALL.iter().filter_map(Quantity::label);
    conventions.keys.all().contains(&name)
        || SpanNumber::all(conventions)
            .iter()
            .any(|number| number.key.as_str() == name)
        || labels.any(|label| numbers::label(conventions, label) == name)
}

/// The attributes that one run has from its start on.
#[derive(Debug)]
pub(crate) struct RunAttributes {
    /// The operation and the model: the span's name.
    pub(crate) title: String,
    /// Those of every point of the run: first those of the conventions, then the listed ones.
    pub(crate) of_points: Vec<KeyValue>,
    /// How many of them are of the conventions.
    named: usize,
}

impl RunAttributes {
    pub(crate) fn new(conventions: &Conventions, run: &RunInfo, listed: &KeyList) -> Self {
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
        let mut of_points = vec![KeyValue::new(operation, done)];
        let asked = [
            (provider, value(run, keys::PROVIDER)),
            (request_model, model),
        ];
        for (name, value) in asked {
            of_points.extend(value.map(|value| KeyValue::new(name, value)));
        }
        let named = of_points.len();
        of_points.extend(pick(run, listed));
        Self {
            title,
            of_points,
            named,
        }
    }

    /// Returns those of the span at its start; `listed` are the keys for spans, those for points
    /// included.
    pub(crate) fn of_span(
        &self,
        conventions: &Conventions,
        run: &RunInfo,
        listed: &KeyList,
    ) -> Vec<KeyValue> {
        let Keys {
            request_stream,
            conversation_id,
            session_id,
            ..
        } = conventions.keys;
        let mut attributes = self.of_points[..self.named].to_vec();
        attributes.push(KeyValue::new(request_stream, true));
        attributes.push(KeyValue::new(session_id, text(run.id())));
        let conversation = value(run, keys::CONVERSATION_ID);
        attributes.extend(conversation.map(|id| KeyValue::new(conversation_id, id)));
        attributes.extend(pick(run, listed));
        attributes
    }
}

/// Picks the listed entries of a run's metadata.
fn pick<'a>(run: &'a RunInfo, listed: &'a KeyList) -> impl Iterator<Item = KeyValue> + 'a {
    // Shared, since every point gets them.
    let shared = |text: &str| Arc::<str>::from(text);
    let picked = listed.pick(run.metadata());
    picked.map(move |(name, value)| KeyValue::new(Key::from(shared(name)), shared(&value)))
}

/// Returns a text as the value of an attribute, cut.
pub(crate) fn text(text: &str) -> StringValue {
    Arc::<str>::from(cut(text, KeyList::MAX_VALUE)).into()
}

/// Returns an entry of the metadata of a run; none if it is empty.
fn value(run: &RunInfo, key: &str) -> Option<StringValue> {
    let value = keys::text(run.metadata(), key)?;
    (!value.is_empty()).then(|| text(&value))
}
