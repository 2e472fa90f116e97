//! The attributes built from a run's metadata and from the descriptions of its sources.

use std::sync::Arc;

use l0_core::keys::{self, cut};
use l0_core::{Description, KeyList, KeyRules, Metadata, Quantity, RunInfo, SourceInfo};
use opentelemetry::{Array, Key, KeyValue, StringValue, Value};
use serde_json::Value as Json;

use crate::conventions::{Conventions, Keys, Table};
use crate::numbers::{self, SpanNumber};

/// The rules for metadata keys that can become attributes.
pub(crate) const RULES: KeyRules = KeyRules::new(
    |key| (!key.is_empty()).then(|| key.to_owned()),
    "a name of at least one character",
)
.reserved(|name| {
    // Names of every version are reserved, so a list of keys stays valid when the version changes.
    let mut all = Conventions::ALL.into_iter();
    all.any(|conventions| is_sent(conventions.table(), name))
});

/// Returns `true` if this crate sends an attribute of this name regardless of the metadata.
fn is_sent(conventions: &Table, name: &str) -> bool {
    let mut labels = Quantity::ALL.iter().flat_map(|one| one.labels());
    let of_runs = SpanNumber::of_runs(conventions).into_iter();
    let mut numbers = of_runs.chain(SpanNumber::of_attempts(conventions));
    conventions.keys.all().contains(&name)
        || numbers.any(|number| number.key.as_str() == name)
        || labels.any(|label| numbers::label(conventions, label) == name)
}

/// The attributes of one source.
#[derive(Debug)]
pub(crate) struct SourceAttributes {
    /// The operation and the model: the name of the spans of its attempts.
    pub(crate) title: String,
    /// The attributes of every point: first those of the conventions, then the listed metadata.
    pub(crate) of_points: Vec<KeyValue>,
    /// The number of `of_points` that belong to the conventions.
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
        let values = [
            (provider, value(metadata, keys::PROVIDER)),
            (request_model, model),
        ];
        for (name, value) in values {
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

    /// Returns the attributes of an attempt's span at its start, except the attempt and source numbers.
    /// `listed` are the keys for spans, including the keys for points.
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
        for (name, requested) in parameters {
            let mut others = conventions.other_parameters.iter();
            let other = others.find(|(parameter, _)| parameter == name);
            let key = other.map_or_else(
                || format!("{}{name}", conventions.parameters),
                |(_, key)| (*key).to_owned(),
            );
            // The application's metadata takes precedence over the source's description.
            let known = attributes.iter().any(|one| one.key.as_str() == key);
            if let (Some(value), false) = (parameter(conventions, name, requested), known) {
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

/// Returns the listed entries of metadata.
fn pick<'a>(metadata: &'a Metadata, listed: &'a KeyList) -> impl Iterator<Item = KeyValue> + 'a {
    // Shared, because every point gets a clone.
    let shared = |text: &str| Arc::<str>::from(text);
    let picked = listed.pick(metadata);
    picked.map(move |(name, value)| KeyValue::new(Key::from(shared(name)), shared(&value)))
}

/// The maximum number of items sent of a parameter that is a list.
const MAX_ITEMS: usize = 16;

/// Returns a parameter of a request as an attribute value, or `None` if it is null.
fn parameter(conventions: &Table, name: &str, requested: &Json) -> Option<Value> {
    let words = |one: &Json| one.as_str().map(text);
    Some(match requested {
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

/// Returns a text as an attribute value, cut to the maximum length.
pub(crate) fn text(text: &str) -> StringValue {
    Arc::<str>::from(cut(text, KeyList::MAX_VALUE)).into()
}

/// Returns an entry of metadata, or `None` if it is empty.
pub(crate) fn value(metadata: &Metadata, key: &str) -> Option<StringValue> {
    let value = keys::text(metadata, key)?;
    (!value.is_empty()).then(|| text(&value))
}
