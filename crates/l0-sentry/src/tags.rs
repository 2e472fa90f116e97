//! The keys and values that Sentry accepts for tags.

use l0_core::KeyRules;

/// The maximum number of characters of a key or a value.
const MAX: usize = 200;

/// The part of L0 that reports an error.
pub(crate) const COMPONENT: &str = "component";
/// The class of an error.
pub(crate) const ERROR_TYPE: &str = "error_type";
/// The rule of a violation.
pub(crate) const RULE: &str = "rule";

/// The rules for metadata keys that can become tags.
pub(crate) const RULES: KeyRules = KeyRules::new(key, "a text of at least one character")
    .reserved(|name| matches!(name, COMPONENT | ERROR_TYPE | RULE));

/// Returns the sanitized key, or `None` if it is empty.
pub(crate) fn key(key: &str) -> Option<String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | ':' | '-');
    let clean = key.chars().take(MAX);
    let clean: String = clean.map(|c| if allowed(c) { c } else { '_' }).collect();
    (!clean.is_empty()).then_some(clean)
}

/// Returns the sanitized value, or `None` if it is empty.
pub(crate) fn value(value: &str) -> Option<String> {
    let value = value.trim();
    let clean = value.chars().take(MAX);
    let clean: String = clean
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    (!clean.is_empty()).then_some(clean)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_values_are_limited_to_what_sentry_accepts() {
        for (raw, sent) in [
            ("model", Some("model")),
            ("a.b:c-d_1", Some("a.b:c-d_1")),
            ("user id/ä\n", Some("user_id___")),
            ("", None),
        ] {
            assert_eq!(key(raw).as_deref(), sent, "{raw:?}");
        }
        for (raw, sent) in [
            ("gpt-4 ä", Some("gpt-4 ä")),
            (" a\nb\u{7} ", Some("a b ")),
            ("a\r\nb", Some("a  b")),
            (" \n", None),
        ] {
            assert_eq!(value(raw).as_deref(), sent, "{raw:?}");
        }
        let long = "ä".repeat(201);
        assert_eq!(value(&long).map(|value| value.chars().count()), Some(200));
        assert_eq!(key(&long).map(|key| key.len()), Some(200));
    }
}
