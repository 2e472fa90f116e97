//! The metadata keys that adapters know, and how an entry is read as a label.
//!
//! Metadata is free-form; these keys have a meaning to adapters, which map them to the names that
//! their systems use. All of it is part of JSON, CSV and logs. Through Prometheus, `StatsD`, Sentry
//! tags and OpenTelemetry no other key leaves unless the adapter is told to send it.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

/// The model asked for, such as `gpt-4`.
pub const MODEL: &str = "model";
/// Who serves the model, such as `openai`.
pub const PROVIDER: &str = "provider";
/// What is done, such as `chat`.
pub const OPERATION: &str = "operation";
/// The application's own endpoint, such as `/chat`.
pub const ENDPOINT: &str = "endpoint";
/// The conversation that the run belongs to.
pub const CONVERSATION_ID: &str = "conversation_id";

/// An entry of metadata as the text of a label or tag: a string as it is, numbers and booleans as
/// JSON writes them, lists and maps as compact JSON. Absent if there is no such entry, or if it is
/// null.
///
/// ```
/// use std::collections::BTreeMap;
/// use l0_core::keys;
///
/// let metadata = BTreeMap::from([(keys::MODEL.to_owned(), "gpt-4".into())]);
/// assert_eq!(keys::text(&metadata, keys::MODEL).as_deref(), Some("gpt-4"));
/// assert_eq!(keys::text(&metadata, keys::ENDPOINT), None);
/// ```
#[must_use]
pub fn text<'a>(metadata: &'a BTreeMap<String, Value>, key: &str) -> Option<Cow<'a, str>> {
    match metadata.get(key)? {
        Value::Null => None,
        Value::String(text) => Some(Cow::Borrowed(text)),
        value => Some(Cow::Owned(value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_are_read_as_labels() {
        for (value, expected) in [
            (json!("gpt-4"), Some("gpt-4")),
            (json!(""), Some("")),
            (json!(4), Some("4")),
            (json!(0.5), Some("0.5")),
            (json!(true), Some("true")),
            (json!(null), None),
            (json!(["a", 1]), Some("[\"a\",1]")),
            (
                json!({ "tier": { "name": "free" } }),
                Some("{\"tier\":{\"name\":\"free\"}}"),
            ),
        ] {
            let metadata = BTreeMap::from([("key".to_owned(), value)]);
            assert_eq!(text(&metadata, "key").as_deref(), expected);
            assert_eq!(text(&metadata, "other"), None);
        }
    }
}
