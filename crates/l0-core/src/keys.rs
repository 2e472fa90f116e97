//! Keys: the metadata keys that adapters know, how an entry reads as a label, and the list of keys that
//! an adapter sends.
//!
//! Metadata is free-form. Adapters give these keys a meaning and map them to the names that their
//! systems use. JSON, CSV and logs contain all metadata. Prometheus, `StatsD`, Sentry tags and
//! OpenTelemetry send no other key unless you configure the adapter to send it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use crate::failure::char_boundary;
use crate::metadata::Metadata;
use crate::redact::{self, REDACTED};

/// The requested model, such as `gpt-4`.
pub const MODEL: &str = "model";
/// The provider that serves the model, such as `openai`.
pub const PROVIDER: &str = "provider";
/// The operation, such as `chat`.
pub const OPERATION: &str = "operation";
/// The application's own endpoint, such as `/chat`. If it is a URL or a part of one, its user, password,
/// query and fragment are removed before any observer or exporter sees it.
pub const ENDPOINT: &str = "endpoint";
/// The conversation that the run belongs to.
pub const CONVERSATION_ID: &str = "conversation_id";
/// The name of the agent that makes the request, such as `researcher`.
pub const AGENT_NAME: &str = "agent_name";
/// The name of the pipeline, chain or workflow that the run is a step of, such as `summaries`.
pub const PIPELINE_NAME: &str = "pipeline_name";

/// Reads a metadata entry as the text of a label or tag. A string is returned as it is, a number or
/// boolean as JSON writes it, a list or map as compact JSON. Returns `None` if the entry is missing or
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

/// Removes possible secrets from an endpoint that is a URL.
pub(crate) fn redact_endpoint(metadata: &mut Metadata) {
    if let Some(redacted) = redacted_endpoint(metadata) {
        metadata.insert(ENDPOINT.to_owned(), redacted);
    }
}

/// Returns the endpoint without possible secrets, or `None` if it cannot contain any.
pub(crate) fn redacted_endpoint(metadata: &BTreeMap<String, Value>) -> Option<Value> {
    let Value::String(endpoint) = metadata.get(ENDPOINT)? else {
        return None;
    };
    let may_be_secret = endpoint.contains(['?', '#', '@', '=']);
    may_be_secret.then(|| endpoint_text(endpoint).into())
}

/// Returns an endpoint without user, password, query and fragment, whatever their form. It can be a
/// whole URL, or begin with the host or the path.
fn endpoint_text(endpoint: &str) -> String {
    let mut text = redact::text(endpoint);
    if let Some(start) = text.find(['?', '#']) {
        text.truncate(start + 1);
        text.push_str(REDACTED);
    }
    let start = text.find("//").map_or(0, |slashes| slashes + 2);
    let end = text[start..].find(['/', '\\', '?', '#']);
    let authority = &text[start..end.map_or(text.len(), |end| start + end)];
    if let Some((user, _)) = authority.rsplit_once('@') {
        let user = start..start + user.len();
        if &text[user.clone()] != REDACTED {
            text.replace_range(user, REDACTED);
        }
    }
    text
}

/// Returns the host of an address that is more than a host, or `None` if it is not certain.
pub(crate) fn host(address: &str) -> Option<&str> {
    let rest = address.split_once("//").map_or(address, |(_, rest)| rest);
    let end = rest.find(['/', '\\', '?', '#']);
    let (authority, path) = rest.split_at(end.unwrap_or(rest.len()));
    // A password can contain a slash, so the part before it need not be the authority.
    if path.contains('@') {
        return None;
    }
    let host = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    (!host.is_empty()).then_some(host)
}

/// Returns the longest prefix of a text that has at most `max_bytes` bytes and ends at a character
/// boundary.
///
/// ```
/// assert_eq!(l0_core::keys::cut("äöü", 3), "ä");
/// ```
#[must_use]
pub fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..char_boundary(text, max_bytes.min(text.len()))]
}

/// The rules for the metadata keys that an adapter can send.
#[derive(Clone, Copy)]
#[non_exhaustive]
pub struct KeyRules {
    spell: fn(&str) -> Option<String>,
    expected: &'static str,
    reserved: fn(&str) -> bool,
}

impl KeyRules {
    /// Creates the rules of an adapter. `spell` returns the name under which a key is sent, or `None`
    /// for a key that cannot be sent. `expected` describes valid keys in error messages.
    #[must_use]
    pub const fn new(spell: fn(&str) -> Option<String>, expected: &'static str) -> Self {
        Self {
            spell,
            expected,
            reserved: |_| false,
        }
    }

    /// Sets the names that the adapter sends itself. No key can be sent under these names.
    #[must_use]
    pub const fn reserved(mut self, reserved: fn(&str) -> bool) -> Self {
        self.reserved = reserved;
        self
    }
}

impl fmt::Debug for KeyRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRules")
            .field("expected", &self.expected)
            .finish_non_exhaustive()
    }
}

/// The metadata entries that an adapter sends, and their names. The adapter sends no other metadata.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyList {
    /// Key and name, in ascending order of the names.
    keys: Vec<(String, String)>,
}

