//! Labels: the metadata that becomes labels, and the text that identifies a label set.

use l0_core::{KeyList, KeyRules, Metadata, Quantity};
use metrics::Label;

use crate::layout::FALLBACK_LABELS;

/// The rules for metadata keys that become labels. They allow only names that every exporter accepts, so none
/// has to be changed.
pub(crate) const KEYS: KeyRules = KeyRules::new(
    |key| is_label_name(key).then(|| key.to_owned()),
    "of the form [a-zA-Z_][a-zA-Z0-9_]*: letters, digits and underscores",
)
.reserved(is_reserved);

/// The value of labels beyond the limit.
pub(crate) const OTHER: &str = "other";

fn is_label_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(allowed)
}

/// Returns `true` if Prometheus or a metric of runs uses the name.
fn is_reserved(name: &str) -> bool {
    let of_format = name.starts_with("__") || name == "le" || name == "quantile";
    let of_fallbacks = FALLBACK_LABELS.contains(&name);
    of_format || of_fallbacks || Quantity::ALL.iter().any(|one| one.labels().contains(&name))
}

/// Appends the labels from the metadata, as a text that no other labels have.
pub(crate) fn put_key(text: &mut String, keys: &KeyList, metadata: &Metadata) {
    text.clear();
    for (name, value) in keys.pick(metadata) {
        push(text, name, &value);
    }
}

/// Returns the same names, each with the value `other`.
pub(crate) fn other(keys: &KeyList, metadata: &Metadata) -> (String, Vec<Label>) {
    let mut text = String::new();
    let mut labels = Vec::new();
    for (name, _) in keys.pick(metadata) {
        push(&mut text, name, OTHER);
        labels.push(Label::new(name.to_owned(), OTHER));
    }
    (text, labels)
}

/// Returns the labels from the metadata.
pub(crate) fn labels(keys: &KeyList, metadata: &Metadata) -> Vec<Label> {
    let picked = keys.pick(metadata);
    let label = |(name, value): (&str, _)| Label::new(name.to_owned(), String::from(value));
    picked.map(label).collect()
}

/// A value can be any text, so its length precedes it, as one character. Values are cut, so the length fits.
fn push(text: &mut String, name: &str, value: &str) {
    text.reserve(name.len() + value.len() + 4);
    text.push_str(name);
    text.push('=');
    text.extend(u32::try_from(value.len()).ok().and_then(char::from_u32));
    text.push_str(value);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_labels_have_different_keys() {
        let mut keys = KeyList::new();
        keys.add(["a", "b"], &KEYS).unwrap();
        let values = [
            "",
            "x",
            "x\u{1}",
            "xb=\u{1}y",
            "\u{1}y",
            "y",
            "=",
            "b=\u{1}y",
        ];
        let mut seen = HashSet::new();
        for a in values {
            for b in values {
                let mut metadata = Metadata::default();
                metadata.insert("a".to_owned(), a.into());
                metadata.insert("b".to_owned(), b.into());
                let mut key = String::new();
                put_key(&mut key, &keys, &metadata);
                assert!(seen.insert(key), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn names_with_a_meaning_are_reserved() {
        let reserved = [
            "le",
            "quantile",
            "__name__",
            "from",
            "to",
            "error_type",
            "severity",
            "rule",
            "outcome",
            "result",
        ];
        for name in reserved {
            assert!(KeyList::new().add([name], &KEYS).is_err(), "{name}");
        }
        for name in ["", "9a", "a-b", "a.b", "ü"] {
            assert!(KeyList::new().add([name], &KEYS).is_err(), "{name}");
        }
    }
}
