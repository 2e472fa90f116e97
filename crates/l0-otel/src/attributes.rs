//! Attributes: what becomes of a run's metadata, and of what its sources say of themselves.

use std::sync::Arc;

use l0_core::keys::{self, cut};
use l0_core::{Description, KeyList, KeyRules, Metadata, Quantity, RunInfo, SourceInfo};
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use serde_json::Value as Json;

use crate::conventions::{Conventions, Keys, Table};
use crate::numbers::{self, SpanNumber};

/// Which keys of metadata may become attributes.
pub(crate) const RULES: KeyRules = KeyRules::new(
    |key| (!key.is_empty()).then(|| key.to_owned()),
    "a name of at least one character",
)
.reserved(|name| {
    // Whichever of them is chosen.
    let mut all = Conventions::ALL.into_iter();
    all.any(|conventions| is_sent(conventions.table(), name))
});

/// Returns whether an attribute of this name is sent whatever the metadata.
fn is_sent(conventions: &Table, name: &str) -> bool {
    let mut labels = Quantity::ALL.iter().flat_map(|one| one.labels());
    let of_runs = SpanNumber::of_runs(conventions).into_iter();
    let mut numbers = of_runs.chain(SpanNumber::of_attempts(conventions));
    conventions.keys.all().contains(&name)
        || numbers.any(|number| number.key.as_str() == name)
        || labels.any(|label| numbers::label(conventions, label) == name)
}

/// The attributes of what is asked of one source.
#[derive(Debug)]
pub(crate) struct SourceAttributes {
    /// The operation and the model: the name of its attempts' spans.
    pub(crate) title: String,
    /// Those of every point: first those of the conventions, then the listed ones.
    pub(crate) of_points: Vec<KeyValue>,
    /// How many of them are of the conventions.
    named: usize,
}

impl SourceAttributes {
    pub(crate) fn new(conventions: &Table, metadata: &Metadata, listed: &KeyList) -> Self {
        let Keys {
            operation,
            provider,
            request_model,
            ..
        } = conventions.keys;
        let done = value(metadata, keys::OPERATION);
        let done = done.unwrap_or_else(|| conventions.default_operation.into());
        let model = value(metadata, keys::MODEL);
        let title = match &model {
            Some(model) => format!("{} {}", done.as_str(), model.as_str()),
            None => done.as_str().to_owned(),
        };
        let mut of_points = vec![KeyValue::new(operation, done)];
        let asked = [
            (provider, value(metadata, keys::PROVIDER)),
            (request_model, model),
        ];
        for (name, value) in asked {
            of_points.extend(value.map(|value| KeyValue::new(name, value)));
        }
        let named = of_points.len();
        of_points.extend(pick(metadata, listed));
        Self {
            title,
            of_points,
            named,
        }
    }

    /// Returns those of the span of an attempt at its start, but those that tell attempts apart.
    /// `listed` are the keys for spans, those for points included.
    pub(crate) fn of_attempt(
        &self,
        conventions: &Table,
        run: &RunInfo,
        source: &SourceInfo,
        listed: &KeyList,
    ) -> Vec<KeyValue> {
        let Keys {
            request_stream,
            conversation_id,
            server_address,
            server_port,
            session_id,
            ..
        } = conventions.keys;
        let Description {
            server_address: address,
            server_port: port,
            streaming,
            parameters,
            ..
        } = &source.description;
        let mut attributes = self.of_points[..self.named].to_vec();
        let streaming = streaming.unwrap_or(!run.is_call());
        attributes.push(KeyValue::new(request_stream, streaming));
        attributes.push(KeyValue::new(session_id, text(run.id())));
        let conversation = value(&source.metadata, keys::CONVERSATION_ID);
        attributes.extend(conversation.map(|id| KeyValue::new(conversation_id, id)));
        if let Some(address) = address.as_deref().filter(|address| !address.is_empty()) {
            attributes.push(KeyValue::new(server_address, text(address)));
            attributes.extend(port.map(|port| KeyValue::new(server_port, i64::from(port))));
        }
        attributes.extend(pick(&source.metadata, listed));
        for (name, asked) in parameters {
            let mut others = conventions.other_parameters.iter();
            let other = others.find(|(parameter, _)| parameter == name);
            let key = other.map_or_else(
                || format!("{}{name}", conventions.parameters),
                |(_, key)| (*key).to_owned(),
            );
            // What the application says of it goes before what the source says.
            let known = attributes.iter().any(|one| one.key.as_str() == key);
            if let (Some(value), false) = (parameter(conventions, name, asked), known) {
                attributes.push(KeyValue::new(key, value));
            }
        }
        attributes
    }
}

/// Returns the attributes of a run's span that come from its metadata.
pub(crate) fn of_run(conventions: &Table, metadata: &Metadata, listed: &KeyList) -> Vec<KeyValue> {
    let conversation = value(metadata, keys::CONVERSATION_ID);
    let conversation = conversation.map(|id| KeyValue::new(conventions.keys.conversation_id, id));
    conversation
        .into_iter()
        .chain(pick(metadata, listed))
        .collect()
}

/// Picks the listed entries of metadata.
fn pick<'a>(metadata: &'a Metadata, listed: &'a KeyList) -> impl Iterator<Item = KeyValue> + 'a {
    // Shared, since every point gets them.
    let shared = |text: &str| Arc::<str>::from(text);
    let picked = listed.pick(metadata);
    picked.map(move |(name, value)| KeyValue::new(Key::from(shared(name)), shared(&value)))
}

/// How many of a list that is a parameter are sent.
const MAX_ITEMS: usize = 16;

/// Returns a parameter of a request as an attribute's value; none if it is null.
fn parameter(conventions: &Table, name: &str, asked: &Json) -> Option<Value> {
    let words = |one: &Json| one.as_str().map(text);
    Some(match asked {
        Json::Null => return None,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) if !conventions.doubles.contains(&name) => whole.into(),
            _ => number.as_f64()?.into(),
        },
        Json::Array(list) if list.iter().all(Json::is_string) => {
            let words = list.iter().take(MAX_ITEMS).filter_map(words);
            Value::Array(Array::String(words.collect()))
        }
        Json::String(word) => text(word).into(),
        other => text(&other.to_string()).into(),
    })
}

/// Returns a text as the value of an attribute, cut.
pub(crate) fn text(text: &str) -> StringValue {
    Arc::<str>::from(cut(text, KeyList::MAX_VALUE)).into()
}

/// Returns an entry of metadata; none if it is empty.
pub(crate) fn value(metadata: &Metadata, key: &str) -> Option<StringValue> {
    let value = keys::text(metadata, key)?;
    (!value.is_empty()).then(|| text(&value))
}
