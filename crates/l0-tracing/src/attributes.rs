//! The fields built from a run's metadata and from the descriptions of its sources.

use std::borrow::Cow;

use l0_core::keys::{self, cut};
use l0_core::{Description, KeyList, Metadata, RunInfo, SourceInfo};
use serde_json::Value as Json;

use crate::fields::{Fields, Value};
use crate::names::{self, PARAMETERS};

/// The operation if neither metadata nor the source names one.
const DEFAULT_OPERATION: &str = "chat";

/// Sets the fields of a run's span that come from its metadata.
pub(crate) fn set_of_run<'a>(fields: &mut Fields<'a>, metadata: &'a Metadata, listed: &'a KeyList) {
    fields.set_known(
        names::CONVERSATION_ID,
        value(metadata, keys::CONVERSATION_ID),
    );
    set_listed(fields, metadata, listed);
}

fn set_listed<'a>(fields: &mut Fields<'a>, metadata: &'a Metadata, listed: &'a KeyList) {
    for (name, value) in listed.pick(metadata) {
        fields.set(name, value);
    }
}

/// Sets the fields of an attempt's span at its start.
pub(crate) fn set_of_attempt<'a>(
    fields: &mut Fields<'a>,
    run: &'a RunInfo,
    source: &'a SourceInfo,
    listed: &'a KeyList,
) {
    let metadata = &source.metadata;
    let Description {
        server_address,
        server_port,
        streaming,
        parameters,
        ..
    } = &source.description;
    let operation = value(metadata, keys::OPERATION).unwrap_or(DEFAULT_OPERATION.into());
    let model = value(metadata, keys::MODEL);
    let title = match &model {
        Some(model) => format!("{operation} {model}"),
        None => operation.clone().into_owned(),
    };
    fields.set(names::OTEL_NAME, title);
    fields.set(names::OTEL_KIND, "client");
    fields.set(names::OPERATION, operation);
    fields.set_known(names::PROVIDER, value(metadata, keys::PROVIDER));
    fields.set_known(names::REQUEST_MODEL, model);
    fields.set(names::REQUEST_STREAM, streaming.unwrap_or(!run.is_call()));
    fields.set(names::SESSION_ID, text(run.id()));
    fields.set_known(
        names::CONVERSATION_ID,
        value(metadata, keys::CONVERSATION_ID),
    );
    let address = server_address.as_deref();
    if let Some(address) = address.filter(|address| !address.is_empty()) {
        fields.set(names::SERVER_ADDRESS, text(address));
        fields.set_known(names::SERVER_PORT, *server_port);
    }
    set_listed(fields, metadata, listed);
    for parameter in &PARAMETERS {
        let value = parameters.get(parameter.name);
        // The application's metadata takes precedence over the source's description.
        if let Some(value) = value.filter(|_| !fields.has(parameter.field)) {
            fields.set_known(parameter.field, of_parameter(value, parameter.is_double));
        }
    }
}

/// Returns a parameter of a request as a value, or `None` if it is null.
fn of_parameter(value: &Json, is_double: bool) -> Option<Value<'_>> {
    Some(match value {
        Json::Null => return None,
        Json::Bool(flag) => (*flag).into(),
        Json::Number(number) => match number.as_i64() {
            Some(whole) if !is_double => whole.into(),
            _ => number.as_f64()?.into(),
        },
        Json::String(word) => text(word).into(),
        other => text(&other.to_string()).to_owned().into(),
    })
}

/// Returns a list as JSON, because `tracing` has no lists.
pub(crate) fn list<S: AsRef<str>>(items: &[S]) -> String {
    let items = items
        .iter()
        .map(AsRef::as_ref)
        .map(|item| Json::from(text(item)));
    Json::Array(items.collect()).to_string()
}

/// Returns a text, cut to the maximum length.
pub(crate) fn text(text: &str) -> &str {
    cut(text, KeyList::MAX_VALUE)
}

/// Returns an entry of metadata, or `None` if it is empty.
pub(crate) fn value<'a>(metadata: &'a Metadata, key: &str) -> Option<Cow<'a, str>> {
    let value = match keys::text(metadata, key)? {
        Cow::Borrowed(value) => Cow::Borrowed(text(value)),
        Cow::Owned(value) => Cow::Owned(text(&value).to_owned()),
    };
    (!value.is_empty()).then_some(value)
}
