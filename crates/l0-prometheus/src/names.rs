//! Names: the rules of Prometheus, and reserved names.

use l0_core::{KeyRules, Quantity};

use crate::error::LabelError;
use crate::layout::FALLBACK_LABELS;

/// The rules for metadata keys that become labels under their own names.
pub(crate) const KEYS: KeyRules = KeyRules::new(
    |key| is_label_name(key).then(|| key.to_owned()),
    "of the form [a-zA-Z_][a-zA-Z0-9_]*: letters, digits and underscores",
)
.reserved(is_reserved);

/// Returns `true` if Prometheus allows this metric name.
pub(crate) fn is_metric_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b':';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(allowed)
}

/// Returns `true` if Prometheus allows this label name.
fn is_label_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    !name.is_empty() && !name.as_bytes()[0].is_ascii_digit() && name.bytes().all(allowed)
}

/// Returns `true` if the format or a metric of runs uses the name.
fn is_reserved(name: &str) -> bool {
    let of_format = name.starts_with("__") || name == "le" || name == "quantile";
    let of_fallbacks = FALLBACK_LABELS.contains(&name);
    of_format || of_fallbacks || Quantity::ALL.iter().any(|one| one.labels().contains(&name))
}

/// Returns the name if a caller can use it.
pub(crate) fn check_label(name: &str) -> Result<&str, LabelError> {
    if !is_label_name(name) {
        Err(LabelError::Invalid(name.to_owned()))
    } else if is_reserved(name) {
        Err(LabelError::Reserved(name.to_owned()))
    } else {
        Ok(name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn label_names_have_letters_digits_and_underscores() {
        for name in ["a", "_", "_9", "modelName", "user_tier", "reason"] {
            assert_eq!(check_label(name), Ok(name));
        }
        for name in ["", "9a", "a-b", "a b", "ü", "a:b", "a=", "a\"", "a\n"] {
            assert_eq!(check_label(name), Err(LabelError::Invalid(name.to_owned())));
        }
    }

    #[test]
    fn names_with_a_meaning_are_reserved() {
        for name in [
            "le",
            "quantile",
            "error_type",
            "severity",
            "rule",
            "outcome",
            "result",
            "from",
            "to",
            "__name__",
            "__",
            "__x",
        ] {
            assert_eq!(
                check_label(name),
                Err(LabelError::Reserved(name.to_owned()))
            );
        }
    }

    #[test]
    fn metric_names_may_have_colons() {
        for name in ["l0", "a:b", ":", "_9"] {
            assert!(is_metric_name(name), "{name}");
        }
        for name in ["", "9a", "a-b", "ü", "a b"] {
            assert!(!is_metric_name(name), "{name}");
        }
    }
}
