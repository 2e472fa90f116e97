//! Labels: what of a run's metadata becomes labels, and the text that tells label sets apart.

use l0_core::{KeyList, KeyRules, Metadata, Quantity};
use metrics::Label;

use crate::layout::FALLBACK_LABELS;

/// Which metadata keys can be labels, under their own names: those that every exporter takes, so that
/// none has to spell one in another way.
pub(crate) const KEYS: KeyRules = KeyRules::new(
    |key| is_label_name(key).then(|| key.to_owned()),
    "of the form [a-zA-Z_][a-zA-Z0-9_]*: letters, digits and underscores",
)
.reserved(is_reserved);

/// The value of what is too many to be told apart.
pub(crate) const OTHER: &str = "other";

fn is_label_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(allowed)
}

/// Whether Prometheus or a metric of runs gives the name a meaning.
fn is_reserved(name: &str) -> bool {
    let of_format = name.starts_with("__") || name == "le" || name == "quantile";
    let of_fallbacks = FALLBACK_LABELS.contains(&name);
    of_format || of_fallbacks || Quantity::ALL.iter().any(|one| one.labels().contains(&name))
}

/// The labels that metadata gives, as a text that no other labels have.
pub(crate) fn key(keys: &KeyList, metadata: &Metadata) -> String {
    let mut text = String::new();
    for (name, value) in keys.pick(metadata) {
        push(&mut text, name, &value);
    }
    text
}

/// The same names, each with the value of what is too many.
pub(crate) fn other(keys: &KeyList, metadata: &Metadata) -> (String, Vec<Label>) {
    let mut text = String::new();
    let mut labels = Vec::new();
    for (name, _) in keys.pick(metadata) {
        push(&mut text, name, OTHER);
        labels.push(Label::new(name.to_owned(), OTHER));
    }
    (text, labels)
}

/// The labels that metadata gives.
pub(crate) fn labels(keys: &KeyList, metadata: &Metadata) -> Vec<Label> {
    let picked = keys.pick(metadata);
    let label = |(name, value): (&str, _)| Label::new(name.to_owned(), String::from(value));
    picked.map(label).collect()
}

/// Values are any text, so that what ends one is said before it: its length, as a character. Values
/// are cut, and so it is one.
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
                assert!(seen.insert(key(&keys, &metadata)), "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn names_that_mean_something_are_reserved() {
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