/// The reason why a key cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// The key cannot be spelled as a name.
    #[error("the metadata key {key:?} cannot be sent: it is not {expected}")]
    #[non_exhaustive]
    Invalid {
        /// The key.
        key: String,
        /// A description of valid keys.
        expected: &'static str,
    },
    /// The adapter uses this name for another value.
    #[error(
        "the metadata key {key:?} cannot be sent as `{name}`, which is a reserved name: choose another key"
    )]
    #[non_exhaustive]
    Reserved {
        /// The key.
        key: String,
        /// The name.
        name: String,
    },
    /// Another key in the list is sent under the same name.
    #[error("the metadata keys {key:?} and {other:?} would both be sent as `{name}`")]
    #[non_exhaustive]
    Repeated {
        /// The key.
        key: String,
        /// The key already in the list.
        other: String,
        /// The name.
        name: String,
    },
}

impl KeyList {
    /// The maximum length of a value, in bytes. Longer values are truncated.
    pub const MAX_VALUE: usize = 256;

    /// Creates an empty list.
    #[must_use]
    pub const fn new() -> Self {
        Self { keys: Vec::new() }
    }

    /// Adds keys. A key that is already in the list is kept once.
    ///
    /// # Errors
    ///
    /// Returns an error if the rules do not allow a key, or if two keys have the same name.
    pub fn add<I>(&mut self, keys: I, rules: &KeyRules) -> Result<(), KeyError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        for key in keys {
            let key = key.into();
            let Some(name) = (rules.spell)(&key) else {
                let expected = rules.expected;
                return Err(KeyError::Invalid { key, expected });
            };
            if (rules.reserved)(&name) {
                return Err(KeyError::Reserved { key, name });
            }
            match self.keys.binary_search_by(|(_, known)| known.cmp(&name)) {
                Ok(at) if self.keys[at].0 == key => {}
                Ok(at) => {
                    let other = self.keys[at].0.clone();
                    return Err(KeyError::Repeated { key, other, name });
                }
                Err(at) => self.keys.insert(at, (key, name)),
            }
        }
        Ok(())
    }

    /// Returns the listed entries of a run as names and values, in ascending order of the names. Values
    /// are read as by [`text`] and truncated to [`MAX_VALUE`](Self::MAX_VALUE). Empty values are
    /// skipped.
    pub fn pick<'a>(
        &'a self,
        metadata: &'a BTreeMap<String, Value>,
    ) -> impl Iterator<Item = (&'a str, Cow<'a, str>)> {
        self.keys.iter().filter_map(move |(key, name)| {
            let value = match text(metadata, key)? {
                Cow::Borrowed(text) => Cow::Borrowed(cut(text, Self::MAX_VALUE)),
                Cow::Owned(mut text) => {
                    text.truncate(cut(&text, Self::MAX_VALUE).len());
                    Cow::Owned(text)
                }
            };
            (!value.is_empty()).then_some((&**name, value))
        })
    }

    /// Iterates over the listed keys and their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.keys.iter().map(|(key, name)| (&**key, &**name))
    }

    /// Returns `true` if the list is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
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

    #[test]
    fn a_text_is_cut_between_characters() {
        for (text, max, cut_text) in [
            ("abc", 3, "abc"),
            ("abc", 2, "ab"),
            ("äb", 1, ""),
            ("äb", 2, "ä"),
            ("", 0, ""),
        ] {
            assert_eq!(cut(text, max), cut_text);
        }
    }

    const RULES: KeyRules = KeyRules::new(
        |key| (!key.is_empty()).then(|| key.replace(' ', "_")),
        "a text",
    )
    .reserved(|name| name == "outcome");

    #[test]
    fn listed_entries_are_picked_by_name() {
        let mut list = KeyList::new();
        list.add(["model", "user id"], &RULES).unwrap();
        list.add(["model", "missing", "empty", "null"], &RULES)
            .unwrap();
        let metadata = BTreeMap::from(
            [
                ("model", json!("x".repeat(300))),
                ("user id", json!(7)),
                ("empty", json!("")),
                ("null", json!(null)),
                ("secret", json!("value")),
            ]
            .map(|(key, value)| (key.to_owned(), value)),
        );
        let picked: Vec<_> = list.pick(&metadata).collect();
        assert_eq!(
            picked,
            [("model", "x".repeat(256).into()), ("user_id", "7".into())]
        );
    }

    #[test]
    fn a_key_that_cannot_be_sent_is_named() {
        for (keys, error) in [
            (
                vec![""],
                "the metadata key \"\" cannot be sent: it is not a text",
            ),
            (
                vec!["outcome"],
                "the metadata key \"outcome\" cannot be sent as `outcome`, which is a reserved \
                 name: choose another key",
            ),
            (
                vec!["a b", "a_b"],
                "the metadata keys \"a_b\" and \"a b\" would both be sent as `a_b`",
            ),
        ] {
            let added = KeyList::new().add(keys, &RULES);
            assert_eq!(added.unwrap_err().to_string(), error);
        }
    }
}
